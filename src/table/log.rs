//! The log of a table: a Delta log, `_delta_log`, which delta-rs reads, writes and checkpoints.
//!
//! Here it becomes a [`Snapshot`], the files and columns of one version, and whatever cannot be read right is refused:
//! damage, features of the protocol that this program lacks, files outside the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitData, PROTOCOL};
use deltalake_core::kernel::{Add, Metadata, Protocol, Remove, Snapshot as DeltaSnapshot};
use deltalake_core::logstore::{LogStore, StorageConfig, default_logstore};
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use url::Url;

use super::actions::line;
use super::attempt::staging_dir;
use super::commit::{CommitNote, FileBeside, Mode, NOTE};
use super::schema;
use super::stats::ColumnRange;
use crate::error::{Error, Result};
use crate::store::{Location, failed};

/// The directory of the log.
pub(super) const DIRECTORY: &str = "_delta_log";
/// The property of a table that names the columns by which its rows are told apart.
pub(super) const KEYS: &str = "dacpipe.keys";
/// Commits from one checkpoint to the next.
const CHECKPOINT_INTERVAL: u64 = 20;
/// The longest log entry that is looked at to find what is wrong with a log.
const LONGEST_ENTRY: u64 = 256 << 20;

/// A Parquet file of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Where it lies below the table.
    pub path: String,
    /// Its path as the log spells it, with some characters encoded; empty of a file that no log has yet.
    pub logged: String,
    /// Its rows; not known of some files that other programs wrote.
    pub rows: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// The one value that each partition column has in it, as text; `None` for null.
    pub partition: BTreeMap<String, Option<String>>,
    /// What is known of its other columns.
    pub columns: BTreeMap<String, ColumnRange>,
    /// When it came into the table, in milliseconds since 1970.
    pub added_at: i64,
}

/// A table as it was at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// Its columns.
    pub schema: SchemaRef,
    /// The columns by whose values its files are divided.
    pub partition_by: Vec<String>,
    /// The columns by which its rows are told apart; none if whoever wrote the table named none.
    pub keys: Vec<String>,
    /// Its files, in the order of their commits.
    pub files: Vec<DataFile>,
    /// What the newest commit of dacpipe up to this version said; none in a table that only other programs wrote.
    pub note: Option<CommitNote>,
    /// The version whose commit said it.
    pub(super) noted_at: Option<u64>,
    pub(super) metadata: Metadata,
    pub(super) protocol: Protocol,
}

impl Snapshot {
    /// Its rows, as far as the log knows them.
    pub fn rows(&self) -> u64 {
        self.files.iter().filter_map(|f| f.rows).sum()
    }

    /// The run whose rows came last.
    pub fn run_id(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.run.as_str())
    }

    /// The hash of the model that labelled the rows that came last.
    pub fn model(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.model.as_str())
    }

    /// The newest version, since the last overwrite, whose run set rows aside.
    pub(super) fn last_quarantine(&self) -> Option<u64> {
        let note = self.note.as_ref()?;
        if note.quarantine.is_some() { self.noted_at } else { note.quarantined_before }
    }

    /// The file of its clusters.
    pub fn clusters(&self) -> Option<&FileBeside> {
        self.note.as_ref()?.clusters.as_ref()
    }
}

/// One commit of a log.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The version that it made.
    pub version: u64,
    /// When, in milliseconds since 1970, as its writer's clock had it.
    pub timestamp: Option<i64>,
    /// What was done, in Delta's words: WRITE, OPTIMIZE, RESTORE.
    pub operation: String,
    /// Who did it: program and version.
    pub engine: Option<String>,
    /// The files that it added.
    pub added: Vec<Add>,
    /// The files that it removed.
    pub removed: Vec<Remove>,
    /// Whether it changed columns, partitioning or properties.
    pub metadata: bool,
    /// What dacpipe said in it.
    pub note: Option<CommitNote>,
    mode: Option<Mode>,
}

impl Commit {
    /// What a write did to the rows that were there; none of a commit that was no write.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether attempt `id` made it.
    pub(super) fn is_by(&self, id: &str) -> bool {
        self.note.as_ref().is_some_and(|note| note.attempt == id)
    }

    /// Rows in the files that it added, if it says so.
    pub fn rows(&self) -> Option<u64> {
        let rows = |add: &Add| ColumnRange::from_delta(add.stats.as_deref().unwrap_or_default()).ok()?.0;
        self.added.iter().map(rows).sum()
    }
}

/// The log of the table at a location. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    location: Location,
    store: Arc<dyn LogStore>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Log {
    /// The log of the table at `location`, whether there is one or not.
    pub fn new(location: Location) -> Self {
        // The store is cut at the table, so that no URL is made of a path with odd characters.
        let inside: Arc<dyn ObjectStore> =
            Arc::new(PrefixStore::new(Arc::clone(location.store()), location.prefix().clone()));
        let root = Url::parse("file:///").expect("a URL");
        let store = default_logstore(Arc::clone(&inside), inside, &root, &StorageConfig::default());
        Self { location, store }
    }

    /// The table at `version`, or as it is now; `None` if there is no table.
    ///
    /// Reads the newest checkpoint and the commits after it.
    ///
    /// # Errors
    /// Kind `Table` if there is no such version (any more), the log is damaged, or the table needs what this program
    /// cannot do: deletion vectors, column mapping, a newer protocol. Kind `Io` if reading fails.
    pub async fn snapshot(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        let found = match self.open(version).await? {
            Some(found) => found,
            None if version.is_none() => return Ok(None),
            None => {
                let there = match self.newest().await? {
                    Some(_) => "the log no longer goes back that far",
                    None => "it holds no table",
                };
                return Err(self.no_such_version(version.unwrap_or_default(), there));
            }
        };
        self.find_damage(false).await?;
        PROTOCOL.can_read_from_protocol(found.protocol()).map_err(|e| self.not_for_us("read", &e.to_string()))?;
        let metadata = found.metadata().clone();
        let mapping = metadata.configuration().get("delta.columnMapping.mode").map(String::as_str);
        if mapping.is_some_and(|mode| mode != "none") {
            return Err(self.not_for_us("read", "its columns are mapped to other names (delta.columnMapping.mode)"));
        }
        let schema = schema::of_delta(&found.arrow_schema());
        let listed: Vec<RecordBatch> = match found.files(self.store.as_ref(), None).try_collect().await {
            Ok(listed) => listed,
            Err(e) => return Err(self.diagnose(e).await),
        };
        let mut files = Vec::new();
        for batch in &listed {
            self.data_files(batch, &mut files)?;
        }
        files.sort_by(|a, b| (a.added_at, &a.path).cmp(&(b.added_at, &b.path)));
        let partition_by: Vec<String> = metadata.partition_columns().to_vec();
        self.check_partition_values(&files, &partition_by, &schema)?;
        let (noted_at, note) = self.note_at(found.version()).await?.unzip();
        Ok(Some(Snapshot {
            version: found.version(),
            schema,
            partition_by,
            keys: keys_of(&metadata),
            files,
            note,
            noted_at,
            protocol: found.protocol().clone(),
            metadata,
        }))
    }

    async fn open(&self, version: Option<u64>) -> Result<Option<DeltaSnapshot>> {
        if self.location.local_path().is_some() && self.newest().await?.is_none() {
            return Ok(None);
        }
        let found = match DeltaSnapshot::try_new(self.store.as_ref(), version).await {
            Ok(found) => found,
            Err(DeltaTableError::NotATable(_)) => return Ok(None),
            Err(e) => {
                if let (Some(version), Ok(listed)) = (version, self.listed().await) {
                    let newest = listed.newest();
                    if newest.is_none_or(|newest| version > newest) {
                        let there = newest.map_or("it holds no table".to_owned(), |n| format!("its newest is {n}"));
                        return Err(self.no_such_version(version, &there));
                    }
                    if !listed.reaches(version) {
                        return Err(self.no_such_version(version, "the log no longer goes back that far"));
                    }
                }
                return Err(self.diagnose(e).await);
            }
        };
        Ok(Some(found))
    }

    /// The files of a batch of delta-rs's replay of the log.
    fn data_files(&self, batch: &RecordBatch, files: &mut Vec<DataFile>) -> Result<()> {
        let unknown = |name: &str| Error::internal(format!("delta-rs lists files without {name}"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| unknown(name));
        let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| unknown(name));
        let number = |name: &str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| unknown(name));
        let (paths, stats) = (text("path")?, text("stats")?);
        let (sizes, times) = (number("size")?, number("modificationTime")?);
        let vectors = column("deletionVector")?.as_struct_opt().and_then(|v| v.column_by_name("storageType"));
        let constant = column("fileConstantValues")?.as_struct_opt().ok_or_else(|| unknown("constants"))?;
        let partitions = constant.column_by_name("partitionValues").and_then(|p| p.as_map_opt());
        let partitions = partitions.ok_or_else(|| unknown("partition values"))?;
        for row in 0..batch.num_rows() {
            let logged = paths.value(row).to_owned();
            let path = decoded(&logged);
            self.check_path(&path)?;
            if vectors.is_some_and(|vectors| vectors.is_valid(row)) {
                return Err(self.not_for_us(
                    "read",
                    &format!("rows of {path} are deleted by a deletion vector; rewrite its files without (REORG)"),
                ));
            }
            let damaged =
                |what: String| Error::table(format!("the log of {} is damaged: {path} {what}", self.location));
            let bytes =
                u64::try_from(sizes.value(row)).map_err(|_| damaged(format!("has {} bytes", sizes.value(row))))?;
            let known = if stats.is_valid(row) { stats.value(row) } else { "" };
            let (rows, columns) = ColumnRange::from_delta(known).map_err(|e| damaged(format!("has statistics {e}")))?;
            let entries = partitions.value(row);
            let (names, values) = (entries.column(0).as_string_opt::<i32>(), entries.column(1).as_string_opt::<i32>());
            let (Some(names), Some(values)) = (names, values) else { return Err(unknown("partition values as text")) };
            let value = |i: usize| values.is_valid(i).then(|| values.value(i).to_owned());
            let partition = (0..entries.len()).map(|i| (names.value(i).to_owned(), value(i))).collect();
            files.push(DataFile { path, logged, rows, bytes, partition, columns, added_at: times.value(row) });
        }
        Ok(())
    }

    /// That a file of the log lies in the table.
    pub(super) fn check_path(&self, path: &str) -> Result<()> {
        let inside = !path.contains("://") && !path.starts_with('/') && Path::parse(path).is_ok() && !path.is_empty();
        match inside {
            true => Ok(()),
            false => Err(Error::table(format!(
                "the log of {} is damaged: {path:?} is no path of a file of the table",
                self.location
            ))),
        }
    }

    /// Files are left out by these values, so one that cannot be read must not pass for another.
    fn check_partition_values(&self, files: &[DataFile], partition_by: &[String], schema: &SchemaRef) -> Result<()> {
        for file in files {
            for name in partition_by {
                let data_type = schema.field_with_name(name)?.data_type();
                let readable = match file.partition.get(name) {
                    Some(None) => true,
                    Some(Some(text)) => !super::stats::scalar(Some(text), data_type).is_null(),
                    None => false,
                };
                if !readable {
                    return Err(Error::table(format!(
                        "the log of {} is damaged: no value of {name:?} ({data_type}) for {:?}",
                        self.location, file.path
                    )));
                }
            }
        }
        Ok(())
    }

    /// The note of the newest commit up to `version` that has one, and that commit's version.
    async fn note_at(&self, version: u64) -> Result<Option<(u64, CommitNote)>> {
        for version in (0..=version).rev() {
            match self.commit_at(version).await? {
                Some(Commit { version, note: Some(note), .. }) => return Ok(Some((version, note))),
                Some(_) => {}
                // What was before is gone from the log.
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The files of the rows that the runs of a version set aside, newest first.
    pub(super) async fn quarantined(&self, table: &Snapshot) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut next = table.last_quarantine();
        while let Some(version) = next {
            let Some(Commit { note: Some(note), .. }) = self.commit_at(version).await? else { break };
            files.extend(note.quarantine);
            // Downwards, whatever a log says.
            next = note.quarantined_before.filter(|&before| before < version);
        }
        Ok(files)
    }

    /// The version that attempt `id` made, or `None` if the log has none of it (any more). Looks from the newest back.
    ///
    /// # Errors
    /// Kind `Table` if an entry is damaged, `Io` if reading fails.
    pub async fn version_by(&self, id: &str) -> Result<Option<u64>> {
        let Some(newest) = self.newest().await? else { return Ok(None) };
        for version in (0..=newest).rev() {
            match self.commit_at(version).await? {
                Some(commit) if commit.is_by(id) => return Ok(Some(version)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }

    /// The commit that made `version`, or `None` if the log has its entry no longer.
    pub(super) async fn commit_at(&self, version: u64) -> Result<Option<Commit>> {
        let name = file_name(version);
        let Some(bytes) = self.location.get(&name).await? else { return Ok(None) };
        let parsed = parse(version, &bytes);
        parsed.map(Some).map_err(|e| e.while_doing(format!("the log entry {} is damaged", self.location.show(&name))))
    }

    /// The newest version, or `None` if there is no table.
    pub(super) async fn newest(&self) -> Result<Option<u64>> {
        Ok(self.listed().await?.newest())
    }

    async fn listed(&self) -> Result<Listed> {
        if self.location.local_path().is_some_and(std::path::Path::is_file) {
            return Err(Error::table(format!("{} is a file; a table is a directory", self.location)));
        }
        let files = self.location.list(DIRECTORY).await?;
        let mut listed = Listed::default();
        for (file, name) in files.iter().filter_map(|file| Some((file, file.location.filename()?))) {
            let Some(version) = name.get(..20).and_then(|digits| digits.parse().ok()) else { continue };
            match &name[20..] {
                ".json" => drop(listed.commits.insert(version, file.size)),
                rest if rest.starts_with(".checkpoint") => drop(listed.checkpoints.insert(version)),
                _ => {}
            }
        }
        Ok(listed)
    }

    fn no_such_version(&self, version: u64, there: &str) -> Error {
        Error::table(format!("{} has no version {version}: {there}", self.location))
    }

    fn not_for_us(&self, what: &str, why: &str) -> Error {
        Error::table(format!("cannot {what} {}: {why}", self.location))
    }

    /// What is wrong with a log that delta-rs could not read, with the file and the line where that can be found.
    async fn diagnose(&self, e: DeltaTableError) -> Error {
        match self.find_damage(true).await {
            Err(found) => found,
            Ok(()) => match store_failure(&e) {
                Some(_) => failed("reading", &self.location.show(DIRECTORY), e),
                None => Error::table(format!("the log of {} cannot be read", self.location)).with_source(e),
            },
        }
    }

    /// An error that names the first entry that is missing, empty or, if they are `read`, no log entry.
    async fn find_damage(&self, read: bool) -> Result<()> {
        let listed = self.listed().await?;
        let (Some(newest), from) = (listed.newest(), listed.checkpoints.last().map_or(0, |v| v + 1)) else {
            return Ok(());
        };
        for version in from..=newest {
            let name = file_name(version);
            let missing = || {
                Error::table(format!(
                    "the log of {} is damaged: {} is missing, and later versions are there; \
                     restore the file, or write to another path",
                    self.location,
                    self.location.show(&name)
                ))
            };
            match listed.commits.get(&version) {
                None => return Err(missing()),
                Some(0) => {
                    let name = self.location.show(&name);
                    return Err(Error::table(format!(
                        "the log entry {name} is damaged: it is empty; restore the file"
                    )));
                }
                Some(&bytes) if read && bytes <= LONGEST_ENTRY => {
                    self.commit_at(version).await?.ok_or_else(missing)?;
                }
                Some(_) => {}
            }
        }
        if read { self.find_damaged_checkpoint(&listed).await } else { Ok(()) }
    }

    /// An error that names a checkpoint that cannot be read, or the pointer to one that is not there.
    async fn find_damaged_checkpoint(&self, listed: &Listed) -> Result<()> {
        let advice = match listed.commits.keys().next() {
            Some(0) => "remove it: the log has every entry",
            _ => "restore the file",
        };
        let damaged = |name: &str, why: &str| {
            Error::table(format!("the log of {} is damaged: {name} {why}; {advice}", self.location))
        };
        const LAST: &str = "_delta_log/_last_checkpoint";
        if let Some(text) = self.location.get(LAST).await? {
            let version = serde_json::from_slice::<Value>(&text).ok().and_then(|last| last["version"].as_u64());
            match version {
                None => return Err(damaged(LAST, "names no version")),
                Some(version) if !listed.checkpoints.contains(&version) => {
                    return Err(damaged(LAST, &format!("names a checkpoint of version {version}, which is not there")));
                }
                Some(_) => {}
            }
        }
        for file in self.location.list(DIRECTORY).await? {
            let Some(name) = file.location.filename().filter(|name| name.ends_with(".parquet")) else { continue };
            let name = format!("{DIRECTORY}/{name}");
            let Some(content) = self.location.get(&name).await? else { continue };
            if let Err(e) = ParquetRecordBatchReaderBuilder::try_new(content) {
                return Err(damaged(&name, "cannot be read").with_source(e));
            }
        }
        Ok(())
    }

    /// That this program may write to a table.
    ///
    /// # Errors
    /// Kind `Table`: the table asks of its writers what this one does not do.
    pub(super) fn check_writable(&self, table: &Snapshot, removes_rows: bool) -> Result<()> {
        let protocol = &table.protocol;
        let refuse = |why: String| Err(self.not_for_us("write to", &why));
        let features: Vec<String> = match protocol.min_writer_version() {
            0..=2 => Vec::new(),
            7 => protocol.writer_features().unwrap_or_default().iter().map(|f| f.to_string()).collect(),
            other => return refuse(format!("its log asks for writers of version {other}, this one is of version 2")),
        };
        let known = ["appendOnly", "timestampNtz", "v2Checkpoint", "domainMetadata"];
        if let Some(other) = features.iter().find(|feature| !known.contains(&feature.as_str())) {
            return refuse(format!("its log asks writers for the feature {other}"));
        }
        let properties = table.metadata.configuration();
        if serde_json::to_string(&table.metadata).is_ok_and(|text| text.contains("delta.invariants")) {
            return refuse("it has invariants of columns, which this program does not check".to_owned());
        }
        if let Some(name) = properties.keys().find(|name| name.starts_with("delta.constraints.")) {
            return refuse(format!("it has the constraint {name}, which this program does not check"));
        }
        if removes_rows && properties.get("delta.appendOnly").is_some_and(|value| value == "true") {
            return refuse("it takes appends alone (delta.appendOnly)".to_owned());
        }
        Ok(())
    }

    /// Writes `actions` as `version`, with `note`. False if another process made that version first.
    ///
    /// # Errors
    /// Kind `Io` if writing fails; on an object store the entry may have been written all the same.
    pub(super) async fn commit(
        &self,
        version: u64,
        actions: Vec<Value>,
        operation: DeltaOperation,
        note: &CommitNote,
    ) -> Result<bool> {
        let internal = |e: serde_json::Error| Error::internal("a log entry that is no JSON").with_source(e);
        let mut facts = HashMap::from([(NOTE.to_owned(), serde_json::to_value(note).map_err(internal)?)]);
        facts.insert("operationMetrics".to_owned(), metrics(&actions));
        facts.insert("clientVersion".to_owned(), concat!("dacpipe.", env!("CARGO_PKG_VERSION")).into());
        // delta-rs says what was done; it would spell the paths of files in its own way.
        let said = CommitData::new(Vec::new(), operation, facts, Vec::new());
        let said = said.actions.iter().map(line).collect::<Result<Vec<Value>>>()?;
        let lines: Vec<String> = said.iter().chain(&actions).map(Value::to_string).collect();
        let bytes = Bytes::from(lines.join("\n"));
        self.location.put_if_absent(&file_name(version), bytes, &staging_dir(&note.attempt)).await
    }

    /// After commits: a checkpoint, where one is due, so that readers need not read the whole log. That it cannot be
    /// written is a warning, since the log alone says what the table is.
    pub(super) async fn checkpoint(&self, version: u64) {
        if !(version + 1).is_multiple_of(CHECKPOINT_INTERVAL) {
            return;
        }
        let mut table = deltalake_core::DeltaTable::new(Arc::clone(&self.store));
        let made = async {
            table.load_version(version).await?;
            deltalake_core::checkpoints::create_checkpoint(&table, None).await
        };
        if let Err(e) = made.await {
            tracing::warn!("{} has no checkpoint at version {version}: {e}", self.location);
        }
    }
}

/// The versions of which a log has entries, with their sizes, and checkpoints.
#[derive(Debug, Default)]
struct Listed {
    commits: BTreeMap<u64, u64>,
    checkpoints: BTreeSet<u64>,
}

impl Listed {
    fn newest(&self) -> Option<u64> {
        self.commits.keys().next_back().max(self.checkpoints.last()).copied()
    }

    /// Whether `version` can be made of a checkpoint and the entries after it.
    fn reaches(&self, version: u64) -> bool {
        let from = self.checkpoints.range(..=version).next_back().map_or(0, |v| v + 1);
        (from..=version).all(|v| self.commits.contains_key(&v))
    }
}

pub(super) fn file_name(version: u64) -> String {
    format!("{DIRECTORY}/{version:020}.json")
}

/// A path as files have it, of one with encoded bytes; what is no encoding stays.
fn decoded(logged: &str) -> String {
    let bytes = logged.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The columns by which a table says its rows are told apart.
fn keys_of(metadata: &Metadata) -> Vec<String> {
    let keys = metadata.configuration().get(KEYS);
    keys.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What was done, in figures, under the names that other engines show.
fn metrics(actions: &[Value]) -> Value {
    let (mut files, mut bytes, mut rows, mut removed) = (0, 0, 0, 0);
    for action in actions {
        if let Some(add) = action.get("add") {
            files += 1;
            bytes += add["size"].as_u64().unwrap_or(0);
            let stats = add["stats"].as_str().and_then(|stats| ColumnRange::from_delta(stats).ok());
            rows += stats.and_then(|(rows, _)| rows).unwrap_or(0);
        }
        removed += u64::from(action.get("remove").is_some());
    }
    let text = |n: String| Value::String(n);
    let figures = [
        ("numFiles", text(files.to_string())),
        ("numOutputBytes", text(bytes.to_string())),
        ("numOutputRows", text(rows.to_string())),
        ("numRemovedFiles", text(removed.to_string())),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
}

/// A commit's entry: a JSON object a line, each with one action.
fn parse(version: u64, bytes: &Bytes) -> Result<Commit> {
    let mut commit = Commit {
        version,
        timestamp: None,
        operation: "WRITE".into(),
        engine: None,
        added: Vec::new(),
        removed: Vec::new(),
        metadata: false,
        note: None,
        mode: None,
    };
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let bad = |e: serde_json::Error| Error::table(format!("line {} is no action", number + 1)).with_source(e);
        let mut action: serde_json::Map<String, Value> = serde_json::from_slice(line).map_err(bad)?;
        if let Some(add) = action.remove("add") {
            commit.added.push(serde_json::from_value(add).map_err(bad)?);
        } else if let Some(remove) = action.remove("remove") {
            commit.removed.push(serde_json::from_value(remove).map_err(bad)?);
        } else if let Some(mut info) = action.remove("commitInfo") {
            let text = |name: &str| info.get(name).and_then(Value::as_str).map(str::to_owned);
            commit.timestamp = info.get("timestamp").and_then(Value::as_i64);
            commit.engine = text("clientVersion").filter(|by| by.starts_with("dacpipe")).or_else(|| text("engineInfo"));
            commit.operation = text("operation").unwrap_or(commit.operation);
            let mode = info.get("operationParameters").and_then(|given| given.get("mode")).and_then(Value::as_str);
            commit.mode = match mode {
                Some("Append") => Some(Mode::Append),
                Some("Overwrite") => Some(Mode::Overwrite),
                _ => None,
            };
            let note = info.get_mut(NOTE).map(Value::take);
            commit.note = note.map(serde_json::from_value).transpose().map_err(bad)?;
        } else if action.contains_key("metaData") {
            commit.metadata = true;
        }
    }
    if let Some(note) = &commit.note {
        let files = [&note.clusters, &note.profile, &note.sample].into_iter().flatten().map(|file| &file.path);
        for path in files.chain(&note.quarantine) {
            if Path::parse(path).is_err() || path.starts_with('/') || path.contains("://") {
                return Err(Error::table(format!("{path:?} is no path of a file of the table")));
            }
        }
    }
    Ok(commit)
}

/// The failure of the store that an error comes from, unless it is that something is not there.
fn store_failure<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a object_store::Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(store) = e.downcast_ref::<object_store::Error>() {
            return (!matches!(store, object_store::Error::NotFound { .. })).then_some(store);
        }
        next = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_sort_as_their_versions() {
        assert_eq!(file_name(7), "_delta_log/00000000000000000007.json");
    }

    #[test]
    fn encoded_paths_are_those_of_files() {
        for (logged, path) in
            [("a/b.parquet", "a/b.parquet"), ("x%3D%20y", "x= y"), ("100%", "100%"), ("%zz%2", "%zz%2")]
        {
            assert_eq!(decoded(logged), path);
        }
    }

    #[test]
    fn a_version_needs_every_entry_after_a_checkpoint() {
        let listed = |commits: &[u64], checkpoints: &[u64]| Listed {
            commits: commits.iter().map(|&version| (version, 1)).collect(),
            checkpoints: checkpoints.iter().copied().collect(),
        };
        assert!(listed(&[0, 1, 2], &[]).reaches(2));
        assert!(!listed(&[0, 2], &[]).reaches(2));
        assert!(listed(&[4, 5], &[3]).reaches(5));
        assert!(!listed(&[4, 5], &[3]).reaches(2));
        assert_eq!(listed(&[4, 5], &[7]).newest(), Some(7));
    }
}
