//! The machine that tests run on.

use super::emulated::Emulated;
use super::machine::Machine;
use crate::terminal::tell;

/// The GPU whose number `DACPIPE_TEST_CUDA` says, in a build for it, and else the emulated machine; nothing without a C++
/// compiler, which is told.
pub(crate) fn tested() -> Option<Box<dyn Machine>> {
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = tested_device() {
        return Some(Box::new(super::Gpu::apart(&device).expect("the GPU that tests are asked to run on")));
    }
    match Emulated::new() {
        Ok(machine) => Some(Box::new(machine)),
        Err(why) => {
            tell(&format!("skipped: {why}"));
            None
        }
    }
}

/// The device for tests over candle's tensors: that GPU, or else candle's CPU.
pub(crate) fn tested_device() -> candle_core::Device {
    #[cfg(feature = "cuda")]
    if let Ok(number) = std::env::var("DACPIPE_TEST_CUDA") {
        static DEVICE: std::sync::OnceLock<candle_core::Device> = std::sync::OnceLock::new();
        let open = || super::open(number.parse().expect("the number of a GPU")).expect("that GPU");
        return DEVICE.get_or_init(open).clone();
    }
    candle_core::Device::Cpu
}
