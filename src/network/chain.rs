//! Operations one after the other as one operation of the tape. Layer by layer the tape would make zeros for every gradient
//! between two layers and add to them.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

use super::layer::{Operation, with_values};
use super::parameter::Parameter;

/// Operations that were applied one after the other.
pub(super) struct Chain {
    links: Vec<Link>,
    /// Whether the gradient at what went in is wanted.
    wanted: bool,
}

struct Link {
    operation: Operation,
    x: Tensor,
    result: Tensor,
}

impl Chain {
    /// No operations yet; `wanted` says whether the gradient at what goes in is wanted.
    pub fn new(wanted: bool) -> Self {
        Self { links: Vec::new(), wanted }
    }

    /// Whether the gradient at what goes in is wanted.
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// One more, with what went into it and what came out.
    pub fn add(&mut self, operation: Operation, x: Tensor, result: Tensor) {
        self.links.push(Link { operation, x, result });
    }

    /// `value`, what came out last of what began with `x`, with a way back. The tape follows variables: the parameter
    /// `anchor` stands for all, which keep their gradients themselves.
    pub fn on_tape(self, x: &Tensor, value: Tensor, anchor: Option<&Parameter>) -> Result<Tensor> {
        match anchor {
            Some(anchor) => x.apply_op2(anchor.value(), OnTape { chain: self, value }),
            None if self.wanted => x.apply_op1(OnTape { chain: self, value }),
            None => Ok(value),
        }
    }

    /// The gradient at what went in, if it is wanted.
    fn backward(&self, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut gradient = gradient.contiguous()?;
        for Link { operation, x, result } in self.links.iter().rev() {
            match operation.backward(x, result, &gradient.reshape(result.shape())?)? {
                Some(below) => gradient = below,
                None => return Ok(None),
            }
        }
        Ok(self.wanted.then_some(gradient))
    }
}

/// A chain as one operation of the tape, whose result is there already.
struct OnTape {
    chain: Chain,
    value: Tensor,
}

impl OnTape {
    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(with_values(&self.value, |values| Ok(values.to_vec()))?), self.value.shape().clone()))
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        // In a piece of its own, as a copy of the storage is all of it.
        let value = self.value.force_contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            Storage::Cpu(_) | Storage::Metal(_) => bail!("values are not on the CUDA device"),
        }
    }

    fn below(&self, x: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.chain.backward(gradient)?.map(|below| below.reshape(x.shape())).transpose()
    }
}

impl CustomOp1 for OnTape {
    fn name(&self) -> &'static str {
        "layers"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.below(x, gradient)
    }
}

impl CustomOp2 for OnTape {
    fn name(&self) -> &'static str {
        "layers"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.below(x, gradient)?, None))
    }
}
