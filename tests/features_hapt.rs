//! The 561 features, compared with the published figures of HAPT and with a slow reference.
//!
//! The tests on real recordings read the directory `hapt` under the one that DACPIPE_DATA names, and skip without it.

use dacpipe::signal::features::{FeatureExtractor, FeatureSet};
use dacpipe::signal::hapt561;
use dacpipe::signal::summary::{LowPassSpec, Statistic, SummarySpec};
use dacpipe::signal::window::{WindowSpec, Within};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::{FRAC_PI_2, TAU};
use std::path::{Path, PathBuf};

const WINDOW: WindowSpec = WindowSpec { length: 128, stride: 64, within: Within::Labels };

fn channel_names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect()
}

fn hapt() -> FeatureExtractor {
    let channels = channel_names(&["ax", "ay", "az", "gx", "gy", "gz"]);
    FeatureExtractor::new(&FeatureSet::Hapt561, &channels, 50.0, &WINDOW).unwrap()
}

// ---- Real recordings ------------------------------------------------------------------------------------------------

fn data() -> Option<PathBuf> {
    let found = std::env::var_os("DACPIPE_DATA").map(|d| Path::new(&d).join("hapt"));
    if found.is_none() {
        println!("skipped: DACPIPE_DATA is not set");
    }
    found
}

fn numbers(path: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| l.split_whitespace().map(|v| v.parse().unwrap()).collect()).collect()
}

/// A table whose first row names the columns and whose first column names the rows.
fn table(path: &Path) -> (Vec<String>, Vec<(String, Vec<f64>)>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header = lines.next().unwrap().split(',').skip(1).map(str::to_string).collect();
    let row = |line: &str| {
        let (name, values) = line.split_once(',').unwrap();
        (name.to_string(), values.split(',').map(|v| v.parse().unwrap()).collect())
    };
    (header, lines.map(row).collect())
}

/// The features of all windows in the order of `labels.txt`, with each window's user and activity.
struct Corpus {
    rows: Vec<Vec<f32>>,
    users: Vec<usize>,
    activities: Vec<usize>,
}

fn corpus(hapt_dir: &Path) -> Corpus {
    let extractor = hapt();
    let mut scratch = extractor.scratch();
    let mut corpus = Corpus { rows: vec![], users: vec![], activities: vec![] };
    let mut recording = (0, None);
    for label in numbers(&hapt_dir.join("RawData/labels.txt")) {
        let [experiment, user, activity, first, last] = label[..] else { panic!("labels.txt: {label:?}") };
        let experiment = experiment as usize;
        if recording.0 != experiment {
            let file = |kind| hapt_dir.join(format!("RawData/{kind}_exp{experiment:02}_user{user:02}.txt"));
            let (acc, gyro) = (numbers(&file("acc")), numbers(&file("gyro")));
            let column = |rows: &[Vec<f64>], c: usize| rows.iter().map(|r| r[c]).collect::<Vec<_>>();
            let channels: Vec<_> = [&acc, &gyro].iter().flat_map(|f| (0..3).map(|c| column(f, c))).collect();
            recording = (experiment, Some(extractor.prepare(&channels).unwrap()));
        }
        let prepared = recording.1.as_ref().unwrap();
        for start in WINDOW.starts(first as usize - 1, last as usize) {
            let mut row = vec![f32::NAN; extractor.dim()];
            extractor.extract(&mut scratch, prepared, start, &mut row).unwrap();
            corpus.rows.push(row);
            corpus.users.push(user as usize);
            corpus.activities.push(activity as usize);
        }
    }
    corpus
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sum = |a: &[f64], ma: f64, b: &[f64], mb: f64| a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>();
    sum(x, mx, y, my) / (sum(x, mx, x, mx) * sum(y, my, y, my)).sqrt()
}

/// The number of a feature of the published tables, which number the entropies of the axes; `features.txt` calls all
/// three `-ropy-1`.
fn feature(name: &str) -> usize {
    let names = hapt561::names();
    let (stem, number) = name.rsplit_once('-').unwrap();
    let (first, skip) = if stem.ends_with("-ropy") {
        (format!("{stem}-1"), number.parse::<usize>().unwrap() - 1)
    } else {
        (name.into(), 0)
    };
    skip + names.iter().position(|n| *n == first).unwrap_or_else(|| panic!("no feature {name}"))
}

/// Differences by family of features: how many, their mean and the largest.
#[derive(Default)]
struct Differences(BTreeMap<String, (usize, f64, f64)>);

impl Differences {
    fn add(&mut self, feature: &str, difference: f64) {
        let family = feature.rsplit_once('-').unwrap().0.to_string();
        let (count, sum, max) = self.0.entry(family).or_default();
        assert!(difference.is_finite(), "{feature}");
        (*count, *sum, *max) = (*count + 1, *sum + difference.abs(), max.max(difference.abs()));
    }

    fn check(&self, what: &str, tolerance: f64) {
        println!("{what}: family, figures, mean difference, largest difference");
        for (family, (count, sum, max)) in &self.0 {
            println!("  {family:32} {count:4} {:.7} {max:.7}", sum / *count as f64);
        }
        let worst = self.0.iter().max_by(|a, b| a.1.2.total_cmp(&b.1.2)).unwrap();
        assert!(worst.1.2 <= tolerance, "{what}: {} differs by {}", worst.0, worst.1.2);
    }
}

/// Published figures are rounded to six decimals, so the tolerance is half a unit of the last, plus the rounding of
/// `f32` features.
const TOLERANCE: f64 = 7e-7;

#[test]
fn the_features_are_the_published_ones() {
    let Some(dir) = data() else { return };
    let corpus = corpus(&dir);
    let users: Vec<usize> = numbers(&dir.join("Train/subject_id_train.txt")).iter().map(|r| r[0] as usize).collect();
    let activities: Vec<usize> = numbers(&dir.join("Train/y_train.txt")).iter().map(|r| r[0] as usize).collect();
    let training: BTreeSet<usize> = users.iter().copied().collect();
    let train: Vec<usize> = (0..corpus.rows.len()).filter(|i| training.contains(&corpus.users[*i])).collect();
    assert_eq!((corpus.rows.len(), train.len()), (10_929, 7_767));
    assert!(train.iter().map(|i| corpus.users[*i]).eq(users.iter().copied()), "users in another order");
    assert!(train.iter().map(|i| corpus.activities[*i]).eq(activities.iter().copied()), "activities in another order");

    let column = |name: &String| {
        let c = feature(name);
        train.iter().map(|i| f64::from(corpus.rows[*i][c])).collect::<Vec<f64>>()
    };
    let (header, published) = table(&dir.join("official_correlations_train.csv"));
    let columns: Vec<_> = header.iter().map(column).collect();
    let mut differences = Differences::default();
    for (name, figures) in &published {
        let x = column(name);
        for (y, figure) in columns.iter().zip(figures) {
            differences.add(name, correlation(&x, y) - figure);
        }
    }
    assert_eq!(differences.0.values().map(|d| d.0).sum::<usize>(), 522);
    differences.check("published correlations", TOLERANCE);

    let (header, published) = table(&dir.join("official_first_rows_train.csv"));
    let mut differences = Differences::default();
    for (at, name) in header.iter().enumerate().filter(|(_, n)| *n != "Activity") {
        let c = feature(name);
        let all = || corpus.rows.iter().map(|r| f64::from(r[c]));
        let (min, max) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        for (i, (_, figures)) in published.iter().enumerate() {
            let scaled = 2.0 * (f64::from(corpus.rows[train[i]][c]) - min) / (max - min) - 1.0;
            differences.add(name, scaled - figures[at]);
        }
    }
    differences.check("published first rows", TOLERANCE);
}

#[test]
fn the_names_are_the_published_ones() {
    let Some(dir) = data() else { return };
    let text = std::fs::read_to_string(dir.join("features.txt")).unwrap();
    let published: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let names = hapt561::names();
    assert_eq!(names.len(), published.len());
    for (i, (name, published)) in names.iter().zip(published).enumerate() {
        assert_eq!(name, published, "feature {}", i + 1);
    }
}

// ---- A slow twin on made-up recordings ------------------------------------------------------------------------------

/// Six channels that walk and turn: periods, drift, spikes and quantisation from a small generator.
fn recording(samples: usize, seed: u32) -> Vec<Vec<f64>> {
    let mut state = seed;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) - 0.5
    };
    let channel = |c: usize| {
        let sample = |t: usize| {
            let (s, phase) = (t as f64 / 50.0, c as f64);
            let wave = (TAU * 1.8 * s + phase).sin() + 0.4 * (TAU * (3.6 + phase / 9.0) * s).cos();
            let spike = if noise() > 0.49 { 2.0 } else { 0.0 };
            let value = 0.7 * (s / 9.0 + phase).cos() + 0.3 * wave + 0.1 * noise() + spike;
            (value * 720.0).round() / 720.0
        };
        (0..samples).map(sample).collect()
    };
    (0..6).map(channel).collect()
}

/// A filter as its difference equation, from the polynomials that scipy's `butter` gives.
fn difference_equation(b: &[f64], a: &[f64], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for t in 0..x.len() {
        let feed = b.iter().enumerate().filter(|(i, _)| *i <= t).map(|(i, b)| b * x[t - i]).sum::<f64>();
        let back = a.iter().enumerate().skip(1).filter(|(i, _)| *i <= t).map(|(i, a)| a * y[t - i]).sum::<f64>();
        y[t] = feed - back;
    }
    y
}

// from scipy.signal import butter
// for n, hz in ((10, 20), (3, .3), (2, .1)): print(*(p.tolist() for p in butter(n, hz / 25)), sep='\n')
const NOISE: ([f64; 11], [f64; 11]) = (
    [
        0.12837301330223735,
        1.2837301330223736,
        5.776785598600681,
        15.404761596268482,
        26.958332793469843,
        32.34999935216381,
        26.958332793469843,
        15.404761596268482,
        5.776785598600681,
        1.2837301330223736,
        0.12837301330223735,
    ],
    [
        1.0,
        5.987589629816666,
        16.672193323002652,
        28.258787900200513,
        32.15975648769455,
        25.601749597053324,
        14.405687426207773,
        5.6470743441324736,
        1.4737279369739056,
        0.2309193458620284,
        0.016479630547130843,
    ],
);
const GRAVITY: ([f64; 4], [f64; 4]) = (
    [6.4518491290909294e-06, 1.9355547387272787e-05, 1.9355547387272787e-05, 6.4518491290909294e-06],
    [1.0, -2.9246062354506974, 2.852027818593894, -0.9273699683501638],
);
const DRIFT: ([f64; 3], [f64; 3]) = (
    [3.913020539914434e-05, 7.826041079828868e-05, 3.913020539914434e-05],
    [1.0, -1.9822289297925284, 0.9823854506141251],
);

fn median_of_three(x: &[f64]) -> Vec<f64> {
    let at = |t: usize| if t == 0 || t > x.len() { 0.0 } else { x[t - 1] };
    let middle = |t: usize| {
        let mut w = [at(t), at(t + 1), at(t + 2)];
        w.sort_by(f64::total_cmp);
        w[1]
    };
    (0..x.len()).map(middle).collect()
}

/// The five signals, three axes each, by the definitions.
fn slow_signals(channels: &[Vec<f64>]) -> Vec<[Vec<f64>; 3]> {
    let clean: Vec<Vec<f64>> =
        channels.iter().map(|c| difference_equation(&NOISE.0, &NOISE.1, &median_of_three(c))).collect();
    let minus = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<f64>>();
    let gravity: [Vec<f64>; 3] = [0, 1, 2].map(|c| difference_equation(&GRAVITY.0, &GRAVITY.1, &clean[c]));
    let body = [0, 1, 2].map(|c| minus(&clean[c], &gravity[c]));
    let gyro = [3, 4, 5].map(|c| minus(&clean[c], &difference_equation(&DRIFT.0, &DRIFT.1, &clean[c])));
    let jerk = |of: &[Vec<f64>; 3]| {
        [0, 1, 2].map(|c| {
            let x = &of[c];
            (0..x.len()).map(|t| x.get(t + 1).map_or(0.0, |next| (next - x[t]) * 50.0)).collect()
        })
    };
    let (body_jerk, gyro_jerk) = (jerk(&body), jerk(&gyro));
    vec![body, gravity, body_jerk, gyro, gyro_jerk]
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn moment(x: &[f64], power: i32) -> f64 {
    let m = mean(x);
    x.iter().map(|v| (v - m).powi(power)).sum::<f64>() / x.len() as f64
}

fn quantile(x: &[f64], p: f64) -> f64 {
    let mut s = x.to_vec();
    s.sort_by(f64::total_cmp);
    let position = (p * s.len() as f64 - 0.5).max(0.0);
    let i = position as usize;
    s[i] + position.fract() * (s[(i + 1).min(s.len() - 1)] - s[i])
}

fn level_entropy(x: &[f64], scale: f64) -> f64 {
    let mut counts = [0.0f64; 256];
    x.iter().for_each(|v| counts[(v * scale * 255.0).round().clamp(0.0, 255.0) as usize] += 1.0);
    let n = x.len() as f64;
    -counts.iter().filter(|c| **c > 0.0).map(|c| c / n * (c / n).log2()).sum::<f64>()
}

fn slow_burg(x: &[f64]) -> Vec<f64> {
    let (mut f, mut b, mut a) = (x.to_vec(), x.to_vec(), vec![1.0]);
    for m in 1..=4 {
        let cross: f64 = (m..x.len()).map(|t| f[t] * b[t - 1]).sum();
        let power: f64 = (m..x.len()).map(|t| f[t].powi(2) + b[t - 1].powi(2)).sum();
        let k = -2.0 * cross / power;
        a.push(0.0);
        a = (0..=m).map(|i| a[i] + k * a[m - i]).collect();
        for t in (m..x.len()).rev() {
            (f[t], b[t]) = (f[t] + k * b[t - 1], b[t - 1] + k * f[t]);
        }
    }
    a[1..].to_vec()
}

fn slow_spectrum(x: &[f64]) -> Vec<f64> {
    let part = |k: usize, shift: f64| {
        let term = |(t, v): (usize, &f64)| v * (TAU * ((k * t) % x.len()) as f64 / x.len() as f64 + shift).sin();
        x.iter().enumerate().map(term).sum::<f64>()
    };
    (1..=x.len() / 2).map(|k| part(k, 0.0).hypot(part(k, FRAC_PI_2)) * 2.0 / x.len() as f64).collect()
}

fn slow_angle(a: [f64; 3], b: [f64; 3]) -> f64 {
    let dot = |a: [f64; 3], b: [f64; 3]| (0..3).map(|i| a[i] * b[i]).sum::<f64>();
    (dot(a, b) / dot(a, a).sqrt() / dot(b, b).sqrt()).acos()
}

/// The statistics that signals and spectra have in common, one after the other, each for all of `group`.
fn statistics(group: &[Vec<f64>], scale: f64, out: &mut Vec<f64>) {
    let each = |out: &mut Vec<f64>, f: &dyn Fn(&[f64]) -> f64| out.extend(group.iter().map(|x| f(x)));
    each(out, &mean);
    each(out, &|x| (moment(x, 2) * x.len() as f64 / (x.len() - 1) as f64).sqrt());
    each(out, &|x| mean(&x.iter().map(|v| (v - mean(x)).abs()).collect::<Vec<_>>()));
    each(out, &|x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    each(out, &|x| x.iter().copied().fold(f64::INFINITY, f64::min));
    out.push(group.iter().map(|x| mean(&x.iter().map(|v| v.abs()).collect::<Vec<_>>())).sum());
    each(out, &|x| mean(&x.iter().map(|v| v * v).collect::<Vec<_>>()));
    each(out, &|x| quantile(x, 0.75) - quantile(x, 0.25));
    each(out, &|x| level_entropy(x, scale));
}

fn spectral(group: &[Vec<f64>], scale: f64, out: &mut Vec<f64>) {
    let spectra: Vec<Vec<f64>> = group.iter().map(|x| slow_spectrum(x)).collect();
    statistics(&spectra, scale, out);
    out.extend(spectra.iter().map(|s| 1.0 + (0..64).rev().max_by(|i, j| s[*i].total_cmp(&s[*j])).unwrap() as f64));
    let frequency = |s: &Vec<f64>| {
        let weighted: f64 = s.iter().enumerate().map(|(i, v)| (i + 1) as f64 * 50.0 / 128.0 * v).sum();
        weighted / s.iter().sum::<f64>()
    };
    out.extend(spectra.iter().map(frequency));
    for s in &spectra {
        out.push(moment(s, 3) / moment(s, 2).powf(1.5));
        out.push(moment(s, 4) / moment(s, 2).powi(2));
    }
    if group.len() == 3 {
        let ranges =
            [(8, 8), (4, 16), (2, 24)].map(|(count, width)| (0..count).map(move |i| i * width..(i + 1) * width));
        for s in &spectra {
            out.extend(ranges.clone().into_iter().flatten().map(|r| s[r].iter().map(|v| v * v).sum::<f64>()));
        }
    }
}

fn slow_features(signals: &[[Vec<f64>; 3]], start: usize) -> Vec<f64> {
    let cut: Vec<Vec<Vec<f64>>> =
        signals.iter().map(|s| s.iter().map(|axis| axis[start..start + 128].to_vec()).collect()).collect();
    let norm = |s: &Vec<Vec<f64>>| (0..128).map(|t| s.iter().map(|x| x[t] * x[t]).sum::<f64>().sqrt()).collect();
    let norms: Vec<Vec<f64>> = cut.iter().map(norm).collect();
    let scale = [1.0, 1.0, 0.02, 1.0, 0.02];
    let mut out = Vec::new();
    for (axes, scale) in cut.iter().zip(scale) {
        statistics(axes, scale, &mut out);
        out.extend(axes.iter().flat_map(|x| slow_burg(x)));
        out.extend([(0, 1), (0, 2), (1, 2)].map(|(i, j)| correlation(&axes[i], &axes[j])));
    }
    for (magnitude, scale) in norms.iter().zip(scale) {
        statistics(std::slice::from_ref(magnitude), scale, &mut out);
        out.extend(slow_burg(magnitude));
    }
    [0, 2, 3].iter().for_each(|s| spectral(&cut[*s], scale[*s], &mut out));
    [0, 2, 3, 4].iter().for_each(|s| spectral(std::slice::from_ref(&norms[*s]), scale[*s], &mut out));
    let vector = |s: usize| [mean(&cut[s][0]), mean(&cut[s][1]), mean(&cut[s][2])];
    out.extend([0, 2, 3, 4].map(|s| slow_angle(vector(s), vector(1))));
    out.extend([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(|axis| slow_angle(axis, vector(1))));
    out
}

#[test]
fn the_features_equal_their_slow_twin() {
    let extractor = hapt();
    let mut scratch = extractor.scratch();
    let channels = recording(1_000, 7);
    let prepared = extractor.prepare(&channels).unwrap();
    let signals = slow_signals(&channels);
    let mut row = vec![f32::NAN; extractor.dim()];
    for start in [0, 1, 333, 872] {
        extractor.extract(&mut scratch, &prepared, start, &mut row).unwrap();
        let slow = slow_features(&signals, start);
        assert_eq!(slow.len(), row.len());
        for (i, (got, expected)) in row.iter().zip(slow).enumerate() {
            let close = (f64::from(*got) - expected).abs() <= 2e-6 * (1e-3 + expected.abs());
            assert!(close, "{} of window {start}: {got}, the twin has {expected}", extractor.names()[i]);
        }
    }
}

#[test]
fn features_do_not_depend_on_what_was_extracted_before_or_beside() {
    let extractor = hapt();
    let prepared = extractor.prepare(&recording(3_000, 11)).unwrap();
    let starts: Vec<usize> = WINDOW.starts(0, prepared.samples()).collect();
    let rows = |starts: Vec<usize>| {
        let mut scratch = extractor.scratch();
        let extract = |start| {
            let mut row = vec![f32::NAN; extractor.dim()];
            extractor.extract(&mut scratch, &prepared, start, &mut row).unwrap();
            (start, row.iter().map(|v| v.to_bits()).collect::<Vec<u32>>())
        };
        starts.into_iter().map(extract).collect::<BTreeMap<_, _>>()
    };
    let forward = rows(starts.clone());
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| rows(starts.iter().rev().step_by(2).copied().collect()));
        let right = scope.spawn(|| rows(starts.iter().rev().skip(1).step_by(2).copied().collect()));
        (left.join().unwrap(), right.join().unwrap())
    });
    assert_eq!(left.into_iter().chain(right).collect::<BTreeMap<_, _>>(), forward);
}

#[test]
fn features_look_no_further_ahead_than_the_median() {
    let extractor = hapt();
    let (mut scratch, channels) = (extractor.scratch(), recording(600, 3));
    let short: Vec<Vec<f64>> = channels.iter().map(|c| c[..402].to_vec()).collect();
    let mut rows = [vec![0.0; extractor.dim()], vec![0.0; extractor.dim()]];
    for (row, of) in rows.iter_mut().zip([&channels, &short]) {
        // The last sample of the window needs the next one for its jerk, and that one the next for its median.
        extractor.extract(&mut scratch, &extractor.prepare(of).unwrap(), 402 - 2 - 128, row).unwrap();
    }
    assert_eq!(rows[0], rows[1]);
}

// ---- Other sensors --------------------------------------------------------------------------------------------------

#[test]
fn a_summary_takes_any_channels_rate_and_length() {
    let channels = channel_names(&["volt", "amp"]);
    let window = WindowSpec { length: 60, stride: 20, within: Within::Recordings };
    let spec = SummarySpec {
        magnitudes: BTreeMap::from([("norm".to_string(), channels.clone())]),
        jerk: true,
        median: Some(5),
        low_pass: Some(LowPassSpec { order: 2, cutoff_hz: 4.0 }),
        ..SummarySpec::default()
    };
    let set = FeatureSet::Summary(spec);
    let extractor = FeatureExtractor::new(&set, &channels, 10.0, &window).unwrap();
    let of_signal = 11 + 4 + 8 + 8;
    assert_eq!(extractor.dim(), 6 * of_signal + 1);
    let names = extractor.names();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name twice");
    assert_eq!(
        [&names[0], &names[of_signal], &names[2 * of_signal + 7], &names[4 * of_signal + 16], &names[6 * of_signal]],
        ["volt-mean", "amp-mean", "volt-jerk-iqr", "norm-spectrum-peak_hz", "volt-amp-correlation"]
    );
    let prepared = extractor.prepare(&recording(300, 5)[..2]).unwrap();
    let mut row = vec![f32::NAN; extractor.dim()];
    for start in window.starts(0, 300) {
        extractor.extract(&mut extractor.scratch(), &prepared, start, &mut row).unwrap();
        assert!(row.iter().all(|v| v.is_finite()), "window {start}");
    }
    let json = serde_json::to_string(&set).unwrap();
    assert_eq!(serde_json::from_str::<FeatureSet>(&json).unwrap(), set);
}

#[test]
fn a_summary_says_what_the_definitions_say() {
    let window = WindowSpec { length: 50, stride: 50, within: Within::Recordings };
    let spec = SummarySpec { bands: 5, ..SummarySpec::default() };
    let names = channel_names(&["x", "y"]);
    let extractor = FeatureExtractor::new(&FeatureSet::Summary(spec), &names, 20.0, &window).unwrap();
    let channels = &recording(90, 9)[..2];
    let mut row = vec![f32::NAN; extractor.dim()];
    extractor.extract(&mut extractor.scratch(), &extractor.prepare(channels).unwrap(), 33, &mut row).unwrap();
    let (x, y) = (&channels[0][33..83], &channels[1][33..83]);
    let spectrum = slow_spectrum(y);
    let energy: f64 = spectrum.iter().map(|v| v * v).sum();
    let power_entropy: f64 = spectrum.iter().map(|v| v * v / energy).map(|p| -p * p.log2()).sum();
    let peak = (0..25).max_by(|i, j| spectrum[*i].total_cmp(&spectrum[*j])).unwrap();
    let expected = [
        ("x-mean", mean(x)),
        ("x-skewness", moment(x, 3) / moment(x, 2).powf(1.5)),
        ("x-kurtosis", moment(x, 4) / moment(x, 2).powi(2)),
        ("y-iqr", quantile(y, 0.75) - quantile(y, 0.25)),
        ("y-ar3", slow_burg(y)[2]),
        ("y-spectrum-entropy", power_entropy),
        ("y-spectrum-peak_hz", (peak + 1) as f64 * 0.4),
        ("y-spectrum-energy", energy),
        ("y-band-2", spectrum[5..10].iter().map(|v| v * v).sum()),
        ("x-y-correlation", correlation(x, y)),
    ];
    for (name, expected) in expected {
        let got = row[extractor.names().iter().position(|n| n == name).unwrap_or_else(|| panic!("{name}"))];
        assert!((f64::from(got) - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{name}: {got}, not {expected}");
    }
}

#[test]
fn what_a_feature_set_cannot_take_is_said() {
    let six = channel_names(&["a", "b", "c", "d", "e", "f"]);
    let message = |set: &FeatureSet, channels: &[String], rate: f64, length: usize| {
        let window = WindowSpec { length, ..WINDOW };
        let error = FeatureExtractor::new(set, channels, rate, &window).unwrap_err();
        assert_eq!(error.kind(), dacpipe::Kind::Config);
        error.message().to_string()
    };
    let hapt = &FeatureSet::Hapt561;
    assert!(message(hapt, &six[..3], 50.0, 128).contains("6 channels"));
    assert!(message(hapt, &six, 100.0, 128).contains("50 samples a second, got 100"));
    assert!(message(hapt, &six, 50.0, 64).contains("128 samples, got 64"));
    assert!(message(&FeatureSet::Samples, &[], 50.0, 64).contains("no channels"));
    assert!(message(&FeatureSet::Samples, &six, f64::NAN, 64).contains("positive"));
    assert!(message(&FeatureSet::Samples, &six, 50.0, 0).contains("length is 0"));
    let twice = channel_names(&["a", "a"]);
    assert!(message(&FeatureSet::Samples, &twice, 50.0, 4).contains("\"a\" is named twice"));

    let summary = |change: &dyn Fn(&mut SummarySpec)| {
        let mut spec = SummarySpec::default();
        change(&mut spec);
        message(&FeatureSet::Summary(spec), &six, 50.0, 128)
    };
    let group = |name: &str, of: &[&str]| BTreeMap::from([(name.to_string(), channel_names(of))]);
    assert!(summary(&|s| s.bands = 65).contains("65 bands of a spectrum of 64 bins"));
    assert!(summary(&|s| s.median = Some(2)).contains("odd"));
    assert!(summary(&|s| s.low_pass = Some(LowPassSpec { order: 3, cutoff_hz: 25.0 })).contains("half"));
    assert!(summary(&|s| s.magnitudes = group("acc", &["a", "q"])).contains("channels are a, b, c, d, e, f"));
    assert!(summary(&|s| s.magnitudes = group("acc", &[])).contains("no channels"));
    assert!(summary(&|s| s.magnitudes = group("a", &["b"])).contains("name of a channel"));
    let nothing = |s: &mut SummarySpec| {
        (s.statistics, s.spectrum, s.bands, s.correlations) = (vec![], vec![], 0, false);
    };
    assert!(summary(&nothing).contains("has no features"));
}

#[test]
fn recordings_that_cannot_be_prepared_are_said() {
    let spec = SummarySpec { statistics: vec![Statistic::Mean], spectrum: vec![], bands: 0, ..SummarySpec::default() };
    let window = WindowSpec { length: 1, ..WINDOW };
    let names = channel_names(&["x", "y"]);
    let extractor = FeatureExtractor::new(&FeatureSet::Summary(spec), &names, 1.0, &window).unwrap();
    let message = |channels: &[Vec<f64>]| {
        let error = extractor.prepare(channels).unwrap_err();
        assert_eq!(error.kind(), dacpipe::Kind::Input);
        error.message().to_string()
    };
    assert!(message(&[vec![1.0]]).contains("1 channels; the features are of x, y"));
    assert!(message(&[vec![1.0], vec![1.0, 2.0]]).contains("1 samples and channel \"y\" 2"));
    assert!(message(&[vec![1.0, 2.0], vec![1.0, f64::NAN]]).contains("channel \"y\", sample 1: NaN"));
    let prepared = extractor.prepare(&[vec![], vec![]]).unwrap();
    let mut row = vec![0.0; extractor.dim()];
    assert!(
        extractor.extract(&mut extractor.scratch(), &prepared, 0, &mut row).unwrap_err().message().contains("past")
    );
    let other = hapt();
    let recording = other.prepare(&recording(200, 1)).unwrap();
    assert!(extractor.extract(&mut extractor.scratch(), &recording, 0, &mut row).is_err());
}
