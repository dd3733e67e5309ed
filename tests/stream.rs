//! Streams: what is new in a source, portion by portion, each row once, whatever happens in between.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::pipeline::{InputKind, Pipeline, Relabel, StreamOptions, StreamReport};
use dacpipe::source::OnBadRow;
use dacpipe::store::Location;
use dacpipe::table::{LabelTable, Mode, OnExisting};
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A pipeline without a network, so that it is fast: windows of two machines' vibrations, their features through filters
/// that look back and ahead, k-means.
const PIPELINE: &str = r#"
name = "pump"
seed = 7
on_bad_row = "quarantine"
[source]
kind = "csv"
path = "PATH"
channels = ["x", "y"]
time = "time_ms"
time_unit = "ms"
keys = ["machine"]
label = "state"
[[stage]]
kind = "window"
length = 20
stride = 8
within = "WITHIN"
[[stage]]
kind = "features"
set = "summary"
jerk = true
median = 5
low_pass = { order = 3, cutoff_hz = 8 }
[[stage]]
kind = "scale"
method = "standard"
[[stage]]
kind = "kmeans"
k = 3
[sink]
path = "OUT"
keys = ["machine", "start"]
vectors = "list"
[stream]
settle = "0 s"
"#;

pub(crate) struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir }
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The pipeline into the table `out`, with more keys set.
    fn pipeline(&self, out: &str, sets: &[&str]) -> Pipeline {
        let text = PIPELINE
            .replace("PATH", &self.input().display().to_string())
            .replace("OUT", &self.out(out).display().to_string())
            .replace("WITHIN", "recordings");
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        Pipeline::new(PipelineFile::parse("pump.toml", &text, &sets, &|_| None).unwrap().plan).unwrap()
    }

    /// The pipeline as a file.
    pub(crate) fn file(&self, out: &str) -> PathBuf {
        let text = PIPELINE
            .replace("PATH", &self.input().display().to_string())
            .replace("OUT", &self.out(out).display().to_string())
            .replace("WITHIN", "recordings");
        let path = self.dir.path().join("pump.toml");
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(self.input().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) async fn once(&self, out: &str, sets: &[&str]) -> StreamReport {
        let options = StreamOptions { once: true, ..StreamOptions::default() };
        self.pipeline(out, sets).follow(&options).await.unwrap()
    }
}

pub(crate) const HEADER: &str = "machine,time_ms,x,y,state\n";

/// Lines of two machines that take turns, with a gap, bad lines, and states that change.
pub(crate) fn lines(seed: u64, count: usize) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut times = [0u64; 2];
    (0..count)
        .map(|at| {
            let machine = usize::from(rng.random_bool(0.4));
            times[machine] += if rng.random_bool(0.004) { 500 } else { 20 };
            let phase = times[machine] as f64 / 1000.0;
            let loud = if (at / 400) % 2 == 0 { 1.0 } else { 4.0 };
            let mut value = |shift: f64| loud * (7.0 * phase + shift).sin() + rng.random_range(-0.2..0.2);
            let (x, y) = (value(0.0), value(1.0));
            let state = ["idle", "run", ""][(at / 150) % 3];
            match rng.random_bool(0.01) {
                true => format!("M{machine},{},{x:.4},bad,{state}\n", times[machine]),
                false => format!("M{machine},{},{x:.4},{y:.4},{state}\n", times[machine]),
            }
        })
        .collect()
}

/// The rows of a table: by machine and start, the cluster, the distance's bits and the vector's.
pub(crate) async fn rows(table: &Path) -> BTreeMap<(String, i64), (i32, u32, Vec<u32>)> {
    let place = Location::parse(&table.display().to_string()).unwrap();
    let ctx = SessionContext::new();
    let table = LabelTable::open_at(&place, None).await.unwrap();
    let columns = ["machine", "start", "cluster", "distance", "features"];
    let rows = ctx.read_table(std::sync::Arc::new(table)).unwrap().select_columns(&columns).unwrap();
    let mut found = BTreeMap::new();
    for batch in rows.collect().await.unwrap() {
        let machine = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        let features = batch.column(4).as_list::<i32>();
        for row in 0..batch.num_rows() {
            let key = (
                machine.as_string::<i32>().value(row).to_owned(),
                batch.column(1).as_primitive::<Int64Type>().value(row),
            );
            let vector = features.value(row);
            let vector = vector.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
            let cluster = batch.column(2).as_primitive::<Int32Type>().value(row);
            let distance = batch.column(3).as_primitive::<Float32Type>().value(row).to_bits();
            let before = found.insert(key.clone(), (cluster, distance, vector));
            assert!(before.is_none(), "{key:?} is there twice");
        }
    }
    found
}

/// The rows of all files, read as a whole and labelled by the model of `from`.
async fn labelled(
    case: &Case,
    from: &StreamReport,
    within: dacpipe::signal::window::Within,
) -> BTreeMap<(String, i64), (i32, u32, Vec<u32>)> {
    let relabel = Relabel {
        model: format!("{}/models/{}", from.table, &from.model[..16]),
        input: case.input().display().to_string(),
        output: case.out("whole").display().to_string(),
        kind: Some(InputKind::Csv),
        features: None,
        keys: vec![],
        within: Some(within),
        mode: Mode::Overwrite,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error: false,
        vectors: Some(dacpipe::vectors::VectorForm::List),
        on_bad_row: OnBadRow::Quarantine,
        threads: Some(2),
        device: DeviceChoice::Cpu,
    };
    relabel.run(&Control::default()).await.unwrap();
    rows(&case.out("whole")).await
}

/// However a growing file is cut into portions, the rows are those of reading it as a whole, to the bit; and every sample
/// is accounted for.
#[tokio::test(flavor = "multi_thread")]
async fn a_growing_file_gives_the_rows_of_the_whole_one() {
    for (seed, within) in [(1, "recordings"), (2, "labels"), (3, "recordings"), (4, "labels")] {
        let case = Case::new();
        let lines = lines(seed, 2600);
        let mut rng = StdRng::seed_from_u64(seed);
        case.append("a.csv", HEADER);
        let within_set = format!("stage.window.within={within:?}");
        let sets = ["stream.files=growing", &within_set];
        // The first lines are learned from.
        case.append("a.csv", &lines[..700].concat());
        let mut report = case.once("out", &sets).await;
        assert!(report.learned && report.rows > 0, "{report:?}");
        let mut samples = report.samples.clone().unwrap();
        let mut at = 700;
        let mut rest = String::new();
        while at < lines.len() {
            let next = (at + rng.random_range(1..300)).min(lines.len());
            let text = rest + &lines[at..next].concat();
            // Half of the time the last line is half written.
            let cut = if rng.random_bool(0.5) && next < lines.len() { text.len() - 5 } else { text.len() };
            case.append("a.csv", &text[..cut]);
            rest = text[cut..].to_owned();
            at = next;
            // At times a portion is smaller than what is there.
            let most = if rng.random_bool(0.3) { "stream.rows=50" } else { "stream.rows=100000" };
            report = case.once("out", &[&sets[..], &[most]].concat()).await;
            assert!(!report.learned, "{report:?}");
            if let Some(more) = &report.samples {
                samples.add(more);
            }
        }
        assert_eq!(report.open_recordings, 2);
        // No line comes for a long time: the recordings end.
        report = case.once("out", &[&sets[..], &["stream.idle=0 s"]].concat()).await;
        assert_eq!(report.open_recordings, 0, "{report:?}");
        samples.add(&report.samples.clone().unwrap());
        let streamed = rows(&case.out("out")).await;
        let kind = if within == "labels" {
            dacpipe::signal::window::Within::Labels
        } else {
            dacpipe::signal::window::Within::Recordings
        };
        let whole = labelled(&case, &report, kind).await;
        assert_eq!(streamed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "seed {seed}");
        let other: Vec<_> = streamed.iter().filter(|(key, row)| whole[*key] != **row).map(|(key, _)| key).collect();
        assert!(other.is_empty(), "seed {seed}: {other:?}");
        assert_eq!(samples.read, lines.len() as u64, "{samples}");
        assert_eq!(samples.read, samples.in_windows + samples.set_aside + samples.unused(), "{samples}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_files_are_read_once_and_changed_ones_are_set_aside() {
    let case = Case::new();
    let machine = |name: &str, seed| {
        let only: Vec<String> = lines(seed, 900).iter().filter(|line| line.starts_with("M0")).cloned().collect();
        format!("{HEADER}{}", only.concat().replace("M0", name))
    };
    case.append("a.csv", &machine("A", 1));
    let first = case.once("out", &[]).await;
    assert!(first.learned && first.commits == 1 && first.files == 1, "{first:?}");
    let nothing = case.once("out", &[]).await;
    assert!(nothing.is_empty() && nothing.rows == 0 && nothing.sequence == 1, "{nothing:?}");
    assert_eq!(nothing.table_version, first.table_version);

    case.append("b.csv", &machine("B", 2));
    case.append("c.csv", "this is no table\n");
    let second = case.once("out", &[]).await;
    assert_eq!((second.commits, second.quarantined_rows > 0, second.sequence), (1, true, 2), "{second:?}");
    let known = rows(&case.out("out")).await.len();
    assert_eq!(known as u64, first.rows + second.rows);

    // The recording A again, under another name; and a file that was changed after it was read.
    case.append("d.csv", &machine("A", 1));
    case.append("a.csv", "A,999999,0,0,idle\n");
    let third = case.once("out", &[]).await;
    assert_eq!(third.rows, 0, "{third:?}");
    assert_eq!(third.quarantined_rows, 2, "{third:?}");
    assert_eq!(rows(&case.out("out")).await.len(), known);
    assert!(case.once("out", &[]).await.is_empty());
}

pub(crate) fn dacpipe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("DACPIPE_THREADS");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn expect(code: i32, mut command: Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{command:?}\nstdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

/// Waits before a child is looked at again.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(milliseconds: u64) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds));
}

#[test]
fn the_exit_code_says_whether_anything_was_new() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let (_, stderr) = expect(4, dacpipe(&["run", &file, "--once", "--quiet"]));
    assert!(stderr.contains("no files that end with"), "{stderr}");
    case.append("a.csv", &format!("{HEADER}{}", lines(1, 900).concat()));
    let (stdout, _) = expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
    assert!(stdout.contains("learned just now") && stdout.contains("commit 1, 1 files read"), "{stdout}");
    let (stdout, _) = expect(99, dacpipe(&["run", &file, "--once", "--quiet"]));
    assert!(stdout.starts_with("pump: nothing new"), "{stdout}");
    let (stdout, _) = expect(99, dacpipe(&["run", &file, "--once", "--quiet", "--json"]));
    assert!(stdout.contains("\"commits\": 0"), "{stdout}");
    // A change of what is read is refused; of the seed it is not, as the model stays.
    let (_, stderr) = expect(3, dacpipe(&["run", &file, "--once", "--set", "stage.window.stride=4"]));
    assert!(stderr.contains("changed since the last commit of its stream"), "{stderr}");
    expect(99, dacpipe(&["run", &file, "--once", "--quiet", "--set", "seed=3"]));
    let (_, stderr) = expect(3, dacpipe(&["run", &file, "--once", "--set", "name=other"]));
    assert!(stderr.contains("the stream into") && stderr.contains("\"pump\""), "{stderr}");
    let (_, stderr) = expect(2, dacpipe(&["run", &file, "--once", "--follow"]));
    assert!(stderr.contains("cannot be used with"), "{stderr}");
}

/// A clock that jumped back is named, and the table stays as it was.
#[test]
fn a_clock_before_the_last_commit_is_refused() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    case.append("a.csv", &format!("{HEADER}{}", lines(1, 900).concat()));
    expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
    // As if the table had been written in an hour.
    let log = case.out("out/_delta_log/00000000000000000000.json");
    let text = fs::read_to_string(&log).unwrap();
    let at = text.split("\"modificationTime\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    let later = (at.parse::<i64>().unwrap() + 3_600_000).to_string();
    fs::write(&log, text.replace(at, &later)).unwrap();
    case.append("b.csv", &format!("{HEADER}{}", lines(2, 900).concat().replace('M', "N")));
    let (_, stderr) = expect(6, dacpipe(&["run", &file, "--once", "--quiet"]));
    assert!(stderr.contains("this machine's clock says") && stderr.contains("the table was written at"), "{stderr}");
    assert!(!case.out("out/_delta_log/00000000000000000001.json").exists());
    // Within a minute it may be the clock of another machine.
    fs::write(&log, text.replace(at, &(at.parse::<i64>().unwrap() + 30_000).to_string())).unwrap();
    expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
}

/// Killed at random moments and started again, a stream has each row once, and those of a stream that nobody kills.
#[test]
fn a_killed_stream_goes_on_with_each_row_once() {
    let kills = std::env::var("DACPIPE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let lines = lines(9, 12_000);
    case.append("a.csv", HEADER);
    case.append("a.csv", &lines[..1000].concat());
    let args = ["run", &file, "--set", "stream.files=growing", "--set", "stream.rows=120", "--quiet"];
    expect(0, dacpipe(&[&args[..], &["--once"]].concat()));
    let mut rng = StdRng::seed_from_u64(5);
    let share = (lines.len() - 1000) / kills;
    for kill in 0..kills {
        let mut follow = dacpipe(&[&args[..], &["--follow", "--set", "stream.every=10 ms"]].concat()).spawn().unwrap();
        let begin = 1000 + kill * share;
        for part in lines[begin..begin + share].chunks(share / 4) {
            case.append("a.csv", &part.concat());
            pause(rng.random_range(1..60));
        }
        pause(rng.random_range(1..200));
        follow.kill().unwrap();
        follow.wait().unwrap();
    }
    case.append("a.csv", &lines[1000 + kills * share..].concat());
    let code = dacpipe(&[&args[..], &["--once"]].concat()).output().unwrap().status.code();
    assert!([Some(0), Some(99)].contains(&code), "{code:?}");
    let nothing_more = dacpipe(&[&args[..], &["--once"]].concat());
    expect(99, nothing_more);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let killed = rows(&case.out("out")).await;
        // The same lines with the same model, and no kill.
        let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
        let model = format!("stream.model={:?}", model.display().to_string());
        let report = case.once("calm", &["stream.files=growing", &model]).await;
        assert_eq!(report.commits, 1);
        assert!(killed == rows(&case.out("calm")).await);
        // What is set aside is so once, too, with its place and its text.
        dacpipe::table::optimize(&Location::parse(&case.out("out").display().to_string()).unwrap(), 1).await.unwrap();
        let aside = set_aside(&case.out("out")).await;
        assert_eq!(aside, set_aside(&case.out("calm")).await);
        let text = fs::read(case.input().join("a.csv")).unwrap();
        let bad: Vec<(i64, String)> = (0..)
            .zip(&lines)
            .filter(|(_, line)| line.contains("bad"))
            .map(|(at, line)| (at + 2, line.trim_end().to_owned()))
            .collect();
        assert_eq!(aside.iter().map(|(line, _, text)| (*line, text.clone())).collect::<Vec<_>>(), bad);
        for (_, offset, line) in &aside {
            assert!(text[*offset as usize..].starts_with(line.as_bytes()), "{offset} {line}");
        }
    });
}

/// The rows of commits that a table's quarantine has, as any reader of Delta tables sees them: line, offset, text.
async fn set_aside(table: &Path) -> Vec<(i64, i64, String)> {
    let place = Location::parse(&table.join("quarantine").display().to_string()).unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("q", std::sync::Arc::new(LabelTable::open_at(&place, None).await.unwrap())).unwrap();
    let query = "SELECT line, \"offset\", text FROM q WHERE version IS NOT NULL ORDER BY line, \"offset\"";
    let mut found = Vec::new();
    for batch in ctx.sql(query).await.unwrap().collect().await.unwrap() {
        let number = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let text = arrow::compute::cast(batch.column(2), &arrow::datatypes::DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            found.push((number(0).value(row), number(1).value(row), text.as_string::<i32>().value(row).to_owned()));
        }
    }
    found
}

#[cfg(unix)]
#[test]
fn an_interrupt_commits_what_is_being_labelled() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    case.append("a.csv", &format!("{HEADER}{}", lines(1, 900).concat()));
    let follow = dacpipe(&["run", &file, "--follow", "--json", "--quiet"]).spawn().unwrap();
    let log = case.out("out/_delta_log/00000000000000000000.json");
    for _ in 0..2000 {
        if log.exists() {
            break;
        }
        pause(10);
    }
    case.append("b.csv", &format!("{HEADER}{}", lines(2, 900).concat().replace('M', "N")));
    Command::new("kill").args(["-TERM", &follow.id().to_string()]).status().unwrap();
    let Output { status, stdout, .. } = follow.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(0));
    let report: StreamReport = serde_json::from_slice(&stdout).unwrap();
    assert!(report.commits >= 1 && report.learned, "{report:?}");
}

/// Lines that come through a pipe are labelled as they come; at its end recordings end.
#[test]
fn standard_input_is_followed() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let lines = lines(3, 2000);
    case.append("a.csv", &format!("{HEADER}{}", lines[..900].concat()));
    let (_, stderr) = expect(3, dacpipe(&["run", &file, "--follow", "--set", "source.path=-"]));
    assert!(stderr.contains("[stream] model"), "{stderr}");
    expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
    let (model, piped) = (model.display().to_string(), case.out("piped").display().to_string());
    let sets = ["--set", "source.path=-", "--set", "stream.every=50 ms"];
    let more = ["--set".to_string(), format!("stream.model={model:?}"), "--set".into(), format!("sink.path={piped:?}")];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let mut command = dacpipe(&[&["run", &file, "--follow", "--json", "--quiet"], &sets[..], &more[..]].concat());
    let mut follow = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut to = follow.stdin.take().unwrap();
    to.write_all(HEADER.as_bytes()).unwrap();
    for part in lines.chunks(250) {
        to.write_all(part.concat().as_bytes()).unwrap();
        pause(80);
    }
    drop(to);
    let Output { status, stdout, stderr } = follow.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stderr));
    let report: StreamReport = serde_json::from_slice(&stdout).unwrap();
    assert!(report.commits > 1 && report.open_recordings == 0, "{report:?}");
    assert_eq!(report.samples.as_ref().map(|samples| samples.read), Some(2000));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        fs::write(case.input().join("a.csv"), format!("{HEADER}{}", lines.concat())).unwrap();
        let whole = labelled(&case, &report, dacpipe::signal::window::Within::Recordings).await;
        assert!(rows(Path::new(&piped)).await == whole);
    });
}

/// The clusters of the table's newest version: ids, sizes, centroids' bits.
async fn clusters(table: &Path) -> Vec<(i32, i64, Vec<u64>)> {
    let ctx = SessionContext::new();
    let options = dacpipe::sql::Options::new().table("t", &table.display().to_string());
    dacpipe::sql::register(&ctx, options).await.unwrap();
    let rows = ctx.sql("SELECT cluster, size, centroid FROM t_clusters ORDER BY cluster").await.unwrap();
    let mut found = Vec::new();
    for batch in rows.collect().await.unwrap() {
        for row in 0..batch.num_rows() {
            let centroid = batch.column(2).as_list::<i32>().value(row);
            let bits = centroid.as_primitive::<arrow::datatypes::Float64Type>().values().iter().map(|v| v.to_bits());
            let ids = batch.column(0).as_primitive::<Int32Type>();
            found.push((ids.value(row), batch.column(1).as_primitive::<Int64Type>().value(row), bits.collect()));
        }
    }
    found
}

/// Centroids that move with the stream are part of its state: killed and started again, it labels rows by the same ones.
#[test]
fn centroids_move_with_the_stream_and_survive_kills() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let lines = lines(9, 9000);
    case.append("a.csv", &format!("{HEADER}{}", lines[..1000].concat()));
    expect(0, dacpipe(&["run", &file, "--once", "--quiet", "--set", "stream.files=growing"]));
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
    let model = format!("stream.model={:?}", model.display().to_string());
    case.append("a.csv", &lines[1000..].concat());
    let learn =
        ["stream.files=growing", "stream.rows=150", "stream.learn=centroids", "stream.half_life=\"400 rows\"", &model];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let calm = runtime.block_on(case.once("calm", &learn));
    assert!(calm.commits > 50 && !calm.learned, "{calm:?}");

    let killed = format!("sink.path={:?}", case.out("killed").display().to_string());
    let sets: Vec<&str> = learn.iter().copied().chain([killed.as_str()]).flat_map(|set| ["--set", set]).collect();
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..4 {
        let mut follow = dacpipe(&[&["run", &file, "--follow", "--quiet"], &sets[..]].concat()).spawn().unwrap();
        pause(rng.random_range(150..900));
        follow.kill().unwrap();
        follow.wait().unwrap();
    }
    let code = dacpipe(&[&["run", &file, "--once", "--quiet"], &sets[..]].concat()).output().unwrap().status.code();
    assert!([Some(0), Some(99)].contains(&code), "{code:?}");
    runtime.block_on(async {
        let (calm, killed) = (case.out("calm"), case.out("killed"));
        assert!(rows(&calm).await == rows(&killed).await);
        assert_eq!(clusters(&calm).await, clusters(&killed).await);
        // They did move, and rows that stay where they are would be labelled otherwise.
        let still = case.once("still", &["stream.files=growing", "stream.rows=150", &model]).await;
        assert_eq!(still.rows as usize, rows(&calm).await.len());
        assert_ne!(clusters(&calm).await, clusters(&case.out("still")).await);
    });
}

#[test]
fn what_cannot_be_learned_or_followed_is_refused() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let refused = |sets: &[&str], words: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let (_, stderr) = expect(3, dacpipe(&[&["run", &file, "--once"], &sets[..]].concat()));
        assert!(stderr.contains(words), "{stderr}");
    };
    refused(&["stream.half_life=\"2 h\""], "nothing is learned that could be forgotten");
    refused(&["stream.learn=centroids", "stream.half_life=\"0 rows\""], "half-life");
    refused(
        &["stream.learn=centroids", "stream.half_life=\"2 h\"", "source.time=null", "source.time_unit=null"],
        "no times",
    );
    refused(&["stream.rows=0"], "rows");
    refused(&["stream.files=growing", "source.resample=true"], "whole recordings");
    let (_, stderr) = expect(3, dacpipe(&["run", "pipelines/hapt.toml", "--once", "--set", "sink.path=out/none"]));
    assert!(stderr.contains("kind = \"hapt\""), "{stderr}");
}

/// Two processes that follow one source into one table: what one has committed the other does not commit again.
#[test]
fn two_streams_into_one_table_commit_each_row_once() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let lines = lines(12, 6000);
    case.append("a.csv", &format!("{HEADER}{}", lines[..1000].concat()));
    let args = ["run", &file, "--quiet", "--set", "stream.files=growing", "--set", "stream.every=30 ms"];
    expect(0, dacpipe(&[&args[..], &["--once"]].concat()));
    let follow = || dacpipe(&[&args[..], &["--follow"]].concat()).spawn().unwrap();
    let mut both = [follow(), follow()];
    let mut refused = 0;
    for part in lines[1000..].chunks(250) {
        case.append("a.csv", &part.concat());
        pause(60);
        for stream in &mut both {
            if let Some(status) = stream.try_wait().unwrap() {
                assert_eq!(status.code(), Some(6));
                let mut said = String::new();
                std::io::Read::read_to_string(stream.stderr.as_mut().unwrap(), &mut said).unwrap();
                assert!(said.contains("another process follows a stream into"), "{said}");
                refused += 1;
                *stream = follow();
            }
        }
    }
    assert!(refused > 0, "they never met");
    for mut stream in both {
        stream.kill().unwrap();
        stream.wait().unwrap();
    }
    let code = dacpipe(&[&args[..], &["--once"]].concat()).output().unwrap().status.code();
    assert!([Some(0), Some(99)].contains(&code), "{code:?}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
        let model = format!("stream.model={:?}", model.display().to_string());
        case.once("calm", &["stream.files=growing", &model]).await;
        assert!(rows(&case.out("out")).await == rows(&case.out("calm")).await);
    });
}
