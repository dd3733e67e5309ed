//! Network and centroids learn together.

use super::courses::Courses;
use super::first_clusters;
use crate::error::{Error, Result};
use crate::kernel::Dense;
use crate::loss::{ClusteringLoss, Hardening};
use crate::method::{ClusteringLossName, ClusteringSpec, MethodSpec};
use crate::network::Coder;
use crate::stage::{Centroids, Tensor};
use crate::train::{Clustering, EmbeddingTerm, Terms, embed, failed, flat};

/// Teaches `coder`, which is pre-trained, and its clusters; returns the clusters.
pub(super) fn learn(spec: &MethodSpec, coder: &Coder, courses: &mut Courses<'_>) -> Result<Centroids> {
    let (rows, device) = (courses.data.rows, courses.builder.device.clone());
    let dim = coder.encoder().output().len();
    if !courses.reached() {
        let embedded = flat(&embed(coder, rows, &device)?)?;
        let (_, values) = first_clusters(spec, &Dense::new(&embedded, dim), courses)?;
        courses.keep("centroids", Tensor { shape: vec![spec.k, dim], values });
    }
    let first = courses.made("centroids")?.clone();
    let ClusteringSpec { factor, reconstruction, refresh, tolerance, training, .. } = &spec.clustering;
    if training.epochs == 0 {
        return Ok(Centroids { dim, values: first.values });
    }
    let objective = Terms {
        coder,
        rows,
        device: device.clone(),
        reconstruction: match *reconstruction {
            0.0 => None,
            factor => Some((factor, courses.reconstruction(&spec.pretraining)?)),
        },
        embedding: EmbeddingTerm::Clustering(Clustering {
            factor: *factor,
            loss: loss(&spec.clustering, &crate::train::array(&first, &device)?)?,
            every: refresh.unwrap_or(rows.len().div_ceil(training.batch_size) as u64),
            tolerance: *tolerance,
        }),
    };
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let learned = courses.take("clustering", objective, rows, &all, training)?;
    let centroids = learned.clustering().and_then(|c| c.loss.centroids()).map(flat).transpose()?;
    Ok(Centroids { dim, values: centroids.unwrap_or(first.values) })
}

/// The clustering loss of that name, with the centroids that it begins with (`k x dim`).
fn loss(spec: &ClusteringSpec, centroids: &candle_core::Tensor) -> Result<Box<dyn ClusteringLoss>> {
    Ok(match spec.loss {
        ClusteringLossName::Hardening => {
            Box::new(Hardening::new(centroids, spec.over_rows).map_err(failed("placing the centroids"))?)
        }
        ClusteringLossName::Experts => return Err(Error::internal("experts have no centroids")),
    })
}
