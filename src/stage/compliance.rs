//! What a fitted stage promises, as one suite: for those who write stages, and for dacpipe's own.
//!
//! [`check`] holds a stage to every [`Promise`], on a batch of rows that it takes. A test of a stage of your own is one line;
//! [`registry`](crate::registry) has it in full.
//!
//! ```
//! use dacpipe::device::{Cpu, Device};
//! use dacpipe::kernel::Dense;
//! use dacpipe::registry::Registry;
//! use dacpipe::scale::{Scale, ScaleMethod};
//! use dacpipe::stage::{FEATURES, compliance};
//! use dacpipe::column::{vector_array, vector_field};
//! use arrow::{datatypes::Schema, record_batch::RecordBatch};
//! use std::sync::Arc;
//!
//! let rows = [1.0, 5.0, 3.0, 5.0, 2.0, 5.5, 4.0, 6.0];
//! let scale = Scale::learn(&Dense::new(&rows, 2), ScaleMethod::MinMax, Cpu::default().pool())?;
//! let schema = Arc::new(Schema::new(vec![vector_field(FEATURES, 2)]));
//! let batch = RecordBatch::try_new(schema, vec![vector_array(rows.to_vec(), 2)?])?;
//! assert_eq!(compliance::check(&scale, &batch, &Registry::default()), Ok(()));
//! # Ok::<(), dacpipe::Error>(())
//! ```

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use arrow::record_batch::RecordBatch;

use super::{Action, Apply, Artifact, Transform};
use crate::Kind;
use crate::column::{double_array, double_field, vector_array, vector_field, vectors};
use crate::error::{Error, Result};
use crate::registry::Registry;

/// The least rows of a batch that shows something.
const FEWEST_ROWS: usize = 4;

/// What a stage promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Promise {
    /// It takes the batch that it is checked with, and makes the columns that it said it would.
    Schema,
    /// The same batch gives the same bits again, on other threads at the same time, too.
    Same,
    /// Rows stay in their order: turned round, they give the same results turned round.
    Order,
    /// A row gives the same bits in any batch, alone and among others; no rows give no rows.
    Batches,
    /// Bare vectors give the bits of batches, and every value is written.
    Vectors,
    /// The way back gives rows of the width that came in, each by itself.
    Inverse,
    /// What is saved comes back as the same stage, with the same bits; what is kept, too.
    Saved,
    /// A damaged artifact is an error of kind `Model`, or another stage that is as sound: never a panic, nor a stage that
    /// would be saved as something else.
    Damage,
    /// A value that is not finite is refused, or stays in its own row.
    Finite,
    /// Missing columns, vectors of another width or precision, and nulls are errors, by schema and by batch. A stage that
    /// appends columns of its own may take what it likes of them, but does not panic.
    Refusal,
}

/// A promise that a stage broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)
    }
}

/// Holds `stage` to its promises, on the rows of `batch`, which has the columns that it reads and four rows or more, better
/// a hundred that differ. `registry` knows the stage's kind.
///
/// # Errors
/// The promises that it broke.
pub fn check(stage: &dyn Transform, batch: &RecordBatch, registry: &Registry) -> Result<(), Vec<Broken>> {
    if batch.num_rows() < FEWEST_ROWS {
        let what = format!("a batch of {} rows shows little, give {FEWEST_ROWS} or more", batch.num_rows());
        return Err(vec![Broken { promise: Promise::Schema, what }]);
    }
    let checks: [(Promise, Check); 10] = [
        (Promise::Schema, schema),
        (Promise::Same, same),
        (Promise::Order, order),
        (Promise::Batches, batches),
        (Promise::Vectors, bare_vectors),
        (Promise::Inverse, way_back),
        (Promise::Saved, saved),
        (Promise::Damage, damage),
        (Promise::Finite, finite),
        (Promise::Refusal, refusal),
    ];
    let case = Case { stage, batch, registry };
    let mut broken = Vec::new();
    for (promise, check) in checks {
        let found = catch_unwind(AssertUnwindSafe(|| check(&case)));
        let Some(what) = found.unwrap_or_else(|panic| Err(format!("it panicked: {}", said(&*panic)))).err() else {
            continue;
        };
        broken.push(Broken { promise, what });
        // What does not even take its rows would break every other promise as well.
        if promise == Promise::Schema {
            break;
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// What a check found wrong.
type Found = std::result::Result<(), String>;

type Check = fn(&Case<'_>) -> Found;

struct Case<'a> {
    stage: &'a dyn Transform,
    batch: &'a RecordBatch,
    registry: &'a Registry,
}

impl Case<'_> {
    fn apply(&self, batch: &RecordBatch) -> std::result::Result<RecordBatch, String> {
        self.stage.apply(batch).map_err(|e| format!("{} rows: {e}", batch.num_rows()))
    }

    /// The column of vectors that it reads, and their width; none for a stage that does not say.
    fn reads(&self) -> Option<(&str, usize)> {
        match self.stage.action() {
            Action::Map { from, map, .. } => Some((from, map.dim_in())),
            Action::Assign { column, clusters } => Some((column, clusters.dim())),
            Action::Keep { dim } => dim.map(|dim| (super::FEATURES, dim)),
            Action::Append(_) => None,
        }
    }

    /// The columns of vectors in single precision that it may read.
    fn vector_columns(&self) -> Vec<(String, usize)> {
        let of_batch = |field: &Arc<Field>| match field.data_type() {
            DataType::FixedSizeList(item, dim) if item.data_type() == &DataType::Float32 => {
                Some((field.name().clone(), *dim as usize))
            }
            _ => None,
        };
        match self.reads() {
            Some((name, dim)) => vec![(name.to_owned(), dim)],
            None => self.batch.schema_ref().fields().iter().filter_map(of_batch).collect(),
        }
    }
}

/// `Err` with what `wrong` says unless `right`.
fn hold(right: bool, wrong: impl FnOnce() -> String) -> Found {
    if right { Ok(()) } else { Err(wrong()) }
}

fn schema(case: &Case<'_>) -> Found {
    let promised = case.stage.output_schema(case.batch.schema_ref()).map_err(|e| format!("its schema: {e}"))?;
    let made = case.apply(case.batch)?;
    hold(made.schema() == promised, || format!("made {:?}, promised {promised:?}", made.schema()))?;
    hold(made.num_rows() == case.batch.num_rows(), || format!("made {} rows", made.num_rows()))
}

fn same(case: &Case<'_>) -> Found {
    let first = case.apply(case.batch)?;
    std::thread::scope(|scope| {
        let again = || case.apply(case.batch).map(|again| same_bits(&first, &again));
        let threads = [(); 4].map(|()| scope.spawn(again));
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(same) => hold(same?, || "the same batch gave other bits the second time".into()),
            Err(panic) => Err(format!("it panicked: {}", said(&*panic))),
        })
    })
}

fn order(case: &Case<'_>) -> Found {
    let turned = UInt32Array::from_iter_values((0..case.batch.num_rows() as u32).rev());
    let turn = |batch: &RecordBatch| take_record_batch(batch, &turned).map_err(|e| e.to_string());
    let (before, after) = (case.apply(&turn(case.batch)?)?, turn(&case.apply(case.batch)?)?);
    hold(same_bits(&before, &after), || "rows the other way round give other results".into())
}

fn batches(case: &Case<'_>) -> Found {
    let (whole, rows) = (case.apply(case.batch)?, case.batch.num_rows());
    for size in [1, 2, 3, 7, 64, rows - 1] {
        let parts = (0..rows).step_by(size).map(|at| case.apply(&case.batch.slice(at, size.min(rows - at))));
        let parts = parts.collect::<std::result::Result<Vec<_>, _>>()?;
        let parts = concat_batches(&whole.schema(), &parts).map_err(|e| format!("batches of {size}: {e}"))?;
        hold(same_bits(&whole, &parts), || format!("batches of {size} give other bits than one of {rows}"))?;
    }
    let none = case.apply(&case.batch.slice(0, 0))?;
    hold(none.num_rows() == 0 && none.schema() == whole.schema(), || format!("no rows give {none:?}"))
}

fn bare_vectors(case: &Case<'_>) -> Found {
    let Action::Map { from, to, map } = case.stage.action() else { return Ok(()) };
    let made = case.apply(case.batch)?;
    let values = |batch, name| vectors(batch, name).map(|(values, _)| values.to_vec()).map_err(|e| e.to_string());
    let mut output = vec![f32::NAN; case.batch.num_rows() * map.dim_out()];
    map.map(&values(case.batch, from)?, &mut output).map_err(|e| e.to_string())?;
    hold(equal(&output, &values(&made, to)?), || "bare vectors give other bits than a batch of them".into())
}

fn way_back(case: &Case<'_>) -> Found {
    let (Some((column, _)), Some(inverse)) = (case.reads(), case.stage.inverse()) else { return Ok(()) };
    let Action::Map { map, .. } = case.stage.action() else { return Ok(()) };
    let (dim_in, dim_out) = (inverse.dim_in(), inverse.dim_out());
    hold((dim_in, dim_out) == (map.dim_in(), map.dim_out()), || {
        format!(
            "the way back is from {dim_out} to {dim_in} values, there it is from {} to {}",
            map.dim_in(),
            map.dim_out()
        )
    })?;
    let (input, _) = vectors(case.batch, column).map_err(|e| e.to_string())?;
    let rows = case.batch.num_rows();
    let (mut output, mut back) = (vec![f32::NAN; rows * dim_out], vec![f32::NAN; rows * dim_in]);
    map.map(input, &mut output).map_err(|e| e.to_string())?;
    inverse.invert(&output, &mut back).map_err(|e| e.to_string())?;
    for (row, (output, back)) in output.chunks(dim_out).zip(back.chunks(dim_in)).enumerate() {
        let mut alone = vec![f32::NAN; dim_in];
        inverse.invert(output, &mut alone).map_err(|e| e.to_string())?;
        hold(equal(&alone, back), || format!("row {row} alone comes back with other bits than among others"))?;
    }
    Ok(())
}

fn saved(case: &Case<'_>) -> Found {
    let artifact = case.stage.save();
    for (name, tensor) in &artifact.tensors {
        let (count, shape) = (tensor.values.len(), &tensor.shape);
        hold(shape.iter().product::<usize>() == count, || format!("{count} values in {name:?} of shape {shape:?}"))?;
    }
    let restore = |artifact: &Artifact| {
        // Through JSON, as in the manifest of a model.
        let text = serde_json::to_string(&artifact.settings).map_err(|e| e.to_string())?;
        let settings = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let read = Artifact { settings, tensors: artifact.tensors.clone() };
        case.registry.restore(case.stage.kind(), &read).map_err(|e| e.to_string())
    };
    let back = restore(&artifact)?;
    let (kind, there) = (case.stage.kind(), back.kind());
    hold(kind == there, || format!("saved as {kind:?}, it comes back as {there:?}"))?;
    hold(back.save() == artifact, || "what comes back is saved as something else".into())?;
    let made = back.apply(case.batch).map_err(|e| format!("what comes back: {e}"))?;
    hold(same_bits(&made, &case.apply(case.batch)?), || "what comes back gives other bits".into())?;
    hold(back.feature_weights() == case.stage.feature_weights(), || "its feature weights do not come back".into())?;
    let kept = restore(&case.stage.keep())?;
    hold(
        kept.save() == artifact
            && kept.feature_weights() == case.stage.feature_weights()
            && kept.coordinates() == case.stage.coordinates()
            && kept.centroids() == case.stage.centroids(),
        || "what is kept of it comes back as something else".into(),
    )
}

fn damage(case: &Case<'_>) -> Found {
    let artifact = case.stage.save();
    let refused = |what: String, damaged: Artifact| match case.registry.restore(case.stage.kind(), &damaged) {
        Err(e) if e.kind() == Kind::Model => Ok(()),
        Err(e) => Err(format!("{what}: an error of kind {:?}: {e}", e.kind())),
        Ok(back) => hold(back.save() == damaged, || format!("{what} was taken, and would be saved as something else")),
    };
    for name in artifact.tensors.keys() {
        let mut damaged = artifact.clone();
        damaged.tensors.remove(name);
        refused(format!("tensor {name:?} missing"), damaged)?;
        let mut damaged = artifact.clone();
        if let Some(tensor) = damaged.tensors.get_mut(name) {
            tensor.values.pop();
        }
        refused(format!("tensor {name:?} a value short of its shape"), damaged)?;
    }
    for name in artifact.settings.keys() {
        let mut damaged = artifact.clone();
        damaged.settings.insert(name.clone(), serde_json::json!({"not": "this"}));
        refused(format!("setting {name:?} of another type"), damaged)?;
    }
    Ok(())
}

fn finite(case: &Case<'_>) -> Found {
    let (whole, rows) = (case.apply(case.batch)?, case.batch.num_rows());
    let at = rows / 2;
    for (name, dim) in case.vector_columns() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vectors(case.batch, &name).map_err(|e| e.to_string())?.0.to_vec();
            values[at * dim + dim / 2] = bad;
            let array = vector_array(values, dim).map_err(|e| e.to_string())?;
            match case.stage.apply(&with(case.batch, &name, vector_field(&name, dim), array)?) {
                Err(e) => hold(e.kind() == Kind::Input, || format!("{bad} is an error of kind {:?}: {e}", e.kind()))?,
                Ok(made) => {
                    let same =
                        |from: usize, to: usize| same_bits(&made.slice(from, to - from), &whole.slice(from, to - from));
                    hold(same(0, at) && same(at + 1, rows), || format!("{bad} in row {at} changes other rows"))?;
                }
            }
        }
    }
    Ok(())
}

fn refusal(case: &Case<'_>) -> Found {
    let said = case.reads();
    for (name, dim) in case.vector_columns() {
        let (values, _) = vectors(case.batch, &name).map_err(|e| e.to_string())?;
        let rows = case.batch.num_rows();
        // Whether it is refused by the schema, and by the batch.
        let refused = |what: &str, batch: &RecordBatch, kind: Kind, schema_too: bool| -> Found {
            let by_schema = case.stage.output_schema(batch.schema_ref()).err();
            let by_batch = case.stage.apply(batch).err();
            if said.is_none() {
                return Ok(());
            }
            let right = |e: &Option<Error>| e.as_ref().is_some_and(|e| e.kind() == kind);
            hold(right(&by_batch) && (right(&by_schema) || !schema_too), || {
                format!(
                    "{what}: expected an error of kind {kind:?}, got {by_schema:?} by schema and {by_batch:?} by batch"
                )
            })
        };
        let keeps = matches!(case.stage.action(), Action::Keep { .. });
        let others: Vec<usize> =
            (0..case.batch.num_columns()).filter(|&i| case.batch.schema_ref().field(i).name() != &name).collect();
        let without = case.batch.project(&others).map_err(|e| e.to_string())?;
        refused("a batch without its column", &without, Kind::Input, true)?;
        let wide = vector_array(vec![0.5; rows * (dim + 1)], dim + 1).map_err(|e| e.to_string())?;
        let wide = with(case.batch, &name, vector_field(&name, dim + 1), wide)?;
        refused("vectors of one more value", &wide, Kind::Model, true)?;
        // A stage that leaves rows as they are leaves these as well.
        if !keeps {
            let null = with_null(values, dim).map_err(|e| e.to_string())?;
            let field = Field::new(&name, null.data_type().clone(), true);
            refused("a null among its vectors", &with(case.batch, &name, field, null)?, Kind::Input, false)?;
        }
        let doubles = values.iter().map(|&x| f64::from(x)).collect();
        let double = double_array(doubles, dim).map_err(|e| e.to_string())?;
        let double = with(case.batch, &name, double_field(&name, dim), double)?;
        if case.stage.vector_map().is_some_and(|map| map.as_origin().is_some()) {
            let same = same_bits(&case.apply(&double)?, &case.apply(case.batch)?);
            hold(same, || "the same values in double precision give other bits".into())?;
        } else if !keeps {
            refused("vectors in double precision", &double, Kind::Input, true)?;
        }
    }
    Ok(())
}

/// `batch` with another array in the place of the column `name`.
fn with(batch: &RecordBatch, name: &str, field: Field, array: ArrayRef) -> std::result::Result<RecordBatch, String> {
    let at = batch.schema_ref().index_of(name).map_err(|e| e.to_string())?;
    let mut fields: Vec<_> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    (fields[at], columns[at]) = (Arc::new(field), array);
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|e| e.to_string())
}

/// An array of vectors, the second of which is null.
fn with_null(values: &[f32], dim: usize) -> Result<ArrayRef> {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let nulls: NullBuffer = (0..values.len() / dim.max(1)).map(|row| row != 1).collect();
    let items = Arc::new(Float32Array::from(values.to_vec()));
    Ok(Arc::new(FixedSizeListArray::try_new(item, dim as i32, items, Some(nulls))?))
}

/// Equal to the bit, also where a value is NaN.
fn same_bits(a: &RecordBatch, b: &RecordBatch) -> bool {
    let column =
        |(a, b): (&ArrayRef, &ArrayRef)| a.to_data() == b.to_data() || (bits(a).is_some() && bits(a) == bits(b));
    a.schema() == b.schema() && a.num_rows() == b.num_rows() && a.columns().iter().zip(b.columns()).all(column)
}

fn equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
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

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests;
