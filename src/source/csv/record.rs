//! The fields of a row.

use std::io;
use std::ops::Range;

use super::dialect::{Delimiter, Quotes};
use super::lines::Lines;
use crate::source::bad::{MOST_TEXT, Raw};

/// A row: its text, and the ranges of its fields.
#[derive(Debug, Default, Clone)]
pub(in crate::source) struct Record {
    /// The row as it was read, followed by the unquoted text of fields with doubled or escaped quotes.
    bytes: Vec<u8>,
    /// The length of the row as read, in `bytes`.
    read: usize,
    fields: Vec<Range<usize>>,
    line: u64,
    problem: Option<String>,
    /// Where it begins in the text, if that is known.
    offset: Option<u64>,
    /// The bytes of its text; `None` if it does not come from a text.
    length: Option<u64>,
    /// The beginning of the text of a row that has a problem.
    refused: Vec<u8>,
}

/// A hint which key would read `text`, if a backslash seems to escape quotes in it.
pub(super) fn hint_of_escape(text: &[u8]) -> &'static str {
    match text.windows(2).any(|pair| pair == br#"\""#) {
        true => r#" (escape = "\\" takes \" for a quote that is text)"#,
        false => "",
    }
}

/// How the splitting of a row into fields ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// At the end of the text.
    Whole,
    /// The quote that opens in this field, counted from 1, does not close in what was read.
    Open(usize),
    /// It closes on a later line, but not at the end of a field.
    Astray(usize),
}

impl Record {
    /// Makes it the row on `line` with these fields.
    pub(in crate::source) fn set<'a>(&mut self, line: u64, fields: impl Iterator<Item = &'a [u8]>) {
        self.bytes.clear();
        self.fields.clear();
        (self.line, self.problem) = (line, None);
        (self.offset, self.length) = (None, None);
        self.refused.clear();
        for field in fields {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(field);
            self.fields.push(begin..self.bytes.len());
        }
        self.read = self.bytes.len();
    }

    /// About how much memory it takes.
    pub(super) fn size(&self) -> usize {
        let problem = self.problem.as_ref().map_or(0, String::len);
        self.bytes.len() + size_of_val(&self.fields[..]) + problem + self.refused.len()
    }

    /// Appends it to `out`, for [`decode`](Self::decode).
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let word = |value: usize| (value as u64).to_le_bytes();
        let problem = self.problem.as_deref().unwrap_or_default();
        let known = |value: Option<u64>| value.map_or(usize::MAX, |value| value as usize);
        let (offset, length) = (known(self.offset), known(self.length));
        let refused = self.refused.len();
        for value in [self.line as usize, self.read, problem.len(), self.fields.len(), offset, length, refused] {
            out.extend(word(value));
        }
        for field in &self.fields {
            out.extend(word(field.start));
            out.extend(word(field.end));
        }
        out.extend(problem.as_bytes());
        out.extend(&self.refused);
        out.extend(&self.bytes);
    }

    /// Makes it what [`encode`](Self::encode) wrote.
    pub(super) fn decode(&mut self, bytes: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[8 * at + i])) as usize;
        let (problem, count) = (word(2), word(3));
        let known = |value: usize| (value != usize::MAX).then_some(value as u64);
        (self.line, self.read) = (word(0) as u64, word(1));
        (self.offset, self.length) = (known(word(4)), known(word(5)));
        self.fields.clear();
        self.fields.extend((0..count).map(|field| word(7 + 2 * field)..word(8 + 2 * field)));
        let (said, rest) = bytes[8 * (7 + 2 * count)..].split_at(problem);
        let (refused, rest) = rest.split_at(word(6));
        self.problem = (problem > 0).then(|| String::from_utf8_lossy(said).into_owned());
        self.refused.clear();
        self.refused.extend_from_slice(refused);
        self.bytes.clear();
        self.bytes.extend_from_slice(rest);
    }

    /// A row with the text `text`, not yet split into fields.
    pub(super) fn of(text: &[u8]) -> Self {
        Self { bytes: text.to_vec(), read: text.len(), ..Self::default() }
    }

    /// Reads a line into it and splits it at `delimiter`. `None` at the end of the text; else whether there is a
    /// `quote` or a NUL byte in the line, so that the fields are not yet right.
    pub(super) fn read(&mut self, lines: &mut Lines, delimiter: u8, quote: u8) -> io::Result<Option<bool>> {
        self.keep(0);
        (self.line, self.problem) = (lines.number() + 1, None);
        self.refused.clear();
        let (mut from, mut other) = (0, false);
        let fields = &mut self.fields;
        let more = lines.read_and_find(&mut self.bytes, [delimiter, quote, 0], |at, byte| {
            if byte == delimiter {
                fields.push(from..at);
                from = at + 1;
            } else {
                other = true;
            }
        })?;
        self.end();
        (self.offset, self.length) = (lines.begins(), Some(lines.length() as u64));
        self.fields.push(from..self.read);
        Ok(more.then_some(other))
    }

    /// The buffer to which another line of the row is appended.
    pub(super) fn more(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(self.read);
        &mut self.bytes
    }

    /// Marks the text as complete.
    pub(super) fn end(&mut self) {
        self.read = self.bytes.len();
    }

    /// Its text is all of the lines that were read into it.
    pub(super) fn is_whole(&mut self) {
        self.length = Some(self.read as u64);
    }

    /// Keeps the first `length` bytes of the text, without fields.
    pub(super) fn keep(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.fields.clear();
        self.read = self.bytes.len();
    }

    /// Marks it as not a row, and why.
    pub(super) fn fail(&mut self, problem: String) {
        self.refused.clear();
        self.refused.extend_from_slice(&self.bytes[..self.read.min(MOST_TEXT)]);
        self.keep(0);
        self.problem = Some(problem);
    }

    /// Why it is not a row; it has neither text nor fields then.
    pub(in crate::source) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The line on which it begins, counted from 1.
    pub(in crate::source) fn line(&self) -> u64 {
        self.line
    }

    /// The text as it was read.
    pub(in crate::source) fn text(&self) -> &[u8] {
        &self.bytes[..self.read]
    }

    /// Its fields are those of `text`, of `length` bytes at `offset`, which is another text than theirs.
    pub(super) fn stand_for(&mut self, offset: Option<u64>, text: &[u8], length: u64) {
        (self.offset, self.length) = (offset, Some(length));
        self.refused.clear();
        self.refused.extend_from_slice(&text[..text.len().min(MOST_TEXT)]);
    }

    /// Writes into `raw` how it is in its file; `at` gives the place in the file of one in the text.
    pub(super) fn raw(&self, at: impl Fn(u64) -> Option<u64>, raw: &mut Raw) {
        match self.length {
            Some(length) => {
                let kept = self.problem.is_some() || !self.refused.is_empty();
                let text = if kept { &self.refused } else { self.text() };
                raw.set(self.offset.and_then(at), text, length);
            }
            None => raw.clear(),
        }
    }

    /// Number of fields.
    pub(in crate::source) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field without the white space around it; empty if there is no field `index`.
    pub(in crate::source) fn field(&self, index: usize) -> &[u8] {
        self.fields.get(index).map_or(&[], |field| self.bytes[field.clone()].trim_ascii())
    }

    /// Whether a field contains complete lines that each have as many fields as this row.
    pub(super) fn holds_rows(&self, delimiter: Delimiter, line_end: u8) -> bool {
        let fields = |line: &[u8]| line.iter().filter(|&&b| delimiter.is(b)).count() + 1;
        let holds = |field: &Range<usize>| {
            let mut lines: Vec<&[u8]> = self.bytes[field.clone()].split(|&b| b == line_end).skip(1).collect();
            lines.pop();
            !lines.is_empty() && lines.iter().all(|line| fields(line) == self.len())
        };
        self.len() > 1 && self.fields.iter().any(holds)
    }

    /// All fields.
    pub(super) fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator {
        (0..self.len()).map(|index| self.field(index))
    }

    /// Finds the fields of the text.
    pub(super) fn split(&mut self, delimiter: Delimiter, quotes: Option<Quotes>) -> Split {
        self.bytes.truncate(self.read);
        self.fields.clear();
        match (delimiter, quotes.filter(|quotes| self.bytes.contains(&quotes.mark))) {
            (_, Some(quotes)) => self.split_quoted(delimiter, quotes),
            (Delimiter::One(one), None) => {
                let mut from = 0;
                // A delimiter is ASCII.
                let one = one as u8;
                for (at, &byte) in self.bytes.iter().enumerate() {
                    if byte == one {
                        self.fields.push(from..at);
                        from = at + 1;
                    }
                }
                self.fields.push(from..self.read);
                Split::Whole
            }
            (Delimiter::Blanks, None) => {
                let mut at = 0;
                while let Some(from) = self.bytes[at..].iter().position(|b| !b.is_ascii_whitespace()) {
                    let from = at + from;
                    at = self.next(from, delimiter);
                    self.fields.push(from..at);
                }
                Split::Whole
            }
        }
    }

    /// The position of the next delimiter from `at` on; the end of the text if there is none.
    fn next(&self, at: usize, delimiter: Delimiter) -> usize {
        self.text()[at..].iter().position(|&b| delimiter.is(b)).map_or(self.read, |next| at + next)
    }

    /// The position of the next character from `at` on that is not a blank. A delimiter does not count as a blank.
    fn skip_blanks(&self, at: usize, delimiter: Delimiter) -> usize {
        let blank = |b: u8| matches!(b, b' ' | b'\t') && delimiter != Delimiter::from(char::from(b));
        self.text()[at..].iter().position(|&b| !blank(b)).map_or(self.read, |next| at + next)
    }

    fn split_quoted(&mut self, delimiter: Delimiter, quotes: Quotes) -> Split {
        let blanks = delimiter == Delimiter::Blanks;
        let mut at = 0;
        loop {
            let from = self.skip_blanks(at, delimiter);
            if blanks && from == self.read {
                return Split::Whole;
            }
            at = if self.text().get(from) == Some(&quotes.mark) {
                match self.quoted(from, delimiter, quotes) {
                    Ok(end) => end,
                    Err(split) => return split,
                }
            } else {
                let end = self.next(from, delimiter);
                self.fields.push(from..end);
                end
            };
            if at == self.read {
                return Split::Whole;
            }
            at += 1;
        }
    }

    /// Reads the field whose quote opens at `open`; returns where it ends.
    fn quoted(&mut self, open: usize, delimiter: Delimiter, quotes: Quotes) -> Result<usize, Split> {
        let number = self.fields.len() + 1;
        let text = self.text();
        let special = |b: u8| b == quotes.mark || Some(b) == quotes.escape;
        let (mut close, mut doubled) = (open + 1, false);
        loop {
            let Some(next) = text[close..].iter().position(|&b| special(b)) else { return Err(Split::Open(number)) };
            close += next;
            match (text[close] == quotes.mark, text.get(close + 1)) {
                (true, behind) if behind != Some(&quotes.mark) => break,
                // The escaped character is the line break; the field goes on on the next line.
                (false, None) => return Err(Split::Open(number)),
                _ => {}
            }
            doubled = true;
            close += 2;
        }
        let ends = |&at: &usize| text.get(at).is_none_or(|&b| delimiter.is(b));
        let end = [close + 1, self.skip_blanks(close + 1, delimiter)].into_iter().find(ends);
        match end {
            Some(end) if !doubled => {
                self.fields.push(open + 1..close);
                return Ok(end);
            }
            None if text[open..close].contains(&b'\n') => return Err(Split::Astray(number)),
            _ => {}
        }
        // Text after the closing quote belongs to the field: a quote inside was not doubled.
        let behind = end.map_or(close + 1..self.next(close + 1, delimiter), |_| close..close);
        let begin = self.bytes.len();
        let mut at = open + 1;
        while at < close {
            // Skips the first byte of an escaped pair.
            at += usize::from(special(self.bytes[at]));
            let byte = self.bytes[at];
            self.bytes.push(byte);
            at += 1;
        }
        self.bytes.extend_from_within(behind.clone());
        self.fields.push(begin..self.bytes.len());
        Ok(end.unwrap_or(behind.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, delimiter: Delimiter, quote: Option<u8>) -> Result<Vec<String>, Split> {
        let mut record = Record::of(text.as_bytes());
        match record.split(delimiter, quote.map(Quotes::from)) {
            Split::Whole => Ok(record.fields().map(|f| String::from_utf8(f.to_vec()).unwrap()).collect()),
            other => Err(other),
        }
    }

    #[test]
    fn fields_are_those_of_the_standard() {
        for (text, expected) in [
            ("a,b", &["a", "b"][..]),
            ("a,,", &["a", "", ""]),
            (" a , b\t", &["a", "b"]),
            ("\"a,b\",\"c\"\"d\",\"\"\"", &[]),
            (r#""a,b","c""d","","e""#, &["a,b", "c\"d", "", "e"]),
            (r#"x, "a,b" ,y"#, &["x", "a,b", "y"]),
            (r#"12" pipe,a"b"#, &["12\" pipe", "a\"b"]),
            (r#""12"" pipe",1"#, &["12\" pipe", "1"]),
            (r#""say \"hi\"",1"#, &["say \\hi\\\"\"", "1"]),
            ("\"two\nlines\",1", &["two\nlines", "1"]),
            ("\"\",1", &["", "1"]),
        ] {
            let found = split(text, ','.into(), Some(b'"'));
            match expected {
                [] => assert_eq!(found, Err(Split::Open(3)), "{text}"),
                _ => assert_eq!(found.unwrap(), expected, "{text}"),
            }
        }
    }

    #[test]
    fn a_quote_behind_an_escape_is_text() {
        let quotes = Quotes { mark: b'"', escape: Some(b'\\') };
        for (text, expected) in [
            (r#""say \"hi\"",1"#, Ok(&[r#"say "hi""#, "1"][..])),
            (r#""a\", b",1"#, Ok(&[r#"a", b"#, "1"])),
            (r#""C:\\dir\\","x\,y",2"#, Ok(&[r"C:\dir\", "x,y", "2"])),
            (r#""both ""and\"",1"#, Ok(&[r#"both "and""#, "1"])),
            (r#""\"",1"#, Ok(&["\"", "1"])),
            // Outside quotes it is plain text.
            (r#"C:\dir\,"1",\"a"#, Ok(&[r"C:\dir\", "1", r#"\"a"#])),
            (r#"1,"C:\dir\",3"#, Err(Split::Open(2))),
            (r#"1,"two\"#, Err(Split::Open(2))),
            ("\"two\\\nlines\",1", Ok(&["two\nlines", "1"])),
        ] {
            let mut record = Record::of(text.as_bytes());
            let split = record.split(','.into(), Some(quotes));
            let fields: Vec<_> = record.fields().map(|f| String::from_utf8(f.to_vec()).unwrap()).collect();
            match expected {
                Ok(expected) => assert_eq!(
                    (split, fields),
                    (Split::Whole, expected.iter().map(|f| f.to_string()).collect()),
                    "{text}"
                ),
                Err(expected) => assert_eq!(split, expected, "{text}"),
            }
        }
    }

    #[test]
    fn without_a_quote_all_is_text() {
        assert_eq!(split("\"a,b\"", ','.into(), None).unwrap(), ["\"a", "b\""]);
        assert_eq!(split("'a,b',\"", ','.into(), Some(b'\'')).unwrap(), ["a,b", "\""]);
    }

    #[test]
    fn blanks_are_one_delimiter() {
        for text in ["1 2 3", "  1\t 2   3 ", "\"1\"  2 \"3\""] {
            assert_eq!(split(text, Delimiter::Blanks, Some(b'"')).unwrap(), ["1", "2", "3"], "{text:?}");
        }
        assert_eq!(split("\"a b\" \"c\"", Delimiter::Blanks, Some(b'"')).unwrap(), ["a b", "c"]);
        assert_eq!(split("1\t\t 3\t", '\t'.into(), Some(b'"')).unwrap(), ["1", "", "3", ""]);
    }

    #[test]
    fn a_quote_that_closes_in_the_midst_of_a_later_line_is_astray() {
        assert_eq!(split("1,\"open,2\n3,\"again,4", ','.into(), Some(b'"')), Err(Split::Astray(2)));
        assert_eq!(split("1,\"open,2\n3,4", ','.into(), Some(b'"')), Err(Split::Open(2)));
    }
}
