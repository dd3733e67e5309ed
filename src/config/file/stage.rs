//! `[[stage]]`: the kinds of stages, and the stages with few keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scale::ScaleSpec;
use crate::train::AutoencoderSpec;

use super::{DeepClusteringTable, FeaturesTable, KmeansTable, ManifoldTable, WindowTable};

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageTable {
    /// Cuts recordings into windows.
    Window(WindowTable),
    /// Computes a feature vector from each window.
    Features(FeaturesTable),
    /// Brings features to a common range.
    Scale(ScaleSpec),
    /// Weighs features by how well they tell classes apart, for the autoencoder's loss.
    FeatureWeights(FeatureWeightsTable),
    /// Lays the training rows out so that neighbours lie together, for the autoencoder to learn that layout.
    Manifold(ManifoldTable),
    /// Learns a representation of few values that the features can be rebuilt from.
    Autoencoder(AutoencoderSpec),
    /// Learns a network and clusters by a paper's method, and labels every row.
    DeepClustering(Box<DeepClusteringTable>),
    /// Finds clusters, and gives every row its cluster, its distance to the centroid and its margin.
    Kmeans(KmeansTable),
}

/// Weighs features by how well they tell classes apart, for the autoencoder's loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureWeightsTable {
    /// The label column. Default: pseudo-labels, the clusters of k-means over the features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The number of clusters for the pseudo-labels. Default: the k of the kmeans stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000000))]
    pub k: Option<usize>,
    /// How weights are computed. Default "pairwise".
    #[serde(default)]
    pub method: WeightMethodName,
    /// How many rows are drawn at random to compute the weights; the paper draws 1000. Default: all training rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub sample: Option<usize>,
}

/// How feature weights are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightMethodName {
    /// By how similar rows of the same class are, and how different rows of different classes (Lu & Li 2021, equation
    /// 5).
    #[default]
    Pairwise,
    /// By the fraction of a feature's variance that lies between the means of the classes.
    Fisher,
    /// Not at all: every feature weighs the same.
    Uniform,
}
