//! The label pass: one plan of source, fitted stages and table, as one overlapped stream.
//!
//! ```text
//! DataSinkExec       the table's files; nobody sees them before the commit
//!   WatchExec        counts, scores, and keeps what a report shows; passes on the columns that are written
//!     StageExec      the fitted stages, on all threads
//!       ...          the source's scan
//! ```

use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect};
use datafusion::prelude::DataFrame;

use super::portrait::{INPUT, Kept, Portrait};
use super::tally::{Columns, Tally};
use super::watch::WatchExec;
use crate::column;
use crate::error::Result;
use crate::event::{Control, Event};
use crate::impute::Impute;
use crate::origin::narrowing;
use crate::source::Source;
use crate::source::times::{END_TIME, newest};
use crate::sql::StageExec;
use crate::stage::{Action, Apply, Artifact, FEATURES, LABEL_COLUMNS, Transform};
use crate::table::{Labels, TableWriter};
use crate::vectors::{Carry, column_names};

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
    /// The ids of the clusters; empty where no stage labels rows.
    pub ids: Vec<i32>,
    /// The column of labels that a report colours rows by, scored or not.
    pub shown_label: Option<String>,
    /// The names of the features; empty where they have none.
    pub feature_names: Vec<String>,
    /// The column of vectors to collect, if something learns from them.
    pub collects: Option<String>,
    /// Whether profiles of the clusters and a sample of the rows are made; without clusters there are none.
    pub portrays: bool,
    /// Batches that go through the stages at a time.
    pub threads: usize,
    pub control: Control,
}

impl LabelPass {
    /// The pass of `rows` of `source` through `transforms` that writes the columns `keep`. It counts rows alone, has no
    /// clusters, and runs on one thread: the other fields say more.
    pub fn of(source: &Source, rows: DataFrame, transforms: Vec<Arc<dyn Transform>>, keep: Vec<String>) -> Self {
        Self {
            rows,
            transforms,
            keep,
            columns: Columns::default(),
            ids: Vec::new(),
            shown_label: source.label.clone(),
            feature_names: source.feature_names.clone(),
            collects: None,
            portrays: true,
            threads: 1,
            control: Control::default(),
        }
    }

    /// Labels all rows into `writer`, uncommitted. Gives what was counted, and what lies beside the table.
    pub async fn run(self, ctx: &SessionContext, writer: &mut TableWriter, labels: Labels) -> Result<Passed> {
        let began = Instant::now();
        self.control.emit(Event::Started { stage: "label".into(), unit: "rows", total: None });
        let (control, names, model) = (self.control.clone(), self.feature_names.clone(), labels.model.clone());
        let (plan, seen) = self.plan(writer, labels).await?;
        collect(plan, ctx.task_ctx()).await?;
        let Seen { tally, portrait, vectors } = std::mem::take(&mut *seen.lock().unwrap_or_else(|e| e.into_inner()));
        // As in the columns of vectors: of features that share a name, the later ones are numbered.
        let names = column_names(&names, []);
        let kept = portrait.map(|portrait| portrait.finish(&names, &model)).transpose()?;
        let seconds = began.elapsed().as_secs_f64();
        let summary = format!("{} rows, {:.0} rows/s", tally.rows(), tally.rows() as f64 / seconds);
        control.emit(Event::Finished { stage: "label".into(), seconds, summary });
        Ok(Passed { tally, kept: kept.unwrap_or_default(), vectors: vectors.unwrap_or_default() })
    }

    /// The whole pass as a plan, and what it will have seen when it has run.
    async fn plan(
        self,
        writer: &mut TableWriter,
        labels: Labels,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<Mutex<Seen>>)> {
        let scan = self.rows.create_physical_plan().await?;
        let mut stages = self.transforms;
        if let Some(narrow) = narrowing(&scan.schema(), &stages)? {
            stages.insert(0, Arc::new(narrow));
        }
        // Without clusters there is nothing to tell apart.
        let portrayed = self.portrays && !self.ids.is_empty();
        let fill = filled(&stages)?;
        if portrayed {
            stages.insert(0, Arc::new(Carry::new(FEATURES, INPUT)));
        }
        let mut labelled: Arc<dyn ExecutionPlan> =
            Arc::new(StageExec::try_new(scan, stages)?.with_threads(self.threads));
        if labelled.output_partitioning().partition_count() > 1 {
            labelled = Arc::new(CoalescePartitionsExec::new(labelled));
        }
        let schema = labelled.schema();
        let keep = self.keep.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<usize>, _>>()?;
        let portrait = || Portrait::new(&schema, &self.ids, self.shown_label.as_deref(), &self.control);
        let portrait = portrayed.then(portrait).transpose()?.map(|portrait| portrait.filled(fill));
        let vectors = self.collects.map(Vectors::of);
        let seen = Arc::new(Mutex::new(Seen { tally: Tally::new(&self.ids), portrait, vectors }));
        let (looking, control, columns, began) = (Arc::clone(&seen), self.control, self.columns, Instant::now());
        let watch = move |batch: &RecordBatch| {
            control.check()?;
            let Seen { tally, portrait, vectors } = &mut *looking.lock().unwrap_or_else(|e| e.into_inner());
            tally.add(batch, &columns)?;
            if let Some(portrait) = portrait {
                portrait.add(batch)?;
            }
            if let Some(vectors) = vectors {
                vectors.add(batch)?;
            }
            let done = tally.rows();
            let rows_per_second = Some(done as f64 / began.elapsed().as_secs_f64());
            control.emit(Event::Progress { stage: "label".into(), done, loss: None, rows_per_second });
            Ok(())
        };
        let watched = WatchExec::try_new(labelled, keep, Arc::new(watch))?;
        let sink = writer.sink(watched.schema(), labels)?;
        Ok((Arc::new(DataSinkExec::new(Arc::new(watched), sink, None)), seen))
    }
}

/// What a missing value of each feature becomes, in the units of the source; `None` if none is replaced.
fn filled(stages: &[Arc<dyn Transform>]) -> Result<Option<Vec<f64>>> {
    let Some(at) = stages.iter().position(|stage| stage.kind() == Impute::KIND) else { return Ok(None) };
    let Some(map) = stages[at].vector_map() else { return Ok(None) };
    let mut means = vec![0.0; map.dim_out()];
    map.map(&vec![f32::NAN; map.dim_in()], &mut means)?;
    let origin = stages[..at].iter().find_map(|stage| stage.vector_map()?.as_origin());
    Ok(Some(match origin {
        Some(origin) => origin.back().widened(&means),
        None => means.into_iter().map(f64::from).collect(),
    }))
}

/// What the pass has seen of the rows so far.
#[derive(Debug, Default)]
struct Seen {
    tally: Tally,
    portrait: Option<Portrait>,
    vectors: Option<Vectors>,
}

/// What a pass has made.
#[derive(Debug)]
pub(super) struct Passed {
    /// What was counted.
    pub tally: Tally,
    /// What lies beside the table.
    pub kept: Kept,
    /// The vectors, if they were to be collected.
    pub vectors: Vectors,
}

/// The vectors of the rows as they are labelled, and the newest time among them.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    column: String,
    /// Row-major.
    pub values: Vec<f32>,
    /// In nanoseconds; `None` where rows have no times.
    pub newest: Option<i64>,
}

impl Vectors {
    fn of(column: String) -> Self {
        Self { column, ..Self::default() }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.values.extend_from_slice(column::vectors(batch, &self.column)?.0);
        if let Some(times) = batch.column_by_name(END_TIME) {
            self.newest = self.newest.max(newest(times)?);
        }
        Ok(())
    }
}

/// Raw k-means in the stream: appends its cluster under a name of its own and leaves the rest as it is.
#[derive(Debug)]
pub(super) struct RawKMeans(pub Arc<dyn Transform>);

impl crate::stage::Columns for RawKMeans {
    fn fields(&self, input: &Schema) -> Result<Vec<Field>> {
        let labelled = self.0.output_schema(input)?;
        Ok(vec![labelled.field_with_name(LABEL_COLUMNS[0])?.clone().with_name(RAW_CLUSTER)])
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let labelled = self.0.apply(batch)?;
        let cluster = labelled.column_by_name(LABEL_COLUMNS[0]);
        Ok(vec![Arc::clone(cluster.ok_or_else(|| column::missing(&labelled.schema(), LABEL_COLUMNS[0]))?)])
    }
}

impl Transform for RawKMeans {
    fn kind(&self) -> &'static str {
        "raw_kmeans"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    fn save(&self) -> Artifact {
        self.0.save()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use arrow::array::AsArray;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionConfig;

    use super::*;
    use crate::Kind;
    use crate::column::vector_array;
    use crate::device::Cpu;
    use crate::kmeans::KMeans;
    use crate::label::Label;
    use crate::store::Location;
    use crate::table::{Mode, WriteOptions};

    /// Rows of one value in two partitions, to be labelled by the nearer of 0 and 10.
    async fn pass(ctx: &SessionContext, control: &Control) -> LabelPass {
        let part = |values: Vec<f32>| {
            let vectors: ArrayRef = vector_array(values, 1).unwrap();
            vec![RecordBatch::try_from_iter([(FEATURES, vectors)]).unwrap()]
        };
        let parts = vec![part(vec![1.0, 9.0, 12.0]), part(vec![-3.0, 2.0])];
        let table = MemTable::try_new(parts[0][0].schema(), parts).unwrap();
        let found = KMeans {
            centroids: vec![0.0, 10.0],
            k: 2,
            dim: 1,
            inertia: 0.0,
            iterations: 1,
            converged: true,
            sizes: vec![1; 2],
            mean_distance: vec![0.0; 2],
        };
        LabelPass {
            rows: ctx.read_table(Arc::new(table)).unwrap(),
            transforms: vec![Arc::new(Label::new(&found, FEATURES, &Cpu::default()).unwrap())],
            keep: LABEL_COLUMNS.map(String::from).to_vec(),
            columns: Columns::default(),
            ids: vec![0, 1],
            shown_label: None,
            feature_names: vec!["x".into()],
            collects: None,
            portrays: true,
            threads: 2,
            control: control.clone(),
        }
    }

    async fn writer(dir: &tempfile::TempDir) -> (TableWriter, Labels) {
        let place = Location::parse(&dir.path().join("table").display().to_string()).unwrap();
        let writer = TableWriter::begin(&place, WriteOptions::new(Mode::Overwrite, "run")).await.unwrap();
        (writer, Labels { model: "m".into(), labelled_at: SystemTime::UNIX_EPOCH })
    }

    #[tokio::test]
    async fn the_pass_is_one_plan_from_the_scan_to_the_sink() {
        let (dir, control) = (tempfile::tempdir().unwrap(), Control::default());
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let (mut table, labels) = writer(&dir).await;
        let (plan, seen) = pass(&ctx, &control).await.plan(&mut table, labels).await.unwrap();
        let mut names = Vec::new();
        let mut at = Some(&plan);
        while let Some(plan) = at {
            names.push(plan.name().to_owned());
            at = plan.children().first().copied();
        }
        assert_eq!(names, ["DataSinkExec", "WatchExec", "CoalescePartitionsExec", "StageExec", "DataSourceExec"]);
        let counts = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
        assert_eq!(counts[0].column(0).as_primitive::<arrow::datatypes::UInt64Type>().values(), &[5]);
        let Seen { tally, portrait, .. } = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!((tally.sizes(), portrait.is_some()), (&[3, 2][..], true));
        let watched = plan.children()[0];
        assert_eq!(watched.metrics().unwrap().output_rows(), Some(5));
        let columns: Vec<_> = watched.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(columns, LABEL_COLUMNS);
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_plan() {
        let (dir, control) = (tempfile::tempdir().unwrap(), Control::default());
        let ctx = SessionContext::new();
        let (mut table, labels) = writer(&dir).await;
        control.cancel();
        let e = pass(&ctx, &control).await.run(&ctx, &mut table, labels).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Cancelled);
        // What was not written to its end cannot be committed.
        let e = table.commit(crate::table::CommitInfo::default()).await.unwrap_err();
        assert!(e.to_string().contains("not all of its rows were written"), "{e}");
    }
}
