//! The table of the rows that the runs of a table set aside: `file`, `line` and `reason`, and the `run`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType, Union};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext};

use super::register::QUARANTINE;
use crate::error::Result;
use crate::source::BadRows;
use crate::store::Location;
use crate::table::LabelTable;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let bad = BadRows::schema();
    let run = Arc::new(Field::new("run", DataType::Utf8, false));
    Arc::new(Schema::new(bad.fields().iter().cloned().chain([run]).collect::<Vec<_>>()))
});

/// The rows that were set aside by runs whose rows are in the table at `location`, or `None` if there are none. A
/// missing file is skipped: users may delete it once they have dealt with its rows.
pub(super) async fn rows(
    ctx: &SessionContext,
    location: &Location,
    table: &Arc<LabelTable>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let files = table.quarantine_files().await?;
    if files.is_empty() {
        return Ok(None);
    }
    let listed = location.list(QUARANTINE).await?;
    let there: BTreeSet<&str> = listed.iter().map(|file| file.location.as_ref()).collect();
    let mut plans = Vec::new();
    for file in files.into_iter().rev() {
        if there.contains(location.path(&file)?.as_ref()) {
            let set_aside = SetAside { table: Arc::clone(table), file };
            plans.push(Arc::new(ctx.read_table(Arc::new(set_aside))?.into_unoptimized_plan()));
        }
    }
    let plan = match plans.len() {
        0 => return Ok(None),
        1 => plans.swap_remove(0).as_ref().clone(),
        _ => LogicalPlan::Union(Union::try_new(plans)?),
    };
    Ok(Some(DataFrame::new(ctx.state(), plan).into_view()))
}

/// The rows of one run, read when they are scanned.
#[derive(Debug)]
struct SetAside {
    table: Arc<LabelTable>,
    file: String,
}

impl SetAside {
    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.table.set_aside(&self.file, &BadRows::schema()).await?;
        let run = self.file.rsplit('/').next().and_then(|name| name.strip_suffix(".parquet")).unwrap_or(&self.file);
        let run: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, rows.num_rows())));
        let columns = rows.columns().iter().cloned().chain([run]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
    }
}

#[async_trait]
impl TableProvider for SetAside {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows().await?;
        MemTable::try_new(self.schema(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
