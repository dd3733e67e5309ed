//! Dropout, and the masks that it and the masking noise multiply by.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, ModuleT, Result, Shape, Tensor, bail};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use super::formula;
use super::layer::{Builder, Clock, Layer, Operation, forward, values, with_values};
use crate::kernel::Pool;
use crate::seed::Seed;

/// Values that one task takes.
pub(super) const CHUNK: usize = 1 << 14;

/// Inverted dropout: in training every value is zero with probability `rate` and otherwise divided by `1 - rate`; in
/// evaluation nothing happens.
///
/// Which values are zero depends on the seed, the layer's name and the step of the [`Clock`]: a resumed training draws
/// what it would have drawn, and two forward passes in one step draw the same.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use dacpipe::{Seed, kernel::Pool, network::{Builder, Dropout}};
///
/// let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(1));
/// let layer = Dropout::new("encoder.1", 0.75, &builder)?;
/// let x = Tensor::ones((10, 100), DType::F32, &Device::Cpu)?;
/// let y = layer.forward_t(&x, true)?.flatten_all()?.to_vec1::<f32>()?;
/// assert!(y.iter().all(|&y| y == 0.0 || y == 4.0));
/// assert!((200..300).contains(&y.iter().filter(|&&y| y == 4.0).count()));
/// assert_eq!(layer.forward_t(&x, false)?.to_vec2::<f32>()?, x.to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Dropout {
    rate: f64,
    name: String,
    pool: Arc<Pool>,
    seed: Seed,
    clock: Clock,
    formulas: bool,
}

impl Dropout {
    /// The layer `name` that drops values at this rate, which is at least 0 and below 1. No other layer that draws random
    /// numbers may have its name.
    ///
    /// # Errors
    /// For any other rate.
    pub fn new(name: &str, rate: f64, builder: &Builder) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            bail!("a dropout rate is at least 0 and below 1, this is {rate}");
        }
        let Builder { pool, seed, clock, formulas, .. } = builder.clone();
        Ok(Self { rate, name: name.to_string(), pool, seed, clock, formulas })
    }
}

impl Layer for Dropout {
    fn operation(&self, x: &Tensor, train: bool, _: bool) -> Result<Operation> {
        if !train || self.rate == 0.0 {
            return Ok(Operation::Nothing);
        }
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let mask = mask(x.elem_count(), self.rate, kept, &self.clock.random(self.seed, &self.name), &self.pool);
        masked(x, mask, &self.pool, self.formulas)
    }
}

impl ModuleT for Dropout {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        forward(self, x, train)
    }
}

/// The product of `x` with a mask.
pub(super) fn masked(x: &Tensor, mask: Vec<f32>, pool: &Arc<Pool>, formulas: bool) -> Result<Operation> {
    Ok(match formulas {
        true => Operation::Formula(Box::new(formula::Masked(Tensor::from_vec(mask, x.shape(), x.device())?))),
        false => Operation::Plain(Box::new(Masked { mask, pool: Arc::clone(pool) })),
    })
}

/// Zeros, each with probability `dropped`, among the value `kept`.
pub(super) fn mask(len: usize, dropped: f64, kept: f32, random: &ChaCha8Rng, pool: &Pool) -> Vec<f32> {
    // Words below this bound are dropped.
    let bound = (dropped * 4_294_967_296.0) as u64;
    draw(len, random, pool, |word| if u64::from(word) < bound { 0.0 } else { kept })
}

/// The values of the first `len` words that `random` gives, on all threads: each goes to the place of its words.
pub(super) fn draw(len: usize, random: &ChaCha8Rng, pool: &Pool, value: impl Fn(u32) -> f32 + Sync) -> Vec<f32> {
    let mut drawn = vec![0.0; len];
    pool.for_each_chunk_mut(&mut drawn, CHUNK, |i, drawn| {
        let mut random = random.clone();
        random.set_word_pos((i * CHUNK) as u128);
        drawn.fill_with(|| value(random.next_u32()));
    });
    drawn
}

/// The product with a mask, on the tape.
struct Masked {
    mask: Vec<f32>,
    pool: Arc<Pool>,
}

impl Masked {
    fn times_mask(&self, values: &[f32]) -> Vec<f32> {
        let mut products = vec![0.0; values.len()];
        self.pool.for_each_chunk_mut(&mut products, CHUNK, |i, products| {
            let factors = values[i * CHUNK..].iter().zip(&self.mask[i * CHUNK..]);
            products.iter_mut().zip(factors).for_each(|(product, (value, mask))| *product = value * mask);
        });
        products
    }
}

impl CustomOp1 for Masked {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.times_mask(values(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let below = with_values(&gradient.contiguous()?, |d| Ok(self.times_mask(d)))?;
        Ok(Some(Tensor::from_vec(below, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn builder(threads: usize) -> Builder {
        Builder::on_cpu(Arc::new(Pool::new(threads)), Seed(3))
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// No zeros among them.
    fn some(shape: (usize, usize)) -> Tensor {
        let values = (0..shape.0 * shape.1).map(|i| (i as f32 * 0.7).sin() + 2.0).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn values_and_gradient_are_dropped_alike_and_the_others_scaled() {
        for rate in [0.1, 0.5, 0.9] {
            let layer = Dropout::new("a", rate, &builder(2)).unwrap();
            let x = some((70, 1001));
            let variable = Var::from_tensor(&x).unwrap();
            let y = layer.forward_t(&variable, true).unwrap();
            let weights = some((70, 1001));
            // By candle's own product with the mask.
            let mask: Vec<f32> =
                flat(&y).iter().map(|&y| if y == 0.0 { 0.0 } else { (1.0 / (1.0 - rate)) as f32 }).collect();
            let mask = Tensor::from_vec(mask, (70, 1001), &Device::Cpu).unwrap();
            let twin = Var::from_tensor(&x).unwrap();
            let expected = (twin.as_tensor() * mask).unwrap();
            assert_eq!(flat(&y), flat(&expected));
            let loss = |y: Tensor| (y.sqr()? * &weights)?.sum_all()?.backward();
            let (ours, theirs) = (loss(y).unwrap(), loss(expected.clone()).unwrap());
            assert_eq!(flat(ours.get(&variable).unwrap()), flat(theirs.get(&twin).unwrap()));
            let dropped = flat(&expected).iter().filter(|&&y| y == 0.0).count() as f64;
            let n = 70.0 * 1001.0;
            // Four standard deviations.
            assert!((dropped - rate * n).abs() < 4.0 * (n * rate * (1.0 - rate)).sqrt(), "{rate} {dropped}");
        }
    }

    #[test]
    fn draws_depend_on_seed_name_and_step_and_not_on_threads() {
        let x = some((3, CHUNK));
        let of = |builder: &Builder, name| {
            let layer = Dropout::new(name, 0.5, builder).unwrap();
            flat(&layer.forward_t(&x, true).unwrap())
        };
        let here = builder(1);
        let first = of(&here, "a");
        assert_eq!(of(&here, "a"), first);
        assert_eq!(of(&builder(3), "a"), first);
        assert_ne!(of(&here, "b"), first);
        assert_ne!(of(&Builder::on_cpu(Arc::new(Pool::new(1)), Seed(4)), "a"), first);
        here.clock.set(7);
        let seventh = of(&here, "a");
        assert_ne!(seventh, first);
        // Another process that goes on from step 7.
        let resumed = builder(2);
        resumed.clock.set(7);
        assert_eq!(of(&resumed, "a"), seventh);
    }

    /// Drawn in chunks as all at once.
    #[test]
    fn words_go_to_their_places() {
        let mut random = Clock::default().random(Seed(1), "a");
        let drawn = draw(2 * CHUNK + 3, &random, &Pool::new(2), |word| word as f32);
        assert_eq!(drawn, (0..2 * CHUNK + 3).map(|_| random.next_u32() as f32).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_dropped_in_evaluation_or_at_rate_zero() {
        let x = some((5, 6));
        assert_eq!(flat(&Dropout::new("a", 0.0, &builder(1)).unwrap().forward_t(&x, true).unwrap()), flat(&x));
        assert_eq!(flat(&Dropout::new("a", 0.9, &builder(1)).unwrap().forward_t(&x, false).unwrap()), flat(&x));
        for rate in [1.0, -0.1, f64::NAN] {
            let said = Dropout::new("a", rate, &builder(1)).unwrap_err().to_string();
            assert!(said.contains("at least 0 and below 1"), "{said}");
        }
    }
}
