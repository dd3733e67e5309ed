//! Statistics of one window.
//!
//! A window is a slice of rows, one a sample; a row holds `L` signals side by side (`[f64; 1]` for one signal), and
//! every function gives one figure a lane. Signals that do not vary have a standard deviation, correlation and
//! autoregression of 0, never NaN. Windows hold one sample or more.

// Functions of windows are inlined always, so that they get the vector instructions of the feature set that calls them.

// Lanes are indexed because every loop body updates several arrays at one lane; iterators over five arrays zipped
// together hide that from the reader and from the vectoriser.
#![allow(clippy::needless_range_loop)]

/// What [`describe`] finds out about each lane.
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
/// normal distribution has kurtosis 3); 0 where a lane does not vary.
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

/// The whole part of a number from 0 to 2^51 in the lowest bits, by additions alone: a cast checks its range, one value
/// at a time.
#[inline(always)]
fn whole(v: f64) -> u64 {
    const UNIT: f64 = (1_u64 << 52) as f64;
    let nearest = (v + UNIT) - UNIT;
    let floor = if nearest > v { nearest - 1.0 } else { nearest };
    (floor + UNIT).to_bits()
}

/// Buckets of [`Quartiles`].
const BUCKETS: usize = 128;
/// Values looked at together when those of some buckets are picked out.
const CHUNK: usize = 16;

/// The buffers of the interquartile ranges, kept between windows.
///
/// Sorting is not needed: values are counted into equal buckets between the extremes, and only the buckets that hold
/// the quartiles are looked into. That is `O(n)` for windows whose values spread, and falls back on selection inside a
/// bucket for those that do not.
#[derive(Debug, Clone, Default)]
pub struct Quartiles {
    /// The bucket of each value, lane after lane.
    buckets: Vec<u8>,
    found: Vec<f64>,
}

impl Quartiles {
    /// For windows of `length` samples of `lanes` signals (others work, and larger ones allocate once).
    pub fn new(length: usize, lanes: usize) -> Self {
        Self { buckets: Vec::with_capacity(length * lanes), found: Vec::with_capacity(length) }
    }

    /// The distance between the first and the third quartile of each lane of `x`, whose extremes are `min` and `max`.
    ///
    /// The quantile `p` of `n` values is the sorted value at position `p n - 1/2`, counted from 0 and interpolated
    /// between neighbours (definition 5 of Hyndman and Fan, 1996; MATLAB's `prctile`).
    ///
    /// ```
    /// use dacpipe::signal::statistics::Quartiles;
    /// assert_eq!(Quartiles::new(4, 1).ranges(&[[7.0], [1.0], [5.0], [3.0]], &[1.0], &[7.0]), [4.0]);
    /// ```
    #[inline(always)]
    pub fn ranges<const L: usize>(&mut self, x: &[[f64; L]], min: &[f64; L], max: &[f64; L]) -> [f64; L] {
        let n = x.len();
        let mut scale = [0.0; L];
        for l in 0..L {
            scale[l] = (BUCKETS - 1) as f64 / (max[l] - min[l]);
        }
        let mut counts = [[0u32; BUCKETS]; L];
        self.buckets.resize(n * L, 0);
        for (i, row) in x.iter().enumerate() {
            let mut bucket = [0; L];
            for l in 0..L {
                // Multiplying and truncating keep the order, so that buckets are in the order of the values.
                bucket[l] = whole((row[l] - min[l]) * scale[l]) as usize % BUCKETS;
            }
            for l in 0..L {
                counts[l][bucket[l]] += 1;
                self.buckets[l * n + i] = bucket[l] as u8;
            }
        }
        let mut ranges = [0.0; L];
        for l in 0..L {
            // Otherwise all the same, or so close together that their difference has no inverse.
            if scale[l].is_finite() {
                let buckets = &self.buckets[l * n..][..n];
                let mut quantile = |p| quantile(x, l, buckets, &counts[l], p, &mut self.found);
                ranges[l] = quantile(0.75) - quantile(0.25);
            }
        }
        ranges
    }
}

#[inline(always)]
fn quantile<const L: usize>(
    x: &[[f64; L]],
    lane: usize,
    buckets: &[u8],
    counts: &[u32; BUCKETS],
    p: f64,
    found: &mut Vec<f64>,
) -> f64 {
    let n = x.len();
    let position = (p * n as f64 - 0.5).clamp(0.0, (n - 1) as f64);
    let (rank, weight) = (position as usize, position.fract());
    let (first, before) = bucket_of(counts, rank, 0, 0);
    let (last, _) = bucket_of(counts, (rank + 1).min(n - 1), first, before);
    let inside = |bucket: u8| bucket.wrapping_sub(first as u8) <= (last - first) as u8;
    found.clear();
    for (buckets, rows) in buckets.chunks(CHUNK).zip(x.chunks(CHUNK)) {
        // Few values are in the buckets of a quartile: most chunks have none, which is seen at once.
        if buckets.iter().fold(false, |any, &bucket| any | inside(bucket)) {
            found.extend(buckets.iter().zip(rows).filter(|(bucket, _)| inside(**bucket)).map(|(_, row)| row[lane]));
        }
    }
    let (_, value, larger) = found.select_nth_unstable_by(rank - before, f64::total_cmp);
    if weight == 0.0 || larger.is_empty() {
        return *value;
    }
    let next = larger.iter().fold(f64::INFINITY, |m, v| if *v < m { *v } else { m });
    *value + weight * (next - *value)
}

/// The bucket that holds the value of `rank`, and how many values lie in the buckets before it; the search starts at
/// `bucket`, before which there are `before` values.
#[inline(always)]
fn bucket_of(counts: &[u32; BUCKETS], rank: usize, mut bucket: usize, mut before: usize) -> (usize, usize) {
    while bucket + 1 < BUCKETS && before + counts[bucket] as usize <= rank {
        before += counts[bucket] as usize;
        bucket += 1;
    }
    (bucket, before)
}

/// The entropy, in bits, of values sorted into 256 levels of \[0, 1\]: level `round(255 x)`, values outside going to
/// the first or last level (MATLAB's `entropy` for images, which the published HAPT features use).
///
/// Keeps its counts and a table of `c log2 c` between windows, so that one window costs `O(n)` without a logarithm
/// and without clearing the levels it did not touch.
#[derive(Debug, Clone)]
pub struct LevelEntropy {
    /// 256 a lane.
    counts: Vec<u32>,
    bits: Vec<f64>,
    levels: Vec<u8>,
}

impl LevelEntropy {
    /// For windows of `length` samples of `lanes` signals (others work, and larger ones make the tables longer).
    pub fn new(length: usize, lanes: usize) -> Self {
        let levels = Vec::with_capacity(length * lanes);
        let mut new = Self { counts: vec![0; 256 * lanes], bits: vec![0.0], levels };
        new.reach(length, lanes);
        new
    }

    fn reach(&mut self, length: usize, lanes: usize) {
        self.bits.extend((self.bits.len()..=length).map(|c| c as f64 * (c as f64).log2()));
        self.counts.resize(self.counts.len().max(256 * lanes), 0);
    }

    /// The entropy of each lane of `x`, each value multiplied by `scale` first: between 0 and 8 bits.
    ///
    /// ```
    /// use dacpipe::signal::statistics::LevelEntropy;
    /// let mut entropy = LevelEntropy::new(4, 1);
    /// assert_eq!(entropy.of(&[[0.1], [0.2], [0.3], [0.4]], 1.0), [2.0]);
    /// assert_eq!(entropy.of(&[[-0.1], [-7.0], [1.3], [2.0]], 1.0), [1.0]);
    /// ```
    #[inline(always)]
    pub fn of<const L: usize>(&mut self, x: &[[f64; L]], scale: f64) -> [f64; L] {
        let n = x.len();
        self.reach(n, L);
        self.levels.clear();
        self.levels.extend(x.as_flattened().iter().map(|v| {
            let level = v * scale * 255.0 + 0.5;
            let level = if level > 0.0 { level } else { 0.0 };
            whole(if level < 255.0 { level } else { 255.0 }) as u8
        }));
        let (counts, _) = self.counts.as_chunks_mut::<256>();
        let (rows, _) = self.levels.as_chunks::<L>();
        for row in rows {
            for l in 0..L {
                counts[l][usize::from(row[l])] += 1;
            }
        }
        let mut sum = [0.0; L];
        for row in rows {
            for l in 0..L {
                let count = &mut counts[l][usize::from(row[l])];
                sum[l] += self.bits[*count as usize];
                *count = 0;
            }
        }
        sum.map(|sum| (self.bits[n] - sum) / n as f64)
    }
}

/// Bins of [`histogram_entropy`].
pub const HISTOGRAM_BINS: usize = 16;

/// The entropy, in bits, of the histogram of `x` over 16 equal bins from `min` to `max`: it does not depend on the
/// signal's scale, unlike [`LevelEntropy`].
///
/// ```
/// use dacpipe::signal::statistics::histogram_entropy;
/// assert_eq!(histogram_entropy(&[1.0, 2.0, 1.0, 2.0], 1.0, 2.0), 1.0);
/// assert_eq!(histogram_entropy(&[3.0, 3.0], 3.0, 3.0), 0.0);
/// ```
pub fn histogram_entropy(x: &[f64], min: f64, max: f64) -> f64 {
    let scale = HISTOGRAM_BINS as f64 / (max - min);
    if !scale.is_finite() {
        return 0.0;
    }
    let mut counts = [0u32; HISTOGRAM_BINS];
    for v in x {
        counts[(((v - min) * scale) as usize).min(HISTOGRAM_BINS - 1)] += 1;
    }
    let n = x.len() as f64;
    let bits = |c: &u32| f64::from(*c) / n * (f64::from(*c) / n).log2();
    -counts.iter().filter(|c| **c > 0).map(bits).sum::<f64>()
}

/// The order of the autoregressions.
pub const AR_ORDER: usize = 4;

/// The two prediction errors of [`burg`], kept between windows.
#[derive(Debug, Clone)]
pub struct BurgScratch<const L: usize> {
    forward: Vec<[f64; L]>,
    backward: Vec<[f64; L]>,
}

impl<const L: usize> BurgScratch<L> {
    /// For windows of `length` samples (others work, and allocate once).
    pub fn new(length: usize) -> Self {
        Self { forward: Vec::with_capacity(length), backward: Vec::with_capacity(length) }
    }
}

/// The coefficients `a1 … a4` of each lane's autoregression `x[t] = -a1 x[t-1] - … - a4 x[t-4] + e[t]` by Burg's method
/// (J. P. Burg, *Maximum entropy spectral analysis*, 1975), with the signs of MATLAB's `arburg`. The mean is not taken
/// away. A lane that is all 0, or too short for a coefficient, has 0 there.
///
/// Each step of the recursion is one pass, which also sums up what the next step needs.
#[inline(always)]
pub fn burg<const L: usize>(x: &[[f64; L]], scratch: &mut BurgScratch<L>) -> [[f64; L]; AR_ORDER] {
    let mut a = [[0.0; L]; AR_ORDER];
    if x.len() < 2 {
        return a;
    }
    let BurgScratch { forward, backward } = scratch;
    forward.clear();
    forward.extend_from_slice(&x[1..]);
    backward.clear();
    backward.extend_from_slice(&x[..x.len() - 1]);
    let (mut f, mut b) = (&mut forward[..], &mut backward[..]);
    let (mut cross, mut power) = products(f, b);
    for order in 0..AR_ORDER {
        let mut k = [0.0; L];
        for l in 0..L {
            k[l] = if power[l] > 0.0 { -2.0 * cross[l] / power[l] } else { 0.0 };
        }
        reflect(&mut a, order, &k);
        if f.len() < 2 || order + 1 == AR_ORDER {
            break;
        }
        (cross, power) = lattice_step(f, b, &k);
        let last = b.len() - 1;
        (f, b) = (&mut f[1..], &mut b[..last]);
    }
    a
}

/// Levinson's update of the coefficients with the reflection coefficient `k` of `order` (counted from 0).
#[inline(always)]
fn reflect<const L: usize>(a: &mut [[f64; L]; AR_ORDER], order: usize, k: &[f64; L]) {
    let before = *a;
    for i in 0..order {
        for l in 0..L {
            a[i][l] = before[i][l] + k[l] * before[order - 1 - i][l];
        }
    }
    a[order] = *k;
}

#[inline(always)]
fn products<const L: usize>(f: &[[f64; L]], b: &[[f64; L]]) -> ([f64; L], [f64; L]) {
    let (mut cross, mut power) = ([0.0; L], [0.0; L]);
    for (f, b) in f.iter().zip(b) {
        for l in 0..L {
            cross[l] += f[l] * b[l];
            power[l] += f[l] * f[l] + b[l] * b[l];
        }
    }
    (cross, power)
}

/// Replaces the errors of one order by those of the next and gives the [`products`] of the new errors, the backward
/// ones one sample late.
#[inline(always)]
fn lattice_step<const L: usize>(f: &mut [[f64; L]], b: &mut [[f64; L]], k: &[f64; L]) -> ([f64; L], [f64; L]) {
    let (mut cross, mut power) = ([0.0; L], [0.0; L]);
    let mut step = |f: &mut [f64; L], b: &mut [f64; L], late: Option<[f64; L]>| {
        // Rows are copied in and out as a whole, which shows that they do not overlap while lanes are computed.
        let (old_f, old_b) = (*f, *b);
        let (mut new_f, mut new_b) = ([0.0; L], [0.0; L]);
        for l in 0..L {
            new_f[l] = old_f[l] + k[l] * old_b[l];
            new_b[l] = old_b[l] + k[l] * old_f[l];
        }
        (*f, *b) = (new_f, new_b);
        if let Some(late) = late {
            for l in 0..L {
                cross[l] += new_f[l] * late[l];
                power[l] += new_f[l] * new_f[l] + late[l] * late[l];
            }
        }
        new_b
    };
    let mut rows = f.iter_mut().zip(b);
    let mut late = rows.next().map(|(f, b)| step(f, b, None));
    for (f, b) in rows {
        late = Some(step(f, b, late));
    }
    (cross, power)
}

/// Pearson's correlations of lanes 0 and 1, 0 and 2, 1 and 2, given their means; 0 where a lane does not vary.
#[inline(always)]
pub fn correlations<const L: usize>(x: &[[f64; L]], mean: &[f64; L]) -> [f64; 3] {
    const { assert!(L >= 3) };
    let (mut square, mut cross) = ([0.0; 3], [0.0; 3]);
    for row in x {
        let d = [row[0] - mean[0], row[1] - mean[1], row[2] - mean[2]];
        for l in 0..3 {
            square[l] += d[l] * d[l];
        }
        cross[0] += d[0] * d[1];
        cross[1] += d[0] * d[2];
        cross[2] += d[1] * d[2];
    }
    [(0, 1), (0, 2), (1, 2)].map(|(i, j)| ratio(cross[i + j - 1], (square[i] * square[j]).sqrt()))
}

/// Pearson's correlation of two signals of the same length, given their means; 0 where one does not vary.
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

/// The angle between two vectors, in radians from 0 to π; π/2 where one of them is 0.
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
    use super::*;
    use proptest::prelude::*;

    fn wave(n: usize) -> Vec<[f64; 3]> {
        let value = |i: usize, l: usize| {
            let t = (i + 11 * l) as f64;
            (t * 0.37).sin() + 0.25 * (t * t * 0.11).cos() + 0.5 * l as f64
        };
        (0..n).map(|i| [value(i, 0), value(i, 1), value(i, 2)]).collect()
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
            Quartiles::new(50, 3).ranges(&x, &d.min, &d.max)[0],
            LevelEntropy::new(50, 3).of(&x, 1.0)[0],
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

    /// The recursion as it is written in textbooks, one lane, nothing fused.
    fn slow_burg(x: &[f64]) -> Vec<f64> {
        let (mut f, mut b, mut a) = (x.to_vec(), x.to_vec(), vec![1.0]);
        for m in 0..AR_ORDER {
            let pairs: Vec<(f64, f64)> = (m + 1..x.len()).map(|i| (f[i], b[i - 1])).collect();
            let power: f64 = pairs.iter().map(|(f, b)| f * f + b * b).sum();
            let cross: f64 = pairs.iter().map(|(f, b)| f * b).sum();
            let k = if power > 0.0 { -2.0 * cross / power } else { 0.0 };
            a.push(0.0);
            a = a.iter().zip(a.iter().rev()).map(|(p, q)| p + k * q).collect();
            let old = b.clone();
            for i in m + 1..x.len() {
                b[i] = old[i - 1] + k * f[i];
                f[i] += k * old[i - 1];
            }
        }
        a[1..].to_vec()
    }

    #[test]
    fn burg_finds_the_autoregression_that_made_the_signal() {
        let mut x = vec![[0.0]; 4_000];
        let mut noise = 1u32;
        for t in 4..x.len() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let e = f64::from(noise >> 8) / f64::from(1 << 24) - 0.5;
            x[t][0] = 1.2 * x[t - 1][0] - 0.8 * x[t - 2][0] + 0.3 * x[t - 3][0] - 0.2 * x[t - 4][0] + e;
        }
        let a = burg(&x, &mut BurgScratch::new(4_000));
        for (got, made) in a.iter().zip([-1.2, 0.8, -0.3, 0.2]) {
            assert!((got[0] - made).abs() < 0.05, "{got:?} for {made}");
        }
    }

    #[test]
    fn flat_and_tiny_windows_give_numbers() {
        for n in 1..7 {
            let x = vec![[0.0, 1.0, 2.0]; n];
            let d = describe(&x);
            let (s, k) = skewness_and_kurtosis(&x, &d.mean);
            assert_eq!((d.std, s, k), ([0.0; 3], [0.0; 3], [0.0; 3]));
            assert_eq!(correlations(&x, &d.mean), [0.0; 3]);
            assert_eq!(Quartiles::new(n, 3).ranges(&x, &d.min, &d.max), [0.0; 3]);
            assert!(burg(&x, &mut BurgScratch::new(n)).iter().flatten().all(|v| v.is_finite()));
            assert_eq!(LevelEntropy::new(n, 3).of(&x, 1.0), [0.0; 3]);
        }
        assert_eq!(angle(&[0.0; 3], &[1.0, 0.0, 0.0]), std::f64::consts::FRAC_PI_2);
    }

    fn sorted_iqr(x: &[f64]) -> f64 {
        let mut s = x.to_vec();
        s.sort_by(f64::total_cmp);
        let at = |p: f64| {
            let position = (p * s.len() as f64 - 0.5).clamp(0.0, (s.len() - 1) as f64);
            let (i, w) = (position.floor() as usize, position.fract());
            s[i] + w * (s[(i + 1).min(s.len() - 1)] - s[i])
        };
        at(0.75) - at(0.25)
    }

    #[test]
    fn whole_parts_are_those_of_a_cast() {
        for v in [0.0, 0.25, 0.5, 0.999_999_9, 1.0, 1.5, 2.5, 26.0 - 1e-12, 127.0, 254.5, 255.0] {
            assert_eq!(whole(v) as u8, v as u8, "{v}");
        }
    }

    proptest! {
        #[test]
        fn selection_equals_sorting(
            x in prop::collection::vec((-20i32..20, -1e3..1e3f64), 1..300), outlier in prop::option::of(1e3..1e300f64),
        ) {
            let mut rows: Vec<[f64; 2]> = x.into_iter().map(|(a, b)| [f64::from(a) * 0.37, b]).collect();
            if let Some(v) = outlier {
                rows[0] = [v; 2];
            }
            let d = describe(&rows);
            let ranges = Quartiles::new(rows.len(), 2).ranges(&rows, &d.min, &d.max);
            for (l, got) in ranges.into_iter().enumerate() {
                let expected = sorted_iqr(&rows.iter().map(|r| r[l]).collect::<Vec<_>>());
                prop_assert!(close(got, expected, 1e-14), "{} {}", got, expected);
            }
        }

        #[test]
        fn the_fused_recursion_equals_the_textbook(
            x in prop::collection::vec((-1e3..1e3, -1.0..1.0, 0.0..0.0001f64), 1..90),
        ) {
            let rows: Vec<[f64; 3]> = x.iter().map(|(a, b, c)| [*a, *b, *c]).collect();
            let a = burg(&rows, &mut BurgScratch::new(rows.len()));
            for l in 0..3 {
                let slow = slow_burg(&rows.iter().map(|r| r[l]).collect::<Vec<_>>());
                for (order, expected) in slow.iter().enumerate() {
                    prop_assert!(close(a[order][l], *expected, 1e-9), "{} {}", a[order][l], expected);
                }
            }
        }

        #[test]
        fn level_entropy_equals_counting(x in prop::collection::vec(-0.5..1.5f64, 1..90), scale in 0.01..3.0f64) {
            let rows: Vec<[f64; 2]> = x.iter().map(|v| [-1.0, *v]).collect();
            let mut counts = std::collections::BTreeMap::new();
            for v in &x {
                *counts.entry(((v * scale).clamp(0.0, 1.0) * 255.0 + 0.5).floor() as u8).or_insert(0.0) += 1.0;
            }
            let n = x.len() as f64;
            let slow: f64 = counts.values().map(|c: &f64| -c / n * (c / n).log2()).sum();
            let mut entropy = LevelEntropy::new(rows.len(), 2);
            for _ in 0..2 {
                // Twice, to see that the counts were cleared.
                let [flat, got] = entropy.of(&rows, scale);
                prop_assert!(flat == 0.0 && close(got, slow, 1e-12), "{} {}", got, slow);
            }
        }
    }
}
