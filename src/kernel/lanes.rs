//! Sixteen `f32` at a time: an AVX-512 register, a pair of AVX2 registers, or plain Rust.
//!
//! The three give the same bits: every operation is one IEEE operation a lane (multiply-add fused in all three), and
//! [`Lanes::sum`] folds halves in the same order. So a result never depends on the machine that computed it.

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// Which instructions the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Level {
    /// The best level of this machine.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") {
                return Level::Avx512;
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Portable
    }

    /// Every level that this machine can run, for tests that hold them equal.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
            }
            if std::is_x86_feature_detected!("avx512f") {
                levels.push(Level::Avx512);
            }
        }
        levels
    }
}

/// Sixteen `f32`.
///
/// # Safety
/// Every function of an implementation may only run on a machine that has its instructions; pointers must be valid
/// for the values they name (16, or `n` for [`load_first`](Self::load_first)).
pub(crate) trait Lanes: Copy {
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    /// The first `n` of 16 values, zeros after them.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn sub(self, o: Self) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self < o ? self : o`.
    unsafe fn min(self, o: Self) -> Self;
    /// `self > o ? self : o`.
    unsafe fn max(self, o: Self) -> Self;
    /// `self < o ? yes : no`.
    unsafe fn select_less(self, o: Self, yes: Self, no: Self) -> Self;
    /// Lane `i` of vector `j` becomes lane `j` of vector `i`.
    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut square = [0.0f32; LANES * LANES];
        for (r, row) in rows.into_iter().enumerate() {
            // SAFETY: row `r` of the square is 16 values long.
            unsafe { row.store(square.as_mut_ptr().add(r * LANES)) };
        }
        std::array::from_fn(|i| {
            let column: [f32; LANES] = std::array::from_fn(|r| square[r * LANES + i]);
            // SAFETY: a column is 16 values long.
            unsafe { Self::load(column.as_ptr()) }
        })
    }
    /// The sum of the lanes: lane `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    unsafe fn sum(self) -> f32;
}

impl Lanes for [f32; LANES] {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 values at `p`.
        unsafe { p.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller vouches for `n` values at `p`.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 values at `p`.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        std::array::from_fn(|i| self[i] - o[i])
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        std::array::from_fn(|i| if self[i] < o[i] { self[i] } else { o[i] })
    }

    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        std::array::from_fn(|i| if self[i] > o[i] { self[i] } else { o[i] })
    }

    #[inline(always)]
    unsafe fn select_less(self, o: Self, yes: Self, no: Self) -> Self {
        std::array::from_fn(|i| if self[i] < o[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let a: [f32; 8] = std::array::from_fn(|i| self[i] + self[i + 8]);
        let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (b[0] + b[2]) + (b[1] + b[3])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// One AVX-512 register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    /// Two AVX2 registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    #[inline(always)]
    unsafe fn sum256(a: __m256) -> f32 {
        // SAFETY: only called by the implementations below, whose callers vouch for AVX.
        unsafe {
            let b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let c = _mm_add_ps(b, _mm_movehl_ps(b, b));
            _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps::<1>(c, c)))
        }
    }

    // SAFETY of every block in this implementation: the caller vouches for AVX-512F and for the pointers.
    impl Lanes for Avx512 {
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_loadu_ps(p) })
        }

        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self {
            // SAFETY: see the implementation; masked lanes are not read.
            Self(unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p) })
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see the implementation.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }

        #[inline(always)]
        unsafe fn sub(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_sub_ps(self.0, o.0) })
        }

        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_min_ps(self.0, o.0) })
        }

        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            Self(unsafe { _mm512_max_ps(self.0, o.0) })
        }

        #[inline(always)]
        unsafe fn select_less(self, o: Self, yes: Self, no: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe {
                let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0);
                Self(_mm512_mask_mov_ps(no.0, less, yes.0))
            }
        }

        #[inline(always)]
        unsafe fn transpose(rows: [Self; 16]) -> [Self; 16] {
            // SAFETY: see the implementation.
            unsafe {
                // Vector 4q + c of `quads` holds columns c, c+4, c+8, c+12 of the rows 4q..4q+4. Loops, not closures:
                // a closure may be compiled without the instructions of its caller.
                let mut quads = [_mm512_setzero_ps(); 16];
                for q in [0, 4, 8, 12] {
                    let [a, b, c, d] = [rows[q].0, rows[q + 1].0, rows[q + 2].0, rows[q + 3].0];
                    let low = (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpacklo_ps(c, d)));
                    let high = (_mm512_castps_pd(_mm512_unpackhi_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(c, d)));
                    quads[q] = _mm512_castpd_ps(_mm512_unpacklo_pd(low.0, low.1));
                    quads[q + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low.0, low.1));
                    quads[q + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high.0, high.1));
                    quads[q + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high.0, high.1));
                }
                // Column c + 4p lies in part p of the quads c, 4+c, 8+c, 12+c: two rounds collect the parts.
                let mut turned = rows;
                for c in 0..4 {
                    let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
                    let (even, even2) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(d, e));
                    let (odd, odd2) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(d, e));
                    turned[c].0 = _mm512_shuffle_f32x4::<0x88>(even, even2);
                    turned[c + 4].0 = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                    turned[c + 8].0 = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                    turned[c + 12].0 = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
                }
                turned
            }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the implementation; AVX-512F implies AVX.
            unsafe {
                let low = _mm512_castps512_ps256(self.0);
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
                sum256(_mm256_add_ps(low, high))
            }
        }
    }

    // SAFETY of every block in this implementation: the caller vouches for AVX2, FMA and for the pointers.
    impl Lanes for Avx2 {
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: see the implementation.
            let v = unsafe { _mm256_set1_ps(x) };
            Self(v, v)
        }

        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: see the implementation.
            unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }

        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self {
            let mut whole = [0.0f32; super::LANES];
            // SAFETY: the caller vouches for `n <= 16` values at `p`.
            unsafe {
                std::ptr::copy_nonoverlapping(p, whole.as_mut_ptr(), n);
                Self::load(whole.as_ptr())
            }
        }

        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: see the implementation.
            unsafe {
                _mm256_storeu_ps(p, self.0);
                _mm256_storeu_ps(p.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn sub(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe { Self(_mm256_sub_ps(self.0, o.0), _mm256_sub_ps(self.1, o.1)) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
        }

        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe { Self(_mm256_min_ps(self.0, o.0), _mm256_min_ps(self.1, o.1)) }
        }

        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe { Self(_mm256_max_ps(self.0, o.0), _mm256_max_ps(self.1, o.1)) }
        }

        #[inline(always)]
        unsafe fn select_less(self, o: Self, yes: Self, no: Self) -> Self {
            // SAFETY: see the implementation.
            unsafe {
                let (a, b) = (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, o.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, o.1));
                Self(_mm256_blendv_ps(no.0, yes.0, a), _mm256_blendv_ps(no.1, yes.1, b))
            }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the implementation.
            unsafe { sum256(_mm256_add_ps(self.0, self.1)) }
        }
    }
}
