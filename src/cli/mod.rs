//! The command line: one file a subcommand. Each parses its arguments and calls the library.

use clap::{Parser, Subcommand};
use datafusion::common::runtime::SpawnedTask;

use crate::device;
use crate::error::{Error, Result};
use crate::event::Control;

pub mod check;
pub mod evaluate;
pub mod label;
pub mod output;
mod prompt;
pub mod report;
pub mod run;
pub mod simulate;
pub mod sql;
mod sql_error;
mod statements;
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
            Command::Label(args) => runtime(args.threads())?.block_on(label::run(args)),
            Command::Sql(args) => on_deep_stacks(sql::run(args)),
            Command::Evaluate(args) => on_deep_stacks(evaluate::run(args)),
            Command::Report(args) => runtime(None)?.block_on(report::run(args)),
            Command::Table(args) => runtime(None)?.block_on(table::run(args)),
            Command::Simulate(args) => simulate::run(args),
        }
    }
}

/// Bytes of stack of the threads that plan and run SQL, which a statement as deep as [`statements`] lets through fits
/// into, in a build without optimization as well. No more memory is taken than is used.
const STACK: usize = 128 << 20;

/// Does `work`, which reads SQL, on threads of such stacks.
fn on_deep_stacks(work: impl Future<Output = Result<()>> + Send) -> Result<()> {
    let runtime = started(workers(None)?.thread_stack_size(STACK))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || runtime.block_on(work));
        match thread.map_err(|e| Error::io("cannot start a thread").with_source(e))?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The runtime of I/O and SQL, of as many workers as there are compute threads, which are `asked` for or the default.
/// Arithmetic runs on the pool's threads and on blocking ones; while it does, workers wait for it.
fn runtime(asked: Option<usize>) -> Result<tokio::runtime::Runtime> {
    started(&mut workers(asked)?)
}

fn workers(asked: Option<usize>) -> Result<tokio::runtime::Builder> {
    let mut workers = tokio::runtime::Builder::new_multi_thread();
    workers.worker_threads(device::threads(asked)?).enable_all();
    Ok(workers)
}

fn started(workers: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime> {
    workers.build().map_err(|e| Error::io("cannot start the I/O runtime").with_source(e))
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
