//! The part of a recording that is being read.

use std::sync::Arc;

use datafusion::common::ScalarValue;

use crate::source::keep::{Cell, Values};
use crate::source::recording::{Interval, Recording, hold};

/// Steps up to this many sample periods are no gap.
pub(super) const GAP: f64 = 1.5;
/// How far the mean step of a recording may be from the sample period, as a part of it.
const RATE_TOLERANCE: f64 = 0.1;
/// Fewer samples than this say nothing of a rate.
const RATE_SAMPLES: usize = 16;

/// The numbers of a line.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) values: Vec<f64>,
    pub(super) time: Option<f64>,
    /// The time in nanoseconds.
    pub(super) taken: Option<i64>,
    /// What it has in each column that is carried along.
    pub(super) kept: Vec<Cell>,
}

/// Samples of one recording, without gaps in time.
#[derive(Debug)]
pub(super) struct Piece {
    /// What tells its recording from others.
    pub(super) id: Vec<u8>,
    /// The part of the data that it belongs to.
    pub(super) split: Vec<u8>,
    /// Whether the scan needs it; if not, it stays empty.
    pub(super) wanted: bool,
    /// Whether its recording was over before, so that it has no place there.
    pub(super) lost: bool,
    recording: Recording,
    /// Lines of a piece that is not wanted.
    skipped: usize,
    /// Bad samples since the last good one.
    bad_run: usize,
    /// The times of the first and last good sample, and their places.
    times: Option<[(f64, usize); 2]>,
}

impl Piece {
    pub(super) fn new(
        id: Vec<u8>,
        constants: Vec<ScalarValue>,
        wanted: bool,
        channels: usize,
        file: Arc<str>,
        line: u64,
    ) -> Self {
        let channels = vec![vec![]; channels];
        let recording = Recording {
            constants,
            channels,
            intervals: vec![],
            bad: vec![],
            offset: 0,
            times: vec![],
            kept: vec![],
            file,
            line,
        };
        Self { id, split: vec![], wanted, lost: false, recording, skipped: 0, bad_run: 0, times: None }
    }

    /// The same, `offset` samples into its recording.
    pub(super) fn starting_at(mut self, offset: usize) -> Self {
        self.recording.offset = offset;
        self
    }

    pub(super) fn len(&self) -> usize {
        self.recording.channels[0].len()
    }

    /// The samples of its recording up to its end.
    pub(super) fn end(&self) -> usize {
        self.recording.offset + self.len() + self.skipped
    }

    pub(super) fn file(&self) -> &str {
        &self.recording.file
    }

    pub(super) fn line(&self) -> u64 {
        self.recording.line
    }

    pub(super) fn last_time(&self) -> Option<f64> {
        self.times.map(|[_, (last, _)]| last)
    }

    /// Whether something is missing between the last sample and one at `time`, or time went back.
    pub(super) fn is_gap(&self, time: f64, period: f64) -> bool {
        let longest = (GAP + self.bad_run as f64) * period;
        self.last_time().is_some_and(|last| time < last || time - last > longest)
    }

    /// The mean step and the sample period, if the two disagree.
    pub(super) fn other_rate(&self, period: f64) -> Option<(f64, f64)> {
        let [(first, from), (last, to)] = self.times?;
        let step = (last - first) / (to - from).max(1) as f64;
        let other = to - from + 1 >= RATE_SAMPLES && (step / period - 1.0).abs() > RATE_TOLERANCE;
        other.then_some((step, period))
    }

    /// Appends a sample; an empty label is none.
    pub(super) fn push(&mut self, sample: &Sample, label: &[u8]) {
        let at = self.len();
        for (channel, &value) in self.recording.channels.iter_mut().zip(&sample.values) {
            channel.push(value);
        }
        if let Some(time) = sample.time {
            let first = self.times.map_or((time, at), |[first, _]| first);
            self.times = Some([first, (time, at)]);
        }
        // The places of bad samples hold no time and nothing that is kept; they are in no window.
        if let Some(taken) = sample.taken {
            self.recording.times.resize(at, 0);
            self.recording.times.push(taken);
        }
        self.recording.kept.resize_with(sample.kept.len(), Values::default);
        for (values, cell) in self.recording.kept.iter_mut().zip(&sample.kept) {
            values.set(at, cell);
        }
        if !label.is_empty() {
            let label = String::from_utf8_lossy(label);
            match self.recording.intervals.last_mut() {
                // Bad samples between two of the same label do not end its interval.
                Some(run) if run.end + self.bad_run == at && *run.label == *label => run.end = at + 1,
                _ => self.recording.intervals.push(Interval { label: label.into(), first: at, end: at + 1 }),
            }
        }
        self.bad_run = 0;
    }

    /// Appends a sample that stands for a bad line.
    pub(super) fn push_bad(&mut self) {
        self.recording.bad.push(self.len());
        self.recording.channels.iter_mut().for_each(|channel| channel.push(f64::NAN));
        self.bad_run += 1;
    }

    /// Counts a line of a piece that is not wanted.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// An empty piece that goes on where this one ends, at line `line`.
    pub(super) fn split_off(&self, line: u64) -> Self {
        let Recording { constants, channels, file, .. } = &self.recording;
        let mut rest = Self::new(self.id.clone(), constants.clone(), self.wanted, channels.len(), file.clone(), line);
        rest.split.clone_from(&self.split);
        rest.starting_at(self.end())
    }

    pub(super) fn into_recording(mut self) -> Recording {
        hold(&mut self.recording.channels, &self.recording.bad);
        self.recording
    }
}
