//! The model that labels a stream.

use std::sync::Arc;

use super::super::clock::Clock;
use super::super::drift::reference_of;
use super::super::execution::{Execution, NewModel};
use super::super::output::with_quarantine;
use super::super::{Pipeline, RunOptions};
use crate::device::Device;
use crate::drift::Reference;
use crate::error::{Error, Result};
use crate::event::{Control, Event};
use crate::model::{Model, ModelInput};
use crate::source::follow::is_read_once;
use crate::source::{BadRows, SourceSpec};
use crate::store::Location;
use crate::table::{Lineage, Snapshot};

/// A model.
pub(super) struct Chosen {
    pub model: Model,
    /// If it was learned just now, what became of the table's clusters.
    pub learned: Option<Lineage>,
    /// The rows that it learned from, if drift is measured.
    pub reference: Option<Reference>,
}

impl Chosen {
    /// Saves it below `sink`.
    async fn save(&self, sink: &Location) -> Result<()> {
        let models = sink.join("models")?;
        self.model.save(&models).await?;
        match &self.reference {
            Some(reference) => self.model.keep_reference(&models, reference).await,
            None => Ok(()),
        }
    }
}

impl Pipeline {
    /// The model that was learned `anew` by the stream, or the one that its section names, or the one that labelled the rows
    /// of `table`, or one that is learned now and saved below `sink`.
    pub(super) async fn stream_model(
        &self,
        sink: &Location,
        table: Option<&Snapshot>,
        anew: Option<&str>,
        device: &Arc<dyn Device>,
        control: &Control,
    ) -> Result<Chosen> {
        let registry = self.registry.clone().on(Arc::clone(device));
        let labelled_by = table.and_then(|table| table.note.as_ref()).map(|note| note.model.clone());
        let below = |hash: &str| sink.join(&format!("models/{}", hash.get(..16).unwrap_or(hash)));
        let place = match (anew, &self.plan.stream.model, labelled_by.filter(|hash| !hash.is_empty())) {
            (Some(hash), _, _) => Some(below(hash)?),
            (None, Some(named), _) => Some(Location::parse(named)?),
            (None, None, Some(hash)) => Some(below(&hash)?),
            (None, None, None) => None,
        };
        let Some(place) = place else {
            if is_read_once(&self.plan.source) {
                return Err(Error::config(
                    "standard input and messages are read once, so no model can be learned from them; expected a model: \
                     [stream] model",
                ));
            }
            return self.learn_for_stream(sink, control).await;
        };
        let model = Model::load_with(&place, &registry).await?;
        self.check_model(&model.manifest().input).map_err(|e| e.while_doing(format!("the model at {place}")))?;
        let reference = match &self.plan.drift {
            Some(_) => Some(reference_of(&model, &place).await?),
            None => None,
        };
        let chosen = Chosen { model, learned: None, reference };
        if anew.is_none() && self.plan.stream.model.is_some() {
            chosen.save(sink).await?;
        }
        Ok(chosen)
    }

    /// Learns from the rows that are there, as a run does, and writes nothing but the model, below `sink`.
    pub(super) async fn learn_for_stream(&self, sink: &Location, control: &Control) -> Result<Chosen> {
        let clock = Clock::start()?;
        let options = RunOptions { resume: false, control: control.clone() };
        let bad = Arc::new(BadRows::new());
        let learned = async {
            let run = Execution::open(self, &options, &clock, Arc::clone(&bad)).await?;
            let NewModel { model, lineage, reference, .. } = run.learn_model().await?;
            run.end_without_rows().await?;
            let chosen = Chosen { model, learned: Some(lineage), reference };
            chosen.save(sink).await?;
            Ok(chosen)
        };
        match learned.await {
            Ok(learned) => Ok(learned),
            Err(e) => Err(with_quarantine(e, &self.plan.sink.path, &clock.run_id(&self.plan.fingerprint), &bad).await),
        }
    }

    /// Checks that a model was learned on rows like those of the source.
    pub(in crate::pipeline) fn check_model(&self, input: &ModelInput) -> Result<()> {
        let plan = &self.plan;
        let json = |value: serde_json::Result<serde_json::Value>| {
            value.map_err(|e| Error::internal("cannot write the pipeline as JSON").with_source(e))
        };
        let same = |what: &str, its: &serde_json::Value, ours: serde_json::Value| match *its == ours {
            true => Ok(()),
            false => Err(Error::model(format!(
                "it was learned with other {what} than the pipeline has: {its}, and here {ours}; expected a model of the same"
            ))),
        };
        same("windows", &input.window, json(serde_json::to_value(plan.window))?)?;
        same("features", &input.features, json(serde_json::to_value(&plan.features))?)?;
        let SourceSpec::Csv(spec) = &plan.source else { return Ok(()) };
        if let Some(channels) = input.source.get("channels") {
            same("channels", channels, json(serde_json::to_value(&spec.channels))?)?;
        }
        if let (Some(rate), Some(ours)) = (input.source.get("rate_hz").filter(|rate| !rate.is_null()), spec.rate_hz) {
            same("samples a second", rate, ours.into())?;
        }
        Ok(())
    }

    /// The source as the model read it: with the sampling rate that was found, where the pipeline names none.
    pub(in crate::pipeline) fn stream_source(&self, input: &ModelInput) -> Result<SourceSpec> {
        let mut source = self.plan.source.clone();
        if let SourceSpec::Csv(spec) = &mut source
            && spec.rate_hz.is_none()
            && spec.time.is_some()
            && self.plan.window.is_some()
        {
            spec.rate_hz = input.source.get("rate_hz").and_then(serde_json::Value::as_f64);
            if spec.rate_hz.is_none() {
                return Err(Error::model(
                    "the model does not say at how many samples a second it was learned; rate_hz in [source] says it",
                ));
            }
        }
        if let SourceSpec::Parquet(spec) = &mut source {
            // Vectors of another length are bad rows, however many they are.
            spec.dim = spec.dim.or(match &spec.features {
                crate::source::Features::Column(_) => Some(input.dim),
                crate::source::Features::Columns(_) => None,
            });
        }
        Ok(source)
    }
}

/// The note on what a stream begins with.
pub(super) fn note(chosen: &Chosen, sequence: u64, table: &Location) -> Event {
    let hash = chosen.model.hash().short();
    let message = match (sequence, &chosen.learned) {
        (0, Some(_)) => format!("the stream into {table} begins with model {hash}, learned just now"),
        (0, None) => format!("the stream into {table} begins with model {hash}"),
        (n, _) => format!("the stream into {table} goes on after commit {n}, with model {hash}"),
    };
    Event::Note { message }
}
