//! `cluster_profile('hapt')`: what sets each cluster of a registered table apart, feature by feature.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};
use crate::table::{FeatureProfile, LabelTable, compare};

/// The function's name.
pub(super) const NAME: &str = "cluster_profile";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("cluster", DataType::Int32, false),
        Field::new("size", DataType::Int64, false),
        Field::new("rank", DataType::Int32, false),
        Field::new("position", DataType::Int32, false),
        Field::new("feature", DataType::Utf8, false),
        Field::new("mean", DataType::Float64, false),
        Field::new("std", DataType::Float64, false),
        Field::new("overall_mean", DataType::Float64, false),
        Field::new("overall_std", DataType::Float64, false),
        Field::new("difference", DataType::Float64, true),
        Field::new("model", DataType::Utf8, false),
    ]))
});

/// The table function. It takes the name of a registered table and gives a row for each feature of each cluster:
/// `cluster` and its `size`, the feature's `rank` (1 for the one that differs most), `position` and name, its `mean`
/// and `std` in the cluster, the same over all rows, and the `difference` of the means in standard deviations over all
/// rows (null for a constant feature).
#[derive(Debug, Default)]
pub struct ClusterProfile {
    tables: RwLock<BTreeMap<String, Arc<LabelTable>>>,
}

impl ClusterProfile {
    /// Lets the function find `table` under `name`.
    pub(super) fn add(&self, name: &str, table: Arc<LabelTable>) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), table);
    }
}

impl TableFunctionImpl for ClusterProfile {
    fn call_with_args(&self, args: TableFunctionArgs) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        let name = match args.exprs() {
            [Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _)] => name.clone(),
            [Expr::Column(column)] => {
                return plan_err!("{NAME} takes the table's name as text: {NAME}('{}')", column.name);
            }
            _ => return plan_err!("{NAME} takes one argument, the name of a labelled table: {NAME}('hapt')"),
        };
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        match tables.get(&name) {
            Some(table) => Ok(Arc::new(Profiled { name, table: Arc::clone(table) })),
            None if tables.is_empty() => plan_err!("{NAME}: no labelled table {name:?}; none is registered"),
            None => {
                let there: Vec<&str> = tables.keys().map(String::as_str).collect();
                plan_err!("{NAME}: no labelled table {name:?}; there are {}", there.join(", "))
            }
        }
    }
}

/// The result for one table, read when it is scanned.
#[derive(Debug)]
struct Profiled {
    name: String,
    table: Arc<LabelTable>,
}

impl Profiled {
    async fn rows(&self) -> Result<RecordBatch> {
        let profile = self.table.profile().await?.ok_or_else(|| {
            let why = match self.table.snapshot().clusters() {
                None => "it has no clusters: its pipeline has no kmeans stage",
                Some(_) => {
                    "nothing is known of its features: its clusters have too many, or rows of it were replaced; write it \
                     anew with dacpipe run or dacpipe label"
                }
            };
            Error::input(format!("{NAME}: table {}: {why}", self.name))
        })?;
        batch(&compare(&profile))
    }
}

fn batch(rows: &[FeatureProfile]) -> Result<RecordBatch> {
    let numbers = |of: fn(&FeatureProfile) -> f64| Arc::new(Float64Array::from_iter_values(rows.iter().map(of)));
    let counts = |of: fn(&FeatureProfile) -> i32| Arc::new(Int32Array::from_iter_values(rows.iter().map(of)));
    let texts = |of: fn(&FeatureProfile) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of)));
    let columns: Vec<ArrayRef> = vec![
        counts(|row| row.cluster),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.rows as i64))),
        counts(|row| row.rank as i32),
        counts(|row| row.position as i32),
        texts(|row| &row.feature),
        numbers(|row| row.mean),
        numbers(|row| row.std),
        numbers(|row| row.overall_mean),
        numbers(|row| row.overall_std),
        Arc::new(rows.iter().map(|row| row.difference).collect::<Float64Array>()),
        texts(|row| &row.model),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
}

#[async_trait]
impl TableProvider for Profiled {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
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
