//! What is needed to go on after an interrupt with the same bits.

use serde_json::json;

use crate::device::{StepLoss, TrainerState};
use crate::error::{Error, Result};
use crate::stage::{Artifact, Tensor};

/// The state at the end of an epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// The losses of each epoch so far.
    pub losses: Vec<StepLoss>,
    /// The trainer's.
    pub trainer: TrainerState,
}

impl State {
    pub fn to_artifact(&self) -> Artifact {
        let TrainerState { steps, parameters, first, second } = &self.trainer;
        let tensor = |values: &Vec<f32>| Tensor { shape: vec![values.len()], values: values.clone() };
        // As bits: a decimal number might come back as its neighbour.
        let bits = |loss: &StepLoss| [loss.reconstruction.to_bits(), loss.embedding.to_bits()];
        let losses: Vec<[u64; 2]> = self.losses.iter().map(bits).collect();
        let settings = [("steps", json!(steps)), ("loss_bits", json!(losses))];
        let tensors = [("parameters", parameters), ("first", first), ("second", second)];
        Artifact {
            settings: settings.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
            tensors: tensors.into_iter().map(|(name, values)| (name.to_string(), tensor(values))).collect(),
        }
    }

    /// The state that `artifact` holds, for a network of `len` parameters.
    ///
    /// # Errors
    /// Kind `Model` if something is missing or does not fit.
    pub fn from_artifact(artifact: &Artifact, len: usize) -> Result<Self> {
        let damaged = |what: &str| Error::model(format!("the checkpoint of the autoencoder has no usable {what}"));
        let tensor = |name: &str| {
            let tensor = artifact.tensors.get(name).ok_or_else(|| damaged(name))?;
            match tensor.values.len() == len {
                true => Ok(tensor.values.clone()),
                false => Err(Error::model(format!(
                    "the checkpoint of the autoencoder has {} values of {name}, this network has {len}",
                    tensor.values.len()
                ))),
            }
        };
        let bits = artifact.settings.get("loss_bits").ok_or_else(|| damaged("loss_bits"))?;
        let bits: Vec<[u64; 2]> = serde_json::from_value(bits.clone()).map_err(|_| damaged("loss_bits"))?;
        let loss = |[reconstruction, embedding]: [u64; 2]| StepLoss {
            reconstruction: f64::from_bits(reconstruction),
            embedding: f64::from_bits(embedding),
        };
        Ok(Self {
            losses: bits.into_iter().map(loss).collect(),
            trainer: TrainerState {
                steps: artifact.settings.get("steps").and_then(|v| v.as_u64()).ok_or_else(|| damaged("steps"))?,
                parameters: tensor("parameters")?,
                first: tensor("first")?,
                second: tensor("second")?,
            },
        })
    }
}
