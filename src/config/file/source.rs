//! `[source]`: where rows come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceTable {
    /// A directory in the layout of the HAPT data set: RawData/, Train/, Test/.
    Hapt(HaptTable),
    /// Sensor recordings in CSV files.
    Csv(CsvTable),
    /// Feature vectors in Parquet files.
    Parquet(ParquetTable),
}

/// A directory in the layout of the HAPT data set. Yields the columns experiment, user, split ("train" or "test"),
/// activity (null where there is no label) and start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HaptTable {
    /// The directory that holds RawData/. Its files may be compressed by gzip, bzip2 or zstd, and have at most 256 MiB.
    pub path: String,
}

/// Sensor recordings in CSV files: one sample a row, one channel a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvTable {
    /// A file, a directory (its .csv, .tsv and .txt files, plain or .gz, .bz2, .zst) or a glob; local, or the URL of an object store
    /// (s3://, gs://, az://, https://).
    pub path: String,
    /// The columns of numbers, one for each channel of the sensor.
    #[schemars(length(min = 1))]
    pub channels: Vec<String>,
    /// The column of times, ascending within a recording; no window reaches across a gap of more than 1.5 sample periods.
    /// Default: samples are evenly spaced and without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The unit of the column of times. Default "s".
    #[serde(default)]
    pub time_unit: TimeUnitName,
    /// Samples per second. Default: as the column of times says; without one 1, so that frequencies are per sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate_hz: Option<f64>,
    /// The columns that tell recordings apart: the samples of a recording are equal in them. Default: every file is one
    /// recording, and its name is in the column `file`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column of known classes, to evaluate against and to weigh features with. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The column that says which part of the data a row belongs to ("train", "test"). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What the bytes of a file mean, where no byte-order mark of UTF-8 or UTF-16 at its start says it. Text that is not of
    /// the encoding is a bad row. Default "utf-8".
    #[serde(default)]
    pub encoding: EncodingName,
    /// What separates the fields of a line: one character, "tab", or "whitespace" for any number of blanks and tabs.
    /// Default: as a first line such as sep=; says; without one ",", or ";" where decimal is ",".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub delimiter: Option<String>,
    /// The character around fields that hold delimiters or line breaks, doubled where it is a part of a field; "" for
    /// none. Default '"'.
    #[serde(default = "default_quote")]
    #[schemars(length(max = 1))]
    pub quote: String,
    /// What is before the fraction of a number. Default ".".
    #[serde(default)]
    pub decimal: DecimalName,
    /// What may be between groups of three digits before the fraction. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thousands: Option<ThousandsName>,
    /// What begins a line that is no row, such as "#". Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub comment: Option<String>,
    /// A character that ends a row, beside line breaks. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1))]
    pub row_end: Option<String>,
    /// How many lines at the start of each file are not read, empty ones too. Where there is a header, other lines before
    /// it need not be counted. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub skip_lines: usize,
    /// Whether a line names the columns, the first one that has them all; otherwise they are column_1, column_2 and so on,
    /// which is also how a column is named whose name is there twice. Default true.
    #[serde(default = "default_header")]
    pub header: bool,
    /// How many rows behind the header are not read, such as 1 of units. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub skip_after_header: usize,
}

fn default_header() -> bool {
    true
}

fn default_quote() -> String {
    "\"".into()
}

/// What the bytes of a text file mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EncodingName {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
    /// Windows-1252.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// UTF-16, in the order that the mark at the start of the file says.
    #[serde(rename = "utf-16")]
    Utf16,
    /// UTF-16, the low byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the high byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

/// What is before the fraction of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecimalName {
    /// A point.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// A comma.
    #[serde(rename = ",")]
    Comma,
}

/// What may be between groups of three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ThousandsName {
    /// A comma.
    #[serde(rename = ",")]
    Comma,
    /// A point.
    #[serde(rename = ".")]
    Point,
    /// A blank.
    #[serde(rename = " ")]
    Blank,
    /// An apostrophe.
    #[serde(rename = "'")]
    Apostrophe,
    /// An underscore.
    #[serde(rename = "_")]
    Underscore,
}

/// The unit of a column of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnitName {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// Feature vectors in Parquet files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetTable {
    /// A file, a directory (its .parquet and .pq files) or a glob; local, or the URL of an object store (s3://, gs://,
    /// az://, https://).
    pub path: String,
    /// One column of lists of equal length, or a list of columns of numbers.
    pub features: Columns,
    /// The column of known classes, to evaluate against and to weigh features with. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The columns that identify a row. Default: none.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column that says which part of the data a row belongs to ("train", "test"). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// One column of lists, or several columns of numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Columns {
    /// A column of lists of equal length.
    One(String),
    /// Columns of numbers, in this order.
    Many(#[schemars(length(min = 1))] Vec<String>),
}
