//! The contract of a clustering loss: what draws embeddings towards clusters while a network learns.

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{Result, Tensor, Var};

/// A loss of embeddings that belongs to clusters (the "clustering loss" of Aljalbout et al. 2018, section 2.4). It owns its
/// parameters, such as centroids, and what it knows of all rows, such as a target. It is a formula over tensors: the
/// gradients come from candle's tape.
pub trait ClusteringLoss: Debug + Send {
    /// Its name in messages and reports (`"hardening"`).
    fn name(&self) -> &'static str;

    /// What it learns together with the network, with names.
    fn parameters(&self) -> Vec<(&'static str, &Var)>;

    /// Looks at the embeddings of all training rows (`rows x dim`), before the first step and every so often after it.
    /// Returns the part of the rows that have another cluster than at the last look; 1 at the first.
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

    /// What it knows beside its parameters, by name, to go on with after an interrupt.
    fn state(&self) -> Vec<(&'static str, Tensor)>;

    /// Goes back to what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// A name that is missing.
    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;

    /// The centroids (`k x dim`) that rows are assigned to by distance, if it has any.
    fn centroids(&self) -> Option<&Tensor>;
}
