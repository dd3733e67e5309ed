//! Everything that uses DataFusion's planner: labelled tables, models as functions, clustering metrics as aggregates,
//! and the operator that applies stages.
//!
//! [`register()`] puts all of it into a session in one call:
//!
//! | in SQL | what it is |
//! |---|---|
//! | `hapt` | the labelled table registered under that name |
//! | `hapt_clusters` | its clusters, where it has some: size, centroid, mean distance |
//! | `hapt_lineage` | what became of its clusters: born, moved, split, merged, died |
//! | `hapt_quarantine` | the rows that its runs set aside, where there are any: file, line, reason, text, run |
//! | `dac_embed(model, features)` | the vectors that a model clusters: a list of `FLOAT` |
//! | `dac_assign(model, features)` | `STRUCT(cluster INT, distance FLOAT, margin FLOAT)` |
//! | `dac_reconstruct(model, features)` | the features as its autoencoder reconstructs them: a list of `FLOAT` |
//! | `dac_reconstruction_error(model, features)` | the mean squared difference between both, scaled: `FLOAT` |
//! | `cluster_profile('hapt')` | a table: the features of each cluster, those first whose mean differs most from that of all rows |
//! | `ari(a, b)`, `nmi(a, b)`, `clustering_accuracy(a, b)` | how far two labellings agree |
//!
//! `model` is the hash of a model's content (all of it, or enough digits to be unique among the models of the
//! registered tables), or the path or URI of its directory.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use datafusion::arrow::{array::AsArray, datatypes::Float64Type};
//! use datafusion::prelude::SessionContext;
//!
//! let ctx = SessionContext::new_with_config(dacpipe::sql::session_config());
//! dacpipe::sql::register(&ctx, dacpipe::sql::Options::default()).await?;
//! let pairs = "(VALUES (0, 'sit'), (0, 'sit'), (1, 'walk'), (1, 'sit'), (NULL, 'walk')) AS t(cluster, activity)";
//! let batches = ctx.sql(&format!("SELECT clustering_accuracy(cluster, activity) FROM {pairs}")).await?.collect().await?;
//! assert_eq!(batches[0].column(0).as_primitive::<Float64Type>().value(0), 0.75);
//! # Ok(())
//! # }
//! ```

mod assign;
mod embed;
mod features;
mod lists;
mod metrics;
mod models;
mod profile;
mod quarantine;
mod reconstruct;
mod register;
mod stage_exec;
mod versions;

pub use assign::DacAssign;
pub(crate) use assign::NAME as ASSIGN;
pub use embed::DacEmbed;
pub use metrics::{ClusteringMetric, Metric};
pub use models::Models;
pub use profile::ClusterProfile;
pub use reconstruct::{DacReconstruct, DacReconstructionError};
pub use register::{At, MODELS, Options, QUARANTINE, Registered, Registration, register, session_config};
pub use stage_exec::StageExec;
pub use versions::TableAt;
