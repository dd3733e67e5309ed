//! A stream as it runs: what it did so far, for whoever watches it.
//!
//! ```text
//! stream ─► Live: counters, gauges, histograms ─► GET /metrics   OpenMetrics text, for Prometheus and `dacpipe top`
//!                 when it last did something    ─► GET /health    200, or 503 with the reason
//! ```
//!
//! [`Live`] is told what happens and never waits for anybody: a page is written into memory before it is sent, and a
//! [`Server`] has few connections, short ones, so that slow and hostile clients hold nothing up.
//!
//! ```
//! use dacpipe::live::{Live, Server, exposition};
//! use std::{io::{Read, Write}, sync::Arc, time::Duration};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let live = Arc::new(Live::new("pump", "out/pump", Duration::from_secs(1)));
//! let server = Server::begin("127.0.0.1:0", Arc::clone(&live)).await?;
//! live.polled();
//! let address = server.address();
//! let page = tokio::task::spawn_blocking(move || {
//!     let mut client = std::net::TcpStream::connect(address)?;
//!     client.write_all(b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n")?;
//!     let mut page = String::new();
//!     client.read_to_string(&mut page)?;
//!     Ok::<_, std::io::Error>(page)
//! })
//! .await??;
//! let (head, body) = page.split_once("\r\n\r\n").ok_or("no body")?;
//! assert!(head.starts_with("HTTP/1.1 200 OK"));
//! let found = exposition::parse(body)?;
//! assert_eq!(found.value("dacpipe_commits_total", &[]), Some(0.0));
//! # Ok(())
//! # }
//! ```

pub mod exposition;
mod health;
mod http;
mod metrics;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use health::Health;
pub use http::Server;
use metrics::Metrics;

use crate::drift::{DriftSpec, Judgement};

/// A stream as it runs.
#[derive(Debug)]
pub struct Live {
    name: String,
    table: String,
    /// How often the stream looks for new rows.
    every: Duration,
    metrics: Metrics,
    state: Mutex<State>,
}

/// What the stream is doing.
#[derive(Debug, Clone)]
struct State {
    /// When it began, or last looked for rows, or committed some.
    seen: Instant,
    /// What it does since then.
    doing: String,
    /// Whether it has looked for rows yet.
    began: bool,
    commits: u64,
    rows: u64,
    version: Option<u64>,
    lag_seconds: f64,
}

/// A commit that was made.
#[derive(Debug, Clone, Default)]
pub struct Batch<'a> {
    /// Rows that were labelled.
    pub rows: u64,
    /// Rows that were left out, since the table had their keys.
    pub skipped: u64,
    /// Rows that were set aside, with the reason of each.
    pub set_aside: Vec<(String, u64)>,
    /// Rows of each cluster, by its id.
    pub clusters: Vec<(i32, u64)>,
    /// Seconds from the first row that was read to the last that was labelled.
    pub label_seconds: f64,
    /// Seconds of the commit.
    pub commit_seconds: f64,
    /// Bytes that the commit added to the table.
    pub bytes: u64,
    /// The table's version after it.
    pub version: u64,
    /// Rows that were there and were not read with it, estimated from the bytes of their files.
    pub behind_rows: u64,
    /// Seconds from the newest row's time, or from the arrival of the oldest file, to the commit.
    pub behind_seconds: Option<f64>,
    /// How far rows have drifted, if that was measured.
    pub drift: Option<(&'a Judgement, &'a DriftSpec)>,
}

impl Live {
    /// The stream `name` into `table`, which looks for new rows `every` so often.
    pub fn new(name: &str, table: &str, every: Duration) -> Self {
        let state = State {
            seen: Instant::now(),
            doing: "beginning: the model is loaded, or learned from the rows that are there".into(),
            began: false,
            commits: 0,
            rows: 0,
            version: None,
            lag_seconds: 0.0,
        };
        Self { name: name.into(), table: table.into(), every, metrics: Metrics::new(name), state: Mutex::new(state) }
    }

    /// The model of this hash labels rows from now on.
    pub fn labels_by(&self, model: &str) {
        self.metrics.model(model);
    }

    /// It looked for new rows.
    pub fn polled(&self) {
        self.metrics.polled();
        self.now("waiting for new rows", |state| state.began = true);
    }

    /// It took lines or rows, and labels them.
    pub fn took(&self, rows: u64, behind: u64) {
        self.metrics.took(rows, behind);
        self.now("labelling rows", |_| {});
    }

    /// It learns a new model, because rows have drifted.
    pub fn learns(&self) {
        self.now("learning a new model, since rows have drifted", |_| {});
    }

    /// It learned one.
    pub fn learned(&self) {
        self.metrics.learned();
    }

    /// It made a commit.
    pub fn committed(&self, batch: &Batch<'_>) {
        self.metrics.committed(batch);
        self.now("waiting for new rows", |state| {
            state.commits += 1;
            state.rows += batch.rows;
            state.version = Some(batch.version);
            state.lag_seconds = batch.behind_seconds.unwrap_or_default();
        });
    }

    /// What `/metrics` shows: OpenMetrics text.
    pub fn page(&self) -> String {
        self.metrics.page()
    }

    /// What `/health` shows.
    pub fn health(&self) -> Health {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health::of(self, &state, state.seen.elapsed())
    }

    fn now(&self, doing: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen = Instant::now();
        doing.clone_into(&mut state.doing);
        change(&mut state);
    }
}
