//! `[[stage]]` of kind `window` and `features`: from recordings to feature vectors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::signal::summary::{SpectralStatistic, Statistic};

/// Cuts recordings into windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowTable {
    /// Samples in a window.
    #[schemars(range(min = 1, max = 16777216))]
    pub length: usize,
    /// Samples from the start of a window to the start of the next.
    #[schemars(range(min = 1, max = 16777216))]
    pub stride: usize,
    /// Where windows are cut. Default "recordings".
    #[serde(default)]
    pub within: WithinName,
    /// Which label a window gets. Default "whole".
    #[serde(default, skip_serializing_if = "WindowLabelName::is_default")]
    pub label: WindowLabelName,
}

/// Which label a window gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowLabelName {
    /// The label that all of its samples have, or none.
    #[default]
    Whole,
    /// The label that most of its samples have; on a tie, the one that comes first. The share of the samples that have
    /// it is in a column of its own, named after the label column with _share appended.
    Mode,
}

impl WindowLabelName {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where windows are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithinName {
    /// Inside each labelled interval, from its first sample on and never past its last.
    Labels,
    /// Over each whole recording, labelled or not.
    #[default]
    Recordings,
}

/// Computes a feature vector from each window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturesTable {
    /// Which features. The other keys are for set = "summary".
    pub set: FeatureSetName,
    /// Statistics in time of each signal. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Vec<Statistic>>,
    /// Statistics of each signal's amplitude spectrum. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<Vec<SpectralStatistic>>,
    /// The number of equal bands of the spectrum; the energy of each is a feature. 0 for none. Default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<usize>,
    /// Whether the correlation of each pair of channels is a feature. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlations: Option<bool>,
    /// Groups of channels by name, such as { acceleration = ["x", "y", "z"] }: the Euclidean norm of each is a signal
    /// too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magnitudes: Option<BTreeMap<String, Vec<String>>>,
    /// Whether the derivative in time of each channel, and of each magnitude, is a signal too. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jerk: Option<bool>,
    /// A running median of this odd number of samples over each recording, before anything else. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub median: Option<usize>,
    /// A Butterworth low-pass over each recording, after the median. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_pass: Option<LowPassTable>,
}

/// A Butterworth low-pass over each recording, run forward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LowPassTable {
    /// Its order.
    #[schemars(range(min = 1, max = 20))]
    pub order: usize,
    /// Its cutoff frequency in Hz, below half the sampling rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cutoff_hz: f64,
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSetName {
    /// The 561 features of the HAPT data set, from three axes of acceleration and three of angular velocity.
    Hapt561,
    /// Statistics and spectra of each channel, of any number of channels.
    Summary,
    /// The window's samples themselves, channel after channel.
    Samples,
}
