//! Query results as text: an aligned table, CSV, a JSON array, or one JSON object a line.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::error::{Error, Result};

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

/// A writer that swallows what a reader that has gone away (`| head`) no longer wants.
pub(crate) struct Output<W: Write> {
    inner: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, closed: false }
    }

    /// True once the reader has gone away.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    fn unless_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(otherwise)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.inner.write(bytes);
        self.unless_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.unless_closed(flushed, ())
    }
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
    let options = FormatOptions::default().with_null("NULL");
    writeln!(out, "{}", pretty_format_batches_with_options(&batches, &options)?)?;
    out.flush()?;
    Ok(cut)
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
