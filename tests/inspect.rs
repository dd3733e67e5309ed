//! `dacpipe inspect`: the section that it suggests for a file reads every good row of it; and files that are not tables
//! are recognised.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::Float64Type;
use dacpipe::Kind;
use dacpipe::config::PipelineFile;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::inspect::{Inspection, configured, inspect};
use dacpipe::source::{
    BadRows, CsvSpec, Features, HaptSpec, OnBadRow, ParquetSpec, SourceOptions, SourceSpec, TimeColumn, TimeUnit, open,
};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use tempfile::TempDir;

/// The result of reading a source with the suggested section: its spec, the good rows and the bad ones.
struct Suggested {
    found: Inspection,
    spec: SourceSpec,
    good: usize,
    bad: Vec<String>,
}

/// Inspects `path` and reads it with the suggested section.
async fn suggested(path: &Path) -> Suggested {
    let found = inspect(&path.display().to_string(), 5).await.unwrap();
    let section = found.source.clone().unwrap_or_else(|| panic!("no section: {found:?}"));
    let dir = TempDir::new().unwrap();
    let window = match section.contains("kind = \"parquet\"") {
        true => "",
        false => "[[stage]]\nkind = \"window\"\nlength = 4\nstride = 4\n\n",
    };
    let sink = dir.path().join("out").display().to_string();
    let pipeline = format!(
        "name = \"inspected\"\n\n{section}\n{window}[[stage]]\nkind = \"kmeans\"\nk = 2\n\n[sink]\npath = {sink:?}\n"
    );
    let file = dir.path().join("pipeline.toml");
    fs::write(&file, &pipeline).unwrap();
    let spec = match PipelineFile::load(&file, &[]) {
        Ok(loaded) => loaded.plan.source,
        Err(problems) => panic!("{pipeline}\n{}", problems.render(false)),
    };
    let window = (!matches!(spec, SourceSpec::Parquet(_))).then_some(WindowSpec {
        length: 1,
        stride: 1,
        within: Within::Recordings,
    });
    let options = SourceOptions { window, on_bad_row: OnBadRow::Quarantine, ..Default::default() };
    let bad = Arc::new(BadRows::new());
    let source = open(&spec, &options, bad.clone()).await.unwrap_or_else(|e| panic!("{pipeline}\n{e}"));
    let frame = SessionContext::new().read_table(source.provider).unwrap();
    let good = frame.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum();
    let bad = bad.rows().into_iter().map(|row| format!("{}: {}", row.line, row.reason)).collect();
    Suggested { found, spec, good, bad }
}

impl Suggested {
    fn csv(&self) -> &CsvSpec {
        let SourceSpec::Csv(spec) = &self.spec else { panic!("{:?}", self.spec) };
        spec
    }

    fn section(&self) -> &str {
        self.found.source.as_deref().unwrap_or_default()
    }

    fn fact(&self, about: &str) -> &str {
        self.found.facts.iter().find(|fact| fact.about == about).map_or("", |fact| &fact.found)
    }

    fn notes(&self) -> String {
        self.found.notes.join("\n")
    }

    /// Every row is good, and the section has exactly these lines after kind and path, without comments.
    fn reads(&self, rows: usize, lines: &[&str]) {
        let said: Vec<&str> =
            self.section().lines().skip(3).map(|line| line.split("  # ").next().unwrap_or_default()).collect();
        assert_eq!(said, lines, "{}\n{:?}", self.section(), self.found.facts);
        assert_eq!((self.good, &self.bad[..]), (rows, &[][..]), "{}\n{:?}", self.section(), self.found.facts);
        assert!(self.fact("tried").contains("are good"), "{:?} {:?}", self.found.facts, self.found.notes);
        assert!(!self.fact("tried").contains(" bad ("), "{:?}", self.found.facts);
    }
}

impl Suggested {
    /// Every row is good, and the section has these lines among others, without comments.
    fn reads_with(&self, rows: usize, lines: &[&str]) {
        let said: Vec<&str> =
            self.section().lines().map(|line| line.split("  # ").next().unwrap_or_default()).collect();
        for line in lines {
            assert!(said.contains(line), "{line}: {}\n{:?}", self.section(), self.found.facts);
        }
        assert_eq!((self.good, &self.bad[..]), (rows, &[][..]), "{}\n{:?}", self.section(), self.found.facts);
    }
}

/// The section for a file of these bytes, tried.
async fn of(name: &str, bytes: impl AsRef<[u8]>) -> Suggested {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    suggested(&path).await
}

/// `count` lines behind a header.
fn lines(header: &str, count: usize, line: impl Fn(usize) -> String) -> String {
    header.to_string() + &(0..count).map(|i| line(i) + "\n").collect::<String>()
}

/// A value of a channel that is no counter.
fn wave(i: usize) -> f64 {
    ((i * 37) % 101) as f64 / 8.0 - 3.0
}

#[tokio::test]
async fn a_plain_file() {
    let text = lines("machine,time,x,y,state\n", 80, |i| {
        let state = if i % 40 < 20 { "idle" } else { "busy" };
        format!("m{},{:.2},{},{},{state}", i / 40, (i % 40) as f64 * 0.02, wave(i), wave(i + 3))
    });
    let found = of("a.csv", &text).await;
    let expected = [
        "channels = [\"x\", \"y\"]",
        "time = \"time\"",
        "time_unit = \"s\"",
        "keys = [\"machine\"]",
        "label = \"state\"",
    ];
    found.reads(80, &expected);
    assert!(found.fact("times").starts_with("50 Hz"), "{}", found.fact("times"));
    assert!(found.fact("recordings").starts_with("2 by \"machine\", one after the other"), "{:?}", found.found.facts);
    assert_eq!((found.fact("encoding"), found.fact("header"), found.fact("rows")), ("utf-8", "on line 1", "80"));
    assert_eq!(found.found.first_rows[0], ["m0", "0.00", "-3", "-1.75", "idle"]);
}

#[tokio::test]
async fn semicolons_and_decimal_commas() {
    let comma = |value: f64| value.to_string().replace('.', ",");
    let text = lines("Zeit;Druck;Temperatur\n", 60, |i| {
        format!("{};{};{}", comma(i as f64 * 0.5), comma(wave(i)), comma(wave(i + 7)))
    });
    let found = of("a.csv", &text).await;
    let expected =
        ["channels = [\"Druck\", \"Temperatur\"]", "time = \"Zeit\"", "time_unit = \"s\"", "decimal = \",\""];
    found.reads(60, &expected);
    assert!(found.fact("times").starts_with("2 Hz"), "{}", found.fact("times"));
}

#[tokio::test]
async fn a_logger_with_lines_before_and_units_behind_its_header() {
    let head = "\"TOA5\",\"station\",\"CR1000\",\"12\"\n\"TIMESTAMP\",\"RECORD\",\"Temp\",\"Volt\"\n\
                \"TS\",\"RN\",\"Deg C\",\"V\"\n\"\",\"\",\"Avg\",\"Smp\"\n";
    let text = lines(head, 50, |i| format!("\"2024-01-31 12:00:{:02}\",{},{},{}", i, i + 100, wave(i), wave(i + 1)));
    let found = of("a.dat", &text).await;
    found.reads(50, &["channels = [\"Temp\", \"Volt\"]", "time = \"TIMESTAMP\"", "skip_after_header = 2"]);
    assert_eq!(found.fact("header"), "on line 2, and 2 rows of units and the like behind it");
    assert!(found.fact("times").starts_with("1 Hz"), "{}", found.fact("times"));
}

#[tokio::test]
async fn a_long_preamble_and_comments() {
    let preamble: String = (0..100).map(|i| format!("setting {i}\n")).collect();
    let text = lines(&(preamble + "# a comment\nt_ms,x\n"), 60, |i| format!("{},{}", i * 10, wave(i)));
    let found = of("a.csv", &text).await;
    let expected =
        ["channels = [\"x\"]", "time = \"t_ms\"", "time_unit = \"ms\"", "comment = \"#\"", "skip_lines = 101"];
    found.reads(60, &expected);
}

#[tokio::test]
async fn times_of_several_kinds() {
    let iso = lines("when,time,x\n", 40, |i| format!("a,2024-01-31T12:00:{:02}.{}Z,{}", i / 10, i % 10, wave(i)));
    let found = of("iso.csv", &iso).await;
    found.reads(40, &["channels = [\"x\"]", "time = \"time\""]);
    assert!(found.fact("times").starts_with("10 Hz"), "{}", found.fact("times"));
    let epoch = lines("timestamp,x\n", 40, |i| format!("{},{}", 1_700_000_000_000u64 + 20 * i as u64, wave(i)));
    let found = of("epoch.csv", &epoch).await;
    found.reads(40, &["channels = [\"x\"]", "time = \"timestamp\""]);
    assert!(found.fact("times").starts_with("50 Hz"), "{}", found.fact("times"));
    let dates = lines("Datum,x\n", 40, |i| format!("31/01/2024 12:00:{i:02},{}", wave(i)));
    let found = of("dates.csv", &dates).await;
    found.reads(40, &["channels = [\"x\"]", "time = \"Datum\"", "time_format = \"%d/%m/%Y %H:%M:%S%.f\""]);
    let clock = lines("Date,Time,x\n", 40, |i| format!("2024-01-31,12:00:{i:02},{}", wave(i)));
    of("clock.csv", &clock).await.reads(40, &["channels = [\"x\"]", "time = \"Time\""]);
}

#[tokio::test]
async fn encodings() {
    let text = lines("t\tÖl\n", 40, |i| format!("{}\t{}", i * 20, wave(i)));
    let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let read = ["channels = [\"Öl\"]", "time = \"t\"", "time_unit = \"ms\"", "delimiter = \"tab\""];
    let found = of("marked.txt", &utf16).await;
    found.reads(40, &read);
    assert_eq!(found.fact("encoding"), "utf-16, as the mark at its start says");
    let unmarked = of("unmarked.txt", &utf16[2..]).await;
    unmarked.reads(40, &[&read[..3], &["encoding = \"utf-16le\""], &read[3..]].concat());
    let latin: Vec<u8> = lines("ort,t,grad\n", 40, |i| format!("K\u{f6}ln,{},{}", i * 20, wave(i)))
        .chars()
        .map(|c| u32::from(c) as u8)
        .collect();
    let found = of("latin.csv", &latin).await;
    let expected =
        ["channels = [\"grad\"]", "time = \"t\"", "time_unit = \"ms\"", "keys = [\"ort\"]", "encoding = \"latin-1\""];
    found.reads(40, &expected);
    assert_eq!(found.found.first_rows[0][0], "Köln");
}

#[tokio::test]
async fn names_that_are_missing_or_there_twice() {
    let key = lines("machine,machine,t,x\n", 40, |i| format!("a,{},{},{}", i % 7, i * 20, wave(i)));
    assert_eq!(of("key.csv", &key).await.csv().keys, ["column_1"]);
    let found = of("none.csv", lines("", 40, |i| format!("{},{},{}", i * 20, wave(i), wave(i + 5)))).await;
    let expected =
        ["channels = [\"column_2\", \"column_3\"]", "time = \"column_1\"", "time_unit = \"ms\"", "header = false"];
    found.reads(40, &expected);
    let twice = lines("about this\nt,x,x\n", 40, |i| format!("{},{},{}", i * 20, wave(i), wave(i + 5)));
    let found = of("twice.csv", &twice).await;
    let expected = ["channels = [\"column_2\", \"column_3\"]", "time = \"t\"", "time_unit = \"ms\"", "skip_lines = 1"];
    found.reads(40, &expected);
    assert!(found.notes().contains("several columns are named \"x\""), "{}", found.notes());
}

#[tokio::test]
async fn rows_that_end_with_a_semicolon() {
    let text = lines("", 80, |i| {
        let activity = if i % 40 < 20 { "Jogging" } else { "Walking" };
        format!(
            "{},{activity},{},{},{};",
            33 + i / 40,
            49_105_962_326_000u64 + 50_000_000 * i as u64,
            wave(i),
            wave(i + 9)
        )
    });
    let found = of("wisdm.txt", &text).await;
    let expected = [
        "channels = [\"column_4\", \"column_5\"]",
        "time = \"column_3\"",
        "time_unit = \"ns\"",
        "keys = [\"column_1\"]",
        "label = \"column_2\"",
        "row_end = \";\"",
        "header = false",
    ];
    found.reads(80, &expected);
    assert!(found.fact("times").starts_with("20 Hz"), "{}", found.fact("times"));
}

#[tokio::test]
async fn white_space_and_compression() {
    let text = lines("  t     x\n", 60, |i| format!("  {:.1}   {:>8}", i as f64 * 0.1, wave(i)));
    let read = ["channels = [\"x\"]", "time = \"t\"", "time_unit = \"s\"", "delimiter = \"whitespace\""];
    of("a.txt", &text).await.reads(60, &read);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    of("a.txt.gz", packed.finish().unwrap()).await.reads(60, &read);
}

#[tokio::test]
async fn recordings_that_take_turns() {
    let text = lines("device,t,x\n", 90, |i| format!("d{},{},{}", i % 3, i / 3 * 20, wave(i)));
    let found = of("a.csv", &text).await;
    found.reads(90, &["channels = [\"x\"]", "time = \"t\"", "time_unit = \"ms\"", "keys = [\"device\"]"]);
    assert!(found.fact("recordings").contains("they take turns"), "{}", found.fact("recordings"));
}

#[tokio::test]
async fn times_that_are_not_as_they_should_be() {
    let swapped = |i: usize| {
        if i % 10 == 4 {
            i + 1
        } else if i % 10 == 5 {
            i - 1
        } else {
            i
        }
    };
    let found = of("order.csv", lines("t,x\n", 60, |i| format!("{},{}", swapped(i) * 20, wave(i)))).await;
    assert_eq!((found.good, found.csv().rules.disorder), (60, 1.into()), "{}", found.section());
    let found = of("packed.csv", lines("t,x\n", 64, |i| format!("{},{}", i / 8 * 80, wave(i)))).await;
    assert!(found.section().contains("same_time = \"spread\""), "{}", found.section());
    assert_eq!((found.good, found.bad.len()), (64, 0));
    let found = of("again.csv", lines("t,x\n", 60, |i| format!("{},{}", (i - i / 20) * 20, wave(i - i / 20)))).await;
    assert!(found.section().contains("repeated = \"drop\""), "{}", found.section());
    assert_eq!((found.good, found.bad.len()), (58, 0));
    let uneven = of("uneven.csv", lines("t,x\n", 60, |i| format!("{},{}", i * 20 + i % 2 * 5, wave(i)))).await;
    assert!(uneven.csv().rules.jitter.is_some(), "{}", uneven.section());
    assert_eq!((uneven.good, uneven.bad.len()), (60, 0));
    let gaps = of("gaps.csv", lines("t,x\n", 60, |i| format!("{},{}", (i + i / 20 * 30) * 20, wave(i)))).await;
    gaps.reads(60, &["channels = [\"x\"]", "time = \"t\"", "time_unit = \"ms\""]);
    assert!(gaps.fact("times").contains("2 gaps, of 620 ms at most"), "{}", gaps.fact("times"));
}

#[tokio::test]
async fn bad_rows_and_missing_values_are_said() {
    let text = lines("t,x,y\n", 60, |i| match i {
        7 => "140,?,1".into(),
        9 => "180".into(),
        _ => format!("{},{},{}", i * 20, wave(i), wave(i + 1)),
    });
    let found = of("bad.csv", &text).await;
    assert_eq!((found.good, found.bad.len()), (58, 2));
    assert_eq!(found.fact("tried"), "58 rows that were looked at are good, 2 bad (3.3 %)");
    assert!(found.notes().contains("bad.csv:9: ") && found.notes().contains("\"?\""), "{}", found.notes());
    let slow = lines("t,x,y\n", 60, |i| {
        let y = if i % 4 == 0 { wave(i).to_string() } else { String::new() };
        format!("{},{},{y}", i * 20, wave(i))
    });
    let found = of("slow.csv", &slow).await;
    assert!(found.section().contains("fill = \"hold\""), "{}", found.section());
    assert_eq!((found.good, found.bad.len()), (60, 0));
    let few = lines("t,x\n", 60, |i| if i == 8 { "160,".into() } else { format!("{},{}", i * 20, wave(i)) });
    assert!(of("few.csv", &few).await.notes().contains("missing in 1 of 60 rows"));
}

/// A directory of files.
fn directory(files: &[(&str, String)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[tokio::test]
async fn keys_that_come_back_in_other_files() {
    let part =
        |from: usize| lines("pump,t,x\n", 40, move |i| format!("p{},{},{}", i / 20, (from + i % 20) * 20, wave(i)));
    let days = directory(&[("day1.csv", part(0)), ("day2.csv", part(20))]);
    let found = suggested(days.path()).await;
    assert!(found.section().contains("across_files = \"continue\""), "{}", found.section());
    assert_eq!((found.good, found.bad.len(), found.found.files), (80, 0, 2), "{:?}", found.bad);
    let same = directory(&[("a.csv", part(0)), ("b.csv", part(0))]);
    let found = suggested(same.path()).await;
    assert_eq!(found.csv().keys, ["pump", "file"]);
    assert_eq!((found.good, found.bad.len()), (80, 0), "{:?}", found.bad);
    assert!(found.notes().contains("keys come back in other files: \"p0\" in "), "{}", found.notes());
}

#[tokio::test]
async fn recordings_at_several_rates() {
    let at = |step: usize| lines("t,x\n", 60, move |i| format!("{},{}", i * step, wave(i)));
    let dir = directory(&[("a.csv", at(20)), ("b.csv", at(20)), ("c.csv", at(40))]);
    let found = suggested(dir.path()).await;
    assert_eq!(found.fact("rates"), "recordings differ: 50 Hz (2), 25 Hz (1)");
    assert!(found.csv().rules.resample && found.bad.is_empty(), "{:?}", found.bad);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_said_and_the_others_are_looked_at() {
    let text = lines("t,x\n", 40, |i| format!("{},{}", i * 20, wave(i)));
    let dir = directory(&[("a.csv", String::new()), ("b.csv", text)]);
    let found = suggested(dir.path()).await;
    assert!(found.notes().contains("1 files cannot be read, the first: "), "{}", found.notes());
    assert!(found.notes().contains("a.csv: empty"), "{}", found.notes());
    assert_eq!((found.good, found.bad.len()), (40, 1), "{:?}", found.bad);
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_looked_at_up_to_there() {
    let text = lines("t,x\n", 20_000, |i| format!("{},{}", i * 20, wave(i)));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    let mut packed = packed.finish().unwrap();
    packed.truncate(packed.len() / 2);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.csv.gz");
    fs::write(&path, packed).unwrap();
    let found = inspect(&path.display().to_string(), 5).await.unwrap();
    assert!(found.source.is_some() && found.notes[0].contains("ends early: "), "{found:?}");
    assert!(found.facts.iter().any(|fact| fact.found.ends_with("before it is damaged")), "{found:?}");
}

#[tokio::test]
async fn a_block_that_was_lost_is_some_bad_rows() {
    let text = lines("t,x\n", 60, |i| match i {
        20 => "\0".repeat(512),
        _ => format!("{},{}", i * 20, wave(i)),
    });
    let found = of("a.csv", &text).await;
    assert_eq!((found.good, found.bad.len()), (59, 1), "{:?}", found.bad);
}

#[tokio::test]
async fn files_whose_columns_differ() {
    let of = |header: &str| lines(header, 40, |i| format!("{},{},{}", i * 20, wave(i), wave(i + 1)));
    let dir = directory(&[("a.csv", of("t,x,y\n")), ("b.csv", of("t,x,z\n")), ("c.csv", of("t,y,x\n"))]);
    let found = suggested(dir.path()).await;
    assert!(found.notes().contains("1 of 3 files have other columns than the first: "), "{}", found.notes());
    assert!(found.notes().contains("b.csv lacks \"y\" and has \"z\" as well"), "{}", found.notes());
    assert_eq!((found.good, found.bad.len()), (80, 1));
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(count: usize, text: impl Fn(usize) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..count).map(text)))
}

fn numbers(count: usize, plus: usize) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values((0..count).map(|i| wave(i + plus))))
}

#[tokio::test]
async fn parquet_of_vectors() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let vectors = (0..30).map(|i| Some([Some(wave(i)), Some(wave(i + 1)), Some(wave(i + 2))]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(vectors));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..30).map(|i| 7 * i)));
    let classes = texts(30, |i| format!("c{}", i % 3));
    write_parquet(&path, vec![("id", ids.clone()), ("embedding", lists), ("class", classes.clone())]);
    let found = suggested(&path).await;
    found.reads(30, &["features = \"embedding\"", "keys = [\"id\"]", "label = \"class\""]);
    let split = texts(30, |i| if i < 20 { "train".into() } else { "test".into() });
    write_parquet(
        &path,
        vec![("id", ids), ("a", numbers(30, 0)), ("b", numbers(30, 4)), ("class", classes), ("part", split)],
    );
    let found = suggested(&path).await;
    let expected = ["features = [\"a\", \"b\"]", "keys = [\"id\"]", "label = \"class\"", "split = \"part\""];
    found.reads(30, &expected);
    let SourceSpec::Parquet(spec) = &found.spec else { panic!("{:?}", found.spec) };
    assert_eq!(spec.features, Features::Columns(vec!["a".into(), "b".into()]));
}

#[tokio::test]
async fn parquet_of_samples() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let times = TimestampMillisecondArray::from_iter_values((0..60).map(|i| 1_700_000_000_000 + 20 * (i % 30)));
    let machines = texts(60, |i| format!("m{}", i / 30));
    write_parquet(
        &path,
        vec![("machine", machines), ("time", Arc::new(times)), ("x", numbers(60, 0)), ("y", numbers(60, 5))],
    );
    let found = suggested(&path).await;
    found.reads(60, &["channels = [\"x\", \"y\"]", "time = \"time\"", "keys = [\"machine\"]"]);
    assert!(found.fact("times").starts_with("50 Hz"), "{}", found.fact("times"));
}

/// Keys and rates of files after the first count, too.
#[tokio::test]
async fn parquet_of_samples_in_several_files() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, from: i64, step: i64| {
        let times = TimestampMillisecondArray::from_iter_values((0..40).map(|i| from + step * i));
        let machines = texts(40, |i| format!("m{}", i / 20));
        write_parquet(
            &dir.path().join(name),
            vec![("machine", machines), ("time", Arc::new(times)), ("x", numbers(40, 0)), ("y", numbers(40, 5))],
        );
    };
    write("1.parquet", 1_700_000_000_000, 20);
    write("2.parquet", 1_700_000_100_000, 20);
    let found = suggested(dir.path()).await;
    found.reads_with(80, &["keys = [\"machine\"]", "across_files = \"continue\""]);
    assert!(found.notes().contains("keys come back in other files"), "{}", found.notes());
    write("3.parquet", 1_700_000_200_000, 40);
    let found = suggested(dir.path()).await;
    assert!(found.section().contains("resample = true") && found.fact("rates").contains("25 Hz"), "{:?}", found.found);
}

#[tokio::test]
async fn signs_and_quotes_of_other_kinds() {
    let quoted = lines("t,x,note\n", 40, |i| format!("{},\"1,{:03}.5\",'n'", i * 20, i % 7));
    let found = of("a.csv", quoted).await;
    found.reads_with(40, &["thousands = \",\"", "channels = [\"x\"]"]);
    let single = lines("t;x;note\n", 40, |i| format!("{};1.00{},5;'a; b'", i * 20, i % 7));
    let found = of("a.csv", single).await;
    found.reads_with(40, &["quote = \"'\"", "decimal = \",\"", "thousands = \".\""]);
    assert!(found.fact("format").contains("' around fields"), "{}", found.fact("format"));
    let escaped = lines("t,x,note\n", 40, |i| format!("{},{},\"say \\\"{}\\\", you\"", i * 20, wave(i), i % 3));
    let found = of("a.csv", escaped).await;
    found.reads_with(40, &["escape = \"\\\\\"", "channels = [\"x\"]"]);
    assert_eq!(found.found.first_rows[1][2], "say \"1\", you");
    let named = lines("# a logger\n# t,x\n", 40, |i| format!("{},{}", i * 20, wave(i)));
    let found = of("a.csv", named).await;
    found.reads_with(40, &["time = \"# t\"", "channels = [\"x\"]"]);
    let pause = lines("# t x\n", 40, |i| format!("{} {}", i * 20, wave(i)));
    let found = of("a.txt", pause).await;
    assert!(found.notes().contains("the comment on line 1 seems to name the columns"), "{}", found.notes());
    found.reads_with(40, &["comment = \"#\"", "header = false"]);
}

#[tokio::test]
async fn hapt_directories() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt");
    let found = inspect(&path.display().to_string(), 5).await.unwrap();
    assert!(found.source.unwrap().starts_with("[source]\nkind = \"hapt\"\npath = "));
}

#[tokio::test]
async fn what_is_no_file_of_values_is_named() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("none")).unwrap();
    for (name, bytes, what) in [
        ("a.csv", &b"<!DOCTYPE html><html>"[..], "web page"),
        ("b.csv", b"\x89PNG\r\n\x1a\n\0\0", "an image"),
        ("c.csv", b"", "empty"),
        ("d.csv", b"PK\x03\x04", "zip"),
        ("e.csv", b"nothing, but\nwords, here\n", "no line has a number"),
        ("f.parquet", b"PAR1 and not more", "not a readable Parquet file"),
        ("g.csv", &[0; 5000], "NUL bytes"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let e = inspect(&path.display().to_string(), 5).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Input, "{name}: {e}");
        assert!(e.to_string().contains(what) && e.to_string().contains(name), "{name}: {e}");
    }
    for path in [dir.path().join("none"), dir.path().join("missing.csv"), "/dev/null".into()] {
        assert_eq!(inspect(&path.display().to_string(), 5).await.unwrap_err().kind(), Kind::Input, "{path:?}");
    }
}

#[tokio::test]
async fn only_the_start_of_a_large_file_is_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("large.csv");
    let mut text = lines("t,x\n", 300_000, |i| format!("{},{:.3}", i * 20, wave(i) + 1e6));
    text += "damage behind the start,\"\n";
    assert!(text.len() > 4 << 20);
    fs::write(&path, &text).unwrap();
    let found = inspect(&path.display().to_string(), 2).await.unwrap();
    let rows = &found.facts.iter().find(|fact| fact.about == "rows").unwrap().found;
    assert!(rows.contains("in its first 4 MiB"), "{rows}");
    assert!(found.facts.iter().any(|fact| fact.found.ends_with("are good")), "{:?}", found.facts);
    assert_eq!(found.first_rows.len(), 2);
}

#[test]
fn the_command_shows_it_to_people_and_to_programs() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
        let out = command.arg("inspect").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, page, _) = run(&["examples/data/pump.csv"]);
    assert_eq!(code, Some(0));
    for part in ["columns\n", "first rows\n", "[source]\nkind = \"csv\"\npath = \"examples/data/pump.csv\"\n"] {
        assert!(page.contains(part), "{page}");
    }
    let (code, json, _) = run(&["examples/data/pump.csv", "--json", "--rows", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["first_rows"].as_array().map(Vec::len)), (Some(0), Some(1)));
    assert!(page.ends_with(json["source"].as_str().unwrap()), "{page}");
    let dir = directory(&[("a.csv", "t,\u{1b}[31mx\n0,1\n1,2\n2,1\n".into())]);
    let (code, page, _) = run(&[&dir.path().join("a.csv").display().to_string()]);
    assert!(code == Some(0) && !page.contains('\u{1b}'), "{page}");
    let (code, page, said) = run(&["no-such-file.csv"]);
    assert!(code == Some(4) && page.is_empty() && said.contains("no-such-file.csv"), "{said}");
}

/// A directory with `a.csv` and a pipeline over it, whose `[source]` has these keys beside kind and path.
fn pipeline_over(text: &str, keys: &str) -> TempDir {
    let dir = directory(&[("a.csv", text.into())]);
    let pipeline = format!(
        "name = \"t\"\n[source]\nkind = \"csv\"\npath = \"a.csv\"\n{keys}\n[[stage]]\nkind = \"window\"\nlength = 4\n\
         stride = 4\n[[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\n"
    );
    fs::write(dir.path().join("t.toml"), pipeline).unwrap();
    dir
}

/// The result of `dacpipe check t.toml --data` with `more` arguments: exit code, stdout, stderr.
fn check_data(dir: &TempDir, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    let out = command.args(["check", "t.toml", "--data"]).args(more).current_dir(dir.path()).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// `dacpipe check --data` reports how the configured source reads its data, not what would be guessed.
#[test]
fn check_shows_what_was_understood_of_the_configured_source() {
    let text =
        lines("zeit;wert;gerät;note\n", 80, |i| format!("{};{},5;g{};n{i}", i * 20, i % 7, i / 40)) + "x;y;g1;\n";
    let keys = "channels = [\"wert\"]\ntime = \"zeit\"\ntime_unit = \"ms\"\nkeys = [\"gerät\"]\ndecimal = \",\"\n\
                keep = [\"note\"]";
    let dir = pipeline_over(&text, keys);
    let (code, page, said) = check_data(&dir, &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{page}");
    for part in [
        "t.toml: ok",
        "text, \";\" between fields, decimal commas",
        "encoding    utf-8",
        "2 by \"gerät\", one after the other",
        "50 Hz, as most recordings show",
        "80 rows that were looked at are good, 1 bad (1.2 %)",
        "a.csv:82: column \"wert\": \"y\" is not a number",
        "first rows\n",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let cells = |name: &str| {
        let line = page.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    for (name, kind, role) in
        [("zeit", "integer", "time"), ("wert", "number", "channel"), ("gerät", "text", "key"), ("note", "text", "kept")]
    {
        assert_eq!(cells(name), [name, kind, role], "{page}");
    }
    assert!(!page.contains("[source]") && !dir.path().join("out").exists(), "{page}");
    let (code, json, _) = check_data(&dir, &["--json", "--rows", "2"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json[0]["ok"].as_bool()), (Some(0), Some(true)));
    assert_eq!(json[0]["data"]["first_rows"].as_array().map(Vec::len), Some(2));
}

/// Helpful keys are suggested unless the pipeline has them already.
#[test]
fn check_says_which_keys_would_help_and_what_cannot_be_read() {
    let mut rows: Vec<String> = (0..60).map(|i| format!("{},{},", i * 20, i % 7)).collect();
    rows.swap(10, 11);
    rows.swap(30, 31);
    let text = format!("t,x,y\n{}\n", rows.join("\n"));
    let keys = "channels = [\"x\"]\ntime = \"t\"";
    let (_, page, _) = check_data(&pipeline_over(&text, keys), &[]);
    assert!(page.contains("the times are read as seconds, and look like ms: time_unit = \"ms\" says so"), "{page}");
    assert!(page.contains("disorder = 1 would help"), "{page}");
    let keys = "channels = [\"x\"]\ntime = \"t\"\ntime_unit = \"ms\"\ndisorder = 2";
    let (code, page, _) = check_data(&pipeline_over(&text, keys), &[]);
    assert!(code == Some(0) && !page.contains("would help") && !page.contains("to look at"), "{page}");
    // A channel that is not there, and one without a value.
    let wrong = pipeline_over(&text, "channels = [\"z\"]");
    let (code, _, said) = check_data(&wrong, &[]);
    assert!(code == Some(4) && said.contains("t.toml: ") && said.contains("no column \"z\""), "{said}");
    assert_eq!(said.matches("no column").count(), 1, "{said}");
    let (code, json, _) = check_data(&wrong, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json[0]["ok"].as_bool()), (Some(4), Some(false)));
    let (code, _, said) = check_data(&pipeline_over(&text, "channels = [\"y\"]\ndelimiter = \"::\""), &[]);
    assert!(code == Some(3) && said.contains("cannot separate fields"), "{said}");
}

/// The same of vectors, of samples in Parquet, and of HAPT's layout.
#[tokio::test]
async fn what_was_understood_of_other_sources() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("v.parquet");
    let ids = texts(30, |i| format!("r{i}"));
    write_parquet(&path, vec![("id", ids), ("a", numbers(30, 0)), ("b", numbers(30, 3)), ("c", numbers(30, 4))]);
    let spec = ParquetSpec {
        path: path.display().to_string(),
        features: Features::Columns(vec!["a".into(), "b".into()]),
        dim: None,
        label: None,
        keys: vec!["id".into()],
        split: None,
        keep: vec!["c".into()],
    };
    let found = configured(&SourceSpec::Parquet(spec), 2).await.unwrap();
    let roles: Vec<_> = found.columns.iter().map(|column| (column.name.as_str(), column.role.as_str())).collect();
    assert_eq!(roles, [("id", "key"), ("c", "kept"), ("features", "feature")]);
    assert!(found.facts.iter().any(|fact| fact.found == "2: \"a\", \"b\"") && found.source.is_none(), "{found:?}");
    let times = TimestampMillisecondArray::from_iter_values((0..60).map(|i| 1_700_000_000_000 + 20 * i));
    write_parquet(&path, vec![("time", Arc::new(times)), ("x", numbers(60, 0))]);
    let mut spec = CsvSpec::new(path.display().to_string(), &["x"]);
    spec.time = Some(TimeColumn { column: "time".into(), unit: TimeUnit::Auto });
    let found = configured(&SourceSpec::Csv(spec), 2).await.unwrap();
    let fact = |about: &str| found.facts.iter().find(|fact| fact.about == about).map_or("", |fact| &fact.found);
    assert_eq!((fact("rate"), fact("rows")), ("50 Hz, as most recordings show", "60"));
    let hapt = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt").display().to_string();
    let found = configured(&SourceSpec::Hapt(HaptSpec { path: hapt }), 2).await.unwrap();
    assert!(found.facts.iter().any(|fact| fact.found.contains("recordings of 6 channels at 50 Hz")), "{found:?}");
}

/// Bytes like a text table, with damage.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[0-9]{1,4}([.,][0-9]{1,3})?",
        4 => prop::sample::select(vec![",", ";", "\t", " ", "\n", "\r\n", "\r", "|"]).prop_map(String::from),
        1 => prop::sample::select(vec!["t,x\n", "sep=;\n", "#", "\"", "time", "12:00:00", "2024-01-31T12:00:00Z", "NaN", "\0", "é"])
            .prop_map(String::from),
    ];
    let text = prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat().into_bytes());
    let any = prop::collection::vec(any::<u8>(), 0..300);
    (text, any, 0..3u8).prop_map(|(mut text, any, how)| match how {
        0 => text,
        1 => any,
        _ => {
            text.extend(any);
            text
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes are, there is a result or an error that names the file.
    #[test]
    fn any_bytes_get_an_answer(bytes in damaged(), parquet in any::<bool>()) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(if parquet { "a.parquet" } else { "a.csv" });
        let bytes = if parquet { [&b"PAR1"[..], &bytes, b"PAR1"].concat() } else { bytes };
        fs::write(&path, bytes).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        match runtime.block_on(inspect(&path.display().to_string(), 3)) {
            Ok(found) => prop_assert!(found.source.is_none_or(|source| source.parse::<toml::Table>().is_ok())),
            Err(e) => prop_assert!(e.to_string().contains("a."), "{}", e),
        }
    }
}
