//! The penalty on large parameters.

use crate::kernel::dense::sum_of_squares;

/// `beta` times the sum of the squares of all weights and biases (Lu and Li 2021, equation 6).
///
/// Its gradient is `2 beta` times the parameter, so it is PyTorch's `weight_decay` of `2 beta`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct L2Penalty {
    /// The factor; 1e-5 in the paper.
    pub beta: f64,
}

impl L2Penalty {
    /// Its value, summed in `f64`.
    ///
    /// ```
    /// let penalty = dacpipe::loss::L2Penalty { beta: 0.5 };
    /// assert_eq!(penalty.value(&[1.0, -2.0]), 2.5);
    /// ```
    pub fn value(&self, parameters: &[f32]) -> f64 {
        self.beta * sum_of_squares(parameters)
    }
}
