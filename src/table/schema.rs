//! The columns of a table: their stored types, and which rows may be appended.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;

use crate::column::listed;
use crate::error::{Error, Result};

/// The column with the model that labelled a row.
pub const MODEL: &str = "model";
/// The column that says when a row was labelled.
pub const LABELLED_AT: &str = "labelled_at";

/// The Arrow schema of a Delta table, without Delta's metadata of its fields.
pub(super) fn of_delta(schema: &Schema) -> SchemaRef {
    let field = |f: &Arc<Field>| Field::new(f.name(), f.data_type().clone(), f.is_nullable());
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The schema in the form of a Delta log.
pub(super) fn to_delta(schema: &Schema) -> Result<StructType> {
    let converted: std::result::Result<StructType, _> = schema.try_into_kernel();
    converted.map_err(|e| Error::internal("a schema that Delta does not have").with_source(e))
}

/// `schema` for a table partitioned by `partition_by`: Delta turns empty text there into null, so text becomes
/// nullable.
pub(super) fn dividable(schema: &Schema, partition_by: &[String]) -> SchemaRef {
    let field = |field: &Arc<Field>| match partition_by.contains(field.name()) && *field.data_type() == DataType::Utf8 {
        true => Arc::new(field.as_ref().clone().with_nullable(true)),
        false => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The columns of `schema` that data files contain: the values of `partition_by` are only in the log.
pub(super) fn of_files(schema: &Schema, partition_by: &[String]) -> SchemaRef {
    let kept = schema.fields().iter().filter(|field| !partition_by.contains(field.name()));
    Arc::new(Schema::new(kept.cloned().collect::<Vec<_>>()))
}

/// The type of Delta in which a column is stored; `None` if none fits. Lists have no fixed size there, integers are
/// signed, times in microseconds. A column of type null may be stored as any type; in a new table it is text.
fn stored_type(data_type: &DataType) -> Option<DataType> {
    let list = |item: &Arc<Field>| {
        stored_type(item.data_type())
            .map(|data_type| DataType::List(Arc::new(Field::new("element", data_type, item.is_nullable()))))
    };
    Some(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, values) => return stored_type(values),
        DataType::Null => DataType::Utf8,
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => return list(item),
        DataType::Struct(fields) => {
            let fields =
                fields.iter().map(|f| Some(Field::new(f.name(), stored_type(f.data_type())?, f.is_nullable())));
            DataType::Struct(fields.collect::<Option<Vec<_>>>()?.into())
        }
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..) => data_type.clone(),
        _ => return None,
    })
}

/// Whether integer type `to` can represent every value of `from`.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Int8, Int16, Int32, Int64};
    matches!((from, to), (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64))
}

/// The schema of a table for batches of schema `input`: the stored types, then `model` and `labelled_at`.
///
/// # Errors
/// Kind `Config` if the input has a column of one of these names, two columns of the same name, or a type that Delta
/// does not have.
pub(super) fn table_schema(input: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::with_capacity(input.fields().len() + 2);
    for field in input.fields() {
        let name = field.name();
        if is_added(&name.to_lowercase()) {
            return Err(Error::config(format!(
                "column {name:?} would be written twice: every table has a column of that name; rename the input's"
            )));
        }
        if let Some(other) = fields.iter().find(|f| f.name().to_lowercase() == name.to_lowercase()) {
            let message = match other.name() == name {
                true => format!("column {name:?} is there twice; names must differ"),
                false => format!(
                    "columns {:?} and {name:?}: Delta takes names for one that differ in case alone",
                    other.name()
                ),
            };
            return Err(Error::config(message));
        }
        let Some(data_type) = stored_type(field.data_type()) else {
            return Err(Error::config(format!(
                "column {name:?} is {}, a type that Delta tables do not have; leave it out, or cast it before",
                field.data_type()
            )));
        };
        fields.push(Field::new(name, data_type, field.is_nullable()));
    }
    fields.push(Field::new(MODEL, DataType::Utf8, false));
    fields.push(Field::new(LABELLED_AT, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false));
    Ok(Arc::new(Schema::new(fields)))
}

/// Checks that rows of schema `new` ([`table_schema`] of `input`) can be appended to a table of schema `table`. A
/// column of `input` of type null fits any type.
///
/// # Errors
/// Kind `Table`, naming the first column that differs and both types.
pub(super) fn check_append(table: &Schema, new: &Schema, input: &Schema, location: &str) -> Result<()> {
    let is_null = |name: &str| input.field_with_name(name).is_ok_and(|field| field.data_type().is_null());
    let advice = "append rows of the same columns, or overwrite the table";
    for field in new.fields() {
        let name = field.name();
        let Ok(there) = table.field_with_name(name) else {
            let names = listed(table.fields().iter().map(|f| f.name().as_str()));
            return Err(Error::table(format!(
                "cannot append to {location}: it has no column {name:?}, only {names}; the rows have {}; {advice}",
                listed(new.fields().iter().map(|f| f.name().as_str()))
            )));
        };
        let fits = there.data_type() == field.data_type() || widens(field.data_type(), there.data_type());
        if !fits && !is_null(name) {
            return Err(Error::table(format!(
                "cannot append to {location}: column {name:?} is {} there and {} here; {advice}",
                there.data_type(),
                field.data_type()
            )));
        }
        if field.is_nullable() && !there.is_nullable() {
            return Err(Error::table(format!(
                "cannot append to {location}: column {name:?} is never null there and may be null here; {advice}"
            )));
        }
    }
    for field in table.fields() {
        if !field.is_nullable() && new.field_with_name(field.name()).is_err() {
            return Err(Error::table(format!(
                "cannot append to {location}: its column {:?} ({}) is missing here; {advice}",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// `batch` with the columns of `table` except the two that its writer adds, in that order and in the stored types.
///
/// # Errors
/// Kind `Input` for a time that is not a whole number of microseconds.
pub(super) fn to_stored(batch: &RecordBatch, table: &Schema) -> Result<Vec<ArrayRef>> {
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
        Some(array) if array.data_type().is_null() => Ok(new_null_array(field.data_type(), batch.num_rows())),
        Some(array) => {
            whole_microseconds(array, field.name())?;
            Ok(cast(array, field.data_type())?)
        }
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    table.fields().iter().filter(|field| !is_added(field.name())).map(column).collect()
}

/// Whether a table's writer adds the column of this name.
pub(super) fn is_added(name: &str) -> bool {
    name == MODEL || name == LABELLED_AT
}

fn whole_microseconds(array: &ArrayRef, name: &str) -> Result<()> {
    let Some(times) = array.as_primitive_opt::<TimestampNanosecondType>() else { return Ok(()) };
    match times.iter().flatten().find(|nanos| nanos % 1000 != 0) {
        None => Ok(()),
        Some(nanos) => Err(Error::input(format!(
            "column {name:?} has the time {nanos} ns since 1970, and Delta tables hold whole microseconds; cast it before"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>())
    }

    #[test]
    fn every_stored_type_survives_the_log() {
        let item = |null| Arc::new(Field::new("item", DataType::Float32, null));
        let types = [
            DataType::Boolean,
            DataType::Int8,
            DataType::UInt8,
            DataType::UInt64,
            DataType::Float16,
            DataType::Float32,
            DataType::Utf8View,
            DataType::FixedSizeBinary(3),
            DataType::Date32,
            DataType::Date64,
            DataType::Decimal128(10, 2),
            DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Rome".into())),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::FixedSizeList(item(false), 10),
            DataType::LargeList(item(true)),
            DataType::List(Arc::new(Field::new("x", DataType::UInt16, true))),
            DataType::Struct(vec![Field::new("a b", DataType::UInt32, false)].into()),
        ];
        for (i, t) in types.into_iter().enumerate() {
            let stored = table_schema(&schema(&[("a \"quoted\" näme", t, i % 2 == 0)])).unwrap();
            let delta = serde_json::to_string(&to_delta(&stored).unwrap()).unwrap();
            let delta: StructType = serde_json::from_str(&delta).unwrap();
            let read: Schema =
                deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow::try_into_arrow(&delta).unwrap();
            assert_eq!(of_delta(&read), stored);
        }
    }

    #[test]
    fn a_type_that_delta_has_not_is_named() {
        let e = table_schema(&schema(&[("wait", DataType::Duration(TimeUnit::Second), false)])).unwrap_err();
        assert_eq!(e.kind(), Kind::Config);
        assert!(e.to_string().contains("\"wait\" is Duration(s), a type that Delta tables do not have"), "{e}");
    }

    #[test]
    fn nanoseconds_are_not_cut_off_in_silence() {
        use arrow::array::TimestampNanosecondArray;
        let stored = table_schema(&schema(&[("at", DataType::Timestamp(TimeUnit::Nanosecond, None), false)])).unwrap();
        let batch = |nanos| {
            RecordBatch::try_from_iter([("at", Arc::new(TimestampNanosecondArray::from(vec![nanos])) as ArrayRef)])
                .unwrap()
        };
        assert!(to_stored(&batch(5_000), &stored).is_ok());
        let e = to_stored(&batch(5_001), &stored).unwrap_err();
        assert!(e.to_string().contains("5001 ns since 1970"), "{e}");
    }

    #[test]
    fn what_does_not_fit_is_named_with_both_types() {
        let table =
            table_schema(&schema(&[("user", DataType::Int32, false), ("split", DataType::Utf8, true)])).unwrap();
        let check = |fields: &[(&str, DataType, bool)]| {
            let input = schema(fields);
            check_append(&table, &table_schema(&input).unwrap(), &input, "out/t").map_err(|e| e.to_string())
        };
        assert_eq!(check(&[("split", DataType::Utf8View, true), ("user", DataType::Int32, false)]), Ok(()));
        assert_eq!(check(&[("user", DataType::Int32, false)]), Ok(()));
        let e = check(&[("user", DataType::Int64, false)]).unwrap_err();
        assert!(e.contains("column \"user\" is Int32 there and Int64 here"), "{e}");
        assert_eq!(check(&[("user", DataType::UInt8, false)]), Ok(()), "a narrower integer");
        let e = check(&[("user", DataType::Int32, true)]).unwrap_err();
        assert!(e.contains("\"user\" is never null there"), "{e}");
        let e = check(&[("split", DataType::Utf8, true)]).unwrap_err();
        assert!(e.contains("its column \"user\" (Int32) is missing here"), "{e}");
        let e = check(&[("user", DataType::Int32, false), ("x", DataType::Int32, true)]).unwrap_err();
        assert!(e.contains("no column \"x\", only user, split, model, labelled_at"), "{e}");
    }

    #[test]
    fn what_is_null_alone_goes_to_any_type() {
        use arrow::array::NullArray;
        let types = [
            DataType::Int64,
            DataType::Utf8,
            DataType::Boolean,
            DataType::Decimal128(20, 0),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::List(Arc::new(Field::new("element", DataType::Float64, true))),
        ];
        let input = schema(&[("y", DataType::Null, true)]);
        let batch = RecordBatch::try_new(Arc::new(input.clone()), vec![Arc::new(NullArray::new(3))]).unwrap();
        let new = table_schema(&input).unwrap();
        assert_eq!(new.field(0).data_type(), &DataType::Utf8, "of a new table");
        for t in types {
            let table = table_schema(&schema(&[("y", t.clone(), true)])).unwrap();
            check_append(&table, &new, &input, "out/t").unwrap();
            let stored = to_stored(&batch, &table).unwrap();
            assert_eq!((stored[0].data_type(), stored[0].null_count(), stored[0].len()), (&t, 3, 3));
        }
        let never = table_schema(&schema(&[("y", DataType::Int64, false)])).unwrap();
        let e = check_append(&never, &new, &input, "out/t").unwrap_err();
        assert!(e.to_string().contains("\"y\" is never null there"), "{e}");
        let text = schema(&[("y", DataType::Utf8, true)]);
        let numbers = table_schema(&schema(&[("y", DataType::Int64, true)])).unwrap();
        assert!(check_append(&numbers, &table_schema(&text).unwrap(), &text, "out/t").is_err(), "text is no number");
    }

    #[test]
    fn names_of_the_table_are_taken() {
        for name in [MODEL, LABELLED_AT] {
            let e = table_schema(&schema(&[(name, DataType::Utf8, false)])).unwrap_err();
            assert_eq!(e.kind(), Kind::Config);
        }
        let twice = schema(&[("a", DataType::Utf8, false), ("a", DataType::Int8, false)]);
        assert!(table_schema(&twice).unwrap_err().to_string().contains("\"a\" is there twice"));
    }
}
