//! How well a map keeps neighbourhoods.

use crate::error::Result;
use crate::kernel::nearest::squared_distances;
use crate::kernel::{Pool, Rows};

/// The trustworthiness of the vectors `to` (`rows x dim`) as a map of `from` (Venna and Kaski 2001): one minus the
/// penalty for rows that are among the `k` nearest in `to` but not in `from`, by their rank in `from`. 1 is perfect,
/// about 0.5 is chance. `k` is reduced to less than half the rows; the result is 1 for fewer than four rows. `O(rows^2
/// x (dim + log rows))` time, `O(rows)` memory per thread.
///
/// ```
/// use dacpipe::kernel::{Dense, Pool};
/// use dacpipe::manifold::trustworthiness;
/// let line: Vec<f32> = (0..10).map(|i| i as f32).collect();
/// let kept = trustworthiness(&Dense::new(&line, 1), &line, 1, 3, &Pool::new(1))?;
/// assert_eq!(kept, 1.0);
/// # Ok::<(), dacpipe::Error>(())
/// ```
///
/// # Errors
/// Errors of reading.
///
/// # Panics
/// If `to` does not have one vector per row.
pub fn trustworthiness(from: &dyn Rows, to: &[f32], dim: usize, k: usize, pool: &Pool) -> Result<f64> {
    let n = from.len();
    assert_eq!(to.len(), n * dim, "a vector each row");
    let k = k.min(n.saturating_sub(1) / 2);
    if k == 0 {
        return Ok(1.0);
    }
    let mut values = vec![0.0; n * from.dim()];
    from.read(0..n, &mut values)?;
    let penalties = pool.map(n, |i| {
        let mut squared = vec![0.0; n];
        squared_distances(&values[i * from.dim()..][..from.dim()], &values, &mut squared);
        let mut rank = vec![0_u32; n];
        order(&squared, i).into_iter().zip(1..).for_each(|(row, place)| rank[row as usize] = place);
        squared_distances(&to[i * dim..][..dim], to, &mut squared);
        let near = order(&squared, i);
        near[..k].iter().map(|&row| u64::from(rank[row as usize]).saturating_sub(k as u64)).sum::<u64>()
    });
    let (n, k) = (n as f64, k as f64);
    Ok(1.0 - 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0)) * penalties.into_iter().sum::<u64>() as f64)
}

/// All rows but `own`, the nearest first; ties by number.
fn order(squared: &[f32], own: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..squared.len() as u32).filter(|&row| row as usize != own).collect();
    order.sort_unstable_by(|&a, &b| squared[a as usize].total_cmp(&squared[b as usize]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Dense;

    /// sklearn.manifold.trustworthiness(x, y, n_neighbors=3) with
    /// x = [[sin(i * i), cos(3 * i)] for i in range(12)], y = [[sin(i)] for i in range(12)].
    #[test]
    fn the_figure_is_scikit_learn_s() {
        let x: Vec<f32> = (0..12).flat_map(|i| [((i * i) as f32).sin(), ((3 * i) as f32).cos()]).collect();
        let y: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        for threads in [1, 3] {
            let kept = trustworthiness(&Dense::new(&x, 2), &y, 1, 3, &Pool::new(threads)).unwrap();
            assert!((kept - TRUST).abs() < 1e-9, "{kept}");
        }
    }

    const TRUST: f64 = 0.496_031_746_031_746;
}
