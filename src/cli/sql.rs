//! `dacpipe sql`: queries over the tables of runs, from the command line, a file, standard input, or a prompt.
//!
//! Sessions only read: statements that define or change tables (`CREATE`, `DROP`, `INSERT`, `COPY`) are refused, `SET`,
//! `SHOW`, `EXPLAIN` and `DESCRIBE` work.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use crate::device::DeviceChoice;
use crate::error::{Error, Kind, Result};
use crate::sql::{At, Options, Registered, Registration, register, session_config};
use crate::store::looked_at;
use crate::store::open_regular;
use crate::terminal::{self, Output, shown_name};

use super::output::{Format, write_results};
use super::sql_error::explain;
use super::{prompt, statements};

/// The directory of tables that the examples use.
pub(super) const OUT: &str = "out";

const EXAMPLES: &str = "\
Examples:
  dacpipe sql -c 'SELECT cluster, count(*) FROM hapt GROUP BY cluster'
  dacpipe sql -c 'SELECT ari(cluster, activity) FROM hapt' --format csv
  dacpipe sql -c \"SELECT * FROM cluster_profile('hapt') WHERE rank <= 3\"
  dacpipe sql --table old=backup/hapt --table rows=rows.parquet
  dacpipe sql --version 0 -c 'SELECT count(*) FROM hapt'
  dacpipe sql --table new=rows.parquet -c \"SELECT (dac_assign('3f1c', x)).cluster FROM new\"
Column names that are also words of SQL, or have capitals, need double quotes: SELECT \"user\" FROM hapt";

/// Query the tables of runs with SQL
///
/// Every table below --dir is registered under its name, with NAME_clusters and NAME_lineage (what became of each
/// cluster) beside it, NAME_latest where it has keys (each row once, by the model that labelled it last) and
/// NAME_quarantine where rows were set aside. If two tables have the same name, the later one gets the name of its
/// directory. Functions of (model, features): dac_embed, dac_assign, dac_reconstruct, dac_reconstruction_error;
/// aggregates: ari(a, b), nmi(a, b), clustering_accuracy(a, b); tables: cluster_profile('NAME') is what sets each cluster
/// apart, table_at('NAME', 3) or table_at('NAME', '2026-03-01T12:00:00Z') an earlier version. Without -c and -f,
/// statements are read from the prompt or from standard input.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SqlArgs {
    /// Run these statements and exit; may be given several times
    #[arg(short, long, value_name = "SQL")]
    pub command: Vec<String>,

    /// Run the statements of this file and exit
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Register a table's directory or URL, or a Parquet or CSV file, under a name; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_table)]
    pub table: Vec<(String, String)>,

    /// The tables as they were at this version
    #[arg(long, value_name = "N", conflicts_with = "as_of")]
    pub version: Option<u64>,

    /// The tables as they were at this time, for example 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub as_of: Option<SystemTime>,

    /// The directory in which the tables of runs are found
    #[arg(long, value_name = "DIR", default_value = OUT)]
    pub dir: PathBuf,

    /// Where models are applied: auto, cpu, cuda, or cuda:N for the GPU of that number; auto is the first GPU where there is
    /// one and dacpipe is built for it
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Rows that --format table shows of a result; 0 shows all
    #[arg(long, value_name = "ROWS", default_value_t = 200)]
    pub max_rows: usize,
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|e| format!("{e}; expected a time in UTC such as 2026-03-01T12:00:00Z or 2026-03-01 12:00:00"))
}

fn parse_table(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.trim().is_empty() && !path.is_empty() => Ok((name.trim().into(), path.into())),
        _ => Err("expected NAME=PATH, for example hapt=out/hapt".into()),
    }
}

/// Runs the command, writing to standard output.
///
/// # Errors
/// Kind `Input` for SQL that cannot be read or planned, with line and column; otherwise errors of opening the tables
/// and running the query.
pub async fn run(args: SqlArgs) -> Result<()> {
    let mut out = terminal::stdout();
    let session = Session::open(&args).await?;
    let mut texts = args.command.clone();
    if let Some(path) = &args.file {
        texts.push(read_file(path)?);
    }
    if texts.is_empty() {
        if io::stdin().is_terminal() {
            return prompt::run(&session, &mut out).await;
        }
        texts.push(statements::read(io::stdin(), "standard input")?);
    }
    for text in texts {
        session.run(&text, &mut out).await?;
        if out.closed() {
            break;
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<String> {
    let file = open_regular(path);
    let file = file.map_err(|e| Error::io(format!("cannot read {}", looked_at(path))).with_source(e))?;
    statements::read(file, &shown_name(path))
}

/// A session over the registered tables.
pub(crate) struct Session {
    ctx: SessionContext,
    /// What was registered.
    pub(crate) tables: Vec<Registered>,
    /// The tables that were found but cannot be opened, and why.
    left_out: Vec<(String, Error)>,
    /// Why the directory of tables cannot be read, if it is there.
    unread: Option<String>,
    format: Format,
    max_rows: usize,
}

impl Session {
    /// Registers the tables of `args`, and those that are found below its directory.
    pub(crate) async fn open(args: &SqlArgs) -> Result<Self> {
        let mut config = session_config().with_information_schema(true);
        config.options_mut().sql_parser.collect_spans = true;
        let ctx = SessionContext::new_with_config(config);
        let mut options = Options::default().at(match (args.version, args.as_of) {
            (Some(version), _) => At::Version(version),
            (_, Some(time)) => At::Time(time),
            _ => At::Now,
        });
        options = options.device(args.device.open(1)?);
        for (at, (name, path)) in args.table.iter().enumerate() {
            if let Some((_, other)) = args.table[..at].iter().find(|(before, _)| before == name) {
                return Err(Error::config(format!("--table {name}={path}: {name} is the table in {other} already")));
            }
            options = options.table(name, path);
        }
        let mut names = Names::default();
        args.table.iter().for_each(|(name, path)| names.take(name, path));
        let mut unread = None;
        if let Err(e) = std::fs::read_dir(&args.dir) {
            let dir = looked_at(&args.dir);
            match e.kind() {
                io::ErrorKind::NotFound if args.dir == Path::new(OUT) => {}
                io::ErrorKind::NotFound => {
                    terminal::tell(&format!("warning: there is no directory {dir}, and so no table of it"));
                }
                _ => {
                    terminal::tell(&format!("warning: cannot read the directory {dir}, and so no table of it: {e}"));
                    unread = Some(format!("the directory {dir} cannot be read: {e}"));
                }
            }
        }
        for (name, path) in found_tables(&args.dir).into_iter().chain(failed_tables(&args.dir)) {
            // Names given with --table take precedence.
            if args.table.iter().all(|(given, _)| *given != name) {
                let place = path.to_string_lossy();
                let own = path.file_name().unwrap_or_default().to_string_lossy();
                let (name, note) = names.choose(&name, &own, &place);
                note.iter().for_each(|note| terminal::tell(&format!("note: {note}")));
                options = options.table_if_sound(&name, &place);
            }
        }
        let Registration { tables, left_out } = register(&ctx, options).await?;
        for (name, e) in &left_out {
            terminal::tell(&format!("warning: table {name} is left out: {e}"));
        }
        Ok(Self { ctx, tables, left_out, unread, format: args.format, max_rows: args.max_rows })
    }

    /// The names of the session's tables in SQL.
    fn names(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }

    /// Runs all statements of `text`, one after the other.
    pub(crate) async fn run<W: Write>(&self, text: &str, out: &mut Output<W>) -> Result<()> {
        // Some editors begin a file with a byte-order mark.
        let text = text.trim_start_matches('\u{feff}');
        let tables = self.names();
        for statement in statements::parse(text, &tables)? {
            let plan = self.ctx.state().statement_to_plan(statement).await;
            let explained = |e| self.of_left_out(explain(e, text, &tables));
            let plan = plan.map_err(explained)?;
            self.run_plan(plan, out).await.map_err(explained)??;
            if out.closed() {
                break;
            }
        }
        Ok(())
    }

    /// The error; if it is about a table that was left out, or may be in a directory that cannot be read, why.
    fn of_left_out(&self, e: Error) -> Error {
        if let Some(why) = &self.unread
            && e.kind() == Kind::Input
            && ["no table \"", "no labelled table \""].iter().any(|said| e.message().contains(said))
        {
            return Error::io(format!("{e}; {why}"));
        }
        let misses = |name: &str| {
            let tables = Names::SUFFIXES.iter().map(|suffix| format!("no table {:?}", format!("{name}{suffix}")));
            let mut said = tables.chain([format!("no labelled table {name:?}")]);
            said.any(|said| e.message().contains(&said))
        };
        match self.left_out.iter().find(|(name, _)| e.kind() == Kind::Input && misses(name)) {
            Some((name, why)) => {
                let message = format!("table {name} cannot be opened: {why}");
                if why.kind() == Kind::Io { Error::io(message) } else { Error::table(message) }
            }
            None => e,
        }
    }

    /// The outer result is DataFusion's, whose error may have a place in the text; the inner one is about the output.
    async fn run_plan<W: Write>(&self, plan: LogicalPlan, out: &mut Output<W>) -> Result<Result<()>, DataFusionError> {
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
        if let Err(e) = options.verify_plan(&plan) {
            let message = format!("dacpipe sql only reads: {}; tables are written by dacpipe run", e.message());
            return Ok(Err(Error::input(message)));
        }
        let result = self.ctx.execute_logical_plan(plan).await?;
        if result.schema().fields().is_empty() {
            return Ok(Ok(()));
        }
        let stream = result.execute_stream().await?;
        Ok(match write_results(stream, self.format, self.max_rows, out).await {
            Ok(true) => {
                terminal::tell(&format!("the first {} rows; --max-rows 0 shows all", self.max_rows));
                Ok(())
            }
            other => other.map(|_| ()),
        })
    }
}

/// The tables below `dir`: every directory whose log has an entry, under the name in its run.json, or else its own. If
/// several have the same name, the one whose directory has that name comes first.
pub(crate) fn found_tables(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let tables = entries.flatten().map(|entry| entry.path()).filter(|path| has_commit(path));
    let mut found: Vec<_> = tables.filter_map(|path| Some((table_name(&path)?, path))).collect();
    found.sort_by_cached_key(|(name, path)| (name.clone(), !path.ends_with(name), path.clone()));
    found
}

/// The directories below `dir` in which runs set rows aside and committed nothing, under their own names.
fn failed_tables(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    // An older dacpipe wrote files and no log.
    let is_rows = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "parquet");
    let has_rows = |path: &PathBuf| {
        let quarantine = path.join("quarantine");
        has_commit(&quarantine) || std::fs::read_dir(quarantine).is_ok_and(|files| files.flatten().any(is_rows))
    };
    let set_aside = |path: &PathBuf| !has_commit(path) && has_rows(path);
    let tables = entries.flatten().map(|entry| entry.path()).filter(set_aside);
    let mut found: Vec<_> = tables.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path))).collect();
    found.sort();
    found
}

/// Whether there is a version in the log: a run that failed, or has not committed yet, leaves a log without one. A log
/// that cannot be read counts as having one, so that opening it reports the error.
fn has_commit(table: &Path) -> bool {
    let log = match std::fs::read_dir(table.join("_delta_log")) {
        Ok(log) => log,
        Err(e) => return e.kind() == io::ErrorKind::PermissionDenied,
    };
    log.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
}

/// The names of tables, and the places of these tables.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// The suffixes of the tables that are registered beside a table.
    const SUFFIXES: [&str; 5] = ["", "_clusters", "_lineage", "_latest", "_quarantine"];

    fn take(&mut self, name: &str, place: &str) {
        for suffix in Self::SUFFIXES {
            self.0.entry(format!("{name}{suffix}")).or_insert_with(|| place.to_owned());
        }
    }

    /// The place of a table that already has `name`, or one of the names with a suffix.
    fn holder(&self, name: &str) -> Option<&str> {
        Self::SUFFIXES.iter().find_map(|suffix| self.0.get(&format!("{name}{suffix}"))).map(String::as_str)
    }

    /// Chooses a name for the table at `place`: `name`, or its directory's name `own`, or `own` with a number.
    /// Also gives the reason if it is not the first.
    fn choose(&mut self, name: &str, own: &str, place: &str) -> (String, Option<String>) {
        let numbered = (2..).map(|number| format!("{own}_{number}"));
        let mut names = [name.to_owned(), own.to_owned()].into_iter().chain(numbered);
        let chosen = names.find(|name| self.holder(name).is_none()).expect("numbers do not end");
        let note = self
            .holder(name)
            .map(|holder| format!("the table in {place} is registered as {chosen}: {name} is the table in {holder}"));
        self.take(&chosen, place);
        (chosen, note)
    }
}

fn table_name(path: &Path) -> Option<String> {
    let report = std::fs::read_to_string(path.join("run.json")).ok();
    let report = report.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    match report.as_ref().and_then(|report| report["name"].as_str()) {
        Some(name) => Some(name.to_owned()),
        None => path.file_name()?.to_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: SqlArgs,
    }

    fn args(arguments: &[&str]) -> SqlArgs {
        let dir = ["sql", "--dir", "/nonexistent"];
        Command::try_parse_from(dir.iter().chain(arguments)).unwrap().args
    }

    async fn ask(arguments: &[&str], sql: &str) -> Result<String> {
        let session = Session::open(&args(arguments)).await?;
        let mut text = Vec::new();
        session.run(sql, &mut Output::new(&mut text)).await?;
        Ok(String::from_utf8(text).unwrap())
    }

    const ROWS: &str = "SELECT * FROM (VALUES (1, 'a', [1, 2]), (NULL, 'b, c', NULL)) AS t(x, y, z)";

    #[tokio::test]
    async fn every_format() {
        let table = ask(&[], ROWS).await.unwrap();
        assert!(table.contains("| NULL | b, c | NULL   |"), "{table}");
        let csv = ask(&["--format", "csv"], ROWS).await.unwrap();
        assert_eq!(csv, "x,y,z\n1,a,\"[1, 2]\"\n,\"b, c\",\n");
        let json = ask(&["--format", "json"], ROWS).await.unwrap();
        assert_eq!(json, "[{\"x\":1,\"y\":\"a\",\"z\":[1,2]},{\"x\":null,\"y\":\"b, c\",\"z\":null}]\n");
        let ndjson = ask(&["--format", "ndjson"], ROWS).await.unwrap();
        assert_eq!(ndjson, "{\"x\":1,\"y\":\"a\",\"z\":[1,2]}\n{\"x\":null,\"y\":\"b, c\",\"z\":null}\n");
        assert_eq!(ask(&["--format", "csv"], "SELECT 1 AS x LIMIT 0").await.unwrap(), "x\n");
        assert_eq!(ask(&["--format", "json"], "SELECT 1 AS x LIMIT 0").await.unwrap(), "[]\n");
    }

    #[tokio::test]
    async fn tables_are_cut_and_statements_follow_each_other() {
        let text =
            ask(&["--max-rows", "2"], "SET datafusion.execution.batch_size = 1; SELECT * FROM generate_series(1, 5)");
        assert_eq!(text.await.unwrap().lines().count(), 6);
        let all = ask(&["--max-rows", "0"], "SELECT * FROM generate_series(1, 5); SHOW TABLES").await.unwrap();
        assert!(all.contains("| 5 ") && all.contains("information_schema"), "{all}");
    }

    #[tokio::test]
    async fn sessions_only_read() {
        let dir = tempfile::tempdir().unwrap();
        let copy = format!("COPY (SELECT 1) TO '{}/x.csv'", dir.path().display());
        for sql in
            ["CREATE TABLE t AS SELECT 1", "DROP TABLE t", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'", &copy]
        {
            let e = ask(&[], sql).await.unwrap_err();
            assert!(e.to_string().contains("only reads"), "{sql}: {e}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn errors_name_the_place() {
        let e = ask(&[], "SELECT 1;\nSELECT clustr FROM (VALUES (1)) AS t(cluster)").await.unwrap_err().to_string();
        assert!(e.contains("at line 2, column 8\n  | SELECT clustr FROM"), "{e}");
        assert!(e.contains("\n  |        ^^^^^^"), "{e}");
        let e = ask(&[], "SELECT (1\n  FROM x").await.unwrap_err().to_string();
        assert!(e.contains("line 2, column 3") && e.ends_with("  |   FROM x\n  |   ^"), "{e}");
    }

    #[tokio::test]
    async fn names_that_were_meant_are_named() {
        let wrong = |sql: &'static str| async move { ask(&[], sql).await.unwrap_err().to_string() };
        let e = wrong("SELECT machineid FROM (VALUES (1, 2)) AS t(\"MachineID\", x)").await;
        assert!(e.starts_with("there is no column \"machineid\" at line 1, column 8\n  | SELECT"), "{e}");
        assert!(
            e.contains("did you mean \"MachineID\"? A name with capitals") && e.contains("are \"MachineID\", x"),
            "{e}"
        );
        let e = wrong("SELECT 1 FROM (VALUES (1)) AS t(x) WHERE x = \"F1\"").await;
        assert!(e.contains("text stands in single quotes"), "{e}");
        let e = wrong("SELECT * FROM nosuch").await;
        assert!(e.contains("there is no table \"nosuch\"") && e.contains("--table NAME=PATH"), "{e}");
        let e = wrong("SELECT 1 2").await;
        assert!(e.starts_with("Expected: end of statement, found: 2 at line 1, column 10\n"), "{e}");
        let cube: Vec<String> = (0..13).map(|i| format!("x + {i}")).collect();
        let cube = format!("SELECT count(*) FROM (VALUES (1)) AS t(x) GROUP BY CUBE ({})", cube.join(", "));
        assert!(ask(&[], &cube).await.unwrap_err().to_string().contains("CUBE of 13 columns"));
        let e = wrong("SELECT 1;\nSELEC 2").await;
        assert!(e.starts_with("Expected: an SQL statement, found: SELEC at line 2, column 1"), "{e}");
        for sql in ["SELECT (1", "SELECT 'a", "SELECT CAST('a' AS INT)", "SELECT 1 AS n, 2 AS n", "SELECT ~"] {
            let e = ask(&[], sql).await.unwrap_err().to_string();
            assert!(
                !e.contains("ParserError") && !e.contains("SQL error") && !e.contains("Error during"),
                "{sql}: {e}"
            );
        }
    }

    #[tokio::test]
    async fn text_comes_as_editors_write_it() {
        let csv = ["--format", "csv"];
        assert_eq!(ask(&csv, "\u{feff}SELECT 1 AS x;\r\n-- end\r\n").await.unwrap(), "x\n1\n");
        assert_eq!(ask(&csv, ";; SELECT 1 AS x ;;").await.unwrap(), "x\n1\n");
        assert_eq!(ask(&csv, "-- nothing\n/* at all */").await.unwrap(), "");
        let read = |bytes: &[u8]| statements::read(bytes, "x.sql");
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        assert_eq!(read(&utf16("\u{feff}SELECT 'é'")).unwrap(), "SELECT 'é'");
        let utf32: Vec<u8> = "\u{feff}SELECT".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(read(&utf32).unwrap_err().to_string().contains("x.sql is UTF-32; save it as UTF-8"));
        let e = read(b"SELECT 1;\n-- caf\xe9").unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Input);
        assert!(e.to_string().contains("x.sql: the byte 0xE9 at line 2, column 7 is not UTF-8"), "{e}");
    }

    #[tokio::test]
    async fn json_has_each_key_once() {
        let json = ["--format", "ndjson"];
        let two = "SELECT a.x, b.x, a.y FROM (VALUES (1, 2)) AS a(x, y), (VALUES (3)) AS b(x)";
        assert_eq!(ask(&json, two).await.unwrap(), "{\"x\":1,\"x_2\":3,\"y\":2}\n");
        let taken = "SELECT a.x, b.x, a.x_2 FROM (VALUES (1, 2)) AS a(x, x_2), (VALUES (3)) AS b(x)";
        assert_eq!(ask(&json, taken).await.unwrap(), "{\"x\":1,\"x_3\":3,\"x_2\":2}\n");
        let nested = "SELECT named_struct('a', 1, 'a', named_struct('b', 2, 'b', 3)) AS s";
        assert_eq!(ask(&json, nested).await.unwrap(), "{\"s\":{\"a\":1,\"a_2\":{\"b\":2,\"b_2\":3}}}\n");
        assert_eq!(ask(&json, "SELECT 'NaN'::float AS a, 0.10 AS b").await.unwrap(), "{\"a\":null,\"b\":0.1}\n");
    }

    #[tokio::test]
    async fn elements_and_fields_are_reached_from_tables_and_values() {
        let csv = ["--format", "csv"];
        let of = "FROM (VALUES ([7, 8], named_struct('a', 1, 'B', 2))) AS c(x, s)";
        let query = format!("SELECT c.x[1] AS v, c.s['a'] AS a, (c.s).a AS n, (s).\"B\" AS b, x[2] AS w {of}");
        assert_eq!(ask(&csv, &query).await.unwrap(), "v,a,n,b,w\n7,1,1,2,8\n");
        // As in PostgreSQL, a field keeps its own name, unless two columns would have it.
        let query = format!("SELECT (c.s).a, (s).\"B\" {of}");
        assert_eq!(ask(&csv, &query).await.unwrap(), "a,B\n1,2\n");
        let query = format!("SELECT q.a FROM (SELECT ((s)).A {of}) AS q");
        assert_eq!(ask(&csv, &query).await.unwrap(), "a\n1\n");
        let query = format!("SELECT (s).a, (named_struct('a', 3)).a, 5 AS \"B\", (s).\"B\" {of}");
        assert!(ask(&csv, &query).await.unwrap().ends_with("\n1,3,5,2\n"));
        let query = format!("SELECT *, (s).a {of}");
        assert!(ask(&csv, &query).await.unwrap().ends_with(",1\n"));
    }

    #[test]
    fn depth_is_that_of_the_deepest_expression() {
        let fits = |sql: String| statements::check_expression(&sql).is_ok();
        let chain = |item: &str, link: &str, times: usize| vec![item; times].join(link);
        assert!(fits(chain("1", "+", 2001)) && !fits(chain("1", "+", 2002)));
        // Items of a list do not add up; parentheses add to the depth around them.
        let long = chain("1", "+", 1500);
        assert!(fits(format!("({long}), ({long}), ({long})")));
        assert!(!fits(format!("{long} + ({long})")));
        assert!(fits(chain("-1", ",", 30_000)));
        assert!(!fits(chain("a = 1", " AND ", 2100)) && fits(chain("a = 1 + 2", " AND ", 1900)));
        assert!(fits(chain("a IS NOT NULL", " OR ", 1900)));
        for word in ["INTERVAL ", "EXPLAIN ", "NOT ", "DISTINCT ", "PREPARE x AS "] {
            assert!(!fits(word.repeat(30_000)), "{word}");
        }
    }

    #[tokio::test]
    async fn a_query_of_a_table_that_was_left_out_fails_for_that_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("t/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join("00000000000000000000.json"), "{").unwrap();
        let dir = dir.path().to_str().unwrap();
        let all = Command::try_parse_from(["sql", "--dir", dir]).unwrap().args;
        let session = Session::open(&all).await.unwrap();
        let queries = ["SELECT * FROM t", "SELECT * FROM t_clusters", "SELECT * FROM cluster_profile('t')"];
        for sql in queries {
            let e = session.run(sql, &mut Output::new(Vec::new())).await.unwrap_err();
            let said = e.to_string();
            assert_eq!(e.kind(), Kind::Table, "{said}");
            assert!(said.contains("table t cannot be opened") && said.contains("00000000000000000000.json"), "{said}");
        }
        let e = session.run("SELECT * FROM other", &mut Output::new(Vec::new())).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Input);
        session.run("SELECT 1", &mut Output::new(Vec::new())).await.unwrap();
    }

    #[test]
    fn table_arguments() {
        assert_eq!(parse_table("a=b=c").unwrap(), ("a".to_string(), "b=c".to_string()));
        assert!(parse_table("a").is_err() && parse_table("=b").is_err() && parse_table("a=").is_err());
    }

    #[test]
    fn tables_of_runs_are_found_by_the_name_they_were_given() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two", "a", "zwei", "failed", "no-table"] {
            std::fs::create_dir_all(dir.path().join(name).join("_delta_log")).unwrap();
        }
        std::fs::remove_dir(dir.path().join("no-table/_delta_log")).unwrap();
        std::fs::write(dir.path().join("failed/_delta_log/.tmp"), "7").unwrap();
        for (table, run) in [("one", None), ("two", Some("zwei")), ("a", Some("zwei")), ("zwei", None)] {
            std::fs::write(dir.path().join(table).join("_delta_log/00000000000000000000.json"), "{}").unwrap();
            if let Some(name) = run {
                std::fs::write(dir.path().join(table).join("run.json"), format!("{{\"name\": {name:?}}}")).unwrap();
            }
        }
        let found = found_tables(dir.path());
        let found: Vec<_> =
            found.iter().map(|(name, path)| (&name[..], path.strip_prefix(dir.path()).unwrap())).collect();
        let expected = [("one", "one"), ("zwei", "zwei"), ("zwei", "a"), ("zwei", "two")];
        assert_eq!(found, expected.map(|(name, path)| (name, Path::new(path))));
    }

    #[test]
    fn every_table_has_names_of_its_own() {
        let mut names = Names::default();
        let mut choose = |name: &str, own: &str| names.choose(name, own, &format!("out/{own}"));
        assert_eq!(choose("hapt", "hapt"), ("hapt".into(), None));
        let note = "the table in out/again is registered as again: hapt is the table in out/hapt";
        assert_eq!(choose("hapt", "again"), ("again".into(), Some(note.into())));
        assert_eq!(choose("x", "again").0, "x");
        assert_eq!(choose("x", "again").0, "again_2");
        assert_eq!(choose("hapt_clusters", "c").0, "c", "it would hide the clusters of hapt");
        assert_eq!(choose("a_quarantine", "q").0, "a_quarantine");
        assert_eq!(choose("a", "b").0, "b", "its own quarantine would have no name");
    }

    /// A reader that goes away after the first bytes.
    struct Closes(usize);

    impl Write for Closes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(bytes.len()) {
                Some(left) => {
                    self.0 = left;
                    Ok(bytes.len())
                }
                None => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_no_error() {
        for format in ["table", "csv", "json", "ndjson"] {
            let session = Session::open(&args(&["--format", format, "--max-rows", "0"])).await.unwrap();
            let mut out = Output::new(Closes(100));
            session.run("SELECT * FROM generate_series(1, 100000); SELECT 1", &mut out).await.unwrap();
            assert!(out.closed(), "{format}");
        }
    }
}
