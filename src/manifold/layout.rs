//! The layout: rows that are joined are pulled together, others pushed apart, epoch after epoch with smaller steps
//! (McInnes, Healy and Melville 2018, algorithm 5).
//!
//! The reference implementation moves both ends of one edge after the other, which is fast on several threads only where
//! they race, and then no two runs give the same. Here an epoch is a fixed number of rounds; in a round every eighth row
//! moves, all from where the rows were before the round. What a row does depends on nothing but the positions, the epoch
//! and its number, so rounds run on any number of threads with the same bits, and a layout goes on from the positions
//! after any epoch.

use super::graph::Graph;
use crate::kernel::Pool;
use crate::kernel::forces::{Forces, Step, move_rows, stride};

/// Rounds of an epoch: the rows whose number is the round's, modulo this, move together.
const ROUNDS: usize = 8;
/// Rows that a task moves.
const BLOCK: usize = 64;

/// A layout under way. Its rows lie round after round.
pub struct Layout {
    dim: usize,
    stride: usize,
    epochs: usize,
    draws: usize,
    seed: u64,
    forces: Forces,
    starts: Vec<usize>,
    ends: Vec<u32>,
    rates: Vec<f32>,
    positions: Vec<f32>,
    moved: Vec<f32>,
}

/// How a layout is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayoutSpec {
    /// Coordinates of a row.
    pub dim: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Rows that each pull pushes away from.
    pub draws: usize,
    /// `a` and `b` of the [curve](super::curve).
    pub curve: (f64, f64),
    /// What the draws depend on.
    pub seed: u64,
}

/// Where row `row` lies among `rows`.
fn place(row: usize, rows: usize) -> usize {
    round_start(row % ROUNDS, rows) + row / ROUNDS
}

/// Where the rows of a round begin.
fn round_start(round: usize, rows: usize) -> usize {
    (0..round).map(|r| (rows + ROUNDS - 1 - r) / ROUNDS).sum()
}

impl Layout {
    /// A layout of `graph` from `start` (`rows x dim`).
    pub fn new(graph: &Graph, start: &[f32], spec: LayoutSpec) -> Self {
        let LayoutSpec { dim, epochs, draws, curve: (a, b), seed } = spec;
        let n = graph.len();
        let stride = stride(dim);
        let greatest = graph.weights.iter().copied().fold(0.0, f32::max);
        let mut layout = Self {
            dim,
            stride,
            epochs,
            draws,
            seed,
            forces: Forces::new(a, b),
            starts: vec![0],
            ends: Vec::new(),
            rates: Vec::new(),
            positions: vec![0.0; n * stride],
            moved: Vec::new(),
        };
        let places: Vec<u32> = (0..n).map(|row| place(row, n) as u32).collect();
        for round in 0..ROUNDS {
            for row in (round..n).step_by(ROUNDS) {
                let (ends, weights) = graph.edges(row);
                for (&end, &weight) in ends.iter().zip(weights) {
                    let rate = weight / greatest;
                    // An edge that would pull less than once does not.
                    if rate * epochs as f32 >= 1.0 {
                        layout.ends.push(places[end as usize]);
                        layout.rates.push(rate);
                    }
                }
                layout.starts.push(layout.ends.len());
            }
        }
        layout.set_positions(start);
        layout
    }

    /// Where the rows are, `rows x dim`.
    pub fn positions(&self) -> Vec<f32> {
        let n = self.positions.len() / self.stride;
        let row = |row: usize| &self.positions[place(row, n) * self.stride..][..self.dim];
        (0..n).flat_map(row).copied().collect()
    }

    /// Puts the rows where they were after an epoch.
    pub fn set_positions(&mut self, positions: &[f32]) {
        let n = self.positions.len() / self.stride;
        for (row, position) in positions.chunks_exact(self.dim).enumerate() {
            self.positions[place(row, n) * self.stride..][..self.dim].copy_from_slice(position);
        }
    }

    /// Epoch number `epoch`, from 0 on.
    pub fn epoch(&mut self, epoch: usize, pool: &Pool) {
        let n = self.positions.len() / self.stride;
        for round in 0..ROUNDS {
            let range = round_start(round, n)..round_start(round + 1, n);
            let step = Step {
                positions: &self.positions,
                stride: self.stride,
                starts: &self.starts,
                ends: &self.ends,
                rates: &self.rates,
                forces: &self.forces,
                draws: self.draws,
                size: 1.0 - epoch as f32 / self.epochs as f32,
                epoch: epoch as u32,
                seed: self.seed,
            };
            self.moved.resize(range.len() * self.stride, 0.0);
            pool.for_each_chunk_mut(&mut self.moved, BLOCK * self.stride, |block, out| {
                move_rows(&step, range.start + block * BLOCK, out);
            });
            self.positions[range.start * self.stride..range.end * self.stride].copy_from_slice(&self.moved);
        }
    }
}
