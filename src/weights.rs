//! The `feature_weights` stage: how well each feature separates classes, by equation 5 of Lu & Li 2021 or by Fisher's
//! ratio of variances ([`WeightMethod`]). A class is the rows with the same label or pseudo-label.
//!
//! `w_i` is the mean of `e^{-(x_p,i - x_q,i)^2}` over pairs of rows `p`, `q` of the same class, times the mean of `1 -
//! e^{-(x_p,i - x_q,i)^2}` over pairs of different classes. Every ordered pair counts, `p = q` included, as in the
//! paper's sums. The paper samples 1000 rows because pairs grow with their square; the moment form of
//! [`kernel::moments`](crate::kernel::moments) takes one pass over any number of rows, `O(rows x dim)`, and is exact to
//! rounding (about 1e-15 of the means). A sample can still be asked for; its weights are the same as those computed
//! pair by pair.

mod fisher;

use std::sync::Arc;

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::moments::{Moments, TERMS};
use crate::kernel::{Dense, Pool, Rows, fold};
use crate::kmeans::{self, KMeansSpec};
use crate::seed::Seed;
use crate::stage::{Action, Artifact, Fit, FitContext, Fitted, Tensor, Training, Transform};

/// Where the classes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLabels {
    /// A label column; rows without a label are left out.
    Column(String),
    /// The clusters of a k-means over the same rows.
    Pseudo {
        /// Number of clusters.
        k: usize,
    },
    /// Nowhere: every feature has the weight 1.
    Uniform,
}

/// How the weight of a feature is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightMethod {
    /// Equation 5 of Lu & Li 2021. Values must lie in `[0, 1]`.
    #[default]
    Pairwise,
    /// The fraction of a feature's variance that lies between the classes' means (Fisher's correlation ratio), from 0
    /// to 1. Values may have any range.
    Fisher,
}

/// Settings of the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsSpec {
    /// The method.
    pub method: WeightMethod,
    /// Where the classes come from.
    pub labels: WeightLabels,
    /// Labelled rows to draw (the paper: 1000); `None` takes all.
    pub sample: Option<usize>,
}

impl WeightsSpec {
    /// Equation 5 over all rows.
    pub fn new(labels: WeightLabels) -> Self {
        Self { method: WeightMethod::Pairwise, labels, sample: None }
    }
}

/// Learns the weights.
#[derive(Debug, Clone)]
pub struct FeatureWeightsStage {
    spec: WeightsSpec,
}

impl FeatureWeightsStage {
    /// The stage with these settings.
    pub fn new(spec: WeightsSpec) -> Self {
        Self { spec }
    }

    fn learn(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<(Vec<f32>, u64, usize)> {
        let clusters;
        let classes = match &self.spec.labels {
            WeightLabels::Uniform => return Ok((vec![1.0; data.rows.dim()], data.rows.len() as u64, 0)),
            WeightLabels::Column(name) => data.classes.ok_or_else(|| {
                Error::input(format!("no labels were read from column {name:?}; feature_weights needs them"))
            })?,
            WeightLabels::Pseudo { k } => {
                clusters = pseudo_classes(data.rows, *k, cx)?;
                &clusters
            }
        };
        match self.spec.sample {
            Some(0) => Err(Error::config("sample = 0 rows, expected at least 1")),
            Some(m) => {
                let values = m.min(data.rows.len()) as u128 * data.rows.dim() as u128;
                cx.room("the sample that features are weighed by", 4 * values)?;
                let (values, classes) = draw(data.rows, classes, m, cx.seed)?;
                self.weigh(&Dense::new(&values, data.rows.dim()), &classes, cx)
            }
            None => self.weigh(data.rows, classes, cx),
        }
    }

    /// The weights from `rows` and their classes; also the number of rows that have a class, and of classes.
    fn weigh(&self, rows: &dyn Rows, classes: &[Option<u32>], cx: &FitContext<'_>) -> Result<(Vec<f32>, u64, usize)> {
        if classes.len() != rows.len() {
            return Err(Error::internal(format!("{} labels for {} rows", classes.len(), rows.len())));
        }
        let (weights, counts) = match self.spec.method {
            WeightMethod::Pairwise => {
                let moments = moments(rows, classes, cx)?;
                (weights(&moments)?, moments.counts().to_vec())
            }
            WeightMethod::Fisher => fisher::weights(rows, classes, cx)?,
        };
        Ok((weights, counts.iter().sum(), counts.iter().filter(|&&n| n > 0).count()))
    }
}

impl Fit for FeatureWeightsStage {
    fn kind(&self) -> &'static str {
        "feature_weights"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let (weights, rows, classes) = self.learn(data, cx)?;
        let (least, most) = weights.iter().fold((f32::INFINITY, 0.0f32), |(a, b), w| (a.min(*w), b.max(*w)));
        let summary = match classes {
            0 => format!("{} features, all of weight 1", weights.len()),
            _ => format!(
                "{} features weighted {least:.4} to {most:.4} by {rows} rows of {classes} classes",
                weights.len()
            ),
        };
        let figures = [
            ("rows", json!(rows)),
            ("classes", json!(classes)),
            ("least_weight", json!(least)),
            ("greatest_weight", json!(most)),
        ];
        Ok(Fitted {
            transform: Arc::new(FeatureWeights { weights }),
            summary,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

/// The fitted stage: leaves batches unchanged and keeps the weights for the loss of a later stage.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureWeights {
    weights: Vec<f32>,
}

impl FeatureWeights {
    /// The name under which it is saved.
    pub const KIND: &'static str = "feature_weights";

    /// The stage as it was saved.
    ///
    /// # Errors
    /// Kind `Model` if the weights are missing or are not finite numbers of at least 0.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let tensor = artifact
            .tensors
            .get("weights")
            .ok_or_else(|| Error::model("stage feature_weights: tensor \"weights\" is missing"))?;
        if tensor.shape != [tensor.values.len()] || tensor.values.is_empty() {
            let shape = format!("tensor \"weights\" of shape {:?}, expected [dim]", tensor.shape);
            return Err(Error::model(format!("stage feature_weights: {shape}")));
        }
        if let Some(i) = tensor.values.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            let weight = format!("weight {i} is {}, expected a number of at least 0", tensor.values[i]);
            return Err(Error::model(format!("stage feature_weights: {weight}")));
        }
        Ok(Self { weights: tensor.values.clone() })
    }
}

impl Transform for FeatureWeights {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Keep { dim: Some(self.weights.len()) }
    }

    fn save(&self) -> Artifact {
        let tensor = Tensor { shape: vec![self.weights.len()], values: self.weights.clone() };
        Artifact { settings: Default::default(), tensors: [("weights".to_owned(), tensor)].into_iter().collect() }
    }

    fn feature_weights(&self) -> Option<&[f32]> {
        Some(&self.weights)
    }
}

/// Equation 5 for every feature, from the moments.
///
/// With only one class there is no pair of different classes: that factor is then 1, and a feature's weight is the
/// similarity of the rows in it. A factor within the rounding error counts as 0: below 1e-12, or 2.2e-16 per row if
/// that is more.
///
/// # Errors
/// Kind `Input` if no row was counted, or if every weight is 0 (no feature varies between classes): nothing could be
/// learned with such a loss.
pub fn weights(moments: &Moments) -> Result<Vec<f32>> {
    let (same_pairs, different_pairs) = moments.pairs();
    if same_pairs == 0.0 {
        return Err(Error::input("no row has a label; feature_weights needs labelled rows, or no label column at all"));
    }
    // A sum over rows has at most one rounding error per row.
    let rounding = (moments.counts().iter().sum::<u64>() as f64 * f64::EPSILON).max(1e-12);
    let weight = |(same, different): (f64, f64)| {
        let apart = if different_pairs > 0.0 { 1.0 - different / different_pairs } else { 1.0 };
        let apart = if apart < rounding { 0.0 } else { apart };
        (same / same_pairs * apart) as f32
    };
    let weights: Vec<f32> = moments.pair_sums().into_iter().map(weight).collect();
    match weights.iter().any(|w| *w > 0.0) {
        true => Ok(weights),
        false => Err(Error::input("every feature weight is 0: no feature differs between classes")),
    }
}

/// The moments of all rows; values must lie in `[0, 1]`.
fn moments(rows: &dyn Rows, classes: &[Option<u32>], cx: &FitContext<'_>) -> Result<Moments> {
    let (count, dim) = (classes.iter().flatten().max().map_or(1, |c| *c as usize + 1), rows.dim());
    let total = Some(rows.len() as u64);
    cx.control.emit(Event::Started { stage: "feature_weights".into(), unit: "rows", total });
    let what = format!("weighing {dim} features by {count} classes");
    cx.room(&what, 2 * 8 * TERMS as u128 * count as u128 * dim.next_multiple_of(16) as u128)?;
    // With few features, threads divide the rows, otherwise the features.
    if dim * count <= 1024 {
        let alone = Pool::new(1);
        let parts = fold::fold(
            rows,
            cx.device.pool(),
            || Moments::new(count, dim),
            |moments, first, block| {
                cx.control.check()?;
                check_range(first, block, dim)?;
                moments.add(block, &classes[first..first + block.len() / dim], &alone);
                Ok(())
            },
        )?;
        let mut all = Moments::new(count, dim);
        parts.iter().for_each(|part| all.merge(part));
        return Ok(all);
    }
    const BLOCK: usize = 1024;
    const CHECKED: usize = 64;
    let (mut all, mut buffer) = (Moments::new(count, dim), Vec::new());
    for start in (0..rows.len()).step_by(BLOCK) {
        let end = (start + BLOCK).min(rows.len());
        let block = fold::block(rows, start..end, &mut buffer)?;
        let chunks: Vec<&[f32]> = block.chunks(CHECKED * dim).collect();
        let checks = cx.device.pool().map(chunks.len(), |i| check_range(start + i * CHECKED, chunks[i], dim));
        checks.into_iter().collect::<Result<()>>()?;
        all.add(block, &classes[start..end], cx.device.pool());
        let stage = "feature_weights".to_owned();
        cx.control.emit(Event::Progress { stage, done: end as u64, loss: None, rows_per_second: None });
        cx.control.check()?;
    }
    Ok(all)
}

fn check_range(first: usize, block: &[f32], dim: usize) -> Result<()> {
    if block.iter().fold(true, |inside, x| inside & (0.0..=1.0).contains(x)) {
        return Ok(());
    }
    let at = block.iter().position(|x| !(0.0..=1.0).contains(x)).unwrap_or(0);
    let place = format!("row {}, feature {} is {}", first + at / dim, at % dim, block[at]);
    Err(Error::input(format!(
        "{place}; feature_weights takes values in [0, 1]: put a scale stage with min_max before it"
    )))
}

/// `m` labelled rows drawn without replacement (all if there are no more), in order, with their classes.
fn draw(rows: &dyn Rows, classes: &[Option<u32>], m: usize, seed: Seed) -> Result<(Vec<f32>, Vec<Option<u32>>)> {
    let labelled: Vec<u32> = (0..classes.len() as u32).filter(|&i| classes[i as usize].is_some()).collect();
    let mut rng = seed.stream("feature_weights.sample", 0);
    let mut drawn: Vec<u32> = rand::seq::index::sample(&mut rng, labelled.len(), m.min(labelled.len()))
        .into_iter()
        .map(|i| labelled[i])
        .collect();
    drawn.sort_unstable();
    let mut values = vec![0.0; drawn.len() * rows.dim()];
    rows.gather(&drawn, &mut values)?;
    Ok((values, drawn.iter().map(|&i| classes[i as usize]).collect()))
}

/// The clusters of the rows as their classes.
fn pseudo_classes(rows: &dyn Rows, k: usize, cx: &FitContext<'_>) -> Result<Vec<Option<u32>>> {
    let spec = KMeansSpec { n_init: 3, ..KMeansSpec::new(k) };
    let what = format!("finding {k} pseudo-labels among rows of {} values", rows.dim());
    cx.room(&what, kmeans::bytes(rows.len(), k, rows.dim()))?;
    // A stream of its own, so that the k-means stage of the same pipeline draws other seeds.
    let seed = Seed(cx.seed.stream("feature_weights.pseudo", 0).random());
    let found = kmeans::fit(rows, &spec, seed, cx.device, cx.control)?;
    Ok(kmeans::labels(rows, &found.centroids, cx.device)?.into_iter().map(Some).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::Cpu;
    use crate::event::Control;
    use crate::stage::NoCheckpoint;
    use crate::testing::{self, Labelled};

    fn fit_with(
        labels: WeightLabels,
        sample: Option<usize>,
        rows: &[f32],
        dim: usize,
        classes: &[Option<u32>],
        threads: usize,
    ) -> Result<Vec<f32>> {
        let (device, control) = (Cpu::new(threads), Control::default());
        let dense = Dense::new(rows, dim);
        let data = Training { classes: Some(classes), ..Training::new(&dense) };
        let cx = FitContext {
            seed: Seed(3),
            device: &device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let fitted = FeatureWeightsStage::new(WeightsSpec { sample, ..WeightsSpec::new(labels) }).fit(&data, &cx)?;
        Ok(fitted.transform.feature_weights().unwrap().to_vec())
    }

    fn column() -> WeightLabels {
        WeightLabels::Column("activity".into())
    }

    /// Equation 5, pair by pair.
    fn brute_force(rows: &[f32], dim: usize, classes: &[Option<u32>]) -> Vec<f64> {
        let kept: Vec<(&[f32], u32)> =
            rows.chunks(dim).zip(classes).filter_map(|(row, class)| class.map(|c| (row, c))).collect();
        let weight = |i: usize| {
            let (mut same, mut same_pairs, mut different, mut different_pairs) = (0.0, 0.0, 0.0, 0.0);
            for (a, class) in &kept {
                for (b, other) in &kept {
                    let e = (-(f64::from(a[i]) - f64::from(b[i])).powi(2)).exp();
                    if class == other {
                        same += e;
                        same_pairs += 1.0;
                    } else {
                        different += 1.0 - e;
                        different_pairs += 1.0;
                    }
                }
            }
            same / same_pairs * if different_pairs > 0.0 { different / different_pairs } else { 1.0 }
        };
        (0..dim).map(weight).collect()
    }

    /// Rows of up to four classes, with few features or many.
    fn labelled() -> impl Strategy<Value = Labelled> {
        let dim = prop_oneof![1usize..20, 300usize..310];
        testing::labelled(dim, prop_oneof![1 => Just(1usize), 9 => 2usize..20], 4)
    }

    proptest! {
        #[test]
        fn moments_give_the_weights_of_the_pairs((dim, rows, classes) in labelled()) {
            prop_assume!(classes.iter().any(Option::is_some));
            let (device, control) = (Cpu::new(2), Control::default());
            let cx = FitContext { seed: Seed(3), device: &device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
            let moments = moments(&Dense::new(&rows, dim), &classes, &cx).unwrap();
            let (same_pairs, different_pairs) = moments.pairs();
            let expected = brute_force(&rows, dim, &classes);
            for ((same, different), &expected) in moments.pair_sums().into_iter().zip(&expected) {
                let apart = if different_pairs > 0.0 { 1.0 - different / different_pairs } else { 1.0 };
                let ours = same / same_pairs * apart;
                prop_assert!((ours - expected).abs() <= 1e-12 * expected + 1e-14, "{ours} {expected}");
            }
            match weights(&moments) {
                Ok(weights) => {
                    for (ours, expected) in weights.iter().zip(&expected) {
                        prop_assert!((f64::from(*ours) - expected).abs() <= 1e-6 * expected + 1e-12, "{ours} {expected}");
                        prop_assert!(*ours == 0.0 || *expected > 0.0, "{ours} for a feature that tells nothing apart");
                    }
                }
                Err(error) => {
                    prop_assert!(error.to_string().starts_with("every feature weight is 0"));
                    prop_assert!(expected.iter().all(|w| *w < 1e-11), "{expected:?}");
                }
            }
        }

        #[test]
        fn threads_change_no_bit((dim, rows, classes) in labelled()) {
            prop_assume!(classes.iter().any(Option::is_some));
            let one = fit_with(column(), None, &rows, dim, &classes, 1);
            let three = fit_with(column(), None, &rows, dim, &classes, 3);
            prop_assert_eq!(one.map_err(|e| e.to_string()), three.map_err(|e| e.to_string()));
        }
    }

    #[test]
    fn a_telling_feature_outweighs_noise_and_a_constant_weighs_nothing() {
        let rows: Vec<f32> = (0..40).flat_map(|i| [(i % 2) as f32, (i * 17 % 40) as f32 / 40.0, 0.5]).collect();
        let classes: Vec<_> = (0..40).map(|i| Some(i % 2)).collect();
        let weights = fit_with(column(), None, &rows, 3, &classes, 2).unwrap();
        assert!((weights[0] - (1.0 - (-1.0f32).exp())).abs() < 1e-6, "{weights:?}");
        assert!(weights[0] > 3.0 * weights[1] && weights[2] < 1e-6, "{weights:?}");
        assert_eq!(fit_with(WeightLabels::Uniform, None, &rows, 3, &classes, 2).unwrap(), [1.0; 3]);
        // The clusters of the rows are the classes here.
        assert_eq!(fit_with(WeightLabels::Pseudo { k: 2 }, None, &rows, 3, &[], 2).unwrap(), weights);
    }

    #[test]
    fn a_sample_weighs_like_its_pairs() {
        let rows: Vec<f32> = (0..300).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        let classes: Vec<_> = (0..100).map(|i| (i % 10 != 0).then_some(i % 3)).collect();
        let (values, drawn) = draw(&Dense::new(&rows, 3), &classes, 20, Seed(3)).unwrap();
        assert!(drawn.len() == 20 && drawn.iter().all(Option::is_some));
        let expected: Vec<f32> = brute_force(&values, 3, &drawn).into_iter().map(|w| w as f32).collect();
        let ours = fit_with(column(), Some(20), &rows, 3, &classes, 2).unwrap();
        assert!(ours.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?} {expected:?}");
        let all = fit_with(column(), None, &rows, 3, &classes, 2).unwrap();
        assert_eq!(fit_with(column(), Some(1000), &rows, 3, &classes, 2).unwrap(), all);
    }

    #[test]
    fn one_class_weighs_by_likeness() {
        let weights = fit_with(column(), None, &[0.0, 0.5, 1.0, 0.5], 2, &[Some(0), Some(0)], 1).unwrap();
        assert!((weights[0] - (2.0 + 2.0 * (-1.0f32).exp()) / 4.0).abs() < 1e-6 && weights[1] == 1.0, "{weights:?}");
    }

    #[test]
    fn what_cannot_be_weighed_is_refused() {
        let error = fit_with(column(), None, &[0.0, 0.5, 0.25, -0.5], 2, &[Some(0), Some(1)], 1).unwrap_err();
        assert!(error.to_string().starts_with("row 1, feature 1 is -0.5; ") && error.to_string().contains("min_max"));
        let error = fit_with(column(), None, &[f32::NAN], 1, &[Some(0)], 1).unwrap_err();
        assert!(error.to_string().starts_with("row 0, feature 0 is NaN"));
        let error = fit_with(column(), None, &[0.5, 0.5], 1, &[None, None], 1).unwrap_err();
        assert!(error.to_string().starts_with("no row has a label"));
        for constant in [0.0, 1e-40, 0.3, 1.0] {
            let classes: Vec<_> = (0..99).map(|i| Some(i % 7)).collect();
            let error = fit_with(column(), None, &[constant; 99], 1, &classes, 1).unwrap_err();
            assert!(error.to_string().starts_with("every feature weight is 0"), "{error}");
        }
    }

    #[test]
    fn an_artifact_gives_the_stage_back() {
        let stage = FeatureWeights { weights: vec![0.5, 0.0, 2.0] };
        assert_eq!(FeatureWeights::from_artifact(&stage.save()).unwrap(), stage);
        for bad in [vec![f32::NAN], vec![-1.0], vec![]] {
            let error = FeatureWeights::from_artifact(&FeatureWeights { weights: bad }.save()).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Model);
        }
        assert!(FeatureWeights::from_artifact(&Artifact::default()).is_err());
    }
}
