//! The manifest of a model: its metadata, and their text form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hash::ModelHash;
use crate::error::{Error, Result};
use crate::stage::{Artifact, FEATURES, Transform};

/// The file's name in a model's directory.
pub(super) const MANIFEST: &str = "manifest.json";
/// The version of the directory's layout that this release writes and reads.
const FORMAT: u64 = 1;

/// The metadata of a model. Nothing in it may depend on when or where it was made, or the same training would get two
/// hashes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The pipeline's name.
    pub name: String,
    /// Its input rows and how they are made.
    pub input: ModelInput,
    /// The pipeline's seed.
    pub seed: u64,
    /// The label column that was used in learning, if any.
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
    /// The names of its values; empty if they have none.
    pub names: Vec<String>,
    /// The spec of the source of the training rows; null if the caller gave the rows.
    pub source: Value,
    /// How recordings are cut into windows; null if the source yields vectors.
    pub window: Value,
    /// The features of a window; null if the source yields vectors.
    pub features: Value,
}

impl ModelInput {
    /// Vectors of `dim` values in the column [`FEATURES`], made by the caller.
    pub fn bare(dim: usize) -> Self {
        Self { column: FEATURES.into(), dim, ..Self::default() }
    }
}

/// One stage in the manifest.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedStage {
    pub kind: String,
    pub settings: serde_json::Map<String, Value>,
    pub tensors: BTreeMap<String, Vec<usize>>,
}

/// The content lines of the manifest.
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    #[serde(flatten)]
    pub manifest: Manifest,
    pub stages: Vec<SavedStage>,
}

/// A parsed manifest.
#[derive(Deserialize)]
struct Envelope {
    format: u64,
    hash: ModelHash,
    content: Content,
}

/// The content lines of the manifest of `stages`, which were saved as `artifacts`.
pub(super) fn content_of(manifest: &Manifest, stages: &[Arc<dyn Transform>], artifacts: &[Artifact]) -> Result<String> {
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

/// The file: one line that is not hashed, the content's lines, one closing line.
pub(super) fn envelope_of(content: &str, hash: &ModelHash) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"format\": {FORMAT}, \"dacpipe\": \"{version}\", \"hash\": \"{hash}\", \"content\":\n{content}\n}}\n")
}

/// Reads a manifest: the text of its content, the parsed content, and the hash that it should have.
pub(super) fn read_manifest(manifest: &[u8]) -> Result<(&str, Content, ModelHash)> {
    let text = std::str::from_utf8(manifest).map_err(|_| Error::model(format!("{MANIFEST} is not UTF-8 text")))?;
    let envelope: Envelope = serde_json::from_str(text).map_err(|e| {
        // A newer format may lack these fields, so the format is checked first.
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
    Ok((content, envelope.content, envelope.hash))
}

fn content_lines(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('\n')?;
    rest.strip_suffix("\n}\n")
}

fn other_format(format: u64) -> Error {
    let version = env!("CARGO_PKG_VERSION");
    Error::model(format!("{MANIFEST} has format {format}; dacpipe {version} reads format {FORMAT}"))
}
