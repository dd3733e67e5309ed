//! The lines of a text, one after the other, however they end.

use std::io::{self, BufRead, ErrorKind};

/// The most bytes of a line, as UTF-8. Of a longer one no more than this is in memory at a time.
pub(super) const LONGEST: usize = 1 << 20;

/// The lines of a text. LF, CR LF and CR end a line alike, and [`row_end`](Self::new) as well.
pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    /// What is to be read once more before the input goes on.
    again: Vec<u8>,
    again_from: usize,
    /// A line feed where nothing but line breaks ends a line.
    row_end: u8,
    number: u64,
    /// Whether the last line of the input ended with CR, so that an LF belongs to it.
    after_cr: bool,
    ended_by: Option<u8>,
}

impl Lines {
    /// The lines of `input`, which a byte `row_end` ends as well, without being counted as a line.
    pub(super) fn new(input: Box<dyn BufRead + Send>, row_end: Option<u8>) -> Self {
        let row_end = row_end.unwrap_or(b'\n');
        Self { input, again: vec![], again_from: 0, row_end, number: 0, after_cr: false, ended_by: None }
    }

    /// How many lines have been read.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What ended the last line: a line feed stands for every line break. None at the end of the text.
    pub(super) fn ended_by(&self) -> Option<u8> {
        self.ended_by
    }

    /// Appends the next line to `text`, without its end. Of a line that is longer than [`LONGEST`] one byte more than
    /// that is appended. False at the end of the text.
    ///
    /// # Errors
    /// Those of the input; what was appended is then a part of a line.
    pub(super) fn read(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let begin = text.len();
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
                return Ok(any);
            }
            if !once_more && std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                self.input.consume(1);
                continue;
            }
            any = true;
            let end = line_end(bytes, self.row_end);
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LONGEST + 1 - (text.len() - begin);
            text.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            let ended_by = end.map(|end| bytes[end]);
            match once_more {
                true => self.again_from += used,
                false => self.input.consume(used),
            }
            if let Some(byte) = ended_by {
                let broken = matches!(byte, b'\n' | b'\r');
                self.after_cr = if once_more { self.after_cr } else { byte == b'\r' };
                self.number += u64::from(broken);
                self.ended_by = Some(if broken { b'\n' } else { byte });
                return Ok(true);
            }
        }
    }

    /// Has `text`, which was read last, read once more, after `number` lines.
    pub(super) fn read_again(&mut self, text: &[u8], number: u64) {
        let rest = self.again.split_off(self.again_from);
        self.again.clear();
        self.again.extend_from_slice(text);
        self.again.extend_from_slice(&rest);
        (self.again_from, self.number) = (0, number);
    }
}

/// Where the first line of `bytes` ends, if it does.
fn line_end(bytes: &[u8], row_end: u8) -> Option<usize> {
    let ends = |b: u8| (b == b'\n') | (b == b'\r') | (b == row_end);
    // Whole blocks are looked at without a branch a byte, which takes a fraction of the time.
    let whole = bytes.chunks_exact(32).take_while(|block| !block.iter().fold(false, |any, &b| any | ends(b)));
    let from = 32 * whole.count();
    bytes[from..].iter().position(|&b| ends(b)).map(|at| from + at)
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
