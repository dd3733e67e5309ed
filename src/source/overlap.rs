//! Whether a source and a table lie in each other, however their paths are spelled.

use super::location::{enters, split_glob};
use crate::store::Location;
use crate::table::DATA;

/// What is wrong if a run reads `source`, a path, a glob or a URL, and writes the table `sink`: a run would read its own
/// table the next time, or write among its input. Links, `..` and `file://` are resolved; `None` if the two are apart.
pub fn overlap(source: &str, sink: &str) -> Option<&'static str> {
    let (fixed, pattern) = split_glob(source).map_or((source, None), |(fixed, pattern)| (fixed, Some(pattern)));
    let fixed = if fixed.is_empty() { "." } else { fixed };
    let (read, table) = (Location::parse(fixed).ok()?, Location::parse(sink).ok()?);
    if table.holds(&read) {
        return Some(match read.holds(&table) {
            true => "the table would be written into the source",
            false => "the source lies in the directory of the table",
        });
    }
    // A glob goes into the directories below that it matches, down to those with the rows of the table.
    let below = below(&read, &table)?;
    let reached = pattern.is_none_or(|pattern| enters(pattern, &format!("{below}/{DATA}")));
    reached.then_some("the table would be written into the source")
}

/// The path of `inner` below `outer`, with `/` between names; `None` if it does not lie there.
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
            assert_eq!(of("in", sink), Some("the table would be written into the source"), "{sink}");
        }
        assert_eq!(overlap(&format!("file://{root}/in"), &at("in/t")), of("in", "in/t"));
        assert_eq!(overlap(&at("in"), &format!("file://{root}/in/t")), of("in", "in/t"));
        assert_eq!(of("out/t/data.parquet", "out/t"), Some("the source lies in the directory of the table"));
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
}
