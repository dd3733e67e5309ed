//! The stage that replaces features by their embedding, and rebuilds them from it where the decoder was kept.

use std::sync::Arc;

use serde_json::json;

use crate::device::{Decode, Device, Encode};
use crate::error::{Error, Result};
use crate::network::{Architecture, DenseSpec};
use crate::stage::{Action, Artifact, EMBEDDING, FEATURES, InverseMap, Tensor, Transform, VectorMap};

/// A trained autoencoder as a stage: its encoder, and its decoder unless that was left out.
#[derive(Debug, Clone)]
pub struct Embed {
    /// The layers; those of the decoder may be missing.
    architecture: Architecture,
    parameters: Vec<f32>,
    /// The same on its device.
    encoder: Arc<dyn Encode>,
    decoder: Option<Arc<dyn Decode>>,
}

impl Embed {
    /// The name under which it is saved.
    pub const KIND: &'static str = "embed";

    /// The autoencoder of `architecture`, whose decoder may be without layers, with the parameters given in the layout of
    /// [`Architecture::tensors`], to embed and to rebuild on `device`. Parameters beyond those are left out: the encoder's
    /// come first.
    ///
    /// # Errors
    /// Kind `Model` if the encoder has no layer, if layers do not fit, if parameters are missing, or if one is not finite;
    /// `Compute` where the device has no room.
    pub fn new(architecture: &Architecture, parameters: &[f32], device: &dyn Device) -> Result<Self> {
        check_layers(architecture)?;
        let parameters = parameters.get(..architecture.flat_len()).ok_or_else(|| {
            Error::model(format!(
                "the autoencoder needs {} parameters, there are {}",
                architecture.flat_len(),
                parameters.len()
            ))
        })?;
        for tensor in architecture.tensors() {
            if let Some(i) = parameters[tensor.range.clone()].iter().position(|v| !v.is_finite()) {
                let value = parameters[tensor.range.start + i];
                return Err(Error::model(format!("{} holds {value} at position {i}, expected a number", tensor.name)));
            }
        }
        let encoder = device.encoder(architecture, parameters)?;
        let decoder = match architecture.decoder.is_empty() {
            true => None,
            false => Some(device.decoder(architecture, parameters)?),
        };
        Ok(Self { architecture: architecture.clone(), parameters: parameters.to_vec(), encoder, decoder })
    }

    /// The stage that [`save`](Transform::save) saved, to embed on `device`. Without the setting `decoder` (the decoder was
    /// left out, or a release saved it that kept none) there is no way back.
    ///
    /// # Errors
    /// Kind `Model` if a setting or a tensor is missing, has another shape than the layers say, or is not finite;
    /// `Compute` where the device has no room.
    pub fn from_artifact(artifact: &Artifact, device: &dyn Device) -> Result<Self> {
        let layers = |name: &str| -> Result<Option<Vec<DenseSpec>>> {
            let Some(layers) = artifact.settings.get(name) else { return Ok(None) };
            serde_json::from_value(layers.clone())
                .map(Some)
                .map_err(|e| Error::model(format!("embed: setting {name:?} is not a list of layers")).with_source(e))
        };
        let encoder = layers("encoder")?.ok_or_else(|| Error::model("embed: no setting \"encoder\""))?;
        let architecture = Architecture { encoder, decoder: layers("decoder")?.unwrap_or_default() };
        check_layers(&architecture).map_err(|e| e.while_doing("embed"))?;
        check_tensors(&architecture, artifact)?;
        let mut parameters = vec![0.0; architecture.flat_len()];
        for place in architecture.tensors() {
            let name = &place.name;
            let tensor =
                artifact.tensors.get(name).ok_or_else(|| Error::model(format!("embed: no tensor {name:?}")))?;
            parameters[place.range].copy_from_slice(&tensor.values);
        }
        Self::new(&architecture, &parameters, device)
    }
}

/// That the saved tensors are those of the layers: so that what is made of the layers is no larger than what was saved.
fn check_tensors(architecture: &Architecture, artifact: &Artifact) -> Result<()> {
    for (name, expected) in architecture.shapes() {
        let tensor = artifact.tensors.get(&name).ok_or_else(|| Error::model(format!("embed: no tensor {name:?}")))?;
        let Tensor { shape, values } = tensor;
        let count = expected.iter().try_fold(1_usize, |count, width| count.checked_mul(*width));
        if *shape != expected || Some(values.len()) != count {
            return Err(Error::model(format!(
                "embed: tensor {name:?} has shape {shape:?} and {} values, expected {expected:?}",
                values.len()
            )));
        }
    }
    Ok(())
}

/// That there is an encoder, and that layers fit, those of a decoder from the embedding to rows as they come in.
fn check_layers(architecture: &Architecture) -> Result<()> {
    if architecture.encoder.is_empty() {
        return Err(Error::model("the encoder has no layers"));
    }
    if let Some(problem) = architecture.chain_problems().first() {
        return Err(Error::model(format!("the autoencoder does not fit together: {problem}")));
    }
    match architecture.decoder.last() {
        Some(last) if last.outputs != architecture.dim_in() => Err(Error::model(format!(
            "the autoencoder takes rows of {} values, its decoder gives rows of {}",
            architecture.dim_in(),
            last.outputs
        ))),
        _ => Ok(()),
    }
}

impl Transform for Embed {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: EMBEDDING, map: self }
    }

    fn save(&self) -> Artifact {
        let tensor = |range: std::ops::Range<usize>, shape| Tensor { shape, values: self.parameters[range].to_vec() };
        let Architecture { encoder, decoder } = &self.architecture;
        let decoder = self.decoder.is_some().then(|| ("decoder".to_string(), json!(decoder)));
        Artifact {
            settings: [("encoder".to_string(), json!(encoder))].into_iter().chain(decoder).collect(),
            tensors: self.architecture.tensors().into_iter().map(|t| (t.name, tensor(t.range, t.shape))).collect(),
        }
    }
}

impl VectorMap for Embed {
    fn dim_in(&self) -> usize {
        self.architecture.dim_in()
    }

    fn dim_out(&self) -> usize {
        self.architecture.dim_embedding()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.encoder.encode(input, output)
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        self.decoder.is_some().then_some(self as &dyn InverseMap)
    }
}

/// The decoder's pass.
impl InverseMap for Embed {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        match &self.decoder {
            Some(decoder) => decoder.decode(output, input),
            None => Err(Error::model("the autoencoder was saved without its decoder")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::{vector_array, vector_field, vectors};
    use crate::device::Cpu;
    use crate::error::Kind;
    use crate::network::{Activation, initialise};
    use crate::seed::Seed;
    use crate::stage::Apply;
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;

    fn embed() -> Embed {
        let architecture = Architecture::dac(6, &[5, 3], None);
        Embed::new(&architecture, &initialise(&architecture, Seed(5)), &Cpu::default()).expect("layers fit")
    }

    fn batch(rows: usize, dim: usize) -> RecordBatch {
        let values = (0..rows * dim).map(|i| (i as f32).sin()).collect();
        let schema = Schema::new(vec![Field::new("id", DataType::Int32, false), vector_field(FEATURES, dim)]);
        let ids = Arc::new(Int32Array::from_iter_values(0..rows as i32));
        let features = vector_array(values, dim).expect("whole rows");
        RecordBatch::try_new(Arc::new(schema), vec![ids, features]).expect("fits its schema")
    }

    #[test]
    fn features_become_the_embedding_and_the_rest_stays() {
        let (embed, batch) = (embed(), batch(7, 6));
        let out = embed.apply(&batch).expect("embeds");
        assert_eq!(out.schema(), embed.output_schema(&batch.schema()).expect("fits"));
        assert_eq!(out.column(0), batch.column(0));
        let (values, dim) = vectors(&out, EMBEDDING).expect("is there");
        assert_eq!((values.len(), dim), (21, 3));
        let one = embed.apply(&batch.slice(4, 1)).expect("embeds");
        assert_eq!(vectors(&one, EMBEDDING).expect("is there").0, &values[12..15]);
    }

    #[test]
    fn what_is_saved_comes_back_with_the_same_bits() {
        let embed = embed();
        let artifact = embed.save();
        assert_eq!(artifact.tensors["encoder.0.weight"].shape, [5, 6]);
        assert_eq!(artifact.tensors["decoder.0.weight"].shape, [4, 3]);
        let back = Embed::from_artifact(&artifact, &Cpu::default()).expect("complete");
        assert_eq!(back.save(), artifact);
        let batch = batch(9, 6);
        assert_eq!(back.apply(&batch).expect("embeds"), embed.apply(&batch).expect("embeds"));
    }

    #[test]
    fn a_decoder_that_is_there_rebuilds_and_one_that_is_not_changes_no_embedding() {
        let whole = embed();
        let bare = Architecture { decoder: vec![], ..whole.architecture.clone() };
        let bare = Embed::new(&bare, &whole.parameters, &Cpu::default()).expect("the encoder's come first");
        let batch = batch(9, 6);
        assert_eq!(bare.apply(&batch).expect("embeds"), whole.apply(&batch).expect("embeds"));
        let saved = bare.save();
        assert_eq!(saved.settings.keys().collect::<Vec<_>>(), ["encoder"]);
        assert!(saved.tensors.keys().all(|name| name.starts_with("encoder.")));
        let back = Embed::from_artifact(&saved, &Cpu::default()).expect("complete");
        assert_eq!(back.save(), saved);
        assert!(back.inverse().is_none() && bare.inverse().is_none());
        let e = bare.invert(&[0.0; 3], &mut [0.0; 6]).expect_err("no decoder");
        assert!(e.to_string().contains("without its decoder"), "{e}");

        let inverse = whole.inverse().expect("has a decoder");
        let code = [0.3, -0.2, 0.9, 0.0, 1.0, -1.0];
        let (mut both, mut one) = (vec![0.0; 12], vec![0.0; 6]);
        inverse.invert(&code, &mut both).expect("rebuilds");
        inverse.invert(&code[3..], &mut one).expect("rebuilds");
        assert_eq!(one, both[6..]);
        assert!(both.iter().all(|x| (0.0..=1.0).contains(x)), "the last layer is a sigmoid");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let message = |change: &dyn Fn(&mut Artifact)| {
            let mut artifact = embed().save();
            change(&mut artifact);
            let e = Embed::from_artifact(&artifact, &Cpu::default()).expect_err("is damaged");
            assert_eq!(e.kind(), Kind::Model);
            e.to_string()
        };
        let weight = "encoder.1.weight";
        assert!(message(&|a| drop(a.settings.remove("encoder"))).contains("no setting \"encoder\""));
        assert!(message(&|a| drop(a.settings.insert("encoder".into(), json!("x")))).contains("not a list of layers"));
        assert!(message(&|a| drop(a.settings.insert("encoder".into(), json!([])))).contains("no layers"));
        assert!(message(&|a| drop(a.tensors.remove(weight))).contains("no tensor \"encoder.1.weight\""));
        assert!(message(&|a| a.tensors.get_mut(weight).expect("there").shape = vec![5, 3]).contains("expected [3, 5]"));
        // Layers of any size that a hostile manifest names are held against what was saved, before anything is made of them.
        for (inputs, outputs) in [(usize::MAX, usize::MAX), (1 << 40, 1 << 40), (6, 1 << 62)] {
            let huge = message(&|a| {
                let layer = DenseSpec { inputs, outputs, activation: Activation::Tanh };
                a.settings.insert("encoder".into(), json!([layer]));
                a.settings.remove("decoder");
            });
            assert!(huge.contains("expected ["), "{huge}");
        }
        let nan = message(&|a| a.tensors.get_mut(weight).expect("there").values[4] = f32::NAN);
        assert!(nan.contains("encoder.1.weight holds NaN at position 4"), "{nan}");
        assert!(
            message(&|a| drop(a.settings.insert("decoder".into(), json!(3)))).contains("\"decoder\" is not a list")
        );
        assert!(message(&|a| drop(a.tensors.remove("decoder.1.bias"))).contains("no tensor \"decoder.1.bias\""));
        let narrow = message(&|a| {
            let mut layers = embed().architecture.decoder;
            layers.truncate(1);
            a.settings.insert("decoder".into(), json!(layers));
        });
        assert!(narrow.contains("rows of 6 values, its decoder gives rows of 4"), "{narrow}");
        let e = embed().apply(&batch(2, 5)).expect_err("other width");
        assert!(e.to_string().contains("made for 6"), "{e}");
        assert!(embed().output_schema(&batch(1, 5).schema()).is_err());
    }
}
