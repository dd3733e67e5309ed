//! Where a source's files are: a path, a directory, a glob, or the URL of an object store; plain or gzip.
//!
//! A place is a [`Location`], as everywhere; what is found there is decided here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Component, Path};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::store::Location;

const BUFFER: usize = 1 << 16;
pub(super) const WILDCARDS: [char; 3] = ['*', '?', '['];

/// One file of a source.
#[derive(Debug, Clone)]
pub struct DataFile {
    name: String,
    below: String,
    place: Location,
    /// Its size as the store listed it; a local file is asked when it is read.
    listed_size: u64,
}

impl DataFile {
    /// Its path or URL, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path below the directory that was asked for, or that a glob was matched in, with `/` between names; its own
    /// name if it was asked for.
    pub fn below(&self) -> &str {
        &self.below
    }

    /// Opens it, decompressing gzip. Blocks, so it belongs on a blocking task of the runtime.
    ///
    /// # Errors
    /// Kind `Input` if it is not there, `Io` if it cannot be read.
    pub fn open(&self) -> Result<Box<dyn BufRead + Send>> {
        let raw: Box<dyn Read + Send> = match self.place.local_path() {
            Some(path) => Box::new(File::open(path).map_err(|e| self.unreadable(e))?),
            None => {
                let handle = Handle::current();
                let get = handle.block_on(self.place.store().get(self.place.prefix()));
                let get = get.map_err(|e| remote_error(&self.name, e))?;
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
        let open = |path| File::open(path).map_err(|e| self.unreadable(e));
        self.place.local_path().map(open).transpose()
    }

    /// The object store that it is in, its path there, and its size in bytes.
    ///
    /// # Errors
    /// Kind `Input` if it is not there.
    pub fn object(&self) -> Result<(Arc<dyn ObjectStore>, ObjectPath, u64)> {
        let size = match self.place.local_path() {
            Some(path) => std::fs::metadata(path).map_err(|e| self.unreadable(e))?.len(),
            None => self.listed_size,
        };
        Ok((Arc::clone(self.place.store()), self.place.prefix().clone(), size))
    }

    /// The error for `e`, met while reading.
    pub fn unreadable(&self, e: io::Error) -> Error {
        self.unreadable_after(e, "")
    }

    /// The error for `e`, met while reading `after` what was good (`" after 7 rows"`).
    pub(super) fn unreadable_after(&self, e: io::Error, after: &str) -> Error {
        let damaged = [io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        match e.kind() {
            io::ErrorKind::NotFound => Error::input(format!("{}: no such file", self.name)),
            kind if damaged.contains(&kind) => {
                Error::input(format!("{}: damaged or cut off{after}", self.name)).with_source(e)
            }
            _ => Error::io(format!("{}: cannot be read{after}", self.name)).with_source(e),
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
/// `.` or `_`; a glob of `*`, `?`, `[…]` and `**`, whose directories are taken as that; or the same under `file://`,
/// `memory://`, `s3://`, `gs://`, `az://`, `http://` or `https://` (which know single files only). Stores take their
/// credentials from the environment, as for every [`Location`].
///
/// # Errors
/// Kind `Input` if nothing is there or the glob is none, `Config` for a URL that no store understands, `Io` if listing
/// fails.
pub async fn list(path: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    let mut files = match split_glob(path) {
        Some((base, pattern)) => Directory::new(base, extensions)?.matching(pattern, path).await?,
        None => list_whole(path, extensions).await?,
    };
    if files.is_empty() {
        return Err(Error::input(format!("{path}: no files that end with {} there", extensions.join(", "))));
    }
    files.sort_by(|a, b| a.below.cmp(&b.below));
    Ok(files)
}

/// The last directory of a glob that has no wildcard, with its `/`, and what is matched below it. `None` for the name
/// of something that is there whatever characters are in it, and for web addresses, in which `?` means something else.
fn split_glob(path: &str) -> Option<(&str, &str)> {
    let wildcard = path.find(WILDCARDS)?;
    if path.starts_with("http") || (!path.contains("://") && Path::new(path).exists()) {
        return None;
    }
    let slash = path[..wildcard].rfind(std::path::is_separator).map_or(0, |slash| slash + 1);
    Some(path.split_at(slash))
}

/// The file `path`, or the files below the directory `path`.
async fn list_whole(path: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    let place = Location::parse(path)?;
    let below = place.prefix().filename().unwrap_or_default().to_owned();
    let mut file = DataFile { name: path.to_owned(), below, place, listed_size: 0 };
    if let Some(local) = file.place.local_path() {
        let found = std::fs::metadata(local).map_err(|e| file.unreadable(e))?;
        if !found.is_dir() {
            // Its own name, and not that of what a link leads to.
            if let (false, Some(name)) = (path.contains("://"), Path::new(path).file_name()) {
                file.below = name.to_string_lossy().into_owned();
            }
            return Ok(vec![file]);
        }
    } else if !path.ends_with('/') && !file.place.prefix().as_ref().is_empty() {
        match file.place.store().head(file.place.prefix()).await {
            Ok(found) => {
                file.listed_size = found.size;
                return Ok(vec![file]);
            }
            Err(object_store::Error::NotFound { .. }) if !path.starts_with("http") => {}
            Err(e) => return Err(remote_error(path, e)),
        }
    }
    let shown = format!("{}/", path.trim_end_matches('/'));
    Directory { place: file.place, shown, extensions }.files().await
}

/// A directory that is listed for files.
struct Directory {
    place: Location,
    /// What stands before a path below it in messages.
    shown: String,
    extensions: &'static [&'static str],
}

impl Directory {
    fn new(text: &str, extensions: &'static [&'static str]) -> Result<Self> {
        let place = Location::parse(if text.is_empty() { "." } else { text })?;
        Ok(Self { place, shown: text.to_owned(), extensions })
    }

    fn file(&self, (below, listed_size): (String, u64)) -> Result<DataFile> {
        let place = self.place.join(&below)?;
        Ok(DataFile { name: format!("{}{below}", self.shown), below, place, listed_size })
    }

    /// Everything below it that has one of the extensions, hidden names apart.
    async fn files(&self) -> Result<Vec<DataFile>> {
        let extensions = self.extensions;
        let found = match self.place.local_path().map(Path::to_path_buf) {
            Some(dir) => {
                let listing = move || {
                    let mut found = Vec::new();
                    walk(&dir, "", extensions, &mut found)?;
                    Ok(found)
                };
                blocking(listing).await?
            }
            None => {
                let mut found = self.objects().await?;
                found.retain(|(below, _)| taken(below, extensions));
                found
            }
        };
        found.into_iter().map(|file| self.file(file)).collect()
    }

    /// What `pattern` matches below it: files, and what is in directories. `whole` is what was asked for.
    async fn matching(&self, pattern: &str, whole: &str) -> Result<Vec<DataFile>> {
        let bad = |e: &dyn std::fmt::Display| Error::input(format!("{whole}: not a glob: {e}"));
        let extensions = self.extensions;
        let found = match self.place.local_path().map(Path::to_path_buf) {
            Some(dir) => {
                let below = Path::new(&glob::Pattern::escape(&dir.to_string_lossy())).join(pattern);
                let matches = glob::glob(&below.to_string_lossy()).map_err(|e| bad(&e))?;
                let shown = whole.to_owned();
                blocking(move || matched(matches, &dir, &shown, extensions)).await?
            }
            None => {
                // In a URL everything but the wildcards may be escaped.
                let pattern = ObjectPath::from_url_path(pattern).map_err(|e| bad(&e))?;
                let pattern = glob::Pattern::new(pattern.as_ref()).map_err(|e| bad(&e))?;
                let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
                let fits = |below: &str| {
                    let dirs = below.match_indices('/').map(|(slash, _)| slash);
                    let in_matched = |slash: usize| {
                        pattern.matches_with(&below[..slash], options) && taken(&below[slash + 1..], extensions)
                    };
                    pattern.matches_with(below, options) || dirs.into_iter().any(in_matched)
                };
                let mut found = self.objects().await?;
                found.retain(|(below, _)| fits(below));
                found
            }
        };
        found.into_iter().map(|file| self.file(file)).collect()
    }

    /// All objects below it, and their sizes.
    async fn objects(&self) -> Result<Vec<(String, u64)>> {
        let prefix = self.place.prefix();
        let listed: Vec<_> = self
            .place
            .store()
            .list(Some(prefix))
            .try_collect()
            .await
            .map_err(|e| Error::io(format!("{}: cannot be listed", self.place)).with_source(e))?;
        let below = |object: object_store::ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(prefix)?.collect();
            let names: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
            Some((names.join("/"), object.size))
        };
        Ok(listed.into_iter().filter_map(below).collect())
    }
}

fn accepted(name: &str, extensions: &[&str]) -> bool {
    let lower = name.to_ascii_lowercase();
    let plain = lower.strip_suffix(".gz").unwrap_or(&lower);
    extensions.iter().any(|e| plain.ends_with(e))
}

fn hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Whether a listing of a directory takes the file at `below`.
fn taken(below: &str, extensions: &[&str]) -> bool {
    !below.split('/').any(hidden) && accepted(below, extensions)
}

/// Runs `work`, which blocks, on a task made for that; it is waited for.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = datafusion::common::runtime::SpawnedTask::spawn_blocking(work);
    task.join_unwind().await.map_err(|_| Error::cancelled("the runtime was shut down"))?
}

/// Appends the files below `dir`, whose own path is `below` (with a `/` at its end, or empty). A hidden directory is
/// not looked into.
fn walk(dir: &Path, below: &str, extensions: &[&str], found: &mut Vec<(String, u64)>) -> Result<()> {
    let unreadable = |e| Error::io(format!("{}: cannot be listed", dir.display())).with_source(e);
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if hidden(&name) {
            continue;
        }
        if path.is_dir() {
            walk(&path, &format!("{below}{name}/"), extensions, found)?;
        } else if accepted(&name, extensions) {
            found.push((format!("{below}{name}"), 0));
        }
    }
    Ok(())
}

/// The files that a glob found below `dir`, and those in the directories it found.
fn matched(matches: glob::Paths, dir: &Path, whole: &str, extensions: &[&str]) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for path in matches {
        let path = path.map_err(|e| Error::io(format!("{whole}: cannot be listed")).with_source(e))?;
        let names = path.strip_prefix(dir).unwrap_or(&path).components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        });
        let below = names.collect::<Vec<_>>().join("/");
        match path.is_dir() {
            true => walk(&path, &format!("{below}/"), extensions, &mut found)?,
            false => found.push((below, 0)),
        }
    }
    Ok(found)
}

fn remote_error(name: &str, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => Error::input(format!("{name}: no such file")),
        e => Error::io(format!("{name}: cannot be read")).with_source(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &[&str] = &[".csv"];
    const FILES: [&str; 6] = ["d/b.csv", "d/a.csv.gz", "d/e/c.csv", "d/_x.csv", "d/e/_f/g.csv", "d/notes.md"];

    /// The same files in an object store and on disk.
    async fn places(name: &str) -> (tempfile::TempDir, [String; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let local = dir.path().display().to_string();
        let remote = format!("memory:///{name}");
        for place in [&local, &remote] {
            let place = Location::parse(place).unwrap();
            for name in FILES {
                place.put(name, Bytes::from(name)).await.unwrap();
            }
        }
        (dir, [local, remote])
    }

    async fn below(path: String) -> Vec<String> {
        list(&path, CSV).await.unwrap().iter().map(|f| f.below().to_string()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_are_listed_alike_on_disk_and_in_stores() {
        let (_dir, places) = places("listed_alike").await;
        for place in places {
            assert_eq!(below(format!("{place}/d/b.csv")).await, ["b.csv"]);
            assert_eq!(below(format!("{place}/d")).await, ["a.csv.gz", "b.csv", "e/c.csv"]);
            assert_eq!(below(format!("{place}/d/")).await, ["a.csv.gz", "b.csv", "e/c.csv"]);
            assert_eq!(below(format!("{place}/d/*.csv")).await, ["_x.csv", "b.csv"]);
            assert_eq!(below(format!("{place}/d/**/c.csv")).await, ["e/c.csv"]);
            assert_eq!(below(format!("{place}/?/[ab].*")).await, ["d/a.csv.gz", "d/b.csv"]);
            assert_eq!(below(format!("{place}/d/e*")).await, ["e/c.csv"], "a directory stands for what is in it");
            let names: Vec<_> = list(&format!("{place}/d/*.csv"), CSV).await.unwrap();
            assert_eq!(names[1].name(), format!("{place}/d/b.csv"));
            let e = list(&format!("{place}/d/*.tsv"), CSV).await.unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Input);
            let e = list(&format!("{place}/d/[.csv"), CSV).await.unwrap_err();
            assert!(e.kind() == crate::Kind::Input && e.message().contains("not a glob"), "{e}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_is_read_alike_on_disk_and_in_stores() {
        let (_dir, places) = places("read_alike").await;
        for place in places {
            let file = list(&format!("{place}/d/b.csv"), CSV).await.unwrap().remove(0);
            assert_eq!(file.object().unwrap().2, 7);
            assert_eq!(blocking(move || file.read()).await.unwrap(), b"d/b.csv");
        }
    }

    #[tokio::test]
    async fn a_name_may_look_like_a_glob() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run [1]")).unwrap();
        std::fs::write(dir.path().join("run [1]/a?.csv"), "x").unwrap();
        let root = dir.path().display().to_string();
        assert_eq!(below(format!("{root}/run [1]/a?.csv")).await, ["a?.csv"]);
        assert_eq!(below(format!("{root}/run [1]")).await, ["a?.csv"]);
        assert_eq!(below(format!("{root}/run*/a*")).await, ["run [1]/a?.csv"]);
    }

    #[tokio::test]
    async fn places_are_understood_as_everywhere() {
        let error = list("ftp://host/a.csv", CSV).await.unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Config);
        assert_eq!(error.to_string(), Location::parse("ftp://host/a.csv").unwrap_err().to_string());
        assert_eq!(list("", CSV).await.unwrap_err().kind(), crate::Kind::Config);
    }
}
