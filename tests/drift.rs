//! Drift: how far rows are from those that a model learned from, in runs, streams and labels.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use arrow::array::AsArray;
use arrow::datatypes::{Float32Type, Int32Type};
use dacpipe::config::PipelineFile;
use dacpipe::drift::Level;
use dacpipe::pipeline::{Pipeline, RunOptions, StreamOptions, StreamReport};
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Windows of one machine that do not overlap, and a state drawn for each: rows are independent of each other.
const PIPELINE: &str = r#"
name = "pump"
seed = 7
on_bad_row = "quarantine"
[source]
kind = "csv"
path = "IN"
channels = ["x", "y"]
time = "time_ms"
time_unit = "ms"
keys = ["machine"]
[[stage]]
kind = "window"
length = 10
stride = 10
within = "recordings"
[[stage]]
kind = "features"
set = "summary"
bands = 4
[[stage]]
kind = "kmeans"
k = 3
[sink]
path = "OUT"
keys = ["machine", "start"]
vectors = "list"
[stream]
settle = "0 s"
[drift]
rows = 300
"#;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        Self { dir }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, out: &str) -> String {
        let place = |name: &str| self.out(name).display().to_string();
        PIPELINE.replace("IN", &place("in")).replace("OUT", &place(out))
    }

    fn pipeline(&self, out: &str, sets: &[&str]) -> Pipeline {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        Pipeline::new(PipelineFile::parse("pump.toml", &self.text(out), &sets, &|_| None).unwrap().plan).unwrap()
    }

    fn file(&self, out: &str) -> String {
        let path = self.dir.path().join(format!("{out}.toml"));
        fs::write(&path, self.text(out)).unwrap();
        path.display().to_string()
    }

    /// Writes a recording of `windows` windows, of which x reads `more` than it should.
    fn record(&self, name: &str, seed: u64, windows: usize, more: f64) {
        fs::write(self.out("in").join(format!("{name}.csv")), recording(name, seed, windows, more)).unwrap();
    }

    async fn once(&self, out: &str, sets: &[&str]) -> StreamReport {
        let options = StreamOptions { once: true, ..StreamOptions::default() };
        self.pipeline(out, sets).follow(&options).await.unwrap()
    }

    /// What a query over the table gives, a line a row.
    async fn sql(&self, out: &str, query: &str) -> Vec<String> {
        let ctx = SessionContext::new_with_config(dacpipe::sql::session_config());
        let options = dacpipe::sql::Options::new().table("t", &self.out(out).display().to_string());
        dacpipe::sql::register(&ctx, options).await.unwrap();
        let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
        let mut lines = Vec::new();
        for batch in &batches {
            let shown = |row| {
                let cells = batch
                    .columns()
                    .iter()
                    .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                cells.collect::<Vec<_>>().join(",")
            };
            lines.extend((0..batch.num_rows()).map(shown));
        }
        lines
    }
}

fn recording(name: &str, seed: u64, windows: usize, more: f64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = "machine,time_ms,x,y\n".to_owned();
    for window in 0..windows {
        let (level, noise) = [(0.0, 0.2), (3.0, 0.5), (-2.0, 1.0)][rng.random_range(0..3)];
        for sample in 0..10 {
            let mut value = || level + noise * rng.random_range(-1.0..1.0);
            let (x, y) = (value() + more, value());
            text += &format!("{name},{},{x:.5},{y:.5}\n", (window * 10 + sample) * 20);
        }
    }
    text
}

fn dacpipe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("DACPIPE_THREADS");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn expect(code: i32, args: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = dacpipe(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{args:?}\nstdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

/// Sensors that stay as they are raise no alarm; from the time on at which one is off, everything does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_finds_the_time_at_which_a_sensor_drifted() {
    let case = Case::new();
    case.record("m00", 100, 1500, 0.0);
    let first = case.once("out", &[]).await;
    assert!(first.learned && first.drift.as_ref().is_some_and(|drift| drift.level == Level::Stable), "{first:?}");
    for step in 1..14 {
        let more = if step < 10 { 0.0 } else { 1.5 };
        case.record(&format!("m{step:02}"), 100 + step, 400, more);
        let report = case.once("out", &[]).await;
        let drift = report.drift.unwrap();
        assert_eq!(drift.rows, 400);
        let expected = if step < 10 { Level::Stable } else { Level::Act };
        assert_eq!(drift.level, expected, "step {step}: {drift}");
    }
    let query = "SELECT count(DISTINCT run), count(DISTINCT measure) FROM t_drift";
    assert_eq!(case.sql("out", query).await, ["14,4"]);
    // x has drifted, and y has not.
    let query = "SELECT DISTINCT split_part(name, '-', 1) FROM t_drift WHERE measure = 'feature' AND level = 'act'";
    let names = case.sql("out", query).await;
    assert!(!names.is_empty() && names.iter().all(|name| !name.starts_with('y')), "{names:?}");
    // And rows lie further from the centroids.
    let query = "SELECT count(*), min(psi) > 0.25 FROM t_drift WHERE measure = 'distances' AND level = 'act'";
    assert_eq!(case.sql("out", query).await, ["4,true"]);
}

/// The columns of the table, by file: features, clusters, distances.
struct Rows {
    features: Vec<Vec<f32>>,
    clusters: Vec<i32>,
    distances: Vec<f32>,
}

async fn rows_of(case: &Case, machine: &str) -> Rows {
    let ctx = SessionContext::new_with_config(dacpipe::sql::session_config());
    let options = dacpipe::sql::Options::new().table("t", &case.out("out").display().to_string());
    dacpipe::sql::register(&ctx, options).await.unwrap();
    let query = format!("SELECT features, cluster, distance FROM t WHERE machine = '{machine}'");
    let mut rows = Rows { features: vec![], clusters: vec![], distances: vec![] };
    for batch in ctx.sql(&query).await.unwrap().collect().await.unwrap() {
        let lists = batch.column(0).as_list::<i32>();
        let row = |at| lists.value(at).as_primitive::<Float32Type>().values().to_vec();
        rows.features.extend((0..batch.num_rows()).map(row));
        rows.clusters.extend(batch.column(1).as_primitive::<Int32Type>().values());
        rows.distances.extend(batch.column(2).as_primitive::<Float32Type>().values());
    }
    rows
}

/// The index by its formula, over bins at ten quantiles; values that fill a bin have one of their own.
fn by_hand(learned: &[f32], seen: &[f32]) -> f64 {
    let mut sorted = learned.to_vec();
    sorted.sort_by(f32::total_cmp);
    let n = sorted.len();
    let mut edges: Vec<(f32, bool)> = Vec::new();
    for i in 1..10 {
        let value = sorted[(i as f64 * n as f64 / 10.0).ceil() as usize - 1];
        let atom = sorted.iter().filter(|v| **v == value).count() * 10 >= n;
        if edges.last().is_none_or(|(last, _)| *last < value) {
            edges.push((value, atom));
        }
    }
    // Bins as text, so that nothing is shared with what is tested.
    let bin = |value: f32| {
        let mut name = String::from("first");
        for (edge, atom) in &edges {
            if *atom && value == *edge {
                return format!("at {edge}");
            }
            if value > *edge {
                name = format!("above {edge}");
            }
        }
        name
    };
    let mut bins: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    learned.iter().for_each(|v| bins.entry(bin(*v)).or_default().0 += 1.0);
    seen.iter().for_each(|v| bins.entry(bin(*v)).or_default().1 += 1.0);
    index(&bins.into_values().collect::<Vec<_>>())
}

fn index(bins: &[(f64, f64)]) -> f64 {
    let b = bins.len() as f64;
    let (n, m) =
        (bins.iter().map(|bin| bin.0).sum::<f64>() + b / 2.0, bins.iter().map(|bin| bin.1).sum::<f64>() + b / 2.0);
    bins.iter().map(|(e, a)| ((a + 0.5) / m - (e + 0.5) / n) * (((a + 0.5) / m) / ((e + 0.5) / n)).ln()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_the_indices_of_the_formula() {
    let case = Case::new();
    case.record("m0", 1, 900, 0.0);
    case.once("out", &[]).await;
    case.record("m1", 2, 350, 0.4);
    case.once("out", &[]).await;
    let (learned, seen) = (rows_of(&case, "m0").await, rows_of(&case, "m1").await);
    assert_eq!((learned.clusters.len(), seen.clusters.len()), (900, 350));
    let newest = "run = (SELECT max(run) FROM t_drift)";
    let features = case
        .sql(
            "out",
            &format!("SELECT position, psi FROM t_drift WHERE measure = 'feature' AND {newest} ORDER BY position"),
        )
        .await;
    assert_eq!(features.len(), learned.features[0].len());
    let mut apart = 0;
    for (at, line) in features.iter().enumerate() {
        let psi: f64 = line.split(',').nth(1).unwrap().parse().unwrap();
        let of = |rows: &Rows| rows.features.iter().map(|row| row[at]).collect::<Vec<f32>>();
        let expected = by_hand(&of(&learned), &of(&seen));
        assert!((psi - expected).abs() < 1e-9, "feature {at}: {psi}, by hand {expected}");
        apart += usize::from(expected > 0.1);
    }
    assert!(apart > 0 && apart < features.len(), "{apart} of {}", features.len());
    let psi = |measure: &str| format!("SELECT psi FROM t_drift WHERE measure = '{measure}' AND {newest}");
    let found: f64 = case.sql("out", &psi("distances")).await[0].parse().unwrap();
    assert!((found - by_hand(&learned.distances, &seen.distances)).abs() < 1e-9);
    let shares = |rows: &Rows, id: i32| rows.clusters.iter().filter(|c| **c == id).count() as f64;
    let bins: Vec<(f64, f64)> = (0..3).map(|id| (shares(&learned, id), shares(&seen, id))).collect();
    let found: f64 = case.sql("out", &psi("clusters")).await[0].parse().unwrap();
    assert!((found - index(&bins)).abs() < 1e-9);
    // The parts of the clusters add up, and their shares are those of the table.
    let query = format!(
        "SELECT sum(psi), sum(expected), sum(actual), min(rows), min(reference_rows) FROM t_drift WHERE measure = 'cluster' AND {newest}"
    );
    let line = case.sql("out", &query).await.remove(0);
    let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
    assert!(
        (cells[0] - found).abs() < 1e-12 && (cells[1] - 1.0).abs() < 1e-12 && (cells[2] - 1.0).abs() < 1e-12,
        "{line}"
    );
    assert_eq!(cells[3..], [350.0, 900.0]);
}

/// What is kept for drift is no part of the model; and few rows say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_the_same_with_drift_and_without() {
    let case = Case::new();
    case.record("m0", 1, 250, 0.0);
    let measured = case.pipeline("out", &[]).run(&RunOptions::default()).await.unwrap();
    let plain = case.pipeline("plain", &["drift=null"]).run(&RunOptions::default()).await.unwrap();
    assert_eq!(measured.model, plain.model);
    assert!(measured.drift.is_empty() && plain.drift.is_empty(), "250 rows are fewer than 300");
    let there = |report: &dacpipe::report::RunReport| PathBuf::from(&report.model_path).join("drift.json").exists();
    assert!(there(&measured) && !there(&plain));
    // A stream with a model that knows nothing of its rows is refused, and says what to do.
    let model = format!("stream.model={:?}", plain.model_path);
    let options = StreamOptions { once: true, ..StreamOptions::default() };
    let e = case.pipeline("other", &[&model]).follow(&options).await.unwrap_err();
    assert!(e.kind() == dacpipe::Kind::Model && e.to_string().contains("learned without [drift]"), "{e}");
    // Running the pipeline again with the section is what it says.
    let again = case.pipeline("plain", &[]).run(&RunOptions::default()).await.unwrap();
    assert!(again.model == plain.model && there(&plain));
    case.pipeline("other", &[&model]).follow(&options).await.unwrap();
}

/// A run says how far its labelled rows are from those that it learned from, and how far these are from the table's.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_table_is_compared_with_its_model() {
    let case = Case::new();
    case.record("m0", 1, 800, 0.0);
    let append = ["sink.mode=append"];
    let first = case.pipeline("out", &append).run(&RunOptions::default()).await.unwrap();
    assert_eq!(first.drift.iter().map(|drift| drift.level).collect::<Vec<_>>(), [Level::Stable]);
    fs::remove_file(case.out("in").join("m0.csv")).unwrap();
    case.record("m1", 2, 800, 2.0);
    let second = case.pipeline("out", &append).run(&RunOptions::default()).await.unwrap();
    let said: Vec<_> = second.drift.iter().map(|drift| (drift.model.clone(), drift.level)).collect();
    assert_eq!(said, [(first.model, Level::Act), (second.model, Level::Stable)]);
    let query = "SELECT model, count(DISTINCT run) FROM t_drift GROUP BY model ORDER BY count(*) DESC";
    assert_eq!(case.sql("out", query).await.len(), 2);
}

#[test]
fn exit_codes_tell_drift_and_what_was_set_aside() {
    let case = Case::new();
    case.record("m0", 1, 600, 0.0);
    let file = case.file("out");
    expect(0, &["run", &file, "--once", "--quiet", "--fail-on", "drift,quarantine"]);
    case.record("m1", 2, 400, 2.0);
    let (stdout, stderr) = expect(10, &["run", &file, "--once", "--fail-on", "drift"]);
    assert!(stdout.contains("400 rows labelled in 1 commit") && stdout.contains("drifted in 400 rows: "), "{stdout}");
    assert!(stderr.contains("drift: ") && stderr.contains("pump_drift has all"), "{stderr}");
    // The rows are there.
    expect(99, &["run", &file, "--once", "--quiet", "--fail-on", "drift"]);
    // The file can say it, too; without it drift is a warning.
    case.record("m2", 3, 400, 2.0);
    expect(0, &["run", &file, "--once", "--quiet"]);
    case.record("m3", 4, 400, 2.0);
    expect(10, &["run", &file, "--once", "--quiet", "--set", "drift.policy=fail"]);
    let bad = recording("m4", 5, 50, 0.0).replace(",0,", ",zero,");
    fs::write(case.out("in").join("m4.csv"), bad).unwrap();
    expect(11, &["run", &file, "--once", "--quiet", "--fail-on", "quarantine", "--fail-on", "drift"]);
    // Of a plain run, and of labels.
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path().display().to_string();
    let (input, labelled) = (case.out("in/m3.csv").display().to_string(), case.out("labelled").display().to_string());
    let label = ["label", "--model", &model, "--input", &input, "--output", &labelled, "--quiet"];
    expect(10, &[&label[..], &["--fail-on", "drift"]].concat());
    let (stdout, _) = expect(0, &label);
    assert!(stdout.contains("  drift     "), "{stdout}");
    expect(11, &["run", &file, "--quiet", "--fail-on", "quarantine"]);
    let (_, stderr) = expect(3, &["run", &file, "--set", "drift=null", "--fail-on", "drift"]);
    assert!(stderr.contains("no [drift] section"), "{stderr}");
    fs::remove_file(PathBuf::from(&model).join("drift.json")).unwrap();
    let (_, stderr) = expect(3, &[&label[..], &["--fail-on", "drift"]].concat());
    assert!(stderr.contains("learned without a [drift] section"), "{stderr}");
}

/// The rows of drift without what differs from process to process.
async fn drift_rows(case: &Case, out: &str) -> Vec<String> {
    let query = "SELECT measure, name, psi, chance, level, expected, actual, rows, reference_rows, model FROM t_drift";
    case.sql(out, query).await
}

/// Counts of drift are in the state of the stream: killed and started again, it measures the same.
#[test]
fn a_killed_stream_measures_the_same_drift() {
    let case = Case::new();
    case.record("m00", 50, 700, 0.0);
    let file = case.file("out");
    expect(0, &["run", &file, "--once", "--quiet"]);
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
    let model = format!("stream.model={:?}", model.display().to_string());
    for step in 1..30 {
        case.record(&format!("m{step:02}"), 50 + step, 130, if step > 15 { 0.8 } else { 0.0 });
    }
    // A file a commit, and every third commit has enough rows.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sets = ["stream.rows=200", "drift.rows=300", &model];
    let calm = runtime.block_on(case.once("calm", &sets));
    assert_eq!(calm.commits, 30);
    let killed = format!("sink.path={:?}", case.out("killed").display().to_string());
    let sets: Vec<&str> = sets.iter().copied().chain([killed.as_str()]).flat_map(|set| ["--set", set]).collect();
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..4 {
        let mut follow = dacpipe(&[&["run", &file, "--follow", "--quiet"], &sets[..]].concat()).spawn().unwrap();
        pause(rng.random_range(100..600));
        follow.kill().unwrap();
        follow.wait().unwrap();
    }
    let last = dacpipe(&[&["run", &file, "--once", "--quiet"], &sets[..]].concat()).output().unwrap().status.code();
    assert!([Some(0), Some(99)].contains(&last), "{last:?}");
    runtime.block_on(async {
        let (calm, killed) = (drift_rows(&case, "calm").await, drift_rows(&case, "killed").await);
        assert!(calm.len() > 9 * 20, "{} rows", calm.len());
        assert!(calm == killed, "{} rows and {}", calm.len(), killed.len());
    });
}

/// Waits before a child is looked at again.
#[allow(clippy::disallowed_methods)]
fn pause(milliseconds: u64) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds));
}

/// A stream whose rows drift learns a new model from the files that are there: the clusters keep their ids, and the rows
/// after it are compared with those.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_learns_a_new_model_where_rows_have_drifted() {
    let case = Case::new();
    case.record("m0", 1, 600, 0.0);
    let sets = ["drift.policy=retrain"];
    let first = case.once("out", &sets).await;
    case.record("m1", 2, 1200, 1.5);
    let second = case.once("out", &sets).await;
    // Nothing new is there: the new model comes with the next rows.
    assert_eq!((second.drift.unwrap().level, second.retrained, &second.model), (Level::Act, 0, &first.model));
    let nothing = case.once("out", &sets).await;
    assert!(nothing.is_empty() && nothing.retrained == 0, "{nothing:?}");
    case.record("m2", 3, 700, 1.5);
    let third = case.once("out", &sets).await;
    assert!(third.retrained == 1 && third.model != first.model && third.rows == 700, "{third:?}");
    let query = "SELECT model, count(*) FROM t GROUP BY model ORDER BY count(*) DESC";
    let expected = [format!("{},1800", first.model), format!("{},700", third.model)];
    assert_eq!(case.sql("out", query).await, expected);
    let known = "SELECT count(*) FROM t_lineage WHERE event IN ('born', 'died') AND model = ";
    let born = case.sql("out", &format!("{known}'{}'", first.model)).await;
    assert_eq!(born, ["3"], "those of the first model");
    let ids = case.sql("out", "SELECT count(DISTINCT cluster), max(cluster) FROM t").await;
    assert_eq!(ids, ["3,2"], "the clusters keep their ids");
    // It stays, also if the file names another one; and its own rows are the measure now.
    let other = format!("stream.model={:?}", format!("{}/models/{}", first.table, &first.model[..16]));
    case.record("m3", 4, 400, 1.5);
    let fourth = case.once("out", &[sets[0], &other]).await;
    assert_eq!((&fourth.model, fourth.retrained), (&third.model, 0));
    let query = format!("SELECT count(DISTINCT run) FROM t_drift WHERE model = '{}'", third.model);
    assert_eq!(case.sql("out", &query).await, ["2"]);
}

#[test]
fn what_cannot_be_measured_or_done_is_refused() {
    let case = Case::new();
    let file = case.file("out");
    let refused = |sets: &[&str], words: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let (_, stderr) = expect(3, &[&["run", &file, "--once"], &sets[..]].concat());
        assert!(stderr.contains(words), "{stderr}");
    };
    refused(&["drift.act=0.05"], "less than `watch`");
    refused(&["drift.policy=retrain", "stream.learn=centroids"], "follow its rows already");
    refused(&["drift.policy=retrain", "source.path=-"], "standard input is read once");
    refused(&["drift.policy=retrain", "source.path=mqtt://127.0.0.1:1/a"], "messages of a broker are read once");
    refused(&["drift.measure=[\"clusters\"]", "stage.kmeans=null"], "no clusters to measure");
    refused(&["drift.bins=1"], "bins");
    refused(&["drift.rows=0"], "rows");
    refused(&["drift.measure=[]"], "measure");
}

/// The counts in the state are checked against the model's bins.
#[test]
fn a_reference_that_is_damaged_or_of_another_model_is_refused() {
    let case = Case::new();
    case.record("m0", 1, 400, 0.0);
    let file = case.file("out");
    expect(0, &["run", &file, "--once", "--quiet"]);
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
    let path = model.join("drift.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"rows\":400", "\"rows\":401", 1)).unwrap();
    case.record("m1", 2, 400, 0.0);
    let (_, stderr) = expect(5, &["run", &file, "--once"]);
    assert!(stderr.contains("drift.json is damaged"), "{stderr}");
}
