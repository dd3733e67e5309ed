//! How many rows old and new clusters have in common.

use std::collections::BTreeMap;

/// The rows that an old and a new clustering both labelled, counted by pair of clusters. Clusters are numbered by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    old: Vec<u64>,
    new: Vec<u64>,
    pairs: BTreeMap<(usize, usize), u64>,
}

impl Overlap {
    /// No rows yet, of `old` old and `new` new clusters.
    pub fn new(old: usize, new: usize) -> Self {
        Self { old: vec![0; old], new: vec![0; new], pairs: BTreeMap::new() }
    }

    /// Counts `rows` rows of the old cluster `old` and the new cluster `new`.
    ///
    /// # Panics
    /// If there is no such cluster.
    pub fn add(&mut self, old: usize, new: usize, rows: u64) {
        self.old[old] += rows;
        self.new[new] += rows;
        if rows > 0 {
            *self.pairs.entry((old, new)).or_default() += rows;
        }
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.old.iter().sum()
    }

    /// The rows of each old cluster.
    pub fn of_old(&self) -> &[u64] {
        &self.old
    }

    /// The rows of each new cluster.
    pub fn of_new(&self) -> &[u64] {
        &self.new
    }

    /// The rows of both, for a pair.
    pub fn common(&self, old: usize, new: usize) -> u64 {
        self.pairs.get(&(old, new)).copied().unwrap_or(0)
    }

    /// The pairs that have rows, `((old, new), rows)`, in order.
    pub fn pairs(&self) -> impl Iterator<Item = ((usize, usize), u64)> + '_ {
        self.pairs.iter().map(|(pair, rows)| (*pair, *rows))
    }
}
