//! Dense layers over tensors: the formula that the trainer differentiates, and encoders and decoders.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use super::failed;
use crate::device::{Decode, Encode};
use crate::network::{Activation, Architecture, TensorPlace, activate};

/// Rows that go through the layers together. A product of matrices may add in another order for another number of rows;
/// blocks are filled up to this many, so that a row gives the same bits whatever rows come with it.
const BLOCK_ROWS: usize = 1024;

/// `activation(x Wᵀ + b)`. The tape takes its gradient.
pub(super) fn dense(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let sums = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
    activate(&sums, activation)
}

/// The tensor of parameters at `place`, on `device`.
pub(super) fn tensor(place: &TensorPlace, parameters: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(&parameters[place.range.clone()], place.shape.clone(), device)
}

/// Some layers of a network, one after the other.
#[derive(Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    dim_in: usize,
    dim_out: usize,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

impl Layers {
    /// The encoder of `architecture`, with the parameters of all its layers.
    pub fn encoder(architecture: &Architecture, parameters: &[f32], device: &Device) -> Result<Self> {
        Self::new(architecture, 0..architecture.encoder.len(), parameters, device)
    }

    /// The decoder of `architecture`, with the parameters of all its layers.
    pub fn decoder(architecture: &Architecture, parameters: &[f32], device: &Device) -> Result<Self> {
        let encoder = architecture.encoder.len();
        Self::new(architecture, encoder..encoder + architecture.decoder.len(), parameters, device)
    }

    fn new(architecture: &Architecture, range: Range<usize>, parameters: &[f32], device: &Device) -> Result<Self> {
        let places = architecture.tensors();
        let specs: Vec<_> = architecture.layers().collect();
        let layer = |i: usize| {
            Ok(Layer {
                weight: tensor(&places[2 * i], parameters, device)?,
                bias: tensor(&places[2 * i + 1], parameters, device)?,
                activation: specs[i].activation,
            })
        };
        let specs = &specs[range.clone()];
        Ok(Self {
            dim_in: specs.first().map_or(0, |spec| spec.inputs),
            dim_out: specs.last().map_or(0, |spec| spec.outputs),
            layers: range.map(layer).collect::<Result<_>>()?,
            device: device.clone(),
        })
    }

    fn block(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let n = rows.len() / self.dim_in;
        let rows = Tensor::from_slice(rows, (n, self.dim_in), &self.device)?;
        let mut values = rows.pad_with_zeros(0, 0, BLOCK_ROWS - n)?;
        for Layer { weight, bias, activation } in &self.layers {
            values = dense(&values, weight, bias, *activation)?;
        }
        values.narrow(0, 0, n)?.flatten_all()?.to_vec1()
    }

    fn apply(&self, input: &[f32], output: &mut [f32]) -> crate::Result<()> {
        let outputs = output.chunks_mut(BLOCK_ROWS * self.dim_out);
        for (rows, out) in input.chunks(BLOCK_ROWS * self.dim_in).zip(outputs) {
            out.copy_from_slice(&self.block(rows).map_err(failed)?);
        }
        Ok(())
    }
}

impl Encode for Layers {
    fn encode(&self, input: &[f32], output: &mut [f32]) -> crate::Result<()> {
        self.apply(input, output)
    }
}

impl Decode for Layers {
    fn decode(&self, input: &[f32], output: &mut [f32]) -> crate::Result<()> {
        self.apply(input, output)
    }
}
