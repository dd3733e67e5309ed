//! Inspects text files of sensor recordings.

use super::recordings::{Table, Understood, understand};
use super::section::{Section, encoding_name};
use super::{BEGINNING, FILES, Inspection, LOOKED_AT, fact, in_a_cell, judge, start_of, trial};
use crate::error::{Error, Result};
use crate::source::Dialect;
use crate::source::bad::shown;
use crate::source::csv::guess::{Guess, Start, delimiter_name, guess};
use crate::source::csv::{Delimiter, Encoding, Record, is_table};
use crate::source::location::{DataFile, blocking};
use crate::terminal::shown_name;

/// A file, how it is written, and a file with only its beginning.
struct Seen {
    file: DataFile,
    start: Start,
    guess: Guess,
    /// What ended the reading, if the file is damaged.
    damage: Option<Error>,
}

impl Seen {
    /// Reads the first `size` bytes of `file`. Blocks.
    fn of(file: DataFile, size: u64) -> Result<Self> {
        let (bytes, damage) = start_of(&file, size)?;
        let whole = (bytes.len() as u64) < size && damage.is_none();
        let wrong = |what: &str| Error::input(format!("{}: {what}", file.name()));
        let start = Start::of(bytes, whole).map_err(|what| wrong(&what))?;
        let Some(guess) = guess(&start) else {
            return Err(wrong("no line has a number in it, expected lines of values with something between them"));
        };
        Ok(Self { file, start, guess, damage })
    }

    /// Its rows that have a field for each column.
    fn table(&mut self) -> Table {
        let mut rows = std::mem::take(&mut self.guess.rows);
        let width = self.guess.names.len();
        let empty = |row: &Record| (width..row.len()).all(|at| row.field(at).is_empty());
        rows.retain(|row| row.problem().is_none() && row.len() >= width && empty(row));
        Table { file: self.file.name().to_string(), names: self.guess.names.clone(), rows }
    }
}

/// Inspects the text `files` of the source at `path`.
pub(super) async fn inspect(path: &str, files: &[DataFile], rows: usize) -> Result<Inspection> {
    let files: Vec<DataFile> = files.iter().filter(|file| !is_table(file)).take(FILES).cloned().collect();
    let place = path.to_string();
    let (mut found, spec, held) = blocking(move || {
        let mut notes = Vec::new();
        let mut seen = Vec::new();
        let (mut unlike, mut unusable) = (None, Vec::new());
        for file in files {
            match Seen::of(file, if seen.is_empty() { LOOKED_AT } else { BEGINNING }) {
                Ok(found) => seen.push(found),
                // One of several may be empty or damaged.
                Err(e) => unusable.push(e),
            }
        }
        let Some(first) = seen.first() else {
            let none = || Error::input(format!("{}: no text files there", shown_name(&place)));
            return Err(unusable.into_iter().next().unwrap_or_else(none));
        };
        let mut dialect = first.guess.dialect.clone();
        for other in &seen[1..] {
            let (a, b) = (&first.guess.dialect, &other.guess.dialect);
            let ascii = other.start.bytes.is_ascii() || first.start.bytes.is_ascii();
            let alike = |d: &Dialect| (d.delimiter, d.decimal, d.has_header, d.row_end, d.quote);
            if alike(a) != alike(b) || a.encoding != b.encoding && !ascii {
                unlike.get_or_insert(other.file.name().to_string());
            }
        }
        // If the start of the first file is ASCII, another file may show the encoding.
        if first.start.bytes.is_ascii()
            && let Some(other) = seen.iter().find(|other| other.guess.dialect.encoding != dialect.encoding)
        {
            dialect.encoding = other.guess.dialect.encoding;
        }
        // Other files may show settings that the first one does not need.
        let alike = seen.iter().map(|other| &other.guess.dialect).filter(|other| other.decimal == dialect.decimal);
        let (escape, thousands) = (alike.clone().find_map(|d| d.escape), alike.clone().find_map(|d| d.thousands));
        (dialect.escape, dialect.thousands) = (escape, thousands);
        if let Some(name) = unlike {
            notes.push(format!("{name} is written otherwise than the first file: look at it by itself"));
        }
        if let Some(e) = unusable.first() {
            notes.push(format!("{} files cannot be read, the first: {e}", unusable.len()));
        }
        notes.extend(
            seen.iter().find_map(|seen| seen.damage.as_ref()).map(|e| format!("what was looked at ends early: {e}")),
        );
        let all = seen[0].guess.rows.len();
        let mut tables: Vec<Table> = seen.iter_mut().map(Seen::table).collect();
        let table = tables.remove(0);
        let mut understood = understand(&place, &table, &tables, &dialect);
        let guess = &seen[0].guess;
        if let Some(spec) = &mut understood.spec
            && guess.header.is_some()
            && guess.before > 0
            && spec.dialect.skip_lines == 0
        {
            let named = understood.columns.iter().zip(&table.names);
            if named.into_iter().any(|(column, name)| !column.role.is_empty() && column.name != *name) {
                // If a column is named by position, a line before the header could be taken for the header.
                spec.dialect.skip_lines = usize::try_from(guess.first_line - 1).unwrap_or_default();
            }
        }
        if let Some((line, names)) = &guess.comment_names {
            let shown: Vec<String> = names.iter().map(|name| shown(name.as_bytes())).collect();
            notes.push(format!(
                "the comment on line {line} seems to name the columns, which go by their places here: {}",
                shown.join(", ")
            ));
        } else if guess.header.is_some() && guess.dialect.comment.is_none() && comment_mark(&guess.names) {
            notes.push("the names stand in a comment, and its mark is a part of the first one".into());
        }
        let mut facts = written(&seen[0], all);
        facts.append(&mut understood.facts);
        notes.append(&mut understood.notes);
        let shown = table.rows.iter().take(rows);
        let first_rows = shown.map(|row| (0..table.names.len()).map(|at| in_a_cell(row.field(at))).collect()).collect();
        let Understood { spec, comments, columns, .. } = understood;
        let source = spec.as_ref().map(|spec| Section::samples(spec, comments));
        let file = seen[0].file.name().to_string();
        let held: Vec<DataFile> = seen.into_iter().map(|seen| seen.file.holding(seen.start.bytes)).collect();
        let found = Inspection { path: place, file, files: held.len(), facts, columns, first_rows, notes, source };
        Ok((found, spec, held))
    })
    .await?;
    if let Some(spec) = spec {
        let tried = trial::samples(&spec, held).await;
        judge(tried, "rows that were looked at", &mut found.facts, &mut found.notes)?;
    }
    Ok(found)
}

/// Whether the first of `names` begins with a comment mark.
fn comment_mark(names: &[String]) -> bool {
    names.first().is_some_and(|name| ["#", "%", "//"].iter().any(|mark| name.starts_with(mark) && name != mark))
}

/// How the file is written, in words.
fn written(seen: &Seen, rows: usize) -> Vec<super::Fact> {
    let Seen { start, guess, .. } = seen;
    let dialect = &guess.dialect;
    let mark = if start.encoding == Encoding::Utf16 { ", as the mark at its start says" } else { "" };
    let header = match (guess.header, dialect.skip_after_header) {
        (None, _) => format!("none: the first row is on line {}", guess.first_line),
        (Some(at), 0) => format!("on line {at}"),
        (Some(at), 1) => format!("on line {at}, and a row of units behind it"),
        (Some(at), behind) => format!("on line {at}, and {behind} rows of units and the like behind it"),
    };
    let much = match (start.whole, &seen.damage) {
        (true, _) => "",
        (false, Some(_)) => " before it is damaged",
        (false, None) => " in its first 4 MiB, at most 100000 of which were looked at",
    };
    vec![
        fact("format", in_words(dialect, guess.delimiter)),
        fact("encoding", format!("{}{mark}", encoding_name(start.encoding))),
        fact("header", header),
        fact("rows", format!("{rows}{much}")),
    ]
}

/// The delimiter, quotes and separators of a text, in words.
pub(super) fn in_words(dialect: &Dialect, delimiter: Delimiter) -> String {
    let decimal = if dialect.decimal == ',' { ", decimal commas" } else { "" };
    let thousands = dialect.thousands.map(|mark| format!(", {:?} between thousands", mark.to_string()));
    let quote = dialect.quote.filter(|&quote| quote != '"').map(|quote| format!(", {quote} around fields"));
    let escape = dialect.escape.map(|escape| format!(", {escape} before quotes that are text"));
    let signs: String = [thousands, quote, escape].into_iter().flatten().collect();
    let row_end = dialect.row_end.map(|end| format!(", rows end with {:?}", end.to_string())).unwrap_or_default();
    let comment = dialect.comment.as_ref().map(|mark| format!(", comments begin with {mark:?}")).unwrap_or_default();
    let between = delimiter_name(delimiter);
    format!("text, {between} between fields{decimal}{signs}{row_end}{comment}")
}
