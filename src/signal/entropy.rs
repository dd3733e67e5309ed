//! Entropies of windows: over fixed levels of the values, and over bins of their range.

// Lanes are indexed, as in `statistics`.
#![allow(clippy::needless_range_loop)]

/// The entropy, in bits, of values sorted into 256 levels of \[0, 1\]: level `round(255 x)`, values outside count in
/// the first or last level (MATLAB's `entropy` for images, which the published HAPT features use).
///
/// The counts and a table of `c log2 c` are kept between windows, so that a window takes `O(n)` without logarithms, and
/// only the levels that it used are cleared.
#[derive(Debug, Clone)]
pub struct LevelEntropy {
    /// 256 per lane.
    counts: Vec<u32>,
    bits: Vec<f64>,
    levels: Vec<u8>,
}

impl LevelEntropy {
    /// For windows of `length` samples of `lanes` signals (larger ones work, and make the tables longer).
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
    /// use dacpipe::signal::entropy::LevelEntropy;
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
/// use dacpipe::signal::entropy::histogram_entropy;
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

/// The integer part of a number from 0 to 2^51 in the lowest bits, by addition: a cast would check the range and
/// prevent vectorization.
#[inline(always)]
fn whole(v: f64) -> u64 {
    const UNIT: f64 = (1_u64 << 52) as f64;
    let nearest = (v + UNIT) - UNIT;
    let floor = if nearest > v { nearest - 1.0 } else { nearest };
    (floor + UNIT).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_parts_are_those_of_a_cast() {
        for v in [0.0, 0.25, 0.5, 0.999_999_9, 1.0, 1.5, 2.5, 26.0 - 1e-12, 127.0, 254.5, 255.0] {
            assert_eq!(whole(v) as u8, v as u8, "{v}");
        }
    }

    proptest! {
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
                prop_assert!(flat == 0.0 && (got - slow).abs() <= 1e-12 * (1.0 + slow), "{} {}", got, slow);
            }
        }
    }
}
