//! The matrix product in the shapes of training, on one thread, and the convolutions built on it, on two.
//!
//! `cargo bench --bench gemm`. The item rate is flops per second: two for each multiply-add of the shapes, without the
//! padding of panels.

use dacpipe::kernel::Pool;
use dacpipe::kernel::activation::relu_in_place;
use dacpipe::kernel::aligned::Aligned;
use dacpipe::kernel::convolution::{Accumulate, Convolution};
use dacpipe::kernel::gemm::{Left, Panels, Right, Start, gemm};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

/// Inputs and outputs of layers, wide and narrow; the last is large enough to be near the machine's peak.
const LAYERS: [(usize, usize); 8] =
    [(561, 256), (256, 128), (128, 64), (64, 32), (32, 16), (16, 12), (784, 512), (1024, 1024)];
const ROWS: usize = 256;

fn main() {
    divan::main();
}

fn filled(len: usize) -> Aligned {
    let mut values = Aligned::zeros(len);
    values.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 97) as f32 / 97.0 - 0.5);
    values
}

fn flops(inputs: usize, outputs: usize) -> ItemsCount {
    ItemsCount::new(2 * ROWS * inputs * outputs)
}

/// Outputs of a layer from its inputs and packed weights.
#[divan::bench(args = LAYERS)]
fn forward(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    let (x, mut y) = (filled(ROWS * inputs), filled(ROWS * outputs));
    let weights = Panels::from_transposed(&filled(inputs * outputs), inputs, outputs);
    bencher.counter(flops(inputs, outputs)).bench_local(|| {
        gemm(ROWS, Left::rows(black_box(&x), inputs), weights.right(), Start::Zero, &mut y, outputs);
    });
}

/// Gradient at a layer's inputs from the gradient at its outputs and the unpacked weights.
#[divan::bench(args = LAYERS)]
fn input_gradient(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    let (d, weights, mut below) = (filled(ROWS * outputs), filled(inputs * outputs), filled(ROWS * inputs));
    bencher.counter(flops(inputs, outputs)).bench_local(|| {
        let right = Right::rows(&weights, inputs, outputs, inputs);
        gemm(ROWS, Left::rows(black_box(&d), outputs), right, Start::Zero, &mut below, inputs);
    });
}

/// Gradient of a layer's weights from the gradient at its outputs and its inputs.
#[divan::bench(args = LAYERS)]
fn weight_gradient(bencher: Bencher, (inputs, outputs): (usize, usize)) {
    let (d, x, mut gradient) = (filled(ROWS * outputs), filled(ROWS * inputs), filled(inputs * outputs));
    bencher.counter(flops(inputs, outputs)).bench_local(|| {
        let right = Right::rows(&x, inputs, ROWS, inputs);
        gemm(outputs, Left::transposed(black_box(&d), outputs), right, Start::Zero, &mut gradient, inputs);
    });
}

/// Channels and extent of the images, channels that come out, kernel, stride and padding.
const CONVOLUTIONS: [[usize; 6]; 3] = [[1, 28, 32, 5, 2, 2], [32, 14, 64, 5, 2, 2], [64, 7, 128, 3, 2, 0]];

/// One layer on a batch of images.
struct Layer {
    convolution: Convolution,
    pool: Pool,
    images: Aligned,
    weight: Aligned,
    outputs: Aligned,
}

impl Layer {
    fn new([channels_in, extent, channels_out, kernel, stride, padding]: [usize; 6]) -> Self {
        let pairs = [kernel, stride, padding].map(|value| [value; 2]);
        let convolution =
            Convolution::new(channels_in, [extent; 2], channels_out, pairs[0], pairs[1], pairs[2]).expect("it fits");
        let [input, output] =
            [convolution.input(), convolution.output()].map(|extents| extents.iter().product::<usize>());
        let weight = filled(convolution.weight_len());
        Self { convolution, pool: Pool::new(2), images: filled(ROWS * input), weight, outputs: filled(ROWS * output) }
    }

    fn flops(&self) -> ItemsCount {
        let [_, height, width] = self.convolution.output();
        ItemsCount::new(2 * ROWS * self.convolution.weight_len() * height * width)
    }
}

/// Outputs of a convolution from its images, through a ReLU.
#[divan::bench(args = CONVOLUTIONS)]
fn convolution_forward(bencher: Bencher, extents: [usize; 6]) {
    let mut layer = Layer::new(extents);
    bencher.counter(layer.flops()).bench_local(|| {
        let Layer { convolution, pool, images, weight, outputs } = &mut layer;
        convolution.forward(pool, black_box(images), weight, None, &relu_in_place, outputs);
    });
}

/// Gradient at the images, which is also the transposed convolution.
#[divan::bench(args = CONVOLUTIONS)]
fn convolution_backward_input(bencher: Bencher, extents: [usize; 6]) {
    let mut layer = Layer::new(extents);
    bencher.counter(layer.flops()).bench_local(|| {
        let Layer { convolution, pool, images, weight, outputs } = &mut layer;
        convolution.backward_input(pool, black_box(outputs), weight, images);
    });
}

/// Gradient of the weights.
#[divan::bench(args = CONVOLUTIONS)]
fn convolution_backward_weight(bencher: Bencher, extents: [usize; 6]) {
    let mut layer = Layer::new(extents);
    bencher.counter(layer.flops()).bench_local(|| {
        let Layer { convolution, pool, images, weight, outputs } = &mut layer;
        convolution.backward_weight(pool, black_box(images), outputs, Accumulate::Replace, weight);
    });
}
