//! The table of what the runs of a table set aside: `file`, `line`, `reason` and `rows`, the `run`, and whether its rows
//! are in the table.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, StringArray, new_null_array};
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
    let in_table = Arc::new(Field::new("in_table", DataType::Boolean, false));
    Arc::new(Schema::new(bad.fields().iter().cloned().chain([run, in_table]).collect::<Vec<_>>()))
});

/// The rows that were set aside by all runs whose files are below `location`, by run, or `None` if there are none. A
/// run's rows are in the `table` that is there, if there is one; or the run committed nothing, or its rows were
/// overwritten. Users may delete a file once they have dealt with its rows.
pub(super) async fn rows(
    ctx: &SessionContext,
    location: &Location,
    table: Option<&LabelTable>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let committed: BTreeSet<String> = match table {
        Some(table) => table.quarantine_files().await?.into_iter().collect(),
        None => BTreeSet::new(),
    };
    let mut plans = Vec::new();
    for run in runs(location).await? {
        let file = format!("{QUARANTINE}/{run}.parquet");
        let set_aside = SetAside { location: location.clone(), in_table: committed.contains(&file), file, run };
        plans.push(Arc::new(ctx.read_table(Arc::new(set_aside))?.into_unoptimized_plan()));
    }
    let plan = match plans.len() {
        0 => return Ok(None),
        1 => plans.swap_remove(0).as_ref().clone(),
        _ => LogicalPlan::Union(Union::try_new(plans)?),
    };
    Ok(Some(DataFrame::new(ctx.state(), plan).into_view()))
}

/// The runs that set rows aside below `location`, in the order of their names, which begin with the time.
async fn runs(location: &Location) -> Result<BTreeSet<String>> {
    let directory = location.path(QUARANTINE)?;
    let listed = location.list(QUARANTINE).await?;
    let run = |file: &object_store::ObjectMeta| {
        let mut below = file.location.prefix_match(&directory)?;
        let (name, None) = (below.next()?, below.next()) else { return None };
        let run = name.as_ref().strip_suffix(".parquet")?;
        // Other names are not those of runs.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!run.is_empty() && !run.starts_with('.') && run.chars().all(fine)).then(|| run.to_owned())
    };
    Ok(listed.iter().filter_map(run).collect())
}

/// The rows of one run, read when they are scanned.
#[derive(Debug)]
struct SetAside {
    location: Location,
    file: String,
    run: String,
    in_table: bool,
}

impl SetAside {
    async fn rows(&self) -> Result<RecordBatch> {
        let all = BadRows::schema();
        let mut columns = match LabelTable::set_aside(&self.location, &self.file, &all).await {
            Ok(rows) => rows.columns().to_vec(),
            // Earlier versions did not count the rows.
            Err(e) => {
                let before = Arc::new(all.project(&[0, 1, 2])?);
                let rows = LabelTable::set_aside(&self.location, &self.file, &before).await.map_err(|_| e)?;
                let mut columns = rows.columns().to_vec();
                columns.push(new_null_array(&DataType::UInt64, rows.num_rows()));
                columns
            }
        };
        let many = columns.first().map_or(0, |column| column.len());
        let run: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.run, many)));
        columns.extend([run, Arc::new(BooleanArray::from(vec![self.in_table; many]))]);
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
