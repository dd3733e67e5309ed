//! Guesses the use of each column by its name and values.

use super::columns::{Column, ColumnKind};

/// Words in the names of columns of times, keys, labels and splits.
const TIMES: &[&str] = &[
    "time",
    "timestamp",
    "zeit",
    "uhrzeit",
    "zeitstempel",
    "date",
    "datetime",
    "datum",
    "ts",
    "t",
    "epoch",
    "seconds",
    "elapsed",
    "clock",
];
const KEYS: &[&str] = &[
    "id",
    "key",
    "machine",
    "maschine",
    "device",
    "user",
    "subject",
    "person",
    "participant",
    "patient",
    "session",
    "experiment",
    "recording",
    "trial",
    "unit",
    "pump",
    "engine",
    "sensor",
    "node",
    "station",
    "site",
    "vehicle",
    "serial",
    "file",
    "ort",
];
const CLASSES: &[&str] = &[
    "label",
    "class",
    "activity",
    "target",
    "klasse",
    "category",
    "state",
    "status",
    "zustand",
    "condition",
    "fault",
    "event",
    "y",
];
const SPLITS: &[&str] = &["split", "set", "part", "partition", "fold", "subset"];
/// Values that name splits.
const PARTS: &[&str] = &["train", "training", "test", "testing", "val", "valid", "validation", "dev"];
/// The most different labels.
const MOST_CLASSES: usize = 50;
/// The least mean number of samples per recording.
const SAMPLES: usize = 8;

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Samples of recordings, in columns with or without names.
    Samples { named: bool },
    /// Feature vectors.
    Vectors,
}

/// The columns that are used, by position.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub time: Option<usize>,
    pub keys: Vec<usize>,
    pub label: Option<usize>,
    pub split: Option<usize>,
    /// Channels of a sensor, or features.
    pub numbers: Vec<usize>,
}

/// Guesses from `count` rows, and sets each column's role.
pub(super) fn roles(columns: &mut [Column], count: usize, rows: Rows) -> Roles {
    let mut found = Roles::default();
    let free = |found: &Roles, at: usize| {
        found.time != Some(at) && found.label != Some(at) && found.split != Some(at) && !found.keys.contains(&at)
    };
    let named = rows != Rows::Samples { named: false };
    if rows != Rows::Vectors {
        found.time = time(columns, count, named);
    }
    found.split = columns.iter().position(|c| {
        let parts = || c.frequent.iter().any(|value| PARTS.contains(&value.to_ascii_lowercase().as_str()));
        c.kind == ColumnKind::Text && (1..=4).contains(&c.distinct) && (says(c, SPLITS) || parts())
    });
    let few = |c: &Column| (2..=MOST_CLASSES).contains(&c.distinct) && c.distinct * 2 <= count.max(4);
    found.label = (0..columns.len()).find(|&at| {
        let c = &columns[at];
        let kind = match named {
            true => says(c, CLASSES) && matches!(c.kind, ColumnKind::Text | ColumnKind::Integer),
            false => c.kind == ColumnKind::Text && c.runs * 4 <= count,
        };
        free(&found, at) && few(c) && kind
    });
    for (at, c) in columns.iter().enumerate() {
        let textual = matches!(c.kind, ColumnKind::Text | ColumnKind::Integer);
        let fits = match rows {
            // Keys have the same value in many rows. Without names, a key comes before the times and is constant over
            // long stretches.
            Rows::Samples { named: true } => {
                c.missing * 10 <= count && (c.distinct * SAMPLES <= count || c.distinct == 1)
            }
            Rows::Samples { named: false } => {
                c.missing == 0 && c.runs * SAMPLES <= count && found.time.is_some_and(|time| at < time)
            }
            // Keys are different in every row.
            Rows::Vectors => c.distinct >= count.min(1000) && c.missing == 0,
        };
        if free(&found, at) && textual && fits && (!named || says(c, KEYS)) {
            found.keys.push(at);
        }
    }
    found.numbers = (0..columns.len())
        .filter(|&at| columns[at].is_numeric() && free(&found, at))
        // A counter of rows is only used if there is nothing else.
        .filter(|&at| !(columns[at].counts_rows && count > 2))
        .collect();
    if found.numbers.is_empty() {
        found.numbers = (0..columns.len()).filter(|&at| columns[at].is_numeric() && free(&found, at)).collect();
    }
    let number = if rows == Rows::Vectors { "feature" } else { "channel" };
    for (at, column) in columns.iter_mut().enumerate() {
        let role = match () {
            () if found.time == Some(at) => "time",
            () if found.keys.contains(&at) => "key",
            () if found.label == Some(at) => "label",
            () if found.split == Some(at) => "split",
            () if found.numbers.contains(&at) => number,
            () => "",
        };
        column.role = role.into();
    }
    found
}

/// The column of times: one with values that are times, else a rising one whose name says so, or, without names, the
/// first rising one with many values.
fn time(columns: &[Column], count: usize, named: bool) -> Option<usize> {
    let by_values = (0..columns.len()).filter(|&at| columns[at].kind == ColumnKind::Time);
    // A date beside a time of day has fewer different values; on a tie, the first.
    let by_values = by_values.rev().max_by_key(|&at| columns[at].distinct);
    let rises = |c: &Column, part: f64| c.is_numeric() && c.rising > part && c.distinct > 1;
    let falls = |c: &Column| c.is_numeric() && c.rising < 0.1 && c.distinct > 1;
    by_values.or_else(|| match named {
        // Rows may be slightly out of order, or begin with the newest.
        true => columns.iter().position(|c| (rises(c, 0.7) || falls(c)) && says(c, TIMES)),
        false => columns.iter().position(|c| rises(c, 0.9) && c.distinct >= (count / 2).min(1000) && columns.len() > 1),
    })
}

/// Whether the name of a column contains one of the words.
fn says(column: &Column, words: &[&str]) -> bool {
    // "machineId" and "machine_id" have the same words.
    let mut spaced = String::new();
    let mut before = ' ';
    for c in column.name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            spaced.push(' ');
        }
        spaced.push(c);
        before = c;
    }
    let lower = spaced.to_lowercase();
    lower.split(|c: char| !c.is_alphabetic()).any(|word| words.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::super::columns::tests::column_of;
    use super::*;

    fn columns(named: &[(&str, Vec<String>)]) -> Vec<Column> {
        let column = |(name, values): &(&str, Vec<String>)| {
            column_of(name, &values.iter().map(String::as_str).collect::<Vec<_>>())
        };
        named.iter().map(column).collect()
    }

    fn each(count: usize, value: impl Fn(usize) -> String) -> Vec<String> {
        (0..count).map(value).collect()
    }

    #[test]
    fn recordings() {
        let all = |names: [&'static str; 5]| {
            columns(&[
                (names[0], each(32, |i| i.to_string())),
                (names[1], each(32, |i| (i / 16 + 7).to_string())),
                (names[2], each(32, |i| (i * 20).to_string())),
                (names[3], each(32, |i| format!("{}.5", i * 7 % 5))),
                (names[4], each(32, |i| if i / 8 % 2 == 0 { "on".into() } else { "off".into() })),
            ])
        };
        let mut named = all(["n", "machineId", "time_ms", "vibration x", "state"]);
        let found = roles(&mut named, 32, Rows::Samples { named: true });
        assert_eq!((found.time, found.keys, found.label, found.numbers), (Some(2), vec![1], Some(4), vec![3]));
        assert_eq!(named.iter().map(|c| c.role.as_str()).collect::<Vec<_>>(), ["", "key", "time", "channel", "label"]);
        let mut unnamed = all(["column_1", "column_2", "column_3", "column_4", "column_5"]);
        unnamed.remove(0);
        let found = roles(&mut unnamed, 32, Rows::Samples { named: false });
        assert_eq!((found.time, found.keys, found.label, found.numbers), (Some(1), vec![0], Some(3), vec![2]));
    }

    #[test]
    fn recordings_may_take_turns() {
        let mut all = columns(&[
            ("device", each(40, |i| format!("d{}", i % 2))),
            ("t", each(40, |i| (i / 2).to_string())),
            ("x", each(40, |i| (i * 7 % 5).to_string())),
        ]);
        assert_eq!(roles(&mut all, 40, Rows::Samples { named: true }).keys, [0]);
    }

    #[test]
    fn a_date_beside_a_time_of_day_is_not_the_time() {
        let mut all = columns(&[
            ("Date", each(20, |_| "2024-01-31".into())),
            ("Time", each(20, |i| format!("12:00:{i:02}"))),
            ("x", each(20, |i| (i * 7 % 5).to_string())),
        ]);
        assert_eq!(roles(&mut all, 20, Rows::Samples { named: true }).time, Some(1));
    }

    #[test]
    fn vectors() {
        let mut all = columns(&[
            ("row_id", each(20, |i| format!("r{i}"))),
            ("x", each(20, |i| (i * i % 7).to_string())),
            ("part of data", each(20, |i| if i % 4 == 0 { "test".into() } else { "train".into() })),
        ]);
        let found = roles(&mut all, 20, Rows::Vectors);
        assert_eq!((found.keys, found.split, found.numbers, found.time), (vec![0], Some(2), vec![1], None));
    }
}
