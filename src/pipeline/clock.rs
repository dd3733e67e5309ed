//! When a run began; gives its name, and the time in the column `labelled_at`.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Result};

/// How far a clock may be behind that of the table's last writer: several machines write one table.
const BEHIND: Duration = Duration::from_secs(60);

/// When a run began.
pub(super) struct Clock {
    pub began: Instant,
    pub started_at: SystemTime,
    /// The time in `labelled_at`: `SOURCE_DATE_EPOCH` if set, so that files are the same byte for byte.
    pub labelled_at: SystemTime,
}

impl Clock {
    /// Begins now.
    ///
    /// # Errors
    /// Kind `Config` if `SOURCE_DATE_EPOCH` is not a number of seconds.
    pub fn start() -> Result<Self> {
        let started_at = SystemTime::now();
        let labelled_at = match std::env::var("SOURCE_DATE_EPOCH") {
            Err(_) => started_at,
            Ok(text) => {
                let seconds = text.parse().ok().map(Duration::from_secs);
                seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds)).ok_or_else(|| {
                    Error::config(format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970-01-01 UTC"))
                })?
            }
        };
        Ok(Self { began: Instant::now(), started_at, labelled_at })
    }

    /// Checks that it is not a minute before `last`, when the table's rows were written: rows would be idle, settled and
    /// found by their time in another order than they came.
    ///
    /// # Errors
    /// Kind `Table`, with both times.
    pub fn check_follows(&self, last: SystemTime) -> Result<()> {
        match last.duration_since(self.started_at) {
            Ok(behind) if behind > BEHIND => Err(Error::table(format!(
                "this machine's clock says {}, and the table was written at {}; expected a clock that is right: set it, and \
                 begin again",
                humantime::format_rfc3339_seconds(self.started_at),
                humantime::format_rfc3339_seconds(last)
            ))),
            _ => Ok(()),
        }
    }

    /// The name of a run: its time, its pipeline, and digits that differ between processes at the same time.
    pub fn run_id(&self, fingerprint: &str) -> String {
        let when = humantime::format_rfc3339_millis(self.started_at).to_string();
        let when: String = when.chars().filter(char::is_ascii_alphanumeric).collect();
        let own = RandomState::new().hash_one(std::process::id()) as u32;
        format!("{when}-{}-{own:08x}", &fingerprint[..fingerprint.len().min(8)])
    }
}
