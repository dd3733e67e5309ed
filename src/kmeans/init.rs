//! Seeding: greedy k-means++ over a sample of the rows.

use std::borrow::Cow;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::device::{Device, Points};
use crate::error::{Error, Result};
use crate::kernel::Rows;

/// How many rows the seeding uses: all if there are few, else a sample that is large compared with `k`. It depends only
/// on the shape, so that seeds are the same wherever the rows are stored.
pub(super) fn sample_rows(k: usize, dim: usize) -> usize {
    ((1 << 22) / dim).min(1 << 17).max(k.saturating_mul(32))
}

/// `k` distinct rows as the first centroids, by k-means++ over `sample` rows drawn without replacement.
///
/// If the sample has fewer distinct rows, the rows farthest from the centroids so far are added.
pub(super) fn seeds(
    points: &dyn Points,
    k: usize,
    sample: usize,
    rng: &mut ChaCha8Rng,
    device: &dyn Device,
) -> Result<Vec<f32>> {
    let (n, dim) = (points.rows().len(), points.rows().dim());
    let seeds = distinct(points, k, sample, rng, device)?;
    match seeds.len() == k * dim {
        true => Ok(seeds),
        false => Err(too_few_distinct(k, seeds.len() / dim, n)),
    }
}

/// As [`seeds`], but fewer where there are fewer distinct rows.
pub(super) fn distinct(
    points: &dyn Points,
    k: usize,
    sample: usize,
    rng: &mut ChaCha8Rng,
    device: &dyn Device,
) -> Result<Vec<f32>> {
    let (rows, dim) = (points.rows(), points.rows().dim());
    let sampled = draw(rows, sample, rng)?;
    let mut seeds = plus_plus(&sampled, dim, k, rng, device)?;
    while seeds.len() < k * dim
        && let Some(row) = farthest(points, &seeds)?
    {
        let mut values = vec![0.0; dim];
        rows.read(row..row + 1, &mut values)?;
        seeds.extend(values);
    }
    Ok(seeds)
}

/// Of `n_init` seedings, the one with the least inertia over `judge`, on a tie the first.
pub(super) fn best(
    judge: &dyn Points,
    n_init: usize,
    mut seeds: impl FnMut(u64) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let mut best = (f64::INFINITY, seeds(0)?);
    if n_init == 1 {
        return Ok(best.1);
    }
    best.0 = inertia(judge, &best.1)?;
    for start in 1..n_init as u64 {
        let seeds = seeds(start)?;
        let inertia = inertia(judge, &seeds)?;
        if inertia < best.0 {
            best = (inertia, seeds);
        }
    }
    Ok(best.1)
}

fn inertia(points: &dyn Points, centroids: &[f32]) -> Result<f64> {
    let parts = points.fold(centroids, Vec::new, |all, _, _, squared| all.extend_from_slice(squared))?;
    Ok(parts.iter().flatten().map(|&d: &f32| f64::from(d)).sum())
}

/// The error for `k` clusters of `rows` rows with only `found` distinct ones.
pub(super) fn too_few_distinct(k: usize, found: usize, rows: usize) -> Error {
    Error::input(format!("k = {k} clusters need {k} distinct rows, only {found} of the {rows} rows are distinct"))
}

/// `count` rows drawn without replacement, in order; all rows if there are no more.
pub(super) fn draw<'a>(rows: &'a dyn Rows, count: usize, rng: &mut ChaCha8Rng) -> Result<Cow<'a, [f32]>> {
    let (n, dim) = (rows.len(), rows.dim());
    if count < n {
        let mut indices: Vec<u32> = rand::seq::index::sample(rng, n, count).into_iter().map(|i| i as u32).collect();
        indices.sort_unstable();
        let mut values = vec![0.0; count * dim];
        rows.gather(&indices, &mut values)?;
        return Ok(values.into());
    }
    if let Some(all) = rows.as_slice() {
        return Ok(all.into());
    }
    let mut values = vec![0.0; n * dim];
    rows.read(0..n, &mut values)?;
    Ok(values.into())
}

/// The row farthest from its nearest centroid, on a tie the first; `None` if every row is a centroid.
fn farthest(points: &dyn Points, centroids: &[f32]) -> Result<Option<usize>> {
    let parts = points.fold(
        centroids,
        || (0.0f32, None),
        |best, first, _, squared| {
            for (i, &squared) in squared.iter().enumerate() {
                if squared > best.0 {
                    *best = (squared, Some(first + i));
                }
            }
        },
    )?;
    Ok(parts.into_iter().fold((0.0, None), |best, part| if part.0 > best.0 { part } else { best }).1)
}

/// Greedy k-means++: each next centroid is the best of `2 + ln k` rows drawn with probability proportional to their
/// squared distance. Fewer than `k` if there are fewer distinct rows. `O(k log k x rows x dim)`.
pub(super) fn plus_plus(
    sample: &[f32],
    dim: usize,
    k: usize,
    rng: &mut ChaCha8Rng,
    device: &dyn Device,
) -> Result<Vec<f32>> {
    let trials = 2 + (k as f64).ln() as usize;
    let mut seeding = device.seeding(sample, dim)?;
    let mut candidates = vec![rng.random_range(0..sample.len() / dim)];
    let mut potentials = vec![0.0; trials];
    let mut seeds = Vec::with_capacity(k * dim);
    loop {
        potentials.resize(candidates.len(), 0.0);
        seeding.potentials(&candidates, &mut potentials)?;
        let best = (0..candidates.len()).min_by(|&a, &b| potentials[a].total_cmp(&potentials[b])).unwrap_or(0);
        seeds.extend_from_slice(&sample[candidates[best] * dim..][..dim]);
        if seeds.len() == k * dim || potentials[best] <= 0.0 {
            return Ok(seeds);
        }
        seeding.choose(best)?;
        candidates =
            (0..trials).map(|_| seeding.locate(rng.random::<f64>() * potentials[best])).collect::<Result<_>>()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use crate::kernel::Dense;
    use crate::seed::Seed;

    #[test]
    fn seeds_are_distinct_rows_and_the_same_on_any_number_of_threads() {
        let rows: Vec<f32> = (0..20_000).map(|i| (i * i % 997) as f32).collect();
        let draw = |threads| {
            let mut rng = Seed(3).stream("kmeans", 0);
            let (device, rows) = (Cpu::new(threads), Dense::new(&rows, 2));
            seeds(&*device.points(&rows).unwrap(), 30, 5000, &mut rng, &device).unwrap()
        };
        let found = draw(1);
        assert_eq!(found, draw(3));
        let distinct: std::collections::BTreeSet<_> =
            found.chunks(2).map(|c| (c[0].to_bits(), c[1].to_bits())).collect();
        assert_eq!(distinct.len(), 30);
        assert!(found.chunks(2).all(|c| rows.chunks(2).any(|r| r == c)));
    }

    #[test]
    fn a_rare_value_outside_the_sample_is_found() {
        let mut rows = vec![0.0; 10_000];
        rows[7777] = 5.0;
        let mut rng = Seed(1).stream("kmeans", 0);
        let (device, rows) = (Cpu::new(1), Dense::new(&rows, 1));
        let points = device.points(&rows).unwrap();
        let found = seeds(&*points, 2, 10, &mut rng, &device).unwrap();
        assert_eq!(found, [0.0, 5.0]);
        let error = seeds(&*points, 3, 10, &mut rng, &device).unwrap_err();
        assert!(error.to_string().contains("k = 3") && error.to_string().contains("only 2"), "{error}");
    }
}
