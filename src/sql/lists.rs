//! The common part of the functions that map a vector to a vector: they gather the results of several models into one
//! list column.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

use super::features;
use super::models::Models;
use crate::model::Model;

/// A function of a model that gives a vector for each row.
pub(super) struct ListFunction {
    pub name: &'static str,
    /// The width of this model's vectors; an error if it has none.
    pub width: fn(&Model) -> crate::Result<usize>,
    /// The vectors of rows, row-major.
    pub compute: fn(&Model, &[f64]) -> crate::Result<Vec<f32>>,
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float32, false))
}

impl ListFunction {
    /// A list of `FLOAT`, of fixed size where the model is a literal.
    pub fn return_field(&self, models: &Models, args: &ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = match features::plan(self.name, models, args)? {
            Some(model) => DataType::FixedSizeList(item(), self.width_of(&model)? as i32),
            None => DataType::List(item()),
        };
        Ok(Arc::new(Field::new(self.name, data_type, true)))
    }

    fn width_of(&self, model: &Model) -> crate::Result<usize> {
        (self.width)(model).map_err(|e| e.while_doing(self.name))
    }

    /// The vectors of the rows of a call; NULL where the model or the features are NULL.
    pub fn invoke(&self, models: &Models, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (rows, field) = (args.number_rows, Arc::clone(&args.return_field));
        let mut found: Vec<Option<(usize, usize)>> = vec![None; rows];
        let mut computed = Vec::new();
        for group in features::groups(self.name, models, args)? {
            let width = self.width_of(&group.model)?;
            for (i, &row) in group.rows.iter().enumerate() {
                found[row] = Some((computed.len() + i * width, width));
            }
            computed.extend((self.compute)(&group.model, &group.values)?);
        }
        let nulls: NullBuffer = found.iter().map(Option::is_some).collect();
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let slice = |at: &Option<(usize, usize)>| at.map_or(&[][..], |(start, width)| &computed[start..start + width]);
        let array: ArrayRef = match field.data_type() {
            DataType::FixedSizeList(item, width) => {
                let mut values = vec![0.0; rows * *width as usize];
                for (at, out) in found.iter().zip(values.chunks_exact_mut(*width as usize)) {
                    if at.is_some() {
                        out.copy_from_slice(slice(at));
                    }
                }
                let values = Arc::new(Float32Array::from(values));
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, values, nulls)?)
            }
            _ => {
                let offsets = OffsetBuffer::from_lengths(found.iter().map(|at| slice(at).len()));
                let values: Vec<f32> = found.iter().flat_map(slice).copied().collect();
                Arc::new(ListArray::try_new(item(), offsets, Arc::new(Float32Array::from(values)), nulls)?)
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}
