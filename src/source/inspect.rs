//! Inspects files: how they are written, what their columns hold, and which `[source]` section would read them.
//!
//! All of it comes from the start of the first file and the beginnings of up to 63 more; nothing is learned or written.
//! The suggested section is a guess: names and values decide which column is a time, a key or a label. The section is
//! tried on the same rows, so that bad rows are reported.

use std::io::Read;
use std::path::Path;

use super::csv::{files_at, is_table};
use super::location::{DataFile, blocking, list};
use crate::error::{Error, Kind, Result};
use crate::terminal::shown_name;

mod columns;
mod configured;
mod parquet;
mod recordings;
mod roles;
mod section;
mod text;
mod times;
mod trial;

pub use columns::{Column, ColumnKind};
pub use configured::configured;

use section::Section;
use trial::Trial;

/// How much of the first file is looked at, decompressed: 4 MiB.
const LOOKED_AT: u64 = 4 << 20;
/// How many files are looked at, and how much of each but the first.
const FILES: usize = 64;
const BEGINNING: u64 = 64 << 10;

/// What a file, or the first of several, looks like.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Inspection {
    /// The path that was asked for.
    pub path: String,
    /// The file that was looked at.
    pub file: String,
    /// How many files are there.
    pub files: usize,
    /// What was found out: its format, its rows, its times.
    pub facts: Vec<Fact>,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its first rows, as they are written.
    pub first_rows: Vec<Vec<String>>,
    /// What a user should look at before using the suggestion.
    pub notes: Vec<String>,
    /// A `[source]` section that reads it, for a pipeline file; none if nothing in it can be read.
    pub source: Option<String>,
}

/// Something that was found out about a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// What it is about, such as "encoding".
    pub about: &'static str,
    /// What was found.
    pub found: String,
}

fn fact(about: &'static str, found: impl Into<String>) -> Fact {
    Fact { about, found: found.into() }
}

/// Inspects `path`: a file, a directory, a glob or a URL, as a source would take it, or a directory in the HAPT layout.
/// Shows the first `rows` rows.
///
/// # Errors
/// Kind `Input` if there is nothing, or neither a text table nor Parquet; `Io` if it cannot be read.
pub async fn inspect(path: &str, rows: usize) -> Result<Inspection> {
    if let Some(found) = hapt(path)? {
        return Ok(found);
    }
    let (files, _) = files_at(path).await?;
    let Some(first) = files.first().cloned() else {
        return Err(Error::input(format!("{}: no files there", shown_name(path))));
    };
    let start = {
        let first = first.clone();
        // A file that cannot be read is reported later, by its reader.
        blocking(move || Ok(start_of(&first, 4).map(|(start, _)| start).unwrap_or_default())).await?
    };
    let mut found = match start == b"PAR1" || is_table(&first) {
        true => parquet::inspect(path, &files, rows).await?,
        false => text::inspect(path, &files, rows).await?,
    };
    found.files = files.len();
    if files.len() > FILES {
        found.notes.push(format!("of {} files the first {FILES} were looked at", files.len()));
    }
    if !is_table(&first)
        && files.len() > 1
        && let Ok(tables) = list(path, &[".parquet", ".pq"]).await
    {
        found.notes.push(format!("{} Parquet files are there as well, which this section does not read", tables.len()));
    }
    Ok(found)
}

/// The first `size` bytes of `file`, decompressed, fewer if it ends before; and the error that ended the reading, if it
/// is damaged.
///
/// # Errors
/// The error of a file of which nothing can be read.
fn start_of(file: &DataFile, size: u64) -> Result<(Vec<u8>, Option<Error>)> {
    let mut start = Vec::new();
    let read = file.open()?.take(size).read_to_end(&mut start).map_err(|e| file.unreadable(e));
    match read {
        Err(e) if start.is_empty() => Err(e),
        read => Ok((start, read.err())),
    }
}

/// What a local directory in the HAPT layout contains; `None` for any other directory.
fn hapt(path: &str) -> Result<Option<Inspection>> {
    let raw = Path::new(path).join("RawData");
    if path.contains("://") || !raw.is_dir() {
        return Ok(None);
    }
    let unreadable = |e| Error::io(format!("{}: cannot be listed", shown_name(&raw))).with_source(e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&raw).map_err(unreadable)? {
        names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    let recordings = names.iter().filter(|name| name.starts_with("acc_exp")).count();
    if recordings == 0 {
        return Ok(None);
    }
    let mut notes = Vec::new();
    if !names.iter().any(|name| name.starts_with("labels")) {
        notes.push("RawData has no labels.txt: windows cannot be cut within labels".into());
    }
    Ok(Some(Inspection {
        path: path.into(),
        file: shown_name(&raw),
        files: 2 * recordings,
        facts: vec![
            fact("format", "the layout of the HAPT data set"),
            fact("recordings", format!("{recordings}, of accelerometer and gyroscope")),
            fact("times", "50 Hz"),
        ],
        columns: Vec::new(),
        first_rows: Vec::new(),
        notes,
        source: Some(Section::hapt(path)),
    }))
}

/// Reports what the trial of a section found.
fn judge(trial: Result<Trial>, what: &str, facts: &mut Vec<Fact>, notes: &mut Vec<String>) -> Result<()> {
    match trial {
        Ok(Trial { good, bad: 0, .. }) => facts.push(fact("tried", format!("all {good} {what} are good"))),
        Ok(Trial { good, bad, first, .. }) => {
            let share = 100.0 * bad as f64 / (good + bad).max(1) as f64;
            facts.push(fact("tried", format!("{good} {what} are good, {bad} bad ({share:.1} %)")));
            if let Some(row) = first {
                let place = if row.line == 0 { row.file } else { format!("{}:{}", row.file, row.line) };
                notes.push(format!("the first bad row is {place}: {}", row.reason));
            }
        }
        // The section does not fit the data, but the user may be able to change it so that it does.
        Err(e) if matches!(e.kind(), Kind::Input | Kind::Config) => {
            notes.push(format!("the section does not read it as it is: {e}"));
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

/// A value as shown among the first rows; a long one is cut.
fn in_a_cell(value: &[u8]) -> String {
    const LONGEST: usize = 24;
    let text = String::from_utf8_lossy(&value[..value.len().min(8 * LONGEST)]);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
