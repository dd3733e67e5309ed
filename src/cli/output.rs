//! Query results as text: an aligned table, CSV, a JSON array, or one JSON object per line.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, StringArray, make_array};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::terminal::{Output, escaped};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Comma-separated values with a header; lists and structs as text
    Csv,
    /// One JSON array of objects
    Json,
    /// One JSON object per line
    Ndjson,
}

/// Writes all of `stream`; as a table only the first `max_rows` rows (0: all), since the rows must be in memory to find
/// the widths of its columns. Returns true if rows were left out.
pub(crate) async fn write_results<W: Write>(
    mut stream: SendableRecordBatchStream,
    format: Format,
    max_rows: usize,
    out: &mut Output<W>,
) -> Result<bool> {
    match format {
        Format::Table => return write_table(stream, max_rows, out).await,
        Format::Csv => {
            let flat = flat_schema(&stream.schema());
            csv::Writer::new(&mut *out).write(&RecordBatch::new_empty(Arc::clone(&flat)))?;
            while let (false, Some(batch)) = (out.closed(), stream.next().await) {
                let batch = flatten(&batch?, &flat)?;
                csv::WriterBuilder::new().with_header(false).build(&mut *out).write(&batch)?;
            }
        }
        Format::Json => {
            let keyed = unique_keys(&stream.schema());
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
            while let (false, Some(batch)) = (writer.get_ref().closed(), stream.next().await) {
                writer.write(&keyed_batch(&batch?, &keyed)?)?;
            }
            writer.finish()?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            let keyed = unique_keys(&stream.schema());
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut *out);
            while let (false, Some(batch)) = (writer.get_ref().closed(), stream.next().await) {
                writer.write(&keyed_batch(&batch?, &keyed)?)?;
            }
            writer.finish()?;
        }
    }
    out.flush()?;
    Ok(false)
}

/// The schema with unique names in each object, since JSON keeps only one value per key: a second `cluster` becomes
/// `cluster_2`.
fn unique_keys(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(unique_names(schema.fields())))
}

fn unique_names(fields: &Fields) -> Fields {
    let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    // Names that differ only in capitals are different keys, and stay as they are.
    let mut taken: HashSet<String> = names.iter().cloned().collect();
    let mut seen = HashSet::new();
    let mut free = |name: &String| {
        if seen.insert(name.clone()) {
            return name.clone();
        }
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        numbered.into_iter().find(|name| taken.insert(name.clone())).unwrap_or_else(|| name.clone())
    };
    let renamed = names.iter().map(&mut free).zip(fields).map(|(name, field)| {
        let nested = unique_type(field.data_type());
        Arc::new(field.as_ref().clone().with_name(name).with_data_type(nested))
    });
    renamed.collect()
}

/// The type with unique names in its structs.
fn unique_type(data_type: &DataType) -> DataType {
    let inside = |item: &FieldRef| Arc::new(item.as_ref().clone().with_data_type(unique_type(item.data_type())));
    match data_type {
        DataType::Struct(fields) => DataType::Struct(unique_names(fields)),
        DataType::List(item) => DataType::List(inside(item)),
        DataType::LargeList(item) => DataType::LargeList(inside(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(inside(item), *length),
        DataType::Map(entries, sorted) => DataType::Map(inside(entries), *sorted),
        other => other.clone(),
    }
}

/// The batch with the names of `keyed`.
fn keyed_batch(batch: &RecordBatch, keyed: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(keyed.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => Ok(make_array(retyped(column.to_data(), field.data_type())?)),
        }
    });
    Ok(RecordBatch::try_new(Arc::clone(keyed), columns.collect::<Result<Vec<_>>>()?)?)
}

/// The same values with a type that differs only in the names of fields.
fn retyped(data: ArrayData, to: &DataType) -> Result<ArrayData> {
    let inside: Vec<DataType> = match to {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type().clone()).collect(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => {
            vec![item.data_type().clone()]
        }
        _ => return Ok(data),
    };
    let children = data.child_data().iter().zip(&inside).map(|(child, to)| retyped(child.clone(), to));
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(data.into_builder().data_type(to.clone()).child_data(children).build()?)
}

async fn write_table<W: Write>(
    mut stream: SendableRecordBatchStream,
    max_rows: usize,
    out: &mut Output<W>,
) -> Result<bool> {
    let schema = stream.schema();
    let limit = if max_rows == 0 { usize::MAX } else { max_rows };
    let (mut batches, mut rows, mut cut) = (vec![RecordBatch::new_empty(schema)], 0, false);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let taken = batch.num_rows().min(limit - rows);
        cut |= taken < batch.num_rows();
        rows += taken;
        batches.push(batch.slice(0, taken));
        if cut {
            break;
        }
    }
    let batches = batches.iter().map(as_shown).collect::<Result<Vec<_>>>()?;
    writeln!(out, "{}", pretty_format_batches(&batches)?)?;
    out.flush()?;
    Ok(cut)
}

/// The cells and the names of the columns as text that is safe for a terminal, whatever the data contain.
fn as_shown(batch: &RecordBatch) -> Result<RecordBatch> {
    let options = FormatOptions::default().with_null("NULL");
    let mut shown: Vec<(String, ArrayRef)> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let cell = |row| Ok(escaped(&formatter.value(row).try_to_string()?).into_owned());
        let cells = (0..batch.num_rows()).map(cell).collect::<Result<Vec<_>>>()?;
        shown.push((escaped(field.name()).into_owned(), Arc::new(StringArray::from(cells))));
    }
    RecordBatch::try_from_iter(shown).map_err(|e| Error::internal("showing rows").with_source(e))
}

/// CSV has no lists and no structs: they become text.
fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let flat = |field: &Arc<Field>| match field.data_type().is_nested() {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(flat).collect::<Vec<_>>()))
}

fn flatten(batch: &RecordBatch, flat: &SchemaRef) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| -> Result<ArrayRef> {
        if !column.data_type().is_nested() {
            return Ok(Arc::clone(column));
        }
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let text = |row| if column.is_null(row) { Ok(None) } else { formatter.value(row).try_to_string().map(Some) };
        Ok(Arc::new((0..column.len()).map(text).collect::<Result<StringArray, _>>()?))
    };
    let columns = batch.columns().iter().map(column).collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(flat), columns).map_err(|e| Error::internal("writing CSV").with_source(e))
}
