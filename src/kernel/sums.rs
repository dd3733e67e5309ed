//! Sums of rows by cluster, kept up to date as rows move.

use super::lanes::Level;

/// The label of a row that is in no cluster yet.
pub const NO_CLUSTER: u32 = u32::MAX;

/// For each row whose label changed: adds it to the sum of its new cluster and takes it from that of its old one
/// (unless that was [`NO_CLUSTER`]), and counts likewise. Returns how many changed.
///
/// `rows` is row-major, `dim` values each; `sums` holds `dim` values a cluster. Rows are taken in order, each sum by
/// itself, so the result depends on the order of the changed rows alone. `O(changed x dim)`.
///
/// # Panics
/// If lengths do not fit together or a label names no cluster.
pub fn move_rows(rows: &[f32], dim: usize, old: &[u32], new: &[u32], sums: &mut [f64], counts: &mut [i64]) -> usize {
    assert!(rows.len() == old.len() * dim && old.len() == new.len(), "rows and labels differ in number");
    assert_eq!(sums.len(), counts.len() * dim, "sums and counts differ in number");
    match Level::best() {
        // SAFETY: the level was found on this machine.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { move_avx512(rows, dim, old, new, sums, counts) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { move_avx2(rows, dim, old, new, sums, counts) },
        Level::Portable => move_all(rows, dim, old, new, sums, counts),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn move_avx512(rows: &[f32], dim: usize, old: &[u32], new: &[u32], sums: &mut [f64], counts: &mut [i64]) -> usize {
    move_all(rows, dim, old, new, sums, counts)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn move_avx2(rows: &[f32], dim: usize, old: &[u32], new: &[u32], sums: &mut [f64], counts: &mut [i64]) -> usize {
    move_all(rows, dim, old, new, sums, counts)
}

#[inline(always)]
fn move_all(rows: &[f32], dim: usize, old: &[u32], new: &[u32], sums: &mut [f64], counts: &mut [i64]) -> usize {
    let mut changed = 0;
    for ((row, &from), &to) in rows.chunks_exact(dim).zip(old).zip(new) {
        if from == to {
            continue;
        }
        changed += 1;
        counts[to as usize] += 1;
        for (sum, &x) in sums[to as usize * dim..][..dim].iter_mut().zip(row) {
            *sum += f64::from(x);
        }
        if from != NO_CLUSTER {
            counts[from as usize] -= 1;
            for (sum, &x) in sums[from as usize * dim..][..dim].iter_mut().zip(row) {
                *sum -= f64::from(x);
            }
        }
    }
    changed
}

/// Adds to `sums` and `squares`, feature by feature, `x - origin` and its square for every row. `O(rows x dim)`.
///
/// # Panics
/// If lengths do not fit together.
pub fn add_moments(rows: &[f32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
    assert!(rows.len().is_multiple_of(origin.len()) && sums.len() == origin.len() && squares.len() == origin.len());
    match Level::best() {
        // SAFETY: the level was found on this machine.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { moments_avx512(rows, origin, sums, squares) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { moments_avx2(rows, origin, sums, squares) },
        Level::Portable => moments(rows, origin, sums, squares),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn moments_avx512(rows: &[f32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
    moments(rows, origin, sums, squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn moments_avx2(rows: &[f32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
    moments(rows, origin, sums, squares);
}

#[inline(always)]
fn moments(rows: &[f32], origin: &[f32], sums: &mut [f64], squares: &mut [f64]) {
    for row in rows.chunks_exact(origin.len()) {
        for (((&x, &o), sum), square) in row.iter().zip(origin).zip(sums.iter_mut()).zip(squares.iter_mut()) {
            let x = f64::from(x) - f64::from(o);
            *sum += x;
            *square += x * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_keeps_the_sums_of_the_labels() {
        let rows: Vec<f32> = (0..60).map(|i| (i * 7 % 11) as f32).collect();
        let (old, new): (Vec<u32>, Vec<u32>) = (0..20u32).map(|i| (i % 3, i * i % 4)).unzip();
        let nowhere = vec![NO_CLUSTER; 20];
        let (mut sums, mut counts) = (vec![0.0; 12], vec![0; 4]);
        assert_eq!(move_rows(&rows, 3, &nowhere, &old, &mut sums, &mut counts), 20);
        let changed = move_rows(&rows, 3, &old, &new, &mut sums, &mut counts);
        assert_eq!(changed, old.iter().zip(&new).filter(|(a, b)| a != b).count());
        let (mut fresh, mut fresh_counts) = (vec![0.0; 12], vec![0; 4]);
        move_rows(&rows, 3, &nowhere, &new, &mut fresh, &mut fresh_counts);
        assert_eq!((sums, counts), (fresh, fresh_counts));
    }
}
