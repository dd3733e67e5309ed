//! `dacpipe evaluate`: how far the clusters of a table agree with a column of labels.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Column;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{DataFrame, SessionContext, col};
use serde::Serialize;

use crate::column::{label_texts, listed};
use crate::error::{Error, Result};
use crate::metrics::{ALL, Contingency, part_name};
use crate::report::USUAL_LABELS;
use crate::sql::{Options, register, session_config};
use crate::stage::LABEL_COLUMNS;
use crate::table::{LABELLED_AT, MODEL};
use crate::terminal::{self, one_line, shown_name};

use super::sql::{OUT, found_tables};
use super::sql_error::explain;
use super::statements::check_expression;

const EXAMPLES: &str = "\
Examples:
  dacpipe evaluate hapt
  dacpipe evaluate out/hapt --labels activity --by split --where 'margin > 0.1' --format json";

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum EvaluateFormat {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Compare the clusters of a table with a column of labels
///
/// Prints the adjusted Rand index (ARI), the normalized mutual information (NMI), the accuracy under the best one-to-one
/// matching of clusters to labels (ACC), the size of each cluster, and how often each label is in each cluster. Rows
/// without a label are counted, and left out of the figures.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EvaluateArgs {
    /// The directory or URL of a table, or the name of one in ./out
    #[arg(value_name = "TABLE")]
    pub table: String,

    /// The column of labels; where not given, activity, label, class, target or y
    #[arg(long, value_name = "COLUMN")]
    pub labels: Option<String>,

    /// Only rows for which this SQL condition holds; may be given several times
    #[arg(long = "where", value_name = "SQL")]
    pub conditions: Vec<String>,

    /// Also the figures for each value of this column, for example split
    #[arg(long, value_name = "COLUMN")]
    pub by: Option<String>,

    /// Only rows that this model labelled, given by its hash or the first digits of it; the newest model if not given
    #[arg(long, value_name = "HASH")]
    pub model: Option<String>,

    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    pub format: EvaluateFormat,
}

/// How far clusters and labels agree in one part of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// `all`, or the value of the `--by` column, as [`part_name`] writes it.
    pub part: String,
    /// Rows with a cluster and a label.
    pub rows: u64,
    /// Adjusted Rand index; none without rows.
    pub ari: Option<f64>,
    /// Normalized mutual information.
    pub nmi: Option<f64>,
    /// Accuracy under the best matching.
    pub acc: Option<f64>,
}

/// What `dacpipe evaluate` finds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The table, as named in the arguments.
    pub table: String,
    /// The column of labels.
    pub labels: String,
    /// The hash of the model whose clusters were compared; `None` if the table does not say.
    pub model: Option<String>,
    /// Rows of other models, which are left out: their clusters are others, even where an id lasted.
    pub rows_of_other_models: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Rows without a label.
    pub unlabelled: u64,
    /// The figures of all rows, then of each part.
    pub parts: Vec<Figures>,
    /// The size of each cluster, rows without a label included.
    pub clusters: BTreeMap<i64, u64>,
    /// How often each label is in each cluster, rows without a label left out.
    pub contingency: BTreeMap<i64, BTreeMap<String, u64>>,
}

/// Runs the command, writing to standard output.
///
/// # Errors
/// Kind `Input` for a table without clusters, a missing column or an invalid condition, `Table` for a damaged table.
pub async fn run(args: EvaluateArgs) -> Result<()> {
    let evaluation = evaluate(&args).await?;
    match args.format {
        EvaluateFormat::Table => terminal::say(evaluation.to_text().trim_end_matches('\n')),
        EvaluateFormat::Json => {
            let text = serde_json::to_string_pretty(&evaluation)
                .map_err(|e| Error::internal("writing the figures as JSON").with_source(e))?;
            terminal::say_json(&text)
        }
    }
}

/// Counts clusters against labels in one pass over three columns of the table.
pub async fn evaluate(args: &EvaluateArgs) -> Result<Evaluation> {
    const NAME: &str = "evaluated";
    let ctx = SessionContext::new_with_config(session_config());
    register(&ctx, Options::default().table(NAME, &path_of(&args.table)?)).await?;
    let mut rows = ctx.table(NAME).await?;
    let [cluster, ..] = LABEL_COLUMNS;
    if !rows.schema().has_column_with_unqualified_name(cluster) {
        return Err(Error::input(format!(
            "the table {} has no clusters to compare with labels: its pipeline has no kmeans stage",
            args.table
        )));
    }
    let labels = label_column(&rows, args.labels.as_deref())?;
    for condition in &args.conditions {
        let wrong = |e: Error| e.while_doing(format_args!("--where {condition:?}"));
        check_expression(condition).map_err(wrong)?;
        let expr = rows.parse_sql_expr(condition).map_err(|e| wrong(explain(e, condition, &[])))?;
        rows = rows.filter(expr).map_err(|e| wrong(explain(e, condition, &[])))?;
    }
    let (model, rows_of_other_models) = model_of(&rows, args.model.as_deref()).await?;
    if let Some(model) = &model {
        let of_model = column(&rows, MODEL)?.eq(lit(model.as_str()));
        rows = rows.filter(of_model)?;
    }
    let mut keys = vec![column(&rows, cluster)?, column(&rows, &labels)?];
    if let Some(by) = &args.by {
        keys.push(column(&rows, by)?.alias("part"));
    }
    let batches = rows.aggregate(keys, vec![count(lit(1_i64)).alias("rows")])?.collect().await?;
    let mut tally = Tally { by: args.by.is_some(), ..Tally::default() };
    for batch in &batches {
        tally.add(batch)?;
    }
    let mut evaluation = tally.evaluation(shown_name(&args.table), labels)?;
    (evaluation.model, evaluation.rows_of_other_models) = (model, rows_of_other_models);
    Ok(evaluation)
}

/// The model whose rows are compared: the one that was asked for, or else the one that labelled a row last; and the
/// number of rows of other models.
async fn model_of(rows: &DataFrame, asked: Option<&str>) -> Result<(Option<String>, u64)> {
    let has = |name: &str| rows.schema().has_column_with_unqualified_name(name);
    if !has(MODEL) || !has(LABELLED_AT) {
        return Ok((None, 0));
    }
    let model = column(rows, MODEL)?;
    let aggregates = vec![count(lit(1_i64)).alias("rows"), max(column(rows, LABELLED_AT)?).alias("last")];
    let by_model = rows.clone().aggregate(vec![model.alias("model")], aggregates)?;
    let newest_first = vec![col("last").sort(false, false), col("model").sort(false, false)];
    let mut models: Vec<(String, u64)> = Vec::new();
    for batch in by_model.sort(newest_first)?.collect().await? {
        let names = cast(batch.column(0), &DataType::Utf8)?;
        let counts = batch.column(1).as_primitive::<Int64Type>();
        let names = names.as_string::<i32>();
        models.extend((0..batch.num_rows()).map(|row| (names.value(row).to_owned(), counts.value(row).unsigned_abs())));
    }
    let chosen = match asked {
        None => models.first(),
        Some(asked) => Some(models.iter().find(|(name, _)| name.starts_with(asked)).ok_or_else(|| {
            let there = models.iter().map(|(name, _)| name.get(..16).unwrap_or(name));
            Error::input(format!("--model {asked}: no row was labelled by such a model; there are {}", listed(there)))
        })?),
    };
    let Some((chosen, of_it)) = chosen else { return Ok((None, 0)) };
    let all: u64 = models.iter().map(|(_, rows)| rows).sum();
    Ok((Some(chosen.clone()), all - of_it))
}

/// The path of a table, given as a path or as the table's name.
///
/// # Errors
/// Kind `Table` if there is neither a table of that name in `./out` nor anything at that path, and `Io` if `./out` cannot
/// be read; the message lists the tables that there are.
pub(super) fn path_of(table: &str) -> Result<String> {
    if table.contains(['/', '\\']) || Path::new(table).exists() {
        return Ok(table.to_owned());
    }
    let out = Path::new(OUT);
    let found = found_tables(out);
    if let Some((_, path)) = found.iter().find(|(name, _)| name == table) {
        return Ok(path.to_string_lossy().into_owned());
    }
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let (kind, there): (fn(String) -> Error, _) = match (names.is_empty(), std::fs::read_dir(out)) {
        (false, _) => (Error::table, format!("holds the tables {}", listed(names))),
        (true, Err(e)) if e.kind() != std::io::ErrorKind::NotFound => (Error::io, format!("cannot be read: {e}")),
        (true, _) => (Error::table, "holds no table at all".to_owned()),
    };
    let (table, here, out) = (shown_name(table), whole(Path::new(table)), whole(out));
    Err(kind(format!("no table {table}: there is no {here}, and {out} {there}")))
}

fn label_column(rows: &DataFrame, named: Option<&str>) -> Result<String> {
    let there: Vec<&str> = rows.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let candidates = named.map_or(USUAL_LABELS.to_vec(), |name| vec![name]);
    match candidates.iter().find(|candidate| there.contains(candidate)) {
        Some(found) => Ok((*found).to_owned()),
        None => Err(Error::input(format!(
            "no column of labels {}; name one with --labels: {}",
            candidates.join(", "),
            listed(there)
        ))),
    }
}

fn column(rows: &DataFrame, name: &str) -> Result<Expr> {
    let schema = rows.schema();
    match schema.qualified_field_with_unqualified_name(name) {
        Ok((qualifier, field)) => Ok(Expr::Column(Column::new(qualifier.cloned(), field.name()))),
        Err(_) => Err(crate::column::missing(schema.as_arrow(), name)),
    }
}

/// Counts of clusters, labels and parts.
#[derive(Default)]
struct Tally {
    by: bool,
    rows: u64,
    unlabelled: u64,
    clusters: BTreeMap<i64, u64>,
    /// Rows with a cluster and a label, by part; without the part of all rows.
    pairs: BTreeMap<String, BTreeMap<(i64, String), u64>>,
}

impl Tally {
    /// Adds rows of (cluster, label, part if there are parts, count).
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let clusters = cast(batch.column(0), &DataType::Int64)?;
        let labels = label_texts(batch.column(1), batch.schema().field(1).name())?;
        let counts = batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>();
        let options = FormatOptions::default();
        let parts = self.by.then(|| ArrayFormatter::try_new(batch.column(2), &options)).transpose()?;
        let (clusters, labels) = (clusters.as_primitive::<Int64Type>(), &labels);
        for row in 0..batch.num_rows() {
            let count = counts.value(row).unsigned_abs();
            self.rows += count;
            if clusters.is_valid(row) {
                *self.clusters.entry(clusters.value(row)).or_default() += count;
            }
            let part = match &parts {
                None => ALL.to_owned(),
                Some(text) => {
                    let text = batch.column(2).is_valid(row).then(|| text.value(row).to_string());
                    part_name(text.as_deref()).into_owned()
                }
            };
            // A part whose rows all lack a label is listed nevertheless.
            let pairs = self.pairs.entry(part).or_default();
            if clusters.is_null(row) || labels.is_null(row) {
                self.unlabelled += count;
                continue;
            }
            *pairs.entry((clusters.value(row), labels.value(row).to_owned())).or_default() += count;
        }
        Ok(())
    }

    fn evaluation(self, table: String, labels: String) -> Result<Evaluation> {
        let mut all: BTreeMap<(i64, String), u64> = BTreeMap::new();
        for pairs in self.pairs.values() {
            for (pair, count) in pairs {
                *all.entry(pair.clone()).or_default() += count;
            }
        }
        let mut parts = vec![figures(ALL, &all)?];
        if self.by {
            for (part, pairs) in &self.pairs {
                parts.push(figures(part, pairs)?);
            }
        }
        let mut contingency: BTreeMap<i64, BTreeMap<String, u64>> = BTreeMap::new();
        for ((cluster, label), count) in all {
            contingency.entry(cluster).or_default().insert(label, count);
        }
        let Self { rows, unlabelled, clusters, .. } = self;
        Ok(Evaluation {
            table,
            labels,
            model: None,
            rows_of_other_models: 0,
            rows,
            unlabelled,
            parts,
            clusters,
            contingency,
        })
    }
}

fn figures(part: &str, pairs: &BTreeMap<(i64, String), u64>) -> Result<Figures> {
    let mut table = Contingency::default();
    for ((cluster, label), &count) in pairs {
        table.add_count(*cluster, label.as_str(), count);
    }
    let rows = table.rows();
    let figure = |value: f64| (rows > 0).then_some(value);
    let (ari, nmi, acc) = (figure(table.ari()), figure(table.nmi()), figure(table.accuracy()?));
    Ok(Figures { part: part.to_owned(), rows, ari, nmi, acc })
}

impl Evaluation {
    /// The evaluation as aligned columns.
    pub fn to_text(&self) -> String {
        let mut text = format!("{} rows of {}, labels from {}", self.rows, self.table, one_line(&self.labels));
        if self.rows_of_other_models > 0 {
            let model = self.model.as_deref().unwrap_or_default();
            let model = model.get(..16).unwrap_or(model);
            let others = self.rows_of_other_models;
            text += &format!("; of model {model} alone: {others} rows of other models are left out (--model HASH)");
        }
        if self.unlabelled > 0 {
            text += &format!("; {} without a label are left out of the figures", self.unlabelled);
        }
        text += "\n\n";
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let figures = self.parts.iter().map(|part| {
            vec![short(&part.part), part.rows.to_string(), figure(part.ari), figure(part.nmi), figure(part.acc)]
        });
        text += &aligned(["part", "rows", "ARI", "NMI", "ACC"].map(str::to_owned).to_vec(), figures);
        text.push('\n');
        text += &self.contingency_text();
        text
    }

    /// One row per cluster, one column per label.
    fn contingency_text(&self) -> String {
        let mut labels: Vec<&String> = self.contingency.values().flat_map(BTreeMap::keys).collect();
        labels.sort();
        labels.dedup();
        // An empty label would leave a column without a heading.
        let head = |label: &str| if label.is_empty() { "\"\"".to_owned() } else { short(label) };
        let head = ["cluster", "size"].map(str::to_owned).into_iter().chain(labels.iter().map(|label| head(label)));
        let lines = self.clusters.iter().map(|(cluster, size)| {
            let counts = self.contingency.get(cluster);
            let count =
                |label: &&String| counts.and_then(|counts| counts.get(*label)).map_or(".".into(), u64::to_string);
            [cluster.to_string(), size.to_string()].into_iter().chain(labels.iter().map(count)).collect()
        });
        aligned(head.collect(), lines)
    }
}

/// A value of the data as a cell: on one line, and cut if it is long.
fn short(value: &str) -> String {
    const LONGEST: usize = 40;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", one_line(&value[..end])),
        None => one_line(value).into_owned(),
    }
}

/// Aligns the first column to the left and the others to the right.
fn aligned(head: Vec<String>, lines: impl Iterator<Item = Vec<String>>) -> String {
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cell = |(i, cell): (usize, &String)| match i {
            0 => format!("{cell:<width$}", width = widths[i]),
            _ => format!("{cell:>width$}", width = widths[i]),
        };
        cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ") + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};

    fn tally() -> Tally {
        let batch = RecordBatch::try_from_iter([
            ("cluster", Arc::new(Int32Array::from(vec![Some(0), Some(0), Some(10), Some(10), None])) as ArrayRef),
            (
                "label",
                Arc::new(StringArray::from(vec![Some("sit"), Some("walk"), Some("walk"), None, Some("sit")])) as _,
            ),
            ("part", Arc::new(StringArray::from(vec![Some("test"), Some("train"), Some("train"), None, None])) as _),
            ("rows", Arc::new(Int64Array::from(vec![5, 1, 4, 2, 1])) as _),
        ]);
        let mut tally = Tally { by: true, ..Tally::default() };
        tally.add(&batch.unwrap()).unwrap();
        tally
    }

    fn arguments(table: &str) -> EvaluateArgs {
        EvaluateArgs {
            model: None,
            table: table.into(),
            labels: None,
            conditions: vec![],
            by: None,
            format: EvaluateFormat::default(),
        }
    }

    #[test]
    fn long_values_are_cut_where_they_are_shown() {
        assert_eq!(short(&"é".repeat(40)), "é".repeat(40));
        assert_eq!(short(&format!("a\n{}", "é".repeat(39))), format!("a\\n{}…", "é".repeat(38)));
    }

    #[tokio::test]
    async fn a_table_is_counted_under_its_conditions() {
        use crate::store::Location;
        use crate::table::{CommitInfo, Labels, Mode, TableWriter, WriteOptions};
        let place = "memory:///evaluate";
        let location = Location::parse(place).unwrap();
        let batch = RecordBatch::try_from_iter([
            ("Class", Arc::new(StringArray::from(vec!["sit", "sit", "walk", "walk"])) as ArrayRef),
            ("split", Arc::new(StringArray::from(vec!["train", "test", "train", "test"])) as _),
            ("cluster", Arc::new(Int32Array::from(vec![1, 1, 0, 1])) as _),
        ])
        .unwrap();
        let mut writer = TableWriter::begin(&location, WriteOptions::new(Mode::Append, "run-1")).await.unwrap();
        let labels = Labels { model: "3f1c".into(), labelled_at: std::time::SystemTime::UNIX_EPOCH };
        writer.sink(batch.schema(), labels).unwrap().write(&batch).await.unwrap();
        writer.commit(CommitInfo::default()).await.unwrap();

        let labels = Some("Class".to_string());
        let all = EvaluateArgs { labels: labels.clone(), by: Some("split".into()), ..arguments(place) };
        let found = evaluate(&all).await.unwrap();
        let accuracy: Vec<(&str, Option<f64>)> =
            found.parts.iter().map(|part| (part.part.as_str(), part.acc)).collect();
        assert_eq!(accuracy, [("all", Some(0.75)), ("test", Some(0.5)), ("train", Some(1.0))]);
        let conditions = vec!["split = 'train'".to_string(), "cluster > 0".to_string()];
        let some = evaluate(&EvaluateArgs { labels, conditions, ..arguments(place) }).await.unwrap();
        assert_eq!((some.rows, some.clusters), (1, BTreeMap::from([(1, 1)])));

        let message = |args: EvaluateArgs| async move { evaluate(&args).await.unwrap_err().to_string() };
        let e = message(arguments(place)).await;
        assert!(e.contains("--labels: Class, split, cluster"), "{e}");
        let e = message(EvaluateArgs { by: Some("nosuch".into()), labels: Some("Class".into()), ..arguments(place) });
        assert!(e.await.contains("no column \"nosuch\""));
        let wrong =
            EvaluateArgs { labels: Some("Class".into()), conditions: vec!["clustr > 1".into()], ..arguments(place) };
        let e = message(wrong).await;
        assert!(e.contains("--where \"clustr > 1\"") && e.contains("cluster"), "{e}");
    }

    #[test]
    fn rows_without_a_label_are_counted_and_left_out() {
        let evaluation = tally().evaluation("t".into(), "label".into()).unwrap();
        assert_eq!((evaluation.rows, evaluation.unlabelled), (13, 3));
        assert_eq!(evaluation.clusters, BTreeMap::from([(0, 6), (10, 6)]));
        let parts: Vec<(&str, u64)> = evaluation.parts.iter().map(|part| (part.part.as_str(), part.rows)).collect();
        assert_eq!(parts, [("all", 10), ("NULL", 0), ("test", 5), ("train", 5)]);
        assert_eq!(evaluation.parts[0].acc, Some(0.9));
        assert_eq!(evaluation.contingency[&0]["walk"], 1);
    }

    #[test]
    fn the_text_is_aligned() {
        insta::assert_snapshot!(tally().evaluation("out/t".into(), "label".into()).unwrap().to_text(), @r"
        13 rows of out/t, labels from label; 3 without a label are left out of the figures

        part   rows     ARI     NMI     ACC
        all      10  0.5970  0.6190  0.9000
        NULL      0       -       -       -
        test      5  1.0000  1.0000  1.0000
        train     5  0.0000  0.0000  0.8000

        cluster  size  sit  walk
        0           6    5     1
        10          6    .     4
        ");
    }

    #[test]
    fn no_rows_give_no_figures() {
        let none = Tally::default().evaluation("t".into(), "label".into()).unwrap();
        assert_eq!(none.parts, [Figures { part: "all".into(), rows: 0, ari: None, nmi: None, acc: None }]);
        assert!(none.to_text().contains("all      0    -    -    -"), "{}", none.to_text());
    }
}
