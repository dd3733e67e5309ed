//! From the first file of a run to its commit.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::attempt::{Attempt, clusters_file, profile_file, sample_file};
use super::log::{DataFile, Entry, FORMAT, Log, Mode, Snapshot, SourceInfo, rfc3339};
use super::sink::{Labels, TableSink, nothing_committed};
use super::{beside, clusters, profile, sample, schema, vacuum};
use crate::error::{Error, Result};
use crate::store::Location;

/// How a run writes a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether its rows are added to those there or replace them.
    pub mode: Mode,
    /// Columns by whose values the files are divided, so that a query for one value reads only its files. They stay in
    /// the files too.
    pub partition_by: Vec<String>,
    /// The run's name, for ever unique for the table: letters, digits, `-`, `_` and `.`.
    pub run_id: String,
    /// The size beyond which another file is begun (256 MiB).
    pub file_bytes: u64,
}

impl WriteOptions {
    /// Run `run_id` appends to, or overwrites, the table.
    pub fn new(mode: Mode, run_id: impl Into<String>) -> Self {
        Self { mode, partition_by: Vec::new(), run_id: run_id.into(), file_bytes: 256 << 20 }
    }

    /// The same, with files divided by the values of these columns.
    pub fn partition_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }
}

/// What a commit says beside its rows.
#[derive(Debug, Clone, Default)]
pub struct CommitInfo {
    /// Where the rows came from.
    pub source: SourceInfo,
    /// The clusters the rows were assigned to, one row each: `cluster`, `size` (the rows of this run that it got),
    /// `centroid` and `mean_distance`; none where the pipeline makes no clusters.
    pub clusters: Option<RecordBatch>,
    /// Means and deviations of this run's features by cluster, of [`profile_schema`](super::profile_schema).
    pub profile: Option<RecordBatch>,
    /// Rows drawn from this run's, of [`sample_schema`](super::sample_schema).
    pub sample: Option<RecordBatch>,
}

/// What was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The version that the commit made.
    pub version: u64,
    /// Rows it added.
    pub rows: u64,
    /// Files it added.
    pub files: usize,
    /// Bytes it added.
    pub bytes: u64,
}

/// Writes one run to a table. Begin it before the work whose result it takes, so that a table that another process is
/// writing, or that does not fit, is an error now and not after an hour.
///
/// Dropped or [aborted](Self::abort) before [`commit`](Self::commit) it removes its files; if the process dies they are
/// left over, seen by nobody, and the next writer of a local table removes them.
///
/// See the [module](super) for an example.
#[derive(Debug)]
pub struct TableWriter {
    location: Location,
    log: Log,
    options: WriteOptions,
    base: Option<Snapshot>,
    attempt: Attempt,
    sink: Option<Arc<TableSink>>,
}

impl TableWriter {
    /// Begins a run: takes the lock of a local table until the writer is gone, and reads the table as it is.
    ///
    /// # Errors
    /// Kind `Table` if another process is writing a local table, its log is damaged, it is divided by other columns, or
    /// the run id was used before; `Config` for a run id that is no file name; `Io` if the place cannot be written.
    pub async fn begin(location: &Location, options: WriteOptions) -> Result<Self> {
        let log = Log::new(location.clone());
        let attempt = Attempt::begin(&log, location, &options.run_id).await?;
        let base = log.snapshot(None).await?;
        let writer = Self { location: location.clone(), log, options, base, attempt, sink: None };
        writer.check_partitioning()?;
        Ok(writer)
    }

    /// That rows of schema `input` can be written: its names are free, it has the partition columns, and it fits the
    /// table if the run appends to one. Gives the table's schema.
    ///
    /// # Errors
    /// Kind `Config` or `Table`, naming the column and both types.
    pub fn check(&self, input: &Schema) -> Result<SchemaRef> {
        let new = schema::table_schema(input)?;
        for name in &self.options.partition_by {
            let field = input.field_with_name(name).map_err(|_| {
                Error::config(format!("partition_by: {}", crate::column::missing(input, name).message()))
            })?;
            let data_type = new.field_with_name(name)?.data_type();
            if !(data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean | DataType::Date32)) {
                return Err(Error::config(format!(
                    "partition_by: column {name:?} is {}; expected text, integers, booleans or dates",
                    field.data_type()
                )));
            }
        }
        match self.appends_to() {
            Some(base) => {
                schema::check_append(&base.schema, &new, &self.location.to_string())?;
                Ok(Arc::clone(&base.schema))
            }
            None => Ok(new),
        }
    }

    /// Where the run's rows go: batches of schema `input`, labelled by one model. Once a run.
    ///
    /// # Errors
    /// As [`check`](Self::check); kind `Internal` the second time.
    pub fn sink(&mut self, input: SchemaRef, labels: Labels) -> Result<Arc<TableSink>> {
        if self.sink.is_some() {
            return Err(Error::internal("a run writes its table through one sink"));
        }
        let table = self.check(&input)?;
        let WriteOptions { run_id, partition_by, file_bytes, .. } = &self.options;
        let sink = TableSink::new(&self.location, run_id, input, table, partition_by, *file_bytes, labels)?;
        Ok(Arc::clone(self.sink.insert(Arc::new(sink))))
    }

    fn appends_to(&self) -> Option<&Snapshot> {
        self.base.as_ref().filter(|_| self.options.mode == Mode::Append)
    }

    fn check_partitioning(&self) -> Result<()> {
        match self.appends_to() {
            Some(base) if base.partition_by != self.options.partition_by => Err(Error::table(format!(
                "cannot append to {}: its files are divided by {:?}, this run's by {:?}; \
                 use the same columns, or overwrite the table",
                self.location, base.partition_by, self.options.partition_by
            ))),
            _ => Ok(()),
        }
    }

    /// Makes the rows written a version of the table: all of them are seen from now on, or, if this fails, none.
    ///
    /// If another process commits meanwhile (possible in object stores only), an append goes on top of it, and an
    /// overwrite fails, since it would throw away rows it does not know.
    ///
    /// After an overwrite the files of the version before stay, for readers that are under way, and those of the
    /// versions that it had replaced itself are removed. That they cannot be is a warning in the log, no error.
    ///
    /// # Errors
    /// Kind `Table` if an overwrite meets another commit or an append no longer fits, `Io` if writing fails, `Input` if
    /// the clusters are not as [`CommitInfo`] says. Nothing is committed then.
    pub async fn commit(mut self, info: CommitInfo) -> Result<Committed> {
        match self.try_commit(info).await {
            Ok((committed, entry)) => {
                self.attempt.committed().await;
                self.remove_replaced(&entry).await;
                Ok(committed)
            }
            Err(Failed::Nothing(e)) => {
                self.remove().await;
                Err(e)
            }
            Err(Failed::Unknown(e)) => {
                self.attempt.leave();
                Err(e)
            }
        }
    }

    /// Gives the run up and removes its files.
    pub async fn abort(mut self) {
        self.remove().await;
    }

    async fn remove(&mut self) {
        if let Some(sink) = &self.sink {
            sink.abort().await;
        }
        self.attempt.abort().await;
    }

    /// After the commit of an overwrite: removes what nobody should be reading any more. The lock is still held.
    async fn remove_replaced(&self, now: &Entry) {
        let Some(before) = self.base.as_ref().filter(|_| now.operation == Mode::Overwrite) else { return };
        if let Err(e) = vacuum::remove_replaced(&self.log, &self.location, before, now).await {
            tracing::warn!("files of replaced versions of {} stay behind: {e}", self.location);
        }
    }

    async fn try_commit(&mut self, info: CommitInfo) -> Result<(Committed, Entry), Failed> {
        let Some(sink) = self.sink.clone() else {
            return Err(Error::internal("a table would be committed that no sink was made for").into());
        };
        let added = sink.finish().await?;
        let model = sink.labels().model.clone();
        let new = info.clusters.map(|batch| clusters::normalize(&batch, &model)).transpose()?;
        loop {
            let (run, base) = (&self.options.run_id, self.appends_to());
            let there = |of: fn(&Snapshot) -> &Option<DataFile>| base.and_then(|base| of(base).as_ref());
            let clusters = (clusters_file(run), there(|base| &base.clusters), clusters::merge as Merge);
            let profile = (profile_file(run), there(|base| &base.profile), profile::merge as Merge);
            let sample = (sample_file(run), there(|base| &base.sample), sample::merge as Merge);
            let clusters = self.write_beside(clusters, new.as_ref()).await?;
            let profile = self.write_beside(profile, info.profile.as_ref()).await?;
            let sample = self.write_beside(sample, info.sample.as_ref()).await?;
            let version = self.base.as_ref().map_or(0, |base| base.version + 1);
            let entry = Entry {
                format: FORMAT,
                version,
                operation: self.options.mode,
                since: match self.options.mode {
                    Mode::Append => self.base.as_ref().map_or(0, |base| base.since),
                    Mode::Overwrite => version,
                },
                run_id: self.options.run_id.clone(),
                model: model.clone(),
                schema: schema::to_columns(sink.table_schema()),
                partition_by: self.options.partition_by.clone(),
                added: added.clone(),
                clusters,
                profile,
                sample,
                source: info.source.clone(),
                committed_at: rfc3339(SystemTime::now())?,
            };
            if self.put(&entry).await? {
                let (rows, bytes) = added.iter().fold((0, 0), |(r, b), f| (r + f.rows, b + f.bytes));
                return Ok((Committed { version, rows, files: added.len(), bytes }, entry));
            }
            self.rebase(version, sink.table_schema()).await?;
        }
    }

    /// Puts the entry; false if another process has made that version.
    async fn put(&self, entry: &Entry) -> Result<bool, Failed> {
        let written = self.log.try_commit(entry).await;
        if let Ok(true) = written {
            return Ok(true);
        }
        // A request that was repeated after its answer was lost finds its own entry there.
        let there = self.log.read(entry.version).await;
        match (written, there) {
            (_, Ok(Some(there))) if there.run_id == entry.run_id => Ok(true),
            (Ok(_), _) => Ok(false),
            (Err(e), _) if self.location.local_path().is_some() => Err(Failed::Nothing(nothing_committed(e))),
            (Err(e), _) => Err(Failed::Unknown(e.while_doing(format!(
                "it is not known whether version {} of {} was committed",
                entry.version, self.location
            )))),
        }
    }

    /// Takes the table as the other process left it, if this run's rows still fit.
    async fn rebase(&mut self, taken: u64, table: &SchemaRef) -> Result<()> {
        if self.options.mode == Mode::Overwrite {
            return Err(Error::table(format!(
                "another process committed version {taken} of {} while this one was writing; \
                 nothing of this run is in the table; run again",
                self.location
            )));
        }
        self.base = self.log.snapshot(None).await?;
        self.check_partitioning()?;
        if let Some(base) = &self.base
            && base.schema != *table
        {
            schema::check_append(&base.schema, table, &self.location.to_string())?;
            return Err(Error::table(format!(
                "another process committed version {taken} of {} with other columns while this one was writing; \
                 nothing of this run is in the table; run again",
                self.location
            )));
        }
        Ok(())
    }

    /// Writes as the file `path` what the table has beside its rows with this run's in it: what it had (`there`) merged
    /// with `new`, or `new` alone. Without `new` it has what it had.
    async fn write_beside(
        &self,
        (path, there, merge): (String, Option<&DataFile>, Merge),
        new: Option<&RecordBatch>,
    ) -> Result<Option<DataFile>> {
        let Some(new) = new else { return Ok(there.cloned()) };
        let merged = match there {
            Some(file) => merge(&beside::read(&self.location, file, new.schema_ref()).await?, new)?,
            None => new.clone(),
        };
        beside::write(&self.location, path, &merged).await.map(Some).map_err(nothing_committed)
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        if let Some(sink) = &self.sink {
            sink.refuse();
        }
    }
}

/// Puts together what two commits say of their rows.
type Merge = fn(&RecordBatch, &RecordBatch) -> Result<RecordBatch>;

/// Why a commit failed, and so what may become of its files.
enum Failed {
    /// It is not in the table.
    Nothing(Error),
    /// It may be in the table.
    Unknown(Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Nothing(e)
    }
}
