//! The objective of one network: the reconstruction's loss, a loss of the embedding, or both with their factors.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use super::objective::{BatchLoss, Objective, failed};
use crate::device::StepLoss;
use crate::error::Result;
use crate::kernel::Rows;
use crate::loss::{ClusteringLoss, CoordinateLoss, ReconstructionLoss};
use crate::network::{Buffer, Coder, Parameter};

/// The number of rows that are embedded at a time.
const BLOCK_ROWS: usize = 2048;

/// A clustering loss in an objective.
pub(crate) struct Clustering {
    /// Its factor.
    pub factor: f64,
    pub loss: Box<dyn ClusteringLoss>,
    /// Steps between two refreshes from all rows.
    pub every: u64,
    /// Training ends when at most this fraction of the rows changed its cluster since the last refresh.
    pub tolerance: f64,
}

/// What an objective asks of the embedding.
pub(crate) enum EmbeddingTerm<'a> {
    /// Nothing.
    None,
    /// To lie where a layout has each row; with the factor of the loss.
    Coordinates(f64, &'a CoordinateLoss<'a>),
    /// To lie in clusters.
    Clustering(Clustering),
}

/// The reconstruction's loss, a loss of the embedding, or both.
pub(crate) struct Terms<'a> {
    pub coder: &'a Coder,
    pub rows: &'a dyn Rows,
    pub device: Device,
    /// With its factor.
    pub reconstruction: Option<(f64, ReconstructionLoss)>,
    pub embedding: EmbeddingTerm<'a>,
}

impl Terms<'_> {
    /// The clustering loss, if it has one.
    pub fn clustering(&self) -> Option<&Clustering> {
        match &self.embedding {
            EmbeddingTerm::Clustering(clustering) => Some(clustering),
            _ => None,
        }
    }
}

impl Objective for Terms<'_> {
    fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        // Including those of a decoder that no longer learns, since a checkpoint has to keep them.
        self.coder.parameters()
    }

    fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        self.coder.buffers()
    }

    fn own(&self) -> Vec<(String, Var)> {
        let of = |Clustering { loss, .. }: &Clustering| {
            let named = |(name, var): (&str, &Var)| (format!("{}.{name}", loss.name()), var.clone());
            loss.parameters().into_iter().map(named).collect()
        };
        self.clustering().map(of).unwrap_or_default()
    }

    fn loss(&self, x: &Tensor, rows: &[u32]) -> candle_core::Result<BatchLoss> {
        let z = self.coder.encode(x, true)?;
        let mut total = Tensor::zeros((), x.dtype(), x.device())?;
        let reconstruction = match &self.reconstruction {
            None => None,
            Some((factor, reconstruction)) => {
                let error = reconstruction.of_decoded(x, self.coder, &z)?;
                total = (total + (&error * *factor)?)?;
                Some(error)
            }
        };
        let (factor, embedding) = match &self.embedding {
            EmbeddingTerm::None => return Ok(BatchLoss { total, reconstruction, embedding: None }),
            EmbeddingTerm::Coordinates(factor, coordinates) => (*factor, coordinates.of_batch(&z, rows)?),
            EmbeddingTerm::Clustering(Clustering { factor, loss, .. }) => (*factor, loss.of(&z, rows)?),
        };
        let total = (total + (&embedding * factor)?)?;
        Ok(BatchLoss { total, reconstruction, embedding: Some(embedding) })
    }

    fn refresh(&mut self, step: u64) -> Result<bool> {
        let EmbeddingTerm::Clustering(Clustering { loss, every, tolerance, .. }) = &mut self.embedding else {
            return Ok(false);
        };
        if !step.is_multiple_of(*every) {
            return Ok(false);
        }
        let embedded = embed(self.coder, self.rows, &self.device)?;
        let changed = loss.refresh(&embedded).map_err(failed("looking at all rows anew"))?;
        Ok(step > 0 && changed <= *tolerance)
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        let reconstruction = self.reconstruction.as_ref().map_or(0.0, |(factor, _)| factor * loss.reconstruction);
        let factor = match &self.embedding {
            EmbeddingTerm::None => 0.0,
            EmbeddingTerm::Coordinates(factor, _) | EmbeddingTerm::Clustering(Clustering { factor, .. }) => *factor,
        };
        reconstruction + factor * loss.embedding
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let of = |c: &Clustering| c.loss.state().into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        self.clustering().map(of).unwrap_or_default()
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        match &mut self.embedding {
            // Before the first look there is nothing to go back to.
            EmbeddingTerm::Clustering(clustering) if !state.is_empty() => clustering.loss.restore(state),
            _ => Ok(()),
        }
    }
}

/// The embeddings of all rows (`rows x dim`), without the network's random layers.
///
/// # Errors
/// Errors of reading the rows; kind `Compute` if the device fails.
pub(crate) fn embed(coder: &Coder, rows: &dyn Rows, device: &Device) -> Result<Tensor> {
    let dim = rows.dim();
    let mut blocks = Vec::new();
    let mut block = vec![0.0; BLOCK_ROWS.min(rows.len()) * dim];
    for first in (0..rows.len()).step_by(BLOCK_ROWS) {
        let count = BLOCK_ROWS.min(rows.len() - first);
        rows.read(first..first + count, &mut block[..count * dim])?;
        let x = Tensor::from_slice(&block[..count * dim], (count, dim), device);
        let z = x.and_then(|x| Ok(coder.encode(&x, false)?.detach()));
        blocks.push(z.map_err(failed("embedding the rows"))?);
    }
    Tensor::cat(&blocks, 0).map_err(failed("embedding the rows"))
}
