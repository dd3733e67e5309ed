//! k-means: assigns rows to the nearest of `k` centroids, each the mean of its rows.
//!
//! [`fit`] runs k-means several times (`n_init` in scikit-learn): it seeds with greedy k-means++ (Arthur &
//! Vassilvitskii 2007), refines with Lloyd's iterations (Lloyd 1982) or mini-batches (Sculley 2010), and keeps the run
//! with the least inertia. Lloyd's iterations skip distances that bounds rule out (Hamerly 2010) if that is faster;
//! clusters and centroids are the same either way, bit for bit. Rows may be larger than memory. The result does not
//! depend on the number of threads, on where rows are stored, or on how they are batched: the parts of the rows depend
//! only on their number, and the parts' `f64` sums are added in order.
//!
//! The third way is [`OnlineKMeans`], for rows that come as a stream: each batch moves the centroids once, and earlier
//! rows may be forgotten, by a factor or a half-life ([`Decay`]). It can start from what [`fit`] found, and its state can
//! be kept and gone on from. [`Method::Online`] is one such pass over rows that are all there.
//!
//! The [device](crate::device) does the passes over rows; this module has what is the same on every device: random
//! draws, means, and when to stop.
//!
//! ```
//! use dacpipe::device::Cpu;
//! use dacpipe::kernel::Dense;
//! use dacpipe::kmeans::{KMeansSpec, fit};
//! let rows = [0.0, 0.5, 10.0, 10.5, 11.0];
//! let found = fit(&Dense::new(&rows, 1), &KMeansSpec::new(2), dacpipe::Seed(1), &Cpu::new(1), &Default::default())?;
//! assert_eq!((found.centroids, found.sizes), (vec![10.5, 0.25], vec![3, 2]));
//! assert_eq!(found.inertia, 0.625);
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod decay;
mod init;
mod lloyd;
mod minibatch;
mod online;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Points};
use crate::error::{Error, Result};
use crate::event::{Control, Event};
use crate::kernel::{Rows, fold};
use crate::seed::Seed;
pub use decay::{Decay, HalfLife};
pub use online::{Batch, LastRow, OnlineKMeans, OnlineSpec, OnlineState, Revived};

/// Cluster numbers travel in `f32`.
const MOST_CLUSTERS: usize = (1 << 24) - 1;

/// How centroids are refined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every iteration uses every row.
    Lloyd,
    /// Every iteration uses some rows drawn at random: faster, less exact.
    MiniBatch {
        /// Rows in a batch.
        batch_size: usize,
    },
    /// In one pass, batch by batch in the order of the rows, by [`OnlineKMeans`]: the rows at the end count more if the others
    /// are forgotten.
    Online {
        /// Rows in a batch; the last may be shorter.
        batch_size: usize,
        /// How fast earlier rows are forgotten; a half-life in rows or batches.
        decay: Decay,
    },
}

/// What to find.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KMeansSpec {
    /// Number of clusters.
    pub k: usize,
    /// The number of runs from new initial centroids; the one with the least inertia is kept. Mini-batch and online:
    /// of seedings.
    pub n_init: usize,
    /// The most iterations of a run: passes over the rows, or as many rows in mini-batches. Online: ignored.
    pub max_iterations: usize,
    /// Lloyd: stop when the sum of the centroids' squared moves is at most this times the mean variance of a feature;
    /// with 0, when no row changes its cluster. Mini-batch: the fraction by which the smoothed inertia must fall to
    /// count as progress. Online: ignored.
    pub tolerance: f64,
    /// How centroids are refined.
    pub method: Method,
}

impl KMeansSpec {
    /// `k` clusters with the usual defaults: ten runs of Lloyd, at most 300 iterations, tolerance 1e-4.
    pub fn new(k: usize) -> Self {
        Self { k, n_init: 10, max_iterations: 300, tolerance: 1e-4, method: Method::Lloyd }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Kind `Config`, naming the setting and what would be accepted.
    pub fn check(&self) -> Result<()> {
        whole("k", self.k, MOST_CLUSTERS)?;
        whole("n_init", self.n_init, 1_000_000)?;
        whole("max_iterations", self.max_iterations, 1_000_000_000)?;
        match self.method {
            Method::Lloyd => {}
            Method::MiniBatch { batch_size } => whole("batch_size", batch_size, 1 << 30)?,
            Method::Online { batch_size, decay } => {
                whole("batch_size", batch_size, 1 << 30)?;
                decay.check()?;
                if let Decay::HalfLife(HalfLife::Time(_)) = decay {
                    let words =
                        "a half-life in time, but the rows have no event times; expected one in rows or batches";
                    return Err(Error::config(words));
                }
            }
        }
        match self.tolerance.is_finite() && (0.0..1.0).contains(&self.tolerance) {
            true => Ok(()),
            false => Err(Error::config(format!("tolerance = {}, expected 0 or more, less than 1", self.tolerance))),
        }
    }
}

/// Checks a whole number.
fn whole(name: &str, value: usize, most: usize) -> Result<()> {
    match value {
        0 => Err(Error::config(format!("{name} = 0, expected at least 1"))),
        _ if value > most => Err(Error::config(format!("{name} = {value}, expected at most {most}"))),
        _ => Ok(()),
    }
}

/// The most bytes that finding `k` clusters in `rows` rows of `dim` values needs on the CPU: centroids and their
/// copies, the sums of the parts of a pass, the sample of the seeding, clusters and bounds.
pub fn bytes(rows: usize, k: usize, dim: usize) -> u128 {
    const PARTS: u128 = 8;
    const COPIES: u128 = 8;
    let sample = init::sample_rows(k, dim.max(1)).min(rows) as u128;
    let (rows, k, dim) = (rows as u128, k.min(rows) as u128, dim as u128);
    k * dim * (8 * PARTS + 4 * COPIES) + sample * dim * 4 + rows * 16
}

/// The result. Clusters are numbered by decreasing size, and by their centroids' values if sizes are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// `k x dim` values, row-major.
    pub centroids: Vec<f32>,
    /// Number of clusters.
    pub k: usize,
    /// Values in a row.
    pub dim: usize,
    /// Sum over all rows of the squared distance to the nearest centroid.
    pub inertia: f64,
    /// Iterations of the run that was kept (mini-batch and online: batches).
    pub iterations: usize,
    /// Whether it converged before `max_iterations`; always for online, which passes over the rows once.
    pub converged: bool,
    /// Rows of each cluster.
    pub sizes: Vec<u64>,
    /// Mean Euclidean distance of each cluster's rows to its centroid; 0 for a cluster without rows.
    pub mean_distance: Vec<f64>,
}

/// Finds `spec.k` clusters in `rows`. Every random choice is drawn from `seed`.
///
/// Time: at most `O(rows x k x dim)` per iteration; memory: the seeding's sample (at most 16 MiB, or `32 k` rows if
/// that is more), and what the [device](crate::device::Cpu) needs.
///
/// # Errors
/// Kind `Config` for a bad `spec`; `Input` if there are fewer rows, or fewer distinct rows (whose squared distances are
/// not 0 in `f32`: some 1e-22 apart), than clusters, or values are not finite or too far apart for squared distances in
/// `f32` (some 1e19); `Cancelled` between two iterations; errors of reading or of the device.
pub fn fit(rows: &dyn Rows, spec: &KMeansSpec, seed: Seed, device: &dyn Device, control: &Control) -> Result<KMeans> {
    let mut points = points(rows, spec, device)?;
    let statistics = Statistics::of(&*points)?;
    match spec.method {
        Method::Lloyd => {}
        Method::MiniBatch { batch_size } => {
            let seeds = minibatch::seeds(&*points, spec, batch_size, seed, device)?;
            let outcome = minibatch::run(&mut *points, seeds, spec, batch_size, seed, control)?;
            return finish(&*points, outcome);
        }
        Method::Online { batch_size, decay } => {
            let outcome = online::run(&*points, spec, (batch_size, decay), seed, device, control)?;
            return finish(&*points, outcome);
        }
    }
    let mut best: Option<KMeans> = None;
    let mut done = 0;
    for start in 0..spec.n_init as u64 {
        let mut rng = seed.stream("kmeans", start);
        let seeds = init::seeds(&*points, spec.k, init::sample_rows(spec.k, rows.dim()), &mut rng, device)?;
        let outcome = refine(&*points, seeds, spec, &statistics, &mut done, control)?;
        let found = finish(&*points, outcome)?;
        if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| Error::internal("k-means without a start"))
}

/// Lloyd's iterations from given centroids (`k x dim`, row-major), once; `spec.n_init` and `spec.method` are ignored.
///
/// # Errors
/// As [`fit`], and kind `Input` if `initial` is not `spec.k` rows of finite values.
pub fn fit_from(
    rows: &dyn Rows,
    spec: &KMeansSpec,
    initial: Vec<f32>,
    device: &dyn Device,
    control: &Control,
) -> Result<KMeans> {
    let points = points(rows, spec, device)?;
    let statistics = Statistics::of(&*points)?;
    if initial.len() != spec.k * rows.dim() {
        let expected = format!("{} centroids of {} values", spec.k, rows.dim());
        return Err(Error::input(format!("{} initial values, expected {expected}", initial.len())));
    }
    if let Some(i) = initial.iter().position(|x| !x.is_finite()) {
        let (centroid, at) = (i / rows.dim(), i % rows.dim());
        let message =
            format!("initial centroid {centroid}, position {at} is {}; k-means needs finite values", initial[i]);
        return Err(Error::input(message));
    }
    let outcome = refine(&*points, initial, spec, &statistics, &mut 0, control)?;
    finish(&*points, outcome)
}

/// The clusters of `rows` around fixed centroids (`k x dim`) from elsewhere: sizes, distances, and the numbering of
/// [`fit`]. `O(rows x k x dim)`.
///
/// # Errors
/// Kind `Input` if `centroids` are not rows of finite values; errors of reading or of the device.
pub fn around(rows: &dyn Rows, centroids: Vec<f32>, device: &dyn Device) -> Result<KMeans> {
    let dim = rows.dim();
    if centroids.is_empty() || !centroids.len().is_multiple_of(dim) || !centroids.iter().all(|x| x.is_finite()) {
        return Err(Error::input(format!("{} values are no centroids of {dim} finite values", centroids.len())));
    }
    finish(&*device.points(rows)?, Outcome { centroids, iterations: 0, converged: true })
}

/// The rows on the device, if `spec` is valid and there are enough rows.
fn points<'a>(rows: &'a dyn Rows, spec: &KMeansSpec, device: &'a dyn Device) -> Result<Box<dyn Points + 'a>> {
    spec.check()?;
    check_rows(spec.k, rows.len())?;
    if u32::try_from(rows.len()).is_err() {
        return Err(Error::input(format!("{} rows to learn from, at most {} are possible", rows.len(), u32::MAX)));
    }
    device.points(rows)
}

/// Centroids after the last iteration.
struct Outcome {
    centroids: Vec<f32>,
    iterations: usize,
    converged: bool,
}

fn refine(
    points: &dyn Points,
    seeds: Vec<f32>,
    spec: &KMeansSpec,
    statistics: &Statistics,
    done: &mut u64,
    control: &Control,
) -> Result<Outcome> {
    let rows = points.rows();
    let limits = lloyd::Limits {
        max_iterations: spec.max_iterations,
        shift: spec.tolerance * statistics.scatter / (rows.len() * rows.dim()) as f64,
    };
    lloyd::run(&mut *points.lloyd(spec.k)?, seeds, &limits, &mut |between| {
        *done += 1;
        progress(control, *done, (statistics.scatter - between(&statistics.mean)).max(0.0))
    })
}

/// Reports an iteration, and checks for cancellation.
fn progress(control: &Control, done: u64, inertia: f64) -> Result<()> {
    control.emit(Event::Progress { stage: "kmeans".into(), done, loss: Some(inertia), rows_per_second: None });
    control.check()
}

/// Computes sizes, inertia and distances in a last pass, and the final numbering.
fn finish(points: &dyn Points, outcome: Outcome) -> Result<KMeans> {
    let dim = points.rows().dim();
    let k = outcome.centroids.len() / dim;
    let start = || (vec![0u64; k], vec![0.0f64; k], 0.0f64);
    let parts = points.fold(&outcome.centroids, start, |(sizes, distances, inertia), _, labels, squared| {
        for (&label, &squared) in labels.iter().zip(squared) {
            sizes[label as usize] += 1;
            distances[label as usize] += f64::from(squared).sqrt();
            *inertia += f64::from(squared);
        }
    })?;
    let (mut sizes, mut distances, mut inertia) = start();
    for (s, d, i) in parts {
        sizes.iter_mut().zip(s).for_each(|(a, b)| *a += b);
        distances.iter_mut().zip(d).for_each(|(a, b)| *a += b);
        inertia += i;
    }
    let mut order: Vec<usize> = (0..k).collect();
    let centroid = |c: usize| &outcome.centroids[c * dim..][..dim];
    order.sort_by(|&a, &b| sizes[b].cmp(&sizes[a]).then_with(|| compare(centroid(a), centroid(b))));
    Ok(KMeans {
        centroids: order.iter().flat_map(|&c| centroid(c)).copied().collect(),
        k,
        dim,
        inertia,
        iterations: outcome.iterations,
        converged: outcome.converged,
        sizes: order.iter().map(|&c| sizes[c]).collect(),
        mean_distance: order.iter().map(|&c| distances[c] / sizes[c].max(1) as f64).collect(),
    })
}

fn compare(a: &[f32], b: &[f32]) -> std::cmp::Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
    differing.unwrap_or(std::cmp::Ordering::Equal)
}

/// Checks that `rows` rows are enough for `k` clusters.
///
/// # Errors
/// Kind `Input` if there are fewer rows than clusters.
pub fn check_rows(k: usize, rows: usize) -> Result<()> {
    match k > rows {
        true => Err(Error::input(format!("k = {k} clusters need at least {k} rows, there are {rows}"))),
        false => Ok(()),
    }
}

/// Checks that there are at least `k` distinct rows; `distinct` of the `rows` rows are.
///
/// # Errors
/// Kind `Input` if there are fewer.
pub fn check_distinct(k: usize, distinct: usize, rows: usize) -> Result<()> {
    match k > distinct {
        true => Err(init::too_few_distinct(k, distinct, rows)),
        false => Ok(()),
    }
}

/// The result of one pass over the rows.
struct Statistics {
    mean: Vec<f64>,
    /// Sum over all rows of the squared distance to the mean.
    scatter: f64,
}

impl Statistics {
    fn of(points: &dyn Points) -> Result<Self> {
        let rows = points.rows();
        let (n, dim) = (rows.len() as f64, rows.dim());
        let mut origin = vec![0.0; dim];
        rows.read(0..1, &mut origin)?;
        let (mut sums, mut squares) = (vec![0.0; dim], vec![0.0; dim]);
        points.moments(&origin, &mut sums, &mut squares)?;
        if !sums.iter().all(|sum| sum.is_finite()) {
            return Err(fold::not_finite(rows, "k-means").into());
        }
        let scatter = sums.iter().zip(&squares).map(|(sum, square)| (square - sum * sum / n).max(0.0)).sum::<f64>();
        let mean = origin.iter().zip(&sums).map(|(&origin, sum)| f64::from(origin) + sum / n).collect();
        // Two rows are at most twice as far apart as the farther of them is from the mean.
        if 4.0 * scatter > f64::from(f32::MAX) {
            let what = "values lie too far apart for squared distances in 32 bits";
            return Err(Error::input(format!("{what} (sum of squares {scatter:e}, at most 8e37); scale them first")));
        }
        Ok(Self { mean, scatter })
    }
}

/// The number of each row's nearest centroid (`k x dim`).
///
/// # Errors
/// Errors of reading or of the device.
pub fn labels(rows: &dyn Rows, centroids: &[f32], device: &dyn Device) -> Result<Vec<u32>> {
    let points = device.points(rows)?;
    let parts = points.fold(centroids, Vec::new, |all: &mut Vec<u32>, _, labels, _| all.extend_from_slice(labels))?;
    Ok(parts.concat())
}

#[cfg(test)]
mod tests;
