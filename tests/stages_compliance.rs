//! The contract of fitted stages, tested for every kind of stage by one suite. A new stage must be added to [`cases`].

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use dacpipe::column::{vector_array, vector_dim, vector_field, vectors};
use dacpipe::device::Cpu;
use dacpipe::event::Control;
use dacpipe::kernel::Dense;
use dacpipe::kmeans::KMeansSpec;
use dacpipe::label::KMeansStage;
use dacpipe::model::restore;
use dacpipe::scale::{ScaleMethod, ScaleSpec, ScaleStage};
use dacpipe::stage::{Artifact, EMBEDDING, FEATURES, Fit, FitContext, NoCheckpoint, Training, Transform};
use dacpipe::train::{Autoencoder, AutoencoderSpec};
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightsSpec};
use dacpipe::{Kind, Seed};

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

fn cases() -> Vec<Case> {
    let case = |name, column, stage: &dyn Fit| Case { name, stage: fit(stage), column };
    let weights = |labels| FeatureWeightsStage::new(WeightsSpec::new(labels));
    let network = AutoencoderSpec { encoder: vec![5, 4, 3], epochs: 2, batch_size: 50, ..AutoencoderSpec::default() };
    let settings =
        [("values".to_string(), serde_json::json!([0.5, 0.0, -1.0, 1e9, 0.25, 0.0, 3.0]))].into_iter().collect();
    let origin = restore("origin", &Artifact { settings, ..Artifact::default() }, &Cpu::default(), &[]).unwrap();
    vec![
        Case { name: "origin", stage: origin, column: FEATURES },
        case("scale, min-max", FEATURES, &ScaleStage::new(ScaleSpec { method: ScaleMethod::MinMax })),
        case("scale, standard", FEATURES, &ScaleStage::new(ScaleSpec { method: ScaleMethod::Standard })),
        case("weights, labels", FEATURES, &weights(WeightLabels::Column("activity".into()))),
        case("weights, pseudo-labels", FEATURES, &weights(WeightLabels::Pseudo { k: 3 })),
        case("weights, uniform", FEATURES, &weights(WeightLabels::Uniform)),
        case("embed", FEATURES, &Autoencoder { spec: network.clone() }),
        case("embed, no decoder", FEATURES, &Autoencoder { spec: AutoencoderSpec { keep_decoder: false, ..network } }),
        case("label of features", FEATURES, &KMeansStage::new(KMeansSpec::new(3), FEATURES)),
        case("label of embeddings", EMBEDDING, &KMeansStage::new(KMeansSpec::new(4), EMBEDDING)),
    ]
}

/// Rows with an id before and a nullable label after the vectors, and metadata that must survive.
fn batch_of(column: &str, values: Vec<f32>) -> RecordBatch {
    let rows = values.len() / DIM;
    let id: Int64Array = (0..rows as i64).map(Some).collect();
    let label: StringArray = (0..rows).map(|row| (row % 4 > 0).then(|| format!("class {}", row % 3))).collect();
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        vector_field(column, DIM),
        Field::new("activity", DataType::Utf8, true),
    ];
    let metadata = [("kept".to_string(), "yes".to_string())].into();
    let columns: Vec<ArrayRef> = vec![Arc::new(id), vector_array(values, DIM).unwrap(), Arc::new(label)];
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns).unwrap()
}

fn batch(case: &Case) -> RecordBatch {
    batch_of(case.column, values(ROWS))
}

/// Bitwise equal, also for NaN.
fn same_bits(a: &RecordBatch, b: &RecordBatch) -> bool {
    let column =
        |(a, b): (&ArrayRef, &ArrayRef)| a.to_data() == b.to_data() || (bits(a).is_some() && bits(a) == bits(b));
    a.schema() == b.schema() && a.num_rows() == b.num_rows() && a.columns().iter().zip(b.columns()).all(column)
}

/// The bits of a column of floats or of vectors of them; none of another.
fn bits(column: &ArrayRef) -> Option<Vec<u32>> {
    match column.data_type() {
        DataType::Float32 => Some(column.as_primitive::<Float32Type>().values().iter().map(|x| x.to_bits()).collect()),
        DataType::FixedSizeList(_, _) => {
            let list = column.as_fixed_size_list();
            let rows = (0..list.len()).map(|row| bits(&list.value(row)));
            Some(rows.collect::<Option<Vec<_>>>()?.concat())
        }
        _ => None,
    }
}

fn each(check: impl Fn(&Case, &RecordBatch)) {
    for case in cases() {
        println!("{}", case.name);
        check(&case, &batch(&case));
    }
}

#[test]
fn every_kind_is_here() {
    let kinds: BTreeSet<&str> = cases().iter().map(|case| case.stage.kind()).collect();
    assert_eq!(kinds, BTreeSet::from(["origin", "scale", "feature_weights", "embed", "label"]));
}

#[test]
fn the_output_has_the_schema_that_was_promised() {
    each(|case, batch| {
        let output = case.stage.apply(batch).unwrap();
        assert_eq!(output.schema(), case.stage.output_schema(batch.schema_ref()).unwrap());
        assert_eq!(output.schema().metadata()["kept"], "yes");
    });
}

#[test]
fn rows_keep_their_number_and_order_and_other_columns_their_values() {
    each(|case, batch| {
        let output = case.stage.apply(batch).unwrap();
        for name in ["id", "activity"] {
            assert_eq!(output.column_by_name(name).unwrap(), batch.column_by_name(name).unwrap(), "{name}");
        }
        // Reversed rows give reversed results.
        let reversed = UInt32Array::from_iter_values((0..ROWS as u32).rev());
        let turned = case.stage.apply(&take_record_batch(batch, &reversed).unwrap()).unwrap();
        assert!(same_bits(&turned, &take_record_batch(&output, &reversed).unwrap()));
    });
}

#[test]
fn an_empty_batch_gives_an_empty_batch() {
    each(|case, batch| {
        let output = case.stage.apply(&batch.slice(0, 0)).unwrap();
        assert_eq!(output.num_rows(), 0);
        assert_eq!(output.schema(), case.stage.output_schema(batch.schema_ref()).unwrap());
    });
}

#[test]
fn one_batch_or_many_give_the_same_bits() {
    each(|case, batch| {
        let whole = case.stage.apply(batch).unwrap();
        for size in [1, 2, 13, 64, ROWS - 1] {
            let parts = (0..ROWS).step_by(size).map(|at| batch.slice(at, size.min(ROWS - at)));
            let parts: Vec<_> = parts.map(|part| case.stage.apply(&part).unwrap()).collect();
            assert!(same_bits(&whole, &concat_batches(&whole.schema(), &parts).unwrap()), "batches of {size}");
        }
    });
}

#[test]
fn bare_vectors_give_the_bits_of_batches() {
    each(|case, batch| {
        let Some(map) = case.stage.as_vector_map() else { return };
        let (input, dim) = vectors(batch, case.column).unwrap();
        assert_eq!(dim, map.dim_in());
        let mut output = vec![0.0; ROWS * map.dim_out()];
        map.map(input, &mut output).unwrap();
        let applied = case.stage.apply(batch).unwrap();
        let name = if applied.column_by_name(EMBEDDING).is_some() { EMBEDDING } else { FEATURES };
        let (expected, dim) = vectors(&applied, name).unwrap();
        assert_eq!(dim, map.dim_out());
        assert!(output.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
    });
}

/// Every row by itself: to within 1e-6 if the map loses nothing, else as close as a decoder gets after two epochs.
#[test]
fn the_way_back_has_the_width_that_came_in_and_the_same_bits_in_any_batch() {
    each(|case, batch| {
        let Some(inverse) = case.stage.as_inverse() else { return };
        let (input, dim) = vectors(batch, case.column).unwrap();
        let (dim_in, dim_out) = (inverse.dim_in(), inverse.dim_out());
        assert_eq!(dim, dim_in);
        let (mut output, mut back) = (vec![0.0; ROWS * dim_out], vec![f32::NAN; ROWS * dim_in]);
        inverse.map(input, &mut output).unwrap();
        inverse.invert(&output, &mut back).unwrap();
        for (row, (output, back)) in output.chunks(dim_out).zip(back.chunks(dim_in)).enumerate() {
            let mut alone = vec![f32::NAN; dim_in];
            inverse.invert(output, &mut alone).unwrap();
            assert_eq!(alone, back, "row {row}");
        }
        let worst = input.iter().zip(&back).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        // An origin of 1e9 leaves no decimals in single precision, which is why it is subtracted in double.
        let exact = dim_in == dim_out && case.name != "origin";
        assert!(worst < if exact { 1e-6 } else { 1.0 }, "{}: {worst}", case.name);
    });
    let with_a_way_back = cases().iter().filter(|case| case.stage.as_inverse().is_some()).count();
    assert_eq!(with_a_way_back, 4, "the origin, two ways of scaling, and the autoencoder with its decoder");
}

#[test]
fn what_is_saved_comes_back_with_the_same_bits() {
    each(|case, batch| {
        let artifact = case.stage.save();
        for (name, tensor) in &artifact.tensors {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len(), "{name}");
        }
        // Through JSON, as in a model's manifest.
        let mut read = artifact.clone();
        read.settings = serde_json::from_str(&serde_json::to_string(&artifact.settings).unwrap()).unwrap();
        let back = restore(case.stage.kind(), &read, &Cpu::default(), &[]).unwrap();
        assert_eq!(back.kind(), case.stage.kind());
        assert_eq!(back.save(), artifact);
        assert_eq!(back.feature_weights(), case.stage.feature_weights());
        assert!(same_bits(&back.apply(batch).unwrap(), &case.stage.apply(batch).unwrap()));
    });
}

#[test]
fn a_damaged_artifact_is_an_error_of_the_model() {
    each(|case, _| {
        let artifact = case.stage.save();
        for name in artifact.tensors.keys() {
            let mut damaged = artifact.clone();
            damaged.tensors.remove(name);
            assert_eq!(
                restore(case.stage.kind(), &damaged, &Cpu::default(), &[]).unwrap_err().kind(),
                Kind::Model,
                "no {name}"
            );
            let mut damaged = artifact.clone();
            damaged.tensors.get_mut(name).unwrap().values.pop();
            assert_eq!(
                restore(case.stage.kind(), &damaged, &Cpu::default(), &[]).unwrap_err().kind(),
                Kind::Model,
                "{name} cut"
            );
        }
        for name in artifact.settings.keys() {
            let mut damaged = artifact.clone();
            damaged.settings.insert(name.clone(), serde_json::json!({"not": "this"}));
            assert_eq!(
                restore(case.stage.kind(), &damaged, &Cpu::default(), &[]).unwrap_err().kind(),
                Kind::Model,
                "{name}"
            );
        }
    });
}

/// NaN and infinity are refused, or stay in their own row.
#[test]
fn values_that_are_not_finite_do_not_reach_other_rows() {
    each(|case, batch| {
        let whole = case.stage.apply(batch).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = values(ROWS);
            values[100 * DIM + 3] = bad;
            match case.stage.apply(&batch_of(case.column, values)) {
                Err(e) => assert_eq!(e.kind(), Kind::Input, "{e}"),
                Ok(output) => {
                    assert!(same_bits(&output.slice(0, 100), &whole.slice(0, 100)), "{bad}");
                    assert!(same_bits(&output.slice(101, ROWS - 101), &whole.slice(101, ROWS - 101)), "{bad}");
                }
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    each(|case, batch| {
        // The weights are held for later stages; rows pass by untouched.
        if case.stage.kind() == "feature_weights" {
            return;
        }
        let without = batch.project(&[0, 2]).unwrap();
        for e in [case.stage.apply(&without).unwrap_err(), case.stage.output_schema(without.schema_ref()).unwrap_err()]
        {
            assert_eq!(e.kind(), Kind::Input, "{e}");
            assert!(e.to_string().contains(case.column), "{e}");
        }
        let narrow = RecordBatch::try_new(
            Arc::new(Schema::new(vec![vector_field(case.column, DIM - 1)])),
            vec![vector_array(vec![0.0; 2 * (DIM - 1)], DIM - 1).unwrap()],
        );
        let e = case.stage.apply(&narrow.unwrap()).unwrap_err();
        assert_eq!(e.kind(), Kind::Model, "{e}");
        let (made_for, has) = (DIM.to_string(), (DIM - 1).to_string());
        assert!(e.to_string().contains(&made_for) && e.to_string().contains(&has), "{e}");
    });
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
    for case in cases() {
        let batch = batch(&case);
        let expected = case.stage.apply(&batch).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(same_bits(&case.stage.apply(&batch).unwrap(), &expected), "{}", case.name));
            }
        });
        assert_eq!(vector_dim(batch.schema_ref(), case.column).unwrap(), DIM);
    }
}
