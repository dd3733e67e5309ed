//! The columns of a table: as the log writes them down, and what may be appended to them.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::column::listed;
use crate::error::{Error, Result};

/// The column that names the model a row was labelled with.
pub const MODEL: &str = "model";
/// The column that says when a row was labelled.
pub const LABELLED_AT: &str = "labelled_at";

/// A column as the log writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnType {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow prints it: `Int32`, `FixedSizeList(10 x non-null Float32)`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// A schema as the log writes it down.
pub(super) fn to_columns(schema: &Schema) -> Vec<ColumnType> {
    let column = |f: &Arc<Field>| ColumnType {
        name: f.name().clone(),
        data_type: f.data_type().to_string(),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// The schema that [`to_columns`] wrote down.
pub(super) fn from_columns(columns: &[ColumnType]) -> Result<SchemaRef> {
    let field = |c: &ColumnType| match c.data_type.parse::<DataType>() {
        Ok(data_type) => Ok(Field::new(&c.name, data_type, c.nullable)),
        Err(e) => {
            Err(Error::table(format!("column {:?} has the unknown type {:?}", c.name, c.data_type)).with_source(e))
        }
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The type in which a column is stored: plain readers and appends from another source meet one kind of string.
fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => stored_type(values),
        other => other.clone(),
    }
}

/// The schema of a table of batches of schema `input`: stored types, then `model` and `labelled_at`.
///
/// # Errors
/// Kind `Config` if the input has a column of one of these names, or twice the same name.
pub(super) fn table_schema(input: &Schema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::with_capacity(input.fields().len() + 2);
    for field in input.fields() {
        let name = field.name();
        if name == MODEL || name == LABELLED_AT {
            return Err(Error::config(format!(
                "column {name:?} would be written twice: every table has a column of that name; rename the input's"
            )));
        }
        if fields.iter().any(|f| f.name() == name) {
            return Err(Error::config(format!("column {name:?} is there twice; names must differ")));
        }
        fields.push(Field::new(name, stored_type(field.data_type()), field.is_nullable()));
    }
    fields.push(Field::new(MODEL, DataType::Utf8, false));
    fields.push(Field::new(LABELLED_AT, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false));
    Ok(Arc::new(Schema::new(fields)))
}

/// That rows of schema `new` (of [`table_schema`]) can be appended to a table of schema `table`.
///
/// # Errors
/// Kind `Table`, naming the first column that differs and both types.
pub(super) fn check_append(table: &Schema, new: &Schema, location: &str) -> Result<()> {
    let advice = "append rows of the same columns, or overwrite the table";
    for field in new.fields() {
        let name = field.name();
        let Ok(there) = table.field_with_name(name) else {
            let names = listed(table.fields().iter().map(|f| f.name().as_str()));
            return Err(Error::table(format!(
                "cannot append to {location}: it has no column {name:?}, only {names}; {advice}"
            )));
        };
        if there.data_type() != field.data_type() {
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

/// `batch` with the columns of `table` except the last two, in that order and in the stored types.
pub(super) fn to_stored(batch: &RecordBatch, table: &Schema) -> Result<Vec<ArrayRef>> {
    let stored = &table.fields()[..table.fields().len() - 2];
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
        Some(array) => Ok(cast(array, field.data_type())?),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    stored.iter().map(column).collect()
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
            DataType::UInt64,
            DataType::Float32,
            DataType::Utf8,
            DataType::Date32,
            DataType::Decimal128(10, 2),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::FixedSizeList(item(false), 10),
            DataType::FixedSizeList(item(true), 561),
            DataType::List(item(false)),
            DataType::Struct(vec![Field::new("a b", DataType::Int32, false)].into()),
        ];
        for (i, t) in types.into_iter().enumerate() {
            let before = schema(&[("a \"quoted\" näme", t, i % 2 == 0)]);
            let after = from_columns(&to_columns(&before)).unwrap();
            assert_eq!(*after, before);
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        let column = ColumnType { name: "x".into(), data_type: "Vector(3)".into(), nullable: false };
        let e = from_columns(&[column]).unwrap_err();
        assert_eq!(e.kind(), Kind::Table);
        assert!(e.to_string().contains("\"x\" has the unknown type \"Vector(3)\""), "{e}");
    }

    #[test]
    fn what_does_not_fit_is_named_with_both_types() {
        let table =
            table_schema(&schema(&[("user", DataType::Int32, false), ("split", DataType::Utf8, true)])).unwrap();
        let check = |fields: &[(&str, DataType, bool)]| {
            check_append(&table, &table_schema(&schema(fields)).unwrap(), "out/t").map_err(|e| e.to_string())
        };
        assert_eq!(check(&[("split", DataType::Utf8View, true), ("user", DataType::Int32, false)]), Ok(()));
        assert_eq!(check(&[("user", DataType::Int32, false)]), Ok(()));
        let e = check(&[("user", DataType::Int64, false)]).unwrap_err();
        assert!(e.contains("column \"user\" is Int32 there and Int64 here"), "{e}");
        let e = check(&[("user", DataType::Int32, true)]).unwrap_err();
        assert!(e.contains("\"user\" is never null there"), "{e}");
        let e = check(&[("split", DataType::Utf8, true)]).unwrap_err();
        assert!(e.contains("its column \"user\" (Int32) is missing here"), "{e}");
        let e = check(&[("user", DataType::Int32, false), ("x", DataType::Int32, true)]).unwrap_err();
        assert!(e.contains("no column \"x\", only user, split, model, labelled_at"), "{e}");
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
