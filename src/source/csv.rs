//! Sensor recordings in CSV files: a line a sample, a column a channel; or in Parquet files, a row a sample.
//!
//! # Parquet
//! A file whose name ends with `.parquet` or `.pq` is read as one, and so is a local one that begins and ends with `PAR1`; of
//! a directory, where it holds no text files. All that is said of lines here holds for its rows: a null is an empty field, a
//! column of times is read as ISO 8601, and numbers as they are. A [`Dialect`] says how text is written, and is refused
//! where all files are Parquet.
//!
//! # What a recording is
//! The lines of one file with the same values of the key columns, in the order in which they are written. Where recordings
//! take turns, as where several devices write to one file in the order of time, the lines are sorted by recording first,
//! on disk where they are many: as if each recording stood by itself. The first 4096 lines show it, or `interleaved` says
//! it. Runs of equal labels are its labelled intervals; an empty label is no label. With a time column, a step of more than
//! 1.5 sample periods, or back, is a gap: no window reaches across it, windows start afresh behind it, and `start` goes on counting. So it is where
//! the split changes. Every sample that is in no window is counted with the reason: see [`Samples`].
//!
//! # Times and rates
//! [`TimeUnit`] says what a time is; inside, times are whole nanoseconds. Without `rate_hz`, the rate is the one that most
//! recordings show at the beginnings of the first 64 files; of two that as many show, the first. Every recording is held
//! against it by its own times: one at another rate (a tenth more or less) is set aside, or interpolated if the rules
//! say so.
//!
//! [`SampleRules`] put in order, spread, drop or fill what is not as it should be, in this order: lines are sorted within
//! the bound, repeated ones are dropped, those under one time are spread, gaps are found, empty channels are filled.
//!
//! # What is carried along
//! Windows have the times of their first and last sample where there is a time column, and what is asked for of other
//! columns: see [`Keep`]. A missing value there is null; text in a column of which a mean, a least or a greatest value is
//! kept makes a bad row.
//!
//! # How files are written
//! As RFC 4180 says, in UTF-8, or as [`Dialect`] does: other encodings, delimiters, quotes, numbers with a decimal comma,
//! comments. Lines end with LF, CR LF or CR, and empty ones are no rows; line numbers count every line. Empty fields
//! beyond the columns (a delimiter at the end of a line) are nothing. A mark of UTF-8 or UTF-16 at the start of a file is
//! understood whatever the encoding is said to be, and so is a first line `sep=;` where no delimiter is given.
//!
//! The header is the first row that names all columns of the pipeline, within the first 64 rows and 1 MiB: what is before
//! it is a preamble, unless it could be a sample, which is an error. A column that the header names twice is refused; a
//! name `column_5` that is in no header stands for the fifth column.
//!
//! A line is no longer than 1 MiB (as UTF-8), and a row with line breaks in quotes no longer than that and 64 lines; nor is
//! a value in Parquet.
//!
//! # Bad rows
//! A line with too few or too many fields, an empty key, a key, a label or a split that is not of the encoding, a channel
//! that is no finite number, a time that is none or repeats the one before; NUL bytes, a line that is too long, the
//! header once more. A quote that does not close within the bounds of a row, or only behind whole lines that are rows
//! themselves, makes the line bad on which it opens; the lines behind it are read as they are.
//!
//! Under [`OnBadRow::Quarantine`](super::OnBadRow::Quarantine) such a line takes the place of a sample: the windows that
//! hold it are left out, all others stay, and filters over the recording go on as if the sensor had held its last value.
//! A file that cannot be read is left out from where the damage is; a recording at another sampling rate is left out.
//!
//! Of recordings that take turns, a line without keys is of none: it is listed, and stands for no sample.
//!
//! Where lines are not sorted, keys that come back after lines with others are bad too, as are those that come back in
//! another file: their windows would be pieces, and (keys, `start`) would not be unique. Under quarantine each such run of
//! lines is one entry, by its first line, and is left out. Recordings may also [continue](AcrossFiles::Continue) over files.
//!
//! # Keys, labels and splits outside of files
//! The key `file` is the file's name, where it has no column of that name. Directories may name keys, the label and the
//! split (`split=train/day=2024-01-01/a.csv`; see [`hive`](super::hive)); a row of a file that has such a column, too, is bad
//! if it says another value.
//!
//! # Memory
//! Files are read as a stream. A recording is in memory while its windows are described; samples that are rows by
//! themselves (no window stage) are passed on in pieces. Sorting and spreading hold as many lines as their bounds say.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::bad::Rejects;
use super::clock::{Clock, SECOND, TimeUnit};
use super::keep::Keep;
use super::location::{DataFile, blocking, list};
use super::recording::{Load, Recordings, Wanted};
use super::samples::Counts;
#[cfg(doc)]
use super::samples::Samples;
use super::times::Times;
use crate::error::{Error, Kind, Result};
use crate::terminal::shown_name;

mod content;
mod dialect;
mod encoding;
mod file;
mod grouped;
pub(super) mod guess;
mod header;
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

pub use dialect::{Conflict, Delimiter, Dialect};
pub use encoding::Encoding;
pub(super) use encoding::open_text;
pub(super) use file::{Beginning, beginning, separator_line};
pub(super) use record::Record;
pub use rules::{AcrossFiles, Disorder, Fill, Jitter, Repeated, SameTime, SampleRules};
pub use table::is_parquet;
pub(super) use table::is_table;

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
    /// How its times are written, as chrono's strftime says it; else as their unit says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_format: Option<String>,
    /// Samples a second; taken from the time column if absent, and 1 (so frequencies are a sample) if that is too.
    #[serde(default)]
    pub rate_hz: Option<f64>,
    /// The columns whose values tell recordings apart. With none, each file is a recording, with a key column `file`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column of labels.
    #[serde(default)]
    pub label: Option<String>,
    /// The column that says which part of the data a recording belongs to; empty is none.
    #[serde(default)]
    pub split: Option<String>,
    /// How the files are written.
    #[serde(flatten)]
    pub dialect: Dialect,
    /// How lines become the samples of recordings.
    #[serde(default, skip_serializing_if = "SampleRules::is_default")]
    pub rules: SampleRules,
    /// Whether recordings take turns in a file: its lines are sorted by recording then. Absent, as its first lines show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<bool>,
    /// The columns that are carried along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Keep>,
}

impl CsvSpec {
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

    /// The columns that every file has: of numbers, of times, and those that are carried along.
    fn columns(&self) -> impl Iterator<Item = &String> {
        let time = self.time.iter().map(|time| &time.column);
        self.channels.iter().chain(time).chain(self.keep.iter().map(|keep| &keep.column))
    }

    /// Keys, label and split, which may stand in a file's path.
    fn attributes(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().chain(&self.label).chain(&self.split)
    }

    /// What reads its times.
    ///
    /// # Errors
    /// Kind `Config` for a `time_format` that is none.
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
    /// The line of the header in the first file; 0 without one.
    header_line: u64,
}

/// What a scan needs to know.
#[derive(Debug)]
struct Layout {
    spec: CsvSpec,
    files: Vec<DataFile>,
    /// Whether windows of many samples are cut, so that a recording has to be whole.
    whole: bool,
    /// The nanoseconds from a sample to the next, where they matter.
    period: Option<f64>,
}

/// What is wrong with a file without samples.
const NO_LINES: &str = "no lines but the header, expected a line a sample";

/// The key column of recordings that have no other.
const FILE: &str = "file";

impl Csv {
    /// Finds the files, and reads the start of some to tell the sampling rate, where it is not given. `whole`: whether
    /// windows of many samples will be cut.
    ///
    /// # Errors
    /// Kind `Config` if `spec` is not one of a CSV source, `Input` if no file is there, a column is missing, or no
    /// recording's times tell a rate.
    pub async fn open(spec: &CsvSpec, whole: bool, rejects: Rejects) -> Result<Self> {
        Self::of_files(spec, files_at(&spec.path).await?, whole, rejects).await
    }

    /// As [`open`](Self::open), of the `files` and not of those at the path.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn of_files(spec: &CsvSpec, files: Vec<DataFile>, whole: bool, rejects: Rejects) -> Result<Self> {
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
            let header_line = layout.check_usable(&rejects)?;
            let times = layout.times();
            if layout.spec.time.is_some() {
                if layout.spec.rules.across_files == AcrossFiles::Continue {
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
            Ok(Self { layout: Arc::new(layout), rate_hz, times, constants, rejects, header_line })
        })
        .await
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let (files, channels) = (self.layout.files.len(), self.layout.spec.channels.len());
        let kind = if self.layout.files.iter().all(table::is_table) { "Parquet" } else { "CSV" };
        let rate = if self.rate_hz == 1.0 { String::new() } else { format!(" at {} Hz", self.rate_hz) };
        // What is before it is not read, and that is not to go unnoticed.
        let header =
            if self.header_line > 1 { format!(", header on line {}", self.header_line) } else { String::new() };
        format!("{channels} channels{rate} in {files} {kind} files at {}{header}", shown_name(&self.layout.spec.path))
    }
}

/// The files of samples at `path`: text, or Parquet where there is none.
///
/// # Errors
/// As [`list`].
pub(super) async fn files_at(path: &str) -> Result<Vec<DataFile>> {
    match list(path, &[".csv", ".tsv", ".txt"]).await {
        Err(e) if e.kind() == Kind::Input => list(path, &table::ENDINGS).await.map_err(|_| e),
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
    let rules = &spec.rules;
    rules.check()?;
    if rules.across_files == AcrossFiles::Continue && (spec.keys.is_empty() || spec.keys.iter().any(|k| k == FILE)) {
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

    /// What the times count from, as the first says that can be read.
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
        Some(Times::Unknown)
    }

    /// That a file has the columns, and the line of the first one's header; 0 without one.
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

    fn open(&self, wanted: Wanted, counts: Counts) -> Box<dyn Iterator<Item = Result<Load>> + Send> {
        Box::new(Scan::new(self.layout.clone(), wanted, self.rejects.clone(), counts))
    }
}
