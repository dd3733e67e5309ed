//! Checks README.md: its pipeline file is valid, its commands parse, its queries give the printed results, and it names
//! every module, exit code and environment variable. Its Rust is compiled by the documentation tests (src/lib.rs).

use std::path::{Path, PathBuf};

use clap::Parser;
use dacpipe::Kind;
use dacpipe::cli::Cli;
use dacpipe::config::PipelineFile;

use crate::small_run::small_run;

const README: &str = include_str!("../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks in `language`.
fn blocks(language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    README.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

/// The words of a shell command, without quotes. Escapes are not supported.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut open, mut quote) = (Vec::<String>::new(), false, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                if !open {
                    words.push(String::new());
                }
                open = true;
            }
            (None, ' ') => open = false,
            (_, c) => {
                if !open {
                    words.push(String::new());
                }
                open = true;
                words.last_mut().unwrap().push(c);
            }
        }
    }
    words
}

#[test]
fn its_pipeline_files_are_accepted() {
    let accepted = |text: &str| {
        let variable = |name: &str| Some(name.to_owned()).filter(|name| name.starts_with("MQTT_"));
        let loaded = PipelineFile::parse("README.md", text, &[], &variable);
        loaded.unwrap_or_else(|problems| panic!("{problems}"));
    };
    let (sections, files): (Vec<_>, Vec<_>) = blocks("toml").into_iter().partition(|text| text.starts_with("[stream]"));
    let (sources, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|text| text.starts_with("[source]"));
    assert_eq!((files.len(), sections.len(), sources.len()), (1, 1, 1));
    accepted(&files[0]);
    let rest = "[[stage]]\nkind = \"window\"\nlength = 64\nstride = 32\n[[stage]]\nkind = \"features\"\nset = \"summary\"\n\
                [[stage]]\nkind = \"kmeans\"\nk = 2\n[sink]\npath = \"out\"\nkeys = [\"topic_2\", \"start\"]\n";
    accepted(&format!("name = \"pump\"\n{}{rest}", sources[0]));
    // A section alone belongs to a pipeline that follows a source.
    accepted(&(std::fs::read_to_string(root().join("pipelines/sensor-csv.toml")).unwrap() + &sections[0]));
}

#[test]
fn its_commands_parse() {
    let mut commands = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| word.contains('=')).collect();
        let arguments = match words.as_slice() {
            ["dacpipe", arguments @ ..] | ["cargo", "run", "--", arguments @ ..] => arguments,
            ["cargo", "test"] => continue,
            ["cargo", "run", "--example", name] => {
                assert!(root().join("examples").join(name).with_extension("rs").exists(), "{line}");
                continue;
            }
            _ => panic!("neither dacpipe nor cargo: {line}"),
        };
        let parsed = Cli::try_parse_from(["dacpipe"].iter().chain(arguments));
        parsed.unwrap_or_else(|e| panic!("{line}\n{e}"));
        for file in arguments.iter().filter(|word| word.ends_with(".toml")) {
            assert!(root().join(file).exists(), "{line}");
        }
        commands += 1;
    }
    assert!(commands > 8, "{commands}");
}

#[test]
fn its_queries_are_answered() {
    let run = small_run();
    let queries = blocks("sql");
    assert_eq!(queries.len(), 3);
    for query in queries {
        let answer = run.sql(&query);
        assert!(answer.lines().count() > 2, "{query}\n{answer}");
    }
}

#[test]
fn its_links_lead_to_files() {
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if link.starts_with('#') {
            continue;
        }
        let file = link.split('#').next().unwrap_or_default();
        assert!(root().join(file).exists(), "{link}");
    }
}

#[test]
fn its_map_is_that_of_the_crate() {
    let library = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let map = library.split("//! ```text\n").nth(1).unwrap().split("//! ```").next().unwrap();
    let map: Vec<&str> = map.lines().map(|line| line.strip_prefix("//!").unwrap().trim_start()).collect();
    let shown = README.split("## Architecture\n\n```text\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(shown.lines().map(str::trim_start).collect::<Vec<_>>(), map);
}

#[test]
fn every_module_and_directory_has_its_place() {
    let shown = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() { format!("{name}/`") } else { format!("{name}`") }
    };
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let path = shown(&entry.unwrap().path());
        assert!(README.contains(&format!("`src/{path}")), "README.md says nothing of src/{path}");
    }
    for name in ["pipelines", "schemas", "examples", "tests", "benches", "bench"] {
        assert!(root().join(name).is_dir() && README.contains(&format!("`{name}/`")), "{name}");
    }
}

#[test]
fn every_exit_code_is_explained() {
    let kinds =
        [Kind::Config, Kind::Input, Kind::Model, Kind::Table, Kind::Io, Kind::Compute, Kind::Internal, Kind::Cancelled];
    for kind in kinds {
        assert!(README.contains(&format!("\n| {} | ", kind.exit_code())), "{kind:?}");
    }
}

/// Every `.rs` file below `dir`.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_environment_variable_is_explained() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    let mut variables = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for reader in ["env::var(\"", "env::var_os(\"", "from_env(\""] {
            let names = text.split(reader).skip(1).filter_map(|rest| rest.split_once('"'));
            variables.extend(names.map(|(name, _)| name.to_string()));
        }
    }
    assert!(variables.iter().any(|name| name == "DACPIPE_LOG"), "{variables:?}");
    // Every program may read HOME; the code in this file contains names that are not variables.
    for name in
        variables.iter().filter(|name| *name != "HOME" && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    {
        let shown = [format!("`{name}`"), format!("`{name}=1`")];
        assert!(shown.iter().any(|shown| README.contains(shown)), "README.md says nothing of {name}");
    }
}
