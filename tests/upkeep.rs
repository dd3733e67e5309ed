//! A table over time, as its users see it on the command line: the same rows again, another model, old versions, upkeep.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::small_run::finish;

/// Rows `from..to` in two blobs far apart, with the column `kind` that says which.
fn write_rows(path: &Path, from: i64, to: i64) {
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
struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_rows(&dir.path().join("rows.parquet"), 0, 100);
        write_rows(&dir.path().join("more.parquet"), 90, 130);
        let pipeline = "name = \"t\"\nseed = 1\n[source]\nkind = \"parquet\"\npath = \"rows.parquet\"\n\
                        features = [\"x\", \"y\"]\nkeys = [\"id\"]\nlabel = \"kind\"\n\
                        [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out/t\"\nmode = \"append\"\n";
        std::fs::write(dir.path().join("t.toml"), pipeline).unwrap();
        Self(dir)
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        finish(command.args(args).current_dir(self.0.path()).env_remove("DACPIPE_LOG"), code).1
    }

    fn dacpipe(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        finish(command.args(args).current_dir(self.0.path()).env_remove("DACPIPE_LOG"), 0).0
    }

    fn sql(&self, query: &str) -> Vec<String> {
        self.dacpipe(&["sql", "--format", "csv", "-c", query]).lines().skip(1).map(str::to_owned).collect()
    }

    /// The directory of the model of the first run.
    fn model(&self) -> String {
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
    assert!(again.contains("100 skipped: this model has labelled them in the table already"), "{again}");
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
    assert!(e.contains("--model zzz: no row has a label of such a model; there are"), "{e}");
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
    std::fs::write(case.0.path().join("photo.jpg"), "x").unwrap();
    let here = case.0.path().to_str().unwrap().to_owned();
    for place in [&here[..], "/", "."] {
        let e = case.fails(3, &["run", "t.toml", "--quiet", "--set", &format!("sink.path={place:?}")]);
        assert!(e.contains("cannot be a table"), "{place}: {e}");
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
