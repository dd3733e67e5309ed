//! Standard input as a source that is followed: lines as they come, once.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::growing::{bytes_of_lines, whole_rows};
use crate::error::{Error, Result};
use crate::source::csv::{CsvSpec, head_lines};
use crate::source::location::DataFile;

/// The name of the input in messages, and in the column `file` of recordings without keys.
pub(super) const NAME: &str = "standard input";
/// Pieces that are read ahead: a slow table slows the writer of the input.
const AHEAD: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 1 << 16;
/// The most bytes of a portion, and of a header.
const MOST_BYTES: usize = 32 << 20;

/// The lines of an input that is read once.
#[derive(Debug)]
pub(super) struct Input {
    pieces: Receiver<std::io::Result<Vec<u8>>>,
    /// What was read and not yet given.
    text: Vec<u8>,
    /// The header, and its lines, once it was found.
    head: Option<(Vec<u8>, u64)>,
    /// The lines behind the header that were given.
    passed: u64,
    over: bool,
}

/// Lines of the input.
pub(super) struct Taken {
    /// The lines behind the header, and their number; `None` if no whole line has come.
    pub(super) lines: Option<(DataFile, u64)>,
    /// Whether more was there.
    pub(super) more: bool,
}

impl Input {
    /// Reads `input` on a thread of its own, which ends with it.
    ///
    /// # Errors
    /// Kind `Io` if the system gives no thread.
    pub(super) fn of(input: impl Read + Send + 'static) -> Result<Self> {
        let (to, pieces) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new().name("input".into());
        thread.spawn(move || pump(input, &to)).map_err(|e| Error::io("cannot start a thread").with_source(e))?;
        Ok(Self { pieces, text: Vec::new(), head: None, passed: 0, over: false })
    }

    /// Whether all of it was given.
    pub(super) fn is_over(&self) -> bool {
        self.over && self.text.is_empty()
    }

    /// The whole lines that come within `wait`, at most `most` of them; sooner if there are as many, or if the input ends.
    ///
    /// # Errors
    /// Kind `Io` if the input cannot be read; `Input` if its header does not have the columns.
    pub(super) fn take(&mut self, csv: &CsvSpec, wait: Duration, most: u64) -> Result<Taken> {
        let until = Instant::now() + wait;
        while !self.over && self.text.len() < MOST_BYTES {
            let lines = self.text.iter().filter(|&&byte| byte == b'\n').count() as u64;
            if lines >= most {
                break;
            }
            match self.pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(piece) => {
                    let piece = piece.map_err(|e| Error::io(format!("{NAME} cannot be read")).with_source(e))?;
                    self.text.extend(piece);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => self.over = true,
            }
        }
        let nothing = Taken { lines: None, more: false };
        if self.head.is_none() && !self.find_head(csv)? {
            return Ok(nothing);
        }
        let Some((head, head_lines)) = &self.head else { return Ok(nothing) };
        let Some((end, lines)) = whole_rows(&self.text, csv.dialect.quote_byte(), most, self.over) else {
            if self.text.len() >= MOST_BYTES {
                return Err(Error::input(format!("{NAME}: no line ends within {MOST_BYTES} bytes, expected lines")));
            }
            return Ok(nothing);
        };
        let rest = self.text.split_off(end);
        let mut content = head.clone();
        content.append(&mut self.text);
        self.text = rest;
        let data = DataFile::of_bytes(NAME, content).passing_over(*head_lines, self.passed);
        self.passed += lines;
        Ok(Taken { lines: Some((data, lines)), more: lines >= most && !self.text.is_empty() })
    }

    /// Finds the header among the lines that have come. False if there are too few to tell.
    fn find_head(&mut self, csv: &CsvSpec) -> Result<bool> {
        let Some(end) = self.text.iter().rposition(|&byte| byte == b'\n') else {
            return match self.over && !self.text.is_empty() {
                true => {
                    Err(Error::input(format!("{NAME}: it ended within its first line, expected a header and lines")))
                }
                false => Ok(false),
            };
        };
        let lines = match head_lines(&DataFile::of_bytes(NAME, self.text[..=end].to_vec()), csv) {
            Ok(lines) => lines,
            Err(_) if !self.over && self.text.len() < MOST_BYTES => return Ok(false),
            Err(e) => return Err(e),
        };
        let rest = self.text.split_off(bytes_of_lines(&self.text, lines));
        self.head = Some((std::mem::replace(&mut self.text, rest), lines));
        Ok(true)
    }
}

/// Passes on what `input` gives, until it ends or nobody takes it.
fn pump(mut input: impl Read, to: &SyncSender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let read = match input.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                piece.truncate(read);
                Ok(piece)
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
        let failed = read.is_err();
        if to.send(read).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn csv() -> CsvSpec {
        CsvSpec { keys: vec!["m".into()], ..CsvSpec::new("-", &["x"]) }
    }

    /// The text that a portion holds, and how many lines were passed over.
    fn text(taken: Taken) -> Option<(String, u64, bool)> {
        let (data, _) = taken.lines?;
        let bytes = data.read(1 << 20).unwrap();
        Some((String::from_utf8(bytes).unwrap(), data.passes_over().unwrap().1, taken.more))
    }

    #[test]
    fn lines_are_given_once_behind_their_header() {
        let mut input = Input::of(&b"m,x\na,1\na,2\nb,3\nb,4"[..]).unwrap();
        let mut take = |most| text(input.take(&csv(), WAIT, most).unwrap());
        assert_eq!(take(2), Some(("m,x\na,1\na,2\n".into(), 0, true)));
        assert_eq!(take(1), Some(("m,x\nb,3\n".into(), 2, true)));
        // The last line need not end.
        assert_eq!(take(5), Some(("m,x\nb,4".into(), 3, false)));
        assert_eq!(take(5), None);
        assert!(input.is_over());
    }

    #[test]
    fn an_input_without_the_columns_is_refused() {
        let take =
            |text: &'static [u8]| Input::of(text).unwrap().take(&csv(), WAIT, 9).map(|taken| taken.lines.is_some());
        assert!(!take(b"").unwrap());
        assert!(take(b"m,y\na,1\n").unwrap_err().to_string().contains("x"));
        assert!(take(b"m,x").unwrap_err().to_string().contains("ended within its first line"));
    }
}
