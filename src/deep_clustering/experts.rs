//! An autoencoder for each cluster: each learns its cluster's rows first, then all compete for all rows.

use super::courses::Courses;
use super::first_clusters;
use crate::error::{Error, Result};
use crate::experts::{Experts, expert_name};
use crate::kernel::Dense;
use crate::loss::ReconstructionLoss;
use crate::method::{ExpertSpec, MethodSpec, TrainingSpec};
use crate::network::{Arrays, Coder};
use crate::stage::{Clusters as _, Tensor};
use crate::train::{self, EmbeddingTerm, Terms, embed, flat};

/// Teaches an autoencoder for each cluster of what `coder`, which is pre-trained, makes of the rows. Returns them, and the
/// number of training rows of each.
pub(super) fn learn(spec: &MethodSpec, coder: &Coder, courses: &mut Courses<'_>) -> Result<(Experts, Vec<u64>)> {
    let rows = courses.data.rows;
    let missing =
        || Error::config("the loss \"experts\" needs [stage.clustering.expert], the autoencoder of a cluster");
    let plan = spec.clustering.expert.as_ref().ok_or_else(missing)?;
    let network = spec.expert(rows.dim())?.ok_or_else(missing)?;
    if !courses.reached() {
        let dim = coder.encoder().output().len();
        let embedded = flat(&embed(coder, rows, &courses.builder.device)?)?;
        let (labels, _) = first_clusters(spec, &Dense::new(&embedded, dim), courses)?;
        // Whole numbers below 2^24, which single precision has.
        let values = labels.into_iter().map(|label| label as f32).collect();
        courses.keep("labels", Tensor { shape: vec![rows.len()], values });
    }
    let experts: Result<Vec<Coder>> =
        (0..spec.k).map(|i| Coder::new(&expert_name(i), &network, courses.builder)).collect();
    let experts = experts?;
    if plan.epochs > 0 {
        let labels = courses.made("labels")?.values.clone();
        for (i, expert) in experts.iter().enumerate() {
            alone(spec, plan, i, expert, &labels, courses)?;
        }
    }
    if spec.clustering.training.epochs > 0 {
        let objective =
            train::Experts { coders: &experts, competition: spec.clustering.competition, error: spec.clustering.error };
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        courses.take("clustering", objective, rows, &all, &spec.clustering.training)?;
    }
    let mut arrays = Arrays::new();
    for expert in &experts {
        arrays.extend(expert.arrays()?);
    }
    let stage = Experts::new(spec.k, &network, &arrays, spec.clustering.error)?;
    let sizes = sizes(&stage, spec.k, courses)?;
    Ok((stage, sizes))
}

/// Teaches autoencoder number `i` the rows of its cluster.
fn alone(
    spec: &MethodSpec,
    plan: &ExpertSpec,
    i: usize,
    expert: &Coder,
    labels: &[f32],
    courses: &mut Courses<'_>,
) -> Result<()> {
    let name = expert_name(i);
    if courses.is_behind() {
        courses.skip();
        // It has learned; a later course, which the interrupted run was in, may have changed it since.
        let made = courses.all_made().iter().filter(|(made, _)| made.starts_with(&name));
        let arrays: Arrays = made.map(|(made, t)| (made.clone(), (t.shape.clone(), t.values.clone()))).collect();
        return if arrays.is_empty() { Ok(()) } else { expert.set_arrays(&arrays) };
    }
    let rows = courses.data.rows;
    let chosen: Vec<u32> = (0..rows.len() as u32).filter(|&row| labels[row as usize] == i as f32).collect();
    let training = TrainingSpec { epochs: plan.epochs, ..spec.clustering.training.clone() };
    let objective = Terms {
        coder: expert,
        rows,
        device: courses.builder.device.clone(),
        reconstruction: Some((
            1.0,
            ReconstructionLoss { measure: plan.loss, ..courses.reconstruction(&spec.pretraining)? },
        )),
        embedding: EmbeddingTerm::None,
    };
    courses.take(&format!("autoencoder {i}"), objective, rows, &chosen, &training)?;
    for (name, (shape, values)) in expert.arrays()? {
        courses.keep(name, Tensor { shape, values });
    }
    Ok(())
}

/// The training rows of each autoencoder.
fn sizes(stage: &Experts, k: usize, courses: &Courses<'_>) -> Result<Vec<u64>> {
    const BLOCK_ROWS: usize = 4096;
    let rows = courses.data.rows;
    let dim = rows.dim();
    let blocks: Vec<usize> = (0..rows.len()).step_by(BLOCK_ROWS).collect();
    let counted = courses.cx.device.pool().map(blocks.len(), |at| -> Result<Vec<u64>> {
        let count = BLOCK_ROWS.min(rows.len() - blocks[at]);
        let mut values = vec![0.0; count * dim];
        rows.read(blocks[at]..blocks[at] + count, &mut values)?;
        let mut sizes = vec![0; k];
        stage.assign(&values)?.cluster.iter().for_each(|&c| sizes[c as usize] += 1);
        Ok(sizes)
    });
    let mut sizes = vec![0; k];
    for counted in counted {
        sizes.iter_mut().zip(counted?).for_each(|(sum, more)| *sum += more);
    }
    Ok(sizes)
}
