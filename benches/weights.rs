//! Equation 5 over all rows of the shape of MNIST, ten classes, two threads.

use dacpipe::Seed;
use dacpipe::kernel::Pool;
use dacpipe::kernel::moments::Moments;
use dacpipe::weights::weights;
use divan::Bencher;
use rand::Rng;

fn main() {
    divan::main();
}

#[divan::bench(args = [1_000, 60_000], sample_count = 5)]
fn equation_5(bencher: Bencher, rows: usize) {
    const DIM: usize = 784;
    const BLOCK: usize = 1024;
    let mut rng = Seed(1).stream("bench", 0);
    let values: Vec<f32> = (0..rows * DIM).map(|_| rng.random_range(0.0..=1.0)).collect();
    let classes: Vec<Option<u32>> = (0..rows).map(|i| Some(i as u32 * 7919 % 10)).collect();
    let pool = Pool::new(2);
    bencher.bench_local(|| {
        let mut moments = Moments::new(10, DIM);
        for (block, classes) in values.chunks(BLOCK * DIM).zip(classes.chunks(BLOCK)) {
            moments.add(block, classes, &pool);
        }
        weights(&moments)
    });
}
