//! A matrix of rows that may be larger than memory.

use std::ops::Range;

use super::isa::prefetch;
use crate::error::Result;

/// `len x dim` values, in `f32` where nothing else is said, read in order or gathered at random. Every learner reads its
/// training data through this, so none needs the data set in memory. Reading the same rows twice gives the same bits.
pub trait Rows<T = f32>: Send + Sync {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Values in a row.
    fn dim(&self) -> usize;

    /// True if there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the rows `range` into `out` (`range.len() x dim`, row-major).
    fn read(&self, range: Range<usize>, out: &mut [T]) -> Result<()>;

    /// Copies the rows named by `indices`, in their order, into `out` (`indices.len() x dim`).
    fn gather(&self, indices: &[u32], out: &mut [T]) -> Result<()> {
        let dim = self.dim();
        for (&i, row) in indices.iter().zip(out.chunks_exact_mut(dim)) {
            self.read(i as usize..i as usize + 1, row)?;
        }
        Ok(())
    }

    /// All rows as one slice, where they lie in memory that way: the fast path of learners.
    fn as_slice(&self) -> Option<&[T]> {
        None
    }
}

/// Rows in one slice in memory.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Dense<'a> {
    /// `values` as rows of `dim` values. Panics if `values` is not a whole number of rows.
    ///
    /// ```
    /// use dacpipe_kernel::{Dense, Rows};
    /// let rows = Dense::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2);
    /// let mut out = [0.0; 4];
    /// rows.gather(&[2, 0], &mut out)?;
    /// assert_eq!(out, [5.0, 6.0, 1.0, 2.0]);
    /// # Ok::<(), dacpipe_kernel::Error>(())
    /// ```
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are not rows of {dim}", values.len());
        Self { values, dim }
    }
}

impl Rows for Dense<'_> {
    fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.values[range.start * self.dim..range.end * self.dim]);
        Ok(())
    }

    fn gather(&self, indices: &[u32], out: &mut [f32]) -> Result<()> {
        let mut rows = out.chunks_exact_mut(self.dim);
        gather(self.values, self.dim, indices, |row| rows.next().expect("a row each index").copy_from_slice(row));
        Ok(())
    }

    fn as_slice(&self) -> Option<&[f32]> {
        Some(self.values)
    }
}

/// Calls `take` with the rows of `values` that `indices` name, in their order. Rows at random are in no cache: they are
/// asked of memory some rows before their turn.
pub(crate) fn gather<'a>(values: &'a [f32], dim: usize, indices: &[u32], mut take: impl FnMut(&'a [f32])) {
    /// Values asked for ahead of those that are taken, and the least and most rows.
    const AHEAD: (usize, usize, usize) = (2048, 4, 32);
    let ahead = (AHEAD.0 / dim.max(1)).clamp(AHEAD.1, AHEAD.2);
    let row = |index: u32| &values[index as usize * dim..][..dim];
    for &index in indices.iter().take(ahead) {
        prefetch(row(index));
    }
    for (i, &index) in indices.iter().enumerate() {
        if let Some(&later) = indices.get(i + ahead) {
            prefetch(row(later));
        }
        take(row(index));
    }
}
