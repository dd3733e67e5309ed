use std::sync::Mutex;

use super::*;
use crate::device::{Cpu, Device};
use crate::error::Kind;
use crate::event::{Control, Observer};
use crate::kernel::{Dense, Rows};
use crate::seed::Seed;
use crate::stage::{Apply, Artifact, Checkpoint, NoCheckpoint};
use crate::testing::Scattered;

/// Rows on a curve in 20 dimensions, inside [0, 1].
fn curve(rows: usize) -> Vec<f32> {
    let value = |i: usize, j: usize| 0.5 + 0.4 * (i as f32 * 0.11 + j as f32 * 0.3).sin();
    (0..rows).flat_map(|i| (0..20).map(move |j| value(i, j))).collect()
}

fn spec() -> AutoencoderSpec {
    AutoencoderSpec { encoder: vec![16, 8, 3], epochs: 6, batch_size: 100, ..Default::default() }
}

fn training(rows: &dyn Rows) -> Training<'_> {
    Training::new(rows)
}

fn fit_with(spec: AutoencoderSpec, data: &Training<'_>, threads: usize, checkpoint: &dyn Checkpoint) -> Result<Fitted> {
    let (device, control) = (Cpu::new(threads), Control::default());
    let cx = FitContext { seed: Seed(11), device: &device, control: &control, checkpoint, memory: u64::MAX };
    Autoencoder { spec }.fit(data, &cx)
}

fn losses(fitted: &Fitted) -> Vec<f64> {
    fitted.figures["loss"].as_array().expect("a list").iter().filter_map(Value::as_f64).collect()
}

#[test]
fn the_loss_falls_on_data_with_structure() {
    let values = curve(300);
    let fitted = fit_with(
        AutoencoderSpec { epochs: 60, batch_size: 20, ..spec() },
        &training(&Dense::new(&values, 20)),
        2,
        &NoCheckpoint,
    )
    .expect("trains");
    let losses = losses(&fitted);
    assert_eq!(losses.len(), 60);
    assert!(losses[59] < 0.4 * losses[0], "{} then {}", losses[0], losses[59]);
    assert_eq!(fitted.transform.vector_map().map(|m| (m.dim_in(), m.dim_out())), Some((20, 3)));
    assert!(fitted.summary.contains("after 60 epochs"));
}

#[test]
fn the_number_of_threads_does_not_change_the_bits() {
    let values = curve(230);
    let weights: Vec<f32> = (0..20).map(|i| i as f32 / 20.0).collect();
    let rows = Dense::new(&values, 20);
    let data = Training { feature_weights: Some(&weights), ..training(&rows) };
    let fits: Vec<Artifact> = (1..=3)
        .map(|threads| fit_with(spec(), &data, threads, &NoCheckpoint).expect("trains").transform.save())
        .collect();
    assert_eq!(fits[0], fits[1]);
    assert_eq!(fits[0], fits[2]);
}

#[test]
fn where_the_rows_lie_does_not_change_the_bits() {
    let values = curve(130);
    let dense = Dense::new(&values, 20);
    let one = fit_with(spec(), &training(&dense), 2, &NoCheckpoint).expect("trains");
    let other = fit_with(spec(), &training(&Scattered(dense)), 2, &NoCheckpoint).expect("trains");
    assert_eq!(one.transform.save(), other.transform.save());
}

#[derive(Default)]
struct Memory(Mutex<Option<Artifact>>);

impl Checkpoint for Memory {
    fn save(&self, state: &Artifact) -> Result<()> {
        *self.0.lock().expect("not poisoned") = Some(state.clone());
        Ok(())
    }

    fn load(&self) -> Result<Option<Artifact>> {
        Ok(self.0.lock().expect("not poisoned").clone())
    }
}

/// Cancels the run after some epochs.
struct CancelAfter {
    epochs: u64,
    control: Mutex<Option<Control>>,
}

impl Observer for CancelAfter {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Progress { done, .. } if *done == self.epochs) {
            self.control.lock().expect("not poisoned").as_ref().expect("set").cancel();
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_bits() {
    let values = curve(230);
    let rows = Dense::new(&values, 20);
    let whole = fit_with(spec(), &training(&rows), 2, &NoCheckpoint).expect("trains");
    let memory = Memory::default();
    let observer = Arc::new(CancelAfter { epochs: 2, control: Mutex::default() });
    let control = Control::new(Arc::clone(&observer) as Arc<dyn Observer>);
    *observer.control.lock().expect("not poisoned") = Some(control.clone());
    let device = Cpu::new(2);
    let cx = FitContext { seed: Seed(11), device: &device, control: &control, checkpoint: &memory, memory: u64::MAX };
    let stopped = Autoencoder { spec: spec() }.fit(&training(&rows), &cx).expect_err("is cancelled");
    assert_eq!(stopped.kind(), Kind::Cancelled);
    let saved = memory.load().expect("loads").expect("two epochs were saved");
    assert_eq!(saved.settings["loss_bits"].as_array().map(Vec::len), Some(2));
    let resumed = fit_with(spec(), &training(&rows), 1, &memory).expect("trains");
    assert_eq!(resumed.transform.save(), whole.transform.save());
    assert_eq!(losses(&resumed), losses(&whole));
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let values = curve(40);
    let rows = Dense::new(&values, 20);
    let memory = Memory::default();
    let architecture = spec().architecture(20);
    let parameters = initialise(&architecture, Seed(1));
    let device = Cpu::new(1);
    let trainer = device.trainer(&rows, &architecture, &parameters, WeightedMse::default(), 10).expect("has room");
    let loss = StepLoss { reconstruction: 0.1, embedding: 0.3 };
    let learner =
        Fused { trainer, penalty: spec().penalty(), reconstruction: 1.0, factor: 1.0, embedding: None, steps: 0 };
    let state = State { losses: vec![loss], learner: learner.state().expect("is there"), best: None };
    memory.save(&state.to_artifact(&Artifact::default())).expect("saves");
    let other = AutoencoderSpec { encoder: vec![4], ..spec() };
    let e = fit_with(other, &training(&rows), 1, &memory).expect_err("does not fit");
    assert_eq!(e.kind(), Kind::Model);
    assert!(e.to_string().contains("this network has"), "{e}");
    memory.0.lock().expect("not poisoned").as_mut().expect("saved").tensors.remove("last.second");
    let e = fit_with(spec(), &training(&rows), 1, &memory).expect_err("is damaged");
    assert!(e.to_string().contains("no usable second"), "{e}");
}

#[test]
fn a_loss_that_is_not_finite_names_epoch_batch_and_learning_rate() {
    let mut values = curve(40);
    values[7] = f32::NAN;
    let e = fit_with(spec(), &training(&Dense::new(&values, 20)), 1, &NoCheckpoint).expect_err("is not finite");
    assert_eq!(e.kind(), Kind::Compute);
    assert!(e.to_string().contains("NaN in epoch 1, batch 1 of 1, at learning rate 0.003"), "{e}");
}

#[test]
fn early_stop_ends_training_and_counts_relative_gains() {
    let stop = EarlyStop { patience: 2, min_delta: 0.01 };
    assert!(!stop.reached(&[]));
    assert!(!stop.reached(&[1.0, 0.995]));
    assert!(stop.reached(&[1.0, 0.995, 0.991]));
    assert!(!stop.reached(&[1.0, 0.995, 0.9]));
    let values = vec![0.5; 20 * 30];
    let spec = AutoencoderSpec { epochs: 500, early_stop: Some(EarlyStop { patience: 3, min_delta: 0.5 }), ..spec() };
    let fitted = fit_with(spec, &training(&Dense::new(&values, 20)), 1, &NoCheckpoint).expect("trains");
    assert!(losses(&fitted).len() < 500);
}

#[test]
fn one_row_and_one_feature_can_be_learned_from() {
    let tiny = AutoencoderSpec { encoder: vec![1], batch_size: 256, ..spec() };
    let fitted = fit_with(tiny.clone(), &training(&Dense::new(&[0.25], 1)), 2, &NoCheckpoint).expect("trains");
    assert_eq!(losses(&fitted).len(), 6);
    let zeros = vec![0.0; 20 * 3];
    let fitted = fit_with(spec(), &training(&Dense::new(&zeros, 20)), 2, &NoCheckpoint).expect("trains");
    assert!(losses(&fitted).iter().all(|l| l.is_finite()));
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let values = curve(10);
    let rows = Dense::new(&values, 20);
    let refused = |data: &Training<'_>, kind: Kind, part: &str| {
        let e = fit_with(spec(), data, 1, &NoCheckpoint).expect_err("is refused");
        assert!(e.kind() == kind && e.to_string().contains(part), "{e}");
    };
    refused(&training(&Dense::new(&[], 20)), Kind::Input, "no rows");
    let weights = |w: &'static [f32]| Training { feature_weights: Some(w), ..training(&rows) };
    refused(&weights(&[1.0; 3]), Kind::Input, "3 feature weights for 20");
    refused(&weights(&[0.0; 20]), Kind::Input, "all feature weights are 0");
    static NEGATIVE: [f32; 20] = [-1.0; 20];
    refused(&weights(&NEGATIVE), Kind::Input, "feature 0 is -1");
}

#[test]
fn every_wrong_setting_is_named_at_once() {
    let spec = AutoencoderSpec {
        encoder: vec![4, 0],
        decoder: Some(vec![100_000]),
        epochs: 0,
        batch_size: 0,
        learning_rate: f64::NAN,
        decay: Decay::Step { every: 0, factor: 2.0 },
        l2: -1.0,
        l2_form: PenaltyForm::Norm,
        early_stop: Some(EarlyStop { patience: 0, min_delta: 1.0 }),
        keep_decoder: true,
        reconstruction: 0.0,
        coordinates: 0.0,
        hold_out: 1.0,
    };
    let problems = spec.validate(3);
    assert_eq!(problems.len(), 12, "{problems:#?}");
    assert!(problems[0].contains("encoder[1] is 0"));
    let decay = Decay::Exponential { rate: 0.0 };
    assert_eq!(AutoencoderSpec { decay, ..Default::default() }.validate(3).len(), 1);
    assert_eq!(AutoencoderSpec { encoder: vec![], ..Default::default() }.validate(0).len(), 2);
}

/// More than a hundred steps of the fused trainer and on candle's tape, from the same parameters and with the same
/// batches.
#[test]
fn both_roads_lose_the_same() {
    let values = curve(300);
    let rows = Dense::new(&values, 20);
    let weights: Vec<f32> = (0..20).map(|i| 0.2 + (i % 5) as f32).collect();
    let laid_out: Vec<u32> = (0..300).filter(|i| i % 3 != 1).collect();
    let places = laid_out.iter().flat_map(|&i| [(i as f32).sin(), (i as f32).cos(), 0.1]).collect();
    let coordinates = Coordinates { dim: 3, rows: laid_out, values: places };
    for (form, taught) in [(PenaltyForm::Norm, false), (PenaltyForm::Squared, true)] {
        let data = Training {
            feature_weights: Some(&weights),
            coordinates: taught.then_some(&coordinates),
            ..Training::new(&rows)
        };
        let spec = AutoencoderSpec {
            encoder: vec![12, 3],
            epochs: 12,
            batch_size: 32,
            l2: 1e-3,
            l2_form: form,
            ..AutoencoderSpec::default()
        };
        let on = |device: Cpu| {
            let control = Control::default();
            let cx = FitContext {
                seed: Seed(11),
                device: &device,
                control: &control,
                checkpoint: &NoCheckpoint,
                memory: u64::MAX,
            };
            Autoencoder { spec: spec.clone() }.fit(&data, &cx).expect("trains")
        };
        let (fused, taped) = (on(Cpu::new(2)), on(Cpu::new(2).unfused()));
        for (a, b) in losses(&fused).iter().zip(losses(&taped)) {
            assert!((a - b).abs() <= 1e-4 * a.abs(), "{form:?}: fused {a}, on the tape {b}");
        }
        let map = |fitted: &Fitted| {
            let mut out = vec![0.0; 300 * 3];
            fitted.transform.vector_map().expect("embeds").map(&values, &mut out).expect("embeds");
            out
        };
        let apart = map(&fused).iter().zip(map(&taped)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 5e-3, "{form:?}: embeddings are {apart} apart");
    }
}
