//! Simulated recordings: their layout, their determinism, and that their activities can be learned but are not trivial
//! to find.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use dacpipe::Seed;
use dacpipe::simulate::{
    ACCELERATION_QUANTUM, ANGULAR_VELOCITY_QUANTUM, Activity, Experiment, SimulateSpec, WriteOptions, hapt, write_hapt,
};

const LENGTH: usize = 128;
const STRIDE: usize = 64;

fn spec() -> SimulateSpec {
    SimulateSpec { users: 6, experiments_per_user: 2, minutes: 3.0, seed: Seed(11) }
}

fn unzipped(gzip: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
    text
}

/// Text of a file, decompressed where its name ends in `.gz`.
fn text(path: &Path) -> String {
    match path.extension().unwrap() == "gz" {
        true => unzipped(&fs::read(path).unwrap()),
        false => fs::read_to_string(path).unwrap(),
    }
}

fn numbers(path: &Path) -> Vec<Vec<f64>> {
    text(path).lines().map(|l| l.split(' ').map(|n| n.parse().unwrap()).collect()).collect()
}

/// All files below `directory` by name, with their bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().map(|(n, bytes)| (format!("{name}/{n}"), bytes))),
            false => {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Checks a directory in the HAPT layout and returns the number of windows of each activity.
fn check_layout(directory: &Path, ending: &str) -> [usize; 13] {
    let raw = directory.join("RawData");
    let mut windows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut of_activity = [0; 13];
    let (mut current, mut samples, mut free_from) = (0, 0, 0);
    for row in numbers(&raw.join("labels.txt")) {
        let [experiment, user, activity, first, last] = row[..] else { panic!("{row:?}") };
        let (experiment, first, last) = (experiment as usize, first as usize, last as usize);
        if experiment != current {
            let lines = |sensor| {
                text(&raw.join(format!("{sensor}_exp{experiment:02}_user{user:02}.txt{ending}"))).lines().count()
            };
            (current, samples, free_from) = (experiment, lines("acc"), 0);
            assert_eq!(samples, lines("gyro"));
        }
        assert!(free_from < first && first < last && last <= samples, "{row:?} of {samples} samples");
        free_from = last;
        let cut = (0..).take_while(|i| first - 1 + i * STRIDE + LENGTH <= last).count();
        windows.entry(user as usize).or_default().extend(vec![activity as usize; cut]);
        of_activity[activity as usize] += cut;
    }
    for (upper, lower) in [("Train", "train"), ("Test", "test")] {
        let column = |name: String| numbers(&directory.join(upper).join(name)).concat();
        let activities = column(format!("y_{lower}.txt"));
        let users = column(format!("subject_id_{lower}.txt"));
        assert_eq!(activities.len(), users.len());
        assert!(!users.is_empty(), "no windows in {upper}");
        let mut expected = Vec::new();
        for (user, activities) in &windows {
            if users.contains(&(*user as f64)) {
                expected.extend(activities.iter().map(|a| (*user as f64, *a as f64)));
            }
        }
        assert_eq!(users.into_iter().zip(activities).collect::<Vec<_>>(), expected);
    }
    of_activity
}

#[test]
fn the_files_have_the_layout() {
    let directory = tempfile::tempdir().unwrap();
    let summary = write_hapt(directory.path(), spec(), WriteOptions::default()).unwrap();
    let windows = check_layout(directory.path(), "");
    assert_eq!(summary.experiments, 12);
    assert_eq!(summary.train_windows + summary.test_windows, windows.iter().sum::<usize>());
    for activity in Activity::ALL {
        assert!(windows[activity.number()] >= 4, "{} has {} windows", activity.name(), windows[activity.number()]);
    }
    let names = fs::read_to_string(directory.path().join("activity_labels.txt")).unwrap();
    assert!(names.starts_with("1 WALKING\n") && names.ends_with("12 LIE_TO_STAND\n"));
    let bytes: usize = files(directory.path()).values().map(Vec::len).sum();
    assert_eq!(summary.bytes, bytes as u64);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let write = |seed, gzip| {
        let directory = tempfile::tempdir().unwrap();
        let spec = SimulateSpec { users: 2, experiments_per_user: 1, minutes: 1.0, seed: Seed(seed) };
        write_hapt(directory.path(), spec, WriteOptions { gzip, force: false }).unwrap();
        files(directory.path())
    };
    assert_eq!(write(1, true), write(1, true));
    let (one, two) = (write(1, false), write(2, false));
    assert_eq!(one.len(), two.len());
    assert_ne!(one["RawData/acc_exp01_user01.txt"], two["RawData/acc_exp01_user01.txt"]);
}

#[test]
fn compressed_and_plain_files_hold_the_same_numbers() {
    let spec = SimulateSpec { users: 2, experiments_per_user: 1, minutes: 1.0, seed: Seed(5) };
    let (plain, gzip) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_hapt(plain.path(), spec, WriteOptions::default()).unwrap();
    write_hapt(gzip.path(), spec, WriteOptions { gzip: true, force: false }).unwrap();
    for name in ["acc_exp01_user01.txt", "gyro_exp02_user02.txt"] {
        let compressed = gzip.path().join("RawData").join(format!("{name}.gz"));
        assert_eq!(text(&plain.path().join("RawData").join(name)), text(&compressed));
        // The header's time of writing.
        assert_eq!(fs::read(compressed).unwrap()[4..8], [0; 4]);
    }
}

#[test]
fn the_example_set_is_small_and_is_what_its_command_makes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hapt");
    let windows = check_layout(&example, ".gz");
    assert!(windows.iter().sum::<usize>() >= 500);
    let committed = files(&example);
    assert!(committed.values().map(Vec::len).sum::<usize>() <= 4_500_000);
    let command = "dacpipe simulate hapt --out DIR --users 20 --experiments-per-user 2 --minutes 3 --seed 7 --gzip";
    assert_eq!(committed["SIMULATED"], format!("{command}\n").into_bytes());

    let again = tempfile::tempdir().unwrap();
    let spec = SimulateSpec { users: 20, experiments_per_user: 2, minutes: 3.0, seed: Seed(7) };
    write_hapt(again.path(), spec, WriteOptions { gzip: true, force: false }).unwrap();
    let again = files(again.path());
    assert!(committed.keys().eq(again.keys()));
    for (name, bytes) in &committed {
        match name.strip_suffix(".gz") {
            // Another version of the compressor, or another platform's sine, may change bytes, but a reading by at most
            // one rounding step.
            Some(_) => assert_close(&unzipped(bytes), &unzipped(&again[name]), name),
            None => assert_eq!(bytes, &again[name], "{name}"),
        }
    }
}

fn assert_close(a: &str, b: &str, name: &str) {
    assert_eq!(a.lines().count(), b.lines().count(), "{name}");
    let pairs = a.split_whitespace().zip(b.split_whitespace());
    for (a, b) in pairs.filter(|(a, b)| a != b) {
        let difference = a.parse::<f64>().unwrap() - b.parse::<f64>().unwrap();
        assert!(difference.abs() < 2e-3, "{name}: {a} is not {b}");
    }
}

#[test]
fn readings_are_quantised_also_as_printed() {
    let experiment = hapt(spec()).unwrap().next().unwrap();
    let off_grid = |value: f64, quantum: f64| (value / quantum - (value / quantum).round()).abs();
    for value in experiment.acceleration.iter().flatten() {
        assert!(off_grid(*value, ACCELERATION_QUANTUM) < 1e-9);
        let printed: f64 = format!("{value:.5}").parse().unwrap();
        assert!(off_grid(printed, ACCELERATION_QUANTUM) < 0.01);
    }
    for value in experiment.angular_velocity.iter().flatten() {
        assert!(off_grid(*value, ANGULAR_VELOCITY_QUANTUM) < 1e-9);
    }
}

/// Statistics of a window: for each axis of the accelerometer, then of the gyroscope, the mean and the deviation.
struct Window {
    user: usize,
    activity: Activity,
    statistics: [f64; 12],
}

/// The logarithm of a deviation is scaled down to the size of the means.
const LOG_SCALE: f64 = 0.2;

fn mean_and_log_deviation(rows: &[[f64; 3]], axis: usize) -> [f64; 2] {
    let mean = rows.iter().map(|r| r[axis]).sum::<f64>() / rows.len() as f64;
    let variance = rows.iter().map(|r| (r[axis] - mean).powi(2)).sum::<f64>() / rows.len() as f64;
    [mean, LOG_SCALE * 0.5 * variance.ln()]
}

fn windows(experiment: &Experiment) -> Vec<Window> {
    let mut windows = Vec::new();
    for interval in &experiment.labels {
        let last_start = (interval.last + 1).saturating_sub(LENGTH);
        for start in (interval.first..=last_start).step_by(STRIDE) {
            let mut statistics = [0.0; 12];
            for (pair, out) in statistics.chunks_exact_mut(2).enumerate() {
                let channels = if pair < 3 { &experiment.acceleration } else { &experiment.angular_velocity };
                out.copy_from_slice(&mean_and_log_deviation(&channels[start..start + LENGTH], pair % 3));
            }
            windows.push(Window { user: experiment.user, activity: interval.activity, statistics });
        }
    }
    windows
}

fn all_windows() -> Vec<Window> {
    hapt(spec()).unwrap().flat_map(|e| windows(&e)).collect()
}

#[test]
fn activities_move_as_people_do() {
    let windows = all_windows();
    let mean = |activity, statistic: usize| {
        let chosen = windows.iter().filter(|w| w.activity == activity).map(|w| w.statistics[statistic]);
        chosen.clone().sum::<f64>() / chosen.count() as f64
    };
    let up = |activity| mean(activity, 0);
    assert!(up(Activity::Standing) > 0.9 && up(Activity::Laying).abs() < 0.25, "gravity turns with the posture");
    let vertical_deviation = |activity| (mean(activity, 1) / LOG_SCALE).exp();
    for still in [Activity::Sitting, Activity::Standing, Activity::Laying] {
        assert!(vertical_deviation(still) < 0.02, "{}: {}", still.name(), vertical_deviation(still));
    }
    let level = vertical_deviation(Activity::Walking);
    assert!(level > 0.15);
    assert!(vertical_deviation(Activity::WalkingDownstairs) > 1.15 * level, "feet land hardest on the way down");
    let turning = |activity| mean(activity, 6);
    assert!(turning(Activity::WalkingUpstairs) > 0.1 && turning(Activity::WalkingDownstairs) < -0.1, "stairs wind");
    assert!(turning(Activity::Walking).abs() < 0.1);
}

#[test]
fn activities_can_be_learned_from_simple_statistics_but_not_all_of_them() {
    let windows = all_windows();
    let (known, asked): (Vec<_>, Vec<_>) = windows.iter().partition(|w| w.user <= 4);
    let distance =
        |a: &Window, b: &Window| -> f64 { a.statistics.iter().zip(&b.statistics).map(|(a, b)| (a - b).powi(2)).sum() };
    let kind = |activity: Activity| match activity {
        Activity::Walking | Activity::WalkingUpstairs | Activity::WalkingDownstairs => "on foot",
        Activity::Sitting | Activity::Standing => "upright",
        Activity::Laying => "lying",
        _ => "changing",
    };
    // Each window of the last users gets the activity of the most similar window of the others.
    let (mut same_kind, mut right) = (0, BTreeMap::<Activity, (usize, usize)>::new());
    for window in &asked {
        let nearest = known.iter().min_by(|a, b| distance(a, window).total_cmp(&distance(b, window))).unwrap();
        same_kind += usize::from(kind(nearest.activity) == kind(window.activity));
        let (hits, all) = right.entry(window.activity).or_default();
        *hits += usize::from(nearest.activity == window.activity);
        *all += 1;
    }
    let shares: Vec<f64> = right.values().map(|(hits, all)| *hits as f64 / *all as f64).collect();
    let same_kind = same_kind as f64 / asked.len() as f64;
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    println!("right: {same_kind:.3} of the kinds, {mean:.3} of the windows of an activity; {right:?}");
    assert!(same_kind > 0.95, "{same_kind:.3} are of the right kind");
    assert_eq!(shares.len(), 12);
    assert!(mean > 0.6, "activities can be learned: {mean:.3}");
    let hard = shares.iter().filter(|share| **share < 0.95).count();
    assert!(mean < 0.95 && hard >= 3, "not all are trivial: {right:?}");
}

fn stream(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dacpipe"));
    let output = command.args(["simulate", "stream"]).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The same seed gives the same lines, wherever they go and however fast.
#[test]
fn a_stream_of_sensors_is_the_same_in_every_form() {
    let usual = ["--sensors", "3", "--rate", "20", "--drift", "2 s"];
    let lines = |more: &[&str]| {
        let (code, stdout, stderr) = stream(&[&usual[..], &["--out", "-"], more].concat());
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    let text = lines(&["--seconds", "5", "--speed", "max"]);
    assert_eq!(text.lines().count(), 1 + 5 * 20 * 3);
    assert_eq!(text.lines().next(), Some("sensor,time_us,x,y,z,state"));
    assert_eq!(lines(&["--seconds", "5", "--speed", "50"]), text);
    assert!(text.starts_with(&lines(&["--rows", "100", "--speed", "max"])));
    assert_ne!(lines(&["--seconds", "5", "--speed", "max", "--seed", "8"]), text);
    let objects = lines(&["--seconds", "5", "--speed", "max", "--format", "ndjson"]);
    for (line, object) in text.lines().skip(1).zip(objects.lines()) {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        let x: f64 = line.split(',').nth(2).unwrap().parse().unwrap();
        assert_eq!(object["x"].as_f64(), Some(x));
    }
    assert_eq!(objects.lines().count(), text.lines().count() - 1);

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("in").display().to_string();
    let args = [&usual[..], &["--out", &out, "--seconds", "5", "--speed", "max", "--every", "2 s"]].concat();
    let (code, stdout, stderr) = stream(&args);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("300 simulated lines of 3 sensors in 3 files"), "{stdout}");
    let files = files(Path::new(&out));
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        [1, 2, 3].map(|n| format!("stream-{n:08}.csv")).iter().collect::<Vec<_>>()
    );
    let joined: Vec<String> = files
        .values()
        .flat_map(|bytes| String::from_utf8_lossy(bytes).lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(joined, text.lines().skip(1).collect::<Vec<_>>());
    // Another stream is not mixed with it.
    let (code, _, stderr) = stream(&args);
    assert!(code == Some(3) && stderr.contains("a directory that is empty or new"), "{stderr}");
    let (code, _, stderr) = stream(&["--out", "-", "--sensors", "0"]);
    assert!(code == Some(3) && stderr.contains("would be accepted"), "{stderr}");
    let (code, _, stderr) = stream(&["--out", "-", "--speed", "0"]);
    assert!(code == Some(2) && stderr.contains("or max"), "{stderr}");
}
