//! `dac_reconstruct(model, features)`: the features as the model's autoencoder reconstructs them, and
//! `dac_reconstruction_error(model, features)`: the error of the reconstruction.

use std::sync::Arc;

use arrow::array::Float32Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::features;
use super::lists::ListFunction;
use super::models::Models;

const FUNCTION: ListFunction = ListFunction {
    name: "dac_reconstruct",
    width: |model| model.decodes().map(|_| model.dim_in()),
    compute: |model, rows| Ok(model.reconstruct(rows)?.features),
};

const ERROR: &str = "dac_reconstruction_error";

/// The SQL function `dac_reconstruct(model, features)`.
///
/// Takes a list of any numeric type with as many values as the model was made for; gives a list of as many `FLOAT` in the
/// same units, of fixed size where the model is a literal. NULL features or model give NULL. The values are the bits that
/// [`Model::reconstruct`](crate::model::Model::reconstruct) gives.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DacReconstruct {
    models: Arc<Models>,
    signature: Signature,
}

impl DacReconstruct {
    /// The function, with the models that `models` finds.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for DacReconstruct {
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

/// The SQL function `dac_reconstruction_error(model, features)`.
///
/// Takes the arguments of [`DacReconstruct`]; gives a `FLOAT`, the bits of the column `reconstruction_error` of a run
/// with that model, as [`reconstruct`](crate::reconstruct) defines it. NULL features or model give NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DacReconstructionError {
    models: Arc<Models>,
    signature: Signature,
}

impl DacReconstructionError {
    /// The function, with the models that `models` finds.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models, signature: Signature::any(2, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for DacReconstructionError {
    fn name(&self) -> &str {
        ERROR
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float32)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(model) = features::plan(ERROR, &self.models, &args)? {
            model.decodes().map_err(|e| e.while_doing(ERROR))?;
        }
        Ok(Arc::new(Field::new(ERROR, DataType::Float32, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut errors = vec![None; args.number_rows];
        for group in features::groups(ERROR, &self.models, args)? {
            let found = group.model.reconstruction_error(&group.values).map_err(|e| e.while_doing(ERROR))?;
            for (row, error) in group.rows.into_iter().zip(found) {
                errors[row] = Some(error);
            }
        }
        Ok(ColumnarValue::Array(Arc::new(Float32Array::from(errors))))
    }
}
