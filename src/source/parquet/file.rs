//! One Parquet file: its footer, its columns, its row groups.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::ParquetMetaData;

use super::batches::{Asked, Batches};
use super::columns::Column;
use super::direct::DirectColumn;
use super::files::VectorFile;
use super::groups::Groups;
use super::lists::Lists;
use super::number::{Number, needs_double};
use super::reader::{LocalFile, ObjectReader};
use super::types::{is_number, item_type};
use super::{Features, ParquetSpec, plain_names};
use crate::error::{Error, Kind, Result};
use crate::source::bad::Unread;
use crate::source::fence::fenced_async;
use crate::source::location::DataFile;

/// The name of the virtual column of row numbers; unlikely to be the name of a real column.
pub(in crate::source) const ROW: &str = "\0row";

/// The most rows that a footer may claim for each byte of the file. Columns of a single value take almost no bytes, but
/// a flipped bit can make any number.
const ROWS_A_BYTE: u64 = 1 << 16;

/// The most values by which the lists of one row group may exceed vectors of the expected length, where lists are read
/// as a whole: a list that is much longer than a vector would be in memory at once.
const MORE_VALUES: i64 = 1 << 24;

/// Row groups of a file that are read to find the width of its vectors, spread evenly.
const SAMPLED_GROUPS: usize = 16;

/// How the 96-bit times are read again in nanoseconds.
pub(super) type Exact = (ArrowReaderMetadata, ProjectionMask);

/// How many vectors there are of each width.
pub(super) type Widths = BTreeMap<usize, u64>;

/// A file whose footer was read.
#[derive(Clone)]
pub(super) struct ParquetFile {
    file: VectorFile,
    reader: ObjectReader,
    metadata: ArrowReaderMetadata,
    /// The same with 96-bit times in nanoseconds, if there are any.
    nanoseconds: Option<ArrowReaderMetadata>,
    /// Keys, split, label, and the features.
    columns: BTreeMap<String, Column>,
}

impl ParquetFile {
    /// Reads the footer of `file` and checks the columns that `spec` names.
    ///
    /// # Errors
    /// Kind `Input` if the file is damaged, lacks a column or has features that are not numbers; `Io` if it cannot be
    /// read.
    pub(super) async fn open(file: &VectorFile, spec: &ParquetSpec) -> Result<Self> {
        let (reader, metadata, nanoseconds) = whole_footer(file.file()).await?;
        let fields = metadata.schema().fields();
        let mut seen = HashSet::new();
        let twice: HashSet<&str> =
            fields.iter().map(|f| f.name().as_str()).filter(|name| !seen.insert(*name)).collect();
        let names = plain_names(spec).chain(spec.features.columns());
        let columns = names.map(|name| Ok((name.clone(), Column::find(file, fields, &twice, name)?)));
        let columns = columns.collect::<Result<BTreeMap<_, _>>>()?;
        let open = Self { file: file.clone(), reader, metadata, nanoseconds, columns };
        for column in spec.features.columns() {
            open.check_features(column, matches!(spec.features, Features::Column(_)))?;
        }
        Ok(open)
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &str {
        self.file.name()
    }

    /// Column `name`, which must be one that the spec names.
    pub(super) fn column(&self, name: &str) -> Result<&Column> {
        self.columns.get(name).ok_or_else(|| Error::internal(format!("column {name:?} was not looked for")))
    }

    /// Whether column `name`, whose type in the table is `expected`, may have values that make rows bad.
    pub(super) fn judges(&self, name: &str, expected: &DataType) -> Result<bool> {
        let column = self.column(name)?;
        let stored = column.plain_type(*expected == DataType::Utf8);
        let converted = stored.as_ref().is_some_and(|stored| !stored.equals_datatype(expected));
        let cut = self.nanoseconds.is_some() && matches!(stored, Some(DataType::Timestamp(..)));
        Ok(column.is_said_twice() || converted || cut)
    }

    /// The field of a column of features.
    fn feature(&self, name: &str) -> Result<&FieldRef> {
        let stored = self.column(name)?.stored().map(|stored| &stored.field);
        stored.ok_or_else(|| Error::input(format!("{}: features {name:?} are not in the file", self.name())))
    }

    /// The type of a column of features.
    pub(super) fn stored_type(&self, name: &str) -> Result<&DataType> {
        Ok(self.feature(name)?.data_type())
    }

    fn check_features(&self, column: &str, lists: bool) -> Result<()> {
        let found = self.feature(column)?.data_type();
        let fits = match item_type(found) {
            Some(item) => lists && is_number(item),
            None => !lists && is_number(found),
        };
        if fits {
            return Ok(());
        }
        let inside = match found {
            DataType::Struct(fields) => {
                let names = fields.iter().map(|field| format!("{column}.{}", field.name())).collect::<Vec<_>>();
                format!("; a value inside is named with a dot ({})", names.join(", "))
            }
            list if item_type(list).is_some_and(|item| item_type(item).is_some()) => {
                "; flatten lists of lists into one list a row".to_string()
            }
            _ => String::new(),
        };
        let expected = match lists {
            true => "lists (of any kind) of integers, floats, decimals or booleans",
            false => "an integer, float, decimal or boolean type",
        };
        Err(Error::input(format!("{}: column {column:?} is {found}, expected {expected}{inside}", self.name())))
    }

    /// Whether any of its features needs double precision.
    pub(super) fn needs_double(&self, spec: &ParquetSpec) -> Result<bool> {
        let columns = spec.features.columns().iter();
        let each = columns.map(|column| Ok(needs_double(self.feature(column)?.data_type())));
        Ok(each.collect::<Result<Vec<bool>>>()?.contains(&true))
    }

    /// The number of values that the type of column `name` gives every vector, if it does.
    pub(super) fn fixed_width(&self, name: &str) -> Result<Option<usize>> {
        Ok(match self.feature(name)?.data_type() {
            DataType::FixedSizeList(_, dim) => usize::try_from(*dim).ok(),
            _ => None,
        })
    }

    /// Rows in all row groups.
    pub(super) fn rows(&self) -> u64 {
        self.metadata.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64).sum()
    }

    /// The leaf columns of a scan, by the names of its columns.
    fn mask<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Result<ProjectionMask> {
        Ok(ProjectionMask::leaves(self.metadata.parquet_schema(), self.leaves(columns)?))
    }

    /// How the 96-bit times among `columns` are read in nanoseconds, in addition to microseconds, which drop digits;
    /// `None` if there are none.
    fn exact<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Result<Option<Exact>> {
        let Some(metadata) = &self.nanoseconds else { return Ok(None) };
        let schema = self.metadata.parquet_schema();
        let mut leaves = self.leaves(columns)?;
        leaves.retain(|&leaf| schema.column(leaf).physical_type() == PhysicalType::INT96);
        Ok((!leaves.is_empty()).then(|| (metadata.clone(), ProjectionMask::leaves(schema, leaves))))
    }

    /// The leaf indices of the columns.
    pub(super) fn leaves<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Result<Vec<usize>> {
        let schema = self.metadata.parquet_schema();
        let mut paths: HashSet<&[String]> = HashSet::new();
        for name in columns {
            paths.extend(self.column(name)?.stored().map(|stored| stored.path.as_slice()));
        }
        let asked = |leaf: &usize| {
            let parts = schema.column(*leaf).path().parts().to_vec();
            (1..=parts.len()).any(|len| paths.contains(&parts[..len]))
        };
        Ok((0..schema.num_columns()).filter(asked).collect())
    }

    /// The columns `needed`, up to `rows` rows at a time. The lists of column `vectors`, of that many numbers, are read
    /// directly from their pages if possible.
    pub(super) fn batches<T: Number>(
        &self,
        needed: &[&str],
        vectors: Option<(&str, usize)>,
        rows: usize,
    ) -> Result<Batches<T>> {
        let vectors = vectors.filter(|(name, _)| needed.contains(name));
        let file = self.local()?;
        let direct = match (&file, vectors) {
            (Some(_), Some((name, dim))) => self.direct(name)?.map(|column| (name, column, dim)),
            _ => None,
        };
        let is_direct = |column: &str| direct.as_ref().is_some_and(|(name, ..)| *name == column);
        let columns = needed.iter().copied().filter(|column| !is_direct(column));
        let as_stored = vectors.filter(|(name, _)| !is_direct(name));
        let asked = Asked {
            columns: self.mask(columns)?,
            exact: self.exact(needed.iter().copied())?,
            lists: as_stored.map(|(name, dim)| (name.to_owned(), dim)),
            direct: direct.map(|(_, column, dim)| (column, dim)),
            rows,
        };
        Ok(Batches::new(self.clone(), file, asked))
    }

    /// The file, where it is a local one.
    pub(super) fn local(&self) -> Result<Option<LocalFile>> {
        Ok(self.file.file().local()?.map(|file| LocalFile::new(file, self.reader.size())))
    }

    /// Column `name`, if its pages can be read directly.
    fn direct(&self, name: &str) -> Result<Option<DirectColumn>> {
        let at_top = self.column(name)?.stored().is_some_and(|stored| stored.path.len() == 1);
        Ok(match at_top {
            true => DirectColumn::of(self.metadata.metadata(), self.feature(name)?),
            false => None,
        })
    }

    /// The rows of one row group by Arrow's reader.
    pub(super) fn group(
        &self,
        metadata: &ArrowReaderMetadata,
        file: &LocalFile,
        group: usize,
        columns: ProjectionMask,
        rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.again()?, metadata.clone());
        Ok(builder.with_row_groups(vec![group]).with_projection(columns).with_batch_size(rows).build()?)
    }

    /// The same of a remote file, whose row group is fetched at once.
    pub(super) fn remote_group(
        &self,
        metadata: &ArrowReaderMetadata,
        group: usize,
        columns: ProjectionMask,
        rows: usize,
    ) -> Result<ParquetRecordBatchStream<ObjectReader>> {
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), metadata.clone());
        Ok(builder.with_row_groups(vec![group]).with_projection(columns).with_batch_size(rows).build()?)
    }

    /// Its metadata.
    pub(super) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// Checks that the lists of column `name` in a row group are short enough for a batch to fit into memory, where
    /// lists are read as a whole.
    pub(super) fn check_lists(&self, group: usize, name: &str, dim: usize) -> Result<()> {
        let schema = self.metadata.parquet_schema();
        let path = self.column(name)?.stored().map(|stored| stored.path.clone()).unwrap_or_default();
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.column(leaf).path().parts().starts_with(&path));
        let Some(leaf) = leaf else { return Ok(()) };
        let group = self.metadata.metadata().row_group(group);
        let (values, rows) = (group.column(leaf).num_values(), group.num_rows());
        let of_vectors = rows.saturating_mul(i64::try_from(dim).unwrap_or(i64::MAX));
        match values.saturating_sub(of_vectors) > MORE_VALUES {
            true => Err(Error::input(format!(
                "column {name:?} holds {values} values in {rows} rows, expected {dim} a row: too many to be read at once \
                 as they are stored"
            ))),
            false => Ok(()),
        }
    }

    /// The widths of about `rows` of the vectors in column `name`, not counting empty ones; and which row groups could
    /// not be read.
    ///
    /// # Errors
    /// Kind `Io` if the file cannot be read.
    pub(super) async fn widths(&self, name: &str, rows: usize) -> Result<(Widths, Vec<Unread>)> {
        let (mut widths, mut damaged) = (Widths::new(), Vec::new());
        let (file, direct) = match self.local()? {
            Some(file) => (Some(file), self.direct(name)?),
            None => (None, None),
        };
        let mut groups = Groups::of(self.metadata.metadata());
        let all = self.metadata.metadata().num_row_groups();
        // Of a remote file, a row group is fetched at once.
        let sampled = all.min(if file.is_some() { SAMPLED_GROUPS } else { 1 });
        let rows = rows.div_ceil(sampled.max(1));
        let mut wanted = (0..sampled).map(|i| i * all / sampled).collect::<VecDeque<usize>>();
        while let Some(group) = groups.current() {
            if wanted.front() != Some(&group) {
                groups.pass();
                continue;
            }
            wanted.pop_front();
            let looking = async {
                match (&file, &direct) {
                    (Some(file), Some(column)) => self.direct_lengths(column, file, group, rows),
                    (Some(file), None) => {
                        let mask = self.mask(std::iter::once(name))?;
                        let batch = self.group(&self.metadata, file, group, mask, rows)?.next().transpose()?;
                        self.lengths(name, batch.as_ref(), rows)
                    }
                    (None, _) => {
                        let mask = self.mask(std::iter::once(name))?;
                        let batch = self.remote_group(&self.metadata, group, mask, rows)?.try_next().await?;
                        self.lengths(name, batch.as_ref(), rows)
                    }
                }
            };
            match fenced_async(self.name(), looking).await {
                Ok(lengths) => {
                    for length in lengths.into_iter().filter(|length| *length > 0) {
                        *widths.entry(length).or_default() += 1;
                    }
                    groups.pass();
                }
                Err(e) => {
                    damaged.push(groups.give_up(self.name(), e)?);
                    // The next one is looked at in its place.
                    if let Some(next) = groups.current().filter(|next| wanted.front() != Some(next)) {
                        wanted.push_front(next);
                    }
                }
            }
        }
        Ok((widths, damaged))
    }

    fn direct_lengths(&self, column: &DirectColumn, file: &LocalFile, group: usize, rows: usize) -> Result<Vec<usize>> {
        let mut lists = column.open::<f32>(file.again()?, self.metadata.metadata(), group)?;
        let many = usize::try_from(self.metadata.metadata().row_group(group).num_rows()).unwrap_or(usize::MAX);
        let mut lengths = Vec::with_capacity(rows.min(many));
        for _ in 0..rows.min(many) {
            lengths.extend(lists.length()?);
        }
        Ok(lengths)
    }

    fn lengths(&self, name: &str, batch: Option<&RecordBatch>, rows: usize) -> Result<Vec<usize>> {
        let Some(batch) = batch else { return Ok(Vec::new()) };
        let lists = Lists::<f32>::of(&self.column(name)?.of_stored(batch)?)?;
        Ok((0..batch.num_rows().min(rows)).filter_map(|i| lists.get(i)).map(|list| list.len()).collect())
    }
}

/// Reads the footer of `file` and checks it against the file's size; also gives the reader. Rows have their number in
/// column [`ROW`].
///
/// # Errors
/// Kind `Input` if it is not a Parquet file or damaged; `Io` if it cannot be read.
pub(in crate::source) async fn footer(file: &DataFile) -> Result<(ObjectReader, ArrowReaderMetadata)> {
    let (reader, metadata, _) = whole_footer(file).await?;
    Ok((reader, metadata))
}

/// As [`footer`], with a second set of metadata that reads 96-bit times in nanoseconds, if there are any.
async fn whole_footer(file: &DataFile) -> Result<(ObjectReader, ArrowReaderMetadata, Option<ArrowReaderMetadata>)> {
    let name = file.name();
    let mut reader = ObjectReader::new(file)?;
    let parsed = reader.get_metadata(None).await.map_err(|e| unreadable(name, e))?;
    check_sizes(&parsed, reader.size()).map_err(|e| unreadable(name, e))?;
    let (metadata, nanoseconds) = arrow_metadata(parsed).map_err(|e| unreadable(name, e))?;
    Ok((reader, metadata, nanoseconds))
}

/// Arrow's metadata of a file, with a virtual column of row numbers. 96-bit times are read as microseconds, since
/// Arrow's default of nanoseconds cannot represent years before 1677 and after 2262. If there are such times, also the
/// metadata that reads them in nanoseconds.
fn arrow_metadata(metadata: Arc<ParquetMetaData>) -> Result<(ArrowReaderMetadata, Option<ArrowReaderMetadata>)> {
    let options = || {
        let row = Field::new(ROW, DataType::Int64, false).with_extension_type(RowNumber);
        ArrowReaderOptions::new().with_virtual_columns(vec![Arc::new(row)])
    };
    let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options()?)?;
    let schema = metadata.file_metadata().schema_descr();
    let of_96_bits =
        (0..schema.num_columns()).filter(|&leaf| schema.column(leaf).physical_type() == PhysicalType::INT96);
    let roots: Vec<usize> = of_96_bits.map(|leaf| schema.get_column_root_idx(leaf)).collect();
    if roots.is_empty() {
        return Ok((arrow, None));
    }
    let fields = arrow.schema().fields().iter().filter(|field| field.name() != ROW).enumerate();
    let fields = fields.map(|(i, field)| if roots.contains(&i) { in_microseconds(field) } else { Arc::clone(field) });
    let schema = Schema::new_with_metadata(fields.collect::<Fields>(), arrow.schema().metadata().clone());
    let in_microseconds = ArrowReaderMetadata::try_new(metadata, options()?.with_schema(Arc::new(schema)))?;
    Ok((in_microseconds, Some(arrow)))
}

fn in_microseconds(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(in_microseconds).collect()),
        DataType::List(item) => DataType::List(in_microseconds(item)),
        DataType::LargeList(item) => DataType::LargeList(in_microseconds(item)),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Checks that the numbers in a footer agree with each other and with the `size` of the file in bytes.
fn check_sizes(metadata: &ParquetMetaData, size: u64) -> Result<()> {
    let damaged = |what: String| Err(Error::input(format!("its metadata is damaged: {what}")));
    let mut rows = 0i64;
    for (i, group) in metadata.row_groups().iter().enumerate() {
        let found = group.num_rows();
        if u64::try_from(found).map_or(true, |found| found > size.saturating_mul(ROWS_A_BYTE)) {
            return damaged(format!("{found} rows in row group {i} of a file of {size} bytes"));
        }
        rows = rows.saturating_add(found);
        for column in group.columns() {
            let (start, len) =
                (column.dictionary_page_offset().unwrap_or(column.data_page_offset()), column.compressed_size());
            let inside = |(start, len): (u64, u64)| start.checked_add(len).is_some_and(|end| end <= size);
            if !u64::try_from(start).ok().zip(u64::try_from(len).ok()).is_some_and(inside) {
                let path = column.column_path();
                return damaged(format!("{len} bytes at byte {start} for column {path} of a file of {size} bytes"));
            }
            let values = column.num_values();
            if column.column_descr().max_rep_level() == 0 && values != found {
                let path = column.column_path();
                return damaged(format!("{values} values of column {path} for {found} rows in row group {i}"));
            }
        }
    }
    let expected = metadata.file_metadata().num_rows();
    if rows != expected {
        return damaged(format!("{rows} rows in its row groups, and {expected} in all"));
    }
    Ok(())
}

pub(in crate::source) fn unreadable(name: &str, e: impl Into<Error>) -> Error {
    let e = e.into();
    match e.kind() {
        Kind::Input => Error::input(format!("{name}: not a readable Parquet file")).with_source(e),
        _ => e.while_doing(name),
    }
}
