//! What the label pass keeps of the features for a report: their sums by cluster, and a few rows.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Schema};

use crate::column::{self, Values};
use crate::error::Result;
use crate::event::{Control, Event};
use crate::stage::{EMBEDDING, FEATURES, LABEL_COLUMNS};
use crate::table::{ProfileBuilder, SampleBuilder, SampledRows};

/// The column that carries the features, as the source gives them, past the stages that change them; it is not written.
pub(super) const INPUT: &str = "__input";

/// What is kept of the rows so far.
#[derive(Debug)]
pub(super) struct Portrait {
    profile: Option<ProfileBuilder>,
    sample: SampleBuilder,
    /// The column of the vectors that were clustered.
    vectors: &'static str,
    label: Option<String>,
    /// What a missing value of each feature becomes.
    fill: Option<Vec<f64>>,
}

/// The files of a portrait beside the table.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub profile: Option<RecordBatch>,
    pub sample: Option<RecordBatch>,
}

impl Portrait {
    /// A portrait of rows with schema `labelled`, the output of the stages, in the clusters with these `ids`; `label`
    /// names their column of labels.
    pub fn new(labelled: &Schema, ids: &[i32], label: Option<&str>, control: &Control) -> Result<Self> {
        let dim = column::vector_dim(labelled, INPUT)?;
        let profile = ProfileBuilder::new(ids, dim);
        if profile.is_none() {
            let message = format!(
                "{} clusters of {dim} features are more sums than are kept ({}): the table gets no cluster_profile",
                ids.len(),
                ProfileBuilder::MOST_SUMS
            );
            control.emit(Event::Warning { message });
        }
        let embedded = labelled.index_of(EMBEDDING).is_ok();
        let vectors = if embedded { EMBEDDING } else { FEATURES };
        let sample = SampleBuilder::new(column::vector_dim(labelled, vectors)?, embedded, label);
        Ok(Self { profile, sample, vectors, label: label.map(str::to_owned), fill: None })
    }

    /// The same, for features with missing values, which become these.
    pub fn filled(self, fill: Option<Vec<f64>>) -> Self {
        Self { fill, ..self }
    }

    /// Adds a labelled batch.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let find = |name: &str| batch.column_by_name(name).ok_or_else(|| column::missing(&batch.schema(), name));
        let clusters: &ArrayRef = find(LABEL_COLUMNS[0])?;
        let clusters = clusters.as_primitive::<Int32Type>().values();
        let (features, _) = column::values(batch, INPUT)?;
        let (single, double);
        let features = match (&self.fill, features) {
            (None, features) => features,
            (Some(fill), Values::Single(values)) => {
                let values = values.iter().zip(fill.iter().cycle());
                single = values.map(|(x, fill)| if x.is_nan() { *fill as f32 } else { *x }).collect::<Vec<_>>();
                Values::Single(&single)
            }
            (Some(fill), Values::Double(values)) => {
                let values = values.iter().zip(fill.iter().cycle());
                double = values.map(|(x, fill)| if x.is_nan() { *fill } else { *x }).collect::<Vec<_>>();
                Values::Double(&double)
            }
        };
        if let Some(profile) = &mut self.profile {
            profile.add(features, clusters)?;
        }
        let (vectors, dim) = column::vectors(batch, self.vectors)?;
        let labels = self.label.as_deref().map(find).transpose()?;
        self.sample.add(&SampledRows { clusters, vectors, dim, features: &features.narrow(), labels })
    }

    /// The files beside the table, for rows that `model` labelled, with features of these names.
    pub fn finish(self, names: &[String], model: &str) -> Result<Kept> {
        let profile = self.profile.map(|profile| profile.finish(names, model)).transpose()?;
        Ok(Kept { profile, sample: Some(self.sample.finish(model)?) })
    }
}
