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
    let mut labels = labels_of(&Normalized::new(rows, &normalizer), &found, cx)?;
    for _ in 0..TURNS {
        let centroids = normalizer.invert(&found.centroids);
        normalizer = Normalizer::within(rows, &labels, &centroids, cx.device.pool())?;
        let mut initial = vec![0.0; centroids.len()];
        normalizer.apply(&centroids, &mut initial);
        let normalized = Normalized::new(rows, &normalizer);
        found = kmeans::fit_from(&normalized, spec, initial, cx.device, cx.control)?;
        let before = std::mem::replace(&mut labels, labels_of(&normalized, &found, cx)?);
        if (moved(&before, &labels) as f64) < STILL * rows.len() as f64 {
            break;
        }
    }
    Ok((normalizer, found))
}

/// The cluster of each row.
fn labels_of(rows: &dyn Rows, found: &KMeans, cx: &FitContext<'_>) -> Result<Vec<u32>> {
    let points = cx.device.points(rows)?;
    let parts = points.fold(&found.centroids, Vec::new, |all: &mut Vec<u32>, _, labels, _| {
        all.extend_from_slice(labels);
    })?;
    Ok(parts.concat())
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

    /// Three clusters, long in one direction and side by side in the other: plain k-means cuts them across.
    fn stripes() -> (Vec<f32>, Vec<u32>) {
        let spread = |i: usize, by: usize| (i * by % 1009) as f32 / 1009.0 - 0.5;
        let rows = (0..1500).flat_map(|i| [(i % 3) as f32 * 0.7 + 0.3 * spread(i, 7919), 12.0 * spread(i, 104_729)]);
        (rows.collect(), (0..1500).map(|i| i % 3).collect())
    }

    #[test]
    fn elongated_clusters_are_not_cut() {
        let (values, stripe) = stripes();
        let rows = Dense::new(&values, 2);
        let spec = KMeansSpec::new(3);
        let agreement = |turns: bool, threads: usize| {
            let (device, control) = (Cpu::new(threads), Control::default());
            let cx = FitContext { seed: Seed(3), device: &device, control: &control, checkpoint: &NoCheckpoint };
            let normalizer = Normalizer::learn(Normalize::Within, &rows, device.pool()).unwrap().unwrap();
            let normalized = Normalized::new(&rows, &normalizer);
            let found = kmeans::fit(&normalized, &spec, cx.seed, &device, &control).unwrap();
            let (normalizer, found) = match turns {
                true => in_turns(&rows, &spec, normalizer.clone(), found, &cx).unwrap(),
                false => (normalizer.clone(), found),
            };
            let labels = labels_of(&Normalized::new(&rows, &normalizer), &found, &cx).unwrap();
            let mut table = Contingency::default();
            labels.iter().zip(&stripe).for_each(|(&a, &b)| table.add(a, b));
            (table.ari(), labels)
        };
        assert!(agreement(false, 2).0 < 0.9);
        assert_eq!(agreement(true, 2).0, 1.0);
        assert_eq!(agreement(true, 2).1, agreement(true, 1).1);
    }
}
