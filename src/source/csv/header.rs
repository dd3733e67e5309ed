//! The header, and the positions of the columns that a pipeline names.

use std::collections::BTreeMap;
use std::io;

use super::dialect::Delimiter;
use super::encoding::{Encoding, text};
use super::lines::LONGEST;
use super::number::Numbers;
use super::record::{Record, Split, hint_of_escape};
use super::records::Records;
use super::{CsvSpec, FILE};
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::text::number;

/// How many rows are searched for the header.
pub(super) const ROWS: usize = 64;

/// A column that is read.
#[derive(Debug)]
pub(super) struct Column {
    /// Its position, counted from 0.
    pub(super) at: usize,
    /// Its name in the pipeline.
    pub(super) name: String,
}

/// Where the value of a key, the label or the split is.
#[derive(Debug)]
pub(super) enum Attribute {
    /// In a column. If the file's path says a value as well, both must agree; an empty value is null.
    Column { column: Column, said: Option<String> },
    /// Outside the rows, one value for all: from the path, or the file's name as the key `file`.
    Outside { name: String, value: String },
}

impl Attribute {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Column { column, .. } => &column.name,
            Self::Outside { name, .. } => name,
        }
    }

    /// Its value in `record`; empty means none.
    pub(super) fn value<'a>(&'a self, record: &'a Record) -> &'a [u8] {
        match self {
            Self::Column { column, .. } => record.field(column.at),
            Self::Outside { value, .. } => value.as_bytes(),
        }
    }

    /// What is wrong with its value in `record`, if the path says another one.
    fn contradicted(&self, record: &Record) -> Option<String> {
        let Self::Column { column, said: Some(said) } = self else { return None };
        let (found, name) = (record.field(column.at), &column.name);
        (found != said.as_bytes())
            .then(|| format!("column {name:?} is {}, expected {said:?}, as the path says", shown(found)))
    }
}

/// The positions of the columns that a pipeline names.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) channels: Vec<Column>,
    pub(super) keys: Vec<Attribute>,
    pub(super) time: Option<Column>,
    pub(super) label: Option<Attribute>,
    pub(super) split: Option<Attribute>,
    /// The columns that are carried along.
    pub(super) keep: Vec<Column>,
    /// The names of all columns, including those that the pipeline does not name.
    pub(super) names: Vec<String>,
    /// The encoding of the values; `None` for Parquet.
    pub(super) encoding: Option<Encoding>,
    /// Whether there is an escape character.
    escapes: bool,
    /// The least number of fields of a row: empty names at the end of a header do not count.
    least: usize,
    /// The greatest number of fields, not counting empty ones at the end; `None` until a row has been read.
    most: Option<usize>,
    /// The text of the header, if it cannot be a row.
    header: Option<Vec<u8>>,
    /// Its number; 0 if there is none.
    pub(super) line: u64,
}

impl Columns {
    /// Reads `records` of `file` up to the header, and skips the rows after it that are to be skipped. Without a header
    /// it has read the first row, and returns it as well.
    ///
    /// # Errors
    /// Kind `Input` if no row names all columns of `spec`, or if it names one twice; and errors of reading the file.
    pub(super) fn find(
        file: &DataFile,
        records: &mut Records,
        encoding: Encoding,
        spec: &CsvSpec,
    ) -> Result<(Self, Option<Record>)> {
        let search = Search::new(file, Some(encoding), spec);
        if !records.skip_lines(spec.dialect.skip_lines).map_err(|e| search.unreadable(e))? {
            return Err(
                search.wrong(&format!("no more than {} lines, which skip_lines skips", spec.dialect.skip_lines))
            );
        }
        let found = match (spec.dialect.has_header, spec.dialect.columns.is_empty()) {
            (_, false) => search.by_given(records),
            (true, true) => return Ok((search.by_names(records)?, None)),
            (false, true) => search.by_places(records),
        };
        found.map(|(columns, first)| (columns, Some(first)))
    }

    /// The columns of a Parquet file, which are named `names`.
    ///
    /// # Errors
    /// Kind `Input` if a column of `spec` is missing.
    pub(super) fn of_table(file: &DataFile, names: &[String], spec: &CsvSpec) -> Result<Self> {
        Search::new(file, None, spec).named(names)
    }

    /// The columns of a file of objects: those of `spec` that have no value outside of them, whatever is in it.
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn of_objects(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        let search = Search::new(file, Some(Encoding::Utf8), spec);
        let names: Vec<String> = search.wanted().cloned().collect();
        search.named(&names)
    }

    /// The text of `column` in `record`, or what is wrong with it.
    pub(super) fn text<'a>(&self, record: &'a Record, column: &Column) -> Result<&'a str, String> {
        text(record.field(column.at), self.encoding).map_err(|e| format!("column {:?}: {e}", column.name))
    }

    /// The bytes of the keys of `record`, or what is wrong with it.
    pub(super) fn id(&self, record: &Record) -> Result<Vec<u8>, String> {
        if let Some(wrong) = self.wrong(record) {
            return Err(wrong);
        }
        let mut id = Vec::new();
        for key in &self.keys {
            self.check(record, key)?;
            let value = key.value(record);
            if value.is_empty() {
                return Err(format!("key column {:?} is empty, expected a value", key.name()));
            }
            id.extend_from_slice(value);
            id.push(0);
        }
        for attribute in self.label.iter().chain(&self.split) {
            self.check(record, attribute)?;
        }
        Ok(id)
    }

    /// Checks that the value of `attribute` in `record` is text, and agrees with the path.
    fn check(&self, record: &Record, attribute: &Attribute) -> Result<(), String> {
        if let Attribute::Column { column, .. } = attribute {
            self.text(record, column)?;
        }
        attribute.contradicted(record).map_or(Ok(()), Err)
    }

    /// Notes the number of fields of `record`: in a file without a header, the first row decides how many fields a row
    /// has.
    pub(super) fn see(&mut self, record: &Record) {
        if self.most.is_none() && record.problem().is_none() {
            self.most = Some(record.len().max(self.least));
        }
    }

    /// What is wrong with `record` as a whole, whatever its values are.
    pub(super) fn wrong(&self, record: &Record) -> Option<String> {
        if let Some(problem) = record.problem() {
            return Some(problem.into());
        }
        let (found, most) = (record.len(), self.most.unwrap_or(self.least));
        // A delimiter at the end of a line makes an empty field.
        if found < self.least || !record.fields().skip(most).all(<[u8]>::is_empty) {
            let fields = if found == 1 { "field" } else { "fields" };
            let hint = if self.escapes { "" } else { hint_of_escape(record.text()) };
            return Some(format!("{found} {fields}, expected {most}: {}{hint}", shown(record.text())));
        }
        self.is_header(record).then(|| format!("the header of line {} once more, expected values", self.line))
    }

    /// Whether `record` repeats the header.
    fn is_header(&self, record: &Record) -> bool {
        // Concatenated files may have a byte-order mark in the middle.
        let text = record.text();
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        self.header.as_deref() == Some(text)
    }
}

/// What is searched for, and where.
struct Search<'a> {
    file: &'a DataFile,
    encoding: Option<Encoding>,
    spec: &'a CsvSpec,
    /// The values in the file's path.
    path: BTreeMap<String, Option<String>>,
}

/// A row that may name the columns.
struct Candidate {
    line: u64,
    text: Vec<u8>,
    names: Vec<String>,
    /// How many of the pipeline's columns it names.
    named: usize,
    /// What is wrong with a name that is invalid in the encoding.
    not_text: Option<String>,
}

/// The position, counted from 0, in a name such as `column_1`.
fn place(name: &str) -> Option<usize> {
    name.strip_prefix("column_")?.parse::<usize>().ok()?.checked_sub(1)
}

impl<'a> Search<'a> {
    fn new(file: &'a DataFile, encoding: Option<Encoding>, spec: &'a CsvSpec) -> Self {
        Self { file, encoding, spec, path: file.columns() }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::input(format!("{}: {what}", self.file.name()))
    }

    fn unreadable(&self, e: io::Error) -> Error {
        self.file.unreadable_after(e, " before its first row")
    }

    /// The names of all columns that a file must have.
    fn wanted(&self) -> impl Iterator<Item = &String> {
        let outside = |name: &&String| self.outside(name).is_some();
        self.spec.columns().chain(self.spec.attributes().filter(move |name| !outside(name)))
    }

    /// The value of the key, label or split `name` that comes from outside the rows.
    fn outside(&self, name: &str) -> Option<String> {
        match self.path.get(name) {
            // The file's name takes the place of a column `file`.
            _ if name == FILE => Some(self.file.below().to_string()),
            Some(value) => Some(value.clone().unwrap_or_default()),
            None => None,
        }
    }

    /// The columns, at the positions that `find` gives for their names; `has` says whether there is a column of a name.
    fn columns(
        &self,
        line: u64,
        has: impl Fn(&String) -> bool,
        find: impl Fn(&String) -> Result<usize>,
    ) -> Result<Columns> {
        let find = |name: &String| Ok(Column { at: find(name)?, name: name.clone() });
        let key = |name: &String| match self.outside(name) {
            Some(value) if !has(name) => Ok(Attribute::Outside { name: name.clone(), value }),
            // Where there is a column `file`, the file's name is not compared with its values.
            said => Ok(Attribute::Column { column: find(name)?, said: said.filter(|_| name != FILE) }),
        };
        let CsvSpec { channels, keys, time, label, split, keep, .. } = self.spec;
        Ok(Columns {
            channels: channels.iter().map(find).collect::<Result<_>>()?,
            keys: keys.iter().map(key).collect::<Result<_>>()?,
            time: time.as_ref().map(|t| find(&t.column)).transpose()?,
            label: label.as_ref().map(key).transpose()?,
            split: split.as_ref().map(key).transpose()?,
            keep: keep.iter().map(|keep| find(&keep.column)).collect::<Result<_>>()?,
            names: Vec::new(),
            encoding: self.encoding,
            escapes: self.encoding.is_none() || self.spec.dialect.escape.is_some(),
            least: 0,
            most: None,
            header: None,
            line,
        })
    }

    /// The columns of a file without a header whose columns are named elsewhere.
    fn by_given(&self, records: &mut Records) -> Result<(Columns, Record)> {
        let mut record = Record::default();
        if !records.read(&mut record).map_err(|e| self.unreadable(e))? {
            return Err(self.wrong("no lines but empty ones, expected one line per sample"));
        }
        Ok((self.named(&self.spec.dialect.columns)?, record))
    }

    /// The columns of rows that each have a value for every one of `names`, in this order.
    fn named(&self, names: &[String]) -> Result<Columns> {
        let mut columns = self.columns(
            0,
            |name| names.contains(name),
            |name| {
                let at = names.iter().position(|n| n == name);
                at.ok_or_else(|| no_column(self.file.name(), name, names.iter().map(String::as_str)))
            },
        )?;
        (columns.least, columns.most) = (names.len(), Some(names.len()));
        columns.names = names.to_vec();
        Ok(columns)
    }

    /// The columns of a file without a header: their names give their positions.
    fn by_places(&self, records: &mut Records) -> Result<(Columns, Record)> {
        let mut record = Record::default();
        if !records.read(&mut record).map_err(|e| self.unreadable(e))? {
            return Err(self.wrong("no lines but empty ones, expected one line per sample"));
        }
        let usable = record.problem().is_none();
        let mut columns = self.columns(
            0,
            |name| place(name).is_some(),
            |name| match place(name) {
                Some(at) if at < record.len() || !usable => Ok(at),
                found => {
                    let there: Vec<String> = (1..=record.len()).map(|at| format!("column_{at}")).collect();
                    let e = no_column(self.file.name(), name, there.iter().map(String::as_str));
                    Err(Error::input(match found {
                        Some(_) => {
                            format!("{e}; these are of line {}: skip_lines skips lines at the start", record.line())
                        }
                        None => format!("{e}; without a header columns have these names"),
                    }))
                }
            },
        )?;
        columns.least = self.wanted().filter_map(|name| place(name)).max().map_or(0, |at| at + 1);
        columns.names = (1..=record.len()).map(|at| format!("column_{at}")).collect();
        if usable {
            // Empty fields at the end of the line are not columns.
            let filled = record.fields().rposition(|field| !field.is_empty()).map_or(0, |at| at + 1);
            columns.least = columns.least.max(filled);
            columns.most = Some(record.len());
        }
        Ok((columns, record))
    }

    /// The columns of a file with a header: the first row that names them all.
    fn by_names(&self, records: &mut Records) -> Result<Columns> {
        let numbers = Numbers::of(&self.spec.dialect);
        let (mut best, mut problem): (Option<Candidate>, Option<String>) = (None, None);
        // The rows before the header: the line, and which of the fields are numbers.
        let mut before: Vec<(u64, Vec<bool>)> = Vec::new();
        let (mut bytes, mut record) = (0, Record::default());
        while before.len() < ROWS && bytes <= LONGEST && records.read(&mut record).map_err(|e| self.unreadable(e))? {
            if let Some(wrong) = record.problem() {
                problem.get_or_insert_with(|| format!("line {}: {wrong}", record.line()));
            }
            let row = self.candidate(&record);
            if self.wanted().all(|name| row.place(name).is_some()) {
                let columns = self.at(&row)?;
                let sample = |fields: &Vec<bool>| columns.channels.iter().all(|c| fields.get(c.at) == Some(&true));
                if let Some((line, _)) = before.iter().find(|(_, fields)| sample(fields)) {
                    return Err(self.wrong(&format!(
                        "line {line} has numbers where line {}, which names the columns, has the channels: is it a sample? \
                         skip_lines = {} skips what is before the header",
                        row.line,
                        row.line - 1
                    )));
                }
                for _ in 0..self.spec.dialect.skip_after_header {
                    records.read(&mut record).map_err(|e| self.unreadable(e))?;
                }
                return Ok(columns);
            }
            bytes += row.text.len();
            before.push((row.line, record.fields().map(|field| numbers.parse(field).is_ok()).collect()));
            if best.as_ref().is_none_or(|best| row.named > best.named) {
                best = Some(row);
            }
            // If all wanted names are positions, they cannot identify the header: it is the first row.
            if self.wanted().all(|name| place(name).is_some()) {
                break;
            }
        }
        Err(match (best, problem) {
            (Some(best), Some(problem)) if best.named == 0 => self.wrong(&problem),
            (Some(best), _) => self.lacks(&best, records.delimiter()),
            (None, _) => self.wrong("no lines but empty ones, expected a line that names the columns"),
        })
    }

    fn candidate(&self, record: &Record) -> Candidate {
        let mut not_text = None;
        let name = |field| match text(field, self.encoding) {
            Ok(name) => name.to_string(),
            Err(wrong) => {
                not_text.get_or_insert(wrong);
                field.escape_ascii().to_string()
            }
        };
        let names: Vec<String> = record.fields().map(name).collect();
        let named = self.wanted().filter(|name| names.contains(name)).count();
        Candidate { line: record.line(), text: record.text().to_vec(), names, named, not_text }
    }

    /// The columns that `row` names.
    fn at(&self, row: &Candidate) -> Result<Columns> {
        let mut columns = self.columns(
            row.line,
            |name| row.place(name).is_some(),
            |name| {
                let places: Vec<usize> = (0..row.names.len()).filter(|&at| row.names[at] == *name).collect();
                match places[..] {
                    [] => Ok(row.place(name).unwrap_or_default()),
                    [at] => Ok(at),
                    _ => {
                        let listed: Vec<String> =
                            places.iter().take(8).map(|at| format!("column_{}", at + 1)).collect();
                        Err(self.wrong(&format!(
                            "{} columns are named {name:?}, expected one; name it by its place: {}",
                            places.len(),
                            listed.join(" or ")
                        )))
                    }
                }
            },
        )?;
        let places = self.wanted().filter_map(|name| row.place(name));
        let filled = row.names.iter().rposition(|name| !name.is_empty());
        columns.least = places.chain(filled).max().map_or(0, |at| at + 1);
        columns.most = Some(row.names.len());
        columns.names.clone_from(&row.names);
        // If the names are numbers, a row of numbers could look like the header.
        let number = |c: &Column| number(row.names[c.at].as_bytes()).is_ok();
        columns.header = Some(row.text.clone()).filter(|_| !columns.channels.iter().all(number));
        Ok(columns)
    }

    /// The error for a file in which no row has all names; `best` has the most of them.
    fn lacks(&self, best: &Candidate, delimiter: Delimiter) -> Error {
        let missing = self.wanted().find(|name| best.place(name).is_none()).map_or("", String::as_str);
        let e = no_column(self.file.name(), missing, best.names.iter().map(String::as_str));
        let mut said = e.to_string();
        if best.line > 1 {
            said += &format!("; these are of line {}", best.line);
        }
        if let Some(wrong) = &best.not_text {
            said += &format!("; a name is {wrong}");
        }
        let has_all = |other: &Delimiter| {
            let mut record = Record::of(&best.text);
            *other != delimiter
                && record.split(*other, Some(b'"'.into())) == Split::Whole
                && self.wanted().all(|name| record.fields().any(|field| field == name.as_bytes()))
        };
        let others = [';'.into(), ','.into(), '\t'.into(), '|'.into(), Delimiter::Blanks];
        if let Some(other) = others.iter().find(|other| has_all(other)) {
            said += &format!("; delimiter = \"{other}\" finds them");
        }
        Error::input(said)
    }
}

impl Candidate {
    /// The first position of column `name`; a name such as `column_1` that is not in the header gives the position
    /// itself.
    fn place(&self, name: &str) -> Option<usize> {
        let named = self.names.iter().position(|n| n == name);
        named.or_else(|| place(name).filter(|&at| at < self.names.len()))
    }
}
