//! File names as they are shown and compared: one line of text, whatever bytes a name is made of.

use std::ffi::OsStr;
use std::fmt::Write;

/// What follows a backslash in an escape.
const ESCAPES: [char; 6] = ['\\', 'n', 'r', 't', 'u', 'x'];

/// `name` as text in which nothing breaks a line or steers a terminal. A name of ordinary characters is itself; in any
/// other, and in one that could be taken for it, what cannot be shown and the backslash are escaped, so that two names
/// never look the same.
pub(super) fn shown_name(name: &OsStr) -> String {
    if let Some(text) = name.to_str()
        && !text.chars().any(steers)
        && !text.split('\\').skip(1).any(|after| after.is_empty() || after.starts_with(ESCAPES))
    {
        return text.to_owned();
    }
    let mut shown = String::new();
    for part in name.as_encoded_bytes().utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if steers(c) => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        for byte in part.invalid() {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Whether a character does more than to be seen: control characters, line and paragraph ends, and those that turn the
/// direction of writing.
fn steers(c: char) -> bool {
    let turns = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{feff}'];
    c.is_control()
        || turns.contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_and_others_are_told_apart() {
        for name in ["a b.csv", "ä日.csv", "q'uote", "back\\slash", "e\u{301}.csv", "p#q?%20", "\"quoted\""] {
            assert_eq!(shown_name(OsStr::new(name)), name);
        }
        for (name, shown) in [
            ("a\nb.csv", r"a\nb.csv"),
            (r"a\nb.csv", r"a\\nb.csv"),
            ("a\\sb\x1b[2J", r"a\\sb\u{1b}[2J"),
            (r"ends in \", r"ends in \\"),
            ("evil\u{202e}vsc.exe", r"evil\u{202e}vsc.exe"),
        ] {
            assert_eq!(shown_name(OsStr::new(name)), shown);
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_written_out() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(shown_name(OsStr::from_bytes(b"caf\xe9.csv")), r"caf\xe9.csv");
        assert_ne!(shown_name(OsStr::from_bytes(b"\xe9")), shown_name(OsStr::new(r"\xe9")));
    }
}
