//! `dac_assign(model, features)`: the cluster of each row, the distance to its centroid, and the margin.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::stage::LABEL_COLUMNS;

use super::features;
use super::models::Models;

/// Its name.
pub(crate) const NAME: &str = "dac_assign";

/// The SQL function `dac_assign(model, features)`.
///
/// Takes a list of any numeric type with as many values as the model was made for; gives
/// `STRUCT(cluster INT, distance FLOAT, margin FLOAT)`. NULL features or model give NULL. The values are the bits that
/// [`Model::apply`](crate::model::Model::apply) gives.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DacAssign {
    models: Arc<Models>,
    signature: Signature,
}

impl DacAssign {
    /// The function, with the models that `models` finds.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

fn fields() -> Fields {
    let [cluster, distance, margin] = LABEL_COLUMNS;
    Fields::from(vec![
        Field::new(cluster, DataType::Int32, true),
        Field::new(distance, DataType::Float32, true),
        Field::new(margin, DataType::Float32, true),
    ])
}

impl ScalarUDFImpl for DacAssign {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        features::plan(NAME, &self.models, &args)?;
        Ok(Arc::new(Field::new(NAME, DataType::Struct(fields()), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let (mut cluster, mut distance, mut margin) = (vec![None; rows], vec![None; rows], vec![None; rows]);
        for group in features::groups(NAME, &self.models, args)? {
            let found = group.model.assign(&group.values)?;
            for (i, row) in group.rows.into_iter().enumerate() {
                cluster[row] = Some(found.cluster[i]);
                distance[row] = Some(found.distance[i]);
                margin[row] = Some(found.margin[i]);
            }
        }
        let nulls: NullBuffer = cluster.iter().map(Option::is_some).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(cluster)),
            Arc::new(Float32Array::from(distance)),
            Arc::new(Float32Array::from(margin)),
        ];
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(fields(), columns, nulls)?)))
    }
}
