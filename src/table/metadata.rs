//! What a table is, as its log says it: columns, partition columns, keys, and what it asks of readers and writers.

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{Action, Metadata, Protocol, new_metadata};
use serde_json::json;

use super::log::{KEYS, Snapshot};
use super::schema;
use crate::error::{Error, Result};
use crate::store::Location;

/// A table as a run wants it.
pub(super) struct Wanted<'a> {
    pub table: &'a SchemaRef,
    pub partition_by: &'a [String],
    pub keys: &'a [String],
}

impl Wanted<'_> {
    /// What the log is to be told: all of a new table, and what a run changes of the one that is there.
    ///
    /// # Errors
    /// Kind `Table` if the table there has features that cannot be joined with times without a zone.
    pub fn actions(&self, base: Option<&Snapshot>, overwrites: bool, location: &Location) -> Result<Vec<Action>> {
        let internal = |e: serde_json::Error| Error::internal("no metadata of a table").with_source(e);
        let Self { table, partition_by, .. } = *self;
        let keys = serde_json::to_string(self.keys).map_err(internal)?;
        let without_zone = has_time_without_zone(table);
        let Some(base) = base else {
            let protocol: Protocol = serde_json::from_value(protocol(without_zone)).map_err(internal)?;
            // Commits say where a table's clusters are, so no engine is to clean them up by itself.
            let properties = [("delta.enableExpiredLogCleanup", "false"), (KEYS, keys.as_str())];
            let metadata = new_metadata(&schema::to_delta(table)?, partition_by, properties)
                .map_err(|e| Error::internal("no metadata of a table").with_source(e))?;
            return Ok(vec![Action::Protocol(protocol), Action::Metadata(metadata)]);
        };
        let columns_differ = overwrites && (base.schema != *table || base.partition_by != partition_by);
        if !columns_differ && base.keys == self.keys {
            return Ok(Vec::new());
        }
        let mut metadata = serde_json::to_value(&base.metadata).map_err(internal)?;
        metadata["configuration"][KEYS] = keys.into();
        if columns_differ {
            let schema = serde_json::to_string(&schema::to_delta(table)?).map_err(internal)?;
            metadata["schemaString"] = schema.into();
            metadata["partitionColumns"] = json!(partition_by);
        }
        let metadata: Metadata = serde_json::from_value(metadata).map_err(internal)?;
        let mut actions = vec![Action::Metadata(metadata)];
        if without_zone && !has_time_without_zone(&base.schema) {
            if base.protocol.min_writer_version() > 2 {
                return Err(Error::table(format!(
                    "{location} has features that cannot be joined with times without a zone; write to another path"
                )));
            }
            actions.insert(0, Action::Protocol(serde_json::from_value(protocol(true)).map_err(internal)?));
        }
        Ok(actions)
    }
}

/// What a new table asks of its readers and writers.
fn protocol(without_zone: bool) -> serde_json::Value {
    match without_zone {
        false => json!({ "minReaderVersion": 1, "minWriterVersion": 2 }),
        true => json!({
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["timestampNtz"],
            "writerFeatures": ["timestampNtz", "appendOnly"],
        }),
    }
}

fn has_time_without_zone(schema: &Schema) -> bool {
    fn within(data_type: &DataType) -> bool {
        match data_type {
            DataType::Timestamp(TimeUnit::Microsecond, None) => true,
            DataType::List(item) => within(item.data_type()),
            DataType::Struct(fields) => fields.iter().any(|field| within(field.data_type())),
            _ => false,
        }
    }
    schema.fields().iter().any(|field| within(field.data_type()))
}
