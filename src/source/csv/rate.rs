//! The sampling rate that a time column shows.

use super::TimeUnit;
use super::file::OpenFile;
use super::piece::GAP;
use super::scan::Begun;
use crate::error::{Error, Result};

/// How many lines are looked at.
const LINES: usize = 4096;
/// How far a step may be from the median one, as a part of it; and how far at most if times are whole numbers, which
/// makes steps jump by one.
const TOLERANCE: f64 = 0.1;
const ROUNDED_TOLERANCE: f64 = 0.25;
/// The part of the steps that may be further away, gaps not counted.
const IRREGULAR: f64 = 0.1;

/// The samples a second of `file`: what `given` says, if its times agree; else what its times say.
///
/// # Errors
/// Kind `Input` if the times do not fit `given`, or are too irregular or too few to tell a rate from, as they are where
/// no two lines of one recording follow each other.
pub(super) fn settle(file: &mut OpenFile, unit: TimeUnit, given: Option<f64>) -> Result<f64> {
    let mut steps = Vec::new();
    let mut rounded = true;
    let mut before: Option<(Vec<u8>, Option<f64>)> = None;
    let (mut begun, mut comes_back) = (Begun::default(), None);
    for _ in 0..LINES {
        let Some(row) = file.next_time() else { break };
        let Some((time, id)) = row else {
            before = before.map(|(id, _)| (id, None));
            continue;
        };
        match before.filter(|(same, _)| *same == id) {
            Some((_, earlier)) => steps.extend(earlier.map(|earlier| time - earlier)),
            None if begun.insert(&id) || comes_back.is_some() => {}
            None => comes_back = Some(format!("{}:{}: {}", file.name(), file.line(), file.comes_back())),
        }
        rounded &= time.fract() == 0.0;
        before = Some((id, Some(time)));
    }
    steps.sort_by(f64::total_cmp);
    let name = file.name();
    let Some(&median) = steps.get(steps.len() / 2) else {
        let why = || comes_back.unwrap_or(format!("{name}: too few lines to tell a sampling rate; give rate_hz"));
        return given.ok_or_else(|| Error::input(why()));
    };
    let tolerance =
        if rounded { (TOLERANCE * median).max(1f64.min(ROUNDED_TOLERANCE * median)) } else { TOLERANCE * median };
    let steps: Vec<f64> = steps.into_iter().filter(|&step| step > 0.0 && step <= GAP * median).collect();
    let regular: Vec<f64> = steps.iter().copied().filter(|step| (step - median).abs() <= tolerance).collect();
    let second = unit.per_second();
    if let Some(given) = given {
        if (second / given - median).abs() > tolerance {
            let rate = second / median;
            return Err(Error::input(format!(
                "{name}: rate_hz is {given}, but the time column steps by {median} {}, which is {rate} samples a second; \
                 expected the two to agree: is its unit another one?",
                shown(unit)
            )));
        }
        return Ok(given);
    }
    if regular.is_empty() || regular.len() as f64 / (steps.len() as f64) < 1.0 - IRREGULAR {
        let (least, most) = (steps.first().unwrap_or(&median), steps.last().unwrap_or(&median));
        return Err(Error::input(format!(
            "{name}: the time column steps by {least} to {most} {}, {median} as the median, expected nine in ten within \
             a tenth of it; resample the recordings evenly, or say with rate_hz what to take their rate for",
            shown(unit)
        )));
    }
    let rate = second * regular.len() as f64 / regular.iter().sum::<f64>();
    // Steps of 0.02 add up to 49.99999999 Hz.
    let digits = 10f64.powf(6.0 - rate.log10().ceil());
    Ok((rate * digits).round() / digits)
}

fn shown(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::S => "s",
        TimeUnit::Ms => "ms",
        TimeUnit::Us => "us",
        TimeUnit::Ns => "ns",
    }
}
