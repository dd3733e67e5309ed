//! Transposing into panels of sixteen columns.

use super::isa::{Isa, LANES, Vector};

/// Writes up to sixteen rows of `steps` values as `steps` groups of sixteen lanes, one lane a row; lanes without a
/// row become zero.
///
/// Panics if `panel` is not `16 * steps` long or `rows` longer.
pub(crate) fn transpose_panel(rows: &[f32], steps: usize, panel: &mut [f32]) {
    assert!(panel.len() == LANES * steps && rows.len() <= panel.len(), "up to sixteen rows of {steps}");
    if rows.len() < panel.len() {
        panel.fill(0.0);
        for (l, row) in rows.chunks_exact(steps.max(1)).enumerate() {
            for (lanes, &value) in panel.chunks_exact_mut(LANES).zip(row) {
                lanes[l] = value;
            }
        }
        return;
    }
    // SAFETY: sixteen rows of `steps` values on both sides, by the assertion; the instruction set is the machine's.
    unsafe {
        match Isa::detect() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(rows, steps, panel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(rows, steps, panel),
            Isa::Portable => squares::<[f32; LANES]>(rows, steps, panel),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(rows: &[f32], steps: usize, panel: &mut [f32]) {
    // SAFETY: by the caller's promise.
    unsafe { squares::<std::arch::x86_64::__m512>(rows, steps, panel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(rows: &[f32], steps: usize, panel: &mut [f32]) {
    // SAFETY: by the caller's promise.
    unsafe { squares::<super::isa::Pair>(rows, steps, panel) }
}

/// Sixteen rows, square after square, then what is left one value at a time.
///
/// # Safety
/// `rows` and `panel` are `16 * steps` long, and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn squares<V: Vector>(rows: &[f32], steps: usize, panel: &mut [f32]) {
    let whole = steps / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        // SAFETY: columns `first..first + 16` of sixteen rows are read, and as many groups written.
        unsafe {
            let mut square = [V::splat(0.0); LANES];
            for (l, lanes) in square.iter_mut().enumerate() {
                *lanes = V::load(rows.as_ptr().add(l * steps + first));
            }
            for (p, lanes) in V::transpose(square).into_iter().enumerate() {
                lanes.store(panel.as_mut_ptr().add((first + p) * LANES));
            }
        }
    }
    for (p, lanes) in panel.chunks_exact_mut(LANES).enumerate().skip(whole) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane = rows[l * steps + p];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;

    #[test]
    fn every_instruction_set_turns_rows_into_lanes() {
        for (count, steps) in [(16, 1), (16, 15), (16, 16), (16, 17), (16, 561), (1, 40), (15, 16), (0, 3), (16, 0)] {
            let rows: Vec<f32> = (0..count * steps).map(|i| i as f32 + 1.0).collect();
            on_each(|isa| {
                let mut panel = vec![f32::NAN; LANES * steps];
                transpose_panel(&rows, steps, &mut panel);
                for (i, value) in panel.into_iter().enumerate() {
                    let (step, lane) = (i / LANES, i % LANES);
                    let expected = if lane < count { rows[lane * steps + step] } else { 0.0 };
                    assert_eq!(value, expected, "{isa:?} {count} x {steps}");
                }
            });
        }
    }
}
