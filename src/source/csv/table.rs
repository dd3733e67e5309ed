//! The rows of a Parquet file of samples, in the form of the lines of a text file.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryViewArray, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use tokio::runtime::Handle;

use super::lines::LONGEST;
use super::record::Record;
use super::{CsvSpec, FILE};
use crate::error::{Error, Result};
use crate::source::bad::Unread;
use crate::source::fence::fenced;
use crate::source::hive;
use crate::source::location::{DataFile, plain_name};
use crate::source::no_column;
use crate::source::parquet::{Groups, LocalFile, ObjectReader, ROW, footer, unreadable};

/// The endings of the names of Parquet files.
pub(in crate::source) const ENDINGS: [&str; 2] = [".parquet", ".pq"];

/// Rows that are decoded at a time.
const ROWS: usize = 4096;

/// Reads the rows of a file one by one: the columns that a source names, each value as text. A null is empty, a time is
/// in ISO 8601, and a channel has all its digits, so that no bit is lost.
pub(super) struct TableRows {
    name: String,
    place: Place,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    groups: Groups,
    /// The reader of the current row group, once it was begun.
    batches: Option<Batches>,
    columns: Vec<Column>,
    /// The values of the current batch, by column.
    texts: Vec<Texts>,
    /// The next row of the batch.
    at: usize,
    /// The number of rows of the file before the batch.
    before: u64,
    /// The rows that could not be read since [`take_unread`](Self::take_unread).
    unread: Vec<Unread>,
}

/// Where the file is.
enum Place {
    Local(LocalFile),
    Remote(ObjectReader, Handle),
}

enum Batches {
    Local(ParquetRecordBatchReader),
    Remote(Box<ParquetRecordBatchStream<ObjectReader>>, Handle),
}

impl Batches {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(match self {
            Self::Local(reader) => reader.next().transpose()?,
            Self::Remote(stream, handle) => handle.block_on(stream.try_next())?,
        })
    }
}

/// The values of a column in a batch.
enum Texts {
    /// Values of any type but text, written as text.
    Written(StringArray),
    /// Text as stored: a value that many rows share is in memory once.
    Stored(BinaryViewArray),
}

impl Texts {
    fn len(&self) -> usize {
        match self {
            Self::Written(texts) => texts.len(),
            Self::Stored(texts) => texts.len(),
        }
    }

    /// The value in row `at`; empty for a null.
    fn value(&self, at: usize) -> &[u8] {
        match self {
            Self::Written(texts) if texts.is_valid(at) => texts.value(at).as_bytes(),
            Self::Stored(texts) if texts.is_valid(at) => texts.value(at),
            _ => &[],
        }
    }
}

/// A column that is read.
struct Column {
    name: String,
    is_channel: bool,
}

/// The bytes that Parquet files begin and end with.
const MAGIC: [u8; 4] = *b"PAR1";

/// Whether `file` is a Parquet file: by its name, or, for a local file, by its first and last bytes.
pub(in crate::source) fn is_table(file: &DataFile) -> bool {
    !file.is_held() && is_parquet(file.name()) || file.local().ok().flatten().is_some_and(has_magic)
}

/// Whether files of this name are read as Parquet, whatever they contain.
pub fn is_parquet(name: &str) -> bool {
    let name = plain_name(name).to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn has_magic(mut file: std::fs::File) -> bool {
    let mut is_there = |place| -> io::Result<bool> {
        let mut found = [0; MAGIC.len()];
        file.seek(place)?;
        file.read_exact(&mut found)?;
        Ok(found == MAGIC)
    };
    let end = SeekFrom::End(-(MAGIC.len() as i64));
    is_there(SeekFrom::Start(0)).unwrap_or(false) && is_there(end).unwrap_or(false)
}

impl TableRows {
    /// Opens `file` for the columns that `spec` names, in the order of the file. Blocks.
    ///
    /// # Errors
    /// Kind `Input` if it is not a Parquet file, is damaged, or has two columns of one name or a column whose values
    /// cannot be written as text; `Io` if it cannot be read.
    pub(super) fn open(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        fenced(file.name(), || Self::of(file, spec))
    }

    fn of(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        let unreadable = |e: parquet::errors::ParquetError| unreadable(file.name(), e);
        let handle = Handle::current();
        let (reader, metadata) = handle.block_on(footer(file))?;
        let metadata = text_as_stored(&metadata).map_err(unreadable)?;
        let fields: Vec<&Arc<Field>> = metadata.schema().fields().iter().collect();
        let there = || fields.iter().map(|field| field.name().as_str());
        // Values in the path, and the file's name as a key, need no column.
        let path = hive::columns(file.name());
        let outside = |name: &String| name == FILE || path.contains_key(name);
        let mut needed = spec.columns().chain(spec.attributes().filter(|name| !outside(name)));
        if let Some(name) = needed.find(|name| !there().any(|column| column == *name)) {
            return Err(no_column(file.name(), name, there()));
        }
        let is_named = |at: &usize| spec.columns().chain(spec.attributes()).any(|name| name == fields[*at].name());
        let wanted: Vec<usize> = (0..fields.len()).filter(is_named).collect();
        let mut columns: Vec<Column> = Vec::with_capacity(wanted.len());
        for &at in &wanted {
            check(file, fields[at])?;
            let name = fields[at].name().clone();
            if columns.iter().any(|column| column.name == name) {
                return Err(Error::input(format!("{}: two columns are named {name:?}", file.name())));
            }
            columns.push(Column { is_channel: spec.channels.contains(&name), name });
        }
        let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
        let place = match file.local()? {
            Some(local) => Place::Local(LocalFile::new(local, reader.size())),
            None => Place::Remote(reader, handle),
        };
        Ok(Self {
            name: file.name().to_owned(),
            place,
            groups: Groups::of(metadata.metadata()),
            metadata,
            mask,
            batches: None,
            columns,
            texts: vec![],
            at: 0,
            before: 0,
            unread: vec![],
        })
    }

    /// The names of the columns, in the order of the fields of its rows.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Reads the next row into `record`; its line is the number of the row, counted from 1. False at the end. Rows that
    /// cannot be read are passed by, see [`take_unread`](Self::take_unread).
    ///
    /// # Errors
    /// Errors of reading the file.
    pub(super) fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        while self.texts.first().is_none_or(|texts| self.at == texts.len()) {
            let Some(group) = self.groups.current() else { return Ok(false) };
            let name = self.name.clone();
            if let Err(e) = fenced(&name, || self.next_batch(group)) {
                (self.batches, self.texts, self.at) = (None, vec![], 0);
                self.unread.push(self.groups.give_up(&name, e).map_err(io::Error::other)?);
            }
        }
        let at = self.at;
        let row = self.before + at as u64 + 1;
        let mut lengths = self.texts.iter().map(|texts| texts.value(at).len()).zip(&self.columns);
        match lengths.find(|(length, _)| *length > LONGEST) {
            None => record.set(row, self.texts.iter().map(|texts| texts.value(at))),
            Some((length, Column { name, .. })) => {
                record.set(row, std::iter::empty());
                record.fail(format!("column {name:?} holds {length} bytes, expected at most {LONGEST}"));
            }
        }
        self.at += 1;
        Ok(true)
    }

    /// The rows that could not be read since this was called last.
    pub(super) fn take_unread(&mut self) -> Vec<Unread> {
        std::mem::take(&mut self.unread)
    }

    /// Reads the next batch of a row group, or ends the row group.
    fn next_batch(&mut self, group: usize) -> Result<()> {
        let batches = match &mut self.batches {
            Some(batches) => batches,
            none => none.insert(begin(&self.place, &self.metadata, &self.mask, group)?),
        };
        let Some(batch) = batches.next()? else {
            self.batches = None;
            return self.groups.end();
        };
        self.texts = self.texts_of(&batch)?;
        (self.at, self.before) = (0, self.groups.row());
        self.groups.give(batch.num_rows())
    }

    fn texts_of(&self, batch: &RecordBatch) -> Result<Vec<Texts>> {
        let text = |column: &Column| {
            let values = batch.column_by_name(&column.name).ok_or_else(|| Error::input("a column is missing"))?;
            let values = match values.data_type() {
                DataType::Utf8View => return Ok(Texts::Stored(values.as_string_view().clone().to_binary_view())),
                DataType::BinaryView => return Ok(Texts::Stored(values.as_binary_view().clone())),
                DataType::Timestamp(unit, Some(_)) => cast(values, &DataType::Timestamp(*unit, Some("+00:00".into())))?,
                DataType::Float16 | DataType::Float32 if column.is_channel => cast(values, &DataType::Float64)?,
                DataType::Boolean if column.is_channel => cast(values, &DataType::UInt8)?,
                _ => Arc::clone(values),
            };
            Ok(Texts::Written(cast(&values, &DataType::Utf8)?.as_string::<i32>().clone()))
        };
        self.columns.iter().map(text).collect()
    }
}

/// The reader of a row group.
fn begin(place: &Place, metadata: &ArrowReaderMetadata, mask: &ProjectionMask, group: usize) -> Result<Batches> {
    Ok(match place {
        Place::Local(file) => {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.again()?, metadata.clone());
            let builder = builder.with_row_groups(vec![group]).with_projection(mask.clone()).with_batch_size(ROWS);
            Batches::Local(builder.build()?)
        }
        Place::Remote(reader, handle) => {
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader.clone(), metadata.clone());
            let builder = builder.with_row_groups(vec![group]).with_projection(mask.clone()).with_batch_size(ROWS);
            Batches::Remote(Box::new(builder.build()?), handle.clone())
        }
    })
}

/// Metadata that makes Arrow give text as views, so that a long value of a dictionary is not copied for each row.
fn text_as_stored(metadata: &ArrowReaderMetadata) -> parquet::errors::Result<ArrowReaderMetadata> {
    let as_stored = |field: &Arc<Field>| {
        let values = match field.data_type() {
            DataType::Dictionary(_, values) => values,
            values => values,
        };
        match values {
            DataType::Utf8 | DataType::LargeUtf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
            DataType::Binary | DataType::LargeBinary => {
                Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView))
            }
            _ => Arc::clone(field),
        }
    };
    let fields = metadata.schema().fields().iter().filter(|field| field.name() != ROW).map(as_stored);
    let schema = Schema::new(fields.collect::<Fields>());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
}

/// Checks that the column has one value per row.
fn check(file: &DataFile, field: &Field) -> Result<()> {
    let found = field.data_type();
    if matches!(found, DataType::BinaryView) {
        return Ok(());
    }
    let nested = found.is_nested() || matches!(found, DataType::Duration(_) | DataType::Interval(_));
    if !nested && can_cast_types(found, &DataType::Utf8) {
        return Ok(());
    }
    Err(Error::input(format!(
        "{}: column {:?} is {found}, expected a number, a time, true or false, or text in each row",
        file.name(),
        field.name()
    )))
}
