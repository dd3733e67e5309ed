//! Activation functions over slices, and the step back through them.
//!
//! `tanh`, `sigmoid`, `elu` and `softplus` are within 2.5e-7 of the exact value, relative to it, as long as that is a
//! normal number (tested against `f64`). They use nothing but IEEE operations, so every instruction set gives the same
//! bits.

use super::isa::vectorised;

/// The slope of the leaky ReLU below zero, PyTorch's default.
const LEAK: f32 = 0.01;
/// 1.5 * 2^23: adding it rounds a small number to an integer, which then stands in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;
/// The logarithm of 2 in two parts: the first has zeros in its lowest bits, so that multiples of it are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `e^y` as (2^n, e^r - 1) with `y = n ln 2 + r` and `|r|` at most `ln 2 / 2`, for `|y|` at most 87.
///
/// The polynomial is the Taylor series; what is left out is below 1.5e-8 of `r`.
#[inline(always)]
fn exponential_parts(y: f32) -> (f32, f32) {
    let shifted = y.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, y));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    let tail = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let series = tail.into_iter().fold(1.0 / 5040.0, |sum: f32, c| sum.mul_add(r, c));
    (power, (series * r).mul_add(r, r))
}

/// The hyperbolic tangent, from `e^{2|x|} - 1`, which loses nothing near zero.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let twice = 2.0 * x.abs();
    // From 30 on the result rounds to 1. Written so that NaN stays NaN.
    let twice = if twice > 30.0 { 30.0 } else { twice };
    let (power, series) = exponential_parts(twice);
    let less_one = power.mul_add(series, power - 1.0);
    (less_one / (less_one + 2.0)).copysign(x)
}

/// The logistic function `1 / (1 + e^{-x})`; below -87, where it leaves the normal numbers, its value at -87.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let y = -x;
    let y = if y > 87.0 { 87.0 } else { y };
    let y = if y < -87.0 { -87.0 } else { y };
    let (power, series) = exponential_parts(y);
    1.0 / (1.0 + power.mul_add(series, power))
}

/// `e^x - 1` for `x` of zero or less, which loses nothing near zero. From -30 on, where it rounds to -1, its value at -30.
#[inline(always)]
fn exponential_less_one(x: f32) -> f32 {
    let x = if x < -30.0 { -30.0 } else { x };
    let (power, series) = exponential_parts(x);
    power.mul_add(series, power - 1.0)
}

/// The exponential linear unit: `x` above zero, `e^x - 1` below.
#[inline(always)]
fn elu(x: f32) -> f32 {
    let negative = exponential_less_one(if x > 0.0 { 0.0 } else { x });
    if x > 0.0 { x } else { negative }
}

/// `ln(1 + e^x)`, as `max(0, x) + ln(1 + e^{-|x|})`. Below -87, where it leaves the normal numbers, 0.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    let y = -x.abs();
    let (power, series) = exponential_parts(if y < -87.0 { -87.0 } else { y });
    let e = if y < -87.0 { 0.0 } else { power.mul_add(series, power) };
    // ln(1 + e) is twice the inverse hyperbolic tangent of s, which is at most a third. What the series of that leaves
    // out is below 2e-9 of it.
    let s = e / (2.0 + e);
    let z = s * s;
    let tail = [13.0, 11.0, 9.0, 7.0, 5.0, 3.0].map(|n: f32| 1.0 / n);
    let sum = tail.into_iter().fold(1.0 / 15.0, |sum: f32, c| sum.mul_add(z, c));
    let twice = 2.0 * s;
    (sum * z).mul_add(twice, twice) + if x > 0.0 { x } else { 0.0 }
}

vectorised! {
    /// Replaces every value by `max(0, value)`; NaN stays NaN.
    pub fn relu_in_place(values: &mut [f32]) {
        for v in values {
            *v = if *v < 0.0 { 0.0 } else { *v };
        }
    }
}

vectorised! {
    /// Replaces every value by its hyperbolic tangent.
    ///
    /// ```
    /// let mut values = [0.0, 1.0, -100.0];
    /// dacpipe_kernel::activation::tanh_in_place(&mut values);
    /// assert_eq!(values[0], 0.0);
    /// assert!((values[1] - 0.761_594_2).abs() < 2e-7);
    /// assert_eq!(values[2], -1.0);
    /// ```
    pub fn tanh_in_place(values: &mut [f32]) {
        for v in values {
            *v = tanh(*v);
        }
    }
}

vectorised! {
    /// Replaces every value by the logistic function of it.
    ///
    /// ```
    /// let mut values = [0.0, 2.0, -2.0];
    /// dacpipe_kernel::activation::sigmoid_in_place(&mut values);
    /// assert_eq!(values[0], 0.5);
    /// assert!((values[1] + values[2] - 1.0).abs() < 1e-7);
    /// ```
    pub fn sigmoid_in_place(values: &mut [f32]) {
        for v in values {
            *v = sigmoid(*v);
        }
    }
}

vectorised! {
    /// Replaces every value below zero by a hundredth of it.
    ///
    /// ```
    /// let mut values = [3.0, -2.0];
    /// dacpipe_kernel::activation::leaky_relu_in_place(&mut values);
    /// assert_eq!(values, [3.0, -0.02]);
    /// ```
    pub fn leaky_relu_in_place(values: &mut [f32]) {
        for v in values {
            *v = if *v < 0.0 { LEAK * *v } else { *v };
        }
    }
}

vectorised! {
    /// Replaces every value `x` below zero by `e^x - 1`.
    ///
    /// ```
    /// let mut values = [3.0, -1.0, -1e-8, -100.0];
    /// dacpipe_kernel::activation::elu_in_place(&mut values);
    /// assert!((values[1] + 0.632_120_56).abs() < 2e-7);
    /// assert_eq!([values[0], values[2], values[3]], [3.0, -1e-8, -1.0]);
    /// ```
    pub fn elu_in_place(values: &mut [f32]) {
        for v in values {
            *v = elu(*v);
        }
    }
}

vectorised! {
    /// Replaces every value `x` by `ln(1 + e^x)`.
    ///
    /// ```
    /// let mut values = [0.0, 100.0, -20.0];
    /// dacpipe_kernel::activation::softplus_in_place(&mut values);
    /// assert!((values[0] - std::f32::consts::LN_2).abs() < 1e-7);
    /// assert_eq!(values[1], 100.0);
    /// assert!((values[2] - 2.061_153_6e-9).abs() < 1e-15);
    /// ```
    pub fn softplus_in_place(values: &mut [f32]) {
        for v in values {
            *v = softplus(*v);
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of a ReLU by its derivative, which is 1 where the output is positive.
    pub fn relu_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g = if y > 0.0 { *g } else { 0.0 };
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of a tanh by its derivative `1 - y^2`.
    pub fn tanh_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g *= (-y).mul_add(y, 1.0);
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of a logistic function by its derivative `y (1 - y)`.
    pub fn sigmoid_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g *= y * (1.0 - y);
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of a leaky ReLU by its derivative, which is 1 where the output is positive
    /// and a hundredth elsewhere.
    pub fn leaky_relu_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g = if y > 0.0 { *g } else { LEAK * *g };
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of an ELU by its derivative, which is 1 where the output is positive and
    /// `e^x = y + 1` elsewhere.
    pub fn elu_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g *= if y > 0.0 { 1.0 } else { y + 1.0 };
        }
    }
}

vectorised! {
    /// Multiplies the gradient at the outputs of a softplus by its derivative, the logistic function of the input:
    /// `1 - e^{-y}`.
    pub fn softplus_gradient(outputs: &[f32], gradient: &mut [f32]) {
        for (g, &y) in gradient.iter_mut().zip(outputs) {
            *g *= -exponential_less_one(-y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::on_each;

    /// Numbers of all magnitudes and both signs.
    fn spread() -> impl Iterator<Item = f32> {
        let magnitudes = (1..0x7f80_0000_u32).step_by(12_347).map(f32::from_bits);
        magnitudes.chain([0.0, f32::MAX, f32::MIN_POSITIVE, 86.9, 87.0, 15.0]).flat_map(|x| [x, -x])
    }

    fn worst(function: fn(&mut [f32]), exact: fn(f64) -> f64, from: f32) -> f64 {
        let inputs: Vec<f32> = spread().filter(|&x| x >= from).collect();
        let mut outputs = inputs.clone();
        function(&mut outputs);
        let error = |(&x, &y): (&f32, &f32)| {
            let e = exact(f64::from(x));
            if e == f64::from(y) { 0.0 } else { (f64::from(y) - e).abs() / e.abs() }
        };
        inputs.iter().zip(&outputs).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn tanh_and_sigmoid_are_accurate_everywhere() {
        let (t, s) =
            (worst(tanh_in_place, f64::tanh, f32::MIN), worst(sigmoid_in_place, |x| 1.0 / (1.0 + (-x).exp()), -87.0));
        assert!(t < 2.5e-7, "tanh {t:e}");
        assert!(s < 2.5e-7, "sigmoid {s:e}");
    }

    #[test]
    fn elu_and_softplus_are_accurate_everywhere() {
        let exact_elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
        let exact_softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let (e, s) = (worst(elu_in_place, exact_elu, f32::MIN), worst(softplus_in_place, exact_softplus, -87.0));
        assert!(e < 2.5e-7, "elu {e:e}");
        assert!(s < 2.5e-7, "softplus {s:e}");
        // Where series and powers meet, values lie closer than in the test above.
        let near: Vec<f32> = (-400_000..=400_000).map(|i| i as f32 * 1e-5).collect();
        for (function, exact) in
            [(elu_in_place as fn(&mut [f32]), &exact_elu as &dyn Fn(f64) -> f64), (softplus_in_place, &exact_softplus)]
        {
            let mut outputs = near.clone();
            function(&mut outputs);
            for (&x, &y) in near.iter().zip(&outputs) {
                let e = exact(f64::from(x));
                assert!((f64::from(y) - e).abs() <= 2.5e-7 * e.abs(), "{x} {y} {e}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_one_value_at_a_time() {
        /// A kernel beside the same on one value.
        type Function = (fn(&mut [f32]), fn(f32) -> f32);
        type Gradient = (fn(&[f32], &mut [f32]), fn(f32, f32) -> f32);
        let inputs: Vec<f32> = spread().step_by(37).collect();
        let relu = |x: f32| if x < 0.0 { 0.0 } else { x };
        let functions: [Function; 6] = [
            (tanh_in_place, tanh),
            (sigmoid_in_place, sigmoid),
            (relu_in_place, relu),
            (leaky_relu_in_place, |x| if x < 0.0 { LEAK * x } else { x }),
            (elu_in_place, elu),
            (softplus_in_place, softplus),
        ];
        let gradients: [Gradient; 6] = [
            (tanh_gradient, |y, g| g * (-y).mul_add(y, 1.0)),
            (sigmoid_gradient, |y, g| g * (y * (1.0 - y))),
            (relu_gradient, |y, g| if y > 0.0 { g } else { 0.0 }),
            (leaky_relu_gradient, |y, g| if y > 0.0 { g } else { LEAK * g }),
            (elu_gradient, |y, g| g * if y > 0.0 { 1.0 } else { y + 1.0 }),
            (softplus_gradient, |y, g| g * -exponential_less_one(-y)),
        ];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        on_each(|isa| {
            // All lengths about the width of a vector, and one long one.
            for len in (0..35).chain([inputs.len()]) {
                let inputs = &inputs[inputs.len() - len..];
                for (function, one) in functions {
                    let mut outputs = inputs.to_vec();
                    function(&mut outputs);
                    assert!(inputs.iter().zip(&outputs).all(|(&x, &y)| same(one(x), y)), "{isa:?} {len}");
                }
                for (gradient, one) in gradients {
                    let mut slopes: Vec<f32> = inputs.iter().rev().copied().collect();
                    gradient(inputs, &mut slopes);
                    let twin = inputs.iter().zip(inputs.iter().rev()).map(|(&y, &g)| one(y, g));
                    assert!(twin.zip(&slopes).all(|(a, &b)| same(a, b)), "{isa:?} {len}");
                }
            }
        });
    }

    #[test]
    fn nan_stays_and_infinities_saturate() {
        let mut values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        tanh_in_place(&mut values);
        assert!(values[0].is_nan() && values[1..] == [1.0, -1.0]);
        let mut values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        sigmoid_in_place(&mut values);
        assert!(values[0].is_nan() && values[1] == 1.0 && values[2] < 1.7e-38);
        let mut values = [f32::NAN, -3.0, 4.0];
        relu_in_place(&mut values);
        assert!(values[0].is_nan() && values[1..] == [0.0, 4.0]);
        let mut values = [f32::NAN, -3.0, 4.0, f32::INFINITY, f32::NEG_INFINITY];
        leaky_relu_in_place(&mut values);
        assert!(values[0].is_nan() && values[1..] == [-0.03, 4.0, f32::INFINITY, f32::NEG_INFINITY]);
        let mut values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        elu_in_place(&mut values);
        assert!(values[0].is_nan() && values[1..] == [f32::INFINITY, -1.0, f32::MAX, -1.0]);
        let mut values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
        softplus_in_place(&mut values);
        assert!(values[0].is_nan() && values[1..] == [f32::INFINITY, 0.0, f32::MAX, 0.0]);
    }

    #[test]
    fn gradients_equal_finite_differences() {
        type InPlace = fn(&mut [f32]);
        type Gradient = fn(&[f32], &mut [f32]);
        let pairs: [(InPlace, Gradient); 6] = [
            (relu_in_place, relu_gradient),
            (tanh_in_place, tanh_gradient),
            (sigmoid_in_place, sigmoid_gradient),
            (leaky_relu_in_place, leaky_relu_gradient),
            (elu_in_place, elu_gradient),
            (softplus_in_place, softplus_gradient),
        ];
        for (function, gradient) in pairs {
            for x in [-2.0_f32, -0.3, 0.4, 1.7] {
                let h = 1e-2;
                let (mut y, mut d) = ([x, x + h, x - h], [1.0]);
                function(&mut y);
                gradient(&y[..1], &mut d);
                assert!((d[0] - (y[1] - y[2]) / (2.0 * h)).abs() < 1e-4);
            }
        }
    }
}
