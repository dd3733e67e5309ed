//! Lines of CSV files, in order, put together to recordings.

use std::collections::HashSet;
use std::sync::Arc;

use super::Layout;
use super::file::{OpenFile, unreadable};
use super::piece::{Piece, Sample};
use super::turns::hash_of;
use crate::error::Result;
use crate::source::bad::Rejects;
use crate::source::recording::{Load, Recording, Wanted};
use crate::source::times::nanoseconds;

/// How many samples go to a worker at a time, at least; and at most, where a recording may be cut.
const CHUNK: usize = 1 << 14;

/// The recordings that have begun in a file, by a hash of their keys: eight bytes each, however long the keys are.
#[derive(Debug, Default)]
pub(super) struct Begun(HashSet<u64>);

impl Begun {
    /// Takes note of one; false if it had begun before.
    pub(super) fn insert(&mut self, id: &[u8]) -> bool {
        self.0.insert(hash_of(id))
    }
}

/// One pass over all files.
pub(super) struct Scan {
    layout: Arc<Layout>,
    wanted: Wanted,
    rejects: Rejects,
    next_file: usize,
    file: Option<OpenFile>,
    /// The recordings of `file`.
    begun: Begun,
    piece: Option<Piece>,
    sample: Sample,
    ready: Vec<Recording>,
    ready_samples: usize,
    over: bool,
}

impl Scan {
    pub(super) fn new(layout: Arc<Layout>, wanted: Wanted, rejects: Rejects) -> Self {
        Self {
            layout,
            wanted,
            rejects,
            next_file: 0,
            file: None,
            begun: Begun::default(),
            piece: None,
            sample: Sample::default(),
            ready: Vec::new(),
            ready_samples: 0,
            over: false,
        }
    }

    /// Reads on until there is enough for a worker; false at the end of the last file.
    fn fill(&mut self) -> Result<bool> {
        while self.ready_samples < CHUNK {
            let Some(mut file) = self.file.take() else {
                let Some(next) = self.layout.files.get(self.next_file) else { return Ok(false) };
                self.next_file += 1;
                self.begun = Begun::default();
                match OpenFile::new(next, &self.layout.spec) {
                    Ok(open) => self.file = Some(open),
                    Err(e) => self.rejects.reject_file(next.name(), e)?,
                }
                continue;
            };
            match file.advance() {
                Ok(true) => {
                    self.row(&file)?;
                    self.file = Some(file);
                }
                Ok(false) => {
                    self.finish()?;
                    if file.rows() == 0 {
                        self.rejects.reject(file.name(), 0, "no lines but the header, expected a line a sample")?;
                    }
                }
                Err(e) => {
                    self.finish()?;
                    let of = &self.layout.files[self.next_file - 1];
                    self.rejects
                        .reject_file(file.name(), unreadable(of, e, &format!(" after {} rows", file.rows())))?;
                }
            }
        }
        Ok(true)
    }

    /// Takes the line that `file` holds.
    fn row(&mut self, file: &OpenFile) -> Result<()> {
        let id = match file.id() {
            Ok(id) => id,
            Err(reason) => return self.bad_row(file, reason),
        };
        match &self.piece {
            Some(piece) if piece.id == id && piece.split == file.split() => {}
            // The same recording in another part of the data: `start` goes on counting.
            Some(piece) if piece.id == id => self.begin(file, id, piece.end(), piece.lost)?,
            _ => {
                let lost = !self.begun.insert(&id);
                self.begin(file, id, 0, lost)?;
            }
        }
        let Some(piece) = self.piece.as_mut() else { return Ok(()) };
        if !piece.wanted {
            piece.skip();
            return Ok(());
        }
        let read = file.sample(&mut self.sample);
        if let Err(reason) = read.and_then(|()| file.keep(&self.layout.spec.keep, &mut self.sample.kept)) {
            return self.bad_row(file, reason);
        }
        let unit = self.layout.spec.time.as_ref().map(|time| time.unit.per_second());
        self.sample.taken = self.sample.time.zip(unit).map(|(time, unit)| nanoseconds(time, unit));
        if let (Some(period), Some(time)) = (self.layout.period, self.sample.time) {
            if piece.last_time() == Some(time) {
                let reason = format!("time {time} is that of the line before, expected a later one");
                return self.bad_row(file, reason);
            }
            if piece.is_gap(time, period) {
                let rest = piece.split_off(file.line());
                self.finish()?;
                self.piece = Some(rest);
            }
        }
        let label = file.label();
        if let Some(piece) = self.piece.as_mut() {
            piece.push(&self.sample, label);
        }
        self.cut(file)
    }

    /// Begins a piece with the line that `file` holds, `offset` samples into its recording. It is `lost` if that was
    /// over before.
    fn begin(&mut self, file: &OpenFile, id: Vec<u8>, offset: usize, lost: bool) -> Result<()> {
        let goes_on = self.piece.as_ref().is_some_and(|piece| piece.id == id);
        self.finish()?;
        let constants = file.constants();
        let wanted = self.wanted.takes(&constants)?;
        if wanted && lost && !goes_on {
            self.rejects.reject(file.name(), file.line(), file.comes_back())?;
        }
        let channels = self.layout.spec.channels.len();
        let mut piece = Piece::new(id, constants, wanted && !lost, channels, file.shared_name(), file.line());
        (piece.split, piece.lost) = (file.split().to_vec(), lost);
        self.piece = Some(piece.starting_at(offset));
        Ok(())
    }

    fn bad_row(&mut self, file: &OpenFile, reason: String) -> Result<()> {
        // What a recording that is not wanted looks like is for the scan to say that wants it.
        if let Some(piece) = self.piece.as_mut().filter(|piece| !piece.wanted) {
            piece.skip();
            return Ok(());
        }
        self.rejects.reject(file.name(), file.line(), reason)?;
        if let Some(piece) = self.piece.as_mut() {
            piece.push_bad();
        }
        self.cut(file)
    }

    /// Passes samples on before their recording is over, where that changes nothing.
    fn cut(&mut self, file: &OpenFile) -> Result<()> {
        if let Some(piece) = self.piece.as_mut().filter(|p| !self.layout.whole && p.len() >= CHUNK) {
            let rest = piece.split_off(file.line() + 1);
            self.finish()?;
            self.piece = Some(rest);
        }
        Ok(())
    }

    /// Ends the piece being read.
    fn finish(&mut self) -> Result<()> {
        let Some(piece) = self.piece.take().filter(|piece| piece.wanted && piece.len() > 0) else { return Ok(()) };
        if let Some((found, expected)) = self.layout.period.and_then(|period| piece.other_rate(period)) {
            let reason = format!(
                "the {} samples from here on are {found} apart in time, expected {expected} (give or take a tenth)",
                piece.len()
            );
            return self.rejects.reject(piece.file(), piece.line(), reason);
        }
        self.ready_samples += piece.len();
        self.ready.push(piece.into_recording());
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Load>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.fill() {
            Ok(more) => self.over = !more,
            Err(e) => {
                self.over = true;
                return Some(Err(e));
            }
        }
        let recordings = std::mem::take(&mut self.ready);
        self.ready_samples = 0;
        (!recordings.is_empty()).then(|| Ok(Box::new(move || Ok(recordings)) as Load))
    }
}
