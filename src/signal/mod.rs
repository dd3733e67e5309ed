//! From recordings to features: windows, causal filters, spectra, statistics.
//!
//! Everything here works on plain slices of `f64` and knows no Arrow. [`features::FeatureExtractor`] is the way in:
//! it is built once for a feature set and a list of channels, prepares each whole recording (filters look back only,
//! so a recording can also be streamed), and then turns one window at a time into `f32` features.
//!
//! Signals that belong together (three axes and their magnitude) lie side by side as `[f64; L]` rows, one row a
//! sample. A loop over the rows then runs `L` independent sums at once, which is both what vector units want and
//! independent of how they are used: the order of additions within a lane never changes.

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
