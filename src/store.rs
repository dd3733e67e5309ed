//! The place of a table or a file: a path or a URL as the user typed it, resolved to an object store and a prefix in
//! it.
//!
//! Plain paths, `file://` and `memory://` always work; `s3://`, `gs://`, `az://` and `http(s)://` need the feature
//! `cloud` and take their credentials from the environment, under the names that each cloud's own tools use
//! (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, ...).

mod regular;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::{Component, Path as FsPath, PathBuf};
#[cfg(feature = "cloud")]
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

use crate::error::{Error, Result};
use crate::memory;
use crate::secret;
use crate::terminal::shown_name;
pub use regular::{check_regular, open_regular, read_small};

/// All `memory://` locations of the process share one store, so that a writer and a reader meet.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// The prefix of the names of temporary files, which readers ignore.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A larger file is only read into memory if the machine has enough.
const LARGEST_UNASKED: u64 = 16 << 20;

/// A directory (or file) in an object store. Cheap to clone. It is shown as it was typed, on one line and without the
/// secrets of its URL.
///
/// ```
/// let out = dacpipe::store::Location::parse("memory:///runs/hapt")?;
/// assert_eq!(out.prefix().as_ref(), "runs/hapt");
/// assert_eq!(out.local_path(), None);
/// # Ok::<(), dacpipe::Error>(())
/// ```
///
/// It is shown as it was typed, on one line and without the secrets of its URL.
#[derive(Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: ObjectStoreUrl,
    display: String,
    local: Option<PathBuf>,
}

impl Location {
    /// Resolves a path (relative ones against the current directory) or a URL. Only reads the local directory tree, to
    /// resolve links; a `..` after a part that does not exist yet removes that part.
    ///
    /// # Errors
    /// Kind `Config` for a URL of an unknown store, and for a cloud URL in a build without the feature `cloud`.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::config("the path is empty; expected a directory or a URL"));
        }
        if !text.contains("://") {
            return Self::local(FsPath::new(text), text);
        }
        let url = Url::parse(text).map_err(|e| Error::config(format!("{text:?} is no valid URL")).with_source(e))?;
        secret::keep_of_url(&url);
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| {
                    Error::config(format!("{text:?} names another machine; expected file:///path or a plain path"))
                })?;
                Self::local(&path, text)
            }
            "memory" => Ok(Self {
                store: Arc::clone(&MEMORY) as _,
                prefix: parse_prefix(url.path(), text)?,
                url: store_url("memory://")?,
                display: shown_name(text),
                local: None,
            }),
            "mqtt" | "mqtts" => Err(Error::config(format!(
                "{}: messages of a broker are followed, expected dacpipe run --follow or --once",
                shown_name(text)
            ))),
            _ => Self::remote(&url, text),
        }
    }

    /// The place `text` in a session: in the session's own store for that URL, if one is registered, else as in
    /// [`parse`](Self::parse). Paths and `file://` are always local.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn in_session(text: &str, runtime: &RuntimeEnv) -> Result<Self> {
        let url = Url::parse(text).ok().filter(|url| text.contains("://") && url.scheme() != "file");
        let found = url.and_then(|url| Some((runtime.object_store_registry.get_store(&url).ok()?, url)));
        let Some((store, url)) = found else { return Self::parse(text) };
        let prefix = parse_prefix(url.path(), text)?;
        secret::keep_of_url(&url);
        let key = format!("{}://{}", url.scheme(), &url[url::Position::BeforeHost..url::Position::BeforePath]);
        let display = shown_name(text.trim_end_matches('/'));
        Ok(Self { store, prefix, url: store_url(&key)?, display, local: None })
    }

    /// A place in a store of the caller's own: `prefix` inside `store`, called `display` in messages.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, display: impl AsRef<str>) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let url = store_url(&format!("object-store://{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        Ok(Self { store, prefix, url, display: shown_name(display.as_ref()), local: None })
    }

    fn local(path: &FsPath, text: &str) -> Result<Self> {
        let bad = |e: String| Error::config(format!("{text:?} is no usable path: {e}"));
        let path = resolve(path).map_err(|e| bad(e.to_string()))?;
        let prefix = Path::from_absolute_path(&path)
            .map_err(|_| bad("expected UTF-8 without line breaks and other control characters".into()))?;
        let store = Arc::new(LocalFileSystem::new());
        let display = shown_name(text.trim_end_matches('/'));
        Ok(Self { store, prefix, url: ObjectStoreUrl::local_filesystem(), display, local: Some(path) })
    }

    #[cfg(feature = "cloud")]
    fn remote(url: &Url, text: &str) -> Result<Self> {
        // Variables that are not UTF-8 are ignored. A URL with http:// allows unencrypted connections.
        for (name, value) in environment() {
            let of_a_cloud = ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|cloud| name.starts_with(cloud));
            if of_a_cloud && secret::is_secret_name(&name) {
                secret::keep(&value);
            }
        }
        let plain = (url.scheme() == "http").then(|| ("allow_http".to_owned(), "true".to_owned()));
        let (store, prefix) = object_store::parse_url_opts(url, environment().chain(plain)).map_err(|e| {
            Error::config(format!(
                "cannot use {text:?}; expected a path, file://, memory://, s3://, gs://, az:// or http(s)://"
            ))
            .with_source(e)
        })?;
        if url.scheme().starts_with("http") && (url.query().is_some() || !url.username().is_empty()) {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                let shown = shown_name(text);
                tracing::warn!("{shown}: a user, a password and what stands after ? are not sent to the server");
            });
        }
        // In some https URLs the bucket is the first segment of the path, and each bucket is a store of its own.
        let path = url.path().trim_matches('/');
        let bucket = path.strip_suffix(prefix.as_ref()).unwrap_or_default().trim_matches('/');
        let authority = &url[url::Position::BeforeHost..url::Position::BeforePath];
        let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
        let key = match bucket {
            "" => format!("{}://{user}{authority}", url.scheme()),
            bucket => format!("{}://{bucket}.{authority}", url.scheme()),
        };
        let display = shown_name(text.trim_end_matches('/'));
        Ok(Self { store: Arc::from(store), prefix, url: store_url(&key)?, display, local: None })
    }

    #[cfg(not(feature = "cloud"))]
    fn remote(_: &Url, text: &str) -> Result<Self> {
        Err(Error::config(format!(
            "cannot use {text:?}: this build has no object stores; use a path, or build with `--features cloud`"
        )))
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path inside the store.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The URL of the store in sessions of DataFusion, once it is [registered](Self::register).
    pub fn store_url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// The absolute path, if the place is local.
    pub fn local_path(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// Whether `other` is this place or inside it, however the two are spelled.
    pub fn holds(&self, other: &Self) -> bool {
        match (&self.local, &other.local) {
            (Some(this), Some(other)) => other.starts_with(this),
            (None, None) => self.url == other.url && other.prefix.prefix_matches(&self.prefix),
            _ => false,
        }
    }

    /// Registers the store in a session, unless the session already has one for that URL.
    pub fn register(&self, runtime: &RuntimeEnv) {
        if runtime.object_store(&self.url).is_err() {
            runtime.register_object_store(self.url.as_ref(), Arc::clone(&self.store));
        }
    }

    /// The place `name` below this one, in the same store.
    pub fn join(&self, name: &str) -> Result<Self> {
        let local = self.local.as_ref().map(|root| root.join(name));
        Ok(Self { prefix: self.path(name)?, display: self.show(name), local, ..self.clone() })
    }

    /// The local file at `path`, called `display` in messages, in the same store.
    ///
    /// # Errors
    /// Kind `Input` for a name that is not valid in the store: not UTF-8, or with control characters.
    pub fn at(&self, path: PathBuf, display: &str) -> Result<Self> {
        let bad = |e| Error::input(format!("{display}: a name that cannot be used")).with_source(e);
        let prefix = Path::from_absolute_path(&path).map_err(bad)?;
        Ok(Self { prefix, display: display.to_owned(), local: Some(path), ..self.clone() })
    }

    /// `name` below this place, as a path in the store. `name` may have several segments.
    pub fn path(&self, name: &str) -> Result<Path> {
        let whole = format!("{}/{name}", self.prefix);
        Path::parse(&whole).map_err(|e| Error::input(format!("{name:?} is no valid path: {e}")))
    }

    /// `name` below this place, for messages.
    pub fn show(&self, name: &str) -> String {
        format!("{}/{}", self.display, shown_name(name))
    }

    /// The place for a message that nothing is there: also with the absolute path, if another was typed.
    pub fn looked_at(&self) -> String {
        match &self.local {
            Some(path) if !FsPath::new(&self.display).is_absolute() => {
                format!("{} ({})", self.display, shown_name(path))
            }
            _ => self.display.clone(),
        }
    }

    /// What is at this local place, or above it, instead of a directory, if anything.
    pub fn obstacle(&self) -> Option<String> {
        let path = self.local.as_deref()?;
        let (found, what) = obstacle(path)?;
        let shown = if found == path { self.display.clone() } else { shown_name(found) };
        Some(format!("{shown} is {what}"))
    }

    /// The error for `e`, found while `doing` something to the file `name`; it names what is in the way.
    fn failed(&self, doing: &str, name: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let in_way = self.local.as_ref().and_then(|root| Some(root.join(name).parent()?.to_path_buf()));
        match in_way.as_deref().and_then(obstacle) {
            Some((path, what)) => {
                let (file, path) = (self.show(name), shown_name(path));
                Error::io(format!("{doing} {file} failed: {path} is {what}; expected a directory"))
            }
            None => failed(doing, &self.show(name), e),
        }
    }

    /// The content of `name`, or `None` if there is no such file.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let failed = |e| self.failed("reading", name, e);
        if let Some(path) = self.local.as_ref().map(|root| root.join(name))
            && let Err(e) = check_regular(&path)
            && e.kind() == std::io::ErrorKind::Unsupported
        {
            return Err(Error::io(format!("{} cannot be read: {e}", self.show(name))));
        }
        match self.store.get(&self.path(name)?).await {
            Ok(found) if found.meta.size > LARGEST_UNASKED => {
                memory::available_room(&format!("reading {}", self.show(name)), u128::from(found.meta.size))?;
                Ok(Some(found.bytes().await.map_err(failed)?))
            }
            Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// The files below `name`, in no particular order.
    pub async fn list(&self, name: &str) -> Result<Vec<ObjectMeta>> {
        let path = self.path(name)?;
        self.store.list(Some(&path)).try_collect().await.map_err(|e| self.failed("listing", name, e))
    }

    /// Writes `name` unless it exists: durably and atomically. False if it exists. A local file is first written in the
    /// directory `staging` below this place.
    ///
    /// # Errors
    /// Kind `Config` for a store without this operation, `Io` if writing fails.
    pub async fn put_if_absent(&self, name: &str, content: Bytes, staging: &str) -> Result<bool> {
        if let Some(root) = &self.local {
            let (path, staging) = (root.join(name), root.join(staging));
            let written = SpawnedTask::spawn_blocking(move || create_new(&path, &content, &staging)).await;
            let written = written.map_err(|e| Error::internal("a writing thread died").with_source(e))?;
            return written.map_err(|e| self.failed("writing", name, e));
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(name)?, content.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e @ object_store::Error::NotImplemented { .. }) => Err(Error::config(format!(
                "{} cannot hold a table: its store has no put-if-absent; use a directory, s3://, gs:// or az://",
                self.display
            ))
            .with_source(e)),
            Err(e) => Err(self.failed("writing", name, e)),
        }
    }

    /// Writes `name` atomically and durably, replacing an existing file.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<()> {
        self.write(name, content).await?;
        self.sync(&[name]).await
    }

    /// Writes `name` atomically, replacing an existing file. A local file survives a loss of power once it is
    /// [synced](Self::sync).
    pub async fn write(&self, name: &str, content: Bytes) -> Result<()> {
        let written = self.store.put(&self.path(name)?, content.into()).await;
        written.map(|_| ()).map_err(|e| self.failed("writing", name, e))
    }

    /// Removes a file; it is no error if it does not exist.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed("removing", &self.show(name), e)),
        }
    }

    /// Returns once the named files would survive a loss of power. Object stores guarantee that for every file written.
    /// Many files take little longer than one: they are synced side by side.
    pub async fn sync(&self, names: &[&str]) -> Result<()> {
        let Some(root) = self.local.clone() else { return Ok(()) };
        let paths: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        let synced = SpawnedTask::spawn_blocking(move || sync_files(&root, &paths)).await;
        let synced = synced.map_err(|e| Error::internal("a writing thread died").with_source(e))?;
        synced.map_err(|e| failed("writing", &self.display, e))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Location").field("display", &self.display).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// An error of kind `Io`: what was being done, to which file, and why it failed; a full disk has its own message.
pub fn failed(doing: &str, path: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let e = e.into();
    match is_disk_full(e.as_ref()) {
        true => Error::io(format!("disk is full while {doing} {path}")),
        false => Error::io(format!("{doing} {path} failed")).with_source(e),
    }
}

fn is_disk_full(e: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(io) = e.downcast_ref::<std::io::Error>() {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        // An io::Error that wraps another error hides it from `source()`.
        return matches!(io.kind(), StorageFull | QuotaExceeded)
            || io.get_ref().is_some_and(|inner| is_disk_full(inner as &(dyn std::error::Error + 'static)));
    }
    e.source().is_some_and(is_disk_full)
}

/// The environment variables that are UTF-8.
#[cfg(feature = "cloud")]
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A path for a message that it cannot be read: also with the absolute path, if another was typed.
pub(crate) fn looked_at(path: &FsPath) -> String {
    let typed = shown_name(path);
    match std::path::absolute(path) {
        Ok(whole) if path.is_relative() => format!("{typed} ({})", shown_name(whole)),
        _ => typed,
    }
}

/// The first entry on the way from the root to `path`, inclusive, that exists and is not a directory, and what it is.
fn obstacle(path: &FsPath) -> Option<(&FsPath, String)> {
    let way: Vec<_> = path.ancestors().collect();
    way.into_iter().rev().find_map(|dir| match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => None,
        Ok(found) => Some((dir, regular::kind_of(found.file_type()).to_owned())),
        Err(_) => {
            let target = std::fs::read_link(dir).ok()?;
            Some((dir, format!("a link to {}, which is not there", shown_name(target))))
        }
    })
}

fn store_url(url: &str) -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(url).map_err(|e| Error::config(format!("{url:?} names no object store")).with_source(e))
}

fn parse_prefix(path: &str, text: &str) -> Result<Path> {
    Path::from_url_path(path).map_err(|e| Error::config(format!("{text:?} has no usable path")).with_source(e))
}

/// An absolute path without links and `..` in the part that exists; the rest is taken literally.
fn resolve(path: &FsPath) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut resolved = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
        if let Ok(real) = std::fs::canonicalize(&resolved) {
            resolved = real;
        }
    }
    Ok(resolved)
}

fn create_new(path: &FsPath, content: &[u8], staging: &FsPath) -> std::io::Result<bool> {
    let dir = path.parent().unwrap_or(FsPath::new("/"));
    std::fs::create_dir_all(dir)?;
    std::fs::create_dir_all(staging)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The usual permissions of a file, reduced by the umask.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(staging)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_dir(dir).map(|()| true),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e.error),
    }
}

/// Syncs the files and the directories between them and `root`, side by side: file systems write what several threads
/// wait for in one go.
fn sync_files(root: &FsPath, paths: &[PathBuf]) -> std::io::Result<()> {
    const THREADS: usize = 4;
    let mut dirs = BTreeSet::new();
    for path in paths {
        dirs.extend(path.ancestors().skip(1).take_while(|dir| dir.starts_with(root)));
    }
    let dirs: Vec<&FsPath> = dirs.into_iter().collect();
    let next = AtomicUsize::new(0);
    let sync = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match (paths.get(at), at.checked_sub(paths.len()).and_then(|at| dirs.get(at))) {
                (Some(file), _) => std::fs::File::open(file)?.sync_all()?,
                (None, Some(dir)) => sync_dir(dir)?,
                (None, None) => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = (paths.len() + dirs.len()).min(THREADS);
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(sync)).collect();
        let mine = sync();
        let panicked = |_| Err(std::io::Error::other("a syncing thread panicked"));
        others.into_iter().fold(mine, |all, other| all.and(other.join().unwrap_or_else(panicked)))
    })
}

#[cfg(unix)]
fn sync_dir(dir: &FsPath) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// On other systems a directory cannot be opened, and its entries are as durable as the system makes them.
#[cfg(not(unix))]
fn sync_dir(_: &FsPath) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_path_that_does_not_exist_yet_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{}/a/../b c/d#e", dir.path().display());
        let location = Location::parse(&text).unwrap();
        let real = std::fs::canonicalize(dir.path()).unwrap();
        assert_eq!(location.local_path().unwrap(), real.join("b c/d#e"));
        assert_eq!(location.show("x"), format!("{text}/x"));
        assert!(!dir.path().join("b c").exists());
    }

    #[test]
    fn relative_paths_and_file_urls_are_local() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(Location::parse("out/hapt").unwrap().local_path().unwrap(), here.join("out/hapt"));
        let url = format!("file://{}/out", here.display());
        assert_eq!(Location::parse(&url).unwrap().local_path().unwrap(), here.join("out"));
    }

    #[test]
    fn urls_that_no_store_understands_are_errors() {
        for bad in ["", "ftp://host/x", "nonsense://", "s3://", "file://other-machine/x"] {
            let e = Location::parse(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Config, "{bad}: {e}");
        }
    }

    #[test]
    fn places_are_shown_on_one_line_and_without_secrets() {
        let shown = |text: &str| Location::parse(text).unwrap().join("x").unwrap().to_string();
        assert_eq!(shown("memory://joe:pa55w0rd@here/a?sig=hush&v=1"), "memory://joe:***@here/a?sig=***&v=1/x");
        let hostile = Location::new(Arc::new(InMemory::new()), Path::from("a"), "a\nerror: b\u{1b}[2J").unwrap();
        assert_eq!(hostile.to_string(), "a\\nerror: b\\u{1b}[2J");
        let here = Location::parse("nope").unwrap();
        let whole = std::env::current_dir().unwrap().join("nope");
        assert_eq!(here.looked_at(), format!("nope ({})", whole.display()));
        assert_eq!(Location::parse("/nope").unwrap().looked_at(), "/nope");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_in_the_way_of_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for (name, what) in [
            ("file", "is a file"),
            ("pipe", "is a pipe"),
            ("link", "is a file"),
            ("dangling", "is a link to nowhere, which is not there"),
        ] {
            for below in ["", "/t"] {
                let place = Location::parse(&format!("{}{below}", at(name).display())).unwrap();
                let found = place.obstacle().unwrap();
                assert!(found.ends_with(what), "{name}{below}: {found}");
                let e = place.put_if_absent("log/0", Bytes::from("x"), "log").await.unwrap_err();
                assert!(e.kind() == Kind::Io && e.to_string().contains(what), "{name}{below}: {e}");
                assert!(e.to_string().ends_with("expected a directory"), "{e}");
            }
        }
        let e = Location::parse(&at("file").display().to_string()).unwrap().list("log").await.unwrap_err();
        assert!(e.to_string().contains("file is a file; expected a directory"), "{e}");
        assert_eq!(Location::parse(&at("not/yet").display().to_string()).unwrap().obstacle(), None);
    }

    #[test]
    fn a_path_of_control_characters_is_refused_on_one_line() {
        for bad in ["a\nb", "a\u{1b}[2Jb", "a\tb"] {
            let e = Location::parse(bad).unwrap_err();
            assert!(e.kind() == Kind::Config && !e.to_string().contains(char::is_control), "{e}");
        }
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn buckets_are_told_apart() {
        let url = |text| Location::parse(text).unwrap().store_url().to_string();
        assert_eq!(url("gs://one/x/y"), "gs://one/");
        assert_ne!(
            url("https://account.blob.core.windows.net/one/x"),
            url("https://account.blob.core.windows.net/two/x")
        );
    }

    #[tokio::test]
    async fn put_if_absent_writes_once() {
        let dir = tempfile::tempdir().unwrap();
        for place in [dir.path().to_str().unwrap(), "memory:///put_if_absent"] {
            let location = Location::parse(place).unwrap();
            assert!(location.put_if_absent("log/0", Bytes::from("one"), "log").await.unwrap());
            assert!(!location.put_if_absent("log/0", Bytes::from("two"), "log").await.unwrap());
            assert_eq!(location.get("log/0").await.unwrap().unwrap(), "one");
            assert_eq!(location.list("log").await.unwrap().len(), 1);
            location.delete("log/0").await.unwrap();
            location.delete("log/0").await.unwrap();
            assert_eq!(location.get("log/0").await.unwrap(), None);
        }
    }

    #[test]
    fn a_full_disk_is_named_through_every_wrapper() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let store = object_store::Error::Generic { store: "local", source: Box::new(full) };
        let parquet = parquet::errors::ParquetError::External(Box::new(std::io::Error::other(store)));
        assert_eq!(failed("writing", "t/x", parquet).to_string(), "disk is full while writing t/x");
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(failed("writing", "t/x", other).to_string(), "writing t/x failed: permission denied");
    }
}
