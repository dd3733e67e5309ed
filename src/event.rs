//! What a run tells while it works, and how it is told to stop.
//!
//! Stages emit [`Event`]s and never print; a renderer of `report` turns them into a progress bar, plain lines or
//! nothing. A stage checks [`Control::check`] at least once a mini-batch, so an interrupt is obeyed within one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A moment of a run.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A stage began to learn, or the source began to be read.
    Started {
        /// The stage's name, as in the pipeline file.
        stage: String,
        /// Its unit of work (`"rows"`, `"epochs"`, `"iterations"`) and how many there will be, where known.
        unit: &'static str,
        /// How many units there will be, where known.
        total: Option<u64>,
    },
    /// A stage got further.
    Progress {
        /// The stage's name.
        stage: String,
        /// Units done since [`Event::Started`].
        done: u64,
        /// The value being minimised (training loss, inertia), where there is one.
        loss: Option<f64>,
        /// Rows handled a second since the last event, where it makes sense.
        rows_per_second: Option<f64>,
    },
    /// A stage has learned, or a pass is over.
    Finished {
        /// The stage's name.
        stage: String,
        /// Wall-clock seconds it took.
        seconds: f64,
        /// One line for people: final loss, iterations, rows.
        summary: String,
    },
    /// Something surprising that lost nothing.
    Warning {
        /// One line for people.
        message: String,
    },
    /// Which way the run takes, where there is more than one: that it goes on with an interrupted one, say.
    Note {
        /// One line for people.
        message: String,
    },
}

/// Receives a run's events; called from the thread that computes, so it must not block.
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

/// Carries events out of a run and the wish to stop into it. Cheap to clone.
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

    /// The same wish to stop, and no events: for work within a stage that has its own.
    pub fn quiet(&self) -> Self {
        Self { observer: Arc::new(Silent), cancelled: Arc::clone(&self.cancelled) }
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
