//! An open CSV file: its columns, and its rows one after the other.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use datafusion::common::ScalarValue;

use super::CsvSpec;
use super::dialect::Delimiter;
use super::encoding::{Encoding, open_text, text};
use super::header::{Column, Columns};
use super::number::Numbers;
use super::piece::Sample;
use super::record::Record;
use super::records::Records;
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::location::DataFile;
use crate::source::text::number;

/// A file of which the header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    encoding: Encoding,
    records: Records,
    columns: Columns,
    numbers: Numbers,
    record: Record,
    /// The first row, if there is no header and it was not yet given.
    first: Option<Record>,
    rows: u64,
}

impl OpenFile {
    /// Opens `file` and finds the columns that `spec` names. Blocks.
    ///
    /// # Errors
    /// Kind `Input` if it is missing, empty, damaged or no text, or lacks a column; `Io` if it cannot be read.
    pub(super) fn new(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        let (input, encoding) = open_text(file, spec.dialect.encoding)?;
        let mut records = Records::new(input, &spec.dialect);
        let first = records.peek().map_err(|e| file.unreadable_after(e, " before its first row"))?;
        if let Some(said) = separator_line(&first) {
            if let Some(given) = spec.dialect.delimiter.filter(|given| *given != said) {
                return Err(Error::input(format!(
                    "{}: line 1 is \"sep={said}\", but delimiter = \"{given}\" in the pipeline, expected the two to agree; \
                     without the key, the file decides",
                    file.name()
                )));
            }
            records.set_delimiter(said);
            records.skip_lines(1).map_err(|e| file.unreadable(e))?;
        }
        let (columns, first) = Columns::find(file, &mut records, encoding, spec)?;
        let (name, below, numbers) = (file.name().into(), file.below().to_string(), Numbers::of(&spec.dialect));
        Ok(Self { name, below, encoding, records, columns, numbers, record: Record::default(), first, rows: 0 })
    }

    /// Reads the next row. False at the end.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let more = match self.first.take() {
            Some(first) => {
                self.record = first;
                true
            }
            None => self.records.read(&mut self.record)?,
        };
        self.columns.see(&self.record);
        self.rows += u64::from(more);
        Ok(more)
    }

    /// The time of the next row and what identifies its recording; inside, `None` for a bad row.
    pub(super) fn next_time(&mut self) -> Option<Option<(f64, Vec<u8>)>> {
        if !matches!(self.advance(), Ok(true)) {
            return None;
        }
        let id = self.id();
        let time = self.time_text().and_then(|time| number(&time).ok());
        Some(time.zip(id.ok()))
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The line of the header; 0 without one.
    pub(super) fn header_line(&self) -> u64 {
        self.columns.line
    }

    /// The rows read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The label of the row; empty is none.
    pub(super) fn label(&self) -> &[u8] {
        self.columns.label.as_ref().map_or(&[], |c| self.field(c))
    }

    /// The time of the row as it is written, but a number with a point before its fraction; none without a column of
    /// times.
    pub(super) fn time_text(&self) -> Option<Cow<'_, [u8]>> {
        let time = self.field(self.columns.time.as_ref()?);
        Some(self.numbers.plain(time).filter(|plain| number(plain).is_ok()).unwrap_or(Cow::Borrowed(time)))
    }

    fn field(&self, column: &Column) -> &[u8] {
        self.record.field(column.at)
    }

    /// The text of `column` in the row, or what is wrong with it.
    fn text(&self, column: &Column) -> Result<&str, String> {
        text(self.field(column), self.encoding).map_err(|e| format!("column {:?}: {e}", column.name))
    }

    /// The bytes of the keys, or what is wrong with the row.
    pub(super) fn id(&self) -> Result<Vec<u8>, String> {
        if let Some(wrong) = self.columns.wrong(&self.record) {
            return Err(wrong);
        }
        let Columns { keys, label, split, .. } = &self.columns;
        let mut id = Vec::new();
        for key in keys {
            let value = self.text(key)?;
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", key.name));
            }
            id.extend_from_slice(value.as_bytes());
            id.push(0);
        }
        for column in label.iter().chain(split) {
            self.text(column)?;
        }
        Ok(id)
    }

    /// The part of the data that the row belongs to; empty is none.
    pub(super) fn split(&self) -> &[u8] {
        self.columns.split.as_ref().map_or(&[], |c| self.field(c))
    }

    /// What is wrong with the row if its recording was over before it.
    pub(super) fn comes_back(&self) -> String {
        let Columns { keys, time, .. } = &self.columns;
        let recording: Vec<_> = keys.iter().map(|k| format!("{}={}", k.name, shown(self.field(k)))).collect();
        let by: Vec<_> = keys.iter().chain(time).map(|c| c.name.as_str()).collect();
        format!(
            "{} comes back here after lines of other recordings, expected the lines of one recording to lie together; \
             sort the file by {}",
            recording.join(", "),
            by.join(", then by ")
        )
    }

    /// The values of the columns that are constant in a recording: its keys and its part of the data, of a row of which
    /// [`id`](Self::id) said that they are text.
    pub(super) fn constants(&self) -> Vec<ScalarValue> {
        let text = |column| self.text(column).ok().map(str::to_string);
        let mut values: Vec<_> = self.columns.keys.iter().map(text).collect();
        if values.is_empty() {
            values.push(Some(self.below.clone()));
        }
        values.extend(self.columns.split.as_ref().map(|s| text(s).filter(|s| !s.is_empty())));
        values.into_iter().map(ScalarValue::Utf8).collect()
    }

    /// Reads the numbers of the row into `sample`.
    pub(super) fn sample(&self, sample: &mut Sample) -> Result<(), String> {
        let named = |column: &Column| {
            self.numbers.parse(self.field(column)).map_err(|e| match self.text(column) {
                // One guess at what was meant is enough.
                Ok(_) if e.ends_with(')') => format!("column {:?}: {e}", column.name),
                Ok(_) => format!("column {:?}: {e}{}", column.name, self.units()),
                Err(not_text) => not_text,
            })
        };
        sample.values.clear();
        for channel in &self.columns.channels {
            sample.values.push(named(channel)?);
        }
        sample.time = self.columns.time.as_ref().map(named).transpose()?;
        Ok(())
    }

    /// What is said of a row behind the header without a number in any channel.
    fn units(&self) -> &'static str {
        let number = |c: &Column| self.numbers.parse(self.field(c)).is_ok();
        match self.columns.line > 0 && self.rows == 1 && !self.columns.channels.iter().any(number) {
            true => " (a row of units? skip_after_header = 1 skips it)",
            false => "",
        }
    }

    /// The line on which the row begins.
    pub(super) fn line(&self) -> u64 {
        self.record.line()
    }
}

/// The delimiter that a first line such as `sep=;` says.
fn separator_line(line: &[u8]) -> Option<Delimiter> {
    let line = line.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(line);
    match line.split_at_checked(4)? {
        (sep, &[one])
            if sep.eq_ignore_ascii_case(b"sep=") && one.is_ascii_punctuation() | matches!(one, b'\t' | b' ') =>
        {
            Some(char::from(one).into())
        }
        _ => None,
    }
}
