//! A candle device: the CPU, or an NVIDIA GPU in a build with the feature `cuda`.
//!
//! All arithmetic is formulas over candle tensors, which the tests run on candle's CPU device and compare with
//! [`Cpu`](super::Cpu). On a CUDA device dense autoencoders learn by kernels of ours instead, and the nearest centroid and
//! the sums of clusters are such kernels; the tests run them on an emulated machine. On a machine without a GPU
//! [`Cpu`](super::Cpu) is several times faster than this.
//!
//! What it gives differs from the CPU's by rounding alone. Distances are sums of squared differences in `f32`, as the
//! CPU's, and not `|x|² - 2 x·c + |c|²`, in which close rows cancel: their relative error is a few units in the last
//! place, and two centroids whose distances differ by less may swap. Sums over rows are in `f64`.

mod assign;
mod centers;
mod distance;
mod layers;
mod lloyd;
mod points;
mod rows;
mod seeding;
mod trainer;

use std::sync::Arc;

#[cfg(feature = "cuda")]
use super::gpu;
use super::{Assign, Decode, Device, Encode};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, free_bytes};
use crate::error::{Error, Result};
use crate::kernel::{Pool, Rows};
use crate::loss::WeightedMse;
#[cfg(feature = "cuda")]
use crate::memory;
use crate::network::{Architecture, Builder};
use crate::seed::Seed;

/// Bytes of rows that are kept on the device unless another bound is given.
const RESIDENT_BYTES: usize = 8 << 30;

/// A candle device, with compute threads on the host for what is not worth a device.
///
/// Rows that training and k-means pass over again and again are kept on the device as long as they are no more than
/// [`resident_bytes`](Self::resident_bytes) and the device has room; others are read and sent a block at a time.
///
/// ```
/// use dacpipe::device::{Assign, Candle, Device};
/// let device = Candle::new(candle_core::Device::Cpu, 1);
/// let centroids = device.centroids(&[0.0, 10.0], 1)?;
/// let (mut labels, mut squared, mut second) = ([0; 2], [0.0; 2], [0.0; 2]);
/// centroids.nearest_two(&[7.0, 5.0], &mut labels, &mut squared, &mut second)?;
/// assert_eq!((labels, squared, second), ([1, 0], [9.0, 25.0], [49.0, 25.0]));
/// # Ok::<(), dacpipe::Error>(())
/// ```
#[derive(Debug)]
pub struct Candle {
    device: candle_core::Device,
    pool: Arc<Pool>,
    resident_bytes: usize,
    formulas: bool,
}

impl Candle {
    /// The device given, with `threads` compute threads on the host, the caller counted as one.
    pub fn new(device: candle_core::Device, threads: usize) -> Self {
        Self { device, pool: Arc::new(Pool::new(threads)), resident_bytes: RESIDENT_BYTES, formulas: false }
    }

    /// The same, keeping at most `bytes` of rows on the device; 8 GiB if this is not called.
    pub fn resident_bytes(self, bytes: usize) -> Self {
        Self { resident_bytes: bytes, ..self }
    }

    /// The same; the layers of networks on candle's tape compute by formulas over tensors on candle's CPU too, as they do on
    /// other devices.
    pub fn by_formulas(self) -> Self {
        Self { formulas: true, ..self }
    }

    fn rows<'a>(&self, rows: &'a dyn Rows) -> Result<rows::DeviceRows<'a>> {
        let most = self.resident_bytes;
        #[cfg(feature = "cuda")]
        let most = match &self.device {
            candle_core::Device::Cuda(device) => most.min(memory::left_on_device("k-means", 0, free_bytes(device)?)?),
            _ => most,
        };
        rows::DeviceRows::new(rows, &self.device, most)
    }

    /// Waits until what was sent has arrived: other threads may use it from then on.
    fn arrived(&self) -> Result<()> {
        self.device.synchronize().map_err(failed)
    }
}

impl Device for Candle {
    fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn builder(&self, seed: Seed) -> Builder {
        let builder = Builder::on(self.device.clone(), Arc::clone(&self.pool), seed);
        Builder { formulas: builder.formulas || self.formulas, ..builder }
    }

    fn trainer<'a>(
        &'a self,
        rows: &'a dyn Rows,
        architecture: &Architecture,
        parameters: &[f32],
        loss: WeightedMse,
        batch_size: usize,
    ) -> Result<Box<dyn super::Trainer + 'a>> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = &self.device {
            let needed = gpu::Trainer::bytes(architecture, batch_size);
            let free = free_bytes(device)?;
            let what = format!("training a network of {} parameters", architecture.parameter_count());
            let left = memory::left_on_device(&what, needed, free)?;
            let machine = Box::new(Gpu::apart(device)?);
            let network = (architecture, parameters);
            let resident = self.resident_bytes.min(left);
            return Ok(Box::new(gpu::Trainer::new(machine, rows, network, &loss, batch_size, resident)?));
        }
        let rows = self.rows(rows)?;
        Ok(Box::new(trainer::Trainer::new(rows, architecture, parameters, &loss, batch_size)?))
    }

    fn points<'a>(&'a self, rows: &'a dyn Rows) -> Result<Box<dyn super::Points + 'a>> {
        Ok(Box::new(points::Points::new(self.rows(rows)?)))
    }

    fn seeding<'a>(&'a self, sample: &'a [f32], dim: usize) -> Result<Box<dyn super::Seeding + 'a>> {
        Ok(Box::new(seeding::Seeding::new(sample, dim, &self.device)?))
    }

    fn encoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Encode>> {
        let layers = layers::Layers::encoder(architecture, parameters, &self.device).map_err(failed)?;
        self.arrived()?;
        Ok(Arc::new(layers))
    }

    fn decoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Decode>> {
        let layers = layers::Layers::decoder(architecture, parameters, &self.device).map_err(failed)?;
        self.arrived()?;
        Ok(Arc::new(layers))
    }

    fn centroids(&self, values: &[f32], dim: usize) -> Result<Arc<dyn Assign>> {
        let centroids = centers::Centers::new(values, dim, &self.device).map_err(failed)?;
        self.arrived()?;
        Ok(Arc::new(centroids))
    }
}

/// What candle could not do.
fn failed(e: candle_core::Error) -> Error {
    Error::compute("the device failed").with_source(e)
}
