//! `dacpipe run`: from a pipeline file to a labelled table.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::config::PipelineFile;
use crate::error::{Error, Kind, Result};
use crate::event::{Control, Silent};
use crate::pipeline::{Pipeline, RunOptions};
use crate::report::{Progress, summary};

/// Arguments of `dacpipe run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Override a key: --set stage.autoencoder.epochs=5, --set memory_limit=300MB
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Go on with an interrupted run of the same file over the same data
    #[arg(long)]
    resume: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print run.json in place of the summary
    #[arg(long)]
    json: bool,
}

/// Runs the pipeline; prints the summary on stdout and progress on stderr.
pub async fn run(args: RunArgs) -> Result<()> {
    let plan = PipelineFile::load(&args.file, &args.set)?.plan;
    let control = match args.quiet {
        true => Control::new(Arc::new(Silent)),
        false => Control::new(Arc::new(Progress::on_stderr())),
    };
    let _listener = super::cancel_on_interrupt(&control);
    let options = RunOptions { resume: args.resume, control };
    let report = Pipeline::new(plan)?.run(&options).await.map_err(|e| match e.kind() {
        Kind::Cancelled => Error::cancelled(format!("{e}; run the same file again with --resume to go on")),
        _ => e,
    })?;
    match args.json {
        true => println!("{}", report.to_json()?),
        false => println!("{}", summary::summary(&report)),
    }
    Ok(())
}
