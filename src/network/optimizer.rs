//! The rules that move parameters, and what they remember of each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, bail};

use super::layer::values;
use super::moving;
use crate::error::Error;
use crate::kernel::Pool;
use crate::kernel::adam::{Adam, AdamStep};
use crate::kernel::aligned::Aligned;
use crate::kernel::sgd::{Sgd, SgdStep};

/// Values that one task moves: with their gradient and moments they fit in the second-level cache.
const CHUNK: usize = 1 << 14;

/// The highest count of steps that is kept: counts are saved as `f32`, which holds all whole numbers up to here. Adam's
/// corrections do not change any more long before.
const MOST_STEPS: u64 = 1 << 24;

/// Which rule moves parameters.
///
/// ```
/// use dacpipe::network::OptimizerSpec;
/// let spec: OptimizerSpec = serde_json::from_str(r#"{"kind": "sgd", "momentum": 0.9}"#).unwrap();
/// assert_eq!(spec, OptimizerSpec::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
/// let adam: OptimizerSpec = serde_json::from_str(r#"{"kind": "adam"}"#).unwrap();
/// assert_eq!(adam, OptimizerSpec::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerSpec {
    /// Adam (Kingma and Ba 2015), and with a weight decay AdamW (Loshchilov and Hutter 2019).
    Adam {
        /// Decay of the mean of the gradients. Default 0.9.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the mean of the squared gradients. Default 0.999.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the second moment. Default 1e-8.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Decoupled weight decay: a step takes this part of each parameter from it, times the learning rate. Default 0.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Stochastic gradient descent, as PyTorch's.
    Sgd {
        /// What is left of the velocity after a step. Default 0.
        #[serde(default)]
        momentum: f64,
        /// Nesterov's momentum. Default false.
        #[serde(default)]
        nesterov: bool,
        /// Weight decay as an L2 penalty: the gradient gets this times the parameter. Default 0.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

impl Default for OptimizerSpec {
    /// Adam with the constants of its paper and no weight decay.
    fn default() -> Self {
        Self::Adam { beta1: beta1(), beta2: beta2(), epsilon: epsilon(), weight_decay: 0.0 }
    }
}

impl OptimizerSpec {
    /// What is wrong with its numbers, if anything.
    ///
    /// ```
    /// use dacpipe::network::OptimizerSpec;
    /// let sgd = OptimizerSpec::Sgd { momentum: 1.0, nesterov: false, weight_decay: 0.0 };
    /// assert_eq!(sgd.problems(), ["momentum is at least 0 and below 1, this is 1"]);
    /// assert!(OptimizerSpec::default().problems().is_empty());
    /// ```
    pub fn problems(&self) -> Vec<String> {
        let below_one = |what: &str, value: f64| {
            let right = (0.0..1.0).contains(&value);
            (!right).then(|| format!("{what} is at least 0 and below 1, this is {value}"))
        };
        let decay = |value: f64| {
            let right = (0.0..f64::INFINITY).contains(&value);
            (!right).then(|| format!("weight_decay is a number from 0 on, this is {value}"))
        };
        let problems = match *self {
            OptimizerSpec::Adam { beta1, beta2, epsilon, weight_decay } => {
                // As the arithmetic has it, where a very small number is zero.
                let right = epsilon.is_finite() && epsilon as f32 >= f32::MIN_POSITIVE;
                let small = (!right).then(|| format!("epsilon is above 1e-37, this is {epsilon}"));
                [below_one("beta1", beta1), below_one("beta2", beta2), small, decay(weight_decay)]
            }
            OptimizerSpec::Sgd { momentum, nesterov, weight_decay } => {
                let still = (nesterov && momentum == 0.0).then(|| "nesterov needs a momentum above 0".to_string());
                [below_one("momentum", momentum), still, decay(weight_decay), None]
            }
        };
        problems.into_iter().flatten().collect()
    }

    /// The names of the arrays that it keeps of a parameter.
    fn arrays(&self) -> &'static [&'static str] {
        match self {
            OptimizerSpec::Adam { .. } => &["first", "second"],
            OptimizerSpec::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            OptimizerSpec::Sgd { .. } => &["velocity"],
        }
    }

    /// Whether a step depends on how many there were before.
    fn counts(&self) -> bool {
        matches!(self, OptimizerSpec::Adam { .. })
    }

    /// What a parameter's step number `step` does.
    fn rule(&self, step: u64, learning_rate: f64, penalty: f64) -> Rule {
        match *self {
            OptimizerSpec::Adam { beta1, beta2, epsilon, weight_decay } => {
                let [beta1, beta2, epsilon, weight_decay] = [beta1, beta2, epsilon, weight_decay].map(|v| v as f32);
                Rule::Adam(Adam { beta1, beta2, epsilon, weight_decay }.step(step, learning_rate, penalty))
            }
            OptimizerSpec::Sgd { momentum, nesterov, weight_decay } => {
                let sgd = Sgd { momentum: momentum as f32, nesterov };
                Rule::Sgd(sgd.step(learning_rate, penalty + weight_decay))
            }
        }
    }
}

/// Moves named parameters, and owns their moments.
///
/// Every parameter has its own count of steps, as in PyTorch: Adam's corrections make up for moments that begin at zero,
/// so one that joins later (the centroids after a pretraining) would move several times the learning rate a step if it
/// had the count of the others.
///
/// ```
/// use std::sync::Arc;
/// use candle_core::{Device, Tensor, Var};
/// use dacpipe::kernel::Pool;
/// use dacpipe::network::{Optimizer, OptimizerSpec};
///
/// let x = Var::new(&[3.0f32], &Device::Cpu)?;
/// let spec = OptimizerSpec::Sgd { momentum: 0.5, nesterov: false, weight_decay: 0.0 };
/// let mut optimizer = Optimizer::new(spec, Arc::new(Pool::new(1)));
/// let gradient = Tensor::new(&[1.0f32], &Device::Cpu)?;
/// optimizer.step(0.5, 0.0, &[("x", &x, &gradient)])?;
/// optimizer.step(0.5, 0.0, &[("x", &x, &gradient)])?;
/// // 3 - 0.5 * 1 - 0.5 * 1.5
/// assert_eq!(x.to_vec1::<f32>()?, [1.75]);
/// let (steps, state) = optimizer.state()?;
/// assert_eq!((steps, &state["x.velocity"][..]), (2, &[1.5f32][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Optimizer {
    spec: OptimizerSpec,
    pool: Arc<Pool>,
    formulas: bool,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

/// What is remembered of a parameter.
#[derive(Debug)]
struct Moments {
    steps: u64,
    /// Of the names that the rule gives them.
    arrays: Arrays,
}

/// Where moments lie: beside the parameter, or what a checkpoint had, until the parameter is seen.
#[derive(Debug)]
enum Arrays {
    Host(Vec<Aligned>),
    Tensors(Vec<Tensor>),
}

impl Arrays {
    /// Numbers of values.
    fn lens(&self) -> Vec<usize> {
        match self {
            Self::Host(arrays) => arrays.iter().map(|array| array.len()).collect(),
            Self::Tensors(arrays) => arrays.iter().map(Tensor::elem_count).collect(),
        }
    }

    /// Copies on the host.
    fn values(&self) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Host(arrays) => Ok(arrays.iter().map(|array| array.to_vec()).collect()),
            Self::Tensors(arrays) => arrays.iter().map(|array| array.flatten_all()?.to_vec1()).collect(),
        }
    }
}

impl Optimizer {
    /// An optimizer that has moved nothing yet and computes with `pool`.
    pub fn new(spec: OptimizerSpec, pool: Arc<Pool>) -> Self {
        Self { spec, pool, formulas: false, steps: 0, moments: BTreeMap::new() }
    }

    /// The same, by formulas over tensors if `formulas`, for parameters on any device.
    pub fn by_formulas(self, formulas: bool) -> Self {
        Self { formulas, ..self }
    }

    /// One step over the parameters that have a gradient: name, value and gradient of each. `penalty` is the factor of
    /// an L2 penalty: every gradient gets `penalty` times the parameter.
    ///
    /// # Errors
    /// For a gradient, or moments restored, of another length than the parameter; for what is not `f32`, or without formulas
    /// does not lie on the CPU. No parameter has moved then.
    pub fn step(&mut self, learning_rate: f64, penalty: f64, parameters: &[(&str, &Var, &Tensor)]) -> Result<()> {
        for &(name, value, gradient) in parameters {
            self.prepare(name, value, gradient)?;
        }
        self.steps += 1;
        for &(name, value, gradient) in parameters {
            let Some(moments) = self.moments.get_mut(name) else { continue };
            moments.steps = (moments.steps + 1).min(MOST_STEPS);
            match &mut moments.arrays {
                Arrays::Host(arrays) => {
                    let rule = self.spec.rule(moments.steps, learning_rate, penalty);
                    let op = Move { rule, pool: &self.pool, arrays: RefCell::new(arrays) };
                    value.inplace_op2(&gradient.contiguous()?, &op)?;
                }
                Arrays::Tensors(arrays) => {
                    let gradient = gradient.detach().contiguous()?;
                    moving::step(&self.spec, (moments.steps, learning_rate, penalty), (value, &gradient), arrays)?;
                }
            }
        }
        Ok(())
    }

    /// Makes sure that a parameter can be moved and has moments.
    fn prepare(&mut self, name: &str, value: &Var, gradient: &Tensor) -> Result<()> {
        if value.shape() != gradient.shape() {
            bail!("the gradient of {name} has shape {:?}, the parameter {:?}", gradient.dims(), value.dims());
        }
        for tensor in [value.as_tensor(), gradient] {
            if tensor.dtype() != DType::F32 || !(self.formulas || tensor.device().is_cpu()) {
                bail!(
                    "{name} is {:?} on {:?}, f32 on the CPU can be moved",
                    tensor.dtype(),
                    tensor.device().location()
                );
            }
        }
        let len = value.elem_count();
        match self.moments.get(name).map(|moments| &moments.arrays) {
            Some(arrays) => {
                if let Some(kept) = arrays.lens().into_iter().find(|&kept| kept != len) {
                    bail!("the optimizer keeps moments of {kept} values for {name}, which has {len}");
                }
            }
            None => {
                let arrays = Arrays::Host(self.spec.arrays().iter().map(|_| Aligned::zeros(len)).collect());
                self.moments.insert(name.to_string(), Moments { steps: 0, arrays });
            }
        }
        match self.moments.get_mut(name).map(|moments| &mut moments.arrays) {
            Some(arrays @ Arrays::Host(_)) if self.formulas => {
                let placed = arrays.values()?.into_iter().map(|v| Tensor::from_vec(v, value.shape(), value.device()));
                *arrays = Arrays::Tensors(placed.collect::<Result<_>>()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// What is needed to go on: the number of steps, and for each parameter `<name>.first`, `<name>.second` and
    /// `<name>.steps` (one number, its own count) with Adam, `<name>.velocity` with a momentum.
    ///
    /// # Errors
    /// Candle's, where moments lie on a device that fails.
    pub fn state(&self) -> Result<(u64, BTreeMap<String, Vec<f32>>)> {
        let mut state = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (array, values) in self.spec.arrays().iter().zip(moments.arrays.values()?) {
                state.insert(format!("{name}.{array}"), values);
            }
            if self.spec.counts() {
                state.insert(format!("{name}.steps"), vec![moments.steps as f32]);
            }
        }
        Ok((self.steps, state))
    }

    /// Goes on from what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// Kind `Model`, if something of a parameter is missing, or of another length than the rest of it, or belongs to
    /// another rule. The optimizer is as before then.
    pub fn restore(&mut self, steps: u64, state: &BTreeMap<String, Vec<f32>>) -> crate::Result<()> {
        let known = self.spec.arrays().iter().copied().chain(self.spec.counts().then_some("steps"));
        let known: Vec<&str> = known.collect();
        let mut moments = BTreeMap::new();
        for key in state.keys() {
            let name = match key.rsplit_once('.') {
                Some((name, array)) if known.contains(&array) => name,
                _ => {
                    let kept = if known.is_empty() { "nothing".to_string() } else { known.join(", ") };
                    return Err(Error::model(format!(
                        "the optimizer's state has {key:?}, of a parameter it keeps {kept}"
                    )));
                }
            };
            if !moments.contains_key(name) {
                moments.insert(name.to_string(), self.restored(name, state)?);
            }
        }
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }

    /// What `state` has of one parameter.
    fn restored(&self, name: &str, state: &BTreeMap<String, Vec<f32>>) -> crate::Result<Moments> {
        let of = |array: &str| {
            let key = format!("{name}.{array}");
            state.get(&key).ok_or_else(|| Error::model(format!("the optimizer's state has no {key:?}")))
        };
        let mut arrays: Vec<Aligned> = Vec::new();
        for array in self.spec.arrays() {
            let values = of(array)?;
            if let Some(first) = arrays.first().filter(|first| first.len() != values.len()) {
                let lengths =
                    format!("{} values and \"{name}.{}\" {}", values.len(), self.spec.arrays()[0], first.len());
                return Err(Error::model(format!("the optimizer's state has \"{name}.{array}\" of {lengths}")));
            }
            let mut aligned = Aligned::zeros(values.len());
            aligned.copy_from_slice(values);
            arrays.push(aligned);
        }
        let steps = match self.spec.counts().then(|| of("steps")).transpose()?.map(Vec::as_slice) {
            None => 0,
            Some(&[steps]) if steps >= 0.0 && steps.fract() == 0.0 && steps <= MOST_STEPS as f32 => steps as u64,
            Some(steps) => {
                return Err(Error::model(format!(
                    "\"{name}.steps\" of the optimizer's state is {steps:?} and not one whole number"
                )));
            }
        };
        Ok(Moments { steps, arrays: Arrays::Host(arrays) })
    }

    /// Forgets all moments and counts.
    pub fn reset(&mut self) {
        self.steps = 0;
        self.moments.clear();
    }
}

/// What one step does with a parameter.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Adam(AdamStep),
    Sgd(SgdStep),
}

/// One step of one parameter, in place.
struct Move<'a> {
    rule: Rule,
    pool: &'a Pool,
    /// The operation is given to candle by a shared reference.
    arrays: RefCell<&'a mut [Aligned]>,
}

impl InplaceOp2 for Move<'_> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let CpuStorage::F32(parameter) = parameter else { bail!("parameters are f32") };
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("parameters lie in one piece") };
        let (parameter, gradient) = (&mut parameter[start..end], values(gradient, gradient_layout)?);
        let starts = (0..parameter.len()).step_by(CHUNK).chain([parameter.len()]);
        let part = |i: usize, len: usize| &gradient[i * CHUNK..][..len];
        match (self.rule, &mut **self.arrays.borrow_mut()) {
            (Rule::Adam(step), [first, second]) => {
                let bounds: Vec<_> = starts.map(|at| [at; 3]).collect();
                self.pool.for_each_part_mut(
                    [parameter, &mut first[..], &mut second[..]],
                    &bounds,
                    |i, [parameter, first, second]| {
                        step.apply(parameter, part(i, parameter.len()), first, second);
                    },
                );
            }
            (Rule::Sgd(step), [velocity]) => {
                let bounds: Vec<_> = starts.map(|at| [at; 2]).collect();
                self.pool.for_each_part_mut([parameter, &mut velocity[..]], &bounds, |i, [parameter, velocity]| {
                    step.apply(parameter, part(i, parameter.len()), velocity);
                });
            }
            (Rule::Sgd(step), []) => self.pool.for_each_chunk_mut(parameter, CHUNK, |i, parameter| {
                step.apply(parameter, part(i, parameter.len()), &mut []);
            }),
            _ => bail!("moments of another rule"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::Optimizer as _;

    use super::*;

    const ADAMW: OptimizerSpec = OptimizerSpec::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 };
    const PLAIN: OptimizerSpec = OptimizerSpec::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.01 };
    const HEAVY: OptimizerSpec = OptimizerSpec::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    const NESTEROV: OptimizerSpec = OptimizerSpec::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.01 };

    fn rules() -> [OptimizerSpec; 5] {
        [OptimizerSpec::default(), ADAMW, PLAIN, HEAVY, NESTEROV]
    }

    fn tensor(shape: (usize, usize), salt: f32) -> Tensor {
        let values = (0..shape.0 * shape.1).map(|i| (i as f32 * 0.7 + salt).sin()).collect();
        Tensor::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
    }

    fn variables() -> [Var; 2] {
        // The first longer than two chunks.
        [(5, 2 * CHUNK / 4), (1, 7)].map(|shape| Var::from_tensor(&tensor(shape, 0.3)).unwrap())
    }

    fn bits(variable: &Var) -> Vec<u32> {
        variable.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// Moves both variables by the steps of these numbers; the gradient depends on the value, as a loss's does.
    fn run(optimizer: &mut Optimizer, variables: &[Var; 2], steps: std::ops::Range<usize>) {
        for t in steps {
            let gradients =
                variables.each_ref().map(|v| (tensor(v.dims2().unwrap(), t as f32) + v.as_tensor()).unwrap());
            let named = [("a.weight", &variables[0], &gradients[0]), ("a.bias", &variables[1], &gradients[1])];
            optimizer.step(0.01, 1e-3, &named).unwrap();
        }
    }

    /// The formulas over tensors do what the kernels do, and go on from their state.
    #[test]
    fn formulas_move_parameters_as_the_kernels_do() {
        for spec in rules() {
            let (ours, theirs) = (variables(), variables());
            let mut kernels = optimizer(spec, 2);
            run(&mut kernels, &ours, 0..6);
            let mut first = optimizer(spec, 1).by_formulas(true);
            run(&mut first, &theirs, 0..3);
            let (steps, state) = first.state().unwrap();
            let mut second = optimizer(spec, 1).by_formulas(true);
            second.restore(steps, &state).unwrap();
            run(&mut second, &theirs, 3..6);
            let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(near(&flat(ours), &flat(theirs)), "{spec:?}");
            }
            let ((steps, ours), (formula_steps, theirs)) = (kernels.state().unwrap(), second.state().unwrap());
            assert_eq!((steps, ours.len()), (formula_steps, theirs.len()));
            ours.iter().for_each(|(name, values)| assert!(near(values, &theirs[name]), "{spec:?} {name}"));
        }
    }

    fn optimizer(spec: OptimizerSpec, threads: usize) -> Optimizer {
        Optimizer::new(spec, Arc::new(Pool::new(threads)))
    }

    #[test]
    fn adam_equals_candle_s_with_and_without_weight_decay() {
        for (spec, weight_decay) in [(OptimizerSpec::default(), 0.0), (ADAMW, 0.1)] {
            let (ours, theirs) = (variables(), variables());
            let settings = candle_nn::ParamsAdamW { lr: 0.01, weight_decay, ..Default::default() };
            let mut twin = candle_nn::AdamW::new(theirs.to_vec(), settings).unwrap();
            let mut optimizer = optimizer(spec, 2);
            for t in 0..20 {
                let loss = |v: &Var| (v.as_tensor() * tensor(v.dims2()?, t as f32))?.sum_all()? + v.sqr()?.sum_all()?;
                for (name, v) in ["a", "b"].into_iter().zip(&ours) {
                    let gradients = loss(v).unwrap().backward().unwrap();
                    // One call a parameter: counts are the parameter's own.
                    optimizer.step(0.01, 0.0, &[(name, v, gradients.get(v).unwrap())]).unwrap();
                }
                let both = (loss(&theirs[0]).unwrap() + loss(&theirs[1]).unwrap()).unwrap();
                twin.backward_step(&both).unwrap();
            }
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let off = (ours.as_tensor() - theirs.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
                assert!(off.to_scalar::<f32>().unwrap() < 3e-6, "{spec:?}");
            }
        }
    }

    /// PyTorch's algorithm in double precision, with L2 from both the weight decay and the penalty.
    #[test]
    fn sgd_equals_pytorch_s_algorithm() {
        for spec in [PLAIN, HEAVY, NESTEROV] {
            let OptimizerSpec::Sgd { momentum, nesterov, weight_decay } = spec else { continue };
            let variables = variables();
            run(&mut optimizer(spec, 2), &variables, 0..20);
            for v in &variables {
                let shape = v.dims2().unwrap();
                let values = |salt: f32| tensor(shape, salt).flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let mut state: Vec<(f64, f64)> = values(0.3).into_iter().map(|p| (f64::from(p), 0.0)).collect();
                for t in 0..20 {
                    for ((p, velocity), g) in state.iter_mut().zip(values(t as f32)) {
                        let g = f64::from(g) + *p + (weight_decay + 1e-3) * *p;
                        *velocity = if t == 0 { g } else { momentum * *velocity + g };
                        *p -= 0.01 * if nesterov { g + momentum * *velocity } else { *velocity };
                    }
                }
                let ours = v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (ours, (p, _)) in ours.iter().zip(&state) {
                    assert!((f64::from(*ours) - p).abs() < 2e-6, "{spec:?}: {ours} {p}");
                }
            }
        }
    }

    #[test]
    fn what_is_restored_goes_on_with_the_same_bits_on_any_number_of_threads() {
        for spec in rules() {
            let whole = variables();
            run(&mut optimizer(spec, 1), &whole, 0..9);
            let halves = variables();
            let mut first = optimizer(spec, 3);
            run(&mut first, &halves, 0..4);
            let (steps, state) = first.state().unwrap();
            assert_eq!(steps, 4);
            let mut second = optimizer(spec, 2);
            second.restore(steps, &state).unwrap();
            assert_eq!(second.state().unwrap(), (steps, state));
            run(&mut second, &halves, 4..9);
            assert_eq!(whole.each_ref().map(bits), halves.each_ref().map(bits), "{spec:?}");
            assert_eq!(second.state().unwrap().0, 9);
        }
    }

    #[test]
    fn after_a_reset_it_begins_anew() {
        for spec in rules() {
            let mut optimizer = optimizer(spec, 1);
            run(&mut optimizer, &variables(), 0..5);
            optimizer.reset();
            assert_eq!(optimizer.state().unwrap(), (0, BTreeMap::new()));
            let (again, fresh) = (variables(), variables());
            run(&mut optimizer, &again, 0..3);
            run(&mut self::optimizer(spec, 1), &fresh, 0..3);
            assert_eq!(again.each_ref().map(bits), fresh.each_ref().map(bits));
        }
    }

    /// Adam's first step has the size of the learning rate, whenever the parameter joins.
    #[test]
    fn a_parameter_that_joins_later_begins_at_its_first_step() {
        let mut optimizer = optimizer(OptimizerSpec::default(), 1);
        let [early, late] = [(); 2].map(|()| Var::new(&[1.0f32], &Device::Cpu).unwrap());
        let gradient = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
        for _ in 0..100 {
            optimizer.step(0.01, 0.0, &[("early", &early, &gradient)]).unwrap();
        }
        optimizer.step(0.01, 0.0, &[("early", &early, &gradient), ("late", &late, &gradient)]).unwrap();
        assert!((late.to_vec1::<f32>().unwrap()[0] - 0.99).abs() < 1e-6);
        let (steps, state) = optimizer.state().unwrap();
        assert_eq!((steps, state["early.steps"][0], state["late.steps"][0]), (101, 101.0, 1.0));
        assert_eq!(state.len(), 6);
    }

    #[test]
    fn a_state_that_does_not_fit_is_named_and_changes_nothing() {
        let mut adam = optimizer(OptimizerSpec::default(), 1);
        run(&mut adam, &variables(), 0..2);
        let (steps, state) = adam.state().unwrap();
        type State = BTreeMap<String, Vec<f32>>;
        let mut said = |change: &dyn Fn(&mut State)| {
            let mut changed = state.clone();
            change(&mut changed);
            let said = adam.restore(7, &changed).unwrap_err();
            assert_eq!(said.kind(), crate::Kind::Model);
            assert_eq!(adam.state().unwrap(), (steps, state.clone()));
            said.to_string()
        };
        let missing = said(&|state| drop(state.remove("a.bias.second")));
        assert!(missing.contains("no \"a.bias.second\""), "{missing}");
        let uncounted = said(&|state| drop(state.remove("a.weight.steps")));
        assert!(uncounted.contains("no \"a.weight.steps\""), "{uncounted}");
        let short = said(&|state| drop(state.insert("a.bias.second".into(), vec![0.0; 3])));
        assert!(short.contains("\"a.bias.second\" of 3 values and \"a.bias.first\" 7"), "{short}");
        let half = said(&|state| drop(state.insert("a.bias.steps".into(), vec![1.5])));
        assert!(half.contains("\"a.bias.steps\"") && half.contains("[1.5]"), "{half}");
        let foreign = said(&|state| drop(state.insert("a.bias.velocity".into(), vec![0.0; 7])));
        assert!(foreign.contains("a.bias.velocity") && foreign.contains("first, second, steps"), "{foreign}");
        let said = optimizer(PLAIN, 1).restore(2, &state).unwrap_err().to_string();
        assert!(said.contains("it keeps nothing"), "{said}");
    }

    #[test]
    fn parameters_that_cannot_be_moved_are_named_and_none_has_moved() {
        let mut optimizer = optimizer(HEAVY, 1);
        let [a, b] = [3, 4].map(|len| Var::zeros(len, DType::F32, &Device::Cpu).unwrap());
        let gradient = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        let said = optimizer.step(0.1, 0.0, &[("a", &a, &gradient), ("b", &b, &gradient)]).unwrap_err().to_string();
        assert!(said.contains("gradient of b has shape [3]"), "{said}");
        let state = BTreeMap::from([("b.velocity".to_string(), vec![0.0; 2])]);
        optimizer.restore(1, &state).unwrap();
        let four = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        let said = optimizer.step(0.1, 0.0, &[("a", &a, &gradient), ("b", &b, &four)]).unwrap_err().to_string();
        assert!(said.contains("2 values for b, which has 4"), "{said}");
        let wide = Var::zeros(3, DType::F64, &Device::Cpu).unwrap();
        let said = optimizer.step(0.1, 0.0, &[("c", &wide, &gradient)]).unwrap_err().to_string();
        assert!(said.contains("c is F64"), "{said}");
        assert_eq!(a.to_vec1::<f32>().unwrap(), [0.0; 3]);
    }

    #[test]
    fn specs_are_read_and_their_problems_named() {
        let read = |text: &str| serde_json::from_str::<OptimizerSpec>(text);
        for spec in rules() {
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
            assert!(spec.problems().is_empty(), "{spec:?}");
        }
        assert!(read(r#"{"kind": "adam", "momentum": 0.9}"#).is_err());
        let wrong = OptimizerSpec::Adam { beta1: -0.1, beta2: 1.0, epsilon: 0.0, weight_decay: f64::NAN };
        assert_eq!(wrong.problems().len(), 4, "{:?}", wrong.problems());
        let wrong = OptimizerSpec::Sgd { momentum: 0.0, nesterov: true, weight_decay: -1.0 };
        assert_eq!(wrong.problems().len(), 2, "{:?}", wrong.problems());
    }
}
