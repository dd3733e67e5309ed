//! The dense layer over tensors.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::super::architecture::Activation;
use super::super::parameter::Parameter;
use super::{Formula, activate, slope};

pub(in super::super) struct Dense {
    pub weight: Arc<Parameter>,
    pub bias: Arc<Parameter>,
    pub activation: Activation,
    /// Whether the gradient at the input is wanted.
    pub wanted: bool,
}

/// `activation(sums + bias)`, of sums that nothing else looks at.
fn bias_activation(sums: Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if sums.device().is_cuda() {
        return crate::cuda::tensors::bias_activation(sums, bias, activation.number());
    }
    activate(&sums.broadcast_add(bias)?, activation)
}

/// The gradient before the activation, and its sum over the rows.
fn through_activation(outputs: &Tensor, gradient: &Tensor, activation: Activation) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if outputs.device().is_cuda() {
        return crate::cuda::tensors::activation_gradient(outputs, gradient, activation.number());
    }
    let d = slope(outputs, gradient, activation)?;
    let sums = d.sum(0)?;
    Ok((d, sums))
}

impl Formula for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.value().detach();
        let ((_, dim), (_, inputs)) = (x.dims2()?, weight.dims2()?);
        if dim != inputs {
            bail!("a dense layer of {inputs} inputs is given rows of {dim} values");
        }
        bias_activation(x.matmul(&weight.t()?)?, &self.bias.value().detach(), self.activation)
    }

    fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (d, sums) = through_activation(result, &gradient.contiguous()?, self.activation)?;
        self.bias.accumulate_tensor(&sums)?;
        self.weight.accumulate_tensor(&d.t()?.matmul(x)?)?;
        self.wanted.then(|| d.matmul(&self.weight.value().detach())).transpose()
    }

    fn anchor(&self) -> Option<&Arc<Parameter>> {
        Some(&self.weight)
    }
}
