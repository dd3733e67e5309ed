//! The decoder alone, ready to rebuild rows from their embeddings.

use super::architecture::Architecture;
use super::packed::Packed;

/// The layers from the embedding to the reconstruction with their weights packed. Immutable, and shared by threads.
///
/// ```
/// use dacpipe::network::{Activation, Architecture, Decoder, DenseSpec};
/// let layer = |inputs, outputs| DenseSpec { inputs, outputs, activation: Activation::Identity };
/// let architecture = Architecture { encoder: vec![layer(2, 1)], decoder: vec![layer(1, 2)] };
/// let mut parameters = vec![0.0; architecture.flat_len()];
/// let [weight, bias] = [2, 3].map(|i| architecture.tensors()[i].range.clone());
/// parameters[weight].copy_from_slice(&[2.0, -1.0]);
/// parameters[bias].copy_from_slice(&[0.5, 0.0]);
/// let mut rows = [0.0; 4];
/// Decoder::new(&architecture, &parameters).decode(&[1.0, 3.0], &mut rows);
/// assert_eq!(rows, [2.5, -1.0, 6.5, -3.0]);
/// ```
#[derive(Debug, Clone)]
pub struct Decoder(Packed);

impl Decoder {
    /// The decoder of `architecture` with the parameters given, which are those of the whole architecture in the layout
    /// of [`Architecture::tensors`].
    pub fn new(architecture: &Architecture, parameters: &[f32]) -> Self {
        let places = architecture.places().into_iter().skip(architecture.encoder.len());
        Self(Packed::new(places, parameters))
    }

    /// Values in an embedding.
    pub fn dim_in(&self) -> usize {
        self.0.dim_in()
    }

    /// Values in a reconstruction.
    pub fn dim_out(&self) -> usize {
        self.0.dim_out()
    }

    /// Rebuilds rows from the embeddings `input` into `output`, on the calling thread. The same embedding gives the same
    /// bits, whatever others come with it. Costs twice the number of the decoder's weights in flops a row.
    ///
    /// Panics if the slices are not equally many rows.
    pub fn decode(&self, input: &[f32], output: &mut [f32]) {
        self.0.apply(input, output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Encoder, Mlp, Network, Pass, initialise};
    use crate::seed::Seed;

    fn rows(count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim).map(|i| (i as f32 * 0.017).cos().abs()).collect()
    }

    #[test]
    fn after_the_encoder_it_gives_the_bits_of_the_network_s_forward() {
        for widths in [&[40, 17, 5][..], &[3], &[16, 64, 2]] {
            let architecture = Architecture::dac(37, widths, None);
            let parameters = initialise(&architecture, Seed(3));
            let encoder = Encoder::new(&architecture, &parameters);
            let decoder = Decoder::new(&architecture, &parameters);
            assert_eq!((decoder.dim_in(), decoder.dim_out()), (encoder.dim_out(), 37));
            let mlp = Mlp::new(architecture, &parameters);
            let mut pass = mlp.new_pass();
            pass.input_mut().set_rows(50);
            let input = rows(50, 37);
            pass.input_mut().copy_from(&input);
            mlp.forward(&mut pass);
            let (mut code, mut output) = (vec![0.0; 50 * encoder.dim_out()], vec![0.0; 50 * 37]);
            encoder.encode(&input, &mut code);
            decoder.decode(&code, &mut output);
            for (i, row) in output.chunks_exact(37).enumerate() {
                assert_eq!(row, pass.reconstruction().1.row(i));
            }
        }
    }

    #[test]
    fn the_same_embedding_gives_the_same_bits_in_any_batch() {
        let architecture = Architecture::dac(61, &[33, 12, 4], None);
        let decoder = Decoder::new(&architecture, &initialise(&architecture, Seed(1)));
        let codes = rows(203, 4);
        let mut whole = vec![0.0; 203 * 61];
        decoder.decode(&codes, &mut whole);
        for batch in [1, 2, 7, 64, 65, 130] {
            let mut parts = vec![0.0; 203 * 61];
            for (x, y) in codes.chunks(batch * 4).zip(parts.chunks_mut(batch * 61)) {
                decoder.decode(x, y);
            }
            assert_eq!(whole, parts);
        }
        decoder.decode(&[], &mut []);
    }
}
