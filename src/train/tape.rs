//! Training on candle's tape: any network, any objective.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor as Array};
use serde_json::json;

use super::epochs::Learner;
use super::objective::{BatchLoss, Objective, failed};
use crate::device::{Met, StepLoss};
use crate::error::{Error, Result};
use crate::kernel::{Pool, Rows};
use crate::loss::{L2Penalty, PenaltyForm};
use crate::network::{Builder, Clock, Optimizer, OptimizerSpec, Parameter};
use crate::stage::{Artifact, Tensor};

/// Rows of a batch that one task gathers.
const GATHERED_ROWS: usize = 32;

/// An objective with the optimizer that minimises it, and the batch at hand.
pub(crate) struct Tape<'a, O> {
    pub objective: O,
    rows: &'a dyn Rows,
    optimizer: Optimizer,
    penalty: L2Penalty,
    device: Device,
    pool: Arc<Pool>,
    /// The number of the current step, for layers that draw random numbers.
    clock: Clock,
    /// The first step number of this training, so that another training draws other random numbers.
    clock_start: u64,
    steps: u64,
    batch: Vec<u32>,
    values: Vec<f32>,
    /// Whether losses stay on the device until an epoch is over, so that the host need not wait for every step.
    ahead: bool,
    /// Those losses, each with the number of its rows: the reconstruction's and the clustering's.
    pending: Vec<(usize, [Option<Array>; 2])>,
}

impl<'a, O: Objective> Tape<'a, O> {
    /// The training of `objective` on `rows` with a new optimizer. The numbers of its steps, for layers that draw
    /// random numbers, begin with `clock_start`.
    pub fn new(
        objective: O,
        rows: &'a dyn Rows,
        optimizer: OptimizerSpec,
        penalty: L2Penalty,
        builder: &Builder,
        clock_start: u64,
    ) -> Self {
        Self {
            objective,
            rows,
            optimizer: Optimizer::new(optimizer, Arc::clone(&builder.pool)).by_formulas(builder.formulas),
            penalty,
            device: builder.device.clone(),
            pool: Arc::clone(&builder.pool),
            clock: builder.clock.clone(),
            clock_start,
            steps: 0,
            batch: Vec::new(),
            values: Vec::new(),
            ahead: builder.formulas,
            pending: Vec::new(),
        }
    }

    /// What each parameter is multiplied by to give the penalty's gradient, which is that of the network's parameters.
    fn weight_decay(&self, parameters: &[(String, Arc<Parameter>)]) -> candle_core::Result<f64> {
        if self.penalty.beta == 0.0 || self.penalty.form == PenaltyForm::Squared {
            return Ok(self.penalty.weight_decay_of(0.0));
        }
        let moved = parameters.iter().filter(|(_, parameter)| parameter.gradient().is_some());
        let moved: Vec<&Parameter> = moved.map(|(_, parameter)| &**parameter).collect();
        Ok(self.penalty.weight_decay_of(Parameter::sum_of_squares(&moved, &self.pool)?))
    }

    /// The losses of the batch, unless they stay on the device; moves what is learned unless one is known not to be finite.
    fn learn(&mut self, learning_rate: f64) -> candle_core::Result<Option<StepLoss>> {
        let shape = (self.batch.len(), self.rows.dim());
        let x = Array::from_vec(std::mem::take(&mut self.values), shape, &self.device)?;
        let parameters = self.objective.parameters();
        parameters.iter().for_each(|(_, parameter)| parameter.forget_gradient());
        let BatchLoss { total, reconstruction, embedding } = self.objective.loss(&x, &self.batch)?;
        let losses = [reconstruction, embedding];
        let mut known = None;
        if self.ahead {
            self.pending.push((self.batch.len(), losses.map(|loss| loss.map(|loss| loss.detach()))));
        } else {
            let [reconstruction, embedding] = losses.each_ref().map(|loss| value(loss.as_ref()));
            let loss = StepLoss { reconstruction: reconstruction?, embedding: embedding? };
            if !loss.is_finite() {
                return Ok(Some(loss));
            }
            known = Some(loss);
        }
        let gradients = total.backward()?;
        let own = self.objective.own();
        let l2 = self.weight_decay(&parameters)?;
        let moved = parameters.iter().filter_map(|(name, p)| Some((name.as_str(), p.variable(), p.gradient()?)));
        self.optimizer.step(learning_rate, l2, &moved.collect::<Vec<_>>())?;
        // The penalty only applies to the network.
        let moved = own.iter().filter_map(|(name, var)| Some((name.as_str(), var, gradients.get(var)?)));
        self.optimizer.step(learning_rate, 0.0, &moved.collect::<Vec<_>>())?;
        Ok(known)
    }
}

/// A loss on the host; 0 for none.
fn value(loss: Option<&Array>) -> candle_core::Result<f64> {
    loss.map_or(Ok(0.0), |loss| loss.to_scalar::<f32>().map(f64::from))
}

/// The values of the losses of some steps, which are read together; 0 for none.
fn read(losses: &[Option<Array>]) -> candle_core::Result<Vec<f64>> {
    let there: Vec<&Array> = losses.iter().flatten().collect();
    let mut values = match there.is_empty() {
        true => Vec::new(),
        false => Array::stack(&there, 0)?.to_vec1::<f32>()?,
    }
    .into_iter();
    Ok(losses.iter().map(|loss| loss.as_ref().and_then(|_| values.next()).map_or(0.0, f64::from)).collect())
}

impl<O: Objective> Learner for Tape<'_, O> {
    fn refresh(&mut self, step: u64) -> Result<bool> {
        self.objective.refresh(step)
    }

    fn load(&mut self, batch: &[u32]) -> Result<()> {
        self.batch.clear();
        self.batch.extend_from_slice(batch);
        let dim = self.rows.dim();
        self.values = vec![0.0; batch.len() * dim];
        let (rows, failure) = (self.rows, Mutex::new(None));
        self.pool.for_each_chunk_mut(&mut self.values, GATHERED_ROWS * dim, |i, values| {
            let numbers = &batch[i * GATHERED_ROWS..][..values.len() / dim];
            if let Err(e) = rows.gather(numbers, values) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }

    fn step(&mut self, next: &[u32], learning_rate: f64) -> Result<Option<StepLoss>> {
        self.clock.set(self.clock_start + self.steps);
        let loss = self.learn(learning_rate).map_err(failed("a training step"))?;
        self.steps += 1;
        self.load(next)?;
        Ok(loss)
    }

    fn met(&mut self) -> Result<Met> {
        let (rows, losses): (Vec<usize>, Vec<_>) = self.pending.drain(..).unzip();
        let (reconstruction, embedding): (Vec<_>, Vec<_>) = losses.into_iter().map(|[r, e]| (r, e)).unzip();
        let read = |losses: &[Option<Array>]| read(losses).map_err(failed("reading the losses"));
        let mut met = Met::default();
        let losses = read(&reconstruction)?.into_iter().zip(read(&embedding)?);
        for (i, ((reconstruction, embedding), rows)) in losses.zip(rows).enumerate() {
            let loss = StepLoss { reconstruction, embedding };
            if !loss.is_finite() {
                met.failed = Some((i + 1, loss));
                break;
            }
            met.sums.reconstruction += reconstruction * rows as f64;
            met.sums.embedding += embedding * rows as f64;
        }
        Ok(met)
    }

    fn total(&self, loss: &StepLoss) -> f64 {
        self.objective.total(loss)
    }

    fn fewest_rows(&self) -> usize {
        if self.objective.buffers().is_empty() { 1 } else { 2 }
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Result<Artifact> {
        let mut tensors = BTreeMap::new();
        let mut keep = |name: String, array: &Array| -> Result<()> {
            tensors.insert(name, Tensor { shape: array.dims().to_vec(), values: flat(array)? });
            Ok(())
        };
        for (name, parameter) in self.objective.parameters() {
            keep(format!("value.{name}"), parameter.value())?;
        }
        for (name, var) in self.objective.own() {
            keep(format!("value.{name}"), var.as_tensor())?;
        }
        for (name, buffer) in self.objective.buffers() {
            keep(format!("buffer.{name}"), &buffer.get())?;
        }
        for (name, array) in self.objective.state() {
            keep(format!("objective.{name}"), &array)?;
        }
        let (moments_steps, moments) = self.optimizer.state().map_err(failed("reading moments back"))?;
        for (name, values) in moments {
            tensors.insert(format!("moment.{name}"), Tensor { shape: vec![values.len()], values });
        }
        let settings = [("steps", json!(self.steps)), ("optimizer_steps", json!(moments_steps))];
        Ok(Artifact { settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), tensors })
    }

    fn restore(&mut self, state: &Artifact) -> Result<()> {
        let damaged = |what: &str| Error::model(format!("the checkpoint of the training has no usable {what}"));
        let steps = |name: &str| state.settings.get(name).and_then(|v| v.as_u64()).ok_or_else(|| damaged(name));
        let find = |name: String, like: &Array| -> Result<Array> {
            let tensor = state.tensors.get(&name).ok_or_else(|| damaged(&name))?;
            if tensor.shape != like.dims() || tensor.values.len() != like.elem_count() {
                let (shape, expected) = (&tensor.shape, like.dims());
                return Err(Error::model(format!(
                    "the checkpoint of the training has {name} of shape {shape:?}, this network needs {expected:?}"
                )));
            }
            array(tensor, like.device())
        };
        for (name, parameter) in self.objective.parameters() {
            let value = find(format!("value.{name}"), parameter.value())?;
            parameter.set(&value).map_err(failed("restoring a parameter"))?;
        }
        for (name, var) in self.objective.own() {
            let value = find(format!("value.{name}"), var.as_tensor())?;
            var.set(&value).map_err(failed("restoring a parameter"))?;
        }
        for (name, buffer) in self.objective.buffers() {
            buffer.set(find(format!("buffer.{name}"), &buffer.get())?);
        }
        let with = |prefix: &str| -> Vec<(String, &Tensor)> {
            let tensors = state.tensors.iter();
            tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor))).collect()
        };
        let known: Result<BTreeMap<String, Array>> =
            with("objective.").into_iter().map(|(name, tensor)| Ok((name, array(tensor, &self.device)?))).collect();
        self.objective.restore(&known?).map_err(failed("restoring the objective"))?;
        let moments = with("moment.").into_iter().map(|(name, tensor)| (name, tensor.values.clone())).collect();
        self.optimizer.restore(steps("optimizer_steps")?, &moments)?;
        self.steps = steps("steps")?;
        Ok(())
    }
}

/// The values of a tensor on the host, row-major, as `f32`.
pub(crate) fn flat(array: &Array) -> Result<Vec<f32>> {
    let values = array.flatten_all().and_then(|flat| flat.to_dtype(DType::F32)?.to_vec1());
    values.map_err(failed("reading values back"))
}

/// A saved tensor on a device.
pub(crate) fn array(tensor: &Tensor, device: &Device) -> Result<Array> {
    Array::from_slice(&tensor.values, tensor.shape.as_slice(), device).map_err(failed("placing values"))
}
