//! The initial coordinates of the layout: the eigenvectors of the graph's normalised Laplacian with the least
//! eigenvalues, without the first, which is trivial (Belkin and Niyogi 2003).
//!
//! They are the eigenvectors of `D^{-1/2} W D^{-1/2}` with the greatest eigenvalues, found by subspace iteration with a
//! Chebyshev filter: a polynomial that is small on the unwanted eigenvalues and grows fast beyond them, followed by a
//! Rayleigh-Ritz step, repeated with a sharper filter. They need not be exact, since the layout only starts from them.
//!
//! Each connected component is laid out by itself, around a point far from the others.

use rand::Rng;

use super::graph::Graph;
use crate::error::Result;
use crate::event::Control;
use crate::kernel::symmetric::eigen;
use crate::kernel::{Pool, fold};
use crate::seed::Seed;

/// Rounds of filter and Rayleigh-Ritz, and products with the matrix in each.
const ROUNDS: usize = 5;
const DEGREE: usize = 24;
/// Additional vectors, which converge the slowest.
const SPARE: usize = 5;
/// Rows that a task takes at a time.
const BLOCK: usize = 1024;
/// Half the width of the initial coordinates.
const REACH: f32 = 10.0;
/// The size of the noise that separates rows at the same position.
const NOISE: f32 = 1e-4;
/// Components smaller than this many times `dim` are placed at random around their point.
const SMALL: usize = 2;

/// The initial coordinates of a layout in `dim` dimensions: `rows x dim` values from 0 to 10.
///
/// # Errors
/// Kind `Cancelled`.
pub fn start(graph: &Graph, dim: usize, seed: Seed, pool: &Pool, control: &Control) -> Result<Vec<f32>> {
    let (component, count) = graph.components();
    let mut rng = seed.stream("manifold.start", 0);
    let mut positions = match count {
        1 => eigenvectors(graph, dim, seed, pool, control)?,
        _ => apart(graph, &component, count, dim, seed, pool, control)?,
    };
    turn(&mut positions, dim, &mut rng);
    let largest = positions.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let factor = if largest > 0.0 { REACH / largest } else { 1.0 };
    positions.iter_mut().for_each(|x| *x = *x * factor + NOISE * normal(&mut rng));
    for d in 0..dim {
        let values = || positions.iter().skip(d).step_by(dim);
        let (low, high) = values().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        let factor = if high > low { REACH / (high - low) } else { 0.0 };
        positions.iter_mut().skip(d).step_by(dim).for_each(|x| *x = (*x - low) * factor);
    }
    Ok(positions)
}

/// Rotates positions at random. An eigenvector that separates only a few rows has almost the same value for all others,
/// and the layout would keep that axis flat; after the rotation, every axis has a part of each eigenvector.
fn turn(positions: &mut [f32], dim: usize, rng: &mut impl Rng) {
    let mut axes: Vec<Vec<f64>> = Vec::with_capacity(dim);
    while axes.len() < dim {
        let mut axis: Vec<f64> = (0..dim).map(|_| f64::from(normal(rng))).collect();
        // Gram-Schmidt, applied twice to remove rounding errors.
        for _ in 0..2 {
            for other in &axes {
                let along: f64 = axis.iter().zip(other).map(|(x, y)| x * y).sum();
                axis.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = axis.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-6 {
            axes.push(axis.into_iter().map(|x| x / length).collect());
        }
    }
    let mut turned = vec![0.0_f32; dim];
    for row in positions.chunks_exact_mut(dim) {
        for (to, axis) in turned.iter_mut().zip(&axes) {
            *to = axis.iter().zip(row.iter()).map(|(a, &x)| a * f64::from(x)).sum::<f64>() as f32;
        }
        row.copy_from_slice(&turned);
    }
}

/// The point of each component: the ends of the axes if there are enough of them, else random points; the width of a
/// component is half the distance to the nearest other point.
fn apart(
    graph: &Graph,
    component: &[u32],
    count: usize,
    dim: usize,
    seed: Seed,
    pool: &Pool,
    control: &Control,
) -> Result<Vec<f32>> {
    let mut rng = seed.stream("manifold.components", 0);
    let mut points = vec![0.0_f32; count * dim];
    for (c, point) in points.chunks_exact_mut(dim).enumerate() {
        match c < 2 * dim {
            true => point[c % dim] = if c < dim { 1.0 } else { -1.0 },
            false => point.iter_mut().for_each(|x| *x = normal(&mut rng)),
        }
    }
    let mut members = vec![Vec::new(); count];
    component.iter().enumerate().for_each(|(row, &c)| members[c as usize].push(row as u32));
    // With many components, computing all pairs of distances would take quadratic time.
    let near =
        if count <= 2 * dim { 2.0_f32.sqrt() } else { (dim as f32).sqrt() / (count as f32).powf(1.0 / dim as f32) };
    let mut positions = vec![0.0; component.len() * dim];
    let mut local = vec![0; component.len()];
    for (c, rows) in members.iter().enumerate() {
        let own = match rows.len() > SMALL * dim + SPARE {
            true => {
                rows.iter().zip(0..).for_each(|(&row, i)| local[row as usize] = i);
                let part = part(graph, rows, &local);
                eigenvectors(&part, dim, Seed(seed.0 ^ (c as u64 + 1)), pool, control)?
            }
            false => (0..rows.len() * dim).map(|_| normal(&mut rng)).collect(),
        };
        let largest = own.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let factor = near / 2.0 / largest;
        for (&row, own) in rows.iter().zip(own.chunks_exact(dim)) {
            let point = &points[c * dim..][..dim];
            let to = &mut positions[row as usize * dim..][..dim];
            to.iter_mut().zip(point).zip(own).for_each(|((to, point), own)| *to = point + factor * own);
        }
    }
    Ok(positions)
}

/// The graph of the rows of one component, renumbered.
fn part(graph: &Graph, rows: &[u32], local: &[u32]) -> Graph {
    let mut part = Graph { starts: vec![0], ends: Vec::new(), weights: Vec::new() };
    for &row in rows {
        let (ends, weights) = graph.edges(row as usize);
        part.ends.extend(ends.iter().map(|&end| local[end as usize]));
        part.weights.extend_from_slice(weights);
        part.starts.push(part.ends.len());
    }
    part
}

/// The eigenvectors 2 to `dim + 1` of a connected graph, row-major (`rows x dim`).
fn eigenvectors(graph: &Graph, dim: usize, seed: Seed, pool: &Pool, control: &Control) -> Result<Vec<f32>> {
    let n = graph.len();
    let width = (dim + 1 + SPARE).min(n);
    let matrix = Normalised::of(graph, pool);
    let mut rng = seed.stream("manifold.subspace", 0);
    let mut block: Vec<f32> = (0..n * width).map(|_| normal(&mut rng)).collect();
    // The first eigenvector is known: the square roots of the degrees.
    for (row, root) in block.chunks_exact_mut(width).zip(&matrix.roots) {
        row[0] = *root;
    }
    orthonormalise(&mut block, width, pool);
    let mut cut = 0.0;
    for round in 0..ROUNDS {
        control.check()?;
        if round > 0 {
            block = filter(&matrix, block, width, cut, pool);
            orthonormalise(&mut block, width, pool);
        }
        let values = ritz(&matrix, &mut block, width, pool);
        // The wanted vectors are all but the spare ones; the filter suppresses eigenvalues below the last of them.
        cut = values[width - 1].clamp(0.0, 0.999);
    }
    let wanted = dim.min(width - 1);
    let mut positions = vec![0.0; n * dim];
    for (to, from) in positions.chunks_exact_mut(dim).zip(block.chunks_exact(width)) {
        to[..wanted].copy_from_slice(&from[1..=wanted]);
    }
    Ok(positions)
}

/// `D^{-1/2} W D^{-1/2}`.
struct Normalised<'a> {
    graph: &'a Graph,
    weights: Vec<f32>,
    /// The square roots of the degrees.
    roots: Vec<f32>,
}

impl<'a> Normalised<'a> {
    fn of(graph: &'a Graph, pool: &Pool) -> Self {
        let mut roots = vec![0.0_f32; graph.len()];
        pool.for_each_chunk_mut(&mut roots, BLOCK, |block, roots| {
            for (i, root) in roots.iter_mut().enumerate() {
                let (_, weights) = graph.edges(block * BLOCK + i);
                *root = weights.iter().map(|&w| f64::from(w)).sum::<f64>().sqrt() as f32;
            }
        });
        let mut weights = graph.weights.clone();
        for i in 0..graph.len() {
            let range = graph.starts[i]..graph.starts[i + 1];
            for (weight, &j) in weights[range.clone()].iter_mut().zip(&graph.ends[range]) {
                *weight /= roots[i] * roots[j as usize];
            }
        }
        Self { graph, weights, roots }
    }

    /// `out = scale * (A block + shift * block) - minus`, row by row.
    fn apply(
        &self,
        block: &[f32],
        width: usize,
        [scale, shift]: [f32; 2],
        minus: Option<&[f32]>,
        pool: &Pool,
    ) -> Vec<f32> {
        let mut out = vec![0.0; block.len()];
        pool.for_each_chunk_mut(&mut out, BLOCK * width, |b, out| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let row = b * BLOCK + i;
                let range = self.graph.starts[row]..self.graph.starts[row + 1];
                let own = &block[row * width..][..width];
                out.iter_mut().zip(own).for_each(|(out, x)| *out = shift * x);
                for (&j, &weight) in self.graph.ends[range.clone()].iter().zip(&self.weights[range]) {
                    let other = &block[j as usize * width..][..width];
                    out.iter_mut().zip(other).for_each(|(out, x)| *out += weight * x);
                }
                match minus {
                    None => out.iter_mut().for_each(|out| *out *= scale),
                    Some(minus) => {
                        let minus = &minus[row * width..][..width];
                        out.iter_mut().zip(minus).for_each(|(out, minus)| *out = scale * *out - minus);
                    }
                }
            }
        });
        out
    }
}

/// The Chebyshev polynomial of [`DEGREE`] that is at most 1 from -1 to `cut`, of the matrix, times the block.
fn filter(matrix: &Normalised<'_>, block: Vec<f32>, width: usize, cut: f64, pool: &Pool) -> Vec<f32> {
    let (half, centre) = ((cut + 1.0) / 2.0, (cut - 1.0) / 2.0);
    let scale = (1.0 / half) as f32;
    let mut before = block;
    let mut now = matrix.apply(&before, width, [scale, -centre as f32], None, pool);
    for _ in 1..DEGREE {
        let next = matrix.apply(&now, width, [2.0 * scale, -centre as f32], Some(&before), pool);
        before = std::mem::replace(&mut now, next);
    }
    now
}

/// The products of all pairs of columns of `a` and `b`, `width x width`.
fn products(a: &[f32], b: &[f32], width: usize, pool: &Pool) -> Vec<f64> {
    let parts = fold::parts(a.len() / width, fold::MAX_PARTS);
    let sums = pool.map(parts.len(), |p| {
        let mut sums = vec![0.0; width * width];
        let range = parts[p].start * width..parts[p].end * width;
        for (a, b) in a[range.clone()].chunks_exact(width).zip(b[range].chunks_exact(width)) {
            for (sums, &a) in sums.chunks_exact_mut(width).zip(a) {
                sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b));
            }
        }
        sums
    });
    (0..width * width).map(|i| sums.iter().map(|sums| sums[i]).sum()).collect()
}

/// Every row of `block` times `factors` (`width x width`).
fn times(block: &mut [f32], width: usize, factors: &[f64], pool: &Pool) {
    pool.for_each_chunk_mut(block, BLOCK * width, |_, rows| {
        let mut row_out = vec![0.0_f64; width];
        for row in rows.chunks_exact_mut(width) {
            row_out.fill(0.0);
            for (&x, factors) in row.iter().zip(factors.chunks_exact(width)) {
                row_out.iter_mut().zip(factors).for_each(|(out, f)| *out += f64::from(x) * f);
            }
            row.iter_mut().zip(&row_out).for_each(|(x, &out)| *x = out as f32);
        }
    });
}

/// Makes the columns orthonormal, by the eigenvectors of their Gram matrix, so that nearly dependent columns do no
/// harm. It is applied twice, since a badly conditioned block leaves rounding errors the first time.
fn orthonormalise(block: &mut [f32], width: usize, pool: &Pool) {
    for _ in 0..2 {
        let (values, vectors) = eigen(&products(block, block, width, pool), width);
        let least = values[0] * 1e-12;
        let mut factors = vec![0.0; width * width];
        for (column, (value, vector)) in values.iter().zip(vectors.chunks_exact(width)).enumerate() {
            for (row, x) in vector.iter().enumerate() {
                factors[row * width + column] = x / value.max(least).max(f64::MIN_POSITIVE).sqrt();
            }
        }
        times(block, width, &factors, pool);
    }
}

/// The Rayleigh-Ritz step: turns an orthonormal block into the best approximations of eigenvectors in its span,
/// greatest eigenvalue first, and returns the eigenvalues.
fn ritz(matrix: &Normalised<'_>, block: &mut [f32], width: usize, pool: &Pool) -> Vec<f64> {
    let image = matrix.apply(block, width, [1.0, 0.0], None, pool);
    let mut projected = products(block, &image, width, pool);
    for i in 0..width {
        for j in 0..i {
            let mean = (projected[i * width + j] + projected[j * width + i]) / 2.0;
            (projected[i * width + j], projected[j * width + i]) = (mean, mean);
        }
    }
    let (values, vectors) = eigen(&projected, width);
    let mut factors = vec![0.0; width * width];
    for (column, vector) in vectors.chunks_exact(width).enumerate() {
        vector.iter().enumerate().for_each(|(row, &x)| factors[row * width + column] = x);
    }
    times(block, width, &factors, pool);
    values
}

/// A draw from the normal distribution (Box and Muller).
fn normal(rng: &mut impl Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
