//! Every source over small files: what it yields, what it refuses, and what it does not read.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array, Int32Array, LargeListArray, ListArray, RecordBatch,
    StringArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema};
use dacpipe::column::values;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{
    BadRows, CsvSpec, Dialect, Features, HaptSpec, OnBadRow, ParquetSpec, Source, SourceOptions, SourceSpec,
    TimeColumn, TimeUnit, open,
};
use dacpipe::{Error, Kind, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

// ---- what all sources share ----

pub struct Opened {
    pub source: Source,
    pub bad: Arc<BadRows>,
}

pub async fn opened(spec: &SourceSpec, options: &SourceOptions) -> Result<Opened> {
    let bad = Arc::new(BadRows::new());
    Ok(Opened { source: open(spec, options, bad.clone()).await?, bad })
}

impl Opened {
    /// The rows of `query` over table `t`, as one batch.
    pub async fn sql_in(&self, query: &str, batch_size: usize) -> Result<RecordBatch> {
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_size);
        let context = SessionContext::new_with_config(config);
        context.register_table("t", self.source.provider.clone())?;
        let frame = context.sql(query).await?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await?;
        let schema = batches.first().map_or(schema, |b| b.schema());
        Ok(arrow::compute::concat_batches(&schema, &batches)?)
    }

    pub async fn sql(&self, query: &str) -> Result<RecordBatch> {
        self.sql_in(query, 8192).await
    }

    /// How many rows were set aside.
    pub fn aside(&self) -> u64 {
        self.bad.count()
    }

    pub fn bad_rows(&self) -> Vec<(String, u64, String)> {
        let name = |file: &str| Path::new(file).file_name().unwrap().to_string_lossy().into_owned();
        self.bad.rows().into_iter().map(|r| (name(&r.file), r.line, r.reason)).collect()
    }
}

pub async fn all(spec: &SourceSpec, options: &SourceOptions) -> Result<RecordBatch> {
    opened(spec, options).await?.sql("SELECT * FROM t").await
}

/// The error of reading everything.
pub async fn error_of(spec: &SourceSpec, options: &SourceOptions) -> Error {
    let error = all(spec, options).await.expect_err("an error was expected");
    assert_eq!(error.kind(), Kind::Input, "{error}");
    error
}

pub fn assert_says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn windows(length: usize, stride: usize, within: Within) -> SourceOptions {
    SourceOptions { window: Some(WindowSpec { length, stride, within }), ..Default::default() }
}

pub fn quarantine(options: SourceOptions) -> SourceOptions {
    SourceOptions { on_bad_row: OnBadRow::Quarantine, ..options }
}

pub fn i32s(batch: &RecordBatch, name: &str) -> Vec<i32> {
    batch[name].as_primitive::<Int32Type>().values().to_vec()
}

pub fn i64s(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch[name].as_primitive::<Int64Type>().values().to_vec()
}

pub fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    batch[name].as_string::<i32>().iter().map(|t| t.map(String::from)).collect()
}

/// The features in single precision, whatever their precision, and the number per row.
fn features_of(batch: &RecordBatch) -> (Vec<f32>, usize) {
    let (values, dim) = values(batch, "features").unwrap();
    (values.narrow().into_owned(), dim)
}

fn firsts(batch: &RecordBatch) -> Vec<f32> {
    let (values, dim) = features_of(batch);
    values.chunks_exact(dim).map(|row| row[0]).collect()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Replaces every file below `dir` by its gzip.
fn compress(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            compress(&path);
            continue;
        }
        let mut name = path.clone().into_os_string();
        name.push(".gz");
        let mut out = flate2::write::GzEncoder::new(fs::File::create(name).unwrap(), flate2::Compression::fast());
        out.write_all(&fs::read(&path).unwrap()).unwrap();
        out.finish().unwrap();
        fs::remove_file(path).unwrap();
    }
}

/// `path` relative to the tests' working directory, with `..`.
fn relative(path: &Path) -> String {
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    let up = here.components().skip(1).map(|_| "..").collect::<Vec<_>>().join("/");
    let path = path.canonicalize().unwrap();
    format!("{up}/{}", path.strip_prefix("/").unwrap().display())
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn paths_may_go_up() {
    let options = windows(4, 4, Within::Labels);
    let hapt = hapt();
    let up = SourceSpec::Hapt(HaptSpec { path: relative(hapt.path()) });
    assert_eq!(all(&up, &options).await.unwrap(), all(&hapt_spec(&hapt), &options).await.unwrap());

    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    let here = relative(dir.path());
    write(&dir.path().join("a.csv"), "x\n1\n2\n");
    write_parquet(&dir.path().join("a.parquet"), vec![("v", list(&plain_vectors(2))), ("id", ids(2))]);
    for place in [here.clone(), format!("{here}/other/.."), format!("{here}/not-there/..")] {
        for name in ["a", "?"] {
            let csv = SourceSpec::Csv(CsvSpec::new(format!("{place}/{name}.csv"), &["x"]));
            let rows = all(&csv, &SourceOptions::default()).await.unwrap();
            assert_eq!(firsts(&rows), [1.0, 2.0], "{place}");
            assert_eq!(texts(&rows, "file")[0].as_deref(), Some("a.csv"));
            let parquet = SourceSpec::Parquet(parquet_spec(Path::new(&format!("{place}/{name}.parquet"))));
            let rows = all(&parquet, &SourceOptions::default()).await.unwrap();
            assert_eq!(firsts(&rows), [0.0, 2.0], "{place}");
        }
    }
}

/// What a pipeline wrote into a store of the process can be read from there.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_one_store() {
    use dacpipe::store::Location;
    let place = Location::parse("memory:///sources/one_store").unwrap();
    place.put("a.csv", "x\n1\n2\n".into()).await.unwrap();
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("a.parquet"), vec![("v", list(&plain_vectors(2))), ("id", ids(2))]);
    place.put("a.parquet", fs::read(dir.path().join("a.parquet")).unwrap().into()).await.unwrap();
    let csv = SourceSpec::Csv(CsvSpec::new(place.to_string(), &["x"]));
    assert_eq!(firsts(&all(&csv, &SourceOptions::default()).await.unwrap()), [1.0, 2.0]);
    let parquet = SourceSpec::Parquet(parquet_spec(Path::new("memory:///sources/one_store/*.parquet")));
    assert_eq!(firsts(&all(&parquet, &SourceOptions::default()).await.unwrap()), [0.0, 2.0]);
}

/// Under quarantine every bad row is listed with file, line and reason, and no good row is lost: three bad rows in two
/// files of each kind, read twice.
#[tokio::test(flavor = "multi_thread")]
async fn quarantine_names_every_bad_row_and_keeps_every_good_one() {
    let (csv, hapt, parquet) = (TempDir::new().unwrap(), hapt(), TempDir::new().unwrap());
    let line = |i: usize| format!("{i},{i}.5\n");
    let good = |n: usize| (0..n).map(line).collect::<String>();
    write(&csv.path().join("a.csv"), &format!("x,y\n{}1,\n{}one,1\n", good(3), good(2)));
    write(&csv.path().join("b.csv"), &format!("x,y\n{}1,2,3\n{}", good(1), good(4)));
    for (name, at, bad) in
        [("acc_exp01_user01", 6, "1 2"), ("gyro_exp01_user01", 12, "1 2 inf"), ("acc_exp03_user02", 1, "")]
    {
        let path = hapt.path().join(format!("RawData/{name}.txt"));
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
        lines[at - 1] = bad.into();
        write(&path, &lines.join("\n"));
    }
    let (mut first, mut second) = (plain_vectors(8), plain_vectors(5));
    (first[2], first[7], second[0]) = (None, Some(vec![Some(1.0)]), Some(vec![Some(1.0), Some(f64::NAN)]));
    write_parquet(&parquet.path().join("a.parquet"), vec![("v", list(&first)), ("id", ids(8))]);
    write_parquet(&parquet.path().join("b.parquet"), vec![("v", list(&second)), ("id", ids(5))]);

    let one_by_one = SourceOptions { threads: 3, ..SourceOptions::default() };
    let csv = SourceSpec::Csv(CsvSpec::new(csv.path().display().to_string(), &["x", "y"]));
    let hapt = hapt_spec(&hapt);
    let parquet = SourceSpec::Parquet(parquet_spec(parquet.path()));
    type BadRow = (&'static str, u64, &'static str);
    let cases: [(&SourceSpec, usize, [BadRow; 3]); 3] = [
        (
            &csv,
            10,
            [
                (
                    "a.csv",
                    5,
                    "column \"y\": \"\" is not a number, expected a finite number (fill = \"hold\" takes the channel's last value there)",
                ),
                ("a.csv", 8, "column \"x\": \"one\" is not a number, expected a finite number"),
                ("b.csv", 3, "3 fields, expected 2: \"1,2,3\""),
            ],
        ),
        (
            &hapt,
            72 - 3,
            [
                ("acc_exp01_user01.txt", 6, "2 numbers on the line, expected 3: \"1 2\""),
                ("acc_exp03_user02.txt", 1, "0 numbers on the line, expected 3: \"\""),
                ("gyro_exp01_user01.txt", 12, "\"inf\" is not finite; expected a line of 3 finite numbers"),
            ],
        ),
        (
            &parquet,
            10,
            [
                ("a.parquet", 3, "row 3, column \"v\": null, expected 2 numbers"),
                ("a.parquet", 8, "row 8, column \"v\": 1 values, expected 2"),
                (
                    "b.parquet",
                    1,
                    "row 1, column \"v\": value 1 is NaN, expected a number that is finite in single precision",
                ),
            ],
        ),
    ];
    for (spec, rows, expected) in cases {
        let opened = opened(spec, &quarantine(one_by_one.clone())).await.unwrap();
        for _ in 0..2 {
            assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), rows, "{spec:?}");
            let expected = expected.map(|(file, line, reason)| (file.to_string(), line, reason.to_string()));
            assert_eq!(opened.bad_rows(), expected);
        }
        let table = opened.bad.to_batch().unwrap();
        assert_eq!(texts(&table, "reason")[2].as_deref(), Some(expected[2].2));
        assert!(texts(&table, "file")[0].as_deref().unwrap().ends_with(expected[0].0));
        let error = error_of(spec, &SourceOptions::default()).await;
        assert!(
            expected.iter().any(|(file, line, why)| error.to_string().ends_with(&format!("{file}:{line}: {why}"))),
            "{error}"
        );
    }
}

// ---- hapt ----

/// Two users, three experiments of 20, 24 and 28 samples. Sample `i` of experiment `e` has acc_x = 100 e + i.
fn hapt() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    for (experiment, user, samples) in [(1, 1, 20), (2, 1, 24), (3, 2, 28)] {
        for (sensor, scale) in [("acc", 1.0), ("gyro", -1.0)] {
            let line = |i: i32| {
                let x = scale * f64::from(100 * experiment + i);
                format!("{x} {} {:e}\n", x / 2.0, x / 4.0)
            };
            let text: String = (0..samples).map(line).collect();
            write(&root.join(format!("RawData/{sensor}_exp{experiment:02}_user{user:02}.txt")), &text);
        }
    }
    write(&root.join("RawData/labels.txt"), "1 1 5 1 8\n1 1 7 11 16\n2 1 4 3 12\n3 2 5 1 28\n");
    write(&root.join("activity_labels.txt"), "4 SITTING\n5 STANDING   \n");
    write(&root.join("Train/subject_id_train.txt"), "1\n1\n");
    write(&root.join("Test/subject_id_test.txt"), "2\n");
    dir
}

fn hapt_spec(dir: &TempDir) -> SourceSpec {
    SourceSpec::Hapt(HaptSpec { path: dir.path().display().to_string() })
}

#[tokio::test]
async fn hapt_windows_lie_within_labels() {
    let dir = hapt();
    let opened = opened(&hapt_spec(&dir), &windows(4, 4, Within::Labels)).await.unwrap();
    let source = &opened.source;
    assert_eq!((source.keys.join(","), source.dim), ("experiment,user".into(), 24));
    assert_eq!((source.label.as_deref(), source.split.as_deref()), (Some("activity"), Some("split")));
    assert_eq!(source.feature_names.len(), source.dim);
    let rows = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(i32s(&rows, "experiment"), [1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3]);
    assert_eq!(i32s(&rows, "user"), [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(i64s(&rows, "start"), [0, 4, 10, 2, 6, 0, 4, 8, 12, 16, 20, 24]);
    let expected = [100., 104., 110., 202., 206., 300., 304., 308., 312., 316., 320., 324.];
    assert_eq!(firsts(&rows), expected);
    let labels = texts(&rows, "activity");
    assert_eq!(labels[..4], ["STANDING", "STANDING", "7", "SITTING"].map(|l| Some(l.to_string())));
    let splits = texts(&rows, "split");
    assert_eq!((splits[0].as_deref(), splits[11].as_deref()), (Some("train"), Some("test")));
}

#[tokio::test]
async fn hapt_windows_over_recordings_are_labelled_where_covered() {
    let dir = hapt();
    let rows = all(&hapt_spec(&dir), &windows(4, 2, Within::Recordings)).await.unwrap();
    assert_eq!(rows.num_rows(), 9 + 11 + 13);
    let labels: Vec<_> = texts(&rows, "activity").into_iter().take(9).map(|l| l.unwrap_or_default()).collect();
    assert_eq!(labels, ["STANDING", "STANDING", "STANDING", "", "", "7", "7", "", ""]);
}

#[tokio::test]
async fn hapt_reads_without_labels_and_splits() {
    let dir = hapt();
    for path in ["Train", "Test"] {
        fs::remove_dir_all(dir.path().join(path)).unwrap();
    }
    fs::remove_file(dir.path().join("RawData/labels.txt")).unwrap();
    let rows = all(&hapt_spec(&dir), &windows(4, 4, Within::Recordings)).await.unwrap();
    assert_eq!(rows.num_rows(), 5 + 6 + 7);
    assert_eq!(rows["split"].null_count(), 18);
    assert_eq!(rows["activity"].null_count(), 18);
    let error = error_of(&hapt_spec(&dir), &windows(4, 4, Within::Labels)).await;
    assert_says(&error, &["RawData/labels.txt: no such file", "within labels need it"]);
}

#[tokio::test]
async fn hapt_reads_gzip_alike() {
    let (plain, gzip) = (hapt(), hapt());
    compress(gzip.path());
    let options = windows(4, 2, Within::Labels);
    let rows = all(&hapt_spec(&plain), &options).await.unwrap();
    assert_eq!(rows, all(&hapt_spec(&gzip), &options).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn hapt_rows_do_not_depend_on_batches_and_threads() {
    let dir = hapt();
    let options = windows(3, 1, Within::Labels);
    let rows = all(&hapt_spec(&dir), &options).await.unwrap();
    for threads in [1, 2, 7] {
        let opened = opened(&hapt_spec(&dir), &SourceOptions { threads, ..options.clone() }).await.unwrap();
        for batch_size in [1, 3, 1000] {
            assert_eq!(rows, opened.sql_in("SELECT * FROM t", batch_size).await.unwrap());
        }
    }
}

#[tokio::test]
async fn hapt_yields_the_columns_asked_for() {
    let dir = hapt();
    let opened = opened(&hapt_spec(&dir), &windows(4, 4, Within::Labels)).await.unwrap();
    let rows = opened.sql("SELECT start, activity FROM t").await.unwrap();
    let schema = rows.schema();
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["start", "activity"]);
    let rows = opened.sql("SELECT count(*) AS n FROM t").await.unwrap();
    assert_eq!(i64s(&rows, "n"), [12]);
}

#[tokio::test]
async fn hapt_skips_recordings_that_a_filter_leaves_out() {
    let dir = hapt();
    write(&dir.path().join("RawData/acc_exp03_user02.txt"), "not to be read\n");
    let opened = opened(&hapt_spec(&dir), &windows(4, 4, Within::Labels)).await.unwrap();
    for condition in ["split = 'train'", "\"user\" < 2", "split IN ('train') AND experiment <> 3"] {
        let rows = opened.sql(&format!("SELECT * FROM t WHERE {condition}")).await.unwrap();
        assert_eq!(rows.num_rows(), 5, "{condition}");
    }
    let rows = opened.sql("SELECT * FROM t WHERE split = 'train' AND activity = 'SITTING' AND start > 2").await;
    assert_eq!(i64s(&rows.unwrap(), "start"), [6]);
    assert!(opened.sql("SELECT * FROM t WHERE split = 'test'").await.is_err());
}

#[tokio::test]
async fn hapt_stops_reading_at_a_limit() {
    let dir = hapt();
    write(&dir.path().join("RawData/acc_exp02_user01.txt"), "not to be read\n");
    let options = SourceOptions { threads: 4, ..windows(4, 4, Within::Labels) };
    let opened = opened(&hapt_spec(&dir), &options).await.unwrap();
    assert_eq!(opened.sql("SELECT * FROM t LIMIT 2").await.unwrap().num_rows(), 2);
    assert!(opened.sql("SELECT * FROM t LIMIT 4").await.is_err());
}

#[tokio::test]
async fn hapt_refuses_bad_lines_and_keeps_the_good_windows() {
    for (line, what) in [
        ("1 2", "2 numbers on the line, expected 3"),
        ("1 2 three", "\"three\" is not a number"),
        ("1 NaN 3", "\"NaN\" is not finite"),
        ("inf 2 3", "\"inf\" is not finite"),
        ("", "0 numbers on the line, expected 3"),
    ] {
        let dir = hapt();
        let path = dir.path().join("RawData/gyro_exp02_user01.txt");
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
        lines[4] = line.into();
        write(&path, &lines.join("\n"));
        let options = windows(4, 1, Within::Labels);
        let error = error_of(&hapt_spec(&dir), &options).await;
        assert_says(&error, &["gyro_exp02_user01.txt:5: ", what]);
        let opened = opened(&hapt_spec(&dir), &quarantine(options)).await.unwrap();
        let rows = opened.sql("SELECT * FROM t WHERE experiment = 2").await.unwrap();
        // Samples 2..12 are labelled, and sample 4 is bad.
        assert_eq!(i64s(&rows, "start"), [5, 6, 7, 8]);
        assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 5 + 3 + 4 + 25);
        let bad = opened.bad_rows();
        assert_eq!((bad.len(), bad[0].0.as_str(), bad[0].1), (1, "gyro_exp02_user01.txt", 5));
        assert!(bad[0].2.contains(what), "{bad:?}");
    }
}

#[tokio::test]
async fn hapt_refuses_files_of_different_length_and_keeps_what_both_have() {
    let dir = hapt();
    let path = dir.path().join("RawData/acc_exp02_user01.txt");
    let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().take(10).map(String::from).collect();
    write(&path, &lines.join("\n"));
    let options = windows(4, 1, Within::Labels);
    let error = error_of(&hapt_spec(&dir), &options).await;
    assert_says(&error, &["acc_exp02_user01.txt:10: 10 samples here but 24 in", "gyro_exp02_user01.txt"]);
    let opened = opened(&hapt_spec(&dir), &quarantine(options)).await.unwrap();
    let rows = opened.sql("SELECT * FROM t WHERE experiment = 2").await.unwrap();
    assert_eq!(i64s(&rows, "start"), [2, 3, 4, 5, 6]);
    let files: Vec<_> = opened.bad_rows().into_iter().map(|(file, line, _)| (file, line)).collect();
    assert_eq!(files, [("acc_exp02_user01.txt".to_string(), 10), ("labels.txt".to_string(), 3)]);
}

#[tokio::test]
async fn hapt_refuses_labels_that_do_not_fit() {
    for (row, what) in [
        ("2 1 4 3 25", "samples 3 to 25 of experiment 2, user 1, whose recording has 24"),
        ("9 1 4 3 12", "experiment 9, user 1 has no recording"),
        ("2 1 4 0 12", "samples 0 to 12, expected 1 <= first <= last"),
        ("2 1 4 12 3", "samples 12 to 3"),
        ("2 1 4 3", "expected 5 whole numbers"),
        ("2 1 sit 3 12", "expected 5 whole numbers"),
    ] {
        let dir = hapt();
        write(&dir.path().join("RawData/labels.txt"), &format!("1 1 5 1 8\n{row}\n3 2 5 1 28\n"));
        let options = windows(4, 4, Within::Labels);
        assert_says(&error_of(&hapt_spec(&dir), &options).await, &["labels.txt:2: ", what]);
        let opened = opened(&hapt_spec(&dir), &quarantine(options)).await.unwrap();
        let rows = opened.sql("SELECT * FROM t").await.unwrap();
        let clipped = if row.ends_with("25") { 5 } else { 0 };
        assert_eq!(rows.num_rows(), 2 + clipped + 7, "{row}");
        assert_eq!(opened.bad.len(), 1);
    }
}

#[tokio::test]
async fn hapt_refuses_missing_and_empty_files() {
    type Damage = fn(&Path);
    let cases: [(Damage, &[&str]); 4] = [
        (
            |root| fs::remove_file(root.join("RawData/gyro_exp02_user01.txt")).unwrap(),
            &["gyro_exp02_user01.txt: no such"],
        ),
        (
            |root| fs::remove_file(root.join("RawData/acc_exp02_user01.txt")).unwrap(),
            &["acc_exp02_user01.txt: no such"],
        ),
        (|root| write(&root.join("RawData/acc_exp02_user01.txt"), ""), &["acc_exp02_user01.txt: empty", "3 numbers"]),
        (
            |root| {
                fs::remove_file(root.join("RawData/acc_exp02_user01.txt")).unwrap();
                fs::write(root.join("RawData/acc_exp02_user01.txt.gz"), [0x1f, 0x8b, 8, 0, 0]).unwrap();
            },
            &["acc_exp02_user01.txt.gz: damaged or cut off"],
        ),
    ];
    for (damage, says) in cases {
        let dir = hapt();
        damage(dir.path());
        let options = windows(4, 4, Within::Labels);
        assert_says(&error_of(&hapt_spec(&dir), &options).await, says);
        let opened = opened(&hapt_spec(&dir), &quarantine(options)).await.unwrap();
        assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 3 + 7);
        assert_eq!(opened.bad.len(), 1);
    }
}

#[tokio::test]
async fn hapt_refuses_a_directory_without_recordings() {
    let dir = TempDir::new().unwrap();
    let options = windows(4, 4, Within::Labels);
    assert_says(&error_of(&hapt_spec(&dir), &options).await, &["no files that end with .txt"]);
    write(&dir.path().join("notes.txt"), "");
    assert_says(&error_of(&hapt_spec(&dir), &options).await, &["no recordings", "RawData/acc_expXX_userYY.txt"]);
    let nowhere = SourceSpec::Hapt(HaptSpec { path: dir.path().join("no").display().to_string() });
    assert_says(&error_of(&nowhere, &options).await, &["no: no such file"]);
}

#[tokio::test]
async fn a_user_of_both_splits_is_refused() {
    let dir = hapt();
    write(&dir.path().join("Test/subject_id_test.txt"), "2\n1\n");
    let error = error_of(&hapt_spec(&dir), &windows(4, 4, Within::Labels)).await;
    assert_says(&error, &["subject_id_test.txt: user 1 is a user of train and of test"]);
}

// ---- csv ----

fn csv_file(text: &str) -> (TempDir, CsvSpec) {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a.csv"), text);
    let spec = CsvSpec::new(dir.path().join("a.csv").display().to_string(), &["x", "y"]);
    (dir, spec)
}

/// Two devices of ten samples at 50 Hz, labelled in runs.
fn walk() -> String {
    let mut text = String::from("device,t,activity,y,x\n");
    for device in ["a", "b"] {
        for i in 0..10 {
            let activity = if i < 6 { "walk" } else { "" };
            text += &format!("{device},{},{activity},-{i},{i}.5\n", 1000 + 20 * i);
        }
    }
    text
}

fn keyed(mut spec: CsvSpec) -> CsvSpec {
    spec.keys = vec!["device".into()];
    spec.label = Some("activity".into());
    spec.time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
    spec
}

#[tokio::test]
async fn csv_recordings_are_told_apart_by_keys() {
    let (_dir, spec) = csv_file(&walk());
    let spec = SourceSpec::Csv(keyed(spec));
    let opened = opened(&spec, &windows(3, 3, Within::Labels)).await.unwrap();
    assert!(opened.source.description.contains("2 channels at 50 Hz"), "{}", opened.source.description);
    let rows = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(texts(&rows, "device"), ["a", "a", "b", "b"].map(|d| Some(d.to_string())));
    assert_eq!(i64s(&rows, "start"), [0, 3, 0, 3]);
    assert_eq!(features_of(&rows).0[..6], [0.5, 1.5, 2.5, 0.0, -1.0, -2.0]);
    let rows = all(&spec, &windows(3, 1, Within::Recordings)).await.unwrap();
    assert_eq!((rows.num_rows(), rows["activity"].null_count()), (16, 8));
}

#[tokio::test]
async fn csv_samples_are_rows_without_windows() {
    let (_dir, spec) = csv_file("x,y,kind\n1,2,a\n3,4,\n5,6,b\n");
    let spec = SourceSpec::Csv(CsvSpec { label: Some("kind".into()), ..spec });
    let opened = opened(&spec, &SourceOptions::default()).await.unwrap();
    assert_eq!((opened.source.keys.join(","), opened.source.dim), ("file".into(), 2));
    let rows = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(features_of(&rows).0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(texts(&rows, "kind"), [Some("a".to_string()), None, Some("b".to_string())]);
    assert_eq!(texts(&rows, "file")[0].as_deref(), Some("a.csv"));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_samples_are_passed_on_in_pieces_that_do_not_show() {
    let count = 50_000;
    let text: String = (0..count).map(|i| format!("{i},{}\n", i % 7)).collect();
    let (_dir, spec) = csv_file(&format!("x,y\n{text}"));
    let options = SourceOptions { threads: 3, ..Default::default() };
    let opened = opened(&SourceSpec::Csv(spec), &options).await.unwrap();
    let rows = opened.sql("SELECT start, features FROM t").await.unwrap();
    assert_eq!(i64s(&rows, "start"), (0..count).collect::<Vec<i64>>());
    assert_eq!(firsts(&rows), (0..count).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(rows, opened.sql_in("SELECT start, features FROM t", 999).await.unwrap());
}

#[tokio::test]
async fn csv_reads_gzip_directories_globs_and_urls_alike() {
    let dir = TempDir::new().unwrap();
    for (name, text) in [("b/two.csv", "x,y\n3,3\n"), ("a/one.csv", "x,y\n1,1\n2,2\n"), ("c.md", "no"), ("_d.csv", "x")]
    {
        write(&dir.path().join(name), text);
    }
    let root = dir.path().display().to_string();
    let read = async |path: String| {
        let rows = all(&SourceSpec::Csv(CsvSpec::new(path, &["x"])), &SourceOptions::default()).await.unwrap();
        firsts(&rows)
    };
    let plain = read(root.clone()).await;
    assert_eq!(plain, [1.0, 2.0, 3.0]);
    assert_eq!(plain, read(format!("file://{root}")).await);
    assert_eq!(plain, read(format!("{root}/*/*.csv")).await);
    assert_eq!(read(format!("{root}/**/two.csv")).await, [3.0]);
    compress(&dir.path().join("a"));
    assert_eq!(plain, read(root.clone()).await);
    let nothing = SourceSpec::Csv(CsvSpec::new(format!("{root}/*.tsv"), &["x"]));
    assert_says(&error_of(&nothing, &SourceOptions::default()).await, &["*.tsv: no files"]);
}

/// The key column `file` has the same value, however the file was asked for.
#[tokio::test]
async fn csv_names_recordings_by_their_path_below_what_was_asked_for() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("in/a.csv"), "x\n1\n");
    write(&dir.path().join("in/b/c.csv"), "x\n2\n");
    let root = dir.path().join("in").display().to_string();
    for path in [root.clone(), format!("{root}/"), format!("{root}/**/*.csv"), format!("file://{root}/**/?.csv")] {
        let rows = all(&SourceSpec::Csv(CsvSpec::new(path.clone(), &["x"])), &SourceOptions::default()).await.unwrap();
        assert_eq!(texts(&rows, "file"), ["a.csv", "b/c.csv"].map(|f| Some(f.to_string())), "{path}");
    }
}

#[tokio::test]
async fn csv_says_once_where_a_file_is_cut_off() {
    let (dir, spec) = csv_file(&format!("x,y\n{}", "1.25,-3\n".repeat(20_000)));
    compress(dir.path());
    let path = dir.path().join("a.csv.gz");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let spec = SourceSpec::Csv(CsvSpec { path: path.display().to_string(), ..spec });
    let error = error_of(&spec, &SourceOptions::default()).await;
    assert_says(&error, &["a.csv.gz: damaged or cut off after ", " rows"]);
    assert_eq!(error.to_string().matches("a.csv.gz").count(), 1, "{error}");
}

/// Alternating samples of two devices, as a gateway writes them.
fn in_turn(devices: &[&str], samples: usize) -> String {
    let mut text = String::from("device,t,activity,y,x\n");
    for i in 0..samples {
        text.extend(devices.iter().map(|device| format!("{device},{},walk,-{i},{i}.5\n", 1000 + 20 * i)));
    }
    text
}

#[tokio::test]
async fn csv_reads_recordings_that_take_turns_and_refuses_lines_out_of_place() {
    let options = windows(3, 3, Within::Recordings);
    // Alternating from the first line on: each device is a recording, as if its lines were together.
    let (_dir, spec) = csv_file(&in_turn(&["a", "b"], 20));
    let spec = keyed(spec);
    let rows = all(&SourceSpec::Csv(spec.clone()), &options).await.unwrap();
    assert_eq!(i64s(&rows, "start"), [0, 3, 6, 9, 12, 15, 0, 3, 6, 9, 12, 15]);
    let untimed = SourceSpec::Csv(CsvSpec { time: None, ..spec.clone() });
    assert_eq!(firsts(&all(&untimed, &options).await.unwrap()), firsts(&rows));
    // If they are declared not to alternate, they are out of place.
    let spec = CsvSpec { interleaved: Some(false), rate_hz: Some(50.0), ..spec };
    let error = error_of(&SourceSpec::Csv(spec), &options).await;
    assert_says(&error, &["a.csv:4: device=\"a\" comes back", "lie together", "sort the file by device, then by t"]);
    // A device that comes back at the end. The others keep their rows, and no (device, start) is there twice.
    let late = walk() + "a,1200,walk,-9,9.5\na,1220,walk,-9,9.5\na,1240,walk,-9,9.5\n";
    let (_dir, spec) = csv_file(&late);
    let spec = SourceSpec::Csv(CsvSpec { interleaved: Some(false), ..keyed(spec) });
    assert_says(&error_of(&spec, &options).await, &["a.csv:22: device=\"a\" comes back", "interleaved = true"]);
    let opened = opened(&spec, &quarantine(options)).await.unwrap();
    let rows = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(i64s(&rows, "start"), [0, 3, 6, 0, 3, 6]);
    let bad = opened.bad_rows();
    assert_eq!((bad.len(), bad[0].1), (1, 22), "{bad:?}");
    // The scan that wants another device leaves it to the one that wants this one.
    assert_eq!(opened.sql("SELECT * FROM t WHERE device = 'b'").await.unwrap().num_rows(), 3);
}

#[tokio::test]
async fn csv_counts_on_where_the_split_changes() {
    let mut text = String::from("device,part,x,y\n");
    for device in ["a", "b"] {
        text.extend(
            (0..11).map(|i| format!("{device},{},{i},1\n", if (5..8).contains(&i) { "test" } else { "train" })),
        );
    }
    // A bad line counts as a sample whether its part is asked for or not.
    let text = text.replacen("a,train,1,1", "a,train,one,1", 1);
    let (_dir, spec) = csv_file(&text);
    let spec = CsvSpec { keys: vec!["device".into()], split: Some("part".into()), ..spec };
    let opened = opened(&SourceSpec::Csv(spec), &quarantine(windows(3, 3, Within::Recordings))).await.unwrap();
    for (device, starts) in [("a", vec![5, 8]), ("b", vec![0, 5, 8])] {
        let rows = opened.sql(&format!("SELECT * FROM t WHERE device = '{device}'")).await.unwrap();
        assert_eq!(i64s(&rows, "start"), starts);
        let rows = opened.sql(&format!("SELECT * FROM t WHERE device = '{device}' AND part = 'test'")).await.unwrap();
        assert_eq!(i64s(&rows, "start"), [5]);
        assert_eq!(firsts(&rows), [5.0]);
    }
}

#[tokio::test]
async fn a_source_knows_that_its_recordings_are_too_short() {
    let (_dir, spec) = csv_file(&walk());
    let spec = SourceSpec::Csv(keyed(spec));
    for (within, says) in [
        (Within::Labels, "no window of 11 samples fits: the longest labelled interval has 6"),
        (Within::Recordings, "no window of 11 samples fits: the longest stretch of a recording without a gap has 10"),
    ] {
        let opened = opened(&spec, &windows(11, 1, within)).await.unwrap();
        assert_eq!(opened.source.why_no_rows(), None, "nothing was read yet");
        assert_eq!(opened.sql("SELECT * FROM t WHERE device = 'none'").await.unwrap().num_rows(), 0);
        assert_eq!(opened.source.why_no_rows(), None, "the filter is why");
        assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 0);
        let why = opened.source.why_no_rows().unwrap();
        assert!(why.starts_with(says) && why.contains("samples: 20 read: 0 in windows"), "{why}");
    }
}

#[tokio::test]
async fn csv_knows_other_dialects() {
    let (_dir, spec) = csv_file("1; 2 ;\"a;b\"\r\n3;4;c\r\n");
    let dialect = Dialect { delimiter: Some(';'.into()), has_header: false, ..Default::default() };
    let mut spec = CsvSpec { dialect, keys: vec!["column_3".into()], ..spec };
    spec.channels = vec!["column_2".into()];
    let rows = all(&SourceSpec::Csv(spec), &SourceOptions::default()).await.unwrap();
    assert_eq!(firsts(&rows), [2.0, 4.0]);
    assert_eq!(texts(&rows, "column_3"), ["a;b", "c"].map(|d| Some(d.to_string())));
    let (_dir, spec) = csv_file("\u{feff}x,y\n1,2\n");
    assert_eq!(firsts(&all(&SourceSpec::Csv(spec), &SourceOptions::default()).await.unwrap()), [1.0]);
}

#[tokio::test]
async fn csv_windows_do_not_reach_across_gaps() {
    // Device b: five samples, then eleven milliseconds too late, then on time again; later, time goes back.
    let mut text = walk();
    for i in 5..10 {
        text = text.replace(&format!("b,{},", 1000 + 20 * i), &format!("b,{},", 1011 + 20 * i));
    }
    let text = text.replace("b,1191,", "b,900,");
    let (_dir, spec) = csv_file(&text);
    let rows = all(&SourceSpec::Csv(keyed(spec)), &windows(2, 2, Within::Recordings)).await.unwrap();
    assert_eq!(i64s(&rows, "start"), [0, 2, 4, 6, 8, 0, 2, 5, 7]);
}

#[tokio::test]
async fn csv_checks_the_rate_against_the_time() {
    let options = windows(2, 1, Within::Recordings);
    let (_dir, spec) = csv_file(&walk());
    let mut wrong = keyed(spec);
    wrong.rate_hz = Some(50.0);
    assert!(all(&SourceSpec::Csv(wrong.clone()), &options).await.is_ok());
    wrong.time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::S });
    let error = error_of(&SourceSpec::Csv(wrong), &options).await;
    assert_says(&error, &["rate_hz is 50", "0.05 samples a second", "unit"]);
    let times = [0, 5, 50, 52, 90, 91, 160, 170, 171, 300];
    let text: String = times.iter().map(|t| format!("{t},1,1\n")).collect();
    let (_dir, spec) = csv_file(&format!("t,x,y\n{text}"));
    let time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
    let error = error_of(&SourceSpec::Csv(CsvSpec { time, ..spec }), &options).await;
    assert_says(&error, &["a.csv", "the times step by 1 ms to 10 ms", "resample"]);
}

#[tokio::test]
async fn csv_refuses_a_recording_at_another_rate() {
    let mut text = String::from("k,t,x,y\n");
    for (key, step) in [("a", 20), ("b", 12)] {
        text.extend((0..40).map(|i| format!("{key},{},1,1\n", i * step)));
    }
    let (_dir, spec) = csv_file(&text);
    let time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
    let spec = SourceSpec::Csv(CsvSpec { time, keys: vec!["k".into()], rate_hz: Some(50.0), ..spec });
    let options = windows(4, 4, Within::Recordings);
    assert_says(
        &error_of(&spec, &options).await,
        &["a.csv:42: ", "12 ms apart in time (83.3333 samples a second), expected 20 ms (50,"],
    );
    let opened = opened(&spec, &quarantine(options)).await.unwrap();
    assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 10);
    assert_eq!(opened.bad.len(), 1);
}

#[tokio::test]
async fn csv_refuses_bad_lines_and_keeps_the_good_rows() {
    let good = "a,1060,walk,-3,3.5";
    for (line, what) in [
        ("a,1060,walk,-3", "4 fields, expected 5"),
        ("a,1060,walk,-3,3.5,7", "6 fields, expected 5"),
        ("a,1060,walk,-3,text", "column \"x\": \"text\" is not a number"),
        ("a,1060,walk,-3,", "column \"x\": \"\" is not a number"),
        ("a,1060,walk,NaN,3.5", "column \"y\": \"NaN\" is not finite"),
        ("a,1060,walk,-3,-inf", "column \"x\": \"-inf\" is not finite"),
        ("a,then,walk,-3,3.5", "column \"t\": \"then\" is not a number, expected a number of ms"),
        ("a,1040,walk,-3,3.5", "its time is that of the line before"),
        (",1060,walk,-3,3.5", "key column \"device\" is empty"),
    ] {
        let (_dir, spec) = csv_file(&walk().replacen(good, line, 1));
        let spec = SourceSpec::Csv(keyed(spec));
        let options = windows(2, 1, Within::Labels);
        assert_says(&error_of(&spec, &options).await, &["a.csv:5: ", what]);
        let opened = opened(&spec, &quarantine(options)).await.unwrap();
        let rows = opened.sql("SELECT * FROM t WHERE device = 'a'").await.unwrap();
        assert_eq!(i64s(&rows, "start"), [0, 1, 4], "{line}");
        assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 3 + 5);
        let bad = opened.bad_rows();
        assert_eq!((bad.len(), bad[0].1), (1, 5), "{bad:?}");
    }
}

#[tokio::test]
async fn csv_skips_and_stops_early() {
    let (_dir, spec) = csv_file(&walk().replace("b,1000,walk,-0", "b,1000,walk,oops"));
    let spec = SourceSpec::Csv(keyed(spec));
    let opened = opened(&spec, &windows(2, 1, Within::Labels)).await.unwrap();
    assert_eq!(opened.sql("SELECT start FROM t WHERE device = 'a'").await.unwrap().num_rows(), 5);
    assert!(opened.sql("SELECT start FROM t").await.is_err());
    let text: String = (0..100_000).map(|i| format!("{i},1\n")).collect();
    let (_dir, spec) = csv_file(&format!("x,y\n{text}bad,bad\n"));
    let opened = self::opened(&SourceSpec::Csv(spec), &SourceOptions::default()).await.unwrap();
    assert_eq!(opened.sql("SELECT * FROM t LIMIT 5").await.unwrap().num_rows(), 5);
    assert!(opened.sql("SELECT * FROM t").await.is_err());
}

#[tokio::test]
async fn csv_refuses_files_that_are_empty_or_lack_columns() {
    let options = SourceOptions::default();
    for (text, says) in [
        ("", "a.csv: empty"),
        ("x,y\n", "a.csv: no lines but the header"),
        ("x,z\n1,2\n", "a.csv: no column \"y\""),
        ("x,acc_x,acc_y\n", "columns: x, acc_x, acc_y"),
    ] {
        let (_dir, spec) = csv_file(text);
        assert_says(&error_of(&SourceSpec::Csv(spec), &options).await, &[says]);
    }
    let (dir, mut spec) = csv_file("x,y\n1,2\n");
    spec.channels = vec!["x".into(), "yy".into()];
    let error = error_of(&SourceSpec::Csv(spec.clone()), &options).await;
    assert_says(&error, &["no column \"yy\"; did you mean \"y\"?"]);
    // A bad file beside a good one.
    write(&dir.path().join("b.csv"), "x\n1\n");
    write(&dir.path().join("c.csv"), "");
    let spec = SourceSpec::Csv(CsvSpec::new(dir.path().display().to_string(), &["x", "y"]));
    assert_says(&error_of(&spec, &options).await, &["b.csv: no column \"y\""]);
    let opened = opened(&spec, &quarantine(options)).await.unwrap();
    assert_eq!(firsts(&opened.sql("SELECT * FROM t").await.unwrap()), [1.0]);
    assert_eq!(opened.bad_rows().len(), 2);
    assert_eq!(opened.bad.to_batch().unwrap().num_rows(), 2);
}

#[tokio::test]
async fn csv_refuses_settings_that_cannot_be() {
    let (_dir, spec) = csv_file("x,y\n1,2\n");
    let unlabelled = SourceSpec::Csv(spec.clone());
    let error = all(&unlabelled, &windows(2, 1, Within::Labels)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    for bad in [
        CsvSpec { channels: vec![], ..spec.clone() },
        CsvSpec { dialect: Dialect { delimiter: Some('é'.into()), ..Default::default() }, ..spec.clone() },
        CsvSpec { rate_hz: Some(-1.0), ..spec.clone() },
    ] {
        assert_eq!(all(&SourceSpec::Csv(bad), &SourceOptions::default()).await.unwrap_err().kind(), Kind::Config);
    }
    let twice = SourceSpec::Csv(CsvSpec { keys: vec!["x".into()], label: Some("x".into()), ..spec });
    assert_says(&error_of(&twice, &SourceOptions::default()).await, &["two columns", "\"x\""]);
}

// ---- parquet ----

pub fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let fields: Vec<_> = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect());
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub type Vector = Option<Vec<Option<f64>>>;

pub fn plain_vectors(rows: usize) -> Vec<Vector> {
    (0..rows).map(|i| Some(vec![Some(2.0 * i as f64), Some(2.0 * i as f64 + 1.0)])).collect()
}

pub fn list(rows: &[Vector]) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows.to_vec()))
}

pub fn ids(rows: usize) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(0..rows as i32))
}

pub fn splits(rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|i| if i % 3 == 0 { "test" } else { "train" })))
}

pub fn parquet_spec(path: &Path) -> ParquetSpec {
    ParquetSpec {
        path: path.display().to_string(),
        features: Features::Column("v".into()),
        dim: None,
        label: None,
        keys: vec!["id".into()],
        split: None,
        keep: vec![],
    }
}

#[tokio::test]
async fn parquet_vectors_come_in_any_shape() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let bytes = || Arc::new(UInt8Array::from_iter_values(0..14));
    let item = |t| Arc::new(Field::new("item", t, true));
    let shapes: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeListArray::new(item(DataType::UInt8), 2, bytes(), None)),
        list(&plain_vectors(7)),
        Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..7).map(|i| Some(vec![Some(2 * i), Some(2 * i + 1)])),
        )),
        arrow::compute::cast(&list(&plain_vectors(7)), &DataType::List(item(DataType::Float16))).unwrap(),
    ];
    let expected: Vec<f32> = (0..14).map(|i| i as f32).collect();
    for shape in shapes {
        write_parquet(&path, vec![("v", shape), ("id", ids(7))]);
        let opened = opened(&SourceSpec::Parquet(parquet_spec(&path)), &SourceOptions::default()).await.unwrap();
        let rows = opened.sql("SELECT * FROM t").await.unwrap();
        assert_eq!(features_of(&rows), (expected.clone(), 2));
        assert_eq!(i32s(&rows, "id"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(opened.source.feature_names, ["v[0]", "v[1]"]);
        for batch_size in [1, 2, 5] {
            assert_eq!(rows, opened.sql_in("SELECT * FROM t", batch_size).await.unwrap());
        }
    }
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..7).map(|i| 2.0 * f64::from(i))));
    let y: ArrayRef = Arc::new(Int32Array::from_iter_values((0..7).map(|i| 2 * i + 1)));
    write_parquet(&path, vec![("y", y), ("x", x), ("id", ids(7))]);
    let features = Features::Columns(vec!["x".into(), "y".into()]);
    let spec = ParquetSpec { features, ..parquet_spec(&path) };
    let rows = all(&SourceSpec::Parquet(spec), &SourceOptions::default()).await.unwrap();
    assert_eq!(features_of(&rows), (expected.clone(), 2));
}

#[tokio::test]
async fn parquet_pushes_projection_filter_and_limit() {
    let dir = TempDir::new().unwrap();
    for (name, from) in [("b.parquet", 10), ("a.parquet", 0)] {
        let id: ArrayRef = Arc::new(Int32Array::from_iter_values(from..from + 10));
        let split = arrow::compute::cast(&splits(10), &DataType::LargeUtf8).unwrap();
        write_parquet(&dir.path().join(name), vec![("v", list(&plain_vectors(10))), ("id", id), ("split", split)]);
    }
    let spec = ParquetSpec { split: Some("split".into()), ..parquet_spec(dir.path()) };
    let opened = opened(&SourceSpec::Parquet(spec.clone()), &SourceOptions::default()).await.unwrap();
    let rows = opened.sql("SELECT split FROM t WHERE id >= 9").await.unwrap();
    assert_eq!((rows.num_columns(), rows.num_rows()), (1, 11));
    let rows = opened.sql("SELECT id, features FROM t WHERE split = 'test'").await.unwrap();
    assert_eq!(i32s(&rows, "id"), [0, 3, 6, 9, 10, 13, 16, 19]);
    assert_eq!(firsts(&rows), [0.0, 6.0, 12.0, 18.0, 0.0, 6.0, 12.0, 18.0]);
    let rows = opened.sql("SELECT id FROM t WHERE split = 'test' LIMIT 5").await.unwrap();
    assert_eq!(i32s(&rows, "id"), [0, 3, 6, 9, 10]);
    assert_eq!(i64s(&opened.sql("SELECT count(*) AS n FROM t").await.unwrap(), "n"), [20]);
    let glob = ParquetSpec { path: format!("{}/b*", dir.path().display()), ..spec };
    assert_eq!(all(&SourceSpec::Parquet(glob), &SourceOptions::default()).await.unwrap().num_rows(), 10);
    fs::write(dir.path().join("b.parquet"), "no longer Parquet").unwrap();
    assert_eq!(opened.sql("SELECT * FROM t LIMIT 10").await.unwrap().num_rows(), 10);
    assert_says(&opened.sql("SELECT * FROM t LIMIT 11").await.unwrap_err(), &["b.parquet"]);
}

#[tokio::test]
async fn parquet_refuses_bad_rows_and_keeps_the_good_ones() {
    let one = Some(1.0);
    let cases: [(Vector, &str); 6] = [
        (Some(vec![one]), "column \"v\": 1 values, expected 2"),
        (Some(vec![one, one, one]), "column \"v\": 3 values, expected 2"),
        (None, "column \"v\": null, expected 2 numbers"),
        (Some(vec![one, None]), "column \"v\": value 1 is null"),
        (Some(vec![Some(f64::NAN), one]), "column \"v\": value 0 is NaN"),
        (Some(vec![one, Some(1e300)]), "column \"v\": value 1 is 1e300"),
    ];
    for (vector, what) in cases {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let mut rows = plain_vectors(9);
        rows[4] = vector;
        write_parquet(&path, vec![("v", list(&rows)), ("id", ids(9)), ("split", splits(9))]);
        let spec = SourceSpec::Parquet(ParquetSpec { split: Some("split".into()), ..parquet_spec(&path) });
        assert_says(&error_of(&spec, &SourceOptions::default()).await, &["a.parquet:5: row 5, ", what]);
        let opened = opened(&spec, &quarantine(SourceOptions::default())).await.unwrap();
        let rows = opened.sql("SELECT * FROM t").await.unwrap();
        assert_eq!(i32s(&rows, "id"), [0, 1, 2, 3, 5, 6, 7, 8]);
        // The same rows whatever is asked for, and one entry however often they are read.
        let rows = opened.sql("SELECT id FROM t WHERE split = 'train'").await.unwrap();
        assert_eq!(i32s(&rows, "id"), [1, 2, 5, 7, 8]);
        assert_eq!(opened.bad_rows()[0].1, 5);
        assert_eq!(opened.bad.len(), 1);
    }
}

/// What is there in place of the files of a kind is named.
#[tokio::test]
async fn a_directory_without_files_of_its_kind_says_what_it_has() {
    let dir = TempDir::new().unwrap();
    let spec = SourceSpec::Parquet(parquet_spec(dir.path()));
    let says = "no files that end with .parquet, .pq there";
    let e = opened(&spec, &SourceOptions::default()).await.map(|_| ()).unwrap_err();
    assert!(e.to_string().ends_with(says), "{e}");
    fs::write(dir.path().join("part-1"), "").unwrap();
    let e = opened(&spec, &SourceOptions::default()).await.map(|_| ()).unwrap_err();
    assert_says(&e, &[&format!("{says}, but part-1; a glob reads it")]);
    fs::write(dir.path().join("data.parq"), "").unwrap();
    let e = opened(&spec, &SourceOptions::default()).await.map(|_| ()).unwrap_err();
    assert_says(&e, &[&format!("{says}, but 2 others: data.parq, …; a glob reads them")]);
}

#[tokio::test]
async fn parquet_sets_a_damaged_first_file_aside() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    write_parquet(&path, vec![("v", list(&plain_vectors(9))), ("id", ids(9))]);
    write_parquet(&dir.path().join("b.parquet"), vec![("v", list(&plain_vectors(3))), ("id", ids(3))]);
    // The pages are damaged and the footer is not.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4..200].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let spec = SourceSpec::Parquet(parquet_spec(dir.path()));
    let says = "row group 0 (of 3, counted from 0): none of its 3 rows 1 to 3 can be read: ";
    assert_says(&error_of(&spec, &SourceOptions::default()).await, &[&format!("a.parquet: {says}")]);
    let opened = opened(&spec, &quarantine(SourceOptions::default())).await.unwrap();
    let found = i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id");
    let bad = opened.bad_rows();
    assert!(found.ends_with(&[0, 1, 2]) && found.len() as u64 + opened.aside() == 12, "{found:?} {bad:?}");
    assert_eq!((bad[0].0.as_str(), bad[0].1), ("a.parquet", 1), "{bad:?}");
    assert!(bad[0].2.starts_with(says) && !bad[0].2.contains("a.parquet"), "{bad:?}");
}

#[tokio::test]
async fn parquet_refuses_null_keys_and_values_of_columns() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let id: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(2.0), Some(3.0)]));
    write_parquet(&path, vec![("id", id), ("x", x)]);
    let spec = ParquetSpec { features: Features::Columns(vec!["x".into()]), ..parquet_spec(&path) };
    let spec = SourceSpec::Parquet(spec);
    assert_says(&error_of(&spec, &SourceOptions::default()).await, &["a.parquet:1: row 1, column \"x\" is null"]);
    let opened = opened(&spec, &quarantine(SourceOptions::default())).await.unwrap();
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), [3]);
    assert!(opened.bad_rows()[1].2.contains("column \"id\" is null, expected a key"));
}

#[tokio::test]
async fn parquet_refuses_files_that_do_not_fit() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let spec = SourceSpec::Parquet(parquet_spec(&path));
    let options = SourceOptions::default();
    assert_says(&error_of(&spec, &options).await, &["a.parquet: no such file"]);
    fs::write(&path, "").unwrap();
    assert_says(&error_of(&spec, &options).await, &["a.parquet: empty"]);
    fs::write(&path, "PAR1 but not for long").unwrap();
    assert_says(&error_of(&spec, &options).await, &["a.parquet: not a readable Parquet file"]);
    write_parquet(&path, vec![("v", splits(3)), ("id", ids(3))]);
    assert_says(
        &error_of(&spec, &options).await,
        &["column \"v\" is Utf8, expected lists (of any kind) of integers, floats"],
    );
    write_parquet(&path, vec![("w", list(&plain_vectors(3))), ("id", ids(3))]);
    assert_says(&error_of(&spec, &options).await, &["a.parquet: no column \"v\" (columns: w, id)"]);
    write_parquet(&path, vec![("v", list(&[])), ("id", ids(0))]);
    assert_says(&error_of(&spec, &options).await, &["a.parquet: has no vectors"]);
    write_parquet(&path, vec![("v", list(&plain_vectors(3))), ("id", ids(3))]);
    write_parquet(&dir.path().join("b.parquet"), vec![("v", list(&plain_vectors(3))), ("id", splits(3))]);
    let both = SourceSpec::Parquet(parquet_spec(dir.path()));
    let error = error_of(&both, &options).await;
    assert_says(&error, &["b.parquet: column \"id\" is Utf8, expected Int32 as in ", "a.parquet"]);
    let opened = opened(&both, &quarantine(options)).await.unwrap();
    assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 3);
    let error = all(&spec, &windows(2, 1, Within::Recordings)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
}
