//! Online k-means over rows that are all there: one pass, in order.

use super::super::{KMeansSpec, Outcome, init, progress};
use super::{OnlineKMeans, OnlineSpec};
use crate::device::{Device, Points};
use crate::error::{Error, Result};
use crate::event::Control;
use crate::kernel::{Dense, fold};
use crate::kmeans::Decay;
use crate::seed::Seed;

/// The centroids after all rows, taken in order in batches of `batch_size`.
pub(in crate::kmeans) fn run(
    points: &dyn Points,
    spec: &KMeansSpec,
    (batch_size, decay): (usize, Decay),
    seed: Seed,
    device: &dyn Device,
    control: &Control,
) -> Result<Outcome> {
    let (rows, n, dim) = (points.rows(), points.rows().len(), points.rows().dim());
    let usual = OnlineSpec::new(spec.k, decay);
    let usual = OnlineSpec { n_init: spec.n_init, seed_rows: usual.seed_rows.min(n), ..usual };
    let mut online = OnlineKMeans::new(usual, seed)?;
    let mut buffer = Vec::new();
    for first in (0..n).step_by(batch_size) {
        let block = fold::block(rows, first..n.min(first + batch_size), &mut buffer)?;
        let batch = online.partial_fit(&Dense::new(block, dim), None, device)?;
        match batch.cluster.len() {
            0 => control.check()?,
            taken => progress(control, online.state().batches, batch.inertia / taken as f64 * n as f64)?,
        }
    }
    if online.state().centroids.is_empty() {
        // Says how many rows are distinct.
        init::seeds(points, spec.k, n, &mut seed.stream("kmeans.online", 0), device)?;
        return Err(Error::internal("online k-means that never began"));
    }
    Ok(Outcome { centroids: online.rounded(), iterations: online.state().batches as usize, converged: true })
}
