//! How much memory a piece of work may take. This is checked before allocating, since a failed allocation ends the
//! process.

use bytesize::ByteSize;

use crate::error::{Error, Result};

/// The part of a memory limit of `bytes` that is for the stage that is learning: the layout, the network, the clusters.
pub fn of_limit(bytes: u64) -> u64 {
    bytes / 8 * 3
}

/// Why `what` cannot have `needed` bytes, given the `limit` that the pipeline leaves for it; `None` if it can.
pub fn beyond(what: &str, needed: u128, limit: u64) -> Option<String> {
    (needed > u128::from(limit)).then(|| {
        let times = needed.div_ceil(u128::from(limit.max(1)));
        let (needed, limit) = (size(needed), size(limit.into()));
        format!("{what} needs {needed} of memory, more than the {limit} that are left for it: raise memory_limit {times} times")
    })
}

/// Checks that `what` can have `needed` bytes, both of the `limit` that the pipeline leaves for it and of this machine.
///
/// # Errors
/// Kind `Compute`, saying how much is needed and what there is.
///
/// ```
/// use dacpipe::memory::room;
/// assert!(room("the network", 1 << 10, 1 << 20).is_ok());
/// let e = room("the network", 3 << 20, 1 << 20).unwrap_err();
/// assert!(e.to_string().ends_with("raise memory_limit 3 times"), "{e}");
/// ```
pub fn room(what: &str, needed: u128, limit: u64) -> Result<()> {
    match beyond(what, needed, limit) {
        Some(why) => Err(Error::compute(why)),
        None => available_room(what, needed),
    }
}

/// Checks that `what` can have `needed` bytes on this machine.
///
/// # Errors
/// Kind `Compute`, saying how much is needed and what there is.
pub fn available_room(what: &str, needed: u128) -> Result<()> {
    match available() {
        Some(left) if needed > u128::from(left) => {
            let (needed, left) = (size(needed), size(left.into()));
            Err(Error::compute(format!("{what} needs {needed} of memory, this machine has {left} left")))
        }
        _ => Ok(()),
    }
}

/// Bytes that a device with `free` bytes has left for rows, beside the `needed` ones of `what`. A sixteenth stays free, for
/// what drivers and libraries take.
///
/// # Errors
/// Kind `Compute` if it has not as many, saying how much is needed and what there is.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn left_on_device(what: &str, needed: u128, free: usize) -> Result<usize> {
    let usable = free - free / 16;
    match usize::try_from(needed).ok().and_then(|needed| usable.checked_sub(needed)) {
        Some(left) => Ok(left),
        None => {
            let (needed, free) = (size(needed), size(free as u128));
            Err(Error::compute(format!(
                "{what} needs {needed} of the GPU's memory, of which {free} are free: end what else runs on it (nvidia-smi \
                 shows it), make batch_size smaller, or use device = \"cpu\""
            )))
        }
    }
}

fn size(bytes: u128) -> String {
    ByteSize::b(u64::try_from(bytes).unwrap_or(u64::MAX)).display().si().to_string()
}

/// The bytes that this process can still allocate: the least of what the system, its control group, and its own limit
/// of addresses allow. `None` if the system does not say.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let group = |path: &str| {
        let read = |file: &str| read(&format!("/sys/fs/cgroup{path}/{file}"));
        group_left(&read("memory.max"), &read("memory.current"), &read("memory.stat"))
    };
    let groups = read("/proc/self/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().trim_end_matches('/');
    [
        free(&read("/proc/meminfo")),
        // In a container the group's own path may be missing; the root then has its limit.
        group(own),
        group(""),
        addresses_left(&read("/proc/self/limits"), &read("/proc/self/status")),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// The bytes that this process has in memory; `None` if the system does not say.
pub fn resident() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Linux's "available" memory: free, or used by caches that can be dropped.
fn free(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemAvailable:")
}

/// What is left of a control group's memory; its file cache can be dropped.
fn group_left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let cache = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok()).unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(cache)))
}

/// What is left of the addresses that `ulimit -v` gives.
fn addresses_left(limits: &str, status: &str) -> Option<u64> {
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(kibibytes(status, "VmSize:")?))
}

/// The value after `name`, which is in KiB, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_device_keeps_some_memory_free_and_says_what_is_missing() {
        assert_eq!(left_on_device("the network", 10 << 20, 160 << 20).unwrap(), 140 << 20);
        let e = left_on_device("the network", 151_000_000, 160_000_000).unwrap_err();
        assert_eq!(e.kind(), Kind::Compute);
        assert!(e.to_string().contains("needs 151.0 MB of the GPU's memory, of which 160.0 MB are free"), "{e}");
        assert!(left_on_device("the network", u128::MAX, usize::MAX).is_err());
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(free("MemTotal:  9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(group_left("1000\n", "700\n", "anon 5\ninactive_file 200\n"), Some(500));
        assert_eq!(group_left("max\n", "700\n", ""), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space  1048576  unlimited  bytes\n";
        assert_eq!(addresses_left(limits, "VmSize:\t 1000 kB\n"), Some(24 * 1024));
        assert_eq!(addresses_left("Max address space  unlimited  unlimited  bytes", "VmSize: 1 kB"), None);
        assert_eq!(free(""), None);
    }

    #[test]
    fn too_much_is_refused_with_what_would_do() {
        let e = room("x", u128::MAX, u64::MAX).unwrap_err();
        assert_eq!(e.kind(), Kind::Compute);
        assert!(room("x", 0, 0).is_ok());
        assert_eq!(
            beyond("the network", 2_500_000_000, 1_000_000_000).unwrap(),
            "the network needs 2.5 GB of memory, more than the 1.0 GB that are left for it: raise memory_limit 3 times"
        );
        if available().is_some() {
            let e = room("x", u128::from(u64::MAX), u64::MAX).unwrap_err().to_string();
            assert!(e.contains("this machine has"), "{e}");
        }
    }
}
