//! Sorts the lines of a file in which recordings alternate: a stable sort by recording, in memory up to a limit, and
//! then as sorted runs in one unnamed temporary file, which are merged while reading.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;

use crate::error::Result;
use crate::replay::read_exact_at;
use crate::store::failed;

/// Bytes of lines in memory, beyond which they are written to disk.
pub(super) const MEMORY: usize = 32 << 20;
/// Bytes that are read of a run at a time, at least and at most.
const READ: Range<usize> = 4 << 10..1 << 20;

/// Collects lines, each with a group, and sorts them by group; lines of one group stay in the order in which they came.
pub(super) struct Groups {
    memory: usize,
    /// Lines, one after the other.
    bytes: Vec<u8>,
    /// The group of each and where it is.
    lines: Vec<(u32, Range<usize>)>,
    spill: Option<Spill>,
}

/// Sorted runs, one after the other in a file.
struct Spill {
    file: File,
    runs: Vec<Range<u64>>,
}

impl Groups {
    /// Holds up to about `memory` bytes of lines, and writes the others to disk.
    pub(super) fn new(memory: usize) -> Self {
        Self { memory, bytes: vec![], lines: vec![], spill: None }
    }

    /// Takes a line of group `group`, which `line` appends.
    ///
    /// # Errors
    /// Kind `Io` if the temporary file cannot be written.
    pub(super) fn push(&mut self, group: u32, line: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let begin = self.bytes.len();
        line(&mut self.bytes);
        self.lines.push((group, begin..self.bytes.len()));
        if self.bytes.len() + size_of_val(&self.lines[..]) >= self.memory {
            self.write_run()?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> Result<()> {
        self.lines.sort_by_key(|(group, _)| *group);
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill { file: tempfile::tempfile().map_err(spill_error)?, runs: vec![] }),
        };
        let begin = spill.runs.last().map_or(0, |run| run.end);
        let mut out = std::io::BufWriter::with_capacity(1 << 20, &mut spill.file);
        let mut length = 0;
        for (group, line) in &self.lines {
            let head = [group.to_le_bytes(), (line.len() as u32).to_le_bytes()].concat();
            out.write_all(&head).and_then(|()| out.write_all(&self.bytes[line.clone()])).map_err(spill_error)?;
            length += (head.len() + line.len()) as u64;
        }
        out.flush().map_err(spill_error)?;
        drop(out);
        spill.runs.push(begin..begin + length);
        self.bytes.clear();
        self.lines.clear();
        Ok(())
    }

    /// The lines in their order.
    ///
    /// # Errors
    /// Kind `Io` if the temporary file cannot be written or read.
    pub(super) fn finish(mut self) -> Result<Grouped> {
        if self.spill.is_some() && !self.lines.is_empty() {
            self.write_run()?;
        }
        let Some(Spill { file, runs }) = self.spill else {
            self.lines.sort_by_key(|(group, _)| *group);
            return Ok(Grouped::Memory { bytes: self.bytes, lines: self.lines.into_iter() });
        };
        let read = (self.memory / runs.len().max(1)).clamp(READ.start, READ.end);
        let mut runs: Vec<Run> = runs.into_iter().map(|left| Run { left, read, bytes: vec![], at: 0 }).collect();
        let mut next = BinaryHeap::with_capacity(runs.len());
        for (place, run) in runs.iter_mut().enumerate() {
            next.extend(run.group(&file)?.map(|group| Reverse((group, place))));
        }
        Ok(Grouped::Disk { file, runs, next })
    }
}

/// Lines, group by group.
pub(super) enum Grouped {
    /// All of them in memory.
    Memory { bytes: Vec<u8>, lines: std::vec::IntoIter<(u32, Range<usize>)> },
    /// In runs on disk, with the group of each run's next line; for equal groups, the earlier run goes first.
    Disk { file: File, runs: Vec<Run>, next: BinaryHeap<Reverse<(u32, usize)>> },
}

impl Grouped {
    /// Gives the next line to `take`. False at the end.
    ///
    /// # Errors
    /// Kind `Io` if the temporary file cannot be read.
    pub(super) fn next(&mut self, take: impl FnOnce(&[u8])) -> Result<bool> {
        match self {
            Self::Memory { bytes, lines } => {
                let Some((_, at)) = lines.next() else { return Ok(false) };
                take(&bytes[at]);
            }
            Self::Disk { file, runs, next } => {
                let Some(Reverse((_, place))) = next.pop() else { return Ok(false) };
                take(runs[place].line(file)?);
                next.extend(runs[place].group(file)?.map(|group| Reverse((group, place))));
            }
        }
        Ok(true)
    }
}

/// A sorted run: the part that is still on disk, and the part that was read.
pub(super) struct Run {
    left: Range<u64>,
    read: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl Run {
    /// Reads until `bytes` bytes of it are in memory.
    fn need(&mut self, bytes: usize, file: &File) -> Result<()> {
        if self.bytes.len() - self.at >= bytes {
            return Ok(());
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        let there = self.bytes.len();
        let more = (bytes - there).max(self.read).min((self.left.end - self.left.start) as usize);
        self.bytes.resize(there + more, 0);
        let read = read_exact_at(file, &mut self.bytes[there..], self.left.start);
        read.map_err(|e| failed("reading", "the temporary file of lines in the order of their recordings", e))?;
        self.left.start += more as u64;
        Ok(())
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| self.bytes[self.at + at + i]))
    }

    /// The group of its next line, if there is one.
    fn group(&mut self, file: &File) -> Result<Option<u32>> {
        if self.at == self.bytes.len() && self.left.is_empty() {
            return Ok(None);
        }
        self.need(8, file)?;
        Ok(Some(self.word(0)))
    }

    /// Its next line. [`group`](Self::group) must have been called for it.
    fn line(&mut self, file: &File) -> Result<&[u8]> {
        let length = self.word(4) as usize;
        self.need(8 + length, file)?;
        let begin = self.at + 8;
        self.at = begin + length;
        Ok(&self.bytes[begin..self.at])
    }
}

fn spill_error(e: std::io::Error) -> crate::Error {
    let dir = std::env::temp_dir();
    let what = format!(
        "the lines of recordings that take turns to a temporary file in {} (TMPDIR names another place)",
        dir.display()
    );
    failed("writing", &what, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(mut grouped: Grouped) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while grouped.next(|line| found.push(line.to_vec())).unwrap() {}
        found
    }

    proptest! {
        /// Whatever the memory, the lines come as a stable sort by group gives them.
        #[test]
        fn lines_come_group_by_group_in_their_order(
            lines in prop::collection::vec((0u32..5, prop::collection::vec(any::<u8>(), 0..40)), 0..300),
            memory in prop::sample::select(vec![1usize, 200, 5000, MEMORY]),
        ) {
            let mut groups = Groups::new(memory);
            for (group, line) in &lines {
                groups.push(*group, |out| out.extend(line)).unwrap();
            }
            let mut expected = lines;
            expected.sort_by_key(|(group, _)| *group);
            let expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, line)| line).collect();
            prop_assert_eq!(read(groups.finish().unwrap()), expected);
        }
    }

    #[test]
    fn a_line_longer_than_what_is_read_at_a_time_is_whole() {
        let mut groups = Groups::new(1000);
        for group in [2, 1, 2] {
            groups.push(group, |out| out.resize(out.len() + (3 << 20), group as u8)).unwrap();
        }
        let found = read(groups.finish().unwrap());
        assert_eq!(found, [1, 2, 2].map(|group| vec![group; 3 << 20]));
    }
}
