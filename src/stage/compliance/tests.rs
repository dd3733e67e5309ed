use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::Int32Array;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::stage::{Assignments, Clusters, Columns, FEATURES, InverseMap, Tensor, VectorMap};

/// What is wrong with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fault {
    Nothing,
    /// What a row becomes depends on the rows beside it.
    LooksAround,
    /// The first row of a batch is another than the others.
    FirstIsSpecial,
    /// It becomes another with every call.
    Counts,
    /// Values are left as they were where they would be 0.
    LeavesValues,
    /// A value that is not finite spoils the batch.
    Spreads,
    /// It panics at an infinite value.
    Panics,
    /// The way back depends on the rows beside it.
    LooksBack,
    /// The way back is from another width.
    OtherWayBack,
    /// Its numbers are not saved.
    Forgets,
    /// It is saved in another shape than it has.
    Misshapen,
    /// It panics at a damaged artifact.
    PanicsAtDamage,
    /// It takes whatever was saved.
    TakesDamage,
    /// What it holds for later stages is lost when it is kept.
    LosesWeights,
    /// It appends a column of another type than it said.
    OtherColumn,
    /// It appends too few rows.
    FewRows,
    /// It appends a column that is called as vectors are.
    CallsItEmbedding,
    /// It maps a column that nothing learns from.
    MapsElsewhere,
    /// It panics where the column that it reads is missing.
    NeedsColumn,
    /// It labels too few rows.
    FewLabels,
}

use Fault::*;

/// Adds a number to every value, with a fault.
#[derive(Debug)]
struct Toy {
    by: Vec<f32>,
    fault: Fault,
    calls: AtomicU32,
}

fn toy(by: Vec<f32>, fault: Fault) -> Arc<dyn Transform> {
    Arc::new(Toy { by, fault, calls: AtomicU32::new(0) })
}

impl VectorMap for Toy {
    fn dim_in(&self) -> usize {
        self.by.len()
    }

    fn dim_out(&self) -> usize {
        self.by.len()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let sum: f32 = input.iter().sum();
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) as f32;
        for (i, (y, (x, by))) in output.iter_mut().zip(input.iter().zip(self.by.iter().cycle())).enumerate() {
            let more = match self.fault {
                LooksAround => sum,
                FirstIsSpecial if i < self.by.len() => 1.0,
                Counts => calls,
                Spreads if !sum.is_finite() => f32::NAN,
                Panics if !x.is_finite() => panic!("{x} is too much"),
                LeavesValues if x + by == 1.0 => continue,
                _ => 0.0,
            };
            *y = x + by + more;
        }
        Ok(())
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        match self.fault {
            OtherWayBack => Some(&Wide),
            _ => Some(self),
        }
    }
}

impl InverseMap for Toy {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        let more = if self.fault == LooksBack { output.len() as f32 } else { 0.0 };
        input.iter_mut().zip(output.iter().zip(self.by.iter().cycle())).for_each(|(x, (y, by))| *x = y - by + more);
        Ok(())
    }
}

/// A map of rows of nine values.
#[derive(Debug)]
struct Wide;

impl VectorMap for Wide {
    fn dim_in(&self) -> usize {
        9
    }

    fn dim_out(&self) -> usize {
        9
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        output.copy_from_slice(input);
        Ok(())
    }
}

impl InverseMap for Wide {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        self.map(output, input)
    }
}

impl Columns for Toy {
    fn fields(&self, input: &Schema) -> Result<Vec<Field>> {
        if self.fault == NeedsColumn {
            assert!(input.index_of(FEATURES).is_ok(), "no features");
        }
        let name = if self.fault == CallsItEmbedding { "embedding" } else { "sum" };
        Ok(vec![Field::new(name, DataType::Float32, false)])
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (values, dim) = vectors(batch, FEATURES)?;
        let sums = values.chunks_exact(dim.max(1)).map(|row| row.iter().sum::<f32>());
        Ok(vec![match self.fault {
            OtherColumn => Arc::new(Int32Array::from_iter_values(sums.map(|sum| sum as i32))),
            FewRows => Arc::new(Float32Array::from_iter_values(sums.skip(1))),
            _ => Arc::new(Float32Array::from_iter_values(sums)),
        }])
    }
}

impl Clusters for Toy {
    fn k(&self) -> usize {
        1
    }

    fn dim(&self) -> usize {
        self.by.len()
    }

    fn centroids(&self) -> Option<Vec<f32>> {
        None
    }

    fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        let n = (rows.len() / self.by.len()).saturating_sub(1);
        Ok(Assignments { cluster: vec![0; n], distance: vec![0.0; n], margin: vec![f32::INFINITY; n] })
    }
}

impl Transform for Toy {
    fn kind(&self) -> &'static str {
        "toy"
    }

    fn action(&self) -> Action<'_> {
        match self.fault {
            OtherColumn | FewRows | CallsItEmbedding | NeedsColumn => Action::Append(self),
            FewLabels => Action::Assign { column: FEATURES, clusters: self },
            MapsElsewhere => Action::Map { from: "elsewhere", to: "elsewhere", map: self },
            _ => Action::Map { from: FEATURES, to: FEATURES, map: self },
        }
    }

    fn save(&self) -> Artifact {
        let values = if self.fault == Forgets { vec![0.0; self.by.len()] } else { self.by.clone() };
        let shape = if self.fault == Misshapen { vec![2, self.by.len()] } else { vec![self.by.len()] };
        Artifact {
            settings: [("fault".to_owned(), json!(self.fault))].into_iter().collect(),
            tensors: [("by".to_owned(), Tensor { shape, values })].into(),
        }
    }

    fn keep(&self) -> Artifact {
        let mut kept = self.save();
        if self.fault == LosesWeights {
            kept.tensors.insert("by".into(), Tensor { shape: vec![3], values: vec![1.0; 3] });
        }
        kept
    }

    fn feature_weights(&self) -> Option<&[f32]> {
        Some(&self.by)
    }
}

fn restore(artifact: &Artifact) -> Result<Arc<dyn Transform>> {
    let fault = artifact.settings.get("fault").cloned().unwrap_or_default();
    let fault = serde_json::from_value(fault).map_err(|e| Error::model("toy: fault").with_source(e))?;
    let by = artifact.tensors.get("by");
    match (fault, by) {
        (PanicsAtDamage, by) => Ok(toy(by.expect("no tensor").values.clone(), fault)),
        (TakesDamage, by) => Ok(toy(by.map_or(vec![1.0], |by| by.values.clone()), fault)),
        (_, Some(by)) if fault == Misshapen || by.shape == [by.values.len()] => Ok(toy(by.values.clone(), fault)),
        _ => Err(Error::model("toy: by")),
    }
}

/// Twelve rows of three values, which the map takes to 1 in places, and another column.
fn sample() -> RecordBatch {
    let values: Vec<f32> = (0..36).map(|i| (i * 5 % 12) as f32 / 4.0).collect();
    let fields =
        vec![vector_field("elsewhere", 3), vector_field(FEATURES, 3), Field::new("id", DataType::Int32, false)];
    let vectors = vector_array(values, 3).unwrap();
    let ids = Arc::new(Int32Array::from_iter_values(0..12));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::clone(&vectors), vectors, ids]).unwrap()
}

fn broken(fault: Fault) -> Vec<Broken> {
    let registry = Registry::default().stage("toy", |artifact, _| restore(artifact));
    check(&*toy(vec![0.5, -0.25, 0.0], fault), &sample(), &registry).err().unwrap_or_default()
}

#[test]
fn a_sound_stage_keeps_every_promise() {
    assert_eq!(broken(Nothing), []);
}

/// Each fault, and the promises that it breaks.
#[test]
fn every_fault_is_found() {
    use Promise::*;
    let promises = |fault| broken(fault).iter().map(|broken| broken.promise).collect::<Vec<_>>();
    assert_eq!(promises(LooksAround), [Batches, Finite]);
    assert_eq!(promises(FirstIsSpecial), [Order, Batches]);
    assert!(promises(Fault::Counts).starts_with(&[Same, Order, Batches, Vectors]));
    assert_eq!(promises(LeavesValues), [Vectors]);
    assert_eq!(promises(Spreads), [Finite]);
    assert_eq!(promises(Panics), [Finite]);
    assert_eq!(promises(LooksBack), [Inverse]);
    assert_eq!(promises(OtherWayBack), [Inverse]);
    assert_eq!(promises(Forgets), [Saved]);
    assert_eq!(promises(LosesWeights), [Saved]);
    assert_eq!(promises(Misshapen), [Saved, Damage]);
    assert_eq!(promises(PanicsAtDamage), [Damage]);
    assert_eq!(promises(TakesDamage), [Damage]);
    assert_eq!(promises(NeedsColumn), [Refusal]);
    for fault in [OtherColumn, FewRows, CallsItEmbedding, MapsElsewhere, FewLabels] {
        assert_eq!(promises(fault), [Schema], "{fault:?}");
    }
}

#[test]
fn what_is_found_says_what_is_wrong() {
    let said = |fault| broken(fault)[0].to_string();
    assert_eq!(said(FewRows), "Schema: 12 rows: stage toy made 11 rows of 12; it must keep them");
    assert_eq!(said(FewLabels), "Schema: 12 rows: 11 clusters for 12 rows");
    assert!(said(OtherColumn).starts_with("Schema: 12 rows: stage toy made other columns than it promised"));
    assert!(said(CallsItEmbedding).contains("appends column \"embedding\"; only a stage that maps vectors"));
    assert!(said(MapsElsewhere).contains("maps column \"elsewhere\"; vectors are in \"features\" or \"embedding\""));
    assert_eq!(said(Panics), "Finite: it panicked: NaN is too much");
    assert_eq!(said(NeedsColumn), "Refusal: it panicked: no features");
    assert_eq!(said(PanicsAtDamage), "Damage: it panicked: no tensor");
    assert_eq!(said(LeavesValues), "Vectors: bare vectors give other bits than a batch of them");
    assert_eq!(said(TakesDamage), "Damage: tensor \"by\" missing was taken, and would be saved as something else");
    let few = check(&*toy(vec![0.0; 3], Nothing), &sample().slice(0, 3), &Registry::default()).unwrap_err();
    assert_eq!(few[0].to_string(), "Schema: a batch of 3 rows shows little, give 4 or more");
    let unknown = check(&*toy(vec![0.0; 3], Nothing), &sample(), &Registry::default()).unwrap_err();
    assert!(unknown[0].to_string().starts_with("Saved: no stage of kind \"toy\""), "{unknown:?}");
}
