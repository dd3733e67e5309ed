//! Vectors as the result: pipelines that end with features, scaled features or embeddings, and their table.
//!
//! The test on real recordings reads the directory `hapt` under the one that DACPIPE_DATA names, and skips without it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dacpipe::Kind;
use dacpipe::column::vectors;
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::source::{self, BadRows, OnBadRow, SourceOptions};
use dacpipe::sql::{self, Options};
use dacpipe::stage::{EMBEDDING, FEATURES};
use dacpipe::store::Location;
use dacpipe::table::{LabelTable, Mode, OnExisting};
use dacpipe::vectors::VectorForm;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Float32Type;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

use crate::small_run::finish;

const ROWS: usize = 50;
/// Names that SQL and Parquet must accept unchanged; the last is one that every table has.
const NAMES: [&str; 6] = ["mean-x", "a.b", "say \"x\"", "größe, m", "Select", "model"];
/// The names of its columns.
const COLUMNS: [&str; 6] = ["mean-x", "a.b", "say \"x\"", "größe, m", "Select", "model_2"];

fn value(row: usize, at: usize) -> f32 {
    ((row * 37 + at * 11) % 101) as f32 / 7.0 - at as f32
}

fn values() -> Vec<f32> {
    (0..ROWS).flat_map(|row| (0..NAMES.len()).map(move |at| value(row, at))).collect()
}

/// Rows with a column of the source for each value.
fn write_rows(path: &Path) {
    let ids = Arc::new(Int64Array::from_iter_values(0..ROWS as i64)) as ArrayRef;
    let columns = NAMES.iter().enumerate().map(|(at, name)| {
        let values = Float32Array::from_iter_values((0..ROWS).map(|row| value(row, at)));
        (*name, Arc::new(values) as ArrayRef)
    });
    let batch = RecordBatch::try_from_iter(std::iter::once(("id", ids)).chain(columns)).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The text of a pipeline over those rows with these stages into `out`, and its file.
fn pipeline(dir: &Path, stages: &str, sink: &str) -> (String, PathBuf) {
    write_rows(&dir.join("rows.parquet"));
    let text = format!(
        "name = \"rows\"\nseed = 3\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = {NAMES:?}\nkeys = [\"id\"]\n\
         {stages}\n[sink]\npath = {:?}\n{sink}\n",
        dir.join("rows.parquet"),
        dir.join("out"),
    );
    let file = dir.join("rows.toml");
    std::fs::write(&file, &text).unwrap();
    (text, file)
}

async fn run(dir: &Path, stages: &str, sink: &str) -> RunReport {
    let (text, _) = pipeline(dir, stages, sink);
    let loaded = PipelineFile::parse("rows.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

const SCALE: &str = "[[stage]]\nkind = \"scale\"\nmethod = \"standard\"";
const NETWORK: &str = "[[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"autoencoder\"\nencoder = [4, 2]\nepochs = 3";
const KMEANS: &str = "[[stage]]\nkind = \"kmeans\"\nk = 3";

async fn session(dir: &Path) -> SessionContext {
    let ctx = SessionContext::new_with_config(sql::session_config());
    let place = dir.join("out").display().to_string();
    sql::register(&ctx, Options::new().table("rows", &place)).await.unwrap();
    ctx
}

async fn ask(ctx: &SessionContext, query: &str) -> RecordBatch {
    let batches = ctx.sql(query).await.unwrap_or_else(|e| panic!("{query}: {e}")).collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn names(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The values of these columns, row after row.
fn spread(batch: &RecordBatch, columns: &[impl AsRef<str>]) -> Vec<f32> {
    let columns: Vec<&[f32]> = columns
        .iter()
        .map(|name| {
            let column = batch.column_by_name(name.as_ref()).unwrap_or_else(|| panic!("no {:?}", name.as_ref()));
            assert_eq!(column.null_count(), 0);
            &column.as_primitive::<Float32Type>().values()[..]
        })
        .collect();
    (0..batch.num_rows()).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

/// The values of a table's column of lists, which are all of `dim` values.
fn lists(batch: &RecordBatch, name: &str, dim: i32) -> Vec<f32> {
    let lists = batch.column_by_name(name).unwrap().as_list::<i32>();
    assert!(lists.iter().all(|list| list.unwrap().len() == dim as usize));
    lists.values().as_primitive::<Float32Type>().values().to_vec()
}

async fn model_of(report: &RunReport) -> Model {
    Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap()
}

fn relabel(dir: &Path, report: &RunReport, vectors: Option<VectorForm>) -> Relabel {
    Relabel {
        model: report.model_path.clone(),
        input: dir.join("rows.parquet").display().to_string(),
        output: dir.join("new").display().to_string(),
        kind: None,
        features: None,
        keys: vec![],
        within: None,
        mode: Mode::Overwrite,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error: false,
        vectors,
        on_bad_row: OnBadRow::Fail,
        threads: Some(2),
        device: DeviceChoice::Cpu,
    }
}

#[tokio::test]
async fn scaled_features_are_columns_under_their_names_with_the_bits_of_the_stage() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), SCALE, "vectors = \"columns\"").await;
    assert_eq!((report.fit_rows, report.labelled_rows), (ROWS as u64, ROWS as u64));
    assert!(report.cluster_sizes.is_empty() && report.scores.is_empty());
    let written = report.vectors.clone().unwrap();
    assert_eq!((written.dim, written.column), (6, None));
    assert_eq!(written.names, COLUMNS);
    let on_disk: RunReport = serde_json::from_slice(&std::fs::read(dir.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(on_disk, report);

    let ctx = session(dir.path()).await;
    let all = ask(&ctx, "SELECT * FROM rows ORDER BY id").await;
    assert_eq!(names(&all), [&["id"][..], &COLUMNS[..], &["model", "labelled_at"]].concat());
    let model = model_of(&report).await;
    let expected = model.embed(&values()).unwrap();
    assert_eq!(spread(&all, &COLUMNS), expected);
    assert_ne!(expected, values(), "they are scaled");
    // By name in SQL, in filters too; and the model's own function over the source's columns.
    let quoted =
        ask(&ctx, "SELECT \"say \"\"x\"\"\", \"a.b\", \"größe, m\" FROM rows WHERE \"Select\" > 1 ORDER BY id").await;
    let chosen: Vec<usize> = (0..ROWS).filter(|row| expected[row * 6 + 4] > 1.0).collect();
    assert!(!chosen.is_empty() && chosen.len() < ROWS);
    let three = chosen.iter().flat_map(|row| [2, 1, 3].map(|at| expected[row * 6 + at])).collect::<Vec<_>>();
    assert_eq!(spread(&quoted, &["say \"x\"", "a.b", "größe, m"]), three);

    // New rows with only the model; a table with the same columns.
    let again = relabel(dir.path(), &report, Some(VectorForm::Columns)).run(&Control::default()).await.unwrap();
    assert_eq!((again.rows, again.cluster_sizes.len()), (ROWS as u64, 0));
    assert_eq!(again.vectors, report.vectors);
    let place = dir.path().join("new").display().to_string();
    sql::register(&ctx, Options::new().table("new", &place)).await.unwrap();
    assert_eq!(spread(&ask(&ctx, "SELECT * FROM new ORDER BY id").await, &COLUMNS), expected);
    let e = relabel(dir.path(), &report, None).run(&Control::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Config);
    assert!(e.to_string().contains("no clusters") && e.to_string().contains("--vectors list"), "{e}");
    let embedding = Relabel { embedding: true, ..relabel(dir.path(), &report, None) };
    let e = embedding.run(&Control::default()).await.unwrap_err();
    assert!(e.to_string().contains("no autoencoder") && e.to_string().contains("--vectors list"), "{e}");
}

#[tokio::test]
async fn a_list_holds_the_same_and_the_same_rows_are_not_appended_twice() {
    let dir = tempfile::tempdir().unwrap();
    let append = "vectors = \"list\"\nmode = \"append\"";
    let report = run(dir.path(), SCALE, append).await;
    let written = report.vectors.clone().unwrap();
    assert_eq!(written.column.as_deref(), Some(FEATURES));
    assert_eq!(written.names, NAMES, "a list has no columns to be told apart");
    let ctx = session(dir.path()).await;
    let all = ask(&ctx, "SELECT * FROM rows ORDER BY id").await;
    assert_eq!(names(&all), ["id", "features", "model", "labelled_at"]);
    let expected = model_of(&report).await.embed(&values()).unwrap();
    assert_eq!(lists(&all, FEATURES, 6), expected);
    assert!(ctx.table("rows_clusters").await.is_err(), "there are none");

    run(dir.path(), SCALE, append).await;
    let twice = ask(&session(dir.path()).await, "SELECT features FROM rows").await;
    assert_eq!(lists(&twice, FEATURES, 6), expected);
}

#[tokio::test]
async fn clusters_and_vectors_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &format!("{SCALE}\n{KMEANS}"), "vectors = \"columns\"").await;
    assert_eq!(report.cluster_sizes.iter().sum::<u64>(), ROWS as u64);
    let all = ask(&session(dir.path()).await, "SELECT * FROM rows ORDER BY id").await;
    let labels = ["cluster", "distance", "margin"];
    assert_eq!(names(&all), [&["id"][..], &labels[..], &COLUMNS, &["model", "labelled_at"]].concat());
    let model = model_of(&report).await;
    assert_eq!(spread(&all, &COLUMNS), model.embed(&values()).unwrap());
    assert_eq!(spread(&all, &["distance"]), model.assign(&values()).unwrap().distance);
}

#[tokio::test]
async fn an_embedding_is_a_product_too() {
    let dir = tempfile::tempdir().unwrap();
    let sink = "vectors = \"columns\"\nembedding = true\nreconstruction_error = true";
    let report = run(dir.path(), NETWORK, sink).await;
    let all = ask(&session(dir.path()).await, "SELECT * FROM rows ORDER BY id").await;
    let made = ["id", "reconstruction_error", "embedding", "embedding_0", "embedding_1", "model", "labelled_at"];
    assert_eq!(names(&all), made);
    let model = model_of(&report).await;
    let expected = model.embed(&values()).unwrap();
    assert_eq!(lists(&all, EMBEDDING, 2), expected);
    assert_eq!(spread(&all, &["embedding_0", "embedding_1"]), expected);
    assert_eq!(spread(&all, &["reconstruction_error"]), model.reconstruction_error(&values()).unwrap());
    // The same vectors asked for in both ways are written once.
    let report = run(dir.path(), NETWORK, "vectors = \"list\"\nembedding = true").await;
    assert_eq!(report.vectors.unwrap().column.as_deref(), Some(EMBEDDING));
    let all = ask(&session(dir.path()).await, "SELECT * FROM rows ORDER BY id").await;
    assert_eq!(names(&all), ["id", "embedding", "model", "labelled_at"]);
    // The reconstruction error alone is something to write.
    run(dir.path(), NETWORK, "reconstruction_error = true").await;
    let all = ask(&session(dir.path()).await, "SELECT * FROM rows ORDER BY id").await;
    assert_eq!(names(&all), ["id", "reconstruction_error", "model", "labelled_at"]);
}

/// The output of `dacpipe`, which must end with this exit code.
fn dacpipe(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    finish(Command::new(env!("CARGO_BIN_EXE_dacpipe")).args(args).current_dir(dir), code)
}

#[test]
fn the_command_says_what_it_wrote_and_what_cannot_be_asked_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_, file) = pipeline(dir.path(), SCALE, "vectors = \"columns\"");
    let file = file.to_str().unwrap();
    let (summary, _) = dacpipe(dir.path(), &["run", file, "--quiet"], 0);
    assert!(summary.contains("\n  rows      50 learned from, 50 written\n"), "{summary}");
    assert!(summary.contains("\n  vectors   6 values a row, a column each\n"), "{summary}");
    assert!(!summary.contains("clusters") && !summary.contains("against"), "{summary}");
    for form in ["columns", "list"] {
        let set = format!("sink.vectors={form}");
        let (summary, _) = dacpipe(dir.path(), &["run", file, "--quiet", "--set", &set], 0);
        // The last line is a command that can be pasted, names with quotes or not.
        let query = summary.trim_end().lines().last().unwrap().split('\'').nth(1).unwrap();
        let table = format!("rows={}", dir.path().join("out").display());
        assert!(summary.contains(&format!(" --table {table} ")), "{summary}");
        let (answer, _) = dacpipe(dir.path(), &["sql", "--table", &table, "--format", "csv", "-c", query], 0);
        assert_eq!(answer.lines().next(), Some("n,mean_of_first"), "{summary}");
        let mean: f64 = answer.lines().nth(1).unwrap().strip_prefix("50,").unwrap().parse().unwrap();
        assert!(mean.abs() < 1e-6, "scaled to mean 0: {mean}");
    }
    let (_, said) = dacpipe(dir.path(), &["evaluate", "out", "--labels", "id"], 4);
    assert!(said.contains("no clusters to compare") && said.contains("no kmeans stage"), "{said}");
    let label = |more: &[&str], code| {
        let model = std::fs::read_dir(dir.path().join("out/models")).unwrap().next().unwrap().unwrap().path();
        let model = model.display().to_string();
        let args =
            [&["label", "--model", &model, "--input", "rows.parquet", "--output", "new", "--quiet"], more].concat();
        dacpipe(dir.path(), &args, code)
    };
    let (said, _) = label(&["--vectors", "list"], 0);
    assert!(
        said.starts_with("50 rows written by model ") && said.contains("6 values a row, in column features"),
        "{said}"
    );
    assert!(label(&[], 3).1.contains("--vectors list or --vectors columns"));
    assert!(label(&["--reconstruction-error"], 5).1.contains("has no autoencoder, only scale"));
    let (_, said) = dacpipe(dir.path(), &["run", file, "--quiet", "--set", "sink.embedding=true"], 3);
    assert!(said.contains("no autoencoder stage whose embedding") && said.contains("writes the features"), "{said}");
}

/// A run of pipelines/hapt-features.toml over the recordings in `data`.
async fn hapt(data: &Path, out: &Path, sets: &[&str]) -> (RunReport, RecordBatch) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/hapt-features.toml");
    let mut all = vec![
        format!("source.path={:?}", data.display().to_string()),
        format!("sink.path={:?}", out.display().to_string()),
    ];
    all.extend(sets.iter().map(|set| set.to_string()));
    let plan = PipelineFile::load(&file, &all).unwrap_or_else(|e| panic!("{e}")).plan;
    let report = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"));
    let table = LabelTable::open(out.to_str().unwrap(), None).await.unwrap();
    let schema = table.schema();
    let ctx = SessionContext::new();
    ctx.register_table("t", Arc::new(table)).unwrap();
    let batches = ctx.sql("SELECT * FROM t ORDER BY experiment, start").await.unwrap().collect().await.unwrap();
    (report, concat_batches(&schema, &batches).unwrap())
}

#[tokio::test]
async fn recordings_become_a_table_of_their_features() {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt");
    let (report, table) = hapt(&data, dir.path(), &[]).await;
    assert_eq!((report.fit_rows, report.labelled_rows), (0, table.num_rows() as u64), "nothing is learned");
    assert!(report.stages.iter().all(|stage| stage.stage == "label"), "{:?}", report.stages);
    let columns = report.vectors.unwrap().names;
    assert_eq!(columns.len(), 561);
    assert_eq!(names(&table)[..5], ["experiment", "user", "start", "split", "activity"]);
    assert_eq!(names(&table)[5..566], columns);

    // What the features stage computes, straight from the source.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/hapt-features.toml");
    let set = format!("source.path={:?}", data.display().to_string());
    let plan = PipelineFile::load(&file, &[set]).unwrap_or_else(|e| panic!("{e}")).plan;
    let options = SourceOptions { window: plan.window, features: plan.features, ..SourceOptions::default() };
    let source = source::open(&plan.source, &options, Arc::new(BadRows::new())).await.unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("s", source.provider).unwrap();
    let query = "SELECT features FROM s WHERE activity IS NOT NULL ORDER BY experiment, start";
    let computed = ask(&ctx, query).await;
    assert_eq!(spread(&table, &columns), vectors(&computed, FEATURES).unwrap().0);
    // A model without stages takes features as they are.
    let model = Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
    assert_eq!((model.dim_in(), model.stages().len()), (561, 0));
    assert!(model.assign(&[0.0; 561]).unwrap_err().to_string().ends_with("no stage that labels rows, none at all"));
}

/// The first rows of the published table, which gives each feature between -1 and 1 by the extremes of all 10 929 windows,
/// to six decimals. A bit more than half a unit of the last may differ, for the table holds 32-bit floats.
#[tokio::test]
async fn the_columns_of_the_real_recordings_are_the_published_features() {
    let Some(data) = std::env::var_os("DACPIPE_DATA").map(|data| Path::new(&data).join("hapt")) else {
        println!("skipped: DACPIPE_DATA is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (report, table) = hapt(&data, dir.path(), &[]).await;
    assert_eq!((report.labelled_rows, report.simulated), (10_929, false));
    let columns = report.vectors.unwrap().names;
    let split = table.column_by_name("split").unwrap();
    let split = split.as_string::<i32>();
    let train: Vec<usize> = (0..table.num_rows()).filter(|&row| split.value(row) == "train").collect();
    assert_eq!(train.len(), 7_767);

    let text = std::fs::read_to_string(data.join("official_first_rows_train.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let published: Vec<Vec<&str>> = lines.collect();
    let (mut compared, mut worst) = (0, 0.0_f64);
    for (at, name) in header.iter().enumerate().filter(|(_, name)| !["row", "Activity"].contains(name)) {
        assert!(columns.iter().any(|column| column == name), "no column {name}");
        let column = table.column_by_name(name).unwrap().as_primitive::<Float32Type>().values();
        let of = |pick: fn(f64, f64) -> f64| column.iter().map(|x| f64::from(*x)).reduce(pick).unwrap();
        let (low, high) = (of(f64::min), of(f64::max));
        for (row, figures) in published.iter().enumerate() {
            let scaled = 2.0 * (f64::from(column[train[row]]) - low) / (high - low) - 1.0;
            worst = worst.max((scaled - figures[at].parse::<f64>().unwrap()).abs());
            compared += 1;
        }
    }
    println!("{compared} published figures, the largest difference {worst:.2e}");
    assert!(compared > 50 && worst <= 7e-7, "{compared} figures, largest difference {worst}");
}
