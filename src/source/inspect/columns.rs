//! Describes the values of a column.

use std::collections::HashMap;

use crate::source::bad::shown;
use crate::source::clock::{Clock, TimeUnit};
use crate::source::csv::guess::is_missing;

/// The most different values that are counted.
const DISTINCT: usize = 1000;
/// Formats of dates and times that are tried for text that is not an ISO 8601 time.
const FORMATS: [&str; 12] = [
    "%d/%m/%Y %H:%M:%S%.f",
    "%m/%d/%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d-%m-%Y %H:%M:%S%.f",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y %H:%M",
    "%d-%m-%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%d-%b-%Y %H:%M:%S%.f",
    "%d %b %Y %H:%M:%S%.f",
    "%a %b %d %H:%M:%S %Y",
];

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// All are missing.
    Empty,
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// ISO 8601 times, times of day, or dates and times in another order.
    Time,
    /// Anything else.
    Text,
    /// Lists of numbers.
    List,
    /// Types that no source reads.
    Other,
}

impl ColumnKind {
    /// Its name for display.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Time => "time",
            Self::Text => "text",
            Self::List => "list",
            Self::Other => "other",
        }
    }
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Column {
    /// Its name in a pipeline: its name in the file, or its position (`column_3`) if it has no unique name.
    pub name: String,
    /// What its values are.
    pub kind: ColumnKind,
    /// Its use in the suggested section: "time", "key", "label", "split", "channel", "feature"; empty if it is not
    /// used.
    pub role: String,
    /// Values that are missing.
    pub missing: usize,
    /// Different values, up to a thousand.
    pub distinct: usize,
    /// A summary: the least and the greatest value, or the most frequent ones.
    pub values: String,
    /// The format of times, if a pipeline has to give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_format: Option<&'static str>,
    /// The most frequent values.
    #[serde(skip)]
    pub(super) frequent: Vec<String>,
    /// Stretches of rows with the same value.
    #[serde(skip)]
    pub(super) runs: usize,
    /// Whether each value is that of the row before plus one.
    #[serde(skip)]
    pub(super) counts_rows: bool,
    /// The fraction of the rows whose value is not below the one before.
    #[serde(skip)]
    pub(super) rising: f64,
}

impl Column {
    /// The column `name` with these `values`; `number` reads a number.
    pub(super) fn of<'a>(
        name: &str,
        values: impl Iterator<Item = &'a [u8]> + Clone,
        number: impl Fn(&[u8]) -> Option<f64>,
    ) -> Self {
        let clock = Clock::new(TimeUnit::Auto, None).ok();
        let is_time = |clock: &Option<Clock>, value: &[u8]| clock.as_ref().is_some_and(|c| c.read(value).is_ok());
        let mut counts: HashMap<&[u8], usize> = HashMap::new();
        let (mut missing, mut many, mut runs, mut pairs, mut rising, mut by_one) =
            (0, false, 0, 0usize, 0usize, 0usize);
        let (mut numbers, mut integers, mut times, mut all) = (0usize, 0usize, 0usize, 0usize);
        let mut range: Option<(f64, f64)> = None;
        let (mut before, mut number_before): (Option<&[u8]>, Option<f64>) = (None, None);
        for value in values.clone() {
            if is_missing(value) {
                missing += 1;
                continue;
            }
            all += 1;
            runs += usize::from(before != Some(value));
            before = Some(value);
            let room = counts.len() < DISTINCT;
            match counts.get_mut(value) {
                Some(count) => *count += 1,
                None if room => drop(counts.insert(value, 1)),
                None => many = true,
            }
            if let Some(found) = number(value) {
                numbers += 1;
                integers += usize::from(value.iter().all(|b| b.is_ascii_digit() || b"+-".contains(b)));
                range = Some(range.map_or((found, found), |(least, most)| (least.min(found), most.max(found))));
                if let Some(earlier) = number_before {
                    pairs += 1;
                    rising += usize::from(found >= earlier);
                    by_one += usize::from(found - earlier == 1.0);
                }
                number_before = Some(found);
            } else if is_time(&clock, value) {
                times += 1;
            }
        }
        // A few other values are bad rows and do not make another kind of column.
        let mostly = |count: usize| all > 0 && count * 10 >= all * 9;
        let mut kind = match all {
            0 => ColumnKind::Empty,
            _ if mostly(integers) => ColumnKind::Integer,
            _ if mostly(numbers) => ColumnKind::Number,
            _ if mostly(times) => ColumnKind::Time,
            _ => ColumnKind::Text,
        };
        let mut time_format = None;
        if kind == ColumnKind::Text {
            let texts: Vec<&[u8]> = values.filter(|value| !is_missing(value)).take(DISTINCT).collect();
            let reads = |format: &&str| {
                let clock = Clock::new(TimeUnit::Auto, Some(format)).ok();
                texts.iter().filter(|text| is_time(&clock, text)).count() * 10 >= texts.len() * 9
            };
            time_format = FORMATS.into_iter().find(reads);
            kind = if time_format.is_some() { ColumnKind::Time } else { kind };
        }
        let mut frequent: Vec<(&[u8], usize)> = counts.iter().map(|(&value, &count)| (value, count)).collect();
        frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        frequent.truncate(4);
        let described = match (kind, range) {
            (ColumnKind::Integer | ColumnKind::Number, Some((least, most))) => format!("{least} to {most}"),
            (ColumnKind::Empty, _) => String::new(),
            _ => {
                let shown: Vec<String> = frequent.iter().take(3).map(|(value, _)| shown(value)).collect();
                let more = if frequent.len() > 3 { ", …" } else { "" };
                format!("{}{more}", shown.join(", "))
            }
        };
        Self {
            name: name.into(),
            kind,
            values: described,
            missing,
            distinct: counts.len() + usize::from(many),
            role: String::new(),
            time_format,
            frequent: frequent.iter().map(|(value, _)| String::from_utf8_lossy(value).into_owned()).collect(),
            runs,
            counts_rows: pairs > 0 && by_one == pairs,
            rising: if pairs == 0 { 0.0 } else { rising as f64 / pairs as f64 },
        }
    }

    /// Whether it holds numbers.
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self.kind, ColumnKind::Integer | ColumnKind::Number)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A column of numbers with a point.
    pub(in crate::source::inspect) fn column_of(name: &str, values: &[&str]) -> Column {
        Column::of(name, values.iter().map(|v| v.as_bytes()), |v| std::str::from_utf8(v).ok()?.parse().ok())
    }

    fn column(values: &[&str]) -> Column {
        column_of("c", values)
    }

    #[test]
    fn kinds() {
        for (values, kind) in [
            (&["1", "2", "-3"][..], ColumnKind::Integer),
            (&["1", "2.5"], ColumnKind::Number),
            (&["2024-01-31T12:00:00Z", "2024-01-31T12:00:01Z"], ColumnKind::Time),
            (&["12:00:00", "12:00:01"], ColumnKind::Time),
            (&["on", "off", "1"], ColumnKind::Text),
            (&["", "NaN"], ColumnKind::Empty),
        ] {
            assert_eq!(column(values).kind, kind, "{values:?}");
        }
        let one_bad: Vec<String> = (0..20).map(|i| if i == 7 { "?".into() } else { i.to_string() }).collect();
        assert_eq!(column(&one_bad.iter().map(String::as_str).collect::<Vec<_>>()).kind, ColumnKind::Integer);
    }

    #[test]
    fn dates_in_another_order_say_it() {
        let found = column(&["31/01/2024 12:00:00", "31/01/2024 12:00:01.5"]);
        assert_eq!((found.kind, found.time_format), (ColumnKind::Time, Some("%d/%m/%Y %H:%M:%S%.f")));
        assert_eq!(column(&["01/31/2024 12:00:00"]).time_format, Some("%m/%d/%Y %H:%M:%S%.f"));
        assert_eq!(column(&["31.01.2024 12:00"]).time_format, Some("%d.%m.%Y %H:%M"));
        assert_eq!(column(&["2024-01-31 12:00:00"]).time_format, None);
    }

    #[test]
    fn what_values_are_like() {
        let found = column(&["1", "2", "", "3"]);
        assert_eq!((found.values.as_str(), found.missing, found.distinct, found.runs), ("1 to 3", 1, 3, 3));
        assert!(found.counts_rows);
        let found = column(&["b", "b", "a", "b"]);
        assert_eq!((found.values.as_str(), found.runs), (r#""b", "a""#, 3));
    }
}
