//! Causal filters over whole recordings: a running median and Butterworth low-passes.
//!
//! Both return as many samples as they get, and take samples before the first as 0; the low-pass only looks back. A
//! high-pass is the signal minus its low-pass.

use crate::error::{Error, Result};

/// The most samples of a running median.
const LONGEST_MEDIAN: usize = 65_535;
/// The highest order of a low-pass.
const HIGHEST_ORDER: usize = 20;

/// The running median of `length` samples centred on each sample of `x`; samples beyond the ends count as 0, as in
/// `scipy.signal.medfilt`.
///
/// Time `O(n log length + n length)`, with a small factor on the second term (from shifting a sorted window).
///
/// # Errors
/// A [`Kind::Config`](crate::Kind::Config) error when `length` is even.
///
/// ```
/// let despiked = dacpipe::signal::filter::median(&[1.0, 9.0, 2.0, 3.0, -4.0], 3)?;
/// assert_eq!(despiked, [1.0, 2.0, 3.0, 2.0, 0.0]);
/// # Ok::<(), dacpipe::Error>(())
/// ```
pub fn median(x: &[f64], length: usize) -> Result<Vec<f64>> {
    if length.is_multiple_of(2) {
        return Err(Error::config(format!("median filter of {length} samples; the length must be odd: 1, 3, 5, …")));
    }
    if length > LONGEST_MEDIAN {
        return Err(Error::config(format!("median filter of {length} samples; at most {LONGEST_MEDIAN} are possible")));
    }
    if length == 3 {
        return Ok(median_of_three(0.0, x).collect());
    }
    let half = length / 2;
    let at = |i: usize| if i < half || i - half >= x.len() { 0.0 } else { x[i - half] };
    let mut sorted: Vec<f64> = (0..length).map(at).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut out = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        out.push(sorted[half]);
        replace_sorted(&mut sorted, at(i), at(i + length));
    }
    Ok(out)
}

/// [`median`] of length three, of samples that follow the sample `before`.
pub(super) fn median_of_three(mut before: f64, x: &[f64]) -> impl Iterator<Item = f64> {
    let after = x.iter().skip(1).chain(std::iter::once(&0.0));
    x.iter().zip(after).map(move |(&b, &c)| {
        let a: f64 = before;
        before = b;
        a.min(b).max(a.max(b).min(c))
    })
}

/// Replaces `old` by `new` in a sorted slice, moving only the values between the two places.
fn replace_sorted(sorted: &mut [f64], old: f64, new: f64) {
    let from = sorted.partition_point(|v| v.total_cmp(&old).is_lt());
    let to = sorted.partition_point(|v| v.total_cmp(&new).is_lt());
    if to > from {
        sorted.copy_within(from + 1..to, from);
        sorted[to - 1] = new;
    } else {
        sorted.copy_within(to..from, to + 1);
        sorted[to] = new;
    }
}

/// One second-order section, `y = (b0 + b1/z + b2/z²) / (1 + a1/z + a2/z²) x`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Section {
    b: [f64; 3],
    a: [f64; 2],
}

/// The state of a [`LowPass`] for `L` signals: two numbers of each for every section.
pub(super) type State<const L: usize> = Vec<[[f64; L]; 2]>;

/// A Butterworth low-pass, run forward in time.
#[derive(Debug, Clone, PartialEq)]
pub struct LowPass {
    sections: Vec<Section>,
}

impl LowPass {
    /// The digital Butterworth filter of any `order` with the cutoff frequency `cutoff_hz` (where the gain is 1/√2),
    /// for signals of `rate_hz` samples per second. It is made from the analogue filter by the bilinear transform and
    /// kept as second-order sections, which are numerically more accurate than one long polynomial (Oppenheim and
    /// Schafer, *Discrete-Time Signal Processing*, chapter 7).
    ///
    /// # Errors
    /// A [`Kind::Config`](crate::Kind::Config) error when `order` is 0, or the cutoff is not between 0 and half the
    /// rate.
    ///
    /// ```
    /// use dacpipe::signal::filter::LowPass;
    /// let gravity = LowPass::butterworth(3, 0.3, 50.0)?;
    /// let mut x = vec![1.0; 2_000];
    /// gravity.run_slice(&mut x);
    /// assert!(x[0] < 1e-5 && (x[1_999] - 1.0).abs() < 1e-6);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn butterworth(order: usize, cutoff_hz: f64, rate_hz: f64) -> Result<Self> {
        if order == 0 || order > HIGHEST_ORDER {
            let message = format!("Butterworth filter of order {order}; the order must be 1 to {HIGHEST_ORDER}");
            return Err(Error::config(message));
        }
        if !(cutoff_hz > 0.0 && cutoff_hz < rate_hz / 2.0 && rate_hz.is_finite()) {
            return Err(Error::config(format!(
                "low-pass at {cutoff_hz} Hz for {rate_hz} samples a second; the corner must lie above 0 and below half \
                 the rate"
            )));
        }
        let k = (std::f64::consts::PI * cutoff_hz / rate_hz).tan();
        let mut sections = Vec::with_capacity(order.div_ceil(2));
        if order % 2 == 1 {
            let b = k / (1.0 + k);
            sections.push(Section { b: [b, b, 0.0], a: [(k - 1.0) / (k + 1.0), 0.0] });
        }
        for pair in 0..order / 2 {
            let angle = std::f64::consts::PI * (2 * pair + 1) as f64 / (2 * order) as f64;
            let damping = 2.0 * angle.sin() * k;
            let norm = 1.0 / (1.0 + damping + k * k);
            let b = k * k * norm;
            sections
                .push(Section { b: [b, 2.0 * b, b], a: [2.0 * (k * k - 1.0) * norm, (1.0 - damping + k * k) * norm] });
        }
        Ok(Self { sections })
    }

    /// Filters `L` signals that lie side by side, in place. Time `O(n · order)`.
    #[inline(always)]
    pub fn run<const L: usize>(&self, x: &mut [[f64; L]]) {
        self.run_on(&mut Vec::new(), x);
    }

    /// Filters samples that follow those which left the filter in `state`, and leaves it behind them. An empty state
    /// is the one before the first sample. However a signal is cut, the bits are the same.
    #[inline(always)]
    pub(super) fn run_on<const L: usize>(&self, state: &mut State<L>, x: &mut [[f64; L]]) {
        state.resize(self.sections.len(), [[0.0; L]; 2]);
        for (sections, state) in self.sections.chunks(5).zip(state.chunks_mut(5)) {
            match sections {
                [a] => Section::run([*a], state, x),
                [a, b] => Section::run([*a, *b], state, x),
                [a, b, c] => Section::run([*a, *b, *c], state, x),
                [a, b, c, d] => Section::run([*a, *b, *c, *d], state, x),
                [a, b, c, d, e] => Section::run([*a, *b, *c, *d, *e], state, x),
                _ => unreachable!("chunks of at most five"),
            }
        }
    }

    /// Filters one signal in place.
    pub fn run_slice(&self, x: &mut [f64]) {
        let (rows, _) = x.as_chunks_mut::<1>();
        self.run(rows);
    }
}

impl Section {
    /// Applies `N` sections in one pass, so that while one waits for its last output, the others go on. Transposed
    /// direct form II: two numbers of state per lane.
    #[inline(always)]
    fn run<const N: usize, const L: usize>(sections: [Self; N], left: &mut [[[f64; L]; 2]], x: &mut [[f64; L]]) {
        let mut state: [[[f64; L]; 2]; N] = std::array::from_fn(|section| left[section]);
        for row in x {
            for ([s1, s2], Self { b: [b0, b1, b2], a: [a1, a2] }) in state.iter_mut().zip(&sections) {
                for l in 0..L {
                    let v = row[l];
                    let y = b0 * v + s1[l];
                    s1[l] = b1 * v - a1 * y + s2[l];
                    s2[l] = b2 * v - a2 * y;
                    row[l] = y;
                }
            }
        }
        left.copy_from_slice(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wave(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * 0.37).sin() + 0.25 * ((i * i) as f64 * 0.11).cos() + 0.5).collect()
    }

    fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            assert!((g - e).abs() <= tolerance, "at {i}: {g} differs from {e}");
        }
    }

    // import numpy as np
    // from scipy.signal import butter, lfilter, medfilt
    // i = np.arange(40); x = np.sin(i * .37) + .25 * np.cos(i * i * .11) + .5
    // for n, hz in ((1, 5), (2, .1), (3, .3), (4, 7.5), (10, 20)):
    //     print([float('%.12g' % v) for v in lfilter(*butter(n, hz / 25), x)[[0, 1, 2, 7, 20, 39]]])
    // for m in (3, 5, 9): print([float('%.12g' % v) for v in medfilt(x, m)[[0, 1, 2, 7, 20, 38, 39]]])
    #[test]
    fn low_passes_equal_scipy() {
        let figures: [(usize, f64, [f64; 6]); 5] = [
            (1, 5.0, [0.18392795644, 0.549882923266, 0.89586721177, 1.20657128928, 0.999035188595, 1.31472051904]),
            (
                2,
                0.1,
                [
                    2.93476540494e-05,
                    0.000160307692372,
                    0.000459961628766,
                    0.00503356431161,
                    0.0222796687342,
                    0.0624933228694,
                ],
            ),
            (
                3,
                0.3,
                [
                    4.83888684682e-06,
                    3.58307256559e-05,
                    0.000136029122475,
                    0.00372238497384,
                    0.0465612195311,
                    0.168994387329,
                ],
            ),
            (4, 7.5, [0.0139222579702, 0.0981594106257, 0.32834812668, 1.48227637316, 0.637794450848, 1.19316108881]),
            (10, 20.0, [0.0962797599767, 0.528821361524, 1.16588697081, 1.06994419387, 1.05232227789, 1.65016760472]),
        ];
        for (order, hz, expected) in figures {
            let mut x = wave(40);
            LowPass::butterworth(order, hz, 50.0).unwrap().run_slice(&mut x);
            assert_close(&[0, 1, 2, 7, 20, 39].map(|i: usize| x[i]), &expected, 1e-11);
        }
    }

    #[test]
    fn medians_equal_scipy() {
        let figures: [(usize, [f64; 7]); 3] = [
            (3, [0.75, 1.11010445645, 1.40047582743, 1.12571927134, 1.45056611202, 1.44991471085, 1.28425834005]),
            (5, [0.75, 1.11010445645, 1.40047582743, 1.12571927134, 1.2128559864, 1.28425834005, 1.28425834005]),
            (9, [0.75, 1.11010445645, 1.12571927134, 1.12571927134, 1.2128559864, 0.638473722704, 0.638473722704]),
        ];
        for (length, expected) in figures {
            let y = median(&wave(40), length).unwrap();
            assert_close(&[0, 1, 2, 7, 20, 38, 39].map(|i: usize| y[i]), &expected, 1e-11);
        }
    }

    #[test]
    fn lanes_do_not_touch_each_other() {
        let filter = LowPass::butterworth(5, 8.0, 50.0).unwrap();
        let (mut a, mut b) = (wave(64), wave(64).into_iter().map(|v| 3.0 - v * v).collect::<Vec<_>>());
        let mut both: Vec<[f64; 2]> = a.iter().zip(&b).map(|(a, b)| [*a, *b]).collect();
        filter.run(&mut both);
        filter.run_slice(&mut a);
        filter.run_slice(&mut b);
        assert!(both.iter().zip(a.iter().zip(&b)).all(|(r, (a, b))| r == &[*a, *b]));
    }

    #[test]
    fn impossible_filters_are_refused() {
        assert!(LowPass::butterworth(0, 1.0, 50.0).unwrap_err().message().contains("order 0"));
        for (hz, rate) in [(25.0, 50.0), (0.0, 50.0), (-1.0, 50.0), (f64::NAN, 50.0), (1.0, f64::INFINITY), (1.0, 0.0)]
        {
            assert!(LowPass::butterworth(3, hz, rate).unwrap_err().message().contains("half"), "{hz} {rate}");
        }
        assert!(median(&[1.0], 4).unwrap_err().message().contains("must be odd"));
        assert!(median(&[1.0], 0).is_err());
    }

    #[test]
    fn a_window_longer_than_the_signal_is_fine() {
        assert_eq!(median(&[5.0, 7.0], 5).unwrap(), [0.0, 0.0]);
        assert_eq!(median(&[], 5).unwrap(), [0.0; 0]);
        assert_eq!(median(&[], 3).unwrap(), [0.0; 0]);
    }

    #[test]
    fn the_gain_at_the_corner_is_one_over_root_two() {
        let filter = LowPass::butterworth(6, 5.0, 50.0).unwrap();
        let mut x: Vec<f64> = (0..5_000).map(|i| (std::f64::consts::TAU * 5.0 * i as f64 / 50.0 + 0.3).sin()).collect();
        filter.run_slice(&mut x);
        let power = x[4_000..].iter().map(|v| v * v).sum::<f64>() / 1_000.0;
        assert!((power - 0.25).abs() < 1e-9, "{power}");
    }

    proptest! {
        #[test]
        fn the_running_median_is_the_median_of_each_window(
            x in prop::collection::vec(-3i32..4, 0..50), half in 0usize..7,
        ) {
            let x: Vec<f64> = x.into_iter().map(f64::from).collect();
            let slow: Vec<f64> = (0..x.len() as isize).map(|i| {
                let mut w: Vec<f64> = (i - half as isize..=i + half as isize)
                    .map(|j| usize::try_from(j).ok().and_then(|j| x.get(j)).copied().unwrap_or(0.0))
                    .collect();
                w.sort_by(f64::total_cmp);
                w[half]
            }).collect();
            prop_assert_eq!(median(&x, 2 * half + 1).unwrap(), slow);
        }
    }
}
