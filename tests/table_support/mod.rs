//! Helpers for the tests of the table: rows, a run that writes them, and SQL over the result.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use dacpipe::Result;
use dacpipe::column::vector_array;
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, Committed, LabelTable, Labels, Mode, TableWriter, WriteOptions};
use datafusion::prelude::{SessionConfig, SessionContext};

/// Rows `from..to`: `start` counts, `cluster` is `start % 3`, `split` is train, test or null in turn of ten rows.
pub fn rows(from: i64, to: i64) -> RecordBatch {
    let split = |i: i64| match (i / 10) % 3 {
        0 => Some("train"),
        1 => Some("test"),
        _ => None,
    };
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("user", Arc::new(Int32Array::from_iter_values((from..to).map(|i| (i / 100) as i32))), false),
        ("start", Arc::new(Int64Array::from_iter_values(from..to)), false),
        ("split", Arc::new((from..to).map(split).collect::<StringArray>()), true),
        ("embedding", vector_array((from * 2..to * 2).map(|v| v as f32).collect(), 2).unwrap(), false),
        ("cluster", Arc::new(Int32Array::from_iter_values((from..to).map(|i| (i % 3) as i32))), false),
        ("distance", Arc::new(Float32Array::from_iter_values((from..to).map(|i| i as f32 / 8.0))), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

pub fn labels(model: &str) -> Labels {
    Labels { model: model.into(), labelled_at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456) }
}

pub fn clusters(sizes: &[i64], distance: f64) -> RecordBatch {
    let k = sizes.len();
    RecordBatch::try_from_iter([
        ("cluster", Arc::new(Int32Array::from_iter_values(0..k as i32)) as ArrayRef),
        ("size", Arc::new(Int64Array::from(sizes.to_vec()))),
        ("centroid", vector_array((0..2 * k).map(|v| v as f32).collect(), 2).unwrap()),
        ("mean_distance", Arc::new(Float64Array::from(vec![distance; k]))),
    ])
    .unwrap()
}

/// A whole run: begins, writes the batches, commits.
pub async fn write(place: &Location, options: WriteOptions, batches: &[RecordBatch]) -> Result<Committed> {
    let mut writer = TableWriter::begin(place, options).await?;
    let sink = writer.sink(batches[0].schema(), labels("m1"))?;
    for batch in batches {
        sink.write(batch).await?;
    }
    writer.commit(CommitInfo::default()).await
}

pub async fn append(place: &Location, run: &str, batch: &RecordBatch) -> Result<Committed> {
    write(place, WriteOptions::new(Mode::Append, run), std::slice::from_ref(batch)).await
}

pub async fn overwrite(place: &Location, run: &str, batch: &RecordBatch) -> Result<Committed> {
    write(place, WriteOptions::new(Mode::Overwrite, run), std::slice::from_ref(batch)).await
}

/// A session in which `t` is the table now and `t_clusters` its clusters.
pub async fn session(place: &Location) -> SessionContext {
    session_at(place, None).await
}

pub async fn session_at(place: &Location, version: Option<u64>) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let table = LabelTable::open_at(place, version).await.unwrap();
    context.register_table("t_clusters", table.clusters()).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    context
}

pub async fn sql(context: &SessionContext, sql: &str) -> String {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// The values of a query of one integer column.
pub async fn integers(context: &SessionContext, sql: &str) -> Vec<i64> {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let cast = |b: &RecordBatch| arrow::compute::cast(b.column(0), &arrow::datatypes::DataType::Int64).unwrap();
    batches
        .iter()
        .flat_map(|b| cast(b).as_any().downcast_ref::<Int64Array>().unwrap().iter().flatten().collect::<Vec<_>>())
        .collect()
}

/// The `start` of all rows, in the order of the table.
pub async fn starts(place: &Location) -> Vec<i64> {
    integers(&session(place).await, "SELECT start FROM t").await
}

/// The names of all files of a local table, without the lock.
pub fn files(root: &std::path::Path) -> Vec<String> {
    fn walk(dir: &std::path::Path, root: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, root, found);
            } else if !entry.ends_with(".lock") {
                found.push(entry.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}
