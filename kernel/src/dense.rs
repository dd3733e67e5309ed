//! Passes over rows that stand between the matrix products of a dense network: the error of a reconstruction with its
//! gradient, column sums for the bias gradients, sums of squares.

use super::Pool;
use super::isa::{LANES, vectorised};

/// Adds lanes up in a fixed tree.
#[inline(always)]
pub(super) fn total(mut lanes: [f64; LANES]) -> f64 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// What the error of a value is.
pub(super) trait ValueError {
    /// The errors of sixteen values, which count `w`, are added to `sums`; their slopes are returned.
    fn sixteen(&self, x: &[f32; LANES], y: &[f32; LANES], w: &[f32; LANES], sums: &mut [f64; LANES]) -> [f32; LANES];
}

/// The errors of one row, summed, and their slopes by the `y` into `gradient`. Empty `weights` stand for ones. Compiled into
/// each kernel that is one.
#[inline(always)]
pub(super) fn errors_of_row(
    error: &impl ValueError,
    x: &[f32],
    y: &[f32],
    weights: &[f32],
    gradient: &mut [f32],
) -> f64 {
    let n = x.len();
    let mut sums = [0.0_f64; LANES];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks(), y[..n].as_chunks());
    let (slopes, slopes_rest) = gradient[..n].as_chunks_mut();
    if weights.is_empty() {
        for ((x, y), slopes) in xs.iter().zip(ys).zip(slopes) {
            *slopes = error.sixteen(x, y, &[1.0; LANES], &mut sums);
        }
    } else {
        let (ws, _) = weights[..n].as_chunks();
        for (((x, y), w), slopes) in xs.iter().zip(ys).zip(ws).zip(slopes) {
            *slopes = error.sixteen(x, y, w, &mut sums);
        }
    }
    if !x_rest.is_empty() {
        // What pads the last values counts nothing.
        let mut w = [0.0; LANES];
        match weights.is_empty() {
            true => w[..x_rest.len()].fill(1.0),
            false => w[..x_rest.len()].copy_from_slice(&weights[n - x_rest.len()..n]),
        }
        let last = error.sixteen(&padded(x_rest), &padded(y_rest), &w, &mut sums);
        slopes_rest.copy_from_slice(&last[..x_rest.len()]);
    }
    total(sums)
}

/// The squared error, whose slope is `twice` times the error.
struct Squared {
    twice: f32,
}

impl ValueError for Squared {
    #[inline(always)]
    fn sixteen(&self, x: &[f32; LANES], y: &[f32; LANES], w: &[f32; LANES], sums: &mut [f64; LANES]) -> [f32; LANES] {
        sixteen_errors(x, y, w, self.twice, sums)
    }
}

/// The errors of sixteen values: their weighted squares are added to `sums`, `twice` times the weighted errors returned.
#[inline(always)]
fn sixteen_errors(
    x: &[f32; LANES],
    y: &[f32; LANES],
    w: &[f32; LANES],
    twice: f32,
    sums: &mut [f64; LANES],
) -> [f32; LANES] {
    let mut slopes = [0.0; LANES];
    for l in 0..LANES {
        let error = y[l] - x[l];
        let weighted = w[l] * error;
        sums[l] += f64::from(weighted) * f64::from(error);
        slopes[l] = twice * weighted;
    }
    slopes
}

/// The values of a last chunk with zeros after them.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    std::array::from_fn(|l| rest.get(l).copied().unwrap_or(0.0))
}

vectorised! {
    /// The weighted squared error of one row, `sum_i w_i (y_i - x_i)^2`, and into `gradient` its derivative by the
    /// `y_i` times `scale`. Empty `weights` stand for ones.
    pub fn weighted_squared_error(x: &[f32], y: &[f32], weights: &[f32], scale: f32, gradient: &mut [f32]) -> f64 {
        errors_of_row(&Squared { twice: 2.0 * scale }, x, y, weights, gradient)
    }
}

vectorised! {
    /// The squared error of one row, `sum_i (y_i - x_i)^2`: the bits of [`weighted_squared_error`] without weights.
    pub fn squared_error(x: &[f32], y: &[f32]) -> f64 {
        let mut sums = [0.0_f64; LANES];
        let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks(), y[..x.len()].as_chunks());
        for (x, y) in xs.iter().zip(ys) {
            sixteen_errors(x, y, &[1.0; LANES], 0.0, &mut sums);
        }
        if !x_rest.is_empty() {
            sixteen_errors(&padded(x_rest), &padded(y_rest), &[1.0; LANES], 0.0, &mut sums);
        }
        total(sums)
    }
}

vectorised! {
    /// Adds the rows of `values` (they begin `stride` values apart) to `sums`, one after the other.
    pub fn add_rows(values: &[f32], stride: usize, sums: &mut [f32]) {
        for row in values.chunks_exact(stride) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += v;
            }
        }
    }
}

vectorised! {
    /// The sum of squares, in `f64`.
    pub fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0_f64; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, &v) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        for (sum, &v) in sums.iter_mut().zip(rest) {
            *sum += f64::from(v) * f64::from(v);
        }
        total(sums)
    }
}

/// The same on all threads: parts of a fixed size, added in their order.
pub fn sum_of_squares_on(pool: &Pool, values: &[f32]) -> f64 {
    const PART: usize = 1 << 15;
    const PARTS: usize = 64;
    let mut sum = 0.0;
    for values in values.chunks(PARTS * PART) {
        let mut parts = [0.0; PARTS];
        let used = values.len().div_ceil(PART);
        pool.for_each_chunk_mut(&mut parts[..used], 1, |i, part| {
            part[0] = sum_of_squares(&values[i * PART..values.len().min((i + 1) * PART)]);
        });
        parts[..used].iter().for_each(|part| sum += part);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;
    use proptest::prelude::*;

    /// Rows of any length of one kind of values.
    fn row() -> impl Strategy<Value = Vec<f32>> {
        let kind = prop_oneof![
            Just(vec![0.0f32, -0.0]),
            Just(vec![0.0, 1e-40, -1e-45, 1e-30]),
            Just(vec![1e30, -1e30, 1.0]),
            prop::collection::vec(-10.0f32..10.0, 50),
        ];
        (kind, 1usize..70).prop_flat_map(|(kind, n)| prop::collection::vec(prop::sample::select(kind), n))
    }

    /// Lane `l` takes every sixteenth value in order; then halves are added to halves.
    fn in_lanes(values: &[f64]) -> f64 {
        let mut lanes: Vec<f64> =
            (0..LANES).map(|l| values.iter().skip(l).step_by(LANES).fold(0.0, |sum, v| sum + v)).collect();
        while lanes.len() > 1 {
            let high = lanes.split_off(lanes.len() / 2);
            lanes.iter_mut().zip(high).for_each(|(low, high)| *low += high);
        }
        lanes[0]
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_one_value_at_a_time(
            x in row(), y in row(), weighted in any::<bool>(), scale in 1e-3f32..1.0
        ) {
            let n = x.len().min(y.len());
            let (x, y) = (&x[..n], &y[..n]);
            let weights: Vec<f32> = (0..n).filter(|_| weighted).map(|i| (i % 5) as f32 * 0.25).collect();
            let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
            let parts: Vec<f64> = (0..n).map(|i| f64::from(weight(i) * (y[i] - x[i])) * f64::from(y[i] - x[i])).collect();
            let slopes: Vec<f32> = (0..n).map(|i| 2.0 * scale * (weight(i) * (y[i] - x[i]))).collect();
            let squares: Vec<f64> = x.iter().map(|&v| f64::from(v) * f64::from(v)).collect();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            on_each(|isa| {
                let mut gradient = vec![f32::NAN; n];
                let error = weighted_squared_error(x, y, &weights, scale, &mut gradient);
                assert_eq!(error.to_bits(), in_lanes(&parts).to_bits(), "{isa:?}");
                assert!(error.is_finite());
                let plain = weighted_squared_error(x, y, &[], scale, &mut vec![0.0; n]);
                assert_eq!(squared_error(x, y).to_bits(), plain.to_bits(), "{isa:?}");
                assert_eq!(bits(&gradient), bits(&slopes), "{isa:?}");
                assert_eq!(sum_of_squares(x).to_bits(), in_lanes(&squares).to_bits(), "{isa:?}");
                for stride in [1, 2, 3, n] {
                    let mut sums = vec![0.5; stride];
                    add_rows(x, stride, &mut sums);
                    let twin = |i: usize| x[..n / stride * stride].iter().skip(i).step_by(stride).fold(0.5f32, |sum, v| sum + v);
                    assert!((0..stride.min(n)).all(|i| sums[i].to_bits() == twin(i).to_bits()), "{isa:?}");
                }
            });
        }
    }

    #[test]
    fn squared_error_equals_its_definition_at_every_length() {
        for n in [1, 2, 15, 16, 17, 33, 561] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let w: Vec<f32> = (0..n).map(|i| i as f32 / n as f32).collect();
            for weights in [&w[..], &[]] {
                let mut gradient = vec![f32::NAN; n];
                let value = weighted_squared_error(&x, &y, weights, 0.5, &mut gradient);
                let weight = |i: usize| weights.get(i).map_or(1.0, |&w| f64::from(w));
                let error = |i: usize| f64::from(y[i]) - f64::from(x[i]);
                let exact: f64 = (0..n).map(|i| weight(i) * error(i) * error(i)).sum();
                assert!((value - exact).abs() <= 1e-6 * exact.abs());
                assert!((0..n).all(|i| (f64::from(gradient[i]) - weight(i) * error(i)).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn rows_are_added_and_padding_is_left_out() {
        let mut sums = [1.0, 2.0];
        add_rows(&[1.0, 2.0, 99.0, 3.0, 4.0, 99.0], 3, &mut sums);
        assert_eq!(sums, [5.0, 8.0]);
    }

    #[test]
    fn squares_are_summed_in_double_precision() {
        assert_eq!(sum_of_squares(&[]), 0.0);
        assert_eq!(sum_of_squares(&[3.0; 35]), 315.0);
        let many: Vec<f32> = (0..100_003).map(|i| (i % 7) as f32).collect();
        for threads in 1..4 {
            assert_eq!(sum_of_squares_on(&Pool::new(threads), &many), sum_of_squares(&many));
        }
        assert_eq!(sum_of_squares(&[1e30, 1.0]), f64::from(1e30_f32) * f64::from(1e30_f32) + 1.0);
    }
}
