//! How far rows are from their reconstruction: the anomaly score of an autoencoder.
//!
//! The error of a row is the mean over its n features of the squared difference between the features x as the
//! autoencoder is given them (scaled: a feature's range in the training rows is 1) and what its decoder makes y of their
//! embedding, `sum_i (y_i - x_i)^2 / n`. That is equation 4 of Lu & Li 2021 with all weights 1, whatever weights the loss
//! had in training: an anomaly in a feature that tells no classes apart is an anomaly, and errors of two pipelines can be
//! compared. Its root is the usual size of an error, in parts of a feature's range.

use std::sync::Arc;

use arrow::array::Float32Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::column::vectors;
use crate::error::{Error, Result};
use crate::kernel::dense::squared_error;
use crate::stage::{Artifact, EMBEDDING, FEATURES, InverseMap, RECONSTRUCTION_ERROR, Transform, VectorMap};

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

/// A stage that makes embeddings of features, with the [`errors`] of the rows appended as a column
/// [`RECONSTRUCTION_ERROR`]. It costs the decoder's pass. It is saved as the stage alone.
#[derive(Debug, Clone)]
pub struct WithError(Arc<dyn Transform>);

impl WithError {
    /// The errors of what `stage` embeds.
    ///
    /// # Errors
    /// Kind `Model` if it does not know the way back.
    pub fn new(stage: Arc<dyn Transform>) -> Result<Self> {
        inverse(&*stage)?;
        Ok(Self(stage))
    }
}

fn inverse(stage: &dyn Transform) -> Result<&dyn InverseMap> {
    stage.as_inverse().ok_or_else(|| Error::model(format!("stage {} has no decoder", stage.kind())))
}

/// What `stage` makes of a batch, and the features of it as they are rebuilt from their embeddings, row-major.
pub(crate) fn there_and_back(stage: &dyn Transform, batch: &RecordBatch) -> Result<(RecordBatch, Vec<f32>)> {
    let inverse = inverse(stage)?;
    let embedded = stage.apply(batch)?;
    let mut rebuilt = vec![0.0; batch.num_rows() * inverse.dim_in()];
    inverse.invert(vectors(&embedded, EMBEDDING)?.0, &mut rebuilt)?;
    Ok((embedded, rebuilt))
}

impl Transform for WithError {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
        let embedded = self.0.output_schema(input)?;
        if embedded.index_of(RECONSTRUCTION_ERROR).is_ok() {
            return Err(Error::input(format!(
                "column {RECONSTRUCTION_ERROR:?} is there already; rename it or leave it out of the source"
            )));
        }
        let fields = embedded.fields().iter().cloned().chain([Arc::new(error_field())]);
        Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), embedded.metadata().clone())))
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = self.output_schema(batch.schema_ref())?;
        let (embedded, rebuilt) = there_and_back(&*self.0, batch)?;
        let (rows, dim) = vectors(batch, FEATURES)?;
        let mut columns = embedded.columns().to_vec();
        columns.push(Arc::new(Float32Array::from(errors(rows, &rebuilt, dim))));
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn save(&self) -> Artifact {
        self.0.save()
    }

    fn as_vector_map(&self) -> Option<&dyn VectorMap> {
        self.0.as_vector_map()
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        self.0.as_inverse()
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
        let with = WithError::new(Arc::clone(&stage)).unwrap();
        let out = with.apply(&batch).unwrap();
        assert_eq!(out.schema(), with.output_schema(batch.schema_ref()).unwrap());
        assert_eq!(out.project(&[0]).unwrap(), stage.apply(&batch).unwrap());
        let rows = vectors(&batch, FEATURES).unwrap().0;
        let codes = vectors(&out, EMBEDDING).unwrap().0;
        for ((row, code), error) in rows.chunks(5).zip(codes.chunks(2)).zip(floats(&out)) {
            let mut rebuilt = [0.0; 5];
            stage.as_inverse().unwrap().invert(code, &mut rebuilt).unwrap();
            let squares = row.iter().zip(rebuilt).map(|(x, y)| f64::from(x - y) * f64::from(x - y));
            let mean = squares.sum::<f64>() / 5.0;
            assert!(mean > 0.0 && (f64::from(error) - mean).abs() < 1e-7 * mean.max(1e-2), "{error} {mean}");
        }
        let one = with.apply(&batch.slice(33, 1)).unwrap();
        assert_eq!(floats(&one), floats(&out)[33..34]);
        assert_eq!(with.save(), stage.save());
    }

    #[test]
    fn what_cannot_be_rebuilt_is_refused() {
        let e = WithError::new(embed(false)).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (crate::Kind::Model, "stage embed has no decoder"));
        let with = WithError::new(embed(true)).unwrap();
        let taken = Schema::new(vec![vector_field(FEATURES, 5), error_field()]);
        assert!(with.output_schema(&taken).unwrap_err().to_string().contains("is there already"));
    }
}
