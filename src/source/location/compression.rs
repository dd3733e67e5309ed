//! Compressed files: gzip, bzip2 and zstd, recognised by their content.
//!
//! A file may be a sequence of compressed members, as `cat`, loggers and parallel compressors write. Zeros at its end
//! are padding; anything else after the last member is ignored with a warning, as `gzip` does. Memory is bounded: a
//! zstd frame may ask for a window of up to 128 MiB, the default limit of the tool `zstd`; the others need less.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;

use crate::source::fence::caught;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 16;
/// The binary logarithm of the largest window of a zstd frame, in bytes.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The files for which the warning about ignored data was given.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// How many bytes are enough to recognise a file.
const TELLING: usize = 10;

/// The endings of the names of compressed files, supported ones first. Files of the other compressions are listed too,
/// so that they are refused by name and not silently skipped.
const SUFFIXES: [&str; 11] = [".gz", ".bz2", ".zst", ".zstd", ".xz", ".zip", ".lz4", ".lzma", ".lz", ".7z", ".z"];

/// `name` without the ending of its compression, in upper or lower case.
pub(in crate::source) fn plain_name(name: &str) -> &str {
    let ends = |suffix: &&&str| {
        name.len()
            .checked_sub(suffix.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    SUFFIXES.iter().find(ends).map_or(name, |suffix| &name[..name.len() - suffix.len()])
}

/// The content of `raw`, decompressed if it is compressed; warnings call it `name`. Sets `more` if something is found
/// after the compressed data.
///
/// # Errors
/// Errors of reading its first bytes; [`Unsupported`](ErrorKind::Unsupported) for a compressed file of another kind. A
/// damaged file is [`InvalidData`](ErrorKind::InvalidData) or [`UnexpectedEof`](ErrorKind::UnexpectedEof), at the place
/// of the damage.
pub(super) fn decompressed(
    raw: Box<dyn Read + Send>,
    name: &str,
    more: &Arc<AtomicBool>,
) -> io::Result<Box<dyn BufRead + Send>> {
    let mut raw = Raw::new(raw);
    let start = raw.peek(TELLING)?;
    // The bytes decide, not the name: a .csv may be compressed, and a .gz may not be.
    if let Some(codec) = Codec::of(start) {
        let members = Members { codec, name: name.to_owned(), more: Arc::clone(more), state: State::Between(raw) };
        return Ok(Box::new(BufReader::with_capacity(BUFFER, members)));
    }
    match unsupported(start) {
        Some((what, mend)) => Err(io::Error::new(
            ErrorKind::Unsupported,
            format!(
                "it is {what}; expected a file that is plain or compressed by gzip, bzip2 or zstd: {mend} it first"
            ),
        )),
        None => Ok(Box::new(raw)),
    }
}

/// Whether `raw` begins like a compressed file, of a supported kind or not.
pub(super) fn begins_compressed(raw: impl Read) -> io::Result<bool> {
    let mut start = Vec::new();
    raw.take(TELLING as u64).read_to_end(&mut start)?;
    Ok(Codec::of(&start).is_some() || unsupported(&start).is_some())
}

/// The unsupported format of a file, and how to make it readable.
fn unsupported(start: &[u8]) -> Option<(&'static str, &'static str)> {
    const KINDS: [(&[u8], &str, &str); 7] = [
        (b"\xfd7zXZ\0", "an xz file", "decompress (xz -d)"),
        (b"PK\x03\x04", "a zip archive", "unpack (unzip)"),
        (b"PK\x05\x06", "an empty zip archive", "unpack (unzip)"),
        (b"\x04\x22\x4d\x18", "an lz4 file", "decompress (lz4 -d)"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack (7z x)"),
        (b"LZIP\x01", "an lzip file", "decompress (lzip -d)"),
        (b"\x1f\x9d", "a file of `compress`", "decompress (uncompress)"),
    ];
    KINDS.iter().find(|(magic, ..)| start.starts_with(magic)).map(|(_, what, mend)| (*what, *mend))
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip,
    Bzip2,
    Zstd,
}

impl Codec {
    /// The compression whose files begin with these bytes.
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // The block's magic number too: text may begin with BZh.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some(Self::Bzip2),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Some(Self::Bzip2),
            // The second alternative is frames without data; parallel compressors write them.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn open(self, raw: Raw) -> io::Result<Member> {
        Ok(match self {
            Self::Gzip => Member::Gzip(Box::new(GzDecoder::new(raw))),
            Self::Bzip2 => Member::Bzip2(Box::new(BzDecoder::new(raw))),
            Self::Zstd => {
                let mut frame = zstd::Decoder::with_buffer(raw)?.single_frame();
                frame.window_log_max(ZSTD_WINDOW_LOG)?;
                Member::Zstd(Box::new(frame))
            }
        })
    }
}

/// One compressed member of a file.
enum Member {
    Gzip(Box<GzDecoder<Raw>>),
    Bzip2(Box<BzDecoder<Raw>>),
    Zstd(Box<zstd::Decoder<'static, Raw>>),
}

impl Member {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(member) => member.read(out),
            Self::Bzip2(member) => member.read(out),
            Self::Zstd(member) => member.read(out),
        }
    }

    fn raw(&self) -> &Raw {
        match self {
            Self::Gzip(member) => member.get_ref(),
            Self::Bzip2(member) => member.get_ref(),
            Self::Zstd(member) => member.get_ref(),
        }
    }

    fn into_raw(self) -> Raw {
        match self {
            Self::Gzip(member) => member.into_inner(),
            Self::Bzip2(member) => member.into_inner(),
            Self::Zstd(member) => member.finish(),
        }
    }
}

/// Where the reading of a compressed file is.
enum State {
    Inside(Member),
    Between(Raw),
    Over,
}

/// The members of a compressed file, one after the other.
struct Members {
    codec: Codec,
    name: String,
    more: Arc<AtomicBool>,
    state: State,
}

impl Members {
    /// Goes on at the start, or after a member: with another one, or with the end.
    fn next(&mut self, mut raw: Raw) -> io::Result<State> {
        while raw.peek(1)?.first() == Some(&0) {
            let zeros = raw.ready().iter().take_while(|byte| **byte == 0).count();
            raw.consume(zeros);
        }
        let start = raw.peek(TELLING)?;
        if start.is_empty() {
            return Ok(State::Over);
        }
        if Codec::of(start) == Some(self.codec) {
            return Ok(State::Inside(self.codec.open(raw)?));
        }
        self.more.store(true, Ordering::Relaxed);
        // The warning is given once per file, however often it is read.
        if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone()) {
            tracing::warn!("{}: the data after the compressed part is ignored", self.name);
        }
        Ok(State::Over)
    }
}

impl Read for Members {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            // An error ends the reading.
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Between(raw) => self.state = self.next(raw)?,
                State::Inside(mut member) => match caught(|| member.read(out)) {
                    Ok(Ok(0)) => self.state = State::Between(member.into_raw()),
                    Ok(Ok(n)) => {
                        self.state = State::Inside(member);
                        return Ok(n);
                    }
                    Ok(Err(e)) if e.kind() == ErrorKind::Interrupted => {
                        self.state = State::Inside(member);
                        return Err(e);
                    }
                    Ok(Err(e)) if member.raw().failed || e.kind() == ErrorKind::UnexpectedEof => return Err(e),
                    Ok(Err(e)) => return Err(io::Error::new(ErrorKind::InvalidData, e)),
                    Err(panic) => return Err(io::Error::new(ErrorKind::InvalidData, panic)),
                },
            }
        }
    }
}

/// A file without decompression, with a way to look ahead.
struct Raw {
    inner: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What was read and not consumed.
    ready: Range<usize>,
    /// Whether reading failed, so that an error is not the compressed data's.
    failed: bool,
}

impl Raw {
    fn new(inner: Box<dyn Read + Send>) -> Self {
        Self { inner, buffer: vec![0; BUFFER], ready: 0..0, failed: false }
    }

    fn ready(&self) -> &[u8] {
        &self.buffer[self.ready.clone()]
    }

    /// Reads until `wanted` bytes are there (at most the size of the buffer), or the file ends.
    fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.ready.len() < wanted {
            self.buffer.copy_within(self.ready.clone(), 0);
            self.ready = 0..self.ready.len();
            let read = loop {
                match self.inner.read(&mut self.buffer[self.ready.end..]) {
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.failed |= read.is_err();
            match read? {
                0 => break,
                n => self.ready.end += n,
            }
        }
        Ok(self.ready())
    }
}

impl Read for Raw {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && out.len() >= BUFFER {
            let read = self.inner.read(out);
            self.failed |= read.is_err();
            return read;
        }
        let ready = self.peek(1)?;
        let n = ready.len().min(out.len());
        out[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Raw {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, n: usize) {
        self.ready.start = (self.ready.start + n).min(self.ready.end);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Gives one byte at a time, as a slow network may.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let most = out.len().min(1);
            self.0.read(&mut out[..most])
        }
    }

    /// What is read and how it ends; the same whether the bytes come one by one or at once.
    fn read(bytes: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
        let bytes = io::Cursor::new(bytes.to_vec());
        let raws: [Box<dyn Read + Send>; 2] = [Box::new(Slow(bytes.clone())), Box::new(bytes)];
        let [slow, fast] = raws.map(|raw| {
            let mut out = Vec::new();
            let e = decompressed(raw, "x", &Arc::default()).and_then(|mut reader| reader.read_to_end(&mut out)).err();
            (out, e.map(|e| e.kind()))
        });
        assert_eq!(slow.1, fast.1);
        // How much of a damaged file a decoder gives before the damage depends on how the bytes come.
        assert!(slow.0 == fast.0 || slow.1.is_some(), "{} and {} bytes", slow.0.len(), fast.0.len());
        fast
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).unwrap()
    }

    #[test]
    fn every_codec_reads_members_padding_and_what_stands_behind() {
        let text: Vec<u8> = (0..300_u32).flat_map(|i| format!("{},{}\n", i * i, i % 7).into_bytes()).collect();
        let (a, b) = text.split_at(1000);
        for pack in [gzip, bzip2, zstd] {
            let whole = pack(&text);
            let expected = (text.clone(), None);
            assert_eq!(read(&whole), expected);
            assert_eq!(read(&[pack(a), pack(b)].concat()), expected);
            assert_eq!(read(&[pack(a), pack(b""), vec![0; 70_000], pack(b), vec![0; 512]].concat()), expected);
            assert_eq!(read(&[whole.clone(), b"rubbish\n".to_vec()].concat()), expected);
            // A member of another codec does not count.
            assert_eq!(read(&[whole.clone(), vec![0x1f, 0x9d, 1]].concat()), expected);
        }
        assert_eq!(read(&text), (text.clone(), None), "plain text stays as it is");
        assert_eq!(read(b""), (vec![], None));
        assert_eq!(read(b"BZh9,x\n1,2\n"), (b"BZh9,x\n1,2\n".to_vec(), None), "text that begins like bzip2");
    }

    #[test]
    fn frames_without_data_are_passed_over() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"meta"].concat();
        assert_eq!(read(&[skippable.clone(), zstd(b"a"), skippable, zstd(b"b")].concat()), (b"ab".to_vec(), None));
    }

    #[test]
    fn a_cut_or_damaged_file_gives_what_was_good_before() {
        let text: Vec<u8> = (0..90_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for pack in [gzip, bzip2, zstd] {
            let whole = pack(&text);
            let (out, e) = read(&whole[..whole.len() - 9]);
            assert_eq!(e, Some(ErrorKind::UnexpectedEof));
            assert!(text.starts_with(&out));
            let mut turned = whole.clone();
            turned[whole.len() / 2] ^= 0x55;
            let (out, e) = read(&turned);
            assert!(e.is_some() || out != text, "the damage is in the data or found");
            assert!(e.is_none_or(|e| e == ErrorKind::InvalidData || e == ErrorKind::UnexpectedEof), "{e:?}");
        }
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
        out.window_log(30).unwrap();
        out.long_distance_matching(true).unwrap();
        out.write_all(&[7; 1000]).unwrap();
        let (_, e) = read(&out.finish().unwrap());
        assert_eq!(e, Some(ErrorKind::InvalidData));
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for (start, what) in
            [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"PK\x03\x04\x14\0", "zip"), (b"7z\xbc\xaf\x27\x1c", "7-Zip")]
        {
            let e = decompressed(Box::new(start), "x", &Arc::default()).err().unwrap();
            assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains(what), "{e}");
        }
        assert_eq!(read(b"PK").0, b"PK");
    }

    #[test]
    fn names_lose_what_says_how_they_are_compressed() {
        for (name, plain) in
            [("a.csv.gz", "a.csv"), ("A.CSV.ZST", "A.CSV"), ("a.csv", "a.csv"), ("ü.z", "ü"), ("gz", "gz")]
        {
            assert_eq!(plain_name(name), plain);
        }
    }
}
