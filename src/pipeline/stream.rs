//! A pipeline that follows its source: what is new there is labelled and committed, portion by portion.
//!
//! ```text
//! the table's last state ─► what is new ─► the fitted stages ─► one commit: rows, position, state ─┐
//!            ▲                                                                                     │
//!            └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The position in the source, the recordings under way and the rows are in the same commit, so a process that dies at
//! any instant leaves all of them as they were before a portion, or after it: started again, it goes on from there, and
//! every row is in the table once. Nothing else is kept anywhere.
//!
//! Where drift is measured, its counts are part of the state, too; and if a model is learned anew because of it, the state
//! says that it is to be, so that a process which dies meanwhile learns it when it is started again.
//!
//! The rows are labelled by the model that the pipeline names, or the one that labelled the table's last rows, or else
//! one that is learned from the rows that are there. Where the stream learns, each commit's rows are labelled by the
//! centroids as they were before, and then move them; the moved ones are part of the state.

mod learning;
mod model;
mod state;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use super::Pipeline;
use crate::drift::DriftReport;
use crate::error::Result;
use crate::event::{Control, Event};
use crate::live::Live;
use crate::source::samples::Samples;
use state::StreamState;
use step::Streaming;

/// How to follow a source.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// Take what is new and end, instead of waiting for more.
    pub once: bool,
    /// Who watches the stream.
    pub live: Option<Arc<Live>>,
    /// End after a commit with rows that were set aside.
    pub ends_on_quarantine: bool,
    /// Where events go, and where the request to end comes from: the portion that is being labelled is committed first.
    pub control: Control,
}

/// What was done while a source was followed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The pipeline's name.
    pub name: String,
    /// Commits that were made.
    pub commits: u64,
    /// Rows that were labelled.
    pub rows: u64,
    /// Rows that were left out, since the table had their keys.
    pub skipped_rows: u64,
    /// Rows that were set aside.
    pub quarantined_rows: u64,
    /// What became of the samples of the recordings; `None` for feature vectors.
    pub samples: Option<Samples>,
    /// Files that were read, wholly or in part, by all commits of the stream.
    pub files: usize,
    /// Recordings that may go on.
    pub open_recordings: usize,
    /// Which of the stream's commits was the last one, counted from 1; 0 before the first.
    pub sequence: u64,
    /// Rows of each cluster among those that were labelled, by its id; empty if the model makes no clusters.
    pub cluster_sizes: BTreeMap<i32, u64>,
    /// Clusters that got no rows any more and began anew elsewhere, under other ids, as centroids moved.
    pub revived_clusters: usize,
    /// How far rows had drifted when it was last measured; `None` if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftReport>,
    /// Models that were learned anew because of drift.
    #[serde(default)]
    pub retrained: u64,
    /// The content hash of the model.
    pub model: String,
    /// Whether the model was learned just now.
    pub learned: bool,
    /// The table's directory.
    pub table: String,
    /// The table's version after the last commit; `None` if there is no table.
    pub table_version: Option<u64>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl StreamReport {
    /// Whether anything was new.
    pub fn is_empty(&self) -> bool {
        self.commits == 0
    }
}

impl Pipeline {
    /// Follows the source: labels what is new and commits it, until there is nothing more (`once`) or until the options'
    /// control asks to end.
    ///
    /// The rows are appended to the table, and every commit has the position that the next one goes on from. If the
    /// process dies, it can be started again: no row is lost or twice in the table.
    ///
    /// # Errors
    /// As documented for [`Kind`](crate::Kind): `Config` if the source cannot be followed, or if the table's stream is of
    /// another pipeline; `Model` for a model that does not fit the source; `Table` if another process follows the source
    /// into the table. What was committed before stays.
    pub async fn follow(&self, options: &StreamOptions) -> Result<StreamReport> {
        let span = info_span!("run", pipeline = self.plan.name, rows = Empty, version = Empty, model = Empty);
        self.follow_in(options, &span).instrument(span.clone()).await
    }

    async fn follow_in(&self, options: &StreamOptions, span: &Span) -> Result<StreamReport> {
        let began = Instant::now();
        let mut streaming = Streaming::begin(self, options).await?;
        let wait = self.plan.stream.wait();
        loop {
            let looked = Instant::now();
            let more = streaming.step(SystemTime::now()).await?;
            if let Some(live) = &options.live {
                live.polled();
            }
            if streaming.has_failed(options) {
                break;
            }
            let ends = streaming.is_over() && (options.once || streaming.is_input());
            if options.control.check().is_err() || (ends && !more) {
                break;
            }
            if !more && !streaming.waits() {
                pause(wait.saturating_sub(looked.elapsed()), &options.control).await;
            }
        }
        let mut report = streaming.finish().await?;
        report.seconds = began.elapsed().as_secs_f64();
        span.record("rows", report.rows).record("version", report.table_version).record("model", &report.model);
        Ok(report)
    }
}

/// Waits, but not longer than it takes to be asked to end.
async fn pause(wait: Duration, control: &Control) {
    const LOOK: Duration = Duration::from_millis(50);
    let until = Instant::now() + wait;
    while control.check().is_ok() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// The event of a commit.
fn committed(rows: u64, sequence: u64, version: u64, seconds: f64) -> Event {
    let summary = format!("{rows} rows, commit {sequence}, version {version}");
    Event::Finished { stage: "stream".into(), seconds, summary }
}
