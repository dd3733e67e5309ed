//! `dacpipe check`: every problem of pipeline files at once.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::config::{PipelineFile, Problem};
use crate::error::{Error, Result};
use crate::terminal::{self, shown_name};

const EXAMPLES: &str = "\
Examples:
  dacpipe check pipelines/*.toml
  dacpipe check mine.toml --set source.path=/data/hapt";

/// Report every problem of pipeline files, with line and column
///
/// Keys, types, bounds, names of columns and the order of the stages are held against what a run accepts; data is not
/// read. Exit code 3 if any file has a problem.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override a key of the files, as run would; may be given several times
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Print the findings as one JSON array on stdout, an object a file
    #[arg(long)]
    json: bool,
}

/// What was found in one file, for programs.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    problems: Vec<Found>,
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

/// Checks the files; an error of kind `Config` if any has a problem.
pub fn run(args: &CheckArgs) -> Result<()> {
    let mut checked = Vec::new();
    for path in &args.files {
        let file = shown_name(path);
        let (note, problems) = match PipelineFile::load(path, &args.set) {
            Ok(loaded) => {
                let note = loaded.plan.without_keys();
                if !args.json {
                    let note = note.as_ref().map(|note| format!("\n  note: {note}")).unwrap_or_default();
                    terminal::say(&format!("{file}: ok{note}"))?;
                }
                (note.map(Into::into), Vec::new())
            }
            Err(problems) => {
                terminal::tell_styled(&problems.render(terminal::stderr_has_colors()));
                (None, problems.iter().map(Found::from).collect())
            }
        };
        checked.push(Checked { file, ok: problems.is_empty(), note, problems });
    }
    if args.json {
        let json = serde_json::to_string_pretty(&checked);
        terminal::say_json(&json.map_err(|e| Error::internal("writing the findings as JSON").with_source(e))?)?;
    }
    match checked.iter().filter(|file| !file.ok).count() {
        0 => Ok(()),
        n => Err(Error::config(format!("{n} of {} pipeline files have problems", args.files.len()))),
    }
}
