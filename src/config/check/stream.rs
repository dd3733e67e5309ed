//! Checks of `[stream]`: whether the source can be followed so.

use super::Check;
use crate::config::file::{Learn, SourceTable, StreamTable};
use crate::config::half_life::HalfLifeSetting;
use crate::config::plan;
use crate::source::follow::conflict;

impl Check<'_> {
    /// The source and how it is followed.
    pub(super) fn stream(&mut self) {
        let (Some(stream), Some(source)) = (&self.draft.stream, &self.draft.source) else { return };
        if let Some((message, help)) = conflict(&plan::source(source), stream.files) {
            let key = if self.tree.at("stream.files").1 { "stream.files" } else { "stream" };
            self.at(key, message, help);
        }
        self.learning(stream, source);
    }

    /// What moves centroids, and how it forgets.
    fn learning(&mut self, stream: &StreamTable, source: &SourceTable) {
        let centroids = "learn = \"centroids\"";
        match (stream.learn, stream.half_life) {
            (Learn::Nothing, Some(_)) => {
                self.at("stream.half_life", "nothing is learned that could be forgotten", centroids);
            }
            (Learn::Centroids, Some(HalfLifeSetting::Time(_))) if !has_times(source) => {
                let help = "a number of rows or of batches, or `time` in [source]";
                self.at("stream.half_life", "a half-life in time, but the samples have no times", help);
            }
            (Learn::Centroids, _) if self.kinds_known() && self.position("kmeans").is_none() => {
                let help = "a last stage of kind = \"kmeans\", or leave the key out";
                self.at("stream.learn", "there is no kmeans stage whose centroids could move", help);
            }
            (Learn::Nothing | Learn::Centroids, _) => {}
        }
    }
}

/// Whether the source's samples have times.
fn has_times(source: &SourceTable) -> bool {
    matches!(source, SourceTable::Csv(table) if table.time.is_some())
}
