//! Losses, one file each: formulas over candle's tensors, and losses of the fused trainer with value and gradient.

mod clustering;
mod coordinates;
mod embedding;
mod hardening;
mod penalty;
mod reconstruction;
mod row_error;
#[cfg(feature = "cuda")]
mod student;
mod weighted_mse;

pub use clustering::ClusteringLoss;
pub use coordinates::CoordinateLoss;
pub use embedding::{EmbeddingLoss, Placed};
pub use hardening::Hardening;
pub use penalty::{L2Penalty, PenaltyForm};
pub use reconstruction::{ErrorMeasure, ReconstructionLoss, Reduction};
pub(crate) use row_error::{decoded_row_errors, row_errors};
pub use weighted_mse::WeightedMse;
