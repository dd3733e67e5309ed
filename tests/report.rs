//! Reports and `cluster_profile`, of all kinds of tables: with and without labels, embeddings, names and files beside
//! their rows, and with names that are markup.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use dacpipe::Kind;
use dacpipe::column::vector_array;
use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::pipeline::{Pipeline, Relabel, RunOptions};
use dacpipe::report::{self, RunReport};
use dacpipe::source::OnBadRow;
use dacpipe::sql::{Options, register, session_config};
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, Labels, Mode, OnExisting, TableWriter, WriteOptions};
use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

use crate::small_run::small_run;

/// Names that would run or break a page if they got into it as they are.
const EVIL: [&str; 3] = ["</script><script>alert(1)</script>", "\"><img src=x onerror=alert(2)>", "</style><b>&amp;"];

fn write_parquet(file: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// 60 rows of three features in three groups, from row number `first` on.
fn vectors(file: &Path, names: [&str; 3], first: i64) {
    let ids: Vec<i64> = (first..first + 60).collect();
    let feature = |at: i64| {
        let value = |id: &i64| (id % 3 * (at + 1) * 10) as f64 + (id * 7 % 11) as f64 / 4.0 - at as f64;
        Arc::new(Float64Array::from_iter_values(ids.iter().map(value))) as ArrayRef
    };
    let label = |id: &i64| Some(EVIL[(id % 3) as usize]).filter(|_| id % 20 != 0);
    write_parquet(
        file,
        vec![
            ("id", Arc::new(Int64Array::from(ids.clone()))),
            (names[0], feature(0)),
            (names[1], feature(1)),
            (names[2], feature(2)),
            ("kind", Arc::new(ids.iter().map(label).collect::<StringArray>())),
        ],
    );
}

/// Runs k-means over the features of `dir/rows.parquet` into `dir/out`.
async fn run(dir: &Path, names: [&str; 3], sets: &[&str]) -> RunReport {
    let text = format!(
        "name = \"t\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = {names:?}\nkeys = [\"id\"]\nlabel = \"kind\"\n\
         [[stage]]\nkind = \"scale\"\nmethod = \"min_max\"\n[[stage]]\nkind = \"kmeans\"\nk = 3\n\
         [sink]\npath = {:?}\n",
        dir.join("rows.parquet").display().to_string(),
        dir.join("out").display().to_string(),
    );
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let loaded = PipelineFile::parse("t.toml", &text, &sets, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The files of the table's report, by name.
async fn files(table: &Path, labels: Option<&str>) -> BTreeMap<String, String> {
    let to = tempfile::tempdir().unwrap();
    let place = |path: &Path| Location::parse(path.to_str().unwrap()).unwrap();
    let written = report::write(&place(table), labels, &place(to.path())).await.unwrap_or_else(|e| panic!("{e}"));
    let files: BTreeMap<String, String> = std::fs::read_dir(to.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!((files.len(), files["index.html"].len() as u64), (written.figures + 1, written.bytes));
    files.values().for_each(|text| check(text));
    files
}

/// The tags of a page or an image.
fn tags(text: &str) -> Vec<&str> {
    text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()).collect()
}

/// No scripts, no external resources, every element is closed, and every coordinate is a number.
fn check(text: &str) {
    let mut open = Vec::new();
    for tag in tags(text) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(!["script", "img", "iframe", "object", "link", "a"].contains(&name), "<{tag}>");
        for attribute in [" src=", " href=", " on", "javascript:", "url("] {
            assert!(!tag.contains(attribute), "<{tag}>");
        }
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "<{tag}>");
        match tag {
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}>"),
            _ if tag.ends_with('/') || ["!doctype", "meta", "br"].contains(&name) => {}
            _ => open.push(name),
        }
    }
    assert_eq!(open, [""; 0], "left open");
    assert!(!text.contains("@import") && !text.contains("@font-face"));
}

/// The text of a page: what is between its tags.
fn shown(html: &str) -> String {
    let body = html.split("</head>").nth(1).unwrap();
    let text: String = body.split('<').map(|rest| rest.split_once('>').map_or(rest, |(_, text)| text)).collect();
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(text, |text, (entity, character)| text.replace(entity, character))
}

async fn session(tables: &[(&str, &Path)]) -> SessionContext {
    let ctx = SessionContext::new_with_config(session_config());
    let options =
        tables.iter().fold(Options::new(), |options, (name, path)| options.table(name, path.to_str().unwrap()));
    register(&ctx, options).await.unwrap();
    ctx
}

async fn ask(ctx: &SessionContext, query: &str) -> Vec<Vec<String>> {
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .map(|column| datafusion::arrow::compute::cast(column, &DataType::Utf8).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.as_string::<i32>().value(row).to_owned()).collect());
        }
    }
    rows
}

#[tokio::test]
async fn the_report_of_a_run_has_every_part() {
    let run = small_run();
    let files = files(&run.path().join("out/hapt"), None).await;
    for figure in
        ["embedding-clusters", "embedding-labels", "sizes", "contingency", "autoencoder-loss", "feature-weights"]
    {
        let svg = &files[&format!("{figure}.svg")];
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{figure}");
        assert!(svg.matches("<path").count() + svg.matches("<text").count() > 3, "{figure}: {svg}");
    }
    let page = shown(&files["index.html"]);
    for words in [
        "simulated recordings",
        "ARI, test rows",
        "Labels of the rows that were learned from took part",
        "By activity",
        "principal components of the embedding",
        "WALKING_UPSTAIRS",
        "What sets each cluster apart",
        "Cluster 11",
        "3 epochs",
        "Rows and their reconstructions",
        "cluster_profile('hapt')",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("write it again") && !page.contains("is missing"), "{page}");
    assert!(files["index.html"].len() < 600_000, "{}", files["index.html"].len());
}

#[tokio::test]
async fn the_profile_is_that_of_the_rows_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.parquet");
    vectors(&rows, ["a", "b", "c"], 0);
    run(dir.path(), ["a", "b", "c"], &[]).await;
    let out = dir.path().join("out");
    let ctx = session(&[("t", &out), ("given", &rows)]).await;
    for feature in ["a", "b", "c"] {
        let query = format!(
            "SELECT count(*) AS differs FROM (
               SELECT cluster, count(*) AS n, avg({feature}) AS mean, stddev_pop({feature}) AS std
               FROM given JOIN t ON given.id = t.id GROUP BY cluster) r
             JOIN (SELECT * FROM cluster_profile('t') WHERE feature = '{feature}') p ON r.cluster = p.cluster
             CROSS JOIN (SELECT avg({feature}) AS mean, stddev_pop({feature}) AS std FROM given) o
             WHERE r.n = p.size AND abs(r.mean - p.mean) < 1e-5 AND abs(r.std - p.std) < 1e-5
               AND abs(o.mean - p.overall_mean) < 1e-5 AND abs(o.std - p.overall_std) < 1e-5
               AND abs((r.mean - o.mean) / o.std - p.difference) < 1e-5"
        );
        assert_eq!(ask(&ctx, &query).await, [["3"]], "{feature}");
    }
    let ranks = "SELECT cluster, rank, abs(difference) FROM cluster_profile('t') ORDER BY cluster, rank";
    let ranks = ask(&ctx, ranks).await;
    assert_eq!(ranks.len(), 9);
    for cluster in ranks.chunk_by(|a, b| a[0] == b[0]) {
        assert_eq!(cluster.iter().map(|row| row[1].as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert!(cluster.iter().map(|row| row[2].parse::<f64>().unwrap()).is_sorted_by(|a, b| a >= b), "{ranks:?}");
    }
    // Neither threads nor the way the rows were cut into batches change a bit.
    let all = "SELECT * FROM cluster_profile('t') ORDER BY cluster, rank";
    let before = ask(&ctx, all).await;
    run(dir.path(), ["a", "b", "c"], &["threads=3"]).await;
    assert_eq!(ask(&session(&[("t", &out)]).await, all).await, before);
}

#[tokio::test]
async fn appended_rows_are_in_the_profile_too() {
    let dir = tempfile::tempdir().unwrap();
    vectors(&dir.path().join("rows.parquet"), ["a", "b", "c"], 0);
    let first = run(dir.path(), ["a", "b", "c"], &[]).await;
    let more = dir.path().join("more.parquet");
    vectors(&more, ["a", "b", "c"], 60);
    let relabel = Relabel {
        model: first.model_path,
        input: more.display().to_string(),
        output: dir.path().join("out").display().to_string(),
        kind: None,
        features: None,
        keys: vec!["id".into()],
        within: None,
        mode: Mode::Append,
        on_existing: OnExisting::Skip,
        embedding: false,
        reconstruction_error: false,
        vectors: None,
        on_bad_row: OnBadRow::Fail,
        threads: Some(1),
        device: DeviceChoice::Cpu,
    };
    relabel.run(&Control::default()).await.unwrap();
    let ctx = session(&[("t", &dir.path().join("out"))]).await;
    let sizes = "SELECT sum(size) FROM cluster_profile('t') WHERE position = 0";
    assert_eq!(ask(&ctx, sizes).await, [["120"]]);
    // run.json belongs to the first run: the report says that its content is missing, and has the rest.
    let page = shown(&files(&dir.path().join("out"), None).await["index.html"]);
    assert!(page.contains("all 120 rows") && page.contains("run.json is of run"), "{page}");
}

#[tokio::test]
async fn names_that_are_markup_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    vectors(&dir.path().join("rows.parquet"), EVIL, 0);
    run(dir.path(), EVIL, &[]).await;
    let files = files(&dir.path().join("out"), None).await;
    let page = shown(&files["index.html"]);
    for name in EVIL {
        assert!(page.contains(name), "{name}: {page}");
    }
    // Labels are in the legend of the figure and in the heat map, cut short, and nowhere as markup.
    assert!(
        files["embedding-labels.svg"].contains("&lt;/script&gt;")
            && files["contingency.svg"].contains("&lt;/style&gt;")
    );
}

#[tokio::test]
async fn tables_without_labels_or_with_one_cluster_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    vectors(&dir.path().join("rows.parquet"), ["a", "b", "c"], 0);
    let text = |k: usize| {
        format!(
            "name = \"t\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = [\"a\", \"b\", \"c\"]\nkeys = [\"id\"]\n\
         [[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"kmeans\"\nk = {k}\n[sink]\npath = {:?}\n",
            dir.path().join("rows.parquet").display().to_string(),
            dir.path().join("out").display().to_string(),
        )
    };
    for k in [1, 30] {
        let plan = PipelineFile::parse("t.toml", &text(k), &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
        Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap();
        let files = files(&dir.path().join("out"), None).await;
        let page = shown(&files["index.html"]);
        assert!(page.contains("no column of labels") && !files.contains_key("contingency.svg"), "{page}");
        assert!(page.contains("principal components of the scaled features"), "{page}");
        assert_eq!(page.contains("No feature differs"), k == 1, "{page}");
    }
}

/// Rows that are images: 64 values without names.
#[tokio::test]
async fn images_are_drawn_as_images() {
    let dir = tempfile::tempdir().unwrap();
    // One half is lit in the rows of each class; the other is the dimmer the further a pixel is from the first.
    let lit = |i: usize| (i % 64) / 32 == (i / 64) % 2;
    let dim = |i: usize| (i / 64 % 5) as f32 / (9 + i % 64) as f32;
    let pixels: Vec<f32> = (0..40 * 64).map(|i| if lit(i) { 1.0 } else { dim(i) }).collect();
    let labels: StringArray = (0..40).map(|i| Some(if i % 2 == 0 { "top" } else { "bottom" })).collect();
    write_parquet(
        &dir.path().join("rows.parquet"),
        vec![("pixels", vector_array(pixels, 64).unwrap()), ("class", Arc::new(labels))],
    );
    let text = format!(
        "name = \"t\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = \"pixels\"\nlabel = \"class\"\n\
         [[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"feature_weights\"\nlabels = \"class\"\n\
         [[stage]]\nkind = \"autoencoder\"\nencoder = [8, 2]\nepochs = 2\nbatch_size = 8\nlearning_rate = 0.01\n\
         [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\n",
        dir.path().join("rows.parquet").display().to_string(),
        dir.path().join("out").display().to_string(),
    );
    let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
    Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap();
    let files = files(&dir.path().join("out"), None).await;
    for figure in ["cluster-means", "feature-weights", "reconstructions"] {
        assert!(files.contains_key(&format!("{figure}.svg")), "{figure}: {:?}", files.keys());
    }
    assert!(shown(&files["index.html"]).contains("Mean image of each cluster"));
}

/// A table of an older version: no files beside its rows, no run.json, no model.
async fn old_table(place: &Location, embedding: bool) {
    let mut writer = TableWriter::begin(place, WriteOptions::new(Mode::Append, "run-1")).await.unwrap();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("cluster", Arc::new(Int32Array::from_iter_values((0..90).map(|i| i % 4)))),
        ("label", Arc::new(Int64Array::from_iter_values((0..90).map(|i| i64::from(i) % 2)))),
    ];
    if embedding {
        let values = (0..90 * 3).map(|i| (i * 7 % 13) as f32).collect();
        columns.push(("embedding", vector_array(values, 3).unwrap()));
    }
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let labels = Labels { model: "0123456789abcdef".into(), labelled_at: SystemTime::UNIX_EPOCH };
    writer.sink(batch.schema(), labels).unwrap().write(&batch).await.unwrap();
    writer.commit(CommitInfo::default()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_said_with_the_way_to_get_it() {
    for embedding in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("old");
        old_table(&Location::parse(table.to_str().unwrap()).unwrap(), embedding).await;
        let files = files(&table, None).await;
        let page = shown(&files["index.html"]);
        for words in [
            "no run.json",
            "dacpipe run",
            "Nothing is known of the features",
            "cannot be read",
            "Clusters against label",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(files.contains_key("embedding-clusters.svg"), embedding);
        assert_eq!(page.contains("No rows were drawn"), !embedding);
        let ctx = session(&[("old", &table)]).await;
        let e = ctx.sql("SELECT * FROM cluster_profile('old')").await.unwrap().collect().await.unwrap_err();
        assert!(e.to_string().contains("cluster_profile: table old: it has no clusters"), "{e}");
    }
}

#[tokio::test]
async fn errors_name_what_is_wrong_and_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("old");
    let place = Location::parse(table.to_str().unwrap()).unwrap();
    let e = report::write(&place, None, &place).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table, "{e}");
    assert!(e.to_string().contains("holds no table"), "{e}");
    old_table(&place, false).await;
    let e = report::write(&place, Some("activty"), &place).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Input, "{e}");
    assert!(e.to_string().contains("activty") && e.to_string().contains("label"), "{e}");
    let ctx = session(&[("old", &table)]).await;
    for (call, words) in [
        ("'odl'", "no labelled table \"odl\"; there are old"),
        ("old", "takes the table's name as text: cluster_profile('old')"),
        ("", "takes one argument"),
        ("'old', 'old'", "takes one argument"),
    ] {
        let e = ctx.sql(&format!("SELECT * FROM cluster_profile({call})")).await.unwrap_err();
        assert!(e.to_string().contains(words), "{call}: {e}");
    }
    let failing = SessionContext::new_with_config(session_config());
    register(&failing, Options::new()).await.unwrap();
    let e = failing.sql("SELECT * FROM cluster_profile('t')").await.unwrap_err();
    assert!(e.to_string().contains("no labelled table \"t\"; none is registered"), "{e}");
}

#[test]
fn a_report_needs_clusters() {
    let text = "name = \"t\"\nreport = true\n[source]\nkind = \"parquet\"\npath = \"rows.parquet\"\nfeatures = \"x\"\n\
                [[stage]]\nkind = \"scale\"\n[sink]\npath = \"out\"\nvectors = \"list\"\n";
    let problems = PipelineFile::parse("t.toml", text, &[], &|_| None).unwrap_err();
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message()).collect();
    assert_eq!(messages, ["a report is of clusters, and no kmeans stage makes any"]);
}

#[tokio::test]
async fn a_pipeline_may_ask_for_its_report() {
    let dir = tempfile::tempdir().unwrap();
    vectors(&dir.path().join("rows.parquet"), ["a", "b", "c"], 0);
    let without = run(dir.path(), ["a", "b", "c"], &[]).await;
    let page = dir.path().join("out/report/index.html");
    assert!(without.report.is_none() && !page.exists());
    let with = run(dir.path(), ["a", "b", "c"], &["report=true"]).await;
    assert!(page.is_file());
    let named = with.report.clone().unwrap();
    assert!(named.ends_with("out/report/index.html"), "{named}");
    assert!(report::summary::summary(&with).contains(&named));
    assert_eq!(with.pipeline, without.pipeline, "the report has no part in the result");
    let run: RunReport = serde_json::from_slice(&std::fs::read(dir.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(run, with);
}

/// The figures of the page are those of the table.
#[tokio::test]
async fn means_in_the_session_are_numbers() {
    let run = small_run();
    let ctx = session(&[("hapt", &run.path().join("out/hapt"))]).await;
    let weighted = "SELECT max(abs(mean - overall)) FROM (SELECT position, sum(mean * size) / sum(size) AS mean, \
                    min(overall_mean) AS overall FROM cluster_profile('hapt') GROUP BY position)";
    let batches = ctx.sql(weighted).await.unwrap().collect().await.unwrap();
    assert!(batches[0].column(0).as_primitive::<Float64Type>().value(0) < 1e-9);
    let names = "SELECT count(DISTINCT feature), count(DISTINCT position) FROM cluster_profile('hapt')";
    let names = ask(&ctx, names).await;
    assert_eq!(names[0][1], "561");
    assert!(names[0][0].parse::<u32>().unwrap() > 400, "{names:?}");
}
