//! One execution of a pipeline, step by step.

use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;

use super::clock::Clock;
use super::collect::{Collected, collect};
use super::identity::Earlier;
use super::label_pass::{LabelPass, Passed, RAW_CLUSTER, RawKMeans};
use super::learn::{Learn, Learned};
use super::output::{empty_text, quarantine, source_info};
use super::portrait::Kept;
use super::precision;
use super::scan::{select, session};
use super::state::{RunState, StateDir, state_dir};
use super::tally::{Columns, Tally};
use super::written::Written;
use super::{Pipeline, RunOptions, resume};
use crate::config::{ClusterSpec, StageSpec};
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::kmeans::KMeansSpec;
use crate::memory;
use crate::model::Model;
use crate::report::{RunReport, StageReport};
use crate::source::{self, BadRows, Source};
use crate::stage::{Clusters, FEATURES};
use crate::store::Location;
use crate::table::{CommitInfo, Committed, ExistingKeys, Labels, Lineage, TableWriter, WriteOptions};
use crate::weights::WeightLabels;

/// One execution: everything that is open while a pipeline runs.
pub(super) struct Execution<'a> {
    pub pipeline: &'a Pipeline,
    pub options: &'a RunOptions,
    pub clock: &'a Clock,
    pub run_id: String,
    pub device: Arc<dyn Device>,
    pub source: Source,
    pub bad: Arc<BadRows>,
    pub ctx: SessionContext,
    pub sink: Location,
    pub writer: TableWriter,
    pub state_dir: StateDir,
    /// Whether it goes on with the state of an interrupted run.
    pub goes_on: bool,
}

impl<'a> Execution<'a> {
    /// Opens the source and then the table, so that a missing source leaves no trace of a table. The table is opened
    /// before anything is learned, so that one that cannot be written is found at once and not after an hour of
    /// training. Rows that are set aside go to `bad`.
    pub async fn open(
        pipeline: &'a Pipeline,
        options: &'a RunOptions,
        clock: &'a Clock,
        bad: Arc<BadRows>,
    ) -> Result<Self> {
        let plan = &pipeline.plan;
        let device = plan.device.open_as(device::threads(plan.threads)?, plan.fused)?;
        let sink = Location::parse(&plan.sink.path)?;
        let state_dir = state_dir(&sink, &plan.name);
        let goes_on = resume::goes_on(pipeline, options)?;
        resume::check_report_place(&sink).await?;
        let source_options = plan.source_options(device.pool().threads());
        let source = source::open(&plan.source, &source_options, Arc::clone(&bad)).await?;
        let run_id = clock.run_id(&plan.fingerprint);
        let write = WriteOptions::new(plan.sink.mode, &run_id)
            .partition_by(&plan.sink.partition_by)
            .keys(&plan.sink.keys)
            .on_existing(plan.sink.on_existing);
        let writer = TableWriter::begin(&sink, write).await?;
        let state_dir = StateDir::claim(&state_dir, &run_id, goes_on)?;
        let ctx = session(plan.memory_limit, source.dim)?;
        Ok(Self { pipeline, options, clock, run_id, device, source, bad, ctx, sink, writer, state_dir, goes_on })
    }
}

impl Execution<'_> {
    /// Checks what can be checked before, and learns: the model, whose clusters keep their ids, and what became of each.
    pub async fn learn_model(&self) -> Result<(Learned, Model, Lineage)> {
        self.check_output()?;
        self.check_parts().await?;
        let earlier = self.earlier().await?;
        let mut learned = self.learn(earlier.as_ref().and_then(Earlier::model)).await?;
        let (model, lineage) = self.identify(&mut learned, earlier)?;
        Ok((learned, model, lineage))
    }

    /// The first pass, and then every stage in turn; on the way rows are labelled by the `earlier` model, if there is one.
    pub async fn learn(&self, earlier: Option<Arc<Model>>) -> Result<Learned> {
        let plan = &self.pipeline.plan;
        if self.pipeline.stages.is_empty() {
            // Nothing learns, so no rows are read before those that are written.
            self.open_state("")?;
            return Ok(Learned::default());
        }
        let began = Instant::now();
        let label = self.learned_label();
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(label).collect();
        let rows = select(&self.ctx, &self.source, &columns, plan.split.part(&plan.split.fit)?)?;
        let memory = &self.ctx.runtime_env().memory_pool;
        let (rows, most) = (rows.execute_stream().await?, self.distinct_needed());
        let collected = collect(rows, memory, label, most, &self.options.control).await?;
        self.check_rows(&collected).await?;
        let summary = format!("{} rows of {} values", collected.rows.len(), collected.rows.dim());
        let mut source = StageReport::new("source", began, summary);
        let mut learned = self.learn_from(collected, earlier).await?;
        source.figures.extend(precision::figures(&learned.fallen)?);
        learned.reports.insert(0, source);
        Ok(learned)
    }

    /// Fits the stages on a separate thread, so that no worker of the I/O runtime computes.
    async fn learn_from(&self, collected: Collected, earlier: Option<Arc<Model>>) -> Result<Learned> {
        let plan = &self.pipeline.plan;
        let state = self.open_state(&collected.digest)?;
        let learn = Learn {
            stages: self.pipeline.stages.clone(),
            seed: plan.seed(),
            device: Arc::clone(&self.device),
            embeddings: Arc::new(GreedyMemoryPool::new(plan.memory_limit as usize / 8)),
            rows: Arc::clone(&self.ctx.runtime_env().memory_pool),
            memory: memory::of_limit(plan.memory_limit),
            feature_names: self.source.feature_names.clone(),
            rounded: self.source.rounded.clone(),
            control: self.options.control.clone(),
            state,
            registry: self.pipeline.registry.clone().on(Arc::clone(&self.device)),
            baseline: self.baseline(),
            earlier,
        };
        SpawnedTask::spawn_blocking(move || learn.run(collected))
            .await
            .map_err(|e| Error::internal("the learning thread panicked").with_source(e))?
    }

    /// The state of this run over the data whose digest is `data`.
    fn open_state(&self, data: &str) -> Result<RunState> {
        resume::open_state(self.state_dir.path(), self.pipeline, data, self.goes_on, &self.options.control)
    }

    /// The spec of raw k-means, if there is an embedding to compare it with, and labels to compare both with.
    fn baseline(&self) -> Option<KMeansSpec> {
        self.source.label.as_ref()?;
        self.pipeline.plan.stages.iter().find_map(|stage| match stage {
            StageSpec::KMeans(ClusterSpec { kmeans, .. }) => Some(kmeans.clone()),
            StageSpec::DeepClustering(spec) => Some(KMeansSpec { n_init: spec.n_init, ..KMeansSpec::new(spec.k) }),
            _ => None,
        })
    }

    /// The label column that a stage learns from.
    pub fn learned_label(&self) -> Option<&str> {
        self.pipeline.plan.stages.iter().find_map(|stage| match stage {
            StageSpec::FeatureWeights(spec) => match &spec.labels {
                WeightLabels::Column(name) => Some(name.as_str()),
                WeightLabels::Pseudo { .. } | WeightLabels::Uniform => None,
            },
            _ => None,
        })
    }

    /// The label pass, the commit, and the report.
    pub async fn label(mut self, mut learned: Learned, model: Model, lineage: Lineage) -> Result<RunReport> {
        let began = Instant::now();
        let existing = self.writer.existing(model.hash().as_str()).await?;
        let pass = self.label_pass(&learned, &model, existing.as_ref())?;
        let labels = Labels { model: model.hash().as_str().into(), labelled_at: self.clock.labelled_at };
        let Passed { tally, kept, .. } = pass.run(&self.ctx, &mut self.writer, labels).await?;

        let model_path = model.save(&self.sink.join("models")?).await?;
        let quarantine = quarantine(&self.bad)?;
        let clusters = model.clusters().map(|found| clusters(&tally, &model, found)).transpose()?;
        let Kept { profile, sample } = kept;
        let skipped_rows = existing.map_or(0, |existing| existing.skipped());
        let source = source_info(&self.source, self.pipeline.plan.source.path(), &tally);
        let info = CommitInfo {
            source,
            clusters,
            profile,
            sample,
            lineage,
            quarantine,
            skipped_rows,
            ..CommitInfo::default()
        };
        learned.reports.push(StageReport::new("label", began, format!("{} rows", tally.rows())));
        let mut report = self.report(learned, &model, &model_path, &tally);
        report.skipped_rows = skipped_rows;
        // If the process dies right after the commit, a resumed run finds that its rows are in the table.
        let state = RunState::at(self.state_dir.path());
        state.keep_report(&report)?;
        let Committed { version, replaced_rows, empty_texts, .. } = self.writer.commit(info).await?;
        report.notes.extend(empty_text(&empty_texts));
        report.table_version = version;
        report.replaced_rows = replaced_rows;
        report.seconds = self.clock.began.elapsed().as_secs_f64();
        resume::finish(&self.sink, &state, &report).await?;
        Ok(report)
    }

    /// Ends without having written anything.
    pub async fn end_without_rows(self) -> Result<()> {
        self.writer.abort().await;
        RunState::at(self.state_dir.path()).clear()
    }

    /// The pass over the rows to label, without rows whose keys are `existing`.
    fn label_pass(&self, learned: &Learned, model: &Model, existing: Option<&Arc<ExistingKeys>>) -> Result<LabelPass> {
        let plan = &self.pipeline.plan;
        let kept = self.kept();
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(kept.iter().map(String::as_str)).collect();
        let mut rows = select(&self.ctx, &self.source, &columns, plan.split.part(&plan.split.label)?)?;
        if let Some(existing) = existing {
            rows = rows.filter(existing.is_new())?;
        }
        let written = Written::by(model, self.choice(), kept);
        let mut transforms = written.stages(model)?;
        if let Some((at, raw)) = &learned.baseline {
            transforms.insert(*at, Arc::new(RawKMeans(Arc::clone(raw))));
        }
        let raw = learned.baseline.is_some().then(|| RAW_CLUSTER.to_string());
        Ok(LabelPass {
            columns: Columns { label: self.source.label.clone(), split: plan.split.column.clone(), raw },
            ids: model.clusters().map(Clusters::ids).unwrap_or_default(),
            threads: self.device.pool().threads(),
            control: self.options.control.clone(),
            ..LabelPass::of(&self.source, rows, transforms, written.columns())
        })
    }
}

/// The `clusters` table of the counts, with centroids in the source's units if the features themselves were clustered.
pub(super) fn clusters(tally: &Tally, model: &Model, found: &dyn Clusters) -> Result<RecordBatch> {
    tally.clusters(&found.centroids().map(|centroids| model.in_source_units(&centroids)).unwrap_or_default())
}
