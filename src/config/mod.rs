//! The pipeline file: TOML as typed structs, with every problem reported at once, at its line and column.
//!
//! [`PipelineFile::load`] reads a file, replaces `${VAR}` in its strings, applies `--set` overrides, checks the result
//! against [`pipeline_schema`], and then checks the values against each other. The result is the [`Plan`] that runs.
//!
//! ```
//! use dacpipe::config::PipelineFile;
//! let text = "name = \"x\"\n[source]\nkind = \"hapt\"\npath = \"d\"\n[[stage]]\nkind = \"kmean\"\nk = 3\n[sink]\npath = \"o\"\n";
//! let problems = PipelineFile::parse("x.toml", text, &[], &|_| None).unwrap_err();
//! assert!(problems.to_string().contains("did you mean `kmeans`?"));
//! ```

mod check;
mod columns;
mod file;
mod half_life;
mod interpolate;
mod overrides;
mod plan;
mod problem;
mod shape;
mod size;
mod tree;

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::de::DeTable;

pub use file::*;
pub use half_life::HalfLifeSetting;
pub use plan::*;
pub use problem::{Problem, Problems};
pub use size::Size;

use crate::source::{Missing, Span};
use crate::store::looked_at;
use crate::store::read_small;
use crate::terminal::shown_name;
use problem::Text;
pub(crate) use problem::nearest;
use tree::{Node, Origin};

/// The most bytes of a pipeline file.
const LARGEST_FILE: u64 = 16 << 20;

/// A pipeline file that was read and found valid.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What was typed, with defaults filled in.
    pub file: PipelineFile,
    /// What runs.
    pub plan: Plan,
    text: Arc<Text>,
}

impl Loaded {
    /// The name under which the file was read: its path.
    pub fn name(&self) -> &str {
        &self.text.name
    }

    /// The file's text, before variables and overrides.
    pub fn text(&self) -> &str {
        &self.text.text
    }
}

impl PipelineFile {
    /// Reads the pipeline file at `path` with the variables of the environment, and applies the overrides `sets`
    /// (`key.path=value`; a stage is named by its kind or by its number, from 0).
    ///
    /// # Errors
    /// Every problem of the file and of the overrides.
    pub fn load(path: impl AsRef<Path>, sets: &[String]) -> Result<Loaded, Problems> {
        let path = path.as_ref();
        let name = shown_name(path);
        let text = read_small(path, LARGEST_FILE).map_err(|e| unreadable(path, &e.to_string()))?;
        let text = String::from_utf8(text).map_err(|e| {
            let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            unreadable(path, &format!("line {line} is not UTF-8"))
        })?;
        Self::parse(&name, &text, sets, &|variable| std::env::var(variable).ok())
    }

    /// As [`load`](Self::load), of a text with its own `environment`; `name` is what problems call the file.
    ///
    /// # Errors
    /// Every problem of the text and of the overrides.
    pub fn parse(
        name: &str,
        text: &str,
        sets: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Problems> {
        let source = Arc::new(Text { name: name.into(), text: text.into(), sets: sets.to_vec() });
        let mut problems = Vec::new();
        let mut tree = syntax(text, &source)?;
        overrides::apply(&mut tree, sets, &mut problems);
        interpolate::interpolate(&mut tree, text, environment, &mut problems);
        let schema = pipeline_schema();
        shape::check(&schema, &mut tree, sets, &mut problems);
        let draft = Draft::of(&tree, &schema);
        check::check(&draft, &tree, &mut problems);
        if !problems.is_empty() {
            return Err(Problems::new(source, problems));
        }
        let at_root = |message: String| Problems::new(source.clone(), vec![Problem::new(tree.origin.clone(), message)]);
        let file: PipelineFile = serde_json::from_value(tree.to_json()).map_err(|e| at_root(e.to_string()))?;
        let plan = Plan::of(&file);
        Ok(Loaded { file, plan, text: source })
    }
}

/// The text as a tree, or all of its syntax errors.
fn syntax(text: &str, source: &Arc<Text>) -> Result<Node, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node::of_table(table.get_ref(), 0..0));
    }
    let problem = |error: &toml::de::Error| {
        let origin = Origin::File(error.span().unwrap_or(0..0));
        Problem::new(origin, format!("not TOML: {}", error.message()))
    };
    Err(Problems::new(source.clone(), errors.iter().map(problem).collect()))
}

fn unreadable(path: &Path, why: &str) -> Problems {
    let name = shown_name(path);
    let mut problem = Problem::new(Origin::Nowhere, format!("cannot read {}: {why}", looked_at(path)));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let written = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut others: Vec<String> = beside
        .filter(|other| other.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|other| Some(other.file_name()?.to_string_lossy().into_owned()))
        // A file that exists but cannot be read needs no suggestion of a similar name.
        .filter(|other| *other != written)
        .collect();
    others.sort();
    if let Some(near) = problem::nearest(&written, &others) {
        problem = problem.help(format!("there is {}", shown_name(folder.join(near))));
    }
    Problems::new(Arc::new(Text { name, text: String::new(), sets: Vec::new() }), vec![problem])
}

/// The parts of a file that can be read, so that problems in one part do not hide problems in another. A part that
/// lacks a required value is read without it.
struct Draft {
    name: Option<String>,
    memory_limit: Option<Size>,
    report: bool,
    missing: Missing,
    missing_within: Option<Span>,
    source: Option<SourceTable>,
    /// For each stage its kind, where it has one, and its table, where it can be read.
    stages: Vec<(Option<String>, Option<StageTable>)>,
    split: SplitTable,
    sink: Option<SinkTable>,
    stream: Option<StreamTable>,
}

impl Draft {
    fn of(tree: &Node, schema: &Json) -> Self {
        let section = |key: &str| Some(shape::filled(schema, &schema["properties"][key], tree.get(key)?));
        let stages = tree.get("stage").map(Node::items).unwrap_or_default();
        let stage = |node: &Node| {
            let kind = node.kind().map(String::from);
            (kind, read(Some(shape::filled(schema, &schema["$defs"]["StageTable"], node))))
        };
        Self {
            name: read(section("name")),
            memory_limit: read(section("memory_limit")),
            report: read(section("report")).unwrap_or_default(),
            missing: read(section("missing")).unwrap_or_default(),
            missing_within: read(section("missing_within")),
            source: read(section("source")),
            stages: stages.iter().map(stage).collect(),
            split: read(section("split")).unwrap_or_default(),
            sink: read(section("sink")),
            stream: read(section("stream")),
        }
    }
}

fn read<T: DeserializeOwned>(json: Option<Json>) -> Option<T> {
    serde_json::from_value(json?).ok()
}
