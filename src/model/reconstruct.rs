//! Reconstructs rows with the autoencoder of a model, and computes the reconstruction error.

use std::sync::Arc;

use super::Model;
use crate::column::{Values, vectors};
use crate::error::{Error, Result};
use crate::reconstruct::{errors, rebuilt, with_errors};
use crate::stage::{Apply, FEATURES, InverseMap, Transform};

/// Rows reconstructed by an autoencoder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reconstruction {
    /// The reconstructed features, row-major, in the units of the input.
    pub features: Vec<f32>,
    /// The same before scaling back: the output of the decoder.
    pub scaled: Vec<f32>,
    /// The reconstruction error of each row, as [`reconstruct`](crate::reconstruct) defines it.
    pub error: Vec<f32>,
}

impl Model {
    /// The reconstruction of `rows` (row-major, [`dim_in`](Self::dim_in) values each): they are scaled, embedded,
    /// decoded, and scaled back. The same row gives the same bits in any batch.
    ///
    /// ```
    /// use dacpipe::model::{Manifest, Model, ModelInput};
    /// use dacpipe::device::{Cpu, Device};
    /// use dacpipe::embed::Embed;
    /// use dacpipe::kernel::Dense;
    /// use dacpipe::network::{Activation, Architecture, DenseSpec};
    /// use dacpipe::scale::{Scale, ScaleMethod};
    /// use std::sync::Arc;
    ///
    /// // Keeps the first of two features and replaces the second by a half.
    /// let layer = |inputs, outputs| DenseSpec { inputs, outputs, activation: Activation::Identity };
    /// let layers = Architecture { encoder: vec![layer(2, 1)], decoder: vec![layer(1, 2)] };
    /// let mut parameters = vec![0.0; layers.flat_len()];
    /// for (tensor, values) in layers.tensors().into_iter().zip([&[1.0, 0.0][..], &[0.0], &[1.0, 0.0], &[0.0, 0.5]]) {
    ///     parameters[tensor.range].copy_from_slice(values);
    /// }
    /// let device = Cpu::default();
    /// let scale = Scale::learn(&Dense::new(&[10.0, 0.0, 20.0, 8.0], 2), ScaleMethod::MinMax, device.pool())?;
    /// let embed = Embed::new(&layers, &parameters, &device)?;
    /// let manifest = Manifest { input: ModelInput::bare(2), ..Manifest::default() };
    /// let model = Model::new(manifest, vec![Arc::new(scale), Arc::new(embed)])?;
    ///
    /// let rebuilt = model.reconstruct(&[15.0, 4.0, 20.0, 8.0])?;
    /// assert_eq!(rebuilt.features, [15.0, 4.0, 20.0, 4.0]);
    /// assert_eq!(rebuilt.scaled, [0.5, 0.5, 1.0, 0.5]);
    /// assert_eq!(rebuilt.error, [0.0, 0.125]);
    /// # Ok::<(), dacpipe::Error>(())
    /// ```
    ///
    /// # Errors
    /// Kind `Model` if there is no autoencoder, its decoder was not kept, a stage before it has no inverse, or `rows`
    /// is not a whole number of rows; otherwise as [`apply`](Self::apply).
    pub fn reconstruct<'a>(&self, rows: impl Into<Values<'a>>) -> Result<Reconstruction> {
        let at = self.decodes()?;
        let inverses = self.way_back(at)?;
        let (scaled, error) = self.rebuild(rows.into(), at)?;
        let mut features = scaled.clone();
        for inverse in inverses {
            let mut before = vec![0.0; features.len() / inverse.dim_out() * inverse.dim_in()];
            inverse.invert(&features, &mut before)?;
            features = before;
        }
        Ok(Reconstruction { features, scaled, error })
    }

    /// `rows` (row-major, [`dim_in`](Self::dim_in) values each) as input of the autoencoder.
    ///
    /// # Errors
    /// Kind `Model` if there is no autoencoder, its decoder was not kept, or `rows` is not a whole number of rows;
    /// otherwise as [`apply`](Self::apply).
    pub fn scaled<'a>(&self, rows: impl Into<Values<'a>>) -> Result<Vec<f32>> {
        let given = self.apply_stages(self.batch(rows)?, &self.stages[..self.decodes()?])?;
        Ok(vectors(&given, FEATURES)?.0.to_vec())
    }

    /// The reconstruction error of each of `rows` (row-major, [`dim_in`](Self::dim_in) values each), as
    /// [`reconstruct`](crate::reconstruct) defines it.
    ///
    /// # Errors
    /// Kind `Model` if there is no autoencoder, its decoder was not kept, or `rows` is not a whole number of rows;
    /// otherwise as [`apply`](Self::apply).
    pub fn reconstruction_error<'a>(&self, rows: impl Into<Values<'a>>) -> Result<Vec<f32>> {
        Ok(self.rebuild(rows.into(), self.decodes()?)?.1)
    }

    /// The stages, with those around the one that embeds that append the reconstruction error.
    ///
    /// # Errors
    /// Kind `Model` if there is no autoencoder or its decoder was not kept.
    pub fn stages_with_error(&self) -> Result<Vec<Arc<dyn Transform>>> {
        let at = self.decodes()?;
        let mut stages = self.stages().to_vec();
        let embeds = Arc::clone(&stages[at]);
        stages.splice(at..=at, with_errors(embeds)?);
        Ok(stages)
    }

    /// The number of the stage that embeds and can reconstruct.
    pub(crate) fn decodes(&self) -> Result<usize> {
        let at = self.embeds.ok_or_else(|| self.lacks("autoencoder"))?;
        match self.stages[at].inverse() {
            Some(_) => Ok(at),
            None => Err(Error::model(format!(
                "model {} ({}) has no decoder: it was trained with keep_decoder = false, or by a dacpipe that kept none; \
                 train it again",
                self.name(),
                self.hash.short()
            ))),
        }
    }

    /// The inverses of the stages before number `at`, the last first.
    fn way_back(&self, at: usize) -> Result<Vec<&dyn InverseMap>> {
        let mut inverses = Vec::new();
        for stage in self.stages[..at].iter().rev().filter(|stage| stage.vector_map().is_some()) {
            inverses.push(stage.inverse().ok_or_else(|| {
                let (name, hash, kind) = (self.name(), self.hash.short(), stage.kind());
                Error::model(format!(
                    "stage {kind} of model {name} ({hash}) has no inverse, so rows cannot be rebuilt in their own units"
                ))
            })?);
        }
        Ok(inverses)
    }

    /// The reconstructed rows from the decoder of stage number `at`, and their errors.
    fn rebuild(&self, rows: Values<'_>, at: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let given = self.apply_stages(self.batch(rows)?, &self.stages[..at])?;
        let stage = &self.stages[at];
        let (scaled, dim) = vectors(&given, FEATURES)?;
        let rebuilt = rebuilt(&**stage, scaled).map_err(|e| e.while_doing(format_args!("stage {}", stage.kind())))?;
        let error = errors(scaled, &rebuilt, dim);
        Ok((rebuilt, error))
    }
}
