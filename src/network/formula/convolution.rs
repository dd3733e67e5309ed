//! The convolutions over tensors.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::super::architecture::Activation;
use super::super::parameter::Parameter;
use super::{Formula, activate, slope};

/// `[rows, channels, height, width]` with a bias for each channel, after the activation.
fn with_bias(values: &Tensor, bias: &Parameter, activation: Activation) -> Result<Tensor> {
    let bias = bias.value().detach();
    activate(&values.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?)?, activation)
}

/// The gradient of a convolution's weights (`out x in x kernel x kernel`), of what goes in and the gradient of what comes out.
fn weight_gradient(x: &Tensor, d: &Tensor, [kernel, stride, padding]: [usize; 3]) -> Result<Tensor> {
    let (x, d) = (x.transpose(0, 1)?.contiguous()?, d.transpose(0, 1)?.contiguous()?);
    let gradient = x.conv2d(&d, padding, 1, stride, 1)?.transpose(0, 1)?;
    // The last pixels, where a stride leaves some over, meet weights that are not there.
    gradient.narrow(2, 0, kernel)?.narrow(3, 0, kernel)?.contiguous()
}

/// A convolution.
pub(in super::super) struct Conv2d {
    pub weight: Arc<Parameter>,
    pub bias: Arc<Parameter>,
    pub activation: Activation,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    /// Whether the gradient at the input is wanted.
    pub wanted: bool,
}

impl Formula for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let sums = x.conv2d(&self.weight.value().detach(), self.padding, self.stride, 1, 1)?;
        with_bias(&sums, &self.bias, self.activation)
    }

    fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Self { kernel, stride, padding, .. } = *self;
        let d = slope(result, gradient, self.activation)?.contiguous()?;
        self.bias.accumulate_tensor(&d.sum((0, 2, 3))?)?;
        self.weight.accumulate_tensor(&weight_gradient(x, &d, [kernel, stride, padding])?)?;
        if !self.wanted {
            return Ok(None);
        }
        let ((_, _, height, width), (_, _, out_height, out_width)) = (x.dims4()?, d.dims4()?);
        // Pixels that the stride leaves over; candle takes one number for both axes.
        let over = |size: usize, out: usize| (size + 2 * padding).checked_sub((out - 1) * stride + kernel);
        let (Some(down), Some(right)) = (over(height, out_height), over(width, out_width)) else {
            bail!("images of {height} x {width} do not become {out_height} x {out_width}");
        };
        let below = d.conv_transpose2d(&self.weight.value().detach(), padding, down.max(right), stride, 1)?;
        below.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous().map(Some)
    }

    fn anchor(&self) -> Option<&Arc<Parameter>> {
        Some(&self.weight)
    }
}

/// A transposed convolution.
pub(in super::super) struct ConvTranspose2d {
    pub weight: Arc<Parameter>,
    pub bias: Arc<Parameter>,
    pub activation: Activation,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub output_padding: usize,
    /// Whether the gradient at the input is wanted.
    pub wanted: bool,
}

impl Formula for ConvTranspose2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.value().detach();
        let sums = x.conv_transpose2d(&weight, self.padding, self.output_padding, self.stride, 1)?;
        with_bias(&sums, &self.bias, self.activation)
    }

    fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Self { kernel, stride, padding, .. } = *self;
        let d = slope(result, gradient, self.activation)?.contiguous()?;
        self.bias.accumulate_tensor(&d.sum((0, 2, 3))?)?;
        // It is the way back of a convolution: what comes out here goes in there.
        self.weight.accumulate_tensor(&weight_gradient(&d, x, [kernel, stride, padding])?)?;
        self.wanted.then(|| d.conv2d(&self.weight.value().detach(), padding, stride, 1, 1)).transpose()
    }

    fn anchor(&self) -> Option<&Arc<Parameter>> {
        Some(&self.weight)
    }
}
