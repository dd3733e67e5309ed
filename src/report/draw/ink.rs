//! The inks of a figure, each with a colour for light and one for dark paper.

use plotters::style::RGBColor;

/// What something is drawn with. plotters only knows colours, so an ink is passed through it as a colour that encodes
/// its index in [`INKS`], and `svg` decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Text and equally strong lines.
    Text,
    /// Weaker text: ticks, notes.
    Muted,
    /// Lines of the grid.
    Grid,
    /// One quantity: bars, cells of a heat map.
    Accent,
    /// What the quantity is compared with.
    Second,
    /// Text upon [`Accent`](Self::Accent).
    OnAccent,
    /// The paper.
    Paper,
    /// Text over points, with a halo.
    Label,
    /// One of [`Ink::SERIES`] groups; further groups reuse the inks.
    Series(u8),
}

/// Every ink.
pub const INKS: [Ink; 8 + Ink::SERIES] = {
    let mut inks = [Ink::Text; 8 + Ink::SERIES];
    let fixed = [Ink::Text, Ink::Muted, Ink::Grid, Ink::Accent, Ink::Second, Ink::OnAccent, Ink::Paper, Ink::Label];
    let mut i = 0;
    while i < inks.len() {
        inks[i] = if i < fixed.len() { fixed[i] } else { Ink::Series((i - fixed.len()) as u8) };
        i += 1;
    }
    inks
};

/// Colours of groups on light and on dark paper. The first eight can be distinguished with any kind of colour vision
/// (after Okabe and Ito, and Tol); the others differ in lightness as well as in hue.
const SERIES: [(&str, &str); Ink::SERIES] = [
    ("#2f6fb5", "#5b9de0"),
    ("#e07b16", "#f59a3d"),
    ("#169a77", "#2cc29a"),
    ("#c2408f", "#ea7abf"),
    ("#8a63c9", "#b291ee"),
    ("#c9a400", "#ecc94b"),
    ("#4fb3d9", "#8fd8f5"),
    ("#c0392b", "#f06c5f"),
    ("#6b8e23", "#a3c94a"),
    ("#8c5a2b", "#c9935f"),
    ("#5f6b7a", "#9aa8b8"),
    ("#e48fb2", "#ffb7d0"),
    ("#1b4f72", "#3f7fae"),
    ("#9bbf3b", "#d3ef7e"),
    ("#6a1b5d", "#a1509a"),
    ("#d9a06b", "#f3cfa4"),
    ("#14645a", "#3b9184"),
    ("#a7a7e0", "#cfd0ff"),
    ("#8f1f2f", "#bb4a55"),
    ("#7fc6a4", "#b5f0d2"),
];

impl Ink {
    /// Groups with a colour of their own.
    pub const SERIES: usize = 20;

    /// The ink of group number `index`.
    pub fn of_group(index: usize) -> Self {
        Ink::Series((index % Ink::SERIES) as u8)
    }

    /// The name of its classes in the style sheet.
    pub fn class(&self) -> String {
        match self {
            Ink::Text => "text".into(),
            Ink::Muted => "muted".into(),
            Ink::Grid => "grid".into(),
            Ink::Accent => "accent".into(),
            Ink::Second => "second".into(),
            Ink::OnAccent => "on".into(),
            Ink::Paper => "paper".into(),
            Ink::Label => "label".into(),
            Ink::Series(index) => format!("c{index}"),
        }
    }

    /// Its colour on light paper.
    pub fn light(&self) -> &'static str {
        match self {
            Ink::Text | Ink::Label => "#1c2430",
            Ink::Muted => "#5d6878",
            Ink::Grid => "#e3e7ec",
            Ink::Accent => "#2563a8",
            Ink::Second => "#d0661a",
            Ink::OnAccent | Ink::Paper => "#ffffff",
            Ink::Series(index) => SERIES[usize::from(*index) % Ink::SERIES].0,
        }
    }

    /// Its colour on dark paper.
    pub fn dark(&self) -> &'static str {
        match self {
            Ink::Text | Ink::Label => "#e6eaf0",
            Ink::Muted => "#9aa5b4",
            Ink::Grid => "#2c333d",
            Ink::Accent => "#6db0f2",
            Ink::Second => "#f5a054",
            Ink::OnAccent => "#0b1017",
            Ink::Paper => "#161b22",
            Ink::Series(index) => SERIES[usize::from(*index) % Ink::SERIES].1,
        }
    }

    /// The colour that stands for it inside plotters.
    pub(super) fn rgb(self) -> RGBColor {
        let place = INKS.iter().position(|ink| *ink == self).unwrap_or_default();
        RGBColor(place as u8, 0, 0)
    }

    /// The ink for such a colour.
    pub(super) fn of_rgb((place, ..): (u8, u8, u8)) -> Self {
        INKS.get(usize::from(place)).copied().unwrap_or(Ink::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ink_comes_back_from_the_colour_that_stands_for_it() {
        for ink in INKS {
            let RGBColor(r, g, b) = ink.rgb();
            assert_eq!(Ink::of_rgb((r, g, b)), ink);
        }
        assert_eq!(Ink::of_group(Ink::SERIES + 3), Ink::Series(3));
    }

    #[test]
    fn colours_of_groups_differ() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(SERIES.iter().all(|(light, dark)| seen.insert(light) && seen.insert(dark)));
    }
}
