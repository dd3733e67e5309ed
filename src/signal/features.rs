//! Feature sets, and the extractor that turns windows of recordings into them.

use super::hapt561::{self, Hapt561};
use super::summary::{self, Summary, SummarySpec};
use super::window::WindowSpec;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which features are computed from each window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSet {
    /// The 561 features of the HAPT data set (see [`hapt561`]), for exactly six channels at 50 Hz in windows of 128
    /// samples.
    Hapt561,
    /// Statistics and spectra of any channels.
    Summary(SummarySpec),
    /// The window's samples themselves, one channel after the other.
    Samples,
}

/// The most values in a row.
pub const MOST_FEATURES: usize = 1 << 20;

/// Checks that a row of `count` features is not too long.
///
/// # Errors
/// Kind `Config` beyond [`MOST_FEATURES`].
pub(super) fn check_count(count: usize) -> Result<()> {
    match count > MOST_FEATURES {
        true => Err(Error::config(format!(
            "{count} features of a window, at most {MOST_FEATURES} are possible; cut shorter windows, or name fewer channels"
        ))),
        false => Ok(()),
    }
}

/// Computes the features of windows. It is shared by threads, each with a [`Scratch`] of its own; the features of a
/// window depend only on its recording and its start.
///
/// ```
/// use dacpipe::signal::features::{FeatureExtractor, FeatureSet};
/// use dacpipe::signal::window::{WindowSpec, Within};
/// let window = WindowSpec { length: 4, stride: 2, within: Within::Recordings };
/// let channels = ["x".to_string(), "y".to_string()];
/// let samples = FeatureExtractor::new(&FeatureSet::Samples, &channels, 50.0, &window)?;
/// let recording = samples.prepare(&[vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0, 7.0, 8.0, 9.0]])?;
/// let mut row = vec![0.0; samples.dim()];
/// samples.extract(&mut samples.scratch(), &recording, 1, &mut row)?;
/// assert_eq!(row, [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0]);
/// assert_eq!(samples.names()[4], "y-0");
/// # Ok::<(), dacpipe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FeatureExtractor {
    set: Set,
    channels: Vec<String>,
    names: Vec<String>,
    length: usize,
}

#[derive(Debug, Clone)]
enum Set {
    Hapt561(Hapt561),
    Summary(Summary),
    Samples,
}

/// A whole recording, with the filters of the feature set applied.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    samples: usize,
    signals: Signals,
}

#[derive(Debug, Clone)]
enum Signals {
    Hapt561(hapt561::Signals),
    Plain(Vec<Vec<f64>>),
}

impl Default for Signals {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl Signals {
    /// The signals of [`hapt561`], with their buffers.
    fn hapt561(&mut self) -> &mut hapt561::Signals {
        if let Self::Plain(_) = self {
            *self = Self::Hapt561(hapt561::Signals::default());
        }
        match self {
            Self::Hapt561(signals) => signals,
            Self::Plain(_) => unreachable!("replaced above"),
        }
    }
}

impl Prepared {
    /// Samples in the recording.
    pub fn samples(&self) -> usize {
        self.samples
    }
}

/// What the filters of a feature set keep of the samples before a place in a recording, so that it can go on there:
/// [`FeatureExtractor::prepare_from`]. The default is the beginning of a recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory(Filters);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filters {
    #[default]
    Begin,
    Hapt561(Box<hapt561::Memory>),
    Summary(summary::Memory),
}

impl Filters {
    fn hapt561(&mut self) -> &mut hapt561::Memory {
        if !matches!(self, Self::Hapt561(_)) {
            *self = Self::Hapt561(Box::default());
        }
        match self {
            Self::Hapt561(memory) => memory,
            _ => unreachable!("replaced above"),
        }
    }

    fn summary(&mut self) -> &mut summary::Memory {
        if !matches!(self, Self::Summary(_)) {
            *self = Self::Summary(summary::Memory::default());
        }
        match self {
            Self::Summary(memory) => memory,
            _ => unreachable!("replaced above"),
        }
    }
}

/// The buffers of one thread, made by [`FeatureExtractor::scratch`].
#[derive(Debug, Clone)]
pub struct Scratch(Buffers);

#[derive(Debug, Clone)]
enum Buffers {
    Hapt561(Box<hapt561::Scratch>),
    Summary(Box<summary::Scratch>),
    Samples,
}

impl FeatureExtractor {
    /// An extractor for recordings with these channels, in this order, at `rate_hz` samples per second.
    ///
    /// # Errors
    /// A [`Kind::Config`](crate::Kind::Config) error that says what the feature set accepts: no channels, a name twice,
    /// a rate that is not positive, a window without samples; for [`FeatureSet::Hapt561`] anything but six channels, 50
    /// Hz and windows of 128 samples; for a summary see [`Summary::new`].
    pub fn new(set: &FeatureSet, channels: &[String], rate_hz: f64, window: &WindowSpec) -> Result<Self> {
        window.validate()?;
        if channels.is_empty() {
            return Err(Error::config("features of no channels; name one or more"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = channels.iter().find(|channel| !seen.insert(*channel)) {
            return Err(Error::config(format!("channel {twice:?} is named twice")));
        }
        if !(rate_hz > 0.0 && rate_hz.is_finite()) {
            return Err(Error::config(format!("{rate_hz} samples a second; the rate must be a positive number")));
        }
        let (set, names) = match set {
            FeatureSet::Hapt561 => {
                check_hapt(channels, rate_hz, window.length)?;
                (Set::Hapt561(Hapt561::new()?), hapt561::names())
            }
            FeatureSet::Summary(spec) => {
                let summary = Summary::new(spec, channels, rate_hz, window.length)?;
                let names = summary.names().to_vec();
                (Set::Summary(summary), names)
            }
            FeatureSet::Samples => {
                check_count(channels.len().saturating_mul(window.length))?;
                let of = |channel| (0..window.length).map(move |i| format!("{channel}-{i}"));
                (Set::Samples, channels.iter().flat_map(of).collect())
            }
        };
        Ok(Self { set, channels: channels.to_vec(), names, length: window.length })
    }

    /// The names of the features, in order. Those of HAPT are not all different.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Features of a window.
    pub fn dim(&self) -> usize {
        self.names.len()
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch(match &self.set {
            Set::Hapt561(hapt) => Buffers::Hapt561(Box::new(hapt.scratch())),
            Set::Summary(summary) => Buffers::Summary(Box::new(summary.scratch())),
            Set::Samples => Buffers::Samples,
        })
    }

    /// Filters a recording, one slice of samples for each channel. Time and memory `O(samples)`.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error for another number of channels, channels of different lengths, or a
    /// sample that is not finite (it would spread through the filters to all later windows).
    pub fn prepare(&self, channels: &[Vec<f64>]) -> Result<Prepared> {
        let mut prepared = Prepared::default();
        self.prepare_into(channels, &mut prepared)?;
        Ok(prepared)
    }

    /// [`prepare`](Self::prepare), reusing the buffers of a recording that is no longer needed.
    ///
    /// # Errors
    /// The same; the content of `prepared` is then undefined.
    pub fn prepare_into(&self, channels: &[Vec<f64>], prepared: &mut Prepared) -> Result<()> {
        self.prepare_from(channels, &mut Memory::default(), 0, prepared)
    }

    /// How many samples behind a window its features depend on: at the end of the samples so far, the features of the
    /// windows that end later than this before it may still change.
    pub fn ahead(&self) -> usize {
        match &self.set {
            Set::Hapt561(_) => hapt561::AHEAD,
            Set::Summary(summary) => summary.ahead(),
            Set::Samples => 0,
        }
    }

    /// [`prepare_into`](Self::prepare_into) for a part of a recording that follows the samples that `memory` is of.
    /// Afterwards `memory` is of the samples before number `at` of this part. However a recording is cut into parts,
    /// the features of its windows have the same bits.
    ///
    /// # Errors
    /// The same, and kind `Internal` if `at` is beyond the samples.
    ///
    /// ```
    /// use dacpipe::signal::features::{FeatureExtractor, FeatureSet, Memory, Prepared};
    /// use dacpipe::signal::summary::{LowPassSpec, SummarySpec};
    /// use dacpipe::signal::window::{WindowSpec, Within};
    /// let window = WindowSpec { length: 4, stride: 4, within: Within::Recordings };
    /// let low_pass = Some(LowPassSpec { order: 3, cutoff_hz: 5.0 });
    /// let spec = SummarySpec { low_pass, bands: 2, ..SummarySpec::default() };
    /// let summary = FeatureExtractor::new(&FeatureSet::Summary(spec), &["x".to_string()], 50.0, &window)?;
    /// let samples = vec![0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0];
    /// let (mut scratch, mut whole, mut part) = (summary.scratch(), vec![0.0; summary.dim()], vec![0.0; summary.dim()]);
    /// summary.extract(&mut scratch, &summary.prepare(&[samples.clone()])?, 4, &mut whole)?;
    ///
    /// let (mut memory, mut prepared) = (Memory::default(), Prepared::default());
    /// summary.prepare_from(&[samples[..5].to_vec()], &mut memory, 4, &mut prepared)?;
    /// summary.prepare_from(&[samples[4..].to_vec()], &mut memory, 0, &mut prepared)?;
    /// summary.extract(&mut scratch, &prepared, 0, &mut part)?;
    /// assert_eq!(part, whole);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn prepare_from(
        &self,
        channels: &[Vec<f64>],
        memory: &mut Memory,
        at: usize,
        prepared: &mut Prepared,
    ) -> Result<()> {
        if channels.len() != self.channels.len() {
            let (got, want) = (channels.len(), self.channels.join(", "));
            return Err(Error::input(format!("a recording of {got} channels; the features are of {want}")));
        }
        let samples = channels[0].len();
        for (name, channel) in self.channels.iter().zip(channels) {
            if channel.len() != samples {
                let (first, other) = (&self.channels[0], channel.len());
                return Err(Error::input(format!(
                    "channel {first:?} has {samples} samples and channel {name:?} {other}; they must have as many"
                )));
            }
            if let Some(at) = channel.iter().position(|v| !v.is_finite()) {
                let value = channel[at];
                return Err(Error::input(format!(
                    "channel {name:?}, sample {at}: {value}; samples must be finite numbers"
                )));
            }
        }
        if at > samples {
            return Err(Error::internal(format!("the filters are to stop at sample {at} of {samples}")));
        }
        prepared.samples = 0;
        match &self.set {
            Set::Hapt561(hapt) => {
                hapt.prepare_from(channels, memory.0.hapt561(), at, prepared.signals.hapt561())?;
            }
            Set::Summary(summary) => {
                prepared.signals = Signals::Plain(summary.prepare_from(channels, memory.0.summary(), at)?);
            }
            Set::Samples => prepared.signals = Signals::Plain(channels.to_vec()),
        }
        prepared.samples = samples;
        Ok(())
    }

    /// Writes the [`dim`](Self::dim) features of the window that starts at sample `start` (from 0) into `out`.
    /// Allocates nothing. Time `O(n log n)` in the window's length for each signal.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error when the window reaches past the recording; a
    /// [`Kind::Internal`](crate::Kind::Internal) one when `out` is not `dim` long, or `scratch` or `recording` come
    /// from another extractor.
    pub fn extract(&self, scratch: &mut Scratch, recording: &Prepared, start: usize, out: &mut [f32]) -> Result<()> {
        check_window(recording.samples, start, self.length, out.len(), self.dim())?;
        match (&self.set, &mut scratch.0, &recording.signals) {
            (Set::Hapt561(hapt), Buffers::Hapt561(scratch), Signals::Hapt561(signals)) => {
                hapt.extract(scratch, signals, start, out)
            }
            (Set::Summary(summary), Buffers::Summary(scratch), Signals::Plain(signals)) => {
                summary.extract(scratch, signals, start, out);
                Ok(())
            }
            (Set::Samples, Buffers::Samples, Signals::Plain(signals)) => {
                for (out, signal) in out.chunks_exact_mut(self.length).zip(signals) {
                    out.iter_mut().zip(&signal[start..]).for_each(|(o, v)| *o = *v as f32);
                }
                Ok(())
            }
            _ => Err(Error::internal("scratch or recording prepared for another feature set")),
        }
    }

    /// Whether the features are the samples themselves, which [`samples`](Self::samples) gives in double precision.
    pub fn is_samples(&self) -> bool {
        matches!(self.set, Set::Samples)
    }

    /// The features of the window that starts at sample `start`, in double precision, if they are the samples
    /// themselves; else nothing.
    pub fn samples<'a>(&self, recording: &'a Prepared, start: usize) -> impl Iterator<Item = f64> + 'a {
        let length = self.length;
        let signals = match (&self.set, &recording.signals) {
            (Set::Samples, Signals::Plain(signals)) => signals.as_slice(),
            _ => &[],
        };
        signals.iter().flat_map(move |signal| signal.iter().skip(start).take(length).copied())
    }
}

fn check_hapt(channels: &[String], rate_hz: f64, length: usize) -> Result<()> {
    if channels.len() != hapt561::CHANNELS {
        return Err(Error::config(format!(
            "feature set hapt561 needs 6 channels (acceleration x, y, z in g, then angular velocity x, y, z in rad/s), \
             got {}: {}",
            channels.len(),
            channels.join(", ")
        )));
    }
    if rate_hz != hapt561::RATE_HZ {
        return Err(Error::config(format!(
            "feature set hapt561 needs 50 samples a second, got {rate_hz}; the set \"summary\" takes any rate"
        )));
    }
    if length != hapt561::WINDOW {
        return Err(Error::config(format!(
            "feature set hapt561 needs windows of 128 samples, got {length}; the set \"summary\" takes any length"
        )));
    }
    Ok(())
}

/// Checks that a window lies inside its recording and its features fit.
pub(super) fn check_window(samples: usize, start: usize, length: usize, out: usize, dim: usize) -> Result<()> {
    if start.checked_add(length).is_none_or(|end| end > samples) {
        return Err(Error::input(format!(
            "a window of {length} samples from sample {start} on reaches past the recording of {samples}"
        )));
    }
    if out != dim {
        return Err(Error::internal(format!("{out} places for {dim} features")));
    }
    Ok(())
}
