//! The state of a training, from which it can be resumed with the same bits.

use serde_json::json;

use crate::device::StepLoss;
use crate::error::{Error, Result};
use crate::stage::Artifact;

/// The prefix of the names of tensors of the best state.
const BEST: &str = "best.";
/// The prefix of the names of tensors of the last state.
const LAST: &str = "last.";

/// The state at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct State {
    /// The losses of each epoch so far.
    pub losses: Vec<StepLoss>,
    /// The learner's state.
    pub learner: Artifact,
    /// The learner's state after the epoch with the least loss, if it is kept.
    pub best: Option<Artifact>,
}

impl State {
    /// A state before the first epoch.
    pub fn fresh(learner: Artifact) -> Self {
        Self { learner, ..Self::default() }
    }

    /// Makes a checkpoint, with the settings of `context` added.
    pub fn to_artifact(&self, context: &Artifact) -> Artifact {
        let mut artifact = context.clone();
        // As bits, since decimal numbers might be rounded.
        let bits = |loss: &StepLoss| [loss.reconstruction.to_bits(), loss.embedding.to_bits()];
        let losses: Vec<[u64; 2]> = self.losses.iter().map(bits).collect();
        artifact.settings.insert("loss_bits".into(), json!(losses));
        for (prefix, state) in [(LAST, Some(&self.learner)), (BEST, self.best.as_ref())] {
            let Some(Artifact { settings, tensors }) = state else { continue };
            let key = prefix.trim_end_matches('.').to_owned();
            artifact.settings.insert(key, settings.clone().into());
            artifact.tensors.extend(tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())));
        }
        artifact
    }

    /// The state in a checkpoint.
    ///
    /// # Errors
    /// Kind `Model` if something is missing or does not fit.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let damaged = |what: &str| Error::model(format!("the checkpoint of the training has no usable {what}"));
        let bits = artifact.settings.get("loss_bits").ok_or_else(|| damaged("loss_bits"))?;
        let bits: Vec<[u64; 2]> = serde_json::from_value(bits.clone()).map_err(|_| damaged("loss_bits"))?;
        let loss = |[reconstruction, embedding]: [u64; 2]| StepLoss {
            reconstruction: f64::from_bits(reconstruction),
            embedding: f64::from_bits(embedding),
        };
        let part = |prefix: &str| {
            let settings = artifact.settings.get(prefix.trim_end_matches('.'))?.as_object()?.clone();
            let tensors = artifact.tensors.iter();
            let named =
                |(name, tensor): (&String, _)| Some((name.strip_prefix(prefix)?.to_owned(), Clone::clone(tensor)));
            Some(Artifact { settings, tensors: tensors.filter_map(named).collect() })
        };
        Ok(Self {
            losses: bits.into_iter().map(loss).collect(),
            learner: part(LAST).ok_or_else(|| damaged("state"))?,
            best: part(BEST),
        })
    }
}
