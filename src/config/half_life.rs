//! Half-lives, written as `"5000 rows"`, `"20 batches"` or `"2 h"`.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::kmeans::HalfLife;
use crate::source::Span;

/// After how much a row counts half of what it counted at first: a number of rows or of batches, or a time span.
///
/// ```
/// use dacpipe::config::HalfLifeSetting;
/// use dacpipe::kmeans::HalfLife;
/// let read = |text: &str| text.parse::<HalfLifeSetting>().map(HalfLife::from);
/// assert_eq!(read("5000 rows"), Ok(HalfLife::Rows(5000.0)));
/// assert_eq!(read("1.5 batches"), Ok(HalfLife::Batches(1.5)));
/// assert_eq!(read("2 h"), Ok(HalfLife::Time(7_200_000_000_000)));
/// assert!(read("0 rows").unwrap_err().contains("above 0"));
/// assert!(read("5000").is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum HalfLifeSetting {
    /// So many rows.
    Rows(f64),
    /// So many batches.
    Batches(f64),
    /// So much time.
    Time(Span),
}

impl HalfLifeSetting {
    /// Its JSON Schema format.
    pub(super) const FORMAT: &'static str = "half-life";
    /// What is accepted, in words.
    pub(super) const ACCEPTED: &'static str = "a half-life such as \"5000 rows\" or \"20 batches\"";
}

impl FromStr for HalfLifeSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a half-life; write \"5000 rows\", \"20 batches\" or a time such as \"2 h\"");
        let trimmed = text.trim();
        let number = trimmed.trim_end_matches(char::is_alphabetic);
        let count = || number.trim().parse().map_err(|_| wrong());
        let setting = match &trimmed[number.len()..] {
            "row" | "rows" => Self::Rows(count()?),
            "batch" | "batches" => Self::Batches(count()?),
            _ => Self::Time(trimmed.parse().map_err(|_| wrong())?),
        };
        match setting {
            Self::Rows(number) | Self::Batches(number) if !number.is_finite() => Err(wrong()),
            Self::Rows(number) | Self::Batches(number) if number <= 0.0 => Err(not_positive(text)),
            Self::Time(span) if span.nanoseconds() == 0 => Err(not_positive(text)),
            setting => Ok(setting),
        }
    }
}

fn not_positive(text: &str) -> String {
    format!(
        "a half-life of {text:?} forgets everything at once; a number above 0, or leave the key out to forget nothing"
    )
}

impl fmt::Display for HalfLifeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(number) => write!(f, "{number} rows"),
            Self::Batches(number) => write!(f, "{number} batches"),
            Self::Time(span) => span.fmt(f),
        }
    }
}

impl From<HalfLifeSetting> for String {
    fn from(setting: HalfLifeSetting) -> Self {
        setting.to_string()
    }
}

impl TryFrom<String> for HalfLifeSetting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HalfLifeSetting> for HalfLife {
    fn from(setting: HalfLifeSetting) -> Self {
        match setting {
            HalfLifeSetting::Rows(number) => Self::Rows(number),
            HalfLifeSetting::Batches(number) => Self::Batches(number),
            HalfLifeSetting::Time(span) => Self::Time(span.nanoseconds()),
        }
    }
}

impl JsonSchema for HalfLifeSetting {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HalfLife".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": Self::FORMAT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_reads_back() {
        for (text, read, shown) in [
            ("5000 rows", HalfLife::Rows(5000.0), "5000 rows"),
            ("1row", HalfLife::Rows(1.0), "1 rows"),
            (" 2.5  batches ", HalfLife::Batches(2.5), "2.5 batches"),
            ("1 batch", HalfLife::Batches(1.0), "1 batches"),
            ("1e6 rows", HalfLife::Rows(1e6), "1000000 rows"),
            ("90 min", HalfLife::Time(5_400_000_000_000), "90 min"),
        ] {
            let setting: HalfLifeSetting = text.parse().unwrap();
            assert_eq!((HalfLife::from(setting), setting.to_string().as_str()), (read, shown));
            assert_eq!(shown.parse(), Ok(setting));
        }
        for wrong in ["", "rows", "5000", "5 columns", "NaN rows", "inf batches", "1,5 rows", "-1 h", "1 row 2"] {
            let e = wrong.parse::<HalfLifeSetting>().unwrap_err();
            assert!(e.contains("is not a half-life; write \"5000 rows\""), "{wrong}: {e}");
        }
        for zero in ["0 rows", "-2 batches", "0 h", "-0.0 rows"] {
            let e = zero.parse::<HalfLifeSetting>().unwrap_err();
            assert!(e.contains("forgets everything at once; a number above 0"), "{zero}: {e}");
        }
    }
}
