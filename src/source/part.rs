//! Stretches of samples that arrive in parts: which windows are final, where the next part has to begin, and what was
//! given and counted before.
//!
//! A stretch that may go on is cut into windows as far as later samples cannot change them. The samples that later
//! windows need are read again as the beginning of the next part. However a stretch is cut into parts, it gives the
//! same windows with the same features, and its samples are counted the same.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::recording::Recording;
use crate::signal::features::Memory;
use crate::signal::window::{WindowSpec, Within};

/// What was given and counted of a stretch before this part of it, in samples of this part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Windows that start before this sample were given.
    pub given: usize,
    /// Samples before this one were counted.
    pub counted: usize,
    /// What the part before it left.
    #[serde(flatten)]
    pub left: Left,
    /// Where the next part begins, if the stretch may go on.
    #[serde(skip)]
    pub open: Option<Open>,
}

/// What a part leaves to the next one, in samples of the next one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Samples before this one are in windows that became rows.
    pub in_windows: usize,
    /// Samples before this one are in windows with a feature that is not finite.
    pub beside_bad: usize,
    /// The filters before its first sample.
    pub memory: Memory,
}

/// Where the next part begins, and what is left to it once this one is done.
#[derive(Debug, Clone)]
pub struct Open {
    /// What is known of the windows of this part.
    pub settled: Settled,
    left: Arc<Mutex<Left>>,
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.settled == other.settled && Arc::ptr_eq(&self.left, &other.left)
    }
}

impl Open {
    /// A part of which so much is settled.
    pub fn new(settled: Settled) -> Self {
        Self { settled, left: Arc::default() }
    }

    /// Says what this part leaves: `before` was left to it, its windows of `length` samples at `kept` became rows, those at
    /// `dropped` did not, and `memory` is of the filters where the next part begins.
    pub fn leave(&self, before: &Left, length: usize, kept: &[usize], dropped: &[usize], memory: Memory) {
        let until = |before: usize, windows: &[usize]| {
            let last = windows.iter().max().map_or(0, |start| start + length);
            before.max(last).saturating_sub(self.settled.from)
        };
        let (in_windows, beside_bad) = (until(before.in_windows, kept), until(before.beside_bad, dropped));
        let left = Left { in_windows, beside_bad, memory };
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    /// What was left; nothing before the part is done.
    pub fn left(&self) -> Left {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which windows of a stretch that may go on are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Windows that start before this sample are final.
    pub until: usize,
    /// The first sample that later windows need, or that tells whether a later sample follows on the last.
    pub from: usize,
    /// Samples before this one are in no later window, so that they can be counted.
    pub counted: usize,
}

impl Settled {
    /// What is settled of `recording`, if more samples may follow: a window is final if `ahead` samples are behind it.
    pub fn of(spec: &WindowSpec, recording: &Recording, ahead: usize) -> Self {
        let (samples, part) = (recording.len(), &recording.part);
        // The least number of samples before a window that is not final.
        let until = (samples + 1).saturating_sub(spec.length + ahead);
        let trailing = recording.bad.iter().rev().zip((0..samples).rev()).take_while(|(bad, at)| *bad == at).count();
        let Some(last_good) = (samples - trailing).checked_sub(1) else {
            // The first good sample decides what the filters take for those before it.
            return Self { until: part.given, from: 0, counted: part.counted };
        };
        // The next part begins with a good sample at the latest, which tells whether a later one follows on it, and where
        // the filters no longer change.
        let latest = last_good.min(samples.saturating_sub(ahead));
        let stretches = match spec.within {
            Within::Recordings => vec![(0, samples, true)],
            Within::Labels => recording
                .intervals
                .iter()
                .map(|i| (i.first, i.end.min(samples), i.end.min(samples) + trailing >= samples))
                .collect(),
        };
        let mut from = None;
        for (first, end, goes_on) in stretches {
            let starts = spec.starts(first, end);
            let waits = starts.clone().next_back().is_some_and(|last| last >= until);
            // One that ends behind the place where the next part can begin is not cut in two.
            if !(waits || goes_on || end > latest) {
                continue;
            }
            // The window before the first that is not final keeps the place of the later ones.
            let before = starts.take_while(|start| *start < until.min(latest + 1)).last();
            let needed = before.unwrap_or(first);
            if from.is_none_or(|(from, _)| needed < from) {
                from = Some((needed, before.is_some()));
            }
        }
        let (from, is_start) = from.filter(|(from, _)| *from <= latest).unwrap_or((latest, false));
        let counted = if is_start { from + spec.length.min(spec.stride) } else { from };
        Self { until: until.max(part.given), from, counted: counted.max(part.counted).min(samples) }
    }

    /// The next part's beginning, without what is left to it.
    pub fn next(&self) -> Part {
        let given = self.until.saturating_sub(self.from);
        Part { given, counted: self.counted - self.from.min(self.counted), ..Part::default() }
    }
}
