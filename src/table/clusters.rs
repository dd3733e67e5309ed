//! The clusters beside a table: one row for each cluster of each model, over all rows of the version.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::schema::MODEL;
use crate::column::missing;
use crate::error::{Error, Result};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let item = Arc::new(Field::new("item", DataType::Float64, false));
    Arc::new(Schema::new(vec![
        Field::new("cluster", DataType::Int32, false),
        Field::new("size", DataType::Int64, false),
        Field::new("centroid", DataType::List(item), false),
        Field::new("mean_distance", DataType::Float64, true),
        Field::new(MODEL, DataType::Utf8, false),
    ]))
});

/// The columns of a table's clusters: `cluster`, `size`, `centroid` (in the space that was clustered, which may be that
/// of the features), `mean_distance` (of the cluster's rows to the centroid; null for a cluster without rows) and
/// `model`.
pub fn clusters_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// The clusters that a run reports, in the types of [`clusters_schema`], with the model's hash.
///
/// # Errors
/// Kind `Input` if a column is missing, has another type, or is null where it must not be.
pub(super) fn normalize(batch: &RecordBatch, model: &str) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in &SCHEMA.fields()[..SCHEMA.fields().len() - 1] {
        let name = field.name();
        let column = batch.column_by_name(name).ok_or_else(|| missing(&batch.schema(), name))?;
        let stored = cast(column, field.data_type()).map_err(|e| {
            let (is, wanted) = (column.data_type(), field.data_type());
            Error::input(format!("clusters: column {name:?} is {is}, expected {wanted}")).with_source(e)
        })?;
        columns.push(stored);
    }
    columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(model, batch.num_rows()))));
    RecordBatch::try_new(clusters_schema(), columns)
        .map_err(|e| Error::input("the clusters are not as they must be").with_source(e))
}

/// The clusters of a table that had `old` and to which rows with the clusters `new` (of one model) are appended:
/// sizes add up, mean distances are weighted by them.
pub(super) fn merge(old: &RecordBatch, new: &RecordBatch) -> Result<RecordBatch> {
    let both = concat_batches(&SCHEMA, [old, new])?;
    let clusters = both.column(0).as_primitive::<Int32Type>();
    let sizes = both.column(1).as_primitive::<Int64Type>();
    let distances = both.column(3).as_primitive::<Float64Type>();
    let models = both.column(4).as_string::<i32>();
    // By model in order of first appearance, then by cluster.
    let mut model_order: BTreeMap<&str, usize> = BTreeMap::new();
    let mut merged: BTreeMap<(usize, i32), (u32, i64, f64)> = BTreeMap::new();
    for row in 0..both.num_rows() {
        let next = model_order.len();
        let model = *model_order.entry(models.value(row)).or_insert(next);
        let entry = merged.entry((model, clusters.value(row))).or_default();
        // Of a stream whose centroids move, the newest are kept.
        entry.0 = row as u32;
        let size = sizes.value(row);
        entry.1 += size;
        if distances.is_valid(row) {
            entry.2 += distances.value(row) * size as f64;
        }
    }
    let rows = arrow::array::UInt32Array::from_iter_values(merged.values().map(|m| m.0));
    let mut columns = take_record_batch(&both, &rows)?.columns().to_vec();
    columns[1] = Arc::new(Int64Array::from_iter_values(merged.values().map(|m| m.1)));
    let means = merged.values().map(|&(_, size, sum)| (size > 0).then(|| sum / size as f64));
    columns[3] = Arc::new(means.collect::<Float64Array>());
    Ok(RecordBatch::try_new(clusters_schema(), columns)?)
}

static GONE: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("cluster", DataType::Int32, true),
        Field::new("distance", DataType::Float64, true),
        Field::new(MODEL, DataType::Utf8, true),
    ]))
});

/// The columns that [`without`] needs of rows that leave a table.
pub(super) fn gone_schema() -> SchemaRef {
    Arc::clone(&GONE)
}

/// The columns of [`gone_schema`] of rows of a table; null if the table lacks one.
pub(super) fn gone_of(rows: &RecordBatch) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => Ok(cast(column, field.data_type())?),
        None => Ok(arrow::array::new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = GONE.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(gone_schema(), columns)?)
}

/// The clusters of a table that had `old`, after the rows `gone` were removed. Models without a row left are removed as
/// well.
pub(super) fn without(old: &RecordBatch, gone: &RecordBatch) -> Result<RecordBatch> {
    let mut left: BTreeMap<(&str, i32), (i64, f64)> = BTreeMap::new();
    let (clusters, distances) =
        (gone.column(0).as_primitive::<Int32Type>(), gone.column(1).as_primitive::<Float64Type>());
    let models = gone.column(2).as_string::<i32>();
    for row in (0..gone.num_rows()).filter(|&row| clusters.is_valid(row) && models.is_valid(row)) {
        let (rows, distance) = left.entry((models.value(row), clusters.value(row))).or_default();
        *rows += 1;
        *distance += if distances.is_valid(row) { distances.value(row) } else { 0.0 };
    }
    let (clusters, models) = (old.column(0).as_primitive::<Int32Type>(), old.column(4).as_string::<i32>());
    let (sizes, means) = (old.column(1).as_primitive::<Int64Type>(), old.column(3).as_primitive::<Float64Type>());
    let mut of_models: BTreeMap<&str, i64> = BTreeMap::new();
    let mut now: Vec<(i64, Option<f64>)> = Vec::with_capacity(old.num_rows());
    for row in 0..old.num_rows() {
        let (rows, distance) = left.get(&(models.value(row), clusters.value(row))).copied().unwrap_or_default();
        let size = (sizes.value(row) - rows).max(0);
        let sum = if means.is_valid(row) { means.value(row) * sizes.value(row) as f64 } else { 0.0 };
        now.push((size, (size > 0).then(|| (sum - distance).max(0.0) / size as f64)));
        *of_models.entry(models.value(row)).or_default() += size;
    }
    let stays = |&row: &u32| of_models.get(models.value(row as usize)).is_some_and(|&rows| rows > 0);
    let rows = arrow::array::UInt32Array::from_iter_values((0..old.num_rows() as u32).filter(stays));
    let mut columns = take_record_batch(old, &rows)?.columns().to_vec();
    let of = |row: &u32| now[*row as usize];
    columns[1] = Arc::new(Int64Array::from_iter_values(rows.values().iter().map(|row| of(row).0)));
    columns[3] = Arc::new(rows.values().iter().map(|row| of(row).1).collect::<Float64Array>());
    Ok(RecordBatch::try_new(clusters_schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Int32Array};

    fn clusters(rows: &[(i32, i64, f32)]) -> RecordBatch {
        let centroids = rows.iter().flat_map(|r| [r.0 as f32, 1.0]).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("cluster", Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0)))),
            ("size", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
            ("centroid", crate::column::vector_array(centroids, 2).unwrap()),
            ("mean_distance", Arc::new(Float32Array::from_iter(rows.iter().map(|r| (r.1 > 0).then_some(r.2))))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn values(batch: &RecordBatch) -> Vec<(i32, i64, Option<f64>, String)> {
        let row = |i| {
            let mean = batch.column(3).as_primitive::<Float64Type>();
            (
                batch.column(0).as_primitive::<Int32Type>().value(i),
                batch.column(1).as_primitive::<Int64Type>().value(i),
                mean.is_valid(i).then(|| mean.value(i)),
                batch.column(4).as_string::<i32>().value(i).to_owned(),
            )
        };
        (0..batch.num_rows()).map(row).collect()
    }

    #[test]
    fn clusters_of_one_model_add_up() {
        let first = normalize(&clusters(&[(0, 3, 1.0), (1, 0, 0.0)]), "m").unwrap();
        let second = normalize(&clusters(&[(0, 1, 5.0), (1, 2, 4.0)]), "m").unwrap();
        let both = merge(&first, &second).unwrap();
        let m = "m".to_owned();
        assert_eq!(values(&both), [(0, 4, Some(2.0), m.clone()), (1, 2, Some(4.0), m)]);
        assert_eq!(both.column(2), first.column(2));
    }

    #[test]
    fn clusters_of_two_models_stay_apart() {
        let first = normalize(&clusters(&[(0, 3, 1.0)]), "z").unwrap();
        let second = normalize(&clusters(&[(0, 1, 5.0)]), "a").unwrap();
        let both = merge(&first, &second).unwrap();
        assert_eq!(values(&both), [(0, 3, Some(1.0), "z".to_owned()), (0, 1, Some(5.0), "a".to_owned())]);
    }

    #[test]
    fn rows_that_leave_are_taken_out_of_sizes_and_means() {
        let old = merge(
            &normalize(&clusters(&[(0, 3, 2.0), (1, 1, 9.0)]), "m").unwrap(),
            &normalize(&clusters(&[(0, 1, 5.0)]), "n").unwrap(),
        )
        .unwrap();
        let gone = RecordBatch::try_from_iter([
            ("cluster", Arc::new(Int32Array::from(vec![0, 1, 0])) as ArrayRef),
            ("distance", Arc::new(Float32Array::from(vec![4.0, 9.0, 5.0])) as _),
            (MODEL, Arc::new(StringArray::from(vec!["m", "m", "n"])) as _),
        ]);
        let left = without(&old, &gone_of(&gone.unwrap()).unwrap()).unwrap();
        assert_eq!(values(&left), [(0, 2, Some(1.0), "m".to_owned()), (1, 0, None, "m".to_owned())]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let e = normalize(&clusters(&[(0, 3, 1.0)]).project(&[0, 2, 3]).unwrap(), "m").unwrap_err();
        assert!(e.to_string().contains("no column \"size\""), "{e}");
    }
}
