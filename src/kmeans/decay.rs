//! How fast online k-means forgets.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// By how much the weight of all rows so far shrinks when a batch of `n` rows comes: it is multiplied by a factor `a`
/// between 0 and 1. The rows of the batch itself all weigh 1.
///
/// | decay | `a` |
/// |---|---|
/// | [`None`](Self::None) | `1` |
/// | [`Factor`](Self::Factor)`(f)` | `f` |
/// | half-life of `h` batches | `2^(-1 / h)` |
/// | half-life of `h` rows | `2^(-n / h)` |
/// | half-life of a time `h` | `2^(-t / h)`, with `t` how much newer the newest row is than the newest before |
///
/// ```
/// use dacpipe::kmeans::{Decay, HalfLife};
/// assert_eq!(Decay::HalfLife(HalfLife::Rows(500.0)).factor(1000, 0.0), 0.25);
/// assert_eq!(Decay::HalfLife(HalfLife::Batches(1.0)).factor(1000, 0.0), 0.5);
/// let hour = 3_600_000_000_000;
/// assert_eq!(Decay::HalfLife(HalfLife::Time(hour)).factor(1000, 3.0 * hour as f64), 0.125);
/// assert!(Decay::HalfLife(HalfLife::Rows(0.0)).check().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Nothing is forgotten: a centroid is the mean of all rows that it was ever given.
    #[default]
    None,
    /// The factor itself, once a batch: 1 forgets nothing, 0 all that came before the batch.
    Factor(f64),
    /// After how much a row weighs half of what it weighed at first.
    HalfLife(HalfLife),
}

/// After how much a row weighs half of what it weighed at first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HalfLife {
    /// So many rows of the stream, whatever their cluster.
    Rows(f64),
    /// So many batches.
    Batches(f64),
    /// So many nanoseconds of event time.
    Time(i64),
}

impl Decay {
    /// Checks the setting.
    ///
    /// # Errors
    /// Kind `Config`, naming it and what would be accepted.
    pub fn check(self) -> Result<()> {
        let half_life = |value: f64, unit: &str| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "half_life = {value} {unit}, expected a number above 0 (without decay nothing is forgotten)"
            ))),
        };
        match self {
            Self::None => Ok(()),
            Self::Factor(factor) if (0.0..=1.0).contains(&factor) => Ok(()),
            Self::Factor(factor) => Err(Error::config(format!(
                "decay = {factor}, expected a factor from 0 (forgets all before the newest batch) to 1 (forgets nothing)"
            ))),
            Self::HalfLife(HalfLife::Rows(rows)) => half_life(rows, "rows"),
            Self::HalfLife(HalfLife::Batches(batches)) => half_life(batches, "batches"),
            Self::HalfLife(HalfLife::Time(nanoseconds)) => half_life(nanoseconds as f64, "nanoseconds"),
        }
    }

    /// The factor `a` for a batch of `rows` rows whose newest is `elapsed` nanoseconds newer than the newest before it.
    pub fn factor(self, rows: usize, elapsed: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Factor(factor) => factor,
            Self::HalfLife(HalfLife::Batches(batches)) => (-1.0 / batches).exp2(),
            Self::HalfLife(HalfLife::Rows(half)) => (-(rows as f64) / half).exp2(),
            Self::HalfLife(HalfLife::Time(half)) => (-elapsed / half as f64).exp2(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn what_forgets_nothing_or_more_than_all_is_refused_with_words() {
        let refused = |decay: Decay, words: &str| {
            let e = decay.check().unwrap_err();
            assert_eq!(e.kind(), Kind::Config);
            assert!(e.to_string().starts_with(words) && e.to_string().contains("expected"), "{e}");
        };
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused(Decay::HalfLife(HalfLife::Rows(bad)), &format!("half_life = {bad} rows"));
            refused(Decay::HalfLife(HalfLife::Batches(bad)), &format!("half_life = {bad} batches"));
        }
        for bad in [0, -1, i64::MIN] {
            refused(Decay::HalfLife(HalfLife::Time(bad)), "half_life = ");
        }
        for bad in [-0.1, 1.5, f64::NAN, f64::INFINITY] {
            refused(Decay::Factor(bad), &format!("decay = {bad}"));
        }
        let half_lives = [HalfLife::Rows(1e-300), HalfLife::Batches(0.5), HalfLife::Time(i64::MAX)];
        let good =
            half_lives.map(Decay::HalfLife).into_iter().chain([Decay::None, Decay::Factor(0.0), Decay::Factor(1.0)]);
        for decay in good {
            decay.check().unwrap();
            let factor = decay.factor(7, 5e9);
            assert!((0.0..=1.0).contains(&factor), "{decay:?}: {factor}");
        }
    }

    #[test]
    fn two_half_lives_leave_a_quarter() {
        let factor = |half_life, rows, elapsed| Decay::HalfLife(half_life).factor(rows, elapsed);
        assert_eq!(factor(HalfLife::Rows(50.0), 100, 0.0), 0.25);
        assert_eq!(factor(HalfLife::Rows(50.0), 0, 9e9), 1.0);
        assert_eq!(factor(HalfLife::Batches(0.5), 100, 9e9), 0.25);
        assert_eq!(factor(HalfLife::Time(50), 7, 100.0), 0.25);
        assert_eq!(factor(HalfLife::Time(50), 7, 0.0), 1.0);
        assert_eq!((Decay::None.factor(7, 1e9), Decay::Factor(0.9).factor(7, 1e9)), (1.0, 0.9));
    }
}
