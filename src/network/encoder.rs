//! The encoder alone, ready to embed.

use std::cell::RefCell;

use super::architecture::{Activation, Architecture, Layer};
use crate::kernel::Matrix;
use crate::kernel::gemm::{Left, Panels, Start, gemm};

/// Rows that travel through all layers together, so that what lies between layers stays in the second-level cache.
const BLOCK_ROWS: usize = 64;

/// The layers from the input to the embedding with their weights packed. Immutable, and shared by threads.
#[derive(Debug, Clone)]
pub struct Encoder {
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

impl Encoder {
    /// The encoder of `architecture` with the parameters given, in the layout of [`Architecture::tensors`].
    pub fn new(architecture: &Architecture, parameters: &[f32]) -> Self {
        let pack = |(place, layer): (super::architecture::LayerPlace, &Layer)| PackedLayer {
            outputs: layer.outputs,
            inputs: layer.inputs,
            activation: layer.activation,
            weight: Panels::from_transposed(&parameters[place.weight], layer.inputs, layer.outputs),
            bias: parameters[place.bias].to_vec(),
        };
        Self { layers: architecture.places().into_iter().zip(&architecture.encoder).map(pack).collect() }
    }

    /// Values in an input row.
    pub fn dim_in(&self) -> usize {
        self.layers.first().map_or(0, |l| l.inputs)
    }

    /// Values in an embedding.
    pub fn dim_out(&self) -> usize {
        self.layers.last().map_or(0, |l| l.outputs)
    }

    /// Embeds the rows of `input` into `output`, on the calling thread. The same row gives the same bits, whatever
    /// rows come with it. Costs twice the number of the encoder's weights in flops a row.
    ///
    /// Panics if the slices are not equally many rows.
    pub fn encode(&self, input: &[f32], output: &mut [f32]) {
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
        let hidden = self.layers.iter().map(|l| l.outputs).max().unwrap_or(0);
        SCRATCH.with_borrow_mut(|scratch| {
            for matrix in scratch.iter_mut() {
                if matrix.columns() < hidden {
                    *matrix = Matrix::zeros(BLOCK_ROWS, hidden);
                }
            }
            let blocks = input.chunks(BLOCK_ROWS * dim_in).zip(output.chunks_mut(BLOCK_ROWS * dim_out));
            for (rows, embeddings) in blocks {
                self.encode_block(rows, embeddings, scratch);
            }
        });
    }

    fn encode_block(&self, input: &[f32], output: &mut [f32], [from, to]: &mut [Matrix; 2]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Mlp, Network, Pass, initialise};
    use crate::seed::Seed;

    fn rows(count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim).map(|i| (i as f32 * 0.013).sin().abs()).collect()
    }

    #[test]
    fn gives_the_bits_of_the_network_s_forward() {
        for widths in [&[40, 17, 5][..], &[3], &[16, 64, 2]] {
            let architecture = Architecture::dac(37, widths, None);
            let parameters = initialise(&architecture, Seed(3));
            let encoder = Encoder::new(&architecture, &parameters);
            let mlp = Mlp::new(architecture, &parameters);
            let mut pass = mlp.new_pass();
            pass.input_mut().set_rows(50);
            let input = rows(50, 37);
            pass.input_mut().copy_from(&input);
            mlp.forward(&mut pass);
            let mut output = vec![0.0; 50 * encoder.dim_out()];
            encoder.encode(&input, &mut output);
            for (i, row) in output.chunks_exact(encoder.dim_out()).enumerate() {
                assert_eq!(row, pass.embedding().row(i));
            }
        }
    }

    #[test]
    fn the_same_row_gives_the_same_bits_in_any_batch() {
        let architecture = Architecture::dac(61, &[33, 12, 4], None);
        let encoder = Encoder::new(&architecture, &initialise(&architecture, Seed(1)));
        let input = rows(203, 61);
        let mut whole = vec![0.0; 203 * 4];
        encoder.encode(&input, &mut whole);
        for batch in [1, 2, 7, 64, 65, 130] {
            let mut parts = vec![0.0; 203 * 4];
            for (x, y) in input.chunks(batch * 61).zip(parts.chunks_mut(batch * 4)) {
                encoder.encode(x, y);
            }
            assert_eq!(whole, parts);
        }
        encoder.encode(&[], &mut []);
    }

    #[test]
    #[should_panic(expected = "do not become")]
    fn rows_and_embeddings_must_be_equally_many() {
        let architecture = Architecture::dac(4, &[2], None);
        Encoder::new(&architecture, &initialise(&architecture, Seed(1))).encode(&[0.0; 8], &mut [0.0; 2]);
    }
}
