//! Where the columns of the table are in one of its files: at the top of the file's schema, inside structs, or outside
//! the file, in its path or in the log of its Delta table.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, make_array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast, cast_with_options, is_null};
use arrow::datatypes::{DataType, Field, FieldRef, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;

use super::batches::Reasons;
use super::files::VectorFile;
use super::types::plain_type;
use crate::error::{Error, Result};
use crate::source::bad::shown;
use crate::source::no_column;

/// A column of the table as one file has it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    name: String,
    stored: Option<StoredColumn>,
    constant: Option<Constant>,
}

/// A column that is in the file.
#[derive(Debug, Clone)]
pub(super) struct StoredColumn {
    /// The names from the top of the schema down to it.
    pub path: Vec<String>,
    /// Its own field.
    pub field: FieldRef,
}

/// The value of a column that comes from outside the file, for all rows.
#[derive(Debug, Clone)]
struct Constant {
    value: Option<String>,
    /// Its type, if that is known.
    declared: Option<DataType>,
    /// Where it comes from, for messages.
    place: &'static str,
}

impl Column {
    /// The column `name` of `file`, whose schema has `fields`, some of them `twice`.
    ///
    /// # Errors
    /// Kind `Input` if there is no such column, or if there are two.
    pub(super) fn find(file: &VectorFile, fields: &[FieldRef], twice: &HashSet<&str>, name: &str) -> Result<Self> {
        if twice.contains(name) {
            return Err(Error::input(format!("{}: two columns are named {name:?}", file.name())));
        }
        let mut path = Vec::new();
        let stored = at(fields, name, &mut path).map(|field| StoredColumn { path, field });
        let constant = file.constant(name).map(|(value, declared, place)| Constant { value, declared, place });
        if stored.is_none() && constant.is_none() {
            let in_file = fields.iter().map(|field| field.name().as_str()).filter(|name| *name != super::file::ROW);
            return Err(no_column(file.name(), name, in_file.chain(file.constants())));
        }
        // The log gives the value of a column that a file lacks. If the file has the column, only a partition value of
        // the log is compared with it.
        let constant = constant.filter(|constant| stored.is_none() || constant.place != super::files::ABSENT);
        Ok(Self { name: name.to_owned(), stored, constant })
    }

    /// The column in the file, if there is one.
    pub(super) fn stored(&self) -> Option<&StoredColumn> {
        self.stored.as_ref()
    }

    /// Whether both the file and its path or log give its value, so that they may contradict each other.
    pub(super) fn is_said_twice(&self) -> bool {
        self.stored.is_some() && self.constant.is_some()
    }

    /// Its type in the table as far as this file tells: a value in a path has no type of its own.
    pub(super) fn plain_type(&self, is_split: bool) -> Option<DataType> {
        let stored = self.stored.as_ref().map(|stored| stored.field.data_type());
        let declared = || self.constant.as_ref().and_then(|constant| constant.declared.as_ref());
        stored.or_else(declared).map(|found| plain_type(found, is_split))
    }

    /// Checks that a value from the path or the log can be of type `expected`.
    ///
    /// # Errors
    /// Kind `Input`, without the file's name, if it cannot be.
    pub(super) fn check_constant(&self, expected: &DataType) -> Result<()> {
        self.constant.as_ref().map_or(Ok(()), |constant| constant.value(&self.name, expected).map(drop))
    }

    /// Its values as stored in `batch`, rows of the file. Where a struct is null, the fields inside it are null, too.
    pub(super) fn of_stored(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let missing = || Error::internal(format!("column {:?} was not read", self.name));
        let (first, rest) = self.stored.as_ref().and_then(|stored| stored.path.split_first()).ok_or_else(missing)?;
        let mut found = ArrayRef::clone(batch.column_by_name(first).ok_or_else(missing)?);
        for name in rest {
            let parent = found.as_struct_opt().ok_or_else(missing)?;
            let child = parent.column_by_name(name).ok_or_else(missing)?;
            let nulls = NullBuffer::union(parent.nulls(), child.logical_nulls().as_ref());
            found = match child.data_type() {
                // An array of nulls has no validity bitmap to change.
                DataType::Null | DataType::Dictionary(..) | DataType::RunEndEncoded(..) if nulls.is_some() => {
                    let plain = cast(child, &plain_type(child.data_type(), false))?;
                    with_nulls(&plain, nulls)?
                }
                _ => with_nulls(child, nulls)?,
            };
        }
        Ok(found)
    }

    /// Adds to `reasons` the rows with 96-bit times that have digits below a microsecond. `batch` has the times in
    /// microseconds, `exact` in nanoseconds.
    pub(super) fn check_times(&self, batch: &RecordBatch, exact: &RecordBatch, reasons: &mut Reasons) -> Result<()> {
        let has_it =
            |batch: &RecordBatch| self.stored.as_ref().is_some_and(|s| batch.column_by_name(&s.path[0]).is_some());
        if !has_it(batch) || !has_it(exact) {
            return Ok(());
        }
        // `exact` has only those times, also inside a struct.
        let Ok(exact) = self.of_stored(exact) else { return Ok(()) };
        let times = self.of_stored(batch)?;
        let in_microseconds = times.as_primitive_opt::<TimestampMicrosecondType>();
        let Some((micros, nanos)) = in_microseconds.zip(exact.as_primitive_opt::<TimestampNanosecondType>()) else {
            return Ok(());
        };
        for (i, reason) in reasons.iter_mut().enumerate().filter(|(i, _)| micros.is_valid(*i)) {
            // This is right even where nanoseconds overflow.
            let more = nanos.value(i).wrapping_sub(micros.value(i).wrapping_mul(1000));
            if more != 0 && reason.is_none() {
                let (name, time) = (&self.name, array_value_to_string(&times, i)?);
                *reason = Some(format!(
                    "column {name:?} is {time} and {more} ns more, expected a time of whole microseconds, which is what \
                     tables hold"
                ));
            }
        }
        Ok(())
    }

    /// Its values in the rows of `batch`, converted to `field` of the table. Adds to `reasons` the rows whose values do
    /// not fit the type of the table, or contradict the file's path or log.
    pub(super) fn of_table(&self, batch: &RecordBatch, field: &Field, reasons: &mut Reasons) -> Result<ArrayRef> {
        let (name, rows) = (&self.name, batch.num_rows());
        if self.stored.is_none() {
            let Some(constant) = &self.constant else { return Err(Error::internal("a column from nowhere")) };
            return constant.values(name, field.data_type(), rows);
        }
        let stored = self.of_stored(batch)?;
        let values = cast(&stored, field.data_type())?;
        if !stored.data_type().equals_datatype(field.data_type()) {
            let held = held(&stored, &values)?;
            for i in (0..rows).filter(|&i| !held.value(i)) {
                let value = shown(array_value_to_string(&stored, i)?.as_bytes());
                let expected = field.data_type();
                reasons[i].get_or_insert_with(|| {
                    format!(
                        "column {name:?} is {value}, which {expected}, the type of all files together, does not hold"
                    )
                });
            }
        }
        if let Some(constant) = &self.constant {
            let expected = constant.value(name, field.data_type())?;
            let same = not_distinct(&values, &arrow::array::Scalar::new(expected))?;
            for i in (0..rows).filter(|&i| !same.value(i)) {
                let value = shown(array_value_to_string(&values, i)?.as_bytes());
                let (said, place) = (constant.shown(), constant.place);
                reasons[i]
                    .get_or_insert_with(|| format!("column {name:?} is {value} in the file, and {said} in {place}"));
            }
        }
        Ok(values)
    }
}

impl Constant {
    fn shown(&self) -> String {
        self.value.as_ref().map_or("null".into(), |value| shown(value.as_bytes()))
    }

    /// The value as an array of length one.
    fn value(&self, name: &str, expected: &DataType) -> Result<ArrayRef> {
        let Some(value) = &self.value else { return Ok(new_null_array(expected, 1)) };
        let text = arrow::array::StringArray::from_iter_values([value]);
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&text, expected, &options).map_err(|_| {
            let (said, place) = (self.shown(), self.place);
            Error::input(format!("column {name:?} is {said} in {place}, expected {expected}"))
        })
    }

    fn values(&self, name: &str, expected: &DataType, rows: usize) -> Result<ArrayRef> {
        let one = self.value(name, expected)?;
        let indices = arrow::array::UInt32Array::from(vec![0; rows]);
        Ok(arrow::compute::take(&one, &indices, None)?)
    }
}

/// The rows for which `values`, which were converted from `stored`, are unchanged.
fn held(stored: &ArrayRef, values: &ArrayRef) -> Result<BooleanArray> {
    let integers = |t: &DataType| matches!(t, DataType::Int64 | DataType::UInt64);
    let stored_type = plain_type(stored.data_type(), false);
    if integers(&stored_type) && values.data_type().is_floating() {
        let before = cast(stored, &stored_type)?;
        return Ok(not_distinct(&before, &cast(values, &stored_type)?)?);
    }
    let logical = stored.logical_nulls();
    let was_null = |i: usize| logical.as_ref().is_some_and(|nulls| nulls.is_null(i));
    let is_null = is_null(values)?;
    Ok((0..stored.len()).map(|i| Some(was_null(i) == is_null.value(i))).collect())
}

fn with_nulls(array: &ArrayRef, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    Ok(make_array(array.to_data().into_builder().nulls(nulls).build()?))
}

/// The field `name` in `fields`, or in the structs among them if the name has dots; `path` gets the names down to it.
fn at(fields: &[FieldRef], name: &str, path: &mut Vec<String>) -> Option<FieldRef> {
    if let Some(found) = fields.iter().find(|field| field.name() == name) {
        path.push(name.to_owned());
        return Some(FieldRef::clone(found));
    }
    fields.iter().find_map(|field| {
        let DataType::Struct(inside) = field.data_type() else { return None };
        let rest = name.strip_prefix(field.name().as_str())?.strip_prefix('.')?;
        path.push(field.name().clone());
        let found = at(inside, rest, path);
        if found.is_none() {
            path.pop();
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StructArray};
    use arrow::datatypes::{Fields, Schema};
    use std::sync::Arc;

    fn field(name: &str, t: DataType) -> FieldRef {
        Arc::new(Field::new(name, t, true))
    }

    #[test]
    fn a_dotted_name_is_a_column_or_a_place_in_structs() {
        let inner = DataType::Struct(Fields::from(vec![field("x", DataType::Int64), field("y.z", DataType::Int8)]));
        let outer = DataType::Struct(Fields::from(vec![field("b", inner)]));
        let fields = [field("a", outer), field("a.c", DataType::Utf8)];
        let path = |name: &str| {
            let mut path = vec![];
            at(&fields, name, &mut path).map(|_| path.join("/"))
        };
        assert_eq!(path("a.b.x").as_deref(), Some("a/b/x"));
        assert_eq!(path("a.b.y.z").as_deref(), Some("a/b/y.z"));
        assert_eq!(path("a.c").as_deref(), Some("a.c"));
        assert_eq!(path("a.b").as_deref(), Some("a/b"));
        for none in ["a.b.", "b", "a.b.x.y", ".a", "a..b"] {
            assert_eq!(path(none), None, "{none}");
        }
    }

    #[test]
    fn a_null_struct_has_null_fields() {
        let x = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef;
        let fields = Fields::from(vec![field("x", DataType::Int64)]);
        let outer = StructArray::new(fields.clone(), vec![x], Some(NullBuffer::from(vec![true, true, false])));
        let schema = Schema::new(vec![field("a", DataType::Struct(fields))]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(outer)]).unwrap();
        let path = vec!["a".into(), "x".into()];
        let stored = Some(StoredColumn { path, field: field("x", DataType::Int64) });
        let found = Column { name: "a.x".into(), stored, constant: None }.of_stored(&batch).unwrap();
        assert_eq!(&*found, &Int64Array::from(vec![Some(1), None, None]) as &dyn Array);
    }
}
