//! `dacpipe run`: from a pipeline file to a labelled table.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::fail_on::{self, FailOn};
use crate::config::{DriftPolicy, PipelineFile, Plan};
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
  dacpipe run pipelines/sensor-csv.toml --follow --set stream.files=growing
  dacpipe run pipelines/sensor-csv.toml --follow --metrics 127.0.0.1:9464";

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
    /// Serve what the stream does at this address: /metrics for Prometheus and dacpipe top, and /health
    #[arg(long, requires = "follow", value_name = "ADDRESS")]
    metrics: Option<String>,
    /// End with an exit code of its own, once the rows are committed: 10 if rows have drifted so far that it is to be acted on
    /// (which takes a drift section in the file; a stream ends then), 11 if rows were set aside
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print the report as JSON on stdout (that of a run is run.json), and the summary on stderr
    #[arg(long)]
    json: bool,
}

/// Runs the pipeline; prints the summary on stdout and progress on stderr.
pub fn run(args: RunArgs) -> Result<ExitCode> {
    let mut plan = PipelineFile::load(&args.file, &args.set)?.plan;
    plan.stream.metrics = args.metrics.clone().or(plan.stream.metrics);
    if args.fail_on.contains(&FailOn::Drift) {
        let lacks =
            || Error::config("--fail-on drift: the pipeline file has no [drift] section, so no drift is measured");
        plan.drift.as_mut().ok_or_else(lacks)?.policy = DriftPolicy::Fail;
    }
    super::computing_runtime(plan.threads)?.block_on(run_plan(plan, &args))
}

/// What the flags and the file's policy make an exit code of.
fn fails_on(plan: &Plan, args: &RunArgs) -> Vec<FailOn> {
    let policy = plan.drift.as_ref().is_some_and(|drift| drift.policy == DriftPolicy::Fail);
    args.fail_on.iter().copied().chain(policy.then_some(FailOn::Drift)).collect()
}

async fn run_plan(plan: Plan, args: &RunArgs) -> Result<ExitCode> {
    if args.follow || args.once {
        return stream::run(plan, args).await;
    }
    let control = super::control(args.quiet);
    let _listener = super::cancel_on_interrupt(&control);
    let asked = fails_on(&plan, args);
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
    Ok(fail_on::code(&asked, &report.drift, report.quarantined_rows).unwrap_or(ExitCode::SUCCESS))
}
