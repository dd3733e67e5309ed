//! Error messages for SQL statements, with the place in the text and suggestions of similar names.

use datafusion::common::{Column, Diagnostic, Location, SchemaError, Span};
use datafusion::error::DataFusionError;

use crate::column::listed;
use crate::config::nearest;
use crate::error::{Error, Kind};

use super::prompt::as_typed;

/// The most characters of a line that are shown around a place.
const EXCERPT: usize = 120;

/// The error with its place in the SQL text, if DataFusion gives one, and the nearest names of columns, or of the
/// session's `tables`, for an unknown one.
pub(super) fn explain(error: DataFusionError, text: &str, tables: &[String]) -> Error {
    let found = error.diagnostic().cloned();
    let no_column = missing_column(&error).map(|(name, there)| no_column(name, there));
    let ours = Error::from(error);
    if ours.kind() != Kind::Input {
        return ours;
    }
    let said = ours.message().to_owned();
    match found {
        Some(Diagnostic { span, message, helps, .. }) => {
            let no_table = missing_table(&message).map(|name| no_table(name, tables));
            let helps: String = helps.iter().map(|help| format!("\n  {}", help.message)).collect();
            let (said, message) = (without_position(&said), without_position(&message).to_owned());
            let (what, more) = match no_column.or(no_table) {
                Some((what, more)) => (what, format!("\n  {more}")),
                // DataFusion's own message may say more than its diagnostic, such as which function was meant.
                None if said.starts_with(&message) => (said.replace('\n', " "), helps),
                None => (message, helps),
            };
            let place = span.map(|span| point_at(text, &span)).unwrap_or_default();
            Error::input(format!("{what}{place}{more}"))
        }
        None => match (no_column, parser_position(&said)) {
            (Some((what, more)), _) => Error::input(format!("{what}\n  {more}")),
            (None, Some((line, column))) => {
                let place = Location { line, column };
                let what = without_position(&said);
                Error::input(format!("{what}{}", point_at(text, &Span::new(place, place))))
            }
            (None, None) => ours,
        },
    }
}

/// The unknown column of an error, and the columns that exist.
fn missing_column(error: &DataFusionError) -> Option<(&Column, &[Column])> {
    match error {
        DataFusionError::SchemaError(e, _) => match e.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => Some((field, valid_fields)),
            _ => None,
        },
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => missing_column(inner),
        DataFusionError::Collection(all) => all.first().and_then(missing_column),
        _ => None,
    }
}

/// The unknown table of DataFusion's message.
fn missing_table(message: &str) -> Option<&str> {
    message.strip_prefix("table '")?.strip_suffix("' not found")
}

/// The message about an unknown column, and the list of existing ones.
fn no_column(wrong: &Column, there: &[Column]) -> (String, String) {
    let mut names: Vec<&str> = there.iter().map(Column::name).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let hint = meant(wrong.name(), &names);
    let there = match names.is_empty() {
        true => "no column is in reach here".to_owned(),
        false => format!("the columns are {}", typed(&names)),
    };
    let more = match hint {
        Some(hint) => format!("{hint}\n  {there}"),
        // The most likely mistake is text in double quotes.
        None => format!("{there}; text stands in single quotes, names in double ones"),
    };
    (format!("there is no column {:?}", wrong.name()), more)
}

/// The message about an unknown table, and the list of existing ones.
fn no_table(wrong: &str, tables: &[String]) -> (String, String) {
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let more = match names.is_empty() {
        true => {
            "no table is registered: --table NAME=PATH names one, --dir DIR says where the tables of runs are".into()
        }
        false => format!("the tables are {}", typed(&names)),
    };
    let more = match meant(wrong, &names) {
        Some(hint) => format!("{hint}\n  {more}"),
        None => more,
    };
    (format!("there is no table {wrong:?}"), more)
}

/// The name that was likely meant, and how it is written.
fn meant(wrong: &str, names: &[&str]) -> Option<String> {
    let lower = wrong.to_lowercase();
    let begins = || names.iter().copied().find(|name| lower.len() > 2 && name.to_lowercase().starts_with(&lower));
    let name = nearest(wrong, names).or_else(begins)?;
    let typed = as_typed(name);
    Some(match name == typed {
        true => format!("did you mean {typed}?"),
        false => format!("did you mean {typed}? A name with capitals, blanks or signs stands in double quotes"),
    })
}

fn typed(names: &[&str]) -> String {
    let typed: Vec<String> = names.iter().map(|name| as_typed(name)).collect();
    listed(typed.iter().map(String::as_str))
}

/// The parser writes the place at the end of its message: "… at Line: 1, Column: 8".
fn parser_position(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
    Some((line.parse().ok()?, column[..digits].parse().ok()?))
}

/// The parser's message, without the place at its end, which may be there twice.
fn without_position(message: &str) -> &str {
    match message.rsplit_once(" at Line: ") {
        Some((before, _)) if parser_position(message).is_some() => without_position(before),
        _ => message,
    }
}

/// " at line 1, column 8", followed by the line, or the part of a long line near the place, and a mark under the place.
fn point_at(text: &str, span: &Span) -> String {
    let (line, column) = (span.start.line, span.start.column);
    let Some(source) = (line as usize).checked_sub(1).and_then(|i| text.lines().nth(i)) else { return String::new() };
    let before = column.saturating_sub(1) as usize;
    let from = match source.chars().nth(EXCERPT) {
        None => 0,
        Some(_) => before.saturating_sub(EXCERPT / 2),
    };
    // A tab or another control character becomes one character, so that the mark is in the right column.
    let shown = source.chars().skip(from).take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c });
    let shown: String = shown.collect();
    let width = match span.end.line == line {
        true => span.end.column.saturating_sub(column).max(1) as usize,
        false => 1,
    };
    let (pad, mark) = (" ".repeat(before - from), "^".repeat(width.min(EXCERPT - (before - from).min(EXCERPT - 1))));
    format!(" at line {line}, column {column}\n  | {}\n  | {pad}{mark}", shown.trim_end())
}
