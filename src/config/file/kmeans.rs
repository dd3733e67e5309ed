//! `[[stage]]` of kind `kmeans`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::HalfLifeSetting;
use crate::label::Begin;
use crate::normalize::Normalize;

/// Finds clusters and labels every row. The last stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmeansTable {
    /// The number of clusters.
    #[schemars(range(min = 1, max = 1000000))]
    pub k: usize,
    /// How many times k-means is run from new initial centroids; the best run counts. Default 10.
    #[serde(default = "default_n_init")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub n_init: usize,
    /// The most passes over the rows in one run of k-means, or over as many rows in mini-batches. Not for method "online",
    /// which passes once. Default 300.
    #[serde(default = "default_max_iterations")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_iterations: usize,
    /// A run of k-means ends when the sum of the centroids' squared moves is at most this times the mean variance of a
    /// feature; with 0, when no row changes its cluster. Below 1. Not for method "online". Default 1e-4.
    #[serde(default = "default_tolerance")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub tolerance: f64,
    /// How centroids are improved. Default "lloyd".
    #[serde(default)]
    pub method: KmeansMethodName,
    /// How the vectors are normalized first, as learned from the training rows. Default "none".
    #[serde(default)]
    pub normalize: Normalize,
    /// What the clusters are looked for in first. Default "vectors".
    #[serde(default)]
    pub begin: Begin,
    /// Rows in a batch of the methods "mini_batch" and "online". Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub batch_size: Option<usize>,
    /// By what the weight of the rows so far is multiplied when a batch of method "online" comes: 1 forgets nothing, 0 all
    /// before the batch. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub decay: Option<f64>,
    /// After how much a row counts half in method "online", in place of `decay`: "5000 rows" or "20 batches". Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_life: Option<HalfLifeSetting>,
}

fn default_n_init() -> usize {
    10
}

pub(in crate::config) fn default_max_iterations() -> usize {
    300
}

pub(in crate::config) fn default_tolerance() -> f64 {
    1e-4
}

/// How centroids are improved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KmeansMethodName {
    /// With all rows in every pass.
    #[default]
    Lloyd,
    /// With one random mini-batch after the other: faster on many rows, a little worse.
    MiniBatch,
    /// With every batch of rows once, in order; later rows count more if earlier ones are forgotten.
    Online,
}
