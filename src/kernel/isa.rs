//! Which vector instructions this machine has, asked once, and vectors of sixteen lanes made of them.
//!
//! Every lane operation is an IEEE operation with one rounding, so all instruction sets give the same bits.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every target has. Without a fused multiply-add in hardware it is slow but gives the same bits.
    Portable,
}

impl Isa {
    /// The best one that this machine has.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::available()[0])
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            [(avx512, Isa::Avx512), (avx2, Isa::Avx2), (true, Isa::Portable)]
                .into_iter()
                .filter_map(|(there, isa)| there.then_some(isa))
                .collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Isa::Portable]
    }
}

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
    /// As for [`splat`](Self::splat).
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
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
}

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
    }

    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        (u32::MAX >> (32 - count)) as __mmask16
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
            let mut lanes = [0.0; LANES];
            // SAFETY: as above; `count <= 16` values are copied.
            unsafe {
                std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
                Self::load(lanes.as_ptr())
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
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Pair;

/// Defines a function over slices whose loops the compiler vectorises once for each instruction set, and which runs
/// the best that the machine has. The body uses nothing but IEEE operations and `mul_add`, so the bits are the same.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            match $crate::kernel::isa::Isa::detect() {
                // SAFETY: detected on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: detected on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::kernel::isa::Isa::Portable => body($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;
