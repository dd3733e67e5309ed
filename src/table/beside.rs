//! The small Parquet files beside a table's rows: written whole before the commit that names them, read whole.

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::checksum::Checksums;
use super::commit::FileBeside;
use super::files::properties;
use crate::error::{Error, Result};
use crate::store::Location;

/// Writes `rows` as the file `path`.
pub(super) async fn write(location: &Location, path: String, rows: &RecordBatch) -> Result<FileBeside> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties(&rows.schema())?))?;
    writer.write(rows)?;
    writer.close()?;
    let size = bytes.len() as u64;
    let crc32 = Some(Checksums::of(&bytes).to_text());
    location.put(&path, Bytes::from(bytes)).await?;
    let rows = rows.num_rows() as u64;
    Ok(FileBeside { path, rows, bytes: size, crc32 })
}

/// Reads a file that a commit names, whose rows are of `schema`.
pub(super) async fn read(location: &Location, file: &FileBeside, schema: &SchemaRef) -> Result<RecordBatch> {
    let damaged = |why: &str| Error::table(format!("{} {why}", location.show(&file.path)));
    let bytes = location.get(&file.path).await?.ok_or_else(|| damaged("is missing, and the log names it"))?;
    if let Some(sums) = &file.crc32
        && *sums != Checksums::of(&bytes).to_text()
    {
        return Err(damaged(
            "is damaged: it has other bytes than were written (its checksum differs); restore the file",
        ));
    }
    let batches = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|reader| reader.build())
        .map_err(|e| damaged("is damaged").with_source(e))?
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| damaged("is damaged").with_source(e))?;
    if let Some(other) = batches.iter().find(|batch| batch.schema_ref().fields() != schema.fields()) {
        let names: Vec<&str> = other.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        return Err(damaged(&format!("has other columns than it must have: {}", names.join(", "))));
    }
    concat_batches(schema, &batches).map_err(|e| damaged("has other columns than it must have").with_source(e))
}
