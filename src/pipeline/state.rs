//! The state of an interrupted run for `run --resume`: the stages already fitted, and the latest checkpoint of the one
//! that was learning.
//!
//! Every file is written under a temporary name and renamed, so a kill at any moment leaves either the old or the new
//! file. The state belongs to one pipeline over one data set: a digest of both is kept and compared. The file with the
//! digest and the lock file begin with a mark. Files in a directory without the mark are not dacpipe's, and are neither
//! removed nor overwritten. Links are not followed.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::model::{decode_arrays, encode_arrays};
use crate::report::RunReport;
use crate::stage::{Artifact, Checkpoint};
use crate::store::{Location, TEMPORARY, failed};
use crate::unlinked;

/// The directory of states below the working directory.
const STATES: &str = ".dacpipe";

/// The directory of a run's state: in a local table's directory, else below the working directory.
pub(super) fn state_dir(sink: &Location, name: &str) -> PathBuf {
    match sink.local_path() {
        Some(path) => path.join("_run"),
        None => Path::new(STATES).join(name),
    }
}

/// A state directory that is locked for this run as long as this value lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Locks the directory `path`, or, if another run into the same table has it, one of its own beside it.
    ///
    /// # Errors
    /// Kind `Table` if another run has it and this one is to resume; `Io` if it cannot be made.
    pub fn claim(path: &Path, run_id: &str, resume: bool) -> Result<Self> {
        if let Some(claimed) = Self::try_claim(path)? {
            return Ok(claimed);
        }
        if resume {
            let holder = match unlinked::is_file(&path.join(LOCK)) {
                true => std::fs::read_to_string(path.join(LOCK)).unwrap_or_default(),
                false => String::new(),
            };
            return Err(Error::table(format!(
                "--resume: the run in {} is under way in process {}; wait until it is done",
                path.display(),
                holder.trim_start_matches(LOCK_MARK).trim()
            )));
        }
        let own = path.with_file_name(format!("_run-{run_id}"));
        Self::try_claim(&own)?
            .ok_or_else(|| Error::table(format!("run {run_id} is under way in {} already", own.display())))
    }

    fn try_claim(path: &Path) -> Result<Option<Self>> {
        make_dir(path)?;
        let file = path.join(LOCK);
        let io = |e: std::io::Error| at(&file, "cannot lock", e);
        let mut lock = unlinked::open_or_create(&file).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        let mut text = Vec::new();
        (&lock).take(LOCK_MARK.len() as u64).read_to_end(&mut text).map_err(io)?;
        if !LOCK_MARK.as_bytes().starts_with(&text) {
            let _ = lock.unlock();
            return Err(not_ours(&file));
        }
        let whose = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{LOCK_MARK}{}", std::process::id())
        };
        whose(&mut lock).map_err(io)?;
        Ok(Some(Self { path: path.to_path_buf(), lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A directory without a state is removed.
        if !self.path.join(IDENTITY).exists() {
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
        }
        // Closing the file is not enough: a child process that is being started has it open until it executes its
        // program.
        let _ = self.lock.unlock();
    }
}

/// The state directory of one run.
#[derive(Debug, Clone)]
pub struct RunState {
    dir: PathBuf,
}

impl RunState {
    /// The state in `dir` of a run identified by `identity` (pipeline and data). With `resume`, an existing state is
    /// kept if its identity is the same; without, it is removed.
    ///
    /// # Errors
    /// Kind `Config` if `resume` is asked for and the state is that of another pipeline or other data, or if a file
    /// that is not dacpipe's has the name of one of the state.
    pub fn open(dir: &Path, identity: &str, resume: bool) -> Result<Self> {
        let file = dir.join(IDENTITY);
        let state = Self::at(dir);
        if resume {
            if state.identity()? != identity {
                return Err(state.changed("the pipeline file or its data"));
            }
        } else {
            state.forget()?;
            make_dir(dir)?;
            write_whole(&file, format!("{MARK}{identity}").as_bytes())?;
        }
        Ok(state)
    }

    /// Checks that the identity of the state begins with `begins`: the same pipeline, over any data.
    ///
    /// # Errors
    /// Kind `Config` if it does not.
    pub fn check_begins(&self, begins: &str) -> Result<()> {
        match self.identity()?.starts_with(begins) {
            true => Ok(()),
            false => Err(self.changed("the pipeline file")),
        }
    }

    /// The identity of the state; empty if there is none.
    fn identity(&self) -> Result<String> {
        let file = self.dir.join(IDENTITY);
        let found = std::fs::read_to_string(&file).map_err(|e| at(&file, "cannot read", e))?;
        Ok(found.strip_prefix(MARK).unwrap_or_default().to_owned())
    }

    fn changed(&self, what: &str) -> Error {
        Error::config(format!(
            "--resume: {what} changed since the run in {} was interrupted; run without --resume to start anew",
            self.dir.display()
        ))
    }

    /// The state in `dir`, unchecked.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Whether there is the state of an interrupted run in `dir`.
    pub fn is_left(dir: &Path) -> bool {
        let file = dir.join(IDENTITY);
        let begins = |file: File| -> std::io::Result<bool> {
            let mut start = Vec::new();
            file.take(MARK.len() as u64).read_to_end(&mut start)?;
            Ok(start == MARK.as_bytes())
        };
        unlinked::is_dir(dir) && unlinked::is_file(&file) && File::open(&file).and_then(begins).unwrap_or(false)
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

    /// Saves the fitted stage number `index`, and removes its checkpoint.
    pub fn keep_fitted(&self, index: usize, kept: Kept) -> Result<()> {
        let Kept { about, mut artifact } = kept;
        let about = serde_json::to_value(about).map_err(|e| Error::internal("a fitted stage").with_source(e))?;
        artifact.settings.insert(ABOUT.into(), about);
        write_artifact(&self.fitted_path(index), &artifact)?;
        remove(&self.checkpoint_path(index))
    }

    /// The checkpoint of stage number `index` while it learns.
    pub fn checkpoint(&self, index: usize) -> StageCheckpoint {
        StageCheckpoint { path: self.checkpoint_path(index) }
    }

    /// Saves the report of a run that is about to commit.
    pub fn keep_report(&self, report: &RunReport) -> Result<()> {
        write_whole(&self.dir.join(REPORT), report.to_json()?.as_bytes())
    }

    /// The report of a run that was about to commit.
    pub fn report(&self) -> Result<Option<RunReport>> {
        if !Self::is_left(&self.dir) {
            return Ok(None);
        }
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

    /// Removes the files of a state, and no others.
    ///
    /// # Errors
    /// Kind `Config` if a file has the name of one of them but not the mark.
    fn forget(&self) -> Result<()> {
        let marked = Self::is_left(&self.dir);
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(at(&self.dir, "cannot read", e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| at(&self.dir, "cannot read", e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let of_a_stage = [".fitted", ".checkpoint"].iter().any(|end| {
                name.strip_suffix(end).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            });
            let in_the_way = [IDENTITY, REPORT].contains(&name) || of_a_stage;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if in_the_way && !(marked && is_file) {
                return Err(not_ours(&entry.path()));
            }
            // The file with the mark is removed last: if this is interrupted, the rest is still known to belong to a
            // state.
            if marked && is_file && name != IDENTITY && (in_the_way || name.starts_with(TEMPORARY)) {
                remove(&entry.path())?;
            }
        }
        match marked {
            true => remove(&self.dir.join(IDENTITY)),
            false => Ok(()),
        }
    }

    fn fitted_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.fitted"))
    }

    fn checkpoint_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.checkpoint"))
    }
}

/// A saved fitted stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What it is and how it was learned.
    pub about: About,
    /// The data that restore it.
    pub artifact: Artifact,
}

/// What a saved stage is and how it was learned. A model contains these figures, so a resumed run needs them to make
/// the same model.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct About {
    /// The kind under which it is saved.
    pub kind: String,
    /// A description in one line.
    pub summary: String,
    /// Its figures by name.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// The file that a run holds locked while the state is its own.
const LOCK: &str = "lock";
/// The mark of the lock file, before the number of the process.
const LOCK_MARK: &str = "dacpipe process ";
/// The file with the identity of the state.
const IDENTITY: &str = "identity";
/// Its mark.
const MARK: &str = "dacpipe run state\n";
/// The file with the report of a run that is about to commit.
const REPORT: &str = "report.json";
/// Length of the hash at the start of a file.
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
    unlinked::write(path, bytes, TEMPORARY).map_err(|e| failed("writing", &path.display().to_string(), e))
}

/// Makes a directory of states and its parents, none of them through a link.
fn make_dir(path: &Path) -> Result<()> {
    // Below the working directory, the parent of the state directories is dacpipe's own as well.
    if let Some(above) = path.parent().filter(|above| above.ends_with(STATES)) {
        unlinked::make_dir(above).map_err(|e| at(above, "cannot create", e))?;
    }
    unlinked::make_dir(path).map_err(|e| at(path, "cannot create", e))
}

fn not_ours(path: &Path) -> Error {
    Error::config(format!(
        "{} is no file of a run of dacpipe, and is left as it is; move it away, as a run keeps its state there",
        path.display()
    ))
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
        assert!(!RunState::is_left(&place));
        let state = RunState::open(&place, "a", false).unwrap();
        assert!(RunState::is_left(&place));
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
    fn files_with_the_names_of_a_state_but_without_its_mark_stay() {
        for name in ["identity", "report.json", "0.fitted", "12.checkpoint"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(name);
            std::fs::write(&file, "mine").unwrap();
            let e = RunState::open(dir.path(), "a", false).unwrap_err();
            assert!(e.to_string().contains(name) && e.to_string().contains("move it away"), "{e}");
            assert!(RunState::at(dir.path()).clear().is_err());
            assert_eq!(RunState::at(dir.path()).report().unwrap(), None);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine", "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["notes.fitted", ".tmp-mine", "x.checkpoint"] {
            std::fs::write(dir.path().join(name), "mine").unwrap();
        }
        RunState::open(dir.path(), "a", false).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
        std::fs::write(dir.path().join("lock"), "mine").unwrap();
        let e = StateDir::claim(dir.path(), "a", false).unwrap_err();
        assert!(e.to_string().contains("lock is no file of a run"), "{e}");
        assert_eq!(std::fs::read_to_string(dir.path().join("lock")).unwrap(), "mine");
    }

    #[cfg(unix)]
    #[test]
    fn no_link_is_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (real, linked) = (dir.path().join("real"), dir.path().join("linked"));
        std::fs::create_dir(&real).unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "mine").unwrap();
        symlink(&real, &linked).unwrap();
        assert!(StateDir::claim(&linked, "a", false).is_err());
        assert!(RunState::open(&linked, "a", false).is_err());
        assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
        for name in ["lock", "identity", "report.json", "0.fitted"] {
            let place = dir.path().join(format!("state-{name}"));
            std::fs::create_dir(&place).unwrap();
            symlink(&precious, place.join(name)).unwrap();
            let opened = StateDir::claim(&place, "a", false).and_then(|_| RunState::open(&place, "a", false));
            assert!(opened.is_err(), "{name}");
            assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine", "{name}");
            assert!(place.join(name).is_symlink(), "{name}");
        }
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
