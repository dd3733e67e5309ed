//! The payloads of messages as text: which can be read at all, and how they are put together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::growing::whole_rows;
use crate::error::Result;
use crate::source::bad::{Raw, Rejects, Why, shown};
use crate::source::csv::{CsvSpec, Encoding, LONGEST, TextFormat, is_topic_column, no_values, separator_line};
use crate::source::location::DataFile;
use crate::terminal::shown_name;

/// A message's topic and payload.
pub(super) struct Payload {
    pub(super) topic: Arc<str>,
    pub(super) bytes: Bytes,
}

/// The lines of a payload: its bytes, or nothing where a message has none.
pub(super) fn lines(payload: &[u8]) -> u64 {
    let ends = payload.iter().filter(|&&byte| byte == b'\n').count() as u64;
    ends + u64::from(payload.last().is_some_and(|&last| last != b'\n'))
}

/// The text of a payload without a byte-order mark, and how many lines it has, or why it cannot be read.
fn usable<'a>(payload: &'a [u8], csv: &CsvSpec) -> Result<&'a [u8], String> {
    let text = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
    if text.len() > LONGEST {
        return Err(format!("{} bytes: {}, expected at most {LONGEST} in a message", text.len(), shown(text)));
    }
    if text.trim_ascii().is_empty() {
        return Err("a message without content, expected lines of values".into());
    }
    if let Some(what) = no_values(text) {
        return Err(what);
    }
    if let Some(at) = text.iter().position(|&byte| byte == 0) {
        return Err(format!("a NUL byte behind {}, expected text", shown(&text[..at])));
    }
    if csv.dialect.encoding == Encoding::Utf8
        && let Err(e) = std::str::from_utf8(text)
    {
        return Err(format!("not UTF-8 from byte {} on: {}", e.valid_up_to() + 1, shown(text)));
    }
    if csv.dialect.format == TextFormat::Csv {
        let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        if separator_line(first.trim_ascii_end()).is_some() {
            return Err(format!("{} sets a delimiter, expected lines of values", shown(first)));
        }
        // A quote that stays open would reach into the next message.
        let ended = if text.ends_with(b"\n") { text.to_vec() } else { [text, b"\n"].concat() };
        if whole_rows(&ended, csv.dialect.quote_byte(), u64::MAX, false).is_none_or(|(end, _)| end < ended.len()) {
            return Err(format!("a quote that is not closed: {}, expected whole lines", shown(text)));
        }
    }
    Ok(text)
}

/// The texts of `messages`, one for each topic, or, where the lines of a recording may come under several topics, one for
/// each run of messages of a topic. Lines are numbered on from `passed`.
///
/// # Errors
/// As [`Rejects::reject`]: a message that cannot be read is set aside as a whole.
pub(super) fn texts(
    messages: &[Payload],
    csv: &CsvSpec,
    passed: &mut u64,
    rejects: &Rejects,
) -> Result<(Vec<DataFile>, u64)> {
    let by_topic = csv.keys.is_empty() || csv.keys.iter().any(|key| is_topic_column(key));
    let mut found: Vec<(&Arc<str>, Vec<u8>, u64)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for Payload { topic, bytes } in messages {
        let text = match usable(bytes, csv) {
            Ok(text) => text,
            Err(reason) => {
                let (count, mut raw) = (lines(bytes).max(1), Raw::default());
                raw.set(None, bytes, bytes.len() as u64);
                let why = Why { rows: Some(count), ..Why::row(reason, raw) };
                rejects.reject_as(&shown_name(&**topic), *passed + 1, why)?;
                *passed += count;
                continue;
            }
        };
        let last = found.len().checked_sub(1).filter(|&last| found[last].0 == topic);
        let place = if by_topic { places.get(&**topic).copied() } else { last };
        let at = place.unwrap_or_else(|| {
            places.insert(topic, found.len());
            found.push((topic, Vec::new(), 0));
            found.len() - 1
        });
        let (_, content, count) = &mut found[at];
        content.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            content.push(b'\n');
        }
        *count += lines(text);
    }
    let mut said: HashMap<&str, Arc<BTreeMap<String, Option<String>>>> = HashMap::new();
    let (mut data, mut all) = (Vec::with_capacity(found.len()), 0);
    for (topic, content, count) in found {
        let columns = said.entry(topic).or_insert_with(|| Arc::new(columns(topic)));
        let file = DataFile::of_bytes(&shown_name(&**topic), content);
        data.push(file.passing_over(0, *passed).saying(Arc::clone(columns)));
        *passed += count;
        all += count;
    }
    Ok((data, all))
}

/// What a topic says of all its rows: itself, and its levels, counted from 1.
fn columns(topic: &str) -> BTreeMap<String, Option<String>> {
    let value = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let levels = topic.split('/').enumerate().map(|(at, level)| (format!("topic_{}", at + 1), value(level)));
    std::iter::once(("topic".to_owned(), value(topic))).chain(levels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::bad::{BadRows, OnBadRow};

    /// Files by name and text, and what was set aside, by reason and line.
    type Found = (Vec<(String, String)>, Vec<(String, u64)>);

    fn found(csv: &CsvSpec, messages: &[(&str, &[u8])]) -> Found {
        let messages: Vec<Payload> = messages
            .iter()
            .map(|(topic, bytes)| Payload { topic: (*topic).into(), bytes: Bytes::copy_from_slice(bytes) })
            .collect();
        let bad = Arc::new(BadRows::new());
        let mut passed = 0;
        let (data, all) =
            texts(&messages, csv, &mut passed, &Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad))).unwrap();
        let text = |file: &DataFile| String::from_utf8(file.read(1 << 20).unwrap()).unwrap();
        let data: Vec<_> = data.iter().map(|file| (file.name().to_owned(), text(file))).collect();
        assert_eq!(all, data.iter().map(|(_, text)| lines(text.as_bytes())).sum::<u64>());
        assert_eq!(passed, messages.iter().map(|message| lines(&message.bytes).max(1)).sum::<u64>());
        (data, bad.rows().into_iter().map(|bad| (bad.reason, bad.line)).collect())
    }

    #[test]
    fn messages_keep_their_order_within_a_topic_or_within_all() {
        let messages: [(&str, &[u8]); 4] = [("a", b"1"), ("a", b"2\n3\n"), ("b", b"4"), ("a", b"5")];
        let csv = CsvSpec { keys: vec!["m".into()], ..CsvSpec::new("mqtt://h/+", &["x"]) };
        let text = |topic: &str, text: &str| (topic.to_owned(), text.to_owned());
        assert_eq!(found(&csv, &messages).0, [text("a", "1\n2\n3\n"), text("b", "4\n"), text("a", "5\n")]);
        for key in ["topic", "topic_1", "file"] {
            let csv = CsvSpec { keys: vec![key.into()], ..csv.clone() };
            assert_eq!(found(&csv, &messages).0, [text("a", "1\n2\n3\n5\n"), text("b", "4\n")], "{key}");
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_is_set_aside_alone() {
        let csv = CsvSpec::new("mqtt://h/+", &["x"]);
        let long = vec![b'1'; LONGEST + 1];
        for (payload, said) in [
            (&b"\xff\xfe1"[..], "not UTF-8 from byte 1 on"),
            (b"", "without content"),
            (b"\n \n", "without content"),
            (b"a\0b", "NUL"),
            (b"\"open", "a quote that is not closed"),
            (b"sep=;\n1;2", "sets a delimiter"),
            (b"\x89PNG\r\n", "an image"),
            (&long, "1048577 bytes"),
        ] {
            let (data, bad) = found(&csv, &[("t", b"1"), ("t", payload), ("t", b"\xef\xbb\xbf2")]);
            assert_eq!(data, [("t".to_owned(), "1\n2\n".to_owned())], "{said}");
            assert!(bad.len() == 1 && bad[0].0.contains(said), "{bad:?}");
        }
    }

    #[test]
    fn a_topic_has_levels() {
        let said = columns("plant/7//accel");
        let value = |name: &str| said[name].as_deref();
        assert_eq!((value("topic"), value("topic_2"), value("topic_3")), (Some("plant/7//accel"), Some("7"), None));
        assert!(is_topic_column("topic") && is_topic_column("topic_12") && is_topic_column("file"));
        assert!(!is_topic_column("topic_") && !is_topic_column("topics") && !is_topic_column("topic_0"));
    }
}
