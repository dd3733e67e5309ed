use super::*;
use crate::isa::on_each;
use proptest::prelude::*;

/// What a convolution is made of, with the number of images.
#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    channels: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl Case {
    fn convolution(&self) -> Convolution {
        let [channels_in, channels_out] = self.channels;
        Convolution::new(channels_in, self.size, channels_out, self.kernel, self.stride, self.padding)
            .expect("a kernel that fits")
    }

    /// Calls `term(image, weight, output)` with the indices of every product of the convolution, by its definition.
    fn each_term(&self, mut term: impl FnMut(usize, usize, usize)) {
        let ([channels_in, channels_out], [height, width]) = (self.channels, self.size);
        let [out_height, out_width] =
            [0, 1].map(|i| (self.size[i] + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1);
        for n in 0..self.n {
            for o in 0..channels_out {
                for (y, x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                    let output = ((n * channels_out + o) * out_height + y) * out_width + x;
                    for c in 0..channels_in {
                        for ky in 0..self.kernel[0] {
                            for kx in 0..self.kernel[1] {
                                let weight = ((o * channels_in + c) * self.kernel[0] + ky) * self.kernel[1] + kx;
                                let (at_y, at_x) = (y * self.stride[0] + ky, x * self.stride[1] + kx);
                                let inside = at_y >= self.padding[0]
                                    && at_x >= self.padding[1]
                                    && at_y - self.padding[0] < height
                                    && at_x - self.padding[1] < width;
                                if inside {
                                    let row = (n * channels_in + c) * height + at_y - self.padding[0];
                                    term(row * width + at_x - self.padding[1], weight, output);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Small whole numbers: sums of their products are exact in any order.
fn whole(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| f32::from((((i + 77 * salt) * 2_654_435_761) >> 9) as u8 % 9) - 4.0).collect()
}

/// Values between -1 and 1.
fn real(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + 77 * salt) * 2_654_435_761) & 0xffff) as f32 / 32_768.0 - 1.0).collect()
}

/// All that the kernels compute of one case.
#[derive(Debug, Clone, PartialEq)]
struct Results {
    out: Vec<f32>,
    transposed: Vec<f32>,
    d_images: Vec<f32>,
    d_weight: Vec<f32>,
    added: Vec<f32>,
    d_bias: Vec<f32>,
}

impl Results {
    fn bits(&self) -> Vec<u32> {
        let all = [&self.out, &self.transposed, &self.d_images, &self.d_weight, &self.added, &self.d_bias];
        all.into_iter().flatten().map(|v| v.to_bits()).collect()
    }
}

/// Images, weights, gradient at the outputs, biases of the outputs and of the images.
struct Inputs([Vec<f32>; 5]);

impl Inputs {
    fn new(case: &Case, values: fn(usize, usize) -> Vec<f32>) -> Self {
        let convolution = case.convolution();
        let (image, output) = (convolution.image_len(), convolution.output_len());
        let lens = [case.n * image, convolution.weight_len(), case.n * output, case.channels[1], case.channels[0]];
        let mut salt = 0;
        Self(lens.map(|len| {
            salt += 1;
            values(len, salt)
        }))
    }

    fn run(&self, case: &Case, threads: usize) -> Results {
        let Self([images, weight, d_out, bias, bias_in]) = self;
        let (convolution, pool) = (case.convolution(), Pool::new(threads));
        let nan = |like: &Vec<f32>| vec![f32::NAN; like.len()];
        let (mut out, mut transposed, mut d_images) = (nan(d_out), nan(images), nan(images));
        let (mut d_weight, mut added, mut d_bias) = (nan(weight), weight.clone(), nan(bias));
        let double = |values: &mut [f32]| values.iter_mut().for_each(|v| *v *= 2.0);
        convolution.forward(&pool, images, weight, Some(bias), &double, &mut out);
        convolution.forward_transposed(&pool, d_out, weight, Some(bias_in), &double, &mut transposed);
        convolution.backward_input(&pool, d_out, weight, &mut d_images);
        convolution.backward_weight(&pool, images, d_out, Accumulate::Replace, &mut d_weight);
        convolution.backward_weight(&pool, images, d_out, Accumulate::Add, &mut added);
        convolution.backward_bias(&pool, d_out, Accumulate::Replace, &mut d_bias);
        Results { out, transposed, d_images, d_weight, added, d_bias }
    }
}

/// The same by the definition, in double precision, and beside each sum that of the magnitudes of its terms.
fn by_definition(case: &Case, Inputs([images, weight, d_out, bias, bias_in]): &Inputs) -> [Vec<[f64; 2]>; 4] {
    let mut sums = [d_out, images, weight, bias].map(|like| vec![[0.0, 0.0]; like.len()]);
    let mut add = |which: usize, at: usize, a: f32, b: f32| {
        let product = f64::from(a) * f64::from(b);
        sums[which][at][0] += product;
        sums[which][at][1] += product.abs();
    };
    case.each_term(|image, w, output| {
        add(0, output, images[image], weight[w]);
        add(1, image, d_out[output], weight[w]);
        add(2, w, images[image], d_out[output]);
    });
    let convolution = case.convolution();
    let [positions, plane] = [convolution.output(), convolution.input()].map(|[_, height, width]| height * width);
    for (i, &d) in d_out.iter().enumerate() {
        let o = i / positions % bias.len();
        add(0, i, bias[o], 1.0);
        add(3, o, d, 1.0);
    }
    // The bias of the images belongs to the transposed convolution alone, whose checks add it.
    assert!(plane * bias_in.len() == convolution.image_len());
    sums
}

/// Every result against the definition: exact where `tolerance` is zero.
fn check(case: &Case, values: fn(usize, usize) -> Vec<f32>, tolerance: f64) {
    let inputs = Inputs::new(case, values);
    let [out, d_images, d_weight, d_bias] = by_definition(case, &inputs);
    let [_, height, width] = case.convolution().input();
    let bias_in = |i: usize| f64::from(inputs.0[4][i / (height * width) % case.channels[0]]);
    on_each(|isa| {
        let ours = inputs.run(case, 1);
        let near = |name: &str, ours: &[f32], exact: &dyn Fn(usize) -> [f64; 2]| {
            for (i, &value) in ours.iter().enumerate() {
                let [exact, magnitude] = exact(i);
                let error = (f64::from(value) - exact).abs();
                assert!(error <= tolerance * (magnitude + 1.0), "{isa:?} {name} {i} {value} {exact} {case:?}");
            }
        };
        near("out", &ours.out, &|i| out[i].map(|v| 2.0 * v));
        near("transposed", &ours.transposed, &|i| [2.0 * (d_images[i][0] + bias_in(i)), 2.0 * d_images[i][1] + 2.0]);
        near("images", &ours.d_images, &|i| d_images[i]);
        near("weight", &ours.d_weight, &|i| d_weight[i]);
        near("added", &ours.added, &|i| [d_weight[i][0] + f64::from(inputs.0[1][i]), d_weight[i][1] + 1.0]);
        near("bias", &ours.d_bias, &|i| d_bias[i]);
    });
}

/// Any small convolution whose kernel fits.
fn any_case() -> impl Strategy<Value = Case> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (0_usize..6, [1_usize..6, 1..20], pair(1..6), pair(1..4), pair(0..4), pair(0..14)).prop_map(
        |(n, channels, kernel, stride, padding, more)| {
            let size = [0, 1].map(|i| (kernel[i] + more[i]).saturating_sub(2 * padding[i]).max(1));
            Case { n, channels, size, kernel, stride, padding }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whole_numbers_give_exactly_the_definition(case in any_case()) {
        check(&case, whole, 0.0);
    }

    #[test]
    fn transposed_and_gradients_are_adjoint(case in any_case()) {
        let inputs = Inputs::new(&case, whole);
        let Inputs([images, weight, d_out, ..]) = &inputs;
        let (convolution, pool) = (case.convolution(), Pool::new(2));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let mut out = vec![f32::NAN; d_out.len()];
        convolution.forward(&pool, images, weight, None, &|_| {}, &mut out);
        let results = inputs.run(&case, 2);
        let product = dot(&out, d_out);
        prop_assert_eq!(product, dot(images, &results.d_images));
        prop_assert_eq!(product, dot(weight, &results.d_weight));
    }
}

/// Cases of every kind of block: many small images together, rows of one image, one row wider than a block, channels
/// that do not fit in the cache together, kernels smaller than the stride, padding beyond the image.
const CASES: [Case; 9] = [
    case(40, [8, 24], [7, 7], [3, 3], [2, 2], [0, 0]),
    case(37, [3, 5], [4, 6], [3, 5], [1, 2], [1, 2]),
    case(3, [2, 17], [28, 28], [5, 5], [2, 2], [2, 2]),
    case(2, [2, 3], [23, 19], [3, 2], [1, 1], [1, 0]),
    case(2, [3, 4], [3, 300], [2, 3], [1, 1], [0, 1]),
    case(2, [14, 6], [20, 20], [5, 5], [1, 1], [2, 2]),
    case(20, [40, 33], [5, 5], [3, 3], [1, 1], [1, 1]),
    case(5, [2, 3], [11, 13], [1, 2], [4, 3], [0, 1]),
    case(2, [1, 1], [1, 2], [2, 2], [2, 3], [5, 4]),
];

const fn case(
    n: usize,
    channels: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Case {
    Case { n, channels, size, kernel, stride, padding }
}

#[test]
fn every_kind_of_block_equals_the_definition() {
    for case in CASES {
        check(&case, whole, 0.0);
        check(&case, real, 1e-6);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for case in CASES {
        let inputs = Inputs::new(&case, real);
        let one = inputs.run(&case, 1).bits();
        for threads in 2..5 {
            assert!(inputs.run(&case, threads).bits() == one, "{threads} threads, {case:?}");
        }
    }
}

#[test]
fn an_image_has_the_same_bits_alone() {
    for case in CASES {
        let inputs = Inputs::new(&case, real);
        let all = inputs.run(&case, 2);
        let (image, output) = (case.convolution().image_len(), case.convolution().output_len());
        for i in 0..case.n {
            let mut alone = inputs.0.clone();
            alone[0] = alone[0][i * image..(i + 1) * image].to_vec();
            alone[2] = alone[2][i * output..(i + 1) * output].to_vec();
            let alone = Inputs(alone).run(&Case { n: 1, ..case }, 1);
            assert!(alone.out == all.out[i * output..(i + 1) * output], "{i} of {case:?}");
            assert!(alone.transposed == all.transposed[i * image..(i + 1) * image], "{i} of {case:?}");
            assert!(alone.d_images == all.d_images[i * image..(i + 1) * image], "{i} of {case:?}");
        }
    }
}

#[test]
fn infinite_values_stay_where_they_are_met() {
    let convolution = Convolution::new(1, [1, 40], 1, [1, 3], [1, 1], [0, 1]).expect("a kernel that fits");
    let mut image = vec![1.0; 40];
    image[20] = f32::INFINITY;
    let mut out = vec![0.0; 40];
    convolution.forward(&Pool::new(1), &image, &[1.0; 3], None, &|_| {}, &mut out);
    assert!(out.iter().enumerate().all(|(i, v)| v.is_infinite() == (19..22).contains(&i) && !v.is_nan()));
}

#[test]
fn what_does_not_fit_is_told() {
    let told = |size, kernel, stride, padding, words: &str| {
        Convolution::new(1, size, 1, kernel, stride, padding).is_err_and(|e| e.contains(words))
    };
    assert!(told([3, 3], [4, 1], [1, 1], [0, 0], "a kernel of 4 does not fit in 3"));
    assert!(told([3, 3], [1, 1], [1, 0], [0, 0], "zero"));
    assert!(told([3, 3], [1, 1], [1, 1], [usize::MAX, 0], "too large"));
    assert!(told([usize::MAX / 4, 8], [1, 1], [1, 1], [0, 0], "too large"));
    assert!(Convolution::new(0, [1, 1], 1, [1, 1], [1, 1], [0, 0]).is_err());
}

#[test]
#[should_panic(expected = "outputs of")]
fn a_short_output_is_refused() {
    let convolution = Convolution::new(1, [4, 4], 2, [2, 2], [1, 1], [0, 0]).expect("a kernel that fits");
    convolution.forward(&Pool::new(1), &[0.0; 16], &[0.0; 8], None, &|_| {}, &mut [0.0; 17]);
}
