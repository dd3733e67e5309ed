//! The stage that replaces features by their embedding, made by a network of any layers, and rebuilds them from it.

use std::sync::Arc;

use candle_core::{Device, Tensor as Array};
use serde_json::json;

use crate::error::{Error, Result};
use crate::kernel::Pool;
use crate::network::{Arrays, Builder, Coder, CoderSpec};
use crate::seed::Seed;
use crate::stage::{Action, Artifact, Centroids, EMBEDDING, FEATURES, InverseMap, Tensor, Transform, VectorMap};
use crate::train::{failed, flat};

/// Rows that go through the network together.
const BLOCK_ROWS: usize = 256;

/// A trained network as a stage. It works on the thread that calls it.
#[derive(Debug)]
pub struct EmbedNetwork {
    coder: Coder,
    centroids: Option<Centroids>,
}

impl EmbedNetwork {
    /// The name under which it is saved.
    pub const KIND: &'static str = "network";

    /// The network of a plan with these parameters and buffers, and the clusters that it learned with.
    ///
    /// # Errors
    /// Kind `Model` for layers that do not fit, or a parameter that is missing, has another shape or is not finite.
    pub fn new(spec: &CoderSpec, arrays: &Arrays, centroids: Option<Centroids>) -> Result<Self> {
        Ok(Self { coder: coder("", spec, arrays)?, centroids })
    }

    /// The stage that [`save`](Transform::save) saved.
    ///
    /// # Errors
    /// Kind `Model` if a setting or a tensor is missing, or does not fit.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let spec: CoderSpec = setting(artifact, "network")?;
        let centroids = artifact.tensors.get("centroids").map(|Tensor { shape, values }| match shape[..] {
            [k, dim] if dim == spec.dim_embedding() && Some(values.len()) == k.checked_mul(dim) => {
                Ok(Centroids { dim, values: values.clone() })
            }
            _ => Err(Error::model(format!(
                "network: centroids of shape {shape:?}, expected [k, {}]",
                spec.dim_embedding()
            ))),
        });
        Self::new(&spec, &arrays(artifact), centroids.transpose()?)
    }
}

/// A setting of a saved network.
pub(crate) fn setting<T: serde::de::DeserializeOwned>(artifact: &Artifact, name: &str) -> Result<T> {
    let value = artifact.settings.get(name).ok_or_else(|| Error::model(format!("network: no setting {name:?}")))?;
    serde_json::from_value(value.clone())
        .map_err(|e| Error::model(format!("network: setting {name:?} is not what it must be")).with_source(e))
}

/// The tensors of a saved network.
pub(crate) fn arrays(artifact: &Artifact) -> Arrays {
    artifact.tensors.iter().map(|(name, t)| (name.clone(), (t.shape.clone(), t.values.clone()))).collect()
}

/// Parameters and buffers as tensors to save.
pub(crate) fn tensors(arrays: Arrays) -> impl Iterator<Item = (String, Tensor)> {
    arrays.into_iter().map(|(name, (shape, values))| (name, Tensor { shape, values }))
}

/// The network of a plan whose parameters are those of `arrays` that begin with `name`.
pub(crate) fn coder(name: &str, spec: &CoderSpec, arrays: &Arrays) -> Result<Coder> {
    // What is made of the layers is no larger than what was saved, whatever widths a manifest names.
    let there: usize = arrays.values().map(|(_, values)| values.len()).sum();
    let needed = spec.parameter_count();
    if needed > there {
        spec.shapes().map_err(|problem| Error::model(format!("the network does not fit together: {problem}")))?;
        return Err(Error::model(format!("the network needs {needed} parameters, there are {there}")));
    }
    let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(0));
    let coder = Coder::new(name, spec, &builder).map_err(|e| match e.kind() {
        crate::Kind::Config => Error::model(format!("the network does not fit together: {}", e.message())),
        _ => e,
    })?;
    coder.set_arrays(arrays)?;
    Ok(coder)
}

impl Transform for EmbedNetwork {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: EMBEDDING, map: self }
    }

    fn save(&self) -> Artifact {
        let settings = [("network".to_owned(), json!(self.coder.spec()))].into_iter().collect();
        // On the host, where nothing fails.
        Artifact { settings, tensors: tensors(self.coder.arrays().unwrap_or_default()).collect() }
    }

    fn keep(&self) -> Artifact {
        let mut artifact = self.save();
        if let Some(Centroids { dim, values }) = &self.centroids {
            let tensor = Tensor { shape: vec![values.len() / dim, *dim], values: values.clone() };
            artifact.tensors.insert("centroids".into(), tensor);
        }
        artifact
    }

    fn centroids(&self) -> Option<&Centroids> {
        self.centroids.as_ref()
    }
}

impl VectorMap for EmbedNetwork {
    fn dim_in(&self) -> usize {
        self.coder.spec().input.len()
    }

    fn dim_out(&self) -> usize {
        self.coder.encoder().output().len()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        in_blocks(input, self.dim_in(), output, self.dim_out(), |x| self.coder.encode(x, false))
    }

    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        Some(self)
    }
}

/// The decoder's pass.
impl InverseMap for EmbedNetwork {
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()> {
        in_blocks(output, self.dim_out(), input, self.dim_in(), |z| self.coder.decode(z, false))
    }
}

/// Applies `network` to rows, a block of them at a time.
pub(crate) fn in_blocks(
    input: &[f32],
    dim_in: usize,
    output: &mut [f32],
    dim_out: usize,
    network: impl Fn(&Array) -> candle_core::Result<Array>,
) -> Result<()> {
    for (rows, out) in input.chunks(BLOCK_ROWS * dim_in).zip(output.chunks_mut(BLOCK_ROWS * dim_out)) {
        let x = Array::from_slice(rows, (rows.len() / dim_in, dim_in), &Device::Cpu);
        let made = x.and_then(|x| network(&x)).map_err(failed("applying the network"))?;
        out.copy_from_slice(&flat(&made)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::Kind;
    use crate::column::{vector_array, vector_field, vectors};
    use crate::network::{Activation, BatchNormLayer, ConvLayer, LayerSpec, ReshapeLayer, RowShape, mirror};
    use crate::stage::Apply;

    fn spec() -> CoderSpec {
        let encoder = vec![
            LayerSpec::Conv2d(ConvLayer {
                channels: 3,
                kernel: 3,
                stride: 2,
                padding: 1,
                activation: Activation::Relu,
            }),
            LayerSpec::BatchNorm(BatchNormLayer {}),
            LayerSpec::Reshape(ReshapeLayer { shape: vec![12] }),
            LayerSpec::dense(2, Activation::Identity),
        ];
        let input = RowShape::image(1, 4, 4);
        let decoder = mirror(&input, &encoder, Activation::Sigmoid).unwrap();
        CoderSpec { input, encoder, decoder, initialisation: Default::default() }
    }

    fn stage() -> EmbedNetwork {
        let builder = Builder::on_cpu(Arc::new(Pool::new(1)), Seed(3));
        let arrays = Coder::new("", &spec(), &builder).unwrap().arrays().unwrap();
        EmbedNetwork::new(&spec(), &arrays, Some(Centroids { dim: 2, values: vec![0.0, 1.0, 2.0, 3.0] })).unwrap()
    }

    fn batch(rows: usize) -> RecordBatch {
        let values = (0..rows * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let schema = Schema::new(vec![vector_field(FEATURES, 16)]);
        RecordBatch::try_new(Arc::new(schema), vec![vector_array(values, 16).unwrap()]).unwrap()
    }

    #[test]
    fn a_row_s_embedding_does_not_depend_on_its_batch() {
        let (stage, batch) = (stage(), batch(300));
        let out = stage.apply(&batch).unwrap();
        assert_eq!(out.schema(), stage.output_schema(batch.schema_ref()).unwrap());
        let (values, dim) = vectors(&out, EMBEDDING).unwrap();
        assert_eq!(dim, 2);
        for at in [0, 255, 256, 299] {
            let one = stage.apply(&batch.slice(at, 1)).unwrap();
            assert_eq!(vectors(&one, EMBEDDING).unwrap().0, &values[at * 2..][..2]);
        }
        let mut back = vec![0.0; 300 * 16];
        stage.inverse().unwrap().invert(values, &mut back).unwrap();
        assert!(back.iter().all(|x| (0.0..=1.0).contains(x)));
    }

    #[test]
    fn what_is_saved_comes_back_and_centroids_are_kept_for_a_run_alone() {
        let stage = stage();
        let saved = stage.save();
        assert!(saved.tensors.contains_key("encoder.1.running_mean") && !saved.tensors.contains_key("centroids"));
        let back = EmbedNetwork::from_artifact(&saved).unwrap();
        assert_eq!(back.save(), saved);
        assert_eq!(back.apply(&batch(5)).unwrap(), stage.apply(&batch(5)).unwrap());
        let kept = EmbedNetwork::from_artifact(&stage.keep()).unwrap();
        assert_eq!(Transform::centroids(&kept), Transform::centroids(&stage));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |change: &dyn Fn(&mut Artifact), part: &str| {
            let mut artifact = stage().keep();
            change(&mut artifact);
            let e = EmbedNetwork::from_artifact(&artifact).unwrap_err();
            assert!(e.kind() == Kind::Model && e.to_string().contains(part), "{e}");
        };
        refused(&|a| drop(a.settings.remove("network")), "no setting \"network\"");
        refused(&|a| drop(a.settings.insert("network".into(), json!(3))), "is not what it must be");
        refused(&|a| drop(a.tensors.remove("encoder.0.weight")), "no tensor \"encoder.0.weight\"");
        refused(&|a| a.tensors.retain(|name, _| name.starts_with("encoder.0")), "the network needs");
        refused(&|a| drop(a.tensors.remove("encoder.0.bias")), "no tensor \"encoder.0.bias\"");
        refused(&|a| a.tensors.get_mut("encoder.3.bias").unwrap().values[1] = f32::NAN, "holds NaN at position 1");
        refused(&|a| a.tensors.get_mut("encoder.3.bias").unwrap().shape = vec![1, 2], "has shape [1, 2]");
        refused(&|a| a.tensors.get_mut("centroids").unwrap().shape = vec![4], "centroids of shape [4]");
        refused(
            &|a| {
                let mut wide = spec();
                wide.encoder[3] = LayerSpec::dense(1 << 31, Activation::Tanh);
                a.settings.insert("network".into(), json!(wide));
            },
            "network",
        );
        let e = stage().output_schema(&Schema::new(vec![vector_field(FEATURES, 5)])).unwrap_err();
        assert!(e.to_string().contains("made for 16"), "{e}");
    }
}
