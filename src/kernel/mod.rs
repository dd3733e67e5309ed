//! Arithmetic on slices: no Arrow, no DataFusion, no I/O. The only place with `unsafe`.

pub mod activation;
pub mod adam;
pub mod aligned;
pub mod batch_norm;
pub mod convolution;
pub mod dense;
pub mod distance;
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
mod transpose;

pub use matrix::Matrix;
pub use pool::Pool;
pub use rows::{Dense, Rows};
