//! Checksums of the files that a commit names, to find bytes that changed on the disk: Parquet itself would silently
//! give other values for them.
//!
//! Each block of [`BLOCK`] bytes has its own checksum, so that a reader of some columns need not read the whole file.
//! The log keeps the checksums of a data file among its tags, which other engines keep but do not read. Files that
//! other programs wrote have none.

use std::ops::Range;

use flate2::Crc;

/// Bytes of a block.
pub(super) const BLOCK: u64 = 1 << 20;
/// The tag of a file in the log that holds its checksums.
pub(super) const TAG: &str = "dacpipe.crc32";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;

/// The CRC-32 of each block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums(Vec<u32>);

impl Checksums {
    /// The checksums of a whole file.
    pub(super) fn of(content: &[u8]) -> Self {
        let mut summing = Summing::default();
        summing.update(content);
        summing.finish()
    }

    /// The text in the log: their digits, concatenated.
    pub(super) fn to_text(&self) -> String {
        self.0.iter().map(|sum| format!("{sum:0DIGITS$x}")).collect()
    }

    /// Parses the log's text, for a file of `bytes` bytes; `None` if it does not fit.
    pub(super) fn parse(text: &str, bytes: u64) -> Option<Self> {
        let digits = text.as_bytes().chunks(DIGITS);
        let sum = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let sums: Vec<u32> = digits.map(sum).collect::<Option<_>>()?;
        (text.len() == sums.len() * DIGITS && sums.len() as u64 == bytes.div_ceil(BLOCK)).then_some(Self(sums))
    }

    /// The whole blocks of a file of `bytes` that `range` lies in.
    pub(super) fn blocks(range: &Range<u64>, bytes: u64) -> Range<u64> {
        let start = range.start / BLOCK * BLOCK;
        start..range.end.div_ceil(BLOCK).saturating_mul(BLOCK).clamp(start, bytes.max(start))
    }

    /// Whether `content`, which is whole blocks of the file from `start` on, is what was written.
    pub(super) fn fit(&self, start: u64, content: &[u8]) -> bool {
        let first = (start / BLOCK) as usize;
        content.chunks(BLOCK as usize).enumerate().all(|(i, block)| {
            let mut crc = Crc::new();
            crc.update(block);
            self.0.get(first + i) == Some(&crc.sum())
        })
    }
}

/// Computes the checksums of a file as it is written.
#[derive(Debug, Default)]
pub(super) struct Summing {
    done: Vec<u32>,
    block: Crc,
}

impl Summing {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK as usize - self.block.amount() as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            bytes = later;
            if u64::from(self.block.amount()) == BLOCK {
                self.done.push(self.block.sum());
                self.block.reset();
            }
        }
    }

    pub(super) fn finish(mut self) -> Checksums {
        if self.block.amount() > 0 {
            self.done.push(self.block.sum());
        }
        Checksums(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_changed_is_found_wherever_it_lies() {
        let content: Vec<u8> = (0..(BLOCK as usize * 2 + 100)).map(|i| (i * 7) as u8).collect();
        let bytes = content.len() as u64;
        let mut pieces = Summing::default();
        content.chunks(70_001).for_each(|piece| pieces.update(piece));
        let sums = Checksums::of(&content);
        assert_eq!(pieces.finish(), sums, "however it came");
        assert_eq!(Checksums::parse(&sums.to_text(), bytes), Some(sums.clone()));
        assert!(sums.fit(0, &content) && sums.fit(BLOCK, &content[BLOCK as usize..]));
        for at in [0, BLOCK as usize, content.len() - 1] {
            let mut turned = content.clone();
            turned[at] ^= 0x10;
            assert!(!sums.fit(0, &turned), "at {at}");
        }
        assert!(!sums.fit(0, &content[..content.len() - 1]), "cut short");
    }

    #[test]
    fn a_range_is_read_in_whole_blocks() {
        let bytes = 2 * BLOCK + 10;
        assert_eq!(Checksums::blocks(&(5..6), bytes), 0..BLOCK);
        assert_eq!(Checksums::blocks(&(BLOCK - 1..BLOCK + 1), bytes), 0..2 * BLOCK);
        assert_eq!(Checksums::blocks(&(2 * BLOCK..bytes), bytes), 2 * BLOCK..bytes);
        assert_eq!(Checksums::blocks(&(bytes + 5..bytes + 6), bytes).end, 2 * BLOCK + 10);
    }

    #[test]
    fn sums_of_another_file_are_none() {
        for (text, bytes) in [("", 1), ("0123456", 1), ("0123456g", 1), ("01234567", BLOCK + 1), ("é1234567", 1)] {
            assert_eq!(Checksums::parse(text, bytes), None, "{text}");
        }
        assert_eq!(Checksums::parse("", 0), Some(Checksums(vec![])));
    }
}
