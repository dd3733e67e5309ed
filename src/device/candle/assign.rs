//! Centroids on a candle device, to assign rows to.

use candle_core::{Device, Result, Tensor};

use super::rows::blocks;
use super::{distance, failed};
use crate::device::Assign;

/// Centroids, `k x dim`.
#[derive(Debug)]
pub(super) struct Centroids(Tensor);

impl Centroids {
    pub fn new(values: &[f32], dim: usize, device: &Device) -> Result<Self> {
        Ok(Self(Tensor::from_slice(values, (values.len() / dim, dim), device)?))
    }

    /// Label and both distances of each row of a block.
    fn block(&self, rows: &[f32]) -> Result<(Vec<u32>, Vec<f32>, Vec<f32>)> {
        let dim = self.0.dim(1)?;
        let rows = Tensor::from_slice(rows, (rows.len() / dim, dim), self.0.device())?;
        let distances = distance::squared(&rows, &self.0)?;
        let (labels, least) = distance::nearest(&distances)?;
        let second = distance::second(&distances, &labels)?;
        Ok((labels.to_vec1()?, least.to_vec1()?, second.to_vec1()?))
    }
}

impl Assign for Centroids {
    fn nearest_two(
        &self,
        rows: &[f32],
        labels: &mut [u32],
        squared: &mut [f32],
        second: &mut [f32],
    ) -> crate::Result<()> {
        let (k, dim) = self.0.dims2().map_err(failed)?;
        for range in blocks(labels.len(), k * dim) {
            let found = self.block(&rows[range.start * dim..range.end * dim]).map_err(failed)?;
            labels[range.clone()].copy_from_slice(&found.0);
            squared[range.clone()].copy_from_slice(&found.1);
            second[range].copy_from_slice(&found.2);
        }
        Ok(())
    }
}
