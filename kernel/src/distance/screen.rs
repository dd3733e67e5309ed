//! Scores that name the centroids which can be nearest, of wide rows among many centroids.

use super::super::aligned::Aligned;
use super::super::isa::Vector;
use super::wide::{tile, wide};
use super::{BLOCK, Centroids, relative_error};

/// The least number above zero.
const LEAST: f32 = f32::from_bits(1);

/// What the scores `|c|^2/2 - x.c` need, all about the centroids' mean.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    mean: Aligned,
    centered: Aligned,
    half_norms: Vec<f32>,
    longest: f32,
    usable: bool,
}

impl Screen {
    /// Room for `k` centroids of `stride` values, padding included.
    pub(super) fn new(k: usize, stride: usize) -> Self {
        let (mean, centered) = (Aligned::zeros(stride), Aligned::zeros(k * stride));
        Self { mean, centered, half_norms: vec![0.0; k], longest: 0.0, usable: false }
    }

    /// Whether scores are finite for every row whose squared length is: not for centroids very far apart.
    pub(super) fn usable(&self) -> bool {
        self.usable
    }

    /// Prepares for centroids of these values.
    pub(super) fn set(&mut self, values: &[f32], dim: usize) {
        let Self { mean, centered, half_norms, .. } = self;
        let (k, stride) = (half_norms.len(), mean.len());
        for j in 0..dim {
            let sum: f64 = values.iter().skip(j).step_by(dim).map(|&x| f64::from(x)).sum();
            mean[j] = (sum / k as f64) as f32;
        }
        let mut longest = 0.0f64;
        for (i, c) in values.chunks_exact(dim).enumerate() {
            let mut norm = 0.0f64;
            for (j, &x) in c.iter().enumerate() {
                let x = x - mean[j];
                centered[i * stride + j] = x;
                norm += f64::from(x) * f64::from(x);
            }
            half_norms[i] = (norm / 2.0) as f32;
            longest = longest.max(norm);
        }
        self.usable = longest <= f64::from(f32::MAX) / 4.0;
        self.longest = longest.sqrt() as f32;
    }

    /// How far apart two scores of a row this long (squared, about the mean) may lie and still be in the wrong order.
    ///
    /// With `s = |x| + |c|`: a score errs by `dim/16 + 6` roundings of `|x||c| + |c|^2/2`, the centering by `2 s^2`
    /// roundings, half the measured squared distance by `relative_error / 2` of `s^2`. The sum for both scores, doubled.
    /// Where squares underflow, each of `dim` products errs by half the least number as well.
    fn slack(&self, squared_length: f32, dim: usize) -> f32 {
        let s = squared_length.sqrt() + self.longest;
        4.0 * (relative_error(dim) + 8.0 * f32::EPSILON) * s * s + 8.0 * dim as f32 * LEAST
    }
}

/// [`run`](super::run) for wide rows and many centroids: scores for all, distances for those that can be nearest.
#[inline(always)]
pub(super) unsafe fn screened<V: Vector, const R: usize, const C: usize>(
    c: &Centroids,
    rows: &[f32],
    labels: &mut [u32],
    best: &mut [f32],
    mut second: Option<&mut [f32]>,
    scores: &mut [f32],
) {
    let Some(screen) = &c.screen else { return };
    let mean = screen.mean.as_ptr();
    for (b, rows) in rows.chunks(BLOCK * c.dim).enumerate() {
        let scores = scores.as_mut_ptr();
        // SAFETY: `scores` holds k x BLOCK values, `centered` k padded centroids, `mean` one.
        unsafe {
            let centered = screen.centered.as_ptr();
            wide::<V, R, C, true>(rows, c.dim, centered, c.stride, c.k, scores, Some(mean));
        }
        for (r, row) in rows.chunks_exact(c.dim).enumerate() {
            // SAFETY: `row` holds `dim` values; a squared length is the distance to the mean.
            let length = unsafe { tile::<V, 1, 1, false>(row.as_ptr(), c.dim, mean, c.stride, c.dim, None)[0][0] };
            // SAFETY: `i < k` and `r < BLOCK`.
            let score = |i: usize| screen.half_norms[i] - unsafe { *scores.add(i * BLOCK + r) };
            let (mut low, mut low2) = (f32::INFINITY, f32::INFINITY);
            for i in 0..c.k {
                let s = score(i);
                low2 = low2.min(s.max(low));
                low = low.min(s);
            }
            let limit = if second.is_some() { low2 } else { low } + screen.slack(length, c.dim);
            let (mut first, mut next, mut at) = (f32::INFINITY, f32::INFINITY, 0);
            for i in 0..c.k {
                // A score that is not a number is let through and measured.
                if score(i).partial_cmp(&limit) != Some(std::cmp::Ordering::Greater) {
                    // SAFETY: `row` holds `dim` values and `i < k`.
                    let d =
                        unsafe { tile::<V, 1, 1, false>(row.as_ptr(), c.dim, c.at(i), c.stride, c.dim, None)[0][0] };
                    next = if d < first { first } else { next.min(d) };
                    if d < first {
                        (first, at) = (d, i);
                    }
                }
            }
            (labels[b * BLOCK + r], best[b * BLOCK + r]) = (at as u32, first);
            if let Some(second) = second.as_deref_mut() {
                second[b * BLOCK + r] = next;
            }
        }
    }
}
