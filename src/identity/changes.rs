//! What became of clusters: one event after the other, as the lineage of a table keeps them.

use super::Identities;
use super::matching::{Matching, Places};
use super::overlap::Overlap;

/// What happened to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// It is new. Each id is born once.
    Born,
    /// It keeps its id, and is elsewhere than it was.
    Moved,
    /// It is new, and more than half of its rows come from one old cluster.
    Split,
    /// It is gone, and more than half of its rows went into one new cluster.
    Merged,
    /// It is gone. Its id is not used again.
    Died,
}

impl What {
    /// All of them.
    pub const ALL: [What; 5] = [What::Born, What::Moved, What::Split, What::Merged, What::Died];

    /// Its name, as it is written: `"born"`.
    pub fn name(self) -> &'static str {
        match self {
            What::Born => "born",
            What::Moved => "moved",
            What::Split => "split",
            What::Merged => "merged",
            What::Died => "died",
        }
    }
}

/// An event in the life of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// What happened.
    pub what: What,
    /// The cluster's id.
    pub cluster: i32,
    /// The id of the cluster that it split from, or merged into.
    pub other: Option<i32>,
    /// Of the rows that both clusterings labelled: those that it has in common with the cluster that it was, split from
    /// or merged into; all of its rows if it was born or died.
    pub rows: Option<u64>,
    /// Those as a share: of the rows of the old cluster if it moved or merged, of those of the new one if it split.
    pub share: Option<f64>,
    /// How far its centroid moved, in the space that is clustered, if old and new ones are in one.
    pub distance: Option<f64>,
}

impl Change {
    fn new(what: What, cluster: i32) -> Self {
        Self { what, cluster, other: None, rows: None, share: None, distance: None }
    }

    /// A birth.
    pub fn born(cluster: i32) -> Self {
        Self::new(What::Born, cluster)
    }

    /// A death.
    pub fn died(cluster: i32) -> Self {
        Self::new(What::Died, cluster)
    }

    /// A move by `distance`.
    pub fn moved(cluster: i32, distance: f64) -> Self {
        Self { distance: Some(distance), ..Self::new(What::Moved, cluster) }
    }

    fn rows(self, rows: u64) -> Self {
        Self { rows: Some(rows), ..self }
    }

    fn part(self, rows: u64, all: u64) -> Self {
        Self { share: (all > 0).then(|| rows as f64 / all as f64), ..self.rows(rows) }
    }

    fn with(self, other: i32) -> Self {
        Self { other: Some(other), ..self }
    }
}

/// What became of the `old` clusters, now that there are the `new` ones that `matching` made of them: the new clusters by
/// index, then the old ones that are gone. A birth or a death comes before the event that explains it. A cluster whose
/// centroid is known to be where it was makes no event.
///
/// # Panics
/// If the numbers of clusters do not agree.
pub fn changes(
    old: &Identities,
    new: &Identities,
    matching: &Matching,
    overlap: &Overlap,
    places: Option<&Places<'_>>,
) -> Vec<Change> {
    let lengths = (overlap.of_old().len(), overlap.of_new().len(), matching.old_of().len());
    assert_eq!(lengths, (old.ids().len(), new.ids().len(), new.ids().len()), "of other clusters");
    // Of each cluster, the one on the other side that has most of its rows.
    let (mut from, mut into) = (vec![None; new.ids().len()], vec![None; old.ids().len()]);
    for ((before, after), rows) in overlap.pairs() {
        if 2 * u128::from(rows) > u128::from(overlap.of_new()[after]) {
            from[after] = Some((before, rows));
        }
        if 2 * u128::from(rows) > u128::from(overlap.of_old()[before]) {
            into[before] = Some((after, rows));
        }
    }
    let mut all = Vec::new();
    for (after, &id) in new.ids().iter().enumerate() {
        let size = overlap.of_new()[after];
        let Some(before) = matching.old_of()[after] else {
            all.push(Change::born(id).rows(size));
            if let Some((parent, rows)) = from[after] {
                all.push(Change::new(What::Split, id).with(old.ids()[parent]).part(rows, size));
            }
            continue;
        };
        let distance = places.map(|places| places.squared(before, after).sqrt());
        if distance != Some(0.0) {
            let moved = Change { distance, ..Change::new(What::Moved, id) };
            all.push(moved.part(overlap.common(before, after), overlap.of_old()[before]));
        }
    }
    for (before, after) in matching.new_of(old.ids().len()).into_iter().enumerate() {
        if after.is_some() {
            continue;
        }
        let (id, size) = (old.ids()[before], overlap.of_old()[before]);
        all.push(Change::died(id).rows(size));
        if let Some((heir, rows)) = into[before] {
            all.push(Change::new(What::Merged, id).with(new.ids()[heir]).part(rows, size));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::match_clusters;
    use super::*;

    /// The changes from clusters with the ids 10, 11, …, by the rows of each pair.
    fn told(rows: &[&[u64]], places: Option<&Places<'_>>) -> (Identities, Vec<Change>) {
        let (before, after) = (rows.len(), rows[0].len());
        let old = Identities::new((10..).take(before).collect(), 20).unwrap();
        let mut overlap = Overlap::new(before, after);
        for (i, row) in rows.iter().enumerate() {
            row.iter().enumerate().for_each(|(j, rows)| overlap.add(i, j, *rows));
        }
        let matching = match_clusters(&overlap, places);
        let new = old.after(&matching).unwrap();
        let changes = changes(&old, &new, &matching, &overlap, places);
        (new, changes)
    }

    fn short(changes: &[Change]) -> Vec<(&'static str, i32, Option<i32>, u64)> {
        changes.iter().map(|c| (c.what.name(), c.cluster, c.other, c.rows.unwrap())).collect()
    }

    #[test]
    fn a_cluster_splits_in_two_and_in_three() {
        let (new, changes) = told(&[&[60, 40]], None);
        assert_eq!(new.ids(), [10, 20]);
        let expected = [("moved", 10, None, 60), ("born", 20, None, 40), ("split", 20, Some(10), 40)];
        assert_eq!(short(&changes), expected);
        assert_eq!((changes[0].share, changes[2].share, changes[0].distance), (Some(0.6), Some(1.0), None));
        // Of three equal parts none is the old cluster.
        let (new, changes) = told(&[&[30, 30, 30]], None);
        assert_eq!((new.ids(), new.next_id()), (&[20, 21, 22][..], 23));
        let parents: Vec<_> = changes.iter().filter(|c| c.what == What::Split).map(|c| c.other).collect();
        assert_eq!(parents, [Some(10); 3]);
        assert_eq!(short(&changes).last(), Some(&("died", 10, None, 90)));
    }

    #[test]
    fn clusters_merge_and_the_larger_one_lends_its_id() {
        let (new, changes) = told(&[&[80, 1], &[50, 0], &[0, 30]], None);
        assert_eq!(new.ids(), [10, 12]);
        assert_eq!(
            short(&changes),
            [("moved", 10, None, 80), ("moved", 12, None, 30), ("died", 11, None, 50), ("merged", 11, Some(10), 50)]
        );
        assert_eq!(changes[3].share, Some(1.0));
    }

    #[test]
    fn what_is_scattered_dies_and_what_is_gathered_is_born_without_a_relative() {
        let (new, changes) = told(&[&[10, 10, 90, 0], &[10, 10, 0, 90], &[10, 10, 0, 0]], None);
        assert_eq!(new.ids(), [20, 21, 10, 11]);
        let died: Vec<_> = short(&changes).into_iter().filter(|c| c.1 == 12).collect();
        assert_eq!(died, [("died", 12, None, 20)]);
        let born: Vec<_> = short(&changes).into_iter().filter(|c| c.1 == 20).collect();
        assert_eq!(born, [("born", 20, None, 30)]);
    }

    #[test]
    fn a_centroid_that_stays_makes_no_event_and_one_that_moves_says_how_far() {
        let places = Places { dim: 2, old: &[0.0, 0.0, 9.0, 9.0], new: &[3.0, 4.0, 9.0, 9.0] };
        let (_, changes) = told(&[&[5, 0], &[0, 5]], Some(&places));
        assert_eq!(short(&changes), [("moved", 10, None, 5)]);
        assert_eq!((changes[0].distance, changes[0].share), (Some(5.0), Some(1.0)));
    }

    #[test]
    fn without_common_rows_there_are_no_shares() {
        let (new, changes) = told(&[&[0], &[0]], None);
        assert_eq!(new.ids(), [20]);
        assert_eq!(short(&changes), [("born", 20, None, 0), ("died", 10, None, 0), ("died", 11, None, 0)]);
        assert!(changes.iter().all(|c| c.share.is_none()));
    }
}
