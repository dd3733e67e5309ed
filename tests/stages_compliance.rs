//! Every kind of stage that dacpipe has keeps what a stage promises: the public suite, and what holds for these beyond it.
//! A new stage joins [`cases`].

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use dacpipe::Seed;
use dacpipe::column::{vector_array, vector_field, vectors};
use dacpipe::device::Cpu;
use dacpipe::embed_network::EmbedNetwork;
use dacpipe::event::Control;
use dacpipe::experts::{Experts, expert_name};
use dacpipe::impute::ImputeStage;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::KMeansSpec;
use dacpipe::label::KMeansStage;
use dacpipe::manifold::{ManifoldSpec, ManifoldStage};
use dacpipe::network::{Activation, Arrays, CoderSpec, LayerSpec, RowShape};
use dacpipe::normalize::Normalize;
use dacpipe::reconstruct::with_errors;
use dacpipe::registry::Registry;
use dacpipe::scale::{ScaleMethod, ScaleSpec, ScaleStage};
use dacpipe::stage::{
    Apply, Artifact, Centroids, EMBEDDING, FEATURES, Fit, FitContext, NoCheckpoint, Training, Transform, compliance,
};
use dacpipe::train::{Autoencoder, AutoencoderSpec, RowError};
use dacpipe::vectors::{Carry, Spread};
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightsSpec};

const DIM: usize = 7;
const ROWS: usize = 203;

/// A fitted stage and the column of vectors that it reads.
struct Case {
    name: &'static str,
    stage: Arc<dyn Transform>,
    column: &'static str,
}

/// Values between 0 and 1 in three heaps, the same every time.
fn values(rows: usize) -> Vec<f32> {
    let noise = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32;
    (0..rows * DIM).map(|i| ((i / DIM) % 3) as f32 * 0.35 + noise(i) * 0.3).collect()
}

fn fit(stage: &dyn Fit) -> Arc<dyn Transform> {
    let values = values(ROWS);
    let classes: Vec<Option<u32>> = (0..ROWS as u32).map(|row| (row % 5 > 0).then_some(row % 3)).collect();
    let rows = Dense::new(&values, DIM);
    let data = Training { classes: Some(&classes), ..Training::new(&rows) };
    let (device, control) = (Cpu::new(2), Control::default());
    let cx =
        FitContext { seed: Seed(7), device: &device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
    stage.fit(&data, &cx).unwrap().transform
}

/// A network of seven values to two and back, and its parameters under names that begin with `name`.
fn coder(name: &str) -> (CoderSpec, Arrays) {
    let dense = |outputs| vec![LayerSpec::dense(outputs, Activation::Tanh)];
    let spec = CoderSpec {
        input: RowShape::flat(DIM),
        encoder: dense(2),
        decoder: dense(DIM),
        initialisation: Default::default(),
    };
    let shapes = [
        ("encoder.0.weight", vec![2, DIM]),
        ("encoder.0.bias", vec![2]),
        ("decoder.0.weight", vec![DIM, 2]),
        ("decoder.0.bias", vec![DIM]),
    ];
    let array = |(part, shape): (&str, Vec<usize>)| {
        let values = (0..shape.iter().product::<usize>()).map(|i| ((i + name.len()) as f32 * 1.7).sin() * 0.6);
        (format!("{name}{part}"), (shape, values.collect()))
    };
    (spec, shapes.map(array).into_iter().collect())
}

/// The stages that a model may have.
fn cases() -> Vec<Case> {
    let case = |name, column, stage: &dyn Fit| Case { name, stage: fit(stage), column };
    let weights = |labels| FeatureWeightsStage::new(WeightsSpec::new(labels));
    let network = AutoencoderSpec { encoder: vec![5, 4, 3], epochs: 2, batch_size: 50, ..AutoencoderSpec::default() };
    let settings =
        [("values".to_string(), serde_json::json!([0.5, 0.0, -1.0, 1e9, 0.25, 0.0, 3.0]))].into_iter().collect();
    let origin = Registry::default().restore("origin", &Artifact { settings, ..Artifact::default() }).unwrap();
    let (spec, arrays) = coder("");
    let learned = Centroids { dim: 2, values: vec![0.5, -0.5, 0.25, 0.75] };
    let embed_network = EmbedNetwork::new(&spec, &arrays, Some(learned)).unwrap();
    let all = (0..3).flat_map(|i| coder(&expert_name(i)).1).collect();
    let experts = Experts::new(3, &spec, &all, RowError::Norm).unwrap();
    let layout = ManifoldSpec { epochs: Some(5), ..ManifoldSpec::default() };
    let named = |stage: &dyn Transform, ids: &[i32]| stage.clusters().unwrap().with_ids(ids).unwrap().unwrap();
    let whitened = KMeansStage::new(KMeansSpec::new(3), FEATURES).normalized(Normalize::Whiten);
    vec![
        Case { name: "origin", stage: origin, column: FEATURES },
        case("impute", FEATURES, &ImputeStage),
        case("scale, min-max", FEATURES, &ScaleStage::new(ScaleSpec { method: ScaleMethod::MinMax })),
        case("scale, standard", FEATURES, &ScaleStage::new(ScaleSpec { method: ScaleMethod::Standard })),
        case("weights, labels", FEATURES, &weights(WeightLabels::Column("activity".into()))),
        case("weights, pseudo-labels", FEATURES, &weights(WeightLabels::Pseudo { k: 3 })),
        case("weights, uniform", FEATURES, &weights(WeightLabels::Uniform)),
        case("manifold", FEATURES, &ManifoldStage { spec: layout }),
        case("embed", FEATURES, &Autoencoder { spec: network.clone() }),
        case("embed, no decoder", FEATURES, &Autoencoder { spec: AutoencoderSpec { keep_decoder: false, ..network } }),
        Case { name: "network", stage: Arc::new(embed_network), column: FEATURES },
        case("label of features", FEATURES, &KMeansStage::new(KMeansSpec::new(3), FEATURES)),
        case("label of embeddings", EMBEDDING, &KMeansStage::new(KMeansSpec::new(4), EMBEDDING)),
        case("label of whitened features", FEATURES, &whitened),
        Case { name: "label, named", stage: named(&*fit(&whitened), &[6, 0, 11]), column: FEATURES },
        Case { name: "experts, named", stage: named(&experts, &[2, 9, 1]), column: FEATURES },
        Case { name: "experts", stage: Arc::new(experts), column: FEATURES },
    ]
}

/// Rows with an id before and a nullable label after the vectors, and metadata that must survive.
fn batch(column: &str) -> RecordBatch {
    let id: Int64Array = (0..ROWS as i64).map(Some).collect();
    let label: StringArray = (0..ROWS).map(|row| (row % 4 > 0).then(|| format!("class {}", row % 3))).collect();
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        vector_field(column, DIM),
        Field::new("activity", DataType::Utf8, true),
    ];
    let metadata = [("kept".to_string(), "yes".to_string())].into();
    let columns: Vec<ArrayRef> = vec![Arc::new(id), vector_array(values(ROWS), DIM).unwrap(), Arc::new(label)];
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns).unwrap()
}

#[test]
fn every_kind_is_here() {
    let kinds: BTreeSet<&str> = cases().iter().map(|case| case.stage.kind()).collect();
    assert_eq!(kinds, Registry::default().kinds().collect());
}

#[test]
fn every_stage_keeps_its_promises() {
    for Case { name, stage, column } in cases() {
        let found = compliance::check(&*stage, &batch(column), &Registry::default());
        assert_eq!(found, Ok(()), "{name}");
    }
}

/// What a label pass puts beside the stages of a model is in no registry, and keeps what else is promised.
#[test]
fn the_stages_of_a_label_pass_keep_their_promises() {
    let names = (0..DIM).map(|i| format!("v{i}")).collect();
    let embed = cases().into_iter().find(|case| case.name == "embed").unwrap().stage;
    let [carry, embed, error] = with_errors(embed).unwrap();
    let embedded = embed.apply(&carry.apply(&batch(FEATURES)).unwrap()).unwrap();
    let stages: [(Arc<dyn Transform>, RecordBatch); 3] = [
        (Arc::new(Spread::new(FEATURES, names)), batch(FEATURES)),
        (Arc::new(Carry::new("activity", "__activity")), batch(FEATURES)),
        (error, embedded),
    ];
    for (stage, batch) in stages {
        let registry = Registry::default().stage(stage.kind(), |_, _| Err(dacpipe::Error::model("is not saved")));
        let broken = compliance::check(&*stage, &batch, &registry).unwrap_err();
        let broken: Vec<String> = broken.iter().map(ToString::to_string).collect();
        assert_eq!(broken, ["Saved: is not saved"], "{}", stage.kind());
    }
}

#[test]
fn other_columns_and_metadata_keep_what_they_have() {
    for Case { name, stage, column } in cases() {
        let batch = batch(column);
        let output = stage.apply(&batch).unwrap();
        for column in ["id", "activity"] {
            assert_eq!(output.column_by_name(column), batch.column_by_name(column), "{name}: {column}");
        }
        assert_eq!(output.schema().metadata()["kept"], "yes", "{name}");
        let taken = RecordBatch::try_from_iter([
            ("embedding", Arc::clone(batch.column(0))),
            (FEATURES, Arc::clone(batch.column(1))),
        ]);
        if stage.vector_map().is_some_and(|map| map.dim_in() != map.dim_out()) {
            let e = stage.apply(&taken.unwrap()).unwrap_err();
            assert!(e.to_string().contains("column \"embedding\" is there already"), "{name}: {e}");
        }
    }
}

/// To within 1e-6 where the map loses nothing, as near as two epochs teach a decoder otherwise.
#[test]
fn the_way_back_leads_near_what_came_in() {
    let mut with_a_way_back = Vec::new();
    for Case { name, stage, column } in cases() {
        let Some(inverse) = stage.inverse() else { continue };
        with_a_way_back.push(name);
        let batch = batch(column);
        let (input, _) = vectors(&batch, column).unwrap();
        let (dim_in, dim_out) = (inverse.dim_in(), inverse.dim_out());
        let (mut output, mut back) = (vec![0.0; ROWS * dim_out], vec![f32::NAN; ROWS * dim_in]);
        inverse.map(input, &mut output).unwrap();
        inverse.invert(&output, &mut back).unwrap();
        let worst = input.iter().zip(&back).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        // An origin of 1e9 leaves nothing of the digits behind the point, which is why rows are taken from it in double.
        let exact = dim_in == dim_out && name != "origin";
        // Nothing taught the network anything.
        assert!(name == "network" || worst < if exact { 1e-6 } else { 1.0 }, "{name}: {worst}");
    }
    assert_eq!(with_a_way_back, ["origin", "impute", "scale, min-max", "scale, standard", "embed", "network"]);
}

#[test]
fn the_same_seed_learns_the_same() {
    for (one, other) in cases().iter().zip(cases()) {
        assert_eq!(one.stage.save(), other.stage.save(), "{}", one.name);
    }
}

#[test]
fn stages_are_shared_between_threads() {
    fn shared<T: Send + Sync + ?Sized>() {}
    shared::<dyn Transform>();
    shared::<Registry>();
}
