//! What the layers over images have in common.

use std::borrow::Cow;

use candle_core::{Error, Result, bail};

use super::architecture::Activation;
use crate::kernel::Pool;
use crate::kernel::convolution::Convolution;

/// Values that one task takes back through an activation.
const BLOCK_VALUES: usize = 1 << 13;

/// The convolution with `[kernel, stride, padding]`, each a pair.
///
/// # Errors
/// What does not fit.
pub(super) fn fitting(
    channels_in: usize,
    size: [usize; 2],
    channels_out: usize,
    [kernel, stride, padding]: [[usize; 2]; 3],
) -> Result<Convolution> {
    Convolution::new(channels_in, size, channels_out, kernel, stride, padding).map_err(Error::msg)
}

/// Square kernels for each of `channels`.
///
/// # Errors
/// If the weights are not a whole number of them, or none.
pub(super) fn kernel_count(weight: &[f32], channels: usize, kernel: usize) -> Result<usize> {
    let of_one = kernel.checked_mul(kernel).and_then(|taps| taps.checked_mul(channels));
    match of_one {
        Some(of_one) if of_one > 0 && !weight.is_empty() && weight.len().is_multiple_of(of_one) => {
            Ok(weight.len() / of_one)
        }
        _ => bail!("{} weights for {channels} channels of kernels of {kernel} x {kernel}", weight.len()),
    }
}

/// The gradient before an activation, from that after it, where the results were `results`.
pub(super) fn before_activation<'a>(
    activation: Activation,
    pool: &Pool,
    results: &[f32],
    gradient: &'a [f32],
) -> Cow<'a, [f32]> {
    if activation == Activation::Identity {
        return Cow::Borrowed(gradient);
    }
    let mut before = vec![0.0; gradient.len()];
    pool.for_each_chunk_mut(&mut before, BLOCK_VALUES, |i, before| {
        let range = i * BLOCK_VALUES..i * BLOCK_VALUES + before.len();
        before.copy_from_slice(&gradient[range.clone()]);
        activation.backward(&results[range], before);
    });
    Cow::Owned(before)
}

/// What the tests of these layers share.
#[cfg(test)]
pub(super) mod testing {
    use super::super::layer::Layer;
    use super::*;
    use crate::seed::Seed;
    use candle_core::{Device, Shape, Tensor, Var};
    use rand::Rng;

    /// `len` values between -1 and 1 from substream `index`.
    pub fn drawn(len: usize, index: u64) -> Vec<f32> {
        let mut random = Seed(5).stream("draw", index);
        (0..len).map(|_| random.random_range(-1.0..=1.0)).collect()
    }

    /// A tensor of them.
    pub fn draw(shape: impl Into<Shape>, index: u64) -> Tensor {
        let shape = shape.into();
        Tensor::from_vec(drawn(shape.elem_count(), index), shape, &Device::Cpu).expect("as many values")
    }

    /// Candle's activation functions.
    pub fn on(activation: Activation, y: &Tensor) -> Result<Tensor> {
        match activation {
            Activation::Identity => Ok(y.clone()),
            Activation::Relu => y.relu(),
            Activation::Tanh => y.tanh(),
            _ => bail!("not used here"),
        }
    }

    /// Fails unless both are of one shape and differ by less than 5e-5 of the largest value: candle adds thousands of
    /// values up in single precision.
    pub fn near(ours: &Tensor, theirs: &Tensor) -> Result<()> {
        assert_eq!(ours.shape(), theirs.shape());
        let scale = theirs.abs()?.max_all()?.to_scalar::<f32>()?.max(1.0);
        let error = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(error <= 5e-5 * scale, "{error} of {scale}");
        Ok(())
    }

    /// Images of which a layer and a formula of candle's own operations are compared.
    pub struct Checked {
        x: Var,
    }

    impl Checked {
        pub fn new(x: &Tensor) -> Result<Self> {
            Ok(Self { x: Var::from_tensor(x)? })
        }

        /// Fails unless output, gradient at the images and gradients of the `N` parameters are near those of `formula`,
        /// which is given the images and the parameters.
        pub fn check<const N: usize>(
            &self,
            layer: &dyn Layer,
            formula: impl Fn(&Tensor, [&Tensor; N]) -> Result<Tensor>,
        ) -> Result<()> {
            let parameters: [_; N] = layer.parameters().try_into().expect("the parameters of the formula");
            let (ours, theirs) = (
                layer.forward_t(&self.x, true)?,
                formula(&self.x, parameters.each_ref().map(|(_, parameter)| parameter.value()))?,
            );
            near(&ours, &theirs)?;
            // Some gradient that differs from output to output.
            let d = draw(ours.shape(), 99);
            let (ours, theirs) = ((ours * &d)?.sum_all()?.backward()?, (theirs * &d)?.sum_all()?.backward()?);
            let gradient = |of: &candle_core::backprop::GradStore| of.get(&self.x).expect("of a variable").copy();
            near(&gradient(&ours)?, &gradient(&theirs)?)?;
            for (name, parameter) in parameters {
                let own = parameter.gradient().unwrap_or_else(|| panic!("no gradient of {name}"));
                near(own, theirs.get(parameter.value()).expect("of a variable"))?;
            }
            Ok(())
        }
    }
}
