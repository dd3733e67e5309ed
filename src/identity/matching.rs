//! Which new cluster is which old one.
//!
//! Two clusters can be the same only if their common rows are more than half of the mean of their sizes: their Dice
//! coefficient (or F1 measure) `2 |A ∩ B| / (|A| + |B|)` is above 1/2, their Jaccard coefficient above 1/3. Half of a
//! cluster is enough where the other half became another one; a small cluster that was lost in a large one is not. (MONIC,
//! Spiliopoulou et al. 2006, asks for half of the old cluster alone, which a new cluster of nearly all rows has of every
//! old one.) Of all assignments of such pairs, the one that keeps the most rows is taken; of those, one of the most pairs;
//! and of those, where the centroids are known in one space, one with the least total squared distance.
//!
//! Clusters without common rows, of which rows say nothing, are matched by centroids: a new centroid is the old cluster's
//! if it lies nearer to the old centroid than half way to the next old one, and is the nearest to do so. The balls of
//! this radius do not meet, so no new cluster is in two of them.

use std::collections::HashMap;

use pathfinding::matrix::Matrix;
use pathfinding::prelude::kuhn_munkres;

use super::overlap::Overlap;

/// The centroids of old and new clusters in one space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Places<'a> {
    /// Values of a centroid.
    pub dim: usize,
    /// The old centroids, row-major.
    pub old: &'a [f64],
    /// The new ones.
    pub new: &'a [f64],
}

impl Places<'_> {
    /// The squared distance between an old and a new centroid.
    pub(super) fn squared(&self, old: usize, new: usize) -> f64 {
        squared(self.at(self.old, old), self.at(self.new, new))
    }

    fn at<'b>(&self, centroids: &'b [f64], index: usize) -> &'b [f64] {
        &centroids[index * self.dim..(index + 1) * self.dim]
    }

    /// The squared distance from an old centroid to the next old one; infinite for the only one.
    fn apart(&self, old: usize, clusters: usize) -> f64 {
        let others = (0..clusters).filter(|other| *other != old);
        let distance = |other| squared(self.at(self.old, old), self.at(self.old, other));
        others.map(distance).fold(f64::INFINITY, f64::min)
    }
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The old cluster that each new cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    old_of: Vec<Option<usize>>,
}

impl Matching {
    /// `new` new clusters, none of which is an old one.
    pub fn none(new: usize) -> Self {
        Self { old_of: vec![None; new] }
    }

    /// `k` clusters of a model that is the old one over again.
    pub fn same(k: usize) -> Self {
        Self { old_of: (0..k).map(Some).collect() }
    }

    /// The index of the old cluster of each new one; `None` for one that is new. No old cluster comes twice.
    pub fn old_of(&self) -> &[Option<usize>] {
        &self.old_of
    }

    /// The index of the new cluster of each of `old` old ones.
    pub fn new_of(&self, old: usize) -> Vec<Option<usize>> {
        let mut new_of = vec![None; old];
        for (new, old) in self.old_of.iter().enumerate() {
            if let Some(old) = old {
                new_of[*old] = Some(new);
            }
        }
        new_of
    }
}

/// Whether a pair may be one cluster: its common rows are more than half of the mean of both sizes.
fn may_match(overlap: &Overlap, (old, new): (usize, usize), rows: u64) -> bool {
    4 * u128::from(rows) > u128::from(overlap.of_old()[old]) + u128::from(overlap.of_new()[new])
}

/// The optimal assignment of new clusters to old ones. `places` are their centroids, where both lie in one space (the
/// embeddings of two networks do not).
///
/// A cluster has at most three others that it may be, so that this takes about `O(pairs + old x new x dim)`.
///
/// ```
/// use dacpipe::identity::{Overlap, Places, match_clusters};
///
/// // Half of 0 is gone to a new cluster: 0 keeps the larger half. 1 has no rows, but its centroid is where it was.
/// let mut overlap = Overlap::new(2, 3);
/// overlap.add(0, 0, 49);
/// overlap.add(0, 2, 51);
/// let places = Places { dim: 1, old: &[0.0, 10.0], new: &[-1.0, 9.0, 1.0] };
/// assert_eq!(match_clusters(&overlap, Some(&places)).old_of(), [None, Some(1), Some(0)]);
/// ```
///
/// # Panics
/// If `places` has another number of centroids than `overlap` has clusters.
pub fn match_clusters(overlap: &Overlap, places: Option<&Places<'_>>) -> Matching {
    let (old, new) = (overlap.of_old().len(), overlap.of_new().len());
    if let Some(places) = places {
        let lengths = (places.old.len(), places.new.len());
        assert_eq!(lengths, (old * places.dim, new * places.dim), "centroids of other clusters");
    }
    let mut matching = Matching::none(new);
    let pairs: Vec<((usize, usize), u64)> =
        overlap.pairs().filter(|&(pair, rows)| may_match(overlap, pair, rows)).collect();
    for group in groups(&pairs, old, new) {
        for (old, new) in assign(&group, places) {
            matching.old_of[new] = Some(old);
        }
    }
    if let Some(places) = places {
        let unseen = |rows: &[u64]| rows.iter().enumerate().filter(|(_, rows)| **rows == 0).map(|(i, _)| i).collect();
        let (left, candidates): (Vec<usize>, Vec<usize>) = (unseen(overlap.of_old()), unseen(overlap.of_new()));
        for before in left {
            let limit = places.apart(before, old) / 4.0;
            let near = candidates.iter().map(|&new| (places.squared(before, new), new)).filter(|(d, _)| *d < limit);
            if let Some((_, new)) = near.min_by(|a, b| a.0.total_cmp(&b.0)) {
                matching.old_of[new] = Some(before);
            }
        }
    }
    matching
}

/// The pairs, in groups that have no cluster in common.
fn groups(pairs: &[((usize, usize), u64)], old: usize, new: usize) -> Vec<Vec<((usize, usize), u64)>> {
    // A forest of sets: old clusters first, then new ones.
    let mut above: Vec<usize> = (0..old + new).collect();
    fn top(above: &mut [usize], mut at: usize) -> usize {
        while above[at] != at {
            above[at] = above[above[at]];
            at = above[at];
        }
        at
    }
    for &((a, b), _) in pairs {
        let (a, b) = (top(&mut above, a), top(&mut above, old + b));
        above[a.max(b)] = a.min(b);
    }
    let mut number = HashMap::new();
    let mut groups: Vec<Vec<((usize, usize), u64)>> = Vec::new();
    for &pair in pairs {
        let group = *number.entry(top(&mut above, pair.0.0)).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push(pair),
            None => groups.push(vec![pair]),
        }
    }
    groups
}

/// Bits of how near two centroids are, in a weight.
const NEAR_BITS: u32 = 40;
/// The place of the number of pairs in a weight, above the sum of how near the pairs are.
const PAIRS_AT: u32 = 60;
/// The place of the number of rows, above the number of pairs.
const ROWS_AT: u32 = 80;

/// The best assignment among some pairs: the most rows, then the most pairs, then the least squared distance.
fn assign(pairs: &[((usize, usize), u64)], places: Option<&Places<'_>>) -> Vec<(usize, usize)> {
    if let [(pair, _)] = pairs {
        return vec![*pair];
    }
    let sorted = |of: fn(&((usize, usize), u64)) -> usize| {
        let mut clusters: Vec<usize> = pairs.iter().map(of).collect();
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    };
    let (old, new) = (sorted(|pair| pair.0.0), sorted(|pair| pair.0.1));
    let distance = |(old, new)| places.map_or(0.0, |places| places.squared(old, new));
    let farthest = pairs.iter().map(|(pair, _)| distance(*pair)).fold(0.0, f64::max);
    let near = |pair| match farthest > 0.0 {
        true => ((1.0 - distance(pair) / farthest) * f64::from(NEAR_BITS).exp2()) as i128,
        false => 0,
    };
    // The solver needs at least as many columns as rows.
    let turned = old.len() > new.len();
    let (short, long) = if turned { (&new, &old) } else { (&old, &new) };
    let mut weights = Matrix::new(short.len(), long.len(), 0_i128);
    for &((a, b), rows) in pairs {
        let (i, j) = if turned { (b, a) } else { (a, b) };
        let (Ok(i), Ok(j)) = (short.binary_search(&i), long.binary_search(&j)) else { continue };
        weights[(i, j)] = (i128::from(rows) << ROWS_AT) + (1 << PAIRS_AT) + near((a, b));
    }
    let (_, partner) = kuhn_munkres(&weights);
    let found = partner.into_iter().enumerate().filter(|&pair| weights[pair] > 0);
    found.map(|(i, j)| if turned { (long[j], short[i]) } else { (short[i], long[j]) }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value of a matching: rows kept, pairs, and the total squared distance.
    fn value(matching: &[Option<usize>], overlap: &Overlap, places: Option<&Places<'_>>) -> (u64, usize, f64) {
        let pairs = || matching.iter().enumerate().filter_map(|(new, old)| Some(((*old)?, new)));
        let distance = pairs().map(|(old, new)| places.map_or(0.0, |places| places.squared(old, new))).sum();
        (pairs().map(|(old, new)| overlap.common(old, new)).sum(), pairs().count(), distance)
    }

    /// The best of all matchings of pairs that may be one cluster.
    fn brute(overlap: &Overlap, places: Option<&Places<'_>>) -> (u64, usize, f64) {
        fn go(
            at: &mut Vec<Option<usize>>,
            overlap: &Overlap,
            places: Option<&Places<'_>>,
            best: &mut (u64, usize, f64),
        ) {
            let new = at.len();
            if new == overlap.of_new().len() {
                let now = value(at, overlap, places);
                let better = (now.0, now.1) > (best.0, best.1);
                if better || ((now.0, now.1) == (best.0, best.1) && now.2 < best.2) {
                    *best = now;
                }
                return;
            }
            let free = (0..overlap.of_old().len()).filter(|old| {
                let common = overlap.common(*old, new) as f64;
                let mean = (overlap.of_old()[*old] + overlap.of_new()[new]) as f64 / 2.0;
                common > mean / 2.0 && !at.contains(&Some(*old))
            });
            for old in free.map(Some).chain([None]).collect::<Vec<_>>() {
                at.push(old);
                go(at, overlap, places, best);
                at.pop();
            }
        }
        let mut best = (0, 0, f64::INFINITY);
        go(&mut Vec::new(), overlap, places, &mut best);
        best
    }

    fn table(old: usize, new: usize, rows: &[u64]) -> Overlap {
        let mut overlap = Overlap::new(old, new);
        for i in 0..old {
            (0..new).for_each(|j| overlap.add(i, j, rows[i * new + j]));
        }
        overlap
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_other_matching_is_better(
            (old, new, rows, centroids) in (1_usize..6, 1_usize..6).prop_flat_map(|(old, new)| {
                // Few rows, so that ties are common; and many zeros, so that pairs may match at all.
                let rows = prop::collection::vec(prop_oneof![3 => Just(0_u64), 1 => 1_u64..4, 1 => 5_u64..60], old * new);
                (Just(old), Just(new), rows, prop::collection::vec(-4_i32..5, 2 * (old + new)))
            }),
            with_places: bool,
        ) {
            let overlap = table(old, new, &rows);
            let centroids: Vec<f64> = centroids.into_iter().map(f64::from).collect();
            let (before, after) = centroids.split_at(2 * old);
            let places = Places { dim: 2, old: before, new: after };
            let places = with_places.then_some(&places);
            let found = match_clusters(&overlap, places);
            // What rows decide: a cluster without rows is matched by its centroid, which the brute force leaves alone.
            let by_rows: Vec<Option<usize>> = found.old_of().iter().enumerate()
                .map(|(new, old)| old.filter(|_| overlap.of_new()[new] > 0)).collect();
            let (rows, pairs, distance) = value(&by_rows, &overlap, places);
            let best = brute(&overlap, places);
            prop_assert_eq!((rows, pairs), (best.0, best.1));
            prop_assert!((distance - best.2).abs() < 1e-6, "{} {}", distance, best.2);
            let mut all: Vec<usize> = found.old_of().iter().flatten().copied().collect();
            all.sort_unstable();
            let matched = all.len();
            all.dedup();
            prop_assert_eq!(matched, all.len(), "an old cluster is two new ones");
        }

        /// The order in which a learner numbers its clusters says nothing.
        #[test]
        fn clusters_that_are_only_renumbered_keep_their_identity(
            sizes in prop::collection::vec(1_u64..1000, 1..40),
            seed: u64,
        ) {
            let k = sizes.len();
            let mut order: Vec<usize> = (0..k).collect();
            order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
            let mut overlap = Overlap::new(k, k);
            for (old, new) in order.iter().enumerate() {
                overlap.add(old, *new, sizes[old]);
            }
            let found = match_clusters(&overlap, None);
            prop_assert_eq!(found.new_of(k), order.into_iter().map(Some).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_small_cluster_is_not_taken_for_a_large_one_that_has_all_its_rows() {
        // All of old 1 and nearly half of old 0 are in new 0; the assignment of the most rows would call new 0 the old 1.
        let found = match_clusters(&table(2, 2, &[490, 510, 10, 0]), None);
        assert_eq!(found.old_of(), [None, Some(0)]);
    }

    #[test]
    fn rows_decide_before_centroids_and_centroids_decide_between_equal_rows() {
        let places = Places { dim: 1, old: &[0.0], new: &[0.0, 9.0] };
        assert_eq!(match_clusters(&table(1, 2, &[49, 51]), Some(&places)).old_of(), [None, Some(0)]);
        let equal = table(1, 2, &[50, 50]);
        assert_eq!(match_clusters(&equal, Some(&places)).old_of(), [Some(0), None]);
        let turned = Places { new: &[9.0, 0.0], ..places };
        assert_eq!(match_clusters(&equal, Some(&turned)).old_of(), [None, Some(0)]);
    }

    #[test]
    fn without_rows_a_centroid_is_followed_less_than_half_way_to_the_next() {
        let nothing = Overlap::new(2, 3);
        let near = |new: &[f64]| {
            let places = Places { dim: 1, old: &[0.0, 10.0], new };
            match_clusters(&nothing, Some(&places)).old_of().to_vec()
        };
        assert_eq!(near(&[4.9, 14.9, 30.0]), [Some(0), Some(1), None]);
        assert_eq!(near(&[5.0, 15.0, 6.0]), [None, None, Some(1)], "half way is too far");
        assert_eq!(near(&[1.0, -2.0, 3.0]), [Some(0), None, None], "the nearest");
        assert_eq!(match_clusters(&nothing, None).old_of(), [None; 3]);
        // The only cluster has no other to be told from.
        let places = Places { dim: 1, old: &[0.0], new: &[99.0] };
        assert_eq!(match_clusters(&Overlap::new(1, 1), Some(&places)).old_of(), [Some(0)]);
    }

    #[test]
    fn more_and_fewer_clusters_are_matched() {
        // Two become four.
        let grown = match_clusters(&table(2, 4, &[60, 40, 0, 0, 0, 0, 30, 70]), None);
        assert_eq!(grown.old_of(), [Some(0), None, None, Some(1)]);
        // Four become two.
        let shrunk = match_clusters(&table(4, 2, &[60, 0, 40, 0, 0, 30, 0, 70]), None);
        assert_eq!(shrunk.old_of(), [Some(0), Some(3)]);
        assert_eq!(shrunk.new_of(4), [Some(0), None, None, Some(1)]);
    }

    #[test]
    fn thousands_of_clusters_are_matched_in_groups() {
        let k = 3000;
        let mut overlap = Overlap::new(k, k);
        for i in 0..k {
            overlap.add(i, (i + 1) % k, 70);
            overlap.add(i, i, 30);
        }
        let found = match_clusters(&overlap, None);
        assert!((0..k).all(|new| found.old_of()[new] == Some((new + k - 1) % k)));
    }
}
