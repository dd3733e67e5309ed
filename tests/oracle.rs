//! The same network in plain candle with automatic differentiation: losses, gradients and steps must agree.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::{Linear, Module, Optimizer, ops::sigmoid};
use dacpipe::Seed;
use dacpipe::kernel::{Dense, Matrix, Pool};
use dacpipe::loss::{L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::network::{Activation, Architecture, Layer, Mlp, Network, PASS_ROWS, Pass, initialise};
use dacpipe::train::{StepSettings, Trainer};

/// The oracle: one variable a tensor, in the order of `Architecture::tensors`.
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
    let dense = |inputs, outputs, activation| Layer { inputs, outputs, activation };
    vec![
        Architecture::dac(23, &[17, 9, 5], None),
        Architecture::dac(50, &[48, 33, 16, 12, 10], None),
        Architecture::dac(1, &[1], Some(&[])),
        Architecture::dac(7, &[3], Some(&[4, 6])),
        Architecture {
            encoder: vec![dense(12, 20, Activation::Sigmoid), dense(20, 4, Activation::Tanh)],
            decoder: vec![dense(4, 9, Activation::Relu), dense(9, 12, Activation::Identity)],
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
        sum += loss.sum_and_gradient(input, output, rows, gradient);
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

/// A loss at the embedding joins the reconstruction's: half the sum of its squares.
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

/// Smooth activations only: a difference across the kink of a ReLU is no slope.
#[test]
fn gradients_equal_finite_differences() {
    let dense = |inputs, outputs, activation| Layer { inputs, outputs, activation };
    let architecture = Architecture {
        encoder: vec![dense(9, 6, Activation::Tanh), dense(6, 3, Activation::Identity)],
        decoder: vec![dense(3, 6, Activation::Tanh), dense(6, 9, Activation::Sigmoid)],
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

/// Steps of the trainer against candle's AdamW without its own decay, on a loss with the penalty in it.
#[test]
fn steps_of_adam_equal_candle_s() -> Result<()> {
    for (beta, form) in [(1e-3, PenaltyForm::Squared), (1e-2, PenaltyForm::Norm), (0.0, PenaltyForm::Norm)] {
        steps_equal_candle_s(L2Penalty { beta, form })?;
    }
    Ok(())
}

fn steps_equal_candle_s(penalty: L2Penalty) -> Result<()> {
    let architecture = Architecture::dac(23, &[17, 9, 5], None);
    let (dim, rows, rate) = (23, 100, 0.003);
    let (x, weights) = (values(rows * dim, 6), values(dim, 2));
    let parameters = initialise(&architecture, Seed(9));
    let loss = WeightedMse { weights: weights.clone() };
    let mut trainer = Trainer::new(Mlp::new(architecture.clone(), &parameters), loss, rows);
    let oracle = Oracle::new(&architecture, &parameters)?;
    let settings = candle_nn::ParamsAdamW { lr: rate, weight_decay: 0.0, ..Default::default() };
    let mut adam = candle_nn::AdamW::new(oracle.variables.clone(), settings)?;
    let (data, pool) = (Dense::new(&x, dim), Pool::new(2));
    let all: Vec<u32> = (0..rows as u32).collect();
    let input = Tensor::from_slice(&x, (rows, dim), &Device::Cpu)?;
    trainer.load(&data, &all, &pool).expect("rows in memory");
    for step in 0..8 {
        let value = penalty.value(trainer.parameters());
        assert_close("penalty", &[value as f32], &[oracle.penalty(penalty)?.to_scalar()?], 1e-4);
        let settings = StepSettings { learning_rate: rate, penalty };
        let ours = trainer.step(&data, &all, &pool, &settings).expect("rows in memory");
        let (_, output) = oracle.forward(&input)?;
        let theirs = oracle.reconstruction_loss(&input, &output, &weights)?;
        assert_close(&format!("loss of step {step}"), &[ours as f32], &[theirs.to_scalar()?], 1e-4);
        adam.backward_step(&(theirs + oracle.penalty(penalty)?)?)?;
    }
    for (place, variable) in architecture.tensors().into_iter().zip(&oracle.variables) {
        assert_close(&place.name, &trainer.parameters()[place.range], &flat(variable), 2e-3);
    }
    Ok(())
}
