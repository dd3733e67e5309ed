//! The 561 features of the HAPT data set, from raw accelerations and angular velocities.
//!
//! `features_info.txt` of *Smartphone-Based Recognition of Human Activities and Postural Transitions* (Reyes-Ortiz and
//! others, Neurocomputing 171, 2016) names the features but leaves many definitions open, and in places differs from
//! what was published. What follows is what reproduces the published figures.
//!
//! # Signals, over a whole recording at 50 Hz
//! Every filter runs forward from silence, so nothing looks ahead further than the median's one sample.
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
//!   `ARCoeff` (Burg, order 4, `a1 … a4` in `x[t] = -a1 x[t-1] - …`, mean not taken away), correlations xy, xz, yz.
//! - `ropy` is the entropy in bits over 256 levels of \[0, 1\], values outside going to the first or last level: what
//!   MATLAB's `entropy` gives for a signal taken for an image. It depends on the unit. Jerks enter it per sample
//!   rather than per second (divided by 50).
//! - Spectra are amplitudes `2 |X_k| / 128` of bins 1 to 64, without bin 0. `MaxInds` is the bin with the largest
//!   amplitude, `MeanFreq` the mean frequency in Hz weighted with the amplitudes, skewness and kurtosis those of the 64
//!   amplitudes, `BandsEnergyOld` the sum of squares over bins 1-8, 9-16, …, 57-64, then 1-16, …, 49-64, then 1-24 and
//!   25-48, for each axis in turn.
//! - Angles, in radians, lie between the mean vector of a signal, or an axis of the phone, and the mean gravity.
//!
//! # Agreement with the published features
//! On the real recordings, over the 7 767 training windows, the 522 published correlations (29 features with 18) differ
//! by 0.000 000 3 on average and 0.000 000 5 at most, and the published first five rows (19 features, scaled to
//! \[-1, 1\] by the minimum and maximum over all 10 929 windows) by as little: the published figures have six decimals,
//! and every one of them is met. No feature differs among those for which figures are published.
//!
//! The published figures cannot tell apart what only shifts or stretches a feature (the unit of `MeanFreq`, a sum
//! instead of a mean, kurtosis less 3), and there are none for `SMA` over three axes, `Correlation`, `BandsEnergyOld`
//! and the features of gravity; these follow `features_info.txt` and the definitions above. Of the entropies of
//! spectra one is published, `fBodyGyroJerkMag-ropy-1`: it fixes the product of the jerk's unit and the amplitude's,
//! and that the jerk is the one per sample is the reading under which every spectrum has the same `2/128`.

use super::filter::{LowPass, median_of_three};
use super::spectrum::{Spectrum, SpectrumScratch, band_energy, centre};
use super::statistics::{
    AR_ORDER, BurgScratch, Description, LevelEntropy, Quartiles, angle, burg, correlations, describe,
    skewness_and_kurtosis,
};
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

/// The names of the 561 features in their order, as in the data set's `features.txt` (some of which stand for several
/// features each).
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

/// The five signals of a recording, filtered: rows of three axes and their magnitude.
#[derive(Debug, Clone, Default)]
pub struct Signals([Vec<Row>; 5]);

impl Signals {
    /// Samples in the recording.
    pub fn samples(&self) -> usize {
        self.0[0].len()
    }
}

/// The buffers of one thread.
#[derive(Debug, Clone)]
pub struct Scratch {
    quartiles: Quartiles,
    burg: BurgScratch<4>,
    entropy: LevelEntropy,
    fft: SpectrumScratch,
    spectrum: Vec<Row>,
    magnitude: Vec<[f64; 1]>,
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
            quartiles: Quartiles::new(WINDOW, 4),
            burg: BurgScratch::new(WINDOW),
            entropy: LevelEntropy::new(WINDOW, 4),
            fft: self.spectrum.scratch(),
            spectrum: vec![[0.0; 4]; BINS],
            magnitude: vec![[0.0]; BINS],
        }
    }

    /// Filters a whole recording, given as [`CHANNELS`] channels of the same length, into `signals`, whose room is used
    /// again. Time and memory `O(samples)`: 160 bytes a sample.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error for another number of channels or lengths that differ; `signals` stay
    /// as they were.
    pub fn prepare(&self, channels: &[Vec<f64>], signals: &mut Signals) -> Result<()> {
        let [ax, ay, az, gx, gy, gz] = channels else {
            return Err(Error::input(format!("{} channels; the 561 features need {CHANNELS}", channels.len())));
        };
        if channels.iter().any(|c| c.len() != ax.len()) {
            return Err(Error::input("channels of different lengths"));
        }
        let [body, gravity, jerk, gyro, gyro_jerk] = &mut signals.0;
        despike([ax, ay, az], body);
        despike([gx, gy, gz], gyro);
        filter(self, [body, gravity, jerk, gyro, gyro_jerk]);
        Ok(())
    }

    /// Writes the features of the window that starts at sample `start` into `out`. Allocates nothing.
    ///
    /// # Errors
    /// A [`Kind::Input`](crate::Kind::Input) error when the window reaches past the recording, and a
    /// [`Kind::Internal`](crate::Kind::Internal) one when `out` does not have [`DIM`] places.
    pub fn extract(&self, scratch: &mut Scratch, signals: &Signals, start: usize, out: &mut [f32]) -> Result<()> {
        super::features::check_window(signals.samples(), start, WINDOW, out.len(), DIM)?;
        let windows: [&[Row]; 5] = std::array::from_fn(|i| &signals.0[i][start..start + WINDOW]);
        features(self, scratch, &windows, out);
        Ok(())
    }

    /// Spectra of the axes (79 features) and of the magnitude (13).
    #[inline(always)]
    fn frequency_features(&self, window: &[Row], scale: f64, s: &mut Scratch, axes: &mut [f32], magnitude: &mut [f32]) {
        self.spectrum.amplitudes(window, &mut s.spectrum, &mut s.fft);
        let spectrum = &s.spectrum[..];
        let d = describe(spectrum);
        let (range, entropy) = ranges_and_entropies(spectrum, &d, scale, &mut s.quartiles, &mut s.entropy);
        let shape = Shape::of(spectrum, &d);
        let mut to = Writer::new(axes);
        to.statistics(&d, &range, &entropy, 0..3);
        to.shape(&shape, 0..3);
        to.bands(spectrum);
        to.done();
        let mut to = Writer::new(magnitude);
        to.statistics(&d, &range, &entropy, 3..4);
        to.shape(&shape, 3..4);
        to.done();
    }

    /// The spectrum of a magnitude alone (13 features).
    #[inline(always)]
    fn magnitude_frequency_features(&self, window: &[Row], s: &mut Scratch, out: &mut [f32]) {
        self.spectrum.amplitudes(window, &mut s.magnitude, &mut s.fft);
        let spectrum = &s.magnitude[..];
        let d = describe(spectrum);
        let (range, entropy) =
            ranges_and_entropies(spectrum, &d, entropy_scale(GYRO_JERK), &mut s.quartiles, &mut s.entropy);
        let mut to = Writer::new(out);
        to.statistics(&d, &range, &entropy, 0..1);
        to.shape(&Shape::of(spectrum, &d), 0..1);
        to.done();
    }
}

/// What a signal is multiplied with before its entropy is taken: jerks count per sample.
fn entropy_scale(signal: usize) -> f64 {
    if signal == JERK || signal == GYRO_JERK { 1.0 / RATE_HZ } else { 1.0 }
}

vectorised! {
    /// All features of one window of each signal.
    fn features(hapt: &Hapt561, scratch: &mut Scratch, windows: &[&[Row]; 5], out: &mut [f32]) {
        let mut means = [[0.0; 3]; 5];
        for (signal, window) in windows.iter().enumerate() {
            let (before, magnitudes) = out.split_at_mut(MAGNITUDES_AT);
            let axes = &mut before[signal * TIME_AXES..][..TIME_AXES];
            let magnitude = &mut magnitudes[signal * TIME_MAGNITUDE..][..TIME_MAGNITUDE];
            let [x, y, z, _] = time_features(window, entropy_scale(signal), scratch, axes, magnitude);
            means[signal] = [x, y, z];
        }
        let (before, magnitudes) = out[..ANGLES_AT].split_at_mut(MAGNITUDE_SPECTRA_AT);
        for (i, signal) in WITH_SPECTRA.into_iter().enumerate() {
            let axes = &mut before[SPECTRA_AT + i * FREQUENCY_AXES..][..FREQUENCY_AXES];
            let magnitude = &mut magnitudes[i * FREQUENCY_MAGNITUDE..][..FREQUENCY_MAGNITUDE];
            hapt.frequency_features(windows[signal], entropy_scale(signal), scratch, axes, magnitude);
        }
        let last = &mut magnitudes[WITH_SPECTRA.len() * FREQUENCY_MAGNITUDE..];
        hapt.magnitude_frequency_features(windows[GYRO_JERK], scratch, last);
        angles(&means, &mut out[ANGLES_AT..]);
    }
}

/// The running median of each axis, side by side.
fn despike(axes: [&Vec<f64>; 3], rows: &mut Vec<Row>) {
    let [x, y, z] = axes.map(|axis| median_of_three(axis));
    rows.clear();
    rows.extend(x.zip(y).zip(z).map(|((x, y), z)| [x, y, z, 0.0]));
}

vectorised! {
    /// Makes the five signals of the two without spikes.
    fn filter(hapt: &Hapt561, signals: [&mut Vec<Row>; 5]) {
        let [body, gravity, jerk, gyro, gyro_jerk] = signals;
        hapt.noise.run(body);
        gravity.clone_from(body);
        hapt.gravity.run(gravity);
        subtract(body, gravity);
        hapt.noise.run(gyro);
        // The drift's place until its derivative takes it.
        let drift = &mut *gyro_jerk;
        drift.clone_from(gyro);
        hapt.drift.run(drift);
        subtract(gyro, drift);
        derivative(body, jerk);
        derivative(gyro, gyro_jerk);
        for row in [body, gravity, jerk, gyro, gyro_jerk].into_iter().flatten() {
            row[3] = (row[0] * row[0] + row[1] * row[1] + row[2] * row[2]).sqrt();
        }
    }
}

#[inline(always)]
fn subtract(from: &mut [Row], part: &[Row]) {
    for (row, part) in from.iter_mut().zip(part) {
        for (v, p) in row.iter_mut().zip(part) {
            *v -= p;
        }
    }
}

#[inline(always)]
fn derivative(x: &[Row], out: &mut Vec<Row>) {
    let step = |w: &[Row; 2]| std::array::from_fn(|l| (w[1][l] - w[0][l]) * RATE_HZ);
    out.clear();
    out.extend(x.array_windows().map(step));
    out.resize(x.len(), [0.0; 4]);
}

/// Writes the features in time of the axes (40) and of the magnitude (13), and gives the means.
#[inline(always)]
fn time_features(window: &[Row], scale: f64, s: &mut Scratch, axes: &mut [f32], magnitude: &mut [f32]) -> Row {
    let d = describe(window);
    let (range, entropy) = ranges_and_entropies(window, &d, scale, &mut s.quartiles, &mut s.entropy);
    let autoregression = burg(window, &mut s.burg);
    let mut to = Writer::new(axes);
    to.statistics(&d, &range, &entropy, 0..3);
    for axis in 0..3 {
        to.all(autoregression.iter().map(|a| a[axis]));
    }
    to.all(correlations(window, &d.mean));
    to.done();
    let mut to = Writer::new(magnitude);
    to.statistics(&d, &range, &entropy, 3..4);
    to.all(autoregression.iter().map(|a| a[3]));
    to.done();
    d.mean
}

#[inline(always)]
fn ranges_and_entropies<const L: usize>(
    x: &[[f64; L]],
    d: &Description<L>,
    scale: f64,
    quartiles: &mut Quartiles,
    levels: &mut LevelEntropy,
) -> ([f64; L], [f64; L]) {
    (quartiles.ranges(x, &d.min, &d.max), levels.of(x, scale))
}

/// The angles between mean vectors, or axes, and gravity (7 features).
fn angles(means: &[[f64; 3]; 5], out: &mut [f32]) {
    const AXES: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let turned = [BODY, JERK, GYRO, GYRO_JERK].map(|s| &means[s]);
    let mut to = Writer::new(out);
    to.all(turned.into_iter().chain(&AXES).map(|v| angle(v, &means[GRAVITY])));
    to.done();
}

/// What only spectra have.
struct Shape<const L: usize> {
    peak: [f64; L],
    mean_hz: [f64; L],
    skewness: [f64; L],
    kurtosis: [f64; L],
}

impl<const L: usize> Shape<L> {
    #[inline(always)]
    fn of(spectrum: &[[f64; L]], d: &Description<L>) -> Self {
        let centre = centre(spectrum);
        let (skewness, kurtosis) = skewness_and_kurtosis(spectrum, &d.mean);
        let mean_hz = centre.mean.map(|bin| bin * RATE_HZ / WINDOW as f64);
        Self { peak: centre.peak, mean_hz, skewness, kurtosis }
    }
}

/// Energies of an axis' spectrum over 8 bands of 8 bins, 4 of 16, 2 of 24.
const BANDS: usize = 14;

/// Writes features one after the other.
struct Writer<'a> {
    left: std::slice::IterMut<'a, f32>,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut [f32]) -> Self {
        Self { left: out.iter_mut() }
    }

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

    fn statistics<const L: usize>(
        &mut self,
        d: &Description<L>,
        range: &[f64; L],
        entropy: &[f64; L],
        lanes: std::ops::Range<usize>,
    ) {
        for statistic in [&d.mean, &d.std, &d.mad, &d.max, &d.min] {
            self.all(statistic[lanes.clone()].iter().copied());
        }
        self.all([d.magnitude[lanes.clone()].iter().sum()]);
        for statistic in [&d.energy, range, entropy] {
            self.all(statistic[lanes.clone()].iter().copied());
        }
    }

    fn shape<const L: usize>(&mut self, shape: &Shape<L>, lanes: std::ops::Range<usize>) {
        self.all(shape.peak[lanes.clone()].iter().copied());
        self.all(shape.mean_hz[lanes.clone()].iter().copied());
        for lane in lanes {
            self.all([shape.skewness[lane], shape.kurtosis[lane]]);
        }
    }

    fn bands(&mut self, spectrum: &[Row]) {
        let mut eighths = [[0.0; 4]; 8];
        for (energy, bins) in eighths.iter_mut().zip(spectrum.chunks_exact(BINS / 8)) {
            *energy = band_energy(bins);
        }
        for axis in 0..3 {
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
        assert_eq!(signals.0, prepared(&channels(300)).unwrap().0);
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
