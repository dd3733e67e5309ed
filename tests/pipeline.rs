//! The whole pipeline through the library: from simulated recordings to a labelled table, repeated with changes that
//! must not matter.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dacpipe::Kind;
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::{Control, Event, Observer};
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::source::OnBadRow;
use dacpipe::sql::{self, Options};
use dacpipe::table::{Mode, OnExisting};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

/// A pipeline over the example recordings into `out`, short enough for a test.
fn pipeline(out: &Path, sets: &[&str]) -> Pipeline {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/hapt.toml");
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt");
    let mut all = vec![
        format!("source.path={:?}", recordings.display().to_string()),
        format!("sink.path={:?}", out.display().to_string()),
        "stage.autoencoder.epochs=6".to_string(),
        "stage.manifold.epochs=20".to_string(),
    ];
    all.extend(sets.iter().map(|s| s.to_string()));
    Pipeline::new(PipelineFile::load(&file, &all).unwrap_or_else(|e| panic!("{e}")).plan).unwrap()
}

async fn run(out: &Path, sets: &[&str]) -> RunReport {
    pipeline(out, sets).run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The table's rows as text, without the columns that differ between runs.
async fn labels(out: &Path) -> String {
    let ctx = SessionContext::new_with_config(sql::session_config());
    sql::register(&ctx, Options::new().table("hapt", out.to_str().unwrap())).await.unwrap();
    let query = "SELECT experiment, \"user\", start, activity, cluster, distance, margin, model FROM hapt \
                 ORDER BY experiment, start";
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

async fn one_figure(ctx: &SessionContext, query: &str) -> f64 {
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Float64Type>().value(0)
}

#[tokio::test]
async fn recordings_become_a_table_that_sql_agrees_with() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &[]).await;
    assert!(report.simulated);
    assert_eq!(report.cluster_sizes.iter().sum::<u64>(), report.labelled_rows);
    assert_eq!(report.cluster_sizes.len(), 12);
    assert!(report.labels_used);

    let ctx = SessionContext::new_with_config(sql::session_config());
    sql::register(&ctx, Options::new().table("hapt", dir.path().to_str().unwrap())).await.unwrap();
    let all = report.scores["all"];
    assert_eq!(one_figure(&ctx, "SELECT ari(cluster, activity) FROM hapt").await, all.ari);
    assert_eq!(one_figure(&ctx, "SELECT nmi(cluster, activity) FROM hapt").await, all.nmi);
    assert_eq!(one_figure(&ctx, "SELECT clustering_accuracy(cluster, activity) FROM hapt").await, all.acc.unwrap());
    let test = report.scores["test"].ari;
    assert_eq!(one_figure(&ctx, "SELECT ari(cluster, activity) FROM hapt WHERE split = 'test'").await, test);
    let rows = one_figure(&ctx, "SELECT CAST(count(*) AS DOUBLE) FROM hapt").await;
    assert_eq!(rows as u64, report.labelled_rows);
    let sizes = one_figure(&ctx, "SELECT CAST(sum(size) AS DOUBLE) FROM hapt_clusters").await;
    assert_eq!(sizes as u64, report.labelled_rows);
    assert!(all.ari > 0.2, "six epochs still find something: {}", all.ari);
    let on_disk: RunReport = serde_json::from_slice(&std::fs::read(dir.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(on_disk, report);
}

#[tokio::test]
async fn neither_threads_nor_memory_change_a_bit() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = run(dirs[0].path(), &["threads=1"]).await;
    let b = run(dirs[1].path(), &["threads=3"]).await;
    let c = run(dirs[2].path(), &["threads=2", "memory_limit=\"64 MiB\""]).await;
    assert_eq!(a.model, b.model);
    assert_eq!(a.model, c.model);
    let first = labels(dirs[0].path()).await;
    assert_eq!(first, labels(dirs[1].path()).await);
    assert_eq!(first, labels(dirs[2].path()).await);
    let other_seed = run(dirs[0].path(), &["seed=8"]).await;
    assert_ne!(a.model, other_seed.model);
    assert_eq!(other_seed.table_version, a.table_version + 1);
}

/// Interrupts the run when the autoencoder has done `after` epochs.
struct Interrupt {
    after: u64,
    epochs_seen: AtomicU64,
    control: Mutex<Option<Control>>,
}

impl Observer for Interrupt {
    fn event(&self, event: &Event) {
        if let Event::Progress { stage, done, .. } = event
            && stage == "autoencoder"
        {
            self.epochs_seen.fetch_add(1, Ordering::Relaxed);
            if *done == self.after {
                self.control.lock().unwrap().as_ref().unwrap().cancel();
            }
        }
    }
}

fn interrupting(after: u64) -> (Control, Arc<Interrupt>) {
    let observer = Arc::new(Interrupt { after, epochs_seen: AtomicU64::new(0), control: Mutex::new(None) });
    let control = Control::new(observer.clone());
    *observer.control.lock().unwrap() = Some(control.clone());
    (control, observer)
}

#[tokio::test]
async fn an_interrupted_run_goes_on_to_the_same_bits() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(whole.path(), &[]).await;

    let (control, _) = interrupting(3);
    let options = RunOptions { resume: false, control };
    let e = pipeline(broken.path(), &[]).run(&options).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    assert!(!broken.path().join("_delta_log").join("00000000000000000000.json").exists(), "nothing is committed");

    let (control, seen) = interrupting(u64::MAX);
    let options = RunOptions { resume: true, control };
    let resumed = pipeline(broken.path(), &[]).run(&options).await.unwrap();
    assert_eq!(resumed.model, expected.model);
    assert_eq!(labels(broken.path()).await, labels(whole.path()).await);
    assert_eq!(seen.epochs_seen.load(Ordering::Relaxed), 3, "the first three epochs are not trained again");

    let (again, notes) = resumed_with_notes(pipeline(broken.path(), &[])).await;
    assert_eq!((again.run, again.table_version), (resumed.run, 0));
    assert!(notes[0].contains("nothing is left to do"), "{notes:?}");
}

/// Keeps the notes of a run.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn event(&self, event: &Event) {
        if let Event::Note { message } = event {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

async fn resumed_with_notes(pipeline: Pipeline) -> (RunReport, Vec<String>) {
    let notes = Arc::new(Notes::default());
    let options = RunOptions { resume: true, control: Control::new(notes.clone()) };
    let report = pipeline.run(&options).await.unwrap_or_else(|e| panic!("{e}"));
    let notes = notes.0.lock().unwrap().clone();
    (report, notes)
}

/// A supervisor repeats the same command line.
#[tokio::test]
async fn a_resumed_run_starts_where_there_is_nothing_to_go_on_with_and_ends_once() {
    let dir = tempfile::tempdir().unwrap();
    let append = || vector_pipeline(dir.path(), &["sink.mode=append"]).unwrap();
    let (first, notes) = resumed_with_notes(append()).await;
    assert_eq!((first.table_version, first.labelled_rows), (0, 60));
    assert!(notes.len() == 1 && notes[0].contains("no interrupted run") && notes[0].contains("started"), "{notes:?}");
    for _ in 0..2 {
        let (again, notes) = resumed_with_notes(append()).await;
        assert_eq!((again.run, again.table_version), (first.run.clone(), 0));
        assert!(notes.len() == 1 && notes[0].contains("nothing is left to do"), "{notes:?}");
    }
    let other = vector_pipeline(dir.path(), &["sink.mode=append", "seed=99"]).unwrap();
    let (other, notes) = resumed_with_notes(other).await;
    assert_eq!(other.table_version, 1, "another pipeline is another run");
    assert!(notes[0].contains("started"), "{notes:?}");
}

#[tokio::test]
async fn a_file_that_is_not_the_runs_own_report_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let again = || vector_pipeline(dir.path(), &[]).unwrap();
    again().run(&RunOptions::default()).await.unwrap();
    let place = dir.path().join("out/run.json");
    std::fs::write(&place, "{\"mine\": 1}").unwrap();
    let e = again().run(&RunOptions::default()).await.unwrap_err();
    assert!(e.to_string().contains("run.json is not by dacpipe"), "{e}");
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "{\"mine\": 1}");
    #[cfg(unix)]
    {
        std::fs::rename(&place, dir.path().join("mine.json")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("mine.json"), &place).unwrap();
        let e = again().run(&RunOptions::default()).await.unwrap_err();
        assert!(e.to_string().contains("run.json is a link"), "{e}");
        assert!(place.is_symlink());
    }
}

/// Raw k-means learns from the rows of the autoencoder, and its seconds are its own.
#[tokio::test]
async fn the_seconds_of_the_steps_are_within_those_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &[]).await;
    let steps: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    assert!(report.stages.iter().any(|stage| stage.stage == "raw k-means"));
    assert!(steps <= report.seconds, "{steps} s in steps, {} s in all", report.seconds);
}

#[tokio::test]
async fn a_changed_pipeline_does_not_resume() {
    let dir = tempfile::tempdir().unwrap();
    let observer = Arc::new(AtScaling::default());
    let control = Control::new(observer.clone());
    *observer.0.lock().unwrap() = Some(control.clone());
    let pipeline = |sets: &[&str]| vector_pipeline(dir.path(), sets).unwrap();
    let e = pipeline(&[]).run(&RunOptions { resume: false, control }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    // Refused before any note of resuming, and before the source is read.
    for set in ["stage.kmeans.k=3", "seed=99", "on_bad_row=\"quarantine\""] {
        let notes = Arc::new(Notes::default());
        let options = RunOptions { resume: true, control: Control::new(notes.clone()) };
        let e = pipeline(&[set]).run(&options).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Config, "{set}");
        assert!(e.to_string().contains("the pipeline file changed"), "{set}: {e}");
        assert!(notes.0.lock().unwrap().is_empty(), "{set}");
    }
    let (_, notes) = resumed_with_notes(pipeline(&[])).await;
    assert!(notes.len() == 1 && notes[0].contains("goes on with the run in"), "{notes:?}");
}

/// Interrupts the run when the rows are there.
#[derive(Default)]
struct AtScaling(Mutex<Option<Control>>);

impl Observer for AtScaling {
    fn event(&self, event: &Event) {
        if let Event::Started { stage, .. } | Event::Finished { stage, .. } = event
            && stage == "scale"
        {
            self.0.lock().unwrap().as_ref().unwrap().cancel();
        }
    }
}

/// Nor does a run whose data changed, which is known once they were read.
#[tokio::test]
async fn changed_data_do_not_resume() {
    let dir = tempfile::tempdir().unwrap();
    let observer = Arc::new(AtScaling::default());
    let control = Control::new(observer.clone());
    *observer.0.lock().unwrap() = Some(control.clone());
    let run = vector_pipeline(dir.path(), &[]).unwrap();
    let e = run.run(&RunOptions { resume: false, control }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled, "{e}");
    let notes = Arc::new(Notes::default());
    let options = RunOptions { resume: true, control: Control::new(notes.clone()) };
    write_vectors(dir.path(), 0.01);
    let e = run.run(&options).await.unwrap_err();
    assert!(e.kind() == Kind::Config && e.to_string().contains("or its data changed"), "{e}");
    assert!(notes.0.lock().unwrap().is_empty());
}

/// Feature vectors in two groups, half of them for learning, with a label column that could serve as the split.
fn vectors(dir: &Path) -> PathBuf {
    write_vectors(dir, 0.0)
}

/// The same, with `offset` added to each value.
fn write_vectors(dir: &Path, plus: f32) -> PathBuf {
    let group = |i: usize| plus + if i.is_multiple_of(3) { 0.9 } else { 0.1 };
    let value = |i: usize, j: usize| group(i) + (i * 7 + j) as f32 % 5.0 / 100.0;
    let values = (0..60).flat_map(|i| (0..4).map(move |j| value(i, j))).collect();
    let text = |of: fn(usize) -> &'static str| Arc::new((0..60).map(|i| Some(of(i))).collect::<StringArray>());
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..60)) as ArrayRef),
        ("part", text(|i| if i < 30 { "learn" } else { "later" })),
        ("kind", text(|i| if i.is_multiple_of(3) { "high" } else { "low" })),
        ("values", dacpipe::column::vector_array(values, 4).unwrap()),
    ])
    .unwrap();
    let path = dir.join("vectors.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

/// A pipeline over those vectors, without an autoencoder.
fn vector_pipeline(dir: &Path, sets: &[&str]) -> Result<Pipeline, String> {
    let file = dir.join("vectors.toml");
    let text = format!(
        "name = \"vectors\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = \"values\"\nlabel = \"kind\"\n\
         keys = [\"id\"]\nsplit = \"part\"\n[[stage]]\nkind = \"scale\"\nmethod = \"min_max\"\n\
         [[stage]]\nkind = \"kmeans\"\nk = 2\n[split]\nfit = \"learn\"\n[sink]\npath = {:?}\n",
        vectors(dir),
        dir.join("out"),
    );
    std::fs::write(&file, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
    let plan = PipelineFile::load(&file, &sets).map_err(|e| e.to_string())?.plan;
    Pipeline::new(plan).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_part_without_rows_names_those_that_have_some() {
    let dir = tempfile::tempdir().unwrap();
    for (set, named) in [("split.fit=\"laern\"", "\"laern\""), ("split.label=\"latre\"", "\"latre\"")] {
        let pipeline = vector_pipeline(dir.path(), &[set]).unwrap();
        let e = pipeline.run(&RunOptions::default()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Input);
        assert!(e.to_string().contains(named) && e.to_string().contains("later, learn"), "{e}");
        assert!(!dir.path().join("out/_delta_log/00000000000000000000.json").exists(), "nothing is committed");
    }
}

/// One pass in batches of 8 rows, with the same bits on any number of threads, and others for another half-life.
#[tokio::test]
async fn clusters_may_be_learned_in_one_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for (threads, half_life) in [(1, "12 rows"), (3, "12 rows"), (1, "100 batches")] {
        let (threads, half_life) = (format!("threads={threads}"), format!("stage.kmeans.half_life={half_life:?}"));
        let sets =
            ["stage.kmeans.method=online", "stage.kmeans.batch_size=8", "sink.mode=overwrite", &half_life, &threads];
        let report = vector_pipeline(dir.path(), &sets).unwrap().run(&RunOptions::default()).await.unwrap();
        assert_eq!((report.fit_rows, report.labelled_rows, report.scores["later"].ari), (30, 60, 1.0));
        models.push(report.model);
    }
    assert!(models[0] == models[1] && models[0] != models[2], "{models:?}");
    let e = vector_pipeline(dir.path(), &["stage.kmeans.method=online", "stage.kmeans.half_life=2 h"]).err().unwrap();
    assert!(e.contains("a half-life of 2 h") && e.contains("help: a number of rows or batches"), "{e}");
}

#[tokio::test]
async fn the_split_may_be_any_column_that_holds_classes() {
    let dir = tempfile::tempdir().unwrap();
    let report = vector_pipeline(dir.path(), &[]).unwrap().run(&RunOptions::default()).await.unwrap();
    assert_eq!((report.fit_rows, report.labelled_rows), (30, 60));
    assert_eq!((report.scores["learn"].rows, report.scores["later"].ari), (30, 1.0));
    let by_kind = ["split.column=\"kind\"", "split.fit=\"low\"", "split.label=\"high\""];
    let report = vector_pipeline(dir.path(), &by_kind).unwrap().run(&RunOptions::default()).await.unwrap();
    assert_eq!((report.fit_rows, report.labelled_rows), (40, 20));
}

#[tokio::test]
async fn what_does_not_fit_the_table_is_known_before_anything_is_learned() {
    let dir = tempfile::tempdir().unwrap();
    vector_pipeline(dir.path(), &["sink.mode=append"]).unwrap().run(&RunOptions::default()).await.unwrap();
    // The table has no column `part` any more, so rows with other columns do not fit.
    let other = ["sink.mode=append", "sink.keys=[\"id\", \"part\"]", "sink.partition_by=[\"part\"]"];
    let (control, observer) = interrupting(u64::MAX);
    let options = RunOptions { resume: false, control };
    let e = vector_pipeline(dir.path(), &other).unwrap().run(&options).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table, "{e}");
    assert_eq!(observer.epochs_seen.load(Ordering::Relaxed), 0);
    let e = vector_pipeline(dir.path(), &["sink.embedding=true"]).unwrap_err();
    assert!(e.contains("no autoencoder"), "{e}");
    let e = vector_pipeline(dir.path(), &["sink.keys=[\"id\"]", "sink.partition_by=[\"values\"]"]).unwrap_err();
    assert!(e.contains("values"), "{e}");
}

/// Makes a directory once the run has begun.
struct InTheWay(PathBuf);

impl Observer for InTheWay {
    fn event(&self, _: &Event) {
        std::fs::create_dir_all(&self.0).unwrap();
    }
}

/// The process dies between the commit and the end of the run: resuming completes it, and its rows are in the table
/// once.
#[tokio::test]
async fn a_run_that_died_after_its_commit_is_not_committed_again() {
    let dir = tempfile::tempdir().unwrap();
    let append = || vector_pipeline(dir.path(), &["sink.mode=append"]).unwrap();
    append().run(&RunOptions::default()).await.unwrap();
    // run.json cannot be written because a directory of that name is made during the run.
    std::fs::remove_file(dir.path().join("out/run.json")).unwrap();
    let control = Control::new(Arc::new(InTheWay(dir.path().join("out/run.json/in the way"))));
    let e = append().run(&RunOptions { resume: false, control }).await.unwrap_err();
    assert!(e.to_string().contains("version 1") && e.to_string().contains("is committed"), "{e}");
    std::fs::remove_dir_all(dir.path().join("out/run.json")).unwrap();
    let options = RunOptions { resume: true, ..RunOptions::default() };
    let report = append().run(&options).await.unwrap();
    // Its rows have keys, which the first run had labelled.
    assert_eq!((report.table_version, report.labelled_rows, report.skipped_rows), (1, 0, 60));
    let ctx = SessionContext::new_with_config(sql::session_config());
    let path = dir.path().join("out");
    sql::register(&ctx, Options::new().table("t", path.to_str().unwrap())).await.unwrap();
    assert_eq!(one_figure(&ctx, "SELECT CAST(count(*) AS DOUBLE) FROM t").await, 60.0);
    assert!(path.join("run.json").is_file() && !path.join("_run").exists());
}

#[tokio::test]
async fn more_clusters_than_rows_is_an_error_that_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let e = pipeline(dir.path(), &["stage.kmeans.k=100000"]).run(&RunOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input, "{e}");
    assert!(e.to_string().contains("100000"), "{e}");
}

/// Known once the rows are read, and not after an hour of training.
#[tokio::test]
async fn more_clusters_than_distinct_rows_is_an_error_before_anything_is_learned() {
    let dir = tempfile::tempdir().unwrap();
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..60))),
        ("values", dacpipe::column::vector_array((0..60).flat_map(|i| [(i % 5) as f32, 1.0]).collect(), 2).unwrap()),
    ];
    let pipeline = |k: &str| vector_pipeline(dir.path(), &[&format!("stage.kmeans.k={k}"), "split.fit=all"]).unwrap();
    let few = |k: &str| {
        let pipeline = pipeline(k);
        let batch = RecordBatch::try_from_iter(columns.clone()).unwrap();
        let text = |name: &str| Arc::new(StringArray::from(vec![name; 60])) as ArrayRef;
        let more = [("part", text("learn")), ("kind", text("one"))].into_iter();
        let schema = batch.schema();
        let columns = schema.fields().iter().map(|f| f.name().clone()).zip(batch.columns().to_vec());
        let all = columns.chain(more.map(|(name, values)| (name.to_owned(), values)));
        let batch = RecordBatch::try_from_iter(all).unwrap();
        let file = std::fs::File::create(dir.path().join("vectors.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        pipeline
    };
    let observer = Arc::new(AtScaling::default());
    let control = Control::new(observer.clone());
    *observer.0.lock().unwrap() = Some(control.clone());
    // It would be cancelled by the first stage that learns.
    let e = few("6").run(&RunOptions { resume: false, control }).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input, "{e}");
    let said = "stage kmeans: k = 6 clusters need 6 distinct rows, only 5 of the 60 rows are distinct";
    assert!(e.to_string().contains(said), "{e}");
    let report = few("5").run(&RunOptions::default()).await.unwrap();
    assert_eq!(report.cluster_sizes, [12; 5]);
}

/// The pipeline for sensor CSV, whose rate is inferred from its times, and its model on recordings of another rate.
#[tokio::test]
async fn a_model_refuses_recordings_of_another_sampling_rate() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("pipelines/sensor-csv.toml")).unwrap();
    let file = dir.path().join("pump.toml");
    std::fs::write(&file, text.replace("rate_hz = 50\n", "")).unwrap();
    let data = root.join("examples/data/pump.csv");
    let sets = [
        format!("source.path={:?}", data.display().to_string()),
        format!("sink.path={:?}", dir.path().join("pump").display().to_string()),
        "stage.autoencoder.epochs=2".to_string(),
        "stage.manifold.epochs=20".to_string(),
    ];
    let plan = PipelineFile::load(&file, &sets).unwrap_or_else(|e| panic!("{e}")).plan;
    let report = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap();
    assert!(!report.labels_used && report.labelled_rows > 100, "{report:?}");

    let label = |input: &Path| Relabel {
        model: report.model_path.clone(),
        input: input.display().to_string(),
        output: dir.path().join("new").display().to_string(),
        kind: None,
        features: None,
        keys: vec![],
        within: None,
        mode: Mode::Overwrite,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error: false,
        vectors: None,
        on_bad_row: OnBadRow::Fail,
        threads: Some(2),
        device: DeviceChoice::Cpu,
    };
    assert_eq!(label(&data).run(&Control::default()).await.unwrap().rows, report.labelled_rows);
    // The same samples, said to be taken twice as often.
    let recorded = std::fs::read_to_string(&data).unwrap();
    let at = recorded.lines().next().unwrap().split(',').position(|name| name == "time_ms").unwrap();
    let faster = |line: &str| {
        let mut fields: Vec<String> = line.split(',').map(String::from).collect();
        if let Ok(time) = fields[at].parse::<f64>() {
            fields[at] = (time / 2.0).to_string();
        }
        fields.join(",") + "\n"
    };
    let input = dir.path().join("faster.csv");
    std::fs::write(&input, recorded.lines().map(faster).collect::<String>()).unwrap();
    let e = label(&input).run(&Control::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert!(e.to_string().contains("rate_hz is 50") && e.to_string().contains("100"), "{e}");
}

fn real_data() -> Option<PathBuf> {
    match std::env::var_os("DACPIPE_DATA") {
        Some(path) => Some(path.into()),
        None => {
            eprintln!("skipped: DACPIPE_DATA names no directory of real data");
            None
        }
    }
}

#[tokio::test]
async fn real_recordings_from_raw_text_to_table() {
    let Some(data) = real_data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = format!("source.path={:?}", data.join("hapt").display().to_string());
    let report = run(dir.path(), &[&path, "stage.autoencoder.epochs=10"]).await;
    assert!(!report.simulated);
    assert_eq!((report.fit_rows, report.labelled_rows), (7767, 10929));
    assert_eq!((report.scores["train"].rows, report.scores["test"].rows), (7767, 3162));
    let (dac, raw) = (report.scores["test"].ari, report.raw_kmeans["test"].ari);
    assert!(raw > 0.3 && raw < 0.55, "raw k-means on the test users: {raw}");
    assert!(dac > 0.3, "ten epochs: {dac}");
}
