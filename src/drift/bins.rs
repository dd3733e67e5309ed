//! Bins of a feature, by the quantiles of the rows that were learned from.

/// The cuts between at most `bins` bins of about as many of `values` each, rising. A value is in the bin whose number is
/// that of the cuts below it: `numpy.searchsorted(cuts, value, side="left")`.
///
/// The cuts are the quantiles `1/bins, 2/bins, …` of the values, each a value that is there
/// (`numpy.quantile(…, method="inverted_cdf")`). Where one value fills a whole bin, as a constant feature's does, it gets a
/// bin of its own: a second cut lies just below it. Values that are not finite cut nothing.
///
/// `values` are sorted on the way. `O(n log n)` for `n` values.
pub(super) fn cuts(values: &mut Vec<f64>, bins: usize) -> Vec<f64> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    let (n, mut cuts) = (values.len(), Vec::new());
    if n == 0 {
        return cuts;
    }
    for i in 1..bins {
        let value = values[(i * n).div_ceil(bins).max(1) - 1];
        if cuts.last().is_some_and(|last| *last >= value) {
            continue;
        }
        let equal = values.partition_point(|x| *x <= value) - values.partition_point(|x| *x < value);
        let below = value.next_down();
        if equal * bins >= n && below.is_finite() && cuts.last().is_none_or(|last| *last < below) {
            cuts.push(below);
        }
        // Zeros of both signs are one value.
        cuts.push(value + 0.0);
    }
    cuts
}

/// The bin of a value between `cuts`; the last one, behind all of them, is for what is no number.
pub(super) fn bin(cuts: &[f64], value: f64) -> usize {
    match value.is_nan() {
        true => cuts.len() + 1,
        false => cuts.partition_point(|cut| value > *cut),
    }
}

/// How many bins there are.
pub(super) fn bins(cuts: &[f64]) -> usize {
    cuts.len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(cuts: &[f64], values: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; bins(cuts)];
        values.iter().for_each(|value| counts[bin(cuts, *value)] += 1);
        counts
    }

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6, 5, 3.5], [.25, .5, .75], method="inverted_cdf") is [2, 3.5, 5]
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.5];
        let found = cuts(&mut values.to_vec(), 4);
        assert_eq!(found, [2.0, 3.5, 5.0]);
        assert_eq!(counted(&found, &values), [3, 2, 3, 2, 0]);
    }

    #[test]
    fn a_constant_feature_has_a_bin_of_its_own() {
        let found = cuts(&mut vec![7.0; 50], 10);
        assert_eq!(found, [7.0_f64.next_down(), 7.0]);
        assert_eq!(counted(&found, &[7.0, 6.9, 7.1, f64::NAN, f64::INFINITY]), [1, 1, 2, 1]);
        // Zero is zero, of whichever sign.
        let found = cuts(&mut vec![-0.0; 50], 10);
        assert_eq!(counted(&found, &[0.0, -0.0]), [0, 2, 0, 0]);
    }

    #[test]
    fn a_value_that_is_often_there_has_one_too() {
        let mut values: Vec<f64> = (0..100).map(|i| if i < 60 { 0.0 } else { f64::from(i) }).collect();
        let found = cuts(&mut values, 10);
        assert_eq!(found[..2], [0.0_f64.next_down(), 0.0]);
        assert_eq!(counted(&found, &values), [0, 60, 10, 10, 10, 10, 0]);
    }

    #[test]
    fn few_values_and_none_make_few_bins() {
        assert_eq!(cuts(&mut Vec::new(), 10), [0.0; 0]);
        assert_eq!(cuts(&mut vec![f64::NAN, f64::INFINITY], 10), [0.0; 0]);
        assert_eq!(counted(&[], &[1.0, f64::NAN]), [1, 1]);
        let three = cuts(&mut vec![1.0, 2.0, 3.0], 10);
        assert_eq!(counted(&three, &[1.0, 2.0, 3.0]).iter().filter(|count| **count > 0).count(), 3);
        assert_eq!(cuts(&mut vec![f64::MIN; 9], 4), [f64::MIN]);
    }

    proptest! {
        #[test]
        fn cuts_rise_and_bins_are_about_as_full(mut values in prop::collection::vec(-100i32..100, 1..300), bins in 2usize..20) {
            let mut floats: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let found = cuts(&mut floats, bins);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", found);
            let counts = counted(&found, &floats);
            // Of a bin's last value there may be almost as many as fill one more; if there are more, it has no other value.
            values.sort_unstable();
            for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 2 * values.len().div_ceil(bins)) {
                let inside: Vec<&f64> = floats.iter().filter(|v| bin(&found, **v) == at).collect();
                prop_assert!(inside.iter().all(|v| *v == inside[0]), "bin {} of {:?} has {} rows", at, found, count);
            }
        }
    }
}
