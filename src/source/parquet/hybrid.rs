//! Parquet's hybrid encoding of runs and bit-packed groups, which stores levels and dictionary indices.
//!
//! This reader gives runs and not single values, since the levels of a vector without nulls are only three runs,
//! however long it is.

use bytes::Bytes;

use crate::error::{Error, Result};

/// The next values of one section of a page.
#[derive(Debug)]
pub(super) struct Hybrid {
    bytes: Bytes,
    /// Bits of a value.
    width: usize,
    /// Where the next run begins.
    next: usize,
    run: Run,
    /// Values left of `run`.
    left: usize,
}

/// Where values come from.
#[derive(Debug, Clone, Copy)]
enum Run {
    Repeated(u32),
    /// Packed from this bit of the bytes on, lowest bits first.
    Packed(usize),
}

/// Several values.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Repeated {
        value: u32,
        len: usize,
    },
    /// Values of eight bits, which need no unpacking.
    Bytes(&'a [u8]),
    Packed(Packed<'a>),
}

/// Values packed by bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    width: usize,
    first_bit: usize,
    len: usize,
}

impl Hybrid {
    /// The values of `bytes`, of `width` bits each.
    ///
    /// # Errors
    /// Kind `Input` unless `width` is from 0 to 32.
    pub(super) fn new(bytes: Bytes, width: usize) -> Result<Self> {
        if width > 32 {
            return Err(Error::input(format!("values of {width} bits in a page, expected at most 32")));
        }
        Ok(Self { bytes, width, next: 0, run: Run::Repeated(0), left: 0 })
    }

    /// The next values, at most `max`, which is not 0; at least one.
    pub(super) fn piece(&mut self, max: usize) -> Result<Piece<'_>> {
        if !self.ready()? {
            return Err(ends_early());
        }
        let (run, len) = (self.run, self.left.min(max));
        self.skip(len);
        Ok(match run {
            Run::Repeated(value) => Piece::Repeated { value, len },
            Run::Packed(bit) if self.width == 8 => Piece::Bytes(self.packed(bit, len)?.bytes),
            Run::Packed(bit) => Piece::Packed(self.packed(bit, len)?),
        })
    }

    /// Skips values that equal `value`, at most `max` of them, and returns how many they were.
    pub(super) fn skip_equal(&mut self, value: u32, max: usize) -> Result<usize> {
        let mut skipped = 0;
        while skipped < max && self.ready()? {
            let len = self.left.min(max - skipped);
            let equal = match self.run {
                Run::Repeated(repeated) => len * usize::from(repeated == value),
                Run::Packed(bit) => self.packed(bit, len)?.iter().take_while(|&packed| packed == value).count(),
            };
            self.skip(equal);
            skipped += equal;
            if equal < len {
                break;
            }
        }
        Ok(skipped)
    }

    /// Reads one value.
    pub(super) fn one(&mut self) -> Result<u32> {
        Ok(match self.piece(1)? {
            Piece::Repeated { value, .. } => value,
            Piece::Bytes(bytes) => u32::from(bytes[0]),
            Piece::Packed(packed) => packed.get(0),
        })
    }

    /// Goes on to the next run if one has ended. Returns whether there is one.
    fn ready(&mut self) -> Result<bool> {
        while self.left == 0 {
            if self.next == self.bytes.len() {
                return Ok(false);
            }
            let header = self.header()?;
            let len = usize::try_from(header >> 1).map_err(|_| ends_early())?;
            if header & 1 == 1 {
                self.left = len.checked_mul(8).ok_or_else(ends_early)?;
                self.run = Run::Packed(self.next * 8);
                // The last group may be cut short after its last value, so only the bits that are read must be there.
                let packed = len.checked_mul(self.width).ok_or_else(ends_early)?;
                self.next = self.next.saturating_add(packed).min(self.bytes.len());
            } else {
                self.left = len;
                let stored = self.width.div_ceil(8);
                let value = self.bytes.get(self.next..self.next + stored).ok_or_else(ends_early)?;
                self.run = Run::Repeated(value.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)));
                self.next += stored;
            }
        }
        Ok(true)
    }

    /// A number of seven bits a byte, lowest first.
    fn header(&mut self) -> Result<u64> {
        let mut header = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = *self.bytes.get(self.next).ok_or_else(ends_early)?;
            self.next += 1;
            header |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(header);
            }
        }
        Err(Error::input("a run of more than 2^64 values in a page"))
    }

    fn skip(&mut self, len: usize) {
        self.left -= len;
        if let Run::Packed(bit) = &mut self.run {
            *bit += len * self.width;
        }
    }

    fn packed(&self, bit: usize, len: usize) -> Result<Packed<'_>> {
        let bytes = self.bytes.get(bit / 8..(bit + len * self.width).div_ceil(8)).ok_or_else(ends_early)?;
        Ok(Packed { bytes, width: self.width, first_bit: bit % 8, len })
    }
}

impl Packed<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.len).map(|i| self.get(i))
    }

    /// Value `i`: at most 32 bits, which lie within eight bytes wherever they begin.
    fn get(&self, i: usize) -> u32 {
        let bit = self.first_bit + i * self.width;
        let word = match self.bytes[bit / 8..].first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => self.bytes[bit / 8..].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        let mask = (1 << self.width) - 1;
        (word >> (bit % 8) & mask) as u32
    }
}

fn ends_early() -> Error {
    Error::input("a page ends before its last value")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes `values` with runs where `cuts` says, and groups in between.
    pub(in super::super) fn encode(values: &[u32], width: usize, cuts: &[usize]) -> Bytes {
        let (mut out, mut rest, mut cuts) = (vec![], values, cuts.iter().cycle());
        while let Some(&first) = rest.first() {
            let cut = *cuts.next().expect("some cuts");
            let equal = rest.iter().take_while(|&&value| value == first).count();
            if cut % 2 == 0 {
                let len = equal.min(cut + 1);
                header(&mut out, (len as u64) << 1);
                out.extend(&first.to_le_bytes()[..width.div_ceil(8)]);
                rest = &rest[len..];
            } else {
                // Groups are whole but for the last one, which is filled up.
                let len = rest.len().min((cut % 5 + 1) * 8);
                header(&mut out, (len.div_ceil(8) as u64) << 1 | 1);
                let mut bits = vec![0u8; len.div_ceil(8) * width];
                for (i, value) in rest[..len].iter().enumerate() {
                    for b in (0..width).filter(|b| value >> b & 1 == 1) {
                        bits[(i * width + b) / 8] |= 1 << ((i * width + b) % 8);
                    }
                }
                out.extend(bits);
                rest = &rest[len..];
            }
        }
        Bytes::from(out)
    }

    fn header(out: &mut Vec<u8>, mut header: u64) {
        while header >= 0x80 {
            out.push(header as u8 | 0x80);
            header >>= 7;
        }
        out.push(header as u8);
    }

    fn values() -> impl Strategy<Value = (usize, Vec<u32>)> {
        (0usize..=32).prop_flat_map(|width| {
            let mask = ((1u64 << width) - 1) as u32;
            let run = (any::<u32>().prop_map(move |v| v & mask), prop_oneof![Just(1usize), 1usize..300]);
            let values = prop::collection::vec(run, 1..40)
                .prop_map(|runs| runs.into_iter().flat_map(|(value, len)| std::iter::repeat_n(value, len)).collect());
            (Just(width), values)
        })
    }

    proptest! {
        #[test]
        fn gives_what_was_stored_in_pieces_of_any_length(
            (width, values) in values(), cuts in prop::collection::vec(0usize..200, 1..9), step in 1usize..70
        ) {
            let mut hybrid = Hybrid::new(encode(&values, width, &cuts), width).expect("at most 32 bits");
            let mut found = vec![];
            while found.len() < values.len() {
                match hybrid.piece(step.min(values.len() - found.len())).expect("there are more") {
                    Piece::Repeated { value, len } => found.extend(std::iter::repeat_n(value, len)),
                    Piece::Bytes(bytes) => found.extend(bytes.iter().map(|&b| u32::from(b))),
                    Piece::Packed(packed) => found.extend(packed.iter()),
                }
            }
            prop_assert_eq!(found, values);
        }

        #[test]
        fn skips_just_what_is_equal(
            (width, values) in values(), cuts in prop::collection::vec(0usize..200, 1..9), max in 1usize..500
        ) {
            let mut hybrid = Hybrid::new(encode(&values, width, &cuts), width).expect("at most 32 bits");
            let mut at = 0;
            while at < values.len() {
                let most = max.min(values.len() - at);
                let expected = values[at..][..most].iter().take_while(|&&value| value == values[at]).count();
                prop_assert_eq!(hybrid.skip_equal(values[at], most).expect("readable"), expected);
                at += expected;
                if at < values.len() && at % 3 == 0 {
                    prop_assert_eq!(hybrid.one().expect("one more"), values[at]);
                    at += 1;
                }
            }
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), width in 0usize..=40) {
            let Ok(mut hybrid) = Hybrid::new(Bytes::from(bytes), width) else { return Ok(()) };
            for _ in 0..200 {
                if hybrid.one().and_then(|_| hybrid.skip_equal(1, 1000)).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_section_that_ends_early_is_an_error() {
        let mut hybrid = Hybrid::new(Bytes::from_static(&[0b11, 0xff]), 3).expect("three bits");
        let error = hybrid.piece(8).expect_err("eight values take three bytes").to_string();
        assert_eq!(error, "a page ends before its last value");
    }
}
