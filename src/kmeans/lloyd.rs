//! Lloyd's iterations: assign every row to the nearest centroid, move every centroid to the mean of its rows, repeat.

use super::Outcome;
use crate::device::Lloyd;
use crate::error::Result;

/// When to stop.
pub(super) struct Limits {
    pub max_iterations: usize,
    /// Stop when the centroids' squared movement is at most this.
    pub shift: f64,
}

/// The sum of the squared distances of the clusters' means to the given point, weighted by their sizes.
pub(super) type Between<'a> = dyn Fn(&[f64]) -> f64 + 'a;

/// Refines `centroids`. Calls `iterated` after every iteration.
pub(super) fn run(
    lloyd: &mut dyn Lloyd,
    mut centroids: Vec<f32>,
    limits: &Limits,
    iterated: &mut dyn FnMut(&Between) -> Result<()>,
) -> Result<Outcome> {
    for iteration in 0..limits.max_iterations {
        let mut changed = lloyd.iterate(&centroids)?;
        if lloyd.totals().1.contains(&0) {
            changed += refill(lloyd)?;
        }
        if changed == 0 {
            return Ok(Outcome { centroids, iterations: iteration, converged: true });
        }
        let (sums, counts) = lloyd.totals();
        let moved = means(sums, counts, &centroids);
        iterated(&|mean| between(sums, counts, mean))?;
        let shift: f64 = moved.iter().zip(&centroids).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        centroids = moved;
        if shift <= limits.shift {
            return Ok(Outcome { centroids, iterations: iteration + 1, converged: true });
        }
    }
    Ok(Outcome { centroids, iterations: limits.max_iterations, converged: false })
}

fn means(sums: &[f64], counts: &[i64], old: &[f32]) -> Vec<f32> {
    let dim = sums.len() / counts.len();
    let mut means = old.to_vec();
    for ((mean, sum), &count) in means.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(counts) {
        if count > 0 {
            mean.iter_mut().zip(sum).for_each(|(m, s)| *m = (s / count as f64) as f32);
        }
    }
    means
}

fn between(sums: &[f64], counts: &[i64], mean: &[f64]) -> f64 {
    let mut total = 0.0;
    for (sum, &count) in sums.chunks_exact(mean.len()).zip(counts) {
        let count = count as f64;
        if count > 0.0 {
            total += count * sum.iter().zip(mean).map(|(s, m)| (s / count - m).powi(2)).sum::<f64>();
        }
    }
    total
}

/// Gives each empty cluster the row that is farthest from its own centroid (on a tie the first), unless that row is
/// alone in its cluster or at its centroid. Returns how many rows moved.
fn refill(lloyd: &mut dyn Lloyd) -> Result<usize> {
    let counts = lloyd.totals().1;
    let mut empty = (0..counts.len()).filter(|&c| counts[c] == 0).collect::<Vec<_>>().into_iter();
    let mut moved = 0;
    // A cluster keeps at least one row, and each cluster can hold back only one, so twice as many candidates are
    // enough.
    for farthest in lloyd.farthest(2 * empty.len())? {
        if lloyd.totals().1[farthest.cluster] <= 1 {
            continue;
        }
        let Some(cluster) = empty.next() else { break };
        lloyd.reassign(farthest.row, cluster)?;
        moved += 1;
    }
    Ok(moved)
}
