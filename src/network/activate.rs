//! An activation function as a layer of its own, for where something stands between it and the layer before: a batch
//! norm, a pooling.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, ModuleT, Result, Shape, Tensor};

use super::architecture::Activation;
use super::formula;
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use crate::kernel::Pool;

/// Values that one task takes.
const CHUNK: usize = 1 << 14;

/// Applies an [`Activation`] to every value of a tensor of any shape.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Activate, Activation, Builder}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layer = Activate::new(Activation::LeakyRelu, &builder);
/// let x = Tensor::new(&[[1.0f32, -2.0], [0.0, 3.0]], &Device::Cpu)?;
/// assert_eq!(layer.forward_t(&x, false)?.to_vec2::<f32>()?, [[1.0, -0.02], [0.0, 3.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Activate {
    activation: Activation,
    pool: Arc<Pool>,
    formulas: bool,
}

impl Activate {
    /// The layer of this activation.
    pub fn new(activation: Activation, builder: &Builder) -> Self {
        Self { activation, pool: Arc::clone(&builder.pool), formulas: builder.formulas }
    }
}

impl Layer for Activate {
    fn operation(&self, _: &Tensor, _: bool, _: bool) -> Result<Operation> {
        Ok(match self.activation {
            Activation::Identity => Operation::Nothing,
            activation if self.formulas => Operation::Formula(Box::new(formula::Activate { activation })),
            activation => Operation::Plain(Box::new(Op { activation, pool: Arc::clone(&self.pool) })),
        })
    }
}

impl ModuleT for Activate {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape.
struct Op {
    activation: Activation,
    pool: Arc<Pool>,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut y = vec![0.0; x.len()];
        self.pool.for_each_chunk_mut(&mut y, CHUNK, |i, y| {
            y.copy_from_slice(&x[i * CHUNK..][..y.len()]);
            self.activation.apply(y);
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let below = with_values(result, |y| with_values(&gradient, |d| Ok(self.backward(y, d))))?;
        Ok(Some(Tensor::from_vec(below, x.shape(), x.device())?))
    }
}

impl Op {
    /// The gradient before the activation, from its outputs and the gradient at them.
    fn backward(&self, y: &[f32], d: &[f32]) -> Vec<f32> {
        let mut below = vec![0.0; d.len()];
        self.pool.for_each_chunk_mut(&mut below, CHUNK, |i, below| {
            below.copy_from_slice(&d[i * CHUNK..][..below.len()]);
            self.activation.backward(&y[i * CHUNK..][..below.len()], below);
        });
        below
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::seed::Seed;

    #[test]
    fn values_and_gradients_are_the_activation_s_on_any_number_of_threads() {
        let activations = [
            Activation::Identity,
            Activation::Relu,
            Activation::Tanh,
            Activation::Sigmoid,
            Activation::LeakyRelu,
            Activation::Elu,
            Activation::Softplus,
        ];
        // Longer than two chunks, and in a shape that is transposed, so that its values do not lie in one piece.
        let (rows, columns) = (3, CHUNK - 100);
        let x: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let weights: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.11).cos()).collect();
        for activation in activations {
            let mut expected = x.clone();
            activation.apply(&mut expected);
            let mut slopes = weights.clone();
            activation.backward(&expected, &mut slopes);
            for threads in [1, 3] {
                let builder = Builder::on_cpu(Arc::new(Pool::new(threads)), Seed(1));
                let layer = Activate::new(activation, &builder);
                let variable = Var::from_vec(x.clone(), (rows, columns), &Device::Cpu).unwrap();
                let y = layer.forward_t(&variable.t().unwrap(), true).unwrap().t().unwrap();
                assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected, "{activation:?}");
                let weights = Tensor::from_slice(&weights, (rows, columns), &Device::Cpu).unwrap();
                let gradients = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
                let d = gradients.get(&variable).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(d, slopes, "{activation:?}");
            }
        }
    }
}
