//! One Parquet file: its footer, its columns, its batches.

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderBuilder, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use std::sync::Arc;

use super::direct::{DirectColumn, Vectors};
use super::lists::Lists;
use super::number::{Number, needs_double};
use super::reader::ObjectReader;
use super::{Features, ParquetSpec, plain_names};
use crate::error::{Error, Kind, Result};
use crate::source::filter::Condition;
use crate::source::location::DataFile;
use crate::source::no_column;

/// The name of the virtual column of row numbers; no column of a file should be named like that.
pub(super) const ROW: &str = "\0row";

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
pub(super) struct ParquetFile {
    name: String,
    file: DataFile,
    reader: ObjectReader,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer of `file` and checks the columns that `spec` names.
    pub(super) async fn open(file: &DataFile, spec: &ParquetSpec) -> Result<Self> {
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

    /// What the table needs to know of `file`: the columns beside its vectors, whether those need double precision, and
    /// how many values a vector has, if it has any.
    pub(super) async fn measure(file: &DataFile, spec: &ParquetSpec) -> Result<(Vec<Field>, bool, Option<usize>)> {
        let open = Self::open(file, spec).await?;
        Ok((open.plain_fields(spec), open.needs_double(spec)?, open.dim(spec).await?))
    }

    fn field(&self, column: &str) -> Result<&Field> {
        let fields = self.metadata.schema().fields();
        let there = || fields.iter().map(|f| f.name().as_str()).filter(|name| *name != ROW);
        let found = fields.iter().find(|f| f.name() == column);
        found.map(|f| f.as_ref()).ok_or_else(|| no_column(&self.name, column, there()))
    }

    fn check_features(&self, field: &Field, lists: bool) -> Result<()> {
        let number = |t: &DataType| t.is_numeric();
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
            true => "a FixedSizeList, List or LargeList of an integer, float or decimal type",
            false => "an integer, float or decimal type",
        };
        let (name, column, found) = (&self.name, field.name(), field.data_type());
        Err(Error::input(format!("{name}: column {column:?} is {found}, expected {expected}")))
    }

    /// Whether any of its features needs double precision.
    pub(super) fn needs_double(&self, spec: &ParquetSpec) -> Result<bool> {
        let columns = spec.features.columns().iter();
        let each = columns.map(|column| Ok(needs_double(self.field(column)?.data_type())));
        Ok(each.collect::<Result<Vec<bool>>>()?.contains(&true))
    }

    pub(super) fn plain_fields(&self, spec: &ParquetSpec) -> Vec<Field> {
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

    /// The columns `needed` of the rows that pass `filter`, up to `rows` at a time. The lists of column `vectors`, of that
    /// many numbers, come as vectors straight from their pages where that is possible.
    pub(super) fn batches<T: Number>(
        &self,
        needed: &[&String],
        vectors: Option<(&String, usize)>,
        rows: usize,
        filter: Option<&Condition>,
    ) -> Result<Batches<T>> {
        let all = || self.mask(needed.iter().copied());
        let Some(file) = self.file.local()? else {
            let builder =
                ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone());
            return Ok(Batches::Remote(Box::new(self.select(builder, all(), rows, filter).build()?)));
        };
        // A filter picks rows by Arrow's reader, which then must read the vectors, too.
        let direct = match vectors.filter(|(name, _)| filter.is_none() && needed.contains(name)) {
            Some((name, dim)) => {
                DirectColumn::of(self.metadata.metadata(), self.field(name)?).map(|column| (name, column, dim))
            }
            None => None,
        };
        let columns = match &direct {
            Some((name, ..)) => self.mask(needed.iter().copied().filter(|column| column != name)),
            None => all(),
        };
        let direct = direct.map(|(_, column, dim)| (column, dim));
        // Group by group: a filter is held against all rows that a reader has before it gives the first.
        let (open, filter) = (self.clone(), filter.cloned());
        let group_batches = move |group| -> Result<GroupBatches<T>> {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.try_clone()?, open.metadata.clone());
            let builder = builder.with_row_groups(vec![group]);
            let plain = open.select(builder, columns.clone(), rows, filter.as_ref()).build()?;
            let open_group = |(column, dim): &(DirectColumn, usize)| -> Result<_> {
                Ok((column.open(file.try_clone()?, open.metadata.metadata(), group)?, *dim))
            };
            Ok(GroupBatches { plain, vectors: direct.as_ref().map(open_group).transpose()? })
        };
        let groups = 0..self.metadata.metadata().num_row_groups();
        let batches = groups.flat_map(move |group| -> LocalBatches<T> {
            match group_batches(group) {
                Ok(batches) => Box::new(batches),
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

    /// Its name in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
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
        let mut batches = self.batches::<f32>(&[column], None, 64, None)?;
        while let Some(Stored { batch, .. }) = batches.next().await.map_err(|e| unreadable(&self.name, e))? {
            let lists = Lists::<f32>::of(batch.column(0))?;
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
pub(super) enum Batches<T> {
    Local(LocalBatches<T>),
    Remote(Box<ParquetRecordBatchStream<ObjectReader>>),
}

type LocalBatches<T> = Box<dyn Iterator<Item = Result<Stored<T>>> + Send>;

/// What is wrong with each row, if anything.
pub(super) type Reasons = Vec<Option<String>>;

/// Rows as they are stored.
pub(super) struct Stored<T> {
    /// All columns, or all but the vectors.
    pub batch: RecordBatch,
    /// The vectors, `rows x dim`, if they were read from their pages, and what is wrong with each row.
    pub vectors: Option<(Vec<T>, Reasons)>,
}

/// The batches of one row group: plain columns by Arrow's reader, and beside them the vectors.
struct GroupBatches<T> {
    plain: ParquetRecordBatchReader,
    vectors: Option<(Vectors<T>, usize)>,
}

impl<T: Number> Iterator for GroupBatches<T> {
    type Item = Result<Stored<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.plain.next()? {
            Ok(batch) => batch,
            Err(e) => return Some(Err(e.into())),
        };
        let vectors = self.vectors.as_mut().map(|(column, dim)| {
            let rows = batch.num_rows();
            let (mut out, mut reasons) = (Vec::with_capacity(rows * *dim), Vec::with_capacity(rows));
            column.read(rows, *dim, &mut out, &mut reasons).map(|()| (out, reasons))
        });
        Some(vectors.transpose().map(|vectors| Stored { batch, vectors }))
    }
}

impl<T> Batches<T> {
    pub(super) async fn next(&mut self) -> Result<Option<Stored<T>>> {
        match self {
            Self::Local(batches) => batches.next().transpose(),
            Self::Remote(batches) => Ok(batches.try_next().await?.map(|batch| Stored { batch, vectors: None })),
        }
    }
}

pub(super) fn unreadable(name: &str, e: impl Into<Error>) -> Error {
    let e = e.into();
    match e.kind() {
        Kind::Input => Error::input(format!("{name}: not a readable Parquet file")).with_source(e),
        _ => e.while_doing(name),
    }
}
