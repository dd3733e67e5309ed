//! Rows of up to [`COLUMN_DIM`](super::COLUMN_DIM) values, sixteen rows to a vector.

use super::super::isa::{LANES, Vector};
use super::{BLOCK, Centroids};

/// Turns up to `BLOCK` rows on their side: `columns[j * BLOCK + row]`. Lanes without a row are zero or stale, never read.
#[inline(always)]
pub(super) unsafe fn turn<V: Vector>(rows: &[f32], dim: usize, columns: *mut f32) {
    let n = rows.len() / dim;
    for first in (0..n).step_by(LANES) {
        for j in (0..dim).step_by(LANES) {
            let width = LANES.min(dim - j);
            // SAFETY: only rows below `n` are read, `width` values each; `columns` holds dim x BLOCK values.
            unsafe {
                let mut square = [V::splat(0.0); LANES];
                for (r, row) in square.iter_mut().enumerate().take(n - first) {
                    *row = V::load_first(rows.as_ptr().add((first + r) * dim + j), width);
                }
                let turned = V::transpose(square);
                for (i, column) in turned.iter().enumerate().take(width) {
                    column.store(columns.add((j + i) * BLOCK + first));
                }
            }
        }
    }
}

/// `out[i * BLOCK + row]` = squared distance of the turned rows to centroid `first + i`, for `size` centroids.
#[inline(always)]
pub(super) unsafe fn narrow<V: Vector, const C: usize>(
    columns: *const f32,
    c: &Centroids,
    first: usize,
    size: usize,
    out: *mut f32,
) {
    let mut i = 0;
    while i < size {
        // SAFETY: `i` stays under `size`, so centroids and outputs are within what the caller vouches for.
        unsafe {
            if C >= 2 && i + 2 <= size {
                narrow_tile::<V, 2>(columns, c.at(first + i), c.stride, c.dim, out.add(i * BLOCK));
                i += 2;
            } else {
                narrow_tile::<V, 1>(columns, c.at(first + i), c.stride, c.dim, out.add(i * BLOCK));
                i += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn narrow_tile<V: Vector, const C: usize>(
    columns: *const f32,
    centroids: *const f32,
    stride: usize,
    dim: usize,
    out: *mut f32,
) {
    const T: usize = BLOCK / LANES;
    // SAFETY: the caller vouches for dim x BLOCK turned values, C centroids and C x BLOCK outputs.
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
