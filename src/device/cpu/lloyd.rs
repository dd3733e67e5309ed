//! Lloyd's iterations on the processor: rows in parts, each with its labels and, where they pay, Hamerly's bounds.

use std::cell::RefCell;
use std::ops::Range;

use super::NOWHERE;
use super::bounds::{Bounds, Picked, Step};
use crate::device::Farthest;
use crate::error::Result;
use crate::kernel::distance::Centroids;
use crate::kernel::sums::{NO_CLUSTER, move_rows};
use crate::kernel::{Pool, Rows, fold};

/// Sums follow the rows that change their label; every so many iterations they are taken afresh, so that rounding cannot
/// pile up.
const REFRESH: usize = 16;
/// Memory for the parts' sums; few parts where a sum is large.
const SUMS_BYTES: usize = 64 << 20;

thread_local! {
    /// Kept from part to part: an iteration allocates nothing that grows with the rows.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Room for a block of rows and what is found of it.
#[derive(Default)]
pub(super) struct Scratch {
    pub buffer: Vec<f32>,
    pub picked: Picked,
    new: Vec<u32>,
    squared: Vec<f32>,
}

/// The rows in parts, and the sums over all of them.
pub(super) struct Lloyd<'a> {
    rows: &'a dyn Rows,
    pool: &'a Pool,
    bounded: bool,
    parts: Vec<Part>,
    sums: Vec<f64>,
    counts: Vec<i64>,
    iterations: usize,
    /// The last iteration.
    step: Option<Step>,
}

/// Rows that one task labels, and what it found.
pub(super) struct Part {
    pub range: Range<usize>,
    pub labels: Vec<u32>,
    pub bounds: Option<Bounds>,
    /// How this iteration changes the sums and sizes of the clusters.
    pub sums: Vec<f64>,
    pub counts: Vec<i64>,
    pub changed: usize,
}

impl<'a> Lloyd<'a> {
    /// `bounded` skips distances that bounds rule out, with the same result.
    pub fn new(rows: &'a dyn Rows, k: usize, bounded: bool, pool: &'a Pool) -> Self {
        let parts = make_parts(rows.len(), k, rows.dim(), bounded);
        let (sums, counts) = (vec![0.0; k * rows.dim()], vec![0; k]);
        Self { rows, pool, bounded, parts, sums, counts, iterations: 0, step: None }
    }
}

impl crate::device::Lloyd for Lloyd<'_> {
    fn iterate(&mut self, centroids: &[f32]) -> Result<usize> {
        let centers = Centroids::new(centroids, self.rows.dim());
        let step = match self.step.take() {
            None => Step::new(centers, self.bounded, self.pool),
            Some(step) => step.next(centers, self.pool),
        };
        let fresh = self.iterations.is_multiple_of(REFRESH);
        label(self.rows, &mut self.parts, &step, fresh, self.pool)?;
        if fresh {
            self.sums.fill(0.0);
            self.counts.fill(0);
        }
        let mut changed = 0;
        for part in &self.parts {
            self.sums.iter_mut().zip(&part.sums).for_each(|(a, b)| *a += b);
            self.counts.iter_mut().zip(&part.counts).for_each(|(a, b)| *a += b);
            changed += part.changed;
        }
        self.iterations += 1;
        self.step = Some(step);
        Ok(changed)
    }

    fn totals(&self) -> (&[f64], &[i64]) {
        (&self.sums, &self.counts)
    }

    fn farthest(&self, most: usize) -> Result<Vec<Farthest>> {
        let Some(step) = &self.step else { return Ok(Vec::new()) };
        let of_part = |i: usize| farthest(self.rows, &self.parts[i], &step.centers, &self.counts, most);
        let mut found = Vec::new();
        for part in self.pool.map(self.parts.len(), of_part) {
            found.extend(part?);
        }
        Farthest::sort(&mut found);
        found.truncate(most);
        Ok(found)
    }

    fn reassign(&mut self, row: usize, cluster: usize) -> Result<()> {
        let mut values = vec![0.0; self.rows.dim()];
        self.rows.read(row..row + 1, &mut values)?;
        let at = self.parts.partition_point(|part| part.range.end <= row);
        let part = &mut self.parts[at];
        let local = row - part.range.start;
        let (from, to) = ([part.labels[local]], [cluster as u32]);
        move_rows(&values, values.len(), &from, &to, &mut self.sums, &mut self.counts);
        part.labels[local] = cluster as u32;
        if let Some(bounds) = &mut part.bounds {
            bounds.forget(local);
        }
        Ok(())
    }
}

/// The parts of `rows` rows, each of which has sums of `k x dim` doubles of its own.
pub(super) fn parts(rows: usize, k: usize, dim: usize) -> Vec<Range<usize>> {
    fold::parts(rows, (SUMS_BYTES / (8 * k * dim)).max(8))
}

fn make_parts(rows: usize, k: usize, dim: usize, bounded: bool) -> Vec<Part> {
    parts(rows, k, dim)
        .into_iter()
        .map(|range| Part {
            labels: vec![NO_CLUSTER; range.len()],
            bounds: bounded.then(|| Bounds::new(range.len())),
            sums: vec![0.0; k * dim],
            counts: vec![0; k],
            changed: 0,
            range,
        })
        .collect()
}

fn label(rows: &dyn Rows, parts: &mut [Part], step: &Step, fresh: bool, pool: &Pool) -> Result<()> {
    pool.try_for_each_chunk_mut(parts, 1, |_, part| {
        let part = &mut part[0];
        part.sums.fill(0.0);
        part.counts.fill(0);
        part.changed = 0;
        SCRATCH.with_borrow_mut(|scratch| match part.bounds {
            Some(_) => part.bounded(rows, step, fresh, scratch),
            None => part.plain(rows, step, fresh, scratch),
        })
    })
}

impl Part {
    /// Measures every row against every centroid.
    fn plain(&mut self, rows: &dyn Rows, step: &Step, fresh: bool, scratch: &mut Scratch) -> Result<()> {
        let dim = rows.dim();
        let size = fold::block_rows(dim);
        let Scratch { buffer, new, squared, .. } = scratch;
        for first in self.range.clone().step_by(size) {
            let range = first..(first + size).min(self.range.end);
            let old = &mut self.labels[first - self.range.start..range.end - self.range.start];
            let block = fold::block(rows, range, buffer)?;
            new.resize(old.len(), 0);
            squared.resize(old.len(), 0.0);
            step.centers.nearest(block, new, squared);
            let from = if fresh { &NOWHERE[..old.len()] } else { &*old };
            let changed = move_rows(block, dim, from, new, &mut self.sums, &mut self.counts);
            self.changed += if fresh { old.iter().zip(&*new).filter(|(a, b)| a != b).count() } else { changed };
            old.copy_from_slice(new);
        }
        Ok(())
    }
}

/// The `most` rows of a part that lie farthest from their own centroids, of those that are not alone there.
fn farthest(rows: &dyn Rows, part: &Part, centers: &Centroids, sizes: &[i64], most: usize) -> Result<Vec<Farthest>> {
    let mut found = Vec::new();
    fold::for_each_block(rows, part.range.clone(), |first, block| {
        let n = block.len() / centers.dim();
        let at = first - part.range.start;
        let mut squared = vec![0.0; n];
        let labels = &part.labels[at..at + n];
        centers.own(block, labels, &mut squared);
        let may_move = |i: usize| squared[i] > 0.0 && sizes[labels[i] as usize] > 1;
        let row = |i: usize| Farthest { squared: squared[i], row: first + i, cluster: labels[i] as usize };
        found.extend((0..n).filter(|&i| may_move(i)).map(row));
        Farthest::sort(&mut found);
        found.truncate(most);
        Ok(())
    })?;
    Ok(found)
}
