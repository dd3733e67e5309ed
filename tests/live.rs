//! What a stream tells of itself while it runs: /metrics, /health, and `dacpipe top`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dacpipe::live::exposition::{Exposition, parse};

const PIPELINE: &str = r#"
name = "vectors"
on_bad_row = "quarantine"
[source]
kind = "csv"
path = "IN"
channels = ["x", "y"]
time = "time"
keys = ["machine"]
[[stage]]
kind = "window"
length = 4
stride = 4
within = "recordings"
[[stage]]
kind = "features"
set = "summary"
bands = 1
[[stage]]
kind = "kmeans"
k = 2
[sink]
path = "OUT"
keys = ["machine", "start"]
[stream]
settle = "0 s"
every = "50 ms"
[drift]
rows = 50
"#;

struct Case {
    dir: tempfile::TempDir,
    file: String,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let place = |name: &str| dir.path().join(name).display().to_string();
        let path = dir.path().join("p.toml");
        fs::write(&path, PIPELINE.replace("IN", &place("in")).replace("OUT", &place("out"))).unwrap();
        Self { file: path.display().to_string(), dir }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A recording of 100 windows and one bad line, now.
    fn record(&self, name: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let mut text = "machine,time,x,y\n".to_owned();
        for line in 0..400 {
            let time = now - 40.0 + f64::from(line) * 0.1;
            let level = if (line / 4) % 3 == 0 { 5 } else { 0 };
            text += &format!("{name},{time:.1},{},{}\n", level + line % 7, line % 5);
        }
        text += &format!("{name},{:.1},none,3\n", now);
        // It appears as a whole.
        fs::write(self.out("half"), text).unwrap();
        fs::rename(self.out("half"), self.out("in").join(format!("{name}.csv"))).unwrap();
    }
}

fn dacpipe(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("DACPIPE_THREADS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits before something is looked at again.
#[allow(clippy::disallowed_methods)]
fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// A stream that runs, and where it serves.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn begin(case: &Case) -> Self {
        let mut child = dacpipe(&["run", &case.file, "--follow", "--metrics", "127.0.0.1:0"]).spawn().unwrap();
        let mut said = String::new();
        let mut errors = child.stderr.take().unwrap();
        let mut byte = [0];
        let address = loop {
            assert!(errors.read(&mut byte).unwrap() == 1, "it ended: {said}");
            said.push(char::from(byte[0]));
            if let Some((_, behind)) = said.split_once("http://")
                && let Some((address, _)) = behind.split_once("/metrics")
            {
                break address.parse().unwrap();
            }
        };
        // What else it says is read, so that it does not wait.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, address }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let page = self.ask(&format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n"));
        let (head, body) = page.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{page:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn ask(&self, request: &str) -> String {
        let mut client = TcpStream::connect(self.address).unwrap();
        // The server may have answered before all was written.
        let _ = client.write_all(request.as_bytes());
        let mut page = Vec::new();
        let _ = client.read_to_end(&mut page);
        String::from_utf8(page).unwrap()
    }

    fn metrics(&self) -> Exposition {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200, "{page}");
        parse(&page).unwrap_or_else(|e| panic!("{e}\n{page}"))
    }

    /// The figures, once `enough` says so.
    fn until(&self, enough: impl Fn(&Exposition) -> bool) -> Exposition {
        for _ in 0..1200 {
            let found = self.metrics();
            if enough(&found) {
                return found;
            }
            pause(50);
        }
        panic!("it did not come: {}", self.get("/metrics").1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn commits(figures: &Exposition) -> f64 {
    figures.value("dacpipe_commits_total", &[]).unwrap()
}

#[test]
fn a_stream_shows_what_it_does() {
    let case = Case::new();
    case.record("m0");
    let stream = Running::begin(&case);
    stream.until(|figures| commits(figures) == 1.0);
    case.record("m1");
    let figures = stream.until(|figures| commits(figures) == 2.0);
    for (name, labels, value) in [
        ("dacpipe_rows_labelled_total", &[][..], 200.0),
        ("dacpipe_rows_skipped_total", &[], 0.0),
        ("dacpipe_table_version", &[], 1.0),
        ("dacpipe_batch_seconds_count", &[], 2.0),
        ("dacpipe_commit_seconds_count", &[], 2.0),
        ("dacpipe_lag_rows", &[], 0.0),
        ("dacpipe_drift_judgements_total", &[], 2.0),
        ("dacpipe_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("pipeline", "vectors")], 1.0),
    ] {
        assert_eq!(figures.value(name, labels), Some(value), "{name}");
    }
    assert!(figures.value("dacpipe_rows_read_total", &[]).unwrap() >= 800.0);
    let sum = |name, label| figures.by(name, label).map(|(_, value)| value).sum::<f64>();
    assert_eq!(sum("dacpipe_cluster_rows_total", "cluster"), 200.0);
    assert_eq!(sum("dacpipe_rows_set_aside_total", "reason"), 2.0);
    let lag = figures.value("dacpipe_lag_seconds", &[]).unwrap();
    assert!((0.0..60.0).contains(&lag), "the newest row is a moment old, and not {lag} s");
    // It looks for rows again and again, and is well.
    let (status, health) = stream.get("/health");
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, health["status"].as_str(), health["rows"].as_u64()), (200, Some("ok"), Some(200)));

    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: it\r\n\r\n", "404"),
        ("GET /metrics/more HTTP/1.1\r\nHost: it\r\n\r\n", "404"),
        ("GET /../metrics HTTP/1.1\r\nHost: it\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\n\r\n", "405"),
        ("DELETE /health HTTP/1.1\r\nHost: it\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let page = stream.ask(request);
        assert!(page.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {page}");
    }
    let head = stream.ask("HEAD /metrics HTTP/1.1\r\nHost: it\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n") && head.contains("openmetrics-text"),
        "{head}"
    );

    // The page of a terminal, as text, since there is none here.
    let address = stream.address.to_string();
    let Output { status, stdout, stderr } = dacpipe(&["top", &address]).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let page = String::from_utf8(stdout).unwrap();
    assert!(page.starts_with("vectors at 127.0.0.1:") && page.contains("200 labelled of"), "{page}");
}

/// Clients that send nothing, send without end, or do not read, hold neither the stream nor other clients up.
#[test]
fn hostile_clients_hold_nothing_up() {
    let case = Case::new();
    case.record("m0");
    let stream = Running::begin(&case);
    stream.until(|figures| commits(figures) == 1.0);
    // More than are let in; they send half a request, and stay.
    let mut silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(stream.address).unwrap()).collect();
    for client in &mut silent {
        let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
    }
    case.record("m1");
    // The stream has committed meanwhile; its page is there once the silent ones were sent away.
    let log = case.out("out/_delta_log/00000000000000000001.json");
    for _ in 0..1200 {
        if log.exists() {
            break;
        }
        pause(50);
    }
    assert!(log.exists(), "the stream waits for its clients");
    let mut waited = 0;
    let page = loop {
        let page = stream.ask("GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n");
        if page.starts_with("HTTP/1.1 200") {
            break page;
        }
        waited += 1;
        assert!(waited < 1200, "silent clients are not sent away: {page:?}");
        pause(50);
    };
    assert!(page.contains("dacpipe_commits_total 2"), "{page}");
    drop(silent);
    // A head without end.
    let endless = format!("GET /metrics HTTP/1.1\r\nHost: it\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let page = stream.ask(&endless);
    assert!(page.is_empty() || page.starts_with("HTTP/1.1 431"), "{page}");
    let many: String = (0..5000).map(|i| format!("X{i}: y\r\n")).collect();
    let page = stream.ask(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n"));
    assert!(page.is_empty() || page.starts_with("HTTP/1.1 4"), "{page}");
    // One that asks and does not read.
    let mut deaf = TcpStream::connect(stream.address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n").unwrap();
    case.record("m2");
    stream.until(|figures| commits(figures) == 3.0);
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_read() {
    let case = Case::new();
    case.record("m0");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (address, why) in [(address.as_str(), "in use"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1:99999", "99999")] {
        let Output { status, stderr, .. } =
            dacpipe(&["run", &case.file, "--follow", "--metrics", address]).output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(3), "{said}");
        assert!(said.contains("expected a free port of this machine") && said.contains(why), "{said}");
    }
    let set = format!("stream.metrics={address:?}");
    let Output { status, .. } = dacpipe(&["run", &case.file, "--follow", "--set", &set]).output().unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(!case.out("out").exists(), "nothing was learned");
    // Who takes what is there once serves nothing.
    let Output { status, .. } = dacpipe(&["run", &case.file, "--once", "--set", &set]).output().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn top_says_why_it_shows_nothing() {
    for (url, code, words) in [
        ("127.0.0.1:1", 7, "127.0.0.1:1: nobody serves there"),
        ("https://127.0.0.1:9464", 3, "of https"),
        ("127.0.0.1", 3, "has no port"),
        ("http://a b:1/", 3, "has spaces"),
    ] {
        let Output { status, stderr, .. } = dacpipe(&["top", url]).output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
    // Something else than a stream.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    for (answer, words) in [
        ("HTTP/1.0 404 Not Found\r\n\r\n", "status 404"),
        ("HTTP/1.0 200 OK\r\n\r\n<html>", "not OpenMetrics"),
        ("SSH-2.0\r\n", "does not speak HTTP"),
    ] {
        let top = dacpipe(&["top", &address]).spawn().unwrap();
        let (mut client, _) = other.accept().unwrap();
        let mut request = [0; 1024];
        let _ = client.read(&mut request).unwrap();
        client.write_all(answer.as_bytes()).unwrap();
        drop(client);
        let Output { status, stderr, .. } = top.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.code() == Some(7) && said.contains(words), "{answer:?}: {said}");
    }
}
