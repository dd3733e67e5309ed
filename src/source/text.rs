//! Text files of numbers: lines, tokens and numbers.

use super::bad::shown;

/// The lines of a file, without the blank ones at its end.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.trim_ascii_end();
    let count = if text.is_empty() { 0 } else { usize::MAX };
    text.split(|&b| b == b'\n').take(count)
}

/// The tokens of a line, separated by white space.
pub(super) fn tokens(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|t| !t.is_empty())
}

/// A number that is finite in single precision, or what is wrong with it.
pub(super) fn number(token: &[u8]) -> Result<f64, String> {
    number_written(token, token)
}

/// As [`number`]; messages quote `written`, the text in the file.
pub(super) fn number_written(token: &[u8], written: &[u8]) -> Result<f64, String> {
    match fast_float2::parse::<f64, _>(token) {
        Ok(value) if (value as f32).is_finite() => Ok(value),
        Ok(_) => Err(format!("{} is not finite", shown(written))),
        Err(_) => Err(format!("{} is not a number", shown(written))),
    }
}
