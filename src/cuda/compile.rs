//! Compiling kernels by NVRTC.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::nvrtc::{self, CompileError, CompileOptions, sys};

use super::cache::Cache;
use super::kernels::Family;
use crate::error::{Error, Result};

/// The kernels of a family in PTX, for GPUs of this compute capability (`(9, 0)`) and later ones: as they were kept, or
/// compiled.
///
/// # Errors
/// Kind `Compute` with NVRTC's log.
pub(super) fn ptx(family: Family, (major, minor): (i32, i32)) -> Result<String> {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let (text, arch) = (family.text(), format!("--gpu-architecture=compute_{major}{minor}"));
    let version = version();
    CACHE.get_or_init(Cache::of_user).get_or(&[&text, &arch, &version], || {
        let options = CompileOptions {
            options: vec![arch.clone()],
            name: Some(format!("{}.cu", family.name())),
            ..CompileOptions::default()
        };
        let compiled = nvrtc::compile_ptx_with_opts(&text, options);
        compiled.map(|ptx| ptx.to_src()).map_err(|e| refused(family, &e))
    })
}

/// NVRTC's version.
fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two places for the numbers.
    let known = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    format!("NVRTC {major}.{minor} {known:?}")
}

fn refused(family: Family, e: &CompileError) -> Error {
    let why = match e {
        CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
        other => other.to_string(),
    };
    Error::compute(format!("NVRTC could not compile the {} kernels: {why}", family.name()))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Kernel;
    use super::*;

    /// A build with the feature is linked with NVRTC, which compiles without a GPU and a driver.
    #[test]
    fn all_kernels_compile_for_every_architecture() {
        // From Turing on; CUDA 13 knows none before.
        for capability in [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)] {
            for family in Family::ALL {
                let ptx = ptx(family, capability).unwrap_or_else(|e| panic!("{capability:?}: {e}"));
                for kernel in Kernel::ALL.iter().filter(|kernel| kernel.family == family) {
                    assert!(ptx.contains(&format!(".entry {}(", kernel.name)), "{} of {capability:?}", kernel.name);
                }
            }
        }
    }
}
