//! Adam in one pass over parameters and moments.

use super::isa::vectorised;

/// Adam's constants (Kingma and Ba 2015, algorithm 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the mean of the gradients.
    pub beta1: f32,
    /// Decay of the mean of the squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay (AdamW: Loshchilov and Hutter 2019): a step takes this part of the parameter from it, times
    /// the learning rate, and the moments know nothing of it.
    pub weight_decay: f32,
}

impl Default for Adam {
    /// 0.9, 0.999 and 1e-8, as the paper has them, and no weight decay.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

impl Adam {
    /// What step number `step` (from 1 on) does with the learning rate given, and with a penalty whose gradient is
    /// `l2` times the parameter.
    pub fn step(&self, step: u64, learning_rate: f64, l2: f64) -> AdamStep {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        AdamStep {
            adam: *self,
            rate: (learning_rate / power(self.beta1)) as f32,
            root_scale: (1.0 / power(self.beta2).sqrt()) as f32,
            l2: l2 as f32,
            decay: (learning_rate * f64::from(self.weight_decay)) as f32,
        }
    }
}

/// One step of Adam, with the corrections for its number worked out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    adam: Adam,
    /// Learning rate over the correction of the first moment.
    rate: f32,
    /// One over the root of the correction of the second moment.
    root_scale: f32,
    /// Factor of the parameter in the gradient of the penalty.
    l2: f32,
    /// The part of the parameter that decays.
    decay: f32,
}

impl AdamStep {
    /// Moves `parameters` against `gradient` and updates the moments; all of one length.
    ///
    /// ```
    /// use dacpipe_kernel::adam::Adam;
    /// let (mut parameter, mut first, mut second) = ([1.0], [0.0], [0.0]);
    /// Adam::default().step(1, 0.1, 0.0).apply(&mut parameter, &[5.0], &mut first, &mut second);
    /// // The first step has the size of the learning rate, whatever the gradient.
    /// assert!((parameter[0] - 0.9).abs() < 1e-6);
    /// ```
    pub fn apply(&self, parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        adam_step(self, parameters, gradient, first, second);
    }
}

vectorised! {
    fn adam_step(step: &AdamStep, parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let AdamStep { adam: Adam { beta1, beta2, epsilon, .. }, rate, root_scale, l2, decay } = *step;
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((parameter, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            let g = l2.mul_add(*parameter, g);
            *m = beta1.mul_add(*m, (1.0 - beta1) * g);
            *v = beta2.mul_add(*v, (1.0 - beta2) * g * g);
            // Together, because a decay alone may be less than the parameter's last bit. Without decay this adds a zero.
            *parameter -= decay.mul_add(*parameter, rate * *m / v.sqrt().mul_add(root_scale, epsilon));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;
    use proptest::prelude::*;

    proptest! {
        /// Zeros, denormals and huge values too: where a squared gradient overflows, its parameter stays and is a number.
        #[test]
        fn every_instruction_set_gives_the_bits_of_one_parameter_at_a_time(
            inputs in prop::collection::vec(
                (-2.0f32..2.0, prop_oneof![-1.0f32..1.0, prop::sample::select(vec![0.0, 1e-40, -1e-30, 1e18, -1e30])]),
                1..70,
            ),
            l2 in prop_oneof![Just(0.0), Just(1e-2)],
            weight_decay in prop_oneof![Just(0.0), Just(1e-2)],
        ) {
            let start: Vec<f32> = inputs.iter().map(|i| i.0).collect();
            let gradient: Vec<f32> = inputs.iter().map(|i| i.1).collect();
            let adam = Adam { weight_decay, ..Adam::default() };
            let steps: Vec<AdamStep> = (1..4).map(|t| adam.step(t, 0.01, l2)).collect();
            let one = |mut theta: f32, g: f32| {
                let (mut m, mut v) = (0.0f32, 0.0f32);
                for s in &steps {
                    let g = s.l2.mul_add(theta, g);
                    m = s.adam.beta1.mul_add(m, (1.0 - s.adam.beta1) * g);
                    v = s.adam.beta2.mul_add(v, (1.0 - s.adam.beta2) * g * g);
                    let moved = s.rate * m / v.sqrt().mul_add(s.root_scale, s.adam.epsilon);
                    theta -= if weight_decay == 0.0 { moved } else { s.decay.mul_add(theta, moved) };
                }
                [theta, m, v].map(f32::to_bits)
            };
            on_each(|isa| {
                let mut theta = start.clone();
                let (mut m, mut v) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
                steps.iter().for_each(|step| step.apply(&mut theta, &gradient, &mut m, &mut v));
                for (i, ((&theta, &m), &v)) in theta.iter().zip(&m).zip(&v).enumerate() {
                    assert_eq!([theta, m, v].map(f32::to_bits), one(start[i], gradient[i]), "{isa:?} {i}");
                    let stays = theta == start[i] || weight_decay > 0.0;
                    assert!(theta.is_finite() && (stays || gradient[i].abs() < 1e30), "{isa:?} {i}");
                }
            });
        }
    }

    #[test]
    fn equals_the_paper_s_algorithm_in_double_precision() {
        for weight_decay in [0.0, 0.3] {
            let (mut theta, mut m, mut v) = (vec![0.5_f32; 37], vec![0.0; 37], vec![0.0; 37]);
            let mut twin = vec![(0.5_f64, 0.0_f64, 0.0_f64); 37];
            let (rate, l2) = (0.003, 2e-2);
            let adam = Adam { weight_decay, ..Adam::default() };
            for t in 1..=50_u64 {
                let gradient: Vec<f32> = (0..37).map(|i| ((t as f32) * 0.37 + i as f32).sin()).collect();
                adam.step(t, rate, l2).apply(&mut theta, &gradient, &mut m, &mut v);
                for (s, &g) in twin.iter_mut().zip(&gradient) {
                    let g = f64::from(g) + l2 * s.0;
                    s.1 = 0.9 * s.1 + 0.1 * g;
                    s.2 = 0.999 * s.2 + 0.001 * g * g;
                    let (m_hat, v_hat) = (s.1 / (1.0 - 0.9_f64.powf(t as f64)), s.2 / (1.0 - 0.999_f64.powf(t as f64)));
                    s.0 *= 1.0 - rate * f64::from(weight_decay);
                    s.0 -= rate * m_hat / (v_hat.sqrt() + 1e-8);
                }
            }
            for (ours, s) in theta.iter().zip(&twin) {
                assert!((f64::from(*ours) - s.0).abs() < 2e-6, "{ours} {}", s.0);
            }
        }
    }

    #[test]
    fn a_zero_gradient_moves_nothing() {
        let (mut theta, mut m, mut v) = ([0.25], [0.0], [0.0]);
        Adam::default().step(1, 0.1, 0.0).apply(&mut theta, &[0.0], &mut m, &mut v);
        assert_eq!((theta, m, v), ([0.25], [0.0], [0.0]));
    }
}
