//! Stochastic gradient descent with momentum, in one pass over parameters and velocities.

use super::isa::vectorised;

/// Momentum as PyTorch has it: the velocity is `v = momentum v + g`, and the step goes against `v`, or with Nesterov's
/// look ahead against `g + momentum v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// What is left of the velocity after a step.
    pub momentum: f32,
    /// Whether the step looks ahead.
    pub nesterov: bool,
}

impl Sgd {
    /// What a step does with the learning rate given, and with a penalty whose gradient is `l2` times the parameter.
    pub fn step(&self, learning_rate: f64, l2: f64) -> SgdStep {
        SgdStep { sgd: *self, rate: learning_rate as f32, l2: l2 as f32 }
    }
}

/// One step of gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    sgd: Sgd,
    rate: f32,
    /// Factor of the parameter in the gradient of the penalty.
    l2: f32,
}

impl SgdStep {
    /// Moves `parameters` against `gradient` and updates the velocity; all of one length. Without momentum the velocity
    /// is not looked at and may be empty.
    ///
    /// ```
    /// use dacpipe_kernel::sgd::Sgd;
    /// let (mut parameter, mut velocity) = ([1.0], [0.0]);
    /// let step = Sgd { momentum: 0.5, nesterov: false }.step(0.25, 0.0);
    /// step.apply(&mut parameter, &[1.0], &mut velocity);
    /// step.apply(&mut parameter, &[1.0], &mut velocity);
    /// // 1 - 0.25 - 0.25 * 1.5
    /// assert_eq!((parameter[0], velocity[0]), (0.375, 1.5));
    /// ```
    pub fn apply(&self, parameters: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
        match (self.sgd.momentum == 0.0, self.sgd.nesterov) {
            (true, _) => plain_step(self, parameters, gradient),
            (false, false) => momentum_step(self, parameters, gradient, velocity),
            (false, true) => nesterov_step(self, parameters, gradient, velocity),
        }
    }
}

vectorised! {
    fn plain_step(step: &SgdStep, parameters: &mut [f32], gradient: &[f32]) {
        let SgdStep { rate, l2, .. } = *step;
        for (parameter, &g) in parameters.iter_mut().zip(gradient) {
            *parameter -= rate * l2.mul_add(*parameter, g);
        }
    }
}

vectorised! {
    fn momentum_step(step: &SgdStep, parameters: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
        let SgdStep { sgd: Sgd { momentum, .. }, rate, l2 } = *step;
        for ((parameter, &g), v) in parameters.iter_mut().zip(gradient).zip(velocity) {
            // A velocity of zero becomes the gradient, which is PyTorch's first step.
            *v = momentum.mul_add(*v, l2.mul_add(*parameter, g));
            *parameter -= rate * *v;
        }
    }
}

vectorised! {
    fn nesterov_step(step: &SgdStep, parameters: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
        let SgdStep { sgd: Sgd { momentum, .. }, rate, l2 } = *step;
        for ((parameter, &g), v) in parameters.iter_mut().zip(gradient).zip(velocity) {
            let g = l2.mul_add(*parameter, g);
            *v = momentum.mul_add(*v, g);
            *parameter -= rate * momentum.mul_add(*v, g);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;

    const RULES: [Sgd; 4] = [
        Sgd { momentum: 0.0, nesterov: false },
        Sgd { momentum: 0.9, nesterov: false },
        Sgd { momentum: 0.9, nesterov: true },
        Sgd { momentum: 0.0, nesterov: true },
    ];

    fn gradient(step: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| (step as f32 * 0.37 + i as f32).sin()).collect()
    }

    fn after(rule: Sgd, l2: f64, steps: usize, len: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut theta, mut velocity) = (vec![0.5; len], vec![0.0; len]);
        (0..steps).for_each(|t| rule.step(0.05, l2).apply(&mut theta, &gradient(t, len), &mut velocity));
        (theta, velocity)
    }

    /// The algorithm of PyTorch's documentation of `torch.optim.SGD`, with dampening 0, in double precision.
    #[test]
    fn equals_pytorch_s_algorithm() {
        for rule in RULES {
            for l2 in [0.0, 0.01] {
                let (theta, _) = after(rule, l2, 30, 37);
                let momentum = f64::from(rule.momentum);
                for (i, ours) in theta.iter().enumerate() {
                    let (mut p, mut buffer) = (0.5, None);
                    for t in 0..30 {
                        let g = f64::from(gradient(t, 37)[i]) + l2 * p;
                        let step = if momentum == 0.0 {
                            g
                        } else {
                            let v = buffer.map_or(g, |b: f64| momentum * b + g);
                            buffer = Some(v);
                            if rule.nesterov { g + momentum * v } else { v }
                        };
                        p -= 0.05 * step;
                    }
                    assert!((f64::from(*ours) - p).abs() < 3e-6, "{rule:?} {l2} {i}: {ours} {p}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for rule in RULES {
            for len in (0..35).chain([100]) {
                let one_by_one: Vec<(f32, f32)> = (0..len)
                    .map(|i| {
                        let (mut theta, mut velocity) = ([0.5], [0.0]);
                        let step = rule.step(0.05, 0.01);
                        (0..3).for_each(|t| step.apply(&mut theta, &gradient(t, len)[i..=i], &mut velocity));
                        (theta[0], velocity[0])
                    })
                    .collect();
                on_each(|isa| {
                    let (theta, velocity) = after(rule, 0.01, 3, len);
                    assert_eq!(theta.into_iter().zip(velocity).collect::<Vec<_>>(), one_by_one, "{isa:?} {rule:?}");
                });
            }
        }
    }
}
