//! The sample beside a table: rows drawn from all rows of the version, enough for the report.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListArray, ListBuilder, PrimitiveBuilder,
    StringArray, UInt32Array, UInt64Array,
};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Schema, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::schema::MODEL;
use crate::column::label_texts;
use crate::error::Result;

/// The most rows that are drawn.
const MOST_ROWS: usize = 20_000;
/// The most bytes of vectors that are kept.
const MOST_BYTES: usize = 2 << 20;
/// The number of rows whose features are kept, too.
const INPUTS: usize = 24;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let list = || DataType::List(Arc::new(Field::new("item", DataType::Float32, false)));
    Arc::new(Schema::new(vec![
        Field::new("row", DataType::Int64, false),
        Field::new("draw", DataType::UInt64, false),
        Field::new("cluster", DataType::Int32, false),
        Field::new("label", DataType::Utf8, true),
        Field::new("label_column", DataType::Utf8, true),
        Field::new("embedded", DataType::Boolean, false),
        Field::new("vector", list(), false),
        Field::new("features", list(), true),
        Field::new(MODEL, DataType::Utf8, false),
    ]))
});

/// The columns of a table's sample: the number of the `row` in its run, its pseudo-random number `draw` (the rows with
/// the lowest are drawn), `cluster`, `label` and the name of the label's column, the `vector` that was clustered and
/// whether it is an embedding, the row's `features` (of a few rows only), and `model`.
pub fn sample_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// A pseudo-random number for a row's number (the finaliser of SplitMix64).
fn draw(row: u64) -> u64 {
    let mut z = row.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How many rows with vectors of `dim` values are kept.
fn most(dim: usize) -> usize {
    (MOST_BYTES / (4 * dim.max(1))).clamp(INPUTS, MOST_ROWS)
}

/// Rows for a [`SampleBuilder`].
#[derive(Debug, Clone, Copy)]
pub struct SampledRows<'a> {
    /// The cluster of each.
    pub clusters: &'a [i32],
    /// The vectors that were clustered, row-major, `dim` values each.
    pub vectors: &'a [f32],
    /// Values in a vector.
    pub dim: usize,
    /// The features of each row, row-major; empty if unknown.
    pub features: &'a [f32],
    /// The label of each.
    pub labels: Option<&'a ArrayRef>,
}

/// Draws rows from a stream. Which rows are drawn depends only on their order.
#[derive(Debug)]
pub struct SampleBuilder {
    embedded: bool,
    label_column: Option<String>,
    most: usize,
    /// The rows seen.
    rows: u64,
    /// Rows with a greater number are not drawn any more.
    threshold: u64,
    drawn: Vec<DrawnRow>,
    inputs: BTreeMap<(u64, u64), Vec<f32>>,
}

#[derive(Debug)]
struct DrawnRow {
    draw: u64,
    row: u64,
    cluster: i32,
    label: Option<String>,
    vector: Vec<f32>,
}

impl SampleBuilder {
    /// A builder for vectors of `dim` values, an embedding or the features; `label_column` is the column of the labels.
    pub fn new(dim: usize, embedded: bool, label_column: Option<&str>) -> Self {
        Self {
            embedded,
            label_column: label_column.map(str::to_owned),
            most: most(dim),
            rows: 0,
            threshold: u64::MAX,
            drawn: Vec::new(),
            inputs: BTreeMap::new(),
        }
    }

    /// Draws from the next rows of the stream.
    ///
    /// # Errors
    /// Kind `Input` if labels cannot be read as text.
    pub fn add(&mut self, rows: &SampledRows<'_>) -> Result<()> {
        let chosen: Vec<(u32, u64)> = (0..rows.clusters.len() as u32)
            .map(|i| (i, draw(self.rows + u64::from(i))))
            .filter(|(_, draw)| *draw <= self.threshold)
            .collect();
        let labels = match (rows.labels, chosen.is_empty()) {
            (Some(labels), false) => {
                let taken = take(labels, &UInt32Array::from_iter_values(chosen.iter().map(|(i, _)| *i)), None)?;
                Some(label_texts(&taken, self.label_column.as_deref().unwrap_or("label"))?)
            }
            _ => None,
        };
        let width = rows.features.len() / rows.clusters.len().max(1);
        for (place, (i, draw)) in chosen.into_iter().enumerate() {
            let (row, i) = (self.rows + u64::from(i), i as usize);
            let label =
                labels.as_ref().filter(|labels| labels.is_valid(place)).map(|labels| labels.value(place).to_owned());
            let vector = rows.vectors[i * rows.dim..(i + 1) * rows.dim].to_vec();
            self.drawn.push(DrawnRow { draw, row, cluster: rows.clusters[i], label, vector });
            let wanted =
                self.inputs.len() < INPUTS || self.inputs.last_key_value().is_some_and(|(last, _)| (draw, row) < *last);
            if width > 0 && wanted {
                self.inputs.insert((draw, row), rows.features[i * width..(i + 1) * width].to_vec());
                if self.inputs.len() > INPUTS {
                    self.inputs.pop_last();
                }
            }
        }
        self.rows += rows.clusters.len() as u64;
        if self.drawn.len() >= 2 * self.most {
            self.keep_least();
        }
        Ok(())
    }

    /// Reduces the rows drawn to as many as the sample may have.
    fn keep_least(&mut self) {
        if self.drawn.len() > self.most {
            self.drawn.select_nth_unstable_by_key(self.most - 1, |row| (row.draw, row.row));
            self.drawn.truncate(self.most);
            self.threshold = self.drawn[self.most - 1].draw;
        }
    }

    /// The sample, of [`sample_schema`], of rows that `model` labelled.
    ///
    /// # Errors
    /// Kind `Internal` if Arrow refuses the columns.
    pub fn finish(mut self, model: &str) -> Result<RecordBatch> {
        self.keep_least();
        self.drawn.sort_unstable_by_key(|row| (row.draw, row.row));
        let drawn = &self.drawn;
        let column = self.label_column.as_deref();
        let features = drawn.iter().map(|row| self.inputs.get(&(row.draw, row.row)).map(Vec::as_slice));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(drawn.iter().map(|row| row.row as i64))),
            Arc::new(UInt64Array::from_iter_values(drawn.iter().map(|row| row.draw))),
            Arc::new(Int32Array::from_iter_values(drawn.iter().map(|row| row.cluster))),
            Arc::new(drawn.iter().map(|row| row.label.as_deref()).collect::<StringArray>()),
            Arc::new(drawn.iter().map(|_| column).collect::<StringArray>()),
            Arc::new(BooleanArray::from(vec![self.embedded; drawn.len()])),
            Arc::new(lists(drawn.iter().map(|row| Some(row.vector.as_slice())))),
            Arc::new(lists(features)),
            Arc::new(StringArray::from_iter_values(drawn.iter().map(|_| model))),
        ];
        Ok(RecordBatch::try_new(sample_schema(), columns)?)
    }
}

fn lists<'a>(rows: impl Iterator<Item = Option<&'a [f32]>>) -> ListArray {
    let item = Field::new("item", DataType::Float32, false);
    let mut lists = ListBuilder::new(PrimitiveBuilder::<Float32Type>::new()).with_field(item);
    for row in rows {
        lists.values().append_slice(row.unwrap_or_default());
        lists.append(row.is_some());
    }
    lists.finish()
}

/// The sample of a table that had `old` and to which rows with the sample `new` are appended: the rows of both with the
/// lowest numbers, as many as the sample may have.
pub(super) fn merge(old: &RecordBatch, new: &RecordBatch) -> Result<RecordBatch> {
    let both = concat_batches(&SCHEMA, [old, new])?;
    let draws = both.column(1).as_primitive::<UInt64Type>().values();
    let vectors = both.column(6).as_list::<i32>();
    let widest = (0..both.num_rows()).map(|row| vectors.value_length(row) as usize).max().unwrap_or(1);
    let mut order: Vec<u32> = (0..both.num_rows() as u32).collect();
    order.sort_by_key(|row| draws[*row as usize]);
    order.truncate(most(widest));
    Ok(take_record_batch(&both, &UInt32Array::from(order))?)
}

/// A row of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledRow {
    /// Its cluster.
    pub cluster: i32,
    /// Its label.
    pub label: Option<String>,
    /// The column of the label.
    pub label_column: Option<String>,
    /// The vector that was clustered.
    pub vector: Vec<f32>,
    /// Whether the vector is an embedding.
    pub embedded: bool,
    /// Its features, as the source gave them, if they were kept.
    pub features: Option<Vec<f32>>,
}

/// The rows of a sample that `model` labelled.
pub fn sampled_rows(sample: &RecordBatch, model: &str) -> Vec<SampledRow> {
    let clusters = sample.column(2).as_primitive::<Int32Type>().values();
    let (labels, columns) = (sample.column(3).as_string::<i32>(), sample.column(4).as_string::<i32>());
    let embedded = sample.column(5).as_boolean();
    let (vectors, features) = (sample.column(6).as_list::<i32>(), sample.column(7).as_list::<i32>());
    let models = sample.column(8).as_string::<i32>();
    let list = |lists: &ListArray, row| lists.value(row).as_primitive::<Float32Type>().values().to_vec();
    let text = |texts: &StringArray, row| texts.is_valid(row).then(|| texts.value(row).to_owned());
    let rows = (0..sample.num_rows()).filter(|row| models.value(*row) == model);
    let row = |row| SampledRow {
        cluster: clusters[row],
        label: text(labels, row),
        label_column: text(columns, row),
        vector: list(vectors, row),
        embedded: embedded.value(row),
        features: features.is_valid(row).then(|| list(features, row)),
    };
    rows.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample of rows numbered by their first value, given in batches of `size`.
    fn sample(rows: usize, dim: usize, size: usize) -> RecordBatch {
        let mut builder = SampleBuilder::new(dim, true, Some("activity"));
        for start in (0..rows).step_by(size) {
            let numbers: Vec<usize> = (start..rows.min(start + size)).collect();
            let clusters: Vec<i32> = numbers.iter().map(|row| (row % 3) as i32).collect();
            let vectors: Vec<f32> = numbers.iter().flat_map(|row| std::iter::repeat_n(*row as f32, dim)).collect();
            let features: Vec<f32> = numbers.iter().flat_map(|row| [*row as f32, -1.0]).collect();
            let labels = numbers.iter().map(|row| (row % 2 == 0).then(|| format!("l{row}"))).collect::<StringArray>();
            let labels: ArrayRef = Arc::new(labels);
            let rows =
                SampledRows { clusters: &clusters, vectors: &vectors, dim, features: &features, labels: Some(&labels) };
            builder.add(&rows).unwrap();
        }
        builder.finish("m").unwrap()
    }

    #[test]
    fn batches_do_not_matter() {
        let whole = sample(9000, 300, 9000);
        assert_eq!(whole.num_rows(), MOST_BYTES / 1200);
        assert_eq!(sample(9000, 300, 7), whole);
    }

    #[test]
    fn rows_come_with_all_that_belongs_to_them() {
        let rows = sampled_rows(&sample(5000, 300, 100), "m");
        for row in &rows {
            let number = row.vector[0] as usize;
            assert_eq!(row.cluster, (number % 3) as i32);
            assert_eq!(row.label, number.is_multiple_of(2).then(|| format!("l{number}")));
            assert!(row.features.as_ref().is_none_or(|features| *features == [number as f32, -1.0]));
        }
        assert_eq!(rows.iter().filter(|row| row.features.is_some()).count(), INPUTS);
        // The rows come from everywhere: about a third each from the beginning, the middle and the end.
        let thirds = rows.iter().fold([0; 3], |mut thirds, row| {
            thirds[(row.vector[0] as usize * 3 / 5000).min(2)] += 1;
            thirds
        });
        assert!(thirds.iter().all(|n| n * 4 > rows.len()), "{thirds:?}");
        assert!(sampled_rows(&sample(10, 3, 10), "another").is_empty());
    }

    #[test]
    fn a_few_rows_are_all_drawn() {
        assert_eq!(sample(100, 10, 100).num_rows(), 100);
        assert_eq!(sample(0, 10, 1).num_rows(), 0);
    }

    #[test]
    fn a_merged_sample_is_no_larger_than_one() {
        let (first, second) = (sample(9000, 300, 1000), sample(2000, 300, 1000));
        let merged = merge(&first, &second).unwrap();
        assert_eq!(merged.num_rows(), first.num_rows());
        let draws = merged.column(1).as_primitive::<UInt64Type>().values().to_vec();
        assert!(draws.is_sorted());
    }
}
