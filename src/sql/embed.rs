//! `dac_embed(model, features)`: the vector that the model clusters.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::lists::ListFunction;
use super::models::Models;

const FUNCTION: ListFunction = ListFunction {
    name: "dac_embed",
    width: |model| Ok(model.embedding_dim()),
    compute: |model, rows| model.embed(rows),
};

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
    /// The function, with the models that `models` finds.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for DacEmbed {
    fn name(&self) -> &str {
        FUNCTION.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type that {} returns depends on the model", FUNCTION.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        FUNCTION.return_field(&self.models, &args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        FUNCTION.invoke(&self.models, args)
    }
}
