//! Losses: one file each, with value and gradient.

mod coordinates;
mod embedding;
mod penalty;
mod weighted_mse;

pub use coordinates::CoordinateLoss;
pub use embedding::EmbeddingLoss;
pub use penalty::{L2Penalty, PenaltyForm};
pub use weighted_mse::WeightedMse;
