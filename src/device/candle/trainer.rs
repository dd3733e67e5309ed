//! One mini-batch on a candle device: forward and losses as formulas, backward by the tape, Adam over tensors.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::failed;
use super::layers::{dense, tensor};
use super::rows::DeviceRows;
use crate::device::{StepLoss, StepSettings, TrainerState};
use crate::kernel::Matrix;
use crate::kernel::adam::Adam;
use crate::loss::{EmbeddingLoss, L2Penalty, PenaltyForm, WeightedMse};
use crate::network::{Architecture, PASS_ROWS, TensorPlace};

/// An autoencoder with its optimizer state. Losses at the embedding are slices on the host: the embedding is read, and
/// their gradient sent back, in every step that has one.
#[derive(Debug)]
pub(super) struct Trainer<'a> {
    rows: DeviceRows<'a>,
    architecture: Architecture,
    places: Vec<TensorPlace>,
    /// Weights and biases, layer by layer, with both moments.
    parameters: Vec<Moving>,
    /// A weight per feature, `1 x dim`, if there are any.
    weights: Option<Tensor>,
    adam: Adam,
    steps: u64,
    batch_size: usize,
    batch: Option<Batch>,
    /// Room for a batch on its way to the device.
    buffer: Vec<f32>,
}

/// A tensor that Adam moves.
#[derive(Debug)]
struct Moving {
    value: Var,
    first: Tensor,
    second: Tensor,
}

/// The rows of a step.
#[derive(Debug)]
struct Batch {
    input: Tensor,
    numbers: Vec<u32>,
}

/// What a forward gives.
struct Forward {
    embedding: Tensor,
    /// The weighted squared errors of all values.
    errors: Tensor,
}

impl<'a> Trainer<'a> {
    /// A trainer for batches of up to `batch_size` of the rows.
    pub fn new(
        rows: DeviceRows<'a>,
        architecture: &Architecture,
        parameters: &[f32],
        loss: &WeightedMse,
        batch_size: usize,
    ) -> crate::Result<Self> {
        let places = architecture.tensors();
        let moving = |place: &TensorPlace| {
            let value = tensor(place, parameters, &rows.device)?;
            let zeros = value.zeros_like()?;
            Ok(Moving { value: Var::from_tensor(&value)?, first: zeros.clone(), second: zeros })
        };
        let moving = places.iter().map(moving).collect::<Result<Vec<_>>>().map_err(failed)?;
        let weights = match loss.weights.is_empty() {
            true => None,
            false => Some(Tensor::from_slice(&loss.weights, (1, loss.weights.len()), &rows.device).map_err(failed)?),
        };
        Ok(Self {
            rows,
            architecture: architecture.clone(),
            places,
            parameters: moving,
            weights,
            adam: Adam::default(),
            steps: 0,
            batch_size,
            batch: None,
            buffer: Vec::new(),
        })
    }

    fn device(&self) -> &Device {
        &self.rows.device
    }

    fn take(&mut self, numbers: &[u32]) -> crate::Result<()> {
        self.batch = None;
        if !numbers.is_empty() {
            let input = self.rows.gather(numbers, &mut self.buffer)?;
            self.batch = Some(Batch { input, numbers: numbers.to_vec() });
        }
        Ok(())
    }

    fn forward(&self, input: &Tensor) -> Result<Forward> {
        let (mut value, mut embedding) = (input.clone(), input.clone());
        for (i, (layer, parameters)) in self.architecture.layers().zip(self.parameters.chunks(2)).enumerate() {
            value = dense(&value, &parameters[0].value, &parameters[1].value, layer.activation)?;
            if i + 1 == self.architecture.encoder.len() {
                embedding = value.clone();
            }
        }
        let squares = (value - input)?.sqr()?;
        let errors = match &self.weights {
            Some(weights) => squares.broadcast_mul(weights)?,
            None => squares,
        };
        Ok(Forward { embedding, errors })
    }

    /// The sum over the batch of the loss at the embedding, and its gradient.
    fn at_embedding(&self, loss: &dyn EmbeddingLoss, z: &Tensor, numbers: &[u32]) -> Result<(f64, Tensor)> {
        let (rows, dim) = z.dims2()?;
        let values = z.detach().flatten_all()?.to_vec1::<f32>()?;
        let (mut sum, mut gradient) = (0.0, Vec::with_capacity(values.len()));
        let [mut pass, mut slopes] = [(); 2].map(|()| Matrix::zeros(PASS_ROWS, dim));
        for (values, numbers) in values.chunks(PASS_ROWS * dim).zip(numbers.chunks(PASS_ROWS)) {
            pass.set_rows(numbers.len());
            slopes.set_rows(numbers.len());
            pass.copy_from(values);
            sum += loss.sum_and_gradient(&pass, numbers, rows, &mut slopes);
            (0..numbers.len()).for_each(|i| gradient.extend_from_slice(slopes.row(i)));
        }
        Ok((sum, Tensor::from_vec(gradient, (rows, dim), z.device())?))
    }

    /// The sum of the errors, and that of the squares of all parameters where the penalty asks for it: what the host has
    /// to know of a step, read at once.
    fn sums(&self, errors: &Tensor, penalty: &L2Penalty) -> Result<(f64, f64)> {
        let mut sums = vec![errors.detach().to_dtype(DType::F64)?.sum_all()?];
        if penalty.form == PenaltyForm::Norm && penalty.beta != 0.0 {
            for parameter in &self.parameters {
                sums.push(parameter.value.as_detached_tensor().to_dtype(DType::F64)?.sqr()?.sum_all()?);
            }
        }
        let sums = Tensor::stack(&sums, 0)?.to_vec1::<f64>()?;
        Ok((sums[0], sums[1..].iter().sum()))
    }

    /// Learns from a batch, unless a loss is not finite.
    fn learn(&mut self, batch: &Batch, settings: &StepSettings<'_>) -> Result<StepLoss> {
        let (rows, dim) = batch.input.dims2()?;
        let Forward { embedding, errors } = self.forward(&batch.input)?;
        let joined = settings.embedding.map(|loss| self.at_embedding(loss, &embedding, &batch.numbers)).transpose()?;
        let (error, squares) = self.sums(&errors, &settings.penalty)?;
        let values = (rows * dim) as f64;
        let loss = StepLoss {
            reconstruction: error / values,
            embedding: joined.as_ref().map_or(0.0, |(sum, _)| sum / rows as f64),
        };
        if !loss.is_finite() {
            return Ok(loss);
        }
        let mut total = (errors.sum_all()? * (settings.reconstruction / values))?;
        if let Some((_, gradient)) = &joined {
            // Its gradient at the embedding is `gradient`, whatever its value.
            total = (total + (embedding * gradient)?.sum_all()?)?;
        }
        let gradients = total.backward()?;
        self.steps += 1;
        let l2 = settings.penalty.weight_decay_of(squares);
        let rule = Rule::new(&self.adam, self.steps, settings.learning_rate, l2);
        for parameter in &mut self.parameters {
            // Candle leaves out what does not reach the loss, as a decoder whose error counts nothing.
            let gradient = match gradients.get(&parameter.value) {
                Some(gradient) => gradient.detach(),
                None => parameter.value.zeros_like()?,
            };
            rule.apply(parameter, &gradient)?;
        }
        Ok(loss)
    }

    fn flat(&self, of: impl Fn(&Moving) -> &Tensor) -> Result<Vec<f32>> {
        let mut flat = vec![0.0; self.architecture.flat_len()];
        for (place, parameter) in self.places.iter().zip(&self.parameters) {
            flat[place.range.clone()].copy_from_slice(&of(parameter).flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(flat)
    }

    fn set(&mut self, state: &TrainerState) -> Result<()> {
        let device = self.device().clone();
        for (place, parameter) in self.places.iter().zip(&mut self.parameters) {
            parameter.value.set(&tensor(place, &state.parameters, &device)?)?;
            parameter.first = tensor(place, &state.first, &device)?;
            parameter.second = tensor(place, &state.second, &device)?;
        }
        self.steps = state.steps;
        Ok(())
    }
}

/// A step of Adam: the operations of [`AdamStep`](crate::kernel::adam::AdamStep), in its order.
struct Rule {
    beta1: f64,
    beta2: f64,
    /// One less the betas, in `f32` as there.
    rest1: f64,
    rest2: f64,
    rate: f64,
    root_scale: f64,
    epsilon: f64,
    l2: f64,
}

impl Rule {
    fn new(adam: &Adam, step: u64, learning_rate: f64, l2: f64) -> Self {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        Self {
            beta1: f64::from(adam.beta1),
            beta2: f64::from(adam.beta2),
            rest1: f64::from(1.0 - adam.beta1),
            rest2: f64::from(1.0 - adam.beta2),
            rate: learning_rate / correction(adam.beta1),
            root_scale: 1.0 / correction(adam.beta2).sqrt(),
            epsilon: f64::from(adam.epsilon),
            l2,
        }
    }

    fn apply(&self, parameter: &mut Moving, gradient: &Tensor) -> Result<()> {
        // Detached, so that moments do not hold on to the tape of every step before.
        let value = parameter.value.as_detached_tensor();
        let g = match self.l2 == 0.0 {
            true => gradient.clone(),
            false => (gradient + (&value * self.l2)?)?,
        };
        let first = ((&parameter.first * self.beta1)? + (&g * self.rest1)?)?;
        let second = ((&parameter.second * self.beta2)? + ((&g * self.rest2)? * &g)?)?;
        let root = second.sqrt()?.affine(self.root_scale, self.epsilon)?;
        parameter.value.set(&(value - ((&first * self.rate)? / root)?)?)?;
        (parameter.first, parameter.second) = (first, second);
        Ok(())
    }
}

impl crate::device::Trainer for Trainer<'_> {
    fn load(&mut self, batch: &[u32]) -> crate::Result<()> {
        self.take(batch)
    }

    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> crate::Result<StepLoss> {
        assert!(next.len() <= self.batch_size, "{} rows in a batch", next.len());
        let batch = self.batch.take().expect("no batch is loaded");
        let loss = self.learn(&batch, settings).map_err(failed)?;
        // A GPU is still at the step while the host gathers.
        self.take(next)?;
        Ok(loss)
    }

    fn state(&self) -> crate::Result<TrainerState> {
        Ok(TrainerState {
            steps: self.steps,
            parameters: self.flat(|p| p.value.as_tensor()).map_err(failed)?,
            first: self.flat(|p| &p.first).map_err(failed)?,
            second: self.flat(|p| &p.second).map_err(failed)?,
        })
    }

    fn restore(&mut self, state: &TrainerState) -> crate::Result<()> {
        let len = self.architecture.flat_len();
        for values in [&state.parameters, &state.first, &state.second] {
            assert_eq!(values.len(), len, "values of a state");
        }
        self.set(state).map_err(failed)
    }
}
