//! Problems of a pipeline file, and how they are shown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::tree::Origin;

/// How similar a name must be to a wrong one to be suggested: 1 is equal, 0 has nothing in common.
const NEAR: f64 = 0.5;

/// The most problems that are shown one by one.
const MOST_SHOWN: usize = 50;
/// The most names that are listed as accepted.
const MOST_NAMES: usize = 200;
/// The most characters of a message. It may quote a key or a value, which can be as long as the file.
const LONGEST_MESSAGE: usize = 1000;

/// One problem, where it was written, and what would be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub(super) origin: Origin,
    message: String,
    label: String,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(origin: Origin, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
            message += "… (cut)";
        }
        Self { origin, message, label: String::new(), help: None }
    }

    /// With a few words beside the caret.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a line of help under the excerpt.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the nearest of the `accepted` names beside the caret, and all of them below.
    pub(super) fn accepted<S: AsRef<str>>(mut self, wrong: &str, accepted: &[S]) -> Self {
        if let Some(name) = nearest(wrong, accepted) {
            self.label = format!("did you mean `{name}`?");
        }
        let names: Vec<&str> = accepted.iter().map(AsRef::as_ref).take(MOST_NAMES).collect();
        let more = match accepted.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.help = Some(match names.is_empty() {
            true => "there are none".into(),
            false => format!("accepted: {}{more}", names.join(", ")),
        });
        self
    }

    /// What is wrong, in one line, without the place and the help.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would be accepted, where the message does not say it all.
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// The name that `wrong` was most likely meant to be.
pub(crate) fn nearest<'a, S: AsRef<str>>(wrong: &str, names: &'a [S]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let mut best = None;
    for name in names.iter().map(AsRef::as_ref) {
        let near = strsim::normalized_damerau_levenshtein(&wrong, &name.to_lowercase());
        if near >= best.map_or(NEAR, |(b, _)| b) && best.is_none_or(|(b, _)| near > b) {
            best = Some((near, name));
        }
    }
    best.map(|(_, name)| name)
}

/// What was read: the text that excerpts are cut from, and the overrides.
#[derive(Debug, PartialEq)]
pub(super) struct Text {
    pub name: String,
    pub text: String,
    pub sets: Vec<String>,
}

impl Text {
    /// The first line of `span`, never beyond the end of the text.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        let length = self.text.get(start..end).and_then(|s| s.find(['\n', '\r'])).unwrap_or(end - start);
        start..start + length
    }

    fn render(&self, problem: &Problem, renderer: &Renderer) -> String {
        let message = match problem.origin {
            Origin::Set(set) => {
                format!("--set {}: {}", self.sets.get(set).map_or("", String::as_str), problem.message)
            }
            _ => problem.message.clone(),
        };
        let mut help = problem.help.clone();
        let mut group: Group<'_> = match &problem.origin {
            Origin::File(span) => {
                let mut annotation = AnnotationKind::Primary.span(self.first_line(span));
                if !problem.label.is_empty() {
                    annotation = annotation.label(problem.label.as_str());
                }
                let snippet = Snippet::source(self.text.as_str()).path(self.name.as_str()).annotation(annotation);
                Level::ERROR.primary_title(message.as_str()).element(snippet)
            }
            Origin::Set(_) | Origin::Nowhere => {
                let said = [Some(problem.label.clone()).filter(|label| !label.is_empty()), help.take()];
                help = Some(said.into_iter().flatten().collect::<Vec<_>>().join("; ")).filter(|h| !h.is_empty());
                Group::with_title(Level::ERROR.primary_title(message.as_str()))
            }
        };
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Every problem of a pipeline file, in the order of the file, then of the overrides.
///
/// [`Display`](fmt::Display) shows each with file, line, column, an excerpt with a caret, the nearest valid name, and
/// what would be accepted. Converts into an [`Error`](crate::Error) of kind `Config`.
#[derive(Debug, Clone, PartialEq)]
pub struct Problems {
    text: Arc<Text>,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(text: Arc<Text>, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| match &problem.origin {
            Origin::Nowhere => (0, 0),
            Origin::File(span) => (1, span.start),
            Origin::Set(set) => (2, *set),
        });
        list.dedup();
        Self { text, list }
    }

    /// The problems one by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many there are; never none in an error.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems as text, the first ones only where there are very many; `styled` with the colors of a terminal.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let count = match self.list.len() {
            1 => "1 problem".to_string(),
            n => format!("{n} problems"),
        };
        let mut shown: Vec<String> =
            self.list.iter().take(MOST_SHOWN).map(|problem| self.text.render(problem, &renderer)).collect();
        if self.list.len() > MOST_SHOWN {
            shown.push(format!("and {} more", self.list.len() - MOST_SHOWN));
        }
        format!("{count} in {}\n\n{}", self.text.name, shown.join("\n\n"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for crate::Error {
    fn from(problems: Problems) -> Self {
        crate::Error::config(problems.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["epochs", "encoder", "batch_size"];
        assert_eq!(nearest("epoch", &names), Some("epochs"));
        assert_eq!(nearest("batchsize", &names), Some("batch_size"));
        assert_eq!(nearest("Encoder", &names), Some("encoder"));
        assert_eq!(nearest("zzz", &names), None);
    }
}
