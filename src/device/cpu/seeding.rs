//! Greedy k-means++ on the processor: the sample in parts, each part with its distances.

use crate::error::Result;
use crate::kernel::distance::Centroids;
use crate::kernel::{Pool, fold};

/// A sample with the distances to its seeds so far.
pub(super) struct Seeding<'a> {
    pool: &'a Pool,
    sample: &'a [f32],
    dim: usize,
    parts: Vec<Part<'a>>,
}

/// A part of the sample.
struct Part<'a> {
    rows: &'a [f32],
    /// Squared distance of each row to the nearest centroid so far.
    closest: Vec<f32>,
    /// Sum of `closest`.
    potential: f64,
    /// Distances to the candidates, candidate by candidate, and what the potential would be with each.
    distances: Vec<f32>,
    potentials: Vec<f64>,
}

impl<'a> Seeding<'a> {
    pub fn new(sample: &'a [f32], dim: usize, pool: &'a Pool) -> Self {
        let part = |range: std::ops::Range<usize>| Part {
            rows: &sample[range.start * dim..range.end * dim],
            closest: vec![f32::INFINITY; range.len()],
            potential: 0.0,
            distances: Vec::new(),
            potentials: Vec::new(),
        };
        let parts = fold::parts(sample.len() / dim, fold::MAX_PARTS).into_iter().map(part).collect();
        Self { pool, sample, dim, parts }
    }
}

impl Part<'_> {
    fn measure(&mut self, candidates: &Centroids) {
        self.distances.resize(candidates.k() * self.closest.len(), 0.0);
        candidates.all(self.rows, &mut self.distances);
        let closest = &self.closest;
        self.potentials.clear();
        self.potentials.extend(self.distances.chunks_exact(closest.len()).map(|d| sum_of_minima(d, closest)));
    }

    fn choose(&mut self, candidate: usize) {
        let n = self.closest.len();
        for (closest, &d) in self.closest.iter_mut().zip(&self.distances[candidate * n..]) {
            *closest = closest.min(d);
        }
        self.potential = self.potentials[candidate];
    }
}

fn sum_of_minima(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(a.min(*b));
        }
    }
    lanes.iter().sum()
}

impl crate::device::Seeding for Seeding<'_> {
    fn potentials(&mut self, candidates: &[usize], out: &mut [f64]) -> Result<()> {
        let values: Vec<f32> =
            candidates.iter().flat_map(|&i| &self.sample[i * self.dim..][..self.dim]).copied().collect();
        let centers = Centroids::new(&values, self.dim);
        self.pool.for_each_chunk_mut(&mut self.parts, 1, |_, part| part[0].measure(&centers));
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.parts.iter().map(|part| part.potentials[i]).sum();
        }
        Ok(())
    }

    fn choose(&mut self, candidate: usize) -> Result<()> {
        self.pool.for_each_chunk_mut(&mut self.parts, 1, |_, part| part[0].choose(candidate));
        Ok(())
    }

    fn locate(&self, mut target: f64) -> Result<usize> {
        let mut first = 0;
        for part in &self.parts {
            if target < part.potential {
                let mut last = None;
                for (i, &d) in part.closest.iter().enumerate().filter(|(_, d)| **d > 0.0) {
                    last = Some(first + i);
                    target -= f64::from(d);
                    if target < 0.0 {
                        break;
                    }
                }
                if let Some(last) = last {
                    return Ok(last);
                }
            }
            target -= part.potential;
            first += part.closest.len();
        }
        // Rounding can leave a target just past the end: the last row that may be drawn.
        let all = self.parts.iter().flat_map(|part| &part.closest);
        Ok(all.enumerate().filter(|(_, d)| **d > 0.0).map(|(i, _)| i).last().unwrap_or(0))
    }
}
