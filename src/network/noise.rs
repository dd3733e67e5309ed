//! Noise on what goes into a network, for denoising autoencoders (Vincent et al. 2010): it learns to rebuild the row
//! without the noise.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, ModuleT, Result, Shape, Tensor, bail};

use super::dropout::{CHUNK, draw, mask, masked};
use super::formula;
use super::layer::{Builder, Clock, Layer, Operation, forward, values};
use crate::kernel::Pool;
use crate::kernel::normal::standard_normal;
use crate::seed::Seed;

/// How rows are corrupted.
#[derive(Debug, Clone, Copy)]
enum Corruption {
    /// A normal random number of this deviation is added to every value.
    Normal { deviation: f64 },
    /// Values are replaced by zeros, each with this probability; the others stay as they are.
    Masking { fraction: f64 },
}

/// A layer that corrupts its input in training and leaves it alone in evaluation. What it draws depends on the seed, its
/// name and the step of the [`Clock`], as with [`Dropout`](super::Dropout).
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Builder, Noise}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let x = Tensor::ones((10, 100), DType::F32, &Device::Cpu)?;
/// let layer = Noise::masking("noise", 0.2, &builder)?;
/// let y = layer.forward_t(&x, true)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!(y.iter().all(|&y| y == 0.0 || y == 1.0));
/// assert!((150..250).contains(&y.iter().filter(|&&y| y == 0.0).count()));
/// let layer = Noise::new("noise", 0.5, &builder)?;
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
    formulas: bool,
}

impl Noise {
    /// The layer `name` that adds a normal random number of this standard deviation to every value. No other layer that
    /// draws random numbers may have its name.
    ///
    /// # Errors
    /// For a deviation that is negative or not finite.
    pub fn new(name: &str, deviation: f64, builder: &Builder) -> Result<Self> {
        if !(0.0..f64::INFINITY).contains(&deviation) {
            bail!("the deviation of noise is a number from 0 on, this is {deviation}");
        }
        Ok(Self::of(name, Corruption::Normal { deviation }, builder))
    }

    /// The layer `name` that replaces values by zeros, each with this probability. Unlike dropout it leaves the others as
    /// they are. No other layer that draws random numbers may have its name.
    ///
    /// # Errors
    /// For a probability that is not between 0 and 1.
    pub fn masking(name: &str, fraction: f64, builder: &Builder) -> Result<Self> {
        if !(0.0..=1.0).contains(&fraction) {
            bail!("the fraction that noise masks is between 0 and 1, this is {fraction}");
        }
        Ok(Self::of(name, Corruption::Masking { fraction }, builder))
    }

    fn of(name: &str, corruption: Corruption, builder: &Builder) -> Self {
        let Builder { pool, seed, clock, formulas, .. } = builder.clone();
        Self { corruption, name: name.to_string(), pool, seed, clock, formulas }
    }
}

impl Layer for Noise {
    fn operation(&self, x: &Tensor, train: bool, _: bool) -> Result<Operation> {
        if !train {
            return Ok(Operation::Nothing);
        }
        let random = self.clock.random(self.seed, &self.name);
        match self.corruption {
            Corruption::Normal { deviation } => {
                let deviation = deviation as f32;
                let noise = draw(x.elem_count(), &random, &self.pool, |word| deviation * standard_normal(word));
                Ok(match self.formulas {
                    true => {
                        Operation::Formula(Box::new(formula::Added(Tensor::from_vec(noise, x.shape(), x.device())?)))
                    }
                    false => Operation::Plain(Box::new(Added { noise, pool: Arc::clone(&self.pool) })),
                })
            }
            Corruption::Masking { fraction } => {
                let mask = mask(x.elem_count(), fraction, 1.0, &random, &self.pool);
                masked(x, mask, &self.pool, self.formulas)
            }
        }
    }
}

impl ModuleT for Noise {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The sum with noise, on the tape.
struct Added {
    noise: Vec<f32>,
    pool: Arc<Pool>,
}

impl CustomOp1 for Added {
    fn name(&self) -> &'static str {
        "noise"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let mut sums = vec![0.0; x.len()];
        self.pool.for_each_chunk_mut(&mut sums, CHUNK, |i, sums| {
            let both = x[i * CHUNK..].iter().zip(&self.noise[i * CHUNK..]);
            sums.iter_mut().zip(both).for_each(|(sum, (x, noise))| *sum = x + noise);
        });
        Ok((CpuStorage::F32(sums), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    type Make = fn(&Builder) -> Result<Noise>;
    const NORMAL: Make = |builder| Noise::new("noise", 0.3, builder);
    const MASKING: Make = |builder| Noise::masking("noise", 0.25, builder);

    fn noise(make: Make, threads: usize, step: u64) -> Noise {
        let builder = Builder::on_cpu(Arc::new(Pool::new(threads)), Seed(3));
        builder.clock.set(step);
        make(&builder).unwrap()
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
        let y = noise(NORMAL, 2, 0).forward_t(&x, true).unwrap();
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
        for make in [NORMAL, MASKING] {
            let of = |threads, step, train| flat(&noise(make, threads, step).forward_t(&x, train).unwrap());
            assert_eq!(of(1, 5, true), of(3, 5, true));
            assert_ne!(of(1, 5, true), of(1, 6, true));
            assert_eq!(of(1, 5, false), flat(&x));
        }
    }

    #[test]
    fn gradients_pass_what_was_not_masked() {
        for make in [NORMAL, MASKING] {
            let x = Var::from_tensor(&some()).unwrap();
            let y = noise(make, 2, 0).forward_t(&x, true).unwrap();
            let gradients = (y.sum_all().unwrap() * 3.0).unwrap().backward().unwrap();
            let expected: Vec<f32> = flat(&y).iter().map(|&y| if y == 0.0 { 0.0 } else { 3.0 }).collect();
            assert_eq!(flat(gradients.get(&x).unwrap()), expected);
        }
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(3));
        for deviation in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Noise::new("a", deviation, &builder).unwrap_err().to_string().contains("from 0 on"));
        }
        for fraction in [-0.1, 1.5, f64::NAN] {
            assert!(Noise::masking("a", fraction, &builder).unwrap_err().to_string().contains("between 0 and 1"));
        }
    }
}
