//! What the `autoencoder` stage needs to train on candle's tape: the fused trainer's network and loss in candle's terms.

use candle_core::Tensor;

use super::objective::failed;
use crate::error::Result;
use crate::loss::{ErrorMeasure, ReconstructionLoss, Reduction};
use crate::network::{Architecture, Builder, Coder, CoderSpec, initialise};
use crate::stage::{Artifact, FitContext};

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

/// The reconstruction loss with these weights of the features; empty for equal weights.
pub(super) fn reconstruction(weights: &[f32], builder: &Builder) -> Result<ReconstructionLoss> {
    let weights = match weights {
        [] => None,
        _ => Some(Tensor::new(weights, &builder.device).map_err(failed("placing the feature weights"))?),
    };
    Ok(ReconstructionLoss { measure: ErrorMeasure::Mse, over_values: Reduction::Mean, weights })
}

/// The parameters in a learner's state, in the layout of [`Architecture::tensors`].
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
