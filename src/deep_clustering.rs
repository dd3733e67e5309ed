//! The `deep_clustering` stage: a method of a paper, as its row of blocks says.
//!
//! The blocks run in the order of Aljalbout et al. 2018: the network is pre-trained, k-means finds the clusters that the
//! clustering begins with, then network and clusters are learned together. Labels play no part in it.

mod courses;
mod experts;
mod joint;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::device::StepLoss;
use crate::embed_network::EmbedNetwork;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::heap::KeepFreed;
use crate::kernel::{Dense, Rows};
use crate::kmeans::{self, KMeansSpec};
use crate::label::{KMeansStage, Label};
use crate::method::{ClusteringLossName, MethodSpec};
use crate::network::Coder;
use crate::stage::{Centroids, EMBEDDING, Fit, FitContext, Fitted, Training};
use crate::train::{embed, flat};
use courses::Courses;

/// The stage that learns a network, and clusters with it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepClustering {
    /// The method, with what the pipeline file says of it.
    pub spec: MethodSpec,
}

impl DeepClustering {
    /// Its name in a pipeline file.
    pub const KIND: &'static str = "deep_clustering";

    fn check(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<()> {
        let (rows, dim) = (data.rows.len(), data.rows.dim());
        kmeans::check_rows(self.spec.k.max(1), rows)?;
        if u32::try_from(rows).is_err() {
            return Err(Error::input(format!("{rows} training rows, at most {} are possible", u32::MAX)));
        }
        let coder = self.spec.coder(dim)?;
        if let Some(coordinates) = data.coordinates
            && coordinates.dim != coder.dim_embedding()
        {
            let (dim, width) = (coordinates.dim, coder.dim_embedding());
            return Err(Error::config(format!("the manifold has {dim} dimensions, the embedding {width}")));
        }
        let mut parameters = coder.parameter_count();
        let batch = |size: usize| size.min(rows);
        let mut bytes = coder.training_bytes(batch(self.spec.pretraining.training.batch_size));
        if let Some(expert) = self.spec.expert(dim)? {
            parameters += expert.parameter_count() * self.spec.k;
            bytes += expert.training_bytes(batch(self.spec.clustering.training.batch_size)) * self.spec.k as u128;
        }
        // Embeddings, target and assignments of all rows.
        bytes += rows as u128 * 4 * (2 * coder.dim_embedding() as u128 + 3 * self.spec.k as u128);
        cx.room(&format!("training a network of {parameters} parameters"), bytes)
    }
}

impl Fit for DeepClustering {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        self.check(data, cx)?;
        let _keep = KeepFreed::begin();
        let builder = cx.device.builder(cx.seed);
        let coder = Coder::new("", &self.spec.coder(data.rows.dim())?, &builder)?;
        let mut courses = Courses::begin(&self.spec, data, cx, &builder)?;
        courses.pretrain(&coder)?;
        match self.spec.clustering.loss {
            ClusteringLossName::Hardening => {
                let centroids = joint::learn(&self.spec, &coder, &mut courses)?;
                let spec = coder.spec().clone();
                let embedded = flat(&embed(&coder, data.rows, &builder.device)?)?;
                let stage = EmbedNetwork::new(&spec, &coder.arrays()?, Some(centroids.clone()))?;
                let found = kmeans::around(&Dense::new(&embedded, centroids.dim), centroids.values, cx.device)?;
                warn_of_collapse(cx, &found.sizes, spread(&embedded, centroids.dim));
                Ok(fitted(Arc::new(stage), &courses.history, coder.spec().parameter_count(), &found.sizes))
            }
            ClusteringLossName::Experts => {
                let (stage, sizes) = experts::learn(&self.spec, &coder, &mut courses)?;
                warn_of_collapse(cx, &sizes, 1.0);
                let expert = self.spec.expert(data.rows.dim())?;
                let parameters = expert.map_or(0, |expert| expert.parameter_count()) * self.spec.k;
                Ok(fitted(Arc::new(stage), &courses.history, parameters, &sizes))
            }
        }
    }
}

/// What the clustering begins with: the label of each row of `embedded`, and the centroids (`k x dim`).
fn first_clusters(spec: &MethodSpec, embedded: &dyn Rows, courses: &Courses<'_>) -> Result<(Vec<u32>, Vec<f32>)> {
    let kmeans = KMeansSpec { n_init: spec.n_init, ..KMeansSpec::new(spec.k) };
    let stage = KMeansStage::new(kmeans, EMBEDDING).normalized(spec.normalize);
    let data = Training { coordinates: courses.data.coordinates, ..Training::new(embedded) };
    stage
        .begin(spec.begin)
        .clusters(&data, courses.cx)
        .map_err(|e| e.while_doing("the clusters that the clustering begins with"))
}

/// The variance of embeddings (`rows x dim`), summed over their values.
fn spread(embedded: &[f32], dim: usize) -> f64 {
    let rows = (embedded.len() / dim).max(1) as f64;
    let (mut sums, mut squares) = (vec![0.0; dim], vec![0.0; dim]);
    for row in embedded.chunks_exact(dim) {
        for ((sum, square), &z) in sums.iter_mut().zip(&mut squares).zip(row) {
            *sum += f64::from(z);
            *square += f64::from(z) * f64::from(z);
        }
    }
    sums.iter().zip(&squares).map(|(sum, square)| (square / rows - (sum / rows).powi(2)).max(0.0)).sum()
}

/// Tells of clusters that nothing is in, and of embeddings that are all the same.
fn warn_of_collapse(cx: &FitContext<'_>, sizes: &[u64], spread: f64) {
    let empty = sizes.iter().filter(|&&size| size == 0).count();
    let (rows, largest) = (sizes.iter().sum::<u64>(), sizes.iter().max().copied().unwrap_or(0));
    let message = if spread < 1e-10 {
        "the network collapsed: all rows have the same embedding; a lower learning rate may help".to_owned()
    } else if empty > 0 {
        let k = sizes.len();
        format!(
            "the clusters collapsed: {empty} of {k} have no rows, the largest has {largest} of {rows}; a lower learning \
             rate, more epochs of pretraining or a smaller k may help"
        )
    } else {
        return;
    };
    cx.control.emit(Event::Warning { message });
}

/// What a course gave, for people and for `run.json`.
pub(super) struct Taken {
    pub name: String,
    pub losses: Vec<StepLoss>,
    /// What was minimised, epoch by epoch.
    pub total: Vec<f64>,
}

fn fitted(transform: Arc<dyn crate::stage::Transform>, history: &[Taken], parameters: usize, sizes: &[u64]) -> Fitted {
    let mut figures = Map::new();
    let all: Vec<f64> = history.iter().flat_map(|taken| taken.total.iter().copied()).collect();
    let parts: Vec<String> = history
        .iter()
        .map(|Taken { name, losses, total }| {
            let last = total.last().copied().unwrap_or(f64::NAN);
            format!("{name}: loss {last:.6} after {} epochs", losses.len())
        })
        .collect();
    let courses: Vec<Value> = history
        .iter()
        .map(|Taken { name, losses, total }| {
            let reconstruction: Vec<f64> = losses.iter().map(|loss| loss.reconstruction).collect();
            let clustering: Vec<f64> = losses.iter().map(|loss| loss.embedding).collect();
            json!({ "course": name, "loss": total, "reconstruction": reconstruction, "clustering": clustering })
        })
        .collect();
    figures.insert("loss".into(), json!(all));
    figures.insert("courses".into(), json!(courses));
    figures.insert("epochs".into(), json!(all.len()));
    figures.insert("parameters".into(), json!(parameters));
    figures.insert("sizes".into(), json!(sizes));
    // Of courses as many as there are clusters, the last says enough.
    let shown = if parts.len() > 4 { &parts[parts.len() - 1..] } else { &parts[..] };
    Fitted { transform, summary: shown.join("; "), figures }
}

/// The stage that labels rows by the clusters that the network before it learned.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeptClusters;

impl Fit for KeptClusters {
    fn kind(&self) -> &'static str {
        "clusters"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let Some(Centroids { values, .. }) = data.centroids else {
            return Err(Error::internal("no stage before this one learned clusters"));
        };
        let found = kmeans::around(data.rows, values.clone(), cx.device)?;
        let summary = format!("{} clusters of {} rows, inertia {:.6e}", found.k, data.rows.len(), found.inertia);
        let figures = [("inertia", json!(found.inertia)), ("sizes", json!(found.sizes))];
        Ok(Fitted {
            transform: Arc::new(Label::new(&found, EMBEDDING, cx.device)?),
            summary,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
