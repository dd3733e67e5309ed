//! `dacpipe check`: every problem of pipeline files at once.

use std::path::PathBuf;

use clap::Args;

use crate::config::PipelineFile;
use crate::error::{Error, Result};

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
}

/// Checks the files; an error of kind `Config` if any has a problem.
pub fn run(args: &CheckArgs) -> Result<()> {
    let mut bad = 0;
    for file in &args.files {
        match PipelineFile::load(file, &args.set) {
            Ok(loaded) => {
                println!("{}: ok", file.display());
                if let Some(note) = loaded.plan.without_keys() {
                    println!("  note: {note}");
                }
            }
            Err(problems) => {
                eprintln!("{problems}");
                bad += 1;
            }
        }
    }
    match bad {
        0 => Ok(()),
        n => Err(Error::config(format!("{n} of {} pipeline files have problems", args.files.len()))),
    }
}
