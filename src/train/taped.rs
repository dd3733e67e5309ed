//! The objective of the `autoencoder` stage on candle's tape: what the fused trainer minimises, as a formula.

use std::sync::Arc;

use candle_core::{Result as CandleResult, Tensor};

use super::objective::{BatchLoss, Objective, failed};
use crate::device::StepLoss;
use crate::error::Result;
use crate::loss::{CoordinateLoss, ErrorMeasure, ReconstructionLoss, Reduction};
use crate::network::{Architecture, Buffer, Builder, Coder, CoderSpec, Parameter, initialise};
use crate::stage::{Artifact, FitContext};

/// The weighted reconstruction's error, and the distance from where a row was laid out.
pub(super) struct Taped<'a> {
    pub coder: &'a Coder,
    /// The factor of the reconstruction's error.
    pub reconstruction: f64,
    pub loss: ReconstructionLoss,
    pub coordinates: Option<&'a CoordinateLoss<'a>>,
    /// The factor of the distance from the coordinates.
    pub factor: f64,
}

impl Objective for Taped<'_> {
    fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        self.coder.parameters()
    }

    fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        Vec::new()
    }

    fn loss(&self, x: &Tensor, rows: &[u32]) -> CandleResult<BatchLoss> {
        let z = self.coder.encode(x, true)?;
        let reconstruction = self.loss.of(x, &self.coder.decode(&z, true)?)?;
        let mut total = (&reconstruction * self.reconstruction)?;
        let clustering = self.coordinates.map(|coordinates| coordinates.of_batch(&z, rows)).transpose()?;
        if let Some(clustering) = &clustering {
            total = (total + (clustering * self.factor)?)?;
        }
        Ok(BatchLoss { total, reconstruction: Some(reconstruction), clustering })
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        self.reconstruction * loss.reconstruction + self.factor * loss.embedding
    }
}

/// The network of dense layers with the first parameters that the fused trainer has.
pub(super) fn coder(architecture: &Architecture, cx: &FitContext<'_>) -> Result<(Coder, Builder)> {
    let builder = cx.device.builder(cx.seed);
    let coder = Coder::new("", &CoderSpec::of_dense(architecture), &builder)?;
    let parameters = initialise(architecture, cx.seed);
    let tensors = architecture.tensors().into_iter();
    let arrays = tensors.map(|place| (place.name, (place.shape, parameters[place.range].to_vec())));
    coder.set_arrays(&arrays.collect())?;
    Ok((coder, builder))
}

/// The reconstruction's loss with these weights of the features; none for all the same.
pub(super) fn reconstruction(weights: &[f32], builder: &Builder) -> Result<ReconstructionLoss> {
    let weights = match weights {
        [] => None,
        _ => Some(Tensor::new(weights, &builder.device).map_err(failed("placing the feature weights"))?),
    };
    Ok(ReconstructionLoss { measure: ErrorMeasure::Mse, over_values: Reduction::Mean, weights })
}

/// The parameters that a learner's state holds, in the layout of [`Architecture::tensors`].
pub(super) fn parameters(state: &Artifact, architecture: &Architecture) -> Vec<f32> {
    if let Some(flat) = state.tensors.get("parameters") {
        return flat.values.clone();
    }
    let mut flat = vec![0.0; architecture.flat_len()];
    for place in architecture.tensors() {
        if let Some(tensor) = state.tensors.get(&format!("value.{}", place.name)) {
            flat[place.range].copy_from_slice(&tensor.values);
        }
    }
    flat
}
