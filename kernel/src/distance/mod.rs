//! Squared Euclidean distances from rows to centroids, and from them the nearest centroid of each row.
//!
//! The arithmetic is fixed by the width of a row alone, so a row's result depends neither on the rows beside it nor on
//! the machine: up to [`COLUMN_DIM`] values, one fused multiply-add a value, `((x_0-c_0)^2 + (x_1-c_1)^2) + …`; above,
//! sixteen such sums, over every sixteenth value, added pairwise at the end. Differences are taken before squaring, so
//! nothing cancels. [`squared_distance`] is the plain statement of it, and every kernel equals it bit for bit.
//!
//! Narrow rows are turned on their side, sixteen rows to a vector, and meet one centroid after another; wide rows lie as
//! they are and meet the centroids in register tiles. Both leave a small block of distances in the first-level cache,
//! from which sixteen minima are taken at once. A tie goes to the lower cluster.
//!
//! With wide rows and many centroids, scores `|c|^2/2 - x.c` about the centroids' mean (half the arithmetic) name the
//! centroids that can be nearest given the rounding of both forms, and only those are measured: the answer is the same.

mod narrow;
mod screen;
#[cfg(test)]
mod tests;
mod wide;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;
use std::cell::RefCell;

use self::narrow::{narrow, turn};
use self::screen::{Screen, screened};
use self::wide::{tile, wide};
use super::aligned::Aligned;
#[cfg(target_arch = "x86_64")]
use super::isa::Pair;
use super::isa::{Isa, LANES, Vector, prefetch};

/// Rows up to this width are summed value by value; wider ones in sixteen interleaved sums.
pub const COLUMN_DIM: usize = 128;

/// Rows measured together.
const BLOCK: usize = 64;
/// Centroids measured together.
const GROUP: usize = 64;
/// From this many centroids on, wide rows are screened by scores first.
const SCREEN_K: usize = 24;

/// The squared Euclidean distance of two vectors of the same width, in the arithmetic of this module.
///
/// ```
/// use dacpipe_kernel::distance::squared_distance;
/// assert_eq!(squared_distance(&[0.0, 3.0], &[4.0, 0.0]), 25.0);
/// ```
#[inline(always)]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    if a.len() <= COLUMN_DIM {
        return a.iter().zip(b).fold(0.0, |sum, (x, c)| (x - c).mul_add(x - c, sum));
    }
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((sum, x), c) in sums.iter_mut().zip(a).zip(b) {
            *sum = (x - c).mul_add(x - c, *sum);
        }
    }
    // SAFETY: plain Rust has no requirement on the machine.
    unsafe { sums.sum() }
}

/// A bound on the relative error of a computed squared distance of rows of `dim` values (underflow aside).
pub fn relative_error(dim: usize) -> f32 {
    let chain = if dim <= COLUMN_DIM { dim } else { dim.div_ceil(LANES) + 4 };
    (chain + 4) as f32 * f32::EPSILON
}

/// Centroids laid out for the kernels.
#[derive(Debug, Clone)]
pub struct Centroids {
    k: usize,
    dim: usize,
    /// Values from one centroid to the next: `dim` rounded up to whole lines, filled with zeros.
    stride: usize,
    values: Aligned,
    screen: Option<Screen>,
}

thread_local! {
    /// Kept from call to call: blocks are small, and calls many.
    static ROOM: RefCell<Room> = RefCell::default();
}

/// What a block of rows needs while it is measured.
#[derive(Default)]
struct Room {
    columns: Aligned,
    distances: Aligned,
}

/// The first `len` values of `room`, which is made larger if need be; what they hold means nothing.
fn at_least(room: &mut Aligned, len: usize) -> &mut [f32] {
    if room.len() < len {
        *room = Aligned::zeros(len);
    }
    &mut room[..len]
}

/// Where results go.
enum Output<'a> {
    Nearest { labels: &'a mut [u32], best: &'a mut [f32], second: Option<&'a mut [f32]> },
    All(&'a mut [f32]),
}

impl Centroids {
    /// Centroids from their row-major values, `dim` each.
    ///
    /// # Panics
    /// If `values` is not a whole number of centroids, at least one, fewer than 2^24.
    pub fn new(values: &[f32], dim: usize) -> Self {
        assert!(dim > 0 && !values.is_empty() && values.len().is_multiple_of(dim), "not centroids of {dim} values");
        let (k, stride) = (values.len() / dim, dim.next_multiple_of(LANES));
        // Cluster numbers travel in f32 lanes.
        assert!(k < 1 << 24, "{k} centroids: at most 16 777 215 are possible");
        let screen = (dim > COLUMN_DIM && k >= SCREEN_K).then(|| Screen::new(k, stride));
        let mut centroids = Self { k, dim, stride, values: Aligned::zeros(k * stride), screen };
        centroids.set(values);
        centroids
    }

    /// Moves them to `values`, as many as there are.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn set(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.k * self.dim, "not {} centroids of {} values", self.k, self.dim);
        for (to, from) in self.values.chunks_exact_mut(self.stride).zip(values.chunks_exact(self.dim)) {
            to[..self.dim].copy_from_slice(from);
        }
        if let Some(screen) = &mut self.screen {
            screen.set(values, self.dim);
        }
    }

    /// Number of centroids.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values in a centroid.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Centroid `c`.
    pub fn get(&self, c: usize) -> &[f32] {
        &self.values[c * self.stride..][..self.dim]
    }

    /// The nearest centroid of each of `rows` (row-major) into `labels`, and its squared distance into `squared`. A tie
    /// goes to the lower number. `O(rows x k x dim)`.
    ///
    /// ```
    /// use dacpipe_kernel::distance::Centroids;
    /// let (mut labels, mut squared) = ([0; 2], [0.0; 2]);
    /// Centroids::new(&[0.0, 10.0], 1).nearest(&[7.0, 5.0], &mut labels, &mut squared);
    /// assert_eq!((labels, squared), ([1, 0], [9.0, 25.0]));
    /// ```
    ///
    /// # Panics
    /// If the slices' lengths do not fit together.
    pub fn nearest(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32]) {
        self.run(rows, Output::Nearest { labels, best: squared, second: None });
    }

    /// As [`nearest`](Self::nearest), and the squared distance of the second nearest into `second` (equal to the first in
    /// a tie, infinite for a single centroid).
    pub fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) {
        self.run(rows, Output::Nearest { labels, best: squared, second: Some(second) });
    }

    /// All squared distances, centroid by centroid: `out[c * rows + row]`.
    pub fn all(&self, rows: &[f32], out: &mut [f32]) {
        self.run(rows, Output::All(out));
    }

    /// The squared distance of each row to the centroid that `labels` names.
    pub fn own(&self, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
        assert!(rows.len() == labels.len() * self.dim && squared.len() == labels.len(), "lengths differ");
        assert!(labels.iter().all(|&c| (c as usize) < self.k), "a label names no centroid");
        match Isa::detect() {
            // SAFETY: found on this machine; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { own_avx512(self, rows, labels, squared) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { own_avx2(self, rows, labels, squared) },
            // SAFETY: plain Rust; the lengths were checked above.
            Isa::Portable => unsafe { own::<[f32; LANES]>(self, rows, labels, squared) },
        }
    }

    fn run(&self, rows: &[f32], out: Output<'_>) {
        assert!(rows.len().is_multiple_of(self.dim), "{} values are not rows of {}", rows.len(), self.dim);
        let n = rows.len() / self.dim;
        match &out {
            Output::Nearest { labels, best, second } => {
                let second = second.as_ref().map_or(n, |s| s.len());
                assert!(labels.len() == n && best.len() == n && second == n, "output is not {n} rows long");
            }
            Output::All(values) => assert_eq!(values.len(), n * self.k, "output is not {n} rows of {}", self.k),
        }
        ROOM.with_borrow_mut(|room| match Isa::detect() {
            // SAFETY: found on this machine; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_avx512(self, rows, out, room) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(self, rows, out, room) },
            // SAFETY: plain Rust; the lengths were checked above.
            Isa::Portable => unsafe { run::<[f32; LANES], 1, 2, 1>(self, rows, out, room) },
        });
    }

    /// Where centroid `c` starts.
    fn at(&self, c: usize) -> *const f32 {
        self.values[c * self.stride..].as_ptr()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(c: &Centroids, rows: &[f32], out: Output<'_>, room: &mut Room) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { run::<__m512, 4, 5, 4>(c, rows, out, room) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(c: &Centroids, rows: &[f32], out: Output<'_>, room: &mut Room) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { run::<Pair, 2, 2, 2>(c, rows, out, room) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn own_avx512(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { own::<__m512>(c, rows, labels, squared) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn own_avx2(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { own::<Pair>(c, rows, labels, squared) }
}

#[inline(always)]
unsafe fn own<V: Vector>(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    for ((row, &label), out) in rows.chunks_exact(c.dim).zip(labels).zip(squared) {
        *out = if c.dim <= COLUMN_DIM {
            squared_distance(row, c.get(label as usize))
        } else {
            // SAFETY: `row` holds `dim` values and the label names a centroid, both checked by the caller.
            unsafe { tile::<V, 1, 1, false>(row.as_ptr(), c.dim, c.at(label as usize), c.stride, c.dim, None)[0][0] }
        };
    }
}

/// Measures all rows, a block at a time. Tiles are as large as registers hold: `R` wide rows by `C` centroids, `T` vectors
/// of narrow rows by two centroids.
#[inline(always)]
unsafe fn run<V: Vector, const R: usize, const C: usize, const T: usize>(
    c: &Centroids,
    rows: &[f32],
    mut out: Output<'_>,
    room: &mut Room,
) {
    let screened_first = c.screen.as_ref().is_some_and(Screen::usable);
    if let (true, Output::Nearest { labels, best, second }) = (screened_first, &mut out) {
        let scores = at_least(&mut room.distances, c.k * BLOCK);
        // SAFETY: the caller vouches for the machine and the lengths.
        return unsafe { screened::<V, R, C>(c, rows, labels, best, second.as_deref_mut(), scores) };
    }
    let n = rows.len() / c.dim;
    let group = GROUP.min(c.k);
    let columns = at_least(&mut room.columns, if c.dim <= COLUMN_DIM { c.dim * BLOCK } else { 0 });
    let block = at_least(&mut room.distances, group * BLOCK);
    let mut minima = Minima::new();
    let mut blocks = rows.chunks(BLOCK * c.dim).enumerate().peekable();
    while let Some((b, rows)) = blocks.next() {
        let (start, count) = (b * BLOCK, rows.len() / c.dim);
        if c.dim <= COLUMN_DIM {
            if let Some((_, next)) = blocks.peek() {
                prefetch(next);
            }
            // SAFETY: `columns` holds dim x BLOCK values.
            unsafe { turn::<V>(rows, c.dim, columns.as_mut_ptr()) };
        }
        for first in (0..c.k).step_by(group) {
            let size = group.min(c.k - first);
            let distances = block.as_mut_ptr();
            // SAFETY: `columns` holds dim x BLOCK values, `block` group x BLOCK, and `first + size <= k`.
            unsafe {
                if c.dim <= COLUMN_DIM {
                    narrow::<V, T>(columns.as_ptr(), c, first, size, distances);
                } else {
                    wide::<V, R, C, false>(rows, c.dim, c.at(first), c.stride, size, distances, None);
                }
                match &mut out {
                    Output::Nearest { second: Some(_), .. } => minima.take::<V, true>(distances, first, size),
                    Output::Nearest { second: None, .. } => minima.take::<V, false>(distances, first, size),
                    Output::All(values) => {
                        for i in 0..size {
                            let to = (first + i) * n + start;
                            let from = std::slice::from_raw_parts(distances.add(i * BLOCK), count);
                            values[to..to + count].copy_from_slice(from);
                        }
                    }
                }
            }
        }
        if let Output::Nearest { labels, best, second } = &mut out {
            let range = start..start + count;
            best[range.clone()].copy_from_slice(&minima.best[..count]);
            for (label, at) in labels[range.clone()].iter_mut().zip(&minima.at) {
                // SAFETY: the number of a centroid, below 2^24.
                *label = unsafe { at.to_int_unchecked::<i32>() } as u32;
            }
            if let Some(second) = second {
                second[range].copy_from_slice(&minima.second[..count]);
            }
        }
    }
}

/// The running minima of a block of rows.
struct Minima {
    best: [f32; BLOCK],
    second: [f32; BLOCK],
    at: [f32; BLOCK],
}

impl Minima {
    fn new() -> Self {
        Self { best: [f32::INFINITY; BLOCK], second: [f32::INFINITY; BLOCK], at: [0.0; BLOCK] }
    }

    /// Takes in the distances of centroids `first .. first + size`; those of the first ones begin a new block.
    #[inline(always)]
    unsafe fn take<V: Vector, const SECOND: bool>(&mut self, distances: *const f32, first: usize, size: usize) {
        for lane in (0..BLOCK).step_by(LANES) {
            // SAFETY: the caller vouches for size x BLOCK distances; `lane + 16 <= BLOCK`.
            unsafe {
                let mut best = V::splat(f32::INFINITY);
                let mut second = best;
                let mut at = V::splat(0.0);
                if first > 0 {
                    best = V::load(self.best.as_ptr().add(lane));
                    second = V::load(self.second.as_ptr().add(lane));
                    at = V::load(self.at.as_ptr().add(lane));
                }
                for i in 0..size {
                    let d = V::load(distances.add(i * BLOCK + lane));
                    if SECOND {
                        second = second.min(d.max(best));
                    }
                    at = d.select_less(best, V::splat((first + i) as f32), at);
                    best = d.min(best);
                }
                best.store(self.best.as_mut_ptr().add(lane));
                second.store(self.second.as_mut_ptr().add(lane));
                at.store(self.at.as_mut_ptr().add(lane));
            }
        }
    }
}
