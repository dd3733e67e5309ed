//! Drift of the rows that a pass labels, against those that the model learned from.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, Int32Type};
use arrow::record_batch::RecordBatch;

use super::collect::Stored;
use super::identity::every;
use super::portrait::INPUT;
use crate::column::{self, Values};
use crate::drift::{Counts, DriftSpec, Found, Reference};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::stage::LABEL_COLUMNS;
use crate::store::Location;
use crate::table::Measured;

/// The most rows that a reference is made of: of more, every second, third, …
const MOST_ROWS: usize = 4096;
/// Of wide rows there are fewer, so that they have no more values than this, but no fewer than [`LEAST_ROWS`].
const MOST_VALUES: usize = 1 << 23;
const LEAST_ROWS: usize = 1000;

/// Some of the rows to learn from, evenly over all of them.
pub(super) enum Sample {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Sample {
    pub fn of(rows: &Stored) -> Result<Self> {
        let most = (MOST_VALUES / rows.dim().max(1)).clamp(LEAST_ROWS, MOST_ROWS);
        let step = rows.len().div_ceil(most).max(1);
        let count = rows.len().div_ceil(step);
        Ok(match rows {
            Stored::Single(rows) => Self::Single(every(rows, step, 0, count)?),
            Stored::Double(rows) => Self::Double(every(rows, step, 0, count)?),
        })
    }

    fn values(&self) -> Values<'_> {
        match self {
            Self::Single(values) => Values::Single(values),
            Self::Double(values) => Values::Double(values),
        }
    }

    /// The reference of the rows, in the clusters of `model`. Computes: not for a worker of the I/O runtime.
    pub fn reference(&self, model: &Model, names: &[String], spec: &DriftSpec) -> Result<Reference> {
        let assigned = model.assigns().then(|| model.assign(self.values())).transpose()?;
        let found: Option<Found<'_>> = assigned.as_ref().map(|of| (&of.cluster[..], &of.distance[..]));
        Ok(match self {
            Self::Single(values) => Reference::of(values, model.dim_in(), names, found, spec),
            Self::Double(values) => Reference::of(values, model.dim_in(), names, found, spec),
        })
    }

    /// How far the rows have drifted from those that `model`, whose reference this is, learned from. Computes, as well.
    pub fn against(&self, model: &Model, reference: &Reference, spec: &DriftSpec) -> Result<Measured> {
        let assigned = reference.clusters.then(|| model.assign(self.values())).transpose()?;
        let found: Option<Found<'_>> = assigned.as_ref().map(|of| (&of.cluster[..], &of.distance[..]));
        let mut counts = Counts::of(reference);
        match self {
            Self::Single(values) => counts.add(reference, values, found)?,
            Self::Double(values) => counts.add(reference, values, found)?,
        }
        Ok(Measured { model: model.hash().as_str().into(), judgement: reference.judge(&counts, spec) })
    }
}

/// The reference of the model in `directory`, which must have one.
///
/// # Errors
/// Kind `Model` if it has none, or it is damaged.
pub(super) async fn reference_of(model: &Model, directory: &Location) -> Result<Reference> {
    let lacks = || {
        Error::model(format!(
            "model {} ({}) was learned without [drift], so nothing is known of the rows that it learned from; run its \
             pipeline again with a [drift] section: the same data give the same model",
            model.name(),
            model.hash().short()
        ))
    };
    Model::reference(directory).await?.ok_or_else(lacks)
}

/// Counts the rows of a pass.
#[derive(Debug, Clone)]
pub(super) struct DriftCounter {
    reference: Arc<Reference>,
    spec: DriftSpec,
    model: String,
    counts: Counts,
}

impl DriftCounter {
    /// For rows that `model` labels, whose reference this is.
    ///
    /// # Errors
    /// Kind `Model` if something is to be measured that the reference does not know.
    pub fn new(model: &Model, reference: Reference, spec: DriftSpec) -> Result<Self> {
        if reference.features.len() != model.dim_in() {
            return Err(Error::model(format!(
                "drift.json of model {} is of {} features, and the model of {}",
                model.hash().short(),
                reference.features.len(),
                model.dim_in()
            )));
        }
        let counts = Counts::of(&reference);
        Ok(Self { reference: Arc::new(reference), spec, model: model.hash().as_str().into(), counts })
    }

    /// Goes on with `counts` that were kept.
    ///
    /// # Errors
    /// Kind `Table` if they are of other bins.
    pub fn resume(mut self, counts: &Counts) -> Result<Self> {
        self.reference.check(counts)?;
        self.counts = counts.clone();
        Ok(self)
    }

    /// The counts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Rows that are compared with at a time.
    pub fn needed(&self) -> u64 {
        self.spec.rows
    }

    /// Adds a labelled batch, with the features in the column [`INPUT`].
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let find = |name: &str| batch.column_by_name(name).ok_or_else(|| column::missing(&batch.schema(), name));
        let (clusters, distances);
        let found = match self.reference.clusters {
            true => {
                clusters = find(LABEL_COLUMNS[0])?.as_primitive::<Int32Type>();
                distances = find(LABEL_COLUMNS[1])?.as_primitive::<Float32Type>();
                Some((&clusters.values()[..], &distances.values()[..]))
            }
            false => None,
        };
        match column::values(batch, INPUT)?.0 {
            Values::Single(rows) => self.counts.add(&self.reference, rows, found),
            Values::Double(rows) => self.counts.add(&self.reference, rows, found),
        }
    }

    /// What the rows say, if they are enough: the counts then begin anew.
    pub fn judge(&mut self) -> Option<Measured> {
        if self.counts.rows < self.spec.rows {
            return None;
        }
        let judgement = self.reference.judge(&self.counts, &self.spec);
        self.counts = Counts::of(&self.reference);
        Some(Measured { model: self.model.clone(), judgement })
    }
}
