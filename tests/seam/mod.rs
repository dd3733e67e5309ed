//! The device interface: other implementations of `Device` run training, k-means and the label pass through the same
//! loops. One counts calls and passes them to the CPU; one computes everything in plain `f64` loops; one uses candle
//! tensors.

mod candle;
mod counting;
mod naive;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use dacpipe::column::vector_array;
use dacpipe::device::{Cpu, Device};
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::{Batch, Decay, HalfLife, KMeansSpec, Method, OnlineKMeans, OnlineSpec, OnlineState};
use dacpipe::label::KMeansStage;
use dacpipe::loss::PenaltyForm;
use dacpipe::model::{Manifest, Model, ModelInput};
use dacpipe::registry::Registry;
use dacpipe::scale::{ScaleMethod, ScaleSpec, ScaleStage};
use dacpipe::stage::{Apply, EMBEDDING, FEATURES, Fit, FitContext, Fitted, NoCheckpoint, Training, Transform};
use dacpipe::train::{Autoencoder, AutoencoderSpec};
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightsSpec};
use dacpipe::{Kind, Seed};

use counting::Counting;
use naive::Naive;

const DIM: usize = 12;
const ROWS: usize = 5000;

/// Rows around four points.
fn rows() -> Vec<f32> {
    let unit = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0;
    (0..ROWS * DIM).map(|i| unit(i / DIM % 4 * DIM + i % DIM) + 0.1 * unit(i * 31 + 7)).collect()
}

/// What the stages learned on one device.
struct Learned {
    fitted: Vec<Fitted>,
    /// The input rows of the last stage.
    embeddings: Vec<f32>,
}

/// A whole pipeline: scale, weights from pseudo-labels, autoencoder, k-means of the embeddings.
fn learn(device: &dyn Device, kmeans: &KMeansSpec) -> Learned {
    let labels = WeightLabels::Pseudo { k: 4 };
    let network = AutoencoderSpec {
        encoder: vec![8, 3],
        epochs: 3,
        batch_size: 200,
        l2: 1e-4,
        l2_form: PenaltyForm::Norm,
        ..AutoencoderSpec::default()
    };
    let stages: [&dyn Fit; 4] = [
        &ScaleStage::new(ScaleSpec { method: ScaleMethod::MinMax }),
        &FeatureWeightsStage::new(WeightsSpec::new(labels)),
        &Autoencoder { spec: network },
        &KMeansStage::new(kmeans.clone(), EMBEDDING),
    ];
    let control = Control::default();
    let cx = FitContext { seed: Seed(3), device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
    let (mut values, mut dim) = (rows(), DIM);
    let mut fitted: Vec<Fitted> = Vec::new();
    for stage in stages {
        let dense = Dense::new(&values, dim);
        let feature_weights = fitted.iter().find_map(|stage| stage.transform.feature_weights());
        let found = stage.fit(&Training { feature_weights, ..Training::new(&dense) }, &cx).unwrap();
        if let Some(map) = found.transform.vector_map() {
            let mut mapped = vec![0.0; values.len() / dim * map.dim_out()];
            map.map(&values, &mut mapped).unwrap();
            (values, dim) = (mapped, map.dim_out());
        }
        fitted.push(found);
    }
    Learned { fitted, embeddings: values }
}

fn batch() -> RecordBatch {
    RecordBatch::try_from_iter([(FEATURES, vector_array(rows(), DIM).unwrap())]).unwrap()
}

/// A model of the fitted stages.
fn model(learned: &Learned) -> Model {
    let stages: Vec<Arc<dyn Transform>> = learned.fitted.iter().map(|f| Arc::clone(&f.transform)).collect();
    let manifest = Manifest { name: "seam".into(), input: ModelInput::bare(DIM), ..Manifest::default() };
    Model::new(manifest, stages).unwrap()
}

/// The clusters of all rows by a model of the fitted stages.
fn labels(learned: &Learned) -> RecordBatch {
    model(learned).apply(&batch()).unwrap()
}

fn lloyd() -> KMeansSpec {
    KMeansSpec { n_init: 3, ..KMeansSpec::new(6) }
}

fn mini_batches() -> KMeansSpec {
    KMeansSpec { method: Method::MiniBatch { batch_size: 300 }, max_iterations: 5, ..lloyd() }
}

/// Online k-means over a stream, from a cold start, on one device: what became of each batch, and the state after it.
fn follow(device: &dyn Device) -> Vec<(Batch, OnlineState)> {
    let spec = OnlineSpec { n_init: 2, ..OnlineSpec::new(4, Decay::HalfLife(HalfLife::Rows(700.0))) };
    let mut learner = OnlineKMeans::new(spec, Seed(3)).unwrap();
    let step = |batch: &[f32]| {
        let found = learner.partial_fit(&Dense::new(batch, DIM), None, device).unwrap();
        (found, learner.state().clone())
    };
    rows().chunks(DIM * 900).map(step).collect()
}

#[test]
fn online_k_means_goes_through_the_device() {
    let counting = Counting::new();
    let theirs = follow(&Cpu::new(2));
    assert_eq!(follow(&counting), theirs);
    let calls = |name: &str| counting.calls(name);
    // Six batches; two seedings of the first, each judged.
    assert_eq!((calls("points"), calls("assign"), calls("seeding"), calls("nearest")), (7, 6, 2, 2));
    for device in [&Naive::new() as &dyn Device, &dacpipe::device::Candle::new(candle_core::Device::Cpu, 1)] {
        for ((ours, state), (found, expected)) in follow(device).iter().zip(&theirs) {
            assert_eq!((&ours.cluster, &ours.revived), (&found.cluster, &found.revived));
            close("distances", &ours.distance, &found.distance, 1e-4);
            close("margins", &ours.margin, &found.margin, 1e-4);
            assert_eq!((&state.weights, &state.last), (&expected.weights, &expected.last));
            let single = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
            close("centroids", &single(&state.centroids), &single(&expected.centroids), 1e-6);
        }
    }
}

#[test]
fn all_work_goes_through_the_device_and_has_the_bits_of_the_processor() {
    for spec in [lloyd(), mini_batches()] {
        let counting = Counting::new();
        let (ours, theirs) = (learn(&counting, &spec), learn(&Cpu::new(2), &spec));
        for (a, b) in ours.fitted.iter().zip(&theirs.fitted) {
            assert_eq!((a.transform.save(), &a.figures), (b.transform.save(), &b.figures));
        }
        assert_eq!(ours.embeddings, theirs.embeddings);
        assert_eq!(labels(&ours), labels(&theirs));
        let calls = |name: &str| counting.calls(name);
        assert_eq!((calls("trainer"), calls("load"), calls("step")), (1, 3, 3 * ROWS.div_ceil(200)));
        // The start, and the end of every epoch.
        assert_eq!(calls("state"), 4);
        // The rows of pseudo-classes twice, those of k-means, and in mini-batches the sample that judges seedings.
        let mini = usize::from(spec.method != Method::Lloyd);
        assert_eq!((calls("points"), calls("moments")), (3 + mini, 2));
        // Three runs each; there are at least ten mini-batches, those without progress.
        assert_eq!((calls("seeding"), calls("lloyd")), (6, 6 - 3 * mini));
        assert!(calls("iterate") > 6 - 3 * mini && calls("potentials") >= 3 * 4 + 3 * 6);
        assert!(calls("batch") >= 10 * mini && (mini == 1 || calls("batch") == 0));
        // Rows to their class; the last pass of every start, or of mini-batches the one and what judges three seedings.
        assert_eq!(calls("nearest"), if mini == 1 { 3 + 1 + 3 + 1 } else { 3 + 1 + 3 });
        assert_eq!((calls("encoder"), calls("encode")), (1, 2));
        assert_eq!((calls("decoder"), calls("decode")), (1, 0));
        assert_eq!((calls("centroids"), calls("nearest_two")), (1, 1));
        let (ours, theirs) = (model(&ours).reconstruct(&rows()).unwrap(), model(&theirs).reconstruct(&rows()).unwrap());
        assert_eq!(ours, theirs);
        assert_eq!((counting.calls("encode"), counting.calls("decode")), (3, 1));
    }
}

/// Models from a directory, in the library and in SQL.
#[tokio::test]
async fn models_are_applied_on_the_device_that_is_asked_for() {
    use dacpipe::sql::{Options, register, session_config};
    use dacpipe::store::Location;
    use datafusion::prelude::SessionContext;
    let model = model(&learn(&Cpu::new(2), &KMeansSpec { n_init: 1, ..KMeansSpec::new(4) }));
    let dir = tempfile::tempdir().unwrap();
    let place = model.save(&Location::parse(&dir.path().to_string_lossy()).unwrap()).await.unwrap();
    let counting = Arc::new(Counting::new());
    let loaded = Model::load_with(&place, &Registry::new(Arc::clone(&counting) as _)).await.unwrap();
    assert_eq!(loaded.apply(&batch()).unwrap(), model.apply(&batch()).unwrap());
    let calls = |name: &str| counting.calls(name);
    assert_eq!((calls("encoder"), calls("centroids")), (1, 1));
    assert_eq!((calls("encode"), calls("nearest_two")), (1, 1));

    let ctx = SessionContext::new_with_config(session_config());
    register(&ctx, Options::new().device(Arc::clone(&counting) as Arc<dyn Device>)).await.unwrap();
    ctx.register_batch("rows", batch()).unwrap();
    let sql = format!("SELECT dac_assign('{place}', features)['cluster'] AS cluster FROM rows");
    let found = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    let rows: usize = found.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, ROWS);
    assert_eq!((calls("encoder"), calls("centroids")), (2, 2));
    assert!(calls("encode") > 1 && calls("nearest_two") > 1);
}

#[test]
fn a_device_that_resumes_restores_the_trainer() {
    use dacpipe::stage::{Artifact, Checkpoint};
    #[derive(Default)]
    struct Kept(std::sync::Mutex<Option<Artifact>>);
    impl Checkpoint for Kept {
        fn save(&self, state: &Artifact) -> dacpipe::Result<()> {
            *self.0.lock().unwrap() = Some(state.clone());
            Ok(())
        }
        fn load(&self) -> dacpipe::Result<Option<Artifact>> {
            Ok(self.0.lock().unwrap().clone())
        }
    }
    /// Cancels after the first epoch.
    struct Stop(std::sync::Mutex<Option<Control>>);
    impl dacpipe::event::Observer for Stop {
        fn event(&self, event: &dacpipe::event::Event) {
            if matches!(event, dacpipe::event::Event::Progress { done: 1, .. }) {
                self.0.lock().unwrap().as_ref().unwrap().cancel();
            }
        }
    }
    let stage = Autoencoder {
        spec: AutoencoderSpec { encoder: vec![6, 2], epochs: 2, batch_size: 512, ..AutoencoderSpec::default() },
    };
    let values = rows();
    let dense = Dense::new(&values, DIM);
    let data = Training::new(&dense);
    let (naive, kept) = (Naive::new(), Kept::default());
    let whole = {
        let cx = FitContext {
            seed: Seed(3),
            device: &naive,
            control: &Control::default(),
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        stage.fit(&data, &cx).unwrap()
    };
    let stop = Arc::new(Stop(std::sync::Mutex::default()));
    let control = Control::new(Arc::clone(&stop) as Arc<dyn dacpipe::event::Observer>);
    *stop.0.lock().unwrap() = Some(control.clone());
    let cx = FitContext { seed: Seed(3), device: &naive, control: &control, checkpoint: &kept, memory: u64::MAX };
    assert_eq!(stage.fit(&data, &cx).unwrap_err().kind(), Kind::Cancelled);
    let cx = FitContext { control: &Control::default(), ..cx };
    let resumed = stage.fit(&data, &cx).unwrap();
    assert_eq!((resumed.transform.save(), resumed.figures), (whole.transform.save(), whole.figures));
}

fn close(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        // Infinite where there is no second cluster.
        assert!(a == b || (a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{i}]: {a} {b}");
    }
}

/// Within the rounding of 32 bits in three epochs of Adam: losses to 1e-4, embeddings to 1e-3 of their size.
#[test]
fn plain_loops_in_double_precision_learn_the_same() {
    for spec in [lloyd(), mini_batches()] {
        let (naive, cpu) = (learn(&Naive::new(), &spec), learn(&Cpu::new(2), &spec));
        let loss = |learned: &Learned| -> Vec<f32> {
            let losses = learned.fitted[2].figures["loss"].as_array().unwrap();
            losses.iter().map(|l| l.as_f64().unwrap() as f32).collect()
        };
        let weights = |learned: &Learned| learned.fitted[1].transform.feature_weights().unwrap().to_vec();
        close("weights", &weights(&naive), &weights(&cpu), 1e-6);
        for (a, b) in loss(&naive).iter().zip(loss(&cpu)) {
            assert!((a - b).abs() <= 1e-4 * b, "loss {a} {b}");
        }
        close("embeddings", &naive.embeddings, &cpu.embeddings, 1e-3);
        let [naive, cpu] = [naive, cpu].map(|learned| model(&learned).reconstruct(&rows()).unwrap());
        close("rebuilt features", &naive.features, &cpu.features, 1e-3);
        close("reconstruction errors", &naive.error, &cpu.error, 1e-3);
    }
}

/// k-means on the same rows: the same clusters, centroids to 1e-5 and distances to 1e-4.
#[test]
fn plain_loops_in_double_precision_find_the_same_clusters() {
    let values = rows();
    let dense = Dense::new(&values, DIM);
    let data = Training::new(&dense);
    let input = batch();
    let online = Method::Online { batch_size: 300, decay: Decay::Factor(0.9) };
    let by_method = |method| KMeansSpec { method, ..KMeansSpec::new(4) };
    for spec in [by_method(Method::Lloyd), KMeansSpec { k: 4, ..mini_batches() }, by_method(online)] {
        let stage = KMeansStage::new(spec, FEATURES);
        let fit = |device: &dyn Device| {
            let cx = FitContext {
                seed: Seed(3),
                device,
                control: &Control::default(),
                checkpoint: &NoCheckpoint,
                memory: u64::MAX,
            };
            stage.fit(&data, &cx).unwrap()
        };
        let (naive, cpu) = (fit(&Naive::new()), fit(&Cpu::new(2)));
        assert_eq!(naive.figures["sizes"], cpu.figures["sizes"]);
        assert_eq!(naive.figures["iterations"], cpu.figures["iterations"]);
        let (a, b) = (naive.transform.save(), cpu.transform.save());
        close("centroids", &a.tensors["centroids"].values, &b.tensors["centroids"].values, 1e-5);
        // The same model on either device.
        let elsewhere = Registry::new(Arc::new(Naive::new())).restore("label", &b).unwrap().apply(&input).unwrap();
        let here = cpu.transform.apply(&input).unwrap();
        assert_eq!(elsewhere.column_by_name("cluster"), here.column_by_name("cluster"));
        for name in ["distance", "margin"] {
            let floats = |batch: &RecordBatch| {
                let column = batch.column_by_name(name).unwrap();
                column.as_any().downcast_ref::<arrow::array::Float32Array>().unwrap().values().to_vec()
            };
            close(name, &floats(&elsewhere), &floats(&here), 1e-4);
        }
    }
}
