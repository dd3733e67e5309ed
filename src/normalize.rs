//! What is done to vectors before clusters are looked for in them.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernel::symmetric::eigen;
use crate::kernel::{self, Pool, Rows, fold};
use crate::stage::{Artifact, Tensor};

/// A direction that varies by less than this part of the most varying one is taken for noise and left out.
const LEAST_VARIANCE: f64 = 1e-10;
/// The scatter within clusters counts as at least this part of that in its widest direction.
const LEAST_SCATTER: f64 = 1e-6;
/// Rows that are normalised at a time.
const BLOCK: usize = 256;

/// How vectors are normalised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Not at all.
    #[default]
    None,
    /// Each value to mean 0 and standard deviation 1.
    Standard,
    /// The same along the principal axes: values are no longer correlated, and distances are Mahalanobis distances.
    Whiten,
    /// By the scatter within the clusters, pooled over all of them, which is found in turns with the clusters: distances
    /// are Mahalanobis distances of rows within a cluster. A direction in which clusters are wide counts less, so that an
    /// elongated cluster is not cut in two.
    Within,
}

/// A learned normalisation: `z_i = scale_i * axis_i . (x - mean)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalizer {
    mean: Vec<f32>,
    /// 0 for a direction that is left out.
    scales: Vec<f32>,
    /// `dim x dim`, an axis a row; none for the axes of the vectors themselves.
    axes: Option<Vec<f32>>,
}

impl Normalizer {
    /// Learns from `rows`; nothing for [`Normalize::None`]. `O(rows x dim)`, or `O(rows x dim^2)` to whiten; the same bits
    /// for any number of threads.
    ///
    /// # Errors
    /// What reading gives.
    ///
    /// ```
    /// use dacpipe::kernel::{Dense, Pool};
    /// use dacpipe::normalize::{Normalize, Normalizer};
    /// let rows = Dense::new(&[1.0, 5.0, 3.0, 5.0], 2);
    /// let normalizer = Normalizer::learn(Normalize::Standard, &rows, &Pool::new(1))?.expect("there is something to do");
    /// let mut out = [0.0; 2];
    /// normalizer.apply(&[4.0, 7.0], &mut out);
    /// // The second value never varies, so it says nothing.
    /// assert_eq!(out, [2.0, 0.0]);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    pub fn learn(how: Normalize, rows: &dyn Rows, pool: &Pool) -> Result<Option<Self>> {
        let whiten = match how {
            Normalize::None => return Ok(None),
            // The turns begin with the clusters of standardised values.
            Normalize::Standard | Normalize::Within => false,
            Normalize::Whiten => true,
        };
        let (n, dim) = (rows.len().max(1) as f64, rows.dim());
        let mean: Vec<f64> = fold::sums(rows, dim, pool, |sums, _, row| {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        })?
        .into_iter()
        .map(|sum| sum / n)
        .collect();
        let width = if whiten { dim * dim } else { dim };
        let moments = fold::sums(rows, width, pool, |sums, _, row| match whiten {
            true => add_products(sums, row, &mean),
            false => {
                for ((sum, &x), mean) in sums.iter_mut().zip(row).zip(&mean) {
                    *sum += (f64::from(x) - mean).powi(2);
                }
            }
        })?;
        let (variances, axes) = match whiten {
            true => {
                let (values, axes) = eigen(&moments, dim);
                (values, Some(axes.into_iter().map(|x| x as f32).collect()))
            }
            false => (moments, None),
        };
        let least = variances.iter().copied().fold(0.0, f64::max) * LEAST_VARIANCE;
        let scale = |sum: &f64| if *sum > least { (n / sum).sqrt() as f32 } else { 0.0 };
        let scales = variances.iter().map(scale).collect();
        Ok(Some(Self { mean: mean.into_iter().map(|m| m as f32).collect(), scales, axes }))
    }

    /// Multiplies each value by its factor: `factors` has one for each value of a row.
    pub fn multiply(factors: Vec<f32>) -> Self {
        Self { mean: vec![0.0; factors.len()], scales: factors, axes: None }
    }

    /// By the scatter of `rows` about the centroids (`k x dim`) that `labels` name, one a row; see [`Normalize::Within`].
    /// A direction in which clusters have next to no width counts as if they had a thousandth of their greatest width.
    /// `O(rows x dim^2)`.
    ///
    /// # Errors
    /// What reading gives.
    ///
    /// # Panics
    /// If there is not a label each row, or one names no centroid.
    pub fn within(rows: &dyn Rows, labels: &[u32], centroids: &[f32], pool: &Pool) -> Result<Self> {
        assert_eq!(rows.len(), labels.len(), "a label each row");
        let dim = rows.dim();
        let centroids: Vec<f64> = centroids.iter().map(|&x| f64::from(x)).collect();
        let products = fold::sums(rows, dim * dim, pool, |sums, number, row| {
            add_products(sums, row, &centroids[labels[number] as usize * dim..][..dim]);
        })?;
        let (values, axes) = eigen(&products, dim);
        let least = values.first().copied().unwrap_or(0.0) * LEAST_SCATTER;
        let n = rows.len().max(1) as f64;
        let scale = |sum: &f64| if least > 0.0 { (n / sum.max(least)).sqrt() as f32 } else { 1.0 };
        let axes = axes.into_iter().map(|x| x as f32).collect();
        Ok(Self { mean: vec![0.0; dim], scales: values.iter().map(scale).collect(), axes: Some(axes) })
    }

    /// The logarithm of the determinant of the scatter that it divides by, but for a constant: of two normalisations
    /// [within](Self::within) clusters of the same rows, that with the less is of the tighter clusters.
    pub fn log_scatter(&self) -> f64 {
        self.scales.iter().filter(|scale| **scale > 0.0).map(|&scale| -2.0 * f64::from(scale).ln()).sum()
    }

    /// Values in a vector.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Normalises `rows` (`rows x dim`) into `out`, each row by itself.
    pub fn apply(&self, rows: &[f32], out: &mut [f32]) {
        let dim = self.dim();
        for (row, out) in rows.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            match &self.axes {
                None => {
                    let about = row.iter().zip(&self.mean).map(|(x, mean)| x - mean);
                    out.iter_mut().zip(about).zip(&self.scales).for_each(|((out, x), scale)| *out = scale * x);
                }
                Some(axes) => {
                    for ((out, axis), scale) in out.iter_mut().zip(axes.chunks_exact(dim)).zip(&self.scales) {
                        let along = axis.iter().zip(row).zip(&self.mean).map(|((a, x), mean)| a * (x - mean));
                        *out = scale * along.sum::<f32>();
                    }
                }
            }
        }
    }

    /// Brings normalised vectors back; what was left out is at its mean.
    pub fn invert(&self, rows: &[f32]) -> Vec<f32> {
        let dim = self.dim();
        let mut back = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(dim) {
            let along = |i: usize| if self.scales[i] > 0.0 { row[i] / self.scales[i] } else { 0.0 };
            for (j, mean) in self.mean.iter().enumerate() {
                back.push(match &self.axes {
                    None => mean + along(j),
                    Some(axes) => mean + (0..dim).map(|i| axes[i * dim + j] * along(i)).sum::<f32>(),
                });
            }
        }
        back
    }

    /// Writes it into an artifact.
    pub fn save(&self, artifact: &mut Artifact) {
        let dim = self.dim();
        let mut keep = |name: &str, shape: Vec<usize>, values: &[f32]| {
            artifact.tensors.insert(name.into(), Tensor { shape, values: values.to_vec() });
        };
        keep(MEAN, vec![dim], &self.mean);
        keep(SCALES, vec![dim], &self.scales);
        if let Some(axes) = &self.axes {
            keep(AXES, vec![dim, dim], axes);
        }
    }

    /// The normalisation that an artifact holds, if any, of vectors of `dim` values.
    ///
    /// # Errors
    /// Kind `Model` if it is incomplete, of another width, or not finite.
    pub fn restore(artifact: &Artifact, dim: usize) -> Result<Option<Self>> {
        let tensor = |name: &str, len: usize| match artifact.tensors.get(name) {
            None => Ok(None),
            Some(Tensor { values, .. }) if values.len() == len && values.iter().all(|x| x.is_finite()) => {
                Ok(Some(values.clone()))
            }
            Some(Tensor { shape, .. }) => {
                Err(Error::model(format!("tensor {name:?} of shape {shape:?}, expected {len} finite values")))
            }
        };
        match (tensor(MEAN, dim)?, tensor(SCALES, dim)?, tensor(AXES, dim * dim)?) {
            (None, None, None) => Ok(None),
            (Some(mean), Some(scales), axes) => Ok(Some(Self { mean, scales, axes })),
            _ => Err(Error::model(format!("tensors {MEAN:?} and {SCALES:?} belong together"))),
        }
    }
}

const MEAN: &str = "normalize.mean";
const SCALES: &str = "normalize.scales";
const AXES: &str = "normalize.axes";

/// Adds the products of all pairs of values of `row - centre`.
fn add_products(sums: &mut [f64], row: &[f32], centre: &[f64]) {
    for ((&x, c), sums) in row.iter().zip(centre).zip(sums.chunks_exact_mut(row.len())) {
        let x = f64::from(x) - c;
        sums.iter_mut().zip(row).zip(centre).for_each(|((sum, &y), c)| *sum += x * (f64::from(y) - c));
    }
}

/// Rows as a normalisation leaves them.
pub struct Normalized<'a> {
    rows: &'a dyn Rows,
    normalizer: &'a Normalizer,
}

impl<'a> Normalized<'a> {
    /// `rows` through `normalizer`.
    pub fn new(rows: &'a dyn Rows, normalizer: &'a Normalizer) -> Self {
        Self { rows, normalizer }
    }

    fn in_place(&self, values: &mut [f32]) {
        let mut block = vec![0.0; BLOCK.min(values.len() / self.dim().max(1)) * self.dim()];
        for values in values.chunks_mut(BLOCK * self.dim()) {
            let block = &mut block[..values.len()];
            self.normalizer.apply(values, block);
            values.copy_from_slice(block);
        }
    }
}

impl Rows for Normalized<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> kernel::Result<()> {
        self.rows.read(range, out)?;
        self.in_place(out);
        Ok(())
    }

    fn gather(&self, indices: &[u32], out: &mut [f32]) -> kernel::Result<()> {
        self.rows.gather(indices, out)?;
        self.in_place(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Dense;

    fn rows() -> Vec<f32> {
        // Three values, the second mostly twice the first, the third constant.
        (0..3000)
            .flat_map(|i| {
                let x = (i as f32 * 0.7).sin() * 3.0 + 10.0;
                [x, 2.0 * x + 0.1 * ((i * i) as f32).cos(), 4.0]
            })
            .collect()
    }

    fn covariance(values: &[f32], dim: usize) -> Vec<f64> {
        let n = (values.len() / dim) as f64;
        let mean = |d: usize| values.iter().skip(d).step_by(dim).map(|&x| f64::from(x)).sum::<f64>() / n;
        let means: Vec<f64> = (0..dim).map(mean).collect();
        let of = |i: usize, j: usize| {
            values.chunks(dim).map(|r| (f64::from(r[i]) - means[i]) * (f64::from(r[j]) - means[j])).sum::<f64>() / n
        };
        (0..dim * dim).map(|at| of(at / dim, at % dim)).collect()
    }

    #[test]
    fn variances_become_one_and_whitened_values_are_not_correlated() {
        let values = rows();
        let dense = Dense::new(&values, 3);
        for (how, correlated) in [(Normalize::Standard, true), (Normalize::Whiten, false)] {
            let normalizer = Normalizer::learn(how, &dense, &Pool::new(2)).unwrap().unwrap();
            assert_eq!(Some(normalizer.clone()), Normalizer::learn(how, &dense, &Pool::new(1)).unwrap());
            let mut out = vec![0.0; values.len()];
            normalizer.apply(&values, &mut out);
            let covariance = covariance(&out, 3);
            assert!((covariance[0] - 1.0).abs() < 1e-3 && (covariance[4] - 1.0).abs() < 1e-3, "{covariance:?}");
            assert!(covariance[8].abs() < 1e-9, "what does not vary says nothing");
            assert_eq!(covariance[1].abs() > 0.9, correlated, "{covariance:?}");
            let back = normalizer.invert(&out);
            assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-3));
            let mut read = vec![0.0; values.len()];
            Normalized::new(&dense, &normalizer).read(0..3000, &mut read).unwrap();
            assert_eq!(read, out);
            let mut artifact = Artifact::default();
            normalizer.save(&mut artifact);
            assert_eq!(Normalizer::restore(&artifact, 3).unwrap(), Some(normalizer));
            assert!(Normalizer::restore(&artifact, 4).is_err());
            artifact.tensors.remove(SCALES);
            assert!(Normalizer::restore(&artifact, 3).unwrap_err().to_string().contains("belong together"));
        }
        assert_eq!(Normalizer::learn(Normalize::None, &dense, &Pool::new(1)).unwrap(), None);
        assert_eq!(Normalizer::restore(&Artifact::default(), 3).unwrap(), None);
    }
}
