//! Matrix product on one thread: `out = start + a · b` in `f32`.
//!
//! Threads share a product by rows: each computes its rows of the output with its own call. Every element of the
//! output is `start + a_0 b_0 + a_1 b_1 + …`, one fused multiply-add after the other in that order, so its bits do not
//! depend on the shape of the call, on how the rows are shared out, or on the instruction set.
//!
//! The right operand may be packed into panels of sixteen columns ([`Panels`]), once for all the rows that meet it:
//! weights are packed once a step and read by all threads. The left operand is read as it lies.

mod tile;

use super::Pool;
use super::aligned::Aligned;
use super::isa::{Isa, LANES};

/// Steps that all rows take together before the next ones, for a packed right operand: it is read in order, which the
/// prefetcher does well, so blocks only bound the room that long panels take in the second-level cache.
const PACKED_BLOCK: usize = 1024;
/// The same for an unpacked one, whose panels are lines far apart: they must stay in the first-level cache.
const UNPACKED_BLOCK: usize = 128;

/// The left operand, `rows x steps`: where its elements lie.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    values: &'a [f32],
    row: usize,
    step: usize,
}

impl<'a> Left<'a> {
    /// A row-major matrix whose rows begin `stride` values apart.
    pub fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row: stride, step: 1 }
    }

    /// The transpose of a row-major matrix whose rows begin `stride` values apart.
    pub fn transposed(values: &'a [f32], stride: usize) -> Self {
        Self { values, row: 1, step: stride }
    }
}

/// The right operand, `steps x columns`: where its elements lie.
#[derive(Debug, Clone, Copy)]
pub struct Right<'a> {
    values: &'a [f32],
    panel: usize,
    step: usize,
    steps: usize,
    columns: usize,
    whole_panels: bool,
}

impl<'a> Right<'a> {
    /// A row-major matrix of `steps` rows of `columns` values that begin `stride` values apart.
    pub fn rows(values: &'a [f32], stride: usize, steps: usize, columns: usize) -> Self {
        let whole_panels = steps == 0 || (steps - 1) * stride + columns.next_multiple_of(LANES) <= values.len();
        Self { values, panel: LANES, step: stride, steps, columns, whole_panels }
    }
}

/// A right operand packed for reading in order: panel after panel of sixteen columns, step after step in a panel, the
/// last panel filled up with zeros.
#[derive(Debug, Clone, Default)]
pub struct Panels {
    values: Aligned,
    steps: usize,
    columns: usize,
}

impl Panels {
    /// Room for `steps x columns` values, all zero.
    pub fn new(steps: usize, columns: usize) -> Self {
        Self { values: Aligned::zeros(Self::len(steps, columns)), steps, columns }
    }

    /// Values in the panels of a `steps x columns` matrix.
    pub fn len(steps: usize, columns: usize) -> usize {
        steps * columns.next_multiple_of(LANES)
    }

    /// Packs a row-major matrix of `steps` rows of `columns` values.
    ///
    /// Panics if `values` is not `steps * columns` long.
    pub fn from_rows(values: &[f32], steps: usize, columns: usize) -> Self {
        assert_eq!(values.len(), steps * columns, "a matrix of {steps} x {columns}");
        let mut panels = Self::new(steps, columns);
        for (p, row) in values.chunks_exact(columns.max(1)).enumerate() {
            for (v, lanes) in row.chunks(LANES).enumerate() {
                panels.values[(v * steps + p) * LANES..][..lanes.len()].copy_from_slice(lanes);
            }
        }
        panels
    }

    /// Packs the transpose of a row-major matrix of `columns` rows of `steps` values, such as weights of shape
    /// `[out, in]` or centroids.
    ///
    /// Panics if `values` is not `steps * columns` long.
    pub fn from_transposed(values: &[f32], steps: usize, columns: usize) -> Self {
        let mut panels = Self::new(steps, columns);
        pack_transposed(values, steps, columns, &mut panels.values);
        panels
    }

    /// As [`from_transposed`](Self::from_transposed), on the pool's threads.
    ///
    /// Panics if `values` is not `steps * columns` long.
    pub fn from_transposed_on(values: &[f32], steps: usize, columns: usize, pool: &Pool) -> Self {
        assert_eq!(values.len(), steps * columns, "a matrix of {columns} x {steps}");
        let mut panels = Self::new(steps, columns);
        // Whole panels, of some 64 KiB.
        let at_once = 16_384_usize.checked_div(steps).unwrap_or(1).max(1).next_multiple_of(LANES);
        pool.for_each_chunk_mut(&mut panels.values, (at_once * steps).max(1), |i, panels| {
            let (first, last) = (i * at_once, columns.min((i + 1) * at_once));
            pack_transposed(&values[first * steps..last * steps], steps, last - first, panels);
        });
        panels
    }

    /// The operand.
    pub fn right(&self) -> Right<'_> {
        right_of_panels(&self.values, self.steps, self.columns)
    }
}

/// The right operand of `steps x columns` that lies packed in `panels`.
///
/// Panics if `panels` is not [`Panels::len`] long.
pub fn right_of_panels(panels: &[f32], steps: usize, columns: usize) -> Right<'_> {
    assert_eq!(panels.len(), Panels::len(steps, columns), "panels of {steps} x {columns}");
    Right { values: panels, panel: steps * LANES, step: LANES, steps, columns, whole_panels: true }
}

/// Packs the transpose of `values` (rows of `steps` values, one a column of the operand) into `panels`; the rows are
/// all the operand's columns or those of some whole panels of it, which `panels` then are.
///
/// Panics if `values` is not `steps * columns` long, or `panels` not [`Panels::len`].
pub fn pack_transposed(values: &[f32], steps: usize, columns: usize, panels: &mut [f32]) {
    assert_eq!(values.len(), steps * columns, "a matrix of {columns} x {steps}");
    assert_eq!(panels.len(), Panels::len(steps, columns), "panels of {steps} x {columns}");
    if steps == 0 {
        return;
    }
    for (rows, panel) in values.chunks(LANES * steps).zip(panels.chunks_exact_mut(LANES * steps)) {
        super::transpose::transpose_panel(rows, steps, panel);
    }
}

/// What the sums start from.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Zero.
    Zero,
    /// One row of values, the same for all rows of the output: a bias.
    Row(&'a [f32]),
    /// What the output holds: the product is added to it.
    Output,
}

/// `out = start + left · right`, where `out` has `rows` rows that begin `out_stride` values apart and as many columns
/// as `right`. Values of `out` between its rows stay as they are.
///
/// Panics if a slice is too short for the extents. Costs `2 * rows * steps * columns` flops; `O(1)` memory.
///
/// ```
/// use dacpipe_kernel::gemm::{Left, Panels, Start, gemm};
/// // Rows of two values times the transpose of three centroids.
/// let rows = [1.0, 2.0, 3.0, 4.0];
/// let centroids = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
/// let panels = Panels::from_transposed(&centroids, 2, 3);
/// let mut out = [0.0; 6];
/// gemm(2, Left::rows(&rows, 2), panels.right(), Start::Row(&[0.0, 0.0, 10.0]), &mut out, 3);
/// assert_eq!(out, [1.0, 2.0, 13.0, 3.0, 4.0, 17.0]);
/// ```
pub fn gemm(rows: usize, left: Left<'_>, right: Right<'_>, start: Start<'_>, out: &mut [f32], out_stride: usize) {
    gemm_with(Isa::detect(), rows, left, right, start, out, out_stride);
}

/// [`gemm`] by a given instruction set, which the machine must have.
fn gemm_with(
    isa: Isa,
    rows: usize,
    left: Left<'_>,
    right: Right<'_>,
    start: Start<'_>,
    out: &mut [f32],
    out_stride: usize,
) {
    let Right { steps, columns, .. } = right;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(out_stride >= columns || rows == 1, "rows of {columns} values do not fit in {out_stride}");
    assert!((rows - 1) * out_stride + columns <= out.len(), "the output is too short");
    if steps > 0 {
        let last_left = (rows - 1) * left.row + (steps - 1) * left.step;
        assert!(last_left < left.values.len(), "the left operand is too short");
        let lanes = if right.whole_panels { LANES } else { (columns - 1) % LANES + 1 };
        let last_right = (columns - 1) / LANES * right.panel + (steps - 1) * right.step + lanes;
        assert!(last_right <= right.values.len(), "the right operand is too short");
    }
    let (start, start_row) = match start {
        Start::Zero => (std::ptr::null(), 0),
        Start::Row(row) => {
            assert!(row.len() >= columns, "a start of {} values for {columns} columns", row.len());
            (row.as_ptr(), 0)
        }
        Start::Output => (out.as_ptr(), out_stride),
    };
    let operands = tile::Operands {
        a: left.values.as_ptr(),
        a_row: left.row,
        a_step: left.step,
        b: right.values.as_ptr(),
        b_panel: right.panel,
        b_step: right.step,
        steps,
        block: if right.step == LANES { PACKED_BLOCK } else { UNPACKED_BLOCK },
        copy: std::ptr::null_mut(),
        whole_panels: right.whole_panels,
        start,
        start_row,
        out: out.as_mut_ptr(),
        out_row: out_stride,
        rows,
        columns,
    };
    // SAFETY: the assertions above hold the last element of every operand inside its slice, and `out` is borrowed
    // mutably, so nothing else touches it.
    unsafe { tile::compute(isa, &operands) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow twin: the sum in the documented order.
    fn naive(
        rows: usize,
        steps: usize,
        columns: usize,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
        start: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let element = |i: usize, j: usize| (0..steps).fold(start(i, j), |sum, p| a(i, p).mul_add(b(p, j), sum));
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect()
    }

    /// Values that are spread over signs and magnitudes, by a fixed rule.
    fn values(len: usize, salt: u32) -> Vec<f32> {
        let mut state = salt.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn same_bits(ours: &[f32], twin: &[f32]) -> bool {
        ours.len() == twin.len()
            && ours.iter().zip(twin).all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
    }

    /// All forms on all instruction sets against the twin, bit by bit.
    fn check(rows: usize, steps: usize, columns: usize, a: &[f32], b: &[f32], start: &[f32]) {
        let at: Vec<f32> = (0..steps).flat_map(|p| (0..rows).map(move |i| a[i * steps + p])).collect();
        let bt: Vec<f32> = (0..columns).flat_map(|j| (0..steps).map(move |p| b[p * columns + j])).collect();
        let twin = |start: &dyn Fn(usize, usize) -> f32| {
            naive(rows, steps, columns, |i, p| a[i * steps + p], |p, j| b[p * columns + j], start)
        };
        let (zero, bias) = (twin(&|_, _| 0.0), twin(&|_, j| start[j]));
        let twice = naive(
            rows,
            steps,
            columns,
            |i, p| a[i * steps + p],
            |p, j| b[p * columns + j],
            |i, j| bias[i * columns + j],
        );
        let (by_rows, by_transposed) =
            (Panels::from_rows(b, steps, columns), Panels::from_transposed(&bt, steps, columns));
        let rights = [Right::rows(b, columns, steps, columns), by_rows.right(), by_transposed.right()];
        for isa in Isa::available() {
            for left in [Left::rows(a, steps), Left::transposed(&at, rows)] {
                for right in rights {
                    let mut out = vec![f32::NAN; rows * columns];
                    gemm_with(isa, rows, left, right, Start::Zero, &mut out, columns);
                    assert!(same_bits(&out, &zero), "{isa:?} {rows}x{steps}x{columns} zero");
                    gemm_with(isa, rows, left, right, Start::Row(start), &mut out, columns);
                    assert!(same_bits(&out, &bias), "{isa:?} {rows}x{steps}x{columns} bias");
                    gemm_with(isa, rows, left, right, Start::Output, &mut out, columns);
                    assert!(same_bits(&out, &twice), "{isa:?} {rows}x{steps}x{columns} added");
                }
            }
        }
    }

    #[test]
    fn equals_the_triple_loop_at_every_edge() {
        for rows in [1, 2, 5, 6, 7, 8, 9, 17] {
            for steps in [0, 1, 2, 129] {
                for columns in [1, 15, 16, 17, 32, 33, 47, 48, 49, 65, 100] {
                    check(
                        rows,
                        steps,
                        columns,
                        &values(rows * steps, 1),
                        &values(steps * columns, 2),
                        &values(columns, 3),
                    );
                }
            }
        }
        check(3, 2500, 20, &values(7500, 4), &values(50_000, 5), &values(20, 6));
    }

    #[test]
    fn zeros_denormals_and_huge_values_equal_the_triple_loop() {
        let kinds = [0.0, -0.0, f32::MIN_POSITIVE / 8.0, -f32::MIN_POSITIVE / 2.0, 1e30, -1e30, f32::MAX, 1.0, 1e-30];
        let pick =
            |len: usize, step: usize| (0..len).map(|i| kinds[(i * step + i / 7) % kinds.len()]).collect::<Vec<_>>();
        for (rows, steps, columns) in [(9, 13, 37), (1, 200, 1), (8, 1, 48)] {
            check(rows, steps, columns, &pick(rows * steps, 4), &pick(steps * columns, 5), &pick(columns, 2));
        }
    }

    #[test]
    fn values_between_the_rows_of_the_output_stay() {
        let mut out = vec![7.0; 5 * 24];
        gemm(5, Left::rows(&values(15, 1), 3), Right::rows(&values(60, 2), 20, 3, 20), Start::Zero, &mut out, 24);
        assert!(out.chunks_exact(24).all(|row| row[20..] == [7.0; 4] && row[..20].iter().all(|&v| v != 7.0)));
    }

    #[test]
    #[should_panic(expected = "the left operand is too short")]
    fn a_short_operand_is_refused() {
        gemm(2, Left::rows(&[1.0; 5], 3), Right::rows(&[1.0; 6], 2, 3, 2), Start::Zero, &mut [0.0; 4], 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_triple_loop(rows in 1_usize..40, steps in 0_usize..300, columns in 1_usize..120, salt in 0_u32..1000) {
            check(rows, steps, columns, &values(rows * steps, salt), &values(steps * columns, salt + 1), &values(columns, salt + 2));
        }

        #[test]
        fn rows_may_be_shared_out_anyhow(rows in 2_usize..60, cut in 1_usize..59, steps in 1_usize..200, columns in 1_usize..90) {
            let cut = cut.min(rows - 1);
            let (a, panels) = (values(rows * steps, 8), Panels::from_rows(&values(steps * columns, 9), steps, columns));
            let mut whole = vec![0.0; rows * columns];
            gemm(rows, Left::rows(&a, steps), panels.right(), Start::Zero, &mut whole, columns);
            let mut parts = vec![0.0; rows * columns];
            let (top, bottom) = parts.split_at_mut(cut * columns);
            gemm(cut, Left::rows(&a, steps), panels.right(), Start::Zero, top, columns);
            gemm(rows - cut, Left::rows(&a[cut * steps..], steps), panels.right(), Start::Zero, bottom, columns);
            prop_assert!(same_bits(&whole, &parts));
        }
    }
}
