//! Where a source's files are: a path, a directory, a glob, or the URL of an object store; plain or gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use url::Url;

use crate::error::{Error, Result};

const BUFFER: usize = 1 << 16;
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// One file of a source.
#[derive(Debug, Clone)]
pub struct DataFile {
    name: String,
    below: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    Remote(Arc<dyn ObjectStore>, ObjectPath, u64),
}

impl DataFile {
    /// Its path or URL, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path below the directory that was asked for, with `/` between names; its own name if it was asked for.
    pub fn below(&self) -> &str {
        &self.below
    }

    /// Opens it, decompressing gzip. Blocks, so it belongs on a blocking task of the runtime.
    ///
    /// # Errors
    /// Kind `Input` if it is not there, `Io` if it cannot be read.
    pub fn open(&self) -> Result<Box<dyn BufRead + Send>> {
        let raw: Box<dyn Read + Send> = match &self.place {
            Place::Local(path) => Box::new(File::open(path).map_err(|e| self.unreadable(e))?),
            Place::Remote(store, path, _) => {
                let handle = Handle::current();
                let get = handle.block_on(store.get(path)).map_err(|e| remote_error(&self.name, e))?;
                Box::new(Remote { handle, stream: get.into_stream(), ready: Bytes::new() })
            }
        };
        let mut raw = BufReader::with_capacity(BUFFER, raw);
        // The bytes decide and not the name: a .csv served compressed is as welcome as a .gz that is not.
        let start = raw.fill_buf().map_err(|e| self.unreadable(e))?;
        match start.starts_with(&[0x1f, 0x8b]) {
            true => Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))),
            false => Ok(Box::new(raw)),
        }
    }

    /// All of it, decompressed. Blocks like [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes).map_err(|e| self.unreadable(e))?;
        Ok(bytes)
    }

    /// The open file as its bytes are, where it is a local one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn local(&self) -> Result<Option<File>> {
        match &self.place {
            Place::Local(path) => File::open(path).map(Some).map_err(|e| self.unreadable(e)),
            Place::Remote(..) => Ok(None),
        }
    }

    /// The object store that it is in, its path there, and its size in bytes.
    ///
    /// # Errors
    /// Kind `Input` if it is not there or its path cannot be one of an object store.
    pub fn object(&self) -> Result<(Arc<dyn ObjectStore>, ObjectPath, u64)> {
        match &self.place {
            Place::Remote(store, path, size) => Ok((store.clone(), path.clone(), *size)),
            Place::Local(path) => {
                let size = std::fs::metadata(path).map_err(|e| self.unreadable(e))?.len();
                let path = std::path::absolute(path).map_err(|e| self.unreadable(e))?;
                let path = ObjectPath::from_absolute_path(path)
                    .map_err(|e| Error::input(format!("{}: not a readable path", self.name)).with_source(e))?;
                Ok((Arc::new(object_store::local::LocalFileSystem::new()), path, size))
            }
        }
    }

    /// The error for `e`, met while reading.
    pub fn unreadable(&self, e: io::Error) -> Error {
        let damaged = [io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        match e.kind() {
            io::ErrorKind::NotFound => Error::input(format!("{}: no such file", self.name)),
            kind if damaged.contains(&kind) => {
                Error::input(format!("{}: damaged or cut off", self.name)).with_source(e)
            }
            _ => Error::io(format!("{}: cannot be read", self.name)).with_source(e),
        }
    }
}

/// Reads an object as it arrives, one piece at a time.
struct Remote {
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    ready: Bytes,
}

impl Read for Remote {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(piece) => self.ready = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.ready.len());
        self.ready.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// The files at `path` whose names end with one of `extensions` (or with one and `.gz`), in the order of their paths.
///
/// `path` is a file, whose extension does not matter; a directory, with everything below it but names that start with
/// `.` or `_`; a glob of `*`, `?`, `[…]` and `**`; or the same under `file://`, `s3://`, `gs://`, `az://`, `http://` or
/// `https://` (which knows single files only). Stores take their credentials from the environment (`AWS_…`,
/// `GOOGLE_…`, `AZURE_…`).
///
/// # Errors
/// Kind `Input` if nothing is there or the scheme is unknown, `Io` if listing fails.
pub async fn list(path: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    let mut files = match path.split_once("://") {
        Some(("file", _)) => {
            let url = parse(path)?;
            let local = url.to_file_path().map_err(|()| Error::input(format!("{path}: not a local file URL")))?;
            list_local(local, path, extensions).await?
        }
        Some(_) => list_remote(path, extensions).await?,
        None => list_local(PathBuf::from(path), path, extensions).await?,
    };
    if files.is_empty() {
        return Err(Error::input(format!("{path}: no files that end with {} there", extensions.join(", "))));
    }
    files.sort_by(|a, b| a.below.cmp(&b.below));
    Ok(files)
}

fn accepted(name: &str, extensions: &[&str]) -> bool {
    let lower = name.to_ascii_lowercase();
    let plain = lower.strip_suffix(".gz").unwrap_or(&lower);
    extensions.iter().any(|e| plain.ends_with(e))
}

fn hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn parse(path: &str) -> Result<Url> {
    Url::parse(path).map_err(|e| Error::input(format!("{path}: not a URL")).with_source(e))
}

async fn list_local(path: PathBuf, shown: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    let shown = shown.to_string();
    let listing = move || {
        if path.is_dir() {
            let mut files = Vec::new();
            walk(&path, String::new(), extensions, &mut files)?;
            return Ok(files);
        }
        if path.exists() || !shown.contains(WILDCARDS) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let file = DataFile { name: path.display().to_string(), below: name, place: Place::Local(path) };
            if let Place::Local(path) = &file.place {
                std::fs::metadata(path).map_err(|e| file.unreadable(e))?;
            }
            return Ok(vec![file]);
        }
        matches(&path, &shown, extensions)
    };
    blocking(listing).await
}

/// Runs `work`, which blocks, on a task made for that; it is waited for.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = datafusion::common::runtime::SpawnedTask::spawn_blocking(work);
    task.join_unwind().await.map_err(|_| Error::cancelled("the runtime was shut down"))?
}

fn walk(dir: &Path, below: String, extensions: &[&str], files: &mut Vec<DataFile>) -> Result<()> {
    let unreadable = |e| Error::io(format!("{}: cannot be listed", dir.display())).with_source(e);
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if hidden(&name) {
            continue;
        }
        if path.is_dir() {
            walk(&path, format!("{below}{name}/"), extensions, files)?;
        } else if accepted(&name, extensions) {
            let name = format!("{below}{name}");
            files.push(DataFile { name: path.display().to_string(), below: name, place: Place::Local(path) });
        }
    }
    Ok(())
}

fn matches(path: &Path, shown: &str, extensions: &[&str]) -> Result<Vec<DataFile>> {
    let bad = |e: glob::PatternError| Error::input(format!("{shown}: not a glob")).with_source(e);
    let mut files = Vec::new();
    for found in glob::glob(&path.to_string_lossy()).map_err(bad)? {
        let path = found.map_err(|e| Error::io(format!("{shown}: cannot be listed")).with_source(e))?;
        if path.is_dir() {
            walk(&path, format!("{}/", path.display()), extensions, &mut files)?;
        } else {
            let name = path.display().to_string();
            files.push(DataFile { below: name.clone(), name, place: Place::Local(path) });
        }
    }
    Ok(files)
}

fn remote_error(name: &str, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => Error::input(format!("{name}: no such file")),
        e => Error::io(format!("{name}: cannot be read")).with_source(e),
    }
}

async fn list_remote(path: &str, extensions: &[&str]) -> Result<Vec<DataFile>> {
    // Up to the last directory that has no wildcard; the rest is matched against what is listed there.
    let base = match path.find(WILDCARDS) {
        Some(at) if !path.starts_with("http") => &path[..path[..at].rfind('/').map_or(at, |slash| slash + 1)],
        _ => path,
    };
    let url = parse(base)?;
    let (store, prefix) = object_store::parse_url_opts(&url, std::env::vars()).map_err(|e| {
        let schemes = if cfg!(feature = "cloud") {
            "file, s3, gs, az, http and https are known"
        } else {
            "this build knows file only; the cargo feature `cloud` adds s3, gs, az, http and https"
        };
        Error::input(format!("{path}: cannot be opened ({schemes})")).with_source(e)
    })?;
    list_store(Arc::from(store), prefix, path, base, extensions).await
}

async fn list_store(
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    path: &str,
    base: &str,
    extensions: &[&str],
) -> Result<Vec<DataFile>> {
    let glob = path.len() > base.len();
    if !glob && !path.ends_with('/') && !prefix.as_ref().is_empty() {
        match store.head(&prefix).await {
            Ok(meta) => {
                let below = prefix.filename().unwrap_or_default().to_string();
                let place = Place::Remote(store, prefix, meta.size);
                return Ok(vec![DataFile { name: path.to_string(), below, place }]);
            }
            Err(object_store::Error::NotFound { .. }) if !path.starts_with("http") => {}
            Err(e) => return Err(remote_error(path, e)),
        }
    }
    let wanted = format!("{}/{}", prefix.as_ref(), &path[base.len()..]);
    let wanted = glob::Pattern::new(wanted.trim_start_matches('/'))
        .map_err(|e| Error::input(format!("{path}: not a glob")).with_source(e))?;
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.map_err(|e| remote_error(path, e))?;
    let mut files = Vec::new();
    for object in listed {
        let below: Vec<_> = object.location.prefix_match(&prefix).into_iter().flatten().collect();
        let below = below.iter().map(|p| p.as_ref()).collect::<Vec<&str>>().join("/");
        let take = match glob {
            true => wanted.matches_with(object.location.as_ref(), options),
            false => !below.split('/').any(hidden) && accepted(&below, extensions),
        };
        if take {
            let name = format!("{}/{below}", base.trim_end_matches('/'));
            files.push(DataFile { name, below, place: Place::Remote(store.clone(), object.location, object.size) });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    const CSV: &[&str] = &[".csv"];

    async fn store() -> Arc<dyn ObjectStore> {
        let store = InMemory::new();
        for name in ["d/b.csv", "d/a.csv.gz", "d/e/c.csv", "d/_x.csv", "d/notes.md"] {
            store.put(&ObjectPath::from(name), name.as_bytes().to_vec().into()).await.unwrap();
        }
        Arc::new(store)
    }

    async fn names(path: &str, base: &str) -> Vec<String> {
        let prefix = ObjectPath::from(base.strip_prefix("s3://bucket/").unwrap());
        let files = list_store(store().await, prefix, path, base, CSV).await.unwrap();
        files.iter().map(|f| f.below().to_string()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn objects_are_listed_by_file_directory_and_glob() {
        assert_eq!(names("s3://bucket/d/b.csv", "s3://bucket/d/b.csv").await, ["b.csv"]);
        assert_eq!(names("s3://bucket/d", "s3://bucket/d").await, ["a.csv.gz", "b.csv", "e/c.csv"]);
        assert_eq!(names("s3://bucket/d/*.csv", "s3://bucket/d/").await, ["_x.csv", "b.csv"]);
        assert_eq!(names("s3://bucket/d/**/c.csv", "s3://bucket/d/").await, ["e/c.csv"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_is_read_in_pieces() {
        let place = Place::Remote(store().await, ObjectPath::from("d/b.csv"), 7);
        let file = DataFile { name: "b".into(), below: "b".into(), place };
        assert_eq!(blocking(move || file.read()).await.unwrap(), b"d/b.csv");
    }

    #[tokio::test]
    async fn an_unknown_scheme_says_which_are_known() {
        let error = list("ftp://host/a.csv", CSV).await.unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Input);
        assert!(error.message().contains("known"), "{error}");
    }
}
