//! `--set key.path=value` replaces a value of the file or adds one. The value `null`, which TOML does not have, removes
//! the key or the list element at that path.

use toml::de::DeValue;

use super::problem::Problem;
use super::tree::{Entry, Node, Origin, Value};

/// The value that removes a key.
const REMOVED: &str = "null";

/// Applies the overrides in order.
pub(super) fn apply(root: &mut Node, sets: &[String], problems: &mut Vec<Problem>) {
    for (index, set) in sets.iter().enumerate() {
        let problem = |message: String| Problem::new(Origin::Set(index), message);
        let Some((path, raw)) = set.split_once('=') else {
            problems.push(problem("no `=`".into()).help("write --set key.path=value"));
            continue;
        };
        let steps: Vec<&str> = path.trim().split('.').map(str::trim).collect();
        if steps.iter().any(|step| step.is_empty()) {
            problems.push(problem("a key is empty".into()).help("write --set key.path=value"));
            continue;
        }
        let changed = match raw.trim() {
            REMOVED => remove(root, &steps, index),
            raw => place(root, &steps, index).map(|place| *place = value(raw, index)),
        };
        problems.extend(changed.err());
    }
}

/// The text after `=`.
pub(super) fn raw(set: &str) -> &str {
    set.split_once('=').map_or("", |(_, raw)| raw.trim())
}

/// `raw` as TOML, or else as a plain string, so that strings need no quotes inside the shell's quotes.
fn value(raw: &str, index: usize) -> Node {
    let raw = raw.trim();
    match DeValue::parse(raw) {
        Ok(parsed) => Node::of_value(parsed.get_ref(), parsed.span()).written_in(index),
        Err(_) => Node { origin: Origin::Set(index), value: Value::Text(raw.into()) },
    }
}

/// Removes the key or the list element at the path `steps`.
fn remove(root: &mut Node, steps: &[&str], index: usize) -> Result<(), Problem> {
    let nothing = || Problem::new(Origin::Set(index), format!("there is no `{}` to remove", steps.join(".")));
    let Some((last, before)) = steps.split_last() else { return Err(nothing()) };
    match &mut place(root, before, index)?.value {
        Value::Table(entries) => {
            let at = entries.iter().position(|entry| entry.key == *last).ok_or_else(nothing)?;
            entries.remove(at);
        }
        Value::Array(items) => {
            let at = element(items, last, &before.join("."), Origin::Set(index))?;
            items.remove(at);
        }
        _ => return Err(nothing()),
    }
    Ok(())
}

/// The place in the tree that `steps` names. Missing tables and keys are created.
fn place<'a>(root: &'a mut Node, steps: &[&str], index: usize) -> Result<&'a mut Node, Problem> {
    let origin = || Origin::Set(index);
    let mut node = root;
    for (depth, step) in steps.iter().enumerate() {
        let held = node.describe();
        node = match &mut node.value {
            Value::Table(entries) => {
                let at = match entries.iter().position(|entry| entry.key == *step) {
                    Some(at) => at,
                    None => {
                        let empty = Node { origin: origin(), value: Value::Table(Vec::new()) };
                        entries.push(Entry { key: step.to_string(), key_origin: origin(), node: empty });
                        entries.len() - 1
                    }
                };
                &mut entries[at].node
            }
            Value::Array(items) => {
                let at = element(items, step, &steps[..depth].join("."), origin())?;
                &mut items[at]
            }
            _ => {
                let path = steps[..depth].join(".");
                return Err(Problem::new(origin(), format!("`{path}` is {held}, it holds no `{step}`")));
            }
        };
    }
    Ok(node)
}

/// The element of the list at `path` that `step` names: by its number, from 0, or by its `kind`.
fn element(items: &[Node], step: &str, path: &str, origin: Origin) -> Result<usize, Problem> {
    let kinds: Vec<&str> = items.iter().filter_map(|item| item.kind()).collect();
    let problem = |message: String| Problem::new(origin.clone(), message);
    if let Ok(at) = step.parse::<usize>() {
        let message = format!("`{path}` has no element {at}; it has {}, numbered from 0", items.len());
        return if at < items.len() { Ok(at) } else { Err(problem(message)) };
    }
    let of_kind = |item: &Node| item.kind() == Some(step);
    let mut found = items.iter().enumerate().filter(|(_, item)| of_kind(item)).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (None, _) => Err(problem(format!("`{path}` has no element of kind `{step}`")).accepted(step, &kinds)),
        (Some(first), Some(second)) => {
            let message = format!("`{path}` has several elements of kind `{step}`");
            Err(problem(message).help(format!("name one by its number: {path}.{first} or {path}.{second}")))
        }
    }
}
