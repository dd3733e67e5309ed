//! The fitted stages of a pipeline, saved together and named by the hash of their content.
//!
//! A saved model is a directory of two files, and of a third where drift is measured:
//!
//! ```text
//! models/3f0c…16 hex digits/
//!     model.safetensors   every learned array, as "<stage index>.<name>", f32
//!     manifest.json       line 1: format, version that wrote it, hash; then the content:
//!                         name, input (column, width, feature names, how rows are made), seed, stages, figures
//!     drift.json          how the rows that it learned from are distributed (not part of the hash)
//! ```
//!
//! The hash is the SHA-256 over the content lines of the manifest and the bytes of the arrays, so two trainings with
//! the same result are one model, and a file that was changed or cut short is noticed when it is read. The manifest is
//! written last: a directory without it is not a model.
//!
//! ```
//! use dacpipe::model::{Manifest, Model, ModelInput};
//! use std::sync::Arc;
//!
//! let manifest = Manifest { name: "empty".into(), input: ModelInput::bare(3), ..Manifest::default() };
//! let model = Model::new(manifest, vec![])?;
//! assert_eq!(model.dim_in(), 3);
//! assert_eq!(model.embed(&[1.0, 2.0, 3.0])?, [1.0, 2.0, 3.0]);
//! assert_eq!(model.hash().as_str().len(), 64);
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod arrays;
mod files;
mod hash;
mod manifest;
mod reconstruct;
mod reference;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

pub(crate) use arrays::{decode_arrays, encode_arrays};
pub use hash::ModelHash;
pub use manifest::{Manifest, ModelInput};
pub use reconstruct::Reconstruction;

pub use crate::impute::Impute;
use crate::stage::Assignments;

use crate::column::{Values, double_array, double_field, values, vector_array, vector_dim, vector_field, vectors};
use crate::error::{Error, Result};
use crate::origin::{Origin, narrowing};
use crate::stage::{Action, Apply, Artifact, Clusters, EMBEDDING, Transform, VectorMap, labels};
use files::encode_tensors;
use manifest::content_of;

/// Fitted stages in order, with everything needed to label new rows. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Model {
    manifest: Manifest,
    stages: Vec<Arc<dyn Transform>>,
    content: String,
    hash: ModelHash,
    /// How many stages come before the one that appends the cluster.
    before_label: usize,
    /// The stage that makes embeddings of the features, if there is one.
    embeds: Option<usize>,
    embedding_dim: usize,
    /// The inverse map from the clustered vectors to the features, if the vectors are the features minus an origin.
    back: Option<Origin>,
}

impl Model {
    /// A model of `stages`, in the order in which they are applied.
    ///
    /// # Errors
    /// Kind `Model` if a stage does not fit the one before it, or the first does not fit the manifest's input.
    pub fn new(manifest: Manifest, stages: Vec<Arc<dyn Transform>>) -> Result<Self> {
        let artifacts: Vec<Artifact> = stages.iter().map(|stage| stage.save()).collect();
        let content = content_of(&manifest, &stages, &artifacts)?;
        let hash = ModelHash::of(&content, &encode_tensors(&artifacts)?);
        Self::assemble(manifest, stages, content, hash)
    }

    fn assemble(manifest: Manifest, stages: Vec<Arc<dyn Transform>>, content: String, hash: ModelHash) -> Result<Self> {
        let input = &manifest.input;
        if input.dim == 0 || i32::try_from(input.dim).is_err() {
            return Err(Error::model(format!("made for vectors of {} values", input.dim)));
        }
        if !input.names.is_empty() && input.names.len() != input.dim {
            let (names, dim) = (input.names.len(), input.dim);
            return Err(Error::model(format!("{names} names of the {dim} values of a row, expected as many or none")));
        }
        let mut schema: SchemaRef = Arc::new(Schema::new(vec![vector_field(&input.column, input.dim)]));
        let (mut before_label, mut embedding_dim, mut embeds) = (stages.len(), input.dim, None);
        for (i, stage) in stages.iter().enumerate() {
            let next = stage.output_schema(&schema).map_err(|e| {
                Error::model(format!("stage {i} ({}) does not fit the stages before it", stage.kind())).with_source(e)
            })?;
            match stage.action() {
                Action::Assign { .. } if before_label == stages.len() => {
                    before_label = i;
                    embedding_dim = embedding_width(&schema, &input.column)?;
                }
                Action::Map { from, to: EMBEDDING, .. } if from != EMBEDDING => embeds = embeds.or(Some(i)),
                Action::Map { .. } | Action::Assign { .. } | Action::Append(_) | Action::Keep { .. } => {}
            }
            schema = next;
        }
        if before_label == stages.len() {
            embedding_dim = embedding_width(&schema, &input.column)?;
        }
        // Where one map is all there is and subtracts an origin.
        let mut maps = stages.iter().filter_map(|stage| stage.vector_map());
        let back = match (maps.next(), maps.next()) {
            (Some(map), None) => map.as_origin().map(Origin::back),
            _ => None,
        };
        Ok(Self { manifest, stages, content, hash, before_label, embeds, embedding_dim, back })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The fitted stages, in order.
    pub fn stages(&self) -> &[Arc<dyn Transform>] {
        &self.stages
    }

    /// The hash of its content.
    pub fn hash(&self) -> &ModelHash {
        &self.hash
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The width of its input rows.
    pub fn dim_in(&self) -> usize {
        self.manifest.input.dim
    }

    /// The width of the clustered vectors: the embedding's, or the features' if nothing embeds them.
    pub fn embedding_dim(&self) -> usize {
        self.embedding_dim
    }

    /// True if it has a stage that makes embeddings of the features.
    pub fn embeds(&self) -> bool {
        self.embeds.is_some()
    }

    /// True if it has a stage that replaces missing values.
    pub fn imputes(&self) -> bool {
        self.stages.iter().any(|stage| stage.kind() == Impute::KIND)
    }

    /// True if it has a stage that assigns rows to clusters.
    pub fn assigns(&self) -> bool {
        self.before_label < self.stages.len()
    }

    /// The number of clusters, if it has a stage that assigns rows to them.
    pub fn clusters(&self) -> Option<&dyn Clusters> {
        self.stages.iter().find_map(|stage| stage.clusters())
    }

    /// The schema of what [`apply`](Self::apply) returns for batches of schema `input`.
    ///
    /// # Errors
    /// Kind `Model` for vectors of another width (both are named), `Input` if a column is missing.
    pub fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
        self.check_width(vector_dim(input, &self.manifest.input.column)?)?;
        let mut schema = match narrowing(input, &self.stages)? {
            Some(narrow) => narrow.output_schema(input)?,
            None => Arc::new(input.clone()),
        };
        for stage in &self.stages {
            schema = stage.output_schema(&schema)?;
        }
        Ok(schema)
    }

    /// Applies all stages to a batch. The same row gives the same bits in any batch. Vectors may have single or double
    /// precision, whatever the model learned from. Features whose differences are small compared with their values,
    /// such as times, need double precision.
    ///
    /// # Errors
    /// Kind `Model` for vectors of another width (both are named), `Input` for a missing column, nulls, or a value that
    /// is not finite (its row and feature are named).
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.check_width(vector_dim(batch.schema_ref(), &self.manifest.input.column)?)?;
        self.check_finite(values(batch, &self.manifest.input.column)?.0)?;
        self.apply_stages(batch.clone(), &self.stages)
    }

    /// The clustered vectors, row-major, with the origin added if they are the features minus an origin, and otherwise
    /// unchanged. In double precision, which keeps small differences of large values.
    pub fn in_source_units(&self, vectors: &[f32]) -> Vec<f64> {
        match &self.back {
            Some(back) => back.widened(vectors),
            None => vectors.iter().copied().map(f64::from).collect(),
        }
    }

    /// A stage that applies [`in_source_units`](Self::in_source_units) to a column of vectors, in single precision.
    pub(crate) fn back_to_source_units(&self) -> Option<Arc<dyn Transform>> {
        self.back.clone().map(|back| Arc::new(back) as Arc<dyn Transform>)
    }

    /// The clustered vectors of `rows` (row-major, [`dim_in`](Self::dim_in) values each), with
    /// [`embedding_dim`](Self::embedding_dim) values each. If they are the features minus an origin, the features are
    /// returned.
    ///
    /// # Errors
    /// Kind `Model` if `rows` is not a whole number of rows, otherwise as [`apply`](Self::apply).
    pub fn embed<'a>(&self, rows: impl Into<Values<'a>>) -> Result<Vec<f32>> {
        let output = self.apply_stages(self.batch(rows)?, &self.stages[..self.before_label])?;
        let (values, _) = vectors(&output, vector_column(output.schema_ref(), &self.manifest.input.column))?;
        let Some(back) = &self.back else { return Ok(values.to_vec()) };
        let mut moved = vec![0.0; values.len()];
        back.map(values, &mut moved)?;
        Ok(moved)
    }

    /// The clusters of `rows` (row-major, [`dim_in`](Self::dim_in) values each).
    ///
    /// # Errors
    /// Kind `Model` if no stage assigns rows to clusters, or `rows` is not a whole number of rows; otherwise as
    /// [`apply`](Self::apply).
    pub fn assign<'a>(&self, rows: impl Into<Values<'a>>) -> Result<Assignments> {
        let found = self.stages.get(self.before_label).map(|stage| (stage.kind(), stage.action()));
        let Some((kind, Action::Assign { column, clusters })) = found else {
            return Err(self.lacks("stage that labels rows"));
        };
        let given = self.apply_stages(self.batch(rows)?, &self.stages[..self.before_label])?;
        labels(&given, column, clusters).map_err(|e| e.while_doing(format_args!("stage {kind}")))
    }

    /// The error of kind `Model` for a model without `what`, naming the stages that it has.
    fn lacks(&self, what: &str) -> Error {
        let kinds: Vec<&str> = self.stages.iter().map(|stage| stage.kind()).collect();
        let kinds = if kinds.is_empty() { "none at all".to_string() } else { format!("only {}", kinds.join(", ")) };
        Error::model(format!("model {} ({}) has no {what}, {kinds}", self.name(), self.hash.short()))
    }

    fn batch<'a>(&self, rows: impl Into<Values<'a>>) -> Result<RecordBatch> {
        let rows = rows.into();
        let ModelInput { column, dim, .. } = &self.manifest.input;
        if !rows.len().is_multiple_of(*dim) {
            return Err(Error::model(format!("made for {dim} values a row; {} values are not rows of it", rows.len())));
        }
        self.check_finite(rows)?;
        let (field, array) = match rows {
            Values::Single(rows) => (vector_field(column, *dim), vector_array(rows.to_vec(), *dim)?),
            Values::Double(rows) => (double_field(column, *dim), double_array(rows.to_vec(), *dim)?),
        };
        Ok(RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array])?)
    }

    fn apply_stages(&self, mut batch: RecordBatch, stages: &[Arc<dyn Transform>]) -> Result<RecordBatch> {
        if let Some(narrow) = narrowing(batch.schema_ref(), &self.stages)? {
            batch = narrow.apply(&batch)?;
        }
        for stage in stages {
            batch = stage.apply(&batch).map_err(|e| e.while_doing(format_args!("stage {}", stage.kind())))?;
        }
        Ok(batch)
    }

    /// An error of kind `Model` naming both widths, unless `dim` is the width that it was made for.
    pub fn check_width(&self, dim: usize) -> Result<()> {
        match self.dim_in() == dim {
            true => Ok(()),
            false => Err(Error::model(format!(
                "model {} ({}) was made for {} features, these rows have {dim}",
                self.name(),
                self.hash.short(),
                self.dim_in(),
            ))),
        }
    }

    /// A stage may hide values that are not finite: `scale` would clamp infinity to the greatest value it knows. NaN is a
    /// missing value, which a model may [impute](Self::imputes).
    fn check_finite(&self, rows: Values<'_>) -> Result<()> {
        let imputes = self.imputes();
        let (at, value) = match rows {
            Values::Single(rows) => match first_bad(rows, |value| value.is_finite() || imputes && value.is_nan()) {
                None => return Ok(()),
                Some(at) => (at, f64::from(rows[at])),
            },
            Values::Double(rows) => match self.unusable(rows) {
                None => return Ok(()),
                Some(at) => (at, rows[at]),
            },
        };
        Err(self.not_finite(at / self.dim_in(), at % self.dim_in(), value))
    }

    /// The position of the first value that the model cannot take: one that is not finite in single precision, unless it
    /// [imputes](Self::imputes) NaN.
    pub(crate) fn unusable(&self, values: &[f64]) -> Option<usize> {
        let imputes = self.imputes();
        first_bad(values, |value| (value as f32).is_finite() || imputes && value.is_nan())
    }

    /// The error of kind `Input` for feature number `feature` of row `row` of a batch, which is `value`.
    pub(crate) fn not_finite(&self, row: usize, feature: usize, value: f64) -> Error {
        let name = self.manifest.input.names.get(feature).map(|name| format!(" ({name})")).unwrap_or_default();
        let (model, hash) = (self.name(), self.hash.short());
        Error::input(format!(
            "feature {feature}{name} of row {row} of a batch is {value:e}; model {model} ({hash}) takes finite numbers of \
             single precision"
        ))
    }
}

/// The position of the first value that is not `good`. Checks whole blocks first, which costs next to nothing.
fn first_bad<T: Copy>(values: &[T], good: impl Fn(T) -> bool) -> Option<usize> {
    let block = 1024;
    let damaged = |block: &[T]| !block.iter().fold(true, |all, &value| all & good(value));
    let first = values.chunks(block).position(damaged)? * block;
    values[first..].iter().position(|&value| !good(value)).map(|at| first + at)
}

/// The column of the vectors: the embedding if there is one, else the model's input.
fn vector_column<'a>(schema: &Schema, input: &'a str) -> &'a str {
    if schema.index_of(EMBEDDING).is_ok() { EMBEDDING } else { input }
}

fn embedding_width(schema: &Schema, input: &str) -> Result<usize> {
    vector_dim(schema, vector_column(schema, input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::registry::Registry;
    use crate::stage::{FEATURES, Tensor, VectorMap};

    /// Adds a number to every value, and remembers a setting.
    #[derive(Debug)]
    struct Shift {
        by: Vec<f32>,
        note: f64,
    }

    impl VectorMap for Shift {
        fn dim_in(&self) -> usize {
            self.by.len()
        }

        fn dim_out(&self) -> usize {
            self.by.len()
        }

        fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
            for (row, out) in input.chunks_exact(self.by.len()).zip(output.chunks_exact_mut(self.by.len())) {
                for ((x, by), out) in row.iter().zip(&self.by).zip(out) {
                    *out = x + by;
                }
            }
            Ok(())
        }
    }

    impl Transform for Shift {
        fn kind(&self) -> &'static str {
            "shift"
        }

        fn action(&self) -> Action<'_> {
            Action::Map { from: FEATURES, to: FEATURES, map: self }
        }

        fn save(&self) -> Artifact {
            let by = Tensor { shape: vec![self.by.len()], values: self.by.clone() };
            let settings = [("note".to_string(), self.note.into())].into_iter().collect();
            Artifact { settings, tensors: [("by".to_string(), by)].into() }
        }
    }

    /// A registry with the stage.
    pub(super) fn with_shift() -> Registry {
        Registry::default().stage("shift", |artifact, _| {
            let by = artifact.tensors.get("by").ok_or_else(|| Error::model("shift: no tensor by"))?;
            let note = artifact.settings["note"].as_f64().ok_or_else(|| Error::model("shift: no note"))?;
            Ok(Arc::new(Shift { by: by.values.clone(), note }))
        })
    }

    pub(super) fn model(by: &[f32]) -> Model {
        let figures = [("loss".to_string(), serde_json::json!([0.1 + 0.2, 1e-7, 3]))].into_iter().collect();
        let input = ModelInput { names: vec!["x".into(), "y".into()], ..ModelInput::bare(2) };
        let manifest = Manifest { name: "m".into(), input, seed: u64::MAX, labels_used: None, figures };
        Model::new(manifest, vec![Arc::new(Shift { by: by.to_vec(), note: 0.1 + 0.7 })]).unwrap()
    }

    #[test]
    fn the_hash_follows_the_content() {
        let same = model(&[0.5, -0.0]).hash().clone();
        assert_eq!(model(&[0.5, -0.0]).hash(), &same);
        assert_ne!(model(&[0.5, 0.0]).hash(), &same);
        assert_eq!(same.short(), &same.as_str()[..16]);
    }

    #[test]
    fn values_that_are_not_finite_are_named_with_row_and_feature() {
        let model = model(&[1.0, 2.0]);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows = vec![0.5; 6000];
            rows[2 * 1700 + 1] = value;
            let expected = format!("feature 1 (y) of row 1700 of a batch is {value}; model m ");
            let schema = Arc::new(Schema::new(vec![vector_field(FEATURES, 2)]));
            let batch = RecordBatch::try_new(schema, vec![vector_array(rows.clone(), 2).unwrap()]).unwrap();
            for e in [model.embed(&rows).unwrap_err(), model.apply(&batch).unwrap_err()] {
                assert!(e.kind() == Kind::Input && e.to_string().starts_with(&expected), "{e}");
            }
            let two = vec![Arc::clone(&model.stages()[0]), Arc::clone(&model.stages()[0])];
            let bare = Model::new(Manifest { input: ModelInput::bare(2), ..Manifest::default() }, two).unwrap();
            let e = bare.apply(&batch.slice(1700, 1)).unwrap_err().to_string();
            assert!(e.starts_with(&format!("feature 1 of row 0 of a batch is {value}")), "{e}");
        }
    }

    #[test]
    fn widths_are_checked_and_named() {
        let model = model(&[1.0, 2.0]);
        let schema = Arc::new(Schema::new(vec![vector_field(FEATURES, 3)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![vector_array(vec![0.0; 3], 3).unwrap()]).unwrap();
        for e in [model.apply(&batch).unwrap_err(), model.output_schema(&schema).unwrap_err()] {
            assert_eq!(e.kind(), Kind::Model);
            assert!(e.to_string().contains("for 2 features, these rows have 3"), "{e}");
        }
        assert_eq!(model.embed(&[1.0]).unwrap_err().kind(), Kind::Model);
        assert!(model.assign(&[1.0, 2.0]).unwrap_err().to_string().contains("no stage that labels rows, only shift"));
        let stage = Arc::new(Shift { by: vec![0.0; 3], note: 0.0 });
        let manifest = Manifest { input: ModelInput::bare(2), ..Manifest::default() };
        let e = Model::new(manifest, vec![stage]).unwrap_err();
        assert!(e.to_string().contains("stage 0 (shift) does not fit"), "{e}");
    }
}
