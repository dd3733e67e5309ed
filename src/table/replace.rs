//! Replaces rows by those of a run: files that contain replaced rows are rewritten without them.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{concat_batches, filter_record_batch, not};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use super::clusters::gone_schema;
use super::files::FileSet;
use super::keys::RunKeys;
use super::log::{DataFile, Snapshot};
use super::provider::LabelTable;
use crate::error::Result;
use crate::store::Location;

/// Files of a table that were rewritten without the rows that a run replaces.
#[derive(Debug)]
pub(super) struct Replaced {
    rewritten: Vec<DataFile>,
    kept: Vec<DataFile>,
    gone: RecordBatch,
}

impl Replaced {
    /// Rewrites the files of `base` that have rows with one of `keys`, without these rows. `files` gives the writer for
    /// each file, by its number.
    pub(super) async fn write(
        location: &Location,
        base: &Snapshot,
        keys: &RunKeys,
        files: impl Fn(usize) -> Result<FileSet>,
    ) -> Result<Self> {
        let mut rewritten = Vec::new();
        let mut kept = Vec::new();
        let mut gone = Vec::new();
        for file in &base.files {
            let alone = Snapshot { files: vec![file.clone()], ..base.clone() };
            let table = Arc::new(LabelTable::of(location, alone));
            let mut here = Vec::new();
            let mut rows = SessionContext::new().read_table(table.clone())?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let written = keys.written(&batch)?;
                if written.true_count() > 0 {
                    here.push(super::clusters::gone_of(&filter_record_batch(&batch, &written)?)?);
                }
            }
            if here.is_empty() {
                continue;
            }
            gone.append(&mut here);
            let mut rest = files(rewritten.len())?;
            // In one partition of the plan, rows keep their order.
            let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
            let mut rows = context.read_table(table)?.execute_stream().await?;
            while let Some(batch) = rows.next().await {
                let batch = batch?.with_schema(Arc::clone(&base.schema))?;
                let stays: BooleanArray = not(&keys.written(&batch)?)?;
                rest.push(&filter_record_batch(&batch, &stays)?).await?;
            }
            kept.extend(rest.finish().await?.into_iter().filter(|file| file.rows != Some(0)));
            rewritten.push(file.clone());
        }
        Ok(Self { rewritten, kept, gone: concat_batches(&gone_schema(), &gone)? })
    }

    /// The files that leave the table.
    pub(super) fn rewritten(&self) -> &[DataFile] {
        &self.rewritten
    }

    /// The files with the rest of their rows.
    pub(super) fn kept(&self) -> &[DataFile] {
        &self.kept
    }

    /// The rows that leave the table: their clusters, distances and models.
    pub(super) fn gone(&self) -> &RecordBatch {
        &self.gone
    }

    /// Their number.
    pub(super) fn rows(&self) -> u64 {
        self.gone.num_rows() as u64
    }
}
