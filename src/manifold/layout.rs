//! The layout: connected rows are pulled together, others pushed apart, epoch after epoch with smaller steps (McInnes,
//! Healy and Melville 2018, algorithm 5).
//!
//! The reference implementation processes edges one by one and moves both ends of each. On several threads that needs
//! data races, and then no two runs give the same result. Moving only one end needs no races, but makes the layout
//! noisier: it forgets its initial coordinates and spreads into all dimensions alike. Here rows are divided into
//! [`BLOCKS`] blocks, and the blocks are paired as in a round-robin tournament: each round processes disjoint pairs of
//! blocks in parallel, and each pair processes the edges between its two blocks one by one. The result of a pair
//! depends only on the positions, the epoch and the pair's number, so any number of threads gives the same bits, and a
//! layout can be resumed from the positions after any epoch.

use super::graph::Graph;
use crate::kernel::Pool;
use crate::kernel::forces::{Edge, Forces, Step, meet, stride};

/// The number of blocks, which is even: row i is in block i modulo this. At most half as many threads can work at once.
const BLOCKS: usize = 32;

/// A layout in progress. Its rows are stored block after block.
pub struct Layout {
    dim: usize,
    stride: usize,
    epochs: usize,
    draws: usize,
    seed: u64,
    forces: Forces,
    /// The edges of each pair of blocks `a <= b`, at `a * BLOCKS + b`.
    edges: Vec<Vec<Edge>>,
    positions: Vec<f32>,
}

/// How a layout is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayoutSpec {
    /// Coordinates of a row.
    pub dim: usize,
    /// The number of epochs.
    pub epochs: usize,
    /// The number of rows to push away from for each pull.
    pub draws: usize,
    /// `a` and `b` of the [curve](super::curve()).
    pub curve: (f64, f64),
    /// The seed of the random draws.
    pub seed: u64,
}

/// The index of the first of `rows` rows in a block.
fn block_start(block: usize, rows: usize) -> usize {
    block * (rows / BLOCKS) + block.min(rows % BLOCKS)
}

/// The stored index of row `row` of `rows`.
fn place(row: usize, rows: usize) -> usize {
    block_start(row % BLOCKS, rows) + row / BLOCKS
}

/// The rounds of the tournament: in each, every block occurs once, in pairs; in the first round, every block is paired
/// with itself.
fn rounds() -> impl Iterator<Item = Vec<(usize, usize)>> {
    let alone = (0..BLOCKS).map(|block| (block, block)).collect();
    // The circle method: one block stays, the others rotate.
    let circle = BLOCKS - 1;
    let round = move |r: usize| {
        let across = (1..BLOCKS / 2).map(|i| ((r + i) % circle, (r + circle - i) % circle));
        let pairs = std::iter::once((r, circle)).chain(across);
        pairs.map(|(a, b)| (a.min(b), a.max(b))).collect()
    };
    std::iter::once(alone).chain((0..circle).map(round))
}

impl Layout {
    /// A layout of `graph` from `start` (`rows x dim`).
    pub fn new(graph: &Graph, start: &[f32], spec: LayoutSpec) -> Self {
        let LayoutSpec { dim, epochs, draws, curve: (a, b), seed } = spec;
        let greatest = graph.weights.iter().copied().fold(0.0, f32::max);
        let mut edges = vec![Vec::new(); BLOCKS * BLOCKS];
        for row in 0..graph.len() {
            let (ends, weights) = graph.edges(row);
            for (&end, &weight) in ends.iter().zip(weights) {
                let (end, rate) = (end as usize, weight / greatest);
                let (block, other) = (row % BLOCKS, end % BLOCKS);
                // Each edge is taken once; an edge that would pull less than once is left out.
                let first = block < other || (block == other && row < end);
                if first && rate * epochs as f32 >= 1.0 {
                    let edge = Edge { a: (row / BLOCKS) as u32, b: (end / BLOCKS) as u32, rate };
                    edges[block * BLOCKS + other].push(edge);
                }
            }
        }
        let stride = stride(dim);
        let positions = vec![0.0; graph.len() * stride];
        let mut layout = Self { dim, stride, epochs, draws, seed, forces: Forces::new(a, b), edges, positions };
        layout.set_positions(start);
        layout
    }

    fn rows(&self) -> usize {
        self.positions.len() / self.stride
    }

    /// The positions of the rows, `rows x dim`.
    pub fn positions(&self) -> Vec<f32> {
        let row = |row: usize| &self.positions[place(row, self.rows()) * self.stride..][..self.dim];
        (0..self.rows()).flat_map(row).copied().collect()
    }

    /// Restores the positions after an epoch.
    pub fn set_positions(&mut self, positions: &[f32]) {
        let rows = self.rows();
        for (row, position) in positions.chunks_exact(self.dim).enumerate() {
            self.positions[place(row, rows) * self.stride..][..self.dim].copy_from_slice(position);
        }
    }

    /// Runs epoch number `epoch`, from 0.
    pub fn epoch(&mut self, epoch: usize, pool: &Pool) {
        let (rows, stride) = (self.rows(), self.stride);
        let before = self.positions.clone();
        for round in rounds() {
            let mut blocks: Vec<Option<&mut [f32]>> = Vec::with_capacity(BLOCKS);
            let mut rest = &mut self.positions[..];
            for block in 0..BLOCKS {
                let len = block_start(block + 1, rows) - block_start(block, rows);
                let (head, tail) = rest.split_at_mut(len * stride);
                blocks.push(Some(head));
                rest = tail;
            }
            let mut pairs: Vec<_> = round
                .into_iter()
                .map(|(a, b)| (a * BLOCKS + b, blocks[a].take().unwrap_or_default(), blocks[b].take()))
                .collect();
            pool.for_each_chunk_mut(&mut pairs, 1, |_, pair| {
                let (number, a, b) = &mut pair[0];
                let step = Step {
                    before: &before,
                    stride,
                    forces: &self.forces,
                    draws: self.draws,
                    size: 1.0 - epoch as f32 / self.epochs as f32,
                    epoch: epoch as u32,
                    seed: self.seed.wrapping_add((*number as u64).wrapping_mul(0x5851_F42D_4C95_7F2D)),
                };
                meet(&step, &self.edges[*number], a, b.as_deref_mut());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_blocks_meet_once_and_no_block_twice_in_a_round() {
        let mut met = std::collections::BTreeSet::new();
        for (number, round) in rounds().enumerate() {
            let mut seen: Vec<usize> = round.iter().flat_map(|&(a, b)| [a, b]).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), BLOCKS, "round {number}: {round:?}");
            round.into_iter().for_each(|pair| assert!(met.insert(pair), "{pair:?} met before"));
        }
        assert_eq!(met.len(), BLOCKS * (BLOCKS + 1) / 2);
    }

    #[test]
    fn every_row_has_a_place_of_its_own() {
        for rows in [1, 31, 32, 33, 1000] {
            let mut places: Vec<usize> = (0..rows).map(|row| place(row, rows)).collect();
            places.sort_unstable();
            assert_eq!(places, (0..rows).collect::<Vec<_>>());
            assert_eq!(block_start(BLOCKS, rows), rows);
        }
    }
}
