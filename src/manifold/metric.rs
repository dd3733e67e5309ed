//! Distances between rows.

use std::ops::Range;

use crate::error::Result;
use crate::kernel::{self, Pool, Rows, fold};

/// The distance by which neighbours are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The Euclidean distance.
    #[default]
    Euclidean,
    /// One minus the cosine of the angle between two rows. A row of zeros is at distance 1 from every other.
    Cosine,
    /// One minus the correlation of two rows: the cosine after each row's own mean was subtracted.
    Correlation,
}

/// Rows transformed so that the squared Euclidean distance orders them as the metric does.
pub(super) struct Prepared<'a> {
    rows: &'a dyn Rows,
    metric: Metric,
    /// The mean row, which is subtracted so that distances lose fewer digits.
    mean: Vec<f32>,
}

impl<'a> Prepared<'a> {
    pub fn new(rows: &'a dyn Rows, metric: Metric, pool: &Pool) -> Result<Self> {
        let sums = fold::sums(rows, rows.dim(), pool, |sums, _, row| {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        })?;
        if sums.iter().any(|sum| !sum.is_finite()) {
            return Err(fold::not_finite(rows, "manifold").into());
        }
        let mean = match metric {
            Metric::Euclidean => sums.into_iter().map(|sum| (sum / rows.len() as f64) as f32).collect(),
            Metric::Cosine | Metric::Correlation => Vec::new(),
        };
        Ok(Self { rows, metric, mean })
    }

    /// The distance by the metric, if `squared` is the squared Euclidean distance of two prepared rows.
    pub fn distance(&self, squared: f32) -> f32 {
        match self.metric {
            Metric::Euclidean => squared.sqrt(),
            // For unit vectors |x - y|^2 = 2 - 2 x.y.
            Metric::Cosine | Metric::Correlation => 0.5 * squared,
        }
    }

    fn prepare(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.rows.dim()) {
            if self.metric == Metric::Euclidean {
                row.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
                continue;
            }
            if self.metric == Metric::Correlation {
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
                row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
            }
            let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        }
    }
}

impl Rows for Prepared<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> kernel::Result<()> {
        self.rows.read(range, out)?;
        self.prepare(out);
        Ok(())
    }

    fn gather(&self, indices: &[u32], out: &mut [f32]) -> kernel::Result<()> {
        self.rows.gather(indices, out)?;
        self.prepare(out);
        Ok(())
    }
}
