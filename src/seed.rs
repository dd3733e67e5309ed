//! One seed for a pipeline, and a named substream for every random choice.
//!
//! A substream depends only on the seed, its name and its index, so adding a random choice somewhere never changes
//! another one, and any epoch can be repeated without the ones before it.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The pipeline's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The generator of the substream `name`, number `index` (an epoch, a restart).
    ///
    /// ```
    /// use dacpipe::Seed;
    /// use rand::Rng;
    /// let draw = |name, index| Seed(7).stream(name, index).random::<u64>();
    /// assert_eq!(draw("shuffle", 3), draw("shuffle", 3));
    /// assert_ne!(draw("shuffle", 3), draw("shuffle", 4));
    /// assert_ne!(draw("shuffle", 3), draw("kmeans", 3));
    /// ```
    pub fn stream(self, name: &str, index: u64) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(index.to_le_bytes());
        hash.update(name.as_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}
