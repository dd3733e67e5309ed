//! Converts between Arrow columns of vectors and slices.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeListArray, Float32Array, Float64Array, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};

/// The type of a column of vectors of `dim` values: `FixedSizeList<Float32 not null, dim>`.
pub fn vector_type(dim: usize) -> DataType {
    DataType::FixedSizeList(item_field(DataType::Float32), dim as i32)
}

fn item_field(item: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", item, false))
}

/// A field of vectors of `dim` values, never null.
pub fn vector_field(name: &str, dim: usize) -> Field {
    Field::new(name, vector_type(dim), false)
}

/// An array of vectors of `dim` values from their row-major values, without a copy.
pub fn vector_array(values: Vec<f32>, dim: usize) -> Result<ArrayRef> {
    let items = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(item_field(DataType::Float32), dim as i32, items, None)?))
}

/// [`vector_field`] in double precision, for sources whose values single precision might not distinguish.
pub fn double_field(name: &str, dim: usize) -> Field {
    Field::new(name, DataType::FixedSizeList(item_field(DataType::Float64), dim as i32), false)
}

/// [`vector_array`] in double precision.
pub fn double_array(values: Vec<f64>, dim: usize) -> Result<ArrayRef> {
    let items = Arc::new(Float64Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(item_field(DataType::Float64), dim as i32, items, None)?))
}

/// Values of vectors, row-major, in the precision of their column.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// In single precision.
    Single(&'a [f32]),
    /// In double precision.
    Double(&'a [f64]),
}

impl<'a> Values<'a> {
    /// The number of values.
    pub fn len(self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// True if there are no values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The values in single precision: without a copy if they are stored so, else rounded.
    pub fn narrow(self) -> Cow<'a, [f32]> {
        match self {
            Self::Single(values) => Cow::Borrowed(values),
            Self::Double(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Single(values)
    }
}

impl<'a> From<&'a [f64]> for Values<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self::Double(values)
    }
}

impl<'a, T> From<&'a Vec<T>> for Values<'a>
where
    &'a [T]: Into<Values<'a>>,
{
    fn from(values: &'a Vec<T>) -> Self {
        values.as_slice().into()
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for Values<'a>
where
    &'a [T]: Into<Values<'a>>,
{
    fn from(values: &'a [T; N]) -> Self {
        values.as_slice().into()
    }
}

/// The width of the vector column `name`, from the schema.
///
/// # Errors
/// Kind `Input` if the column is missing or is not a `FixedSizeList` of Float32 or Float64.
pub fn vector_dim(schema: &Schema, name: &str) -> Result<usize> {
    let field = schema.field_with_name(name).map_err(|_| missing(schema, name))?;
    match field.data_type() {
        DataType::FixedSizeList(item, dim) if matches!(item.data_type(), DataType::Float32 | DataType::Float64) => {
            Ok(*dim as usize)
        }
        other => Err(Error::input(format!("column {name:?} is {other}, expected FixedSizeList<Float32>"))),
    }
}

/// Whether the vector column `name` is in double precision.
pub fn is_double(schema: &Schema, name: &str) -> bool {
    let item = schema.field_with_name(name).ok().and_then(|field| match field.data_type() {
        DataType::FixedSizeList(item, _) | DataType::List(item) => Some(item.data_type()),
        _ => None,
    });
    item == Some(&DataType::Float64)
}

/// The values of the vector column `name` in their own precision; otherwise as [`vectors`].
///
/// # Errors
/// As [`vectors`].
pub fn values<'a>(batch: &'a RecordBatch, name: &str) -> Result<(Values<'a>, usize)> {
    match is_double(batch.schema_ref(), name) {
        true => items::<Float64Type>(batch, name).map(|(values, dim)| (Values::Double(values), dim)),
        false => items::<Float32Type>(batch, name).map(|(values, dim)| (Values::Single(values), dim)),
    }
}

/// The values of the vector column `name`, row-major, without a copy, and their width. A column of variable-size lists,
/// as in tables, is accepted if all lists have the same length (0 if there are no rows).
///
/// # Errors
/// Kind `Input` if the column is missing, is not a `FixedSizeList<Float32>` or lists of the same length, or has nulls.
pub fn vectors<'a>(batch: &'a RecordBatch, name: &str) -> Result<(&'a [f32], usize)> {
    items::<Float32Type>(batch, name)
}

fn items<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<(&'a [T::Native], usize)> {
    let column = batch.column_by_name(name).ok_or_else(|| missing(&batch.schema(), name))?;
    if let Some(lists) = column.as_list_opt::<i32>().filter(|lists| lists.value_type() == T::DATA_TYPE) {
        let dim = if lists.is_empty() { 0 } else { lists.value_length(0) as usize };
        let items = lists.values().as_primitive::<T>();
        if lists.null_count() > 0 || items.null_count() > 0 {
            return Err(Error::input(format!("column {name:?} has nulls; vectors are required")));
        }
        if let Some(row) = (0..lists.len()).find(|&row| lists.value_length(row) as usize != dim) {
            let found = lists.value_length(row);
            return Err(Error::input(format!(
                "column {name:?}: row {row} of a batch has {found} values, others {dim}"
            )));
        }
        let start = lists.value_offsets()[0] as usize;
        return Ok((&items.values()[start..start + lists.len() * dim], dim));
    }
    let dim = vector_dim(&batch.schema(), name)?;
    let list = column.as_fixed_size_list();
    if list.value_type() != T::DATA_TYPE {
        let (found, expected) = (column.data_type(), T::DATA_TYPE);
        return Err(Error::input(format!("column {name:?} is {found}, expected a FixedSizeList of {expected}")));
    }
    if list.null_count() > 0 {
        let row = (0..list.len()).find(|&i| list.is_null(i)).unwrap_or(0);
        return Err(Error::input(format!("column {name:?} is null in row {row} of a batch; vectors are required")));
    }
    let items = list.values().as_primitive::<T>();
    if items.null_count() > 0 {
        let at = (0..items.len()).find(|&i| items.is_null(i)).unwrap_or(0);
        return Err(Error::input(format!("column {name:?} has a null in row {}, position {}", at / dim, at % dim)));
    }
    let start = list.value_offset(0) as usize;
    Ok((&items.values()[start..start + list.len() * dim], dim))
}

/// The error for a column that is not there, naming those that are.
pub fn missing(schema: &Schema, name: &str) -> Error {
    let there = schema.fields().iter().map(|f| f.name().as_str());
    Error::input(format!("no column {name:?}; there are {}", listed(there)))
}

/// The values of a column of labels as text; missing values and NaN become null. 0 and -0 are the same label; bytes
/// that are not UTF-8 are written in hexadecimal digits, as in SQL.
///
/// # Errors
/// Kind `Input` for a column of lists or structs.
pub(crate) fn label_texts(column: &ArrayRef, name: &str) -> Result<StringArray> {
    use DataType::{Binary, BinaryView, Dictionary, FixedSizeBinary, LargeBinary, RunEndEncoded};
    let plain = match column.data_type() {
        Dictionary(_, values) => cast(column, values)?,
        RunEndEncoded(_, values) => cast(column, values.data_type())?,
        _ => Arc::clone(column),
    };
    let refused = || {
        let of = plain.data_type();
        Error::input(format!(
            "column {name:?} cannot serve as labels: it is {of}; numbers, text, booleans and times do"
        ))
    };
    match plain.data_type() {
        nested if nested.is_nested() => Err(refused()),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => {
            let options = FormatOptions::default();
            let shown = ArrayFormatter::try_new(&plain, &options)?;
            Ok((0..plain.len()).map(|row| plain.is_valid(row).then(|| shown.value(row).to_string())).collect())
        }
        of => {
            let text = cast(&plain, &DataType::Utf8).map_err(|e| refused().with_source(e))?;
            let text = text.as_string::<i32>();
            Ok(match of.is_floating() {
                false => text.clone(),
                true => {
                    let label = |text| if text == "-0.0" { "0.0" } else { text };
                    text.iter().map(|text| text.filter(|text| *text != "NaN").map(label)).collect()
                }
            })
        }
    }
}

/// Names for a message: all of them, or the first ones if there are many.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 40;
    let names: Vec<&str> = names.into_iter().collect();
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, NullArray,
    };

    #[test]
    fn labels_of_any_type_are_their_text_and_nan_is_none() {
        let texts = |column: ArrayRef| {
            let texts = label_texts(&column, "y").unwrap();
            texts.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        };
        let some = |text: &str| Some(text.to_string());
        let floats = Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(0.0), Some(-0.0), None]);
        assert_eq!(texts(Arc::new(floats.clone())), [some("1.0"), None, some("0.0"), some("0.0"), None]);
        let coded = DictionaryArray::new(Int32Array::from(vec![Some(0), Some(1), None]), Arc::new(floats));
        assert_eq!(texts(Arc::new(coded)), [some("1.0"), None, None]);
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![Some(true), None]))), [some("true"), None]);
        assert_eq!(texts(Arc::new(Date32Array::from(vec![0]))), [some("1970-01-01")]);
        let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).unwrap();
        assert_eq!(texts(Arc::new(decimal)), [some("1.50")]);
        assert_eq!(texts(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))), [some("00ff")]);
        assert_eq!(texts(Arc::new(NullArray::new(1))), [None]);
        let text = StringArray::from(vec!["NaN", "", "NULL"]);
        assert_eq!(texts(Arc::new(text)), [some("NaN"), some(""), some("NULL")], "text is text");
        let vectors = vector_array(vec![1.0, 2.0], 2).unwrap();
        let e = label_texts(&vectors, "x").unwrap_err().to_string();
        assert!(e.contains("\"x\" cannot serve as labels"), "{e}");
    }

    #[test]
    fn vectors_of_either_precision_are_told_apart() {
        let schema = Arc::new(Schema::new(vec![double_field("x", 2), vector_field("y", 2)]));
        let columns = vec![double_array(vec![1.7e12, 1.0], 2).unwrap(), vector_array(vec![1.5, 2.0], 2).unwrap()];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        assert!(is_double(&schema, "x") && !is_double(&schema, "y") && !is_double(&schema, "z"));
        let (found, dim) = values(&batch, "x").unwrap();
        assert!(matches!(found, Values::Double(&[1.7e12, 1.0])) && dim == 2);
        assert!(matches!(values(&batch, "y").unwrap().0, Values::Single(&[1.5, 2.0])));
        assert_eq!(found.narrow()[..], [1.7e12, 1.0]);
        assert_eq!(vector_dim(&schema, "x").unwrap(), 2);
        assert!(vectors(&batch, "x").unwrap_err().to_string().contains("expected a FixedSizeList of Float32"));
    }
}
