//! Which device is asked for, and how many threads.

use std::sync::Arc;

use super::{Cpu, Device};
use crate::error::{Error, Result};

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
/// Kind `Config` if the number is zero or `DACPIPE_THREADS` is not a number.
pub fn threads(asked: Option<usize>) -> Result<usize> {
    let threads = match (asked, std::env::var("DACPIPE_THREADS")) {
        (Some(n), _) => n,
        (None, Ok(text)) => text
            .parse()
            .map_err(|_| Error::config(format!("DACPIPE_THREADS={text}: expected a number of threads, 1 or more")))?,
        (None, Err(_)) => std::thread::available_parallelism().map_or(1, |n| n.get()),
    };
    match threads {
        0 => Err(Error::config("0 compute threads were asked for; 1 or more are accepted")),
        n => Ok(n),
    }
}
