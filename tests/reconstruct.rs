//! The reconstruction error, from the pipeline file to SQL: every interface gives the same bits, and rows that differ
//! from the training rows have large errors.

use std::path::Path;
use std::sync::Arc;

use dacpipe::Kind;
use dacpipe::column::vector_array;
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::source::OnBadRow;
use dacpipe::sql::{self, Options};
use dacpipe::store::Location;
use dacpipe::table::{Mode, OnExisting};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

const ROWS: usize = 80;
const DIM: usize = 6;
/// The one row whose values belong to no group.
const ODD: usize = 71;

/// Rows whose values are all low or all high, to within a tenth; those of `ODD` alternate.
fn values() -> Vec<f32> {
    let level = |i: usize, j: usize| {
        let high = if i == ODD { j.is_multiple_of(2) } else { i.is_multiple_of(3) };
        if high { 9.0 } else { 1.0 }
    };
    (0..ROWS).flat_map(|i| (0..DIM).map(move |j| level(i, j) + ((i * 7 + j * 3) % 11) as f32 / 11.0)).collect()
}

fn write_rows(path: &Path) {
    let part = (0..ROWS).map(|i| Some(if i < 60 { "learn" } else { "later" })).collect::<StringArray>();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..ROWS as i64)) as ArrayRef),
        ("part", Arc::new(part)),
        ("values", vector_array(values(), DIM).unwrap()),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A run over those rows into `out`, with more keys of the sink and of the autoencoder.
async fn run(dir: &Path, out: &str, sink: &str, network: &str) -> RunReport {
    write_rows(&dir.join("rows.parquet"));
    let text = format!(
        "name = \"rows\"\nseed = 3\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = \"values\"\nkeys = [\"id\"]\n\
         split = \"part\"\n[[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"autoencoder\"\nencoder = [5, 2]\n\
         epochs = 300\nbatch_size = 20\nlearning_rate = 0.01\n{network}\n[[stage]]\nkind = \"kmeans\"\nk = 2\n\
         [split]\nfit = \"learn\"\n[sink]\npath = {:?}\n{sink}\n",
        dir.join("rows.parquet"),
        dir.join(out),
    );
    let loaded = PipelineFile::parse("rows.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

fn relabel(dir: &Path, model: &str, reconstruction_error: bool) -> Relabel {
    Relabel {
        model: model.into(),
        input: dir.join("rows.parquet").display().to_string(),
        output: dir.join("new").display().to_string(),
        kind: None,
        features: None,
        keys: vec!["id".into()],
        within: None,
        mode: Mode::Overwrite,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error,
        vectors: None,
        on_bad_row: OnBadRow::Fail,
        threads: Some(2),
        device: DeviceChoice::Cpu,
    }
}

async fn floats(ctx: &SessionContext, query: &str) -> Vec<f32> {
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Float32Type>().values().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_run_the_label_command_sql_and_the_model_give_the_same_error() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), "out", "reconstruction_error = true", "").await;
    let model = Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
    let expected = model.reconstruction_error(&values()).unwrap();
    assert_eq!(expected, model.reconstruct(&values()).unwrap().error);

    relabel(dir.path(), &report.model_path, true).run(&Control::default()).await.unwrap();
    let ctx = SessionContext::new_with_config(sql::session_config());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tables = Options::new().table("run", &at("out")).table("new", &at("new")).table("input", &at("rows.parquet"));
    sql::register(&ctx, tables).await.unwrap();
    assert_eq!(floats(&ctx, "SELECT reconstruction_error FROM run ORDER BY id").await, expected);
    assert_eq!(floats(&ctx, "SELECT reconstruction_error FROM new ORDER BY id").await, expected);
    let query = format!("SELECT dac_reconstruction_error('{}', \"values\") FROM input ORDER BY id", report.model);
    assert_eq!(floats(&ctx, &query).await, expected);

    // The odd row stands out from all others, far beyond what chance leaves.
    let others = expected.iter().enumerate().filter(|(i, _)| *i != ODD).map(|(_, e)| *e).fold(0.0, f32::max);
    assert!(expected[ODD] > 3.0 * others, "the odd row {}, the others at most {others}", expected[ODD]);
    // In the source's units: rows are reconstructed approximately, within the training rows' extremes.
    let rebuilt = model.reconstruct(&values()).unwrap().features;
    assert!(rebuilt.iter().all(|x| (1.0..=10.0).contains(x)));
    let apart = |i: usize| (0..DIM).map(|j| (rebuilt[i * DIM + j] - values()[i * DIM + j]).abs()).fold(0.0, f32::max);
    assert!((0..60).all(|i| apart(i) < 2.0) && apart(ODD) > 2.0, "{}", apart(ODD));
}

#[tokio::test]
async fn without_its_decoder_a_model_labels_alike_and_refuses_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let whole = run(dir.path(), "whole", "", "").await;
    let bare = run(dir.path(), "bare", "", "keep_decoder = false").await;
    assert_ne!(whole.model, bare.model);
    let load = async |report: &RunReport| Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
    let (with, without) = (load(&whole).await, load(&bare).await);
    assert_eq!(with.assign(&values()).unwrap(), without.assign(&values()).unwrap());
    assert!(without.reconstruct(&values()).is_err());

    let size = |report: &RunReport| std::fs::metadata(Path::new(&report.model_path).join("model.safetensors")).unwrap();
    assert!(size(&bare).len() < size(&whole).len());
    let e = relabel(dir.path(), &bare.model_path, true).run(&Control::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Model);
    assert!(e.to_string().starts_with("--reconstruction-error: model rows (") && e.to_string().contains("no decoder"));
    assert!(!dir.path().join("new/_delta_log").exists(), "nothing is written");
    relabel(dir.path(), &bare.model_path, false).run(&Control::default()).await.unwrap();
}
