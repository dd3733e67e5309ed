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
    /// The directory that holds RawData/. Its files may be compressed with gzip.
    pub path: String,
}

/// Sensor recordings in CSV files: one sample a row, one channel a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvTable {
    /// A file, a directory (its .csv, .tsv and .txt files, plain or .gz) or a glob; local, or the URL of an object store
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
    /// What separates the fields of a line: one character. Default ",".
    #[serde(default = "default_delimiter")]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: String,
    /// Whether the first line names the columns; otherwise they are column_1, column_2 and so on. Default true.
    #[serde(default = "default_header")]
    pub header: bool,
}

fn default_header() -> bool {
    true
}

fn default_delimiter() -> String {
    ",".into()
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
    /// A file, a directory (its .parquet and .pq files, or the newest version of the Delta table that it is) or a glob;
    /// local, or the URL of an object store (s3://, gs://, az://, https://). Keys, label and split may stand in the names
    /// of directories (split=train/part-0.parquet).
    pub path: String,
    /// One column of lists of equal length, or a list of columns of numbers. A name with dots is also a value inside
    /// structs.
    pub features: Columns,
    /// How many values a vector has. Default: as the type of the column says, or as most of the vectors have. Only with one
    /// column of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4194304))]
    pub dim: Option<usize>,
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
