//! What rows are compared with, and the counts of those that are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bins::{bin, bins, cuts};
use super::judge::{Judgement, judge};
use super::{DriftSpec, Measure};
use crate::error::{Error, Result};

/// Of the rows that a model learned from: bins of each feature and of the distances by their quantiles, and how many rows
/// are in each, and in each cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// How drift was to be measured where the model was learned.
    pub spec: DriftSpec,
    /// The names of the features; empty where they have none.
    pub names: Vec<String>,
    /// For each feature the cuts between its bins.
    pub features: Vec<Vec<f64>>,
    /// The cuts between the bins of the distances.
    pub distances: Vec<f64>,
    /// Whether rows have clusters.
    pub clusters: bool,
    /// The counts of the rows that were learned from, or of every so many of them.
    pub counts: Counts,
}

/// The clusters of rows, by their ids, and the distances to the centroids.
pub type Found<'a> = (&'a [i32], &'a [f32]);

/// Rows, counted by the bins of a [`Reference`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many.
    pub rows: u64,
    /// For each feature the rows in each bin, those below the first cut first; of the last, what is no number.
    pub features: Vec<Vec<u64>>,
    /// The rows in each bin of the distances.
    pub distances: Vec<u64>,
    /// The rows of each cluster, by its id.
    pub clusters: BTreeMap<i32, u64>,
}

impl Reference {
    /// The reference of `rows` (row-major, of `dim` values each), the clusters `found` among them, and the names of their
    /// features. `O(n log n)` for `n` values; holds one feature at a time.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn of<T: Copy + Into<f64>>(
        rows: &[T],
        dim: usize,
        names: &[String],
        found: Option<Found<'_>>,
        spec: &DriftSpec,
    ) -> Self {
        let mut column = Vec::with_capacity(rows.len() / dim.max(1));
        let features = (0..dim).map(|feature| {
            column.clear();
            column.extend(rows.iter().skip(feature).step_by(dim).map(|value| (*value).into()));
            cuts(&mut column, spec.bins)
        });
        let features = features.collect();
        let distances = found.map_or_else(Vec::new, |(_, distances)| {
            cuts(&mut distances.iter().map(|d| f64::from(*d)).collect(), spec.bins)
        });
        let mut reference = Self {
            spec: spec.clone(),
            names: names.to_vec(),
            features,
            distances,
            clusters: found.is_some(),
            counts: Counts::default(),
        };
        let mut counts = Counts::of(&reference);
        counts.add(&reference, rows, found).expect("rows of the reference itself");
        reference.counts = counts;
        reference
    }

    /// Whether `measure` can be measured against it.
    pub fn has(&self, measure: Measure) -> bool {
        measure == Measure::Features || self.clusters
    }

    /// Compares `counts` with it.
    ///
    /// # Panics
    /// If they were counted by another reference.
    pub fn judge(&self, counts: &Counts, spec: &DriftSpec) -> Judgement {
        judge(self, counts, spec)
    }

    /// Checks that counts that were saved are of its bins.
    ///
    /// # Errors
    /// Kind `Table` if they are not.
    pub fn check(&self, counts: &Counts) -> Result<()> {
        let empty = Counts::of(self);
        let widths = |counts: &Counts| counts.features.iter().map(Vec::len).collect::<Vec<_>>();
        match widths(&empty) == widths(counts) && empty.distances.len() == counts.distances.len() {
            true => Ok(()),
            false => {
                Err(Error::table("the counts of drift in the state of the stream are of other bins than the model's"))
            }
        }
    }
}

impl Counts {
    /// No rows, in the bins of `reference`.
    pub fn of(reference: &Reference) -> Self {
        let features = reference.features.iter().map(|cuts| vec![0; bins(cuts)]).collect();
        Self { features, distances: vec![0; bins(&reference.distances)], ..Self::default() }
    }

    /// Adds rows (row-major) with the clusters `found` among them.
    ///
    /// # Errors
    /// Kind `Internal` if they have another width, or there are not as many clusters.
    pub fn add<T: Copy + Into<f64>>(
        &mut self,
        reference: &Reference,
        rows: &[T],
        found: Option<Found<'_>>,
    ) -> Result<()> {
        let dim = reference.features.len();
        let count = rows.len() / dim.max(1);
        let as_many = |(clusters, distances): Found<'_>| clusters.len() == count && distances.len() == count;
        if rows.len() != count * dim || !found.is_none_or(as_many) {
            return Err(Error::internal("drift of rows of another width"));
        }
        self.rows += count as u64;
        for row in rows.chunks_exact(dim.max(1)) {
            for ((value, cuts), counts) in row.iter().zip(&reference.features).zip(&mut self.features) {
                counts[bin(cuts, (*value).into())] += 1;
            }
        }
        if let Some((clusters, distances)) = found {
            for distance in distances {
                self.distances[bin(&reference.distances, f64::from(*distance))] += 1;
            }
            for cluster in clusters {
                *self.clusters.entry(*cluster).or_default() += 1;
            }
        }
        Ok(())
    }
}
