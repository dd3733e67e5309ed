//! A device in plain `f64` loops, one row at a time.

use std::sync::Arc;

use dacpipe::Result;
use dacpipe::device::{
    Assign, Assigned, BatchSums, Decode, Device, Encode, Farthest, Found, Lloyd, Points, Seeding, StepLoss,
    StepSettings, Trainer, TrainerState,
};
use dacpipe::kernel::{Matrix, Pool, Rows};
use dacpipe::loss::{PenaltyForm, WeightedMse};
use dacpipe::network::{Activation, Architecture};

#[derive(Debug)]
pub struct Naive(Arc<Pool>);

impl Naive {
    pub fn new() -> Self {
        Self(Arc::new(Pool::new(1)))
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

fn row_of(rows: &dyn Rows, row: usize) -> Result<Vec<f32>> {
    let mut values = vec![0.0; rows.dim()];
    rows.read(row..row + 1, &mut values)?;
    Ok(values)
}

impl Device for Naive {
    fn pool(&self) -> &Arc<Pool> {
        &self.0
    }

    fn trainer<'a>(
        &'a self,
        rows: &'a dyn Rows,
        architecture: &Architecture,
        parameters: &[f32],
        loss: WeightedMse,
        _: usize,
    ) -> Result<Box<dyn Trainer + 'a>> {
        let network = Layers { architecture: architecture.clone(), parameters: wide(parameters) };
        let zeros = vec![0.0; parameters.len()];
        Ok(Box::new(Loops { rows, network, loss, steps: 0, first: zeros.clone(), second: zeros, batch: Vec::new() }))
    }

    fn points<'a>(&'a self, rows: &'a dyn Rows) -> Result<Box<dyn Points + 'a>> {
        Ok(Box::new(PlainPoints(rows)))
    }

    fn seeding<'a>(&'a self, sample: &'a [f32], dim: usize) -> Result<Box<dyn Seeding + 'a>> {
        let closest = vec![f64::INFINITY; sample.len() / dim];
        Ok(Box::new(PlainSeeding { sample, dim, closest, candidates: Vec::new() }))
    }

    fn encoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Encode>> {
        Ok(Arc::new(Layers { architecture: architecture.clone(), parameters: wide(parameters) }))
    }

    fn decoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Decode>> {
        Ok(Arc::new(Layers { architecture: architecture.clone(), parameters: wide(parameters) }))
    }

    fn centroids(&self, values: &[f32], dim: usize) -> Result<Arc<dyn Assign>> {
        Ok(Arc::new(PlainCentroids(values.to_vec(), dim)))
    }
}

#[derive(Debug)]
struct Layers {
    architecture: Architecture,
    parameters: Vec<f64>,
}

impl Layers {
    /// The row and the output of every layer.
    fn forward(&self, row: &[f32]) -> Vec<Vec<f64>> {
        self.forward_from(0, row)
    }

    /// The input of layer number `first`, and the output of every layer from there on.
    fn forward_from(&self, first: usize, input: &[f32]) -> Vec<Vec<f64>> {
        let mut outputs = vec![wide(input)];
        for (layer, places) in self.architecture.layers().zip(self.architecture.tensors().chunks(2)).skip(first) {
            let (weight, bias) = (&self.parameters[places[0].range.clone()], &self.parameters[places[1].range.clone()]);
            let x = &outputs[outputs.len() - 1];
            let sum = |(w, b): (&[f64], &f64)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b;
            let y = weight.chunks(layer.inputs).zip(bias).map(sum).map(|y| match layer.activation {
                Activation::Identity => y,
                Activation::Relu => y.max(0.0),
                Activation::Tanh => y.tanh(),
                Activation::Sigmoid => 1.0 / (1.0 + (-y).exp()),
                Activation::LeakyRelu => y.max(0.01 * y),
                Activation::Elu => y.max(0.0) + y.min(0.0).exp_m1(),
                Activation::Softplus => y.max(0.0) + (-y.abs()).exp().ln_1p(),
            });
            outputs.push(y.collect());
        }
        outputs
    }

    /// Adds one row's part to `gradient`, from the gradients at reconstruction and embedding.
    fn backward(&self, outputs: &[Vec<f64>], mut d: Vec<f64>, at_embedding: &[f64], gradient: &mut [f64]) {
        let layers: Vec<_> =
            self.architecture.layers().zip(self.architecture.tensors().chunks(2).map(<[_]>::to_vec)).collect();
        for (i, (layer, places)) in layers.iter().enumerate().rev() {
            if i + 1 == self.architecture.encoder.len() {
                d.iter_mut().zip(at_embedding).for_each(|(d, more)| *d += more);
            }
            for (d, y) in d.iter_mut().zip(&outputs[i + 1]) {
                *d *= match layer.activation {
                    Activation::Identity => 1.0,
                    Activation::Relu => f64::from(u8::from(*y > 0.0)),
                    Activation::Tanh => 1.0 - y * y,
                    Activation::Sigmoid => y * (1.0 - y),
                    Activation::LeakyRelu => [0.01, 1.0][usize::from(*y > 0.0)],
                    Activation::Elu => y.min(0.0) + 1.0,
                    Activation::Softplus => 1.0 - (-y).exp(),
                };
            }
            let mut below = vec![0.0; layer.inputs];
            for (o, d) in d.iter().enumerate() {
                let at = places[0].range.start + o * layer.inputs;
                for (j, below) in below.iter_mut().enumerate() {
                    gradient[at + j] += d * outputs[i][j];
                    *below += d * self.parameters[at + j];
                }
                gradient[places[1].range.start + o] += d;
            }
            d = below;
        }
    }
}

impl Encode for Layers {
    fn encode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let (dim, code) = (self.architecture.dim_in(), self.architecture.dim_embedding());
        for (row, out) in input.chunks(dim).zip(output.chunks_mut(code)) {
            out.copy_from_slice(&narrow(&self.forward(row)[self.architecture.encoder.len()]));
        }
        Ok(())
    }
}

impl Decode for Layers {
    fn decode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let (dim, code) = (self.architecture.dim_in(), self.architecture.dim_embedding());
        for (code, out) in input.chunks(code).zip(output.chunks_mut(dim)) {
            let outputs = self.forward_from(self.architecture.encoder.len(), code);
            out.copy_from_slice(&narrow(&outputs[outputs.len() - 1]));
        }
        Ok(())
    }
}

struct Loops<'a> {
    rows: &'a dyn Rows,
    network: Layers,
    loss: WeightedMse,
    steps: u64,
    first: Vec<f64>,
    second: Vec<f64>,
    batch: Vec<u32>,
}

impl Trainer for Loops<'_> {
    fn load(&mut self, batch: &[u32]) -> Result<()> {
        self.batch = batch.to_vec();
        Ok(())
    }

    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<StepLoss> {
        let batch = std::mem::replace(&mut self.batch, next.to_vec());
        let (n, dim) = (batch.len(), self.rows.dim());
        let (layers, code) = (self.network.architecture.encoder.len(), self.network.architecture.dim_embedding());
        let rows = batch.iter().map(|&row| row_of(self.rows, row as usize)).collect::<Result<Vec<_>>>()?;
        let passes: Vec<_> = rows.iter().map(|row| self.network.forward(row)).collect();
        let (mut embedding, mut at_embedding) = (Matrix::zeros(n, code), Matrix::zeros(n, code));
        for (i, pass) in passes.iter().enumerate() {
            embedding.row_mut(i).copy_from_slice(&narrow(&pass[layers]));
        }
        let mut loss = StepLoss::default();
        if let Some(joined) = settings.embedding {
            loss.embedding = joined.sum_and_gradient(&embedding, &batch, n, &mut at_embedding) / n as f64;
        }
        let mut gradient = vec![0.0; self.network.parameters.len()];
        for (i, pass) in passes.iter().enumerate() {
            let mut d = vec![0.0; dim];
            for (j, (y, x)) in pass[pass.len() - 1].iter().zip(&pass[0]).enumerate() {
                let weight = self.loss.weights.get(j).map_or(1.0, |&w| f64::from(w)) / (dim * n) as f64;
                loss.reconstruction += weight * (y - x).powi(2);
                d[j] = settings.reconstruction * 2.0 * weight * (y - x);
            }
            self.network.backward(pass, d, &wide(at_embedding.row(i)), &mut gradient);
        }
        if !loss.is_finite() {
            return Ok(loss);
        }
        let norm = self.network.parameters.iter().map(|p| p * p).sum::<f64>().sqrt();
        let l2 = match settings.penalty.form {
            PenaltyForm::Squared => 2.0 * settings.penalty.beta,
            PenaltyForm::Norm => settings.penalty.beta / norm,
        };
        self.steps += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.steps as f64);
        for (i, g) in gradient.iter().enumerate() {
            let (p, m, v) = (&mut self.network.parameters[i], &mut self.first[i], &mut self.second[i]);
            let g = g + l2 * *p;
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            *p -= settings.learning_rate * (*m / correction(0.9)) / ((*v / correction(0.999)).sqrt() + 1e-8);
            // A state is kept in 32 bits, so the learner rounds to them, too: after a restore it must go on with the
            // same bits.
            [p, m, v].into_iter().for_each(|x| *x = f64::from(*x as f32));
        }
        Ok(loss)
    }

    fn state(&self) -> Result<TrainerState> {
        let [parameters, first, second] = [&self.network.parameters, &self.first, &self.second].map(|v| narrow(v));
        Ok(TrainerState { steps: self.steps, parameters, first, second })
    }

    fn restore(&mut self, state: &TrainerState) -> Result<()> {
        self.steps = state.steps;
        self.network.parameters = wide(&state.parameters);
        (self.first, self.second) = (wide(&state.first), wide(&state.second));
        Ok(())
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// The nearest centroid and its squared distance, and the squared distance of the second nearest.
fn nearest(row: &[f32], centroids: &[f32]) -> (usize, f64, f64) {
    let mut found = (0, f64::INFINITY, f64::INFINITY);
    for (c, centroid) in centroids.chunks(row.len()).enumerate() {
        let d = squared_distance(row, centroid);
        found = if d < found.1 { (c, d, found.1) } else { (found.0, found.1, found.2.min(d)) };
    }
    found
}

#[derive(Debug)]
struct PlainCentroids(Vec<f32>, usize);

impl Assign for PlainCentroids {
    fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) -> Result<()> {
        for (i, row) in rows.chunks(self.1).enumerate() {
            let (c, first, next) = nearest(row, &self.0);
            (labels[i], squared[i], second[i]) = (c as u32, first as f32, next as f32);
        }
        Ok(())
    }
}

struct PlainPoints<'a>(&'a dyn Rows);

impl Points for PlainPoints<'_> {
    fn rows(&self) -> &dyn Rows {
        self.0
    }

    fn moments(&self, origin: &[f32], sums: &mut [f64], squares: &mut [f64]) -> Result<()> {
        for row in 0..self.0.len() {
            for (i, (x, o)) in row_of(self.0, row)?.iter().zip(origin).enumerate() {
                let x = f64::from(*x) - f64::from(*o);
                sums[i] += x;
                squares[i] += x * x;
            }
        }
        Ok(())
    }

    /// Returns all rows at once.
    fn nearest(&self, centroids: &[f32], found: &Found<'_>) -> Result<()> {
        let (mut labels, mut squared) = (Vec::new(), Vec::new());
        for row in 0..self.0.len() {
            let (c, d, _) = nearest(&row_of(self.0, row)?, centroids);
            labels.push(c as u32);
            squared.push(d as f32);
        }
        found(0, &labels, &squared);
        Ok(())
    }

    fn batch(&mut self, rows: &[u32], centroids: &[f32], out: &mut BatchSums) -> Result<()> {
        let dim = self.0.dim();
        let k = centroids.len() / dim;
        *out = BatchSums { sums: vec![0.0; k * dim], counts: vec![0; k], squared: Vec::new() };
        for &row in rows {
            let values = row_of(self.0, row as usize)?;
            let (c, d, _) = nearest(&values, centroids);
            out.sums[c * dim..].iter_mut().zip(&values).for_each(|(sum, x)| *sum += f64::from(*x));
            out.counts[c] += 1;
            out.squared.push(d as f32);
        }
        Ok(())
    }

    fn assign(&self, centroids: &[f32]) -> Result<Assigned> {
        let dim = self.0.dim();
        let mut all = Assigned::new(centroids.len() / dim, dim);
        for row in 0..self.0.len() {
            let values = row_of(self.0, row)?;
            let (c, first, next) = nearest(&values, centroids);
            all.sums[c * dim..].iter_mut().zip(&values).for_each(|(sum, x)| *sum += f64::from(*x));
            all.counts[c] += 1;
            all.labels.push(c as u32);
            all.squared.push(first as f32);
            all.second.push(next as f32);
        }
        Ok(all)
    }

    fn lloyd(&self, k: usize) -> Result<Box<dyn Lloyd + '_>> {
        let (rows, dim) = (self.0, self.0.dim());
        let labels = vec![usize::MAX; rows.len()];
        Ok(Box::new(PlainLloyd { rows, labels, centroids: vec![], sums: vec![0.0; k * dim], counts: vec![0; k] }))
    }
}

struct PlainSeeding<'a> {
    sample: &'a [f32],
    dim: usize,
    closest: Vec<f64>,
    candidates: Vec<usize>,
}

impl PlainSeeding<'_> {
    /// The squared distance of each row to the nearest seed, if `row` were one.
    fn with(&self, row: usize) -> impl Iterator<Item = f64> + '_ {
        let seed = &self.sample[row * self.dim..][..self.dim];
        self.sample.chunks(self.dim).zip(&self.closest).map(move |(row, d)| d.min(squared_distance(row, seed)))
    }
}

impl Seeding for PlainSeeding<'_> {
    fn potentials(&mut self, candidates: &[usize], out: &mut [f64]) -> Result<()> {
        self.candidates = candidates.to_vec();
        candidates.iter().zip(out).for_each(|(&row, out)| *out = self.with(row).sum());
        Ok(())
    }

    fn choose(&mut self, candidate: usize) -> Result<()> {
        self.closest = self.with(self.candidates[candidate]).collect();
        Ok(())
    }

    fn locate(&self, mut target: f64) -> Result<usize> {
        let mut last = 0;
        for (i, d) in self.closest.iter().enumerate().filter(|(_, d)| **d > 0.0) {
            last = i;
            target -= d;
            if target < 0.0 {
                break;
            }
        }
        Ok(last)
    }
}

struct PlainLloyd<'a> {
    rows: &'a dyn Rows,
    labels: Vec<usize>,
    centroids: Vec<f32>,
    sums: Vec<f64>,
    counts: Vec<i64>,
}

impl PlainLloyd<'_> {
    fn add(&mut self, values: &[f32], cluster: usize, sign: i64) {
        let sums = self.sums[cluster * values.len()..].iter_mut();
        sums.zip(values).for_each(|(sum, x)| *sum += sign as f64 * f64::from(*x));
        self.counts[cluster] += sign;
    }
}

impl Lloyd for PlainLloyd<'_> {
    fn iterate(&mut self, centroids: &[f32]) -> Result<usize> {
        self.centroids = centroids.to_vec();
        self.sums.fill(0.0);
        self.counts.fill(0);
        let mut changed = 0;
        for row in 0..self.rows.len() {
            let values = row_of(self.rows, row)?;
            let c = nearest(&values, centroids).0;
            changed += usize::from(std::mem::replace(&mut self.labels[row], c) != c);
            self.add(&values, c, 1);
        }
        Ok(changed)
    }

    fn totals(&self) -> (&[f64], &[i64]) {
        (&self.sums, &self.counts)
    }

    fn farthest(&self, most: usize) -> Result<Vec<Farthest>> {
        let mut found = Vec::new();
        for (row, &cluster) in self.labels.iter().enumerate() {
            let values = row_of(self.rows, row)?;
            let squared = squared_distance(&values, &self.centroids[cluster * values.len()..]) as f32;
            if squared > 0.0 && self.counts[cluster] > 1 {
                found.push(Farthest { squared, row, cluster });
            }
        }
        Farthest::sort(&mut found);
        found.truncate(most);
        Ok(found)
    }

    fn reassign(&mut self, row: usize, cluster: usize) -> Result<()> {
        let values = row_of(self.rows, row)?;
        self.add(&values, self.labels[row], -1);
        self.add(&values, cluster, 1);
        self.labels[row] = cluster;
        Ok(())
    }
}
