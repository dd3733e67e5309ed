//! How well clusters agree with labels: ARI, NMI and accuracy by optimal matching, from counts of pairs.
//!
//! [`Contingency`] counts (cluster, class) pairs in one pass, where the class is the label of a row; counts of two sets
//! of rows are merged by addition. The figures equal scikit-learn's `adjusted_rand_score`,
//! `normalized_mutual_info_score` (arithmetic mean) and the accuracy under `scipy.optimize.linear_sum_assignment`, also
//! in degenerate cases, and depend neither on the order of the rows nor on the names of clusters and classes.
//!
//! ```
//! use dacpipe::metrics::Contingency;
//! let mut table = Contingency::default();
//! for (cluster, class) in [(0, "walk"), (0, "walk"), (1, "sit"), (1, "sit"), (1, "walk"), (2, "lie")] {
//!     table.add(cluster, class);
//! }
//! assert_eq!(table.rows(), 6);
//! assert!((table.accuracy()? - 5.0 / 6.0).abs() < 1e-15);
//! assert!((table.ari() - 7.0 / 22.0).abs() < 1e-15);
//! # Ok::<(), dacpipe::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use pathfinding::matrix::Matrix;
use pathfinding::prelude::kuhn_munkres;

use crate::error::{Error, Result};

/// The most clusters or classes for an optimal matching (which takes `O(n^3)`).
const MATCHING_LABELS: usize = 10_000;

/// The name of the part with all rows.
pub const ALL: &str = "all";

/// The name of the part of the rows for which a column has `value`: the value, in double quotes if it could be taken
/// for [`ALL`], for NULL or for nothing.
///
/// ```
/// use dacpipe::metrics::part_name;
/// let names = [Some("train"), Some("all"), Some("NULL"), Some(""), None].map(part_name);
/// assert_eq!(names, ["train", "\"all\"", "\"NULL\"", "\"\"", "NULL"]);
/// ```
pub fn part_name(value: Option<&str>) -> Cow<'_, str> {
    match value {
        None => NULL.into(),
        Some(text) if matches!(text, "" | ALL | NULL) || text.starts_with('"') => format!("\"{text}\"").into(),
        Some(text) => text.into(),
    }
}

/// The name of the part of the rows without a value.
const NULL: &str = "NULL";

/// A cluster or class label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// A number.
    Int(i64),
    /// A name.
    Text(String),
}

/// A borrowed [`Label`], so that counting a known name allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelRef<'a> {
    /// A number.
    Int(i64),
    /// A name.
    Text(&'a str),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Int(number) => number.fmt(f),
            Label::Text(name) => name.fmt(f),
        }
    }
}

impl Label {
    /// The same label, borrowed.
    pub fn as_ref(&self) -> LabelRef<'_> {
        match self {
            Label::Int(number) => LabelRef::Int(*number),
            Label::Text(name) => LabelRef::Text(name),
        }
    }
}

impl From<i32> for LabelRef<'_> {
    fn from(number: i32) -> Self {
        LabelRef::Int(number.into())
    }
}

impl From<u32> for LabelRef<'_> {
    fn from(number: u32) -> Self {
        LabelRef::Int(number.into())
    }
}

impl From<i64> for LabelRef<'_> {
    fn from(number: i64) -> Self {
        LabelRef::Int(number)
    }
}

impl<'a> From<&'a str> for LabelRef<'a> {
    fn from(name: &'a str) -> Self {
        LabelRef::Text(name)
    }
}

impl<'a> From<&'a Label> for LabelRef<'a> {
    fn from(label: &'a Label) -> Self {
        label.as_ref()
    }
}

/// Labels, numbered in the order of their appearance.
#[derive(Debug, Clone, Default)]
struct Names {
    numbers: HashMap<i64, u32>,
    texts: HashMap<String, u32>,
    labels: Vec<Label>,
    /// Bytes of the texts, each of which is stored twice.
    bytes: usize,
}

impl Names {
    fn id(&mut self, label: LabelRef<'_>) -> u32 {
        let known = match label {
            LabelRef::Int(number) => self.numbers.get(&number),
            LabelRef::Text(name) => self.texts.get(name),
        };
        if let Some(&id) = known {
            return id;
        }
        let id = self.labels.len() as u32;
        match label {
            LabelRef::Int(number) => {
                self.numbers.insert(number, id);
                self.labels.push(Label::Int(number));
            }
            LabelRef::Text(name) => {
                self.bytes += 2 * name.len();
                self.texts.insert(name.to_owned(), id);
                self.labels.push(Label::Text(name.to_owned()));
            }
        }
        id
    }

    fn memory_size(&self) -> usize {
        self.bytes
            + self.labels.capacity() * size_of::<Label>()
            + self.numbers.capacity() * size_of::<(i64, u32)>()
            + self.texts.capacity() * size_of::<(String, u32)>()
    }
}

/// Counts of (cluster, class) pairs.
#[derive(Debug, Clone, Default)]
pub struct Contingency {
    clusters: Names,
    classes: Names,
    counts: HashMap<(u32, u32), u64>,
    rows: u64,
}

/// Two tables are equal if they have the same counts, whatever the order in which rows were added.
impl PartialEq for Contingency {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

/// A full contingency table, with sorted labels (numbers before names).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The clusters, one per row of the table.
    pub clusters: Vec<Label>,
    /// The classes, one per column.
    pub classes: Vec<Label>,
    /// Rows of each cluster and class: `counts[cluster][class]`.
    pub counts: Vec<Vec<u64>>,
}

impl Contingency {
    /// Counts one row.
    pub fn add<'a>(&mut self, cluster: impl Into<LabelRef<'a>>, class: impl Into<LabelRef<'a>>) {
        self.add_count(cluster, class, 1);
    }

    /// Counts `rows` rows with the same labels.
    pub fn add_count<'a>(&mut self, cluster: impl Into<LabelRef<'a>>, class: impl Into<LabelRef<'a>>, rows: u64) {
        if rows > 0 {
            let (cluster, class) = (self.cluster_number(cluster.into()), self.class_number(class.into()));
            self.add_numbered(cluster, class, rows);
        }
    }

    /// The number of a cluster in this table, for [`add_numbered`](Self::add_numbered), so that a label of many rows is
    /// looked up once. A label without counted rows does not change any figure.
    pub fn cluster_number(&mut self, label: LabelRef<'_>) -> u32 {
        self.clusters.id(label)
    }

    /// The number of a class in this table, as [`cluster_number`](Self::cluster_number).
    pub fn class_number(&mut self, label: LabelRef<'_>) -> u32 {
        self.classes.id(label)
    }

    /// Counts `rows` rows, one or more, of a cluster and a class that this table has numbered.
    pub fn add_numbered(&mut self, cluster: u32, class: u32, rows: u64) {
        debug_assert!(rows > 0);
        *self.counts.entry((cluster, class)).or_default() += rows;
        self.rows += rows;
    }

    /// Its size in bytes.
    pub fn memory_size(&self) -> usize {
        let counts = self.counts.capacity() * size_of::<((u32, u32), u64)>();
        size_of::<Self>() + self.clusters.memory_size() + self.classes.memory_size() + counts
    }

    /// Adds the counts of other rows.
    pub fn merge(&mut self, other: &Contingency) {
        for (&(cluster, class), &rows) in &other.counts {
            let (cluster, class) = (&other.clusters.labels[cluster as usize], &other.classes.labels[class as usize]);
            self.add_count(cluster, class, rows);
        }
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The counts that are not 0, sorted by cluster and class. [`add_count`](Self::add_count) adds them to another
    /// table.
    pub fn entries(&self) -> Vec<(&Label, &Label, u64)> {
        let label = |(&(cluster, class), &rows): (&(u32, u32), &u64)| {
            (&self.clusters.labels[cluster as usize], &self.classes.labels[class as usize], rows)
        };
        let mut entries: Vec<_> = self.counts.iter().map(label).collect();
        entries.sort_unstable();
        entries
    }

    /// Rows of each cluster, by label.
    pub fn cluster_sizes(&self) -> BTreeMap<&Label, u64> {
        let mut sizes = BTreeMap::new();
        self.entries().into_iter().for_each(|(cluster, _, rows)| *sizes.entry(cluster).or_default() += rows);
        sizes
    }

    /// Rows of each class, by label.
    pub fn class_sizes(&self) -> BTreeMap<&Label, u64> {
        let mut sizes = BTreeMap::new();
        self.entries().into_iter().for_each(|(_, class, rows)| *sizes.entry(class).or_default() += rows);
        sizes
    }

    /// The table in full: clusters x classes counts.
    pub fn table(&self) -> Table {
        let (clusters, classes) = (self.cluster_sizes(), self.class_sizes());
        let place = |labels: &BTreeMap<&Label, u64>| -> HashMap<Label, usize> {
            labels.keys().enumerate().map(|(i, &label)| (label.clone(), i)).collect()
        };
        let (line, column) = (place(&clusters), place(&classes));
        let mut counts = vec![vec![0; classes.len()]; clusters.len()];
        for (cluster, class, rows) in self.entries() {
            counts[line[cluster]][column[class]] = rows;
        }
        let owned = |labels: BTreeMap<&Label, u64>| labels.into_keys().cloned().collect();
        Table { clusters: owned(clusters), classes: owned(classes), counts }
    }

    /// Adjusted Rand index (Hubert & Arabie 1985): 1 for equal partitions, 0 on average for random ones; 1 for no rows.
    ///
    /// Counts of pairs are exact integers; only the final division rounds, up to some 10^9 rows.
    pub fn ari(&self) -> f64 {
        let n = i128::from(self.rows);
        let square = |rows: u64| i128::from(rows) * i128::from(rows);
        let both: i128 = self.counts.values().map(|&rows| square(rows)).sum();
        let cluster: i128 = self.cluster_sizes().into_values().map(square).sum();
        let class: i128 = self.class_sizes().into_values().map(square).sum();
        // Ordered pairs of different rows: together in both partitions, in only one, in none.
        let (together, only_cluster, only_class) = (both - n, cluster - both, class - both);
        let apart = n * n - cluster - class + both;
        if only_cluster == 0 && only_class == 0 {
            return 1.0;
        }
        let difference = match (together.checked_mul(apart), only_cluster.checked_mul(only_class)) {
            (Some(a), Some(b)) => (a - b) as f64,
            _ => together as f64 * apart as f64 - only_cluster as f64 * only_class as f64,
        };
        let product = |a: i128, b: i128| a.checked_mul(b).map_or(a as f64 * b as f64, |product| product as f64);
        let expected =
            product(together + only_cluster, only_cluster + apart) + product(together + only_class, only_class + apart);
        2.0 * difference / expected
    }

    /// Normalized mutual information, `I / ((H(cluster) + H(class)) / 2)`: 1 for equal partitions, 0 for independent
    /// ones. 1 if there is at most one cluster and at most one class.
    pub fn nmi(&self) -> f64 {
        let (clusters, classes) = (self.cluster_sizes(), self.class_sizes());
        if clusters.len() == classes.len() && clusters.len() <= 1 {
            return 1.0;
        }
        let n = self.rows as f64;
        let information = |(cluster, class, rows): (&Label, &Label, u64)| {
            let joint = rows as f64;
            let independent = (clusters[cluster] as f64).ln() + (classes[class] as f64).ln() - n.ln();
            joint / n * (joint.ln() - independent)
        };
        let information: f64 = self.entries().into_iter().map(information).sum();
        if information <= f64::EPSILON {
            return 0.0;
        }
        let entropy = |sizes: BTreeMap<&Label, u64>| -> f64 {
            sizes.into_values().map(|rows| rows as f64 / n * (n.ln() - (rows as f64).ln())).sum()
        };
        information / (0.5 * (entropy(clusters) + entropy(classes)))
    }

    /// Clustering accuracy: the fraction of rows whose cluster is matched with their class, under the best one-to-one
    /// matching. If the numbers of clusters and classes differ, the surplus stays unmatched. 1 for no rows.
    ///
    /// # Errors
    /// Kind `Input` for more than 10 000 clusters or classes.
    pub fn accuracy(&self) -> Result<f64> {
        if self.rows == 0 {
            return Ok(1.0);
        }
        let (matched, _) = self.solve()?;
        Ok(matched as f64 / self.rows as f64)
    }

    /// The matching behind [`accuracy`](Self::accuracy): each cluster with its class, if it has one.
    ///
    /// # Errors
    /// As [`accuracy`](Self::accuracy).
    pub fn matching(&self) -> Result<Vec<(Label, Option<Label>)>> {
        let (_, pairs) = self.solve()?;
        let table = self.table();
        let class =
            |cluster: usize| pairs.iter().find(|pair| pair.0 == cluster).map(|pair| table.classes[pair.1].clone());
        Ok(table.clusters.iter().enumerate().map(|(i, cluster)| (cluster.clone(), class(i))).collect())
    }

    /// The number of matched rows, and the (cluster, class) pairs by their indices in [`table`](Self::table).
    fn solve(&self) -> Result<(i64, Vec<(usize, usize)>)> {
        let longest = self.cluster_sizes().len().max(self.class_sizes().len());
        if longest > MATCHING_LABELS {
            let limit = format!("optimal matching takes at most {MATCHING_LABELS} clusters and classes");
            return Err(Error::input(format!("{limit}, there are {longest} labels; is one of the columns an id?")));
        }
        let table = self.table();
        let (lines, columns) = (table.clusters.len(), table.classes.len());
        if lines == 0 {
            return Ok((0, Vec::new()));
        }
        // The solver needs at least as many columns as rows.
        let turned = lines > columns;
        let at = |i: usize, j: usize| if turned { table.counts[j][i] as i64 } else { table.counts[i][j] as i64 };
        let (short, long) = (lines.min(columns), lines.max(columns));
        let values = (0..short).flat_map(|i| (0..long).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect();
        let weights = Matrix::from_vec(short, long, values)
            .map_err(|e| Error::internal(format!("a matrix of {short} x {long}: {e}")))?;
        let (matched, partner) = kuhn_munkres(&weights);
        let pairs = partner.into_iter().enumerate().map(|(i, j)| if turned { (j, i) } else { (i, j) });
        Ok((matched, pairs.collect()))
    }
}
