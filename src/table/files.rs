//! Writes rows to Parquet files, with a set of files for each value of the partition columns.
//!
//! Rows are cut into blocks of a fixed number before they are encoded, so the files do not depend on how the rows were
//! cut into batches: the same rows in the same order give the same bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{BatchCoalescer, cast};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use super::checksum::Summing;
use super::log::DataFile;
use super::{schema, stats};
use crate::error::{Error, Result};
use crate::store::{Location, failed};

/// Rows that are encoded together.
const BLOCK_ROWS: usize = 4096;
/// Rows of a row group, at most.
const GROUP_ROWS: usize = 65_536;
/// Bytes of a row group, at most, which are in memory while a file is written.
const GROUP_BYTES: usize = 16 << 20;
/// Bytes given to the store at a time. Cloud stores require at least 5 MiB.
const UPLOAD_BYTES: usize = 8 << 20;
/// The most values of the partition columns: each has a file open for writing.
const MAX_PARTITIONS: usize = 256;
/// The name of a partition directory for null, as in Hive.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The values that a run adds to all of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The hash of the model.
    pub model: String,
    /// The time, to the microsecond.
    pub labelled_at: std::time::SystemTime,
}

/// The values of the partition columns, as text; `None` for null.
type Key = Vec<Option<String>>;

/// Files being written.
pub(super) struct FileSet {
    location: Location,
    dir: String,
    /// The columns of the incoming rows.
    input: SchemaRef,
    table: SchemaRef,
    /// The columns of the files.
    stored: SchemaRef,
    partition_by: Vec<String>,
    file_bytes: u64,
    properties: WriterProperties,
    /// The values of the table's last two columns, which are added to the incoming rows.
    labels: Option<Labels>,
    parts: BTreeMap<Key, Part>,
}

/// The files of one value of the partition columns.
struct Part {
    dir: String,
    partition: BTreeMap<String, Option<String>>,
    blocks: BatchCoalescer,
    open: Option<OpenFile>,
    files: Vec<DataFile>,
}

struct OpenFile {
    path: String,
    writer: AsyncArrowWriter<Summed>,
    sums: Arc<Mutex<Summing>>,
    rows: u64,
}

/// A file that is being uploaded, with its checksums.
struct Summed {
    to: BufWriter,
    sums: Arc<Mutex<Summing>>,
}

impl AsyncFileWriter for Summed {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes);
        AsyncFileWriter::write(&mut self.to, bytes)
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        AsyncFileWriter::complete(&mut self.to)
    }
}

impl FileSet {
    /// Writes files below `dir` of a table of schema `table`; a new file begins after `file_bytes`. With `labels`, the
    /// incoming rows lack the two columns that these fill.
    pub(super) fn new(
        location: &Location,
        dir: String,
        table: SchemaRef,
        partition_by: &[String],
        file_bytes: u64,
        labels: Option<Labels>,
    ) -> Result<Self> {
        let stored = schema::of_files(&table, partition_by);
        let comes = |field: &&Arc<arrow::datatypes::Field>| labels.is_none() || !schema::is_added(field.name());
        let input = Schema::new(table.fields().iter().filter(comes).cloned().collect::<Vec<_>>());
        Ok(Self {
            location: location.clone(),
            dir,
            input: Arc::new(input),
            properties: properties(&stored)?,
            table,
            stored,
            partition_by: partition_by.to_vec(),
            file_bytes,
            labels,
            parts: BTreeMap::new(),
        })
    }

    /// The columns of the rows that it takes.
    pub(super) fn input(&self) -> &SchemaRef {
        &self.input
    }

    /// Appends the rows of a batch, of schema [`input`](Self::input).
    pub(super) async fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        for (key, indices) in self.keys(batch)? {
            if !self.parts.contains_key(&key) {
                self.begin_part(&key)?;
            }
            let Some(part) = self.parts.get_mut(&key) else { continue };
            match indices {
                None => part.blocks.push_batch(batch.clone())?,
                Some(indices) => part.blocks.push_batch_with_indices(batch.clone(), &indices)?,
            }
            let mut blocks = Vec::new();
            while let Some(block) = part.blocks.next_completed_batch() {
                blocks.push(block);
            }
            for block in blocks {
                self.write_block(&key, &block).await?;
            }
        }
        Ok(())
    }

    /// The partition values in a batch and the rows of each; all rows if there is only one value.
    fn keys(&self, batch: &RecordBatch) -> Result<Vec<(Key, Option<UInt32Array>)>> {
        if self.partition_by.is_empty() {
            return Ok(vec![(Key::new(), None)]);
        }
        let mut texts: Vec<ArrayRef> = Vec::new();
        for name in &self.partition_by {
            let column = batch.column_by_name(name).ok_or_else(|| crate::column::missing(&batch.schema(), name))?;
            texts.push(cast(column, &DataType::Utf8)?);
        }
        let texts: Vec<&StringArray> = texts.iter().map(|t| t.as_string::<i32>()).collect();
        let mut rows: BTreeMap<Vec<Option<&str>>, Vec<u32>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let key = texts.iter().map(|t| t.is_valid(row).then(|| t.value(row))).collect();
            rows.entry(key).or_default().push(row as u32);
        }
        let owned = |key: Vec<Option<&str>>| key.into_iter().map(|v| v.map(str::to_owned)).collect();
        Ok(rows.into_iter().map(|(key, rows)| (owned(key), Some(UInt32Array::from(rows)))).collect())
    }

    fn begin_part(&mut self, key: &Key) -> Result<()> {
        if self.parts.len() == MAX_PARTITIONS {
            return Err(Error::config(format!(
                "partition_by = {:?} has more than {MAX_PARTITIONS} values; choose columns with fewer",
                self.partition_by
            )));
        }
        let mut dir = self.dir.clone();
        for (name, value) in self.partition_by.iter().zip(key) {
            // As in Hive, so that other readers understand the directories. The log distinguishes null from text of
            // that name.
            dir = format!("{dir}/{}", directory(name, value.as_deref()));
        }
        let part = Part {
            dir,
            partition: self.partition_by.iter().cloned().zip(key.iter().cloned()).collect(),
            blocks: BatchCoalescer::new(Arc::clone(&self.input), BLOCK_ROWS),
            open: None,
            files: Vec::new(),
        };
        self.parts.insert(key.clone(), part);
        Ok(())
    }

    async fn write_block(&mut self, key: &Key, block: &RecordBatch) -> Result<()> {
        let block = self.stored_block(block)?;
        let Some(part) = self.parts.get_mut(key) else { return Ok(()) };
        if part.open.is_none() {
            let path = format!("{}/part-{:05}.parquet", part.dir, part.files.len());
            let store = Arc::clone(self.location.store());
            let to = BufWriter::with_capacity(store, self.location.path(&path)?, UPLOAD_BYTES).with_max_concurrency(2);
            let sums = Arc::new(Mutex::new(Summing::default()));
            let to = Summed { to, sums: Arc::clone(&sums) };
            let writer = AsyncArrowWriter::try_new(to, Arc::clone(&self.stored), Some(self.properties.clone()))?;
            part.open = Some(OpenFile { path, writer, sums, rows: 0 });
        }
        let Some(open) = &mut part.open else { return Ok(()) };
        open.writer.write(&block).await.map_err(|e| write_failed(&self.location, &open.path, e))?;
        open.rows += block.num_rows() as u64;
        let bytes = open.writer.bytes_written() + open.writer.in_progress_size();
        if bytes as u64 >= self.file_bytes {
            self.close(key).await?;
        }
        Ok(())
    }

    /// A block with the columns of the data files: all of the table's but the partition columns, which are in the log.
    fn stored_block(&self, block: &RecordBatch) -> Result<RecordBatch> {
        let rows = block.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.stored.fields().len());
        for field in self.stored.fields() {
            columns.push(match (&self.labels, field.name().as_str()) {
                (Some(labels), schema::MODEL) => {
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(labels.model.as_str(), rows)))
                }
                (Some(labels), schema::LABELLED_AT) => {
                    let at = vec![micros(labels.labelled_at); rows];
                    Arc::new(TimestampMicrosecondArray::from(at).with_timezone("UTC"))
                }
                (_, name) => {
                    Arc::clone(block.column_by_name(name).ok_or_else(|| crate::column::missing(&block.schema(), name))?)
                }
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.stored), columns, &options)?)
    }

    async fn close(&mut self, key: &Key) -> Result<()> {
        let Some(part) = self.parts.get_mut(key) else { return Ok(()) };
        let Some(mut open) = part.open.take() else { return Ok(()) };
        let metadata = open.writer.finish().await.map_err(|e| write_failed(&self.location, &open.path, e))?;
        let sums = std::mem::take(&mut *open.sums.lock().unwrap_or_else(PoisonError::into_inner));
        part.files.push(DataFile {
            bytes: open.writer.bytes_written() as u64,
            rows: Some(open.rows),
            partition: part.partition.clone(),
            columns: stats::ranges(&metadata, &self.stored)?,
            path: open.path,
            logged: String::new(),
            added_at: 0,
            checksums: Some(sums.finish()),
        });
        Ok(())
    }

    /// Ends the writing and returns the files, by partition value and then in the order of their rows.
    pub(super) async fn finish(&mut self) -> Result<Vec<DataFile>> {
        let keys: Vec<Key> = self.parts.keys().cloned().collect();
        let mut files = Vec::new();
        for key in keys {
            let mut last = None;
            if let Some(part) = self.parts.get_mut(&key) {
                part.blocks.finish_buffered_batch()?;
                last = part.blocks.next_completed_batch();
            }
            if let Some(block) = last {
                self.write_block(&key, &block).await?;
            }
            self.close(&key).await?;
            if let Some(part) = self.parts.get_mut(&key) {
                files.append(&mut part.files);
            }
        }
        Ok(files)
    }

    /// Ends the writing and aborts uploads that have begun.
    pub(super) async fn abort(&mut self) {
        for open in std::mem::take(&mut self.parts).into_values().filter_map(|part| part.open) {
            if let Err(e) = open.writer.into_inner().to.abort().await {
                tracing::debug!("an upload that had not begun: {e}");
            }
        }
    }

    /// The columns of the table.
    pub(super) fn table(&self) -> &SchemaRef {
        &self.table
    }
}

/// The directory of a partition value: `split=train`. Special characters are encoded, since some engines read the
/// values from there; a long value is replaced by its beginning and a hash. The log has the values themselves.
fn directory(name: &str, value: Option<&str>) -> String {
    const LONGEST: usize = 120;
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') => out.push(char::from(b)),
                b => out.push_str(&format!("%{b:02X}")),
            }
        }
        match out.len() > LONGEST {
            true => {
                let hash = Sha256::digest(text.as_bytes());
                let hash: String = hash.iter().take(12).map(|b| format!("{b:02x}")).collect();
                // Do not cut in the middle of an encoded byte.
                let cut = (0..=64)
                    .rev()
                    .find(|&at| {
                        !out[..at].ends_with('%')
                            && !out[..at]
                                .rsplit('%')
                                .next()
                                .is_some_and(|end| end.len() == 1 && out[..at].contains('%'))
                    })
                    .unwrap_or(0);
                format!("{}-{hash}", &out[..cut])
            }
            false => out,
        }
    };
    let value = match value {
        None => HIVE_NULL.to_owned(),
        // Text that looks like the name for null is encoded.
        Some(HIVE_NULL) => format!("%5F{}", &HIVE_NULL[1..]),
        Some(text) => encoded(text),
    };
    format!("{}={value}", encoded(name))
}

fn write_failed(location: &Location, path: &str, e: parquet::errors::ParquetError) -> Error {
    nothing_committed(failed("writing", &location.show(path), e))
}

pub(super) fn nothing_committed(e: Error) -> Error {
    let message = format!("{}; nothing was committed", e.message());
    match std::error::Error::source(&e) {
        Some(source) => Error::io(format!("{message} ({source})")),
        None => Error::io(message),
    }
}

/// Microseconds since 1970.
pub(super) fn micros(time: std::time::SystemTime) -> i64 {
    match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    }
}

/// The encoding of files with these columns.
pub(super) fn properties(stored: &Schema) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("dacpipe version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES));
    for field in stored.fields() {
        // Measured values hardly repeat: a dictionary would cost time and save nothing.
        let path = match field.data_type() {
            DataType::Float32 | DataType::Float64 => vec![field.name().clone()],
            DataType::FixedSizeList(item, _) | DataType::List(item) if item.data_type().is_floating() => {
                vec![field.name().clone(), "list".to_owned(), item.name().clone()]
            }
            _ => continue,
        };
        properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), false);
    }
    Ok(properties.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(micros(std::time::UNIX_EPOCH - std::time::Duration::from_micros(5)), -5);
    }

    #[test]
    fn null_and_its_name_have_directories_of_their_own() {
        assert_eq!(directory("split", None), "split=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(directory("split", Some("__HIVE_DEFAULT_PARTITION__")), "split=%5F_HIVE_DEFAULT_PARTITION__");
        assert_eq!(directory("a b", Some("x=y/ü")), "a%20b=x%3Dy%2F%C3%BC");
        let (long, other) = ("é".repeat(200), format!("{}!", "é".repeat(200)));
        assert!(directory("v", Some(&long)).len() < 120 && directory("v", Some(&long)) != directory("v", Some(&other)));
    }
}
