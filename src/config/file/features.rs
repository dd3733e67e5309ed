//! `[[stage]]` of kind `window` and `features`: from recordings to feature vectors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::signal::summary::{LowPassSpec, SpectralStatistic, Statistic};
use crate::signal::window::{WindowLabel, Within};

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
    pub within: Within,
    /// Which label a window over a recording has. Default "whole".
    #[serde(default, skip_serializing_if = "is_default_label")]
    pub label: WindowLabel,
}

fn is_default_label(label: &WindowLabel) -> bool {
    *label == WindowLabel::default()
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
    pub low_pass: Option<LowPassSpec>,
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
