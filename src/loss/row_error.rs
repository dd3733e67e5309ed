//! How far each row is from its reconstruction, as one operation of candle's tape.
//!
//! The same as a formula over tensors takes a pass over all values for every term of it, forward and backward, and candle
//! runs them on threads of its own beside ours. On the CPU one kernel makes a row's error and its gradient together.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};

use super::ErrorMeasure;
use crate::kernel::cross_entropy::{EDGE, cross_entropy};
use crate::kernel::dense::weighted_squared_error;
use crate::network::{Coder, Operation, values, with_values};

/// The sum over the values of each row of `x` (`rows x dim`) of its error as rebuilt in `y`: `rows` values. `weights` (`dim`)
/// are what each value counts; none: all the same.
///
/// # Errors
/// Candle's, for shapes that differ.
pub(crate) fn row_errors(measure: ErrorMeasure, weights: Option<&Tensor>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match RowErrors::of(measure, weights, x)? {
        Some(errors) => y.contiguous()?.apply_op1(errors),
        None => formula(measure, weights, x, y),
    }
}

/// The same for what `coder` rebuilds from the embeddings `z` of the rows in training. On the CPU the errors are the end of
/// the decoder's operation: what was rebuilt does not go over the tape, which would add its gradient to zeros.
///
/// # Errors
/// As [`row_errors`].
pub(crate) fn decoded_row_errors(
    measure: ErrorMeasure,
    weights: Option<&Tensor>,
    x: &Tensor,
    coder: &Coder,
    z: &Tensor,
) -> Result<Tensor> {
    match RowErrors::of(measure, weights, x)? {
        Some(errors) => coder.decoder().forward_ending(z, Operation::Plain(Box::new(errors))),
        None => formula(measure, weights, x, &coder.decode(z, true)?),
    }
}

/// The same as a formula.
fn formula(measure: ErrorMeasure, weights: Option<&Tensor>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let errors = match measure {
        ErrorMeasure::Mse => (y - x)?.sqr()?,
        ErrorMeasure::Bce => {
            let edge = f64::from(EDGE);
            let inside = |y: Tensor| y.affine(1.0 - 2.0 * edge, edge);
            let (hit, miss) = ((x * inside(y.clone())?.log()?)?, ((1.0 - x)? * inside((1.0 - y)?)?.log()?)?);
            (hit + miss)?.neg()?
        }
    };
    match weights {
        Some(weights) => errors.broadcast_mul(weights)?.sum(D::Minus1),
        None => errors.sum(D::Minus1),
    }
}

/// The errors of rows as an operation on what was rebuilt of them.
struct RowErrors {
    measure: ErrorMeasure,
    /// The rows, in one piece.
    x: Tensor,
    /// What each value counts; empty for all the same.
    weights: Vec<f32>,
    /// The derivative of each row's error by its values, which forward leaves for backward.
    slopes: Mutex<Vec<f32>>,
}

impl RowErrors {
    /// The operation for `x`; none where the kernels cannot do it: on other devices, and where a gradient at `x` is wanted.
    fn of(measure: ErrorMeasure, weights: Option<&Tensor>, x: &Tensor) -> Result<Option<Self>> {
        if !x.device().is_cpu() || x.dtype() != DType::F32 || x.track_op() {
            return Ok(None);
        }
        let weights = match weights {
            Some(weights) => with_values(&weights.contiguous()?, |weights| Ok(weights.to_vec()))?,
            None => Vec::new(),
        };
        Ok(Some(Self { measure, x: x.contiguous()?, weights, slopes: Mutex::default() }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<f32>> {
        self.slopes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl CustomOp1 for RowErrors {
    fn name(&self) -> &'static str {
        "row errors"
    }

    fn cpu_fwd(&self, y: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, dim) = self.x.dims2()?;
        if layout.shape().elem_count() != rows * dim {
            bail!("rows {:?} were rebuilt as {:?}", self.x.shape(), layout.shape());
        }
        if !self.weights.is_empty() && self.weights.len() != dim {
            bail!("{} weights for rows of {dim} values", self.weights.len());
        }
        let of_row = match self.measure {
            ErrorMeasure::Mse => weighted_squared_error,
            ErrorMeasure::Bce => cross_entropy,
        };
        let (y, size) = (values(y, layout)?, dim.max(1));
        let mut slopes = vec![0.0; rows * dim];
        let mut errors = with_values(&self.x, |x| {
            let each = x.chunks_exact(size).zip(y.chunks_exact(size)).zip(slopes.chunks_exact_mut(size));
            Ok(each.map(|((x, y), slopes)| of_row(x, y, &self.weights, 1.0, slopes) as f32).collect::<Vec<f32>>())
        })?;
        errors.resize(rows, 0.0);
        *self.lock() = slopes;
        Ok((CpuStorage::F32(errors), Shape::from(rows)))
    }

    fn bwd(&self, y: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dim = self.x.dim(1)?;
        let slopes = self.lock();
        let below = with_values(&gradient.contiguous()?, |gradient| {
            let mut below = vec![0.0; slopes.len()];
            let rows = slopes.chunks_exact(dim.max(1)).zip(below.chunks_exact_mut(dim.max(1))).zip(gradient);
            rows.for_each(|((slopes, below), &g)| below.iter_mut().zip(slopes).for_each(|(b, slope)| *b = g * slope));
            Ok(below)
        })?;
        Ok(Some(Tensor::from_vec(below, y.shape(), y.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use candle_core::{Device, Var};

    use crate::Seed;
    use crate::kernel::Pool;
    use crate::network::{Activation, Builder, CoderSpec, Initialisation, LayerSpec, RowShape};

    #[test]
    fn errors_and_gradients_are_those_of_the_formula() {
        let (rows, dim) = (5, 37);
        let of = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..rows * dim).map(|i| f(i as f32)).collect();
            Tensor::from_vec(values, (rows, dim), &Device::Cpu).unwrap()
        };
        let x = of(|i| (0.3 * i).sin().abs());
        let y = Var::from_tensor(&of(|i| 0.01 + 0.98 * (0.7 * i).cos().abs())).unwrap();
        let weights = Tensor::arange(0.0f32, dim as f32, &Device::Cpu).unwrap();
        // Rows do not count alike in what is made of their errors.
        let shares = Tensor::arange(1.0f32, rows as f32 + 1.0, &Device::Cpu).unwrap();
        for measure in [ErrorMeasure::Mse, ErrorMeasure::Bce] {
            for weights in [None, Some(&weights)] {
                let both = [row_errors, formula].map(|of| {
                    let errors = of(measure, weights, &x, y.as_tensor()).unwrap();
                    let loss = (&errors * &shares).unwrap().sum_all().unwrap();
                    let gradients = loss.backward().unwrap();
                    // Going back twice gives the same.
                    let again = loss.backward().unwrap();
                    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    assert_eq!(flat(again.get(&y).unwrap()), flat(gradients.get(&y).unwrap()));
                    (flat(&errors), flat(gradients.get(&y).unwrap()))
                });
                let [(errors, slopes), (of_formula, by_tape)] = both;
                for (a, b) in errors.iter().zip(&of_formula).chain(slopes.iter().zip(&by_tape)) {
                    assert!((a - b).abs() <= 1e-4 * b.abs().max(1e-3), "{measure:?}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn errors_at_the_end_of_a_decoder_are_those_of_what_it_rebuilds() {
        let builder = Builder::on_cpu(Arc::new(Pool::new(2)), Seed(5));
        let layers = |outputs, activation| vec![LayerSpec::dense(outputs, activation)];
        let spec = CoderSpec {
            input: RowShape::flat(6),
            encoder: layers(2, Activation::Tanh),
            decoder: layers(6, Activation::Sigmoid),
            initialisation: Initialisation::Glorot,
        };
        let coder = Coder::new("", &spec, &builder).unwrap();
        let values: Vec<f32> = (0..30).map(|i| (0.3 * i as f32).sin().abs()).collect();
        let x = Tensor::from_vec(values, (5, 6), &Device::Cpu).unwrap();
        let both = [true, false].map(|together| {
            coder.parameters().iter().for_each(|(_, parameter)| parameter.forget_gradient());
            let z = coder.encode(&x, true).unwrap();
            let errors = match together {
                true => decoded_row_errors(ErrorMeasure::Bce, None, &x, &coder, &z),
                false => coder.decode(&z, true).and_then(|y| row_errors(ErrorMeasure::Bce, None, &x, &y)),
            };
            let errors = errors.unwrap();
            errors.mean_all().unwrap().backward().unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let gradients = coder.parameters().iter().map(|(_, p)| flat(p.gradient().unwrap())).collect::<Vec<_>>();
            (flat(&errors), gradients)
        });
        assert_eq!(both[0], both[1]);
        assert!(both[0].1.iter().all(|gradient| gradient.iter().any(|g| *g != 0.0)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let zeros = |dim: usize| Tensor::zeros((2, dim), DType::F32, &Device::Cpu).unwrap();
        let e = row_errors(ErrorMeasure::Mse, None, &zeros(3), &zeros(4)).unwrap_err();
        assert!(e.to_string().contains("rows [2, 3] were rebuilt as [2, 4]"), "{e}");
        let weights = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        let e = row_errors(ErrorMeasure::Bce, Some(&weights), &zeros(3), &zeros(3)).unwrap_err();
        assert!(e.to_string().contains("2 weights for rows of 3 values"), "{e}");
    }
}
