//! Sums of rows by cluster, kept up to date as rows move.

use super::isa::vectorised;

/// The label of a row that is in no cluster yet.
pub const NO_CLUSTER: u32 = u32::MAX;

vectorised! {
    /// For each row whose label changed: adds it to the sum of its new cluster and takes it from that of its old one
    /// (unless that was [`NO_CLUSTER`]), and counts likewise. Returns how many changed.
    ///
    /// `rows` is row-major, `dim` values each; `sums` holds `dim` values a cluster. Rows are taken in order, each sum by
    /// itself, so the result depends on the order of the changed rows alone. `O(changed x dim)`.
    ///
    /// # Panics
    /// If lengths do not fit together or a label names no cluster.
    pub fn move_rows(
        rows: &[f32],
        dim: usize,
        old: &[u32],
        new: &[u32],
        sums: &mut [f64],
        counts: &mut [i64],
    ) -> usize {
        assert!(rows.len() == old.len() * dim && old.len() == new.len(), "rows and labels differ in number");
        assert_eq!(sums.len(), counts.len() * dim, "sums and counts differ in number");
        let mut changed = 0;
        for ((row, &from), &to) in rows.chunks_exact(dim).zip(old).zip(new) {
            if from == to {
                continue;
            }
            changed += 1;
            counts[to as usize] += 1;
            for (sum, &x) in sums[to as usize * dim..][..dim].iter_mut().zip(row) {
                *sum += f64::from(x);
            }
            if from != NO_CLUSTER {
                counts[from as usize] -= 1;
                for (sum, &x) in sums[from as usize * dim..][..dim].iter_mut().zip(row) {
                    *sum -= f64::from(x);
                }
            }
        }
        changed
    }
}

vectorised! {
    /// Adds to `sums` and `squares`, feature by feature, `x - origin` and its square for every row. `O(rows x dim)`.
    ///
    /// # Panics
    /// If lengths do not fit together.
    pub fn add_moments(rows: &[f32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
        assert!(rows.len().is_multiple_of(origin.len()) && sums.len() == origin.len() && squares.len() == origin.len());
        for row in rows.chunks_exact(origin.len()) {
            for (((&x, &o), sum), square) in row.iter().zip(origin).zip(sums.iter_mut()).zip(squares.iter_mut()) {
                let x = f64::from(x) - f64::from(o);
                *sum += x;
                *square += x * x;
            }
        }
    }
}

vectorised! {
    /// What [`add_moments`] adds for the rows number `chosen`, in that order, to the same bits. Four rows at a time, so
    /// that the sums are read and written a quarter as often.
    ///
    /// # Panics
    /// If lengths do not fit together or there is no row of a number.
    pub fn add_moments_of(rows: &[f32], chosen: &[u32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
        let dim = origin.len();
        assert!(rows.len().is_multiple_of(dim) && sums.len() == dim && squares.len() == dim);
        let row = |number: u32| &rows[number as usize * dim..][..dim];
        let (fours, rest) = chosen.as_chunks::<4>();
        for &[a, b, c, d] in fours {
            let (a, b, c, d) = (row(a), row(b), row(c), row(d));
            let rows = a.iter().zip(b).zip(c).zip(d);
            for ((((((a, b), c), d), &o), sum), square) in rows.zip(origin).zip(sums.iter_mut()).zip(squares.iter_mut()) {
                for &x in [a, b, c, d] {
                    let x = f64::from(x) - f64::from(o);
                    *sum += x;
                    *square += x * x;
                }
            }
        }
        for &number in rest {
            add_moments(row(number), origin, sums, squares);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;
    use proptest::prelude::*;

    /// Rows as data has them: any values, or all of one kind.
    fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
        let kind = prop_oneof![
            Just(vec![0.0f32]),
            Just(vec![0.0, 1e-40, -1e-45, 1.0]),
            Just(vec![1e30, -1e30, f32::MAX, 1.0]),
            prop::collection::vec(-10.0f32..10.0, 50),
        ];
        (1usize..40, 0usize..60, kind)
            .prop_flat_map(|(dim, n, kind)| (Just(dim), prop::collection::vec(prop::sample::select(kind), n * dim)))
    }

    proptest! {
        #[test]
        fn moving_equals_one_sum_at_a_time((dim, rows) in rows(), k in 1u32..6, salt in 0u32..1000) {
            let label = |i: u32, salt: u32| (i + 1).wrapping_mul(salt.wrapping_mul(2_654_435_761) | 1) >> 7;
            let n = (rows.len() / dim) as u32;
            let new: Vec<u32> = (0..n).map(|i| label(i, salt) % k).collect();
            let old: Vec<u32> = (0..n).map(|i| label(i, salt + 1) % (k + 1)).map(|c| if c < k { c } else { NO_CLUSTER }).collect();
            let (mut sums, mut counts) = (vec![0.5; k as usize * dim], vec![100; k as usize]);
            for c in 0..k {
                for ((row, &from), &to) in rows.chunks(dim).zip(&old).zip(&new).filter(|((_, from), to)| from != to) {
                    let sign = f64::from(i8::from(to == c) - i8::from(from == c));
                    counts[c as usize] += sign as i64;
                    for (sum, &x) in sums[c as usize * dim..][..dim].iter_mut().zip(row).filter(|_| sign != 0.0) {
                        *sum += sign * f64::from(x);
                    }
                }
            }
            on_each(|isa| {
                let (mut ours, mut our_counts) = (vec![0.5; k as usize * dim], vec![100; k as usize]);
                let changed = move_rows(&rows, dim, &old, &new, &mut ours, &mut our_counts);
                assert_eq!((&ours, &our_counts), (&sums, &counts), "{isa:?}");
                assert_eq!(changed, old.iter().zip(&new).filter(|(a, b)| a != b).count());
            });
        }

        #[test]
        fn moments_equal_one_feature_at_a_time((dim, rows) in rows()) {
            let origin: Vec<f32> = rows.iter().copied().chain([0.0; 40]).take(dim).collect();
            let mut twin = vec![(1.0f64, 2.0f64); dim];
            for (i, (sum, square)) in twin.iter_mut().enumerate() {
                for row in rows.chunks(dim) {
                    let x = f64::from(row[i]) - f64::from(origin[i]);
                    *sum += x;
                    *square += x * x;
                }
            }
            on_each(|isa| {
                let (mut sums, mut squares) = (vec![1.0; dim], vec![2.0; dim]);
                add_moments(&rows, &origin, &mut sums, &mut squares);
                assert!(sums.iter().zip(&squares).map(|(a, b)| (*a, *b)).eq(twin.iter().copied()), "{isa:?}");
            });
        }
    }

    #[test]
    fn moments_of_chosen_rows_are_those_of_one_row_after_the_other() {
        let (dim, n) = (37, 23);
        let rows: Vec<f32> = (0..n * dim).map(|i| ((i * 7919 % 1009) as f32).sqrt() - 9.0).collect();
        let origin = &rows[..dim];
        let chosen: Vec<u32> = (0..n as u32).filter(|i| i % 3 != 1).chain([2, 2, 22]).collect();
        for chosen in [&chosen[..], &chosen[..4], &chosen[..3], &[]] {
            on_each(|isa| {
                let (mut sums, mut squares) = (vec![0.1; dim], vec![0.2; dim]);
                let (mut ours, mut our_squares) = (sums.clone(), squares.clone());
                for &row in chosen {
                    add_moments(&rows[row as usize * dim..][..dim], origin, &mut sums, &mut squares);
                }
                add_moments_of(&rows, chosen, origin, &mut ours, &mut our_squares);
                assert_eq!((ours, our_squares), (sums, squares), "{isa:?}");
            });
        }
    }

    #[test]
    fn moving_keeps_the_sums_of_the_labels() {
        let rows: Vec<f32> = (0..60).map(|i| (i * 7 % 11) as f32).collect();
        let (old, new): (Vec<u32>, Vec<u32>) = (0..20u32).map(|i| (i % 3, i * i % 4)).unzip();
        let nowhere = vec![NO_CLUSTER; 20];
        let (mut sums, mut counts) = (vec![0.0; 12], vec![0; 4]);
        assert_eq!(move_rows(&rows, 3, &nowhere, &old, &mut sums, &mut counts), 20);
        let changed = move_rows(&rows, 3, &old, &new, &mut sums, &mut counts);
        assert_eq!(changed, old.iter().zip(&new).filter(|(a, b)| a != b).count());
        let (mut fresh, mut fresh_counts) = (vec![0.0; 12], vec![0; 4]);
        move_rows(&rows, 3, &nowhere, &new, &mut fresh, &mut fresh_counts);
        assert_eq!((sums, counts), (fresh, fresh_counts));
    }
}
