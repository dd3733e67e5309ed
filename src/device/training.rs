//! Training on a device: a network, its optimizer and the rows it learns from, a mini-batch at a time.

use crate::error::Result;
use crate::loss::{EmbeddingLoss, L2Penalty};

/// What a step is told.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings<'a> {
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The penalty on the parameters.
    pub penalty: L2Penalty,
    /// The factor of the reconstruction's loss: 1 for it as it is, 0 to leave it out.
    pub reconstruction: f64,
    /// The loss at the embedding that joins it, if any.
    pub embedding: Option<&'a dyn EmbeddingLoss>,
}

/// The losses that a batch met, each as the mean over its rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepLoss {
    /// The reconstruction's error, without its factor and without the penalty.
    pub reconstruction: f64,
    /// The loss at the embedding; 0 without one.
    pub embedding: f64,
}

impl StepLoss {
    /// True if neither is infinite or no number.
    pub fn is_finite(&self) -> bool {
        self.reconstruction.is_finite() && self.embedding.is_finite()
    }
}

/// What steps met whose losses a device kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Met {
    /// The sums over the rows of each loss, of the batches whose losses are finite.
    pub sums: StepLoss,
    /// The first batch since the last look whose losses are not, counted from 1, and what they are. Nothing has moved since.
    pub failed: Option<(usize, StepLoss)>,
}

/// All that a step changes. Arrays are in the layout of [`Architecture::tensors`](crate::network::Architecture::tensors),
/// with zeros between tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// Steps taken.
    pub steps: u64,
    /// Weights and biases.
    pub parameters: Vec<f32>,
    /// Adam's mean of the gradients.
    pub first: Vec<f32>,
    /// Adam's mean of the squared gradients.
    pub second: Vec<f32>,
}

/// An autoencoder that learns. It owns parameters, optimizer state and the batch at hand; the caller owns the order of
/// rows and the schedule.
pub trait Trainer {
    /// Loads the first batch of an epoch, the training rows of these numbers; the later ones are loaded by the steps
    /// before them.
    ///
    /// # Errors
    /// Whatever the rows give when they are read.
    fn load(&mut self, batch: &[u32]) -> Result<()>;

    /// Learns from the batch that is loaded, and loads the rows `next` meanwhile. If a loss is not finite, parameters
    /// and optimizer stay as they were.
    ///
    /// Panics if no batch is loaded or `next` is larger than a batch may be. Costs `6 * parameters` flops a row.
    ///
    /// # Errors
    /// Whatever the rows give when they are read; kind `Compute` where the device fails.
    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<StepLoss>;

    /// The same, but the device may keep the losses until [`met`](Self::met) asks for them, so that the host need not wait
    /// for the step. Once a loss was not finite, no step moves anything until then.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn step_ahead(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<Option<StepLoss>> {
        self.step(next, settings).map(Some)
    }

    /// What the steps since the last call met that gave no losses.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn met(&mut self) -> Result<Met> {
        Ok(Met::default())
    }

    /// A copy of parameters and optimizer.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn state(&self) -> Result<TrainerState>;

    /// Goes back to a state that [`state`](Self::state) gave; the same steps from there give the same bits. Panics if an
    /// array has another length.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn restore(&mut self, state: &TrainerState) -> Result<()>;
}
