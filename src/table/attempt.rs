//! One attempt to write a table: the lock that keeps other writers of a local table out, the mark that says which
//! files are not yet anybody's, and what removes them if nothing comes of it.
//!
//! Before its first file an attempt leaves `_log/<run id>.attempt`, and removes it after its commit. A mark that is
//! there while no process holds the lock is of an attempt that died: the next writer of a local table removes its
//! files, unless the log has its commit. In an object store nobody can tell whether a writer lives, so marks and files
//! of attempts that died stay; readers never look at them.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use bytes::Bytes;

use super::log::{DIRECTORY, Log};
use crate::error::{Error, Result};
use crate::store::{Location, TEMPORARY, failed};

const MARK: &str = ".attempt";
const LOCK: &str = "_log/.lock";

pub(super) fn data_dir(run_id: &str) -> String {
    format!("data/{run_id}")
}

pub(super) fn clusters_file(run_id: &str) -> String {
    format!("clusters/{run_id}.parquet")
}

pub(super) fn profile_file(run_id: &str) -> String {
    format!("profile/{run_id}.parquet")
}

pub(super) fn sample_file(run_id: &str) -> String {
    format!("sample/{run_id}.parquet")
}

/// The files beside a run's rows.
pub(super) fn files_beside(run_id: &str) -> [String; 3] {
    [clusters_file(run_id), profile_file(run_id), sample_file(run_id)]
}

fn mark_file(run_id: &str) -> String {
    format!("{DIRECTORY}/{run_id}{MARK}")
}

/// The right to write files as run `run_id`. Dropped before [`committed`](Self::committed), it removes them.
#[derive(Debug)]
pub(super) struct Attempt {
    location: Location,
    run_id: String,
    /// Keeps other writers of a local table out.
    _lock: Option<Lock>,
    armed: bool,
}

impl Attempt {
    /// Takes the lock of a local table, removes what attempts that died have left there, and leaves this one's mark.
    ///
    /// # Errors
    /// Kind `Config` for a run id that is no file name, `Table` if another process is writing a local table, or if the
    /// run id was used before, `Io` if files cannot be written.
    pub(super) async fn begin(log: &Log, location: &Location, run_id: &str) -> Result<Self> {
        check_run_id(run_id)?;
        let lock = match location.local_path() {
            Some(root) => lock(location, root)?,
            None => None,
        };
        if lock.is_some() {
            remove_leftovers(log, location).await?;
        }
        let used = || {
            Error::table(format!(
                "run id {run_id:?} was used for {location} before, or is in use; every run needs its own"
            ))
        };
        if !location.list(&data_dir(run_id)).await?.is_empty() {
            return Err(used());
        }
        let mark = Bytes::from(format!("{}\n", std::process::id()));
        if !location.put_if_absent(&mark_file(run_id), mark).await? {
            return Err(used());
        }
        Ok(Self { location: location.clone(), run_id: run_id.to_owned(), _lock: lock, armed: true })
    }

    /// The files now belong to a commit: only the mark goes.
    pub(super) async fn committed(&mut self) {
        self.armed = false;
        if let Err(e) = self.location.delete(&mark_file(&self.run_id)).await {
            tracing::warn!("a mark of a finished run stays behind: {e}");
        }
    }

    /// Whether the files were committed cannot be known: they and the mark stay.
    pub(super) fn leave(&mut self) {
        self.armed = false;
    }

    /// Removes the files and the mark.
    pub(super) async fn abort(&mut self) {
        self.armed = false;
        if let Err(e) = remove_files(&self.location, &self.run_id).await {
            tracing::warn!("files of a failed run stay behind: {e}");
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (location, run_id) = (self.location.clone(), self.run_id.clone());
        if let Some(root) = location.local_path() {
            if let Err(e) = remove_local_files(root, &run_id) {
                tracing::warn!("files of a failed run stay behind in {location}: {e}");
            }
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Nobody is left to wait for it, so it must not end with this value as a SpawnedTask would.
            runtime.spawn(async move {
                if let Err(e) = remove_files(&location, &run_id).await {
                    tracing::warn!("files of a failed run stay behind: {e}");
                }
            });
        }
    }
}

/// The lock of a local table, held until it is dropped.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that was started meanwhile has it open until it runs its program.
        if let Err(e) = self.0.unlock() {
            tracing::warn!("the lock of a table stays until this process ends: {e}");
        }
    }
}

fn check_run_id(run_id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !run_id.is_empty() && run_id.len() <= 128 && run_id.chars().all(fine) && !run_id.starts_with('.') {
        true => Ok(()),
        false => Err(Error::config(format!(
            "run id {run_id:?} is no file name; expected up to 128 letters, digits, '-', '_' and '.', no '.' first"
        ))),
    }
}

/// The lock, or `None` on a file system that has no locks: there the log alone keeps writers apart.
fn lock(location: &Location, root: &Path) -> Result<Option<Lock>> {
    let path = root.join(LOCK);
    let io = |e: std::io::Error| failed("locking", &location.show(LOCK), e);
    std::fs::create_dir_all(root.join(DIRECTORY)).map_err(io)?;
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: a holder that has not written its number yet is "another process".
            let _ = file.read_to_string(&mut holder);
            let who = match holder.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(Error::table(format!(
                "{location} is being written by {who}; wait until it is done, or write to another path"
            )));
        }
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(Some(Lock(file)))
}

/// Removes the files of attempts that died. Only the holder of the lock may: no other attempt can be alive.
async fn remove_leftovers(log: &Log, location: &Location) -> Result<()> {
    for file in location.list(DIRECTORY).await? {
        let Some(name) = file.location.filename() else { continue };
        if name.starts_with(TEMPORARY) {
            location.delete(&format!("{DIRECTORY}/{name}")).await?;
        } else if let Some(run_id) = name.strip_suffix(MARK) {
            match log.has_run(run_id).await? {
                true => location.delete(&mark_file(run_id)).await?,
                false => remove_files(location, run_id).await?,
            }
        }
    }
    Ok(())
}

/// Removes the data files, those beside them and the mark of a run.
pub(super) async fn remove_files(location: &Location, run_id: &str) -> Result<()> {
    if let Some(root) = location.local_path() {
        return remove_local_files(root, run_id).map_err(|e| failed("removing files below", &location.show("data"), e));
    }
    let data = data_dir(run_id);
    let below = location.path(&data)?;
    for file in location.list(&data).await? {
        let name = file.location.as_ref().strip_prefix(below.as_ref()).unwrap_or_default();
        location.delete(&format!("{data}{name}")).await?;
    }
    for file in files_beside(run_id) {
        location.delete(&file).await?;
    }
    location.delete(&mark_file(run_id)).await
}

/// The mark goes last, so that whoever dies on the way leaves the rest to the next.
fn remove_local_files(root: &Path, run_id: &str) -> std::io::Result<()> {
    let absent_is_fine = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    };
    std::fs::remove_dir_all(root.join(data_dir(run_id))).or_else(absent_is_fine)?;
    for file in files_beside(run_id) {
        std::fs::remove_file(root.join(file)).or_else(absent_is_fine)?;
    }
    std::fs::remove_file(root.join(mark_file(run_id))).or_else(absent_is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child process has the lock's file open, too, until it runs its program.
    #[tokio::test]
    async fn the_lock_ends_with_the_attempt_whoever_has_its_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let log = Log::new(place.clone());
        let first = Attempt::begin(&log, &place, "a").await.unwrap();
        let of_the_child = first._lock.as_ref().unwrap().0.try_clone().unwrap();
        let e = Attempt::begin(&log, &place, "b").await.unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Table, "{e}");
        drop(first);
        Attempt::begin(&log, &place, "b").await.unwrap();
        drop(of_the_child);
    }
}
