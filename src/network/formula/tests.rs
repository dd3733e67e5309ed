//! The formulas beside our kernels, on candle's CPU or a GPU.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::super::spec::{ActivationLayer, BatchNormLayer, DropoutLayer, MaskLayer, NoiseLayer, PoolLayer};
use super::super::{Activation, Builder, ConvLayer, ConvTransposeLayer, Initialisation, LayerSpec, RowShape, Sequence};
use crate::cuda::tested_device;
use crate::kernel::Pool;
use crate::seed::Seed;

const ACTIVATIONS: [Activation; 7] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::LeakyRelu,
    Activation::Elu,
    Activation::Softplus,
];

fn some(shape: (usize, usize), salt: f32) -> Tensor {
    let values = (0..shape.0 * shape.1).map(|i| (i as f32 * 0.7 + salt).sin()).collect();
    Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
}

/// Everything that a network gives: outputs in training and in evaluation, the gradients at its input and of all its
/// parameters, and its buffers.
fn given(formulas: bool, shape: &RowShape, layers: &[LayerSpec], rows: usize) -> Result<Vec<(String, Tensor)>> {
    let device = if formulas { tested_device() } else { Device::Cpu };
    let builder = Builder { formulas, ..Builder::on(device.clone(), Arc::new(Pool::new(2)), Seed(3)) };
    builder.clock.set(5);
    let network = Sequence::new("net", shape.clone(), layers, Initialisation::Glorot, &builder).unwrap();
    for (i, (_, parameter)) in network.parameters().iter().enumerate() {
        // Biases and the weights of batch norm begin with numbers that hide mistakes.
        let values = some((1, parameter.value().elem_count()), i as f32)
            .reshape(parameter.value().shape())?
            .to_device(&device)?;
        parameter.set(&(parameter.value() + (values * 0.3)?)?)?;
    }
    let x = Var::from_tensor(&some((rows, shape.len()), 0.4).to_device(&device)?)?;
    let mut given = Vec::new();
    // Twice, so that gradients add up.
    for _ in 0..2 {
        let y = network.forward_between(0, layers.len(), &x, true)?;
        let d = some(y.dims2()?, 0.9).to_device(&device)?;
        let gradients = (&y * d)?.sum_all()?.backward()?;
        given.push(("y".to_string(), y));
        given.push(("x".to_string(), gradients.get(&x).expect("of a variable").clone()));
    }
    let evaluated = network.forward_between(0, layers.len(), &x, false)?;
    given.push(("evaluated".to_string(), evaluated));
    for (name, parameter) in network.parameters() {
        given.push((name, parameter.gradient().expect("a gradient").copy()?));
    }
    given.extend(network.buffers().into_iter().map(|(name, buffer)| (name, buffer.get())));
    Ok(given)
}

fn assert_same(shape: &RowShape, layers: &[LayerSpec]) {
    let rows = 7;
    let (ours, formulas) = (given(false, shape, layers, rows).unwrap(), given(true, shape, layers, rows).unwrap());
    assert_eq!(ours.len(), formulas.len());
    for ((name, ours), (_, theirs)) in ours.iter().zip(&formulas) {
        assert_eq!(ours.shape(), theirs.shape(), "{name} of {layers:?}");
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (ours, theirs) = (flat(ours), flat(theirs));
        let scale = ours.iter().fold(1.0f32, |scale, v| scale.max(v.abs()));
        for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() <= 2e-5 * scale, "{name}[{i}] of {layers:?}: {a} {b}");
        }
    }
}

#[test]
fn dense_layers_and_activations() {
    for activation in ACTIVATIONS {
        let layers = [LayerSpec::dense(9, activation), LayerSpec::dense(4, Activation::Identity)];
        assert_same(&RowShape::flat(5), &layers);
        assert_same(&RowShape::flat(5), &[LayerSpec::Activation(ActivationLayer { activation })]);
    }
}

#[test]
fn convolutions() {
    // Kernel, stride, padding; the images are not square, and strides leave other numbers of pixels over on both axes.
    for (activation, [kernel, stride, padding]) in
        ACTIVATIONS.into_iter().zip([[3, 1, 0], [2, 3, 1], [1, 1, 0], [3, 2, 1], [5, 2, 2], [2, 2, 0], [3, 3, 2]])
    {
        let layer = ConvLayer { channels: 3, kernel, stride, padding, activation };
        assert_same(&RowShape::image(2, 8, 11), &[LayerSpec::Conv2d(layer)]);
        let output_padding = stride - 1;
        let layer = ConvTransposeLayer { channels: 3, kernel, stride, padding, output_padding, activation };
        assert_same(&RowShape::image(2, 5, 7), &[LayerSpec::ConvTranspose2d(layer)]);
    }
}

#[test]
fn pooling_and_upsampling() {
    for size in [1, 2, 3] {
        assert_same(&RowShape::image(2, 8, 7), &[LayerSpec::MaxPool2d(PoolLayer { size })]);
        assert_same(&RowShape::image(2, 3, 4), &[LayerSpec::Upsample2d(PoolLayer { size })]);
    }
    // Equal values: after a ReLU whole squares are zero.
    let relu = LayerSpec::Activation(ActivationLayer { activation: Activation::Relu });
    assert_same(&RowShape::image(2, 8, 7), &[relu, LayerSpec::MaxPool2d(PoolLayer { size: 2 })]);
}

#[test]
fn batch_norm_of_rows_and_of_images() {
    let norm = || LayerSpec::BatchNorm(BatchNormLayer {});
    assert_same(
        &RowShape::flat(5),
        &[LayerSpec::dense(4, Activation::Tanh), norm(), LayerSpec::dense(2, Activation::Elu)],
    );
    assert_same(&RowShape::image(3, 4, 5), &[norm()]);
}

/// What is random is drawn on the host, so that every device draws the same.
#[test]
fn random_layers_draw_the_same() {
    for layer in [
        LayerSpec::Dropout(DropoutLayer { rate: 0.4 }),
        LayerSpec::Noise(NoiseLayer { deviation: 0.3 }),
        LayerSpec::Mask(MaskLayer { fraction: 0.2 }),
    ] {
        assert_same(&RowShape::flat(6), &[layer, LayerSpec::dense(3, Activation::Tanh)]);
    }
}
