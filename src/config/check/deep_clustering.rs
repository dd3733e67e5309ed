//! Checks of a `deep_clustering` stage: its keys, and whether its layers fit together.

use super::super::file::*;
use super::super::plan;
use super::Check;
use crate::loss::ErrorMeasure;
use crate::method::{ClusteringLossName, MethodSpec};
use crate::network::{Activation, ActivationLayer, ConvTransposeLayer, DenseLayer, LayerSpec};
use crate::scale::{ScaleMethod, ScaleSpec};

/// The width that is assumed where the file does not give the width of a row.
const UNKNOWN_WIDTH: usize = 1024;

impl Check<'_> {
    pub(super) fn deep_clustering(&mut self) {
        let Some(at) = self.position("deep_clustering") else { return };
        let path = |key: &str| format!("stage[{at}].{key}");
        for other in ["autoencoder", "kmeans"] {
            if self.position(other).is_some() {
                let message = format!("deep_clustering stands in place of the {other} stage");
                self.at(&path("kind"), message, &format!("one of both: leave the {other} stage out"));
            }
        }
        let Some(StageTable::DeepClustering(table)) = &self.draft.stages[at].1 else { return };
        let spec = match plan::method(table) {
            Ok(spec) => spec,
            Err(e) => return self.at(&path("method"), e.message().to_owned(), ""),
        };
        self.only_with_its_loss(&spec, table, &path);
        for (part, training) in [("pretraining", &spec.pretraining.training), ("clustering", &spec.clustering.training)]
        {
            for problem in training.optimizer.problems() {
                self.at(&path(&format!("{part}.optimizer")), problem, "");
            }
        }
        let factors = &spec.pretraining;
        if factors.reconstruction == 0.0 && (factors.coordinates == 0.0 || self.position("manifold").is_none()) {
            let help = "a factor above 0, or a manifold stage to learn from";
            self.at(&path("pretraining.reconstruction"), "the loss has no part that is not 0", help);
        }
        if spec.pretraining.training.epochs + spec.pretraining.layerwise_epochs + spec.clustering.training.epochs == 0 {
            self.at(&path("pretraining.epochs"), "no epochs of pretraining or clustering: nothing is learned", "");
        }
        let dim = table.shape.as_ref().map(|shape| shape.iter().product()).or(self.features_known());
        // Where the width of a row is unknown, an assumed one still finds the problems that do not depend on it.
        let some = dim.unwrap_or(UNKNOWN_WIDTH);
        if let Err(e) = spec.coder(some).and_then(|_| spec.expert(some)) {
            let key = ["encoder", "shape", "method"].into_iter().find(|key| self.tree.at(&path(key)).1);
            let message = match dim {
                Some(_) => e.message().to_owned(),
                None => e.message().replace(&format!("rows are [{UNKNOWN_WIDTH}]"), "rows are values in no order"),
            };
            self.at(&path(key.unwrap_or("method")), message, "");
        } else if let (Some(dim), Some(known)) = (dim, self.features_known())
            && dim != known
        {
            self.at(
                &path("shape"),
                format!("a shape of {dim} values, rows have {known}"),
                "as many values as a row has",
            );
        }
        self.cross_entropy(&spec, &path);
    }

    /// Reports keys that belong to another clustering loss.
    fn only_with_its_loss(&mut self, spec: &MethodSpec, table: &DeepClusteringTable, path: &impl Fn(&str) -> String) {
        let Some(clustering) = &table.clustering else { return };
        let experts = spec.clustering.loss == ClusteringLossName::Experts;
        let of_experts = [
            ("competition", clustering.competition.is_some()),
            ("error", clustering.error.is_some()),
            ("expert", clustering.expert.is_some()),
        ];
        let of_centroids = [
            ("factor", clustering.factor.is_some()),
            ("reconstruction", clustering.reconstruction.is_some()),
            ("over_rows", clustering.over_rows.is_some()),
            ("refresh", clustering.refresh.is_some()),
            ("tolerance", clustering.tolerance.is_some()),
        ];
        let (wrong, loss) = if experts { (&of_centroids[..], "experts") } else { (&of_experts[..], "hardening") };
        for (key, given) in wrong {
            if *given {
                let message = format!("`{key}` is given, but the clustering loss is {loss:?}, which has no such key");
                self.at(&path(&format!("clustering.{key}")), message, "leave the key out");
            }
        }
        if experts && spec.clustering.expert.is_none() {
            let help = "[stage.clustering.expert] with the layers of its encoder";
            self.at(&path("clustering.loss"), "\"experts\" needs the autoencoder of a cluster", help);
        }
        if !experts && spec.clustering.factor == 0.0 && spec.clustering.reconstruction == 0.0 {
            self.at(&path("clustering.factor"), "the loss has no part that is not 0", "a factor above 0");
        }
    }

    /// A cross-entropy needs values in [0, 1], both the inputs and the outputs of the decoder.
    fn cross_entropy(&mut self, spec: &MethodSpec, path: &impl Fn(&str) -> String) {
        let expert = spec.clustering.expert.as_ref().filter(|_| spec.clustering.loss == ClusteringLossName::Experts);
        let decoders = [
            (spec.pretraining.loss, spec.decoder.as_ref(), "pretraining.loss"),
            (
                expert.map_or(ErrorMeasure::Mse, |expert| expert.loss),
                expert.and_then(|expert| expert.decoder.as_ref()),
                "clustering.expert.loss",
            ),
        ];
        let mut any = false;
        for (loss, decoder, key) in decoders {
            if loss != ErrorMeasure::Bce {
                continue;
            }
            any = true;
            let last = match decoder.and_then(|layers| layers.last()) {
                None => spec.output,
                Some(
                    LayerSpec::Dense(DenseLayer { activation, .. })
                    | LayerSpec::ConvTranspose2d(ConvTransposeLayer { activation, .. })
                    | LayerSpec::Activation(ActivationLayer { activation }),
                ) => *activation,
                Some(_) => Activation::Identity,
            };
            if last != Activation::Sigmoid {
                let help = "output = \"sigmoid\", or loss = \"mse\"";
                self.at(&path(key), "\"bce\" needs values in [0, 1], and the decoder does not end in a sigmoid", help);
            }
        }
        if !any || !self.kinds_known() {
            return;
        }
        let unit = |table: &ScaleSpec| table.method != ScaleMethod::Standard;
        let scaled = self.draft.stages.iter().any(|(_, stage)| match stage {
            Some(StageTable::Scale(table)) => unit(table),
            _ => false,
        });
        if !scaled {
            let help = "a stage of kind = \"scale\" before it, with method = \"min_max\" or \"global_min_max\"";
            self.at(&path("method"), "the loss \"bce\" needs values in [0, 1]", help);
        }
    }

    /// Reports outputs that a method's network does not have.
    pub(super) fn method_output(&mut self, sink: &SinkTable) {
        let experts = self.draft.stages.iter().any(|(_, stage)| match stage {
            Some(StageTable::DeepClustering(table)) => {
                plan::method(table).is_ok_and(|spec| spec.clustering.loss == ClusteringLossName::Experts)
            }
            _ => false,
        });
        for (key, asked) in [("embedding", sink.embedding), ("reconstruction_error", sink.reconstruction_error)] {
            if asked && experts {
                let message = "an autoencoder for each cluster has no embedding and no reconstruction of its own";
                self.at(&format!("sink.{key}"), message, "leave the key out: distance is the error of the best one");
            }
        }
    }
}
