//! Target: feature vectors in Parquet files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use dacpipe::Kind;
use dacpipe::source::{BadRows, OnBadRow, SourceOptions, SourceSpec, open};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::damage::damaged;
use super::{Verdict, fuzz, wait};

const ROWS: usize = 60;

/// A small file of ids, labels, lists and a column of numbers, written in one of the ways that writers have.
fn file(properties: WriterProperties) -> Vec<u8> {
    let lists = (0..ROWS).map(|row| Some((0..4).map(move |at| Some((row * 7 + at) as f64 / 3.0)).collect::<Vec<_>>()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..ROWS as i64))),
        ("label", Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| ["a", "b", "c"][row % 3])))),
        ("v", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists))),
        ("x", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| (row % 5) as f64)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// What must hold for a file: it is read completely, refused, or set aside; and no row is invented.
fn hold(path: &Path, features: Value) -> Verdict {
    let spec = json!({ "kind": "parquet", "path": path, "features": features, "keys": ["id"], "label": "label" });
    let spec: SourceSpec = serde_json::from_value(spec).map_err(|e| TestCaseError::fail(e.to_string()))?;
    for on_bad_row in [OnBadRow::Fail, OnBadRow::Quarantine] {
        let options = SourceOptions { on_bad_row, ..Default::default() };
        let read = async {
            let source = open(&spec, &options, Arc::new(BadRows::new())).await?;
            Ok::<_, dacpipe::Error>(SessionContext::new().read_table(source.provider)?.collect().await?)
        };
        match wait(read) {
            Ok(batches) => {
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                proptest::prop_assert!(rows <= ROWS, "{} rows of a file of {}", rows, ROWS);
                for batch in &batches {
                    proptest::prop_assert_eq!(batch["features"].as_fixed_size_list().null_count(), 0);
                }
            }
            Err(e) if matches!(e.kind(), Kind::Input | Kind::Compute) => {}
            Err(e) => return Err(TestCaseError::fail(format!("{:?}: {e}", e.kind()))),
        }
    }
    Ok(())
}

#[test]
fn damaged_parquet() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let of = |compression, version, dictionary| {
        WriterProperties::builder()
            .set_compression(compression)
            .set_writer_version(version)
            .set_dictionary_enabled(dictionary)
            .set_max_row_group_row_count(Some(25))
            .build()
    };
    let split = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(Encoding::BYTE_STREAM_SPLIT);
    let ways = [
        ("plain", of(Compression::UNCOMPRESSED, WriterVersion::PARQUET_1_0, false)),
        ("dictionary", of(Compression::UNCOMPRESSED, WriterVersion::PARQUET_1_0, true)),
        ("version 2, snappy", of(Compression::SNAPPY, WriterVersion::PARQUET_2_0, true)),
        (
            "byte stream split",
            split
                .set_column_encoding("id".into(), Encoding::PLAIN)
                .set_column_encoding("label".into(), Encoding::PLAIN)
                .build(),
        ),
    ];
    for (name, properties) in ways {
        let bytes = file(properties);
        fs::write(&path, &bytes).unwrap();
        hold(&path, json!("v")).unwrap();
        fuzz(&format!("parquet, {name}"), damaged(bytes, &["PAR1", "\0\0\0\0", "\u{7f}", "v"]), |bytes| {
            fs::write(&path, bytes)?;
            hold(&path, json!("v"))?;
            hold(&path, json!(["x"]))
        });
    }
}
