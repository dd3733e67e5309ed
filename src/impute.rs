//! The `impute` stage: a missing value, which is NaN, becomes the mean of its feature over the training rows.
//!
//! It is the first stage of a model, so that a row has the same vector whoever labels it: a run, SQL, the library.

use std::sync::Arc;

use serde_json::json;

use crate::error::{Error, Result};
use crate::kernel::Rows;
use crate::stage::{
    Action, Artifact, FEATURES, Fit, FitContext, Fitted, InverseMap, Tensor, Training, Transform, VectorMap,
};

/// Values that are read at a time.
const BLOCK: usize = 1 << 18;

/// Learns the mean of each feature over the rows that have it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImputeStage;

impl Fit for ImputeStage {
    fn kind(&self) -> &'static str {
        Impute::KIND
    }

    /// The figure `missing` has the number of missing values of each feature, in the order of the features.
    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let (impute, missing) = Impute::learn(data.rows, || cx.control.check())?;
        let (values, features) = (missing.iter().sum::<u64>(), missing.iter().filter(|count| **count > 0).count());
        let rows = data.rows.len();
        let summary = format!("{values} missing values of {features} features in {rows} rows");
        let figures = [("rows", json!(rows)), ("missing", json!(missing))];
        Ok(Fitted {
            transform: Arc::new(impute),
            summary,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

/// The fitted stage: the mean of the feature in place of NaN, in place in column `features`. Other values stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Impute {
    means: Vec<f32>,
}

impl Impute {
    /// The name under which it is saved.
    pub const KIND: &'static str = "impute";

    /// Learns from rows; also gives how many values each feature lacks. `check` is called between blocks of rows. The sums
    /// are in double precision, in the order of the rows.
    ///
    /// # Errors
    /// Kind `Input` if a feature has no value in any row; what reading the rows or `check` gives.
    ///
    /// ```
    /// use dacpipe::impute::Impute;
    /// use dacpipe::kernel::Dense;
    /// use dacpipe::stage::VectorMap;
    /// let rows = [1.0, f32::NAN, 3.0, 5.0, f32::NAN, 7.0];
    /// let (impute, missing) = Impute::learn(&Dense::new(&rows, 2), || Ok(()))?;
    /// assert_eq!((impute.means(), &missing[..]), (&[2.0, 6.0][..], &[1, 1][..]));
    /// let mut out = [0.0; 2];
    /// impute.map(&[f32::NAN, 9.0], &mut out)?;
    /// assert_eq!(out, [2.0, 9.0]);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn learn(rows: &dyn Rows, check: impl Fn() -> Result<()>) -> Result<(Self, Vec<u64>)> {
        let (len, dim) = (rows.len(), rows.dim());
        let (mut sums, mut counts) = (vec![0.0f64; dim], vec![0u64; dim]);
        let step = (BLOCK / dim.max(1)).max(1);
        let mut block = Vec::new();
        for first in (0..len).step_by(step) {
            check()?;
            let last = (first + step).min(len);
            block.resize((last - first) * dim, 0.0);
            rows.read(first..last, &mut block)?;
            for row in block.chunks_exact(dim) {
                for ((sum, count), &value) in sums.iter_mut().zip(&mut counts).zip(row) {
                    if !value.is_nan() {
                        *sum += f64::from(value);
                        *count += 1;
                    }
                }
            }
        }
        if let Some(feature) = counts.iter().position(|count| *count == 0) {
            return Err(Error::input(format!(
                "feature {feature} has no value in any of the {len} rows that are learned from, so there is no mean to take \
                 for it; leave it out of the features"
            )));
        }
        let means = sums.iter().zip(&counts).map(|(sum, count)| (sum / *count as f64) as f32).collect();
        Ok((Self { means }, counts.into_iter().map(|count| len as u64 - count).collect()))
    }

    /// The means of the features.
    pub fn means(&self) -> &[f32] {
        &self.means
    }

    /// The stage as it was saved.
    ///
    /// # Errors
    /// Kind `Model` if the means are missing or one is not a finite number.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let means = artifact.tensors.get("means").ok_or_else(|| Error::model("stage impute: no means"))?;
        let fits = means.shape == [means.values.len()] && !means.values.is_empty();
        match fits && means.values.iter().all(|mean| mean.is_finite()) {
            true => Ok(Self { means: means.values.clone() }),
            false => Err(Error::model("stage impute: expected a finite mean for each feature")),
        }
    }
}

impl VectorMap for Impute {
    fn dim_in(&self) -> usize {
        self.means.len()
    }

    fn dim_out(&self) -> usize {
        self.means.len()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let values = input.iter().zip(self.means.iter().cycle());
        output
            .iter_mut()
            .zip(values)
            .for_each(|(out, (value, mean))| *out = if value.is_nan() { *mean } else { *value });
        Ok(())
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        Some(self)
    }
}

/// What was missing comes back as its mean.
impl InverseMap for Impute {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        input.copy_from_slice(output);
        Ok(())
    }
}

impl Transform for Impute {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: FEATURES, map: self }
    }

    fn save(&self) -> Artifact {
        let means = Tensor { shape: vec![self.means.len()], values: self.means.clone() };
        Artifact { tensors: [("means".to_owned(), means)].into(), ..Artifact::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Dense;
    use proptest::prelude::*;

    proptest! {
        /// The means are those of the values that are there, whatever is missing; the blocks make no difference.
        #[test]
        fn means_are_those_of_what_is_there(
            rows in proptest::collection::vec(proptest::option::of(-1e6f32..1e6), 3..300),
        ) {
            let dim = 3;
            let values: Vec<f32> = rows[..rows.len() / dim * dim].iter().map(|v| v.unwrap_or(f32::NAN)).collect();
            let found = Impute::learn(&Dense::new(&values, dim), || Ok(()));
            let of = |feature: usize| values.iter().skip(feature).step_by(dim).filter(|v| !v.is_nan()).copied();
            if (0..dim).any(|feature| of(feature).next().is_none()) {
                prop_assert_eq!(found.unwrap_err().kind(), crate::Kind::Input);
                return Ok(());
            }
            let (impute, missing) = found.unwrap();
            for (feature, missing) in missing.into_iter().enumerate() {
                let (sum, count) = of(feature).fold((0.0f64, 0u64), |(sum, n), v| (sum + f64::from(v), n + 1));
                prop_assert_eq!(impute.means()[feature], (sum / count as f64) as f32);
                prop_assert_eq!(missing, (values.len() / dim) as u64 - count);
            }
            let mut out = vec![0.0; values.len()];
            impute.map(&values, &mut out).unwrap();
            for (i, (before, after)) in values.iter().zip(&out).enumerate() {
                let expected = if before.is_nan() { impute.means()[i % dim] } else { *before };
                prop_assert_eq!(expected.to_bits(), after.to_bits());
            }
            let again = Impute::from_artifact(&impute.save()).unwrap();
            prop_assert_eq!(again, impute);
        }
    }
}
