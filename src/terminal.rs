//! All output to standard output and standard error.
//!
//! Text from the data, from file names or from other programs' files goes through this module before a terminal shows
//! it: secrets are redacted and control characters are escaped. If the reader of standard output goes away (`| head`),
//! the run goes on without an error. If standard output cannot be written, for example on a full disk, that is an error
//! of kind `Io`. Failures of standard error never end a run.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};

use crate::error::{Error, Result};
use crate::secret::redacted;

/// Whether a character is a control character for a terminal, or changes the direction of text.
fn acts(c: char) -> bool {
    let reorders = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{feff}'].contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c);
    c.is_control() || reorders
}

/// The text with every such character escaped, except for those that `stay` accepts.
fn without_controls(text: &str, stay: impl Fn(&str) -> usize) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let kept = if acts(c) { stay(rest) } else { c.len_utf8() };
        if kept == 0 {
            let _ = write!(out, "{}", c.escape_default());
        }
        out.push_str(&rest[..kept]);
        rest = &rest[kept.max(c.len_utf8())..];
    }
    Cow::Owned(out)
}

/// The text made safe for a terminal: line breaks stay; every other control character is escaped (`\u{1b}`), and so are
/// characters that change the direction of text.
pub fn escaped(text: &str) -> Cow<'_, str> {
    without_controls(text, |rest| usize::from(rest.starts_with(['\n', '\t'])))
}

/// The text as from [`escaped`], on one line: for names and values inside a message.
pub fn one_line(text: &str) -> Cow<'_, str> {
    without_controls(text, |_| 0)
}

/// What follows a backslash in an escape.
const ESCAPES: [char; 6] = ['\\', 'n', 'r', 't', 'u', 'x'];

/// A path or a name for messages: on one line, without secrets, whatever bytes it has. A name of ordinary characters is
/// unchanged. In any other name, and in one that looks like an escaped one, the backslash and special characters are
/// escaped, so that two names never look the same.
pub fn shown_name(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref();
    let text = name.to_str().map(redacted);
    if let Some(text) = &text
        && !text.chars().any(acts)
        && !text.split('\\').skip(1).any(|after| after.is_empty() || after.starts_with(ESCAPES))
    {
        return text.clone().into_owned();
    }
    let bytes = text.as_ref().map_or(name.as_encoded_bytes(), |text| text.as_bytes());
    let mut shown = String::new();
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if acts(c) => shown.extend(c.escape_default()),
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

/// As [`escaped`], but colors (`ESC [ … m`) stay.
fn escaped_but_colors(text: &str) -> Cow<'_, str> {
    without_controls(text, |rest| {
        if rest.starts_with(['\n', '\t']) {
            return 1;
        }
        let Some(parameters) = rest.strip_prefix("\u{1b}[") else { return 0 };
        let end = parameters.bytes().position(|b| !b.is_ascii_digit() && b != b';').unwrap_or(parameters.len());
        if parameters[end..].starts_with('m') { end + 3 } else { 0 }
    })
}

/// A writer that discards its input once the reader has gone away (`| head`).
pub struct Output<W: Write> {
    inner: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    /// Writes to `inner` as long as there is a reader.
    pub fn new(inner: W) -> Self {
        Self { inner, closed: false }
    }

    /// True once the reader has gone away.
    pub fn closed(&self) -> bool {
        self.closed
    }

    fn unless_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(otherwise)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            other => other.map_err(|e| io::Error::new(e.kind(), format!("standard output cannot be written: {e}"))),
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes);
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.unless_closed(flushed, ())
    }
}

/// Standard output, for results that are written piece by piece.
pub fn stdout() -> Output<BufWriter<Stdout>> {
    Output::new(BufWriter::new(io::stdout()))
}

/// Writes a line of text to standard output.
///
/// # Errors
/// Kind `Io` if it cannot be written; it is no error if the reader has gone away.
pub fn say(text: &str) -> Result<()> {
    print(&escaped(&redacted(text)))
}

/// Writes a line of JSON to standard output, which escapes control characters itself.
///
/// # Errors
/// As [`say`].
pub fn say_json(json: &str) -> Result<()> {
    print(&redacted(json))
}

/// Writes text with colors to standard output.
///
/// # Errors
/// As [`say`].
pub fn say_styled(text: &str) -> Result<()> {
    print(&escaped_but_colors(&redacted(text)))
}

fn print(text: &str) -> Result<()> {
    let mut out = stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::io(e.to_string()))
}

/// Writes a line of text to standard error. Failures are ignored.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{}", escaped(&redacted(text)));
}

/// Writes text with colors to standard error.
pub fn tell_styled(text: &str) {
    let _ = writeln!(io::stderr(), "{}", escaped_but_colors(&redacted(text)));
}

/// Whether standard output may have colors, see [`stderr_has_colors`].
pub fn stdout_has_colors() -> bool {
    colors(io::stdout().is_terminal(), |name| std::env::var(name).ok())
}

/// Whether standard output is a terminal on which a page can be drawn, with a keyboard before it.
pub fn stdout_draws() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb
}

/// Whether standard error may have colors: it is a terminal, and neither `NO_COLOR`, `CLICOLOR=0` nor `TERM=dumb` is set;
/// `CLICOLOR_FORCE=1` gives colors to a file as well.
pub fn stderr_has_colors() -> bool {
    colors(io::stderr().is_terminal(), |name| std::env::var(name).ok())
}

/// Whether standard error is a terminal on which a line can be redrawn.
pub fn stderr_redraws() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn colors(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    terminal && set("CLICOLOR").is_none_or(|value| value != "0") && set("TERM").is_none_or(|value| value != "dumb")
}

/// Standard error for the log: each event is written at once, escaped and redacted like all output.
#[derive(Debug)]
pub struct LogWriter {
    inner: Stderr,
    colors: bool,
}

impl LogWriter {
    /// A writer whose events may have colors.
    pub fn new(colors: bool) -> Self {
        Self { inner: io::stderr(), colors }
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = redacted(&text);
        let text = if self.colors { escaped_but_colors(&text) } else { escaped(&text) };
        // Failures of standard error are ignored.
        let _ = self.inner.write_all(text.as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_written_as_an_escape() {
        let hostile = "a\u{1b}[31mb\u{9b}2J\u{7}\r\u{202e}c\u{2066}\u{7f}\nd\te";
        assert_eq!(escaped(hostile), "a\\u{1b}[31mb\\u{9b}2J\\u{7}\\r\\u{202e}c\\u{2066}\\u{7f}\nd\te");
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(escaped("Grüße, 日本 🎈"), "Grüße, 日本 🎈");
        assert!(matches!(escaped("plain\u{a0}text"), Cow::Borrowed(_)));
    }

    #[test]
    fn colors_of_our_own_stay_and_nothing_else_does() {
        assert_eq!(
            escaped_but_colors("\u{1b}[1;31merror\u{1b}[0m \u{1b}[2J \u{1b}]0;x\u{7}"),
            "\u{1b}[1;31merror\u{1b}[0m \\u{1b}[2J \\u{1b}]0;x\\u{7}"
        );
        assert_eq!(escaped_but_colors("cut \u{1b}[1"), "cut \\u{1b}[1");
    }

    #[test]
    fn colors_are_for_terminals_that_want_them() {
        let with =
            |terminal, name: &str, value: &str| colors(terminal, |asked| (asked == name).then(|| value.to_owned()));
        assert!(with(true, "", "") && !with(false, "", ""));
        assert!(!with(true, "NO_COLOR", "1") && with(true, "NO_COLOR", ""));
        assert!(!with(true, "CLICOLOR", "0") && with(true, "CLICOLOR", "1"));
        assert!(!with(true, "TERM", "dumb"));
        assert!(with(false, "CLICOLOR_FORCE", "1") && !with(false, "CLICOLOR_FORCE", "0"));
    }

    /// A writer that always fails with this error.
    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error_and_a_full_disk_is_one() {
        let mut out = Output::new(Fails(io::ErrorKind::BrokenPipe));
        out.write_all(b"x").unwrap();
        assert!(out.closed());
        let e = Output::new(Fails(io::ErrorKind::StorageFull)).write_all(b"x").unwrap_err();
        assert!(e.to_string().starts_with("standard output cannot be written: "), "{e}");
    }

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
