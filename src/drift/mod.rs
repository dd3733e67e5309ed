//! Drift: how much rows differ from those that a model learned from, by the population stability index.
//!
//! ```text
//! the rows learned from ─► Reference: bins of each feature and of the distances, shares of the clusters
//! rows that are labelled ─► Counts: how many fall into each bin ─► judge ─► a Finding for each thing measured
//! ```
//!
//! A [`Reference`] is made once, where a model is learned, and kept beside it. [`Counts`] add up row by row, in any
//! batches, and can be saved and gone on with. [`Reference::judge`] compares both.
//!
//! ```
//! use dacpipe::drift::{Counts, DriftSpec, Level, Reference};
//!
//! // 1000 rows of one feature, evenly between 0 and 1, all in cluster 0.
//! let learned: Vec<f64> = (0..1000).map(|i| f64::from(i) / 1000.0).collect();
//! let found = (vec![0; 1000], vec![0.5_f32; 1000]);
//! let spec = DriftSpec::default();
//! let reference = Reference::of(&learned, 1, &["x".into()], Some((&found.0, &found.1)), &spec);
//!
//! let mut same = Counts::of(&reference);
//! same.add(&reference, &learned, Some((&found.0, &found.1)))?;
//! assert!(reference.judge(&same, &spec).findings.iter().all(|finding| finding.psi < 1e-9));
//!
//! // The sensor now reads .3 more.
//! let moved: Vec<f64> = learned.iter().map(|x| x + 0.3).collect();
//! let mut counts = Counts::of(&reference);
//! counts.add(&reference, &moved, Some((&found.0, &found.1)))?;
//! let judgement = reference.judge(&counts, &spec);
//! assert_eq!((judgement.findings[0].name.as_deref(), judgement.level()), (Some("x"), Level::Act));
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod bins;
mod judge;
mod psi;
mod reference;
mod report;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use judge::{Finding, Judgement};
pub use psi::{by_chance, psi};
pub use reference::{Counts, Found, Reference};
pub use report::DriftReport;

/// What drift is measured of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Each feature, as the source gives it.
    Features,
    /// The shares of the rows that the clusters have.
    Clusters,
    /// The distances of the rows to their centroids.
    Distances,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Features, Self::Clusters, Self::Distances];
}

/// How drift is measured, and what is said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftSpec {
    /// What it is measured of.
    pub measure: Vec<Measure>,
    /// Bins of a feature and of the distances; fewer where values repeat.
    pub bins: usize,
    /// The index from which a finding is one to watch.
    pub watch: f64,
    /// The index from which it is one to act on.
    pub act: f64,
    /// Of fewer rows, nothing is said.
    pub rows: u64,
}

impl Default for DriftSpec {
    fn default() -> Self {
        Self { measure: Measure::ALL.to_vec(), bins: 10, watch: 0.1, act: 0.25, rows: 1000 }
    }
}

/// What a finding asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    #[default]
    Stable,
    /// To be watched.
    Watch,
    /// To act on.
    Act,
}

impl Level {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Watch => "watch",
            Self::Act => "act",
        }
    }
}
