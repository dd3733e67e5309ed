//! A dense autoencoder in a machine's memory: forward, and backward to the gradients of all parameters.

use crate::cuda::ops::{activation_gradient, add_to, bias_activation, bias_parts, multiply};
use crate::cuda::{Buffer, Machine, View};
use crate::error::Result;
use crate::network::{Architecture, DenseSpec, TensorPlace};

/// Parameters, and room for a batch on its way there and back.
#[derive(Debug)]
pub(super) struct Network {
    layers: Vec<DenseSpec>,
    /// Layers of the encoder.
    encoder: usize,
    /// Weights and biases, layer by layer.
    places: Vec<TensorPlace>,
    /// All in one array, with zeros between tensors.
    pub parameters: Buffer<f32>,
    pub gradient: Buffer<f32>,
    /// What each layer gives.
    outputs: Vec<Buffer<f32>>,
    /// Gradients at what the layers give, of layers with odd and with even numbers.
    slopes: [Buffer<f32>; 2],
    /// Sums of gradients over parts of the rows.
    part: Buffer<f32>,
}

/// The widest layer.
fn widest(architecture: &Architecture) -> usize {
    architecture.layers().map(|layer| layer.outputs).max().unwrap_or(0)
}

impl Network {
    /// Bytes that a network needs on the machine for batches of up to `batch` rows.
    pub fn bytes(architecture: &Architecture, batch: usize) -> u128 {
        let outputs: u128 = architecture.layers().map(|layer| layer.outputs as u128).sum();
        let (widest, batch) = (widest(architecture) as u128, batch as u128);
        let values = 2 * architecture.flat_len() as u128 + batch * (outputs + 2 * widest) + batch.div_ceil(32) * widest;
        4 * values
    }

    /// A network with these parameters for batches of up to `batch` rows.
    pub fn new(machine: &dyn Machine, architecture: &Architecture, parameters: &[f32], batch: usize) -> Result<Self> {
        let widest = widest(architecture);
        let zeros = |len: usize| Buffer::zeros(machine, len);
        Ok(Self {
            layers: architecture.layers().copied().collect(),
            encoder: architecture.encoder.len(),
            places: architecture.tensors(),
            parameters: Buffer::of(machine, parameters)?,
            gradient: zeros(architecture.flat_len())?,
            outputs: architecture.layers().map(|layer| zeros(batch * layer.outputs)).collect::<Result<_>>()?,
            slopes: [zeros(batch * widest)?, zeros(batch * widest)?],
            part: zeros(bias_parts(batch) * widest)?,
        })
    }

    /// What layer number `i` gives for `rows` rows.
    fn output(&self, i: usize, rows: usize) -> View<'_, f32> {
        self.outputs[i].part(0..rows * self.layers[i].outputs)
    }

    /// The gradient at that.
    fn slope(&self, i: usize, rows: usize) -> View<'_, f32> {
        self.slopes[i % 2].part(0..rows * self.layers[i].outputs)
    }

    /// Weights and biases of layer number `i` in an array like the parameters.
    fn of_layer<'a>(&self, i: usize, flat: &'a Buffer<f32>) -> [View<'a, f32>; 2] {
        [0, 1].map(|part| flat.part(self.places[2 * i + part].range.clone()))
    }

    /// The embeddings of `rows` rows.
    pub fn embedding(&self, rows: usize) -> View<'_, f32> {
        self.output(self.encoder - 1, rows)
    }

    /// What the decoder made of them.
    pub fn reconstruction(&self, rows: usize) -> View<'_, f32> {
        self.output(self.layers.len() - 1, rows)
    }

    /// Where the gradient at the reconstruction goes.
    pub fn at_reconstruction(&self, rows: usize) -> View<'_, f32> {
        self.slope(self.layers.len() - 1, rows)
    }

    /// Where the gradient at the embeddings is when the decoder's way back is done.
    pub fn at_embedding(&self, rows: usize) -> View<'_, f32> {
        self.slope(self.encoder - 1, rows)
    }

    /// Embedding and reconstruction of the rows of `input`.
    pub fn forward(&self, machine: &dyn Machine, input: View<'_, f32>) -> Result<()> {
        let rows = input.len() / self.layers[0].inputs;
        let mut x = input;
        for (i, layer) in self.layers.iter().enumerate() {
            let [weight, bias] = self.of_layer(i, &self.parameters);
            let output = self.output(i, rows);
            multiply(machine, [rows, layer.outputs, layer.inputs], [x, weight], [false, true], output)?;
            bias_activation(machine, output, bias, rows, layer.activation.number())?;
            x = output;
        }
        Ok(())
    }

    /// The gradients of the decoder's parameters and at the embeddings, from the one at the reconstruction.
    pub fn backward_decoder(&self, machine: &dyn Machine, rows: usize) -> Result<()> {
        (self.encoder..self.layers.len())
            .rev()
            .try_for_each(|i| self.backward(machine, i, self.output(i - 1, rows), rows))
    }

    /// The gradients of the encoder's parameters, from the one at the embeddings.
    pub fn backward_encoder(&self, machine: &dyn Machine, input: View<'_, f32>) -> Result<()> {
        let rows = input.len() / self.layers[0].inputs;
        (0..self.encoder).rev().try_for_each(|i| {
            let x = if i == 0 { input } else { self.output(i - 1, rows) };
            self.backward(machine, i, x, rows)
        })
    }

    /// The gradients of a layer's parameters and at what went in, from the one at its output.
    fn backward(&self, machine: &dyn Machine, i: usize, x: View<'_, f32>, rows: usize) -> Result<()> {
        let DenseSpec { inputs, outputs, activation } = self.layers[i];
        let d = self.slope(i, rows);
        let [d_weight, d_bias] = self.of_layer(i, &self.gradient);
        let arrays = [d, self.output(i, rows), d];
        activation_gradient(machine, arrays, [d_bias, self.part.all()], rows, activation.number(), false)?;
        multiply(machine, [outputs, inputs, rows], [d, x], [true, false], d_weight)?;
        if i == 0 {
            return Ok(());
        }
        let [weight, _] = self.of_layer(i, &self.parameters);
        multiply(machine, [rows, inputs, outputs], [d, weight], [false, false], self.slope(i - 1, rows))
    }

    /// Adds a gradient to the one at the embeddings.
    pub fn add_at_embedding(&self, machine: &dyn Machine, more: View<'_, f32>, rows: usize) -> Result<()> {
        add_to(machine, self.at_embedding(rows), more)
    }
}
