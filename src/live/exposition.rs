//! Reads OpenMetrics text, as `/metrics` shows it.
//!
//! It is strict about what the format says (the order of lines, names, types, escapes, the end) and so tells whether a page
//! is one.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, with the suffix of its kind (`_total`, `_bucket`, …).
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The samples of a page, in its order, and the types of its families.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition {
    /// The samples.
    pub samples: Vec<Sample>,
    /// The type of each family: `counter`, `gauge`, `histogram`, `info` or `unknown`.
    pub types: BTreeMap<String, String>,
}

impl Exposition {
    /// The value of the sample of this name and exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let same = |sample: &&Sample| {
            sample.name == name
                && sample.labels.len() == labels.len()
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|there| there == value))
        };
        self.samples.iter().find(same).map(|sample| sample.value)
    }

    /// The values of the samples of this name, by their label `key`.
    pub fn by<'a>(&'a self, name: &'a str, key: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of = self.samples.iter().filter(move |sample| sample.name == name);
        of.filter_map(move |sample| Some((sample.labels.get(key)?.as_str(), sample.value)))
    }
}

/// Reads a page.
///
/// # Errors
/// Kind `Input`, naming the line, for text that is not OpenMetrics.
///
/// ```
/// use dacpipe::live::exposition::parse;
/// let page = "# TYPE rows counter\n# HELP rows Rows.\nrows_total{reason=\"a \\\"b\\\"\"} 3\n# EOF\n";
/// assert_eq!(parse(page)?.value("rows_total", &[("reason", "a \"b\"")]), Some(3.0));
/// assert!(parse("rows_total 3\n").is_err()); // no end
/// # Ok::<(), dacpipe::Error>(())
/// ```
pub fn parse(page: &str) -> Result<Exposition> {
    let mut found = Exposition::default();
    let (mut family, mut ended, mut seen) = (None::<String>, false, BTreeSet::new());
    for (number, line) in (1..).zip(page.split_terminator('\n')) {
        let wrong = |what: String| Error::input(format!("line {number} is not OpenMetrics: {what}: {line:?}"));
        if ended {
            return Err(wrong("something stands behind # EOF".into()));
        }
        if let Some(comment) = line.strip_prefix("# ") {
            ended = comment == "EOF";
            if !ended {
                of_family(comment, &mut family, &mut found).map_err(|what| wrong(what.into()))?;
            }
            continue;
        }
        let sample = sample(line).map_err(|what| wrong(what.into()))?;
        let of = family.as_deref().ok_or_else(|| wrong("a sample without a family".into()))?;
        let kind = found.types.get(of).map_or("unknown", String::as_str);
        if !suffixes(kind).iter().any(|suffix| sample.name.strip_prefix(of) == Some(suffix)) {
            return Err(wrong(format!("a sample of the {kind} {of} of another name")));
        }
        if !seen.insert(format!("{}{:?}", sample.name, sample.labels)) {
            return Err(wrong("a sample that was there before".into()));
        }
        if kind == "counter" && (sample.value.is_nan() || sample.value < 0.0) {
            return Err(wrong("a counter below 0".into()));
        }
        found.samples.push(sample);
    }
    match ended && page.ends_with('\n') {
        true => Ok(found),
        false => Err(Error::input("not OpenMetrics: it does not end with # EOF")),
    }
}

/// What the samples of a family of this kind add to its name.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total", "_created"],
        "histogram" => &["_bucket", "_count", "_sum", "_created"],
        "info" => &["_info"],
        _ => &[""],
    }
}

/// A line about a family.
fn of_family(comment: &str, family: &mut Option<String>, found: &mut Exposition) -> Result<(), &'static str> {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name)) = (words.next(), words.next()) else { return Err("a comment of another kind") };
    if !is_name(name) {
        return Err("no name of a family");
    }
    if family.as_deref() != Some(name) {
        if found.types.contains_key(name) {
            return Err("a family in two places");
        }
        *family = Some(name.to_owned());
        found.types.insert(name.to_owned(), "unknown".into());
    }
    let rest = words.next().unwrap_or_default();
    match what {
        "TYPE" if ["counter", "gauge", "histogram", "info", "unknown"].contains(&rest) => {
            found.types.insert(name.to_owned(), rest.to_owned());
            Ok(())
        }
        "UNIT" if name.ends_with(&format!("_{rest}")) => Ok(()),
        "HELP" => Ok(()),
        "TYPE" => Err("an unknown type"),
        "UNIT" => Err("a unit that the name does not end with"),
        _ => Err("a comment of another kind"),
    }
}

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && name.chars().all(fine) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("no name of a sample");
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, behind) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(key) || key.contains(':') {
                return Err("no name of a label");
            }
            let (value, behind) = quoted(behind)?;
            if labels.insert(key.to_owned(), value).is_some() {
                return Err("a label twice");
            }
            rest = behind.strip_prefix(',').unwrap_or(behind);
            if rest.len() == behind.len() && !rest.starts_with('}') {
                return Err("labels without a comma between them");
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    // A time may stand behind it.
    let value = value.split(' ').next().unwrap_or_default();
    let value = value.parse().map_err(|_| "a value that is no number")?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// What stands up to the closing quote, and what stands behind it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('"' | '\\'))) => c,
                _ => return Err("an unknown escape"),
            }),
            c => value.push(c),
        }
    }
    Err("a label that does not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_openmetrics_is_named() {
        let head = "# TYPE a counter\n";
        for (page, why) in [
            ("a_total 1\n# EOF\n".to_owned(), "without a family"),
            (format!("{head}a 1\n# EOF\n"), "another name"),
            (format!("{head}a_total 1\n"), "does not end with # EOF"),
            (format!("{head}a_total 1\na_total 2\n# EOF\n"), "was there before"),
            (format!("{head}a_total x\n# EOF\n"), "no number"),
            (format!("{head}a_total -1\n# EOF\n"), "below 0"),
            (format!("{head}a_total{{b=\"c}} 1\n# EOF\n"), "does not end"),
            (format!("{head}a_total{{b=\"\\t\"}} 1\n# EOF\n"), "escape"),
            (format!("{head}a_total{{b=\"c\"d=\"e\"}} 1\n# EOF\n"), "comma"),
            (format!("{head}a_total 1\n# EOF\n\n"), "behind # EOF"),
            ("# TYPE a thing\n# EOF\n".to_owned(), "unknown type"),
            ("# TYPE a gauge\n# UNIT a seconds\n# EOF\n".to_owned(), "unit"),
            (format!("{head}# TYPE b gauge\n# TYPE a counter\n# EOF\n"), "two places"),
        ] {
            let e = parse(&page).unwrap_err().to_string();
            assert!(e.contains(why), "{page:?}: {e}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = parse(&format!("# TYPE a gauge\n{text}\n# EOF\n"));
            let _ = parse(&text);
        }
    }
}
