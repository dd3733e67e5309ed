//! `dacpipe replay`: runs what was set aside again.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::evaluate::path_of;
use super::run::NOTHING_NEW;
use crate::config::PipelineFile;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, ReplayOptions, ReplayReport, replay_table};
use crate::terminal::{self, one_line};

const EXAMPLES: &str = "\
Examples:
  dacpipe replay pipelines/sensor-csv.toml --dry-run
  dacpipe replay pipelines/sensor-csv.toml --set source.encoding=latin-1
  dacpipe replay pumps --where \"reason LIKE '%decimal%'\"";

/// Run again what was set aside, after a fix of the pipeline file
///
/// Reads the rows that a table's runs set aside again, as the pipeline file says now (another delimiter, encoding or
/// rule), labels those that can be used with the table's model, appends them, and marks them in NAME_quarantine, all in
/// one commit: replaying twice adds nothing twice. A line of a recording makes windows with its neighbours, so of
/// recordings the files are read as a whole, and the windows that the table does not have are added. Files must be as
/// they were. With a table in place of a file, the source is read as when the model was learned.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// The pipeline file, which ends with .toml; or the directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE|FILE")]
    what: String,
    /// Override a key of the file; may be given several times
    #[arg(long, value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Only rows of the quarantine for which this is true, in SQL
    #[arg(long = "where", value_name = "CONDITION")]
    only: Option<String>,
    /// Commit nothing; report what would be done
    #[arg(long)]
    dry_run: bool,
    /// Compute threads, where no pipeline file says
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print the report as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Replays, and prints what was done. The exit code is 99 if there was nothing to replay.
///
/// # Errors
/// Those of [`Pipeline::replay`].
pub fn run(args: ReplayArgs) -> Result<ExitCode> {
    let control = super::control(args.quiet);
    let options =
        ReplayOptions { only: args.only, dry_run: args.dry_run, threads: args.threads, control: control.clone() };
    let report = if args.what.ends_with(".toml") {
        let plan = PipelineFile::load(Path::new(&args.what), &args.set)?.plan;
        super::computing_runtime(plan.threads)?.block_on(async {
            let _listener = super::cancel_on_interrupt(&control);
            Pipeline::new(plan)?.replay(&options).await
        })?
    } else {
        if !args.set.is_empty() {
            return Err(Error::config("--set changes a pipeline file, and a table is given; expected a file"));
        }
        let table = path_of(&args.what)?;
        super::computing_runtime(args.threads)?.block_on(async {
            let _listener = super::cancel_on_interrupt(&control);
            replay_table(&table, &options).await
        })?
    };
    let said = match args.json {
        true => {
            let json = serde_json::to_string_pretty(&report);
            terminal::say_json(&json.map_err(|e| Error::internal("the report of a replay as JSON").with_source(e))?)
        }
        false => terminal::say(&summary(&report, args.dry_run)),
    };
    match report.table_version {
        Some(version) => super::after_commit(said, &report.table, version)?,
        None => said?,
    }
    Ok(if report.entries == 0 { NOTHING_NEW.into() } else { ExitCode::SUCCESS })
}

fn summary(report: &ReplayReport, dry_run: bool) -> String {
    let ReplayReport { entries, replayed, rows, table, seconds, .. } = report;
    if *entries == 0 {
        return format!("{table}: nothing to replay ({seconds:.2} s)");
    }
    let would = if dry_run { " would be" } else { "" };
    let mut lines = vec![format!(
        "{replayed} of {entries} entries of the quarantine{would} replayed, {rows} rows{would} added ({seconds:.2} s)"
    )];
    for (kind, refused) in &report.refused {
        let first = one_line(&refused.first).into_owned();
        lines.push(format!("  refused   {} still, for their {kind}; the first is {first}", refused.entries));
    }
    if report.set_aside > 0 {
        lines.push(format!("  set aside {} rows of them, by themselves", report.set_aside));
    }
    for (why, entries) in &report.not_replayable {
        lines.push(format!("  left      {entries} cannot be read again: {why}"));
    }
    lines.push(format!("  model     {}", report.model));
    lines.push(match report.table_version {
        Some(version) => format!("  table     {table} (version {version})"),
        None => format!("  table     {table} (as it was)"),
    });
    lines.join("\n")
}
