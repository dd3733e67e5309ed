//! The reconstruction error with a weight for each feature.

use crate::kernel::Matrix;
use crate::kernel::dense::weighted_squared_error;

/// The clustering-weighted mean squared error (Lu and Li 2021, equation 4): `sum_i w_i (y_i - x_i)^2 / n` for a row x
/// of n features and its reconstruction y, and the mean of that over rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WeightedMse {
    /// A weight per feature; empty for the plain mean squared error, whose weights are all 1.
    pub weights: Vec<f32>,
}

impl WeightedMse {
    /// The sum over the rows of a pass of each row's error, and into `gradient` the derivative of `factor` times the
    /// mean over `batch_rows` rows with respect to the reconstruction.
    ///
    /// ```
    /// use dacpipe::kernel::Matrix;
    /// use dacpipe::loss::WeightedMse;
    /// let matrix = |values: &[f32]| {
    ///     let mut m = Matrix::zeros(1, 2);
    ///     m.copy_from(values);
    ///     m
    /// };
    /// let (input, output, mut gradient) = (matrix(&[0.0, 1.0]), matrix(&[1.0, 3.0]), matrix(&[0.0, 0.0]));
    /// let loss = WeightedMse { weights: vec![1.0, 0.5] };
    /// assert_eq!(loss.sum_and_gradient(&input, &output, 1, 1.0, &mut gradient), (1.0 + 0.5 * 4.0) / 2.0);
    /// assert_eq!(gradient.row(0), [1.0, 1.0]);
    /// ```
    pub fn sum_and_gradient(
        &self,
        input: &Matrix,
        output: &Matrix,
        batch_rows: usize,
        factor: f64,
        gradient: &mut Matrix,
    ) -> f64 {
        let n = input.columns() as f64;
        let scale = (factor / (n * batch_rows as f64)) as f32;
        (0..input.rows())
            .map(|i| weighted_squared_error(input.row(i), output.row(i), &self.weights, scale, gradient.row_mut(i)))
            .sum::<f64>()
            / n
    }
}
