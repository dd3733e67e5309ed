//! The innermost loop of the matrix product: one tile of the output, held in registers.

use std::mem::MaybeUninit;

use super::super::isa::{Isa, LANES, Vector, prefetch_line};
use super::UNPACKED_BLOCK;

/// Where the operands of one product lie. Element (i, p) of the left one is at `a + i * a_row + p * a_step`, and
/// lane l of panel v at step p of the right one at `b + v * b_panel + p * b_step + l`.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub a: *const f32,
    pub a_row: usize,
    pub a_step: usize,
    pub b: *const f32,
    pub b_panel: usize,
    pub b_step: usize,
    /// Length of the sums.
    pub steps: usize,
    pub block: usize,
    /// Where the panel is copied to while it is read, line after line, unless null.
    pub copy: *mut f32,
    /// Sixteen lanes of the last panel of the right operand may be read, whatever `columns` is.
    pub whole_panels: bool,
    /// What the sums start from: element (i, j) at `start + i * start_row + j`, or zero where `start` is null.
    pub start: *const f32,
    pub start_row: usize,
    pub out: *mut f32,
    pub out_row: usize,
    /// Rows of the output.
    pub rows: usize,
    /// Columns of the output.
    pub columns: usize,
}

impl Operands {
    /// Those of the part of the output from row `row` and panel `panel` on.
    #[inline(always)]
    unsafe fn from(&self, row: usize, panel: usize) -> Self {
        let column = panel * LANES;
        // SAFETY: row and panel lie inside the output, whose operands are valid by the caller's promise.
        unsafe {
            Self {
                a: self.a.add(row * self.a_row),
                b: self.b.add(panel * self.b_panel),
                start: match self.start.is_null() {
                    true => self.start,
                    false => self.start.add(row * self.start_row + column),
                },
                out: self.out.add(row * self.out_row + column),
                rows: self.rows - row,
                columns: self.columns - column,
                ..*self
            }
        }
    }
}

/// Computes the `M x (16 V)` tile at the start of the output, or as much of its last panel as there is.
///
/// Every element is `start + a_0 b_0 + a_1 b_1 + …`, one fused multiply-add a step in that order, whatever M and V
/// and the instruction set are.
#[inline(always)]
unsafe fn tile<X: Vector, const M: usize, const V: usize>(o: &Operands) {
    let last = (o.columns - (V - 1) * LANES).min(LANES);
    // SAFETY: the operands are valid for the tile by the caller's promise; only the last panel may be narrower than
    // sixteen, and it is read and written through `load_first` and `store_first` then.
    unsafe {
        let mut sums = [[X::splat(0.0); V]; M];
        if !o.start.is_null() {
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    let from = o.start.add(i * o.start_row + v * LANES);
                    *sum = if v + 1 < V { X::load(from) } else { X::load_first(from, last) };
                }
            }
        }
        match (last < LANES && !o.whole_panels, V == 1 && !o.copy.is_null()) {
            (false, false) => accumulate::<X, M, V, false, false>(o, last, &mut sums),
            (true, false) => accumulate::<X, M, V, true, false>(o, last, &mut sums),
            (false, true) => accumulate::<X, M, V, false, true>(o, last, &mut sums),
            (true, true) => accumulate::<X, M, V, true, true>(o, last, &mut sums),
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, sum) in row.iter().enumerate() {
                let to = o.out.add(i * o.out_row + v * LANES);
                if v + 1 < V || last == LANES { sum.store(to) } else { sum.store_first(to, last) }
            }
        }
    }
}

#[inline(always)]
unsafe fn accumulate<X: Vector, const M: usize, const V: usize, const PARTIAL: bool, const COPY: bool>(
    o: &Operands,
    last: usize,
    sums: &mut [[X; V]; M],
) {
    let (mut a, mut b) = (o.a, o.b);
    let mut local = *sums;
    for step in 0..o.steps {
        // SAFETY: step by step inside the operands, by the caller's promise; a copy has a line for each step.
        // `wrapping_add` because the pointers end one step past them.
        unsafe {
            let mut panel = [X::splat(0.0); V];
            for (v, lanes) in panel.iter_mut().enumerate() {
                let from = b.add(v * o.b_panel);
                *lanes = if PARTIAL && v + 1 == V { X::load_first(from, last) } else { X::load(from) };
                if COPY {
                    lanes.store(o.copy.add(step * LANES));
                    // The panel that is copied next.
                    prefetch_line(from.wrapping_add(o.b_panel));
                }
            }
            for (i, row) in local.iter_mut().enumerate() {
                let value = X::splat(*a.add(i * o.a_row));
                for (sum, lanes) in row.iter_mut().zip(panel) {
                    *sum = sum.add_product(value, lanes);
                }
            }
        }
        a = a.wrapping_add(o.a_step);
        b = b.wrapping_add(o.b_step);
    }
    *sums = local;
}

/// Computes the whole output in tiles of at most `M` rows and `V` panels, some steps of all tiles at a time, so that
/// the panels stay in the first-level cache while the rows pass by. The sums rest in the output in between.
#[inline(always)]
unsafe fn product<X: Vector, const M: usize, const V: usize>(o: &Operands) {
    let blocks = o.steps.div_ceil(o.block).max(1);
    let mut step = 0;
    for block in 0..blocks {
        let steps = (o.steps - step).div_ceil(blocks - block);
        // SAFETY: the steps lie inside the operands.
        let mut part = unsafe { Operands { a: o.a.add(step * o.a_step), b: o.b.add(step * o.b_step), steps, ..*o } };
        if block > 0 {
            (part.start, part.start_row) = (o.out, o.out_row);
        }
        // SAFETY: by the caller's promise.
        unsafe { pass::<X, M, V>(&part) };
        step += steps;
    }
}

/// Computes all tiles over all of the steps given.
#[inline(always)]
unsafe fn pass<X: Vector, const M: usize, const V: usize>(o: &Operands) {
    let panels = o.columns.div_ceil(LANES);
    let groups = panels.div_ceil(V);
    // Steps that lie far apart crowd into few sets of the cache, and come late each time: the first tile of a panel
    // copies it for the others.
    let copies = V == 1 && o.b_step != LANES && o.steps <= UNPACKED_BLOCK && o.rows > M;
    let mut copy = MaybeUninit::<[f32; UNPACKED_BLOCK * LANES]>::uninit();
    let copy = if copies { copy.as_mut_ptr().cast() } else { std::ptr::null_mut() };
    let mut panel = 0;
    for group in 0..groups {
        // Groups of nearly equal width: one panel alone would leave the multipliers waiting for loads.
        let width = (panels - panel).div_ceil(groups - group);
        // SAFETY: the panel lies inside the output.
        let mut strip = unsafe { o.from(0, panel) };
        strip.copy = copy;
        // Tiles of rows too are nearly equal.
        let tiles = o.rows.div_ceil(M);
        let mut row = 0;
        for tile in 0..tiles {
            let height = (o.rows - row).div_ceil(tiles - tile);
            // SAFETY: the rows lie inside the output; the tile has no more rows and panels than are left.
            unsafe {
                let part = Operands { rows: height, ..strip.from(row, 0) };
                match width {
                    1 => tile_of_rows::<X, M, 1>(&part),
                    2 if V >= 2 => tile_of_rows::<X, M, 2>(&part),
                    3 if V >= 3 => tile_of_rows::<X, M, 3>(&part),
                    _ => unreachable!("at most V panels"),
                }
            }
            row += height;
            if copies {
                strip = Operands { b: copy, b_step: LANES, copy: std::ptr::null_mut(), whole_panels: true, ..strip };
            }
        }
        panel += width;
    }
}

/// A tile of all the rows, at most `M`.
#[inline(always)]
unsafe fn tile_of_rows<X: Vector, const M: usize, const V: usize>(o: &Operands) {
    // SAFETY: the tile has no more rows than the output.
    unsafe {
        match o.rows {
            1 => tile::<X, 1, V>(o),
            2 => tile::<X, 2, V>(o),
            3 => tile::<X, 3, V>(o),
            4 => tile::<X, 4, V>(o),
            5 if M >= 5 => tile::<X, 5, V>(o),
            6 if M >= 6 => tile::<X, 6, V>(o),
            7 if M >= 7 => tile::<X, 7, V>(o),
            8 if M >= 8 => tile::<X, 8, V>(o),
            _ => unreachable!("at most M rows"),
        }
    }
}

/// 24 of the 32 registers hold sums, 3 the panels, 1 the factor.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(o: &Operands) {
    // SAFETY: the operands are valid by the caller's promise.
    unsafe { product::<std::arch::x86_64::__m512, 8, 3>(o) }
}

/// 12 of the 16 registers hold sums, 2 the panel, 1 the factor.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(o: &Operands) {
    // SAFETY: the operands are valid by the caller's promise.
    unsafe { product::<super::super::isa::Pair, 6, 1>(o) }
}

/// Computes the output that `o` describes.
///
/// # Safety
/// The pointers of `o` are valid for all the elements that its extents name, nobody else writes to the output or
/// reads it meanwhile, and the machine has `isa`.
pub(super) unsafe fn compute(isa: Isa, o: &Operands) {
    // SAFETY: by the caller's promise.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(o),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(o),
            Isa::Portable => product::<[f32; LANES], 4, 1>(o),
        }
    }
}
