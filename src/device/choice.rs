//! Which device is asked for, and how many threads.

use std::sync::Arc;

use super::{Cpu, Device};
use crate::error::{Error, Result};
pub use crate::kernel::pool::MOST_THREADS;

/// The device that a pipeline file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The best that this build and this machine have. The processor, as long as there is no other.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceChoice {
    /// Checks that the device is there.
    ///
    /// # Errors
    /// Kind `Config` for `cuda`: this build has no CUDA twin of the device.
    pub fn check(self) -> Result<()> {
        match self {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(()),
            DeviceChoice::Cuda => Err(Error::config(
                "device = \"cuda\": this build has no CUDA kernels; use device = \"cpu\" or \"auto\"",
            )),
        }
    }

    /// The device, with `threads` compute threads on the host.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn open(self, threads: usize) -> Result<Arc<dyn Device>> {
        self.check()?;
        Ok(Arc::new(Cpu::new(threads)))
    }
}

/// The number of compute threads: `asked` if given, else `DACPIPE_THREADS`, else one for each core.
///
/// # Errors
/// Kind `Config` if what was asked for is not a number from 1 to [`MOST_THREADS`].
pub fn threads(asked: Option<usize>) -> Result<usize> {
    match (asked, std::env::var_os("DACPIPE_THREADS")) {
        (Some(n), _) => among(Some(n), || format!("{n} compute threads")),
        (None, Some(text)) => {
            let number = text.to_str().and_then(|text| text.trim().parse().ok());
            among(number, || format!("DACPIPE_THREADS={}", text.to_string_lossy().escape_debug()))
        }
        (None, None) => Ok(std::thread::available_parallelism().map_or(1, |n| n.get()).min(MOST_THREADS)),
    }
}

/// `number`, if it is one of threads; otherwise the error that says what was `asked` for.
fn among(number: Option<usize>, asked: impl FnOnce() -> String) -> Result<usize> {
    number.filter(|n| (1..=MOST_THREADS).contains(n)).ok_or_else(|| {
        let asked: String = asked().chars().take(80).collect();
        Error::config(format!("{asked}: expected a number of threads from 1 to {MOST_THREADS}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_are_possible_are_taken() {
        assert_eq!(threads(Some(1)).unwrap(), 1);
        assert_eq!(threads(Some(MOST_THREADS)).unwrap(), MOST_THREADS);
        for wrong in [0, MOST_THREADS + 1, 1_000_000, usize::MAX] {
            let e = threads(Some(wrong)).unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Config);
            assert_eq!(e.to_string(), format!("{wrong} compute threads: expected a number of threads from 1 to 1024"));
        }
    }
}
