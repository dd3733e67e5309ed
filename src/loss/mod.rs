//! Losses: one file each, with value and gradient.

mod penalty;
mod weighted_mse;

pub use penalty::{L2Penalty, PenaltyForm};
pub use weighted_mse::WeightedMse;
