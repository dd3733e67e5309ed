//! `dacpipe run --follow` and `dacpipe run --once`.

use std::process::ExitCode;
use std::sync::Arc;

use super::{RunArgs, fails_on};
use crate::cli;
use crate::cli::fail_on::{self, FailOn};
use crate::config::Plan;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::live::{Live, Server};
use crate::pipeline::{Pipeline, StreamOptions, StreamReport};
use crate::secret::redacted;
use crate::terminal::{self, one_line};

/// The exit code of `--once` where nothing was new. Airflow takes it for a task that was skipped.
pub(in crate::cli) const NOTHING_NEW: u8 = 99;

/// Follows the source; prints what was done.
pub(super) async fn run(plan: Plan, args: &RunArgs) -> Result<ExitCode> {
    let control = cli::control(args.quiet);
    let _listener = cli::cancel_on_interrupt(&control);
    let asked = fails_on(&plan, args);
    let ends_on_quarantine = asked.contains(&FailOn::Quarantine);
    // Before anything is read.
    let (live, _server) = match plan.stream.metrics.as_ref().filter(|_| args.follow) {
        Some(address) => {
            let live = Arc::new(Live::new(&plan.name, &redacted(&plan.sink.path), plan.stream.wait()));
            let server = Server::begin(address, Arc::clone(&live)).await?;
            let message = format!("http://{0}/metrics and http://{0}/health", server.address());
            control.emit(Event::Note { message });
            (Some(live), Some(server))
        }
        None => (None, None),
    };
    let options = StreamOptions { once: args.once, ends_on_quarantine, live, control };
    let report = Pipeline::new(plan)?.follow(&options).await?;
    let said = match args.json {
        true => {
            if !args.quiet {
                terminal::tell(&summary(&report));
            }
            let json = serde_json::to_string_pretty(&report);
            terminal::say_json(&json.map_err(|e| Error::internal("the report of a stream as JSON").with_source(e))?)
        }
        false => terminal::say(&summary(&report)),
    };
    match report.table_version.filter(|_| !report.is_empty()) {
        Some(version) => cli::after_commit(said, &report.table, version)?,
        None => said?,
    }
    if let Some(code) = fail_on::code(&asked, &report.drift, report.quarantined_rows) {
        return Ok(code);
    }
    let nothing = args.once && report.is_empty();
    Ok(if nothing { NOTHING_NEW.into() } else { ExitCode::SUCCESS })
}

fn summary(report: &StreamReport) -> String {
    let StreamReport { name, rows, commits, sequence, seconds, .. } = report;
    let mut lines = Vec::new();
    if report.is_empty() {
        lines.push(format!("{name}: nothing new ({seconds:.2} s)"));
    } else {
        let several = if *commits == 1 { "commit" } else { "commits" };
        lines.push(format!("{name}: {rows} rows labelled in {commits} {several} ({seconds:.2} s)"));
    }
    if let Some(samples) = &report.samples {
        lines.push(format!("  samples   {samples}"));
    }
    if report.skipped_rows > 0 {
        lines.push(format!(
            "  skipped   {} rows that this model has labelled in the table already",
            report.skipped_rows
        ));
    }
    if report.quarantined_rows > 0 {
        lines.push(format!("  set aside {} rows; SELECT * FROM {name}_quarantine lists them", report.quarantined_rows));
    }
    if !report.is_empty() && !report.cluster_sizes.is_empty() {
        let sizes: Vec<String> = report.cluster_sizes.iter().map(|(id, rows)| format!("{id}: {rows}")).collect();
        lines.push(format!("  clusters  {}", sizes.join(", ")));
    }
    if let Some(drift) = &report.drift {
        lines.push(format!("  drift     {}", one_line(&drift.to_string())));
    }
    if report.retrained > 0 {
        lines.push(format!("  retrained {} times, since rows had drifted", report.retrained));
    }
    if report.revived_clusters > 0 {
        let n = report.revived_clusters;
        lines.push(format!("  revived   {n} clusters without rows began anew, with ids of their own"));
    }
    let learned = if report.learned { ", learned just now" } else { "" };
    lines.push(format!("  model     {}{learned}", report.model));
    if let Some(version) = report.table_version {
        lines.push(format!("  table     {} (version {version})", report.table));
    }
    let open = match report.open_recordings {
        0 => String::new(),
        n => format!(", {n} recordings may go on"),
    };
    lines.push(format!("  stream    commit {sequence}, {} files read{open}", report.files));
    lines.join("\n")
}
