//! Columns that a source carries along to the table without learning from them, and how their values over a window
//! become one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bad::shown;
use super::saved::nan_as_null;
use super::text::number;

/// What a column of numbers may contain instead of a missing value, beside an empty field.
const MISSING: [&str; 9] = ["NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "-", "?"];

/// A column that is carried along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Its name in the source.
    pub column: String,
    /// How its values over a window become one.
    #[serde(default)]
    pub aggregate: Aggregate,
    /// Its name in the table; its name in the source if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a window says of the values of its samples. Missing values do not count for mode, mean, min and max.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// The first, as it is written.
    #[default]
    First,
    /// The last, as it is written.
    Last,
    /// The one that most samples have, as it is written; of several, the one that comes first. The share of the samples
    /// that have it is in a column of its own, whose name has _share behind it.
    Mode,
    /// The mean of numbers.
    Mean,
    /// The least of numbers.
    Min,
    /// The greatest of numbers.
    Max,
}

impl Aggregate {
    /// Whether it needs numbers.
    pub fn is_of_numbers(self) -> bool {
        matches!(self, Self::Mean | Self::Min | Self::Max)
    }
}

/// The name of the column with the share of a window's samples that have the most frequent value, which is in column
/// `mode`.
pub fn share_of(mode: &str) -> String {
    format!("{mode}_share")
}

/// The column of shares beside column `mode` of most frequent values.
pub(super) fn share_field(mode: &str) -> Field {
    Field::new(share_of(mode), DataType::Float64, true)
}

impl Keep {
    /// Column `column` under its own name, with the first value of each window.
    pub fn new(column: impl Into<String>) -> Self {
        Self { column: column.into(), aggregate: Aggregate::default(), name: None }
    }

    /// Its name in the table.
    pub fn name(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.column)
    }

    /// Its columns in the table: text, numbers as `Float64`; nullable.
    pub(super) fn fields(&self) -> Vec<Field> {
        let data_type = if self.aggregate.is_of_numbers() { DataType::Float64 } else { DataType::Utf8 };
        let value = Field::new(self.name(), data_type, true);
        match self.aggregate {
            Aggregate::Mode => vec![value, share_field(self.name())],
            _ => vec![value],
        }
    }

    /// Reads the value `text` of a sample into `cell`, or says what is wrong with it.
    pub(super) fn read(&self, text: &str, cell: &mut Cell) -> Result<(), String> {
        if !self.aggregate.is_of_numbers() {
            match cell {
                Cell::Text(into) if !text.is_empty() => {
                    into.clear();
                    into.push_str(text);
                }
                _ if text.is_empty() => *cell = Cell::Missing,
                _ => *cell = Cell::Text(text.into()),
            }
            return Ok(());
        }
        *cell = match text {
            "" => Cell::Missing,
            text if MISSING.contains(&text) => Cell::Missing,
            text => Cell::Number(number(text.as_bytes()).map_err(|_| {
                let (column, found) = (&self.column, shown(text.as_bytes()));
                format!(
                    "column {column:?}, of which a mean, least or greatest value is kept: {found} is not a finite number; \
                     expected one, or nothing"
                )
            })?),
        };
        Ok(())
    }
}

/// The value of one sample in a column that is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) enum Cell {
    #[default]
    Missing,
    Number(f64),
    Text(String),
}

/// The values of a recording in a column that is kept: numbers or text, as its aggregate needs. Values that are not set
/// are missing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Values {
    /// NaN where a value is missing; values after the last one are missing, too.
    #[serde(with = "nan_as_null")]
    numbers: Vec<f64>,
    text: Runs,
}

impl Values {
    /// Sets the value of sample `at`, which comes after all those that were set.
    pub(super) fn set(&mut self, at: usize, cell: &Cell) {
        match cell {
            Cell::Missing => {}
            Cell::Number(value) => {
                self.numbers.resize(at, f64::NAN);
                self.numbers.push(*value);
            }
            Cell::Text(text) => self.text.set(at, text),
        }
    }

    /// Sets the value of sample `at`, which comes after all those that were set, to the value of sample `from` of
    /// `other`.
    pub(super) fn set_from(&mut self, at: usize, other: &Values, from: usize) {
        if let Some(&number) = other.numbers.get(from) {
            self.set(at, &Cell::Number(number));
        }
        if let Some(text) = other.text.at(from) {
            self.text.set(at, text);
        }
    }

    /// Splits off the values of the samples from `at` on, counted from there.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let place = self.text.place(at);
        let mut behind = self.text.0.split_off(place);
        if let Some((_, value)) = behind.first() {
            // A run that reaches across `at` is in both parts.
            let begin = self.text.0.last().map_or(0, |(end, _)| *end);
            if begin < at {
                self.text.0.push((at, value.clone()));
            }
        }
        behind.iter_mut().for_each(|(end, _)| *end -= at);
        Self { numbers: self.numbers.split_off(at.min(self.numbers.len())), text: Runs(behind) }
    }
}

/// A most frequent value, and the share of the samples that have it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mode {
    pub(super) value: Arc<str>,
    pub(super) share: f64,
}

impl Mode {
    /// The most frequent value of `runs` of equal values, each with its number of samples, out of `samples` in all.
    pub(super) fn of<'a>(runs: impl Iterator<Item = (&'a Arc<str>, usize)>, samples: usize) -> Option<Self> {
        let mut counts: Vec<(&Arc<str>, usize)> = Vec::new();
        let mut places: HashMap<&Arc<str>, usize> = HashMap::new();
        for (value, count) in runs.filter(|(_, count)| *count > 0) {
            let place = *places.entry(value).or_insert(counts.len());
            match counts.get_mut(place) {
                Some((_, sum)) => *sum += count,
                None => counts.push((value, count)),
            }
        }
        // On a tie the first counts, and `max_by_key` takes the last.
        let (value, count) = counts.into_iter().rev().max_by_key(|(_, count)| *count)?;
        Some(Self { value: value.clone(), share: count as f64 / samples.max(1) as f64 })
    }
}

impl Keep {
    /// Its columns for `windows`, each given as the values of a recording and the range of its samples.
    pub(super) fn arrays<'a>(&self, windows: impl Iterator<Item = (&'a Values, Range<usize>)>) -> Vec<ArrayRef> {
        let numbers = |(values, window): (&'a Values, Range<usize>)| {
            values.numbers.iter().copied().take(window.end).skip(window.start).filter(|value| !value.is_nan())
        };
        let mean = |numbers: &mut dyn Iterator<Item = f64>| {
            let (count, sum) = numbers.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
            (count > 0).then(|| sum / count as f64)
        };
        let of_numbers = |found: &mut dyn Iterator<Item = Option<f64>>| -> Vec<ArrayRef> {
            vec![Arc::new(found.collect::<Float64Array>())]
        };
        let of_text = |found: &mut dyn Iterator<Item = Option<&'a Arc<str>>>| -> Vec<ArrayRef> {
            vec![Arc::new(found.map(Option::<&Arc<str>>::cloned).collect::<StringArray>())]
        };
        match self.aggregate {
            Aggregate::First => of_text(&mut windows.map(|(values, window)| values.text.at(window.start))),
            Aggregate::Last => of_text(&mut windows.map(|(values, window)| values.text.at(window.end - 1))),
            Aggregate::Mode => {
                let mode = |(values, window): (&'a Values, Range<usize>)| {
                    let samples = window.len();
                    Mode::of(values.text.within(window), samples)
                };
                let modes: Vec<Option<Mode>> = windows.map(mode).collect();
                let values: StringArray = modes.iter().map(|mode| mode.as_ref().map(|mode| &*mode.value)).collect();
                let shares: Float64Array = modes.iter().map(|mode| mode.as_ref().map(|mode| mode.share)).collect();
                vec![Arc::new(values), Arc::new(shares)]
            }
            Aggregate::Mean => of_numbers(&mut windows.map(|window| mean(&mut numbers(window)))),
            Aggregate::Min => of_numbers(&mut windows.map(|window| numbers(window).reduce(f64::min))),
            Aggregate::Max => of_numbers(&mut windows.map(|window| numbers(window).reduce(f64::max))),
        }
    }
}

/// Text that often repeats, as runs: the end of each run and its value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(usize, Option<String>)>", into = "Vec<(usize, Option<String>)>")]
struct Runs(Vec<(usize, Option<Arc<str>>)>);

impl From<Vec<(usize, Option<String>)>> for Runs {
    fn from(runs: Vec<(usize, Option<String>)>) -> Self {
        Self(runs.into_iter().map(|(end, value)| (end, value.map(Into::into))).collect())
    }
}

impl From<Runs> for Vec<(usize, Option<String>)> {
    fn from(Runs(runs): Runs) -> Self {
        runs.into_iter().map(|(end, value)| (end, value.map(|value| value.to_string()))).collect()
    }
}

impl Runs {
    fn set(&mut self, at: usize, value: &str) {
        if self.0.last().map_or(0, |(end, _)| *end) < at {
            self.0.push((at, None));
        }
        match self.0.last_mut() {
            Some((end, same)) if same.as_deref() == Some(value) => *end = at + 1,
            _ => self.0.push((at + 1, Some(value.into()))),
        }
    }

    /// The index of the run that sample `at` is in.
    fn place(&self, at: usize) -> usize {
        self.0.partition_point(|(end, _)| *end <= at)
    }

    fn at(&self, at: usize) -> Option<&Arc<str>> {
        self.0.get(self.place(at)).and_then(|(_, value)| value.as_ref())
    }

    /// The runs of equal values in `window`, each with its number of samples.
    fn within(&self, window: Range<usize>) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let runs = self.0[self.place(window.start)..].iter().scan(window.start, move |from, (to, value)| {
            let (begin, stop) = (*from, window.end.min(*to));
            *from = stop;
            (begin < window.end).then(|| (value, stop - begin))
        });
        runs.filter_map(|(value, count)| Some((value.as_ref()?, count)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    use super::*;

    fn keep(aggregate: Aggregate) -> Keep {
        Keep { aggregate, ..Keep::new("load") }
    }

    /// The columns that `aggregate` makes of windows of `texts`.
    fn said(aggregate: Aggregate, texts: &[&str], windows: &[Range<usize>]) -> Vec<ArrayRef> {
        let keep = keep(aggregate);
        let (mut values, mut cell) = (Values::default(), Cell::default());
        for (at, text) in texts.iter().enumerate() {
            keep.read(text, &mut cell).unwrap();
            values.set(at, &cell);
        }
        keep.arrays(windows.iter().map(|window| (&values, window.clone())))
    }

    fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
        array.as_string::<i32>().iter().collect()
    }

    fn numbers(array: &ArrayRef) -> Vec<Option<f64>> {
        array.as_primitive::<Float64Type>().iter().collect()
    }

    #[test]
    fn text_stays_as_it_is_written() {
        let values = ["007", "007", "", "1.50", "b"];
        let windows = [0..2, 1..3, 2..4, 3..5];
        assert_eq!(
            texts(&said(Aggregate::First, &values, &windows)[0]),
            [Some("007"), Some("007"), None, Some("1.50")]
        );
        assert_eq!(texts(&said(Aggregate::Last, &values, &windows)[0]), [Some("007"), None, Some("1.50"), Some("b")]);
    }

    #[test]
    fn a_mode_comes_with_its_share() {
        let values = ["b", "a", "a", "b", "", "", "", "c"];
        // On a tie, the one that comes first. Missing values are not counted as values, but as samples.
        let said = said(Aggregate::Mode, &values, &[0..4, 1..4, 3..8, 4..7]);
        assert_eq!(texts(&said[0]), [Some("b"), Some("a"), Some("b"), None]);
        assert_eq!(numbers(&said[1]), [Some(0.5), Some(2.0 / 3.0), Some(0.2), None]);
    }

    #[test]
    fn numbers_that_are_missing_do_not_count() {
        let values = ["1", "", "4.5", "NaN", "n/a", "-2"];
        let windows = [0..3, 3..5, 2..6, 1..2];
        let of = |aggregate| numbers(&said(aggregate, &values, &windows)[0]);
        assert_eq!(of(Aggregate::Mean), [Some(2.75), None, Some(1.25), None]);
        assert_eq!(of(Aggregate::Min), [Some(1.0), None, Some(-2.0), None]);
        assert_eq!(of(Aggregate::Max), [Some(4.5), None, Some(4.5), None]);
        assert_eq!(said(Aggregate::Mean, &values, &windows)[0].null_count(), 2);
    }

    #[test]
    fn values_are_parted_and_picked() {
        let (first, mode, mean) = (keep(Aggregate::First), keep(Aggregate::Mode), keep(Aggregate::Mean));
        for at in 0..=6 {
            let (mut texts_of, mut numbers_of) = (Values::default(), Values::default());
            for (place, text) in ["1", "1", "1", "", "2", "2"].iter().enumerate() {
                let mut cell = Cell::default();
                first.read(text, &mut cell).unwrap();
                texts_of.set(place, &cell);
                mean.read(text, &mut cell).unwrap();
                numbers_of.set(place, &cell);
            }
            let mut picked = Values::default();
            for (to, from) in (0..6).rev().enumerate() {
                picked.set_from(to, &texts_of, from);
            }
            assert_eq!(texts(&mode.arrays([(&picked, 0..3)].into_iter())[0]), [Some("2")]);
            let (texts_behind, numbers_behind) = (texts_of.split_off(at), numbers_of.split_off(at));
            for sample in 0..6 {
                let (text, number, place) = match sample < at {
                    true => (&texts_of, &numbers_of, sample),
                    false => (&texts_behind, &numbers_behind, sample - at),
                };
                let expected = [Some("1"), Some("1"), Some("1"), None, Some("2"), Some("2")][sample];
                assert_eq!(
                    texts(&first.arrays([(text, place..place + 1)].into_iter())[0]),
                    [expected],
                    "{at} {sample}"
                );
                let expected = expected.map(|text| text.parse().unwrap());
                assert_eq!(numbers(&mean.arrays([(number, place..place + 1)].into_iter())[0]), [expected]);
            }
        }
    }

    #[test]
    fn text_has_no_mean() {
        let reason = keep(Aggregate::Mean).read("high", &mut Cell::default()).unwrap_err();
        assert!(reason.contains("\"load\"") && reason.contains("\"high\" is not a finite number"), "{reason}");
        assert_eq!(keep(Aggregate::Mode).read("high", &mut Cell::default()), Ok(()));
    }
}
