//! Cluster assignment hardening: makes soft assignments more confident.

use std::collections::BTreeMap;

use candle_core::{D, Result, Tensor, Var, bail};

use super::clustering::ClusteringLoss;
use super::reconstruction::Reduction;

/// The number of rows whose differences from all centroids are computed at a time.
const BLOCK_ROWS: usize = 4096;

/// The divergence `KL(P || Q)` of Xie et al. 2016 (DEC), section 3.1: `Q` are the rows' soft assignments to the
/// centroids (equation 1, Student's t with one degree of freedom), `P` the target, which sharpens them (equation 3).
/// The centroids are learned with the network; the target is computed again at every
/// [`refresh`](ClusteringLoss::refresh).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use dacpipe::loss::{ClusteringLoss, Hardening, Reduction};
///
/// let centroids = Tensor::new(&[[0.0f32], [2.0]], &Device::Cpu)?;
/// let mut loss = Hardening::new(&centroids, Reduction::Mean)?;
/// let z = Tensor::new(&[[0.0f32], [2.0], [1.5]], &Device::Cpu)?;
/// // Of the first row: 1 for its own centroid, 1 / (1 + 4) for the other.
/// let q: Vec<Vec<f32>> = loss.assignments(&z)?.to_vec2()?;
/// assert!((q[0][0] - 1.0 / 1.2).abs() < 1e-6);
/// assert_eq!(loss.refresh(&z)?, 1.0);
/// assert_eq!(loss.refresh(&z)?, 0.0);
/// assert!(loss.of(&z, &[0, 1, 2])?.to_scalar::<f32>()? > 0.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Hardening {
    centroids: Var,
    over_rows: Reduction,
    /// The target, `rows x k`, once there was a refresh.
    target: Option<Tensor>,
    /// The cluster of every row at the last refresh.
    labels: Option<Tensor>,
}

impl Hardening {
    /// The loss with these first centroids (`k x dim`), as the mean or the sum over the rows of a batch.
    ///
    /// # Errors
    /// Candle's, for centroids that are not a matrix.
    pub fn new(centroids: &Tensor, over_rows: Reduction) -> Result<Self> {
        centroids.dims2()?;
        Ok(Self { centroids: Var::from_tensor(centroids)?, over_rows, target: None, labels: None })
    }

    /// The soft assignments `Q` of embeddings (`rows x dim`) to the centroids, `rows x k`; each row sums to 1.
    ///
    /// # Errors
    /// Candle's, for embeddings of another width.
    pub fn assignments(&self, embeddings: &Tensor) -> Result<Tensor> {
        let differences = embeddings.unsqueeze(1)?.broadcast_sub(&self.centroids.unsqueeze(0)?)?;
        let near = (differences.sqr()?.sum(D::Minus1)? + 1.0)?.recip()?;
        near.broadcast_div(&near.sum_keepdim(1)?)
    }

    /// The target `P` of the assignments `q` of all rows (`rows x k`): `q^2` over the clusters' sizes, each row divided by
    /// its sum.
    fn sharpened(q: &Tensor) -> Result<Tensor> {
        let shares = q.sqr()?.broadcast_div(&q.sum_keepdim(0)?)?;
        shares.broadcast_div(&shares.sum_keepdim(1)?)
    }
}

impl ClusteringLoss for Hardening {
    fn name(&self) -> &'static str {
        "hardening"
    }

    fn parameters(&self) -> Vec<(&'static str, &Var)> {
        vec![("centroids", &self.centroids)]
    }

    fn refresh(&mut self, embeddings: &Tensor) -> Result<f64> {
        let rows = embeddings.dim(0)?;
        let blocks = (0..rows).step_by(BLOCK_ROWS).map(|first| {
            let block = embeddings.narrow(0, first, BLOCK_ROWS.min(rows - first))?;
            Ok(self.assignments(&block)?.detach())
        });
        let q = Tensor::cat(&blocks.collect::<Result<Vec<Tensor>>>()?, 0)?;
        let labels = q.argmax(D::Minus1)?;
        let changed = match &self.labels {
            Some(before) => {
                let changed = before.ne(&labels)?.to_dtype(candle_core::DType::F32)?.sum_all()?.to_scalar::<f32>()?;
                f64::from(changed) / labels.elem_count() as f64
            }
            None => 1.0,
        };
        self.target = Some(Self::sharpened(&q)?);
        self.labels = Some(labels);
        Ok(changed)
    }

    fn of(&self, embeddings: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let Some(target) = &self.target else { bail!("hardening has no target before the first refresh") };
        let p = target.index_select(&Tensor::new(rows, target.device())?, 0)?;
        #[cfg(feature = "cuda")]
        if embeddings.device().is_cuda() {
            return super::student::divergence(embeddings, &self.centroids, p, self.over_rows.scale(rows.len()));
        }
        let q = self.assignments(embeddings)?;
        // Where the target is 0, its part of the divergence is 0.
        let divergence = (&p * ((&p + 1e-20)?.log()? - q.log()?)?)?.sum_all()?;
        match self.over_rows {
            Reduction::Mean => divergence / rows.len() as f64,
            Reduction::Sum => Ok(divergence),
        }
    }

    fn state(&self) -> Vec<(&'static str, Tensor)> {
        let target = self.target.iter().map(|target| ("target", target.clone()));
        target.chain(self.labels.iter().map(|labels| ("labels", labels.clone()))).collect()
    }

    fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| match state.get(name) {
            Some(tensor) => Ok(tensor.to_device(self.centroids.device())?),
            None => bail!("hardening has no {name} to go on with"),
        };
        self.target = Some(find("target")?);
        self.labels = Some(find("labels")?.to_dtype(candle_core::DType::U32)?);
        Ok(())
    }

    fn centroids(&self) -> Option<&Tensor> {
        Some(self.centroids.as_tensor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::ops::student;
    use crate::cuda::{Buffer, tested};
    use candle_core::Device;

    fn example() -> Result<(Hardening, Tensor)> {
        let centroids = Tensor::new(&[[0.5f32, -0.25], [1.5, 1.0], [-1.0, 0.75]], &Device::Cpu)?;
        let z: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin() * 1.5).collect();
        Ok((Hardening::new(&centroids, Reduction::Mean)?, Tensor::from_vec(z, (6, 2), &Device::Cpu)?))
    }

    #[test]
    fn assignments_and_target_are_the_paper_s_equations_in_double_precision() -> Result<()> {
        let (loss, z) = example()?;
        let (mu, z64): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (loss.centroids.to_vec2()?, z.to_vec2()?);
        let q: Vec<Vec<f64>> = z64
            .iter()
            .map(|z| {
                let near = |mu: &Vec<f32>| {
                    let squared: f64 = z.iter().zip(mu).map(|(z, m)| (f64::from(*z) - f64::from(*m)).powi(2)).sum();
                    1.0 / (1.0 + squared)
                };
                let all: Vec<f64> = mu.iter().map(near).collect();
                all.iter().map(|n| n / all.iter().sum::<f64>()).collect()
            })
            .collect();
        let sizes: Vec<f64> = (0..3).map(|j| q.iter().map(|q| q[j]).sum()).collect();
        let ours: Vec<Vec<f32>> = loss.assignments(&z)?.to_vec2()?;
        let target: Vec<Vec<f32>> = Hardening::sharpened(&loss.assignments(&z)?)?.to_vec2()?;
        let mut divergence = 0.0;
        for (i, q) in q.iter().enumerate() {
            let shares: Vec<f64> = (0..3).map(|j| q[j] * q[j] / sizes[j]).collect();
            for j in 0..3 {
                let p = shares[j] / shares.iter().sum::<f64>();
                assert!((f64::from(ours[i][j]) - q[j]).abs() < 1e-6);
                assert!((f64::from(target[i][j]) - p).abs() < 1e-6);
                divergence += p * (p / q[j]).ln();
            }
        }
        let mut loss = loss;
        loss.refresh(&z)?;
        let value = f64::from(loss.of(&z, &[0, 1, 2, 3, 4, 5])?.to_scalar::<f32>()?);
        assert!((value - divergence / 6.0).abs() < 1e-6, "{value} {divergence}");
        loss.over_rows = Reduction::Sum;
        assert!((f64::from(loss.of(&z, &[0, 1, 2, 3, 4, 5])?.to_scalar::<f32>()?) - divergence).abs() < 1e-5);
        Ok(())
    }

    #[test]
    fn gradients_reach_embeddings_and_centroids_and_are_slopes() -> Result<()> {
        let (mut loss, z) = example()?;
        loss.refresh(&z)?;
        let (rows, z) = ([4u32, 1], Var::from_tensor(&z.index_select(&Tensor::new(&[4u32, 1], &Device::Cpu)?, 0)?)?);
        let gradients = loss.of(z.as_tensor(), &rows)?.backward()?;
        let centroids = loss.centroids.clone();
        for var in [&z, &centroids] {
            let slopes: Vec<f32> =
                gradients.get(var).map(|g| g.flatten_all()?.to_vec1()).transpose()?.unwrap_or_default();
            let (shape, start): (_, Vec<f32>) = (var.shape().clone(), var.flatten_all()?.to_vec1()?);
            for (i, slope) in slopes.iter().enumerate() {
                let at = |by: f32| -> Result<f32> {
                    let mut moved = start.clone();
                    moved[i] += by;
                    var.set(&Tensor::from_vec(moved, shape.clone(), &Device::Cpu)?)?;
                    loss.of(z.as_tensor(), &rows)?.to_scalar::<f32>()
                };
                let by_hand = (at(1e-2)? - at(-1e-2)?) / 2e-2;
                assert!((slope - by_hand).abs() < 1e-3, "{i}: {slope} {by_hand}");
            }
            var.set(&Tensor::from_vec(start, shape, &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// The CUDA kernel, on the emulated machine or a GPU, gives the formula's loss and the tape's gradients.
    #[test]
    fn the_kernel_is_the_formula_with_its_gradients() -> Result<()> {
        let Some(machine) = tested() else { return Ok(()) };
        let on = &*machine;
        let (mut loss, z) = example()?;
        loss.refresh(&z)?;
        let (rows, dim, k) = ([4u32, 1, 5], 2, 3);
        let z = Var::from_tensor(&z.index_select(&Tensor::new(&rows, &Device::Cpu)?, 0)?)?;
        let target = loss.target.clone().expect("a target").index_select(&Tensor::new(&rows, &Device::Cpu)?, 0)?;
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let array = |values: &Tensor| -> Result<Buffer<f32>> {
            Buffer::of(on, &flat(values)?).map_err(candle_core::Error::wrap)
        };
        let room = |len: usize| Buffer::<f32>::zeros(on, len).map_err(candle_core::Error::wrap);
        let given = [array(&z)?, array(&loss.centroids)?, array(&target)?];
        let made = [room(1)?, room(3 * dim)?, room(k * dim)?, room(3 * k)?];
        let losses = Buffer::zeros(on, 3).map_err(candle_core::Error::wrap)?;
        for (over_rows, scale) in [(Reduction::Mean, 1.0 / 3.0), (Reduction::Sum, 1.0)] {
            loss.over_rows = over_rows;
            let given = given.each_ref().map(Buffer::all);
            let views = made.each_ref().map(Buffer::all);
            student(on, given, views, losses.all(), [k, dim], scale).map_err(candle_core::Error::wrap)?;
            let value = loss.of(z.as_tensor(), &rows)?;
            let gradients = value.backward()?;
            let of = |var: &Var| gradients.get(var).map(flat).transpose().map(Option::unwrap_or_default);
            let expected = [vec![value.to_scalar::<f32>()?], of(&z)?, of(&loss.centroids)?];
            for (view, expected) in views.into_iter().zip(expected) {
                let found = view.read(on).map_err(candle_core::Error::wrap)?;
                let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(near && found.len() == expected.len(), "{found:?} {expected:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn it_goes_on_from_its_state() -> Result<()> {
        let (mut loss, z) = example()?;
        assert!(loss.of(&z, &[0]).is_err());
        loss.refresh(&z)?;
        let state: BTreeMap<String, Tensor> = loss.state().into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
        let (mut fresh, _) = example()?;
        fresh.restore(&state)?;
        let of = |loss: &Hardening| loss.of(&z, &[0, 1, 2, 3, 4, 5])?.to_scalar::<f32>();
        assert_eq!(of(&fresh)?.to_bits(), of(&loss)?.to_bits());
        assert_eq!(fresh.refresh(&z)?, 0.0);
        assert!(fresh.restore(&BTreeMap::new()).is_err());
        Ok(())
    }
}
