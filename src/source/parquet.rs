//! Feature vectors in Parquet files.
//!
//! The vectors are a column of lists (`FixedSizeList`, `List`, `LargeList`) of any integer or float type, or a column
//! each value. Scans give them as `features`, in the order of the files' paths and of their rows: vectors of `Float32`
//! where that holds every value of the files' own type, of `Float64` where it may not (doubles, whole numbers of 32 bits
//! and more, decimals).
//! Filters on the other columns are evaluated before vectors are read; only the columns that a scan asks for are read.
//!
//! # Bad rows
//! A null vector, value or key, a vector of another length, a value that is not finite in single precision. A file that
//! cannot be read, or lacks a column, is bad as a whole.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::bad::Rejects;
use super::filter::{Condition, pushdown};
use super::location::{DataFile, list};
use super::windows::batch_rows;
use super::{Source, check_names};
use crate::column::is_double;
use crate::error::{Error, Result};
use crate::stage::FEATURES;

mod direct;
mod file;
mod hybrid;
mod lists;
mod number;
mod page;
mod reader;

use file::{Batches, ParquetFile, Reasons, Stored, unreadable};
use lists::{Lists, finite};
use number::Number;

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
            Ok((plain, double, Some(dim))) => {
                found = Some((plain, double, dim));
                break;
            }
            Ok((_, _, None)) => drop(first_problem.get_or_insert(format!("{}: has no vectors", file.name()))),
            Err(e) => {
                let message = e.to_string();
                rejects.reject_file(file.name(), e)?;
                first_problem.get_or_insert(message);
            }
        }
    }
    let Some((plain, double, dim)) = found else {
        let problem = first_problem.unwrap_or_default();
        return Err(Error::input(format!("{}: no file can be used, the first because: {problem}", spec.path)));
    };
    let mut fields = plain.clone();
    fields.push(if double { f64::field(FEATURES, dim) } else { f32::field(FEATURES, dim) });
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
                let done = match is_double(&scan.table.schema, FEATURES) {
                    true => scan.run::<f64>(rows, &out).await,
                    false => scan.run::<f32>(rows, &out).await,
                };
                if let Err(e) = done {
                    out.send(Err(e.into())).await.ok();
                }
            });
            Ok(())
        });
        builder.build()
    }
}

impl Scan {
    async fn run<T: Number>(&self, rows: usize, out: &Sender<DfResult<RecordBatch>>) -> Result<()> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        for file in self.table.files.iter() {
            if left == 0 {
                break;
            }
            let mut batches = match self.open::<T>(file, rows).await {
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
                let batch = self.convert(file.name(), stored)?;
                left = left.saturating_sub(batch.num_rows());
                if batch.num_rows() > 0 && out.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rows of `file` that pass the filter, as they are stored, with the columns that are needed.
    async fn open<T: Number>(&self, file: &DataFile, rows: usize) -> Result<Batches<T>> {
        let spec = &self.table.spec;
        let open = ParquetFile::open(file, spec).await?;
        self.check_types(&open)?;
        let judged = self.table.rejects.leaves_out();
        let needed = plain_names(spec).chain(spec.features.columns()).filter(|c| {
            let feature = spec.features.columns().contains(c);
            let asked = if feature { FEATURES } else { c.as_str() };
            self.schema.index_of(asked).is_ok() || (judged && (feature || spec.keys.contains(c)))
        });
        let needed: Vec<&String> = needed.collect();
        let vectors = match &spec.features {
            Features::Column(name) => Some((name, self.table.dim)),
            Features::Columns(_) => None,
        };
        open.batches(&needed, vectors, rows, self.filter.as_ref()).map_err(|e| unreadable(open.name(), e))
    }

    /// Every file has the types of the first.
    fn check_types(&self, open: &ParquetFile) -> Result<()> {
        for field in open.plain_fields(&self.table.spec) {
            let expected = self.table.schema.field_with_name(field.name())?;
            if field.data_type() != expected.data_type() {
                return Err(Error::input(format!(
                    "{}: column {:?} is {}, expected {} as in the first file",
                    open.name(),
                    field.name(),
                    field.data_type(),
                    expected.data_type()
                )));
            }
        }
        Ok(())
    }

    /// The good rows of `stored`, a batch of the file `name`, with the columns of the scan.
    fn convert<T: Number>(&self, name: &str, stored: Stored<T>) -> Result<RecordBatch> {
        let spec = &self.table.spec;
        let Stored { batch: stored, vectors } = stored;
        let (mut vectors, mut reasons) = match vectors {
            Some((vectors, reasons)) => {
                let column = &spec.features.columns()[0];
                let of_column = |reason: Option<String>| reason.map(|reason| in_column(column, &reason));
                (Some(vectors), reasons.into_iter().map(of_column).collect())
            }
            None => self.vectors(&stored)?,
        };
        for key in &spec.keys {
            let Some(column) = stored.column_by_name(key) else { continue };
            for i in (0..column.len()).filter(|&i| column.is_null(i)) {
                reasons[i].get_or_insert_with(|| format!("column {key:?} is null, expected a key"));
            }
        }
        let row_numbers = stored.column_by_name(file::ROW).map(|c| c.as_primitive::<Int64Type>());
        for (i, reason) in reasons.iter().enumerate() {
            if let Some(reason) = reason {
                let row = row_numbers.map_or(0, |r| r.value(i)) as u64 + 1;
                self.table.rejects.reject(name, row, format!("row {row}, {reason}"))?;
            }
        }
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef> {
            match vectors.take_if(|_| field.name() == FEATURES) {
                Some(vectors) => T::array(vectors, self.table.dim),
                None => Ok(cast(stored_column(&stored, field.name())?, field.data_type())?),
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

    /// The vectors of a batch, row-major, where the columns were read; and what is wrong with each row.
    fn vectors<T: Number>(&self, stored: &RecordBatch) -> Result<(Option<Vec<T>>, Reasons)> {
        let (dim, features) = (self.table.dim, &self.table.spec.features);
        let mut reasons: Reasons = vec![None; stored.num_rows()];
        if stored.column_by_name(&features.columns()[0]).is_none() {
            return Ok((None, reasons));
        }
        let mut out = vec![T::default(); stored.num_rows() * dim];
        match features {
            Features::Column(name) => {
                let lists = Lists::of(stored_column(stored, name)?)?;
                for (i, (row, reason)) in out.chunks_exact_mut(dim).zip(&mut reasons).enumerate() {
                    *reason = lists.copy(i, row).err().map(|e| in_column(name, &e));
                }
            }
            Features::Columns(names) => {
                for (at, name) in names.iter().enumerate() {
                    let values = cast(stored_column(stored, name)?, &T::Arrow::DATA_TYPE)?;
                    let values = values.as_primitive::<T::Arrow>();
                    for (i, reason) in reasons.iter_mut().enumerate() {
                        match finite::<T>(values, i) {
                            Ok(value) => out[i * dim + at] = value,
                            Err(e) => drop(reason.get_or_insert_with(|| format!("column {name:?} is {e}"))),
                        }
                    }
                }
            }
        }
        Ok((Some(out), reasons))
    }
}

fn in_column(name: &str, problem: &str) -> String {
    format!("column {name:?}: {problem}")
}

fn stored_column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("column {name:?} was not read")))
}
