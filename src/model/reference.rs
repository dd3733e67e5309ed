//! What is known of the rows that a model learned from, beside it. It is not part of the model's hash: the model labels
//! rows the same with it or without it.

use sha2::{Digest, Sha256};

use super::Model;
use crate::drift::Reference;
use crate::error::{Error, Result};
use crate::store::Location;

/// The file's name in a model's directory.
pub(super) const REFERENCE: &str = "drift.json";
/// The version of the file's form that this release writes and reads.
const FORM: u64 = 1;

impl Model {
    /// Writes what is known of the rows that it learned from beside the model, in the directory `models/<first 16 digits of
    /// its hash>`.
    ///
    /// # Errors
    /// Kind `Io` if the store fails.
    pub async fn keep_reference(&self, models: &Location, reference: &Reference) -> Result<()> {
        let content = serde_json::to_string(reference).map_err(|e| Error::internal("drift.json").with_source(e))?;
        let text = file_of(&content);
        let name = format!("{}/{REFERENCE}", self.hash.short());
        if models.get(&name).await?.is_none_or(|there| there != text.as_bytes()) {
            models.put(&name, text.into()).await?;
        }
        Ok(())
    }

    /// Reads what is known of the rows that the model in `directory` learned from; `None` if nothing was kept.
    ///
    /// # Errors
    /// Kind `Model` for a damaged file, or one of a newer form; `Io` if the store fails.
    pub async fn reference(directory: &Location) -> Result<Option<Reference>> {
        let Some(bytes) = directory.get(REFERENCE).await? else { return Ok(None) };
        let wrong = |why: &str| Error::model(format!("{} {why}", directory.show(REFERENCE)));
        let damaged = || wrong("is damaged: it has other content than was written; run the model's pipeline again");
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let (head, content) = text.split_once('\n').ok_or_else(damaged)?;
        let content = content.strip_suffix("\n}\n").ok_or_else(damaged)?;
        let head: serde_json::Value = serde_json::from_str(&format!("{head}0}}")).map_err(|_| damaged())?;
        if let Some(form) = head["form"].as_u64().filter(|form| *form > FORM) {
            return Err(wrong(&format!("has form {form}, and this version of dacpipe reads {FORM}; use a newer one")));
        }
        if file_of(content) != text {
            return Err(damaged());
        }
        serde_json::from_str(content).map(Some).map_err(|e| damaged().with_source(e))
    }
}

/// The file: one line with the hash of the content, the content, one closing line.
fn file_of(content: &str) -> String {
    let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"form\": {FORM}, \"sha256\": \"{hash}\", \"content\":\n{content}\n}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::DriftSpec;
    use crate::model::tests::model;

    #[tokio::test]
    async fn it_comes_back_and_damage_is_found() {
        let models = Location::parse("memory:///reference").unwrap();
        let model = model(&[0.5, 1.0]);
        let place = models.join(model.hash().short()).unwrap();
        assert_eq!(Model::reference(&place).await.unwrap(), None);
        let rows = [0.1, -0.0, 7.25, f64::MAX, f64::MIN_POSITIVE];
        let reference = Reference::of(&rows, 1, &["a \"b\"\n".into()], None, &DriftSpec::default());
        model.keep_reference(&models, &reference).await.unwrap();
        assert_eq!(Model::reference(&place).await.unwrap(), Some(reference));
        let bytes = place.get(REFERENCE).await.unwrap().unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut other = bytes.to_vec();
            other[at] ^= 0x08;
            place.put(REFERENCE, other.into()).await.unwrap();
            let found = Model::reference(&place).await;
            let e = found.err().unwrap_or_else(|| panic!("byte {at} ({:?})", bytes[at] as char));
            assert!(e.kind() == crate::Kind::Model && e.to_string().contains("drift.json"), "{e}");
        }
    }
}
