//! Checks of `[stream]`: whether the source can be followed so.

use super::Check;
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
    }
}
