//! `[sink]`: where the results are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the results are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkTable {
    /// The directory of the labelled table, local or the URL of an object store. The model and run.json lie beside it.
    pub path: String,
    /// The columns of the source that identify a row of the table. Default: the source's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// The columns that partition the data files, so that a query reads only the files that it needs. Default: none.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// What happens to the rows of earlier runs. Default "overwrite".
    #[serde(default)]
    pub mode: SinkModeName,
    /// What an append does with rows whose keys the table has already. "skip" leaves out rows that the same model has
    /// labelled, and reports how many; "replace" removes the existing rows from the table, whichever model labelled
    /// them; "error" fails. Without keys, rows are always added. Default "skip".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_existing: Option<OnExistingName>,
    /// Whether the embedding of each row is written too. Default false.
    #[serde(default)]
    pub embedding: bool,
    /// Whether the vectors themselves are written, as the last stage before the clusters leaves them: the embedding
    /// where an autoencoder makes one, else the features, scaled where a stage scales them. "list" writes one column,
    /// `embedding` or `features`; "columns" writes a column for each value under its name, with _2, _3 appended to
    /// names that occur again. A pipeline without a kmeans stage ends with them. Default: they are not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorFormName>,
    /// Whether the reconstruction error of each row is written too, the anomaly score of an autoencoder: the mean over
    /// the features of the squared difference between scaled features and their reconstruction. Default false.
    #[serde(default)]
    pub reconstruction_error: bool,
}

/// What an append does with rows whose keys the table has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExistingName {
    /// Leaves out rows that the same model has labelled.
    Skip,
    /// Removes the existing rows from the table.
    Replace,
    /// Fails.
    Error,
}

/// How vectors are written to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VectorFormName {
    /// In one column of lists.
    List,
    /// In a column for each value.
    Columns,
}

/// What happens to the rows of earlier runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkModeName {
    /// They are replaced, in the same commit that adds the new ones.
    #[default]
    Overwrite,
    /// They stay.
    Append,
}
