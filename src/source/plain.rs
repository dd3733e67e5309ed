//! A text file as a table for SQL: its first line names the columns, and its first rows give the types.
//!
//! It is used for files that are compressed, in UTF-16, or have another delimiter than a comma or other quotes.
//! DataFusion's own reader takes all other files.

use std::io::{BufRead, Read};
use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;

use super::csv::guess::{Start, guess};
use super::csv::{Delimiter, Encoding, open_text, separator_line};
use super::location::{DataFile, blocking, is_compressed, list};
use crate::error::{Error, Result};

/// How much of a file is looked at, decompressed.
const LOOKED_AT: u64 = 1 << 20;
/// Rows from which the types of columns are inferred.
const ROWS: usize = 1000;

/// How a file is written.
#[derive(Debug, Clone)]
struct Layout {
    encoding: Encoding,
    /// Whether its first line sets the delimiter (`sep=;`).
    said: bool,
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
}

/// The name of a text file without the ending of its compression.
pub(crate) fn name_of(path: &str) -> &str {
    super::location::plain_name(path)
}

/// The text file at `path` as a table; `None` if DataFusion can read it: plain UTF-8 with `delimiter` between fields.
///
/// # Errors
/// Kind `Input` if it is not there, empty, or compressed in a way that is not read; `Io` if it cannot be read.
pub(crate) async fn text_table(path: &str, delimiter: u8) -> Result<Option<Arc<dyn TableProvider>>> {
    let Ok([file]) = <[DataFile; 1]>::try_from(list(path, &[".csv", ".tsv"]).await?) else { return Ok(None) };
    blocking(move || {
        let compressed = is_compressed(&file)?;
        let mut bytes = Vec::new();
        let read = file.open()?.take(LOOKED_AT).read_to_end(&mut bytes);
        if compressed {
            read.map_err(|e| file.unreadable(e))?;
        }
        let whole = (bytes.len() as u64) < LOOKED_AT;
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        if whole && text.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::input(format!("{}: empty, expected a line with names of columns", file.name())));
        }
        let layout = match Start::of(bytes, whole) {
            Ok(start) => Layout::of(&start, delimiter),
            Err(what) if compressed => return Err(Error::input(format!("{}: {what}", file.name()))),
            // Its reader will report what is wrong.
            Err(_) => return Ok(None),
        };
        if !compressed && layout.is_usual(delimiter) {
            return Ok(None);
        }
        let schema = Arc::new(layout.schema(&file)?);
        let table = Text { file, layout, schema: Arc::clone(&schema) };
        let table = StreamingTable::try_new(schema, vec![Arc::new(table)])?;
        Ok(Some(Arc::new(table) as Arc<dyn TableProvider>))
    })
    .await
}

impl Layout {
    /// The layout of a file that begins with `start`; its delimiter is `usual` unless another one is clear.
    fn of(start: &Start, usual: u8) -> Self {
        let text = start.text();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let said = separator_line(first.as_bytes());
        let names = if said.is_some() { lines.next().unwrap_or_default() } else { first };
        let guessed = guess(start);
        let count = |sign: char| names.matches(sign).count();
        let clear = |&sign: &char| count(sign) > 0 && count(sign) >= count(char::from(usual));
        let signs = guessed.as_ref().map(|guess| guess.delimiter).into_iter().filter_map(|delimiter| match delimiter {
            Delimiter::One(sign) => Some(sign),
            Delimiter::Blanks => None,
        });
        // Rows of text show no delimiter, but the header may.
        let others = [';', '\t', '|'].into_iter().filter(|_| guessed.is_none() && count(char::from(usual)) == 0);
        let delimiter = match said {
            Some(Delimiter::One(sign)) => Some(sign),
            _ => signs.chain(others).find(clear),
        };
        let dialect = guessed.map(|guess| guess.dialect).unwrap_or_default();
        let byte = |sign: char| sign as u8;
        Self {
            encoding: start.encoding,
            said: said.is_some(),
            delimiter: delimiter.map_or(usual, byte),
            quote: dialect.quote.map_or(b'"', byte),
            escape: dialect.escape.map(byte),
        }
    }

    fn is_usual(&self, delimiter: u8) -> bool {
        self.encoding == Encoding::Utf8
            && !self.said
            && (self.delimiter, self.quote, self.escape) == (delimiter, b'"', None)
    }

    fn format(&self) -> Format {
        let format = Format::default().with_header(true).with_delimiter(self.delimiter).with_quote(self.quote);
        self.escape.into_iter().fold(format, Format::with_escape)
    }

    /// The text of `file`, from the header on.
    fn open(&self, file: &DataFile) -> Result<Box<dyn BufRead + Send>> {
        let mut text = open_text(file, self.encoding)?.text;
        if self.said {
            text.read_until(b'\n', &mut Vec::new()).map_err(|e| file.unreadable(e))?;
        }
        Ok(text)
    }

    fn schema(&self, file: &DataFile) -> Result<Schema> {
        let found = self.format().infer_schema(self.open(file)?, Some(ROWS));
        let (schema, _) = found.map_err(|e| Error::from(e).while_doing(file.name()))?;
        // A column without values is taken as text.
        let fields = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Null => field.as_ref().clone().with_data_type(DataType::Utf8),
            _ => field.as_ref().clone(),
        });
        Ok(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The rows of a text file.
#[derive(Debug, Clone)]
struct Text {
    file: DataFile,
    layout: Layout,
    schema: SchemaRef,
}

impl PartitionStream for Text {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = context.session_config().batch_size();
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let (out, this) = (builder.tx(), self.clone());
        builder.spawn_blocking(move || {
            let named = |e: Error| DataFusionError::from(e.while_doing(this.file.name()));
            let text = this.layout.open(&this.file)?;
            let reader = ReaderBuilder::new(Arc::clone(&this.schema)).with_format(this.layout.format());
            let reader = reader.with_batch_size(rows).build_buffered(text).map_err(|e| named(e.into()))?;
            for batch in reader {
                let batch = batch.map_err(|e| named(e.into()));
                let failed = batch.is_err();
                if out.blocking_send(batch).is_err() || failed {
                    break;
                }
            }
            Ok(())
        });
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_fields_is_told_where_it_is_clear() {
        for (text, usual, delimiter) in [
            ("a,b\n1,2\n", b',', b','),
            ("a;b\n1;2\n", b',', b';'),
            ("a;b\n1,5;2,5\n", b',', b';'),
            ("a;b\nx;y\n", b',', b';'),
            ("a|b|c\n1|2|3\n", b',', b'|'),
            ("a\tb\n1\t2\n", b',', b'\t'),
            ("a\tb\n1\t2\n", b'\t', b'\t'),
            ("sep=;\na;b\n1;2\n", b',', b';'),
            // Names with spaces, one column, and text with semicolons inside its fields.
            ("a b\n1\n2\n", b',', b','),
            ("a,b\nx;y;z,u;v;w\n", b',', b','),
            ("a,b\n1;2;3,1;2;3\n4;5;6,4;5;6\n", b',', b','),
        ] {
            let start = Start::of(text.as_bytes().to_vec(), true).unwrap();
            let found = Layout::of(&start, usual);
            assert_eq!(char::from(found.delimiter), char::from(delimiter), "{text:?}");
            assert_eq!(found.said, text.starts_with("sep"), "{text:?}");
        }
    }
}
