//! The first pass: reads the rows to learn from into the replay cache.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, RecordBatch};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::column::{self, Values};
use crate::error::{Error, Result};
use crate::event::{Control, Event};
use crate::kernel::Rows;
use crate::replay::{RowStore, RowStoreBuilder};
use crate::stage::FEATURES;

/// The most different labels to learn from: feature weights hold sums for each label and feature.
const MOST_CLASSES: usize = 10_000;

/// The name of the memory reservation for the rows to learn from.
pub(super) const CACHE: &str = "replay cache";

/// Rows to learn from.
pub(super) struct Collected {
    /// The feature vectors of the source.
    pub rows: Stored,
    /// The class of each row (the number of its label), if a stage learns from a label column.
    pub classes: Option<Vec<Option<u32>>>,
    /// The number of distinct rows, counted up to what was asked for.
    pub distinct: usize,
    /// SHA-256 of the rows and their classes, in hex: what `--resume` compares.
    pub digest: String,
}

/// Rows in the precision of the source.
pub(super) enum Stored {
    Single(RowStore),
    Double(RowStore<f64>),
}

impl Stored {
    pub fn len(&self) -> usize {
        match self {
            Self::Single(rows) => rows.len(),
            Self::Double(rows) => rows.len(),
        }
    }

    pub fn dim(&self) -> usize {
        match self {
            Self::Single(rows) => rows.dim(),
            Self::Double(rows) => rows.dim(),
        }
    }

    pub fn spilled_rows(&self) -> usize {
        match self {
            Self::Single(rows) => rows.spilled_rows(),
            Self::Double(rows) => rows.spilled_rows(),
        }
    }
}

/// Collects rows, in the precision of the source.
enum Builder {
    Single(RowStoreBuilder),
    Double(RowStoreBuilder<f64>),
}

impl Builder {
    /// Appends rows, and their bytes to `hash`.
    fn push(&mut self, values: Values<'_>, hash: &mut Sha256) -> Result<()> {
        match (self, values) {
            (Self::Single(rows), Values::Single(values)) => {
                for block in values.chunks(1024) {
                    hash.update(block.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
                }
                rows.push(values)
            }
            (Self::Double(rows), Values::Double(values)) => {
                for block in values.chunks(1024) {
                    hash.update(block.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
                }
                rows.push(values)
            }
            _ => Err(Error::internal("a source of two precisions")),
        }
    }

    fn finish(self) -> Result<Stored> {
        match self {
            Self::Single(rows) => rows.finish().map(Stored::Single),
            Self::Double(rows) => rows.finish().map(Stored::Double),
        }
    }
}

/// Reads `stream`, whose columns are the features and perhaps `label`, into a replay cache that takes its memory from
/// `memory`. Distinct rows are counted up to `most`.
pub(super) async fn collect(
    mut stream: SendableRecordBatchStream,
    memory: &Arc<dyn MemoryPool>,
    label: Option<&str>,
    most: usize,
    control: &Control,
) -> Result<Collected> {
    let began = Instant::now();
    control.emit(Event::Started { stage: "source".into(), unit: "rows", total: None });
    let mut classes = label.map(|_| Classes::default());
    let schema = stream.schema();
    let dim = column::vector_dim(&schema, FEATURES)?;
    let mut builder = match column::is_double(&schema, FEATURES) {
        true => Builder::Double(RowStoreBuilder::new(CACHE, dim, memory)),
        false => Builder::Single(RowStoreBuilder::new(CACHE, dim, memory)),
    };
    let mut hash = Sha256::new();
    let mut distinct = Distinct { most, seen: HashSet::new() };
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        control.check()?;
        let batch = batch?;
        let values = column::values(&batch, FEATURES)?.0;
        distinct.push(values, dim);
        builder.push(values, &mut hash)?;
        if let (Some(classes), Some(label)) = (&mut classes, label) {
            classes.push(&batch, label)?;
        }
        rows += batch.num_rows() as u64;
        let rows_per_second = Some(rows as f64 / began.elapsed().as_secs_f64());
        control.emit(Event::Progress { stage: "source".into(), done: rows, loss: None, rows_per_second });
    }
    let store = builder.finish()?;
    let classes = classes.map(|c| c.codes);
    for class in classes.iter().flatten() {
        hash.update(class.map_or(u32::MAX, |c| c).to_le_bytes());
    }
    let digest = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    control.emit(Event::Finished {
        stage: "source".into(),
        seconds: began.elapsed().as_secs_f64(),
        summary: match store.spilled_rows() {
            0 => format!("{} rows of {} values", store.len(), store.dim()),
            n => format!("{} rows of {} values, {n} of them spilled to disk", store.len(), store.dim()),
        },
    });
    Ok(Collected { rows: store, classes, distinct: distinct.seen.len(), digest })
}

/// Counts distinct rows by their hashes, up to a limit, after which rows are no longer hashed.
struct Distinct {
    most: usize,
    seen: HashSet<u64>,
}

impl Distinct {
    fn push(&mut self, values: Values<'_>, dim: usize) {
        // 0 and -0 are equal.
        match values {
            Values::Single(values) => self.rows(values, dim, |value| u64::from((value + 0.0).to_bits())),
            Values::Double(values) => self.rows(values, dim, |value| (value + 0.0).to_bits()),
        }
    }

    fn rows<T: Copy>(&mut self, values: &[T], dim: usize, bits: impl Fn(T) -> u64) {
        for row in values.chunks_exact(dim.max(1)) {
            if self.seen.len() >= self.most {
                return;
            }
            let mut hash = DefaultHasher::new();
            row.iter().for_each(|&value| hash.write_u64(bits(value)));
            self.seen.insert(hash.finish());
        }
    }
}

/// Numbers the values of a label column in the order in which they first appear.
#[derive(Default)]
struct Classes {
    numbers: HashMap<String, u32>,
    codes: Vec<Option<u32>>,
}

impl Classes {
    fn push(&mut self, batch: &RecordBatch, label: &str) -> Result<()> {
        let column = batch.column_by_name(label).ok_or_else(|| column::missing(&batch.schema(), label))?;
        let text = column::label_texts(column, label)?;
        for i in 0..text.len() {
            let code = match text.is_null(i) {
                true => None,
                false => {
                    let next = self.numbers.len() as u32;
                    if self.numbers.len() > MOST_CLASSES {
                        return Err(Error::input(format!(
                            "column {label:?} has more than {MOST_CLASSES} different labels; is it an identifier?"
                        )));
                    }
                    Some(match self.numbers.get(text.value(i)) {
                        Some(&code) => code,
                        None => *self.numbers.entry(text.value(i).to_string()).or_insert(next),
                    })
                }
            };
            self.codes.push(code);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, StringArray};

    #[test]
    fn distinct_rows_are_counted_up_to_some() {
        let count = |most, values: Values<'_>| {
            let mut distinct = Distinct { most, seen: HashSet::new() };
            distinct.push(values, 2);
            distinct.seen.len()
        };
        let rows = [0.0f32, 1.0, 1.0, 0.0, -0.0, 1.0, 0.0, 1.0, 2.0, 2.0];
        assert_eq!([0, 2, 3, 9].map(|most| count(most, Values::Single(&rows))), [0, 2, 3, 3]);
        let near = [1.0f64, 2.0, 1.0 + f64::EPSILON, 2.0];
        assert_eq!(count(9, Values::Double(&near)), 2);
    }

    #[test]
    fn classes_are_numbered_as_they_appear() {
        let mut classes = Classes::default();
        for column in [
            Arc::new(StringArray::from(vec![Some("b"), None, Some("a"), Some("b")])) as ArrayRef,
            Arc::new(StringArray::from(vec!["a", "c"])),
        ] {
            classes.push(&RecordBatch::try_from_iter([("label", column)]).unwrap(), "label").unwrap();
        }
        assert_eq!(classes.codes, [Some(0), None, Some(1), Some(0), Some(1), Some(2)]);
        let numbers = RecordBatch::try_from_iter([("label", Arc::new(Int32Array::from(vec![7, 5, 7])) as ArrayRef)]);
        let mut classes = Classes::default();
        classes.push(&numbers.unwrap(), "label").unwrap();
        assert_eq!(classes.codes, [Some(0), Some(1), Some(0)]);
    }
}
