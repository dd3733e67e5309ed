use proptest::prelude::*;

use super::*;
use crate::device::{Cpu, lloyd_on_cpu};
use crate::kernel::distance::squared_distance;
use crate::kernel::{Dense, Pool};
use crate::testing::Scattered;

fn lloyd(rows: &dyn Rows, seeds: &[f32], shift: f64, bounded: bool, threads: usize) -> (Vec<f32>, usize, Vec<f64>) {
    let limits = lloyd::Limits { max_iterations: 60, shift };
    let mut trace = Vec::new();
    let mean = vec![0.0; rows.dim()];
    let pool = Pool::new(threads);
    let mut device = lloyd_on_cpu(rows, seeds.len() / rows.dim(), bounded, &pool);
    let found = lloyd::run(&mut device, seeds.to_vec(), &limits, &mut |between| {
        trace.push(between(&mean));
        Ok(())
    });
    let found = found.unwrap();
    (found.centroids, found.iterations, trace)
}

fn problem() -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
    let dim = prop_oneof![1usize..20, 120usize..150];
    (dim, 1usize..40, 0usize..300, prop_oneof![Just(0.0f32), Just(3.0), Just(1000.0)], any::<u64>()).prop_map(
        |(dim, k, more, grain, seed)| {
            let mut rng = Seed(seed).stream("test", 0);
            let centers: Vec<f32> = (0..5 * dim).map(|_| rand::Rng::random_range(&mut rng, -2.0..2.0)).collect();
            let rows = (0..(k + more) * dim).map(|i| {
                let x = centers[i / dim % 5 * dim + i % dim] + rand::Rng::random_range(&mut rng, -1.0f32..1.0);
                // Coarse values give duplicated rows and exact ties.
                if grain > 0.0 { (x * grain).round() / grain } else { x }
            });
            (dim, k, rows.collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn bounds_threads_and_storage_change_no_bit((dim, k, rows) in problem()) {
        let dense = Dense::new(&rows, dim);
        let plain = lloyd(&dense, &rows[..k * dim], 0.0, false, 1);
        let spilled = Scattered(dense);
        for threads in [1, 2, 3] {
            prop_assert_eq!(&plain, &lloyd(&dense, &rows[..k * dim], 0.0, true, threads));
            prop_assert_eq!(&plain, &lloyd(&spilled, &rows[..k * dim], 0.0, threads == 2, threads));
        }
    }

    #[test]
    fn inertia_never_grows((dim, k, rows) in problem()) {
        let trace = lloyd(&Dense::new(&rows, dim), &rows[..k * dim], 0.0, true, 1).2;
        // The scatter between clusters grows as the inertia falls; their sum is the total scatter.
        for pair in trace.windows(2) {
            prop_assert!(pair[1] >= pair[0] * (1.0 - 1e-5), "{:?}", trace);
        }
    }

    #[test]
    fn a_fit_equals_the_textbook((dim, k, rows) in problem()) {
        let spec = KMeansSpec { n_init: 3, tolerance: 0.0, max_iterations: 20, ..KMeansSpec::new(k) };
        let distinct: std::collections::BTreeSet<Vec<u32>> =
            rows.chunks(dim).map(|r| r.iter().map(|x| (x + 0.0).to_bits()).collect()).collect();
        let fitted = fit(&Dense::new(&rows, dim), &spec, Seed(5), &Cpu::new(2), &Control::default());
        if distinct.len() < k {
            prop_assert!(fitted.unwrap_err().to_string().contains("distinct"));
            return Ok(());
        }
        let fitted = fitted.unwrap();
        prop_assert_eq!(fitted.sizes.iter().sum::<u64>() as usize, rows.len() / dim);
        prop_assert!(fitted.sizes.windows(2).all(|s| s[0] >= s[1]));
        let again = fit(&Scattered(Dense::new(&rows, dim)), &spec, Seed(5), &Cpu::new(3), &Control::default()).unwrap();
        prop_assert_eq!(&fitted, &again);
        let naive: f64 = rows.chunks(dim).map(|row| {
            let squared = fitted.centroids.chunks(dim).map(|c| {
                row.iter().zip(c).map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum::<f64>()
            });
            squared.fold(f64::INFINITY, f64::min)
        }).sum();
        prop_assert!((fitted.inertia - naive).abs() <= 1e-5 * naive + 1e-30, "{} {}", fitted.inertia, naive);
    }
}

/// Bounds over many parts and refreshes, with clusters that lose all their rows on the way.
#[test]
fn bounds_equal_plain_iterations_on_many_rows() {
    let mut rng = Seed(11).stream("test", 0);
    let rows: Vec<f32> = (0..30_000 * 4).map(|_| rand::Rng::random_range(&mut rng, -1.0f32..1.0).powi(3)).collect();
    let dense = Dense::new(&rows, 4);
    let mut seeds = rows[..4 * 40].to_vec();
    seeds[..4].fill(50.0); // chosen by no row: it is refilled
    let plain = lloyd(&dense, &seeds, 0.0, false, 2);
    assert_eq!(plain, lloyd(&dense, &seeds, 0.0, true, 1));
    assert!(plain.1 > 32, "{} iterations see two refreshes", plain.1);
    assert!(plain.0.iter().all(|x| x.abs() <= 1.0));
}

/// Rows on a grid: their `f64` sums are exact in any order, so a reference that adds them in another order has the same
/// bits.
#[derive(Debug, Clone)]
struct Grid {
    dim: usize,
    k: usize,
    /// The power of 2 between two points: denormal, with squares that underflow or overflow, or usual.
    step: i32,
    rows: Vec<f32>,
    /// Rows as they are, or with one row, or several equal or different ones, far out.
    seeds: Vec<f32>,
}

fn grid() -> impl Strategy<Value = Grid> {
    let dim = prop_oneof![2 => Just(1usize), 4 => 2usize..20, 2 => 126usize..135];
    let n = prop_oneof![1 => Just(1usize), 8 => 2usize..150];
    // Each feature has only zeros, few values (so that rows repeat), or many.
    let points = prop::sample::select(vec![1i32, 2, 4, 400]);
    let step = prop::sample::select(vec![0, 0, 0, -149, -80, -60, 48, 56, 60, 100]);
    // The number of clusters: one, as many as rows, or some number between.
    (dim, n, 0u8..4, points, step, 0i32..6, any::<u64>()).prop_map(|(dim, n, clusters, points, step, kind, seed)| {
        let mut rng = Seed(seed).stream("test", 0);
        let mut below = |most: i32| rand::Rng::random_range(&mut rng, 0..most);
        let k = match clusters {
            0 => 1,
            1 => n,
            _ => 1 + below(n.min(40) as i32) as usize,
        };
        let power = |e: i32| 2.0f64.powi(e) as f32;
        let rows: Vec<f32> = (0..n * dim).map(|_| (below(points) - points / 2) as f32 * power(step)).collect();
        let mut seeds = rows[..k * dim].to_vec();
        // Squared distances to a far row overflow, or nearly do.
        let far = power(if kind % 2 == 0 { 70 } else { 61 });
        for (i, c) in seeds.chunks_mut(dim).enumerate() {
            let chosen = if kind < 2 { i32::from(i > 0) } else { below(kind) };
            match chosen {
                1 if step <= 0 => c.iter_mut().for_each(|x| *x = (*x + 1.0) * far),
                2 => c.copy_from_slice(&rows[..dim]),
                3 => c.iter_mut().for_each(|x| *x += 300.0 * power(step)),
                _ => {}
            }
        }
        Grid { dim, k, step, rows, seeds }
    })
}

/// The cluster of a row and its squared distance, by comparing every centroid in order.
fn naive_nearest(row: &[f32], centroids: &[f32]) -> (usize, f32) {
    let distances = centroids.chunks(row.len()).map(|c| squared_distance(row, c)).enumerate();
    distances.fold((0, f32::INFINITY), |best, (c, d)| if d < best.1 { (c, d) } else { best })
}

/// Lloyd's iterations in plain loops: centroids, iterations, and whether it stopped by itself.
fn naive_lloyd(rows: &[f32], dim: usize, seeds: &[f32], most: usize, least_shift: f64) -> (Vec<f32>, usize, bool) {
    let k = seeds.len() / dim;
    let mut centroids = seeds.to_vec();
    let mut labels = vec![usize::MAX; rows.len() / dim];
    for iteration in 0..most {
        let before = labels.clone();
        let found: Vec<(usize, f32)> = rows.chunks(dim).map(|row| naive_nearest(row, &centroids)).collect();
        labels = found.iter().map(|f| f.0).collect();
        let mut sizes = vec![0; k];
        labels.iter().for_each(|&c| sizes[c] += 1);
        let mut changed = labels != before;
        // Empty clusters take the farthest rows that are not alone.
        let own = |row: usize| squared_distance(&rows[row * dim..][..dim], &centroids[found[row].0 * dim..][..dim]);
        let mut farthest: Vec<(f32, usize)> = (0..labels.len()).map(|row| (own(row), row)).collect();
        farthest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut farthest = farthest.into_iter().filter(|(d, _)| *d > 0.0);
        for c in 0..k {
            if found.iter().all(|f| f.0 != c) {
                let Some((_, row)) = farthest.find(|(_, row)| sizes[labels[*row]] > 1) else { break };
                sizes[labels[row]] -= 1;
                sizes[c] += 1;
                labels[row] = c;
                changed = true;
            }
        }
        if !changed {
            return (centroids, iteration, true);
        }
        let mut shift = 0.0;
        for c in (0..k).filter(|&c| sizes[c] > 0) {
            for i in 0..dim {
                let of_cluster = labels.iter().enumerate().filter(|(_, label)| **label == c);
                let sum: f64 = of_cluster.map(|(row, _)| f64::from(rows[row * dim + i])).sum();
                let mean = (sum / f64::from(sizes[c])) as f32;
                shift += (f64::from(mean) - f64::from(centroids[c * dim + i])).powi(2);
                centroids[c * dim + i] = mean;
            }
        }
        if shift <= least_shift {
            return (centroids, iteration + 1, true);
        }
    }
    (centroids, most, false)
}

/// The final figures and order of the clusters.
fn naive_finish(rows: &[f32], dim: usize, (centroids, iterations, converged): (Vec<f32>, usize, bool)) -> KMeans {
    let found: Vec<(usize, f32)> = rows.chunks(dim).map(|row| naive_nearest(row, &centroids)).collect();
    let mut clusters: Vec<(u64, f64, &[f32])> = centroids.chunks(dim).map(|c| (0, 0.0, c)).collect();
    for &(c, d) in &found {
        clusters[c].0 += 1;
        clusters[c].1 += f64::from(d).sqrt();
    }
    clusters.sort_by(|a, b| b.0.cmp(&a.0).then(a.2.partial_cmp(b.2).unwrap()));
    KMeans {
        k: clusters.len(),
        dim,
        inertia: found.iter().fold(0.0, |sum, f| sum + f64::from(f.1)),
        iterations,
        converged,
        sizes: clusters.iter().map(|c| c.0).collect(),
        mean_distance: clusters.iter().map(|c| if c.0 == 0 { 0.0 } else { c.1 / c.0 as f64 }).collect(),
        centroids: clusters.iter().flat_map(|c| c.2).copied().collect(),
    }
}

/// Whether the sum of squared distances of the rows to their mean is small enough for `fit`.
fn near_enough(rows: &[f32], dim: usize) -> bool {
    let n = (rows.len() / dim) as f64;
    let feature = |i: usize| rows.iter().skip(i).step_by(dim).map(|&x| f64::from(x));
    let scatter = |i: usize| {
        let mean = feature(i).sum::<f64>() / n;
        feature(i).map(|x| (x - mean).powi(2)).sum::<f64>()
    };
    4.0 * (0..dim).map(scatter).sum::<f64>() <= f64::from(f32::MAX)
}

/// Mini-batches in plain loops, as [`naive_lloyd`] for Lloyd's iterations.
fn naive_batches(
    rows: &[f32],
    dim: usize,
    mut centroids: Vec<f32>,
    spec: &KMeansSpec,
    batch_size: usize,
    seed: Seed,
) -> (Vec<f32>, usize, bool) {
    let (n, k) = (rows.len() / dim, centroids.len() / dim);
    let size = batch_size.min(n);
    let most = (spec.max_iterations * n).div_ceil(size);
    let mut rng = seed.stream("kmeans.batches", 0);
    let mut seen = vec![0.0f64; k];
    let (mut smooth, mut least, mut idle) = (f64::NAN, f64::INFINITY, 0);
    for step in 1..=most {
        let mut drawn: Vec<u32> = (0..size).map(|_| rand::Rng::random_range(&mut rng, 0..n as u32)).collect();
        drawn.sort();
        let batch: Vec<&[f32]> = drawn.iter().map(|&i| &rows[i as usize * dim..][..dim]).collect();
        let mut found: Vec<(usize, f32)> = batch.iter().map(|row| naive_nearest(row, &centroids)).collect();
        for (c, seen) in seen.iter_mut().enumerate() {
            let own: Vec<&[f32]> = batch.iter().zip(&found).filter(|(_, f)| f.0 == c).map(|(row, _)| *row).collect();
            let after = *seen + own.len() as f64;
            for (i, x) in centroids[c * dim..][..dim].iter_mut().enumerate().filter(|_| !own.is_empty()) {
                let sum = own.iter().fold(0.0, |sum, row| sum + f64::from(row[i]));
                *x = ((f64::from(*x) * *seen + sum) / after) as f32;
            }
            *seen = after;
        }
        let inertia = found.iter().fold(0.0, |sum, f| sum + f64::from(f.1)) / size as f64;
        for c in (0..k).filter(|&c| step * size >= 32 * k && seen[c] == 0.0) {
            let farthest = (0..size).rev().max_by(|&a, &b| found[a].1.total_cmp(&found[b].1)).unwrap();
            if found[farthest].1 > 0.0 {
                centroids[c * dim..][..dim].copy_from_slice(batch[farthest]);
                found[farthest].1 = 0.0;
            }
        }
        let share = (2.0 * size as f64 / (n + 1) as f64).min(1.0);
        smooth = if smooth.is_nan() { inertia } else { smooth * (1.0 - share) + inertia * share };
        idle = if smooth < least * (1.0 - spec.tolerance) { 0 } else { idle + 1 };
        least = least.min(smooth);
        if idle == 10 {
            return (centroids, step, true);
        }
    }
    (centroids, most, false)
}

/// Each empty cluster gets a row in the same iteration, also if the farthest rows must stay because they are alone in
/// their cluster, or their cluster has given away all rows but one.
#[test]
fn empty_clusters_pass_over_rows_that_must_stay() {
    let cases: [(&[f32], &[f32]); 3] = [
        (&[110.0, 1.0, -1.0], &[100.0, 0.0, 0.0]),
        (&[110.0, 215.0, 1.0, -1.0], &[100.0, 200.0, 0.0, 0.0]),
        (&[112.0, 90.0, -3.0, 3.0, 0.0], &[100.0, 0.0, 0.0, 0.0]),
    ];
    for (rows, seeds) in cases {
        let (centroids, iterations, converged) = naive_lloyd(rows, 1, seeds, 60, 0.0);
        assert!(converged && iterations == 1);
        for bounded in [false, true] {
            let found = lloyd(&Dense::new(rows, 1), seeds, 0.0, bounded, 1);
            assert_eq!((found.0, found.1), (centroids.clone(), iterations));
        }
    }
}

#[test]
fn given_centroids_must_be_finite() {
    let spec = KMeansSpec::new(2);
    for bad in [f32::NAN, f32::INFINITY] {
        let rows = Dense::new(&[0.0, 1.0, 2.0, 3.0], 2);
        let found = fit_from(&rows, &spec, vec![0.0, 1.0, 5.0, bad], &Cpu::new(1), &Control::default());
        assert!(found.unwrap_err().to_string().contains("initial centroid 1, position 1 is"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn iterations_equal_plain_loops(grid in grid(), shift in prop::sample::select(vec![0.0, 1e-3, 10.0])) {
        let Grid { dim, rows, seeds, .. } = &grid;
        let (centroids, iterations, converged) = naive_lloyd(rows, *dim, seeds, 60, shift);
        prop_assert!(centroids.iter().all(|x| x.is_finite()));
        prop_assert!(converged || iterations == 60);
        for (bounded, threads) in [(false, 1), (true, 1), (true, 2)] {
            let found = lloyd(&Dense::new(rows, *dim), seeds, shift, bounded, threads);
            prop_assert_eq!(found.1, iterations, "bounded: {}", bounded);
            prop_assert_eq!(&found.0, &centroids, "bounded: {}", bounded);
        }
    }

    /// Rows whose squared distances overflow 32 bits are refused; for all others, every figure is that of the
    /// reference.
    #[test]
    fn a_fit_from_given_centroids_equals_plain_loops(grid in grid()) {
        let Grid { dim, k, rows, seeds, .. } = grid;
        let spec = KMeansSpec { tolerance: 0.0, max_iterations: 30, ..KMeansSpec::new(k) };
        let found = fit_from(&Dense::new(&rows, dim), &spec, seeds.clone(), &Cpu::new(1), &Control::default());
        match near_enough(&rows, dim) {
            true => prop_assert_eq!(found.unwrap(), naive_finish(&rows, dim, naive_lloyd(&rows, dim, &seeds, 30, 0.0))),
            false => prop_assert!(found.unwrap_err().to_string().contains("scale them first")),
        }
    }

    /// Rows whose squared distance is 0 in 32 bits count as one; if enough others are left, there is a result.
    #[test]
    fn a_fit_equals_plain_loops_from_its_seeds(grid in grid(), size in prop::option::of(1usize..70)) {
        let Grid { dim, k, step, rows, .. } = grid;
        let method = size.map_or(Method::Lloyd, |batch_size| Method::MiniBatch { batch_size });
        let spec = KMeansSpec { n_init: 1, tolerance: 0.0, max_iterations: 10, method, ..KMeansSpec::new(k) };
        let (dense, device) = (Dense::new(&rows, dim), Cpu::new(2));
        let found = fit(&dense, &spec, Seed(4), &device, &Control::default());
        if !near_enough(&rows, dim) {
            prop_assert!(found.unwrap_err().to_string().contains("scale them first"));
            return Ok(());
        }
        let sample = size.map_or(init::sample_rows(k, dim), |size| (3 * size).max(8 * k));
        let seeds = init::seeds(&*device.points(&dense).unwrap(), k, sample, &mut Seed(4).stream("kmeans", 0), &device);
        let distinct: std::collections::BTreeSet<Vec<u32>> =
            rows.chunks(dim).map(|r| r.iter().map(|x| (x + 0.0).to_bits()).collect()).collect();
        let Ok(seeds) = seeds else {
            prop_assert!(distinct.len() < k || step <= -80, "{} distinct rows, k = {k}", distinct.len());
            prop_assert!(found.unwrap_err().to_string().contains("distinct"));
            return Ok(());
        };
        for (i, seed) in seeds.chunks(dim).enumerate() {
            prop_assert!(rows.chunks(dim).any(|row| row == seed));
            prop_assert!(i == 0 || naive_nearest(seed, &seeds[..i * dim]).1 > 0.0);
        }
        let outcome = match size {
            Some(size) => naive_batches(&rows, dim, seeds, &spec, size, Seed(4)),
            None => naive_lloyd(&rows, dim, &seeds, 10, 0.0),
        };
        prop_assert_eq!(found.unwrap(), naive_finish(&rows, dim, outcome));
    }
}
