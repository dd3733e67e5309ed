//! `dacpipe check`: every problem of pipeline files at once.

use std::path::PathBuf;

use clap::Args;

use crate::config::PipelineFile;
use crate::error::{Error, Result};

/// Arguments of `dacpipe check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override a key, as `run` would: --set stage.autoencoder.epochs=5
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
}

/// Checks the files; an error of kind `Config` if any has a problem.
pub fn run(args: &CheckArgs) -> Result<()> {
    let mut bad = 0;
    for file in &args.files {
        match PipelineFile::load(file, &args.set) {
            Ok(_) => println!("{}: ok", file.display()),
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
