//! Writes the `[source]` section of a pipeline file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::source::csv::{AcrossFiles, CsvSpec, Disorder, Fill, Jitter, Repeated, SameTime};
use crate::source::{Dialect, Encoding, Features, ParquetSpec, TimeUnit};

/// A section that is being written.
pub(super) struct Section {
    text: String,
    comments: BTreeMap<&'static str, String>,
}

impl Section {
    fn new(kind: &str, path: &str, comments: BTreeMap<&'static str, String>) -> Self {
        let mut section = Self { text: "[source]\n".into(), comments };
        section.text("kind", kind);
        section.text("path", path);
        section
    }

    /// The section for a directory in the HAPT layout.
    pub fn hapt(path: &str) -> String {
        Self::new("hapt", path, BTreeMap::new()).text
    }

    /// The section for feature vectors, as in `spec`.
    pub fn vectors(spec: &ParquetSpec, comments: BTreeMap<&'static str, String>) -> String {
        let mut section = Self::new("parquet", &spec.path, comments);
        match &spec.features {
            Features::Column(name) => section.text("features", name),
            Features::Columns(names) => section.list("features", names),
        }
        section.list("keys", &spec.keys);
        section.optional("label", spec.label.as_deref());
        section.optional("split", spec.split.as_deref());
        section.text
    }

    /// The section for samples, as in `spec`; `comments` follow the keys that they belong to.
    pub fn samples(spec: &CsvSpec, comments: BTreeMap<&'static str, String>) -> String {
        let mut section = Self::new("csv", &spec.path, comments);
        section.list("channels", &spec.channels);
        if let Some(time) = &spec.time {
            section.text("time", &time.column);
            section.optional("time_unit", Some(time.unit.name()).filter(|_| time.unit != TimeUnit::Auto));
        }
        section.optional("time_format", spec.time_format.as_deref());
        if let Some(rate) = spec.rate_hz {
            section.line("rate_hz", &toml::Value::Float(rate).to_string());
        }
        section.list("keys", &spec.keys);
        section.optional("label", spec.label.as_deref());
        section.optional("split", spec.split.as_deref());
        section.dialect(&spec.dialect);
        let rules = &spec.rules;
        match rules.jitter {
            Some(Jitter::Part(part)) => section.line("jitter", &toml::Value::Float(part).to_string()),
            Some(Jitter::Time(time)) => section.text("jitter", &time.to_string()),
            None => {}
        }
        match rules.disorder {
            Disorder::Lines(0) => {}
            Disorder::Lines(lines) => section.line("disorder", &lines.to_string()),
            Disorder::Time(time) => section.text("disorder", &time.to_string()),
        }
        section.optional("same_time", (rules.same_time == SameTime::Spread).then_some("spread"));
        section.optional("repeated", (rules.repeated == Repeated::Drop).then_some("drop"));
        section.optional("fill", (rules.fill == Fill::Hold).then_some("hold"));
        if rules.resample {
            section.line("resample", "true");
        }
        section.optional("across_files", (rules.across_files == AcrossFiles::Continue).then_some("continue"));
        if let Some(interleaved) = spec.interleaved {
            section.line("interleaved", &interleaved.to_string());
        }
        section.text
    }

    fn dialect(&mut self, dialect: &Dialect) {
        let usual = Dialect::default();
        if dialect.encoding != usual.encoding {
            self.text("encoding", &encoding_name(dialect.encoding));
        }
        self.optional("delimiter", dialect.delimiter.map(|delimiter| delimiter.to_string()).as_deref());
        if dialect.quote != usual.quote {
            self.text("quote", &dialect.quote.map(String::from).unwrap_or_default());
        }
        self.optional("escape", dialect.escape.map(String::from).as_deref());
        if dialect.decimal != usual.decimal {
            self.text("decimal", &dialect.decimal.to_string());
        }
        self.optional("thousands", dialect.thousands.map(String::from).as_deref());
        self.optional("comment", dialect.comment.as_deref());
        self.optional("row_end", dialect.row_end.map(String::from).as_deref());
        if dialect.skip_lines > 0 {
            self.line("skip_lines", &dialect.skip_lines.to_string());
        }
        if !dialect.has_header {
            self.line("header", "false");
        }
        if dialect.skip_after_header > 0 {
            self.line("skip_after_header", &dialect.skip_after_header.to_string());
        }
    }

    fn line(&mut self, key: &'static str, value: &str) {
        let comment = self.comments.get(key).map(|comment| format!("  # {comment}")).unwrap_or_default();
        // Writing to a String does not fail.
        writeln!(self.text, "{key} = {value}{comment}").ok();
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.line(key, &quoted(value));
    }

    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        value.into_iter().for_each(|value| self.text(key, value));
    }

    /// A list; nothing for an empty one.
    fn list(&mut self, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            self.line(key, &format!("[{}]", values.join(", ")));
        }
    }
}

/// The name of an encoding in a pipeline file.
pub(super) fn encoding_name(encoding: Encoding) -> String {
    serde_json::to_value(encoding).ok().and_then(|name| name.as_str().map(String::from)).unwrap_or_default()
}

/// `text` as a TOML string on one line, with terminal control characters escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if crate::terminal::one_line(c.encode_utf8(&mut [0; 4])) != *c.encode_utf8(&mut [0; 4]) => {
                write!(out, "\\u{:04X}", u32::from(c)).ok();
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::TimeColumn;

    #[test]
    fn a_text_is_read_back() {
        for text in ["a \"b\" \\ c", "Temperatur [°C]", "\u{1b}[31m\n\t\u{7f}", "'", "\u{202e}", "${x}"] {
            let line = format!("key = {}", quoted(text));
            assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{line}");
            assert_eq!(line.parse::<toml::Table>().unwrap()["key"].as_str(), Some(text), "{line}");
        }
    }

    #[test]
    fn what_is_as_by_default_is_not_said() {
        let mut spec = CsvSpec::new("a.csv", &["x", "y"]);
        let text = |spec: &CsvSpec| Section::samples(spec, BTreeMap::from([("time", "a guess".to_string())]));
        assert_eq!(text(&spec), "[source]\nkind = \"csv\"\npath = \"a.csv\"\nchannels = [\"x\", \"y\"]\n");
        spec.time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
        assert!(text(&spec).ends_with("time = \"t\"  # a guess\ntime_unit = \"ms\"\n"), "{}", text(&spec));
    }
}
