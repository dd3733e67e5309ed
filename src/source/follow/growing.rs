//! The complete lines of a file that grows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::seen::{ReadPart, Seen, Stamp};
use crate::error::{Error, Result};
use crate::source::csv::{CsvSpec, Encoding, head_lines};
use crate::source::location::{DataFile, is_compressed};
use crate::source::saved::hash;

/// The least number of bytes that is asked for: any row fits.
pub(super) const LEAST_BYTES: u64 = 4 << 20;
/// The most bytes of a file's beginning that show whether it is still the same file.
const BEGINNING: u64 = 4096;
/// The most bytes up to the end of a header.
const MOST_HEAD: u64 = 2 << 20;

/// What is new in a growing file.
#[derive(Default)]
pub(super) struct Grown {
    /// What of it was read with this; `None` if it is too short to tell.
    pub(super) seen: Option<Seen>,
    /// The new lines behind the header, and their number.
    pub(super) new: Option<(DataFile, u64)>,
    /// What is wrong with it, if it is another file than before.
    pub(super) problem: Option<String>,
    /// Whether it has more than was taken.
    pub(super) more: bool,
}

/// The most that is taken of a file.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) lines: u64,
    /// Bytes, unless a single line has more.
    pub(super) bytes: u64,
}

/// What is new in `file` since `before`: its complete lines, at most `most` of them. Of a file that is `idle`, the
/// last line need not be complete.
///
/// # Errors
/// Kind `Input` if it cannot be read in parts; `Io` if the disk fails.
pub(super) fn read(
    file: &DataFile,
    csv: &CsvSpec,
    stamp: Stamp,
    before: Option<Seen>,
    idle: bool,
    most: Most,
) -> Result<Grown> {
    let Some(mut open) = file.local()? else {
        let name = file.name();
        return Err(Error::input(format!("{name}: files in an object store do not grow; expected files = \"whole\"")));
    };
    if before.is_none() {
        check(file, csv)?;
    }
    let mut part = match before {
        // It was found to be another file, and is so still; or it was not usable.
        Some(Seen { part: None, .. }) => return Ok(Grown::default()),
        Some(Seen { part: Some(part), .. }) => part,
        None => match begin(file, csv, &mut open, stamp, idle)? {
            Some(part) => part,
            None => return Ok(Grown::default()),
        },
    };
    let io = |e| file.unreadable(e);
    if let Some(reason) = another(&part, &mut open, stamp).map_err(io)? {
        return Ok(Grown { seen: Some(Seen::whole(stamp)), problem: Some(reason), ..Grown::default() });
    }
    let quote = csv.dialect.quote_byte();
    let from = part.bytes.max(part.head.1);
    let there = stamp.bytes.saturating_sub(from);
    let mut bytes = Vec::new();
    open.seek(SeekFrom::Start(from)).map_err(io)?;
    (&mut open).take(there.min(most.bytes)).read_to_end(&mut bytes).map_err(io)?;
    let last = bytes.len() as u64 == there && idle;
    let Some((end, lines)) = whole_rows(&bytes, quote, most.lines, last) else {
        if bytes.len() as u64 >= LEAST_BYTES {
            return Err(Error::input(format!(
                "{}: no line ends within {} bytes behind line {}, expected lines",
                file.name(),
                bytes.len(),
                part.lines
            )));
        }
        return Ok(Grown { seen: Some(Seen { stamp, part: Some(part) }), ..Grown::default() });
    };
    // What is left has whole lines, unless the end of the file was reached.
    let more = lines >= most.lines && end < bytes.len() || there > bytes.len() as u64;
    bytes.truncate(end);
    let (head_lines, head_bytes) = part.head;
    let mut content = Vec::new();
    open.seek(SeekFrom::Start(0)).map_err(io)?;
    (&mut open).take(head_bytes).read_to_end(&mut content).map_err(io)?;
    content.append(&mut bytes);
    let passed = part.lines.max(head_lines) - head_lines;
    let data = file.holding(content).passing_over(head_lines, passed).passing_bytes(from - head_bytes);
    part.lines = part.lines.max(head_lines) + lines;
    part.bytes = from + end as u64;
    part.begins = beginning(&mut open, part.bytes.min(BEGINNING)).map_err(io)?;
    Ok(Grown { seen: Some(Seen { stamp, part: Some(part) }), new: Some((data, lines)), problem: None, more })
}

/// Checks that a file can be read in parts.
fn check(file: &DataFile, csv: &CsvSpec) -> Result<()> {
    let cannot = |what: &str| {
        Err(Error::input(format!("{}: {what} cannot be read while it grows; expected files = \"whole\"", file.name())))
    };
    match csv.dialect.encoding {
        Encoding::Utf8 | Encoding::Latin1 | Encoding::Windows1252 => {}
        Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be => return cannot("text in UTF-16"),
    }
    if is_compressed(file)? {
        return cannot("a compressed file");
    }
    if crate::source::csv::is_parquet(file.name()) {
        return cannot("a Parquet file");
    }
    Ok(())
}

/// The part of a file that no line was read of, once its header is complete.
fn begin(file: &DataFile, csv: &CsvSpec, open: &mut File, stamp: Stamp, idle: bool) -> Result<Option<ReadPart>> {
    let mut start = Vec::new();
    open.take(MOST_HEAD.min(stamp.bytes)).read_to_end(&mut start).map_err(|e| file.unreadable(e))?;
    // Only complete lines: the header may be half written.
    let Some(end) = start.iter().rposition(|&byte| byte == b'\n') else { return Ok(None) };
    start.truncate(end + 1);
    let lines = match head_lines(&file.holding(start.clone()), csv) {
        Ok(lines) => lines,
        // There may be too few lines to find the header among them.
        Err(_) if !idle && (start.len() as u64) < MOST_HEAD => return Ok(None),
        Err(e) => return Err(e),
    };
    let bytes = bytes_of_lines(&start, lines) as u64;
    Ok(Some(ReadPart { bytes: 0, lines: 0, head: (lines, bytes), begins: (0, 0) }))
}

/// The bytes of the first `lines` lines of `text`; all of it if it has fewer.
pub(super) fn bytes_of_lines(text: &[u8], lines: u64) -> usize {
    let Some(last) = lines.checked_sub(1) else { return 0 };
    let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    ends.nth(last as usize).unwrap_or(text.len())
}

/// Why `open` is not the file whose beginning was read.
fn another(part: &ReadPart, open: &mut File, stamp: Stamp) -> std::io::Result<Option<String>> {
    if stamp.bytes < part.bytes {
        return Ok(Some(format!(
            "shorter than what was read of it: {} bytes, of which {} were read; what is in it now is not read: give a new \
             file another name",
            stamp.bytes, part.bytes
        )));
    }
    if part.begins.1 > 0 && beginning(open, part.begins.1)? != part.begins {
        return Ok(Some(
            "another file than the one that was read under this name: it begins with other bytes; what is in it now is not \
             read: give a new file another name"
                .into(),
        ));
    }
    Ok(None)
}

/// A hash of the first `count` bytes, and their number.
fn beginning(open: &mut File, count: u64) -> std::io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    open.seek(SeekFrom::Start(0))?;
    open.take(count).read_to_end(&mut bytes)?;
    Ok((hash(&bytes), bytes.len() as u64))
}

/// How many of `bytes` are whole rows, of at most `most` lines, and how many lines. A line break inside quotes does not
/// end a row, unless the quote is open for longer than a row can be. `last`: the last line need not end.
pub(super) fn whole_rows(bytes: &[u8], quote: Option<u8>, most: u64, last: bool) -> Option<(usize, u64)> {
    /// A quote that is open for more lines is a mistake, as for the reader of rows.
    const MOST_QUOTED: u64 = 64;
    let (mut quoted, mut lines, mut found) = (false, 0, None);
    for (at, &byte) in bytes.iter().enumerate() {
        if Some(byte) == quote {
            quoted = !quoted;
        }
        if byte == b'\n' {
            lines += 1;
            let before = found.map_or(0, |(_, before)| before);
            quoted &= lines - before <= MOST_QUOTED;
            if !quoted {
                found = Some((at + 1, lines));
                if lines >= most {
                    return found;
                }
            }
        }
    }
    let rest = found.map_or(0, |(end, _)| end) < bytes.len();
    if last && rest { Some((bytes.len(), lines + u64::from(bytes.last() != Some(&b'\n')))) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_bytes() {
        let bytes = |lines| bytes_of_lines(b"a\nbc\nd", lines);
        assert_eq!((bytes(0), bytes(1), bytes(2), bytes(3), bytes(9)), (0, 2, 5, 6, 6));
    }

    #[test]
    fn rows_end_outside_of_quotes() {
        let rows = |text: &str, most, last| whole_rows(text.as_bytes(), Some(b'"'), most, last);
        assert_eq!(rows("a,b\nc,d\ne", 9, false), Some((8, 2)));
        assert_eq!(rows("a,b\nc,d\ne", 1, false), Some((4, 1)));
        assert_eq!(rows("a,b\nc,d\ne", 9, true), Some((9, 3)));
        assert_eq!(rows("a,\"b\nc\"\nd", 9, false), Some((8, 2)));
        assert_eq!(rows("a,\"b\n", 9, false), None);
        assert_eq!(rows("", 9, true), None);
        assert_eq!(rows("a", 9, false), None);
        // A quote that nobody closes costs no more than the lines that a row may have.
        let text = format!("\"{}", "a\n".repeat(100));
        assert_eq!(rows(&text, 999, false), Some((text.len(), 100)));
        assert_eq!(whole_rows(b"a\"\nb\n", None, 9, false), Some((5, 2)));
    }
}
