//! The pipeline file as it is typed: its values have not been checked against each other yet.
//!
//! The doc comments of the fields become the descriptions of `schemas/pipeline.schema.json`, and a file is checked
//! against the schema: keys, types, bounds and accepted values are stated here and nowhere else.

mod deep_clustering;
mod device;
mod features;
mod kmeans;
mod manifold;
mod schema;
mod sink;
mod source;
mod split;
mod stage;
mod stream;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use deep_clustering::*;
pub use device::*;
pub use features::*;
pub use kmeans::*;
pub use manifold::*;
pub use schema::pipeline_schema;
pub use sink::*;
pub use source::*;
pub use split::SplitTable;
pub(super) use split::{ALL, THE_VALUE_ALL};
pub use stage::*;
pub use stream::{Learn, StreamTable};

use super::size::Size;
use crate::source::{Missing, OnBadRow, Span};

/// A pipeline of dacpipe: where rows come from, the stages they pass in order, and where the results are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "dacpipe pipeline file")]
pub struct PipelineFile {
    /// The table's name in SQL: lowercase letters, digits and underscores, not starting with a digit.
    #[schemars(extend("pattern" = "^[a-z_][a-z0-9_]*$"))]
    pub name: String,
    /// The source of every random choice; two runs with the same seed give the same bytes. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Memory for buffered training rows, beyond which they are spilled to disk: a size such as "300 MB" or "1 GiB", at
    /// least "64 MiB". Three eighths of it are for the stage that is learning: a network, clusters or a layout that
    /// needs more is refused. The result does not depend on it. Default "1 GiB".
    #[serde(default = "default_memory_limit")]
    pub memory_limit: Size,
    /// Compute threads. The result does not depend on their number. Default: one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Where networks are trained and applied and clusters are found: "cpu", "cuda" (the first NVIDIA GPU), "cuda:1" (the one
    /// of that number, counted from 0) or "auto". Default "auto": the first GPU where there is one and dacpipe is built for
    /// it, else the CPU.
    #[serde(default)]
    pub device: DeviceSetting,
    /// What happens to a row that cannot be read. Default "fail".
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// What becomes of a missing value: its row is a bad row ("quarantine"); of feature vectors, it becomes the mean of its
    /// feature over the rows that are learned from, which is part of the model ("mean"); of recordings, the last value of
    /// its channel ("last"). Default "quarantine".
    #[serde(default, skip_serializing_if = "Missing::is_default")]
    pub missing: Missing,
    /// With missing = "last", how old the last value may be, such as "2 s". Default: of any age since the last gap in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_within: Option<Span>,
    /// Whether the run writes a page to look at, report/index.html beside the table. Default false.
    #[serde(default)]
    pub report: bool,
    /// Where rows come from.
    pub source: SourceTable,
    /// The stages, in the order in which rows pass them.
    #[schemars(length(min = 1))]
    pub stage: Vec<StageTable>,
    /// Which rows are learned from, and which are assigned to clusters. Default: all, and all.
    #[serde(default)]
    pub split: SplitTable,
    /// Where the results are written.
    pub sink: SinkTable,
    /// How the source is followed by `--follow` and `--once`.
    #[serde(default, skip_serializing_if = "StreamTable::is_default")]
    pub stream: StreamTable,
}

pub(in crate::config) fn default_memory_limit() -> Size {
    Size::mebibytes(1024)
}
