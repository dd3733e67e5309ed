//! The 561 features of the HAPT data set, from raw accelerations and angular velocities.
//!
//! `features_info.txt` of *Smartphone-Based Recognition of Human Activities and Postural Transitions* (Reyes-Ortiz and
//! others, Neurocomputing 171, 2016) names the features but leaves many definitions open, and sometimes differs from
//! the published features. The following definitions reproduce the published figures.
//!
//! # Signals, over a whole recording at 50 Hz
//! Every filter runs forward and takes samples before the first as 0, so nothing looks ahead further than the median's
//! one sample.
//!
//! | signal | from |
//! |---|---|
//! | acceleration, angular velocity | raw, running median of 3, Butterworth low-pass of order 10 at 20 Hz (`features_info.txt` says order 3) |
//! | `tGravityAcc` | Butterworth low-pass of the acceleration, order 3 at 0.3 Hz |
//! | `tBodyAcc` | acceleration - `tGravityAcc` |
//! | `tBodyGyro` | angular velocity - its own Butterworth low-pass, order 2 at 0.1 Hz |
//! | `tBodyAccJerk`, `tBodyGyroJerk` | next sample - this one, times 50 Hz; 0 at the last sample |
//! | `…Mag` | Euclidean norm of the three axes |
//!
//! # Features of a window of 128 samples
//! - Mean, `STD` (divided by n - 1), `Mad` (mean, not median, absolute deviation), maximum, minimum, `SMA` (mean
//!   absolute value, summed over the axes), energy (mean square), `IQR` (quantile `p` at sorted position `p n - 1/2`),
//!   `ARCoeff` (Burg, order 4, `a1 … a4` in `x[t] = -a1 x[t-1] - …`, mean not subtracted), correlations xy, xz, yz.
//! - `ropy` is the entropy in bits over 256 levels of \[0, 1\], values outside count in the first or last level: what
//!   MATLAB's `entropy` gives for a signal taken as an image. It depends on the unit; jerks are taken per sample, not
//!   per second (divided by 50).
//! - Spectra are amplitudes `2 |X_k| / 128` of bins 1 to 64, without bin 0. `MaxInds` is the bin with the largest
//!   amplitude, `MeanFreq` the mean frequency in Hz weighted with the amplitudes, skewness and kurtosis those of the 64
//!   amplitudes, `BandsEnergyOld` the sum of squares over bins 1-8, 9-16, …, 57-64, then 1-16, …, 49-64, then 1-24 and
//!   25-48, for each axis in turn.
//! - Angles, in radians, lie between the mean vector of a signal, or an axis of the phone, and the mean gravity.
//!
//! # Agreement with the published features
//! On the real recordings, over the 7 767 training windows, the 522 published correlations (29 features with 18) differ
//! by 0.000 000 3 on average and 0.000 000 5 at most, and the published first five rows (19 features, scaled to \[-1,
//! 1\] by the minimum and maximum over all 10 929 windows) by as little: all published figures agree to their six
//! decimals.
//!
//! The published figures do not determine the shift and scale of a feature (the unit of `MeanFreq`, a sum instead of a
//! mean, kurtosis minus 3), and there are none for `SMA` over three axes, `Correlation`, `BandsEnergyOld` and the
//! features of gravity; these follow `features_info.txt` and the definitions above. Of the entropies of spectra, only
//! `fBodyGyroJerkMag-ropy-1` is published. It determines the product of the units of jerk and amplitude; with the jerk
//! per sample, every spectrum has the same factor `2/128`.

use std::ops::Range;

use super::autoregression::{AR_ORDER, BurgScratch, burg};
use super::entropy::LevelEntropy;
use super::filter::{LowPass, State, median_of_three};
use super::quartiles::Quartiles;
use super::spectrum::{Centre, Spectrum, SpectrumScratch, band_energy, centre};
use super::statistics::{Description, angle, correlations, describe, skewness_and_kurtosis};
use crate::error::{Error, Result};
use crate::kernel::isa::vectorised;

/// The channels it takes: acceleration along x, y and z in g, then angular velocity about x, y and z in rad/s.
pub const CHANNELS: usize = 6;
/// Samples in a window.
pub const WINDOW: usize = 128;
/// Samples a second.
pub const RATE_HZ: f64 = 50.0;
/// Features of a window.
pub const DIM: usize = 561;

const BINS: usize = WINDOW / 2;
/// Features of a three-axis signal, and of a magnitude, in time.
const TIME_AXES: usize = 40;
const TIME_MAGNITUDE: usize = 13;
/// Features of a three-axis spectrum, and of a magnitude's.
const FREQUENCY_AXES: usize = 79;
const FREQUENCY_MAGNITUDE: usize = 13;
/// The factor of jerks before their entropy is computed, which makes them per sample.
const JERK_SCALE: f64 = 1.0 / RATE_HZ;
/// Where each group of features starts.
const MAGNITUDES_AT: usize = 5 * TIME_AXES;
const SPECTRA_AT: usize = MAGNITUDES_AT + 5 * TIME_MAGNITUDE;
const MAGNITUDE_SPECTRA_AT: usize = SPECTRA_AT + 3 * FREQUENCY_AXES;
const ANGLES_AT: usize = MAGNITUDE_SPECTRA_AT + 4 * FREQUENCY_MAGNITUDE;

/// The signals in the order of their features.
const SIGNALS: [&str; 5] = ["BodyAcc", "GravityAcc", "BodyAccJerk", "BodyGyro", "BodyGyroJerk"];
const BODY: usize = 0;
const GRAVITY: usize = 1;
const JERK: usize = 2;
const GYRO: usize = 3;
const GYRO_JERK: usize = 4;
/// Signals whose axes have spectra; the magnitude of [`GYRO_JERK`] has one too.
const WITH_SPECTRA: [usize; 3] = [BODY, JERK, GYRO];

/// Three axes and their magnitude.
type Row = [f64; 4];
/// The lanes of two signals together: sums are limited by the latency of additions, so twice as many lanes take no
/// longer.
type Pair = [f64; 8];

/// The names of the 561 features in their order, as in the data set's `features.txt` (in which some names stand for
/// several features).
///
/// ```
/// let names = dacpipe::signal::hapt561::names();
/// assert_eq!(names.len(), 561);
/// assert_eq!((names[0].as_str(), names[560].as_str()), ("tBodyAcc-Mean-1", "tZAxisAcc-AngleWRTGravity-1"));
/// ```
pub fn names() -> Vec<String> {
    let mut names = Vec::with_capacity(DIM);
    for signal in SIGNALS {
        statistic_names(&mut names, &format!("t{signal}"), 3);
        numbered(&mut names, &format!("t{signal}-ARCoeff"), 3 * AR_ORDER);
        numbered(&mut names, &format!("t{signal}-Correlation"), 3);
    }
    for signal in SIGNALS {
        statistic_names(&mut names, &format!("t{signal}Mag"), 1);
        numbered(&mut names, &format!("t{signal}Mag-ARCoeff"), AR_ORDER);
    }
    for signal in WITH_SPECTRA.map(|s| SIGNALS[s]) {
        spectrum_names(&mut names, &format!("f{signal}"), 3);
        numbered(&mut names, &format!("f{signal}-BandsEnergyOld"), 3 * BANDS);
    }
    for signal in [BODY, JERK, GYRO, GYRO_JERK].map(|s| SIGNALS[s]) {
        spectrum_names(&mut names, &format!("f{signal}Mag"), 1);
    }
    let turned = [BODY, JERK, GYRO, GYRO_JERK].map(|s| SIGNALS[s]);
    for of in turned.into_iter().chain(["XAxisAcc", "YAxisAcc", "ZAxisAcc"]) {
        names.push(format!("t{of}-AngleWRTGravity-1"));
    }
    names
}

fn numbered(names: &mut Vec<String>, stem: &str, count: usize) {
    names.extend((1..=count).map(|i| format!("{stem}-{i}")));
}

/// The statistics that signals and spectra have in common. Entropies are not numbered through.
fn statistic_names(names: &mut Vec<String>, signal: &str, axes: usize) {
    for statistic in ["Mean", "STD", "Mad", "Max", "Min"] {
        numbered(names, &format!("{signal}-{statistic}"), axes);
    }
    numbered(names, &format!("{signal}-SMA"), 1);
    numbered(names, &format!("{signal}-Energy"), axes);
    numbered(names, &format!("{signal}-IQR"), axes);
    (0..axes).for_each(|_| names.push(format!("{signal}-ropy-1")));
}

fn spectrum_names(names: &mut Vec<String>, signal: &str, axes: usize) {
    statistic_names(names, signal, axes);
    numbered(names, &format!("{signal}-MaxInds"), axes);
    numbered(names, &format!("{signal}-MeanFreq"), axes);
    for _ in 0..axes {
        names.extend([format!("{signal}-Skewness-1"), format!("{signal}-Kurtosis-1")]);
    }
}

/// The filters and the plan of the transform.
#[derive(Debug, Clone)]
pub struct Hapt561 {
    noise: LowPass,
    gravity: LowPass,
    drift: LowPass,
    spectrum: Spectrum,
}

/// The five signals of a recording, filtered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signals {
    /// Body acceleration and angular velocity.
    motion: Vec<Pair>,
    /// Their derivatives.
    jerk: Vec<Pair>,
    gravity: Vec<Row>,
}

impl Signals {
    /// Samples in the recording.
    pub fn samples(&self) -> usize {
        self.motion.len()
    }
}

/// How many samples behind a window its features depend on: one for the median, one more for the derivative.
pub(super) const AHEAD: usize = 2;

/// What the filters keep of the samples before a place in a recording: with it, the recording goes on there with the
/// same bits.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Memory {
    /// The last sample of each channel.
    last: [f64; CHANNELS],
    noise: State<8>,
    drift: State<4>,
    gravity: State<4>,
}

/// The buffers of one thread.
#[derive(Debug, Clone)]
pub struct Scratch {
    quartiles: Quartiles,
    spectral_quartiles: Quartiles,
    entropy: LevelEntropy,
    burg: BurgScratch<8>,
    gravity_burg: BurgScratch<4>,
    fft: SpectrumScratch,
    motion: Vec<Pair>,
    /// Lanes without a spectrum are never written.
    jerk: Vec<Pair>,
}

impl Hapt561 {
    /// Designs the filters.
    ///
    /// # Errors
    /// None with the constants of this module.
    pub fn new() -> Result<Self> {
        Ok(Self {
            noise: LowPass::butterworth(10, 20.0, RATE_HZ)?,
            gravity: LowPass::butterworth(3, 0.3, RATE_HZ)?,
            drift: LowPass::butterworth(2, 0.1, RATE_HZ)?,
            spectrum: Spectrum::new(WINDOW),
        })
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        Scratch {
            quartiles: Quartiles::new(WINDOW, 8),
            spectral_quartiles: Quartiles::new(BINS, 8),
            entropy: LevelEntropy::new(WINDOW, 8),
            burg: BurgScratch::new(WINDOW),
            gravity_burg: BurgScratch::new(WINDOW),
            fft: self.spectrum.scratch(),
            motion: vec![[0.0; 8]; BINS],
            jerk: vec![[0.0; 8]; BINS],
        }
    }

    /// Filters a whole recording, given as [`CHANNELS`] channels of the same length, into `signals`, whose buffers are
    /// reused. Time and memory `O(samples)`: 160 bytes per sample.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error for another number of channels or lengths that differ; `signals` stay
    /// as they were.
    pub fn prepare(&self, channels: &[Vec<f64>], signals: &mut Signals) -> Result<()> {
        self.prepare_from(channels, &mut Memory::default(), 0, signals)
    }

    /// As [`prepare`](Self::prepare), for samples that follow those that `memory` is of. Afterwards it is of the
    /// samples before number `at`.
    ///
    /// # Errors
    /// The same; `memory` stays as it was.
    pub(super) fn prepare_from(
        &self,
        channels: &[Vec<f64>],
        memory: &mut Memory,
        at: usize,
        signals: &mut Signals,
    ) -> Result<()> {
        let [ax, ay, az, gx, gy, gz] = channels else {
            return Err(Error::input(format!("{} channels; the 561 features need {CHANNELS}", channels.len())));
        };
        if channels.iter().any(|c| c.len() != ax.len()) {
            return Err(Error::input("channels of different lengths"));
        }
        despike(memory.last, [ax, ay, az, gx, gy, gz], &mut signals.motion);
        filter(self, signals, memory, at);
        if let Some(before) = at.checked_sub(1) {
            memory.last = std::array::from_fn(|channel| channels[channel][before]);
        }
        Ok(())
    }

    /// Writes the features of the window that starts at sample `start` into `out`. Allocates nothing.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error when the window reaches past the recording, and a
    /// [`Kind::Internal`](crate::Kind::Internal) one when `out` does not have [`DIM`] places.
    pub fn extract(&self, scratch: &mut Scratch, signals: &Signals, start: usize, out: &mut [f32]) -> Result<()> {
        super::features::check_window(signals.samples(), start, WINDOW, out.len(), DIM)?;
        features(self, scratch, signals, start, out);
        Ok(())
    }
}

vectorised! {
    /// All features of the window that starts at sample `start`.
    fn features(hapt: &Hapt561, scratch: &mut Scratch, signals: &Signals, start: usize, out: &mut [f32]) {
        let Scratch { quartiles, spectral_quartiles, entropy, burg, gravity_burg, fft, motion: motion_spectrum, jerk: jerk_spectrum } = scratch;
        let window = start..start + WINDOW;
        let (motion, jerk) = (&signals.motion[window.clone()], &signals.jerk[window.clone()]);
        let mut places = Places(&mut *out);
        let mut means = [[0.0; 3]; 5];

        let found = InTime::of(motion, 1.0, quartiles, entropy, burg);
        places.in_time(BODY, &found, 0, &mut means);
        places.in_time(GYRO, &found, 4, &mut means);
        let found = InTime::of(jerk, JERK_SCALE, quartiles, entropy, burg);
        places.in_time(JERK, &found, 0, &mut means);
        places.in_time(GYRO_JERK, &found, 4, &mut means);
        let found = InTime::of(&signals.gravity[window], 1.0, quartiles, entropy, gravity_burg);
        places.in_time(GRAVITY, &found, 0, &mut means);

        hapt.spectrum.amplitudes(motion, 0..8, motion_spectrum, fft);
        let found = InFrequency::of(motion_spectrum, 1.0, spectral_quartiles, entropy);
        places.in_frequency(BODY, &found, 0);
        places.in_frequency(GYRO, &found, 4);
        // Of the angular velocity's jerk, only the magnitude has a spectrum.
        hapt.spectrum.amplitudes(jerk, [0, 1, 2, 3, 7], jerk_spectrum, fft);
        let found = InFrequency::of(jerk_spectrum, JERK_SCALE, spectral_quartiles, entropy);
        places.in_frequency(JERK, &found, 0);
        places.in_frequency(GYRO_JERK, &found, 4);

        angles(&means, &mut out[ANGLES_AT..]);
    }
}

/// The running median of each axis, side by side, with lanes for the magnitudes.
fn despike(before: [f64; 6], axes: [&Vec<f64>; 6], rows: &mut Vec<Pair>) {
    let [ax, ay, az, gx, gy, gz] = std::array::from_fn(|axis| median_of_three(before[axis], axes[axis]));
    rows.clear();
    let acceleration = ax.zip(ay).zip(az);
    let velocity = gx.zip(gy).zip(gz);
    rows.extend(acceleration.zip(velocity).map(|(((ax, ay), az), ((gx, gy), gz))| [ax, ay, az, 0.0, gx, gy, gz, 0.0]));
}

vectorised! {
    /// Computes the five signals from the two despiked ones.
    fn filter(hapt: &Hapt561, signals: &mut Signals, memory: &mut Memory, at: usize) {
        let Signals { motion, jerk, gravity } = signals;
        run(&hapt.noise, &mut memory.noise, at, motion);
        // Gravity's lanes hold the drift until gravity is computed.
        subtract(motion, 4, &hapt.drift, &mut memory.drift, at, gravity);
        subtract(motion, 0, &hapt.gravity, &mut memory.gravity, at, gravity);
        derivative(motion, jerk);
        motion.iter_mut().for_each(magnitudes);
        jerk.iter_mut().for_each(magnitudes);
        gravity.iter_mut().for_each(magnitudes);
    }
}

/// Low-passes `rows`, from `state` on; `state` is then the one before row `at`.
#[inline(always)]
fn run<const L: usize>(low_pass: &LowPass, state: &mut State<L>, at: usize, rows: &mut [[f64; L]]) {
    let (before, after) = rows.split_at_mut(at);
    low_pass.run_on(state, before);
    low_pass.run_on(&mut state.clone(), after);
}

/// Low-passes the four lanes from `lane` on into `slow`, and subtracts that from them.
#[inline(always)]
fn subtract(rows: &mut [Pair], lane: usize, low_pass: &LowPass, state: &mut State<4>, at: usize, slow: &mut Vec<Row>) {
    slow.clear();
    slow.extend(rows.iter().map(|row| -> Row { std::array::from_fn(|l| row[lane + l]) }));
    run(low_pass, state, at, slow);
    for (row, slow) in rows.iter_mut().zip(slow) {
        row[lane..lane + 4].iter_mut().zip(slow).for_each(|(v, slow)| *v -= *slow);
    }
}

/// The norm of each signal's three axes.
#[inline(always)]
fn magnitudes<const L: usize>(row: &mut [f64; L]) {
    for signal in row.as_chunks_mut::<4>().0 {
        signal[3] = (signal[0] * signal[0] + signal[1] * signal[1] + signal[2] * signal[2]).sqrt();
    }
}

#[inline(always)]
fn derivative(x: &[Pair], out: &mut Vec<Pair>) {
    let step = |w: &[Pair; 2]| std::array::from_fn(|l| (w[1][l] - w[0][l]) * RATE_HZ);
    out.clear();
    out.extend(x.array_windows().map(step));
    out.resize(x.len(), [0.0; 8]);
}

/// The statistics of a window of signals of four lanes each.
struct InTime<const L: usize> {
    common: Common<L>,
    autoregression: [[f64; L]; AR_ORDER],
    correlations: [f64; L],
}

impl<const L: usize> InTime<L> {
    #[inline(always)]
    fn of(
        window: &[[f64; L]],
        scale: f64,
        quartiles: &mut Quartiles,
        entropy: &mut LevelEntropy,
        scratch: &mut BurgScratch<L>,
    ) -> Self {
        let common = Common::of(window, scale, quartiles, entropy);
        let correlations = correlations(window, &common.description.mean);
        Self { common, autoregression: burg(window, scratch), correlations }
    }
}

/// The statistics of a spectrum of signals of four lanes each.
struct InFrequency<'a> {
    spectrum: &'a [Pair],
    common: Common<8>,
    centre: Centre<8>,
    skewness: Pair,
    kurtosis: Pair,
}

impl<'a> InFrequency<'a> {
    #[inline(always)]
    fn of(spectrum: &'a [Pair], scale: f64, quartiles: &mut Quartiles, entropy: &mut LevelEntropy) -> Self {
        let common = Common::of(spectrum, scale, quartiles, entropy);
        let (skewness, kurtosis) = skewness_and_kurtosis(spectrum, &common.description.mean);
        Self { spectrum, common, centre: centre(spectrum), skewness, kurtosis }
    }
}

/// What windows and spectra have in common.
struct Common<const L: usize> {
    description: Description<L>,
    range: [f64; L],
    entropy: [f64; L],
}

impl<const L: usize> Common<L> {
    /// Values are multiplied by `scale` before their entropy is computed.
    #[inline(always)]
    fn of(x: &[[f64; L]], scale: f64, quartiles: &mut Quartiles, entropy: &mut LevelEntropy) -> Self {
        let description = describe(x);
        let range = quartiles.ranges(x);
        Self { description, range, entropy: entropy.of(x, scale) }
    }
}

/// The angles between mean vectors, or axes, and gravity (7 features).
fn angles(means: &[[f64; 3]; 5], out: &mut [f32]) {
    const AXES: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let turned = [BODY, JERK, GYRO, GYRO_JERK].map(|s| &means[s]);
    let mut to = Writer { left: out.iter_mut() };
    to.all(turned.into_iter().chain(&AXES).map(|v| angle(v, &means[GRAVITY])));
    to.done();
}

/// Energies of an axis' spectrum over 8 bands of 8 bins, 4 of 16, 2 of 24.
const BANDS: usize = 14;

/// The positions of the features of each signal.
struct Places<'a>(&'a mut [f32]);

impl Places<'_> {
    fn at(&mut self, start: usize, count: usize) -> Writer<'_> {
        Writer { left: self.0[start..start + count].iter_mut() }
    }

    /// The axes (40 features) and the magnitude (13) of the signal whose lanes start at `lane`; and its means.
    #[inline(always)]
    fn in_time<const L: usize>(&mut self, signal: usize, found: &InTime<L>, lane: usize, means: &mut [[f64; 3]; 5]) {
        let (axes, magnitude) = (lane..lane + 3, lane + 3);
        let mut to = self.at(signal * TIME_AXES, TIME_AXES);
        to.common(&found.common, axes.clone());
        for axis in axes.clone() {
            to.all(found.autoregression.iter().map(|a| a[axis]));
        }
        to.all(found.correlations[axes.clone()].iter().copied());
        to.done();
        let mut to = self.at(MAGNITUDES_AT + signal * TIME_MAGNITUDE, TIME_MAGNITUDE);
        to.common(&found.common, magnitude..magnitude + 1);
        to.all(found.autoregression.iter().map(|a| a[magnitude]));
        to.done();
        means[signal].copy_from_slice(&found.common.description.mean[axes]);
    }

    /// The spectra of the axes (79 features), where they are [`WITH_SPECTRA`], and of the magnitude (13).
    #[inline(always)]
    fn in_frequency(&mut self, signal: usize, found: &InFrequency<'_>, lane: usize) {
        let place = WITH_SPECTRA.iter().position(|&with| with == signal);
        if let Some(place) = place {
            let mut to = self.at(SPECTRA_AT + place * FREQUENCY_AXES, FREQUENCY_AXES);
            to.frequency(found, lane..lane + 3);
            to.bands(found.spectrum, lane..lane + 3);
            to.done();
        }
        let place = place.unwrap_or(WITH_SPECTRA.len());
        let mut to = self.at(MAGNITUDE_SPECTRA_AT + place * FREQUENCY_MAGNITUDE, FREQUENCY_MAGNITUDE);
        to.frequency(found, lane + 3..lane + 4);
        to.done();
    }
}

/// Writes features one after the other.
struct Writer<'a> {
    left: std::slice::IterMut<'a, f32>,
}

impl Writer<'_> {
    fn all(&mut self, values: impl IntoIterator<Item = f64>) {
        for value in values {
            if let Some(place) = self.left.next() {
                *place = value as f32;
            }
        }
    }

    fn done(self) {
        debug_assert_eq!(self.left.len(), 0, "features left unwritten");
    }

    fn common<const L: usize>(&mut self, found: &Common<L>, lanes: Range<usize>) {
        let d = &found.description;
        for statistic in [&d.mean, &d.std, &d.mad, &d.max, &d.min] {
            self.all(statistic[lanes.clone()].iter().copied());
        }
        self.all([d.magnitude[lanes.clone()].iter().sum()]);
        for statistic in [&d.energy, &found.range, &found.entropy] {
            self.all(statistic[lanes.clone()].iter().copied());
        }
    }

    fn frequency(&mut self, found: &InFrequency<'_>, lanes: Range<usize>) {
        self.common(&found.common, lanes.clone());
        self.all(found.centre.peak[lanes.clone()].iter().copied());
        self.all(found.centre.mean[lanes.clone()].iter().map(|bin| bin * RATE_HZ / WINDOW as f64));
        for lane in lanes {
            self.all([found.skewness[lane], found.kurtosis[lane]]);
        }
    }

    fn bands(&mut self, spectrum: &[Pair], lanes: Range<usize>) {
        let mut eighths = [[0.0; 8]; 8];
        for (energy, bins) in eighths.iter_mut().zip(spectrum.chunks_exact(BINS / 8)) {
            *energy = band_energy(bins);
        }
        for axis in lanes {
            let sum = |from: usize, count: usize| eighths[from..from + count].iter().map(|e| e[axis]).sum::<f64>();
            self.all((0..8).map(|i| eighths[i][axis]));
            self.all((0..4).map(|i| sum(2 * i, 2)));
            self.all((0..2).map(|i| sum(3 * i, 3)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_published_groups() {
        let names = names();
        assert_eq!(names.len(), DIM);
        let at = |i: usize| names[i].as_str();
        assert_eq!(at(TIME_AXES), "tGravityAcc-Mean-1");
        assert_eq!(at(TIME_AXES - 1), "tBodyAcc-Correlation-3");
        assert_eq!(at(MAGNITUDES_AT), "tBodyAccMag-Mean-1");
        assert_eq!(at(SPECTRA_AT), "fBodyAcc-Mean-1");
        assert_eq!(at(SPECTRA_AT + FREQUENCY_AXES - 1), "fBodyAcc-BandsEnergyOld-42");
        assert_eq!(at(MAGNITUDE_SPECTRA_AT - 1 + FREQUENCY_MAGNITUDE), "fBodyAccMag-Kurtosis-1");
        assert_eq!(at(ANGLES_AT), "tBodyAcc-AngleWRTGravity-1");
    }

    fn prepared(channels: &[Vec<f64>]) -> Result<Signals> {
        let mut signals = Signals::default();
        Hapt561::new()?.prepare(channels, &mut signals).map(|()| signals)
    }

    #[test]
    fn room_used_again_changes_nothing() {
        let channels =
            |n: usize| (0..6).map(|c| (0..n).map(|i| ((i * (c + 2)) as f64).sin()).collect()).collect::<Vec<_>>();
        let mut signals = prepared(&channels(900)).unwrap();
        Hapt561::new().unwrap().prepare(&channels(300), &mut signals).unwrap();
        assert_eq!(signals, prepared(&channels(300)).unwrap());
    }

    #[test]
    fn recordings_that_do_not_fit_are_refused() {
        let hapt = Hapt561::new().unwrap();
        assert!(prepared(&vec![vec![0.0; 200]; 5]).unwrap_err().message().contains("5 channels"));
        let mut channels = vec![vec![0.0; 200]; 6];
        channels[4].pop();
        assert!(prepared(&channels).unwrap_err().message().contains("different lengths"));
        let signals = prepared(&vec![vec![0.0; 200]; 6]).unwrap();
        let mut out = vec![0.0; DIM];
        assert!(hapt.extract(&mut hapt.scratch(), &signals, 73, &mut out).is_err());
        assert!(hapt.extract(&mut hapt.scratch(), &signals, usize::MAX, &mut out).is_err());
        assert!(hapt.extract(&mut hapt.scratch(), &signals, 0, &mut out[1..]).is_err());
        assert!(hapt.extract(&mut hapt.scratch(), &signals, 72, &mut out).is_ok());
    }

    #[test]
    fn silence_and_an_empty_recording_give_numbers() {
        let hapt = Hapt561::new().unwrap();
        assert_eq!(prepared(&vec![vec![]; 6]).unwrap().samples(), 0);
        let signals = prepared(&vec![vec![0.0; 128]; 6]).unwrap();
        let mut out = vec![f32::NAN; DIM];
        hapt.extract(&mut hapt.scratch(), &signals, 0, &mut out).unwrap();
        assert!(out.iter().all(|v| v.is_finite()));
    }
}
