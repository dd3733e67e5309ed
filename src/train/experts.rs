//! The objective of k autoencoders that compete for each row (Opochinsky et al. 2020, k-DAE).

use std::sync::Arc;

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objective::{BatchLoss, Objective};
use crate::device::StepLoss;
use crate::loss::{ErrorMeasure, decoded_row_errors, row_errors};
use crate::network::{Buffer, Coder, Parameter};

/// How a row's errors of all autoencoders become its loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Competition {
    /// The least of them (equation 1).
    #[default]
    Hard,
    /// `-log sum_i e^{-d_i}` (equation 4).
    Soft,
}

/// How far a row is from its reconstruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowError {
    /// The Euclidean distance, as in the method's public code.
    #[default]
    Norm,
    /// Its square.
    Squared,
}

impl RowError {
    /// The errors of rows `x` and their reconstructions `y` (both `rows x dim`), `rows` values.
    ///
    /// # Errors
    /// Candle's, for shapes that differ.
    pub fn of(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.of_squares(row_errors(ErrorMeasure::Mse, None, x, y)?)
    }

    /// The errors of rows whose squared differences have these sums.
    fn of_squares(self, squared: Tensor) -> Result<Tensor> {
        match self {
            Self::Squared => Ok(squared),
            // The slope of a root is infinite at 0.
            Self::Norm => (squared + 1e-12)?.sqrt(),
        }
    }
}

/// k autoencoders that learn together.
pub(crate) struct Experts<'a> {
    pub coders: &'a [Coder],
    pub competition: Competition,
    pub error: RowError,
}

impl Objective for Experts<'_> {
    fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        self.coders.iter().flat_map(Coder::parameters).collect()
    }

    fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        self.coders.iter().flat_map(Coder::buffers).collect()
    }

    fn loss(&self, x: &Tensor, _: &[u32]) -> Result<BatchLoss> {
        let error = |coder: &Coder| {
            let z = coder.encode(x, true)?;
            self.error.of_squares(decoded_row_errors(ErrorMeasure::Mse, None, x, coder, &z)?)
        };
        let errors = Tensor::stack(&self.coders.iter().map(error).collect::<Result<Vec<_>>>()?, 1)?;
        let least = errors.min_keepdim(1)?;
        let losses = match self.competition {
            Competition::Hard => least,
            Competition::Soft => {
                // The least error is subtracted, so that its exponential is 1 and no sum underflows.
                let least = least.detach();
                let sums = errors.broadcast_sub(&least)?.neg()?.exp()?.sum_keepdim(1)?;
                (least - sums.log()?)?
            }
        };
        let total = losses.mean_all()?;
        Ok(BatchLoss { total: total.clone(), reconstruction: Some(total), embedding: None })
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        loss.reconstruction
    }
}
