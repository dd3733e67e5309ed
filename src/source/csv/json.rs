//! The rows of a text of JSON objects, one a line, in the form of the lines of a table.

use std::borrow::Cow;
use std::io;

use serde_json::{Map, Value};

use super::encoding::{Encoding, OpenText, open_text};
use super::lines::{LONGEST, Lines};
use super::record::Record;
use crate::error::Result;
use crate::source::bad::shown;
use crate::source::location::DataFile;

/// Reads objects one by one: of each the members that a source names, as text. A member that is absent or null is empty.
pub(super) struct Objects {
    lines: Lines,
    names: Vec<String>,
    text: Vec<u8>,
}

impl Objects {
    /// Opens `file` for the members `names`; also gives the bytes of its byte-order mark, and whether it is in UTF-8.
    /// Blocks.
    ///
    /// # Errors
    /// As [`open_text`].
    pub(super) fn open(file: &DataFile, names: &[String]) -> Result<(Self, u64, Encoding)> {
        let OpenText { text, encoding, mark } = open_text(file, Encoding::Utf8)?;
        let mut lines = Lines::new(text, None);
        if let Some((head, passed)) = file.passes_over() {
            lines.pass_over(head, passed);
        }
        Ok((Self { lines, names: names.to_vec(), text: Vec::new() }, mark, encoding))
    }

    /// Reads the next object into `record`. False at the end of the text.
    pub(super) fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        loop {
            self.text.clear();
            if !self.lines.read(&mut self.text)? {
                return Ok(false);
            }
            let text = self.text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match values(text, &self.names) {
                Ok(values) => record.set(self.lines.number(), values.iter().map(|value| value.as_bytes())),
                Err(problem) => {
                    record.set(self.lines.number(), std::iter::empty());
                    record.fail(problem);
                }
            }
            record.stand_for(self.lines.begins(), &self.text, self.lines.length() as u64);
            return Ok(true);
        }
    }
}

/// The members `names` of the object `text`, or what is wrong with it.
fn values(text: &[u8], names: &[String]) -> Result<Vec<String>, String> {
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} bytes: {}, expected a shorter line", shown(text)));
    }
    let object: Map<String, Value> = match serde_json::from_slice(text) {
        Ok(object) => object,
        Err(e) => {
            let at = if e.column() > 0 { format!(" at character {}", e.column()) } else { String::new() };
            let what = match e.classify() {
                serde_json::error::Category::Data => "no JSON object".to_owned(),
                _ => format!("no JSON{at}"),
            };
            return Err(format!("{what}: {}, expected one object a line", shown(text)));
        }
    };
    names.iter().map(|name| value(&object, name).map(Cow::into_owned)).collect()
}

/// The member `name` of `object` as text.
fn value<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Cow<'a, str>, String> {
    let wrong = |what: &str| Err(format!("column {name:?} is {what}, expected text or a number"));
    match member(object, name) {
        None | Some(Value::Null) => Ok("".into()),
        Some(Value::String(text)) if text.contains('\0') => wrong("text with a NUL character"),
        Some(Value::String(text)) => Ok(text.as_str().into()),
        Some(Value::Number(number)) => Ok(number.to_string().into()),
        Some(Value::Bool(truth)) => Ok(truth.to_string().into()),
        Some(Value::Array(_)) => wrong("an array"),
        Some(Value::Object(_)) => wrong("an object"),
    }
}

/// The member of this name; a name with dots is also a path through objects.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    member(object.get(outer)?.as_object()?, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, names: &[&str]) -> Vec<(u64, Result<Vec<String>, String>)> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let (mut objects, _, _) = Objects::open(&DataFile::of_bytes("f", text.into()), &names).unwrap();
        let (mut found, mut record) = (Vec::new(), Record::default());
        while objects.read(&mut record).unwrap() {
            let fields = record.fields().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
            found.push((record.line(), record.problem().map_or(Ok(fields), |problem| Err(problem.to_owned()))));
        }
        found
    }

    #[test]
    fn members_are_columns_by_their_names() {
        let text = "\n{\"x\": 1.25, \"m\": \"a\", \"other\": [1]}\r\n{\"m\": null, \"p\": {\"x\": -3e-7}, \"x\": 7}\n";
        let found = rows(text, &["m", "x", "p.x"]);
        let row = |line, fields: [&str; 3]| (line, Ok(fields.map(String::from).to_vec()));
        assert_eq!(found, [row(2, ["a", "1.25", ""]), row(3, ["", "7", "-3e-7"])]);
        // A member whose own name has dots comes first.
        let found = rows("{\"p.x\": true, \"p\": {\"x\": 2}}", &["p.x"]);
        assert_eq!(found, [(1, Ok(vec!["true".into()]))]);
    }

    #[test]
    fn what_is_no_object_is_a_bad_row_and_the_next_one_is_read() {
        let long = format!("{{\"x\": \"{}\"}}", "a".repeat(LONGEST));
        let nested = "[".repeat(10_000);
        for (line, said) in [
            ("x,1", "no JSON at character"),
            ("[1, 2]", "no JSON object"),
            ("{\"x\": 1", "no JSON"),
            ("{\"x\": 1}{\"x\": 2}", "no JSON"),
            ("{\"x\": [1]}", "column \"x\" is an array"),
            ("{\"x\": {}}", "column \"x\" is an object"),
            ("{\"x\": \"a\\u0000\"}", "NUL"),
            (&long, "longer than 1048576 bytes"),
            (&nested, "no JSON"),
        ] {
            let found = rows(&format!("{line}\n{{\"x\": 5}}\n"), &["x"]);
            assert!(
                matches!(&found[0], (1, Err(problem)) if problem.contains(said) && problem.len() < 200),
                "{found:?}"
            );
            assert_eq!(found[1], (2, Ok(vec!["5".into()])));
        }
    }

    proptest::proptest! {
        /// A number has the same bits as if its text stood in a CSV file.
        #[test]
        fn numbers_keep_their_bits(value: f64) {
            proptest::prop_assume!(value.is_finite());
            let found = rows(&format!("{{\"x\": {value}}}\n{{\"x\": {value:e}}}"), &["x"]);
            for (_, fields) in found {
                let read: f64 = fast_float2::parse(fields.unwrap()[0].as_bytes()).unwrap();
                proptest::prop_assert_eq!(read.to_bits(), value.to_bits());
            }
        }
    }
}
