//! The rows in the plane, by cluster and by label.

use std::collections::BTreeMap;

use super::super::draw::{self, Group, Ink, Scatter, scatter, thousands};
use super::super::findings::{Drawn, Findings};
use super::super::markup::{Markup, element};
use super::{Figures, clusters, ink, missing, titled};

/// The most labels that get a colour; the rest are drawn together.
const MOST_LABELS: usize = 19;

/// The section.
pub fn section(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    let Ok(drawn) = &findings.sample else {
        let intro = "The rows in two dimensions.";
        return Ok(Markup::join([titled("The rows in two dimensions", intro), missing(&findings.sample)]));
    };
    let what = if drawn.embedded { "embedding" } else { "scaled features" };
    let shares = drawn.shares.map(|share| format!("{:.0}\u{202f}%", 100.0 * share));
    let of = match (drawn.points.len() as u64) < findings.rows {
        true => {
            format!("{} of {} rows, drawn at random", thousands(drawn.points.len() as u64), thousands(findings.rows))
        }
        false => format!("all {} rows", thousands(findings.rows)),
    };
    let intro = format!(
        "The first two principal components of the {what} ({} and {} of the variance); {of}.",
        shares[0], shares[1]
    );
    let (groups, places) = clusters(findings);
    let group: Vec<usize> = drawn.clusters.iter().map(|cluster| places.get(cluster).copied().unwrap_or(0)).collect();
    let by_cluster = Scatter { points: &drawn.points, group: &group, groups: &groups, names_over_points: true };
    let mut cards = vec![figures.card(scatter("embedding-clusters", "By cluster", by_cluster)?, "")];
    if drawn.labels.iter().any(Option::is_some) {
        let (groups, group) = labels(drawn);
        let by_label = Scatter { points: &drawn.points, group: &group, groups: &groups, names_over_points: false };
        let column = findings.agreement.as_ref().map_or("label", |agreement| &agreement.column).to_owned();
        cards.push(figures.card(scatter("embedding-labels", &format!("By {column}"), by_label)?, ""));
    }
    Ok(Markup::join([titled("The rows in two dimensions", &intro), element("div", "grid", cards)]))
}

/// The labels as groups: the most frequent, the others, and rows without one.
fn labels(drawn: &Drawn) -> (Vec<Group>, Vec<usize>) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for label in drawn.labels.iter().flatten() {
        *counts.entry(label).or_default() += 1;
    }
    let mut names: Vec<(&str, u64)> = counts.into_iter().collect();
    names.sort_by_key(|(label, count)| (std::cmp::Reverse(*count), *label));
    let others = names.len().saturating_sub(MOST_LABELS);
    names.truncate(MOST_LABELS);
    names.sort_unstable();
    let inks = inks(drawn, &names);
    let group = |((label, _), ink): (&(&str, u64), Ink)| Group { name: (*label).to_owned(), ink };
    let mut groups: Vec<Group> = names.iter().zip(inks).map(group).collect();
    let mut extra = |name: String| {
        groups.push(Group { name, ink: Ink::Muted });
        groups.len() - 1
    };
    let other = if others > 0 { extra(format!("{others} others")) } else { 0 };
    let none = if drawn.labels.iter().any(Option::is_none) { extra("no label".into()) } else { 0 };
    let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, (label, _))| (*label, i)).collect();
    let of = |label: &Option<String>| match label {
        Some(label) => place.get(label.as_str()).copied().unwrap_or(other),
        None => none,
    };
    let group = drawn.labels.iter().map(of).collect();
    (groups, group)
}

/// The ink of each label: that of the cluster with which it shares most rows, so that both drawings look alike where
/// clusters and labels agree. No two labels have the same ink.
fn inks(drawn: &Drawn, labels: &[(&str, u64)]) -> Vec<Ink> {
    let mut shared: BTreeMap<(&str, i32), u64> = BTreeMap::new();
    for (label, cluster) in drawn.labels.iter().zip(&drawn.clusters) {
        if let Some(label) = label {
            *shared.entry((label, *cluster)).or_default() += 1;
        }
    }
    let mut shared: Vec<_> = shared.into_iter().collect();
    shared.sort_by_key(|(pair, rows)| (std::cmp::Reverse(*rows), *pair));
    let mut found: BTreeMap<&str, Ink> = BTreeMap::new();
    for ((label, cluster), _) in shared {
        let ink = ink(cluster);
        let wanted = labels.iter().any(|(wanted, _)| *wanted == label);
        if wanted && !found.contains_key(label) && found.values().all(|taken| *taken != ink) {
            found.insert(label, ink);
        }
    }
    let taken: Vec<Ink> = found.values().copied().collect();
    let mut free = (0..Ink::SERIES).map(Ink::of_group).filter(|ink| !taken.contains(ink));
    labels.iter().map(|(label, _)| found.get(label).copied().or_else(|| free.next()).unwrap_or(Ink::Muted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_the_ink_of_its_cluster() {
        let rows = [("a", 4), ("a", 4), ("b", 4), ("b", 2), ("b", 4), ("b", 4), ("c", 1)];
        let drawn = Drawn {
            labels: rows.iter().map(|(label, _)| Some((*label).to_owned())).collect(),
            clusters: rows.iter().map(|(_, cluster)| *cluster).collect(),
            ..Drawn::default()
        };
        let (groups, _) = labels(&drawn);
        let inks: Vec<Ink> = groups.iter().map(|group| group.ink).collect();
        assert_eq!(inks, [Ink::Series(0), Ink::Series(4), Ink::Series(1)], "a's cluster is b's");
    }

    #[test]
    fn rare_labels_and_missing_ones_are_groups_of_their_own() {
        let mut labels_of: Vec<Option<String>> = (0..25).flat_map(|i| vec![Some(format!("l{i:02}")); 30 - i]).collect();
        labels_of.push(None);
        let drawn = Drawn { labels: labels_of, ..Drawn::default() };
        let (groups, group) = labels(&drawn);
        assert_eq!(groups.len(), MOST_LABELS + 2);
        assert_eq!(groups[group[0]].name, "l00");
        assert_eq!(groups[group[group.len() - 2]].name, "6 others");
        assert_eq!(groups[*group.last().unwrap()].name, "no label");
    }
}
