//! Features in double precision, integers of any width and decimals keep small differences between large values, on
//! which clusters depend; features in single precision stay unchanged.

use std::path::Path;
use std::sync::Arc;

use dacpipe::column::{Values, double_array, double_field, values, vector_array, vector_field};
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::{FellTogether, RunReport, summary};
use dacpipe::source::OnBadRow;
use dacpipe::sql::{self, Options};
use dacpipe::stage::FEATURES;
use dacpipe::store::Location;
use dacpipe::table::{Mode, OnExisting};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch,
};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, UInt64Type,
};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ArrowWriter;

const ROWS: usize = 240;
const CLASSES: usize = 3;

/// Value `at` of row `row`, of class `row % 3`: whole numbers up to 2000, classes a thousand apart.
fn apart(row: usize, at: usize) -> i64 {
    let corner = [[0, 0], [1000, 0], [0, 1000]][row % CLASSES][at];
    corner + (row * 37 + at * 11) as i64 % 97
}

fn pairs<T>(value: impl Fn(i64) -> T) -> Vec<Option<Vec<Option<T>>>> {
    (0..ROWS).map(|row| Some((0..2).map(|at| Some(value(apart(row, at)))).collect())).collect()
}

fn doubles(value: impl Fn(i64) -> f64) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(pairs(value)))
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let classes: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (row % CLASSES) as i64)));
    let columns = [("id", ids), ("y", classes)].into_iter().chain(columns);
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

const KMEANS: &str = "[[stage]]\nkind = \"kmeans\"\nk = 3\n";
const SCALED: &str = "[[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"kmeans\"\nk = 3\n";

async fn try_run(dir: &Path, source: &str, stages: &str, sets: &[String]) -> dacpipe::Result<RunReport> {
    let text = format!(
        "name = \"rows\"\nseed = 3\n[source]\n{source}\n{stages}\n[sink]\npath = {:?}\n",
        dir.join("out").display().to_string(),
    );
    let loaded = PipelineFile::parse("rows.toml", &text, sets, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await
}

/// A run over the column `v`, or the columns `features` names, of `rows.parquet`.
async fn run(dir: &Path, features: &str, stages: &str) -> RunReport {
    let path = dir.join("rows.parquet").display().to_string();
    let source = format!("kind = \"parquet\"\npath = {path:?}\nfeatures = {features}\nkeys = [\"id\"]\nlabel = \"y\"");
    try_run(dir, &source, stages, &[]).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn ask(dir: &Path, table: &str, query: &str) -> RecordBatch {
    let ctx = SessionContext::new_with_config(sql::session_config());
    let place = dir.join(table).display().to_string();
    sql::register(&ctx, Options::new().table("rows", &place)).await.unwrap();
    let input = dir.join("rows.parquet").display().to_string();
    ctx.register_parquet("input", &input, ParquetReadOptions::default()).await.unwrap();
    let batches = ctx.sql(query).await.unwrap_or_else(|e| panic!("{query}: {e}")).collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn ari(report: &RunReport) -> f64 {
    report.scores["all"].ari
}

fn relabel(dir: &Path, report: &RunReport) -> Relabel {
    Relabel {
        model: report.model_path.clone(),
        input: dir.join("rows.parquet").display().to_string(),
        output: dir.join("new").display().to_string(),
        kind: None,
        features: Some("v".into()),
        keys: vec!["id".into()],
        within: None,
        mode: Mode::Overwrite,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error: false,
        vectors: None,
        on_bad_row: OnBadRow::Fail,
        threads: Some(2),
        device: DeviceChoice::Cpu,
    }
}

const LABELS: &str = "SELECT id, cluster, distance, margin FROM rows ORDER BY id";

#[tokio::test]
async fn values_far_from_zero_keep_their_clusters() {
    let whole: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(pairs(|v| (1 << 53) + 1 + v)));
    let nanoseconds = pairs(|v| 1_700_000_000_000_000_000 + v * 1_000_000);
    let nanoseconds: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(nanoseconds));
    let unsigned = pairs(|v| (1_u64 << 63) + 1_000_000 * v as u64);
    let unsigned: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(unsigned));
    let item = Arc::new(Field::new("item", DataType::Decimal128(18, 3), true));
    let decimals = cast(&doubles(|v| 4_700_000_000.0 + v as f64 / 1000.0), &DataType::List(item)).unwrap();
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let narrow = cast(&doubles(|v| 1_700_000_000.0 + v as f64 / 10.0), &DataType::List(item)).unwrap();
    let cases = [
        ("milliseconds", doubles(|v| 1.7e12 + v as f64), 1.7e12),
        ("metres", doubles(|v| 4.7e6 + v as f64 / 1e5), 4.7e6),
        ("below zero", doubles(|v| -1.7e12 + v as f64), -1.7e12),
        ("near 2^53", whole, (1_u64 << 53) as f64),
        ("nanoseconds", nanoseconds, 1.7e18),
        ("beyond 2^63", unsigned, (1_u64 << 63) as f64),
        ("decimals", decimals, 4.7e9),
        ("seconds in 32 bits", narrow, 1.7e9),
    ];
    for (what, column, zero) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("rows.parquet"), vec![("v", column)]);
        for stages in [KMEANS, SCALED] {
            let report = run(dir.path(), "\"v\"", stages).await;
            assert_eq!(ari(&report), 1.0, "{what}: {stages}");
            // Beyond 2^53 every second integer becomes its neighbour: the clusters are kept, some values are not.
            let named: Vec<String> = report.fell_together().into_iter().map(|fallen| fallen.feature).collect();
            assert_eq!(named.len(), if what == "near 2^53" { 2 } else { 0 }, "{what}: {named:?}");
            if stages == KMEANS {
                // The centroids are in the source's units, and as far from each other as the means.
                let clusters = ask(dir.path(), "out", "SELECT unnest(centroid) AS x FROM rows_clusters").await;
                let near = |x: &f64| (x - zero).abs() <= zero.abs() * 1e-6 + 1.0;
                let values = clusters.column(0).as_primitive::<Float64Type>();
                assert!(values.values().iter().all(near), "{what}: {clusters:?}");
                let off = "SELECT max(abs(c.centroid[1] - p.mean)) / (max(p.mean) - min(p.mean)) AS off FROM \
                           rows_clusters AS c JOIN cluster_profile('rows') AS p ON c.cluster = p.cluster WHERE position = 0";
                let off = ask(dir.path(), "out", off).await.column(0).as_primitive::<Float64Type>().value(0);
                assert!(off < 1e-5, "{what}: {off}");
            }
            // The profile has the means in double precision.
            let means = "SELECT max(mean) - min(mean) AS apart FROM cluster_profile('rows') WHERE position = 0";
            let apart = ask(dir.path(), "out", means).await.column(0).as_primitive::<Float64Type>().value(0);
            assert!(apart > 0.0, "{what}");
        }
    }
}

#[tokio::test]
async fn columns_beside_each_other_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let at = |at: usize| (0..ROWS).map(move |row| apart(row, at));
    let time: ArrayRef = Arc::new(Int64Array::from_iter_values(at(0).map(|v| 1_700_000_000_000 + v)));
    let level: ArrayRef = Arc::new(Float32Array::from_iter_values(at(1).map(|v| v as f32 / 8.0)));
    write(&dir.path().join("rows.parquet"), vec![("time", time), ("level", level)]);
    for stages in [KMEANS, SCALED] {
        assert_eq!(ari(&run(dir.path(), "[\"time\", \"level\"]", stages).await), 1.0, "{stages}");
    }
}

#[tokio::test]
async fn samples_of_a_text_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let line = |row: usize| format!("{},{},{}\n", 1_700_000_000_000 + apart(row, 0), apart(row, 1), row % CLASSES);
    let text: String = std::iter::once("t,x,y\n".to_owned()).chain((0..ROWS).map(line)).collect();
    let path = dir.path().join("rows.csv").display().to_string();
    std::fs::write(&path, text).unwrap();
    let source = format!("kind = \"csv\"\npath = {path:?}\nchannels = [\"t\", \"x\"]\nlabel = \"y\"\nrate_hz = 1.0");
    for stages in [KMEANS, SCALED] {
        let report = try_run(dir.path(), &source, stages, &[]).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((ari(&report), report.labelled_rows), (1.0, ROWS as u64), "{stages}");
    }
}

#[tokio::test]
async fn command_sql_and_library_give_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("rows.parquet"), vec![("v", doubles(|v| 1.7e12 + v as f64 / 7.0))]);
    for stages in [KMEANS, SCALED] {
        let report = run(dir.path(), "\"v\"", stages).await;
        let written = ask(dir.path(), "out", LABELS).await;
        let by_sql = format!(
            "SELECT id, a['cluster'] AS cluster, a['distance'] AS distance, a['margin'] AS margin
             FROM (SELECT id, dac_assign('{}', v) AS a FROM input) ORDER BY id",
            report.model
        );
        let by_sql = ask(dir.path(), "out", &by_sql).await;
        for column in 0..4 {
            assert_eq!(by_sql.column(column).to_data(), written.column(column).to_data(), "{stages} {column}");
        }
        relabel(dir.path(), &report).run(&Control::default()).await.unwrap();
        assert_eq!(ask(dir.path(), "new", LABELS).await.columns(), written.columns(), "{stages}");

        // The loaded model, in batches of any size.
        let model = Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
        let rows: Vec<f64> =
            (0..ROWS).flat_map(|row| (0..2).map(move |at| 1.7e12 + apart(row, at) as f64 / 7.0)).collect();
        let schema = Arc::new(Schema::new(vec![double_field(FEATURES, 2)]));
        let batch = RecordBatch::try_new(schema, vec![double_array(rows.clone(), 2).unwrap()]).unwrap();
        let distances = written["distance"].as_primitive::<Float32Type>();
        assert_eq!(model.assign(&rows).unwrap().distance, distances.values().as_ref());
        for start in [0, 7, 238] {
            let part = model.apply(&batch.slice(start, 2)).unwrap();
            assert_eq!(part.schema(), model.output_schema(batch.schema_ref()).unwrap());
            assert_eq!(part["distance"].to_data(), distances.slice(start, 2).to_data());
        }
    }
}

#[tokio::test]
async fn neither_threads_nor_the_memory_limit_change_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("rows.parquet"), vec![("v", doubles(|v| 1.7e12 + v as f64 / 7.0))]);
    let path = dir.path().join("rows.parquet").display().to_string();
    let source = format!("kind = \"parquet\"\npath = {path:?}\nfeatures = \"v\"\nkeys = [\"id\"]\nlabel = \"y\"");
    let mut models = Vec::new();
    for sets in
        [vec![], vec!["threads=1".to_owned()], vec!["threads=3".to_owned(), "memory_limit=\"64MiB\"".to_owned()]]
    {
        let report = try_run(dir.path(), &source, SCALED, &sets).await.unwrap_or_else(|e| panic!("{e}"));
        models.push((report.model, ask(dir.path(), "out", LABELS).await.columns().to_vec()));
    }
    assert!(models.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test]
async fn a_model_takes_rows_of_either_precision() {
    let single = |column: &ArrayRef| {
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        cast(column, &DataType::List(item)).unwrap()
    };
    // Values that fit into single precision give the same model in both precisions.
    let near = doubles(|v| v as f64 / 4.0);
    let mut tables = Vec::new();
    for column in [near.clone(), single(&near)] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("rows.parquet"), vec![("v", column)]);
        let report = run(dir.path(), "\"v\"", SCALED).await;
        let labels = ask(dir.path(), "out", LABELS).await;
        // And each model labels the rows of the other precision.
        write(
            &dir.path().join("rows.parquet"),
            vec![("v", if tables.is_empty() { single(&near) } else { near.clone() })],
        );
        relabel(dir.path(), &report).run(&Control::default()).await.unwrap();
        assert_eq!(ask(dir.path(), "new", LABELS).await.columns(), labels.columns());
        tables.push((report.model, labels.columns().to_vec()));
    }
    assert_eq!(tables[0], tables[1]);

    // A model that subtracts an origin takes single precision values literally, here as multiples of 1024.
    let far = doubles(|v| 1024.0 * (16_601_563.0 + v as f64) + 0.25);
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("rows.parquet"), vec![("v", far.clone())]);
    let report = run(dir.path(), "\"v\"", KMEANS).await;
    let model = Model::load(&Location::parse(&report.model_path).unwrap()).await.unwrap();
    assert_eq!(model.stages()[0].kind(), "origin");
    let rows = single(&far);
    let rows = rows.as_list::<i32>().values().as_primitive::<Float32Type>().values().to_vec();
    let schema = Arc::new(Schema::new(vec![vector_field(FEATURES, 2)]));
    let batch = RecordBatch::try_new(schema, vec![vector_array(rows, 2).unwrap()]).unwrap();
    let (given, _) = values(&batch, FEATURES).unwrap();
    let Values::Single(given) = given else { panic!("single precision") };
    let labels = ask(dir.path(), "out", LABELS).await;
    let found = model.assign(given).unwrap();
    assert_eq!(found.cluster, labels["cluster"].as_primitive::<Int32Type>().values().as_ref());
    assert_eq!(model.apply(&batch).unwrap()["distance"].to_data(), Float32Array::from(found.distance).to_data());
}

/// Integers and decimals of more digits than double precision has, of any type, in lists and in columns.
#[tokio::test]
async fn integers_that_fall_together_as_they_are_read_are_named() {
    type Case = (&'static str, ArrayRef, &'static str, &'static [&'static str]);
    let column =
        |value: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(value))) as ArrayRef;
    let lists = |first: fn(i64) -> i64| -> ArrayRef {
        let rows = (0..ROWS as i64).map(|row| Some(vec![Some(first(row)), Some(row)]));
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
    };
    let unsigned: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(
        (0..ROWS as u64).map(|row| Some(vec![Some(u64::MAX - row), Some(7 * row)])),
    ));
    let decimals = |digits, scale| {
        let item = Arc::new(Field::new("item", DataType::Decimal128(digits, scale), true));
        cast(&lists(|row| (1 << 53) + 1 + row), &DataType::List(item)).unwrap()
    };
    let none: &[&str] = &[];
    let cases: [Case; 10] = [
        ("beyond 2^53", lists(|row| 9_007_199_254_740_993 + row), "\"v\"", &["v[0]"]),
        ("below -2^53", lists(|row| -9_007_199_254_740_993 - row), "\"v\"", &["v[0]"]),
        ("unsigned", unsigned, "\"v\"", &["v[0]"]),
        ("a column", column(|row| i64::MAX - row), "[\"v\"]", &["v"]),
        ("decimals", decimals(38, 0), "\"v\"", &["v[0]"]),
        ("decimals with a fraction", decimals(30, 2), "\"v\"", &["v[0]"]),
        ("up to 2^53", lists(|row| 9_007_199_254_740_992 - row), "\"v\"", none),
        ("far apart", lists(|row| i64::MAX - (row << 20)), "\"v\"", none),
        ("nanoseconds", column(|row| 1_700_000_000_000_000_000 + 1000 * row), "[\"v\"]", none),
        ("constant", column(|_| i64::MAX - 1), "[\"v\"]", none),
    ];
    for (what, values, features, named) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("rows.parquet"), vec![("v", values)]);
        let report = run(dir.path(), features, "[[stage]]\nkind = \"kmeans\"\nk = 1\n").await;
        let fallen = report.fell_together();
        assert_eq!(fallen.iter().map(|fallen| fallen.feature.as_str()).collect::<Vec<_>>(), named, "{what}");
        assert!(fallen.iter().all(|fallen| fallen.values == ROWS && fallen.left < ROWS * 6 / 10), "{what}: {fallen:?}");
        assert_eq!(summary::summary(&report).contains("not all told apart"), !named.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn what_falls_together_is_named_and_what_is_constant_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let column =
        |value: &dyn Fn(usize) -> f64| Arc::new(Float64Array::from_iter_values((0..ROWS).map(value))) as ArrayRef;
    let tiny = column(&|row| row as f64 * 1e-60);
    let constant = column(&|_| 0.1);
    let good = column(&|row| apart(row, 0) as f64);
    // One row without a time, given as 0: between 0 and 1 all the others become the same number.
    let times = column(&|row| if row == 100 { 0.0 } else { 1.7e12 + row as f64 });
    let columns = vec![("tiny", tiny), ("constant", constant), ("good", good), ("times", times)];
    write(&dir.path().join("rows.parquet"), columns);
    let features = "[\"tiny\", \"constant\", \"good\", \"times\"]";
    let fallen = |feature: &str, values, left| FellTogether { feature: feature.into(), values, left };
    let report = run(dir.path(), features, KMEANS).await;
    assert_eq!(report.fell_together(), [fallen("tiny", ROWS, 1)]);
    let report = run(dir.path(), features, SCALED).await;
    assert_eq!(report.fell_together(), [fallen("tiny", ROWS, 1), fallen("times", ROWS, 2)]);
    let said = summary::summary(&report);
    assert!(said.contains("tiny (240 values became 1), times (240 values became 2)"), "{said}");
    let on_disk: RunReport = serde_json::from_slice(&std::fs::read(dir.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(on_disk.fell_together(), report.fell_together());
}
