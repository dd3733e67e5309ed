//! docs/promises.md and RELIABILITY.md name a test for every promise: each must be there.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `dir`.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

/// What stands between backticks in the last column of each row of the tables.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut tests = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        if !line.starts_with('|') || cells.len() < 3 || line.starts_with("|---") {
            continue;
        }
        let last = cells[cells.len() - 1];
        tests.extend(last.split('`').skip(1).step_by(2).map(|name| (number, name.to_string())));
    }
    tests
}

#[test]
fn every_promise_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let mut tests: Vec<_> =
        named(&text).into_iter().map(|(line, test)| (format!("docs/promises.md:{line}"), test)).collect();
    assert!(tests.len() > 50, "only {} tests are named", tests.len());
    // This page names them in its sentences.
    let text = fs::read_to_string(root.join("RELIABILITY.md")).unwrap();
    let words = text.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && !word.contains(' '));
    let words: Vec<_> = words.filter(|word| *word != "file::test").map(str::to_owned).collect();
    assert!(words.len() > 10, "{words:?}");
    tests.extend(words.into_iter().map(|test| ("RELIABILITY.md".to_owned(), test)));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let code: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(root).unwrap().with_extension("").display().to_string();
            (inside, fs::read_to_string(path).unwrap())
        })
        .collect();
    let mut missing = Vec::new();
    for (line, test) in tests {
        // `sources::a_name`: a function of tests/sources.rs; `src/source/clock::a_name`: one beside the code.
        let there = test.rsplit_once("::").is_some_and(|(file, function)| {
            let paths = [file.to_string(), format!("tests/{file}"), format!("tests/{file}/mod"), format!("{file}/mod")];
            let function = format!("fn {function}(");
            code.iter().any(|(path, text)| paths.contains(path) && text.contains(&function))
        });
        if !there {
            missing.push(format!("{line}: no test {test}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
