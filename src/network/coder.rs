//! An encoder and a decoder of any layers: what every deep clustering method learns.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{ModuleT, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, DenseSpec};
use super::layer::Builder;
use super::parameter::{Buffer, Parameter};
use super::sequence::{Initialisation, Sequence};
use super::shape::RowShape;
use super::spec::{LayerSpec, shapes};
use crate::error::Error;

/// The plan of an encoder and its decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoderSpec {
    /// The shape of a row.
    pub input: RowShape,
    /// From a row to its embedding.
    pub encoder: Vec<LayerSpec>,
    /// From the embedding back to the row.
    pub decoder: Vec<LayerSpec>,
    /// What weights start from.
    #[serde(default)]
    pub initialisation: Initialisation,
}

impl CoderSpec {
    /// The shapes of the rows between the encoder's layers and between the decoder's, the first of each what goes in.
    ///
    /// # Errors
    /// The first layer that does not fit, with shapes.
    pub fn shapes(&self) -> std::result::Result<(Vec<RowShape>, Vec<RowShape>), String> {
        let of = |part: &str, input: &RowShape, layers: &[LayerSpec]| {
            shapes(input, layers).map_err(|(i, problem)| format!("layer {i} of the {part}: {problem}"))
        };
        if self.encoder.is_empty() || self.decoder.is_empty() {
            return Err("encoder and decoder need at least one layer each".to_owned());
        }
        let encoder = of("encoder", &self.input, &self.encoder)?;
        let code = RowShape::flat(encoder[self.encoder.len()].len());
        // A decoder of an image's channels takes the code as it is shaped, any other as values in a row.
        let shaped = encoder[self.encoder.len()].clone();
        let decoder = match of("decoder", &shaped, &self.decoder) {
            Ok(decoder) => decoder,
            Err(_) => of("decoder", &code, &self.decoder)?,
        };
        let back = &decoder[self.decoder.len()];
        match back.len() == self.input.len() {
            true => Ok((encoder, decoder)),
            false => Err(format!("the decoder gives rows of shape {back}, the encoder takes {}", self.input)),
        }
    }

    /// Values in an embedding; 0 for layers that do not fit.
    pub fn dim_embedding(&self) -> usize {
        shapes(&self.input, &self.encoder).map_or(0, |shapes| shapes[self.encoder.len()].len())
    }

    /// Weights, biases and other values that it learns.
    pub fn parameter_count(&self) -> usize {
        let Ok((encoder, decoder)) = self.shapes() else { return 0 };
        let of = |layers: &[LayerSpec], shapes: &[RowShape]| {
            layers.iter().zip(shapes).fold(0_usize, |sum, (l, s)| sum.saturating_add(l.parameter_count(s)))
        };
        of(&self.encoder, &encoder).saturating_add(of(&self.decoder, &decoder))
    }

    /// Bytes that training it in mini-batches of `batch` rows needs at most: parameters, their gradients, moments and the
    /// copies of checkpoints and the model, and what the layers give and take back.
    pub fn training_bytes(&self, batch: usize) -> u128 {
        const COPIES: u128 = 10;
        let Ok((encoder, decoder)) = self.shapes() else { return 0 };
        let widths: u128 = encoder.iter().chain(&decoder).map(|shape| shape.len() as u128).sum();
        self.parameter_count() as u128 * 4 * COPIES + 24 * batch as u128 * widths
    }

    /// The plan of dense layers.
    pub fn of_dense(architecture: &Architecture) -> Self {
        let of = |layers: &[DenseSpec]| layers.iter().map(|l| LayerSpec::dense(l.outputs, l.activation)).collect();
        Self {
            input: RowShape::flat(architecture.dim_in()),
            encoder: of(&architecture.encoder),
            decoder: of(&architecture.decoder),
            initialisation: Initialisation::Glorot,
        }
    }
}

/// An encoder and a decoder on a device.
#[derive(Debug)]
pub struct Coder {
    spec: CoderSpec,
    encoder: Sequence,
    decoder: Sequence,
}

/// Arrays by name with their shapes: parameters and buffers of a network.
pub type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl Coder {
    /// The network of a plan, with fresh weights. `name` stands before the names of its parameters, such as `"expert.3."`.
    ///
    /// # Errors
    /// Kind `Config` for layers that do not fit; `Compute` where the device has no room.
    pub fn new(name: &str, spec: &CoderSpec, builder: &Builder) -> crate::Result<Self> {
        let (encoder, decoder) = spec.shapes().map_err(Error::config)?;
        let part = |part: &str, input: &RowShape, layers: &[LayerSpec]| {
            Sequence::new(&format!("{name}{part}"), input.clone(), layers, spec.initialisation, builder)
        };
        Ok(Self {
            encoder: part("encoder", &encoder[0], &spec.encoder)?,
            decoder: part("decoder", &decoder[0], &spec.decoder)?,
            spec: spec.clone(),
        })
    }

    /// Its plan.
    pub fn spec(&self) -> &CoderSpec {
        &self.spec
    }

    /// Its encoder.
    pub fn encoder(&self) -> &Sequence {
        &self.encoder
    }

    /// Its decoder.
    pub fn decoder(&self) -> &Sequence {
        &self.decoder
    }

    /// The embeddings of rows, `rows x dim`.
    ///
    /// # Errors
    /// Candle's.
    pub fn encode(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.encoder.forward_t(x, train)
    }

    /// Rows as they are rebuilt from their embeddings.
    ///
    /// # Errors
    /// Candle's.
    pub fn decode(&self, z: &Tensor, train: bool) -> Result<Tensor> {
        self.decoder.forward_t(z, train)
    }

    /// Its parameters with their names, the encoder's first.
    pub fn parameters(&self) -> Vec<(String, Arc<Parameter>)> {
        self.encoder.parameters().into_iter().chain(self.decoder.parameters()).collect()
    }

    /// Its buffers with their names, the encoder's first.
    pub fn buffers(&self) -> Vec<(String, Arc<Buffer>)> {
        self.encoder.buffers().into_iter().chain(self.decoder.buffers()).collect()
    }

    /// A copy of parameters and buffers.
    ///
    /// # Errors
    /// Kind `Compute` where the device fails.
    pub fn arrays(&self) -> crate::Result<Arrays> {
        let values = |tensor: &Tensor| -> Result<(Vec<usize>, Vec<f32>)> {
            Ok((tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?))
        };
        let parameters = self.parameters().into_iter().map(|(name, p)| (name, values(p.value())));
        let buffers = self.buffers().into_iter().map(|(name, b)| (name, values(&b.get())));
        let all = parameters.chain(buffers).map(|(name, found)| Ok((name, found?)));
        let all: Result<Arrays> = all.collect();
        all.map_err(|e| Error::compute("reading the network's parameters").with_source(e))
    }

    /// Replaces parameters and buffers by those of the same names, which may be among others.
    ///
    /// # Errors
    /// Kind `Model` if one is missing, has another shape or is not finite.
    pub fn set_arrays(&self, arrays: &Arrays) -> crate::Result<()> {
        let find = |name: &str, like: &Tensor| -> crate::Result<Tensor> {
            let (shape, values) =
                arrays.get(name).ok_or_else(|| Error::model(format!("the network has no tensor {name:?}")))?;
            if shape != like.dims() || values.len() != like.elem_count() {
                let expected = like.dims();
                return Err(Error::model(format!(
                    "tensor {name:?} has shape {shape:?}, the network needs {expected:?}"
                )));
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let value = values[i];
                return Err(Error::model(format!("{name} holds {value} at position {i}, expected a number")));
            }
            Tensor::from_slice(values, shape.as_slice(), like.device())
                .map_err(|e| Error::compute("placing the network's parameters").with_source(e))
        };
        for (name, parameter) in self.parameters() {
            let value = find(&name, parameter.value())?;
            parameter.set(&value).map_err(|e| Error::compute(format!("placing {name}")).with_source(e))?;
        }
        for (name, buffer) in self.buffers() {
            buffer.set(find(&name, &buffer.get())?);
        }
        Ok(())
    }
}
