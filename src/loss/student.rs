//! The divergence from soft assignments by Student's t as one operation of candle's tape, on a CUDA device.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

use crate::cuda::tensors::student;

/// `scale` times the divergence of the targets `p` (`rows x k`) from the soft assignments of the embeddings `z` (`rows x dim`)
/// to `centroids` (`k x dim`), summed over the rows: a scalar on the tape.
pub(super) fn divergence(z: &Tensor, centroids: &Tensor, p: Tensor, scale: f64) -> Result<Tensor> {
    let z = z.contiguous()?;
    let made = student(&z.detach(), &centroids.detach(), &p, scale)?;
    z.apply_op2(centroids, Divergence { made })
}

/// The operation: the loss and its gradients at embeddings and centroids are there already.
struct Divergence {
    made: [Tensor; 3],
}

impl CustomOp2 for Divergence {
    fn name(&self) -> &'static str {
        "student"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the kernel runs on a CUDA device alone")
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.made[0].storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, Shape::from(()))),
            Storage::Cpu(_) | Storage::Metal(_) => bail!("the loss is not on the CUDA device"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let times = |slopes: &Tensor| slopes.broadcast_mul(gradient).map(Some);
        Ok((times(&self.made[1])?, times(&self.made[2])?))
    }
}
