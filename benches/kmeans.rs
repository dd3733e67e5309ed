//! Lloyd, mini-batch, online and assignment of synthetic blobs: rows x dim, k clusters, two threads.

use dacpipe::Seed;
use dacpipe::device::Cpu;
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kernel::distance::Centroids;
use dacpipe::kmeans::{Decay, HalfLife, KMeansSpec, Method, OnlineKMeans, OnlineSpec, fit, fit_from};
use divan::Bencher;
use divan::counter::ItemsCount;
use rand::Rng;

const SHAPES: [(usize, usize, usize); 3] = [(1_000_000, 10, 10), (1_000_000, 10, 100), (60_000, 784, 10)];

fn main() {
    divan::main();
}

/// Uniform noise around `k` centers.
fn blobs((rows, dim, k): (usize, usize, usize)) -> Vec<f32> {
    let mut rng = Seed(1).stream("bench", 0);
    let centers: Vec<f32> = (0..k * dim).map(|_| rng.random_range(-2.0..2.0)).collect();
    let cluster = |row: usize| row * 7919 % k;
    (0..rows * dim).map(|i| centers[cluster(i / dim) * dim + i % dim] + rng.random_range(-1.5f32..1.5)).collect()
}

#[divan::bench(args = SHAPES, sample_count = 5)]
fn lloyd_ten_iterations(bencher: Bencher, shape: (usize, usize, usize)) {
    let (rows, device) = (blobs(shape), Cpu::new(2));
    let spec = KMeansSpec { max_iterations: 10, tolerance: 0.0, ..KMeansSpec::new(shape.2) };
    let seeds = rows[..shape.1 * shape.2].to_vec();
    let data = Dense::new(&rows, shape.1);
    bencher.bench_local(|| fit_from(&data, &spec, seeds.clone(), &device, &Control::default()));
}

#[divan::bench(args = SHAPES, sample_count = 5)]
fn mini_batches(bencher: Bencher, shape: (usize, usize, usize)) {
    let (rows, device) = (blobs(shape), Cpu::new(2));
    let method = Method::MiniBatch { batch_size: 4096 };
    let spec = KMeansSpec { n_init: 1, method, ..KMeansSpec::new(shape.2) };
    let data = Dense::new(&rows, shape.1);
    bencher.bench_local(|| fit(&data, &spec, Seed(0), &device, &Control::default()));
}

/// A million rows in batches of 4 096; wide rows are a quarter of that, four times over.
#[divan::bench(args = [(1_000_000, 10, 12, 1), (250_000, 561, 12, 4)], sample_count = 5)]
fn online_batches(bencher: Bencher, (rows, dim, k, rounds): (usize, usize, usize, usize)) {
    let (values, device) = (blobs((rows, dim, k)), Cpu::new(2));
    let init: Vec<f64> = values[..k * dim].iter().map(|&x| f64::from(x)).collect();
    let spec = OnlineSpec::new(k, Decay::HalfLife(HalfLife::Rows(100_000.0)));
    bencher.counter(ItemsCount::new(rows * rounds)).bench_local(|| -> dacpipe::Result<OnlineKMeans> {
        let mut learner = OnlineKMeans::warm(spec.clone(), init.clone(), vec![0.0; k])?;
        for _ in 0..rounds {
            for batch in values.chunks(4096 * dim) {
                learner.partial_fit(&Dense::new(batch, dim), None, &device)?;
            }
        }
        Ok(learner)
    });
}

#[divan::bench(args = SHAPES, sample_count = 10)]
fn assign_on_one_thread(bencher: Bencher, shape: (usize, usize, usize)) {
    let rows = blobs(shape);
    let centers = Centroids::new(&rows[..shape.1 * shape.2], shape.1);
    let (mut labels, mut squared) = (vec![0; shape.0], vec![0.0; shape.0]);
    bencher.bench_local(|| centers.nearest(&rows, &mut labels, &mut squared));
}
