//! The labelled table from outside: runs that write it, SQL that reads it, and which files a query opens.

use std::sync::Arc;
use std::time::Duration;

use crate::table_support::*;
use arrow::array::{Float32Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use dacpipe::Kind;
use dacpipe::store::Location;
use dacpipe::table::{self, CommitInfo, LabelTable, Mode, OnExisting, TableWriter, Vacuumed, WriteOptions};
use datafusion::datasource::MemTable;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

fn local() -> (tempfile::TempDir, Location) {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(dir.path().join("t").to_str().unwrap()).unwrap();
    (dir, place)
}

#[tokio::test]
async fn what_is_committed_is_what_sql_reads() {
    let (_dir, place) = local();
    let committed = append(&place, "run-1", &rows(0, 100)).await.unwrap();
    assert_eq!((committed.version, committed.rows, committed.files), (0, 100, 1));
    let context = session(&place).await;
    insta::assert_snapshot!(sql(&context, "SELECT * FROM t WHERE start >= 19 LIMIT 2").await, @r"
    +------+-------+-------+--------------+---------+----------+-------+-----------------------------+
    | user | start | split | embedding    | cluster | distance | model | labelled_at                 |
    +------+-------+-------+--------------+---------+----------+-------+-----------------------------+
    | 0    | 19    | test  | [38.0, 39.0] | 1       | 2.375    | m1    | 2023-11-14T22:13:20.123456Z |
    | 0    | 20    |       | [40.0, 41.0] | 2       | 2.5      | m1    | 2023-11-14T22:13:20.123456Z |
    +------+-------+-------+--------------+---------+----------+-------+-----------------------------+
    ");
    insta::assert_snapshot!(sql(&context, "SELECT cluster, count(*) AS n FROM t GROUP BY 1 ORDER BY 1").await, @r"
    +---------+----+
    | cluster | n  |
    +---------+----+
    | 0       | 34 |
    | 1       | 33 |
    | 2       | 33 |
    +---------+----+
    ");
}

/// The generic dialect takes `, cluster` for a trailing comma before the keyword of CLUSTER BY.
#[tokio::test]
async fn the_column_cluster_needs_no_quotes_in_the_postgresql_dialect() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 5)).await.unwrap();
    let context = session(&place).await;
    let query = "SELECT split, cluster FROM t LIMIT 1";
    assert!(context.sql(query).await.is_err(), "then the dialect need not be set any more");
    assert!(sql(&context, "SELECT split, t.cluster FROM t LIMIT 1").await.contains("train"));
    context.sql("SET datafusion.sql_parser.dialect = 'PostgreSQL'").await.unwrap();
    assert!(sql(&context, query).await.contains("train"));
}

#[tokio::test]
async fn appends_add_and_overwrites_replace() {
    let (_dir, place) = local();
    for (i, from) in [0, 50, 80].into_iter().enumerate() {
        assert_eq!(append(&place, &format!("a{i}"), &rows(from, from + 10)).await.unwrap().version, i as u64);
    }
    let appended: Vec<i64> = (0..10).chain(50..60).chain(80..90).collect();
    assert_eq!(starts(&place).await, appended);
    assert_eq!(overwrite(&place, "o", &rows(7, 9)).await.unwrap().version, 3);
    assert_eq!(starts(&place).await, [7, 8]);
    append(&place, "a3", &rows(9, 11)).await.unwrap();
    assert_eq!(starts(&place).await, [7, 8, 9, 10]);
    let old = session_at(&place, Some(2)).await;
    assert_eq!(integers(&old, "SELECT start FROM t").await, appended);
    let e = LabelTable::open_at(&place, Some(9)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert!(e.to_string().ends_with("has no version 9: its newest is 4"), "{e}");
}

#[tokio::test]
async fn a_reader_keeps_the_version_it_opened() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    let before = session(&place).await;
    let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Overwrite, "b")).await.unwrap();
    let sink = writer.sink(rows(0, 1).schema(), labels("m2")).unwrap();
    sink.write(&rows(0, 9000)).await.unwrap();
    assert_eq!(starts(&place).await.len(), 10, "nothing is seen before the commit");
    writer.commit(CommitInfo::default()).await.unwrap();
    assert_eq!(starts(&place).await.len(), 9000);
    assert_eq!(integers(&before, "SELECT count(*) FROM t").await, [10]);
    assert_eq!(integers(&before, "SELECT sum(start) FROM t").await, [45]);
}

/// The runs that have data files in a local table, and those that have clusters.
fn runs_on_disk(root: &std::path::Path) -> (Vec<String>, Vec<String>) {
    let names = |dir: &str| {
        let entries = std::fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap().path());
        let full = entries.filter(|path| std::fs::read_dir(path).unwrap().next().is_some());
        let mut names: Vec<String> = full.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    (names("data"), names("_dacpipe"))
}

#[tokio::test]
async fn old_versions_stay_until_they_are_vacuumed() {
    let (dir, place) = local();
    let root = dir.path().join("t");
    let run = async |mode, run: &str, from: i64| {
        let mut writer =
            TableWriter::begin(&place, WriteOptions::new(mode, run).partition_by(["split"])).await.unwrap();
        writer.sink(rows(0, 6).schema(), labels("m")).unwrap().write(&rows(from, from + 40)).await.unwrap();
        let clusters = Some(clusters(&[4, 2], 1.0));
        writer.commit(CommitInfo { clusters, ..CommitInfo::default() }).await.unwrap();
    };
    run(Mode::Append, "a", 0).await;
    std::fs::create_dir(root.join("data/holiday")).unwrap();
    std::fs::write(root.join("data/holiday/photo.jpg"), "x").unwrap();
    let first = session(&place).await;
    run(Mode::Append, "b", 100).await;
    run(Mode::Overwrite, "c", 200).await;
    run(Mode::Append, "d", 300).await;
    let there = |data: &[&str], beside: &[&str]| {
        let names = |list: &[&str]| list.iter().map(|r| r.to_string()).collect::<Vec<_>>();
        assert_eq!(runs_on_disk(&root), (names(data), names(beside)));
    };
    there(&["a", "b", "c", "d", "holiday"], &["a", "b", "c", "d"]);
    // Every version can still be read, with its own clusters.
    assert_eq!(integers(&first, "SELECT count(*) FROM t WHERE cluster = 1").await, [13]);
    assert_eq!(integers(&session_at(&place, Some(0)).await, "SELECT sum(start) FROM t").await, [780]);
    assert_eq!(integers(&session_at(&place, Some(1)).await, "SELECT sum(size) FROM t_clusters").await, [12]);
    // Nothing is a week old.
    assert_eq!(table::vacuum(&place, None, false).await.unwrap(), Vacuumed::default());
    let would = table::vacuum(&place, Some(Duration::ZERO), true).await.unwrap();
    there(&["a", "b", "c", "d", "holiday"], &["a", "b", "c", "d"]);
    assert_eq!(table::vacuum(&place, Some(Duration::ZERO), false).await.unwrap(), would);
    assert_eq!(would.files, 6 + 2, "three partitions of two runs, and the clusters of both");
    there(&["c", "d", "holiday"], &["c", "d"]);
    assert_eq!(table::vacuum(&place, Some(Duration::ZERO), false).await.unwrap(), Vacuumed::default());
    assert_eq!(integers(&session_at(&place, Some(2)).await, "SELECT sum(size) FROM t_clusters").await, [6]);
    let e = session_at(&place, Some(1)).await.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(e.to_string().contains("is missing (what old versions need goes when the table is vacuumed)"), "{e}");
    assert_eq!(starts(&place).await.len(), 80);
}

#[tokio::test]
async fn a_version_is_restored_by_a_commit() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    append(&place, "b", &rows(10, 20)).await.unwrap();
    overwrite(&place, "c", &rows(50, 55)).await.unwrap();
    assert_eq!(table::restore(&place, 1).await.unwrap(), 3);
    assert_eq!(starts(&place).await, (0..20).collect::<Vec<_>>());
    assert_eq!(table::restore(&place, 2).await.unwrap(), 4);
    assert_eq!(starts(&place).await, (50..55).collect::<Vec<_>>());
    append(&place, "d", &rows(55, 57)).await.unwrap();
    assert_eq!(starts(&place).await, (50..57).collect::<Vec<_>>());
    let e = table::restore(&place, 17).await.unwrap_err();
    assert!(e.to_string().ends_with("has no version 17: its newest is 5"), "{e}");
    table::vacuum(&place, Some(Duration::ZERO), false).await.unwrap();
    let e = table::restore(&place, 1).await.unwrap_err();
    assert!(e.to_string().contains("data/a/part-00000.parquet is gone; dacpipe table vacuum removes"), "{e}");
    assert_eq!(starts(&place).await.len(), 7);
}

#[tokio::test]
async fn small_files_are_put_together_and_no_row_changes() {
    let (dir, place) = local();
    for i in 0..6 {
        let options = WriteOptions::new(Mode::Append, format!("r{i}")).partition_by(["split"]);
        write(&place, options, &[rows(i * 30, i * 30 + 30)]).await.unwrap();
    }
    let all = "SELECT * EXCEPT (labelled_at) FROM t ORDER BY start";
    let before = sql(&session(&place).await, all).await;
    let done = table::optimize(&place, table::TARGET_BYTES).await.unwrap();
    assert_eq!((done.version, done.removed, done.added), (Some(6), 18, 3));
    let context = session(&place).await;
    assert_eq!(sql(&context, all).await, before);
    let of_train = integers(&context, "SELECT start FROM t WHERE split = 'train'").await;
    assert_eq!(of_train, (0..180).filter(|i| (i / 10) % 3 == 0).collect::<Vec<_>>(), "in their order");
    let nothing = table::optimize(&place, table::TARGET_BYTES).await.unwrap();
    assert_eq!((nothing.version, nothing.added), (None, 0));
    write(&place, WriteOptions::new(Mode::Append, "r6").partition_by(["split"]), &[rows(180, 210)]).await.unwrap();
    assert_eq!(starts(&place).await.len(), 210);
    let history = table::history(&place, 2).await.unwrap();
    assert_eq!(history.iter().map(|commit| commit.operation.as_str()).collect::<Vec<_>>(), ["WRITE", "OPTIMIZE"]);
    table::vacuum(&place, Some(Duration::ZERO), false).await.unwrap();
    assert_eq!(files(&dir.path().join("t/data")).len(), 6);
    assert_eq!(starts(&place).await.len(), 210);
}

/// Commits are a few milliseconds apart, so that their times differ.
#[allow(clippy::disallowed_methods)]
#[tokio::test]
async fn a_time_finds_the_version_of_then() {
    let (_dir, place) = local();
    let mut times = vec![std::time::SystemTime::now()];
    for i in 0..5 {
        std::thread::sleep(Duration::from_millis(5));
        append(&place, &format!("r{i}"), &rows(i * 10, i * 10 + 10)).await.unwrap();
        std::thread::sleep(Duration::from_millis(5));
        times.push(std::time::SystemTime::now());
    }
    for (version, time) in times[1..].iter().enumerate() {
        assert_eq!(table::version_as_of(&place, *time).await.unwrap(), version as u64);
    }
    let e = table::version_as_of(&place, times[0]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert!(e.to_string().contains("had no version at") && e.to_string().contains("its first version is of"), "{e}");
}

/// Rows `from..to` appended by a run with keys, and what became of them.
async fn append_keyed(
    place: &Location,
    run: &str,
    model: &str,
    (from, to): (i64, i64),
    on: OnExisting,
) -> dacpipe::Result<(u64, u64, u64)> {
    let options = WriteOptions::new(Mode::Append, run).keys(["start"]).on_existing(on);
    let mut writer = TableWriter::begin(place, options).await?;
    let existing = writer.existing(model).await?;
    let context = SessionContext::new();
    let mut plan = context.read_batch(rows(from, to))?;
    if let Some(existing) = &existing {
        plan = plan.filter(existing.is_new())?;
    }
    let sink = writer.sink(rows(0, 1).schema(), labels(model))?;
    let mut sizes = [0; 3];
    for batch in plan.collect().await? {
        sink.write(&batch).await?;
        let clusters = batch["cluster"].as_any().downcast_ref::<Int32Array>().unwrap();
        clusters.iter().flatten().for_each(|cluster| sizes[cluster as usize] += 1);
    }
    let skipped = existing.map_or(0, |existing| existing.skipped());
    let info = CommitInfo { clusters: Some(clusters(&sizes, 1.0)), skipped_rows: skipped, ..CommitInfo::default() };
    let committed = writer.commit(info).await?;
    Ok((committed.rows, skipped, committed.replaced_rows))
}

#[tokio::test]
async fn rows_with_keys_that_are_there_are_skipped_replaced_or_refused() {
    let (_dir, place) = local();
    let skip = OnExisting::Skip;
    assert_eq!(append_keyed(&place, "a", "m1", (0, 100), skip).await.unwrap(), (100, 0, 0));
    assert_eq!(append_keyed(&place, "b", "m1", (0, 100), skip).await.unwrap(), (0, 100, 0));
    assert_eq!(append_keyed(&place, "c", "m1", (90, 120), skip).await.unwrap(), (20, 10, 0));
    assert_eq!(starts(&place).await, (0..120).collect::<Vec<_>>());
    // Rows of another model do not count.
    assert_eq!(append_keyed(&place, "d", "m2", (0, 10), skip).await.unwrap(), (10, 0, 0));
    assert_eq!(starts(&place).await.len(), 130);
    let e = append_keyed(&place, "e", "m1", (119, 125), OnExisting::Error).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert!(e.to_string().contains("has a row with the key start = 119 already"), "{e}");
    assert_eq!(append_keyed(&place, "f", "m3", (5, 15), OnExisting::Replace).await.unwrap(), (10, 0, 15));
    let context = session(&place).await;
    assert_eq!(
        integers(&context, "SELECT start FROM t GROUP BY 1 HAVING count(*) > 1 ORDER BY 1").await,
        [0, 1, 2, 3, 4]
    );
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE model = 'm3'").await, [10]);
    assert_eq!(integers(&context, "SELECT sum(size) FROM t_clusters").await, [125], "sizes are those of the rows");
    assert_eq!(integers(&context, "SELECT sum(size) FROM t_clusters WHERE model = 'm2'").await, [5]);
}

#[tokio::test]
async fn a_key_that_is_there_twice_is_a_fault_that_is_said() {
    let (dir, place) = local();
    let options = WriteOptions::new(Mode::Append, "a").keys(["user", "split"]);
    let e = write(&place, options, &[rows(0, 5), rows(5, 9)]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert!(e.to_string().contains("two rows have the key user = 0, split = train;"), "{e}");
    assert_eq!(files(&dir.path().join("t")), Vec::<String>::new());
    let options = WriteOptions::new(Mode::Append, "a").keys(["id"]);
    let e = write(&place, options, &[rows(0, 5)]).await.unwrap_err();
    assert!(e.to_string().contains("keys: no column \"id\""), "{e}");
}

#[tokio::test]
async fn a_plan_writes_through_the_sink() {
    let (_dir, place) = local();
    let context = SessionContext::new();
    let batches = vec![vec![rows(0, 30), rows(30, 5000)]];
    context.register_table("source", Arc::new(MemTable::try_new(rows(0, 1).schema(), batches).unwrap())).unwrap();
    let plan = context.table("source").await.unwrap().create_physical_plan().await.unwrap();
    let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "a")).await.unwrap();
    let sink = writer.sink(plan.schema(), labels("m1")).unwrap();
    let plan = Arc::new(DataSinkExec::new(plan, sink.clone(), None));
    let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(shown.contains("DataSinkExec: sink=TableSink(table="), "{shown}");
    datafusion::physical_plan::collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(sink.rows().await, 5000);
    assert_eq!(writer.commit(CommitInfo::default()).await.unwrap().rows, 5000);
    assert_eq!(starts(&place).await, (0..5000).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_error_on_the_way_to_the_sink_commits_nothing() {
    let (dir, place) = local();
    let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "a")).await.unwrap();
    let sink = writer.sink(rows(0, 1).schema(), labels("m1")).unwrap();
    let stream = futures::stream::iter([Ok(rows(0, 5000)), Err(dacpipe::Error::input("line 7 of x.csv").into())]);
    let stream = datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(rows(0, 1).schema(), stream);
    use datafusion::datasource::sink::DataSink;
    let e = sink.write_all(Box::pin(stream), &SessionContext::new().task_ctx()).await.unwrap_err();
    assert_eq!(dacpipe::Error::from(e).kind(), Kind::Input);
    assert_eq!(writer.commit(CommitInfo::default()).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(files(&dir.path().join("t")), Vec::<String>::new());
}

#[tokio::test]
async fn a_query_shows_what_it_pushed_down() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 100)).await.unwrap();
    append(&place, "b", &rows(1000, 1100)).await.unwrap();
    let context = session(&place).await;
    let explain = sql(&context, "EXPLAIN SELECT cluster FROM t WHERE start > 1050").await;
    assert!(explain.contains("data/b/part-00000.parquet"), "{explain}");
    assert!(!explain.contains("data/a/part-00000.parquet"), "the log rules it out: {explain}");
    assert!(explain.contains("predicate=start@1 > 1050"), "{explain}");
    assert!(explain.contains("projection=[start, cluster]"), "{explain}");
    let explain = sql(&context, "EXPLAIN SELECT start FROM t LIMIT 5").await;
    assert!(explain.contains("limit=5") && explain.contains("projection=[start]"), "{explain}");
    assert!(!explain.contains("data/b/"), "one file has rows enough: {explain}");
    let explain = sql(&context, "EXPLAIN SELECT start FROM t LIMIT 101").await;
    assert!(explain.contains("data/b/"), "{explain}");
    for answered_by_the_log in ["count(*)", "max(start)", "min(cluster)"] {
        let explain = sql(&context, &format!("EXPLAIN SELECT {answered_by_the_log} FROM t")).await;
        assert!(explain.contains("PlaceholderRowExec") && !explain.contains("DataSourceExec"), "{explain}");
    }
    assert_eq!(integers(&context, "SELECT count(*) FROM t").await, [200]);
    assert_eq!(integers(&context, "SELECT max(start) FROM t").await, [1099]);
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE start BETWEEN 95 AND 1004").await, [10]);
    assert_eq!(integers(&context, "SELECT start FROM t WHERE start < -1").await, [0; 0]);
}

#[tokio::test]
async fn nan_and_long_text_are_not_taken_from_the_log() {
    let (_dir, place) = local();
    let long = "é".repeat(100);
    let batch = RecordBatch::try_from_iter([
        ("x", Arc::new(Float32Array::from(vec![1.0, f32::NAN, 2.0])) as _),
        ("s", Arc::new(StringArray::from(vec!["a", &long, "b"])) as _),
    ])
    .unwrap();
    append(&place, "a", &batch).await.unwrap();
    let context = session(&place).await;
    assert!(sql(&context, "SELECT max(x) FROM t").await.contains("NaN"));
    assert!(sql(&context, "SELECT max(s) FROM t").await.contains(&long));
    assert_eq!(integers(&context, &format!("SELECT count(*) FROM t WHERE s = '{long}'")).await, [1]);
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE x >= 2.0").await, [2], "NaN is greater than all");
}

#[tokio::test]
async fn a_partition_is_read_alone() {
    let (dir, place) = local();
    let options = |run: &str| WriteOptions::new(Mode::Append, run).partition_by(["split"]);
    write(&place, options("a"), &[rows(0, 15), rows(15, 60)]).await.unwrap();
    write(&place, options("b"), &[rows(60, 90)]).await.unwrap();
    let there = files(&dir.path().join("t"));
    assert!(there.contains(&"data/a/split=train/part-00000.parquet".to_owned()), "{there:?}");
    assert!(there.contains(&"data/b/split=__HIVE_DEFAULT_PARTITION__/part-00000.parquet".to_owned()), "{there:?}");
    let context = session(&place).await;
    let explain = sql(&context, "EXPLAIN SELECT start FROM t WHERE split = 'train'").await;
    assert!(explain.contains("split=train") && !explain.contains("split=test"), "{explain}");
    assert!(!explain.contains("FilterExec"), "the partition decides it: {explain}");
    let count = "SELECT count(*) FROM t WHERE split";
    assert_eq!(integers(&context, &format!("{count} = 'train'")).await, [30]);
    assert_eq!(integers(&context, &format!("{count} IS NULL")).await, [30]);
    assert_eq!(integers(&context, &format!("{count} <> 'train'")).await, [30]);
    assert_eq!(integers(&context, &format!("{count} IN ('test', 'other')")).await, [30]);
    assert_eq!(integers(&context, &format!("{count} = 'none'")).await, [0]);
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE split = 'train' AND start > 40 LIMIT 3").await, [10]);
    assert_eq!(
        integers(&context, "SELECT start FROM t WHERE split = 'test' AND start > 44 ORDER BY 1").await.len(),
        15
    );
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE split = 'train' OR start = 15").await, [31]);
    let e = append(&place, "c", &rows(0, 1)).await.unwrap_err();
    assert!(e.to_string().contains("its files are divided by [\"split\"], this run's by []"), "{e}");
}

#[tokio::test]
async fn any_value_can_be_a_partition() {
    let (_dir, place) = local();
    let values = ["a/b", "", "..", "x=y", "ü €", "50%", "a b", "#1", "?*", "__HIVE_DEFAULT_PARTITION__"];
    let ids: Vec<i32> = (0..values.len() as i32).collect();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from(ids.clone())) as _),
        ("v", Arc::new(StringArray::from(values.to_vec())) as _),
    ])
    .unwrap();
    for (i, place) in [place, Location::parse("memory:///any_value").unwrap()].iter().enumerate() {
        let options = WriteOptions::new(Mode::Append, format!("run{i}")).partition_by(["v", "id"]);
        let committed = write(place, options, std::slice::from_ref(&batch)).await.unwrap();
        assert_eq!(committed.files, values.len());
        assert_eq!(committed.empty_texts, [("v".to_string(), 1)]);
        let context = session(place).await;
        for (id, value) in values.iter().enumerate() {
            let found = integers(&context, &format!("SELECT id FROM t WHERE v = '{value}'")).await;
            assert_eq!(found, [id as i64], "{value:?}");
            let found = sql(&context, &format!("SELECT v FROM t WHERE id = {id}")).await;
            assert!(found.contains(value), "{value:?}: {found}");
        }
    }
}

#[tokio::test]
async fn too_many_partitions_are_refused() {
    let (dir, place) = local();
    let options = WriteOptions::new(Mode::Append, "a").partition_by(["start"]);
    let e = write(&place, options, &[rows(0, 300)]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Config);
    assert!(e.to_string().contains("partition_by = [\"start\"] has more than 256 values"), "{e}");
    assert_eq!(files(&dir.path().join("t")), Vec::<String>::new());
    let options = WriteOptions::new(Mode::Append, "a").partition_by(["embedding"]);
    let e = write(&place, options, &[rows(0, 3)]).await.unwrap_err();
    assert!(
        e.to_string().contains("column \"embedding\" is FixedSizeList(2 x non-null Float32); expected text"),
        "{e}"
    );
    let options = WriteOptions::new(Mode::Append, "a").partition_by(["activity"]);
    let e = write(&place, options, &[rows(0, 3)]).await.unwrap_err();
    assert!(e.to_string().contains("partition_by: no column \"activity\"; there are user, start"), "{e}");
}

#[tokio::test]
async fn what_cannot_be_appended_is_known_before_the_work() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    let writer = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "b")).await.unwrap();
    let other = Schema::new(vec![Field::new("user", DataType::Utf8, false)]);
    let e = writer.check(&other).unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert!(e.to_string().contains("column \"user\" is Int32 there and Utf8 here"), "{e}");
    drop(writer);
    let writer = TableWriter::begin(&place, WriteOptions::new(Mode::Overwrite, "b")).await.unwrap();
    assert_eq!(writer.check(&other).unwrap().fields().len(), 3);
}

#[tokio::test]
async fn columns_are_found_by_name_and_absent_ones_are_null() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 2)).await.unwrap();
    let other = rows(2, 4).project(&[5, 4, 3, 1, 0]).unwrap();
    append(&place, "b", &other).await.unwrap();
    insta::assert_snapshot!(sql(&session(&place).await, "SELECT cluster, user, start, split FROM t").await, @r"
    +---------+------+-------+-------+
    | cluster | user | start | split |
    +---------+------+-------+-------+
    | 0       | 0    | 0     | train |
    | 1       | 0    | 1     | train |
    | 2       | 0    | 2     |       |
    | 0       | 0    | 3     |       |
    +---------+------+-------+-------+
    ");
}

#[tokio::test]
async fn a_large_run_has_several_files() {
    let (dir, place) = local();
    let mut options = WriteOptions::new(Mode::Append, "a");
    options.file_bytes = 100_000;
    let committed = write(&place, options, &[rows(0, 50_000)]).await.unwrap();
    assert!(committed.files > 2, "{committed:?}");
    assert_eq!(starts(&place).await, (0..50_000).collect::<Vec<_>>());
    let on_disk: u64 = files(&dir.path().join("t"))
        .iter()
        .filter(|f| f.starts_with("data/"))
        .map(|f| std::fs::metadata(dir.path().join("t").join(f)).unwrap().len())
        .sum();
    assert_eq!(committed.bytes, on_disk);
}

#[tokio::test]
async fn a_run_without_rows_is_a_table_without_rows() {
    let (_dir, place) = local();
    append(&place, "a", &rows(0, 0)).await.unwrap();
    let context = session(&place).await;
    assert_eq!(integers(&context, "SELECT count(*) FROM t WHERE cluster = 1").await, [0]);
    assert_eq!(integers(&context, "SELECT start FROM t").await, [0; 0]);
    append(&place, "b", &rows(0, 3)).await.unwrap();
    assert_eq!(starts(&place).await, [0, 1, 2]);
}

#[tokio::test]
async fn clusters_are_those_of_all_rows() {
    let (_dir, place) = local();
    let run = async |mode, run: &str, model: &str, clusters: Option<RecordBatch>| {
        let mut writer = TableWriter::begin(&place, WriteOptions::new(mode, run)).await.unwrap();
        writer.sink(rows(0, 6).schema(), labels(model)).unwrap().write(&rows(0, 6)).await.unwrap();
        writer.commit(CommitInfo { clusters, ..CommitInfo::default() }).await.unwrap();
    };
    run(Mode::Append, "a", "m1", Some(clusters(&[4, 2], 1.0))).await;
    run(Mode::Append, "b", "m1", Some(clusters(&[2, 4], 2.5))).await;
    run(Mode::Append, "c", "m2", Some(clusters(&[1], 7.0))).await;
    run(Mode::Append, "d", "m2", None).await;
    let all = "SELECT * FROM t_clusters";
    insta::assert_snapshot!(sql(&session(&place).await, all).await, @r"
    +---------+------+------------+---------------+-------+
    | cluster | size | centroid   | mean_distance | model |
    +---------+------+------------+---------------+-------+
    | 0       | 6    | [0.0, 1.0] | 1.5           | m1    |
    | 1       | 6    | [2.0, 3.0] | 2.0           | m1    |
    | 0       | 1    | [0.0, 1.0] | 7.0           | m2    |
    +---------+------+------------+---------------+-------+
    ");
    assert_eq!(integers(&session_at(&place, Some(0)).await, "SELECT size FROM t_clusters").await, [4, 2]);
    run(Mode::Overwrite, "e", "m2", None).await;
    assert_eq!(integers(&session(&place).await, "SELECT count(*) FROM t_clusters").await, [0]);
}

#[tokio::test]
async fn a_table_lies_in_any_object_store() {
    let place = Location::parse("memory:///somewhere/t").unwrap();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    append(&place, "b", &rows(10, 20)).await.unwrap();
    let context = SessionContext::new();
    let table = LabelTable::open("memory:///somewhere/t", None).await.unwrap();
    assert_eq!((table.snapshot().version, table.snapshot().rows()), (1, 20));
    context.register_table("t", Arc::new(table)).unwrap();
    assert_eq!(integers(&context, "SELECT start FROM t WHERE cluster = 2 ORDER BY 1").await, [2, 5, 8, 11, 14, 17]);
    let e = LabelTable::open("memory:///elsewhere", None).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert!(e.to_string().contains("memory:///elsewhere holds no table"), "{e}");
}

#[tokio::test]
async fn a_relative_path_with_odd_characters_is_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(dir.path().join("a b/ü #1/50%/t=1").to_str().unwrap()).unwrap();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    assert_eq!(starts(&place).await.len(), 10);
    assert_eq!(integers(&session(&place).await, "SELECT start FROM t WHERE start = 3").await, [3]);
}

/// The bytes of the data files of a run that got `all` in pieces cut at `cuts`.
async fn data_bytes(all: &RecordBatch, cuts: &[usize], partition_by: &[&str]) -> Vec<(String, Vec<u8>)> {
    let (dir, place) = local();
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (all.num_rows() + 1)).chain([0, all.num_rows()]).collect();
    cuts.sort_unstable();
    let pieces: Vec<RecordBatch> = cuts.windows(2).map(|w| all.slice(w[0], w[1] - w[0])).collect();
    let mut options = WriteOptions::new(Mode::Append, "a").partition_by(partition_by.iter().copied());
    options.file_bytes = 150_000;
    write(&place, options, &pieces).await.unwrap();
    if partition_by.is_empty() {
        assert_eq!(starts(&place).await, (0..all.num_rows() as i64).collect::<Vec<_>>());
    }
    let root = dir.path().join("t");
    let data = files(&root).into_iter().filter(|f| f.starts_with("data/"));
    data.map(|f| (f.clone(), std::fs::read(root.join(&f)).unwrap())).collect()
}

/// Reads the table with other programs, where the variable names a Python that has deltalake, pandas, polars and duckdb;
/// with DuckDB's delta extension, too, where the package duckdb-ext-delta has it.
#[tokio::test]
async fn other_engines_read_the_table() {
    let Ok(python) = std::env::var("DACPIPE_PYTHON") else {
        eprintln!("skipped: DACPIPE_PYTHON does not name a Python with deltalake, pandas, polars and duckdb");
        return;
    };
    let (dir, place) = local();
    let options = |mode, run: &str| WriteOptions::new(mode, run).partition_by(["split"]);
    let script = r#"
import glob, importlib.util, sys, duckdb, polars
from deltalake import DeltaTable
path = sys.argv[1]
table = DeltaTable(path)
arrow = table.to_pyarrow_table()
pandas = table.to_pandas()
frame = polars.scan_delta(path).select(polars.len(), polars.col("start").sum(), polars.col("split").count()).collect()
duck = duckdb.sql("SELECT count(*), sum(start), count(split), sum(len(embedding)) FROM arrow").fetchall()[0]
counts = {(len(arrow), sum(arrow["start"].to_pylist()), len(arrow) - arrow["split"].null_count),
    (len(pandas), int(pandas["start"].sum()), int(pandas["split"].count())), tuple(frame.row(0)),
    (duck[0], int(duck[1]), duck[2])}
extensions = importlib.util.find_spec("duckdb_ext")
for place in extensions.submodule_search_locations if extensions else []:
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as session:
        session.sql(f"LOAD '{glob.glob(place + '/extensions/*/*/delta.duckdb_extension')[0]}'")
        scan = session.sql(f"SELECT count(*), sum(start), count(split) FROM delta_scan('{path}')").fetchall()[0]
        counts.add((scan[0], int(scan[1]), scan[2]))
assert len(counts) == 1, counts
assert all(row["embedding"] == [2.0 * row["start"], 2.0 * row["start"] + 1] for row in arrow.to_pylist())
print(table.version(), *counts.pop())
"#;
    let read = || {
        let root = dir.path().join("t");
        let output = std::process::Command::new(&python).args(["-c", script]).arg(root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut said = Vec::new();
    write(&place, options(Mode::Append, "a"), &[rows(0, 600)]).await.unwrap();
    write(&place, options(Mode::Append, "b"), &[rows(600, 900)]).await.unwrap();
    said.push(read());
    write(&place, options(Mode::Overwrite, "c"), &[rows(1000, 1090)]).await.unwrap();
    said.push(read());
    write(&place, options(Mode::Append, "d"), &[rows(1090, 1099)]).await.unwrap();
    table::optimize(&place, table::TARGET_BYTES).await.unwrap();
    // While another run writes.
    let mut writer = TableWriter::begin(&place, options(Mode::Append, "e")).await.unwrap();
    writer.sink(rows(0, 1).schema(), labels("m")).unwrap().write(&rows(0, 9000)).await.unwrap();
    said.push(read());
    writer.commit(CommitInfo::default()).await.unwrap();
    // Beyond a checkpoint.
    for i in 0..20 {
        write(&place, options(Mode::Append, &format!("f{i}")), &[rows(9000 + i, 9001 + i)]).await.unwrap();
    }
    assert!(dir.path().join("t/_delta_log/_last_checkpoint").exists());
    said.push(read());
    insta::assert_snapshot!(said.concat(), @r"
    1 900 404550 600
    2 90 94005 60
    4 99 103851 69
    25 9119 40779541 6089
    ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn batches_do_not_show_in_the_files(cuts in prop::collection::vec(0usize..20_000, 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = rows(0, 20_000);
        for partition_by in [&[][..], &["split"][..]] {
            let whole = runtime.block_on(data_bytes(&all, &[], partition_by));
            let cut = runtime.block_on(data_bytes(&all, &cuts, partition_by));
            prop_assert!(whole.len() > 1);
            prop_assert!(whole == cut);
        }
    }
}

/// A process that has made a commit goes on from what it knows: it sees what others did where that matters.
#[tokio::test]
async fn appends_go_on_from_the_commit_before() {
    let (dir, place) = local();
    let options = |run: &str| WriteOptions::new(Mode::Append, run).keys(["start"]);
    let commit = async |mut writer: TableWriter, from: i64| {
        let sink = writer.sink(rows(0, 1).schema(), labels("m1")).unwrap();
        sink.write(&rows(from, from + 10)).await.unwrap();
        writer.commit_and_know(CommitInfo::default()).await
    };
    // What makes the table is not only an append.
    let (first, none) = commit(TableWriter::begin(&place, options("a")).await.unwrap(), 0).await.unwrap();
    assert!(first.version == 0 && none.is_none());
    let (_, known) = commit(TableWriter::begin(&place, options("b")).await.unwrap(), 10).await.unwrap();
    let mut known = known.unwrap();
    for version in 2..30 {
        let writer = TableWriter::begin_after(&place, options(&format!("c{version}")), &known).await.unwrap();
        assert_eq!(writer.base_rows(), version * 10);
        let (committed, next) = commit(writer, version as i64 * 10).await.unwrap();
        assert_eq!(committed.version, version);
        known = next.unwrap();
    }
    // Another process commits: the next one goes on top of that, and what it knows then has both.
    write(&place, options("other"), &[rows(1000, 1010)]).await.unwrap();
    let writer = TableWriter::begin_after(&place, options("d"), &known).await.unwrap();
    let (committed, next) = commit(writer, 300).await.unwrap();
    assert_eq!(committed.version, 31);
    let writer = TableWriter::begin_after(&place, options("e"), &next.unwrap()).await.unwrap();
    assert_eq!(writer.base_rows(), 320);
    // A key that the other one wrote meanwhile is found.
    let e = commit(TableWriter::begin_after(&place, options("f"), &known).await.unwrap(), 1000).await.unwrap_err();
    assert!(e.to_string().contains("start = 1000"), "{e}");
    drop(writer);
    let whole = session(&place).await;
    assert_eq!(whole.sql("SELECT DISTINCT start FROM t").await.unwrap().count().await.unwrap(), 320);
    // A table that is gone is begun anew, and not gone on with.
    std::fs::remove_dir_all(dir.path().join("t")).unwrap();
    let (committed, _) =
        commit(TableWriter::begin_after(&place, options("g"), &known).await.unwrap(), 0).await.unwrap();
    assert_eq!(committed.version, 0);
}
