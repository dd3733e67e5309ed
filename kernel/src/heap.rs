//! What the C library's allocator does with memory that is given back.
//!
//! A step on candle's tape allocates and frees the same arrays of some megabytes as the step before it. The allocator of
//! glibc returns such memory to the system at once and asks for it again, page by page: a third of the time of a
//! convolutional network's step. While a [`KeepFreed`] lives it keeps that memory.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are.
static KEEPERS: AtomicUsize = AtomicUsize::new(0);

/// While one lives, freed memory stays with the process, as much as was in use at once; when the last one is dropped it
/// goes back to the system. It does nothing where the C library is not glibc.
#[derive(Debug)]
pub struct KeepFreed(());

impl KeepFreed {
    /// Keeps freed memory from now on.
    ///
    /// ```
    /// use dacpipe_kernel::heap::KeepFreed;
    /// let _keep = KeepFreed::begin();
    /// let values = vec![1.0_f32; 1 << 20];
    /// assert_eq!(values[1 << 19], 1.0);
    /// ```
    pub fn begin() -> Self {
        if KEEPERS.fetch_add(1, Ordering::Relaxed) == 0 {
            set(Policy::Keep);
        }
        Self(())
    }
}

impl Drop for KeepFreed {
    fn drop(&mut self) {
        if KEEPERS.fetch_sub(1, Ordering::Relaxed) == 1 {
            set(Policy::GiveBack);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Keep,
    GiveBack,
}

/// Whether the allocator accepted all of it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(policy: Policy) -> bool {
    const MIB: libc::c_int = 1 << 20;
    // Allocations below the first come from the heap, whose free end beyond the second is returned; it grows by the third
    // at a time. The largest first one that glibc accepts is 32 MiB.
    let (map, trim, pad) = match policy {
        Policy::Keep => (32 * MIB, 1024 * MIB, 64 * MIB),
        Policy::GiveBack => (32 * MIB, 64 * MIB, 128 << 10),
    };
    let settings = [(libc::M_MMAP_THRESHOLD, map), (libc::M_TRIM_THRESHOLD, trim), (libc::M_TOP_PAD, pad)];
    // SAFETY: `mallopt` takes two numbers and changes the allocator's own settings under its lock.
    let accepted = settings.into_iter().all(|(name, value)| unsafe { libc::mallopt(name, value) } == 1);
    if policy == Policy::GiveBack {
        // SAFETY: `malloc_trim` returns memory that nobody uses, under the allocator's locks.
        unsafe { libc::malloc_trim(0) };
    }
    accepted
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_: Policy) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_accepts_both_and_memory_holds_what_is_written() {
        assert!(set(Policy::Keep));
        {
            let (_one, _two) = (KeepFreed::begin(), KeepFreed::begin());
            for round in 0..4_u8 {
                let blocks: Vec<Vec<u8>> = (1..40).map(|i| vec![round; i * 100_000]).collect();
                assert!(blocks.iter().all(|block| block.iter().all(|&byte| byte == round)));
            }
        }
        assert!(set(Policy::GiveBack));
        assert_eq!(KEEPERS.load(Ordering::Relaxed) & (1 << 63), 0, "more were dropped than begun");
    }
}
