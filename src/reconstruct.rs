//! How far rows are from their reconstruction: the anomaly score of an autoencoder.
//!
//! The error of a row is the mean over its n features of the squared difference between the features x as the
//! autoencoder is given them (scaled: a feature's range in the training rows is 1) and what its decoder makes y of their
//! embedding, `sum_i (y_i - x_i)^2 / n`. That is equation 4 of Lu & Li 2021 with all weights 1, whatever weights the loss
//! had in training: an anomaly in a feature that tells no classes apart is an anomaly, and errors of two pipelines can be
//! compared. Its root is the usual size of an error, in parts of a feature's range.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::column::{vector_dim, vectors};
use crate::error::{Error, Result};
use crate::kernel::dense::squared_error;
use crate::stage::{
    Action, Apply, Artifact, Columns, EMBEDDING, FEATURES, InverseMap, RECONSTRUCTION_ERROR, Transform,
};
use crate::vectors::Carry;

/// The error of each of some rows, given what they were `rebuilt` as; both row-major, of `dim` values a row.
///
/// ```
/// use dacpipe::reconstruct::errors;
/// assert_eq!(errors(&[0.0, 1.0, 0.5, 0.5], &[0.5, 0.0, 0.5, 0.5], 2), [0.625, 0.0]);
/// ```
///
/// # Panics
/// If `dim` is 0 or there are fewer values rebuilt than rows have.
pub fn errors(rows: &[f32], rebuilt: &[f32], dim: usize) -> Vec<f32> {
    let pairs = rows.chunks_exact(dim).zip(rebuilt[..rows.len()].chunks_exact(dim));
    pairs.map(|(x, y)| (squared_error(x, y) / dim as f64) as f32).collect()
}

/// The column of [`errors`]: Float32, never null.
pub fn error_field() -> Field {
    Field::new(RECONSTRUCTION_ERROR, DataType::Float32, false)
}

/// The features as a stage that embeds them is given them, past that stage; not written.
const GIVEN: &str = "__given";

/// `stage`, which makes embeddings of features, between two others by which the [`errors`] of the rows are appended as a
/// column [`RECONSTRUCTION_ERROR`]. It costs the decoder's pass.
///
/// # Errors
/// Kind `Model` if it does not know the way back.
pub fn with_errors(stage: Arc<dyn Transform>) -> Result<[Arc<dyn Transform>; 3]> {
    inverse(&*stage)?;
    let error = ReconstructionError(Arc::clone(&stage));
    Ok([Arc::new(Carry::new(FEATURES, GIVEN)), stage, Arc::new(error)])
}

/// `rows` (row-major, as `stage` is given them) as they are rebuilt from their embeddings.
///
/// # Errors
/// Kind `Model` if it does not know the way back.
pub(crate) fn rebuilt(stage: &dyn Transform, rows: &[f32]) -> Result<Vec<f32>> {
    let inverse = inverse(stage)?;
    let mut embedded = vec![0.0; rows.len() / inverse.dim_in() * inverse.dim_out()];
    inverse.map(rows, &mut embedded)?;
    let mut rebuilt = vec![0.0; rows.len()];
    inverse.invert(&embedded, &mut rebuilt)?;
    Ok(rebuilt)
}

fn inverse(stage: &dyn Transform) -> Result<&dyn InverseMap> {
    stage.inverse().ok_or_else(|| Error::model(format!("stage {} has no decoder", stage.kind())))
}

/// Appends the errors of rows that the stage embedded, by the features that were carried past it.
#[derive(Debug)]
struct ReconstructionError(Arc<dyn Transform>);

impl Columns for ReconstructionError {
    fn fields(&self, input: &Schema) -> Result<Vec<Field>> {
        let inverse = inverse(&*self.0)?;
        let widths = [(GIVEN, inverse.dim_in()), (EMBEDDING, inverse.dim_out())];
        for (column, expected) in widths {
            let dim = vector_dim(input, column)?;
            if dim != expected {
                return Err(Error::model(format!("a decoder for {expected} values, column {column:?} has {dim}")));
            }
        }
        Ok(vec![error_field()])
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (rows, dim) = vectors(batch, GIVEN)?;
        let mut rebuilt = vec![0.0; rows.len()];
        inverse(&*self.0)?.invert(vectors(batch, EMBEDDING)?.0, &mut rebuilt)?;
        Ok(vec![Arc::new(Float32Array::from(errors(rows, &rebuilt, dim)))])
    }
}

impl Transform for ReconstructionError {
    fn kind(&self) -> &'static str {
        "reconstruction_error"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    /// It is part of no model: the stage beside it is.
    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;

    use super::*;
    use crate::column::{vector_array, vector_field};
    use crate::device::Cpu;
    use crate::embed::Embed;
    use crate::network::{Architecture, initialise};
    use crate::seed::Seed;

    fn embed(decoder: bool) -> Arc<dyn Transform> {
        let whole = Architecture::dac(5, &[4, 2], None);
        let parameters = initialise(&whole, Seed(8));
        let kept = if decoder { whole } else { Architecture { decoder: vec![], ..whole } };
        Arc::new(Embed::new(&kept, &parameters, &Cpu::default()).unwrap())
    }

    fn batch(rows: usize) -> RecordBatch {
        let values = (0..rows * 5).map(|i| (i as f32 * 0.7).sin().abs()).collect();
        let schema = Schema::new(vec![vector_field(FEATURES, 5)]);
        RecordBatch::try_new(Arc::new(schema), vec![vector_array(values, 5).unwrap()]).unwrap()
    }

    fn floats(batch: &RecordBatch) -> Vec<f32> {
        let column = batch.column_by_name(RECONSTRUCTION_ERROR).unwrap();
        column.as_primitive::<Float32Type>().values().to_vec()
    }

    #[test]
    fn the_embedding_stays_and_the_error_is_its_definition() {
        let (stage, batch) = (embed(true), batch(70));
        let with = with_errors(Arc::clone(&stage)).unwrap();
        let apply =
            |batch: &RecordBatch| with.iter().try_fold(batch.clone(), |batch, stage| stage.apply(&batch)).unwrap();
        let out = apply(&batch);
        assert_eq!(out.project(&[0]).unwrap(), stage.apply(&batch).unwrap());
        let rows = vectors(&batch, FEATURES).unwrap().0;
        let codes = vectors(&out, EMBEDDING).unwrap().0;
        for ((row, code), error) in rows.chunks(5).zip(codes.chunks(2)).zip(floats(&out)) {
            let mut rebuilt = [0.0; 5];
            stage.inverse().unwrap().invert(code, &mut rebuilt).unwrap();
            let squares = row.iter().zip(rebuilt).map(|(x, y)| f64::from(x - y) * f64::from(x - y));
            let mean = squares.sum::<f64>() / 5.0;
            assert!(mean > 0.0 && (f64::from(error) - mean).abs() < 1e-7 * mean.max(1e-2), "{error} {mean}");
        }
        assert_eq!(floats(&apply(&batch.slice(33, 1))), floats(&out)[33..34]);
        assert_eq!(rebuilt(&*stage, rows).unwrap().len(), rows.len());
    }

    #[test]
    fn what_cannot_be_rebuilt_is_refused() {
        let e = with_errors(embed(false)).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (crate::Kind::Model, "stage embed has no decoder"));
        let [carry, embed, error] = with_errors(embed(true)).unwrap();
        let taken = Schema::new(vec![vector_field(FEATURES, 5), error_field()]);
        let taken = embed.output_schema(&carry.output_schema(&taken).unwrap()).unwrap();
        assert!(error.output_schema(&taken).unwrap_err().to_string().contains("is there already"));
        let narrow = Schema::new(vec![vector_field(GIVEN, 5), vector_field(EMBEDDING, 3)]);
        let e = error.output_schema(&narrow).unwrap_err();
        assert_eq!(e.to_string(), "a decoder for 2 values, column \"embedding\" has 3");
    }
}
