//! From the first file of a run to its commit.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;

use super::actions::{add_of, line, remove_of};
use super::attempt::{Attempt, clusters_file, data_dir, kept_dir, profile_file, sample_file};
use super::commit::{CommitNote, FileBeside, Mode, SourceInfo};
use super::files::{FileSet, Labels, nothing_committed};
use super::keys::{ExistingKeys, OnExisting, RunKeys};
use super::log::{DataFile, Log, Snapshot};
use super::metadata::Wanted;
use super::provider::LabelTable;
use super::replace::Replaced;
use super::sink::TableSink;
use super::{beside, clusters, profile, sample, schema, vacuum};
use crate::error::{Error, Result};
use crate::store::Location;

/// How a run writes a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether its rows are added to those there or replace them.
    pub mode: Mode,
    /// Columns by whose values the files are divided, so that a query for one value reads only its files. Null, empty text
    /// and every other text are told apart here; other engines take empty text for null, as Delta's protocol has it.
    pub partition_by: Vec<String>,
    /// Columns by which rows are told apart. An append to a table that names its own takes those.
    pub keys: Vec<String>,
    /// What an append does with rows whose keys are there. Without keys, rows are added whatever is there.
    pub on_existing: OnExisting,
    /// The run's name, for ever unique for the table: letters, digits, `-`, `_` and `.`.
    pub run_id: String,
    /// The size beyond which another file is begun (256 MiB).
    pub file_bytes: u64,
}

impl WriteOptions {
    /// Run `run_id` appends to, or overwrites, the table.
    pub fn new(mode: Mode, run_id: impl Into<String>) -> Self {
        Self {
            mode,
            partition_by: Vec::new(),
            keys: Vec::new(),
            on_existing: OnExisting::default(),
            run_id: run_id.into(),
            file_bytes: 256 << 20,
        }
    }

    /// The same, with files divided by the values of these columns.
    pub fn partition_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same, with rows told apart by these columns.
    pub fn keys(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.keys = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same, doing this with rows whose keys are there.
    pub fn on_existing(mut self, on_existing: OnExisting) -> Self {
        self.on_existing = on_existing;
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
    /// The file below the table that holds the rows that the run set aside.
    pub quarantine: Option<String>,
    /// Rows that the run left out, as the table has their keys.
    pub skipped_rows: u64,
}

/// What was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The version that the commit made.
    pub version: u64,
    /// Rows it added.
    pub rows: u64,
    /// Rows of earlier runs that it took out of the table, as its rows have their keys.
    pub replaced_rows: u64,
    /// Files it added.
    pub files: usize,
    /// Bytes it added.
    pub bytes: u64,
}

/// Writes one run to a table. Begin it before the work whose result it takes, so that a table that cannot be written, or
/// that the rows do not fit, is an error now and not after an hour.
///
/// Several may write one table at the same time: all appends land, and an overwrite that met another commit fails.
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
    /// Begins a run: removes what runs that died have left in a local table, and reads the table as it is.
    ///
    /// # Errors
    /// Kind `Table` if the table's log is damaged or asks of writers what this one does not do, it is divided by other
    /// columns, or the run id was used before; `Config` for a run id that is no file name and a place that holds other
    /// things than a table; `Io` if the place cannot be written.
    pub async fn begin(location: &Location, options: WriteOptions) -> Result<Self> {
        let log = Log::new(location.clone());
        let attempt = Attempt::begin(&log, location, &options.run_id).await?;
        let base = log.snapshot(None).await?;
        if let Some(base) = &base {
            let removes = options.mode == Mode::Overwrite || options.on_existing == OnExisting::Replace;
            log.check_writable(base, removes)?;
        }
        let writer = Self { location: location.clone(), log, options, base, attempt, sink: None };
        writer.check_partitioning()?;
        Ok(writer)
    }

    /// That rows of schema `input` can be written: its names are free, it has the partition columns and the keys, and it
    /// fits the table if the run appends to one. Gives the table's schema.
    ///
    /// # Errors
    /// Kind `Config` or `Table`, naming the column and both types.
    pub fn check(&self, input: &Schema) -> Result<SchemaRef> {
        let new = schema::dividable(schema::table_schema(input)?.as_ref(), &self.options.partition_by);
        for name in &self.options.partition_by {
            let there = self.appends_to().and_then(|base| base.schema.field_with_name(name).ok());
            let field = match input.field_with_name(name) {
                Ok(field) => field,
                // As any column of the table that the rows lack, it is null for them.
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

    /// The columns by which the rows are told apart: the table's own where it names some.
    pub fn keys(&self) -> &[String] {
        match self.appends_to() {
            Some(base) if !base.keys.is_empty() => &base.keys,
            _ => &self.options.keys,
        }
    }

    /// The keys of rows that an append is to leave out, or to fail at: those that the table has from `model`. None where
    /// rows are added or replaced whatever is there. Reads the key columns of the table; about 32 bytes a row.
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
        Ok(Some(Arc::new(ExistingKeys::read(table, self.keys(), model, refuse).await?)))
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
        let keys = RunKeys::new(self.keys(), &table)?;
        let files = self.files(data_dir(&self.options.run_id), table, Some(labels.clone()))?;
        let sink = TableSink::new(&self.location, input, files, keys, &self.options.partition_by, labels);
        Ok(Arc::clone(self.sink.insert(Arc::new(sink))))
    }

    fn files(&self, dir: String, table: SchemaRef, labels: Option<Labels>) -> Result<FileSet> {
        FileSet::new(&self.location, dir, table, &self.options.partition_by, self.options.file_bytes, labels)
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
    /// If another process commits meanwhile, an append goes on top of it, unless it has keys in common with this one. An
    /// overwrite fails, since it would throw away rows it does not know, and so does an append that replaces rows.
    ///
    /// After an overwrite the files of the versions before stay for the table's retention, a week if it says nothing
    /// else, for readers that are under way and for time travel. That older ones cannot be removed is a warning in the
    /// log, no error.
    ///
    /// # Errors
    /// Kind `Table` if an overwrite meets another commit or an append no longer fits, `Io` if writing fails, `Input` if
    /// the clusters are not as [`CommitInfo`] says. Nothing is committed then.
    pub async fn commit(mut self, info: CommitInfo) -> Result<Committed> {
        match self.try_commit(info).await {
            Ok(committed) => {
                self.attempt.committed().await;
                self.log.checkpoint(committed.version).await;
                if self.options.mode == Mode::Overwrite && self.base.is_some() {
                    vacuum::after_overwrite(&self.log, &self.location).await;
                }
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

    async fn try_commit(&mut self, info: CommitInfo) -> Result<Committed, Failed> {
        let Some(sink) = self.sink.clone() else {
            return Err(Error::internal("a table would be committed that no sink was made for").into());
        };
        let (added, keys) = sink.finish().await?;
        let new = info.clusters.as_ref().map(|batch| clusters::normalize(batch, &sink.labels().model)).transpose()?;
        let replaced = self.replace(&keys, sink.table_schema()).await?;
        loop {
            let rows = added.iter().filter_map(|file| file.rows).sum();
            let note = self.note(&info, &sink.labels().model, rows, new.as_ref(), replaced.as_ref()).await?;
            let version = self.base.as_ref().map_or(0, |base| base.version + 1);
            let actions = self.actions(&added, replaced.as_ref(), sink.table_schema())?;
            if self.put(version, actions, &note).await? {
                let bytes = added.iter().map(|file| file.bytes).sum();
                let replaced_rows = replaced.map_or(0, |replaced| replaced.rows());
                return Ok(Committed { version, rows, replaced_rows, files: added.len(), bytes });
            }
            self.rebase(version, sink.table_schema(), &keys, &sink.labels().model).await?;
        }
    }

    /// What becomes of the rows whose keys this run wrote anew, where it replaces them.
    async fn replace(&self, keys: &RunKeys, table: &SchemaRef) -> Result<Option<Replaced>> {
        match self.appends_to() {
            Some(base) if self.options.on_existing == OnExisting::Replace && keys.are_kept() => {
                // In directories of their own, so that no two files have one name.
                let files = |number: usize| self.files(kept_dir(&self.options.run_id, number), Arc::clone(table), None);
                Replaced::write(&self.location, base, keys, files).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What the commit says of itself. Writes the files beside the rows.
    async fn note(
        &self,
        info: &CommitInfo,
        model: &str,
        rows: u64,
        new: Option<&RecordBatch>,
        replaced: Option<&Replaced>,
    ) -> Result<CommitNote> {
        let run = &self.options.run_id;
        let base = self.appends_to();
        let before = base.and_then(|base| base.note.as_ref());
        let there = |of: fn(&CommitNote) -> &Option<FileBeside>| before.and_then(|note| of(note).as_ref());
        let old = match there(|note| &note.clusters) {
            Some(file) => {
                let old = beside::read(&self.location, file, &clusters::clusters_schema()).await?;
                Some(replaced.map_or(Ok(old.clone()), |replaced| clusters::without(&old, replaced.gone()))?)
            }
            None => None,
        };
        let merged = match (old, new) {
            (Some(old), Some(new)) => Some(clusters::merge(&old, new)?),
            (old, new) => old.or_else(|| new.cloned()),
        };
        let clusters = match &merged {
            Some(rows) => Some(self.write_beside(clusters_file(run), rows).await?),
            None => None,
        };
        // What the rows that were replaced added to sums cannot be taken out of them.
        let there = |of: fn(&CommitNote) -> &Option<FileBeside>| there(of).filter(|_| replaced.is_none());
        let profile = there(|note| &note.profile);
        let profile = self.merge_beside(profile_file(run), profile, profile::merge, info.profile.as_ref()).await?;
        let sample = there(|note| &note.sample);
        let sample = self.merge_beside(sample_file(run), sample, sample::merge, info.sample.as_ref()).await?;
        Ok(CommitNote {
            attempt: run.clone(),
            run: run.clone(),
            model: model.to_owned(),
            rows,
            skipped_rows: info.skipped_rows,
            clusters,
            profile,
            sample,
            quarantine: info.quarantine.clone(),
            quarantined_before: base.and_then(Snapshot::last_quarantine),
            source: info.source.clone(),
        })
    }

    /// Writes as the file `path` what the table has beside its rows with this run's in it: what it had (`there`) merged
    /// with `new`, or `new` alone. Without `new` it has what it had.
    async fn merge_beside(
        &self,
        path: String,
        there: Option<&FileBeside>,
        merge: fn(&RecordBatch, &RecordBatch) -> Result<RecordBatch>,
        new: Option<&RecordBatch>,
    ) -> Result<Option<FileBeside>> {
        let Some(new) = new else { return Ok(there.cloned()) };
        let merged = match there {
            Some(file) => merge(&beside::read(&self.location, file, new.schema_ref()).await?, new)?,
            None => new.clone(),
        };
        self.write_beside(path, &merged).await.map(Some)
    }

    async fn write_beside(&self, path: String, rows: &RecordBatch) -> Result<FileBeside> {
        beside::write(&self.location, path, rows).await.map_err(nothing_committed)
    }

    /// What the log is told.
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
            // Rows that stay keep their place before those that come.
            let kept = replaced.kept().iter().map(|file| add_of(file, now - 1, true));
            actions.extend(kept.collect::<Result<Vec<_>>>()?);
        }
        let added = added.iter().map(|file| add_of(file, now, true));
        actions.extend(added.collect::<Result<Vec<_>>>()?);
        Ok(actions)
    }

    /// Puts the entry; false if another process has made that version.
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

    /// Takes the table as the other process left it, if this run's rows still fit.
    async fn rebase(&mut self, taken: u64, table: &SchemaRef, keys: &RunKeys, model: &str) -> Result<()> {
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
