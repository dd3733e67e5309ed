//! `[[stage]]` of kind `deep_clustering`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::label::Begin;
use crate::loss::{ErrorMeasure, PenaltyForm, Reduction};
use crate::method::{Afterwards, ClusteringLossName, Method};
use crate::network::{Activation, Initialisation, LayerSpec, OptimizerSpec};
use crate::normalize::Normalize;
use crate::train::{Competition, Decay, EarlyStop, RowError};

/// Learns a network and clusters by a published method, and assigns every row to a cluster. It takes the place of the
/// stages autoencoder and kmeans. The default of every key is the method's own recipe (`src/method.rs`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeepClusteringTable {
    /// Which published method.
    pub method: Method,
    /// The number of clusters.
    #[schemars(range(min = 1, max = 1000000))]
    pub k: usize,
    /// The shape of a row: `[values]`, or `[channels, height, width]` for an image. Default: values in no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), inner(range(min = 1)))]
    pub shape: Option<Vec<usize>>,
    /// The layers from a row to its embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub encoder: Option<Vec<LayerSpec>>,
    /// The layers from the embedding back to the row. Default: the encoder's mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub decoder: Option<Vec<LayerSpec>>,
    /// The activation function at the end of a mirrored decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Activation>,
    /// How the weights are initialised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialisation: Option<Initialisation>,
    /// How many times k-means is run from new initial centroids, to initialise the clusters and to find them
    /// at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub n_init: Option<usize>,
    /// Where k-means looks for clusters first. Default "vectors".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Begin>,
    /// What is done to embeddings before k-means, as learned from the training rows. Default "none".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// What is done with the clusters that were learned with the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub afterwards: Option<Afterwards>,
    /// How the network is pre-trained to reconstruct rows, before there are clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<PretrainingTable>,
    /// How network and clusters are learned together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clustering: Option<ClusteringTable>,
}

/// How the network is pre-trained to reconstruct rows, before there are clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PretrainingTable {
    /// The reconstruction error of a value: "mse", or "bce" for values in [0, 1] and a decoder that ends in a sigmoid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<ErrorMeasure>,
    /// Whether the error of a row is the mean or the sum of its values' errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_values: Option<Reduction>,
    /// The factor of the reconstruction's loss. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub reconstruction: Option<f64>,
    /// The factor of the distance between a row's embedding and its coordinates, where a manifold stage lays rows out.
    /// Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub coordinates: Option<f64>,
    /// Epochs in which each layer learns alone, before all learn together; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layerwise_epochs: Option<usize>,
    /// How long and how fast.
    #[serde(flatten)]
    pub training: TrainingTable,
}

/// How network and clusters are learned together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusteringTable {
    /// The clustering loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<ClusteringLossName>,
    /// The factor of the clustering loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub factor: Option<f64>,
    /// The factor of the reconstruction loss beside it; with 0 the decoder no longer learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub reconstruction: Option<f64>,
    /// Whether the clustering loss is the mean or the sum over the rows of a mini-batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_rows: Option<Reduction>,
    /// Steps between two passes over all rows, which update the clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub refresh: Option<u64>,
    /// Learning ends when at most this fraction of the rows has changed its cluster since the last such pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub tolerance: Option<f64>,
    /// With the loss "experts": a row's loss is its least error ("hard"), or `-log sum exp(-error)` ("soft").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub competition: Option<Competition>,
    /// With the loss "experts": the reconstruction error of a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RowError>,
    /// With the loss "experts": the autoencoder of each cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<ExpertTable>,
    /// How long and how fast.
    #[serde(flatten)]
    pub training: TrainingTable,
}

/// How long and how fast a network learns, and with which optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingTable {
    /// Passes over the training rows; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Rows in a mini-batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1048576))]
    pub batch_size: Option<usize>,
    /// The learning rate in the first epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100), extend("exclusiveMinimum" = 0))]
    pub learning_rate: Option<f64>,
    /// The optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerSpec>,
    /// How the learning rate falls from epoch to epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
    /// The factor of the L2 penalty on the network's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub l2: Option<f64>,
    /// What `l2` multiplies: the "norm" of the parameters, or the norm "squared" (weight decay of twice the factor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_form: Option<PenaltyForm>,
    /// When to stop before the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// The autoencoder of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpertTable {
    /// The layers from a row to its embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub encoder: Option<Vec<LayerSpec>>,
    /// The layers from the embedding back to the row. Default: the encoder's mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub decoder: Option<Vec<LayerSpec>>,
    /// The reconstruction error of a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<ErrorMeasure>,
    /// Epochs on the rows of its own cluster, before all autoencoders compete; with 0 they begin from random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
}
