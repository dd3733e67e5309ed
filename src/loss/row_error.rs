//! How far each row is from its reconstruction, as one operation of candle's tape.
//!
//! The same as a formula over tensors takes a pass over all values for every term of it, forward and backward, and candle
//! runs them on threads of its own beside ours. On the CPU one kernel makes a row's error and its gradient together.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor, bail};

use super::ErrorMeasure;
use crate::kernel::cross_entropy::{EDGE, cross_entropy};
use crate::kernel::dense::weighted_squared_error;
use crate::network::{values, with_values};

/// The sum over the values of each row of `x` (`rows x dim`) of its error as rebuilt in `y`: `rows` values. `weights` (`dim`)
/// are what each value counts; none: all the same.
///
/// # Errors
/// Candle's, for shapes that differ.
pub(crate) fn row_errors(measure: ErrorMeasure, weights: Option<&Tensor>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    // The kernel has no gradient at `x`.
    if x.device().is_cpu() && x.dtype() == DType::F32 && !x.track_op() {
        let weights = match weights {
            Some(weights) => with_values(&weights.contiguous()?, |weights| Ok(weights.to_vec()))?,
            None => Vec::new(),
        };
        let op = RowErrors { measure, weights, slopes: Mutex::default() };
        return x.contiguous()?.apply_op2(&y.contiguous()?, op);
    }
    formula(measure, weights, x, y)
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

struct RowErrors {
    measure: ErrorMeasure,
    /// What each value counts; empty for all the same.
    weights: Vec<f32>,
    /// The derivative of each row's error by its values, which forward leaves for backward.
    slopes: Mutex<Vec<f32>>,
}

impl RowErrors {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<f32>> {
        self.slopes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl CustomOp2 for RowErrors {
    fn name(&self) -> &'static str {
        "row errors"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, dim) = x_layout.shape().dims2()?;
        if y_layout.shape() != x_layout.shape() {
            bail!("rows {:?} were rebuilt as {:?}", x_layout.shape(), y_layout.shape());
        }
        if !self.weights.is_empty() && self.weights.len() != dim {
            bail!("{} weights for rows of {dim} values", self.weights.len());
        }
        let (x, y) = (values(x, x_layout)?, values(y, y_layout)?);
        let mut slopes = vec![0.0; x.len()];
        let of_row = match self.measure {
            ErrorMeasure::Mse => weighted_squared_error,
            ErrorMeasure::Bce => cross_entropy,
        };
        let size = dim.max(1);
        let each = x.chunks_exact(size).zip(y.chunks_exact(size)).zip(slopes.chunks_exact_mut(size));
        let mut errors: Vec<f32> =
            each.map(|((x, y), slopes)| of_row(x, y, &self.weights, 1.0, slopes) as f32).collect();
        errors.resize(rows, 0.0);
        *self.lock() = slopes;
        Ok((CpuStorage::F32(errors), Shape::from(rows)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, dim) = x.dims2()?;
        let slopes = self.lock();
        let below = with_values(&gradient.contiguous()?, |gradient| {
            let rows = slopes.chunks_exact(dim.max(1)).zip(gradient);
            Ok(rows.flat_map(|(slopes, &g)| slopes.iter().map(move |slope| g * slope)).collect::<Vec<f32>>())
        })?;
        Ok((None, Some(Tensor::from_vec(below, (rows, dim), x.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

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
    fn what_does_not_fit_is_refused() {
        let zeros = |dim: usize| Tensor::zeros((2, dim), DType::F32, &Device::Cpu).unwrap();
        let e = row_errors(ErrorMeasure::Mse, None, &zeros(3), &zeros(4)).unwrap_err();
        assert!(e.to_string().contains("rows [2, 3] were rebuilt as [2, 4]"), "{e}");
        let weights = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        let e = row_errors(ErrorMeasure::Bce, Some(&weights), &zeros(3), &zeros(3)).unwrap_err();
        assert!(e.to_string().contains("2 weights for rows of 3 values"), "{e}");
    }
}
