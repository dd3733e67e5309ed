//! Which layers a network has, and where their parameters lie.

use std::ops::Range;

use crate::kernel::activation::{
    elu_gradient, elu_in_place, leaky_relu_gradient, leaky_relu_in_place, relu_gradient, relu_in_place,
    sigmoid_gradient, sigmoid_in_place, softplus_gradient, softplus_in_place, tanh_gradient, tanh_in_place,
};

/// An activation function.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `max(0, x)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function `1 / (1 + e^{-x})`.
    Sigmoid,
    /// `x` above zero, `0.01 x` below.
    LeakyRelu,
    /// The exponential linear unit: `x` above zero, `e^x - 1` below.
    Elu,
    /// `ln(1 + e^x)`.
    Softplus,
}

impl Activation {
    /// Applies it to every value.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Relu => relu_in_place(values),
            Activation::Tanh => tanh_in_place(values),
            Activation::Sigmoid => sigmoid_in_place(values),
            Activation::LeakyRelu => leaky_relu_in_place(values),
            Activation::Elu => elu_in_place(values),
            Activation::Softplus => softplus_in_place(values),
        }
    }

    /// The number by which the CUDA kernels know it.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn number(self) -> u32 {
        match self {
            Activation::Identity => 0,
            Activation::Relu => 1,
            Activation::Tanh => 2,
            Activation::Sigmoid => 3,
            Activation::LeakyRelu => 4,
            Activation::Elu => 5,
            Activation::Softplus => 6,
        }
    }

    /// Multiplies `gradient` by its derivative where the outputs are `outputs`.
    pub fn backward(self, outputs: &[f32], gradient: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Relu => relu_gradient(outputs, gradient),
            Activation::Tanh => tanh_gradient(outputs, gradient),
            Activation::Sigmoid => sigmoid_gradient(outputs, gradient),
            Activation::LeakyRelu => leaky_relu_gradient(outputs, gradient),
            Activation::Elu => elu_gradient(outputs, gradient),
            Activation::Softplus => softplus_gradient(outputs, gradient),
        }
    }
}

/// A dense layer: `activation(W x + b)` with W of shape `[outputs, inputs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct DenseSpec {
    /// Values that go in.
    pub inputs: usize,
    /// Values that come out.
    pub outputs: usize,
    /// What is applied to them.
    pub activation: Activation,
}

/// The layers of an autoencoder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Architecture {
    /// From the input to the embedding.
    pub encoder: Vec<DenseSpec>,
    /// From the embedding to the reconstruction.
    pub decoder: Vec<DenseSpec>,
}

/// A tensor of parameters and its place in the flat array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// `encoder.0.weight`, `decoder.3.bias`.
    pub name: String,
    /// `[outputs, inputs]` or `[outputs]`.
    pub shape: Vec<usize>,
    /// Where its values lie, row-major.
    pub range: Range<usize>,
}

/// Tensors begin at multiples of this many values, so that their vectors do not straddle cache lines.
const ALIGNMENT: usize = 16;

/// Where one layer's parameters lie in the flat array.
#[derive(Debug, Clone)]
pub(super) struct LayerPlace {
    pub layer: DenseSpec,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
}

impl Architecture {
    /// The layers of Lu and Li 2021 (section 3): an encoder with ReLU and Tanh in turn and a linear embedding, a
    /// decoder of Tanh with Sigmoid at the end.
    ///
    /// `encoder` are the widths after the input, the last that of the embedding. `decoder` are the decoder's hidden
    /// widths; `None` is the mirror of the encoder with one more layer next to the embedding, midway between it and
    /// the width after it (the paper's decoder has nine layers to the encoder's eight, all of them widening). Where
    /// no width lies between the two, the mirror stays as it is.
    ///
    /// ```
    /// use dacpipe::network::Architecture;
    /// let widths = |a: &Architecture| a.decoder.iter().map(|l| l.outputs).collect::<Vec<_>>();
    /// let dac = Architecture::dac(561, &[256, 128, 64, 32, 16, 12, 10], None);
    /// assert_eq!(widths(&dac), [11, 12, 16, 32, 64, 128, 256, 561]);
    /// let small = Architecture::dac(20, &[8, 3], Some(&[8]));
    /// assert_eq!(widths(&small), [8, 20]);
    /// ```
    pub fn dac(dim: usize, encoder: &[usize], decoder: Option<&[usize]>) -> Self {
        let code = encoder.last().copied().unwrap_or(dim);
        let mut back = match decoder {
            Some(hidden) => hidden.to_vec(),
            None => Self::widening_mirror(dim, encoder),
        };
        back.push(dim);
        let alternate = |i: usize| if i.is_multiple_of(2) { Activation::Relu } else { Activation::Tanh };
        let last = |i: usize, widths: &[usize]| i + 1 == widths.len();
        Self {
            encoder: chain(dim, encoder, |i| if last(i, encoder) { Activation::Identity } else { alternate(i) }),
            decoder: chain(code, &back, |i| if last(i, &back) { Activation::Sigmoid } else { Activation::Tanh }),
        }
    }

    fn widening_mirror(dim: usize, encoder: &[usize]) -> Vec<usize> {
        let mut mirror: Vec<usize> = encoder.iter().rev().skip(1).copied().collect();
        let code = encoder.last().copied().unwrap_or(dim);
        let next = mirror.first().copied().unwrap_or(dim);
        let midway = (code + next) / 2;
        if code < midway && midway < next {
            mirror.insert(0, midway);
        }
        mirror
    }

    /// All layers in order.
    pub fn layers(&self) -> impl Iterator<Item = &DenseSpec> {
        self.encoder.iter().chain(&self.decoder)
    }

    /// Values in an input row; zero if there is no layer.
    pub fn dim_in(&self) -> usize {
        self.layers().next().map_or(0, |l| l.inputs)
    }

    /// Values in an embedding.
    pub fn dim_embedding(&self) -> usize {
        self.encoder.last().map_or(self.dim_in(), |l| l.outputs)
    }

    /// Number of weights and biases.
    pub fn parameter_count(&self) -> usize {
        self.layers().map(|l| (l.inputs + 1) * l.outputs).sum()
    }

    /// Bytes that training it in mini-batches of `batch` rows needs on the processor, at most: parameters, their moments,
    /// the copies that steps, snapshots and the model make of them, and what the layers give and take back.
    pub fn training_bytes(&self, batch: usize) -> u128 {
        const COPIES: u128 = 12;
        let layers = || self.layers().map(|layer| (layer.inputs as u128, layer.outputs as u128));
        let parameters =
            layers().fold(0_u128, |sum, (inputs, outputs)| sum.saturating_add((inputs + 1).saturating_mul(outputs)));
        let widths: u128 = layers().map(|(inputs, outputs)| inputs + outputs).sum();
        parameters.saturating_mul(4 * COPIES).saturating_add((8 * batch as u128).saturating_mul(widths))
    }

    /// What is wrong with it, if anything: a layer without values, or one that does not fit the layer before it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.chain_problems();
        if self.encoder.is_empty() || self.decoder.is_empty() {
            problems.push("encoder and decoder need at least one layer each".to_string());
        }
        problems
    }

    /// The same, where the decoder may be missing: an encoder alone.
    pub(crate) fn chain_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let layers: Vec<&DenseSpec> = self.layers().collect();
        for (i, layer) in layers.iter().enumerate() {
            if layer.inputs == 0 || layer.outputs == 0 {
                problems.push(format!("layer {i} is {} wide, widths start at 1", layer.inputs.min(layer.outputs)));
            }
        }
        for (i, pair) in layers.windows(2).enumerate() {
            if pair[0].outputs != pair[1].inputs {
                problems.push(format!("layer {i} gives {} values, the next takes {}", pair[0].outputs, pair[1].inputs));
            }
        }
        problems
    }

    pub(super) fn places(&self) -> Vec<LayerPlace> {
        let mut end = 0_usize;
        let mut place = |len: usize| {
            let start = end.next_multiple_of(ALIGNMENT);
            end = start + len;
            start..end
        };
        self.layers()
            .map(|&layer| LayerPlace { layer, weight: place(layer.inputs * layer.outputs), bias: place(layer.outputs) })
            .collect()
    }

    /// The names and shapes of the tensors of parameters, in the order of the flat array. Widths may be of any size.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let encoder = self.encoder.len();
        let name =
            move |i: usize| if i < encoder { format!("encoder.{i}") } else { format!("decoder.{}", i - encoder) };
        self.layers().enumerate().flat_map(move |(i, &DenseSpec { inputs, outputs, .. })| {
            [(format!("{}.weight", name(i)), vec![outputs, inputs]), (format!("{}.bias", name(i)), vec![outputs])]
        })
    }

    /// The tensors of parameters and their places in the flat array, in its order.
    pub fn tensors(&self) -> Vec<TensorPlace> {
        let ranges = self.places().into_iter().flat_map(|place| [place.weight, place.bias]);
        self.shapes().zip(ranges).map(|((name, shape), range)| TensorPlace { name, shape, range }).collect()
    }

    /// Values in the flat array, with the zeros between tensors.
    pub fn flat_len(&self) -> usize {
        self.places().last().map_or(0, |place| place.bias.end)
    }
}

fn chain(first: usize, widths: &[usize], activation: impl Fn(usize) -> Activation) -> Vec<DenseSpec> {
    let inputs = std::iter::once(first).chain(widths.iter().copied());
    inputs
        .zip(widths)
        .enumerate()
        .map(|(i, (inputs, &outputs))| DenseSpec { inputs, outputs, activation: activation(i) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_s_activations() {
        use Activation::*;
        let dac = Architecture::dac(561, &[256, 128, 64, 32, 16, 12, 10], None);
        let of = |layers: &[DenseSpec]| layers.iter().map(|l| l.activation).collect::<Vec<_>>();
        assert_eq!(of(&dac.encoder), [Relu, Tanh, Relu, Tanh, Relu, Tanh, Identity]);
        assert_eq!(of(&dac.decoder), [Tanh, Tanh, Tanh, Tanh, Tanh, Tanh, Tanh, Sigmoid]);
        assert_eq!((dac.encoder.len() + 1, dac.decoder.len() + 1), (8, 9));
        assert!(dac.problems().is_empty());
    }

    #[test]
    fn a_mirror_without_room_for_a_midpoint_stays() {
        assert_eq!(Architecture::dac(4, &[3], None).decoder.len(), 1);
        assert_eq!(Architecture::dac(9, &[3], None).decoder.iter().map(|l| l.outputs).collect::<Vec<_>>(), [6, 9]);
    }

    #[test]
    fn tensors_lie_one_after_the_other_and_aligned() {
        let dac = Architecture::dac(7, &[5, 3], None);
        let tensors = dac.tensors();
        assert_eq!(tensors[0].name, "encoder.0.weight");
        assert_eq!((&tensors[0].shape[..], tensors[0].range.clone()), (&[5, 7][..], 0..35));
        assert_eq!((&tensors[1].shape[..], tensors[1].range.clone()), (&[5][..], 48..53));
        assert!(tensors.windows(2).all(|w| w[0].range.end <= w[1].range.start && w[1].range.start % 16 == 0));
        assert_eq!(tensors.iter().map(|t| t.range.len()).sum::<usize>(), dac.parameter_count());
        assert_eq!(tensors.last().map(|t| t.range.end), Some(dac.flat_len()));
    }

    #[test]
    fn what_training_needs_is_told_for_any_widths() {
        let dac = Architecture::dac(561, &[256, 128, 64, 32, 16, 12, 10], None);
        let bytes = dac.training_bytes(256);
        assert!((10 << 20..40 << 20).contains(&bytes), "{bytes}");
        assert!(Architecture::dac(2, &[65_536, 65_536], None).training_bytes(1) > 40 << 30);
        let layer = DenseSpec { inputs: usize::MAX, outputs: usize::MAX, activation: Activation::Tanh };
        let hostile = Architecture { encoder: vec![layer], decoder: vec![] };
        assert!(hostile.training_bytes(1) > u128::from(u64::MAX));
    }

    #[test]
    fn problems_are_named() {
        let mut broken = Architecture::dac(7, &[5, 0], None);
        broken.decoder[0].inputs = 2;
        let problems = broken.problems().join("; ");
        assert!(problems.contains("widths start at 1"), "{problems}");
        assert!(problems.contains("the next takes 2"), "{problems}");
        assert!(!Architecture { encoder: vec![], decoder: vec![] }.problems().is_empty());
    }
}
