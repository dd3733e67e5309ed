//! The `dacpipe` command: arguments, logging, exit codes. Everything else is in the library.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;

use clap::Parser;
use dacpipe::cli::{self, Cli};
use dacpipe::{Error, terminal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

fn main() -> ExitCode {
    set_hook(Box::new(|panic| terminal::tell(&format!("a defect of dacpipe: {panic}"))));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => return cli::usage(&said).into(),
    };
    // `DACPIPE_LOG=debug` for more; logs go to stderr, results to stdout.
    const USUAL: &str = "warn,buoyant_kernel=off,deltalake_core=off";
    let asked = std::env::var("DACPIPE_LOG").ok().filter(|asked| !asked.is_empty());
    let filter = EnvFilter::try_new(asked.as_deref().unwrap_or(USUAL)).unwrap_or_else(|e| {
        let asked = asked.unwrap_or_default();
        terminal::tell(&format!("warning: DACPIPE_LOG={asked}: {e}; expected error, warn, info, debug or trace"));
        EnvFilter::new(USUAL)
    });
    let colors = terminal::stderr_has_colors();
    let log = tracing_subscriber::fmt::layer().with_ansi(colors);
    let log = log.with_writer(move || terminal::LogWriter::new(colors)).with_filter(filter);
    #[cfg(feature = "otel")]
    let exporting = match cli::spans::Exporting::begin() {
        Ok(exporting) => exporting,
        Err(e) => return cli::fail(&e).into(),
    };
    #[cfg(feature = "otel")]
    tracing_subscriber::registry().with(log).with(exporting.as_ref().map(cli::spans::Exporting::layer)).init();
    #[cfg(not(feature = "otel"))]
    tracing_subscriber::registry().with(log).init();
    let done = catch_unwind(AssertUnwindSafe(|| cli.execute()));
    match done.unwrap_or_else(|_| Err(Error::internal("it panicked, see above; please report it"))) {
        Ok(code) => code,
        Err(e) => cli::fail(&e).into(),
    }
}
