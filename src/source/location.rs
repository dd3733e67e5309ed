//! Finds and opens a source's files: a path, a directory, a glob, or the URL of an object store; plain or compressed.
//!
//! A place is a [`Location`]; this module decides which files are found there. A file that is reached twice, through a
//! link to it or to its directory, is read once. Names are shown on one line, whatever characters are in them.

mod compression;
mod left_out;
mod listing;
mod remote;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::hive;
use crate::error::{Error, Result};
use crate::store::{Location, check_regular, open_regular};
use crate::terminal::shown_name;
pub(super) use compression::plain_name;
use compression::{begins_compressed, decompressed};
pub use left_out::LeftOut;
use listing::Directory;
pub(super) use listing::{enters, links};
use remote::{Remote, remote_error};

pub(super) const WILDCARDS: [char; 3] = ['*', '?', '['];

/// One file of a source.
#[derive(Debug, Clone)]
pub struct DataFile {
    name: String,
    below: String,
    /// Its path, if it is on this machine.
    local: Option<PathBuf>,
    /// Its place in a store; `None` for a local file whose name is not valid in a store.
    place: Option<Location>,
    /// Its size as the store listed it; the size of a local file is looked up when it is read.
    listed_size: u64,
    /// What is read instead of the file's content, if set: a decompressed part of it.
    held: Option<Bytes>,
    /// Behind so many of its first lines, so many others are left out of `held`.
    passed: Option<(u64, u64)>,
    /// What its place says of all its rows, if that is not in its path.
    said: Option<Arc<BTreeMap<String, Option<String>>>>,
    /// How many bytes these are, if that is known.
    passed_bytes: Option<u64>,
    /// Whether something was found after its compressed data, which is not read.
    more: Arc<AtomicBool>,
}

impl DataFile {
    /// The file of `bytes` bytes at `path` in the Delta table `table`.
    ///
    /// # Errors
    /// Kind `Config` if `path` is invalid.
    pub(super) fn in_table(table: &Location, path: &str, bytes: u64) -> Result<Self> {
        let (name, place) = (table.show(path), table.join(path)?);
        let local = place.local_path().map(Path::to_path_buf);
        Ok(Self::at(name, path.to_owned(), local, Some(place), bytes))
    }

    /// The file `name`, whose path below what was asked for is `below`, on this machine or in a store that lists it
    /// with `listed_size` bytes.
    fn at(name: String, below: String, local: Option<PathBuf>, place: Option<Location>, listed_size: u64) -> Self {
        Self {
            name,
            below,
            local,
            place,
            listed_size,
            held: None,
            passed: None,
            said: None,
            passed_bytes: None,
            more: Arc::default(),
        }
    }

    /// What came from elsewhere under this name, as a file.
    pub(super) fn of_bytes(name: &str, content: Vec<u8>) -> Self {
        let file = Self::at(name.to_owned(), name.to_owned(), None, None, content.len() as u64);
        Self { held: Some(content.into()), ..file }
    }

    /// Whether something was found after its compressed data, which was not read.
    pub(super) fn has_more(&self) -> bool {
        self.more.load(Ordering::Relaxed)
    }

    /// Its size in bytes as stored, or that of the part that stands for it.
    ///
    /// # Errors
    /// As opening it.
    pub(super) fn size(&self) -> Result<u64> {
        match (&self.held, &self.local) {
            (Some(held), _) => Ok(held.len() as u64),
            (None, Some(path)) => check_regular(path).map_err(|e| self.unreadable(e)),
            (None, None) => Ok(self.listed_size),
        }
    }

    /// The same file, as if `content` were all that is in it.
    pub(super) fn holding(&self, content: Vec<u8>) -> Self {
        Self { held: Some(content.into()), ..self.clone() }
    }

    /// The same file, of which `lines` lines behind the first `head` are left out.
    pub(super) fn passing_over(self, head: u64, lines: u64) -> Self {
        Self { passed: Some((head, lines)), ..self }
    }

    /// The same file, whose lines that are left out have so many bytes.
    pub(super) fn passing_bytes(self, bytes: u64) -> Self {
        Self { passed_bytes: Some(bytes), ..self }
    }

    /// The bytes of the lines that are left out, if there are some and it is known.
    pub(super) fn passed_bytes(&self) -> Option<u64> {
        self.passed_bytes
    }

    /// The lines that are left out, and how many come before them.
    pub(super) fn passes_over(&self) -> Option<(u64, u64)> {
        self.passed
    }

    /// The same file, whose place says `columns` of all its rows.
    #[cfg(feature = "mqtt")]
    pub(super) fn saying(self, columns: Arc<BTreeMap<String, Option<String>>>) -> Self {
        Self { said: Some(columns), ..self }
    }

    /// The columns that its place or its path names, and their values; `None` is null.
    pub(super) fn columns(&self) -> BTreeMap<String, Option<String>> {
        self.said.as_deref().cloned().unwrap_or_else(|| hive::columns(&self.name))
    }

    /// Whether it is a part of a text that is in memory.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Its path, if it is on this machine.
    pub(super) fn local_path(&self) -> Option<&Path> {
        self.local.as_deref()
    }

    /// Its path or URL, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path below the directory that was asked for, or that a glob was matched in, with `/` between names; its own
    /// name if it was asked for.
    pub fn below(&self) -> &str {
        &self.below
    }

    /// Opens it, decompressing gzip, bzip2 and zstd. Blocks, so it belongs on a blocking task of the runtime.
    ///
    /// # Errors
    /// Kind `Input` if it is not there, or is a pipe, a device or compressed in another way; `Io` if it cannot be read.
    pub fn open(&self) -> Result<Box<dyn BufRead + Send>> {
        if let Some(held) = &self.held {
            return Ok(Box::new(io::Cursor::new(held.clone())));
        }
        let raw: Box<dyn Read + Send> = match (&self.local, &self.place) {
            (Some(path), _) => Box::new(open_regular(path).map_err(|e| self.unreadable(e))?),
            (None, Some(place)) => Box::new(Remote::open(place, &self.name)?),
            (None, None) => return Err(self.no_place()),
        };
        decompressed(raw, &self.name, &self.more).map_err(|e| self.unreadable(e))
    }

    /// All of it, decompressed, if that is at most `most` bytes. Blocks like [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open); kind `Input` for a longer file.
    pub fn read(&self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.take(most + 1).read_to_end(&mut bytes).map_err(|e| self.unreadable(e))?;
        match bytes.len() as u64 > most {
            true => Err(Error::input(format!("{}: larger than {most} bytes, the most that is accepted", self.name))),
            false => Ok(bytes),
        }
    }

    /// The open file without decompression, if it is on this machine.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn local(&self) -> Result<Option<File>> {
        let open = |path| open_regular(path).map_err(|e| self.unreadable(e));
        self.local.as_deref().map(open).transpose()
    }

    /// The object store that it is in, its path there, and its size in bytes.
    ///
    /// # Errors
    /// Kind `Input` if it does not exist, or has a name that is not valid in a store.
    pub fn object(&self) -> Result<(Arc<dyn ObjectStore>, ObjectPath, u64)> {
        let size = match &self.local {
            Some(path) => check_regular(path).map_err(|e| self.unreadable(e))?,
            None => self.listed_size,
        };
        let place = self.place.as_ref().ok_or_else(|| self.no_place())?;
        Ok((Arc::clone(place.store()), place.prefix().clone(), size))
    }

    fn no_place(&self) -> Error {
        let name = &self.name;
        Error::input(format!(
            "{name}: a Parquet file cannot be read under such a name; expected UTF-8 on one line: rename it"
        ))
    }

    /// The error for `e`, found while reading.
    pub fn unreadable(&self, e: io::Error) -> Error {
        self.unreadable_after(e, "")
    }

    /// The error for `e`, found while reading; `after` says how far reading got (`" after 7 rows"`).
    pub(super) fn unreadable_after(&self, e: io::Error, after: &str) -> Error {
        let damaged = [io::ErrorKind::InvalidInput, io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        match e.kind() {
            io::ErrorKind::NotFound => Error::input(format!("{}: {}", self.name, self.looked())),
            io::ErrorKind::Unsupported => Error::input(format!("{}: {e}", self.name)),
            kind if damaged.contains(&kind) => {
                Error::input(format!("{}: damaged or cut off{after}", self.name)).with_source(e)
            }
            _ => Error::io(format!("{}: cannot be read{after}", self.name)).with_source(e),
        }
    }

    /// Says where a missing file was looked for.
    fn looked(&self) -> String {
        let Some(path) = &self.local else { return "no such file".into() };
        let shown = |path: &Path| shown_name(path);
        if let Ok(target) = std::fs::read_link(path) {
            return format!("no such file: a link to {}, which is not there", shown(&target));
        }
        let relative = !self.name.contains("://") && Path::new(&self.name).is_relative();
        match (relative, std::env::current_dir()) {
            (true, Ok(here)) => format!("no such file at {} (looked for from {})", shown(path), shown(&here)),
            _ => format!("no such file at {}", shown(path)),
        }
    }
}

/// The files at `path` whose names end with one of `extensions` (or with one and `.gz`, `.bz2`, `.zst` or the ending of
/// another compression), in the order of their paths.
///
/// `path` is a file, whose extension does not matter; a directory, with everything below it but names that start with
/// `.` or `_`; a glob of `*`, `?`, `[…]` and `**`, which may also match directories, and which matches a leading dot
/// only if the dot is written; or the same under `file://`, `memory://`, `s3://`, `gs://`, `az://`, `http://` or
/// `https://` (which know single files only). Stores take their credentials from the environment, as for every
/// [`Location`].
///
/// # Errors
/// Kind `Input` if there is nothing or the glob is invalid, `Config` for a URL of an unknown store, `Io` if listing
/// fails.
pub async fn list(path: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    Ok(listed(path, extensions).await?.0)
}

/// [`list`] for a source that reads whatever is there: also gives what it does not read of a directory, and warns of it.
///
/// # Errors
/// As [`list`].
pub async fn list_every(path: &str, extensions: &'static [&'static str]) -> Result<(Vec<DataFile>, LeftOut)> {
    let (files, left_out) = listed(path, extensions).await?;
    if !left_out.is_empty() {
        tracing::warn!("{}: {left_out}", shown_name(path));
    }
    Ok((files, left_out))
}

/// [`list`] for a directory that files will come to: there may be none yet.
///
/// # Errors
/// As [`list`], except that the directory may be empty.
pub(super) async fn list_there(path: &str, extensions: &'static [&'static str]) -> Result<Vec<DataFile>> {
    Ok(found(path, extensions).await?.0)
}

/// The files, of which there is at least one, and what was left out for the endings of names.
async fn listed(path: &str, extensions: &'static [&'static str]) -> Result<(Vec<DataFile>, LeftOut)> {
    let (files, left_out) = found(path, extensions).await?;
    if files.is_empty() {
        let ends = extensions.join(", ");
        let others = left_out.first.as_ref().map(|first| match left_out.files {
            1 => format!(", but {first}; a glob reads it"),
            files => format!(", but {files} others: {first}, …; a glob reads them"),
        });
        let others = others.unwrap_or_default();
        return Err(Error::input(format!("{}: no files that end with {ends} there{others}", shown_name(path))));
    }
    Ok((files, left_out))
}

async fn found(path: &str, extensions: &'static [&'static str]) -> Result<(Vec<DataFile>, LeftOut)> {
    let (mut files, left_out) = match split_glob(path) {
        Some((base, pattern)) => Directory::new(base, extensions)?.matching(pattern, path).await?,
        None => list_whole(path, extensions).await?,
    };
    files.sort_by(|a, b| a.below.cmp(&b.below));
    Ok((files, left_out))
}

/// Splits a glob into its last directory before any wildcard, with its `/`, and the pattern below it. `None` for the
/// name of something that exists, even if it contains wildcards, and for web addresses, in which `?` means something
/// else.
pub(super) fn split_glob(path: &str) -> Option<(&str, &str)> {
    let wildcard = path.find(WILDCARDS)?;
    if path.starts_with("http") || (!path.contains("://") && Path::new(path).exists()) {
        return None;
    }
    let slash = path[..wildcard].rfind(std::path::is_separator).map_or(0, |slash| slash + 1);
    Some(path.split_at(slash))
}

/// The file `path`, or the files below the directory `path`.
async fn list_whole(path: &str, extensions: &'static [&'static str]) -> Result<(Vec<DataFile>, LeftOut)> {
    let place = Location::parse(path)?;
    let name = shown_name(path);
    let below = place.prefix().filename().unwrap_or_default().to_owned();
    let local = place.local_path().map(Path::to_path_buf);
    let mut file = DataFile::at(name, below, local, Some(place.clone()), 0);
    if let Some(local) = &file.local {
        let found = std::fs::metadata(local).map_err(|e| file.unreadable(e))?;
        if !found.is_dir() {
            check_regular(local).map_err(|e| file.unreadable(e))?;
            // Its own name, not the name that a link leads to.
            if let (false, Some(name)) = (path.contains("://"), Path::new(path).file_name()) {
                file.below = shown_name(name);
            }
            return Ok((vec![file], LeftOut::default()));
        }
    } else if !path.ends_with('/') && !place.prefix().as_ref().is_empty() {
        match place.store().head(place.prefix()).await {
            Ok(found) => {
                file.listed_size = found.size;
                return Ok((vec![file], LeftOut::default()));
            }
            Err(object_store::Error::NotFound { .. }) if !path.starts_with("http") => {}
            Err(e) => return Err(remote_error(path, e)),
        }
    }
    let shown = format!("{}/", path.trim_end_matches('/'));
    Directory { place, shown, extensions }.files().await
}

/// Whether a file is compressed: by its content if it is local, else by its name. Blocks.
///
/// # Errors
/// As opening it.
pub(super) fn is_compressed(file: &DataFile) -> Result<bool> {
    match file.local()? {
        Some(open) => begins_compressed(open).map_err(|e| file.unreadable(e)),
        None => Ok(plain_name(file.name()) != file.name()),
    }
}

/// Runs `work`, which blocks, on a blocking task, and waits for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = datafusion::common::runtime::SpawnedTask::spawn_blocking(work);
    task.join_unwind().await.map_err(|_| Error::cancelled("the runtime was shut down"))?
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
            assert_eq!(blocking(move || file.read(7)).await.unwrap(), b"d/b.csv");
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

    #[tokio::test]
    async fn hidden_files_are_matched_by_a_dot_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        std::fs::create_dir_all(dir.path().join("__MACOSX/d")).unwrap();
        std::fs::create_dir_all(dir.path().join(".git")).unwrap();
        for name in ["a.csv", "._a.csv", ".DS_Store", "__MACOSX/._a.csv", "__MACOSX/d/b.csv", ".git/c.csv", "_x.csv"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(below(root.clone()).await, ["a.csv"]);
        assert_eq!(below(format!("{root}/*.csv")).await, ["_x.csv", "a.csv"]);
        assert_eq!(below(format!("{root}/**/*.csv")).await, ["_x.csv", "a.csv"]);
        assert_eq!(below(format!("{root}/*")).await, ["_x.csv", "a.csv"]);
        assert_eq!(below(format!("{root}/.*.csv")).await, ["._a.csv"]);
        assert_eq!(below(format!("{root}/__MACOSX/d/*.csv")).await, ["b.csv"]);
        assert_eq!(below(format!("{root}/._a.csv")).await, ["._a.csv"], "a file that is named is read");
    }

    #[tokio::test]
    async fn compressed_files_are_listed_also_those_that_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.csv.gz", "b.csv.zst", "c.csv.bz2", "d.csv.xz", "e.CSV.ZIP", "f.zip", "g.gz", "h.csv"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let expected = ["a.csv.gz", "b.csv.zst", "c.csv.bz2", "d.csv.xz", "e.CSV.ZIP", "h.csv"];
        assert_eq!(below(dir.path().display().to_string()).await, expected);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_links_lead_to_is_read_once() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for name in ["root/2024", "root/2025/deep", "elsewhere"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["root/2024/a.csv", "root/2025/deep/b.csv", "elsewhere/c.csv", "root/blob"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        for (target, link) in [
            ("2025", "root/0_latest"),
            ("..", "root/2025/up"),
            (".", "root/self"),
            ("2024/a.csv", "root/0.csv"),
            ("../elsewhere", "root/x"),
            ("../elsewhere", "root/y"),
            ("blob", "root/linked.csv"),
            ("loop2", "root/loop1"),
            ("loop1", "root/loop2"),
            ("gone", "root/gone_dir"),
            ("gone.csv", "root/z.csv"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let expected = ["2024/a.csv", "2025/deep/b.csv", "linked.csv", "x/c.csv", "z.csv"];
        assert_eq!(below(root.display().to_string()).await, expected);
        assert_eq!(below(format!("{}/**/*.csv", root.display())).await, expected);
        // What can only be reached through a link is read through it.
        assert_eq!(below(format!("{}/0_l*", root.display())).await, ["0_latest/deep/b.csv"]);
        let file = list(&format!("{}/z*.csv", root.display()), CSV).await.unwrap().remove(0);
        let e = blocking(move || file.read(1)).await.unwrap_err();
        assert!(e.kind() == crate::Kind::Input && e.to_string().contains("a link to gone.csv"), "{e}");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_name_of_any_bytes_is_read_and_shown_on_one_line() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let names: [&[u8]; 3] = [b"a\nb\x1b[2J.csv", b"caf\xe9.csv", b"plain.csv"];
        for name in names {
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let files = list(&dir.path().display().to_string(), CSV).await.unwrap();
        let shown: Vec<&str> = files.iter().map(DataFile::below).collect();
        assert_eq!(shown, [r"a\nb\u{1b}[2J.csv", r"caf\xe9.csv", "plain.csv"]);
        assert_eq!(files[0].object().unwrap_err().kind(), crate::Kind::Input);
        let read = blocking(move || files.iter().map(|file| file.read(100)).collect::<Result<Vec<_>>>()).await.unwrap();
        assert_eq!(read, names);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn pipes_and_devices_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("p.csv");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, what) in [("/dev/zero", "a device"), (pipe.to_str().unwrap(), "a pipe")] {
            let e = list(path, CSV).await.unwrap_err();
            assert!(e.kind() == crate::Kind::Input && e.to_string().contains(what), "{e}");
        }
        // Among other files it is one bad file, found when it is opened.
        let file = list(dir.path().to_str().unwrap(), CSV).await.unwrap().remove(0);
        assert!(file.object().unwrap_err().to_string().contains("a pipe"));
        assert!(blocking(move || file.read(1)).await.unwrap_err().to_string().contains("a pipe"));
    }

    #[tokio::test]
    async fn a_missing_file_says_where_it_was_looked_for() {
        let here = std::env::current_dir().unwrap();
        let e = list("no-such/a.csv", CSV).await.unwrap_err().to_string();
        let expected =
            format!("no-such/a.csv: no such file at {0}/no-such/a.csv (looked for from {0})", here.display());
        assert_eq!(e, expected);
        assert!(list("/no-such.csv", CSV).await.unwrap_err().to_string().ends_with("no such file at /no-such.csv"));
    }

    #[tokio::test]
    async fn a_file_longer_than_its_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv.gz");
        let mut out = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::best());
        io::copy(&mut io::repeat(b'x').take(1 << 20), &mut out).unwrap();
        out.finish().unwrap();
        let file = list(path.to_str().unwrap(), CSV).await.unwrap().remove(0);
        let e = blocking(move || file.read(1000)).await.unwrap_err();
        assert!(e.kind() == crate::Kind::Input && e.to_string().contains("larger than 1000 bytes"), "{e}");
    }
}
