//! The `manifold` stage: lays the training rows out so that neighbours lie together (UMAP: McInnes, Healy and Melville
//! 2018), for the autoencoder after it to learn that layout.
//!
//! ```text
//!  neighbors    the nearest rows of each row: all pairs, or the near cells of a coarse k-means
//!    │          search, metric
//!  graph        which rows are neighbours, and how strongly
//!    │
//!  spectral     the start: eigenvectors of the graph
//!    │
//!  layout       epochs of pulls along edges and pushes from random rows
//!    │
//!  trust        how well the layout keeps neighbourhoods
//! ```
//!
//! Every step gives the same bits for any number of threads, and an interrupted layout can be resumed. New rows do not
//! need any of this: the network that was taught the layout places them by one pass through its encoder.

mod curve;
mod graph;
mod layout;
mod metric;
mod neighbors;
mod search;
mod spectral;
mod subset;
mod trust;

use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use curve::curve;
pub use graph::{Graph, memberships};
pub use layout::{Layout, LayoutSpec};
pub use metric::Metric;
pub use neighbors::{EXACT_WORK, NeighborSearch, Neighbors};
pub use spectral::start;
pub use subset::Subset;
pub use trust::trustworthiness;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::{Rows, forces};
use crate::memory;
use crate::normalize::{Normalized, Normalizer};
use crate::stage::{Action, Artifact, Coordinates, Fit, FitContext, Fitted, Tensor, Training, Transform};

/// Seconds between checkpoints of a layout.
const CHECKPOINT_SECONDS: f64 = 2.0;
/// Rows up to which a layout takes [`MANY_EPOCHS`], as in the reference implementation; beyond, [`FEW_EPOCHS`] do.
const FEW_ROWS: usize = 10_000;
const MANY_EPOCHS: usize = 500;
const FEW_EPOCHS: usize = 200;
/// The number of rows for measuring the trustworthiness of a layout, and of neighbours of each.
pub(crate) const TRUST_ROWS: usize = 2000;
pub(crate) const TRUST_NEIGHBORS: usize = 15;

/// How training rows are laid out. The defaults are UMAP's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManifoldSpec {
    /// Rows in a neighbourhood, including the row itself, as in UMAP.
    pub neighbors: usize,
    /// Coordinates of a row.
    pub dim: usize,
    /// The least distance between neighbours in the layout: 0 packs them tight, which suits clusters.
    pub min_dist: f64,
    /// Epochs of the layout; `None`: 500 up to 10 000 rows and 200 beyond.
    pub epochs: Option<usize>,
    /// Rows that a row is pushed from, for each neighbour that it is pulled to.
    pub negative_samples: usize,
    /// The distance between rows.
    pub metric: Metric,
    /// Whether squared differences of features are multiplied by the weights that an earlier stage learned.
    pub weighted: bool,
    /// The most rows that are laid out; of more rows, a sample.
    pub max_rows: usize,
}

impl Default for ManifoldSpec {
    fn default() -> Self {
        Self {
            neighbors: 15,
            dim: 2,
            min_dist: 0.1,
            epochs: None,
            negative_samples: 5,
            metric: Metric::Euclidean,
            weighted: false,
            max_rows: 200_000,
        }
    }
}

impl ManifoldSpec {
    /// Its problems, one message each, naming the setting, its value and what would be accepted.
    ///
    /// ```
    /// use dacpipe::manifold::ManifoldSpec;
    /// assert!(ManifoldSpec::default().validate().is_empty());
    /// let spec = ManifoldSpec { neighbors: 1, ..Default::default() };
    /// assert_eq!(spec.validate(), ["neighbors is 1, must be at least 2"]);
    /// ```
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut least = |name: &str, value: usize, least: usize| {
            if value < least {
                problems.push(format!("{name} is {value}, must be at least {least}"));
            }
        };
        least("neighbors", self.neighbors, 2);
        least("dim", self.dim, 1);
        least("epochs", self.epochs.unwrap_or(1), 1);
        least("negative_samples", self.negative_samples, 1);
        least("max_rows", self.max_rows, 3);
        if self.dim > forces::MOST_COORDINATES {
            problems.push(format!("dim is {}, must be at most {}", self.dim, forces::MOST_COORDINATES));
        }
        if !(self.min_dist.is_finite() && (0.0..=1.0).contains(&self.min_dist)) {
            problems.push(format!("min_dist is {}, must be between 0 and 1", self.min_dist));
        }
        problems
    }

    /// About the most bytes that a row takes while it is laid out: its neighbours, about 1.6 edges for each of them,
    /// the vectors for the initial coordinates, and two padded copies of its coordinates.
    pub fn row_bytes(&self) -> u64 {
        (52 * self.neighbors + 16 * (self.dim + 8) + 8 * forces::stride(self.dim)) as u64
    }
}

/// The stage that lays the training rows out.
///
/// Memory: [`ManifoldSpec::row_bytes`] for every row, and nothing that grows with the square of the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifoldStage {
    /// How.
    pub spec: ManifoldSpec,
}

impl Fit for ManifoldStage {
    fn kind(&self) -> &'static str {
        "manifold"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        if let Some(problem) = self.spec.validate().first() {
            return Err(Error::config(problem.clone()));
        }
        if data.rows.len() < 3 {
            return Err(Error::input(format!("{} rows to lay out, at least 3 have neighbours", data.rows.len())));
        }
        self.fits(data.rows.len(), cx.memory)?;
        let weighing = self.weighing(data)?;
        let weighted = weighing.as_ref().map(|weighing| Normalized::new(data.rows, weighing));
        let rows = weighted.as_ref().map_or(data.rows, |weighted| weighted as &dyn Rows);
        let rows = Subset::drawn(rows, self.spec.max_rows, &mut cx.seed.stream("manifold.rows", 0));
        let neighborhood = self.spec.neighbors.min(rows.len());
        if neighborhood < self.spec.neighbors {
            let message = format!(
                "manifold: neighbors = {} is cut to the {} rows that there are",
                self.spec.neighbors,
                rows.len()
            );
            cx.control.emit(Event::Warning { message });
        }
        let graph = self.graph(&rows, neighborhood, cx)?;
        let (_, components) = graph.graph.components();
        let values = self.lay_out(&graph.graph, cx)?;
        let trust = trust_of(&rows, &values, self.spec.dim, cx)?;
        let figures = [
            ("rows", json!(rows.len())),
            ("neighbors", json!(neighborhood)),
            ("recall", json!(graph.recall)),
            ("edges", json!(graph.graph.ends.len() / 2)),
            ("components", json!(components)),
            ("trustworthiness", json!(trust)),
        ];
        let parts = if components == 1 { String::new() } else { format!(" in {components} separate parts") };
        let found =
            if graph.recall < 1.0 { format!(", {:.1} % of them found", 100.0 * graph.recall) } else { String::new() };
        let summary = format!(
            "{} rows of {neighborhood} neighbours{found}{parts} laid out in {} dimensions, trustworthiness {trust:.4}",
            rows.len(),
            self.spec.dim
        );
        let values = centred(values, self.spec.dim);
        let coordinates = Coordinates { dim: self.spec.dim, rows: rows.numbers(), values };
        Ok(Fitted {
            transform: Arc::new(Manifold { spec: self.spec.clone(), coordinates: Some(coordinates) }),
            summary,
            figures: figures.map(|(name, value): (_, Value)| (name.to_string(), value)).into_iter().collect(),
        })
    }
}

/// A graph, and the recall of the neighbours that it was made from.
struct Found {
    graph: Graph,
    recall: f64,
}

impl ManifoldStage {
    /// The factors of the features that make squared differences weighted, if they are to be.
    fn weighing(&self, data: &Training<'_>) -> Result<Option<Normalizer>> {
        match (self.spec.weighted, data.feature_weights) {
            (false, _) => Ok(None),
            (true, None) => Err(Error::config("weighted = true, but no stage before the manifold learned weights")),
            (true, Some(weights)) => Ok(Some(Normalizer::multiply(weights.iter().map(|w| w.sqrt()).collect()))),
        }
    }

    /// Refuses more rows than `memory` bytes hold.
    fn fits(&self, rows: usize, memory: u64) -> Result<()> {
        let (rows, bytes) = (rows.min(self.spec.max_rows), self.spec.row_bytes());
        let (what, needed) = (format!("the layout of {rows} rows"), rows as u128 * u128::from(bytes));
        match memory::beyond(&what, needed, memory) {
            Some(why) => Err(Error::compute(format!("{why}, or set max_rows = {} for the manifold", memory / bytes))),
            None => memory::available_room(&what, needed),
        }
    }

    fn graph(&self, rows: &Subset<'_>, neighborhood: usize, cx: &FitContext<'_>) -> Result<Found> {
        let stage = || self.kind().to_string();
        let total = rows.len() as u64;
        cx.control.emit(Event::Started { stage: stage(), unit: "rows", total: Some(total) });
        let began = Instant::now();
        let mut told = |part: f64| {
            let done = (part * total as f64) as u64;
            let rows_per_second = Some(done as f64 / began.elapsed().as_secs_f64());
            cx.control.emit(Event::Progress { stage: stage(), done, loss: None, rows_per_second });
        };
        let FitContext { seed, device, control, .. } = *cx;
        let search = NeighborSearch { metric: self.spec.metric, exact_work: EXACT_WORK, seed, device, control };
        let found = search.find(rows, neighborhood - 1, &mut told)?;
        Ok(Found { graph: Graph::fuzzy(&found, cx.device.pool()), recall: found.recall })
    }

    /// The layout of `graph`, from the initial coordinates or from a checkpoint.
    fn lay_out(&self, graph: &Graph, cx: &FitContext<'_>) -> Result<Vec<f32>> {
        let (dim, pool) = (self.spec.dim, cx.device.pool());
        let default = if graph.len() <= FEW_ROWS { MANY_EPOCHS } else { FEW_EPOCHS };
        let epochs = self.spec.epochs.unwrap_or(default);
        let (first, positions) = match cx.checkpoint.load()? {
            Some(state) => read_state(&state, graph.len() * dim)?,
            None => (0, start(graph, dim, cx.seed, pool, cx.control)?),
        };
        let spec = LayoutSpec {
            dim,
            epochs,
            draws: self.spec.negative_samples,
            curve: curve(self.spec.min_dist),
            seed: cx.seed.stream("manifold.layout", 0).random(),
        };
        let mut layout = Layout::new(graph, &positions, spec);
        let stage = || self.kind().to_string();
        cx.control.emit(Event::Started { stage: stage(), unit: "epochs", total: Some(epochs as u64) });
        let (mut saved, mut told) = (Instant::now(), Instant::now());
        for epoch in first..epochs {
            if let Err(cancelled) = cx.control.check() {
                cx.checkpoint.save(&state(epoch, layout.positions()))?;
                return Err(cancelled);
            }
            if saved.elapsed().as_secs_f64() > CHECKPOINT_SECONDS {
                cx.checkpoint.save(&state(epoch, layout.positions()))?;
                saved = Instant::now();
            }
            layout.epoch(epoch, pool);
            let rows_per_second = Some(graph.len() as f64 / told.elapsed().as_secs_f64());
            told = Instant::now();
            cx.control.emit(Event::Progress { stage: stage(), done: epoch as u64 + 1, loss: None, rows_per_second });
        }
        Ok(layout.positions())
    }
}

/// The checkpoint before epoch number `epoch`.
fn state(epoch: usize, positions: Vec<f32>) -> Artifact {
    let positions = Tensor { shape: vec![positions.len()], values: positions };
    Artifact {
        settings: [("epoch".to_string(), json!(epoch))].into_iter().collect(),
        tensors: [("positions".to_string(), positions)].into_iter().collect(),
    }
}

/// The epoch and the positions of a checkpoint.
fn read_state(state: &Artifact, len: usize) -> Result<(usize, Vec<f32>)> {
    let damaged = |what: &str| Error::model(format!("the checkpoint of the manifold has no usable {what}"));
    let epoch = state.settings.get("epoch").and_then(Value::as_u64).ok_or_else(|| damaged("epoch"))?;
    let positions = state.tensors.get("positions").filter(|t| t.values.len() == len);
    Ok((epoch as usize, positions.ok_or_else(|| damaged("positions"))?.values.clone()))
}

/// The trustworthiness of a layout, over some of its rows.
fn trust_of(rows: &Subset<'_>, values: &[f32], dim: usize, cx: &FitContext<'_>) -> Result<f64> {
    let sample = Subset::drawn(rows, TRUST_ROWS, &mut cx.seed.stream("manifold.trust", 0));
    let placed: Vec<f32> =
        sample.numbers().iter().flat_map(|&row| &values[row as usize * dim..][..dim]).copied().collect();
    trustworthiness(&sample, &placed, dim, TRUST_NEIGHBORS, cx.device.pool())
}

/// Centres the coordinates and divides all by the root of their mean variance: a network learns this size easily, and
/// the layout keeps its shape. Constant coordinates become 0.
fn centred(mut values: Vec<f32>, dim: usize) -> Vec<f32> {
    let rows = (values.len() / dim).max(1) as f64;
    let means: Vec<f64> =
        (0..dim).map(|d| values.iter().skip(d).step_by(dim).map(|&x| f64::from(x)).sum::<f64>() / rows).collect();
    let away = |(i, &x): (usize, &f32)| f64::from(x) - means[i % dim];
    let variance = values.iter().enumerate().map(|x| away(x).powi(2)).sum::<f64>() / values.len().max(1) as f64;
    let factor = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
    for (i, x) in values.iter_mut().enumerate() {
        *x = (away((i, &*x)) * factor) as f32;
    }
    values
}

/// The fitted stage: leaves batches unchanged, and holds the layout until later stages have learned from it. Only its
/// settings are saved: new rows are placed by the network that was taught the layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifold {
    spec: ManifoldSpec,
    coordinates: Option<Coordinates>,
}

impl Manifold {
    /// The name under which it is saved.
    pub const KIND: &'static str = "manifold";

    /// Restores the stage, with its layout if a run kept it.
    ///
    /// # Errors
    /// Kind `Model` if settings are missing or the layout is damaged.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let wrong = |what: &str| Error::model(format!("stage manifold: {what}"));
        let spec = artifact.settings.get("spec").ok_or_else(|| wrong("no setting \"spec\""))?;
        let spec: ManifoldSpec = serde_json::from_value(spec.clone())
            .map_err(|e| wrong("setting \"spec\" is not that of a manifold").with_source(e))?;
        let coordinates = match (artifact.tensors.get("coordinates"), artifact.settings.get("rows")) {
            (None, None) => None,
            (Some(tensor), Some(rows)) => {
                let rows: Vec<u32> = serde_json::from_value(rows.clone())
                    .map_err(|e| wrong("setting \"rows\" is not a list of row numbers").with_source(e))?;
                if Some(tensor.values.len()) != rows.len().checked_mul(spec.dim) {
                    return Err(wrong("tensor \"coordinates\" has not a row for each of \"rows\""));
                }
                Some(Coordinates { dim: spec.dim, rows, values: tensor.values.clone() })
            }
            _ => return Err(wrong("\"coordinates\" and \"rows\" belong together")),
        };
        Ok(Self { spec, coordinates })
    }
}

impl Transform for Manifold {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Keep { dim: None }
    }

    fn save(&self) -> Artifact {
        let settings = [("spec".to_string(), json!(self.spec))].into_iter().collect();
        Artifact { settings, ..Artifact::default() }
    }

    fn keep(&self) -> Artifact {
        let mut artifact = self.save();
        if let Some(Coordinates { dim, rows, values }) = &self.coordinates {
            artifact.settings.insert("rows".into(), json!(rows));
            let tensor = Tensor { shape: vec![rows.len(), *dim], values: values.clone() };
            artifact.tensors.insert("coordinates".into(), tensor);
        }
        artifact
    }

    fn coordinates(&self) -> Option<&Coordinates> {
        self.coordinates.as_ref()
    }
}

#[cfg(test)]
mod tests;
