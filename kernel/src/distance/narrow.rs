//! Rows of up to [`COLUMN_DIM`](super::COLUMN_DIM) values, sixteen rows to a vector.

use std::mem::MaybeUninit;

use super::super::isa::{LANES, Vector};
use super::{BLOCK, Centroids};

/// Turns up to `BLOCK` rows on their side: `columns[j * BLOCK + row]`. Lanes without a row are zero or stale, never read.
#[inline(always)]
pub(super) unsafe fn turn<V: Vector>(rows: &[f32], dim: usize, columns: *mut f32) {
    let n = rows.len() / dim;
    for first in (0..n).step_by(LANES) {
        for j in (0..dim).step_by(LANES) {
            let width = LANES.min(dim - j);
            // SAFETY: only values of `rows` are read, all of the square is written before it is used, and `columns` holds
            // dim x BLOCK values.
            unsafe {
                let from = rows.as_ptr().add(first * dim + j);
                let inside = (first + LANES - 1) * dim + j + LANES <= rows.len();
                let mut square = MaybeUninit::<[V; LANES]>::uninit();
                for r in 0..LANES {
                    // What follows a row is loaded with it, and not stored: a load under a mask takes longer.
                    let row = match inside {
                        true => V::load(from.add(r * dim)),
                        false if first + r < n => V::load_first(from.add(r * dim), width),
                        false => V::splat(0.0),
                    };
                    square.as_mut_ptr().cast::<V>().add(r).write(row);
                }
                let turned = V::transpose(square.assume_init());
                for (i, column) in turned.iter().enumerate().take(width) {
                    column.store(columns.add((j + i) * BLOCK + first));
                }
            }
        }
    }
}

/// `out[i * BLOCK + row]` = squared distance of the turned rows to centroid `first + i`, for `size` centroids; `T` vectors
/// of rows a tile.
#[inline(always)]
pub(super) unsafe fn narrow<V: Vector, const T: usize>(
    columns: *const f32,
    c: &Centroids,
    first: usize,
    size: usize,
    out: *mut f32,
) {
    for i in (0..size).step_by(2) {
        // SAFETY: one or two centroids are left at `i`, so they and the outputs are within what the caller vouches for.
        unsafe {
            let (centroids, out) = (c.at(first + i), out.add(i * BLOCK));
            for row in (0..BLOCK).step_by(T * LANES) {
                let (columns, out) = (columns.add(row), out.add(row));
                match size - i {
                    1 => narrow_tile::<V, T, 1>(columns, centroids, c.stride, c.dim, out),
                    _ => narrow_tile::<V, T, 2>(columns, centroids, c.stride, c.dim, out),
                }
            }
        }
    }
}

/// Distances of the first `T` vectors of turned rows to `C` centroids.
#[inline(always)]
unsafe fn narrow_tile<V: Vector, const T: usize, const C: usize>(
    columns: *const f32,
    centroids: *const f32,
    stride: usize,
    dim: usize,
    out: *mut f32,
) {
    const { assert!(BLOCK.is_multiple_of(T * LANES)) };
    // SAFETY: the caller vouches for `dim` lines of `T` vectors, C centroids and as many lines of outputs.
    unsafe {
        let mut sums = [[V::splat(0.0); T]; C];
        for j in 0..dim {
            let mut x = [V::splat(0.0); T];
            for (t, x) in x.iter_mut().enumerate() {
                *x = V::load(columns.add(j * BLOCK + t * LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let center = V::splat(*centroids.add(i * stride + j));
                for (sum, x) in sums.iter_mut().zip(x) {
                    let difference = x.sub(center);
                    *sum = sum.add_product(difference, difference);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                sum.store(out.add(i * BLOCK + t * LANES));
            }
        }
    }
}
