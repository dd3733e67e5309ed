//! What follows from the action of a stage: how batches go through it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::{Action, Assignments, Clusters, EMBEDDING, FEATURES, InverseMap, LABEL_COLUMNS, Transform, VectorMap};
use crate::column::{self, Values};
use crate::error::{Error, Result};

/// What every [`Transform`] can do, made of its [`action`](Transform::action). No stage can do it another way, so that
/// what is learned from is what is labelled.
pub trait Apply: Transform {
    /// The schema of what [`apply`](Self::apply) returns for batches of schema `input`.
    ///
    /// # Errors
    /// Kind `Input` for a column that is missing or of another type, or has the name of one that is made; `Model` for
    /// vectors of another width.
    fn output_schema(&self, input: &Schema) -> Result<SchemaRef> {
        let fields = input.fields().iter().cloned();
        let fields: Vec<FieldRef> = match self.action() {
            Action::Map { from, to, map } => {
                check_map(self.kind(), from, to)?;
                check_width(self.kind(), input, from, map.dim_in())?;
                if map.as_origin().is_none() {
                    check_single(input, from)?;
                }
                let at = input.index_of(from)?;
                if from != to {
                    check_free(input, to)?;
                }
                let made = Arc::new(column::vector_field(to, map.dim_out()));
                fields.enumerate().map(|(i, field)| if i == at { Arc::clone(&made) } else { field }).collect()
            }
            Action::Assign { column, clusters } => {
                check_width(self.kind(), input, column, clusters.dim())?;
                check_single(input, column)?;
                LABEL_COLUMNS.iter().try_for_each(|name| check_free(input, name))?;
                fields.chain(label_fields().map(Arc::new)).collect()
            }
            Action::Append(columns) => {
                let mut all: Vec<FieldRef> = fields.collect();
                for field in columns.fields(input)? {
                    check_appended(self.kind(), field.name())?;
                    if all.iter().any(|there| there.name() == field.name()) {
                        return Err(taken(field.name()));
                    }
                    all.push(Arc::new(field));
                }
                all
            }
            Action::Keep { dim } => {
                let dim = dim.map_or_else(|| column::vector_dim(input, FEATURES), Ok)?;
                check_width(self.kind(), input, FEATURES, dim)?;
                fields.collect()
            }
        };
        Ok(Arc::new(Schema::new_with_metadata(fields, input.metadata().clone())))
    }

    /// Transforms a batch. The same row gives the same bits in any batch.
    ///
    /// # Errors
    /// As of [`output_schema`](Self::output_schema); kind `Input` for nulls and for values that are not finite where those
    /// have no cluster; `Internal` for a stage that does not make what it promised.
    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = self.output_schema(batch.schema_ref())?;
        let mut columns = batch.columns().to_vec();
        match self.action() {
            Action::Map { from, map, .. } => {
                let mut output = vec![0.0; batch.num_rows() * map.dim_out()];
                match (column::values(batch, from)?.0, map.as_origin()) {
                    (Values::Double(rows), Some(origin)) => origin.subtract(rows, &mut output),
                    (rows, _) => map.map(&rows.narrow(), &mut output)?,
                }
                columns[batch.schema_ref().index_of(from)?] = column::vector_array(output, map.dim_out())?;
            }
            Action::Assign { column, clusters } => columns.extend(label_columns(labels(batch, column, clusters)?)),
            Action::Append(made) => columns.extend(made.values(batch)?),
            Action::Keep { .. } => {}
        }
        let kind = self.kind();
        if let Some(wrong) = columns.iter().find(|column| column.len() != batch.num_rows()) {
            let (rows, made) = (batch.num_rows(), wrong.len());
            return Err(Error::internal(format!("stage {kind} made {made} rows of {rows}; it must keep them")));
        }
        let broken = || format!("stage {kind} made other columns than it promised");
        RecordBatch::try_new(schema, columns).map_err(|e| Error::internal(broken()).with_source(e))
    }

    /// Its arithmetic on bare vectors, for a stage that makes other vectors of them.
    fn vector_map(&self) -> Option<&dyn VectorMap> {
        match self.action() {
            Action::Map { map, .. } => Some(map),
            Action::Assign { .. } | Action::Append(_) | Action::Keep { .. } => None,
        }
    }

    /// The way back through it, for a stage that makes other vectors and knows it.
    fn inverse(&self) -> Option<&dyn InverseMap> {
        self.vector_map()?.as_inverse()
    }

    /// The clusters that it assigns rows to, for a stage that does.
    fn clusters(&self) -> Option<&dyn Clusters> {
        match self.action() {
            Action::Assign { clusters, .. } => Some(clusters),
            Action::Map { .. } | Action::Append(_) | Action::Keep { .. } => None,
        }
    }
}

impl<T: Transform + ?Sized> Apply for T {}

/// The clusters of the vectors in `column`.
///
/// # Errors
/// Kind `Input` for nulls, and for a row whose distance is not finite; `Internal` for clusters that are not given row by
/// row.
pub(crate) fn labels(batch: &RecordBatch, column: &str, clusters: &dyn Clusters) -> Result<Assignments> {
    let found = clusters.assign(column::vectors(batch, column)?.0)?;
    let Assignments { cluster, distance, margin } = &found;
    if [cluster.len(), distance.len(), margin.len()] != [batch.num_rows(); 3] {
        return Err(Error::internal(format!("{} clusters for {} rows", cluster.len(), batch.num_rows())));
    }
    if let Some(row) = distance.iter().position(|d| !d.is_finite()) {
        let place = format!("column {column:?}, row {row} of a batch");
        return Err(Error::input(format!("{place}: values that are not finite, or too large, have no distance")));
    }
    Ok(found)
}

fn label_columns(found: Assignments) -> [ArrayRef; 3] {
    let Assignments { cluster, distance, margin } = found;
    [Arc::new(Int32Array::from(cluster)), Arc::new(Float32Array::from(distance)), Arc::new(Float32Array::from(margin))]
}

/// The fields of the columns that [`Action::Assign`] appends.
pub fn label_fields() -> impl Iterator<Item = Field> {
    let types = [DataType::Int32, DataType::Float32, DataType::Float32];
    LABEL_COLUMNS.into_iter().zip(types).map(|(name, kind)| Field::new(name, kind, false))
}

/// That the columns of a map are those that later stages are given, when they learn as when they label.
fn check_map(kind: &str, from: &str, to: &str) -> Result<()> {
    match [from, to].iter().find(|name| ![FEATURES, EMBEDDING].contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::internal(format!(
            "stage {kind} maps column {name:?}; vectors are in {FEATURES:?} or {EMBEDDING:?}, and nothing learns from others"
        ))),
    }
}

/// That a column may be appended: what vectors and labels are called is made by maps and clusters alone.
fn check_appended(kind: &str, name: &str) -> Result<()> {
    match name == FEATURES || name == EMBEDDING || LABEL_COLUMNS.contains(&name) {
        false => Ok(()),
        true => Err(Error::internal(format!(
            "stage {kind} appends column {name:?}; only a stage that maps vectors or assigns clusters makes it"
        ))),
    }
}

/// That `column` has vectors of `dim` values.
fn check_width(kind: &str, input: &Schema, column: &str, dim: usize) -> Result<()> {
    match column::vector_dim(input, column)? {
        there if there == dim => Ok(()),
        there => {
            Err(Error::model(format!("stage {kind} was made for {dim} values a row, column {column:?} has {there}")))
        }
    }
}

/// That vectors are in single precision.
fn check_single(input: &Schema, name: &str) -> Result<()> {
    match column::is_double(input, name) {
        false => Ok(()),
        true => Err(Error::input(format!("column {name:?} is in double precision, expected FixedSizeList<Float32>"))),
    }
}

/// That no column is called `name`.
fn check_free(input: &Schema, name: &str) -> Result<()> {
    match input.column_with_name(name) {
        None => Ok(()),
        Some(_) => Err(taken(name)),
    }
}

fn taken(name: &str) -> Error {
    Error::input(format!("column {name:?} is there already; rename it or leave it out of the source"))
}
