//! The inks of a figure, each with a colour on light and one on dark paper.

use plotters::style::RGBColor;

/// What something is drawn with. plotters knows colours only: it is handed the ink's place in [`INKS`] as one, and
/// `svg` reads it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Text and what is as strong as it.
    Text,
    /// Text of less weight: ticks, notes.
    Muted,
    /// Lines of the grid.
    Grid,
    /// One quantity: bars, cells of a heat map.
    Accent,
    /// What is compared with it.
    Second,
    /// Text upon [`Accent`](Self::Accent).
    OnAccent,
    /// The paper.
    Paper,
    /// Text over points, with a halo.
    Label,
    /// One of [`Ink::SERIES`] groups; later groups begin anew.
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

/// Colours of groups on light paper and on dark. The first eight can be told apart with any kind of colour vision (after
/// Okabe and Ito, and Tol); those after them differ in lightness as well as in hue.
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

    /// The colour by which plotters passes it on.
    pub(super) fn rgb(self) -> RGBColor {
        let place = INKS.iter().position(|ink| *ink == self).unwrap_or_default();
        RGBColor(place as u8, 0, 0)
    }

    /// The ink that such a colour stands for.
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
