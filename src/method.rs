//! The papers' methods, each a row of blocks: network, pre-training, clustering loss, what is done with the clusters
//! (Aljalbout et al. 2018, Table 1).
//!
//! A row is written as a pipeline file is, and every key of it can be given in a file to replace the row's. What a row
//! follows, the paper or its public code, is said beside it. To add a method is to add a row, and a file in
//! [`loss`](crate::loss) if its clustering loss is a new one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::label::Begin;
use crate::loss::{ErrorMeasure, PenaltyForm, Reduction};
use crate::network::{Activation, CoderSpec, Initialisation, LayerSpec, OptimizerSpec, RowShape, mirror};
use crate::normalize::Normalize;
use crate::train::{Competition, Decay, EarlyStop, RowError, Schedule};

/// A method of a paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Deep embedded clustering (Xie et al. 2016): a pre-trained autoencoder, whose encoder then learns with the centroids
    /// to make its assignments surer.
    #[serde(rename = "dec")]
    Dec,
    /// k autoencoders (Opochinsky et al. 2020): one for each cluster; a row belongs to the one that rebuilds it best.
    #[serde(rename = "k-dae")]
    KDae,
    /// The network of Aljalbout et al. 2018: convolutions, whose reconstruction and assignments are learned together, and
    /// k-means at the end. Rows are images.
    #[serde(rename = "aljalbout")]
    Aljalbout,
}

/// The recipe of a careful reimplementation (DEC-keras), whose figures are better than the paper's: pixels in [0, 1], all
/// layers pre-trained at once.
const DEC: &str = r#"
    initialisation = "fan_in"
    output = "identity"
    n_init = 20
    afterwards = "keep"
    encoder = [
        { kind = "dense", outputs = 500, activation = "relu" },
        { kind = "dense", outputs = 500, activation = "relu" },
        { kind = "dense", outputs = 2000, activation = "relu" },
        { kind = "dense", outputs = 10 },
    ]
    [pretraining]
    epochs = 300
    learning_rate = 1.0
    optimizer = { kind = "sgd", momentum = 0.9 }
    decay = { kind = "none" }
    [clustering]
    loss = "hardening"
    epochs = 73                     # 20 000 steps on MNIST
    learning_rate = 0.01
    optimizer = { kind = "sgd", momentum = 0.9 }
    decay = { kind = "none" }
    refresh = 140
    tolerance = 0.001
"#;

/// Its authors' code: the paper's text has other widths, 1024-256-10.
const K_DAE: &str = r#"
    output = "sigmoid"
    n_init = 100
    afterwards = "keep"
    encoder = [
        { kind = "dense", outputs = 500 }, { kind = "batch_norm" }, { kind = "activation", activation = "elu" },
        { kind = "dense", outputs = 500 }, { kind = "batch_norm" }, { kind = "activation", activation = "elu" },
        { kind = "dense", outputs = 2000 }, { kind = "batch_norm" }, { kind = "activation", activation = "elu" },
        { kind = "dense", outputs = 10 },
    ]
    [pretraining]
    loss = "bce"
    epochs = 80
    learning_rate = 0.001
    optimizer = { kind = "adam" }
    decay = { kind = "none" }
    early_stop = { patience = 10 }
    [clustering]
    loss = "experts"
    epochs = 40
    learning_rate = 0.001
    optimizer = { kind = "adam" }
    decay = { kind = "none" }
    [clustering.expert]
    loss = "bce"
    epochs = 10
    encoder = [
        { kind = "dense", outputs = 500 }, { kind = "batch_norm" }, { kind = "activation", activation = "elu" },
        { kind = "dense", outputs = 100 }, { kind = "batch_norm" }, { kind = "activation", activation = "elu" },
        { kind = "dense", outputs = 10 },
    ]
"#;

/// Its authors' code; the paper gives learning rate and momentum. The sigmoid at the end is ours: pixels are in [0, 1].
const ALJALBOUT: &str = r#"
    output = "sigmoid"                  # without it the learning rate is too high: the loss becomes no number
    n_init = 20
    afterwards = "kmeans"
    encoder = [
        { kind = "conv2d", channels = 50, kernel = 5 }, { kind = "batch_norm" }, { kind = "activation", activation = "relu" },
        { kind = "max_pool2d", size = 2 },
        { kind = "conv2d", channels = 50, kernel = 5 }, { kind = "batch_norm" }, { kind = "activation", activation = "relu" },
        { kind = "max_pool2d", size = 2 },
        { kind = "conv2d", channels = 120, kernel = 4 }, { kind = "batch_norm" },
    ]
    [pretraining]
    epochs = 100
    batch_size = 100
    learning_rate = 0.01
    optimizer = { kind = "sgd", momentum = 0.9, nesterov = true }
    decay = { kind = "exponential", rate = 0.9999 }
    l2 = 2.5e-5
    l2_form = "squared"
    [clustering]
    loss = "hardening"
    over_rows = "sum"
    reconstruction = 1.0
    epochs = 50
    batch_size = 100
    learning_rate = 0.01
    optimizer = { kind = "sgd", momentum = 0.9, nesterov = true }
    decay = { kind = "exponential", rate = 0.9999 }
    l2 = 2.5e-5
    l2_form = "squared"
"#;

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dec, Self::KDae, Self::Aljalbout];

    /// Its row, as a pipeline file has it.
    pub fn row(self) -> &'static str {
        match self {
            Self::Dec => DEC,
            Self::KDae => K_DAE,
            Self::Aljalbout => ALJALBOUT,
        }
    }
}

/// What is done with the clusters that were learned with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Afterwards {
    /// They are kept.
    Keep,
    /// k-means looks for clusters of the embeddings anew.
    #[serde(rename = "kmeans")]
    KMeans,
}

/// How long and how fast something learns, and by which rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows in a mini-batch.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// The learning rate in the first epoch.
    pub learning_rate: f64,
    /// Which rule moves parameters.
    pub optimizer: OptimizerSpec,
    /// How the learning rate falls.
    #[serde(default)]
    pub decay: Decay,
    /// The factor of the L2 penalty on the network's parameters.
    #[serde(default)]
    pub l2: f64,
    /// What that factor multiplies.
    #[serde(default = "squared")]
    pub l2_form: PenaltyForm,
    /// When to stop before the last epoch.
    #[serde(default)]
    pub early_stop: Option<EarlyStop>,
}

fn default_batch_size() -> usize {
    256
}

fn squared() -> PenaltyForm {
    PenaltyForm::Squared
}

impl TrainingSpec {
    /// How long and how fast.
    pub fn schedule(&self) -> Schedule {
        let &Self { epochs, batch_size, learning_rate, decay, early_stop, .. } = self;
        Schedule { epochs, batch_size, learning_rate, decay, early_stop }
    }
}

/// How a network learns to rebuild rows, before there are clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PretrainingSpec {
    /// The reconstruction's error of a value.
    #[serde(default)]
    pub loss: ErrorMeasure,
    /// How the errors of a row's values become one.
    #[serde(default)]
    pub over_values: Reduction,
    /// The factor of the reconstruction's loss.
    #[serde(default = "one")]
    pub reconstruction: f64,
    /// The factor of the [`CoordinateLoss`](crate::loss::CoordinateLoss), where a manifold stage laid the rows out.
    #[serde(default = "one")]
    pub coordinates: f64,
    /// Epochs in which each layer learns alone, before all learn together; 0 for none.
    #[serde(default)]
    pub layerwise_epochs: usize,
    /// How long and how fast.
    #[serde(flatten)]
    pub training: TrainingSpec,
}

/// Which loss draws rows into clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClusteringLossName {
    /// Assignments become surer (Xie et al. 2016): see [`Hardening`](crate::loss::Hardening).
    Hardening,
    /// An autoencoder for each cluster (Opochinsky et al. 2020).
    Experts,
}

/// How network and clusters are learned together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusteringSpec {
    /// The clustering loss.
    pub loss: ClusteringLossName,
    /// Its factor.
    #[serde(default = "one")]
    pub factor: f64,
    /// The factor of the reconstruction's loss beside it; 0: the decoder no longer learns.
    #[serde(default)]
    pub reconstruction: f64,
    /// Whether the clustering loss is the mean or the sum over the rows of a mini-batch.
    #[serde(default)]
    pub over_rows: Reduction,
    /// Steps from one look at all rows to the next; none: an epoch.
    #[serde(default)]
    pub refresh: Option<u64>,
    /// Learning ends when at most this part of the rows has another cluster than at the last look.
    #[serde(default)]
    pub tolerance: f64,
    /// With the loss "experts": how a row's errors become its loss.
    #[serde(default)]
    pub competition: Competition,
    /// With the loss "experts": how far a row is from its reconstruction.
    #[serde(default)]
    pub error: RowError,
    /// With the loss "experts": the autoencoder of a cluster.
    #[serde(default)]
    pub expert: Option<ExpertSpec>,
    /// How long and how fast.
    #[serde(flatten)]
    pub training: TrainingSpec,
}

/// The autoencoder of a cluster, and how it learns from the rows of the cluster before all learn together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertSpec {
    /// From a row to its embedding.
    pub encoder: Vec<LayerSpec>,
    /// The way back; none: the encoder's mirror.
    #[serde(default)]
    pub decoder: Option<Vec<LayerSpec>>,
    /// The reconstruction's error of a value.
    #[serde(default)]
    pub loss: ErrorMeasure,
    /// Passes over the rows of the cluster; 0: it begins from random weights.
    pub epochs: usize,
}

fn one() -> f64 {
    1.0
}

/// A method as it runs: its row with what a pipeline file says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodSpec {
    /// Whose row it is.
    pub method: Method,
    /// The number of clusters.
    pub k: usize,
    /// The shape of a row; none: values in no order.
    #[serde(default)]
    pub shape: Option<Vec<usize>>,
    /// From a row to its embedding.
    pub encoder: Vec<LayerSpec>,
    /// The way back; none: the encoder's mirror.
    #[serde(default)]
    pub decoder: Option<Vec<LayerSpec>>,
    /// The activation at the end of a mirror.
    #[serde(default)]
    pub output: Activation,
    /// What weights start from.
    #[serde(default)]
    pub initialisation: Initialisation,
    /// How often k-means is run from new initial centroids, where clusters begin and where they are looked for afterwards.
    pub n_init: usize,
    /// Where k-means looks for clusters first.
    #[serde(default)]
    pub begin: Begin,
    /// How embeddings are normalised for k-means.
    #[serde(default)]
    pub normalize: Normalize,
    /// What is done with the clusters.
    pub afterwards: Afterwards,
    /// How the network learns before there are clusters.
    pub pretraining: PretrainingSpec,
    /// How network and clusters learn together.
    pub clustering: ClusteringSpec,
}

impl MethodSpec {
    /// The row of `method` with `given` in place of what it says, key by key; lists are replaced as a whole.
    ///
    /// ```
    /// use dacpipe::method::{Method, MethodSpec};
    /// let given = serde_json::json!({ "k": 12, "pretraining": { "epochs": 5 } });
    /// let spec = MethodSpec::of(Method::Dec, &given)?;
    /// assert_eq!((spec.k, spec.pretraining.training.epochs, spec.pretraining.training.learning_rate), (12, 5, 1.0));
    /// assert_eq!(spec.coder(561)?.shapes().map(|(encoder, _)| encoder[4].len()), Ok(10));
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind `Config` for a key or a value that there is not.
    pub fn of(method: Method, given: &Value) -> Result<Self> {
        let wrong = |e: String| Error::config(format!("method {}: {e}", name_of(method)));
        let row: toml::Table = method.row().parse().map_err(|e: toml::de::Error| Error::internal(e.to_string()))?;
        let mut row = serde_json::to_value(row).map_err(|e| wrong(e.to_string()))?;
        merge(&mut row, given);
        row["method"] = Value::from(name_of(method));
        serde_json::from_value(row).map_err(|e| wrong(e.to_string()))
    }

    /// What each layer makes of a row whose shape the method knows, for people: none where it is only known from the rows.
    ///
    /// ```
    /// use dacpipe::method::{Method, MethodSpec};
    /// let given = serde_json::json!({ "k": 10, "shape": [1, 28, 28] });
    /// let lines = MethodSpec::of(Method::Aljalbout, &given)?.layers();
    /// assert!(lines[0].starts_with("encoder: [1, 28, 28] conv2d [50, 24, 24] batch_norm [50, 24, 24]"), "{}", lines[0]);
    /// assert!(lines[1].ends_with("conv_transpose2d [1, 28, 28]"), "{}", lines[1]);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn layers(&self) -> Vec<String> {
        let Some(dim) = self.shape.as_ref().map(|shape| shape.iter().product()) else { return Vec::new() };
        let mut lines = Vec::new();
        let networks = [("", self.coder(dim).ok()), ("expert's ", self.expert(dim).ok().flatten())];
        for (whose, coder) in networks {
            let Some((coder, (there, back))) = coder.and_then(|coder| Some((coder.clone(), coder.shapes().ok()?)))
            else {
                continue;
            };
            for (part, layers, shapes) in [("encoder", &coder.encoder, there), ("decoder", &coder.decoder, back)] {
                let made = layers.iter().zip(&shapes[1..]).map(|(layer, shape)| format!(" {} {shape}", layer.kind()));
                lines.push(format!("{whose}{part}: {}{}", shapes[0], made.collect::<String>()));
            }
        }
        lines
    }

    /// The network for rows of `dim` values.
    ///
    /// # Errors
    /// Kind `Config` for layers that do not fit, with their shapes, or a shape of another number of values.
    pub fn coder(&self, dim: usize) -> Result<CoderSpec> {
        self.network(dim, &self.encoder, self.decoder.as_deref())
    }

    /// The width of the embedding, where the layers tell it without the rows.
    ///
    /// ```
    /// use dacpipe::method::{Method, MethodSpec};
    /// let given = serde_json::json!({ "k": 10, "shape": [1, 28, 28] });
    /// assert_eq!(MethodSpec::of(Method::Aljalbout, &given)?.embedding_width(), Some(120));
    /// assert_eq!(MethodSpec::of(Method::Dec, &serde_json::json!({ "k": 10 }))?.embedding_width(), Some(10));
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn embedding_width(&self) -> Option<usize> {
        // Layers that end in a dense one make the same width of rows of any.
        let dim = self.shape.as_ref().map_or(1, |shape| shape.iter().product());
        self.coder(dim).ok().map(|coder| coder.dim_embedding())
    }

    /// The autoencoder of a cluster for rows of `dim` values, if the method has one for each.
    ///
    /// # Errors
    /// As [`coder`](Self::coder).
    pub fn expert(&self, dim: usize) -> Result<Option<CoderSpec>> {
        let expert = self.clustering.expert.as_ref();
        expert.map(|expert| self.network(dim, &expert.encoder, expert.decoder.as_deref())).transpose()
    }

    fn network(&self, dim: usize, encoder: &[LayerSpec], decoder: Option<&[LayerSpec]>) -> Result<CoderSpec> {
        let input = match &self.shape {
            None => RowShape::flat(dim),
            Some(extents) => RowShape::of(extents).ok_or_else(|| {
                Error::config(format!("shape {extents:?} is no [values] and no [channels, height, width]"))
            })?,
        };
        if input.len() != dim {
            let values = input.len();
            return Err(Error::config(format!("shape {input} has {values} values, rows have {dim}")));
        }
        let hint = |problem: String| match problem.contains("needs an image") && self.shape.is_none() {
            true => Error::config(format!("{problem}; if rows are images, say so: shape = [channels, height, width]")),
            false => Error::config(problem),
        };
        let decoder = match decoder {
            Some(decoder) => decoder.to_vec(),
            None => mirror(&input, encoder, self.output)
                .map_err(|(at, problem)| hint(format!("layer {at} of the encoder: {problem}")))?,
        };
        let spec = CoderSpec { input, encoder: encoder.to_vec(), decoder, initialisation: self.initialisation };
        spec.shapes().map_err(hint)?;
        Ok(spec)
    }
}

/// Puts what `given` has in place of what `row` has, table by table.
fn merge(row: &mut Value, given: &Value) {
    match (row, given) {
        (Value::Object(row), Value::Object(given)) => {
            for (key, value) in given {
                match row.get_mut(key) {
                    // A table with a kind is one value: an optimizer's keys are not another's.
                    Some(there) if value.get("kind").is_none() => merge(there, value),
                    _ => drop(row.insert(key.clone(), value.clone())),
                }
            }
        }
        (row, given) => *row = given.clone(),
    }
}

fn name_of(method: Method) -> String {
    serde_json::to_value(method).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_is_whole_and_its_layers_fit() {
        for method in Method::ALL {
            let shape = matches!(method, Method::Aljalbout).then(|| vec![1, 28, 28]);
            let spec = MethodSpec::of(method, &json!({ "k": 10, "shape": shape })).unwrap();
            let coder = spec.coder(784).unwrap();
            assert!(coder.parameter_count() > 100_000, "{method:?}");
            assert_eq!(spec.expert(784).unwrap().is_some(), method == Method::KDae);
        }
    }

    #[test]
    fn a_key_of_the_file_replaces_the_row_s() {
        let given = json!({
            "k": 3,
            "encoder": [{ "kind": "dense", "outputs": 4 }],
            "clustering": { "optimizer": { "kind": "adam" }, "epochs": 2 },
        });
        let spec = MethodSpec::of(Method::Dec, &given).unwrap();
        assert_eq!(spec.encoder.len(), 1);
        assert_eq!((spec.clustering.training.epochs, spec.clustering.refresh), (2, Some(140)));
        assert!(matches!(spec.clustering.training.optimizer, OptimizerSpec::Adam { .. }));
        assert!(matches!(spec.pretraining.training.optimizer, OptimizerSpec::Sgd { .. }));
    }

    #[test]
    fn rows_that_are_no_images_are_named() {
        let spec = MethodSpec::of(Method::Aljalbout, &json!({ "k": 10 })).unwrap();
        let e = spec.coder(561).unwrap_err().to_string();
        assert!(e.contains("conv2d needs an image") && e.contains("shape = [channels, height, width]"), "{e}");
        let spec = MethodSpec::of(Method::Aljalbout, &json!({ "k": 10, "shape": [1, 28, 28] })).unwrap();
        assert!(spec.coder(561).unwrap_err().to_string().contains("has 784 values, rows have 561"));
    }
}
