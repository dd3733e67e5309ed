//! The seam between what is learned and where it is computed.
//!
//! [`Device`] is all that training, k-means and the label pass know of the machine: each asks it for an object that
//! works on the device, and gives that object work in pieces large enough to be worth a transfer. Schedules, stopping,
//! random choices, error messages and Arrow stay on this side and exist once. [`Cpu`] computes with our kernels, [`Candle`]
//! over candle tensors on any device of candle's; another implementation needs a file of its own and an arm in
//! [`DeviceChoice::open`].
//!
//! | who | asks for | a piece of work |
//! |---|---|---|
//! | `train` | [`Trainer`] | a mini-batch: forward, losses, backward, Adam |
//! | `kmeans` | [`Points`], [`Seeding`], [`Lloyd`] | a pass over the rows; a mini-batch |
//! | `embed` | [`Encode`], [`Decode`] | the rows of a record batch |
//! | `label` | [`Assign`] | the rows of a record batch |
//!
//! Slices are on the host and row-major throughout; what an object keeps on its device is its own affair. Every method
//! gives the same bits whenever it is called again with the same values, whatever the number of threads. Two devices
//! may differ by rounding.

mod candle;
mod choice;
mod clustering;
mod cpu;
#[cfg(any(feature = "cuda", test))]
mod gpu;
mod training;

use std::fmt::Debug;
use std::sync::Arc;

pub use candle::Candle;
pub use choice::{DeviceChoice, MOST_THREADS, threads};
pub use clustering::{Assigned, BatchSums, Farthest, Found, Lloyd, Points, Seeding};
pub use cpu::Cpu;
#[cfg(test)]
pub(crate) use cpu::lloyd_on_cpu;
pub use training::{Met, StepLoss, StepSettings, Trainer, TrainerState};

use crate::error::Result;
use crate::kernel::{Pool, Rows};
use crate::loss::WeightedMse;
use crate::network::{Architecture, Builder};
use crate::seed::Seed;

/// Where the arithmetic runs.
///
/// What it is given is checked: lengths fit, values are finite, there are rows. An implementation may panic where they
/// do not. Its own failures (memory that is used up, a device that is gone) are errors of kind `Compute`.
pub trait Device: Debug + Send + Sync {
    /// The host's compute threads, for what is not worth a device: reading, scaling, statistics.
    fn pool(&self) -> &Arc<Pool>;

    /// Whether dense autoencoders learn by its [`trainer`](Self::trainer), all layers fused into one step. Otherwise they
    /// learn on candle's tape, as any other network does.
    fn fused(&self) -> bool {
        true
    }

    /// What the layers of networks that learn on candle's tape are made with; `seed` is the source of their random choices.
    fn builder(&self, seed: Seed) -> Builder {
        Builder::on_cpu(Arc::clone(self.pool()), seed)
    }

    /// Training of an autoencoder on `rows` (`rows x dim`): layers, first parameters in the layout of
    /// [`Architecture::tensors`], the reconstruction's loss, and the most rows in a mini-batch, at least 1.
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn trainer<'a>(
        &'a self,
        rows: &'a dyn Rows,
        architecture: &Architecture,
        parameters: &[f32],
        loss: WeightedMse,
        batch_size: usize,
    ) -> Result<Box<dyn Trainer + 'a>>;

    /// Rows (`rows x dim`) for k-means to pass over again and again.
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room, or what reading the rows gives.
    fn points<'a>(&'a self, rows: &'a dyn Rows) -> Result<Box<dyn Points + 'a>>;

    /// Seeding among `sample` (`rows x dim`).
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn seeding<'a>(&'a self, sample: &'a [f32], dim: usize) -> Result<Box<dyn Seeding + 'a>>;

    /// The encoder of `architecture`, whose decoder plays no part, with its parameters in the layout of
    /// [`Architecture::tensors`].
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn encoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Encode>>;

    /// The decoder of `architecture`, whose encoder plays no part, with the parameters of both in the layout of
    /// [`Architecture::tensors`].
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn decoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Decode>>;

    /// Centroids (`k x dim`, `k` less than 2^24) to assign rows to.
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    fn centroids(&self, values: &[f32], dim: usize) -> Result<Arc<dyn Assign>>;
}

/// An encoder on its device. Immutable; any number of threads may use it at once.
pub trait Encode: Debug + Send + Sync {
    /// Embeds the rows of `input` (`rows x dim_in`) into `output` (`rows x dim_out`). The same row gives the same bits,
    /// whatever rows come with it.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn encode(&self, input: &[f32], output: &mut [f32]) -> Result<()>;
}

/// A decoder on its device. Immutable; any number of threads may use it at once.
pub trait Decode: Debug + Send + Sync {
    /// Rebuilds rows from the embeddings `input` (`rows x dim_embedding`) into `output` (`rows x dim`). The same
    /// embedding gives the same bits, whatever others come with it.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn decode(&self, input: &[f32], output: &mut [f32]) -> Result<()>;
}

/// Centroids on their device. Immutable; any number of threads may use them at once.
pub trait Assign: Debug + Send + Sync {
    /// For each of `rows` (`rows x dim`): its nearest centroid, in a tie the lower number, into `labels`; the squared
    /// distance to it into `squared`; and that to the second nearest, equal to the first in a tie and infinite for a
    /// single centroid, into `second`. The same row gives the same bits, whatever rows come with it. `O(rows x k x dim)`.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) -> Result<()>;
}

/// Makes distances and margins of the squared distances to the nearest centroids and to the second nearest: the Euclidean
/// distance in place of the first, and by how much the second nearest is farther in place of the other.
pub(crate) fn distances_and_margins(squared: &mut [f32], second: &mut [f32]) {
    for (distance, margin) in squared.iter_mut().zip(second) {
        *distance = distance.sqrt();
        *margin = margin.sqrt() - *distance;
    }
}
