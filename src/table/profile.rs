//! The profile beside a table: for each cluster of each model, the mean and standard deviation of every feature over
//! all rows of the version, in the source's own units.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::schema::MODEL;
use crate::column::Values;
use crate::error::{Error, Result};
use crate::identity::ById;
use crate::kernel::sums::add_moments_of;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("cluster", DataType::Int32, false),
        Field::new("position", DataType::Int32, false),
        Field::new("feature", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("mean", DataType::Float64, false),
        Field::new("std", DataType::Float64, false),
        Field::new(MODEL, DataType::Utf8, false),
    ]))
});

/// The columns of a table's profile: `cluster`, `position` and `feature` (its index from 0, and its name), `rows` of
/// the cluster, their `mean` and standard deviation `std`, and `model`. Clusters without rows are not in it.
pub fn profile_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Sums features by cluster, row by row: the result depends only on the rows and their order.
#[derive(Debug)]
pub struct ProfileBuilder {
    clusters: ById,
    dim: usize,
    /// The origin: for rows in double precision the first row, which is subtracted before they become single; else
    /// zeros.
    base: Vec<f64>,
    /// The first row minus the origin: sums of differences from it lose less to rounding, and are exact for a constant
    /// feature.
    origin: Vec<f32>,
    rows: Vec<u64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
    /// Scratch space: the indices of a batch's rows, by cluster.
    members: Vec<Vec<u32>>,
}

impl ProfileBuilder {
    /// The most sums that are held, for all clusters and features: 64 MiB.
    pub const MOST_SUMS: usize = 1 << 22;

    /// A builder for clusters with these ids and rows of `dim` values; `None` if that needs more than
    /// [`MOST_SUMS`](Self::MOST_SUMS) sums.
    pub fn new(ids: &[i32], dim: usize) -> Option<Self> {
        let k = ids.len();
        let sums = k.checked_mul(dim).filter(|sums| *sums <= Self::MOST_SUMS)?;
        Some(Self {
            clusters: ById::new(ids),
            dim,
            base: Vec::new(),
            origin: Vec::new(),
            rows: vec![0; k],
            sums: vec![0.0; sums],
            squares: vec![0.0; sums],
            members: Vec::new(),
        })
    }

    /// Adds rows (row-major) with their clusters.
    ///
    /// # Errors
    /// Kind `Internal` if the lengths do not agree or there is no cluster of an id.
    pub fn add<'a>(&mut self, rows: impl Into<Values<'a>>, clusters: &[i32]) -> Result<()> {
        let rows = rows.into();
        if rows.len() != clusters.len() * self.dim {
            return Err(Error::internal("a profile of rows of another width"));
        }
        if rows.is_empty() {
            return Ok(());
        }
        if self.base.is_empty() {
            self.base = match rows {
                Values::Single(_) => vec![0.0; self.dim],
                Values::Double(rows) => rows[..self.dim].to_vec(),
            };
        }
        let rows: Cow<'_, [f32]> = match rows {
            Values::Single(rows) => Cow::Borrowed(rows),
            Values::Double(rows) => {
                rows.iter().zip(self.base.iter().cycle()).map(|(x, base)| (x - base) as f32).collect()
            }
        };
        if self.origin.is_empty() {
            self.origin.extend(&rows[..self.dim]);
        }
        // One cluster after the other, so that its sums stay in the CPU cache; the rows of each in their order.
        self.members.resize_with(self.rows.len(), Vec::new);
        for (number, &cluster) in (0..).zip(clusters) {
            let place = self.clusters.place(cluster);
            let place = place.ok_or_else(|| Error::internal(format!("a profile without cluster {cluster}")))?;
            self.members[place].push(number);
        }
        for (place, members) in self.members.iter_mut().enumerate().filter(|(_, members)| !members.is_empty()) {
            self.rows[place] += members.len() as u64;
            let sums = place * self.dim..(place + 1) * self.dim;
            add_moments_of(&rows, members, &self.origin, &mut self.sums[sums.clone()], &mut self.squares[sums]);
            members.clear();
        }
        Ok(())
    }

    /// The profile, of [`profile_schema`], of rows that `model` labelled; `names` are the names of the features. A
    /// feature without a name is called by its index.
    ///
    /// # Errors
    /// Kind `Internal` if Arrow refuses the columns.
    pub fn finish(&self, names: &[String], model: &str) -> Result<RecordBatch> {
        let mut parts = Vec::new();
        for (place, &rows) in self.rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            let n = rows as f64;
            for position in 0..self.dim {
                let at = place * self.dim + position;
                let shift = self.sums[at] / n;
                let mean = self.base[position] + f64::from(self.origin[position]) + shift;
                let m2 = (self.squares[at] - n * shift * shift).max(0.0);
                parts.push(Part { cluster: self.clusters.ids()[place], position: position as i32, rows, mean, m2 });
            }
        }
        let name = |part: &Part| match names.get(part.position as usize) {
            Some(name) => name.clone(),
            None => part.position.to_string(),
        };
        let features: ArrayRef = Arc::new(StringArray::from_iter_values(parts.iter().map(name)));
        let models: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(model, parts.len())));
        batch(&parts, features, models)
    }
}

/// One row of a profile.
struct Part {
    cluster: i32,
    position: i32,
    rows: u64,
    mean: f64,
    /// The sum of squared differences from the mean.
    m2: f64,
}

impl Part {
    /// Merges two rows (Chan, Golub and LeVeque 1979).
    fn and(&self, other: &Self) -> Self {
        let (a, b) = (self.rows as f64, other.rows as f64);
        let apart = other.mean - self.mean;
        let mean = self.mean + apart * b / (a + b);
        let m2 = self.m2 + other.m2 + apart * apart * a * b / (a + b);
        Self { rows: self.rows + other.rows, mean, m2, ..*self }
    }
}

fn batch(parts: &[Part], features: ArrayRef, models: ArrayRef) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(parts.iter().map(|part| part.cluster))),
        Arc::new(Int32Array::from_iter_values(parts.iter().map(|part| part.position))),
        features,
        Arc::new(Int64Array::from_iter_values(parts.iter().map(|part| part.rows as i64))),
        Arc::new(Float64Array::from_iter_values(parts.iter().map(|part| part.mean))),
        Arc::new(Float64Array::from_iter_values(parts.iter().map(|part| (part.m2 / part.rows as f64).sqrt()))),
        models,
    ];
    Ok(RecordBatch::try_new(profile_schema(), columns)?)
}

/// The columns of a profile, typed.
struct Columns<'a> {
    clusters: &'a [i32],
    positions: &'a [i32],
    features: &'a StringArray,
    rows: &'a [i64],
    means: &'a [f64],
    deviations: &'a [f64],
    models: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(profile: &'a RecordBatch) -> Self {
        Self {
            clusters: profile.column(0).as_primitive::<Int32Type>().values(),
            positions: profile.column(1).as_primitive::<Int32Type>().values(),
            features: profile.column(2).as_string(),
            rows: profile.column(3).as_primitive::<Int64Type>().values(),
            means: profile.column(4).as_primitive::<Float64Type>().values(),
            deviations: profile.column(5).as_primitive::<Float64Type>().values(),
            models: profile.column(6).as_string(),
        }
    }

    fn part(&self, row: usize) -> Part {
        let rows = self.rows[row].unsigned_abs();
        let m2 = self.deviations[row].powi(2) * rows as f64;
        Part { cluster: self.clusters[row], position: self.positions[row], rows, mean: self.means[row], m2 }
    }
}

/// The profile of a table that had `old` and to which rows with the profile `new` are appended.
pub(super) fn merge(old: &RecordBatch, new: &RecordBatch) -> Result<RecordBatch> {
    let both = concat_batches(&SCHEMA, [old, new])?;
    let columns = Columns::of(&both);
    let mut models: BTreeMap<&str, usize> = BTreeMap::new();
    let mut merged: BTreeMap<(usize, i32, i32), (u32, Part)> = BTreeMap::new();
    for row in 0..both.num_rows() {
        let next = models.len();
        let model = *models.entry(columns.models.value(row)).or_insert(next);
        let part = columns.part(row);
        let key = (model, part.cluster, part.position);
        let first = row as u32;
        let part = match merged.get(&key) {
            Some((first, there)) => (*first, there.and(&part)),
            None => (first, part),
        };
        merged.insert(key, part);
    }
    let rows = arrow::array::UInt32Array::from_iter_values(merged.values().map(|(row, _)| *row));
    let taken = take_record_batch(&both, &rows)?;
    let parts: Vec<Part> = merged.into_values().map(|(_, part)| part).collect();
    batch(&parts, Arc::clone(taken.column(2)), Arc::clone(taken.column(6)))
}

/// A feature of a cluster, compared with all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureProfile {
    /// The cluster, and its rows.
    pub cluster: i32,
    /// The cluster's rows.
    pub rows: u64,
    /// Its rank, from 1 for the feature whose mean differs most from the mean of all rows.
    pub rank: u32,
    /// The feature's index, from 0.
    pub position: u32,
    /// Its name; its index if it has none.
    pub feature: String,
    /// Its mean in the cluster.
    pub mean: f64,
    /// Its standard deviation in the cluster.
    pub std: f64,
    /// Its mean over all rows that the model labelled.
    pub overall_mean: f64,
    /// Its standard deviation over all of them.
    pub overall_std: f64,
    /// The difference of the means, in standard deviations over all rows; `None` if the feature is constant.
    pub difference: Option<f64>,
    /// The model that labelled the rows.
    pub model: String,
}

/// Compares each feature of each cluster with all rows of the same model: by model, by cluster, by rank. On a tie the
/// lower index comes first; constant features come last.
pub fn compare(profile: &RecordBatch) -> Vec<FeatureProfile> {
    let columns = Columns::of(profile);
    let mut overall: BTreeMap<(&str, i32), Part> = BTreeMap::new();
    for row in 0..profile.num_rows() {
        let part = columns.part(row);
        let key = (columns.models.value(row), part.position);
        let part = match overall.get(&key) {
            Some(there) => there.and(&part),
            None => part,
        };
        overall.insert(key, part);
    }
    let mut found: Vec<FeatureProfile> = Vec::with_capacity(profile.num_rows());
    for row in 0..profile.num_rows() {
        let model = columns.models.value(row);
        let part = columns.part(row);
        let Some(all) = overall.get(&(model, part.position)) else { continue };
        let overall_std = (all.m2 / all.rows as f64).sqrt();
        found.push(FeatureProfile {
            cluster: part.cluster,
            rows: part.rows,
            rank: 0,
            position: part.position.unsigned_abs(),
            feature: columns.features.value(row).to_owned(),
            mean: part.mean,
            std: columns.deviations[row],
            overall_mean: all.mean,
            overall_std,
            difference: (overall_std > 0.0).then(|| (part.mean - all.mean) / overall_std),
            model: model.to_owned(),
        });
    }
    let size = |feature: &FeatureProfile| feature.difference.map_or(-1.0, f64::abs);
    for cluster in found.chunk_by_mut(|a, b| (a.cluster, &a.model) == (b.cluster, &b.model)) {
        cluster.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.position.cmp(&b.position)));
        for (rank, feature) in (1..).zip(cluster) {
            feature.rank = rank;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of two features and a constant, two clusters of three.
    const ROWS: [f32; 18] =
        [1.0, 10.0, 7.0, 2.0, 20.0, 7.0, 3.0, 30.0, 7.0, 4.0, 0.0, 7.0, 9.0, -5.0, 7.0, 5.0, 5.0, 7.0];
    const CLUSTERS: [i32; 6] = [0, 2, 0, 2, 2, 0];

    fn profile(rows: &[f32], clusters: &[i32]) -> RecordBatch {
        let mut builder = ProfileBuilder::new(&[0, 1, 2], 3).unwrap();
        builder.add(rows, clusters).unwrap();
        builder.finish(&["a".into(), "<b>".into()], "m").unwrap()
    }

    fn values(profile: &RecordBatch) -> Vec<(i32, String, f64, f64)> {
        let columns = Columns::of(profile);
        let value =
            |i| (columns.clusters[i], columns.features.value(i).to_owned(), columns.means[i], columns.deviations[i]);
        (0..profile.num_rows()).map(value).collect()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * (1.0 + b.abs())
    }

    #[test]
    fn means_and_deviations_by_cluster() {
        let found = values(&profile(&ROWS, &CLUSTERS));
        // Cluster 0: a of 1, 3, 5; <b> of 10, 30, 5. Cluster 1 has no rows. Cluster 2: a of 2, 4, 9; <b> of 20, 0, -5.
        let expected = [
            (0, "a", 3.0, (8.0_f64 / 3.0).sqrt()),
            (0, "<b>", 15.0, (350.0_f64 / 3.0).sqrt()),
            (0, "2", 7.0, 0.0),
            (2, "a", 5.0, (26.0_f64 / 3.0).sqrt()),
            (2, "<b>", 5.0, (350.0_f64 / 3.0).sqrt()),
            (2, "2", 7.0, 0.0),
        ];
        assert_eq!(found.len(), expected.len());
        for ((cluster, feature, mean, std), expected) in found.iter().zip(expected) {
            assert_eq!((*cluster, feature.as_str()), (expected.0, expected.1));
            assert!(near(*mean, expected.2) && near(*std, expected.3), "{feature}: {mean} {std}");
        }
    }

    #[test]
    fn batches_do_not_matter_and_appended_rows_add_up() {
        let whole = profile(&ROWS, &CLUSTERS);
        let mut builder = ProfileBuilder::new(&[0, 1, 2], 3).unwrap();
        for (rows, clusters) in [(&ROWS[..3], &CLUSTERS[..1]), (&[][..], &[][..]), (&ROWS[3..], &CLUSTERS[1..])] {
            builder.add(rows, clusters).unwrap();
        }
        assert_eq!(builder.finish(&["a".into(), "<b>".into()], "m").unwrap(), whole);
        let merged = merge(&profile(&ROWS[..9], &CLUSTERS[..3]), &profile(&ROWS[9..], &CLUSTERS[3..])).unwrap();
        for (found, expected) in values(&merged).iter().zip(values(&whole)) {
            assert_eq!((found.0, &found.1), (expected.0, &expected.1));
            assert!(near(found.2, expected.2) && near(found.3, expected.3), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn features_are_ranked_by_how_far_their_mean_is_off() {
        let found = compare(&profile(&ROWS, &CLUSTERS));
        let order: Vec<_> = found.iter().map(|f| (f.cluster, f.rank, f.feature.as_str())).collect();
        assert_eq!(order, [(0, 1, "<b>"), (0, 2, "a"), (0, 3, "2"), (2, 1, "<b>"), (2, 2, "a"), (2, 3, "2")]);
        // All of <b>: mean 10, sum of squared differences 700 + 6 * 25.
        let std = (850.0_f64 / 6.0).sqrt();
        assert!(near(found[0].overall_mean, 10.0) && near(found[0].overall_std, std), "{:?}", found[0]);
        assert!(near(found[0].difference.unwrap(), 5.0 / std) && near(found[3].difference.unwrap(), -5.0 / std));
        assert_eq!(found[2].difference, None, "it never changes");
    }

    #[test]
    fn sums_beyond_the_bound_are_not_kept() {
        let many: Vec<i32> = (0..1000).collect();
        assert!(ProfileBuilder::new(&many, 10_000).is_none() && ProfileBuilder::new(&many, usize::MAX).is_none());
    }
}
