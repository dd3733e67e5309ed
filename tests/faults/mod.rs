//! Streams through a store that fails, delays, cuts short and repeats: each row is in the table once.

mod s3;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use s3::{Fault, S3};

const PIPELINE: &str = r#"
name = "pump"
seed = 7
[source]
kind = "csv"
path = "${IN}"
channels = ["x", "y"]
time = "time_ms"
time_unit = "ms"
keys = ["machine"]
[[stage]]
kind = "window"
length = 20
stride = 10
[[stage]]
kind = "features"
set = "summary"
[[stage]]
kind = "scale"
method = "standard"
[[stage]]
kind = "kmeans"
k = 3
[sink]
path = "${OUT}"
keys = ["machine", "start"]
[stream]
settle = "0 s"
rows = 300
"#;

/// A recording of the machine `name`.
fn recording(name: &str, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = String::from("machine,time_ms,x,y\n");
    for at in 0..400 {
        let loud = if (at / 100) % 2 == 0 { 1.0 } else { 5.0 };
        let (x, y) = (loud * rng.random_range(-1.0..1.0), loud * (f64::from(at) / 5.0).sin());
        text += &format!("{name},{},{x:.4},{y:.4}\n", 20 * at);
    }
    text
}

/// A directory with the pipeline.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pump.toml"), PIPELINE).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        command.args(args).current_dir(self.dir.path()).env_remove("DACPIPE_THREADS");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The rows of the table at `place`, whose store is `s3`: by machine and start, the cluster and the distance.
    fn rows(&self, place: &str, s3: Option<&S3>) -> BTreeMap<String, String> {
        let query = "SELECT machine, start, cluster, distance FROM t";
        let mut command = self.command(&["sql", "--table", &format!("t={place}"), "--format", "csv", "-c", query]);
        if let Some(s3) = s3 {
            s3.serve(&mut command);
        }
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let mut found = BTreeMap::new();
        for line in String::from_utf8(stdout).unwrap().lines().skip(1) {
            let (machine, rest) = line.split_once(',').unwrap();
            let (start, rest) = rest.split_once(',').unwrap();
            let before = found.insert(format!("{machine} {start:0>6}"), rest.to_owned());
            assert!(before.is_none(), "{machine} {start} is there twice");
        }
        found
    }

    /// Checks that the table at `place`, in `s3` or local, has the rows that `model` gives to all `recordings`, once each.
    fn check(&self, place: &str, s3: Option<&S3>, model: &str, recordings: &[(String, String)]) {
        std::fs::create_dir_all(self.dir.path().join("all")).unwrap();
        for (name, text) in recordings {
            std::fs::write(self.dir.path().join("all").join(name), text).unwrap();
        }
        let calm = self.path("calm");
        let set = format!("stream.model={model:?}");
        let mut command = self.command(&["run", "pump.toml", "--once", "--quiet", "--set", &set]);
        command.env("IN", self.path("all")).env("OUT", &calm);
        if let Some(s3) = s3 {
            s3.serve(&mut command);
        }
        let Output { status, stderr, .. } = command.output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let (found, wanted) = (self.rows(place, s3), self.rows(&calm, s3));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        assert!(found == wanted);
    }

    /// [`check`](Self::check) of the table in `s3`.
    fn check_in(&self, s3: &S3, recordings: &[(String, String)]) {
        let manifest = s3.keys("out/models/").into_iter().find(|key| key.ends_with("manifest.json")).unwrap();
        let model = format!("s3://bucket/{}", manifest.trim_end_matches("/manifest.json"));
        self.check("s3://bucket/out", Some(s3), &model, recordings);
    }
}

/// The command that takes what is new in `s3` into the table in it.
fn once(case: &Case, s3: &S3) -> Command {
    let mut command = case.command(&["run", "pump.toml", "--once", "--quiet"]);
    command.env("IN", "s3://bucket/in").env("OUT", "s3://bucket/out");
    s3.serve(&mut command);
    command
}

/// Runs `once` until it ends well; at most so many times that the faults cannot be to blame. Returns its exit codes.
fn until_well(case: &Case, s3: &S3) -> Vec<i32> {
    const TIMES: usize = 20;
    let mut codes = Vec::new();
    while codes.len() < TIMES {
        let Output { status, stderr, .. } = once(case, s3).output().unwrap();
        let code = status.code().unwrap();
        codes.push(code);
        let stderr = String::from_utf8_lossy(&stderr);
        match code {
            0 | 99 => return codes,
            // A store that is away, or a table of which it is not known what became of a commit.
            6 | 7 => assert!(stderr.contains("s3://bucket"), "{stderr}"),
            other => panic!("exit code {other}: {stderr}"),
        }
    }
    panic!("{codes:?}")
}

/// A tenth of all requests goes wrong.
#[test]
fn a_store_that_fails_delays_truncates_and_repeats() {
    let (case, s3) = (Case::new(), S3::start(1));
    let mut recordings = Vec::new();
    let mut codes = Vec::new();
    s3.fail(0.1);
    for seed in 0..6 {
        let name = format!("m{seed}");
        recordings.push((format!("{name}.csv"), recording(&name, seed)));
        s3.put(&format!("in/{name}.csv"), &recordings[seed as usize].1);
        codes.extend(until_well(&case, &s3));
    }
    s3.fail(0.0);
    codes.extend(until_well(&case, &s3));
    assert_eq!(once(&case, &s3).output().unwrap().status.code(), Some(99), "{codes:?}");
    let seen = s3.seen();
    for fault in [Fault::Refused, Fault::Lost, Fault::Short, Fault::Late, Fault::Twice] {
        assert!(seen.get(&fault).is_some_and(|count| *count > 2), "{seen:?}");
    }
    case.check_in(&s3, &recordings);
}

/// Two processes that take what is new at the same time: one of them commits it, or each a part.
#[test]
fn two_writers_in_an_object_store() {
    let (case, s3) = (Case::new(), S3::start(2));
    let mut recordings = vec![("m0.csv".to_owned(), recording("m0", 0))];
    s3.put("in/m0.csv", &recordings[0].1);
    until_well(&case, &s3);
    for seed in 1..5 {
        let name = format!("m{seed}");
        recordings.push((format!("{name}.csv"), recording(&name, seed)));
        s3.put(&format!("in/{name}.csv"), &recordings[seed as usize].1);
        let both: Vec<_> = (0..2).map(|_| once(&case, &s3).spawn().unwrap()).collect();
        for child in both {
            let Output { status, stderr, .. } = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&stderr);
            match status.code() {
                Some(0 | 99) => {}
                Some(6) => assert!(stderr.contains("another process"), "{stderr}"),
                code => panic!("{code:?}: {stderr}"),
            }
        }
        until_well(&case, &s3);
    }
    case.check_in(&s3, &recordings);
}

/// Killed at random moments, with a store that is late at times.
#[test]
fn a_killed_stream_into_an_object_store() {
    let (case, s3) = (Case::new(), S3::start(3));
    let mut recordings = vec![("m0.csv".to_owned(), recording("m0", 0))];
    s3.put("in/m0.csv", &recordings[0].1);
    until_well(&case, &s3);
    let mut rng = StdRng::seed_from_u64(3);
    for seed in 1..9 {
        let name = format!("m{seed}");
        recordings.push((format!("{name}.csv"), recording(&name, seed)));
        s3.put(&format!("in/{name}.csv"), &recordings[seed as usize].1);
        let mut killed = once(&case, &s3).spawn().unwrap();
        pause(rng.random_range(5..250));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    until_well(&case, &s3);
    case.check_in(&s3, &recordings);
}

/// A small file system, as long as it is not dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one of `size`; `None` without the right to.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(path))
    }

    /// Fills it up, but for `kib` KiB.
    fn fill(&self, kib: u64) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut bytes = 0;
        while let Ok(written @ 1..) = filler.write(&[0; 4096]) {
            bytes += written as u64;
        }
        filler.set_len(bytes.saturating_sub(1024 * kib)).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// With less and less room on the disk of the table: a commit is whole or absent, and when there is room again the stream
/// goes on. Another engine sees the same rows.
#[test]
fn a_full_disk_stops_a_stream_and_loses_nothing() {
    let case = Case::new();
    let Some(disk) = Disk::mount(case.dir.path().join("disk"), "6m") else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    let (input, out) = (case.path("in"), case.path("disk/out"));
    std::fs::create_dir_all(&input).unwrap();
    let mut recordings = Vec::new();
    let mut add = |seed: u64| {
        let name = format!("m{seed}");
        recordings.push((format!("{name}.csv"), recording(&name, seed)));
        std::fs::write(format!("{input}/{name}.csv"), &recordings[seed as usize].1).unwrap();
    };
    let run = || {
        let mut command = case.command(&["run", "pump.toml", "--once", "--quiet"]);
        let Output { status, stderr, .. } = command.env("IN", &input).env("OUT", &out).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    };
    add(0);
    assert_eq!(run().0, Some(0));
    let mut full = 0;
    for (at, kib) in [0, 4, 8, 12, 16, 20, 24, 28, 40, 200].into_iter().enumerate() {
        add(at as u64 + 1);
        let before = case.rows(&out, None).len();
        disk.fill(kib);
        let (code, stderr) = run();
        disk.free();
        match code {
            Some(7) => {
                assert!(stderr.contains("disk is full") || stderr.contains("No space left"), "{kib} KiB: {stderr}");
                full += 1;
            }
            Some(0) => {}
            code => panic!("{kib} KiB: {code:?}: {stderr}"),
        }
        let after = case.rows(&out, None).len();
        assert!(
            code == Some(0) || after == before || after > before && stderr.contains("committed"),
            "{kib}: {stderr}"
        );
    }
    assert!(full > 3, "{full}");
    assert!(matches!(run().0, Some(0 | 99)));
    let model = std::fs::read_dir(format!("{out}/models")).unwrap().next().unwrap().unwrap().path();
    case.check(&out, None, &model.display().to_string(), &recordings);
    if let Ok(python) = std::env::var("DACPIPE_PYTHON") {
        let script = "import sys\nfrom deltalake import DeltaTable\nrows = DeltaTable(sys.argv[1]).to_pyarrow_table()\n\
                      keys = set(zip(rows['machine'].to_pylist(), rows['start'].to_pylist()))\nprint(len(rows), len(keys))";
        let Output { stdout, stderr, .. } = Command::new(python).args(["-c", script, &out]).output().unwrap();
        let rows = case.rows(&out, None).len();
        let said = String::from_utf8_lossy(&stdout).trim().to_owned();
        assert_eq!(said, format!("{rows} {rows}"), "{}", String::from_utf8_lossy(&stderr));
    }
}

/// Waits before a child is killed.
#[allow(clippy::disallowed_methods)]
fn pause(milliseconds: u64) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds));
}
