//! The output of the command: readers that go away, full disks, secrets, and terminal control characters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

/// Moves the cursor, clears the screen, names the window, rings, and turns the text around.
const HOSTILE: &str = "\u{1b}[2J\u{9b}1A\u{1b}]0;mine\u{7}\u{202e}evil\r";

/// A directory with rows and a pipeline of k-means over them that appends to `out/t`.
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.rows("rows.parquet", ["even", HOSTILE]);
        fs::write(case.path("t.toml"), pipeline("rows.parquet")).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// 60 rows in two blobs, each blob with its label.
    fn rows(&self, name: &str, labels: [&str; 2]) {
        let value = |at: f32| {
            let row = move |i: i64| (i % 2) as f32 * 10.0 + ((i * 37) % 11) as f32 / 20.0 + at;
            Arc::new(Float32Array::from_iter_values((0..60).map(row))) as ArrayRef
        };
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from_iter_values(0..60))),
            ("x", value(0.0)),
            ("y", value(3.0)),
            ("kind", Arc::new(StringArray::from_iter_values((0..60).map(|i| labels[i % 2])))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(self.path(name)).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        command.args(args).current_dir(self.0.path());
        for variable in ["DACPIPE_LOG", "DACPIPE_THREADS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command
    }

    fn model(&self) -> String {
        let models = fs::read_dir(self.path("out/t/models")).unwrap();
        models.map(|entry| entry.unwrap().path()).next().unwrap().display().to_string()
    }

    fn count(&self) -> String {
        let query = ["sql", "--format", "csv", "-c", "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM t"];
        ended(0, &mut self.command(&query)).0
    }
}

fn pipeline(source: &str) -> String {
    format!(
        "name = \"t\"\nseed = 1\n[source]\nkind = \"parquet\"\npath = {source:?}\nfeatures = [\"x\", \"y\"]\n\
         keys = [\"id\"]\nlabel = \"kind\"\n[[stage]]\nkind = \"kmeans\"\nk = 2\n\
         [sink]\npath = \"out/t\"\nmode = \"append\"\n"
    )
}

/// Standard output and standard error of a command that must end with this code, and not by a panic.
fn ended(code: i32, command: &mut Command) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{command:?}\nstdout: {stdout}\nstderr: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    (stdout, stderr)
}

/// Every command that prints, as its arguments; those that need a table after the first.
fn commands(case: &Case) -> Vec<Vec<String>> {
    let model = case.model();
    [
        "run t.toml",
        "run t.toml -q --json",
        "run t.toml -q --resume",
        "label --model MODEL --input rows.parquet --output out/n -q",
        "label --model MODEL --input rows.parquet --output out/n --json",
        "check t.toml",
        "check t.toml --json",
        "evaluate t --labels kind",
        "evaluate t --labels kind --format json",
        "report t",
        "table history t",
        "table optimize t",
        "table vacuum t --dry-run",
        "simulate hapt --out simulated --users 2 --minutes 1 --force",
        "sql --format csv -c TABLE",
        "sql --format json -c TABLE",
        "sql --format ndjson -c TABLE",
        "sql --max-rows 0 -c TABLE",
        "--help",
        "help run",
        "--version",
    ]
    .iter()
    .map(|line| line.split(' ').map(|arg| arg.replace("MODEL", &model).replace("TABLE", "SELECT * FROM t")).collect())
    .collect()
}

/// A pipe whose reader is gone.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_is_gone_changes_no_exit_code() {
    let case = Case::new();
    ended(0, &mut case.command(&["run", "t.toml", "-q"]));
    for args in commands(&case) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        ended(0, case.command(&args).stdout(unread()));
        ended(0, case.command(&args).stdout(unread()).stderr(unread()));
        ended(0, case.command(&args).stderr(unread()));
    }
    ended(2, case.command(&["nonsense"]).stderr(unread()));
    ended(3, case.command(&["check", "missing.toml"]).stderr(unread()));
    assert_eq!(case.count(), "n,ids\n60,60\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_exit_7_and_loses_and_doubles_nothing() {
    let case = Case::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (_, said) = ended(7, case.command(&["run", "t.toml", "-q"]).stdout(full()));
    assert!(said.contains("the rows are committed to out/t (version 0)"), "{said}");
    assert!(said.contains("standard output cannot be written") && said.contains("space"), "{said}");
    assert_eq!(case.count(), "n,ids\n60,60\n");
    for args in commands(&case) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (_, said) = ended(7, case.command(&args).stdout(full()));
        assert!(said.contains("standard output cannot be written"), "{args:?}: {said}");
        // A full disk behind stderr, which must not matter.
        ended(0, case.command(&args).stderr(full()));
    }
    assert_eq!(case.count(), "n,ids\n60,60\n", "the same rows again");
}

#[test]
fn reports_for_programs_are_alone_on_stdout() {
    let case = Case::new();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let (stdout, stderr) = ended(0, &mut case.command(&["run", "t.toml", "--json"]));
    assert_eq!(json(&stdout), json(&fs::read_to_string(case.path("out/t/run.json")).unwrap()));
    assert!(stderr.contains("rows      60 learned from"), "{stderr}");
    let (stdout, stderr) = ended(0, &mut case.command(&["run", "t.toml", "--json", "-q", "--resume"]));
    assert_eq!(json(&stdout)["labelled_rows"], 60);
    assert!(stderr.contains("nothing is left to do") && stderr.lines().count() == 1, "{stderr}");
    let label = ["label", "--model", &case.model(), "--input", "rows.parquet", "--output", "out/n", "--json"];
    let (stdout, stderr) = ended(0, &mut case.command(&label));
    assert_eq!((&json(&stdout)["rows"], &json(&stdout)["table"]), (&60.into(), &"out/n".into()));
    assert!(stderr.contains("60 rows labelled"), "{stderr}");
    let (stdout, stderr) = ended(3, &mut case.command(&["check", "t.toml", "no.toml", "--json"]));
    let files = json(&stdout);
    assert_eq!((&files[0]["ok"], &files[1]["ok"]), (&true.into(), &false.into()));
    assert!(files[1]["problems"][0]["message"].as_str().unwrap().contains("cannot read no.toml"), "{stdout}");
    assert!(stderr.contains("1 of 2 pipeline files have problems"), "{stderr}");
}

/// A text as TOML writes it.
fn toml(text: &str) -> String {
    let written = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    format!("\"{}\"", text.chars().map(written).collect::<String>())
}

/// Whether a text has a control character other than line breaks.
fn acts(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || "\u{202e}\u{2066}".contains(c))
}

#[test]
fn no_control_sequence_of_data_or_names_reaches_the_terminal() {
    let case = Case::new();
    let source = format!("{HOSTILE}\n.parquet");
    case.rows(&source, ["a", "b\n\u{1b}[2J"]);
    let missing = format!("{HOSTILE}.toml");
    let here = |args: &[&str], code: Option<i32>| {
        let Output { status, stdout, stderr } = case.command(args).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(!acts(&stdout) && !acts(&stderr), "{args:?}\n{stdout:?}\n{stderr:?}");
        assert!(code.is_none_or(|code| status.code() == Some(code)), "{args:?}: {status}\n{stdout}\n{stderr}");
        stdout
    };
    here(&["run", "t.toml"], Some(0));
    // Places that the file system has and an object store's paths have not may be refused.
    let (source, name) = (toml(&source), format!("out/{HOSTILE}"));
    here(&["run", "t.toml", "--set", &format!("source.path={source}"), "--set", "sink.path=\"out/s\""], None);
    here(&["run", "t.toml", "--set", &format!("sink.path={}", toml(&name))], None);
    here(&["sql", "--table", &format!("h={name}"), "-c", "SELECT count(*) FROM h"], None);
    here(&["table", "history", &name], None);
    let text = here(&["evaluate", "t", "--labels", "kind"], Some(0));
    assert!(text.contains("\\u{1b}[2J"), "{text}");
    for query in ["SELECT * FROM t", "SELECT kind AS \"\u{1b}[2J\" FROM t", "SELECT [kind] FROM t", "SHOW TABLES"] {
        here(&["sql", "-c", query], Some(0));
    }
    here(&["sql", "-c", "SELECT \"\u{1b}[2J\" FROM t"], Some(4));
    here(&["report", "t"], Some(0));
    here(&["evaluate", HOSTILE], Some(6));
    here(&["check", &missing], Some(3));
    here(&["run", &missing], Some(3));
    here(&[HOSTILE], Some(2));
    here(&["run", "t.toml", "--set", &format!("source.path={}", toml(&format!("{HOSTILE}.parquet")))], None);
    here(&["run", "t.toml", "--set", &format!("source.label={}", toml(HOSTILE))], Some(4));
    here(&["label", "--model", HOSTILE, "--input", "rows.parquet", "--output", "out/n"], None);
    // Data stay as they are where programs read them.
    let query = "SELECT kind FROM t WHERE id = 1";
    let (json, _) = ended(0, &mut case.command(&["sql", "--format", "ndjson", "-c", query]));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["kind"], HOSTILE);
    let (csv, _) = ended(0, &mut case.command(&["sql", "--format", "csv", "-c", query]));
    assert!(csv.contains(HOSTILE.trim_end_matches('\r')), "{csv:?}");
}

#[test]
fn redirected_output_has_no_colors_whatever_is_logged() {
    let case = Case::new();
    for args in [&["run", "t.toml"][..], &["nonsense"], &["check", "no.toml"], &["--help"]] {
        let Output { stdout, stderr, .. } = case.command(args).env("DACPIPE_LOG", "debug").output().unwrap();
        assert!(!stdout.contains(&0x1b) && !stderr.contains(&0x1b), "{args:?}");
    }
    let forced = case.command(&["nonsense"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stderr.contains(&0x1b), "colors of our own, where they are asked for");
    let none = case.command(&["nonsense"]).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output().unwrap();
    assert!(!none.stderr.contains(&0x1b));
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Serves one file over HTTP, with range requests for Parquet readers, and refuses paths below `/gone/` with a message
/// that contains the request; returns the port.
#[cfg(feature = "cloud")]
fn serve(content: Vec<u8>) -> u16 {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |mut stream: std::net::TcpStream| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut head, mut range) = (String::new(), None);
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let line = line.trim().to_lowercase();
                if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                    let to: usize = to.parse().map_or(content.len(), |to: usize| (to + 1).min(content.len()));
                    range = Some(match from.parse() {
                        Ok(from) => from..to,
                        Err(_) => content.len() - to..content.len(),
                    });
                }
                if line.is_empty() {
                    break;
                }
            }
            if head.contains("/gone/") {
                let body = if head.starts_with("HEAD") { "" } else { head.as_str() };
                write!(stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", head.len())?;
                continue;
            }
            let body = &content[range.clone().unwrap_or(0..content.len())];
            let (status, place) = match &range {
                Some(range) => (
                    "206 Partial Content",
                    format!("Content-Range: bytes {}-{}/{}\r\n", range.start, range.end - 1, content.len()),
                ),
                None => ("200 OK", String::new()),
            };
            let length = body.len();
            let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"1\"\r\n";
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{date}{place}\r\n")?;
            if !head.starts_with("HEAD") {
                stream.write_all(body)?;
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

/// Secrets in URLs and in variables are in no output and no file of a run, whether it succeeds or fails.
#[cfg(feature = "cloud")]
#[test]
fn secrets_are_in_no_file_and_in_no_output() {
    const PASSWORD: &str = "correct-horse";
    const SIGNATURE: &str = "battery%2Bstaple";
    const TOKEN: &str = "tr0ub4dor-and-3";
    let secrets = [PASSWORD, SIGNATURE, "battery+staple", TOKEN];
    let case = Case::new();
    let served = fs::read(case.path("rows.parquet")).unwrap();
    let port = serve(served);
    let url = |dir: &str| {
        format!("http://joe:{PASSWORD}@127.0.0.1:{port}/{dir}${{STORE_TOKEN}}/rows.parquet?v=1&sig={SIGNATURE}")
    };
    fs::write(case.path("s.toml"), pipeline(&url(""))).unwrap();
    fs::write(case.path("wrong.toml"), pipeline(&url("")) + "[nonsense]\n").unwrap();
    fs::write(case.path("gone.toml"), pipeline(&url("gone/"))).unwrap();
    let typed: Vec<PathBuf> = ["s.toml", "wrong.toml", "gone.toml"].map(|name| case.path(name)).to_vec();
    let clean = |what: &str, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {what}: {text}");
        }
    };
    let mut seen = Vec::new();
    let mut ask = |args: &[&str]| {
        let mut command = case.command(args);
        command.env("STORE_TOKEN", TOKEN).env("ALLOW_HTTP", "true").env("DACPIPE_LOG", "debug");
        let Output { status, stdout, stderr } = command.output().unwrap();
        clean(&format!("stdout of {args:?}"), &stdout);
        clean(&format!("stderr of {args:?}"), &stderr);
        seen.push(status.code());
        String::from_utf8_lossy(&stdout).into_owned()
    };
    ask(&["check", "s.toml"]);
    ask(&["check", "wrong.toml"]);
    let summary = ask(&["run", "s.toml"]);
    ask(&["run", "s.toml", "--json"]);
    ask(&["run", "s.toml", "--resume"]);
    ask(&["report", "t"]);
    ask(&["table", "history", "t"]);
    ask(&["sql", "-c", "SELECT * FROM t"]);
    let other = format!("http://joe:{PASSWORD}@127.0.0.1:{port}/gone/x?sig={SIGNATURE}&token={TOKEN}");
    ask(&["run", "gone.toml", "--set", "sink.path=\"out/gone\""]);
    ask(&["run", "s.toml", "--set", &format!("source.path={other:?}")]);
    ask(&["run", "s.toml", "--set", &format!("source.path=https://joe:{PASSWORD}/@[:/{TOKEN}@x")]);
    ask(&["label", "--model", &other, "--input", "rows.parquet", "--output", "out/n"]);
    ask(&["evaluate", &other]);
    ask(&["sql", "--table", &format!("x={other}"), "-c", "SELECT 1"]);
    ask(&["report", &other]);
    assert_eq!(seen[..8], [0, 3, 0, 0, 0, 0, 0, 0].map(Some), "{summary}");
    assert!(seen[8..].iter().all(|code| code.is_some_and(|code| code > 1 && code != 101)), "{seen:?}");
    assert!(summary.contains(&format!("http://***@127.0.0.1:{port}/***/rows.parquet?v=1&sig=***")), "{summary}");

    let mut left = Vec::new();
    files(case.0.path(), &mut left);
    left.retain(|path| !typed.contains(path));
    assert!(left.iter().any(|path| path.ends_with("out/t/run.json")) && left.len() > 8, "{left:?}");
    for path in left {
        clean(&path.display().to_string(), &fs::read(&path).unwrap());
        clean("a path", path.display().to_string().as_bytes());
    }
}

#[test]
fn exit_codes_are_documented_where_people_look() {
    let case = Case::new();
    let (help, _) = ended(0, &mut case.command(&["--help"]));
    let (same, _) = ended(0, &mut case.command(&["help"]));
    assert_eq!(help, same);
    use dacpipe::Kind;
    let kinds =
        [Kind::Config, Kind::Input, Kind::Model, Kind::Table, Kind::Io, Kind::Compute, Kind::Internal, Kind::Cancelled];
    let codes = help.split("Exit codes:").nth(1).unwrap();
    let words: Vec<&str> = codes.split_whitespace().collect();
    for code in kinds.iter().map(|kind| kind.exit_code()).chain([0, 2]) {
        assert!(words.contains(&code.to_string().as_str()), "{code} in {codes}");
    }
    // One failure of each kind that can be made from outside.
    for (code, args) in [
        (2, &["run"][..]),
        (3, &["check", "no.toml"]),
        (3, &["run", "t.toml", "--set", "stage.kmeans.k=0"]),
        (4, &["run", "t.toml", "--set", "source.path=no.parquet"]),
        (4, &["sql", "-c", "SELECT nope"]),
        (5, &["label", "--model", "no", "--input", "rows.parquet", "--output", "out/n"]),
        (6, &["evaluate", "no"]),
        (6, &["report", "no"]),
        (7, &["sql", "--file", "no.sql"]),
    ] {
        let (_, said) = ended(code, &mut case.command(args));
        for debris in ["ParserError", "SQL error", "Error during planning", "Some(", "Error {"] {
            assert!(!said.contains(debris), "{args:?}: {said}");
        }
    }
}

#[test]
fn what_is_missing_is_said_with_the_place_that_was_looked_at() {
    let case = Case::new();
    let here = case.0.path().canonicalize().unwrap();
    for (code, args, missing) in [
        (3, &["run", "no.toml"][..], "no.toml"),
        (4, &["run", "t.toml", "--set", "source.path=no.parquet"], "no.parquet"),
        (5, &["label", "--model", "no", "--input", "rows.parquet", "--output", "out/n"], "no"),
        (6, &["report", "no"], "no"),
        (6, &["table", "history", "a/no"], "a/no"),
        (6, &["sql", "--table", "x=no", "-c", "SELECT 1"], "no"),
        (7, &["sql", "--file", "no.sql"], "no.sql"),
    ] {
        let (_, said) = ended(code, &mut case.command(args));
        let place = here.join(missing).display().to_string();
        assert!(said.contains(&place), "{args:?}: {said}");
    }
    ended(0, &mut case.command(&["run", "t.toml", "-q"]));
    let (_, said) = ended(6, &mut case.command(&["report", "nope"]));
    assert!(said.contains("holds the tables t"), "{said}");
}

#[test]
fn a_damaged_file_beside_a_table_costs_the_report_its_section_alone() {
    let case = Case::new();
    ended(0, &mut case.command(&["run", "t.toml", "-q"]));
    let mut beside = Vec::new();
    files(&case.path("out/t"), &mut beside);
    let data = case.path("out/t/data");
    beside.retain(|path| path.extension().is_some_and(|e| e == "parquet") && !path.starts_with(&data));
    // The report does not show what became of clusters.
    beside.retain(|path| !path.ends_with("lineage.parquet"));
    beside.push(case.path("out/t/run.json"));
    assert!(beside.len() > 1, "{beside:?}");
    for path in beside {
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        ended(0, &mut case.command(&["report", "t"]));
        let page = fs::read_to_string(case.path("out/t/report/index.html")).unwrap();
        let said = page.contains("cannot be read") || page.contains("is left out");
        assert!(said && page.contains("<svg"), "{}", path.display());
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_report_overwrites_nothing_that_is_not_a_report() {
    let case = Case::new();
    ended(0, &mut case.command(&["run", "t.toml", "-q"]));
    for _ in 0..2 {
        ended(0, &mut case.command(&["report", "t", "--out", "pages"]));
    }
    fs::create_dir(case.path("site")).unwrap();
    for name in ["index.html", "sizes.svg", "autoencoder-mine.svg"] {
        let place = case.path("site").join(name);
        fs::write(&place, "<html>mine").unwrap();
        let code = if name.starts_with("auto") { 0 } else { 3 };
        let (_, said) = ended(code, &mut case.command(&["report", "t", "--out", "site"]));
        assert!(code == 0 || said.contains(&format!("site/{name} is there and not by dacpipe")), "{said}");
        assert_eq!(fs::read_to_string(&place).unwrap(), "<html>mine");
        fs::remove_file(place).unwrap();
    }
    #[cfg(unix)]
    {
        let precious = case.path("precious");
        fs::write(&precious, "mine").unwrap();
        fs::create_dir(case.path("linked")).unwrap();
        std::os::unix::fs::symlink(&precious, case.path("linked/index.html")).unwrap();
        ended(3, &mut case.command(&["report", "t", "--out", "linked"]));
        fs::create_dir(case.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(case.path("elsewhere"), case.path("out/t/report")).unwrap();
        let (_, said) = ended(3, &mut case.command(&["report", "t"]));
        assert!(said.contains("report is a link"), "{said}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert_eq!(fs::read_dir(case.path("elsewhere")).unwrap().count(), 0);
    }
}
