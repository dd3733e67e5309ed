//! Damaged tables, models and statements on the command line: the error names the file and has the exit code of its
//! kind, and nothing else is affected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;

use crate::small_run::finish;
use crate::upkeep::{Case, write_rows};

/// The files below `root` whose names end so.
fn files(root: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => dirs.push(entry),
                false if entry.to_string_lossy().ends_with(end) => found.push(entry),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit of the file at the fraction `at` of its length; returns the old content.
fn turn(file: &Path, at: f64) -> Vec<u8> {
    let whole = std::fs::read(file).unwrap();
    let mut turned = whole.clone();
    let byte = ((whole.len() - 1) as f64 * at) as usize;
    turned[byte] ^= 0x08;
    std::fs::write(file, turned).unwrap();
    whole
}

fn name(file: &Path) -> String {
    let parts: Vec<_> = file.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    format!("{}/{}", parts[1], parts[0])
}

#[test]
fn a_turned_bit_anywhere_in_a_data_file_is_told_by_the_name_of_the_file() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    case.dacpipe(&["run", "t.toml", "--quiet", "--set", "seed=2", "--set", "stage.kmeans.k=3"]);
    let data = files(&case.path("out/t/data"), ".parquet");
    assert_eq!(data.len(), 2);
    let every = "SELECT sum(id), sum(cluster), sum(distance), sum(margin), min(kind) FROM t";
    for at in [0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0] {
        let whole = turn(&data[0], at);
        let e = case.fails(6, &["sql", "-c", every]);
        assert!(e.contains("is damaged") && e.contains(&name(&data[0])), "at {at}: {e}");
        std::fs::write(&data[0], whole).unwrap();
    }
    let whole = turn(&data[1], 0.4);
    for args in [
        &["evaluate", "out/t", "--labels", "kind"][..],
        &["table", "optimize", "out/t"],
        &["run", "t.toml", "--quiet", "--set", "sink.on_existing=\"replace\""],
    ] {
        let e = case.fails(6, args);
        assert!(e.contains("is damaged") && e.contains(&name(&data[1])), "{args:?}: {e}");
    }
    // What does not read the file works, and so does everything once the file is restored.
    assert_eq!(case.sql("SELECT count(*) FROM t"), ["200"]);
    std::fs::write(&data[1], whole).unwrap();
    assert_eq!(case.sql("SELECT count(DISTINCT id) FROM t"), ["100"]);
}

#[test]
fn checksums_outlive_checkpoints_and_upkeep() {
    let case = Case::new();
    for seed in 0..22 {
        let seed = format!("seed={seed}");
        case.dacpipe(&["run", "t.toml", "--quiet", "--set", &seed, "--set", "sink.mode=append"]);
    }
    assert_eq!(files(&case.path("out/t/_delta_log"), ".checkpoint.parquet").len(), 1);
    let first = files(&case.path("out/t/data"), ".parquet").remove(0);
    let whole = turn(&first, 0.3);
    assert!(case.fails(6, &["sql", "-c", "SELECT sum(distance) FROM t"]).contains("is damaged"));
    std::fs::write(&first, whole).unwrap();
    case.dacpipe(&["table", "optimize", "out/t"]);
    let newest = files(&case.path("out/t/data"), ".parquet");
    let newest = newest.iter().max_by_key(|file| std::fs::metadata(file).unwrap().modified().unwrap()).unwrap();
    turn(newest, 0.3);
    assert!(case.fails(6, &["sql", "-c", "SELECT sum(distance) FROM t"]).contains(&name(newest)));
}

#[test]
fn files_that_no_checksum_knows_are_named_all_the_same() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let entry = case.path("out/t/_delta_log/00000000000000000000.json");
    let log = std::fs::read_to_string(&entry).unwrap();
    let start = log.find("\"dacpipe.crc32\":\"").unwrap();
    let end = start + log[start..].find('}').unwrap();
    std::fs::write(&entry, log.replace(&log[start..end], "")).unwrap();
    assert_eq!(case.sql("SELECT count(DISTINCT id) FROM t"), ["100"]);
    let data = files(&case.path("out/t/data"), ".parquet").remove(0);
    let whole = std::fs::read(&data).unwrap();
    let mut cut = whole.clone();
    let middle = whole.len() / 2;
    cut[4..middle].fill(0xff);
    std::fs::write(&data, cut).unwrap();
    let e = case.fails(6, &["sql", "-c", "SELECT sum(id), sum(distance), min(kind) FROM t"]);
    assert!(e.contains("is damaged") && e.contains(&name(&data)), "{e}");
    std::fs::remove_file(&data).unwrap();
    let e = case.fails(6, &["evaluate", "out/t", "--labels", "kind"]);
    assert!(e.contains("is missing") && e.contains(&name(&data)), "{e}");
}

#[test]
fn a_damaged_file_beside_the_rows_spoils_nothing_else() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    for (file, query) in [
        ("profile.parquet", "SELECT * FROM cluster_profile('t')"),
        ("clusters.parquet", "SELECT sum(size), min(centroid[1]) FROM t_clusters"),
        ("lineage.parquet", "SELECT count(*), min(event), max(cluster), max(happened_at), max(run) FROM t_lineage"),
    ] {
        let beside = files(&case.path("out/t/_dacpipe"), file).remove(0);
        for at in [0.1, 0.5, 0.9] {
            let whole = turn(&beside, at);
            let e = case.fails(6, &["sql", "-c", query]);
            assert!(e.contains("is damaged") && e.contains(&name(&beside)), "{file} at {at}: {e}");
            assert_eq!(case.sql("SELECT count(DISTINCT id) FROM t"), ["100"]);
            std::fs::write(&beside, whole).unwrap();
        }
        case.sql(query);
    }
    // The report leaves out what it cannot read, and says so.
    let sample = files(&case.path("out/t/_dacpipe"), "sample.parquet").remove(0);
    turn(&sample, 0.5);
    turn(&files(&case.path("out/t/_dacpipe"), "profile.parquet").remove(0), 0.5);
    case.dacpipe(&["report", "t"]);
    let page = std::fs::read_to_string(case.path("out/t/report/index.html")).unwrap();
    assert!(page.contains("sample.parquet is damaged") && page.contains("profile.parquet is damaged"), "no notes");
}

#[test]
fn a_damaged_log_is_told_by_the_entry() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let entry = case.path("out/t/_delta_log/00000000000000000000.json");
    let log = std::fs::read_to_string(&entry).unwrap();
    let deep = format!("{{\"add\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let schema = |depth: usize| {
        let open = "{\\\"type\\\":\\\"array\\\",\\\"containsNull\\\":true,\\\"elementType\\\":".repeat(depth);
        let field =
            format!("{{\\\"name\\\":\\\"deep\\\",\\\"nullable\\\":true,\\\"metadata\\\":{{}},\\\"type\\\":{open}");
        let field = format!("{field}\\\"integer\\\"{}}}", "}".repeat(depth));
        log.replacen("\\\"fields\\\":[", &format!("\\\"fields\\\":[{field},"), 1)
    };
    assert_ne!(schema(3), log);
    let cut = log[..log.len() / 2].to_owned();
    for (what, text) in
        [("cut", cut), ("deep", format!("{log}\n{deep}")), ("schema", schema(20_000)), ("empty", "".into())]
    {
        std::fs::write(&entry, text).unwrap();
        for args in [&["sql", "--table", "x=out/t", "-c", "SELECT 1"][..], &["run", "t.toml", "--quiet"]] {
            let e = case.fails(6, args);
            assert!(e.contains("out/t") && e.len() < 2000 && !e.contains("stack"), "{what}: {e}");
            assert_eq!(e.trim_end().lines().count(), 1, "{what}: {e}");
        }
    }
    std::fs::write(&entry, schema(3)).unwrap();
    assert_eq!(case.sql("SELECT count(DISTINCT id) FROM t"), ["100"]);
    // Valid JSON with an invalid schema; and the table is found in ./out by its directory.
    std::fs::write(&entry, log.replacen("\\\"nullable\\\"", "\\\"nullible\\\"", 1)).unwrap();
    let e = case.fails(6, &["sql", "-c", "SELECT count(*) FROM t"]);
    assert!(
        e.contains("error: table t cannot be opened: ") && e.contains("00000000000000000000.json is damaged"),
        "{e}"
    );
    case.dacpipe(&["sql", "-c", "SELECT 1"]);
}

#[test]
fn a_damaged_file_of_rows_that_were_set_aside_is_named() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let x = Float32Array::from(vec![0.0, f32::NAN, 10.0]);
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("x", Arc::new(x)),
        ("y", Arc::new(Float32Array::from(vec![3.0, 3.0, 13.0]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(case.path("bad.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let label = ["label", "--model", &case.model(), "--input", "bad.parquet", "--output", "out/new", "--quarantine"];
    assert!(case.dacpipe(&label).starts_with("2 rows labelled"));
    let query = "SELECT count(*), min(reason) FROM new_quarantine";
    assert!(case.sql(query)[0].starts_with("1,"));
    let file = files(&case.path("out/new/quarantine"), ".parquet").remove(0);
    let whole = std::fs::read(&file).unwrap();
    for damaged in [&whole[..0], &whole[..whole.len() / 2], &vec![0; whole.len()]] {
        std::fs::write(&file, damaged).unwrap();
        let e = case.fails(6, &["sql", "-c", query]);
        assert!(e.contains("is damaged") && e.contains(&name(&file)), "{e}");
        assert_eq!(case.sql("SELECT count(*) > 0 FROM new"), ["true"]);
    }
    std::fs::remove_dir_all(case.path("out/new/quarantine")).unwrap();
    assert!(case.fails(4, &["sql", "-c", query]).contains("there is no table \"new_quarantine\""));
}

#[test]
fn a_damaged_model_directory_is_written_anew_before_rows_name_it() {
    let case = Case::new();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    let sound = case.path("sound");
    let model = case.path(&case.model());
    let model = model.as_path();
    std::fs::create_dir(&sound).unwrap();
    let names = ["manifest.json", "model.safetensors"];
    for name in names {
        std::fs::copy(model.join(name), sound.join(name)).unwrap();
    }
    let read = |dir: &Path| names.map(|name| std::fs::read(dir.join(name)).ok());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("turned", |file| drop(turn(file, 0.5))),
        ("cut", |file| std::fs::File::options().write(true).open(file).unwrap().set_len(20).unwrap()),
        ("emptied", |file| std::fs::write(file, "").unwrap()),
        ("missing", |file| std::fs::remove_file(file).unwrap()),
    ];
    let label = ["label", "--model", "sound", "--input", "more.parquet", "--output", "out/t", "--append", "--quiet"];
    let mut from = 1000;
    for name in names {
        for (what, damage) in damages {
            for by_run in [true, false] {
                damage(&model.join(name));
                assert_ne!(read(model), read(&sound), "{name} {what}");
                write_rows(&case.path("more.parquet"), from, from + 10);
                from += 10;
                match by_run {
                    true => case.dacpipe(&["run", "t.toml", "--quiet"]),
                    false => case.dacpipe(&label),
                };
                assert_eq!(read(model), read(&sound), "{name} {what}, by a run: {by_run}");
            }
        }
    }
    // A file that does not belong to the model is left alone, and the model can be read.
    std::fs::write(model.join("notes.txt"), "mine").unwrap();
    case.dacpipe(&["run", "t.toml", "--quiet"]);
    assert_eq!(std::fs::read_to_string(model.join("notes.txt")).unwrap(), "mine");
    case.dacpipe(&[
        "label",
        "--model",
        model.to_str().unwrap(),
        "--input",
        "more.parquet",
        "--output",
        "new",
        "--quiet",
    ]);
}

#[test]
fn statements_too_deep_for_a_stack_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let tower = |open: &str, inner: &str, close: &str, times: usize| {
        format!("SELECT {}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let chain = |item: &str, link: &str, times: usize| vec![item; times].join(link);
    let ctes: String = (1..3000).map(|i| format!(", a{i} AS (SELECT * FROM a{})", i - 1)).collect();
    for (what, sql) in [
        ("operators", format!("SELECT {}", chain("1", "+", 30_000))),
        ("conditions", format!("SELECT 1 WHERE {}", chain("1 = 2", " OR ", 30_000))),
        ("parentheses", tower("(", "1", ")", 30_000)),
        ("a few parentheses", tower("(", "1", ")", 200)),
        ("functions", tower("abs(", "1", ")", 30_000)),
        ("not", tower("NOT ", "true", "", 30_000)),
        ("casts", tower("", "1", "::int", 30_000)),
        ("subscripts", tower("", "x", "[1]", 30_000)),
        ("queries", chain("SELECT 1", " UNION ALL ", 30_000)),
        ("subqueries", tower("(SELECT ", "1", ")", 30_000)),
        ("tables", format!("SELECT 1 FROM {}", chain("t", ",", 30_000))),
        ("joins", format!("SELECT 1 FROM {}", chain("t", " CROSS JOIN ", 30_000))),
        ("common tables", format!("WITH a0 AS (SELECT 1 AS x){ctes} SELECT * FROM a2999")),
        ("cases", format!("SELECT CASE {} END", chain("WHEN 1 = 2 THEN 3", " ", 30_000))),
    ] {
        let file = dir.path().join("deep.sql");
        std::fs::write(&file, sql).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        let e = finish(command.args(["sql", "--dir"]).arg(dir.path()).arg("-f").arg(&file), 4).1;
        assert!(e.starts_with("error: the ") || e.starts_with("error: there is no"), "{what}: {e}");
        assert!(e.len() < 1000, "{what}: {} bytes", e.len());
    }
    // A statement of the greatest allowed depth works.
    let values = (0..20_000).map(|i| (-i).to_string()).collect::<Vec<_>>().join(", ");
    for (sql, answer) in [
        (format!("SELECT {} AS n", chain("1", "+", 1900)), "n\n1900\n"),
        (format!("SELECT 1 AS n WHERE {} OR 1 = 1", chain("1 = 2", " OR ", 1900)), "n\n1\n"),
        (format!("SELECT 7 IN ({values}) AS n"), "n\nfalse\n"),
        (format!("SELECT count(*) AS n FROM ({})", chain("SELECT 1", " UNION ALL ", 400)), "n\n400\n"),
    ] {
        let file = dir.path().join("long.sql");
        std::fs::write(&file, sql).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        let command = command.args(["sql", "--format", "csv", "--dir"]).arg(dir.path()).arg("-f").arg(&file);
        assert_eq!(finish(command, 0).0, answer);
    }
}
