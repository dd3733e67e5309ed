//! The nearest neighbours of every row: exact if that is affordable; else each row is only compared with the nearest
//! cells of a coarse k-means. The number of cells is chosen by the recall on some rows.

use rand::Rng;
use rand::seq::index;

use super::metric::{Metric, Prepared};
use super::search::{Groups, TILE, Tile, search};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::event::Control;
use crate::kernel::nearest::{Candidate, squared_distances, squared_norms};
use crate::kernel::{Pool, Rows};
use crate::kmeans::{self, KMeansSpec};
use crate::seed::Seed;

/// Up to this many multiplications, `rows^2 x dim`, all pairs are compared: some ten seconds on two cores.
pub const EXACT_WORK: f64 = 1e12;
/// Rows in a group of the exact search.
const GROUP: usize = 512;
/// The fraction of the true neighbours that must lie in the searched cells.
const RECALL: f64 = 0.98;
/// The number of rows whose true neighbours are found to choose the number of cells; as many others measure the recall.
const SAMPLE: usize = 256;
/// Candidates beyond the number of neighbours: the order by scores differs from the order by distances in the last
/// digits.
const SPARE: usize = 4;
/// A squared distance below this fraction of the two squared norms has lost digits, and is computed again from
/// differences.
const CANCELLED: f32 = 1.0 / 64.0;

/// The nearest neighbours of each row, nearest first; a row is not its own neighbour.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbors {
    /// The number of neighbours of a row.
    pub count: usize,
    /// Their numbers, `rows x count`.
    pub rows: Vec<u32>,
    /// Their distances by the metric, `rows x count`.
    pub distances: Vec<f32>,
    /// The fraction of the true neighbours that was found, measured on some rows; 1 for an exact search.
    pub recall: f64,
}

/// A search for neighbours.
#[derive(Clone, Copy)]
pub struct NeighborSearch<'a> {
    /// The distance between rows.
    pub metric: Metric,
    /// Up to this many multiplications all pairs are compared; usually [`EXACT_WORK`].
    pub exact_work: f64,
    /// The source of every random choice.
    pub seed: Seed,
    /// The device that finds the cells; it also has the compute threads.
    pub device: &'a dyn Device,
    /// Where interrupts come from.
    pub control: &'a Control,
}

impl NeighborSearch<'_> {
    /// The `count` nearest neighbours of each of `rows` (at most one fewer than there are rows). `progress` is called
    /// with the fraction of the work that is done.
    ///
    /// All pairs take `O(rows^2 x dim)`, cells about `O(rows^1.5 x dim)` times the number of cells that a recall of
    /// 0.98 needs. Memory: 8 bytes per neighbour and candidate, and blocks of fixed size; with cells also their
    /// centroids.
    ///
    /// # Errors
    /// Kind `Input` if a value is not finite; `Cancelled`; errors of reading.
    pub fn find(&self, rows: &dyn Rows, count: usize, progress: &mut dyn FnMut(f64)) -> Result<Neighbors> {
        let pool = self.device.pool();
        let prepared = Prepared::new(rows, self.metric, pool)?;
        let n = rows.len();
        let count = count.min(n.saturating_sub(1));
        let keep = (count + SPARE).min(n.saturating_sub(1));
        let exact = (n as f64).powi(2) * (rows.dim() as f64) <= self.exact_work;
        let (tiles, groups, recall) = match exact {
            true => {
                let groups = whole(n);
                (tiles_of(&groups, |_| (0..groups.ranges.len() as u32).collect()), groups, 1.0)
            }
            false => self.cells(&prepared, count)?,
        };
        let best = search(&prepared, &groups, &tiles, keep, pool, self.control, progress)?;
        let (numbers, distances) = settle(&prepared, &tiles, best, keep, count, pool)?;
        Ok(Neighbors { count, rows: numbers, distances, recall })
    }

    /// Cells of a coarse k-means, the cells that the rows of each cell search, and the recall of that.
    fn cells(&self, rows: &Prepared<'_>, count: usize) -> Result<(Vec<Tile>, Groups, f64)> {
        let Self { seed, device, control, .. } = *self;
        let n = rows.len();
        let k = (n as f64).sqrt().ceil() as usize;
        let spec = KMeansSpec {
            n_init: 1,
            max_iterations: 2,
            method: kmeans::Method::MiniBatch { batch_size: 1024 },
            ..KMeansSpec::new(k)
        };
        let quiet = control.quiet();
        let of_cells = Seed(seed.stream("manifold.cells", 0).random());
        let found = kmeans::fit(rows, &spec, of_cells, device, &quiet)?;
        let labels = kmeans::labels(rows, &found.centroids, device)?;
        let groups = by_label(&labels, k);
        let nearest = nearest_cells(&found.centroids, rows.dim(), device.pool());

        // How many cells of its cell's list are needed to find the true neighbours of a row.
        let mut rng = seed.stream("manifold.recall", 0);
        let sample: Vec<u32> = index::sample(&mut rng, n, (2 * SAMPLE).min(n)).into_iter().map(|i| i as u32).collect();
        let everywhere = whole(n);
        let all: Vec<u32> = (0..everywhere.ranges.len() as u32).collect();
        let tiles: Vec<Tile> =
            sample.chunks(TILE).map(|rows| Tile { rows: rows.to_vec(), groups: all.clone() }).collect();
        let truth = search(rows, &everywhere, &tiles, count, device.pool(), &quiet, &mut |_| {})?;
        let place = |cell: u32, of: u32| nearest[cell as usize].iter().position(|&c| c == of).unwrap_or(k);
        let depths: Vec<Vec<usize>> = sample
            .iter()
            .zip(truth.chunks(count))
            .map(|(&row, near)| near.iter().map(|c| place(labels[row as usize], labels[c.row as usize])).collect())
            .collect();
        let (tuned, held) = depths.split_at(depths.len() / 2);
        let mut sorted = tuned.concat();
        sorted.sort_unstable();
        let probes = sorted[((sorted.len() as f64 * RECALL) as usize).min(sorted.len() - 1)] + 1;
        let within = held.iter().flatten().filter(|&&depth| depth < probes).count();
        let recall = within as f64 / held.iter().flatten().count().max(1) as f64;
        let probed = |g: usize| {
            // Small cells may have too few rows: then more of them are searched.
            let mut held = 0;
            let enough = nearest[g].iter().position(|&cell| {
                held += groups.ranges[cell as usize].len();
                held > count + SPARE
            });
            let mut cells = nearest[g][..probes.max(enough.map_or(k, |last| last + 1))].to_vec();
            cells.sort_unstable();
            cells
        };
        Ok((tiles_of(&groups, probed), groups, recall))
    }
}

/// All rows in order, in groups that every row searches.
fn whole(n: usize) -> Groups {
    let ranges = (0..n).step_by(GROUP).map(|start| start..n.min(start + GROUP)).collect();
    Groups { order: (0..n as u32).collect(), ranges }
}

/// The rows of every group, in tiles that search the groups in `probes`.
fn tiles_of(groups: &Groups, probes: impl Fn(usize) -> Vec<u32>) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (g, range) in groups.ranges.iter().enumerate() {
        let probed = probes(g);
        for rows in groups.order[range.clone()].chunks(TILE) {
            tiles.push(Tile { rows: rows.to_vec(), groups: probed.clone() });
        }
    }
    tiles
}

/// The rows of each cluster, in order.
fn by_label(labels: &[u32], k: usize) -> Groups {
    let mut ends = vec![0; k + 1];
    labels.iter().for_each(|&label| ends[label as usize + 1] += 1);
    for i in 0..k {
        ends[i + 1] += ends[i];
    }
    let ranges = ends.windows(2).map(|w| w[0]..w[1]).collect();
    let mut order = vec![0; labels.len()];
    for (row, &label) in labels.iter().enumerate() {
        order[ends[label as usize]] = row as u32;
        ends[label as usize] += 1;
    }
    Groups { order, ranges }
}

/// For each cell, all cells in the order of the distance of their centroids.
fn nearest_cells(centroids: &[f32], dim: usize, pool: &Pool) -> Vec<Vec<u32>> {
    pool.map(centroids.len() / dim, |cell| {
        let mut distances = vec![0.0; centroids.len() / dim];
        squared_distances(&centroids[cell * dim..][..dim], centroids, &mut distances);
        let mut order: Vec<u32> = (0..distances.len() as u32).collect();
        order.sort_by(|&a, &b| distances[a as usize].total_cmp(&distances[b as usize]).then(a.cmp(&b)));
        order
    })
}

/// The nearest `count` candidates of each row with their distances, in the order of the rows.
fn settle(
    rows: &Prepared<'_>,
    tiles: &[Tile],
    best: Vec<Candidate>,
    keep: usize,
    count: usize,
    pool: &Pool,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let starts: Vec<usize> =
        tiles.iter().scan(0, |end, tile| Some(std::mem::replace(end, *end + tile.rows.len()))).collect();
    let settled = pool.map(tiles.len(), |t| {
        let rows_of = &tiles[t].rows;
        settle_tile(rows, rows_of, &best[starts[t] * keep..][..rows_of.len() * keep], keep, count)
    });
    let n = rows.len();
    let (mut numbers, mut distances) = (vec![0; n * count], vec![0.0; n * count]);
    for (tile, near) in tiles.iter().zip(settled) {
        let near = near?;
        for (&row, near) in tile.rows.iter().zip(near.chunks_exact(count.max(1))) {
            for (i, &(distance, number)) in near.iter().enumerate() {
                numbers[row as usize * count + i] = number;
                distances[row as usize * count + i] = distance;
            }
        }
    }
    Ok((numbers, distances))
}

fn settle_tile(
    rows: &Prepared<'_>,
    tile: &[u32],
    best: &[Candidate],
    keep: usize,
    count: usize,
) -> Result<Vec<(f32, u32)>> {
    let dim = rows.dim();
    let (mut values, mut norms) = (vec![0.0; tile.len() * dim], vec![0.0; tile.len()]);
    rows.gather(tile, &mut values)?;
    squared_norms(&values, dim, &mut norms);
    let mut others = Vec::new();
    let mut settled = Vec::with_capacity(tile.len() * count);
    for ((&own, best), (row, &norm)) in tile.iter().zip(best.chunks(keep)).zip(values.chunks(dim).zip(&norms)) {
        if best.iter().any(|c| c.row == u32::MAX) {
            return Err(Error::internal(format!("row {own} has too few neighbours in its cells")));
        }
        let mut squared: Vec<f32> = best.iter().map(|c| (norm - 2.0 * c.score).max(0.0)).collect();
        if squared.iter().any(|&d| d < CANCELLED * norm) {
            let numbers: Vec<u32> = best.iter().map(|c| c.row).collect();
            others.resize(numbers.len() * dim, 0.0);
            rows.gather(&numbers, &mut others)?;
            squared_distances(row, &others, &mut squared);
        }
        let mut near: Vec<(f32, u32)> = squared.into_iter().zip(best.iter().map(|c| c.row)).collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        settled.extend(near.into_iter().take(count).map(|(squared, number)| (rows.distance(squared), number)));
    }
    Ok(settled)
}
