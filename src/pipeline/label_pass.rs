//! The label pass: source, fitted stages, table, as one overlapped stream.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::sink::DataSink;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::DataFrame;
use futures::StreamExt;

use super::portrait::{CarryInput, Kept, Portrait};
use super::tally::{Columns, Tally};
use crate::column;
use crate::error::Result;
use crate::event::{Control, Event};
use crate::origin::narrowing;
use crate::sql::StageExec;
use crate::stage::{Artifact, LABEL_COLUMNS, Transform};
use crate::table::{Labels, TableWriter};
use crate::vectors::column_names;

/// The column of raw k-means' clusters, between its stage and the tally; it is not written.
pub(super) const RAW_CLUSTER: &str = "__raw_cluster";

/// One pass over the rows to label.
pub(super) struct LabelPass {
    /// The rows, with the features and every column to keep.
    pub rows: DataFrame,
    /// The stages, in order; raw k-means among them, where it runs.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// The columns to write, in order.
    pub keep: Vec<String>,
    /// What is counted.
    pub columns: Columns,
    /// How many clusters there are; 0 where no stage labels rows.
    pub k: usize,
    /// The column of labels that a report colours rows by, scored or not.
    pub shown_label: Option<String>,
    /// The names of the features; empty where they have none.
    pub feature_names: Vec<String>,
    /// Batches that go through the stages at a time.
    pub threads: usize,
    pub control: Control,
}

impl LabelPass {
    /// Labels all rows into `writer`, uncommitted. Gives what was counted, and what lies beside the table.
    pub async fn run(self, ctx: &SessionContext, writer: &mut TableWriter, labels: Labels) -> Result<(Tally, Kept)> {
        let began = Instant::now();
        self.control.emit(Event::Started { stage: "label".into(), unit: "rows", total: None });
        let scan = self.rows.create_physical_plan().await?;
        let mut stages = self.transforms;
        if let Some(narrow) = narrowing(&scan.schema(), &stages)? {
            stages.insert(0, Arc::new(narrow));
        }
        // Without clusters there is nothing to tell apart.
        let portrayed = self.k > 0;
        if portrayed {
            stages.insert(0, Arc::new(CarryInput));
        }
        let plan = StageExec::try_new(scan, stages)?.with_threads(self.threads);
        let input = plan.schema();
        let kept: Vec<usize> = self.keep.iter().map(|name| input.index_of(name)).collect::<Result<_, _>>()?;
        let schema = Arc::new(input.project(&kept)?);
        let labelled = execute_stream(Arc::new(plan), ctx.task_ctx())?;

        // The sink drives the stream; the tally looks at each batch on its way.
        let portrait = || Portrait::new(&input, self.k, self.shown_label.as_deref(), &self.control);
        let seen = Arc::new(Mutex::new((Tally::new(self.k), portrayed.then(portrait).transpose()?)));
        let (counted, control, columns) = (Arc::clone(&seen), self.control.clone(), self.columns);
        let rows = labelled.map(move |batch| {
            control.check()?;
            let batch = batch?;
            let (tally, portrait) = &mut *counted.lock().unwrap_or_else(|e| e.into_inner());
            tally.add(&batch, &columns)?;
            if let Some(portrait) = portrait {
                portrait.add(&batch)?;
            }
            let done = tally.rows();
            let rows_per_second = Some(done as f64 / began.elapsed().as_secs_f64());
            control.emit(Event::Progress { stage: "label".into(), done, loss: None, rows_per_second });
            Ok(batch.project(&kept)?)
        });
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&schema), rows);
        let model = labels.model.clone();
        let sink = writer.sink(schema, labels)?;
        sink.write_all(Box::pin(rows), &ctx.task_ctx()).await?;
        let (tally, portrait) = std::mem::take(&mut *seen.lock().unwrap_or_else(|e| e.into_inner()));
        // As in the columns of vectors: of features that share a name, the later ones are numbered.
        let names = column_names(&self.feature_names, []);
        let kept = portrait.map(|portrait| portrait.finish(&names, &model)).transpose()?;
        let seconds = began.elapsed().as_secs_f64();
        let summary = format!("{} rows, {:.0} rows/s", tally.rows(), tally.rows() as f64 / seconds);
        self.control.emit(Event::Finished { stage: "label".into(), seconds, summary });
        Ok((tally, kept.unwrap_or_default()))
    }
}

/// Raw k-means in the stream: appends its cluster under a name of its own and leaves the rest as it is.
#[derive(Debug)]
pub(super) struct RawKMeans(pub Arc<dyn Transform>);

impl Transform for RawKMeans {
    fn kind(&self) -> &'static str {
        "raw_kmeans"
    }

    fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
        let labelled = self.0.output_schema(input)?;
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        let cluster = labelled.field_with_name(LABEL_COLUMNS[0])?;
        fields.push(Arc::new(cluster.clone().with_name(RAW_CLUSTER)));
        Ok(Arc::new(Schema::new_with_metadata(fields, input.metadata().clone())))
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let labelled = self.0.apply(batch)?;
        let cluster =
            labelled.column_by_name(LABEL_COLUMNS[0]).ok_or_else(|| column::missing(&labelled.schema(), "cluster"))?;
        debug_assert_eq!(cluster.data_type(), &DataType::Int32);
        debug_assert_eq!(cluster.as_primitive::<Int32Type>().null_count(), 0);
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::clone(cluster));
        Ok(RecordBatch::try_new(self.output_schema(&batch.schema())?, columns)?)
    }

    fn save(&self) -> Artifact {
        self.0.save()
    }
}
