//! The file of one sensor: one sample a line, three numbers each.

use std::sync::Arc;

use super::LARGEST_FILE;
use crate::error::{Error, Result};
use crate::source::bad::{Raw, Rejects, Why, shown};
use crate::source::location::DataFile;
use crate::source::text::{number, tokens};

/// The three axes of one sensor.
#[derive(Debug)]
pub(super) struct Sensor {
    pub file: Arc<str>,
    pub axes: [Vec<f64>; 3],
    pub bad: Vec<usize>,
}

impl Sensor {
    pub fn len(&self) -> usize {
        self.axes[0].len()
    }
}

/// Reads a sensor's file; `None` if all of it was rejected.
pub(super) fn read_sensor(file: &Result<DataFile, String>, rejects: &Rejects) -> Result<Option<Sensor>> {
    let reject_all = |name: &str, reason: &str| rejects.reject(name, 0, reason).map(|()| None);
    let file = match file {
        Ok(file) => file,
        Err(expected) => return reject_all(expected, "no such file, but the other sensor's file is there"),
    };
    let text = match file.read(LARGEST_FILE) {
        Ok(text) => text,
        Err(e) => return rejects.reject_file(file.name(), e).map(|()| None),
    };
    let sensor = parse_sensor(&text, file.name(), rejects)?;
    if sensor.len() == 0 {
        return reject_all(file.name(), "empty, expected a line of 3 numbers per sample");
    }
    Ok(Some(sensor))
}

fn parse_sensor(text: &[u8], file: &str, rejects: &Rejects) -> Result<Sensor> {
    let text = text.trim_ascii_end();
    let mut rest = text;
    // Lines are about as long as the first, and a good line has at least 5 characters; a little more capacity avoids a
    // last reallocation.
    let expected = 1 + rest.len() / (1 + line(rest).0.len().max(5)) * 9 / 8;
    let mut sensor =
        Sensor { file: file.into(), axes: std::array::from_fn(|_| Vec::with_capacity(expected)), bad: vec![] };
    while !rest.is_empty() {
        let values = match plain_triple(rest) {
            Some((values, after)) => {
                rest = after;
                values
            }
            None => {
                let offset = (text.len() - rest.len()) as u64;
                let (line, after) = line(rest);
                rest = after;
                let number = sensor.len();
                triple(line).or_else(|reason| {
                    let mut raw = Raw::default();
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    raw.set(Some(offset), line, line.len() as u64);
                    rejects.reject_as(file, number as u64 + 1, Why::row(reason, raw))?;
                    sensor.bad.push(number);
                    Ok::<_, Error>([f64::NAN; 3])
                })?
            }
        };
        for (axis, value) in sensor.axes.iter_mut().zip(values) {
            axis.push(value);
        }
    }
    Ok(sensor)
}

/// The first line of `text`, and what comes after its end.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&b| b == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

/// The three numbers of the first line of `text`, and the text after it, in one pass over its bytes; `None` for a line
/// that needs the checks of [`triple`].
fn plain_triple(mut text: &[u8]) -> Option<([f64; 3], &[u8])> {
    let skip_blanks = |text: &mut &[u8]| {
        while let [b' ' | b'\t' | b'\r', after @ ..] = *text {
            *text = after;
        }
    };
    let mut values = [0.0; 3];
    for value in &mut values {
        skip_blanks(&mut text);
        let (number, length) = fast_float2::parse_partial::<f64, _>(text).ok()?;
        text = &text[length..];
        if !(number as f32).is_finite() || text.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return None;
        }
        *value = number;
    }
    skip_blanks(&mut text);
    match text {
        [] => Some((values, text)),
        [b'\n', after @ ..] => Some((values, after)),
        _ => None,
    }
}

/// The three numbers of a line, or what is wrong with it.
fn triple(line: &[u8]) -> Result<[f64; 3], String> {
    let mut values = [0.0; 3];
    let mut count = 0;
    for token in tokens(line) {
        let value = number(token).map_err(|e| format!("{e}; expected a line of 3 finite numbers"))?;
        if let Some(slot) = values.get_mut(count) {
            *slot = value;
        }
        count += 1;
    }
    match count {
        3 => Ok(values),
        _ => Err(format!("{count} numbers on the line, expected 3: {}", shown(line))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::OnBadRow;

    #[test]
    fn a_line_is_three_finite_numbers() {
        assert_eq!(triple(b" 1.5 -2e-3\t3 \r"), Ok([1.5, -2e-3, 3.0]));
        for (line, what) in [
            (&b"1 2"[..], "2 numbers"),
            (b"1 2 3 4", "4 numbers"),
            (b"", "0 numbers"),
            (b"1 two 3", "\"two\" is not a number"),
            (b"1 NaN 3", "\"NaN\" is not finite"),
            (b"1 inf 3", "\"inf\" is not finite"),
            (b"1 1e39 3", "\"1e39\" is not finite"),
            (b"1,2,3", "\"1,2,3\" is not a number"),
        ] {
            let error = triple(line).unwrap_err();
            assert!(error.contains(what) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn lines_read_in_one_pass_are_those_read_token_by_token() {
        let plain = [" 1.5 -2e-3\t3 \r", "1 2 3", "0.1 0.2 0.30000000000000004\n4 5 6", "-0 +1 .5", "1. 2 3\r\n"];
        for text in plain {
            let (first, after) = line(text.as_bytes());
            assert_eq!(plain_triple(text.as_bytes()), Some((triple(first).unwrap(), after)), "{text:?}");
        }
        for text in ["", "1 2", "1 2\n3", "1 2 3 4", "1 2 3x", "1 two 3", "1 NaN 3", "1 1e39 3", "1,2,3", "1 2\x0c3"] {
            assert_eq!(plain_triple(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_at_the_end_are_no_samples_and_others_are_bad() {
        let bad = Arc::default();
        let rejects = Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad));
        let sensor = parse_sensor(b"1 2 3\r\n\n4 5 6\n\n", "acc.txt", &rejects).unwrap();
        assert_eq!((sensor.len(), sensor.bad), (3, vec![1]));
        assert_eq!(bad.rows()[0].line, 2);
        assert_eq!(parse_sensor(b"\n \n", "acc.txt", &rejects).unwrap().len(), 0);
    }
}
