//! The `scale` stage: every feature to `[0, 1]`, or to mean 0 and standard deviation 1.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::kernel::isa::vectorised;
use crate::kernel::{Pool, Rows, fold, sums};
use crate::stage::{
    Action, Artifact, FEATURES, Fit, FitContext, Fitted, InverseMap, Tensor, Training, Transform, VectorMap,
};

/// What a feature is scaled to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleMethod {
    /// `[0, 1]` between the least and the greatest training value. Values beyond them, which later rows may have, are
    /// clamped, so that equation 5 and a Sigmoid output hold for every row.
    #[default]
    MinMax,
    /// The same between the least and the greatest value of all features together: for pixels, whose differences from
    /// each other count.
    GlobalMinMax,
    /// Mean 0, standard deviation 1 (dividing by the number of rows) over the training rows; nothing is clamped.
    Standard,
}

/// Brings features to a common range, learned from the training rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleSpec {
    /// To which range. Default "min_max".
    #[serde(default)]
    pub method: ScaleMethod,
}

/// Learns the scale of every feature in one pass over the training rows.
#[derive(Debug, Clone)]
pub struct ScaleStage {
    spec: ScaleSpec,
}

impl ScaleStage {
    /// The stage with these settings.
    pub fn new(spec: ScaleSpec) -> Self {
        Self { spec }
    }
}

impl Fit for ScaleStage {
    fn kind(&self) -> &'static str {
        "scale"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let scale = Scale::learn(data.rows, self.spec.method, cx.device.pool())?;
        let constant = scale.divisor.iter().filter(|d| d.is_infinite()).count();
        let summary = format!("{} rows, {} features, {constant} of them constant", data.rows.len(), scale.dim());
        let figures = [("rows", json!(data.rows.len())), ("constant_features", json!(constant))];
        Ok(Fitted {
            transform: std::sync::Arc::new(scale),
            summary,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}

/// The fitted stage: `(x - shift) / divisor`, feature by feature, in place in column `features`. A feature that was
/// constant in the training rows has an infinite divisor: it becomes 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    method: ScaleMethod,
    shift: Vec<f32>,
    divisor: Vec<f32>,
}

impl Scale {
    /// The name under which it is saved.
    pub const KIND: &'static str = "scale";

    /// Learns from rows. The result does not depend on the number of threads. `O(rows x dim)`.
    ///
    /// # Errors
    /// Kind `Input` if there are no rows, or a value is not finite (naming its row and position), or a feature's range
    /// is beyond 32-bit floats.
    pub fn learn(rows: &dyn Rows, method: ScaleMethod, pool: &Pool) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::input("no rows to learn the scale from; at least one is needed"));
        }
        let (shift, spread) = match method {
            ScaleMethod::MinMax => min_max(rows, pool)?,
            ScaleMethod::GlobalMinMax => global_min_max(rows, pool)?,
            ScaleMethod::Standard => mean_and_deviation(rows, pool)?,
        };
        if let Some(i) = spread.iter().position(|s| !s.is_finite()) {
            return Err(Error::input(format!(
                "feature {i} spans more than 32-bit floats can hold; scale it in the source"
            )));
        }
        let divisor = spread.into_iter().map(|s| if s > 0.0 { s } else { f32::INFINITY }).collect();
        Ok(Self { method, shift, divisor })
    }

    /// Number of features.
    pub fn dim(&self) -> usize {
        self.shift.len()
    }

    /// The stage as it was saved.
    ///
    /// # Errors
    /// Kind `Model` if a part is missing or does not fit.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let method = artifact.settings.get("method").cloned().unwrap_or_default();
        let method = serde_json::from_value(method).map_err(|e| {
            Error::model("stage scale: method, expected \"min_max\", \"global_min_max\" or \"standard\"").with_source(e)
        })?;
        let tensor = |name: &str| match artifact.tensors.get(name) {
            Some(t) if t.shape == [t.values.len()] && !t.values.is_empty() => Ok(t.values.clone()),
            Some(t) => {
                Err(Error::model(format!("stage scale: tensor {name:?} of shape {:?}, expected [dim]", t.shape)))
            }
            None => Err(Error::model(format!("stage scale: tensor {name:?} is missing"))),
        };
        let (shift, divisor) = (tensor("shift")?, tensor("divisor")?);
        if shift.len() != divisor.len() {
            let lengths = format!("{} shifts and {} divisors", shift.len(), divisor.len());
            return Err(Error::model(format!("stage scale: {lengths}, expected as many")));
        }
        if let Some(i) = (0..shift.len()).find(|&i| !(shift[i].is_finite() && divisor[i] > 0.0)) {
            let values = format!("shift {} and divisor {} of feature {i}", shift[i], divisor[i]);
            return Err(Error::model(format!("stage scale: {values}, expected finite and positive")));
        }
        Ok(Self { method, shift, divisor })
    }
}

impl VectorMap for Scale {
    fn dim_in(&self) -> usize {
        self.dim()
    }

    fn dim_out(&self) -> usize {
        self.dim()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        match self.method {
            ScaleMethod::MinMax | ScaleMethod::GlobalMinMax => to_unit(input, &self.shift, &self.divisor, output),
            ScaleMethod::Standard => to_standard(input, &self.shift, &self.divisor, output),
        }
        Ok(())
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        Some(self)
    }
}

/// `x * divisor + shift`. A feature that was constant in the training rows becomes what it was there; what was clamped
/// comes back as the extreme that it was clamped to.
impl InverseMap for Scale {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        from_scaled(output, &self.shift, &self.divisor, input);
        Ok(())
    }
}

vectorised! {
    /// Rows in the units that they had before they were scaled.
    fn from_scaled(scaled: &[f32], shift: &[f32], divisor: &[f32], rows: &mut [f32]) {
        let dim = shift.len();
        for (scaled, rows) in scaled.chunks_exact(dim).zip(rows.chunks_exact_mut(dim)) {
            for (x, (y, (shift, divisor))) in rows.iter_mut().zip(scaled.iter().zip(shift.iter().zip(divisor))) {
                let apart = if divisor.is_finite() { y * divisor } else { 0.0 };
                *x = apart + shift;
            }
        }
    }
}

vectorised! {
    /// Rows between 0 and 1; what lies outside the training rows' extremes goes to the nearer one.
    fn to_unit(input: &[f32], shift: &[f32], divisor: &[f32], output: &mut [f32]) {
        let dim = shift.len();
        for (input, output) in input.chunks_exact(dim).zip(output.chunks_exact_mut(dim)) {
            for (y, (x, (shift, divisor))) in output.iter_mut().zip(input.iter().zip(shift.iter().zip(divisor))) {
                *y = (apart(*x, *shift) / divisor).clamp(0.0, 1.0);
            }
        }
    }
}

vectorised! {
    /// Rows less their mean, over their standard deviation.
    fn to_standard(input: &[f32], shift: &[f32], divisor: &[f32], output: &mut [f32]) {
        let dim = shift.len();
        for (input, output) in input.chunks_exact(dim).zip(output.chunks_exact_mut(dim)) {
            for (y, (x, (shift, divisor))) in output.iter_mut().zip(input.iter().zip(shift.iter().zip(divisor))) {
                *y = apart(*x, *shift) / divisor;
            }
        }
    }
}

impl Transform for Scale {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: FEATURES, map: self }
    }

    fn save(&self) -> Artifact {
        let tensor = |values: &[f32]| Tensor { shape: vec![values.len()], values: values.to_vec() };
        Artifact {
            settings: [("method".to_owned(), json!(self.method))].into_iter().collect(),
            tensors: [("shift", &self.shift), ("divisor", &self.divisor)]
                .into_iter()
                .map(|(name, values)| (name.to_owned(), tensor(values)))
                .collect(),
        }
    }
}

/// `x - shift`, or the last finite number: infinity over the infinite divisor of a constant feature would be no number.
#[inline(always)]
fn apart(x: f32, shift: f32) -> f32 {
    (x - shift).clamp(f32::MIN, f32::MAX)
}

/// The least value of all features and the range of all, for each feature.
fn global_min_max(rows: &dyn Rows, pool: &Pool) -> Result<(Vec<f32>, Vec<f32>)> {
    let (least, range) = min_max(rows, pool)?;
    let greatest = least.iter().zip(&range).map(|(least, range)| least + range).fold(f32::NEG_INFINITY, f32::max);
    let first = least.iter().copied().fold(f32::INFINITY, f32::min);
    Ok((vec![first; least.len()], vec![greatest - first; least.len()]))
}

/// The least value and the range of each feature.
fn min_max(rows: &dyn Rows, pool: &Pool) -> Result<(Vec<f32>, Vec<f32>)> {
    let dim = rows.dim();
    let start = || (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
    let parts = fold::fold(rows, pool, start, |(low, high), first, block| {
        check_finite(first, block, dim)?;
        for row in block.chunks_exact(dim) {
            low.iter_mut().zip(row).for_each(|(low, x)| *low = if x < low { *x } else { *low });
            high.iter_mut().zip(row).for_each(|(high, x)| *high = if x > high { *x } else { *high });
        }
        Ok(())
    })?;
    let (mut low, mut high) = start();
    for part in parts {
        low.iter_mut().zip(part.0).for_each(|(a, b)| *a = a.min(b));
        high.iter_mut().zip(part.1).for_each(|(a, b)| *a = a.max(b));
    }
    let range = low.iter().zip(&high).map(|(low, high)| high - low).collect();
    Ok((low, range))
}

/// The mean and the standard deviation of each feature, from sums about the first row.
fn mean_and_deviation(rows: &dyn Rows, pool: &Pool) -> Result<(Vec<f32>, Vec<f32>)> {
    let (n, dim) = (rows.len() as f64, rows.dim());
    let mut origin = vec![0.0; dim];
    rows.read(0..1, &mut origin)?;
    let parts = fold::fold(
        rows,
        pool,
        || (vec![0.0; dim], vec![0.0; dim]),
        |(sums, squares), first, block| {
            check_finite(first, block, dim)?;
            sums::add_moments(block, &origin, sums, squares);
            Ok(())
        },
    )?;
    let total = |i: usize| parts.iter().fold((0.0, 0.0), |(s, q), part| (s + part.0[i], q + part.1[i]));
    let feature = |i: usize| {
        let (sum, squares) = total(i);
        let scatter = (squares - sum * sum / n).max(0.0);
        // No row lies farther from the mean than the root of the scatter; then every difference can be taken.
        let within = scatter.sqrt() <= f64::from(f32::MAX);
        let deviation = if within { (scatter / n).sqrt() as f32 } else { f32::INFINITY };
        ((f64::from(origin[i]) + sum / n) as f32, deviation)
    };
    Ok((0..dim).map(feature).unzip())
}

fn check_finite(first: usize, block: &[f32], dim: usize) -> Result<()> {
    if block.iter().fold(true, |finite, x| finite & x.is_finite()) {
        return Ok(());
    }
    let at = block.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let place = format!("row {}, feature {}", first + at / dim, at % dim);
    Err(Error::input(format!("{place} is {}; the scale is learned from finite values", block[at])))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;
    use proptest::prelude::*;

    use super::*;
    use crate::column;
    use crate::kernel::Dense;
    use crate::stage::Apply;

    fn learn(rows: &[f32], dim: usize, method: ScaleMethod) -> Result<Scale> {
        Scale::learn(&Dense::new(rows, dim), method, &Pool::new(2))
    }

    fn mapped(scale: &Scale, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![9.0; rows.len()];
        scale.map(rows, &mut out).unwrap();
        out
    }

    #[test]
    fn min_max_spans_zero_to_one_and_clamps_what_comes_later() {
        let scale = learn(&[1.0, 5.0, 3.0, 5.0, 2.0, 5.0], 2, ScaleMethod::MinMax).unwrap();
        assert_eq!(mapped(&scale, &[1.0, 5.0, 3.0, 5.0, 2.0, 5.0]), [0.0, 0.0, 1.0, 0.0, 0.5, 0.0]);
        assert_eq!(mapped(&scale, &[-7.0, 9.0, 70.0, -9.0]), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn standard_has_mean_zero_and_deviation_one() {
        // numpy: x = [2, 4, 4, 4, 5, 5, 7, 9]; (x - x.mean()) / x.std() with mean 5, std 2
        let scale = learn(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 1, ScaleMethod::Standard).unwrap();
        assert_eq!(mapped(&scale, &[2.0, 5.0, 9.0]), [-1.5, 0.0, 2.0]);
        let constant = learn(&[3.0, 3.0], 1, ScaleMethod::Standard).unwrap();
        assert_eq!(mapped(&constant, &[3.0, 4.0]), [0.0, 0.0]);
    }

    #[test]
    fn the_inverse_gives_the_source_s_units_back() {
        for method in [ScaleMethod::MinMax, ScaleMethod::Standard] {
            let rows = [2.0, 7.0, -1.5, 4.0, 7.0, 0.5, 8.0, 7.0, 3.0];
            let scale = learn(&rows, 3, method).unwrap();
            let mut back = vec![f32::NAN; 9];
            scale.invert(&mapped(&scale, &rows), &mut back).unwrap();
            assert!(back.iter().zip(&rows).all(|(a, b)| (a - b).abs() < 1e-6), "{method:?}: {back:?}");
        }
        let scale = learn(&[1.0, 5.0, 3.0, 5.0], 2, ScaleMethod::MinMax).unwrap();
        let mut back = vec![f32::NAN; 4];
        scale.invert(&mapped(&scale, &[-7.0, 9.0, 2.0, 5.0]), &mut back).unwrap();
        assert_eq!(back, [1.0, 5.0, 2.0, 5.0]);
        scale.invert(&[0.25, 0.5, 1.0, -3.0], &mut back).unwrap();
        assert_eq!(back, [1.5, 5.0, 3.0, 5.0]);
    }

    #[test]
    fn bad_rows_are_named() {
        let error = learn(&[1.0, 2.0, 3.0, f32::NAN], 2, ScaleMethod::MinMax).unwrap_err();
        assert!(error.to_string().starts_with("row 1, feature 1 is NaN"), "{error}");
        let error = learn(&[f32::INFINITY, 2.0], 2, ScaleMethod::Standard).unwrap_err();
        assert!(error.to_string().starts_with("row 0, feature 0 is inf"), "{error}");
        let error = learn(&[-3e38, 3e38], 1, ScaleMethod::MinMax).unwrap_err();
        assert!(error.to_string().starts_with("feature 0 spans more"), "{error}");
        assert!(learn(&[], 1, ScaleMethod::MinMax).is_err());
    }

    #[test]
    fn a_batch_keeps_its_other_columns() {
        let scale = learn(&[0.0, 0.0, 2.0, 4.0], 2, ScaleMethod::MinMax).unwrap();
        let schema =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, false), column::vector_field(FEATURES, 2)]));
        let ids = Arc::new(Int32Array::from(vec![7, 8]));
        let vectors = column::vector_array(vec![1.0, 1.0, 2.0, 0.0], 2).unwrap();
        let batch = RecordBatch::try_new(schema.clone(), vec![ids, vectors]).unwrap();
        let out = scale.apply(&batch).unwrap();
        assert_eq!(out.schema(), scale.output_schema(&schema).unwrap());
        assert_eq!(out.column(0), batch.column(0));
        assert_eq!(column::vectors(&out, FEATURES).unwrap().0, [0.5, 0.25, 1.0, 0.0]);
        let other = Schema::new(vec![column::vector_field(FEATURES, 3)]);
        assert!(
            scale
                .output_schema(&other)
                .unwrap_err()
                .to_string()
                .contains("made for 2 values a row, column \"features\" has 3")
        );
    }

    #[test]
    fn a_damaged_artifact_is_refused() {
        let scale = learn(&[0.0, 0.0, 2.0, 4.0], 2, ScaleMethod::MinMax).unwrap();
        assert_eq!(Scale::from_artifact(&scale.save()).unwrap(), scale);
        let damage: [fn(&mut Artifact); 4] = [
            |a| drop(a.settings.insert("method".into(), json!("max"))),
            |a| drop(a.tensors.remove("shift")),
            |a| a.tensors.get_mut("shift").unwrap().shape = vec![1, 2],
            |a| a.tensors.get_mut("divisor").unwrap().values[1] = 0.0,
        ];
        for damage in damage {
            let mut artifact = scale.save();
            damage(&mut artifact);
            assert_eq!(Scale::from_artifact(&artifact).unwrap_err().kind(), crate::Kind::Model);
        }
    }

    /// One to sixty rows, each feature of one kind: usual, constant, zeros, denormal, huge, or of few values.
    fn columns() -> impl Strategy<Value = Vec<Vec<f32>>> {
        prop_oneof![1 => Just(1usize), 9 => 2usize..60].prop_flat_map(|n| {
            let column = prop_oneof![
                prop::collection::vec(-5.0f32..5.0, n),
                prop::sample::select(vec![0.0f32, 0.3, 1e-40, f32::MIN, 1e30]).prop_map(move |x| vec![x; n]),
                prop::collection::vec((-9i32..9).prop_map(|i| i as f32 * 1e-44), n),
                prop::collection::vec(-1e30f32..1e30, n),
                prop::collection::vec(prop::sample::select(vec![f32::MAX, 0.0, f32::MIN, 1.0]), n),
                prop::collection::vec((0i32..3).prop_map(|i| i as f32), n),
            ];
            prop::collection::vec(column, 1..6)
        })
    }

    proptest! {
        #[test]
        fn every_feature_is_scaled_by_its_definition(columns in columns()) {
            let (n, dim) = (columns[0].len(), columns.len());
            let rows: Vec<f32> = (0..n * dim).map(|i| columns[i % dim][i / dim]).collect();
            let ends: Vec<(f32, f32)> = columns
                .iter()
                .map(|c| (c.iter().copied().fold(f32::MAX, f32::min), c.iter().copied().fold(f32::MIN, f32::max)))
                .collect();
            match learn(&rows, dim, ScaleMethod::MinMax) {
                Ok(scale) => {
                    for (i, y) in mapped(&scale, &rows).into_iter().enumerate() {
                        let (low, high) = ends[i % dim];
                        let expected = if high > low { (rows[i] - low) / (high - low) } else { 0.0 };
                        prop_assert_eq!(y.to_bits(), expected.to_bits());
                        prop_assert!((0.0..=1.0).contains(&y));
                    }
                    for later in [0.0, f32::MAX, f32::MIN, 1e-45] {
                        for (y, (low, high)) in mapped(&scale, &vec![later; dim]).into_iter().zip(&ends) {
                            prop_assert!((0.0..=1.0).contains(&y) && (y == 0.0 || low < high), "{later}: {y}");
                        }
                    }
                }
                Err(error) => {
                    prop_assert!(error.to_string().contains("spans more than 32-bit floats can hold"));
                    prop_assert!(ends.iter().any(|(low, high)| (high - low).is_infinite()));
                }
            }
            // The mean, the deviation, and the root of the summed squares about the mean.
            let moments = |column: &Vec<f32>| {
                let mean = column.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
                let squares: f64 = column.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
                (mean, (squares / n as f64).sqrt(), squares.sqrt())
            };
            let twins: Vec<(f64, f64, f64)> = columns.iter().map(moments).collect();
            match learn(&rows, dim, ScaleMethod::Standard) {
                Ok(scale) => {
                    for (i, y) in mapped(&scale, &rows).into_iter().enumerate() {
                        let (mean, deviation, _) = twins[i % dim];
                        let expected = (f64::from(rows[i]) - mean) / deviation;
                        prop_assert!(y.is_finite());
                        if ends[i % dim].0 == ends[i % dim].1 {
                            prop_assert_eq!(y, 0.0);
                        } else if deviation > 1e-30 {
                            // The mean was rounded to 32 bits.
                            let rounding = 1e-5 + 2e-7 * mean.abs() / deviation;
                            prop_assert!((f64::from(y) - expected).abs() < rounding, "{y} {expected}");
                        }
                    }
                }
                Err(error) => {
                    prop_assert!(error.to_string().contains("spans more than 32-bit floats can hold"));
                    prop_assert!(twins.iter().any(|t| t.2 > 3e38), "{twins:?}");
                }
            }
        }

        #[test]
        fn threads_change_no_bit(dim in 1usize..9, rows in prop::collection::vec(-1e6f32..1e6, 9..20_000)) {
            let rows = &rows[..rows.len() / dim * dim];
            for method in [ScaleMethod::MinMax, ScaleMethod::Standard] {
                let one = Scale::learn(&Dense::new(rows, dim), method, &Pool::new(1)).unwrap();
                let three = Scale::learn(&Dense::new(rows, dim), method, &Pool::new(3)).unwrap();
                prop_assert_eq!(&one, &three);
                if method == ScaleMethod::MinMax {
                    let out = mapped(&one, rows);
                    prop_assert!(out.iter().all(|y| (0.0..=1.0).contains(y)));
                    if rows.len() > 20 * dim {
                        prop_assert!(out.contains(&0.0) && out.contains(&1.0));
                    }
                }
            }
        }
    }
}
