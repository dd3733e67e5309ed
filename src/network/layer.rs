//! What all layers have in common: they are candle modules that know the names of their parameters.
//!
//! A layer's forward is a candle operation whose arithmetic on the CPU is [`kernel`](crate::kernel)'s, and elsewhere a
//! formula over tensors. It stands on candle's tape, so any formula over its output can be differentiated. Its backward leaves the gradients of the layer's
//! own parameters in the parameters ([`Parameter::accumulate`]) and gives the tape the gradient of the input alone, and
//! that only where something before the layer needs it.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, ModuleT, Result, Shape, Storage, Tensor, bail};
use rand_chacha::ChaCha8Rng;

use super::chain::Chain;
use super::formula::Formula;
use super::parameter::{Buffer, Parameter};
use crate::kernel::Pool;
use crate::seed::Seed;

/// A layer. [`forward_t`](ModuleT::forward_t) takes rows in and gives rows out; with `train` it draws what is random and
/// uses the statistics of the batch, without it the same row gives the same bits, whatever rows come with it.
pub trait Layer: ModuleT + Debug + Send + Sync {
    /// What it does to `x`, which lies in one piece, apart from any tape. `wanted` says whether the way back has to give the
    /// gradient at `x` too.
    ///
    /// # Errors
    /// For rows that do not fit.
    fn operation(&self, x: &Tensor, train: bool, wanted: bool) -> Result<Operation>;

    /// Its parameters, each with the last part of its name (`"weight"`).
    fn parameters(&self) -> Vec<(&'static str, &Arc<Parameter>)> {
        Vec::new()
    }

    /// What it keeps beside its parameters, with names: what training changes without a gradient.
    fn buffers(&self) -> Vec<(&'static str, &Arc<Buffer>)> {
        Vec::new()
    }
}

/// What a layer does to some rows: forward, and the way back.
pub enum Operation {
    /// It leaves them as they are.
    Nothing,
    /// An operation without parameters.
    Plain(Box<dyn CustomOp1 + Send + Sync>),
    /// One with weights and biases, whose gradients it leaves in them.
    Weighted(Box<dyn CustomOp3 + Send + Sync>, Arc<Parameter>, Arc<Parameter>),
    /// Any, over tensors.
    Formula(Box<dyn Formula>),
}

impl Operation {
    /// What becomes of `x`, on candle's tape.
    pub(super) fn on_tape(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Nothing => Ok(x.clone()),
            Self::Plain(op) => x.apply_op1_arc(Arc::new(op)),
            Self::Weighted(op, weight, bias) => x.apply_op3_arc(weight.value(), bias.value(), Arc::new(op)),
            Self::Formula(formula) => {
                let (inside, anchor) = (x.detach(), formula.anchor().map(Arc::clone));
                let value = formula.forward(&inside)?;
                let mut chain = Chain::new(x.track_op());
                chain.add(Self::Formula(formula), inside, value.clone());
                chain.on_tape(x, value, anchor.as_deref())
            }
        }
    }

    /// What becomes of `x`, which the tape does not hear of.
    pub(super) fn compute(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Nothing => Ok(x.clone()),
            Self::Plain(op) => x.apply_op1_no_bwd(&Inside(&**op)),
            Self::Weighted(op, weight, bias) => x.apply_op3_no_bwd(weight.value(), bias.value(), &Inside(&**op)),
            Self::Formula(formula) => formula.forward(x),
        }
    }

    /// The gradient at `x`, if it is wanted, from the one at what became of it.
    pub(super) fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Nothing => Ok(Some(gradient.clone())),
            Self::Plain(op) => op.bwd(x, result, gradient),
            Self::Weighted(op, weight, bias) => Ok(op.bwd(x, weight.value(), bias.value(), result, gradient)?.0),
            Self::Formula(formula) => formula.backward(x, result, gradient),
        }
    }
}

/// An operation behind a pointer, as an operation.
struct Inside<'a, T: ?Sized>(&'a T);

impl<T: CustomOp1 + ?Sized> CustomOp1 for Inside<'_, T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(x, layout)
    }
}

impl<T: CustomOp3 + ?Sized> CustomOp3 for Inside<'_, T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.cpu_fwd(x, x_layout, weight, weight_layout, bias, bias_layout)
    }
}

/// What every layer's `forward_t` is: its operation, on the tape.
pub(super) fn forward(layer: &impl Layer, x: &Tensor, train: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    layer.operation(&x, train, x.track_op())?.on_tape(&x)
}

/// What layers are made with.
#[derive(Debug, Clone)]
pub struct Builder {
    /// Where their parameters lie and their arithmetic runs.
    pub device: Device,
    /// The compute threads on the host.
    pub pool: Arc<Pool>,
    /// The source of every random choice.
    pub seed: Seed,
    /// The step that training is in. Layers that draw random numbers draw those of this step.
    pub clock: Clock,
    /// Whether layers compute by formulas over tensors; otherwise by our kernels, which run on the CPU alone.
    pub formulas: bool,
}

impl Builder {
    /// Layers on the CPU that compute with `pool`, their random choices drawn from `seed`.
    pub fn on_cpu(pool: Arc<Pool>, seed: Seed) -> Self {
        Self::on(Device::Cpu, pool, seed)
    }

    /// Layers on this device; `pool` computes what the host does.
    pub fn on(device: Device, pool: Arc<Pool>, seed: Seed) -> Self {
        Self { formulas: !device.is_cpu(), device, pool, seed, clock: Clock::default() }
    }
}

/// The number of the training step, shared by the trainer, which sets it, and the layers that draw random numbers: so
/// that an interrupted training goes on with the numbers that it would have drawn.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Sets the number of the step.
    pub fn set(&self, step: u64) {
        self.0.store(step, Ordering::Relaxed);
    }

    /// The number of the step.
    pub fn step(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The generator of the layer `name` in this step.
    ///
    /// ```
    /// use dacpipe::{Seed, network::Clock};
    /// use rand::Rng;
    /// let clock = Clock::default();
    /// let draw = || clock.random(Seed(1), "encoder.0").random::<u32>();
    /// let first = draw();
    /// assert_eq!(draw(), first);
    /// clock.set(1);
    /// assert_ne!(draw(), first);
    /// ```
    pub fn random(&self, seed: Seed, name: &str) -> ChaCha8Rng {
        seed.stream(name, self.step())
    }
}

/// The values of a tensor that lies in one piece on the CPU, as a custom operation is given it.
///
/// # Errors
/// For values of another type than `f32`, or such as do not lie in one piece.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("a layer needs values in one piece, these have strides {:?}", layout.stride()),
    }
}

/// Calls `task` with the values of a tensor that lies in one piece on the CPU: what a backward, which candle hands
/// tensors, works on.
///
/// # Errors
/// As [`values`], for a tensor on another device, and those of the task.
pub(crate) fn with_values<R>(tensor: &Tensor, task: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => task(values(storage, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => bail!("values are not on the CPU"),
    }
}
