//! The registry of stages: what rebuilds one from what it saved.

use std::sync::Arc;

use crate::device::Device;
use crate::embed::Embed;
use crate::embed_network::EmbedNetwork;
use crate::error::{Error, Result};
use crate::experts::Experts;
use crate::label::Label;
use crate::manifold::Manifold;
use crate::origin::Origin;
use crate::scale::Scale;
use crate::stage::{Artifact, Transform};
use crate::weights::FeatureWeights;

/// Rebuilds a stage of one kind from what it saved.
pub type Restore = fn(&Artifact) -> Result<Arc<dyn Transform>>;

/// The registry of stages: rebuilds a stage of any kind that can be saved, dacpipe's own, which will work on `device`, or
/// one of `extra`.
///
/// # Errors
/// Kind `Model` for an unknown kind (the known ones are listed), or what the stage finds wrong with the artifact.
pub fn restore(
    kind: &str,
    artifact: &Artifact,
    device: &dyn Device,
    extra: &[(&str, Restore)],
) -> Result<Arc<dyn Transform>> {
    Ok(match kind {
        Origin::KIND => Arc::new(Origin::from_artifact(artifact)?),
        "scale" => Arc::new(Scale::from_artifact(artifact)?),
        Manifold::KIND => Arc::new(Manifold::from_artifact(artifact)?),
        "feature_weights" => Arc::new(FeatureWeights::from_artifact(artifact)?),
        EmbedNetwork::KIND => Arc::new(EmbedNetwork::from_artifact(artifact)?),
        Experts::KIND => Arc::new(Experts::from_artifact(artifact)?),
        "embed" => Arc::new(Embed::from_artifact(artifact, device)?),
        "label" => Arc::new(Label::from_artifact(artifact, device)?),
        _ => match extra.iter().find(|(name, _)| *name == kind) {
            Some((_, restore)) => restore(artifact)?,
            None => {
                let mut known = vec![
                    Origin::KIND,
                    "scale",
                    "feature_weights",
                    Manifold::KIND,
                    "embed",
                    EmbedNetwork::KIND,
                    "label",
                    Experts::KIND,
                ];
                known.extend(extra.iter().map(|(name, _)| name));
                return Err(Error::model(format!("no stage of kind {kind:?}; there are {}", known.join(", "))));
            }
        },
    })
}
