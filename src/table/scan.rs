//! A scan of data files whose errors name the damaged file. The Parquet reader's own errors do not name it, and a
//! damaged file without checksums, from another program, can make it panic.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::checked::damaged;
use crate::error::{Error, Kind};
use crate::store::Location;

/// A scan, and its files.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    inner: Arc<dyn DataSource>,
    files: Arc<Scanned>,
}

/// The files of a scan.
#[derive(Debug)]
struct Scanned {
    location: Location,
    /// Their paths below it.
    paths: Vec<String>,
}

impl Scan {
    /// A scan of the files `paths` at `location`, which `inner` reads.
    pub(super) fn new(inner: Arc<dyn DataSource>, location: Location, paths: Vec<String>) -> Self {
        Self { inner, files: Arc::new(Scanned { location, paths }) }
    }

    fn with(&self, inner: Arc<dyn DataSource>) -> Arc<dyn DataSource> {
        Arc::new(Self { inner, files: Arc::clone(&self.files) })
    }

    fn told(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let (schema, files) = (rows.schema(), Arc::clone(&self.files));
        let rows = futures::stream::unfold(Some(rows), move |rows| {
            let files = Arc::clone(&files);
            async move {
                let mut rows = rows?;
                let next = AssertUnwindSafe(rows.next()).catch_unwind().await;
                match next {
                    Ok(None) => None,
                    Ok(Some(Ok(batch))) => Some((Ok(batch), Some(rows))),
                    Ok(Some(Err(e))) => Some((Err(files.name(Some(e)).await), None)),
                    Err(_) => Some((Err(files.name(None).await), None)),
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl Scanned {
    /// The error, with the file that it comes from; without an error the reader panicked.
    async fn name(&self, e: Option<DataFusionError>) -> DataFusionError {
        let e = match e.map(Error::from) {
            // Errors of our own or of the store already name the file.
            Some(e) if e.kind() != Kind::Input && e.kind() != Kind::Internal => return e.into(),
            Some(e) => e.to_string(),
            None => "the reader of Parquet files gave up".to_owned(),
        };
        for path in &self.paths {
            let content = match self.location.get(path).await {
                Ok(Some(content)) => content,
                Ok(None) => return damaged(&self.location, &self.location.show(path), "is missing").into(),
                Err(e) => return e.into(),
            };
            let read = std::panic::catch_unwind(|| -> Result<(), String> {
                let reader = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|e| e.to_string())?;
                let rows = reader.build().map_err(|e| e.to_string())?;
                rows.collect::<Result<Vec<RecordBatch>, _>>().map(drop).map_err(|e| e.to_string())
            });
            let why = match read {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(_) => e.clone(),
            };
            return damaged(&self.location, &self.location.show(path), &format!("cannot be read ({why})")).into();
        }
        Error::table(format!("reading the table {}: {e}", self.location)).into()
    }
}

impl DataSource for Scan {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(self.told(self.inner.open(partition, context)?))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        Ok(self.told(self.inner.open_with_args(args)?))
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_as(t, f)
    }

    fn repartitioned(
        &self,
        partitions: usize,
        min_size: usize,
        ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(self.inner.repartitioned(partitions, min_size, ordering)?.map(|inner| self.with(inner)))
    }

    fn output_partitioning(&self) -> Partitioning {
        self.inner.output_partitioning()
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.inner.eq_properties()
    }

    fn scheduling_type(&self) -> SchedulingType {
        self.inner.scheduling_type()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.inner.partition_statistics(partition)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        self.inner.with_fetch(limit).map(|inner| self.with(inner))
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(self.inner.try_swapping_with_projection(projection)?.map(|inner| self.with(inner)))
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        let pushed = self.inner.try_pushdown_filters(filters, config)?;
        let updated_node = pushed.updated_node.map(|inner| self.with(inner));
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node })
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        Ok(self.inner.try_pushdown_sort(order)?.map(|inner| self.with(inner)))
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Arc<dyn DataSource>> {
        self.inner.with_preserve_order(preserve_order).map(|inner| self.with(inner))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn DataSource>> {
        self.inner.with_new_state(state).map(|inner| self.with(inner))
    }

    fn create_sibling_state(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        self.inner.create_sibling_state(config)
    }
}
