//! The operator of the label pass between its stages and its sink: it looks at what was labelled, and passes on what is
//! written.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::StreamExt;

/// Looks at a batch; an error ends the pass.
type Watch = dyn Fn(&RecordBatch) -> crate::Result<()> + Send + Sync;

/// Looks at every batch of its input, in order, and keeps some of its columns.
#[derive(Clone)]
pub(super) struct WatchExec {
    input: Arc<dyn ExecutionPlan>,
    watch: Arc<Watch>,
    /// The places of the columns that are passed on.
    keep: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl WatchExec {
    /// Looks at the batches of `input`, which has one partition, and keeps these columns.
    ///
    /// # Errors
    /// If a column is not there.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, keep: Vec<usize>, watch: Arc<Watch>) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(input.schema().project(&keep)?)),
            Partitioning::UnknownPartitioning(1),
            input.properties().emission_type,
            input.properties().boundedness,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, watch, keep, properties: Arc::new(properties), metrics })
    }
}

impl fmt::Debug for WatchExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchExec").field("input", &self.input).field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl DisplayAs for WatchExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.properties.eq_properties.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "WatchExec: keep=[{}]", names.join(", "))
            }
            DisplayFormatType::TreeRender => writeln!(f, "keep={}", names.join(", ")),
        }
    }
}

impl ExecutionPlan for WatchExec {
    fn name(&self) -> &str {
        "WatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (1, Some(input)) = (children.len(), children.pop()) else {
            return internal_err!("WatchExec has one input");
        };
        Ok(Arc::new(Self::try_new(input, self.keep.clone(), Arc::clone(&self.watch))?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let Self { watch, keep, .. } = self.clone();
        let kept = input.map(move |batch| {
            let batch = batch?;
            let timer = baseline.elapsed_compute().timer();
            watch(&batch)?;
            timer.done();
            Ok(batch.project(&keep)?.record_output(&baseline))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), kept)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
