//! The binary cross-entropy of rows in [0, 1] and their reconstructions, with its gradient.

use super::dense::{ValueError, errors_of_row};
use super::isa::{LANES, vectorised};

/// How far a reconstruction stays from 0 and 1, where the slope is infinite: `y` counts as `y (1 - 2e) + e`.
pub const EDGE: f32 = 1e-7;

/// The natural logarithm of a normal number above zero, within 2e-7 of it or of the result, whichever is larger.
///
/// `x = 2^n m` with `m` between the root of a half and the root of two; the logarithm of `m` is twice the inverse hyperbolic
/// tangent of `(m - 1) / (m + 1)`, whose series is cut off below 1e-8 of it. Nothing but IEEE operations, so every
/// instruction set gives the same bits.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // Of the root of a half: what is added to the bits carries into the exponent where the mantissa is above the root of 2.
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF);
    let n = (shifted as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((n as u32) << 23));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let tail = [9.0, 7.0, 5.0, 3.0].map(|n: f32| 1.0 / n);
    let sum = tail.into_iter().fold(1.0 / 11.0, |sum: f32, c| sum.mul_add(z, c));
    let twice = 2.0 * s;
    let n = n as f32;
    // The logarithm of 2 in two parts: the first has zeros in its lowest bits, so that its multiples are exact.
    n.mul_add(0.693_359_4, (sum * z).mul_add(twice, twice) + n * -2.121_944_4e-4)
}

/// The cross-entropy, whose slope is taken `scale` times.
struct CrossEntropy {
    scale: f32,
}

impl ValueError for CrossEntropy {
    #[inline(always)]
    fn sixteen(&self, x: &[f32; LANES], y: &[f32; LANES], w: &[f32; LANES], sums: &mut [f64; LANES]) -> [f32; LANES] {
        const INNER: f32 = 1.0 - 2.0 * EDGE;
        let mut slopes = [0.0; LANES];
        for l in 0..LANES {
            // Each from its own side: next to 1, `1 - y` of a rounded `y` has few bits.
            let (y, rest) = (y[l].mul_add(INNER, EDGE), (1.0 - y[l]).mul_add(INNER, EDGE));
            let error = -(x[l] * ln(y) + (1.0 - x[l]) * ln(rest));
            sums[l] += f64::from(w[l] * error);
            slopes[l] = self.scale * INNER * w[l] * ((y - x[l]) / (y * rest));
        }
        slopes
    }
}

vectorised! {
    /// The weighted cross-entropy of one row, `-sum_i w_i (x_i ln y_i + (1 - x_i) ln(1 - y_i))`, and into `gradient` its
    /// derivative by the `y_i` times `scale`. Empty `weights` stand for ones. Values of `y` stay [`EDGE`] away from 0 and 1.
    ///
    /// ```
    /// use dacpipe_kernel::cross_entropy::cross_entropy;
    /// let mut gradient = [0.0; 2];
    /// let error = cross_entropy(&[1.0, 0.0], &[0.5, 0.75], &[], 1.0, &mut gradient);
    /// assert!((error - 2.0_f64.ln() - 4.0_f64.ln()).abs() < 1e-6);
    /// assert!((gradient[0] + 2.0).abs() < 1e-5 && (gradient[1] - 4.0).abs() < 1e-5);
    /// ```
    pub fn cross_entropy(x: &[f32], y: &[f32], weights: &[f32], scale: f32, gradient: &mut [f32]) -> f64 {
        errors_of_row(&CrossEntropy { scale }, x, y, weights, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;

    #[test]
    fn the_logarithm_is_that_of_double_precision() {
        for i in 0..200_000_u32 {
            // All magnitudes from the edge to far above 1.
            let x = (f64::from(i) / 200_000.0 * 40.0 - 20.0).exp() as f32;
            let (found, exact) = (f64::from(ln(x)), f64::from(x).ln());
            assert!((found - exact).abs() <= 2e-7 * exact.abs().max(1.0), "{x}: {found}, not {exact}");
        }
        for x in [1.0, EDGE, 1.0 - f32::EPSILON, f32::MIN_POSITIVE] {
            let (found, exact) = (f64::from(ln(x)), f64::from(x).ln());
            assert!((found - exact).abs() <= 2e-7 * exact.abs().max(1.0), "{x}: {found}, not {exact}");
        }
    }

    #[test]
    fn errors_and_slopes_are_those_of_the_formula_on_every_instruction_set() {
        for n in [1, 15, 16, 37] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin().abs()).collect();
            let y: Vec<f32> = (0..n).map(|i| [0.0, 1.0, 0.3, 0.999, 1e-4][i % 5]).collect();
            for weights in [vec![], (0..n).map(|i| i as f32 * 0.1).collect::<Vec<f32>>()] {
                let mut expected = 0.0;
                let mut slopes = Vec::new();
                for i in 0..n {
                    let (x, edge) = (f64::from(x[i]), f64::from(EDGE));
                    let inside = |y: f64| y * (1.0 - 2.0 * edge) + edge;
                    let (y, rest) = (inside(f64::from(y[i])), inside(1.0 - f64::from(y[i])));
                    let w = weights.get(i).map_or(1.0, |&w| f64::from(w));
                    expected -= w * (x * y.ln() + (1.0 - x) * rest.ln());
                    let steepness = 0.5 * w * (1.0 - 2.0 * edge) / (y * rest);
                    // The difference of two values near 1 is exact to a rounding of them.
                    slopes.push((steepness * (y - x), 1e-7 * steepness));
                }
                let mut bits = Vec::new();
                on_each(|_| {
                    let mut gradient = vec![9.0; n];
                    let error = cross_entropy(&x, &y, &weights, 0.5, &mut gradient);
                    assert!((error - expected).abs() < 1e-5 * expected.abs() + 1e-6, "{error} {expected}");
                    for (found, (exact, rounding)) in gradient.iter().zip(&slopes) {
                        let error = (f64::from(*found) - exact).abs();
                        assert!(error <= 1e-5 * exact.abs() + rounding + 1e-6, "{found} {exact}");
                    }
                    bits.push((error.to_bits(), gradient.iter().map(|g| g.to_bits()).collect::<Vec<u32>>()));
                });
                assert!(bits.windows(2).all(|pair| pair[0] == pair[1]));
            }
        }
    }
}
