//! Normal random numbers that are the same on every machine.

/// The number below which a standard normal variable lies with probability `(word + 1/2) / 2^32`: a word drawn uniformly
/// gives a standard normal number, at most 6.3 in size. It is within 1e-6 of the exact value. The common ways take
/// logarithms and cosines from the system, whose last bits differ from one system to the next; this one uses nothing
/// but IEEE operations.
///
/// Algorithm AS 241 (PPND7) of Wichura 1988.
///
/// ```
/// use dacpipe_kernel::normal::standard_normal;
/// // The median, and the upper end of the middle 95 percent.
/// assert!(standard_normal(1 << 31).abs() < 1e-6);
/// assert!((standard_normal((0.975 * 4_294_967_296.0) as u32) - 1.959_964).abs() < 1e-6);
/// ```
#[inline]
pub fn standard_normal(word: u32) -> f32 {
    const ALL: f64 = 4_294_967_296.0;
    let p = (f64::from(word) + 0.5) / ALL;
    let q = p - 0.5;
    let value = if q.abs() <= 0.425 {
        let r = 0.425 * 0.425 - q * q;
        let above = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        let below = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
        q * above / below
    } else {
        // At most 4.8, below the 5 where the algorithm has a third case.
        let r = (-logarithm(p.min(1.0 - p))).sqrt() - 1.6;
        let above = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7;
        let below = (0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0;
        (above / below).copysign(q)
    };
    value as f32
}

/// The natural logarithm of a positive normal number.
#[inline]
fn logarithm(x: f64) -> f64 {
    // x = m 2^n with m between 3/4 and 3/2, so that s is at most a fifth.
    let bits = x.to_bits();
    let shift = i64::from(bits >> 51 & 1 == 1);
    let n = (bits >> 52) as i64 - 1023 + shift;
    let m = f64::from_bits((bits & ((1 << 52) - 1)) | ((1023 - shift) as u64) << 52);
    // ln m is twice the inverse hyperbolic tangent of s.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * z + 1.0 / f64::from(2 * k + 1));
    n as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_equal_those_of_the_normal_distribution() {
        // Python: [statistics.NormalDist().inv_cdf((w + .5) / 2**32) for w in (0, 1, 1000, 10**6, 10**8, 10**9, 2**31)]
        let expected = [
            (0, -6.337_957_754_553_789),
            (1, -6.166_429_517_819_749),
            (1000, -5.039_851_125_968_711),
            (1_000_000, -3.499_768_988_758_381),
            (100_000_000, -1.990_225_241_389_144),
            (1_000_000_000, -0.729_556_553_075_873_9),
            (1 << 31, 2.918_099_372_916_623e-10),
        ];
        for (word, exact) in expected {
            assert!((f64::from(standard_normal(word)) - exact).abs() < 1e-6, "{word} {}", standard_normal(word));
            assert_eq!(standard_normal(u32::MAX - word), -standard_normal(word));
        }
    }

    #[test]
    fn the_logarithm_is_exact_to_rounding() {
        for i in 1..20_000 {
            let x = f64::from(i) * 1e-4;
            assert!((logarithm(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(0.5), "{x}");
        }
        assert!((logarithm(1e-10) - 1e-10_f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn evenly_spread_words_have_the_moments_of_a_normal_variable() {
        let numbers: Vec<f64> = (0..1_u32 << 16).map(|i| f64::from(standard_normal((i << 16) + (1 << 15)))).collect();
        let moment = |k| numbers.iter().map(|x| x.powi(k)).sum::<f64>() / numbers.len() as f64;
        assert!(moment(1).abs() < 1e-6 && (moment(2) - 1.0).abs() < 1e-3 && (moment(4) - 3.0).abs() < 0.02);
    }
}
