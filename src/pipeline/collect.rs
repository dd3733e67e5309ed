//! The first pass: the rows to learn from, out of the source and into the replay cache.

use std::collections::HashMap;
use std::time::Instant;

use arrow::array::{Array, RecordBatch};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use crate::column;
use crate::error::{Error, Result};
use crate::event::{Control, Event};
use crate::kernel::Rows;
use crate::replay::{RowStore, RowStoreBuilder};
use crate::stage::FEATURES;

/// Most classes that are learned from: feature weights hold sums for each class and feature.
const MOST_CLASSES: usize = 10_000;

/// Rows to learn from.
pub(super) struct Collected {
    /// The feature vectors, as the source yields them.
    pub rows: RowStore,
    /// The class of each row, where a stage learns from a label column.
    pub classes: Option<Vec<Option<u32>>>,
    /// SHA-256 of the rows and their classes, in hex: what `--resume` compares.
    pub digest: String,
}

/// Drains `stream`, whose columns are the features and perhaps `label`, into `builder`.
pub(super) async fn collect(
    mut stream: SendableRecordBatchStream,
    mut builder: RowStoreBuilder,
    label: Option<&str>,
    control: &Control,
) -> Result<Collected> {
    let began = Instant::now();
    control.emit(Event::Started { stage: "source".into(), unit: "rows", total: None });
    let mut classes = label.map(|_| Classes::default());
    let mut hash = Sha256::new();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        control.check()?;
        let batch = batch?;
        let (values, _) = column::vectors(&batch, FEATURES)?;
        for block in values.chunks(1024) {
            let bytes: Vec<u8> = block.iter().flat_map(|v| v.to_le_bytes()).collect();
            hash.update(bytes);
        }
        builder.push(values)?;
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
    Ok(Collected { rows: store, classes, digest })
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
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, Int32Array, StringArray};

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
