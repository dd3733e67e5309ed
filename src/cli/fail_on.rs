//! `--fail-on`: what gives an exit code of its own, though the rows are committed.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::drift::{DriftReport, Level};

/// The exit code where rows have drifted so far that it is to be acted on.
const DRIFTED: u8 = 10;
/// The exit code where rows were set aside.
const SET_ASIDE: u8 = 11;

/// What gives an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Rows have drifted from those that were learned from so far that it is to be acted on (exit code 10)
    Drift,
    /// Rows were set aside (exit code 11)
    Quarantine,
}

/// The exit code of a command that has committed its rows; `None` for success.
pub(super) fn code<'a>(
    asked: &[FailOn],
    drift: impl IntoIterator<Item = &'a DriftReport>,
    set_aside: u64,
) -> Option<ExitCode> {
    let drifted = drift.into_iter().any(|drift| drift.level == Level::Act);
    let code = match (asked.contains(&FailOn::Drift) && drifted, asked.contains(&FailOn::Quarantine) && set_aside > 0) {
        (true, _) => DRIFTED,
        (false, true) => SET_ASIDE,
        (false, false) => return None,
    };
    Some(code.into())
}
