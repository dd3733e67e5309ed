//! The table of what the runs of a table set aside, with a column that says whether their rows are in the table.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Column;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType, Union};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext, lit};

use super::register::QUARANTINE;
use crate::error::{Error, Result};
use crate::store::Location;
use crate::table::{LabelTable, Quarantine, Snapshot, quarantine_schema};

/// The column that says whether the table has the rows of the run.
const IN_TABLE: &str = "in_table";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let in_table = Arc::new(Field::new(IN_TABLE, DataType::Boolean, false));
    Arc::new(Schema::new(quarantine_schema().fields().iter().cloned().chain([in_table]).collect::<Vec<_>>()))
});

/// The rows that all runs set aside below `location`, or `None` if there are none. A run's rows are in the `table` that is
/// there, if there is one; or the run committed nothing, or its rows were overwritten.
pub(super) async fn rows(
    ctx: &SessionContext,
    location: &Location,
    table: Option<&Snapshot>,
) -> Result<Option<Arc<dyn TableProvider>>> {
    // What is damaged beside the rows must not keep anyone from the rows.
    let quarantine = match Quarantine::open(location, table).await {
        Ok(quarantine) => Arc::new(quarantine),
        Err(e) => return Ok(Some(Arc::new(SetAside::Damaged(e.to_string())))),
    };
    let before = runs_before(location).await?;
    let runs: Vec<Expr> = quarantine.in_table.iter().map(lit).collect();
    let mut plans = Vec::new();
    match &quarantine.table {
        Some(_) if quarantine.has_marks() || !quarantine.pending.is_empty() => {
            plans.push(ctx.read_table(Arc::new(SetAside::Whole(Arc::clone(&quarantine))))?.into_unoptimized_plan());
        }
        Some(table) => {
            let of_table = ctx.read_table(Arc::clone(table) as _)?;
            let in_table = match runs.is_empty() {
                true => lit(false),
                false => Expr::Column(Column::from_name("run")).in_list(runs, false),
            };
            plans.push(of_table.with_column(IN_TABLE, in_table)?.into_unoptimized_plan());
        }
        None if !quarantine.pending.is_empty() => {
            plans.push(ctx.read_table(Arc::new(SetAside::Whole(Arc::clone(&quarantine))))?.into_unoptimized_plan());
        }
        None => {}
    }
    for run in before {
        let in_table = quarantine.in_table.contains(&run);
        let of_run = SetAside::Before { location: location.clone(), run, in_table };
        plans.push(ctx.read_table(Arc::new(of_run))?.into_unoptimized_plan());
    }
    let plan = match plans.len() {
        0 => return Ok(None),
        1 => plans.swap_remove(0),
        _ => LogicalPlan::Union(Union::try_new(plans.into_iter().map(Arc::new).collect())?),
    };
    Ok(Some(DataFrame::new(ctx.state(), plan).into_view()))
}

/// The runs of an older dacpipe that set rows aside below `location`, in the order of their names, which begin with the
/// time. Each has a file.
async fn runs_before(location: &Location) -> Result<BTreeSet<String>> {
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

/// Rows that were set aside, read when they are scanned.
#[derive(Debug)]
enum SetAside {
    /// All of a quarantine, and what the table's commits say that is not yet in it.
    Whole(Arc<Quarantine>),
    /// Those of one run of an older dacpipe.
    Before { location: Location, run: String, in_table: bool },
    /// A quarantine that cannot be read, and why.
    Damaged(String),
}

impl SetAside {
    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Whole(quarantine) => {
                let rows = quarantine.rows().await?;
                let marked = |rows: RecordBatch| {
                    let runs = rows.column_by_name("run").map(|runs| runs.as_string::<i32>());
                    let in_table = runs
                        .into_iter()
                        .flatten()
                        .map(|run| Some(run.is_some_and(|run| quarantine.in_table.contains(run))));
                    let in_table: BooleanArray = in_table.collect();
                    let mut columns = rows.columns().to_vec();
                    columns.push(Arc::new(in_table));
                    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
                };
                rows.into_iter().map(marked).collect()
            }
            Self::Before { location, run, in_table } => Ok(vec![before(location, run, *in_table).await?]),
            Self::Damaged(why) => Err(Error::table(why.clone())),
        }
    }
}

/// The file of a run of an older dacpipe, which has fewer columns.
async fn before(location: &Location, run: &str, in_table: bool) -> Result<RecordBatch> {
    let file = format!("{QUARANTINE}/{run}.parquet");
    let fields = vec![
        Field::new("file", DataType::Utf8, false),
        Field::new("line", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, true),
    ];
    let all = Arc::new(Schema::new(fields));
    let there = match LabelTable::set_aside(location, &file, &all).await {
        Ok(rows) => rows,
        // The first versions did not count the rows.
        Err(e) => LabelTable::set_aside(location, &file, &Arc::new(all.project(&[0, 1, 2])?)).await.map_err(|_| e)?,
    };
    let many = there.num_rows();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, many))) };
    let columns = SCHEMA.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match (there.column_by_name(field.name()), field.name().as_str()) {
            (Some(column), _) => cast(column, field.data_type())?,
            (None, "run") => text(run),
            (None, "stage") => text("source"),
            (None, "kind") => {
                let lines = cast(there.column(1), &DataType::Int64)?;
                let lines: &Int64Array = lines.as_primitive();
                let kind = |line: Option<i64>| Some(if line == Some(0) { "file" } else { "row" });
                Arc::new(lines.iter().map(kind).collect::<StringArray>())
            }
            (None, IN_TABLE) => Arc::new(BooleanArray::from(vec![in_table; many])),
            (None, _) => new_null_array(field.data_type(), many),
        })
    });
    let nullable: Vec<Field> = SCHEMA.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns.collect::<Result<Vec<_>>>()?)?)
}

#[async_trait]
impl TableProvider for SetAside {
    fn schema(&self) -> SchemaRef {
        match self {
            // An older dacpipe did not say when.
            Self::Before { .. } => {
                let nullable = SCHEMA.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
                Arc::new(Schema::new(nullable.collect::<Vec<_>>()))
            }
            _ => Arc::clone(&SCHEMA),
        }
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
        MemTable::try_new(self.schema(), vec![rows])?.scan(state, projection, filters, limit).await
    }
}
