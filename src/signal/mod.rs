//! From recordings to features: windows, causal filters, spectra, statistics.
//!
//! Everything here works on plain slices of `f64` and knows no Arrow. The entry point is
//! [`features::FeatureExtractor`]: it is built once for a feature set and a list of channels, filters each whole
//! recording, and then turns one window at a time into `f32` features.
//!
//! Signals that belong together (three axes and their magnitude) are stored side by side as `[f64; L]` rows, one row
//! per sample. A loop over the rows then computes `L` independent sums at once, which suits SIMD units, and the order
//! of additions within a lane is always the same.

pub mod autoregression;
pub mod entropy;
pub mod features;
pub mod filter;
pub mod hapt561;
pub mod quartiles;
pub mod spectrum;
pub mod statistics;
pub mod summary;
pub mod window;
