//! The stage that learns clusters by k-means, in rows as they are or normalised, or beginning in the layout that they were
//! taught.

use std::sync::Arc;

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Label;
use super::cut::Links;
use super::turns::in_turns;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::{Dense, Rows, fold};
use crate::kmeans::{self, KMeans, KMeansSpec};
use crate::manifold::Subset;
use crate::normalize::{Normalize, Normalized, Normalizer};
use crate::seed::Seed;
use crate::stage::{Coordinates, Fit, FitContext, Fitted, Training};

/// What clusters are looked for in first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// The vectors.
    #[default]
    Vectors,
    /// The coordinates of the manifold stage, which the vectors were taught; then k-means goes on in the vectors. The
    /// layout keeps groups of the training rows farther apart than the network, which must place rows it has not seen.
    Layout,
}

/// Small clusters that are merged to groups, for each group: one attempt each.
const SMALL_CLUSTERS: [usize; 3] = [5, 10, 20];
/// Rows of a small cluster at least, on average.
const ROWS_OF_SMALL: usize = 10;

/// Learns clusters of the vectors of one column.
#[derive(Debug, Clone)]
pub struct KMeansStage {
    spec: KMeansSpec,
    normalize: Normalize,
    begin: Begin,
    column: String,
}

impl KMeansStage {
    /// Clusters of `column`, [`EMBEDDING`](crate::stage::EMBEDDING) or [`FEATURES`](crate::stage::FEATURES), as it is.
    pub fn new(spec: KMeansSpec, column: impl Into<String>) -> Self {
        Self { spec, normalize: Normalize::None, begin: Begin::Vectors, column: column.into() }
    }

    /// The same, of vectors that are normalised first.
    pub fn normalized(self, normalize: Normalize) -> Self {
        Self { normalize, ..self }
    }

    /// The same, looking for clusters in `begin` first; in a layout only where there is one. Of several clusterings of the
    /// layout the one is gone on with that cuts the fewest links between neighbouring rows: k-means's own, and some that
    /// are merged of many small clusters.
    pub fn begin(self, begin: Begin) -> Self {
        Self { begin, ..self }
    }
}

impl KMeansStage {
    /// The label of each row, and the centroids (`k x dim`) in the units of the rows.
    pub(crate) fn clusters(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<(Vec<u32>, Vec<f32>)> {
        let (normalizer, found) = self.find(data, cx)?;
        let labels = labels(data.rows, normalizer.as_ref(), &found, cx.device)?;
        let centroids = match normalizer {
            Some(normalizer) => normalizer.invert(&found.centroids),
            None => found.centroids,
        };
        Ok((labels, centroids))
    }

    /// The clusters, and the normalisation in which they were found.
    fn find(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<(Option<Normalizer>, KMeans)> {
        match data.coordinates.filter(|_| self.begin == Begin::Layout) {
            Some(coordinates) => self.find_from(data.rows, coordinates, cx),
            None => self.find_in(data.rows, cx),
        }
    }

    /// Begins with the clusters of the rows' coordinates.
    fn find_from(
        &self,
        rows: &dyn Rows,
        coordinates: &Coordinates,
        cx: &FitContext<'_>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let layout = Dense::new(&coordinates.values, coordinates.dim);
        let (k, labels) = self.groups(&layout, cx)?;
        self.refine(rows, &Subset::of(rows, coordinates.rows.clone()), &labels, k, cx)
    }

    /// The groups of a layout: of several clusterings, the one that cuts the fewest links between neighbouring rows. Some are
    /// k-means's own, some are made of many small clusters, merged by these links.
    fn groups(&self, layout: &dyn Rows, cx: &FitContext<'_>) -> Result<(usize, Vec<u32>)> {
        let links = Links::of(layout, cx)?;
        let mut best: Option<(f64, usize, Vec<u32>)> = None;
        let mut consider = |normalizer: Option<Normalizer>, found: KMeans| -> Result<()> {
            let labels = labels(layout, normalizer.as_ref(), &found, cx.device)?;
            let cut = links.cut(&labels, found.k);
            if best.as_ref().is_none_or(|(least, ..)| cut < *least) {
                best = Some((cut, found.k, labels));
            }
            Ok(())
        };
        let normalizer = Normalizer::learn(self.normalize, layout, cx.device.pool())?;
        for seed in seeds(cx).take(self.spec.n_init) {
            let (normalizer, found) = self.once(layout, normalizer.clone(), seed, cx)?;
            consider(normalizer, found)?;
        }
        for (parts, seed) in SMALL_CLUSTERS.into_iter().zip(seeds(cx)) {
            let many = parts.saturating_mul(self.spec.k).min(layout.len() / ROWS_OF_SMALL);
            if many <= self.spec.k {
                continue;
            }
            let spec = KMeansSpec { n_init: 1, max_iterations: 30, ..KMeansSpec::new(many) };
            let small = kmeans::fit(layout, &spec, seed, cx.device, cx.control)?;
            let labels = kmeans::labels(layout, &small.centroids, cx.device)?;
            let went = links.merged(&labels, small.k, self.spec.k);
            let labels: Vec<u32> = labels.into_iter().map(|label| went[label as usize]).collect();
            let (normalizer, found) = self.refine(layout, layout, &labels, self.spec.k, cx)?;
            consider(normalizer, found)?;
        }
        let (_, k, labels) = best.ok_or_else(|| Error::internal("k-means without a start"))?;
        Ok((k, labels))
    }

    /// One start of k-means in `rows` as `normalizer` leaves them.
    fn once(
        &self,
        rows: &dyn Rows,
        normalizer: Option<Normalizer>,
        seed: Seed,
        cx: &FitContext<'_>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let once = KMeansSpec { n_init: 1, ..self.spec.clone() };
        self.search(rows, normalizer, cx, |rows, _| kmeans::fit(rows, &once, seed, cx.device, cx.control))
    }

    /// What `look` finds in `rows` as `normalizer` leaves them, and then its turns if it takes any.
    fn search(
        &self,
        rows: &dyn Rows,
        normalizer: Option<Normalizer>,
        cx: &FitContext<'_>,
        look: impl FnOnce(&dyn Rows, Option<&Normalizer>) -> Result<KMeans>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let Some(normalizer) = normalizer else { return Ok((None, look(rows, None)?)) };
        let found = look(&Normalized::new(rows, &normalizer), Some(&normalizer))?;
        let (normalizer, found) = match self.normalize {
            Normalize::Within => in_turns(rows, &self.spec, normalizer, found, cx)?,
            Normalize::None | Normalize::Standard | Normalize::Whiten => (normalizer, found),
        };
        Ok((Some(normalizer), found))
    }

    /// The clusters of `rows` that k-means comes to from the groups of some of them, `placed`, with these labels below `k`.
    fn refine(
        &self,
        rows: &dyn Rows,
        placed: &dyn Rows,
        labels: &[u32],
        k: usize,
        cx: &FitContext<'_>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let (device, pool) = (cx.device, cx.device.pool());
        let centroids = means(placed, labels, k, device)?;
        let normalizer = match self.normalize {
            Normalize::Within => Some(Normalizer::within(placed, labels, &centroids, pool)?),
            how => Normalizer::learn(how, rows, pool)?,
        };
        self.search(rows, normalizer, cx, |rows, normalizer| {
            let initial = match normalizer {
                Some(normalizer) => {
                    let mut initial = vec![0.0; centroids.len()];
                    normalizer.apply(&centroids, &mut initial);
                    initial
                }
                None => centroids,
            };
            kmeans::fit_from(rows, &self.spec, initial, device, cx.control)
        })
    }

    /// Bytes that finding the clusters of `rows` rows of `dim` values needs at most.
    fn bytes(&self, rows: usize, dim: usize) -> u128 {
        let sums = 8 * (fold::parts(rows, fold::MAX_PARTS).len() as u128 + 4);
        let products = match self.normalize {
            Normalize::Whiten | Normalize::Within => (dim as u128).pow(2) * sums,
            Normalize::None | Normalize::Standard => 0,
        };
        if self.begin == Begin::Vectors {
            return kmeans::bytes(rows, self.spec.k, dim) + products;
        }
        let means = self.spec.k.min(rows) as u128 * (dim as u128 + 1) * sums;
        let most = SMALL_CLUSTERS.into_iter().max().unwrap_or(1);
        let small = most.saturating_mul(self.spec.k).min(rows / ROWS_OF_SMALL).max(self.spec.k);
        kmeans::bytes(rows, small, dim) + products + means + Links::bytes(rows, small)
    }

    /// The clusters of `rows` by themselves.
    fn find_in(&self, rows: &dyn Rows, cx: &FitContext<'_>) -> Result<(Option<Normalizer>, KMeans)> {
        let normalizer = Normalizer::learn(self.normalize, rows, cx.device.pool())?;
        match normalizer {
            Some(standardised) if self.normalize == Normalize::Within => self.find_within(rows, &standardised, cx),
            normalizer => self
                .search(rows, normalizer, cx, |rows, _| kmeans::fit(rows, &self.spec, cx.seed, cx.device, cx.control)),
        }
    }

    /// The clusters with the least scatter within them. Each start takes its turns: which is best in standardised values,
    /// with which they begin, says little of which is best in the end.
    fn find_within(
        &self,
        rows: &dyn Rows,
        standardised: &Normalizer,
        cx: &FitContext<'_>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let mut best: Option<(f64, (Option<Normalizer>, KMeans))> = None;
        for seed in seeds(cx).take(self.spec.n_init) {
            let found = self.once(rows, Some(standardised.clone()), seed, cx)?;
            let scatter = found.0.as_ref().map_or(f64::INFINITY, Normalizer::log_scatter);
            if best.as_ref().is_none_or(|(least, _)| scatter < *least) {
                best = Some((scatter, found));
            }
        }
        best.map(|(_, found)| found).ok_or_else(|| Error::internal("k-means without a start"))
    }
}

/// The seeds of starts that are compared by something else than their inertia.
fn seeds(cx: &FitContext<'_>) -> impl Iterator<Item = Seed> {
    (0..).map(|start| Seed(cx.seed.stream("within", start).random()))
}

/// The cluster of each row that `normalizer` brings to where the clusters are.
fn labels(rows: &dyn Rows, normalizer: Option<&Normalizer>, found: &KMeans, device: &dyn Device) -> Result<Vec<u32>> {
    match normalizer {
        Some(normalizer) => kmeans::labels(&Normalized::new(rows, normalizer), &found.centroids, device),
        None => kmeans::labels(rows, &found.centroids, device),
    }
}

/// The means of the rows of each label below `k`, `k x dim`.
fn means(rows: &dyn Rows, labels: &[u32], k: usize, device: &dyn Device) -> Result<Vec<f32>> {
    let (dim, width) = (rows.dim(), rows.dim() + 1);
    let sums = fold::sums(rows, k * width, device.pool(), |sums, number, row| {
        let sums = &mut sums[labels[number] as usize * width..][..width];
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        sums[dim] += 1.0;
    })?;
    let mean = |sums: &[f64]| sums[..dim].iter().map(|sum| (sum / sums[dim].max(1.0)) as f32).collect::<Vec<f32>>();
    Ok(sums.chunks_exact(width).flat_map(mean).collect())
}

impl Fit for KMeansStage {
    fn kind(&self) -> &'static str {
        "kmeans"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let what = format!("k-means with {} clusters of {} values", self.spec.k, data.rows.dim());
        cx.room(&what, self.bytes(data.rows.len(), data.rows.dim()))?;
        cx.control.emit(Event::Started { stage: "kmeans".into(), unit: "iterations", total: None });
        let (normalizer, found) = self.find(data, cx)?;
        let how = if found.converged { "after" } else { "not converged after" };
        let summary = format!(
            "{} clusters of {} rows, inertia {:.6e}, {how} {} iterations",
            found.k,
            data.rows.len(),
            found.inertia,
            found.iterations
        );
        let figures = [
            ("inertia", json!(found.inertia)),
            ("iterations", json!(found.iterations)),
            ("converged", json!(found.converged)),
            ("sizes", json!(found.sizes)),
        ];
        Ok(Fitted {
            transform: Arc::new(Label::new(&found, self.column.clone(), cx.device)?.normalized(normalizer)),
            summary,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Cpu;
    use crate::event::Control;
    use crate::seed::Seed;
    use crate::stage::{EMBEDDING, NoCheckpoint};

    /// Two dimensions: a long band of 600 rows, and two groups of 200 close to each other at its end.
    fn rows() -> Vec<f32> {
        let spread = |i: usize, by: usize| (i * by % 1009) as f32 / 1009.0 - 0.5;
        let row = |i: usize| match i {
            0..600 => [30.0 * spread(i, 104_729), spread(i, 7919)],
            600..800 => [40.0 + spread(i, 104_729), 1.0 + spread(i, 7919)],
            _ => [40.0 + spread(i, 104_729), -1.0 + spread(i, 7919)],
        };
        (0..1000).flat_map(row).collect()
    }

    #[test]
    fn groups_that_nearly_touch_are_told_apart_and_a_long_one_is_not_cut() {
        let values = rows();
        let rows = Dense::new(&values, 2);
        let coordinates = Coordinates { dim: 2, rows: (0..1000).collect(), values: values.clone() };
        let find = |begin: Begin, threads: usize| {
            let (device, control) = (Cpu::new(threads), Control::default());
            let cx = FitContext {
                seed: Seed(3),
                device: &device,
                control: &control,
                checkpoint: &NoCheckpoint,
                memory: u64::MAX,
            };
            let stage = KMeansStage::new(KMeansSpec { n_init: 3, ..KMeansSpec::new(3) }, EMBEDDING);
            let stage = stage.normalized(Normalize::Within).begin(begin);
            stage.clusters(&Training { coordinates: Some(&coordinates), ..Training::new(&rows) }, &cx).unwrap()
        };
        let (labels, centroids) = find(Begin::Layout, 2);
        let of = |range: std::ops::Range<usize>| -> std::collections::BTreeSet<u32> {
            labels[range].iter().copied().collect()
        };
        let groups = [of(0..600), of(600..800), of(800..1000)];
        assert!(groups.iter().all(|clusters| clusters.len() == 1) && groups[1] != groups[2], "{groups:?}");
        // In the rows' own units.
        let long = *groups[0].first().unwrap() as usize;
        assert!(centroids[2 * long].abs() < 0.5, "{centroids:?}");
        assert_eq!(find(Begin::Layout, 1), (labels, centroids));
    }
}
