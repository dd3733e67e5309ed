//! SQL over models and tables: the functions give the pipeline's bits, the aggregates known figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema};
use dacpipe::column::{vector_array, vectors};
use dacpipe::device::{Cpu, Device};
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::KMeansSpec;
use dacpipe::label::KMeansStage;
use dacpipe::model::{Manifest, Model, ModelInput};
use dacpipe::scale::{ScaleMethod, ScaleSpec, ScaleStage};
use dacpipe::source::bad::Rejects;
use dacpipe::source::{BadRows, OnBadRow};
use dacpipe::sql::{Options, StageExec, register};
use dacpipe::stage::{
    Action, Apply, Artifact, Assignments, Clusters, Columns, EMBEDDING, FEATURES, Fit, FitContext, LABEL_COLUMNS,
    NoCheckpoint, Tensor, Training, Transform, VectorMap,
};
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, LabelTable, Labels, Mode, TableWriter, WriteOptions};
use dacpipe::train::{Autoencoder, AutoencoderSpec};
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightsSpec};
use dacpipe::{Error, Kind, Result, Seed};
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

const DIM: usize = 6;

/// A small embedding: `tanh(W x)`, two values out of six.
#[derive(Debug, Clone)]
struct Squash(Vec<f32>);

impl VectorMap for Squash {
    fn dim_in(&self) -> usize {
        DIM
    }

    fn dim_out(&self) -> usize {
        2
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        for (row, out) in input.chunks_exact(DIM).zip(output.chunks_exact_mut(2)) {
            for (weights, out) in self.0.chunks_exact(DIM).zip(out) {
                *out = row.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>().tanh();
            }
        }
        Ok(())
    }
}

impl Transform for Squash {
    fn kind(&self) -> &'static str {
        "squash"
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: EMBEDDING, map: self }
    }

    fn save(&self) -> Artifact {
        let weights = Tensor { shape: vec![2, DIM], values: self.0.clone() };
        Artifact { tensors: [("weights".to_string(), weights)].into(), ..Artifact::default() }
    }
}

/// Assigns clusters by the sign of the embedding's first value.
#[derive(Debug)]
struct BySign;

impl Clusters for BySign {
    fn k(&self) -> usize {
        2
    }

    fn dim(&self) -> usize {
        2
    }

    fn centroids(&self) -> Option<Vec<f32>> {
        None
    }

    fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        let first = || rows.chunks_exact(2).map(|row| row[0]);
        Ok(Assignments {
            cluster: first().map(|x| i32::from(x > 0.0)).collect(),
            distance: first().map(|x| 1.0 - x.abs()).collect(),
            margin: first().map(|x| 2.0 * x.abs()).collect(),
        })
    }
}

impl Transform for BySign {
    fn kind(&self) -> &'static str {
        "by_sign"
    }

    fn action(&self) -> Action<'_> {
        Action::Assign { column: EMBEDDING, clusters: self }
    }

    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

fn restore_squash(artifact: &Artifact, _: &dyn Device) -> Result<Arc<dyn Transform>> {
    let weights = artifact.tensors.get("weights").ok_or_else(|| Error::model("squash: no weights"))?;
    Ok(Arc::new(Squash(weights.values.clone())))
}

fn restore_by_sign(_: &Artifact, _: &dyn Device) -> Result<Arc<dyn Transform>> {
    Ok(Arc::new(BySign))
}

/// Numbers without a pattern, the same every time.
fn noise(n: usize, salt: u32) -> Vec<f32> {
    let value = |i: u32| (i.wrapping_add(salt).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..n as u32).map(value).collect()
}

fn model() -> Model {
    let manifest = Manifest { name: "toy".into(), input: ModelInput::bare(DIM), ..Manifest::default() };
    Model::new(manifest, vec![Arc::new(Squash(noise(2 * DIM, 5))), Arc::new(BySign)]).unwrap()
}

/// A model of dacpipe's own stages, each learned from the output of the one before it.
fn learned() -> Model {
    let scale = ScaleStage::new(ScaleSpec { method: ScaleMethod::MinMax });
    let weights = FeatureWeightsStage::new(WeightsSpec::new(WeightLabels::Uniform));
    let network = AutoencoderSpec { encoder: vec![5, 2], epochs: 3, batch_size: 32, ..AutoencoderSpec::default() };
    let kmeans = KMeansStage::new(KMeansSpec::new(4), EMBEDDING);
    let stages: [&dyn Fit; 4] = [&scale, &weights, &Autoencoder { spec: network }, &kmeans];
    let (device, control) = (Cpu::new(2), Control::default());
    let cx =
        FitContext { seed: Seed(7), device: &device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
    let (mut values, mut dim) = (noise(173 * DIM, 0), DIM);
    let mut fitted: Vec<Arc<dyn Transform>> = Vec::new();
    for stage in stages {
        let rows = Dense::new(&values, dim);
        let feature_weights = fitted.iter().find_map(|stage| stage.feature_weights());
        let transform = stage.fit(&Training { feature_weights, ..Training::new(&rows) }, &cx).unwrap().transform;
        if let Some(map) = transform.vector_map() {
            let mut mapped = vec![0.0; values.len() / dim * map.dim_out()];
            map.map(&values, &mut mapped).unwrap();
            (values, dim) = (mapped, map.dim_out());
        }
        fitted.push(transform);
    }
    let manifest = Manifest { name: "learned".into(), input: ModelInput::bare(DIM), seed: 7, ..Manifest::default() };
    Model::new(manifest, fitted).unwrap()
}

fn batch(first_id: i64, rows: usize) -> RecordBatch {
    let ids: Int64Array = (first_id..first_id + rows as i64).map(Some).collect();
    let values = noise(rows * DIM, first_id as u32 * DIM as u32);
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), (FEATURES, vector_array(values, DIM).unwrap())])
        .unwrap()
}

/// Three partitions of unequal batches.
fn partitions() -> Vec<Vec<RecordBatch>> {
    vec![vec![batch(0, 70), batch(70, 1)], vec![batch(71, 33)], vec![batch(104, 5), batch(109, 64)]]
}

fn options() -> Options {
    Options::new().stage("squash", restore_squash).stage("by_sign", restore_by_sign)
}

/// A session with the features as `rows`, and the model saved in a directory.
async fn session(dir: &std::path::Path) -> (SessionContext, Model, String) {
    session_with(dir, model()).await
}

async fn session_with(dir: &std::path::Path, model: Model) -> (SessionContext, Model, String) {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let rows = MemTable::try_new(batch(0, 1).schema(), partitions()).unwrap();
    ctx.register_table("rows", Arc::new(rows)).unwrap();
    let models = dir.join("models").to_string_lossy().into_owned();
    let saved = model.save(&Location::parse(&models).unwrap()).await.unwrap();
    register(&ctx, options().models(&models)).await.unwrap();
    (ctx, model, saved.to_string())
}

async fn rows(ctx: &SessionContext, sql: &str) -> RecordBatch {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let schema = batches[0].schema();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

async fn error(ctx: &SessionContext, sql: &str) -> Error {
    match ctx.sql(sql).await {
        Err(e) => e.into(),
        Ok(planned) => planned.collect().await.unwrap_err().into(),
    }
}

fn bits(column: &ArrayRef) -> Vec<u32> {
    column.as_primitive::<Float32Type>().values().iter().map(|value| value.to_bits()).collect()
}

/// (id, embedding, cluster, distance, margin), all as bits, by id.
type Row = (i64, Vec<u32>, i32, u32, u32);

fn labelled(batches: &[RecordBatch]) -> Vec<Row> {
    let mut found = Vec::new();
    for batch in batches {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        let embedding = batch.column_by_name(EMBEDDING).unwrap().as_fixed_size_list();
        let [cluster, distance, margin] = LABEL_COLUMNS.map(|name| batch.column_by_name(name).unwrap());
        let (distance, margin) = (bits(distance), bits(margin));
        for row in 0..batch.num_rows() {
            let cluster = cluster.as_primitive::<Int32Type>().value(row);
            found.push((ids.value(row), bits(&embedding.value(row)), cluster, distance[row], margin[row]));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_sql_and_apply_give_the_same_bits() {
    for model in [model(), learned()] {
        let dir = tempfile::tempdir().unwrap();
        let (ctx, model, _) = session_with(dir.path(), model).await;

        let one_batch = arrow::compute::concat_batches(&batch(0, 1).schema(), partitions().iter().flatten()).unwrap();
        let applied = model.apply(&one_batch).unwrap();
        assert_eq!(applied.schema(), model.output_schema(one_batch.schema_ref()).unwrap());
        let applied = labelled(&[applied]);
        assert_eq!(applied.len(), 173);

        let plan = stage_plan(&ctx, &model).await;
        assert_eq!(labelled(&collect(plan, ctx.task_ctx()).await.unwrap()), applied);

        let hash = model.hash();
        let sql = format!(
            "SELECT id, embedding, assigned['cluster'] AS cluster, assigned['distance'] AS distance,
                    assigned['margin'] AS margin
             FROM (SELECT id, dac_embed('{hash}', features) AS embedding, dac_assign('{hash}', features) AS assigned
                   FROM rows)"
        );
        assert_eq!(labelled(&[rows(&ctx, &sql).await]), applied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_the_model_rebuild_rows_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, _) = session_with(dir.path(), learned()).await;
    let one_batch = arrow::compute::concat_batches(&batch(0, 1).schema(), partitions().iter().flatten()).unwrap();
    let expected = model.reconstruct(vectors(&one_batch, FEATURES).unwrap().0).unwrap();
    assert_eq!((expected.features.len(), expected.error.len()), (173 * DIM, 173));
    let hash = model.hash();
    let found = rows(
        &ctx,
        &format!(
            "SELECT dac_reconstruct('{hash}', features) AS rebuilt, dac_reconstruction_error('{hash}', features) AS error,
             dac_reconstruct(model, features) AS by_column
             FROM (SELECT *, CASE WHEN id >= 0 THEN '{hash}' END AS model FROM rows) ORDER BY id"
        ),
    )
    .await;
    assert_eq!(found.schema().field(0).data_type().to_string(), "FixedSizeList(6 x non-null Float32)");
    let (lists, by_column) = (found.column(0).as_fixed_size_list(), found.column(2).as_list::<i32>());
    for row in 0..173 {
        let bits_of = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&lists.value(row)), bits_of(&expected.features[row * DIM..][..DIM]), "row {row}");
        assert_eq!(bits(&lists.value(row)), bits(&by_column.value(row)));
        assert_eq!(bits(found.column(1))[row], expected.error[row].to_bits());
    }
    let nulls = rows(
        &ctx,
        &format!(
            "SELECT dac_reconstruct('{hash}', f) IS NULL, dac_reconstruction_error('{hash}', f) IS NULL
             FROM (VALUES (NULL), ([1, 2, 3, 4, 5, 6])) AS t(f)"
        ),
    )
    .await;
    for column in nulls.columns() {
        assert_eq!(column.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
    }
}

/// Neither a model without an autoencoder of ours nor one without its decoder.
#[tokio::test]
async fn what_cannot_be_rebuilt_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, toy, _) = session(dir.path()).await;
    for function in ["dac_reconstruct", "dac_reconstruction_error"] {
        let e = error(&ctx, &format!("SELECT {function}('{}', features) FROM rows", toy.hash())).await;
        assert_eq!(e.kind(), Kind::Model, "{e}");
        let said = e.to_string();
        assert!(said.contains(function) && said.contains("has no decoder") && said.contains("keep_decoder"), "{said}");
    }
    let scale = Arc::clone(&learned().stages()[0]);
    let manifest = Manifest { name: "scaled".into(), input: ModelInput::bare(DIM), ..Manifest::default() };
    let scaled = Model::new(manifest, vec![scale]).unwrap();
    for e in [scaled.reconstruct(&[0.0; DIM]).unwrap_err(), scaled.reconstruction_error(&[0.0; DIM]).unwrap_err()] {
        assert!(e.kind() == Kind::Model && e.to_string().contains("has no autoencoder, only scale"), "{e}");
    }
}

#[tokio::test]
async fn models_are_found_by_hash_prefix_path_and_uri() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, path) = session(dir.path()).await;
    let uri = format!("memory:///{}", dir.path().file_name().unwrap().to_str().unwrap());
    let uri = model.save(&Location::parse(&uri).unwrap()).await.unwrap().to_string();
    let file_url = format!("file://{path}");
    let (full, short, prefix) = (model.hash().as_str(), model.hash().short(), &model.hash().as_str()[..4]);
    for name in [full, short, prefix, &full[..30], &path, &file_url, &uri] {
        let sql = format!("SELECT count(DISTINCT dac_assign('{name}', features)['cluster']) FROM rows");
        assert_eq!(rows(&ctx, &sql).await.column(0).as_primitive::<Int64Type>().value(0), 2, "{name}");
    }
    // A model in a column, not a literal, is known only when the rows are read.
    let sql = format!(
        "SELECT dac_embed(m, features) AS e FROM (SELECT features, id, CASE WHEN id % 3 = 0 THEN NULL
         WHEN id % 3 = 1 THEN '{path}' ELSE '{prefix}' END AS m FROM rows) ORDER BY id"
    );
    let by_row = rows(&ctx, &sql).await;
    let by_row = by_row.column(0).as_list::<i32>();
    let all = rows(&ctx, &format!("SELECT dac_embed('{prefix}', features) FROM rows ORDER BY id")).await;
    assert_eq!(all.schema().field(0).data_type().to_string(), "FixedSizeList(2 x non-null Float32)");
    for row in 0..by_row.len() {
        assert_eq!(by_row.is_null(row), row % 3 == 0);
        if by_row.is_valid(row) {
            assert_eq!(&by_row.value(row), &all.column(0).as_fixed_size_list().value(row));
        }
    }
}

#[tokio::test]
async fn features_come_in_any_list_of_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, _) = session(dir.path()).await;
    let hash = model.hash().short();
    let expected = model.assign(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    for features in [
        "make_array(1, 2, 3, 4, 5, 6)",
        "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]",
        "arrow_cast([1, 2, 3, 4, 5, 6], 'LargeList(UInt8)')",
        "arrow_cast([1, 2, 3, 4, 5, 6], 'FixedSizeList(6, Float64)')",
        "arrow_cast([1, 2, 3, 4, 5, 6], 'List(Decimal128(10, 2))')",
    ] {
        let row = rows(&ctx, &format!("SELECT dac_assign('{hash}', {features}) AS a")).await;
        let found = row.column(0).as_struct();
        assert_eq!(found.column(0).as_primitive::<Int32Type>().value(0), expected.cluster[0], "{features}");
        assert_eq!(bits(found.column(1)), [expected.distance[0].to_bits()], "{features}");
        assert_eq!(bits(found.column(2)), [expected.margin[0].to_bits()], "{features}");
    }
    let sql = format!(
        "SELECT dac_embed('{hash}', f) IS NULL, dac_assign('{hash}', f) IS NULL, dac_assign('{hash}', f)['cluster']
         FROM (VALUES (NULL), ([1, 2, 3, 4, 5, 6])) AS t(f)"
    );
    let nulls = rows(&ctx, &sql).await;
    assert_eq!(nulls.column(0).as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
    assert_eq!(nulls.column(1).as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
    assert_eq!(nulls.column(2).null_count(), 1);
    let none = rows(&ctx, "SELECT dac_assign(NULL, [1, 2]) IS NULL, dac_embed(NULL, [1, 2]) IS NULL").await;
    assert!(none.column(0).as_boolean().value(0) && none.column(1).as_boolean().value(0));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, path) = session(dir.path()).await;
    let hash = model.hash().short();
    let two = "arrow_cast([1, 2], 'FixedSizeList(2, Float32)')";
    let cases: [(String, &[&str]); 10] = [
        ("dac_embed('nosuch', features)".into(), &["no model \"nosuch\"", hash]),
        ("dac_assign('0123456789abcdef', features)".into(), &["no model \"0123456789abcdef\"", hash]),
        (format!("dac_embed('{path}x', features)"), &["no model at", "manifest.json"]),
        (format!("dac_embed('{hash}', {two})"), &["for 6 features", "have 2"]),
        (format!("dac_assign('{hash}', [1, 2, 3])"), &["for 6 features", "have 3"]),
        (format!("dac_assign('{hash}', [1, 2, NULL, 4, 5, 6])"), &["feature 2 of row 0", "NULL"]),
        (
            format!("dac_assign('{hash}', [1.0, 2.0, 3.0, 4.0, CASE WHEN id = 3 THEN 'inf'::FLOAT ELSE 1.0 END, 6.0])"),
            &["dac_assign: feature 4 of row 3 of a batch is inf"],
        ),
        (
            format!("dac_embed('{hash}', [1, 2, 3, 4, 5, 'nan'::FLOAT])"),
            &["dac_embed: feature 5 of row 0 of a batch is NaN", "takes finite numbers"],
        ),
        (format!("dac_assign('{hash}', id)"), &["a list of numbers", "Int64"]),
        (format!("dac_assign('{hash}', ['a'])"), &["a list of numbers", "Utf8"]),
    ];
    for (call, parts) in cases {
        let message = error(&ctx, &format!("SELECT {call} FROM rows")).await.to_string();
        for part in parts {
            assert!(message.contains(part), "{call}: no {part:?} in: {message}");
        }
    }
    assert_eq!(error(&ctx, "SELECT dac_embed('nosuch', features) FROM rows").await.kind(), Kind::Model);
}

/// The figures of scikit-learn 1.9 for the labels below, by this program:
///
/// ```python
/// from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
/// from scipy.optimize import linear_sum_assignment  # accuracy: on the contingency table, over the number of rows
/// a = [0]*30 + [1]*25 + [2]*20 + [0]*5 + [1]*10 + [2]*10
/// b = ["sit"]*30 + ["walk"]*25 + ["lie"]*20 + ["walk"]*5 + ["sit"]*10 + ["walk"]*10
/// print(adjusted_rand_score(a, b), normalized_mutual_info_score(a, b))
/// ```
const FIGURES: [f64; 3] = [0.40476460578559276, 0.4751592939887974, 0.75];

fn labels() -> Vec<(i32, &'static str)> {
    let runs = [(0, "sit", 30), (1, "walk", 25), (2, "lie", 20), (0, "walk", 5), (1, "sit", 10), (2, "walk", 10)];
    runs.iter().flat_map(|&(a, b, n)| std::iter::repeat_n((a, b), n)).collect()
}

/// The labels dealt out to `parts` partitions, with rows that have a NULL in between.
fn labels_table(parts: usize) -> MemTable {
    let mut dealt: Vec<Vec<(Option<i32>, Option<&str>)>> = vec![vec![(None, Some("sit")), (Some(1), None)]; parts];
    for (i, (a, b)) in labels().into_iter().enumerate() {
        dealt[i * 7 % parts].push((Some(a), Some(b)));
    }
    let partition = |rows: &Vec<(Option<i32>, Option<&str>)>| {
        let a: Int32Array = rows.iter().map(|row| row.0).collect();
        let b: StringArray = rows.iter().map(|row| row.1).collect();
        let batch = RecordBatch::try_from_iter([("a", Arc::new(a) as ArrayRef), ("b", Arc::new(b) as _)]).unwrap();
        vec![batch.slice(0, 5), batch.slice(5, batch.num_rows() - 5)]
    };
    let partitions: Vec<_> = dealt.iter().map(partition).collect();
    MemTable::try_new(partitions[0][0].schema(), partitions).unwrap()
}

fn figures(batch: &RecordBatch) -> Vec<f64> {
    batch.columns().iter().map(|column| column.as_primitive::<Float64Type>().value(0)).collect()
}

fn assert_figures(found: &[f64]) {
    for (found, expected) in found.iter().zip(FIGURES) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

#[tokio::test]
async fn aggregates_give_the_known_figures_however_the_rows_are_split() {
    let sql = "SELECT ari(a, b), nmi(a, b), clustering_accuracy(a, b) FROM t";
    let mut seen: Vec<Vec<f64>> = Vec::new();
    for parts in [1, 2, 5] {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(parts));
        register(&ctx, Options::new()).await.unwrap();
        ctx.register_table("t", Arc::new(labels_table(parts))).unwrap();
        let found = figures(&rows(&ctx, sql).await);
        assert_figures(&found);
        seen.push(found);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

#[tokio::test]
async fn aggregates_take_any_labels_and_groups() {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    register(&ctx, Options::new()).await.unwrap();
    ctx.register_table("t", Arc::new(labels_table(3))).unwrap();
    // The figures do not depend on what labels are called, nor on which side they are.
    let sql = "SELECT ari(arrow_cast(b, 'Dictionary(Int32, Utf8)'), a * 1.5), nmi(b, CAST(a AS BIGINT) - 7),
               clustering_accuracy(CAST(a AS VARCHAR), b) FROM t";
    assert_figures(&figures(&rows(&ctx, sql).await));
    let sql = "SELECT a, clustering_accuracy(a, b), ari(a, b), ari(a, b) FILTER (WHERE b = 'none')
               FROM t WHERE a IS NOT NULL GROUP BY a ORDER BY a";
    let grouped = rows(&ctx, sql).await;
    let accuracy = grouped.column(1).as_primitive::<Float64Type>().values();
    assert_eq!(accuracy, &[30.0 / 35.0, 25.0 / 35.0, 20.0 / 30.0]);
    assert_eq!(grouped.column(2).as_primitive::<Float64Type>().values(), &[0.0, 0.0, 0.0]);
    assert_eq!(grouped.column(3).null_count(), 3);
    assert_eq!(rows(&ctx, "SELECT ari(a, b) FROM t WHERE a > 99").await.column(0).null_count(), 1);
    let e = error(&ctx, "SELECT ari(a, [b]) FROM t").await.to_string();
    assert!(e.contains("argument 2") && e.contains("numbers or text"), "{e}");
    let e = error(&ctx, "SELECT ari(DISTINCT a, b) FROM t").await.to_string();
    assert!(e.contains("DISTINCT"), "{e}");
}

/// The model's stages over the features.
async fn stage_plan(ctx: &SessionContext, model: &Model) -> Arc<StageExec> {
    let input = ctx.table("rows").await.unwrap().create_physical_plan().await.unwrap();
    Arc::new(StageExec::try_new(input, model.stages().to_vec()).unwrap())
}

#[tokio::test]
async fn explain_shows_the_stages_and_their_work() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, _) = session(dir.path()).await;
    let plan = stage_plan(&ctx, &model).await;
    insta::assert_snapshot!(displayable(plan.as_ref()).indent(false), @r"
    StageExec: stages=[squash, by_sign]
      DataSourceExec: partitions=3, partition_sizes=[2, 1, 2]
    ");
    collect(Arc::clone(&plan) as _, ctx.task_ctx()).await.unwrap();
    let metrics = plan.metrics().unwrap();
    assert_eq!(metrics.output_rows(), Some(173));
    assert!(metrics.elapsed_compute().unwrap() > 0);
    // Replacing the input keeps the stages and resets the metrics.
    let children = plan.children().into_iter().cloned().collect();
    #[allow(deprecated, reason = "DataFusion's own rules still call it")]
    let replaced = Arc::clone(&plan).with_new_children(children).unwrap();
    assert_eq!(replaced.schema(), plan.schema());
    assert_eq!(replaced.metrics().unwrap().output_rows(), None);
}

#[tokio::test]
async fn order_is_kept_within_each_partition() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, _) = session(dir.path()).await;
    let plan = stage_plan(&ctx, &model).await;
    assert_eq!(plan.properties().output_partitioning().partition_count(), 3);
    for (partition, ids) in [(0, 0..71), (1, 71..104), (2, 104..173)] {
        let mut stream = plan.execute(partition, ctx.task_ctx()).unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = stream.next().await {
            seen.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec());
        }
        assert_eq!(seen, ids.collect::<Vec<i64>>());
    }
}

/// Fails at the row with this id.
#[derive(Debug)]
struct FailsAt(i64);

impl Columns for FailsAt {
    fn fields(&self, _: &Schema) -> Result<Vec<Field>> {
        Ok(Vec::new())
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        match batch.column(0).as_primitive::<Int64Type>().values().contains(&self.0) {
            true => Err(Error::input(format!("row {} is bad", self.0))),
            false => Ok(Vec::new()),
        }
    }
}

impl Transform for FailsAt {
    fn kind(&self) -> &'static str {
        "fails_at"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

#[tokio::test]
async fn the_first_error_ends_the_stream_and_keeps_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, _, _) = session(dir.path()).await;
    let input = ctx.table("rows").await.unwrap().create_physical_plan().await.unwrap();
    let plan = Arc::new(StageExec::try_new(input, vec![Arc::new(FailsAt(70))]).unwrap());
    let mut stream = plan.execute(0, ctx.task_ctx()).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 70);
    let e = Error::from(stream.next().await.unwrap().unwrap_err());
    assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Input, "stage fails_at: row 70 is bad"));
    assert!(stream.next().await.is_none());
    // A reader that stops early is no error.
    let mut stream = execute_stream(plan, ctx.task_ctx()).unwrap();
    drop(stream.next().await);
    drop(stream);
}

/// Counts the batches that it works on, in all and at the same time; later ones are done sooner.
#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Columns for Counts {
    fn fields(&self, _: &Schema) -> Result<Vec<Field>> {
        Ok(Vec::new())
    }

    fn values(&self, _: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        work(if begun.is_multiple_of(2) { 20 } else { 5 });
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Vec::new())
    }
}

impl Transform for Counts {
    fn kind(&self) -> &'static str {
        "counts"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

/// Forty batches of ten rows in one partition, through a stage that counts, on `threads` threads.
async fn counted(threads: usize) -> (Arc<Counts>, Arc<StageExec>, SessionContext) {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let batches: Vec<RecordBatch> = (0..40).map(|i| batch(10 * i, 10)).collect();
    let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
    let input = ctx.read_table(Arc::new(table)).unwrap().create_physical_plan().await.unwrap();
    let counts = Arc::new(Counts::default());
    let plan = StageExec::try_new(input, vec![Arc::clone(&counts) as _]).unwrap().with_threads(threads);
    (counts, Arc::new(plan), ctx)
}

/// Simulates work of some length.
#[allow(clippy::disallowed_methods)]
fn work(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

async fn pause(milliseconds: u64) {
    SpawnedTask::spawn_blocking(move || work(milliseconds)).join_unwind().await.unwrap();
}

#[tokio::test]
async fn as_many_batches_at_once_as_threads_and_in_order() {
    for threads in [1, 3] {
        let (counts, plan, ctx) = counted(threads).await;
        let batches = collect(plan, ctx.task_ctx()).await.unwrap();
        let ids = |b: &RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(batches.iter().flat_map(ids).collect::<Vec<_>>(), (0..400).collect::<Vec<i64>>());
        assert_eq!(counts.most.load(Ordering::SeqCst), threads);
    }
}

#[tokio::test]
async fn what_nobody_reads_is_not_computed() {
    let (counts, plan, ctx) = counted(2).await;
    let mut stream = execute_stream(plan, ctx.task_ctx()).unwrap();
    stream.next().await.unwrap().unwrap();
    pause(300).await;
    // One was read, two wait for the reader, one is on its way to them, four are in flight.
    let begun = counts.begun.load(Ordering::SeqCst);
    assert!(begun <= 8, "{begun} batches");
    drop(stream);
    pause(100).await;
    assert_eq!(counts.begun.load(Ordering::SeqCst), begun);
}

#[tokio::test]
async fn a_stage_that_does_not_fit_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, model, _) = session(dir.path()).await;
    let input = ctx.sql("SELECT id FROM rows").await.unwrap().create_physical_plan().await.unwrap();
    let e = StageExec::try_new(input, model.stages().to_vec()).unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert!(e.to_string().contains("features"), "{e}");
}

/// A labelled table with its model, and one bad row set aside.
async fn write_table(place: &str) -> Model {
    write_table_at(&Location::parse(place).unwrap()).await
}

async fn write_table_at(location: &Location) -> Model {
    let model = model();
    let mut writer = TableWriter::begin(location, WriteOptions::new(Mode::Append, "run-1")).await.unwrap();
    let labelled = model.apply(&batch(0, 70)).unwrap();
    let labels = Labels { model: model.hash().as_str().into(), labelled_at: SystemTime::UNIX_EPOCH };
    writer.sink(labelled.schema(), labels).unwrap().write(&labelled).await.unwrap();
    model.save(&location.join("models").unwrap()).await.unwrap();
    let centroids = [Some(vec![Some(-0.5), Some(0.0)]), Some(vec![Some(0.5), Some(0.0)])];
    let clusters = RecordBatch::try_from_iter([
        ("cluster", Arc::new(Int32Array::from(vec![0, 1])) as ArrayRef),
        ("size", Arc::new(Int64Array::from(vec![30, 40])) as _),
        ("centroid", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(centroids)) as _),
        ("mean_distance", Arc::new(Float64Array::from(vec![0.5, 0.25])) as _),
    ]);
    let quarantine = Some(bad_row("NaN"));
    let info = CommitInfo { clusters: Some(clusters.unwrap()), quarantine, ..CommitInfo::default() };
    writer.commit(info).await.unwrap();
    model
}

/// A file of an earlier version of dacpipe does not say how many rows its entries are.
#[tokio::test]
async fn a_quarantine_without_numbers_of_rows_is_read() {
    let location = Location::parse("memory:///sql/before").unwrap();
    let bad = RecordBatch::try_from_iter([
        ("file", Arc::new(StringArray::from(vec!["acc.txt"])) as ArrayRef),
        ("line", Arc::new(arrow::array::UInt64Array::from(vec![7])) as _),
        ("reason", Arc::new(StringArray::from(vec!["NaN"])) as _),
    ]);
    let mut bytes = Vec::new();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(&mut bytes, bad.as_ref().unwrap().schema(), None).unwrap();
    parquet.write(&bad.unwrap()).unwrap();
    parquet.close().unwrap();
    location.put("quarantine/run-1.parquet", bytes.into()).await.unwrap();
    let ctx = SessionContext::new();
    register(&ctx, Options::new().table("toy", "memory:///sql/before")).await.unwrap();
    let sql = "SELECT count(*), count(rows), max(line) FROM toy_quarantine WHERE run = 'run-1'";
    let found = rows(&ctx, sql).await;
    assert_eq!(found.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(found.column(1).as_primitive::<Int64Type>().value(0), 0);
}

/// A row that a run sets aside.
fn bad_row(reason: &str) -> RecordBatch {
    let bad = Arc::new(BadRows::new());
    Rejects::new(OnBadRow::Quarantine, Arc::clone(&bad)).reject("acc.txt", 7, reason).unwrap();
    bad.to_batch().unwrap()
}

/// Runs that failed and runs whose rows were overwritten are there, too, and told apart.
#[tokio::test]
async fn the_quarantine_is_that_of_all_runs() {
    let dir = tempfile::tempdir().unwrap();
    for place in [dir.path().join("a b/to#y 50%").to_str().unwrap(), "memory:///sql/quarantine"] {
        let location = Location::parse(place).unwrap();
        let registered = async || {
            let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
            let tables = register(&ctx, Options::new().table("toy", place)).await.unwrap().tables;
            (ctx, tables.iter().any(|table| table.name == "toy_quarantine"))
        };
        let shown = async || {
            let (ctx, _) = registered().await;
            let found =
                rows(&ctx, "SELECT run, file, line, reason, in_table, rows FROM toy_quarantine ORDER BY run").await;
            let column = |i: usize| arrow::compute::cast(found.column(i), &DataType::Utf8).unwrap();
            let text = |i: usize| -> Vec<String> {
                column(i).as_string::<i32>().iter().map(|v| v.unwrap().to_owned()).collect()
            };
            assert!(text(1).iter().all(|file| file == "acc.txt") && text(2).iter().all(|line| line == "7"));
            assert!(text(5).iter().all(|rows| rows == "1"));
            let entries = text(0).into_iter().zip(text(3)).zip(text(4));
            entries.map(|((run, reason), in_table)| (run, reason, in_table == "true")).collect::<Vec<_>>()
        };
        let entry = |run: &str, reason: &str, in_table: bool| (run.to_owned(), reason.to_owned(), in_table);
        let failed = entry("failed", "never committed", false);
        let run = async |mode, run: &str, bad: Option<&str>| {
            let mut writer = TableWriter::begin(&location, WriteOptions::new(mode, run)).await.unwrap();
            let labels = Labels { model: "m".into(), labelled_at: SystemTime::UNIX_EPOCH };
            writer.sink(batch(0, 1).schema(), labels).unwrap().write(&batch(0, 3)).await.unwrap();
            let quarantine = bad.map(bad_row);
            writer.commit(CommitInfo { quarantine, ..CommitInfo::default() }).await.unwrap();
        };
        let ctx = SessionContext::new();
        assert!(register(&ctx, Options::new().table("toy", place)).await.is_err(), "there is nothing");
        let rows_of_failed = bad_row("never committed");
        dacpipe::table::set_aside(&location, &rows_of_failed, "failed", SystemTime::UNIX_EPOCH).await.unwrap();
        // Before any run has committed, only that can be asked for.
        assert_eq!(shown().await, std::slice::from_ref(&failed));
        let ctx = SessionContext::new();
        let alone = register(&ctx, Options::new().table("toy", place)).await.unwrap().tables;
        assert_eq!(alone.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["toy_quarantine"]);
        run(Mode::Append, "run-0", None).await;
        assert_eq!(shown().await, std::slice::from_ref(&failed));
        run(Mode::Append, "run-1", Some("NaN")).await;
        assert_eq!(shown().await, [failed.clone(), entry("run-1", "NaN", true)]);
        run(Mode::Append, "run-2", Some("inf")).await;
        run(Mode::Append, "run-4", None).await;
        assert_eq!(shown().await, [failed.clone(), entry("run-1", "NaN", true), entry("run-2", "inf", true)]);
        let (ctx, _) = registered().await;
        let one = rows(&ctx, "SELECT reason FROM toy_quarantine WHERE run = 'run-2'").await;
        assert_eq!(one.num_rows(), 1);
        run(Mode::Overwrite, "run-3", None).await;
        assert_eq!(shown().await, [failed.clone(), entry("run-1", "NaN", false), entry("run-2", "inf", false)]);
        // Files with other names or of other kinds are not those of runs.
        for name in ["quarantine/notes.txt", "quarantine/my notes.parquet", "quarantine/more/run-9.parquet"] {
            location.put(name, "text".into()).await.unwrap();
        }
        assert_eq!(shown().await.len(), 3);
        // Any reader of Delta tables sees the rows of commits once, under the version that they made.
        let table = LabelTable::open_at(&location.join("quarantine").unwrap(), None).await.unwrap();
        let ctx = SessionContext::new();
        ctx.register_table("q", Arc::new(table)).unwrap();
        let found = rows(&ctx, "SELECT run, version FROM q WHERE version IS NOT NULL ORDER BY run").await;
        let versions = found.column(1).as_primitive::<Int64Type>().values();
        assert_eq!((found.num_rows(), &versions[..]), (2, &[1, 2][..]));
        // Compaction and vacuum include it, and change nothing of what is seen.
        let before = shown().await;
        let files = || async {
            let place = location.join("quarantine").unwrap();
            LabelTable::open_at(&place, None).await.unwrap().snapshot().files.len()
        };
        assert_eq!(files().await, 3);
        dacpipe::table::optimize(&location, 1 << 20).await.unwrap();
        assert_eq!((files().await, shown().await), (1, before.clone()));
        let removed = dacpipe::table::vacuum(&location, Some(std::time::Duration::ZERO), false).await.unwrap();
        assert!(removed.files >= 3, "{removed:?}");
        assert_eq!(shown().await, before);
    }
}

#[tokio::test]
async fn the_sessions_own_stores_come_first() {
    let store: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let bucket = |prefix: &str| Location::new(Arc::clone(&store), prefix.into(), format!("s3://bucket/{prefix}"));
    let labelled = write_table_at(&bucket("out/toy").unwrap()).await;
    let alone = learned();
    alone.save(&bucket("models").unwrap()).await.unwrap();

    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let url = url::Url::parse("s3://bucket").unwrap();
    ctx.register_object_store(&url, Arc::clone(&store));
    let options = options().table("toy", "s3://bucket/out/toy").models("s3://bucket/models/");
    let registration = register(&ctx, options).await.unwrap();
    assert_eq!(registration.tables.len(), 3, "{registration:?}");
    let count = async |table: &str| {
        let batches = ctx.sql(&format!("SELECT * FROM {table}")).await.unwrap().collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum::<usize>()
    };
    assert_eq!([count("toy").await, count("toy_clusters").await, count("toy_quarantine").await], [70, 2, 1]);
    let values = ["1.0"; DIM].join(", ");
    for (name, model) in [
        (labelled.hash().as_str().to_owned(), &labelled),
        (format!("s3://bucket/out/toy/models/{}", labelled.hash().short()), &labelled),
        (alone.hash().short().to_owned(), &alone),
        (format!("s3://bucket/models/{}", alone.hash().short()), &alone),
    ] {
        let found = rows(&ctx, &format!("SELECT dac_assign('{name}', [{values}])['cluster']")).await;
        let expected = model.assign(&[1.0; DIM]).unwrap().cluster[0];
        assert_eq!(found.column(0).as_primitive::<Int32Type>().value(0), expected, "{name}");
    }
}

#[tokio::test]
async fn a_table_comes_with_its_clusters_its_quarantine_and_its_models() {
    let dir = tempfile::tempdir().unwrap();
    for place in [dir.path().join("toy").to_str().unwrap(), "memory:///sql/toy"] {
        let model = write_table(place).await;
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let registration = register(&ctx, options().table("toy", place)).await.unwrap();
        let names: Vec<&str> = registration.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["toy", "toy_clusters", "toy_quarantine"]);
        let sql = "SELECT count(*), (SELECT sum(size) FROM toy_clusters), (SELECT min(reason) FROM toy_quarantine)
                   FROM toy JOIN toy_clusters USING (cluster)";
        let row = rows(&ctx, sql).await;
        assert_eq!(row.column(0).as_primitive::<Int64Type>().value(0), 70);
        assert_eq!(row.column(1).as_primitive::<Int64Type>().value(0), 70);
        // The model of the rows is found by the hash that stands beside them.
        let values = ["1.0"; DIM].join(", ");
        let sql = format!("SELECT DISTINCT dac_assign(model, [{values}])['cluster'] FROM toy");
        let expected = model.assign(&[1.0; DIM]).unwrap().cluster[0];
        assert_eq!(rows(&ctx, &sql).await.column(0).as_primitive::<Int32Type>().value(0), expected);
    }
}

#[tokio::test]
async fn explain_of_a_labelled_table_names_its_files_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("toy");
    write_table(place.to_str().unwrap()).await;
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    register(&ctx, options().table("toy", place.to_str().unwrap())).await.unwrap();
    let sql = "SELECT id, distance FROM toy WHERE distance < 0.5 LIMIT 3";
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let root = place.canonicalize().unwrap().to_string_lossy().trim_start_matches('/').to_owned();
    insta::assert_snapshot!(text.replace(&root, "TABLE"), @r"
    FilterExec: CAST(distance@1 AS Float64) < 0.5, fetch=3
      DataSourceExec: file_groups={1 group: [[TABLE/data/run-1/part-00000.parquet]]}, projection=[id, distance], file_type=parquet, predicate=CAST(distance@3 AS Float64) < 0.5, pruning_predicate=distance_null_count@1 != row_count@2 AND CAST(distance_min@0 AS Float64) < 0.5, required_guarantees=[]
    ");
}

#[tokio::test]
async fn tables_that_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere").to_string_lossy().into_owned();
    let ctx = SessionContext::new();
    let registration = register(&ctx, Options::new().table_if_sound("x", &nowhere)).await.unwrap();
    assert!(registration.tables.is_empty());
    assert_eq!(registration.left_out[0].1.kind(), Kind::Table);
    let e = register(&ctx, Options::new().table("x", &nowhere)).await.unwrap_err();
    assert!(e.to_string().starts_with("table x: "), "{e}");
}

#[tokio::test]
async fn plain_files_are_tables_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    std::fs::write(&path, "a,b\n1,x\n2,y\n").unwrap();
    let ctx = SessionContext::new();
    register(&ctx, Options::new().table("x", path.to_str().unwrap())).await.unwrap();
    assert_eq!(rows(&ctx, "SELECT sum(a) FROM x").await.column(0).as_primitive::<Int64Type>().value(0), 3);
    for (name, text) in [("UPPER.CSV", "a,b\n1,x\n2,y\n"), ("t.tsv", "a\tb\n1\tx\n2\ty\n")] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let ctx = SessionContext::new();
        register(&ctx, Options::new().table("x", path.to_str().unwrap())).await.unwrap();
        assert_eq!(
            rows(&ctx, "SELECT sum(a) FROM x").await.column(0).as_primitive::<Int64Type>().value(0),
            3,
            "{name}"
        );
    }
    for (name, text) in [("empty.csv", ""), ("blank.tsv", "\n\n"), ("mark.csv", "\u{feff}")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let empty = "empty, expected a line with names of columns";
    for (name, said) in [
        ("gone.csv", "no such file"),
        ("notes.txt", "is a file of another kind"),
        ("empty.csv", empty),
        ("blank.tsv", empty),
        ("mark.csv", empty),
    ] {
        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let path = dir.path().join(name);
        let e = register(&SessionContext::new(), Options::new().table("x", path.to_str().unwrap())).await.unwrap_err();
        assert!(e.kind() == Kind::Input && e.to_string().contains(said), "{e}");
    }
}

/// Text files as found in practice, plain and compressed, with any delimiter.
#[tokio::test]
async fn text_files_are_tables_however_they_are_written() {
    use std::io::Write;
    let gzip = |text: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text).unwrap();
        out.finish().unwrap()
    };
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("a\tb\n1\tä\n2\ty\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, first) in [
        ("x.csv.gz", gzip(b"a,b\n1,x\n2,y\n"), "x"),
        ("X.TSV.GZ", gzip(b"a\tb\n1\tx\n2\ty\n"), "x"),
        ("x.csv.zst", zstd::encode_all(&b"a,b\n1,x\n2,y\n"[..], 3).unwrap(), "x"),
        ("gzip-by-content.csv", gzip(b"a,b\n1,x\n2,y\n"), "x"),
        ("x.csv", b"a;b\n1;x\n2;y\n".to_vec(), "x"),
        ("said.csv", b"sep=;\na;b\n1;\"x;x\"\n2;y\n".to_vec(), "x;x"),
        ("pipes.csv", b"a|b\n1|x,x\n2|y\n".to_vec(), "x,x"),
        ("both.csv.gz", gzip(b"a;b\n1;x\n2;y\n"), "x"),
        ("quotes.csv", b"a,b\n1,'x, x'\n2,'y'\n".to_vec(), "x, x"),
        ("escapes.csv", b"a,b\n1,\"x \\\"y\\\", z\"\n2,\"y\"\n".to_vec(), "x \"y\", z"),
        ("utf16.csv", utf16, "ä"),
        // The reader judges lines of different lengths; semicolons only in names do not make a delimiter.
        ("plain.csv", b"a,b\n1,x;x\n2,y\n".to_vec(), "x;x"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let ctx = SessionContext::new();
        register(&ctx, Options::new().table("x", path.to_str().unwrap()))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = rows(&ctx, "SELECT sum(a), min(b) FILTER (WHERE a = 1) FROM x").await;
        assert_eq!(found.column(0).as_primitive::<Int64Type>().value(0), 3, "{name}");
        let text = arrow::compute::cast(found.column(1), &DataType::Utf8).unwrap();
        assert_eq!(text.as_string::<i32>().value(0), first, "{name}");
        // Each scan reads it anew.
        assert_eq!(rows(&ctx, "SELECT b FROM x AS l JOIN x AS r USING (b)").await.num_rows(), 2, "{name}");
    }
    for (name, bytes, said) in [
        ("cut.csv.gz", gzip(&b"a,b\n1,x\n".repeat(10_000))[..100].to_vec(), "cut.csv.gz: damaged or cut off"),
        ("x.csv.xz", b"\xfd7zXZ\0 and more".to_vec(), "an xz file"),
        ("gone.csv.gz", Vec::new(), "no such file"),
    ] {
        let path = dir.path().join(name);
        if name != "gone.csv.gz" {
            std::fs::write(&path, bytes).unwrap();
        }
        let e = register(&SessionContext::new(), Options::new().table("x", path.to_str().unwrap())).await.unwrap_err();
        assert!(e.kind() == Kind::Input && e.to_string().contains(said), "{name}: {e}");
    }
}

#[tokio::test]
async fn a_place_is_what_lies_there_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["labels.parquet", "labels.csv", "v1.tsv"] {
        write_table(&place(name)).await;
        let ctx = SessionContext::new();
        register(&ctx, Options::new().table("x", &place(name))).await.unwrap();
        assert_eq!(rows(&ctx, "SELECT * FROM x").await.num_rows(), 70, "{name}");
        assert_eq!(rows(&ctx, "SELECT * FROM x_clusters").await.num_rows(), 2, "{name}");
    }
    write_table("memory:///named/labels.parquet").await;
    let ctx = SessionContext::new();
    register(&ctx, Options::new().table("x", "memory:///named/labels.parquet")).await.unwrap();
    assert_eq!(rows(&ctx, "SELECT * FROM x").await.num_rows(), 70);
    // A file of Parquet by any name, and a directory of such files that is no table.
    std::fs::create_dir(place("some.parquet")).unwrap();
    for name in ["noext", "old.bak", "some.parquet/1.parquet"] {
        let batch = batch(0, 5).project(&[0]).unwrap();
        let file = std::fs::File::create(place(name)).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    for name in ["noext", "old.bak", "some.parquet"] {
        let ctx = SessionContext::new();
        register(&ctx, Options::new().table("x", &place(name))).await.unwrap();
        assert_eq!(rows(&ctx, "SELECT * FROM x").await.num_rows(), 5, "{name}");
    }
}

#[tokio::test]
async fn a_turned_bit_in_a_footer_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.parquet");
    let rows = batch(0, 5);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let end = whole.len() - 8;
    let footer = u32::from_le_bytes(whole[end..end + 4].try_into().unwrap()) as usize;
    let mut refused = 0;
    for bit in (0..footer * 8).step_by(7) {
        let mut turned = whole.clone();
        turned[end - footer + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, turned).unwrap();
        let options = Options::new().table("x", path.to_str().unwrap());
        if let Err(e) = register(&SessionContext::new(), options).await {
            refused += 1;
            assert!(e.kind() == Kind::Input && e.to_string().contains("rows.parquet: "), "bit {bit}: {e}");
        }
    }
    assert!(refused > 50, "{refused}");
}

/// `dacpipe sql` with these arguments and this standard input: its stdout and stderr.
fn command(arguments: &[&str], input: &str) -> (String, String) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_dacpipe"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("HAPT_DATA")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_finds_the_tables_of_runs_and_takes_sql_from_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // A run that failed has left a log without a version.
    std::fs::create_dir_all(out.join("failed/_delta_log")).unwrap();
    let sink = format!("sink.path={:?}", out.join("first").display().to_string());
    let quick = ["stage.autoencoder.epochs=1", "stage.manifold.epochs=5", "stage.kmeans.n_init=1"];
    let sets = quick.into_iter().chain([sink.as_str()]).flat_map(|set| ["--set", set]);
    command(&["run", "pipelines/hapt.toml", "--quiet"].into_iter().chain(sets).collect::<Vec<_>>(), "");

    let sql = |more: &[&str], input: &str| {
        let found = ["sql", "--dir", out.to_str().unwrap(), "--format", "csv"];
        command(&[&found[..], more].concat(), input)
    };
    // The pipeline's name is the table's, whatever its directory is called.
    let count = "SELECT count(*) > 100 AS many, count(DISTINCT cluster) AS clusters FROM hapt";
    let answer = ("many,clusters\ntrue,12\n".to_owned(), String::new());
    assert_eq!(sql(&["-c", count], ""), answer);
    assert_eq!(sql(&["-c", &format!("{count};"), "-c", "SELECT 1 AS one"], "").0, answer.0.clone() + "one\n1\n");
    let file = dir.path().join("count.sql");
    std::fs::write(&file, format!("-- how many\n{count};\nSELECT sum(size) > 100 AS many FROM hapt_clusters;\n"))
        .unwrap();
    assert_eq!(sql(&["-f", file.to_str().unwrap()], "").0, answer.0.clone() + "many\ntrue\n");
    assert_eq!(sql(&[], &format!("{count}\n;\n")), answer);

    // Another run of the same pipeline beside it.
    copy(&out.join("first"), &out.join("second"));
    let (rows, said) = sql(&["-c", "SELECT count(*) FROM second EXCEPT SELECT count(*) FROM hapt"], "");
    assert_eq!(rows, "count(*)\n");
    let place = |name: &str| out.join(name).display().to_string();
    let note =
        format!("the table in {} is registered as second: hapt is the table in {}", place("second"), place("first"));
    assert_eq!(said, format!("note: {note}\n"));
    let tables = sql(&["-c", "SHOW TABLES"], "").0;
    for name in ["hapt", "hapt_clusters", "second", "second_clusters"] {
        assert!(tables.contains(&format!(",{name},")), "{tables}");
    }
}

#[tokio::test]
async fn fields_are_named_as_postgresql_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = learned();
    let place = model.save(&Location::parse(dir.path().to_str().unwrap()).unwrap()).await.unwrap();
    let zeros = vec!["0.5"; model.dim_in()].join(", ");
    let call = format!("dac_assign('{place}', [{zeros}])");
    let sql = |query: &str| command(&["sql", "--dir", "none", "--format", "csv", "-c", query], "").0;
    let whole = sql(&format!("SELECT ({call}).*"));
    let (head, values) = whole.split_once('\n').unwrap();
    assert_eq!(head, "cluster,distance,margin");
    let one = |field: &str| sql(&format!("SELECT {field} AS v")).lines().nth(1).unwrap().to_owned();
    let fields = ["cluster", "distance", "margin"].map(|field| one(&format!("({call}).{field}")));
    assert_eq!(fields.join(","), values.trim_end());
    assert_eq!(one(&format!("{call}.cluster")), fields[0]);
    assert_eq!(one(&format!("({call}).\"cluster\"")), fields[0]);
    assert_eq!(one(&format!("({call})['cluster']")), fields[0]);
    let query = format!("SELECT x FROM (VALUES (7)) AS t(x) WHERE ({call}).distance >= 0");
    assert_eq!(sql(&query), "x\n7\n");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &target),
            false => drop(std::fs::copy(&entry, &target).unwrap()),
        }
    }
}
