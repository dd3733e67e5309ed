//! Which features have different integers or decimals that are the same number in double precision, as integers beyond
//! 2^53 may be.
//!
//! Most columns cannot have such values, by their type or by the statistics in the footers. Of the others, some rows
//! are looked at, spread over the files and their row groups, before vectors are read as numbers.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::file::statistics::Statistics;

use super::file::ParquetFile;
use super::files::VectorFile;
use super::lists::Lists;
use super::types::item_type;
use super::{Features, ParquetSpec};
use crate::error::{Kind, Result};
use crate::origin::{Fallen, fell_together};
use crate::source::fence::fenced_async;

/// Rows that are looked at.
const ROWS: usize = 1024;
/// Values that are looked at, where vectors are long.
const VALUES: usize = 1 << 18;
/// Files and row groups of a file that these rows are in, spread evenly.
const FILES: usize = 8;
const GROUPS: usize = 8;
/// Every integer up to this one is a number in double precision.
const EXACT: u64 = 1 << 53;
/// Decimals of so many digits stay different.
const DIGITS: u8 = 15;

/// The features that fall together, by position. Files that are damaged say so when they are scanned.
///
/// # Errors
/// Kind `Io` if a file cannot be read.
pub(super) async fn rounded(files: &[VectorFile], spec: &ParquetSpec, dim: usize) -> Result<Vec<Fallen>> {
    let mut seen: Vec<Seen> = (0..dim).map(|_| Seen::default()).collect();
    let sampled = files.len().min(FILES);
    let rows = ROWS.min(VALUES / dim.max(1)).div_ceil(sampled.max(1));
    for file in (0..sampled).map(|i| &files[i * files.len() / sampled]) {
        match fenced_async(file.name(), look(file, spec, rows, &mut seen)).await {
            Err(e) if e.kind() != Kind::Input => return Err(e),
            _ => {}
        }
    }
    let fallen = seen.iter().enumerate().map(|(feature, seen)| {
        let (values, left) = (seen.texts.len(), seen.numbers.len());
        Fallen { feature, values, left }
    });
    Ok(fallen.filter(|fallen| fell_together(fallen.values, fallen.left)).collect())
}

/// The different values of a feature, as they are stored and as numbers.
#[derive(Default)]
struct Seen {
    texts: HashSet<String>,
    numbers: HashSet<u64>,
}

impl Seen {
    /// Takes value `at`, unless it is null.
    fn take(&mut self, texts: &StringArray, numbers: &ArrayRef, at: usize) {
        let numbers = numbers.as_primitive::<Float64Type>();
        if texts.is_valid(at) && numbers.is_valid(at) {
            // Most values are there already.
            if !self.texts.contains(texts.value(at)) {
                self.texts.insert(texts.value(at).to_owned());
            }
            self.numbers.insert(numbers.value(at).to_bits());
        }
    }
}

/// Looks at some rows of `file`.
async fn look(file: &VectorFile, spec: &ParquetSpec, rows: usize, seen: &mut [Seen]) -> Result<()> {
    let open = ParquetFile::open(file, spec).await?;
    let mut wide = Vec::new();
    for (at, name) in spec.features.columns().iter().enumerate() {
        if is_wide(open.stored_type(name)?) && may_round(&open, name)? {
            wide.push((at, name.as_str()));
        }
    }
    if wide.is_empty() {
        return Ok(());
    }
    let leaves = open.leaves(wide.iter().map(|(_, name)| *name))?;
    let mask = ProjectionMask::leaves(open.metadata().parquet_schema(), leaves);
    let local = open.local()?;
    let groups = open.metadata().metadata().num_row_groups();
    // Of a remote file, a row group is fetched at once.
    let sampled = groups.min(if local.is_some() { GROUPS } else { 1 });
    let rows = rows.div_ceil(sampled.max(1));
    for group in (0..sampled).map(|i| i * groups / sampled) {
        let batch = match &local {
            Some(local) => open.group(open.metadata(), local, group, mask.clone(), rows)?.next().transpose()?,
            None => open.remote_group(open.metadata(), group, mask.clone(), rows)?.try_next().await?,
        };
        let Some(batch) = batch else { continue };
        for (at, name) in &wide {
            take(&open, &batch, name, &spec.features, *at, seen)?;
        }
    }
    Ok(())
}

/// Takes the values of a column: vectors, or values of feature number `at`.
fn take(
    open: &ParquetFile,
    batch: &RecordBatch,
    name: &str,
    features: &Features,
    at: usize,
    seen: &mut [Seen],
) -> Result<()> {
    let stored = open.column(name)?.of_stored(batch)?;
    match features {
        Features::Columns(_) => {
            let (texts, numbers) = (cast(&stored, &DataType::Utf8)?, cast(&stored, &DataType::Float64)?);
            (0..stored.len()).for_each(|row| seen[at].take(texts.as_string(), &numbers, row));
        }
        Features::Column(_) => {
            let lists = Lists::<f64>::of(&stored)?;
            let items = lists.stored_items()?;
            let (texts, numbers) = (cast(&items, &DataType::Utf8)?, cast(&items, &DataType::Float64)?);
            let dim = seen.len();
            let vectors = (0..stored.len()).filter_map(|row| lists.get(row)).filter(|list| list.len() == dim);
            for list in vectors {
                list.zip(&mut *seen).for_each(|(item, seen)| seen.take(texts.as_string(), &numbers, item));
            }
        }
    }
    Ok(())
}

/// Whether a type has values that double precision rounds.
fn is_wide(stored: &DataType) -> bool {
    use DataType::*;
    match stored {
        Dictionary(_, values) => is_wide(values),
        Int64 | UInt64 => true,
        Decimal64(digits, _) | Decimal128(digits, _) | Decimal256(digits, _) => *digits > DIGITS,
        list => item_type(list).is_some_and(is_wide),
    }
}

/// Whether the statistics of some row group allow for values that are rounded.
fn may_round(open: &ParquetFile, name: &str) -> Result<bool> {
    let unsigned = matches!(open.stored_type(name)?, DataType::UInt64)
        || item_type(open.stored_type(name)?).is_some_and(|item| *item == DataType::UInt64);
    let exact = |value: i64| if unsigned { value as u64 <= EXACT } else { value.unsigned_abs() <= EXACT };
    let leaves = open.leaves(std::iter::once(name))?;
    let chunks =
        open.metadata().metadata().row_groups().iter().flat_map(|group| leaves.iter().map(|leaf| group.column(*leaf)));
    Ok(chunks.into_iter().any(|chunk| match chunk.statistics() {
        Some(Statistics::Int64(found)) => match (found.min_opt(), found.max_opt()) {
            (Some(least), Some(most)) => !(exact(*least) && exact(*most)),
            _ => true,
        },
        _ => true,
    }))
}
