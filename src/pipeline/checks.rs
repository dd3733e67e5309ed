//! Checks before anything is learned.

use arrow::datatypes::Schema;

use super::collect::Collected;
use super::execution::Execution;
use super::scan::{distinct, select};
use super::written::{LastVectors, Written};
use crate::column;
use crate::config::{ClusterSpec, StageSpec};
use crate::error::{Error, Result};
use crate::kmeans;
use crate::label::Begin;
use crate::source::Source;
use crate::stage::{EMBEDDING, FEATURES};

impl Execution<'_> {
    /// Checks that this run will write something, and that it fits the table.
    pub fn check_output(&self) -> Result<()> {
        let plan = &self.pipeline.plan;
        let there = self.source.provider.schema();
        let mut fields = Vec::new();
        for name in self.kept() {
            fields.push(there.field_with_name(&name).map_err(|_| column::missing(&there, &name))?.clone());
        }
        let width = plan.embedding_width(self.source.dim).map_err(|e| e.while_doing("stage deep_clustering"))?;
        let (column, dim) = width.map_or((FEATURES, self.source.dim), |width| (EMBEDDING, width));
        let last = LastVectors { column, dim, names: &self.source.feature_names };
        let clusters = plan.clusters().is_some();
        let written = Written::new(self.choice(), self.kept(), clusters, &last);
        written.check("[sink] vectors = \"list\" or \"columns\" writes the vectors that there are")?;
        fields.extend(written.made());
        self.writer.check(&Schema::new(fields)).map(|_| ())
    }

    /// Checks that there are rows to label. Reads only the split column, up to the first such row.
    pub async fn check_parts(&self) -> Result<()> {
        let split = &self.pipeline.plan.split;
        let Some((column, part)) = split.part(&split.label)? else { return Ok(()) };
        if split.fit == split.label {
            return Ok(());
        }
        let rows = select(&self.ctx, &self.source, &[column], Some((column, part)))?.limit(0, Some(1))?;
        match rows.collect().await?.iter().map(|batch| batch.num_rows()).sum::<usize>() {
            0 => Err(self.no_rows("split.label", "label", Some(part)).await),
            _ => Ok(()),
        }
    }

    /// How many distinct rows are counted in the first pass: as many as there will be clusters. None if equal rows may
    /// get different vectors: in a layout, or by a custom stage.
    pub fn distinct_needed(&self) -> usize {
        let clusters = self.pipeline.plan.stages.iter().find_map(|stage| match stage {
            StageSpec::KMeans(ClusterSpec { kmeans, begin: Begin::Vectors, .. }) => Some(kmeans.k),
            StageSpec::DeepClustering(spec) => Some(spec.k),
            _ => None,
        });
        clusters.filter(|_| self.pipeline.is_as_planned()).unwrap_or(0)
    }

    /// Checks that the first pass gave enough rows to learn from.
    pub async fn check_rows(&self, Collected { rows, distinct, .. }: &Collected) -> Result<()> {
        let plan = &self.pipeline.plan;
        if rows.len() == 0 {
            return Err(self.no_rows("split.fit", "learn from", plan.split.fit.as_deref()).await);
        }
        if let Some(k) = plan.clusters() {
            kmeans::check_rows(k, rows.len()).map_err(|e| e.while_doing("stage kmeans"))?;
        }
        kmeans::check_distinct(self.distinct_needed(), *distinct, rows.len()).map_err(|e| e.while_doing("stage kmeans"))
    }

    /// The error for a split (of the key `key` in the file) without rows to `learn from` or to `label`; names the
    /// splits that there are.
    async fn no_rows(&self, key: &str, purpose: &str, part: Option<&str>) -> Error {
        let (Some(part), Some(split)) = (part, &self.pipeline.plan.split.column) else {
            return no_rows(&self.source, purpose);
        };
        let parts = match distinct(&self.ctx, &self.source, split).await {
            Ok(parts) => parts.join(", "),
            Err(e) => return e,
        };
        Error::input(format!("no rows with {split} = {part:?} to {purpose} ({key}); there are: {parts}"))
    }
}

/// The error for a source without rows to `learn from` or to `label`.
pub(super) fn no_rows(source: &Source, purpose: &str) -> Error {
    let why = source.why_no_rows().map(|why| format!(": {why}")).unwrap_or_default();
    Error::input(format!("{}: no rows to {purpose}{why}", source.description))
}
