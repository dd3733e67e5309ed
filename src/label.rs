//! The `kmeans` stage, and the labels that it gives: cluster, distance and margin.

mod cut;
mod find;
mod online;
mod turns;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::device::{Assign, Device, distances_and_margins};
use crate::error::{Error, Result};
use crate::kmeans::KMeans;
use crate::normalize::Normalizer;
use crate::stage::{Action, Artifact, Assignments, ClusterIds, Clusters, Tensor, Transform};
pub use find::{Begin, KMeansStage};

/// The fitted stage: appends to each row the id of its nearest centroid (`cluster`, Int32), the Euclidean distance to
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
    ids: ClusterIds,
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
            ids: ClusterIds::default(),
        })
    }

    /// Vectors (row-major) in the units in which the clusters were found.
    fn as_clustered<'a>(&self, rows: &'a [f32]) -> Cow<'a, [f32]> {
        let Some(normalizer) = &self.normalizer else { return Cow::Borrowed(rows) };
        let mut normalized = vec![0.0; rows.len()];
        normalizer.apply(rows, &mut normalized);
        Cow::Owned(normalized)
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
        let ids = ClusterIds::restore(artifact, k).map_err(|e| bad(e.message().to_owned()))?;
        Ok(Self { column, dim, normalizer, centroids: centroids.values.clone(), centers, sizes, mean_distance, ids })
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

    fn ids(&self) -> Vec<i32> {
        self.ids.of(self.k())
    }

    fn with_ids(&self, ids: &[i32]) -> Result<Option<Arc<dyn Transform>>> {
        let ids = ClusterIds::given(ids, self.k())?;
        Ok(Some(Arc::new(Self { ids, ..self.clone() })))
    }

    /// The nearest centroid, the distance to it, and how much farther the second nearest is. `O(rows x k x dim)`.
    fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        let n = rows.len() / self.dim;
        assert_eq!(rows.len(), n * self.dim, "the last row is cut short");
        let (mut nearest, mut distance, mut margin) = (vec![0u32; n], vec![0.0; n], vec![0.0; n]);
        self.centers.nearest_two(&self.as_clustered(rows), &mut nearest, &mut distance, &mut margin)?;
        distances_and_margins(&mut distance, &mut margin);
        let mut cluster: Vec<i32> = nearest.into_iter().map(|nearest| nearest as i32).collect();
        self.ids.name(&mut cluster);
        Ok(Assignments { cluster, distance, margin })
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
        self.ids.save(&mut artifact);
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
    use crate::kmeans::KMeansSpec;
    use crate::normalize::Normalize;
    use crate::seed::Seed;
    use crate::stage::{Apply, EMBEDDING, NoCheckpoint};
    use crate::stage::{Coordinates, Fit, FitContext, Training};

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
        let right = |begin: Begin, normalize: Normalize| {
            let stage = KMeansStage::new(KMeansSpec::new(2), EMBEDDING).normalized(normalize).begin(begin);
            let fitted = stage.fit(&data, &cx).unwrap();
            let labelled = fitted.transform.apply(&batch(vectors.clone(), 2)).unwrap();
            let clusters = labelled.column_by_name("cluster").unwrap().as_any().downcast_ref::<Int32Array>().unwrap();
            let same = clusters.values().iter().enumerate().filter(|(i, cluster)| **cluster as usize == of(*i)).count();
            same.max(400 - same)
        };
        assert!(right(Begin::Vectors, Normalize::None) < 260, "k-means cuts the groups across");
        assert!(right(Begin::Layout, Normalize::Within) > 370, "a tenth of the rows lie where the groups overlap");
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
    fn rows_are_labelled_by_the_ids_that_were_given() {
        let label = label(&[0.0, 3.0, 9.0], 1);
        let given = label.with_ids(&[12, 0, 5]).unwrap().unwrap();
        let clusters = given.clusters().unwrap();
        assert_eq!((clusters.ids(), clusters.k()), (vec![12, 0, 5], 3));
        assert_eq!(clusters.centroids(), Clusters::centroids(&label));
        assert_eq!(clusters.assign(&[8.0, -1.0, 2.0, 1.5]).unwrap().cluster, [5, 12, 0, 12]);
        let back = Label::from_artifact(&given.save(), &Cpu::default()).unwrap();
        assert_eq!((back.save(), back.ids()), (given.save(), vec![12, 0, 5]));
        // Ids that are the indices are not saved: it is the same model.
        assert_eq!(clusters.with_ids(&[0, 1, 2]).unwrap().unwrap().save(), label.save());
        for wrong in [&[1, 2][..], &[1, 2, 1], &[1, 2, -3]] {
            assert_eq!(label.with_ids(wrong).unwrap_err().kind(), crate::Kind::Model);
        }
        for damage in [json!("many"), json!([1, 2]), json!([1, 2, 1]), json!([1, 2, 3.5]), json!([1, 2, 1_u64 << 40])] {
            let mut artifact = given.save();
            artifact.settings.insert("ids".into(), damage);
            let e = Label::from_artifact(&artifact, &Cpu::default()).unwrap_err();
            assert!(e.kind() == crate::Kind::Model && e.to_string().starts_with("stage label: "), "{e}");
        }
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
