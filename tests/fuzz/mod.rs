//! Fuzz targets: damaged files of every kind that dacpipe reads must be refused or set aside, never panic, and never
//! change the values of the good part.
//!
//! `cargo test` tries a few hundred inputs per target, the same ones every time. To run longer, with other inputs:
//!
//! ```text
//! DACPIPE_FUZZ_SECONDS=3600 cargo test --release fuzz -- --nocapture
//! ```
//!
//! prints how many inputs each target tried; a failure prints the smallest input that fails.

mod damage;
mod models;
mod parquet;
mod pipelines;
mod recordings;

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};

/// The result of a target for an input.
type Verdict = Result<(), TestCaseError>;

/// Inputs between two looks at the clock.
const ROUND: u32 = 64;
/// Rounds where no time is given.
const ROUNDS: u32 = 4;

/// Runs `check` on inputs of `inputs`: a fixed number of them, or others until the time is up.
fn fuzz<T: std::fmt::Debug>(target: &str, inputs: impl Strategy<Value = T>, check: impl Fn(T) -> Verdict) {
    let seconds = std::env::var("DACPIPE_FUZZ_SECONDS").ok().map(|text| {
        text.parse().unwrap_or_else(|_| panic!("DACPIPE_FUZZ_SECONDS is {text:?}, expected a number of seconds"))
    });
    let config = Config {
        cases: ROUND,
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|p| p as _),
        ..Config::default()
    };
    let mut runner = match seconds {
        None => TestRunner::new_with_rng(config.clone(), TestRunner::deterministic().rng().clone()),
        Some(_) => TestRunner::new(config.clone()),
    };
    let (begun, mut rounds) = (Instant::now(), 0);
    let goes_on = |rounds| match seconds {
        None => rounds < ROUNDS,
        Some(seconds) => begun.elapsed() < Duration::from_secs(seconds),
    };
    while goes_on(rounds) {
        if let Err(failure) = runner.run(&inputs, &check) {
            panic!("{target}, after {} inputs: {failure}", rounds * ROUND);
        }
        rounds += 1;
        // A runner stops after its number of cases; the next one continues its random numbers.
        let rng = runner.rng().clone();
        runner = TestRunner::new_with_rng(config.clone(), rng);
    }
    println!("{target}: {} inputs in {:.0?}", rounds * ROUND, begun.elapsed());
}

/// Runs `work` to its end.
fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
