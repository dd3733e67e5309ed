//! The lines of a text, with any line ending.

use std::io::{self, BufRead, ErrorKind};

/// The most bytes of a line, as UTF-8. No more than this of a longer line is in memory at a time.
pub(in crate::source) const LONGEST: usize = 1 << 20;

/// The lines of a text. LF, CR LF, CR and [`row_end`](Self::new) end a line.
pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    /// Text that is read again before the input goes on.
    again: Vec<u8>,
    again_from: usize,
    /// The byte that ends a row beside line breaks; a line feed if there is none.
    row_end: u8,
    number: u64,
    /// Behind so many lines, so many others were passed over, which count in the numbers of lines.
    passed: (u64, u64),
    /// Whether the last line ended with CR, so that a following LF belongs to it.
    after_cr: bool,
    ended_by: Option<u8>,
    /// Bytes that were taken from the input.
    taken: u64,
    /// Whether CR LF ended a line, so that text that is read again may be shorter than it was.
    any_crlf: bool,
    /// Where the last line begins, in bytes from the start of the input, if that is known; and its length.
    begins: Option<u64>,
    length: usize,
}

impl Lines {
    /// The lines of `input`. A byte `row_end` ends a line as well, but does not increase the line number.
    pub(super) fn new(input: Box<dyn BufRead + Send>, row_end: Option<u8>) -> Self {
        let row_end = row_end.unwrap_or(b'\n');
        Self {
            input,
            again: vec![],
            again_from: 0,
            row_end,
            number: 0,
            passed: (0, 0),
            after_cr: false,
            ended_by: None,
            taken: 0,
            any_crlf: false,
            begins: None,
            length: 0,
        }
    }

    /// How many lines have been read, or passed over.
    pub(super) fn number(&self) -> u64 {
        let (behind, passed) = self.passed;
        self.number + if self.number >= behind { passed } else { 0 }
    }

    /// Numbers the lines behind the first `head` as if `passed` lines lay between.
    pub(super) fn pass_over(&mut self, head: u64, passed: u64) {
        self.passed = (head, passed);
    }

    /// Where the last line begins, in bytes from the start of the input, if that is known.
    pub(super) fn begins(&self) -> Option<u64> {
        self.begins
    }

    /// The bytes of the last line, also of one that is longer than what was kept of it.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The byte that ended the last line, a line feed for every line break; `None` at the end of the text.
    pub(super) fn ended_by(&self) -> Option<u8> {
        self.ended_by
    }

    /// Appends the next line to `text`, without its line break. At most [`LONGEST`] bytes and one more are appended.
    /// False at the end of the text.
    ///
    /// # Errors
    /// Errors of the input; `text` then has a part of a line.
    pub(super) fn read(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        self.read_and_find(text, [self.row_end; 3], |_, _| {})
    }

    /// Reads as [`read`](Self::read) does, and calls `seen` with each of the bytes `sought` that is in the line and its
    /// position: one pass finds both the end of the line and the bytes.
    pub(super) fn read_and_find(
        &mut self,
        text: &mut Vec<u8>,
        sought: [u8; 3],
        mut seen: impl FnMut(usize, u8),
    ) -> io::Result<bool> {
        let begin = text.len();
        let row_end = self.row_end;
        let patterns = [b'\n', b'\r', row_end, sought[0], sought[1], sought[2]].map(spread);
        // How much of the line was read, and how much of it was kept.
        let mut length = 0;
        let mut any = false;
        loop {
            let once_more = self.again_from < self.again.len();
            let bytes = match once_more {
                true => &self.again[self.again_from..],
                false => match self.input.fill_buf() {
                    Ok(bytes) => bytes,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                },
            };
            if bytes.is_empty() {
                self.number += u64::from(any);
                self.ended_by = None;
                self.length = length;
                return Ok(any);
            }
            if !once_more && std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                self.input.consume(1);
                self.taken += 1;
                self.any_crlf = true;
                continue;
            }
            if !any {
                self.begins = match once_more {
                    true => self.taken.checked_sub(bytes.len() as u64).filter(|_| !self.any_crlf || one_line(bytes)),
                    false => Some(self.taken),
                };
            }
            any = true;
            let end = find(bytes, &patterns, |at, byte| {
                let ends = matches!(byte, b'\n' | b'\r') || byte == row_end;
                if !ends && length + at <= LONGEST {
                    seen(length + at, byte);
                }
                ends
            });
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LONGEST + 1 - (text.len() - begin);
            text.extend_from_slice(&part[..part.len().min(room)]);
            length += part.len();
            let used = part.len() + usize::from(end.is_some());
            let ended_by = end.map(|end| bytes[end]);
            match once_more {
                true => self.again_from += used,
                false => {
                    self.input.consume(used);
                    self.taken += used as u64;
                }
            }
            self.length = length;
            if let Some(byte) = ended_by {
                let broken = matches!(byte, b'\n' | b'\r');
                self.after_cr = if once_more { self.after_cr } else { byte == b'\r' };
                self.number += u64::from(broken);
                self.ended_by = Some(if broken { b'\n' } else { byte });
                return Ok(true);
            }
        }
    }

    /// Puts back `text`, which was read last, to be read again; `number` lines come before it.
    pub(super) fn read_again(&mut self, text: &[u8], number: u64) {
        let rest = self.again.split_off(self.again_from);
        self.again.clear();
        self.again.extend_from_slice(text);
        self.again.extend_from_slice(&rest);
        let (behind, passed) = self.passed;
        self.again_from = 0;
        self.number = number - if number >= behind + passed { passed } else { 0 };
    }
}

/// Whether text that is read again is one line, which has the length that it had.
fn one_line(text: &[u8]) -> bool {
    !text[..text.len().saturating_sub(1)].contains(&b'\n')
}

/// A word of eight copies of `byte`.
fn spread(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The first position in `bytes` of a byte of `patterns` for which `stop` is true; `stop` is called for each such byte
/// in turn.
///
/// It compares eight bytes at a time, which is several times faster than one by one.
fn find(bytes: &[u8], patterns: &[u64; 6], mut stop: impl FnMut(usize, u8) -> bool) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let mut hits = patterns.iter().fold(0, |hits, pattern| hits | zeros(u64::from_le_bytes(*word) ^ pattern));
        while hits != 0 {
            let at = hits.trailing_zeros() as usize / 8;
            if stop(8 * n + at, word[at]) {
                return Some(8 * n + at);
            }
            hits &= hits - 1;
        }
    }
    let from = bytes.len() - rest.len();
    let sought = |byte: u8| patterns.iter().any(|&pattern| pattern as u8 == byte);
    (0..rest.len()).find(|&at| sought(rest[at]) && stop(from + at, rest[at])).map(|at| from + at)
}

/// The highest bit of each byte of `word` that is zero.
fn zeros(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The addition carries into the highest bit of a byte unless its lower bits are zero, and never beyond it.
    !(((word & LOW) + LOW) | word | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &[u8], row_end: Option<u8>, buffer: usize) -> Vec<(u64, Vec<u8>)> {
        let input = io::BufReader::with_capacity(buffer, io::Cursor::new(text.to_vec()));
        let mut lines = Lines::new(Box::new(input), row_end);
        let mut found = Vec::new();
        let mut line = Vec::new();
        while lines.read(&mut line).unwrap() {
            found.push((lines.number(), std::mem::take(&mut line)));
        }
        found
    }

    #[test]
    fn every_line_break_ends_a_line_and_is_counted_once() {
        let long = "x".repeat(100);
        for text in ["a\nb\n\n\nLONG\nd", "a\r\nb\r\n\r\n\r\nLONG\r\nd\r\n", "a\rb\r\r\rLONG\rd\r"] {
            let text = text.replace("LONG", &long);
            for buffer in [1, 2, 7, 1000] {
                let found = lines_of(text.as_bytes(), None, buffer);
                let expected = [(1, "a"), (2, "b"), (3, ""), (4, ""), (5, &long), (6, "d")];
                assert_eq!(found, expected.map(|(n, line)| (n, line.into())), "{text:?} {buffer}");
            }
        }
    }

    #[test]
    fn the_end_of_a_row_is_no_line_break() {
        let found = lines_of(b"1,2;3,4;\n5,6;\n", Some(b';'), 100);
        let expected = [(0, "1,2"), (0, "3,4"), (1, ""), (1, "5,6"), (2, "")];
        assert_eq!(found, expected.map(|(n, line)| (n, line.into())));
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let text = [vec![b'x'; LONGEST], b"\n".to_vec(), vec![b'y'; 3 * LONGEST], b"\nz\n".to_vec()].concat();
        let found: Vec<_> = lines_of(&text, None, 1 << 16).iter().map(|(_, line)| (line.len(), line[0])).collect();
        assert_eq!(found, [(LONGEST, b'x'), (LONGEST + 1, b'y'), (1, b'z')]);
    }

    #[test]
    fn every_byte_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                let mut bytes = vec![b'-'; length];
                (bytes[at], bytes[length - 1]) = (b',', if at + 1 < length { 0 } else { b',' });
                let patterns = [b'\n', b'\r', b'\n', b',', b'"', 0].map(spread);
                let mut seen = Vec::new();
                assert_eq!(find(&bytes, &patterns, |at, byte| (seen.push((at, byte)), false).1), None);
                let expected = [(at, b','), (length - 1, 0)];
                assert_eq!(seen, expected[..if at + 1 < length { 2 } else { 1 }]);
                assert_eq!(find(&bytes, &patterns, |_, byte| byte == b','), Some(at));
            }
        }
        for (byte, other) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
            let hit = zeros(spread(byte) ^ spread(other)) != 0;
            assert_eq!(hit, byte == other);
        }
        assert_eq!(zeros(u64::from_le_bytes([0, 1, 0x80, 0, 0xff, 0, 0x7f, 1])), 0x0000_8000_8000_0080);
    }

    #[test]
    fn lines_are_read_once_more() {
        let mut lines = Lines::new(Box::new(&b"a\r\nb\r\nc"[..]), None);
        let mut text = Vec::new();
        lines.read(&mut text).unwrap();
        lines.read(&mut text).unwrap();
        lines.read_again(b"b\n", 1);
        lines.read_again(b"x\n", 1);
        let mut rest = Vec::new();
        while lines.read(&mut rest).unwrap() {
            rest.push(b'0' + lines.number() as u8);
        }
        assert_eq!(rest, b"x2b3c4");
    }
}
