//! `[sink]`: where the labels go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the labels go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkTable {
    /// The directory of the labelled table, local or the URL of an object store. The model and run.json lie beside it.
    pub path: String,
    /// The columns of the source that identify a row of the table. Default: those that identify it in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// The columns by whose values the data files are split, so that a query reads only those that it needs. Default:
    /// none.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// What happens to the rows of earlier runs. Default "overwrite".
    #[serde(default)]
    pub mode: SinkModeName,
    /// What an append does with rows whose keys the table has already. "skip" leaves out rows that the same model has
    /// labelled, and says how many; "replace" takes the rows that are there out of the table, whichever model labelled
    /// them; "error" fails. Without keys rows are added whatever is there. Default "skip".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_existing: Option<OnExistingName>,
    /// Whether the learned representation of each row is written too. Default false.
    #[serde(default)]
    pub embedding: bool,
    /// Whether the vectors themselves are written, as the last stage before the clusters leaves them: the embedding where an
    /// autoencoder makes one, else the features, scaled where a stage scales them. As a "list", one column `embedding` or
    /// `features`, or as "columns", one for each value under its name; of names that are there twice the later ones are
    /// followed by _2, _3. A pipeline without a kmeans stage ends with them. Default: they are not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorFormName>,
    /// Whether the reconstruction error of each row is written too, the score by which an autoencoder tells anomalies: the
    /// mean over the features of the squared difference between scaled features and their reconstruction. Default false.
    #[serde(default)]
    pub reconstruction_error: bool,
}

/// What an append does with rows whose keys the table has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExistingName {
    /// Leaves out rows that the same model has labelled.
    Skip,
    /// Takes the rows that are there out of the table.
    Replace,
    /// Fails.
    Error,
}

/// How vectors lie in the table.
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
