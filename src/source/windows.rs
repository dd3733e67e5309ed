//! The windows of recordings as a table for DataFusion.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::bad::Rejects;
use super::filter::{Condition, pushdown};
use super::keep::share_field;
use super::recording::{Load, Modes, Recording, Recordings, Wanted, check_finite, longest_stretch, windows};
use super::samples::{Counts, Samples, account};
use crate::column::{double_array, double_field, vector_array, vector_field};
use crate::error::{Error, Result};
use crate::signal::features::{FeatureExtractor, Prepared, Scratch};
use crate::signal::window::{WindowLabel, WindowSpec, Within};
use crate::stage::FEATURES;

/// The column with the start of a window: its first sample, counted from 0 in its recording.
pub const START: &str = "start";

/// Most bytes of features in a batch.
const BATCH_BYTES: usize = 4 << 20;

/// Recordings that are read ahead, beyond one per thread.
const AHEAD: usize = 2;

/// The number of rows in a batch of vectors of `dim` values, at most `most`.
pub fn batch_rows(dim: usize, most: usize) -> usize {
    (BATCH_BYTES / (4 * dim.max(1))).min(most).max(1)
}

/// The windows of recordings. Columns: the recordings' constants; the label (nullable), and its share if it is the most
/// frequent one; `start`; `start_time` and `end_time` where samples have times; the columns that are carried along; and
/// `features`, in double precision if they are the samples themselves.
///
/// There is one partition. Rows come in the order of the recordings and of their windows, whatever the number of
/// threads. Filters on the constants skip whole recordings unread; `features` are computed only if a scan asks for
/// them; a limit stops the reading. Memory holds about one recording per thread, and a few batches.
#[derive(Debug, Clone)]
pub struct WindowTable {
    recordings: Arc<dyn Recordings>,
    window: WindowSpec,
    label: WindowLabel,
    extractor: Arc<FeatureExtractor>,
    schema: SchemaRef,
    /// What each column of the schema contains.
    makes: Arc<[Makes]>,
    threads: usize,
    rejects: Rejects,
    /// One more than the number of samples of the longest stretch that was read; 0 before the first recording.
    longest: Arc<AtomicUsize>,
    /// What became of the samples of the last scan that ran to its end.
    samples: Arc<Mutex<Option<Samples>>>,
}

impl WindowTable {
    /// Samples per second of the recordings.
    pub fn rate_hz(&self) -> f64 {
        self.recordings.rate_hz()
    }

    /// The files that have something after their compressed data, which is not read.
    pub(super) fn left_alone(&self) -> Vec<String> {
        self.recordings.left_alone()
    }

    /// The windows of `recordings` that `window` cuts, labelled as `label` says, with the features that `extractor`
    /// computes, for up to `threads` recordings at a time.
    pub fn new(
        recordings: Arc<dyn Recordings>,
        window: WindowSpec,
        label: WindowLabel,
        extractor: Arc<FeatureExtractor>,
        threads: usize,
        rejects: Rejects,
    ) -> Self {
        let constants = recordings.constants().fields().iter().enumerate();
        let mut columns: Vec<(Field, Makes)> =
            constants.map(|(at, field)| (field.as_ref().clone(), Makes::Constant(at))).collect();
        if let Some(name) = recordings.label() {
            columns.push((Field::new(name, DataType::Utf8, true), Makes::Label));
            columns.extend((label == WindowLabel::Mode).then(|| (share_field(name), Makes::LabelShare)));
        }
        columns.push((Field::new(START, DataType::Int64, false), Makes::Start));
        if let Some(times) = recordings.times() {
            let [start, end] = times.fields();
            columns.extend([(start, Makes::StartTime), (end, Makes::EndTime)]);
        }
        for (at, keep) in recordings.kept().iter().enumerate() {
            let fields = keep.fields().into_iter().enumerate();
            columns.extend(fields.map(|(part, field)| (field, Makes::Kept { at, part })));
        }
        let features = match extractor.is_samples() {
            true => double_field(FEATURES, extractor.dim()),
            false => vector_field(FEATURES, extractor.dim()),
        };
        columns.push((features, Makes::Features));
        let (fields, makes): (Vec<Field>, Vec<Makes>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        let threads = threads.max(1);
        let (longest, samples) = (Arc::default(), Arc::default());
        let makes = makes.into();
        Self { recordings, window, label, extractor, schema, makes, threads, rejects, longest, samples }
    }

    /// The columns for the table that do not identify a row: the label's share, times, and the columns that are carried
    /// along.
    pub fn carried(&self) -> Vec<String> {
        let columns = self.schema.fields().iter().zip(self.makes.iter());
        let carried = columns.filter(|(_, makes)| match makes {
            Makes::LabelShare | Makes::StartTime | Makes::EndTime | Makes::Kept { .. } => true,
            Makes::Constant(_) | Makes::Label | Makes::Start | Makes::Features => false,
        });
        carried.map(|(field, _)| field.name().clone()).collect()
    }

    /// What became of the samples of the last scan that ran to its end; `None` before the first one.
    pub fn samples(&self) -> Option<Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a scan gave no row, if that is because windows are longer than every stretch that it read.
    pub fn too_short(&self) -> Option<String> {
        let length = self.window.length;
        let longest = self.longest.load(Ordering::Relaxed).checked_sub(1).filter(|&longest| longest < length)?;
        let stretch = match self.window.within {
            Within::Labels => "labelled interval",
            Within::Recordings => "stretch of a recording without a gap",
        };
        Some(match longest {
            0 => format!("no window of {length} samples fits: there is no {stretch}"),
            _ => format!("no window of {length} samples fits: the longest {stretch} has {longest}"),
        })
    }
}

#[async_trait]
impl TableProvider for WindowTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(pushdown(filters, self.recordings.constants()))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let constants = self.recordings.constants();
        let wanted = match Condition::new(state, filters, constants)? {
            None => Wanted::default(),
            Some(condition) => Wanted::by(constants.clone(), condition),
        };
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = Scan { table: self.clone(), columns, schema: schema.clone(), wanted, limit };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, None, false, limit)?))
    }
}

/// What a column of a [`WindowTable`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Makes {
    /// A constant of the recording, by its index.
    Constant(usize),
    Label,
    LabelShare,
    Start,
    StartTime,
    EndTime,
    /// A column of one that is carried along: the index of that one, and the index among the columns made of it.
    Kept {
        at: usize,
        part: usize,
    },
    Features,
}

/// One scan of a [`WindowTable`].
#[derive(Debug)]
struct Scan {
    table: WindowTable,
    columns: Vec<usize>,
    schema: SchemaRef,
    wanted: Wanted,
    limit: Option<usize>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = &self.table;
        let wants_features = self.columns.contains(&(table.schema.fields().len() - 1));
        let job = Arc::new(Job {
            table: table.clone(),
            columns: self.columns.clone(),
            schema: self.schema.clone(),
            batch_rows: batch_rows(table.extractor.dim(), context.session_config().batch_size()),
            extracts: wants_features || table.rejects.leaves_out(),
            rooms: Mutex::default(),
            counts: Counts::default(),
        });
        // A scan with a limit will stop early and should not read ahead. Otherwise a recording that is done early waits
        // for the one before it, while its thread goes on with the next.
        let ahead = if self.limit.is_some() { 1 } else { table.threads + AHEAD };
        let wanted = self.wanted.clone();
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let out = builder.tx();
        builder.spawn(read_in_order(job, wanted, ahead, self.limit.unwrap_or(usize::MAX), out));
        builder.build()
    }
}

/// Reads up to `ahead` recordings at a time and sends their batches in the order of the recordings, until there are
/// `limit` rows.
async fn read_in_order(
    job: Arc<Job>,
    wanted: Wanted,
    ahead: usize,
    limit: usize,
    out: mpsc::Sender<DfResult<RecordBatch>>,
) -> DfResult<()> {
    let (loads_in, mut loads) = mpsc::channel::<Result<Load>>(1);
    let (recordings, counts) = (job.table.recordings.clone(), job.counts.clone());
    let lister = SpawnedTask::spawn_blocking(move || {
        for load in recordings.open(wanted, counts) {
            if loads_in.blocking_send(load).is_err() {
                break;
            }
        }
    });
    let threads = Arc::new(Semaphore::new(job.table.threads));
    let mut running: VecDeque<SendableRecordBatchStream> = VecDeque::new();
    let (mut more, mut left) = (true, limit);
    while more || !running.is_empty() {
        // Recordings start in order, once a thread is free. So the first one, whose batches are being taken, never
        // waits for a later one, whose batches are not yet.
        let next = async {
            let thread = Arc::clone(&threads).acquire_owned().await;
            (thread, loads.recv().await)
        };
        tokio::select! {
            (thread, load) = next, if more && running.len() < ahead => match load {
                Some(load) => {
                    let thread = thread.map_err(|e| DataFusionError::External(Box::new(e)))?;
                    running.push_back(job.clone().start(load, thread));
                }
                None => more = false,
            },
            batch = async { running.front_mut()?.next().await }, if !running.is_empty() => match batch {
                None => drop(running.pop_front()),
                Some(batch) => {
                    left = left.saturating_sub(batch.as_ref().map_or(0, RecordBatch::num_rows));
                    if out.send(batch).await.is_err() || left == 0 {
                        return Ok(());
                    }
                }
            },
        }
    }
    lister.join_unwind().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
    *job.table.samples.lock().unwrap_or_else(PoisonError::into_inner) = Some(job.counts.get());
    Ok(())
}

/// Makes batches of recordings for a scan.
#[derive(Debug)]
struct Job {
    /// Buffers of recordings that are done, for reuse.
    rooms: Mutex<Vec<Room>>,
    counts: Counts,
    table: WindowTable,
    columns: Vec<usize>,
    schema: SchemaRef,
    batch_rows: usize,
    extracts: bool,
}

impl Job {
    /// Starts to read `load` on a blocking task, which holds a thread's permit until it is done; its batches wait in a
    /// bounded channel.
    fn start(self: Arc<Self>, load: Result<Load>, thread: OwnedSemaphorePermit) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 1);
        let out = builder.tx();
        builder.spawn_blocking(move || {
            let _thread = thread;
            let mut send = |batch| out.blocking_send(Ok(batch)).is_ok();
            let done = load.and_then(|load| self.run(&load()?, &mut send));
            // The error goes through the channel and is not the task's result, so that it does not overtake the rows
            // before it.
            if let Err(e) = done {
                out.blocking_send(Err(e.into())).ok();
            }
            Ok(())
        });
        builder.build()
    }

    /// Makes batches of the windows of `recordings`, until `send` returns false.
    fn run(&self, recordings: &[Recording], send: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        let table = &self.table;
        let (names, dim) = (table.extractor.names(), table.extractor.dim());
        let mut rows = Rows::default();
        let room = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut room =
            room.unwrap_or_else(|| Room { scratch: table.extractor.scratch(), prepared: Prepared::default() });
        for (index, recording) in recordings.iter().enumerate() {
            table.longest.fetch_max(1 + longest_stretch(&table.window, recording), Ordering::Relaxed);
            let windows = windows(&table.window, recording);
            let (mut kept, mut dropped) = (Vec::with_capacity(windows.len()), Vec::new());
            let open = recording.part.open.as_ref();
            let extracts = self.extracts && (!windows.is_empty() || open.is_some());
            let mut memory = recording.part.left.memory.clone();
            if extracts {
                let next = open.map_or(0, |open| open.settled.from);
                table.extractor.prepare_from(&recording.channels, &mut memory, next, &mut room.prepared)?;
                rows.features.reserve(dim * windows.len().min(self.batch_rows));
            }
            let mut modes = (table.label == WindowLabel::Mode).then(|| Modes::new(&recording.intervals));
            for window in windows {
                if extracts {
                    let at = rows.features.len();
                    rows.features.resize(at + dim, 0.0);
                    let row = &mut rows.features[at..];
                    table.extractor.extract(&mut room.scratch, &room.prepared, window.start, row)?;
                    let (file, line) = recording.places.of(window.start);
                    if !check_finite(row, names, file, line, &table.rejects)? {
                        rows.features.truncate(at);
                        dropped.push(window.start);
                        continue;
                    }
                }
                if extracts {
                    rows.samples.extend(table.extractor.samples(&room.prepared, window.start));
                }
                kept.push(window.start);
                let end = window.start + table.window.length;
                let (label, share) = match modes.as_mut().map(|modes| modes.of(window.start, end)) {
                    None => (window.label, None),
                    Some(mode) => mode.map(|mode| (mode.value, mode.share)).unzip(),
                };
                rows.recording.push(index as u32);
                rows.first.push(window.start);
                rows.label.push(label);
                rows.share.push(share);
                if rows.recording.len() == self.batch_rows && !send(self.batch(recordings, std::mem::take(&mut rows))?)
                {
                    return Ok(());
                }
            }
            let samples = account(&table.window, recording, &kept, &dropped);
            self.counts.count(|counts| counts.add(&samples));
            if let Some(open) = open {
                open.leave(&recording.part.left, table.window.length, &kept, &dropped, memory);
            }
        }
        // The buffers are given back before the last batch is sent, which may wait.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        if !rows.recording.is_empty() {
            send(self.batch(recordings, rows)?);
        }
        Ok(())
    }

    fn batch(&self, recordings: &[Recording], rows: Rows) -> Result<RecordBatch> {
        let (table, count) = (&self.table, rows.recording.len());
        let length = table.window.length;
        let of_recording = UInt32Array::from(rows.recording);
        let windows = || of_recording.values().iter().map(|&r| &recordings[r as usize]).zip(rows.first.iter().copied());
        let times = |after: usize| -> Result<ArrayRef> {
            let time = |(recording, first): (&Recording, usize)| recording.times.get(first + after).copied();
            let times: Option<Vec<i64>> = windows().map(time).collect();
            match (table.recordings.times(), times) {
                (Some(kind), Some(times)) => Ok(kind.array(times.into_iter())),
                _ => Err(Error::internal("a recording without the times of its samples")),
            }
        };
        let kept = |at: usize| {
            let keep = &table.recordings.kept()[at];
            keep.arrays(windows().map(|(recording, first)| (&recording.kept[at], first..first + length)))
        };
        let (mut features, mut samples) = (Some(rows.features), Some(rows.samples));
        let columns = self.columns.iter().map(|&column| -> Result<ArrayRef> {
            Ok(match table.makes[column] {
                Makes::Constant(at) => {
                    let values = recordings.iter().map(|r| r.constants[at].clone());
                    arrow::compute::take(&ScalarValue::iter_to_array(values)?, &of_recording, None)?
                }
                Makes::Label => Arc::new(rows.label.iter().map(Option::as_deref).collect::<StringArray>()),
                Makes::LabelShare => Arc::new(Float64Array::from(rows.share.clone())),
                Makes::Start => {
                    let start = |(recording, first): (&Recording, usize)| (recording.offset + first) as i64;
                    Arc::new(windows().map(start).collect::<Int64Array>())
                }
                Makes::StartTime => times(0)?,
                Makes::EndTime => times(length - 1)?,
                Makes::Kept { at, part } => kept(at).swap_remove(part),
                Makes::Features if table.extractor.is_samples() => {
                    double_array(samples.take().unwrap_or_default(), table.extractor.dim())?
                }
                Makes::Features => vector_array(features.take().unwrap_or_default(), table.extractor.dim())?,
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Buffers for computing the features of a recording, kept for the next one.
#[derive(Debug)]
struct Room {
    scratch: Scratch,
    prepared: Prepared,
}

/// The rows of the batch being made.
#[derive(Debug, Default)]
struct Rows {
    recording: Vec<u32>,
    /// The first sample of each window, counted from the first sample in memory.
    first: Vec<usize>,
    label: Vec<Option<Arc<str>>>,
    /// The share of the samples that have the label, where it is asked for.
    share: Vec<Option<f64>>,
    features: Vec<f32>,
    /// The features in double precision, where they are the samples themselves.
    samples: Vec<f64>,
}
