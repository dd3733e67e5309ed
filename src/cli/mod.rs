//! The command line: one file a subcommand. Each parses its arguments and calls the library.

use clap::{Parser, Subcommand};
use datafusion::common::runtime::SpawnedTask;

use crate::error::{Error, Result};
use crate::event::Control;

pub mod check;
pub mod evaluate;
pub mod label;
pub mod output;
mod prompt;
pub mod run;
pub mod simulate;
pub mod sql;

/// Exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0 success   2 wrong usage   3 pipeline file   4 input data   5 model   6 labelled table
  7 disk, network or object store   8 arithmetic   70 a defect of dacpipe   130 interrupted";

/// Learns clusters from streams of sensor data or feature vectors and writes them as a table for SQL.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline: read, learn, label, and write the labelled table
    Run(run::RunArgs),
    /// Report every problem of pipeline files, with line and column
    Check(check::CheckArgs),
    /// Label new rows with a saved model
    Label(label::LabelArgs),
    /// Query labelled tables with SQL
    Sql(sql::SqlArgs),
    /// Compare the clusters of a table with labels: ARI, NMI, ACC, sizes, contingency
    Evaluate(evaluate::EvaluateArgs),
    /// Write simulated sensor recordings
    Simulate(simulate::SimulateArgs),
}

impl Cli {
    /// Does what the command line asks for.
    pub fn execute(self) -> Result<()> {
        match self.command {
            Command::Run(args) => runtime()?.block_on(run::run(args)),
            Command::Check(args) => check::run(&args),
            Command::Label(args) => runtime()?.block_on(label::run(args)),
            Command::Sql(args) => runtime()?.block_on(sql::run(args)),
            Command::Evaluate(args) => runtime()?.block_on(evaluate::run(args)),
            Command::Simulate(args) => simulate::run(args),
        }
    }
}

/// The runtime of I/O and SQL. Arithmetic runs on the pool's threads, so a worker a core is enough.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start the I/O runtime").with_source(e))
}

/// Cancels the run at the first interrupt, for as long as what it returns lives. A second one ends the process.
fn cancel_on_interrupt(control: &Control) -> SpawnedTask<()> {
    let control = control.clone();
    SpawnedTask::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            control.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(crate::Kind::Cancelled.exit_code()));
            }
        }
    })
}
