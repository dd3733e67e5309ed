//! The part of a recording that is being read.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use serde::{Deserialize, Serialize};

use super::order::Line;
use crate::signal::window::WindowSpec;
use crate::source::clock::Stamp;
use crate::source::keep::{Cell, Values};
use crate::source::part::{Open, Part, Settled};
use crate::source::recording::{Edge, Interval, Recording, hold};
use crate::source::times::Times;

/// How far the mean step of a recording may be from the sample period, as a fraction of it.
const RATE_TOLERANCE: f64 = 0.1;
/// Fewer samples than this say nothing about a rate.
const RATE_SAMPLES: usize = 16;
/// Samples that all follow a gap are a stretch at a lower rate if there are at least [`SPARSE_SAMPLES`] of them, or
/// [`SPARSE_RECORDING`] in a whole recording, and if a fraction [`SPARSE_EVEN`] of the steps is within
/// [`SPARSE_TOLERANCE`] of the median.
const SPARSE_SAMPLES: usize = 32;
const SPARSE_RECORDING: usize = 4;
const SPARSE_EVEN: f64 = 2.0 / 3.0;
const SPARSE_TOLERANCE: f64 = 0.25;

/// The numbers of a line.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) values: Vec<f64>,
    pub(super) time: Option<Stamp>,
    /// Its value in each column that is carried along.
    pub(super) kept: Vec<Cell>,
}

/// The step in time from one sample to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// About a sample period.
    On,
    /// More: samples are missing, or the rate is another.
    Gap,
    /// Time goes back.
    Back,
}

/// Samples of one recording: without gaps in time, or [sparse](Self::is_sparse).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Piece {
    /// What distinguishes its recording from others.
    pub(super) id: Vec<u8>,
    /// The split that it belongs to.
    pub(super) split: Vec<u8>,
    /// Whether the scan needs it.
    pub(super) wanted: bool,
    /// Whether its lines are read; if not, they are only counted.
    pub(super) read: bool,
    /// Whether its recording had ended before, so that it cannot be a part of it.
    pub(super) lost: bool,
    /// How many rows before it, in all files, could not be read.
    pub(super) unread: u64,
    recording: Recording,
    /// Lines of a piece that is not read.
    skipped: usize,
    /// Those of its bad samples that have the time of a sample before: they take no time.
    repeated: Vec<usize>,
    /// Bad samples since the last good one.
    bad_run: usize,
    /// The indices of the first and the last good sample.
    good: Option<[usize; 2]>,
    sparse: bool,
    /// Whether samples of it were passed on already.
    goes_on: bool,
}

impl Piece {
    pub(super) fn new(id: Vec<u8>, constants: Vec<ScalarValue>, channels: usize) -> Self {
        let recording = Recording { constants, channels: vec![vec![]; channels], ..Recording::default() };
        Self {
            id,
            split: vec![],
            wanted: true,
            read: true,
            lost: false,
            unread: 0,
            recording,
            skipped: 0,
            repeated: vec![],
            bad_run: 0,
            good: None,
            sparse: false,
            goes_on: false,
        }
    }

    /// The number of samples that it holds.
    pub(super) fn len(&self) -> usize {
        self.recording.len()
    }

    /// How many of them stand for bad lines.
    pub(super) fn bad(&self) -> usize {
        self.recording.bad.len()
    }

    /// The number of samples that it takes in its recording, including lines that were only counted.
    pub(super) fn extent(&self) -> usize {
        self.len() + self.skipped
    }

    /// The file and the line of its first sample.
    pub(super) fn place(&self) -> (&str, u64) {
        self.recording.places.of(0)
    }

    pub(super) fn last_time(&self) -> Option<i64> {
        self.good.and_then(|[_, last]| self.recording.times.get(last).copied())
    }

    /// Whether each of its samples follows a gap.
    pub(super) fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// The step from the last sample to one at `time`; steps up to `gap` sample periods are not gaps.
    pub(super) fn step(&self, time: i64, period: f64, gap: f64) -> Step {
        let since = self.len() - self.bad_run;
        let repeated = self.repeated.len() - self.repeated.partition_point(|&repeated| repeated < since);
        let longest = (gap + (self.bad_run - repeated) as f64) * period;
        match self.last_time() {
            Some(last) if time < last => Step::Back,
            Some(last) if time.saturating_sub(last) as f64 > longest => Step::Gap,
            _ => Step::On,
        }
    }

    /// The earlier file that a sample of `file` at `time` overlaps: time goes back from that file to this one, and does
    /// not count from the start of each file.
    pub(super) fn overlaps(&self, time: i64, file: &Arc<str>) -> Option<&str> {
        let (last_time, [_, last]) = (self.last_time()?, self.good?);
        let (earlier, _) = self.recording.places.of(last);
        (time < last_time && Times::beginning_with(time) == Times::Epoch && earlier != &**file).then_some(earlier)
    }

    /// Accepts another sample after a gap, if all samples so far follow gaps; else returns false.
    pub(super) fn thins_out(&mut self) -> bool {
        self.sparse |= !self.goes_on && self.good.is_some_and(|[first, last]| first == last);
        self.sparse
    }

    /// How many steps in time there are from sample `from` to sample `to`, at least 1.
    fn steps(&self, from: usize, to: usize) -> usize {
        let before = |at: usize| self.repeated.partition_point(|&repeated| repeated < at);
        (to - from - (before(to) - before(from))).max(1)
    }

    /// The mean step, if it differs from the sample period.
    pub(super) fn other_step(&self, period: f64) -> Option<f64> {
        let [from, to] = self.good.filter(|_| !self.recording.times.is_empty())?;
        let steps = self.steps(from, to);
        let step = (self.recording.times[to] - self.recording.times[from]) as f64 / steps as f64;
        let other = steps + 1 >= RATE_SAMPLES && (step / period - 1.0).abs() > RATE_TOLERANCE;
        other.then_some(step)
    }

    /// The median step of a sparse piece, if it is a stretch at a lower rate. `whole`: whether it is a whole recording.
    pub(super) fn sparse_step(&self, whole: bool) -> Option<f64> {
        let bad = &self.recording.bad;
        let good: Vec<usize> = (0..self.len()).filter(|i| bad.binary_search(i).is_err()).collect();
        let least = if whole { SPARSE_RECORDING } else { SPARSE_SAMPLES };
        if good.len() < least {
            return None;
        }
        let times = &self.recording.times;
        let step = |pair: &[usize]| (times[pair[1]] - times[pair[0]]) as f64 / self.steps(pair[0], pair[1]) as f64;
        let mut steps: Vec<f64> = good.windows(2).map(step).collect();
        steps.sort_by(f64::total_cmp);
        let median = steps[steps.len() / 2];
        let even = steps.iter().filter(|&step| (step / median - 1.0).abs() <= SPARSE_TOLERANCE).count();
        (even as f64 >= SPARSE_EVEN * steps.len() as f64).then_some(median)
    }

    /// Appends a sample; an empty label means none.
    pub(super) fn push(&mut self, line: &Line) {
        let at = self.len();
        self.recording.places.set(at, &line.file, line.number);
        for (channel, &value) in self.recording.channels.iter_mut().zip(&line.values) {
            channel.push(value);
        }
        self.recording.times.extend(line.time);
        self.recording.kept.resize_with(line.kept.len(), Values::default);
        for (values, cell) in self.recording.kept.iter_mut().zip(&line.kept) {
            values.set(at, cell);
        }
        let first = self.good.map_or(at, |[first, _]| first);
        self.good = Some([first, at]);
        if !line.label.is_empty() {
            let label = String::from_utf8_lossy(&line.label);
            match self.recording.intervals.last_mut() {
                // Bad samples between two of the same label do not end its interval.
                Some(run) if run.end + self.bad_run == at && *run.label == *label => run.end = at + 1,
                _ => self.recording.intervals.push(Interval { label: label.into(), first: at, end: at + 1 }),
            }
        }
        self.bad_run = 0;
    }

    /// Appends a sample that stands for the bad `line`, which may only repeat the time of a sample before; `times` says
    /// whether the source has times.
    pub(super) fn push_bad(&mut self, times: bool, line: &Line, repeats: bool) {
        self.repeated.extend(repeats.then_some(self.len()));
        self.recording.places.set(self.len(), &line.file, line.number);
        self.recording.bad.push(self.len());
        self.recording.channels.iter_mut().for_each(|channel| channel.push(f64::NAN));
        let last = self.recording.times.last().copied().unwrap_or(0);
        self.recording.times.extend(times.then_some(last));
        self.bad_run += 1;
    }

    /// Counts a line of a piece that is not read.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Counts the rows before the next line that could not be read; `unread` are all before it.
    pub(super) fn skip_unread(&mut self, unread: u64) {
        self.skipped += usize::try_from(unread.saturating_sub(self.unread)).unwrap_or(usize::MAX);
        self.unread = self.unread.max(unread);
    }

    /// Whether it has more than one good sample.
    pub(super) fn has_several(&self) -> bool {
        self.good.is_some_and(|[first, last]| first < last)
    }

    /// An empty piece of the same recording.
    pub(super) fn next(&self) -> Self {
        let Recording { constants, channels, .. } = &self.recording;
        let next = Self::new(self.id.clone(), constants.clone(), channels.len());
        let Self { wanted, read, lost, unread, .. } = *self;
        Self { split: self.split.clone(), wanted, read, lost, unread, ..next }
    }

    /// Ends it with `edge`, and begins `next` with the same.
    pub(super) fn part_from(&mut self, next: &mut Piece, edge: Edge) {
        self.recording.edges[1] = edge;
        next.recording.edges[0] = edge;
    }

    /// Splits off its last good sample, with what comes after it, as a piece of its own after a gap.
    pub(super) fn split_last(&mut self) -> Piece {
        let at = self.good.map_or(0, |[_, last]| last);
        let mut last = self.next();
        let Recording { channels, times, intervals, bad, edges, kept, places, .. } = &mut self.recording;
        last.recording.places = places.split_off(at);
        last.recording.kept = kept.iter_mut().map(|values| values.split_off(at)).collect();
        last.recording.channels = channels.iter_mut().map(|channel| channel.split_off(at)).collect();
        last.recording.times = times.split_off(at.min(times.len()));
        last.recording.bad = bad.split_off(bad.partition_point(|&b| b < at)).iter().map(|b| b - at).collect();
        if let Some(run) = intervals.last_mut().filter(|run| run.end > at) {
            last.recording.intervals = vec![Interval { label: run.label.clone(), first: 0, end: 1 }];
            run.end = at;
        }
        if intervals.last().is_some_and(|run| run.first >= run.end) {
            intervals.pop();
        }
        last.recording.edges[1] = edges[1];
        let repeated = self.repeated.split_off(self.repeated.partition_point(|&repeated| repeated < at));
        last.repeated = repeated.into_iter().map(|repeated| repeated - at).collect();
        (last.good, last.bad_run) = (Some([0, 0]), self.bad_run);
        let before = (0..at).rev().find(|i| self.recording.bad.binary_search(i).is_err());
        self.good = self.good.and_then(|[first, _]| before.map(|before| [first, before]));
        self.bad_run = before.map_or(at, |before| at - before - 1);
        self.part_from(&mut last, Edge::Gap);
        last
    }

    pub(super) fn edges(&self) -> [Edge; 2] {
        self.recording.edges
    }

    /// What it has so far, as a part of a stretch that may go on, and shortens it to what the next part needs. Returns
    /// how many samples that takes off. Windows are cut by `spec`, and are final with `ahead` samples behind them.
    pub(super) fn pass_on(&mut self, spec: &WindowSpec, ahead: usize) -> (Recording, usize) {
        if self.good.is_some() {
            hold(&mut self.recording.channels, &self.recording.bad);
        }
        let settled = Settled::of(spec, &self.recording, ahead);
        let mut part = self.recording.clone();
        hold(&mut part.channels, &part.bad);
        let open = Open::new(settled);
        part.part.open = Some(open.clone());
        self.shorten(settled.from);
        self.recording.part = Part { open: Some(open), ..settled.next() };
        self.goes_on = true;
        // The next portion counts them anew.
        self.unread = 0;
        (part, settled.from)
    }

    /// Takes over what the part that was passed on left.
    pub(super) fn take_left(&mut self) {
        if let Some(open) = self.recording.part.open.take() {
            self.recording.part.left = open.left();
        }
    }

    /// Takes off the first `count` samples; a good one is left, if there is any.
    fn shorten(&mut self, count: usize) {
        let Recording { channels, times, intervals, bad, kept, places, .. } = &mut self.recording;
        channels.iter_mut().for_each(|channel| drop(channel.drain(..count)));
        times.drain(..count.min(times.len()));
        *kept = kept.iter_mut().map(|values| values.split_off(count)).collect();
        *places = places.split_off(count);
        bad.drain(..bad.partition_point(|&at| at < count));
        bad.iter_mut().for_each(|at| *at -= count);
        self.repeated.retain(|&at| at >= count);
        self.repeated.iter_mut().for_each(|at| *at -= count);
        intervals.retain(|interval| interval.end > count);
        for interval in intervals {
            interval.first = interval.first.saturating_sub(count);
            interval.end -= count;
        }
        let first_good = (0..self.len()).find(|at| self.recording.bad.binary_search(at).is_err());
        self.good = self
            .good
            .zip(first_good)
            .map(|([first, last], next)| [first.checked_sub(count).unwrap_or(next), last - count]);
    }

    pub(super) fn into_recording(mut self) -> Recording {
        hold(&mut self.recording.channels, &self.recording.bad);
        self.recording
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::features::Memory;
    use crate::signal::window::Within;
    use crate::source::recording::windows;
    use crate::source::samples::{Samples, account};

    /// A sample: its label (0 is none), and whether it is bad.
    fn push(piece: &mut Piece, at: usize, (label, bad): (u8, bool)) {
        let label = ["", "a", "b"][usize::from(label)].into();
        let line = Line { values: vec![at as f64], label, file: "f".into(), number: at as u64 + 2, ..Line::default() };
        match bad {
            true => piece.push_bad(false, &line, false),
            false => piece.push(&line),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// However a stretch is cut into parts, also through a file, its windows are the same, and so is what is counted.
        #[test]
        fn a_stretch_in_parts_has_the_windows_and_the_counts_of_the_whole(
            samples in prop::collection::vec((0u8..3, prop::bool::weighted(0.08)), 1..90),
            runs in 1usize..30,
            cuts in prop::collection::btree_set(1usize..90, 0..9),
            (length, stride, ahead) in (1usize..9, 1usize..12, 0usize..4),
            labels: bool,
        ) {
            let within = if labels { Within::Labels } else { Within::Recordings };
            let spec = WindowSpec { length, stride, within };
            // Labels come in runs.
            let sample = |at: usize| (samples[at / runs].0, samples[at].1);
            let new = || Piece::new(b"id".to_vec(), vec![], 1);
            let found = |recording: &Recording| windows(&spec, recording).iter().map(|w| w.start).collect::<Vec<_>>();

            let mut whole = new();
            (0..samples.len()).for_each(|at| push(&mut whole, at, sample(at)));
            let whole = whole.into_recording();
            let expected = (found(&whole), account(&spec, &whole, &found(&whole), &[]));

            let (mut piece, mut position) = (new(), 0);
            let (mut starts, mut counts) = (Vec::new(), Samples::default());
            for at in 0..samples.len() {
                if cuts.contains(&at) {
                    let (part, taken) = piece.pass_on(&spec, ahead);
                    let kept = found(&part);
                    prop_assert!(kept.iter().all(|start| start + length + ahead <= part.len()));
                    counts.add(&account(&spec, &part, &kept, &[]));
                    starts.extend(kept.iter().map(|start| start + position));
                    let open = part.part.open.as_ref().unwrap();
                    open.leave(&part.part.left, length, &kept, &[], Memory::default());
                    piece.take_left();
                    position += taken;
                    // As it is kept from one process to the next.
                    piece = serde_json::from_str(&serde_json::to_string(&piece).unwrap()).unwrap();
                }
                push(&mut piece, at, sample(at));
            }
            let rest = piece.into_recording();
            let kept = found(&rest);
            counts.add(&account(&spec, &rest, &kept, &[]));
            starts.extend(kept.iter().map(|start| start + position));
            prop_assert_eq!((starts, counts), expected);
        }
    }
}
