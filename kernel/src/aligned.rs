//! Buffers whose vectors of sixteen values never straddle two cache lines.

use std::ops::{Deref, DerefMut};

use super::isa::LANES;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Values of `f32` that begin on a cache line. Its length is fixed when it is made.
#[derive(Debug, Clone, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LANES]); len.div_ceil(LANES)], len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        // SAFETY: lines are sixteen `f32` each without padding, and `len` values fit in them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Aligned {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_on_a_cache_line_and_holds_what_is_written() {
        for len in [0, 1, 15, 16, 17, 100] {
            let mut values = Aligned::zeros(len);
            assert_eq!(values.len(), len);
            assert!(values.as_ptr().addr().is_multiple_of(64) || len == 0);
            values.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            assert!(values.iter().enumerate().all(|(i, &v)| v == i as f32));
        }
    }
}
