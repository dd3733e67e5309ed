//! `dac_embed(model, features)`: the vector that the model clusters.

use std::sync::Arc;

use arrow::array::{FixedSizeListArray, Float32Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::features;
use super::models::Models;

const NAME: &str = "dac_embed";

/// The SQL function `dac_embed(model, features)`.
///
/// Takes a list of any numeric type with as many values as the model was made for; gives a list of `FLOAT`, of fixed
/// size where the model is a literal. NULL features or model give NULL. The values are the bits that
/// [`Model::apply`](crate::model::Model::apply) gives.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DacEmbed {
    models: Arc<Models>,
    signature: Signature,
}

impl DacEmbed {
    /// The function over the models that `models` finds.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float32, false))
}

impl ScalarUDFImpl for DacEmbed {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type that {NAME} returns depends on the model")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = match features::plan(NAME, &self.models, &args)? {
            Some(model) => DataType::FixedSizeList(item(), model.embedding_dim() as i32),
            None => DataType::List(item()),
        };
        Ok(Arc::new(Field::new(NAME, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (rows, field) = (args.number_rows, Arc::clone(&args.return_field));
        let mut found: Vec<Option<(usize, usize)>> = vec![None; rows];
        let mut embedded = Vec::new();
        for group in features::groups(NAME, &self.models, args)? {
            let width = group.model.embedding_dim();
            for (i, &row) in group.rows.iter().enumerate() {
                found[row] = Some((embedded.len() + i * width, width));
            }
            embedded.extend(group.model.embed(&group.values)?);
        }
        let nulls: NullBuffer = found.iter().map(Option::is_some).collect();
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let slice = |at: &Option<(usize, usize)>| at.map_or(&[][..], |(start, width)| &embedded[start..start + width]);
        Ok(ColumnarValue::Array(match field.data_type() {
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
        }))
    }
}
