//! The small Parquet files beside a table's rows. They are written completely before the commit that names them, and
//! read as a whole.

use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::checksum::Checksums;
use super::commit::FileBeside;
use super::files::properties;
use crate::error::{Error, Result};
use crate::source::fence::caught;
use crate::store::Location;

/// Writes `rows` as the file `path`, which the commit that names it syncs.
pub(super) async fn write(location: &Location, path: String, rows: &RecordBatch) -> Result<FileBeside> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties(&rows.schema())?))?;
    writer.write(rows)?;
    writer.close()?;
    let rows = rows.num_rows() as u64;
    Ok(FileBeside { rows, ..write_bytes(location, path, bytes).await? })
}

/// Writes `bytes` as the file `path`, which the commit that names it syncs.
pub(super) async fn write_bytes(location: &Location, path: String, bytes: Vec<u8>) -> Result<FileBeside> {
    let (size, crc32) = (bytes.len() as u64, Some(Checksums::of(&bytes).to_text()));
    location.write(&path, Bytes::from(bytes)).await?;
    Ok(FileBeside { path, rows: 0, bytes: size, crc32 })
}

/// Reads a file that a commit names, and compares its checksum.
pub(super) async fn read_bytes(location: &Location, file: &FileBeside) -> Result<Bytes> {
    let damaged = |why: &str| Error::table(format!("{} {why}", location.show(&file.path)));
    let bytes = location.get(&file.path).await?.ok_or_else(|| damaged("is missing, and the log names it"))?;
    match &file.crc32 {
        Some(sums) if *sums != Checksums::of(&bytes).to_text() => {
            Err(damaged("is damaged: it has other bytes than were written (its checksum differs); restore the file"))
        }
        _ => Ok(bytes),
    }
}

/// Reads a file that a commit names, with rows of `schema`. Lists of numbers may have another precision, as in tables
/// of earlier versions.
pub(super) async fn read(location: &Location, file: &FileBeside, schema: &SchemaRef) -> Result<RecordBatch> {
    let damaged = |why: &str| Error::table(format!("{} {why}", location.show(&file.path)));
    let bytes = read_bytes(location, file).await?;
    let batches = caught(|| -> Result<Vec<RecordBatch>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        Ok(reader.collect::<std::result::Result<_, _>>()?)
    });
    let batches = batches.unwrap_or_else(|panic| Err(Error::input(format!("its decoder gave up ({panic})"))));
    let batches = batches.map_err(|e| damaged("is damaged; restore the file").with_source(e))?;
    let fitting = batches.iter().map(|batch| {
        let fitting = in_types_of(schema, batch)?;
        fitting.ok_or_else(|| {
            let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
            damaged(&format!("has other columns than it must have: {}", names.join(", ")))
        })
    });
    let batches = fitting.collect::<Result<Vec<_>>>()?;
    concat_batches(schema, &batches).map_err(|e| damaged("has other columns than it must have").with_source(e))
}

/// The rows of `batch` in the types of `schema`; `None` if they differ in more than the precision of lists.
fn in_types_of(schema: &SchemaRef, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
    if batch.schema_ref().fields() == schema.fields() {
        return Ok(Some(batch.clone()));
    }
    let floats = |data_type: &DataType| matches!(data_type, DataType::List(item) if item.data_type().is_floating());
    let fits = |(is, wanted): (&FieldRef, &FieldRef)| {
        let (from, to) = (is.data_type(), wanted.data_type());
        is.name() == wanted.name() && (from == to || floats(from) && floats(to))
    };
    let there = batch.schema_ref().fields();
    if there.len() != schema.fields().len() || !there.iter().zip(schema.fields()).all(fits) {
        return Ok(None);
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    Ok(Some(RecordBatch::try_new(schema.clone(), columns.collect::<std::result::Result<_, _>>()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::clusters_schema;
    use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, StringArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Float64Type, Schema};
    use std::sync::Arc;

    /// One cluster of an older table, with its centroid in single precision.
    fn of_before(name: &str) -> RecordBatch {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Arc::new(arrow::array::Float32Array::from(vec![0.5, 16_777_216.0]));
        let schema = clusters_schema();
        let fields = schema.fields().iter().map(|field| match field.name().as_str() {
            "centroid" => Field::new(name, DataType::List(Arc::clone(&item)), false),
            _ => field.as_ref().clone(),
        });
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![0])),
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(ListArray::new(Arc::clone(&item), OffsetBuffer::from_lengths([2]), values, None)),
            Arc::new(Float64Array::from(vec![0.25])),
            Arc::new(StringArray::from(vec!["m"])),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
    }

    #[tokio::test]
    async fn centroids_of_before_are_read_in_double_precision() {
        let location = Location::parse("memory:///beside").unwrap();
        let file = write(&location, "clusters.parquet".into(), &of_before("centroid")).await.unwrap();
        let read_back = read(&location, &file, &clusters_schema()).await.unwrap();
        assert_eq!(read_back.schema(), clusters_schema());
        let centroid = read_back.column(2).as_list::<i32>().value(0);
        assert_eq!(centroid.as_primitive::<Float64Type>().values(), &[0.5, 16_777_216.0]);
        let file = write(&location, "other.parquet".into(), &of_before("middle")).await.unwrap();
        let e = read(&location, &file, &clusters_schema()).await.unwrap_err();
        assert!(e.kind() == crate::Kind::Table && e.to_string().contains("other columns"), "{e}");
    }
}
