//! Online k-means: centroids that follow a stream, batch by batch.

mod pass;
mod state;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::decay::{Decay, HalfLife};
use super::{Statistics, init};
use crate::device::{Assigned, Device, distances_and_margins};
use crate::error::{Error, Result};
use crate::kernel::{Dense, Rows, fold};
use crate::seed::Seed;
pub(super) use pass::run;
pub use state::{LastRow, OnlineState};

/// Rows for each cluster among which the first centroids are chosen.
const SEED_ROWS: usize = 8;
/// The part of an equal share of the rows below which a cluster is dead.
const DEAD: f64 = 1e-3;

/// How [`OnlineKMeans`] learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnlineSpec {
    /// Number of clusters.
    pub k: usize,
    /// How fast earlier rows are forgotten.
    pub decay: Decay,
    /// The number of seedings of a cold start; the one with the least inertia is kept.
    pub n_init: usize,
    /// A cold start waits until there are so many rows to choose the first centroids among; at least `k`.
    pub seed_rows: usize,
    /// The part of an equal share of the rows below which a cluster is dead and begins anew elsewhere: below 1; 0 for
    /// never.
    pub revive: f64,
}

impl OnlineSpec {
    /// `k` clusters that forget by `decay`, with the usual rest: the best of 10 seedings among `8 k` rows; a cluster is dead
    /// below a thousandth of an equal share.
    pub fn new(k: usize, decay: Decay) -> Self {
        Self { k, decay, n_init: 10, seed_rows: k.saturating_mul(SEED_ROWS), revive: DEAD }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Kind `Config`, naming the setting and what would be accepted.
    pub fn check(&self) -> Result<()> {
        super::whole("k", self.k, super::MOST_CLUSTERS)?;
        super::whole("n_init", self.n_init, 1_000_000)?;
        if self.seed_rows < self.k || u32::try_from(self.seed_rows).is_err() {
            let (given, k, most) = (self.seed_rows, self.k, u32::MAX);
            return Err(Error::config(format!("seed_rows = {given}, expected at least k = {k}, at most {most}")));
        }
        if !(0.0..1.0).contains(&self.revive) {
            return Err(Error::config(format!("revive = {}, expected 0 (never) or more, less than 1", self.revive)));
        }
        self.decay.check()
    }

    /// The most rows of `dim` values that a cold start holds back.
    fn most_waiting(&self, dim: usize) -> usize {
        self.seed_rows.max(init::sample_rows(self.k, dim))
    }
}

/// k-means that goes on learning as rows come, and forgets old ones if it is asked to.
///
/// # The formula
///
/// [`partial_fit`](Self::partial_fit) takes a batch of `n` rows. Every row is assigned to the nearest of the centroids as
/// they were before the batch; in a tie to the lower cluster. Then cluster `j`, which got the `n_j` rows whose sum is
/// `s_j`, moves. With the factor `a` of the [decay](Decay),
///
/// ```text
/// w_j' = a w_j + n_j
/// c_j' = (a w_j c_j + s_j) / w_j'     where n_j > 0; else c_j stays
/// ```
///
/// So a centroid is the mean of all rows it was ever given, each weighted by the product of the factors of all batches after
/// its own. This is the forgetful update of Spark's [`StreamingKMeans`], as its code has it (its guide writes the weight
/// without the factor). With [`Decay::None`] it is the update of mini-batches (Sculley 2010), which is scikit-learn's
/// `MiniBatchKMeans.partial_fit`, and in batches of one row MacQueen's k-means (1967). Relatives are CluStream (Aggarwal et
/// al. 2003), which keeps many small clusters and merges them when asked, and River's `STREAMKMeans`, which clusters the
/// centroids of chunks.
///
/// Weights and centroids are `f64`, and so are sums over rows, whose order is fixed by their number alone. Distances are
/// those of the label stage, in `f32` to the centroids as [rounded](Self::rounded) to `f32`, with the same bits. Nothing
/// depends on the number of threads or on how rows are stored.
///
/// How a stream is cut into batches does matter: rows of one batch are compared with the same centroids and weigh the same.
/// Where nothing is forgotten, and only there, another cut gives the same centroids (but for rounding in `f64`) as long as
/// it assigns every row to the same cluster. With a half-life, batches should be short beside it.
///
/// # Dead clusters
///
/// After the move, a cluster is dead if it has less than [`revive`](OnlineSpec::revive) of an equal share of the rows that
/// came since it began: if `w_j' < revive e_j' / k`, with `e_j' = a e_j + n` the decayed number of these rows. With the
/// default of a thousandth that takes ten half-lives without a row, or, if nothing is forgotten, a thousand times fewer rows
/// than the others. A dead cluster begins anew at the row of the batch that is farthest from its centroid (`c_j = x`,
/// `w_j = e_j = 1`; the row also stays where it was assigned), the next one at the row farthest from its centroid and from
/// the clusters begun just before, in a tie at the first. Where every row lies on a centroid none begins. It is a new cluster
/// for whoever follows clusters over time, so [`Batch::revived`] names it. Spark splits the largest cluster instead.
///
/// # Beginning
///
/// A cold start ([`new`](Self::new)) holds rows back until there are [`seed_rows`](OnlineSpec::seed_rows) and `k` distinct
/// ones among them. Then k-means++ chooses `k` of them, and all of them together are the first batch. It holds back 131 072
/// rows (or `2^22` values if those are fewer rows, but at least `32 k` and `seed_rows`); if fewer than `k` of so many are
/// distinct, the batch is refused. A warm start ([`warm`](Self::warm)) goes on from given centroids.
///
/// ```
/// use dacpipe::device::Cpu;
/// use dacpipe::kernel::Dense;
/// use dacpipe::kmeans::{Decay, OnlineKMeans, OnlineSpec};
/// let device = Cpu::new(1);
/// // Two clusters, of 4 rows around 0 and 2 rows around 10; what came before a batch then counts half.
/// let spec = OnlineSpec::new(2, Decay::Factor(0.5));
/// let mut online = OnlineKMeans::warm(spec, vec![0.0, 10.0], vec![4.0, 2.0])?;
/// let batch = online.partial_fit(&Dense::new(&[3.0, 12.0, 12.0], 1), None, &device)?;
/// assert_eq!((batch.cluster, batch.distance, batch.margin), (vec![0, 1, 1], vec![3.0, 2.0, 2.0], vec![4.0, 10.0, 10.0]));
/// assert_eq!(batch.inertia, 9.0 + 4.0 + 4.0);
/// // (0.5 * 4 * 0 + 3) / (0.5 * 4 + 1), and (0.5 * 2 * 10 + 24) / (0.5 * 2 + 2).
/// assert_eq!(online.state().centroids, [1.0, 34.0 / 3.0]);
/// assert_eq!(online.state().weights, [3.0, 3.0]);
/// assert_eq!(batch.moved, [1.0, 34.0 / 3.0 - 10.0]);
/// # Ok::<(), dacpipe::Error>(())
/// ```
///
/// [`StreamingKMeans`]: https://spark.apache.org/docs/latest/mllib-clustering.html#streaming-k-means
#[derive(Debug, Clone, PartialEq)]
pub struct OnlineKMeans {
    spec: OnlineSpec,
    seed: Seed,
    state: OnlineState,
}

/// What became of a batch. All empty but [`waiting`](Self::waiting) while a cold start holds rows back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The nearest cluster of each row, by the centroids as they were before the batch. Rows that had waited for the first
    /// centroids come before the batch's own.
    pub cluster: Vec<u32>,
    /// The Euclidean distance to it.
    pub distance: Vec<f32>,
    /// By how much the second nearest is farther; infinite for a single cluster.
    pub margin: Vec<f32>,
    /// The sum of the rows' squared distances.
    pub inertia: f64,
    /// By what the weight of earlier rows was multiplied.
    pub decay: f64,
    /// How far each centroid moved, to its new place if it was revived.
    pub moved: Vec<f64>,
    /// The clusters that died and began anew, in the order in which they did.
    pub revived: Vec<Revived>,
    /// Rows that are held back until there are enough for the first centroids.
    pub waiting: usize,
}

/// A cluster that died and began anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revived {
    /// Its number, as before.
    pub cluster: usize,
    /// The row at which it began, by its number among those of [`Batch::cluster`].
    pub row: usize,
}

impl OnlineKMeans {
    /// A cold start: the first centroids are chosen among the first rows, by chance that is drawn from `seed`.
    ///
    /// # Errors
    /// Kind `Config` for a bad `spec`.
    pub fn new(spec: OnlineSpec, seed: Seed) -> Result<Self> {
        Self::resume(spec, seed, OnlineState::default())
    }

    /// A warm start from `centroids` (`k x dim`, row-major) and the number of rows that each of them stands for (`k`): those
    /// of an earlier fit and their sizes. With weights of 0 the first batch alone decides where they go.
    ///
    /// ```
    /// use dacpipe::device::Cpu;
    /// use dacpipe::kernel::Dense;
    /// use dacpipe::kmeans::{Decay, KMeansSpec, OnlineKMeans, OnlineSpec, fit};
    /// let (rows, device) = ([0.0, 1.0, 10.0, 11.0, 12.0], Cpu::new(1));
    /// let found = fit(&Dense::new(&rows, 1), &KMeansSpec::new(2), dacpipe::Seed(1), &device, &Default::default())?;
    /// let centroids = found.centroids.iter().map(|&x| f64::from(x)).collect();
    /// let sizes = found.sizes.iter().map(|&n| n as f64).collect();
    /// let mut online = OnlineKMeans::warm(OnlineSpec::new(2, Decay::None), centroids, sizes)?;
    /// online.partial_fit(&Dense::new(&[15.0], 1), None, &device)?;
    /// assert_eq!(online.state().centroids, [12.0, 0.5]); // (3 * 11 + 15) / 4
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind `Config` for a bad `spec`; `Input` if there are not `k` centroids and weights, or if they are not finite or
    /// weights are negative.
    pub fn warm(spec: OnlineSpec, centroids: Vec<f64>, weights: Vec<f64>) -> Result<Self> {
        spec.check()?;
        if centroids.is_empty() || !centroids.len().is_multiple_of(spec.k) {
            let given = centroids.len();
            return Err(Error::input(format!(
                "{given} values, expected the same number for each of k = {} centroids",
                spec.k
            )));
        }
        Self::resume(spec, Seed(0), OnlineState::warm(centroids, weights))
    }

    /// Goes on from a [state](Self::state): to the same bits as the one that it was taken from, if `spec` and `seed` are the
    /// same.
    ///
    /// # Errors
    /// Kind `Config` for a bad `spec`; `Input` if the state is none of `spec.k` clusters, or has a value that is impossible.
    pub fn resume(spec: OnlineSpec, seed: Seed, state: OnlineState) -> Result<Self> {
        spec.check()?;
        state.check(spec.k)?;
        Ok(Self { spec, seed, state })
    }

    /// How it learns.
    pub fn spec(&self) -> &OnlineSpec {
        &self.spec
    }

    /// What the random choices of a cold start are drawn from.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// All that it has learned.
    pub fn state(&self) -> &OnlineState {
        &self.state
    }

    /// The centroids in `f32`, `k x dim`, to which distances are measured; empty while a cold start holds rows back.
    pub fn rounded(&self) -> Vec<f32> {
        self.state.centroids.iter().map(|&x| x as f32).collect()
    }

    /// Assigns the rows of a batch, and then moves the centroids; see [the formula](Self#the-formula). A batch without rows
    /// is none. `newest` is the event time of the batch's newest row, in nanoseconds since whatever moment: a half-life in
    /// time needs it, and it is kept in the state. It never goes back: in a batch of late rows nothing decays.
    ///
    /// `O(rows x k x dim)`, and `O(rows x dim)` for each cluster but one that is revived; the first batch of a cold start as
    /// a seeding by [`fit`](super::fit). Memory: 16 bytes a row, and sums of `k x dim` doubles for up to 64 parts of the
    /// rows. After an error all is as before.
    ///
    /// # Errors
    /// Kind `Input` for rows of another width, values that are not finite (by row and feature, counted from 0) or too far
    /// from every centroid for squared distances in `f32` (some 1e19), a missing `newest`, or a stream of too few distinct
    /// rows; errors of reading or of the device.
    pub fn partial_fit(&mut self, rows: &dyn Rows, newest: Option<i64>, device: &dyn Device) -> Result<Batch> {
        let dim = rows.dim();
        if self.state.dim != 0 && self.state.dim != dim {
            return Err(Error::input(format!("rows of {dim} values, expected {}", self.state.dim)));
        }
        if u32::try_from(rows.len()).is_err() {
            return Err(Error::input(format!("a batch of {} rows, at most {} are possible", rows.len(), u32::MAX)));
        }
        if rows.is_empty() {
            return Ok(Batch { decay: 1.0, waiting: self.state.waiting_rows(), ..Batch::default() });
        }
        if newest.is_none() && matches!(self.spec.decay, Decay::HalfLife(HalfLife::Time(_))) {
            return Err(Error::input(
                "a half-life in time needs the event time of each batch's newest row, and there is none",
            ));
        }
        let values: Cow<'_, [f32]> = match rows.as_slice() {
            Some(all) => all.into(),
            None => {
                let mut values = vec![0.0; rows.len() * dim];
                rows.read(0..rows.len(), &mut values)?;
                values.into()
            }
        };
        let rows = Dense::new(&values, dim);
        let finite = |good: &mut bool, _, block: &[f32]| {
            *good &= block.iter().all(|x| x.is_finite());
            Ok(())
        };
        if fold::fold(&rows, device.pool(), || true, finite)?.contains(&false) {
            return Err(fold::not_finite(&rows, "k-means").into());
        }
        match self.state.centroids.is_empty() {
            true => self.begin(&values, dim, newest, device),
            false => self.update(&rows, newest, device),
        }
    }

    /// Chooses the first centroids, if there are enough rows now.
    fn begin(&mut self, values: &[f32], dim: usize, newest: Option<i64>, device: &dyn Device) -> Result<Batch> {
        let waiting = [&self.state.waiting, values].concat();
        let newest = newest.max(self.state.newest);
        let rows = Dense::new(&waiting, dim);
        let Some(seeds) = self.seeds(&rows, device)? else {
            self.state = OnlineState { dim, newest, waiting, ..OnlineState::default() };
            return Ok(Batch { decay: 1.0, waiting: self.state.waiting_rows(), ..Batch::default() });
        };
        let centroids = seeds.into_iter().map(f64::from).collect();
        let state = OnlineState::warm(centroids, vec![0.0; self.spec.k]);
        let mut begun = Self { spec: self.spec.clone(), seed: self.seed, state };
        let batch = begun.update(&rows, newest, device)?;
        *self = begun;
        Ok(batch)
    }

    /// The first centroids; nothing if there are too few rows to choose among, and more can come.
    fn seeds(&self, rows: &Dense<'_>, device: &dyn Device) -> Result<Option<Vec<f32>>> {
        let (k, dim, n) = (self.spec.k, rows.dim(), rows.len());
        if n < self.spec.seed_rows {
            return Ok(None);
        }
        let points = device.points(rows)?;
        // Refuses rows that lie too far apart.
        Statistics::of(&*points)?;
        let sample = init::sample_rows(k, dim);
        let seeds = init::best(&*points, self.spec.n_init, |start| {
            init::distinct(&*points, k, sample, &mut self.seed.stream("kmeans.online", start), device)
        })?;
        match seeds.len() == k * dim {
            true => Ok(Some(seeds)),
            false if n < self.spec.most_waiting(dim) => Ok(None),
            false => Err(init::too_few_distinct(k, seeds.len() / dim, n)),
        }
    }

    /// Assigns the rows and moves the centroids.
    fn update(&mut self, rows: &Dense<'_>, newest: Option<i64>, device: &dyn Device) -> Result<Batch> {
        let mut found = assigned(rows, &self.rounded(), device)?;
        let inertia = found.squared.iter().map(|&d| f64::from(d)).sum();
        let decay = self.spec.decay.factor(rows.len(), self.state.elapsed(newest));
        let mut next = self.state.clone();
        next.add(decay, &found.sums, &found.counts, newest);
        let dead = next.dead(self.spec.revive);
        let revived = revive(&mut next, &dead, rows, found.squared.clone(), device)?;
        let places = self.state.centroids.chunks_exact(rows.dim()).zip(next.centroids.chunks_exact(rows.dim()));
        let moved = places.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (b - a) * (b - a)).sum::<f64>().sqrt()).collect();
        self.state = next;
        distances_and_margins(&mut found.squared, &mut found.second);
        let Assigned { labels, squared, second, .. } = found;
        Ok(Batch { cluster: labels, distance: squared, margin: second, inertia, decay, moved, revived, waiting: 0 })
    }
}

/// The rows with their clusters.
///
/// # Errors
/// Kind `Input` for a row that is too far from every centroid; errors of the device.
fn assigned(rows: &Dense<'_>, centroids: &[f32], device: &dyn Device) -> Result<Assigned> {
    let found = device.points(rows)?.assign(centroids)?;
    match found.squared.iter().position(|squared| !squared.is_finite()) {
        None => Ok(found),
        Some(row) => Err(Error::input(format!(
            "row {row} lies too far from every centroid for squared distances in 32 bits (some 1e19); scale rows first"
        ))),
    }
}

/// Lets each of the `dead` clusters begin anew at the row that lies farthest from its centroid, by the `squared` distances,
/// as long as there is one that lies on none.
fn revive(
    state: &mut OnlineState,
    dead: &[usize],
    rows: &Dense<'_>,
    mut squared: Vec<f32>,
    device: &dyn Device,
) -> Result<Vec<Revived>> {
    let mut revived = Vec::new();
    let mut place = vec![0.0; rows.dim()];
    for (i, &cluster) in dead.iter().enumerate() {
        let row = (0..squared.len()).fold(0, |far, row| if squared[row] > squared[far] { row } else { far });
        if squared[row] == 0.0 {
            break;
        }
        rows.read(row..row + 1, &mut place)?;
        state.begin_anew(cluster, &place);
        revived.push(Revived { cluster, row });
        if i + 1 < dead.len() {
            let to_new = assigned(rows, &place, device)?.squared;
            squared.iter_mut().zip(to_new).for_each(|(squared, to_new)| *squared = squared.min(to_new));
        }
    }
    Ok(revived)
}

#[cfg(test)]
mod tests;
