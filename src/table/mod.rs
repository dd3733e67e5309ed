//! The labelled table: Parquet files and a log of commits, in a directory or an object store.
//!
//! ```text
//! out/hapt/_log/00000000000000000000.json    what each version added: one file a commit, never changed
//! out/hapt/data/<run id>/part-00000.parquet  the rows (below split=train/ ... where the table is partitioned)
//! out/hapt/clusters/<run id>.parquet         the clusters of all rows of that version
//! out/hapt/profile/<run id>.parquet          means and deviations of the features, by cluster
//! out/hapt/sample/<run id>.parquet           rows drawn for a picture of them
//! ```
//!
//! A [`TableWriter`] writes data files that nobody knows of and then, in one put-if-absent, the log entry that names
//! them. So a reader ([`LabelTable`]) sees the whole commit or none of it, whenever the writer dies. Data files are
//! plain Parquet: other readers may read a version's files as they are, since partition columns are in them too.
//!
//! Which files those are, the log alone says. `data/**/*.parquet` is more: the rows of the version before, which an
//! overwrite keeps for readers that are under way, and those of runs that have not committed yet or died. Take the
//! paths under `added` of the entries from the newest one's `since` to the newest:
//!
//! ```sh
//! cd out/hapt
//! since=$(ls _log/*.json | tail -n 1 | xargs jq .since)
//! ls _log/*.json | tail -n +$((since + 1)) | xargs jq -r '.added[].path'
//! ```
//!
//! The same rows in the same order give the same data files, whatever the batches they came in, except for the run id
//! (in paths) and the column `labelled_at`; a log entry differs in `committed_at` besides.
//!
//! ```
//! # use std::sync::Arc;
//! # use arrow::array::{Float32Array, Int32Array, RecordBatch};
//! # use dacpipe::table::{CommitInfo, LabelTable, Labels, Mode, TableWriter, WriteOptions};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = dacpipe::store::Location::parse("memory:///example")?;
//! let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "run-1")).await?;
//! let batch = RecordBatch::try_from_iter([
//!     ("cluster", Arc::new(Int32Array::from(vec![0, 1, 0])) as _),
//!     ("distance", Arc::new(Float32Array::from(vec![0.5, 0.25, 1.0])) as _),
//! ])?;
//! let labels = Labels { model: "3f1c".into(), labelled_at: std::time::SystemTime::now() };
//! writer.sink(batch.schema(), labels)?.write(&batch).await?;
//! assert!(LabelTable::open_at(&place, None).await.is_err()); // nothing is seen yet
//! let committed = writer.commit(CommitInfo::default()).await?;
//! assert_eq!((committed.version, committed.rows), (0, 3));
//!
//! let session = datafusion::prelude::SessionContext::new();
//! session.register_table("t", Arc::new(LabelTable::open_at(&place, None).await?))?;
//! let rows = session.sql("SELECT cluster FROM t WHERE distance < 0.75").await?.count().await?;
//! assert_eq!(rows, 2);
//! # Ok(())
//! # }
//! ```

mod attempt;
mod beside;
mod clusters;
mod log;
mod profile;
mod provider;
mod sample;
mod schema;
mod sink;
mod stats;
mod vacuum;
mod writer;

pub use clusters::clusters_schema;
pub use log::{ColumnRange, DataFile, Entry, FORMAT, Log, Mode, Snapshot, SourceInfo};
pub use profile::{FeatureProfile, ProfileBuilder, compare, profile_schema};
pub use provider::LabelTable;
pub use sample::{SampleBuilder, SampledRow, SampledRows, sample_schema, sampled_rows};
pub use schema::{ColumnType, LABELLED_AT, MODEL};
pub use sink::{Labels, TableSink};
pub use writer::{CommitInfo, Committed, TableWriter, WriteOptions};
