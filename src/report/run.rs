//! `run.json`: the report of one run.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::drift::DriftReport;
use crate::error::{Error, Result};
use crate::secret::redacted;
use crate::source::LeftOut;
use crate::source::samples::Samples;

/// How well the embedding follows the layout that it was taught.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Follows {
    /// The trustworthiness of the layout.
    pub layout: f64,
    /// Training rows that were held out.
    pub rows: u64,
    /// The mean squared difference between their embedding and their coordinates, whose variance is 1.
    pub error: f64,
    /// The trustworthiness of their embedding among themselves.
    pub trustworthiness: f64,
}

/// The least number of rows for a meaningful trustworthiness.
const FEW_HELD_OUT: u64 = 50;

impl RunReport {
    /// How well held-out rows follow the layout, if the network was taught one and enough rows were held out.
    pub fn follows(&self) -> Option<Follows> {
        let layout = self.stages.iter().find_map(|stage| stage.figures.get("trustworthiness")?.as_f64())?;
        let held_out = self.stages.iter().find_map(|stage| stage.figures.get("held_out"))?;
        let figure = |name: &str| held_out.get(name).and_then(Value::as_f64);
        let rows = held_out.get("rows").and_then(Value::as_u64).filter(|&rows| rows >= FEW_HELD_OUT)?;
        Some(Follows { layout, rows, error: figure("error")?, trustworthiness: figure("trustworthiness")? })
    }
}

/// The figure of the step `source` that lists the features that [fell together](FellTogether).
pub const FELL_TOGETHER: &str = "fell_together";

/// The step of a run that matches its clusters to those of the table, where the table had some.
pub const MATCHED: &str = "ids";

/// A feature whose different values became the same number by rounding to single precision, or by scaling.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct FellTogether {
    /// Its name.
    pub feature: String,
    /// How many different values it has in the rows that were examined.
    pub values: usize,
    /// How many different numbers are left of them.
    pub left: usize,
}

impl FellTogether {
    /// As text: `ts (40 values became 1)`.
    pub fn describe(&self) -> String {
        format!("{} ({} values became {})", self.feature, self.values, self.left)
    }
}

impl RunReport {
    /// The features that fell together.
    pub fn fell_together(&self) -> Vec<FellTogether> {
        let found = self.stages.iter().find_map(|stage| stage.figures.get(FELL_TOGETHER));
        found.and_then(|found| serde_json::from_value(found.clone()).ok()).unwrap_or_default()
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The report of one run of a pipeline, as in `run.json`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct RunReport {
    /// dacpipe's version.
    pub dacpipe: String,
    /// The pipeline's name, which is the table's name in SQL.
    pub name: String,
    /// This execution's identifier.
    pub run: String,
    /// The fingerprint of the resolved pipeline file.
    pub pipeline: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// When it began (RFC 3339, UTC).
    pub started_at: String,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
    /// A description of the source.
    pub source: String,
    /// True if the source says that its recordings were simulated.
    pub simulated: bool,
    /// Rows that were learned from.
    pub fit_rows: u64,
    /// Rows that were labelled, or written as vectors without clusters.
    pub labelled_rows: u64,
    /// Rows that were set aside.
    pub quarantined_rows: u64,
    /// What became of the samples of the recordings; `None` for feature vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// Files with something after their compressed data, which was not read; up to a hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<String>,
    /// What was not read of the source's directory; `None` if all of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Notes for the user on how the table was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How far rows have drifted, where that was measured: the rows that were learned from against those of the table's model
    /// before, and the rows that were labelled against those that were learned from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<DriftReport>,
    /// Rows that an append left out, because the table has rows with their keys by this model.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_rows: u64,
    /// Rows of the table that were replaced, because they have the same keys.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced_rows: u64,
    /// Compute threads.
    pub threads: usize,
    /// The memory limit in bytes.
    pub memory_limit: u64,
    /// Rows of the replay cache that were spilled to disk to stay below it.
    pub spilled_rows: u64,
    /// The steps in order, with their times and figures.
    pub stages: Vec<StageReport>,
    /// The ids of the clusters, rising; empty if the pipeline finds no clusters.
    #[serde(default)]
    pub cluster_ids: Vec<i32>,
    /// Cluster sizes, in the order of the ids.
    pub cluster_sizes: Vec<u64>,
    /// The vectors in the table, if `sink.vectors` asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorsReport>,
    /// The label column that the clusters were compared with, if there is one. Labels are used in learning only if
    /// [`labels_used`](Self::labels_used) says so.
    pub label_column: Option<String>,
    /// True if a stage learned from the labels (DAC's equation 5 does).
    pub labels_used: bool,
    /// Agreement of the clusters with the labels: by split, and over `"all"` rows.
    pub scores: BTreeMap<String, Scores>,
    /// The same for k-means on the features that the autoencoder was given.
    pub raw_kmeans: BTreeMap<String, Scores>,
    /// The model's content hash.
    pub model: String,
    /// The model's directory.
    pub model_path: String,
    /// The table's directory.
    pub table: String,
    /// The table's version after this run.
    pub table_version: u64,
    /// The path of the report's page, if the pipeline asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

impl RunReport {
    /// The report as JSON, for `run.json`; without secrets.
    pub fn to_json(&self) -> Result<String> {
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Error::internal("cannot write run.json").with_source(e))?;
        Ok(redacted(&text).into_owned())
    }
}

/// Vectors that were written into a table.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct VectorsReport {
    /// Values in a vector.
    pub dim: usize,
    /// The column of lists that holds them; `None` if each value has a column of its own.
    pub column: Option<String>,
    /// The names of the values, in order; the column names if each has a column.
    pub names: Vec<String>,
}

impl VectorsReport {
    /// A description: `561 values a row, a column each`.
    pub fn describe(&self) -> String {
        match &self.column {
            Some(column) => format!("{} values a row, in column {column}", self.dim),
            None => format!("{} values a row, a column each", self.dim),
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct StageReport {
    /// The stage's name (`"source"`, `"scale"`, …, `"label"`).
    pub stage: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// A description in one line.
    pub summary: String,
    /// Its figures by name, such as loss by epoch, inertia, iterations.
    pub figures: Map<String, Value>,
}

impl StageReport {
    /// The report of a step without figures, which began at `began` and ends now.
    pub fn new(stage: &str, began: Instant, summary: String) -> Self {
        Self { stage: stage.into(), seconds: began.elapsed().as_secs_f64(), summary, figures: Map::new() }
    }
}

/// Agreement of clusters with labels, over the rows that have a label.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
pub struct Scores {
    /// Rows that have a label.
    pub rows: u64,
    /// Adjusted Rand index.
    pub ari: f64,
    /// Normalised mutual information (arithmetic mean).
    pub nmi: f64,
    /// Accuracy under the best matching of clusters to labels; `None` if there are too many labels to match.
    pub acc: Option<f64>,
}
