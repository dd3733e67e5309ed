//! Hamerly's bounds (2010): a row whose centroid is surely nearest need not be measured, nor even read.
//!
//! For each row, an upper bound on the distance to its centroid and a lower bound on the distance to every other follow
//! the centroids' movements. Bounds are rounded outward and compared with room for the rounding of the measured
//! distances, so a row is skipped only if measuring it would give the same label: the iterations equal plain ones, bit
//! for bit.

use super::NOWHERE;
use super::lloyd::{Part, Scratch};
use crate::error::Result;
use crate::kernel::distance::{Centroids, relative_error};
use crate::kernel::sums::{NO_CLUSTER, move_rows};
use crate::kernel::{Pool, Rows, fold};

/// Distances below this may have underflowed when squared; bounds that small decide nothing.
const TINY: f32 = 1e-18;
/// Outward rounding of a bound that was just updated.
const UP: f32 = 1.0 + 4.0 * f32::EPSILON;
const DOWN: f32 = 1.0 - 4.0 * f32::EPSILON;

/// Whether bounds are worth their upkeep: measuring a row must cost more than keeping its two bounds.
pub(super) fn pay(k: usize, dim: usize) -> bool {
    k > 1 && k * dim >= 512
}

/// The root of a squared distance, as a lower bound: one that overflowed is only known to be as long as the longest.
fn root(squared: f32) -> f32 {
    squared.min(f32::MAX).sqrt()
}

/// Bounds of a part's rows.
pub(super) struct Bounds {
    upper: Vec<f32>,
    lower: Vec<f32>,
}

impl Bounds {
    pub(super) fn new(rows: usize) -> Self {
        Self { upper: vec![f32::INFINITY; rows], lower: vec![0.0; rows] }
    }

    /// Makes sure that the row is measured next time.
    pub(super) fn forget(&mut self, row: usize) {
        self.upper[row] = f32::INFINITY;
        self.lower[row] = 0.0;
    }
}

/// The centroids of an iteration, and how they got there.
pub(super) struct Step {
    pub(super) centers: Centroids,
    moves: Option<Moves>,
}

struct Moves {
    /// How far each centroid moved at most.
    drift: Vec<f32>,
    /// The centroid that moved most, and how far the others moved at most.
    most: (u32, f32),
    /// At least half the distance from each centroid to the nearest other.
    half_gap: Vec<f32>,
    /// Room for the rounding of measured distances.
    slack: f32,
}

impl Step {
    /// The first iteration.
    pub(super) fn new(centers: Centroids, bounded: bool, pool: &Pool) -> Self {
        let drift = vec![0.0; centers.k()];
        let moves = bounded.then(|| Moves::new(&centers, drift, pool));
        Self { centers, moves }
    }

    /// The iteration after this one.
    pub(super) fn next(self, centers: Centroids, pool: &Pool) -> Self {
        let moves = self.moves.map(|_| {
            let distance = |c| {
                let pairs = self.centers.get(c).iter().zip(centers.get(c));
                let squared: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                squared.sqrt() as f32 * UP
            };
            Moves::new(&centers, (0..centers.k()).map(distance).collect(), pool)
        });
        Self { centers, moves }
    }
}

impl Moves {
    fn new(centers: &Centroids, drift: Vec<f32>, pool: &Pool) -> Self {
        const CHUNK: usize = 64;
        let (k, dim) = (centers.k(), centers.dim());
        let slack = 2.0 * relative_error(dim) + 16.0 * f32::EPSILON;
        let mut half_gap = vec![0.0; k];
        pool.for_each_chunk_mut(&mut half_gap, CHUNK, |i, gaps| {
            let values: Vec<f32> = (0..gaps.len()).flat_map(|c| centers.get(i * CHUNK + c)).copied().collect();
            // A centroid's nearest is itself, or its double at the same place; the second nearest is the gap.
            let (mut labels, mut own) = (vec![0; gaps.len()], vec![0.0; gaps.len()]);
            centers.nearest_two(&values, &mut labels, &mut own, gaps);
            gaps.iter_mut().for_each(|gap| *gap = root(*gap) * (0.5 - slack));
        });
        let largest = (0..k).max_by(|&a, &b| drift[a].total_cmp(&drift[b])).unwrap_or(0);
        let others = drift.iter().enumerate().filter(|(c, _)| *c != largest).map(|(_, d)| *d);
        let most = (largest as u32, others.fold(0.0, f32::max));
        Self { drift, most, half_gap, slack }
    }

    /// Whether a row may have a nearer centroid than its own.
    fn open(&self, label: u32, upper: f32, lower: f32) -> bool {
        let apart = lower.max(self.half_gap[label as usize]);
        // Not "at least": an upper bound that is no number must be measured.
        (upper * (1.0 + self.slack) + TINY).partial_cmp(&apart) != Some(std::cmp::Ordering::Less)
    }

    /// Moves the bounds of rows along with the centroids; `open` gets those that must be looked at.
    fn follow(&self, labels: &[u32], upper: &mut [f32], lower: &mut [f32], open: &mut Vec<u32>) {
        open.clear();
        let farthest = self.drift[self.most.0 as usize];
        for (i, ((&label, upper), lower)) in labels.iter().zip(upper).zip(lower).enumerate() {
            if label == NO_CLUSTER {
                open.push(i as u32);
                continue;
            }
            *upper = (*upper + self.drift[label as usize]) * UP;
            *lower = (*lower - if label == self.most.0 { self.most.1 } else { farthest }) * DOWN;
            if *lower < 0.0 {
                *lower = 0.0;
            }
            if self.open(label, *upper, *lower) {
                open.push(i as u32);
            }
        }
    }
}

/// Rows picked out of a block, with room to measure them.
#[derive(Default)]
pub(super) struct Picked {
    /// Their places in the block.
    at: Vec<u32>,
    rows: Vec<f32>,
    old: Vec<u32>,
    new: Vec<u32>,
    squared: Vec<f32>,
    second: Vec<f32>,
    open: Vec<bool>,
}

impl Picked {
    fn pick(&mut self, block: &[f32], dim: usize, labels: &[u32]) {
        self.rows.clear();
        self.old.clear();
        for &i in &self.at {
            self.rows.extend_from_slice(&block[i as usize * dim..][..dim]);
            self.old.push(labels[i as usize]);
        }
        self.resize();
    }

    fn resize(&mut self) {
        let n = self.at.len();
        self.new.resize(n, 0);
        self.squared.resize(n, 0.0);
        self.second.resize(n, 0.0);
    }

    /// Keeps the rows that are open.
    fn retain_open(&mut self, dim: usize) {
        let mut kept = 0;
        for i in 0..self.at.len() {
            if self.open[i] {
                self.at[kept] = self.at[i];
                self.old[kept] = self.old[i];
                self.rows.copy_within(i * dim..(i + 1) * dim, kept * dim);
                kept += 1;
            }
        }
        self.at.truncate(kept);
        self.old.truncate(kept);
        self.rows.truncate(kept * dim);
        self.resize();
    }
}

impl Part {
    /// Measures the rows whose bounds leave their label open.
    pub(super) fn bounded(&mut self, rows: &dyn Rows, step: &Step, fresh: bool, scratch: &mut Scratch) -> Result<()> {
        let size = fold::block_rows(rows.dim());
        let Scratch { picked, buffer, .. } = scratch;
        for first in self.range.clone().step_by(size) {
            let range = first..(first + size).min(self.range.end);
            let at = first - self.range.start..range.end - self.range.start;
            let (Some(moves), Some(bounds)) = (&step.moves, &mut self.bounds) else { return Ok(()) };
            let labels = &mut self.labels[at.clone()];
            let (upper, lower) = (&mut bounds.upper[at.clone()], &mut bounds.lower[at]);
            moves.follow(labels, upper, lower, &mut picked.at);
            if picked.at.is_empty() && !fresh {
                continue;
            }
            let block = fold::block(rows, range, buffer)?;
            measure(block, step, moves, labels, upper, lower, picked);
            self.changed += picked.old.iter().zip(&picked.new).filter(|(a, b)| a != b).count();
            if fresh {
                move_rows(block, rows.dim(), &NOWHERE[..labels.len()], labels, &mut self.sums, &mut self.counts);
            } else {
                move_rows(&picked.rows, rows.dim(), &picked.old, &picked.new, &mut self.sums, &mut self.counts);
            }
        }
        Ok(())
    }
}

/// Tightens the upper bounds of the picked rows, then measures those still open and leaves them in `picked`.
fn measure(
    block: &[f32],
    step: &Step,
    moves: &Moves,
    labels: &mut [u32],
    upper: &mut [f32],
    lower: &mut [f32],
    picked: &mut Picked,
) {
    let dim = step.centers.dim();
    picked.pick(block, dim, labels);
    if !picked.old.contains(&NO_CLUSTER) {
        step.centers.own(&picked.rows, &picked.old, &mut picked.squared);
        for (&i, &squared) in picked.at.iter().zip(&picked.squared) {
            upper[i as usize] = squared.sqrt() * (1.0 + moves.slack) + TINY;
        }
        picked.open.clear();
        let places = picked.at.iter().map(|&i| i as usize);
        picked.open.extend(places.map(|i| moves.open(labels[i], upper[i], lower[i])));
        picked.retain_open(dim);
    }
    step.centers.nearest_two(&picked.rows, &mut picked.new, &mut picked.squared, &mut picked.second);
    for (p, &i) in picked.at.iter().enumerate() {
        labels[i as usize] = picked.new[p];
        upper[i as usize] = picked.squared[p].sqrt() * (1.0 + moves.slack) + TINY;
        lower[i as usize] = (root(picked.second[p]) * (1.0 - moves.slack) - TINY).max(0.0);
    }
}
