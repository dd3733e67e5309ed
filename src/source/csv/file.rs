//! An open CSV file: its header, and its lines one after the other.

use std::io::BufRead;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::common::ScalarValue;

use super::CsvSpec;
use super::piece::Sample;
use super::turns::Turns;
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::keep::{Cell, Keep};
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::text::number;

/// A file of which the header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Columns,
    record: ByteRecord,
    /// The first line, if it is not a header and not yet read.
    first: Option<ByteRecord>,
    /// Whether recordings take turns, if that is known.
    turns: Option<bool>,
    /// In which order lines are read, once one was asked for.
    order: Option<Turns>,
    rows: u64,
}

/// Where the columns are.
#[derive(Debug)]
struct Columns {
    width: usize,
    channels: Vec<usize>,
    keys: Vec<usize>,
    time: Option<usize>,
    label: Option<usize>,
    split: Option<usize>,
    keep: Vec<usize>,
    names: Vec<String>,
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
        let first = (!spec.has_header).then(|| std::mem::take(&mut record));
        let turns = if spec.keys.is_empty() { Some(false) } else { spec.interleaved };
        Ok(Self { name, below, reader, columns, record, first, turns, order: None, rows: 0 })
    }

    /// Reads the next line into `record`. False at the end.
    pub(super) fn advance(&mut self) -> csv::Result<bool> {
        let Self { reader, columns, first, .. } = self;
        let mut read = |line: &mut ByteRecord| match first.take() {
            Some(first) => {
                *line = first;
                Ok(true)
            }
            None => reader.read_byte_record(line),
        };
        let order = match &mut self.order {
            Some(order) => order,
            none => {
                let id = |line: &ByteRecord| columns.id(line).ok();
                let order = Turns::of(&mut read, &id, self.turns);
                none.insert(order.map_err(|e| csv::Error::from(std::io::Error::other(e)))?)
            }
        };
        let more = order.next(read, &mut self.record)?;
        self.rows += u64::from(more);
        Ok(more)
    }

    /// The time of the next line and what identifies its recording; inside, `None` for a bad line.
    pub(super) fn next_time(&mut self) -> Option<Option<(f64, Vec<u8>)>> {
        if !matches!(self.advance(), Ok(true)) {
            return None;
        }
        let id = self.id();
        let time = self.columns.time.and_then(|c| self.record.get(c)).and_then(|t| number(t.trim_ascii()).ok());
        Some(time.zip(id.ok()))
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
        self.columns.id(&self.record)
    }

    /// The part of the data that the line belongs to; empty is none.
    pub(super) fn split(&self) -> &[u8] {
        self.columns.split.map_or(&[], |s| self.field(s))
    }

    /// What is wrong with the line if its recording was over before it.
    pub(super) fn comes_back(&self) -> String {
        let Columns { keys, names, time, .. } = &self.columns;
        let recording: Vec<_> = keys.iter().map(|&k| format!("{}={}", names[k], shown(self.field(k)))).collect();
        let by: Vec<_> = keys.iter().chain(time).map(|&c| names[c].as_str()).collect();
        format!(
            "{} comes back here after lines of other recordings, expected the lines of one recording to lie together; \
             sort the file by {}, or say interleaved = true",
            recording.join(", "),
            by.join(", then by ")
        )
    }

    pub(super) fn constants(&self) -> Vec<ScalarValue> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut values: Vec<_> = self.columns.keys.iter().map(|&k| Some(text(self.field(k)))).collect();
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

    /// Reads the numbers of the line into `sample`.
    pub(super) fn sample(&self, sample: &mut Sample) -> Result<(), String> {
        let named = |column: usize| {
            let wrong = |e| format!("column {:?}: {e}, expected a finite number", self.columns.names[column]);
            number(self.field(column)).map_err(wrong)
        };
        sample.values.clear();
        for &channel in &self.columns.channels {
            sample.values.push(named(channel)?);
        }
        sample.time = match self.columns.time {
            Some(time) => Some(named(time)?),
            None => None,
        };
        Ok(())
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
    /// The bytes of the keys of `line`, or what is wrong with it.
    fn id(&self, line: &ByteRecord) -> Result<Vec<u8>, String> {
        let (found, width) = (line.len(), self.width);
        if found != width {
            let line = line.iter().collect::<Vec<_>>().join(&b","[..]);
            return Err(format!("{found} fields, expected {width}: {}", shown(&line)));
        }
        let mut id = Vec::new();
        for &key in &self.keys {
            let value = line.get(key).unwrap_or_default().trim_ascii();
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", self.names[key]));
            }
            id.extend_from_slice(value);
            id.push(0);
        }
        Ok(id)
    }

    fn find(file: &str, names: Vec<String>, spec: &CsvSpec) -> Result<Self> {
        let find = |name: &String| {
            let at = names.iter().position(|n| n == name);
            at.ok_or_else(|| no_column(file, name, names.iter().map(String::as_str)))
        };
        Ok(Self {
            width: names.len(),
            channels: spec.channels.iter().map(find).collect::<Result<_>>()?,
            keys: spec.keys.iter().map(find).collect::<Result<_>>()?,
            time: spec.time.as_ref().map(|t| find(&t.column)).transpose()?,
            label: spec.label.as_ref().map(find).transpose()?,
            split: spec.split.as_ref().map(find).transpose()?,
            keep: spec.keep.iter().map(|keep| find(&keep.column)).collect::<Result<_>>()?,
            names,
        })
    }
}
