//! The learning passes: each stage in turn learns from the rows as the fitted stages before it leave them.

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::memory_pool::MemoryPool;

use super::collect::Collected;
use super::identity::{Before, Common};
use super::precision::{self, to_single};
use super::state::{About, Kept, RunState};
use crate::column::vector_field;
use crate::device::Device;
use crate::error::Result;
use crate::event::{Control, Event};
use crate::impute::Impute;
use crate::kernel::Rows;
use crate::kmeans::KMeansSpec;
use crate::label::KMeansStage;
use crate::model::Model;
use crate::origin::{Fallen, Look, Origin};
use crate::registry::Registry;
use crate::replay::{Mapped, RowStore, RowStoreBuilder};
use crate::report::{FellTogether, StageReport};
use crate::seed::Seed;
use crate::stage::{Apply, FEATURES, Fit, FitContext, Fitted, NoCheckpoint, Training, Transform, VectorMap};
use crate::vectors::column_names;

/// Rows mapped at a time when a stage's output is stored.
const BLOCK_ROWS: usize = 2048;

/// What the passes need beside the rows.
pub(super) struct Learn {
    pub stages: Vec<Arc<dyn Fit>>,
    pub seed: Seed,
    pub device: Arc<dyn Device>,
    /// Where the stored output of a stage takes its memory from.
    pub embeddings: Arc<dyn MemoryPool>,
    /// Where the rows take theirs from.
    pub rows: Arc<dyn MemoryPool>,
    /// Bytes that a stage may hold beside its rows.
    pub memory: u64,
    pub control: Control,
    pub state: RunState,
    /// What rebuilds the stages that an interrupted run learned.
    pub registry: Registry,
    /// Fit raw k-means as well, on the rows that the first stage with an output of another width is given.
    pub baseline: Option<KMeansSpec>,
    /// The names of the features.
    pub feature_names: Vec<String>,
    /// The model that labelled the table's newest rows, whose clusters new ones may be.
    pub earlier: Option<Arc<Model>>,
    /// The features of which different values became the same number as they were read.
    pub rounded: Vec<Fallen>,
}

/// What was learned.
#[derive(Default)]
pub(super) struct Learned {
    pub transforms: Vec<Arc<dyn Transform>>,
    /// k-means on the features, and how many of the transforms come before it.
    pub baseline: Option<(usize, Arc<dyn Transform>)>,
    pub reports: Vec<StageReport>,
    /// Rows that were learned from, and how many of them were spilled.
    pub rows: u64,
    pub spilled_rows: u64,
    /// The features that single precision or the scale no longer tells apart.
    pub fallen: Vec<FellTogether>,
    /// The rows that the clusters have in common with those of the earlier model, and how long it took to find out.
    pub common: Option<Common>,
    pub common_seconds: f64,
}

/// The rows a stage learns from: a store, and the fitted maps that its rows have yet to go through.
struct View {
    store: RowStore,
    /// The first of the transforms that are not in the store.
    from: usize,
}

impl View {
    fn rows<'a>(&'a self, transforms: &'a [Arc<dyn Transform>]) -> Mapped<'a> {
        Mapped::new(&self.store, maps(&transforms[self.from..]))
    }
}

fn maps(transforms: &[Arc<dyn Transform>]) -> Vec<&dyn VectorMap> {
    transforms.iter().filter_map(|t| t.vector_map()).collect()
}

impl Learn {
    /// Fits every stage, in order.
    pub fn run(self, collected: Collected) -> Result<Learned> {
        let mut learned = Learned {
            rows: collected.rows.len() as u64,
            spilled_rows: collected.rows.spilled_rows() as u64,
            ..Learned::default()
        };
        let began = Instant::now();
        let pool = self.device.pool();
        let before = self.earlier.as_ref().map(|model| Before::by(model, &collected, pool)).transpose()?;
        learned.common_seconds = began.elapsed().as_secs_f64();
        let classes = collected.classes;
        let (store, look, origin) = to_single(collected.rows, &self.rows)?;
        if let Some(origin) = &origin {
            learned.transforms.push(Arc::new(origin.clone()));
        }
        self.look(&look, origin.as_ref(), None, &mut learned.fallen)?;
        // The vectors that the label pass will give the stages: what does not fit those is found out at once.
        let mut schema: SchemaRef = Arc::new(Schema::new(vec![vector_field(FEATURES, store.dim())]));
        let mut view = View { store, from: learned.transforms.len() };
        for (index, stage) in self.stages.iter().enumerate() {
            self.control.check()?;
            let began = Instant::now();
            let rows = view.rows(&learned.transforms);
            let fitted = self.fit(index, stage.as_ref(), &rows, classes.as_deref(), &learned.transforms)?;
            // Its own seconds: those of raw k-means, which learns from the same rows, are told apart.
            let seconds = began.elapsed().as_secs_f64();
            let widens = fitted.transform.vector_map().is_some_and(|m| m.dim_in() != m.dim_out());
            if let (true, Some(spec), None) = (widens, &self.baseline, &learned.baseline) {
                learned.baseline =
                    Some((learned.transforms.len(), self.fit_baseline(spec, &rows, &mut learned.reports)?));
            }
            if index == 0
                && let (false, Some(map)) = (widens, fitted.transform.vector_map())
            {
                self.look(&look, origin.as_ref(), Some(map), &mut learned.fallen)?;
            }
            schema = fitted
                .transform
                .output_schema(&schema)
                .map_err(|e| e.while_doing(format!("stage {}: what it learned does not fit", stage.kind())))?;
            let mut figures = fitted.figures;
            if fitted.transform.kind() == Impute::KIND {
                self.name_missing(&mut figures);
            }
            learned.transforms.push(fitted.transform);
            learned.reports.push(StageReport { stage: stage.kind().into(), seconds, summary: fitted.summary, figures });
            if widens {
                view = self.store(view, &learned.transforms)?;
            }
        }
        let began = Instant::now();
        learned.common = match (&self.earlier, before) {
            (Some(model), Some(Ok(before))) => {
                before.common(model, &view.store, &learned.transforms, view.from, pool)?
            }
            (_, Some(Err(why))) => Some(Err(why)),
            _ => None,
        };
        learned.common_seconds += began.elapsed().as_secs_f64();
        Ok(learned)
    }

    /// Says by the names of the features how many values are missing, where some are.
    fn name_missing(&self, figures: &mut serde_json::Map<String, serde_json::Value>) {
        let Some(counts) = figures.get("missing").and_then(|counts| counts.as_array()) else { return };
        let names = column_names(&self.feature_names, []);
        let counts = counts.iter().enumerate().filter(|(_, count)| count.as_u64() != Some(0));
        let named = counts.map(|(at, count)| (names.get(at).cloned().unwrap_or_else(|| at.to_string()), count.clone()));
        let named: serde_json::Map<_, _> = named.collect();
        figures.insert("missing".into(), named.into());
    }

    /// Looks which features can no longer be told apart by, less `origin` and through `map`, into `fallen`; warns of them
    /// unless they are known.
    fn look(
        &self,
        look: &Look,
        origin: Option<&Origin>,
        map: Option<&dyn VectorMap>,
        fallen: &mut Vec<FellTogether>,
    ) -> Result<()> {
        let now = precision::joined(&self.rounded, look.fallen(origin, map)?);
        let now = precision::named(&now, &self.feature_names);
        if now != *fallen
            && let Some(message) = precision::warning(&now, look.rows())
        {
            self.control.emit(Event::Warning { message });
        }
        *fallen = now;
        Ok(())
    }

    /// The fitted stage number `index`, from an earlier attempt or learned now.
    fn fit(
        &self,
        index: usize,
        stage: &dyn Fit,
        rows: &dyn Rows,
        classes: Option<&[Option<u32>]>,
        before: &[Arc<dyn Transform>],
    ) -> Result<Fitted> {
        if let Some(Kept { about: About { kind, summary, figures }, artifact }) = self.state.fitted(index)? {
            let transform = self.registry.restore(&kind, &artifact)?;
            self.control.emit(Event::Finished {
                stage: stage.kind().into(),
                seconds: 0.0,
                summary: format!("learned before the interrupt: {summary}"),
            });
            return Ok(Fitted { transform, summary, figures });
        }
        let began = Instant::now();
        let feature_weights = before.iter().rev().find_map(|t| t.feature_weights());
        let coordinates = before.iter().rev().find_map(|t| t.coordinates());
        let centroids = before.iter().rev().find_map(|t| t.centroids());
        let data = Training { rows, classes, feature_weights, coordinates, centroids };
        let checkpoint = self.state.checkpoint(index);
        let cx = FitContext {
            seed: self.seed,
            device: &*self.device,
            control: &self.control,
            checkpoint: &checkpoint,
            memory: self.memory,
        };
        let fitted = stage.fit(&data, &cx).map_err(|e| e.while_doing(format!("stage {}", stage.kind())))?;
        let Fitted { transform, summary, figures } = &fitted;
        let about = About { kind: transform.kind().into(), summary: summary.clone(), figures: figures.clone() };
        self.state.keep_fitted(index, Kept { about, artifact: transform.keep() })?;
        self.control.emit(Event::Finished {
            stage: stage.kind().into(),
            seconds: began.elapsed().as_secs_f64(),
            summary: fitted.summary.clone(),
        });
        Ok(fitted)
    }

    fn fit_baseline(
        &self,
        spec: &KMeansSpec,
        rows: &dyn Rows,
        reports: &mut Vec<StageReport>,
    ) -> Result<Arc<dyn Transform>> {
        let began = Instant::now();
        let stage = KMeansStage::new(spec.clone(), FEATURES);
        let cx = FitContext {
            seed: self.seed,
            device: &*self.device,
            control: &self.control,
            checkpoint: &NoCheckpoint,
            memory: self.memory,
        };
        let data = Training::new(rows);
        let fitted = stage.fit(&data, &cx).map_err(|e| e.while_doing("raw k-means"))?;
        let seconds = began.elapsed().as_secs_f64();
        self.control.emit(Event::Finished { stage: "raw k-means".into(), seconds, summary: fitted.summary.clone() });
        reports.push(StageReport {
            stage: "raw k-means".into(),
            seconds,
            summary: fitted.summary,
            figures: fitted.figures,
        });
        Ok(fitted.transform)
    }

    /// The rows of `view` through the maps they have yet to go through, stored: later stages read them many times.
    fn store(&self, view: View, transforms: &[Arc<dyn Transform>]) -> Result<View> {
        let rows = view.rows(transforms);
        let (len, dim) = (rows.len(), rows.dim());
        let mut builder = RowStoreBuilder::new("embeddings", dim, &self.embeddings).with_rows(len);
        let step = BLOCK_ROWS * self.device.pool().threads();
        for start in (0..len).step_by(step) {
            self.control.check()?;
            let end = (start + step).min(len);
            let mut block = vec![0.0; (end - start) * dim];
            self.device.pool().try_for_each_chunk_mut(&mut block, BLOCK_ROWS * dim, |i, out| {
                let first = start + i * BLOCK_ROWS;
                rows.read(first..first + out.len() / dim, out)
            })?;
            builder.push(&block)?;
        }
        Ok(View { store: builder.finish()?, from: transforms.len() })
    }
}
