//! The courses of a method, one after the other: what a checkpoint says of those that are over.

use std::collections::BTreeMap;

use candle_core::Tensor as Array;
use serde_json::json;

use super::Taken;
use crate::device::StepLoss;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::kernel::Rows;
use crate::loss::{CoordinateLoss, L2Penalty, ReconstructionLoss};
use crate::method::{MethodSpec, PretrainingSpec, TrainingSpec};
use crate::network::{Builder, Coder};
use crate::stage::{Artifact, Coordinates, FitContext, Tensor, Training};
use crate::train::{Course, EmbeddingTerm, Layerwise, Learner, Objective, State, Tape, Terms, failed, groups};

/// What stands before the names of tensors that were made before the course under way.
const MADE: &str = "made.";

/// The courses of a training, of which a checkpoint may have some behind it.
pub(super) struct Courses<'a> {
    pub data: &'a Training<'a>,
    pub cx: &'a FitContext<'a>,
    pub builder: &'a Builder,
    /// What the courses that are over gave.
    pub history: Vec<Taken>,
    /// Tensors that later courses need and a checkpoint keeps: first clusters, networks that have learned.
    made: BTreeMap<String, Tensor>,
    spec: &'a MethodSpec,
    /// The number of the next course.
    next: usize,
    /// What an interrupted run left: the number of its course, and the state in it.
    left: Option<(usize, Artifact)>,
}

impl<'a> Courses<'a> {
    /// The courses of a method; those that an interrupted run has behind it are left out.
    pub fn begin(
        spec: &'a MethodSpec,
        data: &'a Training<'a>,
        cx: &'a FitContext<'a>,
        builder: &'a Builder,
    ) -> Result<Self> {
        let mut courses =
            Self { data, cx, builder, history: Vec::new(), made: BTreeMap::new(), spec, next: 0, left: None };
        let damaged = || Error::model("the checkpoint of the training has no usable course");
        if let Some(saved) = cx.checkpoint.load()? {
            let at = saved.settings.get("course").and_then(|v| v.as_u64()).ok_or_else(damaged)? as usize;
            let bits: Vec<(String, Vec<[u64; 3]>)> = saved
                .settings
                .get("history_bits")
                .and_then(|bits| serde_json::from_value(bits.clone()).ok())
                .ok_or_else(damaged)?;
            courses.history = bits.into_iter().map(|(name, bits)| taken(name, &bits)).collect();
            let made = saved.tensors.iter();
            courses.made =
                made.filter_map(|(name, t)| Some((name.strip_prefix(MADE)?.to_owned(), t.clone()))).collect();
            courses.left = Some((at, saved));
        }
        let total = Some(courses.epochs() as u64);
        cx.control.emit(Event::Started { stage: "deep_clustering".into(), unit: "epochs", total });
        Ok(courses)
    }

    /// The most epochs that there will be.
    fn epochs(&self) -> usize {
        let MethodSpec { pretraining, clustering, k, .. } = self.spec;
        let groups = groups(&self.spec.encoder, self.spec.decoder.as_deref().unwrap_or(&self.spec.encoder));
        let layerwise = pretraining.layerwise_epochs * groups.map_or(0, |groups| groups.len());
        let experts = clustering.expert.as_ref().map_or(0, |expert| expert.epochs * k);
        layerwise + pretraining.training.epochs + experts + clustering.training.epochs
    }

    /// True if an interrupted run has the next course behind it.
    pub fn is_behind(&self) -> bool {
        self.left.as_ref().is_some_and(|(at, _)| self.next < *at)
    }

    /// True if an interrupted run was in a course after the next one, or in that: what leads to it has been made.
    pub fn reached(&self) -> bool {
        self.left.as_ref().is_some_and(|(at, _)| self.next <= *at)
    }

    /// Leaves a course out that is behind the interrupted run.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Keeps a tensor for later courses, and for a run that goes on.
    pub fn keep(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.made.insert(name.into(), tensor);
    }

    /// A tensor that was kept.
    pub fn made(&self, name: &str) -> Result<&Tensor> {
        self.made.get(name).ok_or_else(|| Error::model(format!("the checkpoint of the training has no {name}")))
    }

    /// All tensors that were kept.
    pub fn all_made(&self) -> &BTreeMap<String, Tensor> {
        &self.made
    }

    /// The reconstruction's loss of the pre-training, with the feature weights if a stage before this one learned them.
    pub fn reconstruction(&self, pretraining: &PretrainingSpec) -> Result<ReconstructionLoss> {
        let weights = self.data.feature_weights.map(|weights| Array::new(weights, &self.builder.device));
        let weights = weights.transpose().map_err(failed("placing the feature weights"))?;
        Ok(ReconstructionLoss { measure: pretraining.loss, over_values: pretraining.over_values, weights })
    }

    /// Teaches `coder` to rebuild rows: each layer alone first, if the method does so, and then all of them. Where the rows
    /// have been laid out, the embedding learns the layout as well.
    pub fn pretrain(&mut self, coder: &Coder) -> Result<()> {
        let spec = &self.spec.pretraining;
        let rows: Vec<u32> = (0..self.data.rows.len() as u32).collect();
        if spec.layerwise_epochs > 0 {
            let training = TrainingSpec { epochs: spec.layerwise_epochs, early_stop: None, ..spec.training.clone() };
            for (i, group) in groups(&coder.spec().encoder, &coder.spec().decoder)?.into_iter().enumerate() {
                let objective = Layerwise { coder, group, reconstruction: self.reconstruction(spec)? };
                self.take(&format!("layer {}", i + 1), objective, self.data.rows, &rows, &training)?;
            }
        }
        if spec.training.epochs == 0 {
            return Ok(());
        }
        let coordinates = self.data.coordinates.filter(|_| spec.coordinates > 0.0).map(|laid_out| {
            let Coordinates { dim, rows, values } = laid_out;
            let share = self.data.rows.len() as f64 / rows.len().max(1) as f64;
            CoordinateLoss::new(self.data.rows.len(), rows, values, *dim, spec.coordinates).sharing(share)
        });
        let objective = Terms {
            coder,
            rows: self.data.rows,
            device: self.builder.device.clone(),
            reconstruction: Some((spec.reconstruction, self.reconstruction(spec)?)),
            embedding: match &coordinates {
                None => EmbeddingTerm::None,
                Some(loss) => EmbeddingTerm::Coordinates(spec.coordinates, loss),
            },
        };
        self.take("pretraining", objective, self.data.rows, &rows, &spec.training).map(|_| ())
    }

    /// The next course: trains `objective` on those of `rows`, unless an interrupted run has it behind it. Returns the
    /// objective.
    pub fn take<O: Objective>(
        &mut self,
        name: &str,
        objective: O,
        rows: &dyn Rows,
        chosen: &[u32],
        training: &TrainingSpec,
    ) -> Result<O> {
        if self.is_behind() {
            self.skip();
            return Ok(objective);
        }
        let number = self.next;
        self.next += 1;
        let penalty = L2Penalty { beta: training.l2, form: training.l2_form };
        // No two courses draw the same random numbers.
        let clock = (number as u64) << 40;
        let mut tape = Tape::new(objective, rows, training.optimizer, penalty, self.builder, clock);
        let state = match self.left.take_if(|(at, _)| *at == number) {
            Some((_, saved)) => {
                let state = State::from_artifact(&saved)?;
                tape.restore(&state.learner)?;
                state
            }
            None => State::fresh(tape.state()?),
        };
        let epochs_before = self.history.iter().map(|taken| taken.losses.len() as u64).sum();
        let schedule = training.schedule();
        let shuffle = format!("shuffle {number}");
        let course = Course {
            stage: "deep_clustering",
            shuffle: &shuffle,
            schedule: &schedule,
            rows: chosen,
            epochs_before,
            context: &self.context(number),
        };
        let losses = course.run(&mut tape, state, self.cx).map_err(|e| e.while_doing(name))?.losses;
        let total = losses.iter().map(|loss| tape.total(loss)).collect();
        self.history.push(Taken { name: name.to_owned(), losses, total });
        Ok(tape.objective)
    }

    /// What a checkpoint in course `number` says of what is behind it.
    fn context(&self, number: usize) -> Artifact {
        // As bits: a decimal number might come back as its neighbour.
        let bits = |taken: &Taken| -> Vec<[u64; 3]> {
            let pairs = taken.losses.iter().zip(&taken.total);
            pairs.map(|(l, t)| [l.reconstruction.to_bits(), l.embedding.to_bits(), t.to_bits()]).collect()
        };
        let history: Vec<_> = self.history.iter().map(|taken| (&taken.name, bits(taken))).collect();
        let settings = [("course", json!(number)), ("history_bits", json!(history))];
        Artifact {
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tensors: self.made.iter().map(|(name, t)| (format!("{MADE}{name}"), t.clone())).collect(),
        }
    }
}

fn taken(name: String, bits: &[[u64; 3]]) -> Taken {
    let loss =
        |bits: &[u64; 3]| StepLoss { reconstruction: f64::from_bits(bits[0]), embedding: f64::from_bits(bits[1]) };
    Taken { name, losses: bits.iter().map(loss).collect(), total: bits.iter().map(|b| f64::from_bits(b[2])).collect() }
}
