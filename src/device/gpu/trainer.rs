//! Steps of training.

use std::collections::HashMap;

use super::network::Network;
use super::rows::BatchRows;
use crate::cuda::ops::{
    MET, RULE, SUMS, StepArrays, TOLD, adam, begin_step, placed_error, sum_of_squares, sums_of, weighted_error,
};
use crate::cuda::{Buffer, Machine, Recorded, View};
use crate::device::{Met, StepLoss, StepSettings, TrainerState};
use crate::error::Result;
use crate::kernel::Matrix;
use crate::kernel::Rows;
use crate::kernel::adam::Adam;
use crate::loss::{EmbeddingLoss, PenaltyForm, Placed, WeightedMse};
use crate::network::{Architecture, PASS_ROWS};

/// An autoencoder with its optimizer state, and the rows that it learns from.
#[derive(Debug)]
pub(in crate::device) struct Trainer<'a> {
    machine: Box<dyn Machine>,
    rows: BatchRows<'a>,
    network: Network,
    first: Buffer<f32>,
    second: Buffer<f32>,
    /// A weight per feature, if there are any.
    weights: Option<Buffer<f32>>,
    dim: usize,
    dim_embedding: usize,
    batch_size: usize,
    told: Buffer<f64>,
    met: Buffer<f64>,
    rule: Buffer<f32>,
    /// Sums of the reconstruction's and the embedding's losses and of the parameters' squares.
    sums: [Buffer<f64>; 3],
    /// The gradient at the embeddings of a loss that is the host's.
    joined: Buffer<f32>,
    /// What `told` holds.
    was_told: [f64; TOLD],
    /// Where the embeddings should lie, with what there is of it on the host.
    places: Option<Places>,
    /// Steps of each kind, once it was taken; recorded once it was taken twice, where the machine can.
    recorded: HashMap<Kind, Option<Option<Box<dyn Recorded>>>>,
}

/// What makes a step another recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    rows: usize,
    /// The bits of the factor of the reconstruction.
    reconstruction: u64,
    /// Whether the penalty needs the parameters' norm.
    norm: bool,
    /// The bits of the factors of the placed loss, if there is one.
    placed: Option<[u64; 2]>,
}

/// Places of a loss at the embedding.
#[derive(Debug)]
struct Places {
    places: Vec<u32>,
    targets: Vec<f32>,
    on_device: (Buffer<u32>, Buffer<f32>),
    /// Whether they were compared with the loss's in this epoch.
    checked: bool,
}

/// A loss at the embedding in a step.
#[derive(Clone, Copy)]
enum Joined<'a> {
    None,
    /// Its places are on the device.
    Placed(Placed<'a>),
    /// The host computes it, in the middle of the step.
    OnHost(&'a dyn EmbeddingLoss),
}

impl<'a> Trainer<'a> {
    /// Bytes that training needs beside the rows, for batches of up to `batch` rows.
    pub fn bytes(architecture: &Architecture, batch: usize) -> u128 {
        let moments = 8 * architecture.flat_len() as u128;
        let rows = 4 * batch as u128 * (architecture.dim_in() + architecture.dim_embedding() + 1) as u128;
        Network::bytes(architecture, batch) + moments + rows
    }

    /// A trainer for batches of up to `batch_size` of the rows, which are kept on the machine if they are at most
    /// `resident` bytes.
    pub fn new(
        machine: Box<dyn Machine>,
        rows: &'a dyn Rows,
        (architecture, parameters): (&Architecture, &[f32]),
        loss: &WeightedMse,
        batch_size: usize,
        resident: usize,
    ) -> Result<Self> {
        let on = &*machine;
        let len = architecture.flat_len();
        let sums = || Buffer::zeros(on, SUMS);
        let weights = match loss.weights.is_empty() {
            true => None,
            false => Some(Buffer::of(on, &loss.weights)?),
        };
        let dim_embedding = architecture.dim_embedding();
        Ok(Self {
            rows: BatchRows::new(on, rows, resident, batch_size)?,
            network: Network::new(on, architecture, parameters, batch_size)?,
            first: Buffer::zeros(on, len)?,
            second: Buffer::zeros(on, len)?,
            weights,
            dim: architecture.dim_in(),
            dim_embedding,
            batch_size,
            told: Buffer::zeros(on, TOLD)?,
            met: Buffer::zeros(on, MET)?,
            rule: Buffer::zeros(on, RULE)?,
            sums: [sums()?, sums()?, sums()?],
            joined: Buffer::zeros(on, batch_size * dim_embedding)?,
            was_told: [0.0; TOLD],
            places: None,
            recorded: HashMap::new(),
            machine,
        })
    }

    /// Tells the machine what changes from step to step, where it does.
    fn tell(&mut self, settings: &StepSettings<'_>) -> Result<()> {
        let Adam { beta1, beta2, epsilon, .. } = Adam::default();
        let [beta1, beta2, epsilon] = [beta1, beta2, epsilon].map(f64::from);
        let squared = f64::from(u8::from(settings.penalty.form == PenaltyForm::Squared));
        let told = [settings.learning_rate, beta1, beta2, epsilon, settings.penalty.beta, squared];
        if told != self.was_told {
            self.told.all().write(&*self.machine, &told)?;
            self.was_told = told;
        }
        Ok(())
    }

    /// The loss at the embedding; its places are on the machine if it has some.
    fn join<'b>(&mut self, loss: Option<&'b dyn EmbeddingLoss>) -> Result<Joined<'b>> {
        let Some(loss) = loss else { return Ok(Joined::None) };
        let Some(placed) = loss.placed() else { return Ok(Joined::OnHost(loss)) };
        let same = |kept: &Places| kept.places == placed.places && kept.targets == placed.targets;
        if !self.places.as_ref().is_some_and(|kept| kept.checked || same(kept)) {
            // A recorded step has the addresses of the ones before.
            self.recorded.clear();
            let on = &*self.machine;
            self.places = Some(Places {
                places: placed.places.to_vec(),
                targets: placed.targets.to_vec(),
                on_device: (Buffer::of(on, placed.places)?, Buffer::of(on, placed.targets)?),
                checked: false,
            });
        }
        self.places.iter_mut().for_each(|kept| kept.checked = true);
        Ok(Joined::Placed(placed))
    }

    /// Asks for the step that the loaded batch makes.
    fn run(&mut self, settings: &StepSettings<'_>) -> Result<()> {
        let rows = self.rows.batch.len();
        assert!(rows > 0, "no batch is loaded");
        self.tell(settings)?;
        let joined = self.join(settings.embedding)?;
        let kind = Kind {
            rows,
            reconstruction: settings.reconstruction.to_bits(),
            norm: settings.penalty.form == PenaltyForm::Norm && settings.penalty.beta != 0.0,
            placed: match joined {
                Joined::Placed(placed) => Some([placed.factor, placed.share].map(f64::to_bits)),
                Joined::None | Joined::OnHost(_) => None,
            },
        };
        if matches!(joined, Joined::OnHost(_)) {
            return self.ask(settings, joined);
        }
        match self.recorded.get(&kind) {
            // The first of its kind: what it needs is compiled and loaded, which cannot be recorded.
            None => {
                self.recorded.insert(kind, None);
                return self.ask(settings, joined);
            }
            Some(None) => {
                let recorded = self.machine.record(&mut || self.ask(settings, joined));
                self.recorded.insert(kind, Some(recorded));
            }
            Some(Some(_)) => {}
        }
        match self.recorded.get(&kind) {
            Some(Some(Some(recorded))) => recorded.replay(),
            _ => self.ask(settings, joined),
        }
    }

    /// The step, piece by piece.
    fn ask(&self, settings: &StepSettings<'_>, joined: Joined<'_>) -> Result<()> {
        let (on, rows, network) = (&*self.machine, self.rows.batch.len(), &self.network);
        let input = self.rows.values.part(0..rows * self.dim);
        network.forward(on, input)?;
        let mean = 1.0 / (rows * self.dim) as f64;
        let [errors, targets, squares] = self.sums.each_ref().map(Buffer::all);
        let arrays = [input, network.reconstruction(rows), network.at_reconstruction(rows)];
        let weights = self.weights.as_ref().map(Buffer::all);
        let scale = (2.0 * settings.reconstruction * mean) as f32;
        weighted_error(on, arrays, weights, errors, [rows, self.dim], scale)?;
        network.backward_decoder(on, rows)?;
        let (target_parts, target_scale) = self.at_embedding(joined, rows)?;
        network.backward_encoder(on, input)?;
        let mut square_parts = 0;
        if settings.penalty.form == PenaltyForm::Norm && settings.penalty.beta != 0.0 {
            sum_of_squares(on, network.parameters.all(), squares)?;
            square_parts = sums_of(network.parameters.all().len());
        }
        let sums = [(errors, sums_of(rows * self.dim)), (targets, target_parts), (squares, square_parts)];
        begin_step(on, self.step_arrays(), sums, rows, [mean, target_scale])?;
        let moved = [&network.parameters, &network.gradient, &self.first, &self.second];
        adam(on, moved.map(Buffer::all), self.step_arrays())
    }

    /// Adds the gradient of the loss at the embedding to what came back from the decoder. Returns how many sums there are of
    /// it, and by what their sum gives the mean.
    fn at_embedding(&self, joined: Joined<'_>, rows: usize) -> Result<(usize, f64)> {
        let (on, dim) = (&*self.machine, self.dim_embedding);
        let (z, d) = (self.network.embedding(rows), self.network.at_embedding(rows));
        match (joined, &self.places) {
            (Joined::Placed(placed), Some(Places { on_device: (places, targets), .. })) => {
                let share = placed.share / (dim * rows) as f64;
                let scale = (2.0 * placed.factor * share) as f32;
                let numbers = [self.rows.numbers.part(0..rows), places.all()];
                placed_error(on, [z, d, targets.all()], numbers, self.sums[1].all(), dim, scale)?;
                Ok((sums_of(rows * dim), share))
            }
            (Joined::OnHost(loss), _) => {
                let (sum, gradient) = self.on_host(loss, z, rows)?;
                let joined = self.joined.part(0..rows * dim);
                joined.write(on, &gradient)?;
                self.sums[1].all().write(on, &[sum])?;
                self.network.add_at_embedding(on, joined, rows)?;
                Ok((1, 1.0 / rows as f64))
            }
            (Joined::None | Joined::Placed(_), _) => Ok((0, 0.0)),
        }
    }

    /// The sum over the batch of a loss that the host computes, and its gradient.
    fn on_host(&self, loss: &dyn EmbeddingLoss, z: View<'_, f32>, rows: usize) -> Result<(f64, Vec<f32>)> {
        let dim = self.dim_embedding;
        let values = z.read(&*self.machine)?;
        let (mut sum, mut gradient) = (0.0, Vec::with_capacity(values.len()));
        let [mut pass, mut slopes] = [(); 2].map(|()| Matrix::zeros(PASS_ROWS, dim));
        for (values, numbers) in values.chunks(PASS_ROWS * dim).zip(self.rows.batch.chunks(PASS_ROWS)) {
            pass.set_rows(numbers.len());
            slopes.set_rows(numbers.len());
            pass.copy_from(values);
            sum += loss.sum_and_gradient(&pass, numbers, rows, &mut slopes);
            (0..numbers.len()).for_each(|i| gradient.extend_from_slice(slopes.row(i)));
        }
        Ok((sum, gradient))
    }

    fn step_arrays(&self) -> StepArrays<'_> {
        StepArrays { told: self.told.all(), met: self.met.all(), rule: self.rule.all() }
    }

    /// What was met since the last look; forgets it.
    fn look(&mut self) -> Result<Met> {
        let met = self.met.all().read(&*self.machine)?;
        let &[steps, reconstruction, embedding, _, failed, failed_reconstruction, failed_embedding] = &met[..] else {
            return Ok(Met::default());
        };
        self.met.all().write(&*self.machine, &[steps, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])?;
        let loss = StepLoss { reconstruction: failed_reconstruction, embedding: failed_embedding };
        Ok(Met {
            sums: StepLoss { reconstruction, embedding },
            failed: (failed > 0.0).then_some((failed as usize, loss)),
        })
    }

    /// Takes the step, and loads the next batch while the machine is at it.
    fn step_and_take(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<()> {
        assert!(next.len() <= self.batch_size, "{} rows in a batch", next.len());
        self.run(settings)?;
        self.rows.take(&*self.machine, next)
    }
}

impl crate::device::Trainer for Trainer<'_> {
    fn load(&mut self, batch: &[u32]) -> Result<()> {
        self.places.iter_mut().for_each(|kept| kept.checked = false);
        self.rows.take(&*self.machine, batch)
    }

    fn step(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<StepLoss> {
        let rows = self.rows.batch.len() as f64;
        self.step_and_take(next, settings)?;
        Ok(match self.look()? {
            Met { failed: Some((_, loss)), .. } => loss,
            Met { sums: StepLoss { reconstruction, embedding }, .. } => {
                StepLoss { reconstruction: reconstruction / rows, embedding: embedding / rows }
            }
        })
    }

    fn step_ahead(&mut self, next: &[u32], settings: &StepSettings<'_>) -> Result<Option<StepLoss>> {
        self.step_and_take(next, settings).map(|()| None)
    }

    fn met(&mut self) -> Result<Met> {
        self.look()
    }

    fn state(&self) -> Result<TrainerState> {
        let read = |buffer: &Buffer<f32>| buffer.all().read(&*self.machine);
        let met = self.met.all().read(&*self.machine)?;
        Ok(TrainerState {
            steps: met.first().map_or(0, |&steps| steps as u64),
            parameters: read(&self.network.parameters)?,
            first: read(&self.first)?,
            second: read(&self.second)?,
        })
    }

    fn restore(&mut self, state: &TrainerState) -> Result<()> {
        let TrainerState { steps, parameters, first, second } = state;
        for (buffer, values) in [(&self.network.parameters, parameters), (&self.first, first), (&self.second, second)] {
            assert_eq!(values.len(), buffer.all().len(), "values of a state");
            buffer.all().write(&*self.machine, values)?;
        }
        let mut met = [0.0; MET];
        met[0] = *steps as f64;
        self.met.all().write(&*self.machine, &met)
    }
}
