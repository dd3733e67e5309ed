//! What became of the samples of recordings: each is in a window, set aside, or counted with the reason why it is in no
//! window.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::part::Part;
use super::recording::{Edge, Interval, Recording};
use crate::signal::window::{WindowSpec, Within};

/// Why a good sample is in no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unused {
    /// After the last window of its recording or labelled stretch: another one would not fit.
    Tail,
    /// Between two windows, as the stride is longer than a window.
    BetweenWindows,
    /// In a recording, or a part of one, that is shorter than a window.
    ShortRecording,
    /// Before or after a gap in time, too near to it for a window.
    Gap,
    /// Before or after a place where time goes back, too near to it for a window.
    OutOfOrder,
    /// In a labelled stretch that is shorter than a window.
    ShortLabel,
    /// Without a label, where windows are cut within labels.
    Unlabelled,
    /// Only in windows that contain a bad row, or too near to rows that could not be read for a window.
    BesideBadRow,
    /// Only in windows with a feature that is not finite.
    BesideBadWindow,
    /// From a line that repeats the one before it.
    Repeated,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unused::Tail => "behind the last window",
            Unused::BetweenWindows => "between windows",
            Unused::ShortRecording => "in recordings shorter than a window",
            Unused::Gap => "cut off by gaps in time (jitter = J takes longer steps for none)",
            Unused::OutOfOrder => "out of order (disorder = N sorts them)",
            Unused::ShortLabel => "in labelled stretches shorter than a window",
            Unused::Unlabelled => "without a label",
            Unused::BesideBadRow => "beside bad rows",
            Unused::BesideBadWindow => "in windows set aside",
            Unused::Repeated => "of repeated lines",
        })
    }
}

/// What became of the samples of a scan: `read` = `in_windows` + `set_aside` + the sum of `unused`.
///
/// Where no windows are cut, each sample is a window of its own. A recording that was resampled counts with its new
/// number of samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Samples {
    /// Samples that were read, of the recordings that the scan asked for.
    pub read: u64,
    /// Samples that are in at least one window.
    pub in_windows: u64,
    /// Samples that stand for bad rows, or belong to a recording that was set aside.
    pub set_aside: u64,
    /// All others, by reason.
    pub unused: BTreeMap<Unused, u64>,
    /// Values that were missing and took the last one, by channel.
    #[serde(default)]
    pub held: BTreeMap<String, u64>,
}

impl Samples {
    /// Good samples that are in no window.
    pub fn unused(&self) -> u64 {
        self.unused.values().sum()
    }

    /// Adds the counts of another part of the same scan.
    pub fn add(&mut self, other: &Samples) {
        self.read += other.read;
        self.in_windows += other.in_windows;
        self.set_aside += other.set_aside;
        for (&reason, count) in &other.unused {
            *self.unused.entry(reason).or_default() += count;
        }
        for (channel, count) in &other.held {
            *self.held.entry(channel.clone()).or_default() += count;
        }
    }

    /// Counts a missing value of a channel that took the last one.
    pub(super) fn add_held(&mut self, channel: &str) {
        match self.held.get_mut(channel) {
            Some(count) => *count += 1,
            None => drop(self.held.insert(channel.to_owned(), 1)),
        }
    }

    /// Counts good samples that will be in no window.
    pub(super) fn add_unused(&mut self, reason: Unused, count: u64) {
        self.read += count;
        *self.unused.entry(reason).or_default() += count;
    }

    /// Counts samples that were read and set aside.
    pub(super) fn add_set_aside(&mut self, count: u64) {
        self.read += count;
        self.set_aside += count;
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} read: {} in windows, {} set aside, {} unused",
            self.read,
            self.in_windows,
            self.set_aside,
            self.unused()
        )?;
        let mut unused: Vec<_> = self.unused.iter().filter(|(_, count)| **count > 0).collect();
        unused.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), **reason));
        let reasons: Vec<String> = unused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if !reasons.is_empty() {
            write!(f, " ({})", reasons.join(", "))?;
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let held: Vec<String> = self.held.iter().map(|(channel, count)| format!("{count} of {channel}")).collect();
        write!(f, "; missing values that took the last one: {}", held.join(", "))
    }
}

/// Counts that several threads add to.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<Samples>>);

impl Counts {
    /// Calls `add` with the counts.
    pub fn count(&self, add: impl FnOnce(&mut Samples)) {
        // Sums are consistent at every moment.
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The counts so far.
    pub fn get(&self) -> Samples {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a sample is counted as. Greater values replace lesser ones while a recording is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unused(Unused),
    BesideBadRow,
    BesideBadWindow,
    InWindow,
    Bad,
}

/// Counts the samples of `recording`. The windows that start at `kept` (in the order in which windows are cut) became
/// rows; those at `dropped` did not, since their features are not finite. Of a [part](super::part) of a stretch, the
/// samples are counted that were not counted before and that no later window can contain.
pub(crate) fn account(spec: &WindowSpec, recording: &Recording, kept: &[usize], dropped: &[usize]) -> Samples {
    let samples = recording.len();
    let mut fates = vec![Fate::Unused(Unused::Unlabelled); samples];
    match spec.within {
        Within::Recordings => cut(spec, 0..samples, ends_of(recording), &mut fates),
        Within::Labels => {
            for &Interval { first, end, .. } in &recording.intervals {
                let end = end.min(samples);
                // An interval that ends with its stretch may have been cut off there.
                let edge = |at_edge: bool, edge: Edge| if at_edge { Ends::of(edge) } else { Ends::LABEL };
                let [before, after] = recording.edges;
                let ends = [edge(first == 0, before), edge(end == samples, after)];
                cut(
                    spec,
                    first.min(end)..end,
                    ends.map(|e| if e == Ends::of(Edge::End) { Ends::LABEL } else { e }),
                    &mut fates,
                );
            }
        }
    }
    let Part { counted, left, open, .. } = &recording.part;
    let mut earlier = |until: usize, fate: Fate| {
        let until = until.min(samples);
        fates[..until].iter_mut().for_each(|slot| *slot = (*slot).max(fate));
    };
    earlier(left.beside_bad, Fate::BesideBadWindow);
    earlier(left.in_windows, Fate::InWindow);
    mark(spec, dropped, Fate::BesideBadWindow, &mut fates);
    mark(spec, kept, Fate::InWindow, &mut fates);
    for &bad in &recording.bad {
        fates[bad] = Fate::Bad;
    }
    let mut counts = Samples::default();
    let until = open.as_ref().map_or(samples, |open| open.settled.counted);
    for fate in fates.into_iter().take(until).skip(*counted) {
        match fate {
            Fate::InWindow => {
                counts.read += 1;
                counts.in_windows += 1;
            }
            Fate::Bad => counts.add_set_aside(1),
            Fate::Unused(reason) => counts.add_unused(reason, 1),
            Fate::BesideBadRow => counts.add_unused(Unused::BesideBadRow, 1),
            Fate::BesideBadWindow => counts.add_unused(Unused::BesideBadWindow, 1),
        }
    }
    counts
}

/// The reasons that an end of a stretch gives for unused samples: because the stretch is too short, or as its tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    short: Unused,
    tail: Unused,
}

impl Ends {
    const LABEL: Self = Self { short: Unused::ShortLabel, tail: Unused::Tail };

    fn of(edge: Edge) -> Self {
        match edge {
            Edge::End => Self { short: Unused::ShortRecording, tail: Unused::Tail },
            Edge::Gap => Self { short: Unused::Gap, tail: Unused::Gap },
            Edge::Back => Self { short: Unused::OutOfOrder, tail: Unused::OutOfOrder },
            Edge::Unread => Self { short: Unused::BesideBadRow, tail: Unused::BesideBadRow },
        }
    }
}

fn ends_of(recording: &Recording) -> [Ends; 2] {
    recording.edges.map(Ends::of)
}

/// Sets why each sample of a stretch may be in no window. Samples in a window are taken as beside a bad row until
/// [`mark`] sets them.
fn cut(spec: &WindowSpec, stretch: Range<usize>, [before, after]: [Ends; 2], fates: &mut [Fate]) {
    let mut put = |range: Range<usize>, fate: Fate| {
        for slot in &mut fates[range] {
            // Where stretches overlap, the one whose windows contain the sample counts.
            if *slot < Fate::BesideBadRow {
                *slot = fate;
            }
        }
    };
    let starts = spec.starts(stretch.start, stretch.end);
    let Some(last) = starts.clone().next_back() else {
        let rank = |reason| [Unused::OutOfOrder, Unused::Gap].iter().position(|&worst| worst == reason).unwrap_or(2);
        let short = if rank(before.short) < rank(after.short) { before.short } else { after.short };
        return put(stretch, Fate::Unused(short));
    };
    put(last + spec.length..stretch.end, Fate::Unused(after.tail));
    match spec.stride <= spec.length {
        true => put(stretch.start..last + spec.length, Fate::BesideBadRow),
        false => {
            put(stretch.start..last, Fate::Unused(Unused::BetweenWindows));
            starts.for_each(|start| put(start..start + spec.length, Fate::BesideBadRow));
        }
    }
}

/// Gives the samples of the windows at `starts` this fate, if it is greater than theirs.
fn mark(spec: &WindowSpec, starts: &[usize], fate: Fate, fates: &mut [Fate]) {
    let mut done = 0..0;
    for &start in starts {
        // Windows overlap; each sample is visited only once.
        let from = if done.contains(&start) { done.end } else { start };
        let end = start + spec.length;
        for slot in &mut fates[from..end.max(from)] {
            *slot = (*slot).max(fate);
        }
        done = if from == start { start..end } else { done.start..end.max(done.end) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::recording::windows;
    use proptest::prelude::*;

    fn recording(samples: usize, edges: [Edge; 2], intervals: &[(usize, usize)], bad: &[usize]) -> Recording {
        let interval = |&(first, end): &(usize, usize)| Interval { label: "a".into(), first, end };
        let (intervals, bad) = (intervals.iter().map(interval).collect(), bad.to_vec());
        Recording { channels: vec![vec![0.0; samples]], intervals, bad, edges, ..Recording::default() }
    }

    fn counted(length: usize, stride: usize, within: Within, recording: &Recording) -> Samples {
        let spec = WindowSpec { length, stride, within };
        let kept: Vec<usize> = windows(&spec, recording).iter().map(|w| w.start).collect();
        account(&spec, recording, &kept, &[])
    }

    #[test]
    fn every_reason_is_told() {
        use Edge::{Back, End, Gap};
        let whole = Within::Recordings;
        for (length, stride, within, recording, in_windows, set_aside, expected) in [
            (4, 2, whole, recording(11, [End, End], &[], &[]), 10, 0, vec![(Unused::Tail, 1)]),
            (4, 2, whole, recording(11, [End, Gap], &[], &[]), 10, 0, vec![(Unused::Gap, 1)]),
            (4, 2, whole, recording(11, [Gap, Back], &[], &[]), 10, 0, vec![(Unused::OutOfOrder, 1)]),
            (
                2,
                4,
                whole,
                recording(9, [End, End], &[], &[]),
                4,
                0,
                vec![(Unused::Tail, 3), (Unused::BetweenWindows, 2)],
            ),
            (4, 2, whole, recording(3, [End, End], &[], &[]), 0, 0, vec![(Unused::ShortRecording, 3)]),
            (4, 2, whole, recording(3, [Gap, End], &[], &[]), 0, 0, vec![(Unused::Gap, 3)]),
            (4, 2, whole, recording(3, [Gap, Back], &[], &[]), 0, 0, vec![(Unused::OutOfOrder, 3)]),
            (4, 4, whole, recording(8, [End, End], &[], &[1]), 4, 1, vec![(Unused::BesideBadRow, 3)]),
            (
                4,
                4,
                Within::Labels,
                recording(12, [End, Gap], &[(0, 5), (6, 8), (10, 12)], &[]),
                4,
                0,
                vec![(Unused::Tail, 1), (Unused::Gap, 2), (Unused::ShortLabel, 2), (Unused::Unlabelled, 3)],
            ),
        ] {
            let counts = counted(length, stride, within, &recording);
            assert_eq!(counts.unused, expected.into_iter().collect(), "{recording:?}");
            assert_eq!((counts.in_windows, counts.set_aside), (in_windows, set_aside), "{recording:?}");
        }
        let spec = WindowSpec { length: 4, stride: 4, within: whole };
        let counts = account(&spec, &recording(8, [End, End], &[], &[]), &[4], &[0]);
        assert_eq!(counts.unused, [(Unused::BesideBadWindow, 4)].into());
        assert_eq!(counts.to_string(), "8 read: 4 in windows, 0 set aside, 4 unused (4 in windows set aside)");
    }

    proptest! {
        #[test]
        fn no_sample_vanishes(
            samples in 0usize..60, length in 1usize..9, stride in 1usize..12, labels: bool,
            cuts in prop::collection::vec((0usize..70, 0usize..20), 0..5), bad in prop::collection::btree_set(0usize..60, 0..4),
        ) {
            let intervals: Vec<_> = cuts.into_iter().map(|(first, len)| (first, first + len)).collect();
            let bad: Vec<usize> = bad.into_iter().filter(|&b| b < samples).collect();
            let recording = recording(samples, [Edge::End, Edge::Gap], &intervals, &bad);
            let within = if labels { Within::Labels } else { Within::Recordings };
            let counts = counted(length, stride, within, &recording);
            prop_assert_eq!(counts.read, samples as u64);
            prop_assert_eq!(counts.read, counts.in_windows + counts.set_aside + counts.unused());
            prop_assert_eq!(counts.set_aside, bad.len() as u64);
            let spec = WindowSpec { length, stride, within };
            let held: std::collections::BTreeSet<usize> =
                windows(&spec, &recording).iter().flat_map(|w| w.start..w.start + length).collect();
            prop_assert_eq!(counts.in_windows, held.len() as u64);
        }
    }
}
