//! Writes one run to a table, from its first file to its commit.

mod note;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;

use super::actions::{add_of, line, remove_of};
use super::attempt::{Attempt, data_dir, kept_dir};
use super::commit::{CommitNote, Mode, SourceInfo};
use super::drift::Measured;
use super::files::{FileSet, Labels, nothing_committed};
use super::keys::{ExistingKeys, OnExisting, RunKeys};
use super::lineage::Lineage;
use super::log::{DataFile, Log, Snapshot};
use super::metadata::Wanted;
use super::options::WriteOptions;
use super::provider::LabelTable;
use super::quarantine::{self, Marks};
use super::replace::Replaced;
use super::sink::TableSink;
use super::stream::StreamCommit;
use super::{clusters, schema, vacuum};
use crate::error::{Error, Result};
use crate::store::Location;

/// What a commit says beside its rows.
#[derive(Debug, Clone, Default)]
pub struct CommitInfo {
    /// Where the rows came from.
    pub source: SourceInfo,
    /// The clusters the rows were assigned to, one row each: `cluster`, `size` (its number of rows in this run),
    /// `centroid` and `mean_distance`; `None` if the pipeline makes no clusters.
    pub clusters: Option<RecordBatch>,
    /// Means and deviations of this run's features by cluster, of [`profile_schema`](super::profile_schema).
    pub profile: Option<RecordBatch>,
    /// A sample of this run's rows, of [`sample_schema`](super::sample_schema).
    pub sample: Option<RecordBatch>,
    /// What became of the clusters that the table had.
    pub lineage: Lineage,
    /// The rows that the run set aside, of [`BadRows::to_batch`](crate::source::BadRows::to_batch).
    pub quarantine: Option<RecordBatch>,
    /// Rows of the quarantine that the run replayed.
    pub replayed: Marks,
    /// The number of rows that the run left out, because the table has their keys.
    pub skipped_rows: u64,
    /// How far rows have drifted, as it was measured of them.
    pub drift: Vec<Measured>,
    /// How far the stream is with these rows, if a stream wrote them.
    pub stream: Option<StreamCommit>,
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version that the commit made.
    pub version: u64,
    /// The number of rows it added.
    pub rows: u64,
    /// The number of rows of earlier runs that it removed, because its rows have their keys.
    pub replaced_rows: u64,
    /// The number of files it added.
    pub files: usize,
    /// The number of bytes it added.
    pub bytes: u64,
    /// The partition columns in which added rows have empty text, and how many do: other readers of Delta tables take
    /// it for null, as the protocol says.
    pub empty_texts: Vec<(String, u64)>,
}

/// The partition columns in which rows of these files have empty text, and how many do.
fn empty_texts(files: &[DataFile]) -> Vec<(String, u64)> {
    let mut found = BTreeMap::<&String, u64>::new();
    for file in files {
        for (column, _) in file.partition.iter().filter(|(_, value)| value.as_deref() == Some("")) {
            *found.entry(column).or_default() += file.rows.unwrap_or(0);
        }
    }
    found.into_iter().map(|(column, rows)| (column.clone(), rows)).collect()
}

/// Writes one run to a table. Begin it before the long work whose result it writes, so that a table that cannot be
/// written is an error at once and not after an hour.
///
/// Several may write one table at the same time: all appends succeed, and an overwrite fails if there was another
/// commit meanwhile.
///
/// Dropped or [aborted](Self::abort) before [`commit`](Self::commit), it removes its files. If the process dies they
/// remain, unseen by readers, until the next writer of a local table removes them.
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
    /// The table after the commit, where that is known without reading it.
    known: Option<Known>,
    /// Whether the commit says something about the quarantine.
    sets_aside: bool,
}

/// A table as it is after an append, for the next one of the same process: [`TableWriter::begin_after`].
#[derive(Debug, Clone)]
pub struct Known(Snapshot);

impl TableWriter {
    /// Begins a run: removes the files that dead runs have left in a local table, and reads the table's newest version.
    ///
    /// # Errors
    /// Kind `Table` if the table's log is damaged or needs unsupported features, it is partitioned by other columns, or
    /// the run id was used before; `Config` for a run id that is not a file name, or a place that contains other things
    /// than a table; `Io` if the place cannot be written.
    pub async fn begin(location: &Location, options: WriteOptions) -> Result<Self> {
        let log = Log::new(location.clone());
        let attempt = Attempt::begin(&log, location, &options.run_id).await?;
        let base = log.snapshot(None).await?;
        if let Some(base) = &base {
            quarantine::catch_up(&log, base).await;
            let removes = options.mode == Mode::Overwrite || options.on_existing == OnExisting::Replace;
            log.check_writable(base, removes)?;
        }
        Self::on(location, log, options, base, attempt)
    }

    /// Begins another append of a process that has made the commit which `known` is of, without reading the log again: if
    /// another process has committed since, [`commit`](Self::commit) finds out. What it costs does not grow with the table's
    /// versions.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin).
    pub async fn begin_after(location: &Location, options: WriteOptions, known: &Known) -> Result<Self> {
        let log = Log::new(location.clone());
        let appends = options.mode == Mode::Append && options.on_existing != OnExisting::Replace;
        if !(appends && log.has(known.0.version).await?) {
            return Self::begin(location, options).await;
        }
        let attempt = Attempt::begin_after(location, &options.run_id, known.0.version).await?;
        let base = Some(known.0.clone());
        Self::on(location, log, options, base, attempt)
    }

    /// A writer of `attempt` on top of `base`.
    fn on(
        location: &Location,
        log: Log,
        options: WriteOptions,
        base: Option<Snapshot>,
        attempt: Attempt,
    ) -> Result<Self> {
        let location = location.clone();
        let writer = Self { location, log, options, base, attempt, sink: None, known: None, sets_aside: false };
        writer.check_partitioning()?;
        Ok(writer)
    }

    /// Checks that rows of schema `input` can be written: its names are free, it has the partition columns and the
    /// keys, and it fits the table if the run appends to one. Returns the table's schema.
    ///
    /// # Errors
    /// Kind `Config` or `Table`, naming the column and both types.
    pub fn check(&self, input: &Schema) -> Result<SchemaRef> {
        let new = schema::dividable(schema::table_schema(input)?.as_ref(), &self.options.partition_by);
        for name in &self.options.partition_by {
            let there = self.appends_to().and_then(|base| base.schema.field_with_name(name).ok());
            let field = match input.field_with_name(name) {
                Ok(field) => field,
                // A column of the table that the rows lack is null for them.
                Err(_) if there.is_some_and(|there| there.is_nullable()) => continue,
                Err(_) => {
                    let missing = crate::column::missing(input, name);
                    return Err(Error::config(format!("partition_by: {}", missing.message())));
                }
            };
            let data_type = new.field_with_name(name)?.data_type();
            if !(data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean | DataType::Date32)) {
                return Err(Error::config(format!(
                    "partition_by: column {name:?} is {}; expected text, integers, booleans or dates",
                    field.data_type()
                )));
            }
        }
        let table = match self.appends_to() {
            Some(base) => {
                schema::check_append(&base.schema, &new, input, &self.location.to_string())?;
                Arc::clone(&base.schema)
            }
            None => new,
        };
        for name in self.keys() {
            input
                .field_with_name(name)
                .map_err(|_| Error::config(format!("keys: {}", crate::column::missing(input, name).message())))?;
        }
        Ok(table)
    }

    /// The key columns: the table's own if it names some.
    pub fn keys(&self) -> &[String] {
        match self.appends_to() {
            Some(base) if !base.keys.is_empty() => &base.keys,
            _ => &self.options.keys,
        }
    }

    /// The keys that the table has from `model`: rows with one of them are left out of an append, or are an error.
    /// `None` if rows are always added or replaced. Reads the key columns of the table; about 32 bytes per row.
    ///
    /// # Errors
    /// As reading the table does.
    pub async fn existing(&self, model: &str) -> Result<Option<Arc<ExistingKeys>>> {
        let Some(base) = self.appends_to().filter(|base| !base.files.is_empty()) else { return Ok(None) };
        let refuse = match self.options.on_existing {
            OnExisting::Replace => return Ok(None),
            OnExisting::Skip => false,
            OnExisting::Error => true,
        };
        if self.keys().is_empty() {
            return Ok(None);
        }
        let table = Arc::new(LabelTable::of(&self.location, base.clone()));
        Ok(Some(Arc::new(ExistingKeys::read(table, self.keys(), Some(model), refuse).await?)))
    }

    /// The keys that the table has from any model. `None` if it has no key columns.
    ///
    /// # Errors
    /// As reading the table does.
    pub async fn existing_of_all(&self) -> Result<Option<Arc<ExistingKeys>>> {
        let Some(base) = self.appends_to().filter(|_| !self.keys().is_empty()) else { return Ok(None) };
        let table = Arc::new(LabelTable::of(&self.location, base.clone()));
        Ok(Some(Arc::new(ExistingKeys::read(table, self.keys(), None, false).await?)))
    }

    /// The version that the run began on.
    pub fn base(&self) -> Option<&Snapshot> {
        self.base.as_ref()
    }

    /// The sink for the run's rows: batches of schema `input`, labelled by one model. There is one per run.
    ///
    /// # Errors
    /// As [`check`](Self::check); kind `Internal` the second time.
    pub fn sink(&mut self, input: SchemaRef, labels: Labels) -> Result<Arc<TableSink>> {
        if self.sink.is_some() {
            return Err(Error::internal("a run writes its table through one sink"));
        }
        let table = self.check(&input)?;
        let keys = RunKeys::new(self.keys(), &table)?;
        let files = self.files(data_dir(&self.options.run_id), table, Some(labels.clone()))?;
        let sink = TableSink::new(&self.location, input, files, keys, &self.options.partition_by, labels);
        Ok(Arc::clone(self.sink.insert(Arc::new(sink))))
    }

    fn files(&self, dir: String, table: SchemaRef, labels: Option<Labels>) -> Result<FileSet> {
        FileSet::new(&self.location, dir, table, &self.options.partition_by, self.options.file_bytes, labels)
    }

    /// Rows that the table had when the run began.
    pub fn base_rows(&self) -> u64 {
        self.base.as_ref().map_or(0, Snapshot::rows)
    }

    /// The time of the newest of the table's files, by the clock of its writer.
    pub fn last_written(&self) -> Option<SystemTime> {
        let last = self.base.as_ref()?.files.iter().map(|file| file.added_at).max()?;
        Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(last).ok()?))
    }

    /// Rows that were written so far.
    pub async fn rows(&self) -> u64 {
        match &self.sink {
            Some(sink) => sink.rows().await,
            None => 0,
        }
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

    /// Commits the rows written as a new version of the table: readers see all of them from now on, or, if this fails,
    /// none.
    ///
    /// If another process committed meanwhile, an append goes on top of that, unless both have keys in common. An
    /// overwrite fails, since it would discard rows it has not seen, and so does an append that replaces rows, or one that
    /// gives ids to clusters while the other did so, too.
    ///
    /// After an overwrite the files of earlier versions stay for the table's retention, a week by default, for current
    /// readers and for time travel. If older ones cannot be deleted, that is a warning and not an error.
    ///
    /// # Errors
    /// Kind `Table` if an overwrite meets another commit or an append no longer fits, `Io` if writing fails, `Input` if
    /// the clusters are not as [`CommitInfo`] says. Nothing is committed then.
    pub async fn commit(self, info: CommitInfo) -> Result<Committed> {
        Ok(self.commit_and_know(info).await?.0)
    }

    /// [`commit`](Self::commit); also gives the table as it is then, if it is known.
    ///
    /// # Errors
    /// As of [`commit`](Self::commit).
    pub async fn commit_and_know(mut self, info: CommitInfo) -> Result<(Committed, Option<Known>)> {
        match self.try_commit(info).await {
            Ok(committed) => {
                self.attempt.committed().await;
                self.log.checkpoint(committed.version).await;
                self.publish().await;
                if self.options.mode == Mode::Overwrite && self.base.is_some() {
                    vacuum::after_overwrite(&self.log, &self.location).await;
                }
                Ok((committed, self.known.take()))
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

    /// Brings into the quarantine what the commit says.
    async fn publish(&self) {
        if !self.sets_aside {
            return;
        }
        match &self.known {
            Some(Known(table)) => quarantine::catch_up(&self.log, table).await,
            None => match self.log.snapshot(None).await {
                Ok(Some(table)) => quarantine::catch_up(&self.log, &table).await,
                Ok(None) => {}
                Err(e) => tracing::warn!("{}: {e}", self.location),
            },
        }
    }

    /// Aborts the run and removes its files.
    pub async fn abort(mut self) {
        self.remove().await;
    }

    async fn remove(&mut self) {
        if let Some(sink) = &self.sink {
            sink.abort().await;
        }
        self.attempt.abort().await;
    }

    async fn try_commit(&mut self, info: CommitInfo) -> Result<Committed, Failed> {
        let Some(sink) = self.sink.clone() else {
            return Err(Error::internal("a table would be committed that no sink was made for").into());
        };
        let (added, keys) = sink.finish().await?;
        let new = info.clusters.as_ref().map(|batch| clusters::normalize(batch, &sink.labels().model)).transpose()?;
        let replaced = self.replace(&keys, sink.table_schema()).await?;
        let mut info = info;
        self.sets_aside = info.quarantine.is_some() || !info.replayed.is_empty();
        loop {
            let rows = added.iter().filter_map(|file| file.rows).sum();
            let version = self.base.as_ref().map_or(0, |base| base.version + 1);
            let note = self.note(&info, sink.labels(), rows, new.as_ref(), replaced.as_ref(), version).await?;
            let mut actions = self.actions(&added, replaced.as_ref(), sink.table_schema())?;
            // It adds files and nothing else.
            let plain = replaced.is_none() && actions.iter().all(|action| action.get("add").is_some());
            if let (Some(_), Some(stream)) = (&info.stream, &note.stream) {
                actions.push(stream.action()?);
            }
            if self.put(version, actions, &note).await? {
                let bytes = added.iter().map(|file| file.bytes).sum();
                let replaced_rows = replaced.map_or(0, |replaced| replaced.rows());
                let (files, empty_texts) = (added.len(), empty_texts(&added));
                self.known = self.after(version, added, note, plain);
                return Ok(Committed { version, rows, replaced_rows, files, bytes, empty_texts });
            }
            self.rebase(version, sink.table_schema(), &keys, &sink.labels().model, &mut info).await?;
        }
    }

    /// Handles the rows whose keys this run wrote again, if it replaces them.
    async fn replace(&self, keys: &RunKeys, table: &SchemaRef) -> Result<Option<Replaced>> {
        match self.appends_to() {
            Some(base) if self.options.on_existing == OnExisting::Replace && keys.are_kept() => {
                // Each has its own directory, so that no two files have the same name.
                let files = |number: usize| self.files(kept_dir(&self.options.run_id, number), Arc::clone(table), None);
                Replaced::write(&self.location, base, keys, files).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The table after a commit that added files and nothing else (`plain`).
    fn after(&self, version: u64, added: Vec<DataFile>, note: CommitNote, plain: bool) -> Option<Known> {
        let mut table = self.appends_to().filter(|_| plain)?.clone();
        let last = table.files.iter().map(|file| file.added_at).max();
        let added_at = now_millis().max(last.map_or(0, |last| last + 1));
        table.files.extend(added.into_iter().map(|file| DataFile { added_at, ..file }));
        (table.version, table.note, table.noted_at) = (version, Some(note), Some(version));
        Some(Known(table))
    }

    /// The actions for the log.
    fn actions(&self, added: &[DataFile], replaced: Option<&Replaced>, table: &SchemaRef) -> Result<Vec<Value>> {
        let overwrites = self.options.mode == Mode::Overwrite;
        let wanted = Wanted { table, partition_by: &self.options.partition_by, keys: self.keys() };
        let mut actions = wanted
            .actions(self.base.as_ref(), overwrites, &self.location)?
            .iter()
            .map(line)
            .collect::<Result<Vec<Value>>>()?;
        let after = self.base.as_ref().and_then(|base| base.files.iter().map(|file| file.added_at).max());
        let now = now_millis().max(after.map_or(0, |after| after + 1));
        if let Some(base) = self.base.as_ref().filter(|_| self.options.mode == Mode::Overwrite) {
            actions.extend(base.files.iter().map(|file| remove_of(file, now, true)));
        }
        if let Some(replaced) = replaced {
            actions.extend(replaced.rewritten().iter().map(|file| remove_of(file, now, true)));
            // Rows that stay come before the new ones.
            let kept = replaced.kept().iter().map(|file| add_of(file, now - 1, true));
            actions.extend(kept.collect::<Result<Vec<_>>>()?);
        }
        let added = added.iter().map(|file| add_of(file, now, true));
        actions.extend(added.collect::<Result<Vec<_>>>()?);
        Ok(actions)
    }

    /// Writes the log entry; false if another process has made that version.
    async fn put(&self, version: u64, actions: Vec<Value>, note: &CommitNote) -> Result<bool, Failed> {
        let mode = match self.options.mode {
            Mode::Append => SaveMode::Append,
            Mode::Overwrite => SaveMode::Overwrite,
        };
        let partition_by = Some(self.options.partition_by.clone()).filter(|columns| !columns.is_empty());
        let operation = DeltaOperation::Write { mode, partition_by, predicate: None };
        match self.log.commit(version, actions, operation, note).await {
            Ok(ours) => Ok(ours),
            Err(e) if self.location.local_path().is_some() => Err(Failed::Nothing(nothing_committed(e))),
            Err(e) => Err(Failed::Unknown(
                e.while_doing(format!("it is not known whether version {version} of {} was committed", self.location)),
            )),
        }
    }

    /// Continues from the version of the other process, if this run's rows still fit.
    async fn rebase(
        &mut self,
        taken: u64,
        table: &SchemaRef,
        keys: &RunKeys,
        model: &str,
        info: &mut CommitInfo,
    ) -> Result<()> {
        let nothing = "nothing of this run is in the table; run again";
        let met = |what: &str| {
            Error::table(format!(
                "another process committed version {taken} of {} {what}while this one was writing; {nothing}",
                self.location
            ))
        };
        if self.options.mode == Mode::Overwrite || self.options.on_existing == OnExisting::Replace {
            return Err(met(""));
        }
        let before = self.base.take();
        let Some(now) = self.log.snapshot(None).await?.filter(|now| now.version >= taken) else {
            return Err(Error::table(format!("the log of {} has version {taken} and does not show it", self.location)));
        };
        self.log.check_writable(&now, false)?;
        let known: std::collections::BTreeSet<String> =
            before.iter().flat_map(|base| base.files.iter().map(|file| file.path.clone())).collect();
        let news: Vec<DataFile> = now.files.iter().filter(|file| !known.contains(&file.path)).cloned().collect();
        self.base = Some(now);
        self.check_partitioning()?;
        let Some(base) = &self.base else { return Ok(()) };
        if let Some(stream) = &info.stream {
            stream.check_follows(base.note.as_ref().and_then(|note| note.stream.as_ref()), &self.location)?;
        }
        let replays = |table: Option<&Snapshot>| table.and_then(|table| table.note.as_ref()?.last_replay.clone());
        if !info.replayed.is_empty() && replays(before.as_ref()) != replays(Some(base)) {
            return Err(met("that replayed rows which were set aside, "));
        }
        let gives_ids = matches!(&info.lineage, Lineage::Add(changes) if !changes.is_empty());
        if gives_ids && before.as_ref().and_then(Snapshot::lineage) != base.lineage() {
            if base.model() != Some(model) {
                return Err(met("with other clusters, whose ids this run has not seen, "));
            }
            // The same clusters, and what became of the earlier ones is told.
            info.lineage = Lineage::Add(Vec::new());
        }
        if base.schema != *table {
            schema::check_append(&base.schema, table, table, &self.location.to_string())?;
            return Err(met("with other columns "));
        }
        if keys.are_kept() && !news.is_empty() {
            let news = Arc::new(LabelTable::of(&self.location, Snapshot { files: news, ..base.clone() }));
            if let Some(key) = keys.met_in(news, model).await? {
                return Err(met(&format!("with the key {key}, which this run has as well, ")));
            }
        }
        Ok(())
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        if let Some(sink) = &self.sink {
            sink.refuse();
        }
    }
}

pub(super) fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

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
