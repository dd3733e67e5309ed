//! `dacpipe inspect`: shows how a file is written, and the section of a pipeline file that reads it.

use std::fmt::Write as _;

use clap::Args;

use crate::error::{Error, Result};
use crate::source::inspect::{Inspection, inspect};
use crate::terminal::{self, one_line, shown_name};

const EXAMPLES: &str = "\
Examples:
  dacpipe inspect examples/data/pump.csv
  dacpipe inspect 'logs/*.csv' --rows 3
  dacpipe inspect vectors.parquet --json";

/// The most columns that are listed, and that are shown of the first rows.
const MOST_COLUMNS: usize = 40;
const MOST_CELLS: usize = 12;
/// The most characters of a note on a line.
const LONGEST: usize = 400;

/// Show how a file is written, and the section of a pipeline file that reads it
///
/// Shows the delimiter, encoding, columns and their types, sampling rate, gaps and recordings, and guesses which column
/// is a time, a key or a label. The section is tried on the data that was read: 4 MiB of the first file and the
/// beginnings of 63 more, or 10 000 rows of Parquet. Nothing is written.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// A file, a directory, a glob or a URL, as a source takes it
    #[arg(value_name = "PATH")]
    path: String,
    /// First rows to show
    #[arg(long, default_value_t = 5, value_name = "N")]
    rows: usize,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
}

/// Inspects the path and shows what was found.
///
/// # Errors
/// As [`inspect`].
pub async fn run(args: InspectArgs) -> Result<()> {
    let found = inspect(&args.path, args.rows).await?;
    if args.json {
        let json = serde_json::to_string_pretty(&found);
        return terminal::say_json(
            &json.map_err(|e| Error::internal("writing what was found as JSON").with_source(e))?,
        );
    }
    terminal::say(page(&found).trim_end())
}

/// What was found, as text, and the suggested section.
fn page(found: &Inspection) -> String {
    let mut out = understood(found);
    match &found.source {
        Some(source) => {
            out += &format!("\n# a suggestion: paste it into a pipeline file, and look at each line\n{source}")
        }
        None => out += "\nno source can read it\n",
    }
    out
}

/// What was found, as text.
pub(super) fn understood(found: &Inspection) -> String {
    let mut out = shown_name(&found.path);
    if found.files > 1 {
        out += &format!(": {} files, the first is {}", found.files, found.file);
    }
    out.push('\n');
    let facts: Vec<Vec<String>> = found.facts.iter().map(|f| vec![f.about.into(), f.found.clone()]).collect();
    aligned(&mut out, &facts);
    if !found.columns.is_empty() {
        out += "\ncolumns\n";
        let head = ["name", "type", "used as", "missing", "values"].map(String::from).to_vec();
        let rows = found.columns.iter().take(MOST_COLUMNS).map(|column| {
            let role = if column.role.is_empty() { "-" } else { &column.role };
            let name = short(&column.name, MOST_COLUMNS);
            vec![name, column.kind.name().into(), role.into(), column.missing.to_string(), column.values.clone()]
        });
        aligned(&mut out, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
        more(&mut out, found.columns.len(), MOST_COLUMNS, "columns");
    }
    if !found.first_rows.is_empty() {
        out += "\nfirst rows\n";
        let head: Vec<String> = found.columns.iter().map(|column| column.name.clone()).collect();
        let rows = std::iter::once(&head).chain(&found.first_rows);
        let cells = |row: &Vec<String>| row.iter().take(MOST_CELLS).map(|cell| short(cell, 40)).collect();
        aligned(&mut out, &rows.map(cells).collect::<Vec<_>>());
        more(&mut out, head.len(), MOST_CELLS, "columns");
    }
    if !found.notes.is_empty() {
        out += "\nto look at\n";
        for note in &found.notes {
            out += &format!("  - {}\n", short(note, LONGEST));
        }
    }
    out
}

fn more(out: &mut String, all: usize, shown: usize, what: &str) {
    if all > shown {
        *out += &format!("  … and {} more {what}\n", all - shown);
    }
}

/// `text` on one line, cut to at most `most` characters.
fn short(text: &str, most: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into_owned(),
    }
}

/// Appends `rows` with aligned columns.
fn aligned(out: &mut String, rows: &[Vec<String>]) {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            // Writing to a String does not fail.
            write!(line, "  {cell:<width$}").ok();
        }
        *out += line.trim_end();
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut out = String::new();
        aligned(&mut out, &[vec!["é".into(), "b".into()], vec!["ccc".into(), "d\u{1b}".into()]]);
        assert_eq!(out, "  é    b\n  ccc  d\\u{1b}\n");
        assert_eq!(short("a\nb and more", 6), "a\\nb a…");
    }
}
