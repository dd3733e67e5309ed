//! Collects the lines of CSV files into recordings.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::course::{Begun, Course, Courses, Going};
use super::file::OpenFile;
use super::order::Line;
use super::piece::{Piece, Sample, Step};
use super::unread::UnreadRows;
use super::{Fill, Layout, NO_LINES};
use crate::error::Result;
use crate::source::bad::{Fault, Raw, Rejects, Why};
use crate::source::clock::{Midnight, duration};
use crate::source::recording::{Edge, Load, Recording, Wanted};
use crate::source::samples::{Counts, Unused};
use crate::source::span::Span;

mod finish;

/// The least number of samples that go to a worker at a time; also the greatest, where a recording may be cut.
const CHUNK: usize = 1 << 14;

/// One pass over all files; in a stream, over a portion of their lines.
pub(super) struct Scan {
    layout: Arc<Layout>,
    going: Option<Arc<Going>>,
    wanted: Wanted,
    rejects: Rejects,
    counts: Counts,
    next_file: usize,
    file: Option<OpenFile>,
    /// The name of `file`, or of the one before it.
    name: Arc<str>,
    begun: Begun,
    /// The rows that could not be read.
    unread: UnreadRows,
    /// The recording of the last line.
    course: Course,
    /// The recordings of a stream whose lines may go on, but that of the last line.
    open: BTreeMap<Vec<u8>, Course>,
    sample: Sample,
    line: Line,
    sorted: Vec<Line>,
    ready: Vec<Recording>,
    ready_samples: usize,
    over: bool,
}

impl Scan {
    pub(super) fn new(
        layout: Arc<Layout>,
        going: Option<Arc<Going>>,
        wanted: Wanted,
        rejects: Rejects,
        counts: Counts,
    ) -> Self {
        let Courses { open, begun, .. } = going.as_ref().map(|going| going.before.clone()).unwrap_or_default();
        Self {
            course: Course::new(&layout),
            layout,
            going,
            wanted,
            rejects,
            counts,
            next_file: 0,
            file: None,
            name: "".into(),
            begun,
            unread: UnreadRows::default(),
            open,
            sample: Sample::default(),
            line: Line::default(),
            sorted: Vec::new(),
            ready: Vec::new(),
            ready_samples: 0,
            over: false,
        }
    }

    fn continues(&self) -> bool {
        self.layout.spec.continues() || self.goes_on()
    }

    /// Whether recordings may go on in lines that are yet to come.
    fn goes_on(&self) -> bool {
        self.going.as_ref().is_some_and(|going| going.goes_on)
    }

    /// Reads on until there is enough for a worker; false at the end of the last file.
    fn fill(&mut self) -> Result<bool> {
        while self.ready_samples < CHUNK {
            let Some(mut file) = self.file.take() else {
                let Some(next) = self.layout.files.get(self.next_file) else {
                    self.end()?;
                    return Ok(false);
                };
                self.next_file += 1;
                match OpenFile::new(next, &self.layout.spec) {
                    Ok(open) => {
                        self.name = open.shared_name();
                        self.unread.next_file();
                        self.file = Some(open);
                    }
                    Err(e) => self.rejects.reject_file(next.name(), e)?,
                }
                continue;
            };
            let more = file.advance();
            for unread in file.take_unread() {
                self.counts.count(|samples| samples.add_set_aside(unread.rows));
                self.unread.add(&unread);
                self.rejects.reject_unread(file.name(), unread)?;
            }
            match more {
                Ok(true) => {
                    self.row(&file)?;
                    self.file = Some(file);
                }
                Ok(false) => {
                    self.end_of_file()?;
                    if file.rows() == 0 && self.unread.in_file() == 0 {
                        self.rejects.reject(file.name(), 0, NO_LINES)?;
                    }
                }
                Err(e) => {
                    self.end_of_file()?;
                    let of = &self.layout.files[self.next_file - 1];
                    let error = of.unreadable_after(e, &format!(" after {} rows", file.rows()));
                    self.rejects.reject_file(file.name(), error)?;
                }
            }
        }
        Ok(true)
    }

    /// Ends a recording at the end of a file, unless it has keys and may go on in the next file; lines may then be out
    /// of order across the two.
    fn end_of_file(&mut self) -> Result<()> {
        if !self.continues() {
            self.end_all()?;
        }
        if self.layout.spec.keys.is_empty() && !self.goes_on() {
            self.begun = Begun::default();
        }
        Ok(())
    }

    /// Ends the current recording, and then those that were set by.
    fn end_all(&mut self) -> Result<()> {
        self.sort_out()?;
        self.end_recording()?;
        while let Some((_, course)) = self.open.pop_first() {
            self.course = course;
            self.sort_out()?;
            self.end_recording()?;
        }
        Ok(())
    }

    /// Ends the pass. The recordings of a stream pass on what they have, and those without lines for a while end.
    fn end(&mut self) -> Result<()> {
        let Some(going) = self.going.clone() else {
            self.sort_out()?;
            return self.finish(Edge::End);
        };
        match going.goes_on {
            true => self.set_by(),
            false => self.end_all()?,
        }
        let mut open = BTreeMap::new();
        while let Some((id, course)) = self.open.pop_first() {
            self.course = course;
            if self.course.read_at <= going.idle_since {
                self.sort_out()?;
                self.end_recording()?;
                continue;
            }
            self.pass_on(&going)?;
            open.insert(id, std::mem::replace(&mut self.course, Course::new(&self.layout)));
        }
        let times = going.times.get().copied().or(going.before.times);
        let after = Courses { open, begun: std::mem::take(&mut self.begun), times };
        *going.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
        Ok(())
    }

    /// Sets the current recording by, as lines of another one follow.
    fn set_by(&mut self) {
        let Some(id) = self.course.piece.as_ref().map(|piece| piece.id.clone()) else { return };
        let course = std::mem::replace(&mut self.course, Course::new(&self.layout));
        self.open.insert(id, course);
    }

    /// Passes on what there is of the current recording, which may go on.
    fn pass_on(&mut self, going: &Going) -> Result<()> {
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        if !piece.read || piece.len() == 0 {
            return Ok(());
        }
        // A stretch at another rate is set aside as far as it was read.
        let other = self.layout.period.is_some_and(|period| piece.other_step(period).is_some());
        if other || piece.is_sparse() {
            return self.part(Edge::Gap);
        }
        let wanted = piece.wanted;
        let (mut part, taken) = piece.pass_on(&going.window, going.ahead);
        part.offset = self.course.position;
        self.course.position += taken;
        if wanted {
            self.send(part);
        }
        Ok(())
    }

    /// Takes the current line of `file`.
    fn row(&mut self, file: &OpenFile) -> Result<()> {
        let id = match file.id() {
            // Without keys, each file is a recording.
            Ok(_) if self.goes_on() && self.layout.spec.keys.is_empty() => file.below().into(),
            Ok(id) => id,
            Err(reason) => return self.bad_line(file, reason),
        };
        if self.course.piece.as_ref().is_none_or(|piece| piece.id != id) {
            self.turn_to(file, id.clone())?;
        }
        if let Some(piece) = self.course.piece.as_ref().filter(|piece| piece.split != file.split()) {
            // The same recording in another split: `start` goes on counting.
            let lost = piece.lost;
            self.sort_out()?;
            let unread = self.course.piece.as_ref().map(|piece| piece.unread);
            self.finish(Edge::End)?;
            self.begin(file, id, lost)?;
            if let (Some(piece), Some(unread)) = (&mut self.course.piece, unread) {
                piece.unread = unread;
            }
        }
        self.course.read_at = self.going.as_ref().map_or(0, |going| going.now);
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        if !piece.read {
            piece.skip_unread(self.unread.before(file.line()));
            piece.skip();
            let set_aside = u64::from(piece.lost && piece.wanted);
            if set_aside > 0 {
                self.counts.count(|samples| samples.add_set_aside(set_aside));
            }
            return Ok(());
        }
        let read = file.sample(&mut self.sample);
        if let Err(reason) = read.and_then(|()| file.keep(&self.layout.spec.keep, &mut self.sample.kept)) {
            return self.bad_line(file, reason);
        }
        let mut line = std::mem::take(&mut self.line);
        std::mem::swap(&mut line.values, &mut self.sample.values);
        std::mem::swap(&mut line.kept, &mut self.sample.kept);
        line.time = self.sample.time.map(|stamp| self.course.midnight.pass(stamp));
        line.label.clear();
        line.label.extend_from_slice(file.label());
        (line.file, line.number, line.bad) = (self.name.clone(), file.line(), None);
        line.unread = self.unread.before(line.number);
        if self.rejects.leaves_out() {
            file.raw(&mut line.raw);
        }
        self.give(line)
    }

    /// Takes a line that is bad by itself.
    fn bad_line(&mut self, file: &OpenFile, reason: String) -> Result<()> {
        let mut raw = Raw::default();
        file.raw(&mut raw);
        match &mut self.course.piece {
            // Bad lines of an unwanted recording are reported by the scan that wants it.
            Some(piece) if !piece.wanted && !piece.read => piece.skip(),
            Some(piece) if piece.read => {
                let (name, number) = (self.name.clone(), file.line());
                let unread = self.unread.before(number);
                return self.give(Line { file: name, number, unread, bad: Some(reason), raw, ..Line::default() });
            }
            // Its first line was rejected for the whole run of lines.
            Some(piece) => {
                piece.skip();
                self.counts.count(|samples| samples.add_set_aside(1));
            }
            None => {
                self.counts.count(|samples| samples.add_set_aside(1));
                self.rejects.reject_as(file.name(), file.line(), Why::row(reason, raw))?;
            }
        }
        Ok(())
    }

    /// Takes a line of the current recording; if lines are sorted, it is held back first.
    fn give(&mut self, mut line: Line) -> Result<()> {
        let Some(order) = &mut self.course.order else {
            let taken = self.take(&mut line);
            self.line = line;
            return taken;
        };
        let mut sorted = std::mem::take(&mut self.sorted);
        let repeated = order.push(line, &mut sorted);
        self.take_all(sorted, repeated)
    }

    /// Takes the lines that were held back.
    fn sort_out(&mut self) -> Result<()> {
        let Some(order) = &mut self.course.order else { return Ok(()) };
        let mut sorted = std::mem::take(&mut self.sorted);
        let repeated = order.flush(&mut sorted);
        self.take_all(sorted, repeated)
    }

    fn take_all(&mut self, mut sorted: Vec<Line>, repeated: u64) -> Result<()> {
        if repeated > 0 && self.course.piece.as_ref().is_some_and(|piece| piece.wanted) {
            self.counts.count(|samples| samples.add_unused(Unused::Repeated, repeated));
        }
        for mut line in sorted.drain(..) {
            self.take(&mut line)?;
        }
        self.sorted = sorted;
        Ok(())
    }

    /// Appends a line to the current piece, or begins another piece with it after a gap.
    fn take(&mut self, line: &mut Line) -> Result<()> {
        self.pass_unread(line.unread)?;
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        if let Some(reason) = line.bad.take() {
            return self.take_bad(line, reason, Fault::Row, false);
        }
        if let (Some(period), Some(time)) = (self.layout.period, line.time) {
            if piece.last_time() == Some(time) {
                let reason = "its time is that of the line before, expected a later one; repeated = \"drop\" leaves out \
                              lines that are the same, same_time = \"spread\" takes them for samples up to the next time";
                return self.take_bad(line, reason.into(), Fault::Time, true);
            }
            if let Some(earlier) = piece.overlaps(time, &line.file) {
                let reason = format!(
                    "its time is before the end of the recording in {earlier}, so the two files overlap; disorder = N puts \
                     lines in order over files, repeated = \"drop\" leaves out those that are in both"
                );
                return self.take_bad(line, reason, Fault::Time, false);
            }
            match piece.step(time, period, self.layout.spec.rules.gap(period)) {
                Step::On if piece.is_sparse() => {
                    // The last sparse sample is the first of samples that are close together again.
                    let last = piece.split_last();
                    self.finish(Edge::Gap)?;
                    self.course.piece = Some(last);
                }
                Step::On => {}
                Step::Gap if piece.thins_out() => {}
                Step::Gap => self.part(Edge::Gap)?,
                Step::Back => self.part(Edge::Back)?,
            }
        }
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        if self.layout.spec.rules.fill == Fill::Hold {
            self.course.held_at.resize(self.course.held.len(), 0);
            let (mut missing, mut filled) = (None, Vec::new());
            let lasts = self.layout.spec.rules.hold_for.map(Span::nanoseconds);
            let now = line.time.unwrap_or(0);
            let held = self.course.held.iter_mut().zip(&mut self.course.held_at);
            for (channel, (value, (held, at))) in line.values.iter_mut().zip(held).enumerate() {
                let old = lasts.is_some_and(|lasts| now.saturating_sub(*at) > lasts);
                match (value.is_nan(), held.is_nan() || old) {
                    (false, _) => (*held, *at) = (*value, now),
                    (true, false) => {
                        *value = *held;
                        filled.push(channel);
                    }
                    (true, true) => missing = Some((channel, old && !held.is_nan())),
                }
            }
            if let Some((channel, old)) = missing {
                let name = &self.layout.spec.channels[channel];
                let why = match lasts.filter(|_| old) {
                    Some(lasts) => format!("its last value is older than {}", duration(lasts as f64)),
                    None => "the recording has no earlier value, or none since a gap, to hold".to_owned(),
                };
                return self.take_bad(line, format!("column {name:?} is empty, and {why}"), Fault::Row, false);
            }
            if piece.wanted && !filled.is_empty() {
                let channels = &self.layout.spec.channels;
                self.counts.count(|samples| filled.iter().for_each(|at| samples.add_held(&channels[*at])));
            }
        }
        piece.push(line);
        self.cut()
    }

    /// Ends the current piece where rows could not be read, `unread` of them before the next line. Leaves room for all of
    /// them: it is not known which recordings they are of.
    fn pass_unread(&mut self, unread: u64) -> Result<()> {
        let Some(piece) = self.course.piece.as_mut().filter(|piece| piece.unread < unread) else { return Ok(()) };
        let room = unread - std::mem::replace(&mut piece.unread, unread);
        if piece.extent() > 0 {
            self.part(Edge::Unread)?;
        }
        self.course.position += usize::try_from(room).unwrap_or(usize::MAX);
        Ok(())
    }

    /// Takes a bad line, which may only repeat the time of the one before.
    fn take_bad(&mut self, line: &Line, reason: String, fault: Fault, repeats: bool) -> Result<()> {
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        piece.push_bad(self.layout.spec.time.is_some(), line, repeats);
        if piece.wanted {
            let why = Why { fault, ..Why::row(reason, line.raw.clone()) };
            self.rejects.reject_as(&line.file, line.number, why)?;
        }
        self.cut()
    }

    /// Ends the current piece, and begins the next one of its recording.
    fn part(&mut self, edge: Edge) -> Result<()> {
        let Some(piece) = self.course.piece.as_mut() else { return Ok(()) };
        let mut next = piece.next();
        piece.part_from(&mut next, edge);
        self.course.held.fill(f64::NAN);
        self.finish(edge)?;
        self.course.piece = Some(next);
        Ok(())
    }

    /// Passes samples on before their recording has ended, if that changes nothing.
    fn cut(&mut self) -> Result<()> {
        let full = |piece: &&Piece| !self.layout.whole && piece.len() >= CHUNK;
        let Some(piece) = self.course.piece.as_ref().filter(full) else { return Ok(()) };
        let next = piece.next();
        self.finish(Edge::End)?;
        self.course.piece = Some(next);
        Ok(())
    }

    /// Ends the current recording, or sets it by in a stream, and turns to the one that the line of `file` belongs to.
    fn turn_to(&mut self, file: &OpenFile, id: Vec<u8>) -> Result<()> {
        let (goes_on, streams) = (self.goes_on(), self.going.is_some());
        if streams {
            self.set_by();
            if let Some(course) = self.open.remove(&id) {
                self.course = course;
                return Ok(());
            }
        } else {
            self.sort_out()?;
            self.end_recording()?;
            self.course.midnight = Midnight::default();
            self.course.held.fill(f64::NAN);
        }
        let continues = self.continues();
        let here = file.shared_name();
        let Some(place) = self.begun.get_mut(&id) else {
            self.begun.add(&id, here);
            self.course.position = 0;
            return self.begin(file, id, false);
        };
        self.course.position = place.end;
        let earlier = place.file.clone();
        if continues {
            place.file = here.clone();
        }
        let continued = goes_on || continues && earlier != here;
        self.begin(file, id, !continued)?;
        let lost = !continued && self.course.piece.as_ref().is_some_and(|piece| piece.wanted);
        if lost {
            let reason = match earlier == here {
                true => file.comes_back(),
                false => file.in_two_files(&earlier),
            };
            // How many lines follow is not known yet; they are counted with the samples.
            self.rejects.reject_rows(file.name(), file.line(), None, reason)?;
        }
        Ok(())
    }

    /// Begins a piece with the current line of `file`. It is `lost` if its recording had ended before.
    fn begin(&mut self, file: &OpenFile, id: Vec<u8>, lost: bool) -> Result<()> {
        let constants = file.constants();
        let wanted = self.wanted.takes(&constants)?;
        let spec = &self.layout.spec;
        // Samples of an unwanted split are counted: one per line, unless the rules change the number of samples.
        let counted = spec.split.is_some() && spec.rules != Default::default();
        let mut piece = Piece::new(id, constants, spec.channels.len());
        (piece.wanted, piece.lost) = (wanted, lost);
        piece.read = (wanted || counted) && !lost;
        piece.split = file.split().to_vec();
        // Without keys, what could not be read at the start of a file is of the same recording.
        piece.unread = if spec.keys.is_empty() { self.unread.before_file() } else { self.unread.before(file.line()) };
        self.course.piece = Some(piece);
        Ok(())
    }

    fn end_recording(&mut self) -> Result<()> {
        let id = self.course.piece.as_ref().filter(|piece| !piece.lost).map(|piece| piece.id.clone());
        self.finish(Edge::End)?;
        if let Some(place) = id.and_then(|id| self.begun.get_mut(&id)) {
            place.end = self.course.position;
        }
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Load>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.fill() {
                Ok(more) => self.over = !more,
                Err(e) => {
                    self.over = true;
                    return Some(Err(e));
                }
            }
            let recordings = std::mem::take(&mut self.ready);
            self.ready_samples = 0;
            if !recordings.is_empty() {
                return Some(Ok(Box::new(move || Ok(recordings)) as Load));
            }
        }
        None
    }
}
