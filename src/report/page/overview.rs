//! The overview of the run: the first screen, the sizes, and how to go on.

use super::super::draw::{self, Heat, bars, heat, thousands};
use super::super::findings::Findings;
use super::super::markup::{Markup, element, literal, text};
use super::super::run::Scores;
use super::{Figures, clusters, missing, titled};

/// The name of the part with all rows.
const ALL: &str = "all";
/// The most clusters and labels of the heat map.
const MOST_ROWS: usize = 50;
const MOST_LABELS: usize = 30;

/// Name, source and the most important figures.
pub fn header(findings: &Findings) -> Markup {
    let mut pieces = Vec::new();
    let run = findings.run.as_ref().ok();
    if run.is_some_and(|run| run.simulated) {
        pieces.push(element("span", "tag", [literal("simulated recordings, not real ones")]));
    }
    pieces.push(element("h1", "", [text(&findings.name)]));
    let source = run.map_or(String::new(), |run| format!("{} · {}", run.source, run.started_at));
    let table = format!("{} · version {}", findings.table, findings.version);
    pieces.push(element("p", "", [text(&source), literal(if source.is_empty() { "" } else { "<br>" }), text(table)]));
    let mut facts =
        vec![fact(&thousands(findings.rows), "rows labelled"), fact(&findings.sizes.len().to_string(), "clusters")];
    if let Some(run) = run {
        facts.insert(0, fact(&thousands(run.fit_rows), "rows learned from"));
        // Rows that were not learned from are more informative, if there are any.
        let parts = ["test", ALL];
        if let Some((part, scores)) = parts.iter().find_map(|part| Some((part, run.scores.get(*part)?))) {
            let rows = if *part == ALL { "all rows".to_owned() } else { format!("{part} rows") };
            facts.push(fact(&format!("{:.3}", scores.ari), &format!("ARI, {rows}")));
            if let Some(raw) = run.raw_kmeans.get(*part) {
                facts.push(fact(&format!("{:.3}", raw.ari), &format!("ARI of raw k-means, {rows}")));
            }
        }
        if let Some(follows) = run.follows() {
            let rows = thousands(follows.rows);
            facts.push(fact(&format!("{:.3}", follows.layout), "trustworthiness of the layout"));
            facts.push(fact(&format!("{:.3}", follows.trustworthiness), &format!("the same, {rows} rows held out")));
            facts.push(fact(&format!("{:.3}", follows.error), "squared error of their coordinates"));
        }
        facts.push(fact(&format!("{:.1} s", run.seconds), "for the whole run"));
        facts.push(fact(&run.seed.to_string(), "seed"));
    }
    facts.push(fact(&findings.model.chars().take(16).collect::<String>(), "model"));
    pieces.push(element("div", "facts", facts));
    pieces.push(missing(&findings.run));
    pieces.extend(findings.notes.iter().map(|note| element("p", "missing", [text(note)])));
    element("header", "", pieces)
}

fn fact(value: &str, name: &str) -> Markup {
    let class = if value.chars().count() > 12 { "long" } else { "" };
    element("div", "fact", [element("b", class, [text(value)]), element("span", "", [text(name)])])
}

/// Agreement with the labels by part, beside raw k-means.
pub fn scores(findings: &Findings) -> Markup {
    let Some(run) = findings.run.as_ref().ok().filter(|run| !run.scores.is_empty()) else {
        return Markup::default();
    };
    let column = run.label_column.as_deref().unwrap_or("label");
    let used = match run.labels_used {
        true => "Labels of the rows that were learned from took part: they weighted the features. No other label did.",
        false => "No label took part in learning; they serve for this comparison alone.",
    };
    let intro = format!("The clusters against the column {column}. {used}");
    let head = ["part", "rows", "ARI", "NMI", "accuracy"].map(|name| element("th", "", [literal(name)]));
    let rows = run.scores.iter().map(|(part, ours)| {
        let raw = run.raw_kmeans.get(part);
        element(
            "tr",
            "",
            [
                element("td", "", [text(part)]),
                element("td", "", [text(thousands(ours.rows))]),
                score(Some(ours.ari), raw.map(|raw| raw.ari)),
                score(Some(ours.nmi), raw.map(|raw| raw.nmi)),
                score(ours.acc, raw.and_then(|raw: &Scores| raw.acc)),
            ],
        )
    });
    let rows: Vec<Markup> = rows.collect();
    let table = element("table", "", [element("tr", "", head)].into_iter().chain(rows));
    let note = match run.raw_kmeans.is_empty() {
        true => Markup::default(),
        false => {
            element("p", "", [literal("After the slash: k-means on the scaled features, without anything learned.")])
        }
    };
    Markup::join([titled("Agreement with the labels", &intro), element("div", "card scroll", [table, note])])
}

/// A score, followed by that of raw k-means.
fn score(ours: Option<f64>, raw: Option<f64>) -> Markup {
    let Some(ours) = ours else { return element("td", "", [literal("–")]) };
    let better = raw.is_some_and(|raw| ours > raw);
    let value = format!("{ours:.3}");
    let value = match better {
        true => element("b", "good", [text(value)]),
        false => element("b", "", [text(value)]),
    };
    let raw = raw.map_or(Markup::default(), |raw| element("span", "", [text(format!(" / {raw:.3}"))]));
    element("td", "", [value, raw])
}

/// The size of each cluster, and how often each label is in each.
pub fn sizes(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    let (groups, _) = clusters(findings);
    let sizes: Vec<u64> = findings.sizes.values().copied().collect();
    let mut cards = vec![figures.card(bars("sizes", "Rows of each cluster", &groups, &sizes)?, "")];
    let mut intro = "How many rows each cluster has.".to_owned();
    if let Ok(agreement) = &findings.agreement {
        intro = format!("How many rows each cluster has, and how often each {} is among them.", agreement.column);
        cards.push(contingency(findings, figures)?);
    }
    let grid = element("div", "grid", cards);
    Ok(Markup::join([titled("Clusters", &intro), grid, missing(&findings.agreement)]))
}

fn contingency(findings: &Findings, figures: &mut Figures) -> draw::Result<Markup> {
    let Ok(agreement) = &findings.agreement else { return Ok(Markup::default()) };
    let mut totals: std::collections::BTreeMap<&str, u64> = Default::default();
    for (label, count) in agreement.counts.values().flatten() {
        *totals.entry(label).or_default() += count;
    }
    let mut by_size: Vec<(&str, u64)> = totals.iter().map(|(label, count)| (*label, *count)).collect();
    by_size.sort_by_key(|(label, count)| (std::cmp::Reverse(*count), *label));
    let left_out = by_size.len().saturating_sub(MOST_LABELS);
    let mut labels: Vec<&str> = by_size.iter().take(MOST_LABELS).map(|(label, _)| *label).collect();
    labels.sort_unstable();
    let mut rows: Vec<(i32, u64)> = findings.sizes.iter().map(|(cluster, size)| (*cluster, *size)).collect();
    rows.sort_by_key(|(cluster, size)| (std::cmp::Reverse(*size), *cluster));
    let clusters_left_out = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    rows.sort_unstable();
    let count = |cluster: i32, label: &str| {
        agreement.counts.get(&cluster).and_then(|counts| counts.get(label)).copied().unwrap_or(0)
    };
    let mut columns: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let mut counts = Vec::new();
    for &(cluster, _) in &rows {
        let shown: Vec<u64> = labels.iter().map(|label| count(cluster, label)).collect();
        let all: u64 = agreement.counts.get(&cluster).map_or(0, |counts| counts.values().sum());
        let others = all - shown.iter().sum::<u64>();
        counts.extend(shown);
        if left_out > 0 {
            counts.push(others);
        }
    }
    if left_out > 0 {
        columns.push(format!("{left_out} others"));
    }
    let names: Vec<String> = rows.iter().map(|(cluster, _)| cluster.to_string()).collect();
    let title = format!("Clusters against {}", agreement.column);
    let drawn = heat("contingency", &title, Heat { rows: &names, columns: &columns, counts: &counts })?;
    let mut note = "A row is a cluster; a cell is a label's share of it, in per cent.".to_owned();
    if agreement.unlabelled > 0 {
        note += &format!(" {} rows without a label are left out.", thousands(agreement.unlabelled));
    }
    if clusters_left_out > 0 {
        note += &format!(" The {clusters_left_out} smallest clusters are left out.");
    }
    Ok(figures.card(drawn, &note))
}

/// How to ask further.
pub fn footer(findings: &Findings) -> Markup {
    let name = &findings.name;
    let quoted =
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') { name.clone() } else { "t".to_owned() };
    let ask = format!(
        "dacpipe sql --table {quoted}={} -c \"SELECT cluster, rank, feature, difference FROM cluster_profile('{quoted}') WHERE rank <= 3 ORDER BY cluster, rank\"",
        shell(&findings.table)
    );
    let again = format!("dacpipe report {}", shell(&findings.table));
    let version = findings.run.as_ref().map_or(env!("CARGO_PKG_VERSION"), |run| &run.dacpipe).to_owned();
    Markup::join([
        titled("Go on", "The same in SQL, and this report again:"),
        element("pre", "", [element("code", "", [text(ask), literal("\n"), text(again)])]),
        element(
            "footer",
            "",
            [
                text(format!("Labelled by dacpipe {version}, model {}. ", findings.model)),
                literal("Every figure of this page lies beside it as an SVG file."),
            ],
        ),
    ])
}

/// `argument` quoted for a shell.
fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
    match argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}
