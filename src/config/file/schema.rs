//! The JSON Schema of the pipeline file, from its types.

use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};

use super::PipelineFile;

/// The JSON Schema (2020-12) of a pipeline file.
///
/// ```
/// let schema = dacpipe::config::pipeline_schema();
/// assert_eq!(schema["properties"]["memory_limit"]["default"], "1 GiB");
/// ```
pub fn pipeline_schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().with_transform(without_null).into_generator();
    generator.into_root_schema_for::<PipelineFile>().to_value()
}

/// TOML has no null: an optional key is left out.
fn without_null(schema: &mut Schema) {
    if let Some(types) = schema.get_mut("type").and_then(|types| types.as_array_mut()) {
        types.retain(|name| name != "null");
        if types.len() == 1 {
            let only = types.remove(0);
            schema.insert("type".into(), only);
        }
    }
    if let Some(branches) = schema.get_mut("anyOf").and_then(|branches| branches.as_array_mut()) {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if branches.len() == 1
            && let Some(only) = branches.remove(0).as_object()
        {
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key.clone(), value.clone());
            }
        }
    }
    transform_subschemas(&mut without_null, schema);
}
