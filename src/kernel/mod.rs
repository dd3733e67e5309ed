//! Arithmetic on slices: no Arrow, no DataFusion, no I/O. The only place with `unsafe`.

pub mod aligned;
pub mod gemm;
pub mod isa;
pub mod pool;
pub mod rows;
mod transpose;

pub use pool::Pool;
pub use rows::{Dense, Rows};
