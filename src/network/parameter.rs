//! What a layer learns, and what it keeps beside that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Tensor, Var, bail};

use super::layer::with_values;
use crate::kernel::Pool;
use crate::kernel::dense::sum_of_squares_on;

/// An array that training changes, with room for its gradient.
///
/// The gradients of a network's own parameters do not go over candle's tape, which would allocate, clear and add up an
/// array for each in every step: a layer's backward adds to [`accumulate`](Self::accumulate) in place.
#[derive(Debug)]
pub struct Parameter {
    value: Var,
    gradient: Tensor,
    /// Whether the gradient is of this step; otherwise it counts as zeros.
    begun: AtomicBool,
}

impl Parameter {
    /// A parameter of these values, row-major.
    ///
    /// # Errors
    /// If there are not as many values as `shape` says, or the device has no room.
    pub fn new(values: Vec<f32>, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let value = Var::from_tensor(&Tensor::from_vec(values, shape, device)?)?;
        let gradient = value.as_tensor().zeros_like()?;
        Ok(Self { value, gradient, begun: AtomicBool::new(false) })
    }

    /// Its value, which the tape knows as a variable.
    pub fn value(&self) -> &Tensor {
        self.value.as_tensor()
    }

    /// The variable itself, for optimizers.
    pub fn variable(&self) -> &Var {
        &self.value
    }

    /// Its gradient, where a backward of this step has left one.
    pub fn gradient(&self) -> Option<&Tensor> {
        self.begun.load(Ordering::Relaxed).then_some(&self.gradient)
    }

    /// Forgets the gradient: what is accumulated next is the first.
    pub fn forget_gradient(&self) {
        self.begun.store(false, Ordering::Relaxed);
    }

    /// Lets `add` add to the gradient. It is told whether it is the first in this step, and must then overwrite what is
    /// there.
    ///
    /// # Errors
    /// For a parameter that does not lie on the CPU.
    pub fn accumulate(&self, add: impl Fn(&mut [f32], bool)) -> Result<()> {
        let first = !self.begun.swap(true, Ordering::Relaxed);
        self.gradient.inplace_op1(&OnSlice { change: &|values: &mut [f32]| add(values, first) })
    }

    /// The sum of the squares of all values of `parameters`, which lie on one device and are read from it once.
    ///
    /// # Errors
    /// Candle's.
    pub fn sum_of_squares(parameters: &[&Self], pool: &Pool) -> Result<f64> {
        match parameters.first() {
            None => Ok(0.0),
            Some(first) if first.value().device().is_cpu() => {
                let squares =
                    |parameter: &&Self| with_values(parameter.value(), |values| Ok(sum_of_squares_on(pool, values)));
                parameters.iter().map(squares).sum()
            }
            Some(_) => {
                let squares = |parameter: &&Self| parameter.value().detach().to_dtype(DType::F64)?.sqr()?.sum_all();
                let squares: Vec<Tensor> = parameters.iter().map(squares).collect::<Result<_>>()?;
                Tensor::stack(&squares, 0)?.sum_all()?.to_scalar()
            }
        }
    }

    /// Adds a tensor of its shape to the gradient.
    ///
    /// # Errors
    /// For a tensor of another shape or device.
    pub fn accumulate_tensor(&self, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.contiguous()?;
        match self.begun.swap(true, Ordering::Relaxed) {
            true => self.gradient.slice_set(&(&self.gradient + &gradient)?, 0, 0),
            false => self.gradient.slice_set(&gradient, 0, 0),
        }
    }

    /// Replaces its values by a tensor of the same shape.
    ///
    /// # Errors
    /// For a tensor of another shape.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        self.value.set(value)
    }
}

/// An array that training changes without a gradient, such as a running mean.
#[derive(Debug)]
pub struct Buffer(Mutex<Tensor>);

impl Buffer {
    /// A buffer that holds `value`.
    pub fn new(value: Tensor) -> Self {
        Self(Mutex::new(value))
    }

    /// What it holds.
    pub fn get(&self) -> Tensor {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub fn set(&self, value: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

/// Changes a tensor on the CPU in place.
struct OnSlice<'a> {
    change: &'a dyn Fn(&mut [f32]),
}

impl InplaceOp1 for OnSlice<'_> {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else { bail!("parameters are f32") };
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("parameters lie in one piece") };
        (self.change)(&mut values[start..end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_add_up_until_they_are_forgotten() {
        let parameter = Parameter::new(vec![1.0, 2.0], 2, &Device::Cpu).unwrap();
        assert!(parameter.gradient().is_none());
        let add = |by: f32| {
            parameter.accumulate(|values, first| {
                if first {
                    values.fill(0.0);
                }
                values.iter_mut().for_each(|v| *v += by);
            })
        };
        add(1.0).unwrap();
        parameter.accumulate_tensor(&Tensor::new(&[1.0f32, 3.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(parameter.gradient().unwrap().to_vec1::<f32>().unwrap(), [2.0, 4.0]);
        parameter.forget_gradient();
        assert!(parameter.gradient().is_none());
        add(0.5).unwrap();
        assert_eq!(parameter.gradient().unwrap().to_vec1::<f32>().unwrap(), [0.5, 0.5]);
        parameter.set(&Tensor::new(&[5.0f32, 6.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(parameter.value().to_vec1::<f32>().unwrap(), [5.0, 6.0]);
        assert!(parameter.set(&Tensor::new(&[5.0f32], &Device::Cpu).unwrap()).is_err());
        let other = Parameter::new(vec![2.0], 1, &Device::Cpu).unwrap();
        assert_eq!(Parameter::sum_of_squares(&[&parameter, &other], &Pool::new(2)).unwrap(), 25.0 + 36.0 + 4.0);
        assert_eq!(Parameter::sum_of_squares(&[], &Pool::new(1)).unwrap(), 0.0);
    }
}
