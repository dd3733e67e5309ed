//! Safe HTML: markup is made only of literals, of escaped text, and of figures.

use super::draw::{Figure, escape};

/// A piece of HTML.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Markup(String);

impl Markup {
    /// The HTML text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// A style sheet of this program's own.
    pub fn styles(sheets: &[&str]) -> Self {
        Self(format!("<style>{}</style>", sheets.concat()))
    }

    /// Concatenates the pieces.
    pub fn join(pieces: impl IntoIterator<Item = Markup>) -> Self {
        Self(pieces.into_iter().map(|piece| piece.0).collect())
    }
}

/// Escaped text.
pub(super) fn text(text: impl AsRef<str>) -> Markup {
    Markup(escape(text.as_ref()))
}

/// Markup that is written in the source code.
pub(super) fn literal(markup: &'static str) -> Markup {
    Markup(markup.to_owned())
}

/// An element with a CSS class (none if empty) around pieces.
pub(super) fn element(name: &'static str, class: &'static str, inside: impl IntoIterator<Item = Markup>) -> Markup {
    let inside = Markup::join(inside).0;
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    Markup(format!("<{name}{class}>{inside}</{name}>"))
}

/// The figure in the page.
pub(super) fn figure(figure: &Figure) -> Markup {
    Markup(figure.inline())
}

/// A bar to the right of the middle for a positive `share` (of 1), to the left for a negative one.
pub(super) fn bar(share: f64) -> Markup {
    let width = 50.0 * share.abs().min(1.0);
    let left = if share < 0.0 { 50.0 - width } else { 50.0 };
    let class = if share < 0.0 { "below" } else { "above" };
    Markup(format!("<span class=\"bar\"><i class=\"{class}\" style=\"left:{left:.1}%;width:{width:.1}%\"></i></span>"))
}

/// A mark in the colour of a figure's ink.
pub(super) fn swatch(ink: super::draw::Ink) -> Markup {
    Markup(format!(
        "<svg class=\"swatch\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><circle class=\"f-{}\" cx=\"5\" cy=\"5\" r=\"5\"/></svg>",
        ink.class()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_text() {
        let piece = element("p", "note", [text("</p><script>x</script>"), literal("<br>")]);
        assert_eq!(piece.into_string(), "<p class=\"note\">&lt;/p&gt;&lt;script&gt;x&lt;/script&gt;<br></p>");
    }
}
