//! The summary at the end of a run.

use std::fmt::Write;

use crate::metrics::ALL;

use super::run::{FellTogether, Follows, MATCHED, RunReport, Scores};
use crate::column::listed;
use crate::source::LeftOut;
use crate::terminal::one_line;

/// The missing values that became means, by feature.
fn missing(report: &RunReport) -> Option<String> {
    let stage = report.stages.iter().find(|stage| stage.stage == "impute")?;
    let counts = stage.figures.get("missing")?.as_object()?;
    let mut counts: Vec<(&String, u64)> = counts.iter().filter_map(|(name, n)| Some((name, n.as_u64()?))).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    match all {
        0 => Some("no values of the rows that were learned from".into()),
        _ => Some(format!(
            "{all} values of the rows that were learned from became the mean of their feature: {}",
            listed(each.iter().map(String::as_str))
        )),
    }
}

/// The summary of a run: rows, clusters and vectors, as far as there are any, agreement with labels beside raw k-means,
/// seconds per stage, and a command to try next.
pub fn summary(report: &RunReport) -> String {
    let mut out = String::new();
    let kind = if report.simulated { " (SIMULATED recordings, not real ones)" } else { "" };
    let _ = writeln!(out, "{}: {}{kind}", report.name, report.source);
    let done = if report.cluster_sizes.is_empty() { "written" } else { "labelled" };
    let learned = if report.fit_rows > 0 { format!("{} learned from, ", report.fit_rows) } else { String::new() };
    let _ = writeln!(out, "  rows      {learned}{} {done}", report.labelled_rows);
    if report.quarantined_rows > 0 {
        let _ =
            writeln!(out, "            {} set aside, see table {}_quarantine", report.quarantined_rows, report.name);
    }
    if report.skipped_rows > 0 {
        let _ = writeln!(
            out,
            "            {} skipped: the table has rows with their keys by this model already",
            report.skipped_rows
        );
    }
    if report.replaced_rows > 0 {
        let _ = writeln!(out, "            {} of the table replaced: these have their keys", report.replaced_rows);
    }
    if report.spilled_rows > 0 {
        let _ = writeln!(out, "            {} spilled to disk to stay within the memory limit", report.spilled_rows);
    }
    if let Some(samples) = report.samples.as_ref().filter(|samples| samples.in_windows < samples.read) {
        let _ = writeln!(out, "  samples   {samples}");
    }
    if let Some(said) = missing(report) {
        let _ = writeln!(out, "  missing   {}", one_line(&said));
    }
    if !report.left_alone.is_empty() {
        let files = listed(report.left_alone.iter().map(String::as_str));
        let _ = writeln!(out, "  not read  the data after the compressed part of {}", one_line(&files));
    }
    for note in report.left_out.iter().map(LeftOut::to_string).chain(report.notes.iter().cloned()) {
        let _ = writeln!(out, "  note      {}", one_line(&note));
    }
    let fallen: Vec<String> = report.fell_together().iter().map(FellTogether::describe).collect();
    if !fallen.is_empty() {
        let fallen = listed(fallen.iter().map(String::as_str));
        let _ = writeln!(out, "  features  not all told apart in single precision: {fallen}");
    }
    if !report.cluster_sizes.is_empty() {
        let sizes: Vec<String> = report.cluster_sizes.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "  clusters  {} of sizes {}", sizes.len(), sizes.join(" "));
        if report.cluster_ids.iter().zip(0..).any(|(id, index)| *id != index) {
            let ids: Vec<String> = report.cluster_ids.iter().map(i32::to_string).collect();
            let _ = writeln!(out, "            with the ids {}", ids.join(" "));
        }
        if let Some(matched) = report.stages.iter().find(|stage| stage.stage == MATCHED) {
            let _ = writeln!(out, "  ids       {}", one_line(&matched.summary));
        }
    }
    if let Some(vectors) = &report.vectors {
        let _ = writeln!(out, "  vectors   {}", vectors.describe());
    }
    if let Some(Follows { layout, rows, error, trustworthiness }) = report.follows() {
        let _ = writeln!(
            out,
            "  layout    trustworthiness {layout:.4}; of {rows} rows held out {trustworthiness:.4}, their coordinates off by {error:.4}"
        );
    }
    scores(&mut out, report);
    let _ = write!(out, "  seconds   {:.2}:", report.seconds);
    for stage in &report.stages {
        let _ = write!(out, " {} {:.2}", stage.stage, stage.seconds);
    }
    let _ = writeln!(
        out,
        "\n  model     {}\n  table     {} (version {})",
        report.model_path, report.table, report.table_version
    );
    if let Some(page) = &report.report {
        let _ = writeln!(out, "  report    {page}");
    }
    let _ = write!(out, "\nTry next:\n  {}", next(report));
    out
}

/// An SQL query for the reader to paste.
fn next(report: &RunReport) -> String {
    let name = &report.name;
    if report.cluster_sizes.is_empty() {
        let column = report.vectors.as_ref().and_then(|vectors| match &vectors.column {
            Some(list) => Some(format!("{list}[1]")),
            None => vectors.names.first().map(|first| quoted(first)),
        });
        let mean = column.map(|column| format!(", avg({column}) AS mean_of_first")).unwrap_or_default();
        let query = match report.label_column.as_deref().map(quoted) {
            Some(label) => format!("SELECT {label}, count(*) AS n{mean} FROM {name} GROUP BY {label} ORDER BY n DESC"),
            None => format!("SELECT count(*) AS n{mean} FROM {name}"),
        };
        return command(name, &report.table, &query);
    }
    let columns = match &report.label_column {
        // Quoted, since it may have capitals or be a keyword.
        Some(label) => format!("{}, cluster", quoted(label)),
        None => "cluster".to_string(),
    };
    let query = format!("SELECT {columns}, count(*) AS n FROM {name} GROUP BY {columns} ORDER BY n DESC LIMIT 20");
    command(name, &report.table, &query)
}

/// The query as a command for a shell.
fn command(name: &str, table: &str, query: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let plain = table.chars().all(|c| c.is_alphanumeric() || "/._-:=+@,%".contains(c));
    let table = if plain { table.to_owned() } else { quoted(table) };
    format!("dacpipe sql --table {name}={table} -c {}", quoted(query))
}

/// A name quoted for SQL, whatever characters it contains.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| format!("{value:.4}"))
}

fn scores(out: &mut String, report: &RunReport) {
    let (Some(label), false) = (&report.label_column, report.cluster_sizes.is_empty()) else {
        return;
    };
    let used = if report.labels_used {
        "labels of the fit split weighted the loss"
    } else {
        "labels took no part in learning"
    };
    let _ = writeln!(out, "  against {} ({used}):", one_line(label));
    let _ = writeln!(
        out,
        "    {:<10} {:>8}  {:>6} {:>6} {:>6}   raw k-means {:>6} {:>6} {:>6}",
        "part", "rows", "ARI", "NMI", "ACC", "ARI", "NMI", "ACC"
    );
    for (name, Scores { rows, ari, nmi, acc }) in &report.scores {
        let part = one_line(name);
        let _ = write!(out, "    {part:<10} {rows:>8}  {ari:>6.4} {nmi:>6.4} {:>6}", figure(*acc));
        let _ = match report.raw_kmeans.get(name) {
            Some(raw) => writeln!(out, "               {:>6.4} {:>6.4} {:>6}", raw.ari, raw.nmi, figure(raw.acc)),
            None => writeln!(out),
        };
    }
    let compared = report.scores.get(ALL).map_or(0, |all| all.rows);
    if let Some(unlabelled @ 1..) = report.labelled_rows.checked_sub(compared) {
        let _ = writeln!(out, "    {unlabelled} rows without a label are left out of the figures");
    }
}
