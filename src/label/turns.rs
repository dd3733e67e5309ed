//! Clusters and the scatter within them, found in turns.

use std::collections::HashMap;

use crate::error::Result;
use crate::kernel::Rows;
use crate::kmeans::{self, KMeans, KMeansSpec};
use crate::normalize::{Normalized, Normalizer};
use crate::stage::FitContext;

/// Turns at most.
const TURNS: usize = 30;
/// The turns end when fewer rows than this part of them change their cluster.
const STILL: f64 = 1e-3;

/// From the clusters `found` in the rows as `normalizer` leaves them: the scatter within the clusters makes the next
/// normalisation, in which Lloyd's iterations go on from the same centroids, until nearly all rows keep their cluster.
/// That is the classification EM algorithm (Celeux and Govaert 1992) of a Gaussian mixture whose clusters share one
/// covariance and one weight.
///
/// # Errors
/// As [`kmeans::fit_from`].
pub(super) fn in_turns(
    rows: &dyn Rows,
    spec: &KMeansSpec,
    mut normalizer: Normalizer,
    mut found: KMeans,
    cx: &FitContext<'_>,
) -> Result<(Normalizer, KMeans)> {
    let mut labels = kmeans::labels(&Normalized::new(rows, &normalizer), &found.centroids, cx.device)?;
    for _ in 0..TURNS {
        let centroids = normalizer.invert(&found.centroids);
        normalizer = Normalizer::within(rows, &labels, &centroids, cx.device.pool())?;
        let mut initial = vec![0.0; centroids.len()];
        normalizer.apply(&centroids, &mut initial);
        let normalized = Normalized::new(rows, &normalizer);
        found = kmeans::fit_from(&normalized, spec, initial, cx.device, cx.control)?;
        let before = std::mem::replace(&mut labels, kmeans::labels(&normalized, &found.centroids, cx.device)?);
        if (moved(&before, &labels) as f64) < STILL * rows.len() as f64 {
            break;
        }
    }
    Ok((normalizer, found))
}

/// Rows that are not where most rows of their cluster went; clusters are numbered anew each time.
fn moved(before: &[u32], after: &[u32]) -> usize {
    let mut together = HashMap::<(u32, u32), usize>::new();
    before.iter().zip(after).for_each(|(&old, &new)| *together.entry((old, new)).or_default() += 1);
    let mut most = HashMap::<u32, usize>::new();
    for ((old, _), count) in together {
        let most = most.entry(old).or_default();
        *most = count.max(*most);
    }
    before.len() - most.into_values().sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Cpu, Device};
    use crate::event::Control;
    use crate::kernel::Dense;
    use crate::metrics::Contingency;
    use crate::normalize::Normalize;
    use crate::seed::Seed;
    use crate::stage::NoCheckpoint;

    #[test]
    fn rows_that_moved_are_counted_whatever_clusters_are_called() {
        assert_eq!(moved(&[0, 0, 0, 1, 1], &[1, 1, 0, 0, 0]), 1);
        assert_eq!(moved(&[0, 1, 2], &[2, 0, 1]), 0);
        assert_eq!(moved(&[], &[]), 0);
    }

    /// Rows in two dimensions around three points, wide along the diagonal.
    fn rows() -> Vec<f32> {
        let spread = |i: usize, by: usize| (i * by % 1009) as f32 / 1009.0 - 0.5;
        let centre = |i: usize| [[0.0, 0.0], [1.0, 1.0], [2.0, 0.3]][i % 3];
        (0..1500)
            .flat_map(|i| {
                let along = 1.6 * spread(i, 104_729);
                [centre(i)[0] + 0.5 * spread(i, 7919) + along, centre(i)[1] + along]
            })
            .collect()
    }

    /// The determinant of the scatter of `values` about the means of their clusters.
    fn scatter(values: &[f32], labels: &[u32]) -> f64 {
        let of = |c: u32, d: usize| {
            let own = values.chunks(2).zip(labels).filter(move |(_, label)| **label == c);
            own.map(move |(row, _)| f64::from(row[d]))
        };
        let mean = |c: u32, d: usize| of(c, d).sum::<f64>() / of(c, d).count() as f64;
        let product = |d: usize, e: usize| {
            let of_cluster = |c| of(c, d).zip(of(c, e)).map(|(x, y)| (x - mean(c, d)) * (y - mean(c, e))).sum::<f64>();
            (0..3).map(of_cluster).sum::<f64>()
        };
        let [xx, xy, yy] = [(0, 0), (0, 1), (1, 1)].map(|(d, e)| product(d, e));
        xx * yy - xy * xy
    }

    #[test]
    fn turns_make_clusters_narrower_with_the_same_bits_on_any_number_of_threads() {
        let values = rows();
        let rows = Dense::new(&values, 2);
        let spec = KMeansSpec::new(3);
        let find = |threads: usize| {
            let (device, control) = (Cpu::new(threads), Control::default());
            let cx = FitContext {
                seed: Seed(3),
                device: &device,
                control: &control,
                checkpoint: &NoCheckpoint,
                memory: u64::MAX,
            };
            let normalizer = Normalizer::learn(Normalize::Within, &rows, device.pool()).unwrap().unwrap();
            let normalized = Normalized::new(&rows, &normalizer);
            let found = kmeans::fit(&normalized, &spec, cx.seed, &device, &control).unwrap();
            let before = kmeans::labels(&normalized, &found.centroids, &device).unwrap();
            let (normalizer, found) = in_turns(&rows, &spec, normalizer.clone(), found, &cx).unwrap();
            (before, kmeans::labels(&Normalized::new(&rows, &normalizer), &found.centroids, &device).unwrap())
        };
        let (before, after) = find(2);
        // What a Gaussian mixture of one covariance makes small is the determinant of the scatter within its clusters.
        assert!(scatter(&values, &after) < 0.99 * scatter(&values, &before));
        let agreement = |labels: &[u32]| {
            let mut table = Contingency::default();
            labels.iter().zip(0_u32..).for_each(|(&a, i)| table.add(a, i % 3));
            table.ari()
        };
        assert!(agreement(&after) > agreement(&before) + 0.03, "{} {}", agreement(&after), agreement(&before));
        assert_eq!(find(1), (before, after));
    }
}
