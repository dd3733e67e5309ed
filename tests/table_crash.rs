//! What becomes of a table when writers die, meet, run out of disk, or find damage: the whole commit or none of it.

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

fn local() -> (tempfile::TempDir, Location) {
    let dir = tempfile::tempdir().unwrap();
    let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
    (dir, place)
}

fn log_file(root: &FsPath, version: u64) -> std::path::PathBuf {
    root.join(format!("_log/{version:020}.json"))
}

/// A store that does `left` more operations and then nothing: the process has died, or its network has.
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
    /// Listings never show log entries.
    BlindListing,
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
            How::BlindListing => Ok(true),
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
        let blind = self.how == How::BlindListing;
        match self.step(false) {
            Ok(true) => {
                let seen = move |m: &StoreResult<ObjectMeta>| {
                    let hidden = m.as_ref().is_ok_and(|m| blind && m.location.as_ref().ends_with(".json"));
                    std::future::ready(!hidden)
                };
                self.inner.list(prefix).filter(seen).boxed()
            }
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
            // Whatever it left behind is in nobody's way.
            let version = run(&place, mode, "after", &rows(90, 100)).await.unwrap();
            assert_eq!(version, if now == old { 1 } else { 2 });
        }
        assert!(died > 8, "{died}");
    }
}

/// An overwrite removes files only after its commit, and what it did not come to the next one does.
#[tokio::test]
async fn whenever_a_writer_dies_removing_what_was_replaced_nothing_is_lost_and_nothing_stays() {
    let mut died_after_the_commit = 0;
    for operations in 0.. {
        let inner = Arc::new(InMemory::new());
        let place = healthy(&inner);
        run(&place, Mode::Append, "o0", &rows(0, 30)).await.unwrap();
        run(&place, Mode::Append, "a1", &rows(30, 60)).await.unwrap();
        run(&place, Mode::Overwrite, "o2", &rows(100, 130)).await.unwrap();
        run(&place, Mode::Append, "a3", &rows(130, 140)).await.unwrap();
        let result = run(&Dying::place(&inner, operations, How::Dead), Mode::Overwrite, "o4", &rows(200, 260)).await;
        let now = integers(&session(&place).await, "SELECT start FROM t ORDER BY 1").await;
        let committed = now == (200..260).collect::<Vec<_>>();
        assert!(committed || now == (100..140).collect::<Vec<_>>(), "after {operations} operations: {now:?}");
        assert_eq!(result.is_ok(), committed, "failing to remove files is no error");
        let before = integers(&session_at(&place, Some(3)).await, "SELECT start FROM t ORDER BY 1").await;
        assert_eq!(before, (100..140).collect::<Vec<_>>(), "after {operations} operations");
        let stale = async |runs: &[&str]| {
            let (data, clusters) = (place.list("data").await.unwrap(), place.list("clusters").await.unwrap());
            let of = |file: &ObjectMeta| runs.iter().any(|run| file.location.as_ref().contains(run));
            data.iter().chain(&clusters).filter(|file| of(file)).count()
        };
        let left = stale(&["o0", "a1"]).await;
        assert!(committed || left > 0, "files went before the commit");
        died_after_the_commit += i32::from(committed && left > 0);
        run(&place, Mode::Overwrite, "next", &rows(300, 310)).await.unwrap();
        assert_eq!(stale(&["o0", "a1"]).await, 0, "after {operations} operations");
        assert_eq!(stale(&["o2", "a3"]).await > 0, !committed, "the version before stays");
        let before = session_at(&place, Some(if committed { 4 } else { 3 })).await;
        let before = integers(&before, "SELECT start FROM t").await;
        assert_eq!(before.len(), if committed { 60 } else { 40 });
        if committed && left == 0 {
            break;
        }
    }
    assert!(died_after_the_commit > 3, "{died_after_the_commit}");
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

#[tokio::test]
async fn a_listing_that_lags_hides_no_commit() {
    let inner = Arc::new(InMemory::new());
    for i in 0..3 {
        run(&healthy(&inner), Mode::Append, &format!("r{i}"), &rows(i * 30, i * 30 + 30)).await.unwrap();
    }
    let blind = Dying::place(&inner, 0, How::BlindListing);
    assert_eq!(LabelTable::open_at(&blind, None).await.unwrap().snapshot().rows(), 90);
    assert_eq!(run(&blind, Mode::Append, "r3", &rows(90, 120)).await.unwrap(), 3);
    assert_eq!(LabelTable::open_at(&healthy(&inner), None).await.unwrap().snapshot().rows(), 120);
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
    assert_eq!(after, ["_log/00000000000000000001.json", "data/killed/part-00000.parquet"]);
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
    std::fs::write(dir.path().join("_log/a.attempt"), "1").unwrap();
    append(&place, "c", &rows(0, 10)).await.unwrap();
    assert_eq!(starts(&place).await.len(), 30);
    assert!(!dir.path().join("_log/a.attempt").exists());
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
    assert_eq!(memory.list("data").await.unwrap().len() + memory.list("_log").await.unwrap().len(), 0);
    let mut writer = TableWriter::begin(&memory, WriteOptions::new(Mode::Append, "b")).await.unwrap();
    sink = writer.sink(rows(0, 1).schema(), labels("m")).unwrap();
    sink.write(&rows(0, 9_000)).await.unwrap();
    drop(writer);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(memory.list("_log").await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_local_table_has_one_writer_at_a_time() {
    let (_dir, place) = local();
    let first = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "a")).await.unwrap();
    let e = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "b")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    assert!(e.to_string().contains(&format!("is being written by process {};", std::process::id())), "{e}");
    drop(first);
    append(&place, "b", &rows(0, 10)).await.unwrap();
}

#[tokio::test]
async fn writers_of_an_object_store_meet_at_the_commit() {
    let place = Location::parse("memory:///meet").unwrap();
    let begin = async |mode, run: &str, from: i64| {
        let mut writer = TableWriter::begin(&place, WriteOptions::new(mode, run)).await.unwrap();
        writer.sink(rows(0, 1).schema(), labels("m")).unwrap().write(&rows(from, from + 10)).await.unwrap();
        writer
    };
    let info = || CommitInfo { clusters: Some(clusters(&[10], 1.0)), ..CommitInfo::default() };
    let (first, second) = (begin(Mode::Append, "a", 0).await, begin(Mode::Append, "b", 10).await);
    let e = TableWriter::begin(&place, WriteOptions::new(Mode::Append, "b")).await.unwrap_err();
    assert!(e.to_string().contains("run id \"b\" was used for memory:///meet before, or is in use"), "{e}");
    let late = begin(Mode::Overwrite, "c", 20).await;
    assert_eq!(second.commit(info()).await.unwrap().version, 0);
    assert_eq!(first.commit(info()).await.unwrap().version, 1);
    assert_eq!(starts(&place).await, (10..20).chain(0..10).collect::<Vec<_>>());
    assert_eq!(integers(&session(&place).await, "SELECT size FROM t_clusters").await, [20]);
    let e = late.commit(info()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table);
    let expected = "another process committed version 0 of memory:///meet while this one was writing; \
                    nothing of this run is in the table; run again";
    assert_eq!(e.to_string(), expected);
    assert_eq!(starts(&place).await.len(), 20);
    assert_eq!(place.list("data").await.unwrap().len(), 2);
}

#[tokio::test]
async fn many_appends_at_once_all_land() {
    let place = Location::parse("memory:///many").unwrap();
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
    let e = damaged(|root| std::fs::write(log_file(root, 2), "{\"format\": 1, ").unwrap()).await;
    assert!(e.to_string().contains("00000000000000000002.json is damaged: it is not the JSON of a commit: EOF"), "{e}");
    let e = damaged(|root| std::fs::write(log_file(root, 0), [0xff, 0xfe]).unwrap()).await;
    assert!(e.to_string().contains("00000000000000000000.json is damaged"), "{e}");
    let e = damaged(edit(1, "\"format\": 1", "\"format\": 2")).await;
    assert!(e.to_string().contains("it has format 2, this dacpipe reads 1"), "{e}");
    let e = damaged(edit(1, "\"version\": 1", "\"version\": 7")).await;
    assert!(e.to_string().contains("00000000000000000001.json is damaged: it says version 7"), "{e}");
    let e = damaged(edit(2, "\"since\": 0", "\"since\": 2")).await;
    assert!(e.to_string().contains("its rows cannot go back to version 2"), "{e}");
    let e = damaged(edit(1, "\"Int64\"", "\"Int32\"")).await;
    assert!(e.to_string().contains("belong to different tables"), "{e}");
    let e = damaged(edit(1, "data/r1/", "../../r1/")).await;
    assert!(e.to_string().contains("is no path of a file of the table"), "{e}");
    let data = "data/r1/split=test/part-00000.parquet";
    let e = damaged(|root| std::fs::remove_file(root.join(data)).unwrap()).await;
    assert!(e.to_string().contains(&format!("{data} is missing")), "{e}");
    let e = damaged(|root| std::fs::write(root.join(data), "PAR1").unwrap()).await;
    assert!(e.to_string().contains(&format!("{data} has 4 bytes, the log says")), "{e}");
    let e = damaged(|root| std::fs::remove_file(root.join("clusters/r2.parquet")).unwrap()).await;
    assert!(e.to_string().contains("clusters/r2.parquet is missing"), "{e}");
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
    assert_eq!(e.kind(), Kind::Io, "{e}");
}
