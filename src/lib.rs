//! dacpipe: a streaming pipeline operator that learns clusters.

pub mod column;
pub mod config;
pub mod device;
pub mod embed;
pub mod error;
pub mod event;
pub mod kernel;
pub mod kmeans;
pub mod label;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod network;
pub mod pipeline;
pub mod replay;
pub mod report;
pub mod scale;
pub mod seed;
pub mod signal;
pub mod simulate;
pub mod source;
pub mod sql;
pub mod stage;
pub mod store;
pub mod table;
pub mod train;
pub mod weights;

pub use error::{Error, Kind, Result};
pub use seed::Seed;
