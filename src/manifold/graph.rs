//! UMAP's fuzzy graph of the neighbours (McInnes, Healy and Melville 2018, section 3.1 and algorithms 2 and 3).
//!
//! Row j is a neighbour of row i with the membership `exp(-max(0, d_ij - rho_i) / sigma_i)`: `rho_i` is the distance of
//! the nearest neighbour that is not at distance 0, and `sigma_i` is chosen so that the memberships of the neighbours
//! sum to the binary logarithm of their number. The memberships a and b of two rows in each other's neighbourhoods are
//! united to an edge of weight `a + b - a b`.

use super::neighbors::Neighbors;
use crate::kernel::Pool;

/// Bisection steps in the search for a row's sigma.
const HALVINGS: usize = 64;
/// The tolerance of the sum of memberships.
const TOLERANCE: f64 = 1e-5;
/// The least sigma, as a fraction of the mean distance of the row's neighbours, or of all rows' neighbours if that is
/// 0.
const LEAST_SIGMA: f64 = 1e-3;
/// Rows that a task takes at a time.
const BLOCK: usize = 1024;

/// A symmetric graph, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The index of each row's first edge, and the number of edges at the end.
    pub starts: Vec<usize>,
    /// The row at the other end of each edge, ascending within a row.
    pub ends: Vec<u32>,
    /// The weight of each edge, above 0 and at most 1.
    pub weights: Vec<f32>,
}

impl Graph {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The edges of row `i`: the other ends and the weights.
    pub fn edges(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.starts[i]..self.starts[i + 1];
        (&self.ends[range.clone()], &self.weights[range])
    }

    /// The fuzzy graph of `neighbors`. `O(edges)` time and memory.
    pub fn fuzzy(neighbors: &Neighbors, pool: &Pool) -> Self {
        let memberships = memberships(neighbors, pool);
        let (count, n) = (neighbors.count, neighbors.rows.len() / neighbors.count.max(1));
        // For each row, the rows that have it as a neighbour.
        let mut starts = vec![0_usize; n + 1];
        neighbors.rows.iter().for_each(|&j| starts[j as usize + 1] += 1);
        for i in 0..n {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut holders = vec![(0_u32, 0.0_f32); neighbors.rows.len()];
        for (e, (&j, &membership)) in neighbors.rows.iter().zip(&memberships).enumerate() {
            holders[next[j as usize]] = ((e / count) as u32, membership);
            next[j as usize] += 1;
        }
        let joined = pool.map(n.div_ceil(BLOCK), |block| {
            let (mut lengths, mut edges) = (Vec::new(), Vec::new());
            for i in block * BLOCK..n.min((block + 1) * BLOCK) {
                let own = neighbors.rows[i * count..][..count].iter().zip(&memberships[i * count..][..count]);
                let mut own: Vec<(u32, f32)> = own.map(|(&j, &membership)| (j, membership)).collect();
                own.sort_unstable_by_key(|&(j, _)| j);
                lengths.push(unite(&own, &holders[starts[i]..starts[i + 1]], &mut edges));
            }
            (lengths, edges)
        });
        let mut graph = Self { starts: vec![0], ends: Vec::new(), weights: Vec::new() };
        for (lengths, edges) in joined {
            for length in lengths {
                graph.starts.push(graph.starts[graph.len()] + length);
            }
            graph.ends.extend(edges.iter().map(|&(j, _)| j));
            graph.weights.extend(edges.iter().map(|&(_, weight)| weight));
        }
        graph
    }

    /// The connected component of each row, numbered in the order of their first rows, and how many there are.
    pub fn components(&self) -> (Vec<u32>, usize) {
        let mut component = vec![u32::MAX; self.len()];
        let (mut count, mut open) = (0, Vec::new());
        for first in 0..self.len() {
            if component[first] != u32::MAX {
                continue;
            }
            component[first] = count;
            open.push(first);
            while let Some(row) = open.pop() {
                for &end in self.edges(row).0 {
                    if component[end as usize] == u32::MAX {
                        component[end as usize] = count;
                        open.push(end as usize);
                    }
                }
            }
            count += 1;
        }
        (component, count as usize)
    }
}

/// Appends the union of a row's own neighbours and of the rows that have it as a neighbour, both ascending, to `edges`;
/// returns its length.
fn unite(own: &[(u32, f32)], holders: &[(u32, f32)], edges: &mut Vec<(u32, f32)>) -> usize {
    let before = edges.len();
    let (mut a, mut b) = (own.iter().copied().peekable(), holders.iter().copied().peekable());
    loop {
        let edge = match (a.peek().copied(), b.peek().copied()) {
            (None, None) => break,
            (Some(x), Some(y)) if x.0 == y.0 => {
                a.next();
                b.next();
                (x.0, x.1 + y.1 - x.1 * y.1)
            }
            (Some(x), other) if other.is_none_or(|y| x.0 < y.0) => {
                a.next();
                x
            }
            (_, Some(y)) => {
                b.next();
                y
            }
            (Some(x), None) => {
                a.next();
                x
            }
        };
        if edge.1 > 0.0 {
            edges.push(edge);
        }
    }
    edges.len() - before
}

/// The membership of each neighbour of each row, `rows x count`.
pub fn memberships(neighbors: &Neighbors, pool: &Pool) -> Vec<f32> {
    let count = neighbors.count;
    let mut memberships = vec![0.0; neighbors.distances.len()];
    let total: f64 = neighbors.distances.chunks(BLOCK).map(|d| d.iter().map(|&d| f64::from(d)).sum::<f64>()).sum();
    let rows = neighbors.distances.len() / count.max(1);
    // As in the reference implementation, where a row counts as its own first neighbour at distance 0.
    let overall = total / (rows * (count + 1)).max(1) as f64;
    pool.for_each_chunk_mut(&mut memberships, BLOCK * count.max(1), |block, memberships| {
        let distances = &neighbors.distances[block * BLOCK * count..][..memberships.len()];
        for (distances, memberships) in distances.chunks(count.max(1)).zip(memberships.chunks_mut(count.max(1))) {
            let (rho, sigma) = scale(distances, overall);
            for (&d, membership) in distances.iter().zip(memberships) {
                let beyond = f64::from(d) - rho;
                *membership = if beyond <= 0.0 || sigma == 0.0 { 1.0 } else { (-beyond / sigma).exp() as f32 };
            }
        }
    });
    memberships
}

/// A row's rho and sigma.
fn scale(distances: &[f32], overall: f64) -> (f64, f64) {
    let count = distances.len() + 1;
    let target = (count as f64).log2();
    let rho = distances.iter().find(|&&d| d > 0.0).map_or(0.0, |&d| f64::from(d));
    let (mut low, mut high, mut sigma) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..HALVINGS {
        let reached = |beyond: f64| if beyond > 0.0 { (-beyond / sigma).exp() } else { 1.0 };
        let sum: f64 = distances.iter().map(|&d| reached(f64::from(d) - rho)).sum();
        if (sum - target).abs() < TOLERANCE {
            break;
        }
        if sum > target {
            high = sigma;
            sigma = (low + high) / 2.0;
        } else {
            low = sigma;
            sigma = if high.is_finite() { (low + high) / 2.0 } else { sigma * 2.0 };
        }
    }
    let mean = distances.iter().map(|&d| f64::from(d)).sum::<f64>() / count as f64;
    (rho, sigma.max(LEAST_SIGMA * if rho > 0.0 { mean } else { overall }))
}
