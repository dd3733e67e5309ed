//! `[[stage]]` of kind `autoencoder`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Whether the model has the decoder too, which rebuilds rows from their representations: without it there is no
    /// reconstruction and no reconstruction error. Default true.
    #[serde(default = "default_keep_decoder")]
    pub keep_decoder: bool,
    /// The factor of the reconstruction's error in the loss. Default 1.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 0))]
    pub reconstruction: f64,
    /// The factor in the loss of the distance from where the manifold stage laid a row. Default 1, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub coordinates: Option<f64>,
    /// The part of the rows of a manifold that is not learned from, but used to measure how well new rows follow the
    /// layout; at most 1000 rows. Default 0.05, where there is one.
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
