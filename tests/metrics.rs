//! The agreement of clusters with labels: figures of scikit-learn, and properties for any labels.

use dacpipe::metrics::Contingency;
use proptest::prelude::*;

fn table(pairs: impl IntoIterator<Item = (i64, i64)>) -> Contingency {
    let mut table = Contingency::default();
    pairs.into_iter().for_each(|(class, cluster)| table.add(cluster, class));
    table
}

/// The expected figures were printed by scikit-learn 1.9.1 and scipy:
///
/// ```python
/// import numpy as np
/// from sklearn.metrics import adjusted_rand_score as ari, normalized_mutual_info_score as nmi
/// from sklearn.metrics.cluster import contingency_matrix
/// from scipy.optimize import linear_sum_assignment
/// def show(name, classes, clusters):
///     if len(classes):
///         c = contingency_matrix(classes, clusters); r, k = linear_sum_assignment(-c)
///         acc = c[r, k].sum() / len(classes)
///     else: acc = 1.0
///     print(name, float(ari(classes, clusters)), float(nmi(classes, clusters)), float(acc))
/// i = np.arange(1000, dtype=np.int64)
/// show("mixed", i * 7 % 10, i * i % 13 // 2)
/// show("more clusters", i % 3, i * 31 % 97 % 20)
/// show("more classes", i * 31 % 97 % 20, i % 3)
/// show("equal", i % 5, (i % 5 + 3) % 5)
/// show("one cluster", i % 4, i * 0)
/// show("one of each", i * 0, i * 0)
/// show("all apart", i % 4, i)
/// show("apart in both", i, i[::-1])
/// show("worse than chance", [0, 0, 1, 1], [0, 1, 0, 1])
/// show("none", [], [])
/// ```
#[test]
fn figures_equal_those_of_scikit_learn() {
    type Labels = fn(i64) -> (i64, i64);
    let cases: [(&str, i64, Labels, [f64; 3]); 10] = [
        ("mixed", 1000, |i| (i * 7 % 10, i * i % 13 / 2), [-0.006164120707659894, 0.0003209229451073692, 0.103]),
        ("more clusters", 1000, |i| (i % 3, i * 31 % 97 % 20), [-0.0022809033592202355, 0.0034152459606320864, 0.06]),
        ("more classes", 1000, |i| (i * 31 % 97 % 20, i % 3), [-0.0022809033592202355, 0.0034152459606320864, 0.06]),
        ("equal", 1000, |i| (i % 5, (i % 5 + 3) % 5), [1.0, 1.0, 1.0]),
        ("one cluster", 1000, |i| (i % 4, 0), [0.0, 0.0, 0.25]),
        ("one of each", 1000, |_| (0, 0), [1.0, 1.0, 1.0]),
        ("all apart", 1000, |i| (i % 4, i), [0.0, 0.3342864876084437, 0.004]),
        ("apart in both", 1000, |i| (i, 999 - i), [1.0, 1.0, 1.0]),
        ("worse than chance", 4, |i| (i / 2, i % 2), [-0.5, 0.0, 0.5]),
        ("none", 0, |i| (i, i), [1.0, 1.0, 1.0]),
    ];
    for (name, rows, labels, expected) in cases {
        let table = table((0..rows).map(labels));
        let ours = [table.ari(), table.nmi(), table.accuracy().unwrap()];
        for (ours, expected) in ours.into_iter().zip(expected) {
            assert!((ours - expected).abs() < 1e-12, "{name}: {ours}, expected {expected}");
        }
    }
}

#[test]
fn names_and_numbers_are_labels_alike() {
    let mut table = Contingency::default();
    for (cluster, class) in [(1, "sit"), (0, "walk"), (1, "sit"), (2, "sit")] {
        table.add(cluster, class);
    }
    let full = table.table();
    assert_eq!(full.counts, [[0, 1], [2, 0], [1, 0]]);
    assert_eq!(full.classes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["sit", "walk"]);
    let matched = table.matching().unwrap();
    let class = |i: usize| matched[i].1.as_ref().map(ToString::to_string);
    assert_eq!((class(0).as_deref(), class(1).as_deref(), class(2)), (Some("walk"), Some("sit"), None));
}

#[test]
fn counts_of_many_rows_do_not_overflow() {
    let mut table = Contingency::default();
    for (cluster, class, rows) in [(0, 0, 9_000_000_000), (1, 1, 8_000_000_000), (0, 1, 1_000_000_000)] {
        table.add_count(cluster, class, rows);
    }
    let ari = table.ari();
    assert!(ari > 0.7 && ari < 0.9, "{ari}");
    assert!((table.accuracy().unwrap() - 17.0 / 18.0).abs() < 1e-12);
}

#[test]
fn an_id_for_a_label_is_refused_where_matching_would_not_end() {
    let error = table((0..10_001).map(|i| (0, i))).accuracy().unwrap_err();
    assert!(error.to_string().contains("10001 labels"), "{error}");
}

proptest! {
    #[test]
    fn names_order_and_merging_change_nothing(
        pairs in prop::collection::vec((0i64..6, 0i64..8), 0..200),
        cut in 0usize..200,
    ) {
        let whole = table(pairs.iter().copied());
        let backwards = table(pairs.iter().rev().copied());
        let cut = cut.min(pairs.len());
        let mut merged = table(pairs[cut..].iter().copied());
        merged.merge(&table(pairs[..cut].iter().copied()));
        prop_assert_eq!(&whole, &backwards);
        prop_assert_eq!(&whole, &merged);
        let figures = |t: &Contingency| (t.ari(), t.nmi(), t.accuracy().unwrap());
        prop_assert_eq!(figures(&whole), figures(&backwards));
        prop_assert_eq!(figures(&whole), figures(&merged));
        let renamed = figures(&table(pairs.iter().map(|(class, cluster)| (class * 5 % 7, 100 - cluster))));
        let turned = figures(&table(pairs.iter().map(|(class, cluster)| (*cluster, *class))));
        for (other, what) in [(renamed, "renamed"), (turned, "turned")] {
            let (a, n, c) = figures(&whole);
            let near = (a - other.0).abs() < 1e-12 && (n - other.1).abs() < 1e-12 && (c - other.2).abs() < 1e-12;
            prop_assert!(near, "{}: {:?} {:?}", what, (a, n, c), other);
        }
    }
}

/// Labels that were numbered but never counted do not change any figure or limit.
#[test]
fn numbered_labels_count_once_they_are_counted() {
    let mut table = Contingency::default();
    for label in 0..20_000 {
        table.cluster_number(label.into());
    }
    let (cluster, class) = (table.cluster_number(7.into()), table.class_number("walk".into()));
    table.add_numbered(cluster, class, 2);
    table.add(7, "sit");
    let mut other = Contingency::default();
    [("walk", 2), ("sit", 1)].into_iter().for_each(|(class, rows)| other.add_count(7, class, rows));
    assert_eq!(table, other);
    assert_eq!((table.accuracy().unwrap(), table.ari(), table.nmi()), (2.0 / 3.0, other.ari(), other.nmi()));
    assert!(table.memory_size() > 20_000 * 12 && table.memory_size() > other.memory_size());
}
