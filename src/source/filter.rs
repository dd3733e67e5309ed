//! Filters that a table's scan applies itself, exactly, because they need only some of its columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;

/// Whether `filter` needs only columns of `known`, and is not volatile.
fn decided(filter: &Expr, known: &Schema) -> bool {
    let columns = filter.column_refs();
    let all_known = columns.iter().all(|column| known.index_of(column.name()).is_ok());
    !columns.is_empty() && all_known && !filter.is_volatile() && !filter.contains_outer()
}

/// Says for each filter whether a scan can apply it, given the columns `known`.
pub(super) fn pushdown(filters: &[&Expr], known: &Schema) -> Vec<TableProviderFilterPushDown> {
    let answer = |filter: &&Expr| match decided(filter, known) {
        true => TableProviderFilterPushDown::Exact,
        false => TableProviderFilterPushDown::Unsupported,
    };
    filters.iter().map(answer).collect()
}

/// A condition on rows.
#[derive(Debug, Clone)]
pub struct Condition {
    predicate: Arc<dyn PhysicalExpr>,
    columns: SchemaRef,
}

impl Condition {
    /// The `filters` that need only columns of `known`, as one condition; `None` if there are none.
    ///
    /// # Errors
    /// Errors of planning the filters.
    pub(super) fn new(state: &dyn Session, filters: &[Expr], known: &Schema) -> Result<Option<Self>> {
        let Some(filter) = conjunction(filters.iter().filter(|f| decided(f, known)).cloned()) else { return Ok(None) };
        let names: BTreeSet<&str> = filter.column_refs().iter().map(|column| column.name()).collect();
        let needed = known.fields().iter().filter(|field| names.contains(field.name().as_str()));
        // A column that the table declares non-null may still hold nulls here: the scan removes them later.
        let columns = Schema::new(needed.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>());
        let predicate = state.create_physical_expr(filter, &DFSchema::try_from(columns.clone())?)?;
        Ok(Some(Self { predicate, columns: Arc::new(columns) }))
    }

    /// The columns that it needs.
    pub(super) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The rows for which it is true (null: unknown), given the values of each of its columns.
    ///
    /// # Errors
    /// Errors of getting the values or of the evaluation.
    pub(super) fn evaluate(
        &self,
        values: impl Fn(&Arc<Field>) -> std::result::Result<ArrayRef, ArrowError>,
    ) -> std::result::Result<BooleanArray, ArrowError> {
        let arrays = self.columns.fields().iter().map(values).collect::<std::result::Result<Vec<_>, _>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&self.columns), arrays)?;
        let passes = self.predicate.evaluate(&rows)?.into_array(rows.num_rows())?;
        Ok(passes.as_boolean().clone())
    }
}
