//! Batch normalisation over tensors; sums over rows are in double precision.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::super::parameter::Parameter;
use super::Formula;

/// A value for each channel, in the shape that meets `x`.
fn spread(values: &Tensor, x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        4 => values.reshape((1, values.elem_count(), 1, 1)),
        _ => values.reshape((1, values.elem_count())),
    }
}

/// The sum of each channel.
fn channel_sums(values: &Tensor) -> Result<Tensor> {
    match values.rank() {
        4 => values.sum((0, 2, 3)),
        _ => values.sum(0),
    }
}

/// Mean and biased variance of each channel of `x`, which has `count` values of each.
pub(in super::super) fn moments(x: &Tensor, count: usize) -> Result<[Tensor; 2]> {
    let x = x.to_dtype(DType::F64)?;
    let mean = (channel_sums(&x)? / count as f64)?;
    let centred = x.broadcast_sub(&spread(&mean, &x)?)?;
    let variance = (channel_sums(&centred.sqr()?)? / count as f64)?;
    Ok([mean, variance])
}

pub(in super::super) struct BatchNorm {
    pub weight: Arc<Parameter>,
    pub bias: Arc<Parameter>,
    /// Of each channel, in double precision.
    pub mean: Tensor,
    /// One over the standard deviation, in double precision.
    pub inverse: Tensor,
    /// Values of a channel, where mean and deviation are those of the batch and so depend on its values.
    pub batch: Option<usize>,
    /// Whether the gradient at the input is wanted.
    pub wanted: bool,
}

impl BatchNorm {
    fn centred(&self, x: &Tensor) -> Result<Tensor> {
        x.broadcast_sub(&spread(&self.mean.to_dtype(DType::F32)?, x)?)
    }
}

impl Formula for BatchNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.value().detach().to_dtype(DType::F64)?;
        let scale = (weight * &self.inverse)?.to_dtype(DType::F32)?;
        self.centred(x)?.broadcast_mul(&spread(&scale, x)?)?.broadcast_add(&spread(&self.bias.value().detach(), x)?)
    }

    fn backward(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let centred = self.centred(x)?;
        let wide = gradient.to_dtype(DType::F64)?;
        let sums = channel_sums(&wide)?;
        let products = channel_sums(&(wide * centred.to_dtype(DType::F64)?)?)?;
        self.weight.accumulate_tensor(&(&products * &self.inverse)?.to_dtype(DType::F32)?)?;
        self.bias.accumulate_tensor(&sums.to_dtype(DType::F32)?)?;
        if !self.wanted {
            return Ok(None);
        }
        let a = (self.weight.value().detach().to_dtype(DType::F64)? * &self.inverse)?;
        let single = |values: &Tensor| spread(&values.to_dtype(DType::F32)?, x);
        let direct = gradient.broadcast_mul(&single(&a)?)?;
        let Some(count) = self.batch else { return Ok(Some(direct)) };
        // The gradient's way through mean and deviation.
        let through = (&a * (-1.0 / count as f64))?;
        let b = ((&through * self.inverse.sqr()?)? * products)?;
        let c = (through * sums)?;
        let back = centred.broadcast_mul(&single(&b)?)?.broadcast_add(&single(&c)?)?;
        (direct + back).map(Some)
    }

    fn anchor(&self) -> Option<&Arc<Parameter>> {
        Some(&self.weight)
    }
}
