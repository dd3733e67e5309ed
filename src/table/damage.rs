//! Finds what is wrong with a log that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::DeltaTableError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::entry::file_name;
use super::log::{DIRECTORY, Log};
use crate::error::{Error, Result};
use crate::store::failed;

/// The longest log entry that is read to find what is wrong.
const LONGEST_ENTRY: u64 = 256 << 20;

/// The deepest nesting of a log entry. Delta's own have fewer than ten levels.
const DEEPEST: usize = 100;
/// Shorter entries cannot be nested deeply enough to overflow the stack.
const SHALLOW: u64 = 1 << 12;

impl Log {
    /// The files of the log, as the store lists them.
    pub(super) async fn listed(&self) -> Result<Listed> {
        if let Some(found) = self.location.obstacle() {
            return Err(Error::table(format!("{found}; a table is a directory")));
        }
        let files = self.location.list(DIRECTORY).await?;
        let mut listed = Listed::default();
        for (file, name) in files.iter().filter_map(|file| Some((file, file.location.filename()?))) {
            let Some(version) = name.get(..20).and_then(|digits| digits.parse().ok()) else { continue };
            match &name[20..] {
                ".json" => drop(listed.commits.insert(version, file.size)),
                rest if rest.starts_with(".checkpoint") => drop(listed.checkpoints.insert(version)),
                _ => {}
            }
        }
        Ok(listed)
    }

    /// Checks that no entry of `version` is nested so deeply that reading it would overflow the stack.
    pub(super) async fn check_depth(&self, listed: &Listed, version: u64) -> Result<()> {
        let from = listed.checkpoints.range(..=version).next_back().map_or(0, |v| v + 1);
        let entries = listed.commits.range(from..).take_while(|(entry, _)| **entry <= version);
        for (&entry, _) in entries.filter(|(_, bytes)| **bytes >= SHALLOW) {
            let name = file_name(entry);
            if self.location.get(&name).await?.is_some_and(|content| nests_deeper(&content, DEEPEST)) {
                return Err(Error::table(format!(
                    "the log entry {} is damaged: it nests deeper than {DEEPEST} levels; restore the file",
                    self.location.show(&name)
                )));
            }
        }
        Ok(())
    }

    /// What is wrong with a log that delta-rs could not read, with the file and the line where that can be found.
    pub(super) async fn diagnose(&self, e: DeltaTableError) -> Error {
        let found = match self.listed().await {
            Ok(listed) => self.find_damage(&listed, true).await,
            Err(e) => Err(e),
        };
        match found {
            Err(found) => found,
            Ok(()) => match store_failure(&e) {
                Some(_) => failed("reading", &self.location.show(DIRECTORY), e),
                None => {
                    // Later lines may contain a backtrace.
                    let why = e.to_string();
                    let why = why.lines().next().unwrap_or_default();
                    Error::table(format!("the log of {} cannot be read: {why}", self.location))
                }
            },
        }
    }

    /// An error that names the first entry that is missing, empty or, if entries are `read`, not a valid log entry.
    pub(super) async fn find_damage(&self, listed: &Listed, read: bool) -> Result<()> {
        let (Some(newest), from) = (listed.newest(), listed.checkpoints.last().map_or(0, |v| v + 1)) else {
            return Ok(());
        };
        for version in from..=newest {
            let name = file_name(version);
            let missing = || {
                Error::table(format!(
                    "the log of {} is damaged: {} is missing, and later versions are there; \
                     restore the file, or write to another path",
                    self.location,
                    self.location.show(&name)
                ))
            };
            match listed.commits.get(&version) {
                None => return Err(missing()),
                Some(0) => {
                    let name = self.location.show(&name);
                    return Err(Error::table(format!(
                        "the log entry {name} is damaged: it is empty; restore the file"
                    )));
                }
                Some(&bytes) if read && bytes <= LONGEST_ENTRY => {
                    self.commit_at(version).await?.ok_or_else(missing)?;
                }
                Some(_) => {}
            }
        }
        if read { self.find_damaged_checkpoint(listed).await } else { Ok(()) }
    }

    /// An error that names a checkpoint that cannot be read, or a pointer to a missing one.
    async fn find_damaged_checkpoint(&self, listed: &Listed) -> Result<()> {
        let advice = match listed.commits.keys().next() {
            Some(0) => "remove it: the log has every entry",
            _ => "restore the file",
        };
        let damaged = |name: &str, why: &str| {
            Error::table(format!("the log of {} is damaged: {name} {why}; {advice}", self.location))
        };
        const LAST: &str = "_delta_log/_last_checkpoint";
        if let Some(text) = self.location.get(LAST).await? {
            let version = serde_json::from_slice::<Value>(&text).ok().and_then(|last| last["version"].as_u64());
            match version {
                None => return Err(damaged(LAST, "names no version")),
                Some(version) if !listed.checkpoints.contains(&version) => {
                    return Err(damaged(LAST, &format!("names a checkpoint of version {version}, which is not there")));
                }
                Some(_) => {}
            }
        }
        for file in self.location.list(DIRECTORY).await? {
            let Some(name) = file.location.filename().filter(|name| name.ends_with(".parquet")) else { continue };
            let name = format!("{DIRECTORY}/{name}");
            let Some(content) = self.location.get(&name).await? else { continue };
            if let Err(e) = ParquetRecordBatchReaderBuilder::try_new(content) {
                return Err(damaged(&name, "cannot be read").with_source(e));
            }
        }
        Ok(())
    }
}

/// The versions with entries in the log, with their sizes, and the checkpoints.
#[derive(Debug, Default)]
pub(super) struct Listed {
    commits: BTreeMap<u64, u64>,
    checkpoints: BTreeSet<u64>,
}

impl Listed {
    pub(super) fn newest(&self) -> Option<u64> {
        self.commits.keys().next_back().max(self.checkpoints.last()).copied()
    }

    /// Whether `version` can be reconstructed from a checkpoint and the entries after it.
    pub(super) fn reaches(&self, version: u64) -> bool {
        let from = self.checkpoints.range(..=version).next_back().map_or(0, |v| v + 1);
        (from..=version).all(|v| self.commits.contains_key(&v))
    }
}

/// Whether arrays and objects of a JSON text are nested more than `most` levels deep.
fn nests_deeper(text: &[u8], most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            // Each line is a text of its own.
            b'\n' => depth = 0,
            _ => {}
        }
        if depth > most {
            return true;
        }
    }
    false
}

/// The store's failure that caused an error, unless it is that something was not found.
fn store_failure<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a object_store::Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(store) = e.downcast_ref::<object_store::Error>() {
            return (!matches!(store, object_store::Error::NotFound { .. })).then_some(store);
        }
        next = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_text() {
        assert!(nests_deeper(b"[[[1]]]", 2) && !nests_deeper(b"[[1], [[2]]]", 3));
        assert!(!nests_deeper(br#"{"a": "[[[[\"[[[["}"#, 1));
        assert!(!nests_deeper(b"{\"a\": {\n{\"a\": {", 2));
    }

    #[test]
    fn a_version_needs_every_entry_after_a_checkpoint() {
        let listed = |commits: &[u64], checkpoints: &[u64]| Listed {
            commits: commits.iter().map(|&version| (version, 1)).collect(),
            checkpoints: checkpoints.iter().copied().collect(),
        };
        assert!(listed(&[0, 1, 2], &[]).reaches(2));
        assert!(!listed(&[0, 2], &[]).reaches(2));
        assert!(listed(&[4, 5], &[3]).reaches(5));
        assert!(!listed(&[4, 5], &[3]).reaches(2));
        assert_eq!(listed(&[4, 5], &[7]).newest(), Some(7));
    }
}
