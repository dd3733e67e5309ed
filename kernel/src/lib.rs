//! The arithmetic of dacpipe, on slices: no Arrow, no DataFusion, no I/O. The only place with `unsafe`.
//!
//! A crate of its own, so that a change elsewhere compiles none of it again. `dacpipe` has it as `dacpipe::kernel`.

#![deny(missing_docs)]

pub mod activation;
pub mod adam;
pub mod aligned;
pub mod batch_norm;
pub mod convolution;
pub mod cross_entropy;
pub mod dense;
pub mod distance;
pub mod error;
pub mod fold;
pub mod forces;
pub mod gemm;
pub mod heap;
pub mod isa;
pub mod matrix;
pub mod moments;
pub mod nearest;
pub mod normal;
pub mod pool;
pub mod pooling;
pub mod rows;
pub mod sgd;
pub mod sums;
pub mod symmetric;
#[cfg(test)]
mod testing;
mod transpose;

pub use error::{Error, Result};
pub use matrix::Matrix;
pub use pool::Pool;
pub use rows::{Dense, Rows};
