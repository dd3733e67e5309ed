//! One portion of a stream after the other: read, labelled, committed.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::datatypes::Schema;
use datafusion::execution::context::SessionContext;
use tracing::{Instrument, info_span};

use super::super::clock::Clock;
use super::super::drift::DriftCounter;
use super::super::execution::{clusters, commit_span, recorded};
use super::super::label_pass::{LabelPass, Passed, Vectors};
use super::super::output::{choice, kept, quarantine, source_info, with_quarantine};
use super::super::portrait::Kept;
use super::super::scan::{select, session};
use super::super::tally::Tally;
use super::super::written::Written;
use super::super::{Pipeline, StreamOptions, StreamReport};
use super::learning::{Learning, labelling};
use super::model::{Chosen, note};
use super::state::{Anew, Counted, Reached};
use super::{StreamState, committed};
use crate::config::{DriftPolicy, DriftTable, Plan};
use crate::device;
use crate::drift::{DriftReport, Level, Reference};
use crate::error::{Error, Kind, Result};
use crate::event::{Control, Event};
use crate::identity::Change;
use crate::live::{Batch, Live};
use crate::model::Model;
use crate::source::follow::{Follow, FollowSpec, Portion};
use crate::source::{BadRows, Source, SourceSpec, overlap};
use crate::stage::{Clusters, FEATURES};
use crate::store::Location;
use crate::table::{
    CommitInfo, Committed, History, Known, LABELLED_AT, Labels, Lineage, Log, MODEL, Mode, Snapshot, SourceInfo,
    TableWriter, WriteOptions,
};

/// Of every so many commits, one adds to what a report shows of rows: means of features by cluster, and a sample. Both
/// are written anew each time, whatever the number of new rows.
const PORTRAIT_EVERY: u64 = 64;

/// A pipeline that follows its source.
pub(super) struct Streaming<'a> {
    pipeline: &'a Pipeline,
    model: Model,
    follow: Follow,
    sink: Location,
    threads: usize,
    /// The state of the last commit, or, after a portion without usable files, behind it.
    state: StreamState,
    sequence: u64,
    /// The table after the last commit.
    known: Option<Known>,
    /// The session in which rows are read: making one takes as long as labelling some thousand rows.
    ctx: SessionContext,
    /// Rows that were set aside since the last commit.
    bad: Arc<BadRows>,
    /// What counts the rows' drift, if it is measured.
    drift: Option<DriftCounter>,
    /// What is learned, if the stream learns.
    learning: Option<Learning>,
    /// What becomes of the table's clusters with the next commit; `None` once that is there.
    lineage: Option<Lineage>,
    /// Portions are labelled to their end, also if the stream is asked to end.
    control: Control,
    /// Asks to end.
    stop: Control,
    /// Who watches.
    live: Option<Arc<Live>>,
    report: StreamReport,
}

impl<'a> Streaming<'a> {
    /// Reads the table's state, and gets the model.
    pub async fn begin(pipeline: &'a Pipeline, options: &StreamOptions) -> Result<Self> {
        let plan = &pipeline.plan;
        let sink = Location::parse(&plan.sink.path)?;
        let log = Log::new(sink.clone());
        let table = log.snapshot(None).await?;
        let reached = StreamState::of(table.as_ref(), &sink, plan).await?;
        // Learning reads the source first, so a source that cannot be followed is found out here.
        if let Some(wrong) = overlap(plan.source.path(), &plan.sink.path) {
            return Err(Error::config(format!("sink.path: {wrong}")));
        }
        if let Some((message, help)) = crate::source::follow::conflict(&plan.source, plan.stream.files) {
            return Err(Error::config(format!("[stream]: {message}, expected {help}")));
        }
        let device = plan.device.open_as(device::threads(plan.threads)?, plan.fused)?;
        let threads = device.pool().threads();
        let anew = reached.as_ref().and_then(|reached| Some(reached.state.anew.as_ref()?.model.as_str()));
        let chosen = pipeline.stream_model(&sink, table.as_ref(), anew, &device, &options.control).await?;
        let sequence = reached.as_ref().map_or(0, |reached| reached.sequence);
        options.control.emit(note(&chosen, sequence, &sink));
        let Chosen { model, learned: lineage, reference } = chosen;
        let learned = lineage.is_some();
        let source = pipeline.stream_source(&model.manifest().input)?;
        let place = sink.local_path().map_or_else(|| sink.to_string(), |path| path.display().to_string());
        let how = FollowSpec { once: options.once, ..plan.stream.follow(&format!("{} {place}", plan.name)) };
        let follow = Follow::new(source, plan.source_options(threads), how)?;
        let next_id = History::of(table.as_ref(), &sink).await?.next_id();
        let rows = table.as_ref().map_or(0, Snapshot::rows);
        let alone = rows == 0;
        let state = reached.map_or_else(|| StreamState::begin(plan, alone), |Reached { state, .. }| state);
        let report = StreamReport {
            name: plan.name.clone(),
            model: model.hash().as_str().into(),
            learned,
            table: sink.to_string(),
            table_version: table.as_ref().map(|table| table.version),
            sequence,
            ..StreamReport::default()
        };
        let learning = match plan.stream.decay() {
            Some(decay) => Some(Learning::begin(&model, decay, state.learned.as_ref(), next_id, &device)?),
            None => None,
        };
        let drift = counter(plan, &model, reference, state.drift.as_ref())?;
        let lineage = Some(lineage.unwrap_or(Lineage::Keep));
        if let Some(live) = &options.live {
            live.labels_by(model.hash().as_str());
        }
        let control = options.control.unstoppable();
        let ctx = session(plan.memory_limit, model.dim_in())?;
        let bad = Arc::new(BadRows::new());
        Ok(Self {
            pipeline,
            model,
            follow,
            sink,
            threads,
            state,
            sequence,
            known: None,
            ctx,
            bad,
            drift,
            learning,
            lineage,
            control,
            stop: options.control.clone(),
            live: options.live.clone(),
            report,
        })
    }

    /// Takes what is new, at most one portion, and commits it. Returns whether there may be more.
    pub async fn step(&mut self, now: SystemTime) -> Result<bool> {
        let Some(portion) = self.follow.next(&self.state.position, now, &self.bad).await? else { return Ok(false) };
        let more = portion.more;
        let Some(source) = &portion.source else {
            // None of its files can be used: what was set aside is in the next commit.
            self.state.position = portion.position()?;
            if self.follow.waits() && self.sequence > 0 && !self.bad.is_empty() {
                // Messages are acknowledged by a commit, and more come only then.
                self.commit_set_aside().await?;
            }
            return Ok(more);
        };
        if let Some(live) = &self.live {
            live.took(portion.rows, portion.behind.rows);
        }
        if self.state.retrain {
            // With rows at hand, so that their commit says that it was done.
            self.retrain().await?;
        }
        let span = info_span!("batch", rows = portion.rows, files = portion.files, model = self.model.hash().short());
        self.commit_rows(source, &portion).instrument(span).await?;
        Ok(more)
    }

    /// Whether nothing will come any more; of files, whether nothing new is there.
    pub fn is_over(&self) -> bool {
        self.follow.is_over()
    }

    /// Whether it follows an input that ends, and not files or messages.
    pub fn is_input(&self) -> bool {
        self.follow.is_input()
    }

    /// Whether what it follows is waited for while it is read.
    pub fn waits(&self) -> bool {
        self.follow.waits()
    }

    /// Commits what is left to commit, and reports.
    pub async fn finish(mut self) -> Result<StreamReport> {
        if !self.bad.is_empty() {
            self.commit_set_aside().await?;
        }
        self.report.files = self.state.position.files();
        self.report.open_recordings = self.state.position.open_recordings();
        self.report.sequence = self.sequence;
        Ok(self.report)
    }

    /// Labels the rows of a portion and commits them with the position behind it.
    async fn commit_rows(&mut self, source: &Source, portion: &Portion) -> Result<()> {
        let (began, clock) = (Instant::now(), Clock::start()?);
        let plan = &self.pipeline.plan;
        self.model.check_width(source.dim)?;
        let mut writer = self.writer(&clock).await?;
        let kept = kept(plan, source);
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(kept.iter().map(String::as_str)).collect();
        let mut rows = select(&self.ctx, source, &columns, plan.split.part(&plan.split.label)?)?;
        // The position tells which rows are new, unless others wrote rows as well, or a file brings keys again.
        self.state.alone &= writer.base_rows() == self.state.rows;
        let looks = !self.state.alone || matches!(plan.source, SourceSpec::Parquet(_));
        let existing = if looks { writer.existing(self.model.hash().as_str()).await? } else { None };
        if let Some(existing) = &existing {
            rows = rows.filter(existing.is_new())?;
        }
        let written = Written::by(&self.model, choice(plan), kept);
        let labels = Labels { model: self.model.hash().as_str().into(), labelled_at: clock.labelled_at };
        let label = self.learning.as_ref().map(Learning::stage).transpose()?;
        let mut transforms = written.stages(&self.model)?;
        if let Some(label) = &label {
            transforms = labelling(transforms, label);
        }
        let found = match &label {
            Some(label) => Some(label as &dyn Clusters),
            None => self.model.clusters(),
        };
        let pass = LabelPass {
            ids: found.map(Clusters::ids).unwrap_or_default(),
            collects: self.learning.as_ref().map(|learning| learning.column().to_owned()),
            portrays: self.sequence.is_multiple_of(PORTRAIT_EVERY),
            drift: self.drift.clone(),
            threads: self.threads,
            control: self.control.quiet(),
            ..LabelPass::of(source, rows, transforms, written.columns())
        };
        let Passed { tally, kept: Kept { profile, sample }, vectors, drift: mut counter, newest } =
            pass.run(&self.ctx, &mut writer, labels).await?;
        let clusters = found.map(|found| clusters(&tally, &self.model, found)).transpose()?;
        let skipped_rows = existing.map_or(0, |existing| existing.skipped());
        let lineage = self.lineage_of(&writer, &vectors).await?;
        let label_seconds = began.elapsed().as_secs_f64();
        let drift = counter.as_mut().and_then(DriftCounter::judge);
        let judged = drift.as_ref().map(|drift| drift.judgement.clone());
        let said = drift.as_ref().map(|of| DriftReport::of(&of.judgement, &of.model));
        let info = CommitInfo {
            source: source_info(source, plan.source.path(), &tally),
            clusters,
            profile,
            sample,
            skipped_rows,
            lineage,
            drift: drift.into_iter().collect(),
            ..CommitInfo::default()
        };
        let mut state = self.state.clone();
        state.position = portion.position()?;
        state.learned = self.learning.as_ref().map(Learning::save);
        state.drift = counter
            .as_ref()
            .map(|counter| Counted { model: self.model.hash().as_str().into(), counts: counter.counts().clone() });
        let acts = said.as_ref().is_some_and(|said| said.level == Level::Act);
        let retrains = plan.drift.as_ref().is_some_and(|drift| drift.policy == DriftPolicy::Retrain);
        // As long as most of the files are of before, rows drift from a new model, too: it is not learned again and again.
        let grown = state.anew.as_ref().is_none_or(|anew| self.state.rows / 5 * 4 >= anew.rows);
        state.retrain = acts && retrains && grown;
        let set_aside = self.reasons();
        let committing = Instant::now();
        let Committed { bytes, version, .. } = self.commit(writer, info, state, began).await?;
        if let Some(live) = &self.live {
            let arrived = portion.behind.arrived.map(|ms| ms.saturating_mul(1_000_000));
            live.committed(&Batch {
                rows: tally.rows(),
                skipped: skipped_rows,
                set_aside,
                clusters: tally.ids().iter().copied().zip(tally.sizes().iter().copied()).collect(),
                label_seconds,
                commit_seconds: committing.elapsed().as_secs_f64(),
                bytes,
                version,
                behind_rows: portion.behind.rows,
                behind_seconds: newest.or(arrived).map(seconds_since),
                drift: judged.as_ref().zip(plan.drift.as_ref().map(DriftTable::spec).as_ref()),
            });
        }
        self.drift = counter;
        if let Some(said) = said {
            self.say(said);
        }
        self.count(source, &tally, skipped_rows);
        Ok(())
    }

    /// The reasons of the rows that were set aside, for who watches.
    fn reasons(&self) -> Vec<(String, u64)> {
        match self.live {
            Some(_) => self.bad.rows().into_iter().map(|bad| (bad.reason, bad.rows.unwrap_or(1))).collect(),
            None => Vec::new(),
        }
    }

    /// Says how far rows have drifted.
    fn say(&mut self, said: DriftReport) {
        if said.level > Level::Stable {
            self.control.emit(Event::Warning { message: format!("drift: {said}; {}_drift has all", self.report.name) });
        }
        self.report.drift = Some(said);
    }

    /// Whether something happened that the stream is to end at.
    pub fn has_failed(&self, options: &StreamOptions) -> bool {
        let fails = self.pipeline.plan.drift.as_ref().is_some_and(|drift| drift.policy == DriftPolicy::Fail);
        let acts = self.report.drift.as_ref().is_some_and(|drift| drift.level == Level::Act);
        fails && acts || options.ends_on_quarantine && self.report.quarantined_rows > 0
    }

    /// Learns a new model from the rows that are there; the next commit has rows by it. If they cannot be learned from, the
    /// model stays.
    async fn retrain(&mut self) -> Result<()> {
        let before = self.model.hash().clone();
        if let Some(live) = &self.live {
            live.learns();
        }
        let message = "rows have drifted: a new model is learned from the rows that are there".to_owned();
        self.control.emit(Event::Note { message });
        let Chosen { model, learned, reference } = match self.pipeline.learn_for_stream(&self.sink, &self.stop).await {
            Ok(chosen) => chosen,
            Err(e) if matches!(e.kind(), Kind::Input | Kind::Compute) => {
                let message = format!("no new model was learned, the one before labels further rows: {e}");
                self.control.emit(Event::Warning { message });
                self.state.retrain = false;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.state.retrain = false;
        self.report.retrained += 1;
        if *model.hash() == before {
            let message = format!("model {} was learned again: its rows have not changed", before.short());
            self.control.emit(Event::Note { message });
            return Ok(());
        }
        let message = format!("model {} follows model {}", model.hash().short(), before.short());
        self.control.emit(Event::Note { message });
        self.drift = counter(&self.pipeline.plan, &model, reference, None)?;
        self.state.anew = Some(Anew { model: model.hash().as_str().into(), rows: self.state.rows });
        self.report.model = model.hash().as_str().into();
        if let Some(live) = &self.live {
            live.learned();
            live.labels_by(model.hash().as_str());
        }
        (self.lineage, self.model) = (learned, model);
        Ok(())
    }

    /// Commits that rows were set aside, if there is a table to say so in.
    async fn commit_set_aside(&mut self) -> Result<()> {
        let (began, clock) = (Instant::now(), Clock::start()?);
        let Some(table) = Log::new(self.sink.clone()).snapshot(None).await? else {
            let run_id = clock.run_id(&self.pipeline.plan.fingerprint);
            let e = Error::input(format!("{} rows were set aside, and no row can be used", self.bad.count()));
            return Err(with_quarantine(e, &self.pipeline.plan.sink.path, &run_id, &self.bad).await);
        };
        let mut writer = self.writer(&clock).await?;
        let made = [MODEL, LABELLED_AT];
        let fields = table.schema.fields().iter().filter(|field| !made.contains(&field.name().as_str()));
        let labels = Labels { model: self.model.hash().as_str().into(), labelled_at: clock.labelled_at };
        writer.sink(Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())), labels)?;
        let source = SourceInfo { description: "nothing but what was set aside".into(), ..SourceInfo::default() };
        let info = CommitInfo { source, ..CommitInfo::default() };
        let state = self.state.clone();
        let set_aside = self.reasons();
        let Committed { bytes, version, .. } = self.commit(writer, info, state, began).await?;
        if let Some(live) = &self.live {
            let commit_seconds = began.elapsed().as_secs_f64();
            live.committed(&Batch { set_aside, commit_seconds, bytes, version, ..Batch::default() });
        }
        Ok(())
    }

    /// Learns from the rows that were labelled. Returns what becomes of the table's clusters with their commit: those that
    /// it does not know begin.
    async fn lineage_of(&mut self, writer: &TableWriter, vectors: &Vectors) -> Result<Lineage> {
        let changes = match &mut self.learning {
            Some(learning) => learning.learn(vectors)?,
            None => Vec::new(),
        };
        self.report.revived_clusters += changes.len() / 2;
        let first = match self.lineage.take() {
            Some(Lineage::Keep) => {
                let (known, ids) = (writer.history().await?.ids, self.model.clusters().map(Clusters::ids));
                let new = ids.unwrap_or_default().into_iter().filter(|id| !known.contains(id));
                Lineage::Add(new.map(Change::born).collect())
            }
            Some(lineage) => lineage,
            None => Lineage::Keep,
        };
        Ok(match (first, changes.is_empty()) {
            (first, true) => first,
            (Lineage::Add(mut born), false) => {
                born.extend(changes);
                Lineage::Add(born)
            }
            (Lineage::Keep | Lineage::Forget, false) => Lineage::Add(changes),
        })
    }

    /// A writer that appends to the table.
    async fn writer(&self, clock: &Clock) -> Result<TableWriter> {
        let plan = &self.pipeline.plan;
        let run_id = clock.run_id(&plan.fingerprint);
        let write = WriteOptions::new(Mode::Append, &run_id)
            .partition_by(&plan.sink.partition_by)
            .keys(&plan.sink.keys)
            .on_existing(plan.sink.on_existing);
        let writer = match &self.known {
            Some(known) => TableWriter::begin_after(&self.sink, write, known).await?,
            None => TableWriter::begin(&self.sink, write).await?,
        };
        writer.last_written().map_or(Ok(()), |last| clock.check_follows(last))?;
        Ok(writer)
    }

    /// Commits the rows of `writer` with `state`.
    async fn commit(
        &mut self,
        writer: TableWriter,
        info: CommitInfo,
        mut state: StreamState,
        began: Instant,
    ) -> Result<Committed> {
        state.rows = writer.base_rows() + writer.rows().await;
        let quarantine = quarantine(&self.bad)?;
        let sequence = self.sequence + 1;
        let stream = Some(state.commit(&self.pipeline.plan.name, sequence)?);
        let info = CommitInfo { quarantine, stream, ..info };
        let span = commit_span(self.model.hash().short());
        let (done, known) = writer.commit_and_know(info).instrument(span.clone()).await?;
        recorded(&span, &done);
        let Committed { version, rows, .. } = done;
        self.known = known;
        self.follow.committed();
        (self.state, self.sequence) = (state, sequence);
        self.report.commits += 1;
        self.report.quarantined_rows += self.bad.count();
        self.report.table_version = Some(version);
        self.bad = Arc::new(BadRows::new());
        self.control.emit(committed(rows, sequence, version, began.elapsed().as_secs_f64()));
        Ok(done)
    }

    fn count(&mut self, source: &Source, tally: &Tally, skipped_rows: u64) {
        let report = &mut self.report;
        report.rows += tally.rows();
        report.skipped_rows += skipped_rows;
        for (id, size) in tally.ids().iter().zip(tally.sizes()) {
            *report.cluster_sizes.entry(*id).or_default() += size;
        }
        if let Some(samples) = source.samples() {
            report.samples.get_or_insert_default().add(&samples);
        }
    }
}

/// What counts the drift of rows that `model` labels, if it is measured; it goes on with what was `counted` for that model.
fn counter(
    plan: &Plan,
    model: &Model,
    reference: Option<Reference>,
    counted: Option<&Counted>,
) -> Result<Option<DriftCounter>> {
    let (Some(drift), Some(reference)) = (&plan.drift, reference) else { return Ok(None) };
    let counter = DriftCounter::new(model, reference, drift.spec())?;
    match counted.filter(|counted| counted.model == model.hash().as_str()) {
        Some(counted) => counter.resume(&counted.counts).map(Some),
        None => Ok(Some(counter)),
    }
}

/// Seconds from a time, in nanoseconds since 1970, until now; 0 if it is to come.
fn seconds_since(nanoseconds: i64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    (now as f64 - nanoseconds as f64).max(0.0) / 1e9
}
