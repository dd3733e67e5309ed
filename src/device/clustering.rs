//! k-means on a device: passes over all rows, of which only sums and choices come back.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::kernel::{Rows, fold};

/// Takes what a pass found: the number of the first of some consecutive rows, the nearest centroid of each, and its
/// squared distance.
pub type Found<'a> = dyn Fn(usize, &[u32], &[f32]) + Sync + 'a;

/// Rows that k-means passes over again and again; a device may keep a copy of them.
pub trait Points {
    /// The rows, as they were given.
    fn rows(&self) -> &dyn Rows;

    /// Feature by feature, the sums over all rows of `x - origin` and of its square; all three slices are `dim` long.
    /// Values that are no finite numbers make sums that are none.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn moments(&self, origin: &[f32], sums: &mut [f64], squares: &mut [f64]) -> Result<()>;

    /// Finds the nearest of `centroids` (`k x dim`) for every row, in a tie the lower number, and hands each row to
    /// `found` once. Several threads may call it at once, but rows of one part of [`fold::parts`] come in order.
    /// [`fold`](trait.Points.html#method.fold) adds up what it is handed.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn nearest(&self, centroids: &[f32], found: &Found<'_>) -> Result<()>;

    /// The nearest of `centroids` (`k x dim`) for the rows of these numbers, added up into `out`, which is overwritten.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn batch(&mut self, rows: &[u32], centroids: &[f32], out: &mut BatchSums) -> Result<()>;

    /// The nearest and the second nearest of `centroids` (`k x dim`, `k` less than 2^24) for every row, as
    /// [`Assign::nearest_two`](super::Assign::nearest_two) finds them and with the same bits, and what the rows of each
    /// cluster add up to. `O(rows x k x dim)`.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn assign(&self, centroids: &[f32]) -> Result<Assigned>;

    /// Lloyd's iterations with `k` clusters, before the first of them.
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn lloyd(&self, k: usize) -> Result<Box<dyn Lloyd + '_>>;
}

impl dyn Points + '_ {
    /// Folds what [`nearest`](Points::nearest) finds into a state for each part of [`fold::parts`], each row's label and
    /// squared distance in order: the states in the order of the parts, for the caller to merge. What comes out does not
    /// depend on how the device cuts its work.
    ///
    /// # Errors
    /// As [`nearest`](Points::nearest).
    pub fn fold<S: Send>(
        &self,
        centroids: &[f32],
        start: impl Fn() -> S,
        visit: impl Fn(&mut S, usize, &[u32], &[f32]) + Sync,
    ) -> Result<Vec<S>> {
        let parts = fold::parts(self.rows().len(), fold::MAX_PARTS);
        let size = parts.first().map_or(1, |part| part.len());
        let states: Vec<Mutex<S>> = parts.iter().map(|_| Mutex::new(start())).collect();
        self.nearest(centroids, &|first, labels, squared| {
            let mut done = 0;
            while done < labels.len() {
                let at = first + done;
                let range = done..labels.len().min(parts[at / size].end - first);
                let mut state = states[at / size].lock().unwrap_or_else(PoisonError::into_inner);
                visit(&mut state, at, &labels[range.clone()], &squared[range.clone()]);
                done = range.end;
            }
        })?;
        Ok(states.into_iter().map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }
}

/// What the rows of a mini-batch add up to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchSums {
    /// The sum of each cluster's rows, `k x dim`.
    pub sums: Vec<f64>,
    /// How many they are, `k`.
    pub counts: Vec<i64>,
    /// The squared distance of each row of the batch to its nearest centroid.
    pub squared: Vec<f32>,
}

/// Rows with their clusters, and what the rows of each cluster add up to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assigned {
    /// The nearest cluster of each row, in a tie the lower number.
    pub labels: Vec<u32>,
    /// Its squared distance.
    pub squared: Vec<f32>,
    /// That of the second nearest: equal in a tie, infinite for a single cluster.
    pub second: Vec<f32>,
    /// The sum of each cluster's rows, `k x dim`.
    pub sums: Vec<f64>,
    /// How many they are, `k`.
    pub counts: Vec<i64>,
}

impl Assigned {
    /// No rows yet of `k` clusters.
    pub fn new(k: usize, dim: usize) -> Self {
        Self { sums: vec![0.0; k * dim], counts: vec![0; k], ..Self::default() }
    }

    /// Adds the rows that come next.
    pub fn append(&mut self, next: Self) {
        self.labels.extend(next.labels);
        self.squared.extend(next.squared);
        self.second.extend(next.second);
        self.sums.iter_mut().zip(next.sums).for_each(|(sum, more)| *sum += more);
        self.counts.iter_mut().zip(next.counts).for_each(|(count, more)| *count += more);
    }
}

/// Greedy k-means++ on a device: the sample, and the squared distance of each of its rows to the nearest seed so far,
/// at first infinite. The caller owns the random numbers and the choice among candidates.
pub trait Seeding {
    /// For each candidate, a row of the sample by its number, into `out`: the sum over the sample of squared distances
    /// to the nearest seed if the candidate were one. `O(candidates x rows x dim)`.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn potentials(&mut self, candidates: &[usize], out: &mut [f64]) -> Result<()>;

    /// Makes a seed of the candidate at this place in the last call of [`potentials`](Self::potentials).
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn choose(&mut self, candidate: usize) -> Result<()>;

    /// The row at which the running sum of the squared distances passes `target`, or else the last that is on no seed;
    /// never one that is on a seed, as long as there is another.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn locate(&self, target: f64) -> Result<usize>;
}

/// A row that may leave its cluster for an empty one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Farthest {
    /// Its squared distance to its own centroid, above 0.
    pub squared: f32,
    /// Its number.
    pub row: usize,
    /// Its cluster.
    pub cluster: usize,
}

impl Farthest {
    /// Sorts by distance, the farthest first, and by number where they are equally far.
    pub fn sort(rows: &mut [Self]) {
        rows.sort_unstable_by(|a, b| b.squared.total_cmp(&a.squared).then(a.row.cmp(&b.row)));
    }
}

/// Lloyd's iterations on a device: it owns the label of every row and the sums of the clusters; the caller owns the
/// centroids, when to stop, and which cluster gets a row when it is empty.
pub trait Lloyd {
    /// Gives every row its nearest of `centroids` (`k x dim`), in a tie the lower number, and returns how many labels
    /// are new: all rows' in the first iteration. `O(rows x k x dim)` at most.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn iterate(&mut self, centroids: &[f32]) -> Result<usize>;

    /// The sum of each cluster's rows (`k x dim`) and how many they are (`k`), by the labels as they are.
    fn totals(&self) -> (&[f64], &[i64]);

    /// The `most` rows that lie farthest from their own centroid, [sorted](Farthest::sort); rows on their centroid or
    /// alone in their cluster are left out. Centroids are those of the last iteration.
    ///
    /// # Errors
    /// What reading the rows gives; kind `Compute` where the device fails.
    fn farthest(&self, most: usize) -> Result<Vec<Farthest>>;

    /// Moves a row to another cluster, in labels and totals.
    ///
    /// # Errors
    /// What reading the row gives; kind `Compute` where the device fails.
    fn reassign(&mut self, row: usize, cluster: usize) -> Result<()>;
}
