//! Checks that involve more than one value of a pipeline file: order of stages, columns, splits.

mod deep_clustering;
mod kmeans;
mod sink;
mod sizes;
mod source;
mod stream;

use std::collections::HashSet;

use super::Draft;
use super::columns::{class_columns, of_numbers, part_columns, split_column};
use super::file::*;
use super::plan;
use super::problem::Problem;
use super::size::Size;
use super::tree::{Node, Origin, Value};
use crate::label::Begin;
use crate::scale::ScaleMethod;
use crate::secret;
use crate::signal::hapt561;
use crate::signal::window::Within;
use crate::source::hapt;
use crate::stage::{EMBEDDING, FEATURES, LABEL_COLUMNS, RECONSTRUCTION_ERROR};

/// The stages in the order in which they can follow each other.
pub(super) const ORDER: [&str; 8] =
    ["window", "features", "scale", "feature_weights", "manifold", "autoencoder", "deep_clustering", "kmeans"];

/// The least memory limit that holds the buffers of one stage.
const LEAST_MEMORY: Size = Size::mebibytes(64);

/// The columns that dacpipe itself adds: with the windows, the stages and the table.
const MADE: [&str; 9] = [
    "start",
    FEATURES,
    EMBEDDING,
    LABEL_COLUMNS[0],
    LABEL_COLUMNS[1],
    LABEL_COLUMNS[2],
    RECONSTRUCTION_ERROR,
    "model",
    "labelled_at",
];

/// Required keys whose values are checked here. Where one is missing, that has been reported already.
const FILLED: [&str; 3] = [".path", ".length", ".set"];

/// Words that cannot name a table in `FROM` without quotes.
const RESERVED: [&str; 32] = [
    "all", "and", "as", "by", "case", "create", "cross", "delete", "distinct", "drop", "exists", "false", "from",
    "full", "group", "having", "in", "insert", "join", "limit", "not", "null", "on", "or", "order", "select", "table",
    "true", "union", "values", "where", "with",
];

/// Reports values of `draft` that contradict each other, at their places in `tree`.
pub(super) fn check(draft: &Draft, tree: &Node, problems: &mut Vec<Problem>) {
    let reported = problems.iter().map(|problem| problem.origin.clone()).collect();
    let mut check = Check { draft, tree, problems, reported };
    check.general();
    check.source();
    check.missing();
    check.order();
    check.recordings();
    check.features();
    check.feature_weights();
    check.manifold();
    check.network();
    check.kmeans();
    check.deep_clustering();
    check.sizes();
    check.page();
    check.split();
    check.sink();
    check.stream();
}

struct Check<'a> {
    draft: &'a Draft,
    tree: &'a Node,
    problems: &'a mut Vec<Problem>,
    /// Where problems of the file's shape have been reported.
    reported: HashSet<Origin>,
}

impl Check<'_> {
    fn at(&mut self, path: &str, message: impl Into<String>, help: &str) {
        self.report(path, message, |problem| if help.is_empty() { problem } else { problem.help(help) });
    }

    /// Reports that `name`, the value of `path`, is not one of the `accepted` names.
    fn unknown<S: AsRef<str>>(&mut self, path: &str, message: String, name: &str, accepted: &[S]) {
        self.report(path, message, |problem| problem.accepted(name, accepted));
    }

    fn no_column(&mut self, path: &str, name: &str, columns: &[String]) {
        self.unknown(path, format!("the source yields no column {name:?}"), name, columns);
    }

    /// Reports a problem of the value at `path`, unless that value stands in for one that was reported already.
    fn report(&mut self, path: &str, message: impl Into<String>, with: impl FnOnce(Problem) -> Problem) {
        let (node, found) = self.tree.at(path);
        let is_value = !matches!(node.value, Value::Table(_));
        if (found && is_value && self.reported.contains(&node.origin))
            || (!found && FILLED.iter().any(|key| path.ends_with(key)))
        {
            return;
        }
        self.problems.push(with(Problem::new(node.origin.clone(), message)));
    }

    fn general(&mut self) {
        if let Some(name) = &self.draft.name {
            let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !letters || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                let help = "lowercase letters, digits and _, not starting with a digit";
                self.at("name", format!("{name:?} cannot name a table in SQL"), help);
            } else if RESERVED.contains(&name.as_str()) {
                self.at("name", format!("{name:?} cannot name a table in SQL: it is a word of SQL"), "");
            } else if secret::redacted(name) != name.as_str() {
                let help = "tables and models carry the name, for all to read";
                self.at("name", "the name has the value of a secret variable in it", help);
            }
        }
        if let Some(limit) = self.draft.memory_limit
            && limit < LEAST_MEMORY
        {
            self.at(
                "memory_limit",
                format!("a memory limit of {limit} is too small"),
                &format!("at least {LEAST_MEMORY}"),
            );
        }
    }

    fn not_empty(&mut self, path: &str, value: &str) {
        if value.trim().is_empty() {
            self.at(path, format!("`{path}` is empty"), "");
        }
    }

    /// Where the first stage of `kind` is.
    fn position(&self, kind: &str) -> Option<usize> {
        self.draft.stages.iter().position(|(name, _)| name.as_deref() == Some(kind))
    }

    /// Whether every stage has a known kind. If not, a stage that seems to be missing may just have a misspelt kind.
    fn kinds_known(&self) -> bool {
        self.draft.stages.iter().all(|(kind, _)| kind.as_deref().is_some_and(|kind| ORDER.contains(&kind)))
    }

    /// Whether a stage finds clusters.
    fn has_clusters(&self) -> bool {
        self.position("kmeans").or(self.position("deep_clustering")).is_some()
    }

    fn order(&mut self) {
        let ranks: Vec<Option<usize>> = self.draft.stages.iter().map(|(kind, _)| rank(kind.as_deref())).collect();
        for (at, rank) in ranks.iter().enumerate() {
            let Some(rank) = *rank else { continue };
            let before = |wrong: &dyn Fn(usize) -> bool| {
                ranks[..at].iter().flatten().copied().find(|earlier| wrong(*earlier)).map(|earlier| ORDER[earlier])
            };
            let (kind, path) = (ORDER[rank], format!("stage[{at}].kind"));
            if before(&|earlier| earlier == rank).is_some() {
                self.at(&path, format!("a second {kind} stage"), "one of each kind");
            } else if let Some(earlier) = before(&|earlier| earlier > rank) {
                let help = format!("the order is {}", ORDER.join(", "));
                self.at(&path, format!("the {kind} stage comes after the {earlier} stage"), &help);
            }
        }
        let writes = |sink: &SinkTable| sink.vectors.is_some() || sink.embedding || sink.reconstruction_error;
        if !ranks.is_empty()
            && self.kinds_known()
            && !self.has_clusters()
            && !self.draft.sink.as_ref().is_some_and(writes)
        {
            let path = format!("stage[{}]", ranks.len() - 1);
            let help = "a last stage of kind = \"kmeans\" finds clusters; without one, the table can hold the vectors: \
                        [sink] vectors = \"columns\" or \"list\"";
            self.at(&path, "there is no kmeans stage", help);
        }
    }

    /// Features are computed from the windows of recordings; feature vectors are taken as they are.
    fn recordings(&mut self) {
        let (window, features) = (self.position("window"), self.position("features"));
        let Some(source) = &self.draft.source else { return };
        if let SourceTable::Parquet(_) = source {
            for (at, kind) in [(window, "window"), (features, "features")] {
                if let Some(at) = at {
                    let message = format!("a {kind} stage, but the parquet source yields feature vectors");
                    self.at(&format!("stage[{at}].kind"), message, "leave the stage out");
                }
            }
            return;
        }
        if let (None, Some(at), true) = (window, features, self.kinds_known()) {
            let help = "add a stage of kind = \"window\" before it, with its length and stride in samples";
            self.at(
                &format!("stage[{at}].kind"),
                "features are computed from windows, and no window stage cuts them",
                help,
            );
        }
    }

    fn features(&mut self) {
        let draft = self.draft;
        let window = draft.stages.iter().find_map(|(_, stage)| match stage {
            Some(StageTable::Window(window)) => Some(window),
            _ => None,
        });
        if let (Some(window), Some(SourceTable::Csv(csv))) = (window, &draft.source)
            && window.within == Within::Labels
            && csv.label.is_none()
        {
            let help = "name the source's label column, or cut whole recordings: within = \"recordings\"";
            self.at("stage.window.within", "windows within labels, but the source has no label column", help);
        }
        for (at, (_, stage)) in draft.stages.iter().enumerate() {
            let Some(StageTable::Features(table)) = stage else { continue };
            match table.set {
                FeatureSetName::Summary => self.summary(at, table, window),
                FeatureSetName::Samples => self.no_choices(at),
                FeatureSetName::Hapt561 => {
                    self.no_choices(at);
                    self.hapt561(at, window);
                }
            }
        }
    }

    /// Reports keys of stage `at` that its fixed set of features does not have.
    fn no_choices(&mut self, at: usize) {
        let tree = self.tree;
        for entry in tree.at(&format!("stage[{at}]")).0.entries() {
            if !["kind", "set"].contains(&entry.key.as_str()) {
                let message = format!("`{}` is given, but the set has no such choice", entry.key);
                self.at(&format!("stage[{at}].{}", entry.key), message, "set = \"summary\"");
            }
        }
    }

    /// The 561 features, stage `at`, are defined only for the sensors and the window length of HAPT.
    fn hapt561(&mut self, at: usize, window: Option<&WindowTable>) {
        let help = "set = \"summary\" takes any channels, rate and window";
        if let Some(window) = window
            && window.length != hapt561::WINDOW
        {
            let message = format!("hapt561 needs windows of {} samples, not {}", hapt561::WINDOW, window.length);
            self.at("stage.window.length", message, help);
        }
        let Some(SourceTable::Csv(csv)) = &self.draft.source else { return };
        if ![0, hapt561::CHANNELS].contains(&csv.channels.len()) {
            let message = format!(
                "hapt561 needs {} channels (acceleration x, y, z in g and angular velocity x, y, z in \
                 rad/s), the source has {}",
                hapt561::CHANNELS,
                csv.channels.len()
            );
            self.at(&format!("stage[{at}].set"), message, help);
        }
        if csv.rate_hz.is_some_and(|rate| rate != hapt561::RATE_HZ) {
            self.at("source.rate_hz", format!("hapt561 needs {} samples a second", hapt561::RATE_HZ), help);
        }
    }

    fn summary(&mut self, at: usize, table: &FeaturesTable, window: Option<&WindowTable>) {
        let path = |key: &str| format!("stage[{at}].{key}");
        if let Some(median) = table.median.filter(|median| median % 2 == 0) {
            self.at(&path("median"), format!("a running median of {median} samples has no middle"), "an odd number");
        }
        if let (Some(bands), Some(window)) = (table.bands, window)
            && bands > window.length / 2
        {
            let bins = window.length / 2;
            let message = format!("{bands} bands, but a window of {} samples has {bins} frequencies", window.length);
            self.at(&path("bands"), message, "fewer bands, or longer windows");
        }
        let Some(source) = &self.draft.source else { return };
        let (channels, rate_hz) = match source {
            SourceTable::Hapt(_) => (hapt::CHANNELS.map(String::from).to_vec(), Some(hapt::RATE_HZ)),
            SourceTable::Csv(csv) => (csv.channels.clone(), csv.rate_hz),
            SourceTable::Parquet(_) => return,
        };
        if let (Some(low_pass), Some(rate)) = (table.low_pass, rate_hz)
            && rate > 0.0
            && low_pass.cutoff_hz >= rate / 2.0
        {
            let message = format!("a corner of {} Hz at {rate} samples a second", low_pass.cutoff_hz);
            self.at(&path("low_pass.cutoff_hz"), message, "below half the sampling rate");
        }
        for (group, members) in table.magnitudes.iter().flatten() {
            if channels.contains(group) {
                self.at(
                    &path(&format!("magnitudes.{group}")),
                    format!("{group:?} is a channel already"),
                    "another name",
                );
            }
            for (index, name) in members.iter().enumerate().filter(|(_, name)| !channels.contains(name)) {
                let message = format!("the source has no channel {name:?}");
                self.unknown(&path(&format!("magnitudes.{group}[{index}]")), message, name, &channels);
            }
        }
    }

    fn feature_weights(&mut self) {
        let draft = self.draft;
        let Some(at) = self.position("feature_weights") else { return };
        if self.kinds_known() && self.position("autoencoder").or(self.position("deep_clustering")).is_none() {
            let help = "the weights enter the autoencoder's loss";
            self.at(&format!("stage[{at}].kind"), "feature weights, but no autoencoder stage uses them", help);
        }
        let Some(StageTable::FeatureWeights(table)) = &draft.stages[at].1 else { return };
        let path = |key: &str| format!("stage[{at}].{key}");
        let method = table.method;
        if method == WeightMethodName::Uniform {
            for key in ["labels", "k", "sample"] {
                if self.tree.at(&path(key)).1 {
                    self.at(&path(key), format!("`{key}` is given, but uniform weights come from no classes"), "");
                }
            }
        } else if table.labels.is_some() && table.k.is_some() {
            let help = "`k` counts pseudo-labels, which are made where `labels` is left out";
            self.at(&path("k"), "both `labels` and `k` are given", help);
        } else if table.labels.is_none() && table.k.is_none() && !self.has_clusters() && self.kinds_known() {
            let help = "give the number of pseudo-labels as `k`, or a column of classes as `labels`";
            self.at(&path("kind"), "pseudo-labels, but there is no kmeans stage whose `k` could be theirs", help);
        }
        if let (Some(labels), Some(source)) = (&table.labels, &draft.source) {
            let classes = class_columns(source);
            if !classes.contains(labels) {
                self.no_column(&path("labels"), labels, &classes);
            }
        }
    }

    /// A manifold is laid out for a network to learn, in as many dimensions as its embedding has.
    fn manifold(&mut self) {
        let draft = self.draft;
        if let Some(at) = self.position("kmeans")
            && let Some(StageTable::Kmeans(KmeansTable { begin: Begin::Layout, .. })) = &draft.stages[at].1
            && self.position("manifold").is_none()
            && self.kinds_known()
        {
            self.no_layout(at);
        }
        let network = self.position("autoencoder").or(self.position("deep_clustering"));
        let Some(at) = self.position("manifold") else {
            if let Some(at) = self.position("deep_clustering")
                && let Some(StageTable::DeepClustering(table)) = &draft.stages[at].1
                && table.begin == Some(Begin::Layout)
                && self.kinds_known()
            {
                self.no_layout(at);
            }
            for key in ["coordinates", "hold_out", "pretraining.coordinates"] {
                let path = format!("stage[{}].{key}", network.unwrap_or(0));
                if network.is_some() && self.kinds_known() && self.tree.at(&path).1 {
                    let key = key.rsplit('.').next().unwrap_or(key);
                    let help = "add a stage of kind = \"manifold\" before it, or leave the key out";
                    self.at(&path, format!("`{key}` is given, but no manifold stage lays rows out"), help);
                }
            }
            return;
        };
        let Some(StageTable::Manifold(table)) = &draft.stages[at].1 else { return };
        if table.weighted && self.position("feature_weights").is_none() && self.kinds_known() {
            let help = "add a stage of kind = \"feature_weights\" before it, or leave the key out";
            self.at(&format!("stage[{at}].weighted"), "`weighted` is true, but no stage learns weights", help);
        }
        let width = match network.map(|at| &draft.stages[at].1) {
            None if self.kinds_known() => {
                let help = "new rows are placed by a network that was taught the layout: kind = \"autoencoder\"";
                return self.at(&format!("stage[{at}].kind"), "a manifold, but no autoencoder stage learns it", help);
            }
            Some(Some(StageTable::Autoencoder(table))) => table.encoder.last().copied(),
            Some(Some(StageTable::DeepClustering(table))) => {
                plan::method(table).ok().and_then(|spec| spec.embedding_width())
            }
            _ => None,
        };
        if let (Some(dim), Some(width)) = (table.dim, width)
            && dim != width
        {
            let message = format!("a layout of {dim} dimensions for a representation of {width}");
            self.at(&format!("stage[{at}].dim"), message, &format!("{width}, or leave the key out"));
        }
    }

    fn no_layout(&mut self, at: usize) {
        let help = "add a stage of kind = \"manifold\" before it, or leave the key out";
        self.at(&format!("stage[{at}].begin"), "`begin` is \"layout\", but no manifold stage lays rows out", help);
    }

    fn network(&mut self) {
        let Some(at) = self.position("autoencoder") else { return };
        if let Some(StageTable::Autoencoder(table)) = &self.draft.stages[at].1
            && table.reconstruction == 0.0
            && (self.position("manifold").is_none() || table.coordinates == 0.0)
            && self.kinds_known()
        {
            let help = "a factor above 0, or a manifold stage to learn from";
            self.at(&format!("stage[{at}].reconstruction"), "the loss has no part that is not 0", help);
        }
        let scale = self.position("scale");
        let help =
            "the decoder ends in a sigmoid, so features must lie in [0, 1]: kind = \"scale\", method = \"min_max\"";
        match scale.map(|scale| (scale, &self.draft.stages[scale].1)) {
            None if self.kinds_known() => {
                self.at(&format!("stage[{at}].kind"), "no scale stage before the autoencoder", help);
            }
            Some((scale, Some(StageTable::Scale(table)))) if table.method == ScaleMethod::Standard => {
                self.at(&format!("stage[{scale}].method"), "standard scaling before an autoencoder", help);
            }
            _ => {}
        }
    }

    fn page(&mut self) {
        if self.draft.report && !self.has_clusters() {
            self.at("report", "a report is of clusters, and no kmeans stage makes any", "false, or a kmeans stage");
        }
    }

    fn split(&mut self) {
        let draft = self.draft;
        let Some(source) = &draft.source else { return };
        let split = &draft.split;
        let column = split.column.as_ref().or(split_column(source));
        if let Some(name) = &split.column {
            let columns = part_columns(source);
            let number = match source {
                SourceTable::Csv(table) => table.keep.iter().any(|keep| of_numbers(keep) && keep.name() == name),
                _ => false,
            };
            if number {
                let help = "as = \"first\", \"last\" or \"mode\" carries values along as they are written";
                let message =
                    format!("{name:?} is a mean, a least or a greatest value, which names no part of the data");
                self.at("split.column", message, help);
            } else if !columns.contains(name) {
                self.no_column("split.column", name, &columns);
            }
        }
        for (path, value) in [("split.fit", &split.fit), ("split.label", &split.label)] {
            if value == ALL {
                continue;
            }
            match (column, source) {
                (None, _) => {
                    let help = "name the source's column with `split`, or write \"all\"";
                    self.at(path, format!("rows of {value:?} are asked for, but the source has no split column"), help);
                }
                (Some(_), SourceTable::Hapt(_)) if split.column.as_deref().is_none_or(|name| name == "split") => {
                    let accepted = [ALL, "train", "test"];
                    if !accepted.contains(&value.as_str()) {
                        self.unknown(path, format!("there is no split {value:?}"), value, &accepted);
                    }
                }
                _ => {}
            }
        }
    }
}

fn rank(kind: Option<&str>) -> Option<usize> {
    ORDER.iter().position(|name| Some(*name) == kind)
}

fn source_path(source: &SourceTable) -> &str {
    match source {
        SourceTable::Hapt(table) => &table.path,
        SourceTable::Csv(table) => &table.path,
        SourceTable::Parquet(table) => &table.path,
    }
}
