//! Seeding: greedy k-means++ over a sample of the rows.

use std::borrow::Cow;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::kernel::distance::Centroids;
use crate::kernel::{Pool, Rows, fold};

/// How many rows the seeding looks at: all if they are few, else a sample that is large beside `k`. Depends on the shape
/// alone, so that seeds are the same wherever the rows lie.
pub(super) fn sample_rows(k: usize, dim: usize) -> usize {
    ((1 << 22) / dim).min(1 << 17).max(32 * k)
}

/// `k` distinct rows as the first centroids, by k-means++ over `sample` rows drawn without replacement.
///
/// Should the sample have fewer distinct rows, the rows farthest from the centroids so far complete them.
pub(super) fn seeds(rows: &dyn Rows, k: usize, sample: usize, rng: &mut ChaCha8Rng, pool: &Pool) -> Result<Vec<f32>> {
    let dim = rows.dim();
    let sampled = draw(rows, sample, rng)?;
    let mut seeds = plus_plus(&sampled, dim, k, rng, pool);
    while seeds.len() < k * dim {
        let centers = Centroids::new(&seeds, dim);
        let Some(row) = farthest(rows, &centers, pool)? else {
            let (found, n) = (seeds.len() / dim, rows.len());
            let message = format!("k = {k} clusters need {k} distinct rows, only {found} of the {n} rows are distinct");
            return Err(Error::input(message));
        };
        let mut values = vec![0.0; dim];
        rows.read(row..row + 1, &mut values)?;
        seeds.extend(values);
    }
    Ok(seeds)
}

/// `count` rows drawn without replacement, in their order; all of them if there are no more.
pub(super) fn draw<'a>(rows: &'a dyn Rows, count: usize, rng: &mut ChaCha8Rng) -> Result<Cow<'a, [f32]>> {
    let (n, dim) = (rows.len(), rows.dim());
    if count < n {
        let mut indices: Vec<u32> = rand::seq::index::sample(rng, n, count).into_iter().map(|i| i as u32).collect();
        indices.sort_unstable();
        let mut values = vec![0.0; count * dim];
        rows.gather(&indices, &mut values)?;
        return Ok(values.into());
    }
    if let Some(all) = rows.as_slice() {
        return Ok(all.into());
    }
    let mut values = vec![0.0; n * dim];
    rows.read(0..n, &mut values)?;
    Ok(values.into())
}

/// The row farthest from its nearest centroid, the first of several; none if every row is a centroid.
fn farthest(rows: &dyn Rows, centers: &Centroids, pool: &Pool) -> Result<Option<usize>> {
    let parts = fold::fold(
        rows,
        pool,
        || (0.0f32, None),
        |best, first, block| {
            let n = block.len() / centers.dim();
            let (mut labels, mut squared) = (vec![0; n], vec![0.0; n]);
            centers.nearest(block, &mut labels, &mut squared);
            for (i, &squared) in squared.iter().enumerate() {
                if squared > best.0 {
                    *best = (squared, Some(first + i));
                }
            }
            Ok(())
        },
    )?;
    Ok(parts.into_iter().fold((0.0, None), |best, part| if part.0 > best.0 { part } else { best }).1)
}

/// A part of the sample.
struct Part<'a> {
    rows: &'a [f32],
    /// Squared distance of each row to the nearest centroid so far.
    closest: Vec<f32>,
    /// Sum of `closest`.
    potential: f64,
    /// Distances to the candidates, candidate by candidate, and what the potential would be with each.
    distances: Vec<f32>,
    potentials: Vec<f64>,
}

impl Part<'_> {
    fn measure(&mut self, candidates: &Centroids) {
        self.distances.resize(candidates.k() * self.closest.len(), 0.0);
        candidates.all(self.rows, &mut self.distances);
        let closest = &self.closest;
        self.potentials.clear();
        self.potentials.extend(self.distances.chunks_exact(closest.len()).map(|d| sum_of_minima(d, closest)));
    }

    fn choose(&mut self, candidate: usize) {
        let n = self.closest.len();
        for (closest, &d) in self.closest.iter_mut().zip(&self.distances[candidate * n..]) {
            *closest = closest.min(d);
        }
        self.potential = self.potentials[candidate];
    }
}

fn sum_of_minima(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(a.min(*b));
        }
    }
    lanes.iter().sum()
}

/// Greedy k-means++: each next centroid is the best of `2 + ln k` rows drawn with probability proportional to their
/// squared distance. Fewer than `k` if there are fewer distinct rows. `O(k log k x rows x dim)`.
pub(super) fn plus_plus(rows: &[f32], dim: usize, k: usize, rng: &mut ChaCha8Rng, pool: &Pool) -> Vec<f32> {
    let n = rows.len() / dim;
    let trials = 2 + (k as f64).ln() as usize;
    let mut parts: Vec<Part> = fold::parts(n, 64)
        .into_iter()
        .map(|range| Part {
            rows: &rows[range.start * dim..range.end * dim],
            closest: vec![f32::INFINITY; range.len()],
            potential: 0.0,
            distances: Vec::new(),
            potentials: Vec::new(),
        })
        .collect();
    let mut candidates = vec![rng.random_range(0..n)];
    let mut seeds = Vec::with_capacity(k * dim);
    loop {
        let values: Vec<f32> = candidates.iter().flat_map(|&i| &rows[i * dim..][..dim]).copied().collect();
        let centers = Centroids::new(&values, dim);
        pool.for_each_chunk_mut(&mut parts, 1, |_, part| part[0].measure(&centers));
        let with = |candidate: usize| parts.iter().map(|p| p.potentials[candidate]).sum::<f64>();
        let potentials: Vec<f64> = (0..candidates.len()).map(with).collect();
        let best = (0..candidates.len()).min_by(|&a, &b| potentials[a].total_cmp(&potentials[b])).unwrap_or(0);
        seeds.extend_from_slice(centers.get(best));
        if seeds.len() == k * dim || potentials[best] <= 0.0 {
            return seeds;
        }
        pool.for_each_chunk_mut(&mut parts, 1, |_, part| part[0].choose(best));
        candidates = (0..trials).map(|_| locate(&parts, rng.random::<f64>() * potentials[best])).collect();
    }
}

/// The row at which the running sum of squared distances passes `target`, never one at distance 0.
fn locate(parts: &[Part], mut target: f64) -> usize {
    let mut first = 0;
    for part in parts {
        if target < part.potential {
            let mut last = None;
            for (i, &d) in part.closest.iter().enumerate().filter(|(_, d)| **d > 0.0) {
                last = Some(first + i);
                target -= f64::from(d);
                if target < 0.0 {
                    break;
                }
            }
            if let Some(last) = last {
                return last;
            }
        }
        target -= part.potential;
        first += part.closest.len();
    }
    // Rounding can leave a target just past the end: the last row that may be drawn.
    let all = parts.iter().flat_map(|part| &part.closest);
    all.enumerate().filter(|(_, d)| **d > 0.0).map(|(i, _)| i).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Dense;
    use crate::seed::Seed;

    #[test]
    fn seeds_are_distinct_rows_and_the_same_on_any_number_of_threads() {
        let rows: Vec<f32> = (0..20_000).map(|i| (i * i % 997) as f32).collect();
        let draw = |threads| {
            let mut rng = Seed(3).stream("kmeans", 0);
            seeds(&Dense::new(&rows, 2), 30, 5000, &mut rng, &Pool::new(threads)).unwrap()
        };
        let found = draw(1);
        assert_eq!(found, draw(3));
        let distinct: std::collections::BTreeSet<_> =
            found.chunks(2).map(|c| (c[0].to_bits(), c[1].to_bits())).collect();
        assert_eq!(distinct.len(), 30);
        assert!(found.chunks(2).all(|c| rows.chunks(2).any(|r| r == c)));
    }

    #[test]
    fn a_rare_value_outside_the_sample_is_found() {
        let mut rows = vec![0.0; 10_000];
        rows[7777] = 5.0;
        let mut rng = Seed(1).stream("kmeans", 0);
        let found = seeds(&Dense::new(&rows, 1), 2, 10, &mut rng, &Pool::new(1)).unwrap();
        assert_eq!(found, [0.0, 5.0]);
        let error = seeds(&Dense::new(&rows, 1), 3, 10, &mut rng, &Pool::new(1)).unwrap_err();
        assert!(error.to_string().contains("k = 3") && error.to_string().contains("only 2"), "{error}");
    }
}
