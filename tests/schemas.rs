//! schemas/hapt-input.arrow.json and schemas/hapt-output.arrow.json: the columns of the hapt source and of the tables
//! that a run of pipelines/hapt.toml writes.
//!
//! Names, types and nullability come from the code; the meanings of the columns are written here. `UPDATE_SCHEMAS=1
//! cargo test --test all schemas` rewrites the files.

use std::path::Path;
use std::sync::Arc;

use dacpipe::config::PipelineFile;
use dacpipe::source::{self, BadRows, SourceOptions, hapt};
use dacpipe::table::{LabelTable, clusters_schema, drift_schema, lineage_schema, quarantine_schema};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::catalog::TableProvider;
use serde::Serialize;

use crate::small_run::small_run;

/// What a column means. Columns of the same name mean the same in every table.
fn meaning(column: &str) -> &'static str {
    match column {
        "experiment" => "the number of the recording, from the names of its files",
        "user" => "the number of the person who was recorded; a word of SQL, so in double quotes there",
        "split" => "train or test, as the files in Train/ and Test/ list the users; null where neither does",
        "activity" => "the label of the interval in RawData/labels.txt that the window lies in; null outside of them",
        "start" => "the first sample of the window, counted from 0 in its recording",
        "features" => "what is computed of the window; `values` names it in order",
        "cluster" => "the id of the cluster: that of the nearest centroid; counted from 0, and the same over runs",
        "distance" => "the Euclidean distance to the centroid of that cluster, in the space that was clustered",
        "margin" => "by how much farther the second nearest centroid is; 0 where two are equally near",
        "embedding" => "the vector that was clustered; only with [sink] embedding = true",
        "reconstruction_error" => {
            "the mean over the features of the squared difference between scaled features and what the decoder makes of \
             the embedding; only with [sink] reconstruction_error = true"
        }
        "model" => "the hash of the model that labelled the row; models/ holds it under the first 16 digits",
        "labelled_at" => "when the run that labelled the row began, or SOURCE_DATE_EPOCH",
        "size" => "how many rows of the table are in the cluster",
        "centroid" => "the centre of the cluster, in the space that was clustered",
        "mean_distance" => "the mean of `distance` over the rows of the cluster; null where it has none",
        "event" => "born, moved, split, merged or died",
        "other" => "the cluster that this one split from, or merged into",
        "rows" => {
            "how many rows: of those that both models labelled, those of both clusters, or all of one that was born or died; \
             of a file, those that were set aside, null where that is not known; of drift, those that were compared"
        }
        "share" => "these as a share of the old cluster if it moved or merged, of the new one if it split",
        "moved_by" => "how far the centroid moved, in the space that is clustered; null where it cannot be compared",
        "run" => "the run that made it so",
        "happened_at" => "when that run began, or SOURCE_DATE_EPOCH",
        "file" => "the file that holds what could not be used",
        "line" => "its line (row, in Parquet), or the first of several, counted from 1; 0 for the file as a whole",
        "reason" => "what was found, and what would be accepted",
        "measure" => "feature, clusters (the shares of all of them), cluster (the part of one) or distances",
        "name" => "the name of the feature, or the id of the cluster",
        "position" => "the index of the feature, from 0, or the id of the cluster",
        "psi" => "the population stability index; of one cluster, its term of the sum",
        "chance" => "what the index of independent rows without drift stays below; null for one cluster",
        "level" => "stable, watch or act; null for one cluster",
        "expected" => "the share of the rows learned from that one cluster has",
        "actual" => "the share of the rows that one cluster has",
        "reference_rows" => "how many of the rows that were learned from these were compared with",
        "measured_at" => "when that run began, or SOURCE_DATE_EPOCH",
        "offset" => "the byte at which the line begins in its file, after decompression; null where that is not known",
        "stage" => "what refused it: source or features",
        "kind" => "what it was refused for: file, row, time, stretch, damage or feature",
        "text" => "the line as it is in its file, up to 1024 bytes; null in Parquet",
        "length" => "how many bytes all of that text has",
        "version" => "the version of the table that the run made; null if it committed nothing",
        "set_aside_at" => "when that run began, or SOURCE_DATE_EPOCH",
        "replayed_by" => "the run of dacpipe replay that could use it; null before",
        other => panic!("say in tests/schemas.rs what column {other:?} means"),
    }
}

/// The unit of a column or a channel, where it has one.
fn unit(name: &str) -> Option<String> {
    let unit = match name {
        "start" => "samples",
        "size" | "rows" | "reference_rows" => "rows",
        _ if name.starts_with("acc_") => "g",
        _ if name.starts_with("gyro_") => "rad/s",
        _ => return None,
    };
    Some(unit.to_string())
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    /// As Arrow prints and parses it.
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    description: String,
    /// The names of the values of a vector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Channel {
    name: String,
    unit: Option<String>,
}

#[derive(Debug, Serialize)]
struct Input {
    title: String,
    /// The samples that windows are cut from.
    channels: Vec<Channel>,
    rate_hz: f64,
    columns: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Table {
    name: String,
    description: String,
    columns: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Output {
    title: String,
    tables: Vec<Table>,
}

fn columns(schema: &Schema, values: &[String]) -> Vec<Column> {
    let column = |field: &FieldRef| {
        let name = field.name();
        Column {
            name: name.clone(),
            data_type: field.data_type().to_string(),
            nullable: field.is_nullable(),
            unit: unit(name),
            description: meaning(name).to_string(),
            values: if name == "features" { values.to_vec() } else { vec![] },
        }
    };
    schema.fields().iter().map(column).collect()
}

/// Compares `schema` with the file `name` in schemas/.
fn current(name: &str, schema: &impl Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "{} is not current; UPDATE_SCHEMAS=1 rewrites it", path.display());
}

/// The Arrow schema that the columns of a file describe.
fn parsed(columns: &[Column]) -> Schema {
    let field = |column: &Column| {
        let data_type: DataType = column.data_type.parse().unwrap();
        Field::new(&column.name, data_type, column.nullable)
    };
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

#[tokio::test]
async fn the_schema_of_what_hapt_yields_is_current() {
    let run = small_run();
    let recordings = format!("source.path={:?}", run.path().join("examples/data/hapt").display().to_string());
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/hapt.toml");
    let plan = PipelineFile::load(pipeline, &[recordings]).unwrap_or_else(|problems| panic!("{problems}")).plan;
    let options = SourceOptions { window: plan.window, features: plan.features, ..SourceOptions::default() };
    let source = source::open(&plan.source, &options, Arc::new(BadRows::new())).await.unwrap();

    let columns = columns(&source.provider.schema(), &source.feature_names);
    assert_eq!(parsed(&columns), *source.provider.schema());
    let channel = |name: &&str| Channel { name: name.to_string(), unit: unit(name) };
    let input = Input {
        title: "What the hapt source yields to pipelines/hapt.toml: a row a window".into(),
        channels: hapt::CHANNELS.iter().map(channel).collect(),
        rate_hz: hapt::RATE_HZ,
        columns,
    };
    current("hapt-input.arrow.json", &input);
}

#[tokio::test]
async fn the_schemas_of_the_tables_of_a_run_are_current() {
    let run = small_run();
    let sets = [
        "sink.path=embedded",
        "sink.embedding=true",
        "sink.reconstruction_error=true",
        "stage.autoencoder.epochs=1",
        "stage.manifold.epochs=20",
        "stage.kmeans.n_init=1",
    ];
    let mut args = vec!["run", "pipelines/hapt.toml", "--quiet"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    run.dacpipe(&args);
    let open = |name: &str| {
        let path = run.path().join(name).display().to_string();
        async move { LabelTable::open(&path, None).await.unwrap() }
    };
    let (table, plain) = (open("embedded").await.schema(), open("out/hapt").await.schema());
    let asked_for = |field: &&FieldRef| ["embedding", "reconstruction_error"].contains(&field.name().as_str());
    let without: Vec<_> = table.fields().iter().filter(|field| !asked_for(field)).cloned().collect();
    assert_eq!(Schema::new(without), *plain, "each key of the sink adds its own column");

    let described = |name: &str, description: &str, schema: &Schema| {
        let columns = columns(schema, &[]);
        assert_eq!(parsed(&columns), *schema, "{name}");
        Table { name: name.into(), description: description.into(), columns }
    };
    let tables = vec![
        described("hapt", "the labelled table, a row a window", &table),
        described("hapt_clusters", "a row for each cluster of each model that labelled rows", &clusters_schema()),
        described("hapt_lineage", "a row for each event in the life of a cluster, over all runs", &lineage_schema()),
        described("hapt_drift", "how far rows have drifted, where the pipeline has [drift]", &drift_schema()),
        described("hapt_quarantine", "what could not be used, where on_bad_row = \"quarantine\"", &quarantine_schema()),
    ];
    current("hapt-output.arrow.json", &Output { title: "The tables of a run of pipelines/hapt.toml".into(), tables });
}
