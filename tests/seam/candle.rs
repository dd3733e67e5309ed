//! The device over candle tensors, on candle's CPU device, compared with the CPU device with our kernels: a GPU runs
//! the same code. `DACPIPE_TEST_CUDA=0` runs it on the GPU of that number, in a build with the feature `cuda`.

use std::sync::OnceLock;

use dacpipe::device::{BatchSums, Candle, Farthest, Points, StepLoss, StepSettings, Trainer, TrainerState};
use dacpipe::kernel::Rows;
use dacpipe::kmeans::{self, KMeans};
use dacpipe::loss::{CoordinateLoss, EmbeddingLoss, L2Penalty, WeightedMse};
use dacpipe::network::{Architecture, initialise};
use dacpipe::stage::Artifact;

use super::*;

fn candle() -> Candle {
    static DEVICE: OnceLock<candle_core::Device> = OnceLock::new();
    let device = DEVICE.get_or_init(|| match std::env::var("DACPIPE_TEST_CUDA") {
        Ok(number) => candle_core::Device::new_cuda_with_stream(number.parse().unwrap()).unwrap(),
        Err(_) => candle_core::Device::Cpu,
    });
    Candle::new(device.clone(), 2)
}

/// A device that keeps no rows: they are sent block by block.
fn streaming() -> Candle {
    candle().resident_bytes(0)
}

/// Rows that are not in memory as one slice.
struct Scattered<'a>(Dense<'a>);

impl Rows for Scattered<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn read(&self, range: std::ops::Range<usize>, out: &mut [f32]) -> dacpipe::kernel::Result<()> {
        self.0.read(range, out)
    }
}

/// Numbers in [0, 1) by a fixed rule.
fn unit(len: usize, salt: u32) -> Vec<f32> {
    let mix = |i: usize| (i as u32).wrapping_add(salt).wrapping_mul(2_654_435_761);
    let hash = |i: usize| (mix(i) ^ (mix(i) >> 15)).wrapping_mul(2_246_822_519);
    (0..len).map(|i| (hash(i) >> 8) as f32 / 16_777_216.0).collect()
}

/// A network of all activations, for rows of 12 values.
fn architecture() -> Architecture {
    use dacpipe::network::Activation::*;
    let mut architecture = Architecture::dac(DIM, &[16, 12, 8, 3], None);
    for (layer, activation) in architecture.encoder.iter_mut().zip([Relu, Tanh, LeakyRelu, Identity]) {
        layer.activation = activation;
    }
    for (layer, activation) in architecture.decoder.iter_mut().zip([Softplus, Elu, Tanh, Relu, Sigmoid]) {
        layer.activation = activation;
    }
    architecture
}

/// The losses of `steps` steps over batches of 100 rows, the last of an epoch shorter.
fn steps(trainer: &mut dyn Trainer, settings: &StepSettings<'_>, from: usize, steps: usize) -> Vec<StepLoss> {
    let order: Vec<u32> = (0..950u32).map(|i| i * 7 % 950).collect();
    let batch = |step: usize| order.chunks(100).nth(step % 10).unwrap();
    trainer.load(batch(from)).unwrap();
    (from..from + steps).map(|step| trainer.step(batch(step + 1), settings).unwrap()).collect()
}

fn settings<'a>(beta: f64, form: PenaltyForm, embedding: Option<&'a dyn EmbeddingLoss>) -> StepSettings<'a> {
    StepSettings { learning_rate: 1e-3, penalty: L2Penalty { beta, form }, reconstruction: 0.7, embedding }
}

/// Losses of 100 steps to 1e-4 of their size, parameters to 1e-3.
#[test]
fn a_hundred_steps_have_the_losses_of_the_cpu() {
    let values = rows();
    let dense = Dense::new(&values, DIM);
    let architecture = architecture();
    let parameters = initialise(&architecture, Seed(2));
    let numbers: Vec<u32> = (0..950).filter(|i| i % 3 > 0).collect();
    let targets = unit(numbers.len() * 3, 5);
    let coordinates = CoordinateLoss::new(ROWS, &numbers, &targets, 3, 0.5);
    let (cpu, candle, streaming) = (Cpu::new(2), candle(), streaming());
    let mut worst = (0.0f64, 0.0f32);
    for (beta, form) in [(1e-2, PenaltyForm::Norm), (1e-3, PenaltyForm::Squared), (0.0, PenaltyForm::Norm)] {
        for weights in [Vec::new(), unit(DIM, 9)] {
            for embedding in [None, Some(&coordinates as &dyn EmbeddingLoss)] {
                let settings = settings(beta, form, embedding);
                let run = |device: &dyn Device| {
                    let loss = WeightedMse { weights: weights.clone() };
                    let mut trainer = device.trainer(&dense, &architecture, &parameters, loss, 100).unwrap();
                    (steps(&mut *trainer, &settings, 0, 100), trainer.state().unwrap())
                };
                let ((theirs, at_theirs), (ours, at_ours)) = (run(&cpu), run(&candle));
                for (a, b) in ours.iter().zip(&theirs) {
                    for (a, b) in [(a.reconstruction, b.reconstruction), (a.embedding, b.embedding)] {
                        assert!((a - b).abs() <= 1e-4 * b, "{beta} {form:?}: {a} {b}");
                        worst.0 = worst.0.max((a - b).abs() / b.max(1e-12));
                    }
                }
                assert!(theirs[90].reconstruction < theirs[0].reconstruction, "it learns");
                assert_eq!((at_ours.steps, at_ours.parameters.len()), (100, architecture.flat_len()));
                close("parameters", &at_ours.parameters, &at_theirs.parameters, 1e-3);
                for (a, b) in at_ours.parameters.iter().zip(&at_theirs.parameters) {
                    worst.1 = worst.1.max((a - b).abs());
                }
                assert_eq!(run(&streaming), (ours, at_ours), "the same bits wherever rows lie");
            }
        }
    }
    println!("largest difference of a loss {:e} of its size, of a parameter {:e}", worst.0, worst.1);
}

#[test]
fn training_goes_on_from_a_state_with_the_same_bits_and_from_one_of_the_cpu() {
    let values = rows();
    let dense = Dense::new(&values, DIM);
    let architecture = architecture();
    let parameters = initialise(&architecture, Seed(2));
    let settings = settings(1e-2, PenaltyForm::Norm, None);
    let (cpu, candle) = (Cpu::new(1), candle());
    let scattered = Scattered(dense);
    let new = |device| Device::trainer(device, &scattered, &architecture, &parameters, WeightedMse::default(), 100);
    let mut whole = new(&candle).unwrap();
    steps(&mut *whole, &settings, 0, 13);
    let kept = whole.state().unwrap();
    let rest = steps(&mut *whole, &settings, 13, 20);
    let mut resumed = new(&candle).unwrap();
    steps(&mut *resumed, &settings, 0, 3);
    resumed.restore(&kept).unwrap();
    assert_eq!(resumed.state().unwrap(), kept);
    assert_eq!(steps(&mut *resumed, &settings, 13, 20), rest);
    assert_eq!(resumed.state().unwrap(), whole.state().unwrap());

    let mut elsewhere = cpu.trainer(&dense, &architecture, &parameters, WeightedMse::default(), 100).unwrap();
    elsewhere.restore(&kept).unwrap();
    for (a, b) in steps(&mut *elsewhere, &settings, 13, 20).iter().zip(&rest) {
        assert!((a.reconstruction - b.reconstruction).abs() <= 1e-4 * b.reconstruction);
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    let mut values = rows();
    values[100 * DIM] = f32::NAN;
    let dense = Dense::new(&values, DIM);
    let architecture = architecture();
    let parameters = initialise(&architecture, Seed(2));
    let candle = candle();
    let mut trainer = candle.trainer(&dense, &architecture, &parameters, WeightedMse::default(), 100).unwrap();
    trainer.load(&[1, 2, 3]).unwrap();
    let settings = settings(1e-2, PenaltyForm::Norm, None);
    assert!(trainer.step(&[99, 100], &settings).unwrap().is_finite());
    let before: TrainerState = trainer.state().unwrap();
    assert!(!trainer.step(&[4], &settings).unwrap().is_finite());
    assert_eq!(trainer.state().unwrap(), before);
    assert!(trainer.step(&[], &settings).unwrap().is_finite());
    assert_eq!(trainer.state().unwrap().steps, 2);
}

/// With a reconstruction factor of 0, only the penalty changes the decoder, as on the CPU.
#[test]
fn an_embedding_is_taught_alone() {
    let values = rows();
    let dense = Dense::new(&values, DIM);
    let architecture = architecture();
    let parameters = initialise(&architecture, Seed(2));
    let numbers: Vec<u32> = (0..950).collect();
    let targets = unit(950 * 3, 5);
    let coordinates = CoordinateLoss::new(ROWS, &numbers, &targets, 3, 1.0);
    let settings = StepSettings { reconstruction: 0.0, ..settings(1e-3, PenaltyForm::Squared, Some(&coordinates)) };
    let run = |device: &dyn Device| {
        let mut trainer = device.trainer(&dense, &architecture, &parameters, WeightedMse::default(), 100).unwrap();
        (steps(&mut *trainer, &settings, 0, 30), trainer.state().unwrap())
    };
    let ((ours, at_ours), (theirs, at_theirs)) = (run(&candle()), run(&Cpu::new(1)));
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a.embedding - b.embedding).abs() <= 1e-4 * b.embedding, "{a:?} {b:?}");
    }
    close("parameters", &at_ours.parameters, &at_theirs.parameters, 1e-3);
}

/// Clusters may differ only if the distances to both centroids agree to 1e-5.
fn assert_labels(rows: &[f32], centroids: &[f32], ours: &[u32], theirs: &[u32]) {
    let dim = rows.len() / ours.len();
    let distance = |row: usize, c: u32| -> f64 {
        let pairs = rows[row * dim..][..dim].iter().zip(&centroids[c as usize * dim..][..dim]);
        pairs.map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum()
    };
    for (row, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
        let (x, y) = (distance(row, a), distance(row, b));
        assert!(a == b || (x - y).abs() <= 1e-5 * y, "row {row}: clusters {a} and {b}, distances {x} and {y}");
    }
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// The cluster of each row and its squared distance, by `nearest`.
fn nearest(points: &dyn Points, centroids: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let parts = points.fold(centroids, Vec::new, |all: &mut Vec<(u32, f32)>, _, labels, squared| {
        all.extend(labels.iter().copied().zip(squared.iter().copied()));
    });
    parts.unwrap().concat().into_iter().unzip()
}

#[test]
fn passes_of_k_means_give_what_the_cpu_gives() {
    for (n, dim, k) in [(6000, 3, 7), (700, 150, 30), (5, 1, 1), (2100, 12, 2)] {
        let values = unit(n * dim, dim as u32);
        let centroids = unit(k * dim, 77);
        let dense = Dense::new(&values, dim);
        let scattered = Scattered(dense);
        let batch: Vec<u32> = (0..n as u32 / 2).map(|i| i * 2).collect();
        let origin = &values[..dim];
        let of = |device: &dyn Device, rows: &dyn Rows| {
            let mut points = device.points(rows).unwrap();
            let (mut sums, mut squares) = (vec![9.0; dim], vec![9.0; dim]);
            points.moments(origin, &mut sums, &mut squares).unwrap();
            let found = nearest(&*points, &centroids);
            let mut out = BatchSums { counts: vec![3; 99], ..BatchSums::default() };
            points.batch(&batch, &centroids, &mut out).unwrap();
            ((sums, squares), found, (out, points.assign(&centroids).unwrap()))
        };
        let theirs = of(&Cpu::new(2), &dense);
        let ours = of(&candle(), &dense);
        close("sums", &floats(&ours.0.0), &floats(&theirs.0.0), 1e-6);
        close("squares", &floats(&ours.0.1), &floats(&theirs.0.1), 1e-6);
        assert_labels(&values, &centroids, &ours.1.0, &theirs.1.0);
        close("squared distances", &ours.1.1, &theirs.1.1, 1e-5);
        let ((our_batch, our_all), (their_batch, their_all)) = (&ours.2, &theirs.2);
        assert_eq!(our_batch.counts, their_batch.counts);
        close("sums of a batch", &floats(&our_batch.sums), &floats(&their_batch.sums), 1e-6);
        close("squared distances of a batch", &our_batch.squared, &their_batch.squared, 1e-5);
        assert_eq!(our_all.counts, their_all.counts);
        close("sums of all rows", &floats(&our_all.sums), &floats(&their_all.sums), 1e-6);
        close("squared distances of all rows", &our_all.squared, &their_all.squared, 1e-5);
        match k {
            1 => assert_eq!(our_all.second, their_all.second, "infinite"),
            _ => close("second distances", &our_all.second, &their_all.second, 1e-5),
        }
        assert_eq!((&our_all.labels, &our_all.squared), (&ours.1.0, &ours.1.1), "as another pass finds them");
        assert_eq!((&their_all.labels, &their_all.squared), (&theirs.1.0, &theirs.1.1));
        for (device, rows) in [(candle(), &scattered as &dyn Rows), (streaming(), &dense), (streaming(), &scattered)] {
            assert_eq!(of(&device, rows), ours, "the same bits wherever rows lie");
        }
    }
}

#[test]
fn lloyd_s_labels_follow_the_rows_that_are_moved() {
    let values = [0.0, 1.0, 2.0, 10.0, 11.0, 30.0];
    let dense = Dense::new(&values, 1);
    let device = candle();
    let points = device.points(&dense).unwrap();
    let mut lloyd = points.lloyd(3).unwrap();
    assert!(lloyd.farthest(2).unwrap().is_empty());
    assert_eq!(lloyd.iterate(&[1.0, 10.0, 99.0]).unwrap(), 6);
    assert_eq!(lloyd.totals(), (&[3.0, 51.0, 0.0][..], &[3, 3, 0][..]));
    let far = |squared, row, cluster| Farthest { squared, row, cluster };
    assert_eq!(lloyd.farthest(3).unwrap(), [far(400.0, 5, 1), far(1.0, 0, 0), far(1.0, 2, 0)]);
    lloyd.reassign(5, 2).unwrap();
    assert_eq!(lloyd.totals(), (&[3.0, 21.0, 30.0][..], &[3, 2, 1][..]));
    assert_eq!(lloyd.farthest(9).unwrap().len(), 3, "the row is alone now");
    assert_eq!(lloyd.iterate(&[1.0, 10.5, 30.0]).unwrap(), 0);
    assert_eq!(lloyd.iterate(&[1.0, 1.0, 30.0]).unwrap(), 2, "ties go to the lower number");
}

fn fit(device: &dyn Device, rows: &dyn Rows, spec: &KMeansSpec) -> KMeans {
    kmeans::fit(rows, spec, Seed(5), device, &Control::default()).unwrap()
}

/// On a grid nothing is rounded: the same bits, with ties, empty clusters and equal rows.
#[test]
fn clusters_of_rows_on_a_grid_are_those_of_the_cpu() {
    for (n, dim, k, points) in [(300, 2, 9, 5), (900, 1, 4, 40), (60, 3, 20, 4), (500, 140, 30, 3)] {
        let values: Vec<f32> = unit(n * dim, k as u32).iter().map(|x| (x * points as f32).floor()).collect();
        let dense = Dense::new(&values, dim);
        for method in [Method::Lloyd, Method::MiniBatch { batch_size: 50 }] {
            let spec = KMeansSpec { n_init: 2, tolerance: 0.0, max_iterations: 8, method, ..KMeansSpec::new(k) };
            let theirs = fit(&Cpu::new(2), &dense, &spec);
            assert_eq!(fit(&candle(), &dense, &spec).sizes, theirs.sizes, "{n} {dim} {k} {method:?}");
            let ours = fit(&streaming(), &dense, &spec);
            assert_eq!(
                (&ours.sizes, ours.iterations, ours.converged),
                (&theirs.sizes, theirs.iterations, theirs.converged)
            );
            close("centroids", &ours.centroids, &theirs.centroids, 1e-6);
            assert!((ours.inertia - theirs.inertia).abs() <= 1e-6 * theirs.inertia);
        }
    }
}

/// The whole pipeline: losses to 1e-4, embeddings to 1e-3 of their size after three epochs.
#[test]
fn a_pipeline_learns_what_it_learns_on_the_cpu() {
    for spec in [lloyd(), mini_batches()] {
        let (ours, cpu) = (learn(&candle(), &spec), learn(&Cpu::new(2), &spec));
        let loss = |learned: &Learned| -> Vec<f32> {
            let losses = learned.fitted[2].figures["loss"].as_array().unwrap();
            losses.iter().map(|l| l.as_f64().unwrap() as f32).collect()
        };
        let weights = |learned: &Learned| learned.fitted[1].transform.feature_weights().unwrap().to_vec();
        close("weights", &weights(&ours), &weights(&cpu), 1e-6);
        for (a, b) in loss(&ours).iter().zip(loss(&cpu)) {
            assert!((a - b).abs() <= 1e-4 * b, "loss {a} {b}");
        }
        close("embeddings", &ours.embeddings, &cpu.embeddings, 1e-3);
        let [ours, cpu] = [ours, cpu].map(|learned| model(&learned).reconstruct(&rows()).unwrap());
        close("rebuilt features", &ours.features, &cpu.features, 1e-3);
        close("reconstruction errors", &ours.error, &cpu.error, 1e-3);
    }
}

/// The same model on both devices: clusters are the same, embeddings, distances and reconstructions agree to 1e-5.
#[test]
fn a_model_that_one_device_learned_works_on_the_other() {
    let spec = KMeansSpec { n_init: 2, ..KMeansSpec::new(4) };
    for learned in [learn(&candle(), &spec), learn(&Cpu::new(2), &spec)] {
        let on = |device: Arc<dyn Device>| {
            let registry = Registry::new(device);
            let again = |fitted: &Fitted| -> Arc<dyn Transform> {
                let saved: Artifact = fitted.transform.save();
                registry.restore(fitted.transform.kind(), &saved).unwrap()
            };
            let manifest = Manifest { name: "seam".into(), input: ModelInput::bare(DIM), ..Manifest::default() };
            Model::new(manifest, learned.fitted.iter().map(again).collect()).unwrap()
        };
        let (ours, theirs) = (on(Arc::new(candle())), on(Arc::new(Cpu::new(1))));
        assert_eq!(ours.hash(), theirs.hash());
        close("embeddings", &ours.embed(&rows()[..]).unwrap(), &theirs.embed(&rows()[..]).unwrap(), 1e-5);
        let [ours_in, theirs_in] = [&ours, &theirs].map(|model| model.assign(&rows()[..]).unwrap());
        assert_eq!(ours_in.cluster, theirs_in.cluster);
        close("distances", &ours_in.distance, &theirs_in.distance, 1e-5);
        close("margins", &ours_in.margin, &theirs_in.margin, 1e-5);
        let [rebuilt, there] = [&ours, &theirs].map(|model| model.reconstruct(&rows()).unwrap());
        close("rebuilt features", &rebuilt.features, &there.features, 1e-5);
    }
}

/// Rows through encoder, decoder and centroids: to 1e-5, and the same bits alone and among others.
#[test]
fn a_row_has_the_same_bits_whatever_rows_come_with_it() {
    let (architecture, n) = (architecture(), 2500);
    let parameters = initialise(&architecture, Seed(8));
    let values = unit(n * DIM, 3);
    let centroids = unit(40 * DIM, 4);
    let of = |device: &dyn Device, values: &[f32]| {
        let n = values.len() / DIM;
        let (mut z, mut y) = (vec![0.0; n * 3], vec![0.0; n * DIM]);
        device.encoder(&architecture, &parameters).unwrap().encode(values, &mut z).unwrap();
        device.decoder(&architecture, &parameters).unwrap().decode(&z, &mut y).unwrap();
        let (mut labels, mut squared, mut second) = (vec![0; n], vec![0.0; n], vec![0.0; n]);
        let assign = device.centroids(&centroids, DIM).unwrap();
        assign.nearest_two(values, &mut labels, &mut squared, &mut second).unwrap();
        (z, y, labels, squared, second)
    };
    let (ours, theirs) = (of(&candle(), &values), of(&Cpu::new(1), &values));
    close("embeddings", &ours.0, &theirs.0, 1e-5);
    close("reconstructions", &ours.1, &theirs.1, 1e-5);
    assert_labels(&values, &centroids, &ours.2, &theirs.2);
    close("distances", &ours.3, &theirs.3, 1e-5);
    close("second distances", &ours.4, &theirs.4, 1e-5);
    for (first, rows) in [(0, 1), (1023, 3), (2499, 1), (700, 1100)] {
        let alone = of(&candle(), &values[first * DIM..(first + rows) * DIM]);
        assert_eq!(alone.0, ours.0[first * 3..(first + rows) * 3]);
        assert_eq!(alone.1, ours.1[first * DIM..(first + rows) * DIM]);
        assert_eq!((&alone.2[..], &alone.3[..]), (&ours.2[first..first + rows], &ours.3[first..first + rows]));
        assert_eq!(alone.4, ours.4[first..first + rows]);
    }
}
