//! Layers one after the other, with names.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{ModuleT, Result, Tensor};
use rand::Rng;

use super::batch_norm::BatchNorm;
use super::chain::Chain;
use super::layer::{Builder, Layer, Operation};
use super::parameter::{Buffer, Parameter};
use super::shape::RowShape;
use super::spec::{ConvLayer, ConvTransposeLayer, LayerSpec, MaskLayer, NoiseLayer, shapes};
use super::{Activate, Conv2d, ConvTranspose2d, Dense, Dropout, MaxPool2d, Noise, Upsample2d};
use crate::error::Error;

/// What weights start from; biases start from 0 and batch norm from 1 and 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initialisation {
    /// Uniform between plus and minus `sqrt(6 / (inputs + outputs))` (Glorot and Bengio 2010, equation 16).
    #[default]
    Glorot,
    /// Uniform between plus and minus `sqrt(1 / inputs)`: PyTorch's default.
    FanIn,
    /// Normal with variance `2 / inputs` (He et al. 2015, equation 10), for ReLU.
    He,
}

impl Initialisation {
    /// `count` weights of a layer each of whose outputs has `inputs` of them, and each of whose inputs `outputs`.
    fn weights(self, count: usize, inputs: usize, outputs: usize, random: &mut impl Rng) -> Vec<f32> {
        let mut uniform = |bound: f32| (0..count).map(|_| random.random_range(-bound..=bound)).collect();
        match self {
            Self::Glorot => uniform((6.0 / (inputs + outputs) as f32).sqrt()),
            Self::FanIn => uniform((1.0 / inputs as f32).sqrt()),
            Self::He => {
                let deviation = (2.0 / inputs as f64).sqrt();
                // Box and Muller 1958; the first is above 0.
                let mut normal = || {
                    let (u, v) = (1.0 - random.random::<f64>(), random.random::<f64>());
                    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
                };
                (0..count).map(|_| (deviation * normal()) as f32).collect()
            }
        }
    }
}

/// Some layers, one after the other: rows of `input` values in, rows of `output` values out, whatever shapes lie between.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool};
/// use dacpipe::network::{Activation, Builder, Initialisation, LayerSpec, RowShape, Sequence};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layers = [LayerSpec::dense(4, Activation::Relu), LayerSpec::dense(2, Activation::Identity)];
/// let encoder = Sequence::new("encoder", RowShape::flat(3), &layers, Initialisation::Glorot, &builder)?;
/// let names: Vec<String> = encoder.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"]);
/// let x = Tensor::zeros((5, 3), candle_core::DType::F32, &Device::Cpu)?;
/// assert_eq!(encoder.forward_t(&x, false)?.dims(), [5, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sequence {
    name: String,
    layers: Vec<Box<dyn Layer>>,
    shapes: Vec<RowShape>,
}

impl Sequence {
    /// `layers` for rows of shape `input`, with fresh weights. `name` is the first part of the parameters' names.
    ///
    /// # Errors
    /// Kind `Config` for layers that do not fit, with their shapes; `Compute` where the device has no room.
    pub fn new(
        name: &str,
        input: RowShape,
        layers: &[LayerSpec],
        initialisation: Initialisation,
        builder: &Builder,
    ) -> crate::Result<Self> {
        let shapes = shapes(&input, layers)
            .map_err(|(at, problem)| Error::config(format!("layer {at} of the {name}: {problem}")))?;
        let mut made: Vec<Box<dyn Layer>> = Vec::with_capacity(layers.len());
        for (i, spec) in layers.iter().enumerate() {
            made.push(make(&format!("{name}.{i}"), spec, &shapes[i], &shapes[i + 1], initialisation, builder)?);
        }
        Ok(Self { name: name.to_owned(), layers: made, shapes })
    }

    /// The shape of the rows that come out.
    pub fn output(&self) -> &RowShape {
        &self.shapes[self.layers.len()]
    }

    /// Its parameters with their full names (`encoder.0.weight`), in the order of the layers.
    pub fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        self.named(|layer| layer.parameters())
    }

    /// Its buffers with their full names (`encoder.1.running_mean`), in the order of the layers.
    pub fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        self.named(|layer| layer.buffers())
    }

    fn named<'a, T: 'a>(
        &'a self,
        of: impl Fn(&'a dyn Layer) -> Vec<(&'static str, &'a Arc<T>)>,
    ) -> Vec<(String, Arc<T>)> {
        let of_layer = |(i, layer): (usize, &'a dyn Layer)| {
            let named =
                |(part, value): (&'static str, &'a Arc<T>)| (format!("{}.{i}.{part}", self.name), Arc::clone(value));
            of(layer).into_iter().map(named).collect::<Vec<_>>()
        };
        self.layers.iter().map(|layer| &**layer).enumerate().flat_map(of_layer).collect()
    }

    /// What the layers from number `from` on and before number `to` make of `x`, values in a row. With `train` it is on
    /// candle's tape, as one operation; without, there is no way back.
    ///
    /// # Errors
    /// Candle's, for rows of another width.
    pub fn forward_between(&self, from: usize, to: usize, x: &Tensor, train: bool) -> Result<Tensor> {
        let (chain, value, anchor) = self.through(from, to, x, train)?;
        let rows = value.dim(0)?;
        let value = value.reshape((rows, self.shapes[to].len()))?;
        match train {
            true => chain.on_tape(x, value, anchor.as_deref()),
            false => Ok(value),
        }
    }

    /// What `end` makes of what all layers make of `x` in training: with them one operation of the tape, so that nothing as
    /// wide as a row goes over it.
    ///
    /// # Errors
    /// As [`forward_between`](Self::forward_between), and those of `end`.
    pub(crate) fn forward_ending(&self, x: &Tensor, end: Operation) -> Result<Tensor> {
        let (mut chain, value, anchor) = self.through(0, self.layers.len(), x, true)?;
        let value = shaped(&value, self.output())?;
        let result = end.compute(&value)?;
        chain.add(end, value, result.clone());
        chain.on_tape(x, result, anchor.as_deref())
    }

    /// The layers applied one after the other, what comes out of the last, and a parameter of theirs.
    fn through(
        &self,
        from: usize,
        to: usize,
        x: &Tensor,
        train: bool,
    ) -> Result<(Chain, Tensor, Option<Arc<Parameter>>)> {
        let mut chain = Chain::new(x.track_op());
        let mut value = x.detach().contiguous()?;
        let mut anchor = None;
        for (layer, into) in self.layers[from..to].iter().zip(&self.shapes[from..]) {
            let x = shaped(&value, into)?;
            let operation = layer.operation(&x, train, chain.wanted() || anchor.is_some())?;
            value = operation.compute(&x)?;
            if train {
                anchor = anchor.or_else(|| layer.parameters().first().map(|(_, parameter)| Arc::clone(parameter)));
                chain.add(operation, x, value.clone());
            }
        }
        Ok((chain, value, anchor))
    }
}

impl ModuleT for Sequence {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_between(0, self.layers.len(), x, train)
    }
}

/// `x` as rows of that shape.
fn shaped(x: &Tensor, shape: &RowShape) -> Result<Tensor> {
    let rows = x.dim(0)?;
    match shape.as_image() {
        Some([channels, height, width]) => x.reshape((rows, channels, height, width)),
        None => x.reshape((rows, shape.len())),
    }
}

/// A layer that gives rows another shape: the shape is the sequence's affair.
#[derive(Debug)]
struct Reshape;

impl Layer for Reshape {
    fn operation(&self, _: &Tensor, _: bool, _: bool) -> Result<Operation> {
        Ok(Operation::Nothing)
    }
}

impl ModuleT for Reshape {
    fn forward_t(&self, x: &Tensor, _: bool) -> Result<Tensor> {
        Ok(x.clone())
    }
}

fn make(
    name: &str,
    spec: &LayerSpec,
    input: &RowShape,
    output: &RowShape,
    initialisation: Initialisation,
    builder: &Builder,
) -> crate::Result<Box<dyn Layer>> {
    let mut random = builder.seed.stream(name, 0);
    let mut weights =
        |count: usize, inputs: usize, outputs: usize| initialisation.weights(count, inputs, outputs, &mut random);
    let mut made = || -> Result<Box<dyn Layer>> {
        Ok(match spec {
            LayerSpec::Dense(layer) => {
                let (inputs, outputs) = (input.len(), output.len());
                let weight = weights(inputs * outputs, inputs, outputs);
                Box::new(Dense::new(weight, vec![0.0; outputs], layer.activation, builder)?)
            }
            LayerSpec::Conv2d(layer) => {
                let &ConvLayer { channels, kernel, .. } = layer;
                let (from, area) = (input.channels(), kernel * kernel);
                let weight = weights(channels * from * area, from * area, channels * area);
                Box::new(Conv2d::new(weight, vec![0.0; channels], layer, builder)?)
            }
            LayerSpec::ConvTranspose2d(layer) => {
                let &ConvTransposeLayer { channels, kernel, .. } = layer;
                let (from, area) = (input.channels(), kernel * kernel);
                let weight = weights(from * channels * area, from * area, channels * area);
                Box::new(ConvTranspose2d::new(weight, vec![0.0; channels], layer, builder)?)
            }
            LayerSpec::BatchNorm(_) => Box::new(BatchNorm::new(input.channels(), builder)?),
            LayerSpec::Activation(layer) => Box::new(Activate::new(layer.activation, builder)),
            LayerSpec::Dropout(layer) => Box::new(Dropout::new(name, layer.rate, builder)?),
            LayerSpec::Noise(NoiseLayer { deviation }) => Box::new(Noise::new(name, *deviation, builder)?),
            LayerSpec::Mask(MaskLayer { fraction }) => Box::new(Noise::masking(name, *fraction, builder)?),
            LayerSpec::MaxPool2d(layer) => Box::new(MaxPool2d::new(layer, builder)),
            LayerSpec::Upsample2d(layer) => Box::new(Upsample2d::new(layer, builder)),
            LayerSpec::Reshape(_) => Box::new(Reshape),
        })
    };
    made().map_err(|e| Error::compute(format!("making the layer {name}")).with_source(e))
}
