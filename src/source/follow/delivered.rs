//! The messages of a broker that were committed and may be delivered once more.

use serde::{Deserialize, Serialize};
#[cfg(feature = "mqtt")]
use sha2::{Digest, Sha256};

/// Bytes of a hash that are kept: that two messages of one packet identifier share them is as good as impossible.
const BYTES: usize = 16;

/// A message, as far as a broker lets it be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "(u16, String)", try_from = "(u16, String)")]
pub(super) struct Delivered {
    /// The packet identifier under which it was delivered. The broker gives it to no other message before it has an
    /// acknowledgement.
    pub(super) packet: u16,
    /// The first bytes of the SHA-256 of its topic and payload.
    pub(super) hash: [u8; BYTES],
}

impl Delivered {
    /// The message of `topic` with `payload`.
    #[cfg(feature = "mqtt")]
    pub(super) fn new(packet: u16, topic: &str, payload: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((topic.len() as u64).to_le_bytes());
        hash.update(topic);
        hash.update(payload);
        let hash = hash.finalize();
        Self { packet, hash: std::array::from_fn(|at| hash[at]) }
    }
}

impl From<Delivered> for (u16, String) {
    fn from(Delivered { packet, hash }: Delivered) -> Self {
        (packet, hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl TryFrom<(u16, String)> for Delivered {
    type Error = String;

    fn try_from((packet, text): (u16, String)) -> Result<Self, String> {
        let wrong = || format!("{text:?}, expected {} digits of a hash", 2 * BYTES);
        let digits = text.as_bytes();
        if digits.len() != 2 * BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut hash = [0; BYTES];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self { packet, hash })
    }
}

#[cfg(all(test, feature = "mqtt"))]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_and_read_back() {
        let message = Delivered::new(65_535, "plant/1", b"1,2\n");
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Delivered>(&json).unwrap(), message);
        // Where the topic ends is part of the hash.
        assert_ne!(Delivered::new(1, "ab", b"c"), Delivered::new(1, "a", b"bc"));
        for damaged in ["[1,\"00\"]", "[70000,\"00\"]", "[1,\"+0000000000000000000000000000000\"]"] {
            assert!(serde_json::from_str::<Delivered>(damaged).is_err(), "{damaged}");
        }
    }
}
