//! Guesses how a text file is written, from its start: its encoding, delimiter, header, quotes and the signs of its
//! numbers.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::content::{no_values, utf16};
use super::dialect::{Delimiter, Dialect, Quotes};
use super::encoding::Encoding;
use super::file::separator_line;
use super::header::ROWS as HEADER_ROWS;
use super::number::Numbers;
use super::record::Record;
use super::records::Records;
use crate::source::bad::shown;
use crate::source::clock::{Clock, TimeUnit};

/// Lines that are enough to guess a layout from.
const LINES: usize = 1000;
/// Up to this many lines, all are used.
const FEW: usize = 40;
/// Rows that are looked at.
const MOST_ROWS: usize = 100_000;
/// How much of a file is enough to distinguish text from other data.
const BEGINNING: usize = 4096;
/// The most rows of units and the like after a header.
const MOST_UNITS: usize = 4;
/// Decimal separators, and separators between groups of three digits that go with them.
const GROUPED: [(char, char); 7] =
    [('.', ','), (',', '.'), ('.', ' '), (',', ' '), ('.', '\''), (',', '\''), ('.', '_')];

/// The start of a text file.
#[derive(Debug)]
pub(in crate::source) struct Start {
    /// Its encoding.
    pub encoding: Encoding,
    /// Its complete lines, undecoded.
    pub bytes: Vec<u8>,
    /// Whether the file ends with them.
    pub whole: bool,
}

impl Start {
    /// The start of a file whose first bytes (all of them if `whole`) are `bytes`; or what the file is instead of text.
    pub fn of(mut bytes: Vec<u8>, whole: bool) -> Result<Self, String> {
        let beginning = &bytes[..bytes.len().min(BEGINNING)];
        if let Some(what) = no_values(beginning) {
            return Err(what);
        }
        if beginning.iter().all(|b| b.is_ascii_whitespace() || *b == 0) {
            let what = if beginning.contains(&0) { "nothing but NUL bytes" } else { "empty" };
            return Err(format!("{what}, expected lines of values"));
        }
        let encoding = encoding_of(&bytes);
        let one_byte = !matches!(encoding, Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be);
        let binary = beginning.iter().filter(|&&b| (1..8).contains(&b) || (14..27).contains(&b)).count();
        if one_byte && binary * 64 > beginning.len() {
            return Err("binary data, expected lines of values".into());
        }
        if !whole {
            cut(&mut bytes, if one_byte { 1 } else { 2 });
        }
        Ok(Self { encoding, bytes, whole })
    }

    /// Its text.
    pub fn text(&self) -> String {
        let encoding = match self.encoding {
            Encoding::Utf8 => encoding_rs::UTF_8,
            Encoding::Latin1 | Encoding::Windows1252 => encoding_rs::WINDOWS_1252,
            // The byte-order mark says which.
            Encoding::Utf16 | Encoding::Utf16Le => encoding_rs::UTF_16LE,
            Encoding::Utf16Be => encoding_rs::UTF_16BE,
        };
        encoding.decode(&self.bytes).0.into_owned()
    }
}

/// Cuts off what follows the last line break, which may be incomplete. Characters have `width` bytes.
fn cut(bytes: &mut Vec<u8>, width: usize) {
    let last = |end: u8| {
        let ends = |unit: &[u8]| unit.contains(&end) && unit.iter().all(|&b| b == end || b == 0);
        bytes.chunks_exact(width).rposition(ends)
    };
    if let Some(last) = last(b'\n').or_else(|| last(b'\r')) {
        bytes.truncate((last + 1) * width);
    }
}

/// The encoding of `bytes`: that of a byte-order mark, else UTF-16 if there are zeros, UTF-8 if most non-ASCII bytes
/// are valid in it, else an encoding of one byte per character.
fn encoding_of(bytes: &[u8]) -> Encoding {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Encoding::Utf8,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Encoding::Utf16,
        _ => {}
    }
    if let Some(encoding) = utf16(&bytes[..bytes.len().min(BEGINNING)]) {
        return encoding;
    }
    let (mut characters, mut others) = (0usize, 0usize);
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        characters += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        // A character that was cut off at the end does not speak against UTF-8.
        others += usize::from(!chunk.invalid().is_empty() && chunks.peek().is_some());
    }
    match () {
        () if others == 0 || characters > others => Encoding::Utf8,
        () if bytes.iter().any(|b| (0x80..0xa0).contains(b)) => Encoding::Windows1252,
        () => Encoding::Latin1,
    }
}

/// How a file is probably written, and its rows read that way.
#[derive(Debug)]
pub(in crate::source) struct Guess {
    /// The settings for a pipeline file.
    pub dialect: Dialect,
    /// The delimiter, also where it is the default.
    pub delimiter: Delimiter,
    /// The line of the header, where there is one.
    pub header: Option<u64>,
    /// Lines before the header, or before the first row, that are not comments.
    pub before: usize,
    /// The line of the header, or of the first row where there is none.
    pub first_line: u64,
    /// The names of the columns; empty for one without a name.
    pub names: Vec<String>,
    /// The rows of data, at most 100 000.
    pub rows: Vec<Record>,
    /// A comment that seems to name the columns, if no row does: its line, and the names.
    pub comment_names: Option<(u64, Vec<String>)>,
}

/// The layout that explains `start` best; `None` if no line has a number in it.
pub(in crate::source) fn guess(start: &Start) -> Option<Guess> {
    let text = start.text();
    let said = separator_line(text.lines().next().unwrap_or_default().as_bytes());
    let ends = if text.contains('\n') { '\n' } else { '\r' };
    let mut lines: Vec<&str> = text.split(ends).map(|line| line.trim_end_matches('\r')).collect();
    lines.drain(..usize::from(said.is_some()));
    lines.retain(|line| !line.trim().is_empty());
    let comment = ["#", "%", "//"].into_iter().find(|mark| lines.iter().any(|line| line.starts_with(mark)));
    lines.retain(|line| !comment.is_some_and(|mark| line.starts_with(mark)));
    // The preamble may be long: lines towards the end are more likely to be data.
    if lines.len() > FEW {
        lines.drain(..(lines.len() / 2).max(lines.len().saturating_sub(LINES)));
    }
    let delimiters: Vec<Delimiter> = match said {
        Some(delimiter) => vec![delimiter],
        None => [',', ';', '\t', '|'].map(Delimiter::One).into_iter().chain([Delimiter::Blanks]).collect(),
    };
    let ended = lines.iter().filter(|line| line.trim_end().ends_with(';')).count() * 5 > lines.len() * 4;
    let row_ends: &[Option<char>] = if ended { &[None, Some(';')] } else { &[None] };
    let candidates = delimiters.iter().flat_map(|&delimiter| row_ends.iter().map(move |&end| (delimiter, end)));
    let mut best: Option<Tried> = None;
    for (delimiter, row_end) in candidates.filter(|&(delimiter, end)| end.is_none_or(|end| delimiter != end.into())) {
        let tried = Tried::of(&lines, delimiter, row_end, quotes_of(&lines, delimiter));
        best = match (tried, best) {
            (Some(tried), Some(best)) if tried.score <= best.score => Some(best),
            (tried, best) => tried.or(best),
        };
    }
    let best = best?;
    let usual = Delimiter::One(if best.decimal == ',' { ';' } else { ',' });
    let dialect = Dialect {
        encoding: if start.encoding == Encoding::Utf16 { Encoding::Utf8 } else { start.encoding },
        delimiter: Some(best.delimiter).filter(|&delimiter| delimiter != usual && said.is_none()),
        quote: Some(char::from(best.quotes.mark)),
        escape: best.quotes.escape.map(char::from),
        decimal: best.decimal,
        thousands: best.thousands,
        comment: comment.map(String::from),
        row_end: best.row_end,
        ..Dialect::default()
    };
    let found = best.header_of(rows_of(&text, &dialect, said)?, dialect.clone())?;
    match comment.filter(|_| found.header.is_none()) {
        Some(mark) => Some(best.names_in_comment(&text, said, mark, found)),
        None => Some(found),
    }
}

/// The rows of `text`. If a first line `sep=…` has `said` the delimiter, it is skipped.
fn rows_of(text: &str, dialect: &Dialect, said: Option<Delimiter>) -> Option<Vec<Record>> {
    let mut records = Records::new(Box::new(Cursor::new(text.as_bytes().to_vec())), dialect);
    if let Some(said) = said {
        records.set_delimiter(said);
        records.skip_lines(1).ok()?;
    }
    let (mut rows, mut record) = (Vec::new(), Record::default());
    while rows.len() < MOST_ROWS && records.read(&mut record).ok()? {
        rows.push(record.clone());
    }
    Some(rows)
}

/// The number that `text` is in a file of this dialect, with a decimal point and no grouping.
pub(in crate::source) fn plain_number(dialect: &Dialect, text: &[u8]) -> Option<Vec<u8>> {
    let plain = Numbers::of(dialect).plain(text)?;
    crate::source::text::number(&plain).is_ok().then(|| plain.into_owned())
}

/// The quotes: single ones if there are no double ones and nearly all single ones close; with a backslash as the escape
/// character if more lines are complete with it than without.
fn quotes_of(lines: &[&str], delimiter: Delimiter) -> Quotes {
    let closed = |quotes: Quotes| {
        let mut all = lines.iter().filter_map(|line| closes(line.as_bytes(), delimiter, quotes)).collect::<Vec<_>>();
        let count = all.len();
        all.retain(|&closed| closed);
        (all.len(), count)
    };
    // The better of both ways, and how many of the lines with quotes are complete with it.
    let best = |mark: u8| {
        let (plain, escaped) = (Quotes::from(mark), Quotes { mark, escape: Some(b'\\') });
        let (good, all) = closed(plain);
        let behind = ['\\', char::from(mark)].iter().collect::<String>();
        match lines.iter().any(|line| line.contains(&behind)).then(|| closed(escaped).0) {
            Some(more) if more > good => (escaped, more, all),
            _ => (plain, good, all),
        }
    };
    let (double, _, all) = best(b'"');
    if all > 0 {
        return double;
    }
    let (single, good, all) = best(b'\'');
    if good > 0 && good * 10 >= all * 9 { single } else { double }
}

/// Whether all quoted fields of `line` close at the end of the field; `None` if no field is quoted.
fn closes(line: &[u8], delimiter: Delimiter, quotes: Quotes) -> Option<bool> {
    let blanks = |at: usize| line[at..].iter().take_while(|&&b| matches!(b, b' ' | b'\t') && !delimiter.is(b)).count();
    let (mut at, mut any) = (0, false);
    while at < line.len() {
        at += blanks(at);
        if line.get(at) == Some(&quotes.mark) {
            any = true;
            at += 1;
            loop {
                match (line.get(at), line.get(at + 1)) {
                    (None, _) => return Some(false),
                    (Some(&b), _) if Some(b) == quotes.escape => at += 2,
                    (Some(&b), Some(&next)) if b == quotes.mark && next == b => at += 2,
                    (Some(&b), _) if b == quotes.mark => break,
                    _ => at += 1,
                }
            }
            at += 1;
            at += blanks(at);
            if line.get(at).is_some_and(|&b| !delimiter.is(b)) {
                return Some(false);
            }
        } else {
            at += line[at..].iter().position(|&b| delimiter.is(b)).unwrap_or(line.len() - at);
        }
        at += 1;
    }
    any.then_some(true)
}

/// The number that `text` is in a file of this dialect.
pub(in crate::source) fn number(dialect: &Dialect, text: &[u8]) -> Option<f64> {
    Numbers::of(dialect).parse(text).ok()
}

/// Whether a value is missing.
pub(in crate::source) fn is_missing(value: &[u8]) -> bool {
    value.is_empty() || [&b"nan"[..], b"na", b"n/a", b"null"].iter().any(|mark| value.eq_ignore_ascii_case(mark))
}

/// One delimiter, and what the lines look like with it.
struct Tried {
    delimiter: Delimiter,
    row_end: Option<char>,
    quotes: Quotes,
    /// The number of fields of most lines, not counting an empty one at the end of all of them.
    width: usize,
    decimal: char,
    thousands: Option<char>,
    score: f64,
    /// The columns that hold numbers or times.
    valued: Vec<usize>,
    values: Values,
}

/// Distinguishes numbers and times from other text.
struct Values {
    numbers: Numbers,
    clock: Option<Clock>,
}

impl Values {
    fn of(decimal: char, thousands: Option<char>) -> Self {
        let numbers = Numbers::of(&Dialect { decimal, thousands, ..Dialect::default() });
        Self { numbers, clock: Clock::new(TimeUnit::Auto, None).ok() }
    }

    fn is_value(&self, field: &[u8]) -> bool {
        let time =
            || field.iter().any(|b| b":-/T".contains(b)) && self.clock.as_ref().is_some_and(|c| c.read(field).is_ok());
        self.numbers.parse(field).is_ok() || time()
    }
}

impl Tried {
    fn of(lines: &[&str], delimiter: Delimiter, row_end: Option<char>, quotes: Quotes) -> Option<Self> {
        let texts = lines.iter().flat_map(|line| match row_end {
            Some(end) => line.split(end).filter(|text| !text.trim().is_empty()).collect(),
            None => vec![*line],
        });
        let rows: Vec<Record> = texts
            .map(|text| {
                let mut record = Record::of(text.as_bytes());
                record.split(delimiter, Some(quotes));
                record
            })
            .collect();
        let mut widths = BTreeMap::<usize, usize>::new();
        rows.iter().for_each(|row| *widths.entry(row.len()).or_default() += 1);
        let (&width, &alike) = widths.iter().max_by_key(|&(width, count)| (*count, *width))?;
        let like: Vec<&Record> = rows.iter().filter(|row| row.len() == width).collect();
        let trailing = width > 1 && like.iter().all(|row| row.field(width - 1).is_empty());
        let width = width - usize::from(trailing);
        let count = |values: &Values| {
            let fields = like.iter().flat_map(|row| row.fields());
            fields.filter(|field| !field.is_empty() && values.is_value(field)).count()
        };
        let (point, comma) = (Values::of('.', None), Values::of(',', None));
        let points = count(&point);
        let commas = if delimiter == Delimiter::One(',') { 0 } else { count(&comma) };
        let (mut decimal, mut values) = if commas > points { (',', comma) } else { ('.', point) };
        let (mut numbers, mut thousands) = (points.max(commas), None);
        // Grouped digits, if they explain more: "1,234.5", "1.234,5", "1 234".
        let grouped = |field: &[u8]| {
            let signs = |b: &u8| b.is_ascii_digit() || b"+-., '_".contains(b);
            !values.is_value(field) && field.iter().any(u8::is_ascii_digit) && field.iter().all(signs)
        };
        if like.iter().any(|row| row.fields().any(grouped)) {
            for (sign, mark) in GROUPED {
                if delimiter == sign.into() || (mark == ' ' && delimiter.is(b' ')) {
                    continue;
                }
                let other = Values::of(sign, Some(mark));
                let found = count(&other);
                if found > numbers {
                    (numbers, decimal, thousands, values) = (found, sign, Some(mark), other);
                }
            }
        }
        let valued: Vec<usize> = (0..width)
            .filter(|&at| {
                let filled: Vec<&[u8]> = like.iter().map(|row| row.field(at)).filter(|f| !is_missing(f)).collect();
                let good = filled.iter().filter(|field| values.is_value(field)).count();
                // The header, a row or two after it, and perhaps a bad row are among them.
                good > 0 && (good + 3) * 10 >= filled.len() * 9
            })
            .collect();
        let all = like.iter().flat_map(|row| row.fields()).filter(|field| !field.is_empty()).count();
        let (share, numeric) = (alike as f64 / rows.len() as f64, numbers as f64 / all.max(1) as f64);
        // Many fields in every line, most of them numbers, are no accident. Blanks count less, since they also occur
        // inside fields.
        let certain = if delimiter == Delimiter::Blanks { 0.7 } else { 1.0 };
        let score = certain * share * (0.1 + numeric) * (1.0 + (width as f64).ln());
        (!valued.is_empty()).then_some(Self {
            delimiter,
            row_end,
            quotes,
            width,
            decimal,
            thousands,
            score,
            valued,
            values,
        })
    }

    /// Whether each column of values has a value in `row`, or an empty field.
    fn is_data(&self, row: &Record) -> bool {
        let fits = |&at: &usize| is_missing(row.field(at)) || self.values.is_value(row.field(at));
        let has = |&at: &usize| self.values.is_value(row.field(at));
        self.is_wide(row) && self.valued.iter().all(fits) && self.valued.iter().any(has)
    }

    fn is_wide(&self, row: &Record) -> bool {
        row.problem().is_none() && row.len() >= self.width && row.fields().skip(self.width).all(<[u8]>::is_empty)
    }

    /// Finds the header among the `rows`, and what is before and after it.
    fn header_of(&self, mut rows: Vec<Record>, mut dialect: Dialect) -> Option<Guess> {
        let data = rows.iter().position(|row| self.is_data(row))?;
        let no_value = |row: &Record| !row.fields().any(|field| self.values.is_value(field));
        let named = |row: &&Record| {
            let mut names: Vec<&[u8]> = row.fields().take(self.width).collect();
            names.sort_unstable();
            names.dedup();
            no_value(row) && names.len() == self.width && !names.contains(&&b""[..])
        };
        // The rows of names and units are together, right before the data.
        let together = rows[..data].iter().rev().take_while(|row| self.is_wide(row)).count();
        let block = data - together..data;
        let header = block.clone().find(|&at| named(&&rows[at])).or(block.clone().next());
        let first = header.unwrap_or(data);
        let units = match header {
            Some(at) => rows[at + 1..data].iter().take_while(|row| no_value(row)).take(MOST_UNITS).count(),
            None => 0,
        };
        let mut names: Vec<String> = match header {
            Some(at) => rows[at].fields().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            None => Vec::new(),
        };
        names.resize(self.width, String::new());
        let like_data = |row: &Record| {
            self.valued.iter().filter(|&&at| self.values.is_value(row.field(at))).count() * 2 > self.valued.len()
        };
        let first_line = rows[first].line();
        let far = first >= HEADER_ROWS || rows[..first].iter().any(like_data);
        if header.is_none() && first > 0 || far {
            dialect.skip_lines = usize::try_from(first_line - 1).ok()?;
        }
        (dialect.has_header, dialect.skip_after_header) = (header.is_some(), units);
        rows.drain(..first + usize::from(header.is_some()) + units);
        Some(Guess {
            delimiter: self.delimiter,
            dialect,
            header: header.map(|_| first_line),
            before: first,
            first_line,
            names,
            rows,
            comment_names: None,
        })
    }

    /// Completes `found`, which has no header, with the names in a comment right before the first row. If the names are
    /// separate fields, the comment becomes the header; no line is a comment then, and the comment mark is part of the
    /// first name.
    fn names_in_comment(&self, text: &str, said: Option<Delimiter>, mark: &str, found: Guess) -> Guess {
        let plain = Dialect { comment: None, has_header: true, skip_lines: 0, ..found.dialect.clone() };
        let Some(rows) = rows_of(text, &plain, said) else { return found };
        let marked = |row: &Record| row.text().starts_with(mark.as_bytes());
        let before = rows.iter().take_while(|row| !self.is_data(row)).filter(|row| marked(row)).last();
        let hint = before.and_then(|row| {
            let mut names = Record::of(row.text().strip_prefix(mark.as_bytes()).unwrap_or_default().trim_ascii());
            names.split(self.delimiter, Some(self.quotes));
            let fits = names.len() == self.width && !names.fields().any(|name| self.values.is_value(name));
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            fits.then(|| (row.line(), names.fields().map(text).collect::<Vec<_>>()))
        });
        let Some((line, names)) = hint else { return found };
        match self.header_of(rows, plain) {
            Some(named) if named.header == Some(line) && !named.rows.iter().any(marked) => named,
            _ => Guess { comment_names: Some((line, names)), ..found },
        }
    }
}

/// The name of a delimiter in a pipeline file.
pub(in crate::source) fn delimiter_name(delimiter: Delimiter) -> String {
    match delimiter {
        Delimiter::Blanks => "blanks".into(),
        Delimiter::One('\t') => "tabs".into(),
        Delimiter::One(one) => shown(one.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str) -> Guess {
        let start = Start::of(text.as_bytes().to_vec(), true).unwrap();
        guess(&start).unwrap_or_else(|| panic!("no layout of {text:?}"))
    }

    #[test]
    fn delimiters_and_decimal_signs() {
        for (text, delimiter, decimal, width) in [
            ("t,x,y\n1,2.5,3\n2,3.5,4\n", None, '.', 3),
            ("t;x;y\n1;2.5;3\n2;3.5;4\n", Some(';'), '.', 3),
            ("t;x;y\n1;2,5;3,1\n2;3,5;4,2\n", None, ',', 3),
            ("t\tx\ty\n1\t2,5\t3,1\n2\t3,5\t4,2\n", Some('\t'), ',', 3),
            ("t|x\n1|2\n2|3\n", Some('|'), '.', 2),
            ("2024-01-31 12:00:00,1.5\n2024-01-31 12:00:01,1.5\n", None, '.', 2),
            ("2024-01-31 12:00:00\t1.5\n2024-01-31 12:00:01\t1.5\n", Some('\t'), '.', 2),
            ("\"a, b\",1\n\"c, d\",2\n", None, '.', 2),
        ] {
            let found = laid_out(text);
            assert_eq!(found.dialect.delimiter, delimiter.map(Delimiter::One), "{text:?}");
            assert_eq!((found.dialect.decimal, found.names.len()), (decimal, width), "{text:?}");
        }
        assert_eq!(laid_out(" 1   2.5  3\n 2  3.5   4\n").dialect.delimiter, Some(Delimiter::Blanks));
    }

    #[test]
    fn groups_of_digits() {
        for (text, decimal, thousands, delimiter) in [
            ("t,x\n0,\"1,234.5\"\n1,\"12,345.6\"\n2,7.5\n", '.', Some(','), None),
            ("t;x\n0;1.234,5\n1;12.345,6\n2;7,5\n", ',', Some('.'), None),
            ("t;x\n0;1 234,5\n1;12 345,6\n2;7,5\n", ',', Some(' '), None),
            ("t\tx\n0\t1'234.5\n1\t7.5\n", '.', Some('\''), Some('\t')),
            ("t,x\n0,1_234\n1,7\n", '.', Some('_'), None),
            // A fraction of three digits is not a group, and neither are numbers in columns.
            ("t;x\n0;1.234\n1;2.345\n", '.', None, Some(';')),
            ("t;x\n0;1,234\n1;2,345\n", ',', None, None),
            ("1,234,567\n2,345,678\n", '.', None, None),
            ("t,x\n0,2024-01-31\n1,2024-02-01\n", '.', None, None),
        ] {
            let found = laid_out(text).dialect;
            let delimiter = delimiter.map(Delimiter::One);
            assert_eq!((found.decimal, found.thousands, found.delimiter), (decimal, thousands, delimiter), "{text:?}");
        }
    }

    #[test]
    fn quotes_and_what_is_before_them() {
        for (text, quote, escape, cell) in [
            ("t,x\n0,\"a, b\"\n1,\"c \"\"d\"\"\"\n", '"', None, "a, b"),
            ("t,x\n0,'a, b'\n1,'c ''d'''\n", '\'', None, "a, b"),
            ("t,x\n0,\"a \\\"b\\\", c\"\n1,\"d\"\n", '"', Some('\\'), "a \"b\", c"),
            ("t;x\n0;'a \\'b\\''\n1;'d'\n", '\'', Some('\\'), "a 'b'"),
            // A path that ends with a backslash, an apostrophe, and words in quotes in the middle of a field.
            ("t,x\n0,\"C:\\d\\\"\n1,\"C:\\e\\\"\n", '"', None, "C:\\d\\"),
            ("t,x\n0,'tis\n1,o'clock\n", '"', None, "'tis"),
            ("t,x\n0,a \\\"b\\\"\n1,c\n", '"', None, "a \\\"b\\\""),
        ] {
            let found = laid_out(text);
            assert_eq!((found.dialect.quote, found.dialect.escape), (Some(quote), escape), "{text:?}");
            assert_eq!(String::from_utf8_lossy(found.rows[0].field(1)), cell, "{text:?}");
        }
    }

    #[test]
    fn names_behind_the_mark_of_a_comment() {
        let named = laid_out("# a logger, no. 7\n# 50 Hz\n# t,x\n0,1\n1,2\n");
        assert_eq!((named.header, named.dialect.comment, named.names.join(" ")), (Some(3), None, "# t x".into()));
        for text in ["# made\n# t,x\n0,1\n# a pause\n1,2\n", "# made\n# t x\n0 1\n1 2\n"] {
            let hint = laid_out(text);
            assert_eq!((hint.header, hint.dialect.comment.as_deref()), (None, Some("#")), "{text:?}");
            assert_eq!(hint.comment_names, Some((2, vec!["t".into(), "x".into()])), "{text:?}");
        }
        let plain = laid_out("# a logger, here\nt,x\n0,1\n1,2\n");
        assert_eq!((plain.header, plain.dialect.comment.as_deref(), plain.comment_names), (Some(2), Some("#"), None));
    }

    #[test]
    fn headers_units_and_lines_before_them() {
        let found = laid_out("Serial: 7\nStart 12:00\nt,x,y\ns,m/s,m/s\n0,1,2\n1,2,3\n2,3\n3,4,5\n");
        assert_eq!((found.header, found.dialect.skip_after_header), (Some(3), 1));
        assert_eq!((found.names.join(" "), found.rows.len(), found.dialect.skip_lines), ("t x y".into(), 4, 0));
        let none = laid_out("1,2\n3,4\n");
        assert_eq!((none.dialect.has_header, none.names.len()), (false, 2));
        let comments = laid_out("# made by a logger\n# 50 Hz\nt,x\n0,1\n1,2\n");
        assert_eq!((comments.dialect.comment.as_deref(), comments.header), (Some("#"), Some(3)));
        let logger = "\"TOA5\",\"st\",\"12\"\n\"TIMESTAMP\",\"n\",\"x\"\n\"TS\",\"RN\",\"V\"\n\"\",\"\",\"Avg\"\n\
                      \"2024-01-01 00:00:00\",0,1.5\n\"2024-01-01 00:00:01\",1,\"NAN\"\n\"2024-01-01 00:00:02\",2,1.5\n";
        let logger = laid_out(logger);
        assert_eq!((logger.header, logger.dialect.skip_after_header, logger.rows.len()), (Some(2), 2, 3));
        // A bad row after the header is not a row of units, and names may be numbers.
        let bad = laid_out("t,x\n0,?\n1,2\n2,3\n");
        assert_eq!((bad.dialect.skip_after_header, bad.rows.len()), (0, 3));
        assert_eq!(laid_out("t,50,100\n0,1,2\n1,2,3\n").names, ["t", "50", "100"]);
    }

    #[test]
    fn what_is_before_the_header_and_could_be_a_sample_is_skipped() {
        let found = laid_out("run,7,8\nt,x,y\n0,1,2\n1,2,3\n2,3,4\n");
        assert_eq!((found.dialect.skip_lines, found.header), (1, Some(2)));
        let headless = laid_out("a run\n\n0,1,2\n1,2,3\n");
        assert_eq!((headless.dialect.skip_lines, headless.dialect.has_header), (2, false));
    }

    #[test]
    fn rows_may_end_with_a_sign_and_lines_with_a_delimiter() {
        let said = laid_out("sep=;\nt;x\n0;1\n1;2\n");
        assert_eq!((said.dialect.delimiter, said.rows.len()), (None, 2));
        let trailing = laid_out("t,x,\n0,1,\n1,2,\n");
        assert_eq!((trailing.names.join(" "), trailing.rows.len()), ("t x".into(), 2));
        let ended = laid_out("33,walk,1,0.5;\n33,walk,2,0.5;33,walk,3,0.7;\n33,sit,4,0.5;\n");
        assert_eq!((ended.dialect.row_end, ended.names.len(), ended.rows.len()), (Some(';'), 4, 4));
        let semicolons = laid_out("t;x;\n1;2;\n2;3;\n");
        assert_eq!((semicolons.dialect.row_end, semicolons.names.len()), (None, 2));
    }

    #[test]
    fn encodings() {
        let start = |bytes: &[u8], whole| Start::of(bytes.to_vec(), whole).unwrap();
        let utf16: Vec<u8> = "t\tx\n0\t1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(start(&utf16, true).encoding, Encoding::Utf16Le);
        assert_eq!(start(&[&[0xff, 0xfe][..], &utf16].concat(), true).encoding, Encoding::Utf16);
        assert_eq!(start(b"ort,x\nBr\xfchl,1\n", true).encoding, Encoding::Latin1);
        assert_eq!(start(b"ort,x\n\x80,1\n", true).encoding, Encoding::Windows1252);
        let damaged = "ort,x\nBrühl,1\nKöln,2\n".bytes().chain(*b"\xff,3\n").collect::<Vec<u8>>();
        assert_eq!(start(&damaged, true).encoding, Encoding::Utf8);
        // Cut in the middle of a character, and of a line.
        let cut = start(&"ort,x\nBrühl,1\nü".as_bytes()[..15], false);
        assert_eq!((cut.encoding, cut.bytes.ends_with(b",1\n")), (Encoding::Utf8, true));
        assert_eq!(start(&utf16[..15], false).bytes.len(), 8);
    }

    #[test]
    fn other_data_is_named() {
        for (bytes, what) in [
            (&b"<html>\n<body>\n"[..], "web page"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image"),
            (b"\n\n", "empty"),
            (b"\0\0\0\0", "NUL bytes"),
            (b"\x01\x02\x03a,b\n\x04", "binary"),
        ] {
            assert!(Start::of(bytes.to_vec(), true).unwrap_err().contains(what), "{what}");
        }
        assert!(guess(&Start::of(b"a\nb,c\n".to_vec(), true).unwrap()).is_none());
    }
}
