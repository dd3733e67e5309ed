//! Online k-means over a stage's clusters; and as an artifact, to keep between the batches of a stream and go on from.

use serde::de::DeserializeOwned;
use serde_json::json;

use super::Label;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernel::Dense;
use crate::kmeans::{Batch, Decay, OnlineKMeans, OnlineSpec, OnlineState};
use crate::seed::Seed;
use crate::stage::{Artifact, ClusterIds, Tensor};

/// The array of rows that a cold start holds back.
const WAITING: &str = "waiting";

impl Label {
    /// Online k-means that goes on from these clusters: from their centroids, and the rows they were learned from.
    ///
    /// # Errors
    /// Kind `Config` for a bad `decay`.
    pub fn learner(&self, decay: Decay) -> Result<OnlineKMeans> {
        let centroids = self.centroids.iter().map(|&x| f64::from(x)).collect();
        let sizes = self.sizes.iter().map(|&n| n as f64).collect();
        OnlineKMeans::warm(OnlineSpec::new(self.sizes.len(), decay), centroids, sizes)
    }

    /// Lets `online`, a [`learner`](Self::learner) of these clusters, learn from vectors (row-major) as they are labelled.
    /// `newest` is the event time of the newest in nanoseconds.
    ///
    /// # Errors
    /// As of [`OnlineKMeans::partial_fit`].
    pub fn teach(
        &self,
        online: &mut OnlineKMeans,
        rows: &[f32],
        newest: Option<i64>,
        device: &dyn Device,
    ) -> Result<Batch> {
        online.partial_fit(&Dense::new(&self.as_clustered(rows), self.dim), newest, device)
    }

    /// The same clusters where `online` has moved them, with these ids.
    ///
    /// # Errors
    /// Kind `Model` for ids or centroids of other clusters, `Compute` where the device has no room.
    pub fn moved(&self, online: &OnlineKMeans, ids: &[i32], device: &dyn Device) -> Result<Self> {
        let centroids = online.rounded();
        if centroids.len() != self.centroids.len() {
            let (found, wanted) = (centroids.len(), self.centroids.len());
            return Err(Error::model(format!("centroids of {found} values, expected {wanted}")));
        }
        let centers = device.centroids(&centroids, self.dim)?;
        let ids = ClusterIds::given(ids, self.sizes.len())?;
        Ok(Self { centroids, centers, ids, ..self.clone() })
    }

    /// The column of the vectors that it labels.
    pub fn column(&self) -> &str {
        &self.column
    }
}

impl OnlineKMeans {
    /// All of it: settings, seed and state. What [`restore`](Self::restore) makes of it goes on to the same bits: doubles are
    /// JSON numbers, which are written with as many digits as they need and read back exactly.
    pub fn save(&self) -> Artifact {
        let mut state = self.state().clone();
        let (dim, values) = (state.dim.max(1), std::mem::take(&mut state.waiting));
        let settings = [("spec", json!(self.spec())), ("seed", json!(self.seed().0)), ("state", json!(state))];
        let waiting = Tensor { shape: vec![values.len() / dim, dim], values };
        Artifact {
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tensors: [(WAITING.to_owned(), waiting)].into(),
        }
    }

    /// The learner that was saved.
    ///
    /// # Errors
    /// Kind `Model` if a part is missing, of another kind, or has values that cannot be (NaN among them).
    pub fn restore(artifact: &Artifact) -> Result<Self> {
        let bad = |what: String| Error::model(format!("the state of online k-means: {what}"));
        let mut state: OnlineState = setting(artifact, "state").map_err(bad)?;
        let spec: OnlineSpec = setting(artifact, "spec").map_err(bad)?;
        let seed = Seed(setting(artifact, "seed").map_err(bad)?);
        let waiting = artifact.tensors.get(WAITING).ok_or_else(|| bad(format!("tensor {WAITING:?} is missing")))?;
        match waiting.shape[..] {
            [n, dim] if n.checked_mul(dim) == Some(waiting.values.len()) && (n == 0 || dim == state.dim) => {}
            _ => return Err(bad(format!("waiting rows of shape {:?}, expected [rows, {}]", waiting.shape, state.dim))),
        }
        state.waiting.clone_from(&waiting.values);
        Self::resume(spec, seed, state).map_err(|e| bad(e.message().to_owned()))
    }
}

/// A setting of the artifact, or what is wrong with it.
fn setting<T: DeserializeOwned>(artifact: &Artifact, name: &str) -> Result<T, String> {
    let value = artifact.settings.get(name).ok_or_else(|| format!("setting {name:?} is missing"))?;
    T::deserialize(value).map_err(|e| format!("setting {name:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::Kind;
    use crate::device::Cpu;
    use crate::kernel::Dense;
    use crate::kmeans::{Decay, HalfLife};

    /// As it comes back from a file: numbers as text.
    fn through_text(artifact: &Artifact) -> Artifact {
        let text = serde_json::to_string(&artifact.settings).unwrap();
        Artifact { settings: serde_json::from_str(&text).unwrap(), tensors: artifact.tensors.clone() }
    }

    fn learner(decay: Decay) -> OnlineKMeans {
        OnlineKMeans::new(OnlineSpec { n_init: 2, ..OnlineSpec::new(3, decay) }, Seed(9)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Also where it was saved while rows still waited for the first centroids.
        #[test]
        fn a_saved_learner_goes_on_to_the_same_bits(
            values in prop::collection::vec(-1e3f32..1e3, 2 * 200),
            size in 1usize..60,
            at in 0usize..8,
            half in prop_oneof![Just(None), (1e-3f64..1e3).prop_map(Some)],
        ) {
            let device = Cpu::new(1);
            let mut whole = learner(half.map_or(Decay::None, |half| Decay::HalfLife(HalfLife::Rows(half))));
            let mut again = whole.clone();
            for (i, batch) in values.chunks(2 * size).enumerate() {
                let newest = Some(i as i64 * i64::from(i32::MAX));
                if i == at {
                    again = OnlineKMeans::restore(&through_text(&again.save())).unwrap();
                    prop_assert_eq!(&again, &whole);
                }
                let rows = Dense::new(batch, 2);
                let theirs = whole.partial_fit(&rows, newest, &device).unwrap();
                prop_assert_eq!(again.partial_fit(&rows, newest, &device).unwrap(), theirs);
                let bits = |learner: &OnlineKMeans| -> Vec<u64> {
                    learner.state().centroids.iter().chain(&learner.state().weights).map(|x| x.to_bits()).collect()
                };
                prop_assert_eq!(bits(&again), bits(&whole));
            }
            prop_assert!(!whole.state().centroids.is_empty() && whole.state().rows == 200);
        }
    }

    #[test]
    fn doubles_and_waiting_rows_come_back_exactly() {
        let mut waits = learner(Decay::Factor(1.0 / 3.0));
        waits.partial_fit(&Dense::new(&[-0.0, 1e-45], 2), Some(i64::MIN), &Cpu::new(1)).unwrap();
        assert_eq!(waits.state().waiting.len(), 2);
        let awkward = vec![1.0 / 3.0, -0.0, f64::MIN_POSITIVE / 4.0, f64::from(f32::MAX), 0.1 + 0.2, -1e-300];
        let weights = vec![f64::MAX / 4.0, 0.0, 5e-324];
        let warm = OnlineKMeans::warm(OnlineSpec::new(3, Decay::Factor(0.1)), awkward, weights).unwrap();
        for learner in [waits, warm] {
            let back = OnlineKMeans::restore(&through_text(&learner.save())).unwrap();
            assert_eq!(back, learner);
            let bits = |learner: &OnlineKMeans| -> (Vec<u64>, Vec<u32>) {
                let state = learner.state();
                (
                    state.centroids.iter().map(|x| x.to_bits()).collect(),
                    state.waiting.iter().map(|x| x.to_bits()).collect(),
                )
            };
            assert_eq!(bits(&back), bits(&learner));
            assert_eq!(back.save(), learner.save());
        }
    }

    #[test]
    fn damage_is_refused() {
        let mut good = OnlineKMeans::warm(OnlineSpec::new(2, Decay::None), vec![0.0, 1.0], vec![1.0, 2.0]).unwrap();
        good.partial_fit(&Dense::new(&[0.5, 3.0], 1), None, &Cpu::new(1)).unwrap();
        let good = good.save();
        assert!(OnlineKMeans::restore(&good).is_ok());
        let refused = |settings: bool, path: &str, value: Value, words: &str| {
            let mut bad = good.clone();
            let mut all = Value::Object(bad.settings.clone());
            match all.pointer_mut(path) {
                Some(place) => *place = value,
                None => assert!(!settings, "{path}"),
            }
            bad.settings = all.as_object().unwrap().clone();
            if !settings {
                bad.tensors.insert(WAITING.into(), Tensor { shape: vec![1, 1], values: vec![f32::NAN] });
            }
            let e = OnlineKMeans::restore(&bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Model);
            assert!(e.to_string().starts_with("the state of online k-means: ") && e.to_string().contains(words), "{e}");
        };
        refused(true, "/state/centroids/0", json!(f64::NAN), "invalid type: null, expected f64");
        refused(true, "/state/centroids/1", json!(1e300), "centroid 1, position 0 is 1e300");
        refused(true, "/state/centroids", json!([0.0]), "1 values, expected k = 2 centroids of 1");
        refused(true, "/state/weights/1", json!(-1.0), "weight of cluster 1 is -1");
        refused(true, "/state/weights", json!([1.0]), "1 weights for k = 2 centroids");
        refused(true, "/state/exposures/0", json!(null), "invalid type: null");
        refused(true, "/state/last", json!([]), "0 last rows for k = 2 centroids");
        refused(true, "/state/rows", json!(-1), "setting \"state\"");
        refused(true, "/state/dim", json!(2), "expected k = 2 centroids of 2");
        refused(true, "/spec/k", json!(0), "k = 0");
        refused(true, "/spec/decay", json!({"factor": 2.0}), "decay = 2");
        refused(true, "/seed", json!("x"), "setting \"seed\"");
        refused(false, "/", json!(0), "a row that waits has the value NaN");
        for name in ["spec", "seed", "state"] {
            let mut bad = good.clone();
            bad.settings.remove(name);
            let e = OnlineKMeans::restore(&bad).unwrap_err();
            assert!(e.kind() == Kind::Model && e.to_string().ends_with(&format!("setting {name:?} is missing")), "{e}");
        }
        let mut bad = good.clone();
        bad.tensors.clear();
        assert!(OnlineKMeans::restore(&bad).unwrap_err().to_string().contains("\"waiting\" is missing"));
        bad.tensors.insert(WAITING.into(), Tensor { shape: vec![3], values: vec![0.0; 3] });
        assert!(OnlineKMeans::restore(&bad).unwrap_err().to_string().contains("waiting rows of shape [3]"));
    }
}
