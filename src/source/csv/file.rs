//! An open CSV file: its header, and its lines one after the other.

use std::io::BufRead;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::common::ScalarValue;

use super::piece::Sample;
use super::table::{TableRows, is_table};
use super::turns::Turns;
use super::{CsvSpec, FILE, Fill};
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::clock::{Clock, Stamp};
use crate::source::keep::{Cell, Keep};
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::text::number;
use crate::source::times::Times;

/// A file of which the header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    reader: Rows,
    columns: Columns,
    clock: Clock,
    /// Whether an empty channel holds its last value.
    holds: bool,
    record: ByteRecord,
    /// The first line, if it is not a header and not yet read.
    first: Option<ByteRecord>,
    /// Whether recordings take turns, if that is known.
    takes_turns: Option<bool>,
    /// The order of lines, once one was asked for.
    turns: Option<Turns>,
    rows: u64,
}

/// What gives the lines.
enum Rows {
    Text(Box<Reader<Box<dyn BufRead + Send>>>),
    Table(Box<TableRows>),
}

impl Rows {
    fn read(&mut self, line: &mut ByteRecord) -> csv::Result<bool> {
        match self {
            Self::Text(reader) => reader.read_byte_record(line),
            Self::Table(rows) => Ok(rows.read(line)?),
        }
    }
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
    keep: Vec<usize>,
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
        if is_table(file) {
            let rows = TableRows::open(file, spec)?;
            let names = rows.names();
            return Self::of(file, spec, Rows::Table(Box::new(rows)), names, None);
        }
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
        let first = (!spec.has_header).then_some(record);
        Self::of(file, spec, Rows::Text(Box::new(reader)), names, first)
    }

    /// `file`, whose columns are `names`, and whose lines are `first`, if there is one, and those of `reader`.
    fn of(
        file: &DataFile,
        spec: &CsvSpec,
        reader: Rows,
        names: Vec<String>,
        first: Option<ByteRecord>,
    ) -> Result<Self> {
        let columns = Columns::find(file.name(), names, spec)?;
        let (name, below) = (file.name().into(), file.below().to_string());
        let clock = spec.clock()?;
        let holds = spec.rules.fill == Fill::Hold;
        let takes_turns = if spec.keys.is_empty() { Some(false) } else { spec.interleaved };
        let record = ByteRecord::new();
        Ok(Self { name, below, reader, columns, clock, holds, record, first, takes_turns, turns: None, rows: 0 })
    }

    /// The same, whose lines come as they are written, also where recordings take turns.
    pub(super) fn as_written(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        Ok(Self { takes_turns: Some(false), ..Self::new(file, spec)? })
    }

    /// Reads the next line into `record`. False at the end.
    pub(super) fn advance(&mut self) -> csv::Result<bool> {
        let Self { reader, columns, below, first, .. } = self;
        let mut read = |line: &mut ByteRecord| match first.take() {
            Some(first) => {
                *line = first;
                Ok(true)
            }
            None => reader.read(line),
        };
        let turns = match &mut self.turns {
            Some(turns) => turns,
            none => {
                let id = |line: &ByteRecord| columns.id(line, below).ok();
                let turns = Turns::of(&mut read, &id, self.takes_turns);
                none.insert(turns.map_err(|e| csv::Error::from(std::io::Error::other(e)))?)
            }
        };
        let more = turns.next(read, &mut self.record)?;
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
        self.columns.id(&self.record, &self.below)
    }

    /// The part of the data that the line belongs to; empty is none.
    pub(super) fn split(&self) -> &[u8] {
        self.columns.split.map_or(&[], |s| self.field(s))
    }

    fn key(&self, key: Key) -> &[u8] {
        self.columns.key(key, &self.record, &self.below)
    }

    /// The keys and their values, for messages.
    fn recording(&self) -> String {
        let keys = self.columns.keys.iter();
        let keys: Vec<_> = keys.map(|&k| format!("{}={}", self.columns.key_name(k), shown(self.key(k)))).collect();
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
             sort the file by {}, or say interleaved = true",
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

    /// Reads what the line has in the columns `keep` of the source that are carried along.
    pub(super) fn keep(&self, keep: &[Keep], cells: &mut Vec<Cell>) -> Result<(), String> {
        cells.resize_with(keep.len(), Cell::default);
        for ((keep, cell), &column) in keep.iter().zip(cells).zip(&self.columns.keep) {
            keep.read(&String::from_utf8_lossy(self.field(column)), cell)?;
        }
        Ok(())
    }

    /// What the time of the line counts from; none if it cannot be read.
    pub(super) fn times(&self) -> Option<Times> {
        let (column, stamp) = self.columns.time.zip(self.time().ok()?)?;
        Some(match number(self.field(column)) {
            Err(_) if stamp.of_day => Times::Unknown,
            Err(_) => Times::Epoch,
            Ok(_) => Times::beginning_with(stamp.ns),
        })
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
    /// The bytes of the keys of `line`, of the file `below`, or what is wrong with it.
    fn id(&self, line: &ByteRecord, below: &str) -> Result<Vec<u8>, String> {
        let (found, width) = (line.len(), self.width);
        if found != width {
            let line = line.iter().collect::<Vec<_>>().join(&b","[..]);
            return Err(format!("{found} fields, expected {width}: {}", shown(&line)));
        }
        let mut id = Vec::new();
        for &key in &self.keys {
            let value = self.key(key, line, below);
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", self.key_name(key)));
            }
            id.extend_from_slice(value);
            id.push(0);
        }
        Ok(id)
    }

    fn key<'a>(&self, key: Key, line: &'a ByteRecord, below: &'a str) -> &'a [u8] {
        match key {
            Key::Column(column) => line.get(column).unwrap_or_default().trim_ascii(),
            Key::File => below.as_bytes(),
        }
    }

    fn key_name(&self, key: Key) -> &str {
        match key {
            Key::Column(column) => &self.names[column],
            Key::File => FILE,
        }
    }

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
            keep: spec.keep.iter().map(|keep| find(&keep.column)).collect::<Result<_>>()?,
            names,
        })
    }
}
