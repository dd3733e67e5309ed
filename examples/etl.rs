//! An ETL job: reads a Parquet file of feature vectors, and writes a Parquet file with the keys and clusters of its
//! rows.
//!
//!     cargo run --example etl -- MODEL INPUT.parquet OUTPUT.parquet
//!
//! Without arguments it takes the model that a run of pipelines/hapt.toml leaves behind, and makes its input from the
//! recordings of that pipeline:
//!
//!     cargo run -- run pipelines/hapt.toml
//!     cargo run --example etl

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::{CastOptions, cast_with_options};
use dacpipe::config::PipelineFile;
use dacpipe::model::Model;
use dacpipe::source::{self, BadRows, SourceOptions};
use dacpipe::store::Location;
use dacpipe::{Error, Result, column};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

#[tokio::main]
async fn main() -> ExitCode {
    match job(std::env::args().skip(1).collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.kind().exit_code())
        }
    }
}

async fn job(arguments: Vec<String>) -> Result<()> {
    let [model, input, output] = match arguments.is_empty() {
        true => example().await?,
        false => arguments.try_into().map_err(|_| Error::config("expected MODEL INPUT.parquet OUTPUT.parquet"))?,
    };
    let model = Model::load(&Location::parse(&model)?).await?;
    let rows = label_file(&model, Path::new(&input), Path::new(&output)).map_err(|e| e.while_doing(&input))?;
    println!("{output}: {rows} rows of {input}, labelled by model {}", model.hash().short());
    Ok(())
}

/// Labels the rows of `input` into `output`, one record batch at a time; returns the number of rows.
fn label_file(model: &Model, input: &Path, output: &Path) -> Result<usize> {
    let file = File::open(input).map_err(|e| Error::input("cannot be opened").with_source(e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(1024).build()?;
    // A column that is missing or of another width is an error here, before anything is written.
    let schema = label(model, &RecordBatch::new_empty(reader.schema()))?.schema();

    // It has another name until it is complete, so that nobody reads half of it.
    let unfinished = PathBuf::from(format!("{}.unfinished", output.display()));
    let file = File::create(&unfinished)
        .map_err(|e| Error::io(format!("cannot write {}", unfinished.display())).with_source(e))?;
    let mut writer = ArrowWriter::try_new(file, schema, None)?;
    let mut rows = 0;
    for batch in reader {
        let labelled = label(model, &batch?)?;
        rows += labelled.num_rows();
        writer.write(&labelled)?;
    }
    writer.close()?;
    std::fs::rename(unfinished, output)?;
    Ok(rows)
}

/// The keys of a batch with cluster, distance and margin.
fn label(model: &Model, batch: &RecordBatch) -> Result<RecordBatch> {
    let labelled = model.apply(&with_vectors(model, batch)?)?;
    // Everything but the vectors.
    let fields = labelled.schema().fields().clone();
    let flat: Vec<usize> = (0..fields.len()).filter(|&i| !fields[i].data_type().is_nested()).collect();
    Ok(labelled.project(&flat)?)
}

/// The batch with its features in the type that models read; files hold lists of any kind of number.
fn with_vectors(model: &Model, batch: &RecordBatch) -> Result<RecordBatch> {
    let (name, schema) = (&model.manifest().input.column, batch.schema());
    if column::vector_dim(&schema, name).is_ok() {
        return Ok(batch.clone());
    }
    let features = batch.column_by_name(name).ok_or_else(|| column::missing(&schema, name))?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let vectors = cast_with_options(features, &column::vector_type(model.dim_in()), &strict)?;
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, array)| {
        let array = if field.name() == name { &vectors } else { array };
        (field.name(), array.clone(), field.is_nullable())
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// The default model, input and output. The input takes the place of your own file: the features of the windows of
/// pipelines/hapt.toml.
async fn example() -> Result<[String; 3]> {
    let plan = PipelineFile::load("pipelines/hapt.toml", &[])?.plan;
    let Ok(report) = std::fs::read_to_string("out/hapt/run.json") else {
        return Err(Error::input("no out/hapt/run.json; first: cargo run -- run pipelines/hapt.toml"));
    };
    let report: serde_json::Value = serde_json::from_str(&report)
        .map_err(|e| Error::input("out/hapt/run.json is not the report of a run").with_source(e))?;
    let model = report["model_path"].as_str().unwrap_or_default().to_owned();

    let options = SourceOptions { window: plan.window, features: plan.features, ..SourceOptions::default() };
    let windows = source::open(&plan.source, &options, BadRows::new().into()).await?.provider;
    let input = "out/hapt-features.parquet".to_owned();
    let one_file = DataFrameWriteOptions::new().with_single_file_output(true);
    SessionContext::new().read_table(windows)?.write_parquet(&input, one_file, None).await?;
    Ok([model, input, "out/hapt-clusters.parquet".to_owned()])
}
