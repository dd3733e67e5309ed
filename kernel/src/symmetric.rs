//! Eigenvalues and eigenvectors of small symmetric matrices, in `f64`.

/// Sweeps over all pairs; a matrix of a hundred rows settles in about ten.
const SWEEPS: usize = 60;

/// The eigenvalues of the symmetric matrix `values` (`n x n`), largest first, and their eigenvectors of length 1, one a
/// row, each with its largest part above 0. Jacobi's rotations: `O(n^3)` a sweep.
///
/// ```
/// use dacpipe_kernel::symmetric::eigen;
/// let (values, vectors) = eigen(&[2.0, 1.0, 1.0, 2.0], 2);
/// assert!((values[0] - 3.0).abs() < 1e-12 && (values[1] - 1.0).abs() < 1e-12);
/// assert!((vectors[0] - 0.5_f64.sqrt()).abs() < 1e-12 && (vectors[0] - vectors[1]).abs() < 1e-12);
/// ```
///
/// # Panics
/// If `values` is not `n * n` long.
pub fn eigen(values: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(values.len(), n * n, "a matrix of {n} x {n}");
    let mut a = values.to_vec();
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let size = a.iter().map(|x| x * x).sum::<f64>();
    for _ in 0..SWEEPS {
        let beside: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if beside <= size * 1e-30 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let mut vectors = Vec::with_capacity(n * n);
    for &i in &order {
        let vector = &v[i * n..][..n];
        let largest = vector.iter().copied().max_by(|x, y| x.abs().total_cmp(&y.abs())).unwrap_or(1.0);
        vectors.extend(vector.iter().map(|x| x * largest.signum()));
    }
    (order.iter().map(|&i| a[i * n + i]).collect(), vectors)
}

/// Turns the plane of `p` and `q` so that their common element vanishes. The rows of `v` are turned along.
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[p * n + k], v[q * n + k]);
        (v[p * n + k], v[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_orthogonal_and_rebuild_the_matrix() {
        let n = 9;
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let x = ((i * 7 + j * 3) as f64).sin();
                (a[i * n + j], a[j * n + i]) = (x, x);
            }
        }
        let (values, vectors) = eigen(&a, n);
        assert!(values.windows(2).all(|w| w[0] >= w[1]));
        for i in 0..n {
            for j in 0..n {
                let dot: f64 = (0..n).map(|k| vectors[i * n + k] * vectors[j * n + k]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
                let rebuilt: f64 = (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                assert!((rebuilt - a[i * n + j]).abs() < 1e-12);
            }
        }
    }
}
