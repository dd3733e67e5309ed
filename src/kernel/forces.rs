//! The forces of a layout: rows are pulled towards those they are joined with and pushed away from rows drawn at random
//! (McInnes, Healy and Melville 2018, algorithm 5).
//!
//! With `q(d) = 1 / (1 + a d^{2b})`, an edge pulls by `2 a b d^{2(b-1)} q(d)` times the difference of both positions, and
//! a drawn row pushes by `2 b q(d) / (0.001 + d^2)` times the difference; each part of a step is at most 4, times the
//! step size.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512;

#[cfg(target_arch = "x86_64")]
use super::isa::Pair;
use super::isa::{Isa, LANES, Vector, prefetch};

/// Intervals of a [`Curve`] in each factor of two of the squared distance, as a power of two.
const FINE: u32 = 5;
/// The exponents of the squared distances that a [`Curve`] covers; beyond them its ends are taken.
const EXPONENTS: std::ops::Range<i32> = -30..30;
/// The most that one force moves a coordinate, before the step size.
const MOST: f32 = 4.0;
/// Draws whose rows are asked of memory together.
const DRAWS: usize = 8;

/// A function of the squared distance, linear between points that lie close: a power costs more than all the rest of a
/// force. Relative error below 2e-4.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Value and slope at the beginning of each interval.
    points: Vec<[f32; 2]>,
}

impl Curve {
    /// The curve of `function`, which is given squared distances.
    pub fn new(function: impl Fn(f64) -> f64) -> Self {
        let at = |i: usize| {
            let (exponent, part) = ((i >> FINE) as i32 + EXPONENTS.start, i & ((1 << FINE) - 1));
            2.0_f64.powi(exponent) * (1.0 + part as f64 / f64::from(1 << FINE))
        };
        let intervals = EXPONENTS.len() << FINE;
        let points = (0..intervals).map(|i| (function(at(i)), function(at(i + 1))));
        Self { points: points.map(|(value, next)| [value as f32, (next - value) as f32]).collect() }
    }

    /// The function at `squared`, which is at least 0.
    #[inline(always)]
    pub fn at(&self, squared: f32) -> f32 {
        const BELOW: u32 = ((127 + EXPONENTS.start) as u32) << FINE;
        let bits = squared.to_bits();
        let interval = (bits >> (23 - FINE)).saturating_sub(BELOW) as usize;
        let part = (bits & ((1 << (23 - FINE)) - 1)) as f32 * (1.0 / (1 << (23 - FINE)) as f32);
        let [value, slope] = self.points[interval.min(self.points.len() - 1)];
        slope.mul_add(part, value)
    }
}

/// The two forces of a layout.
#[derive(Debug, Clone)]
pub struct Forces {
    /// Towards a joined row, as a factor of the difference.
    pub pull: Curve,
    /// Away from a drawn row.
    pub push: Curve,
}

impl Forces {
    /// The forces of the curve `1 / (1 + a d^{2b})`.
    pub fn new(a: f64, b: f64) -> Self {
        Self {
            pull: Curve::new(|d2| 2.0 * a * b * d2.powf(b - 1.0) / (1.0 + a * d2.powf(b))),
            push: Curve::new(|d2| 2.0 * b / ((0.001 + d2) * (1.0 + a * d2.powf(b)))),
        }
    }
}

/// What a step of the layout needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Where all rows are, `rows x stride`; the values of a row beyond its coordinates are 0.
    pub positions: &'a [f32],
    /// What [`stride`] says for the coordinates.
    pub stride: usize,
    /// Where each row's edges begin; one more for the end.
    pub starts: &'a [usize],
    /// The other end of each edge.
    pub ends: &'a [u32],
    /// How often each edge pulls, in parts of the epochs, above 0 and at most 1.
    pub rates: &'a [f32],
    /// The forces.
    pub forces: &'a Forces,
    /// Rows drawn for each pull.
    pub draws: usize,
    /// The step size.
    pub size: f32,
    /// The epoch, from 0 on.
    pub epoch: u32,
    /// What the draws depend on, beside epoch and row.
    pub seed: u64,
}

/// The most coordinates of a row.
pub const MOST_COORDINATES: usize = 32 * LANES;

/// Values from one row to the next for rows of `dim` coordinates: whole vectors, one, two, four and so on.
///
/// ```
/// use dacpipe::kernel::forces::stride;
/// assert_eq!([2, 16, 17, 40].map(stride), [16, 16, 32, 64]);
/// ```
pub fn stride(dim: usize) -> usize {
    dim.div_ceil(LANES).next_power_of_two() * LANES
}

/// One step of the rows from number `first` on, as many as `out` holds (`rows x stride`), from where they are in
/// `step.positions`. The forces on a row follow one another; all other rows stay where they are, so that rows may be moved
/// in any order and on any thread. An edge pulls twice, once for each of its ends, as both move in the reference
/// implementation.
///
/// # Panics
/// If lengths do not fit together, an edge ends at no row, or there are more than [`MOST_COORDINATES`].
pub fn move_rows(step: &Step<'_>, first: usize, out: &mut [f32]) {
    let rows = step.positions.len() / step.stride;
    let moved = first..first + out.len() / step.stride;
    assert!(step.positions.len().is_multiple_of(step.stride) && out.len().is_multiple_of(step.stride), "whole rows");
    assert!(
        rows <= u32::MAX as usize && moved.end <= rows && moved.end < step.starts.len(),
        "rows {moved:?} of {rows}"
    );
    let edges = step.starts[moved.start]..step.starts[moved.end];
    assert!(step.rates.len() == step.ends.len(), "a rate each edge");
    assert!(step.ends[edges].iter().all(|&end| (end as usize) < rows), "an edge ends at no row");
    match Isa::detect() {
        // SAFETY: found on this machine; all edges end at rows.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { move_rows_avx512(step, first, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { move_rows_avx2(step, first, out) },
        // SAFETY: plain Rust; all edges end at rows.
        Isa::Portable => unsafe { move_rows_by::<[f32; LANES]>(step, first, out) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn move_rows_avx512(step: &Step<'_>, first: usize, out: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the edges.
    unsafe { move_rows_by::<__m512>(step, first, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn move_rows_avx2(step: &Step<'_>, first: usize, out: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the edges.
    unsafe { move_rows_by::<Pair>(step, first, out) }
}

#[inline(always)]
unsafe fn move_rows_by<V: Vector>(step: &Step<'_>, first: usize, out: &mut [f32]) {
    // SAFETY: the caller vouches for the machine and the edges, and the arm for the stride.
    unsafe {
        match step.stride / LANES {
            1 => move_each::<V, 1>(step, first, out),
            2 => move_each::<V, 2>(step, first, out),
            4 => move_each::<V, 4>(step, first, out),
            8 => move_each::<V, 8>(step, first, out),
            16 => move_each::<V, 16>(step, first, out),
            32 => move_each::<V, 32>(step, first, out),
            _ => panic!("a stride of {}", step.stride),
        }
    }
}

/// # Safety
/// The machine has the instructions of `V`, the stride is `L` vectors, and every edge ends at a row.
#[inline(always)]
unsafe fn move_each<V: Vector, const L: usize>(step: &Step<'_>, first: usize, out: &mut [f32]) {
    let stride = L * LANES;
    let rows = step.positions.len() / stride;
    let at = |row: u32| step.positions.as_ptr().wrapping_add(row as usize * stride);
    for (i, out) in out.chunks_exact_mut(stride).enumerate() {
        let row = (first + i) as u32;
        // SAFETY: a row of the positions or of `out` is `stride` values long; drawn rows and ends of edges are rows.
        unsafe {
            let mut current: [V; L] = std::array::from_fn(|l| V::load(at(row).add(l * LANES)));
            let mut draws = Draws::new(step.seed, step.epoch, row);
            let edges = step.starts[row as usize]..step.starts[row as usize + 1];
            for (&end, &rate) in step.ends[edges.clone()].iter().zip(&step.rates[edges]) {
                if !due(row, end, rate, step.epoch) {
                    continue;
                }
                let mut left = step.draws;
                let mut moved = current;
                loop {
                    let count = left.min(DRAWS);
                    let mut drawn = [0; DRAWS];
                    for other in &mut drawn[..count] {
                        *other = draws.next(rows);
                        prefetch(std::slice::from_raw_parts(at(*other), stride));
                    }
                    if left == step.draws {
                        let twice = 2.0 * step.size;
                        apply(&current, at(end), &step.forces.pull, -1.0, twice, &mut moved);
                    }
                    for &other in &drawn[..count] {
                        if other != row {
                            apply(&current, at(other), &step.forces.push, 1.0, step.size, &mut moved);
                        }
                    }
                    left -= count;
                    if left == 0 {
                        break;
                    }
                }
                current = moved;
            }
            for (l, vector) in current.into_iter().enumerate() {
                vector.store(out.as_mut_ptr().add(l * LANES));
            }
        }
    }
}

/// Moves `moved` along the difference of `from` to `other` times `sign` times the force, each coordinate by at most
/// [`MOST`], times `size`.
///
/// # Safety
/// The machine has the instructions of `V`, and `L` vectors can be read at `other`.
#[inline(always)]
unsafe fn apply<V: Vector, const L: usize>(
    from: &[V; L],
    other: *const f32,
    force: &Curve,
    sign: f32,
    size: f32,
    moved: &mut [V; L],
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let zero = V::splat(0.0);
        let differences: [V; L] = std::array::from_fn(|l| from[l].sub(V::load(other.add(l * LANES))));
        let squares = differences.iter().fold(zero, |sum, &d| sum.add_product(d, d));
        let factor = V::splat(sign * force.at(squares.sum()));
        for (moved, difference) in moved.iter_mut().zip(differences) {
            let force = zero.add_product(factor, difference).max(V::splat(-MOST)).min(V::splat(MOST));
            *moved = moved.add_product(force, V::splat(size));
        }
    }
}

/// Whether an edge that pulls in `rate` of the epochs pulls in this one. Both of its ends agree.
#[inline(always)]
fn due(a: u32, b: u32, rate: f32, epoch: u32) -> bool {
    // Edges of one weight would all pull in the same epochs if they began together.
    let begin = ((a ^ b).wrapping_mul(0x9E37_79B9) >> 8) as f32 * (1.0 / 16_777_216.0);
    let pulls = |epoch: u32| (rate * epoch as f32 + begin) as u32;
    pulls(epoch + 1) > pulls(epoch)
}

/// Random rows: a linear congruential generator modulo 2^64 (Knuth's multiplier), of which the upper half is used. It
/// is short of dependent steps and good enough for choosing whom to push.
struct Draws(u64);

impl Draws {
    /// The draws of one row in one epoch, begun by a finaliser (that of SplitMix64) so that neighbours differ.
    #[inline(always)]
    fn new(seed: u64, epoch: u32, row: u32) -> Self {
        let mut z = seed.wrapping_add((u64::from(epoch) << 32 | u64::from(row)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(z ^ (z >> 31))
    }

    /// A row below `rows`.
    #[inline(always)]
    fn next(&mut self, rows: usize) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * rows as u64) >> 32) as u32
    }
}
