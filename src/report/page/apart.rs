//! What sets each cluster apart: the features whose mean differs most, or the mean image.

use super::super::draw::{self, Picture, pictures, thousands};
use super::super::findings::{Findings, Portrait};
use super::super::markup::{Markup, bar, element, literal, swatch, text};
use super::{Figures, ink, missing, titled};

/// Features shown of each cluster.
const FEATURES: usize = 6;
/// The most clusters that are shown at once, and in all.
const OPEN_CLUSTERS: usize = 12;
const MOST_CLUSTERS: usize = 50;
/// Pixels of a mean image.
const IMAGE: i32 = 84;

/// The section.
pub fn section(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    const TITLE: &str = "What sets each cluster apart";
    let Ok(portraits) = &findings.portraits else {
        return Ok(Markup::join([titled(TITLE, "Features whose mean differs most."), missing(&findings.portraits)]));
    };
    let mut shown: Vec<&Portrait> = portraits.iter().collect();
    let size = |portrait: &Portrait| findings.sizes.get(&portrait.cluster).copied().unwrap_or(0);
    shown.sort_by_key(|portrait| (std::cmp::Reverse(size(portrait)), portrait.cluster));
    let left_out = shown.len().saturating_sub(MOST_CLUSTERS);
    shown.truncate(MOST_CLUSTERS);
    let mut intro = "The features whose mean in the cluster differs most from that of all rows, in standard deviations over all rows; the largest cluster first.".to_owned();
    if left_out > 0 {
        intro += &format!(" The {left_out} smallest clusters are left out; cluster_profile in SQL has all.");
    }
    if let Some(side) = findings.side() {
        let intro = "The mean image of each cluster, the largest cluster first.";
        let images = shown.iter().filter_map(|portrait| {
            let caption = format!("{} · {}", portrait.cluster, thousands(size(portrait)));
            Some(Picture { caption, pixels: portrait.image.clone()? })
        });
        let images: Vec<Picture> = images.collect();
        let drawn = pictures("cluster-means", "Mean image of each cluster", &images, side, IMAGE, 1)?;
        let card = figures.card(drawn, "Over each image: the cluster and its rows.");
        return Ok(Markup::join([titled(TITLE, intro), element("div", "grid", [card])]));
    }
    let mut cards: Vec<Markup> = shown.iter().map(|portrait| card(portrait, size(portrait))).collect();
    let folded = cards.split_off(OPEN_CLUSTERS.min(cards.len()));
    let more = match folded.is_empty() {
        true => Markup::default(),
        false => {
            let summary = element("summary", "", [text(format!("{} more clusters", folded.len()))]);
            element("details", "", [summary, element("div", "cards", folded)])
        }
    };
    Ok(Markup::join([titled(TITLE, &intro), element("div", "cards", cards), more]))
}

/// Each card has its own scale. On a common one, a single outlying cluster would make all other bars too short to see.
fn card(portrait: &Portrait, size: u64) -> Markup {
    let most = portrait.apart.first().map_or(1.0, |apart| apart.difference.abs()).max(f64::MIN_POSITIVE);
    let rows = portrait.apart.iter().take(FEATURES).map(|apart| {
        element(
            "tr",
            "",
            [
                element("td", "", [text(&apart.feature)]),
                element("td", "", [bar(apart.difference / most)]),
                element("td", "number", [text(format!("{:+.1}", apart.difference).replace('-', "\u{2212}"))]),
            ],
        )
    });
    let table = match portrait.apart.is_empty() {
        true => element("p", "", [literal("No feature differs: its rows are like all rows, or it has none.")]),
        false => element("table", "apart", rows),
    };
    let head = [
        swatch(ink(portrait.cluster)),
        text(format!("Cluster {}", portrait.cluster)),
        element("small", "", [text(format!("{} rows", thousands(size)))]),
    ];
    element("section", "card", [element("h3", "", head), table])
}
