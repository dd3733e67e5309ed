//! Recordings of sensors, and how they become a table of windows.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::ScalarValue;

use super::bad::{Fault, Raw, RefusedBy, Rejects, Why};
use super::filter::Condition;
use super::keep::{Keep, Mode, Values};
use super::location::LeftOut;
use super::part::Part;
use super::places::Places;
use super::samples::Counts;
use super::saved::{constants, lists, shared};
use super::times::Times;
use crate::error::Result;
use crate::signal::window::{WindowSpec, Within};

/// A stretch of samples, taken evenly in time on every channel.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Recording {
    /// A value for each field of [`Recordings::constants`].
    #[serde(with = "constants")]
    pub constants: Vec<ScalarValue>,
    /// The samples of each channel; all channels have the same number.
    #[serde(with = "lists")]
    pub channels: Vec<Vec<f64>>,
    /// The time of each sample in nanoseconds; empty if recordings have no times. The time of a bad sample has no
    /// meaning.
    pub times: Vec<i64>,
    /// The labelled stretches, in the order in which their windows are yielded.
    pub intervals: Vec<Interval>,
    /// The samples that stand for bad rows, ascending. Windows that contain one are left out.
    pub bad: Vec<usize>,
    /// Why it begins and ends where it does.
    pub edges: [Edge; 2],
    /// The number of samples of the same recording before these.
    pub offset: usize,
    /// The values of each column of [`Recordings::kept`].
    pub kept: Vec<Values>,
    /// The file and the line of each sample.
    pub places: Places,
    /// How it hangs together with other parts of the same stretch, if it arrives in parts.
    pub part: Part,
}

impl Recording {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// True if it has no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a stretch of samples begins or ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Edge {
    /// The recording, or a part of the data, begins or ends.
    #[default]
    End,
    /// A gap in time.
    Gap,
    /// Time goes back.
    Back,
    /// Rows before or after it could not be read.
    Unread,
}

/// A stretch of a recording with one label: samples `first..end`, counted from 0.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Its label.
    #[serde(with = "shared")]
    pub label: Arc<str>,
    /// Its first sample.
    pub first: usize,
    /// The sample after its last.
    pub end: usize,
}

/// Reads recordings. Called on a thread that may block.
pub type Load = Box<dyn FnOnce() -> Result<Vec<Recording>> + Send>;

/// An ordered list of recordings that can be read one after the other, as often as needed.
pub trait Recordings: Debug + Send + Sync {
    /// The columns that are constant in a recording: the keys, then the split if there is one.
    fn constants(&self) -> &SchemaRef;

    /// The name of the split among the constants, if there is one.
    fn split(&self) -> Option<&str>;

    /// The name of the label column, if recordings are labelled.
    fn label(&self) -> Option<&str>;

    /// The names of the channels.
    fn channels(&self) -> &[String];

    /// Samples a second.
    fn rate_hz(&self) -> f64;

    /// What the times of samples count from, if samples have times.
    fn times(&self) -> Option<Times> {
        None
    }

    /// The columns that are carried along.
    fn kept(&self) -> &[Keep] {
        &[]
    }

    /// The files that have something after their compressed data, which is not read.
    fn left_alone(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is not read of the directory that they are in.
    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }

    /// The recordings that are `wanted`, in order. Called on a thread that may block. The iterator may read in `next`
    /// or leave the reading to the [`Load`]s, which run in parallel. Samples that were read but are in none of the
    /// yielded recordings are counted in `counts`.
    fn open(&self, wanted: Wanted, counts: Counts) -> Box<dyn Iterator<Item = Result<Load>> + Send>;
}

/// A condition on the constants of recordings: which of them a scan needs.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Option<(SchemaRef, Condition)>);

impl Wanted {
    /// The recordings whose constants, of schema `constants`, fulfil the condition.
    pub fn by(constants: SchemaRef, condition: Condition) -> Self {
        Self(Some((constants, condition)))
    }

    /// Whether the recording with these constants is needed.
    ///
    /// # Errors
    /// Errors of evaluating the condition.
    pub fn takes(&self, constants: &[ScalarValue]) -> Result<bool> {
        let Some((schema, condition)) = &self.0 else { return Ok(true) };
        let value = |field: &Arc<Field>| Ok(constants[schema.index_of(field.name())?].to_array()?);
        let passes = condition.evaluate(value)?;
        Ok(passes.is_valid(0) && passes.value(0))
    }
}

/// A window: its first sample, and its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its first sample.
    pub start: usize,
    /// The label of the interval that covers it.
    pub label: Option<Arc<str>>,
}

/// The windows of `recording` that contain no bad sample, in order: by interval, or by start over the whole recording.
/// Of a [part](super::part) of a stretch, those that were not given before and that are final.
///
/// With [`Within::Recordings`] a window has the label of the interval that covers all of it, and none otherwise.
pub fn windows(spec: &WindowSpec, recording: &Recording) -> Vec<Window> {
    let samples = recording.len();
    let mut windows: Vec<Window> = match spec.within {
        Within::Labels => {
            let of = |i: &Interval| {
                let label = i.label.clone();
                spec.starts(i.first, i.end.min(samples)).map(move |start| Window { start, label: Some(label.clone()) })
            };
            recording.intervals.iter().flat_map(of).collect()
        }
        Within::Recordings => {
            let mut cover = Cover::new(&recording.intervals);
            spec.starts(0, samples)
                .map(|start| Window { start, label: cover.label(start, start + spec.length) })
                .collect()
        }
    };
    let clean = |w: &Window| {
        let next_bad = recording.bad.partition_point(|&b| b < w.start);
        recording.bad.get(next_bad).is_none_or(|&b| b >= w.start + spec.length)
    };
    let part = &recording.part;
    let until = part.open.as_ref().map_or(usize::MAX, |open| open.settled.until);
    windows.retain(|window| (part.given..until).contains(&window.start) && clean(window));
    windows
}

/// The number of samples in the longest stretch of `recording` in which windows are cut.
pub fn longest_stretch(spec: &WindowSpec, recording: &Recording) -> usize {
    let samples = recording.len();
    match spec.within {
        Within::Labels => {
            let lengths = recording.intervals.iter().map(|i| i.end.min(samples).saturating_sub(i.first));
            lengths.max().unwrap_or(0)
        }
        Within::Recordings => samples,
    }
}

/// Finds the interval that covers each window, in one pass over ascending windows.
struct Cover<'a> {
    intervals: Vec<&'a Interval>,
    next: usize,
}

impl<'a> Cover<'a> {
    fn new(intervals: &'a [Interval]) -> Self {
        let mut intervals: Vec<_> = intervals.iter().collect();
        intervals.sort_by_key(|i| (i.first, i.end));
        Self { intervals, next: 0 }
    }

    fn label(&mut self, start: usize, end: usize) -> Option<Arc<str>> {
        // An interval that ends before this window's end ends before every later window's.
        while self.intervals.get(self.next).is_some_and(|i| i.end < end) {
            self.next += 1;
        }
        self.intervals.get(self.next).filter(|i| i.first <= start).map(|i| i.label.clone())
    }
}

/// Finds the most frequent label of each window, in one pass over ascending windows.
pub(super) struct Modes<'a> {
    intervals: Vec<&'a Interval>,
    next: usize,
}

impl<'a> Modes<'a> {
    pub(super) fn new(intervals: &'a [Interval]) -> Self {
        let mut intervals: Vec<_> = intervals.iter().collect();
        intervals.sort_by_key(|i| (i.first, i.end));
        Self { intervals, next: 0 }
    }

    /// The most frequent label of samples `start..end`; samples without a label count in the share.
    pub(super) fn of(&mut self, start: usize, end: usize) -> Option<Mode> {
        // An interval that ends before this window ends before every later one.
        while self.intervals.get(self.next).is_some_and(|i| i.end <= start) {
            self.next += 1;
        }
        let there = self.intervals[self.next..].iter().take_while(|i| i.first < end);
        let counts = there.map(|i| (&i.label, i.end.min(end).saturating_sub(i.first.max(start))));
        Mode::of(counts, end - start)
    }
}

/// Gives each bad sample the value of the sample before it (at the start: of the first good one; 0 if there is none),
/// so that filters over the recording go on as if the sensor had held its value.
pub fn hold(channels: &mut [Vec<f64>], bad: &[usize]) {
    for channel in channels {
        for &at in bad {
            channel[at] = match at.checked_sub(1) {
                Some(before) => channel[before],
                // The value was held from the part before.
                None if !channel[at].is_nan() => channel[at],
                None => {
                    let good = (0..channel.len()).find(|i| bad.binary_search(i).is_err());
                    good.map_or(0.0, |i| channel[i])
                }
            };
        }
    }
}

/// Rejects the window that starts at `line` of `file` if its features `row` are not all finite. Returns whether they
/// are.
pub fn check_finite(row: &[f32], names: &[String], file: &str, line: u64, rejects: &Rejects) -> Result<bool> {
    let Some(at) = row.iter().position(|v| !v.is_finite()) else { return Ok(true) };
    let name = names.get(at).map_or("?", String::as_str);
    let reason = format!("feature {name} of the window that starts here is {}, expected a finite number", row[at]);
    let why = Why { by: RefusedBy::Features, fault: Fault::Feature, ..Why::row(reason, Raw::default()) };
    rejects.reject_as(file, line, why)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(samples: usize, intervals: &[(&str, usize, usize)], bad: &[usize]) -> Recording {
        let intervals = intervals.iter().map(|&(label, first, end)| Interval { label: label.into(), first, end });
        let (intervals, bad) = (intervals.collect(), bad.to_vec());
        Recording { channels: vec![vec![0.0; samples]], intervals, bad, ..Recording::default() }
    }

    fn cut(within: Within, length: usize, stride: usize, recording: &Recording) -> Vec<(usize, Option<String>)> {
        let windows = windows(&WindowSpec { length, stride, within }, recording);
        windows.into_iter().map(|w| (w.start, w.label.map(|l| l.to_string()))).collect()
    }

    #[test]
    fn windows_stay_inside_their_interval() {
        let r = recording(20, &[("b", 10, 17), ("a", 0, 6), ("short", 6, 9)], &[]);
        let label = |l: &str| Some(l.to_string());
        let expected = [(10, label("b")), (12, label("b")), (0, label("a")), (2, label("a"))];
        assert_eq!(cut(Within::Labels, 4, 2, &r), expected);
        assert_eq!(cut(Within::Labels, 21, 2, &recording(20, &[("a", 0, 20)], &[])), []);
    }

    #[test]
    fn a_window_over_a_recording_is_labelled_if_covered() {
        let r = recording(9, &[("a", 0, 4), ("b", 4, 9)], &[]);
        let labels: Vec<_> = cut(Within::Recordings, 4, 1, &r).into_iter().map(|(_, l)| l).collect();
        let label = |l: &str| Some(l.to_string());
        assert_eq!(labels, [label("a"), None, None, None, label("b"), label("b")]);
    }

    #[test]
    fn the_most_frequent_label_is_found_in_every_window() {
        let r = recording(12, &[("b", 5, 9), ("a", 0, 4)], &[]);
        let mut modes = Modes::new(&r.intervals);
        let of: Vec<_> = [0, 2, 4, 6, 9]
            .map(|start| modes.of(start, start + 4).map(|mode| (mode.value.to_string(), mode.share)))
            .to_vec();
        let mode = |label: &str, share| Some((label.to_string(), share));
        assert_eq!(of, [mode("a", 1.0), mode("a", 0.5), mode("b", 0.75), mode("b", 0.75), None]);
    }

    #[test]
    fn only_windows_that_hold_a_bad_sample_are_left_out() {
        let starts: Vec<_> = cut(Within::Recordings, 3, 1, &recording(9, &[], &[4])).iter().map(|w| w.0).collect();
        assert_eq!(starts, [0, 1, 5, 6]);
    }

    #[test]
    fn a_bad_sample_holds_the_value_before_it() {
        let mut channels = vec![vec![f64::NAN, f64::NAN, 1.0, 2.0, f64::NAN, 3.0]];
        hold(&mut channels, &[0, 1, 4]);
        assert_eq!(channels, [[1.0, 1.0, 1.0, 2.0, 2.0, 3.0]]);
    }
}
