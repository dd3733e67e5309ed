//! The convolution layer: `activation(W * x + b)` over images.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::formula;
use super::image::{before_activation, fitting, kernel_count};
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::parameter::Parameter;
use super::spec::ConvLayer;
use crate::kernel::Pool;
use crate::kernel::convolution::{Accumulate, Convolution};

/// A convolution: images `[rows, channels, height, width]` in and out. Weights have shape `[channels out, channels in,
/// kernel, kernel]`, as PyTorch's.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Activation, Builder, Conv2d, ConvLayer}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let spec = ConvLayer { channels: 1, kernel: 2, stride: 1, padding: 0, activation: Activation::Relu };
/// // The step along the diagonal, where it is more than 3.
/// let layer = Conv2d::new(vec![-1.0, 0.0, 0.0, 1.0], vec![-3.0], &spec, &builder)?;
/// let x = Tensor::new(&[[[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 7.0, 11.0]]]], &Device::Cpu)?;
/// assert_eq!(layer.forward_t(&x, false)?.flatten_all()?.to_vec1::<f32>()?, [1.0, 1.0, 0.0, 3.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Conv2d {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    spec: ConvLayer,
    pool: Arc<Pool>,
    formulas: bool,
}

impl Conv2d {
    /// The layer of these weights (`channels out x channels in x kernel x kernel`, row-major) and biases (one for each
    /// channel out).
    ///
    /// # Errors
    /// If there is not one bias for each channel of `spec`, or the weights are not a whole number of kernels for each.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, spec: &ConvLayer, builder: &Builder) -> Result<Self> {
        let channels_in = kernel_count(&weight, spec.channels, spec.kernel)?;
        if bias.len() != spec.channels {
            bail!("{} biases for {} channels", bias.len(), spec.channels);
        }
        let shape = (spec.channels, channels_in, spec.kernel, spec.kernel);
        Ok(Self {
            weight: Arc::new(Parameter::new(weight, shape, &builder.device)?),
            bias: Arc::new(Parameter::new(bias, spec.channels, &builder.device)?),
            spec: spec.clone(),
            pool: Arc::clone(&builder.pool),
            formulas: builder.formulas,
        })
    }
}

impl Layer for Conv2d {
    fn operation(&self, x: &Tensor, _: bool, wanted: bool) -> Result<Operation> {
        let (_, channels, height, width) = x.dims4()?;
        let ConvLayer { kernel, stride, padding, .. } = self.spec;
        let channels_in = self.weight.value().dim(1)?;
        if channels != channels_in {
            bail!("a convolution of {channels_in} channels is given images of {channels}");
        }
        let pairs = [kernel, stride, padding].map(|extent| [extent; 2]);
        let convolution = fitting(channels_in, [height, width], self.spec.channels, pairs)?;
        if self.formulas {
            let [weight, bias] = [&self.weight, &self.bias].map(Arc::clone);
            let activation = self.spec.activation;
            let formula = formula::Conv2d { weight, bias, activation, kernel, stride, padding, wanted };
            return Ok(Operation::Formula(Box::new(formula)));
        }
        let op = Op {
            convolution,
            weight: Arc::clone(&self.weight),
            bias: Arc::clone(&self.bias),
            spec: self.spec.clone(),
            pool: Arc::clone(&self.pool),
            wanted,
        };
        Ok(Operation::Weighted(Box::new(op), Arc::clone(&self.weight), Arc::clone(&self.bias)))
    }

    fn parameters(&self) -> Vec<(&'static str, &Arc<Parameter>)> {
        vec![("weight", &self.weight), ("bias", &self.bias)]
    }
}

impl ModuleT for Conv2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape, for images of one size.
struct Op {
    convolution: Convolution,
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    spec: ConvLayer,
    pool: Arc<Pool>,
    /// Whether the gradient at the input is wanted: rows of the data need none.
    wanted: bool,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "conv2d"
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
        let rows = x_layout.shape().dims4()?.0;
        let [channels, height, width] = self.convolution.output();
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let mut out = vec![0.0; rows * channels * height * width];
        let activation = |values: &mut [f32]| self.spec.activation.apply(values);
        self.convolution.forward(&self.pool, x, weight, Some(bias), &activation, &mut out);
        Ok((CpuStorage::F32(out), Shape::from((rows, channels, height, width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let below = with_values(result, |result| {
            with_values(&gradient, |gradient| {
                let d = before_activation(self.spec.activation, &self.pool, result, gradient);
                self.bias.accumulate(|bias, first| {
                    self.convolution.backward_bias(&self.pool, &d, Accumulate::of_step(first), bias);
                })?;
                with_values(x, |x| {
                    self.weight.accumulate(|weight, first| {
                        self.convolution.backward_weight(&self.pool, x, &d, Accumulate::of_step(first), weight);
                    })
                })?;
                if !self.wanted {
                    return Ok(None);
                }
                let mut below = vec![0.0; x.elem_count()];
                with_values(weight, |weight| {
                    self.convolution.backward_input(&self.pool, &d, weight, &mut below);
                    Ok(())
                })?;
                Ok(Some(Tensor::from_vec(below, x.shape(), x.device())?))
            })
        })?;
        Ok((below, None, None))
    }
}

#[cfg(test)]
mod tests {
    use super::super::architecture::Activation;
    use super::super::image::testing::{Checked, draw, drawn, near, on};
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn forward_and_gradients_equal_candle_s() -> Result<()> {
        // Channels in and out, kernel, stride, padding, height and width.
        let cases = [
            ([1, 32], [5, 2, 2], [28, 28]),
            ([3, 5], [3, 1, 0], [7, 9]),
            ([4, 2], [2, 3, 1], [8, 5]),
            ([2, 20], [1, 1, 0], [6, 4]),
        ];
        for ([channels_in, channels], [kernel, stride, padding], [height, width]) in cases {
            for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                let spec = ConvLayer { channels, kernel, stride, padding, activation };
                let builder = Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3));
                let weight = drawn(channels * channels_in * kernel * kernel, 3);
                let layer = Conv2d::new(weight, drawn(channels, 4), &spec, &builder)?;
                Checked::new(&draw((9, channels_in, height, width), 1))?.check(&layer, |x, [weight, bias]| {
                    let y = x.conv2d(weight, padding, stride, 1, 1)?;
                    on(activation, &y.broadcast_add(&bias.reshape((1, channels, 1, 1))?)?)
                })?;
            }
        }
        Ok(())
    }

    /// ```python
    /// def ints(*shape, m, o):
    ///     return (torch.arange(math.prod(shape)) % m - o).float().reshape(shape)
    /// x = ints(1, 2, 3, 4, m=7, o=3).requires_grad_()
    /// conv = torch.nn.Conv2d(2, 2, 2, stride=2, padding=1)
    /// with torch.no_grad():
    ///     conv.weight.copy_(ints(2, 2, 2, 2, m=5, o=2))
    ///     conv.bias.copy_(torch.tensor([1.0, -2.0]))
    /// y = torch.relu(conv(x))
    /// y.backward(ints(1, 2, 2, 3, m=5, o=1))
    /// print(y, x.grad, conv.weight.grad, conv.bias.grad)
    /// ```
    #[test]
    fn figures_of_pytorch() -> Result<()> {
        let ints = |len: u16, m: u16, o: f32| (0..len).map(|i| f32::from(i % m) - o).collect::<Vec<_>>();
        let builder = Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3));
        let spec = ConvLayer { channels: 2, kernel: 2, stride: 2, padding: 1, activation: Activation::Relu };
        let layer = Conv2d::new(ints(16, 5, 2.0), vec![1.0, -2.0], &spec, &builder)?;
        let x = Var::from_vec(ints(24, 7, 3.0), (1, 2, 3, 4), &Device::Cpu)?;
        let y = layer.forward_t(&x, true)?;
        assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [0.0, 0.0, 3.0, 0.0, 0.0, 12.0, 0.0, 15.0, 0.0, 0.0, 7.0, 0.0]);
        let d = Tensor::from_vec(ints(12, 5, 1.0), (1, 2, 2, 3), &Device::Cpu)?;
        let gradients = (&y * d)?.sum_all()?.backward()?;
        let below = gradients.get(&x).expect("the gradient of a variable").flatten_all()?;
        assert_eq!(
            below.to_vec1::<f32>()?,
            [
                0.0, -2.0, -1.0, 0.0, 0.0, -1.0, -2.0, 2.0, 0.0, 2.0, 1.0, 0.0, 0.0, 2.0, -2.0, -1.0, 0.0, 0.0, -1.0,
                -2.0, 0.0, -2.0, 2.0, 1.0
            ]
        );
        let own = |parameter: &Parameter| parameter.gradient().expect("a gradient").flatten_all()?.to_vec1::<f32>();
        assert_eq!(
            own(&layer.weight)?,
            [3.0, 0.0, -1.0, 0.0, -2.0, 0.0, -1.0, 0.0, -2.0, -3.0, -1.0, -1.0, 0.0, -1.0, 6.0, -1.0]
        );
        assert_eq!(own(&layer.bias)?, [0.0, 0.0]);
        Ok(())
    }

    #[test]
    fn rows_of_the_data_get_no_gradient_and_gradients_add_up() -> Result<()> {
        let builder = Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3));
        let spec = ConvLayer { channels: 3, kernel: 3, stride: 1, padding: 1, activation: Activation::Tanh };
        let layer = Conv2d::new(drawn(54, 2), vec![0.0; 3], &spec, &builder)?;
        let x = draw((4, 2, 5, 5), 1);
        assert!(layer.forward_t(&x, true)?.sum_all()?.backward()?.get(&x).is_none());
        let once = layer.weight.gradient().expect("a gradient").copy()?;
        layer.forward_t(&x, true)?.sum_all()?.backward()?;
        near(&(once * 2.0)?, layer.weight.gradient().expect("a gradient"))
    }

    #[test]
    fn what_does_not_fit_is_told() -> Result<()> {
        let builder = Builder::on_cpu(Arc::new(Pool::new(1)), crate::Seed(3));
        let spec = ConvLayer { channels: 2, kernel: 3, stride: 1, padding: 0, activation: Activation::Relu };
        let told = |result: Result<Conv2d>, words: &str| result.is_err_and(|e| e.to_string().contains(words));
        assert!(told(Conv2d::new(vec![0.0; 17], vec![0.0; 2], &spec, &builder), "17 weights"));
        assert!(told(Conv2d::new(vec![0.0; 18], vec![0.0; 3], &spec, &builder), "3 biases"));
        let layer = Conv2d::new(drawn(36, 2), vec![0.0; 2], &spec, &builder)?;
        let error = |x: Tensor| layer.forward_t(&x, false).map(|_| ()).unwrap_err().to_string();
        assert!(error(draw((4, 3, 5, 5), 1)).contains("is given images of 3"));
        assert!(error(draw((4, 2, 5, 2), 1)).contains("does not fit in 2"));
        Ok(())
    }
}
