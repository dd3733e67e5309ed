//! The events of a run, and its cancellation.
//!
//! Stages emit [`Event`]s and never print; a renderer of `report` shows them as a progress bar, plain lines or nothing.
//! A stage calls [`Control::check`] at least once per mini-batch, so that an interrupt takes effect soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Something that happened in a run.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stage began to learn, or the source began to be read.
    Started {
        /// The stage's name, as in the pipeline file.
        stage: String,
        /// Its unit of work (`"rows"`, `"epochs"`, `"iterations"`).
        unit: &'static str,
        /// How many units there will be, if known.
        total: Option<u64>,
    },
    /// A stage made progress.
    Progress {
        /// The stage's name.
        stage: String,
        /// Units done since [`Event::Started`].
        done: u64,
        /// The value being minimised (training loss, inertia), if there is one.
        loss: Option<f64>,
        /// Rows per second since the last event, if there is such a rate.
        rows_per_second: Option<f64>,
    },
    /// A stage or a pass is complete.
    Finished {
        /// The stage's name.
        stage: String,
        /// Wall-clock seconds it took.
        seconds: f64,
        /// A description in one line: final loss, iterations, rows.
        summary: String,
    },
    /// A warning.
    Warning {
        /// One line for people.
        message: String,
    },
    /// A note on what the run does, for example that it goes on with an interrupted one.
    Note {
        /// One line for people.
        message: String,
    },
}

/// Receives a run's events. It is called from the computing thread, so it must not block.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

/// Carries events out of a run, and cancellation into it. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    observer: Arc<dyn Observer>,
    cancelled: Arc<AtomicBool>,
}

impl Control {
    /// A control whose events go to `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, cancelled: Arc::default() }
    }

    /// The same cancellation without events, for work within a stage that has its own events.
    pub fn quiet(&self) -> Self {
        Self { observer: Arc::new(Silent), cancelled: Arc::clone(&self.cancelled) }
    }

    /// The same events, without cancellation: for work that is to be completed.
    pub fn unstoppable(&self) -> Self {
        Self { observer: Arc::clone(&self.observer), cancelled: Arc::default() }
    }

    /// Sends an event.
    pub fn emit(&self, event: Event) {
        self.observer.event(&event);
    }

    /// Asks the run to stop at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// An error of kind `Cancelled` once [`cancel`](Self::cancel) was called.
    pub fn check(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::cancelled("interrupted")),
            false => Ok(()),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new(Arc::new(Silent))
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}
