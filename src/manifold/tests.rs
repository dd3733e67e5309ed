use std::sync::Mutex;

use super::*;
use crate::device::{Cpu, Device};
use crate::error::Kind;
use crate::event::Control;
use crate::kernel::{Dense, Pool};
use crate::seed::Seed;
use crate::stage::{Checkpoint, NoCheckpoint};

/// Blobs of 60 rows in eight dimensions, and which blob a row is of.
fn blobs(count: usize) -> (Vec<f32>, Vec<usize>) {
    let noise = |i: usize| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) + ((i * 104_729 % 997) as f32 / 997.0 - 0.5);
    let rows = 60 * count;
    let value = |row: usize, d: usize| if (row % count) % 8 == d { 6.0 } else { 0.0 } + noise(row * 8 + d);
    let values = (0..rows).flat_map(|row| (0..8).map(move |d| value(row, d))).collect();
    (values, (0..rows).map(|row| row % count).collect())
}

fn spec() -> ManifoldSpec {
    ManifoldSpec { neighbors: 12, dim: 3, min_dist: 0.0, epochs: Some(100), ..Default::default() }
}

fn fit_with(
    spec: &ManifoldSpec,
    rows: &dyn Rows,
    threads: usize,
    control: &Control,
    kept: &dyn Checkpoint,
) -> Result<Fitted> {
    let device = Cpu::new(threads);
    let cx = FitContext { seed: Seed(5), device: &device, control, checkpoint: kept, memory: u64::MAX };
    ManifoldStage { spec: spec.clone() }.fit(&Training::new(rows), &cx)
}

fn fit(spec: &ManifoldSpec, rows: &[f32], dim: usize) -> Result<Fitted> {
    fit_with(spec, &Dense::new(rows, dim), 2, &Control::default(), &NoCheckpoint)
}

fn near(rows: &dyn Rows, count: usize, metric: Metric, exact_work: f64, device: &dyn Device) -> Neighbors {
    let search = NeighborSearch { metric, exact_work, seed: Seed(1), device, control: &Control::default() };
    search.find(rows, count, &mut |_| {}).unwrap()
}

fn coordinates(fitted: &Fitted) -> Coordinates {
    fitted.transform.coordinates().expect("laid out").clone()
}

/// The graph of umap-learn 0.5:
///
/// ```python
/// n, dim, k = 24, 3, 6
/// i = np.arange(n * dim, dtype="f4")
/// x = (np.sin(i * np.float32(0.37)) * (np.float32(1) + (i % np.float32(5)))).astype("f4").reshape(n, dim)
/// d = np.sqrt(((x[:, None].astype("f8") - x[None].astype("f8")) ** 2).sum(-1))
/// near = np.argsort(d, 1, kind="stable")[:, :k]
/// graph, _, _ = umap.umap_.fuzzy_simplicial_set(x, k, 1, "euclidean", knn_indices=near,
///                                               knn_dists=np.take_along_axis(d, near, 1).astype("f4"))
/// ```
#[rustfmt::skip]
const UMAP_LEARN: [(u32, u32, f32); 78] = [
    (0, 2, 0.562831), (0, 5, 0.319336), (0, 11, 0.529746), (0, 12, 0.356184), (0, 17, 1.000000),
    (0, 23, 0.705407), (1, 2, 0.291715), (1, 6, 1.000000), (1, 7, 0.472771), (1, 18, 0.231345),
    (1, 19, 0.589131), (2, 6, 0.857358), (2, 8, 1.000000), (2, 13, 0.328895), (2, 17, 0.361597),
    (2, 18, 0.337281), (2, 19, 1.000000), (2, 23, 1.000000), (3, 5, 0.623408), (3, 10, 0.927731),
    (3, 11, 0.276502), (3, 14, 0.571794), (3, 15, 0.264242), (3, 16, 0.322743), (3, 20, 1.000000),
    (3, 22, 0.531005), (4, 9, 1.000000), (4, 10, 0.388324), (4, 15, 0.485878), (4, 16, 0.326853),
    (4, 21, 0.685109), (5, 10, 0.247787), (5, 11, 0.996134), (5, 14, 0.196862), (5, 16, 0.343248),
    (5, 20, 0.238252), (5, 22, 1.000000), (6, 7, 0.642653), (6, 12, 0.345825), (6, 19, 1.000000),
    (6, 23, 0.189530), (7, 12, 1.000000), (7, 17, 0.591076), (7, 19, 0.541758), (7, 23, 0.387135),
    (8, 13, 0.586793), (8, 18, 0.421784), (8, 19, 0.796677), (8, 23, 0.624495), (9, 10, 0.377407),
    (9, 14, 0.266473), (9, 15, 0.671881), (9, 20, 0.326534), (10, 14, 0.523551), (10, 15, 1.000000),
    (10, 16, 0.440297), (10, 20, 0.907035), (10, 21, 0.397533), (10, 22, 0.338169), (11, 17, 0.090899),
    (11, 22, 1.000000), (12, 17, 0.709145), (12, 23, 0.373350), (13, 18, 1.000000), (13, 19, 0.428875),
    (13, 23, 0.386378), (14, 15, 0.674735), (14, 20, 1.000000), (15, 20, 0.911312), (15, 21, 0.350777),
    (16, 21, 1.000000), (16, 22, 0.478680), (17, 23, 0.627673), (18, 19, 0.442893), (18, 23, 0.450971),
    (19, 23, 0.809477), (20, 22, 0.183050), (21, 22, 0.347767),
];

#[test]
fn the_graph_is_umap_learn_s() {
    let x: Vec<f32> = (0..24 * 3).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 5) as f32)).collect();
    let device = Cpu::new(2);
    let rows = Dense::new(&x, 3);
    let found = near(&rows, 5, Metric::Euclidean, EXACT_WORK, &device);
    assert_eq!(found.rows[..5], [17, 23, 2, 11, 5]);
    assert_eq!(found.rows[5..10], [6, 19, 7, 2, 18]);
    assert_eq!(found.rows[10..15], [19, 23, 6, 8, 0]);
    let graph = Graph::fuzzy(&found, device.pool());
    assert_eq!(graph.ends.len(), 2 * UMAP_LEARN.len());
    for (a, b, expected) in UMAP_LEARN {
        for (from, to) in [(a, b), (b, a)] {
            let (ends, weights) = graph.edges(from as usize);
            let weight = weights[ends.binary_search(&to).expect("an edge of both")];
            assert!((weight - expected).abs() < 1e-4, "{from} {to}: {weight}, umap-learn has {expected}");
        }
    }
}

#[test]
fn neighbours_are_those_of_all_pairs_by_every_metric() {
    let (values, _) = blobs(5);
    let rows = Dense::new(&values, 8);
    let row = |i: usize| values[i * 8..][..8].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let cosine = |a: Vec<f64>, b: Vec<f64>| {
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        1.0 - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let centred = |a: Vec<f64>| {
        let mean = a.iter().sum::<f64>() / a.len() as f64;
        a.into_iter().map(|x| x - mean).collect::<Vec<_>>()
    };
    for metric in [Metric::Euclidean, Metric::Cosine, Metric::Correlation] {
        let distance = |i: usize, j: usize| match metric {
            Metric::Euclidean => row(i).iter().zip(row(j)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
            Metric::Cosine => cosine(row(i), row(j)),
            Metric::Correlation => cosine(centred(row(i)), centred(row(j))),
        };
        let found = near(&rows, 9, metric, EXACT_WORK, &Cpu::new(2));
        assert_eq!((found.count, found.recall), (9, 1.0));
        for i in (0..rows.len()).step_by(17) {
            let mut all: Vec<f64> = (0..rows.len()).filter(|&j| j != i).map(|j| distance(i, j)).collect();
            all.sort_by(f64::total_cmp);
            for (n, expected) in all[..9].iter().enumerate() {
                let (j, shown) = (found.rows[i * 9 + n] as usize, f64::from(found.distances[i * 9 + n]));
                assert!((shown - expected).abs() < 1e-4 && (distance(i, j) - shown).abs() < 1e-4, "{metric:?} {i} {n}");
            }
        }
    }
}

#[test]
fn cells_find_nearly_all_neighbours_and_say_how_many() {
    let (values, _) = blobs(40);
    let rows = Dense::new(&values, 8);
    let exact = near(&rows, 10, Metric::Euclidean, EXACT_WORK, &Cpu::new(2));
    let by_cells = |threads| near(&rows, 10, Metric::Euclidean, 0.0, &Cpu::new(threads));
    let found = by_cells(2);
    assert_eq!(found, by_cells(1));
    let of =
        |n: &Neighbors, i: usize| n.rows[i * 10..][..10].iter().copied().collect::<std::collections::BTreeSet<_>>();
    let same = (0..rows.len()).map(|i| of(&exact, i).intersection(&of(&found, i)).count()).sum::<usize>();
    let recall = same as f64 / exact.rows.len() as f64;
    assert!(recall > 0.95, "{recall}");
    assert!((recall - found.recall).abs() < 0.03, "told {}, is {recall}", found.recall);
}

#[test]
fn clusters_lie_together_with_the_same_bits_on_any_number_of_threads() {
    let (values, blob) = blobs(6);
    let fitted = fit(&spec(), &values, 8).unwrap();
    let found = coordinates(&fitted);
    let trust = fitted.figures["trustworthiness"].as_f64().unwrap();
    assert!(trust > 0.9, "{trust}");
    // The nearest row in the layout is of the same blob.
    let mut squared = vec![0.0; blob.len()];
    let same = (0..blob.len()).filter(|&i| {
        crate::kernel::nearest::squared_distances(&found.values[i * 3..][..3], &found.values, &mut squared);
        let nearest = (0..blob.len()).filter(|&j| j != i).min_by(|&a, &b| squared[a].total_cmp(&squared[b]));
        nearest.is_some_and(|j| blob[j] == blob[i])
    });
    assert_eq!(same.count(), blob.len());
    for threads in [1, 3, 4] {
        let again = fit_with(&spec(), &Dense::new(&values, 8), threads, &Control::default(), &NoCheckpoint).unwrap();
        assert_eq!(coordinates(&again), found, "{threads} threads");
    }
    let mut variances = [0.0; 3];
    for (d, variance) in variances.iter_mut().enumerate() {
        let of = || found.values.iter().skip(d).step_by(3).map(|&x| f64::from(x));
        let mean = of().sum::<f64>() / blob.len() as f64;
        assert!(mean.abs() < 1e-5);
        *variance = of().map(|x| (x - mean).powi(2)).sum::<f64>() / blob.len() as f64;
    }
    assert!((variances.iter().sum::<f64>() / 3.0 - 1.0).abs() < 1e-4, "{variances:?}");
    assert!(variances.iter().all(|variance| (variance - 1.0).abs() > 1e-3), "each by itself: {variances:?}");
}

#[test]
fn features_count_by_their_weights() {
    let (mut values, blob) = blobs(2);
    // A noise feature that is larger than everything that separates the blobs.
    for (row, values) in values.chunks_exact_mut(8).enumerate() {
        values[7] = 4000.0 * ((row * 7919 % 127) as f32 / 127.0);
    }
    let dense = Dense::new(&values, 8);
    let weights = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0];
    let (device, control) = (Cpu::new(2), Control::default());
    let cx =
        FitContext { seed: Seed(5), device: &device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
    let lay_out = |weighted: bool, feature_weights: Option<&[f32]>| {
        let data = Training { feature_weights, ..Training::new(&dense) };
        ManifoldStage { spec: ManifoldSpec { weighted, ..spec() } }.fit(&data, &cx)
    };
    let plain = coordinates(&lay_out(false, Some(&weights)).unwrap());
    assert_eq!(plain, coordinates(&lay_out(false, None).unwrap()), "weights count only where they are asked for");
    let weighted = coordinates(&lay_out(true, Some(&weights)).unwrap());
    let nearest_is_alike = |found: &Coordinates| {
        let mut squared = vec![0.0; blob.len()];
        let alike = |i: &usize| {
            let i = *i;
            crate::kernel::nearest::squared_distances(&found.values[i * 3..][..3], &found.values, &mut squared);
            let nearest = (0..blob.len()).filter(|&j| j != i).min_by(|&a, &b| squared[a].total_cmp(&squared[b]));
            nearest.is_some_and(|j| blob[j] == blob[i])
        };
        (0..blob.len()).filter(alike).count()
    };
    assert_eq!(nearest_is_alike(&weighted), blob.len());
    assert!(nearest_is_alike(&plain) < blob.len());
    assert_eq!(lay_out(true, None).unwrap_err().kind(), Kind::Config);
}

/// Keeps the first state of an epoch from `after` on, and asks for a stop.
struct Stop<'a> {
    control: &'a Control,
    kept: Mutex<Option<Artifact>>,
}

impl Checkpoint for Stop<'_> {
    fn save(&self, state: &Artifact) -> Result<()> {
        *self.kept.lock().unwrap() = Some(state.clone());
        Ok(())
    }

    fn load(&self) -> Result<Option<Artifact>> {
        Ok(self.kept.lock().unwrap().clone())
    }
}

/// Asks for a stop at the thirtieth epoch.
struct Interrupt(std::sync::OnceLock<Control>);

impl crate::event::Observer for Interrupt {
    fn event(&self, event: &Event) {
        if let (Event::Progress { done: 30, .. }, Some(control)) = (event, self.0.get()) {
            control.cancel();
        }
    }
}

#[test]
fn an_interrupted_layout_goes_on_with_the_same_bits() {
    let (values, _) = blobs(4);
    let rows = Dense::new(&values, 8);
    let whole = fit(&spec(), &values, 8).unwrap();
    let interrupt = Arc::new(Interrupt(std::sync::OnceLock::new()));
    let control = Control::new(interrupt.clone());
    interrupt.0.set(control.clone()).unwrap();
    let kept = Stop { control: &control, kept: Mutex::new(None) };
    let e = fit_with(&spec(), &rows, 2, kept.control, &kept).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    assert_eq!(kept.load().unwrap().unwrap().settings["epoch"], 30);
    let resumed = fit_with(&spec(), &rows, 1, &Control::default(), &kept).unwrap();
    assert_eq!(coordinates(&resumed), coordinates(&whole));
    kept.kept.lock().unwrap().as_mut().unwrap().tensors.clear();
    let e = fit_with(&spec(), &rows, 1, &Control::default(), &kept).unwrap_err();
    assert_eq!(e.kind(), Kind::Model);
}

#[test]
fn what_is_saved_has_no_layout_and_what_is_kept_has() {
    let (values, _) = blobs(2);
    let fitted = fit(&spec(), &values, 8).unwrap();
    let kept = Manifold::from_artifact(&fitted.transform.keep()).unwrap();
    assert_eq!(Transform::coordinates(&kept), fitted.transform.coordinates());
    let saved = fitted.transform.save();
    assert!(saved.tensors.is_empty());
    assert_eq!(Transform::coordinates(&Manifold::from_artifact(&saved).unwrap()), None);
    let mut damaged = fitted.transform.keep();
    damaged.settings.remove("rows");
    assert_eq!(Manifold::from_artifact(&damaged).unwrap_err().kind(), Kind::Model);
    damaged.settings.remove("spec");
    assert_eq!(Manifold::from_artifact(&damaged).unwrap_err().kind(), Kind::Model);
}

#[test]
fn awkward_rows_are_laid_out_or_refused_with_words() {
    let finite = |fitted: &Fitted| coordinates(fitted).values.iter().all(|x| x.is_finite());
    // Fewer rows than neighbours, all rows equal, one feature, most rows on one spot.
    assert!(finite(&fit(&spec(), &[1.0, 2.0, 3.0, 5.0], 1).unwrap()));
    assert!(finite(&fit(&spec(), &vec![0.5; 200], 2).unwrap()));
    let spot: Vec<f32> = (0..100).map(|i| if i < 80 { 1.0 } else { i as f32 }).collect();
    assert!(finite(&fit(&spec(), &spot, 1).unwrap()));
    // Groups that no neighbour connects; more of them than directions of the axes.
    for groups in [2, 9, 40] {
        let apart: Vec<f32> = (0..groups * 20).flat_map(|i| [(i % groups) as f32 * 1e3, (i as f32).sin()]).collect();
        let fitted = fit(&ManifoldSpec { neighbors: 5, ..spec() }, &apart, 2).unwrap();
        assert!(finite(&fitted) && fitted.figures["components"].as_u64().unwrap() >= groups as u64);
        assert!(fitted.summary.contains("separate parts"), "{}", fitted.summary);
    }
    let mut nan: Vec<f32> = (0..100).map(|i| i as f32).collect();
    nan[37] = f32::NAN;
    let e = fit(&spec(), &nan, 2).unwrap_err();
    assert_eq!(e.kind(), Kind::Input);
    assert!(e.to_string().contains("row 18, feature 1 is NaN"), "{e}");
    assert_eq!(fit(&spec(), &[1.0, 2.0], 1).unwrap_err().kind(), Kind::Input);
    let e = fit(&ManifoldSpec { min_dist: f64::NAN, ..spec() }, &spot, 1).unwrap_err();
    assert_eq!((e.kind(), e.message()), (Kind::Config, "min_dist is NaN, must be between 0 and 1"));
}

#[test]
fn of_many_rows_a_sample_is_laid_out() {
    let (values, _) = blobs(6);
    let fitted = fit(&ManifoldSpec { max_rows: 100, ..spec() }, &values, 8).unwrap();
    let found = coordinates(&fitted);
    assert_eq!((found.rows.len(), found.values.len()), (100, 300));
    assert!(found.rows.windows(2).all(|w| w[0] < w[1]) && found.rows[99] < 360);
    assert_eq!(fitted.figures["rows"], 100);
}

#[test]
fn the_start_is_what_the_laplacian_s_eigenvectors_are() {
    // A ring: the first two eigenvectors are a circle.
    let n = 200;
    let mut graph = Graph { starts: vec![0], ends: Vec::new(), weights: Vec::new() };
    for i in 0..n as u32 {
        let mut ends = [(i + 1) % n as u32, (i + n as u32 - 1) % n as u32];
        ends.sort_unstable();
        graph.ends.extend(ends);
        graph.weights.extend([1.0, 1.0]);
        graph.starts.push(graph.ends.len());
    }
    let positions = start(&graph, 2, Seed(3), &Pool::new(2), &Control::default()).unwrap();
    let radius = |i: usize| f64::from((positions[2 * i] - 5.0).hypot(positions[2 * i + 1] - 5.0));
    for i in 0..n {
        assert!((radius(i) - 5.0).abs() < 0.3, "row {i} at {}", radius(i));
    }
}

#[test]
fn more_rows_than_memory_holds_are_refused_with_what_would_fit() {
    let (rows, _) = blobs(3);
    let (dense, device, control) = (Dense::new(&rows, 8), Cpu::new(1), Control::default());
    let spec = spec();
    let memory = 100 * spec.row_bytes();
    let cx = FitContext { seed: Seed(5), device: &device, control: &control, checkpoint: &NoCheckpoint, memory };
    let error = ManifoldStage { spec: spec.clone() }.fit(&Training::new(&dense), &cx).unwrap_err();
    assert_eq!(error.kind(), Kind::Compute);
    let message = error.to_string();
    assert!(message.contains("the layout of 180 rows needs"), "{message}");
    assert!(message.contains("raise memory_limit 2 times, or set max_rows = 100"), "{message}");
    assert!(ManifoldStage { spec: ManifoldSpec { max_rows: 100, ..spec } }.fit(&Training::new(&dense), &cx).is_ok());
}
