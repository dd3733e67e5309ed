//! `dacpipe simulate`: writes simulated recordings, or a stream of them.

mod hapt;
mod stream;

use clap::{Args, Subcommand};

use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  dacpipe simulate hapt --out data/simulated --users 8 --seed 7
  HAPT_DATA=data/simulated dacpipe run pipelines/hapt.toml
  dacpipe simulate stream --out - --seconds 60 --speed max";

/// Write simulated sensor recordings, for machines without real ones
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    #[command(subcommand)]
    layout: Layout,
}

#[derive(Debug, Subcommand)]
enum Layout {
    /// A phone at the waist, in the layout of the HAPT data set: twelve activities at 50 Hz
    Hapt(hapt::HaptArgs),
    /// Vibrations of machines without an end, as files, lines or messages
    Stream(stream::StreamArgs),
}

/// Writes what was asked for and prints what was written.
///
/// # Errors
/// Those of the layout.
pub fn run(args: SimulateArgs) -> Result<()> {
    match args.layout {
        Layout::Hapt(args) => hapt::run(args),
        Layout::Stream(args) => stream::run(args),
    }
}
