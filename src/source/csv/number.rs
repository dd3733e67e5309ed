//! Numbers with the separators of a dialect.

use std::borrow::Cow;

use super::dialect::Dialect;
use crate::source::bad::shown;
use crate::source::text::{number, number_written};

/// How numbers are written in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    decimal: u8,
    thousands: Option<u8>,
}

impl Numbers {
    /// The numbers of `dialect`, which must have no conflicts.
    pub(super) fn of(dialect: &Dialect) -> Self {
        Self { decimal: dialect.decimal as u8, thousands: dialect.thousands.map(|c| c as u8) }
    }

    /// The number in `text`, finite in single precision; or what is wrong with it, and which key would read it.
    pub(super) fn parse(self, text: &[u8]) -> Result<f64, String> {
        let parsed = match self.plain(text) {
            Some(Cow::Borrowed(plain)) => number(plain),
            Some(Cow::Owned(plain)) => number_written(&plain, text),
            None => Err(format!("{} is not a number", shown(text))),
        };
        parsed.map_err(|e| format!("{e}, expected a finite number{}", self.hint(text)))
    }

    /// `text` with a decimal point and no thousands separators. `None` if the separators are in wrong places. The other
    /// characters are not checked.
    pub(super) fn plain(self, text: &[u8]) -> Option<Cow<'_, [u8]>> {
        if self.decimal == b'.' && self.thousands.is_none() {
            return Some(text.into());
        }
        let whole = text.iter().position(|&b| b == self.decimal).unwrap_or(text.len());
        let (digits, fraction) = text.split_at(whole);
        let fraction = fraction.get(1..).unwrap_or_default();
        if fraction.contains(&self.decimal) || self.thousands.is_some_and(|mark| fraction.contains(&mark)) {
            return None;
        }
        if self.decimal != b'.' && self.thousands != Some(b'.') && text.contains(&b'.') {
            return None;
        }
        let mut plain = match self.thousands.filter(|mark| digits.contains(mark)) {
            Some(mark) => without(digits, mark)?,
            None => digits.to_vec(),
        };
        if whole < text.len() {
            plain.push(b'.');
            plain.extend_from_slice(fraction);
        }
        Some(plain.into())
    }

    /// A hint for `text`, which is not a time: the keys that would read it as a number.
    pub(super) fn other_signs(self, text: &[u8]) -> &'static str {
        let hint = self.hint(text);
        if hint.contains("decimal") { hint } else { "" }
    }

    /// A hint what `text`, which is not a number here, may have been meant as.
    fn hint(self, text: &[u8]) -> &'static str {
        if text.is_empty() || text.eq_ignore_ascii_case(b"nan") {
            return " (fill = \"hold\" takes the channel's last value there)";
        }
        if text.starts_with("\u{2212}".as_bytes()) {
            return " (its minus sign is the character U+2212, expected -)";
        }
        let begins = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
        let digits = begins.iter().take_while(|b| b.is_ascii_digit()).count();
        let Some((&sign, rest)) = begins[digits..].split_first().filter(|_| digits > 0) else { return "" };
        let point = Self { decimal: b'.', thousands: Some(sign) };
        let comma = Self { decimal: b',', thousands: Some(sign).filter(|&s| s != b',') };
        let reads = |format: Self| format.plain(text).is_some_and(|plain| number(&plain).is_ok());
        match sign {
            b',' if self.decimal != b',' && reads(comma) && reads(point) => {
                " (decimal = \",\" reads it as a fraction, thousands = \",\" as thousands)"
            }
            b',' if self.decimal != b',' && reads(comma) => " (decimal = \",\" reads a comma as the decimal sign)",
            b'.' if self.decimal == b',' && number(text).is_ok() => " (decimal is \",\" here)",
            b'.' if reads(comma) => " (decimal = \",\" and thousands = \".\" read it)",
            b',' | b' ' | b'\'' | b'_' if self.decimal == b'.' && reads(point) => {
                " (a key thousands reads such groups)"
            }
            b'-' | b'/' | b':' if rest.first().is_some_and(u8::is_ascii_digit) => " (it looks like a date or a time)",
            b';' if rest.is_empty() => " (row_end = \";\" ends rows there)",
            b'.' if rest.ends_with(b";") => " (row_end = \";\" ends rows there)",
            _ if self.with_a_unit(text) => " (a number with its unit: leave the unit out of the column)",
            _ => "",
        }
    }

    /// Whether `text` is a number and then a word.
    fn with_a_unit(self, text: &[u8]) -> bool {
        let digit = text.iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1);
        let (value, unit) = text.split_at(digit);
        let unit = unit.trim_ascii();
        self.plain(value.trim_ascii()).is_some_and(|value| number(&value).is_ok())
            && unit.iter().all(|&b| b.is_ascii_alphabetic() || matches!(b, b'/' | b'%' | b'^') || !b.is_ascii())
            && unit.len() > 1
    }
}

/// Digits, perhaps after a sign, without the separators between groups of three; `None` if the groups are wrong.
fn without(digits: &[u8], mark: u8) -> Option<Vec<u8>> {
    let mut groups = digits.split(|&b| b == mark);
    let first = groups.next().unwrap_or_default();
    let unsigned = first.strip_prefix(b"-").or(first.strip_prefix(b"+")).unwrap_or(first);
    if !(1..=3).contains(&unsigned.len()) {
        return None;
    }
    let mut plain = first.to_vec();
    for group in groups {
        if group.len() != 3 || !group.iter().all(u8::is_ascii_digit) {
            return None;
        }
        plain.extend_from_slice(group);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(decimal: char, thousands: Option<char>, text: &str) -> Result<f64, String> {
        Numbers::of(&Dialect { decimal, thousands, ..Default::default() }).parse(text.as_bytes())
    }

    #[test]
    fn a_number_is_what_programs_write() {
        for (text, value) in [("+5", 5.0), (".5", 0.5), ("5.", 5.0), ("-0", 0.0), ("1E-400", 0.0), ("1e5", 1e5)] {
            assert_eq!(parse('.', None, text), Ok(value), "{text}");
        }
        for text in ["", "null", "N/A", "0x1F", "1_000", "１２", "5e", "--5", "TRUE", "NaN(ind)", "1 000", "5f"] {
            assert!(
                parse('.', None, text).unwrap_err().contains("is not a number, expected a finite number"),
                "{text}"
            );
        }
        for text in ["Infinity", "-inf", "nan", "1e400", "1e39"] {
            assert!(parse('.', None, text).unwrap_err().contains("is not finite"), "{text}");
        }
    }

    #[test]
    fn a_comma_may_be_the_decimal_sign() {
        for (text, value) in [("1,5", 1.5), ("-,5", -0.5), ("7", 7.0), ("1,5e3", 1500.0), ("+0,02", 0.02)] {
            assert_eq!(parse(',', None, text), Ok(value), "{text}");
        }
        for text in ["1.5", "1.234,5", "1,2,3", ",", "1,5 V"] {
            let said = parse(',', None, text).unwrap_err();
            assert!(said.contains(&format!("{text:?} is not a number")), "{said}");
        }
        assert!(parse(',', None, "1e39").unwrap_err().contains("not finite"));
    }

    #[test]
    fn thousands_are_groups_of_three_before_the_fraction() {
        for (thousands, text) in [(',', "1,234,567.5"), (' ', "1 234 567.5"), ('\'', "1'234'567.5"), (',', "1234567.5")]
        {
            assert_eq!(parse('.', Some(thousands), text), Ok(1234567.5), "{text}");
        }
        assert_eq!(parse(',', Some('.'), "-1.234,5"), Ok(-1234.5));
        for text in ["12,34", "1234,567", ",123", "1,,234", "1.5,000", "1,23a"] {
            assert!(parse('.', Some(','), text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        for (decimal, text, said) in [
            ('.', "0,5", "decimal = \",\""),
            ('.', "1,234", "thousands = \",\" as thousands"),
            ('.', "1,234.5", "a key thousands"),
            ('.', "1 234.5", "a key thousands"),
            ('.', "1.234,5", "decimal = \",\" and thousands = \".\""),
            (',', "1.234,5", "thousands = \".\""),
            (',', "1.5", "decimal is \",\" here"),
            ('.', "2024-01-01T10:00:00", "a date or a time"),
            ('.', "10:00:00.5", "a date or a time"),
            ('.', "12.3 mV", "unit"),
            ('.', "0.5;", "row_end"),
            ('.', "\u{2212}0.5", "U+2212"),
            ('.', "", "fill = \"hold\""),
            ('.', "NaN", "fill = \"hold\""),
        ] {
            let error = parse(decimal, None, text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(!parse('.', None, "one").unwrap_err().contains('('));
    }
}
