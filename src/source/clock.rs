//! Reads times: a number in a unit, an ISO 8601 time, a time of day, or text of a given format. All become whole
//! nanoseconds, so that no digit of an epoch time is lost.

use std::borrow::Cow;

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{Datelike, NaiveDate, Timelike};

use super::bad::shown;
use crate::error::{Error, Result};

/// The unit of a column of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Recognised from each value: ISO 8601, a time of day, or a number. Numbers below 1e8 are seconds; greater ones
    /// are seconds, milliseconds, microseconds or nanoseconds since 1970, whichever gives a year from 1980 to 2100.
    #[default]
    Auto,
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

const UNITS: [TimeUnit; 4] = [TimeUnit::S, TimeUnit::Ms, TimeUnit::Us, TimeUnit::Ns];
/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// The greatest distance of a time from 0, such that the difference of two times fits into 64 bits, including added
/// days.
const FARTHEST: u64 = 1 << 62;
/// The least number that is taken for a time since 1970, and the range of such times, in seconds.
const EPOCH_FROM: f64 = 1e8;
const EPOCH_SECONDS: std::ops::Range<f64> = 315_532_800.0..4_102_444_800.0;

impl TimeUnit {
    /// The power of ten that turns the unit into nanoseconds.
    fn zeros(self) -> u32 {
        match self {
            TimeUnit::Auto | TimeUnit::S => 9,
            TimeUnit::Ms => 6,
            TimeUnit::Us => 3,
            TimeUnit::Ns => 0,
        }
    }

    /// The unit below a second that a column's name ends with or contains as a word, such as `t_ms`.
    pub(super) fn in_name(name: &str) -> Option<Self> {
        let unit = |word: &str| match word {
            "ms" | "msec" | "msecs" | "millis" | "millisec" | "milliseconds" => Some(TimeUnit::Ms),
            "us" | "µs" | "μs" | "usec" | "usecs" | "micros" | "microsec" | "microseconds" => Some(TimeUnit::Us),
            "ns" | "nsec" | "nsecs" | "nanos" | "nanosec" | "nanoseconds" => Some(TimeUnit::Ns),
            _ => None,
        };
        let name = name.to_lowercase();
        let mut words = name.split(|c: char| !c.is_alphabetic());
        words.find_map(unit)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            TimeUnit::Auto => "auto",
            TimeUnit::S => "s",
            TimeUnit::Ms => "ms",
            TimeUnit::Us => "us",
            TimeUnit::Ns => "ns",
        }
    }
}

/// A time as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Nanoseconds: since 1970 (UTC) for a date or an epoch time, since midnight for a time of day, else since whatever
    /// the sensor counts from.
    pub ns: i64,
    /// Whether it is a time of day, without a date.
    pub of_day: bool,
}

/// Reads times.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    unit: TimeUnit,
    format: Option<String>,
}

impl Clock {
    /// Times in `unit`, or in the `format` of chrono's strftime.
    ///
    /// # Errors
    /// Kind `Config` for an invalid format.
    pub fn new(unit: TimeUnit, format: Option<&str>) -> Result<Self> {
        if let Some(format) = format {
            check_format(format).map_err(Error::config)?;
        }
        Ok(Self { unit, format: format.map(String::from) })
    }

    /// The time in `text`, or what is wrong with it and what would be accepted.
    pub fn read(&self, text: &[u8]) -> Result<Stamp, String> {
        let far = || {
            let found = shown(text);
            format!(
                "{found} is too far away, expected a time within 146 years of 1970, or of the zero of the sensor's clock"
            )
        };
        self.parse(text)?.filter(|stamp| stamp.ns.unsigned_abs() <= FARTHEST).ok_or_else(far)
    }

    /// The time in `text`; `Ok(None)` if its nanoseconds do not fit into 64 bits.
    fn parse(&self, text: &[u8]) -> Result<Option<Stamp>, String> {
        if let Some(format) = &self.format {
            let wrong = |why: String| format!("{} is not a time of the format {format:?}{why}", shown(text));
            let text = std::str::from_utf8(text).map_err(|_| wrong(String::new()))?;
            return by_format(text, format).map_err(|why| wrong(format!(" ({why})")));
        }
        let stamp = |ns: Option<i64>| Ok(ns.map(|ns| Stamp { ns, of_day: false }));
        if self.unit == TimeUnit::Auto {
            if let Some(ns) = iso(text) {
                return stamp(ns);
            }
            if let Some(ns) = time_of_day(text) {
                return Ok(Some(Stamp { ns, of_day: true }));
            }
        }
        let Some(size) = fast_float2::parse::<f64, _>(text).ok().filter(|v| v.is_finite()) else {
            return Err(self.no_time(text));
        };
        let unit = match self.unit {
            TimeUnit::Auto => by_size(size).ok_or_else(|| {
                format!(
                    "{} is no number of seconds since 1970 from 1980 to 2100, nor one of milliseconds, microseconds or \
                     nanoseconds, and too great for plain seconds; say with time_unit what it counts",
                    shown(text)
                )
            })?,
            unit => unit,
        };
        stamp(decimal(text, unit.zeros()).or_else(|| {
            let ns = (size * 10f64.powi(unit.zeros() as i32)).round();
            (ns.abs() < i64::MAX as f64).then_some(ns as i64)
        }))
    }

    fn no_time(&self, text: &[u8]) -> String {
        let found = shown(text);
        if self.unit != TimeUnit::Auto {
            let unit = self.unit.name();
            let hint = match iso(text).is_some() || time_of_day(text).is_some() {
                true => format!("; without time_unit = {unit:?} it would be read as the time that it is"),
                false => String::new(),
            };
            return format!("{found} is not a number, expected a number of {unit}{hint}");
        }
        let parts = text.split(|b| b"/.-".contains(b)).take(3).filter(|p| p.first().is_some_and(u8::is_ascii_digit));
        let hint = match parts.count() {
            3 if of_half_days(text) => "; it needs time_format, for example \"%m/%d/%Y %I:%M:%S%.f %p\"",
            3 => "; a date in another order needs time_format, for example \"%d/%m/%Y %H:%M:%S%.f\"",
            _ if of_half_days(text) => "; a clock of twelve hours needs time_format, for example \"%I:%M:%S%.f %p\"",
            _ => "",
        };
        format!(
            "{found} is not a time, expected a number, an ISO 8601 time such as 2024-01-31T12:00:00.25Z or a time of day \
             such as 12:00:00.25{hint}"
        )
    }
}

/// Checks that `format` is a strftime format of chrono.
pub(crate) fn check_format(format: &str) -> Result<(), String> {
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    let says = |item: &Item| matches!(item, Item::Numeric(..) | Item::Fixed(_));
    if items.iter().any(|item| matches!(item, Item::Error)) || !items.iter().any(says) {
        return Err(format!(
            "time_format is {format:?}, expected a format of strftime such as \"%d/%m/%Y %H:%M:%S%.f\""
        ));
    }
    Ok(())
}

/// The unit of a number of this size, where no unit is given.
fn by_size(size: f64) -> Option<TimeUnit> {
    if size.abs() < EPOCH_FROM {
        return Some(TimeUnit::S);
    }
    UNITS.into_iter().find(|unit| EPOCH_SECONDS.contains(&(size * 10f64.powi(unit.zeros() as i32 - 9))))
}

/// A plain decimal number times ten to the `zeros`, rounded; `None` if it is something else or too great.
fn decimal(text: &[u8], zeros: u32) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let point = digits.iter().position(|&b| b == b'.').unwrap_or(digits.len());
    let (whole, part) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let digit = |b: &u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
    let mut value = 0i64;
    for b in whole {
        value = value.checked_mul(10)?.checked_add(digit(b)?)?;
    }
    for at in 0..zeros as usize {
        value = value.checked_mul(10)?.checked_add(part.get(at).map_or(Some(0), digit)?)?;
    }
    let beyond = part.get(zeros as usize..).unwrap_or_default();
    if !beyond.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if beyond.first().is_some_and(|&b| b >= b'5') {
        value = value.checked_add(1)?;
    }
    Some(if negative { -value } else { value })
}

/// Whether `text` ends with AM or PM.
fn of_half_days(text: &[u8]) -> bool {
    let end = text.get(text.len().saturating_sub(2)..).unwrap_or_default();
    [b"am", b"pm"].iter().any(|half| end.eq_ignore_ascii_case(*half))
}

/// A whole number of exactly these digits.
fn digits(text: &[u8]) -> Option<i64> {
    let number = |sum: i64, b: &u8| b.is_ascii_digit().then(|| 10 * sum + i64::from(b - b'0'));
    (!text.is_empty() && text.len() <= 9).then_some(())?;
    text.iter().try_fold(0, number)
}

/// The nanoseconds since 1970 of an ISO 8601 time; without a zone it is taken as UTC, without a time as midnight.
/// `None` for other text; `Some(None)` for a year whose nanoseconds do not fit into 64 bits.
fn iso(text: &[u8]) -> Option<Option<i64>> {
    let separator = *text.get(4)?;
    let (date, rest) = match separator {
        b'-' | b'/' => text.split_at_checked(10)?,
        _ => text.split_at_checked(8)?,
    };
    let (year, month, day) = match separator {
        b'-' | b'/' if date[7] == separator => (&date[..4], &date[5..7], &date[8..]),
        b'-' | b'/' => return None,
        // The form without separators differs from a number by its T.
        _ if rest.first() == Some(&b'T') => (&date[..4], &date[4..6], &date[6..]),
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(digits(year)? as i32, digits(month)? as u32, digits(day)? as u32)?;
    let midnight = i64::from(date.num_days_from_ce() - 719_163).checked_mul(DAY);
    let (time, offset) = match rest {
        [] => (0, 0),
        [b'T' | b't' | b' ', clock @ ..] => {
            let end = clock.iter().position(|b| !b"0123456789:.,".contains(b)).unwrap_or(clock.len());
            let (clock, zone) = clock.split_at(end);
            let time = match clock.contains(&b':') {
                true => clock_time(clock, false)?,
                false => clock_time(&with_colons(clock)?, false)?,
            };
            (time, offset(zone)?)
        }
        _ => return None,
    };
    (time < DAY + SECOND).then(|| midnight?.checked_add(time)?.checked_sub(offset))
}

/// `121530.5` as `12:15:30.5`.
fn with_colons(clock: &[u8]) -> Option<Vec<u8>> {
    let (hours, minutes) = (clock.get(..2)?, clock.get(2..4)?);
    let seconds = clock.get(4..).filter(|s| !s.is_empty()).unwrap_or(b"00");
    Some([hours, minutes, seconds].join(&b':'))
}

/// The offset of a zone from UTC in nanoseconds; no zone is UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let zone = zone.trim_ascii();
    if [&b""[..], b"Z", b"z", b"UTC", b"GMT"].contains(&zone) {
        return Some(0);
    }
    let (sign, zone) = match zone {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match zone {
        [h1, h2] => ([*h1, *h2], [b'0', b'0']),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => ([*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let (hours, minutes) = (digits(&hours)?, digits(&minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * HOUR + minutes * 60 * SECOND))
}

/// The nanoseconds since midnight of `12:15:30`, with a fraction after a point or a comma, or milliseconds after a
/// colon; since midnight in UTC where a zone follows.
fn time_of_day(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b"T").unwrap_or(text);
    let end = text.iter().position(|b| !b"0123456789:.,".contains(b)).unwrap_or(text.len());
    let (clock, zone) = text.split_at(end);
    let time = clock_time(clock, true)?;
    match zone {
        [] => Some(time),
        zone => (time < DAY + SECOND).then_some((time - offset(zone)?).rem_euclid(DAY)),
    }
}

/// The same, and also `12:15` if not `seconds_needed`. More than 23 hours, as a stopwatch shows, are only accepted
/// without a date.
fn clock_time(text: &[u8], seconds_needed: bool) -> Option<i64> {
    let mut parts = text.splitn(3, |&b| b == b':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next());
    if seconds.is_none() && seconds_needed || hours.len() > if seconds_needed { 4 } else { 2 } || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let rest = seconds.unwrap_or(b"00");
    let end = rest.iter().position(|b| b".,:".contains(b)).unwrap_or(rest.len());
    let (whole, fraction) = (&rest[..end], rest.get(end + 1..));
    let ns = match (rest.get(end), fraction) {
        (Some(b':'), Some(ms)) if ms.len() <= 3 => digits(ms)? * (SECOND / 1000),
        (Some(b':'), _) => return None,
        (_, Some(fraction)) if !fraction.is_empty() => decimal(&[&b"0."[..], fraction].concat(), 9)?,
        (_, Some(_)) => return None,
        (_, None) => 0,
    };
    let seconds = digits(whole).filter(|_| whole.len() == 2)?;
    // 60 is a leap second.
    let fits = minutes < 60 && seconds <= 60 && (seconds_needed || hours < 24);
    fits.then_some(hours * HOUR + (60 * minutes + seconds) * SECOND + ns)
}

/// The time in `text`, read as `format`.
fn by_format(text: &str, format: &str) -> Result<Option<Stamp>, String> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(format)).map_err(|e| e.to_string())?;
    let naive = |parsed: &Parsed| {
        let at = parsed.to_naive_datetime_with_offset(0).or_else(|e| match parsed.to_naive_date() {
            Ok(date) if parsed.hour_div_12().is_none() => Ok(date.and_time(chrono::NaiveTime::MIN)),
            _ => Err(e),
        });
        at.map(|at| at.and_utc())
    };
    let at = match parsed.offset() {
        Some(_) => parsed.to_datetime().map(|at| at.to_utc()),
        None => naive(&parsed),
    };
    match (at, parsed.to_naive_time()) {
        (Ok(at), _) => Ok(at.timestamp_nanos_opt().map(|ns| Stamp { ns, of_day: false })),
        (Err(_), Ok(time)) => {
            let ns = i64::from(time.num_seconds_from_midnight()) * SECOND + i64::from(time.nanosecond());
            Ok(Some(Stamp { ns, of_day: true }))
        }
        (Err(e), Err(_)) => Err(e.to_string()),
    }
}

/// Turns times of day of one recording into ascending times, past midnight.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Midnight {
    day: i64,
    last: Option<i64>,
}

impl Midnight {
    /// The time of `stamp`, a day later for each midnight that has passed. A step back by more than half a day means
    /// that midnight has passed.
    pub fn pass(&mut self, stamp: Stamp) -> i64 {
        if !stamp.of_day {
            return stamp.ns;
        }
        let mut at = stamp.ns + self.day * DAY;
        if let Some(last) = self.last {
            let midnight = self.day * DAY;
            if last - at > DAY / 2 {
                self.day += 1;
                at += DAY;
            } else if self.day > 0 && last - midnight < HOUR && midnight + DAY - at < HOUR {
                // Out of order around midnight: the day before.
                return at - DAY;
            }
        }
        self.last = Some(at);
        at
    }
}

/// A number of nanoseconds for messages: `20 ms`.
pub(super) fn duration(ns: f64) -> Cow<'static, str> {
    if ns == 0.0 {
        return "0 s".into();
    }
    let unit = UNITS.into_iter().find(|unit| ns.abs() >= 10f64.powi(unit.zeros() as i32)).unwrap_or(TimeUnit::Ns);
    let value = ns / 10f64.powi(unit.zeros() as i32);
    format!("{} {}", (value * 1e3).round() / 1e3, unit.name()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_may_have_a_zone() {
        let hour = |text: &str| {
            let stamp = Clock::new(TimeUnit::Auto, None).unwrap().read(text.as_bytes()).unwrap();
            (stamp.of_day, stamp.ns as f64 / HOUR as f64)
        };
        for (text, hours) in [
            ("12:15:00", 12.25),
            ("T12:15:00", 12.25),
            ("12:15:00Z", 12.25),
            ("12:15:00.000 +02:00", 10.25),
            ("01:15:00+0200", 23.25),
            ("23:15:00,0-01", 0.25),
            ("100:00:00", 100.0),
        ] {
            assert_eq!(hour(text), (true, hours), "{text}");
        }
        let wrong = |text: &str| Clock::new(TimeUnit::Auto, None).unwrap().read(text.as_bytes()).unwrap_err();
        assert!(wrong("10:00:00.5 PM").contains("%I:%M:%S%.f %p"));
        assert!(wrong("1/31/2024 10:00:00 am").contains("%m/%d/%Y %I:%M:%S%.f %p"));
        assert!(wrong("100:00:00Z").contains("is not a time") && wrong("10:00:00 CET").contains("is not a time"));
    }

    #[test]
    fn a_name_may_say_the_unit() {
        for (name, unit) in [
            ("t_ms", Some(TimeUnit::Ms)),
            ("Time [ms]", Some(TimeUnit::Ms)),
            ("elapsed (µs)", Some(TimeUnit::Us)),
            ("NS", Some(TimeUnit::Ns)),
            ("timestamp", None),
            ("items", None),
            ("t (s)", None),
        ] {
            assert_eq!(TimeUnit::in_name(name), unit, "{name}");
        }
    }
    use proptest::prelude::*;

    fn auto(text: &str) -> Result<Stamp, String> {
        Clock::new(TimeUnit::Auto, None).unwrap().read(text.as_bytes())
    }

    #[test]
    fn epoch_times_are_told_apart_by_size_and_keep_their_digits() {
        let ns = 1_712_628_600_250_000_001;
        for (text, expected) in [
            ("1712628600.250000001", ns),
            ("1712628600250.000001", ns),
            ("1712628600250000.001", ns),
            ("1712628600250000001", ns),
            ("1712628600", ns / SECOND * SECOND),
            ("0.02", 20_000_000),
            ("-1.5", -1_500_000_000),
            ("+.25", 250_000_000),
            ("1e-3", 1_000_000),
            ("0.0000000015", 2),
        ] {
            assert_eq!(auto(text), Ok(Stamp { ns: expected, of_day: false }), "{text}");
        }
        for text in ["123456789012345", "100000000", "9e18", "-123456789012"] {
            assert!(auto(text).unwrap_err().contains("time_unit"), "{text}");
        }
        let us = Clock::new(TimeUnit::Us, None).unwrap();
        assert_eq!(us.read(b"123456789012345.678").unwrap().ns, 123_456_789_012_345_678);
        for far in ["1e17", "9223372036854775.807", "-5e15"] {
            assert!(us.read(far.as_bytes()).unwrap_err().contains("too far away"), "{far}");
        }
    }

    #[test]
    fn iso_times_have_zones_and_fractions() {
        let noon = 1_706_702_400 * SECOND;
        for (text, after_noon) in [
            ("2024-01-31T12:00:00Z", 0),
            ("2024-01-31 12:00:00", 0),
            ("2024/01/31 12:00", 0),
            ("2024-01-31T12:00:00.000000001", 1),
            ("2024-01-31T12:00:00,25", 250_000_000),
            ("2024-01-31T14:00:00+02:00", 0),
            ("2024-01-31T06:30:00-0530", 0),
            ("2024-01-31 11:00:00 -01", 0),
            ("2024-01-31 12:00:00 UTC", 0),
            ("20240131T120000.5Z", SECOND / 2),
            ("2024-01-31", -12 * HOUR),
            ("2024-01-31T11:59:60", 0),
        ] {
            assert_eq!(auto(text), Ok(Stamp { ns: noon + after_noon, of_day: false }), "{text}");
        }
        for text in ["2024-13-01", "2024-02-30", "2024-01-31T25:00:00", "2024-01-31T12:61", "2024-01-31x", "2024-01/31"]
        {
            assert!(auto(text).unwrap_err().contains("not a time"), "{text}");
        }
        assert!(auto("9999-01-31").unwrap_err().contains("too far away"));
        let ms = Clock::new(TimeUnit::Ms, None).unwrap();
        assert!(ms.read(b"2024-01-31").unwrap_err().contains("number of ms; without time_unit"));
    }

    #[test]
    fn times_of_day_go_on_after_midnight() {
        let day = |text: &str| auto(text).map(|s| (s.ns, s.of_day));
        assert_eq!(day("00:00:01.5"), Ok((1_500_000_000, true)));
        assert_eq!(day("00:00:01:020"), Ok((1_020_000_000, true)));
        assert_eq!(day("1:02:03"), Ok((3723 * SECOND, true)));
        for text in ["12:00", "12:60:00", "12:00:61", "12:00:0", "12:00:00:1234", "12:00:00."] {
            assert!(day(text).is_err(), "{text}");
        }
        let mut midnight = Midnight::default();
        let mut pass = |text: &str| midnight.pass(auto(text).unwrap()) / SECOND;
        let times = ["08:00:00", "23:59:58", "00:00:01", "23:59:59", "00:00:02", "13:00:00", "00:30:00"].map(&mut pass);
        assert_eq!(times, [28_800, 86_398, 86_401, 86_399, 86_402, 133_200, 174_600]);
    }

    #[test]
    fn other_forms_need_a_format() {
        assert!(auto("31/01/2024 12:00:00").unwrap_err().contains("time_format"));
        let read = |format: &str, text: &str| Clock::new(TimeUnit::Auto, Some(format)).unwrap().read(text.as_bytes());
        let noon = Stamp { ns: 1_706_702_400 * SECOND, of_day: false };
        assert_eq!(read("%d/%m/%Y %H:%M:%S%.f", "31/01/2024 12:00:00.000"), Ok(noon));
        assert_eq!(read("%m/%d/%Y %I:%M %p", "01/31/2024 12:00 PM"), Ok(noon));
        assert_eq!(read("%d.%m.%Y %H:%M %z", "31.01.2024 13:00 +0100"), Ok(noon));
        assert_eq!(read("%d.%m.%Y", "31.01.2024"), Ok(Stamp { ns: noon.ns - 12 * HOUR, of_day: false }));
        assert_eq!(read("%Hh%Mm%S", "00h01m02"), Ok(Stamp { ns: 62 * SECOND, of_day: true }));
        assert!(read("%d/%m/%Y", "01/31/2024").unwrap_err().contains("\"%d/%m/%Y\""));
        assert!(read("%d/%m/%Y %H", "31/01/2024").is_err());
        for format in ["%Q", "", "today"] {
            assert_eq!(Clock::new(TimeUnit::Auto, Some(format)).unwrap_err().kind(), crate::Kind::Config, "{format}");
        }
    }

    #[test]
    fn durations_are_shown_in_their_unit() {
        let shown = [2e7, 1.5e9, 5_000.0, 0.0, 39_062.5, 3.0].map(duration);
        assert_eq!(shown, ["20 ms", "1.5 s", "5 us", "0 s", "39.063 us", "3 ns"]);
    }

    proptest! {
        #[test]
        fn anything_is_a_time_or_says_what_is_accepted(text in "[0-9T:/. +Z,e-]{0,24}|\\PC{0,12}") {
            if let Err(reason) = auto(&text) {
                prop_assert!(reason.contains("expected") || reason.contains("time_unit"));
            }
        }
    }
}
