//! Recordings in the layout of the HAPT data set: smartphone acceleration and angular velocity, with labels.
//!
//! The layout is that of "Smartphone-Based Recognition of Human Activities and Postural Transitions" (Reyes-Ortiz et
//! al., UCI Machine Learning Repository, data set 341). Below the directory there are
//! - `RawData/acc_expXX_userYY.txt` and `RawData/gyro_expXX_userYY.txt`: one sample a line at 50 Hz, three numbers
//!   each;
//! - `RawData/labels.txt`: experiment, user, activity, first and last sample, counted from 1;
//! - `Train/subject_id_train.txt`, `Test/subject_id_test.txt` (optional): the users of each split;
//! - `activity_labels.txt` (optional): the names of the activities.
//!
//! Each may be compressed by gzip, bzip2 or zstd, with `.gz`, `.bz2` or `.zst` after its name. It has at most 256 MiB
//! of text, since it is in memory as a whole while its numbers are read.
//!
//! # Bad rows
//! Under [`OnBadRow::Quarantine`](super::OnBadRow::Quarantine)
//! - a line that is not three finite numbers: windows that contain this sample are left out; filters over the recording
//!   go on as if the sensor had held its last value;
//! - files of different length: the samples that both have are used;
//! - a labels row that goes beyond the end of its recording: the part that was recorded is used;
//! - any other bad labels row, or a recording with a file that is missing, empty or damaged: it is left out.

mod labels;
mod sensor;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;

use super::SPLIT;
use super::bad::Rejects;
use super::location::{DataFile, blocking, list, plain_name};
use super::places::Places;
use super::recording::{Interval, Load, Recording, Recordings, Wanted, hold};
use super::samples::Counts;
use crate::error::{Error, Result};
use labels::{LabelRow, activity_names, read_labels, splits};
use sensor::read_sensor;

/// The most bytes of a file, decompressed: 256 MiB, some 30 hours of one sensor.
pub const LARGEST_FILE: u64 = 256 << 20;
/// Samples a second.
pub const RATE_HZ: f64 = crate::signal::hapt561::RATE_HZ;
/// The channels: acceleration in g, angular velocity in rad/s.
pub const CHANNELS: [&str; 6] = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"];
const ACTIVITY: &str = "activity";
const LABELS: &str = "RawData/labels.txt";

/// Which directory to read.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HaptSpec {
    /// A directory, or the URL of one in an object store.
    pub path: String,
}

/// The recordings of a directory, by experiment and user.
#[derive(Debug)]
pub struct Hapt {
    path: String,
    recordings: Arc<Vec<Arc<Entry>>>,
    constants: SchemaRef,
    channels: Vec<String>,
    rejects: Rejects,
}

/// One recording: its files, and what is known about it before it is read.
#[derive(Debug)]
struct Entry {
    experiment: i32,
    user: i32,
    split: Option<&'static str>,
    acc: Result<DataFile, String>,
    gyro: Result<DataFile, String>,
    labels_file: Arc<str>,
    labels: Vec<LabelRow>,
}

/// The text files below `path`.
///
/// # Errors
/// As [`list`].
pub(super) async fn files_at(path: &str) -> Result<Vec<DataFile>> {
    list(path, &[".txt"]).await
}

impl Hapt {
    /// Finds the recordings below `spec.path` and reads their labels.
    ///
    /// # Errors
    /// Kind `Input` if there is no recording, if `labels_needed` and there is no `labels.txt`, if a file exists both
    /// plain and compressed, if a user belongs to both splits; and for bad rows under `Fail`.
    pub async fn open(spec: &HaptSpec, labels_needed: bool, rejects: Rejects) -> Result<Self> {
        let files = files_at(&spec.path).await?;
        let path = spec.path.clone();
        blocking(move || Self::index(path, files, labels_needed, rejects)).await
    }

    /// A description in one line.
    pub fn describe(&self) -> String {
        format!("{} recordings of 6 channels at {RATE_HZ} Hz in {}", self.recordings.len(), self.path)
    }

    fn index(path: String, files: Vec<DataFile>, labels_needed: bool, rejects: Rejects) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for file in files {
            let plain = plain_name(file.below()).to_string();
            if let Some(other) = by_name.insert(plain, file.clone()) {
                let (a, b) = (other.name(), file.name());
                return Err(Error::input(format!("both {a} and {b} are there; expected one of them")));
            }
        }
        let found: BTreeSet<(i32, i32)> = by_name.keys().filter_map(|name| numbers_of(name)).collect();
        if found.is_empty() {
            return Err(Error::input(format!(
                "{path}: no recordings there; expected RawData/acc_expXX_userYY.txt and gyro_expXX_userYY.txt, plain or compressed"
            )));
        }
        let labels_file: Arc<str> = by_name.get(LABELS).map_or(format!("{path}/{LABELS}"), |f| f.name().into()).into();
        let mut labels = match by_name.get(LABELS) {
            Some(file) => read_labels(file, &found, &activity_names(&by_name, &rejects)?, &rejects)?,
            None if labels_needed => {
                return Err(Error::input(format!(
                    "{labels_file}: no such file; windows within labels need it (rows: experiment, user, activity, \
                     first and last sample), windows within recordings do not"
                )));
            }
            None => BTreeMap::new(),
        };
        let splits = splits(&by_name, &rejects)?;
        let mut sensors: BTreeMap<(bool, (i32, i32)), &DataFile> = BTreeMap::new();
        for (name, file) in &by_name {
            if let Some(numbers) = numbers_of(name) {
                sensors.entry((name.starts_with("RawData/acc"), numbers)).or_insert(file);
            }
        }
        let entries = found.into_iter().map(|(experiment, user)| {
            let sensor = |sensor: &str| {
                let file = sensors.get(&(sensor == "acc", (experiment, user)));
                let expected = format!("{path}/RawData/{sensor}_exp{experiment:02}_user{user:02}.txt");
                file.map(|file| DataFile::clone(file)).ok_or(expected)
            };
            Arc::new(Entry {
                experiment,
                user,
                split: splits.get(&user).copied(),
                acc: sensor("acc"),
                gyro: sensor("gyro"),
                labels_file: labels_file.clone(),
                labels: labels.remove(&(experiment, user)).unwrap_or_default(),
            })
        });
        let recordings = Arc::new(entries.collect());
        let constants = Arc::new(Schema::new(vec![
            Field::new("experiment", DataType::Int32, false),
            Field::new("user", DataType::Int32, false),
            Field::new(SPLIT, DataType::Utf8, true),
        ]));
        Ok(Self { path, recordings, constants, channels: CHANNELS.map(String::from).to_vec(), rejects })
    }
}

impl Recordings for Hapt {
    fn constants(&self) -> &SchemaRef {
        &self.constants
    }

    fn split(&self) -> Option<&str> {
        Some(SPLIT)
    }

    fn label(&self) -> Option<&str> {
        Some(ACTIVITY)
    }

    fn channels(&self) -> &[String] {
        &self.channels
    }

    fn rate_hz(&self) -> f64 {
        RATE_HZ
    }

    fn left_alone(&self) -> Vec<String> {
        let files = self.recordings.iter().flat_map(|entry| [&entry.acc, &entry.gyro]).flatten();
        files.filter(|file| file.has_more()).map(|file| file.name().to_owned()).collect()
    }

    fn open(&self, wanted: Wanted, counts: Counts) -> Box<dyn Iterator<Item = Result<Load>> + Send> {
        let (recordings, rejects) = (self.recordings.clone(), self.rejects.clone());
        Box::new((0..recordings.len()).filter_map(move |i| {
            let (entry, rejects, counts) = (recordings[i].clone(), rejects.clone(), counts.clone());
            match wanted.takes(&entry.constants()) {
                Ok(true) => Some(Ok(Box::new(move || entry.load(&rejects, &counts)) as Load)),
                Ok(false) => None,
                Err(e) => Some(Err(e)),
            }
        }))
    }
}

impl Entry {
    fn constants(&self) -> Vec<ScalarValue> {
        let split = ScalarValue::Utf8(self.split.map(String::from));
        vec![ScalarValue::Int32(Some(self.experiment)), ScalarValue::Int32(Some(self.user)), split]
    }

    fn load(&self, rejects: &Rejects, counts: &Counts) -> Result<Vec<Recording>> {
        let (acc, gyro) = match (read_sensor(&self.acc, rejects)?, read_sensor(&self.gyro, rejects)?) {
            (Some(acc), Some(gyro)) => (acc, gyro),
            (acc, gyro) => {
                let alone = acc.or(gyro).map_or(0, |sensor| sensor.len() as u64);
                counts.count(|samples| samples.add_set_aside(alone));
                return Ok(vec![]);
            }
        };
        let samples = acc.len().min(gyro.len());
        if acc.len() != gyro.len() {
            let (short, long) = if acc.len() < gyro.len() { (&acc, &gyro) } else { (&gyro, &acc) };
            let (n, other, m) = (short.len(), &long.file, long.len());
            let reason =
                format!("{n} samples here but {m} in {other}, expected as many; the last {} have no pair", m - n);
            rejects.reject(&short.file, n as u64, reason)?;
            counts.count(|samples| samples.add_set_aside((m - n) as u64));
        }
        let bad: BTreeSet<usize> = acc.bad.iter().chain(&gyro.bad).copied().filter(|&i| i < samples).collect();
        let bad: Vec<usize> = bad.into_iter().collect();
        let file = acc.file.clone();
        let mut channels: Vec<Vec<f64>> = acc.axes.into_iter().chain(gyro.axes).collect();
        channels.iter_mut().for_each(|c| c.truncate(samples));
        hold(&mut channels, &bad);
        let intervals = self.intervals(samples, rejects)?;
        Ok(vec![Recording {
            constants: self.constants(),
            channels,
            times: vec![],
            intervals,
            bad,
            places: Places::starting(file, 1),
            ..Recording::default()
        }])
    }

    fn intervals(&self, samples: usize, rejects: &Rejects) -> Result<Vec<Interval>> {
        let mut intervals = Vec::with_capacity(self.labels.len());
        for row in &self.labels {
            if row.end > samples {
                let (first, last) = (row.first + 1, row.end);
                let (experiment, user) = (self.experiment, self.user);
                let reason = format!(
                    "samples {first} to {last} of experiment {experiment}, user {user}, whose recording has {samples}"
                );
                rejects.reject(&self.labels_file, row.line, reason)?;
            }
            if row.first < samples {
                intervals.push(Interval { label: row.label.clone(), first: row.first, end: row.end.min(samples) });
            }
        }
        Ok(intervals)
    }
}

/// The experiment and the user in a file's name.
fn numbers_of(name: &str) -> Option<(i32, i32)> {
    let name = name.strip_prefix("RawData/")?.strip_suffix(".txt")?;
    let name = name.strip_prefix("acc").or_else(|| name.strip_prefix("gyro"))?;
    let (experiment, user) = name.strip_prefix("_exp")?.split_once("_user")?;
    Some((experiment.parse().ok()?, user.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_say_experiment_and_user() {
        assert_eq!(numbers_of("RawData/acc_exp07_user12.txt"), Some((7, 12)));
        assert_eq!(numbers_of("RawData/gyro_exp123_user1.txt"), Some((123, 1)));
        for other in ["RawData/labels.txt", "acc_exp01_user01.txt", "RawData/acc_expx_user01.txt"] {
            assert_eq!(numbers_of(other), None, "{other}");
        }
    }
}
