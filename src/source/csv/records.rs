//! The rows of a text: one line each, or several if a quoted field contains line breaks.

use std::io::{self, BufRead};

use super::dialect::{Delimiter, Dialect, Quotes};
use super::lines::{LONGEST, Lines};
use super::record::{Record, Split, hint_of_escape};
use crate::source::bad::shown;

/// The most lines of a row. A quote that is open for longer is taken as a mistake.
const MOST_LINES: usize = 64;

/// The rows of a text, one at a time, without empty lines and comments.
pub(super) struct Records {
    lines: Lines,
    delimiter: Delimiter,
    quotes: Option<Quotes>,
    comment: Option<Vec<u8>>,
}

impl Records {
    /// The rows of `input`, from its first line on.
    pub(super) fn new(input: Box<dyn BufRead + Send>, dialect: &Dialect) -> Self {
        // Characters that are not ASCII were refused before.
        let byte = |c: char| c as u8;
        Self {
            lines: Lines::new(input, dialect.row_end.map(byte)),
            delimiter: dialect.usual_delimiter(),
            quotes: dialect.quotes(),
            comment: dialect.comment.as_ref().map(|comment| comment.clone().into_bytes()),
        }
    }

    fn is_quote(&self, byte: u8) -> bool {
        self.quotes.is_some_and(|quotes| quotes.mark == byte)
    }

    /// Numbers the lines behind the first `head` as if `passed` lines lay between.
    pub(super) fn pass_over(&mut self, head: u64, passed: u64) {
        self.lines.pass_over(head, passed);
    }

    /// How many lines were read.
    pub(super) fn lines_read(&self) -> u64 {
        self.lines.number()
    }

    /// The delimiter.
    pub(super) fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    /// Sets the delimiter of the rows to come.
    pub(super) fn set_delimiter(&mut self, delimiter: Delimiter) {
        self.delimiter = delimiter;
    }

    /// The next line, which will be read again.
    pub(super) fn peek(&mut self) -> io::Result<Vec<u8>> {
        let (number, mut line) = (self.lines.number(), Vec::new());
        self.lines.read(&mut line)?;
        let length = line.len();
        line.extend(self.lines.ended_by());
        self.lines.read_again(&line, number);
        line.truncate(length);
        Ok(line)
    }

    /// Skips `count` lines at the start of the text, whatever they are. False if there are no more lines.
    pub(super) fn skip_lines(&mut self, count: usize) -> io::Result<bool> {
        let mut line = Vec::new();
        while self.lines.number() < count as u64 {
            line.clear();
            if !self.lines.read(&mut line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the next row into `record`. False at the end of the text.
    pub(super) fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        let (delimiter, split) = match self.delimiter {
            Delimiter::One(one) => (one as u8, true),
            Delimiter::Blanks => (0, false),
        };
        loop {
            // The fast path: without a quote, the fields are already right.
            let Some(other) = record.read(&mut self.lines, delimiter, self.quotes.map_or(0, |quotes| quotes.mark))?
            else {
                return Ok(false);
            };
            let text = record.text();
            // A line of only tabs, where the tab is the delimiter, is a row of empty fields and not blank.
            let blank = |&b: &u8| b.is_ascii_whitespace() && self.delimiter != Delimiter::from(char::from(b));
            if text.iter().all(blank) || self.comment.as_ref().is_some_and(|comment| text.starts_with(comment)) {
                continue;
            }
            if split && !other && text.len() <= LONGEST {
                return Ok(true);
            }
            if let Some(problem) = unusable(text) {
                record.fail(problem);
            } else if let Split::Open(_) = record.split(self.delimiter, self.quotes) {
                self.join(record)?;
            }
            return Ok(true);
        }
    }

    /// Reads further lines while a quote is open. If that does not give a row, the first line is bad, and the lines
    /// after it are read again: an unclosed quote costs one line and not the rest of the file.
    fn join(&mut self, record: &mut Record) -> io::Result<()> {
        let first = record.text().len();
        let number = self.lines.number();
        for lines in 2.. {
            let Some(end) = self.lines.ended_by().filter(|_| lines <= MOST_LINES && record.text().len() <= LONGEST)
            else {
                break;
            };
            let text = record.more();
            text.push(end);
            let from = text.len();
            let more = self.lines.read(text)?;
            record.end();
            if !more {
                break;
            }
            if !record.text()[from..].iter().any(|&b| self.is_quote(b)) {
                continue;
            }
            match record.split(self.delimiter, self.quotes) {
                Split::Open(_) => {}
                // A field that contains complete rows comes from an unclosed quote.
                Split::Whole if !record.holds_rows(self.delimiter, end) => {
                    record.is_whole();
                    if let Some(problem) = unusable(record.text()) {
                        record.fail(problem);
                    }
                    return Ok(());
                }
                Split::Whole | Split::Astray(_) => break,
            }
        }
        let mut again = record.text().get(first + 1..).unwrap_or_default().to_vec();
        again.extend(self.lines.ended_by());
        self.lines.read_again(&again, number);
        record.keep(first);
        let field = match record.split(self.delimiter, self.quotes) {
            Split::Open(field) | Split::Astray(field) => field,
            Split::Whole => 0,
        };
        let begins = record.text()[..first].iter().rposition(|&b| self.is_quote(b)).unwrap_or(0);
        let hint = self.quotes.filter(|quotes| quotes.escape.is_none()).map(|_| hint_of_escape(record.text()));
        let (shown, hint) = (shown(&record.text()[begins..]), hint.unwrap_or_default());
        record.fail(format!(
            "the quote that opens in field {field} is not closed: {shown}, expected a closing quote on the line, or within \
             {MOST_LINES} lines and before other rows; quote = \"\" takes quotes for text{hint}"
        ));
        Ok(())
    }
}

/// Why `text` cannot be a row, whatever its fields are.
fn unusable(text: &[u8]) -> Option<String> {
    let long = text.len() > LONGEST;
    if text.contains(&0) {
        let count = text.iter().filter(|&&b| b == 0).count();
        let before = text.split(|&b| b == 0).next().unwrap_or_default();
        let behind = if before.is_empty() { String::new() } else { format!(" behind {}", shown(before)) };
        let least = if long { "at least " } else { "" };
        return Some(format!("{least}{count} NUL bytes{behind}, expected text; what was written there is lost"));
    }
    long.then(|| format!("longer than {LONGEST} bytes: {}, expected a shorter line", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of `text` as line and fields, or line and problem.
    fn rows_of(text: &str, dialect: &Dialect) -> Vec<(u64, Vec<String>)> {
        let mut records = Records::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())), dialect);
        let (mut found, mut record) = (Vec::new(), Record::default());
        while records.read(&mut record).unwrap() {
            let fields = record.fields().map(|f| String::from_utf8_lossy(f).into_owned());
            let fields = record.problem().map_or(fields.collect(), |problem| vec![problem.to_string()]);
            found.push((record.line(), fields));
        }
        found
    }

    fn lines_of(rows: &[(u64, Vec<String>)]) -> Vec<(u64, usize)> {
        rows.iter().map(|(line, fields)| (*line, fields.len())).collect()
    }

    #[test]
    fn empty_lines_and_comments_are_no_rows_but_are_counted() {
        let dialect = Dialect { comment: Some("#".into()), ..Default::default() };
        for end in ["\n", "\r\n", "\r"] {
            let text = ["# x, \"y", "", "1,2", "  ", "", "3,\"4", "5\"", "#", "6,7"].join(end);
            assert_eq!(lines_of(&rows_of(&text, &dialect)), [(3, 2), (6, 2), (9, 2)], "{end:?}");
        }
        let tabs = Dialect { delimiter: Some('\t'.into()), ..Default::default() };
        assert_eq!(lines_of(&rows_of("\t\t\n \n1\t2\t3\n", &tabs)), [(1, 3), (3, 3)]);
    }

    #[test]
    fn an_open_quote_loses_one_line() {
        let data: String = (0..200).map(|i| format!("{i},,x\n")).collect();
        for (open, close) in [("a,\"open,x", ""), ("a,\"open,x", "b,\"again,x\n"), ("a,\"open,x", "b,close\",x\n")] {
            for between in [0, 1, 2, 5, 62, 63, 64, 100, 200] {
                let lines: Vec<&str> = data.lines().take(between).collect();
                let between_text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                let text = format!("0,,x\n{open}\n{between_text}{close}z,,x\n");
                let found = rows_of(&text, &Dialect::default());
                // With a quote at the end of a field and no complete line between, it may also be a field of two lines.
                if between == 0 && close.contains("close") {
                    assert_eq!(lines_of(&found), [(1, 3), (2, 3), (4, 3)]);
                    continue;
                }
                let bad: Vec<_> = found.iter().filter(|(_, fields)| fields.len() == 1).collect();
                let lines = text.lines().count();
                let expected = if close.contains("again") { vec![2, lines as u64 - 1] } else { vec![2] };
                assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), expected, "{between} {close:?}");
                assert!(bad[0].1[0].contains("field 2") && bad[0].1[0].contains("\"\\\"open,x\""), "{bad:?}");
                assert_eq!(found.len(), lines, "{between} {close:?}");
            }
        }
    }

    #[test]
    fn a_field_may_hold_line_breaks() {
        let found = rows_of("a,\"one\ntwo\",c\r\nd,\"\"\"e\"\"\r\n\r\n f\",g\n", &Dialect::default());
        let expected = [(1, vec!["a", "one\ntwo", "c"]), (3, vec!["d", "\"e\"\n\n f", "g"])];
        assert_eq!(found, expected.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
        let plain = Dialect { quote: None, ..Default::default() };
        assert_eq!(lines_of(&rows_of("a,\"one\nb,c\n", &plain)), [(1, 2), (2, 2)]);
    }

    proptest::proptest! {
        /// Any fields, written as the standard says, are read back, with any line ending. A field has at most two line
        /// breaks here: one that contains complete rows is taken for an unclosed quote.
        #[test]
        fn what_is_written_is_read_back(
            rows in proptest::collection::vec(proptest::collection::vec("[a\",;é]{0,4}(\n[\"x]{0,3})?", 2..5), 1..20),
            end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let field = |field: &String| match field.contains(['"', ',', '\n']) {
                true => format!("\"{}\"", field.replace('"', "\"\"").replace('\n', end)),
                false => field.clone(),
            };
            let line = |row: &Vec<String>| row.iter().map(field).collect::<Vec<_>>().join(",") + end;
            let text: String = rows.iter().map(line).collect();
            let found: Vec<Vec<String>> = rows_of(&text, &Dialect::default()).into_iter().map(|r| r.1).collect();
            let trimmed = |row: &Vec<String>| row.iter().map(|field| field.trim().to_string()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(found, rows.iter().map(trimmed).collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_lines_and_nul_bytes_are_named_in_short() {
        let text = format!("a,b\n{},2\nc,d\n{}e,f\ng,h\n", "1".repeat(2 * LONGEST), "\0".repeat(700));
        let found = rows_of(&text, &Dialect::default());
        assert_eq!(lines_of(&found), [(1, 2), (2, 1), (3, 2), (4, 1), (5, 2)]);
        assert!(found[1].1[0].starts_with("longer than 1048576 bytes") && found[1].1[0].len() < 200);
        assert!(found[3].1[0].starts_with("700 NUL bytes"), "{}", found[3].1[0]);
    }

    #[test]
    fn a_quote_behind_an_escape_opens_and_closes_nothing() {
        let dialect = Dialect { escape: Some('\\'), ..Default::default() };
        let text = "a,\"one \\\"\ntwo\\\\\",c\nd,\"e\\\"\",f\ng,\"open \\\",h\ni,\"j\",k\n";
        let found = rows_of(text, &dialect);
        assert_eq!(lines_of(&found), [(1, 3), (3, 3), (4, 1), (5, 3)], "{found:?}");
        assert_eq!((found[0].1[1].as_str(), found[1].1[1].as_str()), ("one \"\ntwo\\", "e\""));
        assert!(found[2].1[0].contains("field 2 is not closed"), "{}", found[2].1[0]);
    }

    #[test]
    fn rows_may_end_without_a_line_break() {
        let dialect = Dialect { row_end: Some(';'), ..Default::default() };
        assert_eq!(lines_of(&rows_of("1,2;\n3,4;5,6;\n7,8\n", &dialect)), [(1, 2), (2, 2), (2, 2), (3, 2)]);
    }

    #[test]
    fn lines_at_the_start_are_skipped_whatever_they_hold() {
        let mut records = Records::new(Box::new(&b"\"open\n\n\0\n1,2\n"[..]), &Dialect::default());
        assert_eq!(records.peek().unwrap(), b"\"open");
        let mut record = Record::default();
        assert!(records.skip_lines(3).unwrap() && records.read(&mut record).unwrap());
        assert_eq!((record.line(), record.len()), (4, 2));
        assert!(!records.skip_lines(9).unwrap());
    }
}
