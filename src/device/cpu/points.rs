//! Passes over rows on the processor's threads.

use std::cell::RefCell;
use std::ops::Range;

use super::lloyd::{self, Lloyd};
use super::{NOWHERE, bounds};
use crate::device::{Assigned, BatchSums, Found};
use crate::error::Result;
use crate::kernel::distance::Centroids;
use crate::kernel::sums::{add_moments, move_rows};
use crate::kernel::{Pool, Rows, fold};

/// Rows of a mini-batch that one task labels.
const CHUNK: usize = NOWHERE.len();
/// Multiply-adds worth a second thread.
const PARALLEL_WORK: usize = 1 << 20;

thread_local! {
    /// Room for a block of rows, its labels and distances, kept from pass to pass.
    static BLOCK: RefCell<(Vec<f32>, Vec<u32>, Vec<f32>)> = RefCell::default();
}

/// Rows where they lie.
pub(super) struct Points<'a> {
    rows: &'a dyn Rows,
    pool: &'a Pool,
    /// Room for a mini-batch, kept from one to the next.
    gathered: Vec<f32>,
    chunks: Vec<Chunk>,
    centers: Option<Centroids>,
}

/// Some rows of a mini-batch.
#[derive(Default)]
struct Chunk {
    labels: Vec<u32>,
    squared: Vec<f32>,
}

impl<'a> Points<'a> {
    pub fn new(rows: &'a dyn Rows, pool: &'a Pool) -> Self {
        Self { rows, pool, gathered: Vec::new(), chunks: Vec::new(), centers: None }
    }

    /// Labels the rows of a part, block by block.
    fn part(&self, part: Range<usize>, centers: &Centroids, found: &Found<'_>) -> Result<()> {
        let size = fold::block_rows(self.rows.dim());
        BLOCK.with_borrow_mut(|(buffer, labels, squared)| {
            for first in part.clone().step_by(size) {
                let range = first..(first + size).min(part.end);
                labels.resize(range.len(), 0);
                squared.resize(range.len(), 0.0);
                centers.nearest(fold::block(self.rows, range, buffer)?, labels, squared);
                found(first, labels, squared);
            }
            Ok(())
        })
    }
}

/// The rows of a part with their clusters.
fn assign_part(rows: &dyn Rows, range: Range<usize>, centers: &Centroids) -> Result<Assigned> {
    let (n, dim) = (range.len(), rows.dim());
    let mut part = Assigned::new(centers.k(), dim);
    part.labels.resize(n, 0);
    part.squared.resize(n, 0.0);
    part.second.resize(n, 0.0);
    let start = range.start;
    fold::for_each_block(rows, range, |first, block| {
        let of_block = first - start..first - start + block.len() / dim;
        let labels = &mut part.labels[of_block.clone()];
        centers.nearest_two(block, labels, &mut part.squared[of_block.clone()], &mut part.second[of_block]);
        move_rows(block, dim, &NOWHERE[..labels.len()], labels, &mut part.sums, &mut part.counts);
        Ok(())
    })?;
    Ok(part)
}

impl crate::device::Points for Points<'_> {
    fn rows(&self) -> &dyn Rows {
        self.rows
    }

    fn moments(&self, origin: &[f32], sums: &mut [f64], squares: &mut [f64]) -> Result<()> {
        let start = || (vec![0.0; origin.len()], vec![0.0; origin.len()]);
        let parts = fold::fold(self.rows, self.pool, start, |(sums, squares), _, block| {
            add_moments(block, origin, sums, squares);
            Ok(())
        })?;
        for (i, (sum, square)) in sums.iter_mut().zip(squares).enumerate() {
            *sum = parts.iter().map(|part| part.0[i]).sum();
            *square = parts.iter().map(|part| part.1[i]).sum();
        }
        Ok(())
    }

    fn nearest(&self, centroids: &[f32], found: &Found<'_>) -> Result<()> {
        let centers = Centroids::new(centroids, self.rows.dim());
        let parts = fold::parts(self.rows.len(), fold::MAX_PARTS);
        self.pool.map(parts.len(), |i| self.part(parts[i].clone(), &centers, found)).into_iter().collect()
    }

    fn batch(&mut self, rows: &[u32], centroids: &[f32], out: &mut BatchSums) -> Result<()> {
        let dim = self.rows.dim();
        let (n, k) = (rows.len(), centroids.len() / dim);
        self.gathered.resize(n * dim, 0.0);
        self.rows.gather(rows, &mut self.gathered)?;
        let centers = match self.centers.take() {
            Some(mut centers) if centers.k() == k => {
                centers.set(centroids);
                centers
            }
            _ => Centroids::new(centroids, dim),
        };
        let used = n.div_ceil(CHUNK);
        if self.chunks.len() < used {
            self.chunks.resize_with(used, Chunk::default);
        }
        let (gathered, chunks) = (&self.gathered, &mut self.chunks[..used]);
        let label = |i: usize, chunk: &mut Chunk| {
            let rows = &gathered[i * CHUNK * dim..n.min((i + 1) * CHUNK) * dim];
            chunk.labels.resize(rows.len() / dim, 0);
            chunk.squared.resize(rows.len() / dim, 0.0);
            centers.nearest(rows, &mut chunk.labels, &mut chunk.squared);
        };
        if n * dim * k < PARALLEL_WORK {
            chunks.iter_mut().enumerate().for_each(|(i, chunk)| label(i, chunk));
        } else {
            self.pool.for_each_chunk_mut(chunks, 1, |i, chunk| label(i, &mut chunk[0]));
        }
        out.sums.clear();
        out.sums.resize(k * dim, 0.0);
        out.counts.clear();
        out.counts.resize(k, 0);
        out.squared.clear();
        for (rows, chunk) in gathered.chunks(CHUNK * dim).zip(chunks) {
            move_rows(rows, dim, &NOWHERE[..chunk.labels.len()], &chunk.labels, &mut out.sums, &mut out.counts);
            out.squared.extend_from_slice(&chunk.squared);
        }
        self.centers = Some(centers);
        Ok(())
    }

    fn assign(&self, centroids: &[f32]) -> Result<Assigned> {
        let dim = self.rows.dim();
        let centers = Centroids::new(centroids, dim);
        let mut all = Assigned::new(centers.k(), dim);
        let parts = lloyd::parts(self.rows.len(), centers.k(), dim);
        for part in self.pool.map(parts.len(), |i| assign_part(self.rows, parts[i].clone(), &centers)) {
            all.append(part?);
        }
        Ok(all)
    }

    fn lloyd(&self, k: usize) -> Result<Box<dyn crate::device::Lloyd + '_>> {
        Ok(Box::new(Lloyd::new(self.rows, k, bounds::pay(k, self.rows.dim()), self.pool)))
    }
}
