//! A stage of your own in a pipeline: it clips every feature at three standard deviations, before the `scale` stage.
//!
//!     cargo run --example custom_stage
//!
//! A stage is two types. `Clip` learns, in one pass over any number of rows. `Clipped` is the fitted stage: a pure
//! function, saved with the model under a kind of its own. Code that loads the model says how to restore that kind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dacpipe::config::PipelineFile;
use dacpipe::device::Device;
use dacpipe::model::Model;
use dacpipe::pipeline::{Pipeline, RunOptions};
use dacpipe::registry::Registry;
use dacpipe::stage::{Action, Artifact, FEATURES, Fit, FitContext, Fitted, Tensor, Training, Transform, VectorMap};
use dacpipe::store::Location;
use dacpipe::{Error, Result};

/// Learns the mean and the deviation of each feature.
#[derive(Debug)]
struct Clip;

impl Fit for Clip {
    fn kind(&self) -> &'static str {
        "clip"
    }

    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted> {
        let (len, dim) = (data.rows.len(), data.rows.dim());
        let (mut sum, mut squares) = (vec![0.0f64; dim], vec![0.0f64; dim]);
        let mut row = vec![0.0f32; dim];
        for i in 0..len {
            cx.control.check()?;
            data.rows.read(i..i + 1, &mut row)?;
            for (j, &v) in row.iter().enumerate() {
                sum[j] += f64::from(v);
                squares[j] += f64::from(v) * f64::from(v);
            }
        }
        let n = len as f64;
        let limits: Vec<(f32, f32)> = sum
            .iter()
            .zip(&squares)
            .map(|(s, q)| {
                let (mean, deviation) = (s / n, (q / n - (s / n) * (s / n)).max(0.0).sqrt());
                ((mean - 3.0 * deviation) as f32, (mean + 3.0 * deviation) as f32)
            })
            .collect();
        let summary = format!("{dim} features clipped at three deviations");
        Ok(Fitted { transform: Arc::new(Clipped { limits }), summary, figures: Default::default() })
    }
}

/// Keeps each feature within its limits.
#[derive(Debug)]
struct Clipped {
    limits: Vec<(f32, f32)>,
}

impl Clipped {
    fn from_artifact(artifact: &Artifact, _: &dyn Device) -> Result<Arc<dyn Transform>> {
        let limits = artifact.tensors.get("limits").ok_or_else(|| Error::model("clip: no tensor \"limits\""))?;
        let limits: Vec<(f32, f32)> = limits.values.chunks_exact(2).map(|l| (l[0], l[1])).collect();
        match limits.iter().all(|(low, high)| low <= high) {
            true => Ok(Arc::new(Clipped { limits })),
            false => Err(Error::model("clip: a lower limit is above its upper one")),
        }
    }
}

impl VectorMap for Clipped {
    fn dim_in(&self) -> usize {
        self.limits.len()
    }

    fn dim_out(&self) -> usize {
        self.limits.len()
    }

    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
        let dim = self.limits.len();
        for (row, out) in input.chunks_exact(dim).zip(output.chunks_exact_mut(dim)) {
            for ((v, o), &(low, high)) in row.iter().zip(out).zip(&self.limits) {
                *o = v.clamp(low, high);
            }
        }
        Ok(())
    }
}

impl Transform for Clipped {
    fn kind(&self) -> &'static str {
        "clip"
    }

    fn action(&self) -> Action<'_> {
        Action::Map { from: FEATURES, to: FEATURES, map: self }
    }

    fn save(&self) -> Artifact {
        let values = self.limits.iter().flat_map(|&(low, high)| [low, high]).collect();
        let limits = Tensor { shape: vec![self.limits.len(), 2], values };
        Artifact { settings: Default::default(), tensors: BTreeMap::from([("limits".to_string(), limits)]) }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let out = std::env::temp_dir().join(format!("dacpipe-custom-stage-{}", std::process::id()));
    let sets = [
        "stage.autoencoder.epochs=20".to_string(),
        "stage.manifold.epochs=50".to_string(),
        format!("sink.path={:?}", out.display().to_string()),
    ];
    let plan = PipelineFile::load(Path::new("pipelines/hapt.toml"), &sets)?.plan;

    let mut pipeline = Pipeline::new(plan)?;
    pipeline.insert_stage(0, Arc::new(Clip), "clip", Clipped::from_artifact);
    println!("stages: {}", pipeline.stages().collect::<Vec<_>>().join(" -> "));

    let report = pipeline.run(&RunOptions::default()).await?;
    println!("ARI {:.3}, sizes {:?}", report.scores["all"].ari, report.cluster_sizes);

    let registry = Registry::default().stage("clip", Clipped::from_artifact);
    let model = Model::load_with(&Location::parse(&report.model_path)?, &registry).await?;
    println!("model {}: {} values in, {} stages", model.hash().short(), model.dim_in(), model.stages().len());
    std::fs::remove_dir_all(out)?;
    Ok(())
}
