//! Transposing into panels of sixteen columns.

use super::isa::{LANES, vectorised};

vectorised! {
    /// Writes up to sixteen rows of `steps` values as `steps` groups of sixteen lanes, one lane a row; lanes without a
    /// row become zero.
    pub(crate) fn transpose_panel(rows: &[f32], steps: usize, panel: &mut [f32]) {
        if rows.len() < LANES * steps {
            panel.fill(0.0);
            for (l, row) in rows.chunks_exact(steps).enumerate() {
                for (lanes, &value) in panel.chunks_exact_mut(LANES).zip(row) {
                    lanes[l] = value;
                }
            }
            return;
        }
        let mut source: [&[f32]; LANES] = [&[]; LANES];
        for (l, row) in rows.chunks_exact(steps).take(LANES).enumerate() {
            source[l] = row;
        }
        for (p, lanes) in panel.chunks_exact_mut(LANES).enumerate() {
            for l in 0..LANES {
                lanes[l] = source[l][p];
            }
        }
    }
}
