//! The reconstruction loss as a formula over tensors.

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::row_error::{decoded_row_errors, row_errors};
use crate::network::Coder;

/// What the error of a value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorMeasure {
    /// The squared difference.
    #[default]
    Mse,
    /// The binary cross-entropy, for values in [0, 1] and a decoder that ends in a sigmoid.
    Bce,
}

/// How the errors of a row's values, or the losses of a batch's rows, become one.
///
/// The two differ by the number of values, 784 on MNIST, so the factor of a loss has another meaning with each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// What the sum of `count` losses is multiplied by.
    #[cfg(feature = "cuda")]
    pub(super) fn scale(self, count: usize) -> f64 {
        match self {
            Self::Mean => 1.0 / count as f64,
            Self::Sum => 1.0,
        }
    }
}

/// The reconstruction loss: the mean of the errors of a batch's rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use dacpipe::loss::{ErrorMeasure, ReconstructionLoss, Reduction};
///
/// let x = Tensor::new(&[[0.0f32, 1.0], [1.0, 0.0]], &Device::Cpu)?;
/// let y = Tensor::new(&[[0.5f32, 1.0], [1.0, 1.0]], &Device::Cpu)?;
/// let loss = |over_values, weights| ReconstructionLoss { measure: ErrorMeasure::Mse, over_values, weights };
/// assert_eq!(loss(Reduction::Mean, None).of(&x, &y)?.to_scalar::<f32>()?, (0.25 + 1.0) / 4.0);
/// assert_eq!(loss(Reduction::Sum, None).of(&x, &y)?.to_scalar::<f32>()?, (0.25 + 1.0) / 2.0);
/// let weights = Tensor::new(&[1.0f32, 0.5], &Device::Cpu)?;
/// assert_eq!(loss(Reduction::Mean, Some(weights)).of(&x, &y)?.to_scalar::<f32>()?, (0.25 + 0.5) / 4.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReconstructionLoss {
    /// The error of a value.
    pub measure: ErrorMeasure,
    /// How the errors of a row's values become one.
    pub over_values: Reduction,
    /// The weight of each value (`dim`; Lu and Li 2021, equation 4); `None` for equal weights.
    pub weights: Option<Tensor>,
}

impl ReconstructionLoss {
    /// The loss of rows `x` (`rows x dim`) and their reconstructions `y`, a scalar.
    ///
    /// # Errors
    /// Candle's, for shapes that differ.
    pub fn of(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.mean(row_errors(self.measure, self.weights.as_ref(), x, y)?, x.dim(1)?)
    }

    /// The loss of rows `x` as `coder` rebuilds them from their embeddings `z` in training.
    ///
    /// # Errors
    /// Candle's, for shapes that differ.
    pub(crate) fn of_decoded(&self, x: &Tensor, coder: &Coder, z: &Tensor) -> Result<Tensor> {
        self.mean(decoded_row_errors(self.measure, self.weights.as_ref(), x, coder, z)?, x.dim(1)?)
    }

    /// The loss of a batch of rows of `dim` values with these errors.
    fn mean(&self, errors: Tensor, dim: usize) -> Result<Tensor> {
        let count = match self.over_values {
            Reduction::Mean => errors.elem_count() * dim,
            Reduction::Sum => errors.elem_count(),
        };
        errors.sum_all()? / count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Expected values from PyTorch 2:
    ///
    /// ```python
    /// x = torch.tensor([[0.0, 1.0, 0.25], [1.0, 0.5, 0.0]])
    /// y = torch.tensor([[0.1, 0.8, 0.3], [0.9, 0.5, 0.2]], requires_grad=True)
    /// loss = torch.nn.BCELoss()(y, x); loss.backward(); print(loss, y.grad)
    /// ```
    #[test]
    fn the_cross_entropy_and_its_gradient_are_pytorch_s() -> Result<()> {
        let x = Tensor::new(&[[0.0f32, 1.0, 0.25], [1.0, 0.5, 0.0]], &Device::Cpu)?;
        let y = Var::new(&[[0.1f32, 0.8, 0.3], [0.9, 0.5, 0.2]], &Device::Cpu)?;
        let bce = |over_values| ReconstructionLoss { measure: ErrorMeasure::Bce, over_values, weights: None };
        let loss = bce(Reduction::Mean).of(&x, y.as_tensor())?;
        assert!((loss.to_scalar::<f32>()? - 0.319_775_8).abs() < 1e-5, "{loss}");
        let gradient = loss.backward()?.get(&y).map(|g| g.flatten_all()?.to_vec1::<f32>()).transpose()?;
        let expected = [0.185_185, -0.208_333, 0.039_682_5, -0.185_185, 0.0, 0.208_333];
        let gradient = gradient.unwrap_or_default();
        assert!(gradient.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5), "{gradient:?}");
        let sum = bce(Reduction::Sum).of(&x, y.as_tensor())?.to_scalar::<f32>()?;
        assert!((sum - 3.0 * loss.to_scalar::<f32>()?).abs() < 1e-5);
        Ok(())
    }

    #[test]
    fn a_cross_entropy_at_the_edges_stays_finite() -> Result<()> {
        let x = Tensor::new(&[[0.0f32, 1.0]], &Device::Cpu)?;
        let y = Var::new(&[[1.0f32, 0.0]], &Device::Cpu)?;
        let bce = ReconstructionLoss { measure: ErrorMeasure::Bce, over_values: Reduction::Mean, weights: None };
        let loss = bce.of(&x, y.as_tensor())?;
        assert!(loss.to_scalar::<f32>()?.is_finite());
        let gradients = loss.backward()?;
        let slopes = gradients.get(&y).map(|g| g.flatten_all()?.to_vec1::<f32>()).transpose()?.unwrap_or_default();
        assert!(slopes.iter().all(|g: &f32| g.is_finite()), "{slopes:?}");
        Ok(())
    }
}
