//! Recordings in the layout of the HAPT data set: smartphone acceleration and angular velocity, with labels.
//!
//! The layout is that of "Smartphone-Based Recognition of Human Activities and Postural Transitions" (Reyes-Ortiz et
//! al., UCI Machine Learning Repository, data set 341). Below the directory there are
//! - `RawData/acc_expXX_userYY.txt` and `RawData/gyro_expXX_userYY.txt`: a line a sample at 50 Hz, three numbers each;
//! - `RawData/labels.txt`: experiment, user, activity, first and last sample, counted from 1;
//! - `Train/subject_id_train.txt`, `Test/subject_id_test.txt` (optional): the users of each split;
//! - `activity_labels.txt` (optional): the names of the activities.
//!
//! Each may be gzipped, with `.gz` after its name.
//!
//! # Bad rows
//! Under [`OnBadRow::Quarantine`](super::OnBadRow::Quarantine)
//! - a line that is not three finite numbers: windows that hold this sample are left out; filters over the recording
//!   go on as if the sensor had held its last value;
//! - files of different length: the samples that both have are used;
//! - a labels row beyond the end of its recording: the part of it that was recorded is used;
//! - another bad labels row, a recording of which one file is missing, empty or damaged: left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;

use super::SPLIT;
use super::bad::{Rejects, shown};
use super::location::{DataFile, blocking, list};
use super::recording::{Interval, Load, Recording, Recordings, Wanted, hold};
use crate::error::{Error, Result};

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

/// One recording: where it is and what is known of it before it is read.
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

/// A row of `labels.txt`: samples `first..end`, counted from 0, of which `end` may lie beyond the recording.
#[derive(Debug)]
struct LabelRow {
    line: u64,
    label: Arc<str>,
    first: usize,
    end: usize,
}

impl Hapt {
    /// Finds the recordings below `spec.path` and reads their labels.
    ///
    /// # Errors
    /// Kind `Input` if there is no recording, if `labels_needed` and there is no `labels.txt`, if a file is there both
    /// plain and gzipped, if a user belongs to both splits; and for bad rows under `Fail`.
    pub async fn open(spec: &HaptSpec, labels_needed: bool, rejects: Rejects) -> Result<Self> {
        let files = list(&spec.path, &[".txt"]).await?;
        let path = spec.path.clone();
        blocking(move || Self::index(path, files, labels_needed, rejects)).await
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        format!("{} recordings of 6 channels at {RATE_HZ} Hz in {}", self.recordings.len(), self.path)
    }

    fn index(path: String, files: Vec<DataFile>, labels_needed: bool, rejects: Rejects) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for file in files {
            let plain = file.below().strip_suffix(".gz").unwrap_or(file.below()).to_string();
            if let Some(other) = by_name.insert(plain, file.clone()) {
                let (a, b) = (other.name(), file.name());
                return Err(Error::input(format!("both {a} and {b} are there; expected one of them")));
            }
        }
        let found: BTreeSet<(i32, i32)> = by_name.keys().filter_map(|name| numbers_of(name)).collect();
        if found.is_empty() {
            return Err(Error::input(format!(
                "{path}: no recordings there; expected RawData/acc_expXX_userYY.txt and gyro_expXX_userYY.txt, plain or .gz"
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

    fn open(&self, wanted: Wanted) -> Box<dyn Iterator<Item = Result<Load>> + Send> {
        let (recordings, rejects) = (self.recordings.clone(), self.rejects.clone());
        Box::new((0..recordings.len()).filter_map(move |i| {
            let (entry, rejects) = (recordings[i].clone(), rejects.clone());
            match wanted.takes(&entry.constants()) {
                Ok(true) => Some(Ok(Box::new(move || entry.load(&rejects)) as Load)),
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

    fn load(&self, rejects: &Rejects) -> Result<Vec<Recording>> {
        let (Some(acc), Some(gyro)) = (read_sensor(&self.acc, rejects)?, read_sensor(&self.gyro, rejects)?) else {
            return Ok(vec![]);
        };
        let samples = acc.len().min(gyro.len());
        if acc.len() != gyro.len() {
            let (short, long) = if acc.len() < gyro.len() { (&acc, &gyro) } else { (&gyro, &acc) };
            let (n, other, m) = (short.len(), &long.file, long.len());
            let reason =
                format!("{n} samples here but {m} in {other}, expected as many; the last {} have no pair", m - n);
            rejects.reject(&short.file, n as u64, reason)?;
        }
        let bad: BTreeSet<usize> = acc.bad.iter().chain(&gyro.bad).copied().filter(|&i| i < samples).collect();
        let bad: Vec<usize> = bad.into_iter().collect();
        let file = acc.file.clone();
        let mut channels: Vec<Vec<f64>> = acc.axes.into_iter().chain(gyro.axes).collect();
        channels.iter_mut().for_each(|c| c.truncate(samples));
        hold(&mut channels, &bad);
        let intervals = self.intervals(samples, rejects)?;
        Ok(vec![Recording { constants: self.constants(), channels, intervals, bad, offset: 0, file, line: 1 }])
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

/// The experiment and the user that a file's name says.
fn numbers_of(name: &str) -> Option<(i32, i32)> {
    let name = name.strip_prefix("RawData/")?.strip_suffix(".txt")?;
    let name = name.strip_prefix("acc").or_else(|| name.strip_prefix("gyro"))?;
    let (experiment, user) = name.strip_prefix("_exp")?.split_once("_user")?;
    Some((experiment.parse().ok()?, user.parse().ok()?))
}

/// The three axes of one sensor.
#[derive(Debug)]
struct Sensor {
    file: Arc<str>,
    axes: [Vec<f64>; 3],
    bad: Vec<usize>,
}

impl Sensor {
    fn len(&self) -> usize {
        self.axes[0].len()
    }
}

/// Reads a sensor's file; `None` if all of it was rejected.
fn read_sensor(file: &Result<DataFile, String>, rejects: &Rejects) -> Result<Option<Sensor>> {
    let reject_all = |name: &str, reason: &str| rejects.reject(name, 0, reason).map(|()| None);
    let file = match file {
        Ok(file) => file,
        Err(expected) => return reject_all(expected, "no such file, but the other sensor's file is there"),
    };
    let text = match file.read() {
        Ok(text) => text,
        Err(e) => return rejects.reject_file(file.name(), e).map(|()| None),
    };
    let sensor = parse_sensor(&text, file.name(), rejects)?;
    if sensor.len() == 0 {
        return reject_all(file.name(), "empty, expected a line of 3 numbers a sample");
    }
    Ok(Some(sensor))
}

fn parse_sensor(text: &[u8], file: &str, rejects: &Rejects) -> Result<Sensor> {
    let mut rest = text.trim_ascii_end();
    // Lines are about as long as the first; a little room more spares a last move.
    let expected = 1 + rest.len() / (1 + line(rest).0.len()) * 9 / 8;
    let mut sensor =
        Sensor { file: file.into(), axes: std::array::from_fn(|_| Vec::with_capacity(expected)), bad: vec![] };
    while !rest.is_empty() {
        let values = match plain_triple(rest) {
            Some((values, after)) => {
                rest = after;
                values
            }
            None => {
                let (line, after) = line(rest);
                rest = after;
                let number = sensor.len();
                triple(line).or_else(|reason| {
                    rejects.reject(file, number as u64 + 1, reason)?;
                    sensor.bad.push(number);
                    Ok::<_, Error>([f64::NAN; 3])
                })?
            }
        };
        for (axis, value) in sensor.axes.iter_mut().zip(values) {
            axis.push(value);
        }
    }
    Ok(sensor)
}

/// The first line of `text`, and what comes after its end.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&b| b == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

/// The three numbers of the first line of `text`, and what comes after its end, in one pass over its bytes; `None` for
/// a line with anything that [`triple`] must judge.
fn plain_triple(mut text: &[u8]) -> Option<([f64; 3], &[u8])> {
    let skip_blanks = |text: &mut &[u8]| {
        while let [b' ' | b'\t' | b'\r', after @ ..] = *text {
            *text = after;
        }
    };
    let mut values = [0.0; 3];
    for value in &mut values {
        skip_blanks(&mut text);
        let (number, length) = fast_float2::parse_partial::<f64, _>(text).ok()?;
        text = &text[length..];
        if !(number as f32).is_finite() || text.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return None;
        }
        *value = number;
    }
    skip_blanks(&mut text);
    match text {
        [] => Some((values, text)),
        [b'\n', after @ ..] => Some((values, after)),
        _ => None,
    }
}

/// The lines of a file, without the blank ones at its end.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.trim_ascii_end();
    let count = if text.is_empty() { 0 } else { usize::MAX };
    text.split(|&b| b == b'\n').take(count)
}

fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|t| !t.is_empty())
}

/// The three numbers of a line, or what is wrong with it.
fn triple(line: &[u8]) -> Result<[f64; 3], String> {
    let mut values = [0.0; 3];
    let mut count = 0;
    for token in tokens(line) {
        let value = number(token).map_err(|e| format!("{e}; expected a line of 3 finite numbers"))?;
        if let Some(slot) = values.get_mut(count) {
            *slot = value;
        }
        count += 1;
    }
    match count {
        3 => Ok(values),
        _ => Err(format!("{count} numbers on the line, expected 3: {}", shown(line))),
    }
}

/// A number that is finite in single precision, or what is wrong with it.
pub fn number(token: &[u8]) -> Result<f64, String> {
    match fast_float2::parse::<f64, _>(token) {
        Ok(value) if (value as f32).is_finite() => Ok(value),
        Ok(_) => Err(format!("{} is not finite", shown(token))),
        Err(_) => Err(format!("{} is not a number", shown(token))),
    }
}

/// The whole numbers of a line of `expected` ones, or what is wrong with it.
fn integers<const N: usize>(line: &[u8], expected: &str) -> Result<[i64; N], String> {
    let values = tokens(line).map(|t| std::str::from_utf8(t).ok().and_then(|t| t.parse::<i64>().ok()));
    let values: Option<Vec<i64>> = values.collect();
    values.and_then(|v| v.try_into().ok()).ok_or_else(|| format!("{}, expected {expected}", shown(line)))
}

fn activity_names(files: &BTreeMap<String, DataFile>, rejects: &Rejects) -> Result<BTreeMap<i64, Arc<str>>> {
    let mut names = BTreeMap::new();
    let Some(file) = files.get("activity_labels.txt") else { return Ok(names) };
    for (i, line) in lines(&file.read()?).enumerate() {
        let text = String::from_utf8_lossy(line);
        let named = text.trim().split_once(char::is_whitespace);
        match named.and_then(|(id, name)| Some((id.parse::<i64>().ok()?, name.trim()))) {
            Some((id, name)) => drop(names.insert(id, name.into())),
            None => rejects.reject(file.name(), i as u64 + 1, format!("{}, expected: number name", shown(line)))?,
        }
    }
    Ok(names)
}

/// The rows of `labels.txt` by experiment and user, in the file's order.
fn read_labels(
    file: &DataFile,
    recordings: &BTreeSet<(i32, i32)>,
    names: &BTreeMap<i64, Arc<str>>,
    rejects: &Rejects,
) -> Result<BTreeMap<(i32, i32), Vec<LabelRow>>> {
    let mut labels: BTreeMap<_, Vec<LabelRow>> = BTreeMap::new();
    for (i, line) in lines(&file.read()?).enumerate() {
        let number = i as u64 + 1;
        let row = integers::<5>(line, "5 whole numbers: experiment, user, activity, first sample, last sample");
        let row = row.and_then(|[experiment, user, activity, first, last]| {
            let key = (i32::try_from(experiment).ok(), i32::try_from(user).ok());
            let key = match key {
                (Some(e), Some(u)) if recordings.contains(&(e, u)) => (e, u),
                _ => return Err(format!("experiment {experiment}, user {user} has no recording")),
            };
            if first < 1 || last < first {
                return Err(format!("samples {first} to {last}, expected 1 <= first <= last"));
            }
            let label = names.get(&activity).cloned().unwrap_or_else(|| activity.to_string().into());
            Ok((key, LabelRow { line: number, label, first: first as usize - 1, end: last as usize }))
        });
        match row {
            Ok((key, row)) => labels.entry(key).or_default().push(row),
            Err(reason) => rejects.reject(file.name(), number, reason)?,
        }
    }
    if labels.is_empty() {
        rejects.reject(file.name(), 0, "empty, expected rows of experiment, user, activity, first and last sample")?;
    }
    Ok(labels)
}

/// The split of each user that the subject files name.
fn splits(files: &BTreeMap<String, DataFile>, rejects: &Rejects) -> Result<BTreeMap<i32, &'static str>> {
    let mut splits = BTreeMap::new();
    for (folder, split) in [("Train/subject_id_", "train"), ("Test/subject_id_", "test")] {
        for (_, file) in files.iter().filter(|(name, _)| name.starts_with(folder)) {
            for (i, line) in lines(&file.read()?).enumerate() {
                let user = integers::<1>(line, "the number of a user").map(|[user]| i32::try_from(user));
                let Ok(Ok(user)) = user else {
                    rejects.reject(file.name(), i as u64 + 1, format!("{}, expected a user", shown(line)))?;
                    continue;
                };
                if splits.insert(user, split).is_some_and(|other| other != split) {
                    let name = file.name();
                    return Err(Error::input(format!(
                        "{name}: user {user} is a user of train and of test; expected one"
                    )));
                }
            }
        }
    }
    Ok(splits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::OnBadRow;

    #[test]
    fn a_line_is_three_finite_numbers() {
        assert_eq!(triple(b" 1.5 -2e-3\t3 \r"), Ok([1.5, -2e-3, 3.0]));
        for (line, what) in [
            (&b"1 2"[..], "2 numbers"),
            (b"1 2 3 4", "4 numbers"),
            (b"", "0 numbers"),
            (b"1 two 3", "\"two\" is not a number"),
            (b"1 NaN 3", "\"NaN\" is not finite"),
            (b"1 inf 3", "\"inf\" is not finite"),
            (b"1 1e39 3", "\"1e39\" is not finite"),
            (b"1,2,3", "\"1,2,3\" is not a number"),
        ] {
            let error = triple(line).unwrap_err();
            assert!(error.contains(what) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn lines_read_in_one_pass_are_those_read_token_by_token() {
        let plain = [" 1.5 -2e-3\t3 \r", "1 2 3", "0.1 0.2 0.30000000000000004\n4 5 6", "-0 +1 .5", "1. 2 3\r\n"];
        for text in plain {
            let (first, after) = line(text.as_bytes());
            assert_eq!(plain_triple(text.as_bytes()), Some((triple(first).unwrap(), after)), "{text:?}");
        }
        for text in ["", "1 2", "1 2\n3", "1 2 3 4", "1 2 3x", "1 two 3", "1 NaN 3", "1 1e39 3", "1,2,3", "1 2\x0c3"] {
            assert_eq!(plain_triple(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_at_the_end_are_no_samples_and_others_are_bad() {
        let bad = Arc::default();
        let rejects = Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad));
        let sensor = parse_sensor(b"1 2 3\r\n\n4 5 6\n\n", "acc.txt", &rejects).unwrap();
        assert_eq!((sensor.len(), sensor.bad), (3, vec![1]));
        assert_eq!(bad.rows()[0].line, 2);
        assert_eq!(parse_sensor(b"\n \n", "acc.txt", &rejects).unwrap().len(), 0);
    }

    #[test]
    fn file_names_say_experiment_and_user() {
        assert_eq!(numbers_of("RawData/acc_exp07_user12.txt"), Some((7, 12)));
        assert_eq!(numbers_of("RawData/gyro_exp123_user1.txt"), Some((123, 1)));
        for other in ["RawData/labels.txt", "acc_exp01_user01.txt", "RawData/acc_expx_user01.txt"] {
            assert_eq!(numbers_of(other), None, "{other}");
        }
    }
}
