//! The fitted stages of a pipeline, saved together and named by the hash of their content.
//!
//! A saved model is a directory of two files:
//!
//! ```text
//! models/3f0c…16 hex digits/
//!     model.safetensors   every learned array, as "<stage index>.<name>", f32
//!     manifest.json       line 1: format, version that wrote it, hash; then the content:
//!                         name, input (column, width, feature names, how rows are made), seed, stages, figures
//! ```
//!
//! The hash is the SHA-256 over the content lines of the manifest and the bytes of the arrays, so two trainings that
//! learned the same are one model, and a file that was changed by hand or cut short is noticed when it is read. The
//! manifest is written last: a directory without it is no model.
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

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Int32Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::column::{vector_array, vector_dim, vector_field, vectors};
use crate::device::{Cpu, Device};
use crate::embed::Embed;
use crate::error::{Error, Result};
use crate::label::Label;
use crate::scale::Scale;
use crate::stage::{Artifact, EMBEDDING, FEATURES, LABEL_COLUMNS, Tensor, Transform};
use crate::store::Location;
use crate::weights::FeatureWeights;

/// The version of the directory's layout that this release writes and reads.
const FORMAT: u64 = 1;
const MANIFEST: &str = "manifest.json";
const TENSORS: &str = "model.safetensors";

/// Rebuilds a stage of one kind from what it saved.
pub type Restore = fn(&Artifact) -> Result<Arc<dyn Transform>>;

/// The content hash of a model: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelHash(String);

impl ModelHash {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 16 digits: the name of the model's directory.
    pub fn short(&self) -> &str {
        &self.0[..16]
    }

    fn of(content: &str, tensors: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content.as_bytes());
        hash.update(tensors);
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a model says about itself beside its stages. Nothing in it may depend on when or where it was made, or the
/// same training would get two hashes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The pipeline's name.
    pub name: String,
    /// What its rows are and how they are made.
    pub input: ModelInput,
    /// The pipeline's seed.
    pub seed: u64,
    /// The label column that learning looked at, if any.
    pub labels_used: Option<String>,
    /// Figures of the learning stages (loss per epoch, inertia), by stage.
    pub figures: serde_json::Map<String, Value>,
}

/// The rows that a model takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// The vector column that the first stage reads.
    pub column: String,
    /// Its width.
    pub dim: usize,
    /// The names of its values; empty where they have none.
    pub names: Vec<String>,
    /// The source that the training rows came from, as its spec; null where rows are given by the caller.
    pub source: Value,
    /// How recordings are cut into windows; null where the source yields vectors.
    pub window: Value,
    /// What is computed from a window; null where the source yields vectors.
    pub features: Value,
}

impl ModelInput {
    /// Vectors of `dim` values in the column [`FEATURES`], made by the caller.
    pub fn bare(dim: usize) -> Self {
        Self { column: FEATURES.into(), dim, ..Self::default() }
    }
}

/// The cluster of each row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignments {
    /// The nearest centroid.
    pub cluster: Vec<i32>,
    /// The Euclidean distance to it.
    pub distance: Vec<f32>,
    /// How much further the second nearest is.
    pub margin: Vec<f32>,
}

/// Fitted stages in order, with everything needed to label new rows. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Model {
    manifest: Manifest,
    stages: Vec<Arc<dyn Transform>>,
    content: String,
    hash: ModelHash,
    /// How many stages come before the one that appends the cluster.
    before_label: usize,
    embedding_dim: usize,
}

/// One stage in the manifest.
#[derive(Serialize, Deserialize)]
struct SavedStage {
    kind: String,
    settings: serde_json::Map<String, Value>,
    tensors: BTreeMap<String, Vec<usize>>,
}

/// The content lines of the manifest.
#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(flatten)]
    manifest: Manifest,
    stages: Vec<SavedStage>,
}

/// The manifest as it is read.
#[derive(Deserialize)]
struct Envelope {
    format: u64,
    hash: ModelHash,
    content: Content,
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
        let mut schema: SchemaRef = Arc::new(Schema::new(vec![vector_field(&input.column, input.dim)]));
        let (mut before_label, mut embedding_dim) = (stages.len(), input.dim);
        for (i, stage) in stages.iter().enumerate() {
            let next = stage.output_schema(&schema).map_err(|e| {
                Error::model(format!("stage {i} ({}) does not fit the stages before it", stage.kind())).with_source(e)
            })?;
            if next.index_of(LABEL_COLUMNS[0]).is_ok() && before_label == stages.len() {
                before_label = i;
                embedding_dim = embedding_width(&schema, &input.column)?;
            }
            schema = next;
        }
        if before_label == stages.len() {
            embedding_dim = embedding_width(&schema, &input.column)?;
        }
        Ok(Self { manifest, stages, content, hash, before_label, embedding_dim })
    }

    /// What the model says about itself.
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

    /// Values in a row that it takes.
    pub fn dim_in(&self) -> usize {
        self.manifest.input.dim
    }

    /// Values in the vector that is clustered: the embedding's, or the features' where nothing embeds them.
    pub fn embedding_dim(&self) -> usize {
        self.embedding_dim
    }

    /// True if it has a stage that labels rows.
    pub fn assigns(&self) -> bool {
        self.before_label < self.stages.len()
    }

    /// The schema of what [`apply`](Self::apply) returns for batches of schema `input`.
    ///
    /// # Errors
    /// Kind `Model` for vectors of another width (both are named), `Input` if a column is missing.
    pub fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
        self.check_width(vector_dim(input, &self.manifest.input.column)?)?;
        let mut schema = Arc::new(input.clone());
        for stage in &self.stages {
            schema = stage.output_schema(&schema)?;
        }
        Ok(schema)
    }

    /// Applies all stages to a batch. The same row gives the same bits in any batch.
    ///
    /// # Errors
    /// Kind `Model` for vectors of another width (both are named), `Input` for a missing column, nulls, or a value that
    /// is not finite (its row and feature are named).
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.check_width(vector_dim(batch.schema_ref(), &self.manifest.input.column)?)?;
        self.check_finite(vectors(batch, &self.manifest.input.column)?.0)?;
        self.apply_stages(batch.clone(), &self.stages)
    }

    /// The vectors that are clustered, of `rows` (row-major, [`dim_in`](Self::dim_in) values each):
    /// [`embedding_dim`](Self::embedding_dim) values each.
    ///
    /// # Errors
    /// Kind `Model` if `rows` is not a whole number of rows, otherwise as [`apply`](Self::apply).
    pub fn embed(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let output = self.apply_stages(self.batch(rows)?, &self.stages[..self.before_label])?;
        let (values, _) = vectors(&output, vector_column(output.schema_ref(), &self.manifest.input.column))?;
        Ok(values.to_vec())
    }

    /// The clusters of `rows` (row-major, [`dim_in`](Self::dim_in) values each).
    ///
    /// # Errors
    /// Kind `Model` if no stage labels rows or `rows` is not a whole number of rows, otherwise as
    /// [`apply`](Self::apply).
    pub fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        if !self.assigns() {
            let kinds: Vec<&str> = self.stages.iter().map(|stage| stage.kind()).collect();
            let (name, hash, kinds) = (self.name(), self.hash.short(), kinds.join(", "));
            return Err(Error::model(format!("model {name} ({hash}) has no stage that labels rows, only {kinds}")));
        }
        let output = self.apply_stages(self.batch(rows)?, &self.stages)?;
        let [cluster, distance, margin] = LABEL_COLUMNS;
        Ok(Assignments {
            cluster: label_column(&output, cluster, &DataType::Int32)?.as_primitive::<Int32Type>().values().to_vec(),
            distance: label_column(&output, distance, &DataType::Float32)?
                .as_primitive::<Float32Type>()
                .values()
                .to_vec(),
            margin: label_column(&output, margin, &DataType::Float32)?.as_primitive::<Float32Type>().values().to_vec(),
        })
    }

    fn batch(&self, rows: &[f32]) -> Result<RecordBatch> {
        let ModelInput { column, dim, .. } = &self.manifest.input;
        if !rows.len().is_multiple_of(*dim) {
            return Err(Error::model(format!("made for {dim} values a row; {} values are not rows of it", rows.len())));
        }
        self.check_finite(rows)?;
        let schema = Arc::new(Schema::new(vec![vector_field(column, *dim)]));
        Ok(RecordBatch::try_new(schema, vec![vector_array(rows.to_vec(), *dim)?])?)
    }

    fn apply_stages(&self, mut batch: RecordBatch, stages: &[Arc<dyn Transform>]) -> Result<RecordBatch> {
        for stage in stages {
            batch = stage.apply(&batch).map_err(|e| e.while_doing(format_args!("stage {}", stage.kind())))?;
        }
        Ok(batch)
    }

    /// An error of kind `Model` naming both widths, unless `dim` is the one it was made for.
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

    /// A stage may hide what is not finite: `scale` would take infinity for the greatest value it knows.
    fn check_finite(&self, rows: &[f32]) -> Result<()> {
        match not_finite(rows) {
            None => Ok(()),
            Some(at) => Err(self.not_finite(at / self.dim_in(), at % self.dim_in(), rows[at])),
        }
    }

    /// The error of kind `Input` for feature number `feature` of row `row` of a batch, which is `value`.
    pub(crate) fn not_finite(&self, row: usize, feature: usize, value: f32) -> Error {
        let name = self.manifest.input.names.get(feature).map(|name| format!(" ({name})")).unwrap_or_default();
        let (model, hash) = (self.name(), self.hash.short());
        Error::input(format!(
            "feature {feature}{name} of row {row} of a batch is {value}; model {model} ({hash}) takes finite numbers"
        ))
    }

    /// Writes the model into the directory `models/<first 16 digits of its hash>` and returns where that is. A model
    /// that is there already is left as it is.
    ///
    /// # Errors
    /// Kind `Io` if the store fails.
    pub async fn save(&self, models: &Location) -> Result<Location> {
        let artifacts: Vec<Artifact> = self.stages.iter().map(|stage| stage.save()).collect();
        let file = |name: &str| format!("{}/{name}", self.hash.short());
        // Each file appears whole or not at all, and one that is there already has the same content.
        models.put_if_absent(&file(TENSORS), encode_tensors(&artifacts)?.into()).await?;
        models.put_if_absent(&file(MANIFEST), envelope_of(&self.content, &self.hash).into()).await?;
        models.join(self.hash.short())
    }

    /// Reads a model from its directory, to be applied on the processor.
    ///
    /// # Errors
    /// Kind `Model` if there is none, a file is damaged or incomplete, its content does not have its hash, a stage is
    /// of an unknown kind, or the stages do not fit each other; `Io` if the store fails.
    pub async fn load(directory: &Location) -> Result<Self> {
        Self::load_with(directory, &Cpu::default(), &[]).await
    }

    /// As [`load`](Self::load), to be applied on `device`, and with the kinds of your own stages and how to rebuild
    /// them.
    pub async fn load_with(directory: &Location, device: &dyn Device, extra: &[(&str, Restore)]) -> Result<Self> {
        // Both at once; where both fail, the manifest's error is told.
        let (manifest, tensors) = futures::join!(read(directory, MANIFEST), read(directory, TENSORS));
        Self::decode(&manifest?, &tensors?, device, extra)
            .map_err(|e| Error::model(format!("the model at {directory}")).with_source(e))
    }

    /// Rebuilds a model from the bytes of its two files.
    fn decode(manifest: &[u8], tensors: &[u8], device: &dyn Device, extra: &[(&str, Restore)]) -> Result<Self> {
        let text = std::str::from_utf8(manifest).map_err(|_| Error::model(format!("{MANIFEST} is not UTF-8 text")))?;
        let envelope: Envelope = serde_json::from_str(text).map_err(|e| {
            // A newer format may not even have these fields, so say that first.
            match serde_json::from_str::<Value>(text).ok().and_then(|v| v.get("format")?.as_u64()) {
                Some(format) if format != FORMAT => other_format(format),
                _ => Error::model(format!("{MANIFEST} is not a model's manifest")).with_source(e),
            }
        })?;
        if envelope.format != FORMAT {
            return Err(other_format(envelope.format));
        }
        let content = content_lines(text)
            .ok_or_else(|| Error::model(format!("{MANIFEST} was reformatted; the lines of its content are hashed")))?;
        let hash = ModelHash::of(content, tensors);
        if hash != envelope.hash {
            return Err(Error::model(format!(
                "its content has the hash {}, {MANIFEST} says {}: a file was changed or cut short",
                hash.short(),
                envelope.hash,
            )));
        }
        let Content { manifest, stages } = envelope.content;
        let artifacts = decode_tensors(stages, tensors)?;
        let stages = artifacts.iter().enumerate().map(|(i, (kind, artifact))| {
            restore(kind, artifact, device, extra)
                .map_err(|e| Error::model(format!("stage {i} ({kind})")).with_source(e))
        });
        let stages = stages.collect::<Result<Vec<_>>>()?;
        Self::assemble(manifest, stages, content.to_owned(), hash)
    }
}

/// The registry of stages: rebuilds a stage of any kind that can be saved, dacpipe's own, which will work on `device`, or
/// one of `extra`.
///
/// # Errors
/// Kind `Model` for an unknown kind (the known ones are listed), or what the stage finds wrong with the artifact.
pub fn restore(
    kind: &str,
    artifact: &Artifact,
    device: &dyn Device,
    extra: &[(&str, Restore)],
) -> Result<Arc<dyn Transform>> {
    Ok(match kind {
        "scale" => Arc::new(Scale::from_artifact(artifact)?),
        "feature_weights" => Arc::new(FeatureWeights::from_artifact(artifact)?),
        "embed" => Arc::new(Embed::from_artifact(artifact, device)?),
        "label" => Arc::new(Label::from_artifact(artifact, device)?),
        _ => match extra.iter().find(|(name, _)| *name == kind) {
            Some((_, restore)) => restore(artifact)?,
            None => {
                let mut known = vec!["scale", "feature_weights", "embed", "label"];
                known.extend(extra.iter().map(|(name, _)| name));
                return Err(Error::model(format!("no stage of kind {kind:?}; there are {}", known.join(", "))));
            }
        },
    })
}

/// Where the first value that is not finite is. Looks at whole blocks first, which costs next to nothing.
pub(crate) fn not_finite(values: &[f32]) -> Option<usize> {
    let block = 1024;
    let damaged = |block: &[f32]| !block.iter().fold(true, |finite, value| finite & value.is_finite());
    let first = values.chunks(block).position(damaged)? * block;
    values[first..].iter().position(|value| !value.is_finite()).map(|at| first + at)
}

/// The column that holds the vectors: the embedding where there is one, else what the model reads.
fn vector_column<'a>(schema: &Schema, input: &'a str) -> &'a str {
    if schema.index_of(EMBEDDING).is_ok() { EMBEDDING } else { input }
}

fn embedding_width(schema: &Schema, input: &str) -> Result<usize> {
    vector_dim(schema, vector_column(schema, input))
}

fn label_column<'a>(batch: &'a RecordBatch, name: &str, data_type: &DataType) -> Result<&'a Arc<dyn Array>> {
    match batch.column_by_name(name) {
        Some(column) if column.data_type() == data_type && column.null_count() == 0 => Ok(column),
        _ => Err(Error::model(format!("the labelling stage does not make the column {name} as {data_type}"))),
    }
}

fn content_of(manifest: &Manifest, stages: &[Arc<dyn Transform>], artifacts: &[Artifact]) -> Result<String> {
    let stages = stages.iter().zip(artifacts).map(|(stage, artifact)| SavedStage {
        kind: stage.kind().to_owned(),
        settings: artifact.settings.clone(),
        tensors: artifact.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect(),
    });
    let content = Content { manifest: manifest.clone(), stages: stages.collect() };
    let mut value = serde_json::to_value(content).map_err(not_json)?;
    value.sort_all_objects();
    serde_json::to_string_pretty(&value).map_err(not_json)
}

fn not_json(e: serde_json::Error) -> Error {
    Error::internal("a model's manifest cannot be written as JSON").with_source(e)
}

/// The file: one line of what is not hashed, the content's lines, one closing line.
fn envelope_of(content: &str, hash: &ModelHash) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"format\": {FORMAT}, \"dacpipe\": \"{version}\", \"hash\": \"{hash}\", \"content\":\n{content}\n}}\n")
}

fn content_lines(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('\n')?;
    rest.strip_suffix("\n}\n")
}

fn other_format(format: u64) -> Error {
    let version = env!("CARGO_PKG_VERSION");
    Error::model(format!("{MANIFEST} has format {format}; dacpipe {version} reads format {FORMAT}"))
}

fn encode_tensors(artifacts: &[Artifact]) -> Result<Vec<u8>> {
    let mut named: BTreeMap<String, &Tensor> = BTreeMap::new();
    for (i, artifact) in artifacts.iter().enumerate() {
        named.extend(artifact.tensors.iter().map(|(name, tensor)| (format!("{i}.{name}"), tensor)));
    }
    encode_arrays(&named, None)
}

fn decode_tensors(stages: Vec<SavedStage>, bytes: &[u8]) -> Result<Vec<(String, Artifact)>> {
    let (mut there, _) = decode_arrays(bytes).map_err(|e| Error::model(TENSORS).with_source(e))?;
    let named: usize = stages.iter().map(|stage| stage.tensors.len()).sum();
    if named != there.len() {
        return Err(Error::model(format!("{TENSORS} has {} arrays, {MANIFEST} names {named}", there.len())));
    }
    let mut take = |name: String, shape: Vec<usize>| match there.remove(&name) {
        Some(tensor) if tensor.shape == shape => Ok(tensor),
        Some(Tensor { shape: found, .. }) => {
            Err(Error::model(format!("{TENSORS}: array {name} has shape {found:?}, {MANIFEST} says {shape:?}")))
        }
        None => Err(Error::model(format!("{TENSORS} has no array {name}"))),
    };
    let mut artifacts = Vec::new();
    for (i, SavedStage { kind, settings, tensors }) in stages.into_iter().enumerate() {
        let tensors = tensors.into_iter().map(|(name, shape)| {
            let tensor = take(format!("{i}.{name}"), shape)?;
            Ok((name, tensor))
        });
        artifacts.push((kind, Artifact { settings, tensors: tensors.collect::<Result<_>>()? }));
    }
    Ok(artifacts)
}

/// Learned arrays as a safetensors file, the one codec of models and of what an interrupted run leaves: the arrays by
/// name, and beside them one text under a name, if any. (Of several, the order would be left to chance.)
///
/// # Errors
/// Kind `Internal` for an array that has more or fewer values than its shape says.
pub(crate) fn encode_arrays<T: Borrow<Tensor>>(
    tensors: &BTreeMap<String, T>,
    metadata: Option<(&str, &str)>,
) -> Result<Vec<u8>> {
    let bytes = |tensor: &T| tensor.borrow().values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes: Vec<Vec<u8>> = tensors.values().map(bytes).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.borrow().shape.clone(), bytes).map_err(|e| {
            Error::internal(format!("array {name} has more or fewer values than its shape says")).with_source(e)
        })?;
        views.push((name, view));
    }
    let metadata = metadata.map(|(name, text)| HashMap::from([(name.to_owned(), text.to_owned())]));
    serialize(views, metadata).map_err(|e| Error::internal("arrays that cannot be encoded").with_source(e))
}

/// The arrays and the texts that [`encode_arrays`] was given.
///
/// # Errors
/// Kind `Model` if it is no safetensors file or has an array of another type than `f32`.
pub(crate) fn decode_arrays(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let damaged = |e| Error::model("not a safetensors file").with_source(e);
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(Error::model(format!("array {name} is {:?}, expected F32", view.dtype())));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

async fn read(directory: &Location, file: &str) -> Result<Bytes> {
    match directory.get(file).await? {
        Some(content) => Ok(content),
        None => Err(Error::model(format!("no model at {directory}: it has no {file}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::column::{replace_in_batch, replace_in_schema};
    use crate::stage::VectorMap;

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

        fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
            match vector_dim(input, FEATURES)? == self.by.len() {
                true => replace_in_schema(input, FEATURES, FEATURES, self.by.len()),
                false => Err(Error::model("shift: another width")),
            }
        }

        fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
            replace_in_batch(batch, FEATURES, FEATURES, self)
        }

        fn save(&self) -> Artifact {
            let by = Tensor { shape: vec![self.by.len()], values: self.by.clone() };
            let settings = [("note".to_string(), self.note.into())].into_iter().collect();
            Artifact { settings, tensors: [("by".to_string(), by)].into() }
        }
    }

    fn restore_shift(artifact: &Artifact) -> Result<Arc<dyn Transform>> {
        let by = artifact.tensors.get("by").ok_or_else(|| Error::model("shift: no tensor by"))?;
        let note = artifact.settings["note"].as_f64().ok_or_else(|| Error::model("shift: no note"))?;
        Ok(Arc::new(Shift { by: by.values.clone(), note }))
    }

    const SHIFT: (&str, Restore) = ("shift", restore_shift);

    fn model(by: &[f32]) -> Model {
        let figures = [("loss".to_string(), serde_json::json!([0.1 + 0.2, 1e-7, 3]))].into_iter().collect();
        let input = ModelInput { names: vec!["x".into(), "y".into()], ..ModelInput::bare(2) };
        let manifest = Manifest { name: "m".into(), input, seed: u64::MAX, labels_used: None, figures };
        Model::new(manifest, vec![Arc::new(Shift { by: by.to_vec(), note: 0.1 + 0.7 })]).unwrap()
    }

    fn files(model: &Model) -> (String, Vec<u8>) {
        let artifacts: Vec<Artifact> = model.stages().iter().map(|stage| stage.save()).collect();
        (envelope_of(&model.content, &model.hash), encode_tensors(&artifacts).unwrap())
    }

    #[test]
    fn the_hash_follows_the_content() {
        let same = model(&[0.5, -0.0]).hash().clone();
        assert_eq!(model(&[0.5, -0.0]).hash(), &same);
        assert_ne!(model(&[0.5, 0.0]).hash(), &same);
        assert_eq!(same.short(), &same.as_str()[..16]);
    }

    #[tokio::test]
    async fn a_saved_model_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let models = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let saved = model(&[0.1, f32::MIN_POSITIVE]);
        let place = saved.save(&models).await.unwrap();
        assert_eq!(place.to_string(), format!("{}/{}", dir.path().display(), saved.hash().short()));
        let loaded = Model::load_with(&place, &Cpu::default(), &[SHIFT]).await.unwrap();
        assert_eq!(loaded.hash(), saved.hash());
        assert_eq!(loaded.manifest().name, "m");
        assert_eq!(loaded.manifest().seed, u64::MAX);
        assert_eq!(loaded.manifest().input, saved.manifest().input);
        assert_eq!(loaded.stages()[0].save().tensors, saved.stages()[0].save().tensors);
        assert_eq!((loaded.dim_in(), loaded.embedding_dim(), loaded.assigns()), (2, 2, false));
        assert_eq!(loaded.embed(&[1.0, 2.0]).unwrap(), [1.1, 2.0]);
        // Saved again, from what was loaded, nothing changes.
        assert_eq!(loaded.save(&models).await.unwrap().to_string(), place.to_string());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_no_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let e = Model::load(&place).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Model);
        assert!(e.to_string().contains("no model at") && e.to_string().contains(MANIFEST), "{e}");
        // A save that was cut short left the arrays alone.
        std::fs::write(dir.path().join(TENSORS), files(&model(&[1.0, 2.0])).1).unwrap();
        assert!(Model::load(&place).await.unwrap_err().to_string().contains(MANIFEST));
    }

    #[test]
    fn changed_files_are_noticed() {
        let (manifest, tensors) = files(&model(&[1.0, 2.0]));
        let load = |manifest: &str, tensors: &[u8]| {
            let e = Model::decode(manifest.as_bytes(), tensors, &Cpu::default(), &[SHIFT]).unwrap_err();
            assert_eq!(e.kind(), Kind::Model, "{e}");
            e.to_string()
        };
        let mut flipped = tensors.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(load(&manifest, &flipped).contains("a file was changed or cut short"));
        assert!(load(&manifest, &tensors[..tensors.len() - 1]).contains("changed or cut short"));
        assert!(load(&manifest.replace("\"m\"", "\"n\""), &tensors).contains("changed or cut short"));
        assert!(load(&manifest[..100], &tensors).contains("not a model's manifest"));
        assert!(load("{\"format\": 7}", &tensors).contains("format 7"));
        assert!(load(&manifest.replace('\n', " "), &tensors).contains("reformatted"));
        assert!(Model::decode(&[0xff], &tensors, &Cpu::default(), &[]).unwrap_err().to_string().contains("UTF-8"));
        let e = Model::decode(manifest.as_bytes(), &tensors, &Cpu::default(), &[]).unwrap_err().to_string();
        assert!(e.contains("stage 0 (shift)") && e.contains("there are scale, feature_weights, embed, label"), "{e}");
    }

    #[test]
    fn arrays_must_be_those_of_the_manifest() {
        let stage = |shape: Vec<usize>| SavedStage {
            kind: "shift".into(),
            settings: Default::default(),
            tensors: [("by".to_string(), shape)].into(),
        };
        let (_, tensors) = files(&model(&[1.0, 2.0]));
        let say = |stages, tensors: &[u8]| decode_tensors(stages, tensors).unwrap_err().to_string();
        assert!(decode_tensors(vec![stage(vec![2])], &tensors).is_ok());
        assert!(say(vec![stage(vec![1, 2])], &tensors).contains("0.by has shape [2]"));
        assert!(say(vec![], &tensors).contains("has 1 arrays"));
        assert!(say(vec![stage(vec![2])], b"rubbish").contains("not a safetensors file"));
        let other = Tensor { shape: vec![2], values: vec![1.0, 2.0] };
        let other = encode_arrays(&BTreeMap::from([("1.by".to_string(), other)]), None).unwrap();
        assert!(say(vec![stage(vec![2])], &other).contains("has no array 0.by"));
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
    fn arrays_come_back_to_the_bit() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor { shape: shape.to_vec(), values: values.to_vec() };
        let tensors = BTreeMap::from([
            ("0.b".to_string(), tensor(&[2, 1], &[-0.0, f32::MIN_POSITIVE / 4.0])),
            ("0.a".to_string(), tensor(&[], &[f32::INFINITY])),
            ("none".to_string(), tensor(&[0, 7], &[])),
        ]);
        let bytes = encode_arrays(&tensors, None).unwrap();
        assert_eq!(decode_arrays(&bytes).unwrap(), (tensors.clone(), HashMap::new()));
        assert_eq!(encode_arrays(&tensors, None).unwrap(), bytes);
        let borrowed: BTreeMap<String, &Tensor> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
        let (again, texts) =
            decode_arrays(&encode_arrays(&borrowed, Some(("settings", "{\"k\": 3}"))).unwrap()).unwrap();
        assert_eq!((again, texts["settings"].as_str()), (tensors, "{\"k\": 3}"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let short = BTreeMap::from([("w".to_string(), Tensor { shape: vec![3], values: vec![1.0] })]);
        let e = encode_arrays(&short, None).unwrap_err();
        assert!(e.kind() == Kind::Internal && e.to_string().starts_with("array w has more or fewer values"), "{e}");
        let halves = serialize([("w", TensorView::new(Dtype::F16, vec![2], &[0; 4]).unwrap())], None).unwrap();
        assert_eq!(decode_arrays(&halves).unwrap_err().message(), "array w is F16, expected F32");
        for bytes in [&b"rubbish"[..], &[], &halves[..halves.len() - 1]] {
            let e = decode_arrays(bytes).unwrap_err();
            assert!(e.kind() == Kind::Model && e.message() == "not a safetensors file", "{e}");
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
