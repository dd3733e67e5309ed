//! The text files beside the recordings: the labels, the names of the activities, the split of each user.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::LARGEST_FILE;
use crate::error::{Error, Result};
use crate::source::bad::{Rejects, shown};
use crate::source::location::DataFile;
use crate::source::text::{lines, tokens};

/// A row of `labels.txt`: samples `first..end`, counted from 0; `end` may lie beyond the recording.
#[derive(Debug)]
pub(super) struct LabelRow {
    pub line: u64,
    pub label: Arc<str>,
    pub first: usize,
    pub end: usize,
}

/// The rows of `labels.txt` by experiment and user, in the file's order.
pub(super) fn read_labels(
    file: &DataFile,
    recordings: &BTreeSet<(i32, i32)>,
    names: &BTreeMap<i64, Arc<str>>,
    rejects: &Rejects,
) -> Result<BTreeMap<(i32, i32), Vec<LabelRow>>> {
    let mut labels: BTreeMap<_, Vec<LabelRow>> = BTreeMap::new();
    for (i, line) in lines(&file.read(LARGEST_FILE)?).enumerate() {
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

/// The names of the activities by their numbers; empty without the file.
pub(super) fn activity_names(files: &BTreeMap<String, DataFile>, rejects: &Rejects) -> Result<BTreeMap<i64, Arc<str>>> {
    let mut names = BTreeMap::new();
    let Some(file) = files.get("activity_labels.txt") else { return Ok(names) };
    for (i, line) in lines(&file.read(LARGEST_FILE)?).enumerate() {
        let text = String::from_utf8_lossy(line);
        let named = text.trim().split_once(char::is_whitespace);
        match named.and_then(|(id, name)| Some((id.parse::<i64>().ok()?, name.trim()))) {
            Some((id, name)) => drop(names.insert(id, name.into())),
            None => rejects.reject(file.name(), i as u64 + 1, format!("{}, expected: number name", shown(line)))?,
        }
    }
    Ok(names)
}

/// The split of each user that the subject files name.
pub(super) fn splits(files: &BTreeMap<String, DataFile>, rejects: &Rejects) -> Result<BTreeMap<i32, &'static str>> {
    let mut splits = BTreeMap::new();
    for (folder, split) in [("Train/subject_id_", "train"), ("Test/subject_id_", "test")] {
        for (_, file) in files.iter().filter(|(name, _)| name.starts_with(folder)) {
            for (i, line) in lines(&file.read(LARGEST_FILE)?).enumerate() {
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

/// The whole numbers of a line, or what is wrong with it; `expected` describes such a line.
fn integers<const N: usize>(line: &[u8], expected: &str) -> Result<[i64; N], String> {
    let values = tokens(line).map(|t| std::str::from_utf8(t).ok().and_then(|t| t.parse::<i64>().ok()));
    let values: Option<Vec<i64>> = values.collect();
    values.and_then(|v| v.try_into().ok()).ok_or_else(|| format!("{}, expected {expected}", shown(line)))
}
