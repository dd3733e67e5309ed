//! Places, sizes and bounds: compressed files, names of any bytes, pipes and devices, and data that would not fit into
//! memory. Nothing waits for ever, memory is checked before it is allocated, and a bad file affects no other.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use dacpipe::column;
use dacpipe::config::PipelineFile;
use dacpipe::device::Cpu;
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::KMeansSpec;
use dacpipe::label::KMeansStage;
use dacpipe::signal::features::{FeatureExtractor, FeatureSet};
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{BadRow, BadRows, CsvSpec, HaptSpec, OnBadRow, SourceOptions, SourceSpec, open};
use dacpipe::stage::{Fit, FitContext, NoCheckpoint, Training};
use dacpipe::train::{Autoencoder, AutoencoderSpec};
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightMethod, WeightsSpec};
use dacpipe::{Error, Kind, Result, Seed};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use tempfile::TempDir;

/// The first value of every row, in order, and what was set aside.
async fn rows(spec: &SourceSpec, window: Option<WindowSpec>, on_bad_row: OnBadRow) -> Result<(Vec<f32>, Vec<BadRow>)> {
    let bad = Arc::new(BadRows::new());
    let options = SourceOptions { window, on_bad_row, ..SourceOptions::default() };
    let source = open(spec, &options, Arc::clone(&bad)).await?;
    let context = SessionContext::new();
    context.register_table("t", source.provider)?;
    let mut first = Vec::new();
    for batch in context.sql("SELECT features FROM t").await?.collect().await.map_err(Error::from)? {
        let (values, dim) = column::values(&batch, "features")?;
        first.extend(values.narrow().iter().step_by(dim));
    }
    Ok((first, bad.rows()))
}

fn csv(path: &Path) -> SourceSpec {
    SourceSpec::Csv(CsvSpec::new(path.display().to_string(), &["x"]))
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn bzip2(text: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 0).unwrap()
}

type Codec = (&'static str, fn(&[u8]) -> Vec<u8>);
const CODECS: [Codec; 3] = [(".gz", gzip), (".bz2", bzip2), (".zst", zstd)];

/// A file of `lines` samples that count up.
fn counting(lines: usize) -> String {
    let mut text = String::from("x\n");
    (0..lines).for_each(|i| text.push_str(&format!("{i}\n")));
    text
}

// ---- compression ----

#[tokio::test]
async fn csv_reads_every_compression_alike_by_content_and_by_name() {
    let text = counting(500);
    let expected: Vec<f32> = (0..500).map(|i| i as f32).collect();
    for (end, pack) in CODECS {
        let dir = TempDir::new().unwrap();
        let packed = [pack(&text.as_bytes()[..100]), pack(&text.as_bytes()[100..]), vec![0; 512]].concat();
        fs::write(dir.path().join(format!("a.csv{end}")), &packed).unwrap();
        assert_eq!(rows(&csv(dir.path()), None, OnBadRow::Fail).await.unwrap(), (expected.clone(), vec![]), "{end}");
        // Under a name that does not say so.
        let bare = dir.path().join("b");
        fs::write(&bare, [packed, b"rubbish".to_vec()].concat()).unwrap();
        assert_eq!(rows(&csv(&bare), None, OnBadRow::Fail).await.unwrap().0, expected, "{end}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_says_after_how_many_rows_and_keeps_those_before() {
    // Numbers that do not compress to nothing.
    let mut text = String::from("x\n");
    (0..200_000_u32).for_each(|i| text.push_str(&format!("{}\n", i.wrapping_mul(2_654_435_761) % 100_000)));
    for (end, pack) in CODECS {
        let dir = TempDir::new().unwrap();
        let whole = pack(text.as_bytes());
        fs::write(dir.path().join(format!("a.csv{end}")), &whole[..whole.len() - 30]).unwrap();
        fs::write(dir.path().join("b.csv"), counting(3)).unwrap();
        let e = rows(&csv(dir.path()), None, OnBadRow::Fail).await.unwrap_err();
        let said = e.to_string();
        assert!(e.kind() == Kind::Input && said.contains("damaged or cut off after ") && said.contains(" rows"), "{e}");
        let (kept, bad) = rows(&csv(dir.path()), None, OnBadRow::Quarantine).await.unwrap();
        assert_eq!(kept[kept.len() - 3..], [0.0, 1.0, 2.0], "{end}");
        assert_eq!(bad.len(), 1);
        assert!(bad[0].reason.contains("cut off"), "{}", bad[0].reason);
    }
}

#[tokio::test]
async fn archives_are_refused_by_name_and_set_aside() {
    let dir = TempDir::new().unwrap();
    for (name, start, what) in
        [("a.csv.xz", &b"\xfd7zXZ\0"[..], "an xz file"), ("a.csv.zip", b"PK\x03\x04", "a zip archive")]
    {
        fs::write(dir.path().join(name), [start, &[7; 100]].concat()).unwrap();
        let e = rows(&csv(&dir.path().join(name)), None, OnBadRow::Fail).await.unwrap_err();
        assert!(e.kind() == Kind::Input && e.to_string().contains(what), "{e}");
    }
    fs::write(dir.path().join("b.csv"), counting(4)).unwrap();
    let (kept, bad) = rows(&csv(dir.path()), None, OnBadRow::Quarantine).await.unwrap();
    assert_eq!((kept.len(), bad.len()), (4, 2));
}

// ---- HAPT ----

/// A recording of ten samples, its files packed by `codec`.
fn hapt(codec: Option<Codec>) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("RawData")).unwrap();
    let sensor: String = (0..10).map(|i| format!("{i} 1 2\n")).collect();
    for (name, text) in
        [("acc_exp01_user01", &sensor), ("gyro_exp01_user01", &sensor), ("labels", &"1 1 1 1 8\n".into())]
    {
        let (end, bytes) = match codec {
            Some((end, pack)) => (end, pack(text.as_bytes())),
            None => ("", text.clone().into_bytes()),
        };
        fs::write(dir.path().join(format!("RawData/{name}.txt{end}")), bytes).unwrap();
    }
    dir
}

#[tokio::test]
async fn hapt_reads_every_compression_alike() {
    let window = Some(WindowSpec { length: 4, stride: 2, within: Within::Labels });
    let read = async |dir: &TempDir| {
        let spec = SourceSpec::Hapt(HaptSpec { path: dir.path().display().to_string() });
        rows(&spec, window, OnBadRow::Fail).await.unwrap()
    };
    let plain = read(&hapt(None)).await;
    assert_eq!(plain.0, [0.0, 2.0, 4.0]);
    for codec in CODECS {
        assert_eq!(plain, read(&hapt(Some(codec))).await, "{}", codec.0);
    }
}

#[tokio::test]
async fn a_line_of_megabytes_gives_a_short_message() {
    let dir = hapt(None);
    fs::write(dir.path().join("RawData/acc_exp01_user01.txt"), vec![b'x'; 4 << 20]).unwrap();
    let spec = SourceSpec::Hapt(HaptSpec { path: dir.path().display().to_string() });
    let e = rows(&spec, None, OnBadRow::Fail).await.unwrap_err().to_string();
    assert!(e.len() < 400 && e.contains("is not a number"), "{e}");
}

// ---- names, links, hidden files ----

#[tokio::test]
async fn what_a_file_system_leaves_beside_the_data_is_no_data() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("__MACOSX")).unwrap();
    for name in ["._a.csv", "__MACOSX/._a.csv", ".DS_Store"] {
        fs::write(dir.path().join(name), b"\x00\x05\x16\x07Mac OS X").unwrap();
    }
    fs::write(dir.path().join("a.csv"), counting(3)).unwrap();
    for path in ["", "*.csv", "**/*.csv", "*"] {
        let (kept, bad) = rows(&csv(&dir.path().join(path)), None, OnBadRow::Fail).await.unwrap();
        assert_eq!((kept, bad.len()), (vec![0.0, 1.0, 2.0], 0), "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_is_read_once_however_many_links_lead_to_it() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("day1")).unwrap();
    fs::write(dir.path().join("day1/a.csv"), counting(3)).unwrap();
    for (target, link) in [("day1", "latest"), ("..", "day1/loop"), ("day1/a.csv", "same.csv")] {
        std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
    }
    for path in ["", "**/*.csv"] {
        assert_eq!(
            rows(&csv(&dir.path().join(path)), None, OnBadRow::Fail).await.unwrap().0,
            [0.0, 1.0, 2.0],
            "{path}"
        );
    }
}

fn write_parquet(path: &Path, values: &[f32]) {
    let column: ArrayRef = Arc::new(Float32Array::from(values.to_vec()));
    let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_name_of_any_bytes_is_read_or_set_aside_and_stops_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let dir = TempDir::new().unwrap();
    let odd = |end: &str| dir.path().join(std::ffi::OsStr::from_bytes(&[b"caf\xe9\n\x1b[2J", end.as_bytes()].concat()));
    fs::write(odd(".csv"), counting(2)).unwrap();
    fs::write(dir.path().join("a.csv"), counting(1)).unwrap();
    let (mut kept, bad) = rows(&csv(dir.path()), None, OnBadRow::Fail).await.unwrap();
    kept.sort_by(f32::total_cmp);
    assert_eq!((kept, bad.len()), (vec![0.0, 0.0, 1.0], 0));

    write_parquet(&odd(".parquet"), &[7.0]);
    write_parquet(&dir.path().join("a.parquet"), &[5.0]);
    let path = dir.path().display().to_string();
    let spec: SourceSpec =
        serde_json::from_value(json!({ "kind": "parquet", "path": path, "features": ["x"] })).unwrap();
    let (kept, bad) = rows(&spec, None, OnBadRow::Quarantine).await.unwrap();
    assert_eq!((kept, bad.len()), (vec![5.0], 1));
    assert!(!bad[0].file.contains(char::is_control) && bad[0].file.contains("caf\\xe9"), "{:?}", bad[0]);
}

// ---- pipes, devices, large files ----

/// Waits before the child is checked again.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// The output of a command that must end by itself.
fn ended(command: &mut Command) -> Output {
    let mut child: Child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        pause();
    }
    child.wait_with_output().unwrap()
}

/// The exit code of `dacpipe` and its standard error.
fn dacpipe(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    command.args(args).env("DACPIPE_THREADS", "2").envs(variables.iter().copied());
    let Output { status, stderr, .. } = ended(&mut command);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (status.code(), said)
}

/// A pipeline over the CSV files at `path`, in `dir`.
fn pipeline(dir: &Path, path: &Path, policy: &str) -> String {
    let file = dir.join("p.toml");
    let (path, out) = (path.display().to_string(), dir.join("out").display().to_string());
    let text = format!(
        "name = \"p\"\non_bad_row = {policy:?}\n[source]\nkind = \"csv\"\npath = {path:?}\nchannels = [\"x\"]\n\
         [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = {out:?}\n"
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_source_without_an_end_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    let (pipe, inside) = (dir.path().join("pipe.csv"), dir.path().join("in"));
    make_pipe(&pipe);
    for (path, what) in [(pipe.as_path(), "it is a pipe"), (Path::new("/dev/zero"), "it is a device")] {
        let (code, said) = dacpipe(&["run", &pipeline(dir.path(), path, "fail"), "--quiet"], &[]);
        assert!(code == Some(4) && said.contains(what), "{code:?} {said}");
    }
    // Beside a good file it is one bad file.
    fs::create_dir(&inside).unwrap();
    make_pipe(&inside.join("a.csv"));
    fs::write(inside.join("b.csv"), counting(9)).unwrap();
    let (code, said) = dacpipe(&["run", &pipeline(dir.path(), &inside, "fail"), "--quiet"], &[]);
    assert!(code == Some(4) && said.contains("a.csv: it is a pipe"), "{code:?} {said}");
    let (code, said) = dacpipe(&["run", &pipeline(dir.path(), &inside, "quarantine"), "--quiet"], &[]);
    assert_eq!(code, Some(0), "{said}");
}

#[cfg(unix)]
#[test]
fn a_pipeline_a_query_and_a_model_without_an_end_are_refused() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    make_pipe(&pipe);
    let pipe = pipe.display().to_string();
    for path in [pipe.as_str(), "/dev/zero", dir.path().to_str().unwrap()] {
        for args in [&["run", path][..], &["check", path]] {
            let (code, said) = dacpipe(args, &[]);
            assert_eq!(code, Some(3), "{args:?} {said}");
        }
        let (code, said) = dacpipe(&["sql", "--dir", "none", "--file", path], &[]);
        assert!(code == Some(7) && said.contains("cannot read"), "{path}: {code:?} {said}");
    }
    let table = dir.path().join("t.parquet");
    make_pipe(&table);
    let table = format!("t={}", table.display());
    let (code, said) = dacpipe(&["sql", "--dir", "none", "--table", &table, "-c", "SELECT 1"], &[]);
    assert!(code == Some(4) && said.contains("it is a pipe"), "{code:?} {said}");
    for (path, what) in [(pipe.as_str(), "is a pipe;"), ("/dev/zero", "is a device;")] {
        let (code, said) = dacpipe(&["sql", "--dir", "none", "--table", &format!("t={path}"), "-c", "SELECT 1"], &[]);
        assert!(
            code == Some(4) && said.contains(what) && said.contains("expected the directory of a table"),
            "{code:?} {said}"
        );
    }
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    make_pipe(&model.join("manifest.json"));
    make_pipe(&model.join("model.safetensors"));
    let data = dir.path().join("a.parquet");
    write_parquet(&data, &[1.0]);
    let [model, data] = [&model, &data].map(|path| path.display().to_string());
    let output = dir.path().join("out").display().to_string();
    let (code, said) = dacpipe(&["label", "--model", &model, "--input", &data, "--output", &output], &[]);
    assert!(code.is_some_and(|code| code != 0) && said.contains("it is a pipe"), "{code:?} {said}");
}

#[test]
fn a_pipeline_file_larger_than_its_bound_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("p.toml");
    // A sparse file: it must not be read into memory.
    fs::File::create(&path).unwrap().set_len(10 << 30).unwrap();
    let problems = PipelineFile::load(&path, &[]).unwrap_err().to_string();
    assert!(problems.contains("larger than 16777216 bytes"), "{problems}");
    assert!(!problems.contains("there is"), "the file itself is no other file that was meant: {problems}");
}

// ---- what is asked for ----

#[test]
fn many_problems_are_found_in_linear_time_and_the_first_are_shown() {
    let mut text = String::from("name = \"x\"\n");
    (0..100_000).for_each(|i| text.push_str(&format!("unknown_{i} = {i}\n")));
    text.push_str(
        "[source]\nkind = \"hapt\"\npath = \"d\"\n[[stage]]\nkind = \"kmeans\"\nk = 3\n[sink]\npath = \"o\"\n",
    );
    let began = Instant::now();
    let problems = PipelineFile::parse("x.toml", &text, &[], &|_| None).unwrap_err();
    assert_eq!(problems.len(), 100_000);
    let said = problems.to_string();
    assert!(said.len() < 100_000 && said.ends_with("and 99950 more"), "{} bytes", said.len());
    // Squared, this takes minutes.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());

    let channels: Vec<String> = (0..50_000).map(|i| format!("\"c{}\"", i % 49_999)).collect();
    let text = format!(
        "name = \"x\"\n[source]\nkind = \"csv\"\npath = \"d\"\nchannels = [{}]\n[[stage]]\nkind = \"kmeans\"\nk = 3\n[sink]\npath = \"o\"\n",
        channels.join(",")
    );
    let said = PipelineFile::parse("x.toml", &text, &[], &|_| None).unwrap_err().to_string();
    assert!(said.contains("column \"c0\" is named twice"), "{}", &said[..said.len().min(500)]);

    // One problem with a name of megabytes.
    let long = "k".repeat(3 << 20);
    let text = format!("{long} = 1\n{}", "name = \"x\"\n");
    let said = PipelineFile::parse("x.toml", &text, &[], &|_| None).unwrap_err().to_string();
    assert!(said.len() < 20_000, "{} bytes", said.len());
}

fn problems_of(stages: &str, top: &str) -> Vec<String> {
    let text = format!(
        "name = \"x\"\n{top}\n[source]\nkind = \"csv\"\npath = \"d\"\nchannels = [\"a\", \"b\"]\n{stages}\n[sink]\npath = \"o\"\n"
    );
    match PipelineFile::parse("x.toml", &text, &[], &|_| None) {
        Ok(_) => vec![],
        Err(problems) => problems.iter().map(|problem| problem.message().to_string()).collect(),
    }
}

#[test]
fn check_says_what_memory_does_not_hold() {
    let network = |widths: &str| {
        format!(
            "[[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"autoencoder\"\nencoder = {widths}\n[[stage]]\nkind = \"kmeans\"\nk = 3"
        )
    };
    assert_eq!(problems_of(&network("[256, 128, 10]"), ""), [""; 0]);
    let said = problems_of(&network("[65536, 65536]"), "");
    assert!(
        said.len() == 1 && said[0].contains("the network needs") && said[0].contains("raise memory_limit"),
        "{said:?}"
    );
    // What fits depends on the limit.
    assert_eq!(problems_of(&network("[200, 10]"), "memory_limit = \"64 MiB\"").len(), 0);
    assert_eq!(problems_of(&network("[4000, 4000]"), "memory_limit = \"64 MiB\"").len(), 1);
    assert_eq!(problems_of(&network("[4000, 4000]"), "memory_limit = \"16 GiB\"").len(), 0);

    let windows = |length: usize, set: &str| {
        format!(
            "[[stage]]\nkind = \"window\"\nlength = {length}\nstride = 5\n{set}\n[[stage]]\nkind = \"kmeans\"\nk = 1000000"
        )
    };
    assert_eq!(problems_of(&windows(20, ""), ""), [""; 0]);
    assert!(problems_of(&windows(1 << 20, ""), "").iter().any(|said| said.contains("a row of 2097152 values")));
    assert!(problems_of(&windows(400_000, ""), "").iter().any(|said| said.contains("k-means needs")));
    let summary = "[[stage]]\nkind = \"features\"\nset = \"summary\"";
    assert_eq!(problems_of(&windows(1 << 20, summary), ""), [""; 0]);
    assert!(problems_of(&windows(1 << 24, summary), "")[0].contains("one window needs"));
}

#[test]
fn a_stage_that_would_not_fit_is_an_error_before_it_begins() {
    let (values, device, control) = (vec![0.5; 4000 * 10], Cpu::new(1), Control::default());
    let rows = Dense::new(&values, 10);
    let classes: Vec<Option<u32>> = (0..4000).map(Some).collect();
    let data = Training { classes: Some(&classes), ..Training::new(&rows) };
    let memory = 1 << 19;
    let cx = FitContext { seed: Seed(1), device: &device, control: &control, checkpoint: &NoCheckpoint, memory };
    let weights = |method, labels| WeightsSpec { method, labels, sample: None };
    let column = || WeightLabels::Column("y".into());
    let stages: [(Box<dyn Fit>, &str); 5] = [
        (
            Box::new(Autoencoder { spec: AutoencoderSpec { encoder: vec![65_536, 65_536], ..Default::default() } }),
            "training a network of ",
        ),
        (Box::new(KMeansStage::new(KMeansSpec::new(3000), "features")), "k-means with 3000 clusters"),
        (Box::new(FeatureWeightsStage::new(weights(WeightMethod::Pairwise, column()))), "weighing 10 features by 4000"),
        (Box::new(FeatureWeightsStage::new(weights(WeightMethod::Fisher, column()))), "weighing 10 features by 4000"),
        (
            Box::new(FeatureWeightsStage::new(weights(WeightMethod::Pairwise, WeightLabels::Pseudo { k: 4000 }))),
            "finding 4000 pseudo-labels",
        ),
    ];
    for (stage, what) in stages {
        let e = stage.fit(&data, &cx).unwrap_err();
        assert_eq!(e.kind(), Kind::Compute, "{e}");
        assert!(e.to_string().starts_with(what) && e.to_string().contains("raise memory_limit"), "{e}");
    }
}

#[test]
fn rows_of_more_values_than_the_bound_are_refused_before_they_are_named() {
    let channels: Vec<String> = (0..3000).map(|i| format!("c{i}")).collect();
    for set in [FeatureSet::Samples, FeatureSet::Summary(Default::default())] {
        let window = WindowSpec { length: 1 << 24, stride: 1, within: Within::Recordings };
        let e = FeatureExtractor::new(&set, &channels, 50.0, &window).unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains("at most 1048576"), "{e}");
        // As a damaged model may ask for it.
        let window = WindowSpec { length: usize::MAX, ..window };
        let e = FeatureExtractor::new(&set, &channels, 50.0, &window).unwrap_err();
        assert!(e.to_string().contains("window length"), "{e}");
    }
}

#[test]
fn a_number_of_threads_that_cannot_be_is_refused_with_words() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.csv"), counting(9)).unwrap();
    let file = pipeline(dir.path(), &dir.path().join("a.csv"), "fail");
    for wrong in ["0", "1025", "20000", "1000000", "-1", "two", "", "99999999999999999999", "1.5"] {
        let (code, said) = dacpipe(&["run", &file, "--quiet"], &[("DACPIPE_THREADS", wrong)]);
        let expected = format!("DACPIPE_THREADS={wrong}: expected a number of threads from 1 to 1024");
        assert!(code == Some(3) && said.contains(&expected), "{code:?} {said}");
        let (code, _) = dacpipe(&["sql", "-c", "SELECT 1", "--dir", "none"], &[("DACPIPE_THREADS", wrong)]);
        assert_eq!(code, Some(3), "{wrong}");
    }
    let (code, said) = dacpipe(&["run", &file, "--quiet"], &[("DACPIPE_THREADS", " 3 ")]);
    assert_eq!(code, Some(0), "{said}");
}
