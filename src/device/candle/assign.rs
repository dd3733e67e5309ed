//! Rows to the centroids of a model.

use candle_core::{Result, Tensor};

use super::centers::Centers;
use super::failed;
use super::rows::blocks;
use crate::device::Assign;

/// Label and both distances of each row of a block.
fn block(centers: &Centers, rows: &[f32]) -> Result<(Vec<u32>, Vec<f32>, Vec<f32>)> {
    let values = centers.values();
    let dim = values.dim(1)?;
    let rows = Tensor::from_slice(rows, (rows.len() / dim, dim), values.device())?;
    let found = centers.nearest(&rows, true)?;
    let second = found.second.map(|second| second.to_vec1()).transpose()?;
    Ok((found.labels.to_vec1()?, found.squared.to_vec1()?, second.unwrap_or_default()))
}

impl Assign for Centers {
    fn nearest_two(
        &self,
        rows: &[f32],
        labels: &mut [u32],
        squared: &mut [f32],
        second: &mut [f32],
    ) -> crate::Result<()> {
        let dim = self.values().dim(1).map_err(failed)?;
        for range in blocks(labels.len(), self.row_values()) {
            let found = block(self, &rows[range.start * dim..range.end * dim]).map_err(failed)?;
            labels[range.clone()].copy_from_slice(&found.0);
            squared[range.clone()].copy_from_slice(&found.1);
            second[range].copy_from_slice(&found.2);
        }
        Ok(())
    }
}
