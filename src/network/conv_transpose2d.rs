//! The layer of the transposed convolution, which makes images larger: `activation(Wᵀ * x + b)`.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::formula;
use super::image::{before_activation, fitting, kernel_count};
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::parameter::Parameter;
use super::spec::ConvTransposeLayer;
use crate::kernel::Pool;
use crate::kernel::convolution::{Accumulate, Convolution, sum_channels};

/// A transposed convolution: images `[rows, channels, height, width]` in and out. Weights have shape `[channels in,
/// channels out, kernel, kernel]`, as PyTorch's.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Activation, Builder, ConvTranspose2d, ConvTransposeLayer}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let spec = ConvTransposeLayer {
///     channels: 1, kernel: 2, stride: 1, padding: 0, output_padding: 0, activation: Activation::Identity,
/// };
/// // Every value is spread over a square of four; where squares overlap they add up.
/// let layer = ConvTranspose2d::new(vec![1.0; 4], vec![0.5], &spec, &builder)?;
/// let x = Tensor::new(&[[[[1.0f32, 10.0]]]], &Device::Cpu)?;
/// assert_eq!(layer.forward_t(&x, false)?.flatten_all()?.to_vec1::<f32>()?, [1.5, 11.5, 10.5, 1.5, 11.5, 10.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ConvTranspose2d {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    spec: ConvTransposeLayer,
    pool: Arc<Pool>,
    formulas: bool,
}

impl ConvTranspose2d {
    /// The layer of these weights (`channels in x channels out x kernel x kernel`, row-major) and biases (one for each
    /// channel out).
    ///
    /// # Errors
    /// If there is not one bias for each channel of `spec`, or the weights are not a whole number of kernels for each.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, spec: &ConvTransposeLayer, builder: &Builder) -> Result<Self> {
        let channels_in = kernel_count(&weight, spec.channels, spec.kernel)?;
        if bias.len() != spec.channels {
            bail!("{} biases for {} channels", bias.len(), spec.channels);
        }
        let shape = (channels_in, spec.channels, spec.kernel, spec.kernel);
        Ok(Self {
            weight: Arc::new(Parameter::new(weight, shape, &builder.device)?),
            bias: Arc::new(Parameter::new(bias, spec.channels, &builder.device)?),
            spec: spec.clone(),
            pool: Arc::clone(&builder.pool),
            formulas: builder.formulas,
        })
    }

    /// The convolution that this is the transpose of, for images of `size`.
    fn convolution(&self, channels_in: usize, size: [usize; 2]) -> Result<Convolution> {
        let ConvTransposeLayer { channels, kernel, stride, padding, output_padding, .. } = self.spec;
        if output_padding >= stride {
            bail!("output_padding is {output_padding}, must be below the stride {stride}");
        }
        let mut larger = [0; 2];
        for (larger, size) in larger.iter_mut().zip(size) {
            let all =
                size.saturating_sub(1).checked_mul(stride).and_then(|all| all.checked_add(kernel + output_padding));
            *larger = match all.and_then(|all| all.checked_sub(padding.checked_mul(2)?)) {
                Some(left) if left > 0 => left,
                _ => bail!("padding {padding} leaves nothing of what {size} pixels become"),
            };
        }
        fitting(channels, larger, channels_in, [kernel, stride, padding].map(|extent| [extent; 2]))
    }
}

impl Layer for ConvTranspose2d {
    fn operation(&self, x: &Tensor, _: bool, wanted: bool) -> Result<Operation> {
        let (_, channels, height, width) = x.dims4()?;
        let channels_in = self.weight.value().dim(0)?;
        if channels != channels_in {
            bail!("a transposed convolution of {channels_in} channels is given images of {channels}");
        }
        let convolution = self.convolution(channels_in, [height, width])?;
        if self.formulas {
            let [weight, bias] = [&self.weight, &self.bias].map(Arc::clone);
            let ConvTransposeLayer { activation, kernel, stride, padding, output_padding, .. } = self.spec;
            let formula =
                formula::ConvTranspose2d { weight, bias, activation, kernel, stride, padding, output_padding, wanted };
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

impl ModuleT for ConvTranspose2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape, for images of one size.
struct Op {
    /// From what comes out to what goes in.
    convolution: Convolution,
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    spec: ConvTransposeLayer,
    pool: Arc<Pool>,
    /// Whether the gradient at the input is wanted: rows of the data need none.
    wanted: bool,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "conv-transpose2d"
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
        let [channels, height, width] = self.convolution.input();
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let mut out = vec![0.0; rows * channels * height * width];
        let activation = |values: &mut [f32]| self.spec.activation.apply(values);
        self.convolution.forward_transposed(&self.pool, x, weight, Some(bias), &activation, &mut out);
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
        let [channels, height, width] = self.convolution.input();
        let below = with_values(result, |result| {
            with_values(&gradient, |gradient| {
                let d = before_activation(self.spec.activation, &self.pool, result, gradient);
                self.bias.accumulate(|bias, first| {
                    sum_channels(&self.pool, &d, channels, height * width, Accumulate::of_step(first), bias);
                })?;
                // Of the convolution, what comes out here are the images and what goes in the outputs.
                with_values(x, |x| {
                    self.weight.accumulate(|weight, first| {
                        self.convolution.backward_weight(&self.pool, &d, x, Accumulate::of_step(first), weight);
                    })
                })?;
                if !self.wanted {
                    return Ok(None);
                }
                let mut below = vec![0.0; x.elem_count()];
                with_values(weight, |weight| {
                    self.convolution.forward(&self.pool, &d, weight, None, &|_| {}, &mut below);
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
    use super::super::image::testing::{Checked, draw, drawn, on};
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn forward_and_gradients_equal_candle_s() -> Result<()> {
        // Channels in and out, kernel, stride, padding, output padding, height and width.
        let cases = [
            ([32, 1], [5, 2, 2, 1], [14, 14]),
            ([5, 3], [3, 1, 0, 0], [6, 6]),
            ([2, 4], [3, 2, 1, 0], [4, 4]),
            ([3, 17], [2, 3, 0, 2], [3, 3]),
        ];
        for ([channels_in, channels], [kernel, stride, padding, output_padding], [height, width]) in cases {
            for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                let spec = ConvTransposeLayer { channels, kernel, stride, padding, output_padding, activation };
                let builder = Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3));
                let weight = drawn(channels_in * channels * kernel * kernel, 3);
                let layer = ConvTranspose2d::new(weight, drawn(channels, 4), &spec, &builder)?;
                Checked::new(&draw((9, channels_in, height, width), 1))?.check(&layer, |x, [weight, bias]| {
                    let y = x.conv_transpose2d(weight, padding, output_padding, stride, 1)?;
                    on(activation, &y.broadcast_add(&bias.reshape((1, channels, 1, 1))?)?)
                })?;
            }
        }
        Ok(())
    }

    /// ```python
    /// def ints(*shape, m, o):
    ///     return (torch.arange(math.prod(shape)) % m - o).float().reshape(shape)
    /// x = ints(1, 2, 2, 3, m=7, o=3).requires_grad_()
    /// conv = torch.nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1, output_padding=1)
    /// with torch.no_grad():
    ///     conv.weight.copy_(ints(2, 1, 3, 3, m=5, o=2))
    ///     conv.bias.copy_(torch.tensor([1.0]))
    /// y = torch.relu(conv(x))
    /// y.backward(ints(1, 1, 4, 6, m=5, o=1))
    /// print(y, x.grad, conv.weight.grad, conv.bias.grad)
    /// ```
    #[test]
    fn figures_of_pytorch() -> Result<()> {
        let ints = |len: u16, m: u16, o: f32| (0..len).map(|i| f32::from(i % m) - o).collect::<Vec<_>>();
        let builder = Builder::on_cpu(Arc::new(Pool::new(2)), crate::Seed(3));
        let activation = Activation::Relu;
        let spec = ConvTransposeLayer { channels: 1, kernel: 3, stride: 2, padding: 1, output_padding: 1, activation };
        let layer = ConvTranspose2d::new(ints(18, 5, 2.0), vec![1.0], &spec, &builder)?;
        let x = Var::from_vec(ints(12, 7, 3.0), (1, 2, 2, 3), &Device::Cpu)?;
        let y = layer.forward_t(&x, true)?;
        assert_eq!(
            y.flatten_all()?.to_vec1::<f32>()?,
            [
                0.0, 11.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 1.0, 6.0, 0.0, 2.0, 0.0,
                1.0, 0.0, 0.0, 3.0
            ]
        );
        let d = Tensor::from_vec(ints(24, 5, 1.0), (1, 1, 4, 6), &Device::Cpu)?;
        let gradients = (&y * d)?.sum_all()?.backward()?;
        let below = gradients.get(&x).expect("the gradient of a variable").flatten_all()?;
        assert_eq!(below.to_vec1::<f32>()?, [1.0, 2.0, -3.0, 0.0, 4.0, -5.0, 0.0, -4.0, -6.0, -3.0, -3.0, 6.0]);
        let own = |parameter: &Parameter| parameter.gradient().expect("a gradient").flatten_all()?.to_vec1::<f32>();
        assert_eq!(
            own(&layer.weight)?,
            [7.0, 2.0, 3.0, -2.0, 3.0, -1.0, -5.0, -5.0, -5.0, 3.0, 0.0, -1.0, -1.0, 0.0, 0.0, -9.0, -8.0, -4.0]
        );
        assert_eq!(own(&layer.bias)?, [11.0]);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_told() -> Result<()> {
        let builder = Builder::on_cpu(Arc::new(Pool::new(1)), crate::Seed(3));
        let error = |[stride, padding, output_padding]: [usize; 3], x: Tensor| {
            let activation = Activation::Relu;
            let spec = ConvTransposeLayer { channels: 2, kernel: 3, stride, padding, output_padding, activation };
            let layer = ConvTranspose2d::new(drawn(36, 2), vec![0.0; 2], &spec, &builder)?;
            Ok::<_, candle_core::Error>(layer.forward_t(&x, false).map(|_| ()).unwrap_err().to_string())
        };
        assert!(error([1, 0, 0], draw((4, 3, 5, 5), 1))?.contains("is given images of 3"));
        assert!(error([1, 0, 1], draw((4, 2, 5, 5), 1))?.contains("must be below the stride 1"));
        assert!(error([1, 2, 0], draw((4, 2, 5, 2), 1))?.contains("padding 2 leaves nothing"));
        Ok(())
    }
}
