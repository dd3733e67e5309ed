//! What the parameters start from.

use rand::Rng;

use super::architecture::Architecture;
use crate::kernel::aligned::Aligned;
use crate::seed::Seed;

/// Parameters of a new network, in the layout of [`Architecture::tensors`]: weights uniform between plus and minus
/// `sqrt(6 / (inputs + outputs))` and biases zero (Glorot and Bengio 2010, equation 16). Each layer draws from its own
/// substream.
///
/// PyTorch's default, `1 / sqrt(inputs)`, lets the signal fade by a factor of about 1.7 a layer: after the sixteen
/// layers of the network of Lu and Li 2021 the embedding hardly depends on the row, and training begins on a plateau.
///
/// ```
/// use dacpipe::network::{Architecture, initialise};
/// let architecture = Architecture::dac(100, &[50, 4], None);
/// let parameters = initialise(&architecture, dacpipe::Seed(7));
/// let bound = (6.0_f32 / 150.0).sqrt();
/// assert!(parameters[..5000].iter().all(|w| w.abs() <= bound));
/// let variance = parameters[..5000].iter().map(|w| w * w).sum::<f32>() / 5000.0;
/// assert!((variance - bound * bound / 3.0).abs() < 0.001);
/// ```
pub fn initialise(architecture: &Architecture, seed: Seed) -> Aligned {
    let mut parameters = Aligned::zeros(architecture.flat_len());
    for (i, place) in architecture.places().into_iter().enumerate() {
        let mut random = seed.stream("initialisation", i as u64);
        let bound = (6.0 / (place.layer.inputs + place.layer.outputs) as f32).sqrt();
        parameters[place.weight].fill_with(|| random.random_range(-bound..=bound));
    }
    parameters
}
