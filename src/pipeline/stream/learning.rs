//! What a stream learns from the rows that it has labelled: where the centroids of its clusters lie.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::label_pass::Vectors;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::identity::{Change, Identities};
use crate::kmeans::{Decay, OnlineKMeans, OnlineSpec, OnlineState};
use crate::label::Label;
use crate::model::Model;
use crate::seed::Seed;
use crate::stage::{Clusters, Transform};

/// What was learned so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Moved {
    /// The hash of the model whose clusters they are.
    model: String,
    online: OnlineState,
    identities: Identities,
}

/// Online k-means over the clusters of a model.
pub(super) struct Learning {
    model: String,
    label: Label,
    online: OnlineKMeans,
    identities: Identities,
    device: Arc<dyn Device>,
}

impl Learning {
    /// Goes on with what was `learned` for this model, or begins with its clusters. `next_id` is the next free id.
    ///
    /// # Errors
    /// Kind `Model` if its clusters have no centroids, or what was learned does not fit; `Config` for a bad decay.
    pub fn begin(
        model: &Model,
        decay: Decay,
        learned: Option<&Moved>,
        next_id: i32,
        device: &Arc<dyn Device>,
    ) -> Result<Self> {
        let stage = model.stages().iter().find(|stage| stage.kind() == Label::KIND);
        let Some(stage) = stage else {
            return Err(Error::model("its clusters have no centroids that could move; leave learn in [stream] out"));
        };
        let label = Label::from_artifact(&stage.save(), &**device)?;
        let hash = model.hash().as_str();
        let (online, identities) = match learned.filter(|learned| learned.model == hash) {
            Some(Moved { online, identities, .. }) => {
                let spec = OnlineSpec::new(label.k(), decay);
                (OnlineKMeans::resume(spec, Seed(0), online.clone())?, identities.clone())
            }
            None => {
                let ids = label.ids();
                let least = ids.iter().max().map_or(0, |id| id.saturating_add(1));
                (label.learner(decay)?, Identities::new(ids, next_id.max(least))?)
            }
        };
        Ok(Self { model: hash.to_owned(), label, online, identities, device: Arc::clone(device) })
    }

    /// The column of the vectors that it learns from.
    pub fn column(&self) -> &str {
        self.label.column()
    }

    /// The stage that labels rows by the centroids as they are now.
    pub fn stage(&self) -> Result<Label> {
        self.label.moved(&self.online, self.identities.ids(), &*self.device)
    }

    /// Learns from rows that were labelled. Returns which clusters ended and began.
    ///
    /// # Errors
    /// As of [`OnlineKMeans::partial_fit`].
    pub fn learn(&mut self, vectors: &Vectors) -> Result<Vec<Change>> {
        let batch = self.label.teach(&mut self.online, &vectors.values, vectors.newest, &*self.device)?;
        let mut changes = Vec::new();
        for revived in batch.revived {
            let (died, born) = self.identities.replace(revived.cluster)?;
            changes.extend([Change::died(died), Change::born(born)]);
        }
        Ok(changes)
    }

    /// What was learned, to go on from.
    pub fn save(&self) -> Moved {
        let (online, identities) = (self.online.state().clone(), self.identities.clone());
        Moved { model: self.model.clone(), online, identities }
    }
}

/// `stages` with `label` in the place of the stage that labels rows.
pub(super) fn labelling(stages: Vec<Arc<dyn Transform>>, label: &Label) -> Vec<Arc<dyn Transform>> {
    let place = |stage: Arc<dyn Transform>| match stage.kind() {
        Label::KIND => Arc::new(label.clone()) as Arc<dyn Transform>,
        _ => stage,
    };
    stages.into_iter().map(place).collect()
}
