//! Reading again what was set aside, once what was wrong with it is mended: in the pipeline, or in this program.
//!
//! Only files that are as they were are read again, since a row is known by its place in its file.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use object_store::ObjectStoreExt;

use super::bad::{BadRows, Raw, Rejects};
use super::csv::{self, Csv};
use super::location::{DataFile, blocking};
use super::{Source, SourceOptions, SourceSpec, csv::CsvSpec, of_recordings, open, parquet};
use crate::error::{Error, Result};
use crate::secret::redacted;
use crate::signal::window::Within;

/// What is read again, by the names of the files: their rows (text: lines), counted from 1.
#[derive(Debug, Clone, Default)]
pub struct Again {
    files: BTreeMap<String, Vec<RangeInclusive<u64>>>,
}

impl Again {
    /// Adds the `rows` rows of `file` from `line` on (0: all of the file); `None` if it is not known how many they are.
    pub fn add(&mut self, file: &str, line: u64, rows: Option<u64>) {
        let rows = match (line, rows) {
            (0, _) | (_, None) => line..=u64::MAX,
            (line, Some(rows)) => line..=line.saturating_add(rows.saturating_sub(1)),
        };
        self.files.entry(file.to_owned()).or_default().push(rows);
    }

    /// Whether something of `file` is to be read.
    pub(super) fn has(&self, file: &DataFile) -> bool {
        self.files.contains_key(&*redacted(file.name()))
    }

    /// Whether row `row` of `file` is to be read.
    pub(super) fn takes(&self, file: &str, row: u64) -> bool {
        self.files.get(&*redacted(file)).is_some_and(|rows| rows.iter().any(|rows| rows.contains(&row)))
    }
}

/// Opens a source to read `again` what was set aside. Of recordings that are a file each, the files with such lines are
/// read, and of vectors the rows alone. Recordings with keys may be in any file, so all files are read: which of their
/// windows are new, the table's keys tell.
///
/// # Errors
/// As of [`open`].
pub async fn open_again(
    spec: &SourceSpec,
    options: &SourceOptions,
    bad: Arc<BadRows>,
    again: &Again,
) -> Result<Source> {
    let rejects = Rejects::new(options.on_bad_row, Arc::clone(&bad)).with_missing(options.missing);
    match spec {
        SourceSpec::Parquet(spec) => {
            let files = parquet::found(&spec.path).await?.into_iter().filter(|file| again.has(file.file())).collect();
            parquet::of_rows(spec, files, rejects, Some(Arc::new(again.clone()))).await
        }
        SourceSpec::Csv(spec) if spec.keys.is_empty() => {
            if spec.label.is_none() && options.window.is_some_and(|window| window.within == Within::Labels) {
                return Err(Error::config("windows within labels need a label column"));
            }
            let (files, _) = csv::files_at(&spec.path).await?;
            let files = files.into_iter().filter(|file| again.has(file)).collect();
            let recordings = Csv::of_files(spec, files, options.window.is_some(), rejects.clone()).await?;
            let description = recordings.describe();
            of_recordings(Arc::new(recordings), description, options, rejects)
        }
        SourceSpec::Csv(CsvSpec { .. }) | SourceSpec::Hapt(_) => open(spec, options, bad).await,
    }
}

/// A row that was set aside, as it was then.
#[derive(Debug, Clone, Default)]
pub struct Then {
    /// When.
    pub at: Option<SystemTime>,
    /// The row.
    pub raw: Raw,
}

/// Why rows of the files of `spec` cannot be read again, by the names of the files: those that are gone, and those that
/// changed. `then` has the rows of each file.
///
/// A file that was not modified since is as it was; so is one that has the texts of all rows where they were, as one has
/// that has grown.
///
/// # Errors
/// As of listing the files; kind `Io` if they cannot be read.
pub async fn changed(spec: &SourceSpec, then: &BTreeMap<String, Vec<Then>>) -> Result<BTreeMap<String, String>> {
    let files: Vec<DataFile> = match spec {
        SourceSpec::Parquet(spec) => {
            parquet::found(&spec.path).await?.into_iter().map(|file| file.file().clone()).collect()
        }
        SourceSpec::Csv(spec) => csv::files_at(&spec.path).await?.0,
        SourceSpec::Hapt(spec) => super::hapt::files_at(&spec.path).await?,
    };
    let there: BTreeMap<String, DataFile> =
        files.into_iter().map(|file| (redacted(file.name()).into_owned(), file)).collect();
    let mut found = BTreeMap::new();
    for (name, rows) in then {
        let why = match there.get(name) {
            None => Some("is not among the files of the source (any more)".to_owned()),
            Some(file) => is_changed(file, rows).await?.then(|| "changed after it was read".to_owned()),
        };
        found.extend(why.map(|why| (name.clone(), why)));
    }
    Ok(found)
}

async fn is_changed(file: &DataFile, then: &[Then]) -> Result<bool> {
    let modified = match (file.local_path(), file.object()) {
        (Some(path), _) => std::fs::metadata(path).and_then(|file| file.modified()).ok(),
        (None, Ok((store, path, _))) => store.head(&path).await.ok().map(|there| there.last_modified.into()),
        (None, Err(_)) => None,
    };
    let first = then.iter().map(|then| then.at).min().flatten();
    if modified.zip(first).is_some_and(|(modified, first)| modified <= first) {
        return Ok(false);
    }
    let mut texts: Vec<(u64, String)> = Vec::new();
    for Then { raw, .. } in then {
        // Bytes that were no text cannot be compared.
        match raw.offset.filter(|_| !raw.text.contains('\u{fffd}')) {
            Some(offset) => texts.push((offset, raw.text.clone())),
            None => return Ok(true),
        }
    }
    texts.sort();
    let file = file.clone();
    blocking(move || Ok(!has_texts(&file, &texts))).await
}

/// Whether the texts are in the file where they were, in rising order.
fn has_texts(file: &DataFile, texts: &[(u64, String)]) -> bool {
    let Ok(mut input) = file.open() else { return false };
    let mut at = 0;
    for (offset, text) in texts {
        if *offset < at {
            // The same row again.
            continue;
        }
        let skipped = std::io::copy(&mut (&mut input).take(offset - at), &mut std::io::sink());
        let mut there = vec![0; text.len()];
        if skipped.ok() != Some(offset - at) || input.read_exact(&mut there).is_err() || there != text.as_bytes() {
            return false;
        }
        at = offset + text.len() as u64;
    }
    !texts.is_empty()
}
