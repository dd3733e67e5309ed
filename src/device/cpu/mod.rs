//! The processor.

mod bounds;
mod lloyd;
mod points;
mod seeding;
mod trainer;

use std::sync::Arc;

use super::{Assign, Decode, Device, Encode};
use crate::error::Result;
use crate::kernel::distance::Centroids;
use crate::kernel::sums::NO_CLUSTER;
use crate::kernel::{Pool, Rows, fold};
use crate::loss::WeightedMse;
use crate::network::{Architecture, Decoder, Encoder, Mlp};

/// The labels of rows that are in no cluster yet.
static NOWHERE: [u32; fold::MAX_BLOCK_ROWS] = [NO_CLUSTER; fold::MAX_BLOCK_ROWS];

/// The processor, with a fixed set of compute threads. Encoders, decoders and centroids work on whatever thread calls
/// them. Nothing that it computes depends on the number of threads. Memory of k-means: 12 bytes a row, and sums of
/// `k x dim` doubles for up to 64 parts of the rows.
///
/// ```
/// use dacpipe::device::{Assign, Cpu, Device};
/// let centroids = Cpu::new(2).centroids(&[0.0, 10.0], 1)?;
/// let (mut labels, mut squared, mut second) = ([0; 2], [0.0; 2], [0.0; 2]);
/// centroids.nearest_two(&[7.0, 5.0], &mut labels, &mut squared, &mut second)?;
/// assert_eq!((labels, squared, second), ([1, 0], [9.0, 25.0], [49.0, 25.0]));
/// # Ok::<(), dacpipe::Error>(())
/// ```
#[derive(Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
    fused: bool,
}

impl Cpu {
    /// The processor with `threads` compute threads, the caller counted as one.
    pub fn new(threads: usize) -> Self {
        Self { pool: Arc::new(Pool::new(threads)), fused: true }
    }

    /// The same, on which dense autoencoders learn on candle's tape, layer by layer.
    pub fn unfused(self) -> Self {
        Self { fused: false, ..self }
    }
}

/// With the caller as its one compute thread: enough for fitted stages, which work on the thread that calls them.
impl Default for Cpu {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Device for Cpu {
    fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn fused(&self) -> bool {
        self.fused
    }

    fn trainer<'a>(
        &'a self,
        rows: &'a dyn Rows,
        architecture: &Architecture,
        parameters: &[f32],
        loss: WeightedMse,
        batch_size: usize,
    ) -> Result<Box<dyn super::Trainer + 'a>> {
        let network = Mlp::new(architecture.clone(), parameters);
        Ok(Box::new(trainer::Trainer::new(network, rows, loss, batch_size, &self.pool)))
    }

    fn points<'a>(&'a self, rows: &'a dyn Rows) -> Result<Box<dyn super::Points + 'a>> {
        Ok(Box::new(points::Points::new(rows, &self.pool)))
    }

    fn seeding<'a>(&'a self, sample: &'a [f32], dim: usize) -> Result<Box<dyn super::Seeding + 'a>> {
        Ok(Box::new(seeding::Seeding::new(sample, dim, &self.pool)))
    }

    fn encoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Encode>> {
        Ok(Arc::new(Encoder::new(architecture, parameters)))
    }

    fn decoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Decode>> {
        Ok(Arc::new(Decoder::new(architecture, parameters)))
    }

    fn centroids(&self, values: &[f32], dim: usize) -> Result<Arc<dyn Assign>> {
        Ok(Arc::new(Centroids::new(values, dim)))
    }
}

impl Encode for Encoder {
    fn encode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.encode(input, output);
        Ok(())
    }
}

impl Decode for Decoder {
    fn decode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.decode(input, output);
        Ok(())
    }
}

impl Assign for Centroids {
    fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) -> Result<()> {
        self.nearest_two(rows, labels, squared, second);
        Ok(())
    }
}

/// Lloyd's iterations on the processor with bounds or without, whatever pays.
#[cfg(test)]
pub(crate) fn lloyd_on_cpu<'a>(rows: &'a dyn Rows, k: usize, bounded: bool, pool: &'a Pool) -> impl super::Lloyd + 'a {
    lloyd::Lloyd::new(rows, k, bounded, pool)
}
