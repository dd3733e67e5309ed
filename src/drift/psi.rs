//! The population stability index, and what it exceeds by chance.

/// What is added to the count of each bin, so that an empty one has a logarithm: half a row, as Jeffreys' prior of a
/// multinomial distribution has it.
const HALF_A_ROW: f64 = 0.5;

/// How far out the quantile of [`by_chance`] is, in standard deviations of the normal distribution: one of 3.5 million
/// comparisons of independent rows exceeds it.
const DEVIATIONS: f64 = 5.0;

/// The population stability index of two counts of the same bins,
///
/// `PSI = Σᵢ (aᵢ − eᵢ) ln(aᵢ / eᵢ)`, with `aᵢ = (Aᵢ + ½) / (ΣA + B/2)` and `eᵢ` likewise,
///
/// over the `B` bins that are not empty on both sides (Siddiqi 2006, *Credit Risk Scorecards*; the divergence of Jeffreys
/// 1946, which is symmetric and never negative). The half rows keep empty bins finite. It is 0 where both have the same
/// shares, and where fewer than two bins have any rows.
///
/// ```
/// use dacpipe::drift::psi;
/// assert_eq!(psi(&[10, 20, 30], &[10, 20, 30]), 0.0);
/// // numpy: a = (numpy.array([30, 20, 10]) + .5) / 61.5; e = a[::-1]; ((a - e) * numpy.log(a / e)).sum()
/// assert!((psi(&[10, 20, 30], &[30, 20, 10]) - 0.693_561_903_382).abs() < 1e-9);
/// ```
///
/// # Panics
/// If the counts have different lengths.
pub fn psi(expected: &[u64], actual: &[u64]) -> f64 {
    assert_eq!(expected.len(), actual.len(), "counts of the same bins");
    let bins = used(expected, actual) as f64;
    let (of_expected, of_actual) = (total(expected) + HALF_A_ROW * bins, total(actual) + HALF_A_ROW * bins);
    let term = |(&e, &a): (&u64, &u64)| match (e, a) {
        (0, 0) => 0.0,
        _ => {
            let (e, a) = ((e as f64 + HALF_A_ROW) / of_expected, (a as f64 + HALF_A_ROW) / of_actual);
            (a - e) * (a / e).ln()
        }
    };
    expected.iter().zip(actual).map(term).sum()
}

/// How many bins have a row on one side at least.
pub(super) fn used(expected: &[u64], actual: &[u64]) -> usize {
    expected.iter().zip(actual).filter(|(e, a)| **e + **a > 0).count()
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().sum::<u64>() as f64
}

/// The index that rows of the same distribution as the reference's stay below, but for one of 3.5 million comparisons.
///
/// Without drift, `PSI / (1/n + 1/m)` is distributed as χ² with `B − 1` degrees of freedom, for `n` rows against `m` (Yurdakul
/// and Naranjo 2020, *Statistical properties of the population stability index*). Its quantile is that of Wilson and
/// Hilferty 1931, `k (1 − 2/(9k) + z √(2/(9k)))³` with `z = 5`. The rows are taken for independent: windows that overlap,
/// or come from one machine after the other, differ by more.
///
/// ```
/// use dacpipe::drift::by_chance;
/// // 1000 rows against 1000, in ten bins. scipy.stats.chi2.isf(scipy.stats.norm.sf(5), 9) * .002 is 0.0955.
/// assert!((by_chance(10, 1000, 1000) - 0.0955).abs() < 0.003);
/// assert_eq!(by_chance(1, 1000, 1000), 0.0);
/// ```
pub fn by_chance(bins: usize, rows: u64, reference_rows: u64) -> f64 {
    if bins < 2 || rows == 0 || reference_rows == 0 {
        return 0.0;
    }
    let k = (bins - 1) as f64;
    let part = 2.0 / (9.0 * k);
    k * (1.0 - part + DEVIATIONS * part.sqrt()).powi(3) * (1.0 / rows as f64 + 1.0 / reference_rows as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The figures of numpy for the formula, written out by itself:
    ///
    /// ```python
    /// def psi(E, A):
    ///     E, A = numpy.array(E, float), numpy.array(A, float)
    ///     used = E + A > 0
    ///     e = (E[used] + .5) / (E[used] + .5).sum()
    ///     a = (A[used] + .5) / (A[used] + .5).sum()
    ///     return ((a - e) * numpy.log(a / e)).sum()
    /// ```
    #[test]
    fn it_is_numpys() {
        let cases: [(&[u64], &[u64], f64); 6] = [
            (&[10, 20, 30], &[30, 20, 10], 0.693561903382041),
            (&[100; 10], &[100, 100, 100, 100, 100, 100, 100, 100, 100, 200], 0.056252567178528876),
            (&[0, 500, 500], &[20, 480, 500], 0.07497458686069368),
            (
                &[410, 410, 410, 410, 410, 410, 410, 410, 410, 406],
                &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1000],
                6.822676296708419,
            ),
            (&[1, 0, 3, 0, 0], &[0, 2, 0, 0, 7], 3.1237684742446112),
            (&[60_000, 1, 1], &[10, 9, 8], 6.5957114933796),
        ];
        for (expected, actual, numpy) in cases {
            let ours = psi(expected, actual);
            assert!((ours - numpy).abs() < 1e-12 * (1.0 + numpy), "{expected:?} {actual:?}: {ours}, numpy {numpy}");
        }
    }

    #[test]
    fn one_bin_or_none_is_no_drift() {
        assert_eq!(psi(&[], &[]), 0.0);
        assert_eq!(psi(&[7], &[123]), 0.0);
        assert_eq!(psi(&[0, 9, 0], &[0, 4, 0]), 0.0);
        assert_eq!(psi(&[0, 0], &[0, 0]), 0.0);
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_never_negative(pairs in prop::collection::vec((0u64..5000, 0u64..5000), 1..40)) {
            let (e, a): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            let there = psi(&e, &a);
            prop_assert!(there >= 0.0 && there.is_finite());
            prop_assert!((there - psi(&a, &e)).abs() <= 1e-12 * (1.0 + there));
        }

        #[test]
        fn bins_that_nobody_is_in_change_nothing(pairs in prop::collection::vec((0u64..50, 0u64..50), 1..10)) {
            let (mut e, mut a): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            let before = psi(&e, &a);
            e.insert(0, 0);
            a.insert(0, 0);
            prop_assert_eq!(before, psi(&e, &a));
        }
    }

    /// Draws without drift stay below what chance gives, and not far below.
    #[test]
    fn chance_is_about_what_draws_give() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let mut rng = StdRng::seed_from_u64(5);
        let mut draw = |rows: u64| {
            let mut counts = vec![0; 10];
            (0..rows).for_each(|_| counts[rng.random_range(0..10)] += 1);
            counts
        };
        for (rows, reference) in [(1000, 4000), (200, 200), (5000, 500)] {
            let limit = by_chance(10, rows, reference);
            let found: Vec<f64> = (0..2000).map(|_| psi(&draw(reference), &draw(rows))).collect();
            let most = found.iter().copied().fold(0.0, f64::max);
            let mean = found.iter().sum::<f64>() / 2000.0;
            assert!(most < limit && most > limit / 3.0, "{rows}: most {most}, limit {limit}");
            let expected = 9.0 * (1.0 / rows as f64 + 1.0 / reference as f64);
            assert!((mean / expected - 1.0).abs() < 0.1, "{rows}: mean {mean}, expected {expected}");
        }
    }
}
