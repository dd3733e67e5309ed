//! One data page of a column of lists: levels of repetition and definition, and numbers.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::Page;

use super::hybrid::{Hybrid, Piece};
use super::number::Number;
use crate::error::{Error, Result};

/// How numbers are stored, and what their bits mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored {
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float,
    Double,
}

impl Stored {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::Int32 | Self::Uint32 | Self::Float => 4,
            Self::Int64 | Self::Uint64 | Self::Double => 8,
        }
    }

    /// Appends the numbers of `bytes`.
    fn convert<T: Number>(self, bytes: &[u8], out: &mut Vec<T>) {
        fn each<const N: usize, T>(bytes: &[u8], out: &mut Vec<T>, convert: impl Fn([u8; N]) -> T) {
            out.extend(bytes.as_chunks().0.iter().map(|&value| convert(value)));
        }
        match self {
            Self::Int32 => each(bytes, out, |v| T::of_i32(i32::from_le_bytes(v))),
            Self::Uint32 => each(bytes, out, |v| T::of_u32(u32::from_le_bytes(v))),
            Self::Int64 => each(bytes, out, |v| T::of_i64(i64::from_le_bytes(v))),
            Self::Uint64 => each(bytes, out, |v| T::of_u64(u64::from_le_bytes(v))),
            Self::Float => each(bytes, out, |v| T::of_f32(f32::from_le_bytes(v))),
            Self::Double => each(bytes, out, |v| T::of_f64(f64::from_le_bytes(v))),
        }
    }
}

/// The numbers that the pages of a row group name by their index.
#[derive(Debug, Default)]
pub(super) struct Dictionary<T> {
    /// Padded to a power of two, so that an index masked to its low bits is always valid.
    numbers: Vec<T>,
    len: usize,
    finite: bool,
}

impl<T: Number> Dictionary<T> {
    pub(super) fn of(bytes: &[u8], stored: Stored) -> Self {
        let mut numbers = vec![];
        stored.convert(bytes, &mut numbers);
        let len = numbers.len();
        numbers.resize(len.next_power_of_two(), T::default());
        let finite = numbers.iter().all(|number: &T| number.is_single());
        Self { numbers, len, finite }
    }

    /// Appends the numbers that `indices` name.
    fn look_up(&self, indices: impl Iterator<Item = u32>, out: &mut Vec<T>) -> Result<()> {
        let (mask, numbers) = (self.numbers.len().wrapping_sub(1), &self.numbers[..]);
        // The largest index is checked once, after the loop, so that the loop has no early exit.
        let mut largest = 0;
        out.extend(indices.map(|index| {
            largest = largest.max(index);
            numbers[index as usize & mask]
        }));
        self.check(largest)
    }

    fn check(&self, index: u32) -> Result<()> {
        if (index as usize) < self.len {
            return Ok(());
        }
        Err(Error::input(format!("a page names value {index} of a dictionary of {}", self.len)))
    }
}

/// The unread part of a data page.
#[derive(Debug)]
pub(super) struct DataPage {
    repetition: Hybrid,
    definition: Hybrid,
    numbers: Numbers,
    /// The level of definition of a number.
    full: u32,
    /// Levels left.
    left: usize,
}

#[derive(Debug)]
enum Numbers {
    Plain { bytes: Bytes, stored: Stored },
    Indices(Hybrid),
}

impl DataPage {
    /// A page of a column whose definition levels go up to `full`; `None` if `page` has no data.
    ///
    /// # Errors
    /// Kind `Input` if its sections are longer than it is or stored in a way that [`is_readable`] excludes.
    pub(super) fn of(page: Page, stored: Stored, full: u32) -> Result<Option<Self>> {
        let (mut rest, left, encoding, levels) = match page {
            Page::DataPage { buf, num_values, encoding, .. } => (buf, num_values, encoding, None),
            Page::DataPageV2 { buf, num_values, encoding, rep_levels_byte_len, def_levels_byte_len, .. } => {
                (buf, num_values, encoding, Some((rep_levels_byte_len, def_levels_byte_len)))
            }
            Page::DictionaryPage { .. } => return Ok(None),
        };
        let (repetition, definition) = match levels {
            Some((repetition, definition)) => {
                (split(&mut rest, repetition as usize)?, split(&mut rest, definition as usize)?)
            }
            None => (with_length(&mut rest)?, with_length(&mut rest)?),
        };
        let numbers = match encoding {
            Encoding::PLAIN => Numbers::Plain { bytes: rest, stored },
            // A page of only nulls has no numbers, and may lack their width.
            _ if is_readable(encoding) && rest.is_empty() => Numbers::Indices(Hybrid::new(rest, 0)?),
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => {
                let width = split(&mut rest, 1)?[0];
                Numbers::Indices(Hybrid::new(rest, usize::from(width))?)
            }
            other => return Err(Error::input(format!("a page of numbers stored as {other}"))),
        };
        Ok(Some(Self {
            repetition: Hybrid::new(repetition, 1)?,
            definition: Hybrid::new(definition, (u32::BITS - full.leading_zeros()) as usize)?,
            numbers,
            full,
            left: left as usize,
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Whether it begins by continuing the last list of the page before.
    pub(super) fn continues(&mut self) -> Result<bool> {
        // This consumes the first level; `skip_list` skips the others.
        Ok(self.repetition.skip_equal(1, 1)? == 1)
    }

    /// Skips the repetition levels of a list, up to the end of the list or of the page, and returns how many there are.
    /// The first was already skipped if the list `continues`.
    pub(super) fn skip_list(&mut self, continues: bool) -> Result<usize> {
        if !continues {
            self.repetition.one()?;
        }
        let len = 1 + self.repetition.skip_equal(1, self.left - 1)?;
        self.left -= len;
        Ok(len)
    }

    /// The level of definition of a number.
    pub(super) fn full(&self) -> u32 {
        self.full
    }

    /// Skips the definition levels of numbers up to a null, at most `max`, and returns how many there are.
    pub(super) fn skip_full(&mut self, max: usize) -> Result<usize> {
        self.definition.skip_equal(self.full, max)
    }

    /// The next definition level.
    pub(super) fn definition(&mut self) -> Result<u32> {
        self.definition.one()
    }

    /// Skips `len` definition levels, whatever they are.
    pub(super) fn skip_definitions(&mut self, mut len: usize) -> Result<()> {
        while len > 0 {
            len -= self.skip_full(len)?;
            if len > 0 {
                self.definition()?;
                len -= 1;
            }
        }
        Ok(())
    }

    /// Appends the next `len` numbers. Returns whether all are finite.
    pub(super) fn read<T: Number>(&mut self, dictionary: &Dictionary<T>, len: usize, out: &mut Vec<T>) -> Result<bool> {
        let end = out.len() + len;
        match &mut self.numbers {
            Numbers::Plain { bytes, stored } => {
                stored.convert(&split(bytes, len * stored.size())?, out);
                Ok(out[end - len..].iter().fold(true, |all, number| all & number.is_single()))
            }
            Numbers::Indices(indices) => {
                while out.len() < end {
                    match indices.piece(end - out.len())? {
                        Piece::Repeated { value, len } => {
                            dictionary.check(value)?;
                            out.resize(out.len() + len, dictionary.numbers[value as usize]);
                        }
                        Piece::Bytes(bytes) => dictionary.look_up(bytes.iter().map(|&b| u32::from(b)), out)?,
                        Piece::Packed(packed) => dictionary.look_up(packed.iter(), out)?,
                    }
                }
                Ok(dictionary.finite)
            }
        }
    }
}

/// Whether pages with that encoding can be read here; [`Encoding::RLE`] is the encoding of levels.
pub(super) fn is_readable(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY)
}

/// Splits off the first `len` bytes.
fn split(bytes: &mut Bytes, len: usize) -> Result<Bytes> {
    if len > bytes.len() {
        return Err(Error::input(format!("{} bytes left in a page, expected {len}", bytes.len())));
    }
    Ok(bytes.split_to(len))
}

/// A section that is preceded by its length.
fn with_length(bytes: &mut Bytes) -> Result<Bytes> {
    let mut len = [0; 4];
    len.copy_from_slice(&split(bytes, 4)?);
    split(bytes, u32::from_le_bytes(len) as usize)
}
