//! Labels new rows with a saved model: needs no pipeline file and no label column, only the model and the rows.

use std::sync::Arc;

use super::checks::no_rows;
use super::clock::Clock;
use super::execution::clusters;
use super::label_pass::{LabelPass, Passed};
use super::output::{empty_text, quarantine, source_info, with_quarantine};
use super::portrait::Kept;
use super::scan::{select, session};
use super::written::{Choice, Written};
use crate::column::listed;
use crate::device::{self, DeviceChoice};
use crate::error::{Error, Kind, Result};
use crate::event::{Control, Event};
use crate::identity::Change;
use crate::model::{Model, ModelInput};
use crate::registry::Registry;
use crate::report::VectorsReport;
use crate::signal::features::FeatureSet;
use crate::signal::window::{WindowLabel, WindowSpec, Within};
use crate::source::parquet::Features;
use crate::source::samples::Samples;
use crate::source::{self, BadRows, HaptSpec, OnBadRow, ParquetSpec, Source, SourceOptions, SourceSpec};
use crate::stage::{Clusters, FEATURES};
use crate::store::Location;
use crate::table::{
    CommitInfo, Committed, History, Labels, Lineage, Log, Mode, OnExisting, QUARANTINE, Snapshot, TableWriter,
    WriteOptions,
};
use crate::vectors::VectorForm;

/// The kind of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// Recordings in the layout of the HAPT data set.
    Hapt,
    /// Sensor recordings in CSV files.
    Csv,
    /// Feature vectors in Parquet files.
    Parquet,
}

/// Rows to label with a saved model, and the table to write.
#[derive(Debug, Clone)]
pub struct Relabel {
    /// The model's directory.
    pub model: String,
    /// The rows.
    pub input: String,
    /// The table.
    pub output: String,
    /// The kind of the input; if `None`, it follows from the input's name and the model's pipeline.
    pub kind: Option<InputKind>,
    /// The column of feature vectors in Parquet input; if `None`, that of the model's pipeline, or `features`.
    pub features: Option<String>,
    /// The key columns to write; if empty, those of the source.
    pub keys: Vec<String>,
    /// Where windows are cut; if `None`, as in the model's pipeline.
    pub within: Option<Within>,
    /// Whether the table keeps its rows.
    pub mode: Mode,
    /// What an append does with rows whose keys the table has.
    pub on_existing: OnExisting,
    /// Write the embeddings, too.
    pub embedding: bool,
    /// Write the reconstruction errors, too.
    pub reconstruction_error: bool,
    /// Write the vectors that are clustered, too; if the model makes no clusters, only them.
    pub vectors: Option<VectorForm>,
    /// What happens to rows that cannot be used.
    pub on_bad_row: OnBadRow,
    /// Compute threads; if `None`, one per core.
    pub threads: Option<usize>,
    /// Where the model is applied.
    pub device: DeviceChoice,
}

/// What was labelled.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RelabelReport {
    /// Rows that were labelled.
    pub rows: u64,
    /// Rows that were left out, because the table has rows with their keys by this model.
    pub skipped_rows: u64,
    /// Rows of the table that were replaced, because they have the same keys.
    pub replaced_rows: u64,
    /// Rows that were set aside.
    pub quarantined_rows: u64,
    /// What became of the samples of the recordings; `None` for feature vectors.
    pub samples: Option<Samples>,
    /// The table with the rows that were set aside, if there are any.
    pub quarantine: Option<String>,
    /// The ids of the clusters, rising; empty if the model makes none.
    pub cluster_ids: Vec<i32>,
    /// Rows of each cluster, in the order of the ids.
    pub cluster_sizes: Vec<u64>,
    /// The vectors that were written, if any were.
    pub vectors: Option<VectorsReport>,
    /// The model's content hash.
    pub model: String,
    /// The table's directory.
    pub table: String,
    /// The table's version after this.
    pub table_version: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Notes for the user on how the table was written.
    pub notes: Vec<String>,
}

/// The memory limit of DataFusion's operators; relabelling itself buffers nothing.
const MEMORY_LIMIT: u64 = 256 << 20;

impl Relabel {
    /// Labels the rows and commits them.
    ///
    /// # Errors
    /// As documented for [`Kind`]. Whatever fails, the table stays as it was.
    pub async fn run(&self, control: &Control) -> Result<RelabelReport> {
        self.run_with(&Registry::default(), control).await
    }

    /// The same, with a model whose stages `registry` knows, applied on the device that was asked for.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with(&self, registry: &Registry, control: &Control) -> Result<RelabelReport> {
        let clock = Clock::start()?;
        let threads = device::threads(self.threads)?;
        let registry = registry.clone().on(self.device.open(1)?);
        let model = Arc::new(Model::load_with(&Location::parse(&self.model)?, &registry).await?);
        if self.reconstruction_error {
            model.decodes().map_err(|e| e.while_doing("--reconstruction-error"))?;
        }
        self.written(&model, vec![])
            .check("--vectors list or --vectors columns writes the vectors that there are")
            .map_err(|e| e.while_doing(format_args!("model {} ({})", model.name(), model.hash().short())))?;
        let output = Location::parse(&self.output)?;
        if let Some(wrong) = source::overlap(&self.input, &self.output) {
            return Err(Error::config(format!("--input {} and --output {}: {wrong}", self.input, self.output)));
        }
        let run_id = clock.run_id(model.hash().as_str());
        let mut bad = Arc::new(BadRows::new());
        let Opened { source, missing_keys } = match self.open(&model, threads, &mut bad, control).await {
            Ok(opened) => opened,
            Err(e) => return Err(with_quarantine(e, &self.output, &run_id, &bad).await),
        };
        model.check_width(source.dim)?;
        let mut keep = match self.keys.is_empty() {
            true => row_keys(&source),
            false => self.keys.clone(),
        };
        // Only a part of the key columns does not identify a row.
        let keys = if missing_keys.is_empty() { keep.clone() } else { Vec::new() };
        let there = self.appends_to(&output).await?;
        let write = WriteOptions::new(self.mode, &run_id).keys(&keys).on_existing(self.on_existing);
        let write = write.partition_by(there.as_ref().map(|there| there.partition_by.clone()).unwrap_or_default());
        let mut writer = TableWriter::begin(&output, write).await?;
        if writer.keys().iter().any(|key| !keep.contains(key)) {
            return Err(Error::input(format!(
                "cannot append to {output}: it tells rows apart by {}, and the columns that are written of {} are {}; \
                 --keys names those that are",
                writer.keys().join(", "),
                self.input,
                if keep.is_empty() { "none".to_owned() } else { keep.join(", ") }
            )));
        }
        let (lineage, foreign) = self.lineage(&model, &writer.history().await?);
        let mut notes = Vec::from_iter(foreign);
        if !missing_keys.is_empty() {
            let names = missing_keys.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            notes.push(format!(
                "{} has no column {names}, by which the model's pipeline told rows apart: the rows are written without, in \
                 the order in which they were read; --keys names other columns",
                self.input
            ));
        }
        if there.is_some_and(|there| there.rows() > 0) && writer.keys().is_empty() {
            notes.push(
                "nothing tells the rows of the table apart, so these were added whether it had them or not; --keys names \
                 the columns that do"
                    .to_owned(),
            );
        }

        let ctx = session(MEMORY_LIMIT, source.dim)?;
        for column in source.label.iter().chain(&source.carried) {
            if !keep.contains(column) {
                keep.push(column.clone());
            }
        }
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(keep.iter().map(String::as_str)).collect();
        let mut rows = select(&ctx, &source, &columns, None)?;
        let existing = writer.existing(model.hash().as_str()).await?;
        if let Some(existing) = &existing {
            rows = rows.filter(existing.is_new())?;
        }
        let written = self.written(&model, keep);
        let labels = Labels { model: model.hash().as_str().into(), labelled_at: clock.labelled_at };
        let pass = LabelPass {
            ids: model.clusters().map(Clusters::ids).unwrap_or_default(),
            threads,
            control: control.clone(),
            ..LabelPass::of(&source, rows, written.stages(&model)?, written.columns())
        };
        let Passed { tally, kept: Kept { profile, sample }, .. } = match pass.run(&ctx, &mut writer, labels).await {
            Ok(labelled) => labelled,
            Err(e) => return Err(with_quarantine(e, &self.output, &run_id, &bad).await),
        };
        let skipped_rows = existing.map_or(0, |existing| existing.skipped());
        if tally.rows() == 0 && skipped_rows == 0 {
            return Err(with_quarantine(no_rows(&source, "label"), &self.output, &run_id, &bad).await);
        }
        model.save(&output.join("models")?).await?;
        let quarantine = quarantine(&bad)?;
        let clusters = model.clusters().map(|found| clusters(&tally, &model, found)).transpose()?;
        let samples = source.samples();
        if let Some(first) = source.left_alone().first() {
            notes.push(format!("the data after the compressed part of {first} was not read"));
        }
        if !source.left_out.is_empty() {
            notes.push(source.left_out.to_string());
        }
        let source = source_info(&source, &self.input, &tally);
        let set_aside = quarantine.is_some();
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
        let Committed { version: table_version, replaced_rows, empty_texts, .. } = writer.commit(info).await?;
        notes.extend(empty_text(&empty_texts));
        Ok(RelabelReport {
            rows: tally.rows(),
            quarantined_rows: bad.count(),
            samples,
            quarantine: set_aside.then(|| output.show(QUARANTINE)),
            skipped_rows,
            replaced_rows,
            cluster_ids: tally.ids().to_vec(),
            cluster_sizes: tally.sizes().to_vec(),
            vectors: written.report(),
            model: model.hash().as_str().into(),
            table: output.to_string(),
            table_version,
            seconds: clock.began.elapsed().as_secs_f64(),
            notes,
        })
    }

    /// The births of the model's clusters whose ids the table does not know; and a note where an append writes ids that
    /// other clusters of the table have: those of a model are not matched, as a run's are.
    fn lineage(&self, model: &Model, history: &History) -> (Lineage, Option<String>) {
        let Some(clusters) = model.clusters() else { return (Lineage::Keep, None) };
        let (known, born): (Vec<i32>, Vec<i32>) = clusters.ids().into_iter().partition(|id| history.ids.contains(id));
        let foreign = self.mode == Mode::Append && !history.models.contains(model.hash().as_str()) && !known.is_empty();
        let note = foreign.then(|| {
            format!(
                "the table has clusters of other models with the ids {}, too, which are not the same: dacpipe label takes \
                 the ids of the model as they are, dacpipe run matches its clusters to those of the table",
                listed(known.iter().map(i32::to_string).collect::<Vec<_>>().iter().map(String::as_str))
            )
        });
        (Lineage::Add(born.into_iter().map(Change::born).collect()), note)
    }

    /// The table that rows are appended to.
    async fn appends_to(&self, output: &Location) -> Result<Option<Snapshot>> {
        match self.mode {
            Mode::Overwrite => Ok(None),
            Mode::Append => Log::new(output.clone()).snapshot(None).await,
        }
    }

    /// What is written beside the source's columns `kept`.
    fn written(&self, model: &Model, kept: Vec<String>) -> Written {
        let Self { vectors, embedding, reconstruction_error, .. } = *self;
        Written::by(model, Choice { vectors, embedding, reconstruction_error }, kept)
    }

    /// The input as a source, with its bad rows so far in `bad`. If the model was learned on windows cut within labels
    /// and the input has no labels, windows are cut over whole recordings. If it lacks columns that the model's
    /// pipeline carried along, none are carried. Vectors that lack key columns of the model's pipeline are read without
    /// them.
    async fn open(&self, model: &Model, threads: usize, bad: &mut Arc<BadRows>, control: &Control) -> Result<Opened> {
        let input = &model.manifest().input;
        let source_of = |within| {
            let (spec, options) = self.source(input, threads, within)?;
            Ok::<_, Error>((spec, SourceOptions { missing: model.imputes(), ..options }))
        };
        let (first, options) = source_of(self.within)?;
        let within_labels = options.window.is_some_and(|w| w.within == Within::Labels);
        let withins = match within_labels && self.within.is_none() {
            true => vec![self.within, Some(Within::Recordings)],
            false => vec![self.within],
        };
        let carries = carries_along(&first);
        let keeps: &[bool] = if carries { &[true, false] } else { &[false] };
        let mut why: Option<Error> = None;
        for (nth, &within) in withins.iter().enumerate() {
            for &keep in keeps {
                let (mut spec, options) = source_of(within)?;
                if !keep {
                    keep_nothing(&mut spec);
                }
                // Each attempt has its own bad rows: another attempt may be able to use them.
                let rows = Arc::new(BadRows::new());
                let opened = source::open(&spec, &options, Arc::clone(&rows)).await;
                if opened.is_ok() || why.is_none() {
                    *bad = rows;
                }
                let (source, e) = match (opened, why.take()) {
                    (Ok(source), None) => return Ok(Opened::whole(source)),
                    (Ok(source), Some(e)) => (source, e),
                    (Err(e), None) if e.kind() != Kind::Input => return Err(e),
                    (Err(e), first) => {
                        why = Some(first.unwrap_or(e));
                        continue;
                    }
                };
                let mut done = Vec::new();
                if nth > 0 {
                    done.push("windows are cut over whole recordings, as by --within recordings");
                }
                if carries && !keep {
                    done.push("no columns are carried along");
                }
                control.emit(Event::Warning { message: format!("{e}: {}", done.join(", and ")) });
                return Ok(Opened::whole(source));
            }
        }
        let why = why.unwrap_or_else(|| Error::internal("no way to open the input was tried"));
        if let (SourceSpec::Parquet(spec), true, Kind::Input) = (&first, self.keys.is_empty(), why.kind()) {
            for keep in [spec.keep.clone(), Vec::new()] {
                let spec = ParquetSpec { keep, ..spec.clone() };
                if let Some((opened, rows)) = without_missing_keys(&spec, &options).await {
                    *bad = rows;
                    return Ok(opened);
                }
            }
        }
        Err(self.with_other_kind(input, &first, why))
    }

    /// The error `why` of reading the input as `spec`. If only its name suggested this kind, and the model was learned
    /// on recordings, the error mentions the flag that reads it as recordings.
    fn with_other_kind(&self, input: &ModelInput, spec: &SourceSpec, why: Error) -> Error {
        let trained_on: Result<Option<SourceSpec>> = from_json(&input.source, "source");
        let by_name = self.kind.is_none() && self.features.is_none() && matches!(spec, SourceSpec::Parquet(_));
        match (trained_on, why.kind()) {
            (Ok(Some(SourceSpec::Csv(_))), Kind::Input) if by_name => Error::input(format!(
                "{why}; it was read as feature vectors, as its name says: --kind csv reads recordings, like those that \
                 the model was learned on, from Parquet files as well"
            )),
            _ => why,
        }
    }

    /// The model's own source with another path, or Parquet files of feature vectors.
    fn source(
        &self,
        input: &ModelInput,
        threads: usize,
        within: Option<Within>,
    ) -> Result<(SourceSpec, SourceOptions)> {
        let trained_on: Option<SourceSpec> = from_json(&input.source, "source")?;
        let window: Option<WindowSpec> = from_json(&input.window, "window")?;
        let window = window.map(|w| WindowSpec { within: within.unwrap_or(w.within), ..w });
        let features: Option<FeatureSet> = from_json(&input.features, "features")?;
        let kind = self.kind.or_else(|| self.kind_by_name()).or(match &trained_on {
            Some(SourceSpec::Hapt(_)) => Some(InputKind::Hapt),
            Some(SourceSpec::Csv(_)) => Some(InputKind::Csv),
            Some(SourceSpec::Parquet(_)) | None => Some(InputKind::Parquet),
        });
        let path = self.input.clone();
        let spec = match (kind.unwrap_or(InputKind::Parquet), trained_on) {
            (InputKind::Hapt, _) => SourceSpec::Hapt(HaptSpec { path }),
            (InputKind::Csv, Some(SourceSpec::Csv(spec))) => {
                let label = spec.label.filter(|_| window.is_some_and(|w| w.within == Within::Labels));
                SourceSpec::Csv(source::CsvSpec { path, label, split: None, ..spec })
            }
            (InputKind::Csv, _) => {
                return Err(Error::config(
                    "--kind csv: the model was not trained on CSV recordings, so their channels are not known; \
                     label Parquet files of feature vectors, or recordings like those it was trained on",
                ));
            }
            (InputKind::Parquet, trained_on) => {
                let spec = self.parquet(path, trained_on, input.dim);
                if let Features::Column(column) = &spec.features
                    && self.keys.contains(column)
                {
                    return Err(Error::config(format!(
                        "--keys {column}: that is the column of feature vectors, which tells no rows apart"
                    )));
                }
                SourceSpec::Parquet(spec)
            }
        };
        let of_recordings = !matches!(spec, SourceSpec::Parquet(_));
        let options = SourceOptions {
            window: window.filter(|_| of_recordings),
            window_label: WindowLabel::default(),
            features: features.filter(|_| of_recordings),
            on_bad_row: self.on_bad_row,
            missing: false,
            threads,
        };
        Ok((spec, options))
    }

    fn kind_by_name(&self) -> Option<InputKind> {
        let name = self.input.trim_end_matches(".gz");
        match name {
            _ if name.ends_with(".parquet") => Some(InputKind::Parquet),
            _ if name.ends_with(".csv") => Some(InputKind::Csv),
            _ => None,
        }
    }

    fn parquet(&self, path: String, trained_on: Option<SourceSpec>, dim: usize) -> ParquetSpec {
        let (trained_features, keys, keep) = match trained_on {
            Some(SourceSpec::Parquet(spec)) => (Some(spec.features), spec.keys, spec.keep),
            _ => (None, vec![], vec![]),
        };
        let features = match &self.features {
            Some(column) => Features::Column(column.clone()),
            None => trained_features.unwrap_or_else(|| Features::Column(FEATURES.into())),
        };
        let keys = if self.keys.is_empty() { keys } else { self.keys.clone() };
        // Under quarantine, rows that the model does not accept are set aside, however many they are.
        let judged = matches!(features, Features::Column(_)) && self.on_bad_row == OnBadRow::Quarantine;
        let dim = judged.then_some(dim);
        ParquetSpec { path, features, dim, label: None, keys, split: None, keep }
    }
}

/// Whether columns of the source are carried along.
fn carries_along(spec: &SourceSpec) -> bool {
    match spec {
        SourceSpec::Hapt(_) => false,
        SourceSpec::Csv(spec) => !spec.keep.is_empty(),
        SourceSpec::Parquet(spec) => !spec.keep.is_empty(),
    }
}

fn keep_nothing(spec: &mut SourceSpec) {
    match spec {
        SourceSpec::Hapt(_) => {}
        SourceSpec::Csv(spec) => spec.keep.clear(),
        SourceSpec::Parquet(spec) => spec.keep.clear(),
    }
}

/// The input, and the key columns of the model's pipeline that it lacks.
struct Opened {
    source: Source,
    missing_keys: Vec<String>,
}

impl Opened {
    fn whole(source: Source) -> Self {
        Self { source, missing_keys: Vec::new() }
    }
}

/// The vectors of `spec` without the key columns that they lack, and the bad rows so far; `None` if missing keys are
/// not the problem.
async fn without_missing_keys(spec: &ParquetSpec, options: &SourceOptions) -> Option<(Opened, Arc<BadRows>)> {
    let open = |keys: Vec<String>| {
        let spec = SourceSpec::Parquet(ParquetSpec { keys, ..spec.clone() });
        async move {
            let bad = Arc::new(BadRows::new());
            Some((source::open(&spec, options, Arc::clone(&bad)).await.ok()?, bad))
        }
    };
    let (mut there, mut missing_keys) = (Vec::new(), Vec::new());
    open(Vec::new()).await?;
    for key in &spec.keys {
        match open(vec![key.clone()]).await {
            Some(_) => there.push(key.clone()),
            None => missing_keys.push(key.clone()),
        }
    }
    let (source, bad) = open(there).await?;
    (!missing_keys.is_empty()).then_some((Opened { source, missing_keys }, bad))
}

/// The columns that identify a row of a source.
fn row_keys(source: &Source) -> Vec<String> {
    let start = source.provider.schema().column_with_name("start").map(|_| "start".to_string());
    source.keys.iter().cloned().chain(start).collect()
}

fn from_json<T: serde::de::DeserializeOwned>(value: &serde_json::Value, what: &str) -> Result<Option<T>> {
    match value {
        serde_json::Value::Null => Ok(None),
        value => T::deserialize(value)
            .map(Some)
            .map_err(|e| Error::model(format!("the model's manifest: {what}")).with_source(e)),
    }
}
