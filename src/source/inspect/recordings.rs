//! Inspects files of samples: the uses of the columns, the recordings and their rates, and how to read them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::columns::{Column, ColumnKind};
use super::roles::{Roles, Rows, roles};
use super::times::{Times, rounded, unit};
use super::{Fact, fact};
use crate::source::clock::{Clock, Stamp};
use crate::source::csv::guess::{is_missing, number, plain_number};
use crate::source::csv::{AcrossFiles, CsvSpec, Fill, Record, Repeated, SameTime};
use crate::source::{Dialect, TimeColumn, TimeUnit};

/// The key that stands for the name of a file.
const FILE: &str = "file";
/// Numbers that are enough to find the unit of a column of times.
const NUMBERS: usize = 1000;
/// The fraction of rows above which a missing channel is taken for a slower sensor.
const MISSING: f64 = 0.3;
/// Rows from which a source itself finds out whether recordings alternate.
const LOOKED_AT: usize = 4000;

/// The rows of a file, each value as text.
pub(super) struct Table {
    /// Its name for messages.
    pub file: String,
    /// The names of its columns; empty for one without a name.
    pub names: Vec<String>,
    pub rows: Vec<Record>,
}

/// What was found out.
pub(super) struct Understood {
    /// How to read it; `None` if no column can be a channel.
    pub spec: Option<CsvSpec>,
    /// Comments for the keys of its section.
    pub comments: BTreeMap<&'static str, String>,
    pub columns: Vec<Column>,
    pub facts: Vec<Fact>,
    pub notes: Vec<String>,
}

/// The names of the columns `names` in a pipeline: by position if a name is empty or not unique.
pub(super) fn called(names: &[String]) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    names.iter().for_each(|name| *counts.entry(name).or_default() += 1);
    let own = |name: &String| !name.is_empty() && counts.get(name.as_str()) == Some(&1);
    (1..).zip(names).map(|(at, name)| if own(name) { name.clone() } else { format!("column_{at}") }).collect()
}

/// Interprets the `first` file and the beginnings of `others`, all in the same `dialect`, of the source at `path`.
pub(super) fn understand(path: &str, first: &Table, others: &[Table], dialect: &Dialect) -> Understood {
    let (mut facts, mut notes, mut comments) = (Vec::new(), Vec::new(), BTreeMap::new());
    let names = called(&first.names);
    let values = |at: usize| first.rows.iter().filter(|row| row.problem().is_none()).map(move |row| row.field(at));
    let mut columns: Vec<Column> =
        first.names.iter().enumerate().map(|(at, name)| Column::of(name, values(at), |v| number(dialect, v))).collect();
    let named = dialect.has_header && first.names.iter().any(|name| !name.is_empty());
    let guessed = roles(&mut columns, first.rows.len(), Rows::Samples { named });
    // The names in the file help to find the uses, also where a pipeline names columns by position.
    columns.iter_mut().zip(&names).for_each(|(column, name)| column.name.clone_from(name));
    let mut twice: Vec<&String> = Vec::new();
    for name in first.names.iter().filter(|name| !name.is_empty()) {
        if first.names.iter().filter(|other| *other == name).count() > 1 && !twice.contains(&name) {
            twice.push(name);
        }
    }
    for name in twice {
        notes.push(format!("several columns are named {name:?}: they are named by their places"));
    }
    if guessed.numbers.is_empty() {
        notes.push("no column holds numbers that could be a channel".into());
        return Understood { spec: None, comments, columns, facts, notes };
    }
    let name = |at: usize| names[at].clone();
    let mut spec = CsvSpec {
        channels: guessed.numbers.iter().map(|&at| name(at)).collect(),
        keys: guessed.keys.iter().map(|&at| name(at)).collect(),
        label: guessed.label.map(name),
        split: guessed.split.map(name),
        dialect: dialect.clone(),
        ..CsvSpec::new(path, &[])
    };
    if !dialect.has_header {
        comments.insert("header", "columns are named by their places; what they are is a guess".into());
    }
    if dialect.thousands.is_some() {
        comments.insert("thousands", "look at this: it is taken for a mark between groups of three digits".into());
    }
    if spec.label.is_some() {
        comments.insert("label", "known classes, to evaluate against; not learned from".into());
    }
    if !spec.keys.is_empty() {
        comments.insert("keys", "each of their values is a recording of its own".into());
    }
    let parts = Parts { first, others, dialect, guessed: &guessed, names: &names };
    parts.keys(&mut spec, &mut facts, &mut notes, &mut comments);
    match guessed.time {
        Some(at) => parts.times(at, &columns[at], &mut spec, &mut facts, &mut notes, &mut comments),
        None => notes.push(
            "no column of times was found: samples are taken for evenly spaced; rate_hz says how many there are a second"
                .into(),
        ),
    }
    parts.missing(&columns, &mut spec, &mut notes, &mut comments);
    parts.headers(&mut notes);
    Understood { spec: Some(spec), comments, columns, facts, notes }
}

/// What the parts of the interpretation share.
pub(super) struct Parts<'a> {
    pub first: &'a Table,
    pub others: &'a [Table],
    pub dialect: &'a Dialect,
    pub guessed: &'a Roles,
    pub names: &'a [String],
}

pub(super) type Comments = BTreeMap<&'static str, String>;

impl Parts<'_> {
    /// The positions in `table` of the columns `at` of the first file; `None` if one is missing.
    fn places(&self, table: &Table, at: &[usize]) -> Option<Vec<usize>> {
        let there = called(&table.names);
        at.iter().map(|&at| there.iter().position(|name| *name == self.names[at])).collect()
    }

    /// Finds which recordings there are, whether they alternate, and whether they come back in other files.
    pub(super) fn keys(
        &self,
        spec: &mut CsvSpec,
        facts: &mut Vec<Fact>,
        notes: &mut Vec<String>,
        comments: &mut Comments,
    ) {
        let keys = &self.guessed.keys;
        if keys.is_empty() {
            facts.push(fact("recordings", "each file is one: no column was found whose values tell them apart"));
            return;
        }
        let (mut seen, mut last, mut turns) = (BTreeSet::new(), None, None);
        for (at, row) in self.first.rows.iter().enumerate() {
            let key: Vec<&[u8]> = keys.iter().map(|&key| row.field(key)).collect();
            if last.as_ref() != Some(&key) && !seen.insert(key.clone()) && turns.is_none() {
                turns = Some(at);
            }
            last = Some(key);
        }
        let how = if turns.is_some() { "they take turns" } else { "one after the other" };
        let by: Vec<String> = keys.iter().map(|&at| format!("{:?}", self.names[at])).collect();
        facts.push(fact("recordings", format!("{} by {}, {how}", seen.len(), by.join(" and "))));
        if let Some(at) = turns {
            comments.insert("interleaved", "recordings take turns: the rows are sorted by keys".into());
            if at >= LOOKED_AT || !self.others.is_empty() {
                spec.interleaved = Some(true);
            }
        }
        let mut again: Option<(String, &str)> = None;
        let mut owned: BTreeSet<Vec<Vec<u8>>> =
            seen.iter().map(|key| key.iter().map(|value| value.to_vec()).collect()).collect();
        for table in self.others {
            let Some(places) = self.places(table, keys) else { continue };
            let here: BTreeSet<Vec<Vec<u8>>> =
                table.rows.iter().map(|row| places.iter().map(|&key| row.field(key).to_vec()).collect()).collect();
            if let Some(key) = here.iter().find(|key| owned.contains(*key)) {
                let shown: Vec<String> = key.iter().map(|value| crate::source::bad::shown(value)).collect();
                again.get_or_insert((shown.join(", "), &table.file));
            }
            owned.extend(here);
        }
        if let Some((key, file)) = again {
            if self.in_order() {
                spec.rules.across_files = AcrossFiles::Continue;
                comments.insert("across_files", "keys come back in later files, whose times go on".into());
            } else {
                spec.keys.push(FILE.into());
                comments.insert(
                    "keys",
                    "keys come back in other files: the name of the file tells recordings apart".into(),
                );
            }
            notes.push(format!("keys come back in other files: {key} in {file}"));
        }
    }

    /// Whether the files are one after the other in time.
    fn in_order(&self) -> bool {
        let Some(time) = self.guessed.time else { return false };
        let mut spans = Vec::new();
        for table in std::iter::once(self.first).chain(self.others) {
            let Some([at]) = self.places(table, &[time]).map(|places| [places[0]]) else { return false };
            let column = Column::of("", table.rows.iter().map(|row| row.field(at)), |v| number(self.dialect, v));
            let unit = self.unit(table, at);
            let reader = self.reader(unit, column.time_format, at);
            let Some(span) = Times::of(&table.rows, &[], unit, reader).span else { return false };
            spans.push(span);
        }
        spans.sort_unstable();
        spans.windows(2).all(|pair| pair[0].1 < pair[1].0)
    }

    pub(super) fn unit(&self, table: &Table, at: usize) -> TimeUnit {
        let numbers: Vec<f64> =
            table.rows.iter().filter_map(|row| number(self.dialect, row.field(at))).take(NUMBERS).collect();
        unit(&self.names[self.guessed.time.unwrap_or(at)], &numbers)
    }

    /// The reader of the times in column `at`.
    pub(super) fn reader(
        &self,
        unit: TimeUnit,
        format: Option<&str>,
        at: usize,
    ) -> impl Fn(&Record) -> Option<Stamp> + use<> {
        let clock = Clock::new(unit, format).ok();
        let dialect = self.dialect.clone();
        move |row| {
            let text = row.field(at);
            let clock = clock.as_ref()?;
            // A number may have other separators than the clock reads.
            match plain_number(&dialect, text) {
                Some(plain) => clock.read(&plain).or_else(|_| clock.read(text)).ok(),
                None => clock.read(text).ok(),
            }
        }
    }

    /// Describes the times, and finds the rules that they need.
    fn times(
        &self,
        at: usize,
        column: &Column,
        spec: &mut CsvSpec,
        facts: &mut Vec<Fact>,
        notes: &mut Vec<String>,
        comments: &mut Comments,
    ) {
        let unit = if column.kind == ColumnKind::Time { TimeUnit::Auto } else { self.unit(self.first, at) };
        spec.time = Some(TimeColumn { column: self.names[at].clone(), unit });
        spec.time_format = column.time_format.map(String::from);
        if unit != TimeUnit::Auto {
            comments.insert("time_unit", "look at this: it decides the rate".into());
        }
        if column.time_format.is_some() {
            comments.insert("time_format", "look at the order of day and month".into());
        }
        let times = Times::of(&self.first.rows, &self.guessed.keys, unit, self.reader(unit, column.time_format, at));
        facts.push(fact("times", times.describe()));
        self.rates(&times, at, spec, facts, comments);
        self.rules(&times, spec, notes, comments);
    }

    /// Finds the rules that the times need.
    pub(super) fn rules(&self, times: &Times, spec: &mut CsvSpec, notes: &mut Vec<String>, comments: &mut Comments) {
        let rules = &mut spec.rules;
        if times.repeated * 2 > self.first.rows.len() - times.unread {
            rules.same_time = SameTime::Spread;
            comments.insert("same_time", "several samples stand under one time: they are spread evenly".into());
        } else if times.repeated_lines > 0 {
            rules.repeated = Repeated::Drop;
            comments.insert("repeated", format!("{} lines repeat the one before them", times.repeated_lines));
        }
        if times.repeated > times.repeated_lines && rules.same_time == SameTime::Refuse {
            notes.push(format!(
                "{} samples have the time of the one before them, and are bad rows; same_time = \"spread\" keeps them",
                times.repeated - times.repeated_lines
            ));
        }
        match times.disorder {
            Some(0) => {}
            Some(lines) => {
                rules.disorder = lines.into();
                comments.insert("disorder", "rows are so far from where their times belong".into());
            }
            None if times.period.is_none() || times.back * 2 > self.first.rows.len() => {
                notes.push("time goes back from row to row: sort the rows by their times".into());
            }
            None => notes.push(format!(
                "time goes back {} times, by more than rows that changed places: windows start anew there",
                times.back
            )),
        }
        if rules.same_time == SameTime::Refuse && !times.is_regular() && times.period.is_some() {
            match times.jitter() {
                Some(jitter) => {
                    rules.jitter = Some(jitter.into());
                    comments.insert("jitter", "steps between samples differ by this part of them".into());
                }
                None => {
                    rules.jitter = Some(1.0.into());
                    spec.rate_hz = times.rate_hz();
                    comments.insert("rate_hz", "the median: the times are too uneven to tell a rate from".into());
                }
            }
        }
        if times.period.is_none() && times.back == 0 {
            spec.rate_hz = Some(1.0);
            comments.insert("rate_hz", "a guess: no two samples follow each other in time".into());
        }
    }

    /// Finds whether recordings have several rates, in this file and in the others.
    pub(super) fn rates(
        &self,
        times: &Times,
        at: usize,
        spec: &mut CsvSpec,
        facts: &mut Vec<Fact>,
        comments: &mut Comments,
    ) {
        let mut rates = times.rates.clone();
        let mut wanted = vec![at];
        wanted.extend(&self.guessed.keys);
        for table in self.others {
            let Some(places) = self.places(table, &wanted) else { continue };
            let column = Column::of("", table.rows.iter().map(|row| row.field(places[0])), |v| number(self.dialect, v));
            let read = self.reader(times.unit, column.time_format, places[0]);
            for (rate, count) in Times::of(&table.rows, &places[1..], times.unit, read).rates {
                match rates.iter_mut().find(|(other, _)| (rate / *other - 1.0).abs() <= 0.1) {
                    Some((_, known)) => *known += count,
                    None => rates.push((rate, count)),
                }
            }
        }
        rates.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        if rates.len() > 1 {
            let said: Vec<String> =
                rates.iter().take(6).map(|&(rate, count)| format!("{} Hz ({count})", rounded(rate))).collect();
            facts.push(fact("rates", format!("recordings differ: {}", said.join(", "))));
            spec.rules.resample = true;
            comments.insert(
                "resample",
                "recordings have several rates; without this, all but those of one are bad rows".into(),
            );
        }
    }

    /// A channel that is missing in many rows is a slower sensor; if it is missing in a few, these rows are bad.
    pub(super) fn missing(
        &self,
        columns: &[Column],
        spec: &mut CsvSpec,
        notes: &mut Vec<String>,
        comments: &mut Comments,
    ) {
        let rows = self.first.rows.len();
        let slow = |&&at: &&usize| columns[at].missing as f64 > MISSING * rows as f64;
        let gone = self.first.rows.iter();
        let gone = gone.filter(|row| self.guessed.numbers.iter().any(|&at| is_missing(row.field(at)))).count();
        if self.guessed.numbers.iter().any(|at| slow(&at)) {
            spec.rules.fill = Fill::Hold;
            comments.insert("fill", format!("a channel is missing in {gone} of {rows} rows: it holds its last value"));
        } else if gone > 0 {
            notes.push(format!(
                "a channel is missing in {gone} of {rows} rows, which are bad rows; fill = \"hold\" holds its last value"
            ));
        }
    }

    /// Reports files that do not have the columns of the first.
    pub(super) fn headers(&self, notes: &mut Vec<String>) {
        let columns = |table: &Table| called(&table.names).into_iter().collect::<BTreeSet<String>>();
        let first = columns(self.first);
        let differ: Vec<(&Table, BTreeSet<String>)> =
            self.others.iter().map(|table| (table, columns(table))).filter(|(_, names)| *names != first).collect();
        let Some((table, names)) = differ.first() else { return };
        let list = |some: Vec<&String>| {
            let shown: Vec<String> =
                some.iter().take(6).map(|name| crate::source::bad::shown(name.as_bytes())).collect();
            let more = if some.len() > shown.len() { ", …" } else { "" };
            format!("{}{more}", shown.join(", "))
        };
        let (lacks, has): (Vec<&String>, Vec<&String>) =
            (first.difference(names).collect(), names.difference(&first).collect());
        let mut said = Vec::new();
        if !lacks.is_empty() {
            said.push(format!("lacks {}", list(lacks)));
        }
        if !has.is_empty() {
            said.push(format!("has {} as well", list(has)));
        }
        notes.push(format!(
            "{} of {} files have other columns than the first: {} {}",
            differ.len(),
            self.others.len() + 1,
            table.file,
            said.join(" and ")
        ));
    }
}
