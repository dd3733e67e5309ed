//! Between Arrow columns and slices: the only place that knows how a vector lies in a record batch.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeListArray, Float32Array, Float64Array, StringArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::stage::VectorMap;

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

/// [`vector_field`] in double precision, as a source gives what single precision might not tell apart.
pub fn double_field(name: &str, dim: usize) -> Field {
    Field::new(name, DataType::FixedSizeList(item_field(DataType::Float64), dim as i32), false)
}

/// [`vector_array`] in double precision.
pub fn double_array(values: Vec<f64>, dim: usize) -> Result<ArrayRef> {
    let items = Arc::new(Float64Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(item_field(DataType::Float64), dim as i32, items, None)?))
}

/// Values of vectors, row-major, in the precision in which they are given.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// In single precision.
    Single(&'a [f32]),
    /// In double precision.
    Double(&'a [f64]),
}

impl<'a> Values<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// In single precision: without a copy where they are, else rounded.
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

/// The values of the vector column `name` in their own precision, as [`vectors`] gives those in single precision.
///
/// # Errors
/// As [`vectors`].
pub fn values<'a>(batch: &'a RecordBatch, name: &str) -> Result<(Values<'a>, usize)> {
    match is_double(batch.schema_ref(), name) {
        true => items::<Float64Type>(batch, name).map(|(values, dim)| (Values::Double(values), dim)),
        false => items::<Float32Type>(batch, name).map(|(values, dim)| (Values::Single(values), dim)),
    }
}

/// The values of the vector column `name`, row-major, without a copy, and their width. A column of lists, as tables have
/// them, serves as well if all of them are of one length; of no rows that is 0.
///
/// # Errors
/// Kind `Input` if the column is missing, is not a `FixedSizeList<Float32>` or lists of one length, or has nulls.
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

/// `schema` with column `from` replaced by vectors of `dim` values named `to`, at the same place.
pub fn replace_in_schema(schema: &Schema, from: &str, to: &str, dim: usize) -> Result<SchemaRef> {
    let at = schema.index_of(from).map_err(|_| missing(schema, from))?;
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[at] = Arc::new(vector_field(to, dim));
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

/// `batch` with column `from` replaced by `map` of it, named `to`: how `scale` and `embed` apply.
pub fn replace_in_batch(batch: &RecordBatch, from: &str, to: &str, map: &dyn VectorMap) -> Result<RecordBatch> {
    let (input, dim) = vectors(batch, from)?;
    if dim != map.dim_in() {
        return Err(Error::model(format!("made for {} values a row, column {from:?} has {dim}", map.dim_in())));
    }
    let mut output = vec![0.0; batch.num_rows() * map.dim_out()];
    map.map(input, &mut output)?;
    let schema = replace_in_schema(&batch.schema(), from, to, map.dim_out())?;
    let at = batch.schema().index_of(from).map_err(|_| missing(&batch.schema(), from))?;
    let mut columns = batch.columns().to_vec();
    columns[at] = vector_array(output, map.dim_out())?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The error for a column that is not there, naming those that are.
pub fn missing(schema: &Schema, name: &str) -> Error {
    let there = schema.fields().iter().map(|f| f.name().as_str());
    Error::input(format!("no column {name:?}; there are {}", listed(there)))
}

/// The values of a column of labels as text, whatever their type: null where there is none, and where a number is NaN,
/// which is none. The two zeros of floating-point numbers are one class.
///
/// # Errors
/// Kind `Input` for a column of a type that has no text, or a value that has none, as bytes that are not UTF-8.
pub(crate) fn label_texts(column: &ArrayRef, name: &str) -> Result<StringArray> {
    let kind = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        kind => kind,
    };
    let bad =
        || format!("column {name:?} is {kind}, which cannot serve as labels: numbers, text, dates or booleans can");
    if kind.is_nested() {
        return Err(Error::input(bad()));
    }
    // A value without a text is no row without a label.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let text = cast_with_options(column, &DataType::Utf8, &strict).map_err(|e| Error::input(bad()).with_source(e))?;
    let text = text.as_string::<i32>();
    let number = |text| match text {
        "NaN" => None,
        "-0.0" => Some("0.0"),
        number => Some(number),
    };
    match kind.is_floating() {
        false => Ok(text.clone()),
        true => Ok(text.iter().map(|text| text.and_then(number)).collect()),
    }
}

/// Names for a message: all of them, or the first where there are many, as of a table with a column for each value of a
/// vector.
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
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, StructArray, UInt64Array,
    };
    use arrow::datatypes::Int8Type;

    use super::*;

    #[test]
    fn labels_of_every_type_are_classes_by_their_text() {
        let doubles = Float64Array::from(vec![Some(1.0), Some(f64::NAN), None, Some(-0.0), Some(0.0)]);
        let keys = arrow::array::Int8Array::from(vec![0, 1, 2, 3, 4]);
        let coded = DictionaryArray::<Int8Type>::new(keys, Arc::new(doubles.clone()));
        let decimals = Decimal128Array::from(vec![150, -5]).with_precision_and_scale(10, 2).unwrap();
        let cases: Vec<(ArrayRef, Vec<Option<&str>>)> = vec![
            (
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
                vec![Some("true"), None, Some("false")],
            ),
            (Arc::new(Date32Array::from(vec![0, 19_723])), vec![Some("1970-01-01"), Some("2024-01-01")]),
            (Arc::new(decimals), vec![Some("1.50"), Some("-0.05")]),
            (Arc::new(UInt64Array::from(vec![u64::MAX])), vec![Some("18446744073709551615")]),
            (Arc::new(doubles), vec![Some("1.0"), None, None, Some("0.0"), Some("0.0")]),
            (Arc::new(coded), vec![Some("1.0"), None, None, Some("0.0"), Some("0.0")]),
            (Arc::new(BinaryArray::from(vec![&b"walk"[..]])), vec![Some("walk")]),
        ];
        for (column, expected) in cases {
            let texts = label_texts(&column, "y").unwrap();
            assert_eq!(texts.iter().collect::<Vec<_>>(), expected, "{}", column.data_type());
        }
    }

    #[test]
    fn labels_without_a_text_are_refused_and_not_taken_for_none() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"walk"[..], &[0xff, 0xfe]]));
        let fields: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("a", DataType::UInt64, false)),
            Arc::new(UInt64Array::from(vec![1])) as ArrayRef,
        )]));
        for column in [bytes, fields, vector_array(vec![1.0], 1).unwrap()] {
            let e = label_texts(&column, "y").unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Input);
            assert!(e.to_string().starts_with("column \"y\" is "), "{e}");
        }
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
