//! A table over time, on the command line: the same rows again, another model, old versions, upkeep.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float32Array, Int64Array, NullArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;

use crate::small_run::finish;

/// Rows `from..to` in two blobs far apart, with the column `kind` that says which.
pub fn write_rows(path: &Path, from: i64, to: i64) {
    let value = |at: f32| {
        let row = move |i: i64| (i % 2) as f32 * 10.0 + ((i * 37) % 11) as f32 / 20.0 + at;
        Arc::new(Float32Array::from_iter_values((from..to).map(row))) as ArrayRef
    };
    let kinds = (from..to).map(|i| if i % 2 == 0 { "even" } else { "odd" });
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(from..to))),
        ("x", value(0.0)),
        ("y", value(3.0)),
        ("kind", Arc::new(StringArray::from_iter_values(kinds))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A directory with `rows.parquet` (ids 0 to 99), `more.parquet` (90 to 129) and a pipeline of k-means over them.
pub struct Case(tempfile::TempDir);

impl Case {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_rows(&dir.path().join("rows.parquet"), 0, 100);
        write_rows(&dir.path().join("more.parquet"), 90, 130);
        let pipeline = "name = \"t\"\nseed = 1\n[source]\nkind = \"parquet\"\npath = \"rows.parquet\"\n\
                        features = [\"x\", \"y\"]\nkeys = [\"id\"]\nlabel = \"kind\"\n\
                        [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out/t\"\nmode = \"append\"\n";
        std::fs::write(dir.path().join("t.toml"), pipeline).unwrap();
        Self(dir)
    }

    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        finish(command.args(args).current_dir(self.0.path()).env_remove("DACPIPE_LOG"), code).1
    }

    pub fn dacpipe(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        finish(command.args(args).current_dir(self.0.path()).env_remove("DACPIPE_LOG"), 0).0
    }

    pub fn sql(&self, query: &str) -> Vec<String> {
        self.dacpipe(&["sql", "--format", "csv", "-c", query]).lines().skip(1).map(str::to_owned).collect()
    }

    /// A file or a directory of the case.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// The directory of the model of the first run.
    pub fn model(&self) -> String {
        let run = std::fs::read_to_string(self.0.path().join("out/t/run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        run["model_path"].as_str().unwrap().to_owned()
    }
}

#[test]
fn the_same_append_twice_labels_each_row_once() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let again = case.dacpipe(&["run", "t.toml", "--quiet"]);
    assert!(again.contains("100 skipped: the table has rows with their keys by this model already"), "{again}");
    assert_eq!(case.sql("SELECT count(*), count(DISTINCT id) FROM t"), ["100,100"]);
    let model = case.model();
    let label = ["label", "--model", &model, "--input", "more.parquet", "--output", "out/t", "--append", "--quiet"];
    let more = case.dacpipe(&label);
    assert!(more.contains("30 rows labelled") && more.contains("skipped   10 rows"), "{more}");
    assert_eq!(case.sql("SELECT count(*), count(DISTINCT id) FROM t"), ["130,130"]);
    let refused = case.fails(4, &[&label[..], &["--on-existing", "error"]].concat());
    assert!(refused.contains("the table has a row with the key id = 90 already"), "{refused}");
    let replaced = case.dacpipe(&[&label[..], &["--on-existing", "replace"]].concat());
    assert!(replaced.contains("40 rows labelled") && replaced.contains("replaced  40 rows"), "{replaced}");
    assert_eq!(case.sql("SELECT count(*), count(DISTINCT id) FROM t"), ["130,130"]);
    assert_eq!(case.sql("SELECT sum(size) FROM t_clusters"), ["130"]);
    case.fails(2, &["label", "--model", &model, "--input", "more.parquet", "--output", "o", "--on-existing", "skip"]);
}

#[test]
fn two_models_in_a_table_are_never_mixed_in_silence() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let other = ["run", "t.toml", "--quiet", "--set", "seed=2", "--set", "stage.kmeans.k=3"];
    case.dacpipe(&other);
    assert_eq!(case.sql("SELECT count(*), count(DISTINCT model) FROM t"), ["200,2"]);
    assert_eq!(case.sql("SELECT count(*), count(DISTINCT model), max(cluster) FROM t_latest"), ["100,1,2"]);
    let newest = case.dacpipe(&["evaluate", "t", "--labels", "kind"]);
    assert!(newest.contains("alone: 100 rows of other models are left out (--model HASH)"), "{newest}");
    let first = case.sql("SELECT model FROM table_at('t', 0) LIMIT 1").remove(0);
    let first = case.dacpipe(&["evaluate", "t", "--labels", "kind", "--model", &first[..12]]);
    assert!(first.contains("all    100  1.0000"), "{first}");
    let e = case.fails(4, &["evaluate", "t", "--labels", "kind", "--model", "zzz"]);
    assert!(e.contains("--model zzz: no row was labelled by such a model; there are"), "{e}");
}

#[test]
fn versions_are_listed_read_restored_and_tidied() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let model = case.model();
    for input in ["more.parquet", "rows.parquet"] {
        let mode = if input == "more.parquet" { &["--append"][..] } else { &[] };
        let args = ["label", "--model", &model, "--input", input, "--output", "out/t", "--quiet", "--keys", "id"];
        case.dacpipe(&[&args[..], mode].concat());
    }
    let history = case.dacpipe(&["table", "history", "t"]);
    let did: Vec<&str> = history.lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(did, ["overwrite", "append", "append"]);
    let rows = |args: &[&str], table: &str| {
        let query = format!("SELECT count(*) FROM {table}");
        case.dacpipe(&[&["sql", "--format", "csv", "-c", &query][..], args].concat()).lines().nth(1).unwrap().to_owned()
    };
    assert_eq!((rows(&[], "t"), rows(&["--version", "1"], "t")), ("100".into(), "130".into()));
    assert_eq!(rows(&[], "table_at('t', 1)"), "130");
    let second = history.lines().nth(2).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(rows(&["--as-of", &second], "t"), "130");
    assert_eq!(rows(&[], &format!("table_at('t', '{second}')")), "130");
    let e = case.fails(6, &["sql", "--table", "t=out/t", "--as-of", "2001-01-01 00:00:00", "-c", "SELECT 1 FROM t"]);
    assert!(e.contains("had no version at 2001-01-01T00:00:00.000Z"), "{e}");
    let e = case.fails(4, &["sql", "-c", "SELECT * FROM table_at('u', 1)"]);
    assert!(e.contains("no labelled table \"u\"; there are t"), "{e}");
    let restored = case.dacpipe(&["table", "restore", "out/t", "--version", "1"]);
    assert!(restored.contains("is at version 3, and what it was at version 1"), "{restored}");
    assert_eq!(rows(&[], "t"), "130");
    let tidied = case.dacpipe(&["table", "optimize", "t"]);
    assert!(tidied.contains("2 files put together into 1 of"), "{tidied}");
    let dry = case.dacpipe(&["table", "vacuum", "t", "--retain", "0s", "--dry-run"]);
    assert!(dry.contains("would be removed"), "{dry}");
    let removed = case.dacpipe(&["table", "vacuum", "t", "--retain", "0s"]);
    assert!(removed.contains("files of") && removed.contains("removed from"), "{removed}");
    assert_eq!((rows(&[], "t"), rows(&[], "t_latest")), ("130".into(), "130".into()));
    let e = case.fails(6, &["table", "restore", "t", "--version", "0"]);
    assert!(e.contains("cannot be restored to version 0"), "{e}");
    let e = case.fails(6, &["table", "history", "nothing"]);
    let looked = case.0.path().canonicalize().unwrap().join("nothing");
    assert!(e.contains(&format!("there is no {}", looked.display())) && e.contains("holds the tables "), "{e}");
}

#[test]
fn a_place_that_holds_other_things_is_no_table() {
    let case = Case::new();
    std::fs::create_dir(case.path("photos")).unwrap();
    std::fs::write(case.path("photos/photo.jpg"), "x").unwrap();
    let here = case.0.path().to_str().unwrap().to_owned();
    let photos = format!("{here}/photos");
    for place in [&here[..], "/", ".", "photos", &photos] {
        let e = case.fails(3, &["run", "t.toml", "--quiet", "--set", &format!("sink.path={place:?}")]);
        // If the source is inside the table, that is reported first.
        let said = if place.ends_with("photos") { "cannot be a table" } else { "the source lies in the directory" };
        assert!(e.contains(said), "{place}: {e}");
    }
    assert!(!case.0.path().join("_delta_log").exists());
}

#[test]
fn check_says_what_a_source_without_keys_means() {
    let case = Case::new();
    let said = case.dacpipe(&["check", "t.toml", "--set", "source.keys=[]"]);
    assert!(said.contains("note: the source names no key columns"), "{said}");
    assert_eq!(case.dacpipe(&["check", "t.toml"]), "t.toml: ok\n");
    let e = case.fails(3, &["check", "t.toml", "--set", "sink.on_existing=replace", "--set", "sink.mode=overwrite"]);
    assert!(e.contains("rows that are there are replaced by an overwrite"), "{e}");
    let e = case.fails(3, &["check", "t.toml", "--set", "sink.on_existing=replace", "--set", "source.keys=[]"]);
    assert!(e.contains("nothing tells which rows are there"), "{e}");
}

/// The rows of `more.parquet` without the columns `id` and `kind`.
fn write_features(path: &Path) {
    let values = |from: f32| Arc::new(Float32Array::from_iter_values((0..40).map(|i| from + i as f32))) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("x", values(0.0)), ("y", values(3.0))]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_that_have_features_alone_are_labelled() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    write_features(&case.path("features.parquet"));
    let model = case.model();
    let label = ["label", "--model", &model, "--input", "features.parquet", "--quiet", "--output"];
    let said = case.dacpipe(&[&label[..], &["out/fresh"]].concat());
    assert!(said.contains("40 rows labelled") && said.contains("has no column \"id\""), "{said}");
    assert_eq!(case.sql("SELECT count(*), count(cluster) FROM fresh"), ["40,40"]);
    // Nothing tells its rows apart, and an append says so.
    let said = case.dacpipe(&[&label[..], &["out/fresh", "--append"]].concat());
    assert!(said.contains("nothing tells the rows of the table apart"), "{said}");
    assert_eq!(case.sql("SELECT count(*) FROM fresh"), ["80"]);
    // A table with keys takes no rows without.
    let e = case.fails(4, &[&label[..], &["out/t", "--append"]].concat());
    assert!(e.contains("cannot append to out/t: it tells rows apart by id"), "{e}");
    let e = case.fails(4, &[&label[..], &["out/fresh", "--keys", "id"]].concat());
    assert!(e.contains("no column \"id\""), "{e}");
    assert!(case.fails(2, &[&label[..], &["out/fresh", "--keys", ""]].concat()).contains("--keys"));
}

#[test]
fn rows_without_a_label_come_into_a_partitioned_table() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet", "--set", "sink.partition_by=[\"kind\"]"]);
    let model = case.model();
    let label = ["label", "--model", &model, "--input", "more.parquet", "--output", "out/t", "--append", "--quiet"];
    let said = case.dacpipe(&label);
    assert!(said.contains("30 rows labelled") && !said.contains("note"), "{said}");
    assert_eq!(case.sql("SELECT count(*), count(kind) FROM t"), ["130,100"]);
    assert_eq!(case.sql("SELECT min(kind), max(kind) FROM t"), ["even,odd"]);
    assert_eq!(case.sql("SELECT count(*) FROM t WHERE kind IS NULL AND id >= 100"), ["30"]);
}

#[test]
fn a_table_is_not_written_into_its_input_however_it_is_spelled() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let model = case.model();
    std::fs::create_dir_all(case.path("in/deep")).unwrap();
    std::fs::rename(case.path("more.parquet"), case.path("in/more.parquet")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(case.path("in"), case.path("link")).unwrap();
    let url = format!("file://{}", case.path("in/t").display());
    let mut spelled = vec!["in", "in/", "in/t", "./in//t", "in/deep/../t", "out/../in/t", &url];
    if cfg!(unix) {
        spelled.push("link/t");
    }
    for output in spelled {
        let e = case.fails(3, &["label", "--model", &model, "--input", "in", "--output", output, "--quiet"]);
        assert!(e.contains("the table would be written into the source"), "{output}: {e}");
        let sink = format!("sink.path={output:?}");
        let e = case.fails(3, &["run", "t.toml", "--quiet", "--set", "source.path=in", "--set", &sink]);
        assert!(e.contains("the table would be written into the source"), "{output}: {e}");
    }
    assert_eq!(std::fs::read_dir(case.path("in")).unwrap().count(), 2);
    #[cfg(unix)]
    {
        // The table lies elsewhere, and a link in the source leads to it.
        std::fs::create_dir(case.path("apart")).unwrap();
        std::os::unix::fs::symlink("../../apart", case.path("in/deep/all")).unwrap();
        let e = case.fails(3, &["label", "--model", &model, "--input", "in", "--output", "apart/t", "--quiet"]);
        assert!(e.contains("the link \"deep/all\" in the source leads to the table"), "{e}");
        let sets = ["--set", "source.path=in", "--set", "sink.path=apart/t"];
        let e = case.fails(3, &[&["run", "t.toml", "--quiet"][..], &sets].concat());
        assert!(e.contains("the link \"deep/all\" in the source leads to the table"), "{e}");
        assert_eq!(std::fs::read_dir(case.path("apart")).unwrap().count(), 0);
    }
}

/// A label, or a column that is carried along, that is null in all files may be of any type: rows without labels go to a
/// table of labelled ones, by a run and by a model.
#[test]
fn columns_that_are_null_alone_are_appended_whatever_their_type_is() {
    let case = Case::new();
    let write = |name: &str, from: i64, class: ArrayRef, at: ArrayRef| {
        let value = |at: f32| {
            let row = move |i: i64| (i % 2) as f32 * 10.0 + (i % 5) as f32 / 20.0 + at;
            Arc::new(Float32Array::from_iter_values((from..from + 20).map(row))) as ArrayRef
        };
        let id = Arc::new(Int64Array::from_iter_values(from..from + 20)) as ArrayRef;
        let columns = [("id", id), ("x", value(0.0)), ("y", value(3.0)), ("class", class), ("at", at)];
        // A column of nulls may be of any type, and has a field that says so.
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| {
            let nullable = name == "class" || name == "at";
            (name, values, nullable)
        }));
        let batch = batch.unwrap();
        let file = std::fs::File::create(case.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    let nulls = || Arc::new(NullArray::new(20)) as ArrayRef;
    let classes = Arc::new(Int64Array::from_iter_values((0..20).map(|i| i % 2)));
    let times = Arc::new(TimestampMicrosecondArray::from_iter_values(0..20));
    write("labelled.parquet", 0, classes, times);
    write("plain.parquet", 20, nulls(), nulls());
    write("more.parquet", 40, nulls(), nulls());
    let sets =
        ["--set", "source.label=class", "--set", "source.keep=[\"at\"]", "--set", "source.path=labelled.parquet"];
    let run = |sets: &[&str]| case.dacpipe(&[&["run", "t.toml", "--quiet"][..], sets].concat());
    run(&sets);
    run(&[&sets[..5], &["source.path=plain.parquet"]].concat());
    let model = case.model();
    case.dacpipe(&["label", "--model", &model, "--input", "more.parquet", "--output", "out/t", "--append", "--quiet"]);
    let counts = "SELECT count(*), count(class), count(at), sum(class) FROM t";
    assert_eq!(case.sql(counts), ["60,20,20,10"]);
    // In a new table it is text.
    run(&[&sets[..5], &["source.path=plain.parquet", "--set", "sink.path=out/fresh"]].concat());
    let types = case.dacpipe(&[
        "sql",
        "--table",
        "f=out/fresh",
        "--format",
        "csv",
        "-c",
        "SELECT arrow_typeof(class) FROM f LIMIT 1",
    ]);
    assert!(types.contains("Utf8"), "{types}");
    // Text is no number, and what is null in some rows alone is of its own type.
    let text = (0..20).map(|i| (i % 2 == 1).then_some("a")).collect::<StringArray>();
    write("text.parquet", 60, Arc::new(text), nulls());
    let sets = [&sets[..5], &["source.path=text.parquet"]].concat();
    let e = case.fails(6, &[&["run", "t.toml", "--quiet"][..], &sets].concat());
    assert!(e.contains("column \"class\" is Int64 there and Utf8 here"), "{e}");
}

/// A file with something after its compressed data is named in run.json and in the summary.
#[test]
fn what_is_behind_compressed_data_is_reported() {
    let case = Case::new();
    let text: String = (0..40).map(|i| format!("{i},{}\n", i % 2 * 10)).collect();
    let mut packed = zstd::encode_all(format!("t,v\n{text}").as_bytes(), 3).unwrap();
    std::fs::create_dir(case.path("in")).unwrap();
    std::fs::write(case.path("in/whole.csv.zst"), [&packed[..], &[0; 64]].concat()).unwrap();
    packed.extend(b"and more");
    std::fs::write(case.path("in/more.csv.zst"), packed).unwrap();
    let pipeline = "name = \"t\"\n[source]\nkind = \"csv\"\npath = \"in\"\nchannels = [\"v\"]\n[[stage]]\nkind = \"window\"\n\
                    length = 4\nstride = 4\nwithin = \"recordings\"\n[[stage]]\nkind = \"kmeans\"\nk = 1\n[sink]\npath = \"out/c\"\n";
    std::fs::write(case.path("c.toml"), pipeline).unwrap();
    let summary = case.dacpipe(&["run", "c.toml", "--quiet"]);
    assert!(summary.contains("not read  the data after the compressed part of in/more.csv.zst"), "{summary}");
    let run: serde_json::Value = serde_json::from_slice(&std::fs::read(case.path("out/c/run.json")).unwrap()).unwrap();
    assert_eq!(run["left_alone"], serde_json::json!(["in/more.csv.zst"]));
    let model = run["model_path"].as_str().unwrap();
    let labelled = case.dacpipe(&["label", "--model", model, "--input", "in", "--output", "out/d", "--quiet"]);
    assert!(labelled.contains("the data after the compressed part of in/more.csv.zst was not read"), "{labelled}");
}

#[test]
fn models_that_no_version_names_go_with_the_vacuum() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let named = case.path(&case.model());
    case.dacpipe(&["run", "t.toml", "--quiet", "--set", "sink.path=out/other", "--set", "stage.kmeans.k=3"]);
    let models = case.path("out/t/models");
    let other = std::fs::read_dir(case.path("out/other/models")).unwrap().next().unwrap().unwrap().path();
    let copy = |to: &str| {
        std::fs::create_dir_all(models.join(to)).unwrap();
        for file in std::fs::read_dir(&other).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, models.join(to).join(file.file_name().unwrap())).unwrap();
        }
    };
    let left_over = other.file_name().unwrap().to_str().unwrap();
    copy(left_over);
    // Not proven to be ours: their names are not the hash of their content.
    copy("0123456789abcdef");
    copy("my-model");
    let vacuum = |more: &[&str]| case.dacpipe(&[&["table", "vacuum", "out/t"], more].concat());
    assert!(!vacuum(&[]).contains("models"), "it is younger than the retention");
    assert!(vacuum(&["--retain", "0s", "--dry-run"]).contains("1 models that no version names"));
    assert!(models.join(left_over).exists());
    assert!(vacuum(&["--retain", "0s"]).contains("1 models that no version names"));
    assert!(!models.join(left_over).exists());
    assert!(named.join("manifest.json").exists());
    assert!(models.join("0123456789abcdef/manifest.json").exists() && models.join("my-model/manifest.json").exists());
}

#[test]
fn parts_and_labels_are_told_apart_as_they_are() {
    let case = Case::new();
    let parts = [Some("all"), None, Some("NULL"), Some(""), Some("train")];
    let part = StringArray::from_iter((0..100).map(|i| parts[i % 5]));
    let value =
        |at: f32| Float32Array::from_iter_values((0..100).map(move |i| (i % 2) as f32 * 10.0 + i as f32 / 100.0 + at));
    let label = |i: i32| if i % 10 == 0 { f32::NAN } else { (i % 2) as f32 };
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..100)) as ArrayRef),
        ("x", Arc::new(value(0.0)) as _),
        ("y", Arc::new(value(3.0)) as _),
        ("kind", Arc::new(Float32Array::from_iter_values((0..100).map(label))) as _),
        ("part", Arc::new(part) as _),
    ])
    .unwrap();
    let file = std::fs::File::create(case.path("rows.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let run = ["run", "t.toml", "--quiet", "--set", "source.split=\"part\"", "--set"];
    let said = case.dacpipe(&[&run[..], &["sink.partition_by=[\"part\"]"]].concat());
    assert!(said.contains("10 rows without a label are left out"), "{said}");
    // What other readers take for null is said.
    let note = "empty text, which other readers of Delta tables take for null: \"part\" (20 rows)";
    assert_eq!(said.matches(note).count(), 1, "{said}");
    assert!(std::fs::read_to_string(case.path("out/t/run.json")).unwrap().contains("\"part\\\" (20 rows)"));
    let scores = |text: &str| {
        let text: serde_json::Value = serde_json::from_str(text).unwrap();
        let rows =
            |part: &serde_json::Value| (part["part"].as_str().unwrap().to_owned(), part["rows"].as_u64().unwrap());
        (text["unlabelled"].as_u64().unwrap(), text["parts"].as_array().unwrap().iter().map(rows).collect::<Vec<_>>())
    };
    let (unlabelled, found) =
        scores(&case.dacpipe(&["evaluate", "out/t", "--labels", "kind", "--by", "part", "--format", "json"]));
    let expected = [("all", 90), ("\"\"", 20), ("\"NULL\"", 20), ("\"all\"", 10), ("NULL", 20), ("train", 20)];
    assert_eq!(unlabelled, 10);
    assert_eq!(found, expected.map(|(part, rows)| (part.to_owned(), rows)));
    let figures = std::fs::read_to_string(case.path("out/t/run.json")).unwrap();
    let figures: serde_json::Value = serde_json::from_str(&figures).unwrap();
    assert_eq!(figures["scores"]["all"]["rows"], 90);
    assert_eq!(figures["scores"]["\"all\""]["rows"], 10);
    assert_eq!(case.sql("SELECT ari(cluster, kind) FROM t"), ["1.0"]);
    for (condition, rows) in [("IS NULL", "20"), ("= 'NULL'", "20"), ("= ''", "20"), ("= 'all'", "20")] {
        assert_eq!(case.sql(&format!("SELECT count(*) FROM t WHERE part {condition}")), [rows], "{condition}");
    }
    // Only the rows with the value `all` are learned from.
    let said = case.dacpipe(&[&run[..], &["split.fit=\"\\\"all\\\"\"", "--set", "sink.path=out/u"]].concat());
    assert!(said.contains("20 learned from, 100 labelled"), "{said}");
    assert!(!said.contains("empty text"), "it is no partition column there: {said}");
}

#[test]
fn clusters_are_counted_anew_where_another_program_has_removed_rows() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let model = case.model();
    case.dacpipe(&["label", "--model", &model, "--input", "more.parquet", "--output", "out/t", "--append", "--quiet"]);
    assert_eq!(case.sql("SELECT sum(size) FROM t_clusters"), ["130"]);
    let log = std::fs::read_to_string(case.path("out/t/_delta_log/00000000000000000001.json")).unwrap();
    let actions = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let added = actions.into_iter().find_map(|action| action.get("add").cloned()).unwrap();
    let remove = serde_json::json!({ "remove": {
        "path": added["path"], "size": added["size"], "partitionValues": {}, "dataChange": true,
        "deletionTimestamp": added["modificationTime"], "extendedFileMetadata": true,
    } });
    let info = serde_json::json!({ "commitInfo": { "operation": "DELETE", "engineInfo": "another" } });
    std::fs::write(case.path("out/t/_delta_log/00000000000000000002.json"), format!("{info}\n{remove}\n")).unwrap();
    assert_eq!(case.sql("SELECT count(*) FROM t"), ["100"]);
    let equal = "SELECT count(*), sum(size) FROM t_clusters AS c \
                 JOIN (SELECT cluster, count(*) AS n, avg(distance) AS d FROM t GROUP BY cluster) AS r USING (cluster) \
                 WHERE c.size = r.n AND abs(c.mean_distance - r.d) < 1e-9";
    assert_eq!(case.sql(equal), ["2,100"]);
}
