//! The end of a run, and what a resumed run does if the one before it died between its commit and its end.

use super::RunOptions;
use super::state::{RunState, state_dir};
use crate::config::Plan;
use crate::error::Result;
use crate::report::RunReport;
use crate::store::Location;
use crate::table::Log;

/// The report of the interrupted run in the plan's table, if that run had committed already: then all that is left is to
/// end it. Running it again would append its rows a second time.
pub(super) async fn committed(plan: &Plan, options: &RunOptions) -> Result<Option<RunReport>> {
    if !options.resume {
        return Ok(None);
    }
    let sink = Location::parse(&plan.sink.path)?;
    let state = RunState::at(&state_dir(&sink, &plan.name));
    let Some(mut report) = state.report()? else { return Ok(None) };
    if report.pipeline != plan.fingerprint {
        return Ok(None);
    }
    let Some(version) = Log::new(sink.clone()).version_by(&report.run).await? else { return Ok(None) };
    report.table_version = version;
    finish(&sink, &state, &report).await?;
    Ok(Some(report))
}

/// Writes `run.json` and forgets the state: the run is over.
pub(super) async fn finish(sink: &Location, state: &RunState, report: &RunReport) -> Result<()> {
    let about = || format!("version {} of {sink} is committed", report.table_version);
    sink.put("run.json", report.to_json()?.into()).await.map_err(|e| e.while_doing(about()))?;
    state.clear()
}
