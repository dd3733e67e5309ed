//! The `autoencoder` stage: its settings, and the two ways to train it, fused or on candle's tape.

mod epochs;
mod experts;
mod follow;
mod fused;
mod layerwise;
mod objective;
mod state;
mod tape;
mod taped;
mod terms;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::device::{StepLoss, Trainer};
use crate::embed::Embed;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::loss::{CoordinateLoss, EmbeddingLoss, L2Penalty, PenaltyForm, WeightedMse};
use crate::network::{Architecture, Builder, Coder, OptimizerSpec, initialise};
use crate::stage::{Artifact, Coordinates, Fit, FitContext, Fitted, Training};
pub use epochs::Schedule;
pub(crate) use epochs::{Course, Learner};
pub(crate) use experts::Experts;
pub use experts::{Competition, RowError};
use follow::HeldOut;
use fused::Fused;
pub(crate) use layerwise::{Layerwise, groups};
pub(crate) use objective::{Objective, failed};
pub(crate) use state::State;
pub(crate) use tape::{Tape, array, flat};
pub(crate) use terms::{Clustering, EmbeddingTerm, Terms, embed};

/// The widest layer that is accepted; wider ones are most likely typing errors.
const WIDEST: usize = 65_536;

/// How the learning rate falls from epoch to epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// It is constant.
    None,
    /// It is multiplied by `rate` after each epoch.
    Exponential {
        /// The factor, above 0 and at most 1.
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        rate: f64,
    },
    /// It follows half a cosine to zero over all epochs.
    #[default]
    Cosine,
    /// It is multiplied by `factor` after every `every` epochs.
    Step {
        /// Epochs between two decays.
        #[schemars(range(min = 1))]
        every: usize,
        /// The factor, above 0 and at most 1.
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        factor: f64,
    },
}

impl Decay {
    /// The factor of the learning rate in epoch `epoch` (from 0 on) of `epochs`.
    ///
    /// ```
    /// use dacpipe::train::Decay;
    /// assert_eq!(Decay::Exponential { rate: 0.5 }.factor(3, 10), 0.125);
    /// assert_eq!(Decay::Step { every: 4, factor: 0.1 }.factor(7, 10), 0.1);
    /// assert!((Decay::Cosine.factor(5, 10) - 0.5).abs() < 1e-12);
    /// ```
    pub fn factor(self, epoch: usize, epochs: usize) -> f64 {
        match self {
            Decay::None => 1.0,
            Decay::Exponential { rate } => rate.powi(epoch as i32),
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * epoch as f64 / epochs.max(1) as f64).cos()),
            Decay::Step { every, factor } => factor.powi((epoch / every.max(1)) as i32),
        }
    }
}

/// When to stop before the last epoch. The parameters of the best epoch are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Epochs in a row without a better training loss.
    #[schemars(range(min = 1))]
    pub patience: usize,
    /// The fraction by which a loss must be lower than the best one to count as better: at least 0 and below 1. Default
    /// 0.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub min_delta: f64,
}

impl EarlyStop {
    /// True if the losses so far ask for a stop.
    fn reached(&self, losses: &[f64]) -> bool {
        let mut best = f64::INFINITY;
        let mut since = 0;
        for &loss in losses {
            if loss < best * (1.0 - self.min_delta) || best == f64::INFINITY {
                (best, since) = (loss, 0);
            } else {
                since += 1;
            }
        }
        since >= self.patience
    }
}

/// Learns a representation of few values that the features can be rebuilt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderSpec {
    /// The widths of the encoder's layers after the input; the last is the width of the representation.
    #[schemars(length(min = 1), inner(range(min = 1, max = 65536)))]
    pub encoder: Vec<usize>,
    /// The widths of the decoder's hidden layers, without its input and its output. Default: the encoder's widths
    /// mirrored, with one more layer next to the representation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 1, max = 65536)))]
    pub decoder: Option<Vec<usize>>,
    /// Passes over the training rows. Default 200.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Rows in a mini-batch. Default 256.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 1048576))]
    pub batch_size: usize,
    /// The step size of Adam in the first epoch, above 0 and at most 1. Default 0.003.
    #[serde(default = "default_learning_rate")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// How the step size falls from epoch to epoch. Default { kind = "cosine" }.
    #[serde(default)]
    pub decay: Decay,
    /// The factor of the L2 penalty on the network's weights. Default 1e-5.
    #[serde(default = "default_l2")]
    #[schemars(range(min = 0))]
    pub l2: f64,
    /// What `l2` multiplies: the "norm" of the weights, or the norm "squared" (weight decay). Default "norm".
    #[serde(default)]
    pub l2_form: PenaltyForm,
    /// When to stop before the last epoch. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Whether the model has the decoder too, which rebuilds rows from their representations: without it there is no
    /// reconstruction and no reconstruction error. Default true.
    #[serde(default = "default_keep_decoder")]
    pub keep_decoder: bool,
    /// The factor of the reconstruction's error in the loss. Default 1.
    #[serde(default = "default_factor")]
    #[schemars(range(min = 0))]
    pub reconstruction: f64,
    /// The factor in the loss of the distance from where the manifold stage laid a row. Default 1, where there is one.
    #[serde(default = "default_factor", skip_serializing_if = "is_default_factor")]
    #[schemars(range(min = 0))]
    pub coordinates: f64,
    /// The part of the rows of a manifold that is not learned from, but used to measure how well new rows follow the
    /// layout; at most 1000 rows. Default 0.05, where there is one.
    #[serde(default = "default_hold_out", skip_serializing_if = "is_default_hold_out")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub hold_out: f64,
}

/// The most rows that are held out.
pub const MOST_HELD_OUT: usize = 1000;

impl Default for AutoencoderSpec {
    fn default() -> Self {
        Self {
            encoder: vec![256, 128, 64, 32, 16, 12, 10],
            decoder: None,
            epochs: default_epochs(),
            batch_size: default_batch_size(),
            learning_rate: default_learning_rate(),
            decay: Decay::default(),
            l2: default_l2(),
            l2_form: PenaltyForm::default(),
            early_stop: None,
            keep_decoder: default_keep_decoder(),
            reconstruction: default_factor(),
            coordinates: default_factor(),
            hold_out: default_hold_out(),
        }
    }
}

fn default_epochs() -> usize {
    200
}

fn default_batch_size() -> usize {
    256
}

fn default_learning_rate() -> f64 {
    0.003
}

fn default_l2() -> f64 {
    1e-5
}

fn default_keep_decoder() -> bool {
    true
}

fn default_factor() -> f64 {
    1.0
}

fn default_hold_out() -> f64 {
    0.05
}

/// Whether a factor goes without saying. It has always been left out then of what tells one pipeline from another.
fn is_default_factor(factor: &f64) -> bool {
    *factor == default_factor()
}

fn is_default_hold_out(part: &f64) -> bool {
    *part == default_hold_out()
}

impl AutoencoderSpec {
    /// Its problems for rows of `dim` values, one message each, naming the setting, its value and what would be
    /// accepted.
    ///
    /// ```
    /// use dacpipe::train::AutoencoderSpec;
    /// assert!(AutoencoderSpec::default().validate(561).is_empty());
    /// let spec = AutoencoderSpec { epochs: 0, ..Default::default() };
    /// assert_eq!(spec.validate(561), ["epochs is 0, must be at least 1"]);
    /// ```
    pub fn validate(&self, dim: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, message: String| {
            if wrong {
                problems.push(message);
            }
        };
        refuse(dim == 0, "rows have no values to learn from".to_string());
        refuse(self.encoder.is_empty(), "encoder is empty, needs at least the embedding's width".to_string());
        for (name, widths) in [("encoder", &self.encoder[..]), ("decoder", self.decoder.as_deref().unwrap_or(&[]))] {
            for (i, &width) in widths.iter().enumerate() {
                let wrong = width == 0 || width > WIDEST;
                refuse(wrong, format!("{name}[{i}] is {width}, must be between 1 and {WIDEST}"));
            }
        }
        refuse(self.epochs == 0, "epochs is 0, must be at least 1".to_string());
        refuse(self.batch_size == 0, "batch_size is 0, must be at least 1".to_string());
        let rate = self.learning_rate;
        refuse(!(rate.is_finite() && rate > 0.0), format!("learning_rate is {rate}, must be above 0"));
        refuse(!(self.l2.is_finite() && self.l2 >= 0.0), format!("l2 is {}, must be 0 or more", self.l2));
        for (name, factor) in [("reconstruction", self.reconstruction), ("coordinates", self.coordinates)] {
            refuse(!(factor.is_finite() && factor >= 0.0), format!("{name} is {factor}, must be 0 or more"));
        }
        let nothing = self.reconstruction == 0.0 && self.coordinates == 0.0;
        refuse(nothing, "reconstruction and coordinates are both 0, so there is nothing to learn".to_string());
        let part = (0.0..1.0).contains(&self.hold_out);
        refuse(!part, format!("hold_out is {}, must be at least 0 and below 1", self.hold_out));
        let falls = |factor: f64| factor > 0.0 && factor <= 1.0;
        match self.decay {
            Decay::None | Decay::Cosine => {}
            Decay::Exponential { rate } => {
                refuse(!falls(rate), format!("decay rate is {rate}, must be above 0 and at most 1"));
            }
            Decay::Step { every, factor } => {
                refuse(every == 0, "decay every is 0, must be at least 1".to_string());
                refuse(!falls(factor), format!("decay factor is {factor}, must be above 0 and at most 1"));
            }
        }
        if let Some(EarlyStop { patience, min_delta }) = self.early_stop {
            refuse(patience == 0, "early_stop patience is 0, must be at least 1".to_string());
            let part = (0.0..1.0).contains(&min_delta);
            refuse(!part, format!("early_stop min_delta is {min_delta}, must be at least 0 and below 1"));
        }
        problems
    }

    fn penalty(&self) -> L2Penalty {
        L2Penalty { beta: self.l2, form: self.l2_form }
    }

    /// How long and how fast it learns.
    fn schedule(&self) -> Schedule {
        let &Self { epochs, batch_size, learning_rate, decay, early_stop, .. } = self;
        Schedule { epochs, batch_size, learning_rate, decay, early_stop }
    }

    /// The layers for rows of `dim` values.
    pub fn architecture(&self, dim: usize) -> Architecture {
        Architecture::dac(dim, &self.encoder, self.decoder.as_deref())
    }
}

/// The stage that trains an autoencoder and gives its encoder and, if it is kept, its decoder.
///
/// The loss is [`WeightedMse`] with the feature weights that an earlier stage learned, plus [`L2Penalty`], plus
/// [`CoordinateLoss`] if a manifold stage laid the rows out. Without coordinates, the weights are used unchanged, as in
/// the paper; with coordinates they are divided by their mean, so that the factors of both losses have the same meaning
/// with any weights. Adam updates the parameters after every mini-batch. Costs `6 * parameters` flops per row and
/// epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoencoder {
    /// What is trained, and how.
    pub spec: AutoencoderSpec,
}

impl Fit for Autoencoder {
    fn kind(&self) -> &'static str {
        "autoencoder"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        self.check(data)?;
        let architecture = self.spec.architecture(data.rows.dim());
        let batch = self.spec.batch_size.min(data.rows.len());
        let what = format!("training a network of {} parameters", architecture.parameter_count());
        cx.room(&what, architecture.training_bytes(batch))?;
        let taught = self.taught(data, cx);
        let coder = match cx.device.fused() {
            true => None,
            false => Some(taped::coder(&architecture, cx)?),
        };
        let mut learner: Box<dyn Learner + '_> = match &coder {
            Some((coder, builder)) => Box::new(self.on_tape(data, taught.as_ref(), coder, builder)?),
            None => Box::new(Fused {
                trainer: self.trainer(data, cx, &architecture)?,
                penalty: self.spec.penalty(),
                reconstruction: self.spec.reconstruction,
                factor: self.spec.coordinates,
                embedding: taught.as_ref().map(|taught| &taught.loss as &dyn EmbeddingLoss),
                steps: 0,
            }),
        };
        let state = match cx.checkpoint.load()? {
            Some(saved) => {
                let state = State::from_artifact(&saved)?;
                learner.restore(&state.learner)?;
                state
            }
            None => State::fresh(learner.state()?),
        };
        let stage = || self.kind().to_string();
        cx.control.emit(Event::Started { stage: stage(), unit: "epochs", total: Some(self.spec.epochs as u64) });
        let held_out = |row: u32| taught.as_ref().is_some_and(|taught| taught.held_out.contains(row));
        let rows: Vec<u32> = (0..data.rows.len() as u32).filter(|&row| !held_out(row)).collect();
        let course = Course {
            stage: self.kind(),
            shuffle: "shuffle",
            schedule: &self.spec.schedule(),
            rows: &rows,
            epochs_before: 0,
            context: &Artifact::default(),
        };
        let State { losses, learner: learned, .. } = course.run(&mut *learner, state, cx)?;
        let parameters = &taped::parameters(&learned, &architecture);
        let mut kept = architecture.clone();
        if !self.spec.keep_decoder {
            kept.decoder.clear();
        }
        let embed = Embed::new(&kept, parameters, cx.device)?;
        let total: Vec<f64> = losses.iter().map(|loss| learner.total(loss)).collect();
        let loss = total.last().copied().unwrap_or(f64::NAN);
        let mut summary = format!("loss {loss:.6} after {} epochs", losses.len());
        let mut figures = vec![
            ("loss", json!(total)),
            ("penalty", json!(self.spec.penalty().value(parameters))),
            ("epochs", json!(losses.len())),
            ("parameters", json!(architecture.parameter_count())),
        ];
        if let Some(Taught { held_out, loss, .. }) = &taught {
            let part = |part: fn(&StepLoss) -> f64| json!(losses.iter().map(part).collect::<Vec<f64>>());
            figures.push(("reconstruction", part(|loss| loss.reconstruction)));
            figures.push(("coordinates", part(|loss| loss.embedding)));
            if let Some(measured) = held_out.measure(data.rows, &embed, loss, cx.device)? {
                summary += &format!(
                    "; {} rows held out: error of coordinates {:.4}, trustworthiness {:.4}",
                    measured.rows, measured.error, measured.trustworthiness
                );
                figures.push(("held_out", json!(measured)));
            }
        }
        Ok(Fitted {
            transform: Arc::new(embed),
            summary,
            figures: figures.into_iter().map(|(name, value): (_, Value)| (name.to_string(), value)).collect(),
        })
    }
}

/// The layout that an embedding is taught.
struct Taught<'a> {
    loss: CoordinateLoss<'a>,
    /// The laid out rows that are held out.
    held_out: HeldOut,
}

impl Autoencoder {
    fn check(&self, data: &Training<'_>) -> Result<()> {
        let dim = data.rows.dim();
        if let Some(problem) = self.spec.validate(dim).first() {
            return Err(Error::config(format!("autoencoder: {problem}")));
        }
        if data.rows.is_empty() {
            return Err(Error::input("no rows to train the autoencoder on, at least one is needed"));
        }
        if u32::try_from(data.rows.len()).is_err() {
            return Err(Error::input(format!("{} training rows, at most {} are possible", data.rows.len(), u32::MAX)));
        }
        if let (Some(coordinates), Some(&width)) = (data.coordinates, self.spec.encoder.last())
            && coordinates.dim != width
        {
            let dim = coordinates.dim;
            return Err(Error::config(format!(
                "the manifold has {dim} dimensions, the embedding {width}: make the encoder end in {dim}"
            )));
        }
        let Some(weights) = data.feature_weights else { return Ok(()) };
        if weights.len() != dim {
            return Err(Error::input(format!("{} feature weights for {dim} features", weights.len())));
        }
        if let Some(i) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(Error::input(format!("the weight of feature {i} is {}, must be 0 or more", weights[i])));
        }
        match weights.iter().all(|&w| w == 0.0) {
            true => Err(Error::input("all feature weights are 0, so no reconstruction is better than another")),
            false => Ok(()),
        }
    }

    /// The same on candle's tape: for devices without a fused trainer, and to compare both.
    fn on_tape<'a>(
        &self,
        data: &Training<'a>,
        taught: Option<&'a Taught<'a>>,
        coder: &'a Coder,
        builder: &Builder,
    ) -> Result<Tape<'a, Terms<'a>>> {
        let objective = Terms {
            coder,
            rows: data.rows,
            device: builder.device.clone(),
            reconstruction: Some((self.spec.reconstruction, taped::reconstruction(&self.weights(data), builder)?)),
            embedding: match taught {
                None => EmbeddingTerm::None,
                Some(taught) => EmbeddingTerm::Coordinates(self.spec.coordinates, &taught.loss),
            },
        };
        Ok(Tape::new(objective, data.rows, OptimizerSpec::default(), self.spec.penalty(), builder, 0))
    }

    /// The feature weights in the loss: with coordinates, divided by their mean.
    fn weights(&self, data: &Training<'_>) -> Vec<f32> {
        let mut weights = data.feature_weights.unwrap_or(&[]).to_vec();
        if data.coordinates.is_some() {
            let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / weights.len().max(1) as f64;
            weights.iter_mut().for_each(|w| *w = (f64::from(*w) / mean) as f32);
        }
        weights
    }

    fn trainer<'a>(
        &self,
        data: &Training<'a>,
        cx: &FitContext<'a>,
        architecture: &Architecture,
    ) -> Result<Box<dyn Trainer + 'a>> {
        let parameters = initialise(architecture, cx.seed);
        let loss = WeightedMse { weights: self.weights(data) };
        let batch = self.spec.batch_size.min(data.rows.len());
        cx.device.trainer(data.rows, architecture, &parameters, loss, batch)
    }

    /// The layout that the embedding is taught, if there is one.
    fn taught<'a>(&self, data: &Training<'a>, cx: &FitContext<'_>) -> Option<Taught<'a>> {
        let coordinates = data.coordinates?;
        let Coordinates { dim, rows, values } = coordinates;
        let loss = CoordinateLoss::new(data.rows.len(), rows, values, *dim, self.spec.coordinates);
        let held_out = HeldOut::drawn(rows, self.spec.hold_out, &mut cx.seed.stream("held_out", 0));
        let learned = |rows: usize| rows.saturating_sub(held_out.len()).max(1) as f64;
        let loss = loss.sharing(learned(data.rows.len()) / learned(rows.len()));
        Some(Taught { loss, held_out })
    }
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
