//! The CPU device in a wrapper that counts calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dacpipe::Result;
use dacpipe::device::{
    Assign, Assigned, BatchSums, Cpu, Decode, Device, Encode, Farthest, Found, Lloyd, Points, Seeding, StepLoss,
    StepSettings, Trainer, TrainerState,
};
use dacpipe::kernel::{Pool, Rows};
use dacpipe::loss::WeightedMse;
use dacpipe::network::Architecture;

/// Calls by the method's name.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Calls {
    fn add(&self, name: &'static str) {
        *self.0.lock().unwrap().entry(name).or_default() += 1;
    }
}

/// A device that counts.
#[derive(Debug)]
pub struct Counting {
    cpu: Cpu,
    calls: Calls,
}

impl Counting {
    pub fn new() -> Self {
        Self { cpu: Cpu::new(3), calls: Calls::default() }
    }

    /// How often a method was called.
    pub fn calls(&self, name: &str) -> usize {
        self.calls.0.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn wrap<T>(&self, name: &'static str, inner: T) -> Counted<T> {
        self.calls.add(name);
        Counted { inner, calls: self.calls.clone() }
    }
}

/// An object that the device returned, and the counter of its calls.
#[derive(Debug)]
struct Counted<T> {
    inner: T,
    calls: Calls,
}

impl Device for Counting {
    fn pool(&self) -> &Arc<Pool> {
        self.cpu.pool()
    }

    fn trainer<'a>(
        &'a self,
        rows: &'a dyn Rows,
        architecture: &Architecture,
        parameters: &[f32],
        loss: WeightedMse,
        batch_size: usize,
    ) -> Result<Box<dyn Trainer + 'a>> {
        let inner = self.cpu.trainer(rows, architecture, parameters, loss, batch_size)?;
        Ok(Box::new(self.wrap("trainer", inner)))
    }

    fn points<'a>(&'a self, rows: &'a dyn Rows) -> Result<Box<dyn Points + 'a>> {
        Ok(Box::new(self.wrap("points", self.cpu.points(rows)?)))
    }

    fn seeding<'a>(&'a self, sample: &'a [f32], dim: usize) -> Result<Box<dyn Seeding + 'a>> {
        Ok(Box::new(self.wrap("seeding", self.cpu.seeding(sample, dim)?)))
    }

    fn encoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Encode>> {
        Ok(Arc::new(self.wrap("encoder", self.cpu.encoder(architecture, parameters)?)))
    }

    fn decoder(&self, architecture: &Architecture, parameters: &[f32]) -> Result<Arc<dyn Decode>> {
        Ok(Arc::new(self.wrap("decoder", self.cpu.decoder(architecture, parameters)?)))
    }

    fn centroids(&self, values: &[f32], dim: usize) -> Result<Arc<dyn Assign>> {
        Ok(Arc::new(self.wrap("centroids", self.cpu.centroids(values, dim)?)))
    }
}

impl Trainer for Counted<Box<dyn Trainer + '_>> {
    fn load(&mut self, batch: &[u32]) -> Result<()> {
        self.calls.add("load");
        self.inner.load(batch)
    }

    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<StepLoss> {
        self.calls.add("step");
        self.inner.step(next, settings)
    }

    fn state(&self) -> Result<TrainerState> {
        self.calls.add("state");
        self.inner.state()
    }

    fn restore(&mut self, state: &TrainerState) -> Result<()> {
        self.calls.add("restore");
        self.inner.restore(state)
    }
}

impl Points for Counted<Box<dyn Points + '_>> {
    fn rows(&self) -> &dyn Rows {
        self.inner.rows()
    }

    fn moments(&self, origin: &[f32], sums: &mut [f64], squares: &mut [f64]) -> Result<()> {
        self.calls.add("moments");
        self.inner.moments(origin, sums, squares)
    }

    fn nearest(&self, centroids: &[f32], found: &Found<'_>) -> Result<()> {
        self.calls.add("nearest");
        self.inner.nearest(centroids, found)
    }

    fn batch(&mut self, rows: &[u32], centroids: &[f32], out: &mut BatchSums) -> Result<()> {
        self.calls.add("batch");
        self.inner.batch(rows, centroids, out)
    }

    fn assign(&self, centroids: &[f32]) -> Result<Assigned> {
        self.calls.add("assign");
        self.inner.assign(centroids)
    }

    fn lloyd(&self, k: usize) -> Result<Box<dyn Lloyd + '_>> {
        self.calls.add("lloyd");
        Ok(Box::new(Counted { inner: self.inner.lloyd(k)?, calls: self.calls.clone() }))
    }
}

impl Seeding for Counted<Box<dyn Seeding + '_>> {
    fn potentials(&mut self, candidates: &[usize], out: &mut [f64]) -> Result<()> {
        self.calls.add("potentials");
        self.inner.potentials(candidates, out)
    }

    fn choose(&mut self, candidate: usize) -> Result<()> {
        self.calls.add("choose");
        self.inner.choose(candidate)
    }

    fn locate(&self, target: f64) -> Result<usize> {
        self.calls.add("locate");
        self.inner.locate(target)
    }
}

impl Lloyd for Counted<Box<dyn Lloyd + '_>> {
    fn iterate(&mut self, centroids: &[f32]) -> Result<usize> {
        self.calls.add("iterate");
        self.inner.iterate(centroids)
    }

    fn totals(&self) -> (&[f64], &[i64]) {
        self.inner.totals()
    }

    fn farthest(&self, most: usize) -> Result<Vec<Farthest>> {
        self.calls.add("farthest");
        self.inner.farthest(most)
    }

    fn reassign(&mut self, row: usize, cluster: usize) -> Result<()> {
        self.calls.add("reassign");
        self.inner.reassign(row, cluster)
    }
}

impl Encode for Counted<Arc<dyn Encode>> {
    fn encode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.calls.add("encode");
        self.inner.encode(input, output)
    }
}

impl Decode for Counted<Arc<dyn Decode>> {
    fn decode(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.calls.add("decode");
        self.inner.decode(input, output)
    }
}

impl Assign for Counted<Arc<dyn Assign>> {
    fn nearest_two(&self, rows: &[f32], labels: &mut [u32], squared: &mut [f32], second: &mut [f32]) -> Result<()> {
        self.calls.add("nearest_two");
        self.inner.nearest_two(rows, labels, squared, second)
    }
}
