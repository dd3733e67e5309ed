//! Sensor recordings in CSV files: a line a sample, a column a channel.
//!
//! # What a recording is
//! The lines of one file with the same values of the key columns, which follow each other. Runs of equal labels are its
//! labelled intervals; an empty label is no label. With a time column, a step of more than 1.5 sample periods, or back,
//! is a gap: no window reaches across it, windows start afresh behind it, and `start` goes on counting. So it is where
//! the split changes.
//!
//! # Bad rows
//! A line with too few or too many fields, an empty key, a channel or a time that is no finite number, a time that
//! repeats the one before. Under [`OnBadRow::Quarantine`](super::OnBadRow::Quarantine) such a line takes the place of
//! a sample: the windows that hold it are left out, all others stay, and filters over the recording go on as if the
//! sensor had held its last value. A file that cannot be read is left out from where the damage is; a recording at
//! another sampling rate is left out.
//!
//! Keys that come back after lines with others (a file in the order of time, of several devices) are bad too: their
//! windows would be pieces, and (keys, `start`) would not be unique. Under quarantine each such run of lines is one
//! entry, by its first line, and is left out.
//!
//! # Memory
//! Files are read as a stream. A recording is in memory while its windows are described; samples that are rows by
//! themselves (no window stage) are passed on in pieces.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::bad::Rejects;
use super::location::{DataFile, blocking, list};
use super::recording::{Load, Recordings, Wanted};
use crate::error::{Error, Result};

mod file;
mod piece;
mod rate;
mod scan;

use file::OpenFile;
use scan::Scan;

/// Which files to read, and which columns of them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CsvSpec {
    /// A file, a directory (its `.csv`, `.tsv` and `.txt`, plain or `.gz`), a glob, or a URL of one of these.
    pub path: String,
    /// The channels: columns of numbers.
    pub channels: Vec<String>,
    /// The column of the time of each sample.
    #[serde(default)]
    pub time: Option<TimeColumn>,
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
    /// What is between fields.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// Whether the first line names the columns; otherwise they are `column_1`, `column_2`, ….
    #[serde(default = "yes")]
    pub has_header: bool,
}

fn comma() -> char {
    ','
}

fn yes() -> bool {
    true
}

impl CsvSpec {
    /// Channels `channels` of the files at `path`, everything else by default.
    pub fn new(path: impl Into<String>, channels: &[&str]) -> Self {
        Self {
            path: path.into(),
            channels: channels.iter().map(|c| c.to_string()).collect(),
            time: None,
            rate_hz: None,
            keys: vec![],
            label: None,
            split: None,
            delimiter: comma(),
            has_header: yes(),
        }
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

/// The unit of a column of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    /// How many of it are a second.
    pub fn per_second(self) -> f64 {
        match self {
            TimeUnit::S => 1.0,
            TimeUnit::Ms => 1e3,
            TimeUnit::Us => 1e6,
            TimeUnit::Ns => 1e9,
        }
    }
}

/// The recordings of CSV files, in the order of the files' paths and of their lines.
#[derive(Debug, Clone)]
pub struct Csv {
    layout: Arc<Layout>,
    rate_hz: f64,
    constants: SchemaRef,
    rejects: Rejects,
}

/// What a scan needs to know.
#[derive(Debug)]
struct Layout {
    spec: CsvSpec,
    files: Vec<DataFile>,
    /// Whether windows of many samples are cut, so that a recording has to be whole.
    whole: bool,
    /// The time from a sample to the next, in the unit of the time column, where it matters.
    period: Option<f64>,
}

/// The key column of recordings that have no other.
const FILE: &str = "file";

impl Csv {
    /// Finds the files and reads the start of the first. `whole`: whether windows of many samples will be cut.
    ///
    /// # Errors
    /// Kind `Config` if `spec` is not one of a CSV source, `Input` if no file is there, a column is missing, or the
    /// steps of the time column are irregular or do not fit `rate_hz`.
    pub async fn open(spec: &CsvSpec, whole: bool, rejects: Rejects) -> Result<Self> {
        check(spec)?;
        let files = list(&spec.path, &[".csv", ".tsv", ".txt"]).await?;
        let spec = spec.clone();
        blocking(move || {
            let mut layout = Layout { spec, files, whole, period: None };
            let mut rate_hz = layout.spec.rate_hz.unwrap_or(1.0);
            let mut file = layout.first_usable(&rejects)?;
            if let (true, Some(time)) = (whole, &layout.spec.time) {
                rate_hz = rate::settle(&mut file, time.unit, layout.spec.rate_hz)?;
                layout.period = Some(time.unit.per_second() / rate_hz);
            }
            let constants = Arc::new(Schema::new(layout.constants()));
            Ok(Self { layout: Arc::new(layout), rate_hz, constants, rejects })
        })
        .await
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let (files, channels) = (self.layout.files.len(), self.layout.spec.channels.len());
        let rate = if self.rate_hz == 1.0 { String::new() } else { format!(" at {} Hz", self.rate_hz) };
        format!("{channels} channels{rate} in {files} CSV files at {}", self.layout.spec.path)
    }
}

fn check(spec: &CsvSpec) -> Result<()> {
    if spec.channels.is_empty() {
        return Err(Error::config("a csv source needs `channels`: the names of its columns of numbers"));
    }
    if !spec.delimiter.is_ascii() || matches!(spec.delimiter, '\n' | '\r' | '"') {
        let found = spec.delimiter;
        return Err(Error::config(format!("delimiter {found:?}, expected one ASCII character such as ',' or '\\t'")));
    }
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

    /// Opens the first file that has the columns.
    fn first_usable(&self, rejects: &Rejects) -> Result<OpenFile> {
        let mut first_problem = None;
        for file in &self.files {
            match OpenFile::new(file, &self.spec) {
                Ok(open) => return Ok(open),
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

    fn open(&self, wanted: Wanted) -> Box<dyn Iterator<Item = Result<Load>> + Send> {
        Box::new(Scan::new(self.layout.clone(), wanted, self.rejects.clone()))
    }
}
