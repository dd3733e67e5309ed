//! `dacpipe check`: reports every problem of pipeline files at once, and how their sources read the data.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::inspect;
use crate::config::{PipelineFile, Problem};
use crate::error::{Error, Result};
use crate::source::inspect::{Inspection, configured};
use crate::terminal::{self, shown_name};

const EXAMPLES: &str = "\
Examples:
  dacpipe check pipelines/*.toml
  dacpipe check mine.toml --set source.path=/data/hapt
  dacpipe check mine.toml --data";

/// Report every problem of pipeline files, with line and column
///
/// Checks keys, types, bounds, names of columns and the order of the stages, as a run would. With --data, the source of
/// each file without problems is read, too, up to 4 MiB of its first file and the beginnings of 63 more: it shows the
/// delimiter, encoding, columns and types, sampling rate, gaps, recordings and first rows that it finds, and which rows
/// would be bad. Exit code 3 if any file has a problem, 4 if a source cannot be read.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override a key of the files, as run would; may be given several times
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Read the data, too, and show what was found in it
    #[arg(long)]
    data: bool,
    /// First rows of the data to show
    #[arg(long, default_value_t = 5, value_name = "N", requires = "data")]
    rows: usize,
    /// Print the findings as one JSON array on stdout, with one object per file
    #[arg(long)]
    json: bool,
}

/// What was found in one file, for JSON.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// The output shapes of a method's layers, where the file gives the shape of a row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
    problems: Vec<Found>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Inspection>,
}

#[derive(Debug, Serialize)]
struct Found {
    message: String,
    help: Option<String>,
}

impl From<&Problem> for Found {
    fn from(problem: &Problem) -> Self {
        Self { message: problem.message().to_owned(), help: problem.help_text().map(str::to_owned) }
    }
}

/// Checks the files.
///
/// # Errors
/// Kind `Config` if any file has a problem; otherwise the error of the first source that cannot be read.
pub async fn run(args: &CheckArgs) -> Result<()> {
    let (mut checked, mut wrong, mut unreadable) = (Vec::new(), 0, None);
    for path in &args.files {
        let file = shown_name(path);
        let mut found = match PipelineFile::load(path, &args.set) {
            Ok(loaded) => {
                let (note, layers) = (loaded.plan.without_keys(), loaded.plan.layers());
                if !args.json {
                    let note = note.as_ref().map(|note| format!("\n  note: {note}")).unwrap_or_default();
                    let lines: String = layers.iter().map(|line| format!("\n  {line}")).collect();
                    terminal::say(&format!("{file}: ok{note}{lines}"))?;
                }
                let note = note.map(Into::into);
                let mut found = Checked { file, ok: true, note, layers, problems: Vec::new(), data: None };
                if args.data {
                    match configured(&loaded.plan.source, args.rows).await {
                        Ok(data) if args.json => found.data = Some(data),
                        Ok(data) => terminal::say(&format!("\n{}", inspect::understood(&data)))?,
                        Err(e) => {
                            found.problems.push(Found { message: e.to_string(), help: None });
                            let e = e.while_doing(&found.file);
                            match unreadable {
                                None => unreadable = Some(e),
                                Some(_) => terminal::tell(&format!("error: {e}")),
                            }
                        }
                    }
                }
                found
            }
            Err(problems) => {
                terminal::tell_styled(&problems.render(terminal::stderr_has_colors()));
                wrong += usize::from(!problems.is_empty());
                Checked {
                    file,
                    ok: true,
                    note: None,
                    layers: Vec::new(),
                    problems: problems.iter().map(Found::from).collect(),
                    data: None,
                }
            }
        };
        found.ok = found.problems.is_empty();
        checked.push(found);
    }
    if args.json {
        let json = serde_json::to_string_pretty(&checked);
        terminal::say_json(&json.map_err(|e| Error::internal("writing the findings as JSON").with_source(e))?)?;
    }
    match (wrong, unreadable) {
        (0, None) => Ok(()),
        (0, Some(e)) => Err(e),
        (n, unreadable) => {
            unreadable.iter().for_each(|e| terminal::tell(&format!("error: {e}")));
            Err(Error::config(format!("{n} of {} pipeline files have problems", args.files.len())))
        }
    }
}
