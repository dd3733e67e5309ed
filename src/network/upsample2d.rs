//! The layer that repeats each value of an image in a square.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Error, Layout, ModuleT, Result, Shape, Tensor};

use super::formula;
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::spec::PoolLayer;
use crate::kernel::Pool;
use crate::kernel::pooling::Upsampling;

/// Nearest-neighbour upsampling: images `[rows, channels, height, width]` in and out.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Builder, PoolLayer, Upsample2d}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layer = Upsample2d::new(&PoolLayer { size: 2 }, &builder);
/// let x = Tensor::new(&[[[[1.0f32, 2.0]]]], &Device::Cpu)?;
/// let y = layer.forward_t(&x, false)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Upsample2d {
    size: usize,
    pool: Arc<Pool>,
    formulas: bool,
}

impl Upsample2d {
    /// The layer of this size of squares.
    pub fn new(spec: &PoolLayer, builder: &Builder) -> Self {
        Self { size: spec.size, pool: Arc::clone(&builder.pool), formulas: builder.formulas }
    }
}

impl Layer for Upsample2d {
    fn operation(&self, x: &Tensor, _: bool, _: bool) -> Result<Operation> {
        let (_, _, height, width) = x.dims4()?;
        let upsampling = Upsampling::new([height, width], [self.size; 2]).map_err(Error::msg)?;
        if self.formulas {
            return Ok(Operation::Formula(Box::new(formula::Upsample2d { size: self.size })));
        }
        Ok(Operation::Plain(Box::new(Op { upsampling, pool: Arc::clone(&self.pool) })))
    }
}

impl ModuleT for Upsample2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape, for images of one size.
struct Op {
    upsampling: Upsampling,
    pool: Arc<Pool>,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "upsample2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, channels, ..) = layout.shape().dims4()?;
        let [height, width] = self.upsampling.output();
        let mut out = vec![0.0; rows * channels * height * width];
        self.upsampling.forward(&self.pool, values(x, layout)?, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, channels, height, width))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut below = vec![0.0; x.elem_count()];
        with_values(&gradient.contiguous()?, |gradient| {
            self.upsampling.backward(&self.pool, gradient, &mut below);
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(below, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::testing::{Checked, draw};
    use super::*;
    use candle_core::{Device, Var};

    fn layer(size: usize) -> Upsample2d {
        Upsample2d::new(&PoolLayer { size }, &Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3)))
    }

    #[test]
    fn forward_and_gradient_equal_candle_s() -> Result<()> {
        for (size, height, width) in [(1, 3, 4), (2, 4, 7), (3, 3, 1)] {
            Checked::new(&draw((5, 3, height, width), 1))?
                .check(&layer(size), |x, []| x.upsample_nearest2d(height * size, width * size))?;
        }
        Ok(())
    }

    /// ```python
    /// x = torch.tensor([[1., 2], [3, 4]]).reshape(1, 1, 2, 2).requires_grad_()
    /// y = torch.nn.Upsample(scale_factor=2, mode="nearest")(x)
    /// y.backward(torch.arange(16.0).reshape(1, 1, 4, 4))
    /// print(y, x.grad)
    /// ```
    #[test]
    fn figures_of_pytorch() -> Result<()> {
        let x = Var::new(&[[[[1.0f32, 2.0], [3.0, 4.0]]]], &Device::Cpu)?;
        let y = layer(2).forward_t(&x, true)?;
        let expected = [[1.0f32, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0], [3.0, 3.0, 4.0, 4.0]];
        assert_eq!(y.reshape((4, 4))?.to_vec2::<f32>()?, expected);
        let d = Tensor::arange(0.0f32, 16.0, &Device::Cpu)?.reshape((1, 1, 4, 4))?;
        let gradients = (&y * d)?.sum_all()?.backward()?;
        let below = gradients.get(&x).expect("the gradient of a variable").reshape((2, 2))?;
        assert_eq!(below.to_vec2::<f32>()?, [[10.0, 18.0], [42.0, 50.0]]);
        Ok(())
    }
}
