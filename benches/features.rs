//! The features of recordings: one window at a time, and the filters before it.
//!
//! `cargo bench --bench features`. The item rate of `extract` is windows per second and core; add the time of `prepare`
//! for the samples of a stride (64 here).

use dacpipe::signal::features::{FeatureExtractor, FeatureSet};
use dacpipe::signal::summary::SummarySpec;
use dacpipe::signal::window::{WindowSpec, Within};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const SAMPLES: usize = 20_000;
const WINDOW: WindowSpec = WindowSpec { length: 128, stride: 64, within: Within::Recordings };

fn main() {
    divan::main();
}

/// Six channels of gait-like waves, noise, and 1/720 quantisation.
fn recording() -> Vec<Vec<f64>> {
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) - 0.5
    };
    let mut sample = |c: usize, t: usize| {
        let s = t as f64 / 50.0;
        let wave = (11.3 * s + c as f64).sin() + 0.4 * (22.6 * s).cos() + 0.2 * noise();
        ((0.5 * (s / 9.0).cos() + 0.3 * wave) * 720.0).round() / 720.0
    };
    (0..6).map(|c| (0..SAMPLES).map(|t| sample(c, t)).collect()).collect()
}

fn extractor(set: &FeatureSet) -> FeatureExtractor {
    let channels = ["ax", "ay", "az", "gx", "gy", "gz"].map(str::to_string);
    FeatureExtractor::new(set, &channels, 50.0, &WINDOW).expect("six channels at 50 Hz")
}

fn bench_extract(bencher: Bencher, set: &FeatureSet) {
    let extractor = extractor(set);
    let prepared = extractor.prepare(&recording()).expect("finite samples");
    let starts = WINDOW.starts(0, SAMPLES);
    let mut scratch = extractor.scratch();
    let mut row = vec![0.0; extractor.dim()];
    bencher.counter(ItemsCount::new(starts.len())).bench_local(|| {
        for start in starts.clone() {
            extractor.extract(&mut scratch, &prepared, start, &mut row).expect("inside the recording");
            black_box(&row);
        }
    });
}

#[divan::bench]
fn extract_hapt561(bencher: Bencher) {
    bench_extract(bencher, &FeatureSet::Hapt561);
}

#[divan::bench]
fn extract_summary(bencher: Bencher) {
    bench_extract(bencher, &FeatureSet::Summary(SummarySpec::default()));
}

#[divan::bench]
fn prepare_hapt561(bencher: Bencher) {
    let extractor = extractor(&FeatureSet::Hapt561);
    let channels = recording();
    bencher
        .counter(ItemsCount::new(SAMPLES))
        .bench_local(|| black_box(extractor.prepare(black_box(&channels)).expect("finite samples")));
}
