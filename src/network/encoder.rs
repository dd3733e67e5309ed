//! The encoder alone, ready to embed.

use super::architecture::Architecture;
use super::packed::Packed;

/// The layers from the input to the embedding with their weights packed. Immutable, and shared by threads.
#[derive(Debug, Clone)]
pub struct Encoder(Packed);

impl Encoder {
    /// The encoder of `architecture` with the parameters given, in the layout of [`Architecture::tensors`].
    pub fn new(architecture: &Architecture, parameters: &[f32]) -> Self {
        let places = architecture.places().into_iter().take(architecture.encoder.len());
        Self(Packed::new(places, parameters))
    }

    /// Values in an input row.
    pub fn dim_in(&self) -> usize {
        self.0.dim_in()
    }

    /// Values in an embedding.
    pub fn dim_out(&self) -> usize {
        self.0.dim_out()
    }

    /// Embeds the rows of `input` into `output`, on the calling thread. The same row gives the same bits, whatever
    /// rows come with it. Costs twice the number of the encoder's weights in flops a row.
    ///
    /// Panics if the slices are not equally many rows.
    pub fn encode(&self, input: &[f32], output: &mut [f32]) {
        self.0.apply(input, output);
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
