//! Passes of k-means over rows on a candle device.

use candle_core::{DType, Result, Tensor};

use super::centers::Centers;
use super::failed;
use super::lloyd::Lloyd;
use super::rows::{DeviceRows, blocks};
use crate::device::{Assigned, BatchSums, Found};
use crate::kernel::Rows;

/// Rows that k-means passes over.
#[derive(Debug)]
pub(super) struct Points<'a> {
    rows: DeviceRows<'a>,
    /// Room for a mini-batch on its way to the device.
    buffer: Vec<f32>,
}

impl<'a> Points<'a> {
    pub fn new(rows: DeviceRows<'a>) -> Self {
        Self { rows, buffer: Vec::new() }
    }

    /// Centroids (`k x dim`) on the device.
    fn centers(&self, values: &[f32]) -> crate::Result<Centers> {
        Centers::new(values, self.rows.dim(), &self.rows.device).map_err(failed)
    }
}

/// The sums over a block of `x - origin` and of its square, feature by feature, one after the other.
fn moments(block: &Tensor, origin: &Tensor) -> Result<Tensor> {
    let centred = block.to_dtype(DType::F64)?.broadcast_sub(origin)?;
    Tensor::cat(&[centred.sum(0)?, centred.sqr()?.sum(0)?], 0)
}

/// The label of each row of a block and its squared distance.
fn nearest(block: &Tensor, centers: &Centers) -> Result<(Vec<u32>, Vec<f32>)> {
    let found = centers.nearest(block, false)?;
    Ok((found.labels.to_vec1()?, found.squared.to_vec1()?))
}

/// Adds a block of a mini-batch to `out`.
fn add_batch(block: &Tensor, centers: &Centers, out: &mut BatchSums) -> Result<()> {
    let found = centers.nearest(block, false)?;
    let (sums, counts) = centers.sums(block, &found.labels)?;
    out.sums.iter_mut().zip(sums.flatten_all()?.to_vec1::<f64>()?).for_each(|(sum, more)| *sum += more);
    out.counts.iter_mut().zip(counts.to_vec1::<f64>()?).for_each(|(count, more)| *count += more as i64);
    out.squared.extend(found.squared.to_vec1::<f32>()?);
    Ok(())
}

/// A block's rows with their clusters, and what these add up to.
fn assigned(block: &Tensor, centers: &Centers) -> Result<Assigned> {
    let found = centers.nearest(block, true)?;
    let (sums, counts) = centers.sums(block, &found.labels)?;
    let second = found.second.map(|second| second.to_vec1()).transpose()?;
    Ok(Assigned {
        labels: found.labels.to_vec1()?,
        squared: found.squared.to_vec1()?,
        second: second.unwrap_or_default(),
        sums: sums.flatten_all()?.to_vec1()?,
        counts: counts.to_vec1::<f64>()?.into_iter().map(|count| count as i64).collect(),
    })
}

impl crate::device::Points for Points<'_> {
    fn rows(&self) -> &dyn Rows {
        self.rows.host()
    }

    fn moments(&self, origin: &[f32], sums: &mut [f64], squares: &mut [f64]) -> crate::Result<()> {
        let dim = origin.len();
        let origin = Tensor::from_slice(origin, dim, &self.rows.device).and_then(|origin| origin.to_dtype(DType::F64));
        let origin = origin.map_err(failed)?;
        let mut buffer = Vec::new();
        let mut total: Option<Tensor> = None;
        for range in blocks(self.rows.len(), 4 * dim) {
            let more = moments(&self.rows.block(range, &mut buffer)?, &origin);
            let sum = match total {
                Some(total) => more.and_then(|more| total + more),
                None => more,
            };
            total = Some(sum.map_err(failed)?);
        }
        let Some(total) = total else { return Ok(()) };
        let total = total.to_vec1::<f64>().map_err(failed)?;
        sums.copy_from_slice(&total[..dim]);
        squares.copy_from_slice(&total[dim..]);
        Ok(())
    }

    fn nearest(&self, centroids: &[f32], found: &Found<'_>) -> crate::Result<()> {
        let centers = self.centers(centroids)?;
        let mut buffer = Vec::new();
        for range in blocks(self.rows.len(), centers.row_values()) {
            let first = range.start;
            let block = self.rows.block(range, &mut buffer)?;
            let (labels, squared) = nearest(&block, &centers).map_err(failed)?;
            found(first, &labels, &squared);
        }
        Ok(())
    }

    fn batch(&mut self, rows: &[u32], centroids: &[f32], out: &mut BatchSums) -> crate::Result<()> {
        out.sums.clear();
        out.sums.resize(centroids.len(), 0.0);
        out.counts.clear();
        out.counts.resize(centroids.len() / self.rows.dim(), 0);
        out.squared.clear();
        let centers = self.centers(centroids)?;
        for range in blocks(rows.len(), centers.row_values()) {
            let block = self.rows.gather(&rows[range], &mut self.buffer)?;
            add_batch(&block, &centers, out).map_err(failed)?;
        }
        Ok(())
    }

    fn assign(&self, centroids: &[f32]) -> crate::Result<Assigned> {
        let centers = self.centers(centroids)?;
        let mut all = Assigned::new(centers.k(), self.rows.dim());
        let mut buffer = Vec::new();
        for range in blocks(self.rows.len(), centers.row_values()) {
            let block = self.rows.block(range, &mut buffer)?;
            all.append(assigned(&block, &centers).map_err(failed)?);
        }
        Ok(all)
    }

    fn lloyd(&self, k: usize) -> crate::Result<Box<dyn crate::device::Lloyd + '_>> {
        Ok(Box::new(Lloyd::new(&self.rows, k)))
    }
}
