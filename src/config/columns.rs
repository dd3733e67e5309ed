//! The columns that a source names, and those that it yields.

use super::Draft;
use super::check::ORDER;
use super::file::*;
use crate::signal::window::WindowLabel;
use crate::source::Aggregate;
use crate::source::keep::share_of;
use crate::source::times::{END_TIME, START_TIME};

/// Every column that a source names, with its place in the file.
pub(super) fn named_columns(source: &SourceTable) -> Vec<(String, &String)> {
    match source {
        SourceTable::Hapt(_) => Vec::new(),
        SourceTable::Csv(table) => {
            let time = table.time.iter().map(|name| ("source.time".to_string(), name));
            let described = described(&table.keys, &table.label, &table.split);
            named(&table.channels, "source.channels").chain(time).chain(described).collect()
        }
        SourceTable::Parquet(table) => {
            let features = match &table.features {
                Columns::One(name) => vec![("source.features".to_string(), name)],
                Columns::Many(names) => named(names, "source.features").collect(),
            };
            features.into_iter().chain(described(&table.keys, &table.label, &table.split)).collect()
        }
    }
}

/// Names with the paths of their places in the file.
fn named<'a>(names: &'a [String], path: &'a str) -> impl Iterator<Item = (String, &'a String)> {
    names.iter().enumerate().map(move |(index, name)| (format!("{path}[{index}]"), name))
}

/// The columns that describe a row: its keys, its label, its split.
fn described<'a>(
    keys: &'a [String],
    label: &'a Option<String>,
    split: &'a Option<String>,
) -> impl Iterator<Item = (String, &'a String)> {
    let single = |path: &'static str, name: &'a Option<String>| name.iter().map(move |name| (path.to_string(), name));
    named(keys, "source.keys").chain(single("source.label", label)).chain(single("source.split", split))
}

/// The column that says which part of the data a row belongs to.
pub(super) fn split_column(source: &SourceTable) -> Option<&String> {
    static HAPT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "split".into());
    match source {
        SourceTable::Hapt(_) => Some(&HAPT),
        SourceTable::Csv(table) => table.split.as_ref(),
        SourceTable::Parquet(table) => table.split.as_ref(),
    }
}

/// The columns that identify a row of the source.
pub(super) fn key_columns(source: &SourceTable) -> Vec<String> {
    match source {
        SourceTable::Hapt(_) => ["experiment", "user", "start"].map(String::from).to_vec(),
        SourceTable::Csv(table) => recording_keys(table).into_iter().chain(["start".into()]).collect(),
        SourceTable::Parquet(table) => table.keys.clone(),
    }
}

/// The columns that tell recordings apart: the file's name where none are given.
fn recording_keys(table: &CsvTable) -> Vec<String> {
    if table.keys.is_empty() { vec!["file".into()] } else { table.keys.clone() }
}

/// The columns that can serve as labels: all but the features and the position in the recording.
pub(super) fn class_columns(source: &SourceTable) -> Vec<String> {
    match source {
        SourceTable::Hapt(_) => ["experiment", "user", "split", "activity"].map(String::from).to_vec(),
        SourceTable::Csv(table) => {
            recording_keys(table).into_iter().chain(table.split.clone()).chain(table.label.clone()).collect()
        }
        SourceTable::Parquet(ParquetTable { keys, label, split, .. }) => {
            keys.iter().chain(split).chain(label).cloned().collect()
        }
    }
}

/// The columns that `[split].column` may name: label columns, and columns that `keep` carries along unchanged.
pub(super) fn part_columns(source: &SourceTable) -> Vec<String> {
    let mut columns = class_columns(source);
    match source {
        SourceTable::Hapt(_) => {}
        SourceTable::Csv(table) => {
            columns.extend(table.keep.iter().filter(|keep| !of_numbers(keep)).map(|keep| keep.name().clone()));
        }
        SourceTable::Parquet(table) => columns.extend(table.keep.iter().cloned()),
    }
    columns
}

/// Whether a column that is carried along becomes a number computed over the window (mean, min, max) rather than one of
/// its values.
pub(super) fn of_numbers(keep: &KeepTable) -> bool {
    keep.aggregate().is_of_numbers()
}

/// The columns of the table that can partition its files.
pub(super) fn written_columns(sink: &SinkTable, draft: &Draft, source: &SourceTable) -> Vec<String> {
    let label = match source {
        SourceTable::Hapt(_) => Some("activity".to_string()),
        SourceTable::Csv(table) => table.label.clone(),
        SourceTable::Parquet(table) => table.label.clone(),
    };
    let split = draft.split.column.as_ref().or(split_column(source)).cloned();
    let keys = sink.keys.clone().unwrap_or_else(|| key_columns(source));
    let carried = carried_columns(source, draft).into_iter().map(|(_, name)| name);
    let written: Vec<String> = keys.into_iter().chain(split).chain(label).chain(carried).collect();
    let there = source_columns(source, draft).into_iter().filter(|column| written.contains(column));
    // Only the last stage of the order assigns clusters; a stage of an unknown kind may have been meant to be that one.
    let others = &ORDER[..ORDER.len() - 1];
    let clusters = draft.stages.iter().any(|(kind, _)| !kind.as_deref().is_some_and(|kind| others.contains(&kind)));
    there.chain(clusters.then(|| "cluster".to_string())).collect()
}

/// The columns that the source yields beside the features.
pub(super) fn source_columns(source: &SourceTable, draft: &Draft) -> Vec<String> {
    let start = !matches!(source, SourceTable::Parquet(_));
    let carried = carried_columns(source, draft).into_iter().map(|(_, name)| name);
    class_columns(source).into_iter().chain(start.then(|| "start".to_string())).chain(carried).collect()
}

/// The further columns that are written beside keys, label and split, with the places in the file that ask for them:
/// the share of a window's label, its times, and the columns of the source that `keep` names.
pub(super) fn carried_columns(source: &SourceTable, draft: &Draft) -> Vec<(String, String)> {
    let label = match source {
        SourceTable::Hapt(_) => Some("activity".to_string()),
        SourceTable::Csv(table) => table.label.clone(),
        SourceTable::Parquet(_) => None,
    };
    let by_mode = |stage: &Option<StageTable>| {
        matches!(stage, Some(StageTable::Window(WindowTable { label: WindowLabel::Mode, .. })))
    };
    let share = label.filter(|_| draft.stages.iter().any(|(_, stage)| by_mode(stage))).map(|label| share_of(&label));
    let mut carried: Vec<_> = share.into_iter().map(|share| ("stage.window.label".to_string(), share)).collect();
    let place = |index: usize| format!("source.keep[{index}]");
    match source {
        SourceTable::Hapt(_) => {}
        SourceTable::Csv(table) => {
            let times = table.time.iter().flat_map(|_| [START_TIME, END_TIME]);
            carried.extend(times.map(|name| ("source.time".to_string(), name.to_string())));
            for (index, keep) in table.keep.iter().enumerate() {
                carried.push((place(index), keep.name().clone()));
                if keep.aggregate() == Aggregate::Mode {
                    carried.push((place(index), share_of(keep.name())));
                }
            }
        }
        SourceTable::Parquet(table) => {
            carried.extend(table.keep.iter().enumerate().map(|(index, name)| (place(index), name.clone())));
        }
    }
    carried
}
