//! Training with the fused trainer of a device: dense autoencoders with a reconstruction loss and target coordinates of
//! the embedding.

use serde_json::json;

use super::epochs::Learner;
use crate::device::{Met, StepLoss, StepSettings, Trainer, TrainerState};
use crate::error::{Error, Result};
use crate::loss::{EmbeddingLoss, L2Penalty};
use crate::stage::{Artifact, Tensor};

/// A trainer with the settings of its steps.
pub(super) struct Fused<'a> {
    pub trainer: Box<dyn Trainer + 'a>,
    pub penalty: L2Penalty,
    /// The factor of the reconstruction error.
    pub reconstruction: f64,
    /// The factor of the loss at the embedding, which already includes it.
    pub factor: f64,
    pub embedding: Option<&'a dyn EmbeddingLoss>,
    /// Steps taken.
    pub steps: u64,
}

impl Learner for Fused<'_> {
    fn load(&mut self, batch: &[u32]) -> Result<()> {
        self.trainer.load(batch)
    }

    fn step(&mut self, next: &[u32], learning_rate: f64) -> Result<Option<StepLoss>> {
        let &mut Self { penalty, reconstruction, embedding, .. } = self;
        self.steps += 1;
        self.trainer.step_ahead(next, &StepSettings { learning_rate, penalty, reconstruction, embedding })
    }

    fn met(&mut self) -> Result<Met> {
        self.trainer.met()
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        self.reconstruction * loss.reconstruction + self.factor * loss.embedding
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Result<Artifact> {
        let TrainerState { steps, parameters, first, second } = self.trainer.state()?;
        let tensor = |values: Vec<f32>| Tensor { shape: vec![values.len()], values };
        let tensors = [("parameters", parameters), ("first", first), ("second", second)];
        Ok(Artifact {
            settings: [("steps".to_owned(), json!(steps))].into_iter().collect(),
            tensors: tensors.into_iter().map(|(name, values)| (name.to_owned(), tensor(values))).collect(),
        })
    }

    fn restore(&mut self, state: &Artifact) -> Result<()> {
        let len = self.trainer.state()?.parameters.len();
        let damaged = |what: &str| Error::model(format!("the checkpoint of the autoencoder has no usable {what}"));
        let tensor = |name: &str| {
            let tensor = state.tensors.get(name).ok_or_else(|| damaged(name))?;
            match tensor.values.len() == len {
                true => Ok(tensor.values.clone()),
                false => Err(Error::model(format!(
                    "the checkpoint of the autoencoder has {} values of {name}, this network has {len}",
                    tensor.values.len()
                ))),
            }
        };
        self.steps = state.settings.get("steps").and_then(|v| v.as_u64()).ok_or_else(|| damaged("steps"))?;
        self.trainer.restore(&TrainerState {
            steps: self.steps,
            parameters: tensor("parameters")?,
            first: tensor("first")?,
            second: tensor("second")?,
        })
    }
}
