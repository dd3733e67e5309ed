//! What a commit of dacpipe says beside its files: the key `dacpipe` of `commitInfo`, which other engines keep and show
//! but do not read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stream::StreamNote;

/// The key of [`CommitNote`] in a commit's information.
pub(super) const NOTE: &str = "dacpipe";

/// What happens to the rows of earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are replaced, in the same commit that adds the new ones.
    #[default]
    Overwrite,
    /// They stay.
    Append,
}

/// Where the rows of a commit came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its kind and path, as text.
    pub description: String,
    /// The number of its rows that were labelled.
    pub rows: u64,
    /// `{ "rows": n }`, the same number again; nothing reads it.
    #[serde(default)]
    pub offsets: serde_json::Value,
}

/// A file beside the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBeside {
    /// Where it lies below the table.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The [checksums](super::Checksums) of its bytes, as text; absent in versions from before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
}

/// What a commit of dacpipe says about the table after it. A version has the note of the newest commit up to it that
/// has one: commits of other programs have none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitNote {
    /// The attempt that made the commit: a run, or the upkeep of the table. No two commits share one.
    pub attempt: String,
    /// The last run whose rows the table has.
    pub run: String,
    /// The hash of the model that labelled that run's rows.
    pub model: String,
    /// Rows that the commit added.
    #[serde(default)]
    pub rows: u64,
    /// Rows that were left out, because the table had their keys.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_rows: u64,
    /// The clusters that the rows of this version have, where the pipeline makes clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<FileBeside>,
    /// Means and deviations of the features by cluster, if they were computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<FileBeside>,
    /// A sample of rows for the report, if one was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<FileBeside>,
    /// What became of the table's clusters so far; absent where it never had any, and in versions of an older dacpipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<FileBeside>,
    /// How far rows had drifted, in the newest measurements; absent where it was never measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<FileBeside>,
    /// The file of rows that this commit's run set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// The version of the commit before this one, since the last overwrite, whose run set rows aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_before: Option<u64>,
    /// Where the rows came from.
    #[serde(default)]
    pub source: SourceInfo,
    /// How far the stream was that follows its source into the table, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamNote>,
}

impl CommitNote {
    /// The files beside the rows that it names.
    pub(super) fn files_beside(&self) -> impl Iterator<Item = &FileBeside> {
        let state = self.stream.as_ref().map(|stream| &stream.state);
        [&self.clusters, &self.profile, &self.sample, &self.lineage, &self.drift].into_iter().flatten().chain(state)
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
