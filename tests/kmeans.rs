//! k-means from outside: bad input is refused with a message, and edge cases give a result.

use dacpipe::device::Cpu;
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::{Decay, HalfLife, KMeans, KMeansSpec, Method, fit, fit_from};
use dacpipe::{Kind, Result, Seed};

fn clusters(rows: &[f32], dim: usize, spec: &KMeansSpec) -> Result<KMeans> {
    fit(&Dense::new(rows, dim), spec, Seed(7), &Cpu::new(2), &Control::default())
}

fn refused(rows: &[f32], dim: usize, spec: &KMeansSpec, kind: Kind, message: &str) {
    let error = clusters(rows, dim, spec).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "{error}, expected {message}");
}

#[test]
fn what_cannot_be_clustered_is_refused() {
    refused(&[1.0, 2.0], 1, &KMeansSpec::new(3), Kind::Input, "k = 3 clusters need at least 3 rows, there are 2");
    refused(&[1.0; 9], 1, &KMeansSpec::new(2), Kind::Input, "only 1 of the 9 rows are distinct");
    refused(&[0.0, 1.0, f32::NAN, 3.0], 2, &KMeansSpec::new(1), Kind::Input, "row 1, feature 0 is NaN");
    refused(&[f32::INFINITY, 1.0], 1, &KMeansSpec::new(1), Kind::Input, "row 0, feature 0 is inf");
    refused(&[-1e20, 1e20], 1, &KMeansSpec::new(1), Kind::Input, "scale them first");
    refused(&[1.0], 1, &KMeansSpec::new(0), Kind::Config, "k = 0");
    let spec = KMeansSpec { tolerance: f64::NAN, ..KMeansSpec::new(1) };
    refused(&[1.0], 1, &spec, Kind::Config, "tolerance = NaN");
    let spec = KMeansSpec { method: Method::MiniBatch { batch_size: 0 }, ..KMeansSpec::new(1) };
    refused(&[1.0], 1, &spec, Kind::Config, "batch_size = 0");
}

fn online(k: usize, batch_size: usize, decay: Decay) -> KMeansSpec {
    KMeansSpec { method: Method::Online { batch_size, decay }, ..KMeansSpec::new(k) }
}

#[test]
fn what_cannot_be_clustered_in_one_pass_is_refused() {
    let rows = |n: usize, values: &[f32]| values.iter().copied().cycle().take(n).collect::<Vec<_>>();
    let spec = |decay| online(2, 3, decay);
    refused(&[1.0], 1, &online(1, 0, Decay::None), Kind::Config, "batch_size = 0");
    refused(&[1.0], 1, &online(1, 3, Decay::Factor(1.5)), Kind::Config, "decay = 1.5");
    refused(&[1.0; 2], 1, &spec(Decay::HalfLife(HalfLife::Rows(0.0))), Kind::Config, "half_life = 0 rows, expected");
    refused(&[1.0; 2], 1, &spec(Decay::HalfLife(HalfLife::Batches(-1.0))), Kind::Config, "half_life = -1 batches");
    let time = Decay::HalfLife(HalfLife::Time(1_000_000_000));
    refused(&[1.0; 2], 1, &spec(time), Kind::Config, "the rows have no event times; expected one in rows or batches");
    refused(&[1.0], 1, &spec(Decay::None), Kind::Input, "k = 2 clusters need at least 2 rows, there are 1");
    // Fewer rows than a seeding usually waits for, and more.
    for n in [5, 50] {
        refused(&rows(n, &[4.0]), 1, &spec(Decay::None), Kind::Input, &format!("only 1 of the {n} rows are distinct"));
    }
    refused(&[0.0, 1.0, f32::NAN, 3.0], 2, &spec(Decay::None), Kind::Input, "row 1, feature 0 is NaN");
    // One row is enough for one cluster, and three rows for two, in batches of any size.
    for size in [1, 2, 100] {
        let found = clusters(&[7.0, 1.0, 1.0], 1, &online(2, size, Decay::None)).unwrap();
        assert_eq!((found.centroids, found.sizes), (vec![1.0, 7.0], vec![2, 1]), "batches of {size}");
    }
    assert_eq!(clusters(&[3.0], 1, &online(1, 10, Decay::Factor(0.5))).unwrap().centroids, [3.0]);
}

/// Two clusters that move by 10 over the rows: without decay the centroids are where they were on average; with a half-life
/// of 400 rows they are where they were at the end, but for the half-life over ln 2, and half a batch.
#[test]
fn one_pass_with_a_half_life_ends_where_the_rows_do() {
    let n = 20_000;
    let place = |i: usize| 10.0 * i as f32 / n as f32 + (i % 2) as f32 * 100.0;
    let values: Vec<f32> = (0..n).map(place).collect();
    let of = |decay| {
        let mut found = clusters(&values, 1, &online(2, 50, decay)).unwrap();
        found.centroids.sort_by(f32::total_cmp);
        found.centroids
    };
    let close = |found: Vec<f32>, expected: f64| {
        let both = [expected, expected + 100.0];
        assert!(
            found.iter().zip(both).all(|(found, expected)| (f64::from(*found) - expected).abs() < 0.01),
            "{found:?}"
        );
    };
    close(of(Decay::None), 5.0);
    let lag = 400.0 / std::f64::consts::LN_2 / n as f64 * 10.0;
    close(of(Decay::HalfLife(HalfLife::Rows(400.0))), 10.0 - lag);
    close(of(Decay::HalfLife(HalfLife::Batches(8.0))), 10.0 - lag);
}

#[test]
fn edges_have_their_answers() {
    let one = clusters(&[3.0, 4.0], 2, &KMeansSpec::new(1)).unwrap();
    assert_eq!((one.centroids, one.inertia, one.sizes), (vec![3.0, 4.0], 0.0, vec![1]));
    let zeros = clusters(&[0.0; 20], 4, &KMeansSpec::new(1)).unwrap();
    assert_eq!((zeros.centroids, zeros.inertia, zeros.sizes), (vec![0.0; 4], 0.0, vec![5]));
    // As many clusters as rows: each row is its own.
    let rows: Vec<f32> = (0..50).map(|i| (i * 17 % 50) as f32).collect();
    let all = clusters(&rows, 1, &KMeansSpec::new(50)).unwrap();
    assert_eq!((all.inertia, all.sizes), (0.0, vec![1; 50]));
    assert_eq!(all.centroids, (0..50).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn mini_batches_come_near_to_lloyd_and_repeat_themselves() {
    let rows: Vec<f32> = (0..40_000).map(|i| (i % 4 * 10) as f32 + (i * 7919 % 1000) as f32 / 1000.0).collect();
    let lloyd = clusters(&rows, 1, &KMeansSpec::new(4)).unwrap();
    let spec = KMeansSpec { method: Method::MiniBatch { batch_size: 1000 }, ..KMeansSpec::new(4) };
    let batches = clusters(&rows, 1, &spec).unwrap();
    assert!(batches.inertia <= lloyd.inertia * 1.02, "{} {}", batches.inertia, lloyd.inertia);
    assert_eq!(batches.sizes, lloyd.sizes);
    let again = fit(&Dense::new(&rows, 1), &spec, Seed(7), &Cpu::new(3), &Control::default()).unwrap();
    assert_eq!(batches, again);
}

#[test]
fn an_interrupt_is_obeyed_and_given_centroids_must_fit() {
    let control = Control::default();
    control.cancel();
    let rows = [0.0, 1.0, 5.0, 6.0];
    let dense = Dense::new(&rows, 1);
    let error = fit(&dense, &KMeansSpec::new(2), Seed(1), &Cpu::new(1), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let from = |initial| fit_from(&dense, &KMeansSpec::new(2), initial, &Cpu::new(1), &Control::default());
    assert_eq!(from(vec![0.0, 1.0]).unwrap().centroids, [0.5, 5.5]);
    assert!(from(vec![0.0]).unwrap_err().to_string().contains("expected 2 centroids of 1 values"));
}
