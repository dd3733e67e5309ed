//! How well held-out rows follow the layout that the embedding was taught.

use rand::Rng;
use rand::seq::index;

use super::MOST_HELD_OUT;
use crate::device::Device;
use crate::embed::Embed;
use crate::error::Result;
use crate::kernel::Rows;
use crate::loss::CoordinateLoss;
use crate::manifold::{Subset, TRUST_NEIGHBORS, trustworthiness};
use crate::stage::VectorMap;

/// Training rows with coordinates that are held out.
pub(super) struct HeldOut {
    /// Their numbers, ascending.
    rows: Vec<u32>,
}

/// The quality of the embedding on held-out rows.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Measured {
    /// How many there are.
    pub rows: usize,
    /// The mean squared difference between their embedding and their coordinates, whose variance is 1.
    pub error: f64,
    /// The trustworthiness of their embedding among themselves.
    pub trustworthiness: f64,
}

impl HeldOut {
    /// Draws the fraction `part` of the rows `laid_out`, at most [`MOST_HELD_OUT`].
    pub fn drawn(laid_out: &[u32], part: f64, rng: &mut impl Rng) -> Self {
        let count = ((laid_out.len() as f64 * part) as usize).min(MOST_HELD_OUT);
        let mut rows: Vec<u32> = index::sample(rng, laid_out.len(), count).into_iter().map(|i| laid_out[i]).collect();
        rows.sort_unstable();
        Self { rows }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether a training row is one of them.
    pub fn contains(&self, row: u32) -> bool {
        self.rows.binary_search(&row).is_ok()
    }

    /// How well they follow the layout; `None` if there are none.
    pub fn measure(
        &self,
        rows: &dyn Rows,
        embed: &Embed,
        loss: &CoordinateLoss<'_>,
        device: &dyn Device,
    ) -> Result<Option<Measured>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let held_out = Subset::of(rows, self.rows.clone());
        let mut values = vec![0.0; held_out.len() * held_out.dim()];
        held_out.read(0..held_out.len(), &mut values)?;
        let dim = embed.dim_out();
        let mut embedded = vec![0.0; held_out.len() * dim];
        embed.map(&values, &mut embedded)?;
        let squares = |(&row, z): (&u32, &[f32])| {
            let target = loss.of(row).unwrap_or(z);
            z.iter().zip(target).map(|(z, t)| f64::from(z - t).powi(2)).sum::<f64>()
        };
        let error = self.rows.iter().zip(embedded.chunks_exact(dim)).map(squares).sum::<f64>();
        Ok(Some(Measured {
            rows: self.rows.len(),
            error: error / embedded.len() as f64,
            trustworthiness: trustworthiness(&held_out, &embedded, dim, TRUST_NEIGHBORS, device.pool())?,
        }))
    }
}
