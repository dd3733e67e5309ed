//! The rows of a Parquet file of samples, as the lines of a text file would have them.

use std::io;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use tokio::runtime::Handle;

use super::record::Record;
use super::{CsvSpec, FILE};
use crate::error::{Error, Result};
use crate::source::location::DataFile;
use crate::source::no_column;
use crate::source::parquet::ObjectReader;

/// What the names of Parquet files end with.
pub(super) const ENDINGS: [&str; 2] = [".parquet", ".pq"];

/// Rows that are decoded at a time.
const ROWS: usize = 4096;

/// A file whose rows are read one after the other: the columns that a source names, each value as text. A null is empty, a
/// time is in ISO 8601, a channel in full, so that it is read back to the bit.
pub(super) struct TableRows {
    batches: Batches,
    columns: Vec<Column>,
    /// The values of the batch that is read, by column.
    texts: Vec<StringArray>,
    /// The next row of the batch, and the number of those before it in the file.
    at: usize,
    row: u64,
}

enum Batches {
    Local(ParquetRecordBatchReader),
    Remote(Box<ParquetRecordBatchStream<ObjectReader>>, Handle),
}

/// A column that is read.
struct Column {
    name: String,
    is_channel: bool,
}

/// Whether `file` is a Parquet file, by its name.
pub(in crate::source) fn is_table(file: &DataFile) -> bool {
    ENDINGS.iter().any(|ending| file.name().ends_with(ending))
}

impl TableRows {
    /// Opens `file` for the columns that `spec` names, in the order of the file. Blocks.
    ///
    /// # Errors
    /// Kind `Input` if it is no Parquet file, or a column holds no values that could be text; `Io` if it cannot be read.
    pub(super) fn open(file: &DataFile, spec: &CsvSpec) -> Result<Self> {
        let unreadable = |e: parquet::errors::ParquetError| {
            Error::input(format!("{}: not a readable Parquet file", file.name())).with_source(e)
        };
        let mut columns = Vec::new();
        let mut mask = |fields: &arrow::datatypes::Fields, schema: &_| -> Result<ProjectionMask> {
            let there = || fields.iter().map(|field| field.name().as_str());
            // The file's name serves as a key where it has no column of that name.
            let missing = named(spec).find(|name| *name != FILE && !there().any(|column| column == *name));
            if let Some(name) = missing {
                return Err(no_column(file.name(), name, there()));
            }
            let is_named = |at: &usize| named(spec).any(|name| name == fields[*at].name());
            let wanted: Vec<usize> = (0..fields.len()).filter(is_named).collect();
            for &at in &wanted {
                check(file, &fields[at])?;
                let name = fields[at].name().clone();
                columns.push(Column { is_channel: spec.channels.contains(&name), name });
            }
            Ok(ProjectionMask::roots(schema, wanted))
        };
        let batches = match file.local()? {
            Some(local) => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(local).map_err(unreadable)?;
                let mask = mask(builder.schema().fields(), builder.parquet_schema())?;
                let builder = builder.with_projection(mask).with_batch_size(ROWS);
                Batches::Local(builder.build().map_err(unreadable)?)
            }
            None => {
                let handle = Handle::current();
                let reader = ObjectReader::new(file)?;
                let builder = handle.block_on(ParquetRecordBatchStreamBuilder::new(reader)).map_err(unreadable)?;
                let mask = mask(builder.schema().fields(), builder.parquet_schema())?;
                let builder = builder.with_projection(mask).with_batch_size(ROWS);
                Batches::Remote(Box::new(builder.build().map_err(unreadable)?), handle)
            }
        };
        Ok(Self { batches, columns, texts: vec![], at: 0, row: 0 })
    }

    /// The names of the columns, in the order of the fields of its rows.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Reads the next row into `record`, whose number is that of the row, from 1 on. False at the end.
    ///
    /// # Errors
    /// What reading the file gives; of kind `InvalidData` where it is damaged.
    pub(super) fn read(&mut self, record: &mut Record) -> io::Result<bool> {
        while self.texts.first().is_none_or(|texts| self.at == texts.len()) {
            let next = match &mut self.batches {
                Batches::Local(reader) => reader.next().transpose().map_err(damaged)?,
                Batches::Remote(stream, handle) => handle.block_on(stream.try_next()).map_err(io::Error::other)?,
            };
            let Some(batch) = next else { return Ok(false) };
            self.texts = self.texts_of(&batch)?;
            self.at = 0;
            if self.texts.is_empty() {
                return Ok(false);
            }
        }
        self.row += 1;
        let at = self.at;
        record.set(self.row, self.texts.iter().map(|texts| value(texts, at)));
        self.at += 1;
        Ok(true)
    }

    fn texts_of(&self, batch: &RecordBatch) -> io::Result<Vec<StringArray>> {
        let text = |column: &Column| {
            let values = batch.column_by_name(&column.name).ok_or_else(|| damaged("a column is missing"))?;
            let values = match values.data_type() {
                DataType::Timestamp(unit, Some(_)) => {
                    cast(values, &DataType::Timestamp(*unit, Some("+00:00".into()))).map_err(damaged)?
                }
                DataType::Float16 | DataType::Float32 if column.is_channel => {
                    cast(values, &DataType::Float64).map_err(damaged)?
                }
                DataType::Boolean if column.is_channel => cast(values, &DataType::UInt8).map_err(damaged)?,
                _ => Arc::clone(values),
            };
            Ok(cast(&values, &DataType::Utf8).map_err(damaged)?.as_string::<i32>().clone())
        };
        self.columns.iter().map(text).collect()
    }
}

/// The value in row `at`; nothing for a null.
fn value(texts: &StringArray, at: usize) -> &[u8] {
    if texts.is_valid(at) { texts.value(at).as_bytes() } else { &[] }
}

fn damaged(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// The columns that `spec` names.
fn named(spec: &CsvSpec) -> impl Iterator<Item = &String> {
    let time = spec.time.iter().map(|time| &time.column);
    let plain = spec.channels.iter().chain(&spec.keys).chain(&spec.label).chain(&spec.split);
    plain.chain(time).chain(spec.keep.iter().map(|keep| &keep.column))
}

/// That the column holds one value a row.
fn check(file: &DataFile, field: &Field) -> Result<()> {
    let found = field.data_type();
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
