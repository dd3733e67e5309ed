//! Compiled kernels on disk, by the hash of what they were compiled from.

use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// What a file begins with, before the hash of the rest.
const HEAD: &str = "dacpipe kernel 1 ";

/// A directory of compiled kernels. What cannot be read there is compiled anew, and what cannot be written there is not kept:
/// a full disk or a damaged file stops nothing.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: Option<PathBuf>,
}

impl Cache {
    /// The user's: `DACPIPE_KERNELS`, or `dacpipe/kernels` in `XDG_CACHE_HOME` or `~/.cache`. None where no such variable is set.
    #[cfg(feature = "cuda")]
    pub fn of_user() -> Self {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let general = || from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        Self { directory: from("DACPIPE_KERNELS").or_else(|| general().map(|cache| cache.join("dacpipe/kernels"))) }
    }

    /// What is kept under these parts of a key, or what `compile` makes, which is kept.
    ///
    /// # Errors
    /// Those of `compile`.
    pub fn get_or<E>(&self, key: &[&str], compile: impl FnOnce() -> Result<String, E>) -> Result<String, E> {
        let path = self.directory.as_ref().map(|directory| directory.join(hash(key)));
        if let Some(kept) = path.as_ref().and_then(read) {
            return Ok(kept);
        }
        let made = compile()?;
        if let Some(path) = path
            && let Err(e) = write(&path, &made)
        {
            tracing::debug!(path = %path.display(), error = %e, "a compiled kernel is not kept");
        }
        Ok(made)
    }
}

/// The hash of some texts, which knows where each of them ends.
fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a file holds, if it is whole.
fn read(path: &PathBuf) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let whole = text.strip_prefix(HEAD).and_then(|rest| rest.split_once('\n'));
    match whole {
        Some((sum, kept)) if sum == hash(&[kept]) => Some(kept.to_owned()),
        _ => {
            tracing::debug!(path = %path.display(), "a compiled kernel is damaged and is compiled anew");
            None
        }
    }
}

/// Writes it beside its place first, so that no one sees half of it.
fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    write!(file, "{HEAD}{}\n{text}", hash(&[text]))?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(directory: &std::path::Path) -> Cache {
        Cache { directory: Some(directory.join("deep/kernels")) }
    }

    fn kept(cache: &Cache, key: &[&str]) -> Option<String> {
        cache.get_or(key, || Err(())).ok()
    }

    #[test]
    fn what_was_compiled_is_compiled_once_and_by_its_whole_key() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        assert_eq!(
            cache.get_or(&["a", "bc"], || Ok::<_, ()>("first\n\nlines".into())),
            Ok("first\n\nlines".to_string())
        );
        assert_eq!(kept(&cache, &["a", "bc"]).as_deref(), Some("first\n\nlines"));
        assert_eq!(kept(&cache, &["ab", "c"]), None);
        assert_eq!(std::fs::read_dir(directory.path().join("deep/kernels")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_compiled_anew() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let path = directory.path().join("deep/kernels").join(hash(&["key"]));
        for damage in [
            |text: String| text.replace("kernel text", "kernel test"),
            |text: String| text[..text.len() - 3].to_string(),
            |_: String| String::new(),
            |_: String| "something else".to_string(),
        ] {
            cache.get_or(&["key"], || Ok::<_, ()>("a kernel text".into())).unwrap();
            std::fs::write(&path, damage(std::fs::read_to_string(&path).unwrap())).unwrap();
            assert_eq!(kept(&cache, &["key"]), None);
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(kept(&cache, &["key"]), None);
        cache.get_or(&["key"], || Ok::<_, ()>("a kernel text".into())).unwrap();
        assert_eq!(kept(&cache, &["key"]).as_deref(), Some("a kernel text"));
    }

    #[test]
    fn where_nothing_can_be_kept_everything_is_compiled() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for cache in [Cache { directory: None }, Cache { directory: Some(file.path().join("below a file")) }] {
            assert_eq!(cache.get_or(&["key"], || Ok::<_, ()>("text".into())), Ok("text".to_string()));
            assert_eq!(kept(&cache, &["key"]), None);
        }
    }
}
