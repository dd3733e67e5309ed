//! The content of a report as plain values, gathered from the table and drawn by `page`.

use std::collections::BTreeMap;

use super::run::RunReport;

/// A part of the report, or a sentence that says why it is missing and how to get it.
pub type Part<T> = std::result::Result<T, String>;

/// Everything that a report shows.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The table's name.
    pub name: String,
    /// The table's place.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// The hash of the model that labelled its newest rows.
    pub model: String,
    /// Its rows.
    pub rows: u64,
    /// The size of each cluster, including empty ones.
    pub sizes: BTreeMap<i32, u64>,
    /// The report of the run that wrote the newest version.
    pub run: Part<RunReport>,
    /// The clusters against the labels.
    pub agreement: Part<Agreement>,
    /// Rows drawn from the table.
    pub sample: Part<Drawn>,
    /// The weight of each feature.
    pub weights: Part<Vec<f64>>,
    /// The features that set each cluster apart.
    pub portraits: Part<Vec<Portrait>>,
    /// Rows before and after the network.
    pub rebuilt: Part<Vec<Rebuilt>>,
    /// Notes on the figures for the reader.
    pub notes: Vec<String>,
    /// The names of the features; empty where they have none.
    pub features: Vec<String>,
    /// The number of features of a row; 0 if it is not known.
    pub width: usize,
}

/// The clusters against the labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agreement {
    /// The column of the labels.
    pub column: String,
    /// How often each label is in each cluster.
    pub counts: BTreeMap<i32, BTreeMap<String, u64>>,
    /// Rows without a label.
    pub unlabelled: u64,
}

/// Rows drawn from a table, by number of row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drawn {
    /// Their coordinates in the plane of the first two principal components.
    pub points: Vec<[f64; 2]>,
    /// The shares of the variance that the two components have.
    pub shares: [f64; 2],
    /// The cluster of each.
    pub clusters: Vec<i32>,
    /// The label of each; empty where there are no labels.
    pub labels: Vec<Option<String>>,
    /// True if the vectors are an embedding, false if they are the features.
    pub embedded: bool,
}

/// What sets a cluster apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Portrait {
    /// The cluster.
    pub cluster: i32,
    /// Its features, those first whose mean differs most.
    pub apart: Vec<Apart>,
    /// The mean of every feature, and the least and the greatest mean over all clusters; only if rows are images.
    pub image: Option<Vec<f64>>,
}

/// A feature whose mean in a cluster differs from that of all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// Its name.
    pub feature: String,
    /// Its mean in the cluster.
    pub mean: f64,
    /// Its mean over all rows.
    pub overall: f64,
    /// The difference in standard deviations over all rows.
    pub difference: f64,
}

/// A row as the input of the network, and as the output of its decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuilt {
    /// Its cluster.
    pub cluster: i32,
    /// Its label.
    pub label: Option<String>,
    /// The input.
    pub input: Vec<f64>,
    /// The output.
    pub output: Vec<f64>,
}

impl Findings {
    /// The side of the images that the rows are, see [`side`].
    pub fn side(&self) -> Option<usize> {
        side(self.width, &self.features)
    }
}

/// The side of the images that rows of `width` values with these names probably are: a square number of values that
/// have no names, or only their indices in one list, as in `pixels[7]`.
pub fn side(width: usize, names: &[String]) -> Option<usize> {
    const LEAST: usize = 8;
    let list = names.first().and_then(|name| name.strip_suffix("[0]"));
    let place = |(i, name): (usize, &String)| name.strip_suffix(&format!("[{i}]")) == list;
    let side = width.isqrt();
    let nameless = names.is_empty() || (list.is_some() && names.iter().enumerate().all(place));
    (nameless && side >= LEAST && side * side == width).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_of_values_without_names_is_an_image() {
        let names = |name: &dyn Fn(usize) -> String| (0..784).map(name).collect::<Vec<_>>();
        assert_eq!(side(784, &[]), Some(28));
        assert_eq!(side(784, &names(&|i| format!("pixels[{i}]"))), Some(28));
        assert_eq!(side(784, &names(&|i| format!("x{i}"))), None);
        assert_eq!(side(784, &names(&|i| format!("{}[{i}]", i / 400))), None, "of two lists");
        assert_eq!(side(783, &[]), None);
        assert_eq!(side(9, &[]), None, "too small to be seen as one");
    }
}
