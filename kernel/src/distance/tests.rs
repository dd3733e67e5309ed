use proptest::prelude::*;

use super::*;
use crate::isa::on_each;

type Two = (Vec<u32>, Vec<f32>, Vec<f32>);

/// The slow twin: every distance as [`squared_distance`] states it (centroid by centroid), and from them for each row the
/// first smallest and the next.
fn naive(rows: &[f32], centroids: &[f32], dim: usize) -> (Two, Vec<f32>) {
    let n = rows.len() / dim;
    let distances = |c| rows.chunks_exact(dim).map(move |row| squared_distance(row, c));
    let all: Vec<f32> = centroids.chunks_exact(dim).flat_map(distances).collect();
    let (mut labels, mut best, mut second) = (vec![], vec![], vec![]);
    for row in 0..n {
        let (mut b, mut s, mut at) = (f32::INFINITY, f32::INFINITY, 0);
        for (i, &d) in all.iter().skip(row).step_by(n).enumerate() {
            s = if d < b { b } else { s.min(d) };
            if d < b {
                (b, at) = (d, i as u32);
            }
        }
        labels.push(at);
        best.push(b);
        second.push(s);
    }
    ((labels, best, second), all)
}

fn two(c: &Centroids, rows: &[f32]) -> Two {
    let n = rows.len() / c.dim();
    let (mut labels, mut best, mut second) = (vec![9; n], vec![0.0; n], vec![0.0; n]);
    c.nearest_two(rows, &mut labels, &mut best, &mut second);
    (labels, best, second)
}

/// Everything that centroids answer, on every instruction set, against the twin.
fn check(rows: &[f32], centroids: &[f32], dim: usize) {
    let c = Centroids::new(centroids, dim);
    let (expected, distances) = naive(rows, centroids, dim);
    let n = rows.len() / dim;
    let given: Vec<u32> = (0..n).map(|i| (i * 7 % c.k()) as u32).collect();
    on_each(|isa| {
        assert_eq!(two(&c, rows), expected, "{isa:?}");
        let (mut labels, mut best) = (vec![9; n], vec![0.0; n]);
        c.nearest(rows, &mut labels, &mut best);
        assert_eq!((&labels, &best), (&expected.0, &expected.1), "{isa:?}");
        let mut all = vec![9.0; n * c.k()];
        c.all(rows, &mut all);
        assert_eq!(all, distances, "{isa:?}");
        let mut own = vec![9.0; n];
        c.own(rows, &given, &mut own);
        assert!((0..n).all(|i| own[i] == distances[given[i] as usize * n + i]), "{isa:?}");
    });
}

/// Values as data has them: spread out, all alike, zeros, denormal, so small or so large that their squares leave the
/// normal numbers, far from the origin.
fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        prop::collection::vec(-1.0f32..1.0, len),
        prop::collection::vec((0u8..3).prop_map(f32::from), len),
        prop::collection::vec(prop_oneof![Just(0.0f32), Just(1e-40), Just(-1e-30)], len),
        prop::collection::vec(-1e-21f32..1e-21, len),
        prop::collection::vec(-1e18f32..1e18, len),
        prop::collection::vec(-4e18f32..4e18, len),
        prop::collection::vec(prop_oneof![9 => -1e30f32..1e30, 1 => Just(f32::MAX), 1 => Just(f32::MIN)], len),
        prop::collection::vec(1000.0f32..1000.01, len),
    ]
}

fn problem(dims: std::ops::Range<usize>, k: usize) -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
    (dims, 1..k, 1usize..150).prop_flat_map(|(dim, k, n)| (Just(dim), values(n * dim), values(k * dim))).prop_map(
        |(dim, mut rows, centroids)| {
            // Rows that are centroids, and with them exact ties where centroids repeat.
            let shared = rows.len().min(centroids.len()) / dim / 2 * dim;
            rows[..shared].copy_from_slice(&centroids[..shared]);
            (dim, rows, centroids)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn narrow_rows_equal_the_slow_twin((dim, rows, centroids) in problem(1..COLUMN_DIM + 1, 150)) {
        check(&rows, &centroids, dim);
    }

    #[test]
    fn wide_rows_equal_the_slow_twin((dim, rows, centroids) in problem(COLUMN_DIM + 1..300, 80)) {
        check(&rows, &centroids, dim);
    }

    /// The centroids are the rows, each of them twice: every distance occurs twice.
    #[test]
    fn as_many_centroids_as_rows_and_doubles_equal_the_slow_twin((dim, rows, _) in problem(1..200, 2)) {
        let rows = &rows[..(rows.len() / dim).min(40) * dim];
        check(rows, rows, dim);
        check(rows, &[rows, rows].concat(), dim);
    }

    #[test]
    fn a_row_alone_gives_what_it_gives_among_others((dim, rows, centroids) in problem(1..200, 40)) {
        let c = Centroids::new(&centroids, dim);
        let whole = two(&c, &rows);
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let alone = two(&c, row);
            prop_assert_eq!((alone.0[0], alone.1[0], alone.2[0]), (whole.0[i], whole.1[i], whole.2[i]));
        }
    }
}

/// One row, one value, one centroid, and every size one below, at and one above a block.
#[test]
fn sizes_at_the_edges_of_blocks_equal_the_slow_twin() {
    let value = |i: usize, salt: usize| ((i * 2_654_435_761 + salt * 40_503) % 1009) as f32 / 100.0 - 5.0;
    for dim in [1, 15, 16, 17, 128, 129, 145] {
        for k in [1, 2, 5, SCREEN_K - 1, SCREEN_K, GROUP, GROUP + 1] {
            for n in [1, 3, 17, BLOCK, BLOCK + 1] {
                let rows: Vec<f32> = (0..n * dim).map(|i| value(i, k)).collect();
                let centroids: Vec<f32> = (0..k * dim).map(|i| value(i, n)).collect();
                check(&rows, &centroids, dim);
            }
        }
    }
}

/// A centroid whose score overflows, though its distance does not, is the nearest.
#[test]
fn centroids_too_far_apart_for_scores_equal_the_slow_twin() {
    let (dim, far) = (COLUMN_DIM + 1, 2.7e19f32);
    let mut centroids = vec![0.0; SCREEN_K * dim];
    for (i, c) in centroids.chunks_mut(dim).enumerate() {
        let length = if i < 2 { far } else { 1e19 };
        c[i / 2] = if i % 2 == 0 { length } else { -length };
    }
    let mut row = vec![0.0; dim];
    row[0] = 0.45 * far;
    check(&row, &centroids, dim);
    assert_eq!(naive(&row, &centroids, dim).0.0, [0]);
}

/// Squares and scores that underflow, a little or all of them.
#[test]
fn wide_rows_of_tiny_values_equal_the_slow_twin() {
    let dim = COLUMN_DIM + 1;
    for exponent in -84..-64 {
        let step = 2.0f64.powi(exponent) as f32;
        let value = |i: usize| ((i * 2_654_435_761) % 401) as f32 * step - 200.0 * step;
        let rows: Vec<f32> = (0..100 * dim).map(value).collect();
        let centroids: Vec<f32> = (0..30 * dim).map(|i| value(i + 1_000_003)).collect();
        check(&rows, &centroids, dim);
    }
}

#[test]
fn no_rows_have_no_labels() {
    assert_eq!(two(&Centroids::new(&[1.0, 2.0], 2), &[]), (vec![], vec![], vec![]));
}

#[test]
fn the_error_bound_holds() {
    for dim in [1, 2, 17, 128, 129, 784] {
        let a: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.91).cos()).collect();
        let exact: f64 = a.iter().zip(&b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
        let error = (f64::from(squared_distance(&a, &b)) / exact - 1.0).abs();
        assert!(error <= f64::from(relative_error(dim)), "{dim}: {error}");
    }
}

#[test]
fn a_single_centroid_has_no_second() {
    let (labels, best, second) = two(&Centroids::new(&[1.0, 1.0], 2), &[1.0, 3.0]);
    assert_eq!((labels[0], best[0], second[0]), (0, 4.0, f32::INFINITY));
}
