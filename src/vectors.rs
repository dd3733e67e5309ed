//! The vectors of a table: one column of lists, or a column for each value, under names that are all different.
//!
//! Every value is written with the bits that the stages gave it: 32-bit floats, so seven digits.
//!
//! A column for each value has the name that the source gives the value. A name that is there already, because the source
//! gives it twice or because another column of the table has it, is followed by `_2`, or the next number that makes it a
//! new one. The 561 features of HAPT have 533 names: of the three `tBodyAcc-ropy-1`, one for each axis, the
//! second becomes `tBodyAcc-ropy-1_2` and the third `tBodyAcc-ropy-1_3`. Names may hold any characters; in SQL those with
//! others than lowercase letters, digits and `_` stand in double quotes.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column::{missing, vector_dim, vectors};
use crate::error::{Error, Result};
use crate::stage::{Action, Artifact, Columns, Transform};

/// How vectors lie in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VectorForm {
    /// In one column of lists.
    List,
    /// In a column for each value.
    Columns,
}

/// Names for the columns of values that are called `names`, all different and none of them in `taken`.
///
/// ```
/// let names = ["mean", "ropy", "ropy", "model", "ropy"].map(String::from);
/// let columns = dacpipe::vectors::column_names(&names, ["user", "model"]);
/// assert_eq!(columns, ["mean", "ropy", "ropy_2", "model_2", "ropy_3"]);
/// ```
pub fn column_names<'a>(names: &[String], taken: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut there: HashSet<String> = taken.into_iter().map(str::to_lowercase).collect();
    let mut free = |name: &String| {
        let mut candidate = name.clone();
        let mut number = 2;
        while !there.insert(candidate.to_lowercase()) {
            candidate = format!("{name}_{number}");
            number += 1;
        }
        candidate
    };
    names.iter().map(&mut free).collect()
}

/// Appends a Float32 column for each value of a column of vectors, and leaves the rest as it is.
#[derive(Debug, Clone)]
pub struct Spread {
    column: String,
    names: Vec<String>,
}

impl Spread {
    /// The values of the vectors in `column` under these names, which must be as many and differ from each other and from
    /// all other columns: see [`column_names`].
    pub fn new(column: impl Into<String>, names: Vec<String>) -> Self {
        Self { column: column.into(), names }
    }

    /// The columns that it appends.
    pub fn fields_of(names: &[String]) -> impl Iterator<Item = Field> {
        names.iter().map(|name| Field::new(name, DataType::Float32, false))
    }
}

impl Columns for Spread {
    fn fields(&self, input: &Schema) -> Result<Vec<Field>> {
        let dim = vector_dim(input, &self.column)?;
        if dim != self.names.len() {
            let (column, names) = (&self.column, self.names.len());
            return Err(Error::internal(format!("{names} names for the {dim} values of column {column:?}")));
        }
        Ok(Self::fields_of(&self.names).collect())
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (rows, dim) = vectors(batch, &self.column)?;
        let value = |at: usize| Float32Array::from_iter_values(rows.iter().skip(at).step_by(dim).copied());
        Ok((0..dim).map(|at| Arc::new(value(at)) as ArrayRef).collect())
    }
}

impl Transform for Spread {
    fn kind(&self) -> &'static str {
        "spread"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    /// It is part of no model: nothing is needed but the names.
    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

/// Appends a column once more, under another name: for what is needed of it after the stages that change it.
#[derive(Debug, Clone, Copy)]
pub struct Carry {
    column: &'static str,
    name: &'static str,
}

impl Carry {
    /// The column as it is here, called `name`.
    pub fn new(column: &'static str, name: &'static str) -> Self {
        Self { column, name }
    }
}

impl Columns for Carry {
    fn fields(&self, input: &Schema) -> Result<Vec<Field>> {
        let field = input.field_with_name(self.column).map_err(|_| missing(input, self.column))?;
        Ok(vec![field.clone().with_name(self.name)])
    }

    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = batch.column_by_name(self.column).ok_or_else(|| missing(batch.schema_ref(), self.column))?;
        Ok(vec![Arc::clone(column)])
    }
}

impl Transform for Carry {
    fn kind(&self) -> &'static str {
        "carry"
    }

    fn action(&self) -> Action<'_> {
        Action::Append(self)
    }

    /// It is part of no model: nothing is needed but the names.
    fn save(&self) -> Artifact {
        Artifact::default()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Float32Type;

    use super::*;
    use crate::column::{vector_array, vector_field};
    use crate::signal::hapt561;
    use crate::stage::{Apply, FEATURES};

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn names_become_different_whatever_they_hold() {
        let names = strings(&["x", "x", "x_2", "", "", "a.b", "say \"x\"", "größe", "x"]);
        let columns = column_names(&names, ["größe"]);
        assert_eq!(columns, ["x", "x_2", "x_2_2", "", "_2", "a.b", "say \"x\"", "größe_2", "x_3"]);
        assert!(column_names(&[], ["a"]).is_empty());
    }

    #[test]
    fn the_names_of_hapt_are_as_its_documentation_here_says() {
        let names = hapt561::names();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 533);
        let columns = column_names(&names, ["user", "start"]);
        assert_eq!(columns.iter().collect::<HashSet<_>>().len(), 561);
        let at = names.iter().position(|name| name == "tBodyAcc-ropy-1").unwrap();
        assert_eq!(columns[at..at + 3], ["tBodyAcc-ropy-1", "tBodyAcc-ropy-1_2", "tBodyAcc-ropy-1_3"]);
        let changed = names.iter().zip(&columns).filter(|(name, column)| name != column).count();
        assert_eq!(changed, 561 - 533);
    }

    #[test]
    fn every_value_has_its_column_and_its_bits() {
        let values: Vec<f32> = (0..21).map(|i| (i as f32).sin()).chain([-0.0, f32::MIN_POSITIVE, 1e-45]).collect();
        let schema = Schema::new(vec![vector_field(FEATURES, 3), Field::new("id", DataType::Int32, false)]);
        let ids = Arc::new(Int32Array::from_iter_values(0..8));
        let columns: Vec<ArrayRef> = vec![vector_array(values.clone(), 3).unwrap(), ids];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let spread = Spread::new(FEATURES, strings(&["a", "b", "c"]));
        for (batch, first) in [(batch.clone(), 0), (batch.slice(5, 2), 5), (batch.slice(0, 0), 0)] {
            let out = spread.apply(&batch).unwrap();
            assert_eq!(out.schema(), spread.output_schema(batch.schema_ref()).unwrap());
            assert_eq!(out.columns()[..2], *batch.columns());
            for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
                let column = out.column_by_name(name).unwrap().as_primitive::<Float32Type>();
                let expected = (first..first + batch.num_rows()).map(|row| values[row * 3 + at].to_bits());
                assert!(column.values().iter().map(|x| x.to_bits()).eq(expected), "{name}");
            }
        }
        let wrong = Spread::new(FEATURES, strings(&["a"])).apply(&batch).unwrap_err();
        assert!(wrong.to_string().contains("1 names for the 3 values"), "{wrong}");
    }
}
