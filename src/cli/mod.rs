//! The command line: one file a subcommand. Each parses its arguments and calls the library.

use std::sync::{Arc, Mutex, PoisonError};

use clap::{Parser, Subcommand};
use datafusion::common::runtime::SpawnedTask;

use crate::device;
use crate::error::{Error, Result};
use crate::event::Control;
use crate::source::fence::caught;

pub mod check;
pub mod evaluate;
pub mod label;
pub mod output;
mod prompt;
pub mod report;
pub mod run;
pub mod simulate;
pub mod sql;
pub mod table;

/// What `--help` shows below the commands.
const AFTER_HELP: &str = "\
First steps, in a checkout of dacpipe:
  dacpipe run pipelines/hapt.toml
  dacpipe sql -c 'SELECT cluster, count(*) FROM hapt GROUP BY cluster'
  dacpipe evaluate hapt --by split
  dacpipe report hapt

Environment:
  DACPIPE_THREADS    compute threads, where neither the pipeline file nor a flag says
  DACPIPE_LOG        what is logged on stderr: error, warn, info, debug or trace [default: warn]
  SOURCE_DATE_EPOCH  seconds since 1970 that rows are said to be labelled at [default: now]

Exit codes:
  0 success   2 wrong usage   3 pipeline file   4 input data   5 model   6 labelled table
  7 disk, network or object store   8 arithmetic   70 a defect of dacpipe   130 interrupted";

/// Learns clusters from streams of sensor data or feature vectors and writes them as a table for SQL.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

// No doc comments here: they would replace those of the arguments' types, which are what `--help` shows.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Label(label::LabelArgs),
    Sql(sql::SqlArgs),
    Evaluate(evaluate::EvaluateArgs),
    Report(report::ReportArgs),
    Table(table::TableArgs),
    Simulate(simulate::SimulateArgs),
}

impl Cli {
    /// Does what the command line asks for.
    pub fn execute(self) -> Result<()> {
        match self.command {
            Command::Run(args) => run::run(args),
            Command::Check(args) => check::run(&args),
            Command::Label(args) => computing_runtime(args.threads())?.block_on(label::run(args)),
            Command::Sql(args) => runtime(None)?.block_on(sql::run(args)),
            Command::Evaluate(args) => runtime(None)?.block_on(evaluate::run(args)),
            Command::Report(args) => runtime(None)?.block_on(report::run(args)),
            Command::Table(args) => runtime(None)?.block_on(table::run(args)),
            Command::Simulate(args) => simulate::run(args),
        }
    }
}

/// The [runtime] of a command that computes, too.
///
/// # Errors
/// Kind `Io` if the system has not enough threads for it: some of what runs would wait for others that never begin.
fn computing_runtime(asked: Option<usize>) -> Result<tokio::runtime::Runtime> {
    // Writers and the thread that learns, beside the runtime's workers, the pool and as many readers.
    const BESIDE: usize = 5;
    let threads = device::threads(asked)?;
    let needed = 3 * threads + BESIDE;
    let there = threads_there(needed);
    if there < needed {
        return Err(Error::io(format!(
            "the system gives {there} threads, {threads} compute threads need {needed} in all: raise the limit of \
             processes (ulimit -u, or the container's), or ask for fewer compute threads"
        )));
    }
    runtime(Some(threads))
}

/// How many threads can be started, up to `wanted`: that many are, and end again.
fn threads_there(wanted: usize) -> usize {
    // They wait for this lock, so that all are there at once.
    let wait = Arc::new(Mutex::new(()));
    let held = wait.lock().unwrap_or_else(PoisonError::into_inner);
    let start = |_| {
        let wait = Arc::clone(&wait);
        std::thread::Builder::new().spawn(move || drop(wait.lock())).ok()
    };
    let started: Vec<_> = (0..wanted).map_while(start).collect();
    drop(held);
    let there = started.len();
    started.into_iter().for_each(|thread| drop(thread.join()));
    there
}

/// The runtime of I/O and SQL, of as many workers as there are compute threads, which are `asked` for or the default.
/// Arithmetic runs on the pool's threads and on blocking ones; while it does, workers wait for it.
fn runtime(asked: Option<usize>) -> Result<tokio::runtime::Runtime> {
    /// Blocking threads for all else, which is what the runtime has by default.
    const BLOCKING: usize = 512;
    let workers = device::threads(asked)?;
    let no_threads = |why: String| Error::io(format!("cannot start {workers} threads for I/O and SQL: {why}"));
    // The runtime panics where the system gives it no thread.
    caught(|| {
        // A scan has as many blocking readers as there are compute threads, of which none may wait for another to end.
        let blocking = BLOCKING + workers;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(workers).max_blocking_threads(blocking).enable_all().build()
    })
    .map_err(&no_threads)?
    .map_err(|e| no_threads(e.to_string()))
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
