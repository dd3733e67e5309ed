//! Texts in figures: their width, and how they are shortened.

use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, IntoFont, TextStyle};

use super::ink::Ink;
use super::svg::UNITS;

/// The size of text, in pixels.
pub(super) const SIZE: i32 = 12;

/// The approximate width of `text` at this size: no font is available, so widths are estimated by kind of letter.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' | '-' | ' ' => {
            0.33
        }
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.9,
        c if c.is_uppercase() => 0.68,
        // Most scripts beyond this have square characters.
        c if c as u32 >= 0x1100 => 1.0,
        _ => 0.56,
    };
    text.chars().map(em).sum::<f64>() * size
}

/// The style of text of `ink`, anchored at `pos`.
pub(super) fn style(ink: Ink, pos: (HPos, VPos)) -> TextStyle<'static> {
    sized(ink, SIZE, pos)
}

/// The same, with a size in pixels.
pub(super) fn sized(ink: Ink, size: i32, (h_pos, v_pos): (HPos, VPos)) -> TextStyle<'static> {
    let font = ("sans-serif", size * UNITS).into_font();
    TextStyle { font, color: ink.rgb().to_backend_color(), pos: Pos::new(h_pos, v_pos) }
}

/// The same, turned to be read from below.
pub(super) fn upward(ink: Ink, pos: (HPos, VPos)) -> TextStyle<'static> {
    style(ink, pos).transform(FontTransform::Rotate270)
}

/// `text` cut to at most `most` characters.
pub fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A count with separated thousands.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number with about three digits, for ticks.
pub(super) fn tick(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size == 0.0 => return "0".into(),
        _ if !(1e-3..1e5).contains(&size) => return format!("{value:.1e}"),
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Round numbers from 0 to at most `most`, three to six of them.
pub(super) fn ticks(most: f64) -> Vec<f64> {
    let power = 10f64.powf((most / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| most / step <= 5.0 + 1e-9).unwrap_or(most);
    (0..=(most / step + 1e-9) as u32).map(|i| f64::from(i) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit() {
        assert_eq!(shorten("walking", 7), "walking");
        assert_eq!(shorten("walking", 4), "wal…");
        assert!(width("WWW", 10.0) > width("iii", 10.0));
    }

    #[test]
    fn ticks_are_round() {
        let shown = |most| ticks(most).into_iter().map(tick).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(0.545), "0 0.2 0.4");
        assert_eq!(shown(1.0), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(shown(37.0), "0 10 20 30");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(999), "999");
        let ticks = [0.0, 0.05, -1.5, 0.0123456, 123.456, 1e6, 20.0].map(tick);
        assert_eq!(ticks, ["0", "0.05", "-1.5", "0.0123", "123", "1.0e6", "20"]);
    }
}
