//! One pass over rows on all threads, with a result that does not depend on how many there are.
//!
//! Rows are cut into parts by their number alone; each part is folded in order by one task, and the parts' results come
//! back in order for the caller to merge.

use std::ops::Range;

use crate::{Error, Pool, Result, Rows};

/// A part is at least this many rows, so that handing it over is cheap beside the work.
const PART_ROWS: usize = 2048;
/// No more parts of a pass than this, so that their states stay small beside the data.
pub const MAX_PARTS: usize = 64;
/// Most rows in a block.
pub const MAX_BLOCK_ROWS: usize = 1024;
/// Values in a block: it stays in the second-level cache while it is worked on.
const BLOCK_VALUES: usize = 1 << 16;

/// The parts of `rows` rows: equal but for the last, at most `most`.
///
/// ```
/// use dacpipe_kernel::fold::parts;
/// assert_eq!(parts(5000, 64), [0..2500, 2500..5000]);
/// assert!(parts(0, 64).is_empty());
/// ```
pub fn parts(rows: usize, most: usize) -> Vec<Range<usize>> {
    let count = (rows / PART_ROWS).clamp(1, most.clamp(1, MAX_PARTS));
    let size = rows.div_ceil(count).max(1);
    (0..rows).step_by(size).map(|start| start..(start + size).min(rows)).collect()
}

/// Rows of `dim` values in a block: a multiple of 64, between 64 and [`MAX_BLOCK_ROWS`].
pub fn block_rows(dim: usize) -> usize {
    (BLOCK_VALUES / dim.max(1)).next_multiple_of(64).clamp(64, MAX_BLOCK_ROWS)
}

/// The rows `range`: where they lie in memory, or else read into `buffer`.
///
/// # Errors
/// What reading gives.
pub fn block<'a>(rows: &'a dyn Rows, range: Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32]> {
    let dim = rows.dim();
    match rows.as_slice() {
        Some(all) => Ok(&all[range.start * dim..range.end * dim]),
        None => {
            buffer.resize(range.len() * dim, 0.0);
            rows.read(range, buffer)?;
            Ok(buffer)
        }
    }
}

/// Calls `visit(first_row, block)` for the rows `range`, a block at a time, in order, reading only where they do not lie
/// in memory.
///
/// # Errors
/// What reading or `visit` gives.
pub fn for_each_block(
    rows: &dyn Rows,
    range: Range<usize>,
    mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let size = block_rows(rows.dim());
    let mut buffer = Vec::new();
    for start in range.clone().step_by(size) {
        visit(start, block(rows, start..(start + size).min(range.end), &mut buffer)?)?;
    }
    Ok(())
}

/// Folds every part of `rows` into a state of its own, on the pool's threads; the states in the order of the parts.
///
/// # Errors
/// What reading or `visit` gives, of the first part that fails.
pub fn fold<S: Send>(
    rows: &dyn Rows,
    pool: &Pool,
    start: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, usize, &[f32]) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let parts = parts(rows.len(), MAX_PARTS);
    let fold_part = |i: usize| {
        let mut state = start();
        for_each_block(rows, parts[i].clone(), |first, block| visit(&mut state, first, block))?;
        Ok(state)
    };
    pool.map(parts.len(), fold_part).into_iter().collect()
}

/// `width` sums over all rows, added up in one order. `add` is given the sums, a row's number and the row.
///
/// # Errors
/// What reading gives.
pub fn sums(
    rows: &dyn Rows,
    width: usize,
    pool: &Pool,
    add: impl Fn(&mut [f64], usize, &[f32]) + Sync,
) -> Result<Vec<f64>> {
    let parts = fold(
        rows,
        pool,
        || vec![0.0; width],
        |sums, first, block| {
            block.chunks_exact(rows.dim()).zip(first..).for_each(|(row, number)| add(sums, number, row));
            Ok(())
        },
    )?;
    Ok((0..width).map(|i| parts.iter().map(|part| part[i]).sum()).collect())
}

/// The error that names the first value of `rows` that is not finite. To be called when a sum over `rows` is not; `who`
/// is the stage that the message names.
pub fn not_finite(rows: &dyn Rows, who: &str) -> Error {
    let search = for_each_block(rows, 0..rows.len(), |first, block| {
        let Some(i) = block.iter().position(|x| !x.is_finite()) else { return Ok(()) };
        let (row, feature) = (first + i / rows.dim(), i % rows.dim());
        Err(Error::NotFinite { who: who.into(), row, feature, value: block[i] })
    });
    search.err().unwrap_or(Error::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dense;

    #[test]
    fn parts_cover_all_rows_once() {
        for rows in [0, 1, 2047, 2048, 4097, 1_000_003] {
            for most in [1, 7, 64, 1000] {
                let parts = parts(rows, most);
                assert!(parts.len() <= most.min(MAX_PARTS));
                let covered: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert!(covered.iter().copied().eq(0..rows));
            }
        }
    }

    #[test]
    fn a_fold_visits_every_row_in_order() {
        let values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let seen = |threads| {
            let states = fold(&Dense::new(&values, 1), &Pool::new(threads), Vec::new, |state, first, block| {
                assert_eq!(block[0], first as f32);
                state.extend_from_slice(block);
                Ok(())
            });
            states.unwrap().concat()
        };
        assert_eq!(seen(1), values);
        assert_eq!(seen(3), values);
    }
}
