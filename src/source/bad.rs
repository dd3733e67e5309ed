//! What happens to a row that cannot be used: it is an error, or it is listed in the quarantine table.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Kind, Result};
use crate::secret::redacted;

/// What happens to a row that cannot be read: text for a number, NaN, infinity, a missing value.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The run ends with an error that names file, line and value.
    #[default]
    Fail,
    /// The row goes to a table of bad rows, with file, line and reason, and the run goes on.
    Quarantine,
}

/// A row that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The file it is in.
    pub file: String,
    /// Its line (text) or row (Parquet), counted from 1; 0 for the file as a whole.
    pub line: u64,
    /// What was found and what would be accepted.
    pub reason: String,
}

/// The bad rows found so far. A row is listed once, however often its file is read.
#[derive(Debug, Default)]
pub struct BadRows {
    rows: Mutex<BTreeMap<(String, u64), String>>,
}

impl BadRows {
    /// How many rows are listed before reading gives up. A longer list means that the file is in another format than
    /// assumed, and would take unbounded memory.
    pub const LIMIT: usize = 100_000;

    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of rows listed.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True if no row is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows, by file and line.
    pub fn rows(&self) -> Vec<BadRow> {
        let bad = |((file, line), reason): (&(String, u64), &String)| BadRow {
            file: file.clone(),
            line: *line,
            reason: reason.clone(),
        };
        self.lock().iter().map(bad).collect()
    }

    /// The first row, by file and line.
    pub fn first(&self) -> Option<BadRow> {
        let rows = self.lock();
        let ((file, line), reason) = rows.first_key_value()?;
        Some(BadRow { file: file.clone(), line: *line, reason: reason.clone() })
    }

    /// The schema of [`to_batch`](Self::to_batch): `file`, `line`, `reason`.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("file", DataType::Utf8, false),
            Field::new("line", DataType::UInt64, false),
            Field::new("reason", DataType::Utf8, false),
        ]))
    }

    /// The rows as a record batch, by file and line.
    ///
    /// # Errors
    /// None in practice: the arrays always fit the schema.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let rows = self.rows();
        let files = StringArray::from_iter_values(rows.iter().map(|r| &r.file));
        let lines = UInt64Array::from_iter_values(rows.iter().map(|r| r.line));
        let reasons = StringArray::from_iter_values(rows.iter().map(|r| &r.reason));
        Ok(RecordBatch::try_new(Self::schema(), vec![Arc::new(files), Arc::new(lines), Arc::new(reasons)])?)
    }

    // The map is consistent at every moment, so a panic elsewhere while it was locked changes nothing.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, u64), String>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The policy for bad rows, and the list that they go to under quarantine.
#[derive(Debug, Clone)]
pub struct Rejects {
    policy: OnBadRow,
    bad: Arc<BadRows>,
}

impl Rejects {
    /// Under `policy`, rejected rows are an error or go to `bad`.
    pub fn new(policy: OnBadRow, bad: Arc<BadRows>) -> Self {
        Self { policy, bad }
    }

    /// Whether bad rows are left out. Every scan must then check all values, whatever columns it asks for, so that all
    /// scans leave out the same rows.
    pub fn leaves_out(&self) -> bool {
        self.policy == OnBadRow::Quarantine
    }

    /// The first row that was left out, for messages: its place and what is wrong with it.
    pub fn first(&self) -> Option<String> {
        let BadRow { file, line, reason } = self.bad.first()?;
        Some(format!("{}: {reason}", place(&file, line)))
    }

    /// Records that line `line` of `file` (0: all of it) cannot be used.
    ///
    /// # Errors
    /// Kind `Input`: always under [`OnBadRow::Fail`], and once [`BadRows::LIMIT`] rows are listed.
    pub fn reject(&self, file: &str, line: u64, reason: impl Into<String>) -> Result<()> {
        // The name of a file may be a URL that contains a secret. Errors redact themselves; the list does not.
        let (reason, file) = (redacted(&reason.into()).into_owned(), &*redacted(file));
        let place = place(file, line);
        if self.policy == OnBadRow::Fail {
            return Err(Error::input(format!("{place}: {reason}")));
        }
        let mut rows = self.bad.lock();
        let listed = rows.len();
        // A later pass finds the same rows again; they are not counted again.
        if let Entry::Vacant(entry) = rows.entry((file.to_string(), line)) {
            if listed >= BadRows::LIMIT {
                let limit = BadRows::LIMIT;
                return Err(Error::input(format!("more than {limit} bad rows, the last at {place}: {reason}")));
            }
            entry.insert(reason);
        }
        Ok(())
    }
}

impl Rejects {
    /// Records that `file` cannot be used at all, because of `e`.
    ///
    /// # Errors
    /// As [`reject`](Self::reject); and `e` itself if it is not about the data (kind `Io`, say).
    pub fn reject_file(&self, file: &str, e: Error) -> Result<()> {
        if e.kind() != Kind::Input {
            return Err(e);
        }
        let reason = e.to_string();
        self.reject(file, 0, reason.strip_prefix(file).map_or(reason.as_str(), |r| r.trim_start_matches(": ")))
    }
}

fn place(file: &str, line: u64) -> String {
    if line == 0 { file.to_string() } else { format!("{file}:{line}") }
}

/// A value of the data as it can be shown in a message: one line, not too long.
pub fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 40;
    // A line may be a gigabyte; a character has at most four bytes.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * (LONGEST + 1))]);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?} (cut)", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_listed_once_and_in_order() {
        let bad = Arc::new(BadRows::new());
        let rejects = Rejects::new(OnBadRow::Quarantine, bad.clone());
        for (file, line) in [("b", 1), ("a", 12), ("a", 2), ("a", 12)] {
            rejects.reject(file, line, "two numbers, expected 3").unwrap();
        }
        let places: Vec<_> = bad.rows().into_iter().map(|r| (r.file, r.line)).collect();
        assert_eq!(places, [("a".into(), 2), ("a".into(), 12), ("b".into(), 1)]);
        assert_eq!(bad.to_batch().unwrap().num_rows(), 3);
    }

    #[test]
    fn fail_names_file_and_line() {
        let error = Rejects::new(OnBadRow::Fail, Arc::default()).reject("acc.txt", 7, "two numbers").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (crate::Kind::Input, "acc.txt:7: two numbers"));
    }

    #[test]
    fn the_list_is_bounded() {
        let rejects = Rejects::new(OnBadRow::Quarantine, Arc::default());
        let taken = (1..).take_while(|&line| rejects.reject("a", line, "").is_ok()).count();
        assert_eq!(taken, BadRows::LIMIT);
        // Another pass over the rows of a full list.
        assert!((1..=taken as u64).all(|line| rejects.reject("a", line, "").is_ok()));
        assert!(rejects.reject("a", 0, "").is_err());
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shown(b"a\nb"), r#""a\nb""#);
        assert!(shown("ü".repeat(100).as_bytes()).ends_with("(cut)"));
    }
}
