//! The registry of stages: what rebuilds a fitted stage from what it saved, and the device that it then works on.
//!
//! A model that is loaded, a run that goes on, and a function in SQL all rebuild stages by a [`Registry`]. It knows
//! dacpipe's own; a stage of your own joins by one call:
//!
//! ```
//! use std::sync::Arc;
//!
//! use dacpipe::column::{vector_array, vector_field, vectors};
//! use dacpipe::model::{Manifest, Model, ModelInput};
//! use dacpipe::registry::Registry;
//! use dacpipe::stage::{Action, Artifact, FEATURES, Tensor, Transform, VectorMap, compliance};
//! use dacpipe::store::Location;
//! use dacpipe::{Error, Result};
//!
//! /// Keeps values at or below a limit, a feature its own.
//! #[derive(Debug)]
//! struct AtMost(Vec<f32>);
//!
//! impl VectorMap for AtMost {
//!     fn dim_in(&self) -> usize {
//!         self.0.len()
//!     }
//!
//!     fn dim_out(&self) -> usize {
//!         self.0.len()
//!     }
//!
//!     fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
//!         let limits = self.0.iter().cycle();
//!         output.iter_mut().zip(input.iter().zip(limits)).for_each(|(y, (x, limit))| *y = x.min(*limit));
//!         Ok(())
//!     }
//! }
//!
//! impl Transform for AtMost {
//!     fn kind(&self) -> &'static str {
//!         "at_most"
//!     }
//!
//!     // The whole of it: training maps bare vectors by this, and labelling a column of them.
//!     fn action(&self) -> Action<'_> {
//!         Action::Map { from: FEATURES, to: FEATURES, map: self }
//!     }
//!
//!     fn save(&self) -> Artifact {
//!         let limits = Tensor { shape: vec![self.0.len()], values: self.0.clone() };
//!         Artifact { tensors: [("limits".to_owned(), limits)].into(), ..Artifact::default() }
//!     }
//! }
//!
//! let registry = Registry::default().stage("at_most", |artifact, _device| {
//!     let limits = artifact.tensors.get("limits").ok_or_else(|| Error::model("at_most: no limits"))?;
//!     match limits.shape[..] == [limits.values.len()] && !limits.values.is_empty() {
//!         true => Ok(Arc::new(AtMost(limits.values.clone()))),
//!         false => Err(Error::model("at_most: expected one limit a feature")),
//!     }
//! });
//!
//! // Does it keep all that a stage promises?
//! let rows = vector_array(vec![0.5, 9.0, -3.0, 1.5, 2.5, 0.0, 7.0, 7.0], 2)?;
//! let schema = Arc::new(arrow::datatypes::Schema::new(vec![vector_field(FEATURES, 2)]));
//! let batch = arrow::record_batch::RecordBatch::try_new(schema, vec![rows])?;
//! let stage = Arc::new(AtMost(vec![1.0, 2.0]));
//! compliance::check(&*stage, &batch, &registry).map_err(|broken| Error::internal(format!("{broken:?}")))?;
//!
//! // Saved with a model, and found again by whoever has the registry.
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let dir = std::env::temp_dir().join(format!("dacpipe-registry-{}", std::process::id()));
//! # let models = Location::parse(&dir.display().to_string())?;
//! let manifest = Manifest { name: "mine".into(), input: ModelInput::bare(2), ..Manifest::default() };
//! let place = Model::new(manifest, vec![stage])?.save(&models).await?;
//! let model = Model::load_with(&place, &registry).await?;
//! assert_eq!(vectors(&model.apply(&batch)?, FEATURES)?.0, [0.5, 2.0, -3.0, 1.5, 1.0, 0.0, 1.0, 2.0]);
//! // Without it the kind is unknown.
//! let unknown = Model::load(&place).await.unwrap_err();
//! assert!(unknown.to_string().contains("no stage of kind \"at_most\"; there are origin, impute, scale,"), "{unknown}");
//! # std::fs::remove_dir_all(dir)?;
//! # Ok::<(), Error>(())
//! # })?;
//! # Ok::<(), Error>(())
//! ```
//!
//! A pipeline takes a stage that learns by [`Pipeline::insert_stage`](crate::pipeline::Pipeline::insert_stage), which
//! registers what it fits; a session of SQL by [`Options::stage`](crate::sql::Options::stage).

use std::sync::Arc;

use crate::device::{Cpu, Device};
use crate::embed::Embed;
use crate::embed_network::EmbedNetwork;
use crate::error::{Error, Result};
use crate::experts::Experts;
use crate::impute::Impute;
use crate::label::Label;
use crate::manifold::Manifold;
use crate::origin::Origin;
use crate::scale::Scale;
use crate::stage::{Artifact, Transform};
use crate::weights::FeatureWeights;

/// Rebuilds a stage of one kind from what it saved, to work on a device.
///
/// # Errors
/// Kind `Model` for what is missing or does not fit: it comes from a file that anybody may have written. `Compute` where
/// the device has no room.
pub type Restore = fn(&Artifact, &dyn Device) -> Result<Arc<dyn Transform>>;

/// dacpipe's own kinds.
const OWN: [(&str, Restore); 9] = [
    (Origin::KIND, |artifact, _| Ok(Arc::new(Origin::from_artifact(artifact)?))),
    (Impute::KIND, |artifact, _| Ok(Arc::new(Impute::from_artifact(artifact)?))),
    (Scale::KIND, |artifact, _| Ok(Arc::new(Scale::from_artifact(artifact)?))),
    (FeatureWeights::KIND, |artifact, _| Ok(Arc::new(FeatureWeights::from_artifact(artifact)?))),
    (Manifold::KIND, |artifact, _| Ok(Arc::new(Manifold::from_artifact(artifact)?))),
    (Embed::KIND, |artifact, device| Ok(Arc::new(Embed::from_artifact(artifact, device)?))),
    (EmbedNetwork::KIND, |artifact, _| Ok(Arc::new(EmbedNetwork::from_artifact(artifact)?))),
    (Label::KIND, |artifact, device| Ok(Arc::new(Label::from_artifact(artifact, device)?))),
    (Experts::KIND, |artifact, _| Ok(Arc::new(Experts::from_artifact(artifact)?))),
];

/// What rebuilds stages, and the device that they will work on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    device: Arc<dyn Device>,
    kinds: Vec<(&'static str, Restore)>,
}

/// dacpipe's own stages, on one thread of the CPU.
impl Default for Registry {
    fn default() -> Self {
        Self::new(Arc::new(Cpu::default()))
    }
}

impl Registry {
    /// dacpipe's own stages, on `device`, which [`DeviceChoice::open`](crate::device::DeviceChoice::open) gives.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device, kinds: OWN.to_vec() }
    }

    /// Also stages of your own kind. A kind that is there already is rebuilt by `restore` from now on.
    pub fn stage(mut self, kind: &'static str, restore: Restore) -> Self {
        self.kinds.retain(|(there, _)| *there != kind);
        self.kinds.push((kind, restore));
        self
    }

    /// The same stages, on another device.
    pub fn on(self, device: Arc<dyn Device>) -> Self {
        Self { device, ..self }
    }

    /// The device that stages will work on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The kinds that it knows.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.iter().map(|(kind, _)| *kind)
    }

    /// The stage of this kind that was saved as `artifact`.
    ///
    /// # Errors
    /// Kind `Model` for an unknown kind (the known ones are listed), otherwise as of [`Restore`].
    pub fn restore(&self, kind: &str, artifact: &Artifact) -> Result<Arc<dyn Transform>> {
        match self.kinds.iter().find(|(there, _)| *there == kind) {
            Some((_, restore)) => restore(artifact, &*self.device),
            None => {
                let known: Vec<&str> = self.kinds().collect();
                Err(Error::model(format!("no stage of kind {kind:?}; there are {}", known.join(", "))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_rebuilt_by_what_was_registered_last_and_on_the_device() {
        let kept: Restore = |artifact, _| Ok(Arc::new(Manifold::from_artifact(artifact)?));
        let device: Arc<dyn Device> = Arc::new(Cpu::new(2));
        let registry = Registry::default().stage("mine", |_, _| Err(Error::model("first"))).stage("mine", kept);
        let registry = registry.on(Arc::clone(&device));
        assert!(Arc::ptr_eq(registry.device(), &device));
        assert_eq!(registry.kinds().count(), OWN.len() + 1);
        let e = registry.restore("mine", &Artifact::default()).unwrap_err();
        assert!(e.to_string().contains("stage manifold: no setting \"spec\""), "{e}");
        let e = registry.restore("yours", &Artifact::default()).unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Model);
        assert!(
            e.to_string().ends_with(
                "there are origin, impute, scale, feature_weights, manifold, embed, network, label, experts, mine"
            ),
            "{e}"
        );
        let threads: Restore = |_, device| Err(Error::model(format!("{} threads", device.pool().threads())));
        let e = registry.stage("mine", threads).restore("mine", &Artifact::default()).unwrap_err();
        assert_eq!(e.to_string(), "2 threads");
    }
}
