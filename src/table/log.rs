//! The log of a table: a Delta log, `_delta_log`, which delta-rs reads, writes and checkpoints.
//!
//! This module makes a [`Snapshot`] of it, the files and columns of one version, and refuses what cannot be read
//! correctly: damage, unsupported features of the protocol, files outside the table.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitData, PROTOCOL};
use deltalake_core::kernel::{Metadata, Protocol, Snapshot as DeltaSnapshot};
use deltalake_core::logstore::{LogStore, StorageConfig, default_logstore};
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::prefix::PrefixStore;
use serde_json::Value;
use url::Url;

use super::actions::line;
use super::attempt::staging_dir;
use super::checksum::{Checksums, TAG};
use super::commit::{CommitNote, FileBeside, NOTE};
use super::damage::Listed;
use super::entry::{Commit, decoded, file_name, files_of, is_inside, metrics, parse};
use super::schema;
use super::stats::ColumnRange;
use crate::error::{Error, Result};
use crate::store::Location;

/// The directory of the log.
pub(super) const DIRECTORY: &str = "_delta_log";
/// The property of a table that names its key columns.
pub(super) const KEYS: &str = "dacpipe.keys";
/// Commits from one checkpoint to the next.
const CHECKPOINT_INTERVAL: u64 = 20;

/// A Parquet file of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Where it lies below the table.
    pub path: String,
    /// Its path as spelled in the log, with some characters encoded; empty for a file that is in no log yet.
    pub logged: String,
    /// Its number of rows; unknown for some files that other programs wrote.
    pub rows: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// Its value of each partition column, as text; `None` for null.
    pub partition: BTreeMap<String, Option<String>>,
    /// The ranges of its other columns.
    pub columns: BTreeMap<String, ColumnRange>,
    /// When it was added to the table, in milliseconds since 1970.
    pub added_at: i64,
    /// The checksums of its bytes, if its writer gave them.
    pub checksums: Option<Checksums>,
}

/// A table as it was at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// Its columns.
    pub schema: SchemaRef,
    /// The partition columns.
    pub partition_by: Vec<String>,
    /// The key columns; empty if the writer of the table named none.
    pub keys: Vec<String>,
    /// Its files, in the order of their commits.
    pub files: Vec<DataFile>,
    /// The note of the newest commit of dacpipe up to this version; `None` in a table that only other programs wrote.
    pub note: Option<CommitNote>,
    /// The version of that commit.
    pub(super) noted_at: Option<u64>,
    pub(super) metadata: Metadata,
    pub(super) protocol: Protocol,
}

impl Snapshot {
    /// Its number of rows, as far as the log knows it.
    pub fn rows(&self) -> u64 {
        self.files.iter().filter_map(|f| f.rows).sum()
    }

    /// The run that last added rows.
    pub fn run_id(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.run.as_str())
    }

    /// The hash of the model that labelled the rows added last.
    pub fn model(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.model.as_str())
    }

    /// Whether another program has changed the table since dacpipe last wrote its clusters.
    pub fn changed_by_others(&self) -> bool {
        self.noted_at.is_some_and(|noted_at| noted_at < self.version)
    }

    /// The newest version, since the last overwrite, whose run set rows aside or replayed some.
    pub(super) fn last_quarantine(&self) -> Option<u64> {
        let note = self.note.as_ref()?;
        let says = note.quarantine.is_some() || note.replayed.is_some();
        if says { self.noted_at } else { note.quarantined_before }
    }

    /// The file of its clusters.
    pub fn clusters(&self) -> Option<&FileBeside> {
        self.note.as_ref()?.clusters.as_ref()
    }

    /// The file of their lineage.
    pub fn lineage(&self) -> Option<&FileBeside> {
        self.note.as_ref()?.lineage.as_ref()
    }
}

/// The result of a [search](Log::search).
pub(super) enum Search {
    /// The commit.
    Found(Box<Commit>),
    /// The log is complete, and has no such commit.
    None,
    /// The log has no such commit after this version, whose entry is gone.
    Ends {
        /// The version.
        at: u64,
    },
}

/// The log of the table at a location. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(super) location: Location,
    store: Arc<dyn LogStore>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Log {
    /// The log of the table at `location`, which need not exist.
    pub fn new(location: Location) -> Self {
        // The store's root is the table, so that paths with special characters never become part of a URL.
        let inside: Arc<dyn ObjectStore> =
            Arc::new(PrefixStore::new(Arc::clone(location.store()), location.prefix().clone()));
        let root = Url::parse("file:///").expect("a URL");
        let store = default_logstore(Arc::clone(&inside), inside, &root, &StorageConfig::default());
        Self { location, store }
    }

    /// The table at `version`, or at its newest; `None` if there is no table.
    ///
    /// Reads the newest checkpoint and the commits after it.
    ///
    /// # Errors
    /// Kind `Table` if there is no such version (any more), the log is damaged, or the table uses unsupported features:
    /// deletion vectors, column mapping, a newer protocol. Kind `Io` if reading fails.
    pub async fn snapshot(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        let listed = self.listed().await?;
        let found = match (self.open(version, &listed).await?, version) {
            (Some(found), _) => found,
            (None, None) => return Ok(None),
            (None, Some(version)) => {
                let there = match listed.newest() {
                    Some(_) => "the log no longer goes back that far",
                    None => "it holds no table",
                };
                return Err(self.no_such_version(version, there));
            }
        };
        self.find_damage(&listed, false).await?;
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

    async fn open(&self, version: Option<u64>, listed: &Listed) -> Result<Option<DeltaSnapshot>> {
        let Some(newest) = listed.newest() else { return Ok(None) };
        self.check_depth(listed, version.unwrap_or(newest)).await?;
        match DeltaSnapshot::try_new(self.store.as_ref(), version).await {
            Ok(found) => Ok(Some(found)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(match version {
                Some(version) if version > newest => self.no_such_version(version, &format!("its newest is {newest}")),
                Some(version) if !listed.reaches(version) => {
                    self.no_such_version(version, "the log no longer goes back that far")
                }
                _ => self.diagnose(e).await,
            }),
        }
    }

    /// The files in a batch that delta-rs gives for the log.
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
        let tags = constant.column_by_name("tags").and_then(|tags| tags.as_map_opt());
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
            let checksums = match tags.filter(|tags| tags.is_valid(row)).and_then(|tags| tag(&tags.value(row))) {
                None => None,
                Some(text) => {
                    let sums = Checksums::parse(&text, bytes);
                    Some(
                        sums.ok_or_else(|| damaged(format!("has the checksums {text:?}, which are none of its size")))?,
                    )
                }
            };
            let added_at = times.value(row);
            files.push(DataFile { path, logged, rows, bytes, partition, columns, added_at, checksums });
        }
        Ok(())
    }

    /// Checks that a file of the log is inside the table.
    pub(super) fn check_path(&self, path: &str) -> Result<()> {
        match is_inside(path) {
            true => Ok(()),
            false => Err(Error::table(format!(
                "the log of {} is damaged: {path:?} is no path of a file of the table",
                self.location
            ))),
        }
    }

    /// Scans skip files by these values, so a value that cannot be parsed must be an error.
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

    /// The newest commit up to `version` for which `wanted` is true. Reads the log backwards, one entry at a time.
    pub(super) async fn search(&self, version: u64, wanted: impl Fn(&Commit) -> bool) -> Result<Search> {
        for version in (0..=version).rev() {
            match self.commit_at(version).await? {
                Some(commit) if wanted(&commit) => return Ok(Search::Found(Box::new(commit))),
                Some(_) => {}
                None => return Ok(Search::Ends { at: version }),
            }
        }
        Ok(Search::None)
    }

    /// The note of the newest commit up to `version` that has one, and that commit's version.
    pub(super) async fn note_at(&self, version: u64) -> Result<Option<(u64, CommitNote)>> {
        Ok(match self.search(version, |commit| commit.note.is_some()).await? {
            Search::Found(commit) => commit.note.map(|note| (commit.version, note)),
            Search::None | Search::Ends { .. } => None,
        })
    }

    /// The commits of a version's runs that set rows aside, newest first: those behind version `after`.
    pub(super) async fn quarantined(&self, table: &Snapshot, after: Option<u64>) -> Result<Vec<(u64, CommitNote)>> {
        let mut found = Vec::new();
        let mut next = table.last_quarantine();
        while let Some(version) = next.filter(|&version| after.is_none_or(|after| version > after)) {
            let Some(Commit { note: Some(note), .. }) = self.commit_at(version).await? else { break };
            // Versions must decrease, also in a damaged log.
            next = note.quarantined_before.filter(|&before| before < version);
            found.push((version, note));
        }
        Ok(found)
    }

    /// The version that attempt `id` made, or `None` if it is not (or no longer) in the log. Searches from the newest
    /// version back.
    ///
    /// # Errors
    /// Kind `Table` if an entry is damaged, `Io` if reading fails.
    pub async fn version_by(&self, id: &str) -> Result<Option<u64>> {
        let Some(newest) = self.newest().await? else { return Ok(None) };
        Ok(match self.search(newest, |commit| commit.is_by(id)).await? {
            Search::Found(commit) => Some(commit.version),
            Search::None | Search::Ends { .. } => None,
        })
    }

    /// The commit that made `version`, or `None` if its entry is no longer in the log.
    pub(super) async fn commit_at(&self, version: u64) -> Result<Option<Commit>> {
        let name = file_name(version);
        let Some(bytes) = self.location.get(&name).await? else { return Ok(None) };
        let parsed = parse(version, &bytes);
        parsed.map(Some).map_err(|e| e.while_doing(format!("the log entry {} is damaged", self.location.show(&name))))
    }

    /// Whether the entry of `version` is in the log.
    pub(super) async fn has(&self, version: u64) -> Result<bool> {
        let name = file_name(version);
        match self.location.store().head(&self.location.path(&name)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(Error::io(format!("looking for {}", self.location.show(&name))).with_source(e)),
        }
    }

    /// The newest version, or `None` if there is no table.
    pub(super) async fn newest(&self) -> Result<Option<u64>> {
        Ok(self.listed().await?.newest())
    }

    fn no_such_version(&self, version: u64, there: &str) -> Error {
        Error::table(format!("{} has no version {version}: {there}", self.location))
    }

    fn not_for_us(&self, what: &str, why: &str) -> Error {
        Error::table(format!("cannot {what} {}: {why}", self.location))
    }

    /// Checks that this program may write to a table.
    ///
    /// # Errors
    /// Kind `Table` if the table requires features of its writers that this program does not have.
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

    /// Writes `actions` as `version`, with `note`, once the attempt's files that they name would survive a loss of power.
    /// False if another process made that version first. If a request was repeated or its answer lost, its own entry is
    /// recognised.
    ///
    /// # Errors
    /// Kind `Io` if writing fails; in an object store the entry may have been written nevertheless.
    pub(super) async fn commit(
        &self,
        version: u64,
        actions: Vec<Value>,
        operation: DeltaOperation,
        note: &CommitNote,
    ) -> Result<bool> {
        let files = files_of(&note.attempt, &actions, note);
        self.location.sync(&files.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let internal = |e: serde_json::Error| Error::internal("a log entry that is no JSON").with_source(e);
        let mut facts = HashMap::from([(NOTE.to_owned(), serde_json::to_value(note).map_err(internal)?)]);
        facts.insert("operationMetrics".to_owned(), metrics(&actions));
        facts.insert("clientVersion".to_owned(), concat!("dacpipe.", env!("CARGO_PKG_VERSION")).into());
        // delta-rs writes only the commit information: it would spell the paths of files differently.
        let said = CommitData::new(Vec::new(), operation, facts, Vec::new());
        let said = said.actions.iter().map(line).collect::<Result<Vec<Value>>>()?;
        let lines: Vec<String> = said.iter().chain(&actions).map(Value::to_string).collect();
        let bytes = Bytes::from(lines.join("\n"));
        let put = self.location.put_if_absent(&file_name(version), bytes, &staging_dir(&note.attempt)).await;
        match put {
            Ok(true) => Ok(true),
            put => match self.commit_at(version).await {
                Ok(Some(there)) if there.is_by(&note.attempt) => Ok(true),
                _ => put,
            },
        }
    }

    /// Writes a checkpoint after a commit, if one is due, so that readers need not read the whole log. A failure is
    /// only a warning, since the log is complete without it.
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

/// The value of the [checksums](Checksums) tag among the tags of a file.
fn tag(tags: &StructArray) -> Option<String> {
    let (names, values) = (tags.column(0).as_string_opt::<i32>()?, tags.column(1).as_string_opt::<i32>()?);
    let at = (0..tags.len()).find(|&at| names.value(at) == TAG && values.is_valid(at))?;
    Some(values.value(at).to_owned())
}

/// The key columns that a table names.
fn keys_of(metadata: &Metadata) -> Vec<String> {
    let keys = metadata.configuration().get(KEYS);
    keys.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
