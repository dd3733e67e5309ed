//! The metadata of a table in its log: columns, partition columns, keys, and the features that readers and writers
//! need.

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{Action, Metadata, Protocol, new_metadata};
use serde_json::json;

use super::log::{KEYS, Snapshot};
use super::schema;
use crate::error::{Error, Result};
use crate::store::Location;

/// The table that a run needs.
pub(super) struct Wanted<'a> {
    pub table: &'a SchemaRef,
    pub partition_by: &'a [String],
    pub keys: &'a [String],
}

impl Wanted<'_> {
    /// The actions for the log: all metadata for a new table, or what the run changes in an existing one.
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
            // Commits say where a table's clusters are, so engines must not delete old log entries by themselves.
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

/// The protocol of a new table: the features that its readers and writers need.
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
