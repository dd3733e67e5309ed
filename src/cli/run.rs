//! `dacpipe run`: from a pipeline file to a labelled table.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{PipelineFile, Plan};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Pipeline, RunOptions};
use crate::report::summary;
use crate::terminal;

mod stream;

pub(super) use stream::NOTHING_NEW;

const EXAMPLES: &str = "\
Examples:
  dacpipe run pipelines/hapt.toml
  dacpipe run pipelines/hapt.toml --set name=quick --set sink.path=out/quick --set seed=8
  HAPT_DATA=/data/hapt dacpipe run pipelines/hapt.toml
  dacpipe run pipelines/sensor-csv.toml --once
  dacpipe run pipelines/sensor-csv.toml --follow --set stream.files=growing";

/// Run a pipeline: read, learn, label, and write the labelled table
///
/// All rows are committed together, once they are labelled. The summary goes to stdout, progress to stderr; run.json
/// and the model are in the table's directory. An interrupted run (Ctrl-C, or a crash) leaves the table as it was, and
/// can be continued with --resume.
///
/// With --follow or --once the source is read as a stream: what is new since the table's last commit is labelled and
/// appended, as the stream section of the file says. A stream goes on where its last commit ended, also after a crash, and every
/// row is in the table once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Override a key of the file; may be given several times. Stages are named by their kind: stage.kmeans.k=6. The
    /// value null removes a key or a stage
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Go on with an interrupted run of the same file over the same data. Starts if no run was interrupted, and does
    /// nothing if the run is complete
    #[arg(long, conflicts_with_all = ["follow", "once"])]
    resume: bool,
    /// Go on labelling what is new in the source, until interrupted (Ctrl-C or SIGTERM): what is being labelled then is
    /// committed first
    #[arg(long, conflicts_with = "once")]
    follow: bool,
    /// Label what is new in the source, and end. The exit code is 99 if nothing was new
    #[arg(long)]
    once: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print the report as JSON on stdout (that of a run is run.json), and the summary on stderr
    #[arg(long)]
    json: bool,
}

/// Runs the pipeline; prints the summary on stdout and progress on stderr.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    let plan = PipelineFile::load(&args.file, &args.set)?.plan;
    super::computing_runtime(plan.threads)?.block_on(run_plan(plan, &args))
}

async fn run_plan(plan: Plan, args: &RunArgs) -> Result<ExitCode> {
    if args.follow || args.once {
        return stream::run(plan, args).await;
    }
    let control = super::control(args.quiet);
    let _listener = super::cancel_on_interrupt(&control);
    let options = RunOptions { resume: args.resume, control };
    let report = Pipeline::new(plan)?.run(&options).await.map_err(|e| match e.kind() {
        Kind::Cancelled => Error::cancelled(format!("{e}; run the same file again with --resume to go on")),
        _ => e,
    })?;
    let said = match args.json {
        true => {
            if !args.quiet {
                terminal::tell(&summary::summary(&report));
            }
            terminal::say_json(&report.to_json()?)
        }
        false => terminal::say(&summary::summary(&report)),
    };
    super::after_commit(said, &report.table, report.table_version)?;
    Ok(ExitCode::SUCCESS)
}
