//! Arithmetic on slices: no Arrow, no DataFusion, no I/O. The only place with `unsafe`.

pub mod pool;
pub mod rows;

pub use pool::Pool;
pub use rows::{Dense, Rows};
