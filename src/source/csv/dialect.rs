//! How a text table is written: its encoding, delimiter and quotes, the signs of its numbers, its header.

use std::fmt;

use super::encoding::Encoding;

/// How a text table is written. The default is what RFC 4180 describes, in UTF-8, with a header.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Dialect {
    /// The encoding of files without a byte-order mark.
    pub encoding: Encoding,
    /// The delimiter. If `None`, what a first line `sep=;` says; without such a line a comma, or a semicolon if
    /// [`decimal`](Self::decimal) is a comma.
    pub delimiter: Option<Delimiter>,
    /// The quote around fields that contain delimiters or line breaks; doubled inside a field. `None` if there are no
    /// quotes.
    pub quote: Option<char>,
    /// The escape character inside quoted fields: a quote after it does not end the field. If `None`, a quote is
    /// doubled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<char>,
    /// The decimal separator: a point or a comma.
    pub decimal: char,
    /// The separator that may stand between groups of three digits.
    pub thousands: Option<char>,
    /// What begins a comment line.
    pub comment: Option<String>,
    /// A character that ends a row as a line break does.
    pub row_end: Option<char>,
    /// How many lines at the start of a file are skipped, counting empty ones.
    pub skip_lines: usize,
    /// Whether there is a header; without one the columns are `column_1`, `column_2`, ….
    pub has_header: bool,
    /// How many rows after the header are skipped, such as a row of units.
    pub skip_after_header: usize,
    /// The names of the columns of files without a header, in their order; if empty, they are `column_1` and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// How a line is written.
    #[serde(skip_serializing_if = "TextFormat::is_default")]
    pub format: TextFormat,
}

/// How a line of a text file holds its values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// As fields with a delimiter between them.
    #[default]
    Csv,
    /// As a JSON object, whose members are named as the columns.
    Ndjson,
}

impl TextFormat {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            encoding: Encoding::default(),
            delimiter: None,
            quote: Some('"'),
            escape: None,
            decimal: '.',
            thousands: None,
            comment: None,
            row_end: None,
            skip_lines: 0,
            has_header: true,
            skip_after_header: 0,
            columns: Vec::new(),
            format: TextFormat::default(),
        }
    }
}

/// A delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Delimiter {
    /// One ASCII character.
    One(char),
    /// Any number of blanks and tabs; those at the start and end of a line are ignored.
    Blanks,
}

/// The name of [`Delimiter::Blanks`].
const BLANKS: &str = "whitespace";

impl Delimiter {
    /// The delimiter that `text` names: a character, `tab`, or `whitespace`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        match (text, characters.next(), characters.next()) {
            (BLANKS, ..) => Some(Self::Blanks),
            ("tab" | "\\t", ..) => Some(Self::One('\t')),
            (_, Some(one), None) => Some(Self::One(one)),
            _ => None,
        }
    }

    /// Whether `byte` is the delimiter, or a part of it.
    pub(super) fn is(self, byte: u8) -> bool {
        match self {
            Self::One(one) => u32::from(byte) == u32::from(one),
            Self::Blanks => byte.is_ascii_whitespace(),
        }
    }
}

impl From<char> for Delimiter {
    fn from(one: char) -> Self {
        Self::One(one)
    }
}

impl From<Delimiter> for String {
    fn from(delimiter: Delimiter) -> Self {
        delimiter.to_string()
    }
}

impl TryFrom<String> for Delimiter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("delimiter {text:?}, expected one character, \"tab\" or \"{BLANKS}\""))
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One('\t') => f.write_str("tab"),
            Self::One(one) => write!(f, "{one}"),
            Self::Blanks => f.write_str(BLANKS),
        }
    }
}

/// The quote and the escape character, as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quotes {
    /// The quote; doubled inside a field.
    pub(super) mark: u8,
    /// The escape character.
    pub(super) escape: Option<u8>,
}

impl From<u8> for Quotes {
    fn from(mark: u8) -> Self {
        Self { mark, escape: None }
    }
}

/// A setting that is invalid by itself or together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The key of the setting in a pipeline file.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would be accepted.
    pub help: &'static str,
}

impl Dialect {
    /// The keys of its settings that are not the defaults.
    pub fn given(&self) -> Vec<&'static str> {
        let usual = Self::default();
        let settings = [
            ("encoding", self.encoding != usual.encoding),
            ("delimiter", self.delimiter != usual.delimiter),
            ("quote", self.quote != usual.quote),
            ("escape", self.escape != usual.escape),
            ("decimal", self.decimal != usual.decimal),
            ("thousands", self.thousands != usual.thousands),
            ("comment", self.comment != usual.comment),
            ("row_end", self.row_end != usual.row_end),
            ("skip_lines", self.skip_lines != usual.skip_lines),
            ("header", self.has_header != usual.has_header),
            ("skip_after_header", self.skip_after_header != usual.skip_after_header),
            ("columns", self.columns != usual.columns),
            ("format", self.format != usual.format),
        ];
        settings.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }

    /// The delimiter, if a file does not set another one.
    pub(super) fn usual_delimiter(&self) -> Delimiter {
        self.delimiter.unwrap_or(Delimiter::One(if self.decimal == ',' { ';' } else { ',' }))
    }

    /// The quote inside which a line break ends no row, as a byte.
    pub(in crate::source) fn quote_byte(&self) -> Option<u8> {
        self.quotes().filter(|_| self.format == TextFormat::Csv).map(|quotes| quotes.mark)
    }

    /// The quotes. Characters that are not ASCII were refused before.
    pub(super) fn quotes(&self) -> Option<Quotes> {
        self.quote.map(|mark| Quotes { mark: mark as u8, escape: self.escape.map(|c| c as u8) })
    }

    /// Every setting that is invalid by itself or together with others.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut conflict = |key, message, help| found.push(Conflict { key, message, help });
        let delimiter = self.usual_delimiter();
        let quote = self.quote;
        let plain =
            |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '\n' | '\r' | '\0' | '+' | '-');
        if let Delimiter::One(one) = delimiter {
            if !plain(one) || Some(one) == quote {
                let help = "one ASCII character that is no letter, digit or quote; \"tab\"; \"whitespace\"";
                conflict("delimiter", format!("{one:?} cannot separate fields"), help);
            } else if one == self.decimal {
                let help = "another delimiter, such as \";\" or \"tab\"";
                conflict("delimiter", format!("{one:?} separates fields, and is the decimal sign as well"), help);
            }
        }
        if let Some(quote) = quote.filter(|&quote| !plain(quote) || quote == ' ' || quote == '\t') {
            conflict("quote", format!("{quote:?} cannot be a quote"), "a character such as \"'\", or \"\" for none");
        }
        if let Some(escape) = self.escape {
            let help = "a character such as \"\\\\\", or leave the key out";
            if quote.is_none() {
                conflict(
                    "escape",
                    "it stands inside of quotes, and quote is none".into(),
                    "a quote, or leave the key out",
                );
            } else if quote == Some(escape) {
                let message = format!("{escape:?} is the quote, which stands for itself where it is written twice");
                conflict("escape", message, "leave the key out");
            } else if !plain(escape) || matches!(escape, ' ' | '\t') || delimiter.is(escape as u8) {
                conflict("escape", format!("{escape:?} cannot be before a quote that is text"), help);
            } else if escape == self.decimal || self.thousands == Some(escape) {
                conflict("escape", format!("{escape:?} is a sign of numbers as well"), help);
            }
        }
        if !matches!(self.decimal, '.' | ',') {
            conflict("decimal", format!("{:?} cannot be a decimal sign", self.decimal), "\".\" or \",\"");
        }
        if let Some(thousands) = self.thousands {
            let help = "another character, or leave the key out";
            if !matches!(thousands, '.' | ',' | ' ' | '\'' | '_') {
                let message = format!("{thousands:?} cannot be between thousands");
                conflict("thousands", message, "\".\", \",\", \" \", \"'\" or \"_\"");
            } else if thousands == self.decimal {
                conflict("thousands", format!("{thousands:?} is the decimal sign as well"), help);
            } else if thousands == ' ' && delimiter.is(b' ') || quote.is_none() && delimiter == thousands.into() {
                conflict("thousands", format!("{thousands:?} separates fields as well"), help);
            }
        }
        if let Some(comment) = &self.comment {
            let first = comment.chars().next();
            let number = first.is_none_or(|c| c.is_ascii_digit()) || ["+", "-", ".", ","].contains(&comment.as_str());
            if number || comment.contains(['\n', '\r']) {
                conflict("comment", format!("{comment:?} cannot begin a comment"), "text that begins no number: \"#\"");
            } else if first.is_some_and(|c| delimiter == c.into()) {
                let message = format!("{comment:?} begins a comment, and a row whose first field is empty as well");
                conflict("comment", message, "another delimiter, or skip_lines for lines at the start");
            }
        }
        if let Some(end) = self.row_end
            && (!plain(end)
                || delimiter.is(end as u8)
                || [Some(self.decimal), self.thousands, quote, self.escape].contains(&Some(end)))
        {
            let help = "an ASCII character that is in no field, such as \";\"";
            conflict("row_end", format!("{end:?} cannot end a row"), help);
        }
        let mut names: Vec<&String> = self.columns.iter().collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            conflict("columns", format!("two columns are named {:?}", twice[0]), "a name of its own for each");
        }
        if self.format == TextFormat::Ndjson {
            for key in self.given().into_iter().filter(|key| *key != "format") {
                let message = format!("`{key}` is about CSV, and each line is a JSON object");
                conflict(key, message, "leave it out, or leave format out");
            }
            return found;
        }
        if self.skip_after_header > 0 && !self.has_header {
            let help = "skip_lines for lines at the start, or header = true";
            conflict("skip_after_header", "rows behind the header, but header is false".into(), help);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_have_names() {
        let named = ["tab", "\\t", "\t", "whitespace", ";", "semicolon", ""].map(Delimiter::parse);
        let tab = Some(Delimiter::One('\t'));
        assert_eq!(named, [tab, tab, tab, Some(Delimiter::Blanks), Some(Delimiter::One(';')), None, None]);
        let written = serde_json::to_string(&[Delimiter::Blanks, '\t'.into(), '|'.into()]).unwrap();
        assert_eq!(written, r#"["whitespace","tab","|"]"#);
        assert_eq!(serde_json::from_str::<Vec<Delimiter>>(&written).unwrap().len(), 3);
    }

    #[test]
    fn a_decimal_comma_moves_the_usual_delimiter() {
        assert_eq!(Dialect::default().usual_delimiter(), ','.into());
        assert_eq!(Dialect { decimal: ',', ..Default::default() }.usual_delimiter(), ';'.into());
    }

    #[test]
    fn every_conflict_is_named_by_its_key() {
        let keys = |dialect: Dialect| dialect.conflicts().into_iter().map(|c| c.key).collect::<Vec<_>>();
        let usual = Dialect::default;
        assert_eq!(keys(usual()), [""; 0]);
        for delimiter in ['é', '"', '\n', '1', 'a'] {
            assert_eq!(keys(Dialect { delimiter: Some(delimiter.into()), ..usual() }), ["delimiter"], "{delimiter}");
        }
        let comma = Dialect { decimal: ',', delimiter: Some(','.into()), ..usual() };
        assert_eq!(keys(comma), ["delimiter"]);
        assert_eq!(keys(Dialect { thousands: Some(','), ..usual() }), [""; 0], "in quotes");
        assert_eq!(keys(Dialect { thousands: Some(','), quote: None, ..usual() }), ["thousands"]);
        for escape in ['é', '"', ',', 'n', ' ', '.'] {
            assert_eq!(keys(Dialect { escape: Some(escape), ..usual() }), ["escape"], "{escape}");
        }
        for escape in ['\\', '^', '\''] {
            assert_eq!(keys(Dialect { escape: Some(escape), ..usual() }), [""; 0], "{escape}");
        }
        assert_eq!(keys(Dialect { escape: Some('\\'), quote: None, ..usual() }), ["escape"]);
        assert_eq!(keys(Dialect { escape: Some('|'), row_end: Some('|'), ..usual() }), ["row_end"]);
        for comment in ["", "-", "1", "a\nb", ","] {
            assert_eq!(keys(Dialect { comment: Some(comment.into()), ..usual() }), ["comment"], "{comment:?}");
        }
        let all = Dialect {
            delimiter: Some('x'.into()),
            quote: Some('5'),
            decimal: '-',
            thousands: Some('é'),
            comment: Some(String::new()),
            row_end: Some('.'),
            has_header: false,
            skip_after_header: 1,
            ..usual()
        };
        let mut expected = vec!["delimiter", "quote", "decimal", "thousands", "comment", "skip_after_header"];
        assert_eq!(keys(all.clone()), expected);
        expected.insert(5, "row_end");
        assert_eq!(keys(Dialect { row_end: Some('7'), ..all }), expected);
    }
}
