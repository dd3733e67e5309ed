//! Ids of clusters that last: from one model to the next, and from one batch of a stream to the next.
//!
//! A learner numbers its clusters as it finds them, and another training numbers them otherwise. An id is a number that a
//! cluster keeps. [`match_clusters`] says which of the new clusters is which of the old ones, from the rows that both
//! clusterings labelled and from their centroids; [`Identities`] gives the others ids that no cluster had before; and
//! [`changes()`] tells what happened to each: born, moved, split, merged, died.
//!
//! Nothing here reads or writes anything, and nothing depends on an order of rows or on the number of threads.
//!
//! ```
//! use dacpipe::identity::{Identities, Overlap, What, changes, match_clusters};
//!
//! // Three clusters; the next training finds the second and the first, and a part of the first as a cluster of its own.
//! let old = Identities::first(3);
//! let mut overlap = Overlap::new(3, 3);
//! overlap.add(1, 0, 50);
//! overlap.add(0, 1, 60);
//! overlap.add(0, 2, 30);
//! overlap.add(2, 0, 4);
//!
//! let matching = match_clusters(&overlap, None);
//! let new = old.after(&matching)?;
//! assert_eq!((new.ids(), new.next_id()), (&[1, 0, 3][..], 4));
//!
//! let changes = changes(&old, &new, &matching, &overlap, None);
//! let told: Vec<_> = changes.iter().map(|change| (change.what, change.cluster, change.other)).collect();
//! assert_eq!(
//!     told,
//!     [
//!         (What::Moved, 1, None),
//!         (What::Moved, 0, None),
//!         (What::Born, 3, None),
//!         (What::Split, 3, Some(0)),
//!         (What::Died, 2, None),
//!         (What::Merged, 2, Some(1)),
//!     ]
//! );
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod by_id;
mod changes;
mod matching;
mod overlap;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

pub use by_id::ById;
pub use changes::{Change, What, changes};
pub use matching::{Matching, Places, match_clusters};
pub use overlap::Overlap;

use crate::error::{Error, Result};

/// The ids of the clusters of a model, by their index, and the next one that is free. A plain value, saved by serde.
///
/// A stream whose learner puts a cluster that has lost its rows elsewhere calls [`replace`](Self::replace):
///
/// ```
/// use dacpipe::identity::{Change, Identities, Places};
///
/// let mut clusters = Identities::first(3);
/// let (old, new) = clusters.replace(1)?;
/// assert_eq!((old, new), (1, 3));
/// assert_eq!(clusters.ids(), [0, 3, 2]);
/// // Of the others it says how far their centroids went.
/// let places = Places { dim: 1, old: &[0.0, 5.0, 9.0], new: &[0.0, 70.0, 8.5] };
/// let told = [vec![Change::died(old), Change::born(new)], clusters.moved(&places, &[1])].concat();
/// assert_eq!(told[2], Change::moved(2, 0.5));
/// assert_eq!(told.len(), 3);
///
/// // As it was, after a restart.
/// let saved = serde_json::to_string(&clusters).unwrap();
/// assert_eq!(saved, r#"{"ids":[0,3,2],"next_id":4}"#);
/// assert_eq!(serde_json::from_str::<Identities>(&saved).unwrap(), clusters);
/// # Ok::<(), dacpipe::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct Identities {
    ids: Vec<i32>,
    next_id: i32,
}

/// What is read of [`Identities`], before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    ids: Vec<i32>,
    next_id: i32,
}

impl TryFrom<Saved> for Identities {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self> {
        Self::new(saved.ids, saved.next_id)
    }
}

impl Identities {
    /// The ids of the first `k` clusters: 0, 1, …
    ///
    /// # Panics
    /// If `k` is greater than any number of clusters (2 147 483 647).
    pub fn first(k: usize) -> Self {
        let next_id = i32::try_from(k).expect("no model has so many clusters");
        Self { ids: (0..next_id).collect(), next_id }
    }

    /// These ids, after which `next_id` is the first that is free.
    ///
    /// # Errors
    /// Kind `Model` for ids that are negative, not distinct, or not below `next_id`.
    pub fn new(ids: Vec<i32>, next_id: i32) -> Result<Self> {
        check(&ids, ids.len())?;
        match ids.iter().find(|id| **id >= next_id) {
            Some(id) => Err(Error::model(format!("cluster id {id}, expected one below the next free one, {next_id}"))),
            None => Ok(Self { ids, next_id }),
        }
    }

    /// The id of each cluster, by index.
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// The next id that a cluster gets. It only grows.
    pub fn next_id(&self) -> i32 {
        self.next_id
    }

    /// The ids of the clusters after these: those that `matching` says are old ones keep the id, the others get fresh
    /// ones in the order of their index.
    ///
    /// # Errors
    /// Kind `Model` if there is no id left.
    ///
    /// # Panics
    /// If `matching` is of more old clusters than there are.
    pub fn after(&self, matching: &Matching) -> Result<Self> {
        let mut next = Self { ids: Vec::with_capacity(matching.old_of().len()), next_id: self.next_id };
        for old in matching.old_of() {
            let id = match old {
                Some(old) => self.ids[*old],
                None => next.fresh()?,
            };
            next.ids.push(id);
        }
        Ok(next)
    }

    /// The cluster at `index` is another one from now on: gives the id it had, and its new one.
    ///
    /// # Errors
    /// Kind `Model` if there is no id left.
    ///
    /// # Panics
    /// If there are fewer clusters.
    pub fn replace(&mut self, index: usize) -> Result<(i32, i32)> {
        let fresh = self.fresh()?;
        Ok((std::mem::replace(&mut self.ids[index], fresh), fresh))
    }

    /// The moves of clusters whose centroids are elsewhere than they were, by index, but for those at the indices
    /// `replaced`, which are other clusters now.
    ///
    /// # Panics
    /// If `places` has fewer centroids than there are clusters.
    pub fn moved(&self, places: &Places<'_>, replaced: &[usize]) -> Vec<Change> {
        let stayed = (0..self.ids.len()).filter(|index| !replaced.contains(index));
        let distances = stayed.map(|index| (self.ids[index], places.squared(index, index).sqrt()));
        distances.filter(|(_, distance)| *distance > 0.0).map(|(id, distance)| Change::moved(id, distance)).collect()
    }

    fn fresh(&mut self) -> Result<i32> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or_else(|| Error::model("all 2147483647 ids of clusters are used up"))?;
        Ok(id)
    }
}

/// Checks ids of `k` clusters.
///
/// # Errors
/// Kind `Model` unless there are `k`, distinct and not negative.
pub(crate) fn check(ids: &[i32], k: usize) -> Result<()> {
    if ids.len() != k {
        return Err(Error::model(format!("{} ids for {k} clusters", ids.len())));
    }
    let mut seen = HashSet::new();
    match ids.iter().find(|id| **id < 0 || !seen.insert(**id)) {
        Some(id) if *id < 0 => Err(Error::model(format!("cluster id {id}, expected 0 or more"))),
        Some(id) => Err(Error::model(format!("two clusters have the id {id}"))),
        None => Ok(()),
    }
}

/// Whether each cluster's id is its index, as in a first model.
pub(crate) fn are_indices(ids: &[i32]) -> bool {
    ids.iter().zip(0..).all(|(id, index)| *id == index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_that_cannot_be_are_refused() {
        for (ids, next_id, what) in [
            (vec![0, 1, 0], 3, "two clusters have the id 0"),
            (vec![0, -4], 3, "cluster id -4"),
            (vec![0, 7], 7, "cluster id 7, expected one below"),
        ] {
            let e = Identities::new(ids, next_id).unwrap_err();
            assert!(e.kind() == crate::Kind::Model && e.to_string().contains(what), "{e}");
        }
        let e = serde_json::from_str::<Identities>(r#"{"ids":[2],"next_id":2}"#).unwrap_err();
        assert!(e.to_string().contains("cluster id 2"), "{e}");
        assert!(check(&[0, 1], 3).unwrap_err().to_string().contains("2 ids for 3 clusters"));
    }

    #[test]
    fn ids_end_with_an_error() {
        let mut last = Identities::new(vec![5], i32::MAX).unwrap();
        let e = last.replace(0).unwrap_err();
        assert!(e.to_string().contains("used up"), "{e}");
        assert_eq!(last.ids(), [5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Over fifty retrainings of random sizes, whose clusters share random rows.
        #[test]
        fn no_id_comes_twice(
            trainings in prop::collection::vec((0_usize..7, prop::collection::vec(0_u64..40, 49)), 50),
        ) {
            let mut now = Identities::first(4);
            let mut ever: HashSet<i32> = now.ids().iter().copied().collect();
            for (k, rows) in trainings {
                let mut overlap = Overlap::new(now.ids().len(), k);
                for old in 0..now.ids().len() {
                    (0..k).for_each(|new| overlap.add(old, new, rows[old * 7 + new]));
                }
                let matching = match_clusters(&overlap, None);
                let next = now.after(&matching).unwrap();
                let before: HashSet<i32> = now.ids().iter().copied().collect();
                for (new, id) in next.ids().iter().enumerate() {
                    match matching.old_of()[new] {
                        Some(old) => prop_assert_eq!(*id, now.ids()[old]),
                        None => prop_assert!(!before.contains(id) && ever.insert(*id), "{} came again", id),
                    }
                }
                prop_assert!(next.next_id() >= now.next_id() && check(next.ids(), k).is_ok());
                now = next;
            }
        }
    }
}
