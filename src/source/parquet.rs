//! Feature vectors in Parquet files.
//!
//! The vectors are one column of lists (of any kind) of integers, floats, decimals or booleans, or one column per
//! value. Scans give them as `features`, in the order of the files' paths and of their rows. They are `Float32` if that
//! can represent every value of the files' types, and `Float64` if not (doubles, integers of 32 bits and more,
//! decimals). Only the columns that a scan and its filters ask for are read.
//!
//! # Where columns are
//! A column may lie inside structs, named with dots (`acc.x`). Keys, split and label may be in the path instead
//! (`split=train/part-0.parquet`; as text); where the file has the column as well, both must agree. A directory that is
//! a Delta table is read at its newest version: files that were replaced or removed are not read, partition values come
//! from the log, and a column that was added after a file was written is null in it.
//!
//! # Files that differ
//! All footers are read first ([`mod@survey`]). The type of a column is one that can represent the values of all files.
//! If there is no such type, as for text and numbers, the largest group of files that agree is used, and the others are
//! bad. The length of a vector is given by `dim`, or else by the type of the column, or else by most of about
//! [`survey::WIDTH_ROWS`] rows over the files.
//!
//! # Bad rows
//! A null vector, value or key; a vector of another length; a value that is not finite in single precision; a value
//! that contradicts the path; a 96-bit time with digits below a microsecond. A file is bad as a whole if it cannot be
//! read, its metadata contradicts itself, or it lacks a column. A damaged page costs the rows of its row group from the
//! batch with the damage on: they are counted, and the next row group is read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
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

use super::again::Again;
use super::bad::Rejects;
use super::fence::fenced_async;
use super::filter::{Condition, pushdown};
use super::location::LeftOut;
use super::windows::batch_rows;
use super::{Source, check_names};
use crate::column::is_double;
use crate::error::{Error, Result};
use crate::stage::FEATURES;

mod batches;
mod columns;
mod direct;
mod file;
mod files;
mod groups;
mod hybrid;
mod lists;
mod number;
mod page;
mod reader;
mod rounded;
pub mod survey;
mod thrift;
mod types;

use batches::{Batches, Reasons, Stored};
use file::ParquetFile;
use lists::{Lists, all_missing, number};
use number::Number;
use survey::{Survey, survey};

pub(super) use file::{ROW, footer, unreadable};
pub(super) use files::{VectorFile, rows_in};
pub(super) use groups::Groups;
pub(super) use reader::{LocalFile, ObjectReader};
pub(super) use types::{is_number, item_type};

/// Which files to read, and which columns of them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ParquetSpec {
    /// A file, a directory (its `.parquet` and `.pq`), a Delta table, a glob, or a URL of one of these.
    pub path: String,
    /// The column or the columns of the vectors.
    pub features: Features,
    /// How many values a vector in a column of lists has; if `None`, the most frequent length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// The column of labels, nullable.
    #[serde(default)]
    pub label: Option<String>,
    /// The columns that identify a row; never null.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The column that says which part of the data a row belongs to, nullable; becomes text.
    #[serde(default)]
    pub split: Option<String>,
    /// The columns that are carried along unchanged, nullable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

/// Where feature vectors are.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Features {
    /// In one column of lists.
    Column(String),
    /// In one column per value.
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

/// Opens the files of `spec`: reads all footers, and some vectors.
///
/// # Errors
/// Kind `Input` if no file can be used, a column is missing or has another type than expected, or vectors are empty;
/// `Config` if no column is named; `Table` if the log of a Delta table cannot be read; `Io` if a disk, network or object
/// store fails.
pub(super) async fn open(spec: &ParquetSpec, rejects: Rejects) -> Result<Source> {
    if spec.features.columns().is_empty() {
        return Err(Error::config("a parquet source needs `features`: a column of lists, or columns of numbers"));
    }
    let (files, left_out) = files::find(&spec.path).await?;
    Ok(Source { left_out, ..of_files(spec, files, rejects).await? })
}

/// As [`open`], with these files.
///
/// # Errors
/// As there.
pub(super) async fn of_files(spec: &ParquetSpec, files: Vec<VectorFile>, rejects: Rejects) -> Result<Source> {
    of_rows(spec, files, rejects, None).await
}

/// The files at `path`, without what is beside them.
///
/// # Errors
/// As there.
pub(super) async fn found(path: &str) -> Result<Vec<VectorFile>> {
    Ok(files::find(path).await?.0)
}

/// As [`of_files`], of the rows of `again` alone, if it is given.
///
/// # Errors
/// As there.
pub(super) async fn of_rows(
    spec: &ParquetSpec,
    files: Vec<VectorFile>,
    rejects: Rejects,
    again: Option<Arc<Again>>,
) -> Result<Source> {
    let Survey { files, plain, double, dim } = survey(files, spec, &rejects).await?;
    let rounded = if double { rounded::rounded(&files, spec, dim).await? } else { Vec::new() };
    let mut fields = plain;
    fields.push(if double { f64::field(FEATURES, dim) } else { f32::field(FEATURES, dim) });
    let schema = Arc::new(Schema::new(fields));
    check_names(&schema)?;
    let feature_names = match &spec.features {
        Features::Column(name) => (0..dim).map(|i| format!("{name}[{i}]")).collect(),
        Features::Columns(names) => names.clone(),
    };
    let description = format!(
        "vectors of {dim} values in {} Parquet files at {}",
        files.len(),
        crate::terminal::shown_name(&spec.path)
    );
    let table =
        VectorTable { spec: Arc::new(spec.clone()), files: files.into(), schema, dim, rejects: rejects.clone(), again };
    Ok(Source {
        provider: Arc::new(table),
        keys: spec.keys.clone(),
        label: spec.label.clone(),
        split: spec.split.clone(),
        carried: spec.keep.clone(),
        feature_names,
        dim,
        description,
        left_out: LeftOut::default(),
        rounded,
        windows: None,
        rejects,
    })
}

/// The names of the columns beside the vectors: keys, split, label, and those that are carried along.
fn plain_names(spec: &ParquetSpec) -> impl Iterator<Item = &String> {
    spec.keys.iter().chain(&spec.split).chain(&spec.label).chain(&spec.keep)
}

/// The table of the vectors of Parquet files: keys, split, label, what is carried along, `features`. One partition, in order.
#[derive(Debug, Clone)]
struct VectorTable {
    spec: Arc<ParquetSpec>,
    files: Arc<[VectorFile]>,
    schema: SchemaRef,
    dim: usize,
    rejects: Rejects,
    /// Which rows are read; all without it.
    again: Option<Arc<Again>>,
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
        // With a filter, the number of rows needed to reach the limit is not known.
        let rows = rows.min(self.limit.filter(|_| self.filter.is_none()).unwrap_or(rows)).max(1);
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let out = builder.tx();
        let scan = self.clone();
        let runtime = Handle::current();
        // Decoding is computation, and local files are read during it: neither belongs on an async worker thread.
        builder.spawn_blocking(move || {
            runtime.block_on(async {
                // The error goes through the channel and is not the task's result, so that it does not overtake the
                // rows before it.
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
            let name = file.name();
            let (open, mut batches) = match fenced_async(name, self.open::<T>(file, rows)).await {
                Ok(opened) => opened,
                Err(e) => {
                    self.table.rejects.reject_file(name, e)?;
                    continue;
                }
            };
            while left > 0 {
                let stored = match fenced_async(name, batches.next()).await {
                    Ok(Some(stored)) => stored,
                    Ok(None) => break,
                    Err(e) => {
                        self.table.rejects.reject_unread(name, batches.give_up(e)?)?;
                        continue;
                    }
                };
                let mut batch = self.convert(&open, stored)?;
                if batch.num_rows() > left {
                    batch = batch.slice(0, left);
                }
                left -= batch.num_rows();
                if batch.num_rows() > 0 && out.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The stored rows of `file`, with the columns that are needed.
    async fn open<T: Number>(&self, file: &VectorFile, rows: usize) -> Result<(ParquetFile, Batches<T>)> {
        let spec = &self.table.spec;
        let open = ParquetFile::open(file, spec).await?;
        let judged = self.table.rejects.leaves_out();
        let filtered = |c: &str| self.filter.as_ref().is_some_and(|filter| filter.columns().index_of(c).is_ok());
        let fields = self.table.plain();
        let mut needed = Vec::new();
        for c in plain_names(spec) {
            let judged = judged && (spec.keys.contains(c) || open.judges(c, fields.field_with_name(c)?.data_type())?);
            if self.schema.index_of(c).is_ok() || filtered(c) || judged {
                needed.push(c.as_str());
            }
        }
        if self.needs_vectors() {
            needed.extend(spec.features.columns().iter().map(String::as_str));
        }
        let vectors = match &spec.features {
            // The fast way knows no missing values.
            Features::Column(name) if !self.table.rejects.takes_missing() => Some((name.as_str(), self.table.dim)),
            Features::Column(_) | Features::Columns(_) => None,
        };
        let batches = open.batches(&needed, vectors, rows).map_err(|e| unreadable(open.name(), e))?;
        Ok((open, batches))
    }

    /// Whether vectors are read: because they are asked for, or because bad ones are left out.
    fn needs_vectors(&self) -> bool {
        self.schema.index_of(FEATURES).is_ok() || self.table.rejects.leaves_out()
    }

    /// The good rows of `stored`, a batch of the file `open`, that pass the filter; with the columns of the scan.
    fn convert<T: Number>(&self, open: &ParquetFile, stored: Stored<T>) -> Result<RecordBatch> {
        let spec = &self.table.spec;
        let Stored { batch: stored, exact, vectors } = stored;
        let (mut vectors, mut reasons) = match vectors {
            Some((vectors, reasons)) => {
                let column = &spec.features.columns()[0];
                let of_column = |reason: Option<String>| reason.map(|reason| in_column(column, &reason));
                (Some(vectors), reasons.into_iter().map(of_column).collect())
            }
            None if self.needs_vectors() => self.vectors(open, &stored)?,
            None => (None, vec![None; stored.num_rows()]),
        };
        if let Some(exact) = exact {
            for name in plain_names(spec) {
                open.column(name)?.check_times(&stored, &exact, &mut reasons)?;
            }
        }
        let judged = self.table.rejects.leaves_out();
        let mut plain = Vec::with_capacity(self.table.schema.fields().len());
        let fields = self.table.plain();
        for field in fields.fields() {
            let column = open.column(field.name())?;
            let is_key = spec.keys.contains(field.name());
            let judged = judged && (is_key || open.judges(field.name(), field.data_type())?);
            if self.schema.index_of(field.name()).is_err() && !judged {
                continue;
            }
            let values = column.of_table(&stored, field, &mut reasons)?;
            for i in (0..values.len()).filter(|&i| is_key && values.is_null(i)) {
                reasons[i].get_or_insert_with(|| format!("column {:?} is null, expected a key", field.name()));
            }
            plain.push((field.name().as_str(), values));
        }
        let passes = match &self.filter {
            Some(filter) => Some(filter.evaluate(|field| {
                // Bad values of this column are reported by scans that ask for it.
                let column = open
                    .column(field.name())
                    .and_then(|column| column.of_table(&stored, field, &mut vec![None; stored.num_rows()]));
                column.map_err(|e| ArrowError::ExternalError(Box::new(e)))
            })?),
            None => None,
        };
        let passes = |i: usize| passes.as_ref().is_none_or(|passes| passes.is_valid(i) && passes.value(i));
        let row_numbers = stored.column_by_name(file::ROW).map(|c| c.as_primitive::<Int64Type>());
        let asked = |i: usize| match &self.table.again {
            Some(again) => again.takes(open.name(), row_numbers.map_or(0, |r| r.value(i)) as u64 + 1),
            None => true,
        };
        let passes = |i: usize| passes(i) && asked(i);
        for (i, reason) in reasons.iter().enumerate() {
            if let Some(reason) = reason.as_ref().filter(|_| passes(i)) {
                let row = row_numbers.map_or(0, |r| r.value(i)) as u64 + 1;
                self.table.rejects.reject(open.name(), row, format!("row {row}, {reason}"))?;
            }
        }
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef> {
            match vectors.take_if(|_| field.name() == FEATURES) {
                Some(vectors) => T::array(vectors, self.table.dim),
                None => plain
                    .iter()
                    .find(|(name, _)| name == field.name())
                    .map(|(_, values)| ArrayRef::clone(values))
                    .ok_or_else(|| Error::internal(format!("column {:?} was not read", field.name()))),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        let good: BooleanArray = reasons.iter().enumerate().map(|(i, r)| Some(r.is_none() && passes(i))).collect();
        if good.true_count() == good.len() {
            return Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?);
        }
        // Keys are declared non-null, which only holds once the bad rows are removed.
        let loose = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let loose = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new_with_options(loose, columns, &options)?;
        let batch = filter_record_batch(&batch, &good)?;
        let options = options.with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?)
    }

    /// The vectors of a batch, row-major, and what is wrong with each row.
    fn vectors<T: Number>(&self, open: &ParquetFile, stored: &RecordBatch) -> Result<(Option<Vec<T>>, Reasons)> {
        let (dim, features) = (self.table.dim, &self.table.spec.features);
        let missing = self.table.rejects.takes_missing();
        let mut reasons: Reasons = vec![None; stored.num_rows()];
        let mut out = vec![T::default(); stored.num_rows() * dim];
        match features {
            Features::Column(name) => {
                let lists = Lists::of(&open.column(name)?.of_stored(stored)?)?;
                for (i, (row, reason)) in out.chunks_exact_mut(dim).zip(&mut reasons).enumerate() {
                    *reason = lists.copy(i, row, missing).err().map(|e| in_column(name, &e));
                }
            }
            Features::Columns(names) => {
                for (at, name) in names.iter().enumerate() {
                    let values = cast(&open.column(name)?.of_stored(stored)?, &T::Arrow::DATA_TYPE)?;
                    let values = values.as_primitive::<T::Arrow>();
                    for (i, reason) in reasons.iter_mut().enumerate() {
                        match number::<T>(values, i, missing) {
                            Ok(value) => out[i * dim + at] = value,
                            Err(e) => drop(reason.get_or_insert_with(|| format!("column {name:?} is {e}"))),
                        }
                    }
                }
            }
        }
        for (row, reason) in out.chunks_exact(dim).zip(&mut reasons).filter(|(_, reason)| missing && reason.is_none()) {
            *reason = all_missing(row);
        }
        Ok((Some(out), reasons))
    }
}

fn in_column(name: &str, problem: &str) -> String {
    format!("column {name:?}: {problem}")
}
