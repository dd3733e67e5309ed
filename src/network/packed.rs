//! Layers with their weights packed, ready to be applied to rows.

use std::cell::RefCell;

use super::architecture::{Activation, DenseSpec, LayerPlace};
use crate::kernel::Matrix;
use crate::kernel::gemm::{Left, Panels, Start, gemm};

/// Rows that travel through all layers together, so that what lies between layers stays in the second-level cache.
const BLOCK_ROWS: usize = 64;

/// Some layers of a network, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    layers: Vec<PackedLayer>,
}

#[derive(Debug, Clone)]
struct PackedLayer {
    outputs: usize,
    inputs: usize,
    activation: Activation,
    weight: Panels,
    bias: Vec<f32>,
}

thread_local! {
    /// Outputs of the layers between, kept from call to call.
    static SCRATCH: RefCell<[Matrix; 2]> = RefCell::default();
}

impl Packed {
    /// The layers at these places of `parameters`.
    pub fn new(places: impl IntoIterator<Item = LayerPlace>, parameters: &[f32]) -> Self {
        let pack = |LayerPlace { layer, weight, bias }| {
            let DenseSpec { inputs, outputs, activation } = layer;
            PackedLayer {
                outputs,
                inputs,
                activation,
                weight: Panels::from_transposed(&parameters[weight], inputs, outputs),
                bias: parameters[bias].to_vec(),
            }
        };
        Self { layers: places.into_iter().map(pack).collect() }
    }

    /// Values in an input row; zero if there is no layer.
    pub fn dim_in(&self) -> usize {
        self.layers.first().map_or(0, |l| l.inputs)
    }

    /// Values in an output row; zero if there is no layer.
    pub fn dim_out(&self) -> usize {
        self.layers.last().map_or(0, |l| l.outputs)
    }

    /// Applies all layers to the rows of `input`, into `output`, on the calling thread. The same row gives the same
    /// bits, whatever rows come with it.
    ///
    /// Panics if the slices are not equally many rows.
    pub fn apply(&self, input: &[f32], output: &mut [f32]) {
        let (dim_in, dim_out) = (self.dim_in(), self.dim_out());
        if input.is_empty() && output.is_empty() {
            return;
        }
        assert!(
            input.len().is_multiple_of(dim_in) && input.len() / dim_in * dim_out == output.len(),
            "{} values in rows of {dim_in} do not become {} in rows of {dim_out}",
            input.len(),
            output.len()
        );
        // The last layer writes into `output` itself.
        let hidden = self.layers.iter().rev().skip(1).map(|l| l.outputs).max().unwrap_or(0);
        SCRATCH.with_borrow_mut(|scratch| {
            for matrix in scratch.iter_mut() {
                if matrix.columns() < hidden {
                    *matrix = Matrix::zeros(BLOCK_ROWS, hidden);
                }
            }
            let blocks = input.chunks(BLOCK_ROWS * dim_in).zip(output.chunks_mut(BLOCK_ROWS * dim_out));
            for (rows, outputs) in blocks {
                self.apply_block(rows, outputs, scratch);
            }
        });
    }

    fn apply_block(&self, input: &[f32], output: &mut [f32], [from, to]: &mut [Matrix; 2]) {
        let rows = input.len() / self.dim_in();
        let stride = from.stride();
        let (mut from, mut to) = (from.values_mut(), to.values_mut());
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            let left = if i == 0 { Left::rows(input, layer.inputs) } else { Left::rows(from, stride) };
            if i == last {
                gemm(rows, left, layer.weight.right(), Start::Row(&layer.bias), output, layer.outputs);
                layer.activation.apply(output);
            } else {
                gemm(rows, left, layer.weight.right(), Start::Row(&layer.bias), to, stride);
                for row in to.chunks_exact_mut(stride).take(rows) {
                    layer.activation.apply(&mut row[..layer.outputs]);
                }
            }
            std::mem::swap(&mut from, &mut to);
        }
    }
}
