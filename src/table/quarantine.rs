//! What runs set aside: a Delta table of its own, `quarantine/` below the labelled table.
//!
//! Two tables cannot be changed by one commit, so that of the labelled table counts. Before it, the rows that a run set
//! aside are written as a data file below `quarantine/`, which its commit names; then a commit of the quarantine adds that
//! file. A writer that dies in between leaves that to the next one, and dacpipe's readers look at both. So the quarantine
//! has the rows of a commit once, and those of an attempt without a commit never. Likewise, a commit that [replays](Marks)
//! rows names a file which says which ones, and then they are marked in the quarantine.
//!
//! A run that fails before its commit has nothing that counts: what it set aside is added by itself, without a version of
//! the table.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use serde_json::Value;

use super::actions::{add_of, line, remove_of};
use super::attempt::{Attempt, QUARANTINE, data_dir, quarantine_dir};
use super::commit::{CommitNote, FileBeside, Published};
use super::files::micros;
use super::log::{DataFile, Log, Snapshot};
use super::metadata::Wanted;
use super::provider::LabelTable;
use super::writer::now_millis;
use super::{Checksums, beside};
use crate::error::{Error, Result};
use crate::source::BadRows;
use crate::store::Location;

/// The column with the run that replayed a row.
pub const REPLAYED: &str = "replayed_by";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let bad = BadRows::schema();
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let more = [
        Field::new("run", DataType::Utf8, false),
        Field::new("version", DataType::Int64, true),
        Field::new("set_aside_at", at, false),
        Field::new(REPLAYED, DataType::Utf8, true),
    ];
    Arc::new(Schema::new(bad.fields().iter().cloned().chain(more.map(Arc::new)).collect::<Vec<_>>()))
});

/// The columns of the quarantine: those of [`BadRows::schema`], then the `run` that set the row aside, the `version` of the
/// table that it made (null if it made none), `set_aside_at`, and `replayed_by`, the run that replayed it, null before.
pub fn quarantine_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// The rows of [`BadRows::to_batch`] with the columns that follow.
fn complete(rows: &RecordBatch, run: &str, version: Option<u64>, at: SystemTime) -> Result<RecordBatch> {
    let many = rows.num_rows();
    let version = version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, many))));
    columns.push(Arc::new(Int64Array::from_iter(std::iter::repeat_n(version, many))));
    columns.push(Arc::new(TimestampMicrosecondArray::from(vec![micros(at); many]).with_timezone("UTC")));
    columns.push(new_null_array(&DataType::Utf8, many));
    Ok(RecordBatch::try_new(quarantine_schema(), columns)?)
}

/// Writes rows that a run sets aside, as the commit of `version` will name them.
pub(super) async fn write(
    location: &Location,
    rows: &RecordBatch,
    run: &str,
    version: u64,
    at: SystemTime,
) -> Result<FileBeside> {
    no_link(location)?;
    let rows = complete(rows, run, Some(version), at)?;
    beside::write(location, format!("{}/part-00000.parquet", quarantine_dir(run)), &rows).await
}

/// Nothing is written through a link.
fn no_link(location: &Location) -> Result<()> {
    match location.local_path().map(|root| root.join(QUARANTINE)).filter(|path| path.is_symlink()) {
        Some(link) => {
            let link = link.display();
            Err(Error::config(format!("{link} is a link, and rows are not set aside through it; move it away")))
        }
        None => Ok(()),
    }
}

/// Adds rows of [`BadRows::to_batch`] to the quarantine of `location` that run `run` set aside, which committed nothing.
///
/// # Errors
/// Kind `Config` if the quarantine is a link, `Table` if it is damaged, `Io` if it cannot be written.
pub async fn set_aside(location: &Location, rows: &RecordBatch, run: &str, at: SystemTime) -> Result<()> {
    no_link(location)?;
    let place = location.join(QUARANTINE)?;
    let log = Log::new(place.clone());
    let rows = complete(rows, run, None, at)?;
    for number in 0.. {
        let id = format!("{run}.failed-{number}");
        let mut attempt = Attempt::begin_below(&log, &place, &id).await?;
        let file = beside::write(&place, format!("{}/part-00000.parquet", data_dir(&id)), &rows).await?;
        let newest = newest_note(&log).await?;
        let published = newest.as_ref().and_then(|(_, note)| note.published.clone());
        let note = CommitNote { attempt: id, run: run.to_owned(), rows: file.rows, published, ..CommitNote::empty() };
        let add = add_of(&as_data_file(&file, &file.path)?, now_millis(), true)?;
        let done = put(&log, newest, vec![add], note).await;
        if settle(&place, &mut attempt, done).await? {
            break;
        }
    }
    Ok(())
}

/// The place of the quarantine of the table at `location`, if it has one.
pub(super) async fn place(location: &Location) -> Result<Option<Location>> {
    let place = location.join(QUARANTINE)?;
    // A link is not followed, and an older dacpipe wrote no log.
    if no_link(location).is_err() || Log::new(place.clone()).newest().await?.is_none() {
        return Ok(None);
    }
    Ok(Some(place))
}

/// Does what [`publish`] does; what fails is a warning, as the next writer does it, and readers look at both.
pub(super) async fn catch_up(log: &Log, table: &Snapshot) {
    if let Err(e) = publish(log, table).await {
        tracing::warn!("the rows that were set aside are not yet in the table {}: {e}", log.location.show(QUARANTINE));
    }
}

/// Brings into the quarantine what the commits of `table`, its newest version, say and the quarantine does not have.
async fn publish(log: &Log, table: &Snapshot) -> Result<()> {
    if table.last_quarantine().is_none() {
        return Ok(());
    }
    let location = &log.location;
    let place = location.join(QUARANTINE)?;
    let to = Log::new(place.clone());
    loop {
        let newest = newest_note(&to).await?;
        let mut pending = pending(log, table, newest.as_ref().and_then(|(_, note)| note.published.as_ref())).await?;
        // Rows are marked by themselves, when those that are set aside before are there.
        let with_marks = pending.iter().position(|(_, note)| note.replayed.is_some());
        pending.truncate(with_marks.map_or(pending.len(), |at| at.max(1)));
        let (Some((_, first)), Some((version, last))) = (pending.first(), pending.last()) else { return Ok(()) };
        no_link(location)?;
        // No other attempt has this id, not even of a process that died.
        let id = format!("publish-{version}-{}-{}", now_millis(), std::process::id());
        let mut attempt = Attempt::begin_below(&to, &place, &id).await?;
        let mut actions = Vec::new();
        for file in pending.iter().filter_map(|(_, note)| note.quarantine.as_ref()) {
            if newest.is_none() && !is_there(location, file).await? {
                continue;
            }
            if let Some(path) = file.path.strip_prefix(&format!("{QUARANTINE}/")).filter(|_| file.crc32.is_some()) {
                actions.push(add_of(&as_data_file(file, path)?, now_millis(), true)?);
            }
        }
        if let Some(marks) = &first.replayed {
            let marks = Marks::read(location, marks).await?;
            actions.extend(marked(&to, &id, &marks, &first.run).await?);
        }
        let rows = pending.iter().filter_map(|(_, note)| note.quarantine.as_ref()).map(|file| file.rows).sum();
        let published = Some(Published { table: table.metadata.id().to_owned(), version: *version });
        let note = CommitNote { attempt: id, run: last.run.clone(), rows, published, ..CommitNote::empty() };
        let done = put(&to, newest, actions, note).await;
        settle(&place, &mut attempt, done).await?;
    }
}

/// Whether a file is there. Where all of the quarantine is gone, somebody who was done with it has deleted it.
async fn is_there(location: &Location, file: &FileBeside) -> Result<bool> {
    match location.store().head(&location.path(&file.path)?).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(e) => Err(Error::io(format!("looking for {}", location.show(&file.path))).with_source(e)),
    }
}

/// Ends an attempt whose commit was tried. True if it is there; if not, its files are removed.
async fn settle(place: &Location, attempt: &mut Attempt, done: Result<bool>) -> Result<bool> {
    match &done {
        Ok(true) => attempt.committed().await,
        Ok(false) => attempt.abort().await,
        // In an object store, it may be there.
        Err(_) if place.local_path().is_none() => attempt.leave(),
        Err(_) => attempt.abort().await,
    }
    done
}

/// The commits of `table` whose rows the quarantine does not have, oldest first, if it has those up to `published`.
async fn pending(log: &Log, table: &Snapshot, published: Option<&Published>) -> Result<Vec<(u64, CommitNote)>> {
    let after = published.filter(|published| published.table == table.metadata.id()).map(|published| published.version);
    let mut pending = log.quarantined(table, after).await?;
    pending.reverse();
    Ok(pending)
}

/// The version of the newest commit, and the note of the newest that has one.
async fn newest_note(log: &Log) -> Result<Option<(u64, CommitNote)>> {
    let Some(newest) = log.newest().await? else { return Ok(None) };
    let note = log.note_at(newest).await?.map(|(_, note)| note);
    Ok(Some((newest, note.unwrap_or_else(CommitNote::empty))))
}

/// Commits on top of `newest`. False if another process made that version.
async fn put(log: &Log, newest: Option<(u64, CommitNote)>, mut actions: Vec<Value>, note: CommitNote) -> Result<bool> {
    let version = match newest {
        Some((newest, _)) => newest + 1,
        None => {
            let schema = quarantine_schema();
            let wanted = Wanted { table: &schema, partition_by: &[], keys: &[] };
            let begins = wanted.actions(None, false, &log.location)?;
            let begins = begins.iter().map(line).collect::<Result<Vec<_>>>()?;
            actions.splice(0..0, begins);
            0
        }
    };
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let done = log.commit(version, actions, operation, &note).await?;
    if done {
        log.checkpoint(version).await;
    }
    Ok(done)
}

fn as_data_file(file: &FileBeside, path: &str) -> Result<DataFile> {
    let damaged = || Error::table(format!("{path} has checksums that are none of its size"));
    let checksums = match &file.crc32 {
        Some(text) => Some(Checksums::parse(text, file.bytes).ok_or_else(damaged)?),
        None => None,
    };
    Ok(DataFile {
        path: path.to_owned(),
        logged: String::new(),
        rows: Some(file.rows),
        bytes: file.bytes,
        partition: Default::default(),
        columns: Default::default(),
        added_at: 0,
        checksums,
    })
}

/// The rows that a run replays: by the run that set them aside, file and line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(BTreeSet<(String, String, i64)>);

impl Marks {
    /// Adds the row that `run` set aside.
    pub fn add(&mut self, run: &str, file: &str, line: i64) {
        self.0.insert((run.to_owned(), file.to_owned(), line));
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn schema() -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![text("run"), text("file"), Field::new("line", DataType::Int64, false)]))
    }

    /// Writes them as a file beside the rows of a commit.
    pub(super) async fn write(&self, location: &Location, path: String) -> Result<FileBeside> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(self.0.iter().map(|(run, _, _)| run))),
            Arc::new(StringArray::from_iter_values(self.0.iter().map(|(_, file, _)| file))),
            Arc::new(Int64Array::from_iter_values(self.0.iter().map(|(_, _, line)| *line))),
        ];
        beside::write(location, path, &RecordBatch::try_new(Self::schema(), columns)?).await
    }

    async fn read(location: &Location, file: &FileBeside) -> Result<Self> {
        let rows = beside::read(location, file, &Self::schema()).await?;
        let (runs, files) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
        let lines = rows.column(2).as_primitive::<Int64Type>();
        let row = |i: usize| (runs.value(i).to_owned(), files.value(i).to_owned(), lines.value(i));
        Ok(Self((0..rows.num_rows()).map(row).collect()))
    }

    /// `rows` of the quarantine, of which those that it has are replayed by `run`; `None` if it has none of them.
    fn applied(&self, rows: &RecordBatch, run: &str) -> Result<Option<RecordBatch>> {
        let column = |name: &str| {
            rows.column_by_name(name).ok_or_else(|| Error::table(format!("the quarantine has no column {name}")))
        };
        let (runs, files) = (column("run")?.as_string::<i32>(), column("file")?.as_string::<i32>());
        let lines = column("line")?.as_primitive::<Int64Type>();
        let before = column(REPLAYED)?.as_string::<i32>();
        let is = |i: usize| self.0.contains(&(runs.value(i).to_owned(), files.value(i).to_owned(), lines.value(i)));
        let marked: Vec<bool> = (0..rows.num_rows()).map(is).collect();
        if !marked.contains(&true) {
            return Ok(None);
        }
        let after = marked.iter().enumerate().map(|(i, marked)| match marked {
            true => Some(run),
            false => before.is_valid(i).then(|| before.value(i)),
        });
        let after: ArrayRef = Arc::new(StringArray::from_iter(after));
        let columns =
            rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
                REPLAYED => Arc::clone(&after),
                _ => Arc::clone(column),
            });
        Ok(Some(RecordBatch::try_new(rows.schema(), columns.collect())?))
    }
}

/// The actions that mark rows of the quarantine: its files that have such rows are written anew, as attempt `id`.
async fn marked(log: &Log, id: &str, marks: &Marks, run: &str) -> Result<Vec<Value>> {
    let Some(there) = log.snapshot(None).await? else { return Ok(Vec::new()) };
    let mut actions = Vec::new();
    for (number, file) in there.files.iter().enumerate() {
        let rows = beside::read(&log.location, &as_beside(file), &quarantine_schema()).await?;
        let Some(rows) = marks.applied(&rows, run)? else { continue };
        let path = format!("{}/part-{number:05}.parquet", data_dir(id));
        let new = beside::write(&log.location, path, &rows).await?;
        actions.push(remove_of(file, now_millis(), true));
        actions.push(add_of(&as_data_file(&new, &new.path)?, file.added_at, true)?);
    }
    Ok(actions)
}

fn as_beside(file: &DataFile) -> FileBeside {
    FileBeside {
        path: file.path.clone(),
        bytes: file.bytes,
        rows: file.rows.unwrap_or(0),
        crc32: file.checksums.as_ref().map(Checksums::to_text),
    }
}

/// The quarantine of a table, as its readers see it.
#[derive(Debug)]
pub struct Quarantine {
    location: Location,
    /// What is in it.
    pub(crate) table: Option<Arc<LabelTable>>,
    /// The runs whose rows the table has.
    pub(crate) in_table: BTreeSet<String>,
    /// The runs that replayed rows, whose commits the table has.
    replays: BTreeSet<String>,
    /// What the commits of the table say that is not yet in it, oldest first: files of rows below the table, and marks.
    pub(crate) pending: Vec<(FileBeside, String)>,
    marks: Vec<(FileBeside, String)>,
}

impl Quarantine {
    /// That of the table at `location`; `table` is the version of the table that it is seen from.
    ///
    /// # Errors
    /// Kind `Table` if a log is damaged, `Io` if it cannot be read.
    pub async fn open(location: &Location, table: Option<&Snapshot>) -> Result<Self> {
        let place = location.join(QUARANTINE)?;
        let log = Log::new(place.clone());
        let there = if no_link(location).is_ok() { log.snapshot(None).await? } else { None };
        let published = there.as_ref().and_then(|there| there.note.as_ref()?.published.as_ref());
        let (mut in_table, mut replays) = (BTreeSet::new(), BTreeSet::new());
        let (mut pending, mut marks) = (Vec::new(), Vec::new());
        if let Some(table) = table {
            let of_table = Log::new(location.clone());
            let all = of_table.quarantined(table, None).await?;
            let behind = published.filter(|published| published.table == table.metadata.id());
            for (version, note) in all.into_iter().rev() {
                if behind.is_none_or(|behind| version > behind.version) {
                    let new = note.quarantine.clone().filter(|file| file.crc32.is_some());
                    pending.extend(new.map(|file| (file, note.run.clone())));
                    marks.extend(note.replayed.clone().map(|file| (file, note.run.clone())));
                }
                if note.replayed.is_some() {
                    replays.insert(note.run.clone());
                }
                if note.quarantine.is_some() {
                    in_table.insert(note.run);
                }
            }
        }
        if there.is_none() {
            let mut found = Vec::new();
            for (file, run) in pending {
                if is_there(location, &file).await? {
                    found.push((file, run));
                }
            }
            pending = found;
        }
        let table = there.map(|there| Arc::new(LabelTable::of(&place, there)));
        Ok(Self { location: location.clone(), table, in_table, replays, pending, marks })
    }

    /// The runs whose rows the table has.
    pub fn runs_in_table(&self) -> &BTreeSet<String> {
        &self.in_table
    }

    /// Whether the table has the rows of `run`, which replayed some; not after a version from before it was restored.
    pub fn has_replay(&self, run: &str) -> bool {
        self.replays.contains(run)
    }

    /// Whether rows were marked that are not yet so in the table.
    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// All rows, of [`quarantine_schema`].
    ///
    /// # Errors
    /// Kind `Table` if a file is missing or damaged, `Io` if it cannot be read.
    pub async fn rows(&self) -> Result<Vec<RecordBatch>> {
        let schema = quarantine_schema();
        let mut all = Vec::new();
        if let Some(table) = &self.table {
            for file in &table.snapshot().files {
                all.push(beside::read(&self.location.join(QUARANTINE)?, &as_beside(file), &schema).await?);
            }
        }
        for (file, _) in &self.pending {
            all.push(beside::read(&self.location, file, &schema).await?);
        }
        for (file, run) in &self.marks {
            let marks = Marks::read(&self.location, file).await?;
            for rows in &mut all {
                if let Some(marked) = marks.applied(rows, run)? {
                    *rows = marked;
                }
            }
        }
        Ok(all)
    }
}
