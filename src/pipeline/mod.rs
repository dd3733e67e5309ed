//! The driver: from a checked plan to a labelled table.
//!
//! ```text
//! source ──first pass──► replay cache ──► scale ─► feature_weights ─► autoencoder ─► kmeans      (learn)
//! source ──────────────► the fitted stages, one operator ─────────► data files ─► one commit    (label)
//! ```
//!
//! The source is read twice: once for the rows to learn from, kept in the replay cache, and once, after everything is
//! fitted, for the rows to label. Nothing is in the table before the commit at the very end; a run that fails or is
//! killed leaves it as it was, and `resume` goes on from the last epoch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, cast, ident, lit};

mod collect;
mod label_pass;
mod learn;
mod relabel;
mod resume;
mod state;
mod tally;

pub use relabel::{InputKind, Relabel, RelabelReport};

use crate::column;
use crate::config::{Plan, StageSpec};
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::event::Control;
use crate::kernel::Rows;
use crate::kmeans::{self, KMeansSpec};
use crate::label::{KMeansStage, Label, label_fields};
use crate::model::{Manifest, Model, ModelInput, Restore};
use crate::replay::RowStoreBuilder;
use crate::report::{RunReport, StageReport};
use crate::scale::ScaleStage;
use crate::source::{self, BadRows, Source, SourceOptions, SourceSpec};
use crate::stage::{EMBEDDING, FEATURES, Fit, LABEL_COLUMNS};
use crate::store::Location;
use crate::table::{CommitInfo, Committed, Labels, SourceInfo, TableWriter, WriteOptions};
use crate::train::Autoencoder;
use crate::weights::{FeatureWeightsStage, WeightLabels};
use collect::{Collected, collect};
use label_pass::{LabelPass, RAW_CLUSTER, RawKMeans};
use learn::{Learn, Learned};
use state::RunState;
use tally::{Columns, Tally};

/// Bytes of features in one batch of the scans: batches in flight stay small whatever the width of a row.
const BATCH_BYTES: usize = 2 << 20;

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Go on with an interrupted run of the same pipeline over the same data.
    pub resume: bool,
    /// Where events go and where interrupts come from.
    pub control: Control,
}

/// A checked pipeline, ready to run.
#[derive(Debug)]
pub struct Pipeline {
    plan: Plan,
    stages: Vec<Arc<dyn Fit>>,
    extra: Vec<(&'static str, Restore)>,
}

impl Pipeline {
    /// The pipeline of a plan.
    ///
    /// # Errors
    /// Kind `Config` if the device that the plan asks for is not there.
    pub fn new(plan: Plan) -> Result<Self> {
        plan.device.check()?;
        let mut vectors = FEATURES;
        let mut stages: Vec<Arc<dyn Fit>> = Vec::new();
        for spec in &plan.stages {
            stages.push(match spec {
                StageSpec::Scale(spec) => Arc::new(ScaleStage::new(*spec)),
                StageSpec::FeatureWeights(spec) => Arc::new(FeatureWeightsStage::new(spec.clone())),
                StageSpec::Autoencoder(spec) => {
                    vectors = EMBEDDING;
                    Arc::new(Autoencoder { spec: spec.clone() })
                }
                StageSpec::KMeans(spec) => Arc::new(KMeansStage::new(spec.clone(), vectors)),
            });
        }
        Ok(Self { plan, stages, extra: Vec::new() })
    }

    /// Puts a stage of your own before the stage number `index`. Its fitted form is saved under `kind` and rebuilt by
    /// `restore`.
    ///
    /// # Panics
    /// If there are fewer stages than `index`.
    pub fn insert_stage(&mut self, index: usize, stage: Arc<dyn Fit>, kind: &'static str, restore: Restore) {
        self.stages.insert(index, stage);
        self.extra.push((kind, restore));
    }

    /// The names of the stages that learn, in order.
    pub fn stages(&self) -> impl Iterator<Item = &'static str> {
        self.stages.iter().map(|s| s.kind())
    }

    /// Reads, learns, labels and commits.
    ///
    /// # Errors
    /// As documented for [`Kind`](crate::Kind). Whatever fails, the table is as it was before, or has all of this run.
    pub async fn run(&self, options: &RunOptions) -> Result<RunReport> {
        let clock = Clock::start()?;
        if let Some(report) = resume::committed(&self.plan, options).await? {
            return Ok(report);
        }
        let run = Execution::open(self, options, &clock).await?;
        run.check_output()?;
        run.check_parts().await?;
        let learned = run.learn().await?;
        let model = run.model(&learned)?;
        run.label(learned, model).await
    }
}

/// When a run began.
struct Clock {
    began: Instant,
    started_at: SystemTime,
    /// The time that labels carry: `SOURCE_DATE_EPOCH` if set, for files that are the same byte for byte.
    labelled_at: SystemTime,
}

impl Clock {
    fn start() -> Result<Self> {
        let started_at = SystemTime::now();
        let labelled_at = match std::env::var("SOURCE_DATE_EPOCH") {
            Err(_) => started_at,
            Ok(text) => {
                let seconds = text.parse().ok().map(std::time::Duration::from_secs);
                seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds)).ok_or_else(|| {
                    Error::config(format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970-01-01 UTC"))
                })?
            }
        };
        Ok(Self { began: Instant::now(), started_at, labelled_at })
    }
}

/// One execution: everything that is open while a pipeline runs.
struct Execution<'a> {
    pipeline: &'a Pipeline,
    options: &'a RunOptions,
    clock: &'a Clock,
    run_id: String,
    device: Arc<dyn Device>,
    source: Source,
    bad: Arc<BadRows>,
    ctx: SessionContext,
    sink: Location,
    writer: TableWriter,
    state_dir: PathBuf,
}

impl<'a> Execution<'a> {
    /// Opens the source and then the table, so that a source that is not there leaves no trace of a table. The table's
    /// lock is taken before anything is learned: two runs into one table do not train for an hour to find out.
    async fn open(pipeline: &'a Pipeline, options: &'a RunOptions, clock: &'a Clock) -> Result<Self> {
        let plan = &pipeline.plan;
        let device = plan.device.open(device::threads(plan.threads)?)?;
        let sink = Location::parse(&plan.sink.path)?;
        let state_dir = state_dir(&sink, &plan.name);
        if options.resume {
            RunState::check_resumable(&state_dir)?;
        }
        let bad = Arc::new(BadRows::new());
        let source_options = SourceOptions {
            window: plan.window,
            features: plan.features.clone(),
            on_bad_row: plan.on_bad_row,
            threads: device.pool().threads(),
        };
        let source = source::open(&plan.source, &source_options, Arc::clone(&bad)).await?;
        let run_id = run_id(clock.started_at, &plan.fingerprint);
        let write = WriteOptions::new(plan.sink.mode, &run_id).partition_by(&plan.sink.partition_by);
        let writer = TableWriter::begin(&sink, write).await?;
        let ctx = session(plan.memory_limit, source.dim)?;
        Ok(Self { pipeline, options, clock, run_id, device, source, bad, ctx, sink, writer, state_dir })
    }

    /// The columns of the source that are written beside the labels, in order.
    fn kept(&self) -> Vec<String> {
        let plan = &self.pipeline.plan;
        let mut kept = plan.sink.keys.clone();
        for column in [&plan.split.column, &self.source.label].into_iter().flatten() {
            if !kept.contains(column) {
                kept.push(column.clone());
            }
        }
        kept
    }

    /// That what this run will write fits the table, found out before anything is learned.
    fn check_output(&self) -> Result<()> {
        let plan = &self.pipeline.plan;
        let there = self.source.provider.schema();
        let mut fields = Vec::new();
        for name in self.kept() {
            fields.push(there.field_with_name(&name).map_err(|_| column::missing(&there, &name))?.clone());
        }
        fields.extend(label_fields());
        if plan.sink.embedding {
            let width = plan.stages.iter().find_map(|stage| match stage {
                StageSpec::Autoencoder(spec) => spec.encoder.last().copied(),
                _ => None,
            });
            fields.push(column::vector_field(EMBEDDING, width.unwrap_or(self.source.dim)));
        }
        self.writer.check(&Schema::new(fields)).map(|_| ())
    }

    /// That there are rows to label, found out before anything is learned. Reads the split column alone, and that only
    /// up to the first such row.
    async fn check_parts(&self) -> Result<()> {
        let split = &self.pipeline.plan.split;
        let Some((column, part)) = split.part(&split.label)? else { return Ok(()) };
        if split.fit == split.label {
            return Ok(());
        }
        let rows = select(&self.ctx, &self.source, &[column], Some((column, part)))?.limit(0, Some(1))?;
        match rows.collect().await?.iter().map(|batch| batch.num_rows()).sum::<usize>() {
            0 => Err(self.no_rows("split.label", "label", Some(part)).await),
            _ => Ok(()),
        }
    }

    /// The label column that a stage learns from.
    fn learned_label(&self) -> Option<&str> {
        self.pipeline.plan.stages.iter().find_map(|stage| match stage {
            StageSpec::FeatureWeights(spec) => match &spec.labels {
                WeightLabels::Column(name) => Some(name.as_str()),
                WeightLabels::Pseudo { .. } | WeightLabels::Uniform => None,
            },
            _ => None,
        })
    }

    /// The first pass, and then every stage in turn.
    async fn learn(&self) -> Result<Learned> {
        let plan = &self.pipeline.plan;
        let began = Instant::now();
        let label = self.learned_label();
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(label).collect();
        let rows = select(&self.ctx, &self.source, &columns, plan.split.part(&plan.split.fit)?)?;
        let memory = &self.ctx.runtime_env().memory_pool;
        let builder = RowStoreBuilder::new("replay cache", self.source.dim, memory);
        let collected = collect(rows.execute_stream().await?, builder, label, &self.options.control).await?;
        if collected.rows.is_empty() {
            return Err(self.no_rows("split.fit", "learn from", plan.split.fit.as_deref()).await);
        }
        for stage in &plan.stages {
            if let StageSpec::KMeans(spec) = stage {
                kmeans::check_rows(spec.k, collected.rows.len()).map_err(|e| e.while_doing("stage kmeans"))?;
            }
        }
        let summary = format!("{} rows of {} values", collected.rows.len(), collected.rows.dim());
        let source = StageReport::new("source", began, summary);
        let mut learned = self.learn_from(collected).await?;
        learned.reports.insert(0, source);
        Ok(learned)
    }

    /// Fits the stages on a thread of their own, so that no worker of the I/O runtime computes.
    async fn learn_from(&self, collected: Collected) -> Result<Learned> {
        let plan = &self.pipeline.plan;
        let stages: Vec<&str> = self.pipeline.stages().collect();
        let identity = format!("{} {} {}", plan.fingerprint, stages.join("-"), collected.digest);
        let state = RunState::open(&self.state_dir, &identity, self.options.resume)?;
        let learn = Learn {
            stages: self.pipeline.stages.clone(),
            seed: plan.seed(),
            device: Arc::clone(&self.device),
            embeddings: Arc::new(GreedyMemoryPool::new(plan.memory_limit as usize / 8)),
            control: self.options.control.clone(),
            state,
            extra: self.pipeline.extra.clone(),
            baseline: self.baseline(),
        };
        SpawnedTask::spawn_blocking(move || learn.run(collected))
            .await
            .map_err(|e| Error::internal("the learning thread panicked").with_source(e))?
    }

    /// The specification of raw k-means, where there is an embedding to compare it with and labels to compare by.
    fn baseline(&self) -> Option<KMeansSpec> {
        self.source.label.as_ref()?;
        self.pipeline.plan.stages.iter().find_map(|stage| match stage {
            StageSpec::KMeans(spec) => Some(spec.clone()),
            _ => None,
        })
    }

    /// The error for a part of the split (the key `key` of the file) without rows to `learn from` or to `label`, naming
    /// the parts that there are.
    async fn no_rows(&self, key: &str, purpose: &str, part: Option<&str>) -> Error {
        let (Some(part), Some(split)) = (part, &self.pipeline.plan.split.column) else {
            return no_rows(&self.source, purpose);
        };
        let parts = match distinct(&self.ctx, &self.source, split).await {
            Ok(parts) => parts.join(", "),
            Err(e) => return e,
        };
        Error::input(format!("no rows with {split} = {part:?} to {purpose} ({key}); there are: {parts}"))
    }

    /// The model of the fitted stages.
    fn model(&self, learned: &Learned) -> Result<Model> {
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
}

impl Execution<'_> {
    /// The label pass, the commit, and the report.
    async fn label(self, learned: Learned, model: Model) -> Result<RunReport> {
        let plan = &self.pipeline.plan;
        let began = Instant::now();
        let label = self.label_stage(&learned)?;
        let mut keep = self.kept();
        let Self { options, clock, run_id, device, source, bad, ctx, sink, mut writer, state_dir, .. } = self;
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(keep.iter().map(String::as_str)).collect();
        let rows = select(&ctx, &source, &columns, plan.split.part(&plan.split.label)?)?;
        keep.extend(LABEL_COLUMNS.map(String::from));
        if plan.sink.embedding {
            keep.push(EMBEDDING.into());
        }
        let mut transforms = learned.transforms;
        if let Some((at, raw)) = &learned.baseline {
            transforms.insert(*at, Arc::new(RawKMeans(Arc::clone(raw))));
        }
        let raw = learned.baseline.is_some().then(|| RAW_CLUSTER.to_string());
        let columns = Columns { label: source.label.clone(), split: plan.split.column.clone(), raw };
        let labels = Labels { model: model.hash().as_str().into(), labelled_at: clock.labelled_at };
        let pass = LabelPass {
            rows,
            transforms,
            keep,
            columns,
            k: label.k(),
            threads: device.pool().threads(),
            control: options.control.clone(),
        };
        let tally = pass.run(&ctx, &mut writer, labels).await?;

        let model_path = model.save(&sink.join("models")?).await?;
        quarantine(&sink, &run_id, &bad).await?;
        let source_info = source_info(&source, &tally);
        let clusters = Some(tally.clusters(label.centroids())?);
        let mut stages = learned.reports;
        stages.push(StageReport::new("label", began, format!("{} rows", tally.rows())));
        let (scores, raw_kmeans) = tally.scores();
        let mut report = RunReport {
            dacpipe: env!("CARGO_PKG_VERSION").into(),
            name: plan.name.clone(),
            run: run_id,
            pipeline: plan.fingerprint.clone(),
            seed: plan.seed,
            started_at: humantime::format_rfc3339_seconds(clock.started_at).to_string(),
            seconds: clock.began.elapsed().as_secs_f64(),
            source: source.description.clone(),
            simulated: is_simulated(&plan.source),
            fit_rows: learned.rows,
            labelled_rows: tally.rows(),
            quarantined_rows: bad.len() as u64,
            threads: device.pool().threads(),
            memory_limit: plan.memory_limit,
            spilled_rows: learned.spilled_rows,
            stages,
            cluster_sizes: tally.sizes().to_vec(),
            label_column: source.label.clone(),
            labels_used: model.manifest().labels_used.is_some(),
            scores,
            raw_kmeans,
            model: model.hash().as_str().into(),
            model_path: model_path.to_string(),
            table: sink.to_string(),
            table_version: 0,
        };
        // Should the process die right after the commit, a resumed run finds that its rows are there already.
        let state = RunState::at(&state_dir);
        state.keep_report(&report)?;
        let Committed { version, .. } = writer.commit(CommitInfo { source: source_info, clusters }).await?;
        report.table_version = version;
        report.seconds = clock.began.elapsed().as_secs_f64();
        resume::finish(&sink, &state, &report).await?;
        Ok(report)
    }

    /// The stage that labels.
    fn label_stage(&self, learned: &Learned) -> Result<Label> {
        let label = learned.transforms.iter().find(|t| t.kind() == "label");
        let label = label.ok_or_else(|| Error::config("the pipeline has no kmeans stage, so nothing to label with"))?;
        Label::from_artifact(&label.save(), &*self.device)
    }
}

/// Where an interrupted run leaves its state: in a local table's directory, else under the working directory.
fn state_dir(sink: &Location, name: &str) -> PathBuf {
    match sink.local_path() {
        Some(path) => path.join("_run"),
        None => Path::new(".dacpipe").join(name),
    }
}

/// The name of a run: when it began, and what it runs.
fn run_id(started_at: SystemTime, fingerprint: &str) -> String {
    let when = humantime::format_rfc3339_millis(started_at).to_string();
    let when: String = when.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{when}-{}", &fingerprint[..fingerprint.len().min(8)])
}

/// A session for scans that keep the order of rows, whose operators and replay cache hold at most half the limit. The
/// other half is for batches in flight, the networks and the embeddings.
fn session(memory_limit: u64, dim: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_limit as usize / 8 * 3)))
        .build_arc()?;
    let batch_rows = (BATCH_BYTES / (4 * dim.max(1))).clamp(64, 8192);
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// The rows whose split column has the value given, or all, with the columns asked for.
fn select(ctx: &SessionContext, source: &Source, columns: &[&str], part: Option<(&str, &str)>) -> Result<DataFrame> {
    let mut rows = ctx.read_table(Arc::clone(&source.provider))?;
    if let Some((column, value)) = part {
        let schema = source.provider.schema();
        let field = schema.field_with_name(column).map_err(|_| column::missing(&schema, column))?;
        // Sources filter on text themselves; a cast would hide the column from them.
        let name = match field.data_type() {
            DataType::Utf8 => ident(column),
            _ => cast(ident(column), DataType::Utf8),
        };
        rows = rows.filter(name.eq(lit(value)))?;
    }
    Ok(rows.select(columns.iter().map(|c| ident(*c)))?)
}

/// The error for a source without rows to `learn from` or to `label`.
fn no_rows(source: &Source, purpose: &str) -> Error {
    let why = source.why_no_rows().map(|why| format!(": {why}")).unwrap_or_default();
    Error::input(format!("{}: no rows to {purpose}{why}", source.description))
}

/// The distinct values of a column, sorted, as text.
async fn distinct(ctx: &SessionContext, source: &Source, column: &str) -> Result<Vec<String>> {
    let rows = ctx.read_table(Arc::clone(&source.provider))?.select([ident(column)])?.distinct()?;
    let mut values = Vec::new();
    for batch in rows.collect().await? {
        let text = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        values.extend(text.as_string::<i32>().iter().map(|v| v.unwrap_or("NULL").to_string()));
    }
    values.sort();
    Ok(values)
}

/// True if a directory of recordings says that they were simulated.
fn is_simulated(source: &SourceSpec) -> bool {
    let SourceSpec::Hapt(spec) = source else { return false };
    let place = Location::parse(&spec.path).ok();
    place.and_then(|place| place.local_path().map(|path| path.join("SIMULATED").exists())).unwrap_or(false)
}

/// What the commit says of the source.
fn source_info(source: &Source, tally: &Tally) -> SourceInfo {
    SourceInfo {
        description: source.description.clone(),
        rows: tally.rows(),
        offsets: serde_json::json!({ "rows": tally.rows() }),
    }
}

/// A source's specification without where it was read, as the same rows from another place make the same model, and
/// with the sampling rate that its times showed: recordings of another rate are not described by the same features.
fn as_learned_from(mut spec: serde_json::Value, source: &Source) -> serde_json::Value {
    if let Some(path) = spec.get_mut("path") {
        *path = "".into();
    }
    if let (Some(rate @ serde_json::Value::Null), Some(found)) = (spec.get_mut("rate_hz"), source.rate_hz()) {
        *rate = found.into();
    }
    spec
}

/// Writes the rows that were set aside as a Parquet file beside the table; returns where, or nothing if there are none.
async fn quarantine(sink: &Location, run_id: &str, bad: &BadRows) -> Result<Option<String>> {
    if bad.is_empty() {
        return Ok(None);
    }
    let batch = bad.to_batch()?;
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    let name = format!("quarantine/{run_id}.parquet");
    sink.put(&name, bytes.into()).await?;
    Ok(Some(sink.show(&name)))
}
