//! The examples, run as their first lines say, on the table of a small run of pipelines/hapt.toml.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dacpipe::stage::FEATURES;
use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch};
use datafusion::arrow::datatypes::Float64Type;
use parquet::arrow::ArrowWriter;

use crate::small_run::{SmallRun, finish, small_run};

/// The program of an example, which `cargo test` builds with the tests, but `cargo test --test all` does not.
fn example(run: &SmallRun, name: &str) -> Option<Command> {
    let tests = std::env::current_exe().unwrap();
    let directory = tests.parent().and_then(Path::parent).unwrap().join("examples");
    let program = directory.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        eprintln!("skipped: {} is not built; cargo test, or cargo build --examples, builds it", program.display());
        return None;
    }
    Some(run.command(program))
}

/// A Parquet file of two rows of `width` features as lists of doubles, the way that other tools write vectors.
fn doubles(path: &Path, width: usize) {
    let vectors = (0..2).map(|row| Some((0..width).map(|i| Some((row * i) as f64 / width as f64)).collect::<Vec<_>>()));
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef),
        (FEATURES, Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(vectors)) as _),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn etl_gives_the_labels_of_the_run() {
    let run = small_run();
    let Some(mut etl) = example(&run, "etl") else { return };
    let (said, _) = finish(&mut etl, 0);
    assert!(said.starts_with("out/hapt-clusters.parquet: "), "{said}");
    assert!(!run.path().join("out/hapt-clusters.parquet.unfinished").exists());

    let ask =
        |query| run.dacpipe(&["sql", "--table", "etl=out/hapt-clusters.parquet", "--format", "csv", "-c", query]).0;
    let described = ask("DESCRIBE etl");
    let columns: Vec<&str> = described.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(columns, ["experiment", "user", "split", "activity", "start", "cluster", "distance", "margin"]);
    let same = "SELECT count(*) AS pairs, (SELECT count(*) FROM etl) AS etl, (SELECT count(*) FROM hapt) AS hapt \
                FROM etl JOIN hapt USING (experiment, \"user\", start, cluster, distance, margin)";
    let counts = ask(same);
    let counts: Vec<&str> = counts.lines().nth(1).unwrap().split(',').collect();
    assert!(counts[0] != "0" && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn etl_reads_lists_of_doubles_and_says_what_is_wrong() {
    let run = small_run();
    let models = std::fs::read_dir(run.path().join("out/hapt/models")).unwrap();
    let model: PathBuf = models.map(|entry| entry.unwrap().path()).next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (good, narrow) = (dir.path().join("good.parquet"), dir.path().join("narrow.parquet"));
    doubles(&good, 561);
    doubles(&narrow, 560);
    let output = dir.path().join("output.parquet");
    let etl = |model: &Path, input: &Path, code: i32| {
        let mut etl = example(&run, "etl")?;
        Some(finish(etl.args([model, input, &output]), code))
    };
    let Some((said, _)) = etl(&model, &good, 0) else { return };
    assert!(said.contains("output.parquet: 2 rows of "), "{said}");
    std::fs::remove_file(&output).unwrap();

    let message = |model: &Path, input: &Path, code: i32| etl(model, input, code).unwrap().1;
    let e = message(&model, &narrow, 4);
    assert!(e.contains("narrow.parquet: ") && e.contains("560"), "{e}");
    let e = message(&model, &dir.path().join("nowhere.parquet"), 4);
    assert!(e.contains("nowhere.parquet: cannot be opened"), "{e}");
    let e = message(&dir.path().join("nowhere"), &good, 5);
    assert!(e.contains("no model at"), "{e}");
    let e = message(&model, &run.path().join("pipelines/hapt.toml"), 4);
    assert!(e.contains("hapt.toml: ") && e.contains("Parquet"), "{e}");
    assert!(!output.exists());
    let (_, e) = finish(example(&run, "etl").unwrap().arg("one"), 3);
    assert!(e.contains("expected MODEL INPUT.parquet OUTPUT.parquet"), "{e}");
}

#[test]
fn sql_answers_its_three_questions() {
    let run = small_run();
    let Some(mut sql) = example(&run, "sql") else { return };
    let (answers, _) = finish(&mut sql, 0);
    assert_eq!(answers.matches("\nSELECT ").count() + 1, 3, "{answers}");
    for column in ["| spread ", "| ari(hapt.cluster,hapt.activity) ", "| oddness "] {
        assert!(answers.contains(column), "no {column:?} in {answers}");
    }
}

#[test]
fn a_custom_stage_runs_and_is_saved_with_the_model() {
    let run = small_run();
    let Some(mut custom_stage) = example(&run, "custom_stage") else { return };
    let (said, _) = finish(&mut custom_stage, 0);
    assert!(
        said.starts_with("stages: clip -> scale -> feature_weights -> manifold -> autoencoder -> kmeans\n"),
        "{said}"
    );
    assert!(said.contains(": 561 values in, 6 stages\n"), "{said}");
}
