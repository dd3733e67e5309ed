//! `[drift]`: how much rows may differ from those that were learned from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::drift::{DriftSpec, Measure};

/// Measures how much the rows that are labelled differ from those that the model learned from, by the population
/// stability index. What is found is in the table `NAME_drift`. Without this section nothing is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftTable {
    /// What is measured: "features" (each, as the source gives it), "clusters" (their shares of the rows) and "distances"
    /// (to the centroids). Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub measure: Option<Vec<Measure>>,
    /// Bins of a feature and of the distances, by quantiles of the rows that are learned from. Default 10.
    #[serde(default = "default_bins")]
    #[schemars(range(min = 2, max = 100))]
    pub bins: usize,
    /// The index from which something is to be watched. Default 0.1.
    #[serde(default = "default_watch")]
    #[schemars(range(min = 0))]
    pub watch: f64,
    /// The index from which the policy is followed. Default 0.25.
    #[serde(default = "default_act")]
    #[schemars(range(min = 0))]
    pub act: f64,
    /// Of fewer rows, nothing is said. A stream says something with the commit that has so many rows since it last did.
    /// Default 1000.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1))]
    pub rows: u64,
    /// What is done where something has drifted so far that it is to be acted on: "warn"; "fail" ends after the commit, with
    /// exit code 10; "retrain" learns a new model of a stream from the files that are there. Default "warn".
    #[serde(default)]
    pub policy: DriftPolicy,
}

/// What is done about drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// It is said.
    #[default]
    Warn,
    /// The command ends after the commit, with an exit code of its own.
    Fail,
    /// A stream learns a new model.
    Retrain,
}

impl DriftTable {
    /// How drift is measured.
    pub fn spec(&self) -> DriftSpec {
        let measure = self.measure.clone().unwrap_or_else(|| Measure::ALL.to_vec());
        DriftSpec { measure, bins: self.bins, watch: self.watch, act: self.act, rows: self.rows }
    }
}

impl Default for DriftTable {
    fn default() -> Self {
        let DriftSpec { bins, watch, act, rows, .. } = DriftSpec::default();
        Self { measure: None, bins, watch, act, rows, policy: DriftPolicy::default() }
    }
}

fn default_bins() -> usize {
    DriftSpec::default().bins
}

fn default_watch() -> f64 {
    DriftSpec::default().watch
}

fn default_act() -> f64 {
    DriftSpec::default().act
}

fn default_rows() -> u64 {
    DriftSpec::default().rows
}
