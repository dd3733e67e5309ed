//! Lloyd's iterations: label every row, move every centroid to the mean of its rows, repeat.

use std::ops::Range;

use super::Outcome;
use super::bounds::{Bounds, Step};
use crate::error::Result;
use crate::kernel::distance::Centroids;
use crate::kernel::sums::{NO_CLUSTER, move_rows};
use crate::kernel::{Pool, Rows, fold};

/// Sums follow the rows that change their label; every so many iterations they are taken afresh, so that rounding cannot
/// pile up.
const REFRESH: usize = 16;
/// Memory for the parts' sums; few parts where a sum is large.
const SUMS_BYTES: usize = 64 << 20;

/// When to stop.
pub(super) struct Limits {
    pub max_iterations: usize,
    /// Stop when the centroids' squared movement is at most this.
    pub shift: f64,
}

/// The squared distances of the clusters' means to the given point, weighted by their sizes and added up.
pub(super) type Between<'a> = dyn Fn(&[f64]) -> f64 + 'a;

/// Rows that one task labels, and what it found.
pub(super) struct Part {
    pub range: Range<usize>,
    pub labels: Vec<u32>,
    pub bounds: Option<Bounds>,
    /// How this iteration changes the sums and sizes of the clusters.
    pub sums: Vec<f64>,
    pub counts: Vec<i64>,
    pub changed: usize,
}

/// Refines `centroids`; `bounded` skips distances that bounds rule out, with the same result. Calls `iterated` after
/// every iteration.
pub(super) fn run(
    rows: &dyn Rows,
    mut centroids: Vec<f32>,
    limits: &Limits,
    bounded: bool,
    pool: &Pool,
    iterated: &mut dyn FnMut(&Between) -> Result<()>,
) -> Result<Outcome> {
    let dim = rows.dim();
    let k = centroids.len() / dim;
    let mut parts = make_parts(rows.len(), k, dim, bounded);
    let (mut sums, mut counts) = (vec![0.0; k * dim], vec![0i64; k]);
    let mut step = Step::new(Centroids::new(&centroids, dim), bounded, pool);
    for iteration in 0..limits.max_iterations {
        let fresh = iteration % REFRESH == 0;
        label(rows, &mut parts, &step, fresh, pool)?;
        if fresh {
            sums.fill(0.0);
            counts.fill(0);
        }
        let mut changed = 0;
        for part in &parts {
            sums.iter_mut().zip(&part.sums).for_each(|(a, b)| *a += b);
            counts.iter_mut().zip(&part.counts).for_each(|(a, b)| *a += b);
            changed += part.changed;
        }
        if counts.contains(&0) {
            changed += refill(rows, &mut parts, &step.centers, &mut sums, &mut counts, pool)?;
        }
        if changed == 0 {
            return Ok(Outcome { centroids, iterations: iteration, converged: true });
        }
        let moved = means(&sums, &counts, &centroids, dim);
        iterated(&|mean| between(&sums, &counts, mean))?;
        let shift: f64 = moved.iter().zip(&centroids).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        step = step.next(Centroids::new(&moved, dim), pool);
        centroids = moved;
        if shift <= limits.shift {
            return Ok(Outcome { centroids, iterations: iteration + 1, converged: true });
        }
    }
    Ok(Outcome { centroids, iterations: limits.max_iterations, converged: false })
}

fn make_parts(rows: usize, k: usize, dim: usize, bounded: bool) -> Vec<Part> {
    let most = (SUMS_BYTES / (8 * k * dim)).max(8);
    fold::parts(rows, most)
        .into_iter()
        .map(|range| Part {
            labels: vec![NO_CLUSTER; range.len()],
            bounds: bounded.then(|| Bounds::new(range.len())),
            sums: vec![0.0; k * dim],
            counts: vec![0; k],
            changed: 0,
            range,
        })
        .collect()
}

fn label(rows: &dyn Rows, parts: &mut [Part], step: &Step, fresh: bool, pool: &Pool) -> Result<()> {
    let failure = std::sync::Mutex::new(None);
    pool.for_each_chunk_mut(parts, 1, |i, part| {
        let part = &mut part[0];
        part.sums.fill(0.0);
        part.counts.fill(0);
        part.changed = 0;
        let result =
            if part.bounds.is_some() { part.bounded(rows, step, fresh) } else { part.plain(rows, step, fresh) };
        if let Err(error) = result {
            // The first part that fails speaks, whichever thread came first.
            let mut failure = failure.lock().expect("no task panics while it holds the lock");
            if failure.as_ref().is_none_or(|(first, _)| i < *first) {
                *failure = Some((i, error));
            }
        }
    });
    match failure.into_inner().expect("no task panics while it holds the lock") {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

impl Part {
    /// Measures every row against every centroid.
    fn plain(&mut self, rows: &dyn Rows, step: &Step, fresh: bool) -> Result<()> {
        let dim = rows.dim();
        let size = fold::block_rows(dim);
        let (mut new, mut squared) = (vec![0; size], vec![0.0; size]);
        let nowhere = vec![NO_CLUSTER; size];
        let range = self.range.clone();
        fold::for_each_block(rows, range, |first, block| {
            let n = block.len() / dim;
            let at = first - self.range.start;
            let (new, old) = (&mut new[..n], &mut self.labels[at..at + n]);
            step.centers.nearest(block, new, &mut squared[..n]);
            let from = if fresh { &nowhere[..n] } else { &*old };
            let changed = move_rows(block, dim, from, new, &mut self.sums, &mut self.counts);
            self.changed += if fresh { old.iter().zip(&*new).filter(|(a, b)| a != b).count() } else { changed };
            old.copy_from_slice(new);
            Ok(())
        })
    }
}

fn means(sums: &[f64], counts: &[i64], old: &[f32], dim: usize) -> Vec<f32> {
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

/// Gives each empty cluster the row that lies farthest from its own centroid (of equals the first), unless it is alone
/// there or on its centroid. Returns how many rows moved.
fn refill(
    rows: &dyn Rows,
    parts: &mut [Part],
    centers: &Centroids,
    sums: &mut [f64],
    counts: &mut [i64],
    pool: &Pool,
) -> Result<usize> {
    let dim = centers.dim();
    let empty: Vec<usize> = (0..counts.len()).filter(|&c| counts[c] == 0).collect();
    let (shared, sizes) = (&*parts, &*counts);
    // A cluster that gave rows away holds back one at most, so of twice as many rows enough may move.
    let most = 2 * empty.len();
    let candidates = pool.map(parts.len(), |i| farthest(rows, &shared[i], centers, sizes, most));
    let mut farthest_rows = Vec::new();
    for part in candidates {
        farthest_rows.extend(part?);
    }
    sort_farthest(&mut farthest_rows);
    let mut empty = empty.into_iter();
    let mut moved = 0;
    let mut values = vec![0.0; dim];
    for (_, row) in farthest_rows {
        let at = parts.partition_point(|p| p.range.end <= row);
        let part = &mut parts[at];
        let local = row - part.range.start;
        let donor = part.labels[local] as usize;
        if counts[donor] <= 1 {
            continue;
        }
        let Some(cluster) = empty.next() else { break };
        rows.read(row..row + 1, &mut values)?;
        let from = [donor as u32];
        move_rows(&values, dim, &from, &[cluster as u32], sums, counts);
        part.labels[local] = cluster as u32;
        if let Some(bounds) = &mut part.bounds {
            bounds.forget(local);
        }
        moved += 1;
    }
    Ok(moved)
}

/// The `most` rows of a part that lie farthest from their own centroids, of those that are not alone there.
fn farthest(
    rows: &dyn Rows,
    part: &Part,
    centers: &Centroids,
    sizes: &[i64],
    most: usize,
) -> Result<Vec<(f32, usize)>> {
    let mut found = Vec::new();
    fold::for_each_block(rows, part.range.clone(), |first, block| {
        let n = block.len() / centers.dim();
        let at = first - part.range.start;
        let mut squared = vec![0.0; n];
        let labels = &part.labels[at..at + n];
        centers.own(block, labels, &mut squared);
        let may_move = |i: usize| squared[i] > 0.0 && sizes[labels[i] as usize] > 1;
        found.extend((0..n).filter(|&i| may_move(i)).map(|i| (squared[i], first + i)));
        sort_farthest(&mut found);
        found.truncate(most);
        Ok(())
    })?;
    Ok(found)
}

fn sort_farthest(rows: &mut [(f32, usize)]) {
    rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
}
