//! Query results as text: an aligned table, CSV, a JSON array, or one JSON object a line.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
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
    /// Aligned columns, for people
    #[default]
    Table,
    /// Comma-separated values with a header; lists and structs as text
    Csv,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Ndjson,
}

/// Writes all of `stream`; as a table only the first `max_rows` rows (0: all), as the widths of its columns need the
/// rows in memory. Returns true if rows were left out.
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
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
            while let (false, Some(batch)) = (writer.get_ref().closed(), stream.next().await) {
                writer.write(&batch?)?;
            }
            writer.finish()?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut *out);
            while let (false, Some(batch)) = (writer.get_ref().closed(), stream.next().await) {
                writer.write(&batch?)?;
            }
            writer.finish()?;
        }
    }
    out.flush()?;
    Ok(false)
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

/// The cells and the names of the columns as text that a terminal may show, whatever the data hold.
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
