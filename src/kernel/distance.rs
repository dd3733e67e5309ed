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

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{LANES, Lanes, Level};

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
/// use dacpipe::kernel::distance::squared_distance;
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

/// Sixteen values on a cache line of their own.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

fn lines(values: usize) -> Vec<Line> {
    vec![Line([0.0; LANES]); values.div_ceil(LANES)]
}

/// Centroids laid out for the kernels.
#[derive(Debug, Clone)]
pub struct Centroids {
    k: usize,
    dim: usize,
    /// Values from one centroid to the next: `dim` rounded up to whole lines, filled with zeros.
    stride: usize,
    values: Vec<Line>,
    screen: Option<Screen>,
}

/// What the scores `|c|^2/2 - x.c` need, all about the centroids' mean.
#[derive(Debug, Clone)]
struct Screen {
    mean: Vec<Line>,
    centered: Vec<Line>,
    half_norms: Vec<f32>,
    longest: f32,
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
        let mut padded = lines(k * stride);
        for (i, &x) in values.iter().enumerate() {
            let at = i / dim * stride + i % dim;
            padded[at / LANES].0[at % LANES] = x;
        }
        let screen = (dim > COLUMN_DIM && k >= SCREEN_K).then(|| Screen::new(values, dim, stride));
        Self { k, dim, stride, values: padded, screen }
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
        let at = c * self.stride / LANES;
        // SAFETY: lines are sixteen floats each, without padding, and a centroid's lines lie side by side.
        unsafe { std::slice::from_raw_parts(self.values[at..at + self.stride / LANES].as_ptr().cast(), self.dim) }
    }

    /// The nearest centroid of each of `rows` (row-major) into `labels`, and its squared distance into `squared`. A tie
    /// goes to the lower number. `O(rows x k x dim)`.
    ///
    /// ```
    /// use dacpipe::kernel::distance::Centroids;
    /// let (mut labels, mut squared) = ([0; 2], [0.0; 2]);
    /// Centroids::new(&[0.0, 10.0], 1).nearest(&[7.0, 5.0], &mut labels, &mut squared);
    /// assert_eq!((labels, squared), ([1, 0], [9.0, 25.0]));
    /// ```
    ///
    /// # Panics
    /// If the slices' lengths do not fit together.
    pub fn nearest(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32]) {
        self.run(Level::best(), rows, Output::Nearest { labels, best: squared, second: None });
    }

    /// As [`nearest`](Self::nearest), and the squared distance of the second nearest into `second` (equal to the first in
    /// a tie, infinite for a single centroid).
    pub fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) {
        self.run(Level::best(), rows, Output::Nearest { labels, best: squared, second: Some(second) });
    }

    /// All squared distances, centroid by centroid: `out[c * rows + row]`.
    pub fn all(&self, rows: &[f32], out: &mut [f32]) {
        self.run(Level::best(), rows, Output::All(out));
    }

    /// The squared distance of each row to the centroid that `labels` names.
    pub fn own(&self, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
        assert!(rows.len() == labels.len() * self.dim && squared.len() == labels.len(), "lengths differ");
        assert!(labels.iter().all(|&c| (c as usize) < self.k), "a label names no centroid");
        match Level::best() {
            // SAFETY: the level was found on this machine; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { own_avx512(self, rows, labels, squared) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { own_avx2(self, rows, labels, squared) },
            // SAFETY: plain Rust; the lengths were checked above.
            Level::Portable => unsafe { own::<[f32; LANES]>(self, rows, labels, squared) },
        }
    }

    fn run(&self, level: Level, rows: &[f32], out: Output<'_>) {
        assert!(rows.len().is_multiple_of(self.dim), "{} values are not rows of {}", rows.len(), self.dim);
        let n = rows.len() / self.dim;
        match &out {
            Output::Nearest { labels, best, second } => {
                let second = second.as_ref().map_or(n, |s| s.len());
                assert!(labels.len() == n && best.len() == n && second == n, "output is not {n} rows long");
            }
            Output::All(values) => assert_eq!(values.len(), n * self.k, "output is not {n} rows of {}", self.k),
        }
        match level {
            // SAFETY: the level was found on this machine; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(self, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(self, rows, out) },
            // SAFETY: plain Rust; the lengths were checked above.
            Level::Portable => unsafe { run::<[f32; LANES], 1, 2>(self, rows, out) },
        }
    }

    /// Where centroid `c` starts.
    fn at(&self, c: usize) -> *const f32 {
        self.values[c * self.stride / LANES..].as_ptr().cast()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(c: &Centroids, rows: &[f32], out: Output<'_>) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { run::<Avx512, 4, 5>(c, rows, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(c: &Centroids, rows: &[f32], out: Output<'_>) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { run::<Avx2, 1, 2>(c, rows, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn own_avx512(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { own::<Avx512>(c, rows, labels, squared) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn own_avx2(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the lengths.
    unsafe { own::<Avx2>(c, rows, labels, squared) }
}

#[inline(always)]
unsafe fn own<V: Lanes>(c: &Centroids, rows: &[f32], labels: &[u32], squared: &mut [f32]) {
    for ((row, &label), out) in rows.chunks_exact(c.dim).zip(labels).zip(squared) {
        *out = if c.dim <= COLUMN_DIM {
            squared_distance(row, c.get(label as usize))
        } else {
            // SAFETY: `row` holds `dim` values and the label names a centroid, both checked by the caller.
            unsafe { tile::<V, 1, 1, false>(row.as_ptr(), c.dim, c.at(label as usize), c.stride, c.dim, None)[0][0] }
        };
    }
}

/// Measures all rows, a block at a time. `C` centroids a tile; `R` wide rows a tile.
#[inline(always)]
unsafe fn run<V: Lanes, const R: usize, const C: usize>(c: &Centroids, rows: &[f32], mut out: Output<'_>) {
    if let (Some(screen), Output::Nearest { labels, best, second }) = (&c.screen, &mut out) {
        // SAFETY: the caller vouches for the machine and the lengths.
        return unsafe { screened::<V, R, C>(c, screen, rows, labels, best, second.as_deref_mut()) };
    }
    let n = rows.len() / c.dim;
    let group = GROUP.min(c.k);
    let mut columns = lines(if c.dim <= COLUMN_DIM { c.dim * BLOCK } else { 0 });
    let mut block = lines(group * BLOCK);
    for (b, rows) in rows.chunks(BLOCK * c.dim).enumerate() {
        let (start, count) = (b * BLOCK, rows.len() / c.dim);
        let mut minima = Minima::new();
        if c.dim <= COLUMN_DIM {
            // SAFETY: `columns` holds dim x BLOCK values.
            unsafe { turn::<V>(rows, c.dim, columns.as_mut_ptr().cast()) };
        }
        for first in (0..c.k).step_by(group) {
            let size = group.min(c.k - first);
            let distances = block.as_mut_ptr().cast::<f32>();
            // SAFETY: `columns` holds dim x BLOCK values, `block` group x BLOCK, and `first + size <= k`.
            unsafe {
                if c.dim <= COLUMN_DIM {
                    narrow::<V, C>(columns.as_ptr().cast(), c, first, size, distances);
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
                *label = *at as u32;
            }
            if let Some(second) = second {
                second[range].copy_from_slice(&minima.second[..count]);
            }
        }
    }
}

/// Turns up to `BLOCK` rows on their side: `columns[j * BLOCK + row]`. Lanes without a row are zero or stale, never read.
#[inline(always)]
unsafe fn turn<V: Lanes>(rows: &[f32], dim: usize, columns: *mut f32) {
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
unsafe fn narrow<V: Lanes, const C: usize>(
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
unsafe fn narrow_tile<V: Lanes, const C: usize>(
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
                    *sum = difference.mul_add(difference, *sum);
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

/// `out[i * BLOCK + row]` = squared distance (or, if `DOT`, inner product about `mean`) of wide rows and `size`
/// centroids starting at `centroids`.
#[inline(always)]
unsafe fn wide<V: Lanes, const R: usize, const C: usize, const DOT: bool>(
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
unsafe fn strip<V: Lanes, const R: usize, const C: usize, const DOT: bool>(
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

#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const C: usize, const DOT: bool>(
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
unsafe fn step<V: Lanes, const R: usize, const C: usize, const DOT: bool>(
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
            for r in 0..R {
                let other = if DOT { center } else { x[r].sub(center) };
                let one = if DOT { x[r] } else { other };
                sums[r][i] = one.mul_add(other, sums[r][i]);
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

    /// Takes in the distances of centroids `first .. first + size`.
    #[inline(always)]
    unsafe fn take<V: Lanes, const SECOND: bool>(&mut self, distances: *const f32, first: usize, size: usize) {
        for lane in (0..BLOCK).step_by(LANES) {
            // SAFETY: the caller vouches for size x BLOCK distances; `lane + 16 <= BLOCK`.
            unsafe {
                let mut best = V::load(self.best.as_ptr().add(lane));
                let mut second = V::load(self.second.as_ptr().add(lane));
                let mut at = V::load(self.at.as_ptr().add(lane));
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

impl Screen {
    fn new(values: &[f32], dim: usize, stride: usize) -> Self {
        let k = values.len() / dim;
        let mut mean = lines(stride);
        let mut centered = lines(k * stride);
        for j in 0..dim {
            let sum: f64 = values.iter().skip(j).step_by(dim).map(|&x| f64::from(x)).sum();
            mean[j / LANES].0[j % LANES] = (sum / k as f64) as f32;
        }
        let mut half_norms = Vec::with_capacity(k);
        let mut longest = 0.0f64;
        for (i, c) in values.chunks_exact(dim).enumerate() {
            let mut norm = 0.0f64;
            for (j, &x) in c.iter().enumerate() {
                let at = i * stride + j;
                let x = x - mean[j / LANES].0[j % LANES];
                centered[at / LANES].0[at % LANES] = x;
                norm += f64::from(x) * f64::from(x);
            }
            half_norms.push((norm / 2.0) as f32);
            longest = longest.max(norm);
        }
        Self { mean, centered, half_norms, longest: longest.sqrt() as f32 }
    }

    /// How far apart two scores of a row this long (squared, about the mean) may lie and still be in the wrong order.
    ///
    /// With `s = |x| + |c|`: a score errs by `dim/16 + 6` roundings of `|x||c| + |c|^2/2`, the centering by `2 s^2`
    /// roundings, half the measured squared distance by `relative_error / 2` of `s^2`. The sum for both scores, doubled.
    fn slack(&self, squared_length: f32, dim: usize) -> f32 {
        let s = squared_length.sqrt() + self.longest;
        4.0 * (relative_error(dim) + 8.0 * f32::EPSILON) * s * s
    }
}

/// [`run`] for wide rows and many centroids: scores for all, distances for those that can be nearest.
#[inline(always)]
unsafe fn screened<V: Lanes, const R: usize, const C: usize>(
    c: &Centroids,
    screen: &Screen,
    rows: &[f32],
    labels: &mut [u32],
    best: &mut [f32],
    mut second: Option<&mut [f32]>,
) {
    let mean = screen.mean.as_ptr().cast::<f32>();
    let mut scores = lines(c.k * BLOCK);
    for (b, rows) in rows.chunks(BLOCK * c.dim).enumerate() {
        let scores = scores.as_mut_ptr().cast::<f32>();
        // SAFETY: `scores` holds k x BLOCK values, `centered` k padded centroids, `mean` one.
        unsafe {
            let centered = screen.centered.as_ptr().cast();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Two = (Vec<u32>, Vec<f32>, Vec<f32>);

    /// The slow twin: every distance as [`squared_distance`] states it, the first smallest, and the next.
    fn naive(rows: &[f32], centroids: &[f32], dim: usize) -> Two {
        let (mut labels, mut best, mut second) = (vec![], vec![], vec![]);
        for row in rows.chunks_exact(dim) {
            let (mut b, mut s, mut at) = (f32::INFINITY, f32::INFINITY, 0);
            for (i, c) in centroids.chunks_exact(dim).enumerate() {
                let d = squared_distance(row, c);
                s = if d < b { b } else { s.min(d) };
                if d < b {
                    (b, at) = (d, i as u32);
                }
            }
            labels.push(at);
            best.push(b);
            second.push(s);
        }
        (labels, best, second)
    }

    fn two(level: Level, c: &Centroids, rows: &[f32]) -> Two {
        let n = rows.len() / c.dim();
        let (mut labels, mut best, mut second) = (vec![9; n], vec![0.0; n], vec![0.0; n]);
        c.run(level, rows, Output::Nearest { labels: &mut labels, best: &mut best, second: Some(&mut second) });
        (labels, best, second)
    }

    fn check(rows: &[f32], centroids: &[f32], dim: usize) -> Result<(), TestCaseError> {
        let c = Centroids::new(centroids, dim);
        let expected = naive(rows, centroids, dim);
        let n = rows.len() / dim;
        for level in Level::all() {
            prop_assert_eq!(&two(level, &c, rows), &expected, "{:?}", level);
            let (mut labels, mut best) = (vec![9; n], vec![0.0; n]);
            c.run(level, rows, Output::Nearest { labels: &mut labels, best: &mut best, second: None });
            prop_assert_eq!(&labels, &expected.0, "{:?}", level);
            prop_assert_eq!(&best, &expected.1, "{:?}", level);
            let mut all = vec![0.0; n * c.k()];
            c.run(level, rows, Output::All(&mut all));
            for (i, d) in all.iter().enumerate() {
                prop_assert_eq!(*d, squared_distance(&rows[i % n * dim..][..dim], c.get(i / n)));
            }
        }
        let mut own = vec![0.0; n];
        c.own(rows, &expected.0, &mut own);
        prop_assert_eq!(&own, &expected.1);
        Ok(())
    }

    /// Values as data has them: spread out, all alike, zeros, denormal, huge, far from the origin.
    fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
        prop_oneof![
            prop::collection::vec(-1.0f32..1.0, len),
            prop::collection::vec((0u8..3).prop_map(f32::from), len),
            prop::collection::vec(prop_oneof![Just(0.0f32), Just(1e-40), Just(-1e-30)], len),
            prop::collection::vec(-1e18f32..1e18, len),
            prop::collection::vec(1000.0f32..1000.01, len),
        ]
    }

    fn problem(dims: std::ops::Range<usize>, k: usize) -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (dims, 1..k, 1usize..150).prop_flat_map(|(dim, k, n)| (Just(dim), values(n * dim), values(k * dim))).prop_map(
            |(dim, mut rows, centroids)| {
                // Rows that are centroids, and with them exact ties where centroids repeat.
                let shared = rows.len().min(centroids.len()) / dim / 2 * dim;
                rows[..shared].copy_from_slice(&centroids[..shared]);
                (dim, rows, centroids)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn narrow_rows_equal_the_slow_twin((dim, rows, centroids) in problem(1..COLUMN_DIM + 1, 150)) {
            check(&rows, &centroids, dim)?;
        }

        #[test]
        fn wide_rows_equal_the_slow_twin((dim, rows, centroids) in problem(COLUMN_DIM + 1..300, 80)) {
            check(&rows, &centroids, dim)?;
        }

        #[test]
        fn a_row_alone_gives_what_it_gives_among_others((dim, rows, centroids) in problem(1..200, 40)) {
            let c = Centroids::new(&centroids, dim);
            let whole = two(Level::best(), &c, &rows);
            for (i, row) in rows.chunks_exact(dim).enumerate() {
                let alone = two(Level::best(), &c, row);
                prop_assert_eq!((alone.0[0], alone.1[0], alone.2[0]), (whole.0[i], whole.1[i], whole.2[i]));
            }
        }
    }

    #[test]
    fn the_error_bound_holds() {
        for dim in [1, 2, 17, 128, 129, 784] {
            let a: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.91).cos()).collect();
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
            let error = (f64::from(squared_distance(&a, &b)) / exact - 1.0).abs();
            assert!(error <= f64::from(relative_error(dim)), "{dim}: {error}");
        }
    }

    #[test]
    fn a_single_centroid_has_no_second() {
        let (labels, best, second) = two(Level::best(), &Centroids::new(&[1.0, 1.0], 2), &[1.0, 3.0]);
        assert_eq!((labels[0], best[0], second[0]), (0, 4.0, f32::INFINITY));
    }
}
