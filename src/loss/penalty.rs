//! The penalty on large parameters.

use crate::kernel::Pool;
use crate::kernel::dense::{sum_of_squares, sum_of_squares_on};

/// What the factor of the penalty multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PenaltyForm {
    /// The L2 norm of all weights and biases, as in equation 6 of Lu and Li 2021: its gradient at a parameter is the
    /// factor times the parameter over the norm.
    #[default]
    Norm,
    /// Its square: its gradient is twice the factor times the parameter, like PyTorch's `weight_decay` of twice the
    /// factor.
    Squared,
}

/// `beta` times the L2 norm of all weights and biases, or times its square (Lu and Li 2021, equation 6).
///
/// The form matters. Feature weights make the reconstruction error small (about 0.01 on MNIST), while the squared norm
/// of a new network is over 1000: with `beta` 1e-5 its square outweighs the error, and Adam drives every weight to zero
/// until all rows have the same embedding. The norm itself is small enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct L2Penalty {
    /// The factor; 1e-5 in the paper.
    pub beta: f64,
    /// What it multiplies.
    pub form: PenaltyForm,
}

impl L2Penalty {
    /// Its value, summed in `f64`.
    ///
    /// ```
    /// use dacpipe::loss::{L2Penalty, PenaltyForm};
    /// let parameters = [3.0, -4.0];
    /// assert_eq!(L2Penalty { beta: 0.5, form: PenaltyForm::Norm }.value(&parameters), 2.5);
    /// assert_eq!(L2Penalty { beta: 0.5, form: PenaltyForm::Squared }.value(&parameters), 12.5);
    /// ```
    pub fn value(&self, parameters: &[f32]) -> f64 {
        let squares = sum_of_squares(parameters);
        match self.form {
            PenaltyForm::Norm => self.beta * squares.sqrt(),
            PenaltyForm::Squared => self.beta * squares,
        }
    }

    /// The weight decay: the factor of a parameter that gives the penalty's gradient, for the current parameters. The
    /// norm is summed on the pool's threads, with the same bits on any number of them.
    ///
    /// ```
    /// use dacpipe::kernel::Pool;
    /// use dacpipe::loss::{L2Penalty, PenaltyForm};
    /// let (parameters, pool) = ([3.0, -4.0], Pool::new(1));
    /// assert_eq!(L2Penalty { beta: 0.5, form: PenaltyForm::Norm }.weight_decay(&parameters, &pool), 0.1);
    /// assert_eq!(L2Penalty { beta: 0.5, form: PenaltyForm::Squared }.weight_decay(&parameters, &pool), 1.0);
    /// ```
    pub fn weight_decay(&self, parameters: &[f32], pool: &Pool) -> f64 {
        match self.form {
            PenaltyForm::Norm if self.beta != 0.0 => self.weight_decay_of(sum_of_squares_on(pool, parameters)),
            _ => self.weight_decay_of(0.0),
        }
    }

    /// The same for parameters whose squares have this sum; it matters for the norm only.
    pub fn weight_decay_of(&self, squares: f64) -> f64 {
        match self.form {
            PenaltyForm::Squared => 2.0 * self.beta,
            PenaltyForm::Norm if squares == 0.0 => 0.0,
            PenaltyForm::Norm => self.beta / squares.sqrt(),
        }
    }
}
