use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::Kind;
use crate::device::Cpu;
use crate::event::Control;
use crate::kernel::distance::squared_distance;
use crate::kmeans::{KMeansSpec, Method, fit, labels};
use crate::testing::Scattered;

const HOUR: i64 = 3_600_000_000_000;

/// Rows around `k` places, with noise that makes the clusters touch.
fn rows(n: usize, dim: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut rng = Seed(seed).stream("test", 0);
    let places: Vec<f32> = (0..k * dim).map(|_| rng.random_range(-2.0..2.0)).collect();
    (0..n * dim).map(|i| places[i / dim * 7 % k * dim + i % dim] + rng.random_range(-1.0f32..1.0)).collect()
}

fn learn(learner: &mut OnlineKMeans, values: &[f32], dim: usize, newest: Option<i64>) -> Batch {
    learner.partial_fit(&Dense::new(values, dim), newest, &Cpu::new(2)).unwrap()
}

/// One dimension.
fn warm(decay: Decay, revive: f64, centroids: &[f64], weights: &[f64]) -> OnlineKMeans {
    let spec = OnlineSpec { revive, ..OnlineSpec::new(weights.len(), decay) };
    OnlineKMeans::warm(spec, centroids.to_vec(), weights.to_vec()).unwrap()
}

/// Sizes of batches, and how much event time passes before each.
const BATCHES: [(usize, i64); 8] =
    [(700, 0), (1, HOUR), (5000, 3 * HOUR), (64, -HOUR), (2, HOUR / 7), (1500, 0), (333, 40 * HOUR), (4500, HOUR)];

/// Every centroid is the mean of all rows it was given, each weighted by the factors of all batches after its own.
#[test]
fn centroids_after_a_stream_are_those_of_the_closed_form() {
    let (k, dim) = (5, 3);
    let half = Decay::HalfLife;
    type Factor = fn(usize, f64) -> f64;
    let decays: [(Decay, Factor); 6] = [
        (Decay::None, |_, _| 1.0),
        (Decay::Factor(0.7), |_, _| 0.7),
        (Decay::Factor(0.0), |_, _| 0.0),
        (half(HalfLife::Rows(900.0)), |n, _| 0.5f64.powf(n as f64 / 900.0)),
        (half(HalfLife::Batches(2.5)), |_, _| 0.5f64.powf(1.0 / 2.5)),
        (half(HalfLife::Time(2 * HOUR)), |_, t| 0.5f64.powf(t / (2 * HOUR) as f64)),
    ];
    let n: usize = BATCHES.iter().map(|(rows, _)| rows).sum();
    let values = rows(n, dim, k, 1);
    let first: Vec<f64> = values[..k * dim].iter().map(|&x| f64::from(x)).collect();
    let weights = [3.0, 0.0, 10.5, 1.0, 200.0];
    for (decay, factor) in decays {
        let spec = OnlineSpec { revive: 0.0, ..OnlineSpec::new(k, decay) };
        let mut learner = OnlineKMeans::warm(spec, first.clone(), weights.to_vec()).unwrap();
        // The rows of each cluster so far, with the number of their batch, and the factor of every batch.
        let mut given: Vec<Vec<(usize, &[f32])>> = vec![Vec::new(); k];
        let mut factors = Vec::new();
        let (mut at, mut clock, mut latest) = (0, 1_000_000, i64::MIN);
        for (size, passes) in BATCHES {
            let batch = &values[at * dim..(at + size) * dim];
            let before = learner.rounded();
            clock += passes;
            let found = learn(&mut learner, batch, dim, Some(clock));
            at += size;
            let elapsed = if factors.is_empty() { 0 } else { (clock - latest).max(0) };
            latest = latest.max(clock);
            factors.push(factor(size, elapsed as f64));
            assert!((found.decay - factors[factors.len() - 1]).abs() < 1e-15, "{decay:?}: {}", found.decay);
            let mut inertia = 0.0;
            for (i, row) in batch.chunks(dim).enumerate() {
                // As the label stage does it: the first of the nearest, distances in f32.
                let distances: Vec<f32> = before.chunks(dim).map(|c| squared_distance(row, c)).collect();
                let nearest = (0..k).fold(0, |best, c| if distances[c] < distances[best] { c } else { best });
                let others = (0..k).filter(|&c| c != nearest).map(|c| distances[c]);
                let second = others.fold(f32::INFINITY, f32::min);
                assert_eq!(found.cluster[i] as usize, nearest);
                assert_eq!(found.distance[i], distances[nearest].sqrt());
                assert_eq!(found.margin[i], second.sqrt() - distances[nearest].sqrt());
                inertia += f64::from(distances[nearest]);
                given[nearest].push((factors.len() - 1, row));
            }
            assert!((found.inertia - inertia).abs() <= 1e-12 * inertia);
            assert_eq!((found.revived.len(), found.waiting), (0, 0));
            for j in 0..k {
                let moved: f64 = (0..dim)
                    .map(|d| (learner.state.centroids[j * dim + d] - f64::from(before[j * dim + d])).powi(2))
                    .sum();
                assert!((found.moved[j] - moved.sqrt()).abs() < 1e-6, "the start is rounded to f32 here");
            }
        }
        let faded = |batch: usize| factors[batch + 1..].iter().product::<f64>();
        let start = factors.iter().product::<f64>();
        let state = learner.state();
        let total: f64 = start * weights.iter().sum::<f64>()
            + BATCHES.iter().enumerate().map(|(b, (rows, _))| faded(b) * *rows as f64).sum::<f64>();
        for j in 0..k {
            let weight = start * weights[j] + given[j].iter().map(|(b, _)| faded(*b)).sum::<f64>();
            assert!((state.weights[j] - weight).abs() <= 1e-12 * weight, "{decay:?}: {} {weight}", state.weights[j]);
            assert!((state.exposures[j] - total).abs() <= 1e-12 * total);
            // Nothing to weigh is left where all is forgotten and the last batch brought no row.
            for d in (0..dim).filter(|_| weight > 0.0) {
                let old = start * weights[j] * first[j * dim + d];
                let sum = old + given[j].iter().map(|(b, row)| faded(*b) * f64::from(row[d])).sum::<f64>();
                let (ours, theirs) = (state.centroids[j * dim + d], sum / weight);
                assert!((ours - theirs).abs() <= 1e-12 * theirs.abs().max(1.0), "{decay:?}: {ours} {theirs}");
            }
            let last = given[j].last().map(|(b, _)| *b as u64 + 1);
            assert_eq!(state.last[j].map(|last| last.batch), last);
        }
        assert_eq!((state.rows, state.batches, state.newest), (n as u64, 8, Some(latest)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// From a cold start, over dead clusters, with batches of one part and of several, rows of every kind of width.
    #[test]
    fn threads_and_storage_change_no_bit(
        seed in any::<u64>(),
        dim in prop_oneof![1usize..20, Just(130usize)],
        k in 1usize..30,
        sizes in prop::collection::vec(prop_oneof![4 => 1usize..300, 1 => 4000usize..9000], 1..6),
        revive in prop_oneof![Just(0.0), Just(0.5), Just(0.99)],
        decay in prop_oneof![Just(Decay::None), Just(Decay::Factor(0.1)), Just(Decay::HalfLife(HalfLife::Rows(50.0)))],
    ) {
        let values = rows(sizes.iter().sum(), dim, 1 + k / 2, seed);
        let spec = OnlineSpec { revive, n_init: 2, ..OnlineSpec::new(k, decay) };
        let run = |threads: usize, scattered: bool| {
            let (device, mut rest) = (Cpu::new(threads), &values[..]);
            let mut learner = OnlineKMeans::new(spec.clone(), Seed(seed)).unwrap();
            let batches: Vec<Batch> = sizes.iter().map(|size| {
                let (batch, more) = rest.split_at(size * dim);
                rest = more;
                let dense = Dense::new(batch, dim);
                let rows: &dyn Rows = if scattered { &Scattered(dense) } else { &dense };
                learner.partial_fit(rows, None, &device).unwrap()
            }).collect();
            (batches, learner)
        };
        let one = run(1, false);
        for threads in 2..=4 {
            prop_assert_eq!(&run(threads, threads % 2 == 0), &one);
        }
        let (batches, learner) = one;
        let taken: usize = batches.iter().map(|batch| batch.cluster.len()).sum();
        prop_assert_eq!(taken + batches[batches.len() - 1].waiting, sizes.iter().sum::<usize>());
        prop_assert_eq!(learner.state.rows, taken as u64);
        // A learner's own state is never refused.
        prop_assert!(OnlineKMeans::resume(spec.clone(), Seed(seed), learner.state.clone()).is_ok());
    }

    /// Nothing is forgotten and every row has one cluster whatever the cut: the cut does not matter.
    #[test]
    fn without_decay_another_cut_gives_the_same_centroids(
        seed in any::<u64>(),
        cuts in prop::collection::vec(1usize..80, 1..12),
        others in prop::collection::vec(1usize..80, 1..12),
    ) {
        let mut rng = Seed(seed).stream("test", 1);
        let values: Vec<f32> = (0..600).map(|i| (i % 3 * 100) as f32 + rng.random_range(-9.0f32..9.0)).collect();
        let run = |cuts: &[usize]| {
            let mut learner = warm(Decay::None, 0.0, &[1.0, 95.0, 210.0], &[2.0, 0.0, 5.0]);
            let mut rest = &values[..];
            for size in cuts.iter().cycle() {
                let (batch, more) = rest.split_at(rest.len().min(*size));
                rest = more;
                if batch.is_empty() {
                    break;
                }
                let found = learn(&mut learner, batch, 1, None);
                assert!(found.cluster.iter().zip(batch).all(|(c, x)| *c == (x / 100.0).round() as u32));
            }
            learner.state
        };
        let (a, b) = (run(&cuts), run(&others));
        prop_assert_eq!((&a.weights, &a.exposures, a.rows), (&b.weights, &b.exposures, b.rows));
        for (a, b) in a.centroids.iter().zip(&b.centroids) {
            prop_assert!((a - b).abs() <= 1e-12 * a.abs(), "{a} {b}");
        }
    }
}

/// What the documentation says of other decays: 8 rows at once weigh 8; cut in two, those of the first half weigh half.
#[test]
fn with_a_half_life_the_cut_matters() {
    let weight = |cuts: &[usize]| {
        let mut learner = warm(Decay::HalfLife(HalfLife::Rows(4.0)), 0.0, &[0.0], &[0.0]);
        cuts.iter().for_each(|&n| drop(learn(&mut learner, &vec![1.0; n], 1, None)));
        learner.state.weights[0]
    };
    assert_eq!((weight(&[8]), weight(&[4, 4])), (8.0, 6.0));
}

#[test]
fn equal_decays_give_equal_bits() {
    let values = rows(3000, 2, 4, 5);
    let run = |decay: Decay| {
        let mut learner = OnlineKMeans::new(OnlineSpec::new(4, decay), Seed(2)).unwrap();
        values.chunks(2 * 250).enumerate().for_each(|(i, batch)| {
            learn(&mut learner, batch, 2, Some(i as i64 * HOUR));
        });
        learner.state
    };
    assert_eq!(run(Decay::None), run(Decay::Factor(1.0)));
    let half = run(Decay::Factor(0.5));
    for half_life in [HalfLife::Batches(1.0), HalfLife::Rows(250.0), HalfLife::Time(HOUR)] {
        assert_eq!(run(Decay::HalfLife(half_life)), half, "{half_life:?}");
    }
    assert_ne!(run(Decay::None).centroids, half.centroids);
}

/// Batches of one row: MacQueen's k-means.
#[test]
fn single_rows_make_running_means() {
    let mut learner = warm(Decay::None, 0.0, &[0.0, 10.0], &[1.0, 1.0]);
    for (x, centroids) in [(3.0, [1.5, 10.0]), (5.0, [8.0 / 3.0, 10.0]), (12.0, [8.0 / 3.0, 11.0]), (6.0, [3.5, 11.0])]
    {
        learn(&mut learner, &[x], 1, None);
        assert_eq!(learner.state.centroids, centroids);
    }
    assert_eq!(learner.state.weights, [4.0, 2.0]);
}

/// The figures of scikit-learn 1.9:
///
/// ```python
/// import numpy as np
/// from sklearn.cluster import MiniBatchKMeans
/// init = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
/// learner = MiniBatchKMeans(3, init=init, n_init=1, reassignment_ratio=0)
/// for i in range(4):
///     rows = [[(7 * j + 3 * i) % 11, (5 * j + i * i) % 13] for j in range(6 + i)]
///     learner.partial_fit(np.array(rows, dtype=np.float64))
///     print(learner.cluster_centers_.tolist(), learner._counts.tolist())
/// ```
#[test]
fn without_decay_it_is_the_partial_fit_of_scikit_learn() {
    let spec = OnlineSpec { revive: 0.0, ..OnlineSpec::new(3, Decay::None) };
    let init = vec![0.0, 0.0, 10.0, 0.0, 0.0, 10.0];
    let mut learner = OnlineKMeans::warm(spec, init, vec![0.0; 3]).unwrap();
    let theirs = [
        ([0.0, 0.0, 8.5, 3.5, 3.6666666666666665, 9.666666666666666], [1.0, 2.0, 3.0]),
        ([1.5, 2.25, 8.200000000000001, 4.2, 4.25, 10.0], [4.0, 5.0, 4.0]),
        (
            [1.2000000000000002, 1.8, 7.666666666666666, 3.888888888888889, 3.4285714285714284, 9.714285714285714],
            [5.0, 9.0, 7.0],
        ),
        (
            [2.111111111111111, 2.6666666666666665, 7.916666666666666, 4.5, 3.5555555555555554, 9.666666666666666],
            [9.0, 12.0, 9.0],
        ),
    ];
    for (i, (centroids, counts)) in theirs.into_iter().enumerate() {
        let row = |j: usize| [((7 * j + 3 * i) % 11) as f32, ((5 * j + i * i) % 13) as f32];
        let batch: Vec<f32> = (0..6 + i).flat_map(row).collect();
        learn(&mut learner, &batch, 2, None);
        assert_eq!(learner.state.weights, counts);
        for (ours, theirs) in learner.state.centroids.iter().zip(centroids) {
            assert!((ours - theirs).abs() < 1e-14 * theirs.abs().max(1.0), "{ours} {theirs}");
        }
    }
}

/// Two places that move by 1 a batch. With a factor `a` a centroid is the mean of where its place was, each time with `a`
/// times the weight: it lags by `a / (1 - a)` batches. The mean of all batches lags by half of them.
#[test]
fn a_half_life_follows_a_drift_that_no_decay_falls_behind() {
    let lag = |decay: Decay| {
        let mut learner = warm(decay, 0.0, &[0.0, 1000.0], &[0.0, 0.0]);
        for t in 0..101 {
            let place = t as f32;
            let batch = [place - 1.0, place + 1.0, 1000.0 + place, 1000.0 + place];
            assert_eq!(learn(&mut learner, &batch, 1, Some(t * HOUR)).cluster, [0, 0, 1, 1]);
        }
        [100.0 - learner.state.centroids[0], 1100.0 - learner.state.centroids[1]]
    };
    let close = |lag: [f64; 2], expected: f64| {
        assert!(lag.iter().all(|lag| (lag - expected).abs() < 1e-9), "{lag:?}, expected {expected}");
    };
    close(lag(Decay::None), 50.0);
    let half: f64 = 0.5f64.sqrt();
    let expected = half / (1.0 - half);
    assert!((expected - 2.414).abs() < 1e-3);
    for half_life in [HalfLife::Batches(2.0), HalfLife::Rows(8.0), HalfLife::Time(2 * HOUR)] {
        close(lag(Decay::HalfLife(half_life)), expected);
    }
    close(lag(Decay::Factor(0.0)), 0.0);
}

/// The third cluster gets no rows. It dies in the seventh batch, when its decayed 100 rows are less than a tenth of a
/// third of all.
#[test]
fn a_cluster_without_rows_dies_and_begins_anew_at_the_worst_row() {
    let mut learner = warm(Decay::Factor(0.5), 0.1, &[0.0, 10.0, 500.0], &[100.0, 100.0, 100.0]);
    let mut batch = vec![0.0f32; 10];
    batch.extend([10.0; 9]);
    batch.push(14.0);
    for _ in 0..6 {
        assert_eq!(learn(&mut learner, &batch, 1, None).revived, []);
    }
    let (weight, exposure) = (learner.state.weights[2], learner.state.exposures[2]);
    assert_eq!((weight, exposure), (100.0 / 64.0, 300.0 / 64.0 + 20.0 * (2.0 - 1.0 / 32.0)));
    assert!(weight / 2.0 < 0.1 * (exposure / 2.0 + 20.0) / 3.0 && weight >= 0.1 * exposure / 3.0);
    let found = learn(&mut learner, &batch, 1, Some(5));
    assert_eq!(found.revived, [Revived { cluster: 2, row: 19 }]);
    assert_eq!(found.cluster[19], 1, "rows have the clusters from before");
    assert_eq!(found.moved[2], 486.0);
    let state = &learner.state;
    assert_eq!((state.centroids[2], state.weights[2], state.exposures[2]), (14.0, 1.0, 1.0));
    assert_eq!(state.last[2], Some(LastRow { batch: 7, newest: Some(5) }));
    // It is judged by what came since: alive as long as it gets its row.
    for _ in 0..50 {
        let found = learn(&mut learner, &batch, 1, None);
        assert_eq!((found.revived.len(), found.cluster[19]), (0, 2));
    }
}

#[test]
fn several_dead_clusters_begin_at_different_rows() {
    let begin = |batch: &[f32], centroids: &[f64], weights: &[f64]| {
        let mut learner = warm(Decay::None, 0.5, centroids, weights);
        let found = learn(&mut learner, batch, 1, None);
        let places =
            found.revived.iter().map(|r| (r.cluster, r.row, learner.state.centroids[r.cluster])).collect::<Vec<_>>();
        (places, learner)
    };
    let four = [0.0, 10.0, 1000.0, 2000.0];
    // Near 31, where the first begins, nothing is far any more: the second begins at -7.
    let found = begin(&[0.0, 10.0, 30.0, 30.0, 31.0, -7.0], &four, &[9.0, 9.0, 0.0, 0.0]).0;
    assert_eq!(found, [(2, 4, 31.0), (3, 5, -7.0)]);
    // Of equal rows the first; then all rows lie on a centroid.
    let (found, learner) = begin(&[0.0, 50.0, 50.0, 10.0], &four, &[9.0, 9.0, 0.0, 0.0]);
    assert_eq!(found, [(2, 1, 50.0)]);
    assert_eq!((learner.state.centroids[3], learner.state.weights[3]), (2000.0, 0.0));
    // All rows lie on a centroid from the start.
    assert_eq!(begin(&[0.0, 10.0, 10.0], &four, &[9.0, 9.0, 0.0, 0.0]).0, []);
    // Everything is forgotten: who has no row in the batch is dead.
    let mut learner = warm(Decay::Factor(0.0), 1e-9, &[0.0, 100.0], &[1e6, 1e6]);
    assert_eq!(learn(&mut learner, &[1.0, 3.0, 2.0], 1, None).revived, [Revived { cluster: 1, row: 1 }]);
    assert_eq!(learner.state.centroids, [2.0, 3.0]);
    // Never, and never the only one.
    for (revive, centroids, weights) in [(0.0, &[0.0, 100.0][..], &[1.0, 0.0][..]), (0.99, &[7.0], &[0.0])] {
        let mut learner = warm(Decay::Factor(0.0), revive, centroids, weights);
        (0..9).for_each(|i| assert_eq!(learn(&mut learner, &[i as f32, 3.0], 1, None).revived, []));
    }
}

/// Batches of fewer rows than clusters: the rows wait, and are the first batch together.
#[test]
fn a_cold_start_waits_for_enough_rows() {
    let values = rows(40, 2, 5, 3);
    let spec = OnlineSpec { seed_rows: 20, ..OnlineSpec::new(5, Decay::Factor(0.5)) };
    let fresh = || OnlineKMeans::new(spec.clone(), Seed(4)).unwrap();
    let (mut learner, mut at_once) = (fresh(), fresh());
    for i in 0..6 {
        let found = learn(&mut learner, &values[6 * i..6 * (i + 1)], 2, Some(i as i64));
        assert_eq!(found, Batch { decay: 1.0, waiting: 3 * (i + 1), ..Batch::default() });
        assert_eq!((learner.rounded().len(), learner.state.batches, learner.state.rows), (0, 0, 0));
    }
    let found = learn(&mut learner, &values[36..42], 2, Some(3));
    assert_eq!((found.cluster.len(), found.waiting, learner.state.newest), (21, 0, Some(5)));
    assert_eq!(found, learn(&mut at_once, &values[..42], 2, Some(5)));
    assert_eq!(learner, at_once);
    assert_eq!((learner.state.rows, learner.state.batches, learner.state.weights.iter().sum::<f64>()), (21, 1, 21.0));
    // Each seed is one of the rows, so that the first batch leaves no cluster empty.
    assert!(learner.state.weights.iter().all(|&weight| weight >= 1.0));
    // Later batches may be as small as they like.
    assert_eq!(learn(&mut learner, &values[42..44], 2, Some(9)).cluster.len(), 1);
    // Another seed, other seeds.
    let mut other = OnlineKMeans::new(spec.clone(), Seed(5)).unwrap();
    learn(&mut other, &values[..42], 2, None);
    assert_ne!(other.state.centroids, at_once.state.centroids);
}

#[test]
fn equal_rows_wait_for_others_and_not_forever() {
    let mut learner = OnlineKMeans::new(OnlineSpec::new(2, Decay::None), Seed(1)).unwrap();
    for i in 1..5 {
        assert_eq!(learn(&mut learner, &[3.5; 100], 1, None).waiting, 100 * i);
    }
    let mut stuck = learner.clone();
    let found = learn(&mut learner, &[3.5, 4.5], 1, None);
    assert_eq!((found.cluster.len(), found.inertia), (402, 0.0));
    let mut centroids = learner.state.centroids.clone();
    centroids.sort_by(f64::total_cmp);
    assert_eq!(centroids, [3.5, 4.5]);
    let (before, many) = (stuck.clone(), vec![3.5; 1 << 17]);
    let e = stuck.partial_fit(&Dense::new(&many, 1), None, &Cpu::new(2)).unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert_eq!(e.to_string(), "k = 2 clusters need 2 distinct rows, only 1 of the 131472 rows are distinct");
    assert_eq!(stuck, before);
    // One cluster needs one row.
    let mut one =
        OnlineKMeans::new(OnlineSpec { seed_rows: 1, ..OnlineSpec::new(1, Decay::Factor(0.5)) }, Seed(1)).unwrap();
    let found = learn(&mut one, &[3.5; 4], 1, None);
    assert_eq!((found.cluster, found.margin), (vec![0; 4], vec![f32::INFINITY; 4]));
    learn(&mut one, &[6.5], 1, None);
    assert_eq!((&one.state.centroids[..], &one.state.weights[..]), (&[4.5][..], &[3.0][..]));
}

#[test]
fn what_cannot_be_learned_from_is_refused_and_changes_nothing() {
    let timed = Decay::HalfLife(HalfLife::Time(HOUR));
    let spec = OnlineSpec { seed_rows: 4, ..OnlineSpec::new(2, timed) };
    let cold = OnlineKMeans::new(spec.clone(), Seed(1)).unwrap();
    let mut waits = cold.clone();
    learn(&mut waits, &[0.0, 1.0], 2, Some(7));
    let warm = OnlineKMeans::warm(spec, vec![0.0, 0.0, 5.0, 5.0], vec![1.0, 1.0]).unwrap();
    for learner in [waits, warm] {
        let refused = |values: &[f32], dim: usize, newest: Option<i64>, words: &str| {
            let mut tried = learner.clone();
            let e = tried.partial_fit(&Dense::new(values, dim), newest, &Cpu::new(2)).unwrap_err();
            assert_eq!(e.kind(), Kind::Input);
            assert!(e.to_string().contains(words), "{e}, expected {words}");
            assert_eq!(tried, learner);
        };
        refused(&[1.0; 6], 3, Some(9), "rows of 3 values, expected 2");
        refused(&[1.0, 2.0, 3.0, f32::NAN], 2, Some(9), "row 1, feature 1 is NaN");
        refused(&[1.0, 2.0, f32::NEG_INFINITY, 4.0], 2, Some(9), "row 1, feature 0 is -inf");
        refused(&[1.0, 2.0], 2, None, "needs the event time of each batch's newest row");
        // In a cold start among the rows themselves, else from the centroids.
        refused(&[1.0, 2.0, 3e38, 4.0, 5.0, 6.0, -3e38, 0.0], 2, Some(9), "scale");
    }
    let mut huge = cold.clone();
    let e = huge.partial_fit(&Dense::new(&[0.0, 0.0, f32::INFINITY, 0.0], 2), Some(1), &Cpu::new(1)).unwrap_err();
    assert!(e.to_string().contains("row 1, feature 0 is inf"), "{e}");
    assert_eq!(huge, cold);
}

#[test]
fn no_rows_are_no_batch_and_late_rows_decay_nothing() {
    let mut learner = warm(Decay::HalfLife(HalfLife::Time(HOUR)), 0.0, &[0.0, 10.0], &[1.0, 1.0]);
    let before = learner.clone();
    assert_eq!(learn(&mut learner, &[], 1, None), Batch { decay: 1.0, ..Batch::default() });
    assert_eq!(learner, before);
    // The first batch has nothing to be newer than.
    assert_eq!(learn(&mut learner, &[0.0], 1, Some(i64::MIN)).decay, 1.0);
    assert_eq!(learn(&mut learner, &[0.0], 1, Some(i64::MIN + 2 * HOUR)).decay, 0.25);
    assert_eq!(learn(&mut learner, &[0.0], 1, Some(i64::MIN + HOUR)).decay, 1.0);
    assert_eq!(learner.state.newest, Some(i64::MIN + 2 * HOUR));
    // Longer than any time that a number has room for.
    assert_eq!(learn(&mut learner, &[0.0], 1, Some(i64::MAX)).decay, 0.0);
    assert_eq!(learner.state.weights, [1.0, 0.0]);
}

#[test]
fn bad_settings_and_starts_are_refused_with_words() {
    let spec = OnlineSpec::new(2, Decay::None);
    let refused = |spec: OnlineSpec, words: &str| {
        let e = OnlineKMeans::new(spec, Seed(1)).unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains(words), "{e}");
    };
    refused(OnlineSpec { k: 0, ..spec.clone() }, "k = 0, expected at least 1");
    refused(OnlineSpec { k: 1 << 24, ..spec.clone() }, "k = 16777216, expected at most");
    refused(OnlineSpec { n_init: 0, ..spec.clone() }, "n_init = 0");
    refused(OnlineSpec { seed_rows: 1, ..spec.clone() }, "seed_rows = 1, expected at least k = 2");
    for revive in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        refused(OnlineSpec { revive, ..spec.clone() }, &format!("revive = {revive}, expected 0 (never)"));
    }
    refused(OnlineSpec { decay: Decay::HalfLife(HalfLife::Rows(0.0)), ..spec.clone() }, "half_life = 0 rows");
    let refused = |centroids: &[f64], weights: &[f64], words: &str| {
        let e = OnlineKMeans::warm(spec.clone(), centroids.to_vec(), weights.to_vec()).unwrap_err();
        assert!(e.kind() == Kind::Input && e.to_string().contains(words), "{e}");
    };
    refused(&[], &[], "0 values, expected the same number for each of k = 2 centroids");
    refused(&[0.0, 1.0, 2.0], &[1.0, 1.0], "3 values, expected the same number");
    refused(&[0.0, 1.0], &[1.0], "expected k = 2 centroids");
    refused(&[0.0, f64::NAN], &[1.0, 1.0], "centroid 1, position 0 is NaN");
    refused(&[0.0, 1e39], &[1.0, 1.0], "centroid 1, position 0 is");
    refused(&[0.0, 1.0], &[1.0, -1.0], "the weight of cluster 1 is -1");
    refused(&[0.0, 1.0], &[f64::INFINITY, 1.0], "the weight of cluster 0 is inf");
    let odd = OnlineState { rows: 3, ..OnlineState::default() };
    assert_eq!(OnlineKMeans::resume(spec.clone(), Seed(1), odd).unwrap_err().kind(), Kind::Input);
    let odd = OnlineState { dim: 2, waiting: vec![0.0; 3], ..OnlineState::default() };
    assert_eq!(OnlineKMeans::resume(spec, Seed(1), odd).unwrap_err().kind(), Kind::Input);
}

/// [`Method::Online`] is the learner over the rows in order, then numbered by size as every fit.
#[test]
fn a_fit_by_one_pass_is_the_learner_batch_by_batch() {
    let (k, dim) = (4, 3);
    let values = rows(5000, dim, k, 8);
    let decay = Decay::HalfLife(HalfLife::Rows(1500.0));
    let spec = KMeansSpec { n_init: 3, method: Method::Online { batch_size: 700, decay }, ..KMeansSpec::new(k) };
    let dense = Dense::new(&values, dim);
    let fitted = fit(&dense, &spec, Seed(6), &Cpu::new(2), &Control::default()).unwrap();
    let mut learner = OnlineKMeans::new(OnlineSpec { n_init: 3, ..OnlineSpec::new(k, decay) }, Seed(6)).unwrap();
    values.chunks(700 * dim).for_each(|batch| drop(learn(&mut learner, batch, dim, None)));
    let sorted = |values: &[f32]| {
        let mut centroids: Vec<Vec<u32>> =
            values.chunks(dim).map(|c| c.iter().map(|x| x.to_bits()).collect()).collect();
        centroids.sort();
        centroids
    };
    assert_eq!(sorted(&fitted.centroids), sorted(&learner.rounded()));
    assert_eq!((fitted.iterations, fitted.converged), (8, true));
    let found = labels(&dense, &fitted.centroids, &Cpu::new(1)).unwrap();
    let sizes: Vec<u64> = (0..k as u32).map(|c| found.iter().filter(|label| **label == c).count() as u64).collect();
    assert_eq!(fitted.sizes, sizes);
    assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]));
    for rows in [&dense as &dyn Rows, &Scattered(dense)] {
        assert_eq!(fit(rows, &spec, Seed(6), &Cpu::new(3), &Control::default()).unwrap(), fitted);
    }
    // Later rows count more.
    let none = KMeansSpec { method: Method::Online { batch_size: 700, decay: Decay::None }, ..spec };
    assert_ne!(fit(&dense, &none, Seed(6), &Cpu::new(2), &Control::default()).unwrap().centroids, fitted.centroids);
}
