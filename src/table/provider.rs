//! A version of a table as a DataFusion table.
//!
//! The log has the partition values and ranges of every file, so a query opens only the files that can matter: those
//! that its filters do not rule out and, without filters, no more than its limit needs. `count(*)` is answered from the
//! log alone.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, Volatility};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::beside;
use super::checked::{CheckedReads, damaged};
use super::checksum::Checksums;
use super::clusters::clusters_schema;
use super::commit::FileBeside;
use super::lineage::lineage_schema;
use super::log::{DataFile, Log, Snapshot};
use super::profile::profile_schema;
use super::sample::sample_schema;
use super::scan::Scan;
use super::schema::of_files;
use super::stats::{Taken, scalar, statistics};
use crate::error::{Error, Result};
use crate::store::{Location, failed};

/// How many files are looked up at a time.
const LOOKUPS: usize = 16;

/// A table at one version; later commits do not change it.
///
/// Rows come in the order in which they were written, as long as the plan has one partition.
#[derive(Debug)]
pub struct LabelTable {
    snapshot: Snapshot,
    files: Files,
}

impl LabelTable {
    /// The table at a path or URL, at `version` or at its newest.
    ///
    /// # Errors
    /// Kind `Table` if there is no table, or no such version, or its log is damaged; `Config` for a URL of an unknown
    /// store; `Io` if reading fails.
    pub async fn open(location: &str, version: Option<u64>) -> Result<Self> {
        Self::open_at(&Location::parse(location)?, version).await
    }

    /// The table at a location, at `version` or at its newest. Errors as for [`open`](Self::open).
    pub async fn open_at(location: &Location, version: Option<u64>) -> Result<Self> {
        let log = Log::new(location.clone());
        let snapshot = log.snapshot(version).await?.ok_or_else(|| {
            let place = location.looked_at();
            Error::table(format!("{place} holds no table: there is no {}", location.show(&super::entry::file_name(0))))
        })?;
        let mut table = Self::of(location, snapshot);
        table.files.old = version.is_some();
        Ok(table)
    }

    /// The table at the version of `snapshot`.
    pub(super) fn of(location: &Location, snapshot: Snapshot) -> Self {
        let files = Files {
            location: location.clone(),
            schema: Arc::clone(&snapshot.schema),
            partition_by: snapshot.partition_by.clone(),
            files: snapshot.files.clone(),
            old: false,
        };
        Self { snapshot, files }
    }

    /// The version as read from the log.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The table's clusters, with the columns of [`clusters_schema`]; empty if its pipeline makes none.
    pub fn clusters(&self) -> Arc<dyn TableProvider> {
        self.rows_beside(clusters_schema(), self.snapshot.clusters())
    }

    /// What became of the table's clusters, with the columns of [`lineage_schema`]; empty if it never had any.
    pub fn lineage(&self) -> Arc<dyn TableProvider> {
        self.rows_beside(lineage_schema(), self.snapshot.lineage())
    }

    fn rows_beside(&self, schema: SchemaRef, file: Option<&FileBeside>) -> Arc<dyn TableProvider> {
        Arc::new(Files {
            location: self.files.location.clone(),
            schema,
            partition_by: Vec::new(),
            files: file.map(as_data_file).into_iter().collect(),
            old: self.files.old,
        })
    }

    /// Means and deviations of the features by cluster, with the columns of [`profile_schema`]; `None` if the runs that
    /// wrote the table kept none.
    ///
    /// # Errors
    /// Kind `Table` if the file is missing or damaged, `Io` if it cannot be read.
    pub async fn profile(&self) -> Result<Option<RecordBatch>> {
        self.beside(self.snapshot.note.as_ref().and_then(|note| note.profile.as_ref()), &profile_schema()).await
    }

    /// A sample of the table's rows, with the columns of [`sample_schema`]; `None` if the runs that wrote it kept none.
    /// Errors as for [`profile`](Self::profile).
    pub async fn sample(&self) -> Result<Option<RecordBatch>> {
        self.beside(self.snapshot.note.as_ref().and_then(|note| note.sample.as_ref()), &sample_schema()).await
    }

    /// The rows of `schema` in a file of rows that a run set aside, below the table's `location`.
    ///
    /// # Errors
    /// Kind `Table` if the file is missing or damaged, or has other columns; `Io` if it cannot be read.
    pub async fn set_aside(location: &Location, file: &str, schema: &SchemaRef) -> Result<RecordBatch> {
        let file = FileBeside { path: file.to_owned(), bytes: 0, rows: 0, crc32: None };
        beside::read(location, &file, schema).await
    }

    async fn beside(&self, file: Option<&FileBeside>, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        match file {
            Some(file) => beside::read(&self.files.location, file, schema).await.map(Some),
            None => Ok(None),
        }
    }
}

#[async_trait]
impl TableProvider for LabelTable {
    fn schema(&self) -> SchemaRef {
        self.files.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        self.files.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        self.files.scan(state, projection, filters, limit).await
    }
}

/// A file beside the rows; the log knows only its size.
fn as_data_file(file: &FileBeside) -> DataFile {
    DataFile {
        path: file.path.clone(),
        logged: String::new(),
        rows: Some(file.rows),
        bytes: file.bytes,
        partition: Default::default(),
        columns: Default::default(),
        added_at: 0,
        checksums: file.crc32.as_deref().and_then(|text| Checksums::parse(text, file.bytes)),
    }
}

/// A fixed list of Parquet files of one schema, and what the log knows about them. The files do not contain the
/// partition columns.
#[derive(Debug)]
struct Files {
    location: Location,
    schema: SchemaRef,
    partition_by: Vec<String>,
    files: Vec<DataFile>,
    /// Whether a version was asked for, which may be an old one.
    old: bool,
}

impl Files {
    /// Whether a filter needs only the partition columns.
    fn decided_by_partition(&self, filter: &Expr) -> bool {
        let mut columns = 0;
        let visited = filter.apply(|e| {
            let fine = match e {
                Expr::Column(column) => {
                    columns += 1;
                    self.partition_by.contains(&column.name)
                }
                Expr::ScalarFunction(f) => f.func.signature().volatility == Volatility::Immutable,
                Expr::Literal(..)
                | Expr::Not(_)
                | Expr::IsNull(_)
                | Expr::IsNotNull(_)
                | Expr::IsTrue(_)
                | Expr::IsFalse(_)
                | Expr::IsUnknown(_)
                | Expr::IsNotTrue(_)
                | Expr::IsNotFalse(_)
                | Expr::IsNotUnknown(_)
                | Expr::BinaryExpr(_)
                | Expr::Between(_)
                | Expr::InList(_)
                | Expr::Like(_)
                | Expr::Cast(_) => true,
                _ => false,
            };
            Ok(if fine { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        columns > 0 && matches!(visited, Ok(TreeNodeRecursion::Continue))
    }

    /// The files that may hold rows for which all filters are true.
    fn matching(&self, state: &dyn Session, filters: &[Expr]) -> datafusion::error::Result<Vec<&DataFile>> {
        let (by_partition, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().cloned().partition(|f| self.decided_by_partition(f));
        let mut files: Vec<&DataFile> = self.files.iter().collect();
        if let Some(filter) = conjunction(by_partition)
            && !files.is_empty()
        {
            let keep = self.evaluate(state, filter, &files)?;
            files = files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect();
        }
        if let Some(filter) = conjunction(others)
            && !files.is_empty()
        {
            let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            let predicate = state.create_physical_expr(filter, &schema)?;
            let bounds = files.iter().map(|f| Arc::new(statistics(f, &self.schema, Taken::AsBounds))).collect();
            let predicate =
                PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).try_build(predicate)?;
            let keep = predicate.prune(&PrunableStatistics::new(bounds, Arc::clone(&self.schema)))?;
            files = files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect();
        }
        Ok(files)
    }

    /// Whether a filter over the partition columns is true, for each file.
    fn evaluate(&self, state: &dyn Session, filter: Expr, files: &[&DataFile]) -> datafusion::error::Result<Vec<bool>> {
        let fields = self.partition_by.iter().map(|name| self.schema.field_with_name(name).cloned());
        let schema = Arc::new(Schema::new(fields.collect::<std::result::Result<Vec<_>, _>>()?));
        let column = |(name, field): (&String, &Arc<arrow::datatypes::Field>)| {
            let value = |f: &&DataFile| scalar(f.partition.get(name).and_then(Option::as_deref), field.data_type());
            ScalarValue::iter_to_array(files.iter().map(value))
        };
        let columns = self.partition_by.iter().zip(schema.fields()).map(column);
        let columns = columns.collect::<datafusion::error::Result<Vec<_>>>()?;
        let expr = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let batch = RecordBatch::try_new(schema, columns)?;
        let result = expr.evaluate(&batch)?.into_array(files.len())?;
        let result = result.as_boolean();
        Ok((0..files.len()).map(|i| result.is_valid(i) && result.value(i)).collect())
    }

    /// The columns of a scan: those of the files, then the partition columns.
    fn scanned(&self) -> Result<TableSchema> {
        let partition = self.partition_by.iter().map(|name| Ok(Arc::new(self.schema.field_with_name(name)?.clone())));
        let partition = partition.collect::<Result<Vec<_>>>()?;
        let files = of_files(&self.schema, &self.partition_by);
        Ok(TableSchema::builder(files).with_table_partition_cols(partition).build())
    }

    /// The indices in a scan of the columns asked for; all if none are named.
    fn in_scan(&self, columns: &TableSchema, projection: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let number = |&i: &usize| Ok(columns.table_schema().index_of(self.schema.field(i).name())?);
        projection.unwrap_or(&all).iter().map(number).collect()
    }

    /// The reader of these files, which checks their bytes.
    fn checked(&self, files: &[&DataFile]) -> Result<CheckedReads> {
        let sums = files.iter().filter_map(|file| Some((&file.path, file.checksums.as_ref()?)));
        let sums = sums.map(|(path, sums)| Ok((self.location.path(path)?, sums.clone())));
        Ok(CheckedReads::new(self.location.clone(), sums.collect::<Result<_>>()?))
    }

    /// The file in DataFusion's form, from the store and the log.
    async fn look_up(&self, file: DataFile) -> Result<PartitionedFile> {
        let damaged = |what: &str| damaged(&self.location, &self.location.show(&file.path), what);
        let meta: ObjectMeta = match self.location.store().head(&self.location.path(&file.path)?).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) if self.old => {
                return Err(Error::table(format!(
                    "this version of {} cannot be read any more: {} is missing (what old versions need goes when the table \
                     is vacuumed)",
                    self.location,
                    self.location.show(&file.path)
                )));
            }
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("is missing")),
            Err(e) => return Err(failed("reading", &self.location.show(&file.path), e)),
        };
        if meta.size != file.bytes {
            return Err(damaged(&format!("has {} bytes, the log says {}", meta.size, file.bytes)));
        }
        // DataFusion would take a null partition value for a column without nulls.
        let known = statistics(&file, self.scanned()?.table_schema(), Taken::AsValues);
        let value = |name: &String| -> Result<ScalarValue> {
            let data_type = self.schema.field_with_name(name)?.data_type();
            Ok(scalar(file.partition.get(name).and_then(Option::as_deref), data_type))
        };
        let values = self.partition_by.iter().map(value).collect::<Result<_>>()?;
        let mut found = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        found.statistics = Some(Arc::new(known));
        Ok(found)
    }
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        let kind = |filter: &&Expr| match self.decided_by_partition(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(kind).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let mut files = self.matching(state, filters)?;
        if let Some(limit) = limit
            && filters.iter().all(|f| self.decided_by_partition(f))
        {
            let mut rows = 0;
            files.retain(|f| {
                let wanted = rows < limit as u64;
                rows += f.rows.unwrap_or(0);
                wanted
            });
        }
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        self.location.register(state.runtime_env());
        let found: Vec<PartitionedFile> = futures::stream::iter(files.clone().into_iter().cloned())
            .map(|f| self.look_up(f))
            .buffered(LOOKUPS)
            .try_collect()
            .await?;
        let columns = self.scanned()?;
        let each = found.iter().filter_map(|f| f.statistics.as_deref());
        let known = Statistics::try_merge_iter(each, columns.table_schema())?;
        let projection = self.in_scan(&columns, projection)?;
        let options = state.default_table_options().parquet;
        let hint = options.global.metadata_size_hint;
        let mut source = ParquetSource::new(columns)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(self.checked(&files)?));
        if let Some(hint) = hint {
            source = source.with_metadata_size_hint(hint);
        }
        let config = FileScanConfigBuilder::new(self.location.store_url().clone(), Arc::new(source))
            .with_file_group(FileGroup::new(found))
            .with_statistics(known)
            .with_projection_indices(Some(projection))?
            .with_limit(limit)
            .build();
        let paths = files.iter().map(|file| file.path.clone()).collect();
        Ok(DataSourceExec::from_data_source(Scan::new(Arc::new(config), self.location.clone(), paths)))
    }
}
