//! Encodings: any text file is read as a stream of UTF-8.

use std::io::{self, BufRead, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252, mem};

use super::content::{no_values, of_nul_bytes};
use crate::error::{Error, Result};
use crate::source::location::DataFile;

/// What the bytes of a file mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
    /// Windows-1252: Latin-1 with printable characters in place of the second block of control characters.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// UTF-16, with the byte order that the mark at the start of each file says.
    #[serde(rename = "utf-16")]
    Utf16,
    /// UTF-16, little-endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big-endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

/// How much of a file is read to find out what it is.
const START: u64 = 4096;
/// How many bytes are decoded at a time.
const PIECE: usize = 1 << 15;
/// Replaces bytes that are invalid in the encoding: it never occurs in UTF-8, so it cannot be taken for text.
const NOT_TEXT: u8 = 0xff;

/// A file as UTF-8.
pub(in crate::source) struct OpenText {
    /// Its text, without a byte-order mark.
    pub text: Box<dyn BufRead + Send>,
    /// Its encoding: that of the mark if there is one, else the given one.
    pub encoding: Encoding,
    /// The bytes of the mark.
    pub mark: u64,
}

/// Opens `file` as UTF-8; `encoding` is what it is in without a mark. Bytes that are invalid in the encoding become bytes that are invalid in UTF-8. Blocks.
///
/// # Errors
/// Kind `Input` if it is missing, empty, damaged, or not text in this encoding by its first bytes; `Io` if it cannot be
/// read.
pub(in crate::source) fn open_text(file: &DataFile, encoding: Encoding) -> Result<OpenText> {
    let mut input = file.open()?;
    let mut start = Vec::new();
    input.by_ref().take(START).read_to_end(&mut start).map_err(|e| file.unreadable_after(e, " at its start"))?;
    let wrong = |what: &str| Error::input(format!("{}: {what}", file.name()));
    let (encoding, mark) = match start[..] {
        [0xff, 0xfe, 0, 0, ..] => return Err(wrong("UTF-32 text, expected UTF-8 (or another encoding that is named)")),
        [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
        [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
        [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
        _ => (encoding, 0),
    };
    if start.len() == mark {
        return Err(wrong("empty, expected lines of values with a delimiter between them"));
    }
    if let Some(what) = no_values(&start) {
        return Err(wrong(&what));
    }
    if let Some(what) = of_nul_bytes(&start).filter(|_| encoding == Encoding::Utf8) {
        return Err(wrong(&what));
    }
    let rest = Cursor::new(start.split_off(mark)).chain(input);
    let decode = match encoding {
        Encoding::Utf8 => return Ok(OpenText { text: Box::new(rest), encoding, mark: mark as u64 }),
        Encoding::Latin1 => Decode::Latin1,
        Encoding::Windows1252 => Decode::With(WINDOWS_1252.new_decoder_without_bom_handling()),
        Encoding::Utf16Le => Decode::With(UTF_16LE.new_decoder_without_bom_handling()),
        Encoding::Utf16Be => Decode::With(UTF_16BE.new_decoder_without_bom_handling()),
        Encoding::Utf16 => {
            return Err(wrong("no byte-order mark at its start, expected encoding = \"utf-16le\" or \"utf-16be\""));
        }
    };
    let decoded = Decoded { input: rest, decode, text: vec![0; 3 * PIECE], from: 0, to: 0, over: false };
    Ok(OpenText { text: Box::new(decoded), encoding, mark: mark as u64 })
}

/// How bytes become UTF-8.
enum Decode {
    Latin1,
    With(Decoder),
}

/// The text of `input` as UTF-8.
struct Decoded<R> {
    input: R,
    decode: Decode,
    /// Decoded bytes, of which those from `from` to `to` have not been read.
    text: Vec<u8>,
    from: usize,
    to: usize,
    over: bool,
}

impl<R: BufRead> BufRead for Decoded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.from == self.to && !self.over {
            let bytes = self.input.fill_buf()?;
            let last = bytes.is_empty();
            let bytes = &bytes[..bytes.len().min(PIECE)];
            let (read, written) = match &mut self.decode {
                Decode::Latin1 => (bytes.len(), mem::convert_latin1_to_utf8(bytes, &mut self.text)),
                Decode::With(decoder) => {
                    let (result, read, written) =
                        decoder.decode_to_utf8_without_replacement(bytes, &mut self.text[..3 * PIECE - 1], last);
                    match result {
                        DecoderResult::InputEmpty => self.over = last,
                        DecoderResult::OutputFull => {}
                        DecoderResult::Malformed(..) => self.text[written] = NOT_TEXT,
                    }
                    (read, written + usize::from(matches!(result, DecoderResult::Malformed(..))))
                }
            };
            self.over |= last && matches!(self.decode, Decode::Latin1);
            self.input.consume(read);
            (self.from, self.to) = (0, written);
        }
        Ok(&self.text[self.from..self.to])
    }

    fn consume(&mut self, read: usize) {
        self.from = (self.from + read).min(self.to);
    }
}

impl<R: BufRead> Read for Decoded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

/// The text of `bytes` from a file in `encoding` (`None` for a file that is not text as a whole), or what is wrong with
/// them and which encoding would read them.
pub(super) fn text(bytes: &[u8], encoding: Option<Encoding>) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| not_text(bytes, encoding))
}

fn not_text(bytes: &[u8], encoding: Option<Encoding>) -> String {
    const LONGEST: usize = 40;
    let part = &bytes[..bytes.len().min(LONGEST)];
    let cut = if part.len() < bytes.len() { " (cut)" } else { "" };
    if encoding.is_none() {
        return format!("\"{}\"{cut}, expected UTF-8", part.escape_ascii());
    }
    if encoding != Some(Encoding::Utf8) {
        return format!("\"{}\"{cut} holds half a character (shown as \\xff), expected UTF-16", part.escape_ascii());
    }
    // Windows-1252 has its additional characters in place of control characters, which do not occur in text.
    let name = if bytes.iter().any(|b| (0x80..0xa0).contains(b)) { "windows-1252" } else { "latin-1" };
    let (read, _) = WINDOWS_1252.decode_without_bom_handling(part);
    format!("\"{}\"{cut}, expected UTF-8; encoding = \"{name}\" reads it as {read:?}", part.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: &'static encoding_rs::Encoding, bytes: &[u8], buffer: usize) -> Vec<u8> {
        let decode = Decode::With(encoding.new_decoder_without_bom_handling());
        let input = io::BufReader::with_capacity(buffer, bytes);
        let mut out = Vec::new();
        Decoded { input, decode, text: vec![0; 3 * PIECE], from: 0, to: 0, over: false }.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn pieces_do_not_show() {
        let text = "zeit;°C;𝄞\r\n1;für\n".repeat(3000);
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for buffer in [1, 3, 1 << 16] {
            assert!(decoded(UTF_16LE, &bytes, buffer) == text.as_bytes(), "{buffer}");
        }
        assert_eq!(decoded(WINDOWS_1252, b"10 \x80", 1), "10 €".as_bytes());
        let input = &[0x42u8, 0xfc, 0xb0][..];
        let mut latin = String::new();
        let mut read = Decoded { input, decode: Decode::Latin1, text: vec![0; 3 * PIECE], from: 0, to: 0, over: false };
        read.read_to_string(&mut latin).unwrap();
        assert_eq!(latin, "Bü°");
    }

    #[test]
    fn half_a_character_is_no_text() {
        // A low surrogate without its high one, and a byte too few at the end.
        let bytes = [0x41, 0, 0x00, 0xdc, 0x42, 0, 0x43];
        let out = decoded(UTF_16LE, &bytes, 2);
        assert_eq!(out, b"A\xffB\xff");
        assert!(text(&out, Some(Encoding::Utf16Le)).unwrap_err().contains("half a character"));
    }

    #[test]
    fn what_is_no_utf_8_is_shown_with_what_reads_it() {
        let said = text(b"Br\xfchl", Some(Encoding::Utf8)).unwrap_err();
        assert_eq!(said, r#""Br\xfchl", expected UTF-8; encoding = "latin-1" reads it as "Brühl""#);
        let said = text(b"10 \x80", Some(Encoding::Utf8)).unwrap_err();
        assert!(said.contains("\"windows-1252\" reads it as \"10 €\""), "{said}");
        assert!(text(&[b'\xe4'; 1000], Some(Encoding::Utf8)).unwrap_err().len() < 400);
    }
}
