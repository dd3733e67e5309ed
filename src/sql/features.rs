//! The arguments of the model functions: a model, and vectors of any list type.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ReturnFieldArgs, ScalarFunctionArgs};

use crate::error::Error;
use crate::model::Model;

use super::models::Models;

/// Checks the types of `(model, features)` at planning. Returns the model if it is named by a literal.
///
/// # Errors
/// Another type of argument, an unknown model, or a `FixedSizeList` of another width than the model's.
pub(super) fn plan(
    function: &str,
    models: &Models,
    args: &ReturnFieldArgs<'_>,
) -> Result<Option<std::sync::Arc<Model>>> {
    let [model, features] = args.arg_fields else {
        return plan_err!("{function} takes a model and features, got {} arguments", args.arg_fields.len());
    };
    if !is_text(model.data_type()) {
        return plan_err!("{function}: the model is its hash, path or URI as text, got {}", model.data_type());
    }
    let width = list_width(function, features.data_type())?;
    let literal = args.scalar_arguments.first().copied().flatten().and_then(ScalarValue::try_as_str).flatten();
    let Some(name) = literal else { return Ok(None) };
    let model = models.get(name)?;
    if let Some(width) = width {
        model.check_width(width)?;
    }
    Ok(Some(model))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// The width of a list type of numbers, if it is fixed.
fn list_width(function: &str, data_type: &DataType) -> Result<Option<usize>> {
    let (item, width) = match data_type {
        DataType::Null => return Ok(None),
        DataType::List(item) | DataType::LargeList(item) => (item, None),
        DataType::FixedSizeList(item, width) => (item, Some(*width as usize)),
        other => return plan_err!("{function}: features are a list of numbers, got {other}"),
    };
    match item.data_type().is_numeric() || item.data_type().is_null() {
        true => Ok(width),
        false => plan_err!("{function}: features are a list of numbers, got {data_type}"),
    }
}

/// The rows of a call that have the same model.
pub(super) struct Group {
    pub(super) model: std::sync::Arc<Model>,
    /// Their indices in the batch.
    pub(super) rows: Vec<usize>,
    /// Their vectors, row-major, in double precision, which is exact for all list types but integers beyond 2^53.
    pub(super) values: Vec<f64>,
}

/// The rows of a call by model; rows whose model or features are NULL are in none.
pub(super) fn groups(function: &str, models: &Models, args: ScalarFunctionArgs) -> Result<Vec<Group>> {
    let rows = args.number_rows;
    let [model, features]: [_; 2] = match args.args.try_into() {
        Ok(two) => two,
        Err(other) => return exec_err!("{function} takes a model and features, got {} arguments", other.len()),
    };
    let names = cast(&model.into_array(rows)?, &DataType::Utf8)?;
    let features = features.into_array(rows)?;
    let mut by_model: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, name) in names.as_string::<i32>().iter().enumerate() {
        if let (Some(name), true) = (name, features.is_valid(row) && !features.data_type().is_null()) {
            by_model.entry(name).or_default().push(row);
        }
    }
    let vectors = Vectors::new(function, &features)?;
    let group = |(name, rows): (&str, Vec<usize>)| {
        let model = models.get(name)?;
        let values = vectors.gather(function, &model, &rows)?;
        Ok(Group { model, rows, values })
    };
    by_model.into_iter().map(group).collect()
}

/// Any list column as `f64` values, and the range of each row.
struct Vectors {
    values: Float64Array,
    ranges: Vec<std::ops::Range<usize>>,
}

impl Vectors {
    fn new(function: &str, column: &ArrayRef) -> Result<Self> {
        let ranges = |offsets: Vec<usize>| offsets.windows(2).map(|w| w[0]..w[1]).collect::<Vec<_>>();
        let (items, ranges) = match column.data_type() {
            DataType::Null => return Ok(Self { values: Float64Array::from(Vec::<f64>::new()), ranges: vec![] }),
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                (list.values(), ranges(list.value_offsets().iter().map(|&o| o as usize).collect()))
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                (list.values(), ranges(list.value_offsets().iter().map(|&o| o as usize).collect()))
            }
            DataType::FixedSizeList(_, width) => {
                let (list, width) = (column.as_fixed_size_list(), *width as usize);
                let start = |row| list.value_offset(row) as usize;
                (list.values(), (0..list.len()).map(|row| start(row)..start(row) + width).collect())
            }
            other => return exec_err!("{function}: features are a list of numbers, got {other}"),
        };
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let values = cast_with_options(items, &DataType::Float64, &strict)?;
        Ok(Self { values: values.as_primitive::<Float64Type>().clone(), ranges })
    }

    fn gather(&self, function: &str, model: &Model, rows: &[usize]) -> Result<Vec<f64>> {
        let mut gathered = Vec::with_capacity(rows.len() * model.dim_in());
        for &row in rows {
            let range = self.ranges[row].clone();
            model.check_width(range.len())?;
            if let Some(at) = range.clone().find(|&at| self.values.is_null(at)) {
                let feature = at - range.start;
                let message =
                    format!("{function}: feature {feature} of row {row} of a batch is NULL; give every value");
                return Err(Error::input(message).into());
            }
            let values = &self.values.values()[range];
            if let Some(feature) = model.unusable(values) {
                return Err(model.not_finite(row, feature, values[feature]).while_doing(function).into());
            }
            gathered.extend_from_slice(values);
        }
        Ok(gathered)
    }
}
