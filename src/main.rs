//! The `dacpipe` command: arguments, logging, exit codes. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;
use dacpipe::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // `DACPIPE_LOG=debug` for more; logs go to stderr, results to stdout.
    let filter = EnvFilter::try_from_env("DACPIPE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,buoyant_kernel=off,deltalake_core=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match cli.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.kind().exit_code())
        }
    }
}
