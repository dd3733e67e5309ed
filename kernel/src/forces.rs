//! The forces of a layout: joined rows pull each other together, and a row is pushed away from rows drawn at random
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

/// What the edges between two blocks of rows need to know.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Where all rows were before the epoch, `rows x stride`; the values of a row beyond its coordinates are 0.
    pub before: &'a [f32],
    /// What [`stride`] says for the coordinates.
    pub stride: usize,
    /// The forces.
    pub forces: &'a Forces,
    /// Rows that a row is pushed from for each pull.
    pub draws: usize,
    /// The step size.
    pub size: f32,
    /// The epoch, from 0 on.
    pub epoch: u32,
    /// What the draws depend on, beside the epoch.
    pub seed: u64,
}

/// Two rows that are joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// The row in the first block.
    pub a: u32,
    /// The row in the second block, which may be the first.
    pub b: u32,
    /// How often each of both pulls the other, in parts of the epochs, above 0 and at most 1.
    pub rate: f32,
}

/// The most coordinates of a row.
pub const MOST_COORDINATES: usize = 32 * LANES;

/// Values from one row to the next for rows of `dim` coordinates: whole vectors, one, two, four and so on.
///
/// ```
/// use dacpipe_kernel::forces::stride;
/// assert_eq!([2, 16, 17, 40].map(stride), [16, 16, 32, 64]);
/// ```
pub fn stride(dim: usize) -> usize {
    dim.div_ceil(LANES).next_power_of_two() * LANES
}

/// One epoch of the edges between two blocks of rows, `a` and `b` (`rows x stride` each), or within `a` where there is no
/// `b`. The edges follow one another. A pull moves both ends, by the same and in opposite directions; then one of the ends,
/// each in its turn, is pushed away from rows drawn among all, from where those were before the epoch: so blocks that have
/// no row in common can be worked on at once.
///
/// # Panics
/// If lengths do not fit together, an edge ends at no row or joins a row with itself, or there are more than
/// [`MOST_COORDINATES`].
pub fn meet(step: &Step<'_>, edges: &[Edge], a: &mut [f32], b: Option<&mut [f32]>) {
    let whole = |values: &[f32]| values.len().is_multiple_of(step.stride);
    assert!(whole(step.before) && whole(a) && b.as_ref().is_none_or(|b| whole(b)), "whole rows");
    assert!(u32::try_from(step.before.len() / step.stride).is_ok(), "at most 2^32 rows");
    let (of_a, of_b) = (a.len() / step.stride, b.as_ref().map_or(a.len(), |b| b.len()) / step.stride);
    let fits = |e: &Edge| (e.a as usize) < of_a && (e.b as usize) < of_b && (b.is_some() || e.a != e.b);
    assert!(edges.iter().all(fits), "an edge ends at no row of its block, or joins a row with itself");
    let a = a.as_mut_ptr();
    let b = b.map_or(a, |b| b.as_mut_ptr());
    match Isa::detect() {
        // SAFETY: found on this machine; all edges end at rows of their blocks.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { meet_avx512(step, edges, a, b) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { meet_avx2(step, edges, a, b) },
        // SAFETY: plain Rust; all edges end at rows of their blocks.
        Isa::Portable => unsafe { meet_by::<[f32; LANES]>(step, edges, a, b) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn meet_avx512(step: &Step<'_>, edges: &[Edge], a: *mut f32, b: *mut f32) {
    // SAFETY: the caller vouches for the machine and the edges.
    unsafe { meet_by::<__m512>(step, edges, a, b) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn meet_avx2(step: &Step<'_>, edges: &[Edge], a: *mut f32, b: *mut f32) {
    // SAFETY: the caller vouches for the machine and the edges.
    unsafe { meet_by::<Pair>(step, edges, a, b) }
}

#[inline(always)]
unsafe fn meet_by<V: Vector>(step: &Step<'_>, edges: &[Edge], a: *mut f32, b: *mut f32) {
    // SAFETY: the caller vouches for the machine and the edges, and the arm for the stride.
    unsafe {
        match step.stride / LANES {
            1 => meet_each::<V, 1>(step, edges, a, b),
            2 => meet_each::<V, 2>(step, edges, a, b),
            4 => meet_each::<V, 4>(step, edges, a, b),
            8 => meet_each::<V, 8>(step, edges, a, b),
            16 => meet_each::<V, 16>(step, edges, a, b),
            32 => meet_each::<V, 32>(step, edges, a, b),
            _ => panic!("a stride of {}", step.stride),
        }
    }
}

/// # Safety
/// The machine has the instructions of `V`, the stride is `L` vectors, and every edge ends at a row of `a` and at another
/// of `b`, which nobody else uses.
#[inline(always)]
unsafe fn meet_each<V: Vector, const L: usize>(step: &Step<'_>, edges: &[Edge], a: *mut f32, b: *mut f32) {
    let stride = L * LANES;
    let rows = step.before.len() / stride;
    let mut draws = Draws::new(step.seed, step.epoch);
    for edge in edges {
        let pulls = pulls(edge, step.epoch);
        if pulls.is_empty() {
            continue;
        }
        // SAFETY: rows are `stride` values long; both ends are rows of their blocks, and not the same one.
        unsafe {
            let ends = [a.add(edge.a as usize * stride), b.add(edge.b as usize * stride)];
            for pull in pulls {
                let mut drawn = [std::ptr::null(); DRAWS];
                for row in drawn.iter_mut().take(step.draws) {
                    *row = step.before.as_ptr().add(draws.next(rows) * stride);
                    prefetch(std::slice::from_raw_parts(*row, stride));
                }
                let [mut x, mut y]: [[V; L]; 2] = ends.map(|end| load(end));
                let difference = difference(&x, &y);
                apply(&difference, &step.forces.pull, -step.size, &mut x);
                apply(&difference, &step.forces.pull, step.size, &mut y);
                // Both ends are pushed in turn.
                let pushed = if pull % 2 == 0 { &mut x } else { &mut y };
                let (mut left, mut moved) = (step.draws, *pushed);
                loop {
                    for row in &drawn[..left.min(DRAWS)] {
                        apply(&self::difference(pushed, &load(*row)), &step.forces.push, step.size, &mut moved);
                    }
                    *pushed = moved;
                    left -= left.min(DRAWS);
                    if left == 0 {
                        break;
                    }
                    for row in drawn.iter_mut().take(left) {
                        *row = step.before.as_ptr().add(draws.next(rows) * stride);
                    }
                }
                store(&x, ends[0]);
                store(&y, ends[1]);
            }
        }
    }
}

/// # Safety
/// The machine has the instructions of `V`, and `L` vectors can be read at `from`.
#[inline(always)]
unsafe fn load<V: Vector, const L: usize>(from: *const f32) -> [V; L] {
    // SAFETY: by the caller's promise.
    std::array::from_fn(|l| unsafe { V::load(from.add(l * LANES)) })
}

/// # Safety
/// The machine has the instructions of `V`, and `L` vectors can be written at `to`.
#[inline(always)]
unsafe fn store<V: Vector, const L: usize>(row: &[V; L], to: *mut f32) {
    for (l, vector) in row.iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { vector.store(to.add(l * LANES)) };
    }
}

/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn difference<V: Vector, const L: usize>(x: &[V; L], y: &[V; L]) -> [V; L] {
    // SAFETY: by the caller's promise.
    std::array::from_fn(|l| unsafe { x[l].sub(y[l]) })
}

/// Moves `moved` along `difference` by the force at its length, each coordinate by at most [`MOST`], times `size`.
///
/// # Safety
/// The machine has the instructions of `V`.
#[inline(always)]
unsafe fn apply<V: Vector, const L: usize>(difference: &[V; L], force: &Curve, size: f32, moved: &mut [V; L]) {
    // SAFETY: by the caller's promise.
    unsafe {
        let zero = V::splat(0.0);
        let squares = difference.iter().fold(zero, |sum, &d| sum.add_product(d, d));
        let factor = V::splat(force.at(squares.sum()));
        for (moved, &difference) in moved.iter_mut().zip(difference) {
            let force = zero.add_product(factor, difference).max(V::splat(-MOST)).min(V::splat(MOST));
            *moved = moved.add_product(force, V::splat(size));
        }
    }
}

/// The numbers of the pulls of an edge in an epoch: each of both ends pulls in `rate` of the epochs.
#[inline(always)]
fn pulls(edge: &Edge, epoch: u32) -> std::ops::Range<u32> {
    // Edges of one weight would all pull in the same epochs if they began together.
    let begin = ((edge.a ^ edge.b.rotate_left(16)).wrapping_mul(0x9E37_79B9) >> 8) as f32 * (1.0 / 16_777_216.0);
    let until = |epoch: u32| (2.0 * edge.rate * epoch as f32 + begin) as u32;
    until(epoch)..until(epoch + 1)
}

/// Random rows: a linear congruential generator modulo 2^64 (Knuth's multiplier), of which the upper half is used. It
/// is short of dependent steps and good enough for choosing whom to push.
struct Draws(u64);

impl Draws {
    /// The draws of one epoch. SplitMix64's finaliser mixes the seed, so that neighbouring seeds give different draws.
    #[inline(always)]
    fn new(seed: u64, epoch: u32) -> Self {
        let mut z = seed.wrapping_add(u64::from(epoch).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(z ^ (z >> 31))
    }

    /// A row below `rows`.
    #[inline(always)]
    fn next(&mut self, rows: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * rows as u64) >> 32) as usize
    }
}
