//! Statistics and spectra of any list of channels, at any rate and window length.

use super::autoregression::{AR_ORDER, BurgScratch, burg};
use super::entropy::histogram_entropy;
use super::features::check_count;
use super::filter::{LowPass, State, median};
use super::quartiles::interquartile_range;
use super::spectrum::{Spectrum, SpectrumScratch, band_energy, centre};
use super::statistics::{Description, correlation, describe, skewness_and_kurtosis};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A statistic of a signal in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Mean.
    Mean,
    /// Standard deviation (n - 1).
    Std,
    /// Mean absolute deviation from the mean.
    Mad,
    /// Largest value.
    Max,
    /// Smallest value.
    Min,
    /// Mean absolute value.
    Magnitude,
    /// Mean square.
    Energy,
    /// Interquartile range.
    Iqr,
    /// Entropy in bits of the histogram over 16 bins from the smallest to the largest value.
    Entropy,
    /// Skewness.
    Skewness,
    /// Kurtosis; 3 for a normal distribution.
    Kurtosis,
    /// The four coefficients of an autoregression (Burg), named `ar1` to `ar4`.
    Ar,
}

/// A statistic of a signal's amplitude spectrum without bin 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpectralStatistic {
    /// Largest amplitude.
    Max,
    /// The frequency of the largest amplitude, in Hz.
    PeakHz,
    /// The mean frequency weighted with the amplitudes, in Hz.
    MeanHz,
    /// Standard deviation of the amplitudes.
    Std,
    /// Entropy in bits of the power spectrum, taken as a distribution over its bins; 0 for a constant signal.
    Entropy,
    /// Skewness of the amplitudes.
    Skewness,
    /// Kurtosis of the amplitudes.
    Kurtosis,
    /// Sum of the squared amplitudes.
    Energy,
}

/// A Butterworth low-pass over each recording, run forward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LowPassSpec {
    /// Its order.
    #[schemars(range(min = 1, max = 20))]
    pub order: usize,
    /// Its corner in Hz, below half the sampling rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cutoff_hz: f64,
}

/// Which statistics of which signals.
///
/// ```
/// use dacpipe::signal::summary::{Statistic, SummarySpec};
/// let spec: SummarySpec = serde_json::from_str(r#"{"statistics": ["mean", "iqr"], "magnitudes": {"acc": ["x", "y"]}}"#).unwrap();
/// assert_eq!(spec.statistics, [Statistic::Mean, Statistic::Iqr]);
/// assert_eq!((spec.bands, spec.correlations), (8, true));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SummarySpec {
    /// Statistics in time of each signal; all by default.
    pub statistics: Vec<Statistic>,
    /// Statistics of each signal's spectrum; all by default.
    pub spectrum: Vec<SpectralStatistic>,
    /// Equal bands of the spectrum whose energies are features; 8 by default, 0 for none.
    pub bands: usize,
    /// Whether the correlation of each pair of channels is a feature; true by default.
    pub correlations: bool,
    /// Euclidean norms of groups of channels, as signals of their own under the group's name.
    pub magnitudes: BTreeMap<String, Vec<String>>,
    /// Whether the derivative in time of each channel (and its magnitude in each group) is a signal too.
    pub jerk: bool,
    /// A running median of this odd length over each recording, before anything else.
    pub median: Option<usize>,
    /// A low-pass over each recording, after the median.
    pub low_pass: Option<LowPassSpec>,
}

impl Default for SummarySpec {
    fn default() -> Self {
        use {SpectralStatistic as F, Statistic as T};
        Self {
            statistics: vec![
                T::Mean,
                T::Std,
                T::Mad,
                T::Max,
                T::Min,
                T::Magnitude,
                T::Energy,
                T::Iqr,
                T::Entropy,
                T::Skewness,
                T::Kurtosis,
                T::Ar,
            ],
            spectrum: vec![F::Max, F::PeakHz, F::MeanHz, F::Std, F::Entropy, F::Skewness, F::Kurtosis, F::Energy],
            bands: 8,
            correlations: true,
            magnitudes: BTreeMap::new(),
            jerk: false,
            median: None,
            low_pass: None,
        }
    }
}

/// A [`SummarySpec`] resolved for given channels, rate and window.
#[derive(Debug, Clone)]
pub struct Summary {
    spec: SummarySpec,
    channels: usize,
    /// The channels of each group, by number.
    groups: Vec<Vec<usize>>,
    low_pass: Option<LowPass>,
    spectrum: Spectrum,
    rate_hz: f64,
    names: Vec<String>,
}

/// What the filters keep of the samples before a place in a recording, by channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory(Vec<OfChannel>);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct OfChannel {
    /// As many of the last samples as the median looks back.
    before: Vec<f64>,
    low_pass: State<1>,
}

/// The buffers of one thread.
#[derive(Debug, Clone)]
pub struct Scratch {
    values: Vec<f64>,
    burg: BurgScratch<1>,
    fft: SpectrumScratch,
    amplitudes: Vec<[f64; 1]>,
    means: Vec<f64>,
}

impl Summary {
    /// Resolves the groups' channels, designs the filter and plans the transform.
    ///
    /// # Errors
    /// A [`Kind::Config`](crate::Kind::Config) error that names what is invalid: a group of an unknown channel or with
    /// a channel's name, an even median, a cutoff above half the rate, more bands than the spectrum has bins, or
    /// nothing to compute.
    pub fn new(spec: &SummarySpec, channels: &[String], rate_hz: f64, length: usize) -> Result<Self> {
        let signals = channels.len().saturating_add(spec.magnitudes.len()).saturating_mul(1 + usize::from(spec.jerk));
        let pairs = if spec.correlations { channels.len().saturating_mul(channels.len()) / 2 } else { 0 };
        // Checked before the names are made, of which there is one per feature.
        check_count(
            signals.saturating_mul(spec.statistics.len().max(1)).saturating_add(pairs).saturating_add(spec.bands),
        )?;
        let spectrum = Spectrum::new(length);
        let wants_spectrum = !spec.spectrum.is_empty() || spec.bands > 0;
        if wants_spectrum && spectrum.bins() < spec.bands.max(1) {
            return Err(Error::config(format!(
                "{} bands of a spectrum of {} bins (half the window length of {length}); ask for fewer, or for longer \
                 windows",
                spec.bands,
                spectrum.bins()
            )));
        }
        if let Some(length) = spec.median {
            median(&[], length)?;
        }
        let low_pass = match spec.low_pass {
            Some(LowPassSpec { order, cutoff_hz }) => Some(LowPass::butterworth(order, cutoff_hz, rate_hz)?),
            None => None,
        };
        let groups: Vec<Vec<usize>> =
            spec.magnitudes.iter().map(|(name, of)| group(name, of, channels)).collect::<Result<_>>()?;
        let names = names(spec, channels);
        if names.is_empty() {
            return Err(Error::config("a summary without statistics, spectrum, bands or correlations has no features"));
        }
        Ok(Self { spec: spec.clone(), channels: channels.len(), groups, low_pass, spectrum, rate_hz, names })
    }

    /// The names of the features: signal, then statistic (`ax-mean`, `ax-spectrum-peak_hz`, `ax-band-1`,
    /// `ax-jerk-iqr`), then the pairs (`ax-ay-correlation`).
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch {
            values: Vec::with_capacity(self.spectrum.length()),
            burg: BurgScratch::new(self.spectrum.length()),
            fft: self.spectrum.scratch(),
            amplitudes: vec![[0.0]; self.spectrum.bins()],
            means: vec![0.0; self.channels],
        }
    }

    /// Filters a recording's channels and appends the derived signals.
    ///
    /// # Errors
    /// None for channels of one length.
    pub fn prepare(&self, channels: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        self.prepare_from(channels, &mut Memory::default(), 0)
    }

    /// How many samples behind a window its features depend on.
    pub(super) fn ahead(&self) -> usize {
        self.half() + usize::from(self.spec.jerk)
    }

    /// The samples on each side of one that its median takes.
    fn half(&self) -> usize {
        self.spec.median.map_or(0, |length| length / 2)
    }

    /// As [`prepare`](Self::prepare), for samples that follow those that `memory` is of. Afterwards it is of the
    /// samples before number `at`.
    ///
    /// # Errors
    /// The same.
    pub(super) fn prepare_from(&self, channels: &[Vec<f64>], memory: &mut Memory, at: usize) -> Result<Vec<Vec<f64>>> {
        let half = self.half();
        memory.0.resize_with(channels.len(), || OfChannel { before: vec![0.0; half], low_pass: vec![] });
        let mut signals = Vec::with_capacity(channels.len());
        for (channel, memory) in channels.iter().zip(&mut memory.0) {
            let mut signal = channel.clone();
            if let Some(length) = self.spec.median {
                let with_before = [memory.before.as_slice(), channel].concat();
                signal = median(&with_before, length)?.split_off(half);
                memory.before = with_before[at..at + half].to_vec();
            }
            if let Some(filter) = &self.low_pass {
                let (before, after) = signal.as_chunks_mut::<1>().0.split_at_mut(at);
                filter.run_on(&mut memory.low_pass, before);
                filter.run_on(&mut memory.low_pass.clone(), after);
            }
            signals.push(signal);
        }
        if self.spec.jerk {
            let jerks: Vec<_> = signals.iter().map(|s| derivative(s, self.rate_hz)).collect();
            signals.extend(jerks);
        }
        for group in &self.groups {
            for offset in [0, self.channels].into_iter().take(if self.spec.jerk { 2 } else { 1 }) {
                let norm = magnitude(group.iter().map(|c| &signals[offset + c]));
                signals.push(norm);
            }
        }
        Ok(signals)
    }

    /// Writes the features of `start..start + length`, which the caller has checked. Allocates nothing.
    pub(super) fn extract(&self, scratch: &mut Scratch, signals: &[Vec<f64>], start: usize, out: &mut [f32]) {
        let length = self.spectrum.length();
        let mut left = out.iter_mut();
        let mut push = |value: f64| {
            if let Some(place) = left.next() {
                *place = value as f32;
            }
        };
        for (i, signal) in signals.iter().enumerate() {
            let (window, _) = signal[start..start + length].as_chunks::<1>();
            let d = describe(window);
            if let Some(mean) = scratch.means.get_mut(i) {
                *mean = d.mean[0];
            }
            self.in_time(window, &d, scratch, &mut push);
            self.in_frequency(window, scratch, &mut push);
        }
        if self.spec.correlations {
            for j in 1..self.channels {
                for i in 0..j {
                    let of = |c: usize| &signals[c][start..start + length];
                    push(correlation(of(i), of(j), scratch.means[i], scratch.means[j]));
                }
            }
        }
    }

    fn in_time(&self, window: &[[f64; 1]], d: &Description<1>, scratch: &mut Scratch, push: &mut impl FnMut(f64)) {
        let mut shape = None;
        for statistic in &self.spec.statistics {
            match statistic {
                Statistic::Mean => push(d.mean[0]),
                Statistic::Std => push(d.std[0]),
                Statistic::Mad => push(d.mad[0]),
                Statistic::Max => push(d.max[0]),
                Statistic::Min => push(d.min[0]),
                Statistic::Magnitude => push(d.magnitude[0]),
                Statistic::Energy => push(d.energy[0]),
                Statistic::Iqr => push(interquartile_range(window.as_flattened(), &mut scratch.values)),
                Statistic::Entropy => push(histogram_entropy(window.as_flattened(), d.min[0], d.max[0])),
                Statistic::Skewness => push(shape.get_or_insert_with(|| skewness_and_kurtosis(window, &d.mean)).0[0]),
                Statistic::Kurtosis => push(shape.get_or_insert_with(|| skewness_and_kurtosis(window, &d.mean)).1[0]),
                Statistic::Ar => burg(window, &mut scratch.burg).iter().for_each(|a| push(a[0])),
            }
        }
    }

    fn in_frequency(&self, window: &[[f64; 1]], scratch: &mut Scratch, push: &mut impl FnMut(f64)) {
        if self.spec.spectrum.is_empty() && self.spec.bands == 0 {
            return;
        }
        self.spectrum.amplitudes(window, [0], &mut scratch.amplitudes, &mut scratch.fft);
        let spectrum = &scratch.amplitudes[..];
        let d = describe(spectrum);
        let middle = centre(spectrum);
        let (skewness, kurtosis) = skewness_and_kurtosis(spectrum, &d.mean);
        let energy = band_energy(spectrum)[0];
        let bin_hz = self.rate_hz / self.spectrum.length() as f64;
        for statistic in &self.spec.spectrum {
            push(match statistic {
                SpectralStatistic::Max => d.max[0],
                SpectralStatistic::PeakHz => middle.peak[0] * bin_hz,
                SpectralStatistic::MeanHz => middle.mean[0] * bin_hz,
                SpectralStatistic::Std => d.std[0],
                SpectralStatistic::Entropy => power_entropy(spectrum, energy),
                SpectralStatistic::Skewness => skewness[0],
                SpectralStatistic::Kurtosis => kurtosis[0],
                SpectralStatistic::Energy => energy,
            });
        }
        let bands = self.spec.bands;
        for band in 0..bands {
            let (from, to) = (band * spectrum.len() / bands, (band + 1) * spectrum.len() / bands);
            push(band_energy(&spectrum[from..to])[0]);
        }
    }
}

fn group(name: &str, of: &[String], channels: &[String]) -> Result<Vec<usize>> {
    if channels.iter().any(|c| c == name) {
        return Err(Error::config(format!("magnitude {name:?} has the name of a channel; give it another")));
    }
    if of.is_empty() {
        return Err(Error::config(format!("magnitude {name:?} of no channels; name two or more")));
    }
    let number = |channel: &String| {
        channels.iter().position(|c| c == channel).ok_or_else(|| {
            Error::config(format!(
                "magnitude {name:?} of unknown channel {channel:?}; the channels are {}",
                channels.join(", ")
            ))
        })
    };
    of.iter().map(number).collect()
}

fn names(spec: &SummarySpec, channels: &[String]) -> Vec<String> {
    let mut signals = channels.to_vec();
    let jerk = |name: &String| format!("{name}-jerk");
    if spec.jerk {
        signals.extend(channels.iter().map(jerk));
    }
    for group in spec.magnitudes.keys() {
        signals.push(group.clone());
        signals.extend(spec.jerk.then(|| jerk(group)));
    }
    let mut names = Vec::new();
    for signal in &signals {
        for statistic in &spec.statistics {
            match statistic {
                Statistic::Ar => names.extend((1..=AR_ORDER).map(|i| format!("{signal}-ar{i}"))),
                other => names.push(format!("{signal}-{}", snake_case(other))),
            }
        }
        names.extend(spec.spectrum.iter().map(|s| format!("{signal}-spectrum-{}", snake_case(s))));
        names.extend((1..=spec.bands).map(|i| format!("{signal}-band-{i}")));
    }
    if spec.correlations {
        for j in 1..channels.len() {
            names.extend((0..j).map(|i| format!("{}-{}-correlation", channels[i], channels[j])));
        }
    }
    names
}

/// The name of a variant in files, `PeakHz` as `peak_hz`.
fn snake_case(variant: &impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for (i, c) in format!("{variant:?}").char_indices() {
        if c.is_uppercase() && i > 0 {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// The difference to the next sample, per second; 0 at the last one.
fn derivative(x: &[f64], rate_hz: f64) -> Vec<f64> {
    let mut out: Vec<f64> = x.array_windows().map(|[a, b]| (b - a) * rate_hz).collect();
    out.resize(x.len(), 0.0);
    out
}

fn magnitude<'a>(mut signals: impl Iterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let square = |v: &f64| v * v;
    let mut sum: Vec<f64> = signals.next().map(|s| s.iter().map(square).collect()).unwrap_or_default();
    for signal in signals {
        sum.iter_mut().zip(signal).for_each(|(s, v)| *s += v * v);
    }
    sum.iter_mut().for_each(|s| *s = s.sqrt());
    sum
}

/// The entropy in bits of the squared amplitudes divided by their sum.
fn power_entropy(spectrum: &[[f64; 1]], energy: f64) -> f64 {
    if energy <= 0.0 {
        return 0.0;
    }
    let share = spectrum.iter().map(|row| row[0] * row[0] / energy).filter(|p| *p > 0.0);
    share.map(|p| -p * p.log2()).sum()
}
