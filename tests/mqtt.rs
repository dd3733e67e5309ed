//! Messages of a broker as a stream: each of their lines in the table once, whatever dies in between. The broker is a real
//! mosquitto; where there is none, the tests say that they skip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dacpipe::pipeline::StreamReport;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::stream::{Case, HEADER, dacpipe, expect, lines, pause, rows};

/// Where Debian has it, which is not on every user's path.
const PLACES: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];

struct Broker {
    dir: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// A broker with these settings beside the usual ones; `None` if there is no mosquitto here.
    fn start(settings: &str) -> Option<Self> {
        let Some(program) = PLACES.iter().map(PathBuf::from).find(|path| path.exists()) else {
            eprintln!("skipped: there is no mosquitto here");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let conf = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser {}\npersistence true\npersistence_location {}/\n\
             autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\n{settings}\n",
            String::from_utf8_lossy(&user).trim(),
            dir.path().display()
        );
        fs::write(dir.path().join("mosquitto.conf"), conf).unwrap();
        let mut broker = Self { dir, program, port, child: None };
        broker.begin();
        Some(broker)
    }

    fn begin(&mut self) {
        let conf = self.dir.path().join("mosquitto.conf");
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(conf).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the broker does not listen");
            pause(20);
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Ends it with `signal`, and waits until it has.
    fn end(&mut self, signal: &str) {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap();
    }

    fn address(&self, topic: &str) -> String {
        format!("mqtt://127.0.0.1:{}/{topic}", self.port)
    }

    /// Publishes messages at QoS 1. The broker has them when this returns.
    fn publish(&self, messages: &[(String, Vec<u8>)]) {
        let mut options = MqttOptions::new(format!("test{}", std::process::id()), "127.0.0.1", self.port);
        options.set_inflight(200).set_max_packet_size(1 << 24, 1 << 24);
        let (client, mut connection) = Client::new(options, 100);
        let messages = messages.to_vec();
        let count = messages.len();
        let sender = std::thread::spawn(move || {
            for (topic, payload) in messages {
                client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
            }
            client
        });
        let acknowledged =
            connection.iter().map(Result::unwrap).filter(|event| matches!(event, Event::Incoming(Packet::PubAck(_))));
        assert_eq!(acknowledged.take(count).count(), count);
        sender.join().unwrap().disconnect().unwrap();
        for event in connection.iter() {
            if event.is_err() {
                break;
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A pipeline that follows a broker, with a model that was learned from a file.
struct Followed {
    case: Case,
    file: String,
    sets: Vec<String>,
}

impl Followed {
    fn new(broker: &Broker, topic: &str, columns: &str) -> Self {
        let case = Case::new();
        let file = case.file("learned").display().to_string();
        case.append("a.csv", &format!("{HEADER}{}", lines(1, 1000).concat()));
        expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
        let model = fs::read_dir(case.out("learned/models")).unwrap().next().unwrap().unwrap().path();
        let sets = vec![
            format!("source.path={:?}", broker.address(topic)),
            format!("stream.model={:?}", model.display().to_string()),
            format!("sink.path={:?}", case.out("out").display().to_string()),
            "stream.settle=\"500 ms\"".into(),
            "stream.every=\"100 ms\"".into(),
            columns.into(),
        ];
        Self { case, file, sets: sets.into_iter().filter(|set| !set.is_empty()).collect() }
    }

    fn command(&self, args: &[&str], more: &[&str]) -> Command {
        let sets = self.sets.iter().map(String::as_str).chain(more.iter().copied()).flat_map(|set| ["--set", set]);
        let args: Vec<&str> =
            ["run", &self.file, "--quiet"].into_iter().chain(args.iter().copied()).chain(sets).collect();
        dacpipe(&args)
    }

    /// Takes what the broker has.
    fn once(&self, more: &[&str]) -> (Option<i32>, Option<StreamReport>, String) {
        let Output { status, stdout, stderr } = self.command(&["--once", "--json"], more).output().unwrap();
        (status.code(), serde_json::from_slice(&stdout).ok(), String::from_utf8_lossy(&stderr).into_owned())
    }

    /// Takes what the broker has until it has nothing more.
    fn drain(&self) {
        for _ in 0..20 {
            let (code, _, stderr) = self.once(&[]);
            match code {
                Some(0) => {}
                Some(99) => return,
                _ => panic!("{code:?} {stderr}"),
            }
        }
        panic!("there is always more");
    }

    /// Checks that the table has the rows of these lines, to the bit, as if they were those of a file that grows.
    fn check(&self, lines: &[String]) {
        fs::write(self.case.input().join("a.csv"), format!("{HEADER}{}", lines.concat())).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let model = self.sets.iter().find(|set| set.starts_with("stream.model")).unwrap();
            self.case.once("file", &["stream.files=growing", model]).await;
            let (expected, found) = (rows(&self.case.out("file")).await, rows(&self.case.out("out")).await);
            assert!(expected.len() > 100);
            assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
            assert!(expected == found);
        });
    }

    fn version(&self) -> usize {
        fs::read_dir(self.case.out("out/_delta_log")).map_or(0, |entries| entries.count())
    }
}

const COLUMNS: &str = r#"source.columns=["machine", "time_ms", "x", "y", "state"]"#;

/// Messages of one to `most` lines.
fn messages(topic: &str, lines: &[String], most: usize, rng: &mut StdRng) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.random_range(1..=most).min(rest.len()));
        let mut text = now.concat();
        // The line break at the end need not be there.
        if rng.random_bool(0.5) {
            text.pop();
        }
        found.push((topic.to_owned(), text.into_bytes()));
        rest = later;
    }
    found
}

#[test]
fn lines_in_messages_give_the_rows_of_the_same_lines_in_a_file() {
    let Some(broker) = Broker::start("max_inflight_messages 0") else { return };
    let followed = Followed::new(&broker, "plant/+/accel", COLUMNS);
    let lines = lines(3, 3000);
    let mut rng = StdRng::seed_from_u64(3);
    // The first look makes the session: from then on the broker keeps what comes.
    let (code, _, stderr) = followed.once(&[]);
    assert_eq!(code, Some(99), "{stderr}");
    for (at, part) in lines.chunks(1000).enumerate() {
        broker.publish(&messages(&format!("plant/{at}/accel"), part, 5, &mut rng));
        broker.publish(&[("plant/other".into(), b"of no interest".to_vec())]);
        let (code, report, stderr) = followed.once(&[]);
        let report = report.unwrap();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(report.commits, 1, "{report:?}");
    }
    assert_eq!(followed.once(&[]).0, Some(99));
    followed.check(&lines);
}

/// The machine is a level of the topic, and the payloads are JSON objects.
#[test]
fn objects_and_topics_give_the_rows_of_the_same_lines_in_a_file() {
    let Some(broker) = Broker::start("") else { return };
    let followed = Followed::new(&broker, "plant/+/accel", "source.format=ndjson");
    let keys = ["source.keys=[\"topic_2\"]", "sink.keys=[\"topic_2\", \"start\"]"];
    let lines = lines(4, 900);
    assert_eq!(followed.once(&keys).0, Some(99));
    let message = |line: &String| {
        let [machine, time, x, y, state] = *line.trim_end().split(',').collect::<Vec<_>>() else { panic!("{line}") };
        let state = if state.is_empty() { "null".into() } else { format!("{state:?}") };
        let y = if y == "bad" { "\"bad\"" } else { y };
        let text = format!("{{\"time_ms\": {time}, \"state\": {state}, \"x\": {x}, \"y\": {y}, \"more\": [1]}}");
        (format!("plant/{machine}/accel"), text.into_bytes())
    };
    broker.publish(&lines.iter().map(message).collect::<Vec<_>>());
    // The broker gives twenty messages before it has acknowledgements of some.
    let (code, report, stderr) = followed.once(&keys);
    assert_eq!(code, Some(0), "{stderr}");
    let report = report.unwrap();
    assert!(report.commits > 1, "{report:?}");
    assert_eq!(followed.once(&keys).0, Some(99));
    let sql = |table: &str, key: &str| {
        let query = format!("SELECT {key}, start, cluster, distance FROM t ORDER BY {key}, start");
        let table = format!("t={}", followed.case.out(table).display());
        expect(0, dacpipe(&["sql", "--format", "csv", "--table", &table, "-c", &query])).0
    };
    fs::write(followed.case.input().join("a.csv"), format!("{HEADER}{}", lines.concat())).unwrap();
    let model = followed.sets.iter().find(|set| set.starts_with("stream.model")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(followed.case.once("file", &["stream.files=growing", model]));
    let (found, expected) = (sql("out", "topic_2"), sql("file", "machine"));
    assert!(found.lines().count() > 50);
    assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), expected.lines().skip(1).collect::<Vec<_>>());
}

/// Killed at random moments and started again: each row once.
#[test]
fn a_killed_stream_of_messages_goes_on_with_each_row_once() {
    let kills = std::env::var("DACPIPE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    let Some(broker) = Broker::start("max_inflight_messages 100") else { return };
    let followed = Followed::new(&broker, "plant/accel", COLUMNS);
    assert_eq!(followed.once(&[]).0, Some(99));
    let lines = lines(9, 6000);
    let mut rng = StdRng::seed_from_u64(8);
    for part in lines.chunks(lines.len().div_ceil(kills)) {
        let mut follow = followed.command(&["--follow"], &["stream.every=\"20 ms\""]).spawn().unwrap();
        for few in part.chunks(part.len().div_ceil(4)) {
            broker.publish(&messages("plant/accel", few, 4, &mut rng));
            pause(rng.random_range(1..120));
        }
        pause(rng.random_range(1..300));
        follow.kill().unwrap();
        follow.wait().unwrap();
    }
    followed.drain();
    followed.check(&lines);
}

/// The broker never hears of the acknowledgements of a commit, as it is killed with the stream: it delivers the messages
/// again, and they are known.
#[test]
fn messages_that_were_committed_and_not_acknowledged_are_not_taken_twice() {
    let Some(mut broker) = Broker::start("max_inflight_messages 0") else { return };
    let followed = Followed::new(&broker, "plant/accel", COLUMNS);
    assert_eq!(followed.once(&[]).0, Some(99));
    let lines = lines(11, 2000);
    let mut rng = StdRng::seed_from_u64(11);
    let mut again = 0;
    for part in lines.chunks(500) {
        let before = followed.version();
        let mut follow = followed.command(&["--follow"], &["stream.every=\"4 s\""]).spawn().unwrap();
        pause(700);
        broker.publish(&messages("plant/accel", part, 4, &mut rng));
        pause(300);
        // It stores its state: messages that are under way do not make it do so by itself.
        broker.signal("-USR1");
        pause(700);
        broker.signal("-STOP");
        let until = Instant::now() + Duration::from_secs(60);
        while followed.version() == before {
            assert!(Instant::now() < until, "no commit");
            pause(10);
        }
        // The commit is there; its acknowledgements are on their way, or not yet.
        pause(rng.random_range(0..100));
        follow.kill().unwrap();
        follow.wait().unwrap();
        broker.end("-KILL");
        broker.begin();
        let mut command = followed.command(&["--once"], &[]);
        let Output { status, stderr, .. } = command.env("DACPIPE_LOG", "debug").output().unwrap();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!([Some(0), Some(99)].contains(&status.code()), "{stderr}");
        again += stderr.matches("was committed before").count();
    }
    assert!(again > 100, "{again} messages came again");
    followed.drain();
    followed.check(&lines);
}

/// A broker that goes away, and comes back with what it stored.
#[test]
fn a_broker_that_restarts_loses_and_doubles_nothing() {
    let Some(mut broker) = Broker::start("max_inflight_messages 100") else { return };
    let followed = Followed::new(&broker, "plant/accel", COLUMNS);
    assert_eq!(followed.once(&[]).0, Some(99));
    let lines = lines(12, 3000);
    let mut rng = StdRng::seed_from_u64(12);
    let follow = followed.command(&["--follow"], &["stream.every=\"30 ms\""]).spawn().unwrap();
    for part in lines.chunks(600) {
        broker.publish(&messages("plant/accel", part, 4, &mut rng));
        pause(rng.random_range(1..150));
        // It stores its state as it ends.
        broker.end("-TERM");
        pause(rng.random_range(1..300));
        broker.begin();
    }
    pause(500);
    Command::new("kill").args(["-TERM", &follow.id().to_string()]).status().unwrap();
    let Output { status, stderr, .. } = follow.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(0), "{said}");
    // Each absence is said once.
    assert!(said.contains("no connection") && said.matches("no connection").count() <= 6, "{said}");
    followed.drain();
    followed.check(&lines);
}

#[test]
fn messages_that_cannot_be_read_are_set_aside_with_their_topics() {
    let Some(broker) = Broker::start("message_size_limit 0") else { return };
    let followed = Followed::new(&broker, "plant/#", COLUMNS);
    assert_eq!(followed.once(&[]).0, Some(99));
    let lines: Vec<String> = lines(13, 2000).into_iter().filter(|line| !line.contains("bad")).collect();
    let mut rng = StdRng::seed_from_u64(13);
    let mut all = messages("plant/accel", &lines, 40, &mut rng);
    // A message that is no text has no lines. A bad line takes the place of a sample, as in a file.
    for (topic, payload) in [
        ("plant/binary", b"\x00\x01\x02".to_vec()),
        ("plant/latin", b"M0,1,2,3,caf\xe9".to_vec()),
        ("plant/empty", Vec::new()),
        ("plant/open", b"M0,1,2,3,\"idle".to_vec()),
        ("plant/long", vec![b'1'; (1 << 20) + 1]),
        ("plant/json", b"{\"x\": 1}".to_vec()),
        ("plant/few", b"M0,1,2".to_vec()),
        ("plant/many", b"M0,1,2,3,idle,6".to_vec()),
        ("plant/text", b"M0,soon,2,3,idle".to_vec()),
    ] {
        let at = rng.random_range(1..=all.len());
        all.insert(at, (topic.to_owned(), payload));
    }
    let in_file = ["plant/accel", "plant/json", "plant/few", "plant/many", "plant/text"];
    let texts = all.iter().filter(|(topic, _)| in_file.contains(&topic.as_str()));
    let lines: Vec<String> = texts
        .flat_map(|(_, payload)| {
            String::from_utf8_lossy(payload).lines().map(|line| format!("{line}\n")).collect::<Vec<_>>()
        })
        .collect();
    broker.publish(&all);
    let (code, report, stderr) = followed.once(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    let report = report.unwrap();
    assert_eq!(report.quarantined_rows, 9, "{report:?}");
    let table = format!("pump={}", followed.case.out("out").display());
    let query = "SELECT file, reason FROM pump_quarantine ORDER BY file";
    let (said, _) = expect(0, dacpipe(&["sql", "--format", "csv", "--table", &table, "-c", query]));
    for topic in ["binary", "latin", "empty", "json", "few", "many", "text", "open", "long"] {
        assert_eq!(said.matches(&format!("plant/{topic}")).count(), 1, "{said}");
    }
    assert!(said.contains("not UTF-8") && said.contains("expected 5") && said.contains("1048577 bytes"), "{said}");
    assert_eq!(followed.once(&[]).0, Some(99));
    followed.check(&lines);
    // Where nothing may be set aside, the stream ends, and the broker keeps the message.
    broker.publish(&[("plant/few".into(), b"M0,1,2".to_vec())]);
    for _ in 0..2 {
        let (code, _, stderr) = followed.once(&["on_bad_row=fail"]);
        assert_eq!(code, Some(4), "{stderr}");
        assert!(stderr.contains("plant/few"), "{stderr}");
    }
}

#[test]
fn messages_that_cannot_be_followed_are_refused() {
    let case = Case::new();
    let file = case.file("out").display().to_string();
    let refused = |code: i32, sets: &[&str], words: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let (_, stderr) = expect(code, dacpipe(&[&["run", &file, "--once"], &sets[..]].concat()));
        assert!(stderr.contains(words), "{stderr}");
    };
    let path = "source.path=\"mqtt://joe:h0sh-h0sh@127.0.0.1:1/plant/+/accel\"";
    refused(3, &[path], "messages have no header");
    refused(3, &["source.path=\"mqtt://127.0.0.1:1\"", COLUMNS], "no topic");
    refused(3, &[path, COLUMNS], "[stream] model");
    refused(3, &[path, "source.columns=[\"machine\", \"time_ms\", \"x\"]"], "is not among `columns`");
    refused(3, &[path, COLUMNS, "source.label=activity"], "columns does not name \"activity\"");
    refused(3, &[path, COLUMNS, "source.skip_lines=1"], "skip_lines");
    refused(3, &[path, COLUMNS, "source.resample=true"], "whole recordings");
    refused(3, &[path, COLUMNS, "stream.qos=2"], "qos");
    refused(3, &[path, "source.format=ndjson", "source.delimiter=\";\""], "about CSV");
    // Without --follow or --once, and with a password that is not shown.
    let (_, stderr) = expect(3, dacpipe(&["run", &file, "--set", path, "--set", COLUMNS]));
    assert!(stderr.contains("--follow or --once") && !stderr.contains("h0sh-h0sh"), "{stderr}");
    // Nobody listens there.
    case.append("a.csv", &format!("{HEADER}{}", lines(1, 900).concat()));
    expect(0, dacpipe(&["run", &file, "--once", "--quiet"]));
    let model = fs::read_dir(case.out("out/models")).unwrap().next().unwrap().unwrap().path();
    let model = format!("stream.model={:?}", model.display().to_string());
    let sink = format!("sink.path={:?}", case.out("other").display().to_string());
    let sets = ["--set", path, "--set", COLUMNS, "--set", &model, "--set", &sink];
    let (_, stderr) = expect(7, dacpipe(&[&["run", &file, "--once"], &sets[..]].concat()));
    assert!(stderr.contains("no connection within") && !stderr.contains("h0sh-h0sh"), "{stderr}");
    assert!(!Path::new(&case.out("other")).join("_delta_log").exists());
}

/// A user without the right password, or without the right to the topic, is told so.
#[test]
fn a_broker_that_refuses_is_named() {
    let Some(mut broker) = Broker::start("") else { return };
    let followed = Followed::new(&broker, "secret/accel", COLUMNS);
    broker.end("-TERM");
    let conf = broker.dir.path().join("mosquitto.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text.replace("allow_anonymous true", "allow_anonymous false")).unwrap();
    broker.begin();
    let (code, _, stderr) = followed.once(&[]);
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("refuses the connection"), "{stderr}");
}
