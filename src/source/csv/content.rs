//! Recognises files that are not text tables, by their first bytes.

use super::encoding::Encoding;

/// The first bytes of binary formats, and their descriptions.
const MAGIC: [(&[u8], &str); 14] = [
    (b"PAR1", "a Parquet file (kind = \"parquet\" reads one)"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook; save it as CSV"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"ORC", "an ORC file"),
];

/// How documents for a browser begin, in lower case.
const MARKUP: [&[u8]; 4] = [b"<!doctype", b"<html", b"<?xml", b"<head"];

/// What a file that begins with `start` is instead of a text table; `None` if it may be one.
pub(in crate::source) fn no_values(start: &[u8]) -> Option<String> {
    let expected = |what: &str| Some(format!("{what}, expected lines of values"));
    // A text table may begin with a name such as ORCHID: the letters of a binary format are followed by bytes that are
    // not text.
    let binary = |magic: &[u8]| !magic.iter().all(u8::is_ascii_alphanumeric) || start.iter().take(64).any(|&b| b < 9);
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic) && binary(magic)) {
        return expected(what);
    }
    let text = start.trim_ascii_start();
    if MARKUP.iter().any(|tag| text.get(..tag.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(tag))) {
        return expected("a web page or an XML document (a download that failed?)");
    }
    None
}

/// UTF-16, if the NUL bytes at the `start` of a file without a byte-order mark look like it.
pub(super) fn utf16(start: &[u8]) -> Option<Encoding> {
    let zeros = |from: usize| start.iter().skip(from).step_by(2).filter(|&&b| b == 0).count();
    let pairs = start.len() / 2;
    // For ASCII characters, the other byte of each pair is zero.
    match (zeros(0), zeros(1)) {
        (low, high) if high > pairs / 2 && low * 4 < high => Some(Encoding::Utf16Le),
        (high, low) if high > pairs / 2 && low * 4 < high => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// What is wrong with a file read as UTF-8 if there are NUL bytes at its `start`.
pub(super) fn of_nul_bytes(start: &[u8]) -> Option<String> {
    if start.iter().all(|&b| b == 0) {
        return Some("begins with NUL bytes alone, expected text; what was written there is lost".into());
    }
    let order = if utf16(start)? == Encoding::Utf16Le { "le" } else { "be" };
    Some(format!("text in UTF-16 without a mark, expected UTF-8; encoding = \"utf-16{order}\" reads it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_named() {
        for (start, what) in [
            (&b"PAR1\x15\x04\0"[..], "Parquet"),
            (b"PK\x03\x04\x14", "zip"),
            (b"\n <!DOCTYPE html>", "web page"),
            (b"<?xml version", "XML"),
            (b"ORC\x08\x03", "ORC"),
        ] {
            assert!(no_values(start).is_some_and(|said| said.contains(what)), "{what}");
        }
        for start in [&b"PAR1,PAR2\n1,2\n"[..], b"ORCHID\n1\n", b"<5,x\n", b"", b"x"] {
            assert_eq!(no_values(start), None);
        }
    }

    #[test]
    fn nul_bytes_tell_of_utf_16_or_of_a_loss() {
        let text = "t,x\r\n0,1.5\r\n".encode_utf16();
        let little: Vec<u8> = text.clone().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.flat_map(u16::to_be_bytes).collect();
        assert!(of_nul_bytes(&little).is_some_and(|said| said.contains("\"utf-16le\"")));
        assert!(of_nul_bytes(&big).is_some_and(|said| said.contains("\"utf-16be\"")));
        assert!(of_nul_bytes(&[0; 100]).is_some_and(|said| said.contains("NUL bytes alone")));
        assert_eq!(of_nul_bytes(b"t,x\n0,\0\0\n1,2\n"), None);
    }
}
