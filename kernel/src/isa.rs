//! Which vector instructions this machine has, asked once, and vectors of sixteen lanes made of them.
//!
//! Every lane operation is an IEEE operation with one rounding, and sums over lanes are added in one order, so all
//! instruction sets give the same bits: a result never depends on the machine that computed it.

mod vector;

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub(crate) use vector::Pair;
pub(crate) use vector::{LANES, Vector};

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
        #[cfg(test)]
        if let Some(isa) = CHOSEN.get() {
            return isa;
        }
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

/// Asks for the cache lines of `values`; they come while other work goes on.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    for line in values.chunks(LANES) {
        prefetch_line(line.as_ptr());
    }
}

/// Asks for one cache line, which need not be anybody's.
#[inline(always)]
pub(crate) fn prefetch_line(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, which reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
thread_local! {
    /// What [`Isa::detect`] says on this thread instead of the best.
    static CHOSEN: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

/// Calls `task` once for each instruction set of this machine, with kernels on this thread (not those that a pool's
/// workers run) held to it.
#[cfg(test)]
pub(crate) fn on_each(mut task: impl FnMut(Isa)) {
    /// Lets go of the choice, on a panic too.
    struct Choice;
    impl Drop for Choice {
        fn drop(&mut self) {
            CHOSEN.set(None);
        }
    }
    let _choice = Choice;
    for isa in Isa::available() {
        CHOSEN.set(Some(isa));
        task(isa);
    }
}

/// Defines a function over slices whose loops the compiler vectorises once for each instruction set, and which runs
/// the best that the machine has. The body uses nothing but IEEE operations and `mul_add`, so the bits are the same.
///
/// ```
/// use dacpipe_kernel::isa::vectorised;
///
/// vectorised! {
///     /// Doubles each of `values`.
///     fn double(values: &mut [f32]) {
///         values.iter_mut().for_each(|value| *value *= 2.0);
///     }
/// }
///
/// let mut values = [1.0, 2.5];
/// double(&mut values);
/// assert_eq!(values, [2.0, 5.0]);
/// ```
#[macro_export]
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

            match $crate::isa::Isa::detect() {
                // SAFETY: detected on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: detected on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::isa::Isa::Portable => body($($arg),*),
            }
        }
    };
}
pub use vectorised;
