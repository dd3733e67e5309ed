//! Arithmetic on slices: no Arrow, no DataFusion, no I/O. The only place with `unsafe`.

pub mod distance;
pub mod fold;
pub(crate) mod lanes;
pub mod moments;
pub mod pool;
pub mod rows;
pub mod sums;

pub use pool::Pool;
pub use rows::{Dense, Rows};
