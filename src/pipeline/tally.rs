//! The counts of the label pass: cluster sizes and distances, and agreement with the labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};

use crate::column;
use crate::error::{Error, Result};
use crate::identity::ById;
use crate::metrics::{ALL, Contingency, part_name};
use crate::report::Scores;

/// Counts over the labelled rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    clusters: ById,
    sizes: Vec<u64>,
    distances: Vec<f64>,
    rows: u64,
    scores: BTreeMap<String, Contingency>,
    raw: BTreeMap<String, Contingency>,
}

/// The columns that a [`Tally`] reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    /// The label column.
    pub label: Option<String>,
    /// The split column.
    pub split: Option<String>,
    /// The column of raw k-means' clusters.
    pub raw: Option<String>,
}

impl Tally {
    /// Counts for the clusters with these ids; without any, only rows are counted.
    pub fn new(ids: &[i32]) -> Self {
        let (clusters, k) = (ById::new(ids), ids.len());
        Self { clusters, sizes: vec![0; k], distances: vec![0.0; k], ..Self::default() }
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The ids of the clusters, rising.
    pub fn ids(&self) -> &[i32] {
        self.clusters.ids()
    }

    /// Rows of each cluster, in the order of the ids.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// Counts a labelled batch.
    pub fn add(&mut self, batch: &RecordBatch, columns: &Columns) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if self.sizes.is_empty() {
            return Ok(());
        }
        let clusters = typed(batch, "cluster")?.as_primitive::<Int32Type>();
        let distances = typed(batch, "distance")?.as_primitive::<Float32Type>();
        for (&cluster, &distance) in clusters.values().iter().zip(distances.values()) {
            let place = self.clusters.place(cluster).ok_or_else(|| unknown(cluster))?;
            self.sizes[place] += 1;
            self.distances[place] += f64::from(distance);
        }
        let Some(label) = &columns.label else {
            return Ok(());
        };
        let labels = text(batch, label)?;
        let parts = columns.split.as_ref().map(|s| text(batch, s)).transpose()?;
        count(&mut self.scores, clusters.values(), &labels, parts.as_deref());
        if let Some(raw) = &columns.raw {
            let raw = typed(batch, raw)?.as_primitive::<Int32Type>();
            count(&mut self.raw, raw.values(), &labels, parts.as_deref());
        }
        Ok(())
    }

    /// Agreement with the labels of the clusters, and of raw k-means' clusters, by split and over all rows.
    pub fn scores(&self) -> (BTreeMap<String, Scores>, BTreeMap<String, Scores>) {
        (scores(&self.scores), scores(&self.raw))
    }

    /// The `clusters` table: cluster, size, centroid, mean distance (null for a cluster without rows). `centroids` come in
    /// the model's order.
    pub fn clusters(&self, centroids: &[f64]) -> Result<RecordBatch> {
        let k = self.sizes.len();
        let dim = centroids.len() / k.max(1);
        let means = self.sizes.iter().zip(&self.distances).map(|(&n, &sum)| (n > 0).then(|| sum / n as f64));
        let item = Arc::new(Field::new("item", DataType::Float64, false));
        let values = Arc::new(Float64Array::from(self.clusters.sorted(centroids, dim)));
        let centroid = ListArray::try_new(item, OffsetBuffer::from_lengths(vec![dim; k]), values, None)?;
        Ok(RecordBatch::try_from_iter([
            ("cluster", Arc::new(Int32Array::from(self.ids().to_vec())) as ArrayRef),
            ("size", Arc::new(Int64Array::from_iter_values(self.sizes.iter().map(|&n| n as i64)))),
            ("centroid", Arc::new(centroid)),
            ("mean_distance", Arc::new(Float64Array::from_iter(means))),
        ])?)
    }
}

fn unknown(cluster: i32) -> Error {
    Error::internal(format!("a stage labelled a row with cluster {cluster}, which it does not have"))
}

fn count(
    tables: &mut BTreeMap<String, Contingency>,
    clusters: &[i32],
    labels: &StringArray,
    parts: Option<&StringArray>,
) {
    for (i, cluster) in clusters.iter().enumerate() {
        if labels.is_null(i) {
            continue;
        }
        if let Some(parts) = parts {
            let part = parts.is_valid(i).then(|| parts.value(i));
            table(tables, &part_name(part)).add(*cluster, labels.value(i));
        }
        table(tables, ALL).add(*cluster, labels.value(i));
    }
}

fn table<'a>(tables: &'a mut BTreeMap<String, Contingency>, part: &str) -> &'a mut Contingency {
    if !tables.contains_key(part) {
        tables.insert(part.to_string(), Contingency::default());
    }
    tables.get_mut(part).expect("inserted above")
}

fn scores(tables: &BTreeMap<String, Contingency>) -> BTreeMap<String, Scores> {
    let of = |t: &Contingency| Scores { rows: t.rows(), ari: t.ari(), nmi: t.nmi(), acc: t.accuracy().ok() };
    tables.iter().map(|(part, t)| (part.clone(), of(t))).collect()
}

fn typed<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| column::missing(&batch.schema(), name))
}

fn text(batch: &RecordBatch, name: &str) -> Result<Arc<StringArray>> {
    Ok(Arc::new(column::label_texts(typed(batch, name)?, name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float32Array;

    #[test]
    fn a_part_that_is_called_all_is_no_second_count_of_all_rows() {
        let mut tally = Tally::new(&[0, 1]);
        let batch = RecordBatch::try_from_iter([
            ("cluster", Arc::new(Int32Array::from(vec![0, 0, 1, 1, 1])) as ArrayRef),
            ("distance", Arc::new(Float32Array::from(vec![0.5; 5])) as _),
            ("y", Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("b"), Some("b"), None])) as _),
            ("part", Arc::new(StringArray::from(vec![Some("all"), Some("train"), None, Some("NULL"), None])) as _),
        ]);
        let columns = Columns { label: Some("y".into()), split: Some("part".into()), raw: None };
        tally.add(&batch.unwrap(), &columns).unwrap();
        let rows: Vec<(String, u64)> = tally.scores().0.into_iter().map(|(part, of)| (part, of.rows)).collect();
        let expected = [("\"NULL\"", 1), ("\"all\"", 1), ("NULL", 1), ("all", 4), ("train", 1)];
        assert_eq!(rows, expected.map(|(part, rows)| (part.to_string(), rows)));
    }

    #[test]
    fn clusters_are_counted_by_id_and_listed_in_the_order_of_the_ids() {
        let mut tally = Tally::new(&[7, 2]);
        let batch = |cluster| {
            RecordBatch::try_from_iter([
                ("cluster", Arc::new(Int32Array::from(vec![cluster, 7])) as ArrayRef),
                ("distance", Arc::new(Float32Array::from(vec![0.5, 1.5])) as _),
            ])
            .unwrap()
        };
        tally.add(&batch(2), &Columns::default()).unwrap();
        assert_eq!((tally.ids(), tally.sizes()), (&[2, 7][..], &[1, 1][..]));
        let clusters = tally.clusters(&[70.0, 71.0, 20.0, 21.0]).unwrap();
        let centroids = clusters.column(2).as_list::<i32>();
        let first = centroids.value(0);
        assert_eq!(first.as_primitive::<datafusion::arrow::datatypes::Float64Type>().values(), &[20.0, 21.0]);
        let e = tally.add(&batch(3), &Columns::default()).unwrap_err();
        assert!(e.to_string().contains("cluster 3"), "{e}");
    }
}
