//! What a run writes beside the clusters: the columns that are kept, the model, the commit's note of the source, the
//! rows that were set aside, and the report.

use std::time::Instant;

use arrow::record_batch::RecordBatch;

use super::clock::Clock;
use super::execution::Execution;
use super::learn::Learned;
use super::tally::Tally;
use super::written::{Choice, Written};
use crate::config::{Plan, SinkSpec};
use crate::error::{Error, Kind, Result};
use crate::event::{Control, Event};
use crate::model::{Manifest, Model, ModelInput};
use crate::report::{self, RunReport};
use crate::secret::redacted;
use crate::source::{BadRows, Source, SourceSpec};
use crate::stage::FEATURES;
use crate::store::Location;
use crate::table::{QUARANTINE, SourceInfo, set_aside};

/// The most files that the report lists.
const MOST_NAMED: usize = 100;

impl Execution<'_> {
    /// The columns of the source that are written beside the clusters, in order.
    pub fn kept(&self) -> Vec<String> {
        kept(&self.pipeline.plan, &self.source)
    }

    /// What else the sink asks for.
    pub fn choice(&self) -> Choice {
        choice(&self.pipeline.plan)
    }

    /// The model of the fitted stages.
    pub fn model(&self, learned: &Learned) -> Result<Model> {
        let plan = &self.pipeline.plan;
        let json = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|e| Error::internal("cannot write the pipeline into the model").with_source(e))
        };
        let figures = learned.reports.iter().map(|r| (r.stage.clone(), r.figures.clone().into())).collect();
        let manifest = Manifest {
            name: plan.name.clone(),
            input: ModelInput {
                column: FEATURES.into(),
                dim: self.source.dim,
                names: self.source.feature_names.clone(),
                source: as_learned_from(json(serde_json::to_value(&plan.source))?, &self.source),
                window: json(serde_json::to_value(plan.window))?,
                features: json(serde_json::to_value(&plan.features))?,
            },
            seed: plan.seed,
            labels_used: self.learned_label().map(String::from),
            figures,
        };
        Model::new(manifest, learned.transforms.clone())
    }

    /// The report of the run before the commit.
    pub fn report(&self, learned: Learned, model: &Model, model_path: &Location, tally: &Tally) -> RunReport {
        let plan = &self.pipeline.plan;
        let vectors = Written::by(model, self.choice(), self.kept()).report();
        let (scores, raw_kmeans) = tally.scores();
        RunReport {
            dacpipe: env!("CARGO_PKG_VERSION").into(),
            name: plan.name.clone(),
            run: self.run_id.clone(),
            pipeline: plan.fingerprint.clone(),
            seed: plan.seed,
            started_at: humantime::format_rfc3339_seconds(self.clock.started_at).to_string(),
            seconds: self.clock.began.elapsed().as_secs_f64(),
            source: self.source.description.clone(),
            simulated: is_simulated(&plan.source),
            fit_rows: learned.rows,
            labelled_rows: tally.rows(),
            quarantined_rows: self.bad.count(),
            samples: self.source.samples(),
            left_alone: self.source.left_alone().into_iter().take(MOST_NAMED).collect(),
            left_out: Some(self.source.left_out.clone()).filter(|left_out| !left_out.is_empty()),
            notes: Vec::new(),
            skipped_rows: 0,
            replaced_rows: 0,
            threads: self.device.pool().threads(),
            memory_limit: plan.memory_limit,
            spilled_rows: learned.spilled_rows,
            stages: learned.reports,
            cluster_ids: tally.ids().to_vec(),
            cluster_sizes: tally.sizes().to_vec(),
            vectors,
            label_column: self.source.label.clone(),
            labels_used: model.manifest().labels_used.is_some(),
            scores,
            raw_kmeans,
            model: model.hash().as_str().into(),
            model_path: model_path.to_string(),
            table: self.sink.to_string(),
            table_version: 0,
            report: plan.report.then(|| report::page_of(&self.sink)),
        }
    }
}

/// True if a file in the directory of recordings says that they were simulated.
fn is_simulated(source: &SourceSpec) -> bool {
    let SourceSpec::Hapt(spec) = source else { return false };
    let place = Location::parse(&spec.path).ok();
    place.and_then(|place| place.local_path().map(|path| path.join("SIMULATED").exists())).unwrap_or(false)
}

/// The commit's note of the source.
pub(super) fn source_info(source: &Source, path: &str, tally: &Tally) -> SourceInfo {
    SourceInfo {
        path: redacted(path).into_owned(),
        description: source.description.clone(),
        rows: tally.rows(),
        offsets: serde_json::json!({ "rows": tally.rows() }),
    }
}

/// A note on partition columns in which rows that were committed have empty text; `None` if there are no such rows.
pub(super) fn empty_text(found: &[(String, u64)]) -> Option<String> {
    let each: Vec<String> = found.iter().map(|(column, rows)| format!("{column:?} ({rows} rows)")).collect();
    (!each.is_empty()).then(|| {
        format!(
            "the table is partitioned by columns with empty text, which other readers of Delta tables take for null: {}",
            each.join(", ")
        )
    })
}

/// A source's spec without its path, since the same rows from another place make the same model, and with the sampling
/// rate that was found, since the model does not fit recordings of another rate.
fn as_learned_from(mut spec: serde_json::Value, source: &Source) -> serde_json::Value {
    if let Some(path) = spec.get_mut("path") {
        *path = "".into();
    }
    if let (Some(rate @ serde_json::Value::Null), Some(found)) = (spec.get_mut("rate_hz"), source.rate_hz()) {
        *rate = found.into();
    }
    spec
}

/// The columns of the source that are written beside the clusters, in order.
pub(super) fn kept(plan: &Plan, source: &Source) -> Vec<String> {
    let mut kept = plan.sink.keys.clone();
    for column in [&plan.split.column, &source.label].into_iter().flatten().chain(&source.carried) {
        if !kept.contains(column) {
            kept.push(column.clone());
        }
    }
    kept
}

/// What else the sink asks for.
pub(super) fn choice(plan: &Plan) -> Choice {
    let SinkSpec { vectors, embedding, reconstruction_error, .. } = plan.sink;
    Choice { vectors, embedding, reconstruction_error }
}

/// The rows that were set aside, for the commit; `None` if there are none.
pub(super) fn quarantine(bad: &BadRows) -> Result<Option<RecordBatch>> {
    if bad.is_empty() { Ok(None) } else { bad.to_batch().map(Some) }
}

/// The error `e` of a run that commits nothing. The rows that it had set aside still go to the quarantine, beside where the
/// table would be, and the error names it.
pub(super) async fn with_quarantine(e: Error, sink: &str, run_id: &str, bad: &BadRows) -> Error {
    if e.kind() != Kind::Input || bad.is_empty() {
        return e;
    }
    let written = async {
        let sink = Location::parse(sink)?;
        set_aside(&sink, &bad.to_batch()?, run_id, Clock::start()?.labelled_at).await?;
        Ok::<_, Error>(sink.show(QUARANTINE))
    };
    let rows = match bad.count() {
        1 => "the row that was set aside is".to_string(),
        n => format!("the {n} rows that were set aside are"),
    };
    match written.await {
        Ok(table) => Error::input(format!("{e}; {rows} listed in the table {table}")),
        Err(other) => Error::input(format!("{e}; {rows} not listed: {other}")),
    }
}

/// Writes the page of a run's report beside its table.
pub(super) async fn draw_report(plan: &Plan, control: &Control) -> Result<()> {
    let began = Instant::now();
    let table = Location::parse(&plan.sink.path)?;
    let to = table.join(report::write::DIRECTORY)?;
    let written = report::write(&table, None, &to).await.map_err(|e| {
        e.while_doing(format!(
            "the rows are committed to {table}, but their report is not written (dacpipe report {table})"
        ))
    })?;
    let summary = format!("{} and {} figures", written.page, written.figures);
    control.emit(Event::Finished { stage: "report".into(), seconds: began.elapsed().as_secs_f64(), summary });
    Ok(())
}
