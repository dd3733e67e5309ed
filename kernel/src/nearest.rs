//! The nearest rows of a row among many: scores by a matrix product, and the best of them kept.

use super::isa::{LANES, vectorised};

/// A row that may be among the nearest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The larger, the nearer.
    pub score: f32,
    /// Its number.
    pub row: u32,
}

impl Candidate {
    /// Nobody: any score is better.
    pub const NONE: Self = Self { score: f32::NEG_INFINITY, row: u32::MAX };
}

vectorised! {
    /// Keeps the candidates of the greatest score in `best`, which is sorted by falling score; among equal scores the one
    /// that came first. `rows` are the numbers of the rows that `scores` belong to; `own` is never kept.
    ///
    /// ```
    /// use dacpipe_kernel::nearest::{Candidate, keep_best};
    /// let mut best = [Candidate::NONE; 2];
    /// keep_best(&[0.5, 3.0, 2.0, 1.0], &[10, 11, 12, 13], 11, &mut best);
    /// assert_eq!(best.map(|c| c.row), [12, 13]);
    /// ```
    ///
    /// # Panics
    /// If `scores` and `rows` differ in length.
    pub fn keep_best(scores: &[f32], rows: &[u32], own: u32, best: &mut [Candidate]) {
        assert_eq!(scores.len(), rows.len(), "a row each score");
        let Some(last) = best.len().checked_sub(1) else { return };
        let mut least = best[last].score;
        for (scores, rows) in scores.chunks(LANES).zip(rows.chunks(LANES)) {
            if !scores.iter().fold(false, |any, &score| any | (score > least)) {
                continue;
            }
            for (&score, &row) in scores.iter().zip(rows) {
                if score > least && row != own {
                    let at = best.partition_point(|kept| kept.score >= score);
                    best[at..].rotate_right(1);
                    best[at] = Candidate { score, row };
                    least = best[last].score;
                }
            }
        }
    }
}

vectorised! {
    /// The squared Euclidean distances of `row` to each of `others` (row-major), in the arithmetic of
    /// [`distance`](super::distance).
    ///
    /// # Panics
    /// If lengths do not fit together.
    pub fn squared_distances(row: &[f32], others: &[f32], out: &mut [f32]) {
        assert_eq!(others.len(), row.len() * out.len(), "a distance each row");
        for (other, out) in others.chunks_exact(row.len()).zip(out) {
            *out = super::distance::squared_distance(row, other);
        }
    }
}

vectorised! {
    /// The squared Euclidean norm of each row of `rows` (`dim` values each).
    ///
    /// # Panics
    /// If lengths do not fit together.
    pub fn squared_norms(rows: &[f32], dim: usize, out: &mut [f32]) {
        assert_eq!(rows.len(), dim * out.len(), "a norm each row");
        for (row, out) in rows.chunks_exact(dim).zip(out) {
            let mut sums = [0.0f32; LANES];
            for lanes in row.chunks(LANES) {
                for (sum, x) in sums.iter_mut().zip(lanes) {
                    *sum = x.mul_add(*x, *sum);
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    sums[i] += sums[i + width];
                }
                width /= 2;
            }
            *out = sums[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    #[test]
    fn the_best_are_those_of_a_full_sort_in_any_blocks() {
        let scores: Vec<f32> = (0..500_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 22) as f32).collect();
        let rows: Vec<u32> = (0..500).collect();
        let mut order: Vec<u32> = rows.iter().copied().filter(|&i| i != 77).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
        for block in [1, 7, 16, 500] {
            let mut best = [Candidate::NONE; 12];
            for (s, r) in scores.chunks(block).zip(rows.chunks(block)) {
                keep_best(s, r, 77, &mut best);
            }
            assert_eq!(best.map(|c| c.row).to_vec(), order[..12]);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_norms_and_distances() {
        let values: Vec<f32> = (0..5 * 201).map(|i| (i as f32).sin()).collect();
        let mut results = Vec::new();
        isa::on_each(|_| {
            let (mut norms, mut distances) = ([0.0; 5], [0.0; 4]);
            squared_norms(&values, 201, &mut norms);
            squared_distances(&values[..201], &values[201..], &mut distances);
            results.push((norms, distances));
        });
        assert!(results.windows(2).all(|w| w[0] == w[1]));
        let norm: f64 = values[..201].iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((f64::from(results[0].0[0]) / norm - 1.0).abs() < 1e-6);
    }
}
