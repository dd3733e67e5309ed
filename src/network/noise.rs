//! Noise on what goes into a network, for denoising autoencoders (Vincent et al. 2010): it learns to rebuild the row
//! without the noise.

use std::sync::Arc;

use candle_core::{ModuleT, Result, Tensor, bail};

use super::dropout::{draw, masked};
use super::layer::{Builder, Clock, Layer};
use crate::kernel::Pool;
use crate::kernel::normal::standard_normal;
use crate::seed::Seed;

/// How rows are corrupted.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Corruption {
    /// A normal random number is added to every value.
    Gaussian {
        /// Its standard deviation.
        deviation: f64,
    },
    /// Values are replaced by zeros; the others stay as they are.
    Masking {
        /// The probability with which a value is.
        fraction: f64,
    },
}

/// A layer that corrupts its input in training and leaves it alone in evaluation. What it draws depends on the seed, its
/// name and the step of the [`Clock`], as with [`Dropout`](super::Dropout).
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Builder, Corruption, Noise}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let x = Tensor::ones((10, 100), DType::F32, &Device::Cpu)?;
/// let layer = Noise::new(Corruption::Masking { fraction: 0.2 }, "noise", &builder)?;
/// let y = layer.forward_t(&x, true)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!(y.iter().all(|&y| y == 0.0 || y == 1.0));
/// assert!((150..250).contains(&y.iter().filter(|&&y| y == 0.0).count()));
/// let layer = Noise::new(Corruption::Gaussian { deviation: 0.5 }, "noise", &builder)?;
/// let spread = (layer.forward_t(&x, true)? - &x)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
/// assert!((spread - 0.25).abs() < 0.05);
/// assert_eq!(layer.forward_t(&x, false)?.to_vec2::<f32>()?, x.to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Noise {
    corruption: Corruption,
    name: String,
    pool: Arc<Pool>,
    seed: Seed,
    clock: Clock,
}

impl Noise {
    /// The layer that corrupts its input so. No other layer that draws random numbers may have its name.
    ///
    /// # Errors
    /// For a deviation that is negative or not finite, or a fraction that is not between 0 and 1.
    pub fn new(corruption: Corruption, name: &str, builder: &Builder) -> Result<Self> {
        match corruption {
            Corruption::Gaussian { deviation } if !(0.0..f64::INFINITY).contains(&deviation) => {
                bail!("the deviation of noise is a number from 0 on, this is {deviation}")
            }
            Corruption::Masking { fraction } if !(0.0..=1.0).contains(&fraction) => {
                bail!("the fraction that noise masks is between 0 and 1, this is {fraction}")
            }
            _ => {}
        }
        let Builder { pool, seed, clock, .. } = builder.clone();
        Ok(Self { corruption, name: name.to_string(), pool, seed, clock })
    }
}

impl Layer for Noise {}

impl ModuleT for Noise {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if !train {
            return Ok(x.clone());
        }
        let random = self.clock.random(self.seed, &self.name);
        match self.corruption {
            Corruption::Gaussian { deviation } => {
                let deviation = deviation as f32;
                let noise = draw(x.elem_count(), &random, &self.pool, |word| deviation * standard_normal(word));
                x + Tensor::from_vec(noise, x.shape(), x.device())?
            }
            Corruption::Masking { fraction } => masked(x, fraction, 1.0, &random, &self.pool),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    const GAUSSIAN: Corruption = Corruption::Gaussian { deviation: 0.3 };
    const MASKING: Corruption = Corruption::Masking { fraction: 0.25 };

    fn noise(corruption: Corruption, threads: usize, step: u64) -> Noise {
        let builder = Builder::on_cpu(Arc::new(Pool::new(threads)), Seed(3));
        builder.clock.set(step);
        Noise::new(corruption, "noise", &builder).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn some() -> Tensor {
        let values = (0..70_000).map(|i| (i as f32 * 0.7).sin() + 2.0).collect();
        Tensor::from_vec::<_, f32>(values, (100, 700), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_noise_has_the_moments_asked_for() {
        let x = some();
        let y = noise(GAUSSIAN, 2, 0).forward_t(&x, true).unwrap();
        let noise_of = |k: i32| {
            let sum: f64 = flat(&y).iter().zip(flat(&x)).map(|(y, x)| f64::from(y - x).powi(k)).sum();
            sum / 70_000.0
        };
        // Four standard deviations of each.
        assert!(noise_of(1).abs() < 4.0 * 0.3 / 70_000f64.sqrt());
        assert!((noise_of(2) - 0.09).abs() < 4.0 * 0.09 * (2.0 / 70_000f64).sqrt());
        let y = flat(&noise(MASKING, 2, 0).forward_t(&x, true).unwrap());
        let masked = y.iter().filter(|&&y| y == 0.0).count() as f64;
        assert!((masked - 17_500.0).abs() < 4.0 * (70_000.0 * 0.25 * 0.75_f64).sqrt(), "{masked}");
        assert!(y.iter().zip(flat(&x)).all(|(&y, x)| y == 0.0 || y == x));
    }

    #[test]
    fn draws_depend_on_the_step_and_not_on_threads_and_evaluation_draws_none() {
        let x = some();
        for corruption in [GAUSSIAN, MASKING] {
            let of = |threads, step, train| flat(&noise(corruption, threads, step).forward_t(&x, train).unwrap());
            assert_eq!(of(1, 5, true), of(3, 5, true));
            assert_ne!(of(1, 5, true), of(1, 6, true));
            assert_eq!(of(1, 5, false), flat(&x));
        }
    }

    #[test]
    fn gradients_pass_what_was_not_masked() {
        for corruption in [GAUSSIAN, MASKING] {
            let x = Var::from_tensor(&some()).unwrap();
            let y = noise(corruption, 2, 0).forward_t(&x, true).unwrap();
            let gradients = (y.sum_all().unwrap() * 3.0).unwrap().backward().unwrap();
            let expected: Vec<f32> = flat(&y).iter().map(|&y| if y == 0.0 { 0.0 } else { 3.0 }).collect();
            assert_eq!(flat(gradients.get(&x).unwrap()), expected);
        }
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(3));
        let said = |corruption| Noise::new(corruption, "noise", &builder).unwrap_err().to_string();
        for deviation in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(said(Corruption::Gaussian { deviation }).contains("from 0 on"));
        }
        assert!(said(Corruption::Masking { fraction: 1.5 }).contains("between 0 and 1"));
    }
}
