//! `[[stage]]`: the kinds of stages, and those with few keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AutoencoderTable, FeaturesTable, KmeansTable, WindowTable};

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
