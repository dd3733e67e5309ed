//! Interquartile ranges, which need only two or four of the sorted values.
//!
//! The quantile `p` of `n` values is the sorted value at position `p n - 1/2`, counted from 0 and interpolated between
//! neighbours (definition 5 of Hyndman and Fan, 1996; MATLAB's `prctile`).

/// The position of a quantile.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// The rank of the sorted value at the position or before it.
    rank: usize,
    /// The rank of the next value; for the last value, its own.
    next: usize,
    /// How far the position is from `rank` to `next`, below 1.
    weight: f64,
}

impl Position {
    /// The quantile `p` of `n` values, 1 or more.
    fn of(p: f64, n: usize) -> Self {
        let position = (p * n as f64 - 0.5).clamp(0.0, (n - 1) as f64);
        let rank = position as usize;
        Self { rank, next: (rank + 1).min(n - 1), weight: position.fract() }
    }

    /// The first and the third quartile.
    fn quartiles(n: usize) -> [Self; 2] {
        [Self::of(0.25, n), Self::of(0.75, n)]
    }

    #[inline(always)]
    fn between(self, value: f64, next: f64) -> f64 {
        if self.weight == 0.0 { value } else { value + self.weight * (next - value) }
    }
}

/// The interquartile range of one signal, by selection in `O(n)`. `values` is a buffer; 0 for no values.
///
/// ```
/// use dacpipe::signal::quartiles::interquartile_range;
/// assert_eq!(interquartile_range(&[7.0, 1.0, 5.0, 3.0], &mut Vec::new()), 4.0);
/// ```
pub fn interquartile_range(x: &[f64], values: &mut Vec<f64>) -> f64 {
    if x.is_empty() {
        return 0.0;
    }
    values.clear();
    values.extend_from_slice(x);
    let [first, third] = Position::quartiles(x.len()).map(|at| {
        let (_, &mut value, larger) = values.select_nth_unstable_by(at.rank, f64::total_cmp);
        let next = larger.iter().copied().min_by(f64::total_cmp).unwrap_or(value);
        at.between(value, next)
    });
    third - first
}

/// Interquartile ranges of signals side by side.
///
/// A sorting network compares the same positions whatever the values are, so all lanes take the same steps, without
/// branches. Batcher's network needs `O(n log² n)` comparisons, minus those that no quartile depends on: 1 244 of 1 471
/// are left for 128 samples. Selection needs fewer, but works on one lane at a time, and half of its branches are
/// mispredicted.
#[derive(Debug, Clone)]
pub struct Quartiles {
    length: usize,
    quartiles: [Position; 2],
    /// Pairs of rows: the first gets the smaller value of each lane, the second the larger.
    comparisons: Vec<[u32; 2]>,
    /// The rows of a window, as far as they are sorted.
    rows: Vec<f64>,
}

impl Quartiles {
    /// For windows of `length` samples, 1 or more, of `lanes` signals (other numbers work, too).
    ///
    /// # Panics
    /// For a `length` of 0.
    pub fn new(length: usize, lanes: usize) -> Self {
        let quartiles = Position::quartiles(length);
        let mut needed = vec![false; length];
        quartiles.iter().for_each(|at| (needed[at.rank], needed[at.next]) = (true, true));
        // Goes backwards: a comparison is needed if one of its results is, and then both of its inputs are.
        let mut comparisons = merge_exchange(length);
        comparisons.reverse();
        comparisons.retain(|&[low, high]| {
            let counts = needed[low] || needed[high];
            if counts {
                (needed[low], needed[high]) = (true, true);
            }
            counts
        });
        comparisons.reverse();
        // 16 bits halve the size: the list is read once per window and should fit into the L1 cache together with it.
        let comparisons = comparisons.into_iter().map(|pair| pair.map(|row| row as u32)).collect();
        Self { length, quartiles, comparisons, rows: Vec::with_capacity(length * lanes) }
    }

    /// The distance between the first and the third quartile of each lane of `x`, whose values are not NaN.
    ///
    /// # Panics
    /// When `x` has another length than this is for.
    ///
    /// ```
    /// use dacpipe::signal::quartiles::Quartiles;
    /// assert_eq!(Quartiles::new(4, 2).ranges(&[[7.0, 1.0], [1.0, 1.0], [5.0, 2.0], [3.0, 2.0]]), [4.0, 1.0]);
    /// ```
    #[inline(always)]
    pub fn ranges<const L: usize>(&mut self, x: &[[f64; L]]) -> [f64; L] {
        assert_eq!(x.len(), self.length, "a window of another length");
        self.rows.clear();
        self.rows.extend_from_slice(x.as_flattened());
        let (rows, _) = self.rows.as_chunks_mut::<L>();
        for &[low, high] in &self.comparisons {
            let (low, high) = (low as usize, high as usize);
            (rows[low], rows[high]) = in_order(rows[low], rows[high]);
        }
        let [first, third] = self
            .quartiles
            .map(|at| -> [f64; L] { std::array::from_fn(|l| at.between(rows[at.rank][l], rows[at.next][l])) });
        std::array::from_fn(|l| third[l] - first[l])
    }
}

/// The smaller value of each lane, and the larger.
#[inline(always)]
fn in_order<const L: usize>(a: [f64; L], b: [f64; L]) -> ([f64; L], [f64; L]) {
    let (mut smaller, mut larger) = ([0.0; L], [0.0; L]);
    for l in 0..L {
        larger[l] = if b[l] < a[l] { a[l] } else { b[l] };
        // The other value, computed without a second selection: the compiler would turn that into a masked store, for
        // which the next load of the row has to wait, and take three times as long.
        smaller[l] = f64::from_bits(a[l].to_bits() ^ b[l].to_bits() ^ larger[l].to_bits());
    }
    (smaller, larger)
}

/// Batcher's sorting network for `n` values, of any number: merge exchange (Knuth, *The Art of Computer Programming*,
/// volume 3, algorithm 5.2.2M).
fn merge_exchange(n: usize) -> Vec<[usize; 2]> {
    let mut comparisons = Vec::new();
    let half = n.next_power_of_two() / 2;
    let mut p = half;
    while p > 0 {
        let (mut q, mut r, mut distance) = (half, 0, p);
        loop {
            comparisons.extend((0..n - distance).filter(|low| low & p == r).map(|low| [low, low + distance]));
            if q == p {
                break;
            }
            (distance, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    comparisons
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_sorting(x: &[f64]) -> f64 {
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
    fn only_needed_comparisons_are_made() {
        assert_eq!(merge_exchange(128).len(), 1_471);
        assert_eq!(Quartiles::new(128, 1).comparisons.len(), 1_244);
        assert_eq!(Quartiles::new(1, 1).comparisons.len(), 0);
    }

    /// A network that sorts every sequence of zeros and ones sorts everything (Knuth, theorem 5.3.4Z).
    #[test]
    fn the_network_sorts() {
        for n in 1..14 {
            let network = merge_exchange(n);
            for bits in 0..1_u32 << n {
                let sorted = network.iter().fold(bits, |x, [low, high]| {
                    let swap = (x >> low) & !(x >> high) & 1;
                    x ^ (swap << low | swap << high)
                });
                assert_eq!(
                    sorted.count_ones(),
                    (sorted >> (n as u32 - bits.count_ones())).count_ones(),
                    "{n} {bits:b}"
                );
            }
        }
    }

    #[test]
    fn of_no_values_there_is_no_range() {
        assert_eq!(interquartile_range(&[], &mut Vec::new()), 0.0);
    }

    proptest! {
        #[test]
        fn both_ways_equal_sorting(
            x in prop::collection::vec((-20i32..20, -1e3..1e3f64), 1..300), outlier in prop::option::of(1e3..1e300f64),
        ) {
            let mut rows: Vec<[f64; 2]> = x.into_iter().map(|(a, b)| [f64::from(a) * 0.37, b]).collect();
            if let Some(v) = outlier {
                rows[0] = [v; 2];
            }
            let ranges = Quartiles::new(rows.len(), 2).ranges(&rows);
            for (l, got) in ranges.into_iter().enumerate() {
                let lane: Vec<f64> = rows.iter().map(|r| r[l]).collect();
                prop_assert_eq!(got, by_sorting(&lane));
                prop_assert_eq!(got, interquartile_range(&lane, &mut Vec::new()));
            }
        }
    }
}
