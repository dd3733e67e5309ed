//! `[[stage]]` of kind `autoencoder`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loss::PenaltyForm;
use crate::train::{Decay, EarlyStop};

/// Learns an embedding: a few values from which the features can be reconstructed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderTable {
    /// The widths of the encoder's layers after the input; the last is the width of the embedding.
    #[schemars(length(min = 1), inner(range(min = 1, max = 65536)))]
    pub encoder: Vec<usize>,
    /// The widths of the decoder's hidden layers, without its input and its output. Default: the encoder's widths
    /// mirrored, with one more layer next to the embedding.
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
    /// The learning rate of Adam in the first epoch, above 0 and at most 1. Default 0.003.
    #[serde(default = "default_learning_rate")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// How the learning rate falls from epoch to epoch. Default { kind = "cosine" }.
    #[serde(default)]
    pub decay: Decay,
    /// The factor of the L2 penalty on the network's weights. Default 1e-5.
    #[serde(default = "default_l2")]
    #[schemars(range(min = 0))]
    pub l2: f64,
    /// What `l2` multiplies: the "norm" of the weights, or the norm "squared" (weight decay). Default "norm".
    #[serde(default)]
    pub l2_form: PenaltyForm,
    /// When to stop before the last epoch. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Whether the model keeps the decoder, which reconstructs rows from their embeddings. Without it there is no
    /// reconstruction and no reconstruction error. Default true.
    #[serde(default = "default_keep_decoder")]
    pub keep_decoder: bool,
    /// The factor of the reconstruction error in the loss. Default 1.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 0))]
    pub reconstruction: f64,
    /// The factor in the loss of the distance between a row's embedding and its coordinates in the manifold stage's
    /// layout. Default 1, where there is such a stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub coordinates: Option<f64>,
    /// The fraction of the rows of the layout that is held out to measure how well new rows follow it; at most 1000
    /// rows. Default 0.05, where there is a manifold stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub hold_out: Option<f64>,
}

fn default_factor() -> f64 {
    1.0
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

fn default_keep_decoder() -> bool {
    true
}
