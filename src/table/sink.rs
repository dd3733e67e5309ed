//! The sink that writes labelled rows to Parquet files.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatchOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::StreamExt;
use tokio::sync::Mutex;

use super::files::{FileSet, Labels};
use super::keys::RunKeys;
use super::log::DataFile;
use super::schema;
use crate::error::{Error, Result};
use crate::store::Location;

/// Writes rows to the files of an attempt; readers do not see them before
/// [`TableWriter::commit`](super::TableWriter::commit). Made by [`TableWriter::sink`](super::TableWriter::sink).
///
/// Memory: at most a row group (16 MiB) and two uploads (16 MiB) for each value of the partition columns; far less for
/// narrow rows, since a row group is full at 65 536 rows. If the table has keys, another 24 bytes per row.
pub struct TableSink {
    location: Location,
    input: SchemaRef,
    table: SchemaRef,
    partition_by: Vec<String>,
    labels: Labels,
    closed: AtomicBool,
    state: Mutex<State>,
    metrics: ExecutionPlanMetricsSet,
}

struct State {
    files: FileSet,
    keys: RunKeys,
    rows: u64,
    /// Some rows were lost on the way here, or have not yet arrived.
    incomplete: bool,
}

impl TableSink {
    pub(super) fn new(
        location: &Location,
        input: SchemaRef,
        files: FileSet,
        keys: RunKeys,
        partition_by: &[String],
        labels: Labels,
    ) -> Self {
        Self {
            location: location.clone(),
            input,
            table: Arc::clone(files.table()),
            partition_by: partition_by.to_vec(),
            labels,
            closed: AtomicBool::new(false),
            state: Mutex::new(State { files, keys, rows: 0, incomplete: false }),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Appends the rows of a batch.
    ///
    /// # Errors
    /// Kind `Io` if a file cannot be written (a full disk is named as such), `Config` if the partition columns have
    /// more than 256 values, `Input` if the batch does not have the sink's schema, or has a key that an earlier row
    /// has. The attempt cannot be committed then.
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
        let stored = RecordBatch::try_new_with_options(Arc::clone(state.files.input()), columns, &options)?;
        state.keys.add(&stored)?;
        state.files.push(&stored).await?;
        state.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the writing and returns the files, by partition value and then in the order of their rows, and the keys of
    /// the rows.
    pub(super) async fn finish(&self) -> Result<(Vec<DataFile>, RunKeys)> {
        let mut state = self.state.lock().await;
        self.closed.store(true, Ordering::Release);
        if state.incomplete {
            return Err(Error::internal("a table would be committed although not all of its rows were written"));
        }
        let files = state.files.finish().await?;
        Ok((files, std::mem::take(&mut state.keys)))
    }

    /// Ends the writing and aborts uploads that have begun.
    pub(super) async fn abort(&self) {
        self.closed.store(true, Ordering::Release);
        self.state.lock().await.files.abort().await;
    }

    /// Refuses all further rows.
    pub(super) fn refuse(&self) {
        self.closed.store(true, Ordering::Release);
    }
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
        // The rows count as incomplete until the stream has ended without error; if it fails or is dropped, they stay
        // so.
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
