//! Whether a stream is well: whether it looked for rows, or committed some, not long ago.

use std::time::Duration;

use serde::Serialize;

use super::{Live, State};

/// A stream that has not looked for rows for so long, and ten times as long as it waits between two looks, is not well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a stream is well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// `ok`, or `stalled`.
    pub status: &'static str,
    /// Why it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The pipeline's name.
    pub name: String,
    /// The table.
    pub table: String,
    /// Its version after the last commit; `None` before the first one.
    pub version: Option<u64>,
    /// Commits of this process.
    pub commits: u64,
    /// Rows that it labelled.
    pub rows: u64,
    /// What it does.
    pub doing: String,
    /// For how long.
    pub for_seconds: f64,
    /// How old the newest row was when it was committed, in seconds.
    pub lag_seconds: f64,
}

impl Health {
    /// Of a stream that has been in `state` for so long.
    pub(super) fn of(live: &Live, state: &State, since: Duration) -> Self {
        let most = PATIENCE.max(live.every.saturating_mul(10));
        let seconds = since.as_secs_f64();
        let reason = match state.began {
            false => Some(format!("no rows were looked for yet; it is {}", state.doing)),
            true if since > most => Some(format!(
                "nothing was looked for or committed for {seconds:.1} s, expected at most {} s; it was {}",
                most.as_secs(),
                state.doing
            )),
            true => None,
        };
        Self {
            status: if reason.is_none() { "ok" } else { "stalled" },
            reason,
            name: live.name.clone(),
            table: live.table.clone(),
            version: state.version,
            commits: state.commits,
            rows: state.rows,
            doing: state.doing.clone(),
            for_seconds: seconds,
            lag_seconds: state.lag_seconds,
        }
    }

    /// Whether the stream is well.
    pub fn is_well(&self) -> bool {
        self.reason.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_well_while_it_looks_for_rows() {
        let live = Live::new("s", "out/s", Duration::from_secs(30));
        let of = |seconds| {
            let state = live.state.lock().unwrap().clone();
            Health::of(&live, &state, Duration::from_secs(seconds))
        };
        assert!(!of(0).is_well() && of(0).reason.unwrap().contains("model is loaded"), "it has not begun");
        live.polled();
        assert!(of(299).is_well());
        let stalled = of(301);
        assert_eq!(stalled.status, "stalled");
        assert!(stalled.reason.unwrap().contains("for 301.0 s, expected at most 300 s; it was waiting for new rows"));
        live.took(5, 0);
        assert_eq!(of(1).doing, "labelling rows");
    }
}
