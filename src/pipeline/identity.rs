//! Which clusters of a run are which of the table's.
//!
//! Rows that the run learns from are labelled by the table's newest model, before anything is learned, and by the new one
//! in the end; [`identity`](crate::identity) makes of the counts which cluster keeps its id.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, json};

use super::collect::{Collected, Stored};
use super::execution::Execution;
use super::learn::Learned;
use crate::column::Values;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::identity::{Change, Identities, Matching, Overlap, Places, changes, match_clusters};
use crate::kernel::{Pool, Rows};
use crate::model::Model;
use crate::replay::Mapped;
use crate::report::{MATCHED, StageReport};
use crate::source::Missing;
use crate::stage::{Apply, Transform};
use crate::table::{History, Lineage};

/// The most rows that both models label: of more, every second, third, …
const MOST_ROWS: usize = 1 << 20;
/// Rows that are labelled together.
const BLOCK_ROWS: usize = 512;

/// What is known of the table's clusters before the run.
pub(super) struct Earlier {
    history: History,
    /// The model whose clusters new ones are matched to; where there is none, why.
    model: std::result::Result<Arc<Model>, String>,
}

impl Earlier {
    /// The model that labels the rows to learn from.
    pub fn model(&self) -> Option<Arc<Model>> {
        self.model.as_ref().ok().cloned()
    }
}

/// Some of the rows to learn from, with their old clusters.
pub(super) struct Before {
    /// Every row whose number is a multiple of this.
    step: usize,
    /// The ids of their clusters.
    ids: Vec<i32>,
}

/// Rows that two models label, or why they cannot.
pub(super) type Common = std::result::Result<Overlap, String>;

impl Before {
    /// The clusters of `collected` rows by an earlier `model`; where it cannot take them, why.
    pub fn by(model: &Model, collected: &Collected, pool: &Pool) -> Result<std::result::Result<Self, String>> {
        Self::of_at_most(MOST_ROWS, model, collected, pool)
    }

    fn of_at_most(
        most: usize,
        model: &Model,
        collected: &Collected,
        pool: &Pool,
    ) -> Result<std::result::Result<Self, String>> {
        let step = collected.rows.len().div_ceil(most).max(1);
        let mut ids = vec![0; collected.rows.len().div_ceil(step)];
        let labelled = pool.try_for_each_chunk_mut(&mut ids, BLOCK_ROWS, |block, ids| {
            let found = match &collected.rows {
                Stored::Single(rows) => {
                    model.assign(Values::Single(&every(rows, step, block * BLOCK_ROWS, ids.len())?))
                }
                Stored::Double(rows) => {
                    model.assign(Values::Double(&every(rows, step, block * BLOCK_ROWS, ids.len())?))
                }
            }?;
            ids.copy_from_slice(&found.cluster);
            Ok::<(), Error>(())
        });
        match labelled {
            Ok(()) => Ok(Ok(Self { step, ids })),
            Err(e) if matches!(e.kind(), Kind::Input | Kind::Model) => Ok(Err(e.to_string())),
            Err(e) => Err(e),
        }
    }

    /// The rows that the clusters of `model` have in common with those of the fitted stages `transforms`, whose maps up to
    /// number `from` the rows of `store` have gone through.
    pub fn common(
        &self,
        model: &Model,
        store: &dyn Rows,
        transforms: &[Arc<dyn Transform>],
        from: usize,
        pool: &Pool,
    ) -> Result<Option<Common>> {
        let found = transforms.iter().enumerate().find_map(|(at, stage)| Some((at, stage.clusters()?)));
        let (Some((at, clusters)), Some(old)) = (found, model.clusters()) else { return Ok(None) };
        let Some(left) = transforms.get(from..at) else {
            return Ok(Some(Err("a stage after the clusters makes other vectors".into())));
        };
        let rows = Mapped::new(store, left.iter().filter_map(|stage| stage.vector_map()).collect());
        let mut now = vec![0; self.ids.len()];
        pool.try_for_each_chunk_mut(&mut now, BLOCK_ROWS, |block, ids| {
            let vectors = every(&rows, self.step, block * BLOCK_ROWS, ids.len())?;
            ids.copy_from_slice(&clusters.assign(&vectors)?.cluster);
            Ok::<(), Error>(())
        })?;
        let (old, new) = (places(&old.ids()), places(&clusters.ids()));
        let mut overlap = Overlap::new(old.len(), new.len());
        for (before, after) in self.ids.iter().zip(&now) {
            match (old.get(before), new.get(after)) {
                (Some(&before), Some(&after)) => overlap.add(before, after, 1),
                _ => return Err(Error::internal("a stage labelled a row with a cluster that it does not have")),
            }
        }
        Ok(Some(Ok(overlap)))
    }
}

/// The index of each id.
fn places(ids: &[i32]) -> std::collections::HashMap<i32, usize> {
    ids.iter().enumerate().map(|(index, id)| (*id, index)).collect()
}

/// `count` of every `step`th row, from the one with the number `first` among them.
fn every<T: Copy + Default>(rows: &dyn Rows<T>, step: usize, first: usize, count: usize) -> Result<Vec<T>> {
    let dim = rows.dim();
    let mut values = vec![T::default(); count * dim];
    match step {
        1 => rows.read(first..first + count, &mut values)?,
        _ => {
            for (place, out) in values.chunks_exact_mut(dim.max(1)).enumerate() {
                let row = (first + place) * step;
                rows.read(row..row + 1, out)?;
            }
        }
    }
    Ok(values)
}

/// The centroids of two models in one space, if there is one: they make the same vectors of a row, or cluster the features.
struct Centroids {
    dim: usize,
    old: Vec<f64>,
    new: Vec<f64>,
}

impl Centroids {
    fn of(old: &Model, new: &Model) -> Option<Self> {
        let maps = |model: &Model| {
            let maps = model.stages().iter().filter(|stage| stage.vector_map().is_some());
            maps.map(|stage| (stage.kind(), stage.save())).collect::<Vec<_>>()
        };
        let moved_alone = |model: &Model| {
            let mut maps = model.stages().iter().filter_map(|stage| stage.vector_map());
            maps.next().is_none_or(|map| map.as_origin().is_some()) && maps.next().is_none()
        };
        if !(moved_alone(old) && moved_alone(new) || maps(old) == maps(new)) {
            return None;
        }
        let (before, after) = (old.clusters()?, new.clusters()?);
        let centroids = |model: &Model, centroids: Option<Vec<f32>>| Some(model.in_source_units(&centroids?));
        (before.dim() == after.dim()).then_some(())?;
        Some(Self {
            dim: before.dim(),
            old: centroids(old, before.centroids())?,
            new: centroids(new, after.centroids())?,
        })
    }

    fn places(&self) -> Places<'_> {
        Places { dim: self.dim, old: &self.old, new: &self.new }
    }
}

/// Whether `model` is the `earlier` one over again, but for the ids of its clusters.
fn is_again(earlier: &Model, model: &Model) -> Result<bool> {
    let unnamed = earlier.stages().iter().map(|stage| match stage.clusters() {
        Some(clusters) => {
            let indices = Identities::first(clusters.k());
            Ok(clusters.with_ids(indices.ids())?.unwrap_or_else(|| Arc::clone(stage)))
        }
        None => Ok(Arc::clone(stage)),
    });
    let unnamed = Model::new(earlier.manifest().clone(), unnamed.collect::<Result<_>>()?)?;
    Ok(unnamed.hash() == model.hash())
}

/// What came of the matching.
struct Matched {
    old: Identities,
    new: Identities,
    matching: Matching,
    overlap: Overlap,
    centroids: Option<Centroids>,
}

impl Matched {
    /// `model`'s clusters among those of an `earlier` one, by rows that they have in `common`.
    fn by(history: &History, earlier: &Model, model: &Model, overlap: Overlap) -> Result<Self> {
        let old =
            Identities::new(earlier.clusters().map(|clusters| clusters.ids()).unwrap_or_default(), history.next_id())?;
        let centroids = Centroids::of(earlier, model);
        let matching = match is_again(earlier, model)? {
            // Clusters without rows, too.
            true => Matching::same(old.ids().len()),
            false => match_clusters(&overlap, centroids.as_ref().map(Centroids::places).as_ref()),
        };
        Ok(Self { new: old.after(&matching)?, old, matching, overlap, centroids })
    }

    /// `k` clusters that are all new.
    fn nothing(history: &History, k: usize) -> Result<Self> {
        let old = Identities::new(history.newest.iter().copied().collect(), history.next_id())?;
        let (matching, overlap) = (Matching::none(k), Overlap::new(old.ids().len(), k));
        Ok(Self { new: old.after(&matching)?, old, matching, overlap, centroids: None })
    }

    fn changes(&self) -> Vec<Change> {
        let places = self.centroids.as_ref().map(Centroids::places);
        changes(&self.old, &self.new, &self.matching, &self.overlap, places.as_ref())
    }

    /// In one line, and as figures.
    fn report(&self, why: Option<&str>) -> (String, Map<String, serde_json::Value>) {
        let pairs = || self.matching.old_of().iter().enumerate().filter_map(|(new, old)| Some(((*old)?, new)));
        let ids = |wanted: &[i32], but: &[i32]| -> Vec<i32> {
            let mut ids: Vec<i32> = wanted.iter().filter(|id| !but.contains(id)).copied().collect();
            ids.sort_unstable();
            ids
        };
        let (born, died) = (ids(self.new.ids(), self.old.ids()), ids(self.old.ids(), self.new.ids()));
        let (rows, kept) = (self.overlap.rows(), pairs().count());
        let kept_rows: u64 = pairs().map(|(old, new)| self.overlap.common(old, new)).sum();
        let matched_rows: u64 = pairs().map(|(old, _)| self.overlap.of_old()[old]).sum();
        let of = self.new.ids().len();
        let mut said = match why {
            Some(why) => format!("all {of} clusters are new: {why}"),
            None => format!("{kept} of {of} clusters keep their ids"),
        };
        if why.is_none() && rows > 0 {
            said += &format!(", with {:.1} % of {rows} rows", 100.0 * kept_rows as f64 / rows as f64);
        }
        let listed = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
        for (what, ids) in [("born", &born), ("died", &died)] {
            if !ids.is_empty() {
                said += &format!("; {what}: {}", listed(ids));
            }
        }
        let figures = [
            ("kept", json!(kept)),
            ("born", json!(born)),
            ("died", json!(died)),
            ("rows", json!(rows)),
            ("matched_rows", json!(matched_rows)),
            ("kept_rows", json!(kept_rows)),
        ];
        (said, figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl Execution<'_> {
    /// What is known of the table's clusters; `None` if the run finds none, or is to number its own from 0.
    pub async fn earlier(&self) -> Result<Option<Earlier>> {
        let plan = &self.pipeline.plan;
        if !plan.sink.stable_ids || (self.pipeline.is_as_planned() && plan.clusters().is_none()) {
            return Ok(None);
        }
        let mut history = self.writer.history().await?;
        let Some(hash) = history.model.clone() else {
            return Ok(Some(Earlier { history, model: Err("the table has none".into()) }));
        };
        let model = match self.load(&hash).await {
            Ok(model) => self.takes_these_rows(model),
            // The disk or the network: the run would end there, too.
            Err(e) if e.kind() != Kind::Model => return Err(e),
            Err(e) => Err(e.to_string()),
        };
        if let Some(clusters) = model.as_ref().ok().and_then(|model| model.clusters()) {
            history.ids.extend(clusters.ids());
        }
        Ok(Some(Earlier { history, model: model.map(Arc::new) }))
    }

    async fn load(&self, hash: &str) -> Result<Model> {
        let place = self.sink.join(&format!("models/{}", hash.get(..16).unwrap_or(hash)))?;
        let registry = self.pipeline.registry.clone().on(Arc::clone(&self.device));
        let model = Model::load_with(&place, &registry).await?;
        match model.hash().as_str() == hash {
            true => Ok(model),
            false => Err(Error::model(format!("the model at {place} is {}, the table's is {hash}", model.hash()))),
        }
    }

    /// The table's newest model, if it can label the rows of this run.
    fn takes_these_rows(&self, model: Model) -> std::result::Result<Model, String> {
        if model.clusters().is_none() {
            return Err("the table's newest model makes no clusters".into());
        }
        model.check_width(self.source.dim).map_err(|e| e.to_string())?;
        if self.pipeline.plan.missing == Missing::Mean && !model.imputes() {
            return Err("the table's newest model takes no rows with missing values".into());
        }
        let (old, new) = (&model.manifest().input.names, &self.source.feature_names);
        match old.iter().zip(new).find(|(old, new)| old != new) {
            Some((old, new)) => {
                Err(format!("the table's newest model takes feature {old:?} where these rows have {new:?}"))
            }
            None => Ok(model),
        }
    }

    /// The model with the ids that its clusters keep from `earlier` ones, and what became of those.
    pub fn identify(&self, learned: &mut Learned, earlier: Option<Earlier>) -> Result<(Model, Lineage)> {
        let model = self.model(learned)?;
        let k = model.clusters().map(|clusters| clusters.k());
        let Some(k) = k else { return Ok((model, Lineage::Keep)) };
        let Some(Earlier { history, model: before }) = earlier else { return Ok((model, Lineage::Forget)) };
        if history.ids.is_empty() && before.is_err() {
            let births = Identities::first(k).ids().iter().copied().map(Change::born).collect();
            return Ok((model, Lineage::Add(births)));
        }
        if before.is_err() && history.model.as_deref() == Some(model.hash().as_str()) {
            // The model is the same as that of the table, whose files are damaged and will be written anew.
            return Ok((model, Lineage::Add(Vec::new())));
        }
        let began = Instant::now();
        let (matched, why) = match (before, learned.common.take()) {
            (Ok(before), Some(Ok(overlap))) => (Matched::by(&history, &before, &model, overlap)?, None),
            (Ok(_), Some(Err(why))) => (Matched::nothing(&history, k)?, Some(why)),
            (Ok(_), None) => (Matched::nothing(&history, k)?, Some("nothing was learned".into())),
            (Err(why), _) => (Matched::nothing(&history, k)?, Some(why)),
        };
        let Some(model) = self.named(learned, model, matched.new.ids())? else {
            let message = "the stage that labels rows cannot be given ids of its clusters: they are numbered from 0";
            self.options.control.emit(Event::Warning { message: message.into() });
            return Ok((self.model(learned)?, Lineage::Keep));
        };
        let (summary, figures) = matched.report(why.as_deref());
        let seconds = learned.common_seconds + began.elapsed().as_secs_f64();
        self.options.control.emit(Event::Finished { stage: MATCHED.into(), seconds, summary: summary.clone() });
        learned.reports.push(StageReport { stage: MATCHED.into(), seconds, summary, figures });
        // The same model over again changes nothing.
        let changes = match history.model.as_deref() == Some(model.hash().as_str()) {
            true => Vec::new(),
            false => matched.changes(),
        };
        Ok((model, Lineage::Add(changes)))
    }

    /// `model` with these ids of its clusters; `None` if its clusters cannot be given any.
    fn named(&self, learned: &mut Learned, model: Model, ids: &[i32]) -> Result<Option<Model>> {
        let found = learned.transforms.iter().enumerate().find_map(|(at, stage)| Some((at, stage.clusters()?)));
        let Some((at, clusters)) = found else { return Ok(None) };
        if clusters.ids() == ids {
            return Ok(Some(model));
        }
        let Some(named) = clusters.with_ids(ids)? else { return Ok(None) };
        learned.transforms[at] = named;
        self.model(learned).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};

    use super::*;
    use crate::device::{Cpu, Device};
    use crate::kernel::Dense;
    use crate::kmeans::KMeans;
    use crate::label::Label;
    use crate::model::{Manifest, ModelInput};
    use crate::replay::RowStoreBuilder;
    use crate::scale::{Scale, ScaleMethod};
    use crate::stage::{Clusters, FEATURES};

    fn label(centroids: &[f32], ids: &[i32]) -> Arc<dyn Transform> {
        let k = centroids.len();
        let found = KMeans {
            centroids: centroids.to_vec(),
            k,
            dim: 1,
            inertia: 0.0,
            iterations: 1,
            converged: true,
            sizes: vec![1; k],
            mean_distance: vec![0.0; k],
        };
        let label = Label::new(&found, FEATURES, &Cpu::default()).unwrap();
        label.with_ids(ids).unwrap().unwrap()
    }

    fn model(stages: Vec<Arc<dyn Transform>>) -> Model {
        Model::new(Manifest { input: ModelInput::bare(1), ..Manifest::default() }, stages).unwrap()
    }

    fn collected(values: &[f32]) -> Collected {
        let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut rows = RowStoreBuilder::new("rows", 1, &memory);
        rows.push(values).unwrap();
        let rows = Stored::Single(rows.finish().unwrap());
        Collected { rows, classes: None, distinct: 0, digest: String::new() }
    }

    #[test]
    fn of_many_rows_every_second_or_third_is_labelled_by_both() {
        let values: Vec<f32> = (0..1501).map(|i| (i % 10) as f32).collect();
        let rows = collected(&values);
        let (earlier, now) = (model(vec![label(&[0.0, 9.0], &[7, 3])]), [label(&[9.0, 1.0, 4.0], &[0, 1, 2])]);
        for most in [5000, 1501, 700, 10] {
            let step = 1501_usize.div_ceil(most);
            let mut expected = Overlap::new(2, 3);
            for value in values.iter().step_by(step) {
                let new = [(9.0 - value).abs(), (1.0 - value).abs(), (4.0 - value).abs()];
                let nearest = (0..3).fold(0, |best, i| if new[i] < new[best] { i } else { best });
                expected.add(usize::from(*value > 4.5), nearest, 1);
            }
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let before = Before::of_at_most(most, &earlier, &rows, &pool).unwrap().unwrap();
                let found = before.common(&earlier, &Dense::new(&values, 1), &now, 0, &pool).unwrap().unwrap();
                assert_eq!(found, Ok(expected.clone()), "{most} rows, {threads} threads");
            }
        }
    }

    #[test]
    fn rows_that_the_earlier_model_cannot_take_say_why() {
        let pool = Pool::new(1);
        let earlier = model(vec![label(&[0.0, 9.0], &[0, 1])]);
        let why = Before::by(&earlier, &collected(&[1.0, f32::MAX]), &pool).unwrap().err().unwrap();
        assert!(why.contains("have no distance"), "{why}");
    }

    #[test]
    fn centroids_are_compared_in_one_space_alone() {
        let scale = |values: &[f32]| -> Arc<dyn Transform> {
            Arc::new(Scale::learn(&Dense::new(values, 1), ScaleMethod::MinMax, Cpu::default().pool()).unwrap())
        };
        let of = |old: Vec<Arc<dyn Transform>>, new: Vec<Arc<dyn Transform>>| Centroids::of(&model(old), &model(new));
        let plain = of(vec![label(&[1.0, 2.0], &[0, 1])], vec![label(&[3.0], &[0])]).unwrap();
        assert_eq!((plain.dim, plain.old, plain.new), (1, vec![1.0, 2.0], vec![3.0]));
        let labelled = || label(&[1.0, 2.0], &[0, 1]);
        let same = of(vec![scale(&[0.0, 4.0]), labelled()], vec![scale(&[4.0, 0.0]), labelled()]);
        assert!(same.is_some(), "the same scale");
        assert!(of(vec![scale(&[0.0, 4.0]), labelled()], vec![scale(&[0.0, 5.0]), labelled()]).is_none());
        assert!(of(vec![scale(&[0.0, 4.0]), labelled()], vec![labelled()]).is_none());
    }

    #[test]
    fn a_model_over_again_is_known_whatever_its_clusters_are_called() {
        let now = model(vec![label(&[1.0, 2.0], &[0, 1])]);
        assert!(is_again(&model(vec![label(&[1.0, 2.0], &[9, 4])]), &now).unwrap());
        assert!(!is_again(&model(vec![label(&[2.0, 1.0], &[0, 1])]), &now).unwrap());
    }
}
