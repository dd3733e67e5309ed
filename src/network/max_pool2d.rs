//! The layer that keeps the greatest value of each square of an image.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Error, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::formula;
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::spec::PoolLayer;
use crate::kernel::Pool;
use crate::kernel::pooling::MaxPooling;

/// Max pooling: images `[rows, channels, height, width]` in and out. Squares lie side by side; what is left over at the
/// right and at the bottom is in none. The gradient goes to the first of equal values, as in PyTorch.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Builder, MaxPool2d, PoolLayer}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layer = MaxPool2d::new(&PoolLayer { size: 2 }, &builder);
/// let x = Tensor::new(&[[[[1.0f32, 2.0, 0.0, 7.0, 9.0], [4.0, 3.0, 5.0, 6.0, 9.0]]]], &Device::Cpu)?;
/// assert_eq!(layer.forward_t(&x, false)?.flatten_all()?.to_vec1::<f32>()?, [4.0, 7.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MaxPool2d {
    size: usize,
    pool: Arc<Pool>,
    formulas: bool,
}

impl MaxPool2d {
    /// The layer of this size of squares.
    pub fn new(spec: &PoolLayer, builder: &Builder) -> Self {
        Self { size: spec.size, pool: Arc::clone(&builder.pool), formulas: builder.formulas }
    }
}

impl Layer for MaxPool2d {
    fn operation(&self, x: &Tensor, _: bool, _: bool) -> Result<Operation> {
        let (_, _, height, width) = x.dims4()?;
        let square = [self.size; 2];
        let pooling = MaxPooling::new([height, width], square, square).map_err(Error::msg)?;
        if self.formulas {
            return Ok(Operation::Formula(Box::new(formula::MaxPool2d { size: self.size })));
        }
        Ok(Operation::Plain(Box::new(Op { pooling, places: OnceLock::new(), pool: Arc::clone(&self.pool) })))
    }
}

impl ModuleT for MaxPool2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape, for images of one size.
struct Op {
    pooling: MaxPooling,
    /// Where forward has found the maxima.
    places: OnceLock<Vec<u32>>,
    pool: Arc<Pool>,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "max-pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, channels, ..) = layout.shape().dims4()?;
        let [height, width] = self.pooling.output();
        let len = rows * channels * height * width;
        let (mut out, mut places) = (vec![0.0; len], vec![0; len]);
        self.pooling.forward(&self.pool, values(x, layout)?, &mut out, &mut places);
        if self.places.set(places).is_err() {
            bail!("an operation of the tape is computed once");
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, channels, height, width))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(places) = self.places.get() else { bail!("backward before forward") };
        let mut below = vec![0.0; x.elem_count()];
        with_values(&gradient.contiguous()?, |gradient| {
            self.pooling.backward(&self.pool, gradient, places, &mut below);
            Ok(())
        })?;
        Ok(Some(Tensor::from_vec(below, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::testing::{Checked, draw};
    use super::*;
    use candle_core::{D, Device, Var};

    fn layer(size: usize) -> MaxPool2d {
        MaxPool2d::new(&PoolLayer { size }, &Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3)))
    }

    #[test]
    fn forward_and_gradient_equal_candle_s() -> Result<()> {
        for (size, height, width) in [(1, 3, 4), (2, 8, 6), (3, 9, 12), (4, 4, 4)] {
            // Candle 0.11.1 divides the gradient of its max_pool2d by the number of values in a square, so the formula
            // is made of maxima along axes, whose gradient is right where no two values are equal.
            Checked::new(&draw((5, 3, height, width), 1))?.check(&layer(size), |x, []| {
                let squares = x.reshape((5, 3, height / size, size, width / size, size))?;
                squares.max(D::Minus1)?.max(3)
            })?;
            let x = draw((5, 3, height, width), 2);
            let (ours, theirs) = (layer(size).forward_t(&x, false)?, x.max_pool2d(size)?);
            assert_eq!(ours.flatten_all()?.to_vec1::<f32>()?, theirs.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    /// ```python
    /// x = torch.tensor([[1., 2, 7, 0, 5], [4, 3, 0, 7, 6], [2, 2, -1, -2, 9], [2, 2, -4, -3, 9], [8, 8, 8, 8, 8]])
    /// x = x.reshape(1, 1, 5, 5).requires_grad_()
    /// y = torch.nn.MaxPool2d(2)(x)
    /// y.backward(torch.tensor([[1., 2], [3, 4]]).reshape(1, 1, 2, 2))
    /// print(y, x.grad)
    /// ```
    #[test]
    fn figures_of_pytorch() -> Result<()> {
        let rows = [
            [1.0f32, 2.0, 7.0, 0.0, 5.0],
            [4.0, 3.0, 0.0, 7.0, 6.0],
            [2.0, 2.0, -1.0, -2.0, 9.0],
            [2.0, 2.0, -4.0, -3.0, 9.0],
            [8.0, 8.0, 8.0, 8.0, 8.0],
        ];
        let x = Var::from_tensor(&Tensor::new(&rows, &Device::Cpu)?.reshape((1, 1, 5, 5))?)?;
        let y = layer(2).forward_t(&x, true)?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [4.0, 7.0, 2.0, -1.0]);
        let d = Tensor::new(&[[[[1.0f32, 2.0], [3.0, 4.0]]]], &Device::Cpu)?;
        let gradients = (&y * d)?.sum_all()?.backward()?;
        let below = gradients.get(&x).expect("the gradient of a variable").reshape((5, 5))?;
        let expected =
            [[0.0f32, 0.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 4.0, 0.0, 0.0], [0.0; 5], [0.0; 5]];
        assert_eq!(below.to_vec2::<f32>()?, expected);
        Ok(())
    }

    #[test]
    fn squares_that_do_not_fit_are_told() {
        let error = layer(3).forward_t(&draw((1, 1, 2, 5), 1), false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("a window of [3, 3] does not fit in a plane of [2, 5]"), "{error}");
    }
}
