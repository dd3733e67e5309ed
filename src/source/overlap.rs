//! Whether a source and a table lie in each other, however their paths are spelled.

use crate::store::Location;

/// What is wrong if a run reads `source`, a path, a glob or a URL, and writes the table `sink`: a run would read its own
/// table the next time, or write among its input. Links, `..` and `file://` are resolved; `None` if the two are apart.
pub fn overlap(source: &str, sink: &str) -> Option<&'static str> {
    let wildcard = source.find(super::location::WILDCARDS);
    let fixed = match wildcard {
        None => source,
        Some(at) => match source[..at].rfind('/') {
            Some(0) => "/",
            Some(slash) => &source[..slash],
            None => ".",
        },
    };
    let (read, table) = (Location::parse(fixed).ok()?, Location::parse(sink).ok()?);
    // A glob goes into directories below only where it says so.
    let goes_below = wildcard.is_none() || source.contains("**");
    if table.holds(&read) {
        return Some(match read.holds(&table) {
            true => "the table would be written into the source",
            false => "the source lies in the directory of the table",
        });
    }
    (goes_below && read.holds(&table)).then_some("the table would be written into the source")
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
        assert_eq!(of("in/**/*.csv", "in/deep"), of("in", "in/t"));
        for (source, sink) in
            [("in", "in2"), ("in", "out"), ("in/a.csv", "in/t"), ("in/*.csv", "in/t"), ("in/a", "in/ab")]
        {
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
