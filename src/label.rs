//! The `kmeans` stage, and the labels that it gives: cluster, distance and margin.

mod cut;
mod turns;

use std::sync::Arc;

use rand::Rng;
use serde_json::json;

use crate::device::{Assign, Device};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::{Dense, Rows, fold};
use crate::kmeans::{self, KMeans, KMeansSpec};
use crate::manifold::Subset;
use crate::normalize::{Normalize, Normalized, Normalizer};
use crate::seed::Seed;
use crate::stage::{
    Action, Artifact, Assignments, Clusters, Coordinates, Fit, FitContext, Fitted, Tensor, Training, Transform,
};
use cut::Links;
use turns::in_turns;

/// Small clusters that are merged to groups, for each group: one attempt each.
const SMALL_CLUSTERS: [usize; 3] = [5, 10, 20];
/// Rows of a small cluster at least, on average.
const ROWS_OF_SMALL: usize = 10;

/// Learns clusters of the vectors of one column.
#[derive(Debug, Clone)]
pub struct KMeansStage {
    spec: KMeansSpec,
    normalize: Normalize,
    from_layout: bool,
    column: String,
}

impl KMeansStage {
    /// Clusters of `column`, [`EMBEDDING`](crate::stage::EMBEDDING) or [`FEATURES`](crate::stage::FEATURES), as it is.
    pub fn new(spec: KMeansSpec, column: impl Into<String>) -> Self {
        Self { spec, normalize: Normalize::None, from_layout: false, column: column.into() }
    }

    /// The same, of vectors that are normalised first.
    pub fn normalized(self, normalize: Normalize) -> Self {
        Self { normalize, ..self }
    }

    /// The same, beginning with the clusters of the layout that the vectors were taught, where there is one. The layout
    /// of the training rows has gaps between groups that the network, which must place rows it has not seen, fills: there
    /// k-means finds the groups more surely.
    pub fn from_layout(self, from_layout: bool) -> Self {
        Self { from_layout, ..self }
    }
}

impl KMeansStage {
    /// The label of each row, and the centroids (`k x dim`) in the units of the rows.
    pub(crate) fn clusters(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<(Vec<u32>, Vec<f32>)> {
        let (normalizer, found) = self.find(data, cx)?;
        let labels = labels(data.rows, normalizer.as_ref(), &found, cx.device)?;
        Ok((labels, normalizer.map_or(found.centroids.clone(), |normalizer| normalizer.invert(&found.centroids))))
    }

    /// The clusters, and the normalisation in which they were found.
    fn find(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<(Option<Normalizer>, KMeans)> {
        match data.coordinates.filter(|_| self.from_layout) {
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
        let seeds = || (0_u64..).map(|start| Seed(cx.seed.stream("within", start).random()));
        let mut best: Option<(f64, usize, Vec<u32>)> = None;
        let mut consider = |normalizer: Option<Normalizer>, found: KMeans| -> Result<()> {
            let labels = labels(layout, normalizer.as_ref(), &found, cx.device)?;
            let cut = links.cut(&labels, found.k);
            if best.as_ref().is_none_or(|(least, ..)| cut < *least) {
                best = Some((cut, found.k, labels));
            }
            Ok(())
        };
        let plain = match self.normalize {
            Normalize::Within => Normalizer::learn(Normalize::Standard, layout, cx.device.pool())?,
            how => Normalizer::learn(how, layout, cx.device.pool())?,
        };
        for seed in seeds().take(self.spec.starts) {
            let (normalizer, found) = self.once(layout, plain.clone(), seed, cx)?;
            consider(normalizer, found)?;
        }
        for (parts, seed) in SMALL_CLUSTERS.into_iter().zip(seeds()) {
            let many = parts.saturating_mul(self.spec.k).min(layout.len() / ROWS_OF_SMALL);
            if many <= self.spec.k {
                continue;
            }
            let spec = KMeansSpec { starts: 1, max_iterations: 30, ..KMeansSpec::new(many) };
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

    /// One start of k-means in `rows` as `normalizer` leaves them, with its turns if it takes any.
    fn once(
        &self,
        rows: &dyn Rows,
        normalizer: Option<Normalizer>,
        seed: Seed,
        cx: &FitContext<'_>,
    ) -> Result<(Option<Normalizer>, KMeans)> {
        let once = KMeansSpec { starts: 1, ..self.spec.clone() };
        let Some(normalizer) = normalizer else {
            return Ok((None, kmeans::fit(rows, &once, seed, cx.device, cx.control)?));
        };
        let found = kmeans::fit(&Normalized::new(rows, &normalizer), &once, seed, cx.device, cx.control)?;
        let (normalizer, found) = match self.normalize {
            Normalize::Within => in_turns(rows, &once, normalizer, found, cx)?,
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
        let Some(normalizer) = normalizer else {
            return Ok((None, kmeans::fit_from(rows, &self.spec, centroids, device, cx.control)?));
        };
        let mut initial = vec![0.0; centroids.len()];
        normalizer.apply(&centroids, &mut initial);
        let found = kmeans::fit_from(&Normalized::new(rows, &normalizer), &self.spec, initial, device, cx.control)?;
        let (normalizer, found) = match self.normalize {
            Normalize::Within => in_turns(rows, &self.spec, normalizer, found, cx)?,
            Normalize::None | Normalize::Standard | Normalize::Whiten => (normalizer, found),
        };
        Ok((Some(normalizer), found))
    }

    /// Bytes that finding the clusters of `rows` rows of `dim` values needs at most.
    fn bytes(&self, rows: usize, dim: usize) -> u128 {
        let sums = 8 * (fold::parts(rows, fold::MAX_PARTS).len() as u128 + 4);
        let products = match self.normalize {
            Normalize::Whiten | Normalize::Within => (dim as u128).pow(2) * sums,
            Normalize::None | Normalize::Standard => 0,
        };
        if !self.from_layout {
            return kmeans::bytes(rows, self.spec.k, dim) + products;
        }
        let means = self.spec.k.min(rows) as u128 * (dim as u128 + 1) * sums;
        let most = SMALL_CLUSTERS.into_iter().max().unwrap_or(1);
        let small = most.saturating_mul(self.spec.k).min(rows / ROWS_OF_SMALL).max(self.spec.k);
        kmeans::bytes(rows, small, dim) + products + means + Links::bytes(rows, small)
    }

    /// The clusters of `rows` by themselves.
    fn find_in(&self, rows: &dyn Rows, cx: &FitContext<'_>) -> Result<(Option<Normalizer>, KMeans)> {
        let Some(normalizer) = Normalizer::learn(self.normalize, rows, cx.device.pool())? else {
            return Ok((None, kmeans::fit(rows, &self.spec, cx.seed, cx.device, cx.control)?));
        };
        let (normalizer, found) = match self.normalize {
            Normalize::Within => self.find_within(rows, normalizer, cx)?,
            Normalize::None | Normalize::Standard | Normalize::Whiten => {
                let normalized = Normalized::new(rows, &normalizer);
                let found = kmeans::fit(&normalized, &self.spec, cx.seed, cx.device, cx.control)?;
                (normalizer, found)
            }
        };
        Ok((Some(normalizer), found))
    }

    /// The clusters with the least scatter within them. Each start takes its turns: which is best in standardised values,
    /// with which they begin, says little of which is best in the end.
    fn find_within(
        &self,
        rows: &dyn Rows,
        standardised: Normalizer,
        cx: &FitContext<'_>,
    ) -> Result<(Normalizer, KMeans)> {
        let mut best: Option<(Normalizer, KMeans)> = None;
        for start in 0..self.spec.starts {
            let seed = Seed(cx.seed.stream("within", start as u64).random());
            let (Some(normalizer), found) = self.once(rows, Some(standardised.clone()), seed, cx)? else { continue };
            if best.as_ref().is_none_or(|(least, _)| normalizer.log_scatter() < least.log_scatter()) {
                best = Some((normalizer, found));
            }
        }
        best.ok_or_else(|| Error::internal("k-means without a start"))
    }
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

/// The fitted stage: appends to each row the number of its nearest centroid (`cluster`, Int32), the Euclidean distance to
/// it (`distance`, Float32) and by how much the second nearest is farther (`margin`, Float32; 0 where two are equally
/// near, infinite where there is only one cluster). Other columns stay as they are. Where vectors are normalised first,
/// both distances are those of the normalised vectors, in standard deviations.
#[derive(Debug, Clone)]
pub struct Label {
    column: String,
    dim: usize,
    normalizer: Option<Normalizer>,
    /// As vectors are after the normalisation.
    centroids: Vec<f32>,
    /// The same on their device.
    centers: Arc<dyn Assign>,
    sizes: Vec<u64>,
    mean_distance: Vec<f32>,
}

impl Label {
    /// The name under which it is saved.
    pub const KIND: &'static str = "label";

    /// The labels of what k-means found in `column`, to be given on `device`.
    ///
    /// # Errors
    /// Kind `Compute` where the device has no room.
    pub fn new(found: &KMeans, column: impl Into<String>, device: &dyn Device) -> Result<Self> {
        Ok(Self {
            column: column.into(),
            dim: found.dim,
            normalizer: None,
            centroids: found.centroids.clone(),
            centers: device.centroids(&found.centroids, found.dim)?,
            sizes: found.sizes.clone(),
            mean_distance: found.mean_distance.iter().map(|&d| d as f32).collect(),
        })
    }

    /// The same, for vectors that go through `normalizer` first, as those did in which the clusters were found.
    fn normalized(self, normalizer: Option<Normalizer>) -> Self {
        Self { normalizer, ..self }
    }

    /// The stage as it was saved, to label on `device`.
    ///
    /// # Errors
    /// Kind `Model` if a part is missing or does not fit; `Compute` where the device has no room.
    pub fn from_artifact(artifact: &Artifact, device: &dyn Device) -> Result<Self> {
        let bad = |what: String| Error::model(format!("stage label: {what}"));
        let setting =
            |name: &str| artifact.settings.get(name).ok_or_else(|| bad(format!("setting {name:?} is missing")));
        let tensor = |name: &str| artifact.tensors.get(name).ok_or_else(|| bad(format!("tensor {name:?} is missing")));
        let column = setting("column")?;
        let column = column.as_str().ok_or_else(|| bad(format!("column is {column}, expected a name")))?.to_owned();
        let centroids = tensor("centroids")?;
        let (k, dim) = match centroids.shape[..] {
            [k, dim] if k > 0 && dim > 0 && k < 1 << 24 && k * dim == centroids.values.len() => (k, dim),
            _ => return Err(bad(format!("centroids of shape {:?}, expected [k, dim]", centroids.shape))),
        };
        if let Some(i) = centroids.values.iter().position(|x| !x.is_finite()) {
            return Err(bad(format!("value {} of centroid {} is {}", i % dim, i / dim, centroids.values[i])));
        }
        let sizes: Vec<u64> = serde_json::from_value(setting("sizes")?.clone())
            .map_err(|e| bad("sizes, expected a list of whole numbers".into()).with_source(e))?;
        let mean_distance = tensor("mean_distance")?.values.clone();
        if sizes.len() != k || mean_distance.len() != k {
            let lengths = format!("{} sizes and {} mean distances", sizes.len(), mean_distance.len());
            return Err(bad(format!("{lengths} for {k} centroids")));
        }
        let centers = device.centroids(&centroids.values, dim)?;
        let normalizer = Normalizer::restore(artifact, dim).map_err(|e| bad(e.message().to_owned()))?;
        Ok(Self { column, dim, normalizer, centroids: centroids.values.clone(), centers, sizes, mean_distance })
    }
}

impl Clusters for Label {
    fn k(&self) -> usize {
        self.sizes.len()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn centroids(&self) -> Option<Vec<f32>> {
        Some(match &self.normalizer {
            Some(normalizer) => normalizer.invert(&self.centroids),
            None => self.centroids.clone(),
        })
    }

    /// The nearest centroid, the distance to it, and how much farther the second nearest is. `O(rows x k x dim)`.
    fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        let n = rows.len() / self.dim;
        assert_eq!(rows.len(), n * self.dim, "the last row is cut short");
        let (mut nearest, mut distance, mut margin) = (vec![0u32; n], vec![0.0; n], vec![0.0; n]);
        match &self.normalizer {
            Some(normalizer) => {
                let mut normalized = vec![0.0; rows.len()];
                normalizer.apply(rows, &mut normalized);
                self.centers.nearest_two(&normalized, &mut nearest, &mut distance, &mut margin)?;
            }
            None => self.centers.nearest_two(rows, &mut nearest, &mut distance, &mut margin)?,
        }
        for (distance, margin) in distance.iter_mut().zip(&mut margin) {
            *distance = distance.sqrt();
            *margin = margin.sqrt() - *distance;
        }
        Ok(Assignments { cluster: nearest.into_iter().map(|nearest| nearest as i32).collect(), distance, margin })
    }
}

impl Transform for Label {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Assign { column: &self.column, clusters: self }
    }

    fn save(&self) -> Artifact {
        let centroids = Tensor { shape: vec![self.k(), self.dim], values: self.centroids.clone() };
        let mean_distance = Tensor { shape: vec![self.k()], values: self.mean_distance.clone() };
        let mut artifact = Artifact {
            settings: [("column".to_owned(), json!(self.column)), ("sizes".to_owned(), json!(self.sizes))]
                .into_iter()
                .collect(),
            tensors: [("centroids".to_owned(), centroids), ("mean_distance".to_owned(), mean_distance)]
                .into_iter()
                .collect(),
        };
        if let Some(normalizer) = &self.normalizer {
            normalizer.save(&mut artifact);
        }
        artifact
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Int32Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::column;
    use crate::device::Cpu;
    use crate::event::Control;
    use crate::kernel::Dense;
    use crate::seed::Seed;
    use crate::stage::{Apply, EMBEDDING, NoCheckpoint};

    fn label(centroids: &[f32], dim: usize) -> Label {
        let k = centroids.len() / dim;
        let found = KMeans {
            centroids: centroids.to_vec(),
            k,
            dim,
            inertia: 0.0,
            iterations: 1,
            converged: true,
            sizes: vec![1; k],
            mean_distance: vec![0.25; k],
        };
        Label::new(&found, EMBEDDING, &Cpu::default()).unwrap()
    }

    fn batch(values: Vec<f32>, dim: usize) -> RecordBatch {
        let ids = Int32Array::from_iter_values(0..(values.len() / dim) as i32);
        let schema = Schema::new(vec![column::vector_field(EMBEDDING, dim), Field::new("id", DataType::Int32, false)]);
        let vectors = column::vector_array(values, dim).unwrap();
        RecordBatch::try_new(Arc::new(schema), vec![vectors, Arc::new(ids)]).unwrap()
    }

    fn floats<'a>(batch: &'a RecordBatch, name: &str) -> &'a [f32] {
        batch.column_by_name(name).unwrap().as_any().downcast_ref::<Float32Array>().unwrap().values()
    }

    /// Two groups of vectors that touch, wide across the gap between them, and a layout in which they lie apart.
    #[test]
    fn clusters_of_the_layout_are_gone_on_with() {
        let of = |i: usize| i % 2;
        let spread = |i: usize, by: usize| (i * by % 1009) as f32 / 1009.0 - 0.5;
        let vectors: Vec<f32> =
            (0..400).flat_map(|i| [of(i) as f32 * 0.9 + spread(i, 7919), 8.0 * spread(i, 104_729)]).collect();
        let rows: Vec<u32> = (0..400).filter(|row| row % 5 > 0).collect();
        let values = rows.iter().flat_map(|&row| [of(row as usize) as f32 * 9.0, spread(row as usize, 31)]).collect();
        let coordinates = Coordinates { dim: 2, rows, values };
        let (all, device, control) = (Dense::new(&vectors, 2), Cpu::new(1), Control::default());
        let cx = FitContext {
            seed: Seed(3),
            device: &device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let data = Training { coordinates: Some(&coordinates), ..Training::new(&all) };
        // How many rows are in the cluster that most of their group is in.
        let right = |from_layout: bool, normalize: Normalize| {
            let stage = KMeansStage::new(KMeansSpec::new(2), EMBEDDING).normalized(normalize).from_layout(from_layout);
            let fitted = stage.fit(&data, &cx).unwrap();
            let labelled = fitted.transform.apply(&batch(vectors.clone(), 2)).unwrap();
            let clusters = labelled.column_by_name("cluster").unwrap().as_any().downcast_ref::<Int32Array>().unwrap();
            let same = clusters.values().iter().enumerate().filter(|(i, cluster)| **cluster as usize == of(*i)).count();
            same.max(400 - same)
        };
        assert!(right(false, Normalize::None) < 260, "k-means cuts the groups across");
        assert!(right(true, Normalize::Within) > 370, "a tenth of the rows lie where the groups overlap");
    }

    #[test]
    fn a_batch_gains_cluster_distance_and_margin() {
        let label = label(&[0.0, 0.0, 3.0, 4.0], 2);
        let batch = batch(vec![3.0, 4.0, 0.0, 0.0, 1.5, 2.0, 0.0, -1.0], 2);
        let out = label.apply(&batch).unwrap();
        assert_eq!(out.schema(), label.output_schema(&batch.schema()).unwrap());
        assert_eq!(out.columns()[..2], *batch.columns());
        let clusters = out.column(2).as_any().downcast_ref::<Int32Array>().unwrap();
        assert_eq!(clusters.values()[..], [1, 0, 0, 0]);
        assert_eq!(floats(&out, "distance"), [0.0, 0.0, 2.5, 1.0]);
        assert_eq!(floats(&out, "margin"), [5.0, 5.0, 0.0, 34f32.sqrt() - 1.0]);
        assert!(label.apply(&out).unwrap_err().to_string().contains("\"cluster\" is there already"));
    }

    #[test]
    fn one_cluster_has_an_infinite_margin() {
        let out = label(&[1.0], 1).apply(&batch(vec![4.0], 1)).unwrap();
        assert_eq!((floats(&out, "distance"), floats(&out, "margin")), (&[3.0f32][..], &[f32::INFINITY][..]));
    }

    #[test]
    fn rows_without_a_distance_and_other_widths_are_refused() {
        let label = label(&[0.0, 1.0], 1);
        for bad in [f32::NAN, f32::INFINITY, 3e38] {
            let error = label.apply(&batch(vec![0.0, bad], 1)).unwrap_err();
            assert!(error.to_string().starts_with("column \"embedding\", row 1 of a batch"), "{error}");
        }
        assert_eq!(label.apply(&batch(vec![0.0, 1.0], 2)).unwrap_err().kind(), crate::Kind::Model);
        let empty = label.apply(&batch(vec![], 1)).unwrap();
        assert_eq!((empty.num_rows(), empty.num_columns()), (0, 5));
    }

    #[test]
    fn any_cut_into_batches_gives_the_same_bits() {
        let rows: Vec<f32> = (0..3000 * 3).map(|i| ((i * 31 % 1009) as f32).sin()).collect();
        let label = label(&rows[..3 * 20], 3);
        let whole = |rows: &[f32]| {
            let Assignments { cluster, distance, margin } = label.assign(rows).unwrap();
            (cluster, distance, margin)
        };
        let all = whole(&rows);
        for cut in [1, 100, 1024, 2500] {
            let (a, b) = (whole(&rows[..cut * 3]), whole(&rows[cut * 3..]));
            assert_eq!(([a.0, b.0].concat(), [a.1, b.1].concat(), [a.2, b.2].concat()), all);
        }
    }

    #[test]
    fn the_stage_learns_and_its_artifact_gives_it_back() {
        let rows = [0.0, 0.5, 10.0, 10.5, 11.0];
        let (device, control, dense) = (Cpu::new(1), Control::default(), Dense::new(&rows, 1));
        let data = Training::new(&dense);
        let cx = FitContext {
            seed: Seed(1),
            device: &device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let fitted = KMeansStage::new(KMeansSpec::new(2), EMBEDDING).fit(&data, &cx).unwrap();
        assert_eq!(fitted.figures["sizes"], json!([3, 2]));
        let saved = fitted.transform.save();
        let back = Label::from_artifact(&saved, &device).unwrap();
        assert_eq!(
            (&Clusters::centroids(&back).unwrap()[..], &back.sizes[..], back.k(), back.dim()),
            (&[10.5f32, 0.25][..], &[3u64, 2][..], 2, 1)
        );
        assert_eq!((back.save(), back.column.as_str()), (saved.clone(), EMBEDDING));
        let damage: [fn(&mut Artifact); 6] = [
            |a| drop(a.settings.remove("column")),
            |a| drop(a.settings.insert("sizes".into(), json!([1]))),
            |a| drop(a.settings.insert("sizes".into(), json!("many"))),
            |a| drop(a.tensors.remove("centroids")),
            |a| a.tensors.get_mut("centroids").unwrap().shape = vec![2],
            |a| a.tensors.get_mut("centroids").unwrap().values[0] = f32::NAN,
        ];
        for damage in damage {
            let mut artifact = saved.clone();
            damage(&mut artifact);
            assert_eq!(Label::from_artifact(&artifact, &device).unwrap_err().kind(), crate::Kind::Model);
        }
    }
}
