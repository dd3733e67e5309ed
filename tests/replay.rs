//! What was set aside is run again after a fix, once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use dacpipe::Kind;
use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, ReplayOptions, ReplayReport, RunOptions, StreamOptions, replay_table};
use dacpipe::table::LabelTable;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

const RECORDINGS: &str = r#"
name = "pump"
seed = 3
on_bad_row = "quarantine"
[source]
kind = "csv"
path = "IN"
channels = ["x", "y"]
[[stage]]
kind = "window"
length = 8
stride = 4
within = "recordings"
[[stage]]
kind = "features"
set = "summary"
bands = 2
[[stage]]
kind = "scale"
method = "standard"
[[stage]]
kind = "kmeans"
k = 2
[sink]
path = "OUT"
vectors = "list"
"#;

const VECTORS: &str = r#"
name = "v"
seed = 3
on_bad_row = "quarantine"
[source]
kind = "parquet"
path = "IN"
features = ["x", "y"]
label = "state"
[[stage]]
kind = "kmeans"
k = 2
[sink]
path = "OUT"
"#;

fn pipeline(text: &str, dir: &Path, out: &str, sets: &[&str]) -> Pipeline {
    let text =
        text.replace("IN", &dir.join("in").display().to_string()).replace("OUT", &dir.join(out).display().to_string());
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    Pipeline::new(PipelineFile::parse("t.toml", &text, &sets, &|_| None).unwrap().plan).unwrap()
}

/// The rows of a table: by file and start, the cluster, the distance's bits and the vector's.
async fn rows(table: &Path) -> BTreeMap<(String, i64), (i32, u32, Vec<u32>)> {
    let ctx = SessionContext::new();
    let table = LabelTable::open(table.to_str().unwrap(), None).await.unwrap();
    let columns = ["file", "start", "cluster", "distance", "features"];
    let rows = ctx.read_table(Arc::new(table)).unwrap().select_columns(&columns).unwrap();
    let mut found = BTreeMap::new();
    for batch in rows.collect().await.unwrap() {
        let file = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            let key =
                (file.as_string::<i32>().value(row).to_owned(), batch.column(1).as_primitive::<Int64Type>().value(row));
            let vector = batch.column(4).as_list::<i32>().value(row);
            let vector = vector.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
            let cluster = batch.column(2).as_primitive::<Int32Type>().value(row);
            let distance = batch.column(3).as_primitive::<Float32Type>().value(row).to_bits();
            assert!(found.insert(key.clone(), (cluster, distance, vector)).is_none(), "{key:?} is there twice");
        }
    }
    found
}

fn recording(seed: u64, empty: &[usize], wrong: &[usize]) -> String {
    let mut text = String::from("x,y\n");
    for i in 0..120 {
        let x = ((i as u64 * 7 + seed) % 13) as f64 * if i < 60 { 0.5 } else { 3.0 };
        let y = match (empty.contains(&i), wrong.contains(&i)) {
            (true, _) => String::new(),
            (_, true) => "high".to_owned(),
            _ => format!("{}", (i as u64 * 5 + seed) % 11),
        };
        text += &format!("{x},{y}\n");
    }
    text
}

async fn replay(pipeline: &Pipeline, options: ReplayOptions) -> ReplayReport {
    pipeline.replay(&options).await.unwrap()
}

/// Empty values were bad rows; after the fix they take the value before. The windows that were missing come in, once, as
/// if the source had been read so from the beginning; what is still wrong is counted and stays.
#[tokio::test(flavor = "multi_thread")]
async fn windows_that_were_missing_come_in_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/a.csv"), recording(1, &[30, 31, 77], &[100])).unwrap();
    fs::write(dir.path().join("in/b.csv"), recording(2, &[], &[])).unwrap();
    fs::write(dir.path().join("in/c.csv"), recording(4, &[9], &[])).unwrap();
    let before = pipeline(RECORDINGS, dir.path(), "out", &[]).run(&RunOptions::default()).await.unwrap();
    assert_eq!(before.quarantined_rows, 5);
    let there = rows(&dir.path().join("out")).await;

    // Nothing has changed, so nothing is mended.
    let same = replay(&pipeline(RECORDINGS, dir.path(), "out", &[]), ReplayOptions::default()).await;
    assert_eq!((same.entries, same.replayed, same.rows, same.table_version), (5, 0, 0, None), "{same:?}");
    assert_eq!(same.refused["row"].entries, 5);

    let fixed = pipeline(RECORDINGS, dir.path(), "out", &["source.fill=hold"]);
    let dry = replay(&fixed, ReplayOptions { dry_run: true, ..ReplayOptions::default() }).await;
    assert_eq!((dry.entries, dry.replayed, dry.table_version), (5, 4, None), "{dry:?}");
    assert_eq!(rows(&dir.path().join("out")).await, there);
    let one = ReplayOptions { only: Some("file LIKE '%c.csv'".into()), ..ReplayOptions::default() };
    let one = replay(&fixed, one).await;
    assert_eq!((one.entries, one.replayed, one.refused.len()), (1, 1, 0), "{one:?}");
    let done = replay(&fixed, ReplayOptions::default()).await;
    assert_eq!((done.entries, done.replayed, done.rows + one.rows), (4, 3, dry.rows), "{done:?}");
    assert!(done.refused["row"].entries == 1 && done.refused["row"].first.contains("high"), "{done:?}");

    // The same windows as of a table that was labelled so from the beginning, by the same model.
    let after = rows(&dir.path().join("out")).await;
    assert_eq!(after.len(), there.len() + dry.rows as usize);
    let model = format!("stream.model={:?}", before.model_path);
    let whole = pipeline(RECORDINGS, dir.path(), "whole", &["source.fill=hold", &model, "stream.settle=\"0 s\""]);
    whole.follow(&StreamOptions { once: true, ..StreamOptions::default() }).await.unwrap();
    assert_eq!(after, rows(&dir.path().join("whole")).await);

    // Again: only what is still wrong is open, and nothing is added.
    let again = replay(&fixed, ReplayOptions::default()).await;
    assert_eq!((again.entries, again.replayed, again.rows, again.table_version), (1, 0, 0, None), "{again:?}");
    assert_eq!(rows(&dir.path().join("out")).await, after);

    // By the table alone the source is read as the model's pipeline read it.
    let place = dir.path().join("out").display().to_string();
    let of_table = replay_table(&place, &ReplayOptions::default()).await.unwrap();
    assert_eq!((of_table.entries, of_table.refused["row"].entries), (1, 1), "{of_table:?}");
}

/// A file that is another one now is not read again: its rows cannot be told from those of the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let a = dir.path().join("in/a.csv");
    fs::write(&a, recording(1, &[30], &[])).unwrap();
    fs::write(dir.path().join("in/b.csv"), recording(2, &[50], &[])).unwrap();
    pipeline(RECORDINGS, dir.path(), "out", &[]).run(&RunOptions::default()).await.unwrap();
    let there = rows(&dir.path().join("out")).await;
    let fixed = pipeline(RECORDINGS, dir.path(), "out", &["source.fill=hold"]);
    // A line is gone: all windows behind it would have other numbers.
    let text = fs::read_to_string(&a).unwrap();
    let line = text.find("\n3,").unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    fs::write(&a, text[..line].to_owned() + &text[line + 1 + text[line + 1..].find('\n').unwrap()..]).unwrap();
    fs::File::options().append(true).open(&a).unwrap().set_modified(later).unwrap();
    fs::remove_file(dir.path().join("in/b.csv")).unwrap();
    let report = replay(&fixed, ReplayOptions::default()).await;
    assert_eq!((report.entries, report.replayed, report.not_replayable.len()), (2, 0, 2), "{report:?}");
    assert_eq!(rows(&dir.path().join("out")).await, there);
    // Lines that came behind change nothing of those that were there.
    fs::write(&a, text + "1,1\n2,2\n").unwrap();
    fs::File::options().append(true).open(&a).unwrap().set_modified(later).unwrap();
    let report = replay(&fixed, ReplayOptions::default()).await;
    assert_eq!((report.replayed, report.not_replayable.len()), (1, 1), "{report:?}");
}

/// Of vectors, the rows that were set aside are read again, by file and row, also without keys.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_vectors_come_in_by_file_and_row() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let write = |name: &str, from: i64, state: bool| {
        let values = |scale: f32| -> ArrayRef {
            Arc::new((from..from + 20).map(|i| (i % 4 != 3).then_some(i as f32 * scale)).collect::<Float32Array>())
        };
        let mut columns = vec![("x", values(1.0)), ("y", Arc::new(Float32Array::from(vec![1.0; 20])) as ArrayRef)];
        if state {
            columns.push(("state", Arc::new(Int64Array::from(vec![1; 20]))));
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(dir.path().join("in").join(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    write("a.parquet", 0, true);
    // It has no labels, so all of it is refused.
    write("b.parquet", 100, false);
    let run = pipeline(VECTORS, dir.path(), "out", &[]).run(&RunOptions::default()).await.unwrap();
    assert_eq!((run.labelled_rows, run.quarantined_rows), (15, 5 + 1));
    let fixed = pipeline(VECTORS, dir.path(), "out", &["source.label=null"]);
    let done = replay(&fixed, ReplayOptions::default()).await;
    // The file is mended, and fifteen of its rows; the others are set aside by themselves.
    assert_eq!((done.entries, done.replayed, done.rows, done.set_aside), (6, 1, 15, 5), "{done:?}");
    let again = replay(&fixed, ReplayOptions::default()).await;
    assert_eq!((again.entries, again.replayed, again.rows, again.table_version), (10, 0, 0, None), "{again:?}");
    let table = LabelTable::open(dir.path().join("out").to_str().unwrap(), None).await.unwrap();
    assert_eq!(table.snapshot().rows(), 30);
}

#[test]
fn the_exit_code_says_whether_anything_was_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/a.csv"), recording(1, &[30], &[])).unwrap();
    let text = RECORDINGS
        .replace("IN", &dir.path().join("in").display().to_string())
        .replace("OUT", &dir.path().join("out/pump").display().to_string());
    fs::write(dir.path().join("t.toml"), text).unwrap();
    let dacpipe = |args: &[&str], code: i32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        let output = command.args(args).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    };
    assert!(dacpipe(&["replay", "t.toml"], Kind::Table.exit_code().into()).contains("holds no table"));
    dacpipe(&["run", "t.toml", "--quiet"], 0);
    let hold = ["--set", "source.fill=hold"];
    let dry = dacpipe(&[&["replay", "t.toml", "--dry-run"], &hold[..]].concat(), 0);
    assert!(dry.contains("1 of 1 entries of the quarantine would be replayed"), "{dry}");
    assert!(dacpipe(&["replay", "pump"], 0).contains("refused   1 still, for their row"), "nothing was fixed");
    dacpipe(&["replay", "t.toml", "--where", "nothing = 1"], Kind::Config.exit_code().into());
    let done = dacpipe(&[&["replay", "t.toml"], &hold[..]].concat(), 0);
    assert!(done.contains("version 1"), "{done}");
    assert!(dacpipe(&[&["replay", "t.toml"], &hold[..]].concat(), 99).contains("nothing to replay"));
}
