//! The papers' methods from end to end: pipeline file, table, new rows, SQL, library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dacpipe::config::PipelineFile;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::sql::{self, Options};
use dacpipe::store::Location;
use datafusion::arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int32Type};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

const DIM: usize = 16;

/// Images of 4 x 4 pixels with one of three patterns: rows `first` and the ones after it.
fn images(path: &Path, first: i64, rows: usize) -> Vec<f32> {
    let ids: Int64Array = (first..first + rows as i64).map(Some).collect();
    let noise = |i: i64| ((i.wrapping_mul(2_654_435_761) >> 7) % 1000) as f32 / 1000.0;
    let pixel = |row: i64, j: i64| (if j % 3 == row % 3 { 200.0 } else { 20.0 }) + 40.0 * noise(row * 16 + j);
    let values: Vec<f32> = (first..first + rows as i64).flat_map(|row| (0..16).map(move |j| pixel(row, j))).collect();
    let field = Arc::new(Field::new("item", DataType::Float32, false));
    let pixels = FixedSizeListArray::new(field, DIM as i32, Arc::new(Float32Array::from(values.clone())), None);
    let labels: StringArray =
        (first..first + rows as i64).map(|row| Some(["a", "b", "c"][(row % 3) as usize])).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("pixels", Arc::new(pixels)), ("label", Arc::new(labels))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    values
}

/// Settings that make each method small.
fn small(method: &str) -> &'static str {
    match method {
        "k-dae" => {
            r#"
            encoder = [{ kind = "dense", outputs = 8 }, { kind = "batch_norm" }, { kind = "dense", outputs = 2 }]
            [stage.clustering.expert]
            epochs = 3
            encoder = [{ kind = "dense", outputs = 6, activation = "elu" }, { kind = "dense", outputs = 2 }]
            "#
        }
        "aljalbout" => {
            r#"
            shape = [1, 4, 4]
            encoder = [
                { kind = "conv2d", channels = 4, kernel = 3 }, { kind = "batch_norm" },
                { kind = "activation", activation = "relu" }, { kind = "conv2d", channels = 2, kernel = 2 },
            ]
            "#
        }
        _ => r#"encoder = [{ kind = "dense", outputs = 8, activation = "relu" }, { kind = "dense", outputs = 2 }]"#,
    }
}

fn file(dir: &Path, method: &str, more: &str) -> PathBuf {
    let path = dir.join("pipeline.toml");
    let (data, out) = (dir.join("images.parquet"), dir.join("out"));
    let text = format!(
        r#"
        name = "images"
        seed = 3
        [source]
        kind = "parquet"
        path = {data:?}
        features = "pixels"
        label = "label"
        keys = ["id"]
        [[stage]]
        kind = "scale"
        method = "global_min_max"
        [[stage]]
        kind = "deep_clustering"
        method = {method:?}
        k = 3
        n_init = 3
        {}
        [stage.pretraining]
        epochs = 5
        batch_size = 32
        [stage.clustering]
        epochs = 3
        batch_size = 32
        [sink]
        path = {out:?}
        {more}
        "#,
        small(method),
    );
    // TOML wants a table's own keys before its subtables.
    std::fs::write(&path, in_order(&text)).unwrap();
    path
}

/// `[stage.clustering.expert]` after `[stage.clustering]`.
fn in_order(text: &str) -> String {
    let Some(at) = text.find("[stage.clustering.expert]") else { return text.to_owned() };
    let end = at + text[at..].find("[stage.pretraining]").unwrap();
    let (expert, sink) = (&text[at..end], text.find("[sink]").unwrap());
    format!("{}{}{}{}", &text[..at], &text[end..sink], expert, &text[sink..])
}

async fn run(file: &Path, sets: &[String]) -> dacpipe::Result<RunReport> {
    let plan = PipelineFile::load(file, sets).unwrap_or_else(|e| panic!("{e}")).plan;
    Pipeline::new(plan)?.run(&RunOptions::default()).await
}

async fn query(ctx: &SessionContext, text: &str) -> RecordBatch {
    let batches = ctx.sql(text).await.unwrap().collect().await.unwrap();
    datafusion::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn ints(batch: &RecordBatch, name: &str) -> Vec<i32> {
    batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().values().to_vec()
}

fn bits(batch: &RecordBatch, name: &str) -> Vec<u32> {
    batch.column_by_name(name).unwrap().as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect()
}

#[tokio::test]
async fn a_method_learns_the_layout_of_a_manifold_stage() {
    let dir = tempfile::tempdir().unwrap();
    images(&dir.path().join("images.parquet"), 0, 150);
    let path = file(dir.path(), "dec", "");
    let text = std::fs::read_to_string(&path).unwrap();
    let manifold = "[[stage]]\nkind = \"manifold\"\nneighbors = 10\nepochs = 50\n";
    let at = text.find("kind = \"deep_clustering\"").unwrap();
    let at = text[..at].rfind("[[stage]]").unwrap();
    std::fs::write(&path, format!("{}{manifold}{}", &text[..at], &text[at..])).unwrap();
    let sets = ["pretraining.learning_rate=0.1", "pretraining.epochs=40", "begin=\"layout\"", "normalize=\"within\""];
    let sets = sets.map(|set| format!("stage.deep_clustering.{set}"));
    let report = run(&path, &sets).await.unwrap();
    assert_eq!(report.labelled_rows, 150);
    let scores = report.scores.values().next().unwrap();
    assert!(scores.rows == 150 && scores.ari > 0.9, "{scores:?}");

    // The layout has as many dimensions as the embedding, or is refused.
    let e = PipelineFile::load(&path, &["stage.manifold.dim=3".into()]).map(|_| ()).unwrap_err();
    assert!(e.to_string().contains("a layout of 3 dimensions for a representation of 2"), "{e}");
}

#[tokio::test]
async fn a_method_s_labels_are_the_same_bits_in_the_table_in_sql_in_the_library_and_for_new_rows() {
    for method in ["dec", "k-dae", "aljalbout"] {
        let dir = tempfile::tempdir().unwrap();
        let values = images(&dir.path().join("images.parquet"), 0, 150);
        let report = run(&file(dir.path(), method, ""), &[]).await.unwrap_or_else(|e| panic!("{method}: {e}"));
        assert_eq!((report.labelled_rows, report.cluster_sizes.len()), (150, 3), "{method}");

        let out = dir.path().join("out").display().to_string();
        let ctx = SessionContext::new_with_config(sql::session_config());
        sql::register(&ctx, Options::new().table("images", &out)).await.unwrap();
        let table = query(&ctx, "SELECT id, cluster, distance, margin, model FROM images ORDER BY id").await;

        // The library.
        let hash = table.column_by_name("model").unwrap().as_string::<i32>().value(0).to_owned();
        let location = Location::parse(&report.model_path).unwrap();
        let model = Model::load(&location).await.unwrap();
        assert_eq!(model.hash().as_str(), hash);
        let assigned = model.assign(&values).unwrap();
        assert_eq!(assigned.cluster, ints(&table, "cluster"), "{method}");
        let of = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        assert_eq!(of(&assigned.distance), bits(&table, "distance"), "{method}");
        assert_eq!(of(&assigned.margin), bits(&table, "margin"), "{method}");

        // SQL over the rows themselves.
        let rows = dir.path().join("images.parquet").display().to_string();
        ctx.register_parquet("rows", &rows, Default::default()).await.unwrap();
        let text = format!(
            "SELECT a['cluster'] AS cluster, a['distance'] AS distance, a['margin'] AS margin
             FROM (SELECT id, dac_assign('{hash}', pixels) AS a FROM rows) ORDER BY id"
        );
        let again = query(&ctx, &text).await;
        assert_eq!(ints(&again, "cluster"), ints(&table, "cluster"), "{method}");
        assert_eq!(bits(&again, "distance"), bits(&table, "distance"), "{method}");

        // New rows, with only the model.
        let new = dir.path().join("new.parquet");
        let more = images(&new, 150, 40);
        let target = dir.path().join("labels").display().to_string();
        let input = new.display().to_string();
        let args = ["label", "--model", &report.model_path, "--input", &input, "--output", &target, "--quiet"];
        let done = Command::new(env!("CARGO_BIN_EXE_dacpipe")).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        sql::register(&ctx, Options::new().table("labels", &target)).await.unwrap();
        let labelled = query(&ctx, "SELECT id, cluster, distance FROM labels ORDER BY id").await;
        let expected = model.assign(&more).unwrap();
        assert_eq!(ints(&labelled, "cluster"), expected.cluster, "{method}");
        assert_eq!(bits(&labelled, "distance"), of(&expected.distance), "{method}");

        // The clusters beside the table: k autoencoders have no centroids.
        let clusters =
            query(&ctx, "SELECT cluster, size, cardinality(centroid) AS n FROM images_clusters ORDER BY cluster").await;
        assert_eq!(clusters.num_rows(), 3);
        let n = clusters.column_by_name("n").unwrap();
        let n = datafusion::arrow::compute::cast(n, &DataType::Int32).unwrap();
        let widths: Vec<i32> = n.as_primitive::<Int32Type>().iter().map(|n| n.unwrap_or(0)).collect();
        assert_eq!(widths, if method == "k-dae" { [0; 3] } else { [2; 3] }, "{method}");
        let sizes: Int32Array = ints(&table, "cluster").into();
        assert_eq!(sizes.len(), 150);
    }
}

#[tokio::test]
async fn clusters_without_centroids_keep_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let values = images(&dir.path().join("images.parquet"), 0, 150);
    let path = file(dir.path(), "k-dae", "");
    let first = run(&path, &[]).await.unwrap();
    let again = run(&path, &[]).await.unwrap();
    assert_eq!(again.model, first.model);
    let second = run(&path, &["seed=11".into()]).await.unwrap();
    assert_ne!(second.model, first.model);
    let step = second.stages.iter().find(|stage| stage.stage == "ids").unwrap();
    assert_eq!(step.figures["rows"], 150);
    let count = |name: &str| step.figures[name].as_array().map_or(0, Vec::len);
    assert_eq!(step.figures["kept"].as_u64().unwrap() as usize + count("born"), 3);
    assert_eq!(count("born"), count("died"));
    let ctx = SessionContext::new_with_config(sql::session_config());
    let out = dir.path().join("out").display().to_string();
    sql::register(&ctx, Options::new().table("images", &out)).await.unwrap();
    let table = query(&ctx, "SELECT cluster FROM images ORDER BY id").await;
    let model = Model::load(&Location::parse(&second.model_path).unwrap()).await.unwrap();
    assert_eq!(model.assign(&values).unwrap().cluster, ints(&table, "cluster"));
    let moved = query(&ctx, "SELECT cluster FROM images_lineage WHERE event = 'moved' AND moved_by IS NULL").await;
    assert_eq!(moved.num_rows() as u64, step.figures["kept"]);
}

#[tokio::test]
async fn what_does_not_fit_the_rows_is_named_before_anything_is_learned() {
    let dir = tempfile::tempdir().unwrap();
    images(&dir.path().join("images.parquet"), 0, 30);
    let path = file(dir.path(), "aljalbout", "");
    let e = run(&path, &["stage.deep_clustering.shape=[1,5,5]".into()]).await.unwrap_err();
    assert_eq!(e.kind(), dacpipe::Kind::Config);
    assert!(e.to_string().contains("stage deep_clustering: shape [1, 5, 5] has 25 values, rows have 16"), "{e}");
    assert!(!dir.path().join("out/_delta_log").exists());
}

#[test]
fn all_problems_of_a_method_are_told_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let sets = |sets: &[&str]| sets.iter().map(|s| s.to_string()).collect::<Vec<String>>();
    let problems = |method: &str, given: &[&str]| match PipelineFile::load(file(dir.path(), method, ""), &sets(given)) {
        Ok(_) => panic!("{given:?} was accepted"),
        Err(problems) => problems.to_string(),
    };
    let shown = problems("dec", &["stage.deep_clustering.pretraining.coordinates=2"]);
    assert!(shown.contains("`coordinates` is given, but no manifold stage lays rows out"), "{shown}");
    let shown = problems("dec", &["stage.deep_clustering.begin=\"layout\""]);
    assert!(shown.contains("`begin` is \"layout\", but no manifold stage lays rows out"), "{shown}");
    let shown = problems("dec", &["stage.deep_clustering.pretraining.reconstruction=0"]);
    assert!(shown.contains("a factor above 0, or a manifold stage to learn from"), "{shown}");
    let shown = problems("dec", &["stage.deep_clustering.clustering.competition=\"soft\""]);
    assert!(shown.contains("`competition` is given, but the clustering loss is \"hardening\""), "{shown}");
    let shown = problems("k-dae", &["stage.deep_clustering.clustering.refresh=3"]);
    assert!(shown.contains("`refresh` is given, but the clustering loss is \"experts\""), "{shown}");
    let shown = problems("k-dae", &["stage.deep_clustering.output=\"identity\"", "stage.scale.method=\"standard\""]);
    assert!(
        shown.contains("the decoder does not end in a sigmoid") && shown.contains("needs values in [0, 1]"),
        "{shown}"
    );
    let shown = problems("aljalbout", &["stage.deep_clustering.shape=null"]);
    assert!(shown.contains("conv2d needs an image") && shown.contains("shape = [channels, height, width]"), "{shown}");
    let shown = problems("dec", &["stage.deep_clustering.method=\"idk\""]);
    assert!(shown.contains("dec") && shown.contains("k-dae") && shown.contains("aljalbout"), "{shown}");
    let shown = problems("k-dae", &["sink.embedding=true"]);
    assert!(shown.contains("has no embedding"), "{shown}");
    let layer =
        "stage.deep_clustering.encoder=[{kind=\"dense\"}, {kind=\"dence\", outputs=2}, {kind=\"dropout\", rate=1.5}]";
    let shown = problems("dec", &[layer]);
    for part in ["outputs", "dence", "1.5"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
