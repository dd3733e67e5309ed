//! The command from outside: exit codes, messages, a kill in the middle of a run, memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn dacpipe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("HAPT_DATA").env_remove("DACPIPE_THREADS");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs, expects this exit code, and returns standard output and standard error.
fn expect(code: i32, mut command: Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{command:?}\nstdout: {stdout}\nstderr: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

fn set(key: &str, path: &Path) -> String {
    format!("{key}={:?}", path.display().to_string())
}

/// `dacpipe run pipelines/hapt.toml` with few epochs into `out`, and more `--set`s.
fn run(out: &Path, sets: &[&str]) -> Command {
    let mut command = dacpipe(&["run", "pipelines/hapt.toml", "--quiet", "--set", "stage.autoencoder.epochs=3"]);
    command.args(["--set", "stage.manifold.epochs=20"]).arg("--set").arg(set("sink.path", out));
    for s in sets {
        command.args(["--set", s]);
    }
    command
}

/// Waits before the child is checked again.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(5));
}

/// A copy of the example recordings that a test may break.
fn recordings(dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt");
    let to = dir.join("hapt");
    copy(&from, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
}

/// The table has no version: nothing was committed.
fn nothing_committed(out: &Path) -> bool {
    let log = out.join("_delta_log");
    !log.exists() || fs::read_dir(log).unwrap().all(|e| e.unwrap().path().extension().is_none_or(|e| e != "json"))
}

#[test]
fn a_run_ends_with_a_summary_and_a_line_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("hapt");
    let (stdout, _) = expect(0, run(&out, &[]));
    assert!(stdout.contains("SIMULATED"), "{stdout}");
    assert!(stdout.contains("ARI") && stdout.contains("raw k-means"), "{stdout}");
    let next = stdout.lines().find(|l| l.contains("dacpipe sql")).unwrap();
    let query = next.split("-c '").nth(1).unwrap().trim_end_matches('\'');
    let table = format!("hapt={}", out.display());
    assert!(next.contains(&table), "{next}");
    let (answer, _) = expect(0, dacpipe(&["sql", "--table", &table, "--format", "csv", "-c", query]));
    assert!(answer.starts_with("activity,cluster,n\n") && answer.lines().count() > 5, "{answer}");

    let (scores, _) = expect(0, dacpipe(&["evaluate", out.to_str().unwrap(), "--labels", "activity"]));
    assert!(scores.contains("ARI") && scores.contains("WALKING"), "{scores}");
}

#[test]
fn labels_new_rows_with_the_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("hapt");
    expect(0, run(&out, &[]));
    let model = fs::read_dir(out.join("models")).unwrap().next().unwrap().unwrap().path();
    // Recordings without any label: windows over whole recordings.
    let unlabelled = recordings(dir.path());
    for gone in ["RawData/labels.txt", "RawData/labels.txt.gz", "Train", "Test"] {
        let path = unlabelled.join(gone);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    let new = dir.path().join("new");
    let (model, input, output) = (model.to_str().unwrap(), unlabelled.to_str().unwrap(), new.to_str().unwrap());
    let args = ["label", "--model", model, "--input", input, "--output", output, "--within", "recordings", "-q"];
    let (stdout, _) = expect(0, dacpipe(&args));
    assert!(stdout.contains("rows labelled"), "{stdout}");
    let table = format!("new={output}");
    let query = "SELECT count(*) > 300 AND min(distance) >= 0 AS ok FROM new";
    let (answer, _) = expect(0, dacpipe(&["sql", "--table", &table, "--format", "csv", "-c", query]));
    assert_eq!(answer, "ok\ntrue\n");
}

#[test]
fn bad_recordings_fail_with_file_and_line_and_leave_no_table() {
    type Break = fn(&Path);
    fn edit(path: &Path, change: impl Fn(&mut Vec<String>)) {
        use std::io::{Read, Write};
        let mut content = String::new();
        flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut content).unwrap();
        let mut lines: Vec<String> = content.lines().map(String::from).collect();
        change(&mut lines);
        let mut out = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
        out.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        out.finish().unwrap();
    }
    fn acc(hapt: &Path) -> PathBuf {
        let mut files: Vec<_> = fs::read_dir(hapt.join("RawData")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.into_iter().find(|f| f.file_name().unwrap().to_str().unwrap().starts_with("acc_")).unwrap()
    }
    let cases: &[(&str, Break, &[&str])] = &[
        ("two numbers", |h| edit(&acc(h), |l| l[9] = "1.0 2.0".into()), &["acc_exp01", "10"]),
        ("text", |h| edit(&acc(h), |l| l[4] = "1.0 x 2.0".into()), &["acc_exp01", "5"]),
        ("not a number", |h| edit(&acc(h), |l| l[4] = "1.0 NaN 2.0".into()), &["acc_exp01", "5", "NaN"]),
        ("lengths differ", |h| edit(&acc(h), |l| l.truncate(l.len() - 7)), &["acc_exp01", "gyro_exp01"]),
        ("empty", |h| edit(&acc(h), |l| l.clear()), &["acc_exp01"]),
        ("missing", |h| fs::remove_file(acc(h)).unwrap(), &["exp01"]),
        ("no recordings", |h| fs::remove_dir_all(h.join("RawData")).unwrap(), &["RawData"]),
    ];
    for (name, break_it, said) in cases {
        let dir = tempfile::tempdir().unwrap();
        let hapt = recordings(dir.path());
        break_it(&hapt);
        let out = dir.path().join("out");
        let (_, stderr) = expect(4, run(&out, &[&set("source.path", &hapt)]));
        for part in *said {
            assert!(stderr.contains(part), "{name}: no {part:?} in: {stderr}");
        }
        assert!(nothing_committed(&out), "{name}");
    }
}

#[test]
fn a_model_for_another_width_names_both_widths() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("hapt");
    expect(0, run(&out, &[]));
    let model = fs::read_dir(out.join("models")).unwrap().next().unwrap().unwrap().path();
    let parquet = fs::read_dir(out.join("_dacpipe")).unwrap().next().unwrap().unwrap().path().join("clusters.parquet");
    let (model, input, new) = (model.to_str().unwrap(), parquet.to_str().unwrap(), dir.path().join("new"));
    let args = [
        "label",
        "-q",
        "--model",
        model,
        "--input",
        input,
        "--features",
        "centroid",
        "--output",
        new.to_str().unwrap(),
    ];
    let (_, stderr) = expect(5, dacpipe(&args));
    assert!(stderr.contains("561") && stderr.contains("10"), "{stderr}");
    let (_, stderr) =
        expect(5, dacpipe(&["label", "-q", "--model", "nowhere", "--input", input, "--output", new.to_str().unwrap()]));
    assert!(stderr.contains("nowhere"), "{stderr}");
}

#[test]
fn wrong_pipelines_and_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (_, stderr) = expect(3, run(&out, &["stage.kmeans.kk=3"]));
    assert!(stderr.contains("kk"), "{stderr}");
    expect(2, dacpipe(&["runn"]));
    let (_, stderr) = expect(3, dacpipe(&["check", "nowhere.toml"]));
    assert!(stderr.contains("nowhere.toml"), "{stderr}");
    let (_, stderr) = expect(3, run(&out, &["device=\"cuda\""]));
    assert!(stderr.contains("--features cuda"), "{stderr}");
    let label = |device: &str| {
        dacpipe(&["label", "--model", "nowhere", "--input", "nowhere", "--output", "nowhere", "--device", device])
    };
    let (_, stderr) = expect(2, label("gpu"));
    assert!(stderr.contains("\"gpu\" is no device; expected \"auto\", \"cpu\""), "{stderr}");
    let (_, stderr) = expect(3, label("cuda:1"));
    assert!(stderr.contains("device = \"cuda:1\": this build of dacpipe is without CUDA"), "{stderr}");
    let (_, stderr) = expect(3, dacpipe(&["sql", "--device", "cuda", "-c", "SELECT 1"]));
    assert!(stderr.contains("--features cuda"), "{stderr}");
}

#[test]
fn files_that_a_directory_source_leaves_out_are_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("csv")).unwrap();
    for name in ["a.csv", "b.log", "c.dat"] {
        fs::write(dir.path().join("csv").join(name), "time,x\n0.0,1.5\n0.1,2.5\n").unwrap();
    }
    let csv = dir.path().join("csv").display().to_string();
    let (_, stderr) = expect(0, dacpipe(&["inspect", &csv]));
    let said = "2 files are not read, as names do not end with .csv, .tsv, .txt: b.log, …";
    assert_eq!(stderr.matches(said).count(), 1, "{stderr}");
    // A run says so at its end, and keeps it.
    let pipeline = dir.path().join("t.toml");
    let toml = format!(
        "name = \"t\"\n[source]\nkind = \"csv\"\npath = {csv:?}\nchannels = [\"x\"]\n[[stage]]\nkind = \"kmeans\"\nk = 1\n\
         [sink]\npath = {:?}\n",
        dir.path().join("out").display().to_string()
    );
    fs::write(&pipeline, toml).unwrap();
    let (stdout, _) = expect(0, dacpipe(&["run", &pipeline.display().to_string(), "--quiet"]));
    assert!(stdout.contains(&format!("  note      {said}")), "{stdout}");
    let report = fs::read_to_string(dir.path().join("out/run.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let expected = serde_json::json!({"files": 2, "first": "b.log", "links": 0, "endings": [".csv", ".tsv", ".txt"]});
    assert_eq!(report["left_out"], expected);
    let (out, model) = (dir.path().join("new").display().to_string(), report["model_path"].as_str().unwrap());
    let (stdout, _) = expect(0, dacpipe(&["label", "--model", model, "--input", &csv, "--output", &out, "--quiet"]));
    assert!(stdout.contains(&format!("  note      {said}")), "{stdout}");
    // Nothing is left out of a directory of the source's files alone.
    fs::remove_file(dir.path().join("csv/b.log")).unwrap();
    fs::remove_file(dir.path().join("csv/c.dat")).unwrap();
    let (stdout, _) = expect(0, dacpipe(&["run", &pipeline.display().to_string(), "--quiet"]));
    let report = fs::read_to_string(dir.path().join("out/run.json")).unwrap();
    assert!(!stdout.contains("note") && !report.contains("left_out") && !report.contains("notes"), "{stdout}{report}");
    // Recordings of this kind have names that are known: nothing else there is missed.
    let hapt = recordings(dir.path());
    fs::write(hapt.join("notes.md"), "").unwrap();
    let place = set("source.path", &hapt);
    let (_, stderr) = expect(0, dacpipe(&["check", "--data", "pipelines/hapt.toml", "--set", &place]));
    assert!(!stderr.contains("not read"), "{stderr}");
}

/// What a run set aside that committed nothing is found where that of any other is.
#[test]
fn why_a_run_failed_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, out) = (dir.path().join("a.csv"), dir.path().join("out"));
    fs::write(&csv, "x\none\ntwo\n").unwrap();
    let toml = format!(
        "name = \"t\"\non_bad_row = \"quarantine\"\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\"]\n[[stage]]\n\
         kind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\n",
        csv.display().to_string(),
        out.join("t").display().to_string()
    );
    fs::write(dir.path().join("t.toml"), toml).unwrap();
    let run = || {
        let mut run = dacpipe(&["run", "t.toml", "--quiet"]);
        run.current_dir(dir.path());
        run
    };
    let ask = |query: &str| {
        let mut ask = dacpipe(&["sql", "-c", query, "--format", "csv"]);
        ask.current_dir(dir.path());
        ask
    };
    expect(4, run());
    let query =
        "SELECT line, rows, in_table, count(*) AS n FROM t_quarantine GROUP BY line, rows, in_table ORDER BY line";
    let (stdout, _) = expect(0, ask(query));
    assert_eq!(stdout.lines().skip(1).collect::<Vec<_>>(), ["2,1,false,1", "3,1,false,1"]);
    let (_, stderr) = expect(4, ask("SELECT * FROM t"));
    assert!(stderr.contains("t_quarantine"), "{stderr}");
    // Once there is a table, both are there.
    fs::write(&csv, "x\n1\n2\nthree\n").unwrap();
    expect(0, run());
    let (stdout, _) = expect(0, ask(query));
    assert_eq!(stdout.lines().skip(1).collect::<Vec<_>>(), ["2,1,false,1", "3,1,false,1", "4,1,true,1"]);
}

/// A directory of tables that is there and cannot be listed, as one without permission: here, it is no directory.
#[test]
fn a_directory_of_tables_that_cannot_be_read_is_the_disk_s_fault() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("out"), "").unwrap();
    for arguments in [&["sql", "-c", "SELECT count(*) FROM t"][..], &["evaluate", "t", "--labels", "y"]] {
        let mut command = dacpipe(arguments);
        command.current_dir(dir.path());
        let (_, stderr) = expect(7, command);
        assert!(stderr.contains("cannot be read") && stderr.contains("no table"), "{stderr}");
    }
    // Where there is nothing, there is no table.
    fs::remove_file(dir.path().join("out")).unwrap();
    let mut command = dacpipe(&["sql", "-c", "SELECT count(*) FROM t"]);
    command.current_dir(dir.path());
    expect(4, command);
}

/// The name of a table's only model, which is the hash of its content.
fn model(out: &Path) -> String {
    fs::read_dir(out.join("models")).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap()
}

/// The numbers of the learning stages of pipelines/hapt.toml.
const MANIFOLD: usize = 2;
const AUTOENCODER: usize = 3;

/// Starts a run into `out` and kills it when its stage number `stage` has written a checkpoint; false if the stage
/// ended before that.
fn killed(out: &Path, stage: usize, set: &str) -> bool {
    let mut child = run(out, &[set]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let checkpoint = out.join("_run").join(format!("{stage}.checkpoint"));
    while !checkpoint.exists() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        pause();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    checkpoint.exists()
}

/// Kills a run while its stage number `stage` learns, resumes it, and expects the model of an uninterrupted run.
/// Checkpoints are seconds apart, so a fast machine may need more than `epochs`; `key` sets their number.
fn kill_and_resume(stage: usize, key: &str, epochs: usize) {
    for epochs in [epochs, 4 * epochs, 16 * epochs] {
        let dir = tempfile::tempdir().unwrap();
        let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
        let set = format!("{key}={epochs}");
        if !killed(&broken, stage, &set) {
            continue;
        }
        assert!(nothing_committed(&broken));
        let mut again = run(&broken, &[&set]);
        again.arg("--resume");
        expect(0, again);
        expect(0, run(&whole, &[&set]));
        assert_eq!(model(&whole), model(&broken));
        assert!(!broken.join("_run").exists());
        return;
    }
    panic!("ended before it left a checkpoint, however many epochs");
}

/// A run that is killed while it trains and then resumed gives the same result as an uninterrupted one.
#[test]
fn killed_in_the_middle_of_the_training_and_resumed() {
    kill_and_resume(AUTOENCODER, "stage.autoencoder.epochs", 40);
}

#[test]
fn killed_in_the_middle_of_the_layout_and_resumed() {
    kill_and_resume(MANIFOLD, "stage.manifold.epochs", 2000);
}

#[test]
fn labels_of_test_users_reach_nothing_that_learns() {
    let dir = tempfile::tempdir().unwrap();
    let data = recordings(dir.path());
    let source = set("source.path", &data);
    let before = dir.path().join("before");
    expect(0, run(&before, &[&source]));
    // Of the test users' windows, each activity becomes the next.
    let users = fs::read_to_string(data.join("Test/subject_id_test.txt")).unwrap();
    let users: std::collections::BTreeSet<&str> = users.lines().map(str::trim).collect();
    let path = data.join("RawData/labels.txt");
    let mut changed = 0;
    let permuted: String = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| {
            let mut fields: Vec<String> = line.split_whitespace().map(String::from).collect();
            if users.contains(&*fields[1]) {
                fields[2] = (fields[2].parse::<u32>().unwrap() % 12 + 1).to_string();
                changed += 1;
            }
            fields.join(" ") + "\n"
        })
        .collect();
    assert!(changed > 100, "{changed} spans of test users");
    fs::write(&path, permuted).unwrap();
    let after = dir.path().join("after");
    expect(0, run(&after, &[&source]));
    assert_eq!(model(&before), model(&after));
    let bytes = |out: &Path| fs::read(out.join("models").join(model(out)).join("model.safetensors")).unwrap();
    assert!(bytes(&before) == bytes(&after), "another model of the same name");
}

/// The peak memory of a run in bytes, as counted by the kernel.
#[cfg(target_os = "linux")]
fn peak_memory(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let line = fs::read_to_string(&status).ok().and_then(|s| {
            s.lines().find(|l| l.starts_with("VmHWM:")).and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
        });
        peak = peak.max(line.unwrap_or(0) * 1024);
        pause();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn mnist_stays_within_its_memory_limit() {
    let Some(data) = std::env::var_os("DACPIPE_DATA").map(PathBuf::from) else {
        eprintln!("skipped: DACPIPE_DATA names no directory of real data");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut command = dacpipe(&["run", "pipelines/mnist.toml", "--quiet", "--set", "stage.autoencoder.epochs=1"]);
    command
        .args(["--set", "stage.manifold.epochs=2", "--set", "stage.kmeans.n_init=2"])
        .arg("--set")
        .arg(set("sink.path", &dir.path().join("mnist")));
    command.env("MNIST", data.join("mnist.parquet"));
    let peak = peak_memory(command);
    assert!(peak < 320_000_000, "{peak} bytes with memory_limit = \"320 MB\"");
}
