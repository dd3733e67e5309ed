//! The end of a run, and the start of a resumed one, which may find an interrupted run, one that died between its
//! commit and its end, a complete one, or none.

use std::path::Path;

use super::state::{RunState, state_dir};
use super::{Pipeline, RunOptions};
use crate::config::Plan;
use crate::error::{Error, Result};
use crate::event::{Control, Event};
use crate::report::RunReport;
use crate::store::Location;
use crate::table::Log;

/// The file beside the table with the report of its last run.
const RUN: &str = "run.json";

/// The identity of a run's state: its `pipeline` and the digest of its `data`.
pub(super) fn identity(pipeline: &Pipeline, data: &str) -> String {
    let stages: Vec<&str> = pipeline.stages().collect();
    format!("{} {} {data}", pipeline.plan.fingerprint, stages.join("-"))
}

/// Whether a run that was asked to resume has an interrupted one to go on with. If not, an event says so.
///
/// # Errors
/// Kind `Config` if the interrupted run was one of another pipeline. This is known before any data is read.
pub(super) fn goes_on(pipeline: &Pipeline, options: &RunOptions) -> Result<bool> {
    if !options.resume {
        return Ok(false);
    }
    let dir = state_dir(&Location::parse(&pipeline.plan.sink.path)?, &pipeline.plan.name);
    if RunState::is_left(&dir) {
        RunState::at(&dir).check_begins(&identity(pipeline, ""))?;
        return Ok(true);
    }
    let message = format!("--resume: no interrupted run in {}, so one is started", dir.display());
    options.control.emit(Event::Note { message });
    Ok(false)
}

/// Opens the state in `dir`. If this run `goes_on`, it is the state of an interrupted run over the same data, whose
/// digest is `data`, and an event says so.
///
/// # Errors
/// As of [`RunState::open`].
pub(super) fn open_state(
    dir: &Path,
    pipeline: &Pipeline,
    data: &str,
    goes_on: bool,
    control: &Control,
) -> Result<RunState> {
    let state = RunState::open(dir, &identity(pipeline, data), goes_on)?;
    if goes_on {
        control.emit(Event::Note { message: format!("--resume: goes on with the run in {}", dir.display()) });
    }
    Ok(state)
}

/// The report of a run that is already in the table, so that a resumed run need not repeat it. If it died after its
/// commit, its end is completed now; running it again would append its rows a second time.
pub(super) async fn committed(plan: &Plan, options: &RunOptions) -> Result<Option<RunReport>> {
    if !options.resume {
        return Ok(None);
    }
    let sink = Location::parse(&plan.sink.path)?;
    let dir = state_dir(&sink, &plan.name);
    let state = RunState::at(&dir);
    let left = RunState::is_left(&dir);
    let report = match left {
        true => state.report()?,
        false => complete(&sink).await,
    };
    let Some(mut report) = report.filter(|report| report.pipeline == plan.fingerprint) else { return Ok(None) };
    let Some(version) = Log::new(sink.clone()).version_by(&report.run).await? else { return Ok(None) };
    report.table_version = version;
    if left {
        finish(&sink, &state, &report).await?;
    }
    let message = format!(
        "--resume: nothing is left to do: the run {} of this pipeline is complete, in version {version} of {sink}; without \
         --resume it is run again",
        report.run
    );
    options.control.emit(Event::Note { message });
    Ok(Some(report))
}

/// The report of the table's last run, if it can be read.
async fn complete(sink: &Location) -> Option<RunReport> {
    let bytes = sink.get(RUN).await.unwrap_or_default();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Refuses to overwrite a file that is not dacpipe's and has the name of the run's report.
///
/// # Errors
/// Kind `Config` then.
pub(super) async fn check_report_place(sink: &Location) -> Result<()> {
    let refuse = |what: &str| {
        Err(Error::config(format!(
            "{} {what}, and is left as it is; move it away, as a run writes its report there",
            sink.show(RUN)
        )))
    };
    if let Some(path) = sink.local_path().map(|root| root.join(RUN)) {
        match path.symlink_metadata() {
            // Nothing is there, or nothing can be there, which the writer will report.
            Err(_) => return Ok(()),
            Ok(there) if !there.is_file() => return refuse("is a link, or no file"),
            Ok(_) => {}
        }
    }
    let Some(bytes) = sink.get(RUN).await? else { return Ok(()) };
    let ours = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|json| json.get("dacpipe").is_some());
    match ours || bytes.is_empty() {
        true => Ok(()),
        false => refuse("is not by dacpipe"),
    }
}

/// Writes `run.json` and removes the state: the run is complete.
pub(super) async fn finish(sink: &Location, state: &RunState, report: &RunReport) -> Result<()> {
    let about = || format!("version {} of {sink} is committed", report.table_version);
    sink.put(RUN, report.to_json()?.into()).await.map_err(|e| e.while_doing(about()))?;
    state.clear()
}
