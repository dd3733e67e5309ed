//! Imports go one way: a module may use those on its own layer or below. For the kernels, a crate of their own, the
//! compiler checks that; of the modules of one crate this test reads the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first; a module is a file or a directory directly under `src/`, or `kernel`.
const LAYERS: &[&[&str]] = &[
    &["secret"],
    &["error"],
    &["event", "memory", "seed", "terminal", "unlinked"],
    &["kernel"],
    // What unit tests share stands beside the kernels for GPUs, which use it too.
    &["cuda", "testing"],
    &["network", "loss", "signal", "metrics", "identity"],
    &["device"],
    &["kmeans"],
    &[
        "stage",
        "registry",
        "column",
        "origin",
        "scale",
        "impute",
        "weights",
        "manifold",
        "train",
        "method",
        "deep_clustering",
        "embed",
        "embed_network",
        "experts",
        "reconstruct",
        "normalize",
        "label",
        "vectors",
    ],
    &["store"],
    &["model", "table", "source", "replay", "simulate", "report"],
    &["config", "sql"],
    &["pipeline"],
    &["cli"],
    &["main", "lib"],
];

/// Crates that `kernel`, `network`, `loss`, `signal`, `identity`, `device` and `kmeans` know nothing of.
const NOT_IN_ARITHMETIC: &[&str] = &["arrow", "datafusion", "parquet", "object_store", "tokio", "std::fs", "std::net"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every file under `src/` and `kernel/src/` with its module and its text without comments and tests.
fn modules() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (src, kernel) = (root.join("src"), root.join("kernel/src"));
    let mut files = Vec::new();
    sources(&src, &mut files);
    sources(&kernel, &mut files);
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(root).unwrap();
        let module = match path.strip_prefix(&src) {
            Ok(inside) => {
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                first.trim_end_matches(".rs").to_string()
            }
            Err(_) => "kernel".to_string(),
        };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        (inside.to_path_buf(), module, code.join("\n"))
    };
    files.into_iter().map(read).collect()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|names| names.contains(&module))
        .unwrap_or_else(|| panic!("src/{module} has no layer: add it to LAYERS in tests/layering.rs and to src/lib.rs"))
}

/// The modules named after `crate::`, in `use` lines and in paths, grouped imports included.
fn used_modules(code: &str) -> BTreeSet<String> {
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        used.insert(ident(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            used.insert(ident(part));
        }
    }
    // Names re-exported at the root.
    let root = |name: String| match name.as_str() {
        "Error" | "Result" | "Kind" => "error".to_string(),
        "Seed" => "seed".to_string(),
        _ => name,
    };
    used.into_iter().map(root).filter(|n| n.chars().next().is_some_and(char::is_lowercase)).collect()
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (file, module, code) in modules() {
        // What is `crate::` in the kernels is their own.
        if ["lib", "main", "kernel"].contains(&module.as_str()) {
            continue;
        }
        for used in used_modules(&code) {
            if layer(&used) > layer(&module) {
                wrong.push(format!("{}: {module} uses {used}, which is above it", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// True if a path in `code` begins with `crate_name` (and not with a longer word that ends so, such as `narrow`).
fn names(code: &str, crate_name: &str) -> bool {
    let path = format!("{crate_name}::");
    code.match_indices(&path).any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn arithmetic_knows_no_arrow_and_no_io() {
    let mut wrong = Vec::new();
    for (file, module, code) in modules() {
        if !["kernel", "network", "loss", "signal", "identity", "device", "kmeans"].contains(&module.as_str()) {
            continue;
        }
        for name in NOT_IN_ARITHMETIC {
            if names(&code, name) {
                wrong.push(format!("{} uses {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Training, k-means and the label pass reach the machine through `device` and through the layers of a network alone.
#[test]
fn learning_and_labelling_call_no_kernel() {
    const KERNEL: &[&str] = &["Rows", "Dense", "fold", "Pool"];
    const NETWORK: &[&str] = &[
        "Architecture",
        "DenseSpec",
        "initialise",
        "Coder",
        "CoderSpec",
        "LayerSpec",
        "Parameter",
        "Buffer",
        "Builder",
        "Clock",
        "Optimizer",
        "OptimizerSpec",
    ];
    let allowed = [("kernel", KERNEL), ("network", NETWORK)];
    let mut wrong = Vec::new();
    for (file, module, code) in modules() {
        if !["train", "kmeans", "embed", "label"].contains(&module.as_str()) || file.ends_with("tests.rs") {
            continue;
        }
        for (below, allowed) in allowed {
            for path in code.split(&format!("crate::{below}::")).skip(1) {
                let names = path.split([';', '(', ')', '\n']).next().unwrap_or_default();
                let names = names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
                wrong.extend(
                    names.filter(|n| !allowed.contains(n)).map(|n| format!("{}: {below}::{n}", file.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "past the device: {wrong:?}");
}

/// What writes to standard output or standard error handles readers that are gone and full disks, redacts secrets and
/// escapes control characters: `terminal` does.
#[test]
fn nothing_but_the_terminal_prints() {
    const WAYS: [&str; 7] = ["println!", "print!", "eprintln!", "eprint!", "dbg!", "io::stdout()", "io::stderr()"];
    let mut wrong = Vec::new();
    for (file, module, code) in modules() {
        let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric());
        for way in WAYS.iter().filter(|_| module != "terminal") {
            if code.match_indices(way).any(|(at, _)| begins(at)) {
                wrong.push(format!("{}: {way}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "past src/terminal.rs: {wrong:?}");
}

#[test]
fn the_kernels_depend_on_next_to_nothing() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    assert!(!manifest.contains_key("dependencies"), "the kernels are arithmetic: {:?}", manifest["dependencies"]);
    let targets = manifest["target"].as_table().unwrap().values();
    let names: Vec<&String> = targets.flat_map(|target| target["dependencies"].as_table().unwrap().keys()).collect();
    assert_eq!(names, ["libc"]);
}

#[test]
fn unsafe_is_in_kernels_only() {
    let stray: Vec<_> = modules()
        .into_iter()
        .filter(|(file, module, code)| !file.starts_with("kernel") && module != "cuda" && code.contains("unsafe "))
        .map(|(file, ..)| file)
        .collect();
    assert!(stray.is_empty(), "unsafe outside kernel/ and src/cuda: {stray:?}");
}

#[test]
fn a_longer_word_is_no_crate() {
    assert!(names("use arrow::array;", "arrow"));
    assert!(!names("narrow::<16>(x)", "arrow"));
}

#[test]
fn the_reader_of_imports_sees_groups() {
    let used =
        used_modules("use crate::{error::{Error, Result}, kernel::Rows};\nlet s: crate::seed::Seed;\nuse crate::Kind;");
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["error", "kernel", "seed"]);
}
