//! The pipeline file, exactly as it is typed: no value here has been checked against another one yet.
//!
//! The doc comments of the fields become the descriptions of `schemas/pipeline.schema.json`, and the schema is what a
//! file is held against: keys, types, bounds and accepted values are stated here and nowhere else.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde::{Deserialize, Serialize};

use super::size::Size;
use crate::signal::summary::{SpectralStatistic, Statistic};

/// A pipeline of dacpipe: where rows come from, the stages they pass in order, and where the labels go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "dacpipe pipeline file")]
pub struct PipelineFile {
    /// The table's name in SQL: lowercase letters, digits and underscores, not starting with a digit.
    #[schemars(extend("pattern" = "^[a-z_][a-z0-9_]*$"))]
    pub name: String,
    /// The source of every random choice; two runs with the same seed give the same bytes. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Memory for buffered training rows, beyond which they are spilled to disk: a size such as "300 MB" or "1 GiB", at
    /// least "64 MiB". The result does not depend on it. Default "1 GiB".
    #[serde(default = "default_memory_limit")]
    pub memory_limit: Size,
    /// Compute threads. The result does not depend on their number. Default: as many as there are cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Where networks are trained and applied. Default "auto": a GPU where there is one and dacpipe is built for it.
    #[serde(default)]
    pub device: DeviceName,
    /// What happens to a row that cannot be read. Default "fail".
    #[serde(default)]
    pub on_bad_row: OnBadRowName,
    /// Where rows come from.
    pub source: SourceTable,
    /// The stages, in the order in which rows pass them.
    #[schemars(length(min = 1))]
    pub stage: Vec<StageTable>,
    /// Which rows are learned from, and which are labelled. Default: all, and all.
    #[serde(default)]
    pub split: SplitTable,
    /// Where the labels go.
    pub sink: SinkTable,
}

fn default_memory_limit() -> Size {
    Size::mebibytes(1024)
}

/// Where networks are trained and applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceName {
    /// A GPU where there is one and dacpipe is built for it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU; a problem where there is none.
    Cuda,
}

/// What happens to a row that cannot be read: text for a number, NaN, infinity, a missing value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRowName {
    /// The run ends with an error that names file, line and value.
    #[default]
    Fail,
    /// The row goes to a table of bad rows, with file, line and reason, and the run goes on.
    Quarantine,
}

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

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageTable {
    /// Cuts recordings into windows.
    Window(WindowTable),
    /// Computes a feature vector from each window.
    Features(FeaturesTable),
    /// Brings features to a common range.
    Scale(ScaleTable),
    /// Weighs features by how well they tell classes apart (Lu & Li 2021, equation 5), for the autoencoder's loss.
    FeatureWeights(FeatureWeightsTable),
    /// Learns a representation of few values that the features can be rebuilt from.
    Autoencoder(AutoencoderTable),
    /// Finds clusters, and labels every row with its cluster, its distance to the centroid and its margin.
    Kmeans(KmeansTable),
}

/// Cuts recordings into windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowTable {
    /// Samples in a window.
    #[schemars(range(min = 1, max = 16777216))]
    pub length: usize,
    /// Samples from the start of a window to the start of the next.
    #[schemars(range(min = 1, max = 16777216))]
    pub stride: usize,
    /// Where windows are cut. Default "recordings".
    #[serde(default)]
    pub within: WithinName,
}

/// Where windows are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithinName {
    /// Inside each labelled interval, from its first sample on and never past its last.
    Labels,
    /// Over each whole recording, labelled or not.
    #[default]
    Recordings,
}

/// Computes a feature vector from each window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturesTable {
    /// Which features. The other keys are for set = "summary".
    pub set: FeatureSetName,
    /// Statistics in time of each signal. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Vec<Statistic>>,
    /// Statistics of each signal's amplitude spectrum. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<Vec<SpectralStatistic>>,
    /// Into how many equal bands the spectrum is cut, the energy of each of which is a feature; 0 for none. Default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<usize>,
    /// Whether each pair of channels gives a correlation. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlations: Option<bool>,
    /// Groups of channels by name, such as { acceleration = ["x", "y", "z"] }: the Euclidean norm of each is a signal
    /// too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magnitudes: Option<BTreeMap<String, Vec<String>>>,
    /// Whether the derivative in time of each channel, and of each magnitude, is a signal too. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jerk: Option<bool>,
    /// A running median of this odd number of samples over each recording, before anything else. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub median: Option<usize>,
    /// A Butterworth low-pass over each recording, after the median. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_pass: Option<LowPassTable>,
}

/// A Butterworth low-pass over each recording, run forward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LowPassTable {
    /// Its order.
    #[schemars(range(min = 1, max = 20))]
    pub order: usize,
    /// Its corner in Hz, below half the sampling rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cutoff_hz: f64,
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSetName {
    /// The 561 features of the HAPT data set, of three axes of acceleration and three of angular velocity.
    Hapt561,
    /// Statistics and spectra of each channel, of any number of channels.
    Summary,
    /// The window's samples themselves, channel after channel.
    Samples,
}

/// Brings features to a common range, learned from the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleTable {
    /// To which range. Default "min_max".
    #[serde(default)]
    pub method: ScaleMethodName,
}

/// How features are scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleMethodName {
    /// To [0, 1], by the training rows' minimum and maximum.
    #[default]
    MinMax,
    /// To mean 0 and standard deviation 1.
    Standard,
}

/// Weighs features by how well they tell classes apart, for the autoencoder's loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureWeightsTable {
    /// The column of classes. Default: pseudo-labels, the clusters of k-means over the features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The clusters of the pseudo-labels. Default: the k of the kmeans stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000000))]
    pub k: Option<usize>,
    /// Over which pairs of rows. Default "exact", or "sample" where `sample` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<WeightMethodName>,
    /// The rows that method "sample" draws. Default 1000, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub sample: Option<usize>,
}

/// Over which pairs of rows feature weights are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightMethodName {
    /// All pairs of training rows, in one pass.
    Exact,
    /// The pairs of a random sample of the training rows.
    Sample,
    /// None: every feature weighs the same.
    Uniform,
}

/// Learns a representation of few values that the features can be rebuilt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTable {
    /// The widths of the encoder's layers after the input; the last is the width of the representation.
    #[schemars(length(min = 1), inner(range(min = 1, max = 65536)))]
    pub encoder: Vec<usize>,
    /// The widths of the decoder's hidden layers, without its input and its output. Default: the encoder's widths
    /// mirrored, with one more layer next to the representation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 1, max = 65536)))]
    pub decoder: Option<Vec<usize>>,
    /// Passes over the training rows. Default 200.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Rows in a mini-batch. Default 256.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 1048576))]
    pub batch_size: usize,
    /// The step size of Adam in the first epoch, above 0 and at most 1. Default 0.003.
    #[serde(default = "default_learning_rate")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// How the step size falls from epoch to epoch. Default { kind = "cosine" }.
    #[serde(default)]
    pub decay: DecayTable,
    /// The factor of the L2 penalty on the network's weights. Default 1e-5.
    #[serde(default = "default_l2")]
    #[schemars(range(min = 0))]
    pub l2: f64,
    /// What `l2` multiplies: the "norm" of the weights, or the norm "squared" (weight decay). Default "norm".
    #[serde(default)]
    pub l2_form: PenaltyFormName,
    /// When to stop before the last epoch. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStopTable>,
}

/// How the step size falls from epoch to epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DecayTable {
    /// It stays.
    None,
    /// It is multiplied by `rate` after each epoch.
    Exponential {
        /// The factor, above 0 and at most 1.
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        rate: f64,
    },
    /// It follows half a cosine from the start to zero over all epochs.
    #[default]
    Cosine,
    /// It is multiplied by `factor` after every `every` epochs.
    Step {
        /// Epochs between two falls.
        #[schemars(range(min = 1))]
        every: usize,
        /// The factor, above 0 and at most 1.
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        factor: f64,
    },
}

/// What the factor of the L2 penalty multiplies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PenaltyFormName {
    /// The L2 norm of all weights.
    #[default]
    Norm,
    /// Its square, which is weight decay of twice the factor.
    Squared,
}

/// When to stop before the last epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopTable {
    /// Epochs in a row without a better training loss.
    #[schemars(range(min = 1))]
    pub patience: usize,
    /// By which part of the best loss a loss must be lower to count as better: at least 0 and below 1. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub min_delta: f64,
}

fn default_epochs() -> usize {
    200
}

fn default_batch_size() -> usize {
    256
}

fn default_learning_rate() -> f64 {
    0.003
}

fn default_l2() -> f64 {
    1e-5
}

/// Finds clusters and labels every row. The last stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmeansTable {
    /// The number of clusters.
    #[schemars(range(min = 1, max = 1000000))]
    pub k: usize,
    /// How many times k-means starts anew from other seeds; the best one counts. Default 10.
    #[serde(default = "default_starts")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub starts: usize,
    /// The most passes of one start over the rows, or over as many rows in mini-batches. Default 300.
    #[serde(default = "default_max_iterations")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_iterations: usize,
    /// A start ends when the centroids together moved (squared) at most this times the mean variance of a feature; 0: when
    /// no row changes its cluster. Below 1. Default 1e-4.
    #[serde(default = "default_tolerance")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub tolerance: f64,
    /// How centroids are improved. Default "lloyd".
    #[serde(default)]
    pub method: KmeansMethodName,
    /// Rows in a mini-batch of method "mini_batch". Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub batch_size: Option<usize>,
}

fn default_starts() -> usize {
    10
}

fn default_max_iterations() -> usize {
    300
}

fn default_tolerance() -> f64 {
    1e-4
}

/// How centroids are improved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KmeansMethodName {
    /// From all rows in every pass.
    #[default]
    Lloyd,
    /// From one random mini-batch after the other: faster on many rows, a little worse.
    MiniBatch,
}

/// Which rows are learned from, and which are labelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTable {
    /// The value of the split column whose rows are learned from, or "all". Default "all".
    #[serde(default = "default_split")]
    pub fit: String,
    /// The value of the split column whose rows are labelled and evaluated, or "all". Default "all".
    #[serde(default = "default_split")]
    pub label: String,
    /// The split column. Default: the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// The value of `split.fit` and `split.label` that means every row.
pub(super) const ALL: &str = "all";

fn default_split() -> String {
    ALL.into()
}

impl Default for SplitTable {
    fn default() -> Self {
        Self { fit: default_split(), label: default_split(), column: None }
    }
}

/// Where the labels go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkTable {
    /// The directory of the labelled table, local or the URL of an object store. The model and run.json lie beside it.
    pub path: String,
    /// The columns of the source that identify a row of the table. Default: those that identify it in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// The columns by whose values the data files are split, so that a query reads only those that it needs. Default:
    /// none.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// What happens to the rows of earlier runs. Default "overwrite".
    #[serde(default)]
    pub mode: SinkModeName,
    /// Whether the learned representation of each row is written too. Default false.
    #[serde(default)]
    pub embedding: bool,
}

/// What happens to the rows of earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkModeName {
    /// They are replaced, in the same commit that adds the new ones.
    #[default]
    Overwrite,
    /// They stay.
    Append,
}

/// The JSON Schema (2020-12) of a pipeline file.
///
/// ```
/// let schema = dacpipe::config::pipeline_schema();
/// assert_eq!(schema["properties"]["memory_limit"]["default"], "1 GiB");
/// ```
pub fn pipeline_schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().with_transform(without_null).into_generator();
    generator.into_root_schema_for::<PipelineFile>().to_value()
}

/// TOML has no null: an optional key is left out.
fn without_null(schema: &mut Schema) {
    if let Some(types) = schema.get_mut("type").and_then(|types| types.as_array_mut()) {
        types.retain(|name| name != "null");
        if types.len() == 1 {
            let only = types.remove(0);
            schema.insert("type".into(), only);
        }
    }
    if let Some(branches) = schema.get_mut("anyOf").and_then(|branches| branches.as_array_mut()) {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if branches.len() == 1
            && let Some(only) = branches.remove(0).as_object()
        {
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
    transform_subschemas(&mut without_null, schema);
}
