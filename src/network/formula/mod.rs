//! The layers' arithmetic as formulas over tensors, for devices other than the CPU, where [`kernel`](crate::kernel)'s cannot
//! run. Products of matrices and convolutions are candle's; on a CUDA device what stands around a dense layer's products is
//! one kernel of ours each way. Tests hold them equal to our kernels on candle's CPU.

mod activation;
mod batch_norm;
mod convolution;
mod dense;
mod mask;
mod pooling;

pub(crate) use activation::activate;
pub(super) use activation::{Activate, slope};
pub(super) use batch_norm::{BatchNorm, moments};
pub(super) use convolution::{Conv2d, ConvTranspose2d};
pub(super) use dense::Dense;
pub(super) use mask::{Added, Masked};
pub(super) use pooling::{MaxPool2d, Upsample2d};

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::parameter::Parameter;

/// What a layer does to some rows, over tensors. It stands on no tape: it brings its own way back.
pub trait Formula: Send + Sync {
    /// What becomes of `x`.
    ///
    /// # Errors
    /// Candle's.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Leaves the gradients of the layer's parameters in them, and gives the one at `x` where it is wanted, from the one at
    /// what became of it.
    ///
    /// # Errors
    /// Candle's.
    fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>>;

    /// A parameter of the layer's, if it has any: the tape follows variables.
    fn anchor(&self) -> Option<&Arc<Parameter>> {
        None
    }
}

#[cfg(test)]
mod tests;
