//! Training steps and encoding, with the networks that the paper's data sets call for.
//!
//! `cargo bench --bench train`. The item rate is rows per second. Before the measurements, the useful flops per row are
//! printed; multiply them by the rate. A training step needs `6 * weights - 2 * (weights of the first layer)`, since
//! the gradient at the input is not computed, and encoding twice the encoder's weights. Activations, Adam and packing
//! do not count.

use dacpipe::Seed;
use dacpipe::device::{Cpu, Device, StepSettings};
use dacpipe::kernel::{Dense, Pool};
use dacpipe::loss::{L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::network::{Architecture, DenseSpec, Encoder, initialise};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

/// The input and the encoder's widths; the decoder is the mirror.
const NETWORKS: [(usize, &[usize]); 2] =
    [(561, &[256, 128, 64, 32, 16, 12, 10]), (784, &[512, 256, 128, 64, 32, 16, 10])];
const BATCH: usize = 256;
const ROWS: usize = 8192;

fn architecture((dim, encoder): (usize, &[usize])) -> Architecture {
    let mirror: Vec<usize> = encoder.iter().rev().skip(1).copied().collect();
    Architecture::dac(dim, encoder, Some(&mirror))
}

fn weights(layers: &[DenseSpec]) -> usize {
    layers.iter().map(|l| l.inputs * l.outputs).sum()
}

fn values(dim: usize) -> Vec<f32> {
    (0..ROWS * dim).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0).collect()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn main() {
    for network in NETWORKS {
        let a = architecture(network);
        let all = weights(&a.encoder) + weights(&a.decoder);
        let step = 6 * all - 2 * weights(&a.encoder[..1]);
        println!("{} features: {step} flops a row trained, {} a row encoded", network.0, 2 * weights(&a.encoder));
    }
    divan::main();
}

/// Steps on batches of 256 rows, gathered at random, on all threads.
#[divan::bench(args = [0, 1])]
fn train(bencher: Bencher, network: usize) {
    let (a, dim) = (architecture(NETWORKS[network]), NETWORKS[network].0);
    let values = values(dim);
    let (rows, device) = (Dense::new(&values, dim), Cpu::new(threads()));
    let order: Vec<u32> = (0..ROWS).map(|i| (i * 7919 % ROWS) as u32).collect();
    let parameters = initialise(&a, Seed(1));
    let loss = WeightedMse { weights: vec![0.5; dim] };
    let mut trainer = device.trainer(&rows, &a, &parameters, loss, BATCH).expect("has room");
    trainer.load(&order[..BATCH]).expect("rows in memory");
    let mut batches = order.chunks_exact(BATCH).cycle();
    let penalty = L2Penalty { beta: 1e-5, form: PenaltyForm::Norm };
    let settings = StepSettings { learning_rate: 0.003, penalty, reconstruction: 1.0, embedding: None };
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let next = batches.next().expect("a cycle never ends");
        trainer.step(next, &settings).expect("rows in memory")
    });
}

/// Encoding of 8192 rows on all threads.
#[divan::bench(args = [0, 1])]
fn encode(bencher: Bencher, network: usize) {
    const SHARE: usize = 512;
    let (a, dim) = (architecture(NETWORKS[network]), NETWORKS[network].0);
    let (values, pool) = (values(dim), Pool::new(threads()));
    let encoder = Encoder::new(&a, &initialise(&a, Seed(1)));
    let mut output = vec![0.0; ROWS * encoder.dim_out()];
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        pool.for_each_chunk_mut(&mut output, SHARE * encoder.dim_out(), |i, embeddings| {
            let start = i * SHARE * dim;
            encoder.encode(black_box(&values[start..start + SHARE * dim]), embeddings);
        });
    });
}
