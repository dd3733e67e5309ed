//! From recordings to features: windows, causal filters, spectra, statistics.

pub mod window;
