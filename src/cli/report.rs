//! `dacpipe report`: draws a table's clusters as an HTML page.

use crate::error::Result;
use crate::report;
use crate::store::Location;
use crate::terminal;

use super::evaluate::path_of;

const EXAMPLES: &str = "\
Examples:
  dacpipe report hapt
  dacpipe report out/hapt --labels activity --out /tmp/hapt-report";

/// Draw a table's clusters: one HTML file, with its figures as files beside it
///
/// The page shows the rows in two dimensions by cluster and by label, the sizes of the clusters, clusters against
/// labels, what sets each cluster apart, feature weights, losses, and rows beside their reconstructions. Where the
/// table lacks one of these, the page says how to get it. It needs no network and contains no scripts. A pipeline file
/// with report = true writes it at the end of its run.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    table: String,
    /// The column of labels; where not given, the run's, or activity, label, class, target or y
    #[arg(long, value_name = "COLUMN")]
    labels: Option<String>,
    /// Where the files go [default: the directory report below the table]
    #[arg(long, value_name = "DIR")]
    out: Option<String>,
}

/// Writes the report and says where it is.
///
/// # Errors
/// As [`report::write()`].
pub async fn run(args: ReportArgs) -> Result<()> {
    let table = Location::parse(&path_of(&args.table)?)?;
    let to = match &args.out {
        Some(out) => Location::parse(out)?,
        None => table.join(report::write::DIRECTORY)?,
    };
    let written = report::write(&table, args.labels.as_deref(), &to).await?;
    terminal::say(&format!(
        "{}\n  {} kB, and {} figures as SVG beside it",
        written.page,
        written.bytes.div_ceil(1000),
        written.figures
    ))
}
