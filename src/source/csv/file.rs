//! An open file of samples: its columns, and an iterator over its rows.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use datafusion::common::ScalarValue;

use super::dialect::{Delimiter, Dialect};
use super::encoding::{Encoding, OpenText, open_text};
use super::header::{Attribute, Columns};
use super::json::Objects;
use super::number::Numbers;
use super::piece::Sample;
use super::record::Record;
use super::records::Records;
use super::table::{TableRows, is_table};
use super::turns::Turns;
use super::{CsvSpec, Fill, TextFormat};
use crate::error::{Error, Result};
use crate::source::bad::{Raw, Unread, shown};
use crate::source::clock::{Clock, Stamp};
use crate::source::keep::{Cell, Keep};
use crate::source::location::DataFile;
use crate::source::text::number;
use crate::source::times::Times;

/// A file whose header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    rows: Rows,
    columns: Columns,
    numbers: Numbers,
    clock: Clock,
    /// Whether an empty channel takes its last value.
    holds: bool,
    record: Record,
    /// The first row, if there is no header and the row was not yet given.
    first: Option<Record>,
    /// Whether recordings alternate, if that is given.
    takes_turns: Option<bool>,
    /// The order of rows, once a row was asked for.
    turns: Option<Turns>,
    /// How many rows were read.
    read: u64,
    /// The byte of the file at which its text begins, if bytes of the text are those of the file; and the same for rows
    /// behind the header, of a file of which lines are left out there.
    begin: Option<u64>,
    after_head: Option<u64>,
}

/// How many lines come before the first row of `file`: the header, and what is skipped. Blocks.
///
/// # Errors
/// As [`OpenFile::new`].
pub(in crate::source) fn head_lines(file: &DataFile, spec: &CsvSpec) -> Result<u64> {
    Ok(OpenFile::new(file, spec)?.head_lines())
}

/// The reader of rows.
enum Rows {
    Text(Box<Records>),
    Objects(Box<Objects>),
    Table(Box<TableRows>),
}

impl Rows {
    fn take_unread(&mut self) -> Vec<Unread> {
        match self {
            Self::Text(_) | Self::Objects(_) => Vec::new(),
            Self::Table(rows) => rows.take_unread(),
        }
    }

    fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        match self {
            Self::Text(records) => records.read(record),
            Self::Objects(objects) => objects.read(record),
            Self::Table(rows) => rows.read(record),
        }
    }
}

impl OpenFile {
    /// Opens `file` and finds the columns that `spec` names. Blocks.
    ///
    /// # Errors
    /// Kind `Input` if it is missing, empty, damaged or no text, or lacks a column; `Io` if it cannot be read.
    pub(super) fn new(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        if is_table(file) {
            let rows = TableRows::open(file, spec)?;
            let columns = Columns::of_table(file, &rows.names(), spec)?;
            return Self::of(file, spec, Rows::Table(Box::new(rows)), columns, None);
        }
        if spec.dialect.format == TextFormat::Ndjson {
            let columns = Columns::of_objects(file, spec)?;
            let (objects, mark, encoding) = Objects::open(file, &columns.names)?;
            let open = Self::of(file, spec, Rows::Objects(Box::new(objects)), columns, None)?;
            return Ok(open.beginning_at(file, encoding, mark));
        }
        let OpenText { text, encoding, mark } = open_text(file, spec.dialect.encoding)?;
        let mut records = Records::new(text, &spec.dialect);
        if let Some((head, passed)) = file.passes_over() {
            records.pass_over(head, passed);
        }
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
        let open = Self::of(file, spec, Rows::Text(Box::new(records)), columns, first)?;
        Ok(open.beginning_at(file, encoding, mark))
    }

    /// The same, whose text begins behind a mark of so many bytes.
    fn beginning_at(self, file: &DataFile, encoding: Encoding, mark: u64) -> Self {
        // In other encodings, the bytes of the text are not those of the file.
        let begin = (encoding == Encoding::Utf8).then_some(mark);
        let after_head = match (file.passes_over(), file.passed_bytes()) {
            (None, _) => begin,
            (Some(_), passed) => begin.zip(passed).map(|(begin, passed)| begin + passed),
        };
        Self { begin, after_head, ..self }
    }

    /// `file`, whose rows are `first`, if there is one, and then those of `rows`.
    fn of(file: &DataFile, spec: &CsvSpec, rows: Rows, columns: Columns, first: Option<Record>) -> Result<Self> {
        Ok(Self {
            name: file.name().into(),
            below: file.below().to_string(),
            numbers: match rows {
                Rows::Text(_) => Numbers::of(&spec.dialect),
                Rows::Objects(_) | Rows::Table(_) => Numbers::of(&Dialect::default()),
            },
            rows,
            columns,
            clock: spec.clock()?,
            holds: spec.rules.fill == Fill::Hold,
            record: Record::default(),
            first,
            takes_turns: if spec.keys.is_empty() { Some(false) } else { spec.interleaved },
            turns: None,
            read: 0,
            begin: None,
            after_head: None,
        })
    }

    /// As [`new`](Self::new), but rows come as they are written, also where recordings alternate.
    pub(super) fn as_written(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        Ok(Self { takes_turns: Some(false), ..Self::new(file, spec)? })
    }

    /// The names of its columns; for a text file also its encoding and its delimiter.
    pub(super) fn described(&self) -> (&[String], Option<(Encoding, Delimiter)>) {
        let written = match &self.rows {
            Rows::Text(records) => self.columns.encoding.map(|encoding| (encoding, records.delimiter())),
            Rows::Objects(_) | Rows::Table(_) => None,
        };
        (&self.columns.names, written)
    }

    /// The current row.
    pub(super) fn row(&self) -> &Record {
        &self.record
    }

    /// Reads the next row. False at the end.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let Self { rows, columns, first, .. } = self;
        let mut read = |record: &mut Record| match first.take() {
            Some(first) => {
                *record = first;
                Ok(true)
            }
            None => rows.read(record),
        };
        let turns = match &mut self.turns {
            Some(turns) => turns,
            none => {
                let mut id = |record: &Record| {
                    columns.see(record);
                    columns.id(record).ok()
                };
                none.insert(Turns::of(&mut read, &mut id, self.takes_turns).map_err(io::Error::other)?)
            }
        };
        let more = turns.next(read, &mut self.record)?;
        self.columns.see(&self.record);
        self.read += u64::from(more);
        Ok(more)
    }

    /// The rows that could not be read since this was called last, all of them before the end of what was read ahead.
    pub(super) fn take_unread(&mut self) -> Vec<Unread> {
        self.rows.take_unread()
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its path below the source.
    pub(super) fn below(&self) -> &str {
        &self.below
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// How many lines come before its first row: the header, and what is skipped.
    fn head_lines(&self) -> u64 {
        match (&self.first, &self.rows) {
            (Some(first), _) => first.line() - 1,
            (None, Rows::Text(records)) => records.lines_read(),
            (None, Rows::Objects(_) | Rows::Table(_)) => 0,
        }
    }

    /// The line of the header; 0 without one.
    pub(super) fn header_line(&self) -> u64 {
        self.columns.line
    }

    /// The rows read so far.
    pub(super) fn rows(&self) -> u64 {
        self.read
    }

    /// The label of the row; empty means none.
    pub(super) fn label(&self) -> &[u8] {
        self.columns.label.as_ref().map_or(&[], |label| label.value(&self.record))
    }

    /// The time of the row as written, except that numbers have a decimal point; `None` without a column of times.
    fn time_text(&self) -> Option<Cow<'_, [u8]>> {
        let time = self.record.field(self.columns.time.as_ref()?.at);
        Some(self.numbers.plain(time).filter(|plain| number(plain).is_ok()).unwrap_or(Cow::Borrowed(time)))
    }

    /// Whether the time of the row is a whole number.
    pub(super) fn counts_whole(&self) -> bool {
        self.time_text().is_some_and(|text| text.iter().all(|b| b.is_ascii_digit() || *b == b'-'))
    }

    /// The bytes of the keys, or what is wrong with the row.
    pub(super) fn id(&self) -> Result<Vec<u8>, String> {
        self.columns.id(&self.record)
    }

    /// The split that the row belongs to; empty means none.
    pub(super) fn split(&self) -> &[u8] {
        self.columns.split.as_ref().map_or(&[], |split| split.value(&self.record))
    }

    /// The keys and their values, for messages.
    fn recording(&self) -> String {
        let value = |key: &Attribute| format!("{}={}", key.name(), shown(key.value(&self.record)));
        let keys: Vec<_> = self.columns.keys.iter().map(value).collect();
        keys.join(", ")
    }

    /// The problem of a row whose recording had ended before it.
    pub(super) fn comes_back(&self) -> String {
        let Columns { keys, time, .. } = &self.columns;
        let keys = keys.iter().filter_map(|key| match key {
            Attribute::Column { column, .. } => Some(column),
            Attribute::Outside { .. } => None,
        });
        let by: Vec<_> = keys.chain(time).map(|c| c.name.as_str()).collect();
        format!(
            "{} comes back here after lines of other recordings, expected the lines of one recording to lie together; \
             sort the file by {}, or say interleaved = true",
            self.recording(),
            by.join(", then by ")
        )
    }

    /// The problem of a row whose recording is also in another file, `earlier`.
    pub(super) fn in_two_files(&self, earlier: &str) -> String {
        format!(
            "{} is a recording of {earlier}, too, and (keys, start) would not be unique; across_files = \"continue\" lets \
             recordings go on from file to file, \"file\" among the keys tells them apart",
            self.recording()
        )
    }

    /// The values of the columns that are constant in a recording: its keys and its split. [`id`](Self::id) must have
    /// found them to be text.
    pub(super) fn constants(&self) -> Vec<ScalarValue> {
        let text = |of: &Attribute| String::from_utf8(of.value(&self.record).to_vec()).ok();
        let mut values: Vec<_> = self.columns.keys.iter().map(text).collect();
        if values.is_empty() {
            values.push(Some(self.below.clone()));
        }
        values.extend(self.columns.split.as_ref().map(|s| text(s).filter(|s| !s.is_empty())));
        values.into_iter().map(ScalarValue::Utf8).collect()
    }

    /// Reads the values of the columns `keep`, which are carried along.
    pub(super) fn keep(&self, keep: &[Keep], cells: &mut Vec<Cell>) -> Result<(), String> {
        cells.resize_with(keep.len(), Cell::default);
        for ((keep, cell), column) in keep.iter().zip(cells).zip(&self.columns.keep) {
            let value = self.columns.text(&self.record, column)?;
            match keep.aggregate.is_of_numbers().then(|| self.numbers.plain(value.as_bytes())).flatten() {
                Some(plain) => keep.read(&String::from_utf8_lossy(&plain), cell)?,
                None => keep.read(value, cell)?,
            }
        }
        Ok(())
    }

    /// What the time of the row counts from; `None` if it cannot be read.
    pub(super) fn times(&self) -> Option<Times> {
        let stamp = self.time().ok()??;
        Some(match number(&self.time_text()?) {
            Err(_) if stamp.of_day => Times::Unknown,
            Err(_) => Times::Epoch,
            Ok(_) => Times::beginning_with(stamp.ns),
        })
    }

    /// Reads the numbers of the row into `sample`. A channel that will take its last value is NaN.
    pub(super) fn sample(&self, sample: &mut Sample) -> Result<(), String> {
        sample.values.clear();
        for channel in &self.columns.channels {
            let field = self.record.field(channel.at);
            if self.holds && (field.is_empty() || field.eq_ignore_ascii_case(b"nan")) {
                sample.values.push(f64::NAN);
                continue;
            }
            sample.values.push(self.numbers.parse(field).map_err(
                |e| match self.columns.text(&self.record, channel) {
                    // One hint is enough.
                    Ok(_) if e.ends_with(')') => format!("column {:?}: {e}", channel.name),
                    Ok(_) => format!("column {:?}: {e}{}", channel.name, self.units()),
                    Err(not_text) => not_text,
                },
            )?);
        }
        sample.time = self.time()?;
        Ok(())
    }

    /// The time of the row, where there is a column of times.
    pub(super) fn time(&self) -> Result<Option<Stamp>, String> {
        let (Some(column), Some(text)) = (&self.columns.time, self.time_text()) else { return Ok(None) };
        let wrong = |e| match self.columns.text(&self.record, column) {
            Ok(_) => format!("column {:?}: {e}{}", column.name, self.numbers.other_signs(self.record.field(column.at))),
            Err(not_text) => not_text,
        };
        self.clock.read(&text).map(Some).map_err(wrong)
    }

    /// The hint for a first row after the header that has no number in any channel.
    fn units(&self) -> &'static str {
        let mut channels = self.columns.channels.iter();
        let no_number = channels.all(|c| self.numbers.parse(self.record.field(c.at)).is_err());
        match self.columns.line > 0 && self.read == 1 && no_number {
            true => " (a row of units? skip_after_header = 1 skips it)",
            false => "",
        }
    }

    /// Writes into `raw` the row as it is in its file.
    pub(super) fn raw(&self, raw: &mut Raw) {
        let begin = if self.line() > self.columns.line { self.after_head } else { self.begin };
        self.record.raw(|at| begin.map(|begin| begin + at), raw);
    }

    /// The line on which the row begins.
    pub(super) fn line(&self) -> u64 {
        self.record.line()
    }
}

/// The beginning of a file, read according to a spec.
pub(in crate::source) struct Beginning {
    /// The names of its columns.
    pub names: Vec<String>,
    /// Its encoding and its delimiter; `None` for Parquet.
    pub written: Option<(Encoding, Delimiter)>,
    /// The line of its header; 0 without one.
    pub header_line: u64,
    /// Its first rows.
    pub rows: Vec<Record>,
    /// Whether these are all rows.
    pub whole: bool,
}

/// Reads the first rows of `file` according to `spec`, at most `most` rows and about `bytes` bytes. Blocks.
///
/// # Errors
/// As opening a file does. An error after the header ends the reading without being reported.
pub(in crate::source) fn beginning(file: &DataFile, spec: &CsvSpec, most: usize, bytes: usize) -> Result<Beginning> {
    let mut open = OpenFile::as_written(file, spec)?;
    let (mut rows, mut size, mut whole) = (Vec::new(), 0, true);
    while let Ok(true) = open.advance() {
        if rows.len() == most || size > bytes {
            whole = false;
            break;
        }
        size += open.row().size();
        rows.push(open.row().clone());
    }
    let (names, written) = open.described();
    Ok(Beginning { names: names.to_vec(), written, header_line: open.header_line(), rows, whole })
}

/// The delimiter that a first line such as `sep=;` sets.
pub(in crate::source) fn separator_line(line: &[u8]) -> Option<Delimiter> {
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
