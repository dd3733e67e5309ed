//! The ids of a stage's clusters, as it keeps and saves them.

use serde_json::json;

use super::Artifact;
use crate::error::{Error, Result};
use crate::identity;

/// The setting of the ids.
const IDS: &str = "ids";

/// The ids that the clusters of a stage were given. Where each is its cluster's index, as in a first model, they are not
/// saved, so that a model is the same whether it was given them or not.
///
/// ```
/// use dacpipe::stage::{Artifact, ClusterIds};
///
/// let ids = ClusterIds::given(&[4, 0], 2)?;
/// let mut saved = Artifact::default();
/// ids.save(&mut saved);
/// assert_eq!(ClusterIds::restore(&saved, 2)?.of(2), [4, 0]);
///
/// let mut clusters = [1, 0, 0];
/// ids.name(&mut clusters);
/// assert_eq!(clusters, [0, 4, 4]);
/// assert_eq!(ClusterIds::given(&[0, 1], 2)?, ClusterIds::default());
/// # Ok::<(), dacpipe::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterIds(Option<Vec<i32>>);

impl ClusterIds {
    /// These ids of `k` clusters, by index.
    ///
    /// # Errors
    /// Kind `Model` unless there are `k`, distinct and not negative.
    pub fn given(ids: &[i32], k: usize) -> Result<Self> {
        identity::check(ids, k)?;
        Ok(Self((!identity::are_indices(ids)).then(|| ids.to_vec())))
    }

    /// The ids that [`save`](Self::save) saved, of `k` clusters.
    ///
    /// # Errors
    /// Kind `Model` for anything but a list of `k` whole numbers, distinct and not negative.
    pub fn restore(artifact: &Artifact, k: usize) -> Result<Self> {
        let Some(saved) = artifact.settings.get(IDS) else { return Ok(Self::default()) };
        let ids: Vec<i32> = serde_json::from_value(saved.clone())
            .map_err(|e| Error::model("ids, expected a list of whole numbers").with_source(e))?;
        Self::given(&ids, k)
    }

    /// Adds them to what a stage saves.
    pub fn save(&self, artifact: &mut Artifact) {
        if let Some(ids) = &self.0 {
            artifact.settings.insert(IDS.to_owned(), json!(ids));
        }
    }

    /// All of them, of `k` clusters.
    pub fn of(&self, k: usize) -> Vec<i32> {
        self.0.clone().unwrap_or_else(|| (0..k).map(|index| index as i32).collect())
    }

    /// Replaces the index of each row's cluster by its id.
    ///
    /// # Panics
    /// If there is no cluster of an index.
    pub fn name(&self, clusters: &mut [i32]) {
        if let Some(ids) = &self.0 {
            clusters.iter_mut().for_each(|cluster| *cluster = ids[*cluster as usize]);
        }
    }
}
