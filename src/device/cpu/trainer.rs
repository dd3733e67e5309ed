//! One mini-batch: forward, losses, backward, update, and the gathering of the next.

use std::sync::{Mutex, PoisonError};

use crate::device::{StepLoss, StepSettings, TrainerState};
use crate::error::{Error, Result};
use crate::kernel::adam::Adam;
use crate::kernel::aligned::Aligned;
use crate::kernel::{Matrix, Pool, Rows};
use crate::loss::WeightedMse;
use crate::network::{Network, PASS_ROWS, Pass};

/// A network with its optimizer state and all the room that a step needs; a step allocates nothing.
pub(super) struct Trainer<'a, N: Network> {
    pool: &'a Pool,
    rows: &'a dyn Rows,
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
    batch_rows: usize,
}

/// What belongs to a pass but not to the network.
struct Side {
    /// The input of the next batch, gathered while this one is computed.
    next: Matrix,
    gathered: Vec<f32>,
    /// The numbers of the pass's rows, and of those in `next`.
    numbers: [Vec<u32>; 2],
    /// The gradient of the loss at the embedding.
    at_embedding: Matrix,
    /// The sums of the losses of the pass's rows.
    loss: StepLoss,
    failure: Option<Error>,
}

impl Side {
    /// Copies the rows named into `next`.
    fn gather(&mut self, rows: &dyn Rows, indices: &[u32]) -> Result<()> {
        self.next.set_rows(indices.len());
        self.numbers[1].clear();
        self.numbers[1].extend_from_slice(indices);
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

impl<'a, N: Network> Trainer<'a, N> {
    /// A trainer for batches of up to `batch_size` of the rows. Panics if `batch_size` is 0.
    pub fn new(network: N, rows: &'a dyn Rows, loss: WeightedMse, batch_size: usize, pool: &'a Pool) -> Self {
        assert!(batch_size > 0, "a batch has rows");
        let passes: Vec<N::Pass> = (0..batch_size.div_ceil(PASS_ROWS)).map(|_| network.new_pass()).collect();
        let dim = passes[0].input().columns();
        let side = || Side {
            next: Matrix::zeros(PASS_ROWS, dim),
            gathered: vec![0.0; if rows.as_slice().is_some() { 0 } else { PASS_ROWS * dim }],
            numbers: [(); 2].map(|()| Vec::with_capacity(PASS_ROWS)),
            at_embedding: Matrix::zeros(PASS_ROWS, passes[0].embedding().columns()),
            loss: StepLoss::default(),
            failure: None,
        };
        let zeros = || Aligned::zeros(network.parameters().len());
        Self {
            pool,
            rows,
            first: zeros(),
            second: zeros(),
            sides: passes.iter().map(|_| Mutex::new(side())).collect(),
            passes,
            network,
            loss,
            adam: Adam::default(),
            steps: 0,
            batch_rows: 0,
        }
    }

    /// Makes the batch that was gathered the current one.
    fn take_next(&mut self, rows: usize) -> Result<()> {
        for (pass, side) in self.passes.iter_mut().zip(&self.sides) {
            let mut side = lock(side);
            if let Some(failure) = side.failure.take() {
                return Err(failure);
            }
            std::mem::swap(pass.input_mut(), &mut side.next);
            side.numbers.swap(0, 1);
        }
        self.batch_rows = rows;
        Ok(())
    }

    fn update(&mut self, settings: &StepSettings<'_>) {
        self.steps += 1;
        let l2 = settings.penalty.weight_decay(self.network.parameters(), self.pool);
        let adam = self.adam.step(self.steps, settings.learning_rate, l2);
        let used = self.batch_rows.div_ceil(PASS_ROWS);
        let state = [&mut self.first[..], &mut self.second[..]];
        let rule = |parameters: &mut [f32], gradient: &[f32], [first, second]: [&mut [f32]; 2]| {
            adam.apply(parameters, gradient, first, second);
        };
        self.network.update(&self.passes[..used], state, self.pool, &rule);
    }
}

impl<N: Network> crate::device::Trainer for Trainer<'_, N> {
    fn load(&mut self, batch: &[u32]) -> Result<()> {
        let (sides, rows) = (&self.sides, self.rows);
        self.pool.run(sides.len(), |i| {
            let mut side = lock(&sides[i]);
            side.failure = side.gather(rows, share(batch, i)).err();
        });
        self.take_next(batch.len())
    }

    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<StepLoss> {
        assert!(self.batch_rows > 0, "no batch is loaded");
        assert!(next.len() <= self.passes.len() * PASS_ROWS, "{} rows in a batch", next.len());
        let Self { pool, rows, network, loss, sides, passes, batch_rows, .. } = self;
        let (rows, batch_rows) = (*rows, *batch_rows);
        pool.for_each_chunk_mut(passes, 1, |i, pass| {
            let (pass, side) = (&mut pass[0], &mut *lock(&sides[i]));
            side.loss = StepLoss::default();
            if pass.input().rows() > 0 {
                network.forward(pass);
                if let Some(joined) = settings.embedding {
                    side.at_embedding.set_rows(pass.embedding().rows());
                    side.loss.embedding =
                        joined.sum_and_gradient(pass.embedding(), &side.numbers[0], batch_rows, &mut side.at_embedding);
                }
                let (input, output, gradient) = pass.reconstruction();
                side.loss.reconstruction =
                    loss.sum_and_gradient(input, output, batch_rows, settings.reconstruction, gradient);
                network.backward(pass, settings.embedding.map(|_| &side.at_embedding));
            }
            side.failure = side.gather(rows, share(next, i)).err();
        });
        let mean = |part: fn(&StepLoss) -> f64| {
            self.sides.iter().map(|side| part(&lock(side).loss)).sum::<f64>() / self.batch_rows as f64
        };
        let loss = StepLoss { reconstruction: mean(|l| l.reconstruction), embedding: mean(|l| l.embedding) };
        if loss.is_finite() {
            self.update(settings);
        }
        self.take_next(next.len())?;
        Ok(loss)
    }

    fn state(&self) -> Result<TrainerState> {
        Ok(TrainerState {
            steps: self.steps,
            parameters: self.network.parameters().to_vec(),
            first: self.first.to_vec(),
            second: self.second.to_vec(),
        })
    }

    fn restore(&mut self, state: &TrainerState) -> Result<()> {
        self.network.set_parameters(&state.parameters);
        self.steps = state.steps;
        self.first.copy_from_slice(&state.first);
        self.second.copy_from_slice(&state.second);
        Ok(())
    }
}
