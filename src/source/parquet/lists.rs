//! Columns of lists of numbers, and the checks of a list.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::number::Number;
use crate::error::{Error, Result};

/// A column of lists of numbers, in single or double precision.
pub(super) struct Lists<T: Number> {
    list: ArrayRef,
    values: PrimitiveArray<T::Arrow>,
}

impl<T: Number> Lists<T> {
    /// The lists of a column, which must have been checked to hold lists of numbers.
    pub(super) fn of(list: &ArrayRef) -> Result<Self> {
        let list = match list.data_type() {
            DataType::ListView(item) => cast(list, &DataType::List(Arc::clone(item)))?,
            DataType::LargeListView(item) => cast(list, &DataType::LargeList(Arc::clone(item)))?,
            _ => ArrayRef::clone(list),
        };
        let values = cast(items(&list)?, &T::Arrow::DATA_TYPE)?.as_primitive::<T::Arrow>().clone();
        Ok(Self { list, values })
    }

    /// The values of all lists as they are stored.
    pub(super) fn stored_items(&self) -> Result<ArrayRef> {
        items(&self.list).cloned()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The range of the values of list `i`; `None` if it is null.
    pub(super) fn get(&self, i: usize) -> Option<std::ops::Range<usize>> {
        if self.list.is_null(i) {
            return None;
        }
        Some(match self.list.data_type() {
            DataType::FixedSizeList(..) => {
                let list = self.list.as_fixed_size_list();
                let start = list.value_offset(i) as usize;
                start..start + list.value_length() as usize
            }
            DataType::List(_) => {
                let offsets = self.list.as_list::<i32>().value_offsets();
                offsets[i] as usize..offsets[i + 1] as usize
            }
            _ => {
                let offsets = self.list.as_list::<i64>().value_offsets();
                offsets[i] as usize..offsets[i + 1] as usize
            }
        })
    }

    /// Copies list `i` into `row`, or says what is wrong with it.
    /// With `missing`, null and NaN are NaN.
    pub(super) fn copy(&self, i: usize, row: &mut [T], missing: bool) -> Result<(), String> {
        let Some(range) = self.get(i) else {
            return Err(format!("null, expected {} numbers", row.len()));
        };
        if range.len() != row.len() {
            return Err(format!("{} values, expected {}", range.len(), row.len()));
        }
        if self.values.null_count() == 0 {
            let stored = &self.values.values()[range.clone()];
            row.copy_from_slice(stored);
            // All values are visited, without an early exit, so that the loop is vectorized.
            if stored.iter().fold(true, |all, value| all & value.is_single()) {
                return Ok(());
            }
        }
        for (position, (slot, at)) in row.iter_mut().zip(range).enumerate() {
            *slot = number::<T>(&self.values, at, missing).map_err(|e| format!("value {position} is {e}"))?;
        }
        Ok(())
    }
}

fn items(list: &ArrayRef) -> Result<&ArrayRef> {
    Ok(match list.data_type() {
        DataType::FixedSizeList(..) => list.as_fixed_size_list().values(),
        DataType::List(_) => list.as_list::<i32>().values(),
        DataType::LargeList(_) => list.as_list::<i64>().values(),
        other => return Err(Error::internal(format!("lists expected, found {other}"))),
    })
}

/// Value `at`, or what is wrong with it; with `missing`, null and NaN are NaN.
pub(super) fn number<T: Number>(values: &PrimitiveArray<T::Arrow>, at: usize, missing: bool) -> Result<T, String> {
    match missing && (values.is_null(at) || values.value(at).is_missing()) {
        true => Ok(T::of_f32(f32::NAN)),
        false => finite::<T>(values, at),
    }
}

/// Why a row has nothing to be learned from, if all of its values are missing.
pub(super) fn all_missing<T: Number>(row: &[T]) -> Option<String> {
    row.iter().all(|value| value.is_missing()).then(|| "all values are missing, expected at least one".to_owned())
}

/// Value `at`, or what is wrong with it.
fn finite<T: Number>(values: &PrimitiveArray<T::Arrow>, at: usize) -> Result<T, String> {
    let value = values.value(at);
    problem_of((!values.is_null(at)).then_some(value)).map_or(Ok(value), Err)
}

/// What is wrong with a value (`None` for a missing one), if it is not a number that can be learned from.
pub(super) fn problem_of<T: Number>(value: Option<T>) -> Option<String> {
    match value {
        None => Some("null, expected a number".into()),
        Some(value) if value.is_single() => None,
        Some(value) => Some(format!("{value:e}, expected a number that is finite in single precision")),
    }
}
