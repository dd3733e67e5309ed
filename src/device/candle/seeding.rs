//! Greedy k-means++ on a candle device: the sample lies there, and the distances to its nearest seeds here and there.

use candle_core::{DType, Device, Result, Tensor};

use super::rows::blocks;
use super::{distance, failed};

/// A sample with the distances to its seeds so far.
#[derive(Debug)]
pub(super) struct Seeding {
    /// `rows x dim`.
    sample: Tensor,
    /// The squared distance of each row to the nearest seed, at first infinite.
    closest: Tensor,
    /// What `closest` would be with each candidate of the last call, `rows x candidates`.
    candidates: Option<Tensor>,
    /// `closest` on the host, and its running sums. Empty before the first seed.
    distances: Vec<f32>,
    running: Vec<f64>,
}

impl Seeding {
    pub fn new(sample: &[f32], dim: usize, device: &Device) -> crate::Result<Self> {
        let rows = sample.len() / dim;
        let sample = Tensor::from_slice(sample, (rows, dim), device).map_err(failed)?;
        let closest = Tensor::full(f32::INFINITY, rows, device).map_err(failed)?;
        Ok(Self { sample, closest, candidates: None, distances: Vec::new(), running: Vec::new() })
    }

    /// What `closest` would be with each of `candidates`.
    fn with(&self, candidates: &[usize]) -> Result<Tensor> {
        let numbers: Vec<u32> = candidates.iter().map(|&row| row as u32).collect();
        let numbers = Tensor::from_slice(&numbers, numbers.len(), self.sample.device())?;
        let seeds = self.sample.index_select(&numbers, 0)?;
        let (rows, dim) = self.sample.dims2()?;
        let part = |range: std::ops::Range<usize>| {
            let closest = self.closest.narrow(0, range.start, range.len())?.unsqueeze(1)?;
            let sample = self.sample.narrow(0, range.start, range.len())?;
            distance::squared(&sample, &seeds)?.broadcast_minimum(&closest)
        };
        let parts = blocks(rows, candidates.len() * dim).map(part).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)
    }

    fn choose(&mut self, candidate: usize) -> Result<()> {
        if let Some(candidates) = &self.candidates {
            self.closest = candidates.narrow(1, candidate, 1)?.squeeze(1)?.contiguous()?;
        }
        self.distances = self.closest.to_vec1()?;
        let mut sum = 0.0;
        let running = self.distances.iter().map(|&d| {
            sum += f64::from(d);
            sum
        });
        self.running = running.collect();
        Ok(())
    }
}

impl crate::device::Seeding for Seeding {
    fn potentials(&mut self, candidates: &[usize], out: &mut [f64]) -> crate::Result<()> {
        let with = self.with(candidates).map_err(failed)?;
        let sums = with.to_dtype(DType::F64).and_then(|with| with.sum(0)?.to_vec1::<f64>()).map_err(failed)?;
        out.copy_from_slice(&sums);
        self.candidates = Some(with);
        Ok(())
    }

    fn choose(&mut self, candidate: usize) -> crate::Result<()> {
        Seeding::choose(self, candidate).map_err(failed)
    }

    fn locate(&self, target: f64) -> crate::Result<usize> {
        let passed = self.running.partition_point(|&sum| sum <= target);
        if passed < self.running.len() {
            return Ok(passed);
        }
        // Rounding can leave a target just past the end: the last row that may be drawn.
        Ok(self.distances.iter().rposition(|&d| d > 0.0).unwrap_or(0))
    }
}
