//! The actions of a Delta log for files: each is a line of JSON.

use deltalake_core::kernel::{Action, Add};
use serde_json::{Value, json};

use super::checksum::TAG;
use super::log::DataFile;
use super::stats::ColumnRange;
use crate::error::{Error, Result};

/// An action as a line of the log.
pub(super) fn line(action: &Action) -> Result<Value> {
    serde_json::to_value(action).map_err(|e| Error::internal("an action that is no JSON").with_source(e))
}

/// Adds the file to the table. `changes` says whether its rows are new there.
pub(super) fn add_of(file: &DataFile, now: i64, changes: bool) -> Result<Value> {
    line(&Action::Add(Add {
        path: file.path.clone(),
        partition_values: file.partition.clone().into_iter().collect(),
        size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
        modification_time: now,
        data_change: changes,
        stats: Some(ColumnRange::to_delta(file.rows, &file.columns)),
        tags: file.checksums.as_ref().map(|sums| [(TAG.to_owned(), Some(sums.to_text()))].into()),
        ..Add::default()
    }))
}

/// Removes the file from the table; it stays on disk for readers of earlier versions. Its path is spelled as in the
/// log, since engines encode names differently and the log identifies files by their spelling.
pub(super) fn remove_of(file: &DataFile, now: i64, changes: bool) -> Value {
    json!({ "remove": {
        "path": file.logged,
        "dataChange": changes,
        "deletionTimestamp": now,
        "extendedFileMetadata": true,
        "partitionValues": file.partition,
        "size": file.bytes,
    } })
}
