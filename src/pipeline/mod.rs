//! The driver: from a checked plan to a labelled table.
//!
//! ```text
//! source ──first pass──► replay cache ──► scale ─► feature_weights ─► autoencoder ─► kmeans      (learn)
//! the table's newest model ─► which of its clusters are which of the new ones                    (identity)
//! source ──────────────► the fitted stages ─► counts ─► data files, in one plan ─► one commit    (label)
//! ```
//!
//! The source is read twice: once for the rows to learn from, kept in the replay cache, and once, after everything is
//! fitted, for the rows to label. Nothing is in the table before the commit at the end; a run that fails or is killed
//! leaves it as it was, and `resume` goes on from the last epoch.

use std::sync::Arc;

mod checks;
mod clock;
mod collect;
mod execution;
mod identity;
mod label_pass;
mod learn;
mod output;
mod portrait;
mod precision;
mod relabel;
mod replay;
mod resume;
mod scan;
mod state;
mod stream;
mod tally;
mod watch;
mod written;

pub use relabel::{InputKind, Relabel, RelabelReport};
pub use replay::{Refused, ReplayOptions, ReplayReport, replay_table};
pub use stream::{StreamOptions, StreamReport};

use crate::config::{ClusterSpec, Plan, StageSpec};
use crate::deep_clustering::{DeepClustering, KeptClusters};
use crate::error::Result;
use crate::event::Control;
use crate::impute::ImputeStage;
use crate::label::KMeansStage;
use crate::manifold::ManifoldStage;
use crate::registry::{Registry, Restore};
use crate::report::RunReport;
use crate::scale::ScaleStage;
use crate::source::BadRows;
use crate::stage::{EMBEDDING, FEATURES, Fit};
use crate::train::Autoencoder;
use crate::weights::FeatureWeightsStage;
use clock::Clock;
use execution::Execution;

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Go on with an interrupted run of the same pipeline over the same data. Starts if none was interrupted, and does
    /// nothing if the table already has the run. An event says which.
    pub resume: bool,
    /// Where events go and where interrupts come from.
    pub control: Control,
}

/// A checked pipeline, ready to run.
#[derive(Debug)]
pub struct Pipeline {
    plan: Plan,
    stages: Vec<Arc<dyn Fit>>,
    registry: Registry,
}

impl Pipeline {
    /// The pipeline of a plan.
    ///
    /// # Errors
    /// Kind `Config` if the device that the plan asks for is not available.
    pub fn new(plan: Plan) -> Result<Self> {
        plan.device.check()?;
        let mut vectors = FEATURES;
        let mut stages: Vec<Arc<dyn Fit>> = Vec::new();
        for spec in &plan.stages {
            stages.push(match spec {
                StageSpec::Impute => Arc::new(ImputeStage),
                StageSpec::Scale(spec) => Arc::new(ScaleStage::new(*spec)),
                StageSpec::FeatureWeights(spec) => Arc::new(FeatureWeightsStage::new(spec.clone())),
                StageSpec::Autoencoder(spec) => {
                    vectors = EMBEDDING;
                    Arc::new(Autoencoder { spec: spec.clone() })
                }
                StageSpec::DeepClustering(spec) => {
                    vectors = EMBEDDING;
                    Arc::new(DeepClustering { spec: (**spec).clone() })
                }
                StageSpec::KeptClusters => Arc::new(KeptClusters),
                StageSpec::Manifold(spec) => Arc::new(ManifoldStage { spec: spec.clone() }),
                StageSpec::KMeans(ClusterSpec { kmeans, normalize, begin }) => {
                    let stage = KMeansStage::new(kmeans.clone(), vectors);
                    Arc::new(stage.normalized(*normalize).begin(*begin))
                }
            });
        }
        Ok(Self { plan, stages, registry: Registry::default() })
    }

    /// Puts a stage of your own before the stage number `index`. Its fitted form is saved under `kind` and rebuilt by
    /// `restore`.
    ///
    /// # Panics
    /// If there are fewer stages than `index`.
    pub fn insert_stage(&mut self, index: usize, stage: Arc<dyn Fit>, kind: &'static str, restore: Restore) {
        self.stages.insert(index, stage);
        self.registry = self.registry.clone().stage(kind, restore);
    }

    /// Whether all of its stages are the plan's.
    fn is_as_planned(&self) -> bool {
        self.stages.len() == self.plan.stages.len()
    }

    /// The names of the stages that learn, in order.
    pub fn stages(&self) -> impl Iterator<Item = &'static str> {
        self.stages.iter().map(|s| s.kind())
    }

    /// Reads, learns, labels and commits.
    ///
    /// # Errors
    /// As documented for [`Kind`](crate::Kind). Whatever fails, the table stays as it was, or has all rows of this run.
    pub async fn run(&self, options: &RunOptions) -> Result<RunReport> {
        let clock = Clock::start()?;
        let report = match resume::committed(&self.plan, options).await? {
            Some(report) => report,
            None => {
                let bad = Arc::new(BadRows::new());
                match self.learn_and_label(options, &clock, &bad).await {
                    Ok(report) => report,
                    Err(e) => {
                        let run_id = clock.run_id(&self.plan.fingerprint);
                        return Err(output::with_quarantine(e, &self.plan.sink.path, &run_id, &bad).await);
                    }
                }
            }
        };
        if self.plan.report {
            output::draw_report(&self.plan, &options.control).await?;
        }
        Ok(report)
    }

    /// One execution; rows that are set aside go to `bad`.
    async fn learn_and_label(&self, options: &RunOptions, clock: &Clock, bad: &Arc<BadRows>) -> Result<RunReport> {
        let run = Execution::open(self, options, clock, Arc::clone(bad)).await?;
        let (learned, model, lineage) = run.learn_model().await?;
        run.label(learned, model, lineage).await
    }
}
