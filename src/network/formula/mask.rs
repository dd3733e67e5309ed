//! What random layers do with what they drew, over tensors.

use candle_core::{Result, Tensor};

use super::Formula;

/// The product with a mask.
pub(in super::super) struct Masked(pub Tensor);

impl Formula for Masked {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x * &self.0
    }

    fn backward(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (gradient * &self.0).map(Some)
    }
}

/// The sum with noise.
pub(in super::super) struct Added(pub Tensor);

impl Formula for Added {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x + &self.0
    }

    fn backward(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}
