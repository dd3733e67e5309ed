//! `[split]`: which rows are learned from, and which are assigned to clusters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of `split.fit` and `split.label` that means every row.
pub(in crate::config) const ALL: &str = "all";

/// How a value of the split column that is itself called all is written.
pub(in crate::config) const THE_VALUE_ALL: &str = "\"all\"";

/// Which rows are learned from, and which are assigned to clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTable {
    /// The value of the split column whose rows are learned from, or "all" for every row; a value that is itself called
    /// all is written '"all"'. Default "all".
    #[serde(default = "default_split")]
    pub fit: String,
    /// The value of the split column whose rows are assigned to clusters and evaluated, or "all", as for `fit`. Default
    /// "all".
    #[serde(default = "default_split")]
    pub label: String,
    /// The split column: a key, the label, the source's split, or a column that `keep` carries along unchanged.
    /// Default: the source's split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

fn default_split() -> String {
    ALL.into()
}

impl Default for SplitTable {
    fn default() -> Self {
        Self { fit: default_split(), label: default_split(), column: None }
    }
}
