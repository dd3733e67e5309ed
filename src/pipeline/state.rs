//! What an interrupted run leaves behind for `run --resume`: the stages already fitted, and the latest state of the
//! one that was learning.
//!
//! Every file is written beside its place and renamed, so a kill at any moment leaves the file before or the file
//! after. The state belongs to one pipeline over one data set: a digest of both is kept and compared.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::model::{decode_arrays, encode_arrays};
use crate::report::RunReport;
use crate::stage::{Artifact, Checkpoint};
use crate::store::{Location, TEMPORARY, failed};

/// Where an interrupted run leaves its state: in a local table's directory, else under the working directory.
pub(super) fn state_dir(sink: &Location, name: &str) -> PathBuf {
    match sink.local_path() {
        Some(path) => path.join("_run"),
        None => Path::new(".dacpipe").join(name),
    }
}

/// A state directory that is this run's as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// The directory `path`, or, where another run into the same table has that, one of its own beside it.
    ///
    /// # Errors
    /// Kind `Table` if another run has it and this one is to resume what is there; `Io` if it cannot be made.
    pub fn claim(path: &Path, run_id: &str, resume: bool) -> Result<Self> {
        if let Some(claimed) = Self::try_claim(path)? {
            return Ok(claimed);
        }
        if resume {
            let holder = std::fs::read_to_string(path.join(LOCK)).unwrap_or_default();
            return Err(Error::table(format!(
                "--resume: the run in {} is under way in process {}; wait until it is done",
                path.display(),
                holder.trim()
            )));
        }
        let own = path.with_file_name(format!("_run-{run_id}"));
        Self::try_claim(&own)?
            .ok_or_else(|| Error::table(format!("run {run_id} is under way in {} already", own.display())))
    }

    fn try_claim(path: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(path).map_err(|e| at(path, "cannot create", e))?;
        let file = path.join(LOCK);
        let io = |e: std::io::Error| at(&file, "cannot lock", e);
        let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&file).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(io)?;
        Ok(Some(Self { path: path.to_path_buf(), lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Where no state was kept, nothing stays.
        if !self.path.join(IDENTITY).exists() {
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
        }
        // Closing the file is not enough: a process that was started meanwhile has it open until it runs its program.
        let _ = self.lock.unlock();
    }
}

/// The state directory of one run.
#[derive(Debug, Clone)]
pub struct RunState {
    dir: PathBuf,
}

impl RunState {
    /// The state in `dir` of a run identified by `identity` (pipeline and data). With `resume`, the state that is
    /// there goes on if its identity is the same; without, it is cleared.
    ///
    /// # Errors
    /// Kind `Config` if `resume` is asked for and there is nothing to resume, or it was another pipeline or other data.
    pub fn open(dir: &Path, identity: &str, resume: bool) -> Result<Self> {
        let file = dir.join(IDENTITY);
        if resume {
            Self::check_resumable(dir)?;
            let found = std::fs::read_to_string(&file).map_err(|e| at(&file, "cannot read", e))?;
            if found != identity {
                return Err(Error::config(format!(
                    "--resume: the pipeline file or its data changed since the run in {} was interrupted; \
                     run without --resume to start anew",
                    dir.display()
                )));
            }
        } else {
            Self { dir: dir.to_path_buf() }.forget()?;
            std::fs::create_dir_all(dir).map_err(|e| at(dir, "cannot create", e))?;
            write_whole(&file, identity.as_bytes())?;
        }
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// The state in `dir`, as it is.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// An error of kind `Config` if there is no interrupted run in `dir`.
    pub fn check_resumable(dir: &Path) -> Result<()> {
        match dir.join(IDENTITY).exists() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "--resume: no interrupted run in {}; run without --resume to start one",
                dir.display()
            ))),
        }
    }

    /// The fitted stage number `index`, if an earlier attempt got that far.
    pub fn fitted(&self, index: usize) -> Result<Option<Kept>> {
        let path = self.fitted_path(index);
        let Some(mut artifact) = read_artifact(&path)? else {
            return Ok(None);
        };
        let about =
            artifact.settings.remove(ABOUT).ok_or_else(|| damaged(&path, "it does not say which stage it is"))?;
        let about = serde_json::from_value(about).map_err(|e| damaged(&path, &e.to_string()))?;
        Ok(Some(Kept { about, artifact }))
    }

    /// Keeps the fitted stage number `index`, and drops the checkpoint it learned with.
    pub fn keep_fitted(&self, index: usize, kept: Kept) -> Result<()> {
        let Kept { about, mut artifact } = kept;
        let about = serde_json::to_value(about).map_err(|e| Error::internal("a fitted stage").with_source(e))?;
        artifact.settings.insert(ABOUT.into(), about);
        write_artifact(&self.fitted_path(index), &artifact)?;
        remove(&self.checkpoint_path(index))
    }

    /// Where stage number `index` keeps its state while it learns.
    pub fn checkpoint(&self, index: usize) -> StageCheckpoint {
        StageCheckpoint { path: self.checkpoint_path(index) }
    }

    /// Keeps the report of a run that is about to commit.
    pub fn keep_report(&self, report: &RunReport) -> Result<()> {
        write_whole(&self.dir.join(REPORT), report.to_json()?.as_bytes())
    }

    /// The report of a run that was about to commit.
    pub fn report(&self) -> Result<Option<RunReport>> {
        let path = self.dir.join(REPORT);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| damaged(&path, &e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(at(&path, "cannot read", e)),
        }
    }

    /// Removes the state: the run is complete.
    pub fn clear(&self) -> Result<()> {
        self.forget()?;
        remove(&self.dir.join(LOCK))?;
        let _ = std::fs::remove_dir(&self.dir);
        Ok(())
    }

    /// Removes the files of a state, and nothing else that may be there.
    fn forget(&self) -> Result<()> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(at(&self.dir, "cannot read", e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| at(&self.dir, "cannot read", e))?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| {
                [IDENTITY, REPORT].contains(&name)
                    || [".fitted", ".checkpoint"].iter().any(|end| name.ends_with(end))
                    || name.starts_with(TEMPORARY)
            });
            if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn fitted_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.fitted"))
    }

    fn checkpoint_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.checkpoint"))
    }
}

/// A fitted stage as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What it is and how it was learned.
    pub about: About,
    /// What rebuilds it.
    pub artifact: Artifact,
}

/// What a kept stage is and how it was learned. The model names its figures, so a resumed run needs them to make the
/// same model.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// The kind under which it is saved.
    pub kind: String,
    /// One line for people.
    pub summary: String,
    /// Its figures by name.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// The file that a run holds locked while the state is its own.
const LOCK: &str = "lock";
/// The file that says whose state it is.
const IDENTITY: &str = "identity";
/// The file that holds the report of a run that is about to commit.
const REPORT: &str = "report.json";
/// Bytes of the hash that a file begins with.
const HASH_BYTES: usize = 32;
/// The key of the settings under which [`About`] is kept.
const ABOUT: &str = "__about";
/// The key of a file's metadata that holds the settings.
const SETTINGS: &str = "settings";

/// A [`Checkpoint`] in one file.
#[derive(Debug, Clone)]
pub struct StageCheckpoint {
    path: PathBuf,
}

impl Checkpoint for StageCheckpoint {
    fn save(&self, state: &Artifact) -> Result<()> {
        write_artifact(&self.path, state)
    }

    fn load(&self) -> Result<Option<Artifact>> {
        read_artifact(&self.path)
    }
}

fn write_artifact(path: &Path, artifact: &Artifact) -> Result<()> {
    let settings = serde_json::to_string(&artifact.settings)
        .map_err(|e| Error::internal("settings of a checkpoint").with_source(e))?;
    let content = encode_arrays(&artifact.tensors, Some((SETTINGS, &settings)))?;
    let mut bytes = Sha256::digest(&content).to_vec();
    bytes.extend(content);
    write_whole(path, &bytes)
}

fn read_artifact(path: &Path) -> Result<Option<Artifact>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(path, "cannot read", e)),
    };
    let (said, content) = bytes.split_at_checked(HASH_BYTES).ok_or_else(|| damaged(path, "it is cut short"))?;
    if Sha256::digest(content).as_slice() != said {
        return Err(damaged(path, "its content does not have its hash"));
    }
    let (tensors, metadata) = decode_arrays(content).map_err(|e| damaged(path, &e.to_string()))?;
    let settings = metadata.get(SETTINGS).ok_or_else(|| damaged(path, "it has no settings"))?;
    let settings = serde_json::from_str(settings).map_err(|e| damaged(path, &e.to_string()))?;
    Ok(Some(Artifact { settings, tensors }))
}

/// Writes a file all or nothing.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| failed("writing", &path.display().to_string(), e))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at(path, "cannot remove", e)),
        _ => Ok(()),
    }
}

fn at(path: &Path, what: &str, e: std::io::Error) -> Error {
    Error::io(format!("{what} {}", path.display())).with_source(e)
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::io(format!("{} is damaged ({why}); run without --resume to start anew", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Kind;
    use crate::stage::Tensor;

    fn artifact() -> Artifact {
        let tensor = Tensor { shape: vec![2, 1], values: vec![1.5, f32::MIN_POSITIVE / 4.0] };
        let settings = serde_json::from_str(r#"{"epoch": 3, "loss": [0.1, 0.30000000000000004]}"#).unwrap();
        Artifact { settings, tensors: BTreeMap::from([("moment".to_string(), tensor)]) }
    }

    fn kept() -> Kept {
        let figures = serde_json::from_str(r#"{"loss": [0.1, 0.30000000000000004]}"#).unwrap();
        Kept { about: About { kind: "embed".into(), summary: "loss 0.3".into(), figures }, artifact: artifact() }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let state = RunState::open(&dir.path().join("state"), "a", false).unwrap();
        let checkpoint = state.checkpoint(2);
        assert_eq!(checkpoint.load().unwrap(), None);
        checkpoint.save(&artifact()).unwrap();
        assert_eq!(checkpoint.load().unwrap(), Some(artifact()));
        state.keep_fitted(2, kept()).unwrap();
        assert_eq!(checkpoint.load().unwrap(), None);
        let again = RunState::open(&dir.path().join("state"), "a", true).unwrap();
        assert_eq!(again.fitted(2).unwrap(), Some(kept()));
        assert_eq!(again.fitted(1).unwrap(), None);
    }

    #[test]
    fn only_the_same_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        let e = RunState::open(&place, "a", true).unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.to_string().contains("no interrupted run"), "{e}");
        let state = RunState::open(&place, "a", false).unwrap();
        state.keep_fitted(0, kept()).unwrap();
        let e = RunState::open(&place, "b", true).unwrap_err();
        assert!(e.to_string().contains("changed"), "{e}");
        let anew = RunState::open(&place, "b", false).unwrap();
        assert_eq!(anew.fitted(0).unwrap(), None);
    }

    #[test]
    fn two_runs_have_two_directories() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("_run");
        let first = StateDir::claim(&place, "a", false).unwrap();
        let e = StateDir::claim(&place, "b", true).unwrap_err();
        assert_eq!(e.kind(), Kind::Table);
        assert!(e.to_string().contains(&format!("under way in process {};", std::process::id())), "{e}");
        let second = StateDir::claim(&place, "b", false).unwrap();
        assert_eq!(second.path(), dir.path().join("_run-b"));
        drop(second);
        drop(first);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_state_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        let state = RunState::open(dir.path(), "a", false).unwrap();
        state.keep_fitted(0, kept()).unwrap();
        state.clear().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = RunState::open(dir.path(), "a", false).unwrap();
        std::fs::write(dir.path().join("0.fitted"), b"not one").unwrap();
        let e = state.fitted(0).unwrap_err();
        assert!(e.to_string().contains("0.fitted"), "{e}");
    }
}
