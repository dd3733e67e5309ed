//! A table whose writers die, conflict, run out of disk, or find damage: it has the whole commit or none of it.

use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::table_support::*;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, LabelTable, Mode, TableWriter, WriteOptions};
use dacpipe::{Error, Kind};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use proptest::prelude::*;

fn local() -> (tempfile::TempDir, Location) {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
    (dir, place)
}

fn log_file(root: &FsPath, version: u64) -> std::path::PathBuf {
    root.join(format!("_delta_log/{version:020}.json"))
}

/// A store that fails after `left` more operations, as if the process or its network had died.
#[derive(Debug)]
struct Dying {
    inner: Arc<InMemory>,
    left: AtomicI64,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// Every later operation fails.
    Dead,
    /// The one operation is done, but its answer is lost; later ones work.
    AnswerLost,
    /// Every later write fails for want of space; removing works.
    DiskFull,
}

impl Dying {
    fn place(inner: &Arc<InMemory>, left: i64, how: How) -> Location {
        let store = Self { inner: Arc::clone(inner), left: AtomicI64::new(left), how };
        Location::new(Arc::new(store), Path::from("t"), "store://t").unwrap()
    }

    fn error() -> object_store::Error {
        object_store::Error::Generic { store: "Dying", source: "connection reset".into() }
    }

    /// Whether the operation is still done, and whether its answer arrives.
    fn step(&self, writes: bool) -> StoreResult<bool> {
        if self.how == How::DiskFull && !writes {
            return Ok(true);
        }
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        match self.how {
            How::AnswerLost => Ok(left != 0),
            _ if left > 0 => Ok(true),
            How::DiskFull => Err(object_store::Error::Generic {
                store: "Dying",
                source: Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            }),
            How::Dead => Err(Self::error()),
        }
    }

    fn answer<T>(arrives: bool, answer: T) -> StoreResult<T> {
        if arrives { Ok(answer) } else { Err(Self::error()) }
    }
}

impl std::fmt::Display for Dying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dying({:?})", self.how)
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let arrives = self.step(true)?;
        let done = self.inner.put_opts(at, payload, options).await?;
        Self::answer(arrives, done)
    }

    async fn put_multipart_opts(&self, at: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        let arrives = self.step(true)?;
        let done = self.inner.put_multipart_opts(at, o).await?;
        Self::answer(arrives, done)
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let arrives = self.step(false)?;
        let done = self.inner.get_opts(at, options).await?;
        Self::answer(arrives, done)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(&self, at: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        match self.step(false) {
            Ok(true) => self.inner.delete_stream(at),
            _ => futures::stream::iter([Err(Self::error())]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.step(false) {
            Ok(true) => self.inner.list(prefix),
            _ => futures::stream::iter([Err(Self::error())]).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.step(false) {
            Ok(true) => self.inner.list_with_offset(prefix, offset),
            _ => futures::stream::iter([Err(Self::error())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn run(place: &Location, mode: Mode, run_id: &str, batch: &RecordBatch) -> dacpipe::Result<u64> {
    let mut writer = TableWriter::begin(place, WriteOptions::new(mode, run_id).partition_by(["split"])).await?;
    writer.sink(batch.schema(), labels("m"))?.write(batch).await?;
    let info = CommitInfo { clusters: Some(clusters(&[10, 20], 1.0)), ..CommitInfo::default() };
    Ok(writer.commit(info).await?.version)
}

fn healthy(inner: &Arc<InMemory>) -> Location {
    Location::new(Arc::clone(inner) as _, Path::from("t"), "store://t").unwrap()
}

#[tokio::test]
async fn whenever_a_writer_dies_the_commit_is_whole_or_absent() {
    for mode in [Mode::Append, Mode::Overwrite] {
        let mut died = 0;
        for operations in 0.. {
            let inner = Arc::new(InMemory::new());
            let place = healthy(&inner);
            run(&place, mode, "before", &rows(0, 30)).await.unwrap();
            let result = run(&Dying::place(&inner, operations, How::Dead), mode, "dies", &rows(30, 90)).await;
            let now = integers(&session(&place).await, "SELECT start FROM t ORDER BY 1").await;
            let old: Vec<i64> = (0..30).collect();
            let new: Vec<i64> = if mode == Mode::Append { (0..90).collect() } else { (30..90).collect() };
            assert!(now == old || now == new, "after {operations} operations: {now:?}");
            if let Ok(version) = result {
                assert_eq!((version, now), (1, new));
                break;
            }
            died += 1;
            // What it left behind does not disturb the next run.
            let version = run(&place, mode, "after", &rows(90, 100)).await.unwrap();
            assert_eq!(version, if now == old { 1 } else { 2 });
        }
        assert!(died > 8, "{died}");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_commits_once() {
    for operation in 0.. {
        let inner = Arc::new(InMemory::new());
        let place = healthy(&inner);
        run(&place, Mode::Append, "before", &rows(0, 30)).await.unwrap();
        let losing = Dying::place(&inner, operation, How::AnswerLost);
        let result = run(&losing, Mode::Append, "loses", &rows(30, 90)).await;
        let now = integers(&session(&place).await, "SELECT start FROM t ORDER BY 1").await;
        match result {
            Ok(_) => assert_eq!(now, (0..90).collect::<Vec<_>>()),
            Err(e) => assert_eq!(now.len(), 30, "{e}"),
        }
        let operations_of_a_run = 40;
        if operation > operations_of_a_run {
            break;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    let mut full = 0;
    for writes in 0.. {
        let inner = Arc::new(InMemory::new());
        let place = healthy(&inner);
        run(&place, Mode::Append, "before", &rows(0, 30)).await.unwrap();
        let files = place.list("data").await.unwrap().len();
        match run(&Dying::place(&inner, writes, How::DiskFull), Mode::Append, "full", &rows(30, 90)).await {
            Ok(_) => break,
            Err(e) => {
                assert_eq!(e.kind(), Kind::Io);
                assert!(e.to_string().contains("disk is full while writing store://t/"), "{e}");
                full += 1;
                if writes > 1 && writes < 4 {
                    assert!(e.to_string().ends_with("; nothing was committed"), "{e}");
                    assert_eq!(place.list("data").await.unwrap().len(), files);
                }
            }
        }
        assert_eq!(starts(&place).await.len(), 30);
    }
    assert!(full > 4, "{full}");
}

const DIE: &str = "DACPIPE_TEST_DIE_AT";

/// Not a test of its own: the process that `a_killed_process_leaves_the_table_as_it_was` starts and that dies.
#[tokio::test]
async fn dies_while_writing() {
    let Ok(path) = std::env::var(DIE) else { return };
    let place = Location::parse(&path).unwrap();
    let mut options = WriteOptions::new(Mode::Append, "killed");
    options.file_bytes = 50_000;
    let mut writer = TableWriter::begin(&place, options).await.unwrap();
    let sink = writer.sink(rows(0, 1).schema(), labels("m")).unwrap();
    sink.write(&rows(0, 50_000)).await.unwrap();
    std::process::abort();
}

#[tokio::test]
async fn a_killed_process_leaves_the_table_as_it_was() {
    let (dir, place) = local();
    append(&place, "before", &rows(0, 10)).await.unwrap();
    let before = files(dir.path());
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "table_crash::dies_while_writing", "--nocapture"])
        .env(DIE, dir.path())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let left = files(dir.path());
    assert!(left.iter().filter(|f| f.starts_with("data/killed/")).count() > 2, "{left:?}");
    assert_eq!(starts(&place).await.len(), 10);
    // The same run again, as one that is resumed does it.
    append(&place, "killed", &rows(10, 20)).await.unwrap();
    assert_eq!(starts(&place).await.len(), 20);
    let after: Vec<String> = files(dir.path()).into_iter().filter(|f| !before.contains(f)).collect();
    assert_eq!(after, ["_delta_log/00000000000000000001.json", "data/killed/part-00000.parquet"]);
}

#[tokio::test]
async fn files_that_no_attempt_left_are_never_removed() {
    let (dir, place) = local();
    std::fs::create_dir_all(dir.path().join("data/holiday")).unwrap();
    std::fs::write(dir.path().join("data/holiday/photo.jpg"), "x").unwrap();
    append(&place, "a", &rows(0, 10)).await.unwrap();
    append(&place, "b", &rows(0, 10)).await.unwrap();
    assert!(dir.path().join("data/holiday/photo.jpg").exists());
    let e = append(&place, "holiday", &rows(0, 10)).await.unwrap_err();
    assert!(e.to_string().contains("run id \"holiday\" was used"), "{e}");
    // A mark that its run could not remove after the commit.
    let mark = dir.path().join("_dacpipe/a/attempt.json");
    std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
    std::fs::write(&mark, r#"{"attempt": "a", "since": null, "process": 1}"#).unwrap();
    append(&place, "c", &rows(0, 10)).await.unwrap();
    assert_eq!(starts(&place).await.len(), 30);
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_writer_that_is_given_up_leaves_nothing() {
    let (dir, place) = local();
    append(&place, "before", &rows(0, 10)).await.unwrap();
    let before = files(dir.path());
    for abort in [true, false] {
        let mut writer = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "b")).await.unwrap();
        let sink = writer.sink(rows(0, 1).schema(), labels("m")).unwrap();
        sink.write(&rows(0, 9_000)).await.unwrap();
        if abort {
            writer.abort().await;
        } else {
            drop(writer);
        }
        assert_eq!(files(dir.path()), before);
        assert_eq!(sink.write(&rows(0, 1)).await.unwrap_err().kind(), Kind::Internal);
    }
    let memory = Location::parse("memory:///given_up").unwrap();
    let mut writer = TableWriter::begin(&memory, WriteOptions::new(Mode::Append, "b")).await.unwrap();
    let mut sink = writer.sink(rows(0, 1).schema(), labels("m")).unwrap();
    sink.write(&rows(0, 9_000)).await.unwrap();
    writer.abort().await;
    assert_eq!(memory.list("data").await.unwrap().len() + memory.list("_dacpipe").await.unwrap().len(), 0);
    let mut writer = TableWriter::begin(&memory, WriteOptions::new(Mode::Append, "b")).await.unwrap();
    sink = writer.sink(rows(0, 1).schema(), labels("m")).unwrap();
    sink.write(&rows(0, 9_000)).await.unwrap();
    drop(writer);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.list("_dacpipe").await.unwrap().len(), 0);
}

#[tokio::test]
async fn writers_meet_at_the_commit() {
    let (_dir, local) = local();
    for place in [local, Location::parse("memory:///meet").unwrap()] {
        let begin = async |mode, run: &str, from: i64| {
            let mut writer = TableWriter::begin(&place, WriteOptions::new(mode, run).keys(["start"])).await.unwrap();
            writer.sink(rows(0, 1).schema(), labels("m")).unwrap().write(&rows(from, from + 10)).await.unwrap();
            writer
        };
        let info = || CommitInfo { clusters: Some(clusters(&[10], 1.0)), ..CommitInfo::default() };
        let (first, second) = (begin(Mode::Append, "a", 0).await, begin(Mode::Append, "b", 10).await);
        let e = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "b")).await.unwrap_err();
        assert!(e.to_string().contains(&format!("run id \"b\" was used for {place} before, or is in use")), "{e}");
        let late = begin(Mode::Overwrite, "c", 20).await;
        let same = begin(Mode::Append, "d", 15).await;
        assert_eq!(second.commit(info()).await.unwrap().version, 0);
        assert_eq!(first.commit(info()).await.unwrap().version, 1);
        assert_eq!(starts(&place).await, (10..20).chain(0..10).collect::<Vec<_>>());
        assert_eq!(integers(&session(&place).await, "SELECT size FROM t_clusters").await, [20]);
        let e = late.commit(info()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Table);
        let expected = format!(
            "another process committed version 0 of {place} while this one was writing; \
             nothing of this run is in the table; run again"
        );
        assert_eq!(e.to_string(), expected);
        let e = same.commit(info()).await.unwrap_err();
        assert!(e.to_string().contains("with the key start = 15, which this run has as well, while"), "{e}");
        assert_eq!(starts(&place).await.len(), 20);
        assert_eq!(place.list("data").await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn many_appends_at_once_all_land() {
    let (_dir, local) = local();
    for place in [local, Location::parse("memory:///many").unwrap()] {
        let runs = (0..12).map(|i| {
            let place = place.clone();
            async move { append(&place, &format!("r{i}"), &rows(i * 10, i * 10 + 10)).await.unwrap().version }
        });
        let mut versions = futures::future::join_all(runs).await;
        versions.sort_unstable();
        assert_eq!(versions, (0..12).collect::<Vec<_>>());
        let mut all = starts(&place).await;
        all.sort_unstable();
        assert_eq!(all, (0..120).collect::<Vec<_>>());
    }
}

const APPEND: &str = "DACPIPE_TEST_APPEND_AT";

/// Not a test of its own: a process that `appends_of_several_processes_all_land` starts.
#[tokio::test]
async fn appends_as_a_process() {
    let Ok(text) = std::env::var(APPEND) else { return };
    let (number, path) = text.split_once(' ').unwrap();
    let (number, place) = (number.parse::<i64>().unwrap(), Location::parse(path).unwrap());
    for i in 0..5 {
        let from = number * 1000 + i * 10;
        append(&place, &format!("p{number}-{i}"), &rows(from, from + 10)).await.unwrap();
    }
}

#[tokio::test]
async fn appends_of_several_processes_all_land() {
    let (dir, place) = local();
    let start = |number: i64| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "table_crash::appends_as_a_process", "--nocapture"])
            .env(APPEND, format!("{number} {}", dir.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let processes: Vec<_> = (0..4).map(start).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let mut all = starts(&place).await;
    all.sort_unstable();
    let expected: Vec<i64> = (0..4).flat_map(|number| number * 1000..number * 1000 + 50).collect();
    assert_eq!(all, expected);
    assert_eq!(LabelTable::open_at(&place, None).await.unwrap().snapshot().version, 19);
}

/// Kills an append or an overwrite at random times, repeatedly.
#[allow(clippy::disallowed_methods)]
#[tokio::test]
async fn thirty_kills_lose_nothing_double_nothing_and_leave_nothing() {
    let (dir, place) = local();
    append(&place, "before", &rows(0, 10)).await.unwrap();
    let mut expected = 10;
    for kill in 0..30 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "table_crash::is_killed", "--nocapture"])
            .env(KILLED, format!("{kill} {}", dir.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20 + 7 * (kill % 15)));
        let _ = child.kill();
        child.wait().unwrap();
        let rows_now = starts(&place).await.len() as i64;
        let overwrites = kill % 2 == 1;
        let committed = if overwrites { 20 } else { expected + 20 };
        assert!(
            rows_now == expected || rows_now == committed,
            "kill {kill}: {rows_now}, not {expected} or {committed}"
        );
        expected = rows_now;
    }
    overwrite(&place, "after", &rows(0, 10)).await.unwrap();
    let versions = LabelTable::open_at(&place, None).await.unwrap().snapshot().version;
    dacpipe::table::vacuum(&place, Some(std::time::Duration::ZERO), false).await.unwrap();
    let left = files(dir.path());
    let data: Vec<_> = left.iter().filter(|f| f.starts_with("data/")).collect();
    assert_eq!(data, ["data/after/part-00000.parquet"]);
    assert!(!left.iter().any(|f| f.starts_with("_dacpipe/")), "{left:?}");
    let log = left.iter().filter(|f| f.starts_with("_delta_log/") && f.ends_with(".json")).count() as u64;
    assert_eq!(log, versions + 1, "{left:?}");
}

const KILLED: &str = "DACPIPE_TEST_KILLED_AT";

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn is_killed() {
    let Ok(text) = std::env::var(KILLED) else { return };
    let (kill, path) = text.split_once(' ').unwrap();
    let place = Location::parse(path).unwrap();
    let mode = if kill.parse::<i64>().unwrap() % 2 == 1 { Mode::Overwrite } else { Mode::Append };
    write(&place, WriteOptions::new(mode, format!("k{kill}")), &[rows(100, 120)]).await.unwrap();
}

/// Opens the table and reads all rows.
async fn read(place: &Location) -> dacpipe::Result<usize> {
    let table = LabelTable::open_at(place, None).await?;
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("c", table.clusters())?;
    context.register_table("t", Arc::new(table))?;
    let batches = context.sql("SELECT start FROM t").await?.collect().await?;
    context.sql("SELECT size FROM c").await?.collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

/// A table of three versions, damaged by `damage`, and the error of reading it.
async fn damaged(damage: impl FnOnce(&FsPath)) -> Error {
    let (dir, place) = local();
    for i in 0..3 {
        run(&place, Mode::Append, &format!("r{i}"), &rows(i * 30, i * 30 + 30)).await.unwrap();
    }
    assert_eq!(read(&place).await.unwrap(), 90);
    damage(dir.path());
    let e = read(&place).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table, "{e}");
    e
}

#[tokio::test]
async fn damage_is_named() {
    let edit = |version: u64, from: &'static str, to: &'static str| {
        move |root: &FsPath| {
            let text = std::fs::read_to_string(log_file(root, version)).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(log_file(root, version), text.replacen(from, to, 1)).unwrap();
        }
    };
    let e = damaged(|root| std::fs::remove_file(log_file(root, 1)).unwrap()).await;
    assert!(e.to_string().contains("00000000000000000001.json is missing, and later versions are there"), "{e}");
    let e = damaged(|root| std::fs::remove_file(log_file(root, 0)).unwrap()).await;
    assert!(e.to_string().contains("00000000000000000000.json is missing"), "{e}");
    let e = damaged(|root| std::fs::write(log_file(root, 2), "{\"commitInfo\": {}}\n{\"add\": ").unwrap()).await;
    assert!(e.to_string().contains("00000000000000000002.json is damaged: line 2 is no action: EOF"), "{e}");
    let e = damaged(|root| std::fs::write(log_file(root, 0), [0xff, 0xfe]).unwrap()).await;
    assert!(e.to_string().contains("00000000000000000000.json is damaged: line 1"), "{e}");
    let e = damaged(edit(0, "\"minReaderVersion\":1", "\"minReaderVersion\":9")).await;
    assert!(e.to_string().contains("cannot be read"), "{e}");
    for (path, other) in [
        ("../../r1/", "\"../../r1/split="),
        ("/etc/", "\"/etc/split="),
        ("file:///etc/", "\"file:///etc/split="),
        ("%2e%2e/%2E%2E/", "\"../../split="),
    ] {
        let e = damaged(edit(1, "data/r1/", path)).await;
        assert!(e.to_string().contains("is no path of a file of the table"), "{e}");
        assert!(e.to_string().contains(other), "{e}");
    }
    let e = damaged(edit(1, "\\\"numRecords\\\":10", "\\\"numRecords\\\":-3")).await;
    assert!(e.to_string().contains("count -3 rows"), "{e}");
    let data = "data/r1/split=test/part-00000.parquet";
    let e = damaged(|root| std::fs::remove_file(root.join(data)).unwrap()).await;
    assert!(e.to_string().contains(&format!("{data} is missing")), "{e}");
    let e = damaged(|root| std::fs::write(root.join(data), "PAR1").unwrap()).await;
    assert!(e.to_string().contains(&format!("{data} has 4 bytes, the log says")), "{e}");
    let e = damaged(|root| std::fs::remove_file(root.join("_dacpipe/r2/clusters.parquet")).unwrap()).await;
    assert!(e.to_string().contains("_dacpipe/r2/clusters.parquet is missing"), "{e}");
}

#[tokio::test]
async fn a_damaged_table_is_not_written_to() {
    let (dir, place) = local();
    for i in 0..3 {
        append(&place, &format!("r{i}"), &rows(i * 30, i * 30 + 30)).await.unwrap();
    }
    std::fs::remove_file(log_file(dir.path(), 1)).unwrap();
    let before = files(dir.path());
    let e = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "next")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert_eq!(files(dir.path()), before);
}

#[tokio::test]
async fn run_ids_are_file_names() {
    let (_dir, place) = local();
    for bad in ["", "../up", "a/b", ".hidden", "a b", &"x".repeat(200)] {
        let e = append(&place, bad, &rows(0, 1)).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Config, "{bad}: {e}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_place_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let place = Location::parse(file.path().join("t").to_str().unwrap()).unwrap();
    let e = append(&place, "a", &rows(0, 1)).await.unwrap_err();
    assert!(e.kind() == Kind::Table && e.to_string().contains("is a file; a table is a directory"), "{e}");
}

/// Other files that may be in a table's directory.
#[derive(Debug, Clone)]
struct Strewn {
    id: &'static str,
    mark: &'static str,
    files: Vec<&'static str>,
}

fn strewn() -> impl Strategy<Value = Vec<Strewn>> {
    let ids = prop::sample::select(vec!["committed", "dead", "x", "photos 2024", "...", "data"]);
    let marks = prop::sample::select(vec![
        "",
        "{",
        "null",
        r#"{"attempt": "dead", "since": null, "process": 1}"#,
        r#"{"attempt": "committed", "since": null, "process": 1}"#,
        r#"{"attempt": "x", "since": 0, "process": 1}"#,
        r#"{"attempt": "x", "since": 99, "process": 1}"#,
        r#"{"attempt": "../..", "since": null, "process": 1}"#,
    ]);
    let files = prop::sample::subsequence(
        vec![
            "part-00000.parquet",
            "part-00001.parquet",
            "photo.jpg",
            "a=1/part-00002.parquet",
            "sub/part-00003.parquet",
        ],
        0..5,
    );
    let one = (ids, marks, files).prop_map(|(id, mark, files)| Strewn { id, mark, files });
    prop::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A writer removes the data files of attempts that died, whose marks are their own, and nothing else.
    #[test]
    fn no_foreign_and_no_committed_file_is_swept(all in strewn()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (dir, place) = local();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("part-00000.parquet"), "x").unwrap();
        runtime.block_on(append(&place, "committed", &rows(0, 10))).unwrap();
        let mut stay = Vec::new();
        for Strewn { id, mark, files } in &all {
            let beside = dir.path().join("_dacpipe").join(id);
            std::fs::create_dir_all(&beside).unwrap();
            std::fs::write(beside.join("attempt.json"), mark).unwrap();
            let data = dir.path().join("data").join(id);
            #[cfg(unix)]
            if *id != "committed" && !data.exists() {
                std::fs::create_dir_all(&data).unwrap();
                std::os::unix::fs::symlink(outside.path(), data.join("link=1")).unwrap();
            }
            for file in files {
                let path = data.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                if !path.exists() {
                    std::fs::write(&path, "x").unwrap();
                }
            }
        }
        for Strewn { id, files, .. } in &all {
            // The last mark that was left for it is what counts.
            let mark = all.iter().rev().find(|other| other.id == *id).unwrap().mark;
            let dead = matches!((*id, mark), ("dead", m) if m.contains("\"dead\"")) || (*id == "x" && mark.contains("\"x\""));
            let ours = |file: &&&str| !file.contains("photo") && !file.starts_with("sub/");
            stay.extend(files.iter().filter(|file| !dead || !ours(file)).map(|file| dir.path().join("data").join(id).join(file)));
        }
        runtime.block_on(append(&place, "next", &rows(10, 20))).unwrap();
        for path in stay {
            prop_assert!(path.exists(), "{path:?} is gone");
        }
        prop_assert!(outside.path().join("part-00000.parquet").exists());
        prop_assert_eq!(runtime.block_on(starts(&place)).len(), 20);
    }
}
