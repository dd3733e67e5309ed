//! The optimizer's rules as formulas over tensors, for parameters that do not lie on the CPU.

use candle_core::{Result, Tensor, Var, bail};

use super::optimizer::OptimizerSpec;

/// Step number `step` of a parameter: moves it against its gradient and updates its moments, as
/// [`kernel`](crate::kernel)'s rules do, in their order. On a CUDA device Adam is one kernel.
///
/// # Errors
/// Candle's.
pub(super) fn step(
    spec: &OptimizerSpec,
    (step, learning_rate, penalty): (u64, f64, f64),
    (parameter, gradient): (&Var, &Tensor),
    moments: &mut [Tensor],
) -> Result<()> {
    let value = parameter.as_detached_tensor();
    match (*spec, moments) {
        (OptimizerSpec::Adam { beta1, beta2, epsilon, weight_decay }, [first, second]) => {
            // The betas as the kernels have them.
            let [b1, b2] = [beta1, beta2].map(|beta| f64::from(beta as f32));
            let correction = |beta: f64| 1.0 - beta.powf(step as f64);
            let (rate, root_scale) = (learning_rate / correction(b1), 1.0 / correction(b2).sqrt());
            let decay = learning_rate * weight_decay;
            #[cfg(feature = "cuda")]
            if value.device().is_cuda() {
                let numbers = [b1, b2, epsilon, rate, root_scale, penalty, decay].map(|number| number as f32);
                return crate::cuda::tensors::adam([&value, gradient, first, second], numbers);
            }
            let g = with_l2(&value, gradient, penalty)?;
            *first = ((&*first * b1)? + (&g * (1.0 - b1))?)?;
            *second = ((&*second * b2)? + ((&g * (1.0 - b2))? * &g)?)?;
            let moved = ((&*first * rate)? / second.sqrt()?.affine(root_scale, epsilon)?)?;
            parameter.set(&(&value - with_l2(&value, &moved, decay)?)?)
        }
        (OptimizerSpec::Sgd { weight_decay, .. }, []) => {
            let g = with_l2(&value, gradient, penalty + weight_decay)?;
            parameter.set(&(&value - (g * learning_rate)?)?)
        }
        (OptimizerSpec::Sgd { momentum, nesterov, weight_decay }, [velocity]) => {
            let g = with_l2(&value, gradient, penalty + weight_decay)?;
            *velocity = ((&*velocity * momentum)? + &g)?;
            let moved = if nesterov { ((&*velocity * momentum)? + g)? } else { velocity.clone() };
            parameter.set(&(&value - (moved * learning_rate)?)?)
        }
        _ => bail!("moments of another rule"),
    }
}

/// `values + l2 * parameter`.
fn with_l2(parameter: &Tensor, values: &Tensor, l2: f64) -> Result<Tensor> {
    if l2 == 0.0 { Ok(values.clone()) } else { values + (parameter * l2)? }
}
