//! The order in which the lines of a file are read: as written, or recording by recording if recordings alternate.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::grouped::{Grouped, Groups, MEMORY};
use super::record::Record;
use crate::error::Result;

/// How many lines and bytes are read to see whether recordings alternate.
const LINES: usize = 4096;
const BYTES: usize = 4 << 20;

/// A buffer between the reader of lines and its caller.
#[derive(Default)]
pub(super) struct Turns {
    /// Lines that were read ahead.
    ahead: VecDeque<Record>,
    /// All lines, if recordings alternate.
    grouped: Option<Grouped>,
    /// The error that ended the reading ahead.
    failed: Option<io::Error>,
    /// Whether the end of the file was reached.
    over: bool,
}

/// The groups of recordings, in the order in which they begin; 0 is for lines whose recording is not known.
#[derive(Default)]
struct Begun {
    groups: HashMap<u64, u32>,
    last: u32,
    /// Whether a recording went on after lines of another one.
    turns: bool,
}

impl Begun {
    fn group(&mut self, id: Option<Vec<u8>>) -> u32 {
        let Some(id) = id else { return 0 };
        let next = self.groups.len() as u32 + 1;
        let group = *self.groups.entry(hash_of(&id)).or_insert(next);
        self.turns |= group != next && group != self.last;
        self.last = group;
        group
    }
}

/// Gives the identity of a line's recording; `None` if it is not known.
type Id<'a> = &'a mut dyn FnMut(&Record) -> Option<Vec<u8>>;

impl Turns {
    /// Reads the first lines that `read` gives, and all of them if recordings alternate (or if `turns` says so).
    ///
    /// # Errors
    /// Kind `Io` if the lines are too many for memory and cannot be written to disk.
    pub(super) fn of(
        read: &mut dyn FnMut(&mut Record) -> io::Result<bool>,
        id: Id<'_>,
        turns: Option<bool>,
    ) -> Result<Self> {
        let mut order = Self::default();
        if turns == Some(false) {
            return Ok(order);
        }
        let mut begun = Begun { turns: turns == Some(true), ..Begun::default() };
        let (mut looked_at, mut bytes) = (Vec::new(), 0);
        let mut line = Record::default();
        while !begun.turns && looked_at.len() < LINES && bytes < BYTES && order.read(read, &mut line) {
            looked_at.push(begun.group(id(&line)));
            bytes += line.size();
            order.ahead.push_back(std::mem::take(&mut line));
        }
        if !begun.turns {
            return Ok(order);
        }
        let mut groups = Groups::new(MEMORY);
        for (group, line) in looked_at.into_iter().zip(order.ahead.drain(..)) {
            groups.push(group, |out| line.encode(out))?;
        }
        while order.read(read, &mut line) {
            groups.push(begun.group(id(&line)), |out| line.encode(out))?;
        }
        order.grouped = Some(groups.finish()?);
        Ok(order)
    }

    /// Reads a line; false where there is none.
    fn read(&mut self, read: &mut dyn FnMut(&mut Record) -> io::Result<bool>, line: &mut Record) -> bool {
        match read(line) {
            Ok(true) => return true,
            Ok(false) => self.over = true,
            Err(e) => self.failed = Some(e),
        }
        false
    }

    /// Puts the next line into `line`: one that was read ahead, or one from `read`. False at the end.
    ///
    /// # Errors
    /// Errors of reading the file, once the lines before them were given.
    pub(super) fn next(
        &mut self,
        read: impl FnOnce(&mut Record) -> io::Result<bool>,
        line: &mut Record,
    ) -> io::Result<bool> {
        if let Some(grouped) = &mut self.grouped
            && grouped.next(|bytes| line.decode(bytes)).map_err(io::Error::other)?
        {
            return Ok(true);
        }
        if let Some(ahead) = self.ahead.pop_front() {
            *line = ahead;
            return Ok(true);
        }
        match self.failed.take() {
            Some(e) => Err(e),
            None if self.over => Ok(false),
            None => read(line),
        }
    }
}

/// A hash of a recording's identity: eight bytes, however long its keys are.
pub(super) fn hash_of(id: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    id.hash(&mut hash);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::csv::dialect::Dialect;
    use crate::source::csv::records::Records;

    /// The numbers of the lines of `text` in the order in which they are read, up to an error; and whether there was
    /// one.
    fn order(text: &str, turns: Option<bool>, cut: bool) -> (Vec<u64>, bool) {
        let input = Box::new(io::Cursor::new(text.to_string()));
        let mut records = Records::new(input, &Dialect::default());
        let mut read = |line: &mut Record| match records.read(line)? {
            false if cut => Err(io::Error::other("cut off")),
            more => Ok(more),
        };
        let mut id = |line: &Record| Some(line.field(0).to_vec()).filter(|id| !id.is_empty());
        let mut order = Turns::of(&mut read, &mut id, turns).unwrap();
        let (mut line, mut numbers) = (Record::default(), Vec::new());
        loop {
            match order.next(&mut read, &mut line) {
                Ok(true) => numbers.push(line.line()),
                end => return (numbers, end.is_err()),
            }
        }
    }

    #[test]
    fn recordings_that_take_turns_are_read_one_after_the_other() {
        assert_eq!(order("a,1\na,2\nb,1\nb,2\nc,3\n", None, false), (vec![1, 2, 3, 4, 5], false));
        // A line whose recording is not known comes first.
        let turns = "a,1\nb,1\na,2\n,?\nb,2\nc,1\na,3\n";
        assert_eq!(order(turns, None, false), (vec![4, 1, 3, 7, 2, 5, 6], false));
        assert_eq!(order(turns, Some(false), false), ((1..=7).collect(), false));
        assert_eq!(order(turns, None, true), (vec![4, 1, 3, 7, 2, 5, 6], true));
        assert_eq!(order("a,1\nb,1\n", Some(true), true), (vec![1, 2], true));
        assert_eq!(order("", None, false), (vec![], false));
    }

    #[test]
    fn turns_that_begin_late_are_taken_where_that_is_said() {
        let text = format!("{}b,1\na,1\n", "a,0\n".repeat(LINES));
        let lines = LINES as u64;
        assert_eq!(order(&text, None, false).0[LINES..], [lines + 1, lines + 2]);
        assert_eq!(order(&text, Some(true), false).0[LINES..], [lines + 2, lines + 1]);
    }
}
