//! The labelled table: a [Delta table](https://github.com/delta-io/delta/blob/master/PROTOCOL.md) in a directory or an
//! object store, which Spark, DuckDB, Polars, pandas and Trino can read.
//!
//! ```text
//! out/hapt/_delta_log/00000000000000000000.json       what each version changed: one file a commit, never changed itself
//! out/hapt/data/<run id>/part-00000.parquet           the rows (below split=train/ ... where the table is partitioned)
//! out/hapt/_dacpipe/<run id>/clusters.parquet         the clusters of all rows of that version
//! out/hapt/_dacpipe/<run id>/profile.parquet          means and deviations of the features, by cluster
//! out/hapt/_dacpipe/<run id>/sample.parquet           rows drawn for a picture of them
//! out/hapt/_dacpipe/<run id>/lineage.parquet          what became of each cluster, from the first run on
//! out/hapt/_dacpipe/<run id>/stream.json.zst          how far a stream has followed its source
//! out/hapt/_dacpipe/<run id>/replayed.parquet         which rows that were set aside are replayed by that version
//! out/hapt/quarantine/                                what runs set aside, a Delta table of its own
//! ```
//!
//! delta-rs handles the log; the files are written and read here. A [`TableWriter`] first writes data files, which no
//! reader sees, and then, with one put-if-absent, the log entry that names them. So a reader ([`LabelTable`]) sees the
//! whole commit or none of it, whenever the writer dies, and several writers may append to one table at the same time.
//!
//! The commit names the files beside the rows, under `dacpipe` in its `commitInfo` ([`CommitNote`]), with the run, the
//! model's hash, and the source of the rows. Other engines keep this note but do not read it. Their own commits have
//! none, and a version has the note of the last commit that has one. Do not use the commands of other engines that
//! remove files which a log does not name (Spark's `VACUUM`, `vacuum(full=True)` of delta-rs): they would delete
//! `models/`, `quarantine/` and `report/`. [`vacuum()`] removes only what is old.
//!
//! The log has checksums of the data files and of the files beside them, which every read checks: bytes that changed on
//! the disk are an error that names the file, and never wrong values.
//!
//! The same rows in the same order give the same data files, however they were cut into batches, except for the run id
//! (in paths) and the column `labelled_at`.
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

mod actions;
mod attempt;
mod beside;
mod checked;
mod checksum;
mod clusters;
mod commit;
mod damage;
mod entry;
mod files;
mod keys;
mod lineage;
mod log;
mod metadata;
mod options;
mod profile;
mod provider;
mod quarantine;
mod replace;
mod sample;
mod scan;
mod schema;
mod sink;
mod stats;
mod stream;
mod upkeep;
mod vacuum;
mod writer;

pub(crate) use attempt::{DATA, QUARANTINE};
pub use checksum::Checksums;
pub use clusters::clusters_schema;
pub use commit::{CommitNote, FileBeside, Mode, SourceInfo};
pub use entry::Commit;
pub use files::Labels;
pub use keys::{ExistingKeys, OnExisting};
pub use lineage::{History, Lineage, lineage_schema};
pub use log::{DataFile, Log, Snapshot};
pub use options::WriteOptions;
pub use profile::{FeatureProfile, ProfileBuilder, compare, profile_schema};
pub use provider::LabelTable;
pub use quarantine::{Marks, Quarantine, REPLAYED, quarantine_schema, set_aside};
pub use sample::{SampleBuilder, SampledRow, SampledRows, sample_schema, sampled_rows};
pub use schema::{LABELLED_AT, MODEL};
pub use sink::TableSink;
pub use stats::ColumnRange;
pub use stream::{StreamCommit, StreamNote};
pub use upkeep::{Optimized, TARGET_BYTES, history, optimize, restore, version_as_of};
pub use vacuum::{RETENTION, Vacuumed, vacuum};
pub use writer::{CommitInfo, Committed, Known, TableWriter};
