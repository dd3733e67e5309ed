//! The upkeep of a table: its history, the compaction of small files, and the return to an earlier version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::kernel::{Action, Protocol};
use deltalake_core::protocol::DeltaOperation;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use serde_json::Value;

use super::actions::{add_of, line, remove_of};
use super::attempt::{Attempt, data_dir};
use super::commit::CommitNote;
use super::entry::Commit;
use super::files::FileSet;
use super::log::{DataFile, Log, Snapshot};
use super::provider::LabelTable;
use super::quarantine;
use super::writer::now_millis;
use crate::error::{Error, Result};
use crate::store::Location;

/// The target size of compacted files.
pub const TARGET_BYTES: u64 = 256 << 20;

/// The commits of the table at `location`, newest first, at most `limit` of them, as far as the log goes back.
///
/// # Errors
/// Kind `Table` if there is no table or an entry is damaged, `Io` if reading fails.
pub async fn history(location: &Location, limit: usize) -> Result<Vec<Commit>> {
    let log = Log::new(location.clone());
    let newest = log.newest().await?.ok_or_else(|| no_table(location))?;
    let mut commits = Vec::new();
    for version in (0..=newest).rev().take(limit) {
        match log.commit_at(version).await? {
            Some(commit) => commits.push(commit),
            None => break,
        }
    }
    Ok(commits)
}

/// The version of the table at `location` that was the newest at `time`, by the times in its commits. `O(log versions)`
/// reads.
///
/// # Errors
/// Kind `Table` if the table is younger than `time`, or there is no table.
pub async fn version_as_of(location: &Location, time: SystemTime) -> Result<u64> {
    let log = Log::new(location.clone());
    let newest = log.newest().await?.ok_or_else(|| no_table(location))?;
    let millis = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(_) => i64::MIN,
    };
    let asked = millis(time);
    // Binary search for the first later version. Versions that are no longer in the log are earlier than those that
    // are.
    let (mut low, mut high) = (0, newest + 1);
    let mut oldest = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let at = log.commit_at(middle).await?.and_then(|commit| commit.timestamp);
        oldest = oldest.min(at).or(at);
        match at.is_some_and(|at| at > asked) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low.checked_sub(1).ok_or_else(|| {
        let first = oldest.and_then(|at| UNIX_EPOCH.checked_add(std::time::Duration::from_millis(at.try_into().ok()?)));
        let since = first.map(|at| format!(", its first version is of {}", humantime::format_rfc3339_millis(at)));
        Error::table(format!(
            "{location} had no version at {}{}",
            humantime::format_rfc3339_millis(time),
            since.unwrap_or_default()
        ))
    })
}

/// What [`optimize`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optimized {
    /// The version that it made; `None` if there was nothing to compact.
    pub version: Option<u64>,
    /// The number of files that were compacted.
    pub removed: usize,
    /// The number of new files.
    pub added: usize,
    /// The bytes of the new files.
    pub bytes: u64,
}

/// Compacts small files of the table at `location`, partition by partition, into files of about `target` bytes. The
/// rows stay the same. Appends at the same time are no conflict. What runs set aside is compacted as well.
///
/// # Errors
/// Kind `Table` if there is no table, it cannot be written to, or another process removed one of the files meanwhile;
/// `Io` if files cannot be read or written. Nothing is committed then.
pub async fn optimize(location: &Location, target: u64) -> Result<Optimized> {
    let optimized = optimize_alone(location, target).await?;
    if let Some(quarantine) = quarantine::place(location).await? {
        optimize_alone(&quarantine, target).await?;
    }
    Ok(optimized)
}

async fn optimize_alone(location: &Location, target: u64) -> Result<Optimized> {
    let tended = Tended::begin(location, "optimize").await?;
    let mut by_partition: BTreeMap<Vec<(String, Option<String>)>, Vec<DataFile>> = BTreeMap::new();
    for file in tended.table.files.iter().filter(|file| file.bytes < target / 4 * 3) {
        let partition = file.partition.clone().into_iter().collect();
        by_partition.entry(partition).or_default().push(file.clone());
    }
    by_partition.retain(|_, files| files.len() > 1);
    if by_partition.is_empty() {
        tended.give_up().await;
        return Ok(Optimized { version: None, removed: 0, added: 0, bytes: 0 });
    }
    let mut added = Vec::new();
    for files in by_partition.values() {
        added.extend(tended.together(files, target).await?);
    }
    let small: Vec<DataFile> = by_partition.into_values().flatten().collect();
    let (now, last) = (now_millis(), small.iter().map(|file| file.added_at).max().unwrap_or_default());
    let mut actions: Vec<Value> = small.iter().map(|file| remove_of(file, now, false)).collect();
    // New files get the time of the last old one, so that rows keep their order among the files that stay.
    let come = added.iter().map(|file| add_of(file, last, false));
    actions.extend(come.collect::<Result<Vec<_>>>()?);
    let operation =
        DeltaOperation::Optimize { predicate: None, target_size: i64::try_from(target).unwrap_or(i64::MAX) };
    let removed: BTreeSet<&str> = small.iter().map(|file| file.path.as_str()).collect();
    let note = tended.table.clone();
    let version = tended.commit(actions, operation, &note, &removed).await?;
    let bytes = added.iter().map(|file| file.bytes).sum();
    Ok(Optimized { version: Some(version), removed: small.len(), added: added.len(), bytes })
}

/// Restores the table at `location` to `version`, by a new commit: the versions between can still be read and restored.
/// Returns the new version.
///
/// # Errors
/// Kind `Table` if there is no such version any more, files of it are gone, or another process commits meanwhile.
pub async fn restore(location: &Location, version: u64) -> Result<u64> {
    let tended = Tended::begin(location, "restore").await?;
    let old = match tended.log.snapshot(Some(version)).await {
        Ok(Some(old)) => old,
        Ok(None) => return Err(no_table(location)),
        Err(e) => return Err(e),
    };
    for file in &old.files {
        let there = location.store().head(&location.path(&file.path)?).await;
        if !there.is_ok_and(|there| there.size == file.bytes) {
            return Err(Error::table(format!(
                "{location} cannot be restored to version {version}: {} is gone; dacpipe table vacuum removes what was \
                 taken out longer ago than the retention",
                location.show(&file.path)
            )));
        }
    }
    for file in old.note.iter().flat_map(CommitNote::files_beside) {
        if location.store().head(&location.path(&file.path)?).await.is_err() {
            return Err(Error::table(format!(
                "{location} cannot be restored to version {version}: {} is gone, which its clusters are in",
                location.show(&file.path)
            )));
        }
    }
    let now = now_millis();
    let paths = |table: &Snapshot| table.files.iter().map(|file| file.path.clone()).collect::<BTreeSet<_>>();
    let (before, after) = (paths(&tended.table), paths(&old));
    let leave = tended.table.files.iter().filter(|file| !after.contains(&file.path));
    let mut actions: Vec<Value> = leave.map(|file| remove_of(file, now, true)).collect();
    let come = old.files.iter().filter(|file| !before.contains(&file.path));
    let come = come.map(|file| add_of(file, file.added_at, true));
    actions.extend(come.collect::<Result<Vec<_>>>()?);
    if old.metadata != tended.table.metadata {
        actions.insert(0, line(&Action::Metadata(old.metadata.clone()))?);
        // Protocol features are never removed: other versions may need them.
        let protocol: &Protocol = &tended.table.protocol;
        if old.protocol.min_writer_version() > protocol.min_writer_version() {
            actions.insert(0, line(&Action::Protocol(old.protocol.clone()))?);
        }
    }
    let operation = DeltaOperation::Restore { version: Some(version), datetime: None };
    let all = tended.table.files.clone();
    let all: BTreeSet<&str> = all.iter().map(|file| file.path.as_str()).collect();
    tended.commit(actions, operation, &old, &all).await
}

fn no_table(location: &Location) -> Error {
    Error::table(format!("{} holds no table", location.looked_at()))
}

/// A table under upkeep: its newest version, and the attempt that works on it.
struct Tended {
    location: Location,
    log: Log,
    table: Snapshot,
    attempt: Attempt,
    id: String,
}

impl Tended {
    async fn begin(location: &Location, what: &str) -> Result<Self> {
        let log = Log::new(location.clone());
        let table = log.snapshot(None).await?.ok_or_else(|| no_table(location))?;
        quarantine::catch_up(&log, &table).await;
        log.check_writable(&table, what == "restore")?;
        let id = format!("{what}-{}-{}", now_millis(), std::process::id());
        let attempt = Attempt::begin(&log, location, &id).await?;
        Ok(Self { location: location.clone(), log, table, attempt, id })
    }

    /// Writes the rows of these files, which are of one partition, in order to new files of about `target` bytes.
    async fn together(&self, files: &[DataFile], target: u64) -> Result<Vec<DataFile>> {
        let Snapshot { schema, partition_by, .. } = &self.table;
        let dir = data_dir(&self.id);
        let mut written = FileSet::new(&self.location, dir, Arc::clone(schema), partition_by, target, None)?;
        let table = LabelTable::of(&self.location, Snapshot { files: files.to_vec(), ..self.table.clone() });
        // In one partition of the plan, rows keep their order.
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let mut rows = context.read_table(Arc::new(table))?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            written.push(&batch?.with_schema(Arc::clone(schema))?).await?;
        }
        written.finish().await
    }

    async fn give_up(mut self) {
        self.attempt.abort().await;
    }

    /// Commits `actions` on top of whatever was appended meanwhile, as long as the files `taken` are still in the
    /// table. The files beside the rows are those of `like`.
    async fn commit(
        mut self,
        actions: Vec<Value>,
        operation: DeltaOperation,
        like: &Snapshot,
        taken: &BTreeSet<&str>,
    ) -> Result<u64> {
        let restores = matches!(operation, DeltaOperation::Restore { .. });
        loop {
            let version = self.table.version + 1;
            // An append meanwhile has written new clusters for all rows.
            let like = if restores { like } else { &self.table };
            let note = self.note(like);
            match self.log.commit(version, actions.clone(), operation.clone(), &note).await {
                Ok(true) => {
                    self.attempt.committed().await;
                    self.log.checkpoint(version).await;
                    return Ok(version);
                }
                Ok(false) => {}
                Err(e) => {
                    self.attempt.abort().await;
                    return Err(e);
                }
            }
            let now = self.log.snapshot(None).await?.filter(|now| now.version >= version);
            let now = now.ok_or_else(|| no_table(&self.location))?;
            let there: BTreeSet<&str> = now.files.iter().map(|file| file.path.as_str()).collect();
            if restores || !taken.is_subset(&there) || now.schema != self.table.schema {
                self.attempt.abort().await;
                return Err(Error::table(format!(
                    "another process committed version {version} of {} meanwhile; nothing was changed; run again",
                    self.location
                )));
            }
            self.table = now;
        }
    }

    fn note(&self, like: &Snapshot) -> CommitNote {
        let note = like.note.clone().unwrap_or_else(CommitNote::empty);
        // An older version is restored without its lineage: ids that were given since are not given again.
        let lineage = self.table.note.as_ref().and_then(|note| note.lineage.clone());
        CommitNote {
            attempt: self.id.clone(),
            rows: 0,
            skipped_rows: 0,
            quarantine: None,
            replayed: None,
            quarantined_before: like.last_quarantine(),
            lineage,
            ..note
        }
    }
}
