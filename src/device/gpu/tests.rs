//! The trainer on the emulated machine or a GPU, beside the CPU's.

use super::Trainer;
use crate::cuda::tested;
use crate::device::{Cpu, Device, Met, StepLoss, StepSettings, Trainer as _};
use crate::kernel::{Dense, Matrix};
use crate::loss::{CoordinateLoss, EmbeddingLoss, L2Penalty, PenaltyForm, WeightedMse};
use crate::network::{Activation, Architecture, initialise};
use crate::seed::Seed;

const DIM: usize = 12;
const ROWS: usize = 150;
const BATCH: usize = 40;

/// Numbers in [0, 1) by a fixed rule.
fn unit(len: usize, salt: u32) -> Vec<f32> {
    let mix = |i: usize| (i as u32).wrapping_add(salt).wrapping_mul(2_654_435_761);
    let hash = |i: usize| (mix(i) ^ (mix(i) >> 15)).wrapping_mul(2_246_822_519);
    (0..len).map(|i| (hash(i) >> 8) as f32 / 16_777_216.0).collect()
}

/// A network of all activations.
fn architecture() -> Architecture {
    use Activation::{Elu, Identity, LeakyRelu, Relu, Sigmoid, Softplus, Tanh};
    let mut architecture = Architecture::dac(DIM, &[16, 9, 3], None);
    let activations = [Relu, LeakyRelu, Identity, Tanh, Softplus, Elu, Sigmoid];
    let layers = architecture.encoder.iter_mut().chain(&mut architecture.decoder);
    layers.zip(activations).for_each(|(layer, activation)| layer.activation = activation);
    architecture
}

/// A loss that is no distance from places.
#[derive(Debug)]
struct Squares;

impl EmbeddingLoss for Squares {
    fn sum_and_gradient(&self, embedding: &Matrix, rows: &[u32], batch_rows: usize, gradient: &mut Matrix) -> f64 {
        let mut sum = 0.0;
        for i in 0..rows.len() {
            for (slope, &z) in gradient.row_mut(i).iter_mut().zip(embedding.row(i)) {
                sum += f64::from(z) * f64::from(z);
                *slope = 2.0 * z / batch_rows as f32;
            }
        }
        sum
    }
}

/// The batches of an epoch, the last of them shorter.
fn batches() -> Vec<Vec<u32>> {
    let order: Vec<u32> = (0..ROWS as u32).map(|i| i * 7 % ROWS as u32).collect();
    order.chunks(BATCH).map(<[u32]>::to_vec).collect()
}

/// The mean losses of `epochs` epochs, read once an epoch if `ahead`.
fn epochs(
    trainer: &mut dyn crate::device::Trainer,
    settings: &StepSettings<'_>,
    epochs: usize,
    ahead: bool,
) -> Vec<StepLoss> {
    let batches = batches();
    let epoch = |_| {
        trainer.load(&batches[0]).unwrap();
        let mut sums = StepLoss::default();
        for (i, batch) in batches.iter().enumerate() {
            let next = batches.get(i + 1).map_or(&[][..], Vec::as_slice);
            let loss = match ahead {
                true => trainer.step_ahead(next, settings).unwrap(),
                false => Some(trainer.step(next, settings).unwrap()),
            };
            let loss = loss.unwrap_or_default();
            sums.reconstruction += loss.reconstruction * batch.len() as f64;
            sums.embedding += loss.embedding * batch.len() as f64;
        }
        let Met { sums: met, failed } = trainer.met().unwrap();
        assert_eq!(failed, None);
        let mean = |sum: f64| sum / ROWS as f64;
        StepLoss {
            reconstruction: mean(sums.reconstruction + met.reconstruction),
            embedding: mean(sums.embedding + met.embedding),
        }
    };
    (0..epochs).map(epoch).collect()
}

fn settings<'a>(beta: f64, form: PenaltyForm, embedding: Option<&'a dyn EmbeddingLoss>) -> StepSettings<'a> {
    StepSettings { learning_rate: 3e-3, penalty: L2Penalty { beta, form }, reconstruction: 0.7, embedding }
}

#[test]
fn epochs_have_the_losses_and_the_parameters_of_the_cpu() {
    let values = unit(ROWS * DIM, 1);
    let (rows, architecture, cpu) = (Dense::new(&values, DIM), architecture(), Cpu::new(2));
    let parameters = initialise(&architecture, Seed(2));
    let numbers: Vec<u32> = (0..ROWS as u32).filter(|i| i % 3 > 0).collect();
    let targets = unit(numbers.len() * 3, 5);
    let coordinates = CoordinateLoss::new(ROWS, &numbers, &targets, 3, 0.5).sharing(1.5);
    let losses: [Option<&dyn EmbeddingLoss>; 3] = [None, Some(&coordinates), Some(&Squares)];
    let penalties = [(1e-2, PenaltyForm::Norm), (1e-3, PenaltyForm::Squared), (0.0, PenaltyForm::Norm)];
    for ((i, embedding), (beta, form)) in losses.into_iter().enumerate().zip(penalties) {
        let loss = WeightedMse { weights: if i == 1 { Vec::new() } else { unit(DIM, 9) } };
        let settings = settings(beta, form, embedding);
        let mut theirs = cpu.trainer(&rows, &architecture, &parameters, loss.clone(), BATCH).unwrap();
        let expected = epochs(&mut *theirs, &settings, 6, false);
        let expected_state = theirs.state().unwrap();
        for (ahead, resident) in [(true, usize::MAX), (false, 0)] {
            let Some(machine) = tested() else { return };
            let mut ours = Trainer::new(machine, &rows, (&architecture, &parameters), &loss, BATCH, resident).unwrap();
            let found = epochs(&mut ours, &settings, 6, ahead);
            for (found, expected) in found.iter().zip(&expected) {
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-4 * b.abs();
                assert!(near(found.reconstruction, expected.reconstruction), "{i}: {found:?} {expected:?}");
                assert!(near(found.embedding, expected.embedding), "{i}: {found:?} {expected:?}");
            }
            let state = ours.state().unwrap();
            assert_eq!(state.steps, expected_state.steps);
            let both = state.parameters.iter().zip(&expected_state.parameters);
            let worst = both.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 1e-3, "{i}: {worst}");
            // Steps were recorded, of whole batches and of the last; those with a loss of the host are not.
            let shown = format!("{ours:?}");
            let kinds = shown.matches("Replay").count() + shown.matches("a CUDA graph").count();
            assert_eq!(kinds, if i == 2 { 0 } else { 2 });
        }
    }
}

#[test]
fn what_training_needs_is_told_for_any_widths() {
    let dac = Architecture::dac(561, &[256, 128, 64, 32, 16, 12, 10], None);
    let bytes = Trainer::bytes(&dac, 256);
    // Four arrays of 380 000 parameters, and a batch of 4 000 values a row.
    assert!((8 << 20..16 << 20).contains(&bytes), "{bytes}");
    assert!(Trainer::bytes(&Architecture::dac(2, &[65_536, 65_536], None), 1) > 100 << 30);
}

#[test]
fn what_is_restored_goes_on_with_the_same_bits() {
    let values = unit(ROWS * DIM, 1);
    let (rows, architecture) = (Dense::new(&values, DIM), architecture());
    let parameters = initialise(&architecture, Seed(2));
    let settings = settings(1e-3, PenaltyForm::Norm, None);
    let trainer = || {
        let loss = WeightedMse::default();
        tested().map(|m| Trainer::new(m, &rows, (&architecture, &parameters), &loss, BATCH, usize::MAX).unwrap())
    };
    let (Some(mut whole), Some(mut first), Some(mut second)) = (trainer(), trainer(), trainer()) else { return };
    epochs(&mut whole, &settings, 5, true);
    epochs(&mut first, &settings, 2, true);
    second.restore(&first.state().unwrap()).unwrap();
    epochs(&mut second, &settings, 3, false);
    assert!(whole.state().unwrap() == second.state().unwrap());
}

/// The batch is named, and nothing has moved since.
#[test]
fn a_loss_that_is_not_finite_stops_all_steps_until_it_is_read() {
    let mut values = unit(ROWS * DIM, 1);
    let bad = batches()[2][5];
    values[bad as usize * DIM] = 1e30;
    let (rows, architecture) = (Dense::new(&values, DIM), architecture());
    let parameters = initialise(&architecture, Seed(2));
    let Some(machine) = tested() else { return };
    // The weighted error of that value is too large for 32 bits.
    let loss = WeightedMse { weights: vec![1e10; DIM] };
    let mut trainer = Trainer::new(machine, &rows, (&architecture, &parameters), &loss, BATCH, usize::MAX).unwrap();
    let settings = settings(0.0, PenaltyForm::Norm, None);
    let batches = batches();
    trainer.load(&batches[0]).unwrap();
    trainer.step_ahead(&batches[1], &settings).unwrap();
    trainer.step_ahead(&batches[2], &settings).unwrap();
    let before = trainer.state().unwrap();
    trainer.step_ahead(&batches[3], &settings).unwrap();
    trainer.step_ahead(&[], &settings).unwrap();
    assert!(trainer.state().unwrap() == before);
    let (batch, loss) = trainer.met().unwrap().failed.unwrap();
    assert!(batch == 3 && !loss.is_finite(), "{batch} {loss:?}");
    trainer.load(&batches[0]).unwrap();
    assert!(trainer.step(&[], &settings).unwrap().is_finite());
    assert_eq!(trainer.state().unwrap().steps, before.steps + 1);
}
