//! The contract of a clustering loss, which draws embeddings towards clusters while a network learns.

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{Result, Tensor, Var};

/// A loss of embeddings and clusters (the "clustering loss" of Aljalbout et al. 2018, section 2.4). It owns its
/// parameters, such as centroids, and values for all rows, such as a target. It is a formula over tensors: the
/// gradients come from candle's tape.
pub trait ClusteringLoss: Debug + Send {
    /// Its name in messages and reports (`"hardening"`).
    fn name(&self) -> &'static str;

    /// The parameters that it learns together with the network, with names.
    fn parameters(&self) -> Vec<(&'static str, &Var)>;

    /// Updates it from the embeddings of all training rows (`rows x dim`), before the first step and regularly after
    /// it. Returns the fraction of the rows that changed their cluster since the last call; 1 at the first.
    ///
    /// # Errors
    /// Candle's.
    fn refresh(&mut self, embeddings: &Tensor) -> Result<f64>;

    /// The loss of the embeddings of a batch (`rows x dim`), a scalar. `rows` are the numbers of its rows among the training
    /// rows.
    ///
    /// # Errors
    /// Candle's.
    fn of(&self, embeddings: &Tensor, rows: &[u32]) -> Result<Tensor>;

    /// Its state beside its parameters, by name, for a checkpoint.
    fn state(&self) -> Vec<(&'static str, Tensor)>;

    /// Restores a [`state`](Self::state).
    ///
    /// # Errors
    /// For a missing name.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;

    /// The centroids (`k x dim`) that rows are assigned to by distance, if it has any.
    fn centroids(&self) -> Option<&Tensor>;
}
