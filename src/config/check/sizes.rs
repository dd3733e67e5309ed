//! Checks of memory, as far as the file gives the sizes: what cannot fit is reported before any data is read.

use super::super::file::*;
use super::{Check, LEAST_MEMORY};
use crate::memory;
use crate::network::Architecture;
use crate::signal::features::MOST_FEATURES;
use crate::signal::hapt561;
use crate::source::hapt;

impl Check<'_> {
    /// Compares what the stages need with the part of the limit that they may use.
    pub(super) fn sizes(&mut self) {
        let limit = self.draft.memory_limit.unwrap_or_else(default_memory_limit);
        if limit < LEAST_MEMORY {
            // The limit itself has been reported as too small, so there is nothing to compare with.
            return;
        }
        let limit = memory::of_limit(limit.bytes());
        self.window_sizes(limit);
        let features = self.features_known().unwrap_or(1);
        let draft = self.draft;
        for (at, (_, stage)) in draft.stages.iter().enumerate() {
            if let Some(StageTable::Autoencoder(table)) = stage {
                let network = Architecture::dac(features, &table.encoder, table.decoder.as_deref());
                self.holds(&format!("stage[{at}].encoder"), "the network", network.training_bytes(1), limit);
            }
        }
        let width = draft.stages.iter().find_map(|(_, stage)| match stage {
            Some(StageTable::Autoencoder(table)) => table.encoder.last().copied(),
            _ => None,
        });
        for (at, (_, stage)) in draft.stages.iter().enumerate() {
            if let Some(StageTable::Kmeans(table)) = stage {
                // Only the centroids, since the number of rows is not known.
                let bytes = 4 * table.k as u128 * width.unwrap_or(features) as u128;
                self.holds(&format!("stage[{at}].k"), "k-means", bytes, limit);
            }
        }
    }

    /// A window is held once as read, and once for each step that computes its features.
    fn window_sizes(&mut self, limit: u64) {
        const COPIES: u128 = 4;
        let draft = self.draft;
        let channels = match &draft.source {
            Some(SourceTable::Csv(csv)) => csv.channels.len(),
            Some(SourceTable::Hapt(_)) => hapt::CHANNELS.len(),
            _ => return,
        };
        for (at, (_, stage)) in draft.stages.iter().enumerate() {
            let Some(StageTable::Window(window)) = stage else { continue };
            let (path, values) = (format!("stage[{at}].length"), window.length as u128 * channels as u128);
            self.holds(&path, "one window", 8 * COPIES * values, limit);
            if values > MOST_FEATURES as u128 && self.of_samples() {
                let message = format!("a row of {values} values, at most {MOST_FEATURES} are possible");
                self.at(&path, message, "shorter windows, fewer channels, or a features stage");
            }
        }
    }

    /// Whether a window's samples are its features.
    fn of_samples(&self) -> bool {
        let set = self.draft.stages.iter().find_map(|(_, stage)| match stage {
            Some(StageTable::Features(table)) => Some(table.set == FeatureSetName::Samples),
            _ => None,
        });
        set.unwrap_or(self.position("features").is_none())
    }

    /// The number of values of a row, where the file gives it.
    pub(super) fn features_known(&self) -> Option<usize> {
        let stages = || self.draft.stages.iter().filter_map(|(_, stage)| stage.as_ref());
        let is_hapt561 =
            |stage: &StageTable| matches!(stage, StageTable::Features(table) if table.set == FeatureSetName::Hapt561);
        if stages().any(is_hapt561) {
            return Some(hapt561::DIM);
        }
        let length = stages().find_map(|stage| match stage {
            StageTable::Window(window) => Some(window.length),
            _ => None,
        });
        match self.draft.source.as_ref()? {
            SourceTable::Csv(csv) if self.of_samples() => csv.channels.len().checked_mul(length.unwrap_or(1)),
            SourceTable::Hapt(_) if self.of_samples() => hapt::CHANNELS.len().checked_mul(length.unwrap_or(1)),
            SourceTable::Parquet(table) => match &table.features {
                Columns::Many(columns) => Some(columns.len()),
                Columns::One(_) => None,
            },
            _ => None,
        }
    }

    fn holds(&mut self, path: &str, what: &str, needed: u128, limit: u64) {
        if let Some(why) = memory::beyond(what, needed, limit) {
            self.at(path, why, "");
        }
    }
}
