//! Recordings in files: the line that a message names, keys and labels in paths, recordings across files, and samples
//! in Parquet files.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use dacpipe::column;
use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::signal::features::FeatureSet;
use dacpipe::signal::summary::SummarySpec;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::samples::Samples;
use dacpipe::source::{
    AcrossFiles, BadRow, BadRows, CsvSpec, Delimiter, Dialect, OnBadRow, Repeated, SampleRules, SourceOptions,
    SourceSpec, TimeColumn, TimeUnit, open,
};
use dacpipe::{Kind, Result};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

/// What a source gave: each row as its texts, `start` and first value; the bad rows; what became of the samples.
struct Read {
    rows: Vec<(Vec<String>, i64, f64)>,
    bad: Vec<BadRow>,
    samples: Samples,
}

async fn read(spec: &CsvSpec, options: &SourceOptions) -> Result<Read> {
    let bad = Arc::new(BadRows::new());
    let source = open(&SourceSpec::Csv(spec.clone()), options, bad.clone()).await?;
    let context = SessionContext::new();
    context.register_table("t", source.provider.clone())?;
    let texts: Vec<&String> = source.keys.iter().chain(&source.split).chain(&source.label).collect();
    let mut rows = Vec::new();
    for batch in context.sql("SELECT * FROM t").await?.collect().await? {
        let starts = batch["start"].as_primitive::<Int64Type>();
        let (values, dim) = column::values(&batch, "features")?;
        let values = values.narrow();
        for row in 0..batch.num_rows() {
            let text = |name: &&String| {
                let column = batch[name.as_str()].as_string::<i32>();
                column.iter().nth(row).flatten().unwrap_or("NULL").to_string()
            };
            rows.push((texts.iter().map(text).collect(), starts.value(row), f64::from(values[row * dim])));
        }
    }
    let samples = source.samples().expect("the scan ran to its end");
    assert_eq!(samples.read, samples.in_windows + samples.set_aside + samples.unused(), "{samples}");
    Ok(Read { rows, bad: bad.rows(), samples })
}

fn cut(length: usize, stride: usize) -> SourceOptions {
    let window = Some(WindowSpec { length, stride, within: Within::Recordings });
    SourceOptions { window, ..Default::default() }
}

fn quarantine(options: SourceOptions) -> SourceOptions {
    SourceOptions { on_bad_row: OnBadRow::Quarantine, ..options }
}

/// A source of channel `x` below `dir`, with times `t` in milliseconds.
fn spec(dir: &Path) -> CsvSpec {
    let mut spec = CsvSpec::new(dir.display().to_string(), &["x"]);
    spec.time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
    spec
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

// ---- lines ----

/// Whatever is between samples, and in whatever order they are read, a window is named by the line of its first sample.
#[tokio::test]
async fn a_window_is_named_by_the_line_of_its_first_sample() {
    // Every second window of ten has values whose squares are too large.
    let line = |i: i64| {
        let value = if i / 10 % 2 == 1 { format!("{}e30", 1 - 2 * (i % 2)) } else { (i % 3).to_string() };
        format!("{},{value}\n", 20 * i)
    };
    let mut lines: Vec<String> = (0..100).map(line).collect();
    lines[7] = format!("\n\n{}", lines[7]);
    lines[13] = format!("# note\n\n{}", lines[13]);
    lines.swap(40, 43);
    lines.swap(50, 51);
    for at in [66, 77] {
        lines.insert(at, lines[at - 1].clone());
    }
    let text = format!("t,x\n{}", lines.concat());
    let line_of = |i: i64| 1 + text.lines().position(|l| l.starts_with(&format!("{},", 20 * i))).unwrap() as u64;

    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.csv", &text);
    let rules = SampleRules { disorder: 4.into(), repeated: Repeated::Drop, ..Default::default() };
    let dialect = Dialect { comment: Some("#".into()), ..Default::default() };
    let spec = CsvSpec { rules, dialect, ..spec(dir.path()) };
    let features = Some(FeatureSet::Summary(SummarySpec { bands: 2, ..Default::default() }));
    let found = read(&spec, &quarantine(SourceOptions { features, ..cut(10, 10) })).await.unwrap();
    let bad: Vec<u64> = found.bad.iter().map(|bad| bad.line).collect();
    let expected: Vec<u64> = [10, 30, 50, 70, 90].map(line_of).to_vec();
    assert_eq!(bad, expected, "{:?}", found.bad);
    assert!(found.bad.iter().all(|bad| bad.reason.contains("of the window that starts here")), "{:?}", found.bad);
    assert_eq!(found.rows.len(), 5);
}

/// A recording that goes on in another file: its windows are named by the file in which they begin.
#[tokio::test]
async fn a_window_is_named_by_the_file_in_which_it_begins() {
    let dir = TempDir::new().unwrap();
    let lines = |from: i64, to: i64| {
        let lines =
            (from..to).map(|i| format!("P,{},{}\n", 20 * i, if i < 40 { "1".into() } else { format!("{}e30", i % 7) }));
        "k,t,x\n".to_string() + &lines.collect::<String>()
    };
    // The second by name is the first in time.
    write(dir.path(), "b.csv", lines(0, 45));
    write(dir.path(), "a.csv", lines(45, 60));
    let rules = SampleRules { across_files: AcrossFiles::Continue, ..Default::default() };
    let spec = CsvSpec { keys: vec!["k".into()], rules, ..spec(dir.path()) };
    let features = Some(FeatureSet::Summary(SummarySpec { bands: 2, ..Default::default() }));
    let found = read(&spec, &quarantine(SourceOptions { features, ..cut(10, 10) })).await.unwrap();
    let bad: Vec<(&str, u64)> =
        found.bad.iter().map(|bad| (bad.file.rsplit('/').next().unwrap_or_default(), bad.line)).collect();
    assert_eq!(bad, [("a.csv", 7), ("b.csv", 42)], "{:?}", found.bad);
    assert_eq!(found.rows.len(), 4);
}

/// Lines may be out of order between two files, too, and the end of one may be the begin of the next.
#[tokio::test]
async fn lines_are_put_in_order_over_files() {
    let line = |i: i64| format!("P,{},{i}\n", 20 * i);
    let text = |numbers: &[i64]| "k,t,x\n".to_string() + &numbers.iter().map(|&i| line(i)).collect::<String>();
    let rules = SampleRules {
        across_files: AcrossFiles::Continue,
        disorder: 8.into(),
        repeated: Repeated::Drop,
        ..Default::default()
    };
    let whole: Vec<i64> = (0..80).collect();
    let swapped = [&whole[..38], &[40, 41]].concat();
    let rest = [&[38, 39], &whole[42..]].concat();
    for (first, second, repeated) in
        [(&whole[..40], &whole[40..], 0), (&swapped, &rest, 0), (&whole[..40], &whole[36..], 4)]
    {
        let dir = TempDir::new().unwrap();
        write(dir.path(), "1.csv", text(first));
        write(dir.path(), "2.csv", text(second));
        let spec = CsvSpec { keys: vec!["k".into()], rules, ..spec(dir.path()) };
        let found = read(&spec, &cut(8, 4)).await.unwrap();
        let expected: Vec<_> = (0..19).map(|i| (vec!["P".to_string()], 4 * i, 4.0 * i as f64)).collect();
        assert_eq!(found.rows, expected, "{:?}", &second[..4]);
        assert_eq!(found.samples.unused(), repeated);
    }
}

/// Files that overlap in time duplicate no sample: repeated samples are bad, or sorted and dropped on request.
#[tokio::test]
async fn files_that_overlap_double_no_sample() {
    let line = |i: i64| format!("P,{},{i}\n", 1_700_000_000_000 + 20 * i);
    let text = |from: i64, to: i64| "k,t,x\n".to_string() + &(from..to).map(line).collect::<String>();
    let dir = TempDir::new().unwrap();
    write(dir.path(), "1.csv", text(0, 40));
    write(dir.path(), "2.csv", text(36, 80));
    let rules = SampleRules { across_files: AcrossFiles::Continue, ..Default::default() };
    let spec = CsvSpec { keys: vec!["k".into()], rules, ..spec(dir.path()) };
    let e = read(&spec, &cut(8, 4)).await.err().unwrap().to_string();
    assert!(e.contains("2.csv:2: its time is before the end of the recording in ") && e.contains("1.csv"), "{e}");
    let found = read(&spec, &quarantine(cut(8, 4))).await.unwrap();
    assert_eq!(found.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(found.bad[3].reason.contains("its time is that of the line before"), "{:?}", found.bad[3]);
    assert_eq!(found.samples.set_aside, 4);
    let mut firsts: Vec<f64> = found.rows.iter().map(|row| row.2).collect();
    firsts.dedup();
    assert_eq!(firsts.len(), found.rows.len());
    let rules = SampleRules { disorder: 8.into(), repeated: Repeated::Drop, ..rules };
    let found = read(&CsvSpec { rules, ..spec }, &cut(8, 4)).await.unwrap();
    assert_eq!(
        found.rows.iter().map(|row| row.2).collect::<Vec<_>>(),
        (0..19).map(|i| 4.0 * i as f64).collect::<Vec<_>>()
    );
    assert_eq!(found.samples.unused(), 4);
}

// ---- paths ----

/// Directories may name keys, the label and the split, for text and for Parquet.
#[tokio::test]
async fn keys_labels_and_splits_may_stand_in_paths() {
    let dir = TempDir::new().unwrap();
    let text =
        |from: i64| "t,x\n".to_string() + &(from..from + 8).map(|i| format!("{},{i}\n", 20 * i)).collect::<String>();
    let places = [
        ("site=A%2F1/split=train/state=on/d.csv", 0),
        ("site=A%2F1/split=test/state=off/d.csv", 8),
        ("site=B/split=__HIVE_DEFAULT_PARTITION__/state=__HIVE_DEFAULT_PARTITION__/d.csv", 16),
    ];
    for (place, from) in places {
        write(dir.path(), &format!("text/{place}"), text(from));
        let batch = RecordBatch::try_from_iter([
            ("t", Arc::new(Int64Array::from_iter_values((from..from + 8).map(|i| 20 * i))) as ArrayRef),
            ("x", Arc::new(Float64Array::from_iter_values((from..from + 8).map(|i| i as f64))) as ArrayRef),
        ]);
        write_parquet(&dir.path().join("table").join(place.replace(".csv", ".parquet")), &batch.unwrap());
    }
    for kind in ["text", "table"] {
        let spec = CsvSpec {
            keys: vec!["site".into(), "file".into()],
            label: Some("state".into()),
            split: Some("split".into()),
            ..spec(&dir.path().join(kind))
        };
        let found = read(&spec, &cut(8, 8)).await.unwrap();
        let ends = if kind == "text" { "csv" } else { "parquet" };
        let row = |site: &str, split: &str, state: &str, value: f64| {
            let folder =
                |v: &str| if v == "NULL" { "__HIVE_DEFAULT_PARTITION__".to_string() } else { v.replace('/', "%2F") };
            let file = format!("site={}/split={}/state={}/d.{ends}", folder(site), folder(split), folder(state));
            ([site, &file, split, state].map(String::from).to_vec(), 0, value)
        };
        let expected = [row("A/1", "test", "off", 8.0), row("A/1", "train", "on", 0.0), row("B", "NULL", "NULL", 16.0)];
        assert_eq!(found.rows, expected, "{kind}");
    }
    // A key without a value in the path is like an empty one in a column.
    let spec = CsvSpec { keys: vec!["state".into()], ..spec(&dir.path().join("text/site=B")) };
    let e = read(&spec, &cut(8, 8)).await.err().unwrap().to_string();
    assert!(e.contains("d.csv:2: key column \"state\" is empty"), "{e}");
}

/// Where the file has the column, too, the two must agree.
#[tokio::test]
async fn a_row_that_contradicts_its_path_is_bad() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "site=A/a.csv", "site,x\nA,1\nB,2\nA,3\n");
    let spec = CsvSpec { keys: vec!["site".into()], time: None, ..spec(dir.path()) };
    let found = read(&spec, &quarantine(SourceOptions::default())).await.unwrap();
    assert_eq!(found.rows.iter().map(|row| row.2).collect::<Vec<_>>(), [1.0, 3.0]);
    assert_eq!((found.bad.len(), found.bad[0].line), (1, 3));
    assert_eq!(found.bad[0].reason, "column \"site\" is \"B\", expected \"A\", as the path says");
}

// ---- samples in Parquet ----

fn write_parquet(path: &Path, batch: &RecordBatch) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_dictionary_page_size_limit(64 << 20).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn samples(rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("k", Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("k{}", i / 40)))) as ArrayRef),
        ("t", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| 20 * i))) as ArrayRef),
        ("x", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64 / 7.0))) as ArrayRef),
    ])
    .unwrap()
}

/// A Parquet file is recognised by its name in any case, or by its first and last bytes.
#[tokio::test]
async fn parquet_is_told_by_name_or_content() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    write_parquet(&path("a.parquet"), &samples(80));
    let keyed = |place: &Path| CsvSpec { keys: vec!["k".into()], ..spec(place) };
    let expected = read(&keyed(&path("a.parquet")), &cut(8, 4)).await.unwrap().rows;
    assert_eq!(expected.len(), 2 * 9);
    for name in ["a.PARQUET", "part-0000", "a.csv", "in/A.PQ"] {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::copy(path("a.parquet"), path(name)).unwrap();
        let asked = if name.starts_with("in") { path("in") } else { path(name) };
        assert_eq!(read(&keyed(&asked), &cut(8, 4)).await.unwrap().rows, expected, "{name}");
    }
    // Text that begins like one.
    write(dir.path(), "text.csv", "PAR1,k,t,x\n0,a,0,1\n0,a,20,2\n");
    assert_eq!(read(&keyed(&path("text.csv")), &SourceOptions::default()).await.unwrap().rows.len(), 2);
    write(dir.path(), "b.parquet", "k,t,x\na,0,1\n");
    let e = read(&keyed(&path("b.parquet")), &cut(8, 4)).await.err().unwrap();
    assert!(e.kind() == Kind::Input && e.to_string().contains("not a readable Parquet file"), "{e}");
}

/// Text that many rows share is in memory once. Text that is too long is a bad row, and so are bytes that are not text.
#[tokio::test]
async fn text_in_parquet_has_a_bound() {
    const MIB: usize = 1 << 20;
    let dir = TempDir::new().unwrap();
    let rows = 300i64;
    let long = "k".repeat(2 * MIB);
    let key = |i: i64| if (2..rows - 2).contains(&i) { long.as_str() } else { "short" };
    let batch = RecordBatch::try_from_iter([
        ("k", Arc::new((0..rows).map(|i| Some(key(i))).collect::<DictionaryArray<Int32Type>>()) as ArrayRef),
        (
            "b",
            Arc::new(BinaryArray::from_iter_values((0..rows).map(|i| if i == 1 { &b"\xff"[..] } else { b"b" })))
                as ArrayRef,
        ),
        ("x", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64))) as ArrayRef),
    ]);
    write_parquet(&dir.path().join("a.parquet"), &batch.unwrap());
    let spec = CsvSpec { keys: vec!["k".into(), "b".into()], time: None, interleaved: Some(false), ..spec(dir.path()) };
    let found = read(&spec, &quarantine(SourceOptions::default())).await.unwrap();
    assert_eq!(found.bad[0].reason, "column \"b\": \"\\xff\", expected UTF-8");
    assert_eq!(found.bad[1].reason, "column \"k\" holds 2097152 bytes, expected at most 1048576");
    assert_eq!((found.bad.len(), found.rows.len()), (rows as usize - 3, 3));
}

/// Keys about text are refused for Parquet files, by the check of a pipeline file and by its run.
#[tokio::test]
async fn how_text_is_written_is_not_said_of_parquet() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("in/a.parquet"), &samples(80));
    let dialect = Dialect { delimiter: Some(Delimiter::One(';')), decimal: ',', ..Default::default() };
    let e = read(&CsvSpec { dialect, ..spec(&dir.path().join("in")) }, &cut(8, 4)).await.err().unwrap();
    assert_eq!(e.kind(), Kind::Config);
    assert!(
        e.to_string().contains(
            "a.parquet is a Parquet file, expected none of the keys about text: leave out delimiter, decimal"
        ),
        "{e}"
    );
    let text = |path: &str| {
        format!(
            "name = \"t\"\n[source]\nkind = \"csv\"\npath = {path:?}\nchannels = [\"x\"]\nskip_lines = 2\nencoding = \"latin-1\"\n\
             [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\n"
        )
    };
    let problems = PipelineFile::parse("t.toml", &text("d/*.Parquet"), &[], &|_| None).unwrap_err();
    let said: Vec<String> = problems.iter().map(|problem| problem.message().to_string()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|said| said.contains("is about text, and the files are Parquet")), "{said:?}");
    assert!(PipelineFile::parse("t.toml", &text("d/*.csv"), &[], &|_| None).is_ok());
}

/// Any damage in a Parquet file of samples is an error of that file: no panic, no error of another kind, and every row
/// that was read is accounted for.
#[tokio::test]
async fn damage_in_parquet_samples_is_damage_of_the_file() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("whole.parquet"), &samples(120));
    let whole = fs::read(dir.path().join("whole.parquet")).unwrap();
    let spec = CsvSpec { keys: vec!["k".into()], rate_hz: Some(50.0), ..spec(&dir.path().join("in")) };
    let mut damaged = 0;
    let step = (whole.len() / 150).max(1);
    for at in (0..whole.len()).step_by(step) {
        for bits in [0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= bits;
            write(dir.path(), "in/a.parquet", &bytes);
            match read(&spec, &quarantine(cut(8, 4))).await {
                Ok(found) => {
                    damaged += usize::from(!found.bad.is_empty());
                    // A file that is damaged as a whole has no rows that are known.
                    let whole = found.bad.iter().any(|bad| bad.line == 0);
                    assert!(whole || found.samples.read == 120, "byte {at}: {}, {:?}", found.samples, found.bad);
                }
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Input, "byte {at}: {e}");
                    let said = e.to_string();
                    assert!(said.contains("a.parquet") && said.len() < 1000, "byte {at}: {said}");
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > 20, "{damaged}");
}

/// 12 row groups of 10 samples, a recording of 60 after the other; the value is the number of the row.
fn write_groups(path: &Path) {
    let key = |i: i64| if i < 60 { "A" } else { "B" };
    let samples = RecordBatch::try_from_iter([
        ("k", Arc::new(StringArray::from_iter_values((0..120).map(key))) as ArrayRef),
        ("t", Arc::new(Int64Array::from_iter_values((0..120).map(|i| 20 * i))) as ArrayRef),
        ("x", Arc::new(Float64Array::from_iter_values((0..120).map(f64::from))) as ArrayRef),
    ])
    .unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), samples.schema(), Some(groups)).unwrap();
    writer.write(&samples).unwrap();
    writer.close().unwrap();
}

/// Samples before and after rows that cannot be read are no neighbours, and every row is accounted for.
#[tokio::test]
async fn a_damaged_row_group_of_samples_is_a_gap() {
    let columns = ["x", "t", "k"];
    for (damaged, starts) in [
        (vec![0], [vec![], vec![0, 8, 16, 24, 32, 40, 48]]),
        (vec![3], [vec![0, 8, 16, 40, 48], vec![0, 8, 16, 24, 32, 40, 48]]),
        (vec![2, 3, 8], [vec![0, 8, 40, 48], vec![0, 8, 30, 38, 46]]),
        (vec![11], [vec![0, 8, 16, 24, 32, 40, 48], vec![0, 8, 16, 24, 32, 40]]),
    ] {
        for (nth, column) in columns.iter().enumerate() {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("in/a.parquet");
            write_groups(&path);
            damaged.iter().for_each(|group| crate::parquet_files::spoil(&path, *group, column));
            // With times, without, and where lines might alternate.
            let spec = CsvSpec { keys: vec!["k".into()], ..spec(&dir.path().join("in")) };
            let spec = match nth {
                0 => spec,
                1 => CsvSpec { interleaved: Some(false), rate_hz: Some(50.0), ..spec },
                _ => CsvSpec { interleaved: Some(true), ..spec },
            };
            let found = read(&spec, &quarantine(cut(8, 8))).await.unwrap();
            let of = |key: &str| {
                let rows = found.rows.iter().filter(|row| row.0[0] == key);
                rows.map(|(_, start, first)| (*start, *first)).collect::<Vec<_>>()
            };
            let what = format!("{damaged:?} {column}: {:?}", found.bad);
            for (key, starts) in ["A", "B"].iter().zip(&starts) {
                let shift = if *key == "A" { 0 } else { 60 };
                // The first recording begins later if its first rows are not read.
                let expected = match (damaged[0], *key) {
                    (0, "A") => (0..6).map(|i| (8 * i, (10 + 8 * i) as f64)).collect::<Vec<_>>(),
                    _ => starts.iter().map(|start| (*start, (shift + start) as f64)).collect(),
                };
                assert_eq!(of(key), expected, "{key} {what}");
            }
            let lost = 10 * damaged.len() as u64;
            assert_eq!((found.samples.read, found.samples.set_aside), (120, lost), "{what}");
            let rows: u64 = found.bad.iter().map(|bad| bad.rows.unwrap_or(0)).sum();
            assert_eq!((found.bad.len(), rows), (damaged.len(), lost), "{what}");
            for (bad, group) in found.bad.iter().zip(&damaged) {
                let says = format!("row group {group} (of 12, counted from 0): none of its 10 rows");
                assert!(bad.line == 10 * *group as u64 + 1 && bad.reason.starts_with(&says), "{bad:?}");
            }
            let e = read(&spec, &cut(8, 8)).await.err().unwrap();
            let first = format!("a.parquet: row group {} (of 12", damaged[0]);
            assert!(e.kind() == Kind::Input && e.to_string().contains(&first), "{e}");
        }
    }
}

/// Without keys, the file is the recording, and `start` counts the rows that could not be read as well.
#[tokio::test]
async fn positions_leave_room_for_rows_that_cannot_be_read() {
    for (damaged, starts) in [
        (vec![0], (0..13).map(|i| 10 + 8 * i).collect::<Vec<i64>>()),
        (vec![4, 5, 11], [0, 8, 16, 24, 32, 60, 68, 76, 84, 92, 100].into()),
        ((0..11).collect(), vec![110]),
        ((0..12).collect(), vec![]),
    ] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("in/a.parquet");
        write_groups(&path);
        damaged.iter().for_each(|group| crate::parquet_files::spoil(&path, *group, "x"));
        let spec = CsvSpec { time: None, ..spec(&dir.path().join("in")) };
        let found = read(&spec, &quarantine(cut(8, 8))).await.unwrap();
        let rows: Vec<(i64, f64)> = found.rows.iter().map(|(_, start, first)| (*start, *first)).collect();
        assert_eq!(rows, starts.iter().map(|start| (*start, *start as f64)).collect::<Vec<_>>(), "{damaged:?}");
        assert_eq!((found.samples.read, found.samples.set_aside), (120, 10 * damaged.len() as u64));
        assert_eq!(found.bad.len(), damaged.len());
        assert!(found.bad.iter().all(|bad| bad.reason.contains("can be read: ")), "{:?}", found.bad);
    }
}

// ---- why there are no rows ----

/// If everything was set aside, the error gives the reason of the first row, with the key that would read it.
#[tokio::test]
async fn no_rows_are_explained_by_the_first_that_was_set_aside() {
    let dir = TempDir::new().unwrap();
    let lines: String = (0..20).map(|i| format!("{i};1,5\n")).collect();
    write(dir.path(), "in/a.csv", format!("t;x\n{lines}"));
    let says = async |more: &str| {
        let toml = format!(
            "name = \"t\"\non_bad_row = \"quarantine\"\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\"]\n\
             delimiter = \";\"\n{more}\n[[stage]]\nkind = \"window\"\nlength = 4\nstride = 4\nwithin = \"recordings\"\n[[stage]]\n\
             kind = \"kmeans\"\nk = 1\n[sink]\npath = {:?}\n",
            dir.path().join("in").display().to_string(),
            dir.path().join("out").display().to_string()
        );
        let plan = PipelineFile::parse("t.toml", &toml, &[], &|_| None).unwrap_or_else(|e| panic!("{e}")).plan;
        Pipeline::new(plan).unwrap().run(&RunOptions::default()).await.unwrap_err().to_string()
    };
    let said = says("").await;
    let parts =
        ["no rows to learn from", "the first row set aside is ", "a.csv:2: column \"x\": \"1,5\"", "decimal = \",\""];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    // For a time as well, the error names the key that would read it.
    write(dir.path(), "in/a.csv", "t;x\n0,00;1\n0,02;2\n0,04;3\n0,06;4\n");
    let said = says("time = \"t\"").await;
    let parts = ["a.csv:2: column \"t\": \"0,00\" is not a time", "decimal = \",\" reads a comma"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}
