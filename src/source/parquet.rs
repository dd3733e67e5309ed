//! Feature vectors in Parquet files.
//!
//! The vectors are a column of lists (`FixedSizeList`, `List`, `LargeList`) of any integer or float type, or a column
//! each value. Scans give them as `features`, vectors of `Float32`, in the order of the files' paths and of their rows.
//! Filters on the other columns are evaluated before vectors are read; only the columns that a scan asks for are read.
//!
//! # Bad rows
//! A null vector, value or key, a vector of another length, a value that is not finite in single precision. A file that
//! cannot be read, or lacks a column, is bad as a whole.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderBuilder, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::bad::Rejects;
use super::filter::{Condition, pushdown};
use super::location::{DataFile, list};
use super::windows::batch_rows;
use super::{Source, check_names, no_column};
use crate::column::{vector_array, vector_field};
use crate::error::{Error, Kind, Result};
use crate::stage::FEATURES;

mod lists;
mod reader;

use lists::{Lists, finite};
use reader::ObjectReader;

/// Which files to read, and which columns of them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ParquetSpec {
    /// A file, a directory (its `.parquet` and `.pq`), a glob, or a URL of one of these.
    pub path: String,
    /// The column or the columns of the vectors.
    pub features: Features,
    /// The column of labels, nullable.
    #[serde(default)]
    pub label: Option<String>,
    /// The columns that identify a row; never null.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column that says which part of the data a row belongs to, nullable; becomes text.
    #[serde(default)]
    pub split: Option<String>,
}

/// Where feature vectors are.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Features {
    /// In one column of lists.
    Column(String),
    /// A column each value.
    Columns(Vec<String>),
}

impl Features {
    fn columns(&self) -> &[String] {
        match self {
            Features::Column(name) => std::slice::from_ref(name),
            Features::Columns(names) => names,
        }
    }
}

/// The name of the virtual column of row numbers; no column of a file should be named like that.
const ROW: &str = "\0row";

/// Opens the files of `spec` and checks the first.
///
/// # Errors
/// Kind `Input` if no file can be used, a column is missing or has another type than expected, or vectors are empty;
/// `Config` if no column is named; `Io` if a disk, network or object store fails.
pub(super) async fn open(spec: &ParquetSpec, rejects: Rejects) -> Result<Source> {
    if spec.features.columns().is_empty() {
        return Err(Error::config("a parquet source needs `features`: a column of lists, or columns of numbers"));
    }
    let files = list(&spec.path, &[".parquet", ".pq"]).await?;
    let mut first_problem = None;
    let mut found = None;
    for file in &files {
        match ParquetFile::measure(file, spec).await {
            Ok((plain, Some(dim))) => {
                found = Some((plain, dim));
                break;
            }
            Ok((_, None)) => drop(first_problem.get_or_insert(format!("{}: has no vectors", file.name()))),
            Err(e) => {
                let message = e.to_string();
                rejects.reject_file(file.name(), e)?;
                first_problem.get_or_insert(message);
            }
        }
    }
    let Some((plain, dim)) = found else {
        let problem = first_problem.unwrap_or_default();
        return Err(Error::input(format!("{}: no file can be used, the first because: {problem}", spec.path)));
    };
    let mut fields = plain.clone();
    fields.push(vector_field(FEATURES, dim));
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema)?;
    let feature_names = match &spec.features {
        Features::Column(name) => (0..dim).map(|i| format!("{name}[{i}]")).collect(),
        Features::Columns(names) => names.clone(),
    };
    let description = format!("vectors of {dim} values in {} Parquet files at {}", files.len(), spec.path);
    let table = VectorTable { spec: Arc::new(spec.clone()), files: files.into(), schema, dim, rejects };
    Ok(Source {
        provider: Arc::new(table),
        keys: spec.keys.clone(),
        label: spec.label.clone(),
        split: spec.split.clone(),
        feature_names,
        dim,
        description,
        windows: None,
    })
}

/// The names of the columns beside the vectors: keys, split, label.
fn plain_names(spec: &ParquetSpec) -> impl Iterator<Item = &String> {
    spec.keys.iter().chain(&spec.split).chain(&spec.label)
}

/// Text as `Utf8`, whatever it is in the file; everything else as it is.
fn plain_type(stored: &DataType, is_split: bool) -> DataType {
    match stored {
        DataType::Dictionary(_, values) => plain_type(values, is_split),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        _ if is_split => DataType::Utf8,
        other => other.clone(),
    }
}

/// A file of which the footer was read.
#[derive(Clone)]
struct ParquetFile {
    name: String,
    file: DataFile,
    reader: ObjectReader,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer of `file` and checks the columns that `spec` names.
    async fn open(file: &DataFile, spec: &ParquetSpec) -> Result<Self> {
        let name = file.name().to_string();
        let mut reader = ObjectReader::new(file)?;
        let row = Field::new(ROW, DataType::Int64, false).with_extension_type(RowNumber);
        let options = ArrowReaderOptions::new().with_virtual_columns(vec![Arc::new(row)])?;
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await.map_err(|e| unreadable(&name, e))?;
        let open = Self { name, file: file.clone(), reader, metadata };
        for column in plain_names(spec) {
            open.field(column)?;
        }
        for column in spec.features.columns() {
            open.check_features(open.field(column)?, matches!(spec.features, Features::Column(_)))?;
        }
        Ok(open)
    }

    /// What the table needs to know of `file`: the columns beside its vectors, and how many values a vector has, if it
    /// has any.
    async fn measure(file: &DataFile, spec: &ParquetSpec) -> Result<(Vec<Field>, Option<usize>)> {
        let open = Self::open(file, spec).await?;
        Ok((open.plain_fields(spec), open.dim(spec).await?))
    }

    fn field(&self, column: &str) -> Result<&Field> {
        let fields = self.metadata.schema().fields();
        let there = || fields.iter().map(|f| f.name().as_str()).filter(|name| *name != ROW);
        let found = fields.iter().find(|f| f.name() == column);
        found.map(|f| f.as_ref()).ok_or_else(|| no_column(&self.name, column, there()))
    }

    fn check_features(&self, field: &Field, lists: bool) -> Result<()> {
        let number = |t: &DataType| t.is_integer() || t.is_floating();
        let fits = match field.data_type() {
            DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
                lists && number(item.data_type())
            }
            other => !lists && number(other),
        };
        if fits {
            return Ok(());
        }
        let expected = match lists {
            true => "a FixedSizeList, List or LargeList of an integer or float type",
            false => "an integer or float type",
        };
        let (name, column, found) = (&self.name, field.name(), field.data_type());
        Err(Error::input(format!("{name}: column {column:?} is {found}, expected {expected}")))
    }

    fn plain_fields(&self, spec: &ParquetSpec) -> Vec<Field> {
        let field = |name: &String| {
            let stored = self.field(name).expect("open has looked for it").data_type();
            let is_key = spec.keys.contains(name);
            Field::new(name, plain_type(stored, spec.split.as_ref() == Some(name)), !is_key)
        };
        plain_names(spec).map(field).collect()
    }

    /// The columns of a scan, by name.
    fn mask<'a>(&self, columns: impl Iterator<Item = &'a String>) -> ProjectionMask {
        let fields = self.metadata.schema().fields();
        let roots = columns.filter_map(|c| fields.iter().position(|f| f.name() == c));
        ProjectionMask::roots(self.metadata.parquet_schema(), roots.collect::<Vec<_>>())
    }

    /// The columns `columns` of the rows that pass `filter`, up to `rows` at a time.
    fn batches(&self, columns: ProjectionMask, rows: usize, filter: Option<&Condition>) -> Result<Batches> {
        let Some(file) = self.file.local()? else {
            let builder =
                ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone());
            return Ok(Batches::Remote(Box::new(self.select(builder, columns, rows, filter).build()?)));
        };
        // Group by group: a filter is held against all rows that a reader has before it gives the first.
        let (open, filter) = (self.clone(), filter.cloned());
        let reader = move |group| -> Result<ParquetRecordBatchReader> {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.try_clone()?, open.metadata.clone());
            let builder = builder.with_row_groups(vec![group]);
            Ok(open.select(builder, columns.clone(), rows, filter.as_ref()).build()?)
        };
        let groups = 0..self.metadata.metadata().num_row_groups();
        let batches = groups.flat_map(move |group| -> LocalBatches {
            match reader(group) {
                Ok(reader) => Box::new(reader.map(|batch| Ok(batch?))),
                Err(e) => Box::new(std::iter::once(Err(e))),
            }
        });
        Ok(Batches::Local(Box::new(batches)))
    }

    /// What is asked of a reader, of either kind.
    fn select<T>(
        &self,
        builder: ArrowReaderBuilder<T>,
        columns: ProjectionMask,
        rows: usize,
        filter: Option<&Condition>,
    ) -> ArrowReaderBuilder<T> {
        let builder = builder.with_projection(columns).with_batch_size(rows);
        let Some(filter) = filter else { return builder };
        let (mask, filter) = (self.mask(filter.columns().fields().iter().map(|f| f.name())), filter.clone());
        let passes =
            move |stored: RecordBatch| filter.evaluate(|field| cast(&stored[field.name().as_str()], field.data_type()));
        builder.with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, passes))]))
    }

    /// Values in a vector: from the type, or from the first vector; `None` if there is none.
    async fn dim(&self, spec: &ParquetSpec) -> Result<Option<usize>> {
        let column = match &spec.features {
            Features::Columns(names) => return Ok(Some(names.len())),
            Features::Column(column) => column,
        };
        if let DataType::FixedSizeList(_, dim) = self.field(column)?.data_type() {
            return Ok(Some(*dim as usize).filter(|dim| *dim > 0));
        }
        let mask = self.mask(std::iter::once(column));
        let mut batches = self.batches(mask, 64, None)?;
        while let Some(batch) = batches.next().await.map_err(|e| unreadable(&self.name, e))? {
            let lists = Lists::of(batch.column(0))?;
            let lengths = (0..batch.num_rows()).filter_map(|i| lists.get(i).map(|r| r.len()));
            if let Some(dim) = lengths.into_iter().find(|len| *len > 0) {
                return Ok(Some(dim));
            }
        }
        Ok(None)
    }
}

/// The stored batches of one file. A local one is read page by page, so that memory does not follow the size of its row
/// groups, which many writers let grow to a million rows; of a remote one, each row group is fetched at once.
enum Batches {
    Local(LocalBatches),
    Remote(Box<ParquetRecordBatchStream<ObjectReader>>),
}

type LocalBatches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

impl Batches {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Local(batches) => batches.next().transpose(),
            Self::Remote(batches) => Ok(batches.try_next().await?),
        }
    }
}

fn unreadable(name: &str, e: impl Into<Error>) -> Error {
    let e = e.into();
    match e.kind() {
        Kind::Input => Error::input(format!("{name}: not a readable Parquet file")).with_source(e),
        _ => e.while_doing(name),
    }
}

/// The table of the vectors of Parquet files: keys, split, label, `features`. One partition, in order.
#[derive(Debug, Clone)]
struct VectorTable {
    spec: Arc<ParquetSpec>,
    files: Arc<[DataFile]>,
    schema: SchemaRef,
    dim: usize,
    rejects: Rejects,
}

impl VectorTable {
    /// The columns beside the vectors.
    fn plain(&self) -> Schema {
        Schema::new(self.schema.fields()[..self.schema.fields().len() - 1].to_vec())
    }
}

#[async_trait]
impl TableProvider for VectorTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(pushdown(filters, &self.plain()))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let filter = Condition::new(state, filters, &self.plain())?;
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = Scan { table: self.clone(), schema: schema.clone(), filter, limit };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, None, false, limit)?))
    }
}

/// One scan of a [`VectorTable`].
#[derive(Debug, Clone)]
struct Scan {
    table: VectorTable,
    schema: SchemaRef,
    filter: Option<Condition>,
    limit: Option<usize>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = batch_rows(self.table.dim, context.session_config().batch_size());
        let rows = rows.min(self.limit.unwrap_or(rows)).max(1);
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let out = builder.tx();
        let scan = self.clone();
        let runtime = Handle::current();
        // Decoding is arithmetic, and local files are read as it goes: neither belongs on a worker thread.
        builder.spawn_blocking(move || {
            runtime.block_on(async {
                // By the channel and not as the task's result, so that it does not overtake the rows before it.
                if let Err(e) = scan.run(rows, &out).await {
                    out.send(Err(e.into())).await.ok();
                }
            });
            Ok(())
        });
        builder.build()
    }
}

impl Scan {
    async fn run(&self, rows: usize, out: &Sender<DfResult<RecordBatch>>) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        for file in self.table.files.iter() {
            if left == 0 {
                break;
            }
            let mut batches = match self.open(file, rows).await {
                Ok(batches) => batches,
                Err(e) => {
                    self.table.rejects.reject_file(file.name(), e)?;
                    continue;
                }
            };
            while left > 0 {
                let stored = match batches.next().await {
                    Ok(Some(stored)) => stored,
                    Ok(None) => break,
                    Err(e) => {
                        self.table.rejects.reject_file(file.name(), unreadable(file.name(), e))?;
                        break;
                    }
                };
                let batch = self.convert(file.name(), &stored)?;
                left = left.saturating_sub(batch.num_rows());
                if batch.num_rows() > 0 && out.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rows of `file` that pass the filter, as they are stored, with the columns that are needed.
    async fn open(&self, file: &DataFile, rows: usize) -> Result<Batches> {
        let spec = &self.table.spec;
        let open = ParquetFile::open(file, spec).await?;
        self.check_types(&open)?;
        let judged = self.table.rejects.leaves_out();
        let needed = plain_names(spec).chain(spec.features.columns()).filter(|c| {
            let feature = spec.features.columns().contains(c);
            let asked = if feature { FEATURES } else { c.as_str() };
            self.schema.index_of(asked).is_ok() || (judged && (feature || spec.keys.contains(c)))
        });
        open.batches(open.mask(needed), rows, self.filter.as_ref()).map_err(|e| unreadable(&open.name, e))
    }

    /// Every file has the types of the first.
    fn check_types(&self, open: &ParquetFile) -> Result<()> {
        for field in open.plain_fields(&self.table.spec) {
            let expected = self.table.schema.field_with_name(field.name())?;
            if field.data_type() != expected.data_type() {
                return Err(Error::input(format!(
                    "{}: column {:?} is {}, expected {} as in the first file",
                    open.name,
                    field.name(),
                    field.data_type(),
                    expected.data_type()
                )));
            }
        }
        Ok(())
    }

    /// The good rows of `stored`, a batch of the file `name`, with the columns of the scan.
    fn convert(&self, name: &str, stored: &RecordBatch) -> Result<RecordBatch> {
        let spec = &self.table.spec;
        let mut reasons: Vec<Option<String>> = vec![None; stored.num_rows()];
        let mut vectors = self.vectors(stored, &mut reasons)?;
        for key in &spec.keys {
            let Some(column) = stored.column_by_name(key) else { continue };
            for i in (0..column.len()).filter(|&i| column.is_null(i)) {
                reasons[i].get_or_insert_with(|| format!("column {key:?} is null, expected a key"));
            }
        }
        let row_numbers = stored.column_by_name(ROW).map(|c| c.as_primitive::<Int64Type>());
        for (i, reason) in reasons.iter().enumerate() {
            if let Some(reason) = reason {
                let row = row_numbers.map_or(0, |r| r.value(i)) as u64 + 1;
                self.table.rejects.reject(name, row, format!("row {row}, {reason}"))?;
            }
        }
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef> {
            match vectors.take_if(|_| field.name() == FEATURES) {
                Some(vectors) => vector_array(vectors, self.table.dim),
                None => Ok(cast(stored_column(stored, field.name())?, field.data_type())?),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        let good: BooleanArray = reasons.iter().map(|r| Some(r.is_none())).collect();
        if good.true_count() == good.len() {
            return Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?);
        }
        // Keys are declared to be never null, which holds once the bad rows are gone.
        let loose = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let loose = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new_with_options(loose, columns, &options)?;
        let batch = filter_record_batch(&batch, &good)?;
        let options = options.with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?)
    }

    /// The vectors of a batch, row-major, where the columns were read; what is wrong with a row goes to `reasons`.
    fn vectors(&self, stored: &RecordBatch, reasons: &mut [Option<String>]) -> Result<Option<Vec<f32>>> {
        let (dim, features) = (self.table.dim, &self.table.spec.features);
        if stored.column_by_name(&features.columns()[0]).is_none() {
            return Ok(None);
        }
        let mut out = vec![0.0; stored.num_rows() * dim];
        match features {
            Features::Column(name) => {
                let lists = Lists::of(stored_column(stored, name)?)?;
                for (i, (row, reason)) in out.chunks_exact_mut(dim).zip(reasons).enumerate() {
                    *reason = lists.copy(i, row).err().map(|e| format!("column {name:?}: {e}"));
                }
            }
            Features::Columns(names) => {
                for (at, name) in names.iter().enumerate() {
                    let values = cast(stored_column(stored, name)?, &DataType::Float32)?;
                    let values = values.as_primitive::<Float32Type>();
                    for (i, reason) in reasons.iter_mut().enumerate() {
                        match finite(values, i) {
                            Ok(value) => out[i * dim + at] = value,
                            Err(e) => drop(reason.get_or_insert_with(|| format!("column {name:?} is {e}"))),
                        }
                    }
                }
            }
        }
        Ok(Some(out))
    }
}

fn stored_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("column {name:?} was not read")))
}
