//! What is subtracted of features in double precision before they become single: the step from `f64` to `f32`.
//!
//! Single precision has 24 bits. Of an epoch in milliseconds, or of metres from a far corner of a map, they are used up by
//! what all rows have in common, and the differences that clusters are made of are lost. So each such feature gets an
//! origin, a value in the middle of its own, which is subtracted in double precision; what is left keeps 24 bits. A
//! feature whose values are not far from zero for how far they are apart has origin 0 and loses nothing by it.
//!
//! Where no feature needs an origin the stage is left out of the model, which then is the one that the same values in
//! single precision give.

use std::sync::Arc;

use arrow::datatypes::Schema;
use serde_json::json;

use crate::column;
use crate::error::{Error, Result};
use crate::kernel::Rows;
use crate::stage::{Action, Apply, Artifact, FEATURES, InverseMap, Transform, VectorMap};

/// Rows of a [`Look`], where vectors are short enough.
const MOST_ROWS: usize = 1024;
/// Values of a [`Look`], where vectors are not.
const MOST_VALUES: usize = 1 << 22;
/// A feature that lies farther from zero than this many times what most of its values span gets an origin: six bits of
/// its 24 would tell rows apart no more.
const FAR: f64 = 64.0;

/// The fitted stage: `x - origin`, feature by feature, in double precision, as single precision. Takes vectors of either.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    values: Vec<f64>,
}

impl Origin {
    /// Its kind as a stage.
    pub const KIND: &'static str = "origin";

    /// Of features that have none: the plain step to single precision, which is part of no model.
    pub fn zero(dim: usize) -> Self {
        Self { values: vec![0.0; dim] }
    }

    /// The origin of features of which `look` saw some rows; `None` where no feature needs one.
    pub fn learn(look: &Look) -> Option<Self> {
        let values: Vec<f64> = (0..look.dim).map(|feature| origin_of(&look.sorted(feature))).collect();
        values.iter().any(|&value| value != 0.0).then_some(Self { values })
    }

    /// The stage that takes rows back to where they were.
    pub fn back(&self) -> Self {
        Self { values: self.values.iter().map(|value| -value).collect() }
    }

    /// Rows in single precision less the origin, row-major, in double precision.
    pub fn widened(&self, rows: &[f32]) -> Vec<f64> {
        rows.iter().zip(self.values.iter().cycle()).map(|(x, origin)| f64::from(*x) - origin).collect()
    }

    /// Rows less the origin, row-major.
    ///
    /// # Panics
    /// If `rows` and `output` differ in length.
    pub fn subtract(&self, rows: &[f64], output: &mut [f32]) {
        assert_eq!(rows.len(), output.len(), "rows and output differ in length");
        let dim = self.values.len();
        for (row, output) in rows.chunks_exact(dim).zip(output.chunks_exact_mut(dim)) {
            for ((y, x), origin) in output.iter_mut().zip(row).zip(&self.values) {
                *y = less(*x, *origin);
            }
        }
    }

    /// The stage as it was saved.
    ///
    /// # Errors
    /// Kind `Model` if there are no values or one is not a finite number.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let values = artifact.settings.get("values").cloned().unwrap_or_default();
        let values: Vec<f64> = serde_json::from_value(values)
            .map_err(|e| Error::model("stage origin: values, expected a list of numbers").with_source(e))?;
        match values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            true => Err(Error::model("stage origin: expected a finite number for each feature")),
            false => Ok(Self { values }),
        }
    }
}

/// `x - origin` in single precision, at most the greatest number of it.
fn less(x: f64, origin: f64) -> f32 {
    ((x - origin) as f32).clamp(f32::MIN, f32::MAX)
}

/// The origin of a feature whose values these are, sorted: their median if single precision loses much of them without.
fn origin_of(sorted: &[f64]) -> f64 {
    let exact = sorted.iter().all(|&x| f64::from(x as f32) == x);
    let (Some(&median), false) = (sorted.get(sorted.len() / 2), exact || sorted.first() == sorted.last()) else {
        return 0.0;
    };
    let tail = sorted.len() / 10;
    let span = sorted[sorted.len() - 1 - tail] - sorted[tail];
    let left = |origin: f64| distinct(sorted.iter().map(|&x| less(x, origin)));
    let together = || fell_together(distinct(sorted.iter().copied()), left(0.0)) && left(median) > left(0.0);
    if median.abs() > FAR * span || together() { median } else { 0.0 }
}

/// How many different values there are in sorted ones.
fn distinct<T: PartialEq + Copy>(sorted: impl Iterator<Item = T>) -> usize {
    let mut last = None;
    sorted.filter(|&value| last.replace(value) != Some(value)).count()
}

/// Whether so few of `values` different values are `left` that rows can no longer be told apart by them: fewer than nine
/// in ten. Of values that are spread evenly not one in a thousand is lost.
pub(crate) fn fell_together(values: usize, left: usize) -> bool {
    left * 10 < values * 9
}

/// Some of the rows that are learned from, evenly spaced, as the source gives them: enough to see what single precision
/// and the scale do to each feature.
#[derive(Debug, Clone)]
pub struct Look {
    dim: usize,
    values: Vec<f64>,
}

/// A feature of which different values became the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallen {
    /// Its place.
    pub feature: usize,
    /// How many different values it has in the rows that were looked at.
    pub values: usize,
    /// How many different numbers became of them.
    pub left: usize,
}

impl Look {
    /// At rows of either precision: at most 1024, and no more than 4 million values.
    ///
    /// # Errors
    /// What reading gives.
    pub fn at<T: Copy + Default + Into<f64>>(rows: &dyn Rows<T>) -> Result<Self> {
        let (len, dim) = (rows.len(), rows.dim());
        let count = len.min(MOST_ROWS).min((MOST_VALUES / dim.max(1)).max(2));
        let mut row = vec![T::default(); dim];
        let mut values = Vec::with_capacity(count * dim);
        for i in 0..count {
            // Fewer than 2^32 rows times fewer than 2^11: no overflow.
            let number = i * len / count;
            rows.read(number..number + 1, &mut row)?;
            values.extend(row.iter().map(|&value| value.into()));
        }
        Ok(Self { dim, values })
    }

    /// How many rows were looked at.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    /// The features of which different values became the same number, less `origin` and through `map`, which keeps
    /// features in their places.
    ///
    /// # Errors
    /// What `map` gives.
    pub fn fallen(&self, origin: Option<&Origin>, map: Option<&dyn VectorMap>) -> Result<Vec<Fallen>> {
        if origin.is_none() && map.is_none() && self.values.iter().all(|&x| f64::from(x as f32) == x) {
            return Ok(Vec::new());
        }
        let mut seen = vec![0.0; self.values.len()];
        match origin {
            Some(origin) => origin.subtract(&self.values, &mut seen),
            None => Origin::zero(self.dim).subtract(&self.values, &mut seen),
        }
        if let Some(map) = map {
            let given = seen.clone();
            map.map(&given, &mut seen)?;
        }
        let fallen = |feature: usize| {
            let mut left: Vec<f32> = seen.iter().skip(feature).step_by(self.dim).copied().collect();
            left.retain(|value| !value.is_nan());
            left.sort_unstable_by(f32::total_cmp);
            let [values, left] = [distinct(self.sorted(feature).into_iter()), distinct(left.into_iter())];
            fell_together(values, left).then_some(Fallen { feature, values, left })
        };
        Ok((0..self.dim).filter_map(fallen).collect())
    }

    /// The values of a feature, sorted.
    fn sorted(&self, feature: usize) -> Vec<f64> {
        let mut values: Vec<f64> = self.values.iter().skip(feature).step_by(self.dim).copied().collect();
        // A missing value is no value.
        values.retain(|value| !value.is_nan());
        values.sort_unstable_by(f64::total_cmp);
        values
    }
}

impl VectorMap for Origin {
    fn dim_in(&self) -> usize {
        self.values.len()
    }

    fn dim_out(&self) -> usize {
        self.values.len()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let dim = self.values.len();
        for (row, output) in input.chunks_exact(dim).zip(output.chunks_exact_mut(dim)) {
            for ((y, x), origin) in output.iter_mut().zip(row).zip(&self.values) {
                *y = less(f64::from(*x), *origin);
            }
        }
        Ok(())
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        Some(self)
    }

    fn as_origin(&self) -> Option<&Origin> {
        Some(self)
    }
}

/// `x + origin`, rounded to single precision.
impl InverseMap for Origin {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        self.back().map(output, input)
    }
}

impl Transform for Origin {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: FEATURES, map: self }
    }

    /// The values go with the settings: an array of the model is in single precision.
    fn save(&self) -> Artifact {
        let settings = [("values".to_owned(), json!(self.values))].into_iter().collect();
        Artifact { settings, ..Artifact::default() }
    }
}

/// What turns batches of schema `input` into what `stages` take: the step to single precision where the features are in
/// double precision and none of the stages takes those.
pub fn narrowing(input: &Schema, stages: &[Arc<dyn Transform>]) -> Result<Option<Origin>> {
    let taken = stages.iter().any(|stage| stage.vector_map().is_some_and(|map| map.as_origin().is_some()));
    match column::is_double(input, FEATURES) && !taken {
        true => Ok(Some(Origin::zero(column::vector_dim(input, FEATURES)?))),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::column::{double_array, double_field, vector_array, vector_field};

    /// Rows in one slice, in double precision.
    struct Doubles(Vec<f64>, usize);

    impl Rows<f64> for Doubles {
        fn len(&self) -> usize {
            self.0.len() / self.1
        }

        fn dim(&self) -> usize {
            self.1
        }

        fn read(&self, range: std::ops::Range<usize>, out: &mut [f64]) -> crate::kernel::Result<()> {
            out.copy_from_slice(&self.0[range.start * self.1..range.end * self.1]);
            Ok(())
        }
    }

    /// Of one feature for each function of the row's number.
    fn look(rows: usize, features: &[&dyn Fn(usize) -> f64]) -> Look {
        let values = (0..rows).flat_map(|row| features.iter().map(move |feature| feature(row))).collect();
        Look::at(&Doubles(values, features.len())).unwrap()
    }

    #[test]
    fn only_what_lies_far_from_zero_gets_an_origin() {
        let wave = |row: usize| (row as f64 * 0.7).sin();
        let time = |row: usize| 1.7e12 + row as f64;
        let found = look(300, &[&wave, &time, &|row| 20.0 + wave(row), &|_| 1.7e12 + 0.1]);
        let origin = Origin::learn(&found).unwrap();
        assert_eq!(origin.values, [0.0, 1.7e12 + 150.0, 0.0, 0.0]);
        assert_eq!(found.fallen(Some(&origin), None).unwrap(), []);
        let plain = found.fallen(None, None).unwrap();
        assert!(plain.len() == 1 && (plain[0].feature, plain[0].values) == (1, 300) && plain[0].left < 10, "{plain:?}");
        // Whole numbers that single precision holds need none, however near each other.
        assert_eq!(Origin::learn(&look(300, &[&wave, &|row| 16_000_000.0 + row as f64])), None);
    }

    #[test]
    fn a_row_far_from_all_others_does_not_move_the_origin_away_from_them() {
        let found = look(300, &[&|row| if row == 7 { 0.0 } else { 1.7e12 + row as f64 }]);
        let origin = Origin::learn(&found).unwrap();
        assert!((origin.values[0] - 1.7e12).abs() < 300.0);
        assert_eq!(found.fallen(Some(&origin), None).unwrap(), []);
    }

    #[test]
    fn what_single_precision_cannot_tell_apart_is_counted() {
        let found = look(5000, &[&|row| row as f64 * 1e-70, &|_| 0.3, &|row| row as f64]);
        assert_eq!(found.rows(), MOST_ROWS);
        assert_eq!(Origin::learn(&found), None);
        let fallen = found.fallen(None, None).unwrap();
        assert_eq!(fallen, [Fallen { feature: 0, values: MOST_ROWS, left: 1 }]);
    }

    #[test]
    fn both_precisions_lose_the_same_and_come_back() {
        let origin = Origin { values: vec![1_700_000_000.0, 0.0] };
        let (rows, singles) = ([1_700_000_128.0, 2.5, 0.0, -1e300], [1_700_000_128.0f32, 2.5, 0.0, f32::MIN]);
        let schema = |field| Arc::new(Schema::new(vec![field]));
        let double = schema(double_field(FEATURES, 2));
        let double = RecordBatch::try_new(double, vec![double_array(rows.to_vec(), 2).unwrap()]).unwrap();
        let single = schema(vector_field(FEATURES, 2));
        let single = RecordBatch::try_new(single, vec![vector_array(singles.to_vec(), 2).unwrap()]).unwrap();
        let found = origin.apply(&double).unwrap();
        assert_eq!(found, origin.apply(&single).unwrap());
        assert_eq!(found.schema(), origin.output_schema(double.schema_ref()).unwrap());
        let (moved, _) = column::vectors(&found, FEATURES).unwrap();
        assert_eq!(moved, [128.0, 2.5, -1_700_000_000.0, f32::MIN]);
        let mut back = [0.0; 4];
        origin.invert(moved, &mut back).unwrap();
        assert_eq!(back, singles);
        let one = origin.apply(&double.slice(1, 1)).unwrap();
        assert_eq!(column::vectors(&one, FEATURES).unwrap().0, moved[2..].as_ref());
        let e = origin.output_schema(&Schema::new(vec![double_field(FEATURES, 3)])).unwrap_err();
        assert!(e.to_string().contains("made for 2 values a row, column \"features\" has 3"), "{e}");
    }

    #[test]
    fn it_is_saved_to_the_last_bit_and_damage_is_refused() {
        let origin = Origin { values: vec![9_007_199_254_740_991.0, 0.1 + 0.2, -0.0] };
        let saved = origin.save();
        let read = serde_json::from_str(&serde_json::to_string(&saved.settings).unwrap()).unwrap();
        assert_eq!(Origin::from_artifact(&Artifact { settings: read, ..Artifact::default() }).unwrap(), origin);
        for values in [json!([]), json!(["x"]), json!(null), json!(7)] {
            let settings = [("values".to_owned(), values)].into_iter().collect();
            let e = Origin::from_artifact(&Artifact { settings, ..Artifact::default() }).unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Model);
        }
        assert_eq!(Origin::from_artifact(&Artifact::default()).unwrap_err().kind(), crate::Kind::Model);
    }
}
