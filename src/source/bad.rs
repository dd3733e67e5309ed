//! What happens to a row that cannot be used: it is an error, or it is listed in the quarantine table.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, Int64Array, StringArray};
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

/// The most bytes that are kept of the text of a row.
pub const MOST_TEXT: usize = 1024;

/// The part of the pipeline that refused a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusedBy {
    /// Reading: a file, a line, a value, a time.
    #[default]
    Source,
    /// The features of a window.
    Features,
}

impl RefusedBy {
    /// Its name in the quarantine.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Features => "features",
        }
    }
}

/// What a row was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// The file as a whole.
    File,
    /// A line or a row: its fields or its values.
    #[default]
    Row,
    /// Its time, beside those of other rows.
    Time,
    /// Several rows, as they lie together.
    Stretch,
    /// The bytes of the file are damaged there.
    Damage,
    /// A feature of a window that is not finite.
    Feature,
}

impl Fault {
    /// Its name in the quarantine.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Row => "row",
            Self::Time => "time",
            Self::Stretch => "stretch",
            Self::Damage => "damage",
            Self::Feature => "feature",
        }
    }
}

/// A row as it is in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Raw {
    /// The byte at which it begins, in the decompressed file; `None` where that is not known, as in encodings other than
    /// UTF-8.
    pub offset: Option<u64>,
    /// Its text, cut off behind [`MOST_TEXT`] bytes; bytes that are no text are replaced by U+FFFD.
    pub text: String,
    /// The bytes of all of its text; `None` if it is not text.
    pub length: Option<u64>,
}

impl Raw {
    /// Whether nothing is known of it.
    pub fn is_empty(&self) -> bool {
        self.length.is_none()
    }

    /// Makes it empty.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        (self.offset, self.length) = (None, None);
    }

    /// Makes it the row of `length` bytes at `offset` that begins with `text`.
    pub(super) fn set(&mut self, offset: Option<u64>, text: &[u8], length: u64) {
        self.text.clear();
        let begin = &text[..text.len().min(MOST_TEXT)];
        match std::str::from_utf8(begin) {
            Ok(text) => self.text.push_str(text),
            // It is cut within a character.
            Err(e) if e.error_len().is_none() && begin.len() < text.len() => {
                self.text.push_str(&String::from_utf8_lossy(&begin[..e.valid_up_to()]));
            }
            Err(_) => self.text.push_str(&String::from_utf8_lossy(begin)),
        }
        (self.offset, self.length) = (offset, Some(length));
    }
}

/// A row that could not be used, or several that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The file it is in.
    pub file: String,
    /// Its line (text) or row (Parquet), counted from 1, or the first of several; 0 for the file as a whole.
    pub line: u64,
    /// What was found and what would be accepted.
    pub reason: String,
    /// How many rows of the file these are; `None` where that is not known.
    pub rows: Option<u64>,
    /// Who refused it.
    pub by: RefusedBy,
    /// What it was refused for.
    pub fault: Fault,
    /// The row as it is in its file, as far as that is known.
    pub raw: Raw,
}

/// Rows of a Parquet file that could not be read: the end of a row group, or all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// The first row of the row group, counted from 1 in the file.
    pub group: u64,
    /// The first row that was not read, counted likewise.
    pub first: u64,
    /// How many were not read.
    pub rows: u64,
    /// Where the damage is, and what it is.
    pub reason: String,
}

/// The bad rows found so far. A row is listed once, however often its file is read.
#[derive(Debug, Default)]
pub struct BadRows {
    listed: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    /// By file and line.
    rows: BTreeMap<(String, u64), Why>,
    /// By file and the first row of the row group.
    unread: BTreeMap<(String, u64), Unread>,
}

/// Why rows are set aside, and how many.
#[derive(Debug, Clone, Default)]
pub(super) struct Why {
    /// What was found and what would be accepted.
    pub(super) reason: String,
    /// How many rows; `None` where that is not known.
    pub(super) rows: Option<u64>,
    pub(super) by: RefusedBy,
    pub(super) fault: Fault,
    /// The row, or the first of several, as it is in its file.
    pub(super) raw: Raw,
}

impl Why {
    /// One row.
    pub(super) fn row(reason: impl Into<String>, raw: Raw) -> Self {
        Self { reason: reason.into(), rows: Some(1), raw, ..Self::default() }
    }
}

impl Listed {
    fn len(&self) -> usize {
        self.rows.len() + self.unread.len()
    }

    /// All of them, by file and line. A row that one pass found bad and another did not reach is among the latter only.
    fn all(&self) -> Vec<BadRow> {
        let not_reached = |(file, line): &(String, u64)| {
            let mut before = self.unread.range(..=(file.clone(), *line));
            let last = before.next_back().filter(|((of, _), _)| of == file);
            last.is_some_and(|(_, unread)| (unread.first..unread.first + unread.rows).contains(line))
        };
        let rows = self.rows.iter().filter(|(place, _)| self.unread.is_empty() || !not_reached(place));
        let rows = rows.map(|((file, line), why)| BadRow {
            file: file.clone(),
            line: *line,
            reason: why.reason.clone(),
            rows: why.rows,
            by: why.by,
            fault: why.fault,
            raw: why.raw.clone(),
        });
        let unread = self.unread.iter().map(|((file, _), unread)| BadRow {
            file: file.clone(),
            line: unread.first,
            reason: unread.reason.clone(),
            rows: Some(unread.rows),
            by: RefusedBy::Source,
            fault: Fault::Damage,
            raw: Raw::default(),
        });
        let mut all: Vec<BadRow> = rows.chain(unread).collect();
        all.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        all
    }
}

impl BadRows {
    /// How many entries are listed before reading gives up. A longer list means that the file is in another format than
    /// assumed, and would take unbounded memory.
    pub const LIMIT: usize = 100_000;

    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries of the list.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True if nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows the entries stand for. One whose number of rows is not known counts as one.
    pub fn count(&self) -> u64 {
        self.lock().all().iter().map(|bad| bad.rows.unwrap_or(1)).sum()
    }

    /// The entries, by file and line.
    pub fn rows(&self) -> Vec<BadRow> {
        self.lock().all()
    }

    /// The first entry, by file and line.
    pub fn first(&self) -> Option<BadRow> {
        self.lock().all().into_iter().next()
    }

    /// The schema of [`to_batch`](Self::to_batch): `file`, `line`, `reason`, `rows`, `offset`, `stage`, `kind`, `text`,
    /// `length`.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("file", DataType::Utf8, false),
            Field::new("line", DataType::Int64, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("rows", DataType::Int64, true),
            Field::new("offset", DataType::Int64, true),
            Field::new("stage", DataType::Utf8, false),
            Field::new("kind", DataType::Utf8, false),
            Field::new("text", DataType::Utf8, true),
            Field::new("length", DataType::Int64, true),
        ]))
    }

    /// The entries as a record batch, by file and line.
    ///
    /// # Errors
    /// None in practice: the arrays always fit the schema.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        Self::batch_of(&self.rows())
    }

    /// These entries as a record batch.
    ///
    /// # Errors
    /// As of [`to_batch`](Self::to_batch).
    pub fn batch_of(all: &[BadRow]) -> Result<RecordBatch> {
        let text =
            |of: fn(&BadRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(all.iter().map(of))) };
        let number = |of: fn(&BadRow) -> Option<u64>| -> ArrayRef {
            let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            Arc::new(Int64Array::from_iter(all.iter().map(|bad| of(bad).map(signed))))
        };
        let texts = all.iter().map(|bad| (!bad.raw.is_empty()).then_some(bad.raw.text.as_str()));
        let columns: Vec<ArrayRef> = vec![
            text(|bad| &bad.file),
            number(|bad| Some(bad.line)),
            text(|bad| &bad.reason),
            number(|bad| bad.rows),
            number(|bad| bad.raw.offset),
            text(|bad| bad.by.name()),
            text(|bad| bad.fault.name()),
            Arc::new(StringArray::from_iter(texts)),
            number(|bad| bad.raw.length),
        ];
        Ok(RecordBatch::try_new(Self::schema(), columns)?)
    }

    // The list is consistent at every moment, so a panic elsewhere while it was locked changes nothing.
    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a missing value of a row.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Its row is a bad row.
    #[default]
    Quarantine,
    /// It becomes the mean of its feature over the rows that are learned from.
    Mean,
    /// It becomes the last value of its channel in the recording.
    Last,
}

impl Missing {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The policy for bad rows, and the list that they go to under quarantine.
#[derive(Debug, Clone)]
pub struct Rejects {
    policy: OnBadRow,
    bad: Arc<BadRows>,
    missing: bool,
}

impl Rejects {
    /// Under `policy`, rejected rows are an error or go to `bad`.
    pub fn new(policy: OnBadRow, bad: Arc<BadRows>) -> Self {
        Self { policy, bad, missing: false }
    }

    /// The same; a missing value of a vector is no fault then.
    pub fn with_missing(self, missing: bool) -> Self {
        Self { missing, ..self }
    }

    /// Whether a missing value of a vector is NaN, rather than a fault.
    pub fn takes_missing(&self) -> bool {
        self.missing
    }

    /// Whether bad rows are left out. Every scan must then check all values, whatever columns it asks for, so that all
    /// scans leave out the same rows.
    pub fn leaves_out(&self) -> bool {
        self.policy == OnBadRow::Quarantine
    }

    /// The first row that was left out, for messages: its place and what is wrong with it.
    pub fn first(&self) -> Option<String> {
        let BadRow { file, line, reason, .. } = self.bad.first()?;
        Some(format!("{}: {reason}", place(&file, line)))
    }

    /// Records that line `line` of `file` (0: all of it) cannot be used.
    ///
    /// # Errors
    /// Kind `Input`: always under [`OnBadRow::Fail`], and once [`BadRows::LIMIT`] entries are listed.
    pub fn reject(&self, file: &str, line: u64, reason: impl Into<String>) -> Result<()> {
        self.reject_rows(file, line, (line > 0).then_some(1), reason)
    }

    /// Records that `rows` rows of `file` from `line` on (0: the whole file) cannot be used; `None` if it is not known
    /// how many there are.
    ///
    /// # Errors
    /// As [`reject`](Self::reject).
    pub fn reject_rows(&self, file: &str, line: u64, rows: Option<u64>, reason: impl Into<String>) -> Result<()> {
        let fault = match (line, rows) {
            (0, _) => Fault::File,
            (_, Some(1)) => Fault::Row,
            _ => Fault::Stretch,
        };
        self.reject_as(file, line, Why { reason: reason.into(), rows, fault, ..Why::default() })
    }

    /// Records that rows of `file` from `line` on cannot be used, and `why`.
    ///
    /// # Errors
    /// As [`reject`](Self::reject).
    pub(super) fn reject_as(&self, file: &str, line: u64, why: Why) -> Result<()> {
        // The name of a file may be a URL that contains a secret. Errors redact themselves; the list does not.
        let (reason, file) = (redacted(&why.reason).into_owned(), &*redacted(file));
        self.check(file, line, &reason)?;
        let mut listed = self.bad.lock();
        let many = listed.len();
        // A later pass finds the same rows again; they are not counted again.
        if let Entry::Vacant(entry) = listed.rows.entry((file.to_string(), line)) {
            has_room(many, file, line, &reason)?;
            entry.insert(Why { reason, ..why });
        }
        Ok(())
    }

    /// Records that rows of a row group of `file` could not be read.
    ///
    /// # Errors
    /// As [`reject`](Self::reject).
    pub(super) fn reject_unread(&self, file: &str, unread: Unread) -> Result<()> {
        let (reason, file) = (redacted(&unread.reason).into_owned(), &*redacted(file));
        let unread = Unread { reason, ..unread };
        // The reason names the rows.
        self.check(file, 0, &unread.reason)?;
        let mut listed = self.bad.lock();
        let many = listed.len();
        match listed.unread.entry((file.to_string(), unread.group)) {
            Entry::Vacant(entry) => {
                has_room(many, file, unread.first, &unread.reason)?;
                entry.insert(unread);
            }
            // Another pass reads other columns, and may come less far.
            Entry::Occupied(mut entry) if unread.rows > entry.get().rows => *entry.get_mut() = unread,
            Entry::Occupied(_) => {}
        }
        Ok(())
    }

    /// Records that `file` cannot be used at all, because of `e`.
    ///
    /// # Errors
    /// As [`reject`](Self::reject); and `e` itself if it is not about the data (kind `Io`, say).
    pub fn reject_file(&self, file: &str, e: Error) -> Result<()> {
        self.reject_file_of(file, None, e)
    }

    /// [`reject_file`](Self::reject_file) for one of so many rows, where that is known.
    ///
    /// # Errors
    /// As [`reject_file`](Self::reject_file).
    pub(super) fn reject_file_of(&self, file: &str, rows: Option<u64>, e: Error) -> Result<()> {
        match e.kind() {
            Kind::Input => self.reject_rows(file, 0, rows, without_name(&e, file)),
            _ => Err(e),
        }
    }

    /// # Errors
    /// Kind `Input` if bad rows are errors.
    fn check(&self, file: &str, line: u64, reason: &str) -> Result<()> {
        match self.policy {
            OnBadRow::Fail => Err(Error::input(format!("{}: {reason}", place(file, line)))),
            OnBadRow::Quarantine => Ok(()),
        }
    }
}

/// # Errors
/// Kind `Input` if the list has as many as `listed` entries and may have no more.
fn has_room(listed: usize, file: &str, line: u64, reason: &str) -> Result<()> {
    const LIMIT: usize = BadRows::LIMIT;
    match listed < LIMIT {
        true => Ok(()),
        false => Err(Error::input(format!("more than {LIMIT} bad rows, the last at {}: {reason}", place(file, line)))),
    }
}

/// The message of `e` without the name of `file` before it.
pub(super) fn without_name(e: &Error, file: &str) -> String {
    let message = e.to_string();
    message.strip_prefix(file).map_or(message.as_str(), |rest| rest.trim_start_matches(": ")).to_owned()
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
    fn rows_count_once_whichever_pass_does_not_reach_them() {
        let bad = Arc::new(BadRows::new());
        let rejects = Rejects::new(OnBadRow::Quarantine, bad.clone());
        let unread = |first, rows| Unread { group: 11, first, rows, reason: format!("from {first}") };
        for line in [0, 5, 10, 11, 18, 20, 21] {
            rejects.reject("b", line, "text").unwrap();
        }
        rejects.reject("a", 18, "text").unwrap();
        assert_eq!(bad.count(), 8);
        // Rows 18 and 20 are not reached by this pass, and not by the next; 21 is in another row group.
        for (first, rows) in [(19, 2), (15, 6), (19, 2)] {
            rejects.reject_unread("b", unread(first, rows)).unwrap();
        }
        let lines: Vec<_> = bad.rows().into_iter().map(|r| (r.file, r.line, r.rows)).collect();
        let row = |line| ("b".to_string(), line, Some(1));
        let expected = [
            ("a".into(), 18, Some(1)),
            ("b".into(), 0, None),
            row(5),
            row(10),
            row(11),
            ("b".into(), 15, Some(6)),
            row(21),
        ];
        assert_eq!(lines, expected);
        assert_eq!((bad.count(), bad.to_batch().unwrap().num_rows()), (6 + 6, 7));
        let e = Rejects::new(OnBadRow::Fail, Arc::default()).reject_unread("b", unread(15, 6)).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (crate::Kind::Input, "b: from 15"));
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
