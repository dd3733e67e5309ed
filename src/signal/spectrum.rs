//! Amplitude spectra of windows, and their statistics.

// Lanes are indexed, as in `statistics`.
#![allow(clippy::needless_range_loop)]

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::fmt;
use std::sync::Arc;

/// The plan of a real FFT for windows of one length, shared by all threads.
#[derive(Clone)]
pub struct Spectrum {
    plan: Arc<dyn RealToComplex<f64>>,
}

impl fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spectrum").field("length", &self.length()).finish()
    }
}

/// The buffers of one thread for a [`Spectrum`].
#[derive(Debug, Clone)]
pub struct SpectrumScratch {
    input: Vec<f64>,
    output: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl Spectrum {
    /// Plans the transform of windows of `length` samples, of any length.
    pub fn new(length: usize) -> Self {
        Self { plan: RealFftPlanner::new().plan_fft_forward(length.max(1)) }
    }

    /// Samples in a window.
    pub fn length(&self) -> usize {
        self.plan.len()
    }

    /// Bins of a spectrum: 1 to half the length. Bin `k` is `k · rate / length` Hz; the mean of the signal (bin 0) is
    /// left out.
    pub fn bins(&self) -> usize {
        self.length() / 2
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> SpectrumScratch {
        SpectrumScratch {
            input: self.plan.make_input_vec(),
            output: self.plan.make_output_vec(),
            scratch: self.plan.make_scratch_vec(),
        }
    }

    /// Writes the amplitudes `2 |X_k| / n` of bins 1 to `n/2` of some `lanes` of `window` into those of `out`, one row a
    /// bin; other lanes of `out` stay as they are. A sine of amplitude 1 at the frequency of a bin (other than the last,
    /// at half the rate) has amplitude 1 there. Time `O(lanes n log n)`.
    ///
    /// # Panics
    /// When `window` does not have [`length`](Self::length) rows or `out` [`bins`](Self::bins), or a lane is not there.
    ///
    /// ```
    /// use dacpipe::signal::spectrum::Spectrum;
    /// let wave: Vec<[f64; 1]> = (0..64).map(|i| [(i as f64 * std::f64::consts::TAU * 5.0 / 64.0).sin() + 3.0]).collect();
    /// let spectrum = Spectrum::new(64);
    /// let mut out = vec![[0.0]; spectrum.bins()];
    /// spectrum.amplitudes(&wave, [0], &mut out, &mut spectrum.scratch());
    /// assert!((out[4][0] - 1.0).abs() < 1e-12 && out[5][0] < 1e-12);
    /// ```
    #[inline(always)]
    pub fn amplitudes<const L: usize>(
        &self,
        window: &[[f64; L]],
        lanes: impl IntoIterator<Item = usize>,
        out: &mut [[f64; L]],
        buffers: &mut SpectrumScratch,
    ) {
        assert_eq!((window.len(), out.len()), (self.length(), self.bins()), "a window of another length");
        let SpectrumScratch { input, output, scratch } = buffers;
        let scale = 2.0 / self.length() as f64;
        for l in lanes {
            for (to, row) in input.iter_mut().zip(window) {
                *to = row[l];
            }
            self.plan.process_with_scratch(input, output, scratch).expect("buffers made by this plan");
            for (to, bin) in out.iter_mut().zip(&output[1..]) {
                to[l] = (bin.re * bin.re + bin.im * bin.im).sqrt() * scale;
            }
        }
    }
}

/// The peak and the mean of each lane's spectrum, in bins counted from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Centre<const L: usize> {
    /// The bin of the largest amplitude; on a tie, the lowest.
    pub peak: [f64; L],
    /// The mean bin, weighted with the amplitudes; 0 for a spectrum of zeros.
    pub mean: [f64; L],
}

/// Peak and mean of spectra.
///
/// ```
/// let centre = dacpipe::signal::spectrum::centre(&[[1.0], [3.0], [0.0], [1.0]]);
/// assert_eq!((centre.peak, centre.mean), ([2.0], [2.2]));
/// ```
#[inline(always)]
pub fn centre<const L: usize>(amplitudes: &[[f64; L]]) -> Centre<L> {
    let (mut best, mut peak) = ([f64::NEG_INFINITY; L], [0.0; L]);
    let (mut sum, mut weighted) = ([0.0; L], [0.0; L]);
    let mut bin = 1.0;
    for row in amplitudes {
        for l in 0..L {
            let v = row[l];
            peak[l] = if v > best[l] { bin } else { peak[l] };
            best[l] = if v > best[l] { v } else { best[l] };
            sum[l] += v;
            weighted[l] += bin * v;
        }
        bin += 1.0;
    }
    let mut mean = [0.0; L];
    for l in 0..L {
        mean[l] = if sum[l] > 0.0 { weighted[l] / sum[l] } else { 0.0 };
    }
    Centre { peak, mean }
}

/// The sum of the squared amplitudes of some bins, lane by lane.
#[inline(always)]
pub fn band_energy<const L: usize>(amplitudes: &[[f64; L]]) -> [f64; L] {
    let mut sum = [0.0; L];
    for row in amplitudes {
        for l in 0..L {
            sum[l] += row[l] * row[l];
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    fn slow_amplitudes(x: &[f64]) -> Vec<f64> {
        let n = x.len();
        let amplitude = |k: usize| {
            let (mut re, mut im) = (0.0, 0.0);
            for (t, v) in x.iter().enumerate() {
                let angle = TAU * ((k * t) % n) as f64 / n as f64;
                re += v * angle.cos();
                im += v * angle.sin();
            }
            2.0 * re.hypot(im) / n as f64
        };
        (1..=n / 2).map(amplitude).collect()
    }

    proptest! {
        #[test]
        fn amplitudes_equal_the_sum_over_sines(x in prop::collection::vec((-2.0..2.0, -9.0..9.0f64), 1..80)) {
            let rows: Vec<[f64; 2]> = x.iter().map(|(a, b)| [*a, *b]).collect();
            let spectrum = Spectrum::new(rows.len());
            let (mut both, mut last) = (vec![[0.0; 2]; spectrum.bins()], vec![[7.0; 2]; spectrum.bins()]);
            spectrum.amplitudes(&rows, 0..2, &mut both, &mut spectrum.scratch());
            spectrum.amplitudes(&rows, [1], &mut last, &mut spectrum.scratch());
            for l in 0..2 {
                let slow = slow_amplitudes(&rows.iter().map(|r| r[l]).collect::<Vec<_>>());
                prop_assert_eq!(both.len(), slow.len());
                for (got, expected) in both.iter().zip(slow) {
                    prop_assert!((got[l] - expected).abs() < 1e-12 * (1.0 + expected), "{} {}", got[l], expected);
                }
            }
            prop_assert!(both.iter().zip(&last).all(|(b, l)| *l == [7.0, b[1]]));
        }
    }

    #[test]
    fn a_silent_spectrum_has_no_centre() {
        let silent = centre(&[[0.0, 1.0]; 4]);
        assert_eq!((silent.mean, silent.peak), ([0.0, 2.5], [1.0, 1.0]));
        assert_eq!(centre::<1>(&[]), Centre { peak: [0.0], mean: [0.0] });
        assert_eq!(band_energy(&[[1.0, 2.0], [3.0, 0.0]]), [10.0, 4.0]);
    }
}
