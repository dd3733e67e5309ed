//! The columns that a label pass writes: those kept from the source, and those that the stages make.

use std::sync::Arc;

use arrow::datatypes::Field;

use crate::column::vector_field;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::reconstruct::error_field;
use crate::report::VectorsReport;
use crate::stage::{EMBEDDING, FEATURES, LABEL_COLUMNS, RECONSTRUCTION_ERROR, Transform, label_fields};
use crate::table::{LABELLED_AT, MODEL};
use crate::vectors::{Spread, VectorForm, column_names};

/// What is written beside the clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Choice {
    pub vectors: Option<VectorForm>,
    pub embedding: bool,
    pub reconstruction_error: bool,
}

impl Choice {
    /// Whether anything is.
    pub fn is_something(self) -> bool {
        self.vectors.is_some() || self.embedding || self.reconstruction_error
    }
}

/// The vectors that the last stage gives.
pub(super) struct LastVectors<'a> {
    /// Their column: [`EMBEDDING`], or [`FEATURES`] if nothing embeds them.
    pub column: &'static str,
    /// Values in a vector.
    pub dim: usize,
    /// The names of the features.
    pub names: &'a [String],
}

/// The columns of a table and where they come from.
pub(super) struct Written {
    choice: Choice,
    /// The source's columns that are kept.
    kept: Vec<String>,
    clusters: bool,
    column: &'static str,
    dim: usize,
    /// The names of the values, or of their columns if each has its own.
    names: Vec<String>,
}

impl Written {
    /// The source's columns `kept`, the cluster columns if there are `clusters`, and what was chosen.
    pub fn new(choice: Choice, kept: Vec<String>, clusters: bool, last: &LastVectors<'_>) -> Self {
        let LastVectors { column, dim, names } = *last;
        let mut names = match column == FEATURES && names.len() == dim {
            true => names.to_vec(),
            false => (0..dim).map(|i| format!("{column}_{i}")).collect(),
        };
        if choice.vectors == Some(VectorForm::Columns) {
            // Names avoid all columns that a table may have, so that they do not depend on what else is written.
            let made = [FEATURES, EMBEDDING, RECONSTRUCTION_ERROR, MODEL, LABELLED_AT];
            let made = made.into_iter().chain(LABEL_COLUMNS);
            names = column_names(&names, kept.iter().map(String::as_str).chain(made));
        }
        Self { choice, kept, clusters, column, dim, names }
    }

    /// What a pass with `model` writes.
    pub fn by(model: &Model, choice: Choice, kept: Vec<String>) -> Self {
        let column = if model.embeds() { EMBEDDING } else { FEATURES };
        let last = LastVectors { column, dim: model.embedding_dim(), names: &model.manifest().input.names };
        Self::new(choice, kept, model.assigns(), &last)
    }

    /// The columns that the stages make, in the order in which they follow the source's.
    pub fn made(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = Vec::new();
        if self.clusters {
            fields.extend(label_fields());
        }
        if self.choice.reconstruction_error {
            fields.push(error_field());
        }
        if self.choice.embedding {
            fields.push(vector_field(EMBEDDING, self.dim));
        }
        match self.choice.vectors {
            None => {}
            Some(VectorForm::List) if self.choice.embedding => {}
            Some(VectorForm::List) => fields.push(vector_field(self.column, self.dim)),
            Some(VectorForm::Columns) => fields.extend(Spread::fields_of(&self.names)),
        }
        fields
    }

    /// The names of all columns, in order.
    pub fn columns(&self) -> Vec<String> {
        let made = self.made().into_iter().map(|field| field.name().clone());
        self.kept.iter().cloned().chain(made).collect()
    }

    /// The stages of `model` that the pass applies.
    ///
    /// # Errors
    /// Kind `Model` if the reconstruction error is asked for and the model cannot reconstruct rows.
    pub fn stages(&self, model: &Model) -> Result<Vec<Arc<dyn Transform>>> {
        let mut stages = match self.choice.reconstruction_error {
            true => model.stages_with_error()?,
            false => model.stages().to_vec(),
        };
        if self.choice.vectors.is_some() {
            stages.extend(model.back_to_source_units());
        }
        if self.choice.vectors == Some(VectorForm::Columns) {
            stages.push(Arc::new(Spread::new(self.column, self.names.clone())));
        }
        Ok(stages)
    }

    /// Checks that there is an embedding if one is asked for, and that there is something to write.
    ///
    /// # Errors
    /// Kind `Config`; `how` says how vectors are asked for.
    pub fn check(&self, how: &str) -> Result<()> {
        if self.choice.embedding && self.column != EMBEDDING {
            return Err(Error::config(format!("there is no autoencoder, so no embedding to write; {how}")));
        }
        match self.clusters || self.choice.is_something() {
            true => Ok(()),
            false => {
                Err(Error::config(format!("there are no clusters to write, and nothing else was asked for; {how}")))
            }
        }
    }

    /// What the report says of the vectors.
    pub fn report(&self) -> Option<VectorsReport> {
        let form = self.choice.vectors?;
        let column = (form == VectorForm::List).then(|| self.column.to_string());
        Some(VectorsReport { dim: self.dim, column, names: self.names.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_one_order_and_each_once() {
        let features = ["x", "x", "cluster"].map(String::from);
        let of = |choice, clusters, embedding: Option<usize>| {
            let (column, dim) = embedding.map_or((FEATURES, 3), |dim| (EMBEDDING, dim));
            let last = LastVectors { column, dim, names: &features };
            Written::new(choice, vec!["id".into()], clusters, &last)
        };
        let names = |written: Written| written.columns();
        let all = Choice { vectors: Some(VectorForm::List), embedding: true, reconstruction_error: true };
        let labels = ["id", "cluster", "distance", "margin"];
        assert_eq!(names(of(Choice::default(), true, None)), labels);
        assert_eq!(names(of(all, true, Some(2))), [&labels[..], &["reconstruction_error", "embedding"]].concat());
        let columns = Choice { vectors: Some(VectorForm::Columns), ..Choice::default() };
        assert_eq!(names(of(columns, false, None)), ["id", "x", "x_2", "cluster_2"]);
        assert_eq!(names(of(columns, true, None)), [&labels[..], &["x", "x_2", "cluster_2"]].concat());
        assert_eq!(names(of(columns, false, Some(2))), ["id", "embedding_0", "embedding_1"]);
        let list = Choice { vectors: Some(VectorForm::List), ..Choice::default() };
        assert_eq!(names(of(list, false, None)), ["id", "features"]);
        let report = of(list, false, None).report().unwrap();
        assert_eq!((report.column.as_deref(), report.dim), (Some("features"), 3));
        assert_eq!(report.names, features);
        assert_eq!(of(columns, false, None).report().unwrap().names, ["x", "x_2", "cluster_2"]);
    }

    #[test]
    fn nothing_to_write_is_refused() {
        let last = LastVectors { column: FEATURES, dim: 3, names: &[] };
        let check = |choice, clusters| {
            let written = Written::new(choice, vec![], clusters, &last);
            written.check("write the vectors").map_err(|e| e.to_string())
        };
        assert_eq!(check(Choice::default(), true), Ok(()));
        let e = check(Choice::default(), false).unwrap_err();
        assert!(e.contains("no clusters") && e.ends_with("write the vectors"), "{e}");
        let e = check(Choice { embedding: true, ..Choice::default() }, true).unwrap_err();
        assert!(e.contains("no embedding") && e.ends_with("write the vectors"), "{e}");
    }
}
