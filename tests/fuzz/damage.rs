//! Damage to files: flipped bits, pieces that are lost, doubled, moved or filled with zeros, and keywords in wrong
//! places.

use proptest::prelude::*;
use proptest::sample::Index;

/// One kind of damage.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Byte(Index, u8),
    Word(Index, &'static str),
    Replace(Index, usize, &'static str),
    Lose(Index, usize),
    Double(Index, usize, Index),
    Zeros(Index, usize),
    Cut(Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let size = bytes.len();
        if size == 0 {
            return;
        }
        let end = |at: usize, len: usize| at.saturating_add(len).min(size);
        match self {
            Self::Flip(at, bit) => bytes[at.index(size)] ^= 1 << bit,
            Self::Byte(at, byte) => bytes[at.index(size)] = *byte,
            Self::Word(at, word) => {
                let at = at.index(size + 1);
                bytes.splice(at..at, word.bytes());
            }
            Self::Replace(at, len, word) => {
                let at = at.index(size);
                bytes.splice(at..end(at, *len), word.bytes());
            }
            Self::Lose(at, len) => {
                let at = at.index(size);
                bytes.drain(at..end(at, *len));
            }
            Self::Double(at, len, to) => {
                let at = at.index(size);
                let (piece, to) = (bytes[at..end(at, *len)].to_vec(), to.index(size + 1));
                bytes.splice(to..to, piece);
            }
            Self::Zeros(at, len) => {
                let at = at.index(size);
                bytes[at..end(at, *len)].fill(0);
            }
            Self::Cut(at) => bytes.truncate(at.index(size)),
        }
    }
}

/// `file` with up to five kinds of damage; `words` are keywords of such files.
pub fn damaged(file: Vec<u8>, words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let (at, len) = (any::<Index>(), 1usize..40);
    let word = prop::sample::select(words);
    let damage = prop_oneof![
        (at.clone(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (at.clone(), word.clone()).prop_map(|(at, word)| Damage::Word(at, word)),
        (at.clone(), 1usize..8, word).prop_map(|(at, len, word)| Damage::Replace(at, len, word)),
        (at.clone(), len.clone()).prop_map(|(at, len)| Damage::Lose(at, len)),
        (at.clone(), len.clone(), at.clone()).prop_map(|(at, len, to)| Damage::Double(at, len, to)),
        (at.clone(), len).prop_map(|(at, len)| Damage::Zeros(at, len)),
        at.prop_map(Damage::Cut),
    ];
    prop::collection::vec(damage, 1..5).prop_map(move |all| {
        let mut bytes = file.clone();
        all.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    })
}
