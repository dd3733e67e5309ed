//! `${VAR}` and `${VAR:-default}` in string values. They are replaced after parsing, so a variable's value can never
//! change the structure of the file.

use url::Url;

use super::problem::Problem;
use super::tree::{Node, Origin};
use crate::secret;

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in every string value below `root`. `text` is the text of the file: problems point into it.
pub(super) fn interpolate(root: &mut Node, text: &str, environment: Environment<'_>, problems: &mut Vec<Problem>) {
    root.for_each_text(&mut |value, origin| match expand(value, environment) {
        Ok(expanded) => {
            if let Ok(url) = Url::parse(&expanded) {
                secret::keep_of_url(&url);
            }
            *value = expanded;
        }
        Err(wrong) => problems.push(wrong.at(origin, text)),
    });
}

/// A variable that cannot be replaced, and its text in the value.
struct Wrong {
    written: String,
    message: String,
    help: &'static str,
}

impl Wrong {
    /// The problem, pointing at the variable inside the string where it can be found in the file.
    fn at(self, origin: &Origin, text: &str) -> Problem {
        let origin = match origin {
            Origin::File(span) => {
                let inside = text.get(span.clone()).and_then(|written| written.find(&self.written));
                Origin::File(inside.map_or(span.clone(), |at| span.start + at..span.start + at + self.written.len()))
            }
            other => other.clone(),
        };
        Problem::new(origin, self.message).help(self.help)
    }
}

fn expand(value: &str, environment: Environment<'_>) -> Result<String, Wrong> {
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    let mut used = Vec::new();
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at - 1]);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}').map(|length| at + length) else {
            return Err(Wrong {
                written: rest[at..].into(),
                message: "`${` without its `}`".into(),
                help: "write ${VAR}, ${VAR:-default}, or $${ for the characters themselves",
            });
        };
        let value = variable(&rest[at..=end], environment)?;
        expanded.push_str(&value);
        used.push(value);
        rest = &rest[end + 1..];
    }
    expanded.push_str(rest);
    if expanded.contains("://") {
        used.iter().filter(|value| secret::looks_drawn(value)).for_each(|value| secret::keep(value));
    }
    Ok(expanded)
}

/// The value of `written`, a whole `${…}`.
fn variable(written: &str, environment: Environment<'_>) -> Result<String, Wrong> {
    let inside = &written[2..written.len() - 1];
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Wrong {
            written: written.into(),
            message: format!("{name:?} is not the name of an environment variable"),
            help: "letters, digits and _, not starting with a digit; $${ writes the characters themselves",
        });
    }
    match (environment(name), default) {
        (Some(value), default) if default.is_none() || !value.is_empty() => {
            if secret::is_secret_name(name) {
                secret::keep(&value);
            }
            Ok(value)
        }
        (_, Some(default)) => Ok(default.to_string()),
        (_, None) => Err(Wrong {
            written: written.into(),
            message: format!("the environment variable {name} is not set"),
            help: "set it, or give a default: ${VAR:-default}",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(value: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "A" => Some("1".to_string()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_string()),
            _ => None,
        };
        expand(value, &environment).map_err(|wrong| wrong.message)
    }

    #[test]
    fn replaces_variables_once() {
        for (value, expected) in [
            ("plain $A {x} $", "plain $A {x} $"),
            ("${A}/${A}", "1/1"),
            ("${B:-data/x}", "data/x"),
            ("${A:-data/x}", "1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-full}", "full"),
            ("${B:-}", ""),
            ("$${A}", "${A}"),
            ("$${A} ${A}", "${A} 1"),
            ("${NESTED}", "${A}"),
            ("ü${A}ü", "ü1ü"),
        ] {
            assert_eq!(expanded(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn secrets_are_made_known() {
        let environment = |name: &str| match name {
            "STORE_TOKEN" => Some("walrus-31".to_string()),
            "PLAIN" => Some("narwhal-32".to_string()),
            "X" => Some("9hGq2LmPz0RtYw7c".to_string()),
            _ => None,
        };
        assert_eq!(
            expand("https://h/${STORE_TOKEN}/${PLAIN}", &environment).ok().unwrap(),
            "https://h/walrus-31/narwhal-32"
        );
        assert_eq!(secret::redacted("walrus-31 narwhal-32"), "*** narwhal-32");
        assert_eq!(expand("in/${X}", &environment).ok().unwrap(), "in/9hGq2LmPz0RtYw7c");
        assert_eq!(secret::redacted("9hGq2LmPz0RtYw7c"), "9hGq2LmPz0RtYw7c");
        assert_eq!(expand("https://h/${X}/a", &environment).ok().unwrap(), "https://h/9hGq2LmPz0RtYw7c/a");
        assert_eq!(secret::redacted("9hGq2LmPz0RtYw7c"), "***");
    }

    #[test]
    fn says_what_cannot_be_replaced() {
        assert_eq!(expanded("x/${B}").unwrap_err(), "the environment variable B is not set");
        assert_eq!(expanded("${A").unwrap_err(), "`${` without its `}`");
        assert_eq!(expanded("${}").unwrap_err(), "\"\" is not the name of an environment variable");
        assert_eq!(expanded("${1A}").unwrap_err(), "\"1A\" is not the name of an environment variable");
    }
}
