//! Activations over tensors.

use candle_core::{DType, Result, Tensor};
use candle_nn::ops::sigmoid;

use super::super::architecture::Activation;
use super::Formula;

/// The slope of a leaky ReLU below zero.
const LEAK: f64 = 0.01;

/// 1 where a value is above zero, else 0. Candle's own ReLU has the slope 1 at zero, where the CPU's and PyTorch's is 0.
fn positive(values: &Tensor) -> Result<Tensor> {
    values.detach().gt(0f32)?.to_dtype(DType::F32)
}

/// What an activation makes of `sums`. The tape can take its gradient.
pub(crate) fn activate(sums: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(sums.clone()),
        Activation::Relu => sums * positive(sums)?,
        Activation::LeakyRelu => sums * positive(sums)?.affine(1.0 - LEAK, LEAK)?,
        Activation::Elu => sums.elu(1.0),
        // `max(0, x) + ln(1 + e^{-|x|})`, which does not overflow.
        Activation::Softplus => {
            let positive = positive(sums)?;
            let power = (sums * positive.affine(-2.0, 1.0)?)?.exp()?;
            (sums * positive)? + (power + 1.0)?.log()?
        }
        Activation::Tanh => sums.tanh(),
        Activation::Sigmoid => sigmoid(sums),
    }
}

/// The gradient before an activation that gave `outputs`, from the one after it.
pub(in super::super) fn slope(outputs: &Tensor, gradient: &Tensor, activation: Activation) -> Result<Tensor> {
    let slopes = match activation {
        Activation::Identity => return Ok(gradient.clone()),
        Activation::Relu => positive(outputs)?,
        Activation::LeakyRelu => positive(outputs)?.affine(1.0 - LEAK, LEAK)?,
        // 1 above zero, `e^x` below.
        Activation::Elu => outputs.minimum(0f32)?.affine(1.0, 1.0)?,
        Activation::Softplus => outputs.neg()?.exp()?.affine(-1.0, 1.0)?,
        Activation::Tanh => outputs.sqr()?.affine(-1.0, 1.0)?,
        Activation::Sigmoid => (outputs * outputs.affine(-1.0, 1.0)?)?,
    };
    gradient * slopes
}

/// The layer.
pub(in super::super) struct Activate {
    pub activation: Activation,
}

impl Formula for Activate {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        activate(x, self.activation)
    }

    fn backward(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        slope(result, gradient, self.activation).map(Some)
    }
}
