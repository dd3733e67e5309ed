//! The same network in plain candle with automatic differentiation: losses, gradients and steps must agree.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::ops::{leaky_relu, sigmoid};
use candle_nn::{Linear, Module, Optimizer};
use dacpipe::Seed;
use dacpipe::device::{Cpu, Device as _, StepLoss, StepSettings, TrainerState};
use dacpipe::kernel::adam::Adam;
use dacpipe::kernel::{Dense, Matrix, Pool};
use dacpipe::loss::{EmbeddingLoss, L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::network::{Activation, Architecture, DenseSpec, Mlp, Network, PASS_ROWS, Pass, initialise};

/// The oracle: one variable per tensor, in the order of `Architecture::tensors`.
struct Oracle {
    architecture: Architecture,
    variables: Vec<Var>,
}

impl Oracle {
    fn new(architecture: &Architecture, parameters: &[f32]) -> Result<Self> {
        let variable = |place: dacpipe::network::TensorPlace| {
            Var::from_tensor(&Tensor::from_slice(&parameters[place.range], place.shape, &Device::Cpu)?)
        };
        let variables = architecture.tensors().into_iter().map(variable).collect::<Result<_>>()?;
        Ok(Self { architecture: architecture.clone(), variables })
    }

    /// Embedding and reconstruction.
    fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut value, mut embedding) = (x.clone(), x.clone());
        for (i, layer) in self.architecture.layers().enumerate() {
            let [weight, bias] = [2 * i, 2 * i + 1].map(|v| self.variables[v].as_tensor().clone());
            value = Linear::new(weight, Some(bias)).forward(&value)?;
            value = match layer.activation {
                Activation::Identity => value,
                Activation::Relu => value.relu()?,
                Activation::Tanh => value.tanh()?,
                Activation::Sigmoid => sigmoid(&value)?,
                Activation::LeakyRelu => leaky_relu(&value, 0.01)?,
                Activation::Elu => value.elu(1.0)?,
                Activation::Softplus => (value.relu()? + (value.abs()?.neg()?.exp()? + 1.0)?.log()?)?,
            };
            if i + 1 == self.architecture.encoder.len() {
                embedding = value.clone();
            }
        }
        Ok((embedding, value))
    }

    /// Equation 4 of Lu and Li 2021, averaged over rows.
    fn reconstruction_loss(&self, x: &Tensor, y: &Tensor, weights: &[f32]) -> Result<Tensor> {
        let squares = (y - x)?.sqr()?;
        match weights.is_empty() {
            true => squares.mean_all(),
            false => squares.broadcast_mul(&Tensor::new(weights, &Device::Cpu)?)?.mean_all(),
        }
    }

    /// Equation 6's penalty.
    fn penalty(&self, penalty: L2Penalty) -> Result<Tensor> {
        let squares: Vec<Tensor> =
            self.variables.iter().map(|v| v.as_tensor().sqr()?.sum_all()).collect::<Result<_>>()?;
        let squares = Tensor::stack(&squares, 0)?.sum_all()?;
        match penalty.form {
            PenaltyForm::Norm => squares.sqrt()? * penalty.beta,
            PenaltyForm::Squared => squares * penalty.beta,
        }
    }
}

/// Numbers in [0, 1) by a fixed rule.
fn values(len: usize, salt: u32) -> Vec<f32> {
    let mix = |i: usize| (i as u32).wrapping_add(salt).wrapping_mul(2_654_435_761);
    (0..len)
        .map(|i| (mix(i) ^ (mix(i) >> 15)).wrapping_mul(2_246_822_519))
        .map(|h| (h >> 8) as f32 / 16_777_216.0)
        .collect()
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let scale = theirs.iter().fold(0.0_f32, |m, v| m.max(v.abs())).max(1e-12);
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}[{i}]: ours {a}, candle's {b}, largest {scale}");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("a tensor of f32")
}

fn architectures() -> Vec<Architecture> {
    let dense = |inputs, outputs, activation| DenseSpec { inputs, outputs, activation };
    vec![
        Architecture::dac(23, &[17, 9, 5], None),
        Architecture::dac(50, &[48, 33, 16, 12, 10], None),
        Architecture::dac(1, &[1], Some(&[])),
        Architecture::dac(7, &[3], Some(&[4, 6])),
        Architecture {
            encoder: vec![dense(12, 20, Activation::Sigmoid), dense(20, 4, Activation::Tanh)],
            decoder: vec![dense(4, 9, Activation::Relu), dense(9, 12, Activation::Identity)],
        },
        Architecture {
            encoder: vec![dense(11, 19, Activation::LeakyRelu), dense(19, 5, Activation::Softplus)],
            decoder: vec![dense(5, 8, Activation::Elu), dense(8, 11, Activation::Softplus)],
        },
    ]
}

/// Runs all rows forward and backward as the trainer does, and returns loss and gradient.
fn ours(
    network: &mut Mlp,
    x: &[f32],
    loss: &WeightedMse,
    d_embedding: Option<&dyn Fn(&Matrix) -> Matrix>,
) -> (f64, Vec<f32>) {
    let (dim, len) = (network.architecture().dim_in(), network.parameters().len());
    let rows = x.len() / dim;
    let mut sum = 0.0;
    let mut passes = Vec::new();
    for chunk in x.chunks(PASS_ROWS * dim) {
        let mut pass = network.new_pass();
        pass.input_mut().set_rows(chunk.len() / dim);
        pass.input_mut().copy_from(chunk);
        network.forward(&mut pass);
        let (input, output, gradient) = pass.reconstruction();
        sum += loss.sum_and_gradient(input, output, rows, 1.0, gradient);
        let at_embedding = d_embedding.map(|of| of(pass.embedding()));
        network.backward(&mut pass, at_embedding.as_ref());
        passes.push(pass);
    }
    let (mut gradient, mut nothing) = (vec![0.0; len], vec![0.0; len]);
    let keep = |_: &mut [f32], gradient: &[f32], [kept, _]: [&mut [f32]; 2]| kept.copy_from_slice(gradient);
    network.update(&passes, [&mut gradient, &mut nothing], &Pool::new(2), &keep);
    (sum / rows as f64, gradient)
}

#[test]
fn losses_and_every_gradient_equal_candle_s() -> Result<()> {
    for (n, architecture) in architectures().into_iter().enumerate() {
        let dim = architecture.dim_in();
        for rows in [1, 3, 64, 150] {
            for weights in [Vec::new(), values(dim, 99)] {
                let parameters = initialise(&architecture, Seed(n as u64));
                let x = values(rows * dim, 5);
                let mut network = Mlp::new(architecture.clone(), &parameters);
                let (loss, gradient) = ours(&mut network, &x, &WeightedMse { weights: weights.clone() }, None);
                let oracle = Oracle::new(&architecture, &parameters)?;
                let input = Tensor::from_slice(&x, (rows, dim), &Device::Cpu)?;
                let (_, output) = oracle.forward(&input)?;
                let theirs = oracle.reconstruction_loss(&input, &output, &weights)?;
                assert_close("loss", &[loss as f32], &[theirs.to_scalar()?], 1e-5);
                let gradients = theirs.backward()?;
                for (place, variable) in architecture.tensors().into_iter().zip(&oracle.variables) {
                    let expected = flat(gradients.get(variable).expect("every variable has a gradient"));
                    assert_close(&place.name, &gradient[place.range], &expected, 1e-4);
                }
            }
        }
    }
    Ok(())
}

/// Rows through the encoder and then the decoder, as a model applies them.
#[test]
fn embeddings_and_reconstructions_equal_candle_s() -> Result<()> {
    for (n, architecture) in architectures().into_iter().enumerate() {
        let (dim, code) = (architecture.dim_in(), architecture.dim_embedding());
        let parameters = initialise(&architecture, Seed(n as u64));
        let device = Cpu::default();
        let encoder = device.encoder(&architecture, &parameters).expect("has room");
        let decoder = device.decoder(&architecture, &parameters).expect("has room");
        let oracle = Oracle::new(&architecture, &parameters)?;
        for rows in [1, 63, 200] {
            let x = values(rows * dim, 3);
            let (mut embedded, mut rebuilt) = (vec![0.0; rows * code], vec![0.0; rows * dim]);
            encoder.encode(&x, &mut embedded).expect("on the processor");
            decoder.decode(&embedded, &mut rebuilt).expect("on the processor");
            let (embedding, output) = oracle.forward(&Tensor::from_slice(&x, (rows, dim), &Device::Cpu)?)?;
            assert_close("embedding", &embedded, &flat(&embedding), 1e-5);
            assert_close("reconstruction", &rebuilt, &flat(&output), 1e-5);
        }
    }
    Ok(())
}

/// A loss at the embedding is added to the reconstruction loss: half the sum of its squares.
#[test]
fn gradients_at_the_embedding_equal_candle_s() -> Result<()> {
    for architecture in architectures() {
        let (dim, rows) = (architecture.dim_in(), 70);
        let parameters = initialise(&architecture, Seed(4));
        let x = values(rows * dim, 8);
        let mut network = Mlp::new(architecture.clone(), &parameters);
        let (_, gradient) = ours(&mut network, &x, &WeightedMse::default(), Some(&Matrix::clone));
        let oracle = Oracle::new(&architecture, &parameters)?;
        let input = Tensor::from_slice(&x, (rows, dim), &Device::Cpu)?;
        let (embedding, output) = oracle.forward(&input)?;
        let both = (oracle.reconstruction_loss(&input, &output, &[])? + (embedding.sqr()?.sum_all()? * 0.5)?)?;
        let gradients = both.backward()?;
        for (place, variable) in architecture.tensors().into_iter().zip(&oracle.variables) {
            let expected = flat(gradients.get(variable).expect("every variable has a gradient"));
            assert_close(&place.name, &gradient[place.range], &expected, 1e-4);
        }
    }
    Ok(())
}

/// Smooth activations only: a finite difference across the kink of a ReLU is not its slope.
#[test]
fn gradients_equal_finite_differences() {
    let dense = |inputs, outputs, activation| DenseSpec { inputs, outputs, activation };
    let architecture = Architecture {
        encoder: vec![dense(9, 6, Activation::Tanh), dense(6, 3, Activation::Identity)],
        decoder: vec![dense(3, 6, Activation::Softplus), dense(6, 9, Activation::Sigmoid)],
    };
    let parameters = initialise(&architecture, Seed(2));
    let x = values(9 * 20, 3);
    let loss = WeightedMse { weights: values(9, 1) };
    let (_, gradient) = ours(&mut Mlp::new(architecture.clone(), &parameters), &x, &loss, None);
    for place in architecture.tensors() {
        let largest = gradient[place.range.clone()].iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for i in place.range.step_by(3) {
            let h = 1e-2;
            let at = |offset: f32| {
                let mut moved = parameters.to_vec();
                moved[i] += offset;
                ours(&mut Mlp::new(architecture.clone(), &moved), &x, &loss, None).0
            };
            let slope = ((at(h) - at(-h)) / (2.0 * f64::from(h))) as f32;
            assert!((slope - gradient[i]).abs() < 0.02 * largest + 1e-5, "{}: {slope} {}", place.name, gradient[i]);
        }
    }
}

/// Half the squared distance of each row to a target: its own, or the nearest of some centroids.
#[derive(Debug)]
enum Pull {
    ToOwn(Vec<f32>),
    ToNearest(Vec<f32>),
}

impl Pull {
    /// The target of training row `row` when its embedding is `embedding`.
    fn target(&self, embedding: &[f32], row: usize) -> &[f32] {
        let dim = embedding.len();
        let squared = |c: &[f32]| embedding.iter().zip(c).map(|(z, c)| (z - c) * (z - c)).sum::<f32>();
        match self {
            Pull::ToOwn(targets) => &targets[row * dim..][..dim],
            Pull::ToNearest(centroids) => {
                centroids.chunks(dim).min_by(|a, b| squared(a).total_cmp(&squared(b))).expect("some centroids")
            }
        }
    }

    /// The same loss, as candle sees it: the mean over the rows.
    fn of_candle(&self, embedding: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let (n, dim) = embedding.dims2()?;
        let values = flat(embedding);
        let targets = values.chunks(dim).zip(rows).flat_map(|(z, &row)| self.target(z, row as usize)).copied();
        let targets = Tensor::from_vec(targets.collect(), (n, dim), &Device::Cpu)?;
        ((embedding - targets)?.sqr()?.sum_all()? * 0.5)? / n as f64
    }
}

impl EmbeddingLoss for Pull {
    fn sum_and_gradient(&self, embedding: &Matrix, rows: &[u32], batch_rows: usize, gradient: &mut Matrix) -> f64 {
        let mut sum = 0.0;
        for (i, &row) in rows.iter().enumerate() {
            let target = self.target(embedding.row(i), row as usize);
            for ((g, z), t) in gradient.row_mut(i).iter_mut().zip(embedding.row(i)).zip(target) {
                sum += 0.5 * f64::from(z - t).powi(2);
                *g = (z - t) / batch_rows as f32;
            }
        }
        sum
    }
}

/// What is minimised in a test of steps.
struct Objective {
    weights: Vec<f32>,
    penalty: L2Penalty,
    reconstruction: f64,
    pull: Option<Pull>,
}

impl Objective {
    fn settings(&self) -> StepSettings<'_> {
        StepSettings {
            learning_rate: 0.003,
            penalty: self.penalty,
            reconstruction: self.reconstruction,
            embedding: self.pull.as_ref().map(|pull| pull as &dyn EmbeddingLoss),
        }
    }

    fn loss(&self) -> WeightedMse {
        WeightedMse { weights: self.weights.clone() }
    }
}

/// Rows of the steps' batches: full ones and a last one that is shorter, in no order, twice.
fn batches(rows: usize) -> Vec<Vec<u32>> {
    let order: Vec<u32> = (0..rows).map(|i| (i * 7919 % rows) as u32).collect();
    let epoch: Vec<Vec<u32>> = order.chunks(100).map(<[u32]>::to_vec).collect();
    [epoch.clone(), epoch].concat()
}

/// The losses of every step, and the state after the last.
fn steps(
    architecture: &Architecture,
    rows: &Dense<'_>,
    objective: &Objective,
    threads: usize,
) -> (Vec<StepLoss>, TrainerState) {
    let device = Cpu::new(threads);
    let parameters = initialise(architecture, Seed(9));
    let mut trainer = device.trainer(rows, architecture, &parameters, objective.loss(), 100).expect("has room");
    let batches = batches(dacpipe::kernel::Rows::len(rows));
    trainer.load(&batches[0]).expect("rows in memory");
    let next = batches[1..].iter().map(Vec::as_slice).chain([&[][..]]);
    let losses = next.map(|next| trainer.step(next, &objective.settings()).expect("rows in memory")).collect();
    (losses, trainer.state().expect("is there"))
}

fn assert_steps_equal_candle_s(architecture: &Architecture, objective: &Objective) -> Result<()> {
    let (dim, rows) = (architecture.dim_in(), 230);
    let x = values(rows * dim, 6);
    let (losses, state) = steps(architecture, &Dense::new(&x, dim), objective, 2);
    let oracle = Oracle::new(architecture, &initialise(architecture, Seed(9)))?;
    let settings = candle_nn::ParamsAdamW { lr: 0.003, weight_decay: 0.0, ..Default::default() };
    let mut adam = candle_nn::AdamW::new(oracle.variables.clone(), settings)?;
    for (step, (batch, ours)) in batches(rows).iter().zip(&losses).enumerate() {
        let gathered = batch.iter().flat_map(|&row| &x[row as usize * dim..][..dim]).copied().collect();
        let input = Tensor::from_vec(gathered, (batch.len(), dim), &Device::Cpu)?;
        let (embedding, output) = oracle.forward(&input)?;
        let reconstruction = oracle.reconstruction_loss(&input, &output, &objective.weights)?;
        let what = format!("loss of step {step}");
        assert_close(&what, &[ours.reconstruction as f32], &[reconstruction.to_scalar()?], 1e-4);
        let mut all = ((reconstruction * objective.reconstruction)? + oracle.penalty(objective.penalty)?)?;
        if let Some(pull) = &objective.pull {
            let pull = pull.of_candle(&embedding, batch)?;
            assert_close(&what, &[ours.embedding as f32], &[pull.to_scalar()?], 1e-4);
            all = (all + pull)?;
        }
        adam.backward_step(&all)?;
    }
    for (place, variable) in architecture.tensors().into_iter().zip(&oracle.variables) {
        assert_close(&place.name, &state.parameters[place.range], &flat(variable), 2e-3);
    }
    let penalty = objective.penalty.value(&state.parameters);
    assert_close("penalty", &[penalty as f32], &[oracle.penalty(objective.penalty)?.to_scalar()?], 1e-3);
    Ok(())
}

/// The penalties that are tried.
fn penalties() -> [L2Penalty; 3] {
    let penalty = |beta, form| L2Penalty { beta, form };
    [penalty(1e-3, PenaltyForm::Squared), penalty(1e-2, PenaltyForm::Norm), penalty(0.0, PenaltyForm::Norm)]
}

/// Steps of the trainer against candle's AdamW without its own decay, on a loss with the penalty in it.
#[test]
fn steps_of_adam_equal_candle_s() -> Result<()> {
    let architecture = Architecture::dac(23, &[17, 9, 5], None);
    for penalty in penalties() {
        let objective = Objective { weights: values(23, 2), penalty, reconstruction: 1.0, pull: None };
        assert_steps_equal_candle_s(&architecture, &objective)?;
    }
    Ok(())
}

/// The same with a loss at the embedding, which is added to the reconstruction loss, to a part of it, or replaces it.
#[test]
fn steps_with_a_loss_at_the_embedding_equal_candle_s() -> Result<()> {
    for architecture in architectures() {
        let (dim, code) = (architecture.dim_in(), architecture.dim_embedding());
        for (i, penalty) in penalties().into_iter().enumerate() {
            let pull = match i {
                1 => Pull::ToNearest(values(3 * code, 31)),
                _ => Pull::ToOwn(values(230 * code, 17)),
            };
            let weights = if i == 0 { Vec::new() } else { values(dim, 2) };
            let objective = Objective { weights, penalty, reconstruction: [1.0, 0.25, 0.0][i], pull: Some(pull) };
            assert_steps_equal_candle_s(&architecture, &objective)?;
        }
    }
    Ok(())
}

#[test]
fn a_loss_at_the_embedding_does_not_depend_on_threads() {
    let architecture = Architecture::dac(23, &[17, 9, 5], None);
    let x = values(230 * 23, 6);
    let pull = Some(Pull::ToNearest(values(4 * 5, 3)));
    let objective = Objective { weights: values(23, 2), penalty: penalties()[1], reconstruction: 0.5, pull };
    let of = |threads| steps(&architecture, &Dense::new(&x, 23), &objective, threads);
    assert_eq!(of(1), of(2));
    assert_eq!(of(1), of(5));
}

/// Without a loss at the embedding, a step has the same bits as one with only the reconstruction loss: forward,
/// backward and Adam by the network's own methods.
#[test]
fn without_a_loss_at_the_embedding_steps_have_the_bits_of_the_reconstruction_s() {
    let architecture = Architecture::dac(23, &[17, 9, 5], None);
    let (x, penalty) = (values(230 * 23, 6), penalties()[1]);
    let objective = Objective { weights: values(23, 2), penalty, reconstruction: 1.0, pull: None };
    let (losses, state) = steps(&architecture, &Dense::new(&x, 23), &objective, 2);
    let (pool, loss) = (Pool::new(1), objective.loss());
    let mut network = Mlp::new(architecture.clone(), &initialise(&architecture, Seed(9)));
    let zeros = || vec![0.0; network.parameters().len()];
    let (mut first, mut second) = (zeros(), zeros());
    for (step, (batch, ours)) in (1..).zip(batches(230).iter().zip(&losses)) {
        let (mut sum, mut passes) = (0.0, Vec::new());
        for rows in batch.chunks(PASS_ROWS) {
            let mut pass = network.new_pass();
            pass.input_mut().set_rows(rows.len());
            pass.input_mut().gather(&x, rows);
            network.forward(&mut pass);
            let (input, output, gradient) = pass.reconstruction();
            sum += loss.sum_and_gradient(input, output, batch.len(), 1.0, gradient);
            network.backward(&mut pass, None);
            passes.push(pass);
        }
        assert_eq!(*ours, StepLoss { reconstruction: sum / batch.len() as f64, embedding: 0.0 });
        let adam = Adam::default().step(step, 0.003, penalty.weight_decay(network.parameters(), &pool));
        let rule = |p: &mut [f32], g: &[f32], [m, v]: [&mut [f32]; 2]| adam.apply(p, g, m, v);
        network.update(&passes, [&mut first, &mut second], &pool, &rule);
    }
    assert_eq!(state, TrainerState { steps: 6, parameters: network.parameters().to_vec(), first, second });
}
