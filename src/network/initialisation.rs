//! What the parameters start from.

use rand::Rng;

use super::architecture::Architecture;
use crate::kernel::aligned::Aligned;
use crate::seed::Seed;

/// Parameters of a new network, in the layout of [`Architecture::tensors`]: weights and biases uniform between plus
/// and minus `1 / sqrt(inputs)`, which is what PyTorch's `nn.Linear` does. Each layer draws from its own substream.
///
/// ```
/// use dacpipe::network::{Architecture, initialise};
/// let architecture = Architecture::dac(100, &[9, 4], None);
/// let parameters = initialise(&architecture, dacpipe::Seed(7));
/// assert!(parameters[..900].iter().all(|w| w.abs() <= 0.1));
/// let mean = parameters[..900].iter().sum::<f32>() / 900.0;
/// assert!(mean.abs() < 0.01);
/// ```
pub fn initialise(architecture: &Architecture, seed: Seed) -> Aligned {
    let mut parameters = Aligned::zeros(architecture.flat_len());
    for (i, place) in architecture.places().into_iter().enumerate() {
        let mut random = seed.stream("initialisation", i as u64);
        let bound = 1.0 / (place.layer.inputs as f32).sqrt();
        for range in [place.weight, place.bias] {
            parameters[range].fill_with(|| random.random_range(-bound..=bound));
        }
    }
    parameters
}
