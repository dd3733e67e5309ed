//! Puts the lines of one recording in the order of their times: swapped lines are sorted, repeated lines dropped, and
//! lines with the same time spread, as far as the rules of the source allow it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Disorder, Repeated, SameTime, SampleRules};
use crate::source::bad::Raw;
use crate::source::keep::Cell;
use crate::source::saved::{nan_as_null, pairs, shared};

/// The most lines with the same time that are spread.
const MOST_AT_ONCE: usize = 1 << 16;

/// A line of a recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The channels; NaN for one that takes its last value.
    #[serde(with = "nan_as_null")]
    pub(super) values: Vec<f64>,
    pub(super) time: Option<i64>,
    /// Empty means none.
    pub(super) label: Vec<u8>,
    /// Its value in each column that is carried along.
    pub(super) kept: Vec<Cell>,
    /// Its file, and its line there.
    #[serde(with = "shared")]
    pub(super) file: Arc<str>,
    pub(super) number: u64,
    /// How many rows before it, in all files, could not be read.
    pub(super) unread: u64,
    /// What is wrong with it.
    pub(super) bad: Option<String>,
    /// How it is in its file, if bad rows are set aside.
    #[serde(default, skip_serializing_if = "Raw::is_empty")]
    pub(super) raw: Raw,
}

impl Line {
    fn repeats(&self, other: &Line) -> bool {
        let bits = |line: &Line| line.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.time == other.time && self.label == other.label && bits(self) == bits(other)
    }
}

/// Holds back lines that are not yet known to be in order. The result depends only on the lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    rules: SampleRules,
    /// Nanoseconds from a sample to the next, where they are known.
    period: Option<f64>,
    /// Lines that may still be followed by an earlier one, by time and arrival.
    #[serde(with = "pairs")]
    waiting: BTreeMap<(i64, u64), Line>,
    arrived: u64,
    /// The time of the line that arrived last; a bad line stays next to it.
    last: i64,
    /// The latest time so far.
    newest: i64,
    /// The lines with the current time; only the last of them, if they are not spread.
    same: Vec<Line>,
}

impl Order {
    /// The order of these rules; `None` if they change nothing.
    pub(super) fn new(rules: &SampleRules, period: Option<f64>) -> Option<Self> {
        let needed =
            !rules.disorder.is_none() || rules.same_time == SameTime::Spread || rules.repeated == Repeated::Drop;
        needed.then(|| Self {
            rules: *rules,
            period,
            waiting: BTreeMap::new(),
            arrived: 0,
            last: i64::MIN,
            newest: i64::MIN,
            same: Vec::new(),
        })
    }

    /// Takes a line. Lines that are now in order go to `out`. Returns how many repeated lines were dropped.
    pub(super) fn push(&mut self, line: Line, out: &mut Vec<Line>) -> u64 {
        self.last = line.time.unwrap_or(self.last);
        self.newest = self.newest.max(self.last);
        self.waiting.insert((self.last, self.arrived), line);
        self.arrived += 1;
        let mut dropped = 0;
        while self.is_due() {
            dropped += self.waiting.pop_first().map_or(0, |(_, line)| self.arrange(line, out));
        }
        dropped
    }

    /// Whether no later line can belong before the first that waits.
    fn is_due(&self) -> bool {
        let Some(((first, _), _)) = self.waiting.first_key_value() else { return false };
        match self.rules.disorder {
            Disorder::Lines(lines) => self.waiting.len() > lines,
            Disorder::Time(time) => {
                first.saturating_add(time.nanoseconds()) < self.newest
                    || self.waiting.len() > SampleRules::MOST_DISORDER
            }
        }
    }

    /// Gives out the remaining lines, at the end of a recording, of a part of it, or of a file.
    pub(super) fn flush(&mut self, out: &mut Vec<Line>) -> u64 {
        let mut dropped = 0;
        while let Some((_, line)) = self.waiting.pop_first() {
            dropped += self.arrange(line, out);
        }
        self.release(None, out);
        (self.last, self.newest) = (i64::MIN, i64::MIN);
        dropped
    }

    fn spreads(&self) -> bool {
        self.rules.same_time == SameTime::Spread
    }

    fn arrange(&mut self, mut line: Line, out: &mut Vec<Line>) -> u64 {
        let Some(time) = line.time.filter(|_| line.bad.is_none()) else {
            match self.spreads() && !self.same.is_empty() {
                true => self.same.push(line),
                false => out.push(line),
            }
            return 0;
        };
        let current = self.same.iter().find_map(|line| line.time);
        if current == Some(time) {
            if self.rules.repeated == Repeated::Drop && self.same.last().is_some_and(|last| line.repeats(last)) {
                return 1;
            }
            if self.spreads() && self.same.len() < MOST_AT_ONCE {
                self.same.push(line);
                return 0;
            }
            if self.spreads() {
                line.bad = Some(format!("more than {MOST_AT_ONCE} lines with the same time, expected fewer"));
            }
            out.push(line);
            return 0;
        }
        self.release(Some(time), out);
        if self.spreads() {
            self.same.push(line);
            return 0;
        }
        if self.rules.repeated == Repeated::Drop {
            self.same.push(line.clone());
        }
        out.push(line);
        0
    }

    /// Spreads the lines with the current time evenly up to the `next` time; by the sample period, if that is too far
    /// away or absent.
    fn release(&mut self, next: Option<i64>, out: &mut Vec<Line>) {
        let same = std::mem::take(&mut self.same);
        if !self.spreads() {
            return;
        }
        let Some(first) = same.iter().find_map(|line| line.time) else { return out.extend(same) };
        let even = next.filter(|&next| next > first).map(|next| (next - first) as f64 / same.len() as f64);
        let longest = self.period.map_or(f64::INFINITY, |period| period * self.rules.gap(period));
        let step = even.filter(|&step| step <= longest).or(self.period).or(even).unwrap_or(0.0);
        out.extend(same.into_iter().enumerate().map(|(at, line)| {
            let time = line.time.map(|time| time.saturating_add((at as f64 * step).round() as i64));
            Line { time, ..line }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(number: u64, time: i64, value: f64) -> Line {
        Line { values: vec![value], time: Some(time), file: "a".into(), number, ..Line::default() }
    }

    fn ordered(rules: SampleRules, period: f64, lines: Vec<Line>) -> (Vec<Line>, u64) {
        let mut order = Order::new(&rules, Some(period)).unwrap();
        let (mut out, mut dropped) = (Vec::new(), 0);
        for line in lines {
            dropped += order.push(line, &mut out);
        }
        dropped += order.flush(&mut out);
        (out, dropped)
    }

    fn times(lines: &[Line]) -> Vec<i64> {
        lines.iter().map(|line| line.time.unwrap_or(-1)).collect()
    }

    #[test]
    fn lines_under_one_time_are_spread_up_to_the_next() {
        let rules = SampleRules { same_time: SameTime::Spread, ..SampleRules::default() };
        let at =
            |times: &[i64]| times.iter().enumerate().map(|(i, &t)| line(i as u64, t, i as f64)).collect::<Vec<_>>();
        let spread = |times_in: &[i64]| times(&ordered(rules, 20.0, at(times_in)).0);
        assert_eq!(spread(&[0, 0, 0, 60, 60, 60]), [0, 20, 40, 60, 80, 100]);
        // One sample too many, one packet missing, time going back.
        assert_eq!(spread(&[0, 0, 0, 0, 60, 60, 60]), [0, 15, 30, 45, 60, 80, 100]);
        assert_eq!(spread(&[0, 0, 0, 600, 600]), [0, 20, 40, 600, 620]);
        assert_eq!(spread(&[60, 60, 0, 0]), [60, 80, 0, 20]);
        let mut bad = at(&[0, 0, 0, 60]);
        (bad[1].bad, bad[1].time) = (Some("text".into()), None);
        assert_eq!(times(&ordered(rules, 20.0, bad).0), [0, -1, 40, 60]);
    }

    #[test]
    fn a_line_that_repeats_the_one_before_is_dropped() {
        let rules = SampleRules { repeated: Repeated::Drop, ..SampleRules::default() };
        let lines = vec![line(1, 0, 1.0), line(2, 0, 1.0), line(3, 20, 1.0), line(4, 20, 2.0), line(5, 40, 1.0)];
        let (out, dropped) = ordered(rules, 20.0, lines);
        assert_eq!((out.iter().map(|l| l.number).collect::<Vec<_>>(), dropped), (vec![1, 3, 4, 5], 1));
    }

    proptest! {
        /// Lines that are no further from their place than the disorder come out sorted, also with a larger bound than
        /// needed.
        #[test]
        fn disorder_is_undone(shifts in prop::collection::vec(0i64..4, 1..60), more in 0usize..3) {
            let mut lines: Vec<(i64, Line)> = shifts.iter().enumerate()
                .map(|(i, shift)| (2 * i as i64 + 2 * shift, line(i as u64, 20 * i as i64, i as f64))).collect();
            lines.sort_by_key(|(place, line)| (*place, std::cmp::Reverse(line.number)));
            let rules = SampleRules { disorder: (3 + more).into(), ..SampleRules::default() };
            let (out, dropped) = ordered(rules, 20.0, lines.into_iter().map(|(_, line)| line).collect());
            prop_assert_eq!(out.iter().map(|l| l.number).collect::<Vec<_>>(), (0..shifts.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(dropped, 0);
        }
    }
}
