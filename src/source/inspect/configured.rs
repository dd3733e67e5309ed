//! Inspects files by a configured source: how they are read, what its columns hold, which recordings, rates and gaps
//! there are, which rows would be bad, and which keys would help.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::columns::Column;
use super::parquet::{columns_of, first_rows};
use super::recordings::{Comments, Parts, Table, called};
use super::roles::Roles;
use super::section::encoding_name;
use super::text::in_words;
use super::times::Times;
use super::{BEGINNING, FILES, Fact, Inspection, LOOKED_AT, fact, in_a_cell, judge, start_of, trial};
use crate::error::{Error, Result};
use crate::source::bad::Rejects;
use crate::source::csv::guess::{Start, number};
use crate::source::csv::{
    AcrossFiles, Beginning, CsvSpec, Disorder, Fill, Jitter, Repeated, SameTime, beginning, files_at, is_table,
};
use crate::source::hapt::Hapt;
use crate::source::location::{DataFile, blocking};
use crate::source::{BadRows, Dialect, HaptSpec, OnBadRow, ParquetSpec, SourceSpec, TimeUnit, parquet};

/// Rows that are read of the first file, and of each other one.
const ROWS: usize = 100_000;
const OTHERS: usize = 2000;
/// Vectors that are read.
const VECTORS: usize = 10_000;
/// The key that stands for the name of a file.
const FILE: &str = "file";

/// Inspects the files of `spec`, by the beginnings of the first one and of up to 63 more. Shows the first `rows` rows.
/// It suggests no section, since there is one.
///
/// # Errors
/// Kind `Input` if there is no file, or none can be read as `spec` says; `Io` if a disk, network or object store fails.
pub async fn configured(spec: &SourceSpec, rows: usize) -> Result<Inspection> {
    match spec {
        SourceSpec::Hapt(spec) => recordings(spec).await,
        SourceSpec::Csv(spec) => samples(spec, rows).await,
        SourceSpec::Parquet(spec) => vectors(spec, rows).await,
    }
}

fn rejects() -> (Rejects, Arc<BadRows>) {
    let bad = Arc::new(BadRows::new());
    (Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad)), bad)
}

/// A directory in the HAPT layout.
async fn recordings(spec: &HaptSpec) -> Result<Inspection> {
    let (rejects, bad) = rejects();
    let found = Hapt::open(spec, false, rejects).await?;
    let first = bad.first().map(|row| format!("{}:{}: {}", row.file, row.line, row.reason));
    Ok(Inspection {
        path: spec.path.clone(),
        file: spec.path.clone(),
        files: 1,
        facts: vec![fact("format", "the layout of the HAPT data set"), fact("content", found.describe())],
        columns: Vec::new(),
        first_rows: Vec::new(),
        notes: first.into_iter().collect(),
        source: None,
    })
}

/// Feature vectors in Parquet.
async fn vectors(spec: &ParquetSpec, rows: usize) -> Result<Inspection> {
    let (rejects, bad) = rejects();
    let source = parquet::open(spec, rejects).await?;
    let frame = SessionContext::new().read_table(Arc::clone(&source.provider))?.limit(0, Some(VECTORS))?;
    let schema = Arc::clone(frame.schema().inner());
    let batches: Vec<_> = frame.execute_stream().await?.try_collect().await?;
    let batch = arrow::compute::concat_batches(&schema, &batches)?;
    let mut columns = columns_of(&batch)?;
    for column in &mut columns {
        column.role = match column.name.as_str() {
            name if spec.keys.iter().any(|key| key == name) => "key",
            name if spec.label.as_deref() == Some(name) => "label",
            name if spec.split.as_deref() == Some(name) => "split",
            name if spec.keep.iter().any(|keep| keep == name) => "kept",
            _ => "feature",
        }
        .into();
    }
    let mut found = Inspection {
        path: spec.path.clone(),
        file: spec.path.clone(),
        files: 1,
        facts: vec![
            fact("format", "Parquet"),
            fact("content", source.description.clone()),
            fact("features", listed(&source.feature_names)),
        ],
        first_rows: first_rows(&batch, rows)?,
        columns,
        notes: Vec::new(),
        source: None,
    };
    let tried = trial::Trial { good: batch.num_rows() as u64, bad: bad.count(), first: bad.first(), rate_hz: None };
    judge(Ok(tried), "rows that were looked at", &mut found.facts, &mut found.notes)?;
    Ok(found)
}

/// The first of many names.
fn listed(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| crate::source::bad::shown(name.as_bytes())).collect();
    let more = names.len().checked_sub(MOST + 1).map(|more| format!(" and {} more", more + 1));
    format!("{}: {}{}", names.len(), shown.join(", "), more.unwrap_or_default())
}

/// Samples of recordings.
async fn samples(spec: &CsvSpec, rows: usize) -> Result<Inspection> {
    let (files, _) = files_at(&spec.path).await?;
    let (all, tables) = (files.len(), files.iter().any(is_table));
    let this = spec.clone();
    let (mut found, held) = blocking(move || looked_at(&this, files, rows)).await?;
    found.files = all;
    if all > FILES {
        found.notes.push(format!("of {all} files the first {FILES} were looked at"));
    }
    // A part of a Parquet file cannot be read by itself.
    let small = held.iter().try_fold(0u64, |sum, file| Ok::<_, Error>(sum + file.size()?))? <= LOOKED_AT;
    if small || !tables {
        let tried = trial::samples(spec, held).await?;
        if let Some(rate) = tried.rate_hz {
            let why = if spec.rate_hz.is_some() { "as rate_hz says" } else { "as most recordings show" };
            found.facts.push(fact("rate", format!("{rate} Hz, {why}")));
        }
        judge(Ok(tried), "rows that were looked at", &mut found.facts, &mut found.notes)?;
    }
    Ok(found)
}

/// Inspects the beginnings of `files`. Also returns files with only these beginnings. Blocks.
fn looked_at(spec: &CsvSpec, files: Vec<DataFile>, rows: usize) -> Result<(Inspection, Vec<DataFile>)> {
    let (mut seen, mut unusable) = (Vec::new(), Vec::new());
    for file in files.into_iter().take(FILES) {
        let (most, bytes) = if seen.is_empty() { (ROWS, LOOKED_AT) } else { (OTHERS, BEGINNING) };
        match beginning(&file, spec, most, bytes as usize) {
            Ok(found) => seen.push((file, found)),
            Err(e) => unusable.push(e),
        }
    }
    let mut notes = Vec::new();
    if let (Some(e), false) = (unusable.first(), seen.is_empty()) {
        notes.push(format!("{} files cannot be read, the first: {e}", unusable.len()));
    }
    if seen.is_empty() {
        return Err(unusable.into_iter().next().unwrap_or_else(|| Error::internal("a source without files")));
    }
    let mut tables: Vec<Table> = seen.iter_mut().map(|(file, beginning)| table(file, beginning)).collect();
    let (first, others) = (tables.remove(0), tables);
    let (file, beginning) = &seen[0];
    let much = if beginning.whole { "" } else { " looked at" };
    let mut facts = match beginning.written {
        Some((encoding, delimiter)) => vec![
            fact("format", in_words(&spec.dialect, delimiter)),
            fact("encoding", encoding_name(encoding)),
            fact(
                "header",
                match beginning.header_line {
                    0 => "none: columns go by their places".into(),
                    line => format!("on line {line}"),
                },
            ),
        ],
        None => vec![fact("format", "Parquet, samples as rows")],
    };
    facts.push(fact("rows", format!("{}{much}", first.rows.len())));
    // Numbers from Parquet have the default format.
    let dialect = beginning.written.map_or_else(Dialect::default, |_| spec.dialect.clone());
    let columns = understood(spec, &dialect, (&first, &others), &mut facts, &mut notes);
    let cells = |row: &crate::source::csv::Record| (0..first.names.len()).map(|at| in_a_cell(row.field(at))).collect();
    let found = Inspection {
        path: spec.path.clone(),
        file: file.name().to_string(),
        files: 0,
        facts,
        columns,
        first_rows: first.rows.iter().take(rows).map(cells).collect(),
        notes,
        source: None,
    };
    let held = seen.into_iter().enumerate().map(|(at, (file, beginning))| match beginning.written {
        Some(_) => part(file, if at == 0 { LOOKED_AT } else { BEGINNING }),
        None => file,
    });
    Ok((found, held.collect()))
}

/// A file with only the first `size` bytes of `file`, up to the last line break.
fn part(file: DataFile, size: u64) -> DataFile {
    let Ok((bytes, damage)) = start_of(&file, size) else { return file };
    let whole = (bytes.len() as u64) < size && damage.is_none();
    match Start::of(bytes, whole) {
        Ok(start) => file.holding(start.bytes),
        Err(_) => file,
    }
}

fn table(file: &DataFile, beginning: &mut Beginning) -> Table {
    let mut rows = std::mem::take(&mut beginning.rows);
    rows.retain(|row| row.problem().is_none());
    Table { file: file.name().to_string(), names: beginning.names.clone(), rows }
}

/// Describes the columns of the `first` file and their uses; reports recordings and times, and which keys would help.
fn understood(
    spec: &CsvSpec,
    dialect: &Dialect,
    (first, others): (&Table, &[Table]),
    facts: &mut Vec<Fact>,
    notes: &mut Vec<String>,
) -> Vec<Column> {
    let names = called(&first.names);
    let values = |at: usize| first.rows.iter().map(move |row| row.field(at));
    let mut columns: Vec<Column> =
        names.iter().enumerate().map(|(at, name)| Column::of(name, values(at), |v| number(dialect, v))).collect();
    let place = |name: &String| {
        let named = names.iter().position(|other| other == name);
        named.or_else(|| name.strip_prefix("column_")?.parse::<usize>().ok()?.checked_sub(1))
    };
    let there = |name: &String| place(name).filter(|&at| at < names.len());
    let roles = Roles {
        time: spec.time.as_ref().and_then(|time| there(&time.column)),
        keys: spec.keys.iter().filter_map(there).collect(),
        label: spec.label.as_ref().and_then(there),
        split: spec.split.as_ref().and_then(there),
        numbers: spec.channels.iter().filter_map(there).collect(),
    };
    for (at, column) in columns.iter_mut().enumerate() {
        let kept = || spec.keep.iter().any(|keep| there(&keep.column) == Some(at));
        column.role = match () {
            () if roles.time == Some(at) => "time",
            () if roles.keys.contains(&at) => "key",
            () if roles.label == Some(at) => "label",
            () if roles.split == Some(at) => "split",
            () if roles.numbers.contains(&at) => "channel",
            () if kept() => "kept",
            () => "",
        }
        .into();
    }
    let parts = Parts { first, others, dialect, guessed: &roles, names: &names };
    // The spec that would be suggested for the same columns.
    let mut free = CsvSpec { rules: Default::default(), interleaved: None, ..spec.clone() };
    let (mut comments, mut more) = (Comments::new(), Vec::new());
    match roles.keys.is_empty() && !spec.keys.is_empty() {
        true => facts.push(fact("recordings", format!("by {}, which no row says", spec.keys.join(" and ")))),
        false => parts.keys(&mut free, facts, &mut more, &mut comments),
    }
    let unit = spec.time.as_ref().map(|time| time.unit).unwrap_or_default();
    if let Some(at) = roles.time {
        let reader = parts.reader(unit, spec.time_format.as_deref(), at);
        let times = Times::of(&first.rows, &roles.keys, unit, reader);
        facts.push(fact("times", times.describe()));
        parts.rates(&times, at, &mut free, facts, &mut comments);
        parts.rules(&times, &mut free, &mut more, &mut comments);
        let likely = parts.unit(first, at);
        if (unit, spec.time_format.is_none()) == (TimeUnit::Auto, true)
            && !matches!(likely, TimeUnit::Auto | TimeUnit::S)
        {
            let name = likely.name();
            notes.push(format!("the times are read as seconds, and look like {name}: time_unit = \"{name}\" says so"));
        }
    }
    parts.missing(&columns, &mut free, &mut more, &mut comments);
    parts.headers(notes);
    notes.extend(more.into_iter().filter(|note| !settled(spec, note)));
    notes.extend(helpful(spec, &free, &comments));
    columns
}

/// Whether a key of `spec` already does what a note suggests.
fn settled(spec: &CsvSpec, note: &str) -> bool {
    let rules = &spec.rules;
    let told_apart = rules.across_files == AcrossFiles::Continue || spec.keys.iter().any(|key| key == FILE);
    (note.contains("same_time") && rules.same_time == SameTime::Spread)
        || (note.contains("fill = ") && rules.fill == Fill::Hold)
        || (note.starts_with("keys come back") && told_apart)
}

/// The keys that would be suggested for these files, as in `free`, and that `spec` does not set.
fn helpful(spec: &CsvSpec, free: &CsvSpec, comments: &Comments) -> Vec<String> {
    let (said, rules) = (&spec.rules, &free.rules);
    let file = free.keys.len() > spec.keys.len();
    let keys = [
        (
            "jitter",
            match (rules.jitter, said.jitter) {
                (Some(Jitter::Part(part)), None) => Some(part.to_string()),
                (Some(Jitter::Part(part)), Some(Jitter::Part(said))) if said < part => Some(part.to_string()),
                _ => None,
            },
        ),
        (
            "disorder",
            match (rules.disorder, said.disorder) {
                (Disorder::Lines(lines), Disorder::Lines(said)) if said < lines => Some(lines.to_string()),
                _ => None,
            },
        ),
        (
            "same_time",
            (rules.same_time != said.same_time && rules.same_time == SameTime::Spread).then(|| quoted("spread")),
        ),
        ("repeated", (rules.repeated != said.repeated && rules.repeated == Repeated::Drop).then(|| quoted("drop"))),
        ("fill", (rules.fill != said.fill && rules.fill == Fill::Hold).then(|| quoted("hold"))),
        ("resample", (rules.resample && !said.resample).then(|| "true".into())),
        (
            "across_files",
            (rules.across_files == AcrossFiles::Continue
                && said.across_files != rules.across_files
                && !spec.keys.iter().any(|key| key == FILE))
            .then(|| quoted("continue")),
        ),
        ("keys", file.then(|| format!("[…, {}]", quoted(FILE)))),
        ("interleaved", free.interleaved.filter(|_| spec.interleaved.is_none()).map(|turns| turns.to_string())),
        ("rate_hz", free.rate_hz.filter(|_| spec.rate_hz.is_none()).map(|rate| rate.to_string())),
    ];
    let told = |(key, value): (&'static str, Option<String>)| {
        let why = comments.get(key).map(|why| format!(": {why}")).unwrap_or_default();
        value.map(|value| format!("{key} = {value} would help{why}"))
    };
    keys.into_iter().filter_map(told).collect()
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
