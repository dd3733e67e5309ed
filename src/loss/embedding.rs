//! Losses at the embedding, which are added to the reconstruction loss.

use std::fmt::Debug;

use crate::kernel::Matrix;

/// A loss of the embedding, such as the distance to a row's centroid. Its mean over the rows of a mini-batch is
/// minimised, together with the reconstruction loss.
///
/// A batch is processed in passes of some rows each, on several threads at once, always cut the same way.
pub trait EmbeddingLoss: Debug + Sync {
    /// The sum over the rows of a pass of each row's loss, and into `gradient` (rows of the pass x dim of the embedding,
    /// to be overwritten) the derivative of the mean over the batch's `batch_rows` rows with respect to `embedding` (of
    /// the same shape). `rows` are the numbers of the pass's rows among the training rows.
    ///
    /// The result must not depend on other threads: the same pass gives the same bits.
    fn sum_and_gradient(&self, embedding: &Matrix, rows: &[u32], batch_rows: usize, gradient: &mut Matrix) -> f64;

    /// The same as data, if it is the distance from places: a device that has it there need not ask the host in every step.
    fn placed(&self) -> Option<Placed<'_>> {
        None
    }
}

/// Places that embeddings are drawn to: a row loses `share * sum_j (z_j - t_j)^2 / dim`, and one without a place nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed<'a> {
    /// For each training row the number of its place among `targets`; [`NOWHERE`](Self::NOWHERE) for none.
    pub places: &'a [u32],
    /// The places, `dim` values each.
    pub targets: &'a [f32],
    /// Values of an embedding.
    pub dim: usize,
    /// The factor of the gradient.
    pub factor: f64,
    /// What a row with a place counts.
    pub share: f64,
}

impl Placed<'_> {
    /// The place of a row without one.
    pub const NOWHERE: u32 = u32::MAX;
}
