//! One mini-batch: forward, loss, backward, update, and the gathering of the next.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::kernel::adam::Adam;
use crate::kernel::aligned::Aligned;
use crate::kernel::{Matrix, Pool, Rows};
use crate::loss::{L2Penalty, WeightedMse};
use crate::network::{Network, PASS_ROWS, Pass};

/// What a step is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSettings {
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// The penalty on the parameters.
    pub penalty: L2Penalty,
}

/// A network with its optimizer state and all the room that a step needs; a step allocates nothing.
#[derive(Debug)]
pub struct Trainer<N: Network> {
    network: N,
    loss: WeightedMse,
    adam: Adam,
    steps: u64,
    first: Aligned,
    second: Aligned,
    passes: Vec<N::Pass>,
    /// One for each pass.
    sides: Vec<Mutex<Side>>,
    /// Rows of the batch that is loaded.
    rows: usize,
}

/// What belongs to a pass but not to the network.
#[derive(Debug)]
struct Side {
    /// The input of the next batch, gathered while this one is computed.
    next: Matrix,
    gathered: Vec<f32>,
    /// The sum of the errors of the pass's rows.
    error: f64,
    failure: Option<Error>,
}

impl Side {
    /// Copies the rows named into `next`.
    fn gather(&mut self, rows: &dyn Rows, indices: &[u32]) -> Result<()> {
        self.next.set_rows(indices.len());
        if let Some(values) = rows.as_slice() {
            self.next.gather(values, indices);
            return Ok(());
        }
        let gathered = &mut self.gathered[..indices.len() * rows.dim()];
        rows.gather(indices, gathered)?;
        self.next.copy_from(gathered);
        Ok(())
    }
}

fn lock(side: &Mutex<Side>) -> std::sync::MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The indices that pass `i` takes of a batch.
fn share(indices: &[u32], i: usize) -> &[u32] {
    let start = (i * PASS_ROWS).min(indices.len());
    &indices[start..indices.len().min(start + PASS_ROWS)]
}

impl<N: Network> Trainer<N> {
    /// A trainer for batches of up to `batch_size` rows. Panics if `batch_size` is 0.
    pub fn new(network: N, loss: WeightedMse, batch_size: usize) -> Self {
        assert!(batch_size > 0, "a batch has rows");
        let passes: Vec<N::Pass> = (0..batch_size.div_ceil(PASS_ROWS)).map(|_| network.new_pass()).collect();
        let dim = passes[0].input().columns();
        let side = || Side {
            next: Matrix::zeros(PASS_ROWS, dim),
            gathered: vec![0.0; PASS_ROWS * dim],
            error: 0.0,
            failure: None,
        };
        let zeros = || Aligned::zeros(network.parameters().len());
        Self {
            first: zeros(),
            second: zeros(),
            sides: passes.iter().map(|_| Mutex::new(side())).collect(),
            passes,
            network,
            loss,
            adam: Adam::default(),
            steps: 0,
            rows: 0,
        }
    }

    /// Loads the first batch of an epoch; the later ones are loaded by the steps before them.
    ///
    /// # Errors
    /// Whatever the rows give when they are read.
    pub fn load(&mut self, rows: &dyn Rows, indices: &[u32], pool: &Pool) -> Result<()> {
        let sides = &self.sides;
        pool.run(sides.len(), |i| {
            let mut side = lock(&sides[i]);
            side.failure = side.gather(rows, share(indices, i)).err();
        });
        self.take_next(indices.len())
    }

    /// Makes the batch that was gathered the current one.
    fn take_next(&mut self, rows: usize) -> Result<()> {
        for (pass, side) in self.passes.iter_mut().zip(&self.sides) {
            let mut side = lock(side);
            if let Some(failure) = side.failure.take() {
                return Err(failure);
            }
            std::mem::swap(pass.input_mut(), &mut side.next);
        }
        self.rows = rows;
        Ok(())
    }

    /// Learns from the batch that is loaded, and loads the rows `next` meanwhile. Returns the mean over the batch of
    /// the reconstruction's error, without the penalty; if that is not finite, the parameters stay.
    ///
    /// Panics if no batch is loaded or `next` is larger than a batch may be.
    ///
    /// # Errors
    /// Whatever the rows give when they are read.
    pub fn step(&mut self, rows: &dyn Rows, next: &[u32], pool: &Pool, settings: &StepSettings) -> Result<f64> {
        assert!(self.rows > 0, "no batch is loaded");
        assert!(next.len() <= self.passes.len() * PASS_ROWS, "{} rows in a batch", next.len());
        let Self { network, loss, sides, passes, rows: batch_rows, .. } = self;
        pool.for_each_chunk_mut(passes, 1, |i, pass| {
            let (pass, mut side) = (&mut pass[0], lock(&sides[i]));
            side.error = 0.0;
            if pass.input().rows() > 0 {
                network.forward(pass);
                let (input, output, gradient) = pass.reconstruction();
                side.error = loss.sum_and_gradient(input, output, *batch_rows, gradient);
                network.backward(pass, None);
            }
            side.failure = side.gather(rows, share(next, i)).err();
        });
        let mean = self.sides.iter().map(|side| lock(side).error).sum::<f64>() / self.rows as f64;
        if mean.is_finite() {
            self.update(pool, settings);
        }
        self.take_next(next.len())?;
        Ok(mean)
    }

    fn update(&mut self, pool: &Pool, settings: &StepSettings) {
        self.steps += 1;
        let pull = settings.penalty.pull(self.network.parameters(), pool);
        let adam = self.adam.step(self.steps, settings.learning_rate, pull);
        let used = self.rows.div_ceil(PASS_ROWS);
        let state = [&mut self.first[..], &mut self.second[..]];
        let rule = |parameters: &mut [f32], gradient: &[f32], [first, second]: [&mut [f32]; 2]| {
            adam.apply(parameters, gradient, first, second);
        };
        self.network.update(&self.passes[..used], state, pool, &rule);
    }

    /// The network as it is now.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Its parameters, in one array.
    pub fn parameters(&self) -> &[f32] {
        self.network.parameters()
    }

    /// Steps taken, and Adam's first and second moments in the layout of the parameters.
    pub fn optimizer_state(&self) -> (u64, &[f32], &[f32]) {
        (self.steps, &self.first, &self.second)
    }

    /// Goes back to a state that the accessors gave. Panics if an array has another length.
    pub fn restore(&mut self, parameters: &[f32], steps: u64, first: &[f32], second: &[f32]) {
        self.network.set_parameters(parameters);
        self.steps = steps;
        self.first.copy_from_slice(first);
        self.second.copy_from_slice(second);
    }
}
