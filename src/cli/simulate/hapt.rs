//! `dacpipe simulate hapt`: writes simulated recordings.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::seed::Seed;
use crate::simulate::{SimulateSpec, WriteOptions, write_hapt};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  dacpipe simulate hapt --out data/simulated --users 8 --seed 7
  HAPT_DATA=data/simulated dacpipe run pipelines/hapt.toml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HaptArgs {
    /// The directory to write; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of users, 2 or more, three in ten of them in the test split
    #[arg(long, value_name = "NUMBER", default_value_t = SimulateSpec::default().users)]
    users: usize,
    /// Recordings of each user
    #[arg(long, value_name = "NUMBER", default_value_t = SimulateSpec::default().experiments_per_user)]
    experiments_per_user: usize,
    /// Approximate minutes of a recording, from 1 to 60
    #[arg(long, default_value_t = SimulateSpec::default().minutes)]
    minutes: f64,
    /// The same seed gives the same recordings
    #[arg(long, default_value_t = SimulateSpec::default().seed.0)]
    seed: u64,
    /// Compress the recordings with gzip
    #[arg(long)]
    gzip: bool,
    /// Replace the simulated recordings that the directory holds
    #[arg(long)]
    force: bool,
}

/// Writes the recordings and prints what was written and how to use it.
///
/// # Errors
/// Those of [`write_hapt`].
pub(super) fn run(args: HaptArgs) -> Result<()> {
    let HaptArgs { users, experiments_per_user, minutes, seed, gzip, force, .. } = args;
    let spec = SimulateSpec { users, experiments_per_user, minutes, seed: Seed(seed) };
    let written = write_hapt(&args.out, spec, WriteOptions { gzip, force })?;
    let out = args.out.display();
    terminal::say(&format!(
        "{out}: {} simulated recordings of {users} users, {} samples, {} labelled windows ({} to train on, {} to test \
         on), {:.1} MB\nCluster them:\n    HAPT_DATA={out} dacpipe run pipelines/hapt.toml",
        written.experiments,
        written.samples,
        written.train_windows + written.test_windows,
        written.train_windows,
        written.test_windows,
        written.bytes as f64 / 1e6,
    ))
}
