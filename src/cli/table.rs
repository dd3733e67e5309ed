//! `dacpipe table`: the upkeep of a labelled table.

use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use crate::error::Result;
use crate::store::Location;
use crate::table::{self, Commit, Mode, Optimized, TARGET_BYTES, Vacuumed};
use crate::terminal::{self, one_line};

use super::evaluate::path_of;

const EXAMPLES: &str = "\
Examples:
  dacpipe table history hapt
  dacpipe table optimize out/hapt
  dacpipe table vacuum out/hapt --retain 30days --dry-run
  dacpipe table restore out/hapt --version 3";

/// List a table's versions, compact it, vacuum it, restore an old one
///
/// A labelled table is a Delta table. Each command makes at most one commit and does not disturb readers.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TableArgs {
    #[command(subcommand)]
    command: TableCommand,
}

#[derive(Debug, Subcommand)]
enum TableCommand {
    History(HistoryArgs),
    Optimize(OptimizeArgs),
    Vacuum(VacuumArgs),
    Restore(RestoreArgs),
}

/// List the versions, newest first: time, operation, rows and files
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dacpipe table history hapt\n  dacpipe table history out/hapt --limit 0")]
struct HistoryArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    table: String,
    /// Versions to list; 0 lists all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
}

/// Compact the small files that appends leave; no row changes
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dacpipe table optimize hapt\n  dacpipe table optimize out/hapt --target 64MB")]
struct OptimizeArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    table: String,
    /// The target size of a file
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::b(TARGET_BYTES))]
    target: ByteSize,
}

/// Delete files that commits removed from the table longer ago than its retention
///
/// Versions that need these files can no longer be read. Models that no version names are removed as well, once they
/// are as old. Files that no commit named are never touched.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dacpipe table vacuum hapt --dry-run\n  dacpipe table vacuum out/hapt --retain 30days"
)]
struct VacuumArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    table: String,
    /// How long removed files stay, for example 30days [default: the table's own retention, or a week]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    retain: Option<Duration>,
    /// Delete nothing; report what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Restore the table to an earlier version, by a new commit
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dacpipe table restore hapt --version 3")]
struct RestoreArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    table: String,
    /// The version
    #[arg(long, value_name = "N")]
    version: u64,
}

/// Does what was asked for.
///
/// # Errors
/// Errors of the functions of [`crate::table`].
pub async fn run(args: TableArgs) -> Result<()> {
    match args.command {
        TableCommand::History(args) => history(&args).await,
        TableCommand::Optimize(args) => {
            let table = place(&args.table)?;
            let Optimized { version, removed, added, bytes } = table::optimize(&table, args.target.as_u64()).await?;
            match version {
                Some(version) => terminal::say(&format!(
                    "{removed} files put together into {added} of {}; {table} is at version {version}",
                    ByteSize::b(bytes).display().si()
                )),
                None => terminal::say(&format!("{table} has no small files to put together")),
            }
        }
        TableCommand::Vacuum(args) => {
            let table = place(&args.table)?;
            let Vacuumed { files, bytes, attempts, models } = table::vacuum(&table, args.retain, args.dry_run).await?;
            let done = if args.dry_run { "would be removed" } else { "removed" };
            let mut text = format!("{files} files of {} {done} from {table}", ByteSize::b(bytes).display().si());
            if attempts > 0 {
                text += &format!("\nand the files of {attempts} runs that died");
            }
            if models > 0 {
                text += &format!("\nand {models} models that no version names, whose files are among these");
            }
            terminal::say(&text)
        }
        TableCommand::Restore(args) => {
            let table = place(&args.table)?;
            let version = table::restore(&table, args.version).await?;
            terminal::say(&format!("{table} is at version {version}, and what it was at version {}", args.version))
        }
    }
}

fn place(table: &str) -> Result<Location> {
    Location::parse(&path_of(table)?)
}

async fn history(args: &HistoryArgs) -> Result<()> {
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let commits = table::history(&place(&args.table)?, limit).await?;
    let mut lines = vec![format!(
        "{:>7}  {:<24}  {:<10}  {:>10}  {:>6}  {:>7}  model",
        "version", "time", "did", "rows", "files", "removed"
    )];
    lines.extend(commits.iter().map(line));
    match commits.last() {
        Some(last) if last.version > 0 && commits.len() == limit => lines.push("(older ones: --limit 0)".to_owned()),
        _ => {}
    }
    terminal::say(&lines.join("\n"))
}

fn line(commit: &Commit) -> String {
    let at = commit.timestamp.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at.try_into().ok()?)));
    let at = at.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_millis(at).to_string());
    let did = match (commit.mode(), commit.operation.as_str()) {
        (Some(Mode::Append), _) => "append".to_owned(),
        (Some(Mode::Overwrite), _) => "overwrite".to_owned(),
        (None, other) => one_line(&other.to_lowercase()).into_owned(),
    };
    let rows = commit.rows().map_or_else(|| "-".to_owned(), |rows| rows.to_string());
    let model = commit.note.as_ref().map_or("-", |note| note.model.get(..16).unwrap_or(&note.model));
    let model = one_line(model);
    let by = match &commit.note {
        Some(_) => String::new(),
        None => format!("  (by {})", one_line(commit.engine.as_deref().unwrap_or("another program"))),
    };
    let (added, removed) = (commit.added.len(), commit.removed.len());
    format!("{:>7}  {at:<24}  {did:<10}  {rows:>10}  {added:>6}  {removed:>7}  {model}{by}", commit.version)
}
