//! Converts rows from the precision of the source to single precision, in which everything is learned, and reports what
//! is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;
use serde_json::{Map, Value};

use super::collect::{CACHE, Stored};
use crate::column::listed;
use crate::error::{Error, Result};
use crate::kernel::Rows;
use crate::origin::{Fallen, Look, Origin};
use crate::replay::{RowStore, RowStoreBuilder};
use crate::report::{FELL_TOGETHER, FellTogether};

/// The rows in single precision, a sample of them in their old precision, and the origin that was subtracted, if any.
///
/// # Errors
/// Errors of reading and writing the replay cache.
pub(super) fn to_single(rows: Stored, memory: &Arc<dyn MemoryPool>) -> Result<(RowStore, Look, Option<Origin>)> {
    let rows = match rows {
        Stored::Single(rows) => {
            let look = Look::at(&rows as &dyn Rows)?;
            return Ok((rows, look, None));
        }
        Stored::Double(rows) => rows,
    };
    let look = Look::at(&rows as &dyn Rows<f64>)?;
    let origin = Origin::learn(&look);
    let subtracted = origin.clone().unwrap_or_else(|| Origin::zero(rows.dim()));
    let builder = RowStoreBuilder::new(CACHE, rows.dim(), memory);
    let single = rows.drain_into(builder, |values, out| subtracted.subtract(values, out))?;
    Ok((single, look, origin))
}

/// The features that fell together as they were `read`, and those that fell together after that, by their places.
pub(super) fn joined(read: &[Fallen], after: Vec<Fallen>) -> Vec<Fallen> {
    let mut all: BTreeMap<usize, Fallen> = read.iter().map(|fallen| (fallen.feature, *fallen)).collect();
    for fallen in after {
        // Its values are already fewer than they were in the file.
        all.entry(fallen.feature).and_modify(|known| known.left = known.left.min(fallen.left)).or_insert(fallen);
    }
    all.into_values().collect()
}

/// The same with the features' names; a feature without a name is called by its index.
pub(super) fn named(fallen: &[Fallen], names: &[String]) -> Vec<FellTogether> {
    let name = |place: usize| names.get(place).cloned().unwrap_or_else(|| place.to_string());
    fallen
        .iter()
        .map(|fallen| FellTogether { feature: name(fallen.feature), values: fallen.values, left: fallen.left })
        .collect()
}

/// A warning, if different values of a feature became equal in the `rows` that were examined.
pub(super) fn warning(fallen: &[FellTogether], rows: usize) -> Option<String> {
    let each: Vec<String> = fallen.iter().map(FellTogether::describe).collect();
    let each = listed(each.iter().map(String::as_str));
    (!fallen.is_empty()).then(|| {
        format!("single precision does not distinguish all values of these features, in {rows} rows examined: {each}")
    })
}

/// The same as figures of the source's step.
///
/// # Errors
/// Kind `Internal` if they cannot be written as JSON.
pub(super) fn figures(fallen: &[FellTogether]) -> Result<Map<String, Value>> {
    if fallen.is_empty() {
        return Ok(Map::new());
    }
    let value = serde_json::to_value(fallen)
        .map_err(|e| Error::internal("cannot write the features that fell together as JSON").with_source(e))?;
    Ok([(FELL_TOGETHER.to_owned(), value)].into_iter().collect())
}
