//! Sixteen `f32` at a time: an AVX-512 register, two AVX registers, or an array.

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen `f32`.
pub(crate) trait Vector: Copy {
    /// # Safety
    /// The machine has the instruction set, here and below.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `from` is valid for sixteen values.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count` (1 to 16) values and zeros.
    ///
    /// # Safety
    /// `from` is valid for `count` values.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// `to` is valid for sixteen values.
    unsafe fn store(self, to: *mut f32);

    /// Stores the first `count` (1 to 16) values.
    ///
    /// # Safety
    /// `to` is valid for `count` values.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// `self + a * b` with one rounding.
    ///
    /// # Safety
    /// As for [`splat`](Self::splat), here and below.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;

    /// `self < other ? self : other`.
    unsafe fn min(self, other: Self) -> Self;

    /// `self > other ? self : other`.
    unsafe fn max(self, other: Self) -> Self;

    /// `self < other ? yes : no`.
    unsafe fn select_less(self, other: Self, yes: Self, no: Self) -> Self;

    /// The sum of the lanes: lane `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    unsafe fn sum(self) -> f32;

    /// Lane `i` of vector `j` becomes lane `j` of vector `i`.
    #[inline(always)]
    unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut square = [0.0f32; LANES * LANES];
        for (r, row) in rows.into_iter().enumerate() {
            // SAFETY: the instructions are there by the caller's promise; row `r` of the square is sixteen values long.
            unsafe { row.store(square.as_mut_ptr().add(r * LANES)) };
        }
        std::array::from_fn(|i| {
            let column: [f32; LANES] = std::array::from_fn(|r| square[r * LANES + i]);
            // SAFETY: as above; a column is sixteen values long.
            unsafe { Self::load(column.as_ptr()) }
        })
    }
}

impl Vector for [f32; LANES] {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: by the caller's promise; arrays of `f32` need no more alignment than `f32`.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: `count <= 16` values on both sides by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count) };
        lanes
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { to.cast::<Self>().write(self) };
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: `count <= 16` values on both sides by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr(), to, count) };
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| a[i].mul_add(b[i], self[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    unsafe fn select_less(self, other: Self, yes: Self, no: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let a: [f32; 8] = std::array::from_fn(|i| self[i] + self[i + 8]);
        let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (b[0] + b[2]) + (b[1] + b[3])
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Pair;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Vector};
    use std::arch::x86_64::*;

    impl Vector for __m512 {
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: AVX-512 is there by the caller's promise, here and below.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above; sixteen values are readable by the caller's promise.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as above; the mask names only the first `count` values.
            unsafe { _mm512_maskz_loadu_ps(first(count), from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; sixteen values are writable by the caller's promise.
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: as above; the mask names only the first `count` values.
            unsafe { _mm512_mask_storeu_ps(to, first(count), self) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_sub_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_min_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_max_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn select_less(self, other: Self, yes: Self, no: Self) -> Self {
            // SAFETY: as above.
            unsafe {
                let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, other);
                _mm512_mask_mov_ps(no, less, yes)
            }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: as above; AVX-512 implies AVX.
            unsafe {
                let low = _mm512_castps512_ps256(self);
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self)));
                sum256(_mm256_add_ps(low, high))
            }
        }

        #[inline(always)]
        unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
            // SAFETY: as above.
            unsafe {
                // Vector 4q + c of `quads` holds columns c, c+4, c+8, c+12 of the rows 4q..4q+4. Loops, not closures:
                // a closure may be compiled without the instructions of its caller.
                let mut quads = [_mm512_setzero_ps(); LANES];
                for q in [0, 4, 8, 12] {
                    let [a, b, c, d] = [rows[q], rows[q + 1], rows[q + 2], rows[q + 3]];
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
                    turned[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
                    turned[c + 4] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                    turned[c + 8] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                    turned[c + 12] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
                }
                turned
            }
        }
    }

    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        (u32::MAX >> (32 - count)) as __mmask16
    }

    /// Lane `i` with `i + 4`, then `i + 2`, `i + 1`.
    #[inline(always)]
    unsafe fn sum256(a: __m256) -> f32 {
        // SAFETY: AVX is there by the caller's promise.
        unsafe {
            let b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let c = _mm_add_ps(b, _mm_movehl_ps(b, b));
            _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps::<1>(c, c)))
        }
    }

    /// Two AVX registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Pair(__m256, __m256);

    impl Vector for Pair {
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: AVX2 and FMA are there by the caller's promise, here and below.
            let half = unsafe { _mm256_set1_ps(value) };
            Self(half, half)
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above; sixteen values are readable by the caller's promise.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as above; the masks name only the first `count` values, and each is read from inside `MASK`.
            unsafe {
                let low = _mm256_loadu_si256(MASK.as_ptr().add(LANES - count).cast());
                let high = _mm256_loadu_si256(MASK.as_ptr().add(LANES + 8 - count).cast());
                Self(_mm256_maskload_ps(from, low), _mm256_maskload_ps(from.wrapping_add(8), high))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; sixteen values are writable by the caller's promise.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            let mut lanes = [0.0; LANES];
            // SAFETY: as above; `count <= 16` values are copied.
            unsafe {
                self.store(lanes.as_mut_ptr());
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
            }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn select_less(self, other: Self, yes: Self, no: Self) -> Self {
            // SAFETY: as above.
            unsafe {
                let less = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0);
                let less2 = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1);
                Self(_mm256_blendv_ps(no.0, yes.0, less), _mm256_blendv_ps(no.1, yes.1, less2))
            }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: as above.
            unsafe { sum256(_mm256_add_ps(self.0, self.1)) }
        }

        #[inline(always)]
        unsafe fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
            // Four squares of eight, of which two change places.
            let mut turned = rows;
            let (mut left, mut right) = ([rows[0].0; 8], [rows[0].0; 8]);
            for half in 0..2 {
                for i in 0..8 {
                    (left[i], right[i]) = (rows[8 * half + i].0, rows[8 * half + i].1);
                }
                // SAFETY: as above.
                let (left, right) = unsafe { (transpose256(left), transpose256(right)) };
                for i in 0..8 {
                    if half == 0 {
                        (turned[i].0, turned[8 + i].0) = (left[i], right[i]);
                    } else {
                        (turned[i].1, turned[8 + i].1) = (left[i], right[i]);
                    }
                }
            }
            turned
        }
    }

    /// Masks of the first `count` of sixteen lanes begin at `16 - count`.
    static MASK: [i32; 2 * LANES] = {
        let mut mask = [0; 2 * LANES];
        let mut i = 0;
        while i < LANES {
            mask[i] = -1;
            i += 1;
        }
        mask
    };

    /// Lane `i` of vector `j` becomes lane `j` of vector `i`.
    #[inline(always)]
    unsafe fn transpose256(rows: [__m256; 8]) -> [__m256; 8] {
        let mut turned = rows;
        // SAFETY: AVX is there by the caller's promise.
        unsafe {
            // Vector 4q + c of `quads` holds columns c and c+4 of the rows 4q..4q+4.
            let mut quads = rows;
            for q in [0, 4] {
                let [a, b, c, d] = [rows[q], rows[q + 1], rows[q + 2], rows[q + 3]];
                let low = (_mm256_castps_pd(_mm256_unpacklo_ps(a, b)), _mm256_castps_pd(_mm256_unpacklo_ps(c, d)));
                let high = (_mm256_castps_pd(_mm256_unpackhi_ps(a, b)), _mm256_castps_pd(_mm256_unpackhi_ps(c, d)));
                quads[q] = _mm256_castpd_ps(_mm256_unpacklo_pd(low.0, low.1));
                quads[q + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low.0, low.1));
                quads[q + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high.0, high.1));
                quads[q + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high.0, high.1));
            }
            for c in 0..4 {
                turned[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
                turned[c + 4] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
            }
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use proptest::prelude::*;

    type Square = [[f32; LANES]; LANES];

    /// What every operation makes of the rows of `square`, one result after the other.
    #[inline(always)]
    unsafe fn results<V: Vector>(square: &Square) -> Vec<f32> {
        let mut out = Vec::new();
        // SAFETY: the machine has the instructions by the caller's promise; rows and lanes are sixteen values long.
        unsafe {
            let mut rows = [V::splat(square[0][0]); LANES];
            for (row, values) in rows.iter_mut().zip(square) {
                *row = V::load(values.as_ptr());
            }
            let [a, b, c, d] = [rows[0], rows[1], rows[2], rows[3]];
            let lanewise =
                [V::splat(square[0][0]), a.add_product(b, c), a.sub(b), a.min(b), a.max(b), a.select_less(b, c, d)];
            let mut lanes = [0.0; LANES];
            for v in lanewise.into_iter().chain(V::transpose(rows)) {
                v.store(lanes.as_mut_ptr());
                out.extend(lanes);
            }
            for (count, values) in (1..=LANES).zip(square) {
                V::load_first(values.as_ptr(), count).store(lanes.as_mut_ptr());
                out.extend(lanes);
                lanes = [9.0; LANES];
                a.store_first(lanes.as_mut_ptr(), count);
                out.extend(lanes);
            }
            for row in rows {
                out.push(row.sum());
            }
        }
        out
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn avx512(square: &Square) -> Vec<f32> {
        // SAFETY: this function has the instructions.
        unsafe { results::<std::arch::x86_64::__m512>(square) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(square: &Square) -> Vec<f32> {
        // SAFETY: this function has the instructions.
        unsafe { results::<Pair>(square) }
    }

    /// The same, by the definitions of the operations.
    fn expected(square: &Square) -> Vec<f32> {
        let [a, b, c, d] = [square[0], square[1], square[2], square[3]];
        let mut out = vec![a[0]; LANES];
        out.extend((0..LANES).map(|i| b[i].mul_add(c[i], a[i])));
        out.extend((0..LANES).map(|i| a[i] - b[i]));
        out.extend((0..LANES).map(|i| if a[i] < b[i] { a[i] } else { b[i] }));
        out.extend((0..LANES).map(|i| if a[i] > b[i] { a[i] } else { b[i] }));
        out.extend((0..LANES).map(|i| if a[i] < b[i] { c[i] } else { d[i] }));
        out.extend((0..LANES * LANES).map(|i| square[i % LANES][i / LANES]));
        for (count, values) in (1..=LANES).zip(square) {
            out.extend((0..LANES).map(|i| if i < count { values[i] } else { 0.0 }));
            out.extend((0..LANES).map(|i| if i < count { a[i] } else { 9.0 }));
        }
        let tree = |row: &[f32; LANES]| {
            let mut lanes = row.to_vec();
            while lanes.len() > 1 {
                let high = lanes.split_off(lanes.len() / 2);
                lanes.iter_mut().zip(high).for_each(|(low, high)| *low += high);
            }
            lanes[0]
        };
        out.extend(square.iter().map(tree));
        out
    }

    proptest! {
        #[test]
        fn every_operation_equals_its_definition(
            values in prop::collection::vec(
                prop_oneof![
                    4 => -2.0f32..2.0,
                    1 => prop::sample::select(vec![0.0, -0.0, 1e-40, -1e-45, 1e30, f32::MAX, f32::INFINITY, f32::NAN]),
                ],
                LANES * LANES,
            )
        ) {
            let square: Square = std::array::from_fn(|r| std::array::from_fn(|i| values[r * LANES + i]));
            let twin = expected(&square);
            for isa in Isa::available() {
                let ours = match isa {
                    // SAFETY: `isa` is one of this machine's.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => unsafe { avx512(&square) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => unsafe { avx2(&square) },
                    // SAFETY: arrays need no instructions of their own.
                    Isa::Portable => unsafe { results::<[f32; LANES]>(&square) },
                };
                prop_assert_eq!(ours.len(), twin.len());
                for (i, (x, y)) in ours.iter().zip(&twin).enumerate() {
                    prop_assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(), "{isa:?} {i}: {x} {y}");
                }
            }
        }
    }
}
