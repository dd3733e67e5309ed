//! Batch normalisation (Ioffe and Szegedy 2015) of rows and of images.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::formula;
use super::layer::{Builder, Layer, Operation, forward, values, with_values};
use super::parameter::{Buffer, Parameter};
use crate::kernel::Pool;
use crate::kernel::batch_norm::Channels;

/// Added to the variance, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// How much of a batch's statistics goes into the running ones, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// Batch normalisation: every channel of rows `[n, c]` or images `[n, c, h, w]` is brought to mean `bias` and standard
/// deviation `weight`, which are learnt.
///
/// In training it takes mean and biased variance of the batch, and moves the running ones a tenth of the way to them, the
/// variance to the unbiased one, as PyTorch does. In evaluation it takes the running ones.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{BatchNorm, Builder, Layer}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layer = BatchNorm::new(1, &builder)?;
/// let x = Tensor::new(&[[1.0f32], [3.0]], &Device::Cpu)?;
/// // The mean is 2, the variance 1.
/// let y = layer.forward_t(&x, true)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!((y[0] + 1.0).abs() < 1e-5 && (y[1] - 1.0).abs() < 1e-5);
/// let running: Vec<_> = layer.buffers().into_iter().map(|(name, buffer)| (name, buffer.get())).collect();
/// assert_eq!((running[0].0, running[0].1.to_vec1::<f32>()?), ("running_mean", vec![0.2]));
/// // 0.9 * 1 + 0.1 * 2: the unbiased variance is 2.
/// assert_eq!((running[1].0, running[1].1.to_vec1::<f32>()?), ("running_variance", vec![1.1]));
/// let y = layer.forward_t(&x, false)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!((y[0] - 0.8 / 1.1f32.sqrt()).abs() < 1e-5);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchNorm {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    running_mean: Arc<Buffer>,
    running_variance: Arc<Buffer>,
    pool: Arc<Pool>,
    formulas: bool,
}

impl BatchNorm {
    /// The layer for this many channels, which begins with weights 1 and biases 0, running means 0 and variances 1.
    ///
    /// # Errors
    /// If there are no channels, or the device has no room.
    pub fn new(channels: usize, builder: &Builder) -> Result<Self> {
        if channels == 0 {
            bail!("batch norm of no channels");
        }
        let constant = |value: f32| Tensor::full(value, channels, &builder.device);
        Ok(Self {
            weight: Arc::new(Parameter::new(vec![1.0; channels], channels, &builder.device)?),
            bias: Arc::new(Parameter::new(vec![0.0; channels], channels, &builder.device)?),
            running_mean: Arc::new(Buffer::new(constant(0.0)?)),
            running_variance: Arc::new(Buffer::new(constant(1.0)?)),
            pool: Arc::clone(&builder.pool),
            formulas: builder.formulas,
        })
    }

    /// How the values of `x` lie, and how many there are of each channel.
    fn layout(&self, x: &Tensor) -> Result<(Channels, usize)> {
        let channels = self.weight.value().elem_count();
        match *x.dims() {
            [n, c] if c == channels => Ok((Channels { channels, plane: 1 }, n)),
            [n, c, h, w] if c == channels && h * w > 0 => Ok((Channels { channels, plane: h * w }, n * h * w)),
            _ => bail!(
                "batch norm of {channels} channels takes [n, {channels}] or [n, {channels}, h, w], this is {:?}",
                x.dims()
            ),
        }
    }

    /// Mean and variance of the batch; the running ones follow them.
    fn learn(&self, x: &Tensor, layout: Channels, count: usize) -> Result<[Vec<f64>; 2]> {
        let (mean, variance) = with_values(x, |x| Ok(layout.moments(&self.pool, x)))?;
        let unbiased = count as f64 / (count - 1) as f64;
        for (buffer, batch, factor) in [(&self.running_mean, &mean, 1.0), (&self.running_variance, &variance, unbiased)]
        {
            let running = self.running(buffer)?.into_iter().zip(batch);
            let moved = running.map(|(old, new)| ((1.0 - MOMENTUM) * old + MOMENTUM * factor * new) as f32).collect();
            buffer.set(Tensor::from_vec(moved, layout.channels, x.device())?);
        }
        Ok([mean, variance])
    }

    /// The layer over tensors.
    fn formula(&self, x: &Tensor, train: bool, count: usize, wanted: bool) -> Result<formula::BatchNorm> {
        let [mean, variance] = match train {
            true => {
                let [mean, variance] = formula::moments(x, count)?;
                let unbiased = count as f64 / (count - 1) as f64;
                for (buffer, batch, factor) in
                    [(&self.running_mean, &mean, 1.0), (&self.running_variance, &variance, unbiased)]
                {
                    let old = (buffer.get().to_dtype(DType::F64)? * (1.0 - MOMENTUM))?;
                    buffer.set((old + (batch * (MOMENTUM * factor))?)?.to_dtype(DType::F32)?);
                }
                [mean, variance]
            }
            false => [self.running_mean.get().to_dtype(DType::F64)?, self.running_variance.get().to_dtype(DType::F64)?],
        };
        Ok(formula::BatchNorm {
            weight: Arc::clone(&self.weight),
            bias: Arc::clone(&self.bias),
            mean,
            inverse: (variance + EPSILON)?.sqrt()?.recip()?,
            batch: train.then_some(count),
            wanted,
        })
    }

    /// The values of a running statistic.
    fn running(&self, buffer: &Buffer) -> Result<Vec<f64>> {
        let (values, channels) = (buffer.get().to_vec1::<f32>()?, self.weight.value().elem_count());
        if values.len() != channels {
            bail!("running statistics of {} channels in batch norm of {channels}", values.len());
        }
        Ok(values.into_iter().map(f64::from).collect())
    }
}

impl Layer for BatchNorm {
    fn operation(&self, x: &Tensor, train: bool, wanted: bool) -> Result<Operation> {
        let (layout, count) = self.layout(x)?;
        if train && count < 2 {
            let has = if count == 0 { "no rows" } else { "one row" };
            bail!("batch norm needs at least two values a channel; this batch has {has}");
        }
        if self.formulas {
            return Ok(Operation::Formula(Box::new(self.formula(x, train, count, wanted)?)));
        }
        let [mean, variance] = match train {
            true => self.learn(x, layout, count)?,
            false => [self.running(&self.running_mean)?, self.running(&self.running_variance)?],
        };
        let op = Op {
            weight: Arc::clone(&self.weight),
            bias: Arc::clone(&self.bias),
            pool: Arc::clone(&self.pool),
            layout,
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
            inverse: variance.into_iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect(),
            batch: train.then_some(count),
            wanted,
        };
        Ok(Operation::Weighted(Box::new(op), Arc::clone(&self.weight), Arc::clone(&self.bias)))
    }

    fn parameters(&self) -> Vec<(&'static str, &Arc<Parameter>)> {
        vec![("weight", &self.weight), ("bias", &self.bias)]
    }

    fn buffers(&self) -> Vec<(&'static str, &Arc<Buffer>)> {
        vec![("running_mean", &self.running_mean), ("running_variance", &self.running_variance)]
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The layer on the tape.
struct Op {
    weight: Arc<Parameter>,
    bias: Arc<Parameter>,
    pool: Arc<Pool>,
    layout: Channels,
    mean: Vec<f32>,
    /// One over the standard deviation.
    inverse: Vec<f64>,
    /// Values of a channel, where mean and deviation are those of the batch and so depend on its values.
    batch: Option<usize>,
    /// Whether the gradient at the input is wanted: rows of the data need none.
    wanted: bool,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let scale: Vec<f32> = weight.iter().zip(&self.inverse).map(|(&w, i)| (f64::from(w) * i) as f32).collect();
        let y = self.layout.normalise(&self.pool, x, [&self.mean, &scale, bias]);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (layout, pool) = (self.layout, &self.pool);
        let [sums, products] =
            with_values(x, |x| with_values(&gradient, |d| Ok(layout.gradient_sums(pool, x, d, &self.mean))))?;
        self.accumulate(&sums, &products)?;
        if !self.wanted {
            return Ok((None, None, None));
        }
        let [a, b, c] = self.input_coefficients(&weight.to_vec1()?, &sums, &products);
        let by = [&self.mean[..], &a, &b, &c];
        let below = with_values(x, |x| with_values(&gradient, |d| Ok(layout.input_gradient(pool, x, d, by))))?;
        Ok((Some(Tensor::from_vec(below, x.shape(), x.device())?), None, None))
    }
}

impl Op {
    /// Adds to the gradients of weights and biases, from the sums of the gradient `d` and of `d (x - mean)`.
    fn accumulate(&self, sums: &[f64], products: &[f64]) -> Result<()> {
        let normalised: Vec<f64> =
            products.iter().zip(&self.inverse).map(|(product, inverse)| product * inverse).collect();
        for (parameter, gradient) in [(&self.weight, &normalised[..]), (&self.bias, sums)] {
            parameter.accumulate(|to, first| {
                for (to, &more) in to.iter_mut().zip(gradient) {
                    *to = if first { more as f32 } else { *to + more as f32 };
                }
            })?;
        }
        Ok(())
    }

    /// For every channel the numbers of which the gradient at the input is `a d + b (x - mean) + c`. Where mean and
    /// deviation are the batch's, `b` and `c` are the gradient's way through them.
    fn input_coefficients(&self, weight: &[f32], sums: &[f64], products: &[f64]) -> [Vec<f32>; 3] {
        let through = self.batch.map_or(0.0, |count| -1.0 / count as f64);
        let mut by = [(); 3].map(|()| Vec::with_capacity(weight.len()));
        for (c, (&weight, inverse)) in weight.iter().zip(&self.inverse).enumerate() {
            let a = f64::from(weight) * inverse;
            let numbers = [a, through * a * inverse * inverse * products[c], through * a * sums[c]];
            by.iter_mut().zip(numbers).for_each(|(by, number)| by.push(number as f32));
        }
        by
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::seed::Seed;

    fn builder(threads: usize) -> Builder {
        Builder::on_cpu(Arc::new(Pool::new(threads)), Seed(1))
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }

    fn some(shape: &[usize], salt: f64) -> Tensor {
        let values =
            (0..shape.iter().product::<usize>()).map(|i| ((i as f64 * 0.7 + salt).sin() * 2.0 + salt) as f32).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
    }

    /// A layer with weights, biases and running statistics that differ from channel to channel.
    fn layer(channels: usize, threads: usize) -> BatchNorm {
        let layer = BatchNorm::new(channels, &builder(threads)).unwrap();
        layer.weight.set(&some(&[channels], 0.5)).unwrap();
        layer.bias.set(&some(&[channels], 0.8)).unwrap();
        layer.running_mean.set(some(&[channels], 0.2));
        layer.running_variance.set((some(&[channels], 0.4).sqr().unwrap() + 0.5).unwrap());
        layer
    }

    /// The formula of PyTorch's documentation in double precision, on candle's tape.
    struct Twin {
        x: Var,
        weight: Var,
        bias: Var,
        running: [Tensor; 2],
    }

    impl Twin {
        fn new(layer: &BatchNorm, x: &Tensor) -> Self {
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let variable = |t: &Tensor| Var::from_tensor(&wide(t)).unwrap();
            Self {
                x: variable(x),
                weight: variable(layer.weight.value()),
                bias: variable(layer.bias.value()),
                running: [wide(&layer.running_mean.get()), wide(&layer.running_variance.get())],
            }
        }

        /// The result, and the running statistics after it.
        fn forward(&self, train: bool) -> Result<(Tensor, [Tensor; 2])> {
            let column = |t: &Tensor| t.reshape(((), 1));
            let x = self.x.transpose(0, 1)?;
            let (dims, x) = (x.dims().to_vec(), x.flatten_from(1)?);
            let (mean, variance, running) = if train {
                let mean = x.mean_keepdim(1)?;
                let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
                let count = x.dim(1)? as f64;
                let follow = |old: &Tensor, new: Tensor| (old * 0.9)? + (new.flatten_all()? * 0.1)?;
                let running = [
                    follow(&self.running[0], mean.clone())?,
                    follow(&self.running[1], (&variance * (count / (count - 1.0)))?)?,
                ];
                (mean, variance, running)
            } else {
                (column(&self.running[0])?, column(&self.running[1])?, self.running.clone())
            };
            let normalised = x.broadcast_sub(&mean)?.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
            let y = normalised.broadcast_mul(&column(&self.weight)?)?.broadcast_add(&column(&self.bias)?)?;
            Ok((y.reshape(dims)?.transpose(0, 1)?, running))
        }
    }

    fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        // At least 1: gradients at the input are differences of numbers of this size.
        let scale = theirs.iter().fold(1.0_f32, |scale, v| scale.max(v.abs()));
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() <= 3e-6 * scale, "{what}[{i}]: {a} {b}");
        }
    }

    #[test]
    fn values_all_gradients_and_running_statistics_equal_the_formula_s() {
        for shape in [&[2, 3][..], &[90, 1], &[257, 70], &[1, 2, 3, 5], &[6, 3, 4, 4], &[20, 5, 14, 15]] {
            for train in [true, false] {
                let layer = layer(shape[1], 2);
                let (x, weights) = (some(shape, 0.9), some(shape, 0.1));
                let twin = Twin::new(&layer, &x);
                let x = Var::from_tensor(&x).unwrap();
                let y = layer.forward_t(&x, train).unwrap();
                let (expected, running) = twin.forward(train).unwrap();
                let what = format!("{shape:?} {train}");
                assert_close(&what, &flat(&y), &flat(&expected));
                assert_close(&what, &flat(&layer.running_mean.get()), &flat(&running[0]));
                assert_close(&what, &flat(&layer.running_variance.get()), &flat(&running[1]));
                let loss = |y: &Tensor, weights: Tensor| ((y.sqr()? * 0.3)? + y * weights)?.sum_all()?.backward();
                let gradients = loss(&y, weights.clone()).unwrap();
                let theirs = loss(&expected, weights.to_dtype(DType::F64).unwrap()).unwrap();
                let of = |variable: &Var| flat(theirs.get(variable).unwrap());
                assert_close(&format!("{what} weight"), &flat(layer.weight.gradient().unwrap()), &of(&twin.weight));
                assert_close(&format!("{what} bias"), &flat(layer.bias.gradient().unwrap()), &of(&twin.bias));
                assert_close(&format!("{what} x"), &flat(gradients.get(&x).unwrap()), &of(&twin.x));
                assert!(gradients.get(layer.weight.variable()).is_none());
            }
        }
    }

    #[test]
    fn gradients_add_up_over_two_batches() {
        let layer = layer(3, 1);
        let gradient = |x: &Tensor| {
            layer.forward_t(x, true).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let both = layer.parameters().into_iter().map(|(_, parameter)| flat(parameter.gradient().unwrap()));
            both.collect::<Vec<_>>().concat()
        };
        let forget = || layer.parameters().into_iter().for_each(|(_, parameter)| parameter.forget_gradient());
        let (a, b) = (some(&[5, 3], 0.1), some(&[8, 3], 0.6));
        let first = gradient(&a);
        let sum = gradient(&b);
        forget();
        let second = gradient(&b);
        let added: Vec<f32> = first.iter().zip(&second).map(|(first, second)| first + second).collect();
        assert_eq!(sum, added);
    }

    #[test]
    fn threads_do_not_matter() {
        let of = |threads| {
            let layer = layer(70, threads);
            let x = Var::from_tensor(&some(&[300, 70], 0.9)).unwrap();
            let y = layer.forward_t(&x, true).unwrap();
            let gradients = (&y * &y).unwrap().sum_all().unwrap().backward().unwrap();
            [
                flat(&y),
                flat(gradients.get(&x).unwrap()),
                flat(layer.weight.gradient().unwrap()),
                flat(layer.bias.gradient().unwrap()),
                flat(&layer.running_mean.get()),
                flat(&layer.running_variance.get()),
            ]
        };
        assert_eq!(of(1), of(3));
    }

    #[test]
    fn in_evaluation_a_row_has_the_same_bits_in_any_batch() {
        for shape in [&[50, 19][..], &[7, 3, 5, 5]] {
            let layer = layer(shape[1], 2);
            let x = some(shape, 0.3);
            let together = layer.forward_t(&x, false).unwrap();
            for i in 0..shape[0] {
                let alone = layer.forward_t(&x.narrow(0, i, 1).unwrap(), false).unwrap();
                assert_eq!(flat(&alone), flat(&together.narrow(0, i, 1).unwrap()));
            }
            assert_eq!(layer.forward_t(&x.narrow(0, 0, 0).unwrap(), false).unwrap().dims()[0], 0);
        }
    }

    #[test]
    fn a_batch_of_one_value_a_channel_is_an_error_in_training_only() {
        let layer = layer(3, 1);
        for (shape, has) in [(&[1, 3][..], "one row"), (&[1, 3, 1, 1], "one row"), (&[0, 3], "no rows")] {
            let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
            let said = layer.forward_t(&x, true).unwrap_err().to_string();
            let expected = format!("batch norm needs at least two values a channel; this batch has {has}");
            assert!(said.contains(&expected), "{said}");
            assert!(layer.forward_t(&x, false).is_ok());
        }
        assert!(layer.forward_t(&some(&[1, 3, 2, 1], 0.0), true).is_ok());
        let said = layer.forward_t(&some(&[4, 2], 0.0), true).unwrap_err().to_string();
        assert!(said.contains("takes [n, 3]") && said.contains("[4, 2]"), "{said}");
        assert!(BatchNorm::new(0, &builder(1)).is_err());
    }

    /// After the same batch again and again the running statistics are that batch's.
    #[test]
    fn running_statistics_come_to_those_of_the_batch() {
        let layer = BatchNorm::new(1, &builder(1)).unwrap();
        let x = Tensor::new(&[[1.0f32], [2.0], [6.0]], &Device::Cpu).unwrap();
        for _ in 0..300 {
            layer.forward_t(&x, true).unwrap();
        }
        assert_close("mean", &flat(&layer.running_mean.get()), &[3.0]);
        assert_close("variance", &flat(&layer.running_variance.get()), &[7.0]);
    }
}
