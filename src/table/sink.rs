//! Where labelled rows become Parquet files.
//!
//! Rows are cut into blocks of a fixed number before they are encoded, so the files do not depend on how the rows were
//! cut into batches: the same rows in the same order give the same bytes, apart from the run id in the paths and the
//! column `labelled_at`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;
use object_store::buffered::BufWriter;
use object_store::path::PathPart;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tokio::sync::Mutex;

use super::attempt::data_dir;
use super::log::DataFile;
use super::{schema, stats};
use crate::error::{Error, Result};
use crate::store::{Location, failed};

/// Rows that are encoded together.
const BLOCK_ROWS: usize = 4096;
/// Rows of a row group, at most.
const GROUP_ROWS: usize = 65_536;
/// Bytes of a row group, at most; what a file being written holds in memory.
const GROUP_BYTES: usize = 16 << 20;
/// Bytes handed to the store at a time. Stores in the cloud want at least 5 MiB.
const UPLOAD_BYTES: usize = 8 << 20;
/// Values of the partition columns, at most: each has a file open for writing.
const MAX_PARTITIONS: usize = 256;

/// What the rows of a run are labelled with, the same for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The hash of the model.
    pub model: String,
    /// When; to the microsecond.
    pub labelled_at: std::time::SystemTime,
}

/// Writes rows to the files of an attempt; nothing is seen of them before
/// [`TableWriter::commit`](super::TableWriter::commit). Made by [`TableWriter::sink`](super::TableWriter::sink).
///
/// Memory: a row group (16 MiB) and two uploads (16 MiB) for each value of the partition columns, at most; for narrow
/// rows far less, since a row group is full at 65 536 rows.
pub struct TableSink {
    location: Location,
    run_id: String,
    input: SchemaRef,
    table: SchemaRef,
    partition_by: Vec<String>,
    file_bytes: u64,
    properties: WriterProperties,
    labels: Labels,
    closed: AtomicBool,
    state: Mutex<State>,
    metrics: ExecutionPlanMetricsSet,
}

#[derive(Default)]
struct State {
    parts: BTreeMap<Key, Part>,
    rows: u64,
    /// Rows were lost on the way here, or are still on their way.
    incomplete: bool,
}

/// The values of the partition columns, as text; `None` for null.
type Key = Vec<Option<String>>;

/// The files of one value of the partition columns.
struct Part {
    dir: String,
    partition: BTreeMap<String, Option<String>>,
    blocks: BatchCoalescer,
    open: Option<OpenFile>,
    files: Vec<DataFile>,
}

struct OpenFile {
    path: String,
    writer: AsyncArrowWriter<BufWriter>,
    rows: u64,
}

impl TableSink {
    pub(super) fn new(
        location: &Location,
        run_id: &str,
        input: SchemaRef,
        table: SchemaRef,
        partition_by: &[String],
        file_bytes: u64,
        labels: Labels,
    ) -> Result<Self> {
        Ok(Self {
            location: location.clone(),
            run_id: run_id.to_owned(),
            properties: properties(&table)?,
            input,
            table,
            partition_by: partition_by.to_vec(),
            file_bytes,
            labels,
            closed: AtomicBool::new(false),
            state: Mutex::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Writes the rows of a batch after those before it.
    ///
    /// # Errors
    /// Kind `Io` if a file cannot be written (a full disk is named as such), `Config` if the partition columns have
    /// more than 256 values, `Input` if the batch is not of the sink's schema. The attempt cannot be committed then.
    pub async fn write(&self, batch: &RecordBatch) -> Result<()> {
        let mut state = self.state.lock().await;
        let incomplete = std::mem::replace(&mut state.incomplete, true);
        self.write_batch(&mut state, batch).await?;
        state.incomplete = incomplete;
        Ok(())
    }

    /// Rows written so far.
    pub async fn rows(&self) -> u64 {
        self.state.lock().await.rows
    }

    /// The table's columns: the input's in their stored types, then the two that the sink adds.
    pub(super) fn table_schema(&self) -> &SchemaRef {
        &self.table
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    async fn write_batch(&self, state: &mut State, batch: &RecordBatch) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::internal("rows were written to a table after its commit or abort"));
        }
        let columns = schema::to_stored(batch, &self.table)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let stored = RecordBatch::try_new_with_options(self.stored_schema(), columns, &options)?;
        for (key, indices) in self.keys(&stored)? {
            if !state.parts.contains_key(&key) && state.parts.len() == MAX_PARTITIONS {
                return Err(Error::config(format!(
                    "partition_by = {:?} has more than {MAX_PARTITIONS} values; choose columns with fewer",
                    self.partition_by
                )));
            }
            let part = state.parts.entry(key).or_insert_with_key(|key| self.part(key));
            match indices {
                None => part.blocks.push_batch(stored.clone())?,
                Some(indices) => part.blocks.push_batch_with_indices(stored.clone(), &indices)?,
            }
            while let Some(block) = part.blocks.next_completed_batch() {
                self.write_block(part, &block).await?;
            }
        }
        state.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The table's columns without the two that the sink adds.
    fn stored_schema(&self) -> SchemaRef {
        let fields = self.table.fields();
        Arc::new(Schema::new(fields[..fields.len() - 2].to_vec()))
    }

    /// The partition values in a batch and the rows of each, all rows where there is but one.
    fn keys(&self, batch: &RecordBatch) -> Result<Vec<(Key, Option<UInt32Array>)>> {
        if self.partition_by.is_empty() {
            return Ok(vec![(Key::new(), None)]);
        }
        let mut texts: Vec<ArrayRef> = Vec::new();
        for name in &self.partition_by {
            let column = batch.column_by_name(name).ok_or_else(|| crate::column::missing(&batch.schema(), name))?;
            texts.push(cast(column, &DataType::Utf8)?);
        }
        let texts: Vec<&StringArray> = texts.iter().map(|t| t.as_string::<i32>()).collect();
        let mut rows: BTreeMap<Vec<Option<&str>>, Vec<u32>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let key = texts.iter().map(|t| t.is_valid(row).then(|| t.value(row))).collect();
            rows.entry(key).or_default().push(row as u32);
        }
        let owned = |key: Vec<Option<&str>>| key.into_iter().map(|v| v.map(str::to_owned)).collect();
        Ok(rows.into_iter().map(|(key, rows)| (owned(key), Some(UInt32Array::from(rows)))).collect())
    }

    fn part(&self, key: &Key) -> Part {
        let mut dir = data_dir(&self.run_id);
        for (name, value) in self.partition_by.iter().zip(key) {
            // As Hive writes it, so that plain readers know the directories.
            let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
            dir = format!("{dir}/{}", PathPart::from(format!("{name}={value}")).as_ref());
        }
        Part {
            dir,
            partition: self.partition_by.iter().cloned().zip(key.iter().cloned()).collect(),
            blocks: BatchCoalescer::new(self.stored_schema(), BLOCK_ROWS),
            open: None,
            files: Vec::new(),
        }
    }

    async fn write_block(&self, part: &mut Part, block: &RecordBatch) -> Result<()> {
        let mut columns = block.columns().to_vec();
        let model = std::iter::repeat_n(self.labels.model.as_str(), block.num_rows());
        columns.push(Arc::new(StringArray::from_iter_values(model)));
        let at = vec![super::log::micros(self.labels.labelled_at); block.num_rows()];
        columns.push(Arc::new(TimestampMicrosecondArray::from(at).with_timezone("UTC")));
        let block = RecordBatch::try_new(Arc::clone(&self.table), columns)?;
        let open = match &mut part.open {
            Some(open) => open,
            None => {
                let path = format!("{}/part-{:05}.parquet", part.dir, part.files.len());
                part.open.insert(self.open(path)?)
            }
        };
        open.writer.write(&block).await.map_err(|e| self.failed(&open.path, e))?;
        open.rows += block.num_rows() as u64;
        let bytes = open.writer.bytes_written() + open.writer.in_progress_size();
        if bytes as u64 >= self.file_bytes {
            self.close(part).await?;
        }
        Ok(())
    }

    fn open(&self, path: String) -> Result<OpenFile> {
        let to = BufWriter::with_capacity(Arc::clone(self.location.store()), self.location.path(&path)?, UPLOAD_BYTES)
            .with_max_concurrency(2);
        let writer = AsyncArrowWriter::try_new(to, Arc::clone(&self.table), Some(self.properties.clone()))?;
        Ok(OpenFile { path, writer, rows: 0 })
    }

    async fn close(&self, part: &mut Part) -> Result<()> {
        let Some(mut open) = part.open.take() else { return Ok(()) };
        let metadata = open.writer.finish().await.map_err(|e| self.failed(&open.path, e))?;
        self.location.sync(&[&open.path]).await?;
        part.files.push(DataFile {
            bytes: open.writer.bytes_written() as u64,
            rows: open.rows,
            partition: part.partition.clone(),
            columns: stats::ranges(&metadata, &self.table)?,
            path: open.path,
        });
        Ok(())
    }

    fn failed(&self, path: &str, e: parquet::errors::ParquetError) -> Error {
        nothing_committed(failed("writing", &self.location.show(path), e))
    }

    /// Ends the writing and gives the files, by partition value and then in the order of their rows.
    pub(super) async fn finish(&self) -> Result<Vec<DataFile>> {
        let mut state = self.state.lock().await;
        self.closed.store(true, Ordering::Release);
        if state.incomplete {
            return Err(Error::internal("a table would be committed although not all of its rows were written"));
        }
        let mut files = Vec::new();
        for part in state.parts.values_mut() {
            part.blocks.finish_buffered_batch()?;
            while let Some(block) = part.blocks.next_completed_batch() {
                self.write_block(part, &block).await?;
            }
            self.close(part).await?;
            files.append(&mut part.files);
        }
        Ok(files)
    }

    /// Ends the writing and lets go of uploads that have begun.
    pub(super) async fn abort(&self) {
        self.closed.store(true, Ordering::Release);
        let parts = std::mem::take(&mut self.state.lock().await.parts);
        for open in parts.into_values().filter_map(|part| part.open) {
            if let Err(e) = open.writer.into_inner().abort().await {
                tracing::debug!("an upload that had not begun: {e}");
            }
        }
    }

    /// Rows that come from now on are refused.
    pub(super) fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

pub(super) fn nothing_committed(e: Error) -> Error {
    let message = format!("{}; nothing was committed", e.message());
    match std::error::Error::source(&e) {
        Some(source) => Error::io(format!("{message} ({source})")),
        None => Error::io(message),
    }
}

pub(super) fn properties(table: &Schema) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("dacpipe version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES));
    for field in table.fields() {
        // Measured values hardly repeat: a dictionary of them costs time and saves nothing.
        let path = match field.data_type() {
            DataType::Float32 | DataType::Float64 => vec![field.name().clone()],
            DataType::FixedSizeList(item, _) | DataType::List(item) if item.data_type().is_floating() => {
                vec![field.name().clone(), "list".to_owned(), item.name().clone()]
            }
            _ => continue,
        };
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
    }
    Ok(properties.build())
}

#[async_trait]
impl DataSink for TableSink {
    fn schema(&self) -> &SchemaRef {
        &self.input
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        _: &Arc<TaskContext>,
    ) -> datafusion::error::Result<u64> {
        let baseline = BaselineMetrics::new(&self.metrics, 0);
        let written = MetricBuilder::new(&self.metrics).counter("rows_written", 0);
        // Until the stream has ended well, its rows are not all here: an error or a drop on the way leaves it so.
        self.state.lock().await.incomplete = true;
        let mut rows = 0;
        while let Some(batch) = data.next().await {
            let batch = batch?;
            let _timer = baseline.elapsed_compute().timer();
            self.write(&batch).await?;
            rows += batch.num_rows() as u64;
            written.add(batch.num_rows());
        }
        self.state.lock().await.incomplete = false;
        Ok(rows)
    }
}

impl DisplayAs for TableSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableSink(table={}, partition_by=[{}])", self.location, self.partition_by.join(", "))
    }
}

impl fmt::Debug for TableSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSink").field("location", &self.location).finish_non_exhaustive()
    }
}
