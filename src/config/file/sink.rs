//! `[sink]`: where the results are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::{Mode, OnExisting};
use crate::vectors::VectorForm;

/// Where the labels go.
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
    pub mode: Mode,
    /// What an append does with rows whose keys the table has already. "skip" leaves out rows that the same model has
    /// labelled, and reports how many; "replace" removes the existing rows from the table, whichever model labelled
    /// them; "error" fails. Without keys, rows are always added. Default "skip".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_existing: Option<OnExisting>,
    /// Whether clusters keep the ids that they have in the table: new ones are matched to those of the table's newest model.
    /// False numbers them from 0 with each run, and ends the table's lineage. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_ids: Option<bool>,
    /// Whether the learned representation of each row is written too. Default false.
    #[serde(default)]
    pub embedding: bool,
    /// Whether the vectors themselves are written, as the last stage before the clusters leaves them: the embedding
    /// where an autoencoder makes one, else the features, scaled where a stage scales them. "list" writes one column,
    /// `embedding` or `features`; "columns" writes a column for each value under its name, with _2, _3 appended to
    /// names that occur again. A pipeline without a kmeans stage ends with them. Default: they are not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorForm>,
    /// Whether the reconstruction error of each row is written too, the score by which an autoencoder tells anomalies: the
    /// mean over the features of the squared difference between scaled features and their reconstruction. Default false.
    #[serde(default)]
    pub reconstruction_error: bool,
}
