//! DataFusion plans that read a source.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use datafusion::execution::context::SessionContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, cast, ident, lit};

use crate::column;
use crate::error::Result;
use crate::source::Source;

/// Bytes of features in one batch of a scan, so that batches in flight stay small whatever the width of a row.
const BATCH_BYTES: usize = 2 << 20;

/// A session for scans that keep the order of rows. Its operators and replay cache use at most half of the memory
/// limit; the other half is for batches in flight, embeddings, and the layout or the network that is being learned.
pub(super) fn session(memory_limit: u64, dim: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_limit as usize / 8 * 3)))
        .build_arc()?;
    let batch_rows = (BATCH_BYTES / (4 * dim.max(1))).clamp(1, 8192);
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// The rows whose split column has the given value, or all rows, with the columns asked for.
pub(super) fn select(
    ctx: &SessionContext,
    source: &Source,
    columns: &[&str],
    part: Option<(&str, &str)>,
) -> Result<DataFrame> {
    let mut rows = ctx.read_table(Arc::clone(&source.provider))?;
    if let Some((column, value)) = part {
        let schema = source.provider.schema();
        let field = schema.field_with_name(column).map_err(|_| column::missing(&schema, column))?;
        // Sources can only filter on the text column itself; a cast would prevent that.
        let name = match field.data_type() {
            DataType::Utf8 => ident(column),
            _ => cast(ident(column), DataType::Utf8),
        };
        rows = rows.filter(name.eq(lit(value)))?;
    }
    Ok(rows.select(columns.iter().map(|c| ident(*c)))?)
}

/// The distinct values of a column, sorted, as text.
pub(super) async fn distinct(ctx: &SessionContext, source: &Source, column: &str) -> Result<Vec<String>> {
    let rows = ctx.read_table(Arc::clone(&source.provider))?.select([ident(column)])?.distinct()?;
    let mut values = Vec::new();
    for batch in rows.collect().await? {
        let text = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        values.extend(text.as_string::<i32>().iter().map(|v| v.unwrap_or("NULL").to_string()));
    }
    values.sort();
    Ok(values)
}
