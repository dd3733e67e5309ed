//! Rows that are passed over again and again: on the device where they fit, else sent block by block.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::failed;
use crate::error::Result;
use crate::kernel::{Rows, fold};

/// Values that the largest tensor of a pass may have: 64 MiB of them.
const LARGEST: usize = 1 << 24;
/// Least and most rows in a block.
const BLOCK_ROWS: (usize, usize) = (16, 1 << 16);

/// Rows in a block of which each row makes `values` values.
pub(super) fn block_rows(values: usize) -> usize {
    (LARGEST / values.max(1)).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1)
}

/// The blocks of `rows` rows of which each makes `values` values.
pub(super) fn blocks(rows: usize, values: usize) -> impl Iterator<Item = Range<usize>> {
    let size = block_rows(values);
    (0..rows).step_by(size).map(move |first| first..(first + size).min(rows))
}

/// Rows, and their copy on the device where it fits.
#[derive(Debug)]
pub(super) struct DeviceRows<'a> {
    rows: Host<'a>,
    pub device: Device,
    /// All rows, `len x dim`.
    resident: Option<Tensor>,
}

/// The rows as they were given.
struct Host<'a>(&'a dyn Rows);

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of {} values", self.0.len(), self.0.dim())
    }
}

impl<'a> DeviceRows<'a> {
    /// Copies the rows to the device if they are at most `most` bytes and it has room.
    ///
    /// # Errors
    /// What reading the rows gives.
    pub fn new(rows: &'a dyn Rows, device: &Device, most: usize) -> Result<Self> {
        let fits = rows.len().saturating_mul(rows.dim()).saturating_mul(size_of::<f32>()) <= most;
        let resident = if fits { upload(rows, device)? } else { None };
        Ok(Self { rows: Host(rows), device: device.clone(), resident })
    }

    /// The rows as they were given.
    pub fn host(&self) -> &'a dyn Rows {
        self.rows.0
    }

    pub fn len(&self) -> usize {
        self.rows.0.len()
    }

    pub fn dim(&self) -> usize {
        self.rows.0.dim()
    }

    /// The rows `range`, `range.len() x dim`. Those that are not on the device go through `buffer`.
    pub fn block(&self, range: Range<usize>, buffer: &mut Vec<f32>) -> Result<Tensor> {
        match &self.resident {
            Some(all) => all.narrow(0, range.start, range.len()).map_err(failed),
            None => {
                let shape = (range.len(), self.dim());
                Tensor::from_slice(fold::block(self.rows.0, range, buffer)?, shape, &self.device).map_err(failed)
            }
        }
    }

    /// The rows named by `indices`, in their order.
    pub fn gather(&self, indices: &[u32], buffer: &mut Vec<f32>) -> Result<Tensor> {
        match &self.resident {
            Some(all) => {
                let indices = Tensor::from_slice(indices, indices.len(), &self.device);
                indices.and_then(|indices| all.index_select(&indices, 0)).map_err(failed)
            }
            None => {
                buffer.resize(indices.len() * self.dim(), 0.0);
                self.rows.0.gather(indices, buffer)?;
                Tensor::from_slice(buffer, (indices.len(), self.dim()), &self.device).map_err(failed)
            }
        }
    }
}

/// All rows on the device; nothing where it has no room for them.
fn upload(rows: &dyn Rows, device: &Device) -> Result<Option<Tensor>> {
    let shape = (rows.len(), rows.dim());
    if let Some(values) = rows.as_slice() {
        return Ok(Tensor::from_slice(values, shape, device).ok());
    }
    let Ok(all) = Tensor::zeros(shape, DType::F32, device) else { return Ok(None) };
    let mut buffer = Vec::new();
    for range in blocks(rows.len(), rows.dim()) {
        buffer.resize(range.len() * rows.dim(), 0.0);
        rows.read(range.clone(), &mut buffer)?;
        let block = Tensor::from_slice(&buffer, (range.len(), rows.dim()), device);
        block.and_then(|block| all.slice_set(&block, 0, range.start)).map_err(failed)?;
    }
    Ok(Some(all))
}
