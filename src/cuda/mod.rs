//! Kernels of ours for NVIDIA GPUs, and the machines that run them.
//!
//! The kernels are CUDA C in `kernels/`, a file a family. They are compiled by NVRTC when a device first needs them and
//! kept on disk by the hash of their content ([`cache`]); nothing is compiled when this crate is built. What is computed
//! with them ([`ops`]) is said once, over a [`Machine`]: its memory, its launches, its products of matrices. There are two
//! machines. `Gpu` is an NVIDIA GPU, in a build with the feature `cuda`. `Emulated`, for tests, compiles the same kernels by
//! the C++ compiler of the processor and runs their threads one after the other, so that their arithmetic, their indices,
//! and the arguments that they are launched with are tested without a GPU.

mod cache;
#[cfg(feature = "cuda")]
mod compile;
#[cfg(test)]
mod emulated;
#[cfg(feature = "cuda")]
mod gpu;
mod kernels;
mod machine;
pub(crate) mod ops;
#[cfg(feature = "cuda")]
pub(crate) mod tensors;
#[cfg(test)]
mod tested;

#[cfg(feature = "cuda")]
pub(crate) use gpu::{Gpu, free_bytes, open};
pub(crate) use machine::{Buffer, Machine, Recorded, View};
#[cfg(test)]
pub(crate) use tested::{tested, tested_device};

#[cfg(test)]
mod tests;
