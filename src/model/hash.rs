//! The name of a model: the hash of its content.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The content hash of a model: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelHash(String);

impl ModelHash {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 16 digits: the name of the model's directory.
    pub fn short(&self) -> &str {
        &self.0[..16]
    }

    /// The hash of a manifest's content lines and the bytes of the arrays.
    pub(super) fn of(content: &str, tensors: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content.as_bytes());
        hash.update(tensors);
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
