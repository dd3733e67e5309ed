//! Analyses a column of times: the rate, gaps, steps back, repeated times.

use std::collections::HashMap;

use crate::source::clock::{Clock, Midnight, SECOND, Stamp, TimeUnit, duration};
use crate::source::csv::Record;

/// Steps up to this many sample periods are not gaps.
const GAP: f64 = 1.5;
/// How far a regular step may be from the median, as a fraction of it.
const REGULAR: f64 = 0.1;
/// How far two rates may differ and be the same, as a fraction.
const ALIKE: f64 = 0.1;
/// The most lines that a sample may be from its place in the order of time.
const FARTHEST: usize = 1000;
/// Of several possible rates in Hz that differ by powers of a thousand, the one nearest to this is the most plausible.
const PLAUSIBLE: f64 = 50.0;

/// What the times of a file show.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub unit: TimeUnit,
    /// The median of the nanoseconds from a sample to the next.
    pub period: Option<f64>,
    /// The number of gaps.
    pub gaps: usize,
    /// The longest gap, in nanoseconds.
    pub longest: i64,
    /// The number of steps back.
    pub back: usize,
    /// The most lines that a sample is from its place in the order of time; `None` if that is too many.
    pub disorder: Option<usize>,
    /// The number of times that repeat the one before, and of lines that repeat the line before.
    pub repeated: usize,
    pub repeated_lines: usize,
    /// Times that cannot be read.
    pub unread: usize,
    /// For each of [`JITTERS`], the number of steps that are further from the median, not counting gaps.
    irregular: [usize; JITTERS.len()],
    steps: usize,
    /// Rates of recordings in Hz, and how many have each, the most frequent first.
    pub rates: Vec<(f64, usize)>,
    /// The first and the last time, unless they are times of day.
    pub span: Option<(i64, i64)>,
}

/// Candidates for the jitter: distances of steps from the median, as fractions of it, ascending.
const JITTERS: [f64; 4] = [REGULAR, 0.25, 0.5, 1.0];

/// The times of a recording.
#[derive(Default)]
struct Recording<'a> {
    midnight: Midnight,
    times: Vec<i64>,
    last: Option<&'a Record>,
}

impl Times {
    /// Analyses the times of `rows` that `read` gives; rows that are equal in `keys` belong to one recording.
    pub fn of(rows: &[Record], keys: &[usize], unit: TimeUnit, read: impl Fn(&Record) -> Option<Stamp>) -> Self {
        let mut found = Self { unit, disorder: Some(0), ..Self::default() };
        let mut places: HashMap<Vec<&[u8]>, usize> = HashMap::new();
        let mut recordings: Vec<Recording<'_>> = Vec::new();
        for row in rows {
            let Some(stamp) = read(row) else {
                found.unread += 1;
                continue;
            };
            let next = recordings.len();
            let place = *places.entry(keys.iter().map(|&key| row.field(key)).collect()).or_insert(next);
            if place == next {
                recordings.push(Recording::default());
            }
            let recording = &mut recordings[place];
            let time = recording.midnight.pass(stamp);
            recording.times.push(time);
            let before = recording.last.replace(row);
            found.repeated_lines += usize::from(before.is_some_and(|before| before.text() == row.text()));
            if !stamp.of_day {
                found.span = Some(found.span.map_or((time, time), |(from, to)| (from.min(time), to.max(time))));
            }
        }
        let steps_of = |times: &[i64]| times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<i64>>();
        let steps: Vec<i64> = recordings.iter().flat_map(|recording| steps_of(&recording.times)).collect();
        found.repeated = steps.iter().filter(|&&step| step == 0).count();
        found.back = steps.iter().filter(|&&step| step < 0).count();
        found.period = median(&steps);
        let Some(period) = found.period else { return found };
        let mut rates: Vec<(f64, usize)> = Vec::new();
        for recording in &recordings {
            let steps = steps_of(&recording.times);
            // Each recording is compared with its own rate.
            let own = median(&steps).unwrap_or(period);
            for &step in steps.iter().filter(|&&step| step > 0) {
                let off = (step as f64 / own - 1.0).abs();
                if step as f64 > GAP * own {
                    found.gaps += 1;
                    found.longest = found.longest.max(step);
                }
                if step as f64 <= 2.0 * own {
                    found.steps += 1;
                    JITTERS.iter().zip(&mut found.irregular).for_each(|(&most, n)| *n += usize::from(off > most));
                }
            }
            if steps.len() >= 4 {
                let rate = SECOND as f64 / own;
                match rates.iter_mut().find(|(other, _)| (rate / *other - 1.0).abs() <= ALIKE) {
                    Some((_, count)) => *count += 1,
                    None => rates.push((rate, 1)),
                }
            }
            found.disorder = found.disorder.zip(disorder(&recording.times)).map(|(a, b)| a.max(b));
        }
        rates.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        found.rates = rates;
        found
    }

    /// The median rate in samples per second.
    pub fn rate_hz(&self) -> Option<f64> {
        self.period.map(|period| rounded(SECOND as f64 / period))
    }

    /// The least candidate that covers nine in ten steps; `None` if none does.
    pub fn jitter(&self) -> Option<f64> {
        let most = |bad: &usize| bad * 10 <= self.steps;
        JITTERS.iter().zip(&self.irregular).find(|(_, bad)| most(bad)).map(|(&jitter, _)| jitter)
    }

    /// Whether most steps are near the median.
    pub fn is_regular(&self) -> bool {
        self.jitter() == Some(REGULAR)
    }

    /// In words.
    pub fn describe(&self) -> String {
        let mut parts = vec![match self.period {
            Some(period) => {
                let rate = rounded(SECOND as f64 / period);
                format!("{rate} Hz, a sample each {} as the median", duration(period))
            }
            None => "no two samples follow each other in time".into(),
        }];
        if self.gaps > 0 {
            let gaps = if self.gaps == 1 { "gap" } else { "gaps" };
            parts.push(format!("{} {gaps}, of {} at most", self.gaps, duration(self.longest as f64)));
        }
        for (count, one, many) in [
            (self.back, "step back", "steps back"),
            (self.repeated, "time that repeats the one before", "times that repeat the one before"),
            (self.unread, "that cannot be read", "that cannot be read"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {}", if count == 1 { one } else { many }));
            }
        }
        parts.join(", ")
    }
}

/// The median of the forward steps.
fn median(steps: &[i64]) -> Option<f64> {
    let mut ahead: Vec<i64> = steps.iter().copied().filter(|&step| step > 0).collect();
    ahead.sort_unstable();
    ahead.get(ahead.len() / 2).map(|&step| step as f64)
}

/// The greatest distance of a time from its place in ascending order; `None` if that is too far.
fn disorder(times: &[i64]) -> Option<usize> {
    let (mut most, mut backs) = (0, 0);
    for at in 1..times.len() {
        if times[at] >= times[at - 1] {
            continue;
        }
        backs += 1;
        let from = at.saturating_sub(FARTHEST);
        let later = times[from..at].iter().rev().take_while(|&&time| time > times[at]).count();
        // A clock that starts anew is not disorder.
        let anew = later > 2 && times[from..at].iter().all(|&time| time >= times[at]);
        if anew || backs > FARTHEST {
            return None;
        }
        most = most.max(later);
    }
    Some(most)
}

/// A number rounded to six significant digits.
pub(super) fn rounded(value: f64) -> f64 {
    let digits = 10f64.powf(6.0 - value.abs().max(1e-9).log10().ceil());
    (value * digits).round() / digits
}

/// The unit of a column of times with the name `name` and these `numbers` (empty if its times are not numbers): the one
/// that the values themselves show, else the one in the name, else the one that gives a plausible rate.
pub(super) fn unit(name: &str, numbers: &[f64]) -> TimeUnit {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    let clock = Clock::new(TimeUnit::Auto, None).ok();
    let by_itself = |value: &f64| clock.as_ref().is_some_and(|clock| clock.read(value.to_string().as_bytes()).is_ok());
    if numbers.is_empty() || numbers.iter().all(|value| *value >= 1e8 && by_itself(value)) {
        return TimeUnit::Auto;
    }
    for (unit, named) in [
        (TimeUnit::Ms, ["ms", "msec", "millis", "milliseconds"]),
        (TimeUnit::Us, ["us", "usec", "micros", "microseconds"]),
        (TimeUnit::Ns, ["ns", "nsec", "nanos", "nanoseconds"]),
        (TimeUnit::S, ["s", "sec", "secs", "seconds"]),
    ] {
        if named.iter().any(|word| words.contains(word)) {
            return unit;
        }
    }
    let mut steps: Vec<f64> = numbers.windows(2).map(|pair| pair[1] - pair[0]).filter(|&step| step > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    // Several samples may have the same time.
    let share = steps.len() as f64 / numbers.len() as f64;
    let Some(step) = steps.get(steps.len() / 2).map(|step| step * share).filter(|&step| step > 1.0) else {
        return TimeUnit::S;
    };
    let units = [(TimeUnit::Ms, 1e3), (TimeUnit::Us, 1e6), (TimeUnit::Ns, 1e9)];
    let distance = |&(_, second): &(TimeUnit, f64)| (second / step / PLAUSIBLE).log10().abs();
    units.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map_or(TimeUnit::Ms, |(unit, _)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[i64]) -> Times {
        let row = |time: &i64| {
            let mut record = Record::default();
            record.set(1, [time.to_string().as_bytes()].into_iter());
            record
        };
        let rows: Vec<Record> = times.iter().map(row).collect();
        let clock = Clock::new(TimeUnit::Ms, None).unwrap();
        Times::of(&rows, &[], TimeUnit::Ms, |row| clock.read(row.field(0)).ok())
    }

    #[test]
    fn what_times_say() {
        let even: Vec<i64> = (0..50).map(|i| i * 20).collect();
        let found = of(&even);
        assert_eq!((found.rate_hz(), found.gaps, found.back, found.disorder), (Some(50.0), 0, 0, Some(0)));
        assert!(found.is_regular());
        let found = of(&even.iter().copied().filter(|t| !(200..400).contains(t)).collect::<Vec<_>>());
        assert_eq!((found.gaps, found.longest, found.is_regular()), (1, 220 * 1_000_000, true));
        let mut swapped = even.clone();
        swapped.swap(10, 12);
        assert_eq!((of(&swapped).back, of(&swapped).disorder), (2, Some(2)));
        let again: Vec<i64> = even.iter().chain(&even).copied().collect();
        assert_eq!((of(&again).back, of(&again).disorder), (1, None));
        let twice: Vec<i64> = even.iter().flat_map(|&t| [t, t]).collect();
        assert_eq!((of(&twice).repeated, of(&twice).repeated_lines), (50, 50));
        let uneven: Vec<i64> = (0..50).map(|i| i * 20 + i % 2 * 4).collect();
        assert_eq!(of(&uneven).jitter(), Some(0.5));
    }

    #[test]
    fn units() {
        let ascending = |from: f64, step: f64| (0..20).map(|i| from + step * f64::from(i)).collect::<Vec<_>>();
        assert_eq!(unit("t", &ascending(0.0, 0.02)), TimeUnit::S);
        assert_eq!(unit("t", &ascending(0.0, 20.0)), TimeUnit::Ms);
        assert_eq!(unit("t", &ascending(0.0, 20_000.0)), TimeUnit::Us);
        assert_eq!(unit("t", &ascending(4.9e13, 5e7)), TimeUnit::Ns);
        assert_eq!(unit("t", &ascending(0.0, 20.4)), TimeUnit::Ms);
        let packed: Vec<f64> = ascending(0.0, 1000.0).iter().flat_map(|&time| [time; 50]).collect();
        assert_eq!(unit("t", &packed), TimeUnit::Ms);
        assert_eq!(unit("time_us", &ascending(0.0, 20.0)), TimeUnit::Us);
        assert_eq!(unit("t", &ascending(1.7e12, 20.0)), TimeUnit::Auto);
        assert_eq!(unit("t", &[]), TimeUnit::Auto);
    }
}
