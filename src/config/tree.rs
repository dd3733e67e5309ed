//! A pipeline file as a tree of values, each with its place in the file.

use std::ops::Range;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

/// Where a value or a key was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Bytes of the pipeline file.
    File(Range<usize>),
    /// The override of this number.
    Set(usize),
    /// No place: the file itself could not be read.
    Nowhere,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
}

/// What TOML can hold. Integers keep their full range until their type is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, where it was written, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_origin: Origin,
    pub node: Node,
}

impl Node {
    pub fn of_table(table: &DeTable<'_>, span: Range<usize>) -> Self {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_origin: Origin::File(key.span()),
                node: Node::of_value(value.get_ref(), value.span()),
            })
            .collect();
        // the parser sorts by name; the order of the file reads better in lists
        entries.sort_by_key(|entry| match &entry.key_origin {
            Origin::File(span) => span.start,
            _ => usize::MAX,
        });
        Self { origin: Origin::File(span), value: Value::Table(entries) }
    }

    pub fn of_value(value: &DeValue<'_>, span: Range<usize>) -> Self {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
            DeValue::Array(items) => {
                Value::Array(items.iter().map(|item| Node::of_value(item.get_ref(), item.span())).collect())
            }
            DeValue::Table(table) => return Node::of_table(table, span),
        };
        Self { origin: Origin::File(span), value }
    }

    /// The same value, all of it written in override `set`.
    pub fn written_in(mut self, set: usize) -> Self {
        self.origin = Origin::Set(set);
        match &mut self.value {
            Value::Array(items) => {
                for item in items {
                    *item = item.clone().written_in(set);
                }
            }
            Value::Table(entries) => {
                for entry in entries {
                    entry.key_origin = Origin::Set(set);
                    entry.node = entry.node.clone().written_in(set);
                }
            }
            _ => {}
        }
        self
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value of the key `kind` of a table.
    pub fn kind(&self) -> Option<&str> {
        self.get("kind").and_then(Node::text)
    }

    /// The value at `path` (`split.fit`, `stage[3].labels`, `stage.kmeans.k`), or else the nearest table around it; and
    /// whether it is the value.
    pub fn at(&self, path: &str) -> (&Node, bool) {
        let mut node = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = match step.parse::<usize>() {
                Ok(index) => node.items().get(index),
                Err(_) => node.get(step).or_else(|| node.items().iter().find(|item| item.kind() == Some(step))),
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }

    /// Calls `f` with every string value.
    pub fn for_each_text(&mut self, f: &mut dyn FnMut(&mut String, &Origin)) {
        match &mut self.value {
            Value::Text(text) => f(text, &self.origin),
            Value::Array(items) => items.iter_mut().for_each(|item| item.for_each_text(f)),
            Value::Table(entries) => entries.iter_mut().for_each(|entry| entry.node.for_each_text(f)),
            _ => {}
        }
    }

    /// The value without its origins. A number that JSON cannot hold becomes null.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Text(text) | Value::Datetime(text) => Json::from(text.as_str()),
            Value::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
                (Ok(number), _) => Json::from(number),
                (_, Ok(number)) => Json::from(number),
                _ => Json::Null,
            },
            Value::Float(number) => Json::from(*number),
            Value::Bool(flag) => Json::from(*flag),
            Value::Array(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => {
                Json::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// The value for messages where a word is expected: a string in quotes, or a description of another type.
    pub fn word(&self) -> String {
        match self.text() {
            Some(text) => format!("{text:?}"),
            None => self.describe(),
        }
    }

    /// A description of the value for messages: `the string "x"`, `3.5`, `a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Text(text) => format!("the string {text:?}"),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Bool(flag) => flag.to_string(),
            Value::Datetime(datetime) => format!("the date {datetime}"),
            Value::Array(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_value_or_to_the_table_around_it() {
        let text = "seed = 7\n[[stage]]\nkind = \"scale\"\n[[stage]]\nkind = \"kmeans\"\nk = 12\n";
        let tree = Node::of_table(DeTable::parse(text).unwrap().get_ref(), 0..0);
        let k = text.find("12").map(|at| at..at + 2).unwrap();
        for path in ["stage[1].k", "stage.1.k", "stage.kmeans.k"] {
            let (node, found) = tree.at(path);
            assert!(found && node.origin == Origin::File(k.clone()), "{path}: {node:?}");
        }
        let (table, found) = tree.at("stage[1].n_init");
        assert!(!found && table.kind() == Some("kmeans"), "{table:?}");
        assert_eq!(tree.at("sink.path"), (&tree, false));
    }
}
