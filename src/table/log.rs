//! The commit log: one JSON file a version, put if absent; what the table is follows from these files alone.
//!
//! `_log/00000000000000000000.json`, `..01.json`, ... each name the data files that a run added. An overwrite begins
//! anew: the table at version `v` is what the entries from `since` to `v` added, and `since` is in every entry. So a
//! reader lists the log, reads the newest entry and from there only those that matter. It takes one request beyond
//! the listing to see an entry that a store does not list yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::schema::{ColumnType, from_columns};
use crate::error::{Error, Result};
use crate::store::Location;

/// The form of the entries; a reader refuses those of another.
pub const FORMAT: u32 = 1;

/// The directory of the log.
pub(super) const DIRECTORY: &str = "_log";

/// How many entries are read at a time.
const READS: usize = 32;

/// What a commit did to the rows that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its rows were added to them.
    Append,
    /// Its rows replaced them.
    Overwrite,
}

/// The least and the greatest value of a column in one file, and its nulls. Bounds: the values themselves may lie
/// inside (long strings are cut).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRange {
    /// At most every value, as text; absent where there is none or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// At least every value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// How many values are null, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nulls: Option<u64>,
}

/// A Parquet file of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Where it lies below the table.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The one value that each partition column has in it, as text; `None` for null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Option<String>>,
    /// What is known of its other columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, ColumnRange>,
}

/// Where the rows of a commit came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// For people: kind and path.
    pub description: String,
    /// Rows read from it.
    pub rows: u64,
    /// How far it was read, in the source's own terms.
    #[serde(default)]
    pub offsets: serde_json::Value,
}

/// One version of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`FORMAT`].
    pub format: u32,
    /// The version that it makes; the same as in its file name.
    pub version: u64,
    /// What it does to the rows of the version before.
    pub operation: Mode,
    /// The first version whose rows are still in the table.
    pub since: u64,
    /// The run that made it.
    pub run_id: String,
    /// The hash of the model that labelled its rows.
    pub model: String,
    /// The columns of the table.
    pub schema: Vec<ColumnType>,
    /// The columns by whose values the files are divided.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// The files it adds.
    pub added: Vec<DataFile>,
    /// The file of the clusters that the rows of this version have, where the pipeline makes clusters.
    #[serde(default)]
    pub clusters: Option<DataFile>,
    /// The file of means and deviations of the features by cluster, where they were summed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<DataFile>,
    /// The file of rows drawn for a picture, where some were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<DataFile>,
    /// Where its rows came from.
    #[serde(default)]
    pub source: SourceInfo,
    /// When, in RFC 3339.
    pub committed_at: String,
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

/// A table as it was at one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// The first version whose rows it still has.
    pub since: u64,
    /// Its columns.
    pub schema: SchemaRef,
    /// The columns by whose values its files are divided.
    pub partition_by: Vec<String>,
    /// Its files, in the order of their commits.
    pub files: Vec<DataFile>,
    /// The file of its clusters.
    pub clusters: Option<DataFile>,
    /// The file of its features' means and deviations by cluster.
    pub profile: Option<DataFile>,
    /// The file of rows drawn from it.
    pub sample: Option<DataFile>,
    /// The hash of the model of the last commit.
    pub model: String,
    /// The run that made this version.
    pub run_id: String,
    /// The runs whose rows it has, in the order of their commits; that of this version is the last.
    pub runs: Vec<String>,
}

impl Snapshot {
    /// Its rows.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }
}

/// The log of the table at a location. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    location: Location,
}

impl Log {
    /// The log of the table at `location`, whether there is one or not.
    pub fn new(location: Location) -> Self {
        Self { location }
    }

    /// The table at `version`, or as it is now; `None` if there is no table.
    ///
    /// Reads the newest entry and those since the last overwrite.
    ///
    /// # Errors
    /// Kind `Table` if there is no such version (any more), or the log is damaged: an entry is missing, is not what its
    /// name says, or is of another format. Kind `Io` if reading fails.
    pub async fn snapshot(&self, version: Option<u64>) -> Result<Option<Snapshot>> {
        let Some((newest, listed)) = self.newest().await? else {
            return match version {
                Some(version) => Err(self.no_such_version(version, "it holds no table")),
                None => Ok(None),
            };
        };
        let version = version.unwrap_or(newest.version);
        if version > newest.version {
            return Err(self.no_such_version(version, &format!("its newest is {}", newest.version)));
        }
        self.check_complete(&listed, newest.version).await?;
        self.check_kept(version, &newest).await?;
        let last = if version == newest.version { newest } else { self.required(version).await? };
        let earlier: Vec<Entry> = self.entries(last.since, version).await?;
        self.assemble(&earlier, last).map(Some)
    }

    /// That the files of `version` are still there: of those that were overwritten, only the last and what its rows
    /// were appended to.
    async fn check_kept(&self, version: u64, newest: &Entry) -> Result<()> {
        if version >= newest.since {
            return Ok(());
        }
        let oldest = self.required(newest.since - 1).await?.since;
        match version >= oldest {
            true => Ok(()),
            false => {
                Err(self.no_such_version(version, &format!("overwrites removed its files; its oldest is {oldest}")))
            }
        }
    }

    /// The entries that make version `version`, since the last overwrite, in order.
    pub(super) async fn generation(&self, version: u64) -> Result<Vec<Entry>> {
        let last = self.required(version).await?;
        let mut entries = self.entries(last.since, version).await?;
        entries.push(last);
        Ok(entries)
    }

    /// The entries of versions `from..to`, in order.
    async fn entries(&self, from: u64, to: u64) -> Result<Vec<Entry>> {
        futures::stream::iter(from..to).map(|v| self.required(v)).buffered(READS).try_collect().await
    }

    /// Whether a commit of the table is by run `run_id`. Reads the whole log.
    pub(super) async fn has_run(&self, run_id: &str) -> Result<bool> {
        let Some((newest, _)) = self.newest().await? else { return Ok(false) };
        let earlier = self.entries(0, newest.version).await?;
        Ok(earlier.iter().chain([&newest]).any(|entry| entry.run_id == run_id))
    }

    fn no_such_version(&self, version: u64, there: &str) -> Error {
        Error::table(format!("{} has no version {version}: {there}", self.location))
    }

    /// The newest entry, and the versions that the store lists.
    async fn newest(&self) -> Result<Option<(Entry, BTreeSet<u64>)>> {
        let files = self.location.list(DIRECTORY).await?;
        let listed: BTreeSet<u64> = files.iter().filter_map(|f| version_of(f.location.filename()?)).collect();
        let mut newest = match listed.last() {
            Some(&version) => Some(self.required(version).await?),
            None => self.read(0).await?,
        };
        // A listing may lag behind, or have begun before a commit: what follows it is asked for by name.
        while let Some(entry) = &newest {
            match self.read(entry.version + 1).await? {
                Some(next) => newest = Some(next),
                None => break,
            }
        }
        Ok(newest.map(|entry| (entry, listed)))
    }

    /// That no version below `newest` is missing. One that is only not listed yet is asked for by name.
    async fn check_complete(&self, listed: &BTreeSet<u64>, newest: u64) -> Result<()> {
        for version in (0..newest).filter(|v| !listed.contains(v)) {
            self.required(version).await?;
        }
        Ok(())
    }

    async fn required(&self, version: u64) -> Result<Entry> {
        self.read(version).await?.ok_or_else(|| {
            Error::table(format!(
                "the log of {} is damaged: {} is missing, and later versions are there; \
                 restore the file, or write to another path",
                self.location,
                self.location.show(&file_name(version))
            ))
        })
    }

    /// The entry of `version`, if there is one.
    pub(super) async fn read(&self, version: u64) -> Result<Option<Entry>> {
        let name = file_name(version);
        let Some(bytes) = self.location.get(&name).await? else { return Ok(None) };
        let name = self.location.show(&name);
        parse(&bytes, version).map(Some).map_err(|e| e.while_doing(format!("the log entry {name} is damaged")))
    }

    fn assemble(&self, earlier: &[Entry], last: Entry) -> Result<Snapshot> {
        let name = self.location.show(&file_name(last.version));
        let schema = from_columns(&last.schema).map_err(|e| e.while_doing(format!("the log entry {name}")))?;
        for entry in earlier {
            if entry.since != last.since || entry.schema != last.schema || entry.partition_by != last.partition_by {
                let other = self.location.show(&file_name(entry.version));
                return Err(Error::table(format!(
                    "the log of {} is damaged: {other} and {name} belong to different tables",
                    self.location
                )));
            }
        }
        let Entry { version, since, partition_by, clusters, profile, sample, model, run_id, added, .. } = last;
        let files = earlier.iter().flat_map(|e| e.added.iter().cloned()).chain(added).collect();
        let runs = earlier.iter().map(|e| &e.run_id).chain([&run_id]).cloned().collect();
        Ok(Snapshot { version, since, schema, partition_by, files, clusters, profile, sample, model, run_id, runs })
    }

    /// Writes `entry` as its version. False if another process made that version first.
    ///
    /// # Errors
    /// Kind `Io` if writing fails; on an object store the entry may have been written all the same.
    pub async fn try_commit(&self, entry: &Entry) -> Result<bool> {
        let mut text = serde_json::to_vec_pretty(entry)
            .map_err(|e| Error::internal("a log entry that is no JSON").with_source(e))?;
        text.push(b'\n');
        self.location.put_if_absent(&file_name(entry.version), Bytes::from(text)).await
    }
}

pub(super) fn file_name(version: u64) -> String {
    format!("{DIRECTORY}/{version:020}.json")
}

fn version_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".json")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn parse(bytes: &[u8], version: u64) -> Result<Entry> {
    let bad = |e: serde_json::Error| Error::table("it is not the JSON of a commit").with_source(e);
    let header: Header = serde_json::from_slice(bytes).map_err(bad)?;
    if header.format != FORMAT {
        return Err(Error::table(format!(
            "it has format {}, this dacpipe reads {FORMAT}; use the version that wrote it",
            header.format
        )));
    }
    let entry: Entry = serde_json::from_slice(bytes).map_err(bad)?;
    if entry.version != version {
        return Err(Error::table(format!("it says version {}", entry.version)));
    }
    let since_is_possible = match entry.operation {
        Mode::Overwrite => entry.since == version,
        Mode::Append => entry.since < version || version == 0,
    };
    if !since_is_possible {
        return Err(Error::table(format!("its rows cannot go back to version {}", entry.since)));
    }
    let outside = |f: &&DataFile| object_store::path::Path::parse(&f.path).is_err() || f.path.starts_with('/');
    let mut files = entry.added.iter().chain(&entry.clusters).chain(&entry.profile).chain(&entry.sample);
    if let Some(file) = files.find(outside) {
        return Err(Error::table(format!("{:?} is no path of a file of the table", file.path)));
    }
    Ok(entry)
}

/// `time` in RFC 3339, UTC, to the microsecond.
pub(super) fn rfc3339(time: std::time::SystemTime) -> Result<String> {
    let times = TimestampMicrosecondArray::from(vec![micros(time)]).with_timezone("UTC");
    Ok(array_value_to_string(&(Arc::new(times) as Arc<dyn Array>), 0)?)
}

/// Microseconds since 1970.
pub(super) fn micros(time: std::time::SystemTime) -> i64 {
    match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_sort_as_their_versions() {
        assert_eq!(file_name(7), "_log/00000000000000000007.json");
        assert_eq!(version_of("00000000000000000007.json"), Some(7));
        for other in [
            "7.json",
            "00000000000000000007.json.tmp",
            ".lock",
            "+0000000000000000007.json",
            "99999999999999999999.json",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn times_are_utc() {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(rfc3339(time).unwrap(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(micros(std::time::UNIX_EPOCH - std::time::Duration::from_micros(5)), -5);
    }
}
