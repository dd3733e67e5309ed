//! Columns to join on: columns that are carried along, times of windows, the most frequent label. Also recordings that
//! alternate in a file.

use std::path::Path;
use std::sync::Arc;

use dacpipe::config::PipelineFile;
use dacpipe::device::DeviceChoice;
use dacpipe::event::Control;
use dacpipe::pipeline::{InputKind, Pipeline, Relabel, RunOptions};
use dacpipe::report::RunReport;
use dacpipe::source::OnBadRow;
use dacpipe::sql::{self, Options};
use dacpipe::table::{LabelTable, Mode, OnExisting};
use datafusion::arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

/// A pipeline over `in.csv` of `dir`; `source` and `window` are more keys of these sections.
fn pipeline(dir: &Path, source: &str, window: &str) -> String {
    format!(
        "name = \"t\"\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\"]\n{source}\n[[stage]]\nkind = \"window\"\n\
         length = 4\nstride = 4\n{window}\n[[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\n",
        dir.join("in.csv").display().to_string(),
        dir.join("out").display().to_string()
    )
}

async fn run(dir: &Path, text: &str, csv: &str) -> RunReport {
    std::fs::write(dir.join("in.csv"), csv).unwrap();
    let loaded = PipelineFile::parse("t.toml", text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}"));
    Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

fn problems(text: &str) -> Vec<String> {
    match PipelineFile::parse("t.toml", text, &[], &|_| None) {
        Ok(_) => vec![],
        Err(problems) => problems.iter().map(|problem| problem.message().to_string()).collect(),
    }
}

/// The result of a query over the table `t` at `path`, one row per line, values separated by blanks.
async fn rows(path: &Path, query: &str) -> Vec<String> {
    let ctx = SessionContext::new_with_config(sql::session_config());
    sql::register(&ctx, Options::new().table("t", path.to_str().unwrap())).await.unwrap();
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let value = |column: &ArrayRef| match column.is_null(row) {
                true => "null".to_string(),
                false => array_value_to_string(column, row).unwrap(),
            };
            rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(" "));
        }
    }
    rows
}

/// Two devices, four windows: who was there, how much load, which state.
const LINES: &str = "\
device,t,x,activity,operator,load,state
a,1700000000000,1,walk,007,1,on
a,1700000000020,2,walk,007,,on
a,1700000000040,1,run,007,4,off
a,1700000000060,2,walk,b,NA,
a,1700000000080,9,run,,-2,off
a,1700000000100,9,run,c,2,off
a,1700000000120,8,,c,,on
a,1700000000140,9,run,d,,off
b,1700000000000,1,,,,
b,1700000000020,1,,,,
b,1700000000040,2,,e,7,
b,1700000000060,1,,,,
";

const SOURCE: &str = "keys = [\"device\"]\nlabel = \"activity\"\ntime = \"t\"\ntime_unit = \"ms\"\nkeep = [\"operator\", \
                      { column = \"operator\", as = \"last\", name = \"operator_after\" }, \
                      { column = \"load\", as = \"mean\" }, { column = \"load\", as = \"min\", name = \"least\" }, \
                      { column = \"load\", as = \"max\", name = \"most\" }, { column = \"state\", as = \"mode\" }, \
                      { column = \"x\", name = \"x0\" }]";

#[tokio::test]
async fn windows_carry_columns_and_times_along() {
    let dir = TempDir::new().unwrap();
    let report = run(dir.path(), &pipeline(dir.path(), SOURCE, "label = \"mode\""), LINES).await;
    assert_eq!(report.labelled_rows, 3);
    let out = dir.path().join("out");
    let kept = rows(
        &out,
        "SELECT device, start, operator, operator_after, load, least, most, state, state_share, x0 FROM t \
         ORDER BY device, start",
    )
    .await;
    let expected = [
        "a 0 007 b 2.5 1.0 4.0 on 0.5 1",
        "a 4 null d 0.0 -2.0 2.0 off 0.75 9",
        "b 0 null null 7.0 7.0 7.0 null null 1",
    ];
    assert_eq!(kept, expected);
    let labels = rows(&out, "SELECT activity, activity_share FROM t ORDER BY device, start").await;
    assert_eq!(labels, ["walk 0.75", "run 0.75", "null null"]);
    let times = rows(&out, "SELECT start_time, end_time FROM t ORDER BY device, start").await;
    let expected = ["22:13:20Z 22:13:20.060Z", "22:13:20.080Z 22:13:20.140Z", "22:13:20Z 22:13:20.060Z"];
    assert_eq!(
        times,
        expected.map(|line| line.split(' ').map(|t| format!("2023-11-14T{t}")).collect::<Vec<_>>().join(" "))
    );
    let schema = LabelTable::open(out.to_str().unwrap(), None).await.unwrap().schema();
    let field = |name: &str| {
        let field = schema.field_with_name(name).unwrap();
        (field.data_type().clone(), field.is_nullable())
    };
    assert_eq!(field("start_time"), (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false));
    assert_eq!([field("operator"), field("load")], [(DataType::Utf8, true), (DataType::Float64, true)]);
}

/// Without an aggregate a window has a label if all of it has that label; times that do not count from 1970 are
/// seconds; a carried column can partition the table.
#[tokio::test]
async fn what_is_carried_along_is_as_any_column() {
    let dir = TempDir::new().unwrap();
    let csv = LINES.replace("17000000", "");
    let text = pipeline(dir.path(), SOURCE, "") + "keys = [\"device\", \"start_time\"]\npartition_by = [\"state\"]\n";
    run(dir.path(), &text, &csv).await;
    let out = dir.path().join("out");
    let found = rows(&out, "SELECT device, start_time, end_time, activity FROM t ORDER BY device, start_time").await;
    assert_eq!(found, ["a 0.0 0.06 null", "a 0.08 0.14 null", "b 0.0 0.06 null"]);
    let mut runs = std::fs::read_dir(out.join("data")).unwrap();
    assert!(runs.any(|run| run.unwrap().path().join("state=off").is_dir()));
}

/// A column that is carried along unchanged can be the split column, under its name in the table.
#[tokio::test]
async fn the_split_may_be_what_is_carried_along() {
    let dir = TempDir::new().unwrap();
    let split = |column: &str, fit: &str| format!("[split]\ncolumn = {column:?}\nfit = {fit:?}\n");
    for (column, fit, expected) in [("state", "on", 1), ("operator_after", "d", 1), ("operator", "007", 1)] {
        let text = pipeline(dir.path(), SOURCE, "").replace("k = 2", "k = 1") + &split(column, fit);
        let report = run(dir.path(), &text, LINES).await;
        assert_eq!((report.fit_rows, report.labelled_rows), (expected, 3), "{column}");
        let kept = rows(&dir.path().join("out"), &format!("SELECT count(*) FROM t WHERE {column} = '{fit}'")).await;
        assert_eq!(kept, ["1"], "{column}");
    }
    let said = problems(&(pipeline(dir.path(), SOURCE, "") + &split("load", "2.5")));
    assert_eq!(said, ["\"load\" is a mean, a least or a greatest value, which names no part of the data"]);
    let said = problems(&(pipeline(dir.path(), SOURCE, "") + &split("laod", "2.5")));
    assert_eq!(said, ["the source yields no column \"laod\""]);
}

#[tokio::test]
async fn text_where_a_number_is_kept_is_a_bad_row() {
    let dir = TempDir::new().unwrap();
    let csv = LINES.replace("007,4,off", "007,high,off");
    std::fs::write(dir.path().join("in.csv"), &csv).unwrap();
    let text = pipeline(dir.path(), SOURCE, "");
    let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap().plan;
    let error = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("in.csv:4: column \"load\"") && error.contains("\"high\""), "{error}");
    let report = run(dir.path(), &format!("on_bad_row = \"quarantine\"\n{text}"), &csv).await;
    assert_eq!((report.labelled_rows, report.quarantined_rows), (2, 1));
}

#[test]
fn names_that_collide_are_named_all_at_once() {
    let dir = Path::new("d");
    let keep = |list: &str| format!("keys = [\"device\"]\nlabel = \"activity\"\ntime = \"t\"\nkeep = [{list}]");
    let of = |list: &str| problems(&pipeline(dir, &keep(list), ""));
    assert_eq!(of("\"operator\", { column = \"x\", as = \"max\" }, { column = \"t\" }"), [""; 0]);
    let found = of("\"device\", \"Cluster\", \"load\", { column = \"load\", as = \"mean\" }, \"end_time\", \
                    { column = \"y\", as = \"mode\", name = \"y\" }, \"y_share\", { column = \"z\", name = \"start\" }");
    for (name, at) in [("device", 0), ("Cluster", 1), ("load", 2), ("end_time", 3), ("y_share", 4), ("start", 5)] {
        assert!(found[at].contains(&format!("a column named {name:?} would be there twice")), "{found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
    // Without times, the table has no columns of times.
    let untimed = keep("\"start_time\"").replace("time = \"t\"\n", "");
    assert_eq!(problems(&pipeline(dir, &untimed, "")), [""; 0]);
    let found = of("{ column = \"load\", as = \"median\" }, { as = \"mean\" }, 3");
    assert!(found.iter().any(|p| p.contains("`as` cannot be \"median\"")), "{found:#?}");
    assert!(found.iter().any(|p| p.contains("has no `column`")), "{found:#?}");
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn the_most_frequent_label_needs_labels_over_recordings() {
    let dir = Path::new("d");
    let found = problems(&pipeline(dir, "", "label = \"mode\""));
    assert!(found.len() == 1 && found[0].contains("no label column"), "{found:#?}");
    let within = "label = \"mode\"\nwithin = \"labels\"";
    let found = problems(&pipeline(dir, "label = \"activity\"", within));
    assert!(found.len() == 1 && found[0].contains("one label each"), "{found:#?}");
}

fn relabel(report: &RunReport, input: &Path, output: &Path) -> Relabel {
    Relabel {
        model: report.model_path.clone(),
        input: input.display().to_string(),
        output: output.display().to_string(),
        kind: None,
        features: None,
        keys: vec![],
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

/// `label` carries along the pipeline's columns if the new rows have them.
#[tokio::test]
async fn a_model_carries_columns_along_where_they_are() {
    let dir = TempDir::new().unwrap();
    let report = run(dir.path(), &pipeline(dir.path(), SOURCE, ""), LINES).await;
    let (input, output) = (dir.path().join("in.csv"), dir.path().join("new"));
    relabel(&report, &input, &output).run(&Control::default()).await.unwrap();
    let query = "SELECT load, CAST(start_time AS BIGINT) FROM t ORDER BY device, start";
    assert_eq!(rows(&output, query).await, rows(&dir.path().join("out"), query).await);
    // The same without the columns from the operator on.
    let narrow = |line: &str| line.splitn(5, ',').take(4).collect::<Vec<_>>().join(",") + "\n";
    std::fs::write(&input, LINES.lines().map(narrow).collect::<String>()).unwrap();
    assert_eq!(relabel(&report, &input, &output).run(&Control::default()).await.unwrap().rows, 3);
    let schema = LabelTable::open(output.to_str().unwrap(), None).await.unwrap().schema();
    assert!(schema.field_with_name("load").is_err() && schema.field_with_name("end_time").is_ok());
}

/// Feature vectors carry columns of any type along unchanged.
#[tokio::test]
async fn vectors_are_split_by_what_they_carry_along() {
    let dir = TempDir::new().unwrap();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..6)) as ArrayRef),
        ("a", Arc::new(Float64Array::from(vec![0.0, 1.0, 2.0, 8.0, 9.0, 9.5])) as _),
        (
            "year",
            Arc::new(Int64Array::from(vec![Some(2023), Some(2023), Some(2024), Some(2024), Some(2024), None])) as _,
        ),
    ]);
    let batch = batch.unwrap();
    let file = std::fs::File::create(dir.path().join("in.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let text = format!(
        "name = \"t\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = [\"a\"]\nkeys = [\"id\"]\nkeep = [\"year\"]\n\
         [[stage]]\nkind = \"kmeans\"\nk = 1\n[split]\ncolumn = \"year\"\nfit = \"2024\"\n[sink]\npath = {:?}\n",
        dir.path().join("in.parquet").display().to_string(),
        dir.path().join("out").display().to_string()
    );
    let loaded = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let report = Pipeline::new(loaded.plan).unwrap().run(&RunOptions::default()).await.unwrap();
    assert_eq!((report.fit_rows, report.labelled_rows), (3, 6));
    assert_eq!(rows(&dir.path().join("out"), "SELECT id FROM t WHERE year IS NULL").await, ["5"]);
}

#[tokio::test]
async fn feature_vectors_carry_columns_along() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("in.parquet");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..6))),
        ("x", Arc::new(Float64Array::from_iter_values([0.0, 0.1, 9.0, 9.1, 0.2, 9.2]))),
        ("site", Arc::new(StringArray::from(vec![Some("s"), None, Some("t"), None, None, Some("")]))),
        ("at", Arc::new(TimestampNanosecondArray::from_iter((0..6).map(|i| (i != 1).then_some(i * 1000))))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let out = dir.path().join("out");
    let text = |keep: &str| {
        format!(
            "name = \"t\"\n[source]\nkind = \"parquet\"\npath = {:?}\nfeatures = [\"x\"]\nkeys = [\"id\"]\nkeep = {keep}\n\
             [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {:?}\n",
            path.display().to_string(),
            out.display().to_string()
        )
    };
    let plan = PipelineFile::parse("t.toml", &text("[\"site\", \"at\"]"), &[], &|_| None).unwrap().plan;
    let report = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap();
    let query = "SELECT id, site, CAST(at AS BIGINT) FROM t ORDER BY id";
    let expected = ["0 s 0", "1 null null", "2 t 2", "3 null 3", "4 null 4", "5  5"];
    assert_eq!(rows(&out, query).await, expected);
    let new = dir.path().join("new");
    relabel(&report, &path, &new).run(&Control::default()).await.unwrap();
    assert_eq!(rows(&new, query).await, expected);
    let found = problems(&text("[\"site\", \"id\", \"site\", \"margin\"]"));
    for (at, name) in ["id", "site", "margin"].iter().enumerate() {
        assert!(found[at].contains(&format!("a column named {name:?}")), "{found:#?}");
    }
}

/// Lines of three devices in the order of time, and the same lines device by device.
fn taking_turns() -> (String, String) {
    let header = "device,t,x,activity,operator\n";
    let mut lines = Vec::new();
    for i in 0..60 {
        for (device, from, to) in [("b", 0, 50), ("a", 7, 60), ("c", 20, 33)] {
            // A gap in c, a change of the label in a, a bad line in b.
            if (from..to).contains(&i) && !(device == "c" && i == 25) {
                let activity = if device == "a" && i > 30 { "run" } else { "walk" };
                let x = if device == "b" && i == 11 { "?".into() } else { format!("{}", (i * 7 + to) % 23) };
                lines.push((device, format!("{device},{},{x},{activity},o{}\n", 20 * i, i / 9)));
            }
        }
    }
    let turns = lines.iter().map(|(_, line)| line.as_str()).collect::<String>();
    let mut sorted = String::new();
    for device in ["b", "a", "c"] {
        sorted.extend(lines.iter().filter(|(of, _)| *of == device).map(|(_, line)| line.as_str()));
    }
    (format!("{header}{turns}"), format!("{header}{sorted}"))
}

#[tokio::test]
async fn recordings_that_take_turns_are_as_if_each_stood_by_itself() {
    let (turns, sorted) = taking_turns();
    let source = "keys = [\"device\"]\nlabel = \"activity\"\ntime = \"t\"\ntime_unit = \"ms\"\nkeep = [\"operator\"]\n";
    let query =
        "SELECT device, start, start_time, end_time, activity, operator, cluster, distance FROM t ORDER BY 1, 2";
    let of = async |csv: &str, key: &str| {
        let dir = TempDir::new().unwrap();
        let text = format!("on_bad_row = \"quarantine\"\n{}", pipeline(dir.path(), &format!("{source}{key}"), ""));
        let report = run(dir.path(), &text, csv).await;
        assert_eq!(report.quarantined_rows, 1);
        rows(&dir.path().join("out"), query).await
    };
    let expected = of(&sorted, "").await;
    // In b, one window contains the bad line; in c, five samples before the gap and seven after it are unused.
    assert_eq!(expected.len(), 11 + 13 + 2, "{expected:#?}");
    for key in ["", "interleaved = true\n"] {
        assert_eq!(of(&turns, key).await, expected, "{key}");
    }
}

/// `csv`, whose empty fields and NA are null, as a Parquet file: times as they are in Parquet, numbers as numbers.
fn write_table(path: &Path, csv: &str) {
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = |at: usize| lines[1..].iter().map(move |row| Some(row[at]).filter(|v| !["", "NA"].contains(v)));
    let columns = lines[0].iter().enumerate().map(|(at, name)| {
        let array: ArrayRef = match *name {
            "t" => Arc::new(
                column(at)
                    .map(|t| t.map(|t| t.parse::<i64>().unwrap()))
                    .collect::<TimestampMillisecondArray>()
                    .with_timezone("+02:00"),
            ),
            "x" => Arc::new(column(at).map(|x| x.map(|x| x.parse::<f32>().unwrap())).collect::<Float32Array>()),
            "load" => Arc::new(column(at).map(|v| v.map(|v| v.parse::<f64>().unwrap())).collect::<Float64Array>()),
            _ => Arc::new(column(at).collect::<StringArray>()),
        };
        (*name, array, true)
    });
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Samples as the rows of a Parquet file are recordings as those of a CSV file are.
#[tokio::test]
async fn recordings_in_parquet_are_as_in_csv() {
    let source = SOURCE.replace(", { column = \"x\", name = \"x0\" }", "");
    // The rows of both devices in turn, as in the order of time.
    let rows_of =
        |device: &str| LINES.lines().filter(|line| line.starts_with(device)).map(str::to_string).collect::<Vec<_>>();
    let (a, b) = (rows_of("a,"), rows_of("b,"));
    let mut turns = LINES.lines().next().unwrap().to_string() + "\n";
    for (at, line) in a.iter().enumerate() {
        turns.extend([Some(line), b.get(at)].into_iter().flatten().map(|line| format!("{line}\n")));
    }
    let query = "SELECT device, start, start_time, end_time, activity, activity_share, operator, operator_after, load, \
                 least, most, state, state_share, cluster, distance FROM t ORDER BY device, start";
    let expected = {
        let dir = TempDir::new().unwrap();
        run(dir.path(), &pipeline(dir.path(), &source, "label = \"mode\""), LINES).await;
        rows(&dir.path().join("out"), query).await
    };
    assert_eq!(expected.len(), 3);
    for (csv, file) in [(LINES, "in.parquet"), (turns.as_str(), "day/in.pq")] {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("day")).unwrap();
        write_table(&dir.path().join(file), csv);
        let text = pipeline(dir.path(), &source.replace("time_unit = \"ms\"\n", ""), "label = \"mode\"");
        let text = text.replace("in.csv", file.strip_suffix("/in.pq").unwrap_or(file));
        let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
        let report = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(report.source.contains("1 Parquet files"), "{}", report.source);
        assert_eq!(rows(&dir.path().join("out"), query).await, expected, "{file}");
        // A file called .parquet is read as vectors unless a flag says otherwise.
        if file == "in.parquet" {
            let by_name = relabel(&report, &dir.path().join(file), &dir.path().join("labelled"));
            let e = by_name.run(&Control::default()).await.unwrap_err();
            assert!(e.to_string().contains("--kind csv"), "{e}");
            let by_kind = Relabel { kind: Some(InputKind::Csv), ..by_name };
            assert_eq!(by_kind.run(&Control::default()).await.unwrap_or_else(|e| panic!("{e}")).rows, 3);
        }
    }
}

/// A bad row of a Parquet file is reported like a bad line.
#[tokio::test]
async fn a_bad_row_of_samples_in_parquet_is_named() {
    let dir = TempDir::new().unwrap();
    let error = async |csv: &str, source: &str| {
        write_table(&dir.path().join("in.parquet"), csv);
        let text = pipeline(dir.path(), source, "").replace("in.csv", "in.parquet");
        let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
        Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_err().to_string()
    };
    let keyed = "keys = [\"device\"]\ntime = \"t\"";
    let e = error(&LINES.replace("40,1,run,007", "40,,run,007"), keyed).await;
    assert!(e.contains("in.parquet:3: column \"x\""), "{e}");
    let e = error(&LINES.replace("b,1700000000040", ",1700000000040"), keyed).await;
    assert!(e.contains("in.parquet:11: key column \"device\" is empty"), "{e}");
    let e = error(LINES, "keys = [\"devise\"]").await;
    assert!(e.contains("no column \"devise\"; did you mean \"device\"?"), "{e}");
    std::fs::write(dir.path().join("in.parquet"), "PAR1 is not enough").unwrap();
    let text = pipeline(dir.path(), keyed, "").replace("in.csv", "in.parquet");
    let plan = PipelineFile::parse("t.toml", &text, &[], &|_| None).unwrap().plan;
    let e = Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_err();
    assert!(e.kind() == dacpipe::Kind::Input && e.to_string().contains("not a readable Parquet file"), "{e}");
}

#[test]
fn recordings_that_take_turns_have_keys() {
    let found = problems(&pipeline(Path::new("d"), "interleaved = true", ""));
    assert!(found.len() == 1 && found[0].contains("no keys"), "{found:#?}");
}
