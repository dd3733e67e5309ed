//! How far each recording has been read: what is kept of it from line to line, and, in a stream, from one portion of
//! lines to the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use serde::{Deserialize, Serialize};

use super::Layout;
use super::order::Order;
use super::piece::Piece;
use crate::signal::window::WindowSpec;
use crate::source::clock::Midnight;
use crate::source::saved::{hash, nan_as_null, pairs, shared};
use crate::source::times::Times;

/// A recording that is being read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Course {
    /// The part of it that is being read.
    pub(super) piece: Option<Piece>,
    /// The number of its samples before `piece`.
    pub(super) position: usize,
    /// The midnights that it has passed.
    pub(super) midnight: Midnight,
    /// Its lines that are held back for sorting, if the rules ask for it.
    pub(super) order: Option<Order>,
    /// The last value of each channel, if empty channels take it; NaN before the first.
    #[serde(with = "nan_as_null")]
    pub(super) held: Vec<f64>,
    /// The times of these values.
    #[serde(default)]
    pub(super) held_at: Vec<i64>,
    /// When its last line was read, in milliseconds since 1970; 0 outside of a stream.
    pub(super) read_at: i64,
}

impl Course {
    /// A recording of which nothing was read.
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            piece: None,
            position: 0,
            midnight: Midnight::default(),
            order: layout.spec.time.as_ref().and_then(|_| Order::new(&layout.spec.rules, layout.period)),
            held: vec![f64::NAN; layout.spec.channels.len()],
            held_at: vec![0; layout.spec.channels.len()],
            read_at: 0,
        }
    }
}

/// The recordings that have begun, by a hash of their keys: a few bytes each, however long the keys are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Begun(BTreeMap<u64, Place>);

/// How far a recording has been read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    /// The last file that has it.
    #[serde(with = "shared")]
    pub(super) file: Arc<str>,
    /// Its samples so far.
    pub(super) end: usize,
}

impl Begun {
    /// The recording with the identity `id`.
    pub(super) fn get_mut(&mut self, id: &[u8]) -> Option<&mut Place> {
        self.0.get_mut(&hash(id))
    }

    /// Adds one that is not there.
    pub(super) fn add(&mut self, id: &[u8], file: Arc<str>) {
        self.0.insert(hash(id), Place { file, end: 0 });
    }
}

/// The recordings of a stream between two portions of its lines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Courses {
    /// Those that may go on, by their identity.
    #[serde(with = "pairs")]
    pub(super) open: BTreeMap<Vec<u8>, Course>,
    pub(super) begun: Begun,
    /// What their times count from, once one was read: a portion may have none that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<Times>,
}

impl Courses {
    /// How many recordings may go on.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes over what the parts that were passed on left, once they are done.
    pub(in crate::source) fn take_left(&mut self) {
        for course in self.open.values_mut() {
            course.piece.iter_mut().for_each(Piece::take_left);
        }
    }

    /// Whether one of them had no line since `time`, in milliseconds since 1970.
    pub fn idle_since(&self, time: i64) -> bool {
        self.open.values().any(|course| course.read_at <= time)
    }
}

/// How a source is read as a stream.
#[derive(Debug)]
pub(in crate::source) struct Going {
    /// How windows are cut.
    pub(in crate::source) window: WindowSpec,
    /// How many samples behind a window its features depend on.
    pub(in crate::source) ahead: usize,
    /// Whether recordings go on in lines that are yet to come; otherwise each ends with its file.
    pub(in crate::source) goes_on: bool,
    /// The time, in milliseconds since 1970.
    pub(in crate::source) now: i64,
    /// Recordings that had no line since this time, in milliseconds since 1970, end.
    pub(in crate::source) idle_since: i64,
    /// The recordings before this portion.
    pub(in crate::source) before: Courses,
    /// What the times of the portion count from.
    pub(in crate::source) times: OnceLock<Times>,
    /// The recordings after it, once it was read to its end.
    pub(in crate::source) after: Mutex<Option<Courses>>,
}
