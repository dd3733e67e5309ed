//! The training: losses by epoch, the weights of the features, and reconstructed rows.

use std::collections::BTreeMap;

use super::super::draw::{self, Dots, Figure, Ink, Line, Panel, Picture, dots, lines, panels, pictures};
use super::super::findings::{Findings, Rebuilt};
use super::super::markup::{Markup, element};
use super::{Figures, missing, titled};

/// The most groups of features that get a line each.
const MOST_GROUPS: usize = 32;
/// Pixels of the image of weights, and of a row.
const WEIGHTS: i32 = 220;
const ROW: i32 = 62;
/// Rows that are drawn as lines.
const MOST_PANELS: usize = 12;

/// Losses and weights.
pub fn section(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    let mut cards = Vec::new();
    for (stage, list, values) in losses(findings) {
        let figure = lines(&format!("{stage}-{list}"), &format!("{stage}: {list}"), &values, "epoch")?;
        let last = values.last().copied().unwrap_or_default();
        cards.push(figures.card(figure, &format!("{} epochs; the last value is {last:.5}.", values.len())));
    }
    let weights = match &findings.weights {
        Ok(weights) => weigh(findings, weights)?,
        Err(_) => None,
    };
    if let Some((figure, note)) = weights {
        cards.push(figures.card(figure, note));
    }
    let nothing = cards.is_empty();
    let shown = element("div", "grid", cards);
    let intro = "The loss after each epoch, and how much each feature counts in it.";
    let why = missing(&findings.weights);
    Ok(match (nothing, &findings.weights) {
        (true, Ok(_)) => Markup::default(),
        (true, Err(_)) => Markup::join([titled("Learning", intro), why]),
        (false, _) => Markup::join([titled("Learning", intro), shown, why]),
    })
}

/// Every list with one number per epoch among the figures of a run, by stage and name.
fn losses(findings: &Findings) -> Vec<(String, String, Vec<f64>)> {
    let Ok(run) = &findings.run else { return Vec::new() };
    let mut found = Vec::new();
    for stage in &run.stages {
        let Some(epochs) = stage.figures.get("epochs").and_then(|epochs| epochs.as_u64()) else { continue };
        for (name, value) in &stage.figures {
            let list = value.as_array().filter(|list| list.len() as u64 == epochs && epochs > 1);
            let Some(list) = list else { continue };
            let values: Option<Vec<f64>> = list.iter().map(|value| value.as_f64()).collect();
            if let Some(values) = values {
                found.push((file_name(&stage.stage), file_name(name), values));
            }
        }
    }
    found
}

/// `name` as part of the name of a file.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}

/// The weights as an image, or by group of features.
fn weigh(findings: &Findings, weights: &[f64]) -> draw::Result<Option<(Figure, &'static str)>> {
    const NAME: &str = "feature-weights";
    let most = weights.iter().copied().fold(0.0, f64::max);
    if weights.len() < 2 || weights.iter().all(|weight| *weight == most) {
        return Ok(None);
    }
    if let Some(side) = findings.side() {
        let pixels = weights.iter().map(|weight| weight / most).collect();
        let image = Picture { caption: String::new(), pixels };
        let figure = pictures(NAME, "Feature weights", &[image], side, WEIGHTS, 1)?;
        return Ok(Some((figure, "The stronger a pixel, the more it counts in the loss.")));
    }
    let groups = by_group(&findings.features, weights);
    if groups.len() < 2 {
        return Ok(Some((
            lines(NAME, "Feature weights", weights, "feature")?,
            "The weight of each feature in the loss.",
        )));
    }
    let note = "A dot is a feature, the mark the mean of its group: the features whose names begin alike.";
    Ok(Some((dots(NAME, "Feature weights", &groups)?, note)))
}

/// The weights grouped by the part of the name before the first separator, the heaviest group first; if there are many
/// groups, the rest together.
fn by_group(names: &[String], weights: &[f64]) -> Vec<Dots> {
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, weight) in names.iter().zip(weights) {
        let prefix = name.split(['-', '_', '.', ' ', ':', '/', '(', '[']).find(|part| !part.is_empty()).unwrap_or(name);
        groups.entry(prefix).or_default().push(*weight);
    }
    let mut groups: Vec<Dots> =
        groups.into_iter().map(|(name, values)| Dots { name: name.to_owned(), values }).collect();
    groups.sort_by(|a, b| b.mean().total_cmp(&a.mean()).then_with(|| a.name.cmp(&b.name)));
    if groups.len() > MOST_GROUPS {
        let rest = groups.split_off(MOST_GROUPS - 1);
        let name = format!("{} other groups", rest.len());
        groups.push(Dots { name, values: rest.into_iter().flat_map(|group| group.values).collect() });
    }
    groups
}

/// Rows and their reconstructions.
pub fn rebuilt(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    const TITLE: &str = "Rows and their reconstructions";
    let intro = "Rows as the network is given them, and as its decoder gives them back from the embedding.";
    let Ok(rows) = &findings.rebuilt else {
        return Ok(Markup::join([titled(TITLE, intro), missing(&findings.rebuilt)]));
    };
    if rows.is_empty() {
        return Ok(Markup::default());
    }
    let (figure, note) = match findings.side() {
        Some(side) => (images(rows, side)?, "Pairs: the row on the left, its reconstruction on the right."),
        None => (curves(rows)?, "Grey: the scaled features in their order. Coloured: their reconstruction."),
    };
    Ok(Markup::join([titled(TITLE, intro), element("div", "grid", [figures.card(figure, note)])]))
}

/// The caption of a row.
fn caption(row: &Rebuilt) -> String {
    match &row.label {
        Some(label) => format!("{label} · cluster {}", row.cluster),
        None => format!("cluster {}", row.cluster),
    }
}

fn images(rows: &[Rebuilt], side: usize) -> draw::Result<Figure> {
    let (low, high) = rows
        .iter()
        .flat_map(|row| &row.input)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = if high > low { high - low } else { 1.0 };
    let grey = |values: &[f64]| values.iter().map(|value| (value - low) / span).collect();
    let pairs = rows.iter().flat_map(|row| {
        let label = row.label.clone().unwrap_or_else(|| format!("cluster {}", row.cluster));
        [
            Picture { caption: label, pixels: grey(&row.input) },
            Picture { caption: String::new(), pixels: grey(&row.output) },
        ]
    });
    let pairs: Vec<Picture> = pairs.collect();
    pictures("reconstructions", "Rows and their reconstructions", &pairs, side, ROW, 2)
}

fn curves(rows: &[Rebuilt]) -> draw::Result<Figure> {
    let drawn = rows.iter().take(MOST_PANELS).map(|row| {
        let before = Line { values: &row.input, ink: Ink::Muted };
        let after = Line { values: &row.output, ink: Ink::Second };
        Panel { name: caption(row), lines: vec![before, after] }
    });
    let drawn: Vec<Panel<'_>> = drawn.collect();
    panels("reconstructions", "Rows and their reconstructions", &drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_grouped_by_the_beginning_of_their_names() {
        let names = ["tAcc-Mean-1", "tAcc-Mean-2", "tGyro_Std", "plain"].map(String::from);
        let groups = by_group(&names, &[0.1, 0.3, 0.9, 0.0]);
        let found: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.values.len())).collect();
        assert_eq!(found, [("tGyro", 1), ("tAcc", 2), ("plain", 1)]);
        let names: Vec<String> = (0..100).map(|i| format!("g{i}")).collect();
        let groups = by_group(&names, &[0.5; 100]);
        assert_eq!(groups.len(), MOST_GROUPS);
        assert_eq!(groups[MOST_GROUPS - 1].name, "69 other groups");
    }
}
