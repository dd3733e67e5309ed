//! Layer-wise pretraining: the objective of one layer of an autoencoder and its mirror, while the others stay fixed
//! (Bengio et al. 2007).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::objective::{BatchLoss, Objective};
use crate::device::StepLoss;
use crate::error::{self, Error};
use crate::loss::ReconstructionLoss;
use crate::network::{Buffer, Coder, LayerSpec, Parameter};

/// Layers of an encoder and the mirroring layers of the decoder, which learn together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub encoder: Range<usize>,
    pub decoder: Range<usize>,
}

/// The groups of an encoder's layers, each with one layer that has weights, and the decoder's layers that mirror them.
///
/// # Errors
/// Kind `Config` if the decoder has another number of them.
pub(crate) fn groups(encoder: &[LayerSpec], decoder: &[LayerSpec]) -> error::Result<Vec<Group>> {
    let heads = |layers: &[LayerSpec]| -> Vec<usize> {
        let has_weights = |layer: &LayerSpec| {
            matches!(layer, LayerSpec::Dense(_) | LayerSpec::Conv2d(_) | LayerSpec::ConvTranspose2d(_))
        };
        let mut heads: Vec<usize> = (0..layers.len()).filter(|&i| has_weights(&layers[i])).collect();
        // Layers before the first one with weights (noise, a reshape) belong to its group.
        heads.iter_mut().take(1).for_each(|first| *first = 0);
        heads.push(layers.len());
        heads
    };
    let (encoder, decoder) = (heads(encoder), heads(decoder));
    if encoder.len() != decoder.len() {
        let (there, back) = (encoder.len() - 1, decoder.len() - 1);
        return Err(Error::config(format!(
            "layerwise_epochs needs a decoder that mirrors the encoder: {there} layers with weights lead there, {back} back"
        )));
    }
    let back = decoder.windows(2).rev();
    Ok(encoder.windows(2).zip(back).map(|(e, d)| Group { encoder: e[0]..e[1], decoder: d[0]..d[1] }).collect())
}

/// How well a group reconstructs the output of the layers before it.
pub(crate) struct Layerwise<'a> {
    pub coder: &'a Coder,
    pub group: Group,
    pub reconstruction: ReconstructionLoss,
}

impl Objective for Layerwise<'_> {
    fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        self.coder.parameters()
    }

    fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        self.coder.buffers()
    }

    fn loss(&self, x: &Tensor, _: &[u32]) -> Result<BatchLoss> {
        let Group { encoder, decoder } = &self.group;
        let before = self.coder.encoder().forward_between(0, encoder.start, x, false)?.detach();
        let code = self.coder.encoder().forward_between(encoder.start, encoder.end, &before, true)?;
        let back = self.coder.decoder().forward_between(decoder.start, decoder.end, &code, true)?;
        let error = self.reconstruction.of(&before, &back)?;
        Ok(BatchLoss { total: error.clone(), reconstruction: Some(error), embedding: None })
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        loss.reconstruction
    }
}
