//! Rows of more than [`COLUMN_DIM`](super::COLUMN_DIM) values, which meet the centroids in register tiles.

use super::super::isa::{LANES, Vector};
use super::BLOCK;

/// `out[i * BLOCK + row]` = squared distance (or, if `DOT`, inner product about `mean`) of wide rows and `size`
/// centroids starting at `centroids`.
#[inline(always)]
pub(super) unsafe fn wide<V: Vector, const R: usize, const C: usize, const DOT: bool>(
    rows: &[f32],
    dim: usize,
    centroids: *const f32,
    stride: usize,
    size: usize,
    out: *mut f32,
    mean: Option<*const f32>,
) {
    let n = rows.len() / dim;
    let mut i = 0;
    while i < size {
        let left = size - i;
        // SAFETY: `i` and the tile's width stay within `size`, as the caller vouches for.
        unsafe {
            let (c, out) = (centroids.add(i * stride), out.add(i * BLOCK));
            i += match left {
                _ if left >= C => strip::<V, R, C, DOT>(rows, dim, n, c, stride, out, mean),
                2.. => strip::<V, R, 2, DOT>(rows, dim, n, c, stride, out, mean),
                _ => strip::<V, R, 1, DOT>(rows, dim, n, c, stride, out, mean),
            };
        }
    }
}

/// All rows of a block with `C` centroids, which stay in the first-level cache; says how many centroids it covered.
#[inline(always)]
unsafe fn strip<V: Vector, const R: usize, const C: usize, const DOT: bool>(
    rows: &[f32],
    dim: usize,
    n: usize,
    centroids: *const f32,
    stride: usize,
    out: *mut f32,
    mean: Option<*const f32>,
) -> usize {
    let mut r = 0;
    while r < n {
        let x = rows[r * dim..].as_ptr();
        // SAFETY: R or one row are left at `r`; C centroids and outputs as the caller vouches.
        unsafe {
            if r + R <= n {
                put(tile::<V, R, C, DOT>(x, dim, centroids, stride, dim, mean), out.add(r));
                r += R;
            } else {
                put(tile::<V, 1, C, DOT>(x, dim, centroids, stride, dim, mean), out.add(r));
                r += 1;
            }
        }
    }
    C
}

/// Stores a tile.
#[inline(always)]
unsafe fn put<const R: usize, const C: usize>(tile: [[f32; C]; R], out: *mut f32) {
    for (r, row) in tile.iter().enumerate() {
        for (i, &value) in row.iter().enumerate() {
            // SAFETY: the caller vouches for C columns of BLOCK outputs with R left in each.
            unsafe { *out.add(i * BLOCK + r) = value };
        }
    }
}

/// Squared distances (or, if `DOT`, inner products about `mean`) of `R` rows and `C` centroids.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const R: usize, const C: usize, const DOT: bool>(
    rows: *const f32,
    row_stride: usize,
    centroids: *const f32,
    stride: usize,
    dim: usize,
    mean: Option<*const f32>,
) -> [[f32; C]; R] {
    // SAFETY: the caller vouches for R rows of `dim` values, C padded centroids and a padded mean.
    unsafe {
        let mut sums = [[V::splat(0.0); C]; R];
        let whole = dim / LANES * LANES;
        let mut x = [V::splat(0.0); R];
        for j in (0..whole).step_by(LANES) {
            for (r, x) in x.iter_mut().enumerate() {
                *x = V::load(rows.add(r * row_stride + j));
            }
            step::<V, R, C, DOT>(j, x, centroids, stride, mean, &mut sums);
        }
        if whole < dim {
            for (r, x) in x.iter_mut().enumerate() {
                *x = V::load_first(rows.add(r * row_stride + whole), dim - whole);
            }
            step::<V, R, C, DOT>(whole, x, centroids, stride, mean, &mut sums);
        }
        let mut out = [[0.0; C]; R];
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum.sum();
            }
        }
        out
    }
}

/// Sixteen values of `R` rows meet those of `C` centroids.
#[inline(always)]
unsafe fn step<V: Vector, const R: usize, const C: usize, const DOT: bool>(
    j: usize,
    mut x: [V; R],
    centroids: *const f32,
    stride: usize,
    mean: Option<*const f32>,
    sums: &mut [[V; C]; R],
) {
    // SAFETY: the caller vouches for padded centroids and a padded mean.
    unsafe {
        if let Some(mean) = mean {
            let mean = V::load(mean.add(j));
            for x in &mut x {
                *x = x.sub(mean);
            }
        }
        for i in 0..C {
            let center = V::load(centroids.add(i * stride + j));
            for (sums, &x) in sums.iter_mut().zip(&x) {
                let other = if DOT { center } else { x.sub(center) };
                let one = if DOT { x } else { other };
                sums[i] = sums[i].add_product(one, other);
            }
        }
    }
}
