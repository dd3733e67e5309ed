//! `dacpipe label`: labels new rows with a saved model.

use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::cli::fail_on::{self, FailOn};
use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::pipeline::{InputKind, Relabel, RelabelReport};
use crate::signal::window::Within;
use crate::source::OnBadRow;
use crate::store::Location;
use crate::table::{Mode, OnExisting};
use crate::terminal;
use crate::vectors::VectorForm;

const EXAMPLES: &str = "\
Examples (MODEL is the directory that the summary of a run names):
  dacpipe label --model MODEL --input /data/new --within recordings --output out/new
  dacpipe label --model MODEL --input rows.parquet --keys id --output out/new --append
  dacpipe label --model MODEL --input rows.parquet --output out/new --reconstruction-error";

/// Label new rows with a saved model
///
/// Needs only the model: no pipeline file, and no label or split column, which become null in a table that has them.
/// Vectors without the key columns are written without keys, in their order, and the summary says so. Windows are cut
/// and features computed as they were for training. A model without clusters writes its vectors, in the form that
/// --vectors says. The rows are committed together, as in a run: the table gets all of them or stays as it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LabelArgs {
    /// The model's directory, local or the URL of one in an object store
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The rows to label: what the model's pipeline read, or Parquet files of feature vectors
    #[arg(long, value_name = "PATH")]
    input: String,
    /// The table to write, local or the URL of one in an object store
    #[arg(long, value_name = "PATH")]
    output: String,
    /// The kind of the input; by default from its name and the model's pipeline
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The column of feature vectors in Parquet input; by default the column that the model was trained on, or features
    #[arg(long, value_name = "COLUMN")]
    features: Option<String>,
    /// The key columns to write, separated by commas; by default the source's keys
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS", value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
    /// Where windows are cut; by default as in the model's pipeline
    #[arg(long, value_enum)]
    within: Option<WithinArg>,
    /// Add to the table instead of replacing its rows
    #[arg(long)]
    append: bool,
    /// What --append does with rows whose keys the table has
    #[arg(long, value_enum, default_value_t, requires = "append", value_name = "WHAT")]
    on_existing: Existing,
    /// Write the embeddings, too
    #[arg(long)]
    embedding: bool,
    /// Write the reconstruction error of each row, too: the anomaly score of an autoencoder
    #[arg(long)]
    reconstruction_error: bool,
    /// Write the vectors that are clustered, too: the embeddings, or the features of a model without an autoencoder
    #[arg(long, value_enum, value_name = "FORM")]
    vectors: Option<Form>,
    /// Set bad rows aside in a table of their own instead of failing at the first
    #[arg(long)]
    quarantine: bool,
    /// End with an exit code of its own, once the rows are committed: 10 if rows have drifted so far that it is to be acted on
    /// (which takes a model of a pipeline with a drift section), 11 if rows were set aside
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    fail_on: Vec<FailOn>,
    /// Compute threads; by default DACPIPE_THREADS, or one per core
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// Where the model is applied: auto, cpu, cuda, or cuda:N for the GPU of that number; auto is the first GPU where there
    /// is one and dacpipe is built for it
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print what was written as JSON on stdout, and the summary on stderr
    #[arg(long)]
    json: bool,
}

impl LabelArgs {
    /// The compute threads asked for.
    pub(super) fn threads(&self) -> Option<usize> {
        self.threads
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Recordings in the layout of the HAPT data set
    Hapt,
    /// Sensor recordings in CSV files, of the columns that the model's pipeline read
    Csv,
    /// Feature vectors in Parquet files
    Parquet,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Existing {
    /// Leaves out rows with keys that this model has labelled in the table, and reports how many
    #[default]
    Skip,
    /// Removes the existing rows from the table, whichever model labelled them
    Replace,
    /// Fails
    Error,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// In one column of lists
    List,
    /// In a column for each value, under its name
    Columns,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WithinArg {
    /// Inside labelled intervals
    Labels,
    /// Over whole recordings, labelled or not
    Recordings,
}

/// Labels the rows; prints what was written.
pub async fn run(args: LabelArgs) -> Result<ExitCode> {
    if args.fail_on.contains(&FailOn::Drift)
        && let place = Location::parse(&args.model)?
        && place.get("manifest.json").await?.is_some()
        && Model::reference(&place).await?.is_none()
    {
        return Err(Error::config(format!(
            "--fail-on drift: the model at {} was learned without a [drift] section, so nothing is known of the rows that it \
             learned from; run its pipeline again with one, which gives the same model",
            args.model
        )));
    }
    let control = super::control(args.quiet);
    let _listener = super::cancel_on_interrupt(&control);
    let relabel = Relabel {
        model: args.model,
        input: args.input,
        output: args.output,
        kind: args.kind.map(|kind| match kind {
            Kind::Hapt => InputKind::Hapt,
            Kind::Csv => InputKind::Csv,
            Kind::Parquet => InputKind::Parquet,
        }),
        features: args.features,
        keys: args.keys,
        within: args.within.map(|within| match within {
            WithinArg::Labels => Within::Labels,
            WithinArg::Recordings => Within::Recordings,
        }),
        mode: if args.append { Mode::Append } else { Mode::Overwrite },
        on_existing: match args.on_existing {
            Existing::Skip => OnExisting::Skip,
            Existing::Replace => OnExisting::Replace,
            Existing::Error => OnExisting::Error,
        },
        embedding: args.embedding,
        reconstruction_error: args.reconstruction_error,
        vectors: args.vectors.map(|form| match form {
            Form::List => VectorForm::List,
            Form::Columns => VectorForm::Columns,
        }),
        on_bad_row: if args.quarantine { OnBadRow::Quarantine } else { OnBadRow::Fail },
        threads: args.threads,
        device: args.device,
    };
    let report = relabel.run(&control).await?;
    let said = match args.json {
        true => {
            if !args.quiet {
                terminal::tell(&summary(&report));
            }
            let json = serde_json::to_string_pretty(&report);
            terminal::say_json(&json.map_err(|e| Error::internal("writing what was labelled as JSON").with_source(e))?)
        }
        false => terminal::say(&summary(&report)),
    };
    super::after_commit(said, &report.table, report.table_version)?;
    Ok(fail_on::code(&args.fail_on, &report.drift, report.quarantined_rows).unwrap_or(ExitCode::SUCCESS))
}

fn summary(report: &RelabelReport) -> String {
    let done = if report.cluster_sizes.is_empty() { "written" } else { "labelled" };
    let mut lines = vec![format!("{} rows {done} by model {} in {:.2} s", report.rows, report.model, report.seconds)];
    if report.skipped_rows > 0 {
        lines.push(format!(
            "  skipped   {} rows: the table has rows with their keys by this model already",
            report.skipped_rows
        ));
    }
    if report.replaced_rows > 0 {
        lines.push(format!("  replaced  {} rows of the table with the same keys", report.replaced_rows));
    }
    if !report.cluster_sizes.is_empty() {
        let sizes: Vec<String> = report.cluster_sizes.iter().map(u64::to_string).collect();
        lines.push(format!("  clusters  {}", sizes.join(" ")));
        if report.cluster_ids.iter().zip(0..).any(|(id, index)| *id != index) {
            let ids: Vec<String> = report.cluster_ids.iter().map(i32::to_string).collect();
            lines.push(format!("            with the ids {}", ids.join(" ")));
        }
    }
    if let Some(vectors) = &report.vectors {
        lines.push(format!("  vectors   {}", vectors.describe()));
    }
    if let Some(drift) = &report.drift {
        lines.push(format!("  drift     {}", terminal::one_line(&drift.to_string())));
    }
    lines.push(format!("  table     {} (version {})", report.table, report.table_version));
    lines.extend(report.notes.iter().map(|note| format!("  note      {note}")));
    if let Some(file) = &report.quarantine {
        lines.push(format!("  set aside {} rows in {file}", report.quarantined_rows));
    }
    lines.join("\n")
}
