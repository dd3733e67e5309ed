//! One entry of a log: what a commit did.

use bytes::Bytes;
use deltalake_core::kernel::{Add, Remove, StructType};
use object_store::path::Path;
use serde_json::Value;

use super::attempt::{data_dir, quarantine_dir, staging_dir};
use super::commit::{CommitNote, Mode, NOTE};
use super::log::DIRECTORY;
use super::stats::ColumnRange;
use crate::error::{Error, Result};

/// One commit of a log.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The version that it made.
    pub version: u64,
    /// Its time by the writer's clock, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// What was done, in Delta's words: WRITE, OPTIMIZE, RESTORE.
    pub operation: String,
    /// The writer: program and version.
    pub engine: Option<String>,
    /// The files that it added.
    pub added: Vec<Add>,
    /// The files that it removed.
    pub removed: Vec<Remove>,
    /// The note of dacpipe in it.
    pub note: Option<CommitNote>,
    mode: Option<Mode>,
}

impl Commit {
    /// What a write did to the existing rows; `None` if the commit was not a write.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether it is the commit of attempt `id`.
    pub(super) fn is_by(&self, id: &str) -> bool {
        self.note.as_ref().is_some_and(|note| note.attempt == id)
    }

    /// The number of rows in the files that it added, if it says so.
    pub fn rows(&self) -> Option<u64> {
        let rows = |add: &Add| ColumnRange::from_delta(add.stats.as_deref().unwrap_or_default()).ok()?.0;
        self.added.iter().map(rows).sum()
    }
}

/// The operation's metrics, under the names that other engines use.
pub(super) fn metrics(actions: &[Value]) -> Value {
    let (mut files, mut bytes, mut rows, mut removed) = (0, 0, 0, 0);
    for action in actions {
        if let Some(add) = action.get("add") {
            files += 1;
            bytes += add["size"].as_u64().unwrap_or(0);
            let stats = add["stats"].as_str().and_then(|stats| ColumnRange::from_delta(stats).ok());
            rows += stats.and_then(|(rows, _)| rows).unwrap_or(0);
        }
        removed += u64::from(action.get("remove").is_some());
    }
    let text = |n: String| Value::String(n);
    let figures = [
        ("numFiles", text(files.to_string())),
        ("numOutputBytes", text(bytes.to_string())),
        ("numOutputRows", text(rows.to_string())),
        ("numRemovedFiles", text(removed.to_string())),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
}

/// Parses a commit's entry: one JSON object per line, each with one action.
pub(super) fn parse(version: u64, bytes: &Bytes) -> Result<Commit> {
    let mut commit = Commit {
        version,
        timestamp: None,
        operation: "WRITE".into(),
        engine: None,
        added: Vec::new(),
        removed: Vec::new(),
        note: None,
        mode: None,
    };
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let bad = |e: serde_json::Error| Error::table(format!("line {} is no action", number + 1)).with_source(e);
        let mut action: serde_json::Map<String, Value> = serde_json::from_slice(line).map_err(bad)?;
        if let Some(schema) = action.get("metaData").and_then(|table| table["schemaString"].as_str()) {
            serde_json::from_str::<StructType>(schema).map_err(bad)?;
        }
        if let Some(add) = action.remove("add") {
            commit.added.push(serde_json::from_value(add).map_err(bad)?);
        } else if let Some(remove) = action.remove("remove") {
            commit.removed.push(serde_json::from_value(remove).map_err(bad)?);
        } else if let Some(mut info) = action.remove("commitInfo") {
            let text = |name: &str| info.get(name).and_then(Value::as_str).map(str::to_owned);
            commit.timestamp = info.get("timestamp").and_then(Value::as_i64);
            commit.engine = text("clientVersion").filter(|by| by.starts_with("dacpipe")).or_else(|| text("engineInfo"));
            commit.operation = text("operation").unwrap_or(commit.operation);
            let mode = info.get("operationParameters").and_then(|given| given.get("mode")).and_then(Value::as_str);
            commit.mode = match mode {
                Some("Append") => Some(Mode::Append),
                Some("Overwrite") => Some(Mode::Overwrite),
                _ => None,
            };
            let note = info.get_mut(NOTE).map(Value::take);
            commit.note = note.map(serde_json::from_value).transpose().map_err(bad)?;
        }
    }
    if let Some(note) = &commit.note {
        for path in note.files_beside().chain(&note.quarantine).map(|file| &file.path) {
            if !is_inside(path) {
                return Err(Error::table(format!("{path:?} is no path of a file of the table")));
            }
        }
    }
    Ok(commit)
}

/// Whether a path in a log is inside the table.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.contains("://") && !path.starts_with('/') && Path::parse(path).is_ok()
}

/// The file of the entry that makes `version`.
pub(super) fn file_name(version: u64) -> String {
    format!("{DIRECTORY}/{version:020}.json")
}

/// The files of one attempt that a commit names: its data files among `actions`, and those beside them.
pub(super) fn files_of(attempt: &str, actions: &[Value], note: &CommitNote) -> Vec<String> {
    let own = [data_dir(attempt), staging_dir(attempt), quarantine_dir(attempt)].map(|dir| dir + "/");
    let added = actions.iter().filter_map(|action| action["add"]["path"].as_str()).map(decoded);
    let named = note.files_beside().chain(&note.quarantine).map(|file| file.path.clone());
    added.chain(named).filter(|path| own.iter().any(|dir| path.starts_with(dir))).collect()
}

/// Decodes a path of the log to the file's path; invalid encodings stay as they are.
pub(super) fn decoded(logged: &str) -> String {
    let bytes = logged.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::commit::FileBeside;

    #[test]
    fn names_of_entries_sort_as_their_versions() {
        assert_eq!(file_name(7), "_delta_log/00000000000000000007.json");
    }

    #[test]
    fn a_commit_names_the_files_of_its_attempt() {
        let add = |path: &str| serde_json::json!({ "add": { "path": path } });
        let actions = [add("data/r/a%3D1/part-00000.parquet"), add("data/q/part-00000.parquet"), add("data/rr/part.x")];
        let beside = |path: &str| Some(FileBeside { path: path.into(), bytes: 0, rows: 0, crc32: None });
        let note = CommitNote {
            clusters: beside("_dacpipe/r/clusters.parquet"),
            profile: beside("_dacpipe/q/profile.parquet"),
            ..serde_json::from_value(serde_json::json!({ "attempt": "r", "run": "r", "model": "m" })).unwrap()
        };
        let files = ["data/r/a=1/part-00000.parquet", "_dacpipe/r/clusters.parquet"];
        assert_eq!(files_of("r", &actions, &note), files);
    }

    #[test]
    fn encoded_paths_are_those_of_files() {
        for (logged, path) in
            [("a/b.parquet", "a/b.parquet"), ("x%3D%20y", "x= y"), ("100%", "100%"), ("%zz%2", "%zz%2")]
        {
            assert_eq!(decoded(logged), path);
        }
    }
}
