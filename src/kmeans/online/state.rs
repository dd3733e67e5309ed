//! What online k-means has learned.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// All that [`OnlineKMeans`](super::OnlineKMeans) has learned, in plain values: to look at, or to keep and go on from.
///
/// As JSON it comes back to the same bits: numbers are written with as many digits as that takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineState {
    /// Values in a row; 0 before the first.
    pub dim: usize,
    /// `k x dim`, row-major; none before there were enough rows to choose them.
    pub centroids: Vec<f64>,
    /// The decayed number of rows of each cluster, `k`.
    pub weights: Vec<f64>,
    /// The decayed number of all rows that came since each cluster began, `k`.
    pub exposures: Vec<f64>,
    /// The last batch that gave each cluster rows, `k`; none for a cluster that had rows only before a warm start.
    pub last: Vec<Option<LastRow>>,
    /// Rows learned from, without those before a warm start.
    pub rows: u64,
    /// Batches learned from.
    pub batches: u64,
    /// The event time of the newest row, in nanoseconds, if there was one.
    pub newest: Option<i64>,
    /// Rows that are held back until there are enough for the first centroids, row-major.
    pub waiting: Vec<f32>,
}

/// When a cluster last got a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRow {
    /// The number of the batch, counted from 1.
    pub batch: u64,
    /// The event time of the newest row of the stream after that batch, if there was one.
    pub newest: Option<i64>,
}

impl OnlineState {
    /// Before the first batch, with centroids that stand for so many rows.
    pub(super) fn warm(centroids: Vec<f64>, weights: Vec<f64>) -> Self {
        let (k, total) = (weights.len(), weights.iter().sum());
        Self {
            dim: centroids.len() / k.max(1),
            centroids,
            weights,
            exposures: vec![total; k],
            last: vec![None; k],
            ..Self::default()
        }
    }

    /// How many rows are held back.
    pub(super) fn waiting_rows(&self) -> usize {
        self.waiting.len() / self.dim.max(1)
    }

    /// How much newer than the newest row a batch is, in nanoseconds; 0 for one that is not.
    pub(super) fn elapsed(&self, newest: Option<i64>) -> f64 {
        match (self.newest, newest) {
            (Some(before), Some(now)) => (i128::from(now) - i128::from(before)).max(0) as f64,
            _ => 0.0,
        }
    }

    /// The formula: `sums` (`k x dim`) and `counts` (`k`) of a batch's rows, before which all so far decays.
    pub(super) fn add(&mut self, decay: f64, sums: &[f64], counts: &[i64], newest: Option<i64>) {
        let rows: i64 = counts.iter().sum();
        self.rows += rows as u64;
        self.batches += 1;
        self.newest = self.newest.max(newest);
        let places = self.centroids.chunks_exact_mut(self.dim).zip(sums.chunks_exact(self.dim));
        for (j, ((centroid, sum), &count)) in places.zip(counts).enumerate() {
            let (before, count) = (decay * self.weights[j], count as f64);
            let after = before + count;
            if count > 0.0 {
                centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = (before * *c + s) / after);
                self.last[j] = Some(LastRow { batch: self.batches, newest: self.newest });
            }
            self.weights[j] = after;
            self.exposures[j] = decay * self.exposures[j] + rows as f64;
        }
    }

    /// The clusters that have less than `revive` of an equal share of the rows since they began.
    pub(super) fn dead(&self, revive: f64) -> Vec<usize> {
        let k = self.weights.len();
        (0..k).filter(|&j| self.weights[j] < revive * self.exposures[j] / k as f64).collect()
    }

    /// Lets a cluster begin anew at a row of the last batch.
    pub(super) fn begin_anew(&mut self, cluster: usize, row: &[f32]) {
        let centroid = &mut self.centroids[cluster * self.dim..][..self.dim];
        centroid.iter_mut().zip(row).for_each(|(c, &x)| *c = f64::from(x));
        (self.weights[cluster], self.exposures[cluster]) = (1.0, 1.0);
        self.last[cluster] = Some(LastRow { batch: self.batches, newest: self.newest });
    }

    /// Checks that it can be one of `k` clusters.
    ///
    /// # Errors
    /// Kind `Input`, saying what cannot be.
    pub(super) fn check(&self, k: usize) -> Result<()> {
        let bad = |what: String| Err(Error::input(what));
        if let Some(i) = self.waiting.iter().position(|x| !x.is_finite()) {
            return bad(format!("a row that waits has the value {}, expected finite numbers", self.waiting[i]));
        }
        if self.centroids.is_empty() {
            let fits =
                if self.dim == 0 { self.waiting.is_empty() } else { self.waiting.len().is_multiple_of(self.dim) };
            let learned = self.weights.len() + self.exposures.len() + self.last.len();
            return match fits && learned == 0 && self.rows == 0 && self.batches == 0 {
                true => Ok(()),
                false => bad(format!(
                    "a state without centroids, but with learned rows, or with {} waiting values that are no rows",
                    self.waiting.len()
                )),
            };
        }
        if !self.waiting.is_empty() {
            return bad("rows that wait for the first centroids, which are there already".into());
        }
        if Some(self.centroids.len()) != k.checked_mul(self.dim) {
            return bad(format!("{} values, expected k = {k} centroids of {}", self.centroids.len(), self.dim));
        }
        for (what, count) in
            [("weights", self.weights.len()), ("exposures", self.exposures.len()), ("last rows", self.last.len())]
        {
            if count != k {
                return bad(format!("{count} {what} for k = {k} centroids"));
            }
        }
        // Distances are measured to centroids in f32.
        if let Some(i) = self.centroids.iter().position(|&x| !(x as f32).is_finite()) {
            let (value, centroid, at) = (self.centroids[i], i / self.dim, i % self.dim);
            return bad(format!(
                "centroid {centroid}, position {at} is {value:e}, expected a finite number of 32 bits"
            ));
        }
        for (what, values) in [("weight", &self.weights), ("exposure", &self.exposures)] {
            if let Some(j) = values.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
                return bad(format!(
                    "the {what} of cluster {j} is {}, expected a number of rows, 0 or more",
                    values[j]
                ));
            }
        }
        Ok(())
    }
}
