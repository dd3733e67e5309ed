//! The dense layer: `activation(x Wᵀ + b)`.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::architecture::Activation;
use super::formula;
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::parameter::Parameter;
use crate::kernel::Pool;
use crate::kernel::dense::add_rows;
use crate::kernel::gemm::{Left, Panels, Right, Start, gemm};

/// Rows that one task takes.
const BLOCK_ROWS: usize = 64;
/// Outputs whose weights' gradient one task computes: whole panels of the product.
const BLOCK_OUTPUTS: usize = 48;

/// A dense layer: rows of `inputs` values in, rows of `outputs` values out. Weights have shape `[outputs, inputs]`, as
/// PyTorch's.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Activation, Builder, Dense}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let weight = vec![1.0, 2.0, -1.0, 0.5];
/// let layer = Dense::new(weight, vec![0.5, 0.0], Activation::Relu, &builder)?;
/// let x = Tensor::new(&[[1.0f32, 1.0], [2.0, 1.0]], &Device::Cpu)?;
/// assert_eq!(layer.forward_t(&x, false)?.to_vec2::<f32>()?, [[3.5, 0.0], [4.5, 0.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Dense {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    activation: Activation,
    pool: Arc<Pool>,
    formulas: bool,
}

impl Dense {
    /// The layer of these weights (`outputs x inputs`, row-major) and biases (`outputs`).
    ///
    /// # Errors
    /// If there is no output, or the weights are not a whole number for each.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, activation: Activation, builder: &Builder) -> Result<Self> {
        let outputs = bias.len();
        if outputs == 0 || !weight.len().is_multiple_of(outputs) {
            bail!("{} weights for {outputs} outputs", weight.len());
        }
        let inputs = weight.len() / outputs;
        Ok(Self {
            weight: Arc::new(Parameter::new(weight, (outputs, inputs), &builder.device)?),
            bias: Arc::new(Parameter::new(bias, outputs, &builder.device)?),
            activation,
            pool: Arc::clone(&builder.pool),
            formulas: builder.formulas,
        })
    }
}

impl Layer for Dense {
    fn operation(&self, _: &Tensor, _: bool, wanted: bool) -> Result<Operation> {
        let [weight, bias] = [&self.weight, &self.bias].map(Arc::clone);
        if self.formulas {
            let activation = self.activation;
            return Ok(Operation::Formula(Box::new(formula::Dense { weight, bias, activation, wanted })));
        }
        let op = Op { weight, bias, activation: self.activation, pool: Arc::clone(&self.pool), wanted };
        Ok(Operation::Weighted(Box::new(op), Arc::clone(&self.weight), Arc::clone(&self.bias)))
    }

    fn parameters(&self) -> Vec<(&'static str, &Arc<Parameter>)> {
        vec![("weight", &self.weight), ("bias", &self.bias)]
    }
}

impl ModuleT for Dense {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape.
struct Op {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    activation: Activation,
    pool: Arc<Pool>,
    /// Whether the gradient at the input is wanted: rows of the data need none.
    wanted: bool,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "dense"
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
        let (outputs, inputs) = weight_layout.shape().dims2()?;
        let (rows, dim) = x_layout.shape().dims2()?;
        if dim != inputs {
            bail!("a dense layer of {inputs} inputs is given rows of {dim} values");
        }
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let panels = Panels::from_transposed_on(weight, inputs, outputs, &self.pool);
        let mut out = vec![0.0; rows * outputs];
        self.pool.for_each_chunk_mut(&mut out, BLOCK_ROWS * outputs, |i, out| {
            let rows = out.len() / outputs;
            let left = Left::rows(&x[i * BLOCK_ROWS * inputs..], inputs);
            gemm(rows, left, panels.right(), Start::Row(bias), out, outputs);
            self.activation.apply(out);
        });
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, inputs) = x.dims2()?;
        let gradient = gradient.contiguous()?;
        let d = with_values(result, |result| with_values(&gradient, |d| self.through_activation(result, d)))?;
        with_values(x, |x| self.weight_gradient(x, &d, rows, inputs))?;
        if !self.wanted {
            return Ok((None, None, None));
        }
        let below = with_values(weight, |weight| Ok(self.below(weight, &d, rows, inputs)))?;
        Ok((Some(Tensor::from_vec(below, (rows, inputs), x.device())?), None, None))
    }
}

impl Op {
    fn outputs(&self) -> usize {
        self.bias.value().elem_count()
    }

    /// The gradient before the activation; its sums over the rows go to the bias.
    fn through_activation(&self, result: &[f32], gradient: &[f32]) -> Result<Vec<f32>> {
        let outputs = self.outputs();
        let size = BLOCK_ROWS * outputs;
        let blocks = gradient.len().div_ceil(size);
        let (mut d, mut sums) = (gradient.to_vec(), vec![0.0; blocks * outputs]);
        let bounds: Vec<[usize; 2]> = (0..=blocks).map(|i| [(i * size).min(d.len()), i * outputs]).collect();
        self.pool.for_each_part_mut([&mut d[..], &mut sums[..]], &bounds, |i, [d, sums]| {
            self.activation.backward(&result[i * size..][..d.len()], d);
            add_rows(d, outputs, sums);
        });
        self.bias.accumulate(|bias, first| {
            if first {
                bias.fill(0.0);
            }
            add_rows(&sums, outputs, bias);
        })?;
        Ok(d)
    }

    fn weight_gradient(&self, x: &[f32], d: &[f32], rows: usize, inputs: usize) -> Result<()> {
        let right = Right::rows(x, inputs, rows, inputs);
        self.weight.accumulate(|weight, first| {
            let start = if first { Start::Zero } else { Start::Output };
            self.pool.for_each_chunk_mut(weight, BLOCK_OUTPUTS * inputs, |i, weight| {
                let left = Left::transposed(&d[i * BLOCK_OUTPUTS..], self.outputs());
                gemm(weight.len() / inputs, left, right, start, weight, inputs);
            });
        })
    }

    /// The gradient at the rows that came in.
    fn below(&self, weight: &[f32], d: &[f32], rows: usize, inputs: usize) -> Vec<f32> {
        let outputs = self.outputs();
        let right = Right::rows(weight, inputs, outputs, inputs);
        let mut below = vec![0.0; rows * inputs];
        self.pool.for_each_chunk_mut(&mut below, BLOCK_ROWS * inputs, |i, below| {
            let left = Left::rows(&d[i * BLOCK_ROWS * outputs..], outputs);
            gemm(below.len() / inputs, left, right, Start::Zero, below, inputs);
        });
        below
    }
}
