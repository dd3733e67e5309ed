//! Checks the metadata of a Parquet file before it is decoded, so that decoding it stays within bounds.
//!
//! Footers and page headers are structs of Thrift's compact protocol. A decoder allocates as many items as a list
//! claims to have and as many bytes as a page claims to decompress to, and recurses as deep as a schema is nested. A
//! flipped bit there can ask for gigabytes or overflow the stack, and neither can be caught. So all of this is checked
//! against bounds first.

use crate::error::{Error, Result};

/// How deep structs and lists may be nested in metadata; those of the format are less than ten deep.
const DEPTH: usize = 64;

/// How deep the groups of a schema may be nested.
pub(super) const SCHEMA_DEPTH: usize = 100;

/// The most row groups of a file: their numbers have 16 bits.
const ROW_GROUPS: u64 = 1 << 15;

const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Fields of the metadata of a file and of a schema element.
const SCHEMA: i64 = 2;
const GROUPS: i64 = 4;
const CHILDREN: i64 = 5;
/// The field of a page header with the decompressed size.
const UNCOMPRESSED: i64 = 2;

/// Whether a footer can be decoded within bounds.
///
/// # Errors
/// Kind `Input` if a list has more items than there are bytes left, or something is nested too deep.
pub(super) fn check_footer(bytes: &[u8]) -> Result<()> {
    let mut walk = Walk { bytes, at: 0 };
    let mut id = 0;
    while let Some(kind) = walk.field(&mut id)? {
        match (id, kind) {
            (SCHEMA, LIST) => walk.schema()?,
            (GROUPS, LIST) => {
                let (kind, len) = walk.list()?;
                if len > ROW_GROUPS {
                    return Err(Error::input(format!("{len} row groups, expected at most {ROW_GROUPS}")));
                }
                walk.items(kind, len, 1)?;
            }
            _ => walk.skip(kind, 1)?,
        }
    }
    Ok(())
}

/// The decompressed size of the page that begins with `bytes`, if it is in these bytes.
pub(super) fn page_size(bytes: &[u8]) -> Option<i64> {
    let mut walk = Walk { bytes, at: 0 };
    let mut id = 0;
    while let Some(kind) = walk.field(&mut id).ok()? {
        match id {
            UNCOMPRESSED => return walk.zigzag().ok(),
            _ => walk.skip(kind, 1).ok()?,
        }
    }
    None
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::input("a number of more than 64 bits in the metadata"))
    }

    fn zigzag(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, len: u64) -> Result<()> {
        let left = self.bytes.len() - self.at;
        let len = usize::try_from(len).ok().filter(|len| *len <= left).ok_or_else(cut)?;
        self.at += len;
        Ok(())
    }

    /// The next field's type, with its number in `id`; `None` at the end of the struct.
    fn field(&mut self, id: &mut i64) -> Result<Option<u8>> {
        let header = self.byte()?;
        if header == STOP {
            return Ok(None);
        }
        match header >> 4 {
            0 => *id = self.zigzag()?,
            delta => *id = id.saturating_add(i64::from(delta)),
        }
        Ok(Some(header & 0x0f))
    }

    /// The type of a list's items, and how many there are.
    fn list(&mut self) -> Result<(u8, u64)> {
        let header = self.byte()?;
        let len = match header >> 4 {
            15 => self.varint()?,
            len => u64::from(len),
        };
        // An item takes a byte at least.
        let left = (self.bytes.len() - self.at) as u64;
        if len > left {
            return Err(Error::input(format!("a list of {len} items in {left} bytes of metadata")));
        }
        Ok((header & 0x0f, len))
    }

    fn items(&mut self, kind: u8, len: u64, depth: usize) -> Result<()> {
        for _ in 0..len {
            match kind {
                // Booleans in a list take a byte each.
                TRUE | FALSE => self.pass(1)?,
                kind => self.skip(kind, depth + 1)?,
            }
        }
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::input(format!("metadata nested more than {DEPTH} deep")));
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.pass(1),
            I16..=I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            UUID => self.pass(16),
            BINARY => {
                let len = self.varint()?;
                self.pass(len)
            }
            LIST | SET => {
                let (kind, len) = self.list()?;
                self.items(kind, len, depth)
            }
            MAP => {
                let len = self.varint()?;
                if len == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                for _ in 0..len {
                    self.items(kinds >> 4, 1, depth)?;
                    self.items(kinds & 0x0f, 1, depth)?;
                }
                Ok(())
            }
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            other => Err(Error::input(format!("a value of unknown type {other} in the metadata"))),
        }
    }

    /// Checks a schema: its elements in depth-first order, each with its number of children.
    fn schema(&mut self) -> Result<()> {
        let (kind, len) = self.list()?;
        if kind != STRUCT {
            return Err(Error::input("the schema is no list of columns"));
        }
        // The number of children still to come of each open group.
        let mut open: Vec<i64> = Vec::new();
        for _ in 0..len {
            let (mut id, mut children) = (0, 0);
            while let Some(kind) = self.field(&mut id)? {
                match (id, kind) {
                    (CHILDREN, I16..=I64) => children = self.zigzag()?,
                    _ => self.skip(kind, 2)?,
                }
            }
            while open.last().is_some_and(|left| *left <= 0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > i64::try_from(len).unwrap_or(i64::MAX) {
                return Err(Error::input(format!("a group of {children} columns in a schema of {len}")));
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > SCHEMA_DEPTH {
                return Err(Error::input(format!("a schema nested more than {SCHEMA_DEPTH} deep")));
            }
        }
        Ok(())
    }
}

fn cut() -> Error {
    Error::input("the metadata ends early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A schema of groups, each in the one before.
    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
        let mut len = depth;
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        for i in 0..depth {
            // A name (field 4), and one child (field 5) but for the last.
            bytes.extend([0x48, 1, b'g']);
            if i + 1 < depth {
                bytes.extend([0x15, 2]);
            }
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_schema_may_be_nested_so_deep_and_no_deeper() {
        check_footer(&nested(SCHEMA_DEPTH)).unwrap();
        let e = check_footer(&nested(100_000)).unwrap_err().to_string();
        assert_eq!(e, "a schema nested more than 100 deep");
    }

    #[test]
    fn lists_are_held_against_what_is_left() {
        let e = check_footer(&[0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]).unwrap_err().to_string();
        assert_eq!(e, "a list of 2147483647 items in 0 bytes of metadata");
        let mut bytes = vec![0x49, 0xfc, 0x80, 0x80, 0x04];
        bytes.resize(1 << 17, 0);
        assert_eq!(check_footer(&bytes).unwrap_err().to_string(), "65536 row groups, expected at most 32768");
    }

    #[test]
    fn a_page_says_how_large_it_is() {
        assert_eq!(page_size(&[0x15, 0, 0x15, 0x80, 0x02, 0x15, 4]), Some(128));
        assert_eq!(page_size(&[0x05, 0x02, 0, 0x05, 0x04, 0x80, 0x02]), Some(128), "fields numbered in full");
        assert_eq!(page_size(&[0x15, 0]), None);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check_footer(&bytes).ok();
            page_size(&bytes);
        }
    }
}
