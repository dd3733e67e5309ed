//! Time spans, written as `"20 ms"`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A time span in whole nanoseconds, written as a number and a unit.
///
/// ```
/// use dacpipe::source::Span;
/// assert_eq!("20 ms".parse::<Span>().unwrap().nanoseconds(), 20_000_000);
/// assert_eq!("1.5s".parse::<Span>().unwrap().to_string(), "1500 ms");
/// assert!("20".parse::<Span>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Span(i64);

/// The units and their nanoseconds, the greatest first.
const UNITS: [(&str, i64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    /// So many seconds.
    pub const fn of_seconds(seconds: u32) -> Self {
        Self(seconds as i64 * 1_000_000_000)
    }

    /// The number of nanoseconds.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time span; write \"20 ms\" or \"2 min\" (ns, us, ms, s, min, h)");
        let trimmed = text.trim();
        let unit = trimmed.find(|c: char| c.is_alphabetic()).ok_or_else(wrong)?;
        let (number, unit) = trimmed.split_at(unit);
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let nanoseconds = number * *size as f64;
        // Up to some hundred years; NaN is in no range.
        match (0.0..9e18).contains(&nanoseconds) {
            true => Ok(Self(nanoseconds.round() as i64)),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Span {
    /// In the greatest unit in which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, size)| self.0 > 0 && self.0 % size == 0) {
            Some((name, size)) => write!(f, "{} {name}", self.0 / size),
            None => write!(f, "{} ns", self.0),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_reads_back() {
        for (text, nanoseconds, shown) in [
            ("20 ms", 20_000_000, "20 ms"),
            ("0.5s", 500_000_000, "500 ms"),
            (" 2 min ", 120_000_000_000, "2 min"),
            ("1h", 3_600_000_000_000, "1 h"),
            ("90 s", 90_000_000_000, "90 s"),
            ("250us", 250_000, "250 us"),
            ("0 ms", 0, "0 ns"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.nanoseconds(), span.to_string().as_str()), (nanoseconds, shown));
            assert_eq!(shown.parse(), Ok(span));
        }
        for wrong in ["", "20", "ms", "-1 s", "1 year", "1e400 s", "NaN s", "1,5 s", "1 s 2", "inf s"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
