//! The moments from which sums of `e^{-(x-y)^2}` over pairs of rows follow, without looking at pairs.
//!
//! With values in `[0, 1]`, `e^{-(x-y)^2} = e^{-x^2} e^{-y^2} sum_t (2xy)^t / t!`, so the sum over all pairs of a row of
//! class `a` with a row of class `b` is `sum_t (2^t / t!) M_{a,t} M_{b,t}`, where `M_{a,t} = sum x^t e^{-x^2}` over the
//! rows of class `a`. [`TERMS`] terms leave less than 1e-15 of it.

use super::Pool;
use super::isa::vectorised;

/// Terms of the expansion.
pub const TERMS: usize = 30;

/// Features summed together.
const WIDTH: usize = 16;

/// Sums of all classes that stay in the second-level cache whatever the order of the rows.
const CACHED_SUMS: usize = 1 << 16;

/// `M_{class, t}` of every feature, and the number of rows of each class. Additive: the moments of two sets of rows are
/// the sums of theirs.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    dim: usize,
    counts: Vec<u64>,
    /// `[feature block][class][term][feature in block]`.
    sums: Vec<f64>,
}

impl Moments {
    /// No rows yet, of `classes` classes and `dim` features. Holds `30 x classes x dim` doubles.
    ///
    /// # Panics
    /// If `dim` or `classes` is 0.
    pub fn new(classes: usize, dim: usize) -> Self {
        assert!(classes > 0 && dim > 0, "no classes or no features");
        Self { dim, counts: vec![0; classes], sums: vec![0.0; dim.div_ceil(WIDTH) * classes * TERMS * WIDTH] }
    }

    /// Rows of each class.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds `rows` (row-major, values in `[0, 1]`), the class of each in `classes`; `None` leaves a row out. Features are
    /// shared out among the threads; each sum takes its rows in order. `O(rows x dim x 30)`.
    ///
    /// # Panics
    /// If there are not as many classes as rows, 2^32 rows or more, or if a class is out of range.
    pub fn add(&mut self, rows: &[f32], classes: &[Option<u32>], pool: &Pool) {
        assert_eq!(rows.len(), classes.len() * self.dim, "rows and classes differ in number");
        assert!(u32::try_from(classes.len()).is_ok(), "{} rows at once", classes.len());
        for class in classes.iter().flatten() {
            self.counts[*class as usize] += 1;
        }
        let (dim, chunk) = (self.dim, self.counts.len() * TERMS * WIDTH);
        let mut order: Vec<u32> = (0..classes.len() as u32).collect();
        if chunk > CACHED_SUMS {
            // Class by class, so that the sums of one stay in cache for all its rows; a stable sort keeps their order.
            order.sort_by_key(|&row| classes[row as usize]);
        }
        pool.for_each_chunk_mut(&mut self.sums, chunk, |block, sums| {
            add_features(rows, dim, block * WIDTH, classes, &order, sums);
        });
    }

    /// Adds the moments of other rows with the same classes and features.
    ///
    /// # Panics
    /// If the classes or features differ in number.
    pub fn merge(&mut self, other: &Moments) {
        assert!(self.dim == other.dim && self.counts.len() == other.counts.len(), "moments of different shapes");
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
    }

    /// For each feature the sums of `e^{-(x_p - x_q)^2}` over the ordered pairs of rows of the same class (`p = q` included)
    /// and over those of different classes. `O(classes x dim x 30)`.
    pub fn pair_sums(&self) -> Vec<(f64, f64)> {
        let blocks = self.sums.chunks_exact(self.counts.len() * TERMS * WIDTH).map(block_pair_sums);
        blocks.flat_map(|(same, different)| same.into_iter().zip(different)).take(self.dim).collect()
    }

    /// The numbers of ordered pairs of the same class (`p = q` included) and of different classes.
    pub fn pairs(&self) -> (f64, f64) {
        let rows: u128 = self.counts.iter().map(|&n| u128::from(n)).sum();
        let same: u128 = self.counts.iter().map(|&n| u128::from(n) * u128::from(n)).sum();
        (same as f64, (rows * rows - same) as f64)
    }
}

vectorised! {
    /// The pair sums of the features of one block, over pairs of the same class and of different ones. Features side by
    /// side: those of one are far apart in memory.
    fn block_pair_sums(sums: &[f64]) -> ([f64; WIDTH], [f64; WIDTH]) {
        let (terms, _) = sums.as_chunks::<WIDTH>();
        let (mut same, mut different) = ([0.0; WIDTH], [0.0; WIDTH]);
        let mut factor = 1.0;
        for t in 0..TERMS {
            let mut before = [0.0; WIDTH];
            for class in terms.chunks_exact(TERMS) {
                let moments = &class[t];
                for i in 0..WIDTH {
                    let m = moments[i];
                    same[i] += factor * m * m;
                    // Only sums of positive terms: total minus same would cancel where one class is small.
                    different[i] += 2.0 * factor * m * before[i];
                    before[i] += m;
                }
            }
            factor *= 2.0 / (t + 1) as f64;
        }
        (same, different)
    }
}

vectorised! {
    /// Adds the features `first ..` of every row in `order`, up to `WIDTH` of them.
    fn add_features(
        rows: &[f32],
        dim: usize,
        first: usize,
        classes: &[Option<u32>],
        order: &[u32],
        sums: &mut [f64],
    ) {
        let width = WIDTH.min(dim - first);
        for &row in order {
            let Some(class) = classes[row as usize] else { continue };
            let row = &rows[row as usize * dim..][..dim];
            let sums = &mut sums[class as usize * TERMS * WIDTH..][..TERMS * WIDTH];
            let mut x = [0.0f64; WIDTH];
            if width == WIDTH {
                let row: &[f32; WIDTH] = row[first..first + WIDTH].try_into().expect("sixteen values");
                x = row.map(f64::from);
            } else {
                for (x, &value) in x.iter_mut().zip(&row[first..]) {
                    *x = f64::from(value);
                }
            }
            let mut power = exp_of_minus_square(&x);
            for sums in sums.chunks_exact_mut(WIDTH) {
                for ((sum, power), x) in sums.iter_mut().zip(&mut power).zip(&x) {
                    *sum += *power;
                    *power *= *x;
                }
            }
        }
    }
}

/// `e^{-x^2}` for `|x| <= 1`, to two units in the last place: `e^{-1/2} e^{1/2 - x^2}`, the second by its series.
#[inline(always)]
fn exp_of_minus_square(x: &[f64; WIDTH]) -> [f64; WIDTH] {
    /// `1 / n!` for the powers 0 to 14; the next would add less than 1e-16 at one half.
    const SERIES: [f64; 15] = {
        let mut series = [1.0; 15];
        let mut n = 1;
        while n < 15 {
            series[n] = series[n - 1] / n as f64;
            n += 1;
        }
        series
    };
    const ROOT: f64 = 0.606_530_659_712_633_4; // e^{-1/2}
    let mut y = [0.0; WIDTH];
    for (y, x) in y.iter_mut().zip(x) {
        *y = 0.5 - x * x;
    }
    let mut sum = [SERIES[14]; WIDTH];
    for &coefficient in SERIES[..14].iter().rev() {
        for (sum, y) in sum.iter_mut().zip(&y) {
            *sum = sum.mul_add(*y, coefficient);
        }
    }
    sum.map(|s| s * ROOT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::isa::on_each;
    use crate::testing::{self, Labelled};

    #[test]
    fn the_exponential_is_exact_to_rounding() {
        for i in 0..=1000 {
            let x = f64::from(i) / 1000.0;
            let ours = exp_of_minus_square(&[x; WIDTH])[0];
            assert!((ours / (-x * x).exp() - 1.0).abs() < 5e-16, "{x}: {ours}");
        }
    }

    #[test]
    fn many_classes_give_the_bits_of_row_after_row() {
        let (count, dim, n) = (CACHED_SUMS / (TERMS * WIDTH) + 1, 18, 700);
        let values: Vec<f32> = (0..n * dim).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        let classes: Vec<Option<u32>> = (0..n).map(|i| (i % 9 > 0).then_some((i * i % count) as u32)).collect();
        let (mut together, mut one_by_one) = (Moments::new(count, dim), Moments::new(count, dim));
        together.add(&values, &classes, &Pool::new(2));
        for (row, class) in values.chunks(dim).zip(&classes) {
            one_by_one.add(row, &[*class], &Pool::new(1));
        }
        assert_eq!(together, one_by_one);
    }

    /// Rows of up to three classes, or none.
    fn labelled() -> impl Strategy<Value = Labelled> {
        testing::labelled(1usize..40, prop_oneof![1 => Just(1usize), 9 => 0usize..25], 3)
    }

    fn moments_of(dim: usize, rows: &[f32], classes: &[Option<u32>], threads: usize) -> Moments {
        let mut moments = Moments::new(3, dim);
        moments.add(rows, classes, &Pool::new(threads));
        moments
    }

    proptest! {
        #[test]
        fn pair_sums_equal_the_sums_over_pairs((dim, rows, classes) in labelled()) {
            let sums = moments_of(dim, &rows, &classes, 2).pair_sums();
            let kept: Vec<(&[f32], u32)> =
                rows.chunks(dim).zip(&classes).filter_map(|(row, class)| class.map(|c| (row, c))).collect();
            for i in 0..dim {
                let (mut same, mut different) = (0.0, 0.0);
                for (p, a) in &kept {
                    for (q, b) in &kept {
                        let e = (-(f64::from(p[i]) - f64::from(q[i])).powi(2)).exp();
                        *if a == b { &mut same } else { &mut different } += e;
                    }
                }
                let (s, d) = sums[i];
                prop_assert!((s - same).abs() <= 1e-13 * same && (d - different).abs() <= 1e-13 * different);
            }
        }

        #[test]
        fn every_instruction_set_and_any_batching_gives_the_same_bits(
            (dim, rows, classes) in labelled(),
            cut in 0usize..25,
        ) {
            let whole = moments_of(dim, &rows, &classes, 1);
            prop_assert_eq!(&whole, &moments_of(dim, &rows, &classes, 3));
            let cut = cut.min(classes.len());
            let mut halves = Moments::new(3, dim);
            halves.add(&rows[..cut * dim], &classes[..cut], &Pool::new(1));
            halves.add(&rows[cut * dim..], &classes[cut..], &Pool::new(1));
            prop_assert_eq!(&whole, &halves);
            on_each(|isa| assert_eq!(whole, moments_of(dim, &rows, &classes, 1), "{isa:?}"));
        }

        #[test]
        fn merging_in_any_grouping_agrees((dim, rows, classes) in labelled(), a in 0usize..25, b in 0usize..25) {
            let n = classes.len();
            let (a, b) = (a.min(b).min(n), a.max(b).min(n));
            let [x, y, z] = [0..a, a..b, b..n]
                .map(|part| moments_of(dim, &rows[part.start * dim..part.end * dim], &classes[part], 1));
            let mut left = x.clone();
            left.merge(&y);
            left.merge(&z);
            let mut right = y;
            right.merge(&z);
            let mut all = x;
            all.merge(&right);
            prop_assert_eq!(left.counts(), all.counts());
            for (l, r) in left.sums.iter().zip(&all.sums) {
                prop_assert!((l - r).abs() <= 1e-14 * l.abs());
            }
        }
    }
}
