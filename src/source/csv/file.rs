//! An open CSV file: its header, and its lines one after the other.

use std::io::BufRead;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::common::ScalarValue;

use super::piece::Sample;
use super::{CsvSpec, FILE, Fill};
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::clock::{Clock, Stamp};
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::text::number;

/// A file of which the header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Columns,
    clock: Clock,
    /// Whether an empty channel holds its last value.
    holds: bool,
    record: ByteRecord,
    /// Whether `record` holds the first line, which is not a header.
    pending: bool,
    rows: u64,
}

/// Where the columns are.
#[derive(Debug)]
struct Columns {
    width: usize,
    channels: Vec<usize>,
    keys: Vec<Key>,
    time: Option<usize>,
    label: Option<usize>,
    split: Option<usize>,
    names: Vec<String>,
}

/// Where a key's value is.
#[derive(Debug, Clone, Copy)]
enum Key {
    Column(usize),
    /// The file's name, as it has no column of the name `file`.
    File,
}

impl OpenFile {
    /// Opens `file` and finds the columns that `spec` names. Blocks.
    ///
    /// # Errors
    /// Kind `Input` if it is missing, empty or damaged, or lacks a column; `Io` if it cannot be read.
    pub(super) fn new(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        let mut reader = ReaderBuilder::new()
            .delimiter(spec.delimiter as u8)
            .has_headers(false)
            .flexible(true)
            .from_reader(file.open()?);
        let mut record = ByteRecord::new();
        let read = reader.read_byte_record(&mut record).map_err(|e| unreadable(file, e, ""))?;
        if !read {
            return Err(Error::input(format!("{}: empty, expected lines of comma-separated values", file.name())));
        }
        let names: Vec<String> = match spec.has_header {
            true => record.iter().map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned()).collect(),
            false => (1..=record.len()).map(|i| format!("column_{i}")).collect(),
        };
        let columns = Columns::find(file.name(), names, spec)?;
        let (name, below) = (file.name().into(), file.below().to_string());
        let clock = spec.clock()?;
        let holds = spec.rules.fill == Fill::Hold;
        Ok(Self { name, below, reader, columns, clock, holds, record, pending: !spec.has_header, rows: 0 })
    }

    /// Reads the next line into `record`. False at the end.
    pub(super) fn advance(&mut self) -> csv::Result<bool> {
        let more = std::mem::take(&mut self.pending) || self.reader.read_byte_record(&mut self.record)?;
        self.rows += u64::from(more);
        Ok(more)
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The lines read so far, the header apart.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The label of the line; empty is none.
    pub(super) fn label(&self) -> &[u8] {
        self.columns.label.map_or(&[], |c| self.field(c))
    }

    fn field(&self, column: usize) -> &[u8] {
        self.record.get(column).unwrap_or_default().trim_ascii()
    }

    /// The bytes of the keys, or what is wrong with the line.
    pub(super) fn id(&self) -> Result<Vec<u8>, String> {
        let (found, width) = (self.record.len(), self.columns.width);
        if found != width {
            let line = self.record.iter().collect::<Vec<_>>().join(&b","[..]);
            return Err(format!("{found} fields, expected {width}: {}", shown(&line)));
        }
        let mut id = Vec::new();
        for &key in &self.columns.keys {
            let value = self.key(key);
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", self.key_name(key)));
            }
            id.extend_from_slice(value);
            id.push(0);
        }
        Ok(id)
    }

    /// The part of the data that the line belongs to; empty is none.
    pub(super) fn split(&self) -> &[u8] {
        self.columns.split.map_or(&[], |s| self.field(s))
    }

    fn key(&self, key: Key) -> &[u8] {
        match key {
            Key::Column(column) => self.field(column),
            Key::File => self.below.as_bytes(),
        }
    }

    fn key_name(&self, key: Key) -> &str {
        match key {
            Key::Column(column) => &self.columns.names[column],
            Key::File => FILE,
        }
    }

    /// The keys and their values, for messages.
    fn recording(&self) -> String {
        let keys = self.columns.keys.iter();
        let keys: Vec<_> = keys.map(|&k| format!("{}={}", self.key_name(k), shown(self.key(k)))).collect();
        keys.join(", ")
    }

    /// What is wrong with the line if its recording was over before it.
    pub(super) fn comes_back(&self) -> String {
        let Columns { keys, names, time, .. } = &self.columns;
        let keys = keys.iter().filter_map(|key| match key {
            Key::Column(column) => Some(*column),
            Key::File => None,
        });
        let by: Vec<_> = keys.chain(*time).map(|c| names[c].as_str()).collect();
        format!(
            "{} comes back here after lines of other recordings, expected the lines of one recording to lie together; \
             sort the file by {}",
            self.recording(),
            by.join(", then by ")
        )
    }

    /// What is wrong with the line if its recording is in another file, `earlier`, too.
    pub(super) fn in_two_files(&self, earlier: &str) -> String {
        format!(
            "{} is a recording of {earlier}, too, and (keys, start) would not be unique; across_files = \"continue\" lets \
             recordings go on from file to file, \"file\" among the keys tells them apart",
            self.recording()
        )
    }

    pub(super) fn constants(&self) -> Vec<ScalarValue> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut values: Vec<_> = self.columns.keys.iter().map(|&k| Some(text(self.key(k)))).collect();
        if values.is_empty() {
            values.push(Some(self.below.clone()));
        }
        values.extend(self.columns.split.map(|s| Some(text(self.field(s))).filter(|s| !s.is_empty())));
        values.into_iter().map(ScalarValue::Utf8).collect()
    }

    /// Reads the numbers of the line into `sample`. A channel that holds its last value is NaN.
    pub(super) fn sample(&self, sample: &mut Sample) -> Result<(), String> {
        sample.values.clear();
        for &channel in &self.columns.channels {
            let field = self.field(channel);
            sample.values.push(match self.holds && (field.is_empty() || field.eq_ignore_ascii_case(b"nan")) {
                true => f64::NAN,
                false => number(field).map_err(|e| self.wrong(channel, &format!("{e}, expected a finite number")))?,
            });
        }
        sample.time = self.time()?;
        Ok(())
    }

    /// The time of the line, where there is a column of times.
    pub(super) fn time(&self) -> Result<Option<Stamp>, String> {
        let Some(column) = self.columns.time else { return Ok(None) };
        self.clock.read(self.field(column)).map(Some).map_err(|e| self.wrong(column, &e))
    }

    fn wrong(&self, column: usize, what: &str) -> String {
        format!("column {:?}: {what}", self.columns.names[column])
    }

    pub(super) fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }
}

pub(super) fn unreadable(file: &DataFile, e: csv::Error, after: &str) -> Error {
    match e.into_kind() {
        csv::ErrorKind::Io(e) => file.unreadable_after(e, after),
        other => Error::input(format!("{}: {other:?}{after}", file.name())),
    }
}

impl Columns {
    fn find(file: &str, names: Vec<String>, spec: &CsvSpec) -> Result<Self> {
        let find = |name: &String| {
            let at = names.iter().position(|n| n == name);
            at.ok_or_else(|| no_column(file, name, names.iter().map(String::as_str)))
        };
        let key = |name: &String| match names.contains(name) || name != FILE {
            true => find(name).map(Key::Column),
            false => Ok(Key::File),
        };
        Ok(Self {
            width: names.len(),
            channels: spec.channels.iter().map(find).collect::<Result<_>>()?,
            keys: spec.keys.iter().map(key).collect::<Result<_>>()?,
            time: spec.time.as_ref().map(|t| find(&t.column)).transpose()?,
            label: spec.label.as_ref().map(find).transpose()?,
            split: spec.split.as_ref().map(find).transpose()?,
            names,
        })
    }
}
