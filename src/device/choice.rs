//! Which device is asked for, and how many threads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Candle, Cpu, Device};
use crate::error::{Error, Result};
pub use crate::kernel::pool::MOST_THREADS;

/// The device that is asked for, written `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`.
///
/// ```
/// use dacpipe::device::DeviceChoice;
/// assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
/// assert_eq!(DeviceChoice::Cuda(0).to_string(), "cuda");
/// let message = "gpu".parse::<DeviceChoice>().unwrap_err();
/// assert!(message.starts_with(r#""gpu" is no device; expected "auto", "cpu", "cuda" or "cuda:N""#));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum DeviceChoice {
    /// The first NVIDIA GPU, in a build for it and where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(u16),
}

impl DeviceChoice {
    /// What can be written, for messages.
    pub const ACCEPTED: &str = r#""auto", "cpu", "cuda" or "cuda:N", where N is the number of a GPU, from 0 on"#;
    /// The format of its JSON Schema.
    pub const FORMAT: &str = "device";

    /// Checks that the device is there.
    ///
    /// # Errors
    /// Kind `Config` for a GPU that cannot be used: the message says whether the build, the driver or the card is
    /// missing, and what to do.
    pub fn check(self) -> Result<()> {
        match self {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(()),
            DeviceChoice::Cuda(number) => gpu(number).map(drop),
        }
    }

    /// The device, with `threads` compute threads on the host.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn open(self, threads: usize) -> Result<Arc<dyn Device>> {
        self.open_as(threads, true)
    }

    /// The same; the CPU trains autoencoders by its fused trainer if `fused`, else on candle's tape.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn open_as(self, threads: usize, fused: bool) -> Result<Arc<dyn Device>> {
        let gpu = match self {
            DeviceChoice::Cpu => None,
            DeviceChoice::Auto => gpu(0).ok(),
            DeviceChoice::Cuda(number) => Some(gpu(number)?),
        };
        Ok(match gpu {
            Some(gpu) => Arc::new(Candle::new(gpu, threads)),
            None if fused => Arc::new(Cpu::new(threads)),
            None => Arc::new(Cpu::new(threads).unfused()),
        })
    }
}

/// The GPU of this number. All threads put their work into one stream, so that what one makes is there for the next.
#[cfg(feature = "cuda")]
fn gpu(number: u16) -> Result<candle_core::Device> {
    crate::cuda::open(usize::from(number))
        .map_err(|e| Error::config(unusable(number, &format!("{e} {e:?}"))).with_source(e))
}

/// As there is none for this build, the error.
#[cfg(not(feature = "cuda"))]
fn gpu(number: u16) -> Result<candle_core::Device> {
    Err(Error::config(format!(
        "device = \"{}\": this build of dacpipe is without CUDA; build it with --features cuda, which needs the CUDA \
         toolkit, or use device = \"cpu\" or \"auto\"",
        DeviceChoice::Cuda(number)
    )))
}

/// Why the GPU of this number cannot be used, of what CUDA said.
#[cfg(any(feature = "cuda", test))]
fn unusable(number: u16, said: &str) -> String {
    const DRIVER: [&str; 5] =
        ["STUB_LIBRARY", "INSUFFICIENT_DRIVER", "DRIVER_MISMATCH", "NOT_INITIALIZED", "COMPAT_NOT_SUPPORTED"];
    let says = |names: &[&str]| names.iter().any(|name| said.contains(name));
    let why = if says(&DRIVER) {
        "no NVIDIA driver that fits this build is loaded; install or update the driver (nvidia-smi shows it)".to_owned()
    } else if says(&["NO_DEVICE"]) {
        "this machine shows no NVIDIA GPU; look at nvidia-smi and at CUDA_VISIBLE_DEVICES".to_owned()
    } else if says(&["INVALID_DEVICE"]) {
        format!("there is no GPU number {number}; nvidia-smi -L lists them, and they are counted from 0")
    } else if says(&["OUT_OF_MEMORY"]) {
        "the GPU has no memory left; end what else runs on it (nvidia-smi shows it)".to_owned()
    } else {
        "the GPU cannot be used; look at nvidia-smi".to_owned()
    };
    format!("device = \"{}\": {why}, or use device = \"cpu\"", DeviceChoice::Cuda(number))
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().ok(),
            false => None,
        };
        match (text, text.strip_prefix("cuda:")) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(0)),
            (_, Some(digits)) => number(digits).map(DeviceChoice::Cuda).ok_or_else(|| {
                format!(
                    "{text:?} names no GPU; expected \"cuda:N\", where N is its number, from 0 on (nvidia-smi -L lists them)"
                )
            }),
            (_, None) => Err(format!("{text:?} is no device; expected {}", Self::ACCEPTED)),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(0) => f.write_str("cuda"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for DeviceChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeviceChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": Self::FORMAT, "pattern": "^(auto|cpu|cuda(:[0-9]+)?)$" })
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
    fn what_is_shown_reads_back_and_nothing_else_is_taken() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
        ] {
            assert_eq!((text.parse(), choice.to_string().as_str()), (Ok(choice), text));
            assert_eq!(serde_json::from_value::<DeviceChoice>(serde_json::json!(choice)).unwrap(), choice);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["", "gpu", "CPU", "cuda0", "metal"] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(message.starts_with(&format!("{wrong:?} is no device; expected \"auto\"")), "{message}");
        }
        for wrong in ["cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:70000"] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(message.starts_with(&format!("{wrong:?} names no GPU; expected \"cuda:N\"")), "{message}");
        }
    }

    #[test]
    fn what_is_missing_for_a_gpu_is_said() {
        let said = |text: &str| unusable(3, &format!("DriverError({text}, \"...\")"));
        assert!(said("CUDA_ERROR_STUB_LIBRARY").contains("driver"));
        assert!(said("CUDA_ERROR_NO_DEVICE").contains("no NVIDIA GPU"));
        assert_eq!(
            said("CUDA_ERROR_INVALID_DEVICE"),
            "device = \"cuda:3\": there is no GPU number 3; nvidia-smi -L lists them, and they are counted from 0, or use \
             device = \"cpu\""
        );
        assert!(said("CUDA_ERROR_OUT_OF_MEMORY").contains("no memory"));
        assert!(said("CUDA_ERROR_UNKNOWN").contains("cannot be used"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so_and_auto_takes_the_cpu() {
        let e = DeviceChoice::Cuda(1).open(1).unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Config);
        assert!(
            e.to_string().contains("\"cuda:1\": this build of dacpipe is without CUDA; build it with --features"),
            "{e}"
        );
        assert!(DeviceChoice::Auto.check().is_ok());
        assert!(format!("{:?}", DeviceChoice::Auto.open(1).unwrap()).starts_with("Cpu"));
    }

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
