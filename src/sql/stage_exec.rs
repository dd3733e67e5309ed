//! The one operator that applies fitted stages inside a DataFusion plan.
//!
//! ```text
//!  input stream ──► blocking threads: stage 1, stage 2, … ──► in order ──► channel of 2 ──► whoever polls
//!  (decode)         (as many batches at once as threads)                                    (encode)
//! ```
//!
//! The computation runs on tokio's blocking threads, so that it does not block worker threads, and decoding, computing
//! and encoding overlap. A few more batches are taken from the input than are computed at once: a batch that is done
//! early waits for the one before it, while its thread goes on with the next. Order and partitions of the input are
//! kept. Dropping the stream stops the work: no batch is started after that.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    StatisticsArgs,
};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use crate::origin::narrowing;
use crate::stage::{Apply, Transform};

/// Threads of a partition, if not said otherwise.
const THREADS: usize = 2;
/// How many batches a partition takes from its input beyond those being computed, so that no thread waits for its next
/// batch or for the order; also how many finished batches may wait for the reader.
const AHEAD: usize = 2;

/// Applies fitted stages, in order, to every batch of its input.
///
/// `EXPLAIN ANALYZE` shows its rows and the time spent in the stages.
#[derive(Debug, Clone)]
pub struct StageExec {
    input: Arc<dyn ExecutionPlan>,
    stages: Arc<[Arc<dyn Transform>]>,
    threads: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl StageExec {
    /// `stages` over `input`, on two threads per partition. Features in double precision become single first, unless
    /// one of the stages takes double precision.
    ///
    /// # Errors
    /// Errors of the stages' `output_schema` for the schema of `input`, such as a missing column or another width.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, mut stages: Vec<Arc<dyn Transform>>) -> crate::Result<Self> {
        let mut schema = input.schema();
        if let Some(narrow) = narrowing(&schema, &stages)? {
            stages.insert(0, Arc::new(narrow));
        }
        for stage in &stages {
            schema = stage.output_schema(&schema)?;
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self {
            input,
            stages: stages.into(),
            threads: THREADS,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same, but each partition computes `threads` batches at a time (at least one). It holds two batches more, and
    /// two finished ones.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// The stages, in the order in which they are applied.
    pub fn stages(&self) -> &[Arc<dyn Transform>] {
        &self.stages
    }

    fn kinds(&self) -> String {
        self.stages.iter().map(|stage| stage.kind()).collect::<Vec<_>>().join(", ")
    }
}

/// A batch to compute, and the receiver of the result.
struct Work {
    batch: RecordBatch,
    reply: oneshot::Sender<Result<RecordBatch>>,
}

/// The next batch of the queue; `None` once there will be none.
fn next(work: &Mutex<mpsc::Receiver<Work>>) -> Option<Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "StageExec: stages=[{}]", self.kinds())
            }
            DisplayFormatType::TreeRender => writeln!(f, "stages={}", self.kinds()),
        }
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &str {
        "StageExec"
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
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (1, Some(input)) = (children.len(), children.pop()) else {
            return internal_err!("StageExec has one input");
        };
        Ok(match options.children_properties {
            ChildrenPropertiesMode::Keep => {
                Arc::new(Self { input, metrics: ExecutionPlanMetricsSet::new(), ..Self::clone(&self) })
            }
            ChildrenPropertiesMode::Recompute => {
                Arc::new(Self::try_new(input, self.stages.to_vec())?.with_threads(self.threads))
            }
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let in_flight = self.threads + AHEAD;
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), AHEAD);
        let sender = builder.tx();

        // A thread that is done takes the next batch from the queue itself: on a busy machine, waking a task to hand it
        // over could take milliseconds.
        let (queue, work) = mpsc::channel::<Work>(in_flight);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..self.threads {
            let (stages, output, baseline) = (Arc::clone(&self.stages), self.schema(), baseline.clone());
            let work = Arc::clone(&work);
            builder.spawn_blocking(move || {
                while let Some(Work { batch, reply }) = next(&work) {
                    // The receiver is gone if the stream was dropped.
                    if reply.is_closed() {
                        break;
                    }
                    let timer = baseline.elapsed_compute().timer();
                    let computed = apply_all(&stages, batch, &output);
                    timer.done();
                    let computed = computed.map(|batch| batch.record_output(&baseline));
                    reply.send(computed.map_err(DataFusionError::from)).ok();
                }
                Ok(())
            });
        }
        builder.spawn(async move {
            let computed = input
                .map(|batch| {
                    let queue = queue.clone();
                    async move {
                        let (reply, computed) = oneshot::channel();
                        let gone = || DataFusionError::Execution("a stage ended before its batch".into());
                        queue.send(Work { batch: batch?, reply }).await.map_err(|_| gone())?;
                        computed.await.map_err(|_| gone())?
                    }
                })
                .buffered(in_flight);
            let mut computed = std::pin::pin!(computed);
            while let Some(batch) = computed.next().await {
                let failed = batch.is_err();
                // A closed channel means that the reader is gone.
                if sender.send(batch).await.is_err() || failed {
                    break;
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = inputs.first().map_or(Precision::Absent, |input| input.num_rows);
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// `batch` through all `stages`, with the schema that was planned.
fn apply_all(stages: &[Arc<dyn Transform>], mut batch: RecordBatch, output: &SchemaRef) -> crate::Result<RecordBatch> {
    for stage in stages {
        batch = stage.apply(&batch).map_err(|e| e.while_doing(format_args!("stage {}", stage.kind())))?;
    }
    match batch.schema_ref() == output {
        true => Ok(batch),
        false => batch.with_schema(Arc::clone(output)).map_err(|e| {
            crate::Error::internal("the input has batches of another schema than it promised").with_source(e)
        }),
    }
}
