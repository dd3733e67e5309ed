//! dacpipe learns clusters from streams: sensor recordings or feature vectors come in as Arrow record batches, every
//! row leaves with a cluster, its distance and its margin, in a table that SQL queries.
//!
//! # What flows, in which order
//!
//! ```text
//!  config    pipelines/hapt.toml, checked: a Plan, or every problem at once
//!    │
//!  source    hapt | csv | parquet: a TableProvider of windows, described by signal's features
//!    │
//!  replay    the rows of the first pass, in memory up to the limit and then on disk
//!    │
//!  scale ─► weights ─► manifold ─► train ─► (embed) ─► kmeans ─► (label)     stage: Fit learns, Transform applies
//!    │                                                               registry: what rebuilds a fitted stage
//!    │         or deep_clustering, by a paper's method                 method: the papers' methods as rows of blocks
//!    │                 device: where it is computed                  network, loss, kernel: the arithmetic
//!  identity  which of the new clusters is which of the table's: ids that last
//!    │
//!  model     the fitted stages, saved by the hash of their content
//!    │
//!  table     Parquet files and a Delta log: one commit, or nothing
//!    │
//!  sql       the table, dac_embed, dac_assign, cluster_profile, ari, nmi, accuracy, in any DataFusion session
//! ```
//!
//! [`pipeline`] drives all of it, [`report`] tells what happened and draws it, and [`cli`] is the command. Imports go one way,
//! from the bottom of this list to its top: `secret`; `error`; `event`, `memory`, `seed`, `terminal` and `unlinked`;
//! `kernel` and, for NVIDIA GPUs, `cuda`; `network`, `loss`, `signal`, `metrics`, `identity`; `device`; `kmeans`; the stages; `store`;
//! `model`, `table`, `source`, `replay`; `config` and `sql`; `pipeline`; `cli`. `tests/layering.rs` holds them to it.
//! [`kernel`] is a crate of its own, in `kernel/`, so there the compiler does; only it and `cuda` have `unsafe` code.
//!
//! Features in double precision, where a source has them so, become single by an [`origin`] that keeps their differences;
//! everything after it is in single precision, with sums in double.
//!
//! [`device`] is the seam for other machines than the CPU: the fused training of dense autoencoders, k-means and the label
//! pass know nothing else of where they run. Networks of any layers ([`network`]) learn on candle's tape, whatever the
//! objective, by the same loop ([`train`]).
//!
//! # A pipeline in a few lines
//!
//! ```
//! use dacpipe::config::PipelineFile;
//! use dacpipe::pipeline::{Pipeline, RunOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> dacpipe::Result<()> {
//! # let out = std::env::temp_dir().join(format!("dacpipe-doc-{}", std::process::id()));
//! # let sink = format!("sink.path={:?}", out.display().to_string());
//! // Any key of the file can be set from outside.
//! let sets = ["stage.autoencoder.epochs=2".to_string(), "stage.manifold.epochs=20".to_string(), sink];
//! let plan = PipelineFile::load("pipelines/hapt.toml", &sets)?.plan;
//! let report = Pipeline::new(plan)?.run(&RunOptions::default()).await?;
//!
//! assert_eq!(report.cluster_sizes.len(), 12);
//! assert_eq!(report.cluster_sizes.iter().sum::<u64>(), report.labelled_rows);
//! # std::fs::remove_dir_all(out)?;
//! # Ok(())
//! # }
//! ```
//!
//! New rows need the model alone: [`model::Model::load`], then [`model::Model::apply`] on any record batch.

#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod cli;
pub mod column;
pub mod config;
#[cfg(any(feature = "cuda", test))]
#[expect(unsafe_code, reason = "a kernel is launched with pointers into a GPU's memory")]
mod cuda;
pub mod deep_clustering;
pub mod device;
pub mod embed;
pub mod embed_network;
pub mod error;
pub mod event;
pub mod experts;
pub mod identity;
pub mod impute;
pub mod kmeans;
pub mod label;
pub mod loss;
pub mod manifold;
pub mod memory;
pub mod method;
pub mod metrics;
pub mod model;
pub mod network;
pub mod normalize;
pub mod origin;
pub mod pipeline;
pub mod reconstruct;
pub mod registry;
pub mod replay;
pub mod report;
pub mod scale;
pub mod secret;
pub mod seed;
pub mod signal;
pub mod simulate;
pub mod source;
pub mod sql;
pub mod stage;
pub mod store;
pub mod table;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod train;
mod unlinked;
pub mod vectors;
pub mod weights;

pub use dacpipe_kernel as kernel;
pub use error::{Error, Kind, Result};
pub use seed::Seed;

/// The Rust in the README is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// The Rust in the page on methods, too.
#[cfg(doctest)]
#[doc = include_str!("../docs/methods.md")]
mod methods {}
