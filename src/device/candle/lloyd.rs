//! Lloyd's iterations on a candle device: every row is compared with every centroid in every iteration; labels stay on the
//! device, and the sums of the clusters, their sizes and the number of new labels are read once an iteration.

use candle_core::{DType, Result, Tensor};

use super::centers::{Centers, row_values};
use super::rows::{DeviceRows, block_rows, blocks};
use super::{distance, failed};
use crate::device::Farthest;
use crate::kernel::sums::move_rows;

/// The labels of the rows, block by block, and what they add up to.
#[derive(Debug)]
pub(super) struct Lloyd<'a> {
    rows: &'a DeviceRows<'a>,
    k: usize,
    /// The labels of each block; nothing before the first iteration.
    labels: Vec<Tensor>,
    /// Those of the last iteration.
    centers: Option<Centers>,
    sums: Vec<f64>,
    counts: Vec<i64>,
}

impl<'a> Lloyd<'a> {
    pub fn new(rows: &'a DeviceRows<'a>, k: usize) -> Self {
        let (sums, counts) = (vec![0.0; k * rows.dim()], vec![0; k]);
        Self { rows, k, labels: Vec::new(), centers: None, sums, counts }
    }

    /// Values that a row makes when it gets its label.
    fn values(&self) -> usize {
        row_values(self.k, self.rows.dim(), &self.rows.device)
    }
}

/// New labels of a block, and in one array in `f64`: the sums of the clusters, their sizes, and how many labels are new.
fn label(block: &Tensor, centers: &Centers, before: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let labels = centers.nearest(block, false)?.labels;
    let (sums, counts) = centers.sums(block, &labels)?;
    let changed = match before {
        Some(before) => labels.ne(before)?.to_dtype(DType::F64)?.sum_keepdim(0)?,
        None => Tensor::new(&[labels.dim(0)? as f64], block.device())?,
    };
    Ok((labels, Tensor::cat(&[sums.flatten_all()?, counts, changed], 0)?))
}

/// The label of each row of a block and its squared distance to its own centroid.
fn own(block: &Tensor, centroids: &Tensor, labels: &Tensor) -> Result<(Vec<u32>, Vec<f32>)> {
    Ok((labels.to_vec1()?, distance::own(block, centroids, labels)?.to_vec1()?))
}

impl crate::device::Lloyd for Lloyd<'_> {
    fn iterate(&mut self, centroids: &[f32]) -> crate::Result<usize> {
        let dim = self.rows.dim();
        let centers = Centers::new(centroids, dim, &self.rows.device).map_err(failed)?;
        let mut buffer = Vec::new();
        let mut total: Option<Tensor> = None;
        for (i, range) in blocks(self.rows.len(), self.values()).enumerate() {
            let block = self.rows.block(range, &mut buffer)?;
            let (labels, more) = label(&block, &centers, self.labels.get(i)).map_err(failed)?;
            match self.labels.get_mut(i) {
                Some(before) => *before = labels,
                None => self.labels.push(labels),
            }
            total = Some(match total {
                Some(total) => (total + more).map_err(failed)?,
                None => more,
            });
        }
        self.centers = Some(centers);
        let Some(total) = total else { return Ok(0) };
        let total = total.to_vec1::<f64>().map_err(failed)?;
        let (sums, counts) = total.split_at(self.sums.len());
        self.sums.copy_from_slice(sums);
        self.counts.iter_mut().zip(counts).for_each(|(count, &now)| *count = now as i64);
        Ok(counts[self.k] as usize)
    }

    fn totals(&self) -> (&[f64], &[i64]) {
        (&self.sums, &self.counts)
    }

    fn farthest(&self, most: usize) -> crate::Result<Vec<Farthest>> {
        let Some(centers) = &self.centers else { return Ok(Vec::new()) };
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        for (range, labels) in blocks(self.rows.len(), self.values()).zip(&self.labels) {
            let first = range.start;
            let block = self.rows.block(range, &mut buffer)?;
            let (labels, squared) = own(&block, centers.values(), labels).map_err(failed)?;
            let rows = labels.iter().zip(squared).zip(first..);
            let rows = rows.map(|((&label, squared), row)| Farthest { squared, row, cluster: label as usize });
            found.extend(rows.filter(|row| row.squared > 0.0 && self.counts[row.cluster] > 1));
            Farthest::sort(&mut found);
            found.truncate(most);
        }
        Ok(found)
    }

    fn reassign(&mut self, row: usize, cluster: usize) -> crate::Result<()> {
        let mut values = vec![0.0; self.rows.dim()];
        self.rows.host().read(row..row + 1, &mut values)?;
        let size = block_rows(self.values());
        let labels = &mut self.labels[row / size];
        let mut changed = labels.to_vec1::<u32>().map_err(failed)?;
        let from = std::mem::replace(&mut changed[row % size], cluster as u32);
        *labels = Tensor::from_slice(&changed, changed.len(), &self.rows.device).map_err(failed)?;
        move_rows(&values, values.len(), &[from], &[cluster as u32], &mut self.sums, &mut self.counts);
        Ok(())
    }
}
