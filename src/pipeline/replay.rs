//! Runs again what was set aside, after a fix: rows that can be used now are appended, and marked in the quarantine by the
//! same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};

use super::Pipeline;
use super::clock::Clock;
use super::execution::clusters;
use super::label_pass::{LabelPass, Passed};
use super::output::{choice, kept, source_info};
use super::portrait::Kept;
use super::scan::{select, session};
use super::written::{Choice, Written};
use crate::config::SplitSpec;
use crate::device;
use crate::error::{Error, Result};
use crate::event::Control;
use crate::model::Model;
use crate::registry::Registry;
use crate::signal::window::WindowLabel;
use crate::source::{
    self, Again, BadRow, BadRows, OnBadRow, Raw, Source, SourceOptions, SourceSpec, Then, changed, open_again,
};
use crate::stage::{Clusters, EMBEDDING, FEATURES, RECONSTRUCTION_ERROR};
use crate::store::Location;
use crate::table::{
    CommitInfo, Labels, Lineage, Log, Marks, Mode, OnExisting, Quarantine, REPLAYED, Snapshot, TableWriter,
    WriteOptions, quarantine_schema,
};
use crate::vectors::VectorForm;

/// The memory limit of DataFusion's operators, where no pipeline says it.
const MEMORY_LIMIT: u64 = 256 << 20;

/// What to run again, and how.
#[derive(Debug, Clone, Default)]
pub struct ReplayOptions {
    /// A condition in SQL over the columns of the quarantine; without it, everything that was set aside by runs whose rows
    /// the table has, and not yet replayed.
    pub only: Option<String>,
    /// Commit nothing; say what would be done.
    pub dry_run: bool,
    /// Compute threads, where no pipeline says it.
    pub threads: Option<usize>,
    /// Where events go, and where the request to end comes from.
    pub control: Control,
}

/// What was run again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// Entries of the quarantine that were open, and meant.
    pub entries: u64,
    /// Entries that can be used now.
    pub replayed: u64,
    /// Rows that were labelled and appended. One line of a recording may make several windows, or none.
    pub rows: u64,
    /// Entries that are still refused, by the kind of the reason.
    pub refused: BTreeMap<String, Refused>,
    /// Rows of entries that are mended as a whole, as a file is, and that are set aside by themselves now.
    pub set_aside: u64,
    /// Entries whose rows cannot be read again, by the reason.
    pub not_replayable: BTreeMap<String, u64>,
    /// The content hash of the model.
    pub model: String,
    /// The table's directory.
    pub table: String,
    /// The version that was made; `None` if none was.
    pub table_version: Option<u64>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Entries that are still refused for reasons of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// How many.
    pub entries: u64,
    /// The first: its place, and what is wrong with it now.
    pub first: String,
}

/// A row of the quarantine.
#[derive(Debug, Clone)]
struct Entry {
    run: String,
    file: String,
    line: u64,
    rows: Option<u64>,
    then: Then,
}

/// How the source is read, and what is written of it.
struct Plan {
    spec: SourceSpec,
    options: SourceOptions,
    split: SplitSpec,
    choice: Choice,
    memory_limit: u64,
    /// The columns that a pipeline keeps, if one says it.
    keep: Option<Vec<String>>,
}

impl Pipeline {
    /// Runs what was set aside in the pipeline's table again, as the pipeline reads its source now, with the table's model.
    ///
    /// A line of a recording makes windows only together with its neighbours, so the files of such lines are read as a
    /// whole, and the windows that the table does not have are appended; those that it has stay as they are. Of feature
    /// vectors, the rows that were set aside are read.
    ///
    /// # Errors
    /// As documented for [`Kind`](crate::Kind): `Table` if there is no table, or another process replays at the same time;
    /// `Config` for a pipeline that cannot replay. Whatever fails, the table stays as it was.
    pub async fn replay(&self, options: &ReplayOptions) -> Result<ReplayReport> {
        let plan = &self.plan;
        if plan.stream.decay().is_some() {
            return Err(Error::config(
                "[stream] moves the centroids, so what a row would have got when it was set aside is not known, and it cannot \
                 be replayed; expected a stream without decay",
            ));
        }
        let sink = Location::parse(&plan.sink.path)?;
        let device = plan.device.open_as(device::threads(plan.threads)?, plan.fused)?;
        let threads = device.pool().threads();
        let (table, model) = table_and_model(&sink, &self.registry.clone().on(device)).await?;
        self.check_model(&model.manifest().input).map_err(|e| e.while_doing(format!("the model of {sink}")))?;
        let source_options = SourceOptions {
            window: plan.window,
            window_label: plan.window_label,
            features: plan.features.clone(),
            on_bad_row: OnBadRow::Quarantine,
            missing: model.imputes(),
            threads,
        };
        let read = Plan {
            spec: self.stream_source(&model.manifest().input)?,
            options: source_options,
            split: plan.split.clone(),
            choice: choice(plan),
            memory_limit: plan.memory_limit,
            keep: None,
        };
        Replaying { sink, table, model, read, plan: Some(plan) }.run(options).await
    }
}

/// Runs what was set aside in the table at `table` again, with its model, as the model's pipeline read its source: after a
/// fix of this program.
///
/// # Errors
/// As of [`Pipeline::replay`].
pub async fn replay_table(table: &str, options: &ReplayOptions) -> Result<ReplayReport> {
    let sink = Location::parse(table)?;
    let threads = device::threads(options.threads)?;
    let device = device::DeviceChoice::Cpu.open(threads)?;
    let (table, model) = table_and_model(&sink, &Registry::default().on(device)).await?;
    let input = &model.manifest().input;
    let json = |what: &str| {
        let what = what.to_owned();
        move |e| Error::model(format!("the model's manifest: {what}")).with_source(e)
    };
    let mut spec: SourceSpec = Deserialize::deserialize(&input.source).map_err(json("source"))?;
    let path = table.note.as_ref().map(|note| note.source.path.clone()).unwrap_or_default();
    if path.is_empty() {
        return Err(Error::table(format!(
            "{sink} does not say where its rows came from, as one of an older dacpipe; expected the pipeline's file"
        )));
    }
    let label = match &mut spec {
        SourceSpec::Hapt(spec) => {
            spec.path = path;
            None
        }
        SourceSpec::Csv(spec) => {
            spec.path = path;
            spec.label.clone()
        }
        SourceSpec::Parquet(spec) => {
            spec.path = path;
            spec.dim = spec.dim.or(matches!(spec.features, source::Features::Column(_)).then_some(input.dim));
            spec.label.clone()
        }
    };
    let has = |name: &str| table.schema.column_with_name(name).is_some();
    let by_mode = label.is_some_and(|label| has(&format!("{label}_share")));
    let source_options = SourceOptions {
        window: Deserialize::deserialize(&input.window).map_err(json("window"))?,
        window_label: if by_mode { WindowLabel::Mode } else { WindowLabel::default() },
        features: Deserialize::deserialize(&input.features).map_err(json("features"))?,
        on_bad_row: OnBadRow::Quarantine,
        missing: model.imputes(),
        threads,
    };
    let as_columns =
        Written::by(&model, Choice { vectors: Some(VectorForm::Columns), ..Choice::default() }, Vec::new());
    let vectors = match as_columns.made().iter().all(|field| has(field.name())) {
        true => Some(VectorForm::Columns),
        false => (has(FEATURES) && !model.embeds()).then_some(VectorForm::List),
    };
    let choice = Choice { vectors, embedding: has(EMBEDDING), reconstruction_error: has(RECONSTRUCTION_ERROR) };
    let columns = table.schema.fields().iter().map(|field| field.name().clone()).collect();
    let read = Plan {
        spec,
        options: source_options,
        split: SplitSpec::default(),
        choice,
        memory_limit: MEMORY_LIMIT,
        keep: Some(columns),
    };
    Replaying { sink, table, model, read, plan: None }.run(options).await
}

/// The newest version of a table, and the model of its rows.
async fn table_and_model(sink: &Location, registry: &Registry) -> Result<(Snapshot, Model)> {
    let table = Log::new(sink.clone()).snapshot(None).await?;
    let table = table.ok_or_else(|| Error::table(format!("{} holds no table", sink.looked_at())))?;
    let hash = table.model().unwrap_or_default();
    if hash.is_empty() {
        return Err(Error::table(format!("{sink} does not say by which model its rows were labelled")));
    }
    let place = sink.join(&format!("models/{}", hash.get(..16).unwrap_or(hash)))?;
    let model = Model::load_with(&place, registry).await?;
    Ok((table, model))
}

struct Replaying<'a> {
    sink: Location,
    table: Snapshot,
    model: Model,
    read: Plan,
    plan: Option<&'a crate::config::Plan>,
}

impl Replaying<'_> {
    async fn run(self, options: &ReplayOptions) -> Result<ReplayReport> {
        let clock = Clock::start()?;
        let mut report = ReplayReport {
            model: self.model.hash().as_str().into(),
            table: self.sink.to_string(),
            ..ReplayReport::default()
        };
        let run_id = clock.run_id(self.model.hash().as_str());
        let write = WriteOptions::new(Mode::Append, &run_id)
            .partition_by(&self.table.partition_by)
            .keys(&self.table.keys)
            .on_existing(OnExisting::Skip);
        // What the quarantine says is read behind the beginning: another replay from then on is met at the commit.
        let mut writer = TableWriter::begin(&self.sink, write).await?;
        let (entries, known) = open_entries(&self.sink, writer.base(), options.only.as_deref()).await?;
        report.entries = entries.len() as u64;
        let entries = self.readable(entries, &mut report).await?;
        if entries.is_empty() {
            writer.abort().await;
            report.seconds = clock.began.elapsed().as_secs_f64();
            return Ok(report);
        }
        let mut again = Again::default();
        for entry in &entries {
            again.add(&entry.file, entry.line, entry.rows);
        }
        let bad = Arc::new(BadRows::new());
        let Plan { spec, options: source_options, split, .. } = &self.read;
        let source = match open_again(spec, source_options, Arc::clone(&bad), &again).await {
            Ok(source) => source,
            // All files are still refused.
            Err(e) if e.kind() == crate::Kind::Input && !bad.is_empty() => {
                sort(&entries, &bad, &known, &mut report);
                writer.abort().await;
                report.seconds = clock.began.elapsed().as_secs_f64();
                return Ok(report);
            }
            Err(e) => return Err(e),
        };
        self.model.check_width(source.dim)?;
        let existing = writer.existing_of_all().await?;
        if existing.is_none() && !matches!(spec, SourceSpec::Parquet(_)) {
            return Err(Error::table(format!(
                "{} has no keys that tell its rows apart, so windows that it does not have cannot be told from those that it \
                 has; expected keys in [sink]",
                self.sink
            )));
        }
        let keep = self.keep(&source);
        let ctx = session(self.read.memory_limit, source.dim)?;
        let columns: Vec<&str> = std::iter::once(FEATURES).chain(keep.iter().map(String::as_str)).collect();
        let mut rows = select(&ctx, &source, &columns, split.part(&split.label)?)?;
        if let Some(existing) = &existing {
            rows = rows.filter(existing.is_new())?;
        }
        if options.dry_run {
            report.rows = rows.count().await? as u64;
            sort(&entries, &bad, &known, &mut report);
            writer.abort().await;
            report.seconds = clock.began.elapsed().as_secs_f64();
            return Ok(report);
        }
        let written = Written::by(&self.model, self.read.choice, keep);
        let labels = Labels { model: self.model.hash().as_str().into(), labelled_at: clock.labelled_at };
        let found = self.model.clusters();
        let pass = LabelPass {
            ids: found.map(Clusters::ids).unwrap_or_default(),
            threads: source_options.threads,
            control: options.control.clone(),
            ..LabelPass::of(&source, rows, written.stages(&self.model)?, written.columns())
        };
        let Passed { tally, kept: Kept { profile, sample }, .. } = pass.run(&ctx, &mut writer, labels).await?;
        report.rows = tally.rows();
        let (mended, new) = sort(&entries, &bad, &known, &mut report);
        if mended.is_empty() {
            writer.abort().await;
            report.rows = 0;
            report.seconds = clock.began.elapsed().as_secs_f64();
            return Ok(report);
        }
        let clusters = found.map(|found| clusters(&tally, &self.model, found)).transpose()?;
        let info = CommitInfo {
            source: source_info(&source, spec.path(), &tally),
            clusters,
            profile,
            sample,
            replayed: mended,
            quarantine: if new.is_empty() { None } else { Some(BadRows::batch_of(&new)?) },
            lineage: Lineage::Keep,
            skipped_rows: existing.map_or(0, |existing| existing.skipped()),
            ..CommitInfo::default()
        };
        let committed = writer.commit(info).await?;
        report.table_version = Some(committed.version);
        report.seconds = clock.began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// The columns of the source that are written.
    fn keep(&self, source: &Source) -> Vec<String> {
        if let Some(plan) = self.plan {
            return kept(plan, source);
        }
        let there = self.read.keep.iter().flatten();
        let schema = source.provider.schema();
        there.filter(|name| *name != FEATURES && schema.column_with_name(name).is_some()).cloned().collect()
    }

    /// The entries whose files can be read again; counts the others.
    async fn readable(&self, entries: Vec<Entry>, report: &mut ReplayReport) -> Result<Vec<Entry>> {
        let mut by_file: BTreeMap<String, Vec<Then>> = BTreeMap::new();
        for entry in &entries {
            by_file.entry(entry.file.clone()).or_default().push(entry.then.clone());
        }
        let changed = changed(&self.read.spec, &by_file).await?;
        let (gone, there): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| changed.contains_key(&entry.file));
        for entry in gone {
            let why = changed.get(&entry.file).map(|why| format!("its file {why}")).unwrap_or_default();
            *report.not_replayable.entry(why).or_default() += 1;
        }
        Ok(there)
    }
}

/// Which entries are mended, and which rows of these are bad by themselves, other than those that are `known`; counts both,
/// and entries that are still refused.
fn sort(
    entries: &[Entry],
    bad: &BadRows,
    known: &BTreeSet<(String, u64)>,
    report: &mut ReplayReport,
) -> (Marks, Vec<BadRow>) {
    let mut refused: BTreeMap<String, Vec<(u64, u64, BadRow)>> = BTreeMap::new();
    for bad in bad.rows() {
        // A file as a whole is refused with all that is in it.
        let last = match (bad.line, bad.rows) {
            (0, _) => u64::MAX,
            (line, rows) => line + rows.unwrap_or(1).saturating_sub(1),
        };
        refused.entry(bad.file.clone()).or_default().push((bad.line, last, bad));
    }
    let (mut marks, mut new) = (Marks::default(), BTreeMap::new());
    for entry in entries {
        // What is refused as a whole comes first.
        let of_file = refused.get(&entry.file).map(Vec::as_slice).unwrap_or_default();
        let before = of_file.partition_point(|(first, _, _)| *first <= entry.line);
        let near = of_file[..before].last().into_iter().chain(of_file.first());
        match near.into_iter().find(|(first, last, _)| (*first..=*last).contains(&entry.line)) {
            Some((_, _, bad)) => {
                let refused = report.refused.entry(bad.fault.name().to_owned()).or_default();
                if refused.entries == 0 {
                    refused.first = format!("{}:{}: {}", entry.file, entry.line, bad.reason);
                }
                refused.entries += 1;
            }
            None => {
                marks.add(&entry.run, &entry.file, i64::try_from(entry.line).unwrap_or(i64::MAX));
                report.replayed += 1;
                let last = match (entry.line, entry.rows) {
                    (0, _) | (_, None) => u64::MAX,
                    (line, Some(rows)) => line + rows.saturating_sub(1),
                };
                let within = of_file.iter().filter(|(first, _, _)| (entry.line..=last).contains(first));
                let within = within.filter(|(first, _, _)| !known.contains(&(entry.file.clone(), *first)));
                new.extend(within.map(|(first, _, bad)| ((entry.file.clone(), *first), bad.clone())));
            }
        }
    }
    report.set_aside = new.values().map(|bad| bad.rows.unwrap_or(1)).sum();
    (marks, new.into_values().collect())
}

/// What was set aside by runs whose rows the table has, and not yet replayed; and the file and the line of all that the
/// quarantine has.
async fn open_entries(
    sink: &Location,
    table: Option<&Snapshot>,
    only: Option<&str>,
) -> Result<(Vec<Entry>, BTreeSet<(String, u64)>)> {
    let quarantine = Quarantine::open(sink, table).await?;
    let all = concat_batches(&quarantine_schema(), &quarantine.rows().await?)?;
    let places = |entry: Entry| (entry.file, entry.line);
    let known = entries_of(&all, |_| true)?.into_iter().map(places).collect();
    let all = match only {
        None => all,
        Some(condition) => {
            let ctx = SessionContext::new_with_config(crate::sql::session_config());
            let rows = ctx.read_batch(all)?;
            let wrong = |e| Error::config(format!("--where {condition:?}: {e}"));
            let condition = ctx.parse_sql_expr(condition, rows.schema()).map_err(wrong)?;
            concat_batches(&quarantine_schema(), &rows.filter(condition).map_err(wrong)?.collect().await?)?
        }
    };
    let replayed = all.column_by_name(REPLAYED).map(|column| column.as_string::<i32>().clone());
    let replayed = replayed.ok_or_else(|| Error::internal("a quarantine without marks"))?;
    let runs = quarantine.runs_in_table();
    let entries = entries_of(&all, |i| replayed.is_null(i) || !quarantine.has_replay(replayed.value(i)))?;
    Ok((entries.into_iter().filter(|entry| runs.contains(&entry.run)).collect(), known))
}

/// The rows of the quarantine for which `wanted` is true.
fn entries_of(all: &RecordBatch, wanted: impl Fn(usize) -> bool) -> Result<Vec<Entry>> {
    let column = |name: &str| {
        all.column_by_name(name).ok_or_else(|| Error::internal(format!("the quarantine has no column {name}")))
    };
    let text = |name: &str| Ok::<_, Error>(column(name)?.as_string::<i32>());
    let number = |name: &str| Ok::<_, Error>(column(name)?.as_primitive::<Int64Type>());
    let (runs, files, texts) = (text("run")?, text("file")?, text("text")?);
    let (lines, rows) = (number("line")?, number("rows")?);
    let (offsets, lengths) = (number("offset")?, number("length")?);
    let at = column("set_aside_at")?.as_primitive::<TimestampMicrosecondType>();
    let positive = |column: &arrow::array::Int64Array, i: usize| {
        column.is_valid(i).then(|| u64::try_from(column.value(i)).unwrap_or_default())
    };
    let entry = |i: usize| Entry {
        run: runs.value(i).to_owned(),
        file: files.value(i).to_owned(),
        line: positive(lines, i).unwrap_or_default(),
        rows: positive(rows, i),
        then: Then {
            at: u64::try_from(at.value(i)).ok().map(|at| UNIX_EPOCH + Duration::from_micros(at)),
            raw: Raw {
                offset: positive(offsets, i),
                text: if texts.is_valid(i) { texts.value(i).to_owned() } else { String::new() },
                length: positive(lengths, i),
            },
        },
    };
    Ok((0..all.num_rows()).filter(|i| wanted(*i)).map(entry).collect())
}
