//! How well clusters hang together: the links between neighbouring rows that they cut.
//!
//! Of several clusterings with the same number of clusters, the one with the least inertia is not the best where groups lie
//! apart but differ in width: it cuts a wide group in two and takes two others that nearly touch for one. Who neighbours
//! whom tells these apart: the middle of a group has more links than the gap between two.

use std::cmp::Ordering;

use crate::error::Result;
use crate::kernel::Rows;
use crate::manifold::{EXACT_WORK, Metric, NeighborSearch, Subset};
use crate::stage::FitContext;

/// Rows whose neighbours are looked at, at most.
const SAMPLE: usize = 20_000;
/// Neighbours of a row.
const NEIGHBORS: usize = 10;

/// Who neighbours whom among some of the rows.
pub(super) struct Links {
    /// The numbers of these rows among all, rising.
    rows: Vec<u32>,
    /// Neighbours of a row.
    count: usize,
    /// As places in `rows`.
    neighbors: Vec<u32>,
}

impl Links {
    /// The links of `rows`, of a random sample of them if there are many.
    ///
    /// # Errors
    /// As [`NeighborSearch::find`].
    pub fn of(rows: &dyn Rows, cx: &FitContext<'_>) -> Result<Self> {
        let sample = Subset::drawn(rows, SAMPLE, &mut cx.seed.stream("links", 0));
        let search = NeighborSearch {
            metric: Metric::Euclidean,
            exact_work: EXACT_WORK,
            seed: cx.seed,
            device: cx.device,
            control: cx.control,
        };
        let found = search.find(&sample, NEIGHBORS, &mut |_| {})?;
        Ok(Self { rows: sample.numbers(), count: found.count, neighbors: found.rows })
    }

    /// Bytes that the links of `rows` rows and of `groups` groups of them need at most.
    pub fn bytes(rows: usize, groups: usize) -> u128 {
        let candidates = rows.min(SAMPLE) as u128 * (NEIGHBORS as u128 + 4);
        24 * candidates + 16 * (groups as u128).pow(2)
    }

    /// The links between each two of `k` groups, `k x k`, both ways together; `labels` has the group of every row.
    fn between(&self, labels: &[u32], k: usize) -> Vec<f64> {
        let mut links = vec![0.0; k * k];
        let group = |place: usize| labels[self.rows[place] as usize] as usize;
        for (place, near) in self.neighbors.chunks_exact(self.count.max(1)).enumerate() {
            let from = group(place);
            for &other in near {
                let to = group(other as usize);
                links[from * k + to] += 1.0;
                links[to * k + from] += 1.0;
            }
        }
        links
    }

    /// The normalised cut of `k` clusters (Shi and Malik 2000): the part of its links that leave a cluster, summed over the
    /// clusters. A cluster without links counts 1, as one that is all cut. `labels` has the cluster of every row.
    pub fn cut(&self, labels: &[u32], k: usize) -> f64 {
        let links = self.between(labels, k);
        (0..k)
            .map(|c| {
                let of_cluster = &links[c * k..][..k];
                match of_cluster.iter().sum::<f64>() {
                    0.0 => 1.0,
                    all => 1.0 - of_cluster[c] / all,
                }
            })
            .sum()
    }

    /// Merges `groups` groups until `k` are left, always the two with the most links for their sizes: average linkage
    /// (Sokal and Michener 1958). `labels` has the group of every row. Returns where each group went. `O(groups^3)`.
    pub fn merged(&self, labels: &[u32], groups: usize, k: usize) -> Vec<u32> {
        let mut links = self.between(labels, groups);
        let mut sizes: Vec<f64> = links.chunks_exact(groups).map(|row| row.iter().sum::<f64>().max(1.0)).collect();
        let mut went: Vec<usize> = (0..groups).collect();
        let mut left: Vec<usize> = (0..groups).collect();
        while left.len() > k.max(1) {
            let average = |a: usize, b: usize| links[a * groups + b] / (sizes[a] * sizes[b]);
            let pairs = left.iter().enumerate().flat_map(|(i, &a)| left[i + 1..].iter().map(move |&b| (a, b)));
            // The first of those that are equal.
            let nearest = pairs.max_by(|&(a, b), &(c, d)| match average(a, b).total_cmp(&average(c, d)) {
                Ordering::Equal => (c, d).cmp(&(a, b)),
                order => order,
            });
            let Some((into, from)) = nearest else { break };
            for &other in &left {
                let both = links[into * groups + other] + links[from * groups + other];
                links[into * groups + other] = both;
                links[other * groups + into] = both;
            }
            sizes[into] += sizes[from];
            left.retain(|&group| group != from);
            went.iter_mut().filter(|group| **group == from).for_each(|group| *group = into);
        }
        let number = |group: &usize| left.iter().position(|other| other == group).unwrap_or(0) as u32;
        went.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use crate::event::Control;
    use crate::kernel::Dense;
    use crate::seed::Seed;
    use crate::stage::NoCheckpoint;

    /// Links of the rows of a line of points, each with those next to it.
    fn links(neighbors: &[[u32; 2]]) -> Links {
        Links { rows: (0..neighbors.len() as u32).collect(), count: 2, neighbors: neighbors.concat() }
    }

    /// Two triples, with one link between them.
    fn triples() -> Links {
        links(&[[1, 2], [0, 2], [0, 3], [4, 5], [3, 5], [3, 4]])
    }

    #[test]
    fn the_cut_is_that_of_its_definition() {
        let links = triples();
        // Twelve links, counted from both ends; one leaves each triple: 1 of 12, and 1 of 12.
        assert!((links.cut(&[0, 0, 0, 1, 1, 1], 2) - (1.0 / 11.0 + 1.0 / 13.0)).abs() < 1e-12);
        assert_eq!(links.cut(&[0; 6], 1), 0.0);
        assert_eq!(links.cut(&[0; 6], 2), 1.0);
        assert!(links.cut(&[0, 0, 1, 1, 1, 1], 2) > links.cut(&[0, 0, 0, 1, 1, 1], 2));
    }

    #[test]
    fn groups_with_the_most_links_for_their_sizes_are_merged_first() {
        let links = triples();
        let alone: Vec<u32> = (0..6).collect();
        assert_eq!(links.merged(&alone, 6, 2), [0, 0, 0, 1, 1, 1]);
        assert_eq!(links.merged(&alone, 6, 1), [0; 6]);
        assert_eq!(links.merged(&alone, 6, 6), alone);
        // Groups, not rows.
        assert_eq!(links.merged(&[0, 0, 1, 2, 2, 2], 3, 2), [0, 0, 1]);
    }

    #[test]
    fn links_are_the_nearest_rows() {
        let values: Vec<f32> = (0..40).map(|i| if i < 20 { i as f32 } else { 1000.0 + i as f32 }).collect();
        let (device, control) = (Cpu::new(2), Control::default());
        let cx = FitContext {
            seed: Seed(1),
            device: &device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let links = Links::of(&Dense::new(&values, 1), &cx).unwrap();
        let halves: Vec<u32> = (0..40).map(|i| u32::from(i >= 20)).collect();
        assert_eq!((links.rows.len(), links.count, links.cut(&halves, 2)), (40, NEIGHBORS, 0.0));
        // More rows than are looked at.
        let many: Vec<f32> = (0..SAMPLE + 5).map(|i| i as f32).collect();
        let links = Links::of(&Dense::new(&many, 1), &cx).unwrap();
        assert_eq!((links.rows.len(), links.neighbors.len()), (SAMPLE, SAMPLE * NEIGHBORS));
    }
}
