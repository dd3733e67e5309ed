//! The methods on small data: their steps beside PyTorch's, what an interrupt leaves, what is refused.

use std::sync::Mutex;

use candle_core::{Device, Tensor as Array};
use serde_json::json;

use super::*;
use crate::Kind;
use crate::device::Cpu;
use crate::event::{Control, Observer};
use crate::kernel::Pool;
use crate::loss::{Hardening, L2Penalty, PenaltyForm, ReconstructionLoss, Reduction};
use crate::method::Method;
use crate::network::{Builder, CoderSpec, LayerSpec, OptimizerSpec};
use crate::seed::Seed;
use crate::stage::{Apply, Artifact, Checkpoint, Coordinates, NoCheckpoint};
use crate::train::{Clustering, Competition, EmbeddingTerm, Experts, Learner, RowError, Tape, Terms};

fn layers(json: Value) -> Vec<LayerSpec> {
    serde_json::from_value(json).unwrap()
}

/// A network whose parameter number k is `0.4 sin(1.3 i + k)`, and one more for the scale of batch norm.
fn coder(name: &str, shape: &[usize], encoder: Value, decoder: Value, builder: &Builder) -> Coder {
    let input = crate::network::RowShape::of(shape).unwrap();
    let spec =
        CoderSpec { input, encoder: layers(encoder), decoder: layers(decoder), initialisation: Default::default() };
    let coder = Coder::new(name, &spec, builder).unwrap();
    for (k, (name, parameter)) in coder.parameters().into_iter().enumerate() {
        let values: Vec<f32> =
            (0..parameter.value().elem_count()).map(|i| (0.4 * (1.3 * i as f64 + k as f64).sin()) as f32).collect();
        let value = Array::from_vec(values, parameter.value().shape(), &Device::Cpu).unwrap();
        let of_norm = name.ends_with("1.weight") && parameter.value().rank() == 1;
        parameter.set(&(value + if of_norm { 1.0 } else { 0.0 }).unwrap()).unwrap();
    }
    coder
}

/// Twelve rows of `dim` values.
fn rows(dim: usize) -> Vec<f32> {
    let value = |i: usize, j: usize| 0.5 + 0.5 * (0.9 * (i * dim + j) as f64 + (i % 3) as f64).sin();
    (0..12).flat_map(|i| (0..dim).map(move |j| value(i, j) as f32)).collect()
}

/// Three centroids of two values.
fn centroids() -> Array {
    let values: Vec<f32> = (0..6).map(|i| (0.5 * (2.1 * f64::from(i)).sin()) as f32).collect();
    Array::from_vec(values, (3, 2), &Device::Cpu).unwrap()
}

/// What ten steps over all rows minimise.
fn ten_steps(learner: &mut dyn Learner, learning_rate: f64) -> Vec<f64> {
    let all: Vec<u32> = (0..12).collect();
    learner.load(&all).unwrap();
    let step = |i: u64| {
        learner.refresh(i).unwrap();
        let loss = learner.step(&all, learning_rate).unwrap().unwrap();
        learner.total(&loss)
    };
    (0..10).map(step).collect()
}

fn near(ours: &[f64], theirs: &[f64]) {
    let close = ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 2e-5 * b.abs().max(1e-2));
    assert!(close && ours.len() == theirs.len(), "ours {ours:?}, PyTorch's {theirs:?}");
}

fn builder() -> Builder {
    Builder::on_cpu(Arc::new(Pool::new(2)), Seed(1))
}

fn mse() -> ReconstructionLoss {
    ReconstructionLoss { measure: Default::default(), over_values: Reduction::Mean, weights: None }
}

fn no_penalty() -> L2Penalty {
    L2Penalty { beta: 0.0, form: PenaltyForm::Squared }
}

/// Of PyTorch 2.15, with parameters, rows and centroids filled as above:
///
/// ```python
/// e = [nn.Linear(6, 5), nn.Linear(5, 2)]; d = [nn.Linear(2, 5), nn.Linear(5, 6)]
/// mu = nn.Parameter(centroids)
/// opt = torch.optim.SGD([p for l in e for p in l.parameters()] + [mu], lr=0.5, momentum=0.9)
/// for step in range(10):
///     z = e[1](F.relu(e[0](x)))
///     q = 1 / (1 + ((z[:, None] - mu[None]) ** 2).sum(2)); q = q / q.sum(1, keepdim=True)
///     if step % 5 == 0: p = (q**2 / q.sum(0)).detach(); p = p / p.sum(1, keepdim=True)
///     loss = (p * (p.log() - q.log())).sum() / 12; print(loss)
///     opt.zero_grad(); loss.backward(); opt.step()
/// ```
#[test]
fn ten_steps_of_hardening_lose_what_pytorch_loses() {
    let builder = builder();
    let dense = |n: usize, activation: &str| json!({ "kind": "dense", "outputs": n, "activation": activation });
    let encoder = json!([dense(5, "relu"), dense(2, "identity")]);
    let coder = coder("", &[6], encoder, json!([dense(5, "relu"), dense(6, "identity")]), &builder);
    let values = rows(6);
    let data = Dense::new(&values, 6);
    let clustering = Clustering {
        factor: 1.0,
        loss: Box::new(Hardening::new(&centroids(), Reduction::Mean).unwrap()),
        every: 5,
        tolerance: 0.0,
    };
    let objective = Terms {
        coder: &coder,
        rows: &data,
        device: Device::Cpu,
        reconstruction: None,
        embedding: EmbeddingTerm::Clustering(clustering),
    };
    let sgd = OptimizerSpec::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let decoder = coder.decoder().parameters()[0].1.value().to_vec2::<f32>().unwrap();
    let mut tape = Tape::new(objective, &data, sgd, no_penalty(), &builder, 0);
    near(
        &ten_steps(&mut tape, 0.5),
        &[0.0040085, 0.0035908, 0.0029355, 0.0022054, 0.0014969, 0.0101361, 0.0067220, 0.0035929, 0.0018674, 0.0014507],
    );
    // The decoder, which has no part in the loss, stays.
    assert_eq!(coder.decoder().parameters()[0].1.value().to_vec2::<f32>().unwrap(), decoder);
}

/// Of PyTorch 2.15, the second autoencoder's first weights with their sign turned:
///
/// ```python
/// l = [nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(2, 4), nn.Linear(4, 6)]   # twice
/// opt = torch.optim.Adam([p for l in nets for m in l for p in m.parameters()], lr=0.01)
/// for step in range(10):
///     y = [torch.sigmoid(l[4](F.elu(l[3](l[2](F.elu(l[1](l[0](x)))))))) for l in nets]
///     errors = [(((y - x) ** 2).sum(1) + 1e-12).sqrt() for y in y]
///     loss = torch.stack(errors, 1).min(1).values.mean(); print(loss)
///     opt.zero_grad(); loss.backward(); opt.step()
/// ```
#[test]
fn ten_steps_of_competing_autoencoders_lose_what_pytorch_loses() {
    let builder = builder();
    let dense = |n: usize, activation: &str| json!({ "kind": "dense", "outputs": n, "activation": activation });
    let encoder = json!([
        dense(4, "identity"), { "kind": "batch_norm" }, { "kind": "activation", "activation": "elu" },
        dense(2, "identity")
    ]);
    let decoder = json!([dense(4, "elu"), dense(6, "sigmoid")]);
    let coders: Vec<Coder> = ["expert.0.", "expert.1."]
        .iter()
        .map(|name| coder(name, &[6], encoder.clone(), decoder.clone(), &builder))
        .collect();
    let first = &coders[1].parameters()[0].1;
    first.set(&first.value().neg().unwrap()).unwrap();
    let values = rows(6);
    let data = Dense::new(&values, 6);
    let objective = Experts { coders: &coders, competition: Competition::Hard, error: RowError::Norm };
    let mut tape = Tape::new(objective, &data, OptimizerSpec::default(), no_penalty(), &builder, 0);
    near(
        &ten_steps(&mut tape, 0.01),
        &[0.9073991, 0.8922010, 0.8768399, 0.8611689, 0.8451356, 0.8285198, 0.8111503, 0.7929134, 0.7730897, 0.7520781],
    );
}

/// Of PyTorch 2.15:
///
/// ```python
/// c1, b1, c2 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 2)
/// t2, t1 = nn.ConvTranspose2d(2, 3, 2), nn.ConvTranspose2d(3, 1, 3)
/// opt = torch.optim.SGD([{"params": net, "weight_decay": 1e-3}, {"params": [mu]}], lr=0.02, momentum=0.9, nesterov=True)
/// encode = lambda: c2(F.max_pool2d(F.relu(b1(c1(x))), 2)).reshape(12, 2)
/// for step in range(10):
///     if step % 5 == 0: p = target(assignments(encode(), mu))        # in evaluation mode
///     z = encode(); y = t1(F.interpolate(F.relu(t2(z.reshape(12, 2, 1, 1))), scale_factor=2))
///     loss = ((y - x) ** 2).mean() + (p * (p.log() - q.log())).sum(); print(loss)
///     opt.zero_grad(); loss.backward(); opt.step()
/// ```
#[test]
fn ten_steps_of_a_convolutional_network_lose_what_pytorch_loses() {
    let builder = builder();
    let encoder = json!([
        { "kind": "conv2d", "channels": 3, "kernel": 3 }, { "kind": "batch_norm" },
        { "kind": "activation", "activation": "relu" }, { "kind": "max_pool2d", "size": 2 },
        { "kind": "conv2d", "channels": 2, "kernel": 2 }
    ]);
    let decoder = json!([
        { "kind": "conv_transpose2d", "channels": 3, "kernel": 2, "activation": "relu" },
        { "kind": "upsample2d", "size": 2 }, { "kind": "conv_transpose2d", "channels": 1, "kernel": 3 }
    ]);
    let coder = coder("", &[1, 6, 6], encoder, decoder, &builder);
    let values = rows(36);
    let data = Dense::new(&values, 36);
    let objective = Terms {
        coder: &coder,
        rows: &data,
        device: Device::Cpu,
        reconstruction: Some((1.0, mse())),
        embedding: EmbeddingTerm::Clustering(Clustering {
            factor: 1.0,
            loss: Box::new(Hardening::new(&centroids(), Reduction::Sum).unwrap()),
            every: 5,
            tolerance: 0.0,
        }),
    };
    let sgd = OptimizerSpec::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 };
    let penalty = L2Penalty { beta: 5e-4, form: PenaltyForm::Squared };
    let mut tape = Tape::new(objective, &data, sgd, penalty, &builder, 0);
    near(
        &ten_steps(&mut tape, 0.02),
        &[0.3316045, 0.2956048, 0.2625307, 0.2345063, 0.2092008, 0.2253327, 0.1806131, 0.1750194, 0.1685963, 0.1618563],
    );
}

/// Keeps the latest state, and cancels after some events of progress.
#[derive(Default)]
struct Stop {
    saved: Mutex<Option<Artifact>>,
    left: Mutex<usize>,
    control: Mutex<Option<Control>>,
    warnings: Mutex<Vec<String>>,
}

impl Checkpoint for Stop {
    fn save(&self, state: &Artifact) -> Result<()> {
        *self.saved.lock().unwrap() = Some(state.clone());
        Ok(())
    }

    fn load(&self) -> Result<Option<Artifact>> {
        Ok(self.saved.lock().unwrap().clone())
    }
}

impl Observer for Stop {
    fn event(&self, event: &Event) {
        if let Event::Warning { message } = event {
            self.warnings.lock().unwrap().push(message.clone());
        }
        if let Event::Progress { stage, .. } = event
            && stage == DeepClustering::KIND
        {
            let mut left = self.left.lock().unwrap();
            *left = left.wrapping_sub(1);
            if *left == 0
                && let Some(control) = &*self.control.lock().unwrap()
            {
                control.cancel();
            }
        }
    }
}

/// Three groups of rows of 16 values, as images of 4 x 4 too.
fn groups() -> Vec<f32> {
    let mut random = Seed(9).stream("groups", 0);
    let value = |i: usize, j: usize, noise: f32| {
        let bright = j % 3 == i % 3;
        (if bright { 0.8 } else { 0.2 }) + 0.1 * noise
    };
    let mut values = Vec::new();
    for i in 0..90 {
        for j in 0..16 {
            values.push(value(i, j, rand::Rng::random_range(&mut random, -1.0..1.0)));
        }
    }
    values
}

fn spec(method: Method) -> MethodSpec {
    let dense = |outputs: usize| json!({ "kind": "dense", "outputs": outputs, "activation": "relu" });
    let training = |epochs: usize| json!({ "epochs": epochs, "batch_size": 16 });
    let mut given = json!({
        "k": 3, "n_init": 3,
        "encoder": [dense(8), { "kind": "dropout", "rate": 0.1 }, { "kind": "dense", "outputs": 2 }],
        "pretraining": training(3), "clustering": training(3),
    });
    match method {
        Method::Dec => given["pretraining"]["layerwise_epochs"] = json!(2),
        Method::KDae => {
            given["encoder"] = json!([dense(8), { "kind": "batch_norm" }, { "kind": "dense", "outputs": 2 }]);
            given["clustering"]["expert"] =
                json!({ "epochs": 2, "encoder": [dense(4), { "kind": "dense", "outputs": 1 }] });
        }
        Method::Aljalbout => {
            given["shape"] = json!([1, 4, 4]);
            given["encoder"] = json!([
                { "kind": "conv2d", "channels": 3, "kernel": 3 }, { "kind": "batch_norm" },
                { "kind": "conv2d", "channels": 2, "kernel": 2 }
            ]);
        }
    }
    MethodSpec::of(method, &given).unwrap()
}

fn fit(spec: &MethodSpec, threads: usize, stop: Option<&Arc<Stop>>) -> Result<Fitted> {
    fit_laid_out(spec, threads, stop, None)
}

fn fit_laid_out(
    spec: &MethodSpec,
    threads: usize,
    stop: Option<&Arc<Stop>>,
    coordinates: Option<&Coordinates>,
) -> Result<Fitted> {
    let values = groups();
    let rows = Dense::new(&values, 16);
    let device = Cpu::new(threads);
    let control = match stop {
        Some(stop) => Control::new(Arc::clone(stop) as Arc<dyn Observer>),
        None => Control::default(),
    };
    if let Some(stop) = stop {
        *stop.control.lock().unwrap() = Some(control.clone());
    }
    let checkpoint: &dyn Checkpoint = match stop {
        Some(stop) => &**stop,
        None => &NoCheckpoint,
    };
    let cx = FitContext { seed: Seed(4), device: &device, control: &control, checkpoint, memory: u64::MAX };
    DeepClustering { spec: spec.clone() }.fit(&Training { coordinates, ..Training::new(&rows) }, &cx)
}

/// A layout in two dimensions: each group around a point of its own; the rows of the last third of `groups` have none.
fn layout() -> Coordinates {
    let around = [[-1.2, 0.0], [1.2, -0.8], [0.1, 1.4]];
    Coordinates { dim: 2, rows: (0..60).collect(), values: (0..60).flat_map(|i| around[i % 3]).collect() }
}

#[test]
fn every_method_learns_the_same_bits_on_any_number_of_threads() {
    for method in Method::ALL {
        let one = fit(&spec(method), 1, None).unwrap();
        let three = fit(&spec(method), 3, None).unwrap();
        assert_eq!(one.transform.keep(), three.transform.keep(), "{method:?}");
        assert_eq!(one.figures, three.figures);
        let sizes: Vec<u64> = serde_json::from_value(one.figures["sizes"].clone()).unwrap();
        assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (3, 90), "{method:?}");
        assert!(!one.summary.is_empty());
    }
}

#[test]
fn a_run_that_was_interrupted_anywhere_ends_in_the_same_bits() {
    for method in Method::ALL {
        let spec = spec(method);
        let whole = fit(&spec, 2, None).unwrap();
        let epochs = whole.figures["epochs"].as_u64().unwrap() as usize;
        for after in 1..epochs {
            let stop = Arc::new(Stop { left: Mutex::new(after), ..Stop::default() });
            let e = fit(&spec, 2, Some(&stop)).unwrap_err();
            assert_eq!(e.kind(), Kind::Cancelled, "{e}");
            *stop.left.lock().unwrap() = usize::MAX;
            let resumed = fit(&spec, 1, Some(&stop)).unwrap();
            assert_eq!(resumed.transform.keep(), whole.transform.keep(), "{method:?} after {after} of {epochs}");
            assert_eq!(resumed.figures, whole.figures, "{method:?} after {after}");
        }
    }
}

#[test]
fn where_rows_are_laid_out_the_embedding_learns_the_layout() {
    let mut spec = spec(Method::Dec);
    spec.clustering.training.epochs = 0;
    spec.pretraining.training.epochs = 60;
    spec.pretraining.training.learning_rate = 0.05;
    let layout = layout();
    // The mean squared error of all rows, also of those that have no coordinates.
    let error = |fitted: &Fitted| {
        let mut embedded = vec![0.0; 90 * 2];
        fitted.transform.vector_map().unwrap().map(&groups(), &mut embedded).unwrap();
        let wanted = (0..90).flat_map(|i| layout.values[i % 3 * 2..][..2].iter());
        embedded.iter().zip(wanted).map(|(z, t)| (z - t).powi(2)).sum::<f32>() / 180.0
    };
    let alone = fit(&spec, 1, None).unwrap();
    let taught = fit_laid_out(&spec, 1, None, Some(&layout)).unwrap();
    assert!(error(&taught) < 0.05 && error(&alone) > 0.3, "{} {}", error(&taught), error(&alone));
    let course = taught.figures["courses"].as_array().unwrap().last().unwrap().clone();
    let losses =
        |part: &str| course[part].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<f64>>();
    let (total, reconstruction, embedding) = (losses("loss"), losses("reconstruction"), losses("clustering"));
    assert!((total[59] - reconstruction[59] - embedding[59]).abs() < 1e-9, "{course}");
    assert!(embedding[59] < 0.3 * embedding[0], "{course}");

    // The factors are those of the file; without a factor the layout is nothing.
    spec.pretraining.coordinates = 0.0;
    let ignored = fit_laid_out(&spec, 1, None, Some(&layout)).unwrap();
    assert_eq!(ignored.transform.save(), alone.transform.save());

    let narrow = Coordinates { dim: 1, rows: vec![0], values: vec![0.0] };
    let e = fit_laid_out(&spec, 1, None, Some(&narrow)).unwrap_err();
    assert!(e.to_string().contains("the manifold has 1 dimensions, the embedding 2"), "{e}");
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let stop = Arc::new(Stop { left: Mutex::new(6), ..Stop::default() });
    fit(&spec(Method::Dec), 1, Some(&stop)).unwrap_err();
    *stop.left.lock().unwrap() = usize::MAX;
    let mut other = spec(Method::Dec);
    other.encoder = layers(json!([{ "kind": "dense", "outputs": 2 }]));
    let e = fit(&other, 1, Some(&stop)).unwrap_err();
    assert!(e.kind() == Kind::Model && e.to_string().contains("the checkpoint of the training"), "{e}");
}

#[test]
fn what_cannot_be_learned_is_refused_by_name() {
    let refused = |spec: &MethodSpec, kind: Kind, part: &str| {
        let e = fit(spec, 1, None).unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(part), "{e}");
    };
    let many = MethodSpec { k: 91, ..spec(Method::Dec) };
    refused(&many, Kind::Input, "k = 91 clusters need at least 91 rows, there are 90");
    let mut image = spec(Method::Aljalbout);
    image.shape = None;
    refused(&image, Kind::Config, "conv2d needs an image");
    let mut one = spec(Method::KDae);
    one.pretraining.training.batch_size = 1;
    refused(&one, Kind::Compute, "batch norm");
    let mut wild = spec(Method::Dec);
    wild.pretraining.training.learning_rate = 1e20;
    refused(&wild, Kind::Compute, "the loss became");
    let mut uneven = spec(Method::Dec);
    uneven.decoder = Some(layers(json!([{ "kind": "dense", "outputs": 16 }])));
    refused(&uneven, Kind::Config, "a decoder that mirrors the encoder: 2 layers with weights lead there, 1 back");
}

#[test]
fn a_collapse_is_told() {
    let stop = Arc::new(Stop { left: Mutex::new(usize::MAX), ..Stop::default() });
    let mut spec = spec(Method::Dec);
    // Weight decay that takes everything.
    spec.clustering.training.l2 = 1.0;
    spec.clustering.training.learning_rate = 0.4;
    spec.clustering.training.epochs = 30;
    let fitted = fit(&spec, 1, Some(&stop));
    let warnings = stop.warnings.lock().unwrap();
    assert!(fitted.is_ok() && warnings.iter().any(|w| w.contains("collapsed")), "{warnings:?}");
}

#[test]
fn kept_clusters_are_numbered_by_size_and_label_rows() {
    let fitted = fit(&spec(Method::Dec), 1, None).unwrap();
    let (values, device) = (groups(), Cpu::new(1));
    let map = fitted.transform.vector_map().unwrap();
    let mut embedded = vec![0.0; 90 * 2];
    map.map(&values, &mut embedded).unwrap();
    let rows = Dense::new(&embedded, 2);
    let control = Control::default();
    let cx =
        FitContext { seed: Seed(4), device: &device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
    let data = Training { centroids: fitted.transform.centroids(), ..Training::new(&rows) };
    let label = KeptClusters.fit(&data, &cx).unwrap();
    assert_eq!(label.figures["sizes"], fitted.figures["sizes"]);
    assert_eq!(label.transform.clusters().map(|clusters| clusters.k()), Some(3));
    let e = KeptClusters.fit(&Training::new(&rows), &cx).unwrap_err();
    assert_eq!(e.kind(), Kind::Internal);
}
