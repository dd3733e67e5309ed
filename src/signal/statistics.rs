//! Statistics of one window.
//!
//! A window is a slice of rows, one per sample. A row has `L` signals side by side (`[f64; 1]` for one signal), and
//! every function gives one figure per lane. Constant signals have a standard deviation, correlation and autoregression
//! of 0, never NaN. Windows have at least one sample.

// Functions of windows are always inlined, so that they use the SIMD instructions that their caller is compiled for.

// Lanes are indexed because every loop body updates several arrays at one lane; zipped iterators over five arrays would
// hide that from the reader and the compiler.
#![allow(clippy::needless_range_loop)]

/// The result of [`describe`] for each lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description<const L: usize> {
    /// Mean.
    pub mean: [f64; L],
    /// Standard deviation, with `n - 1`; 0 for a single sample.
    pub std: [f64; L],
    /// Mean absolute deviation from the mean.
    pub mad: [f64; L],
    /// Largest value.
    pub max: [f64; L],
    /// Smallest value.
    pub min: [f64; L],
    /// Mean absolute value; the sum over three axes is their signal magnitude area.
    pub magnitude: [f64; L],
    /// Mean square.
    pub energy: [f64; L],
}

/// The moments of a window in two passes: sums and extremes, then deviations from the mean (the mean absolute
/// deviation needs the mean first, and the standard deviation loses no digits that way).
///
/// ```
/// let d = dacpipe::signal::statistics::describe(&[[1.0], [2.0], [3.0], [-2.0]]);
/// assert_eq!((d.mean, d.max, d.min), ([1.0], [3.0], [-2.0]));
/// assert_eq!((d.mad, d.magnitude, d.energy), ([1.5], [2.0], [4.5]));
/// assert!((d.std[0] - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
/// ```
#[inline(always)]
pub fn describe<const L: usize>(x: &[[f64; L]]) -> Description<L> {
    let n = x.len() as f64;
    let (mut sum, mut magnitude, mut energy) = ([0.0; L], [0.0; L], [0.0; L]);
    let (mut max, mut min) = ([f64::NEG_INFINITY; L], [f64::INFINITY; L]);
    for row in x {
        for l in 0..L {
            let v = row[l];
            sum[l] += v;
            magnitude[l] += v.abs();
            energy[l] += v * v;
            max[l] = if v > max[l] { v } else { max[l] };
            min[l] = if v < min[l] { v } else { min[l] };
        }
    }
    let mean = sum.map(|s| s / n);
    let (mut absolute, mut square) = ([0.0; L], [0.0; L]);
    for row in x {
        for l in 0..L {
            let d = row[l] - mean[l];
            absolute[l] += d.abs();
            square[l] += d * d;
        }
    }
    Description {
        mean,
        std: square.map(|s| (s / (n - 1.0).max(1.0)).sqrt()),
        mad: absolute.map(|s| s / n),
        max,
        min,
        magnitude: magnitude.map(|s| s / n),
        energy: energy.map(|s| s / n),
    }
}

/// The third and fourth standardised moments of each lane, divided by `n` as MATLAB's `skewness` and `kurtosis` do (a
/// normal distribution has kurtosis 3); 0 for a constant lane.
#[inline(always)]
pub fn skewness_and_kurtosis<const L: usize>(x: &[[f64; L]], mean: &[f64; L]) -> ([f64; L], [f64; L]) {
    let n = x.len() as f64;
    let (mut second, mut third, mut fourth) = ([0.0; L], [0.0; L], [0.0; L]);
    for row in x {
        for l in 0..L {
            let d = row[l] - mean[l];
            let square = d * d;
            second[l] += square;
            third[l] += square * d;
            fourth[l] += square * square;
        }
    }
    let (mut skewness, mut kurtosis) = ([0.0; L], [0.0; L]);
    for l in 0..L {
        let variance = second[l] / n;
        if variance > 0.0 {
            skewness[l] = third[l] / n / (variance * variance.sqrt());
            kurtosis[l] = fourth[l] / n / (variance * variance);
        }
    }
    (skewness, kurtosis)
}

/// Pearson's correlations xy, xz and yz of signals of three axes, given their means; each signal takes four lanes, x,
/// y, z and an unused one, and its correlations are in the first three of them. 0 for a constant axis.
#[inline(always)]
pub fn correlations<const L: usize>(x: &[[f64; L]], mean: &[f64; L]) -> [f64; L] {
    const { assert!(L.is_multiple_of(4)) };
    let (mut square, mut cross) = ([0.0; L], [0.0; L]);
    for row in x {
        let mut d = [0.0; L];
        for l in 0..L {
            d[l] = row[l] - mean[l];
        }
        for l in 0..L {
            square[l] += d[l] * d[l];
            cross[l] += d[l] * d[next_axis(l)];
        }
    }
    let mut found = [0.0; L];
    for signal in (0..L).step_by(4) {
        for (place, [i, j]) in [[0, 1], [2, 0], [1, 2]].into_iter().enumerate() {
            let squares = square[signal + i] * square[signal + j];
            found[signal + place] = ratio(cross[signal + i], squares.sqrt());
        }
    }
    found
}

/// The next axis: the lane of y for x, z for y, x for z.
const fn next_axis(lane: usize) -> usize {
    lane / 4 * 4 + [1, 2, 0, 3][lane % 4]
}

/// Pearson's correlation of two signals of the same length, given their means; 0 if one is constant.
pub fn correlation(x: &[f64], y: &[f64], mean_x: f64, mean_y: f64) -> f64 {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    ratio(xy, (xx * yy).sqrt())
}

/// The angle between two vectors, in radians from 0 to π; π/2 if one of them is 0.
///
/// ```
/// use dacpipe::signal::statistics::angle;
/// assert_eq!(angle(&[1.0, 0.0, 0.0], &[-2.0, 0.0, 0.0]), std::f64::consts::PI);
/// ```
pub fn angle(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    let dot = |a: &[f64; 3], b: &[f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    ratio(dot(a, b), (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0).acos()
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::autoregression::{BurgScratch, burg};
    use super::super::entropy::{LevelEntropy, histogram_entropy};
    use super::super::quartiles::Quartiles;
    use super::*;

    fn wave(n: usize) -> Vec<[f64; 4]> {
        let value = |i: usize, l: usize| {
            let t = (i + 11 * l) as f64;
            (t * 0.37).sin() + 0.25 * (t * t * 0.11).cos() + 0.5 * l as f64
        };
        (0..n).map(|i| [value(i, 0), value(i, 1), value(i, 2), 0.0]).collect()
    }

    fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance * (1.0 + b.abs())
    }

    // import numpy as np; from scipy.stats import skew, kurtosis
    // t = np.arange(50); x = np.sin(t * .37) + .25 * np.cos(t * t * .11)
    // u = t + 11; y = np.sin(u * .37) + .25 * np.cos(u * u * .11) + .5
    // q = np.quantile(x, [.25, .75], method='hazen'); lv = np.floor(np.clip(x, 0, 1) * 255 + .5).astype(int)
    // p = np.unique(lv, return_counts=True)[1] / 50; h = np.histogram(x, 16)[0] / 50; h = h[h > 0]
    // for v in (x.mean(), x.std(ddof=1), abs(x - x.mean()).mean(), x.max(), x.min(), abs(x).mean(), (x * x).mean(),
    //           skew(x), kurtosis(x, fisher=False), q[1] - q[0], -(p * np.log2(p)).sum(), -(h * np.log2(h)).sum(),
    //           np.corrcoef(x, y)[0, 1]): print('%.12g' % v)
    #[test]
    fn figures_equal_scipy() {
        let x = wave(50);
        let d = describe(&x);
        let (skewness, kurtosis) = skewness_and_kurtosis(&x, &d.mean);
        let column: Vec<f64> = x.iter().map(|row| row[0]).collect();
        let histogram = histogram_entropy(&column, d.min[0], d.max[0]);
        let got = [
            d.mean[0],
            d.std[0],
            d.mad[0],
            d.max[0],
            d.min[0],
            d.magnitude[0],
            d.energy[0],
            skewness[0],
            kurtosis[0],
            Quartiles::new(50, 4).ranges(&x)[0],
            LevelEntropy::new(50, 4).of(&x, 1.0)[0],
            histogram,
            correlations(&x, &d.mean)[0],
        ];
        for (i, (g, e)) in got
            .iter()
            .zip([
                0.0358123803479,
                0.733977938283,
                0.651519038082,
                1.14866892297,
                -1.21095488239,
                0.654241027514,
                0.529231668195,
                -0.131790397034,
                1.6463017377,
                1.31647729607,
                3.26791993995,
                3.69417732067,
                -0.638350878004,
            ])
            .enumerate()
        {
            assert!(close(*g, e, 1e-11), "figure {i}: {g}, scipy has {e}");
        }
    }

    #[test]
    fn flat_and_tiny_windows_give_numbers() {
        for n in 1..7 {
            let x = vec![[0.0, 1.0, 2.0, 3.0]; n];
            let d = describe(&x);
            let (s, k) = skewness_and_kurtosis(&x, &d.mean);
            assert_eq!((d.std, s, k), ([0.0; 4], [0.0; 4], [0.0; 4]));
            assert_eq!(correlations(&x, &d.mean), [0.0; 4]);
            assert_eq!(Quartiles::new(n, 4).ranges(&x), [0.0; 4]);
            assert!(burg(&x, &mut BurgScratch::new(n)).iter().flatten().all(|v| v.is_finite()));
            assert_eq!(LevelEntropy::new(n, 4).of(&x, 1.0), [0.0; 4]);
        }
        assert_eq!(angle(&[0.0; 3], &[1.0, 0.0, 0.0]), std::f64::consts::FRAC_PI_2);
    }
}
