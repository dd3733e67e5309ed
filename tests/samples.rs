//! How samples become recordings and windows: times, rates, sorting, and that every sample is accounted for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use dacpipe::column;
use dacpipe::config::PipelineFile;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::samples::{Samples, Unused};
use dacpipe::source::{
    AcrossFiles, BadRows, CsvSpec, Disorder, Fill, HaptSpec, Jitter, OnBadRow, Repeated, SameTime, SampleRules,
    SourceOptions, SourceSpec, TimeColumn, TimeUnit, open,
};
use dacpipe::{Kind, Result};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use tempfile::TempDir;

/// What a source gave.
struct Read {
    /// By key (or file), the starts and the first values of the windows.
    windows: BTreeMap<String, Vec<(i64, f32)>>,
    /// The same for the split `test` only, if there is a split.
    test: BTreeMap<String, Vec<(i64, f32)>>,
    samples: Samples,
    bad: Vec<(u64, String)>,
    rate_hz: f64,
}

impl Read {
    fn starts(&self, key: &str) -> Vec<i64> {
        self.windows.get(key).map(|windows| windows.iter().map(|w| w.0).collect()).unwrap_or_default()
    }

    fn unused(&self) -> Vec<(Unused, u64)> {
        self.samples.unused.iter().map(|(reason, count)| (*reason, *count)).collect()
    }
}

async fn read_in(spec: &CsvSpec, options: &SourceOptions, batch_size: usize) -> Result<Read> {
    read_part(spec, options, batch_size, "SELECT * FROM t").await
}

async fn read_part(spec: &CsvSpec, options: &SourceOptions, batch_size: usize, query: &str) -> Result<Read> {
    let bad = Arc::new(BadRows::new());
    let source = open(&SourceSpec::Csv(spec.clone()), options, bad.clone()).await?;
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_size);
    let context = SessionContext::new_with_config(config);
    context.register_table("t", source.provider.clone())?;
    let batches = context.sql(query).await?.collect().await?;
    let (mut windows, mut test) =
        (BTreeMap::<String, Vec<(i64, f32)>>::new(), BTreeMap::<String, Vec<(i64, f32)>>::new());
    for batch in &batches {
        let (values, dim) = column::values(batch, "features")?;
        let values = values.narrow();
        let starts = batch["start"].as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let key = key_of(batch, &source.keys, row);
            let window = (starts.value(row), values[row * dim]);
            if source.split.as_ref().is_some_and(|split| batch[split.as_str()].as_string::<i32>().value(row) == "test")
            {
                test.entry(key.clone()).or_default().push(window);
            }
            windows.entry(key).or_default().push(window);
        }
    }
    let samples = source.samples().expect("the scan ran to its end");
    assert_eq!(samples.read, samples.in_windows + samples.set_aside + samples.unused(), "{samples}");
    let bad = bad.rows().into_iter().map(|row| (row.line, row.reason)).collect();
    Ok(Read { windows, test, samples, bad, rate_hz: source.rate_hz().unwrap() })
}

fn key_of(batch: &RecordBatch, keys: &[String], row: usize) -> String {
    let values: Vec<&str> = keys.iter().map(|key| batch[key.as_str()].as_string::<i32>().value(row)).collect();
    values.join(",")
}

async fn read(spec: &CsvSpec, options: &SourceOptions) -> Result<Read> {
    read_in(spec, options, 8192).await
}

fn cut(length: usize, stride: usize) -> SourceOptions {
    let window = Some(WindowSpec { length, stride, within: Within::Recordings });
    SourceOptions { window, threads: 2, ..Default::default() }
}

fn quarantine(options: &SourceOptions) -> SourceOptions {
    SourceOptions { on_bad_row: OnBadRow::Quarantine, ..options.clone() }
}

/// Files of a directory, and a source of them with channel `x` and times `t` in milliseconds.
fn files(files: &[(&str, String)]) -> (TempDir, CsvSpec) {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut spec = CsvSpec::new(dir.path().display().to_string(), &["x"]);
    spec.time = Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ms });
    (dir, spec)
}

/// Lines with these times, whose value is their number.
fn lines(times: impl IntoIterator<Item = i64>) -> String {
    let lines = times.into_iter().enumerate().map(|(i, t)| format!("{t},{i}\n"));
    "t,x\n".to_string() + &lines.collect::<String>()
}

fn evenly(count: i64, step: i64) -> impl Iterator<Item = i64> {
    (0..count).map(move |i| i * step)
}

fn rules(spec: &CsvSpec, rules: SampleRules) -> CsvSpec {
    CsvSpec { rules, ..spec.clone() }
}

// ---- times ----

/// The same recording, with a gap behind its twentieth sample, written in every form.
#[tokio::test]
async fn times_of_every_form_show_the_same_recording() {
    let at = |i: i64| 1_706_702_390_000 + 20 * (i + if i < 20 { 0 } else { 100 });
    let iso = |ms: i64| {
        let second = ms / 1000 - 1_706_702_390 + 50;
        format!(
            "2024-01-31T{:02}:{:02}:{:02}.{:03}",
            11 + (59 + second / 60) / 60,
            (59 + second / 60) % 60,
            second % 60,
            ms % 1000
        )
    };
    type Form<'a> = (&'a str, TimeUnit, Option<&'a str>, Box<dyn Fn(i64) -> String + 'a>);
    let forms: Vec<Form> = vec![
        ("s", TimeUnit::Auto, None, Box::new(|ms| format!("{}.{:03}", ms / 1000, ms % 1000))),
        ("ms", TimeUnit::Auto, None, Box::new(|ms| ms.to_string())),
        ("us", TimeUnit::Auto, None, Box::new(|ms| (1000 * ms).to_string())),
        ("ns", TimeUnit::Auto, None, Box::new(|ms| (1_000_000 * ms).to_string())),
        ("given", TimeUnit::Ms, None, Box::new(|ms| ms.to_string())),
        ("iso", TimeUnit::Auto, None, Box::new(iso)),
        ("zone", TimeUnit::Auto, None, Box::new(|ms| iso(ms) + "+02:00")),
        ("clock", TimeUnit::Auto, None, Box::new(|ms| iso(ms)[11..].to_string())),
        ("colons", TimeUnit::Auto, None, Box::new(|ms| iso(ms)[11..].replace('.', ":"))),
        (
            "dmy",
            TimeUnit::Auto,
            Some("%d/%m/%Y %H:%M:%S%.f"),
            Box::new(|ms| iso(ms).replace("2024-01-31T", "31/01/2024 ")),
        ),
    ];
    for (name, unit, format, form) in forms {
        let text: String = (0..40).map(|i| format!("{},{i}\n", form(at(i)))).collect();
        let (_dir, mut spec) = files(&[("a.csv", format!("t,x\n{text}"))]);
        spec.time = Some(TimeColumn { column: "t".into(), unit });
        spec.time_format = format.map(String::from);
        let read = read(&spec, &cut(8, 4)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(read.rate_hz, 50.0, "{name}");
        assert_eq!(read.starts("a.csv"), [0, 4, 8, 12, 20, 24, 28, 32], "{name}");
    }
}

/// Nanoseconds since 1970 at a megahertz, whose steps double precision could not represent.
#[tokio::test]
async fn epoch_nanoseconds_keep_their_digits() {
    let (_dir, spec) =
        files(&[("a.csv", lines((0..64).map(|i| 1_712_628_600_250_000_000 + 1000 * i + i64::from(i >= 32) * 5000)))]);
    let spec = CsvSpec { time: Some(TimeColumn { column: "t".into(), unit: TimeUnit::Ns }), ..spec };
    let read = read(&spec, &cut(16, 16)).await.unwrap();
    assert_eq!((read.rate_hz, read.starts("a.csv")), (1e6, vec![0, 16, 32, 48]));
}

#[tokio::test]
async fn times_that_are_none_are_named_with_what_would_be_accepted() {
    for (time, unit, says) in [
        (
            "31/01/2024 12:00:00",
            TimeUnit::Auto,
            "a.csv:2: column \"t\": \"31/01/2024 12:00:00\" is not a time, expected",
        ),
        ("31/01/2024 12:00:00", TimeUnit::Auto, "time_format"),
        (
            "2024-01-31T12:00:00",
            TimeUnit::Ms,
            "a.csv:2: column \"t\": \"2024-01-31T12:00:00\" is not a number, expected a number of ms",
        ),
        ("123456789012345", TimeUnit::Auto, "say with time_unit"),
        ("", TimeUnit::Auto, "a.csv:2: column \"t\": \"\" is not a time"),
    ] {
        let text: String = (0..40).map(|i| format!("{time},{i}\n")).collect();
        let (_dir, mut spec) = files(&[("a.csv", format!("t,x\n{text}"))]);
        spec.time = Some(TimeColumn { column: "t".into(), unit });
        for options in [cut(8, 4), quarantine(&cut(8, 4))] {
            let e = read(&spec, &options).await.err().expect("no rate can be told");
            assert!(e.kind() == Kind::Input && e.to_string().contains(says), "{time}: {e}");
            assert!(!e.to_string().contains("too few lines"), "{e}");
        }
    }
}

// ---- rates ----

#[tokio::test]
async fn a_recording_at_another_rate_is_refused_set_aside_or_resampled() {
    for (step, rate) in [(40, "25"), (32, "31.25"), (29, "34.4828"), (10, "100"), (1000, "1")] {
        let (_dir, spec) = files(&[("a.csv", lines(evenly(80, 20))), ("b.csv", lines(evenly(60, step)))]);
        let e = read(&spec, &cut(8, 4)).await.err().expect("another rate");
        let says =
            [format!("b.csv:2: the 60 samples from here on are {step} ms apart"), format!("({rate} samples a second)")];
        assert!(says.iter().all(|part| e.to_string().replace("1 s apart", "1000 ms apart").contains(part)), "{e}");
        let aside = read(&spec, &quarantine(&cut(8, 4))).await.unwrap();
        assert_eq!((aside.bad.len(), aside.samples.set_aside, aside.samples.read), (1, 60, 140));
        assert_eq!((aside.starts("a.csv").len(), aside.starts("b.csv").len()), (19, 0));
        let resampled =
            read(&rules(&spec, SampleRules { resample: true, ..Default::default() }), &cut(8, 8)).await.unwrap();
        let windows = &resampled.windows["b.csv"];
        assert_eq!(windows.len() as i64, (59 * step / 20 + 1) / 8, "{step}");
        for &(start, first) in windows {
            let expected = (20 * start) as f32 / step as f32;
            assert!((first - expected).abs() < 1e-4, "{step}: {first}, expected {expected}");
        }
    }
}

/// Interpolating far more samples than were recorded would need unbounded memory.
#[tokio::test]
async fn a_recording_that_is_far_slower_is_set_aside_all_the_same() {
    let (_dir, spec) = files(&[("a.csv", lines(evenly(80, 1))), ("b.csv", lines(evenly(60, 86_400_000)))]);
    let spec = rules(&spec, SampleRules { resample: true, ..Default::default() });
    let read = read(&spec, &quarantine(&cut(8, 4))).await.unwrap();
    assert_eq!((read.starts("a.csv").len(), read.samples.set_aside, read.samples.read), (19, 60, 140));
}

#[tokio::test]
async fn most_recordings_decide_the_rate_whichever_is_first() {
    let (_dir, spec) = files(&[
        ("a.csv", lines(evenly(80, 10))),
        ("b.csv", lines(evenly(80, 20))),
        ("c.csv", "t,x\n".into()),
        ("d.csv", lines(evenly(80, 20))),
    ]);
    let read = read(&spec, &quarantine(&cut(8, 4))).await.unwrap();
    assert_eq!((read.rate_hz, read.bad.len()), (50.0, 2));
    assert_eq!(read.windows.keys().collect::<Vec<_>>(), ["b.csv", "d.csv"]);
}

/// Also where it is a device among others in one file, and where a recording slows down.
#[tokio::test]
async fn a_slower_stretch_is_not_taken_for_gaps() {
    let of = |key: &str, times: Vec<i64>| times.iter().map(|t| format!("{key},{t},{t}\n")).collect::<String>();
    let slows: Vec<i64> = evenly(50, 20).chain((1..50).map(|i| 980 + 50 * i)).collect();
    let text = format!(
        "k,t,x\n{}{}{}",
        of("even", evenly(200, 20).collect()),
        of("slow", evenly(40, 40).collect()),
        of("slows", slows)
    );
    let (_dir, mut spec) = files(&[("a.csv", text)]);
    spec.keys = vec!["k".into()];
    assert!(read(&spec, &cut(8, 4)).await.is_err());
    let read = read(&spec, &quarantine(&cut(8, 4))).await.unwrap();
    assert_eq!((read.starts("even").len(), read.starts("slow").len(), read.starts("slows").len()), (49, 0, 11));
    assert_eq!(read.bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [202, 292]);
    assert_eq!(read.samples.set_aside, 40 + 49);
}

// ---- order ----

#[tokio::test]
async fn disorder_within_its_bound_is_undone_and_counted_without_it() {
    let mut times: Vec<i64> = evenly(200, 20).collect();
    (30..200).step_by(40).for_each(|i| times.swap(i, i + 1));
    let values: String = times.iter().map(|t| format!("{t},{}\n", t / 20)).collect();
    let sorted: String = evenly(200, 20).map(|t| format!("{t},{}\n", t / 20)).collect();
    let (_dir, swapped) = files(&[("a.csv", format!("t,x\n{values}"))]);
    let (_other, even) = files(&[("a.csv", format!("t,x\n{sorted}"))]);
    let even = read(&even, &cut(16, 8)).await.unwrap();
    let lost = read(&swapped, &cut(16, 8)).await.unwrap();
    assert!(lost.windows["a.csv"].len() < even.windows["a.csv"].len());
    assert!(lost.samples.unused[&Unused::OutOfOrder] >= 8, "{}", lost.samples);
    let time = |text: &str| Disorder::Time(text.parse().unwrap());
    for disorder in [1.into(), 7.into(), 1000.into(), time("20 ms"), time("0.5 s"), time("1 h")] {
        let kept = read(&rules(&swapped, SampleRules { disorder, ..Default::default() }), &cut(16, 8)).await.unwrap();
        assert_eq!(kept.windows, even.windows);
        assert_eq!(kept.samples, even.samples);
    }
    // A sample that is 60 ms late.
    let mut times: Vec<i64> = evenly(200, 20).collect();
    times[30..34].rotate_left(1);
    let values: String = times.iter().map(|t| format!("{t},{}\n", t / 20)).collect();
    let (_late, late) = files(&[("a.csv", format!("t,x\n{values}"))]);
    let by = |disorder| rules(&late, SampleRules { disorder, ..Default::default() });
    assert_eq!(read(&by(time("60 ms")), &cut(16, 8)).await.unwrap().windows, even.windows);
    let short = read(&by(time("20 ms")), &cut(16, 8)).await.unwrap();
    assert!(short.samples.unused[&Unused::OutOfOrder] > 0, "{}", short.samples);
}

#[tokio::test]
async fn jitter_within_its_bound_is_no_gap() {
    // Every fifth sample is 14 ms late.
    let (_dir, spec) = files(&[("a.csv", lines((0..100).map(|i| 20 * i + if i % 5 == 4 { 14 } else { 0 })))]);
    let given = CsvSpec { rate_hz: Some(50.0), ..spec };
    let lost = read(&given, &cut(16, 8)).await.unwrap();
    assert_eq!((lost.windows.len(), lost.unused()), (0, vec![(Unused::Gap, 100)]));
    let time = |text: &str| Jitter::Time(text.parse().unwrap());
    for jitter in [0.8.into(), time("16 ms"), time("0.1 s")] {
        let jitter = SampleRules { jitter: Some(jitter), ..Default::default() };
        let kept = read(&rules(&given, jitter), &cut(16, 8)).await.unwrap();
        assert_eq!(kept.starts("a.csv").len(), 11);
        let told = read(&rules(&CsvSpec { rate_hz: None, ..given.clone() }, jitter), &cut(16, 8)).await.unwrap();
        assert!((told.rate_hz - 50.0).abs() < 1.0, "{}", told.rate_hz);
    }
    let short = SampleRules { jitter: Some(time("10 ms")), ..Default::default() };
    assert!(read(&rules(&given, short), &cut(16, 8)).await.unwrap().windows.is_empty());
    let long = SampleRules { jitter: Some(time("1 min")), ..Default::default() };
    let e = read(&rules(&given, long), &cut(16, 8)).await.err().expect("too long");
    let said = "jitter is 1 min, which is 3000.0 sample periods, expected at most 10";
    assert!(e.kind() == Kind::Config && e.to_string().contains(said), "{e}");
}

#[tokio::test]
async fn samples_under_one_time_are_spread() {
    for (name, times) in [
        ("packets", (0..90).map(|i| i / 3 * 60).collect::<Vec<_>>()),
        ("seconds", (0..150).map(|i| i / 50 * 1000).collect()),
    ] {
        let count = times.len();
        let (_dir, spec) = files(&[("a.csv", lines(times))]);
        let e = read(&spec, &cut(10, 5)).await.err().expect(name);
        assert!(e.to_string().contains("same_time = \"spread\""), "{name}: {e}");
        let spread = rules(&spec, SampleRules { same_time: SameTime::Spread, ..Default::default() });
        let read = read(&spread, &cut(10, 5)).await.unwrap();
        assert_eq!((read.rate_hz, read.starts("a.csv").len()), (50.0, (count - 10) / 5 + 1), "{name}");
    }
}

#[tokio::test]
async fn repeated_lines_are_dropped_on_request() {
    let (_dir, spec) = files(&[("a.csv", lines(evenly(60, 20)))]);
    let once = read(&spec, &cut(10, 5)).await.unwrap();
    for twice in [vec![0], vec![10, 30, 31], (0..60).collect(), vec![59]] {
        let text: String =
            (0..60).map(|i| format!("{},{i}\n", 20 * i).repeat(1 + usize::from(twice.contains(&i)))).collect();
        let (_dir, spec) = files(&[("a.csv", format!("t,x\n{text}"))]);
        if twice.len() < 30 {
            let e = read(&spec, &cut(10, 5)).await.err().expect("a time twice");
            assert!(e.to_string().contains("repeated = \"drop\""), "{e}");
        }
        let drop = rules(&spec, SampleRules { repeated: Repeated::Drop, ..Default::default() });
        let read = read(&drop, &cut(10, 5)).await.unwrap();
        assert_eq!(read.windows, once.windows);
        assert_eq!(read.samples.unused[&Unused::Repeated], twice.len() as u64);
    }
}

/// Lines that repeat the time of the one before take no time: they are what is said, and not another rate.
#[tokio::test]
async fn repeated_lines_are_not_taken_for_another_rate() {
    let times = |step: i64, of: &[usize]| -> Vec<i64> {
        (0..60).flat_map(|i| std::iter::repeat_n(step * i, of[i as usize % of.len()])).collect()
    };
    for of in [vec![2], vec![3], vec![1, 2], vec![2, 1, 4]] {
        // Alone, beside a file without repeated lines, and at a given rate.
        let repeated = lines(times(20, &of));
        let count = times(20, &of).len() as u64;
        let alone = files(&[("a.csv", repeated.clone())]);
        let beside = files(&[("a.csv", repeated.clone()), ("b.csv", lines(evenly(60, 20)))]);
        let mut given = files(&[("a.csv", repeated)]);
        given.1.rate_hz = Some(50.0);
        for (nth, (_dir, spec)) in [alone, beside, given].iter().enumerate() {
            let e = read(spec, &cut(10, 5)).await.err().expect("a time twice").to_string();
            assert!(e.contains("repeated = \"drop\"") && !e.contains("apart in time"), "{of:?} {nth}: {e}");
            // Where most lines are repeated, no recording shows a rate.
            if nth == 0 && count > 120 {
                continue;
            }
            let aside = read(spec, &quarantine(&cut(10, 5))).await.unwrap();
            assert_eq!(aside.samples.set_aside, count - 60, "{of:?} {nth}: {:?}", aside.bad.first());
            assert!(aside.bad.iter().all(|(_, reason)| reason.contains("repeated = \"drop\"")), "{:?}", aside.bad);
            assert_eq!(aside.bad.len() as u64, count - 60);
            let drop = rules(spec, SampleRules { repeated: Repeated::Drop, ..Default::default() });
            // The values differ, so that nothing is the same.
            assert_eq!(read(&drop, &quarantine(&cut(10, 5))).await.unwrap().samples.set_aside, count - 60);
        }
    }
    // Another rate is one also where lines are repeated, and it is that of the times.
    let (_dir, spec) = files(&[("a.csv", lines(evenly(80, 20))), ("b.csv", lines(times(40, &[2])))]);
    let aside = read(&spec, &quarantine(&cut(10, 5))).await.unwrap();
    assert!(aside.bad.iter().any(|(_, reason)| reason.contains("are 40 ms apart in time")), "{:?}", aside.bad);
    assert_eq!((aside.samples.set_aside, aside.starts("b.csv").len()), (120, 0));
    // Lines that are the same three times are what `repeated` leaves out, also where nothing else shows a rate.
    let text: String = (0..60).map(|i| format!("{},{i}\n", 20 * i).repeat(3)).collect();
    let (_dir, spec) = files(&[("a.csv", format!("t,x\n{text}"))]);
    let drop = rules(&spec, SampleRules { repeated: Repeated::Drop, ..Default::default() });
    let found = read(&drop, &cut(10, 5)).await.unwrap();
    assert_eq!((found.rate_hz, found.starts("a.csv").len(), found.unused()), (50.0, 11, vec![(Unused::Repeated, 120)]));
}

#[tokio::test]
async fn a_slow_channel_holds_its_value() {
    for empty in ["", "NaN"] {
        let value = |i: i64| if i % 4 == 1 { i.to_string() } else { empty.to_string() };
        let text: String =
            (0..40).map(|i| format!("{},{i},{}\n", 10 * i + if i < 20 { 0 } else { 500 }, value(i))).collect();
        let (_dir, mut spec) = files(&[("a.csv", format!("t,x,slow\n{text}"))]);
        spec.channels = vec!["slow".into(), "x".into()];
        let e = read(&spec, &cut(8, 4)).await.err().expect("an empty channel");
        assert!(e.to_string().contains("a.csv:2: column \"slow\""), "{e}");
        let hold = rules(&spec, SampleRules { fill: Fill::Hold, ..Default::default() });
        let read = read(&hold, &quarantine(&cut(4, 4))).await.unwrap();
        // The first samples, and the first behind the gap, have nothing to hold.
        assert_eq!(read.bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 22]);
        assert_eq!(read.windows["a.csv"], [4, 8, 12, 16, 24, 28, 32, 36].map(|start| (start, start as f32 - 3.0)));
    }
}

// ---- files ----

#[tokio::test]
async fn keys_of_two_files_are_refused_told_apart_or_continued() {
    let day = |from: i64, to: i64, zero: i64| {
        let lines = (from..to).map(|i| format!("P,{},{i}\n", 20 * (i - zero)));
        "k,t,x\n".to_string() + &lines.collect::<String>()
    };
    // The second by name is the first in time.
    let (_dir, mut spec) = files(&[("b.csv", day(0, 50, 0)), ("a.csv", day(50, 100, 0))]);
    spec.keys = vec!["k".into()];
    let e = read(&spec, &cut(8, 4)).await.err().expect("one key in two files");
    assert!(
        ["b.csv:2: k=\"P\" is a recording of ", "a.csv", "across_files"].iter().all(|s| e.to_string().contains(s)),
        "{e}"
    );
    let aside = read(&spec, &quarantine(&cut(8, 4))).await.unwrap();
    assert_eq!((aside.samples.set_aside, aside.bad.len(), aside.starts("P").len()), (50, 1, 11));
    let named = read(&CsvSpec { keys: vec!["k".into(), "file".into()], ..spec.clone() }, &cut(8, 4)).await.unwrap();
    assert_eq!(named.windows.keys().collect::<Vec<_>>(), ["P,a.csv", "P,b.csv"]);
    let go_on = SampleRules { across_files: AcrossFiles::Continue, ..Default::default() };
    let continued = read(&rules(&spec, go_on), &cut(8, 4)).await.unwrap();
    assert_eq!(continued.windows["P"], (0..24).map(|i| (4 * i, 4.0 * i as f32)).collect::<Vec<_>>());
    // Times that begin anew in each file: a gap, and `start` goes on counting.
    let (_dir, anew) = files(&[("a.csv", day(0, 50, 0)), ("b.csv", day(50, 100, 50))]);
    let anew = CsvSpec { keys: vec!["k".into()], ..rules(&anew, go_on) };
    let anew = read(&anew, &cut(8, 4)).await.unwrap();
    let starts: Vec<i64> = (0..11).map(|i| 4 * i).chain((0..11).map(|i| 50 + 4 * i)).collect();
    assert_eq!(anew.starts("P"), starts);
    assert_eq!(anew.unused(), [(Unused::Tail, 2), (Unused::OutOfOrder, 2)]);
}

// ---- recordings that are no CSV ----

#[tokio::test]
async fn samples_of_hapt_recordings_are_counted_too() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("RawData")).unwrap();
    let write = |name: &str, lines: usize, bad: Option<usize>| {
        let line = |i: usize| if bad == Some(i) { "1 2\n".to_string() } else { format!("{i} 2 3\n") };
        fs::write(dir.path().join("RawData").join(name), (0..lines).map(line).collect::<String>()).unwrap();
    };
    write("acc_exp01_user01.txt", 20, None);
    write("gyro_exp01_user01.txt", 23, Some(4));
    write("acc_exp02_user01.txt", 9, None);
    fs::write(dir.path().join("RawData/labels.txt"), "1 1 5 1 9\n1 1 7 12 14\n").unwrap();
    let spec = SourceSpec::Hapt(HaptSpec { path: dir.path().display().to_string() });
    let expected = [(Unused::Tail, 1), (Unused::ShortLabel, 3), (Unused::Unlabelled, 8), (Unused::BesideBadRow, 3)];
    for threads in [1, 3] {
        let window = Some(WindowSpec { length: 4, stride: 4, within: Within::Labels });
        let options = SourceOptions { window, threads, on_bad_row: OnBadRow::Quarantine, ..Default::default() };
        let source = open(&spec, &options, Arc::default()).await.unwrap();
        let context = SessionContext::new();
        context.register_table("t", source.provider.clone()).unwrap();
        assert_eq!(source.samples(), None);
        let rows = context.sql("SELECT start FROM t").await.unwrap().count().await.unwrap();
        let samples = source.samples().unwrap();
        assert_eq!((rows, samples.read, samples.in_windows, samples.set_aside), (1, 32, 4, 13));
        assert_eq!(samples.unused, expected.into(), "{samples}");
    }
}

// ---- what a run says ----

fn pipeline(dir: &Path, source: &str, on_bad_row: &str) -> Pipeline {
    let toml = format!(
        "name = \"t\"\non_bad_row = {on_bad_row:?}\n[source]\nkind = \"csv\"\npath = {:?}\nchannels = [\"x\"]\n{source}\n\
         [[stage]]\nkind = \"window\"\nlength = 8\nstride = 4\nwithin = \"recordings\"\n[[stage]]\nkind = \"kmeans\"\nk = 2\n\
         [sink]\npath = {:?}\n",
        dir.join("in").display().to_string(),
        dir.join("out").display().to_string()
    );
    fs::write(dir.join("t.toml"), toml).unwrap();
    let plan = PipelineFile::load(dir.join("t.toml"), &[]).unwrap_or_else(|e| panic!("{e}")).plan;
    Pipeline::new(plan).unwrap()
}

#[tokio::test]
async fn a_run_counts_its_samples_and_says_why_there_are_no_rows() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let gap = |i: i64| 20 * i + if i < 30 { 0 } else { 500 };
    fs::write(dir.path().join("in/a.csv"), lines((0..61).map(gap)).replace("\n200,10\n", "\n200,ten\n")).unwrap();
    let run = pipeline(dir.path(), "time = \"t\"\ntime_unit = \"ms\"", "quarantine");
    let report = run.run(&RunOptions::default()).await.unwrap();
    let samples = report.samples.clone().unwrap();
    assert_eq!((samples.read, samples.in_windows, samples.set_aside), (61, 52, 1));
    assert_eq!(samples.unused, [(Unused::Tail, 3), (Unused::Gap, 2), (Unused::BesideBadRow, 3)].into());
    let summary = dacpipe::report::summary::summary(&report);
    let says = "  samples   61 read: 52 in windows, 1 set aside, 8 unused (3 behind the last window, 3 beside bad rows, 2 cut off \
                by gaps in time (jitter = J takes longer steps for none))\n";
    assert!(summary.contains(says), "{summary}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["samples"]["unused"]["beside_bad_row"], 3);

    // No window fits: the error says why, and the rows that were set aside are listed.
    fs::write(dir.path().join("in/a.csv"), lines(evenly(7, 20)).replace(",3\n", ",three\n")).unwrap();
    let e = run.run(&RunOptions::default()).await.unwrap_err();
    let says = ["no rows to learn from", "7 read: 0 in windows, 1 set aside, 6 unused", "listed in ", "quarantine"];
    assert!(e.kind() == Kind::Input && says.iter().all(|part| e.to_string().contains(part)), "{e}");
    // Those of both runs.
    let place = dacpipe::store::Location::parse(&dir.path().join("out").display().to_string()).unwrap();
    let set_aside = dacpipe::table::Quarantine::open(&place, None).await.unwrap().rows().await.unwrap();
    assert_eq!(set_aside.iter().map(|rows| rows.num_rows()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn settings_about_times_need_times() {
    let problems = |source: &str| {
        let toml = format!(
            "name = \"t\"\n[source]\nkind = \"csv\"\npath = \"a.csv\"\nchannels = [\"x\"]\n{source}\n[[stage]]\nkind = \
             \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\n"
        );
        PipelineFile::parse("t.toml", &toml, &[], &|_: &str| None).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let all = problems(
        "time_format = \"%H\"\njitter = 0.2\ndisorder = 3\nsame_time = \"spread\"\nrepeated = \"drop\"\nresample = true\n\
         across_files = \"continue\"",
    );
    for key in ["time_format", "jitter", "disorder", "same_time", "repeated", "resample"] {
        assert!(all.contains(&format!("`{key}` is about times")), "{key}: {all}");
    }
    assert!(all.contains("each file is one of its own"), "{all}");
    let both = problems("time = \"t\"\ntime_unit = \"ms\"\ntime_format = \"%Q\"\ndisorder = 100001");
    assert!(["both `time_unit`", "\"%Q\"", "disorder"].iter().all(|part| both.contains(part)), "{both}");
    assert_eq!(problems("time = \"t\"\njitter = 0.2\nfill = \"hold\"\nkeys = [\"k\", \"file\"]"), "");
}

// ---- what ties it together ----

/// What may happen to a line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    None,
    Lost,
    Text,
    NoKey,
    Empty,
    OneMore,
    Late(i64),
    Twice,
    Swapped,
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::*;
    prop_oneof![
        24 => Just(None), 2 => Just(Lost), 1 => Just(Text), 1 => Just(NoKey), 1 => Just(Empty), 1 => Just(OneMore),
        1 => (-90i64..400).prop_map(Late), 1 => Just(Twice), 1 => Just(Swapped),
    ]
}

fn any_rules() -> impl Strategy<Value = SampleRules> {
    (prop::option::of(0.0..2.0f64), 0usize..4, any::<[bool; 5]>()).prop_map(|(jitter, disorder, on)| SampleRules {
        jitter: jitter.map(Into::into),
        disorder: disorder.into(),
        same_time: if on[0] { SameTime::Spread } else { SameTime::Refuse },
        repeated: if on[1] { Repeated::Drop } else { Repeated::Refuse },
        fill: if on[2] { Fill::Hold } else { Fill::Refuse },
        hold_for: None,
        resample: on[3],
        across_files: if on[4] { AcrossFiles::Continue } else { AcrossFiles::Refuse },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Lines read = samples in windows + set aside + unused by reason; no (key, start) twice; and all of it is the same
    /// for any number of threads and rows in a batch.
    #[test]
    fn no_sample_vanishes_and_no_key_comes_twice(
        recordings in prop::collection::vec((0..3usize, 0..2usize, prop::sample::select(vec![20i64, 20, 20, 35, 10]),
            prop::collection::vec(damage(), 1..60)), 1..6),
        length in 1usize..12, stride in 1usize..14, labels: bool, split in 0..30usize, rules in any_rules(),
    ) {
        let mut texts = [String::new(), String::new()];
        let mut written = 0;
        for (key, file, step, damages) in recordings {
            let key = ["a", "b", "c"][key];
            let mut lines: Vec<String> = Vec::new();
            for (i, damage) in damages.iter().enumerate() {
                let time = 1000 + step * i as i64 + if let Damage::Late(by) = damage { *by } else { 0 };
                let label = if i % 17 < 12 { "walk" } else { "" };
                let part = if i < split { "train" } else { "test" };
                let line = match damage {
                    Damage::Lost => continue,
                    Damage::Text => format!("{key},{time},one,{label},{part}"),
                    Damage::NoKey => format!(",{time},{i},{label},{part}"),
                    Damage::Empty => format!("{key},{time},,{label},{part}"),
                    Damage::OneMore => format!("{key},{time},{i},{label},{part},"),
                    _ => format!("{key},{time},{i},{label},{part}"),
                };
                lines.push(line.clone());
                match damage {
                    Damage::Twice => lines.push(line),
                    Damage::Swapped if lines.len() > 1 => { let at = lines.len(); lines.swap(at - 1, at - 2) }
                    _ => {}
                }
            }
            written += lines.len() as u64;
            lines.iter().for_each(|line| texts[file] += &format!("{line}\n"));
        }
        let header = "k,t,x,activity,part\n";
        let (_dir, spec) = files(&[("a.csv", format!("{header}{}", texts[0])), ("b.csv", format!("{header}{}", texts[1]))]);
        let spec = CsvSpec { keys: vec!["k".into()], label: Some("activity".into()), rate_hz: Some(50.0), rules, ..spec };
        let spec = CsvSpec { split: Some("part".into()), ..spec };
        let within = if labels { Within::Labels } else { Within::Recordings };
        let options = |threads| SourceOptions {
            window: Some(WindowSpec { length, stride, within }),
            on_bad_row: OnBadRow::Quarantine,
            threads,
            ..Default::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let read = |threads, batch| runtime.block_on(read_in(&spec, &options(threads), batch)).unwrap();
        let one = read(1, 8192);
        for (key, windows) in &one.windows {
            let starts: std::collections::BTreeSet<i64> = windows.iter().map(|w| w.0).collect();
            prop_assert_eq!(starts.len(), windows.len(), "{} has a start twice: {:?}", key, windows);
        }
        if !rules.resample {
            prop_assert_eq!(one.samples.read, written, "{}", &one.samples);
        }
        let many = read(3, 3);
        prop_assert_eq!(&many.windows, &one.windows);
        prop_assert_eq!(&many.samples, &one.samples);
        prop_assert_eq!(&many.bad, &one.bad);
        // A scan of one split gives the rows of that split, numbered as among all rows.
        let two = options(2);
        let part = runtime.block_on(read_part(&spec, &two, 100, "SELECT * FROM t WHERE part = 'test'")).unwrap();
        prop_assert_eq!(&part.windows, &one.test);
    }
}
