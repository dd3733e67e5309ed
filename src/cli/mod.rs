//! The command line, with one file per subcommand. Each parses its arguments and calls the library.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Parser, Subcommand};
use datafusion::common::runtime::SpawnedTask;

use crate::device;
use crate::error::{Error, Result};
use crate::event::Control;
use crate::report::Progress;
use crate::source::fence::caught;
use crate::terminal;

pub mod check;
pub mod evaluate;
pub mod fail_on;
pub mod inspect;
pub mod label;
pub mod output;
mod prompt;
pub mod replay;
pub mod report;
pub mod run;
pub mod simulate;
#[cfg(feature = "otel")]
pub mod spans;
pub mod sql;
mod sql_error;
mod statements;
pub mod table;
pub mod top;

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
  NO_COLOR           no colors (as CLICOLOR=0 and TERM=dumb); CLICOLOR_FORCE=1 gives them to files, too

Exit codes:
  0 success   2 wrong usage   3 pipeline file   4 input data   5 model   6 labelled table
  7 disk, network or object store   8 arithmetic   10 drift, 11 rows set aside (--fail-on; the rows are committed)
  70 a defect of dacpipe   99 nothing new (run --once, replay)   130 interrupted
A reader of the output that goes away, as head does, is no error: the code is what it would have been.
If the output cannot be written, on a full disk say, the code is 7; what run and label committed stays committed.";

/// Learns clusters from streams of sensor data or feature vectors and writes them as a table for SQL.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

// No doc comments here: they would replace the texts of the arguments' types in `--help`.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Inspect(inspect::InspectArgs),
    Label(label::LabelArgs),
    Sql(sql::SqlArgs),
    Evaluate(evaluate::EvaluateArgs),
    Report(report::ReportArgs),
    Table(table::TableArgs),
    Replay(replay::ReplayArgs),
    Top(top::TopArgs),
    Simulate(simulate::SimulateArgs),
}

impl Cli {
    /// Runs the command. Returns the exit code: 0; 99 where nothing was new; 10 or 11 where `--fail-on` asks for it.
    ///
    /// # Errors
    /// What went wrong, for [`fail`].
    pub fn execute(self) -> Result<ExitCode> {
        let done = match self.command {
            Command::Run(args) => return run::run(args),
            Command::Replay(args) => return replay::run(args),
            Command::Label(args) => return computing_runtime(args.threads())?.block_on(label::run(args)),
            Command::Check(args) => runtime(None)?.block_on(check::run(&args)),
            Command::Inspect(args) => runtime(None)?.block_on(inspect::run(args)),
            Command::Sql(args) => on_deep_stacks(sql::run(args)),
            Command::Evaluate(args) => on_deep_stacks(evaluate::run(args)),
            Command::Report(args) => runtime(None)?.block_on(report::run(args)),
            Command::Table(args) => runtime(None)?.block_on(table::run(args)),
            Command::Top(args) => top::run(&args),
            Command::Simulate(args) => simulate::run(args),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// The [runtime] of a command that also computes.
///
/// # Errors
/// Kind `Io` if the system does not allow enough threads: some tasks would wait for others that never begin.
fn computing_runtime(asked: Option<usize>) -> Result<tokio::runtime::Runtime> {
    // The runtime's workers, the pool and as many readers, plus writers and the thread that learns.
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

/// How many threads can be started, up to `wanted`. It starts them, and ends them again.
fn threads_there(wanted: usize) -> usize {
    // The threads wait for this lock, so that all exist at once.
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

/// The stack size of threads that plan and run SQL. It is enough for the deepest statement that [`statements`] accepts,
/// also in a build without optimization. Only the used part takes memory.
const STACK: usize = 128 << 20;

/// Runs `work`, which plans SQL, on threads with such stacks.
fn on_deep_stacks(work: impl Future<Output = Result<()>> + Send) -> Result<()> {
    let workers = device::threads(None)?;
    let mut builder = workers_of(workers);
    builder.thread_stack_size(STACK);
    let runtime = started(workers, builder)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || runtime.block_on(work));
        match thread.map_err(|e| Error::io("cannot start a thread").with_source(e))?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The runtime for I/O and SQL, with as many workers as there are compute threads (`asked`, or the default).
/// Computation runs on the pool's threads and on blocking ones, while workers wait for it.
fn runtime(asked: Option<usize>) -> Result<tokio::runtime::Runtime> {
    let workers = device::threads(asked)?;
    started(workers, workers_of(workers))
}

fn workers_of(workers: usize) -> tokio::runtime::Builder {
    /// Blocking threads for everything else: the default of a runtime.
    const BLOCKING: usize = 512;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // A scan has as many blocking readers as there are compute threads, and none of them may have to wait for another
    // to end.
    builder.worker_threads(workers).max_blocking_threads(BLOCKING + workers).enable_all();
    builder
}

fn started(workers: usize, mut builder: tokio::runtime::Builder) -> Result<tokio::runtime::Runtime> {
    let no_threads = |why: String| Error::io(format!("cannot start {workers} threads for I/O and SQL: {why}"));
    // The runtime panics if the system gives it no thread.
    caught(move || builder.build()).map_err(&no_threads)?.map_err(|e| no_threads(e.to_string()))
}

/// Shows clap's output: help and versions on standard output, wrong usage on standard error. Returns the exit code.
pub fn usage(said: &clap::Error) -> u8 {
    const WRONG_USAGE: u8 = 2;
    let text = said.render();
    let shown = |colors: bool| if colors { text.ansi().to_string() } else { text.to_string() };
    if said.use_stderr() {
        terminal::tell_styled(shown(terminal::stderr_has_colors()).trim_end());
        return WRONG_USAGE;
    }
    match terminal::say_styled(shown(terminal::stdout_has_colors()).trim_end()) {
        Ok(()) => 0,
        Err(e) => fail(&e),
    }
}

/// Shows an error on standard error. Returns the exit code.
pub fn fail(e: &Error) -> u8 {
    terminal::tell(&format!("error: {e}"));
    e.kind().exit_code()
}

/// Shows a run's events on standard error, unless it is to be quiet.
fn control(quiet: bool) -> Control {
    Control::new(Arc::new(if quiet { Progress::notes_alone() } else { Progress::on_stderr() }))
}

/// Completes the error of a failed output after a commit: it must say that the rows are in the table, since running the
/// command again would write them twice.
fn after_commit(said: Result<()>, table: &str, version: u64) -> Result<()> {
    said.map_err(|e| {
        e.while_doing(format!("the rows are committed to {table} (version {version}); do not run it again"))
    })
}

/// Cancels the run at the first interrupt (Ctrl-C, or SIGTERM), for as long as the returned value lives. A second one
/// ends the process.
fn cancel_on_interrupt(control: &Control) -> SpawnedTask<()> {
    let control = control.clone();
    SpawnedTask::spawn(async move {
        let Ok(mut interrupts) = Interrupts::new() else { return };
        interrupts.next().await;
        control.cancel();
        interrupts.next().await;
        std::process::exit(i32::from(crate::Kind::Cancelled.exit_code()));
    })
}

/// The requests to end that the system passes on.
struct Interrupts {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Self> {
        #[cfg(unix)]
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        Ok(Self {
            #[cfg(unix)]
            terminate,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
