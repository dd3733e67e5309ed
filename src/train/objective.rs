//! The contract of an objective, which a training on candle's tape minimises.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Tensor, Var};

use crate::device::StepLoss;
use crate::error::{Error, Result};
use crate::network::{Buffer, Parameter};

/// The losses of a batch, scalars on the tape.
pub(crate) struct BatchLoss {
    /// What is minimised, without the penalty.
    pub total: Tensor,
    /// The reconstruction loss without its factor.
    pub reconstruction: Option<Tensor>,
    /// The embedding's loss without its factor.
    pub embedding: Option<Tensor>,
}

/// What is minimised: it owns or borrows networks, may have parameters of its own, and computes the losses of a batch.
pub(crate) trait Objective {
    /// The parameters of its networks, with names; those that get no gradient stay as they are.
    fn parameters(&self) -> Vec<(String, Arc<Parameter>)>;

    /// The buffers of its networks, with names.
    fn buffers(&self) -> Vec<(String, Arc<Buffer>)>;

    /// What it trains beside its networks, with names.
    fn own(&self) -> Vec<(String, Var)> {
        Vec::new()
    }

    /// The losses of a batch, the rows `x` (`rows x dim`), which have these numbers among the training rows.
    fn loss(&self, x: &Tensor, rows: &[u32]) -> candle_core::Result<BatchLoss>;

    /// Called before step number `step`; it may process all rows again. Returns true if training is complete.
    fn refresh(&mut self, _step: u64) -> Result<bool> {
        Ok(false)
    }

    /// What is minimised of a batch's losses.
    fn total(&self, loss: &StepLoss) -> f64;

    /// Its state beside its parameters, for a checkpoint.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// Restores a state.
    fn restore(&mut self, _state: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        Ok(())
    }
}

/// The error of kind `Compute` for a failure of candle.
pub(crate) fn failed(what: &'static str) -> impl Fn(candle_core::Error) -> Error {
    move |e| Error::compute(what).with_source(e)
}
