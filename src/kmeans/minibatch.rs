//! Mini-batch k-means (Sculley 2010): each batch of random rows pulls its centroids towards them, the less the more rows
//! a centroid has seen.

use rand::Rng;

use super::{KMeansSpec, Outcome, init, progress};
use crate::error::Result;
use crate::event::Control;
use crate::kernel::distance::Centroids;
use crate::kernel::sums::{NO_CLUSTER, move_rows};
use crate::kernel::{Pool, Rows};
use crate::seed::Seed;

/// Batches without progress after which it stops.
const PATIENCE: usize = 10;
/// A centroid without a row after this many rows a cluster starts again elsewhere.
const ROWS_BEFORE_RESTART: usize = 32;
/// Multiply-adds worth a second thread.
const PARALLEL_WORK: usize = 1 << 20;

/// The best of `spec.starts` seedings over samples of three batches, judged by the inertia of the first sample.
pub(super) fn seeds(
    rows: &dyn Rows,
    spec: &KMeansSpec,
    batch_size: usize,
    seed: Seed,
    pool: &Pool,
) -> Result<Vec<f32>> {
    let size = (3 * batch_size).max(8 * spec.k);
    let judge = init::draw(rows, size, &mut seed.stream("kmeans.judge", 0))?;
    let (mut labels, mut squared) = (vec![0; judge.len() / rows.dim()], vec![0.0; judge.len() / rows.dim()]);
    let mut best: Option<(f64, Vec<f32>)> = None;
    for start in 0..spec.starts as u64 {
        let seeds = init::seeds(rows, spec.k, size, &mut seed.stream("kmeans", start), pool)?;
        if spec.starts == 1 {
            return Ok(seeds);
        }
        Centroids::new(&seeds, rows.dim()).nearest(&judge, &mut labels, &mut squared);
        let inertia: f64 = squared.iter().map(|&d| f64::from(d)).sum();
        if best.as_ref().is_none_or(|(least, _)| inertia < *least) {
            best = Some((inertia, seeds));
        }
    }
    Ok(best.map(|(_, seeds)| seeds).unwrap_or_default())
}

/// Refines `centroids` until the smoothed inertia of the batches has not fallen for ten of them.
pub(super) fn run(
    rows: &dyn Rows,
    mut centroids: Vec<f32>,
    spec: &KMeansSpec,
    batch_size: usize,
    seed: Seed,
    pool: &Pool,
    control: &Control,
) -> Result<Outcome> {
    let (n, dim, k) = (rows.len(), rows.dim(), spec.k);
    let size = batch_size.min(n);
    let most = (spec.max_iterations * n).div_ceil(size);
    let mut rng = seed.stream("kmeans.batches", 0);
    let mut batch = Batch::new(size, k, dim);
    let mut seen = vec![0i64; k];
    let share = (2.0 * size as f64 / (n + 1) as f64).min(1.0);
    let (mut smooth, mut least, mut idle) = (None, f64::INFINITY, 0);
    for step in 0..most {
        batch.indices.iter_mut().for_each(|i| *i = rng.random_range(0..n as u32));
        // In order, so that rows on disk are read forwards.
        batch.indices.sort_unstable();
        rows.gather(&batch.indices, &mut batch.rows)?;
        let inertia = batch.pull(&mut centroids, &mut seen, pool);
        if (step + 1) * size >= ROWS_BEFORE_RESTART * k {
            batch.restart_unused(&mut centroids, &mut seen);
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

/// The rows of a step and room to label them.
struct Batch {
    dim: usize,
    indices: Vec<u32>,
    rows: Vec<f32>,
    labels: Vec<u32>,
    squared: Vec<f32>,
    nowhere: Vec<u32>,
    sums: Vec<f64>,
    counts: Vec<i64>,
}

impl Batch {
    fn new(size: usize, k: usize, dim: usize) -> Self {
        Self {
            dim,
            indices: vec![0; size],
            rows: vec![0.0; size * dim],
            labels: vec![0; size],
            squared: vec![0.0; size],
            nowhere: vec![NO_CLUSTER; size],
            sums: vec![0.0; k * dim],
            counts: vec![0; k],
        }
    }

    /// Moves each centroid to the mean of the rows that it has ever been given; returns the batch's mean squared distance.
    fn pull(&mut self, centroids: &mut [f32], seen: &mut [i64], pool: &Pool) -> f64 {
        self.label(&Centroids::new(centroids, self.dim), pool);
        self.sums.fill(0.0);
        self.counts.fill(0);
        move_rows(&self.rows, self.dim, &self.nowhere, &self.labels, &mut self.sums, &mut self.counts);
        let clusters = centroids.chunks_exact_mut(self.dim).zip(self.sums.chunks_exact(self.dim));
        for ((centroid, sum), (&count, seen)) in clusters.zip(self.counts.iter().zip(seen)) {
            if count > 0 {
                let (before, after) = (*seen as f64, (*seen + count) as f64);
                centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = ((f64::from(*c) * before + s) / after) as f32);
                *seen += count;
            }
        }
        self.squared.iter().map(|&d| f64::from(d)).sum::<f64>() / self.squared.len() as f64
    }

    fn label(&mut self, centers: &Centroids, pool: &Pool) {
        const CHUNK: usize = 1024;
        if self.rows.len() * centers.k() < PARALLEL_WORK {
            return centers.nearest(&self.rows, &mut self.labels, &mut self.squared);
        }
        let rows = self.rows.chunks(CHUNK * self.dim);
        let outputs = self.labels.chunks_mut(CHUNK).zip(self.squared.chunks_mut(CHUNK));
        let mut tasks: Vec<_> = rows.zip(outputs).collect();
        pool.for_each_chunk_mut(&mut tasks, 1, |_, task| {
            let (rows, (labels, squared)) = &mut task[0];
            centers.nearest(rows, labels, squared);
        });
    }

    /// Puts each centroid that no row ever chose on the row of this batch that lies farthest from its own.
    fn restart_unused(&mut self, centroids: &mut [f32], seen: &mut [i64]) {
        for c in (0..seen.len()).filter(|&c| seen[c] == 0).collect::<Vec<_>>() {
            let far =
                (0..self.squared.len()).fold(0, |far, i| if self.squared[i] > self.squared[far] { i } else { far });
            if self.squared[far] > 0.0 {
                centroids[c * self.dim..][..self.dim].copy_from_slice(&self.rows[far * self.dim..][..self.dim]);
                self.squared[far] = 0.0;
            }
        }
    }
}
