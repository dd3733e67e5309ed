//! `[[stage]]` of kind `manifold`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifold::Metric;

/// Lays the training rows out so that neighbours lie together (UMAP, McInnes et al. 2018), for the autoencoder to learn
/// that layout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifoldTable {
    /// Rows in a neighbourhood, including the row itself: larger neighbourhoods show coarser structure. Default 15.
    #[serde(default = "default_neighbors")]
    #[schemars(range(min = 2, max = 1000))]
    pub neighbors: usize,
    /// Dimensions of the layout. Default, and the only value that works: the width of the autoencoder's embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 512))]
    pub dim: Option<usize>,
    /// The least distance between neighbours in the layout; 0 packs them tight, which suits clusters. Default 0.1.
    #[serde(default = "default_min_dist")]
    #[schemars(range(min = 0, max = 1))]
    pub min_dist: f64,
    /// Epochs of the layout. Default 500 up to 10 000 rows, 200 beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub epochs: Option<usize>,
    /// Rows that a row is pushed away from, for each neighbour that it is pulled to. Default 5.
    #[serde(default = "default_negative_samples")]
    #[schemars(range(min = 1, max = 1000))]
    pub negative_samples: usize,
    /// The distance between rows. Default "euclidean".
    #[serde(default)]
    pub metric: Metric,
    /// Whether features count in distances by the weights of the feature_weights stage. Default false.
    #[serde(default)]
    pub weighted: bool,
    /// The most rows that are laid out. Of more rows a random sample is laid out, and the autoencoder places the rest.
    /// Default 200000.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 3, max = 100000000))]
    pub max_rows: usize,
}

fn default_neighbors() -> usize {
    15
}

fn default_min_dist() -> f64 {
    0.1
}

fn default_negative_samples() -> usize {
    5
}

fn default_max_rows() -> usize {
    200_000
}
