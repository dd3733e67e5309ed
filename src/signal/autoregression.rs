//! Autoregressions of windows by Burg's method.

// Lanes are indexed, as in `statistics`.
#![allow(clippy::needless_range_loop)]

/// The order of the autoregressions.
pub const AR_ORDER: usize = 4;

/// Buffers of [`burg`] for the two prediction errors, reused for every window.
#[derive(Debug, Clone)]
pub struct BurgScratch<const L: usize> {
    forward: Vec<[f64; L]>,
    backward: Vec<[f64; L]>,
}

impl<const L: usize> BurgScratch<L> {
    /// Buffers for windows of `length` samples (longer ones work, and allocate once).
    pub fn new(length: usize) -> Self {
        Self { forward: Vec::with_capacity(length), backward: Vec::with_capacity(length) }
    }
}

/// The coefficients `a1 … a4` of each lane's autoregression `x[t] = -a1 x[t-1] - … - a4 x[t-4] + e[t]` by Burg's method
/// (J. P. Burg, *Maximum entropy spectral analysis*, 1975), with the signs of MATLAB's `arburg`. The mean is not
/// subtracted. A coefficient is 0 if the lane is all 0, or too short for it.
///
/// Each step of the recursion is one pass, which also computes the sums for the next step.
#[inline(always)]
pub fn burg<const L: usize>(x: &[[f64; L]], scratch: &mut BurgScratch<L>) -> [[f64; L]; AR_ORDER] {
    let mut a = [[0.0; L]; AR_ORDER];
    if x.len() < 2 {
        return a;
    }
    let BurgScratch { forward, backward } = scratch;
    forward.clear();
    forward.extend_from_slice(&x[1..]);
    backward.clear();
    backward.extend_from_slice(&x[..x.len() - 1]);
    let (mut f, mut b) = (&mut forward[..], &mut backward[..]);
    let (mut cross, mut power) = products(f, b);
    for order in 0..AR_ORDER {
        let mut k = [0.0; L];
        for l in 0..L {
            k[l] = if power[l] > 0.0 { -2.0 * cross[l] / power[l] } else { 0.0 };
        }
        reflect(&mut a, order, &k);
        if f.len() < 2 || order + 1 == AR_ORDER {
            break;
        }
        (cross, power) = lattice_step(f, b, &k);
        let last = b.len() - 1;
        (f, b) = (&mut f[1..], &mut b[..last]);
    }
    a
}

/// Levinson's update of the coefficients with the reflection coefficient `k` of `order` (counted from 0).
#[inline(always)]
fn reflect<const L: usize>(a: &mut [[f64; L]; AR_ORDER], order: usize, k: &[f64; L]) {
    let before = *a;
    for i in 0..order {
        for l in 0..L {
            a[i][l] = before[i][l] + k[l] * before[order - 1 - i][l];
        }
    }
    a[order] = *k;
}

#[inline(always)]
fn products<const L: usize>(f: &[[f64; L]], b: &[[f64; L]]) -> ([f64; L], [f64; L]) {
    let (mut cross, mut power) = ([0.0; L], [0.0; L]);
    for (f, b) in f.iter().zip(b) {
        for l in 0..L {
            cross[l] += f[l] * b[l];
            power[l] += f[l] * f[l] + b[l] * b[l];
        }
    }
    (cross, power)
}

/// Replaces the errors of one order by those of the next, and returns the [`products`] of the new errors, the backward
/// ones delayed by one sample.
#[inline(always)]
fn lattice_step<const L: usize>(f: &mut [[f64; L]], b: &mut [[f64; L]], k: &[f64; L]) -> ([f64; L], [f64; L]) {
    let (mut cross, mut power) = ([0.0; L], [0.0; L]);
    let mut rows = f.iter_mut().zip(b);
    let Some((f, b)) = rows.next() else { return (cross, power) };
    let (_, mut late) = next_errors(f, b, k);
    for (f, b) in rows {
        let (new_f, new_b) = next_errors(f, b, k);
        for l in 0..L {
            cross[l] += new_f[l] * late[l];
            power[l] += new_f[l] * new_f[l] + late[l] * late[l];
        }
        late = new_b;
    }
    (cross, power)
}

/// Replaces one sample's errors by those of the next order, and returns them.
#[inline(always)]
fn next_errors<const L: usize>(f: &mut [f64; L], b: &mut [f64; L], k: &[f64; L]) -> ([f64; L], [f64; L]) {
    // Rows are copied in and out as a whole, so that the compiler knows that they do not overlap.
    let (old_f, old_b) = (*f, *b);
    let (mut new_f, mut new_b) = ([0.0; L], [0.0; L]);
    for l in 0..L {
        new_f[l] = old_f[l] + k[l] * old_b[l];
        new_b[l] = old_b[l] + k[l] * old_f[l];
    }
    (*f, *b) = (new_f, new_b);
    (new_f, new_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance * (1.0 + b.abs())
    }

    /// The textbook form of the recursion, for one lane.
    fn slow_burg(x: &[f64]) -> Vec<f64> {
        let (mut f, mut b, mut a) = (x.to_vec(), x.to_vec(), vec![1.0]);
        for m in 0..AR_ORDER {
            let pairs: Vec<(f64, f64)> = (m + 1..x.len()).map(|i| (f[i], b[i - 1])).collect();
            let power: f64 = pairs.iter().map(|(f, b)| f * f + b * b).sum();
            let cross: f64 = pairs.iter().map(|(f, b)| f * b).sum();
            let k = if power > 0.0 { -2.0 * cross / power } else { 0.0 };
            a.push(0.0);
            a = a.iter().zip(a.iter().rev()).map(|(p, q)| p + k * q).collect();
            let old = b.clone();
            for i in m + 1..x.len() {
                b[i] = old[i - 1] + k * f[i];
                f[i] += k * old[i - 1];
            }
        }
        a[1..].to_vec()
    }

    #[test]
    fn burg_finds_the_autoregression_that_made_the_signal() {
        let mut x = vec![[0.0]; 4_000];
        let mut noise = 1u32;
        for t in 4..x.len() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let e = f64::from(noise >> 8) / f64::from(1 << 24) - 0.5;
            x[t][0] = 1.2 * x[t - 1][0] - 0.8 * x[t - 2][0] + 0.3 * x[t - 3][0] - 0.2 * x[t - 4][0] + e;
        }
        let a = burg(&x, &mut BurgScratch::new(4_000));
        for (got, made) in a.iter().zip([-1.2, 0.8, -0.3, 0.2]) {
            assert!((got[0] - made).abs() < 0.05, "{got:?} for {made}");
        }
    }

    proptest! {
        #[test]
        fn the_fused_recursion_equals_the_textbook(
            x in prop::collection::vec((-1e3..1e3, -1.0..1.0, 0.0..0.0001f64), 1..90),
        ) {
            let rows: Vec<[f64; 3]> = x.iter().map(|(a, b, c)| [*a, *b, *c]).collect();
            let a = burg(&rows, &mut BurgScratch::new(rows.len()));
            for l in 0..3 {
                let slow = slow_burg(&rows.iter().map(|r| r[l]).collect::<Vec<_>>());
                for (order, expected) in slow.iter().enumerate() {
                    prop_assert!(close(a[order][l], *expected, 1e-9), "{} {}", a[order][l], expected);
                }
            }
        }
    }
}
