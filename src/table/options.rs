//! How a run writes a table.

use super::commit::Mode;
use super::keys::OnExisting;

/// How a run writes a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether its rows are added to the existing ones or replace them.
    pub mode: Mode,
    /// The partition columns, so that a query for one value reads only its files. dacpipe distinguishes null and empty
    /// text; other engines take empty text for null, as Delta's protocol says.
    pub partition_by: Vec<String>,
    /// The key columns. An append to a table that names its own uses those.
    pub keys: Vec<String>,
    /// What an append does with rows whose keys the table has. Without keys, rows are always added.
    pub on_existing: OnExisting,
    /// The run's name, never used before in this table: letters, digits, `-`, `_` and `.`.
    pub run_id: String,
    /// The size after which another file is begun (256 MiB).
    pub file_bytes: u64,
}

impl WriteOptions {
    /// Run `run_id` appends to, or overwrites, the table.
    pub fn new(mode: Mode, run_id: impl Into<String>) -> Self {
        Self {
            mode,
            partition_by: Vec::new(),
            keys: Vec::new(),
            on_existing: OnExisting::default(),
            run_id: run_id.into(),
            file_bytes: 256 << 20,
        }
    }

    /// The same, partitioned by these columns.
    pub fn partition_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.partition_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same, with these key columns.
    pub fn keys(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.keys = columns.into_iter().map(Into::into).collect();
        self
    }

    /// The same, with this choice for rows whose keys the table has.
    pub fn on_existing(mut self, on_existing: OnExisting) -> Self {
        self.on_existing = on_existing;
        self
    }
}
