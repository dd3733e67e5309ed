//! Targets: sensor recordings, CSV and the HAPT layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{BadRows, CsvSpec, HaptSpec, OnBadRow, SourceOptions, SourceSpec, TimeColumn, TimeUnit, open};
use dacpipe::{Kind, column};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::test_runner::TestCaseError;
use tempfile::TempDir;

use super::damage::damaged;
use super::{Verdict, fuzz, wait};

/// Keywords in text tables of numbers.
const WORDS: &[&str] = &[
    ",",
    ";",
    "\t",
    " ",
    "\"",
    "\"\"",
    "'",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\0",
    "\u{feff}",
    "\u{fffd}",
    "ü",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "-",
    "+",
    ".",
    "1.",
    ".5",
    "1,5",
    "0x10",
    "99999999999999999999",
    "-9223372036854775808",
    "1e308",
    "2024-01-01T00:00:00Z",
    "12:00:00",
    "#",
    "sep=;",
    "NULL",
    "a",
    "b",
    "time",
];

/// Two machines with forty samples each at 50 Hz, with two labels.
fn csv() -> Vec<u8> {
    let mut text = String::from("machine,time,x,y,state\n");
    for machine in ["a", "b"] {
        for i in 0..40 {
            let state = if i < 20 { "on" } else { "off" };
            text += &format!("{machine},{},{}.5,-{}e-1,{state}\n", 20 * i, i, i * 3);
        }
    }
    text.into_bytes()
}

fn spec(path: &Path) -> SourceSpec {
    let mut spec = CsvSpec::new(path.display().to_string(), &["x", "y"]);
    spec.time = Some(TimeColumn { column: "time".into(), unit: TimeUnit::Ms });
    spec.rate_hz = Some(50.0);
    spec.keys = vec!["machine".into()];
    spec.label = Some("state".into());
    SourceSpec::Csv(spec)
}

fn options(bad: OnBadRow) -> SourceOptions {
    let window = Some(WindowSpec { length: 8, stride: 4, within: Within::Recordings });
    SourceOptions { window, on_bad_row: bad, ..Default::default() }
}

/// All rows, in batches of `batch_size`.
async fn read(spec: &SourceSpec, options: &SourceOptions, batch_size: usize) -> dacpipe::Result<RecordBatch> {
    let source = open(spec, options, Arc::new(BadRows::new())).await?;
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_size);
    let batches = SessionContext::new_with_config(config).read_table(source.provider.clone())?.collect().await?;
    Ok(arrow::compute::concat_batches(&source.provider.schema(), &batches)?)
}

/// What must hold for a source, whatever damage its files have.
fn hold(spec: &SourceSpec) -> Verdict {
    for bad in [OnBadRow::Fail, OnBadRow::Quarantine] {
        let rows = match wait(read(spec, &options(bad), 8192)) {
            Ok(rows) => rows,
            Err(e) if e.kind() == Kind::Input => continue,
            Err(e) => return Err(TestCaseError::fail(format!("{:?}: {e}", e.kind()))),
        };
        let (features, _) = column::values(&rows, "features").map_err(|e| TestCaseError::fail(e.to_string()))?;
        let all_finite = features.narrow().iter().all(|value| value.is_finite());
        proptest::prop_assert!(all_finite, "a feature that is not finite");
        let keys: Vec<usize> = (0..rows.num_columns()).filter(|&c| is_key(rows.schema().field(c).name())).collect();
        let format = FormatOptions::default();
        let shown: Vec<ArrayFormatter<'_>> = keys
            .iter()
            .map(|&column| ArrayFormatter::try_new(rows.column(column), &format))
            .collect::<Result<_, _>>()
            .map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut seen = BTreeSet::new();
        for row in 0..rows.num_rows() {
            let key: Vec<String> = shown.iter().map(|column| column.value(row).to_string()).collect();
            proptest::prop_assert!(seen.insert(key.clone()), "two rows with the key {:?}", key);
        }
        proptest::prop_assert!(rows["start"].as_primitive::<Int64Type>().values().iter().all(|&start| start >= 0));
        let again = wait(read(spec, &options(bad), 3)).map_err(|e| TestCaseError::fail(e.to_string()))?;
        proptest::prop_assert_eq!(&again, &rows, "another batch size gives other rows");
    }
    Ok(())
}

fn is_key(name: &str) -> bool {
    ["machine", "experiment", "user", "start"].contains(&name)
}

#[test]
fn damaged_csv() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, csv()).unwrap();
    let whole = wait(read(&spec(&path), &options(OnBadRow::Fail), 8192)).unwrap();
    assert_eq!(whole.num_rows(), 2 * 9);
    fuzz("csv", damaged(csv(), WORDS), |bytes| {
        fs::write(&path, bytes)?;
        hold(&spec(&path))
    });
}

/// Damage to the first machine leaves every window of the second, whose lines follow, as long as none of these is
/// damaged: an unclosed quote or a wrong byte affects only its neighbourhood, not the rest of the file.
#[test]
fn damage_to_one_recording_leaves_the_other() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.csv");
    let text = String::from_utf8(csv()).unwrap();
    let header = text.find('\n').unwrap() + 1;
    let second = text.find("\nb,").unwrap() + 1;
    let names = [&text[..header], &text[second..]].concat();
    fs::write(&path, names).unwrap();
    let expected = wait(read(&spec(&path), &options(OnBadRow::Fail), 8192)).unwrap();
    assert_eq!(expected.num_rows(), 9);
    // Words that would move a line to another machine, and quotes, which may correctly contain line breaks, are left
    // out.
    const NUMBERS: &[&str] = &["nan", "inf", "-", "1e400", "0x10", ".", "12:00:00", "99999999999999999999", "\0", "ü"];
    let first = text.as_bytes()[header..second - 1].to_vec();
    fuzz("csv, one recording", damaged(first, NUMBERS), |bytes| {
        if bytes.contains(&b'"') || bytes.contains(&b'b') {
            return Ok(());
        }
        let file = [&text.as_bytes()[..header], &bytes, b"\n", &text.as_bytes()[second..]].concat();
        fs::write(&path, file)?;
        let rows = match wait(read(&spec(&path), &options(OnBadRow::Quarantine), 8192)) {
            Ok(rows) => rows,
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        };
        let of_second = |rows: &RecordBatch| {
            let mask = rows["machine"].as_string::<i32>().iter().map(|m| Some(m == Some("b"))).collect();
            arrow::compute::filter_record_batch(rows, &mask).map_err(|e| TestCaseError::fail(e.to_string()))
        };
        proptest::prop_assert_eq!(of_second(&rows)?, expected.clone());
        Ok(())
    });
}

#[test]
fn damaged_hapt() {
    let dir = TempDir::new().unwrap();
    let raw = dir.path().join("RawData");
    fs::create_dir_all(&raw).unwrap();
    let line = |i: usize| format!("{}.5 {:e} -0.{i:02}\n", i, i as f64 / 7.0);
    let samples: String = (0..40).map(line).collect();
    let files = [
        ("acc_exp01_user01.txt", samples.clone()),
        ("gyro_exp01_user01.txt", samples.clone()),
        ("labels.txt", "1 1 5 1 18\n1 1 4 19 40\n".to_string()),
    ];
    let spec = SourceSpec::Hapt(HaptSpec { path: dir.path().display().to_string() });
    for (name, text) in &files {
        fs::write(raw.join(name), text).unwrap();
    }
    assert_eq!(wait(read(&spec, &options(OnBadRow::Fail), 8192)).unwrap().num_rows(), 9);
    for (name, text) in &files {
        fuzz(&format!("hapt, {name}"), damaged(text.clone().into_bytes(), WORDS), |bytes| {
            fs::write(raw.join(name), bytes)?;
            hold(&spec)
        });
        fs::write(raw.join(name), text).unwrap();
    }
}
