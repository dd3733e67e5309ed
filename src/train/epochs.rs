//! The loop of every training: epochs of shuffled mini-batches, learning rate decay, early stopping with the best state
//! kept, checkpoints, events.

use std::time::Instant;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::state::State;
use super::{Decay, EarlyStop};
use crate::device::{Met, StepLoss};
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::stage::{Artifact, FitContext};

/// Seconds between checkpoints: writing one after each epoch would cost more than a short epoch.
const CHECKPOINT_SECONDS: f64 = 2.0;

/// How long and how fast something learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows in a mini-batch; the last of an epoch may be shorter.
    pub batch_size: usize,
    /// The optimizer's learning rate in the first epoch.
    pub learning_rate: f64,
    /// How it falls.
    pub decay: Decay,
    /// When to stop early, if at all; the state of the best epoch is then kept.
    pub early_stop: Option<EarlyStop>,
}

/// The learner. The loop decides the order of rows, the schedule and when to stop.
pub(crate) trait Learner {
    /// Called before every step with the number of steps taken. It may process all rows again. Returns true if training
    /// is complete.
    fn refresh(&mut self, _step: u64) -> Result<bool> {
        Ok(false)
    }

    /// Loads the first batch of an epoch, the training rows with these numbers; each step loads the next batch.
    fn load(&mut self, batch: &[u32]) -> Result<()>;

    /// Learns from the loaded batch, and loads the rows `next`. If a loss is not finite, nothing is changed. Losses that
    /// stay on a device come with [`met`](Self::met); if one of them is not finite, what was learned since the epoch began is
    /// of no use.
    fn step(&mut self, next: &[u32], learning_rate: f64) -> Result<Option<StepLoss>>;

    /// What the steps since the last call met that gave no losses.
    fn met(&mut self) -> Result<Met> {
        Ok(Met::default())
    }

    /// What is minimised, without the penalty.
    fn total(&self, loss: &StepLoss) -> f64;

    /// The fewest rows of a mini-batch: batch norm needs two for a variance.
    fn fewest_rows(&self) -> usize {
        1
    }

    /// Steps taken.
    fn steps(&self) -> u64;

    /// Everything that a step changes.
    fn state(&self) -> Result<Artifact>;

    /// Restores a state; the same steps from there give the same bits.
    fn restore(&mut self, state: &Artifact) -> Result<()>;
}

/// One course of training.
pub(crate) struct Course<'a> {
    /// The stage's name, for events.
    pub stage: &'a str,
    /// The name of the substream that shuffles the rows.
    pub shuffle: &'a str,
    pub schedule: &'a Schedule,
    /// The rows to learn from.
    pub rows: &'a [u32],
    /// The number of epochs of earlier courses, for progress.
    pub epochs_before: u64,
    /// The settings in a checkpoint about earlier courses.
    pub context: &'a Artifact,
}

impl Course<'_> {
    /// Runs the epochs that are left after the losses in `state`, with the learner in that state. Returns the losses of
    /// all epochs, and the last state of the learner, or its best if the schedule stops early.
    pub fn run(&self, learner: &mut dyn Learner, mut state: State, cx: &FitContext<'_>) -> Result<State> {
        let mut order = self.rows.to_vec();
        let mut saved = Instant::now();
        let mut converged = false;
        while !converged && state.losses.len() < self.schedule.epochs && !self.stops(learner, &state.losses) {
            let began = Instant::now();
            let epoch = state.losses.len();
            order.copy_from_slice(self.rows);
            order.shuffle(&mut cx.seed.stream(self.shuffle, epoch as u64));
            match self.epoch(learner, epoch, &order, cx) {
                Ok(Epoch { loss, ended }) => {
                    state.losses.extend(loss);
                    converged = ended;
                }
                Err(e) => {
                    if e.kind() == Kind::Cancelled && !state.losses.is_empty() {
                        cx.checkpoint.save(&state.to_artifact(self.context))?;
                    }
                    return Err(e);
                }
            }
            state.learner = learner.state()?;
            self.keep_best(learner, &mut state);
            if saved.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                cx.checkpoint.save(&state.to_artifact(self.context))?;
                saved = Instant::now();
            }
            cx.control.emit(Event::Progress {
                stage: self.stage.to_owned(),
                done: self.epochs_before + state.losses.len() as u64,
                loss: state.losses.last().map(|loss| learner.total(loss)),
                rows_per_second: Some(order.len() as f64 / began.elapsed().as_secs_f64()),
            });
        }
        if let Some(best) = state.best.take() {
            learner.restore(&best)?;
            state.learner = best;
        }
        Ok(state)
    }

    fn stops(&self, learner: &dyn Learner, losses: &[StepLoss]) -> bool {
        let total: Vec<f64> = losses.iter().map(|loss| learner.total(loss)).collect();
        self.schedule.early_stop.is_some_and(|stop| stop.reached(&total))
    }

    /// Keeps the state with the least loss, if it is needed: the epochs before an early stop are not better.
    fn keep_best(&self, learner: &dyn Learner, state: &mut State) {
        if self.schedule.early_stop.is_none() {
            return;
        }
        let Some((last, before)) = state.losses.split_last() else { return };
        let least = before.iter().map(|loss| learner.total(loss)).fold(f64::INFINITY, f64::min);
        if state.best.is_none() || learner.total(last) < least {
            state.best = Some(state.learner.clone());
        }
    }

    /// One epoch: the means of the losses over its rows, each as computed in its mini-batch.
    fn epoch(&self, learner: &mut dyn Learner, epoch: usize, order: &[u32], cx: &FitContext<'_>) -> Result<Epoch> {
        let Schedule { epochs, batch_size: size, learning_rate, decay, .. } = *self.schedule;
        let learning_rate = learning_rate * decay.factor(epoch, epochs);
        let batches = batches(order, size, learner.fewest_rows());
        let (mut sum, mut rows_done) = (StepLoss::default(), 0);
        let not_finite = |learner: &dyn Learner, batch: usize, loss: &StepLoss| {
            let total = learner.total(loss);
            Error::compute(format!(
                "the loss became {total} in epoch {}, batch {batch} of {}, at learning rate {learning_rate}; a lower \
                 learning rate or features scaled to [0, 1] may help",
                epoch + 1,
                batches.len(),
            ))
        };
        learner.load(batches.first().copied().unwrap_or(&[]))?;
        let mut ended = false;
        for (batch, rows) in batches.iter().enumerate() {
            cx.control.check()?;
            if learner.refresh(learner.steps())? {
                ended = true;
                break;
            }
            let rows = rows.len();
            if let Some(loss) = learner.step(batches.get(batch + 1).copied().unwrap_or(&[]), learning_rate)? {
                if !loss.is_finite() {
                    return Err(not_finite(learner, batch + 1, &loss));
                }
                sum.reconstruction += loss.reconstruction * rows as f64;
                sum.embedding += loss.embedding * rows as f64;
            }
            rows_done += rows;
        }
        let Met { sums, failed } = learner.met()?;
        if let Some((batch, loss)) = failed {
            return Err(not_finite(learner, batch, &loss));
        }
        sum.reconstruction += sums.reconstruction;
        sum.embedding += sums.embedding;
        let rows = rows_done as f64;
        let loss = StepLoss { reconstruction: sum.reconstruction / rows, embedding: sum.embedding / rows };
        Ok(Epoch { loss: (rows_done > 0).then_some(loss), ended })
    }
}

/// The mini-batches of an epoch, of `size` rows each. A last one of fewer than `fewest` rows is merged into the one
/// before it.
fn batches(order: &[u32], size: usize, fewest: usize) -> Vec<&[u32]> {
    let mut batches: Vec<&[u32]> = order.chunks(size).collect();
    if let [.., before, last] = batches[..]
        && last.len() < fewest
    {
        batches.truncate(batches.len() - 2);
        batches.push(&order[order.len() - last.len() - before.len()..]);
    }
    batches
}

/// The result of an epoch.
struct Epoch {
    /// Its loss, if it took a step.
    loss: Option<StepLoss>,
    /// Whether training is complete.
    ended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_too_few_rows_joins_the_one_before_it() {
        let order: Vec<u32> = (0..9).collect();
        let lengths = |size, fewest| batches(&order, size, fewest).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(lengths(4, 1), [4, 4, 1]);
        assert_eq!(lengths(4, 2), [4, 5]);
        assert_eq!(lengths(3, 2), [3, 3, 3]);
        assert_eq!(lengths(20, 2), [9]);
        assert_eq!(batches(&order, 4, 2).concat(), order);
        assert_eq!(batches(&order[..1], 4, 2).len(), 1);
        assert!(batches(&[], 4, 2).is_empty());
    }
}
