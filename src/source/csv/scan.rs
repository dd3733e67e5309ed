//! Lines of CSV files, in order, put together to recordings.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use datafusion::common::ScalarValue;

use super::piece::{Piece, Sample};
use super::{CsvSpec, Layout};
use crate::error::{Error, Result};
use crate::source::bad::{Rejects, shown};
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::recording::{Load, Recording, Wanted};
use crate::source::text::number;

/// How many samples go to a worker at a time, at least; and at most, where a recording may be cut.
const CHUNK: usize = 1 << 14;

/// A file of which the header was read.
pub(super) struct OpenFile {
    name: Arc<str>,
    below: String,
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Columns,
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
    keys: Vec<usize>,
    time: Option<usize>,
    label: Option<usize>,
    split: Option<usize>,
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
        Ok(Self { name, below, reader, columns, record, pending: !spec.has_header, rows: 0 })
    }

    /// Reads the next line into `record`. False at the end.
    fn advance(&mut self) -> csv::Result<bool> {
        let more = std::mem::take(&mut self.pending) || self.reader.read_byte_record(&mut self.record)?;
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

    fn field(&self, column: usize) -> &[u8] {
        self.record.get(column).unwrap_or_default().trim_ascii()
    }

    /// The bytes of the keys, or what is wrong with the line.
    fn id(&self) -> Result<Vec<u8>, String> {
        let (found, width) = (self.record.len(), self.columns.width);
        if found != width {
            let line = self.record.iter().collect::<Vec<_>>().join(&b","[..]);
            return Err(format!("{found} fields, expected {width}: {}", shown(&line)));
        }
        let mut id = Vec::new();
        for &key in &self.columns.keys {
            let value = self.field(key);
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", self.columns.names[key]));
            }
            id.extend_from_slice(value);
            id.push(0);
        }
        Ok(id)
    }

    /// The part of the data that the line belongs to; empty is none.
    fn split(&self) -> &[u8] {
        self.columns.split.map_or(&[], |s| self.field(s))
    }

    /// What is wrong with the line if its recording was over before it.
    pub(super) fn comes_back(&self) -> String {
        let Columns { keys, names, time, .. } = &self.columns;
        let recording: Vec<_> = keys.iter().map(|&k| format!("{}={}", names[k], shown(self.field(k)))).collect();
        let by: Vec<_> = keys.iter().chain(time).map(|&c| names[c].as_str()).collect();
        format!(
            "{} comes back here after lines of other recordings, expected the lines of one recording to lie together; \
             sort the file by {}",
            recording.join(", "),
            by.join(", then by ")
        )
    }

    fn constants(&self) -> Vec<ScalarValue> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut values: Vec<_> = self.columns.keys.iter().map(|&k| Some(text(self.field(k)))).collect();
        if values.is_empty() {
            values.push(Some(self.below.clone()));
        }
        values.extend(self.columns.split.map(|s| Some(text(self.field(s))).filter(|s| !s.is_empty())));
        values.into_iter().map(ScalarValue::Utf8).collect()
    }

    /// Reads the numbers of the line into `sample`.
    fn sample(&self, sample: &mut Sample) -> Result<(), String> {
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

fn unreadable(file: &DataFile, e: csv::Error, after: &str) -> Error {
    match e.into_kind() {
        csv::ErrorKind::Io(e) => file.unreadable_after(e, after),
        other => Error::input(format!("{}: {other:?}{after}", file.name())),
    }
}

/// The recordings that have begun in a file, by a hash of their keys: eight bytes each, however long the keys are.
#[derive(Debug, Default)]
pub(super) struct Begun(HashSet<u64>);

impl Begun {
    /// Takes note of one; false if it had begun before.
    pub(super) fn insert(&mut self, id: &[u8]) -> bool {
        let mut hash = DefaultHasher::new();
        id.hash(&mut hash);
        self.0.insert(hash.finish())
    }
}

impl Columns {
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
            names,
        })
    }
}

/// One pass over all files.
pub(super) struct Scan {
    layout: Arc<Layout>,
    wanted: Wanted,
    rejects: Rejects,
    next_file: usize,
    file: Option<OpenFile>,
    /// The recordings of `file`.
    begun: Begun,
    piece: Option<Piece>,
    sample: Sample,
    ready: Vec<Recording>,
    ready_samples: usize,
    over: bool,
}

impl Scan {
    pub(super) fn new(layout: Arc<Layout>, wanted: Wanted, rejects: Rejects) -> Self {
        Self {
            layout,
            wanted,
            rejects,
            next_file: 0,
            file: None,
            begun: Begun::default(),
            piece: None,
            sample: Sample::default(),
            ready: Vec::new(),
            ready_samples: 0,
            over: false,
        }
    }

    /// Reads on until there is enough for a worker; false at the end of the last file.
    fn fill(&mut self) -> Result<bool> {
        while self.ready_samples < CHUNK {
            let Some(mut file) = self.file.take() else {
                let Some(next) = self.layout.files.get(self.next_file) else { return Ok(false) };
                self.next_file += 1;
                self.begun = Begun::default();
                match OpenFile::new(next, &self.layout.spec) {
                    Ok(open) => self.file = Some(open),
                    Err(e) => self.rejects.reject_file(next.name(), e)?,
                }
                continue;
            };
            match file.advance() {
                Ok(true) => {
                    self.row(&file)?;
                    self.file = Some(file);
                }
                Ok(false) => {
                    self.finish()?;
                    if file.rows == 0 {
                        self.rejects.reject(&file.name, 0, "no lines but the header, expected a line a sample")?;
                    }
                }
                Err(e) => {
                    self.finish()?;
                    let of = &self.layout.files[self.next_file - 1];
                    self.rejects.reject_file(&file.name, unreadable(of, e, &format!(" after {} rows", file.rows)))?;
                }
            }
        }
        Ok(true)
    }

    /// Takes the line that `file` holds.
    fn row(&mut self, file: &OpenFile) -> Result<()> {
        let id = match file.id() {
            Ok(id) => id,
            Err(reason) => return self.bad_row(file, reason),
        };
        match &self.piece {
            Some(piece) if piece.id == id && piece.split == file.split() => {}
            // The same recording in another part of the data: `start` goes on counting.
            Some(piece) if piece.id == id => self.begin(file, id, piece.end(), piece.lost)?,
            _ => {
                let lost = !self.begun.insert(&id);
                self.begin(file, id, 0, lost)?;
            }
        }
        let Some(piece) = self.piece.as_mut() else { return Ok(()) };
        if !piece.wanted {
            piece.skip();
            return Ok(());
        }
        if let Err(reason) = file.sample(&mut self.sample) {
            return self.bad_row(file, reason);
        }
        if let (Some(period), Some(time)) = (self.layout.period, self.sample.time) {
            if piece.last_time() == Some(time) {
                let reason = format!("time {time} is that of the line before, expected a later one");
                return self.bad_row(file, reason);
            }
            if piece.is_gap(time, period) {
                let rest = piece.split_off(file.line());
                self.finish()?;
                self.piece = Some(rest);
            }
        }
        let label = file.columns.label.map(|c| file.field(c)).unwrap_or_default();
        if let Some(piece) = self.piece.as_mut() {
            piece.push(&self.sample, label);
        }
        self.cut(file)
    }

    /// Begins a piece with the line that `file` holds, `offset` samples into its recording. It is `lost` if that was
    /// over before.
    fn begin(&mut self, file: &OpenFile, id: Vec<u8>, offset: usize, lost: bool) -> Result<()> {
        let goes_on = self.piece.as_ref().is_some_and(|piece| piece.id == id);
        self.finish()?;
        let constants = file.constants();
        let wanted = self.wanted.takes(&constants)?;
        if wanted && lost && !goes_on {
            self.rejects.reject(&file.name, file.line(), file.comes_back())?;
        }
        let channels = self.layout.spec.channels.len();
        let mut piece = Piece::new(id, constants, wanted && !lost, channels, file.name.clone(), file.line());
        (piece.split, piece.lost) = (file.split().to_vec(), lost);
        self.piece = Some(piece.starting_at(offset));
        Ok(())
    }

    fn bad_row(&mut self, file: &OpenFile, reason: String) -> Result<()> {
        // What a recording that is not wanted looks like is for the scan to say that wants it.
        if let Some(piece) = self.piece.as_mut().filter(|piece| !piece.wanted) {
            piece.skip();
            return Ok(());
        }
        self.rejects.reject(&file.name, file.line(), reason)?;
        if let Some(piece) = self.piece.as_mut() {
            piece.push_bad();
        }
        self.cut(file)
    }

    /// Passes samples on before their recording is over, where that changes nothing.
    fn cut(&mut self, file: &OpenFile) -> Result<()> {
        if let Some(piece) = self.piece.as_mut().filter(|p| !self.layout.whole && p.len() >= CHUNK) {
            let rest = piece.split_off(file.line() + 1);
            self.finish()?;
            self.piece = Some(rest);
        }
        Ok(())
    }

    /// Ends the piece being read.
    fn finish(&mut self) -> Result<()> {
        let Some(piece) = self.piece.take().filter(|piece| piece.wanted && piece.len() > 0) else { return Ok(()) };
        if let Some((found, expected)) = self.layout.period.and_then(|period| piece.other_rate(period)) {
            let reason = format!(
                "the {} samples from here on are {found} apart in time, expected {expected} (give or take a tenth)",
                piece.len()
            );
            return self.rejects.reject(piece.file(), piece.line(), reason);
        }
        self.ready_samples += piece.len();
        self.ready.push(piece.into_recording());
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Load>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.fill() {
            Ok(more) => self.over = !more,
            Err(e) => {
                self.over = true;
                return Some(Err(e));
            }
        }
        let recordings = std::mem::take(&mut self.ready);
        self.ready_samples = 0;
        (!recordings.is_empty()).then(|| Ok(Box::new(move || Ok(recordings)) as Load))
    }
}
