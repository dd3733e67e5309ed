//! `[source]`: where rows come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::{AcrossFiles, Aggregate, Encoding, Fill, Jitter, Repeated, SameTime, Span, TextFormat, TimeUnit};

/// Where rows come from.
#[expect(clippy::large_enum_variant, reason = "a pipeline has one source")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceTable {
    /// A directory in the layout of the HAPT data set: RawData/, Train/, Test/.
    Hapt(HaptTable),
    /// Sensor recordings in CSV files, or in Parquet files of samples.
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

/// Sensor recordings in CSV files, or in Parquet files that end with .parquet or .pq: one sample a row, one channel a
/// column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvTable {
    /// A file, a directory (its .csv, .tsv and .txt files, plain or .gz, .bz2, .zst; else its .parquet and .pq) or a glob;
    /// local, or the URL of an object store
    /// (s3://, gs://, az://, https://). Of a stream also "-" for standard input, or the messages of an MQTT broker:
    /// "mqtt://host:1883/plant/+/accel" (mqtts:// is encrypted), where the topic is the column `topic`, and its levels are
    /// `topic_1`, `topic_2` and so on.
    pub path: String,
    /// The columns of numbers, one for each channel of the sensor.
    #[schemars(length(min = 1))]
    pub channels: Vec<String>,
    /// The column of times, ascending within a recording; no window reaches across a gap of more than 1.5 sample periods.
    /// Default: samples are evenly spaced and without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The unit of the column of times. Default "auto": recognised from each value.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// How times are written, in the letters of strftime, for example "%d/%m/%Y %H:%M:%S%.f"; times without a zone are
    /// taken for UTC. Default: as `time_unit` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_format: Option<String>,
    /// Samples per second. Default: the rate of most recordings by their times; without a column of times 1, so that
    /// frequencies are per sample. A recording at another rate is a bad row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate_hz: Option<f64>,
    /// The columns that tell recordings apart: the samples of a recording are equal in them. Default: every file is one
    /// recording, and its name is in the column `file`. "file" among the keys also means the file's name, where the
    /// files have no such column.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column of known classes, to evaluate against and to weigh features with. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The column that says which part of the data a row belongs to ("train", "test"). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The encoding of files that do not start with a byte-order mark of UTF-8 or UTF-16. Text that is not valid in the
    /// encoding is a bad row. Default "utf-8".
    #[serde(default)]
    pub encoding: Encoding,
    /// What separates the fields of a line: one character, "tab", or "whitespace" for any number of blanks and tabs.
    /// Default: what a first line such as sep=; says; without such a line ",", or ";" where decimal is ",".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub delimiter: Option<Box<str>>,
    /// The character around fields that contain delimiters or line breaks, doubled where it is part of a field; "" for
    /// none. Default '"'.
    #[serde(default = "default_quote")]
    #[schemars(length(max = 1))]
    pub quote: Box<str>,
    /// The escape character inside quoted fields, such as "\\": a quote after it does not end the field. Default: none;
    /// a quote is doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1))]
    pub escape: Option<Box<str>>,
    /// The decimal separator. Default ".".
    #[serde(default)]
    pub decimal: DecimalName,
    /// The separator that may stand between groups of three digits. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thousands: Option<ThousandsName>,
    /// What begins a comment line, such as "#". Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub comment: Option<String>,
    /// A character that ends a row as a line break does. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1))]
    pub row_end: Option<Box<str>>,
    /// How many lines at the start of each file are skipped, counting empty ones. Where there is a header, other lines
    /// before it need not be counted. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub skip_lines: usize,
    /// Whether there is a header: the first line that names all the columns that are used. Without one the columns are
    /// column_1, column_2 and so on. Columns that share a name are called that, too. Default true.
    #[serde(default = "default_header")]
    pub header: bool,
    /// The names of all columns in their order, where there is no header to say so, as in messages. Default: the header,
    /// or column_1 and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// How a line is written: "csv", or "ndjson" for a JSON object a line, whose members are the columns (`a.b` is also the
    /// member b of an object a); absent and null are empty. Default "csv".
    #[serde(default)]
    pub format: TextFormat,
    /// How many rows after the header are skipped, such as 1 for a row of units. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub skip_after_header: usize,
    /// How far a step in time may differ from the sample period, as a fraction of it or as a time ("20 ms"): up to that
    /// it is no gap, and times are regular enough to give a rate. Default: half a period is no gap, a tenth is regular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// How many lines a sample may be from where its time belongs, or by how much time ("2 s") it may come late: so far
    /// apart, lines are put in order. Default 0: where time goes back, a stretch of samples ends.
    #[serde(default)]
    pub disorder: DisorderTable,
    /// What to do with several samples that have the same time. Default "refuse".
    #[serde(default)]
    pub same_time: SameTime,
    /// What to do with a line whose time, values and label equal those of the line before it. Default "refuse".
    #[serde(default)]
    pub repeated: Repeated,
    /// What a channel is that is empty or NaN. Default "refuse".
    #[serde(default)]
    pub fill: Fill,
    /// Whether recordings at another rate are interpolated linearly to the rate of the pipeline (up to 64 times theirs),
    /// rather than refused; gaps stay gaps, and faster ones are thinned without a low-pass filter. Default false.
    #[serde(default)]
    pub resample: bool,
    /// What to do with a recording whose keys were in an earlier file. Default "refuse".
    #[serde(default)]
    pub across_files: AcrossFiles,
    /// Whether recordings take turns in a file, as where several devices write to one in the order of time: its lines are
    /// sorted by `keys` then, on disk where they are many. Default: as the first 4096 lines of each file show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interleaved: Option<bool>,
    /// Columns that are carried along to the table, such as ["operator", { column = "load", as = "mean" }]: the first
    /// value of each window, or what `as` says. A missing value is null. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<KeepTable>,
}

/// How far a sample may be from where its time belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DisorderTable {
    /// So many lines.
    Lines(#[schemars(range(max = 100_000))] u32),
    /// After samples whose time is later by this much.
    Time(Span),
}

impl Default for DisorderTable {
    fn default() -> Self {
        Self::Lines(0)
    }
}

/// A column that is carried along to the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeepTable {
    /// The column: the first value of each window.
    Column(String),
    /// The column, and how its values over a window become one.
    Aggregated(KeepAsTable),
}

/// A column that is carried along to the table, and how its values over a window become one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepAsTable {
    /// The column of the source.
    pub column: String,
    /// How the values over a window become one. Default "first".
    #[serde(default, rename = "as")]
    pub aggregate: Aggregate,
    /// Its name in the table. Default: that in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub name: Option<String>,
}

impl KeepTable {
    /// The column of the source.
    pub fn column(&self) -> &String {
        match self {
            Self::Column(column) => column,
            Self::Aggregated(table) => &table.column,
        }
    }

    /// What a window says of it.
    pub fn aggregate(&self) -> Aggregate {
        match self {
            Self::Column(_) => Aggregate::default(),
            Self::Aggregated(table) => table.aggregate,
        }
    }

    /// Its name in the table.
    pub fn name(&self) -> &String {
        match self {
            Self::Aggregated(KeepAsTable { name: Some(name), .. }) => name,
            _ => self.column(),
        }
    }
}

fn default_header() -> bool {
    true
}

fn default_quote() -> Box<str> {
    "\"".into()
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

/// The separator that may stand between groups of three digits.
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

/// Feature vectors in Parquet files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetTable {
    /// A file, a directory (its .parquet and .pq files, or the newest version of a Delta table) or a glob; local, or
    /// the URL of an object store (s3://, gs://, az://, https://). Keys, label and split may stand in the names of
    /// directories (split=train/part-0.parquet).
    pub path: String,
    /// One column of lists of equal length, or a list of columns of numbers. A name with dots can also be a field
    /// inside structs. Samples of recordings are read with kind = "csv", also from Parquet files.
    pub features: Columns,
    /// How many values a vector has. Default: what the type of the column says, or the most frequent length. Only with
    /// one column of lists.
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
    /// Columns that are carried along to the table unchanged. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
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
