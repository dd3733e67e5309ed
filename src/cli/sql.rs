//! `dacpipe sql`: queries over the tables of runs, from the command line, a file, standard input, or a prompt.
//!
//! Sessions only read: statements that define or change tables (`CREATE`, `DROP`, `INSERT`, `COPY`) are refused, `SET`,
//! `SHOW`, `EXPLAIN` and `DESCRIBE` work.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use datafusion::common::{Diagnostic, Span};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::DFParser;

use crate::error::{Error, Result};
use crate::sql::{Options, Registered, Registration, register};

use super::output::{Format, Output, write_results};
use super::prompt;

/// Query the tables of runs with SQL
///
/// Every table below --dir is registered under its name, with <name>_clusters beside it and <name>_quarantine where rows
/// were set aside. Functions: dac_embed(model, features), dac_assign(model, features); aggregates: ari(a, b), nmi(a, b),
/// clustering_accuracy(a, b). Without -c and -f, statements are read from the prompt or from standard input.
#[derive(Debug, Clone, clap::Args)]
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

    /// Where the tables of runs are looked for
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub dir: PathBuf,

    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Rows that --format table shows of a result; 0 shows all
    #[arg(long, value_name = "ROWS", default_value_t = 200)]
    pub max_rows: usize,
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
/// Kind `Input` for SQL that cannot be read or planned, with line and column; otherwise what opening the tables and
/// running the query give.
pub async fn run(args: SqlArgs) -> Result<()> {
    let mut out = Output::new(io::BufWriter::new(io::stdout()));
    let session = Session::open(&args).await?;
    let mut texts = args.command.clone();
    if let Some(path) = &args.file {
        texts.push(read_file(path)?);
    }
    if texts.is_empty() {
        if io::stdin().is_terminal() {
            return prompt::run(&session, &mut out).await;
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(|e| Error::io("reading standard input").with_source(e))?;
        texts.push(text);
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
    std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {}", path.display())).with_source(e))
}

/// A session over the registered tables.
pub(crate) struct Session {
    ctx: SessionContext,
    /// What was registered.
    pub(crate) tables: Vec<Registered>,
    format: Format,
    max_rows: usize,
}

impl Session {
    /// Registers what `args` names and the tables that are found below its directory.
    pub(crate) async fn open(args: &SqlArgs) -> Result<Self> {
        let mut config = SessionConfig::new().with_information_schema(true);
        config.options_mut().sql_parser.collect_spans = true;
        let ctx = SessionContext::new_with_config(config);
        let mut options = Options::default();
        for (name, path) in &args.table {
            options = options.table(name, path);
        }
        for (name, path) in found_tables(&args.dir) {
            if args.table.iter().all(|(given, _)| *given != name) {
                options = options.table_if_sound(&name, &path.to_string_lossy());
            }
        }
        let Registration { tables, left_out } = register(&ctx, options).await?;
        for (name, e) in left_out {
            eprintln!("warning: table {name} is left out: {e}");
        }
        Ok(Self { ctx, tables, format: args.format, max_rows: args.max_rows })
    }

    /// Runs all statements of `text`, one after the other.
    pub(crate) async fn run<W: Write>(&self, text: &str, out: &mut Output<W>) -> Result<()> {
        let statements = DFParser::parse_sql(text).map_err(|e| explain(e, text))?;
        for statement in statements {
            let plan = self.ctx.state().statement_to_plan(statement).await.map_err(|e| explain(e, text))?;
            self.run_plan(plan, out).await.map_err(|e| explain(e, text))??;
            if out.closed() {
                break;
            }
        }
        Ok(())
    }

    /// The outer result is DataFusion's, whose error may know a place in the text; the inner one is of writing.
    async fn run_plan<W: Write>(
        &self,
        plan: LogicalPlan,
        out: &mut Output<W>,
    ) -> Result<Result<()>, DataFusionError> {
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
                eprintln!("the first {} rows; --max-rows 0 shows all", self.max_rows);
                Ok(())
            }
            other => other.map(|_| ()),
        })
    }
}

/// The tables below `dir`: every directory with a log, by the name that its run wrote down, or its own.
pub(crate) fn found_tables(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let tables = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("_log").is_dir());
    let mut found: Vec<_> = tables.filter_map(|path| Some((table_name(&path)?, path))).collect();
    found.sort();
    found
}

fn table_name(path: &Path) -> Option<String> {
    let report = std::fs::read_to_string(path.join("run.json")).ok();
    let report = report.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    match report.as_ref().and_then(|report| report["name"].as_str()) {
        Some(name) => Some(name.to_owned()),
        None => path.file_name()?.to_str().map(str::to_owned),
    }
}

/// The error with the place in the SQL text where DataFusion gives one.
fn explain(error: DataFusionError, text: &str) -> Error {
    let found = error.diagnostic().cloned();
    let ours = Error::from(error);
    match found {
        Some(Diagnostic { span: Some(span), message, helps, .. }) => {
            let helps: String = helps.iter().map(|help| format!("\n  {}", help.message)).collect();
            Error::input(format!("{message}{}{helps}", point_at(text, &span)))
        }
        _ => match parser_position(ours.message()) {
            Some((line, column)) => {
                let place = datafusion::common::Location { line, column };
                let what = ours.message().split(" at Line:").next().unwrap_or_default();
                Error::input(format!("{what}{}", point_at(text, &Span::new(place, place))))
            }
            None => ours,
        },
    }
}

/// The parser writes the place at the end of its message: "… at Line: 1, Column: 8".
fn parser_position(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
    Some((line.parse().ok()?, column[..digits].parse().ok()?))
}

/// " at line 1, column 8" with the line and a mark under the place.
fn point_at(text: &str, span: &Span) -> String {
    let (line, column) = (span.start.line, span.start.column);
    let Some(source) = (line as usize).checked_sub(1).and_then(|i| text.lines().nth(i)) else { return String::new() };
    let width = match span.end.line == line {
        true => span.end.column.saturating_sub(column).max(1),
        false => 1,
    };
    let (pad, mark) = (" ".repeat(column.saturating_sub(1) as usize), "^".repeat(width as usize));
    format!(" at line {line}, column {column}\n  | {source}\n  | {pad}{mark}")
}
