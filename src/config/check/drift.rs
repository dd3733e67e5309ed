//! Checks of `[drift]`: whether it can be measured, and what its policy asks for can be done.

use super::Check;
use crate::config::file::{DriftPolicy, DriftTable, Learn};
use crate::config::plan;
use crate::drift::Measure;
use crate::source::follow::learns_once;

impl Check<'_> {
    /// What is measured, from which index on something is said, and what is done.
    pub(super) fn drift(&mut self) {
        let draft = self.draft;
        let Some(drift) = &draft.drift else { return };
        let DriftTable { watch, act, .. } = *drift;
        if act < watch {
            let help = "an index to act on that is not below the one to watch";
            self.at("drift.act", format!("{act} is less than `watch`, which is {watch}"), help);
        }
        let of_clusters = |measure: &Measure| *measure != Measure::Features;
        if drift.measure.iter().flatten().any(of_clusters) && self.kinds_known() && !self.has_clusters() {
            self.at("drift.measure", "there are no clusters to measure", "measure = [\"features\"]");
        }
        if drift.policy != DriftPolicy::Retrain {
            return;
        }
        let help = "policy = \"warn\" or \"fail\"";
        if let Some(why) = draft.source.as_ref().and_then(|source| learns_once(&plan::source(source))) {
            self.at("drift.policy", format!("no model can be learned again: {why}"), help);
        }
        if draft.stream.as_ref().is_some_and(|stream| stream.learn == Learn::Centroids) {
            let message =
                "the centroids of the stream follow its rows already, and a new model would forget where they are";
            self.at("drift.policy", message, "policy = \"warn\" or \"fail\", or learn = \"nothing\" in [stream]");
        }
    }
}
