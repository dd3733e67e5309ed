//! Checks the tree of a pipeline file against its JSON Schema. The schema is thereby the only list of keys, types,
//! bounds and accepted values, and all problems are found, not just the first.
//!
//! Values with a wrong name or type are removed from the tree, and [`filled`] puts neutral values in place of missing
//! required ones, so that the checks can go on with the rest.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::half_life::HalfLifeSetting;
use super::overrides;
use super::problem::{Problem, nearest};
use super::size::{SIZE_FORMAT, SPAN_FORMAT, Size};
use super::tree::{Entry, Node, Origin, Value};
use crate::device::DeviceChoice;
use crate::source::Span;

/// Reports what does not fit `schema`, and removes values with a wrong name or type from `root`.
pub(super) fn check(schema: &Json, root: &mut Node, sets: &[String], problems: &mut Vec<Problem>) {
    let mut shape = Shape { schema, sets, problems };
    shape.value(schema, root, "", "the file");
}

struct Shape<'a> {
    schema: &'a Json,
    sets: &'a [String],
    problems: &'a mut Vec<Problem>,
}

impl<'a> Shape<'a> {
    /// Whether `node`, the value of `key` in `place`, can stay.
    fn value(&mut self, schema: &'a Json, node: &mut Node, key: &str, place: &str) -> bool {
        let schema = resolve(self.schema, schema);
        if let Some(branches) = tagged(schema) {
            return self.tagged(&branches, node, key, place);
        }
        if let Some(accepted) = accepted_values(schema) {
            return self.one_of(&accepted, node, key);
        }
        if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
            let branch = branches.iter().find(|branch| fits(resolve(self.schema, branch), node));
            return match branch {
                Some(branch) => self.value(branch, node, key, place),
                None => self.wrong_type(schema, node, key),
            };
        }
        self.text_of_override(schema, node);
        if !fits(schema, node) {
            return self.wrong_type(schema, node, key);
        }
        match &mut node.value {
            Value::Table(_) => {
                self.table(schema, node, place, &[]);
                true
            }
            Value::Array(_) => self.array(schema, node, key),
            Value::Text(text) if schema["format"] == SIZE_FORMAT => match text.parse::<Size>() {
                Ok(_) => true,
                Err(message) => self.problem(node, format!("`{key}`: {message}")),
            },
            Value::Text(text) if schema["format"] == DeviceChoice::FORMAT => match text.parse::<DeviceChoice>() {
                Ok(_) => true,
                Err(message) => self.problem(node, format!("`{key}`: {message}")),
            },
            Value::Text(text) if schema["format"] == HalfLifeSetting::FORMAT => match text.parse::<HalfLifeSetting>() {
                Ok(_) => true,
                Err(message) => self.problem(node, format!("`{key}`: {message}")),
            },
            Value::Text(text) if schema["format"] == SPAN_FORMAT => match text.parse::<Span>() {
                Ok(_) => true,
                Err(message) => self.problem(node, format!("`{key}`: {message}")),
            },
            Value::Text(text) => match length_wrong(schema, text.chars().count(), "character") {
                Some(wrong) => {
                    let message = format!("`{key}` must have {wrong}, got {}", node.describe());
                    self.problem(node, message);
                    true
                }
                None => true,
            },
            _ => {
                self.bounds(schema, node, key);
                true
            }
        }
    }

    /// Reports; the value cannot stay.
    fn problem(&mut self, node: &Node, message: String) -> bool {
        self.problems.push(Problem::new(node.origin.clone(), message));
        false
    }

    fn wrong_type(&mut self, schema: &Json, node: &Node, key: &str) -> bool {
        let message = format!("`{key}` must be {}, got {}", self.expected(schema), node.describe());
        let mut problem = Problem::new(node.origin.clone(), message);
        match &node.value {
            Value::Text(text) if text.trim().parse::<f64>().is_ok() && matches!(node.origin, Origin::File(_)) => {
                problem = problem.label("write it without quotes");
            }
            Value::Table(_) if schema["type"] == "array" => problem = problem.label(format!("write [[{key}]]")),
            _ => {}
        }
        self.problems.push(problem);
        false
    }

    /// Takes the value of an override as a string where the schema asks for one, even if it looks like a number.
    fn text_of_override(&self, schema: &Json, node: &mut Node) {
        let scalar = !matches!(node.value, Value::Table(_) | Value::Array(_) | Value::Text(_));
        if let (Origin::Set(set), true, true) = (&node.origin, scalar, schema["type"] == "string") {
            let raw = self.sets.get(*set).map_or("", |set| overrides::raw(set));
            if !raw.starts_with(['[', '{']) {
                node.value = Value::Text(raw.into());
            }
        }
    }

    /// A table whose key `kind` says which of `branches` it is.
    fn tagged(&mut self, branches: &[(&'a str, &'a Json)], node: &mut Node, key: &str, place: &str) -> bool {
        let kinds: Vec<&str> = branches.iter().map(|(kind, _)| *kind).collect();
        if !matches!(node.value, Value::Table(_)) {
            let problem = Problem::new(
                node.origin.clone(),
                format!("`{key}` must be a table with a `kind`, got {}", node.describe()),
            );
            self.problems.push(match node.text() {
                Some(word) if kinds.contains(&word) => problem.help(format!("write {key} = {{ kind = {word:?} }}")),
                _ => problem.help(format!("accepted kinds: {}", kinds.join(", "))),
            });
            return false;
        }
        let Some(kind) = node.get("kind") else {
            let problem = Problem::new(node.origin.clone(), format!("{place} has no `kind`"));
            self.problems.push(problem.help(format!("accepted: {}", kinds.join(", "))));
            return true;
        };
        let branch = branches.iter().find(|(name, _)| kind.text() == Some(name));
        match branch {
            Some((kind, schema)) => {
                let place = if key.starts_with("stage[") { format!("the {kind} stage") } else { place.to_string() };
                self.table(schema, node, &place, &["kind"]);
            }
            None => {
                let (written, origin) = (kind.text().unwrap_or_default().to_string(), kind.origin.clone());
                let problem = Problem::new(origin, format!("{place} has an unknown kind, {}", kind.word()));
                self.problems.push(problem.accepted(&written, &kinds));
            }
        }
        true
    }

    /// Checks the keys of a table, except for those in `seen`, which have been checked.
    fn table(&mut self, schema: &'a Json, node: &mut Node, place: &str, seen: &[&str]) {
        let Some(properties) = schema["properties"].as_object() else {
            return self.map(&schema["additionalProperties"], node, place);
        };
        let names = names_of(properties);
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.get(name).is_none() {
                let what = match properties[name]["description"].as_str() {
                    Some(description) => first_sentence(description),
                    None => String::new(),
                };
                let misspelt = node
                    .entries()
                    .iter()
                    .find(|entry| !properties.contains_key(&entry.key) && nearest(&entry.key, &names) == Some(name));
                if misspelt.is_none() {
                    let problem = Problem::new(node.origin.clone(), format!("{place} has no `{name}`"));
                    self.problems.push(problem.help(format!("`{name}`: {what}")));
                }
            }
        }
        let Value::Table(entries) = &mut node.value else { return };
        let given: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        entries.retain_mut(|entry| self.entry(properties, entry, &given, place, seen));
    }

    /// A table of any keys, all of whose values are of one kind.
    fn map(&mut self, schema: &'a Json, node: &mut Node, place: &str) {
        if let Value::Table(entries) = &mut node.value {
            entries.retain_mut(|entry| self.value(schema, &mut entry.node, &entry.key, place));
        }
    }

    fn entry(
        &mut self,
        properties: &'a serde_json::Map<String, Json>,
        entry: &mut Entry,
        given: &HashSet<String>,
        place: &str,
        seen: &[&str],
    ) -> bool {
        if seen.contains(&entry.key.as_str()) {
            return true;
        }
        match properties.get(&entry.key) {
            Some(schema) => {
                let inner = match entry.node.value {
                    Value::Table(_) => format!("[{}]", entry.key),
                    _ => place.to_string(),
                };
                self.value(schema, &mut entry.node, &entry.key, &inner)
            }
            None => {
                // a key that the table has already is not suggested for a misspelt one
                let free: Vec<&str> = names_of(properties).into_iter().filter(|name| *name != "kind").collect();
                let open: Vec<&str> = free.iter().copied().filter(|k| !given.contains(*k)).collect();
                let problem = Problem::new(entry.key_origin.clone(), format!("unknown key `{}` in {place}", entry.key));
                let mut problem = problem.accepted(&entry.key, &free);
                if nearest(&entry.key, &open).is_none() && matches!(entry.key_origin, Origin::File(_)) {
                    problem = problem.label("");
                }
                self.problems.push(problem);
                false
            }
        }
    }

    /// The elements of a list. Tables stay at their place in it whatever they hold; a list of values stays or goes as a
    /// whole.
    fn array(&mut self, schema: &'a Json, node: &mut Node, key: &str) -> bool {
        let origin = node.origin.clone();
        let Value::Array(items) = &mut node.value else { return false };
        if let Some(wrong) = length_wrong(schema, items.len(), "element") {
            let message = format!("`{key}` must have {wrong}, got {}", items.len());
            self.problems.push(Problem::new(origin, message));
        }
        let mut good = true;
        for (index, item) in items.iter_mut().enumerate() {
            let element = format!("{key}[{index}]");
            good &= self.value(&schema["items"], item, &element, &element);
        }
        good
    }

    /// One of some words.
    fn one_of(&mut self, accepted: &[&str], node: &mut Node, key: &str) -> bool {
        if let Some(text) = node.text()
            && accepted.contains(&text)
        {
            return true;
        }
        let problem = Problem::new(node.origin.clone(), format!("`{key}` cannot be {}", node.word()));
        self.problems.push(problem.accepted(node.text().unwrap_or_default(), accepted));
        false
    }

    /// A number within its bounds.
    fn bounds(&mut self, schema: &Json, node: &Node, key: &str) {
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => return,
        };
        let bound = |name: &str| schema[name].as_f64();
        let mut wanted = Vec::new();
        let mut hold = |good: bool, what: String| {
            wanted.push(what);
            good
        };
        let mut good = bound("minimum").is_none_or(|least| hold(number >= least, format!("at least {least}")));
        good &= bound("exclusiveMinimum").is_none_or(|below| hold(number > below, format!("above {below}")));
        good &= bound("exclusiveMaximum").is_none_or(|above| hold(number < above, format!("below {above}")));
        good &= bound("maximum").is_none_or(|most| hold(number <= most, format!("at most {most}")));
        if let Value::Integer(number) = node.value
            && number > i128::from(u64::MAX)
        {
            good = hold(false, format!("at most {}", u64::MAX));
        }
        if !number.is_finite() {
            good = hold(false, "finite".into());
        }
        if !good {
            self.problem(node, format!("`{key}` must be {}, got {}", wanted.join(" and "), node.describe()));
        }
    }

    /// What a value must be, in words.
    fn expected(&self, schema: &Json) -> String {
        if schema["format"] == SIZE_FORMAT {
            return "a size such as \"1 GiB\"".into();
        }
        if schema["format"] == DeviceChoice::FORMAT {
            return DeviceChoice::ACCEPTED.into();
        }
        if schema["format"] == HalfLifeSetting::FORMAT {
            return HalfLifeSetting::ACCEPTED.into();
        }
        if schema["format"] == SPAN_FORMAT {
            return "a time such as \"20 ms\"".into();
        }
        if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
            return branches.iter().map(|branch| self.expected(branch)).collect::<Vec<_>>().join(" or ");
        }
        match schema["type"].as_str() {
            Some("string") => "a string".into(),
            Some("integer") => "a whole number".into(),
            Some("number") => "a number".into(),
            Some("boolean") => "true or false".into(),
            Some("array") => match schema["items"]["type"].as_str() {
                Some("string") => "a list of strings".into(),
                Some("integer") => "a list of whole numbers".into(),
                _ => "a list of tables".into(),
            },
            _ => "a table".into(),
        }
    }
}

/// `node` as JSON, with a neutral value for every required value that is missing.
pub(super) fn filled(root: &Json, schema: &Json, node: &Node) -> Json {
    let schema = resolve(root, schema);
    let branches = tagged(schema).unwrap_or_default();
    let kind = node.kind();
    let schema = branches.iter().find(|(name, _)| Some(*name) == kind).map_or(schema, |(_, branch)| *branch);
    let mut json = node.to_json();
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
    for name in required.filter(|name| *name != "kind" && node.get(name).is_none()) {
        json[name] = neutral(resolve(root, &schema["properties"][name]));
    }
    json
}

/// A value of the type that `schema` asks for, of which no check complains.
fn neutral(schema: &Json) -> Json {
    if let Some(words) = accepted_values(schema) {
        return words.last().copied().into();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => 1.into(),
        Some("array") => Json::Array(Vec::new()),
        _ => "".into(),
    }
}

fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

/// The keys of a table, in alphabetical order.
fn names_of(properties: &serde_json::Map<String, Json>) -> Vec<&str> {
    let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The branches of a union of tables that `kind` tells apart.
fn tagged(schema: &Json) -> Option<Vec<(&str, &Json)>> {
    let branches = schema.get("oneOf")?.as_array()?;
    branches.iter().map(|branch| Some((branch["properties"]["kind"]["const"].as_str()?, branch))).collect()
}

/// The words that an enumeration accepts.
fn accepted_values(schema: &Json) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().map(Json::as_str).collect();
    }
    let branches = schema.get("oneOf")?.as_array()?;
    branches.iter().map(|branch| branch["const"].as_str()).collect()
}

/// Whether the value is of a type that `schema` accepts.
fn fits(schema: &Json, node: &Node) -> bool {
    let is = |name: &str| match &schema["type"] {
        Json::String(only) => only == name,
        Json::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    match node.value {
        Value::Text(_) => is("string"),
        Value::Integer(_) => is("integer") || is("number"),
        Value::Float(_) => is("number"),
        Value::Bool(_) => is("boolean"),
        Value::Datetime(_) => false,
        Value::Array(_) => is("array"),
        Value::Table(_) => is("object"),
    }
}

/// What the length must be, where it is wrong.
fn length_wrong(schema: &Json, length: usize, unit: &str) -> Option<String> {
    let bound = |names: [&str; 2]| names.iter().find_map(|name| schema[*name].as_u64());
    let (least, most) = (bound(["minItems", "minLength"]), bound(["maxItems", "maxLength"]));
    let wrong = least.is_some_and(|least| (length as u64) < least) || most.is_some_and(|most| length as u64 > most);
    let plural = |n: u64| if n == 1 { format!("{n} {unit}") } else { format!("{n} {unit}s") };
    match (wrong, least, most) {
        (false, _, _) | (_, None, None) => None,
        (_, Some(least), Some(most)) if least == most => Some(format!("exactly {}", plural(least))),
        (_, Some(least), _) if (length as u64) < least => Some(format!("at least {}", plural(least))),
        (_, _, most) => Some(format!("at most {}", plural(most.unwrap_or(u64::MAX)))),
    }
}

fn first_sentence(description: &str) -> String {
    let text = description.replace('\n', " ");
    text.split_once(". ").map_or(text.trim_end_matches('.').to_string(), |(first, _)| first.to_string())
}
