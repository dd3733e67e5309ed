//! Passes pieces of recordings on once they have ended: as they are, resampled, or set aside for their rate.

use super::Scan;
use crate::error::Result;
use crate::source::clock::{SECOND, duration};
use crate::source::csv::piece::Piece;
use crate::source::csv::resample::resample;
use crate::source::recording::{Edge, Recording};

/// The most samples that are interpolated between two. More would take memory without adding information.
const MOST_FINER: f64 = 64.0;

impl Scan {
    /// Ends the current piece with `edge`.
    pub(super) fn finish(&mut self, edge: Edge) -> Result<()> {
        let Some(piece) = self.course.piece.take() else { return Ok(()) };
        let before = self.course.position;
        self.course.position += piece.extent();
        if !piece.read || piece.len() == 0 {
            return Ok(());
        }
        let Some(period) = self.layout.period else { return self.ready(piece) };
        let whole = before == 0 && piece.edges()[0] == Edge::End && edge == Edge::End;
        let other = if piece.is_sparse() { piece.sparse_step(whole) } else { piece.other_step(period) };
        match other {
            Some(step) if self.layout.spec.rules.resample && step <= MOST_FINER * period => {
                let (wanted, gap) = (piece.wanted, self.layout.spec.rules.gap(step));
                self.course.position = before;
                for mut recording in resample(&piece.into_recording(), step, period, gap) {
                    recording.offset = self.course.position;
                    self.course.position += recording.len();
                    if wanted {
                        self.send(recording);
                    }
                }
                Ok(())
            }
            Some(step) => self.set_aside(&piece, step, period),
            None if piece.is_sparse() => {
                // Each of its samples is alone between gaps.
                let mut alone = Vec::with_capacity(piece.len());
                let mut rest = piece;
                while rest.is_sparse() && rest.has_several() {
                    let last = rest.split_last();
                    alone.push(last);
                }
                alone.push(rest);
                self.course.position = before;
                for piece in alone.into_iter().rev() {
                    self.course.position += piece.len();
                    self.ready(piece)?;
                }
                Ok(())
            }
            None => self.ready(piece),
        }
    }

    /// Sets aside a piece whose samples are `step` apart.
    fn set_aside(&mut self, piece: &Piece, step: f64, period: f64) -> Result<()> {
        if !piece.wanted {
            return Ok(());
        }
        let samples = piece.len();
        self.counts.count(|counts| counts.add_set_aside(samples as u64));
        let rate = |step: f64| (SECOND as f64 / step * 1e4).round() / 1e4;
        let (as_said, hint) = match self.layout.spec.rate_hz {
            Some(given) => (format!("as rate_hz is {given}"), "; is the unit of the times another one?"),
            None => ("as most recordings have it".to_string(), ""),
        };
        let reason = format!(
            "the {samples} samples from here on are {} apart in time ({} samples a second), expected {} ({}, give or take a \
             tenth), {as_said}; resample = true interpolates recordings up to {MOST_FINER} times their rate{hint}",
            duration(step),
            rate(step),
            duration(period),
            rate(period)
        );
        let (file, line) = piece.place();
        // Bad lines among them are listed by themselves.
        self.rejects.reject_rows(file, line, Some((samples - piece.bad()) as u64), reason)
    }

    /// Passes on a piece that ends at `position`.
    fn ready(&mut self, piece: Piece) -> Result<()> {
        if piece.wanted {
            let mut recording = piece.into_recording();
            recording.offset = self.course.position - recording.len();
            self.send(recording);
        }
        Ok(())
    }

    pub(super) fn send(&mut self, recording: Recording) {
        self.ready_samples += recording.len();
        self.ready.push(recording);
    }
}
