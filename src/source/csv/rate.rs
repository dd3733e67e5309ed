//! Infers the sampling rate from a column of times.

use std::collections::HashMap;

use super::file::OpenFile;
use super::rules::GAP;
use super::{CsvSpec, NO_LINES, Repeated, SameTime, SampleRules};
use crate::error::{Error, Result};
use crate::source::bad::Rejects;
use crate::source::clock::{Midnight, SECOND, TimeUnit, duration};
use crate::source::location::DataFile;
use crate::terminal::shown_name;

/// How many files are looked at, and how many lines of each.
const FILES: usize = 64;
const LINES: usize = 4096;
/// How far a step may be from the median, as a fraction of it; and the greatest such distance if times are rounded,
/// since steps then vary by the unit of rounding.
const TOLERANCE: f64 = 0.1;
const ROUNDED_TOLERANCE: f64 = 0.25;
/// The fraction of the steps that may be further away, not counting gaps.
const IRREGULAR: f64 = 0.1;
/// How far two rates may differ and be the same, as a fraction.
const ALIKE: f64 = 0.05;
/// Below this many samples per second, whole numbers taken for seconds may count a smaller unit.
const SLOW: f64 = 0.2;
/// More steps than this do not make the rate of a recording any surer.
const STEPS: usize = 16;

/// A rate, and how many steps of its recording show it, up to [`STEPS`].
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    rate: f64,
    steps: usize,
}

/// The sampling rate of most recordings at the beginnings of `files`; on a tie, the one that comes first.
///
/// # Errors
/// Kind `Input` if no recording shows a rate because its times are too irregular, too few or invalid; under quarantine
/// each file's reason is listed.
pub(super) fn settle(files: &[DataFile], spec: &CsvSpec, rejects: &Rejects) -> Result<f64> {
    let (mut shown, mut problems) = (Vec::new(), Vec::new());
    let mut whole = true;
    for file in files.iter().take(FILES) {
        // The scan reports a file that cannot be opened.
        let Ok(mut file) = OpenFile::as_written(file, spec) else { continue };
        match look(&mut file, &spec.rules) {
            Ok(Looked { rates, whole_seconds }) => {
                shown.extend(rates);
                whole &= whole_seconds;
            }
            Err((line, reason)) => problems.push((file.shared_name(), line, reason)),
        }
    }
    if let Some(rate) = most_shown(&shown) {
        if let Some(doubt) = doubt(spec, rate, whole) {
            tracing::warn!("{}: {doubt}", shown_name(&spec.path));
        }
        return Ok(rate);
    }
    let mut first = String::new();
    for (name, line, reason) in problems {
        if first.is_empty() {
            let place = if line == 0 { name.to_string() } else { format!("{name}:{line}") };
            first = format!("{place}: {reason}");
        }
        rejects.reject(&name, line, reason)?;
    }
    Err(Error::input(format!("{}: no recording shows a sampling rate, the first because: {first}", spec.path)))
}

/// What was found at the beginning of a file.
struct Looked {
    /// The rates of its recordings.
    rates: Vec<Shown>,
    /// Whether all times were whole numbers that were taken for seconds.
    whole_seconds: bool,
}

/// A warning about a `rate` from numbers that were taken for seconds without a given unit; `whole`: whether all of them
/// were whole.
fn doubt(spec: &CsvSpec, rate: f64, whole: bool) -> Option<String> {
    let time = spec.time.as_ref().filter(|time| time.unit == TimeUnit::Auto && spec.time_format.is_none())?;
    let column = &time.column;
    let said = TimeUnit::in_name(column);
    let doubted = rate < 1.0 && said.is_some() || rate <= SLOW && whole;
    doubted.then(|| {
        let unit = said.unwrap_or(TimeUnit::Ms).name();
        format!(
            "column {column:?} is taken for seconds, which makes {rate} samples a second; if it counts another unit, say so: \
             time_unit = {unit:?} (time_unit = \"s\" says that they are seconds)"
        )
    })
}

/// What the beginning of `file` shows; or why it shows no rate, and on which line (0: the whole file).
fn look(file: &mut OpenFile, rules: &SampleRules) -> Result<Looked, (u64, String)> {
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut recordings: Vec<(Midnight, Vec<i64>)> = Vec::new();
    let (mut bad, mut whole_seconds) = (None, true);
    for _ in 0..LINES {
        if !matches!(file.advance(), Ok(true)) {
            break;
        }
        match file.id().and_then(|id| Ok((id, file.time()?))) {
            Ok((id, Some(stamp))) => {
                let next = recordings.len();
                let place = *places.entry(id).or_insert(next);
                if place == next {
                    recordings.push(Default::default());
                }
                let (midnight, times) = &mut recordings[place];
                times.push(midnight.pass(stamp));
                whole_seconds &= file.counts_whole() && stamp.ns.abs() < 100_000_000 * SECOND;
            }
            Ok((_, None)) => {}
            Err(reason) => drop(bad.get_or_insert((file.line(), reason))),
        }
    }
    let rates: Vec<_> = recordings.into_iter().map(|(_, times)| rate_of(times, rules)).collect();
    let shown: Vec<Shown> = rates.iter().filter_map(|rate| rate.as_ref().ok().copied()).collect();
    if !shown.is_empty() {
        return Ok(Looked { rates: shown, whole_seconds });
    }
    let irregular = rates.into_iter().find_map(|rate| rate.err().flatten()).map(|reason| (0, reason));
    let few = match file.rows() {
        0 => NO_LINES,
        _ => "too few lines to tell a sampling rate; give rate_hz",
    };
    Err(irregular.or(bad).unwrap_or((0, few.to_string())))
}

/// The rate that the times of a recording show; or why they show none (`None`: too few).
fn rate_of(mut times: Vec<i64>, rules: &SampleRules) -> Result<Shown, Option<String>> {
    if !rules.disorder.is_none() {
        times.sort_unstable();
    }
    let groups: Vec<&[i64]> = times.chunk_by(|a, b| a == b).collect();
    let share = |group: &[i64]| if rules.same_time == SameTime::Spread { group.len() as f64 } else { 1.0 };
    let steps = groups.windows(2).map(|pair| (pair[1][0] - pair[0][0]) as f64 / share(pair[0]));
    let mut ahead: Vec<f64> = steps.filter(|&step| step > 0.0).collect();
    ahead.sort_by(f64::total_cmp);
    let back = groups.len().saturating_sub(1 + ahead.len());
    if groups.len() < 2 && times.len() < STEPS {
        return Err(None);
    }
    let refuses = rules.same_time == SameTime::Refuse && rules.repeated == Repeated::Refuse;
    if refuses && times.len() > 2 * groups.len() {
        return Err(Some(
            "most lines have the time of the line before, expected a later one; repeated = \"drop\" leaves out lines that \
             are the same, same_time = \"spread\" takes them for samples that were taken evenly up to the next time"
                .into(),
        ));
    }
    if back > ahead.len() {
        return Err(Some(
            "time goes back from most lines to the next, expected ascending times; sort the file by its times".into(),
        ));
    }
    let Some(&median) = ahead.get(ahead.len() / 2) else { return Err(None) };
    let jitter = rules.jitter_in(median).min(SampleRules::MOST_JITTER);
    let rounded = resolution(&times).min(ROUNDED_TOLERANCE * median);
    let tolerance = (TOLERANCE * median).max(rounded).max(jitter * median);
    ahead.retain(|&step| step <= GAP.max(1.0 + jitter) * median);
    let regular: Vec<f64> = ahead.iter().copied().filter(|step| (step - median).abs() <= tolerance).collect();
    if (regular.len() as f64) < (1.0 - IRREGULAR) * ahead.len() as f64 {
        let [least, median, most] = [ahead[0], median, ahead[ahead.len() - 1]].map(duration);
        return Err(Some(format!(
            "the times step by {least} to {most}, {median} as the median, expected nine in ten within a tenth of it; resample \
             the recordings evenly, accept more with jitter (a part of the step, or a time), or say with rate_hz what to take their \
             rate for"
        )));
    }
    let rate = SECOND as f64 * regular.len() as f64 / regular.iter().sum::<f64>();
    // Steps of 0.02 add up to 49.99999999 Hz.
    let digits = 10f64.powf(6.0 - rate.log10().ceil());
    Ok(Shown { rate: (rate * digits).round() / digits, steps: regular.len().min(STEPS) })
}

/// The unit of rounding of the times, in nanoseconds: the greatest power of ten, up to a second, of which all are
/// multiples.
fn resolution(times: &[i64]) -> f64 {
    let powers = (0..=9).rev().map(|zeros| 10i64.pow(zeros));
    let mut rounded = powers.skip_while(|power| times.iter().any(|time| time % power != 0));
    rounded.next().unwrap_or(1) as f64
}

/// The rate that most steps show, counting similar rates together; on a tie, the first.
fn most_shown(shown: &[Shown]) -> Option<f64> {
    let votes = |rate: f64| {
        let alike = shown.iter().filter(|other| (other.rate / rate - 1.0).abs() <= ALIKE);
        alike.map(|other| other.steps).sum::<usize>()
    };
    // `max_by_key` takes the last of equal keys; reversed, that is the first.
    shown.iter().rev().map(|shown| shown.rate).max_by_key(|&rate| votes(rate))
}

/// Sorts files by their first times; files without one come last. Times of day cannot be sorted like that.
pub(super) fn in_order_of_time(files: &mut Vec<DataFile>, spec: &CsvSpec) {
    let mut begins = Vec::with_capacity(files.len());
    for file in files.iter() {
        let Ok(mut open) = OpenFile::as_written(file, spec) else {
            begins.push(i64::MAX);
            continue;
        };
        let mut lines =
            (0..LINES).map_while(|_| matches!(open.advance(), Ok(true)).then(|| open.time().ok().flatten()));
        match lines.find_map(|stamp| stamp) {
            Some(stamp) if stamp.of_day => return,
            stamp => begins.push(stamp.map_or(i64::MAX, |stamp| stamp.ns)),
        }
    }
    let mut ordered: Vec<_> = begins.into_iter().zip(std::mem::take(files)).collect();
    ordered.sort_by_key(|(begin, _)| *begin);
    files.extend(ordered.into_iter().map(|(_, file)| file));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::csv::TimeColumn;

    #[test]
    fn whole_numbers_that_would_be_slow_seconds_are_doubted() {
        let spec = |column: &str, unit| CsvSpec {
            time: Some(TimeColumn { column: column.into(), unit }),
            ..CsvSpec::new("", &["x"])
        };
        let doubted = |column: &str, unit, rate: f64, whole| doubt(&spec(column, unit), rate, whole).is_some();
        assert!(doubted("t", TimeUnit::Auto, 0.05, true));
        assert!(!doubted("t", TimeUnit::Auto, 0.05, false) && !doubted("t", TimeUnit::Auto, 1.0, true));
        assert!(!doubted("t", TimeUnit::S, 0.05, true) && !doubted("t_ms", TimeUnit::Ms, 0.05, true));
        let said = doubt(&spec("t_us", TimeUnit::Auto), 0.5, false).unwrap();
        assert!(said.contains("\"t_us\" is taken for seconds") && said.contains("time_unit = \"us\""), "{said}");
        let format = CsvSpec { time_format: Some("%s".into()), ..spec("t_ms", TimeUnit::Auto) };
        assert_eq!(doubt(&format, 0.01, true), None);
    }

    fn evenly(count: i64, step_ms: i64) -> Vec<i64> {
        (0..count).map(|i| i * step_ms * 1_000_000).collect()
    }

    #[test]
    fn the_rate_is_that_of_the_regular_steps() {
        let rules = SampleRules::default();
        let rate = |times: Vec<i64>, rules: &SampleRules| rate_of(times, rules).map(|shown| shown.rate);
        assert_eq!(rate(evenly(100, 20), &rules), Ok(50.0));
        // Rounded to milliseconds, with gaps, with a swap.
        let rounded: Vec<i64> = (0..300).map(|i| (i * 1000 / 30) * 1_000_000).collect();
        assert!((rate(rounded, &rules).unwrap() - 30.0).abs() < 0.1);
        let gaps = evenly(100, 20).into_iter().filter(|t| t / 20_000_000 % 10 != 3).collect();
        assert_eq!(rate(gaps, &rules), Ok(50.0));
        let mut swapped = evenly(100, 20);
        swapped.swap(40, 41);
        assert_eq!(rate(swapped, &rules), Ok(50.0));
        let packets: Vec<i64> = (0..90).map(|i| i / 3 * 60_000_000).collect();
        let spread = SampleRules { same_time: SameTime::Spread, ..rules };
        assert_eq!(rate(packets.clone(), &spread), Ok(50.0));
        assert!(rate(packets, &rules).unwrap_err().unwrap().contains("same_time = \"spread\""));
        assert_eq!(rate(vec![0], &rules), Err(None));
        assert!(rate(evenly(50, 20).into_iter().rev().collect(), &rules).unwrap_err().unwrap().contains("goes back"));
        let uneven: Vec<i64> = (0..100).map(|i| (20 * i + [0, 7, 3, 9][i as usize % 4]) * 1_000_000).collect();
        assert!(rate(uneven.clone(), &rules).unwrap_err().unwrap().contains("jitter"));
        assert!((rate(uneven, &SampleRules { jitter: Some(0.6.into()), ..rules }).unwrap() - 50.0).abs() < 1.0);
    }

    #[test]
    fn most_recordings_decide_and_then_the_first() {
        let shown =
            |rates: &[f64]| most_shown(&rates.iter().map(|&rate| Shown { rate, steps: 16 }).collect::<Vec<_>>());
        assert_eq!(shown(&[100.0, 50.0, 49.0, 50.0]), Some(50.0));
        assert_eq!(shown(&[50.0, 25.0]), Some(50.0));
        assert_eq!(shown(&[25.0, 50.0, 49.0]), Some(50.0));
        assert_eq!(shown(&[50.0, 49.0, 100.0, 44.4]), Some(50.0));
        assert_eq!(shown(&[]), None);
    }
}
