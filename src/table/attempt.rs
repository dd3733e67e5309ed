//! One attempt to write a table: its two directories, `data/<id>` and `_dacpipe/<id>`, its mark, and the cleanup if it
//! fails.
//!
//! An attempt begins with its mark, `_dacpipe/<id>/attempt.json`, which it keeps locked and removes after its commit.
//! If a mark of a local table is not locked, its attempt has died: the next writer removes its files, unless the log
//! has its commit. Nothing else is ever removed: only files with the names that attempts give, in the two directories
//! of one attempt, and never through a link. In an object store it is not known whether a writer lives, so the files of
//! attempts that died stay until `dacpipe table vacuum`; readers never look at them.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::log::{DIRECTORY, Log, Search};
use crate::error::{Error, Result};
use crate::store::{Location, TEMPORARY, failed};
use crate::unlinked::{is_dir, is_file, make_dir};

/// The directory of the files beside the rows. Other engines ignore directories whose names begin with an underscore.
pub(super) const BESIDE: &str = "_dacpipe";
/// The directory of the rows.
pub(crate) const DATA: &str = "data";
/// The prefix of the directories for the rows that stay when others of their file are replaced.
const KEPT: &str = "kept-";
/// The directory of the table of what runs set aside.
pub(crate) const QUARANTINE: &str = "quarantine";
const MARK: &str = "attempt.json";
/// The files of an attempt beside its rows.
const FILES_BESIDE: [&str; 6] =
    ["clusters.parquet", "profile.parquet", "sample.parquet", "lineage.parquet", "stream.json.zst", "replayed.parquet"];
/// A run's report about itself.
const RUN: &str = "run.json";
/// The entries that a directory may have and still become a table: those that runs write.
const OURS: [&str; 8] = [DIRECTORY, BESIDE, DATA, "models", QUARANTINE, "report", RUN, "_run"];

/// The directory of an attempt's rows.
pub(super) fn data_dir(id: &str) -> String {
    format!("{DATA}/{id}")
}

/// The directory of an attempt's temporary files.
pub(super) fn staging_dir(id: &str) -> String {
    format!("{BESIDE}/{id}")
}

/// The directory where an attempt that replaces rows writes the rows that stay of file `number`.
pub(super) fn kept_dir(id: &str, number: usize) -> String {
    format!("{DATA}/{id}/{KEPT}{number}")
}

/// The directory of the rows that an attempt sets aside, below the table's quarantine.
pub(super) fn quarantine_dir(id: &str) -> String {
    format!("{QUARANTINE}/{DATA}/{id}")
}

pub(super) fn clusters_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[0])
}

pub(super) fn profile_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[1])
}

pub(super) fn sample_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[2])
}

pub(super) fn lineage_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[3])
}

pub(super) fn stream_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[4])
}

pub(super) fn replayed_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{}", FILES_BESIDE[5])
}

fn mark_file(id: &str) -> String {
    format!("{BESIDE}/{id}/{MARK}")
}

/// The content of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The attempt's id: the name of its directory.
    attempt: String,
    /// The newest version when the attempt began. Its commit, if there is one, comes later.
    since: Option<u64>,
    /// The process, for information.
    process: u32,
}

/// The right to write files as attempt `id`. Dropped before [`committed`](Self::committed), it removes them.
#[derive(Debug)]
pub(super) struct Attempt {
    location: Location,
    id: String,
    /// The locked mark, which shows that this attempt lives.
    _lock: Option<Lock>,
    armed: bool,
}

impl Attempt {
    /// Removes the files that dead attempts have left in a local table, and writes this one's mark.
    ///
    /// # Errors
    /// Kind `Config` for an id that is not a file name, or a place that contains other things than a table; `Table` if
    /// the id was used before; `Io` if files cannot be written.
    pub(super) async fn begin(log: &Log, location: &Location, id: &str) -> Result<Self> {
        check_id(id)?;
        let since = log.newest().await?;
        if let Some(root) = location.local_path() {
            check_place(location, root, since.is_some())?;
            sweep(log, location, root).await?;
        }
        Self::marked(location, id, since).await
    }

    /// Writes the mark of another attempt by a process that has removed what dead ones left before, while version `since`
    /// was the newest.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin).
    pub(super) async fn begin_after(location: &Location, id: &str, since: u64) -> Result<Self> {
        check_id(id)?;
        Self::marked(location, id, Some(since)).await
    }

    /// Begins an attempt in a directory below a table, which no other program uses: as [`begin`](Self::begin), whatever is
    /// there.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin).
    pub(super) async fn begin_below(log: &Log, location: &Location, id: &str) -> Result<Self> {
        check_id(id)?;
        let since = log.newest().await?;
        if let Some(root) = location.local_path() {
            sweep(log, location, root).await?;
        }
        Self::marked(location, id, since).await
    }

    async fn marked(location: &Location, id: &str, since: Option<u64>) -> Result<Self> {
        let used = || {
            Error::table(format!("run id {id:?} was used for {location} before, or is in use; every run needs its own"))
        };
        let there = location.list(&data_dir(id)).await?.len() + location.list(&staging_dir(id)).await?.len();
        if there > 0 {
            return Err(used());
        }
        let mark = Mark { attempt: id.to_owned(), since, process: std::process::id() };
        let text = serde_json::to_vec(&mark).map_err(|e| Error::internal("a mark that is no JSON").with_source(e))?;
        let lock = match location.local_path() {
            Some(root) => Some(leave_mark(location, root, id, &text)?.ok_or_else(used)?),
            None => match location.put_if_absent(&mark_file(id), Bytes::from(text), &staging_dir(id)).await? {
                true => None,
                false => return Err(used()),
            },
        };
        Ok(Self { location: location.clone(), id: id.to_owned(), _lock: lock, armed: true })
    }

    /// The files now belong to a commit: removes only the mark.
    pub(super) async fn committed(&mut self) {
        self.armed = false;
        if let Err(e) = forget(&self.location, &self.id).await {
            tracing::warn!("the mark of a finished run stays behind: {e}");
        }
    }

    /// It is not known whether the files were committed: they and the mark stay.
    pub(super) fn leave(&mut self) {
        self.armed = false;
    }

    /// Removes the files and the mark.
    pub(super) async fn abort(&mut self) {
        self.armed = false;
        if let Err(e) = remove(&self.location, &self.id).await {
            tracing::warn!("files of a failed run stay behind: {e}");
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (location, id) = (self.location.clone(), self.id.clone());
        if let Some(root) = location.local_path() {
            if let Err(e) = remove_local(root, &id) {
                tracing::warn!("files of a failed run stay behind in {location}: {e}");
            }
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A SpawnedTask would be cancelled when this value is dropped, and nobody waits for the task.
            runtime.spawn(async move {
                if let Err(e) = remove(&location, &id).await {
                    tracing::warn!("files of a failed run stay behind: {e}");
                }
            });
        }
    }
}

/// The lock of a mark, held until it is dropped.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is being started has it open until it executes its
        // program.
        if let Err(e) = self.0.unlock() {
            tracing::warn!("the lock of an attempt stays until this process ends: {e}");
        }
    }
}

fn check_id(id: &str) -> Result<()> {
    match is_id(id) {
        true => Ok(()),
        false => Err(Error::config(format!(
            "run id {id:?} is no file name; expected up to 128 letters, digits, '-', '_' and '.', no '.' first"
        ))),
    }
}

fn is_id(id: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= 128 && id.chars().all(fine) && !id.starts_with('.')
}

/// Checks that a directory is a table already, or contains only what runs write.
fn check_place(location: &Location, root: &Path, is_table: bool) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::config(format!("{} cannot be a table: {what}; name a new directory", root.display())))
    };
    if root.is_file() {
        return refuse("it is a file".to_owned());
    }
    if root.parent().is_none() {
        return refuse("it is the root of the file system".to_owned());
    }
    let home = std::env::var_os("HOME").and_then(|home| std::fs::canonicalize(home).ok());
    if home.is_some_and(|home| home == root) {
        return refuse("it is the home directory".to_owned());
    }
    if is_table {
        return Ok(());
    }
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("reading", &location.to_string(), e)),
    };
    for entry in entries {
        let name = entry.map_err(|e| failed("reading", &location.to_string(), e))?.file_name();
        let name = name.to_string_lossy();
        let of_run = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"dacpipe\""));
        let ours = OURS.contains(&name.as_ref()) && (name != RUN || of_run(&root.join(RUN)));
        if !ours && !name.starts_with("_run-") {
            return refuse(format!("it holds other things, {name:?} among them"));
        }
    }
    Ok(())
}

/// Makes the directory of a local attempt and its mark, locked; `None` if there is a mark already.
fn leave_mark(location: &Location, root: &Path, id: &str, text: &[u8]) -> Result<Option<Lock>> {
    let path = root.join(mark_file(id));
    let io = |e: std::io::Error| failed("writing", &location.show(&mark_file(id)), e);
    make_dir(&root.join(BESIDE)).and_then(|()| make_dir(&root.join(staging_dir(id)))).map_err(io)?;
    let mut file = match File::options().read(true).write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    match file.try_lock() {
        Ok(()) => {}
        // Another writer's sweep may hold the lock for a moment; it finds an empty mark.
        Err(TryLockError::WouldBlock) => file.lock().map_err(io)?,
        // A file system without locks: dead attempts are not removed there.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    if let Err(e) = file.write_all(text) {
        let _ = std::fs::remove_file(&path);
        return Err(io(e));
    }
    Ok(Some(Lock(file)))
}

/// Removes the files of attempts that died.
async fn sweep(log: &Log, location: &Location, root: &Path) -> Result<()> {
    for (id, mark, _lock) in dead(root).map_err(|e| failed("reading", &location.show(BESIDE), e))? {
        match has_commit(log, &id, mark.since).await? {
            Some(true) => forget(location, &id).await?,
            Some(false) => {
                remove_local(root, &id).map_err(|e| failed("removing files below", &location.show(DATA), e))?;
            }
            // The log does not go back that far, so the files may belong to a commit.
            None => {}
        }
    }
    Ok(())
}

/// The attempts whose marks are not locked, with their marks, now locked so that no other writer sweeps them as well.
fn dead(root: &Path) -> std::io::Result<Vec<(String, Mark, Lock)>> {
    let beside = root.join(BESIDE);
    let mut found = Vec::new();
    if !is_dir(&beside) {
        return Ok(found);
    }
    for entry in std::fs::read_dir(&beside)? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().filter(|id| is_id(id)).map(str::to_owned) else { continue };
        let path = entry.path().join(MARK);
        if !is_dir(&entry.path()) || !is_file(&path) {
            continue;
        }
        let Ok(mut file) = File::options().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let lock = Lock(file.try_clone()?);
        let mut text = String::new();
        if file.read_to_string(&mut text).is_err() {
            continue;
        }
        match serde_json::from_str::<Mark>(&text) {
            Ok(mark) if mark.attempt == id => found.push((id, mark, lock)),
            _ => {}
        }
    }
    Ok(found)
}

/// Whether a writer of the local table at `root` is alive: its mark is locked. A mark that cannot be read counts as
/// locked.
pub(super) fn any_lives(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root.join(BESIDE)) else { return false };
    entries.flatten().map(|entry| entry.path().join(MARK)).filter(|mark| is_file(mark)).any(
        |mark| match File::options().read(true).write(true).open(&mark) {
            Ok(file) => match file.try_lock() {
                Ok(()) => {
                    drop(Lock(file));
                    false
                }
                Err(_) => true,
            },
            Err(_) => true,
        },
    )
}

/// Whether there is a commit by attempt `id`; `None` if the log no longer has all commits after version `since`, which
/// was the newest when the attempt began. Earlier commits in the log are searched as well, in case a mark is wrong.
pub(super) async fn has_commit(log: &Log, id: &str, since: Option<u64>) -> Result<Option<bool>> {
    let Some(newest) = log.newest().await? else { return Ok(Some(false)) };
    Ok(match log.search(newest, |commit| commit.is_by(id)).await? {
        Search::Found(_) => Some(true),
        Search::None => Some(false),
        Search::Ends { at } => since.is_some_and(|since| at <= since).then_some(false),
    })
}

/// Removes the mark of an attempt whose commit is in the log, and its directory if nothing is left there.
async fn forget(location: &Location, id: &str) -> Result<()> {
    location.delete(&mark_file(id)).await?;
    if let Some(root) = location.local_path() {
        let _ = std::fs::remove_dir(root.join(staging_dir(id)));
    }
    Ok(())
}

/// Removes the data files, the files beside them and the mark of an attempt.
pub(super) async fn remove(location: &Location, id: &str) -> Result<()> {
    if let Some(root) = location.local_path() {
        return remove_local(root, id).map_err(|e| failed("removing files below", &location.show(DATA), e));
    }
    for data in [data_dir(id), quarantine_dir(id)] {
        let below = location.path(&data)?;
        for file in location.list(&data).await? {
            let name = file.location.as_ref().strip_prefix(below.as_ref()).unwrap_or_default();
            location.delete(&format!("{data}{name}")).await?;
        }
    }
    for name in FILES_BESIDE {
        location.delete(&format!("{BESIDE}/{id}/{name}")).await?;
    }
    location.delete(&mark_file(id)).await
}

/// Removes the mark last, so that if this process dies on the way, the next writer removes the rest.
fn remove_local(root: &Path, id: &str) -> std::io::Result<()> {
    if is_dir(&root.join(DATA)) {
        remove_below(&root.join(data_dir(id)), &|name| is_part(name), 8)?;
    }
    if is_dir(&root.join(QUARANTINE)) {
        remove_below(&root.join(quarantine_dir(id)), &|name| is_part(name), 1)?;
    }
    let beside = root.join(BESIDE);
    if !is_dir(&beside) {
        return Ok(());
    }
    let ours =
        |name: &str| name != MARK && (name.starts_with(TEMPORARY) || is_staged(name, |n| FILES_BESIDE.contains(&n)));
    let dir = beside.join(id);
    remove_below(&dir, &ours, 0)?;
    if is_file(&dir.join(MARK)) {
        std::fs::remove_file(dir.join(MARK))?;
    }
    let _ = std::fs::remove_dir(&dir);
    Ok(())
}

/// Removes the files in `dir` whose names are `ours`, and those in partition directories, `depth` levels down.
/// Directories that are then empty are removed too. Links stay.
fn remove_below(dir: &Path, ours: &dyn Fn(&str) -> bool, depth: usize) -> std::io::Result<()> {
    if !is_dir(dir) {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if is_file(&entry.path()) && ours(name) {
            std::fs::remove_file(entry.path())?;
        } else if depth > 0 && is_dir(&entry.path()) && (name.contains('=') || name.starts_with(KEPT)) {
            remove_below(&entry.path(), ours, depth - 1)?;
        }
    }
    if depth > 0 {
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}

/// Whether a path below the table is one of an attempt's data files.
pub(super) fn is_data_file(path: &str) -> bool {
    let mut parts = path.split('/');
    let in_data = parts.next() == Some(DATA) && parts.next().is_some_and(is_id);
    let name = parts.next_back();
    let between = |part: &str| part.contains('=') || part.starts_with(KEPT);
    in_data && parts.all(between) && name.is_some_and(is_part)
}

/// Whether a path below the table is one of an attempt's files beside the rows.
pub(super) fn is_file_beside(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], [BESIDE, id, name] if is_id(id) && FILES_BESIDE.contains(&name))
}

/// Whether an attempt gives data files this name: `part-00000.parquet`.
pub(super) fn is_part(name: &str) -> bool {
    is_staged(name, |name| {
        let number = name.strip_prefix("part-").and_then(|name| name.strip_suffix(".parquet"));
        number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Whether a name is right, or is the temporary form of a right one: local stores write `name#1` first.
fn is_staged(name: &str, right: impl Fn(&str) -> bool) -> bool {
    match name.split_once('#') {
        Some((name, number)) => right(name) && number.bytes().all(|b| b.is_ascii_digit()),
        None => right(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child process has the mark's file open, too, until it executes its program.
    #[tokio::test]
    async fn an_attempt_is_dead_when_it_is_gone_whoever_has_its_mark_open() {
        let dir = tempfile::tempdir().unwrap();
        let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let log = Log::new(place.clone());
        let mut first = Attempt::begin(&log, &place, "a").await.unwrap();
        let of_the_child = first._lock.as_ref().unwrap().0.try_clone().unwrap();
        assert_eq!(dead(dir.path()).unwrap().len(), 0, "it lives");
        first.leave();
        drop(first);
        assert_eq!(dead(dir.path()).unwrap().len(), 1);
        Attempt::begin(&log, &place, "a").await.unwrap();
        drop(of_the_child);
    }

    #[test]
    fn paths_of_attempts_are_told_from_others() {
        for ours in
            ["data/r1/part-00000.parquet", "data/r1/a=1/b=2/part-00000.parquet", "data/r1/kept-3/part-00001.parquet"]
        {
            assert!(is_data_file(ours), "{ours}");
        }
        for other in [
            "part-00000.parquet",
            "data/part-00000.parquet",
            "data/r1/sub/part-00000.parquet",
            "data/../part-00000.parquet",
            "_delta_log/00000000000000000000.json",
            "models/m/part-00000.parquet",
            "data/r1/notes.txt",
        ] {
            assert!(!is_data_file(other), "{other}");
        }
        assert!(is_file_beside("_dacpipe/r1/clusters.parquet"));
        assert!(!is_file_beside("_dacpipe/r1/other.parquet") && !is_file_beside("_dacpipe/../clusters.parquet"));
    }

    #[test]
    fn names_of_data_files_are_told_from_others() {
        for ours in ["part-00000.parquet", "part-123456.parquet", "part-00007.parquet#3"] {
            assert!(is_part(ours), "{ours}");
        }
        for other in
            ["part-1.parquet", "part-00000.parquet.bak", "part-0000x.parquet", "photo.jpg", "part-00000.parquet#x"]
        {
            assert!(!is_part(other), "{other}");
        }
    }
}
