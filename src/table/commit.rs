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
    /// Its path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
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
    /// The rows that this commit's run set aside: a file of the quarantine.
    #[serde(default, deserialize_with = "file_or_path", skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<FileBeside>,
    /// The version of the commit before this one, since the last overwrite, whose run set rows aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_before: Option<u64>,
    /// The rows of the quarantine that this commit's run replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<FileBeside>,
    /// The last run that replayed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replay: Option<String>,
    /// In the quarantine of a table: up to which of the table's versions it has what they set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
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
        let files = [&self.clusters, &self.profile, &self.sample, &self.lineage, &self.drift, &self.replayed];
        files.into_iter().flatten().chain(state)
    }
}

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The id of the table, which another table in its place does not have.
    pub table: String,
    /// The version.
    pub version: u64,
}

/// A file, or its path alone, as an older dacpipe wrote it.
fn file_or_path<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<FileBeside>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Path(String),
        File(FileBeside),
    }
    Ok(Option::<Either>::deserialize(from)?.map(|either| match either {
        Either::Path(path) => FileBeside { path, bytes: 0, rows: 0, crc32: None },
        Either::File(file) => file,
    }))
}

impl CommitNote {
    /// A note that says nothing yet.
    pub(super) fn empty() -> Self {
        Self {
            attempt: String::new(),
            run: String::new(),
            model: String::new(),
            rows: 0,
            skipped_rows: 0,
            clusters: None,
            profile: None,
            sample: None,
            lineage: None,
            drift: None,
            quarantine: None,
            quarantined_before: None,
            replayed: None,
            last_replay: None,
            published: None,
            source: SourceInfo::default(),
            stream: None,
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older dacpipe named a file of its own format by its path.
    #[test]
    fn the_quarantine_of_an_older_note_is_a_path() {
        let older = r#"{ "attempt": "r", "run": "r", "model": "m", "quarantine": "quarantine/r.parquet" }"#;
        let note: CommitNote = serde_json::from_str(older).unwrap();
        let file = note.quarantine.clone().unwrap();
        assert_eq!((file.path.as_str(), file.crc32.is_none()), ("quarantine/r.parquet", true));
        let again: CommitNote = serde_json::from_str(&serde_json::to_string(&note).unwrap()).unwrap();
        assert_eq!(again, note);
        let without: CommitNote = serde_json::from_str(r#"{ "attempt": "r", "run": "r", "model": "m" }"#).unwrap();
        assert_eq!(without.quarantine, None);
    }
}
