//! Removes the files that only old versions need.
//!
//! Files that a commit removed from the table stay for the retention period, for readers of earlier versions and for
//! time travel. Then they are deleted, with the files beside the rows of versions that cannot be read any more. Only
//! files that a commit of the log removed, and that have the names that attempts give, are deleted: any other file may
//! be a user's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::attempt::{BESIDE, any_lives, has_commit, is_data_file, is_file_beside, remove};
use super::entry::Commit;
use super::log::{Log, Snapshot};
use super::quarantine;
use super::writer::now_millis;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::store::Location;

/// How long removed files stay, unless the table's `delta.deletedFileRetentionDuration` says otherwise.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// The directory of models below a table.
const MODELS: &str = "models";
/// The number of digits of a model's hash in the name of its directory.
const SHORT_HASH: usize = 16;
/// How many commits back an overwrite looks for files to delete.
const LOOKS_BACK: u64 = 1000;

/// What [`vacuum`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// The number of data files, and of files beside them.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The number of dead attempts whose files were removed.
    pub attempts: usize,
    /// The number of models that no version names, which were removed.
    pub models: usize,
}

/// Deletes files that commits removed from the table at `location` longer than `retention` ago (the table's own
/// retention if `None`), files beside versions that cannot be read any more, files of attempts that died longer ago
/// than that, and models that no version names; likewise of the table of what runs set aside. With `dry_run` nothing is deleted, only counted.
///
/// # Errors
/// Kind `Table` if there is no table or it is damaged, `Io` if files cannot be removed.
pub async fn vacuum(location: &Location, retention: Option<Duration>, dry_run: bool) -> Result<Vacuumed> {
    let mut done = vacuum_alone(location, retention, dry_run).await?;
    if let Some(quarantine) = quarantine::place(location).await? {
        let of_it = vacuum_alone(&quarantine, retention, dry_run).await?;
        done.files += of_it.files;
        done.bytes += of_it.bytes;
        done.attempts += of_it.attempts;
    }
    Ok(done)
}

async fn vacuum_alone(location: &Location, retention: Option<Duration>, dry_run: bool) -> Result<Vacuumed> {
    let log = Log::new(location.clone());
    let table =
        log.snapshot(None).await?.ok_or_else(|| Error::table(format!("{} holds no table", location.looked_at())))?;
    let retention = retention.unwrap_or_else(|| of_table(&table));
    let mut removal = Removal::new(location, &table, dry_run);
    let mut commits = Vec::new();
    for version in (0..=table.version).rev() {
        let Some(commit) = log.commit_at(version).await? else { break };
        commits.push(commit);
    }
    let mut gone = Vec::new();
    for commit in commits.iter().filter(|commit| is_older(commit, retention)) {
        if removal.remove_taken_out(&log, commit).await? {
            gone.push(commit);
        }
    }
    removal.remove_beside(&commits, &unreadable(&commits, &gone)).await?;
    removal.remove_dead(&log, retention).await?;
    // The missing commits of a truncated log may have named any model.
    if commits.last().is_some_and(|oldest| oldest.version == 0) {
        removal.remove_models(&commits, retention).await?;
    }
    Ok(removal.done)
}

/// After an overwrite: deletes what has outlived the table's retention. What cannot be deleted is left to the next
/// overwrite.
pub(super) async fn after_overwrite(log: &Log, location: &Location) {
    let done = async {
        let Some(table) = log.snapshot(None).await? else { return Ok(()) };
        let retention = of_table(&table);
        let mut removal = Removal::new(location, &table, false);
        for version in (table.version.saturating_sub(LOOKS_BACK)..table.version).rev() {
            let Some(commit) = log.commit_at(version).await? else { break };
            let (before, takes_out) = (removal.done.files, !commit.removed.is_empty());
            if is_older(&commit, retention) && takes_out {
                removal.remove_taken_out(log, &commit).await?;
                // Older files were deleted together with these.
                if removal.done.files == before {
                    break;
                }
            }
        }
        Ok::<(), Error>(())
    };
    if let Err(e) = done.await {
        tracing::warn!("files of replaced versions of {location} stay behind: {e}");
    }
}

fn is_older(commit: &Commit, retention: Duration) -> bool {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    commit.timestamp.is_some_and(|at| at <= now_millis().saturating_sub(retention))
}

/// The retention that a table states: `interval 1 week`.
fn of_table(table: &Snapshot) -> Duration {
    let stated = table.metadata.configuration().get("delta.deletedFileRetentionDuration");
    let parsed = stated.and_then(|text| humantime::parse_duration(text.trim_start_matches("interval ").trim()).ok());
    parsed.unwrap_or(RETENTION)
}

/// Files to delete.
struct Removal<'a> {
    location: &'a Location,
    live: BTreeSet<&'a str>,
    dry_run: bool,
    done: Vacuumed,
}

impl<'a> Removal<'a> {
    fn new(location: &'a Location, table: &'a Snapshot, dry_run: bool) -> Self {
        let live = table.files.iter().map(|file| file.path.as_str()).collect();
        Self { location, live, dry_run, done: Vacuumed::default() }
    }

    /// Deletes the files that a commit removed. True if it had removed some and none of them was left.
    async fn remove_taken_out(&mut self, log: &Log, commit: &Commit) -> Result<bool> {
        let mut gone = !commit.removed.is_empty();
        for file in &commit.removed {
            log.check_path(&file.path)?;
            match self.live.contains(file.path.as_str()) || !is_data_file(&file.path) {
                // It was restored, or belongs to another program.
                true => gone = false,
                false => self.remove(&file.path).await?,
            }
        }
        Ok(gone)
    }

    /// Deletes the files beside versions that cannot be read any more, unless another version has them as well.
    async fn remove_beside(&mut self, commits: &[Commit], unreadable: &BTreeSet<u64>) -> Result<()> {
        let mut in_order: Vec<&Commit> = commits.iter().collect();
        in_order.sort_by_key(|commit| commit.version);
        let (mut needed, mut unneeded) = (BTreeSet::new(), BTreeSet::new());
        // A version uses the files of the last note up to it.
        let mut files: Vec<String> = Vec::new();
        for commit in in_order {
            if let Some(note) = &commit.note {
                files = note.files_beside().map(|file| file.path.clone()).collect();
            }
            match unreadable.contains(&commit.version) {
                true => unneeded.extend(files.iter().cloned()),
                false => needed.extend(files.iter().cloned()),
            }
        }
        for path in unneeded.difference(&needed).filter(|path| is_file_beside(path)) {
            self.remove(path).await?;
        }
        Ok(())
    }

    /// Removes attempts in an object store that began longer ago than `retention` and have no commit; in a local table,
    /// the next writer removes them.
    async fn remove_dead(&mut self, log: &Log, retention: Duration) -> Result<()> {
        if self.location.local_path().is_some() {
            return Ok(());
        }
        for file in self.location.list(BESIDE).await? {
            let age = now_millis() - file.last_modified.timestamp_millis();
            let mut parts: Vec<_> = file.location.parts().collect();
            let (name, id) = (parts.pop(), parts.pop());
            let (Some(name), Some(id)) = (name, id) else { continue };
            let old = u128::try_from(age).is_ok_and(|age| age > retention.as_millis());
            if name.as_ref() == "attempt.json" && old && has_commit(log, id.as_ref(), None).await? == Some(false) {
                self.done.attempts += 1;
                if !self.dry_run {
                    remove(self.location, id.as_ref()).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes the models of runs that died before their commit: those that no commit names, that are older than
    /// `retention`, and whose content has the hash in their directory's name, which proves that this program wrote
    /// them. None is removed while a writer of a local table is alive, since its model may be among them.
    async fn remove_models(&mut self, commits: &[Commit], retention: Duration) -> Result<()> {
        if self.location.local_path().is_some_and(any_lives) {
            return Ok(());
        }
        let named: BTreeSet<&str> =
            commits.iter().filter_map(|commit| commit.note.as_ref()?.model.get(..SHORT_HASH)).collect();
        let models = self.location.path(MODELS)?;
        let mut found: BTreeMap<String, i64> = BTreeMap::new();
        for file in self.location.list(MODELS).await? {
            let below: Vec<_> = file.location.prefix_match(&models).into_iter().flatten().collect();
            let [directory, _] = below.as_slice() else { continue };
            let newest = found.entry(directory.as_ref().to_owned()).or_default();
            *newest = (*newest).max(file.last_modified.timestamp_millis());
        }
        for (name, written) in found {
            let old = u128::try_from(now_millis() - written).is_ok_and(|age| age >= retention.as_millis());
            if named.contains(name.as_str()) || !old {
                continue;
            }
            let place = self.location.join(&format!("{MODELS}/{name}"))?;
            match Model::load(&place).await {
                Ok(model) if model.hash().short() == name => {}
                _ => continue,
            }
            self.done.models += 1;
            for file in Model::FILES {
                self.remove(&format!("{MODELS}/{name}/{file}")).await?;
            }
        }
        Ok(())
    }

    async fn remove(&mut self, path: &str) -> Result<()> {
        let size = match self.location.local_path() {
            Some(root) => local_size(root, path),
            None => {
                use object_store::ObjectStoreExt;
                self.location.store().head(&self.location.path(path)?).await.ok().map(|file| file.size)
            }
        };
        let Some(size) = size else { return Ok(()) };
        self.done.files += 1;
        self.done.bytes += size;
        if self.dry_run {
            return Ok(());
        }
        self.location.delete(path).await?;
        if let Some(root) = self.location.local_path() {
            // Removes directories that are empty now, up to the table's own.
            let mut dir = Path::new(path).parent();
            while let Some(below) = dir.filter(|dir| dir.components().count() > 1) {
                if std::fs::remove_dir(root.join(below)).is_err() {
                    break;
                }
                dir = below.parent();
            }
        }
        Ok(())
    }
}

/// The versions that can no longer be read because these commits removed a file of theirs that is now deleted: those
/// from the commit that added it.
fn unreadable(commits: &[Commit], gone: &[&Commit]) -> BTreeSet<u64> {
    let mut brought: BTreeMap<&str, u64> = BTreeMap::new();
    for commit in commits {
        for file in &commit.added {
            // Commits come newest first: the first one counts.
            brought.insert(&file.path, commit.version);
        }
    }
    let oldest = commits.last().map_or(0, |commit| commit.version);
    let spans = gone.iter().flat_map(|commit| {
        let since = |path: &str| brought.get(path).copied().unwrap_or(oldest);
        commit.removed.iter().map(move |file| (since(&file.path), commit.version)).collect::<Vec<_>>()
    });
    spans.flat_map(|(from, to)| from..to).collect()
}

/// The size of a file below `root`, unless a link is on its path.
fn local_size(root: &Path, path: &str) -> Option<u64> {
    let mut at = root.to_path_buf();
    for part in Path::new(path).components() {
        at.push(part);
        if std::fs::symlink_metadata(&at).ok()?.is_symlink() {
            return None;
        }
    }
    std::fs::symlink_metadata(&at).ok().filter(|file| file.is_file()).map(|file| file.len())
}
