//! Mini-batch k-means (Sculley 2010): centroids move towards the rows of each random batch, the less the more rows they
//! have seen.

use rand::Rng;

use super::{KMeansSpec, Outcome, init, progress};
use crate::device::{BatchSums, Device, Points};
use crate::error::Result;
use crate::event::Control;
use crate::kernel::Dense;
use crate::seed::Seed;

/// Batches without progress after which it stops.
const PATIENCE: usize = 10;
/// A centroid without a row after this many rows per cluster is moved elsewhere.
const ROWS_BEFORE_RESTART: usize = 32;

/// The best of `spec.n_init` seedings over samples of three batches, judged by the inertia of the first sample.
pub(super) fn seeds(
    points: &dyn Points,
    spec: &KMeansSpec,
    batch_size: usize,
    seed: Seed,
    device: &dyn Device,
) -> Result<Vec<f32>> {
    let dim = points.rows().dim();
    let size = (3 * batch_size).max(8 * spec.k);
    let judge = init::draw(points.rows(), size, &mut seed.stream("kmeans.judge", 0))?;
    let judge = Dense::new(&judge, dim);
    let judge = device.points(&judge)?;
    init::best(&*judge, spec.n_init, |start| {
        init::seeds(points, spec.k, size, &mut seed.stream("kmeans", start), device)
    })
}

/// Refines `centroids` until the smoothed inertia of the batches has not fallen for ten of them.
pub(super) fn run(
    points: &mut dyn Points,
    mut centroids: Vec<f32>,
    spec: &KMeansSpec,
    batch_size: usize,
    seed: Seed,
    control: &Control,
) -> Result<Outcome> {
    let (n, k) = (points.rows().len(), spec.k);
    let size = batch_size.min(n);
    let most = (spec.max_iterations * n).div_ceil(size);
    let mut rng = seed.stream("kmeans.batches", 0);
    let (mut batch, mut found) = (vec![0; size], BatchSums::default());
    let mut seen = vec![0i64; k];
    let share = (2.0 * size as f64 / (n + 1) as f64).min(1.0);
    let (mut smooth, mut least, mut idle) = (None, f64::INFINITY, 0);
    for step in 0..most {
        batch.iter_mut().for_each(|i| *i = rng.random_range(0..n as u32));
        // Sorted, so that rows on disk are read in order.
        batch.sort_unstable();
        points.batch(&batch, &centroids, &mut found)?;
        pull(&mut centroids, &mut seen, &found);
        let inertia = found.squared.iter().map(|&d| f64::from(d)).sum::<f64>() / size as f64;
        if (step + 1) * size >= ROWS_BEFORE_RESTART * k {
            restart_unused(points, &batch, &mut found.squared, &mut centroids, &seen)?;
        }
        let now = smooth.map_or(inertia, |smooth: f64| smooth * (1.0 - share) + inertia * share);
        smooth = Some(now);
        progress(control, step as u64 + 1, now * n as f64)?;
        idle = if now < least * (1.0 - spec.tolerance) { 0 } else { idle + 1 };
        least = least.min(now);
        if idle >= PATIENCE {
            return Ok(Outcome { centroids, iterations: step + 1, converged: true });
        }
    }
    Ok(Outcome { centroids, iterations: most, converged: false })
}

/// Moves each centroid to the mean of the rows that it has ever been given.
fn pull(centroids: &mut [f32], seen: &mut [i64], found: &BatchSums) {
    let dim = centroids.len() / seen.len();
    let clusters = centroids.chunks_exact_mut(dim).zip(found.sums.chunks_exact(dim));
    for ((centroid, sum), (&count, seen)) in clusters.zip(found.counts.iter().zip(seen)) {
        if count > 0 {
            let (before, after) = (*seen as f64, (*seen + count) as f64);
            centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = ((f64::from(*c) * before + s) / after) as f32);
            *seen += count;
        }
    }
}

/// Moves each centroid that never had a row to the row of this batch that is farthest from its own centroid.
fn restart_unused(
    points: &dyn Points,
    batch: &[u32],
    squared: &mut [f32],
    centroids: &mut [f32],
    seen: &[i64],
) -> Result<()> {
    let dim = centroids.len() / seen.len();
    for (c, _) in seen.iter().enumerate().filter(|(_, seen)| **seen == 0) {
        let far = (0..squared.len()).fold(0, |far, i| if squared[i] > squared[far] { i } else { far });
        if squared[far] > 0.0 {
            let row = batch[far] as usize;
            points.rows().read(row..row + 1, &mut centroids[c * dim..][..dim])?;
            squared[far] = 0.0;
        }
    }
    Ok(())
}
