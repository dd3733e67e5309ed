//! The plan: a pipeline file turned into checked specs with every default filled in.

mod source;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::columns::{key_columns, split_column};
use super::file::*;
use crate::device::DeviceChoice;
use crate::kmeans::{Decay, KMeansSpec, Method};
use crate::label::Begin;
use crate::manifold::ManifoldSpec;
use crate::method::{Afterwards, ClusteringLossName, MethodSpec};
use crate::normalize::Normalize;
use crate::scale::ScaleSpec;
use crate::secret::redacted;
use crate::signal::features::FeatureSet;
use crate::signal::summary::SummarySpec;
use crate::signal::window::{WindowLabel, WindowSpec};
use crate::source::{Fill, Missing, OnBadRow, SourceOptions, SourceSpec};
use crate::{Error, Result, Seed};
pub(super) use source::{dialect, source};

use crate::table::{Mode, OnExisting};

use crate::train::AutoencoderSpec;

use crate::vectors::VectorForm;
use crate::weights::{WeightLabels, WeightMethod, WeightsSpec};

/// The default batch of k-means by mini-batches or online.
const KMEANS_BATCH: usize = 1024;

/// A pipeline as it runs: every value checked, every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The table's name in SQL.
    pub name: String,
    /// The source of every random choice.
    pub seed: u64,
    /// Memory for buffered training rows, in bytes.
    pub memory_limit: u64,
    /// Compute threads; `None` means one per core.
    pub threads: Option<usize>,
    /// Where networks are trained and applied.
    pub device: DeviceChoice,
    /// Whether the CPU trains autoencoders by its fused trainer.
    #[serde(default = "fused")]
    pub fused: bool,
    /// What happens to a row that cannot be read.
    pub on_bad_row: OnBadRow,
    /// What becomes of a missing value.
    #[serde(default)]
    pub missing: Missing,
    /// Where rows come from.
    pub source: SourceSpec,
    /// How recordings are cut into windows; `None` for feature vectors.
    pub window: Option<WindowSpec>,
    /// Which label a window gets.
    #[serde(default)]
    pub window_label: WindowLabel,
    /// Which features are computed from a window; `None` means its samples.
    pub features: Option<FeatureSet>,
    /// The stages that learn, in order; the last is k-means where there are clusters. Empty where the source's vectors
    /// are written unchanged.
    pub stages: Vec<StageSpec>,
    /// Which rows are learned from, and which are assigned to clusters.
    pub split: SplitSpec,
    /// Where the results are written.
    pub sink: SinkSpec,
    /// How the source is followed.
    #[serde(default)]
    pub stream: StreamTable,
    /// Whether the run ends with a page to look at.
    pub report: bool,
    /// SHA-256, in hexadecimal, of everything that decides the result: not of paths, threads, memory and the report. A run can be
    /// resumed by a pipeline of the same fingerprint.
    pub fingerprint: String,
}

fn fused() -> bool {
    true
}

/// A stage that learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageSpec {
    /// Puts means in place of missing values.
    Impute,
    /// Brings features to a common range.
    Scale(ScaleSpec),
    /// Weighs features for the autoencoder's loss.
    FeatureWeights(WeightsSpec),
    /// Learns a representation.
    Autoencoder(AutoencoderSpec),
    /// Learns a network and clusters by a paper's method.
    DeepClustering(Box<MethodSpec>),
    /// Labels rows by the clusters that the network before it learned.
    KeptClusters,
    /// Lays rows out for the representation to learn.
    Manifold(ManifoldSpec),
    /// Finds clusters and labels rows.
    #[serde(rename = "kmeans")]
    KMeans(ClusterSpec),
}

/// How clusters are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// By k-means.
    pub kmeans: KMeansSpec,
    /// What is done to the vectors first.
    pub normalize: Normalize,
    /// What they are looked for in first.
    pub begin: Begin,
}

/// Which rows are learned from, and which are assigned to clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSpec {
    /// The split whose rows are learned from; `None` means all rows.
    pub fit: Option<String>,
    /// The split whose rows get clusters and are evaluated; `None` means all rows.
    pub label: Option<String>,
    /// The column that names the split of a row, where there is one.
    pub column: Option<String>,
}

impl SplitSpec {
    /// The column and the value that choose the rows of one part ([`fit`](Self::fit) or [`label`](Self::label)); none
    /// for all rows.
    ///
    /// # Errors
    /// Kind `Config` if the part is named, but no column.
    pub fn part<'a>(&'a self, part: &'a Option<String>) -> Result<Option<(&'a str, &'a str)>> {
        match (part, &self.column) {
            (None, _) => Ok(None),
            (Some(value), Some(column)) => Ok(Some((column, value))),
            (Some(value), None) => Err(Error::config(format!(
                "split: {value:?} is asked for, but the source has no split column; name one, or use \"all\""
            ))),
        }
    }
}

/// Where the results are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkSpec {
    /// The directory of the labelled table, or the URL of one in an object store.
    pub path: String,
    /// The columns of the source that identify a row of the table.
    pub keys: Vec<String>,
    /// The columns that partition the data files.
    pub partition_by: Vec<String>,
    /// What happens to the rows of earlier runs.
    pub mode: Mode,
    /// What an append does with rows whose keys the table has already.
    pub on_existing: OnExisting,
    /// Whether clusters keep the ids that they have in the table.
    pub stable_ids: bool,
    /// Whether the learned representation of each row is written.
    pub embedding: bool,
    /// Whether the reconstruction error of each row is written.
    pub reconstruction_error: bool,
    /// How the vectors of the last stage before the clusters are written; `None` if they are not.
    pub vectors: Option<VectorForm>,
}

impl Plan {
    /// What is asked of the source, with `threads` threads.
    pub fn source_options(&self, threads: usize) -> SourceOptions {
        SourceOptions {
            window: self.window,
            window_label: self.window_label,
            features: self.features.clone(),
            on_bad_row: self.on_bad_row,
            missing: self.missing == Missing::Mean,
            threads,
        }
    }

    /// A note on what an append does when the source names no keys.
    pub fn without_keys(&self) -> Option<&'static str> {
        self.sink.keys.is_empty().then_some(
            "the source names no key columns, so nothing tells its rows apart: an append adds rows that the table has \
             already, and they cannot be joined with what else is known of them; keys = [\"id\"] in [source] names them",
        )
    }

    /// The plan of a valid file.
    pub(super) fn of(file: &PipelineFile) -> Self {
        let stages = || file.stage.iter();
        let window = stages().find_map(|stage| match stage {
            StageTable::Window(table) => Some(window(table)),
            _ => None,
        });
        let window_label = stages().find_map(|stage| match stage {
            StageTable::Window(table) => Some(table.label),
            _ => None,
        });
        let features = stages().find_map(|stage| match stage {
            StageTable::Features(table) => Some(features(table)),
            _ => None,
        });
        let clusters = stages().find_map(|stage| match stage {
            StageTable::Kmeans(table) => Some(table.k),
            StageTable::DeepClustering(table) => Some(table.k),
            _ => None,
        });
        let width = stages().find_map(|stage| match stage {
            StageTable::Autoencoder(table) => table.encoder.last().copied(),
            StageTable::DeepClustering(table) => method(table).ok().and_then(|spec| spec.embedding_width()),
            _ => None,
        });
        let imputes = (file.missing == Missing::Mean).then_some(StageSpec::Impute);
        Plan {
            name: file.name.clone(),
            seed: file.seed,
            memory_limit: file.memory_limit.bytes(),
            threads: file.threads,
            device: file.device.parts().0,
            fused: file.device.parts().1,
            on_bad_row: file.on_bad_row,
            missing: file.missing,
            source: source_of(file),
            window,
            window_label: window_label.unwrap_or_default(),
            features,
            stages: imputes.into_iter().chain(stages().flat_map(|stage| learners(stage, clusters, width))).collect(),
            split: split(&file.split, &file.source),
            sink: sink(&file.sink, &file.source),
            stream: file.stream.clone(),
            report: file.report,
            fingerprint: fingerprint(file),
        }
    }

    /// The output shapes of a method's layers, one line for each part of the network, where the file gives the shape of
    /// a row.
    pub fn layers(&self) -> Vec<String> {
        let of = |stage: &StageSpec| match stage {
            StageSpec::DeepClustering(spec) => spec.layers(),
            _ => Vec::new(),
        };
        self.stages.iter().flat_map(of).collect()
    }

    /// How many clusters there will be, if any.
    pub fn clusters(&self) -> Option<usize> {
        self.stages.iter().find_map(|stage| match stage {
            StageSpec::KMeans(ClusterSpec { kmeans, .. }) => Some(kmeans.k),
            StageSpec::DeepClustering(spec) => Some(spec.k),
            _ => None,
        })
    }

    /// The width of the embedding, if there is one, for rows of `dim` values. A method may give the rows a shape.
    ///
    /// # Errors
    /// Kind `Config` for a method's layers that do not fit rows of `dim` values.
    pub fn embedding_width(&self, dim: usize) -> Result<Option<usize>> {
        for stage in &self.stages {
            match stage {
                StageSpec::Autoencoder(spec) => return Ok(spec.encoder.last().copied()),
                StageSpec::DeepClustering(spec) if spec.clustering.loss != ClusteringLossName::Experts => {
                    return spec.coder(dim).map(|coder| Some(coder.dim_embedding()));
                }
                StageSpec::DeepClustering(spec) => {
                    spec.coder(dim)?;
                    spec.expert(dim)?;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The source of every random choice.
    pub fn seed(&self) -> Seed {
        Seed(self.seed)
    }
}

/// The source, with what is said of missing values.
fn source_of(file: &PipelineFile) -> SourceSpec {
    let mut spec = source(&file.source);
    if let (SourceSpec::Csv(spec), Missing::Last) = (&mut spec, file.missing) {
        (spec.rules.fill, spec.rules.hold_for) = (Fill::Hold, file.missing_within);
    }
    spec
}

fn window(table: &WindowTable) -> WindowSpec {
    WindowSpec { length: table.length, stride: table.stride, within: table.within }
}

fn features(table: &FeaturesTable) -> FeatureSet {
    match table.set {
        FeatureSetName::Hapt561 => FeatureSet::Hapt561,
        FeatureSetName::Summary => FeatureSet::Summary(summary(table.clone())),
        FeatureSetName::Samples => FeatureSet::Samples,
    }
}

fn summary(table: FeaturesTable) -> SummarySpec {
    let default = SummarySpec::default();
    SummarySpec {
        statistics: table.statistics.unwrap_or(default.statistics),
        spectrum: table.spectrum.unwrap_or(default.spectrum),
        bands: table.bands.unwrap_or(default.bands),
        correlations: table.correlations.unwrap_or(default.correlations),
        magnitudes: table.magnitudes.unwrap_or(default.magnitudes),
        jerk: table.jerk.unwrap_or(default.jerk),
        median: table.median,
        low_pass: table.low_pass,
    }
}

/// The specs that one stage of the file stands for. A method stands for two, a network and its clusters, unless its
/// clusters are networks themselves.
fn learners(stage: &StageTable, clusters: Option<usize>, width: Option<usize>) -> Vec<StageSpec> {
    let StageTable::DeepClustering(table) = stage else {
        return learner(stage, clusters, width).into_iter().collect();
    };
    // The check of the file has validated it.
    let Ok(spec) = method(table) else { return Vec::new() };
    let afterwards = match (spec.clustering.loss, spec.afterwards) {
        (ClusteringLossName::Experts, _) => None,
        (_, Afterwards::Keep) => Some(StageSpec::KeptClusters),
        (_, Afterwards::KMeans) => Some(StageSpec::KMeans(ClusterSpec {
            kmeans: KMeansSpec { n_init: spec.n_init, ..KMeansSpec::new(spec.k) },
            normalize: spec.normalize,
            begin: spec.begin,
        })),
    };
    std::iter::once(StageSpec::DeepClustering(Box::new(spec))).chain(afterwards).collect()
}

/// The method of a table: the published recipe, with the table's keys in place of its defaults.
///
/// # Errors
/// Kind `Config` for what does not make a method.
pub(super) fn method(table: &DeepClusteringTable) -> Result<MethodSpec> {
    let given = serde_json::to_value(table).map_err(|e| Error::internal("a stage as JSON").with_source(e))?;
    MethodSpec::of(table.method, &given)
}

/// The spec of a stage that learns; windows and features belong to the source. `clusters` is the k of k-means,
/// `width` the embedding's.
fn learner(stage: &StageTable, clusters: Option<usize>, width: Option<usize>) -> Option<StageSpec> {
    match stage {
        StageTable::Window(_) | StageTable::Features(_) => None,
        StageTable::Scale(table) => Some(StageSpec::Scale(*table)),
        StageTable::FeatureWeights(table) => Some(StageSpec::FeatureWeights(feature_weights(table, clusters))),
        StageTable::Autoencoder(table) => Some(StageSpec::Autoencoder(table.clone())),
        StageTable::Manifold(table) => Some(StageSpec::Manifold(manifold(table, width))),
        StageTable::Kmeans(table) => Some(StageSpec::KMeans(clusters_of(table))),
        StageTable::DeepClustering(_) => None,
    }
}

fn feature_weights(table: &FeatureWeightsTable, clusters: Option<usize>) -> WeightsSpec {
    let labels = match (table.method, &table.labels) {
        (WeightMethodName::Uniform, _) => WeightLabels::Uniform,
        (_, Some(column)) => WeightLabels::Column(column.clone()),
        (_, None) => WeightLabels::Pseudo { k: table.k.or(clusters).unwrap_or(1) },
    };
    let method = match table.method {
        WeightMethodName::Pairwise | WeightMethodName::Uniform => WeightMethod::Pairwise,
        WeightMethodName::Fisher => WeightMethod::Fisher,
    };
    WeightsSpec { method, labels, sample: table.sample }
}

/// Without a network, which the check of the file asks for, any width is as good as another.
fn manifold(table: &ManifoldTable, width: Option<usize>) -> ManifoldSpec {
    let ManifoldTable { neighbors, dim, min_dist, epochs, negative_samples, metric, weighted, max_rows } = *table;
    let dim = dim.or(width).unwrap_or(ManifoldSpec::default().dim);
    ManifoldSpec { neighbors, dim, min_dist, epochs, negative_samples, metric, weighted, max_rows }
}

fn clusters_of(table: &KmeansTable) -> ClusterSpec {
    ClusterSpec { kmeans: kmeans(table), normalize: table.normalize, begin: table.begin }
}

fn kmeans(table: &KmeansTable) -> KMeansSpec {
    let batch_size = table.batch_size.unwrap_or(KMEANS_BATCH);
    let method = match table.method {
        KmeansMethodName::Lloyd => Method::Lloyd,
        KmeansMethodName::MiniBatch => Method::MiniBatch { batch_size },
        KmeansMethodName::Online => Method::Online { batch_size, decay: decay(table) },
    };
    let KmeansTable { k, n_init, max_iterations, tolerance, .. } = *table;
    KMeansSpec { k, n_init, max_iterations, tolerance, method }
}

fn decay(table: &KmeansTable) -> Decay {
    match (table.half_life, table.decay) {
        (Some(half_life), _) => Decay::HalfLife(half_life.into()),
        (None, Some(factor)) => Decay::Factor(factor),
        (None, None) => Decay::None,
    }
}

fn split(table: &SplitTable, source: &SourceTable) -> SplitSpec {
    let value = |value: &String| match value.as_str() {
        ALL => None,
        THE_VALUE_ALL => Some(ALL.to_owned()),
        other => Some(other.to_owned()),
    };
    let column = table.column.as_ref().or(split_column(source)).cloned();
    SplitSpec { fit: value(&table.fit), label: value(&table.label), column }
}

fn sink(table: &SinkTable, source: &SourceTable) -> SinkSpec {
    SinkSpec {
        path: table.path.clone(),
        keys: table.keys.clone().unwrap_or_else(|| key_columns(source)),
        partition_by: table.partition_by.clone(),
        mode: table.mode,
        on_existing: table.on_existing.unwrap_or_default(),
        stable_ids: table.stable_ids.unwrap_or(true),
        embedding: table.embedding,
        reconstruction_error: table.reconstruction_error,
        vectors: table.vectors,
    }
}

/// The hash of the file with its defaults, without the keys that do not change the result.
fn fingerprint(file: &PipelineFile) -> String {
    let mut json = serde_json::to_value(file).unwrap_or_default();
    if let Some(root) = json.as_object_mut() {
        root.remove("memory_limit");
        root.remove("threads");
        root.remove("report");
        root.remove("stream");
        for table in ["source", "sink"] {
            if let Some(table) = root.get_mut(table).and_then(Json::as_object_mut) {
                table.remove("path");
            }
        }
    }
    let mut text = String::new();
    canonical(&json, &mut text);
    // Secrets are redacted: a hash of one could be used to confirm a guess, and a run can be resumed with a new secret.
    Sha256::digest(redacted(&text).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted keys and no space: one text for one value.
fn canonical(json: &Json, text: &mut String) {
    match json {
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for key in keys {
                text.push_str(&Json::from(key.as_str()).to_string());
                text.push(':');
                canonical(&map[key], text);
                text.push(',');
            }
            text.push('}');
        }
        Json::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}
