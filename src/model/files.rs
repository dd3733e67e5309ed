//! Writes and reads a model's directory, which has two files.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Model;
use super::arrays::{decode_arrays, encode_arrays};
use super::hash::ModelHash;
use super::manifest::{Content, MANIFEST, SavedStage, envelope_of, read_manifest};
use crate::error::{Error, Result};
use crate::registry::Registry;
use crate::stage::{Artifact, Tensor};
use crate::store::Location;

/// The name of the file of arrays in a model's directory.
const TENSORS: &str = "model.safetensors";

impl Model {
    /// The names of the files in a model's directory, in the order in which they are removed: a directory without a
    /// manifest is not a model.
    pub(crate) const FILES: [&str; 2] = [MANIFEST, TENSORS];

    /// Writes the model into the directory `models/<first 16 digits of its hash>` and returns that place. A model that
    /// is already there is left as it is, unless a file of it is missing or damaged.
    ///
    /// # Errors
    /// Kind `Io` if the store fails.
    pub async fn save(&self, models: &Location) -> Result<Location> {
        let artifacts: Vec<Artifact> = self.stages.iter().map(|stage| stage.save()).collect();
        let file = |name: &str| format!("{}/{name}", self.hash.short());
        // Each file appears completely or not at all.
        for (name, content) in [
            (file(TENSORS), Bytes::from(encode_tensors(&artifacts)?)),
            (file(MANIFEST), envelope_of(&self.content, &self.hash).into()),
        ] {
            if models.get(&name).await?.as_ref() != Some(&content) {
                models.put(&name, content).await?;
            }
        }
        models.join(self.hash.short())
    }

    /// Reads a model from its directory, to be applied on the CPU.
    ///
    /// # Errors
    /// Kind `Model` if there is none, a file is damaged or incomplete, its content does not have its hash, a stage has
    /// an unknown kind, or the stages do not fit together; `Io` if the store fails.
    pub async fn load(directory: &Location) -> Result<Self> {
        Self::load_with(directory, &Registry::default()).await
    }

    /// As [`load`](Self::load), with the stages that `registry` knows, to be applied on its device.
    ///
    /// # Errors
    /// As [`load`](Self::load), and kind `Compute` where the device has no room.
    pub async fn load_with(directory: &Location, registry: &Registry) -> Result<Self> {
        // Both at once; where both fail, the manifest's error is told.
        let (manifest, tensors) = futures::join!(read(directory, MANIFEST), read(directory, TENSORS));
        Self::decode(&manifest?, &tensors?, registry)
            .map_err(|e| Error::model(format!("the model at {directory}")).with_source(e))
    }

    /// Rebuilds a model from the bytes of its two files.
    fn decode(manifest: &[u8], tensors: &[u8], registry: &Registry) -> Result<Self> {
        let (content, Content { manifest, stages }, said) = read_manifest(manifest)?;
        let hash = ModelHash::of(content, tensors);
        if hash != said {
            return Err(Error::model(format!(
                "its content has the hash {}, {MANIFEST} says {said}: a file was changed or cut short",
                hash.short(),
            )));
        }
        let artifacts = decode_tensors(stages, tensors)?;
        let stages = artifacts.iter().enumerate().map(|(i, (kind, artifact))| {
            registry.restore(kind, artifact).map_err(|e| Error::model(format!("stage {i} ({kind})")).with_source(e))
        });
        let stages = stages.collect::<Result<Vec<_>>>()?;
        Self::assemble(manifest, stages, content.to_owned(), hash)
    }
}

/// The arrays of all stages in one file, each with the number of its stage in its name.
pub(super) fn encode_tensors(artifacts: &[Artifact]) -> Result<Vec<u8>> {
    let mut named: BTreeMap<String, &Tensor> = BTreeMap::new();
    for (i, artifact) in artifacts.iter().enumerate() {
        named.extend(artifact.tensors.iter().map(|(name, tensor)| (format!("{i}.{name}"), tensor)));
    }
    encode_arrays(&named, None)
}

fn decode_tensors(stages: Vec<SavedStage>, bytes: &[u8]) -> Result<Vec<(String, Artifact)>> {
    let (mut there, _) = decode_arrays(bytes).map_err(|e| Error::model(TENSORS).with_source(e))?;
    let named: usize = stages.iter().map(|stage| stage.tensors.len()).sum();
    if named != there.len() {
        return Err(Error::model(format!("{TENSORS} has {} arrays, {MANIFEST} names {named}", there.len())));
    }
    let mut take = |name: String, shape: Vec<usize>| match there.remove(&name) {
        Some(tensor) if tensor.shape == shape => Ok(tensor),
        Some(Tensor { shape: found, .. }) => {
            Err(Error::model(format!("{TENSORS}: array {name} has shape {found:?}, {MANIFEST} says {shape:?}")))
        }
        None => Err(Error::model(format!("{TENSORS} has no array {name}"))),
    };
    let mut artifacts = Vec::new();
    for (i, SavedStage { kind, settings, tensors }) in stages.into_iter().enumerate() {
        let tensors = tensors.into_iter().map(|(name, shape)| {
            let tensor = take(format!("{i}.{name}"), shape)?;
            Ok((name, tensor))
        });
        artifacts.push((kind, Artifact { settings, tensors: tensors.collect::<Result<_>>()? }));
    }
    Ok(artifacts)
}

async fn read(directory: &Location, file: &str) -> Result<Bytes> {
    match directory.get(file).await? {
        Some(content) => Ok(content),
        None => Err(Error::model(format!("no model at {}: it has no {file}", directory.looked_at()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::model::tests::{model, with_shift};

    fn files(model: &Model) -> (String, Vec<u8>) {
        let artifacts: Vec<Artifact> = model.stages().iter().map(|stage| stage.save()).collect();
        (envelope_of(&model.content, &model.hash), encode_tensors(&artifacts).unwrap())
    }

    #[tokio::test]
    async fn a_saved_model_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let models = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let saved = model(&[0.1, f32::MIN_POSITIVE]);
        let place = saved.save(&models).await.unwrap();
        assert_eq!(place.to_string(), format!("{}/{}", dir.path().display(), saved.hash().short()));
        let loaded = Model::load_with(&place, &with_shift()).await.unwrap();
        assert_eq!(loaded.hash(), saved.hash());
        assert_eq!(loaded.manifest().name, "m");
        assert_eq!(loaded.manifest().seed, u64::MAX);
        assert_eq!(loaded.manifest().input, saved.manifest().input);
        assert_eq!(loaded.stages()[0].save().tensors, saved.stages()[0].save().tensors);
        assert_eq!((loaded.dim_in(), loaded.embedding_dim(), loaded.assigns()), (2, 2, false));
        assert_eq!(loaded.embed(&[1.0, 2.0]).unwrap(), [1.1, 2.0]);
        // Saving the loaded model changes nothing.
        assert_eq!(loaded.save(&models).await.unwrap().to_string(), place.to_string());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // Saving repairs a damaged file.
        let arrays = dir.path().join(saved.hash().short()).join(TENSORS);
        let whole = std::fs::read(&arrays).unwrap();
        std::fs::write(&arrays, &whole[..10]).unwrap();
        saved.save(&models).await.unwrap();
        assert_eq!(std::fs::read(&arrays).unwrap(), whole);
    }

    #[tokio::test]
    async fn what_is_no_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Location::parse(dir.path().to_str().unwrap()).unwrap();
        let e = Model::load(&place).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Model);
        assert!(e.to_string().contains("no model at") && e.to_string().contains(MANIFEST), "{e}");
        // A save that was interrupted leaves only the arrays.
        std::fs::write(dir.path().join(TENSORS), files(&model(&[1.0, 2.0])).1).unwrap();
        assert!(Model::load(&place).await.unwrap_err().to_string().contains(MANIFEST));
    }

    #[test]
    fn changed_files_are_noticed() {
        let (manifest, tensors) = files(&model(&[1.0, 2.0]));
        let load = |manifest: &str, tensors: &[u8]| {
            let e = Model::decode(manifest.as_bytes(), tensors, &with_shift()).unwrap_err();
            assert_eq!(e.kind(), Kind::Model, "{e}");
            e.to_string()
        };
        let mut flipped = tensors.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(load(&manifest, &flipped).contains("a file was changed or cut short"));
        assert!(load(&manifest, &tensors[..tensors.len() - 1]).contains("changed or cut short"));
        assert!(load(&manifest.replace("\"m\"", "\"n\""), &tensors).contains("changed or cut short"));
        assert!(load(&manifest[..100], &tensors).contains("not a model's manifest"));
        assert!(load("{\"format\": 7}", &tensors).contains("format 7"));
        assert!(load(&manifest.replace('\n', " "), &tensors).contains("reformatted"));
        assert!(Model::decode(&[0xff], &tensors, &Registry::default()).unwrap_err().to_string().contains("UTF-8"));
        let e = Model::decode(manifest.as_bytes(), &tensors, &Registry::default()).unwrap_err().to_string();
        assert!(
            e.contains("stage 0 (shift)")
                && e.contains(
                    "there are origin, impute, scale, feature_weights, manifold, embed, network, label, experts"
                ),
            "{e}"
        );
    }

    #[test]
    fn arrays_must_be_those_of_the_manifest() {
        let stage = |shape: Vec<usize>| SavedStage {
            kind: "shift".into(),
            settings: Default::default(),
            tensors: [("by".to_string(), shape)].into(),
        };
        let (_, tensors) = files(&model(&[1.0, 2.0]));
        let say = |stages, tensors: &[u8]| decode_tensors(stages, tensors).unwrap_err().to_string();
        assert!(decode_tensors(vec![stage(vec![2])], &tensors).is_ok());
        assert!(say(vec![stage(vec![1, 2])], &tensors).contains("0.by has shape [2]"));
        assert!(say(vec![], &tensors).contains("has 1 arrays"));
        assert!(say(vec![stage(vec![2])], b"rubbish").contains("not a safetensors file"));
        let other = Tensor { shape: vec![2], values: vec![1.0, 2.0] };
        let other = encode_arrays(&BTreeMap::from([("1.by".to_string(), other)]), None).unwrap();
        assert!(say(vec![stage(vec![2])], &other).contains("has no array 0.by"));
    }
}
