//! Simulated recordings as files in the HAPT layout.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use super::{Activity, Experiment, SimulateSpec, hapt};
use crate::error::{Error, Result};
use crate::unlinked;

/// The file that marks simulated recordings; it contains the command that makes them.
const MARKER: &str = "SIMULATED";
/// What that command begins with.
const COMMAND: &str = "dacpipe simulate hapt";
/// HAPT's windows: their length and stride in samples.
const WINDOW: (usize, usize) = (128, 64);

/// How recordings are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Compress the recordings (`RawData/*.txt.gz`).
    pub gzip: bool,
    /// Replace the simulated recordings that the directory holds.
    pub force: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Recordings.
    pub experiments: usize,
    /// Samples over all recordings.
    pub samples: usize,
    /// Labelled windows (128 samples, stride 64) of the users to train on.
    pub train_windows: usize,
    /// Labelled windows of the users to test on.
    pub test_windows: usize,
    /// Bytes in all files.
    pub bytes: u64,
}

/// Writes the recordings of `spec` into `directory` in the HAPT layout: `RawData/acc_expXX_userYY.txt`, `gyro_…` and
/// `labels.txt`, `Train/` and `Test/` with the activity and the user of each labelled window, `activity_labels.txt`,
/// and beside them `README.txt` and `SIMULATED`, which say what the files are and which command makes them.
///
/// The same specification and options give the same bytes. One recording is in memory at a time.
///
/// # Errors
/// Kind `Config` if a number of `spec` is out of its range, or the directory contains files that are not simulated
/// recordings, or simulated recordings without [`WriteOptions::force`]; kind `Io` if a file cannot be written.
pub fn write_hapt(directory: impl AsRef<Path>, spec: SimulateSpec, options: WriteOptions) -> Result<Summary> {
    let experiments = hapt(spec)?;
    prepare(directory.as_ref(), options.force)?;
    let mut files = Files { directory: directory.as_ref(), bytes: 0 };
    let command = command_line(&spec, options.gzip);
    // Written first, so that the files of an interrupted command can be replaced with `force`.
    files.text(MARKER, &format!("{command}\n"))?;
    let mut summary = Summary::default();
    let mut labels = String::new();
    let mut parts = [Part::default(), Part::default()];
    for experiment in experiments {
        files.recording("acc", &experiment, &experiment.acceleration, 5, options.gzip)?;
        files.recording("gyro", &experiment, &experiment.angular_velocity, 3, options.gzip)?;
        summary.experiments += 1;
        summary.samples += experiment.acceleration.len();
        append_labels(&experiment, &mut labels, &mut parts[usize::from(experiment.test)]);
    }
    files.text("RawData/labels.txt", &labels)?;
    for (part, upper, lower) in [(&parts[0], "Train", "train"), (&parts[1], "Test", "test")] {
        files.text(&format!("{upper}/y_{lower}.txt"), &part.activities)?;
        files.text(&format!("{upper}/subject_id_{lower}.txt"), &part.users)?;
    }
    let names: String = Activity::ALL.iter().map(|a| format!("{} {}\n", a.number(), a.name())).collect();
    files.text("activity_labels.txt", &names)?;
    files.text("README.txt", &readme(&command))?;
    [summary.train_windows, summary.test_windows] = [parts[0].windows, parts[1].windows];
    summary.bytes = files.bytes;
    Ok(summary)
}

/// The command that makes the recordings of `spec`, all choices spelled out.
fn command_line(spec: &SimulateSpec, gzip: bool) -> String {
    let SimulateSpec { users, experiments_per_user, minutes, seed } = spec;
    let gzip = if gzip { " --gzip" } else { "" };
    format!(
        "{COMMAND} --out DIR --users {users} --experiments-per-user {experiments_per_user} \
         --minutes {minutes} --seed {}{gzip}",
        seed.0
    )
}

fn readme(command: &str) -> String {
    format!(
        "These recordings are simulated. No person was recorded, and no recorded data was used to make them.\n\
         The same files are made by\n\n    {command}\n\n\
         Their layout is that of \"Smartphone-Based Recognition of Human Activities and Postural Transitions\"\n\
         (HAPT, UCI 341): RawData/acc_expXX_userYY.txt holds the accelerations of experiment XX in g,\n\
         RawData/gyro_expXX_userYY.txt the angular velocities in rad/s, three axes a line, 50 lines a second.\n\
         RawData/labels.txt: experiment, user, activity, first and last sample counted from 1.\n\
         Train/ and Test/: the user and the activity of each window of 128 samples, one begun every 64 samples\n\
         of each row of labels.txt, in its order. activity_labels.txt: the names of the activities.\n\
         The file SIMULATED tells programs that the recordings are simulated.\n"
    )
}

/// Checks that writing into `directory` only replaces simulated recordings.
fn prepare(directory: &Path, force: bool) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return make_directories(directory),
        Err(e) => return Err(failed("read the directory", directory, e)),
    };
    let empty = entries.into_iter().next().is_none();
    let simulated = is_marked(directory);
    let shown = directory.display();
    match (empty, simulated, force) {
        (true, ..) => {}
        (false, true, true) => remove_recordings(&directory.join("RawData"))?,
        (false, true, false) => {
            return Err(Error::config(format!(
                "{shown} already holds simulated recordings: --force replaces them, or give --out an empty directory"
            )));
        }
        (false, false, _) => {
            return Err(Error::config(format!(
                "{shown} is not empty and its files are not simulated recordings: give --out an empty or a new directory"
            )));
        }
    }
    make_directories(directory)
}

/// Whether the marker file says that the directory contains simulated recordings; a link does not count.
fn is_marked(directory: &Path) -> bool {
    let marker = directory.join(MARKER);
    unlinked::is_file(&marker) && fs::read_to_string(marker).is_ok_and(|text| text.starts_with(COMMAND))
}

fn make_directories(directory: &Path) -> Result<()> {
    for part in ["RawData", "Train", "Test"] {
        let path = directory.join(part);
        unlinked::make_dir(&path).map_err(|e| failed("make the directory", &path, e))?;
    }
    Ok(())
}

/// Removes earlier recordings, of which there may have been more, or with other names.
fn remove_recordings(raw: &Path) -> Result<()> {
    if !unlinked::is_dir(raw) {
        return Ok(());
    }
    let entries = match fs::read_dir(raw) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("read the directory", raw, e)),
    };
    for entry in entries {
        let path = entry.map_err(|e| failed("read the directory", raw, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_recording(&name) && unlinked::is_file(&path) {
            fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Whether this is the name of a recording's file: `acc_exp01_user01.txt`, perhaps with `.gz`.
fn is_recording(name: &str) -> bool {
    let numbers = || {
        let name = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".txt")?;
        let name = name.strip_prefix("acc_exp").or_else(|| name.strip_prefix("gyro_exp"))?;
        name.split_once("_user")
    };
    let digits = |text: &str| text.len() >= 2 && text.bytes().all(|b| b.is_ascii_digit());
    numbers().is_some_and(|(experiment, user)| digits(experiment) && digits(user))
}

fn failed(action: &str, path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot {action} {}", path.display())).with_source(e)
}

/// The label files of one split of the users.
#[derive(Default)]
struct Part {
    activities: String,
    users: String,
    windows: usize,
}

fn append_labels(experiment: &Experiment, labels: &mut String, part: &mut Part) {
    let Experiment { number, user, .. } = experiment;
    for interval in &experiment.labels {
        let activity = interval.activity.number();
        // Writing to a string cannot fail.
        let _ = writeln!(labels, "{number} {user} {activity} {} {}", interval.first + 1, interval.last + 1);
        let samples = interval.last + 1 - interval.first;
        let windows = samples.checked_sub(WINDOW.0).map_or(0, |rest| rest / WINDOW.1 + 1);
        for _ in 0..windows {
            let _ = writeln!(part.activities, "{activity}");
            let _ = writeln!(part.users, "{user}");
        }
        part.windows += windows;
    }
}

/// Writes files and counts their bytes.
struct Files<'a> {
    directory: &'a Path,
    bytes: u64,
}

impl Files<'_> {
    fn text(&mut self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let written = unlinked::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|e| failed("write", &path, e))?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn recording(
        &mut self,
        sensor: &str,
        experiment: &Experiment,
        readings: &[[f64; 3]],
        decimals: usize,
        gzip: bool,
    ) -> Result<()> {
        let ending = if gzip { ".gz" } else { "" };
        let name = format!("{sensor}_exp{:02}_user{:02}.txt{ending}", experiment.number, experiment.user);
        let path: PathBuf = self.directory.join("RawData").join(name);
        let write = || -> std::io::Result<u64> {
            let file = BufWriter::new(unlinked::create(&path)?);
            if gzip {
                // No time of writing and no name in the header: the same bytes every time.
                let mut gz = GzBuilder::new().mtime(0).write(file, Compression::best());
                write_readings(&mut gz, readings, decimals)?;
                gz.finish()?.into_inner()?.sync_data()?;
            } else {
                let mut file = file;
                write_readings(&mut file, readings, decimals)?;
                file.into_inner()?.sync_data()?;
            }
            Ok(path.metadata()?.len())
        };
        self.bytes += write().map_err(|e| failed("write", &path, e))?;
        Ok(())
    }
}

fn write_readings(out: &mut impl Write, readings: &[[f64; 3]], decimals: usize) -> std::io::Result<()> {
    for [x, y, z] in readings {
        // Adding zero turns -0 into 0.
        writeln!(out, "{:.decimals$} {:.decimals$} {:.decimals$}", x + 0.0, y + 0.0, z + 0.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: SimulateSpec = SimulateSpec { users: 2, experiments_per_user: 1, minutes: 1.0, seed: crate::Seed(3) };

    #[test]
    fn recordings_that_are_not_simulated_are_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("notes.txt"), "mine").unwrap();
        for force in [false, true] {
            let error = write_hapt(directory.path(), SHORT, WriteOptions { gzip: false, force }).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.to_string().contains("not simulated"), "{error}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn force_replaces_simulated_recordings_and_leaves_none_of_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let options = WriteOptions { gzip: true, force: false };
        write_hapt(directory.path(), SHORT, options).unwrap();
        let error = write_hapt(directory.path(), SHORT, options).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        write_hapt(directory.path(), SHORT, WriteOptions { gzip: false, force: true }).unwrap();
        let names: Vec<_> =
            fs::read_dir(directory.path().join("RawData")).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(names.iter().all(|n| n.extension().unwrap() == "txt"), "{names:?}");
        assert_eq!(names.len(), 2 * 2 + 1);
    }

    #[cfg(unix)]
    #[test]
    fn force_removes_nothing_but_recordings_of_ours_and_writes_through_no_link() {
        use std::os::unix::fs::symlink;
        let options = WriteOptions { gzip: false, force: true };
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("SIMULATED"), "by hand").unwrap();
        assert!(write_hapt(directory.path(), SHORT, options).unwrap_err().to_string().contains("not simulated"));
        fs::remove_file(path("SIMULATED")).unwrap();

        write_hapt(directory.path(), SHORT, WriteOptions::default()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let precious = elsewhere.path().join("acc_exp01_user01.txt");
        fs::write(&precious, "mine").unwrap();
        for name in ["RawData/acc_exp01_user01_notes.txt", "RawData/acc_expert.txt"] {
            fs::write(path(name), "mine").unwrap();
        }
        fs::remove_file(path("RawData/labels.txt")).unwrap();
        symlink(&precious, path("RawData/labels.txt")).unwrap();
        let error = write_hapt(directory.path(), SHORT, options).unwrap_err();
        assert!(error.to_string().contains("a link is in its place"), "{error}");
        fs::remove_file(path("RawData/labels.txt")).unwrap();
        write_hapt(directory.path(), SHORT, options).unwrap();
        for name in ["RawData/acc_exp01_user01_notes.txt", "RawData/acc_expert.txt"] {
            assert_eq!(fs::read_to_string(path(name)).unwrap(), "mine");
        }

        fs::remove_dir_all(path("RawData")).unwrap();
        symlink(elsewhere.path(), path("RawData")).unwrap();
        write_hapt(directory.path(), SHORT, options).unwrap_err();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::write(&path, "").unwrap();
        let error = write_hapt(&path, SHORT, WriteOptions::default()).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Io);
        assert!(error.to_string().contains("taken"), "{error}");
    }
}
