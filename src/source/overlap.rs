//! Checks that a source and a table do not overlap, however their paths are spelled.

use std::path::{Path, PathBuf};

use super::location::{enters, links, split_glob};
use crate::store::Location;
use crate::table::DATA;

/// What is wrong if a run reads `source`, a path, a glob or a URL, and writes the table `sink`: the next run would read
/// the table of this one, or a run would write into its input. Links, `..` and `file://` are resolved, and links inside
/// the source are followed. `None` if the two are apart.
pub fn overlap(source: &str, sink: &str) -> Option<String> {
    let (fixed, pattern) = split_glob(source).map_or((source, None), |(fixed, pattern)| (fixed, Some(pattern)));
    let fixed = if fixed.is_empty() { "." } else { fixed };
    let (read, table) = (Location::parse(fixed).ok()?, Location::parse(sink).ok()?);
    if table.holds(&read) {
        return Some(match read.holds(&table) {
            true => INTO_SOURCE.into(),
            false => "the source lies in the directory of the table".into(),
        });
    }
    // A glob enters the directories that it matches, perhaps down to the table's data files.
    let reached = |below: &str| enters(pattern, &format!("{below}/{DATA}"));
    if let Some(below) = below(&read, &table) {
        return (pattern.is_none() || reached(&below)).then(|| INTO_SOURCE.into());
    }
    let (root, table) = (read.local_path()?, table.local_path()?);
    let leads = |(link, target): &(String, PathBuf)| match table.strip_prefix(target) {
        Ok(inside) => reached(Path::new(link).join(inside).to_string_lossy().trim_end_matches('/')),
        Err(_) => target.starts_with(table),
    };
    let found = links(root.to_path_buf(), pattern, MOST_ENTRIES).into_iter().find(leads)?;
    Some(format!("the link {:?} in the source leads to the table", found.0))
}

const INTO_SOURCE: &str = "the table would be written into the source";

/// The most directory entries of a source that are searched for links.
const MOST_ENTRIES: usize = 100_000;

/// The path of `inner` below `outer`, with `/` between names; `None` if it is not below it.
fn below(outer: &Location, inner: &Location) -> Option<String> {
    if !outer.holds(inner) {
        return None;
    }
    let Some((outer, inner)) = outer.local_path().zip(inner.local_path()) else {
        let inner = inner.prefix().as_ref().strip_prefix(outer.prefix().as_ref())?;
        return Some(inner.trim_start_matches('/').to_owned());
    };
    let names = inner.strip_prefix(outer).ok()?.iter().map(|name| name.to_string_lossy().into_owned());
    Some(names.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_many_spellings() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        std::fs::create_dir_all(dir.path().join("in/deep")).unwrap();
        let at = |path: &str| format!("{root}/{path}");
        let of = |source: &str, sink: &str| overlap(&at(source), &at(sink));
        for sink in ["in", "in/", "in/t", "in/./t", "in/deep/../t", "x/../in/t", "in/not/yet/t"] {
            assert_eq!(of("in", sink), Some(INTO_SOURCE.to_owned()), "{sink}");
        }
        assert_eq!(overlap(&format!("file://{root}/in"), &at("in/t")), of("in", "in/t"));
        assert_eq!(overlap(&at("in"), &format!("file://{root}/in/t")), of("in", "in/t"));
        assert_eq!(of("out/t/data.parquet", "out/t").unwrap(), "the source lies in the directory of the table");
        for (source, sink) in [
            ("in/**/*.csv", "in/deep"),
            ("in/*", "in/t"),
            ("in/t*", "in/t"),
            ("in/d*/", "in/deep/t"),
            ("in/*/data/*/*.csv", "in/t"),
            ("in/?/*", "in/t"),
        ] {
            assert_eq!(of(source, sink), of("in", "in/t"), "{source} {sink}");
        }
        let remote = |source: &str, sink: &str| overlap(&format!("memory:///{source}"), &format!("memory:///{sink}"));
        assert_eq!(remote("o/in/*", "o/in/t"), of("in", "in/t"));
        assert_eq!(remote("o/in/*.csv", "o/in/t"), None);
        for (source, sink) in [
            ("in", "in2"),
            ("in", "out"),
            ("in/a.csv", "in/t"),
            ("in/*.csv", "in/t"),
            ("in/a", "in/ab"),
            ("in/*/*.csv", "in/t"),
        ] {
            assert_eq!(of(source, sink), None, "{source} {sink}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("link")).unwrap();
            assert_eq!(of("in", "link/t"), of("in", "in/t"));
            assert_eq!(of("link", "in/t"), of("in", "in/t"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_in_the_source_are_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["in/2024", "in/.hidden", "out/t/data", "far/deep", "own"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("out/t/data/x.parquet"), "x").unwrap();
        let of = |source: &str, sink: &str| {
            overlap(&root.join(source).display().to_string(), &root.join(sink).display().to_string())
        };
        let said = |link: &str| Some(format!("the link {link:?} in the source leads to the table"));
        symlink("../own", root.join("in/own")).unwrap();
        symlink("../../out", root.join("in/.hidden/out")).unwrap();
        assert_eq!(of("in", "out/t"), None);
        // Links to the table, to its parent, into it, to one of its files; also through another link.
        for target in ["out/t", "out", "out/t/data", "out/t/data/x.parquet"] {
            let link = root.join("in/2024/x.csv");
            symlink(root.join(target), &link).unwrap();
            assert_eq!(of("in", "out/t"), said("2024/x.csv"), "{target}");
            assert_eq!(of("in/2*", "out/t"), said("2024/x.csv"), "{target}");
            assert_eq!(of("in/3*", "out/t"), None, "{target}");
            std::fs::remove_file(link).unwrap();
        }
        symlink("../far", root.join("in/far")).unwrap();
        symlink("../../out", root.join("far/deep/out")).unwrap();
        assert_eq!(of("in", "out/t"), said("far/deep/out"));
        assert_eq!(of("in", "out/new/t"), said("far/deep/out"), "a table that is not there yet");
        assert_eq!(of("in", "elsewhere"), None);
        assert_eq!(of("in/*.csv", "out/t"), None, "a glob that goes into no directory");
    }
}
