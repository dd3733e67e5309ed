//! Missing values by a declared policy.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type};
use dacpipe::column::{vector_array, vector_field};
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::report::summary::summary;
use dacpipe::source::OnBadRow;
use dacpipe::stage::FEATURES;
use dacpipe::store::Location;
use dacpipe::table::{LabelTable, Mode, OnExisting};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DIM: usize = 4;
const NAMES: [&str; DIM] = ["a", "b", "c", "d"];

/// Rows of three groups, of which some values are missing; NaN here.
fn values(rows: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(11);
    let mut value = |row: usize, at: usize| {
        let center = ((row % 3) * 10 + at) as f32;
        let missing = at != 3 && row > 5 && rng.random_bool(0.1);
        let noise: f32 = rng.random_range(-1.0..1.0);
        if missing { f32::NAN } else { center + noise }
    };
    (0..rows * DIM).map(|i| value(i / DIM, i % DIM)).collect()
}

/// Half of what is missing is null, and half NaN.
fn write(path: &Path, values: &[f32]) {
    let rows = values.len() / DIM;
    let mut columns: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(Int64Array::from_iter_values(0..rows as i64)))];
    for (at, name) in NAMES.iter().enumerate() {
        let column = values.iter().skip(at).step_by(DIM).enumerate();
        let column = column.map(|(row, value)| (!value.is_nan() || row % 2 == 0).then_some(*value));
        columns.push((name, Arc::new(column.collect::<Float32Array>())));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn loaded(dir: &Path, file: &str, out: &str, more: &str) -> Result<Pipeline, String> {
    let text = format!(
        "name = \"t\"\nseed = 5\n{more}\n[source]\nkind = \"parquet\"\npath = {:?}\n\
         features = [\"a\", \"b\", \"c\", \"d\"]\nkeys = [\"id\"]\n[[stage]]\nkind = \"scale\"\nmethod = \"min_max\"\n\
         [[stage]]\nkind = \"autoencoder\"\nencoder = [8, 2]\nepochs = 3\n[[stage]]\nkind = \"kmeans\"\nk = 3\n\
         [sink]\npath = {:?}\n",
        dir.join(file).display().to_string(),
        dir.join(out).display().to_string()
    );
    let loaded = PipelineFile::parse("t.toml", &text, &[], &|_| None).map_err(|e| e.to_string())?;
    Ok(Pipeline::new(loaded.plan).unwrap())
}

/// By id: cluster, and the bits of distance and margin.
async fn labels(table: &Path) -> Vec<(i64, i32, u32, u32)> {
    let ctx = SessionContext::new();
    let table = LabelTable::open(table.to_str().unwrap(), None).await.unwrap();
    let rows = ctx.read_table(Arc::new(table)).unwrap();
    let rows = rows.select_columns(&["id", "cluster", "distance", "margin"]).unwrap().collect().await.unwrap();
    let mut found = Vec::new();
    for batch in rows {
        let id = batch.column(0).as_primitive::<Int64Type>();
        let cluster = batch.column(1).as_primitive::<Int32Type>();
        let bits = |column: usize, row: usize| batch.column(column).as_primitive::<Float32Type>().value(row).to_bits();
        found.extend((0..batch.num_rows()).map(|r| (id.value(r), cluster.value(r), bits(2, r), bits(3, r))));
    }
    found.sort_unstable();
    found
}

/// A missing value is as good as the mean of its feature: the labels have the bits of those of rows in which the means were
/// written, and the command, SQL and the library agree on them.
#[tokio::test(flavor = "multi_thread")]
async fn means_stand_for_missing_values_in_command_sql_and_library_alike() {
    let dir = tempfile::tempdir().unwrap();
    let values = values(240);
    write(&dir.path().join("gaps.parquet"), &values);
    let mean = |at: usize| {
        let there: Vec<f64> =
            values.iter().skip(at).step_by(DIM).filter(|v| !v.is_nan()).map(|v| f64::from(*v)).collect();
        (there.iter().sum::<f64>() / there.len() as f64) as f32
    };
    let means: Vec<f32> = (0..DIM).map(mean).collect();
    let filled: Vec<f32> =
        values.iter().enumerate().map(|(i, v)| if v.is_nan() { means[i % DIM] } else { *v }).collect();
    write(&dir.path().join("filled.parquet"), &filled);

    // Without a policy the rows are bad.
    let e = loaded(dir.path(), "gaps.parquet", "none", "").unwrap().run(&RunOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), dacpipe::Kind::Input);
    let run = async |file: &str, out: &str, more: &str| {
        loaded(dir.path(), file, out, more).unwrap().run(&RunOptions::default()).await.unwrap()
    };
    let report = run("gaps.parquet", "gaps", "missing = \"mean\"").await;
    let plain = run("filled.parquet", "filled", "").await;
    assert_eq!((report.labelled_rows, report.quarantined_rows), (240, 0));
    let found = labels(&dir.path().join("gaps")).await;
    assert_eq!(found, labels(&dir.path().join("filled")).await);
    assert_ne!(report.model, plain.model, "the means are part of the model");
    counted(&report, &values);

    // dacpipe label, of the file with gaps.
    let relabel = Relabel {
        model: report.model_path.clone(),
        input: dir.path().join("gaps.parquet").display().to_string(),
        output: dir.path().join("again").display().to_string(),
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
    relabel.run(&Control::default()).await.unwrap();
    assert_eq!(found, labels(&dir.path().join("again")).await);

    // The library and SQL, where a missing value is NaN.
    let model = Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![vector_field(FEATURES, DIM)]));
    let batch = RecordBatch::try_new(schema, vec![vector_array(values.clone(), DIM).unwrap()]).unwrap();
    let ctx = SessionContext::new();
    dacpipe::sql::register(&ctx, dacpipe::sql::Options::new()).await.unwrap();
    ctx.register_batch("rows", batch.clone()).unwrap();
    let sql = format!("SELECT dac_assign('{}', features) AS found FROM rows", report.model_path);
    let by_sql = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let by_sql = arrow::compute::concat_batches(&by_sql[0].schema(), &by_sql).unwrap();
    let by_sql = by_sql.column(0).as_struct();
    let by_library = model.apply(&batch).unwrap();
    for (row, (_, cluster, distance, margin)) in found.iter().enumerate() {
        for column in [by_sql.column_by_name("cluster"), by_library.column_by_name("cluster")] {
            assert_eq!(column.unwrap().as_primitive::<Int32Type>().value(row), *cluster);
        }
        for (name, bits) in [("distance", distance), ("margin", margin)] {
            for column in [by_sql.column_by_name(name), by_library.column_by_name(name)] {
                assert_eq!(column.unwrap().as_primitive::<Float32Type>().value(row).to_bits(), *bits, "{name} {row}");
            }
        }
    }
    // The means of the clusters are of values, too.
    let ctx = SessionContext::new();
    let options = dacpipe::sql::Options::new().table("t", dir.path().join("gaps").to_str().unwrap());
    dacpipe::sql::register(&ctx, options).await.unwrap();
    let nothing = ctx.sql("SELECT * FROM cluster_profile('t') WHERE isnan(mean) OR isnan(std)").await.unwrap();
    assert_eq!(nothing.count().await.unwrap(), 0);
}

/// The missing values are counted by feature, in run.json and in the summary.
fn counted(report: &RunReport, values: &[f32]) {
    let figures = &report.stages.iter().find(|stage| stage.stage == "impute").unwrap().figures;
    let said = summary(report);
    for (at, name) in NAMES.iter().enumerate() {
        let missing = values.iter().skip(at).step_by(DIM).filter(|value| value.is_nan()).count() as u64;
        assert_eq!(figures["missing"].get(name).and_then(|count| count.as_u64()).unwrap_or(0), missing, "{name}");
        assert_eq!(said.contains(&format!("{name} ({missing})")), missing > 0, "{said}");
    }
    assert!(said.contains("became the mean of their feature"), "{said}");
}

/// A row without any value has nothing to be learned from, whatever the policy; nor is infinity a missing value.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_values_and_infinity_are_bad_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = values(60);
    values[8 * DIM..9 * DIM].fill(f32::NAN);
    values[20 * DIM] = f32::INFINITY;
    write(&dir.path().join("x.parquet"), &values);
    let more = "missing = \"mean\"\non_bad_row = \"quarantine\"";
    let run = loaded(dir.path(), "x.parquet", "out", more).unwrap();
    let report = run.run(&RunOptions::default()).await.unwrap();
    assert_eq!((report.labelled_rows, report.quarantined_rows), (58, 2));
    let place = Location::parse(&dir.path().join("out").display().to_string()).unwrap();
    let table = LabelTable::open_at(&place, None).await.unwrap();
    let aside = dacpipe::table::Quarantine::open(&place, Some(table.snapshot())).await.unwrap().rows().await.unwrap();
    let reasons = arrow::compute::cast(aside[0].column_by_name("reason").unwrap(), &arrow::datatypes::DataType::Utf8);
    let reasons = reasons.unwrap();
    let reasons = reasons.as_string::<i32>();
    assert!(reasons.value(0).contains("all values are missing"), "{}", reasons.value(0));
    assert!(reasons.value(1).contains("finite"), "{}", reasons.value(1));
}

fn recording(dir: &Path, out: &str, more: &str) -> Result<Pipeline, String> {
    let text = format!(
        "name = \"t\"\non_bad_row = \"quarantine\"\n{more}\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\", \"y\"]\n\
         time = \"t\"\ntime_unit = \"s\"\nrate_hz = 1\n[[stage]]\nkind = \"window\"\nlength = 2\nstride = 2\n\
         within = \"recordings\"\n[[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\nvectors = \"list\"\n",
        dir.join("in").display().to_string(),
        dir.join(out).display().to_string()
    );
    let loaded = PipelineFile::parse("t.toml", &text, &[], &|_| None).map_err(|e| e.to_string())?;
    Ok(Pipeline::new(loaded.plan).unwrap())
}

/// The last value of a channel stands for a missing one, as long as it is said to last.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_lasts_as_long_as_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let mut text = String::from("t,x,y\n");
    // Channel y is missing in lines 4 to 7 of every ten.
    for t in 0..40 {
        let y = if (4..8).contains(&(t % 10)) { String::new() } else { format!("{t}") };
        text += &format!("{t},{},{y}\n", t % 3);
    }
    fs::write(dir.path().join("in/a.csv"), text).unwrap();
    for (more, bad) in [
        ("", 16),
        ("missing = \"last\"", 0),
        ("missing = \"last\"\nmissing_within = \"1 s\"", 12),
        ("missing = \"last\"\nmissing_within = \"2500 ms\"", 8),
        ("missing = \"last\"\nmissing_within = \"4 s\"", 0),
    ] {
        let out = format!("out{}", more.len());
        let report = recording(dir.path(), &out, more).unwrap().run(&RunOptions::default()).await.unwrap();
        assert_eq!(report.quarantined_rows, bad, "{more}");
        let samples = report.samples.clone().unwrap();
        let held = if more.is_empty() { 0 } else { 16 - bad };
        assert_eq!(samples.held.get("y").copied().unwrap_or(0), held, "{more}");
        assert!(!samples.held.contains_key("x"));
        assert_eq!(samples.read, samples.in_windows + samples.set_aside + samples.unused());
        assert_eq!(samples.to_string().contains(&format!("{held} of y")), held > 0, "{samples}");
    }
}

/// What makes no sense is refused, with words, before anything is read.
#[test]
fn policies_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |found: Result<Pipeline, String>, words: &str| {
        let e = found.map(|_| ()).unwrap_err();
        assert!(e.contains(words), "{e}");
    };
    refused(loaded(dir.path(), "x", "o", "missing = \"last\""), "this source has feature vectors");
    refused(loaded(dir.path(), "x", "o", "missing = \"median\""), "\"median\"");
    refused(loaded(dir.path(), "x", "o", "missing = \"mean\"\nmissing_within = \"2 s\""), "how old the last value");
    refused(recording(dir.path(), "o", "missing = \"mean\""), "a window whose samples have gaps has no features");
}
