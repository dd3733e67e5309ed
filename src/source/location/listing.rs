//! Directories and globs: which files a source has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::path::Path as ObjectPath;

use super::compression::plain_name;
use super::left_out::LeftOut;
use super::{DataFile, blocking};
use crate::error::{Error, Result};
use crate::store::Location;
use crate::terminal::shown_name;

/// A directory that macOS adds to archives, with files of the same names that contain no data.
const BESIDE_FILES: &str = "__MACOSX";

/// As in a shell: a wildcard matches no `/`, and no dot at the start of a name.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Which files below a directory are a source's.
#[derive(Debug, Clone)]
enum Choice {
    /// All of it, hidden names apart.
    All,
    /// What a glob matches, and what is in the directories that it matches; the parts of the glob between `/`.
    Matching(Pattern, Vec<Pattern>),
}

impl Choice {
    fn glob(pattern: &str) -> std::result::Result<Self, glob::PatternError> {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let each = parts.iter().map(|part| Pattern::new(part)).collect::<std::result::Result<_, _>>()?;
        Ok(Self::Matching(Pattern::new(&parts.join("/"))?, each))
    }

    /// Whether the file at `below` is taken.
    fn takes(&self, below: &str, extensions: &[&str]) -> bool {
        let in_all = |below: &str| !below.split('/').any(hidden) && accepted(below, extensions);
        match self {
            Self::All => in_all(below),
            Self::Matching(pattern, _) => {
                let dirs = || below.match_indices('/').map(|(slash, _)| slash);
                let in_matched =
                    |slash: usize| pattern.matches_with(&below[..slash], OPTIONS) && in_all(&below[slash + 1..]);
                !self.left_out(below) && (pattern.matches_with(below, OPTIONS) || dirs().any(in_matched))
            }
        }
    }

    /// Whether the file at `below` is left out for the ending of its name alone, where nobody asked for names.
    fn passes_by(&self, below: &str, extensions: &[&str]) -> bool {
        matches!(self, Self::All) && !below.split('/').any(hidden) && !accepted(below, extensions)
    }

    /// Whether there may be files to take in the directory at `below`.
    fn enters(&self, below: &str) -> bool {
        match self {
            Self::All => !below.split('/').any(hidden),
            Self::Matching(_, parts) => {
                if self.left_out(below) {
                    return false;
                }
                for (i, name) in below.split('/').enumerate() {
                    match parts.get(i) {
                        Some(part) if part.as_str() == "**" => return true,
                        Some(part) if part.matches_with(name, OPTIONS) => {}
                        Some(_) => return false,
                        // Inside a directory that the whole glob matched.
                        None => return below.split('/').skip(i).all(|name| !hidden(name)),
                    }
                }
                true
            }
        }
    }

    fn left_out(&self, below: &str) -> bool {
        match self {
            Self::Matching(pattern, _) if pattern.as_str().contains(BESIDE_FILES) => false,
            _ => below.split('/').any(|name| name == BESIDE_FILES),
        }
    }
}

/// Whether a source with the glob `pattern` (`None` for everything) may take files in the directory at `below`; false
/// for an invalid glob.
pub(in crate::source) fn enters(pattern: Option<&str>, below: &str) -> bool {
    pattern.map_or(Ok(Choice::All), Choice::glob).is_ok_and(|choice| choice.enters(below))
}

/// The links below the local directory `root` that a source with the glob `pattern` (`None` for everything) would
/// follow: the path of each, and where it leads. If there are more than `most` entries, or a directory cannot be
/// listed, only the links found until then.
pub(in crate::source) fn links(root: PathBuf, pattern: Option<&str>, most: usize) -> Vec<(String, PathBuf)> {
    // An invalid glob is refused when the source is opened.
    let Ok(choice) = pattern.map_or(Ok(Choice::All), Choice::glob) else { return Vec::new() };
    const ENDINGS: [&str; 5] = [".csv", ".tsv", ".txt", ".parquet", ".pq"];
    walk(root, &choice, &ENDINGS, most).map(|walked| walked.links).unwrap_or_default()
}

fn accepted(name: &str, extensions: &[&str]) -> bool {
    let plain = plain_name(name).to_ascii_lowercase();
    extensions.iter().any(|e| plain.ends_with(e))
}

fn hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// A file that was found: its path below the directory, and on this machine; its size where a store listed it.
struct Found {
    below: String,
    path: Option<PathBuf>,
    size: u64,
}

/// A directory that is listed for files.
pub(super) struct Directory {
    pub(super) place: Location,
    /// The prefix of paths below it in messages.
    pub(super) shown: String,
    pub(super) extensions: &'static [&'static str],
}

impl Directory {
    pub(super) fn new(text: &str, extensions: &'static [&'static str]) -> Result<Self> {
        let place = Location::parse(if text.is_empty() { "." } else { text })?;
        Ok(Self { place, shown: text.to_owned(), extensions })
    }

    /// Everything below it that has one of the extensions, hidden names apart, and what was left out for its ending.
    pub(super) async fn files(&self) -> Result<(Vec<DataFile>, LeftOut)> {
        self.chosen(Choice::All).await
    }

    /// What `pattern` matches below it: files, and the files in directories. `whole` is what was asked for, for
    /// messages.
    pub(super) async fn matching(&self, pattern: &str, whole: &str) -> Result<(Vec<DataFile>, LeftOut)> {
        let bad = |e: &dyn std::fmt::Display| Error::input(format!("{whole}: not a glob: {e}"));
        if pattern.split('/').any(|part| part == "..") {
            return Err(bad(&"`..` behind a wildcard"));
        }
        let choice = match self.place.local_path() {
            Some(_) => Choice::glob(pattern),
            // In a URL everything but the wildcards may be escaped.
            None => Choice::glob(ObjectPath::from_url_path(pattern).map_err(|e| bad(&e))?.as_ref()),
        };
        self.chosen(choice.map_err(|e| bad(&e))?).await
    }

    async fn chosen(&self, choice: Choice) -> Result<(Vec<DataFile>, LeftOut)> {
        let extensions = self.extensions;
        let (found, left_out) = match self.place.local_path().map(Path::to_path_buf) {
            Some(dir) => {
                let walked = blocking(move || walk(dir, &choice, extensions, usize::MAX)).await?;
                (walked.found, walked.left_out)
            }
            None => {
                let mut found = self.objects().await?;
                let mut left_out = LeftOut::default();
                let passed = found.iter().filter(|file| choice.passes_by(&file.below, extensions));
                passed.for_each(|file| left_out.add(&file.below));
                found.retain(|file| choice.takes(&file.below, extensions));
                (found, left_out)
            }
        };
        let files = found.into_iter().map(|file| self.file(file)).collect::<Result<_>>()?;
        Ok((files, left_out.of(extensions)))
    }

    fn file(&self, Found { below, path, size }: Found) -> Result<DataFile> {
        let name = format!("{}{below}", self.shown);
        let place = match &path {
            // Some names of local files are not valid in an object store; files that are read without one can have
            // them.
            Some(path) => self.place.at(path.clone(), &name).ok(),
            None => Some(self.place.join(&below)?),
        };
        Ok(DataFile::at(name, below, path, place, size))
    }

    /// All objects below it.
    async fn objects(&self) -> Result<Vec<Found>> {
        let prefix = self.place.prefix();
        let listed: Vec<_> = self
            .place
            .store()
            .list(Some(prefix))
            .try_collect()
            .await
            .map_err(|e| Error::io(format!("{}: cannot be listed", self.place)).with_source(e))?;
        let found = |object: object_store::ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(prefix)?.collect();
            let names: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
            Some(Found { below: names.join("/"), path: None, size: object.size })
        };
        Ok(listed.into_iter().filter_map(found).collect())
    }
}

/// What is below a directory.
#[derive(Default)]
struct Walked {
    found: Vec<Found>,
    left_out: LeftOut,
    /// The links that were followed, and where they lead.
    links: Vec<(String, PathBuf)>,
}

/// The chosen files below `root`, each once. A file is taken under a link's name only if it was not reached without a
/// link, so that names do not change when a link such as `latest` is moved; of several links the first by name counts.
/// Ends after `most` entries.
fn walk(root: PathBuf, choice: &Choice, extensions: &[&str], most: usize) -> Result<Walked> {
    let unreadable = |dir: &Path, e| Error::io(format!("{}: cannot be listed", dir.display())).with_source(e);
    // Paths without links in them.
    let (mut entered, mut taken) = (HashSet::new(), HashSet::new());
    let mut links: BTreeSet<(String, PathBuf)> = BTreeSet::new();
    let mut walked = Walked::default();
    // Files that are left out for the endings of their names, unless another name leads to them.
    let mut passed: HashMap<PathBuf, String> = HashMap::new();
    let mut entries = 0;
    let mut dirs = match root.is_dir() {
        true => vec![(root, String::new())],
        false => Vec::new(),
    };
    loop {
        while let Some((dir, below)) = dirs.pop() {
            if !entered.insert(dir.clone()) {
                continue;
            }
            for entry in std::fs::read_dir(&dir).map_err(|e| unreadable(&dir, e))? {
                let entry = entry.map_err(|e| unreadable(&dir, e))?;
                entries += 1;
                if entries > most {
                    return Ok(walked);
                }
                let kind = entry.file_type().map_err(|e| unreadable(&dir, e))?;
                let (path, below) = (entry.path(), format!("{below}{}", shown_name(entry.file_name())));
                if kind.is_symlink() {
                    links.insert((below, path));
                } else if kind.is_dir() {
                    if choice.enters(&below) {
                        dirs.push((path, format!("{below}/")));
                    }
                } else if choice.passes_by(&below, extensions) {
                    passed.insert(path, below);
                } else if choice.takes(&below, extensions) && taken.insert(path.clone()) {
                    walked.found.push(Found { below, path: Some(path), size: 0 });
                }
            }
        }
        let Some((below, path)) = links.pop_first() else { break };
        match std::fs::canonicalize(&path) {
            Ok(target) if target.is_dir() => {
                if choice.enters(&below) {
                    walked.links.push((below.clone(), target.clone()));
                    dirs.push((target, format!("{below}/")));
                }
            }
            Ok(target) => {
                if choice.takes(&below, extensions) {
                    walked.links.push((below.clone(), target.clone()));
                    if taken.insert(target) {
                        walked.found.push(Found { below, path: Some(path), size: 0 });
                    }
                } else if choice.passes_by(&below, extensions) {
                    passed.entry(target).or_insert(below);
                }
            }
            // Opening it will report the error.
            Err(_) if choice.takes(&below, extensions) => walked.found.push(Found { below, path: Some(path), size: 0 }),
            Err(e) if e.kind() == ErrorKind::NotFound && choice.enters(&below) => {
                walked.left_out.add_link(&below);
            }
            Err(_) => {}
        }
    }
    passed.iter().filter(|(path, _)| !taken.contains(*path)).for_each(|(_, below)| walked.left_out.add(below));
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_left_out_for_their_endings_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["a.csv", "b.txt.gz", "c.log", "d/e.dat", "d/noext", ".hidden", "_SUCCESS"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let extensions = [".csv", ".txt"];
        let whole = || walk(dir.path().canonicalize().unwrap(), &Choice::All, &extensions, usize::MAX).unwrap();
        assert_eq!(whole().found.len(), 2);
        let expected = LeftOut { files: 3, first: Some("c.log".into()), ..LeftOut::default() };
        assert_eq!(whole().left_out, expected);
        // Where names are asked for, any ending is read, and what is not asked for is not left out.
        let logs = walk(dir.path().to_owned(), &Choice::glob("*.log").unwrap(), &extensions, usize::MAX).unwrap();
        assert_eq!((logs.found.len(), logs.left_out), (1, LeftOut::default()));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_left_out_like_what_they_lead_to() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let [root, elsewhere] = ["root", "elsewhere"].map(|name| dir.path().join(name));
        [&root, &elsewhere].iter().for_each(|place| std::fs::create_dir(place).unwrap());
        for name in ["x.csv", "y.dat"] {
            std::fs::write(elsewhere.join(name), "x").unwrap();
        }
        std::fs::write(root.join("a.csv"), "x").unwrap();
        std::fs::write(root.join("b.log"), "x").unwrap();
        // One more file that is not read, under two names; the others lead to what is read or is counted already.
        for (to, link) in [("y.dat", "c.dat"), ("y.dat", "d"), ("x.csv", "e.bak"), ("x.csv", "f.csv")] {
            symlink(elsewhere.join(to), root.join(link)).unwrap();
        }
        symlink("b.log", root.join("a.log")).unwrap();
        symlink("a.csv", root.join("latest")).unwrap();
        symlink(".", root.join("here")).unwrap();
        let left_out = || walk(root.canonicalize().unwrap(), &Choice::All, &[".csv"], usize::MAX).unwrap().left_out;
        let expected = LeftOut { files: 2, first: Some("b.log".into()), ..LeftOut::default() };
        assert_eq!(left_out(), expected);
        for gone in ["unmounted", "gone"] {
            symlink("/no-such-place/7", root.join(gone)).unwrap();
        }
        assert_eq!(left_out(), LeftOut { links: 2, first_link: Some("gone".into()), ..expected });
    }
}
