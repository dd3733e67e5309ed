//! Sensor recordings in CSV files, one sample a line and one channel a column, or in Parquet files, one sample a row.
//!
//! # Parquet
//! A file whose name ends with `.parquet` or `.pq` is read as Parquet, and so is a local file that begins and ends with
//! `PAR1`. A directory's Parquet files are read if it has no text files. What is said about lines below holds for rows
//! as well: a null is an empty field, and a column of times reads as ISO 8601. A [`Dialect`] describes text, so it is
//! refused where all files are Parquet.
//!
//! # What a recording is
//! The lines of one file with the same values in the key columns, in the order in which they are written. Where the
//! lines of several recordings alternate, as when several devices write to one file in the order of time, the lines are
//! sorted by recording first, on disk where there are many. The first 4096 lines show whether they alternate, or
//! `interleaved` says so. Runs of equal labels are its labelled intervals; an empty label is no label. With a time
//! column, a step of more than 1.5 sample periods, or back, is a gap: no window reaches across it, windows start anew
//! after it, and `start` goes on counting. The same holds where the split changes. Every sample that is in no window is
//! counted with the reason: see [`Samples`].
//!
//! # Times and rates
//! [`TimeUnit`] describes how times are written; internally they are whole nanoseconds. Without `rate_hz`, the rate is
//! the most frequent one among the recordings at the beginnings of the first 64 files; on a tie, the first. The times
//! of every recording are checked against it: a recording at another rate (more than a tenth off) is set aside, or
//! interpolated if the rules say so.
//!
//! [`SampleRules`] can repair lines, in this order: lines are sorted by time within a bound, repeated lines are
//! dropped, lines with the same time are spread, gaps are found, empty channels are filled.
//!
//! # What is carried along
//! Windows have the times of their first and last sample where there is a time column, and the values of the columns
//! that [`Keep`] names. A missing value there is null; text in a column whose mean, least or greatest value is kept
//! makes a bad row.
//!
//! # JSON objects
//! With [`TextFormat::Ndjson`], a line is a JSON object (NDJSON, JSON Lines) whose members are the columns by name; `a.b`
//! is also the member `b` of an object `a`. A member that is absent or null is an empty field. Other members are
//! ignored; a line that is no object is a bad row. The files' names end with `.ndjson`, `.jsonl` or `.json`.
//!
//! # How files are written
//! As RFC 4180 describes, in UTF-8. A [`Dialect`] changes that: other encodings, delimiters, quotes, decimal commas,
//! comments. Lines end with LF, CR LF or CR. Empty lines are skipped, but line numbers count every line. Empty fields
//! beyond the columns (a delimiter at the end of a line) are ignored. A byte-order mark of UTF-8 or UTF-16 takes
//! precedence over the given encoding, and a first line `sep=;` sets the delimiter where none is given.
//!
//! The header is the first row that names all columns of the pipeline, within the first 64 rows and 1 MiB. Rows before
//! it are a preamble; if one of them could be a sample, that is an error. A column that the header names twice is
//! refused. The name `column_5` stands for the fifth column unless the header has that name. Where
//! [`columns`](Dialect::columns) gives the names, there is no header, and a row with another number of fields is bad.
//!
//! A line has at most 1 MiB (as UTF-8), and so has a value in Parquet. A row with line breaks in quotes has at most 1
//! MiB and 64 lines.
//!
//! # Bad rows
//! A line with too few or too many fields; an empty key; a key, a label or a split that is invalid in the encoding; a
//! channel that is not a finite number; a time that is invalid or repeats the one before; NUL bytes; a line that is too
//! long; a repeated header. A quote that does not close within the bounds of a row, or only after whole lines that are
//! rows themselves, makes the line bad on which it opens; the lines after it are read normally.
//!
//! Under [`OnBadRow::Quarantine`](super::OnBadRow::Quarantine) such a line takes the place of a sample: the windows that
//! hold it are left out, all others stay, and filters over the recording go on as if the sensor had held its last value.
//! A file that cannot be read is left out from where the damage is; a recording at another sampling rate is left out.
//!
//! Where recordings alternate, a line without keys belongs to none of them: it is listed, and takes the place of no
//! sample.
//!
//! Where lines are not sorted by recording, a recording that comes back after lines of another one is bad, and so is
//! one that comes back in another file: it would be cut to pieces, and (keys, `start`) would not be unique. Under
//! quarantine each such run of lines is left out, and listed once, with its first line. Recordings may also
//! [continue](AcrossFiles::Continue) over files.
//!
//! # Keys, labels and splits outside of files
//! The key `file` is the file's name, where the file has no column of that name. Directories may name keys, the label
//! and the split (`split=train/day=2024-01-01/a.csv`; see [`hive`](super::hive)); where the file has such a column as
//! well, rows with another value are bad.
//!
//! # Memory
//! Files are read as a stream. A recording is in memory while the features of its windows are computed; without a
//! window stage, each sample is a row and recordings are passed on in pieces. Sorting and spreading hold as many lines
//! as their bounds allow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::bad::Rejects;
use super::clock::{Clock, SECOND, TimeUnit};
use super::keep::Keep;
use super::location::{DataFile, LeftOut, blocking, list_every};
use super::recording::{Load, Recordings, Wanted};
use super::samples::Counts;
#[cfg(doc)]
use super::samples::Samples;
use super::times::Times;
use crate::error::{Error, Kind, Result};
use crate::terminal::shown_name;

mod content;
mod course;
mod dialect;
mod encoding;
mod file;
mod grouped;
pub(super) mod guess;
mod header;
mod json;
mod lines;
mod number;
mod order;
mod piece;
mod rate;
mod record;
mod records;
mod resample;
mod rules;
mod scan;
mod table;
mod turns;
mod unread;

#[cfg(feature = "mqtt")]
pub(super) use content::no_values;
pub(super) use course::{Courses, Going};
pub use dialect::{Conflict, Delimiter, Dialect, TextFormat};
pub use encoding::Encoding;
pub(super) use encoding::open_text;
pub(super) use file::head_lines;
pub(super) use file::{Beginning, beginning, separator_line};
#[cfg(feature = "mqtt")]
pub(super) use lines::LONGEST;
pub(super) use record::Record;
pub use rules::{AcrossFiles, Disorder, Fill, Jitter, Repeated, SameTime, SampleRules};
pub use table::is_parquet;
pub(super) use table::{ENDINGS as TABLE_ENDINGS, is_table};

use file::OpenFile;
use scan::Scan;

/// Which files to read, and which columns of them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CsvSpec {
    /// A file, a directory (its `.csv`, `.tsv` and `.txt`, plain or `.gz`, `.bz2`, `.zst`; else its `.parquet` and `.pq`), a
    /// glob, or a URL of one of these.
    pub path: String,
    /// The channels: columns of numbers.
    pub channels: Vec<String>,
    /// The column of the time of each sample.
    #[serde(default)]
    pub time: Option<TimeColumn>,
    /// How its times are written, as a strftime format of chrono; if absent, as the unit says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_format: Option<String>,
    /// Samples per second. If absent, it is taken from the time column; without one it is 1, so that frequencies are
    /// per sample.
    #[serde(default)]
    pub rate_hz: Option<f64>,
    /// The columns whose values tell recordings apart. With none, each file is a recording, with a key column `file`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column of labels.
    #[serde(default)]
    pub label: Option<String>,
    /// The column that says which part of the data a recording belongs to; an empty value means none.
    #[serde(default)]
    pub split: Option<String>,
    /// How the files are written.
    #[serde(flatten)]
    pub dialect: Dialect,
    /// How lines become the samples of recordings.
    #[serde(default, skip_serializing_if = "SampleRules::is_default")]
    pub rules: SampleRules,
    /// Whether the lines of several recordings alternate in a file, and are sorted by recording. If absent, the first
    /// lines of each file show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<bool>,
    /// The columns that are carried along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Keep>,
}

impl CsvSpec {
    /// How the names of its text files end.
    pub(super) fn endings(&self) -> &'static [&'static str] {
        match self.dialect.format {
            TextFormat::Csv => &ENDINGS,
            TextFormat::Ndjson => &OBJECT_ENDINGS,
        }
    }

    /// Whether recordings go on from file to file.
    pub(super) fn continues(&self) -> bool {
        self.rules.across_files == AcrossFiles::Continue
    }

    /// Channels `channels` of the files at `path`, everything else by default.
    pub fn new(path: impl Into<String>, channels: &[&str]) -> Self {
        Self {
            path: path.into(),
            channels: channels.iter().map(|c| c.to_string()).collect(),
            time: None,
            time_format: None,
            rate_hz: None,
            keys: vec![],
            label: None,
            split: None,
            dialect: Dialect::default(),
            interleaved: None,
            keep: vec![],
            rules: SampleRules::default(),
        }
    }

    /// The columns that every file must have: channels, times, and those that are carried along.
    fn columns(&self) -> impl Iterator<Item = &String> {
        let time = self.time.iter().map(|time| &time.column);
        self.channels.iter().chain(time).chain(self.keep.iter().map(|keep| &keep.column))
    }

    /// Keys, label and split, whose values may be in a file's path instead.
    fn attributes(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().chain(&self.label).chain(&self.split)
    }

    /// The reader of its times.
    ///
    /// # Errors
    /// Kind `Config` for an invalid `time_format`.
    fn clock(&self) -> Result<Clock> {
        let unit = self.time.as_ref().map(|time| time.unit).unwrap_or_default();
        Clock::new(unit, self.time_format.as_deref())
    }
}

/// A column of times.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TimeColumn {
    /// Its name.
    pub column: String,
    /// Its unit.
    pub unit: TimeUnit,
}

/// The recordings of CSV files, in the order of the files' paths and of their lines.
#[derive(Debug, Clone)]
pub struct Csv {
    layout: Arc<Layout>,
    rate_hz: f64,
    times: Option<Times>,
    constants: SchemaRef,
    rejects: Rejects,
    left_out: LeftOut,
    /// The line of the header in the first file; 0 without one.
    header_line: u64,
    /// How it is read, if it is a portion of a stream.
    going: Option<Arc<Going>>,
}

/// What a scan needs to know.
#[derive(Debug)]
struct Layout {
    spec: CsvSpec,
    files: Vec<DataFile>,
    /// Whether windows of several samples are cut, for which a recording must not be passed on in pieces.
    whole: bool,
    /// The nanoseconds from a sample to the next, where there are times.
    period: Option<f64>,
}

/// What is wrong with a file without samples.
const NO_LINES: &str = "no lines but the header, expected one line per sample";

/// How the names of text files end.
pub(super) const ENDINGS: [&str; 3] = [".csv", ".tsv", ".txt"];

/// How the names of text files of JSON objects end.
const OBJECT_ENDINGS: [&str; 3] = [".ndjson", ".jsonl", ".json"];

/// The key column of recordings without other keys.
const FILE: &str = "file";

/// Whether `name` is a column that the topic of a message is or has a level of: `topic`, `topic_1` for its first level
/// and so on, and `file`, which is the topic as well.
pub(super) fn is_topic_column(name: &str) -> bool {
    let level = |text: &str| text.parse::<usize>().is_ok_and(|level| level > 0 && level.to_string() == text);
    name == FILE
        || name.strip_prefix("topic").is_some_and(|rest| rest.is_empty() || rest.strip_prefix('_').is_some_and(level))
}

impl Csv {
    /// Finds the files, and reads the start of some to find the sampling rate, where it is not given. `whole`: whether
    /// windows of several samples will be cut.
    ///
    /// # Errors
    /// Kind `Config` if `spec` is invalid, `Input` if there is no file, a column is missing, or the times of no
    /// recording show a rate.
    pub async fn open(spec: &CsvSpec, whole: bool, rejects: Rejects) -> Result<Self> {
        let (files, left_out) = files_of(&spec.path, spec.endings()).await?;
        Ok(Self { left_out, ..Self::of_files(spec, files, whole, rejects).await? })
    }

    /// As [`open`](Self::open), but reads `files` instead of the files at the path.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn of_files(spec: &CsvSpec, files: Vec<DataFile>, whole: bool, rejects: Rejects) -> Result<Self> {
        Self::read_by(spec, files, whole, None, rejects).await
    }

    /// A portion of a stream: what is new in `files`, read as `going` says.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub(super) async fn of_portion(
        spec: &CsvSpec,
        files: Vec<DataFile>,
        whole: bool,
        going: Arc<Going>,
        rejects: Rejects,
    ) -> Result<Self> {
        // Recordings that take turns are told apart as they are read.
        let spec = CsvSpec { interleaved: Some(false), ..spec.clone() };
        Self::read_by(&spec, files, whole, Some(going), rejects).await
    }

    async fn read_by(
        spec: &CsvSpec,
        files: Vec<DataFile>,
        whole: bool,
        going: Option<Arc<Going>>,
        rejects: Rejects,
    ) -> Result<Self> {
        check(spec)?;
        let spec = spec.clone();
        blocking(move || {
            let given = spec.dialect.given();
            if let Some(file) = files.first().filter(|_| !given.is_empty() && files.iter().all(table::is_table)) {
                return Err(Error::config(format!(
                    "{} is a Parquet file, expected none of the keys about text: leave out {}",
                    file.name(),
                    given.join(", ")
                )));
            }
            let mut layout = Layout { spec, files, whole, period: None };
            let mut rate_hz = layout.spec.rate_hz.unwrap_or(1.0);
            // A portion may have no files: it ends recordings.
            let header_line = if layout.files.is_empty() { 0 } else { layout.check_usable(&rejects)? };
            let found = layout.times();
            let before = going.as_ref().and_then(|going| going.before.times);
            if let (Some(going), Some(found)) = (&going, found) {
                // It is set once: a portion is opened once.
                going.times.get_or_init(|| found);
            }
            let times = layout.spec.time.as_ref().map(|_| found.or(before).unwrap_or(Times::Unknown));
            if layout.spec.time.is_some() {
                if layout.spec.continues() {
                    rate::in_order_of_time(&mut layout.files, &layout.spec);
                }
                if whole {
                    rate_hz = match layout.spec.rate_hz {
                        Some(given) => given,
                        None => rate::settle(&layout.files, &layout.spec, &rejects)?,
                    };
                    layout.period = Some(SECOND as f64 / rate_hz);
                    layout.spec.rules.check_period(layout.period)?;
                }
            }
            let constants = Arc::new(Schema::new(layout.constants()));
            let (layout, left_out) = (Arc::new(layout), LeftOut::default());
            Ok(Self { layout, rate_hz, times, constants, rejects, left_out, header_line, going })
        })
        .await
    }

    /// A description in one line.
    pub fn describe(&self) -> String {
        let (files, channels) = (self.layout.files.len(), self.layout.spec.channels.len());
        let kind = match self.layout.spec.dialect.format {
            _ if self.layout.files.iter().all(table::is_table) => "Parquet",
            TextFormat::Csv => "CSV",
            TextFormat::Ndjson => "NDJSON",
        };
        let rate = if self.rate_hz == 1.0 { String::new() } else { format!(" at {} Hz", self.rate_hz) };
        // The lines before the header are skipped, which the user should notice.
        let header =
            if self.header_line > 1 { format!(", header on line {}", self.header_line) } else { String::new() };
        format!("{channels} channels{rate} in {files} {kind} files at {}{header}", shown_name(&self.layout.spec.path))
    }
}

/// The files of samples at `path`, and what it has beside them: text, or Parquet where there is none.
///
/// # Errors
/// As [`list_every`].
pub(super) async fn files_at(path: &str) -> Result<(Vec<DataFile>, LeftOut)> {
    files_of(path, &ENDINGS).await
}

/// [`files_at`], of text files whose names end like this.
async fn files_of(path: &str, endings: &'static [&'static str]) -> Result<(Vec<DataFile>, LeftOut)> {
    match list_every(path, endings).await {
        Err(e) if e.kind() == Kind::Input => list_every(path, &TABLE_ENDINGS).await.map_err(|_| e),
        files => files,
    }
}

fn check(spec: &CsvSpec) -> Result<()> {
    if spec.channels.is_empty() {
        return Err(Error::config("a csv source needs `channels`: the names of its columns of numbers"));
    }
    if let Some(Conflict { key, message, help }) = spec.dialect.conflicts().into_iter().next() {
        return Err(Error::config(format!("{key}: {message}, expected {help}")));
    }
    let names = &spec.dialect.columns;
    if let Some(missing) = spec.columns().find(|name| !names.is_empty() && !names.contains(name)) {
        return Err(Error::config(format!(
            "columns does not name {missing:?}, expected all columns of the files in their order; it names {}",
            names.join(", ")
        )));
    }
    let rules = &spec.rules;
    rules.check()?;
    if spec.continues() && (spec.keys.is_empty() || spec.keys.iter().any(|k| k == FILE)) {
        return Err(Error::config(
            "across_files = \"continue\" lets recordings go on from file to file: it needs `keys`, without \"file\"",
        ));
    }
    spec.clock()?;
    match spec.rate_hz {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(Error::config(format!("rate_hz is {rate}, expected a positive number of samples a second")))
        }
        _ => Ok(()),
    }
}

impl Layout {
    fn constants(&self) -> Vec<Field> {
        let mut fields: Vec<_> = self.spec.keys.iter().map(|k| Field::new(k, DataType::Utf8, false)).collect();
        if fields.is_empty() {
            fields.push(Field::new(FILE, DataType::Utf8, false));
        }
        fields.extend(self.spec.split.iter().map(|s| Field::new(s, DataType::Utf8, true)));
        fields
    }

    /// What the times count from, by the first one that can be read; `None` without any.
    fn times(&self) -> Option<Times> {
        self.spec.time.as_ref()?;
        for file in &self.files {
            let Ok(mut file) = OpenFile::as_written(file, &self.spec) else { continue };
            while let Ok(true) = file.advance() {
                if let Some(times) = file.times() {
                    return Some(times);
                }
            }
        }
        None
    }

    /// Checks that at least one file has the columns. Returns the header line of the first such file; 0 without one.
    fn check_usable(&self, rejects: &Rejects) -> Result<u64> {
        let mut first_problem = None;
        for file in &self.files {
            match OpenFile::new(file, &self.spec) {
                Ok(open) => return Ok(open.header_line()),
                Err(e) => {
                    let message = e.to_string();
                    rejects.reject_file(file.name(), e)?;
                    first_problem.get_or_insert(message);
                }
            }
        }
        let problem = first_problem.unwrap_or_default();
        Err(Error::input(format!("{}: no file can be used, the first because: {problem}", self.spec.path)))
    }
}

impl Recordings for Csv {
    fn constants(&self) -> &SchemaRef {
        &self.constants
    }

    fn split(&self) -> Option<&str> {
        self.layout.spec.split.as_deref()
    }

    fn label(&self) -> Option<&str> {
        self.layout.spec.label.as_deref()
    }

    fn channels(&self) -> &[String] {
        &self.layout.spec.channels
    }

    fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    fn times(&self) -> Option<Times> {
        self.times
    }

    fn kept(&self) -> &[Keep] {
        &self.layout.spec.keep
    }

    fn left_alone(&self) -> Vec<String> {
        let files = self.layout.files.iter().filter(|file| file.has_more());
        files.map(|file| file.name().to_owned()).collect()
    }

    fn left_out(&self) -> LeftOut {
        self.left_out.clone()
    }

    fn open(&self, wanted: Wanted, counts: Counts) -> Box<dyn Iterator<Item = Result<Load>> + Send> {
        Box::new(Scan::new(self.layout.clone(), self.going.clone(), wanted, self.rejects.clone(), counts))
    }
}
